//! The live tap: what clients do and the server decides, filtered, sampled and limited, while a session reads it.

use crate::harness::{Admin, Client, RawClient, Server, corecast, eventually, for_shards};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

for_shards!(
    everything_is_shown_in_order,
    filters_leave_out_the_rest,
    sightings_beyond_a_limit_are_counted,
    data_is_shown_only_on_request,
    the_number_of_tails_is_limited,
    a_tail_whose_reader_has_left_is_removed,
    a_tail_does_not_delay_the_shutdown,
);

struct Tail(Admin);

impl Tail {
    #[track_caller]
    fn start(server: &Server, mut request: Value) -> Tail {
        request["id"] = 1.into();
        request["command"] = "tail".into();
        let mut admin = Admin::connect(server);
        assert_eq!(admin.ok(request), json!({"id": 1, "ok": true}));
        Tail(admin)
    }

    /// The next line, without time and shard.
    #[track_caller]
    fn next(&mut self) -> Value {
        let line = self.0.line();
        let mut line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("no JSON ({error}): {line}"));
        let members = line.as_object_mut().expect("an object");
        assert!(members.remove("time_ms").and_then(|ms| ms.as_u64()).is_some_and(|ms| ms > 1_700_000_000_000));
        assert!(members.remove("shard").is_some_and(|shard| shard.is_u64()));
        line
    }

    #[track_caller]
    fn expect(&mut self, line: Value) {
        assert_eq!(self.next(), line);
    }
}

fn everything_is_shown_in_order(shards: usize) {
    let server = Server::options(shards).arg("--max-messages-per-second", 1).start();
    let mut admin = Admin::connect(&server);
    let mut tail = Tail::start(&server, json!({}));
    let mut client = Client::connect(&server);
    let (id, address) = (client.socket_id.clone(), client.address().to_string());
    tail.expect(json!({"event": "connect", "socket_id": id, "address": address, "dialect": "native"}));
    client.subscribe("room");
    tail.expect(json!({"event": "subscribe", "socket_id": id, "address": address, "dialect": "native", "channel": "room", "result": "ok"}));
    client.send(&crate::harness::subscribe("no name"));
    client.text();
    tail.expect(
        json!({"event": "subscribe", "socket_id": id, "address": address, "dialect": "native", "channel": "no name",
        "result": "invalid_channel"}),
    );
    for (event, bytes) in [("e", 7), ("quoted \"name\"", 7)] {
        assert_eq!(admin.publish("room", event, json!([1, 2, 3])), 1);
        client.text();
        tail.expect(json!({"event": "publish", "channel": "room", "name": event, "bytes": bytes, "subscribers": 1}));
    }
    client.unsubscribe("room");
    tail.expect(
        json!({"event": "unsubscribe", "socket_id": id, "address": address, "dialect": "native", "channel": "room", "result": "ok"}),
    );
    while tail_is_silent(&mut client) {}
    tail.expect(json!({"event": "limit", "socket_id": id, "address": address, "dialect": "native"}));
    admin.ok(json!({"id": 1, "command": "disconnect", "socket_id": id, "code": 4321}));
    loop {
        let line = tail.next();
        if line["event"] != "limit" {
            let close = json!({"event": "close", "socket_id": id, "address": address, "dialect": "native", "reason": "disconnected", "code": 4321});
            break assert_eq!(line, close);
        }
    }
    let mut raw = RawClient::tcp(&server);
    raw.write(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(raw.head().starts_with("HTTP/1.1 4"));
    let refused = tail.next();
    assert_eq!(refused["event"], "refuse");
    assert!(refused["why"].as_str().is_some_and(|why| !why.is_empty()), "{refused}");
    assert_eq!(tail.next()["reason"], "upgrade_refused");
}

/// Sends a ping. Returns whether it is answered, as it is without a limit.
fn tail_is_silent(client: &mut Client) -> bool {
    client.send(r#"{"event":"socket:ping","data":{"id":1}}"#);
    !client.text().contains("rate_limited")
}

fn filters_leave_out_the_rest(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut of_users = Tail::start(&server, json!({"channel": "user:*:a"}));
    let mut far = Tail::start(&server, json!({"address": "192.0.2.0/24"}));
    let mut near = Tail::start(&server, json!({"address": "127.0.0.0/8", "events": ["connect"]}));
    let mut tenth = Tail::start(&server, json!({"events": ["publish"], "sample": 10}));
    let mut client = Client::connect(&server);
    for channel in ["user:1:b", "room", "user:2:a"] {
        client.subscribe(channel);
    }
    for n in 0..21 {
        admin.publish("room", &format!("e{n}"), json!(1));
    }
    admin.publish("user:7:a", "last", json!(1));
    assert_eq!(of_users.next()["channel"], "user:2:a");
    of_users.expect(json!({"event": "publish", "channel": "user:7:a", "name": "last", "bytes": 1, "subscribers": 0}));
    assert_eq!(near.next()["socket_id"], client.socket_id.as_str());
    // All publishes to one channel are seen by its owner.
    for expected in ["e0", "e10", "e20"] {
        loop {
            let name = tenth.next()["name"].clone();
            if name != "last" {
                break assert_eq!(name, expected);
            }
        }
    }
    far.0.write("\n");
    let mut admin = Admin::connect(&server);
    for line in [r#""events":["shut"]"#, r#""address":"nowhere""#, r#""rate":0"#] {
        admin.refused(&format!(r#"{{"id":1,"command":"tail",{line}}}"#), 1.into(), "malformed_request");
    }
}

fn sightings_beyond_a_limit_are_counted(shards: usize) {
    const PUBLISHED: u64 = 5000;
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let mut tail = Tail::start(&server, json!({"events": ["publish"], "rate": 10}));
    for n in 0..PUBLISHED {
        admin.publish("room", "e", json!(n));
    }
    let (mut shown, mut dropped) = (0, 0);
    while shown + dropped < PUBLISHED {
        let line = tail.next();
        match line["event"].as_str() {
            Some("publish") => shown += 1,
            Some("dropped") => dropped += line["count"].as_u64().expect("a count"),
            _ => panic!("{line}"),
        }
    }
    assert_eq!(shown + dropped, PUBLISHED);
    assert!(shown >= 10 && dropped > 0, "{shown} shown, {dropped} dropped");
    assert_eq!((admin.stat("sightings"), admin.stat("sightings_dropped")), (shown, dropped));
}

fn data_is_shown_only_on_request(shards: usize) {
    let key = "278d425bdf160c739803:7ad3773142a6692b25b8";
    let server = Server::options(shards).arg("--key", key).start();
    let mut admin = Admin::connect(&server);
    let mut tail = Tail::start(&server, json!({"data": 5}));
    let mut client = Client::connect(&server);
    tail.next();
    let auth = "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";
    client.send(&json!({"event": "socket:subscribe", "data": {"channel": "private-foobar", "auth": auth}}).to_string());
    client.text();
    let line = tail.next();
    assert_eq!(line["result"], "auth_invalid");
    assert!(!line.to_string().contains("58df8b0c"), "{line}");
    admin.publish("room", "e", json!("a secret"));
    assert_eq!(tail.next()["data"], "\"a se");
}

fn the_number_of_tails_is_limited(shards: usize) {
    let server = Server::start(shards);
    let mut tails: Vec<Tail> = (0..16).map(|_| Tail::start(&server, json!({}))).collect();
    let mut admin = Admin::connect(&server);
    admin.refused(r#"{"id":1,"command":"tail"}"#, 1.into(), "too_many");
    assert_eq!(admin.stat("tails"), 16);
    tails.truncate(3);
    eventually("the tails are removed", || admin.stat("tails") == 3);
    admin.ok(json!({"id": 1, "command": "tail"}));
}

/// `corecast tail | head`.
fn a_tail_whose_reader_has_left_is_removed(shards: usize) {
    let server = Server::start(shards);
    let mut command = corecast(&["tail", "--events", "publish", "--admin-socket"]);
    command.arg(&server.admin_path);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary starts");
    let mut out = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let mut admin = Admin::connect(&server);
    eventually("the tail is open", || admin.stat("tails") == 1);
    let mut publishing = Admin::connect(&server);
    eventually("every shard sends sightings", || {
        publishing.publish("room", "order.paid", json!(7));
        admin.stat("sightings") > 0
    });
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    assert_eq!(std::mem::take(&mut line), "watching\n");
    out.read_line(&mut line).expect("another line");
    assert!(line.contains(" channel=room name=order.paid bytes=1 subscribers=0"), "{line}");
    drop(out);
    eventually("the next line finds the reader gone", || {
        publishing.publish("room", "order.paid", json!(7));
        admin.stat("tails") == 0
    });
    assert!(!child.wait().expect("a child").success());
    let before = admin.stat("sightings");
    publishing.publish("room", "order.paid", json!(7));
    assert_eq!(admin.stat("sightings"), before, "no tail is open");
}

fn a_tail_does_not_delay_the_shutdown(shards: usize) {
    let mut server = Server::start(shards);
    let mut tail = Tail::start(&server, json!({}));
    let client = Client::connect(&server);
    assert_eq!(tail.next()["socket_id"], client.socket_id.as_str());
    drop(client);
    assert_eq!(tail.next()["reason"], "client_gone");
    assert!(server.terminate().success());
    assert_eq!(tail.0.try_line(), None);
}
