//! The protocol's messages: valid and invalid ones, channel names, and the server's answers.

use crate::harness::{
    Admin, Client, RawClient, Server, already_subscribed, assert_error, for_shards, not_subscribed, shortened,
    subscribe, subscribed, text_frame, unsubscribe, unsubscribed,
};
use serde_json::{Value, json};

for_shards!(
    and_over_tls,
    malformed_messages_are_answered,
    unknown_events_are_answered,
    members_may_come_in_any_order_and_spelling,
    ids_are_echoed_as_written,
    values_that_are_not_ids_are_refused,
    illegal_names_are_refused,
    legal_names_are_accepted,
    too_many_subscriptions,
    default_subscription_limit,
    pipelined_requests_are_answered_in_order,
);

/// Messages that are not a JSON object with an event and its required members.
const MALFORMED: &[&str] = &[
    "",
    " ",
    "{",
    "}",
    "nonsense",
    "{\"event\":\"socket:ping\",\"data\":{\"id\":1}",
    "{\"event\":\"socket:ping\",\"data\":{\"id\":1}}}",
    "{\"event\":\"socket:ping\",\"data\":{\"id\":1}} x",
    "{\"event\":\"socket:ping\",\"data\":{\"id\":1}}{\"event\":\"socket:ping\",\"data\":{\"id\":2}}",
    "{\"event\":\"socket:ping\",\"data\":{\"id\":1,}}",
    "{\"event\":\"socket:ping\",\"data\":{\"id\":01}}",
    "{\"event\":\"socket:ping\",\"data\":{\"id\":1.}}",
    "{\"event\":\"socket:ping\",\"data\":{\"id\":.5}}",
    "{\"event\":\"socket:ping\",\"data\":{\"id\":+1}}",
    "{\"event\":\"socket:ping\",\"data\":{\"id\":-}}",
    "{\"event\":\"socket:ping\",\"data\":{\"id\":1e}}",
    "{\"event\":\"socket:ping\",\"data\":{\"id\":NaN}}",
    "{\"event\":\"socket:ping\",\"data\":{\"id\":\"a\nb\"}}",
    "{\"event\":\"socket:ping\",\"data\":{\"id\":\"\\x\"}}",
    "{\"event\":\"socket:ping\",\"data\":{\"id\":\"\\u12\"}}",
    "{'event':'socket:ping','data':{'id':1}}",
    "{event:\"socket:ping\",data:{id:1}}",
    "{\"event\" \"socket:ping\"}",
    "[]",
    "[{\"event\":\"socket:ping\",\"data\":{\"id\":1}}]",
    "\"socket:ping\"",
    "1",
    "null",
    "true",
    "{}",
    "{\"data\":{\"id\":1}}",
    "{\"event\":1}",
    "{\"event\":null}",
    "{\"event\":{\"event\":\"socket:ping\"}}",
    "{\"event\":\"socket:subscribe\"}",
    "{\"event\":\"socket:subscribe\",\"channel\":\"user:13\"}",
    "{\"event\":\"socket:subscribe\",\"data\":null}",
    "{\"event\":\"socket:subscribe\",\"data\":\"user:13\"}",
    "{\"event\":\"socket:subscribe\",\"data\":[\"user:13\"]}",
    "{\"event\":\"socket:subscribe\",\"data\":{}}",
    "{\"event\":\"socket:subscribe\",\"data\":{\"channel\":13}}",
    "{\"event\":\"socket:subscribe\",\"data\":{\"channel\":null}}",
    "{\"event\":\"socket:subscribe\",\"data\":{\"channel\":[\"user:13\"]}}",
    "{\"event\":\"socket:unsubscribe\"}",
    "{\"event\":\"socket:unsubscribe\",\"data\":{}}",
    "{\"event\":\"socket:unsubscribe\",\"data\":{\"channel\":13}}",
    "{\"event\":\"socket:ping\"}",
    "{\"event\":\"socket:ping\",\"id\":1}",
    "{\"event\":\"socket:ping\",\"data\":1}",
    "{\"event\":\"socket:ping\",\"data\":{}}",
];

fn malformed_messages_are_answered(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    let deep_array = "[".repeat(30_000);
    let deep_object = r#"{"a":"#.repeat(10_000);
    for text in MALFORMED.iter().copied().chain([deep_array.as_str(), deep_object.as_str()]) {
        client.send(text);
        let reply = client.text();
        eprintln!("{} → {reply}", shortened(text)); // shown if the next line fails
        assert_error(&reply, "socket:error", None, "malformed_message");
    }
    // The connection stays open, and nothing else has changed.
    client.expect_nothing_before_pong();
    assert_eq!(Admin::connect(&server).subscribers("user:13"), 0);

    // Valid, with deep nesting.
    let deep =
        format!(r#"{{"event":"socket:ping","data":{{"id":1,"deep":{}{}}}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    client.send(&deep);
    client.expect(r#"{"event":"socket:pong","data":{"reply":1}}"#);
    client.expect_nothing_before_pong();
}

fn unknown_events_are_answered(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    for event in [
        "",
        "order.paid",
        "socket:",
        "socket:nope",
        "socket:connected",
        "socket:subscribed",
        "socket:subscribe.error",
        "socket:error",
        "SOCKET:PING",
        "socket:ping ",
        "ping",
        "pusher:ping",
    ] {
        client
            .send(&json!({"event": event, "channel": "user:13", "data": {"channel": "user:13", "id": 1}}).to_string());
        let reply = client.text();
        eprintln!("{event} → {reply}"); // shown if the next line fails
        assert_error(&reply, "socket:error", None, "unknown_event");
    }
    client.send(r#"{"event":"order.paid"}"#);
    assert_error(&client.text(), "socket:error", None, "unknown_event");
    client.expect_nothing_before_pong();
}

fn members_may_come_in_any_order_and_spelling(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    let pong = r#"{"event":"socket:pong","data":{"reply":1}}"#;
    for ping in [
        r#"{"data":{"id":1},"event":"socket:ping"}"#,
        "\t\r\n { \"event\" :\t\"socket:ping\" ,\r\n \"data\" : { \"id\" : 1 } } \n",
        r#"{"event":"socket:\u0070ing","data":{"id":1}}"#,
        r#"{"\u0065vent":"socket:ping","d\u0061ta":{"\u0069d":1}}"#,
        r#"{"more":[{"event":"socket:pong","data":{"id":2}}],"event":"socket:ping","data":{"more":{"id":2},"id":1},"channel":"c"}"#,
        r#"{"event":"socket:ping","data":{"more":1e999,"id":1,"big":123456789012345678901234567890}}"#,
        r#"{"event":"socket:ping","data":{"text":"{\"id\":2}","id":1,"emoji":"😀\ud83d\ude00"}}"#,
    ] {
        client.send(ping);
        let reply = client.text();
        assert_eq!(reply, pong, "{ping}");
    }
    client.send(r#"{"data":{"more":null,"channel":"user:\u0031\u0033"},"event":"socket:subscribe"}"#);
    let reply: Value = serde_json::from_str(&client.text()).expect("JSON");
    assert_eq!(reply, json!({"event": "socket:subscribed", "channel": "user:13"}));
    assert_eq!(Admin::connect(&server).subscribers("user:13"), 1);
    client.send(r#"{"event":"socket:subscribe","data":{"channel":"user:13"}}"#);
    client.expect(&already_subscribed("user:13"));
}

fn ids_are_echoed_as_written(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    let mut ids: Vec<String> = [
        "0",
        "-0",
        "1",
        "1.0",
        "-1.50",
        "1e999",
        "1E+5",
        "-1e-999",
        "0.1e00",
        "9007199254740993",
        "18446744073709551616",
        "-9223372036854775809",
        "3.14159265358979323846264338327950288419716939937510",
        r#""""#,
        r#""a""#,
        r#""1""#,
        r#""null""#,
        r#""a b\tc\n\"\\\/""#,
        r#""\u0000\u00e9\ud83d\ude00""#,
        r#""\uD83D\uDE00\u00C9""#,
        r#""é😀""#,
        "\"\u{7f}\u{2028}\"",
        r#""}],{\"id\":2}""#,
    ]
    .map(str::to_owned)
    .into();
    ids.push("7".repeat(64));
    ids.push(format!("-{}", "1".repeat(63)));
    ids.push(format!("\"{}\"", "x".repeat(64)));
    ids.push(format!("\"{}\"", "é".repeat(32)));
    ids.push(format!("\"{}wxyz\"", r"\u0041".repeat(10)));
    for id in &ids {
        client.send(&format!(r#"{{"event":"socket:ping","data":{{"id":{id}}}}}"#));
        client.expect(&format!(r#"{{"event":"socket:pong","data":{{"reply":{id}}}}}"#));
        client.send(&format!("{{\"data\":{{\"x\":0,\"id\" :\t{id} \n, \"y\":{id}}},\"event\":\"socket:ping\"}}"));
        client.expect(&format!(r#"{{"event":"socket:pong","data":{{"reply":{id}}}}}"#));
    }
}

fn values_that_are_not_ids_are_refused(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    let mut ids: Vec<String> = ["null", "true", "false", "{}", "[]", "[1]", r#"{"id":1}"#].map(str::to_owned).into();
    ids.push("7".repeat(65));
    ids.push("7".repeat(100));
    ids.push(format!("-{}", "1".repeat(64)));
    ids.push(format!("\"{}\"", "x".repeat(65)));
    ids.push(format!("\"{}x\"", "é".repeat(32)));
    ids.push(format!("\"{}vwxyz\"", r"\u0041".repeat(10)));
    for id in &ids {
        client.send(&format!(r#"{{"event":"socket:ping","data":{{"id":{id}}}}}"#));
        let reply = client.text();
        eprintln!("{id} → {reply}"); // shown if the next line fails
        assert_error(&reply, "socket:error", None, "malformed_message");
    }
    client.expect_nothing_before_pong();
}

/// A ping with `id`, padded with spaces to `len` bytes.
pub fn ping_of(id: usize, len: usize) -> String {
    let mut text = format!(r#"{{"event":"socket:ping","data":{{"id":{id}}}}}"#);
    text.push_str(&" ".repeat(len.saturating_sub(text.len())));
    text
}

pub fn ping(id: usize) -> String {
    ping_of(id, 0)
}

pub fn pong(id: usize) -> String {
    format!(r#"{{"event":"socket:pong","data":{{"reply":{id}}}}}"#)
}

/// Names that PROTOCOL.md does not allow.
fn illegal_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "",
        " ",
        "user 13",
        " user",
        "user ",
        "user\n",
        "user\t13",
        "user\"13",
        "user\\13",
        "üser",
        "用户",
        "user#13",
        "user*",
        "user?",
        "user+",
        "user!",
        "user%20",
        "user&",
        "user'",
        "(user)",
        "[user]",
        "{user}",
        "<user>",
        "~user",
        "user|13",
        "user$",
        "user^",
        "user`",
        "\u{0}",
        "\u{7f}",
        "😀",
        "private-:",
        "private-user:13",
        "private-a:b:c",
    ]
    .map(str::to_owned)
    .into();
    names.push("a".repeat(201));
    names.push("a".repeat(1000));
    names.push(format!("private-{}", "a".repeat(193)));
    names
}

fn illegal_names_are_refused(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    for name in illegal_names() {
        client.send(&json!({"event": "socket:subscribe", "data": {"channel": name, "auth": "a:b"}}).to_string());
        assert_error(&client.text(), "socket:subscribe.error", Some(&name), "invalid_channel");
        client.send(&unsubscribe(&name));
        let reply = client.text();
        assert_error(&reply, "socket:unsubscribe.error", Some(&name), "not_subscribed");
        let reply: Value = serde_json::from_str(&reply).expect("JSON");
        assert_eq!(reply["data"]["error"], "the connection is not subscribed to the channel");
    }
    // Escapes in the client's spelling come back with the same meaning.
    client.send(r#"{"event":"socket:subscribe","data":{"channel":"\u00fcser\/\"\n\ud83d\ude00"}}"#);
    assert_error(&client.text(), "socket:subscribe.error", Some("üser/\"\n😀"), "invalid_channel");
    client.expect_nothing_before_pong();
}

fn legal_names_are_accepted(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    let mut admin = Admin::connect(&server);
    let longest = "a".repeat(200);
    for name in [
        "a",
        "0",
        "-",
        ":",
        "/",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-=@,.;:/",
        "private",
        "private:a",
        "Private-a:b",
        "PRIVATE-a",
        "a-private-b",
        "presence",
        "presence:a",
        "Presence-a",
        "socket:ping",
        longest.as_str(),
    ] {
        client.subscribe(name);
        assert_eq!(admin.publish(name, "e", json!(name)), 1, "{name}");
        client.expect(&format!(r#"{{"event":"e","channel":"{name}","data":"{name}"}}"#));
        client.unsubscribe(name);
        client.send(&unsubscribe(name));
        client.expect(&not_subscribed(name));
    }
    client.send(&subscribe("private-"));
    assert_error(&client.text(), "socket:subscribe.error", Some("private-"), "auth_required");
    client.send(&subscribe("presence-"));
    assert_error(&client.text(), "socket:subscribe.error", Some("presence-"), "auth_required");
}

fn too_many_subscriptions(shards: usize) {
    let server = Server::options(shards).arg("--max-subscriptions", 3).start();
    let mut client = RawClient::connect(&server);
    // All requests in one write: subscriptions that are not confirmed yet count too.
    client.write(&["a", "b", "c", "d", "e"].map(|name| text_frame(&subscribe(name))).concat());
    for name in ["a", "b", "c"] {
        client.expect(&subscribed(name));
    }
    for name in ["d", "e"] {
        assert_error(&client.text(), "socket:subscribe.error", Some(name), "too_many_subscriptions");
    }
    // Subscriptions that have ended do not count.
    client.write(&[unsubscribe("b"), subscribe("d"), subscribe("e")].map(|text| text_frame(&text)).concat());
    client.expect(&unsubscribed("b"));
    client.expect(&subscribed("d"));
    assert_error(&client.text(), "socket:subscribe.error", Some("e"), "too_many_subscriptions");
    // The limit applies to each connection.
    let mut other = Client::connect(&server);
    for name in ["a", "b", "c"] {
        other.subscribe(name);
    }
    let mut admin = Admin::connect(&server);
    let counts = ["a", "b", "c", "d", "e"].map(|name| admin.subscribers(name));
    assert_eq!(counts, [2, 1, 2, 1, 0]);
}

fn default_subscription_limit(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    for n in 0..128 {
        client.subscribe(&format!("channel-{n}"));
    }
    client.send(&subscribe("channel-128"));
    assert_error(&client.text(), "socket:subscribe.error", Some("channel-128"), "too_many_subscriptions");
}

/// The expected reply to a request.
enum Reply {
    Exactly(String),
    Error(&'static str, Option<&'static str>, &'static str),
}

fn pipelined_requests_are_answered_in_order(shards: usize) {
    let server = Server::start(shards);
    let mut client = RawClient::connect(&server);
    let channels: Vec<String> = (0..7).map(|n| format!("channel-{n}")).collect();
    let mut live = [false; 7];
    let mut requests = Vec::new();
    let mut replies = Vec::new();
    let mut random: u32 = 0x2545_F491;
    for n in 0..200 {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let at = random as usize / 16 % channels.len();
        let channel = &channels[at];
        let was_live = live[at];
        let (request, reply) = match random % 8 {
            0..3 => {
                live[at] = true;
                let reply = if was_live { already_subscribed(channel) } else { subscribed(channel) };
                (subscribe(channel), Reply::Exactly(reply))
            }
            3..5 => {
                live[at] = false;
                let reply = if was_live { unsubscribed(channel) } else { not_subscribed(channel) };
                (unsubscribe(channel), Reply::Exactly(reply))
            }
            5 => (r#"{"event":"socket:nope"}"#.to_owned(), Reply::Error("socket:error", None, "unknown_event")),
            6 => {
                let reply = Reply::Error("socket:subscribe.error", Some("private-x"), "auth_required");
                (subscribe("private-x"), reply)
            }
            _ => (ping(n), Reply::Exactly(pong(n))),
        };
        requests.extend(text_frame(&request));
        replies.push(reply);
    }
    client.write(&requests);
    for (n, reply) in replies.into_iter().enumerate() {
        let found = client.text();
        match reply {
            Reply::Exactly(text) => assert_eq!(found, text, "reply {n}"),
            Reply::Error(event, channel, code) => assert_error(&found, event, channel, code),
        }
    }
    let mut admin = Admin::connect(&server);
    for (channel, live) in channels.iter().zip(live) {
        assert_eq!(admin.subscribers(channel), u64::from(live), "{channel}");
    }
}
