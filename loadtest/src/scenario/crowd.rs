//! A crowd: connections, each subscribed to a channel, that all drop and reconnect at once when the run is told to. Measured
//! is how long that takes, and how many are refused.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::{Joining, conclude, note_ended, set_up};
use crate::clock::now_ns;
use crate::engine::{Ended, Handler, Net};
use crate::measure::{Latency, Tally};
use crate::worker::Worker;

/// Does a worker's share of the crowd.
pub fn work(worker: &Worker, connections: usize, channels: u32) -> anyhow::Result<Tally> {
    let joining = Joining::new(worker, connections, channels, 1);
    let count = joining.count;
    let mut handler = Crowd {
        joining,
        left_ns: 0,
        refused: 0,
        connect: Latency::new(),
        back: Latency::new(),
        tally: Tally::default(),
    };
    let channel = |at| at as u32 % channels.max(1);
    let (mut net, mut window) = set_up(worker, &mut handler, count, channel, |_, handler| handler.joining.settled)?;
    worker.ready(&mut net, &mut handler)?;

    let mut all_back_ns = 0;
    // The proof waits until all have reconnected.
    while let Some(now) = window.turn(worker, &net, handler.back(), 0) {
        let go_at = worker.shared.go_at.load(SeqCst);
        if handler.left_ns == 0 && go_at > 0 && now >= go_at {
            handler.left_ns = now;
            handler.joining.settled = 0;
            (0..count).for_each(|id| net.close(id));
            // Numbers are reused from the next turn on.
            net.turn(&mut handler, Some(Duration::ZERO))?;
            for at in 0..count {
                net.open(channel(at));
            }
        }
        net.turn(&mut handler, Some(Duration::from_millis(10)))?;
        if all_back_ns == 0 && handler.left_ns > 0 && handler.joining.settled == count {
            all_back_ns = now_ns() - handler.left_ns;
        }
    }
    let back = handler.back();
    let mut tally = conclude(handler.tally, &net, &window);
    tally.events = back;
    tally.refused = handler.refused;
    let mut all_back = Latency::new();
    if all_back_ns > 0 {
        all_back.record(all_back_ns, 1);
    }
    tally.latencies.insert("all back".into(), all_back);
    tally.latencies.insert("connect".into(), handler.connect);
    tally.latencies.insert("back".into(), handler.back);
    Ok(tally)
}

struct Crowd<'a> {
    joining: Joining<'a>,
    /// When all dropped; 0 before.
    left_ns: u64,
    /// Connections that did not open.
    refused: u64,
    /// From the start of a connection to its greeting, when it reconnects.
    connect: Latency,
    /// From the drop of all connections to `subscribed`, when it reconnects.
    back: Latency,
    tally: Tally,
}

impl Crowd<'_> {
    /// Connections that are back.
    fn back(&self) -> u64 {
        if self.left_ns > 0 { self.joining.settled as u64 } else { 0 }
    }
}

impl Handler for Crowd<'_> {
    fn opened(&mut self, net: &mut Net, id: usize, connect_ns: u64) {
        if self.left_ns > 0 {
            self.connect.record(connect_ns, 1);
        }
        self.joining.opened(net, id);
    }

    fn frame(&mut self, net: &mut Net, id: usize, payload: &[u8], now: u64) {
        if self.joining.frame(net, id, payload) && self.left_ns > 0 {
            self.back.record(now.saturating_sub(self.left_ns), 1);
        }
    }

    fn closed(&mut self, net: &mut Net, _id: usize, why: Ended) {
        if self.left_ns > 0 {
            self.refused += 1;
            net.open(0);
        }
        note_ended(&mut self.tally, &why);
    }
}
