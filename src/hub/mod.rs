//! The state machine of one shard's part of publish/subscribe. It is pure: calls go in, effects come out through [`Port`], so
//! a whole cluster of hubs runs inside one test.
//!
//! A hub has two roles, each a module with private fields. For the connections of its shard it delivers messages
//! ([`audience`]). For the channels that it owns it is the sequencer ([`channel`]): it counts subscribers, and decides the
//! order of messages. The roles exchange letters ([`mail`]), also within one hub. Two more modules are the observers of
//! operators and backends ([`observe`]) and the limits per address ([`admission`]).
//!
//! [`Hub`] only assembles them: clients' requests (`requests.rs`), publishes (`publishing.rs`), admin sessions
//! (`operators.rs`), watchlists (`watchlist.rs`), the end of connections (`departures.rs`) and, in this file, the turn and the
//! letters.

pub mod admission;
pub mod audience;
pub mod channel;
mod client_events;
pub mod departures;
pub mod identity;
pub mod mail;
pub mod message;
pub mod observe;
mod operators;
pub mod outgoing;
pub mod placement;
mod presence;
mod publishing;
mod requests;
mod users;
pub mod watchlist;

#[cfg(any(test, fuzzing))]
pub mod simulation;

use crate::api::Reply;
use crate::config::{Key, Limits, Live, Rules};
use crate::ids::{Asker, ConnKey, ShardId, Slot};
use crate::metrics::{Counters, Gauges};
use crate::protocol::auth::KeyRing;
use crate::protocol::channel::{Channel, ChannelName};
use crate::protocol::close::CloseReason;
use crate::protocol::json::Reader;
use crate::protocol::socket_id::SocketId;
use admission::addresses::{Address, Addresses, Verdict};
use admission::bucket;
use ahash::RandomState;
use audience::Audiences;
use audience::pages::{Chunk, Pages};
use channel::dedupe::Dedupe;
use channel::directory::Directory;
use channel::history::Bounds;
use client_events::Sender;
use departures::Departures;
use identity::Identities;
use mail::{Answer, Arrival, Cause, Fence, Mail, Question, Settled};
use observe::Observers;
use placement::Placement;
pub use publishing::Submission;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use users::SignedIn;
use watchlist::WATCHES_MAX;
use watchlist::watched::Watched;
use watchlist::watchers::Watchers;

/// The effects of a hub, which the shard around it carries out.
pub trait Port {
    /// Appends `chunk` to the output of a connection. An outbox that keeps the chunk must hold its page.
    fn append(&mut self, pages: &mut Pages, slot: Slot, chunk: Chunk, urgency: Urgency);
    /// Sends a letter to another shard.
    fn mail(&mut self, to: ShardId, mail: Mail);
    /// Sends a letter to any shard, once the inboxes of the shards `after` have taken all letters sent to them before.
    fn mail_after(&mut self, after: &[ShardId], to: ShardId, mail: Mail);
    /// Passes on a question that only the shard can answer, because it owns the sockets.
    fn ask(&mut self, asker: Asker, question: Question);
    /// Passes an answer to an admin session of this shard.
    fn answer_admin(&mut self, asker: Asker, answer: Answer);
    /// Passes a settled part of a publish to an admin session of this shard.
    fn settle(&mut self, asker: Asker, settled: Settled);
    /// Passes on the verdict of an address's owner about a connection of this shard.
    fn admit(&mut self, arrival: Arrival, verdict: Verdict);
    /// The address of a connection, for the live tap.
    fn address(&self, _slot: Slot) -> Option<SocketAddr> {
        None
    }
    /// Bytes that wait to be sent to a connection.
    fn waiting(&self, _slot: Slot) -> usize {
        0
    }
    /// The connection is subscribed to a channel that conflates: as little as possible should wait in the kernel.
    fn keep_fresh(&mut self, _slot: Slot) {}
    /// Messages are held back for the connection: [`Hub::catch_up`] must be called once nothing waits for it.
    fn hold_back(&mut self, _slot: Slot) {}
    /// Closes a connection that broke a limit. May be called again until [`Hub::disconnect`] returns.
    fn close(&mut self, slot: Slot, reason: CloseReason);
    /// Writes a notice to the log, unless a similar one was written a short time ago.
    fn notice(&mut self, _slot: Slot, _notice: Notice<'_>) {}
}

/// What the log must say about a message of a client that cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the variants' sentences explain the fields
pub enum Notice<'a> {
    /// A client sent this event of Pusher's dialect on a native connection.
    PusherOnNative { event: &'a str },
    /// A client sent this native event on a connection of Pusher's dialect.
    NativeOnPusher { event: &'a str },
    /// The sign-in of a Pusher client is refused.
    SignInRefused { why: &'a str },
}

/// The priority of output when a turn has more than it can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Written first: replies, heartbeats, and messages of audiences with few subscribers.
    Soon,
    /// Written last: messages of audiences with many subscribers.
    Bulk,
}

/// What became of a text message, as far as the shard must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// `socket:pong`, the reply to the server's ping.
    Pong,
    /// A request that must wait: it had no effect, and the caller must pass it again before it passes others.
    Later,
    /// Anything else.
    Other,
}

/// Output of messages since [`Hub::end_turn`].
#[derive(Clone, Copy, Debug, Default)]
pub struct TurnOutput {
    /// Bytes of the messages, each counted once: the most that one subscriber receives.
    pub bytes: usize,
    /// Bytes of the messages, counted once per subscriber: the amount to write.
    pub fan_out_bytes: usize,
    /// The part of `fan_out_bytes` that is [`Urgency::Bulk`].
    pub bulk_bytes: usize,
    /// Microseconds between reading the oldest message from its publisher and this turn.
    pub age_us: u32,
}

impl TurnOutput {
    /// Adds the messages of another turn.
    pub fn add(&mut self, other: TurnOutput) {
        self.bytes += other.bytes;
        self.fan_out_bytes += other.fan_out_bytes;
        self.bulk_bytes += other.bulk_bytes;
        self.age_us = self.age_us.max(other.age_us);
    }

    /// Adds a message that was read at `read_us`. That can be later than the start of this turn, because letters of other
    /// shards are opened in the middle of a turn.
    #[inline]
    fn read_at(&mut self, read_us: u32, turn_us: u32) {
        self.age_us = self.age_us.max(bucket::ticks_between(read_us, turn_us));
    }
}

/// The number of a hub's shard, and the values that all shards of a process share.
pub struct Identity {
    /// This shard.
    pub shard: ShardId,
    /// Number of shards.
    pub shards: usize,
    /// Equal in all shards of a process. It keys the placement of channels and the encryption of socket ids.
    pub seed: [u64; 4],
}

/// One shard's part of publish/subscribe.
pub struct Hub {
    placement: Placement,
    identities: Identities,
    audiences: Audiences,
    departures: Departures,
    directory: Directory,
    dedupe: Dedupe,
    addresses: Addresses,
    observers: Observers,
    /// Letters from this hub to itself.
    own_mail: VecDeque<Mail>,
    /// By [`Fence`]: number of shards that have sent it.
    fences: [usize; 3],
    /// Reads the JSON of clients' messages.
    reader: Reader,
    /// Buffer for building payloads.
    scratch: String,
    keys: KeyRing,
    /// The users of connections that have signed in.
    users: HashMap<Slot, SignedIn, RandomState>,
    /// Connections that watch users.
    watchers: Watchers,
    /// Users of the channels that this shard owns, while they are watched.
    watched: Watched,
    /// Connections that have sent client events.
    senders: HashMap<Slot, Sender, RandomState>,
    limits: Limits,
    /// Time of the turn: microseconds, wrapping. A message carries the time of the turn that read it from its publisher.
    turn_us: u32,
    /// Tick of the turn, set by the shard.
    pub now: u32,
    /// Output of the messages of this turn so far, which counts against the shard's budget.
    pub turn_output: TurnOutput,
    /// The shard's counters.
    pub counters: Counters,
}

impl Hub {
    /// An empty hub.
    pub fn new(identity: Identity, keys: &[Key], limits: Limits) -> Hub {
        let Identity { shard, shards, seed } = identity;
        let placement = Placement::new(shard, shards, seed);
        let mut directory = Directory::new(identity::derived(seed, "epoch of offsets")[0], limits.presence_grace_ms);
        directory.set_subscription_counts(limits.subscription_count);
        Hub {
            identities: Identities::new(seed),
            audiences: Audiences::new(shard, limits.outbox_bytes_max),
            departures: Departures::default(),
            directory,
            dedupe: Dedupe::new(placement.hasher(), shards),
            addresses: Addresses::new(placement.hasher()),
            observers: Observers::new(shard, shards, placement.hasher()),
            placement,
            own_mail: VecDeque::new(),
            fences: [0; 3],
            reader: Reader::default(),
            scratch: String::new(),
            keys: KeyRing::new(keys),
            users: HashMap::default(),
            watchers: Watchers::new(WATCHES_MAX / shards),
            watched: Watched::new(limits.presence_grace_ms, limits.pusher_watchlist),
            senders: HashMap::default(),
            limits,
            turn_us: 0,
            now: 0,
            turn_output: TurnOutput::default(),
            counters: Counters::default(),
        }
    }

    /// Applies new settings. Existing subscriptions remain, also beyond a lower limit or after their key was removed.
    pub fn apply(&mut self, live: &Live) {
        self.limits = live.limits.clone();
        self.keys = KeyRing::new(&live.keys);
        self.audiences.set_outbox_limit(self.limits.outbox_bytes_max);
        self.set_rules(&live.rules);
        self.directory.set_grace(self.limits.presence_grace_ms);
        self.watched.set(self.limits.presence_grace_ms, self.limits.pusher_watchlist);
        self.directory.set_subscription_counts(self.limits.subscription_count);
    }

    /// Sets the rules of channels.
    pub fn set_rules(&mut self, rules: &Arc<Rules>) {
        if self.directory.set_rules(rules, self.limits.history_bytes_max / self.placement.shards()) {
            self.audiences.rules_change();
        }
    }

    /// Whether changed rules remain to be applied to channels.
    pub fn is_changing_rules(&self) -> bool {
        self.directory.is_changing_rules() || self.audiences.is_changing_rules()
    }

    fn replay_bounds(&self, channel: &ChannelName) -> Bounds {
        let envelope_bytes = channel.as_channel().as_str().len() + ENVELOPE_BYTES;
        Bounds { bytes_max: self.limits.outbox_bytes_max / REPLAY_SHARE, envelope_bytes }
    }

    /// Whether a key pair has this id.
    pub fn has_key(&self, id: &str) -> bool {
        self.keys.has_key(id)
    }

    // ---- connections of this shard

    /// Sends a connection a frame at once, ahead of replies that wait.
    pub fn send_now(&mut self, slot: Slot, port: &mut impl Port, write: impl FnOnce(&mut Vec<u8>)) {
        self.audiences.send_now(slot, port, write);
    }

    /// Number of the connection's replies that wait for an owner, or for an earlier reply.
    pub fn waiting_replies(&self, slot: Slot) -> usize {
        self.audiences.waiting_replies(slot)
    }

    /// Nothing waits for the connection: sends some of the messages that were held back. Returns whether there are more.
    pub fn catch_up(&mut self, slot: Slot, port: &mut impl Port) -> bool {
        self.audiences.catch_up(slot, port)
    }

    /// Heap bytes of what waits for connections: pages, and messages that are held back.
    pub fn waiting_bytes(&self) -> usize {
        self.audiences.pages().used_bytes() + self.audiences.held_bytes()
    }

    /// Heap bytes of the messages that are held back for a connection; its share of what is held back for many.
    pub fn held_bytes_of(&self, slot: Slot) -> usize {
        self.audiences.held_bytes_of(slot)
    }

    /// The connection's socket id.
    pub fn socket_id(&self, slot: Slot) -> SocketId {
        self.identities.socket_id(self.audiences.key(slot))
    }

    /// Whether the connection has signed in, or has subscribed to a channel that needs a signature.
    pub fn is_authorized(&self, slot: Slot) -> bool {
        self.audiences.is_authorized(slot)
    }

    /// The connection that a socket id names, open or closed.
    pub fn key_of(&self, id: SocketId) -> Option<ConnKey> {
        self.identities.key(id).filter(|key| usize::from(key.shard) < self.placement.shards())
    }

    /// Whether the connection is open and belongs to this shard.
    pub fn is_live(&self, key: ConnKey) -> bool {
        self.audiences.is_live(key)
    }

    /// Channels that a connection is subscribed to.
    pub fn channels_of(&self, slot: Slot) -> impl Iterator<Item = &ChannelName> {
        self.audiences.channels_of(slot)
    }

    // ---- owners

    /// The hash of a channel's name, which [`Hub::owner`] and [`Question`] need.
    pub fn hash(&self, channel: Channel<'_>) -> u64 {
        self.placement.hash(channel)
    }

    /// The shard that owns the channel with this hash.
    pub fn owner(&self, hash: u64) -> ShardId {
        self.placement.owner(hash)
    }

    /// Asks the owner of an address about a new connection. [`Port::admit`] is called with the verdict.
    pub fn arrive(&mut self, address: Address, slot: Slot, now: u32, port: &mut impl Port) {
        let arrival = Arrival { address, shard: self.shard(), slot };
        let (owner, mail) = (self.placement.owner_of_address(address), Mail::Arrive { arrival, now });
        if self.placement.shards() == 1 {
            self.open(mail, port);
            return self.settle_own(port);
        }
        // Sent through the inbox even if this shard is the owner, so that it follows letters of other shards that wait there.
        // One of them may report the end of a connection that the client saw closed before it opened this one.
        port.mail_after(&[], owner, mail);
    }

    /// Tells the owner of an address that a connection that it counts has ended.
    pub fn depart(&mut self, address: Address, was_refused: bool, port: &mut impl Port) {
        self.post(self.placement.owner_of_address(address), Mail::Depart { address, was_refused }, port);
        self.settle_own(port);
    }

    /// Drops the state of a few addresses that have not connected recently.
    pub fn forget_addresses(&mut self) {
        self.addresses.forget(self.now);
    }

    // ---- the turn

    /// Begins a turn. `now_us`: microseconds of the clock that all shards share.
    pub fn begin_turn(&mut self, now_us: u64) {
        self.turn_us = now_us as u32;
        self.departures.begin_turn();
        self.observers.set_clock(now_us);
        self.directory.set_clock(now_us);
        self.directory.forget_snapshots();
        self.directory.expire();
        self.dedupe.expire(self.now);
        self.directory.change_rules(self.now);
        self.counters.histories_evicted = self.directory.history_sizes().0;
    }

    /// Opens a letter from another shard.
    pub fn receive(&mut self, mail: Mail, port: &mut impl Port) {
        self.open(mail, port);
        self.settle_own(port);
    }

    /// Closes the turn's pages, and sends every subscriber its part.
    pub fn end_turn(&mut self, port: &mut impl Port) {
        self.audiences.end_turn(port);
        self.audiences.change_rules(self.directory.rules(), port);
        self.counters.messages_conflated = self.audiences.conflated();
        self.turn_output = TurnOutput::default();
    }

    /// The turn's pages, and the pages that outboxes refer to.
    pub fn pages(&self) -> &Pages {
        self.audiences.pages()
    }

    /// Like [`Hub::pages`], for an outbox that holds or releases a page.
    pub fn pages_mut(&mut self) -> &mut Pages {
        self.audiences.pages_mut()
    }

    /// Sends the first step of the fence. No publish may come from this shard afterwards.
    pub fn fence(&mut self, port: &mut impl Port) {
        self.post_all(|| Mail::Fence(Fence::Publishers), port);
        self.settle_own(port);
    }

    /// Whether all messages of all shards have been fanned out here: no shard publishes after [`Hub::fence`].
    pub fn is_fenced(&self) -> bool {
        self.fences[Fence::Owners as usize] == self.placement.shards()
    }

    /// The gauges of what this shard's hub holds.
    pub fn gauges(&self) -> Gauges {
        let (addresses, recent_addresses) = self.addresses.sizes();
        let journal = &self.observers.journal;
        Gauges {
            subscriptions: self.audiences.subscriptions() as u64,
            channels: self.directory.occupied() as u64,
            users: self.directory.users() as u64,
            watches: self.watchers.watches() as u64,
            history_bytes: self.directory.history_sizes().1 as u64,
            dedupe_bytes: self.dedupe.bytes() as u64,
            messages_held_back: self.audiences.held() as u64,
            presence_members: self.counters.presence_joins - self.counters.presence_leaves,
            addresses: addresses as u64,
            recent_addresses: recent_addresses as u64,
            page_bytes: self.audiences.pages().held_bytes() as u64,
            event_consumers: journal.followers() as u64,
            event_journal_bytes: journal.bytes() as u64,
            tails: self.observers.taps() as u64,
            ..Gauges::default()
        }
    }

    // ---- mail

    fn shard(&self) -> ShardId {
        self.placement.shard()
    }

    /// Sends a letter to a shard, which may be this one.
    fn post(&mut self, to: ShardId, mail: Mail, port: &mut impl Port) {
        if to == self.shard() {
            self.own_mail.push_back(mail);
        } else {
            port.mail(to, mail);
        }
    }

    /// Sends a letter to a shard once the shards `after` have taken all letters sent to them before.
    fn post_after(&mut self, after: &[ShardId], to: ShardId, mail: Mail, port: &mut impl Port) {
        let here = self.shard();
        if to == here && after.iter().all(|shard| *shard == here) {
            return self.own_mail.push_back(mail);
        }
        port.mail_after(after, to, mail);
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
            Mail::Deliver(delivery) => self.deliver_letter(&delivery, port),
            Mail::DeliverToPusher(delivery) => self.deliver_to_pusher(&delivery, port),
            Mail::Publish(publish) => self.sequence_letter(*publish, port),
            Mail::Subscribe(change) => self.count_in(change, port),
            Mail::Unsubscribe(change) => self.count_out(&change, port),
            Mail::Welcomed(member) => self.audiences.welcomed(member),
            Mail::Refused(membership, code) => self.on_refused(membership, code, port),
            Mail::Subscribed(membership, welcome) => self.on_subscribed(membership, welcome.as_deref(), port),
            Mail::Unsubscribed(membership) => {
                let is_live = self.audiences.unsubscribed(membership, port);
                self.counters.unsubscribes += u64::from(is_live);
                if let Cause::Admin(asker) = membership.cause {
                    self.post_answer(asker, Answer::Reply(Ok(Reply::Done {})), port);
                }
            }
            Mail::Excluded(first) => self.dedupe.exclude(first),
            Mail::ClientEvent(event) => self.sequence_client_event(*event, port),
            Mail::ClientEventTaken(sender) => self.client_event_taken(sender),
            Mail::Disconnect { channel, hash, reason } => self.close_all(&channel, hash, &reason, port),
            Mail::Watch { shard, users } => self.count_watch(shard, &users, port),
            Mail::Unwatch { shard, users } => self.count_unwatch(shard, &users),
            Mail::Watching(users) => self.update_users(&users, true, port),
            Mail::UserIs(user, is_online) => self.update_users(&[(user, is_online)], false, port),
            Mail::Settled(asker, settled) => port.settle(asker, settled),
            Mail::Ask(asker, question) => self.serve_question(asker, *question, port),
            Mail::Answer(asker, answer) => port.answer_admin(asker, *answer),
            Mail::Arrive { arrival, now } => {
                let verdict = self.addresses.arrive(arrival.address, now, &self.limits);
                self.counters.addresses_forgotten = self.addresses.forgotten;
                self.post(arrival.shard, Mail::Admit(arrival, verdict), port);
            }
            Mail::Admit(arrival, verdict) => port.admit(arrival, verdict),
            Mail::Depart { address, was_refused } => self.addresses.depart(address, was_refused),
            Mail::Listen(extras) => self.listen(extras, port),
            Mail::Listening => self.start_journal(port),
            Mail::Happened(report) => self.take_report(*report, port),
            Mail::Taken => self.observers.reports.taken(),
            Mail::Fence(fence) => self.pass_fence(fence, port),
        }
    }

    /// One more shard has sent this step of the fence.
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

/// A replay takes at most a quarter of the outbox limit.
const REPLAY_SHARE: usize = 4;
/// Bytes of the frame of a message, without channel, event and data: header, names of members, offset.
const ENVELOPE_BYTES: usize = 80;

#[cfg(test)]
mod tests {
    mod backpressure;

    use super::*;

    #[test]
    fn age_is_that_of_the_oldest_message_and_never_negative() {
        let mut turn_output = TurnOutput::default();
        turn_output.read_at(1_001, 1_000);
        assert_eq!(turn_output.age_us, 0, "another shard's turn began later");
        turn_output.read_at(u32::MAX, 499);
        turn_output.read_at(100, 499);
        assert_eq!(turn_output.age_us, 500);
    }
}
