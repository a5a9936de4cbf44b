//! The HTTP upgrade: which requests are accepted, and how the others are refused.

use crate::harness::{
    Client, RawClient, Server, UPGRADE_REQUEST, for_shards, frame, opcode, shortened, subscribe, subscribed,
    text_frame, unsubscribe, unsubscribed,
};
use crate::protocol::{ping, pong};
use std::time::Duration;

for_shards!(
    and_over_tls,
    requests_in_the_upgrades_own_segment,
    upgrade_on_any_path,
    upgrade_on_configured_paths_only,
    upgrade_answers_as_rfc_6455_says,
    bad_upgrade_requests_get_http_errors,
    a_refused_pusher_client_ends_the_stream,
);

fn requests_in_the_upgrades_own_segment(shards: usize) {
    let server = Server::start(shards);
    let mut client = RawClient::tcp(&server);
    let requests = [text_frame(&subscribe("a")), text_frame(&ping(1)), text_frame(&unsubscribe("a"))].concat();
    client.write(&[UPGRADE_REQUEST.as_bytes(), &requests].concat());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client.expect_connected();
    client.expect(&subscribed("a"));
    client.expect(&pong(1));
    client.expect(&unsubscribed("a"));
}

/// The upgrade request with another request line.
fn upgrade_request_for(path: &str) -> String {
    UPGRADE_REQUEST.replace("/chat", path)
}

/// The status code of the answer to an upgrade request.
fn status_of(server: &Server, request: &str) -> (RawClient, String) {
    let mut client = RawClient::tcp(server);
    client.write(request.as_bytes());
    let head = client.head();
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or_default();
    let status = status.to_owned();
    assert!(!status.is_empty(), "no HTTP response to {}: {head:?}", shortened(request));
    (client, status)
}

fn upgrade_on_any_path(shards: usize) {
    let server = Server::start(shards);
    for path in ["/", "/ws", "/apps/1?protocol=7", "/a/b/c%20d/", "/?", "/?a=/b"] {
        let (mut client, status) = status_of(&server, &upgrade_request_for(path));
        assert_eq!(status, "101", "{path}");
        client.expect_connected();
    }
}

fn upgrade_on_configured_paths_only(shards: usize) {
    let server = Server::options(shards).arg("--path", "/ws").arg("--path", "/app/one").start();
    for path in ["/ws", "/ws?token=1", "/app/one"] {
        let (mut client, status) = status_of(&server, &upgrade_request_for(path));
        assert_eq!(status, "101", "{path}");
        client.expect_connected();
    }
    for path in ["/", "/w", "/wss", "/ws/x", "/app", "/app/two", "/WS", "/?/ws"] {
        let (_, status) = status_of(&server, &upgrade_request_for(path));
        assert_eq!(status, "404", "{path}");
    }
}

fn upgrade_answers_as_rfc_6455_says(shards: usize) {
    let server = Server::start(shards);
    let extra = "Sec-WebSocket-Protocol: chat, superchat\r\n\
        Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
        Cookie: a=b\r\n\r\n";
    for request in [
        UPGRADE_REQUEST.to_owned(),
        format!("{}{extra}", UPGRADE_REQUEST.strip_suffix("\r\n").expect("ends with an empty line")),
        UPGRADE_REQUEST.replace("Upgrade: websocket", "upgrade: WebSocket"),
        UPGRADE_REQUEST.replace("Connection: Upgrade", "connection: keep-alive, Upgrade"),
    ] {
        let mut client = RawClient::tcp(&server);
        client.write(request.as_bytes());
        let head = client.head();
        let lines: Vec<String> = head.lines().map(str::to_ascii_lowercase).collect();
        assert!(head.starts_with("HTTP/1.1 101 "), "{request}{head}");
        assert!(lines.iter().any(|line| line == "upgrade: websocket"), "{head}");
        assert!(lines.iter().any(|line| line == "connection: upgrade"), "{head}");
        // The accept key of RFC 6455's own example.
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        assert!(!lines.iter().any(|line| line.starts_with("sec-websocket-extensions")), "{head}");
        assert!(!lines.iter().any(|line| line.starts_with("sec-websocket-protocol")), "{head}");
        client.expect_connected();
    }
}

fn bad_upgrade_requests_get_http_errors(shards: usize) {
    let server = Server::start(shards);
    let padding = format!("X-Padding: {}\r\n\r\n", "x".repeat(20_000));
    let cases = [
        ("not HTTP", "NONSENSE\r\n\r\n".to_owned(), None),
        ("POST", UPGRADE_REQUEST.replace("GET", "POST"), None),
        ("HTTP/1.0", UPGRADE_REQUEST.replace("HTTP/1.1", "HTTP/1.0"), None),
        ("plain GET", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), None),
        ("no Upgrade", UPGRADE_REQUEST.replace("Upgrade: websocket\r\n", ""), None),
        ("another Upgrade", UPGRADE_REQUEST.replace("Upgrade: websocket", "Upgrade: h2c"), None),
        ("no Connection", UPGRADE_REQUEST.replace("Connection: Upgrade\r\n", ""), None),
        ("no key", UPGRADE_REQUEST.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), None),
        ("no version", UPGRADE_REQUEST.replace("Sec-WebSocket-Version: 13\r\n", ""), None),
        ("version 8", UPGRADE_REQUEST.replace("Version: 13", "Version: 8"), None),
        ("no Host", UPGRADE_REQUEST.replace("Host: server.example.com\r\n", ""), Some("400")),
        ("two Hosts", UPGRADE_REQUEST.replace("Host: ", "Host: a\r\nHost: "), Some("400")),
        ("an invalid Host", UPGRADE_REQUEST.replace("Host: server.example.com", "Host: a b"), Some("400")),
        ("an asterisk as target", upgrade_request_for("*"), Some("400")),
        ("an authority as target", upgrade_request_for("x:80"), Some("400")),
        ("a name as target", upgrade_request_for("foo"), Some("400")),
        ("header without colon", UPGRADE_REQUEST.replace("Origin: ", "Origin "), None),
        ("beyond the limit", UPGRADE_REQUEST.replace("\r\n\r\n", &format!("\r\n{padding}")), Some("431")),
    ];
    for (case, request, expected) in cases {
        let mut client = RawClient::tcp(&server);
        client.write_anyway(request.as_bytes());
        let head = client.head();
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or_default();
        assert!(status.starts_with(['4', '5']), "{case}: {head:?}");
        assert!(head.contains("\r\nDate: ") && head.contains(" GMT\r\n"), "{case}: {head:?}");
        assert!(expected.is_none_or(|expected| expected == status), "{case}: {head:?}");
        // The connection ends. At most a response body may follow.
        let rest = client.rest();
        assert!(!rest.starts_with(&[0x81]), "{case}: a frame follows: {}", rest.escape_ascii());
    }
    Client::connect(&server).expect_nothing_before_pong();
}

/// Firefox loses the message if the end of the stream comes with it.
fn a_refused_pusher_client_ends_the_stream(shards: usize) {
    let server = Server::start(shards);
    // The server waits three seconds for the client's close frame, so not each time if this machine stalls.
    assert!((0..5).any(|_| stays_open_after_a_refusal(&server)), "the end follows the close frame at once");
}

fn stays_open_after_a_refusal(server: &Server) -> bool {
    let (mut client, status) = status_of(server, &upgrade_request_for("/app/unknown"));
    assert_eq!(status, "101");
    let why = "App key unknown does not exist";
    client.expect(&format!(r#"{{"event":"pusher:error","data":{{"code":4001,"message":"{why}"}}}}"#));
    let close = [&4001_u16.to_be_bytes(), why.as_bytes()].concat();
    assert_eq!(client.frame(), (opcode::CLOSE, close.clone()));
    let stays_open = !client.ends_within(Duration::from_millis(300));
    client.write_anyway(&frame(opcode::CLOSE, &close));
    assert_eq!(client.rest(), b"");
    stays_open
}
