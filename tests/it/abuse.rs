//! What strangers may not do: connect from pages that are not allowed, take more than their share, say who they are not.

use crate::harness::*;
use serde_json::{Value, json};

/// Browsers say which page connects; other programs say nothing, or what they like.
#[test]
fn pages_connect_from_the_origins_allowed() {
    let server = Server::options(1)
        .arg("--allow-origin", "https://example.com")
        .arg("--allow-origin", "https://*.example.org")
        .start();
    for allowed in ["Origin: https://example.com\r\n", "Origin: https://a.example.org\r\n", ""] {
        assert_eq!(status(&server, &request("/", allowed)), "101", "{allowed}");
    }
    for refused in ["Origin: https://example.com.evil.net\r\n", "Origin: https://example.org\r\n", "Origin: null\r\n"] {
        assert_eq!(status(&server, &request("/", refused)), "403", "{refused}");
    }
    let stats = stats(&mut Admin::connect(&server));
    assert_eq!((&stats["upgrades_refused_origin_not_allowed"], &stats["upgrades_refused"]), (&json!(3), &json!(3)));
}

/// What is refused is counted by what was wrong with it.
#[test]
fn requests_have_a_path_and_a_size() {
    let server = Server::options(1).arg("--path", "/live").arg("--max-request", 512).start();
    assert_eq!(status(&server, &request("/live?a=b", "")), "101");
    assert_eq!(status(&server, &request("/other", "")), "404");
    assert_eq!(status(&server, &request("/live", &format!("Cookie: {}\r\n", "x".repeat(512)))), "431");
    let stats = stats(&mut Admin::connect(&server));
    for why in ["path_not_served", "request_too_large"] {
        assert_eq!(stats[format!("upgrades_refused_{why}")], 1, "{why}");
    }
    assert_eq!(stats["closes_upgrade_refused"], 2);
}

/// An upgrade request with these header lines beside those that it needs.
fn request(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// The status that the request is answered with.
fn status(server: &Server, request: &str) -> String {
    let mut client = RawClient::tcp(server);
    client.write(request.as_bytes());
    client.head().split(' ').nth(1).unwrap_or_default().to_owned()
}

fn stats(admin: &mut Admin) -> Value {
    admin.ok(json!({"id": 1, "command": "stats"}))["stats"].clone()
}
