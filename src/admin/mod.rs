//! The local admin socket: lines in, lines out (PROTOCOL.md, The admin socket). [`Session`] is pure; the shard moves its
//! bytes. [`client`] is the other end, for the command line.

pub mod client;
mod event_lines;
pub mod reply;
pub mod request;
mod streaming;
mod tail;

use crate::hub::mail::{Answer, Asker, ConnKey, Operation, Question, Settled, ShardId};
use crate::hub::message::Message;
use crate::hub::survey::{Best, BusyAddress, BusyChannel, By};
use crate::hub::{Hub, Port};
use crate::metrics::Stats;
use crate::protocol::channel::{Channel, ChannelName};
use crate::protocol::socket_id::SocketId;
use request::{Command, Parser, Publish, Refusal};
use std::borrow::Cow;
use std::collections::VecDeque;
use streaming::Stream;

/// Unsettled publishes that a session may have; beyond it the session is not read.
pub const WINDOW_PUBLISHES: usize = 1024;
/// Bytes of them.
pub const WINDOW_BYTES: usize = 1024 * 1024;
/// Unread replies that a session may have; beyond it the session is not read.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;

/// One admin connection: its replies in request order.
pub struct Session {
    name: Asker,
    /// The other end is in this process, which has limits of its own on what it sends.
    pub is_own: bool,
    /// Replies to be written, whole lines.
    pub output: Vec<u8>,
    /// Requests whose reply waits, oldest first; the first one is not ready.
    waiting: VecDeque<Waiting>,
    /// Number of the oldest one.
    first: u64,
    unsettled: usize,
    unsettled_bytes: usize,
    waiting_bytes: usize,
    /// Lists and stats that wait for a shard, whose replies are large and of a size that is not known yet; operations on the
    /// whole server.
    walks: usize,
    /// What it has become for good, by its last request.
    stream: Option<Stream>,
}

struct Waiting {
    id: Box<str>,
    state: State,
}

enum State {
    /// The line, for when its turn comes.
    Ready(Vec<u8>),
    Publish {
        parts: u32,
        subscribers: i64,
        bytes: usize,
    },
    /// Asked of one shard, which answers for all.
    One {
        question: Asked,
    },
    /// Walks the shards until the page is full.
    Page(Page),
    /// Asked of all shards.
    Stats {
        shards: Vec<Option<Stats>>,
    },
    /// The last reply, before the lines of a stream.
    Stream,
    /// Asked of all shards, of which so many have not answered.
    Busiest {
        missing: usize,
        channels: Best<BusyChannel>,
        addresses: Best<BusyAddress>,
    },
}

impl State {
    /// Whether the reply takes a walk through a shard's tables, and can be hundreds of kilobytes, or concerns the whole server.
    fn is_walk(&self) -> bool {
        matches!(
            self,
            State::Page(_) | State::Stats { .. } | State::Busiest { .. } | State::One { question: Asked::Operation }
        )
    }
}

#[derive(Clone)]
enum Asked {
    Channel(ChannelName),
    Connection,
    Disconnect,
    Unsubscribe,
    Operation,
}

struct Page {
    of: Paged,
    limit: usize,
    shard: ShardId,
    items: Vec<u8>,
    count: usize,
}

enum Paged {
    Channels { prefix: Box<str> },
    Connections,
}

impl Session {
    /// A session of shard `shard`, in slot `session`.
    pub fn new(shard: ShardId, session: u32, generation: u32) -> Session {
        Session {
            name: Asker { shard, session, generation, request: 0 },
            is_own: false,
            output: Vec::new(),
            waiting: VecDeque::new(),
            first: 0,
            unsettled: 0,
            unsettled_bytes: 0,
            waiting_bytes: 0,
            walks: 0,
            stream: None,
        }
    }

    /// Whether an answer is for this session, and not for an earlier one of its slot.
    pub fn is(&self, asker: Asker) -> bool {
        self.name.generation == asker.generation
    }

    /// Whether the session may be read: neither its window nor its replies, those to come included, are over their limit.
    pub fn may_read(&self) -> bool {
        if let Some(stream) = &self.stream {
            // What it says is of no interest, but its end is.
            return stream.has_begun();
        }
        self.unsettled < WINDOW_PUBLISHES
            && self.unsettled_bytes < WINDOW_BYTES
            && self.waiting.len() < WAITING_MAX
            && self.walks < WALKS_MAX
            && self.output.len() + self.waiting_bytes < REPLY_BYTES_MAX
    }

    /// Publishes that are not settled.
    pub fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// Whether no request waits for its reply.
    pub fn is_answered(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Does what one line asks.
    pub fn line(&mut self, line: &[u8], parser: &mut Parser, hub: &mut Hub, shards: usize, port: &mut impl Port) {
        hub.counters.admin_requests += 1;
        let request = parser.request(line);
        let id = request.id;
        let refusal = match request.command {
            Ok(Command::Publish(publish)) => return self.publish(id, publish, hub, port),
            Ok(Command::Ping) => return self.say(id, |out| reply::done(out, id)),
            Ok(Command::Stats) => return self.stats(id, hub, shards, port),
            Ok(Command::Events { since, epoch }) => return self.follow(id, since, epoch, hub, port),
            Ok(Command::Busiest { by, limit }) => {
                return self.busiest(id, by, limit.unwrap_or(BUSIEST_DEFAULT), hub, shards, port);
            }
            Ok(Command::Tail(filter)) => return self.watch(id, filter, shards, hub, port),
            Ok(Command::Channels { prefix, limit, after }) => {
                let of = Paged::Channels { prefix: prefix.into() };
                self.page(id, of, limit, after, shards, hub, port)
            }
            Ok(Command::Connections { limit, after }) => {
                self.page(id, Paged::Connections, limit, after, shards, hub, port)
            }
            Ok(command) => self.ask_one(id, command, hub, port),
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = refusal {
            hub.counters.admin_errors += 1;
            self.say(id, |out| reply::refused(out, id, &refusal));
        }
    }

    /// A line was longer than the limit: the last thing said before the connection is closed.
    pub fn line_too_long(&mut self, limit: usize, hub: &mut Hub) {
        hub.counters.admin_requests += 1;
        hub.counters.admin_errors += 1;
        self.say("null", |out| reply::refused(out, "null", &Refusal::TooLarge { what: "bytes of line", limit }));
    }

    fn publish(&mut self, id: &str, publish: Publish<'_>, hub: &mut Hub, port: &mut impl Port) {
        let Publish { channels, event, data, exclude } = publish;
        let exclude = exclude.and_then(|id| hub.key_of(id));
        let parts = channels.len() as u32 * if exclude.is_some() { 2 } else { 1 };
        let bytes = (event.len() + data.map_or(0, str::len) + OVERHEAD_BYTES) * channels.len();
        let asker = self.asker();
        let channels = channels.iter().filter_map(|name| Channel::parse(name));
        let settled = hub.publish(channels, Message { event, data }, exclude, asker, port);
        if self.waiting.is_empty() && settled.parts == parts {
            return reply::published(&mut self.output, id, settled.subscribers as u64);
        }
        self.wait(id, State::Publish { parts, subscribers: 0, bytes });
        self.settle(asker, settled);
    }

    fn ask_one(&mut self, id: &str, command: Command<'_>, hub: &mut Hub, port: &mut impl Port) -> Result<(), Refusal> {
        let (of, asked, question) = match command {
            Command::Channel { channel } => {
                let channel = legal(&channel)?;
                let hash = hub.hash(channel);
                let name = ChannelName::from(channel);
                (hub.owner(hash), Asked::Channel(name.clone()), Question::Channel { channel: name, hash })
            }
            Command::Connection { socket_id } => {
                let member = known(hub, socket_id)?;
                (member.shard, Asked::Connection, Question::Connection { member })
            }
            Command::Disconnect { socket_id, code, reason } => {
                let member = known(hub, socket_id)?;
                (member.shard, Asked::Disconnect, Question::Disconnect { member, code, reason: reason.into() })
            }
            Command::Unsubscribe { socket_id, channel } => {
                let channel = legal(&channel)?;
                let member = known(hub, socket_id)?;
                let hash = hub.hash(channel);
                let question = Question::Unsubscribe { member, channel: channel.into(), hash };
                (member.shard, Asked::Unsubscribe, question)
            }
            Command::Reload => self.operation(Operation::Reload),
            Command::Drain { over_ms } => self.operation(Operation::Drain { over_ms }),
            Command::Shed { share, over_ms } => self.operation(Operation::Shed { share, over_ms }),
            Command::Publish(_)
            | Command::Channels { .. }
            | Command::Connections { .. }
            | Command::Events { .. }
            | Command::Busiest { .. }
            | Command::Tail(_)
            | Command::Stats
            | Command::Ping => return Ok(()),
        };
        let asker = self.asker();
        self.wait(id, State::One { question: asked });
        hub.ask(of, asker, question, port);
        Ok(())
    }

    /// What this shard passes on.
    fn operation(&self, operation: Operation) -> (ShardId, Asked, Question) {
        (self.name.shard, Asked::Operation, Question::Operate(operation))
    }

    #[allow(clippy::too_many_arguments)]
    fn page(
        &mut self,
        id: &str,
        of: Paged,
        limit: Option<usize>,
        after: Option<Cow<'_, str>>,
        shards: usize,
        hub: &mut Hub,
        port: &mut impl Port,
    ) -> Result<(), Refusal> {
        let (shard, index) = match after {
            None => (0, 0),
            Some(after) => read_cursor(&after)
                .filter(|&(shard, _)| usize::from(shard) < shards)
                .ok_or(Refusal::MalformedRequest("after: not the next of an earlier reply"))?,
        };
        let page = Page { of, limit: limit.unwrap_or(PAGE_DEFAULT), shard, items: Vec::new(), count: 0 };
        let question = page.question(index);
        let asker = self.asker();
        self.wait(id, State::Page(page));
        hub.ask(shard, asker, question, port);
        Ok(())
    }

    fn stats(&mut self, id: &str, hub: &mut Hub, shards: usize, port: &mut impl Port) {
        let asker = self.asker();
        self.wait(id, State::Stats { shards: vec![None; shards] });
        for shard in 0..shards {
            hub.ask(shard as ShardId, asker, Question::Stats, port);
        }
    }

    fn busiest(&mut self, id: &str, by: By, limit: usize, hub: &mut Hub, shards: usize, port: &mut impl Port) {
        let asker = self.asker();
        let (channels, addresses) = (Best::new(limit), Best::new(limit));
        self.wait(id, State::Busiest { missing: shards, channels, addresses });
        for shard in 0..shards {
            hub.ask(shard as ShardId, asker, Question::Busiest { by, limit }, port);
        }
    }

    /// The connection ends: nobody is to work for it any more.
    pub fn leave(&mut self, hub: &mut Hub, shards: usize, port: &mut impl Port) {
        self.leave_stream(hub, port);
        if self.waiting.iter().any(|waiting| matches!(waiting.state, State::Busiest { .. })) {
            (0..shards).for_each(|shard| hub.ask(shard as ShardId, self.name, Question::Unsurvey, port));
        }
    }

    /// A part of a publish is settled. Never called while [`Session::line`] runs: the request is entered at its end.
    pub fn settle(&mut self, asker: Asker, settled: Settled) {
        let Some(waiting) = self.at(asker) else { return };
        let State::Publish { parts, subscribers, bytes } = &mut waiting.state else {
            return;
        };
        *parts -= settled.parts;
        *subscribers += settled.subscribers;
        if *parts > 0 {
            return;
        }
        let (subscribers, bytes) = ((*subscribers).max(0) as u64, *bytes);
        self.unsettled -= 1;
        self.unsettled_bytes -= bytes;
        self.finish(asker, |out, id| reply::published(out, id, subscribers));
    }

    /// A shard answered.
    pub fn answer(&mut self, asker: Asker, answer: Answer, hub: &mut Hub, shards: usize, port: &mut impl Port) {
        if self.stream.as_ref().is_some_and(|stream| stream.is(asker)) {
            return self.hear_stream(answer, hub, shards, port);
        }
        let Some(waiting) = self.at(asker) else { return };
        match (&mut waiting.state, answer) {
            (State::One { question }, answer) => {
                let question = question.clone();
                let is_refusal =
                    matches!(answer, Answer::NotFound | Answer::InvalidConfiguration(_) | Answer::GoingDown);
                hub.counters.admin_errors += u64::from(is_refusal);
                self.finish(asker, |out, id| answer_one(out, id, &question, &answer));
            }
            (State::Page(page), answer) => {
                let next = page.take(answer);
                let goes_on = match next {
                    Some(index) => Some((page.shard, index)),
                    None => (usize::from(page.shard) + 1 < shards).then(|| (page.shard + 1, 0)),
                };
                match goes_on {
                    // Also when the page is full: then with limit 0, to learn whether anything follows.
                    Some((shard, index)) if next.is_none() => {
                        page.shard = shard;
                        let question = page.question(index);
                        hub.ask(shard, asker, question, port);
                    }
                    goes_on => {
                        let (member, items) = (page.member(), std::mem::take(&mut page.items));
                        let cursor = goes_on.map(|(shard, index)| cursor(shard, index));
                        self.finish(asker, |out, id| reply::page(out, id, member, &items, cursor.as_deref()));
                    }
                }
            }
            (State::Stats { shards }, Answer::Stats { shard, stats }) => {
                shards[usize::from(shard)] = Some(*stats);
                if shards.iter().all(Option::is_some) {
                    let shards: Vec<Stats> = std::mem::take(shards).into_iter().flatten().collect();
                    self.finish(asker, |out, id| reply::stats(out, id, &shards));
                }
            }
            (
                State::Busiest { missing, channels, addresses },
                Answer::Busiest { channels: more, addresses: others },
            ) => {
                *missing -= 1;
                channels.add(*more);
                addresses.add(*others);
                if *missing == 0 {
                    let channels = std::mem::replace(channels, Best::new(0));
                    let addresses = std::mem::replace(addresses, Best::new(0));
                    self.finish(asker, |out, id| reply::busiest(out, id, channels, addresses));
                }
            }
            _ => {}
        }
    }

    fn asker(&self) -> Asker {
        Asker { request: self.first + self.waiting.len() as u64, ..self.name }
    }

    fn at(&mut self, asker: Asker) -> Option<&mut Waiting> {
        self.waiting.get_mut(asker.request.checked_sub(self.first)? as usize)
    }

    fn wait(&mut self, id: &str, state: State) {
        if let State::Publish { bytes, .. } = state {
            self.unsettled += 1;
            self.unsettled_bytes += bytes;
        }
        self.walks += usize::from(state.is_walk());
        self.waiting.push_back(Waiting { id: id.into(), state });
    }

    /// A reply that is ready: at once, or behind those that wait.
    fn say(&mut self, id: &str, write: impl FnOnce(&mut Vec<u8>)) {
        if self.waiting.is_empty() {
            return write(&mut self.output);
        }
        let mut line = Vec::new();
        write(&mut line);
        self.waiting_bytes += line.len();
        self.waiting.push_back(Waiting { id: id.into(), state: State::Ready(line) });
    }

    /// Fills a place, and lets out what no longer waits.
    fn finish(&mut self, asker: Asker, write: impl FnOnce(&mut Vec<u8>, &str)) {
        let Some(waiting) = self.at(asker) else { return };
        let mut line = Vec::new();
        write(&mut line, &waiting.id);
        let was_walk = std::mem::replace(&mut waiting.state, State::Ready(line)).is_walk();
        self.walks -= usize::from(was_walk);
        if let Some(Waiting { state: State::Ready(line), .. }) = self.at(asker) {
            self.waiting_bytes += line.len();
        }
        while let Some(Waiting { state: State::Ready(line), .. }) = self.waiting.front() {
            self.waiting_bytes -= line.len();
            self.output.extend_from_slice(line);
            self.waiting.pop_front();
            self.first += 1;
        }
    }
}

impl Page {
    fn question(&self, after: u32) -> Question {
        let limit = self.limit - self.count;
        match &self.of {
            Paged::Channels { prefix } => Question::Channels { prefix: prefix.clone(), limit, after },
            Paged::Connections => Question::Connections { limit, after },
        }
    }

    /// Adds a shard's items. Returns where that shard goes on.
    fn take(&mut self, answer: Answer) -> Option<u32> {
        match answer {
            Answer::Channels { channels, next } => {
                self.count += channels.len();
                for (name, subscribers) in &channels {
                    reply::channel_item(&mut self.items, name.as_channel(), *subscribers);
                }
                next
            }
            Answer::Connections { connections, next } => {
                self.count += connections.len();
                connections.iter().for_each(|connection| reply::connection_item(&mut self.items, connection));
                next
            }
            _ => None,
        }
    }

    fn member(&self) -> &'static str {
        match self.of {
            Paged::Channels { .. } => "channels",
            Paged::Connections => "connections",
        }
    }
}

fn answer_one(out: &mut Vec<u8>, id: &str, question: &Asked, answer: &Answer) {
    match (question, answer) {
        (Asked::Channel(name), Answer::Subscribers(subscribers)) => {
            reply::channel(out, id, name.as_channel(), *subscribers);
        }
        (_, Answer::Connection { connection, channels }) => reply::connection(out, id, connection, channels),
        (_, Answer::Done) => reply::done(out, id),
        (_, Answer::Reloaded(difference)) => reply::reloaded(out, id, difference),
        (_, Answer::Leaving { connections, over_ms }) => reply::leaving(out, id, *connections, *over_ms),
        (_, Answer::GoingDown) => reply::refused(out, id, &Refusal::GoingDown),
        (_, Answer::InvalidConfiguration(text)) => {
            reply::refused(out, id, &Refusal::InvalidConfiguration(text.clone()));
        }
        (Asked::Unsubscribe, _) => {
            reply::refused(out, id, &Refusal::NotFound("no such connection is subscribed to the channel"));
        }
        _ => reply::refused(out, id, &Refusal::NotFound(NO_CONNECTION)),
    }
}

fn legal<'a>(name: &'a str) -> Result<Channel<'a>, Refusal> {
    Channel::parse(name).ok_or(Refusal::InvalidChannel)
}

fn known(hub: &Hub, id: Option<SocketId>) -> Result<ConnKey, Refusal> {
    id.and_then(|id| hub.key_of(id)).ok_or(Refusal::NotFound(NO_CONNECTION))
}

/// Where a page goes on: opaque to the client.
fn cursor(shard: ShardId, index: u32) -> String {
    format!("{shard}.{index}")
}

fn read_cursor(text: &str) -> Option<(ShardId, u32)> {
    let (shard, index) = text.split_once('.')?;
    Some((shard.parse().ok()?, index.parse().ok()?))
}

const NO_CONNECTION: &str = "no such connection";
/// Items of a page where no limit is given.
const PAGE_DEFAULT: usize = 100;
/// Likewise, of the busiest.
const BUSIEST_DEFAULT: usize = 20;
/// Replies that may wait in order.
pub const WAITING_MAX: usize = 4096;
/// Bytes of one, without its line.
pub const WAITING_BYTES: usize = size_of::<Waiting>() + request::ID_BYTES_MAX;
/// Lists, stats and operations that may wait: of the longest, about [`REPLY_BYTES_MAX`].
const WALKS_MAX: usize = 4;
/// What a publish costs beside its event and data, roughly: names, counts, header.
const OVERHEAD_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::hub::addresses::Verdict;
    use crate::hub::directory::HELD_BACK_TICKS;
    use crate::hub::mail::{Arrival, Mail, Slot};
    use crate::hub::pages::{Chunk, Pages};
    use crate::hub::{Identity, Urgency};
    use crate::protocol::close::CloseReason;

    /// Keeps what is mailed, and what sessions are answered.
    #[derive(Default)]
    struct Letters(Vec<(ShardId, Mail)>, Vec<(Asker, Answer)>);

    impl Port for Letters {
        fn mail(&mut self, to: ShardId, mail: Mail) {
            self.0.push((to, mail));
        }
        fn mail_after(&mut self, _: &[ShardId], to: ShardId, mail: Mail) {
            self.0.push((to, mail));
        }
        fn lay(&mut self, _: &mut Pages, _: Slot, _: Chunk, _: Urgency) {}
        fn ask(&mut self, _: Asker, _: Question) {}
        fn answer(&mut self, asker: Asker, answer: Answer) {
            self.1.push((asker, answer));
        }
        fn settle(&mut self, _: Asker, _: Settled) {}
        fn admit(&mut self, _: Arrival, _: Verdict) {}
        fn close(&mut self, _: Slot, _: CloseReason) {}
    }

    #[test]
    fn what_was_seen_hours_ago_has_its_time() {
        const HOURS_MS: u64 = 3 * 3_600_000;
        let mut hub = Hub::new(Identity { shard: 0, shards: 1, seed: [1, 2, 3, 4] }, &[], Limits::default());
        let (mut letters, mut session) = (Letters::default(), Session::new(0, 0, 0));
        session.line(br#"{"command":"tail"}"#, &mut Parser::default(), &mut hub, 1, &mut letters);
        let mut look = |at_ms: u64, looks: bool| {
            hub.begin_turn(at_ms * 1000);
            hub.see_refuse(None, "why");
            if looks {
                session.stream_on(&mut hub, &mut letters);
            }
            hub.show(|| 1_764_100_000_000 + at_ms, &mut letters);
            for (asker, answer) in letters.1.split_off(0) {
                session.answer(asker, answer, &mut hub, 1, &mut letters);
            }
            String::from_utf8(session.output.split_off(0)).expect("text")
        };
        look(0, true);
        assert_eq!(look(1_000, false), "", "nothing more is read");
        let told = look(HOURS_MS, true);
        let times: Vec<&str> = told.lines().filter_map(|line| line.get(11..24)).collect();
        assert_eq!(times, ["1764100001000", "1764110800000"], "{told}");
    }

    #[test]
    fn channels_that_a_crowd_leaves_are_vacated_a_few_in_a_turn() {
        const CHANNELS: usize = 10_000;
        let limits = Limits { subscriptions_max: CHANNELS, ..Limits::default() };
        let mut hub = Hub::new(Identity { shard: 0, shards: 1, seed: [1, 2, 3, 4] }, &[], limits);
        let (mut letters, mut session) = (Letters::default(), Session::new(0, 0, 0));
        session.line(br#"{"command":"events"}"#, &mut Parser::default(), &mut hub, 1, &mut letters);
        hub.connect(0, None, &mut letters);
        for n in 0..CHANNELS {
            hub.hear(0, &format!(r#"{{"event":"socket:subscribe","data":{{"channel":"{n}"}}}}"#), &mut letters);
        }
        hub.disconnect(0, &CloseReason::ClientGone, &mut letters);
        hub.report(|| 0, &mut letters);
        hub.now += HELD_BACK_TICKS;
        let mut turn = || {
            assert_eq!(hub.vacates_in(), Some(0));
            let before = hub.counters.events;
            hub.report(|| 0, &mut letters);
            (hub.counters.events - before) as usize
        };
        assert_eq!([turn(), turn(), turn()], [4096, 4096, CHANNELS - 2 * 4096]);
        assert_eq!(hub.vacates_in(), None);
    }

    #[test]
    fn nobody_walks_for_a_session_that_is_gone() {
        let hub = |shard| Hub::new(Identity { shard, shards: 2, seed: [1, 2, 3, 4] }, &[], Limits::default());
        let (mut hubs, mut letters, mut parser) = ([hub(0), hub(1)], Letters::default(), Parser::default());
        let mut sessions = [0, 1].map(|slot| Session::new(0, slot, 1));
        for session in [0, 1, 0] {
            sessions[session].line(br#"{"command":"busiest"}"#, &mut parser, &mut hubs[0], 2, &mut letters);
        }
        let mut surveyed = |gone: &mut Session| {
            gone.leave(&mut hubs[0], 2, &mut letters);
            for (to, mail) in letters.0.drain(..) {
                hubs[usize::from(to)].receive(mail, &mut Letters::default());
            }
            [hubs[0].is_surveying(), hubs[1].is_surveying()]
        };
        assert_eq!(surveyed(&mut sessions[0]), [true; 2], "the other one waits");
        assert_eq!(surveyed(&mut sessions[1]), [false; 2]);
    }
}
