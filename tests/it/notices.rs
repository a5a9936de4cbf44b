//! What the log says about clients that cannot be served.

use crate::harness::{Client, RawClient, Server, UPGRADE_REQUEST, assert_error, for_shards};
use crate::pusher_peer::{Pusher, connect, options, upgrade};
use std::time::{Duration, Instant};

for_shards!(
    a_refused_request_is_mentioned_with_what_to_change,
    a_client_of_the_other_dialect_is_mentioned,
    a_refused_sign_in_of_a_pusher_client_is_a_warning,
    the_log_cannot_be_filled,
);

/// The line of the log that holds all of these.
#[track_caller]
fn expect_line(server: &Server, parts: &[&str]) -> String {
    let deadline = Instant::now() + crate::harness::LONG;
    loop {
        let log = server.stderr();
        if let Some(line) = log.lines().find(|line| parts.iter().all(|part| line.contains(part))) {
            return line.to_owned();
        }
        assert!(Instant::now() < deadline, "no line with {parts:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn refused(server: &Server, request: &str) {
    let mut client = RawClient::tcp(server);
    client.write(request.as_bytes());
    let head = client.head();
    assert!(!head.starts_with("HTTP/1.1 101"), "{head}");
}

fn a_refused_request_is_mentioned_with_what_to_change(shards: usize) {
    let server = options(shards).arg("--path", "/ws").start();
    refused(&server, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    let line = expect_line(&server, &["upgrade refused", "path_not_served"]);
    assert!(line.contains(" INFO ") && line.contains(r#"request="GET /metrics HTTP/1.1""#), "{line}");
    assert!(line.contains("are on --http") && line.contains("127.0.0.1:"), "{line}");
    refused(&server, "GET /ws HTTP/1.1\r\nHost: a\r\n\r\n");
    expect_line(&server, &["not_an_upgrade", "pass on the headers"]);
    for (path, code, part) in [
        ("/ws/app/nope?protocol=7", 4001, "must be the ID of a key pair"),
        ("/ws/app", 4005, "the path must end in /app/KEY"),
        ("/ws/app/278d425bdf160c739803?protocol=99", 4007, "must be 4, 5, 6 or 7"),
    ] {
        let mut client = upgrade(&server, path);
        assert!(client.text().contains(&code.to_string()));
        client.expect_close(code);
        let line = expect_line(&server, &["Pusher client refused", part]);
        assert!(line.contains(" INFO ") && line.contains(&format!("request={path:?}")), "{line}");
    }
    let server = Server::options(shards).arg("--path", "/ws").start();
    refused(&server, &UPGRADE_REQUEST.replace("/chat", "/app/key?protocol=7"));
    expect_line(&server, &[r#"request="GET /app/key""#, "served on /ws/app/KEY"]);
    let server = Server::options(shards).arg("--pusher", "off").start();
    let mut client = upgrade(&server, "/app/key?protocol=7&client=js");
    assert!(client.text().contains("socket:connected"));
    expect_line(&server, &[r#"request="GET /app/key""#, "--pusher on serves"]);
    let mut client = upgrade(&Server::start(shards), "/app/key");
    client.text();
    client.expect_close(4001);
}

fn a_client_of_the_other_dialect_is_mentioned(shards: usize) {
    let server = options(shards).start();
    let mut client = Client::connect(&server);
    client.send(r#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#);
    assert_error(&client.text(), "socket:error", None, "unknown_event");
    let line = expect_line(&server, &["Pusher clients belong on /app/KEY"]);
    assert!(line.contains(" INFO ") && line.contains(r#"event="pusher:subscribe""#), "{line}");
    let mut client = connect(&server);
    client.send(r#"{"event":"socket:subscribe","data":{"channel":"news"}}"#);
    assert!(client.text().contains("Unsupported event received on socket: 'socket:subscribe'"));
    expect_line(&server, &[r#"event="socket:subscribe""#, "it belongs on another path"]);
}

fn a_refused_sign_in_of_a_pusher_client_is_a_warning(shards: usize) {
    let server = options(shards).start();
    let mut client = connect(&server);
    client.send(r#"{"event":"pusher:signin","data":{"auth":"278d425bdf160c739803:00","user_data":"{\"id\":\"7\"}"}}"#);
    assert!(client.text().contains(r#""code":null"#));
    let line = expect_line(&server, &["the sign-in of a Pusher client is refused"]);
    assert!(line.contains(" WARN ") && line.contains("why="), "{line}");
    client.sign_in(r#"{"id":"7"}"#);
}

fn the_log_cannot_be_filled(shards: usize) {
    let server = options(shards).start();
    for n in 0..50 {
        let mut client = upgrade(&server, &format!("/app/nope{n}"));
        client.text();
        client.expect_close(4001);
        refused(&server, "GET /ws HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut client = Client::connect(&server);
        client.send(r#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#);
        assert_error(&client.text(), "socket:error", None, "unknown_event");
    }
    for part in ["Pusher client refused", "upgrade refused", "Pusher clients belong"] {
        expect_line(&server, &[part]);
        let log = server.stderr();
        assert_eq!(log.lines().filter(|line| line.contains(part)).count(), 1, "{log}");
    }
}
