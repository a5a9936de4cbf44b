//! Shards that a test turns by hand on its own thread, with real sockets, and seeded runs of them. In a run, clients send a few
//! bytes at a time, too much, nonsense or nothing, and disconnect.
//!
//! The hub has a simulation of its own; this tests the code around it. After each stretch of a run all clients read, and the
//! shards turn until none has anything to do. Then every client that kept to the protocol must have been served, nothing may
//! wait anywhere, and every number must add up. This finds a shard that always has work, or that sleeps although it has some.
//!
//! ```text
//! CORECAST_SEED=17 cargo test --lib trial      replays one run
//! CORECAST_RUNS=100000 cargo test --lib trial  many runs
//! ```

mod certificates;
mod conflation;
mod outboxes;
mod peer;
mod recovery;
mod run;
mod session;

use super::clients::{READ_AGAIN_BYTES_PER_TURN, SHORT_READ_BYTES};
use super::doorbell::Doorbell;
use super::listener::Origin;
use super::orders::{Call, Order};
use super::output::UNREAD_REPLIES_MAX;
use super::{DOORBELL, EVENTS_PER_TURN, Parts, READ_BYTES, Shard, Shared, mesh};
use crate::api::Rows;
use crate::api::operation::Connections;
use crate::config::{Flags, Live, Settings};
use crate::hub::departures::SUBSCRIPTIONS_PER_TURN;
use crate::hub::simulation::choices::{self, Choices};
use crate::protocol::close::CloseReason;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use mio::{Events, Poll, Waker};
use peer::{Peer, UPGRADE};
use run::Run;
use socket2::SockRef;
use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, UnixListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Shards, and the ends of their channels that other threads would hold.
pub struct House {
    pub shards: Vec<Shard>,
    pub addresses: Vec<SocketAddr>,
    pub shared: Arc<Shared>,
    orders: Vec<Sender<Order>>,
    live: Live,
    events: Events,
    calls: Receiver<Call>,
    /// How long each shard's next poll appears to sleep.
    sleeps: Vec<Duration>,
}

impl House {
    /// Makes this many shards, each with a listener and a port of its own. `change` changes the default settings.
    pub fn new(shards: usize, change: impl FnOnce(&mut Live)) -> House {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("corecast-test-{}-{}", std::process::id(), COUNT.fetch_add(1, SeqCst));
        let admin = net::SocketAddr::from_abstract_name(name).expect("a name");
        let admin = UnixListener::bind_addr(&admin).expect("a socket");
        admin.set_nonblocking(true).expect("a socket option");
        let config = Settings::gather(&Flags::default(), |_| None).and_then(|settings| settings.validate());
        let mut live = config.expect("the defaults are valid").live;
        change(&mut live);
        let polls: Vec<Poll> = (0..shards).map(|_| Poll::new().expect("a poll")).collect();
        let doorbell = |poll: &Poll| Doorbell::new(Waker::new(poll.registry(), DOORBELL).expect("a waker"), shards);
        let (calls, called) = unbounded();
        let shared = Arc::new(Shared {
            doorbells: polls.iter().map(doorbell).collect(),
            is_stopping: AtomicBool::new(false),
            accepted: Arc::default(),
            admitted: Arc::default(),
            notices: Arc::default(),
            seed: [1, 2, 3, 4],
            start: Instant::now(),
            calls,
            log_lines_dropped: Box::new(|| 0),
        });
        let (inboxes, receivers): (Vec<_>, Vec<_>) = (0..shards).map(|_| mesh::inbox()).unzip();
        let (mut addresses, mut orders) = (Vec::new(), Vec::new());
        let shards = polls.into_iter().zip(receivers).enumerate().map(|(me, (poll, inbox))| {
            let listener = mio::net::TcpListener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
            // As the server's own, and small buffers, so that writes are blocked soon. Both are inherited.
            SockRef::from(&listener).set_tcp_nodelay(true).expect("a socket option");
            SockRef::from(&listener).set_send_buffer_size(4096).expect("a socket option");
            addresses.push(listener.local_addr().expect("a bound socket"));
            let (order, obeyed) = unbounded();
            orders.push(order);
            let parts = Parts {
                me: me as u16,
                poll,
                listener,
                origin: Origin::Own,
                admin_listener: mio::net::UnixListener::from_std(admin.try_clone().expect("a descriptor")),
                inbox,
                inboxes: inboxes.clone().into(),
                orders: obeyed,
                shared: shared.clone(),
            };
            Shard::new(parts, Arc::new(live.clone())).expect("a shard")
        });
        let shards: Vec<Shard> = shards.collect();
        let events = Events::with_capacity(EVENTS_PER_TURN);
        let sleeps = vec![Duration::ZERO; shards.len()];
        House { shards, addresses, shared, orders, live, events, calls: called, sleeps }
    }

    /// One turn, without sleep. Returns whether it found or left work.
    pub fn turn(&mut self, shard: usize) -> bool {
        let House { shards, events, sleeps, .. } = self;
        let had_work = shards[shard].has_work();
        shards[shard].poll(events, Some(Duration::ZERO)).expect("a poll");
        shards[shard].work(events, Some(std::mem::take(&mut sleeps[shard]))).expect("a turn");
        had_work || !events.is_empty() || shards[shard].has_work()
    }

    /// One turn if the shard would not sleep. Returns whether it was awake.
    pub fn turn_if_awake(&mut self, shard: usize) -> bool {
        let House { shards, events, .. } = self;
        let has_work = shards[shard].has_work();
        shards[shard].poll(events, Some(Duration::ZERO)).expect("a poll");
        let is_awake = has_work || !events.is_empty();
        if is_awake {
            shards[shard].work(events, Some(Duration::ZERO)).expect("a turn");
        }
        is_awake
    }

    /// Turns until no shard has anything to do.
    pub fn rest(&mut self) {
        for _ in 0..100_000 {
            let is_busy: Vec<bool> = (0..self.shards.len()).map(|shard| self.turn(shard)).collect();
            if !is_busy.contains(&true) {
                return;
            }
        }
        panic!("the shards never become idle");
    }

    /// Clients of a shard whose upgrade is done.
    pub fn connect(&mut self, shard: usize, count: usize) -> Vec<TcpStream> {
        let connect = |_| {
            let mut client = TcpStream::connect(self.addresses[shard]).expect("the shard listens");
            client.write_all(UPGRADE.as_bytes()).expect("room for a request");
            self.rest();
            client
        };
        (0..count).map(connect).collect()
    }

    /// Gives a shard an order, as the supervisor does.
    pub fn order(&self, shard: usize, order: Order) {
        self.orders[shard].send(order).expect("the shard lives");
        self.shared.doorbells[shard].ring().expect("rung");
    }

    /// Applies other settings to all shards, one after the other.
    pub fn apply(&mut self, change: impl FnOnce(&mut Live)) {
        change(&mut self.live);
        let (done, _) = bounded(self.shards.len());
        let live = Arc::new(self.live.clone());
        (0..self.shards.len())
            .for_each(|shard| self.order(shard, Order::Apply { live: live.clone(), done: done.clone() }));
    }

    /// Shards that have reported since the last call that they are drained.
    pub fn drained(&self) -> usize {
        self.calls.try_iter().filter(|call| matches!(call, Call::Drained)).count()
    }

    /// The ids of all open connections.
    fn socket_ids(&self) -> BTreeSet<String> {
        let ids = |shard: &Shard| {
            let (rows, next) = shard.clients.page(&Connections::default().into(), usize::MAX, 0, &shard.hub);
            let (Rows::Connections(page), None) = (rows, next) else { panic!("a page of all connections") };
            page.into_iter().map(|connection| connection.socket_id.to_string())
        };
        self.shards.iter().flat_map(ids).collect()
    }

    /// Moves the clock on; the shards sleep in their polls meanwhile.
    pub fn pass(&mut self, time: Duration) {
        self.sleeps.iter_mut().for_each(|sleep| *sleep += time);
        self.stall(time);
    }

    /// Moves the clock on, as if it jumped or the shards stood still.
    pub fn stall(&mut self, time: Duration) {
        let Shared { doorbells, is_stopping, accepted, admitted, notices, seed, start, calls, .. } = &*self.shared;
        self.shared = Arc::new(Shared {
            doorbells: doorbells.clone(),
            is_stopping: AtomicBool::new(is_stopping.load(SeqCst)),
            accepted: accepted.clone(),
            admitted: admitted.clone(),
            notices: notices.clone(),
            seed: *seed,
            start: *start - time,
            calls: calls.clone(),
            log_lines_dropped: Box::new(|| 0),
        });
        self.shards.iter_mut().for_each(|shard| shard.shared = self.shared.clone());
    }

    /// Tells the shards to stop, as the supervisor does.
    pub fn stop(&mut self) {
        self.shared.is_stopping.store(true, SeqCst);
        self.shared.doorbells.iter().for_each(|doorbell| assert!(doorbell.ring().is_ok()));
    }
}

#[test]
fn clients_that_keep_to_the_protocol_are_served_and_nothing_is_left() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("CORECAST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CORECAST_RUNS").unwrap_or(RUNS),
    };
    for seed in seeds {
        let _replay = Replay(seed);
        let mut run = Run::new(Choices::new(choices::bytes(seed, STEPS)));
        while run.step() {}
        run.finish();
    }
}

/// rustls must not be made to send an alert after its close_notify.
#[test]
fn bytes_behind_the_servers_close_notify_are_not_read() {
    let mut house = House::new(1, |live| live.certificate = Some(certificates::certificate()));
    for tls in certificates::clients() {
        let mut peer = Peer::connect(house.addresses[0], 1, Some(tls), "", UPGRADE, false);
        while !peer.is_served() {
            peer.send(usize::MAX);
            house.turn(0);
            peer.read(4096);
        }
        let (begun, _) = bounded(1);
        house.order(0, Order::Shed { count: 1, over_ms: 0, begun });
        while peer.is_served() {
            house.turn(0);
            peer.read(4096);
        }
        peer.misbehave(b"no record", true);
        house.rest();
    }
}

/// There are more of them than a turn reads, and each sends more than is read at once. They send pongs, which need no reply.
#[test]
fn connections_that_send_much_share_the_budget_of_a_turn() {
    let mut house = House::new(1, |_| ());
    let mut clients = house.connect(0, 32);
    house.pass(Duration::from_secs(2));
    let much = [0x8a, 0x80, 0, 0, 0, 0].repeat(4 * READ_BYTES / 6);
    let mut sent = 0;
    for client in &mut clients {
        client.set_nonblocking(true).expect("a socket option");
        sent += client.write(&much).expect("room") as u64;
    }
    let bytes_in = |house: &House| house.shards[0].hub.counters.bytes_in;
    let (begun_at, mut turns) = (bytes_in(&house), 0);
    while bytes_in(&house) - begun_at < sent {
        let before = bytes_in(&house);
        house.turn(0);
        let read = bytes_in(&house) - before;
        // Both budgets, each with a read that exceeds it, and short reads.
        let most = 2 * (READ_AGAIN_BYTES_PER_TURN + READ_BYTES as u64) + (clients.len() * SHORT_READ_BYTES) as u64;
        assert!(read < most, "{read} bytes");
        turns += 1;
        assert!(turns < 1000, "bytes are still unread after {turns} turns");
    }
}

/// The client's request waits for the owner of its address, and invalid bytes follow it.
#[test]
fn a_client_that_breaks_tls_while_its_address_awaits_a_verdict_is_removed() {
    let mut house = House::new(2, |live| {
        live.certificate = Some(certificates::certificate());
        live.limits.connections_per_address_max = Some(1);
    });
    // The other shard owns half of the addresses, and does not turn meanwhile.
    for (host, tls) in (1..=16).zip(certificates::clients().into_iter().cycle()) {
        let mut peer = Peer::connect(house.addresses[0], host, Some(tls), "", UPGRADE, false);
        while !peer.send(usize::MAX) {
            house.turn(0);
        }
        peer.misbehave(b"no record", true);
        (0..4).for_each(|_| _ = house.turn(0));
        peer.go(false);
        (0..4).for_each(|_| _ = house.turn(0));
        assert!(house.shards[0].clients.is_empty(), "127.0.0.{host}");
        house.rest();
        assert!(house.shards.iter().all(|shard| shard.hub.gauges().addresses == 0));
    }
}

/// A masked text frame, with a mask that changes nothing.
fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// 200 connections with 100 subscriptions each are reset together.
#[test]
fn many_resets_at_once_do_not_make_a_turn_long() {
    let mut house = House::new(1, |_| ());
    let mut clients = house.connect(0, 200);
    house.pass(Duration::from_secs(2));
    let subscribe =
        |channel: usize| text_frame(&format!(r#"{{"event":"socket:subscribe","data":{{"channel":"c{channel}"}}}}"#));
    let requests: Vec<u8> = (0..100).flat_map(subscribe).collect();
    for client in &mut clients {
        client.write_all(&requests).expect("room");
        house.rest();
    }
    let sizes = |house: &House| house.shards[0].hub.gauges().subscriptions as usize;
    assert_eq!(sizes(&house), 20_000);
    for client in clients {
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("a socket option");
    }
    let mut turns = 0;
    while sizes(&house) > 0 {
        let before = sizes(&house);
        let deliveries = house.shards[0].hub.counters.bytes_out;
        house.turn(0);
        let removed = before - sizes(&house);
        assert!(removed <= SUBSCRIPTIONS_PER_TURN, "{removed} subscriptions in a turn");
        assert_eq!(house.shards[0].hub.counters.bytes_out, deliveries, "a reset connection was sent a message");
        turns += usize::from(removed > 0);
        // A connection that is accepted meanwhile is served at once, in a slot of its own.
        if turns == 2 {
            let mut late = house.connect(0, 1).remove(0);
            late.write_all(&requests).expect("room");
            house.rest();
            assert_eq!(sizes(&house), 100);
            drop(late);
        }
    }
    house.rest();
    assert!(house.shards[0].clients.is_empty() && house.shards[0].hub.gauges().addresses == 0);
}

/// A client that sends requests and reads no reply.
#[test]
fn requests_are_not_read_while_their_replies_are_not() {
    const REQUESTS: usize = 20_000;
    let bytes_out = |house: &House| house.shards[0].hub.counters.bytes_out;
    for tls in [None, Some(certificates::clients().remove(1))] {
        let mut house = House::new(1, |live| live.certificate = tls.is_some().then(certificates::certificate));
        let mut clients: Vec<Peer> =
            (0..2).map(|_| Peer::connect(house.addresses[0], 1, tls.clone(), "", UPGRADE, false)).collect();
        clients.iter_mut().for_each(|client| {
            while !client.is_served() {
                client.send(usize::MAX);
                house.turn(0);
                client.read(4096);
            }
        });
        house.pass(Duration::from_secs(2));
        for client in &mut clients {
            (0..REQUESTS).for_each(|_| client.ping(7, 0));
            let mut idle_turns = 0;
            while idle_turns < 100 {
                let moved = client.send(usize::MAX) | house.turn(0);
                idle_turns = if moved { 0 } else { idle_turns + 1 };
            }
        }
        let waiting = house.shards[0].stats().gauges.outbox_bytes as usize;
        assert!(waiting > UNREAD_REPLIES_MAX && waiting < 2 * (2 * UNREAD_REPLIES_MAX + 4096), "{waiting} bytes");
        // One of them reads in time, slowly, and gets every reply. The other one is closed.
        for step in 0.. {
            house.pass(Duration::from_secs(8));
            (0..3).for_each(|_| _ = house.turn(0));
            let closed =
                house.shards[0].clients.closes()[CloseReason::Silent { timeout_s: 0, is_reading: false }.kind()];
            if closed == 1 {
                assert!(step >= 6, "closed after {} s", 8 * (step + 1));
                break;
            }
            // The kernel may still have taken something for it in the first steps.
            assert!(closed == 0 && step < 20, "{closed} are closed after {} s", 8 * (step + 1));
            // The kernel may take a while to report the room.
            let (written, begun) = (bytes_out(&house), Instant::now());
            while house.shards[0].clients.output.is_blocked(0) && bytes_out(&house) == written {
                assert!(begun.elapsed() < Duration::from_secs(60), "the reader is sent nothing");
                clients[0].read(16_384);
                house.turn(0);
            }
            clients[0].ping(7, 0);
            clients[0].send(usize::MAX);
        }
        while clients[0].lacks(&[0; 3]).is_some() {
            clients[0].send(usize::MAX);
            house.turn(0);
            clients[0].read(1 << 16);
        }
    }
}

/// Prints how to run a failed seed again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to replay: CORECAST_SEED={} cargo test --lib trial", self.0);
        }
    }
}

const RUNS: u64 = 60;
/// Bytes of a run: the most steps that it takes.
const STEPS: usize = 2000;
