//! Readers of channels that conflate, which take nothing for a while.

use super::{House, text_frame};
use crate::config::Rules;
use crate::hub::Submission;
use crate::hub::message::Message;
use crate::ids::{Asker, ConnKey, Slot};
use crate::protocol::channel::Channel;
use crate::shard::Shard;
use crate::shard::orders::Order;
use crossbeam_channel::bounded;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

const READERS: usize = 3;
const KEYS: usize = 50;
/// Bytes of the end of what a reader receives: more than all values together, and less than what it had not taken.
const TAIL: usize = 16 * 1024;

/// A drain closes readers for which messages are held back. They are sent the newest value of every key, and then the close.
#[test]
fn a_drain_sends_what_is_held_back_before_the_close() {
    loop {
        let (took, received) = drained();
        let missing = received.iter().find(|text| !is_newest_of_every_key_and_a_close(text));
        // A client that takes nothing for 3 s is cut off, so an attempt that stalls shows nothing.
        match missing {
            None => return,
            Some(text) => assert!(took > Duration::from_secs(2), "{text:?} ends the output"),
        }
    }
}

/// Drains a shard with blocked readers. Returns how long that took, and what the readers receive.
fn drained() -> (Duration, Vec<String>) {
    let (mut house, mut readers) = blocked();
    for value in ["\"old\"", "\"new\""] {
        (0..KEYS).for_each(|key| publish(&mut house, Some(&key.to_string()), value));
    }
    // And the last message without a key.
    assert_eq!(house.shards[0].hub.gauges().messages_held_back as usize, READERS * (KEYS + 1));
    let begun_at = Instant::now();
    let (begun, _counts) = bounded(1);
    house.order(0, Order::Drain { over_ms: 0, begun });
    while house.shards[0].clients.count_open() > 0 {
        house.turn(0);
    }
    assert_eq!(house.shards[0].hub.gauges().messages_held_back as usize, 0);
    let received = readers.iter_mut().map(|reader| read_to_end(&mut house, reader)).collect();
    (begun_at.elapsed(), received)
}

fn is_newest_of_every_key_and_a_close(received: &str) -> bool {
    let Some((_, end)) = received.rsplit_once("\"new\"") else { return false };
    received.matches("\"new\"").count() == KEYS && !received.contains("\"old\"") && end.contains("retry after")
}

/// The limit of the memory of all outboxes judges by these numbers.
#[test]
fn keys_count_as_memory_once_however_many_readers_wait_for_them() {
    let held = |key_bytes: usize| {
        let (mut house, readers) = blocked();
        let before = house.shards[0].hub.waiting_bytes();
        for key in 0..KEYS {
            publish(&mut house, Some(&format!("{key:0>key_bytes$}")), "1");
        }
        let hub = &house.shards[0].hub;
        let taken = hub.waiting_bytes() - before;
        let of_readers: usize = (0..READERS as Slot).map(|slot| hub.held_bytes_of(slot)).sum();
        drop(readers);
        house.rest();
        assert_eq!(house.shards[0].hub.waiting_bytes(), 0, "what was held back is still counted");
        (taken, of_readers)
    };
    let (short, long) = (held(2), held(64));
    assert_eq!(long.0 - short.0, 62 * KEYS);
    // Each reader is charged its share.
    let shares = long.1 - short.1;
    assert!((62 * KEYS - READERS * KEYS..=62 * KEYS + READERS * KEYS).contains(&shares), "{shares}");
}

/// A connection is excluded from every second message, so the numbers of the messages that are held back for it are not
/// consecutive. Newer messages replace most of them.
#[test]
fn messages_that_were_replaced_take_no_memory() {
    let (mut house, readers) = blocked();
    let hub = &house.shards[0].hub;
    let (before, exclude) = (hub.waiting_bytes(), hub.key_of(hub.socket_id(0)));
    assert!(exclude.is_some());
    for number in 0..20_000 {
        let exclude = exclude.filter(|_| number % 2 == 0);
        publish_except(&mut house, Some(&(number % KEYS).to_string()), "1", exclude);
    }
    let taken = house.shards[0].hub.waiting_bytes() - before;
    assert!(taken < 64 * 1024, "{taken} bytes");
    drop(readers);
    house.rest();
    assert_eq!(house.shards[0].hub.waiting_bytes(), 0, "what was held back is still counted");
}

/// A shard with readers for which so much waits that the last message is held back.
fn blocked() -> (House, Vec<TcpStream>) {
    let rules = "[[channel]]\nmatch = \"prices\"\nslow = \"latest-by-key\"\n";
    let mut house = House::new(1, |live| live.rules = Arc::new(Rules::parse(rules)));
    let mut readers = house.connect(0, READERS);
    for reader in &mut readers {
        reader.set_nonblocking(true).expect("a socket option");
        reader
            .write_all(&text_frame(r#"{"event":"socket:subscribe","data":{"channel":"prices"}}"#))
            .expect("room for a request");
    }
    house.rest();
    let filler = format!("\"{}\"", "x".repeat(4096));
    for _ in 0..100 {
        publish(&mut house, None, &filler);
    }
    assert_eq!(house.shards[0].hub.gauges().messages_held_back as usize, READERS);
    (house, readers)
}

/// Publishes in a turn that writes nothing, so that what waits does not depend on what the sockets take.
fn publish(house: &mut House, key: Option<&str>, data: &str) {
    publish_except(house, key, data, None);
}

fn publish_except(house: &mut House, key: Option<&str>, data: &str, exclude: Option<ConnKey>) {
    let message = Message { event: "e", data: Some(data), key, ..Message::default() };
    let submission = Submission { message, exclude, ..Submission::default() };
    let asker = Asker { shard: 0, session: 0, generation: 0, request: 0 };
    let Shard { hub, clients, .. } = &mut house.shards[0];
    hub.publish(&[Channel::parse("prices").expect("a name")], &submission, asker, clients);
    hub.end_turn(clients);
}

/// Reads while the shard turns, until the server has sent all, and answers with the end of the stream.
fn read_to_end(house: &mut House, reader: &mut TcpStream) -> String {
    let (mut received, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        house.turn(0);
        match reader.read(&mut buffer) {
            Ok(0) => return String::from_utf8_lossy(&received[received.len().saturating_sub(TAIL)..]).into_owned(),
            Ok(read) => received.extend_from_slice(&buffer[..read]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
}
