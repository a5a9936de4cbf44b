//! Connections that do nothing but stay: what does one cost in memory, and what do heartbeats cost in CPU time?

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{Heartbeats, Setup, is_heartbeat, note_ended, set_up};
use crate::clock::now_ns;
use crate::engine::{Ended, Handler, Net};
use crate::measure::{Latency, Tally};
use crate::wire;
use crate::worker::{Phase, Window, Worker};

/// Holds a worker's share of the connections.
pub fn work(worker: &Worker, connections: usize, channels: u32) -> anyhow::Result<Tally> {
    let plan = &worker.plan;
    let share = worker.share(connections);
    let count = share.len();
    let channel_of = |at: usize| ((share.start + at) % channels.max(1) as usize) as u32;
    let mut net = Net::new(plan.address, Arc::new(plan.target.clone()), worker.index)?;
    let mut handler = Idle {
        worker,
        channels,
        first: share.start,
        settled: 0,
        is_running: false,
        events: 0,
        connect: Latency::new(),
        tally: Tally { wanted: count as u64, ..Tally::default() },
    };
    let begun = now_ns();
    set_up(worker, &mut net, &mut handler, count, channel_of)?;
    let took = now_ns() - begun;
    handler.tally.connected = net.open as u64;
    handler.tally.note(format!("{} connections in {:.2} s", net.open, took as f64 / 1e9));
    worker.ready(&mut net, &mut handler)?;

    handler.is_running = true;
    let mut heartbeats = Heartbeats::new(plan);
    let mut window = Window::default();
    loop {
        let now = now_ns();
        let phase = worker.phase(now);
        window.turn(phase, now, handler.events, 0);
        worker.live().events.store(handler.events, Relaxed);
        worker.live().connected.store(net.open as u64, Relaxed);
        if phase == Phase::Over {
            break;
        }
        heartbeats.turn(&mut net, count, now);
        net.turn(&mut handler, Some(Duration::from_millis(10)))?;
    }
    let mut tally = handler.tally;
    window.close(&mut tally);
    tally.bytes_read = net.bytes_read;
    tally.reads = net.reads;
    let mut all = Latency::new();
    all.record(took, 1);
    tally.latencies.insert("all connected".into(), all);
    tally.latencies.insert("connect".into(), handler.connect);
    Ok(tally)
}

struct Idle<'a> {
    worker: &'a Worker,
    channels: u32,
    first: usize,
    settled: usize,
    is_running: bool,
    /// Frames that came: pongs, and the server's own heartbeats.
    events: u64,
    connect: Latency,
    tally: Tally,
}

impl Handler for Idle<'_> {
    fn opened(&mut self, net: &mut Net, id: usize, connect_ns: u64) {
        self.connect.record(connect_ns, 1);
        match &self.worker.plan.target.subscribe {
            Some(subscribe) if self.channels > 0 => {
                let channel = ((self.first + id) % self.channels as usize) as u32;
                let mut frame = Vec::new();
                wire::push_masked(&mut frame, self.worker.plan.target.opcode(), &subscribe.text(channel, 1));
                net.send(id, &frame);
            }
            _ => self.settled += 1,
        }
    }

    fn frame(&mut self, net: &mut Net, id: usize, payload: &[u8], _now: u64) {
        self.events += 1;
        if !is_heartbeat(net, id, payload) && !self.is_running {
            self.settled += usize::from(self.channels > 0);
        }
    }

    fn closed(&mut self, _net: &mut Net, _id: usize, why: Ended) {
        self.settled += usize::from(!self.is_running);
        note_ended(&mut self.tally, &why);
    }
}

impl Setup for Idle<'_> {
    fn settled(&self) -> usize {
        self.settled
    }
}
