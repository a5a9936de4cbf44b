//! Every event of the founding document, as whole frames.

use crate::harness::{Admin, Client, Server, already_subscribed, for_shards, not_subscribed, subscribed, unsubscribed};
use serde_json::{Value, json};
use std::net::TcpStream;

for_shards!(
    and_over_tls,
    socket_connected,
    socket_subscribe,
    socket_subscribed,
    socket_subscribe_error,
    socket_unsubscribe,
    socket_unsubscribed,
    socket_unsubscribe_error,
    client_socket_ping,
    socket_pong,
    server_socket_ping,
    client_socket_pong,
);

/// The document's own example of a subscribe, with its white space and an `auth` that is not needed.
const SUBSCRIBE: &str = r#"{
    "event": "socket:subscribe",
    "data": {
        "channel": "user:13",
        "auth": "XXXXX"
    }
}"#;

const UNSUBSCRIBE: &str = r#"{
    "event": "socket:unsubscribe",
    "data": {
        "channel": "user:13"
    }
}"#;

fn socket_connected(shards: usize) {
    for (interval, timeout) in [(30, 25), (7, 3)] {
        let server = Server::options(shards).heart(interval, timeout).start();
        let mut seen = Vec::new();
        for _ in 0..8 {
            let mut client = Client::upgrade(TcpStream::connect(server.address).expect("the server accepts"));
            let text = client.text();
            let value: Value = serde_json::from_str(&text).expect("JSON");
            let socket_id = value["data"]["socket_id"].as_str().expect("socket_id is a string").to_owned();
            let heart = json!({"interval": interval, "timeout": timeout});
            assert_eq!(value, json!({"event": "socket:connected", "data": {"socket_id": socket_id, "heart": heart}}));
            assert_eq!(
                text,
                format!(
                    r#"{{"event":"socket:connected","data":{{"socket_id":"{socket_id}","heart":{{"interval":{interval},"timeout":{timeout}}}}}}}"#
                )
            );
            assert_is_uuid(&socket_id);
            client.expect_nothing_before_pong();
            assert!(!seen.contains(&socket_id), "{socket_id} was assigned twice");
            seen.push(socket_id);
        }
    }
}

fn assert_is_uuid(text: &str) {
    let parts: Vec<usize> = text.split('-').map(str::len).collect();
    assert_eq!(parts, [8, 4, 4, 4, 12], "{text} is not a UUID");
    assert!(
        text.bytes().all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
        "{text} is not a UUID"
    );
}

fn socket_subscribe(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    let mut admin = Admin::connect(&server);
    assert_eq!(admin.publish("user:13", "order.paid", json!({"id": 41})), 0);
    client.send(SUBSCRIBE);
    client.expect(&subscribed("user:13"));
    assert_eq!(admin.publish("user:13", "order.paid", json!({"id": 42})), 1);
    assert_eq!(admin.publish("user:14", "order.paid", json!({"id": 43})), 0);
    client.expect(r#"{"event":"order.paid","channel":"user:13","data":{"id":42}}"#);
    client.expect_nothing_before_pong();
}

fn socket_subscribed(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    client.send(SUBSCRIBE);
    let text = client.text();
    assert_eq!(text, r#"{"event":"socket:subscribed","channel":"user:13"}"#);
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value, json!({"event": "socket:subscribed", "channel": "user:13"}));
}

fn socket_subscribe_error(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    let mut admin = Admin::connect(&server);
    client.send(SUBSCRIBE);
    client.expect(&subscribed("user:13"));
    client.send(SUBSCRIBE);
    let text = client.text();
    assert_eq!(
        text,
        r#"{"event":"socket:subscribe.error","channel":"user:13","data":{"error":"the connection is already subscribed to the channel","code":"already_subscribed"}}"#
    );
    assert_eq!(text, already_subscribed("user:13"));
    // Nothing changed: the connection is still subscribed, once.
    assert_eq!(admin.subscribers("user:13"), 1);
    assert_eq!(admin.publish("user:13", "e", json!(1)), 1);
    client.expect(r#"{"event":"e","channel":"user:13","data":1}"#);
    client.expect_nothing_before_pong();
    client.unsubscribe("user:13");
    assert_eq!(admin.subscribers("user:13"), 0);
}

fn socket_unsubscribe(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    let mut admin = Admin::connect(&server);
    client.subscribe("user:13");
    client.subscribe("user:14");
    client.send(UNSUBSCRIBE);
    client.expect(&unsubscribed("user:13"));
    assert_eq!(admin.subscribers("user:13"), 0);
    assert_eq!(admin.publish("user:13", "e", json!(1)), 0);
    assert_eq!(admin.publish("user:14", "e", json!(2)), 1);
    client.expect(r#"{"event":"e","channel":"user:14","data":2}"#);
    client.expect_nothing_before_pong();
}

fn socket_unsubscribed(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    client.subscribe("user:13");
    client.send(UNSUBSCRIBE);
    let text = client.text();
    assert_eq!(text, r#"{"event":"socket:unsubscribed","channel":"user:13"}"#);
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value, json!({"event": "socket:unsubscribed", "channel": "user:13"}));
    // The channel may be subscribed again.
    client.subscribe("user:13");
}

fn socket_unsubscribe_error(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    let mut other = Client::connect(&server);
    other.subscribe("user:13");
    let expected = r#"{"event":"socket:unsubscribe.error","channel":"user:13","data":{"error":"the connection is not subscribed to the channel","code":"not_subscribed"}}"#;
    client.send(UNSUBSCRIBE);
    client.expect(expected);
    client.subscribe("user:13");
    client.unsubscribe("user:13");
    client.send(UNSUBSCRIBE);
    client.expect(&not_subscribed("user:13"));
    assert_eq!(expected, not_subscribed("user:13"));
    // Nothing changed for the other connection.
    assert_eq!(Admin::connect(&server).subscribers("user:13"), 1);
}

fn client_socket_ping(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    client.send("{\n    \"event\": \"socket:ping\",\n    \"data\": {\n        \"id\": 1\n    }\n}");
    let text = client.text();
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value, json!({"event": "socket:pong", "data": {"reply": 1}}));
    client.expect_nothing_before_pong();
}

fn socket_pong(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    for id in 1..=20 {
        client.send(&json!({"event": "socket:ping", "data": {"id": id}}).to_string());
    }
    for id in 1..=20 {
        client.expect(&format!(r#"{{"event":"socket:pong","data":{{"reply":{id}}}}}"#));
    }
}

fn server_socket_ping(shards: usize) {
    let server = Server::options(shards).heart(1, 10).arg("--server-ping", "on").start();
    let mut client = Client::connect(&server);
    client.expect(r#"{"event":"socket:ping"}"#);
}

fn client_socket_pong(shards: usize) {
    let server = Server::options(shards).heart(1, 15).arg("--server-ping", "on").start();
    let mut client = Client::connect(&server);
    // The server sends the next ping after the pong only, and a reply to a pong would show here.
    for _ in 0..3 {
        client.expect(r#"{"event":"socket:ping"}"#);
        client.send(r#"{"event":"socket:pong"}"#);
    }

    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    // An unsolicited pong has no effect and no reply.
    client.send(r#"{"event":"socket:pong"}"#);
    client.expect_nothing_before_pong();
}
