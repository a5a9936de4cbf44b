//! The letters that shards exchange.

use crate::api::publish::Placed;
use crate::api::{By, Operation, Refusal, Reply, Request, Rows};
use crate::hub::admission::addresses::{Address, Verdict};
use crate::hub::channel::history::Replay;
use crate::hub::channel::presence::user::User;
use crate::hub::message::Payload;
use crate::hub::observe::best::{Best, BusyAddress, BusyChannel};
use crate::hub::observe::extras::Extras;
use crate::hub::observe::reports::{Event, Report};
use crate::hub::observe::sighting::{Filter, Sighting};
use crate::ids::{Asker, ConnKey, ShardId, Slot};
use crate::metrics::Stats;
use crate::protocol::channel::ChannelName;
use crate::protocol::close::CloseReason;
use crate::protocol::dialect::Dialect;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::position::Position;
use std::num::NonZeroU64;
use std::sync::Arc;

/// A new connection that waits for the verdict of its address's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its address.
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
    /// The audience's index in the member's shard. Valid while the member is connected.
    pub audience: u32,
    /// What caused the change, which decides the reply.
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
    /// What a new subscriber brings, if anything.
    pub wish: Option<Box<Wish>>,
}

/// What a new subscriber brings.
#[derive(Debug)]
pub struct Wish {
    /// Its position, if it has one.
    pub since: Option<Since>,
    /// Its user, if the channel has members.
    pub user: Option<Arc<User>>,
    /// In which it reads the list of members.
    pub dialect: Dialect,
}

/// The position of a client that comes back.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    /// The epoch of the offset; `None`: another server's.
    pub epoch: Option<u64>,
    /// The offset of the last message that the client has.
    pub offset: u64,
    /// The client's earlier connection: messages that were not for it are not sent again.
    pub earlier: Option<ConnKey>,
}

/// What a new subscriber is told beyond the fact that it is subscribed.
#[derive(Debug, Default)]
pub struct Welcome {
    /// The position at which the subscription is live.
    pub position: Option<Position>,
    /// Whether everything after the client's position follows; `None`: it sent none.
    pub recovered: Option<bool>,
    /// The messages that follow.
    pub replay: Option<Replay>,
    /// See [`Since::earlier`].
    pub earlier: Option<ConnKey>,
    /// JSON of the channel's members or their count.
    pub presence: Option<Arc<str>>,
    /// The number of the channel's subscribers, if it follows for this subscriber alone.
    pub subscription_count: Option<u64>,
    /// Whether [`Mail::Welcomed`] follows, before which the subscriber makes no more events.
    pub waits: bool,
}

impl Welcome {
    /// The channel has no history.
    pub fn not_recovered() -> Welcome {
        Welcome { recovered: Some(false), ..Welcome::default() }
    }
}

/// What caused a change of membership.
#[allow(missing_docs)] // the variants' sentences explain the fields
#[derive(Clone, Copy, Debug)]
pub enum Cause {
    /// The client's request, by its number. If its reply may be long, the connection makes no other such request before it.
    Client { request: u32, is_long: bool },
    /// The client's sign-in, by its number. The channel is that of the user.
    SignIn { request: u32 },
    /// The request of an admin session.
    Admin(Asker),
    /// The connection ended; no acknowledgement is sent.
    Left,
}

/// A publish on its way to the channel's owner.
#[derive(Debug)]
pub struct Publish {
    /// The channel.
    pub channel: ChannelName,
    /// Hash of its name.
    pub hash: u64,
    /// Number of the channel among those of the request.
    pub index: u8,
    /// The message.
    pub payload: Payload,
    /// The connection that does not receive it.
    pub exclude: Option<ConnKey>,
    /// Names a publish that is not repeated.
    pub dedupe: Option<Box<str>>,
    /// The session that waits for the answer.
    pub asker: Asker,
    /// Time at which the message was read from its publisher: see [`Hub::begin_turn`](super::Hub::begin_turn).
    pub read_at: u32,
}

/// The connection that does not receive a message, and the session that must know whether it is a subscriber.
#[derive(Clone, Copy, Debug)]
pub struct Exclusion {
    /// The excluded connection.
    pub member: ConnKey,
    /// The session that waits for the count of subscribers, if there is one.
    pub asker: Option<Asker>,
    /// Where the owner remembers the count for repetitions of the publish.
    pub dedupe: Option<u64>,
}

/// A message for the subscribers of one shard.
#[derive(Debug)]
pub struct Delivery {
    /// The channel.
    pub channel: ChannelName,
    /// Hash of its name.
    pub hash: u64,
    /// The message.
    pub payload: Payload,
    /// Its offset, if the channel keeps it.
    pub offset: Option<NonZeroU64>,
    /// The connection that does not receive it.
    pub exclude: Option<Box<Exclusion>>,
    /// See [`Publish::read_at`].
    pub read_at: u32,
}

/// A client event on its way to the channel's owner.
#[derive(Debug)]
pub struct ClientEvent {
    /// The channel.
    pub channel: ChannelName,
    /// Hash of its name.
    pub hash: u64,
    /// The connection that sent it.
    pub sender: ConnKey,
    /// The message.
    pub payload: Payload,
    /// See [`Delivery::read_at`].
    pub read_at: u32,
}

/// One letter. Letters from one shard to another arrive in the order in which they were sent.
#[derive(Debug)]
#[allow(missing_docs)] // the variants' sentences explain the fields
pub enum Mail {
    /// To the owner: count this member as a subscriber.
    Subscribe(Change),
    /// To the owner: no longer count this member.
    Unsubscribe(Change),
    /// To the owner: sequence this message.
    Publish(Box<Publish>),
    /// From the owner: the member is counted, and receives the messages that follow this letter.
    Subscribed(Membership, Option<Box<Welcome>>),
    /// From the owner: all shards have taken what it told them about the member, whose [`Welcome::waits`].
    Welcomed(ConnKey),
    /// From the owner: the member is not counted, for this reason.
    Refused(Membership, ErrorCode),
    /// From the owner: the member was removed, and does not receive the messages that follow this letter.
    Unsubscribed(Membership),
    /// From the owner: deliver this message to the channel's subscribers on this shard.
    Deliver(Delivery),
    /// From the owner: deliver this event to the channel's subscribers on this shard that are Pusher's clients.
    DeliverToPusher(Delivery),
    /// To the owner: the excluded connection is a subscriber. See [`Exclusion::dedupe`].
    Excluded(u64),
    /// To the channel's owner: a client event.
    ClientEvent(Box<ClientEvent>),
    /// To the sender's shard: all shards have taken its client event.
    ClientEventTaken(ConnKey),
    /// From the owner of a user's channel: close the connections of this shard that are subscribed to it.
    Disconnect { channel: ChannelName, hash: u64, reason: Box<CloseReason> },
    /// To the owner of users' channels: connections of this shard watch these users.
    Watch { shard: ShardId, users: Box<[(ChannelName, u64)]> },
    /// To the owner: the last connections of this shard that watched these users have ended.
    Unwatch { shard: ShardId, users: Box<[(ChannelName, u64)]> },
    /// From the owner, which was asked: whether these users are online.
    Watching(Box<[(ChannelName, bool)]>),
    /// From the owner: whether this user is online has changed.
    UserIs(ChannelName, bool),
    /// To an admin session's shard: a part of a publish is settled. See [`Settled`].
    Settled(Asker, Settled),
    /// To the shard that can answer the question.
    Ask(Asker, Box<Question>),
    /// To the admin session's shard: the answer to its question.
    Answer(Asker, Box<Answer>),
    /// To the address's owner: decide about this connection, and count it. `now` is the sender's tick.
    Arrive { arrival: Arrival, now: u32 },
    /// From the address's owner: its decision.
    Admit(Arrival, Verdict),
    /// To the address's owner: a connection that it counts has ended.
    Depart { address: Address, was_refused: bool },
    /// From the journal: report lifecycle events from now on, and these extras.
    Listen(Extras),
    /// To the journal: this shard reports from here on.
    Listening,
    /// To the journal: lifecycle events of this shard.
    Happened(Box<Report>),
    /// From the journal: it has taken the last report.
    Taken,
    /// At shutdown: the sender's last letter of one kind. See [`Fence`].
    Fence(Fence),
}

/// The steps of the fence, by which shards learn at shutdown that no more letters of a kind will follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Shard of publishers → owner: all its publishes to this owner came before.
    Publishers,
    /// Owner → shards of subscribers: all its messages for this shard came before.
    Owners,
    /// Any shard → the journal: all its reports came before, and all its connections have ended.
    Reports,
}

/// A part of the answer to a publish. A publish to n channels is settled when its parts add up to n,
/// or to 2n if a connection is excluded. In that case each channel's owner contributes one part and the excluded
/// connection's shard another. The owner contributes both if that shard is its own or has no subscriber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Number of parts.
    pub parts: u32,
    /// Subscribers to add; -1 subtracts the excluded connection.
    pub subscribers: i64,
    /// Number of the channel that has the place, among the distinct channels of the request.
    pub index: u8,
    /// The message's place in the channel's log; of an owner's part only.
    pub placed: Option<Placed>,
}

impl Settled {
    /// Parts without a place.
    pub fn new(parts: u32, subscribers: i64) -> Settled {
        Settled { parts, subscribers, ..Settled::default() }
    }

    /// Adds another part. At most one of the two may have a place.
    pub fn add(&mut self, other: Settled) {
        self.parts += other.parts;
        self.subscribers += other.subscribers;
        if other.placed.is_some() {
            (self.index, self.placed) = (other.index, other.placed);
        }
    }
}

/// A question of an admin session to a shard.
#[derive(Debug)]
#[allow(missing_docs)] // the variants' sentences explain the fields
pub enum Question {
    /// A request that concerns one channel; asked of its owner.
    OfChannel { request: Request, channel: ChannelName, hash: u64 },
    /// A request that concerns one connection; asked of its shard.
    OfConnection { request: Request, member: ConnKey },
    /// One page of the shard's part of a list, from `after` on.
    Page { request: Request, limit: usize, after: u32 },
    /// A page of the channels that the shard owns and reports as occupied. They include vacant channels that are held back.
    Occupied { limit: usize, after: u32 },
    /// A page of the members of the presence channels that the shard owns, by channel.
    Members { limit: usize, after: u32 },
    /// The busiest of the channels and addresses that the shard owns.
    Busiest { by: By, limit: usize },
    /// Cancels the session's surveys. Not answered.
    Unsurvey,
    /// To the journal: a new consumer, which has the events up to `since` of the run `epoch`. A consumer inside the process
    /// (`is_own`) does not count towards the limit.
    Follow { since: Option<u64>, epoch: Option<u64>, extras: Extras, is_own: bool },
    /// To the journal: the next events for this consumer, as soon as there are any.
    MoreEvents,
    /// To the journal: the consumer has left. Not answered.
    Unfollow,
    /// Opens a tap. Shard 0 refuses it if there are too many.
    Tap { filter: Arc<Filter> },
    /// More sightings for the tap, as soon as there are any.
    MoreSeen,
    /// Closes the tap. Not answered.
    Untap,
    /// All counters and gauges of the shard.
    Stats,
    /// An operation on the whole server; the shard passes it on to the supervisor.
    Operate(Operation),
}

/// A shard's answer to a [`Question`].
#[derive(Debug)]
#[allow(missing_docs)] // the variants' sentences explain the fields
pub enum Answer {
    /// To [`Question::OfChannel`], [`Question::OfConnection`] and [`Question::Operate`].
    Reply(Result<Reply, Refusal>),
    /// To [`Question::Page`] and [`Question::Occupied`]. The next page starts at `next`; `None` is the end of this shard.
    Page { rows: Rows, next: Option<u32> },
    /// To [`Question::Members`]: channels and user ids. The next page starts at `next`; `None` is the end of this shard.
    Members { members: Vec<(ChannelName, Arc<str>)>, next: Option<u32> },
    /// To [`Question::Busiest`].
    Busiest { channels: Box<Best<BusyChannel>>, addresses: Box<Best<BusyAddress>> },
    /// To [`Question::Follow`]: the events after `number` follow. If it `is_snapshot`, the state at that number comes first.
    Following { epoch: u64, number: u64, is_snapshot: bool },
    /// To [`Question::Follow`] and [`Question::Tap`]: the limit is reached.
    TooMany { limit: usize },
    /// To [`Question::MoreEvents`]: the next events, with their numbers.
    Events { events: Box<[Event]> },
    /// To a consumer, also without a question: its next `missing` events were discarded.
    FellBehind { missing: u64 },
    /// To [`Question::MoreEvents`]: all events have been sent, and the server stops.
    NoMoreEvents,
    /// To [`Question::Tap`]: the tap is open.
    Tapped,
    /// To [`Question::Tap`] and [`Question::MoreSeen`]: sightings, and the number of those dropped. `time_ms` is the
    /// wall-clock time of `at_us`.
    Seen { shard: ShardId, at_us: u64, time_ms: u64, sightings: Vec<Sighting>, dropped: u64 },
    /// To [`Question::Stats`].
    Stats { shard: ShardId, stats: Box<Stats> },
}
