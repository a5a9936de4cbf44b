//! Idle connections: the memory of one, and the CPU time of heartbeats.

use std::time::Duration;

use super::{Heartbeats, Joining, conclude, note_ended, set_up};
use crate::clock::now_ns;
use crate::engine::{Ended, Handler, Net};
use crate::measure::{Latency, Tally};
use crate::worker::Worker;

/// Holds a worker's share of the connections.
pub fn work(worker: &Worker, connections: usize, channels: u32) -> anyhow::Result<Tally> {
    let plan = &worker.plan;
    let joining = Joining::new(worker, connections, channels, 1);
    let count = joining.count;
    let mut handler = Idle { joining, events: 0, connect: Latency::new(), tally: Tally::default() };
    let begun = now_ns();
    let channel = |at| at as u32 % channels.max(1);
    let (mut net, mut window) = set_up(worker, &mut handler, count, channel, |_, handler| handler.joining.settled)?;
    worker.ready(&mut net, &mut handler)?;
    let took = now_ns() - begun;
    handler.tally.note(format!("{} connections were open after {:.2} s", net.open, took as f64 / 1e9));

    let mut heartbeats = Heartbeats::new(plan);
    while let Some(now) = window.turn(worker, &net, handler.events, 0) {
        heartbeats.turn(&mut net, count, now);
        net.turn(&mut handler, Some(Duration::from_millis(10)))?;
    }
    let mut tally = conclude(handler.tally, &net, &window);
    let mut all = Latency::new();
    all.record(took, 1);
    tally.latencies.insert("all connected".into(), all);
    tally.latencies.insert("connect".into(), handler.connect);
    Ok(tally)
}

struct Idle<'a> {
    joining: Joining<'a>,
    /// Frames received: pongs, and the server's own heartbeats.
    events: u64,
    connect: Latency,
    tally: Tally,
}

impl Handler for Idle<'_> {
    fn opened(&mut self, net: &mut Net, id: usize, connect_ns: u64) {
        self.connect.record(connect_ns, 1);
        self.joining.opened(net, id);
    }

    fn frame(&mut self, net: &mut Net, id: usize, payload: &[u8], _now: u64) {
        self.events += 1;
        self.joining.frame(net, id, payload);
    }

    fn closed(&mut self, _net: &mut Net, _id: usize, why: Ended) {
        note_ended(&mut self.tally, &why);
    }
}
