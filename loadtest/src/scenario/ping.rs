//! Pings in a closed loop: every connection keeps `depth` of them in flight.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use anyhow::Context;

use super::{conclude, drain, is_heartbeat, note_ended, set_up};
use crate::clock::now_ns;
use crate::engine::{Ended, Handler, Net};
use crate::measure::{Latency, Tally};
use crate::plan::Ping;
use crate::template::Template;
use crate::worker::Worker;

/// Does a worker's share of the pings.
pub fn work(worker: &Worker, ping: &Ping) -> anyhow::Result<Tally> {
    let plan = &worker.plan;
    let share = worker.share(ping.connections).len();
    let depth = ping.depth.max(1);
    let dialect = &plan.target.dialect;
    anyhow::ensure!(plan.target.second.is_none(), "the connections that ping must speak one dialect");
    let ping = dialect.ping.clone().with_context(|| format!("{} answers no pings", plan.target.name))?;
    let mut block = Vec::new();
    let mut ends = vec![0];
    for number in 0..depth {
        dialect.push(&mut block, &ping, 0, ID_MIN + number as u64);
        ends.push(block.len());
    }
    let mut handler = Pinged {
        worker,
        ping,
        block,
        ends,
        connections: (0..share).map(|_| Connection::default()).collect(),
        is_running: false,
        is_over: false,
        arrived: 0,
        events: 0,
        count_from_ns: u64::MAX,
        latency: Latency::new(),
        tally: Tally::default(),
    };
    let (mut net, mut window) = set_up(worker, &mut handler, share, |_| 0, |net, _| net.open)?;
    worker.ready(&mut net, &mut handler)?;

    handler.count_from_ns = worker.shared.start_at.load(SeqCst) + plan.warmup_ns;
    handler.is_running = true;
    for id in 0..share {
        handler.send(&mut net, id, depth, now_ns());
    }
    while window.turn(worker, &net, handler.events, 0).is_some() {
        net.turn(&mut handler, Some(Duration::from_millis(10)))?;
    }
    handler.is_over = true;
    drain(&mut net, &mut handler, |_, handler| handler.unanswered() == 0)?;
    handler.tally.unanswered += handler.unanswered();
    let mut tally = conclude(handler.tally, &net, &window);
    tally.latencies.insert("ping".into(), handler.latency);
    Ok(tally)
}

#[derive(Default)]
struct Connection {
    /// Send time and number of unanswered pings.
    waiting: VecDeque<(u64, usize)>,
    /// With `--verify`: the next number to send.
    next: u64,
    /// With `--verify`: the number of the next answer.
    expected: u64,
}

struct Pinged<'a> {
    worker: &'a Worker,
    ping: Template,
    /// `depth` encoded pings. They are the same for all connections; with `--verify` each ping has another number.
    block: Vec<u8>,
    /// The end of each of them.
    ends: Vec<usize>,
    connections: Vec<Connection>,
    is_running: bool,
    /// Nothing more is sent.
    is_over: bool,
    /// Answers in the current read.
    arrived: usize,
    events: u64,
    count_from_ns: u64,
    latency: Latency,
    tally: Tally,
}

impl Pinged<'_> {
    fn unanswered(&self) -> u64 {
        self.connections.iter().flat_map(|connection| &connection.waiting).map(|&(_, count)| count as u64).sum()
    }

    fn send(&mut self, net: &mut Net, id: usize, count: usize, now: u64) {
        if !net.is_alive(id) {
            return;
        }
        let connection = &mut self.connections[id];
        connection.waiting.push_back((now, count));
        if !self.worker.plan.verify {
            return net.send(id, &self.block[..self.ends[count]]);
        }
        let mut frames = Vec::new();
        for number in connection.next..connection.next + count as u64 {
            self.worker.plan.target.dialect.push(&mut frames, &self.ping, 0, ID_MIN + number);
        }
        connection.next += count as u64;
        net.send(id, &frames);
    }

    fn verify(&mut self, id: usize, payload: &[u8]) {
        let expected = ID_MIN + self.connections[id].expected;
        self.connections[id].expected += 1;
        let is_right = serde_json::from_slice::<serde_json::Value>(payload).is_ok_and(|pong| {
            // Pusher's have no ids.
            pong["event"] == "pusher:pong" || pong["event"] == "socket:pong" && pong["data"]["reply"] == expected
        });
        self.tally.invalid += u64::from(!is_right);
    }
}

impl Handler for Pinged<'_> {
    fn opened(&mut self, _net: &mut Net, _id: usize, _connect_ns: u64) {}

    #[inline]
    fn frame(&mut self, net: &mut Net, id: usize, payload: &[u8], _now: u64) {
        if is_heartbeat(net, id, payload) {
            return;
        }
        if self.worker.plan.target.dialect.packed {
            self.arrived += memchr::memmem::find_iter(payload, b"PONG").count();
            return;
        }
        if self.worker.plan.verify {
            self.verify(id, payload);
        }
        self.arrived += 1;
    }

    fn read_done(&mut self, net: &mut Net, id: usize, now: u64) {
        let arrived = std::mem::take(&mut self.arrived);
        if !self.is_running || arrived == 0 {
            return;
        }
        self.events += arrived as u64;
        let mut left = arrived;
        let waiting = &mut self.connections[id].waiting;
        while left > 0
            && let Some((sent, count)) = waiting.front_mut()
        {
            let answered = left.min(*count);
            if *sent >= self.count_from_ns {
                self.latency.record(now - *sent, answered as u64);
            }
            left -= answered;
            *count -= answered;
            if *count == 0 {
                waiting.pop_front();
            }
        }
        // Answers without a ping must not cause further pings.
        let asked = arrived - left;
        self.tally.duplicated += left as u64;
        if asked > 0 && !self.is_over {
            self.send(net, id, asked, now);
        }
    }

    fn closed(&mut self, _net: &mut Net, _id: usize, why: Ended) {
        note_ended(&mut self.tally, &why);
    }
}

/// Ids of eight digits, so that all pings have the same length.
const ID_MIN: u64 = 10_000_000;
