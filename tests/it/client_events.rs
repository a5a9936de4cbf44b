//! Client events: which channels take them, which connections receive them, and their limits.

use crate::auth::{self, auth};
use crate::harness::{Admin, Client, Options, Server, assert_error, for_shards, subscribe, subscribed};
use serde_json::json;

for_shards!(
    and_over_tls,
    the_other_subscribers_receive_a_client_event,
    on_a_presence_channel_it_names_the_user,
    it_is_refused_where_it_is_not_allowed,
    it_is_limited_in_rate_and_size,
    it_has_a_place_in_the_order_and_no_offset,
);

/// A server whose private channels take client events; `private-quiet` does not.
fn options(shards: usize) -> Options {
    let tables = r#"
        [[channel]]
        match = "private-quiet"
        [[channel]]
        match = "private-history"
        history = 10
        client-events = "members"
        [[channel]]
        match = "*"
        client-events = "members"
    "#;
    Server::options(shards).arg("--key", auth::key()).config(tables)
}

#[track_caller]
pub fn join(server: &Server, channel: &str, user: Option<&str>) -> Client {
    let mut client = Client::connect(server);
    let channel_data = user.map(|id| json!({"user_id": id}).to_string());
    let auth = auth(&client.socket_id, channel, channel_data.as_deref());
    let mut data = json!({"channel": channel, "auth": auth});
    if let Some(channel_data) = channel_data {
        data["channel_data"] = channel_data.into();
    }
    client.send(&json!({"event": "socket:subscribe", "data": data}).to_string());
    let reply = client.text();
    assert!(reply.starts_with(r#"{"event":"socket:subscribed""#), "{reply}");
    client
}

fn the_other_subscribers_receive_a_client_event(shards: usize) {
    let server = options(shards).start();
    let mut clients: Vec<Client> = (0..6).map(|_| join(&server, "private-room", None)).collect();
    for (n, data) in ["1", r#"{"a" : "\u00e9", "b":1e999}"#, "null", r#""\ud83c""#].iter().enumerate() {
        clients[n]
            .send(&format!(r#"{{"event":"client-typing","data":{data},"channel":"private-room","user_id":"me"}}"#));
        let expected = format!(r#"{{"event":"client-typing","channel":"private-room","data":{data}}}"#);
        for (at, client) in clients.iter_mut().enumerate() {
            if at != n {
                client.expect(&expected);
            }
        }
    }
    clients[5].send(r#"{"event":"client-\u0061","channel":"private-room"}"#);
    clients[..5].iter_mut().for_each(|client| client.expect(r#"{"event":"client-\u0061","channel":"private-room"}"#));
    clients.iter_mut().for_each(Client::expect_nothing_before_pong);
}

fn on_a_presence_channel_it_names_the_user(shards: usize) {
    let server = options(shards).start();
    let mut first = join(&server, "presence-room", Some("a\"b"));
    let mut second = join(&server, "presence-room", Some("12"));
    assert!(first.text().contains("socket:member_added"));
    first.send(r#"{"event":"client-e","channel":"presence-room","data":[1],"user_id":"other"}"#);
    second.expect(r#"{"event":"client-e","channel":"presence-room","data":[1],"user_id":"a\"b"}"#);
    second.send(r#"{"event":"client-e","channel":"presence-room"}"#);
    first.expect(r#"{"event":"client-e","channel":"presence-room","user_id":"12"}"#);
}

fn it_is_refused_where_it_is_not_allowed(shards: usize) {
    let server = options(shards).start();
    let mut client = join(&server, "private-quiet", None);
    client.subscribe("public");
    for (channel, code) in [
        ("private-quiet", "client_event_refused"),
        ("public", "client_event_refused"),
        ("private-other", "client_event_refused"),
        ("no name", "client_event_refused"),
        ("#server-to-user-12", "client_event_refused"),
    ] {
        client.send(&json!({"event": "client-e", "channel": channel}).to_string());
        assert_error(&client.text(), "socket:error", Some(channel), code);
    }
    client.send(r#"{"event":"client-e"}"#);
    assert_error(&client.text(), "socket:error", None, "malformed_message");
    let mut encrypted = join(&server, "private-encrypted-a", None);
    encrypted.send(r#"{"event":"client-e","channel":"private-encrypted-a"}"#);
    assert_error(&encrypted.text(), "socket:error", Some("private-encrypted-a"), "client_event_refused");
}

fn it_is_limited_in_rate_and_size(shards: usize) {
    let server = options(shards).arg("--client-events-per-second", "1").start();
    let (mut sender, mut other) = (join(&server, "private-room", None), join(&server, "private-room", None));
    let send = |client: &mut Client, event: &str, len: usize| {
        let data = "x".repeat(len);
        client.send(&json!({"event": event, "channel": "private-room", "data": data}).to_string());
    };
    send(&mut sender, "client-e", 10 * 1024 - 1);
    assert_error(&sender.text(), "socket:error", Some("private-room"), "client_event_refused");
    send(&mut sender, &format!("client-{}", "e".repeat(194)), 1);
    assert_error(&sender.text(), "socket:error", Some("private-room"), "client_event_refused");
    send(&mut sender, &format!("client-{}", "e".repeat(193)), 10 * 1024 - 2);
    assert!(other.text().len() > 10 * 1024);
    for _ in 0..3 {
        send(&mut sender, "client-e", 1);
    }
    // Of three at once at least one is over the rate of one a second. The connection lives.
    sender.send(&subscribe("a"));
    let mut refused = 0;
    loop {
        let text = sender.text();
        if text == subscribed("a") {
            break;
        }
        assert_error(&text, "socket:error", Some("private-room"), "rate_limited");
        refused += 1;
    }
    assert!((1..=3).contains(&refused), "{refused}");
}

fn it_has_a_place_in_the_order_and_no_offset(shards: usize) {
    let server = options(shards).start();
    let (mut sender, mut other) = (join(&server, "private-history", None), join(&server, "private-history", None));
    sender.send(r#"{"event":"client-e","channel":"private-history","data":1}"#);
    other.expect(r#"{"event":"client-e","channel":"private-history","data":1}"#);
    let mut admin = Admin::connect(&server);
    let reply = admin.ok(json!({"command": "publish", "channel": "private-history", "event": "e"}));
    let offset = &reply["offset"];
    let message = format!(r#"{{"event":"e","channel":"private-history","offset":{offset}}}"#);
    other.expect(&message);
    sender.expect(&message);
    let reply = admin.ok(json!({"command": "history", "channel": "private-history"}));
    assert_eq!(reply["messages"].as_array().map(Vec::len), Some(1), "{reply}");
}
