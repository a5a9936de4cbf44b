//! Idle connections: the memory of one, and the CPU time of heartbeats. When the run is told to, they may all depart at once.
//! If they come back, the time that this takes is measured, and how many attempts are refused.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::{Pings, conclude, is_heartbeat, note_ended, set_up};
use crate::clock::now_ns;
use crate::engine::{Ended, Handler, Net};
use crate::measure::{Latency, Tally};
use crate::plan::{Departure, Idle};
use crate::worker::Worker;

/// Holds a worker's share of the connections.
pub fn work(worker: &Worker, idle: &Idle) -> anyhow::Result<Tally> {
    let share = worker.share(idle.connections);
    let count = share.len();
    let mut handler = Waiting {
        worker,
        idle,
        first: share.start,
        count,
        settled: 0,
        awaited: Vec::new(),
        left_ns: 0,
        frames: 0,
        connect: Latency::new(),
        back: Latency::new(),
        all: Latency::new(),
        tally: Tally::default(),
    };
    let begun = now_ns();
    let (mut net, mut window) =
        set_up(worker, &mut handler, count, |at| idle.channel_of(at), |_, handler| handler.settled)?;
    worker.ready(&mut net, &mut handler)?;
    let took = now_ns() - begun;
    handler.tally.note(format!("{} connections were open after {:.2} s", net.open, took as f64 / 1e9));

    let mut heartbeats = Pings::new(&worker.plan.target, 0..count, worker.plan.heartbeat_ns, now_ns());
    while let Some(now) = window.turn(worker, &net, handler.events(), 0) {
        let go_at = worker.shared.go_at.load(SeqCst);
        if let Some(departure) = idle.departure
            && handler.left_ns == 0
            && (1..=now).contains(&go_at)
        {
            handler.depart(&mut net, departure)?;
        }
        heartbeats.turn(&mut net, now, |_, _| {});
        let pause_ns = go_at.checked_sub(now).map_or(PAUSE_NS, |until_go| until_go.min(PAUSE_NS));
        net.turn(&mut handler, Some(Duration::from_nanos(pause_ns)))?;
    }
    let events = handler.events();
    let mut tally = conclude(handler.tally, &net, &window);
    let name = match idle.departure {
        None => {
            handler.all.record(took, 1);
            "all connected"
        }
        Some(_) => {
            tally.events = events;
            "all back"
        }
    };
    tally.latencies.insert(name.into(), handler.all);
    tally.latencies.insert("connect".into(), handler.connect);
    tally.latencies.insert("back".into(), handler.back);
    Ok(tally)
}

struct Waiting<'a> {
    worker: &'a Worker,
    idle: &'a Idle,
    /// Number of the worker's first connection among those of all workers.
    first: usize,
    /// Connections of this worker.
    count: usize,
    /// Connections that are subscribed, or open if the plan has no channels.
    settled: usize,
    /// By connection: subscriptions that are not confirmed yet.
    awaited: Vec<u32>,
    /// When all departed; 0 before.
    left_ns: u64,
    /// Frames received: pongs, and the server's own heartbeats.
    frames: u64,
    /// From the start of a connection to its greeting; after the departure, of those that come back.
    connect: Latency,
    /// From the departure until a connection is settled again.
    back: Latency,
    /// From the departure until all are settled again.
    all: Latency,
    tally: Tally,
}

impl Waiting<'_> {
    /// Frames, or the connections that have departed and, where they do, come back.
    fn events(&self) -> u64 {
        match self.idle.departure {
            None => self.frames,
            Some(_) if self.left_ns == 0 => 0,
            Some(_) => self.settled as u64,
        }
    }

    fn depart(&mut self, net: &mut Net, departure: Departure) -> std::io::Result<()> {
        self.left_ns = now_ns();
        if departure == Departure::Reset {
            (0..self.count).for_each(|id| net.reset(id));
            return Ok(());
        }
        (self.settled, self.connect) = (0, Latency::new());
        (0..self.count).for_each(|id| net.close(id));
        // Numbers are reused from the next turn on.
        net.turn(self, Some(Duration::ZERO))?;
        for at in 0..self.count {
            net.open(self.idle.channel_of(at));
        }
        Ok(())
    }

    fn settle(&mut self, now: u64) {
        self.settled += 1;
        if self.left_ns > 0 {
            self.back.record(now.saturating_sub(self.left_ns), 1);
            if self.settled == self.count {
                self.all.record(now.saturating_sub(self.left_ns), 1);
            }
        }
    }
}

impl Handler for Waiting<'_> {
    fn opened(&mut self, net: &mut Net, id: usize, connect_ns: u64) {
        self.connect.record(connect_ns, 1);
        let plan = &self.worker.plan;
        let dialect = plan.target.dialect(id);
        let Some(subscribe) = dialect.subscribe.as_ref().filter(|_| self.idle.channels > 0) else {
            return self.settle(now_ns());
        };
        let start = (self.first + id) * self.idle.each as usize;
        let mut frames = Vec::new();
        for at in start..start + self.idle.each as usize {
            dialect.push(&mut frames, subscribe, plan.first_channel + self.idle.channel_of(at), 1);
        }
        net.send(id, &frames);
        self.awaited.resize(self.awaited.len().max(id + 1), 0);
        self.awaited[id] = self.idle.each;
    }

    fn frame(&mut self, net: &mut Net, id: usize, payload: &[u8], now: u64) {
        self.frames += 1;
        let awaited = self.awaited.get_mut(id).filter(|awaited| **awaited > 0);
        let Some(awaited) = awaited.filter(|_| !is_heartbeat(net, id, payload)) else { return };
        *awaited -= 1;
        if *awaited == 0 {
            self.settle(now);
        }
    }

    fn closed(&mut self, net: &mut Net, _id: usize, why: Ended) {
        note_ended(&mut self.tally, &why);
        if self.left_ns > 0 {
            self.tally.refused += 1;
            net.open(0);
        }
    }
}

/// Time between two looks at whether to depart.
const PAUSE_NS: u64 = 10_000_000;
