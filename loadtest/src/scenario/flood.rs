//! The flood: one publisher, many subscribers, and optionally connections that send pings.
//!
//! Publishes are numbered from 0. Number g goes to channel g modulo `channels`, so a subscriber of channel c expects c, then
//! one every `channels`, for each of its channels. A message is complete when its last subscriber has it. Worker 0 publishes, on
//! the thread that also receives, so that the publisher takes no time from the server's core.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use mio::Token;

use super::{DRAIN_NS, Pings, SILENCE_NS, conclude, connect_publisher, is_heartbeat, note_ended, set_up};
use crate::clock::{Alarm, now_ns};
use crate::engine::{Ended, Handler, Net, TOKEN_MIN};
use crate::measure::{Latency, Tally};
use crate::plan::Flood;
use crate::publisher::Publisher;
use crate::ring::Ring;
use crate::stamp;
use crate::target::Publish;
use crate::track::{Faults, Seen, Track};
use crate::worker::{Phase, Window, Worker};

/// Does a worker's share of a flood.
pub fn work(worker: &Worker, flood: &Flood) -> anyhow::Result<Tally> {
    let plan = &worker.plan;
    anyhow::ensure!(
        flood.channels_each == 1 || plan.target.dialect.subscribe.is_some() && !plan.target.dialect.packed,
        "a connection to {} can subscribe to one channel only",
        plan.target.name
    );
    let is_answered = flood.subscribers == 0;
    anyhow::ensure!(
        !is_answered || !matches!(plan.target.publish, Publish::WebSocket { .. }),
        "{} does not answer publishes: without subscribers there is nothing to measure",
        plan.target.name
    );
    let mut handler = Flooded::new(worker, flood);
    let channels: Vec<u32> = handler.subscribers.iter().map(|subscriber| subscriber.channel).collect();
    let channel = |at: usize| channels.get(at).map_or(0, |channel| plan.first_channel + channel);
    let connections = channels.len() + handler.pingers.len();
    let (mut net, mut window) = set_up(worker, &mut handler, connections, channel, |_, handler| handler.settled)?;
    handler.begin();

    let mut pace = Pace { rate: flood.rate, window: flood.window, published: 0, begun_ns: 0, is_answered };
    if worker.index == 0 {
        handler.publisher = connect_publisher(worker, &net, PUBLISHER, flood.size, &mut handler.tally)?;
        if plan.workers() > 1 {
            let _ = worker.shared.publisher.set(mio::Waker::new(net.registry(), WAKER)?);
        }
    }
    worker.ready(&mut net, &mut handler)?;
    if worker.phase(now_ns()) != Phase::Over {
        run(&mut net, &mut handler, flood, &mut pace, &mut window)?;
    }
    Ok(handler.finish(&net, &window, &pace))
}

/// Publishes, pings and receives until the run is over and drained.
fn run(
    net: &mut Net,
    handler: &mut Flooded,
    flood: &Flood,
    pace: &mut Pace,
    window: &mut Window,
) -> anyhow::Result<()> {
    let worker = handler.worker;
    let start = worker.shared.start_at.load(SeqCst);
    handler.count_from_ns = start + worker.plan.warmup_ns;
    handler.count_to_ns = handler.count_from_ns + worker.plan.duration_ns;
    pace.begun_ns = start;
    let subscribers = handler.subscribers.len();
    let connections = subscribers + handler.pingers.len();
    let target = &worker.plan.target;
    let mut pings = Pings::new(target, subscribers..connections, flood.ping_every_ns, start);
    let mut heartbeats = Pings::new(target, 0..connections, worker.plan.heartbeat_ns, now_ns());
    let mut alarm = Alarm::new(net.registry(), TIMER)?;
    let live = worker.live();
    let mut over_ns = 0;
    loop {
        let now = now_ns();
        let phase = worker.phase(now);
        if over_ns == 0 {
            // Once more at the end, so that everything that was due by then is sent, unless the server does not read.
            pings.turn(net, now, |pinger, due| handler.pingers[pinger].push_back(due));
            pace.turn(handler, now);
        }
        window.mark(phase, now, handler.events, u64::from(pace.published));
        live.events.store(handler.events, Relaxed);
        live.publishes.store(u64::from(pace.published), Relaxed);
        if phase == Phase::Over {
            if over_ns == 0 {
                over_ns = now;
                handler.count_to_ns = handler.count_to_ns.min(now);
            }
            if handler.is_drained(now, over_ns, pace) {
                return Ok(());
            }
        }
        heartbeats.turn(net, now, |_, _| {});
        if let Some(publisher) = &mut handler.publisher {
            publisher.flush();
        }
        if let Some(due) = pace.next_due_ns().into_iter().chain(pings.next_due_ns()).filter(|due| *due > now).min() {
            alarm.set(due, now)?;
        }
        net.turn(handler, Some(Duration::from_millis(10)))?;
        if std::mem::take(&mut handler.is_rung) {
            alarm.acknowledge();
        }
    }
}

/// The schedule of publishes.
struct Pace {
    rate: Option<f64>,
    window: u32,
    published: u32,
    begun_ns: u64,
    /// The flood has no subscribers: a publish is complete when it is answered.
    is_answered: bool,
}

impl Pace {
    /// When the next publish of an open loop is due.
    fn next_due_ns(&self) -> Option<u64> {
        self.rate.map(|rate| self.begun_ns + (f64::from(self.published) * 1e9 / rate) as u64)
    }

    fn turn(&mut self, handler: &mut Flooded, now: u64) {
        let Some(mut publisher) = handler.publisher.take() else {
            return;
        };
        let channels = handler.stride;
        let below = if self.is_answered {
            Some(publisher.answered as u32)
        } else if handler.worker.plan.workers() > 1 {
            handler.worker.shared.fronts.iter().map(|front| front.load(SeqCst)).min()
        } else {
            None
        };
        let complete = match below {
            Some(below) => handler.ring.complete_below(below.min(self.published), |sent_ns| {
                if sent_ns >= handler.count_from_ns && sent_ns < handler.count_to_ns {
                    handler.last.record(now.saturating_sub(sent_ns), 1);
                }
            }),
            None => handler.ring.completed(),
        };
        let oldest = if self.is_answered { complete } else { handler.ring.oldest() };
        match self.next_due_ns() {
            Some(mut due) => {
                let room = oldest.saturating_add(handler.ring.capacity());
                while due <= now && self.published < room && publisher.has_room() {
                    // The age of a publish counts from the time at which it was due, however late it is sent.
                    handler.publish(&mut publisher, self.published, due, channels);
                    handler.note_late(due, now);
                    self.published += 1;
                    due = self.next_due_ns().unwrap_or(u64::MAX);
                }
            }
            None => {
                // Without subscribers the oldest message is beyond all numbers.
                let room = oldest.saturating_add(handler.ring.capacity()).min(complete.saturating_add(self.window));
                while self.published < room && publisher.has_room() {
                    handler.publish(&mut publisher, self.published, now, channels);
                    self.published += 1;
                }
            }
        }
        handler.publisher = Some(publisher);
    }
}

struct Subscriber {
    /// Its first channel.
    channel: u32,
    track: Track,
    /// The tracks of the channels after it.
    further: Box<[Track]>,
    /// Subscriptions that are not confirmed yet.
    awaited: u32,
    is_live: bool,
    /// It was subscribed, though its connection may have ended since.
    was_live: bool,
}

impl Subscriber {
    fn new(channel: u32, flood: &Flood) -> Subscriber {
        let further = (1..flood.channels_each).map(|at| Track::new((channel + at) % flood.channels)).collect();
        let track = Track::new(channel);
        Subscriber { channel, track, further, awaited: flood.channels_each, is_live: false, was_live: false }
    }

    /// The track of the channel of message `number`; `None` if it is not subscribed to that.
    #[inline]
    fn track(&mut self, number: u32, stride: u32) -> Option<&mut Track> {
        if self.further.is_empty() {
            return Some(&mut self.track);
        }
        match (number % stride + stride - self.channel) % stride {
            0 => Some(&mut self.track),
            at => self.further.get_mut(at as usize - 1),
        }
    }

    fn tracks(&self) -> impl Iterator<Item = &Track> {
        std::iter::once(&self.track).chain(&self.further)
    }

    fn channels(&self, stride: u32) -> impl Iterator<Item = u32> {
        (0..=self.further.len() as u32).map(move |at| (self.channel + at) % stride)
    }
}

struct Flooded<'a> {
    worker: &'a Worker,
    /// By connection number; the pingers have the numbers after them.
    subscribers: Vec<Subscriber>,
    /// When each unanswered ping was due.
    pingers: Vec<VecDeque<u64>>,
    stride: u32,
    /// Publishes go through one stream, so that a message that is skipped is lost.
    is_ordered: bool,
    /// Subscribers that are subscribed, or were refused, and pingers that have been opened.
    settled: usize,
    ring: Ring,
    reader: stamp::Reader,
    faults: Faults,
    events: u64,
    last_message_ns: u64,
    /// Send time and number of equally old messages in the current read. They make one entry in the histogram.
    run: (u64, u64),
    count_from_ns: u64,
    count_to_ns: u64,
    receipt: Latency,
    last: Latency,
    ping: Latency,
    /// From the time at which a publish was due until it was sent.
    late: Latency,
    publisher: Option<Publisher>,
    /// The timer was reported.
    is_rung: bool,
    tally: Tally,
}

impl Flooded<'_> {
    fn new<'a>(worker: &'a Worker, flood: &Flood) -> Flooded<'a> {
        let share = worker.share(flood.subscribers);
        let pingers = worker.share(flood.pingers).len();
        let room = if flood.rate.is_some() { RING_OPEN } else { (flood.window * 2).max(1024) };
        let channel = |number: usize| (number % flood.channels as usize) as u32;
        Flooded {
            worker,
            subscribers: share.map(|number| Subscriber::new(channel(number), flood)).collect(),
            pingers: (0..pingers).map(|_| VecDeque::new()).collect(),
            stride: flood.channels,
            is_ordered: worker.plan.target.publishes_in_order(),
            settled: 0,
            ring: Ring::new(flood.channels, room),
            reader: stamp::Reader::default(),
            faults: Faults::default(),
            events: 0,
            last_message_ns: 0,
            run: (0, 0),
            count_from_ns: u64::MAX,
            count_to_ns: u64::MAX,
            receipt: Latency::new(),
            last: Latency::new(),
            ping: Latency::new(),
            late: Latency::new(),
            publisher: None,
            is_rung: false,
            tally: Tally::default(),
        }
    }

    /// Prepares the ring for the subscribers, once they are set up.
    fn begin(&mut self) {
        for subscriber in self.subscribers.iter().filter(|subscriber| subscriber.is_live) {
            subscriber.channels(self.stride).for_each(|channel| self.ring.subscribe(channel));
        }
        self.ring.begin();
        self.worker.advance_front(self.ring.front());
    }

    fn publish(&mut self, publisher: &mut Publisher, number: u32, due_ns: u64, channels: u32) {
        self.ring.publish(number, due_ns);
        publisher.push(number, due_ns, self.worker.plan.first_channel + number % channels);
    }

    #[inline]
    fn message(&mut self, id: usize, number: u32, sent_ns: u64, now: u64) {
        let subscriber = &mut self.subscribers[id];
        self.events += 1;
        let Some(track) = subscriber.track(number, self.stride) else {
            self.tally.invalid += 1;
            return self.tally.note("a message arrived for a channel without a subscription");
        };
        match track.see(number, self.stride, &mut self.faults) {
            Seen::Next => {}
            Seen::Ahead(first, count) => {
                for missing in 0..if self.is_ordered { count } else { 0 } {
                    self.deliver(first + missing * self.stride, now);
                }
            }
            Seen::Late if !self.is_ordered => {}
            Seen::Late | Seen::Again => return,
        }
        self.deliver(number, now);
        if self.run.0 != sent_ns {
            self.end_run(now);
            self.run.0 = sent_ns;
        }
        self.run.1 += 1;
    }

    #[inline]
    fn deliver(&mut self, number: u32, now: u64) {
        if let Some(sent_ns) = self.ring.deliver(number)
            && sent_ns >= self.count_from_ns
            && sent_ns < self.count_to_ns
        {
            self.last.record(now.saturating_sub(sent_ns), 1);
        }
    }

    fn note_late(&mut self, due_ns: u64, now: u64) {
        if due_ns >= self.count_from_ns && due_ns < self.count_to_ns {
            self.late.record(now - due_ns, 1);
        }
    }

    fn end_run(&mut self, now: u64) {
        let (sent_ns, count) = std::mem::take(&mut self.run);
        if count > 0 {
            self.last_message_ns = now;
        }
        if count > 0 && sent_ns >= self.count_from_ns && sent_ns < self.count_to_ns {
            self.receipt.record(now.saturating_sub(sent_ns), count);
        }
    }

    /// Handles a frame without a stamp: an answer, a heartbeat, or an error.
    #[cold]
    fn odd_frame(&mut self, net: &mut Net, id: usize, payload: &[u8], now: u64) {
        if is_heartbeat(net, id, payload) {
            return;
        }
        if let Some(waiting) = id.checked_sub(self.subscribers.len()).and_then(|at| self.pingers.get_mut(at)) {
            if let Some(due) = waiting.pop_front()
                && due >= self.count_from_ns
                && due < self.count_to_ns
            {
                self.ping.record(now.saturating_sub(due), 1);
            }
            return;
        }
        let mark = self.worker.plan.target.dialect(id).subscribed.as_deref().unwrap_or_default();
        let contains = |mark: &[u8]| memchr::memmem::find(payload, mark).is_some();
        if contains(b"error") {
            self.tally.note(format!("the server said {}", String::from_utf8_lossy(&payload[..payload.len().min(200)])));
            self.settled += usize::from(!self.subscribers[id].is_live);
        } else if !self.subscribers[id].is_live && contains(mark.as_bytes()) {
            self.subscribed(id);
        }
    }

    fn subscribed(&mut self, id: usize) {
        let subscriber = &mut self.subscribers[id];
        subscriber.awaited -= 1;
        if subscriber.awaited == 0 {
            (subscriber.is_live, subscriber.was_live) = (true, true);
            self.settled += 1;
        }
    }

    fn verify(&mut self, id: usize, number: u32, payload: &[u8]) {
        let is_quoted = self.worker.plan.target.is_quoted(id);
        let channel = format!("c{}", self.worker.plan.first_channel + number % self.stride);
        let is_right = serde_json::from_slice::<serde_json::Value>(payload).is_ok_and(|message| {
            let text = message["data"].as_str().unwrap_or_default();
            let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            let data = if is_quoted { inner } else { Some(text) };
            let is_padded = |data: &str| data.bytes().skip(stamp::LEN).all(|byte| byte == b'x');
            message["channel"] == channel.as_str() && data.is_some_and(is_padded)
        });
        self.tally.invalid += u64::from(!is_right);
    }

    fn is_drained(&self, now: u64, over_ns: u64, pace: &Pace) -> bool {
        let silent_ns = now - self.last_message_ns.max(over_ns);
        let all_here = self.publisher.as_ref().is_some_and(|publisher| {
            publisher.is_done(pace.published)
                && (pace.is_answered || self.ring.front() >= pace.published)
                && self.worker.plan.workers() == 1
        });
        let pinged = self.pingers.iter().all(VecDeque::is_empty);
        (all_here && pinged) || silent_ns > SILENCE_NS || now - over_ns > DRAIN_NS
    }

    fn finish(self, net: &Net, window: &Window, pace: &Pace) -> Tally {
        let mut tally = conclude(self.tally, net, window);
        if pace.is_answered {
            tally.events = tally.publishes;
        }
        for subscriber in self.subscribers.iter().filter(|subscriber| subscriber.was_live) {
            for track in subscriber.tracks() {
                *tally.awaited.entry(track.next()).or_default() += 1;
            }
        }
        tally.stride = self.stride;
        tally.published = pace.published;
        tally.unanswered += self.pingers.iter().map(|waiting| waiting.len() as u64).sum::<u64>();
        tally.add_faults(self.faults);
        if !self.is_ordered {
            tally.reordered = 0;
        }
        if let (Some(publisher), Some(rate)) = (&self.publisher, pace.rate) {
            let seconds = tally.window_ns.first().map_or(0.0, |&ns| ns as f64 / 1e9);
            tally.owed = (rate * seconds) as u64;
            if publisher.pending() > 0 {
                tally.note("the server stopped reading publishes");
            }
        }
        if let Some(publisher) = &self.publisher {
            publisher.conclude(pace.published, &mut tally);
        }
        for (name, latency) in
            [("receipt", self.receipt), ("last", self.last), ("ping", self.ping), ("late", self.late)]
        {
            if latency.count() > 0 {
                tally.latencies.insert(name.into(), latency);
            }
        }
        tally
    }
}

impl Handler for Flooded<'_> {
    fn opened(&mut self, net: &mut Net, id: usize, _connect_ns: u64) {
        let dialect = self.worker.plan.target.dialect(id);
        match (self.subscribers.get(id), &dialect.subscribe) {
            (Some(subscriber), Some(subscribe)) => {
                let mut frames = Vec::new();
                for channel in subscriber.channels(self.stride) {
                    dialect.push(&mut frames, subscribe, self.worker.plan.first_channel + channel, 1);
                }
                net.send(id, &frames);
            }
            (Some(_), None) => self.subscribed(id),
            (None, _) => self.settled += 1,
        }
    }

    #[inline]
    fn frame(&mut self, net: &mut Net, id: usize, payload: &[u8], now: u64) {
        if self.worker.plan.target.dialect.packed {
            let mut count = 0;
            stamp::all(payload, |number, sent_ns| {
                self.message(id, number, sent_ns, now);
                count += 1;
            });
            if count == 0 {
                self.odd_frame(net, id, payload, now);
            }
            return;
        }
        match self.reader.read(payload) {
            Some((number, sent_ns)) if id < self.subscribers.len() => {
                if self.worker.plan.verify {
                    self.verify(id, number, payload);
                }
                self.message(id, number, sent_ns, now);
            }
            _ => self.odd_frame(net, id, payload, now),
        }
    }

    fn read_done(&mut self, _net: &mut Net, _id: usize, now: u64) {
        self.end_run(now);
        if self.worker.plan.workers() > 1 && self.ring.take_front_moved() {
            self.worker.advance_front(self.ring.front());
        }
    }

    fn closed(&mut self, _net: &mut Net, id: usize, why: Ended) {
        note_ended(&mut self.tally, &why);
        match self.subscribers.get_mut(id) {
            Some(subscriber) if subscriber.is_live => {
                subscriber.is_live = false;
                self.settled -= 1;
                for (channel, track) in subscriber.channels(self.stride).zip(subscriber.tracks()) {
                    self.ring.unsubscribe(channel, track.next());
                }
                if self.ring.take_front_moved() {
                    self.worker.advance_front(self.ring.front());
                }
            }
            Some(_) => {}
            None => {
                if let Some(waiting) = self.pingers.get_mut(id - self.subscribers.len()) {
                    self.tally.unanswered += waiting.len() as u64;
                    waiting.clear();
                }
            }
        }
    }

    fn other(&mut self, _net: &mut Net, token: Token) {
        if let Some(publisher) = &mut self.publisher
            && token >= PUBLISHER
        {
            publisher.read_answers(token.0 - PUBLISHER.0);
        }
        self.is_rung |= token == TIMER;
    }
}

const TIMER: Token = Token(TOKEN_MIN);
const WAKER: Token = Token(TOKEN_MIN + 1);
/// The first of the publisher's tokens.
const PUBLISHER: Token = Token(TOKEN_MIN + 2);
/// Limit of messages in flight in an open loop: 13 s at 20 000 per second.
const RING_OPEN: u32 = 1 << 18;
