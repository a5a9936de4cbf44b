//! Who hears what: the state machine of one shard's share of publish/subscribe. Pure: events go in, effects come out
//! through [`Port`], and a whole cluster of hubs runs inside one test.
//!
//! A hub has two roles, each behind a wall of its own. For the connections of its shard it is the deliverer
//! ([`audience`]). For the channels that it owns it is the sequencer ([`channel`]): it counts subscribers and gives every
//! publish its place in the channel's order. The roles exchange [`Mail`], also where both are this hub. Beside them stand
//! what operators watch ([`observe`]) and the limits of addresses ([`admission`]).
//!
//! [`Hub`] only assembles them: requests of clients (`requests.rs`), publishes (`publishing.rs`), operators (`operators.rs`),
//! and, in this file, the turn and the mail.

pub mod admission;
pub mod audience;
pub mod channel;
pub mod departures;
pub mod identity;
pub mod mail;
pub mod message;
pub mod observe;
mod operators;
pub mod outgoing;
mod placement;
mod publishing;
mod requests;

#[cfg(any(test, fuzzing))]
pub mod simulation;

use crate::api::Reply;
use crate::config::{Key, Limits, Live};
use crate::ids::{Asker, ConnKey, ShardId, Slot};
use crate::metrics::Counters;
use crate::protocol::auth::KeyRing;
use crate::protocol::channel::{Channel, ChannelName};
use crate::protocol::close::CloseReason;
use crate::protocol::command::Parser;
use crate::protocol::socket_id::SocketId;
use admission::addresses::{Address, Addresses, Verdict};
use admission::bucket;
use audience::Audiences;
use audience::pages::{Chunk, Pages};
use channel::directory::Directory;
use departures::Departures;
use identity::Identities;
use mail::{Answer, Arrival, Cause, Fence, Mail, Question, Settled};
use observe::Observers;
use placement::Placement;
use publishing::Publication;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// What a hub asks of the shard around it.
pub trait Port {
    /// `chunk` is next on the wire of a connection. An outbox that keeps it must hold its page.
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
    /// Where a connection comes from, for the live tap.
    fn address(&self, _slot: Slot) -> Option<SocketAddr> {
        None
    }
    /// The connection broke a limit. Can be said again before [`Hub::disconnect`] is called, and within that call.
    fn close(&mut self, slot: Slot, reason: CloseReason);
}

/// Whether output goes before bulk when there is more than one turn can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Replies, heartbeats, and messages of audiences with few subscribers.
    Soon,
    /// Messages of audiences with many.
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
    /// Of them those that are [`Urgency::Bulk`].
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

    /// A message was read from its publisher then. On another shard that can be later than the beginning of the turn that
    /// lays it out: mail is opened in the middle of a turn.
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
    placement: Placement,
    identities: Identities,
    audiences: Audiences,
    departures: Departures,
    directory: Directory,
    addresses: Addresses,
    observers: Observers,
    /// Letters from this hub to itself.
    own_mail: VecDeque<Mail>,
    fences: [usize; 3],
    parser: Parser,
    /// Where payloads are put together.
    scratch: String,
    keys: KeyRing,
    limits: Limits,
    /// Microseconds, wrapping. Every message carries the time of the turn in which it was read from its publisher.
    turn_us: u32,
    /// The turn's tick, as the shard says it.
    pub now: u32,
    /// What the turn has laid out so far; the shard's budget.
    pub laid: Laid,
    /// What this shard counted.
    pub counters: Counters,
}

impl Hub {
    /// An empty hub.
    pub fn new(identity: Identity, keys: &[Key], limits: Limits) -> Hub {
        let Identity { shard, shards, seed } = identity;
        let placement = Placement::new(shard, shards, seed);
        Hub {
            identities: Identities::new(seed),
            audiences: Audiences::new(shard, limits.outbox_bytes_max),
            departures: Departures::default(),
            directory: Directory::default(),
            addresses: Addresses::new(placement.hasher()),
            observers: Observers::new(shard, placement.hasher()),
            placement,
            own_mail: VecDeque::new(),
            fences: [0; 3],
            parser: Parser::default(),
            scratch: String::new(),
            keys: KeyRing::new(keys),
            limits,
            turn_us: 0,
            now: 0,
            laid: Laid::default(),
            counters: Counters::default(),
        }
    }

    /// Puts new settings in force. Connections keep what they have already, also beyond a lower limit or without their key.
    pub fn apply(&mut self, live: &Live) {
        self.limits = live.limits.clone();
        self.keys = KeyRing::new(&live.keys);
        self.audiences.set_outbox_limit(self.limits.outbox_bytes_max);
    }

    // ---- connections of this shard

    /// Sends a connection a frame that answers no request, now.
    pub fn say_now(&mut self, slot: Slot, port: &mut impl Port, write: impl FnOnce(&mut Vec<u8>)) {
        self.audiences.say_now(slot, port, write);
    }

    /// Replies of the connection that wait for an owner, or behind one that does.
    pub fn waiting_replies(&self, slot: Slot) -> usize {
        self.audiences.waiting_replies(slot)
    }

    /// The connection's socket id.
    pub fn socket_id(&self, slot: Slot) -> SocketId {
        self.identities.socket_id(self.audiences.key(slot))
    }

    /// The connection that a socket id names, dead or alive.
    pub fn key_of(&self, id: SocketId) -> Option<ConnKey> {
        self.identities.key(id).filter(|key| usize::from(key.shard) < self.placement.shards())
    }

    /// Whether the connection lives in this shard.
    pub fn is_live(&self, key: ConnKey) -> bool {
        self.audiences.is_live(key)
    }

    /// Channels that a connection is subscribed to.
    pub fn channels_of(&self, slot: Slot) -> impl Iterator<Item = &ChannelName> {
        self.audiences.channels_of(slot)
    }

    // ---- owners

    /// The hash of a channel's name, for [`Hub::owner`] and [`Question`]s.
    pub fn hash(&self, channel: Channel<'_>) -> u64 {
        self.placement.hash(channel)
    }

    /// The shard that owns the channel of this hash.
    pub fn owner(&self, hash: u64) -> ShardId {
        self.placement.owner(hash)
    }

    /// A connection came from an address whose connections are counted: [`Port::admit`] follows.
    pub fn arrive(&mut self, address: Address, slot: Slot, now: u32, port: &mut impl Port) {
        let arrival = Arrival { address, shard: self.shard(), slot };
        let (owner, mail) = (self.placement.owner_of_address(address), Mail::Arrive { arrival, now });
        if self.placement.shards() == 1 {
            self.open(mail, port);
            return self.settle_own(port);
        }
        // Also where this shard is the owner: behind the letters of other shards that lie in its inbox. One of them may return
        // the place of a connection that its client has seen closed before it opened this one.
        port.mail_after(&[], owner, mail);
    }

    /// A connection that was placed, or refused, has ended.
    pub fn depart(&mut self, address: Address, was_refused: bool, port: &mut impl Port) {
        self.post(self.placement.owner_of_address(address), Mail::Depart { address, was_refused }, port);
        self.settle_own(port);
    }

    /// Forgets a few of the addresses that no longer matter.
    pub fn forget_addresses(&mut self, now: u32) {
        self.addresses.forget(now);
    }

    /// Addresses with a connection anywhere, and those whose rate is remembered.
    pub fn address_sizes(&self) -> (usize, usize) {
        self.addresses.sizes()
    }

    // ---- the turn

    /// A turn begins, so many microseconds after the clock began that all shards go by.
    pub fn begin_turn(&mut self, now_us: u64) {
        self.turn_us = now_us as u32;
        self.departures.begin_turn();
        self.observers.set_clock(now_us);
        self.directory.set_clock(now_us);
    }

    /// A letter from another shard.
    pub fn receive(&mut self, mail: Mail, port: &mut impl Port) {
        self.open(mail, port);
        self.settle_own(port);
    }

    /// Closes the turn's pages: every subscriber gets its part.
    pub fn end_turn(&mut self, port: &mut impl Port) {
        self.audiences.end_turn(port);
        self.laid = Laid::default();
    }

    /// The turn's pages, and those that outboxes still refer to.
    pub fn pages(&self) -> &Pages {
        self.audiences.pages()
    }

    /// Likewise, for an outbox that takes its part or gives it back.
    pub fn pages_mut(&mut self) -> &mut Pages {
        self.audiences.pages_mut()
    }

    /// Sends the first leg of the fence. Nothing may be published in this shard after it.
    pub fn fence(&mut self, port: &mut impl Port) {
        self.post_all(|| Mail::Fence(Fence::Publishers), port);
        self.settle_own(port);
    }

    /// Whether everything that was published before all shards' [`Hub::fence`] has been laid out here.
    pub fn is_fenced(&self) -> bool {
        self.fences[Fence::Owners as usize] == self.placement.shards()
    }

    /// Subscriptions and channels, for the gauges.
    pub fn sizes(&self) -> (usize, usize) {
        (self.audiences.subscriptions(), self.directory.len())
    }

    // ---- mail

    fn shard(&self) -> ShardId {
        self.placement.shard()
    }

    /// Sends a letter to an owner or a peer, which may be this hub.
    fn post(&mut self, to: ShardId, mail: Mail, port: &mut impl Port) {
        if to == self.shard() {
            self.own_mail.push_back(mail);
        } else {
            port.mail(to, mail);
        }
    }

    fn post_all(&mut self, mail: impl Fn() -> Mail, port: &mut impl Port) {
        for shard in 0..self.placement.shards() {
            self.post(shard as ShardId, mail(), port);
        }
    }

    fn post_answer(&mut self, asker: Asker, answer: Answer, port: &mut impl Port) {
        self.post(asker.shard, Mail::Answer(asker, Box::new(answer)), port);
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
            Mail::Subscribe(change) => {
                let member = change.membership.member;
                if self.directory.join(&change.channel, change.hash, member.shard) {
                    self.observers.occupied(&change.channel);
                }
                self.post(member.shard, Mail::Subscribed(change.membership), port);
            }
            Mail::Unsubscribe(change) => {
                let member = change.membership.member;
                self.directory.leave(&change.channel, change.hash, member.shard, self.now);
                if !matches!(change.membership.cause, Cause::Left) {
                    self.post(member.shard, Mail::Unsubscribed(change.membership), port);
                }
            }
            Mail::Subscribed(membership) => {
                let is_live = self.audiences.subscribed(membership, port);
                self.counters.subscribes += u64::from(is_live);
            }
            Mail::Unsubscribed(membership) => {
                let is_live = self.audiences.unsubscribed(membership, port);
                self.counters.unsubscribes += u64::from(is_live);
                if let Cause::Admin(asker) = membership.cause {
                    self.post_answer(asker, Answer::Reply(Ok(Reply::Done {})), port);
                }
            }
            Mail::Settled(asker, settled) => port.settle(asker, settled),
            Mail::Ask(asker, question) => self.serve_question(asker, *question, port),
            Mail::Answer(asker, answer) => port.answer(asker, *answer),
            Mail::Arrive { arrival, now } => {
                let verdict = self.addresses.arrive(arrival.address, now, &self.limits);
                self.counters.addresses_forgotten = self.addresses.forgotten;
                self.post(arrival.shard, Mail::Admit(arrival, verdict), port);
            }
            Mail::Admit(arrival, verdict) => port.admit(arrival, verdict),
            Mail::Depart { address, was_refused } => self.addresses.depart(address, was_refused),
            Mail::Listen => self.listen(port),
            Mail::Listening => self.start_journal(port),
            Mail::Happened(report) => self.take_report(*report, port),
            Mail::Taken => self.observers.report_taken(),
            Mail::Fence(fence) => self.pass_fence(fence, port),
        }
    }

    /// One more shard is through with this leg of the fence.
    fn pass_fence(&mut self, fence: Fence, port: &mut impl Port) {
        self.fences[fence as usize] += 1;
        if self.fences[fence as usize] < self.placement.shards() {
            return;
        }
        match fence {
            Fence::Publishers => self.post_all(|| Mail::Fence(Fence::Owners), port),
            Fence::Owners => {}
            Fence::Reports => self.complete_journal(port),
        }
    }
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
