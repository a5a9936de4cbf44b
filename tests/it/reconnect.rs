//! Clients that come back: with many channels at once, slowly, and by the hundred while messages are published.

use crate::harness::{Admin, Client, RawClient, Server, for_shards, subscribe, text_frame};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

for_shards!(
    coming_back_to_many_large_channels_is_recovered,
    greetings_larger_than_half_of_the_outbox_close_nothing,
    a_storm_of_clients_misses_nothing,
);

/// As many as a connection may subscribe to.
const CHANNELS: usize = 128;

/// The text of a subscribe, from a position if there is one.
fn request(channel: &str, since: Option<&Value>) -> String {
    match since {
        None => subscribe(channel),
        Some(since) => json!({"event": "socket:subscribe", "data": {"channel": channel, "since": since}}).to_string(),
    }
}

/// Publishes, and returns the position of the message.
fn publish(admin: &mut Admin, channel: &str, data: &Value) -> Value {
    let reply = admin.ok(json!({"id": 1, "command": "publish", "channel": channel, "event": "e", "data": data}));
    json!({"epoch": reply["epoch"], "offset": reply["offset"]})
}

/// Sends a subscribe to each channel in one write. Each is answered, in order, with `recovered` and one message of this length;
/// after every fourth message the client pauses.
fn subscribe_to_all(mut client: RawClient, since: &[Option<Value>], recovered: &Value, len: usize, pause: Duration) {
    client.upgrade();
    let frames =
        since.iter().enumerate().map(|(number, since)| text_frame(&request(&format!("h:{number}"), since.as_ref())));
    let requests: Vec<u8> = frames.flatten().collect();
    let mut writer = client.transport().socket().try_clone().expect("a second handle");
    thread::scope(|scope| {
        scope.spawn(move || writer.write_all(&requests).expect("the server takes bytes"));
        for number in 0..since.len() {
            let channel = format!("h:{number}");
            let reply: Value = serde_json::from_str(&client.text()).expect("JSON");
            assert_eq!((&reply["event"], &reply["channel"]), (&json!("socket:subscribed"), &json!(channel)));
            assert_eq!(&reply["data"]["recovered"], recovered, "{channel}");
            let message: Value = serde_json::from_str(&client.text()).expect("JSON");
            assert_eq!((&message["channel"], message["data"].as_str().map(str::len)), (&json!(channel), Some(len)));
            if number % 4 == 0 {
                thread::sleep(pause);
            }
        }
    });
    client.write(&text_frame(r#"{"event":"socket:ping","data":{"id":1}}"#));
    client.expect(r#"{"event":"socket:pong","data":{"reply":1}}"#);
}

/// 25 MiB for a connection whose outbox holds 1 MiB.
fn coming_back_to_many_large_channels_is_recovered(shards: usize) {
    const LEN: usize = 200 * 1024;
    let rules = "[[channel]]\nmatch = \"h*\"\nhistory = 10\nhistory-bytes = \"1MiB\"\n";
    let server = Server::options(shards).config(rules).start();
    let mut admin = Admin::connect(&server);
    let data = json!("x".repeat(LEN));
    let positions: Vec<Option<Value>> = (0..CHANNELS)
        .map(|number| {
            let channel = format!("h:{number}");
            let position = publish(&mut admin, &channel, &json!(0));
            publish(&mut admin, &channel, &data);
            Some(position)
        })
        .collect();
    for pause in [0, 10].map(Duration::from_millis) {
        let client = RawClient::tcp_with_small_buffer(&server);
        subscribe_to_all(client, &positions, &json!(true), LEN, pause);
    }
    let stats = admin.stats();
    assert_eq!((&stats["recoveries"], &stats["recoveries_failed"]), (&json!(2 * CHANNELS), &json!(0)));
    assert_eq!(stats["closes_slow_consumer"], 0);
}

/// The newest message follows `socket:subscribed` whatever its size: one at a time fits into the outbox.
fn greetings_larger_than_half_of_the_outbox_close_nothing(shards: usize) {
    const LEN: usize = 100_000;
    let rules = "[[channel]]\nmatch = \"h*\"\nhistory = 10\non-subscribe = \"last\"\n";
    let server = Server::options(shards).config(rules).arg("--outbox-limit", "128KiB").start();
    let mut admin = Admin::connect(&server);
    let data = json!("x".repeat(LEN));
    (0..CHANNELS).for_each(|number| _ = publish(&mut admin, &format!("h:{number}"), &data));
    for pause in [0, 10].map(Duration::from_millis) {
        let client = RawClient::tcp_with_small_buffer(&server);
        subscribe_to_all(client, &vec![None; CHANNELS], &Value::Null, LEN, pause);
    }
}

const STORM_CHANNELS: usize = 4;
const STORM_THREADS: usize = 8;
const STORM_CLIENTS: usize = 40;
const STORM_ROUNDS: usize = 4;

/// Hundreds of clients come back again and again while messages are published. What each receives on all its connections is a
/// part of the channel's messages, which count up: nothing is missing, nothing comes twice.
fn a_storm_of_clients_misses_nothing(shards: usize) {
    let rules = "[[channel]]\nmatch = \"s*\"\nhistory = 900\n";
    let server = Server::options(shards).config(rules).start();
    let mut admin = Admin::connect(&server);
    let coming = AtomicUsize::new(STORM_THREADS);
    thread::scope(|scope| {
        for thread in 0..STORM_THREADS {
            let (server, coming) = (&server, &coming);
            scope.spawn(move || {
                // Also if it panics: the publisher must end.
                let _done = Done(coming);
                storm(server, thread);
            });
        }
        for number in 0.. {
            (0..STORM_CHANNELS).for_each(|channel| _ = publish(&mut admin, &format!("s:{channel}"), &json!(number)));
            if coming.load(Ordering::Relaxed) == 0 {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
    });
    let stats = admin.stats();
    let count = |name: &str| stats[name].as_u64().expect(name);
    assert_eq!(count("recoveries") + count("recoveries_failed"), (STORM_THREADS * STORM_CLIENTS * STORM_ROUNDS) as u64);
    assert!(count("recoveries") > count("recoveries_failed") && count("messages_replayed") > 0, "{stats}");
}

struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client's last message: its position, and the number that it holds.
struct Last {
    position: Value,
    number: u64,
}

/// Clients that subscribe, receive a few messages, disconnect together and come back.
fn storm(server: &Server, thread: usize) {
    let mut lasts: Vec<Option<Last>> = (0..STORM_CLIENTS).map(|_| None).collect();
    for round in 0..=STORM_ROUNDS {
        let mut clients: Vec<Client> = (0..STORM_CLIENTS).map(|_| Client::connect_to(server.address)).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            let since = lasts[number].as_ref().map(|last| &last.position);
            client.send(&request(&format!("s:{}", (thread + number) % STORM_CHANNELS), since));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let reply: Value = serde_json::from_str(&client.text()).expect("JSON");
            assert_eq!(reply["event"], "socket:subscribed", "{reply}");
            if reply["data"]["recovered"] != json!(true) {
                lasts[number] = None;
            }
            for _ in 0..3 + (number + round) % 5 {
                let message: Value = serde_json::from_str(&client.text()).expect("JSON");
                let next = message["data"].as_u64().expect("a number");
                if let Some(last) = &lasts[number] {
                    assert_eq!(next, last.number + 1, "client {number} of thread {thread}, round {round}");
                }
                let position = json!({"epoch": reply["data"]["epoch"], "offset": message["offset"]});
                lasts[number] = Some(Last { position, number: next });
            }
        }
    }
}
