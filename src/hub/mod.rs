//! Who hears what: the state machine of one shard's share of publish/subscribe. Pure: what happens goes in, effects come
//! out through [`Port`], and a whole cluster of hubs runs inside one test.
//!
//! A hub plays two parts. For its own connections it keeps the memberships ([`subscribers`], [`member`]) and lays what
//! they are sent into the turn's pages ([`pages`]). For the channels that it owns it counts members and gives every
//! publish its place ([`directory`]). The parts talk by [`Mail`], also when both are this hub.
//!
//! This file has the hub's state, the requests and the mail that it opens; what follows from them is in `membership.rs`,
//! `delivery.rs`, `replies.rs`, `telling.rs` and `watching.rs`.

pub mod addresses;
pub mod bucket;
mod delivery;
pub mod directory;
pub mod follower;
pub mod identity;
pub mod journal;
pub mod mail;
pub mod member;
mod membership;
pub mod message;
pub mod outgoing;
pub mod pages;
pub mod places;
mod replies;
pub mod reports;
pub mod subscribers;
pub mod survey;
pub mod taps;
mod telling;
pub mod watching;

#[cfg(any(test, fuzzing))]
pub mod simulation;

use crate::api::refusal::NO_SUBSCRIPTION;
use crate::api::reply::ChannelCount;
use crate::api::request::Unsubscribe;
use crate::api::{Reply, Request, Rows};
use crate::config::{Key, Limits, Live};
use crate::metrics::Counters;
use crate::protocol::auth::KeyRing;
use crate::protocol::channel::{Channel, ChannelName};
use crate::protocol::close::CloseReason;
use crate::protocol::command::{Command, Parser, Unreadable};
use crate::protocol::event::{self, ErrorCode};
use crate::protocol::socket_id::SocketId;
use addresses::{Address, Addresses, Verdict};
use ahash::RandomState;
use delivery::Publication;
use directory::{Directory, total};
use identity::Identities;
use journal::Journal;
use mail::{Answer, Arrival, Asker, Cause, ConnKey, Fence, Mail, Membership, Question, Settled};
use mail::{ShardId, Slot};
use member::{Member, NOT_LIVE, Subscription};
use pages::{Chunk, Pages};
use reports::{Happening, Reports};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::net::SocketAddr;
use subscribers::Subscribers;
use survey::Survey;
use taps::Taps;

/// What a hub asks of the shard around it.
pub trait Port {
    /// `chunk` is next on the wire of a connection. Whoever keeps it holds its page.
    fn lay(&mut self, pages: &mut Pages, slot: Slot, chunk: Chunk, urgency: Urgency);
    /// Sends a letter to another shard.
    fn mail(&mut self, to: ShardId, mail: Mail);
    /// Sends a letter, to any shard, once all that was sent before to each shard of `after` has been taken by its inbox.
    fn mail_after(&mut self, after: &[ShardId], to: ShardId, mail: Mail);
    /// A question that only the owner of sockets can answer.
    fn ask(&mut self, asker: Asker, question: Question);
    /// An answer for an admin session of this shard.
    fn answer(&mut self, asker: Asker, answer: Answer);
    /// A part of a publish of an admin session of this shard is settled.
    fn settle(&mut self, asker: Asker, settled: Settled);
    /// The owner of the address of a connection that arrived has decided.
    fn admit(&mut self, arrival: Arrival, verdict: Verdict);
    /// Where a connection comes from, for those who watch.
    fn address(&self, _slot: Slot) -> Option<SocketAddr> {
        None
    }
    /// The connection broke a limit. Can be said again before [`Hub::disconnect`] is called, and within that call.
    fn close(&mut self, slot: Slot, reason: CloseReason);
}

/// Whether output goes before bulk when there is more than one turn can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Replies, heartbeats, and messages of channels with few subscribers here.
    Soon,
    /// Messages of channels with many.
    Bulk,
}

/// What a text message means to the shard's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// `socket:pong`: answers the server's ping.
    Pong,
    /// Anything else.
    Other,
}

/// Bytes of messages laid out since [`Hub::end_turn`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Laid {
    /// Each message once: what one subscriber may get of them.
    pub bytes: usize,
    /// Each message as often as it is delivered here: what there is to write.
    pub fan_out_bytes: usize,
    /// Of them those of channels with many subscribers: what [`Urgency::Bulk`] is.
    pub bulk_bytes: usize,
    /// How long before this turn the oldest of them was read from its publisher, microseconds.
    pub age_us: u32,
}

impl Laid {
    /// Adds another turn's.
    pub fn add(&mut self, other: Laid) {
        self.bytes += other.bytes;
        self.fan_out_bytes += other.fan_out_bytes;
        self.bulk_bytes += other.bulk_bytes;
        self.age_us = self.age_us.max(other.age_us);
    }

    /// A message was read from its publisher then. By another shard that can be later than the turn which lays it out began:
    /// mail is opened in the middle of a turn.
    fn read_at(&mut self, read_us: u32, turn_us: u32) {
        self.age_us = self.age_us.max(bucket::ticks_between(read_us, turn_us));
    }
}

/// What makes one hub different from another, and what all of a process share.
pub struct Identity {
    /// This shard.
    pub shard: ShardId,
    /// How many there are.
    pub shards: usize,
    /// The same for all shards of a process: places channels and keys socket ids.
    pub seed: [u64; 4],
}

/// One shard's share of publish/subscribe.
pub struct Hub {
    shard: ShardId,
    shards: usize,
    hasher: RandomState,
    identities: Identities,
    /// Bytes that connections are sent.
    pub pages: Pages,
    members: Vec<Member>,
    subscribers: Subscribers,
    directory: Directory,
    addresses: Addresses,
    /// What this shard has to tell the journal.
    reports: Reports,
    taps: Taps,
    /// Of [`journal::JOURNAL`] only.
    journal: Journal,
    /// Walks for the busiest of both, oldest first. Bounded by what the admin sessions that there are may ask at once.
    surveys: VecDeque<Survey>,
    /// Letters from this hub to itself.
    own_mail: VecDeque<Mail>,
    /// What the turn has laid out so far; the shard's budget.
    pub laid: Laid,
    /// The clock of the turn: microseconds, wrapping. Every message carries that of the turn in which it was read from its
    /// publisher.
    turn_us: u32,
    /// The same for those who watch, who may look hours later: it does not wrap.
    clock_us: u64,
    /// The turn's tick, as the shard says it.
    pub now: u32,
    /// Replies `subscribed` that are ready and held back. While there is none, delivery skips the look.
    holding: usize,
    fences: [usize; 3],
    parser: Parser,
    /// What payloads are put together in.
    scratch: String,
    keys: KeyRing,
    limits: Limits,
    /// What this shard counted.
    pub counters: Counters,
}

impl Hub {
    /// An empty hub.
    pub fn new(identity: Identity, keys: &[Key], limits: Limits) -> Hub {
        let Identity { shard, shards, seed } = identity;
        let [a, b, c, d] = identity::derived(seed, "hash tables");
        let hasher = RandomState::with_seeds(a, b, c, d);
        Hub {
            shard,
            shards,
            addresses: Addresses::new(hasher.clone()),
            reports: Reports::default(),
            taps: Taps::default(),
            journal: Journal::new(hasher.hash_one("epoch")),
            hasher,
            identities: Identities::new(seed),
            pages: Pages::default(),
            members: Vec::new(),
            subscribers: Subscribers::default(),
            directory: Directory::default(),
            surveys: VecDeque::new(),
            own_mail: VecDeque::new(),
            laid: Laid::default(),
            turn_us: 0,
            clock_us: 0,
            now: 0,
            holding: 0,
            fences: [0; 3],
            parser: Parser::default(),
            scratch: String::new(),
            keys: KeyRing::new(keys),
            limits,
            counters: Counters::default(),
        }
    }

    /// Holds to new settings. What connections have already stays theirs, also beyond a lower limit or without their key.
    pub fn apply(&mut self, live: &Live) {
        self.limits = live.limits.clone();
        self.keys = KeyRing::new(&live.keys);
    }

    // ---- connections of this shard

    /// A connection is open: it may be spoken to, first with `socket:connected`. `address`: for consumers of events,
    /// where there are any ([`Hub::is_listened_to`]).
    pub fn connect(&mut self, slot: Slot, address: Option<SocketAddr>, port: &mut impl Port) {
        let at = slot as usize;
        if at >= self.members.len() {
            self.members.resize_with(at + 1, Member::default);
        }
        self.members[at].is_live = true;
        let id = self.socket_id(slot);
        if self.reports.is_listening {
            self.reports.push(Happening::Connected { socket_id: id, address });
        }
        if self.taps.is_open() {
            self.see_connect(id, address);
        }
        let (interval, timeout) = (self.limits.heart_interval_s, self.limits.heart_timeout_s);
        self.say_now(slot, port, |out| event::connected(out, id, interval, timeout));
    }

    /// The connection is over, or is to hear nothing more than what it has been sent so far.
    pub fn disconnect(&mut self, slot: Slot, reason: &CloseReason, port: &mut impl Port) {
        let Some(key) = self.live_key(slot) else { return };
        if self.reports.is_listening {
            self.reports.push(Happening::disconnected(self.socket_id(slot), reason));
        }
        while let Some(&Subscription { local, position, is_wanted, .. }) =
            self.members[slot as usize].subscriptions.last()
        {
            if position != NOT_LIVE {
                self.remove_live(slot, local, port);
            }
            if is_wanted {
                let entry = self.subscribers.get(local);
                let (channel, hash) = (entry.name.clone(), entry.hash);
                let membership = Membership { member: key, local, cause: Cause::Left };
                self.post(self.owner(hash), Mail::Unsubscribe { channel, hash, membership }, port);
            }
            self.members[slot as usize].subscriptions.pop();
            self.lose_interest(local);
        }
        let member = &mut self.members[slot as usize];
        if let Some(replies) = member.replies.take() {
            self.holding -= replies.held_count();
        }
        member.subscriptions = SmallVec::new();
        member.is_live = false;
        member.generation = (member.generation + 1) & ((1 << identity::GENERATION_BITS) - 1);
        self.settle_own(port);
    }

    /// Answers a `socket:ping`; `id` is raw JSON.
    pub fn answer_ping(&mut self, slot: Slot, id: &[u8], port: &mut impl Port) {
        self.counters.pings_answered += 1;
        self.say(slot, port, |out| event::pong(out, id));
    }

    /// A text message came in.
    pub fn hear(&mut self, slot: Slot, text: &str, port: &mut impl Port) -> Heard {
        let mut heard = Heard::Other;
        match self.parser.command(text) {
            Ok(Command::Ping { id }) => self.answer_ping(slot, id.as_bytes(), port),
            Ok(Command::Pong) => heard = Heard::Pong,
            Ok(Command::Subscribe { channel, auth, channel_data }) => {
                let subscribed = self.subscribe(slot, &channel, &auth, &channel_data, port);
                if self.taps.is_open() {
                    self.see_subscribe(slot, &channel.value, subscribed.err(), port);
                }
                if let Err(code) = subscribed {
                    self.counters.requests_refused += 1;
                    self.say(slot, port, |out| event::subscribe_error(out, channel.raw, code));
                }
            }
            Ok(Command::Unsubscribe { channel }) => {
                let unsubscribed = self.unsubscribe(slot, &channel, port);
                if self.taps.is_open() {
                    self.see_unsubscribe(slot, &channel.value, unsubscribed.err(), port);
                }
                if let Err(code) = unsubscribed {
                    self.counters.requests_refused += 1;
                    self.say(slot, port, |out| event::unsubscribe_error(out, channel.raw, code));
                }
            }
            Err(unreadable) => {
                self.counters.requests_refused += 1;
                let code = match unreadable {
                    Unreadable::Malformed(what) => ErrorCode::MalformedMessage(what),
                    Unreadable::UnknownEvent => ErrorCode::UnknownEvent,
                };
                self.say(slot, port, |out| event::error(out, code));
            }
        }
        self.settle_own(port);
        heard
    }

    /// A text message came in that is one too many: its reply is a refusal, and nothing else changes.
    #[cold]
    pub fn refuse(&mut self, slot: Slot, text: &str, port: &mut impl Port) -> Heard {
        let code = ErrorCode::RateLimited;
        if self.taps.is_open() {
            self.see_limit(slot, port);
        }
        match self.parser.command(text) {
            Ok(Command::Pong) => return Heard::Pong,
            Ok(Command::Subscribe { channel, .. }) => {
                self.say(slot, port, |out| event::subscribe_error(out, channel.raw, code));
            }
            Ok(Command::Unsubscribe { channel }) => {
                self.say(slot, port, |out| event::unsubscribe_error(out, channel.raw, code));
            }
            Ok(Command::Ping { .. }) | Err(_) => self.say(slot, port, |out| event::error(out, code)),
        }
        self.counters.requests_refused += 1;
        Heard::Other
    }

    /// Replies of the connection that wait for an owner, or behind one that does.
    pub fn waiting_replies(&self, slot: Slot) -> usize {
        self.members.get(slot as usize).and_then(|member| member.replies.as_ref()).map_or(0, |replies| replies.len())
    }

    /// The connection's socket id.
    pub fn socket_id(&self, slot: Slot) -> SocketId {
        self.identities.socket_id(self.key(slot))
    }

    /// The connection that a socket id names, dead or alive.
    pub fn key_of(&self, id: SocketId) -> Option<ConnKey> {
        self.identities.key(id).filter(|key| usize::from(key.shard) < self.shards)
    }

    /// Whether the connection lives in this shard.
    pub fn is_live(&self, key: ConnKey) -> bool {
        key.shard == self.shard && self.live_key(key.slot) == Some(key)
    }

    /// Live subscriptions of a connection.
    pub fn channels_of(&self, slot: Slot) -> impl Iterator<Item = &ChannelName> {
        let live = |subscription: &&Subscription| subscription.position != NOT_LIVE;
        let member = self.members.get(slot as usize);
        let subscriptions = member.map_or(&[][..], |member| &member.subscriptions);
        subscriptions.iter().filter(live).map(|subscription| &self.subscribers.get(subscription.local).name)
    }

    // ---- where channels live

    /// Where a channel lives, for [`Hub::publish`] and [`Question`]s.
    pub fn hash(&self, channel: Channel<'_>) -> u64 {
        self.hasher.hash_one(channel.as_str())
    }

    /// The shard that owns the channel of this hash.
    pub fn owner(&self, hash: u64) -> ShardId {
        // The high bits place, the low bits and the top seven are the tables'.
        (((hash >> 16 & 0xffff_ffff) * self.shards as u64) >> 32) as ShardId
    }

    // ---- where addresses are counted

    /// A connection came from an address whose connections are counted: [`Port::admit`] follows.
    pub fn arrive(&mut self, address: Address, slot: Slot, now: u32, port: &mut impl Port) {
        let arrival = Arrival { address, shard: self.shard, slot };
        self.post(self.owner(self.hasher.hash_one(address)), Mail::Arrive { arrival, now }, port);
        self.settle_own(port);
    }

    /// A connection that was placed, or refused, has ended.
    pub fn depart(&mut self, address: Address, was_refused: bool, port: &mut impl Port) {
        self.post(self.owner(self.hasher.hash_one(address)), Mail::Depart { address, was_refused }, port);
        self.settle_own(port);
    }

    /// Forgets a few of the addresses that no longer matter.
    pub fn forget_addresses(&mut self, now: u32) {
        self.addresses.forget(now);
    }

    /// Addresses with a connection anywhere, and those whose haste is remembered.
    pub fn address_sizes(&self) -> (usize, usize) {
        self.addresses.sizes()
    }

    // ---- the turn

    /// A turn begins, so many microseconds after the clock began that all shards go by.
    pub fn begin_turn(&mut self, now_us: u64) {
        (self.turn_us, self.clock_us) = (now_us as u32, now_us);
        self.directory.set_clock(now_us);
    }

    /// A letter from another shard.
    pub fn receive(&mut self, mail: Mail, port: &mut impl Port) {
        self.open(mail, port);
        self.settle_own(port);
    }

    /// Closes the turn's pages: every subscriber gets its part.
    pub fn end_turn(&mut self, port: &mut impl Port) {
        let touched = self.subscribers.take_touched();
        for &local in &touched {
            self.lay_out(local, port);
            self.subscribers.forget_if_idle(local);
        }
        self.subscribers.laid(touched);
        self.pages.end_turn();
        self.laid = Laid::default();
    }

    /// Sends the first leg of the fence. Nothing may be published in this shard after it.
    pub fn fence(&mut self, port: &mut impl Port) {
        self.post_all(|| Mail::Fence(Fence::Publishers), port);
        self.settle_own(port);
    }

    /// Whether everything that was published before all shards' [`Hub::fence`] has been laid out here.
    pub fn is_fenced(&self) -> bool {
        self.fences[Fence::Owners as usize] == self.shards
    }

    /// Subscriptions and channels, for the gauges.
    pub fn sizes(&self) -> (usize, usize) {
        (self.subscribers.live(), self.directory.len())
    }

    /// Sends a letter to an owner or a peer, which may be this hub.
    fn post(&mut self, to: ShardId, mail: Mail, port: &mut impl Port) {
        if to == self.shard {
            self.own_mail.push_back(mail);
        } else {
            port.mail(to, mail);
        }
    }

    /// Asks a shard on behalf of an admin session of this one.
    pub fn ask(&mut self, of: ShardId, asker: Asker, question: Question, port: &mut impl Port) {
        self.post(of, Mail::Ask(asker, Box::new(question)), port);
        self.settle_own(port);
    }

    /// Answers what an admin session, here or elsewhere, asked of this shard.
    pub fn answer(&mut self, asker: Asker, answer: Answer, port: &mut impl Port) {
        self.post(asker.shard, Mail::Answer(asker, Box::new(answer)), port);
        self.settle_own(port);
    }

    fn post_all(&mut self, mail: impl Fn() -> Mail, port: &mut impl Port) {
        for shard in 0..self.shards {
            self.post(shard as ShardId, mail(), port);
        }
    }

    fn settle_own(&mut self, port: &mut impl Port) {
        while let Some(mail) = self.own_mail.pop_front() {
            self.open(mail, port);
        }
    }

    fn open(&mut self, mail: Mail, port: &mut impl Port) {
        match mail {
            Mail::Deliver { channel, hash, payload, exclude, read_at } => {
                let (channel, message) = (channel.as_channel(), payload.message());
                let (exclude, asker) = exclude.map(|exclusion| (exclusion.member, exclusion.asker)).unzip();
                self.deliver_letter(&Publication { channel, hash, message, exclude, read_at }, asker, port);
            }
            Mail::Publish(publish) => self.sequence_letter(*publish, port),
            Mail::Subscribe { channel, hash, membership } => {
                self.count_in(&channel, hash, membership.member.shard);
                self.post(membership.member.shard, Mail::Subscribed(membership), port);
            }
            Mail::Unsubscribe { channel, hash, membership } => {
                self.directory.leave(&channel, hash, membership.member.shard, self.now);
                if !matches!(membership.cause, Cause::Left) {
                    self.post(membership.member.shard, Mail::Unsubscribed(membership), port);
                }
            }
            Mail::Subscribed(membership) => self.subscribed(membership, port),
            Mail::Unsubscribed(membership) => self.unsubscribed(membership, port),
            Mail::Settled(asker, settled) => port.settle(asker, settled),
            Mail::Ask(asker, question) => self.consider(asker, *question, port),
            Mail::Answer(asker, answer) => port.answer(asker, *answer),
            Mail::Arrive { arrival, now } => {
                let verdict = self.addresses.arrive(arrival.address, now, &self.limits);
                self.counters.addresses_forgotten = self.addresses.forgotten;
                self.post(arrival.shard, Mail::Admit(arrival, verdict), port);
            }
            Mail::Admit(arrival, verdict) => port.admit(arrival, verdict),
            Mail::Depart { address, was_refused } => {
                self.addresses.depart(address, was_refused);
            }
            Mail::Listen => self.listen(port),
            Mail::Listening => self.start_journal(port),
            Mail::Happened(report) => self.take_report(*report, port),
            Mail::Taken => self.reports.taken(),
            Mail::Fence(fence) => {
                self.fences[fence as usize] += 1;
                if fence == Fence::Publishers && self.fences[fence as usize] == self.shards {
                    self.post_all(|| Mail::Fence(Fence::Owners), port);
                }
                if fence == Fence::Reports && self.fences[fence as usize] == self.shards {
                    self.complete_journal(port);
                }
            }
        }
    }

    fn consider(&mut self, asker: Asker, question: Question, port: &mut impl Port) {
        let answer = match question {
            Question::OfChannel { request: Request::Channel(_), channel, hash } => {
                let subscribers = total(self.directory.counts(channel.as_channel(), hash));
                Answer::Reply(Ok(Reply::Channel(ChannelCount { channel, subscribers })))
            }
            Question::Page { request: Request::Channels(channels), limit, after } => {
                let prefix = channels.prefix.unwrap_or_default();
                channel_page(self.directory.page(&prefix, limit, after))
            }
            Question::Occupied { limit, after } => channel_page(self.directory.page_occupied(limit, after)),
            Question::Follow { .. } | Question::MoreEvents | Question::Unfollow => {
                return self.serve_follower(asker, &question, port);
            }
            Question::Busiest { by, limit } => return self.surveys.push_back(Survey::new(asker, by, limit)),
            Question::Unsurvey => return self.surveys.retain(|survey| !survey.is_for(asker)),
            Question::Tap { filter } => return self.tap(asker, filter, port),
            Question::MoreSeen => return self.taps.more(asker),
            Question::Untap => return self.taps.close(asker),
            Question::OfConnection { request: Request::Unsubscribe(Unsubscribe { channel, .. }), member } => {
                let channel = Channel::parse(&channel).filter(|_| self.is_live(member));
                let local = channel.and_then(|channel| self.wanted_local(member.slot, channel, self.hash(channel)));
                match local {
                    Some(local) => return self.ask_to_leave(member.slot, local, Cause::Admin(asker), port),
                    None => Answer::Reply(Err(NO_SUBSCRIPTION)),
                }
            }
            other => return port.ask(asker, other),
        };
        self.post(asker.shard, Mail::Answer(asker, Box::new(answer)), port);
    }

    // ---- keys

    fn key(&self, slot: Slot) -> ConnKey {
        ConnKey { shard: self.shard, slot, generation: self.members[slot as usize].generation }
    }

    fn live_key(&self, slot: Slot) -> Option<ConnKey> {
        self.members.get(slot as usize).filter(|member| member.is_live).map(|_| self.key(slot))
    }
}

fn channel_page((channels, next): (Vec<(ChannelName, u64)>, Option<u32>)) -> Answer {
    let row = |(channel, subscribers)| ChannelCount { channel, subscribers };
    Answer::Page { rows: Rows::Channels(channels.into_iter().map(row).collect()), next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_old_as_the_oldest_and_never_younger_than_the_turn() {
        let mut laid = Laid::default();
        laid.read_at(1_001, 1_000);
        assert_eq!(laid.age_us, 0, "another shard's turn began later");
        laid.read_at(u32::MAX, 499);
        laid.read_at(100, 499);
        assert_eq!(laid.age_us, 500);
    }
}
