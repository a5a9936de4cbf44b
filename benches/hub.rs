//! The cost of the hub: delivery, membership, mail. The port only counts, so the write system call is not included.
//!
//! `cargo bench --bench hub`

use corecast::api::By;
use corecast::config::Limits;
use corecast::hub::admission::addresses::{Address, Verdict};
use corecast::hub::audience::pages::{Chunk, Pages};
use corecast::hub::mail::{Answer, Arrival, Mail, Question, Settled};
use corecast::hub::message::Message;
use corecast::hub::{Hub, Identity, Port, Submission, Urgency};
use corecast::ids::{Asker, ShardId, Slot};
use corecast::protocol::channel::Channel;
use corecast::protocol::close::CloseReason;
use corecast::protocol::dialect::Dialect;
use corecast::protocol::pusher::data::Text;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::collections::VecDeque;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;

/// A turn whose messages are end to end in one page, with one chunk per subscriber. Elements are deliveries.
fn fan_out(c: &mut Criterion) {
    let mut group = quick(c, "fan_out");
    for subscribers in [1, 100, 10_000] {
        for batch in [1u64, 16, 256] {
            let mut hub = hub(0, 1);
            let mut port = Counting::default();
            subscribe_all(&mut hub, &mut port, subscribers);
            group.throughput(Throughput::Elements(u64::from(subscribers) * batch));
            let id = BenchmarkId::new(format!("{subscribers}_subscribers"), format!("{batch}_a_turn"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| turn(&mut hub, &mut port, batch));
            });
        }
    }
}

/// As [`fan_out`], but the subscribers hold their chunks until the next turn, as after a partial flush.
fn fan_out_held(c: &mut Criterion) {
    let mut group = quick(c, "fan_out_held");
    let (subscribers, batch) = (100, 16);
    let mut hub = hub(0, 1);
    let mut port = Counting::default();
    subscribe_all(&mut hub, &mut port, subscribers);
    port.kept = Some(Vec::new());
    group.throughput(Throughput::Elements(u64::from(subscribers) * batch));
    group.bench_function("100_subscribers/16_a_turn", |bencher| {
        bencher.iter(|| {
            turn(&mut hub, &mut port, batch);
            for chunk in port.kept.iter_mut().flat_map(|kept| kept.drain(..)) {
                hub.pages_mut().release(chunk.page);
            }
        });
    });
}

/// One message to each of 1 000 channels with one subscriber each, then the turn's end. Elements are deliveries.
fn many_channels(c: &mut Criterion) {
    let mut group = quick(c, "many_channels");
    let mut hub = hub(0, 1);
    let mut port = Counting::default();
    let names: Vec<String> = (0..1000).map(|n| format!("user:{n}")).collect();
    for (slot, name) in (0..).zip(&names) {
        hub.connect(slot, Dialect::Native, None, &mut port);
        hub.handle(slot, &request("subscribe", name), &mut port);
    }
    hub.end_turn(&mut port);
    group.throughput(Throughput::Elements(1000));
    group.bench_function("1000_channels/1_message_each", |bencher| {
        bencher.iter(|| {
            for name in &names {
                let channel = Channel::parse(name).expect("a legal name");
                black_box(hub.publish(&[channel], &SUBMISSION, ASKER, &mut port));
            }
            hub.end_turn(&mut port);
        });
    });
}

/// Publishes to a channel without and with a history, whose name decides which. Elements are publishes.
fn history(c: &mut Criterion) {
    const BATCH: u64 = 256;
    let mut group = quick(c, "history");
    for subscribers in [0, 1] {
        for (name, channel) in [("without", "bench-room"), ("with", "cache-room")] {
            let mut hub = hub(0, 1);
            let mut port = Counting::default();
            let subscribe = request("subscribe", channel);
            for slot in 0..subscribers {
                hub.connect(slot, Dialect::Native, None, &mut port);
                hub.handle(slot, &subscribe, &mut port);
            }
            hub.end_turn(&mut port);
            let channel = Channel::parse(channel).expect("a legal name");
            group.throughput(Throughput::Elements(BATCH));
            group.bench_function(BenchmarkId::new(name, format!("{subscribers}_subscribers")), |bencher| {
                bencher.iter(|| {
                    for _ in 0..BATCH {
                        black_box(hub.publish(&[channel], &SUBMISSION, ASKER, &mut port));
                    }
                    hub.end_turn(&mut port);
                });
            });
        }
    }
}

/// A client subscribes and unsubscribes on its own shard: two requests, two replies, two letters to the same shard.
fn membership(c: &mut Criterion) {
    let mut group = quick(c, "membership");
    for subscribers in [0, 10_000] {
        let mut hub = hub(0, 1);
        let mut port = Counting::default();
        subscribe_all(&mut hub, &mut port, subscribers);
        hub.connect(subscribers, Dialect::Native, None, &mut port);
        let (enter, leave) = (request("subscribe", CHANNEL), request("unsubscribe", CHANNEL));
        group.throughput(Throughput::Elements(2));
        group.bench_function(BenchmarkId::new("subscribe_unsubscribe_beside", subscribers), |bencher| {
            bencher.iter(|| {
                hub.handle(subscribers, &enter, &mut port);
                hub.handle(subscribers, &leave, &mut port);
                hub.end_turn(&mut port);
            });
        });
    }
}

/// One turn's share of the search for the busiest among a million channels and a million addresses. Elements are table
/// entries.
fn survey(c: &mut Criterion) {
    let mut group = quick(c, "survey");
    let (mut hub, mut port) = (hub(0, 1), Counting::default());
    for slot in 0..10_000 {
        hub.connect(slot, Dialect::Native, None, &mut port);
        (0..100).for_each(|n| {
            hub.handle(slot, &request("subscribe", &format!("user:{slot}:{n}")), &mut port);
        });
        hub.end_turn(&mut port);
    }
    for n in 0..1_000_000u32 {
        hub.arrive(Address::of(Ipv4Addr::from_bits(n).into()), 0, 0, &mut port);
    }
    const ENTRIES: usize = 16_384;
    group.throughput(Throughput::Elements(ENTRIES as u64));
    group.bench_function(format!("{ENTRIES}_entries"), |bencher| {
        bencher.iter(|| {
            if !hub.is_surveying() {
                hub.ask(0, ASKER, Question::Busiest { by: By::Subscribers, limit: 20 }, &mut port);
            }
            hub.survey(ENTRIES, &mut port);
        });
    });
}

/// 10 000 members of a channel disconnect one after the other.
fn disconnect(c: &mut Criterion) {
    let mut group = quick(c, "disconnect");
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("10000_members_of_a_channel", |bencher| {
        let full = || {
            let (mut hub, mut port) = (hub(0, 1), Counting::default());
            subscribe_all(&mut hub, &mut port, 10_000);
            (hub, port)
        };
        let empty = |(mut hub, mut port): (Hub, Counting)| {
            (0..10_000).for_each(|slot| hub.disconnect(slot, &CloseReason::ClientGone, &mut port));
            (hub, port)
        };
        bencher.iter_batched(full, empty, BatchSize::PerIteration);
    });
}

/// Two shards: the publisher's, which is not the owner, and the owner. Publish, deliver, settle.
fn mail(c: &mut Criterion) {
    let mut group = quick(c, "mail");
    for (name, at_owner) in [("subscribers_at_the_owner", true), ("subscribers_elsewhere", false)] {
        for batch in [1u64, 16, 256] {
            let mut hubs = [hub(0, 2), hub(1, 2)];
            let mut ports = [0, 1].map(|shard| Counting { shard, ..Counting::default() });
            let owner = usize::from(hubs[0].owner(hubs[0].hash(channel())));
            let other = 1 - owner;
            let home = if at_owner { owner } else { other };
            subscribe_all(&mut hubs[home], &mut ports[home], 1);
            exchange(&mut hubs, &mut ports);
            group.throughput(Throughput::Elements(batch));
            group.bench_function(BenchmarkId::new(name, format!("{batch}_a_turn")), |bencher| {
                bencher.iter(|| {
                    turn(&mut hubs[other], &mut ports[other], batch);
                    exchange(&mut hubs, &mut ports);
                });
            });
            assert_eq!(ports[other].settled, hubs[owner].counters.publishes);
        }
    }
}

/// A port that counts chunks, and holds mail for [`exchange`].
#[derive(Default)]
struct Counting {
    shard: ShardId,
    chunks: u64,
    bytes: u64,
    settled: u64,
    mail: VecDeque<Mail>,
    kept: Option<Vec<Chunk>>,
}

impl Port for Counting {
    fn append(&mut self, pages: &mut Pages, _: Slot, chunk: Chunk, _: Urgency) {
        self.chunks += 1;
        self.bytes += chunk.len() as u64;
        if let Some(kept) = &mut self.kept {
            pages.hold(chunk.page);
            kept.push(chunk);
        }
    }
    fn mail(&mut self, _: ShardId, mail: Mail) {
        self.mail.push_back(mail);
    }
    fn mail_after(&mut self, _: &[ShardId], to: ShardId, mail: Mail) {
        self.mail(to, mail);
    }
    fn ask(&mut self, _: Asker, _: Question) {}
    fn answer_admin(&mut self, _: Asker, _: Answer) {}
    fn settle(&mut self, _: Asker, _: Settled) {
        self.settled += 1;
    }
    fn admit(&mut self, _: Arrival, _: Verdict) {}
    fn close(&mut self, _: Slot, _: CloseReason) {}
}

/// Passes mail between two hubs until there is none, then ends both turns.
fn exchange(hubs: &mut [Hub; 2], ports: &mut [Counting; 2]) {
    while ports.iter().any(|port| !port.mail.is_empty()) {
        for from in 0..2 {
            let to = 1 - from;
            while let Some(mail) = ports[from].mail.pop_front() {
                hubs[to].receive(mail, &mut ports[to]);
            }
        }
    }
    for (hub, port) in hubs.iter_mut().zip(ports) {
        hub.end_turn(port);
    }
}

fn turn(hub: &mut Hub, port: &mut Counting, batch: u64) {
    let asker = Asker { shard: port.shard, ..ASKER };
    for _ in 0..batch {
        black_box(hub.publish(&[channel()], &SUBMISSION, asker, port));
    }
    hub.end_turn(port);
}

fn subscribe_all(hub: &mut Hub, port: &mut Counting, subscribers: u32) {
    let subscribe = request("subscribe", CHANNEL);
    for slot in 0..subscribers {
        hub.connect(slot, Dialect::Native, None, port);
        hub.handle(slot, &subscribe, port);
    }
    hub.end_turn(port);
}

fn request(what: &str, channel: &str) -> String {
    format!(r#"{{"event":"socket:{what}","data":{{"channel":"{channel}"}}}}"#)
}

fn channel() -> Channel<'static> {
    Channel::parse(CHANNEL).expect("a legal name")
}

fn hub(shard: ShardId, shards: usize) -> Hub {
    let limits = Limits { server_ping: false, ..Limits::default() };
    let seed = [1, 2, 3, 4];
    Hub::new(Identity { shard, shards, seed }, &[], limits)
}

fn quick<'a>(c: &'a mut Criterion, name: &str) -> criterion::BenchmarkGroup<'a, criterion::measurement::WallTime> {
    let mut group = c.benchmark_group(name);
    group.sample_size(20);
    group.warm_up_time(Duration::from_millis(200));
    group.measurement_time(Duration::from_millis(800));
    group
}

const CHANNEL: &str = "room:1";
/// The payload of a message that has 128 bytes with its envelope.
const SUBMISSION: Submission<'_> = Submission {
    message: Message {
        text: Text::Json,
        event: "order.paid",
        data: Some(r#"{"id":4200001,"total":"129.90","currency":"EUR","note":"0123456789abcdef"}"#),
        key: None,
        user_id: None,
        offset: None,
    },
    exclude: None,
    dedupe: None,
};
const ASKER: Asker = Asker { shard: 0, session: 0, generation: 0, request: 0 };

criterion_group!(benches, fan_out, fan_out_held, many_channels, history, membership, disconnect, mail, survey);
criterion_main!(benches);
