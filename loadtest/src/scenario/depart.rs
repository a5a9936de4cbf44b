//! Departures: connections with many subscriptions each, that are all reset at once when the run is told to.

use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use super::{Joining, Setup, conclude, gather, note_ended};
use crate::clock::now_ns;
use crate::engine::{Ended, Handler, Net};
use crate::measure::{Latency, Tally};
use crate::worker::{Phase, Window, Worker};

/// Does a worker's share of a departure.
pub fn work(worker: &Worker, connections: usize, subscriptions: u32, channels: u32) -> anyhow::Result<Tally> {
    let joining = Joining::new(worker, connections, channels, subscriptions);
    let count = joining.count;
    let mut handler = Departing { joining, is_running: false, tally: Tally::default() };
    let mut net = gather(worker, &mut handler, count, |_| 0)?;
    handler.is_running = true;
    let mut window = Window::default();
    let mut reset = Latency::new();
    let mut events = 0;
    loop {
        let now = now_ns();
        let phase = worker.phase(now);
        window.turn(phase, now, events, 0);
        worker.live().connected.store(net.open as u64, Relaxed);
        worker.live().events.store(events, Relaxed);
        if phase == Phase::Over {
            break;
        }
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
    is_running: bool,
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
        self.joining.settled += usize::from(!self.is_running);
        note_ended(&mut self.tally, &why);
    }
}

impl Setup for Departing<'_> {
    fn settled(&self) -> usize {
        self.joining.settled
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }
}
