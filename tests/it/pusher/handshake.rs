//! The request that opens a connection, and its refusals.

use super::client::{Pusher, error, options, request, succeeded};
use crate::auth::{KEY, key};
use crate::harness::{Admin, LONG, RawClient, Server, eventually, for_shards, second_spelling, text_frame};
use serde_json::json;
use std::collections::HashSet;
use std::time::Instant;

for_shards!(
    and_over_tls,
    the_first_message_has_an_id_of_digits,
    versions_4_to_7_are_spoken,
    a_sub_protocol_of_pusher_is_chosen,
    a_path_and_a_key_are_judged,
    a_request_is_refused_for_the_first_reason,
    a_server_that_is_full_says_so,
    what_comes_before_the_first_message_is_answered,
    requests_are_refused_before_the_upgrade,
);

fn the_first_message_has_an_id_of_digits(shards: usize) {
    let server = options(shards).start();
    let mut clients: Vec<Pusher> = (0..8).map(|_| Pusher::connect(&server)).collect();
    clients.iter_mut().for_each(Pusher::expect_nothing);
    let ids: HashSet<String> = clients.iter().map(|client| client.socket_id.clone()).collect();
    assert_eq!(ids.len(), 8);
    // The same connections, in the spelling of the admin socket.
    let reply = Admin::connect(&server).ok(json!({"command": "connections"}));
    let known = reply["connections"].as_array().expect("a list").iter();
    let known: HashSet<String> =
        known.map(|connection| second_spelling(connection["socket_id"].as_str().expect("an id"))).collect();
    assert_eq!(ids, known);

    let server = options(shards).arg("--pusher-activity-timeout", 7).start();
    let (_, mut client) = Pusher::upgrade(&server, &format!("/app/{KEY}"), "");
    let text = client.text();
    assert!(text.ends_with(r#"\"activity_timeout\":7}"}"#), "{text}");
}

fn versions_4_to_7_are_spoken(shards: usize) {
    let server = options(shards).start();
    for query in [
        "",
        "?",
        "?protocol=4",
        "?protocol=5",
        "?protocol=6",
        "?protocol=7",
        "?protocol=7&client=js&version=8.6.0&flash=false",
        "?client=java-client&protocol=5&version=2.4.4",
        "?flash=false&version=x&client=%FF&unknown=1&protocol=6",
        "?protocol=7&protocol=99",
        "?PROTOCOL=99",
    ] {
        Pusher::at(&server, &format!("/app/{KEY}{query}")).expect_nothing();
    }
    for (protocol, code) in [
        ("3", 4007),
        ("8", 4007),
        ("99", 4007),
        ("-7", 4007),
        ("99999999999999999999", 4007),
        ("x", 4006),
        ("", 4006),
        ("7.0", 4006),
        ("%207", 4006),
    ] {
        let (head, mut client) = Pusher::upgrade(&server, &format!("/app/{KEY}?protocol={protocol}"), "");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let text = client.expect_announced_close(code);
        assert!(text.contains("version"), "{text}");
    }
}

fn a_sub_protocol_of_pusher_is_chosen(shards: usize) {
    let server = options(shards).start();
    let target = format!("/app/{KEY}?protocol=7");
    for (lines, chosen) in [
        ("Sec-WebSocket-Protocol: pusher-channels-protocol-7\r\n", Some("pusher-channels-protocol-7")),
        ("Sec-WebSocket-Protocol: chat, pusher-channels-protocol-5\r\n", Some("pusher-channels-protocol-5")),
        (
            "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: pusher-channels-protocol-7\r\n",
            Some("pusher-channels-protocol-7"),
        ),
        ("", None),
        ("Sec-WebSocket-Protocol: chat\r\n", None),
        ("Sec-WebSocket-Protocol: pusher-channels-protocol-\r\n", None),
        ("Sec-WebSocket-Extensions: permessage-deflate\r\n", None),
    ] {
        let (head, client) = Pusher::upgrade(&server, &target, lines);
        client.established().expect_nothing();
        let head = head.to_ascii_lowercase();
        let found = head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(found, chosen, "{lines}");
        assert!(!head.contains("extensions"), "{head}");
    }
}

/// What a path leads to.
#[derive(Debug, PartialEq)]
enum Found {
    Pusher,
    Closed(u16),
    Native,
    Nothing,
}

#[track_caller]
fn check(server: &Server, path: &str, expected: Found) {
    let (head, mut client) = Pusher::upgrade(server, path, "");
    let found = match head.split(' ').nth(1) {
        Some("404") => Found::Nothing,
        Some("101") => {
            let first = client.text();
            match &first {
                text if text.starts_with(r#"{"event":"socket:connected""#) => Found::Native,
                text if text.starts_with(r#"{"event":"pusher:connection_established""#) => Found::Pusher,
                text => {
                    let code = text.split(r#""code":"#).nth(1).and_then(|rest| rest.get(..4)?.parse().ok());
                    let code = code.unwrap_or_else(|| panic!("{path}: {text}"));
                    assert_eq!(first, error(Some(code), &client.expect_close(code)));
                    Found::Closed(code)
                }
            }
        }
        _ => panic!("{path}: {head}"),
    };
    assert_eq!(found, expected, "{path}");
}

fn a_path_and_a_key_are_judged(shards: usize) {
    let dashed =
        |shards| options(shards).arg("--key", "app-key:a-secret-of-its-own").arg("--key", "a/b:another-secret-123");
    let server = dashed(shards).start();
    for path in [
        "/app/app-key",
        "/app/app%2Dkey",
        "/app/app%2dkey?protocol=7",
        "/app/a%2Fb",
        "/app/app",
        "/prefix/app/app-key",
        "/a/b//app/app-key",
        "/app/x/app/app-key",
    ] {
        check(&server, path, Found::Pusher);
    }
    for path in ["/app", "/app/", "/app/app-key/", "/app/app-key/x", "/app//app-key", "/x/app", "/x/app?a=/app/app-key"]
    {
        check(&server, path, Found::Closed(4005));
    }
    for path in [
        "/app/nope",
        "/app/APP-KEY",
        "/app/app-key%20",
        "/app/%00%FF",
        "/app/%C3%A9",
        "/app/app-key%2Fx",
        "/app/hunter2",
    ] {
        check(&server, path, Found::Closed(4001));
    }
    for path in ["/", "/apps/app-key", "/App/app-key", "/xapp/app-key", "/appx"] {
        check(&server, path, Found::Native);
    }

    let server = dashed(shards).arg("--path", "/live").arg("--path", "/app").start();
    for (path, expected) in [
        ("/live/app/app-key", Found::Pusher),
        ("/app/app/app-key", Found::Pusher),
        ("/live", Found::Native),
        ("/app", Found::Native),
        ("/app/app-key", Found::Nothing),
        ("/other/app/app-key", Found::Nothing),
        ("/live/app", Found::Closed(4005)),
        ("/live/app/x/app/app-key", Found::Closed(4005)),
        ("/live/application", Found::Nothing),
    ] {
        check(&server, path, expected);
    }
    let server = dashed(shards).arg("--path", "/").start();
    check(&server, "/app/app-key", Found::Pusher);
    check(&server, "/x/app/app-key", Found::Nothing);
    check(&server, "/", Found::Native);

    let server = dashed(shards).arg("--pusher", "off").start();
    check(&server, "/app/app-key", Found::Native);
    // Without key pairs, every key is unknown.
    let server = Server::start(shards);
    check(&server, "/app/app-key", Found::Closed(4001));
}

fn a_request_is_refused_for_the_first_reason(shards: usize) {
    let server = options(shards).arg("--max-connections", 1).start();
    let refused = |target: &str, code: u16, text: &str| {
        let (_, mut client) = Pusher::upgrade(&server, target, "");
        assert_eq!(client.expect_announced_close(code), text, "{target}");
    };
    let first = Pusher::connect(&server);
    refused("/app/nope/x?protocol=x", 4005, "Path not found");
    refused("/app/nope?protocol=x", 4001, "App key nope does not exist");
    let long = "k".repeat(300);
    refused(&format!("/app/{long}"), 4001, &format!("App key {} does not exist", &long[..100]));
    refused("/app/%22%5C", 4001, "App key \"\\ does not exist");
    refused(&format!("/app/{KEY}?protocol=99"), 4007, "Unsupported protocol version: 4 to 7 are supported");
    refused(&format!("/app/{KEY}?protocol=5"), 4100, "Over capacity");
    drop(first);
}

fn a_server_that_is_full_says_so(shards: usize) {
    let server = options(shards).arg("--max-connections", 1).start();
    let mut first = Pusher::connect(&server);
    for version in 4..=7 {
        let (_, mut client) = Pusher::upgrade(&server, &format!("/app/{KEY}?protocol={version}"), "");
        client.expect(&error(Some(4100), "Over capacity"));
        assert_eq!(client.expect_close(4100), "Over capacity");
    }
    first.expect_nothing();
    drop(first);
    eventually("the place is free again", || {
        let (_, mut client) = Pusher::upgrade(&server, &format!("/app/{KEY}"), "");
        client.text().contains("connection_established")
    });
}

fn what_comes_before_the_first_message_is_answered(shards: usize) {
    let server = options(shards).start();
    let mut raw = RawClient::tcp(&server);
    // As Pysher sends it, with the request in one segment.
    let mut bytes = request(&format!("/app/{KEY}?client=Pysher&version=0.6.0&protocol=6"), "").into_bytes();
    bytes.extend(text_frame(r#"{"event": "pusher:ping", "data": ""}"#));
    bytes.extend(text_frame(r#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#));
    raw.write(&bytes);
    assert!(raw.head().starts_with("HTTP/1.1 101 "));
    let mut client = Pusher { raw, socket_id: String::new() }.established();
    client.expect(super::client::PONG);
    client.expect(&succeeded("news"));
}

fn requests_are_refused_before_the_upgrade(shards: usize) {
    let server = options(shards).arg("--allow-origin", "https://example.com").start();
    let target = format!("/app/{KEY}?protocol=7");
    let status = |server: &Server, lines: &str| {
        let (head, _) = Pusher::upgrade(server, &target, lines);
        head.split(' ').nth(1).map(str::to_owned)
    };
    assert_eq!(status(&server, "Origin: https://other.example\r\n").as_deref(), Some("403"));
    assert_eq!(status(&server, "Origin: https://example.com\r\n").as_deref(), Some("101"));
    assert_eq!(status(&server, "").as_deref(), Some("101"), "not a browser");

    let server = Server::options(shards).arg("--key", key()).arg("--max-connections-per-address", 1).start();
    let _first = Pusher::connect(&server);
    let begin = Instant::now();
    assert_eq!(status(&server, "").as_deref(), Some("429"));
    assert!(begin.elapsed() < LONG);
}
