//! Subscribers of one channel, which all lose their connections at once when the run is told to and come back a little later,
//! while messages are published. With the position of its last message (`since`) a client must get everything that it missed:
//! from the first message of the run to the last one, nothing is lost and nothing arrives twice.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use mio::Token;
use serde_json::Value;

use super::open_loop::OpenLoop;
use super::{conclude, drain, is_heartbeat, note_ended, set_up};
use crate::engine::{Ended, Handler, Net};
use crate::measure::{Latency, Tally};
use crate::plan::{Recover, nanoseconds};
use crate::stamp;
use crate::track::{Faults, Track};
use crate::worker::{Window, Worker};

/// Does a worker's share of the recovery.
pub fn work(worker: &Worker, recover: &Recover) -> anyhow::Result<Tally> {
    let plan = &worker.plan;
    let mut handler = Recovering::new(worker, recover);
    let count = handler.clients.len();
    let (mut net, mut window) = set_up(worker, &mut handler, count, |_| 0, |_, handler| handler.settled)?;
    handler.publishes.connect(worker, &net, &mut handler.tally)?;
    worker.ready(&mut net, &mut handler)?;

    let start = worker.shared.start_at.load(SeqCst);
    let away_ns = nanoseconds(recover.away.min(60.0));
    // The proof waits until all are back and have what they missed.
    while let Some(now) = window.turn(worker, &net, handler.complete, u64::from(handler.publishes.published)) {
        handler.publishes.turn(start, now)?;
        let go_at = worker.shared.go_at.load(SeqCst);
        if handler.cut_ns > 0 && handler.returned_ns == 0 && now >= handler.cut_ns + away_ns {
            handler.returned_ns = now;
        } else if handler.cut_ns == 0 && go_at > 0 && now >= go_at {
            handler.cut(&mut net, now);
        }
        if handler.returned_ns > 0 {
            // Those that fail come back again.
            while net.opening < (OPENING_MAX / plan.workers()).max(1) && net.opening < handler.away.len() {
                net.open(0);
            }
        }
        net.turn(&mut handler, Some(Duration::from_millis(1)))?;
    }
    drain(&mut net, &mut handler, |_, handler| handler.is_drained())?;
    Ok(handler.finish(&net, &window))
}

/// A client; its connections come and go.
struct Client {
    state: State,
    /// `None`: it begins with the next message, whichever that is.
    track: Option<Track>,
    /// The offset of its last message.
    position: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not subscribed.
    Away,
    /// Recovered, and what it missed follows, up to this offset.
    Replaying(u64),
    /// It has everything.
    Live,
}

struct Recovering<'a> {
    worker: &'a Worker,
    since: bool,
    clients: Vec<Client>,
    /// Clients without a connection.
    away: Vec<usize>,
    /// By connection: the client.
    client_of: Vec<Option<usize>>,
    /// Clients that subscribed before the cut, or were refused.
    settled: usize,
    /// When all lost their connections; 0 before.
    cut_ns: u64,
    /// When they began to come back; 0 before.
    returned_ns: u64,
    /// Clients that are back and have what they missed.
    complete: u64,
    /// Messages that were missed, and followed.
    replayed: u64,
    /// The life of the channel's log.
    epoch: String,
    reader: stamp::Reader,
    faults: Faults,
    /// From the return to `subscribed`.
    back: Latency,
    /// From the return to the last message that was missed.
    caught_up: Latency,
    publishes: OpenLoop,
    tally: Tally,
}

impl Recovering<'_> {
    fn new<'a>(worker: &'a Worker, recover: &Recover) -> Recovering<'a> {
        let count = worker.share(recover.connections).len();
        let client = || Client { state: State::Away, track: None, position: 0 };
        Recovering {
            worker,
            since: recover.since,
            clients: std::iter::repeat_with(client).take(count).collect(),
            away: (0..count).collect(),
            client_of: Vec::new(),
            settled: 0,
            cut_ns: 0,
            returned_ns: 0,
            complete: 0,
            replayed: 0,
            epoch: String::new(),
            reader: stamp::Reader::default(),
            faults: Faults::default(),
            back: Latency::new(),
            caught_up: Latency::new(),
            publishes: OpenLoop::new(worker, recover.rate, recover.size, 1),
            tally: Tally::default(),
        }
    }

    /// All connections are reset.
    fn cut(&mut self, net: &mut Net, now: u64) {
        self.cut_ns = now;
        for (id, client) in self.client_of.iter_mut().enumerate() {
            if let Some(client) = client.take() {
                net.reset(id);
                self.clients[client].state = State::Away;
                self.away.push(client);
            }
        }
    }

    fn subscribe(&self, net: &mut Net, id: usize, client: usize) {
        let plan = &self.worker.plan;
        let Some(subscribe) = &plan.target.dialect.subscribe else { return };
        let mut text = String::from_utf8_lossy(&subscribe.text(plan.first_channel, 1)).into_owned();
        if self.since && self.returned_ns > 0 {
            // Another member of `data`, which ends with the message.
            text.truncate(text.len() - 2);
            let offset = self.clients[client].position;
            text.push_str(&format!(r#","since":{{"epoch":"{}","offset":{offset}}}}}}}"#, self.epoch));
        }
        net.send_text(id, text.as_bytes());
    }

    fn message(&mut self, client: usize, number: u32, payload: &[u8], now: u64) {
        let it = &mut self.clients[client];
        if it.state == State::Away {
            self.tally.invalid += 1;
            return self.tally.note("a message arrived before socket:subscribed");
        }
        it.track.get_or_insert_with(|| Track::new(number)).see(number, 1, &mut self.faults);
        // A channel without history has no offsets.
        it.position = offset_of(payload).unwrap_or(it.position);
        if let State::Replaying(until) = it.state {
            self.replayed += 1;
            if it.position >= until {
                self.caught_up(client, now);
            }
        }
    }

    /// Handles an answer: `subscribed`, or an error.
    fn answer(&mut self, client: usize, payload: &[u8], now: u64) {
        let answer: Value = serde_json::from_slice(payload).unwrap_or_default();
        if answer["event"] != "socket:subscribed" {
            self.tally.invalid += 1;
            self.settled += 1;
            let text = String::from_utf8_lossy(&payload[..payload.len().min(200)]);
            return self.tally.note(format!("the server said {text}"));
        }
        let data = &answer["data"];
        let live_from = data["offset"].as_u64().unwrap_or_default();
        let it = &mut self.clients[client];
        if self.returned_ns == 0 {
            if let Some(epoch) = data["epoch"].as_str() {
                epoch.clone_into(&mut self.epoch);
            }
            (it.state, it.track, it.position) = (State::Live, Some(Track::new(0)), live_from);
            self.settled += 1;
            return;
        }
        self.back.record(now.saturating_sub(self.returned_ns), 1);
        if data["recovered"] != true {
            // It would load its state anew, and go on from here.
            (it.track, it.position) = (None, live_from);
            self.tally.count("not_recovered", u64::from(self.since));
            self.caught_up(client, now);
        } else if it.position >= live_from {
            self.tally.count("recovered", 1);
            self.caught_up(client, now);
        } else {
            self.tally.count("recovered", 1);
            it.state = State::Replaying(live_from);
        }
    }

    fn caught_up(&mut self, client: usize, now: u64) {
        self.clients[client].state = State::Live;
        self.complete += 1;
        self.caught_up.record(now.saturating_sub(self.returned_ns), 1);
    }

    /// Whether everything that was published has arrived, as far as this worker knows.
    fn is_drained(&self) -> bool {
        let has_all = |client: &Client| match &client.track {
            Some(track) => track.next() == self.publishes.published,
            None => client.state == State::Away,
        };
        self.worker.index == 0 && self.publishes.is_answered() && self.clients.iter().all(has_all)
    }

    fn finish(mut self, net: &Net, window: &Window) -> Tally {
        self.publishes.conclude(&mut self.tally);
        let mut tally = conclude(self.tally, net, window);
        for client in &self.clients {
            match &client.track {
                Some(track) => *tally.awaited.entry(track.next()).or_default() += 1,
                // At least one, since publishes go on while clients come back.
                None => tally.undelivered += u64::from(client.state != State::Away),
            }
        }
        (tally.stride, tally.published) = (1, self.publishes.published);
        tally.events = self.complete;
        tally.count("replayed", self.replayed);
        tally.add_faults(self.faults);
        tally.latencies.insert("back".into(), self.back);
        tally.latencies.insert("caught up".into(), self.caught_up);
        tally
    }
}

impl Handler for Recovering<'_> {
    fn opened(&mut self, net: &mut Net, id: usize, _connect_ns: u64) {
        let Some(client) = self.away.pop() else { return };
        self.client_of.resize(self.client_of.len().max(id + 1), None);
        self.client_of[id] = Some(client);
        self.subscribe(net, id, client);
    }

    fn frame(&mut self, net: &mut Net, id: usize, payload: &[u8], now: u64) {
        let Some(client) = self.client_of[id] else { return };
        match self.reader.read(payload) {
            Some((number, _)) => self.message(client, number, payload, now),
            None if is_heartbeat(net, id, payload) => {}
            None => self.answer(client, payload, now),
        }
    }

    fn closed(&mut self, _net: &mut Net, id: usize, why: Ended) {
        note_ended(&mut self.tally, &why);
        if let Some(client) = self.client_of.get_mut(id).and_then(Option::take) {
            self.clients[client].state = State::Away;
            self.away.push(client);
        }
        if self.returned_ns > 0 {
            self.tally.count("attempts_failed", 1);
        }
    }

    fn other(&mut self, _net: &mut Net, token: Token) {
        self.publishes.event(token);
    }
}

/// The offset of a message: the last member of its envelope.
fn offset_of(message: &[u8]) -> Option<u64> {
    let digits = message.strip_suffix(b"}")?;
    let colon = memchr::memrchr(b':', digits)?;
    let name = digits[..colon].ends_with(b"\"offset\"");
    name.then(|| std::str::from_utf8(&digits[colon + 1..]).ok()?.parse().ok()).flatten()
}

/// Limit of connections that are opening, of all workers: half of what a backlog holds by default (net.core.somaxconn). A
/// connection attempt that finds the backlog full is repeated by the kernel after a second.
const OPENING_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_the_last_member() {
        let check = |message: &str, expected| assert_eq!(offset_of(message.as_bytes()), expected, "{message}");
        check(r#"{"event":"m","channel":"c0","data":1.07,"offset":1006}"#, Some(1006));
        check(r#"{"event":"m","channel":"c0","data":1.07}"#, None);
        check(r#"{"event":"m","channel":"c0","data":{"offset":5}}"#, None);
        check(r#"{"event":"m","channel":"c0","data":"x:5"}"#, None);
        check("", None);
    }
}
