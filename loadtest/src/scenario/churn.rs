//! Churn: connections subscribe, receive, unsubscribe, and sometimes reconnect, while messages are published. Between
//! `subscribed` and `unsubscribed` no message may be missing or arrive twice, and none may arrive afterwards.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use mio::Token;

use super::open_loop::OpenLoop;
use super::{conclude, drain, is_heartbeat, note_ended, set_up};
use crate::clock::now_ns;
use crate::engine::{Ended, Handler, Net};
use crate::measure::{Latency, Tally};
use crate::plan::Churn;
use crate::stamp;
use crate::track::{Faults, Track};
use crate::worker::{Window, Worker};

/// Does a worker's share of the churn.
pub fn work(worker: &Worker, churn: &Churn) -> anyhow::Result<Tally> {
    let plan = &worker.plan;
    anyhow::ensure!(!plan.target.dialect.unsubscribe.is_empty(), "{} cannot unsubscribe", plan.target.name);
    anyhow::ensure!(!plan.target.dialect.packed, "{} packs answers and messages into one frame", plan.target.name);
    let share = worker.share(churn.connections).len();
    let mut handler = Churning::new(worker, churn);
    let (mut net, mut window) = set_up(worker, &mut handler, share, |_| 0, |net, _| net.open)?;
    handler.publishes.connect(worker, &net, &mut handler.tally)?;
    worker.ready(&mut net, &mut handler)?;

    let start = worker.shared.start_at.load(SeqCst);
    handler.is_running = true;
    for id in 0..handler.connections.len() {
        handler.next_operation(&mut net, id);
    }
    while let Some(now) = window.turn(worker, &net, handler.events, u64::from(handler.publishes.published)) {
        handler.count = window.is_open();
        handler.publishes.turn(start, now)?;
        while net.open + net.opening < share {
            net.open(0);
        }
        net.turn(&mut handler, Some(Duration::from_millis(10)))?;
    }
    (handler.is_running, handler.count) = (false, false);
    drain(&mut net, &mut handler, |_, handler| handler.unanswered() == 0 && handler.publishes.is_answered())?;
    Ok(handler.finish(&net, &window))
}

#[derive(Default)]
struct Connection {
    state: State,
    channel: u32,
    asked_ns: u64,
    /// Begins with the first message after `subscribed`.
    track: Option<Track>,
    /// Messages to receive before it unsubscribes.
    stay: u32,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Free,
    Subscribing,
    Subscribed,
    Unsubscribing,
}

struct Churning<'a> {
    worker: &'a Worker,
    channels: u32,
    reconnect: f64,
    connections: Vec<Connection>,
    is_running: bool,
    publishes: OpenLoop,
    count: bool,
    reader: stamp::Reader,
    faults: Faults,
    /// Operations answered.
    events: u64,
    deliveries: u64,
    operation: Latency,
    connect: Latency,
    tally: Tally,
}

impl Churning<'_> {
    fn new<'a>(worker: &'a Worker, churn: &Churn) -> Churning<'a> {
        let channels = churn.channels.max(1);
        Churning {
            worker,
            channels,
            reconnect: churn.reconnect,
            connections: Vec::new(),
            is_running: false,
            publishes: OpenLoop::new(worker, churn.rate, churn.size, channels),
            count: false,
            reader: stamp::Reader::default(),
            faults: Faults::default(),
            events: 0,
            deliveries: 0,
            operation: Latency::new(),
            connect: Latency::new(),
            tally: Tally::default(),
        }
    }

    fn finish(self, net: &Net, window: &Window) -> Tally {
        let unanswered = self.unanswered();
        let mut tally = conclude(self.tally, net, window);
        tally.unanswered += unanswered;
        self.publishes.conclude(&mut tally);
        tally.add_faults(self.faults);
        tally.note(format!("{} messages were delivered", self.deliveries));
        tally.latencies.insert("operation".into(), self.operation);
        tally.latencies.insert("connect".into(), self.connect);
        tally
    }

    /// Requests that wait for their answer.
    fn unanswered(&self) -> u64 {
        let waits = |state| state == State::Subscribing || state == State::Unsubscribing;
        self.connections.iter().filter(|connection| waits(connection.state)).count() as u64
    }

    /// Free connections subscribe or reconnect; subscribed ones unsubscribe.
    fn next_operation(&mut self, net: &mut Net, id: usize) {
        if !self.is_running || !net.is_alive(id) {
            return;
        }
        let dialect = self.worker.plan.target.dialect(id);
        let connection = &mut self.connections[id];
        let messages = match connection.state {
            State::Free if fastrand::f64() < self.reconnect => {
                // The main loop opens another connection.
                self.events += 1;
                return net.close(id);
            }
            State::Free => {
                connection.channel = fastrand::u32(..self.channels);
                connection.state = State::Subscribing;
                connection.track = None;
                connection.stay = if self.publishes.rate > 0.0 { fastrand::u32(..STAY_MAX) } else { 0 };
                dialect.subscribe.as_slice()
            }
            State::Subscribed => {
                connection.state = State::Unsubscribing;
                &dialect.unsubscribe
            }
            State::Subscribing | State::Unsubscribing => return,
        };
        connection.asked_ns = now_ns();
        let mut frames = Vec::new();
        for message in messages {
            dialect.push(&mut frames, message, self.worker.plan.first_channel + connection.channel, 1);
        }
        net.send(id, &frames);
    }

    fn message(&mut self, net: &mut Net, id: usize, number: u32, payload: &[u8]) {
        let connection = &mut self.connections[id];
        self.deliveries += 1;
        if connection.state == State::Free || connection.state == State::Subscribing {
            self.tally.invalid += 1;
            let text = String::from_utf8_lossy(&payload[..payload.len().min(60)]);
            return self.tally.note(format!("a message arrived while not subscribed: {text}"));
        }
        if number % self.channels != connection.channel {
            self.tally.invalid += 1;
            return self.tally.note("a message arrived for a channel without a subscription");
        }
        let track = connection.track.get_or_insert_with(|| Track::new(number));
        track.see(number, self.channels, &mut self.faults);
        connection.stay = connection.stay.saturating_sub(1);
        if connection.stay == 0 {
            self.next_operation(net, id);
        }
    }

    fn answer(&mut self, net: &mut Net, id: usize, payload: &[u8], now: u64) {
        let dialect = self.worker.plan.target.dialect(id);
        let contains = |mark: &Option<String>| {
            mark.as_ref().is_some_and(|mark| memchr::memmem::find(payload, mark.as_bytes()).is_some())
        };
        let connection = &mut self.connections[id];
        connection.state = match connection.state {
            State::Subscribing if contains(&dialect.subscribed) => State::Subscribed,
            State::Unsubscribing if contains(&dialect.unsubscribed) => State::Free,
            _ => {
                self.tally.invalid += 1;
                let text = String::from_utf8_lossy(&payload[..payload.len().min(120)]);
                return self.tally.note(format!("an unexpected answer: {text}"));
            }
        };
        self.events += 1;
        if self.count {
            self.operation.record(now.saturating_sub(connection.asked_ns), 1);
        }
        if connection.state == State::Free || connection.stay == 0 {
            self.next_operation(net, id);
        }
    }
}

impl Handler for Churning<'_> {
    fn opened(&mut self, net: &mut Net, id: usize, connect_ns: u64) {
        if self.connections.len() <= id {
            self.connections.resize_with(id + 1, Connection::default);
        }
        self.connections[id] = Connection::default();
        if self.count {
            self.connect.record(connect_ns, 1);
        }
        if self.is_running {
            self.events += 1;
        }
        // A new connection does not reconnect as its first operation.
        let reconnect = std::mem::replace(&mut self.reconnect, 0.0);
        self.next_operation(net, id);
        self.reconnect = reconnect;
    }

    fn frame(&mut self, net: &mut Net, id: usize, payload: &[u8], now: u64) {
        if is_heartbeat(net, id, payload) {
            return;
        }
        match self.reader.read(payload) {
            Some((number, _)) => self.message(net, id, number, payload),
            None => self.answer(net, id, payload, now),
        }
    }

    fn closed(&mut self, _net: &mut Net, id: usize, why: Ended) {
        if let Some(connection) = self.connections.get_mut(id) {
            *connection = Connection::default();
        }
        note_ended(&mut self.tally, &why);
    }

    fn other(&mut self, _net: &mut Net, token: Token) {
        self.publishes.event(token);
    }
}

/// A subscriber unsubscribes after fewer messages than this.
const STAY_MAX: u32 = 8;
