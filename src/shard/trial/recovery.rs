//! Requests whose replies are long, and wait for other shards.

use super::{House, text_frame};
use crate::api::publish::Placed;
use crate::config::Rules;
use crate::hub::Submission;
use crate::hub::message::Message;
use crate::ids::Asker;
use crate::protocol::channel::Channel;
use crate::shard::Shard;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The first reply waits for another shard, which does not turn. Replays that this shard could make at once must not pile up
/// behind it: no outbox counts them.
#[test]
fn long_replies_do_not_pile_up_behind_one_that_waits() {
    let (mut house, mut client) = prepared();
    let mut requests = text_frame(&subscribe(&owned_by(&house, 1, "plain")));
    let large: Vec<String> = (0..16).map(|number| owned_by(&house, 0, &format!("h{number}-"))).collect();
    for name in &large {
        let since = publish(&mut house, 0, name, LARGE);
        requests.extend(text_frame(&subscribe_since(name, &since)));
    }
    client.write_all(&requests).expect("room for requests");
    (0..100).for_each(|_| _ = house.turn(0));
    assert_eq!(house.shards[0].clients.count(), 1, "the connection was closed");
    assert!(!house.shards[0].has_work(), "a shard that waits for another sleeps");
    expect_replies(&mut house, &mut client, 1 + large.len());
}

/// Every reply comes from a shard that answers a turn later, and the client sends nothing more that would wake its own.
#[test]
fn a_request_that_waits_for_a_reply_is_handled_when_it_comes() {
    let (mut house, mut client) = prepared();
    let names: Vec<String> = (0..16).map(|number| owned_by(&house, 1, &format!("h{number}-"))).collect();
    let mut requests = Vec::new();
    for name in &names {
        let since = publish(&mut house, 1, name, 1);
        requests.extend(text_frame(&subscribe_since(name, &since)));
    }
    client.write_all(&requests).expect("room for requests");
    expect_replies(&mut house, &mut client, names.len());
}

const LARGE: usize = 200_000;

/// Two shards, and a client of the first.
fn prepared() -> (House, TcpStream) {
    let rules = "[[channel]]\nmatch = \"h*\"\nhistory = 10\nhistory-bytes = \"1MiB\"\n";
    let mut house = House::new(2, |live| live.rules = Arc::new(Rules::parse(rules)));
    let client = house.connect(0, 1).remove(0);
    client.set_nonblocking(true).expect("a socket option");
    (house, client)
}

/// A name with this beginning that the shard owns.
fn owned_by(house: &House, shard: u16, beginning: &str) -> String {
    let hub = &house.shards[0].hub;
    let is_owned = |name: &String| hub.owner(hub.hash(Channel::parse(name).expect("a name"))) == shard;
    (0..).map(|number| format!("{beginning}{number}")).find(is_owned).expect("a name")
}

/// Publishes a message of this many bytes on the shard that owns the channel. Returns the position before it.
fn publish(house: &mut House, shard: u16, name: &str, bytes: usize) -> String {
    let data = "1".repeat(bytes);
    let message = Message { event: "e", data: Some(&data), ..Message::default() };
    let submission = Submission { message, ..Submission::default() };
    let asker = Asker { shard, session: 0, generation: 0, request: 0 };
    let Shard { hub, clients, .. } = &mut house.shards[usize::from(shard)];
    let placed = hub.publish(&[Channel::parse(name).expect("a name")], &submission, asker, clients).placed;
    let Placed { epoch, offset, .. } = placed.expect("a position: the channel keeps a history");
    let before = offset.expect("an offset").get() - 1;
    format!(r#"{{"epoch":"{epoch:016x}","offset":{before}}}"#)
}

fn subscribe(name: &str) -> String {
    format!(r#"{{"event":"socket:subscribe","data":{{"channel":"{name}"}}}}"#)
}

fn subscribe_since(name: &str, since: &str) -> String {
    format!(r#"{{"event":"socket:subscribe","data":{{"channel":"{name}","since":{since}}}}}"#)
}

/// Lets the shards turn while they do not sleep, and reads, until so many replies have come.
fn expect_replies(house: &mut House, client: &mut TcpStream, count: usize) {
    let (mut received, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    let replies = |received: &[u8]| String::from_utf8_lossy(received).matches("socket:subscribed").count();
    let deadline = Instant::now() + Duration::from_secs(60);
    while replies(&received) < count {
        (0..2).for_each(|shard| _ = house.turn_if_awake(shard));
        match client.read(&mut buffer) {
            Ok(0) => panic!("the connection was closed"),
            Ok(read) => received.extend_from_slice(&buffer[..read]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(Instant::now() < deadline, "{} replies of {count}", replies(&received));
    }
    assert!(!String::from_utf8_lossy(&received).contains(r#""recovered":false"#));
}
