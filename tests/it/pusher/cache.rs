//! Cache channels: the last published event follows the success, exactly once and before live events.

use super::client::{Pusher, message, options, succeeded};
use crate::harness::{Admin, Client, eventually, for_shards};
use crate::http::Http;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

for_shards!(
    and_over_tls,
    a_newcomer_is_sent_the_last_event_or_a_miss,
    only_what_the_server_publishes_is_kept,
    a_rule_changes_what_a_channel_keeps,
    joiners_see_no_gap_and_no_double_under_load,
);

const NAMES: [&str; 4] = ["cache-a", "private-cache-a", "private-encrypted-cache-a", "presence-cache-a"];

/// Subscribes, and reads the success.
#[track_caller]
fn enter(client: &mut Pusher, channel: &str) {
    if channel.starts_with("presence-") {
        client.join(channel, "11");
    } else {
        client.subscribe(channel);
    }
}

fn a_newcomer_is_sent_the_last_event_or_a_miss(shards: usize) {
    let server = options(shards).start();
    let mut http = Http::connect(&server);
    for name in NAMES {
        let mut client = Pusher::connect(&server);
        enter(&mut client, name);
        client.expect(&message("pusher:cache_miss", name, "{}"));
        client.expect_nothing();
        // Excluded, the connection does not receive the event, but the event is kept.
        let event = json!({"name": "first", "channel": name, "data": "[1]", "socket_id": client.socket_id});
        assert_eq!(http.publish(&event.to_string()).status, 200);
        client.expect_nothing();
        client.unsubscribe(name);
        // It outlives the last subscriber.
        for version in [5, 7] {
            let mut client = Pusher::speaking(&server, version);
            enter(&mut client, name);
            client.expect(&message("first", name, "[1]"));
            client.expect_nothing();
        }
        let event = json!({"name": "last", "channel": name, "data": "2"});
        assert_eq!(http.publish(&event.to_string()).status, 200);
        enter(&mut client, name);
        client.expect(&message("last", name, "2"));
        client.expect_nothing();
    }
    let mut native = Client::connect(&server);
    native.send(&crate::harness::subscribe("cache-b"));
    assert!(native.text().starts_with(r#"{"event":"socket:subscribed","channel":"cache-b""#));
    native.expect_nothing_before_pong();
}

fn only_what_the_server_publishes_is_kept(shards: usize) {
    let server = options(shards).start();
    let (mut client, mut other) = (Pusher::connect(&server), Pusher::connect(&server));
    for client in [&mut client, &mut other] {
        client.subscribe("private-cache-a");
        client.expect(&message("pusher:cache_miss", "private-cache-a", "{}"));
    }
    client.send(r#"{"event":"client-e","channel":"private-cache-a","data":1}"#);
    other.expect(&message("client-e", "private-cache-a", "1"));
    let mut third = Pusher::connect(&server);
    third.subscribe("private-cache-a");
    third.expect(&message("pusher:cache_miss", "private-cache-a", "{}"));
    // Members that come and go are not kept either.
    let (mut first, mut second) = (Pusher::connect(&server), Pusher::connect(&server));
    first.join("presence-cache-a", "11");
    first.expect(&message("pusher:cache_miss", "presence-cache-a", "{}"));
    second.join("presence-cache-a", "12");
    second.expect(&message("pusher:cache_miss", "presence-cache-a", "{}"));
    Admin::connect(&server).publish("presence-cache-a", "e", json!({"a": 1}));
    let mut third = Pusher::connect(&server);
    third.join("presence-cache-a", "13");
    third.expect(&message("e", "presence-cache-a", r#"{"a":1}"#));
}

fn a_rule_changes_what_a_channel_keeps(shards: usize) {
    let tables = r#"
        [[channel]]
        match = "cache-off"
        history = 0
        [[channel]]
        match = "cache-short"
        history = 1
        history-ttl = 1
        on-subscribe = "last"
        [[channel]]
        match = "greeting"
        history = 2
        on-subscribe = "all"
    "#;
    let server = options(shards).config(tables).start();
    let mut admin = Admin::connect(&server);
    let enter = |channel: &str| {
        let mut client = Pusher::connect(&server);
        client.subscribe(channel);
        client
    };
    // An ordinary channel: neither an event nor a miss.
    admin.publish("cache-off", "e", json!(1));
    enter("cache-off").expect_nothing();
    // A miss once the event is too old.
    admin.publish("cache-short", "e", json!(1));
    eventually("the event is gone", || {
        let mut client = enter("cache-short");
        let text = client.text();
        assert!([message("e", "cache-short", "1"), message("pusher:cache_miss", "cache-short", "{}")].contains(&text));
        text.contains("cache_miss")
    });
    // Other channels may greet, too, and have no misses.
    enter("greeting").expect_nothing();
    (1..4).for_each(|n| _ = admin.publish("greeting", "e", json!(n)));
    let mut client = enter("greeting");
    client.expect(&message("e", "greeting", "2"));
    client.expect(&message("e", "greeting", "3"));
    client.expect_nothing();
}

/// Each joiner sees the event that is the last one when it comes, and then all later ones.
fn joiners_see_no_gap_and_no_double_under_load(shards: usize) {
    const JOINERS: usize = 100;
    const AFTER: usize = 50;
    let server = options(shards).arg("--outbox-limit", "64MiB").start();
    let mut clients: Vec<Pusher> = (0..JOINERS).map(|_| Pusher::connect(&server)).collect();
    let is_done = AtomicBool::new(false);
    let last = thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut admin = Admin::connect(&server);
            let mut n = 0_u64;
            let mut left = AFTER;
            while left > 0 {
                admin.publish("cache-a", "e", json!(n));
                n += 1;
                left -= usize::from(is_done.load(Ordering::SeqCst));
            }
            n - 1
        });
        for (n, client) in clients.iter_mut().enumerate() {
            // Some come and go before.
            if n % 3 == 0 {
                client.send(r#"{"event":"pusher:subscribe","data":{"channel":"cache-a"}}"#);
                client.send(r#"{"event":"pusher:unsubscribe","data":{"channel":"cache-a"}}"#);
            }
            client.send(r#"{"event":"pusher:subscribe","data":{"channel":"cache-a"}}"#);
        }
        is_done.store(true, Ordering::SeqCst);
        publisher.join().expect("no panic")
    });
    for (n, client) in clients.iter_mut().enumerate() {
        for _ in 0..if n % 3 == 0 { 2 } else { 1 } {
            let mut next = None;
            client.expect_success_after(&mut next);
        }
        // A miss is right before the first publish alone.
        let mut next: Option<u64> = None;
        loop {
            let text = client.text();
            if text == message("pusher:cache_miss", "cache-a", "{}") {
                assert_eq!(next.replace(0), None, "{text}");
                continue;
            }
            let found: Value = serde_json::from_str(&text).expect("JSON");
            let number: u64 = found["data"].as_str().and_then(|data| data.parse().ok()).expect("a number");
            assert_eq!(text, message("e", "cache-a", &number.to_string()));
            assert_eq!(next.unwrap_or(number), number, "a gap or a double");
            next = Some(number + 1);
            if number == last {
                break;
            }
        }
        client.expect_nothing();
    }
}

impl Pusher {
    /// Reads up to the next success of `cache-a`: what came before belongs to an earlier subscription, without gaps.
    fn expect_success_after(&mut self, next: &mut Option<u64>) {
        loop {
            let text = self.text();
            if text == succeeded("cache-a") {
                return;
            }
            if text.contains("cache_miss") {
                assert_eq!(next.replace(0), None);
                continue;
            }
            let found: Value = serde_json::from_str(&text).expect("JSON");
            let number: u64 = found["data"].as_str().and_then(|data| data.parse().ok()).expect("a number");
            assert_eq!(next.unwrap_or(number), number, "a gap or a double");
            *next = Some(number + 1);
        }
    }
}
