//! Conflation: a reader that is blocked gets the newest message of each key, and is not closed.

use crate::harness::{
    Admin, RawClient, Server, eventually, for_shards, opcode, subscribe, subscribed, text_frame, unsubscribe,
    unsubscribed,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::thread;

for_shards!(
    blocked_readers_end_with_the_last_value_of_every_key,
    what_is_not_conflated_reaches_a_blocked_reader,
    a_channel_that_is_left_sends_nothing_more,
    a_busy_channel_does_not_keep_another_from_being_sent,
    what_is_held_back_is_sent_before_the_close_of_a_stop,
    a_reload_decides_what_happens_to_slow_readers,
);

const KEYS: usize = 100;
const KIB: usize = 1024;
/// `SO_RCVBUF` of a slow reader.
const RECEIVE_BYTES: usize = 64 * KIB;

const RULES: &str = r#"
[[channel]]
match = "prices:*"
history = 10
slow = "latest-by-key"
[[channel]]
match = "state:*"
slow = "latest"
"#;

fn start(shards: usize) -> Server {
    let options = Server::options(shards).config(RULES);
    // Far below what is published, and below what the kernel would buffer.
    options.arg("--outbox-limit", "256KiB").arg("--shutdown-timeout", 60).start()
}

fn reader(server: &Server, channel: &str) -> RawClient {
    let mut reader = RawClient::tcp_with_buffer(server, RECEIVE_BYTES);
    reader.upgrade();
    reader.write(&text_frame(&subscribe(channel)));
    assert!(reader.text().starts_with(r#"{"event":"socket:subscribed""#));
    reader
}

/// Publishes `rounds` values of each key, each with its round, while `between` runs once a round.
fn publish(admin: &mut Admin, channel: &str, rounds: std::ops::Range<usize>, mut between: impl FnMut()) {
    let padding = "x".repeat(300);
    for round in rounds {
        let line = |key| {
            let data = json!({"key": key, "round": round, "padding": padding});
            let key = format!("key {key}");
            json!({"id": 1, "command": "publish", "channel": channel, "event": "price", "data": data, "key": key})
        };
        admin.write((0..KEYS).map(|key| format!("{}\n", line(key))).collect::<String>());
        for _ in 0..KEYS {
            let reply = admin.line();
            assert!(reply.starts_with(r#"{"id":1,"ok":true"#), "{reply}");
        }
        between();
    }
}

/// What a reader has received.
#[derive(Default)]
struct Received {
    bytes: usize,
    messages: usize,
    offset: u64,
    /// By key: the round of its last value.
    rounds: BTreeMap<u64, u64>,
}

impl Received {
    /// Reads messages until every key has its value of `round`. Their offsets grow.
    fn read_to(&mut self, reader: &mut RawClient, round: usize) {
        while self.rounds.len() < KEYS || self.rounds.values().any(|&last| last != round as u64) {
            let text = reader.text();
            // A frame of this length has 4 bytes of header.
            self.bytes += 4 + text.len();
            self.messages += 1;
            let message: Value = serde_json::from_str(&text).expect("JSON");
            let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number in {message}"));
            let offset = number(&message["offset"]);
            assert!(offset > self.offset, "{offset} follows {}", self.offset);
            self.offset = offset;
            let (key, round) = (number(&message["data"]["key"]), number(&message["data"]["round"]));
            let before = self.rounds.insert(key, round);
            assert!(before.is_none_or(|before| before < round), "round {round} of {key} follows {before:?}");
        }
    }
}

/// 10 MB are published while some readers read nothing. They are not closed. When they resume, what is outdated is less than
/// 256 KiB, beside what their receive buffers hold. A neighbour that reads gets every value.
fn blocked_readers_end_with_the_last_value_of_every_key(shards: usize) {
    const ROUNDS: usize = 300;
    let server = start(shards);
    let mut blocked: Vec<RawClient> = (0..2 * shards).map(|_| reader(&server, "prices:a")).collect();
    let (mut neighbour, mut received) = (reader(&server, "prices:a"), Received::default());
    let mut admin = Admin::connect(&server);
    let mut round = 0;
    publish(&mut admin, "prices:a", 0..ROUNDS, || {
        received.read_to(&mut neighbour, round);
        round += 1;
    });
    assert_eq!(received.messages, KEYS * ROUNDS);

    let open = admin.ok(json!({"id": 1, "command": "connections"}));
    assert_eq!(open["connections"].as_array().map(Vec::len), Some(2 * shards + 1), "{open}");
    let conflated = admin.stat("messages_conflated");
    let mut missing = 0;
    for reader in &mut blocked {
        let mut received = Received::default();
        received.read_to(reader, ROUNDS - 1);
        missing += KEYS * ROUNDS - received.messages;
        // The kernel doubles SO_RCVBUF.
        let bytes = received.bytes;
        assert!(bytes < 256 * KIB + 2 * RECEIVE_BYTES, "{bytes} bytes until every key had its last value");
    }
    assert_eq!(conflated, missing as u64, "every message that was not sent is counted");

    // All of them go on.
    publish(&mut admin, "prices:a", ROUNDS..ROUNDS + 1, || ());
    for reader in &mut blocked {
        let text = reader.text();
        assert!(text.contains(&format!(r#""round":{ROUNDS}"#)), "{text}");
    }
}

/// Replies, other channels and client events.
fn what_is_not_conflated_reaches_a_blocked_reader(shards: usize) {
    const NOTES: usize = 100;
    let server = start(shards);
    let mut reader = reader(&server, "state:a");
    reader.write(&text_frame(&subscribe("other")));
    reader.expect(&subscribed("other"));
    let mut admin = Admin::connect(&server);
    let state = |number: usize| json!(format!("{number}:{}", "x".repeat(1000)));
    let mut number = 0;
    eventually("messages are held back", || {
        // Many for each look, because the kernel's buffers are filled first.
        for _ in 0..50 {
            number += 1;
            admin.publish("state:a", "state", state(number));
        }
        admin.stat("messages_conflated") > 0
    });
    for note in 0..NOTES {
        admin.publish("state:a", "client-note", json!(note));
        admin.publish("other", "note", json!(note));
        admin.publish("state:a", "state", state(number + note));
    }
    reader.write(&text_frame(r#"{"event":"socket:ping","data":{"id":1}}"#));

    let (mut states, mut of_client, mut of_other, mut pongs) = (Vec::new(), 0, 0, 0);
    let last = state(number + NOTES - 1).to_string();
    while states.last() != Some(&last) || pongs == 0 {
        let message: Value = serde_json::from_str(&reader.text()).expect("JSON");
        match message["event"].as_str() {
            Some("state") => states.push(message["data"].to_string()),
            Some("client-note") => {
                assert_eq!(message["data"], of_client);
                of_client += 1;
            }
            Some("note") => {
                assert_eq!(message["data"], of_other);
                of_other += 1;
            }
            Some("socket:pong") => pongs += 1,
            _ => panic!("{message}"),
        }
    }
    assert_eq!((of_client, of_other, pongs), (NOTES, NOTES, 1));
    assert!(states.len() < number + NOTES, "no state was left out");
}

/// What is held back of a channel is dropped with the subscription. The other channel's newest message arrives.
fn a_channel_that_is_left_sends_nothing_more(shards: usize) {
    let server = start(shards);
    let mut reader = reader(&server, "state:a");
    reader.write(&text_frame(&subscribe("state:b")));
    reader.expect(&subscribed("state:b"));
    let mut admin = Admin::connect(&server);
    let padding = "x".repeat(1000);
    eventually("messages are held back", || {
        for _ in 0..25 {
            admin.publish("state:a", "a", json!(padding));
            admin.publish("state:b", "b", json!(padding));
        }
        admin.stat("messages_conflated") > 0
    });
    admin.publish("state:b", "b", json!("last of b"));
    admin.publish("state:a", "a", json!("last of a"));
    reader.write(&text_frame(&unsubscribe("state:a")));
    eventually("it has left", || admin.subscribers("state:a") == 0);
    let mut has_left = false;
    loop {
        let text = reader.text();
        assert!(!text.contains("last of a"), "what was held back is sent after the subscription ended");
        if text == unsubscribed("state:a") {
            has_left = true;
        } else if text.contains("last of b") {
            break;
        } else {
            assert!(text.contains(&padding) && !(has_left && text.contains("state:a")), "{text}");
        }
    }
    assert!(has_left);
    assert_eq!(admin.stat("closes_slow_consumer"), 0);
}

/// A reader of two channels is blocked. While it reads, there is always more of the first one than it is sent at a time.
fn a_busy_channel_does_not_keep_another_from_being_sent(shards: usize) {
    let server = start(shards);
    let mut reader = reader(&server, "prices:busy");
    reader.write(&text_frame(&subscribe("prices:quiet")));
    assert!(reader.text().contains("prices:quiet"));
    let mut admin = Admin::connect(&server);
    let padding = "x".repeat(1000);
    let mut number = 0;
    let mut publish = |admin: &mut Admin| {
        number += 1;
        let key = (number % 200).to_string();
        let line =
            json!({"id": 1, "command": "publish", "channel": "prices:busy", "event": "e", "data": padding, "key": key});
        admin.ok(line);
    };
    eventually("messages are held back", || {
        (0..100).for_each(|_| publish(&mut admin));
        admin.stat("messages_conflated") > 0
    });
    admin.publish("prices:quiet", "e", json!("the only one"));
    let reads = (0..3000).take_while(|_| {
        (0..3).for_each(|_| publish(&mut admin));
        !reader.text().contains("the only one")
    });
    assert!(reads.count() < 3000, "it is never sent");
}

/// Messages are held back for readers when the server drains, and is then stopped. They get the last value of every key, and
/// then the close.
fn what_is_held_back_is_sent_before_the_close_of_a_stop(shards: usize) {
    const ROUNDS: usize = 50;
    let mut server = start(shards);
    let blocked: Vec<RawClient> = (0..2 * shards).map(|_| reader(&server, "prices:a")).collect();
    let mut admin = Admin::connect(&server);
    publish(&mut admin, "prices:a", 0..ROUNDS - 1, || ());
    admin.ok(json!({"id": 1, "command": "drain", "over_ms": 3_600_000}));
    publish(&mut admin, "prices:a", ROUNDS - 1..ROUNDS, || ());
    assert!(admin.stat("messages_held_back") >= blocked.len() as u64);
    server.signal(Signal::TERM);
    thread::scope(|scope| {
        for mut reader in blocked {
            scope.spawn(move || {
                let mut received = Received::default();
                received.read_to(&mut reader, ROUNDS - 1);
                assert!(received.messages < KEYS * ROUNDS, "nothing was held back");
                reader.expect_close(1012);
            });
        }
    });
    assert_eq!(server.wait().code(), Some(0));
}

/// Readers that are subscribed when `slow` changes follow the new rule. What is held back is sent in its order.
fn a_reload_decides_what_happens_to_slow_readers(shards: usize) {
    const ROUNDS: usize = 10;
    let server = start(shards);
    let reload = |rules: &str| {
        server.write_config(rules);
        let reply = Admin::connect(&server).ok(json!({"id": 1, "command": "reload"}));
        assert_eq!(reply["changes"].as_array().map(Vec::len), Some(1), "{reply}");
    };
    let without = RULES.replace("slow = \"latest-by-key\"\n", "");
    reload(&without);
    // They subscribe while the channel closes slow readers.
    let mut blocked: Vec<RawClient> = (0..2 * shards).map(|_| reader(&server, "prices:a")).collect();
    let mut admin = Admin::connect(&server);
    reload(RULES);
    let mut rounds = 0;
    let mut publish_more = |admin: &mut Admin| {
        publish(admin, "prices:a", rounds..rounds + ROUNDS, || ());
        rounds += ROUNDS;
        rounds
    };
    eventually("every value is held back for every reader", || {
        publish_more(&mut admin);
        admin.stat("messages_held_back") == (KEYS * blocked.len()) as u64
    });
    let published = publish_more(&mut admin);
    assert_eq!(admin.stat("closes_slow_consumer"), 0);
    reload(&without);
    eventually("nothing is held back any more", || admin.stat("messages_held_back") == 0);
    for reader in &mut blocked {
        let mut received = Received::default();
        received.read_to(reader, published - 1);
        assert!(received.messages < KEYS * published, "nothing was held back");
    }
    // And now a reader that takes nothing is closed.
    eventually("slow readers are closed", || {
        publish_more(&mut admin);
        admin.stat("closes_slow_consumer") == blocked.len() as u64
    });
}

/// Beyond 1000 keys a reader that is blocked is treated as on any other channel.
#[test]
fn a_blocked_reader_of_too_many_keys_is_closed() {
    let server = start(1);
    let mut blocked = reader(&server, "prices:a");
    let mut admin = Admin::connect(&server);
    let mut key = 0;
    eventually("it is closed", || {
        for _ in 0..100 {
            key += 1;
            let line = json!({"id": 1, "command": "publish", "channel": "prices:a", "event": "e", "data": "x".repeat(500), "key": key.to_string()});
            admin.ok(line);
        }
        admin.stat("closes_slow_consumer") == 1
    });
    assert!(key > 1000, "closed after {key} keys");
    let mut offset = 0;
    while let Some((opcode::TEXT, payload)) = blocked.try_frame() {
        let message: Value = serde_json::from_slice(&payload).expect("JSON");
        let next = message["offset"].as_u64().expect("an offset");
        assert!(next > offset, "{next} follows {offset}");
        offset = next;
    }
}
