//! Departures: connections with many subscriptions each, that are all reset at once when the run is told to.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::{Joining, conclude, note_ended, set_up};
use crate::clock::now_ns;
use crate::engine::{Ended, Handler, Net};
use crate::measure::{Latency, Tally};
use crate::worker::Worker;

/// Does a worker's share of a departure.
pub fn work(worker: &Worker, connections: usize, subscriptions: u32, channels: u32) -> anyhow::Result<Tally> {
    let joining = Joining::new(worker, connections, channels, subscriptions);
    let count = joining.count;
    let mut handler = Departing { joining, tally: Tally::default() };
    let (mut net, mut window) = set_up(worker, &mut handler, count, |_| 0, |_, handler| handler.joining.settled)?;
    worker.ready(&mut net, &mut handler)?;
    let mut reset = Latency::new();
    let mut events = 0;
    while let Some(now) = window.turn(worker, &net, events, 0) {
        let go_at = worker.shared.go_at.load(SeqCst);
        if events == 0 && go_at > 0 && now >= go_at {
            (0..count).for_each(|id| net.reset(id));
            events = count as u64;
            reset.record(now_ns() - now, 1);
        }
        net.turn(&mut handler, Some(Duration::from_millis(1)))?;
    }
    let mut tally = conclude(handler.tally, &net, &window);
    tally.events = events;
    tally.latencies.insert("reset".into(), reset);
    Ok(tally)
}

struct Departing<'a> {
    joining: Joining<'a>,
    tally: Tally,
}

impl Handler for Departing<'_> {
    fn opened(&mut self, net: &mut Net, id: usize, _connect_ns: u64) {
        self.joining.opened(net, id);
    }

    fn frame(&mut self, net: &mut Net, id: usize, payload: &[u8], _now: u64) {
        self.joining.frame(net, id, payload);
    }

    fn closed(&mut self, _net: &mut Net, _id: usize, why: Ended) {
        note_ended(&mut self.tally, &why);
    }
}
