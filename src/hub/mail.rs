//! The letters that shards exchange.

use crate::api::{By, Operation, Refusal, Reply, Request, Rows};
use crate::hub::admission::addresses::{Address, Verdict};
use crate::hub::message::Payload;
use crate::hub::observe::busiest::{Best, BusyAddress, BusyChannel};
use crate::hub::observe::reports::Event;
use crate::hub::observe::reports::Report;
use crate::hub::observe::sighting::{Filter, Sighting};
use crate::ids::{Asker, ConnKey, ShardId, Slot};
use crate::metrics::Stats;
use crate::protocol::channel::ChannelName;
use std::sync::Arc;

/// A connection that waits to hear from its address's owner whether it may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Where it comes from.
    pub address: Address,
    /// The shard that accepted it.
    pub shard: ShardId,
    /// Its slot there.
    pub slot: Slot,
}

/// A change of one connection's membership, on its way to the channel's owner and back as the acknowledgement.
#[derive(Clone, Copy, Debug)]
pub struct Membership {
    /// The connection that enters or leaves.
    pub member: ConnKey,
    /// The audience's index in the member's shard: valid for as long as the member lives.
    pub audience: u32,
    /// Why, and so what is to be said once the owner has counted it.
    pub cause: Cause,
}

/// A change of membership, and the channel that it is about.
#[derive(Debug)]
pub struct Change {
    /// The channel.
    pub channel: ChannelName,
    /// Hash of its name.
    pub hash: u64,
    /// The change.
    pub membership: Membership,
}

/// Who asked for a change of membership.
#[derive(Clone, Copy, Debug)]
pub enum Cause {
    /// The client, by the request of this number.
    Client(u32),
    /// An admin connection.
    Admin(Asker),
    /// The connection ended; nobody waits for an acknowledgement.
    Left,
}

/// A publish on its way to the channel's owner.
#[derive(Debug)]
pub struct Publish {
    /// The channel.
    pub channel: ChannelName,
    /// Its hash.
    pub hash: u64,
    /// The message.
    pub payload: Payload,
    /// The connection that does not receive it.
    pub exclude: Option<ConnKey>,
    /// Who waits for the count.
    pub asker: Asker,
    /// When it was read from its publisher: see [`Hub::begin_turn`](super::Hub::begin_turn).
    pub read_at: u32,
}

/// The connection that a message leaves out, and who wants to know whether it was there.
#[derive(Clone, Copy, Debug)]
pub struct Exclusion {
    /// Who is left out.
    pub member: ConnKey,
    /// Who waits for the count.
    pub asker: Asker,
}

/// One letter. Letters from one shard to another arrive in the order in which they were sent.
#[derive(Debug)]
#[allow(missing_docs)] // the fields are the words of their variant's sentence
pub enum Mail {
    /// To the owner: count this member in.
    Subscribe(Change),
    /// To the owner: count this member out.
    Unsubscribe(Change),
    /// To the owner: give this its place in the channel's order.
    Publish(Box<Publish>),
    /// From the owner: the member is counted in; what follows is for it.
    Subscribed(Membership),
    /// From the owner: the member is counted out; nothing that follows is for it.
    Unsubscribed(Membership),
    /// From the owner: for every subscriber of this shard.
    Deliver { channel: ChannelName, hash: u64, payload: Payload, exclude: Option<Box<Exclusion>>, read_at: u32 },
    /// To an admin session's shard: a part of a publish is settled. See [`Settled`].
    Settled(Asker, Settled),
    /// To the shard that can tell.
    Ask(Asker, Box<Question>),
    /// And back.
    Answer(Asker, Box<Answer>),
    /// To the address's owner: may this connection come in? `now` is the sender's tick.
    Arrive { arrival: Arrival, now: u32 },
    /// And back.
    Admit(Arrival, Verdict),
    /// To the address's owner: a connection that was placed or refused has ended.
    Depart { address: Address, was_refused: bool },
    /// From the journal: report what happens from now on.
    Listen,
    /// To the journal: that is done.
    Listening,
    /// To the journal: what happened.
    Happened(Box<Report>),
    /// From the journal: it has taken that.
    Taken,
    /// Going down: all that its sender had for this owner came before ([`Fence::Publishers`]), or all that this owner
    /// had for its subscribers ([`Fence::Owners`]), or all that it had for the journal ([`Fence::Reports`]).
    Fence(Fence),
}

/// The legs of a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Publisher's shard → owner.
    Publishers,
    /// Owner → subscribers' shards.
    Owners,
    /// Any shard → the journal, once everybody has been disconnected.
    Reports,
}

/// One part of the count that answers a publish. A publish to n channels is settled when its parts add up to n, or to
/// 2n where a connection is excluded: then each channel's owner contributes one part, and the excluded connection's shard
/// another (the owner both, where that shard is the owner's own or has no subscriber).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// How many parts this is.
    pub parts: u32,
    /// Subscribers to add; -1 takes the excluded one off.
    pub subscribers: i64,
}

impl Settled {
    /// Adds another part.
    pub fn add(&mut self, other: Settled) {
        self.parts += other.parts;
        self.subscribers += other.subscribers;
    }
}

/// What an admin session asks of a shard.
#[derive(Debug)]
#[allow(missing_docs)] // the fields are the words of their variant's sentence
pub enum Question {
    /// A request that concerns one channel; asked of its owner.
    OfChannel { request: Request, channel: ChannelName, hash: u64 },
    /// A request that concerns one connection; asked of its shard.
    OfConnection { request: Request, member: ConnKey },
    /// What the shard has of a list, from `after` on, for one page.
    Page { request: Request, limit: usize, after: u32 },
    /// A page of the channels that the shard owns and has reported as occupied, including those that will be vacated
    /// unless a subscriber returns.
    Occupied { limit: usize, after: u32 },
    /// The busiest of the channels and addresses that the shard owns.
    Busiest { by: By, limit: usize },
    /// Cancels the session's surveys. Not answered.
    Unsurvey,
    /// To the journal: a new consumer, which knows everything up to `since` of the run `epoch`. Consumers in this process
    /// are not counted towards the limit.
    Follow { since: Option<u64>, epoch: Option<u64>, is_own: bool },
    /// To the journal: what it has for this consumer, as soon as there is something.
    MoreEvents,
    /// To the journal: the consumer has left. Not answered.
    Unfollow,
    /// A new tap, which is shown what the shard sees. Shard 0 refuses where there are too many.
    Tap { filter: Arc<Filter> },
    /// More sightings for the tap, as soon as there are some.
    MoreSeen,
    /// The tap has left. Not answered.
    Untap,
    /// All numbers.
    Stats,
    /// What concerns the whole server; the shard passes it on to the supervisor.
    Operate(Operation),
}

/// What a shard answers.
#[derive(Debug)]
#[allow(missing_docs)] // the fields are the words of their variant's sentence
pub enum Answer {
    /// To [`Question::OfChannel`], [`Question::OfConnection`] and [`Question::Operate`].
    Reply(Result<Reply, Refusal>),
    /// To [`Question::Page`] and [`Question::Occupied`]; `next` continues, `None` is the end of this shard.
    Page { rows: Rows, next: Option<u32> },
    /// To [`Question::Busiest`].
    Busiest { channels: Box<Best<BusyChannel>>, addresses: Box<Best<BusyAddress>> },
    /// To [`Question::Follow`]: events after `number` follow, and the state at that number comes first if it `is_snapshot`.
    Following { epoch: u64, number: u64, is_snapshot: bool },
    /// To [`Question::Follow`] and [`Question::Tap`]: as many as the limit allows are there already.
    TooMany { limit: usize },
    /// To [`Question::MoreEvents`]: consecutive events, the first of which has this number.
    Events { number: u64, events: Box<[Event]> },
    /// To a consumer, asked or not: what would be next is no longer kept, and `missing` events with it.
    FellBehind { missing: u64 },
    /// To [`Question::MoreEvents`]: there will never be more.
    NoMoreEvents,
    /// To [`Question::Tap`]: the shard watches from now on.
    Tapped,
    /// To a tap that asked for it, by [`Question::Tap`] the first time: what was seen, and how much was dropped. `time_ms`
    /// is the time of `at_us`.
    Seen { shard: ShardId, at_us: u64, time_ms: u64, sightings: Vec<Sighting>, dropped: u64 },
    /// To [`Question::Stats`].
    Stats { shard: ShardId, stats: Box<Stats> },
}
