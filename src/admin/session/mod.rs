//! The core of an admin session: sends requests to the shards, and keeps replies in request order. Pure.
//!
//! A [`Codec`] reads requests and writes replies: JSON lines for a socket, typed values for a thread of this process.

pub mod codec;
mod publishing;
mod stream;
mod tail;

use crate::api::operation;
use crate::api::operation::Busiest;
use crate::api::refusal::NO_CONNECTION;
use crate::api::{Command, Refusal, Reply, Request, Route, Rows};
use crate::hub::mail::{Answer, Question};
use crate::hub::observe::best::{Best, BusyAddress, BusyChannel};
use crate::hub::observe::piece::Piece;
use crate::hub::{Hub, Port};
use crate::ids::{Asker, ConnKey, ShardId};
use crate::metrics::Stats;
use crate::protocol::channel::{Channel, ChannelName};
use crate::protocol::socket_id::SocketId;
use codec::Codec;
use publishing::Tally;
use std::collections::VecDeque;
use stream::Stream;

/// One admin session.
pub struct Session<C: Codec> {
    name: Asker,
    shards: usize,
    /// The peer is in this process and limits its own requests.
    is_own: bool,
    /// Replies that are ready to be sent.
    pub output: C::Output,
    /// Requests that wait for replies, oldest first. The reply to the first one is not ready.
    waiting: VecDeque<Waiting<C>>,
    /// Number of the oldest waiting request.
    first: u64,
    unsettled: usize,
    unsettled_bytes: usize,
    waiting_bytes: usize,
    /// Waiting requests for lists, numbers and operations: their replies can be large, and their size is not known yet.
    walks: usize,
    /// The stream that the last request started; it lasts until the session ends.
    stream: Option<Stream>,
}

struct Waiting<C: Codec> {
    /// `None`: a piece of a stream, which does not answer a request.
    tag: Option<C::Kept>,
    state: State<C::Output>,
}

enum State<Output> {
    /// Ready, and sent after the earlier replies.
    Ready(Output),
    Publish(Tally),
    /// One shard was asked.
    One,
    /// One shard was asked for a list that can be long.
    List,
    /// The supervisor was asked.
    Operation,
    /// Shards are asked one after another until the page is full.
    Page(Page),
    /// All shards were asked.
    Stats {
        shards: Vec<Option<Stats>>,
    },
    /// The last reply, which pieces of a stream follow.
    Stream,
    /// All shards were asked; `missing` of them have not answered.
    Busiest {
        missing: usize,
        channels: Best<BusyChannel>,
        addresses: Best<BusyAddress>,
    },
}

impl<Output> State<Output> {
    /// Whether the request walks a shard's tables, so that its reply can be hundreds of kilobytes, or concerns the
    /// whole server.
    fn is_walk(&self) -> bool {
        matches!(self, State::List | State::Page(_) | State::Stats { .. } | State::Busiest { .. } | State::Operation)
    }
}

struct Page {
    request: Request,
    limit: usize,
    shard: ShardId,
    rows: Option<Rows>,
}

impl<C: Codec> Session<C> {
    /// Session number `session` of shard `shard`, one of `shards`. `is_own`: the peer is in this process.
    pub fn new(shard: ShardId, shards: usize, session: u32, generation: u32, is_own: bool) -> Session<C> {
        Session {
            name: Asker { shard, session, generation, request: 0 },
            shards,
            is_own,
            output: C::Output::default(),
            waiting: VecDeque::new(),
            first: 0,
            unsettled: 0,
            unsettled_bytes: 0,
            waiting_bytes: 0,
            walks: 0,
            stream: None,
        }
    }

    /// Whether an answer is for this session and not for an earlier session with the same number.
    pub fn is(&self, asker: Asker) -> bool {
        self.name.generation == asker.generation
    }

    /// Whether the session may be read: its window has room, and its replies, including those to come, are below their limit.
    pub fn may_read(&self) -> bool {
        if let Some(stream) = &self.stream {
            // A stream ignores requests, but must notice the end of the peer.
            return stream.has_begun();
        }
        self.unsettled < WINDOW_PUBLISHES
            && self.unsettled_bytes < WINDOW_BYTES
            && self.waiting.len() < WAITING_MAX
            && self.walks < WALKS_MAX
            && C::bytes(&self.output) + self.waiting_bytes < REPLY_BYTES_MAX
    }

    /// Whether the peer is in this process.
    pub fn is_own(&self) -> bool {
        self.is_own
    }

    /// Number of publishes that are not settled.
    pub fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// Whether no request waits for a reply.
    pub fn is_answered(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Handles one request. Publishes are many and large: they are not moved.
    pub fn request(
        &mut self,
        tag: C::Tag<'_>,
        command: &Result<Command<'_>, Refusal>,
        hub: &mut Hub,
        port: &mut impl Port,
    ) {
        hub.counters.admin_requests += 1;
        let refused = match command {
            Ok(Command::Publish(publish)) => self.publish(tag, publish, hub, port),
            Ok(Command::Request(request)) => self.route(tag, request.clone(), hub, port),
            Err(refusal) => Err(refusal.clone()),
        };
        if let Err(refusal) = refused {
            hub.counters.admin_errors += 1;
            self.reply(tag, Err(refusal));
        }
    }

    fn route(&mut self, tag: C::Tag<'_>, request: Request, hub: &mut Hub, port: &mut impl Port) -> Result<(), Refusal> {
        let asker = self.asker();
        match request.route()? {
            Route::Here => self.reply(tag, Ok(Reply::Done {})),
            Route::Owner(channel) => {
                let channel = legal(channel)?;
                let hash = hub.hash(channel);
                let is_list = matches!(request, Request::History(_) | Request::Members(_));
                let question = Question::OfChannel { channel: channel.into(), hash, request };
                self.wait(tag, if is_list { State::List } else { State::One });
                hub.ask(hub.owner(hash), asker, question, port);
            }
            Route::Connection(socket_id) => {
                let member = member(hub, socket_id)?;
                self.wait(tag, State::One);
                hub.ask(member.shard, asker, Question::OfConnection { member, request }, port);
            }
            Route::User(id) => {
                let channel = ChannelName::of_user(id);
                let hash = hub.hash(channel.as_channel());
                self.wait(tag, State::One);
                hub.ask(hub.owner(hash), asker, Question::OfChannel { channel, hash, request }, port);
            }
            Route::Pages { limit, after } => {
                let (shard, index) = self.cursor(after)?;
                let page = Page { limit: limit.unwrap_or(PAGE_DEFAULT), request, shard, rows: None };
                let question = page.question(index);
                self.wait(tag, State::Page(page));
                hub.ask(shard, asker, question, port);
            }
            Route::Stats => {
                self.wait(tag, State::Stats { shards: vec![None; self.shards] });
                self.ask_all(asker, hub, port, || Question::Stats);
            }
            Route::Busiest(busiest) => self.busiest(tag, busiest, hub, port),
            Route::Events(events) => self.follow(tag, events, hub, port),
            Route::Tail(tail) => self.watch(tag, tail, hub, port)?,
            Route::Server(operation) => {
                self.wait(tag, State::Operation);
                hub.ask(self.name.shard, asker, Question::Operate(operation), port);
            }
        }
        Ok(())
    }

    fn busiest(&mut self, tag: C::Tag<'_>, busiest: &Busiest, hub: &mut Hub, port: &mut impl Port) {
        let (by, limit) = (busiest.by, busiest.limit.unwrap_or(BUSIEST_DEFAULT));
        let (channels, addresses) = (Best::new(limit), Best::new(limit));
        let asker = self.asker();
        self.wait(tag, State::Busiest { missing: self.shards, channels, addresses });
        self.ask_all(asker, hub, port, || Question::Busiest { by, limit });
    }

    fn ask_all(&self, asker: Asker, hub: &mut Hub, port: &mut impl Port, question: impl Fn() -> Question) {
        (0..self.shards).for_each(|shard| hub.ask(shard as ShardId, asker, question(), port));
    }

    /// Ends the session, and the work that shards do for it.
    pub fn leave(&mut self, hub: &mut Hub, port: &mut impl Port) {
        self.leave_stream(hub, port);
        if self.waiting.iter().any(|waiting| matches!(waiting.state, State::Busiest { .. })) {
            (0..self.shards).for_each(|shard| hub.ask(shard as ShardId, self.name, Question::Unsurvey, port));
        }
    }

    /// A shard answered.
    pub fn answer(&mut self, asker: Asker, answer: Answer, hub: &mut Hub, port: &mut impl Port) {
        if self.stream.as_ref().is_some_and(|stream| stream.is(asker)) {
            return self.take_stream_answer(answer, hub, port);
        }
        let shards = self.shards;
        let Some(waiting) = self.at(asker) else { return };
        match (&mut waiting.state, answer) {
            (State::One | State::List | State::Operation, Answer::Reply(reply)) => {
                hub.counters.admin_errors += u64::from(reply.is_err());
                self.finish(asker, reply);
            }
            (State::Page(page), Answer::Page { rows, next }) => match page.take(rows, next, shards) {
                Ok((shard, question)) => hub.ask(shard, asker, question, port),
                Err(reply) => self.finish(asker, Ok(reply)),
            },
            (State::Stats { shards }, Answer::Stats { shard, stats }) => {
                shards[usize::from(shard)] = Some(*stats);
                if shards.iter().all(Option::is_some) {
                    let shards: Vec<Stats> = std::mem::take(shards).into_iter().flatten().collect();
                    let mut stats = Box::<Stats>::default();
                    shards.iter().for_each(|each| stats.add(each));
                    self.finish(asker, Ok(Reply::Stats { stats, shards }));
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
                    self.finish(asker, Ok(ranked(channels, addresses)));
                }
            }
            _ => {}
        }
    }

    /// The asker of the next request.
    fn asker(&self) -> Asker {
        Asker { request: self.first + self.waiting.len() as u64, ..self.name }
    }

    fn at(&mut self, asker: Asker) -> Option<&mut Waiting<C>> {
        self.waiting.get_mut(asker.request.checked_sub(self.first)? as usize)
    }

    fn wait(&mut self, tag: C::Tag<'_>, state: State<C::Output>) {
        if let State::Publish(tally) = &state {
            self.unsettled += 1;
            self.unsettled_bytes += tally.bytes;
        }
        self.walks += usize::from(state.is_walk());
        self.waiting.push_back(Waiting { tag: Some(C::keep(tag)), state });
    }

    /// Sends a reply at once, or queues it behind waiting replies.
    fn reply(&mut self, tag: C::Tag<'_>, reply: Result<Reply, Refusal>) {
        self.push(|output| C::reply(output, tag, reply));
    }

    /// Queues a piece of a stream behind waiting replies.
    fn tell(&mut self, piece: Piece) {
        self.push(|output| C::tell(output, piece));
    }

    fn push(&mut self, write: impl FnOnce(&mut C::Output)) {
        if self.waiting.is_empty() {
            return write(&mut self.output);
        }
        let mut output = C::Output::default();
        write(&mut output);
        self.waiting_bytes += C::bytes(&output);
        self.waiting.push_back(Waiting { tag: None, state: State::Ready(output) });
    }

    /// Takes the reply to a waiting request. Releases every reply that no longer waits for an earlier one.
    fn finish(&mut self, asker: Asker, reply: Result<Reply, Refusal>) {
        let Some(waiting) = self.at(asker) else { return };
        let Some(tag) = waiting.tag.take() else { return };
        let mut output = C::Output::default();
        C::reply(&mut output, C::tag(&tag), reply);
        let bytes = C::bytes(&output);
        let was_walk = std::mem::replace(&mut waiting.state, State::Ready(output)).is_walk();
        self.walks -= usize::from(was_walk);
        self.waiting_bytes += bytes;
        while let Some(Waiting { state: State::Ready(output), .. }) = self.waiting.front_mut() {
            let output = std::mem::take(output);
            self.waiting_bytes -= C::bytes(&output);
            C::append(&mut self.output, output);
            self.waiting.pop_front();
            self.first += 1;
        }
    }

    /// The start of a page.
    fn cursor(&self, after: Option<&str>) -> Result<(ShardId, u32), Refusal> {
        let Some(after) = after else { return Ok((0, 0)) };
        let place = after.split_once('.').and_then(|(shard, index)| Some((shard.parse().ok()?, index.parse().ok()?)));
        place
            .filter(|&(shard, _): &(ShardId, u32)| usize::from(shard) < self.shards)
            .ok_or(Refusal::malformed("after must be the next of an earlier reply"))
    }
}

impl Page {
    fn question(&self, after: u32) -> Question {
        Question::Page { request: self.request.clone(), limit: self.limit - self.len(), after }
    }

    fn len(&self) -> usize {
        self.rows.as_ref().map_or(0, Rows::len)
    }

    /// Adds rows of a shard. Returns the next question, or the complete reply.
    fn take(&mut self, more: Rows, next: Option<u32>, shards: usize) -> Result<(ShardId, Question), Reply> {
        match &mut self.rows {
            Some(rows) => rows.append(more),
            None => self.rows = Some(more),
        }
        let goes_on = match next {
            Some(index) => Some((self.shard, index)),
            None => (usize::from(self.shard) + 1 < shards).then(|| (self.shard + 1, 0)),
        };
        match goes_on {
            // Also if the page is full: a question with limit 0 shows whether more rows follow.
            Some((shard, index)) if next.is_none() => {
                self.shard = shard;
                Ok((shard, self.question(index)))
            }
            goes_on => {
                // The peer must not interpret it.
                let next = goes_on.map(|(shard, index)| format!("{shard}.{index}"));
                self.rows.take().map_or(Err(Reply::Done {}), |rows| Err(Reply::Page { rows, next }))
            }
        }
    }
}

fn ranked(channels: Best<BusyChannel>, addresses: Best<BusyAddress>) -> Reply {
    let channel =
        |BusyChannel { channel, subscribers, messages }| operation::BusyChannel { channel, subscribers, messages };
    let address =
        |BusyAddress { address, connections }| operation::BusyAddress { address: address.to_string(), connections };
    Reply::Busiest {
        channels: channels.ranked(|busy| busy.channel.as_channel().as_str()).map(channel).collect(),
        addresses: addresses.ranked(|busy| &busy.address).map(address).collect(),
    }
}

fn legal(name: &str) -> Result<Channel<'_>, Refusal> {
    Channel::parse(name).ok_or(Refusal::InvalidChannel)
}

fn member(hub: &Hub, socket_id: &str) -> Result<ConnKey, Refusal> {
    SocketId::parse(socket_id).and_then(|id| hub.key_of(id)).ok_or(NO_CONNECTION)
}

/// Limit of unsettled publishes of a session. At the limit the session is not read.
pub const WINDOW_PUBLISHES: usize = 1024;
/// Limit of their bytes.
pub const WINDOW_BYTES: usize = 1024 * 1024;
/// Limit of the bytes of replies that are queued or not yet sent. At the limit the session is not read.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;
/// Limit of queued replies.
pub const WAITING_MAX: usize = 4096;
/// Memory of a queued reply, without its tag and content.
pub const fn waiting_bytes<C: Codec>() -> usize {
    size_of::<Waiting<C>>()
}

/// Limit of waiting lists, numbers and operations. The longest list takes about [`REPLY_BYTES_MAX`].
const WALKS_MAX: usize = 4;
/// Rows of a page if no limit is given.
const PAGE_DEFAULT: usize = 100;
/// Entries of each list of the busiest if no limit is given.
const BUSIEST_DEFAULT: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::lines::LineSession;
    use crate::admin::lines::reader::Parser;
    use crate::config::Limits;
    use crate::hub::admission::addresses::Verdict;
    use crate::hub::audience::pages::{Chunk, Pages};
    use crate::hub::channel::directory::HELD_BACK_TICKS;
    use crate::hub::mail::{Arrival, Mail, Settled};
    use crate::hub::{Identity, Urgency};
    use crate::ids::Slot;
    use crate::protocol::close::CloseReason;
    use crate::protocol::dialect::Dialect;

    /// Keeps letters, and answers to sessions.
    #[derive(Default)]
    struct Letters(Vec<(ShardId, Mail)>, Vec<(Asker, Answer)>);

    impl Port for Letters {
        fn mail(&mut self, to: ShardId, mail: Mail) {
            self.0.push((to, mail));
        }
        fn mail_after(&mut self, _: &[ShardId], to: ShardId, mail: Mail) {
            self.0.push((to, mail));
        }
        fn append(&mut self, _: &mut Pages, _: Slot, _: Chunk, _: Urgency) {}
        fn ask(&mut self, _: Asker, _: Question) {}
        fn answer_admin(&mut self, asker: Asker, answer: Answer) {
            self.1.push((asker, answer));
        }
        fn settle(&mut self, _: Asker, _: Settled) {}
        fn admit(&mut self, _: Arrival, _: Verdict) {}
        fn close(&mut self, _: Slot, _: CloseReason) {}
    }

    #[test]
    fn a_sighting_of_hours_ago_keeps_its_time() {
        const HOURS_MS: u64 = 3 * 3_600_000;
        let mut hub = Hub::new(Identity { shard: 0, shards: 1, seed: [1, 2, 3, 4] }, &[], Limits::default());
        let (mut letters, mut session) = (Letters::default(), LineSession::new(0, 1, 0, 0, false));
        session.line(br#"{"command":"tail"}"#, &mut Parser::default(), &mut hub, &mut letters);
        let mut look = |at_ms: u64, looks: bool| {
            hub.begin_turn(at_ms * 1000);
            hub.see_refuse(None, "why");
            if looks {
                session.stream_on(&mut hub, &mut letters);
            }
            hub.show(|| 1_764_100_000_000 + at_ms, &mut letters);
            for (asker, answer) in letters.1.split_off(0) {
                session.answer(asker, answer, &mut hub, &mut letters);
            }
            String::from_utf8(session.output.split_off(0)).expect("text")
        };
        look(0, true);
        assert_eq!(look(1_000, false), "", "no further question is sent");
        let told = look(HOURS_MS, true);
        let times: Vec<&str> = told.lines().filter_map(|line| line.get(11..24)).collect();
        assert_eq!(times, ["1764100001000", "1764110800000"], "{told}");
    }

    #[test]
    fn channels_that_empty_at_once_are_vacated_some_in_each_turn() {
        const CHANNELS: usize = 10_000;
        let limits = Limits { subscriptions_max: CHANNELS, ..Limits::default() };
        let mut hub = Hub::new(Identity { shard: 0, shards: 1, seed: [1, 2, 3, 4] }, &[], limits);
        let (mut letters, mut session) = (Letters::default(), LineSession::new(0, 1, 0, 0, false));
        session.line(br#"{"command":"events"}"#, &mut Parser::default(), &mut hub, &mut letters);
        hub.connect(0, Dialect::Native, None, &mut letters);
        for n in 0..CHANNELS {
            hub.handle(0, &format!(r#"{{"event":"socket:subscribe","data":{{"channel":"{n}"}}}}"#), &mut letters);
        }
        hub.set_departures_per_turn(CHANNELS);
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
    fn surveys_of_a_session_end_with_it() {
        let hub = |shard| Hub::new(Identity { shard, shards: 2, seed: [1, 2, 3, 4] }, &[], Limits::default());
        let (mut hubs, mut letters, mut parser) = ([hub(0), hub(1)], Letters::default(), Parser::default());
        let mut sessions = [0, 1].map(|slot| LineSession::new(0, 2, slot, 1, false));
        for session in [0, 1, 0] {
            sessions[session].line(br#"{"command":"busiest"}"#, &mut parser, &mut hubs[0], &mut letters);
        }
        let mut surveyed = |gone: &mut LineSession| {
            gone.leave(&mut hubs[0], &mut letters);
            for (to, mail) in letters.0.drain(..) {
                hubs[usize::from(to)].receive(mail, &mut Letters::default());
            }
            [hubs[0].is_surveying(), hubs[1].is_surveying()]
        };
        assert_eq!(surveyed(&mut sessions[0]), [true; 2], "the other session waits");
        assert_eq!(surveyed(&mut sessions[1]), [false; 2]);
    }
}
