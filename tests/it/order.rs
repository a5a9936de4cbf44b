//! All subscribers of a channel see one order. Between `subscribed` and `unsubscribed` it has no gaps or duplicates.

use crate::harness::{
    Admin, Client, RawClient, Server, assert_error, for_shards, frame, opcode, subscribe, subscribed, text_frame,
    unsubscribe,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

for_shards!(
    and_over_tls,
    all_subscribers_see_one_order,
    pipelined_membership_cuts_exactly,
    replies_come_before_the_end_of_the_connection,
);

const CHANNELS: [&str; 5] = ["order:0", "order:1", "order:2", "order:3", "order:4"];
const PUBLISHERS: usize = 4;
/// Publishes of one publisher at most; together they stay far below a subscriber's outbox limit.
const PUBLISHES: usize = 2_000;
/// Publishes of one publisher that wait for their reply.
const WINDOW: usize = 16;
/// Subscribers that stay from the first publish to the last.
const WITNESSES: usize = 4;
/// Subscribers that come and go. With the witnesses there are so many that only one run in 10^8 leaves one of four shards
/// without any.
const CHURNERS: usize = 66;
const ROUNDS: usize = 6;

/// What was received on one channel, from `subscribed` to `unsubscribed`: the messages' `data`.
type Run = Vec<String>;

/// What the subscribers and publishers share.
struct Stage<'a> {
    address: SocketAddr,
    admin_path: &'a Path,
    /// Churners that still have rounds to do.
    churning: AtomicUsize,
}

fn all_subscribers_see_one_order(shards: usize) {
    let seed = std::env::var("CORECAST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5EED_u64);
    eprintln!("CORECAST_SEED={seed} replays the subscribers' choices");
    let server = Server::start(shards);
    let stage = Stage { address: server.address, admin_path: &server.admin_path, churning: AtomicUsize::new(CHURNERS) };
    let mut admin = Admin::connect(&server);
    let witnesses: Vec<Client> = (0..WITNESSES).map(|_| Client::connect(&server)).collect();
    let churners: Vec<Client> = (0..CHURNERS).map(|_| Client::connect_to(stage.address)).collect();
    assert_every_shard_has_some(&mut admin, shards);

    let (orders, runs, published) = thread::scope(|scope| {
        let witnesses: Vec<_> = witnesses
            .into_iter()
            .map(|mut client| {
                for channel in CHANNELS {
                    client.subscribe(channel);
                }
                scope.spawn(move || witness(client))
            })
            .collect();
        let stage = &stage;
        let churners: Vec<_> = churners
            .into_iter()
            .enumerate()
            .map(|(n, client)| scope.spawn(move || churn(stage, client, seed + n as u64)))
            .collect();
        let publishers: Vec<_> = (0..PUBLISHERS).map(|n| scope.spawn(move || publish(stage, n))).collect();
        let published: Vec<usize> = publishers.into_iter().map(|thread| thread.join().expect("a publisher")).collect();
        // The last message, again and again: a late subscriber must receive it too.
        while churners.iter().any(|thread| !thread.is_finished()) {
            for channel in CHANNELS {
                admin.publish(channel, "end", json!(0));
            }
            thread::sleep(Duration::from_millis(5));
        }
        for channel in CHANNELS {
            admin.publish(channel, "end", json!(0));
        }
        let orders: Vec<_> = witnesses.into_iter().map(|thread| thread.join().expect("a witness")).collect();
        let runs: Vec<_> = churners.into_iter().flat_map(|thread| thread.join().expect("a churner")).collect();
        (orders, runs, published)
    });

    let order = &orders[0];
    for other in &orders[1..] {
        assert!(order == other, "two witnesses saw different orders");
    }
    assert_holds_everything(order, &published);
    assert_runs_are_slices(order, &runs);
}

fn assert_every_shard_has_some(admin: &mut Admin, shards: usize) {
    let reply = admin.ok(json!({"id": 1, "command": "connections", "limit": 1000}));
    let connections = reply["connections"].as_array().expect("an array");
    assert_eq!(connections.len(), WITNESSES + CHURNERS);
    let used: BTreeSet<u64> = connections.iter().filter_map(|item| item["shard"].as_u64()).collect();
    assert_eq!(used, (0..shards as u64).collect(), "shards that have connections");
}

/// Publishes round after round of channels until no client churns any more; returns the number of publishes.
fn publish(stage: &Stage, number: usize) -> usize {
    let mut admin = Admin::connect_to(stage.admin_path);
    let mut sent = 0;
    let mut answered = 0;
    while sent < PUBLISHES && stage.churning.load(Ordering::Relaxed) > 0 {
        let channel = CHANNELS[(sent + number) % CHANNELS.len()];
        let line = format!(
            r#"{{"id":{sent},"command":"publish","channel":"{channel}","event":"m","data":"{number}.{sent}"}}"#
        );
        admin.send(&line);
        sent += 1;
        if sent - answered == WINDOW {
            expect_answer(&mut admin, answered);
            answered += 1;
        }
    }
    for n in answered..sent {
        expect_answer(&mut admin, n);
    }
    sent
}

fn expect_answer(admin: &mut Admin, n: usize) {
    let reply = admin.line();
    assert!(reply.starts_with(&format!(r#"{{"id":{n},"ok":true,"#)), "reply {n}: {reply}");
}

/// A frame that a subscriber gets, taken apart.
enum Received {
    Subscribed(usize),
    Unsubscribed(usize),
    Message(usize, String),
    End(usize),
}

fn receive(client: &mut Client) -> Received {
    let text = client.text();
    let (event, rest) = text
        .strip_prefix(r#"{"event":""#)
        .and_then(|rest| rest.split_once(r#"","channel":""#))
        .unwrap_or_else(|| panic!("unexpected frame {text}"));
    let (channel, rest) = rest.split_once('"').unwrap_or_else(|| panic!("unexpected frame {text}"));
    let channel =
        CHANNELS.iter().position(|name| *name == channel).unwrap_or_else(|| panic!("unexpected channel: {text}"));
    match event {
        "socket:subscribed" => Received::Subscribed(channel),
        "socket:unsubscribed" => Received::Unsubscribed(channel),
        "end" => Received::End(channel),
        "m" => {
            let data = rest.strip_prefix(r#","data":""#).and_then(|rest| rest.strip_suffix("\"}"));
            Received::Message(channel, data.unwrap_or_else(|| panic!("unexpected frame {text}")).to_owned())
        }
        _ => panic!("unexpected frame {text}"),
    }
}

/// Receives on every channel until its last message. Returns all messages by channel.
fn witness(mut client: Client) -> Vec<Run> {
    let mut order = vec![Run::new(); CHANNELS.len()];
    let mut ended = BTreeSet::new();
    while ended.len() < CHANNELS.len() {
        match receive(&mut client) {
            Received::Message(channel, data) => order[channel].push(data),
            Received::End(channel) => _ = ended.insert(channel),
            Received::Subscribed(_) | Received::Unsubscribed(_) => panic!("a reply to no request"),
        }
    }
    order
}

/// Again and again subscribes to some channels, receives for a while, and unsubscribes. Returns every run, with its channel.
fn churn(stage: &Stage, mut client: Client, seed: u64) -> Vec<(usize, Run)> {
    let mut random = Random(seed | 1);
    let mut runs = Vec::new();
    let mut ended = false;
    for _ in 0..ROUNDS {
        let first = random.below(CHANNELS.len());
        let channels: Vec<usize> = (first..first + 1 + random.below(3)).map(|n| n % CHANNELS.len()).collect();
        let mut wanted = random.below(40);
        let mut live: BTreeMap<usize, Run> = BTreeMap::new();
        for channel in &channels {
            client.send(&subscribe(CHANNELS[*channel]));
        }
        let mut awaited = channels.iter();
        while live.len() < channels.len() || (wanted > 0 && !ended) {
            match receive(&mut client) {
                Received::Subscribed(channel) => {
                    assert_eq!(Some(&channel), awaited.next(), "replies come in request order");
                    live.insert(channel, Run::new());
                }
                Received::Message(channel, data) => {
                    let run = live.get_mut(&channel);
                    run.unwrap_or_else(|| panic!("{data} on {} before it was subscribed", CHANNELS[channel]))
                        .push(data);
                    wanted = wanted.saturating_sub(1);
                }
                Received::End(_) => ended = true,
                Received::Unsubscribed(_) => panic!("a reply to no request"),
            }
        }
        for channel in &channels {
            client.send(&unsubscribe(CHANNELS[*channel]));
        }
        let mut awaited = channels.iter();
        while !live.is_empty() {
            match receive(&mut client) {
                Received::Unsubscribed(channel) => {
                    assert_eq!(Some(&channel), awaited.next(), "replies come in request order");
                    runs.push((channel, live.remove(&channel).expect("it was subscribed")));
                }
                Received::Message(channel, data) => {
                    let run = live.get_mut(&channel);
                    run.unwrap_or_else(|| panic!("{data} on {} after it was left", CHANNELS[channel])).push(data);
                }
                Received::End(channel) => {
                    assert!(live.contains_key(&channel), "a message on {} after it was left", CHANNELS[channel]);
                    ended = true;
                }
                Received::Subscribed(_) => panic!("a reply to no request"),
            }
        }
    }
    stage.churning.fetch_sub(1, Ordering::Relaxed);
    client.expect_nothing_before_pong();
    runs
}

/// Asserts that every publish is there once, and those of each publisher in the order in which it published them.
fn assert_holds_everything(order: &[Run], published: &[usize]) {
    for (channel, run) in order.iter().enumerate() {
        let mut expected: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (publisher, sent) in published.iter().enumerate() {
            let own = (0..*sent).filter(|n| (n + publisher) % CHANNELS.len() == channel).collect();
            expected.insert(publisher, own);
        }
        let mut found: BTreeMap<usize, Vec<usize>> =
            (0..published.len()).map(|publisher| (publisher, vec![])).collect();
        for data in run {
            let (publisher, n) = data.split_once('.').expect("publisher.number");
            found
                .get_mut(&publisher.parse().expect("a publisher"))
                .expect("a publisher")
                .push(n.parse().expect("a number"));
        }
        assert!(found == expected, "{}: a gap, a duplicate, or a publisher's messages out of order", CHANNELS[channel]);
    }
}

/// Asserts that every run is a contiguous piece of its channel's order.
fn assert_runs_are_slices(order: &[Run], runs: &[(usize, Run)]) {
    let places: Vec<BTreeMap<&str, usize>> =
        order.iter().map(|run| run.iter().enumerate().map(|(at, data)| (data.as_str(), at)).collect()).collect();
    let mut inside = 0;
    for (channel, run) in runs {
        let Some(first) = run.first() else { continue };
        let start = places[*channel][first.as_str()];
        let whole = &order[*channel];
        let end = (start + run.len()).min(whole.len());
        assert!(
            whole[start..end] == run[..],
            "{}: heard {run:?}\nwhere the order is {:?}",
            CHANNELS[*channel],
            &whole[start..end]
        );
        inside += usize::from(start > 0 && end < whole.len());
    }
    assert!(inside > 0, "no run began and ended while publishing went on");
}

/// xorshift64: the same choices for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % bound
    }
}

/// Subscribe and unsubscribe in one write, again and again, while others publish: no message arrives outside, and those inside
/// are in order.
fn pipelined_membership_cuts_exactly(shards: usize) {
    let server = Server::start(shards);
    let stage = Stage { address: server.address, admin_path: &server.admin_path, churning: AtomicUsize::new(1) };
    let mut witness_client = Client::connect(&server);
    for channel in CHANNELS {
        witness_client.subscribe(channel);
    }
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(&server)).collect();
    let (order, runs) = thread::scope(|scope| {
        let stage = &stage;
        let witness = scope.spawn(move || witness(witness_client));
        let publishers: Vec<_> = (0..PUBLISHERS).map(|n| scope.spawn(move || publish(stage, n))).collect();
        let mut runs = Vec::new();
        for _ in 0..30 {
            for client in &mut clients {
                for _ in 0..5 {
                    client.send(&subscribe(CHANNELS[0]));
                    client.send(&unsubscribe(CHANNELS[0]));
                }
            }
            for client in &mut clients {
                let mut left = 5;
                let mut live: Option<Run> = None;
                while left > 0 {
                    match receive(client) {
                        Received::Subscribed(_) => assert!(live.replace(Run::new()).is_none(), "subscribed twice"),
                        Received::Unsubscribed(_) => {
                            runs.push((0, live.take().expect("unsubscribed without being subscribed")));
                            left -= 1;
                        }
                        Received::Message(_, data) => live.as_mut().expect("heard while not subscribed").push(data),
                        Received::End(_) => panic!("the end came before the last round"),
                    }
                }
            }
        }
        stage.churning.store(0, Ordering::Relaxed);
        for publisher in publishers {
            publisher.join().expect("a publisher");
        }
        let mut admin = Admin::connect_to(stage.admin_path);
        for channel in CHANNELS {
            admin.publish(channel, "end", json!(0));
        }
        (witness.join().expect("a witness"), runs)
    });
    assert_eq!(runs.len(), 30 * 8 * 5);
    for (channel, run) in &runs {
        let Some(first) = run.first() else { continue };
        let start = order[*channel].iter().position(|data| data == first).expect("the witness heard it too");
        assert!(order[*channel][start..].starts_with(run), "heard {run:?}, which is not a slice of the order");
    }
    for client in &mut clients {
        client.expect_nothing_before_pong();
    }
}

/// The bytes that end the connection come in the same write as the requests. The owner of the channel may be another shard.
fn replies_come_before_the_end_of_the_connection(shards: usize) {
    let server = Server::start(shards);
    let mut admin = Admin::connect(&server);
    let ends: [(Option<u16>, Vec<u8>); 5] = [
        (Some(1000), frame(opcode::CLOSE, &1000_u16.to_be_bytes())),
        (Some(1003), frame(opcode::BINARY, b"binary")),
        (Some(1007), frame(opcode::TEXT, b"\xff")),
        (Some(1002), vec![0xf0, 0x80, 0, 0, 0, 0]),
        (None, Vec::new()),
    ];
    for round in 0..40 {
        let (code, end) = &ends[round % ends.len()];
        let channel = format!("channel-{round}");
        let mut client = RawClient::connect(&server);
        let ping = r#"{"event":"socket:ping","data":{"id":7}}"#;
        let requests = [text_frame(&subscribe(&channel)), text_frame(ping), text_frame(r#"{"event":"nonsense"}"#)];
        client.write(&[&requests.concat()[..], end].concat());
        if code.is_none() {
            client.finish_writing();
        }
        client.expect(&subscribed(&channel));
        client.expect(r#"{"event":"socket:pong","data":{"reply":7}}"#);
        assert_error(&client.text(), "socket:error", None, "unknown_event");
        match code {
            Some(code) => client.expect_close(*code),
            None => client.expect_end(),
        }
        crate::harness::eventually("its subscription is removed", || admin.subscribers(&channel) == 0);
    }
}
