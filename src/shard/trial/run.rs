//! A run: clients, publishers and readers of streams, around shards.

use super::House;
use super::certificates;
use super::peer::{CHANNELS, Peer, UPGRADE};
use super::session::{Publisher, Reader};
use crate::config::Live;
use crate::hub::simulation::choices::Choices;
use crate::shard::Shard;
use crate::shard::orders::Order;
use crossbeam_channel::bounded;
use rustls::ClientConfig;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

pub struct Run<I> {
    choices: Choices<I>,
    house: House,
    peers: Vec<Peer>,
    /// One to each channel.
    publishers: Vec<Publisher>,
    readers: Vec<Reader>,
    /// The TLS configurations of the clients, if they speak TLS.
    tls: Vec<Arc<ClientConfig>>,
    /// What a proxy sends before that.
    preface: &'static str,
    head: String,
}

impl<I: Iterator<Item = u8>> Run<I> {
    /// The first bytes choose the configuration of the server.
    pub fn new(mut choices: Choices<I>) -> Run<I> {
        let shards = choices.of(&[1, 1, 2, 3]);
        let (proxy, is_secure) = (choices.of(&[None, None, Some("header"), Some("request")]), choices.one_in(3));
        let mut house = House::new(shards, |live| {
            live.certificate = is_secure.then(certificates::certificate);
            live.limits.message_bytes_max = MESSAGE_BYTES_MAX;
            live.limits.subscribes_per_second_max = 0;
            limits(&mut choices, live);
            live.access.echo_path = Some("/echo".into());
            live.access.has_proxy_header = proxy == Some("header");
            live.access.trusted = proxy.map(|_| "127.0.0.0/8".parse().expect("a network")).into_iter().collect();
        });
        let (preface, head) = match proxy {
            None => ("", UPGRADE.to_owned()),
            Some("header") => ("PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n", UPGRADE.to_owned()),
            Some(_) => ("", UPGRADE.replace("Host", "X-Forwarded-For: 192.0.2.7\r\nHost")),
        };
        let publishers =
            (0..CHANNELS).map(|channel| Publisher::new(&mut house, choices.below(shards), channel)).collect();
        let tls = if is_secure { certificates::clients() } else { Vec::new() };
        Run { choices, house, peers: Vec::new(), publishers, readers: Vec::new(), tls, preface, head }
    }

    /// Takes one step. `false`: all bytes have been used.
    pub fn step(&mut self) -> bool {
        let Some(byte) = self.choices.step() else { return false };
        match byte % 64 {
            0..6 => self.come(),
            6..28 => self.request(),
            28..40 => {
                let most = self.choices.of(&[1, 7, 100, 5000, 1 << 20]);
                self.some_peer().into_iter().for_each(|peer| _ = peer.send(most));
            }
            40..46 => {
                let most = self.choices.of(&[1, 100, 5000, 1 << 20]);
                self.some_peer().filter(|peer| !peer.is_stalled).into_iter().for_each(|peer| _ = peer.read(most));
            }
            46..48 => self.some_peer().into_iter().for_each(|peer| peer.is_stalled = true),
            48..54 => self.publish(),
            54 => self.shed(),
            55 if self.choices.one_in(2) => self.house.apply(|live| limits(&mut self.choices, live)),
            55 => self.watch(),
            56 => self.wait(),
            57..62 => {
                let shard = self.some_shard();
                for _ in 0..=self.choices.below(4) {
                    self.house.turn(shard);
                }
            }
            _ => self.rest(),
        }
        true
    }

    /// All clients disconnect, from a server that goes on or stops. Nothing is left of them.
    pub fn finish(&mut self) {
        self.rest();
        let drains = self.choices.one_in(3);
        let stops = drains || self.choices.one_in(2);
        if drains {
            self.drain();
        }
        if stops {
            self.house.stop();
        }
        for peer in 0..self.peers.len() {
            let resets = self.choices.one_in(2);
            self.peers[peer].go(resets);
            self.rest();
        }
        self.rest_until(|run| {
            let is_over = run.house.shards.iter().all(|shard| shard.clients.is_empty() && shard.is_stopped() == stops);
            (!is_over).then(|| "a connection is still open".into())
        });
        assert!(!stops || self.readers.iter().all(Reader::has_ended), "a stream goes on");
        let House { shards, shared, .. } = &mut self.house;
        assert_eq!((shared.accepted.load(SeqCst), shared.admitted.load(SeqCst)), (0, 0));
        for shard in shards {
            let gauges = shard.hub.gauges();
            assert_eq!((gauges.subscriptions, gauges.channels, gauges.addresses), (0, 0, 0));
        }
    }

    // ---- the steps of a run

    fn come(&mut self) {
        if self.peers.iter().filter(|peer| !peer.is_gone()).count() >= PEERS_MAX {
            return;
        }
        let shard = self.some_shard();
        let address = self.house.addresses[shard];
        let host = 1 + self.choices.below(3) as u8;
        let is_echo = self.choices.one_in(4);
        let head = if is_echo { self.head.replace("GET /", "GET /echo") } else { self.head.clone() };
        let version = self.choices.below(2);
        self.peers.push(Peer::connect(address, host, self.tls.get(version).cloned(), self.preface, &head, is_echo));
    }

    fn request(&mut self) {
        let [mask, split] = [1 << 24, 512].map(|bound| self.choices.below(bound));
        let (channel, what) = (self.choices.below(CHANNELS), self.choices.below(40));
        let many = mask % 300;
        let noise: Vec<u8> = (0..20).map(|_| self.choices.below(256) as u8).collect();
        let Some(peer) = self.some_peer().filter(|peer| peer.is_lawful) else { return };
        let mask = mask as u32;
        match what {
            0..10 => peer.ping(mask, split),
            10..20 => peer.subscribe(channel, mask, split),
            20..26 => peer.unsubscribe(channel, mask, split),
            26..29 => (0..many).for_each(|_| peer.ping(mask, 0)),
            29..31 => (0..many).for_each(|_| peer.subscribe(channel, mask, 0)),
            31..35 => peer.queue_long(mask as usize % MESSAGE_BYTES_MAX, mask),
            35 => peer.ping_frame(mask),
            36 => peer.close(mask),
            37 => peer.misbehave(&noise, mask.is_multiple_of(2)),
            38 => peer.shut(),
            _ => peer.go(mask.is_multiple_of(2)),
        }
    }

    fn publish(&mut self) {
        let publisher = self.choices.below(self.publishers.len());
        let count = self.choices.of(&[1, 1, 10, 100]);
        let len = self.choices.of(&[1, 10, 1000, 20_000]);
        let publisher = &mut self.publishers[publisher];
        (0..count).for_each(|_| publisher.publish(len));
        publisher.move_bytes();
    }

    fn shed(&mut self) {
        let (shard, count) = (self.some_shard(), self.choices.below(3));
        let over_ms = self.choices.of(&[0, 1000]);
        let (begun, _) = bounded(1);
        self.house.order(shard, Order::Shed { count, over_ms, begun });
    }

    /// A session begins to read a stream, or one disconnects.
    fn watch(&mut self) {
        let (shard, is_tail) = (self.some_shard(), self.choices.one_in(3));
        if self.readers.len() == READERS_MAX {
            self.readers.swap_remove(0);
        } else {
            self.readers.push(Reader::new(&mut self.house, shard, is_tail));
        }
    }

    /// Time passes. All clients have sent something before, so that none is silent for too long.
    fn wait(&mut self) {
        self.rest();
        self.peers.iter_mut().filter(|peer| peer.is_served()).for_each(|peer| peer.ping(7, 0));
        self.rest();
        let ms = self.choices.of(&[100, 3000, 12_000]);
        self.house.pass(Duration::from_millis(ms));
        self.rest();
    }

    /// All connections are asked to leave, and do.
    fn drain(&mut self) {
        let (begun, counts) = bounded(self.house.shards.len());
        for shard in 0..self.house.shards.len() {
            let over_ms = self.choices.of(&[0, 300, 2000]);
            self.house.order(shard, Order::Drain { over_ms, begun: begun.clone() });
        }
        let mut drained = 0;
        while drained < self.house.shards.len() {
            self.rest();
            drained += self.house.drained();
            self.house.pass(Duration::from_millis(100));
        }
        assert_eq!((counts.len(), self.house.socket_ids().len()), (self.house.shards.len(), 0));
        self.rest();
        assert_eq!(self.house.drained(), 0, "a shard reported the drain twice");
    }

    fn some_peer(&mut self) -> Option<&mut Peer> {
        let there: Vec<usize> = (0..self.peers.len()).filter(|&peer| !self.peers[peer].is_gone()).collect();
        (!there.is_empty()).then(|| self.choices.of(&there)).map(|peer| &mut self.peers[peer])
    }

    fn some_shard(&mut self) -> usize {
        self.choices.below(self.house.shards.len())
    }

    // ---- the checks of a run

    /// All clients send and read, and shards turn, until nothing moves any more.
    fn rest(&mut self) {
        self.peers.iter_mut().for_each(|peer| peer.is_stalled = false);
        self.rest_until(Run::lacks);
        self.check_numbers();
    }

    fn rest_until(&mut self, lacks: impl Fn(&mut Self) -> Option<String>) {
        let mut moved_at = Instant::now();
        for round in 0.. {
            assert!(round < 1_000_000, "the run never becomes idle");
            if self.moves() {
                moved_at = Instant::now();
                continue;
            }
            match lacks(self) {
                // The effect of a timer shows in the next round.
                None if !self.moves() => return,
                None => continue,
                Some(missing) => assert!(moved_at.elapsed() < STALL_MAX, "{missing}"),
            }
            // Bytes are still in the kernel, which may have timers of its own.
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn moves(&mut self) -> bool {
        let mut moved = false;
        self.publishers.iter_mut().for_each(|publisher| moved |= publisher.move_bytes());
        self.readers.iter_mut().for_each(|reader| moved |= reader.move_bytes());
        self.peers.iter_mut().for_each(|peer| moved |= peer.send(usize::MAX) | peer.read(1 << 16));
        (0..self.house.shards.len()).for_each(|shard| moved |= self.house.turn(shard));
        moved
    }

    /// What a client or session should have been sent by now, and was not.
    fn lacks(&mut self) -> Option<String> {
        let is_written = |shard: &mut Shard| shard.stats().gauges.outbox_bytes == 0;
        if !self.house.shards.iter_mut().all(is_written) {
            return Some("bytes wait to be written".into());
        }
        if !self.publishers.iter().all(Publisher::is_done) {
            return Some("a publish is not acknowledged".into());
        }
        let published: Vec<u32> = self.publishers.iter().map(|publisher| publisher.published).collect();
        let live = self.house.socket_ids();
        let mut peers = self.peers.iter().filter_map(|peer| peer.lacks(&published));
        let mut readers = self.readers.iter().filter_map(|reader| reader.lacks(&live));
        peers.next().or_else(|| readers.next())
    }

    fn check_numbers(&mut self) {
        let (mut connections, mut accepts, mut closes, mut closing, mut drops) = (0, 0, 0, 0, 0);
        for shard in &mut self.house.shards {
            assert_eq!(shard.hub.pages().held_count(), 0, "a page is held");
            let stats = shard.stats();
            connections += shard.clients.count();
            accepts += stats.counters.accepts;
            drops += stats.counters.address_drops;
            closes += stats.closes.iter().map(|(_, count)| count).sum::<u64>();
            closing += stats.gauges.connections_closing;
        }
        assert_eq!(self.house.shared.accepted.load(SeqCst), connections);
        // A connection that is being closed is counted already, but still in the table.
        assert_eq!(accepts + closing, closes + connections as u64);
        let dropped = self.peers.iter().filter(|peer| peer.was_dropped).count();
        assert!(dropped as u64 <= drops, "a connection was dropped whose address was within its limits");
    }
}

/// Some of the limits that can change in a running server.
fn limits(choices: &mut Choices<impl Iterator<Item = u8>>, live: &mut Live) {
    live.limits.outbox_bytes_max = choices.of(&[2000, 20_000, 1 << 20]);
    live.limits.shard_outboxes_bytes_max = choices.of(&[10_000, 300_000, usize::MAX, usize::MAX]);
    live.limits.connections_per_address_max = choices.of(&[None, None, Some(2), Some(0)]);
    live.limits.upgrades_per_address_max = choices.of(&[0, 0, 1]);
    live.limits.server_ping = choices.one_in(2);
}

const MESSAGE_BYTES_MAX: usize = 100_000;
const PEERS_MAX: usize = 8;
const READERS_MAX: usize = 3;
const STALL_MAX: Duration = Duration::from_secs(60);
