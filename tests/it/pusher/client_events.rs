//! Client events: which connections receive them, what they hold, and their refusals.

use super::client::{Pusher, error, message, options};
use crate::client_events::join;
use crate::harness::{Client, for_shards};
use serde_json::{Value, json};

for_shards!(
    and_over_tls,
    all_others_receive_an_event_with_a_text,
    on_a_presence_channel_an_event_names_its_user,
    events_cross_between_the_dialects,
    events_are_refused_without_closing,
    a_rule_or_an_option_forbids_them,
    events_over_the_rate_are_dropped_with_4301,
    events_of_a_sender_keep_their_order,
);

fn all_others_receive_an_event_with_a_text(shards: usize) {
    let server = options(shards).start();
    let mut clients: Vec<Pusher> = (0..6).map(|n| Pusher::speaking(&server, 4 + n % 4)).collect();
    clients.iter_mut().for_each(|client| client.subscribe("private-a"));
    for at in 0..6 {
        let data = json!({"n": at}).to_string();
        clients[at].send(&format!(
            r#"{{"event":"client-typing","data":{data},"channel":"private-a","user_id":"me","socket_id":"1.2"}}"#
        ));
        for (n, client) in clients.iter_mut().enumerate() {
            if n != at {
                client.expect(&message("client-typing", "private-a", &data));
            }
        }
    }
    // An event needs no data, and its name may be any text.
    clients[0].send(r#"{"channel":"private-a","event":"client-\u0061 \"\n"}"#);
    clients[1..].iter_mut().for_each(|client| {
        client.expect(r#"{"event":"client-\u0061 \"\n","channel":"private-a","data":"null"}"#);
    });
    clients.iter_mut().for_each(Pusher::expect_nothing);
    // It is neither kept nor counted as a publish.
    let stats = server.stats();
    assert_eq!((&stats["client_events"], &stats["publishes"]), (&json!(7), &json!(0)));
}

fn on_a_presence_channel_an_event_names_its_user(shards: usize) {
    let server = options(shards).start();
    let (mut first, mut second) = (Pusher::connect(&server), Pusher::connect(&server));
    first.join("presence-a", "a\"é");
    second.send(&second.subscribe_text("presence-a", Some(r#"{"user_id":12}"#)));
    second.members("presence-a");
    assert!(first.text().contains("member_added"));
    first.send(r#"{"event":"client-e","channel":"presence-a","data":[1],"user_id":"other"}"#);
    second.expect(r#"{"event":"client-e","channel":"presence-a","data":"[1]","user_id":"a\"é"}"#);
    second.send(r#"{"event":"client-e","channel":"presence-a"}"#);
    first.expect(r#"{"event":"client-e","channel":"presence-a","data":"null","user_id":"12"}"#);
    // A second connection of the user receives what the first one sends.
    let mut again = Pusher::connect(&server);
    again.join("presence-a", "12");
    second.send(r#"{"event":"client-e","channel":"presence-a","data":"x"}"#);
    again.expect(r#"{"event":"client-e","channel":"presence-a","data":"x","user_id":"12"}"#);
    second.expect_nothing();
}

fn events_cross_between_the_dialects(shards: usize) {
    let tables = "[[channel]]\nmatch = \"*\"\nclient-events = \"members\"\n";
    let server = options(shards).config(tables).start();
    for channel in ["private-a", "presence-a"] {
        let user = |name: &'static str| channel.starts_with("presence-").then_some(name);
        let mut native = join(&server, channel, user("n"));
        let mut pusher = Pusher::connect(&server);
        match user("p") {
            Some(user) => {
                pusher.join(channel, user);
                assert!(native.text().contains("member_added"));
            }
            None => pusher.subscribe(channel),
        }
        let by = |id: &str| user("x").map(|_| format!(r#","user_id":"{id}""#)).unwrap_or_default();
        native.send(&format!(r#"{{"event":"client-e","channel":"{channel}","data":{{"a" : 1}}}}"#));
        pusher.expect(&format!(r#"{{"event":"client-e","channel":"{channel}","data":"{{\"a\" : 1}}"{}}}"#, by("n")));
        native.send(&format!(r#"{{"event":"client-e","channel":"{channel}","data":"x"}}"#));
        pusher.expect(&format!(r#"{{"event":"client-e","channel":"{channel}","data":"\"x\""{}}}"#, by("n")));
        pusher.send(&format!(r#"{{"event":"client-e","channel":"{channel}","data":{{"a" : 1}}}}"#));
        native.expect(&format!(r#"{{"event":"client-e","channel":"{channel}","data":{{"a" : 1}}{}}}"#, by("p")));
        pusher.send(&format!(r#"{{"event":"client-e","channel":"{channel}"}}"#));
        native.expect(&format!(r#"{{"event":"client-e","channel":"{channel}"{}}}"#, by("p")));
        pusher.expect_nothing();
        native.expect_nothing_before_pong();
    }
}

fn events_are_refused_without_closing(shards: usize) {
    let server = options(shards).start();
    let (mut client, mut other) = (Pusher::connect(&server), Pusher::connect(&server));
    for channel in ["private-a", "public", "private-encrypted-a", "private-cache-a"] {
        client.send(&client.subscribe_text(channel, None));
        client.text();
        other.send(&other.subscribe_text(channel, None));
        other.text();
    }
    client.text();
    other.text();
    for channel in ["private-b", "nothing", "a b", "", "#server-to-user-7", "presence-a"] {
        client.send(&json!({"event": "client-e", "channel": channel, "data": {}}).to_string());
        let why = format!("Cannot broadcast client event (connection not subscribed to channel {channel})");
        client.expect(&error(None, &why));
    }
    let event =
        |event: &str, channel: &str, data: Value| json!({"event": event, "channel": channel, "data": data}).to_string();
    for text in [
        event("client-e", "public", json!(1)),
        event("client-e", "private-encrypted-a", json!(1)),
        event(&format!("client-{}", "e".repeat(194)), "private-a", json!(1)),
        event("client-e", "private-a", json!("x".repeat(10 * 1024 - 1))),
        event("client-e", "private-a", json!(["x".repeat(10 * 1024 - 3)])),
    ] {
        client.send(&text);
        client.expect_error(None);
    }
    other.expect_nothing();
    let (name, data) = (format!("client-{}", "e".repeat(193)), "x".repeat(10 * 1024 - 2));
    client.send(&event(&name, "private-a", json!(data)));
    other.expect(&message(&name, "private-a", &data));
    client.send(&event("client-e", "private-cache-a", json!(1)));
    other.expect(&message("client-e", "private-cache-a", "1"));
    client.unsubscribe("private-a");
    client.send(&event("client-e", "private-a", json!(1)));
    client.expect_error(Some("Cannot broadcast client event (connection not subscribed to channel private-a)"));
    other.expect_nothing();
}

fn a_rule_or_an_option_forbids_them(shards: usize) {
    let tables = "[[channel]]\nmatch = \"private-quiet\"\nclient-events = \"off\"\n\
                  [[channel]]\nmatch = \"private-kept\"\nhistory = 10\n";
    let check = |server: &crate::harness::Server, channel: &str, is_taken: bool| {
        let (mut client, mut other) = (Pusher::connect(server), Pusher::connect(server));
        client.subscribe(channel);
        other.subscribe(channel);
        client.send(&json!({"event": "client-e", "channel": channel, "data": 1}).to_string());
        match is_taken {
            true => other.expect(&message("client-e", channel, "1")),
            false => client.expect_error(None),
        }
        client.expect_nothing();
        other.expect_nothing();
    };
    let server = options(shards).config(tables).start();
    check(&server, "private-quiet", false);
    check(&server, "private-kept", true);
    check(&server, "private-other", true);
    let on = format!("{tables}[[channel]]\nmatch = \"private-on\"\nclient-events = \"members\"\n");
    let server = options(shards).config(on).arg("--pusher-client-events", "off").start();
    check(&server, "private-other", false);
    check(&server, "private-kept", false);
    check(&server, "private-on", true);
}

fn events_over_the_rate_are_dropped_with_4301(shards: usize) {
    let server = options(shards).arg("--client-events-per-second", 1).start();
    for version in [5, 7] {
        let (mut client, mut other) = (Pusher::speaking(&server, version), Pusher::connect(&server));
        let channel = format!("private-{version}");
        client.subscribe(&channel);
        other.subscribe(&channel);
        for _ in 0..4 {
            client.send(&json!({"event": "client-e", "channel": channel, "data": 1}).to_string());
        }
        client.send(r#"{"event":"pusher:ping"}"#);
        let mut dropped = 0;
        loop {
            let text = client.text();
            if text == super::client::PONG {
                break;
            }
            let data = r#"{"code":4301,"message":"Client event rejected due to rate limit"}"#;
            assert_eq!(text, format!(r#"{{"event":"pusher:error","channel":"{channel}","data":{data}}}"#));
            dropped += 1;
        }
        assert!((1..=3).contains(&dropped), "{dropped}");
        (dropped..4).for_each(|_| other.expect(&message("client-e", &channel, "1")));
        other.expect_nothing();
    }
}

fn events_of_a_sender_keep_their_order(shards: usize) {
    const EVENTS: usize = 200;
    let server = options(shards).arg("--client-events-per-second", 1000).start();
    let mut senders: Vec<Pusher> = (0..2).map(|_| Pusher::connect(&server)).collect();
    let mut readers: Vec<Pusher> = (0..6).map(|_| Pusher::connect(&server)).collect();
    senders.iter_mut().chain(&mut readers).for_each(|client| client.subscribe("private-a"));
    let mut native: Client = join(&server, "private-a", None);
    for n in 0..EVENTS {
        for (at, sender) in senders.iter_mut().enumerate() {
            sender.send(&format!(r#"{{"event":"client-{at}","channel":"private-a","data":{n}}}"#));
        }
    }
    let read = |text: String| -> (usize, usize) {
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let event = value["event"].as_str().expect("a name");
        let data = value["data"].as_str().map_or_else(|| value["data"].to_string(), str::to_owned);
        (usize::from(event == "client-1"), data.parse().unwrap_or_else(|_| panic!("{text}")))
    };
    let order: Vec<(usize, usize)> = (0..2 * EVENTS).map(|_| read(native.text())).collect();
    for at in 0..2 {
        let of_one: Vec<usize> = order.iter().filter(|(of, _)| *of == at).map(|(_, n)| *n).collect();
        assert_eq!(of_one, (0..EVENTS).collect::<Vec<_>>(), "of one sender");
    }
    for reader in &mut readers {
        let found: Vec<(usize, usize)> = (0..2 * EVENTS).map(|_| read(reader.text())).collect();
        assert_eq!(found, order, "one order");
    }
    senders.iter_mut().for_each(|sender| {
        (0..EVENTS).for_each(|_| drop(sender.text()));
        sender.expect_nothing();
    });
}
