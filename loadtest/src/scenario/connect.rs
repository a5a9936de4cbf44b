//! Handshakes: how many per second, and how long one takes. Each connection is closed as soon as it is open, or (`hold`) all
//! connections drop once all are open, and reconnect together.

use std::sync::Arc;
use std::time::Duration;

use super::{conclude, drain, note_ended};
use crate::clock::now_ns;
use crate::engine::{Ended, Handler, Net};
use crate::measure::{Latency, Tally};
use crate::plan::Connect;
use crate::worker::{Window, Worker};

/// Does a worker's share of the handshakes.
pub fn work(worker: &Worker, connect: &Connect) -> anyhow::Result<Tally> {
    let plan = &worker.plan;
    let in_flight = worker.share(connect.in_flight).len().max(1);
    let hold = worker.share(connect.hold).len();
    let mut net = Net::new(plan.address, Arc::new(plan.target.clone()))?;
    let mut handler = Connecting {
        hold,
        held: Vec::new(),
        events: 0,
        refused: 0,
        count: false,
        storm_begun_ns: 0,
        connect: Latency::new(),
        storm: Latency::new(),
        tally: Tally::default(),
    };
    worker.ready(&mut net, &mut handler)?;

    let mut window = Window::default();
    handler.storm_begun_ns = now_ns();
    while let Some(now) = window.turn(worker, &net, handler.events, 0) {
        handler.count = window.is_open();
        if hold > 0 && handler.held.len() == hold {
            if handler.count {
                handler.storm.record(now - handler.storm_begun_ns, 1);
            }
            for id in handler.held.drain(..) {
                net.close(id);
            }
            handler.storm_begun_ns = now_ns();
        }
        while net.opening < in_flight && (hold == 0 || net.opening + net.open < hold) {
            net.open(0);
        }
        net.turn(&mut handler, Some(Duration::from_millis(10)))?;
        if handler.events == 0 && net.opening > 0 && now - handler.storm_begun_ns > 10_000_000_000 {
            net.give_up_opening(5_000_000_000, &mut handler);
        }
    }
    handler.count = false;
    drain(&mut net, &mut handler, |net, _| net.opening == 0)?;
    net.give_up_opening(0, &mut handler);
    let mut tally = conclude(handler.tally, &net, &window);
    tally.connected = handler.events;
    tally.wanted = handler.events + handler.refused;
    tally.latencies.insert("connect".into(), handler.connect);
    if handler.storm.count() > 0 {
        tally.latencies.insert("all back".into(), handler.storm);
    }
    Ok(tally)
}

struct Connecting {
    hold: usize,
    held: Vec<usize>,
    events: u64,
    /// Connections that did not open.
    refused: u64,
    count: bool,
    storm_begun_ns: u64,
    connect: Latency,
    storm: Latency,
    tally: Tally,
}

impl Handler for Connecting {
    fn opened(&mut self, net: &mut Net, id: usize, connect_ns: u64) {
        self.events += 1;
        if self.count {
            self.connect.record(connect_ns, 1);
        }
        if self.hold > 0 {
            self.held.push(id);
        } else {
            net.close(id);
        }
    }

    fn frame(&mut self, _net: &mut Net, _id: usize, _payload: &[u8], _now: u64) {}

    fn closed(&mut self, _net: &mut Net, id: usize, why: Ended) {
        self.held.retain(|&held| held != id);
        self.refused += u64::from(matches!(why, Ended::Refused(_)));
        note_ended(&mut self.tally, &why);
    }
}
