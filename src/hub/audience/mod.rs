//! Delivery: which connections of this shard receive a message, and the bytes that they receive.
//!
//! An *audience* is the subscribers of one channel on this shard that receive identical bytes: an entry of the [`table`],
//! keyed by channel and [`Kind`]. A message is encoded once per audience, into the audience's part of the turn's [`pages`].
//! Every subscriber without pending output is sent that same part (`delivery`). A [`member`] is one connection: its
//! subscriptions, and the `replies` that it waits for.
//!
//! A subscription changes in two steps. [`Audiences::enter`] and [`Audiences::leave`] note the client's request and return
//! the change for the channel's owner to count. [`Audiences::subscribed`] and [`Audiences::unsubscribed`] apply the owner's
//! acknowledgement (`membership`).

mod compacted_log;
pub mod conflation;
mod delivery;

pub mod member;
mod membership;
pub mod pages;
mod replay;
mod replies;
pub mod table;

use super::admission::bucket::SmallBucket;
use super::message::Message;
use super::{Port, identity};
use crate::ids::{ConnKey, SLOTS_RESERVED, ShardId, Slot};
use crate::protocol::channel::{Channel, ChannelName};
use crate::protocol::dialect::Dialect;
use crate::protocol::event::Envelope;
use crate::protocol::{native, pusher, user};
use conflation::Conflation;
pub use delivery::Delivered;
use member::{Member, Standing};
use pages::Pages;
use replay::Replays;
pub use replies::REPLY_BYTES;
use table::Table;

/// The dialect and compression of a subscriber. Subscribers of one channel with different kinds receive different bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The native dialect, not compressed.
    Native,
    /// Pusher's dialect, not compressed.
    Pusher,
}

impl From<Dialect> for Kind {
    fn from(dialect: Dialect) -> Kind {
        match dialect {
            Dialect::Native => Kind::Native,
            Dialect::Pusher(_) => Kind::Pusher,
        }
    }
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 2] = [Kind::Native, Kind::Pusher];

    /// Appends the frame of a message. Not inlined: it needs fewer instructions then.
    #[inline(never)]
    fn encode(self, out: &mut Vec<u8>, channel: Channel<'_>, message: &Message<'_>) {
        match self {
            Kind::Native => {
                let channel = (!channel.is_of_user()).then(|| channel.as_str());
                native::event::message(out, &envelope(channel, message));
            }
            Kind::Pusher => encode_in_pusher(out, channel, message),
        }
    }

    /// An upper bound of the bytes of a message's frame, if its data needs few escapes.
    #[inline]
    fn frame_bytes(self, channel: Channel<'_>, message: &Message<'_>) -> usize {
        let bytes = message.frame_bytes_max(channel);
        match self {
            Kind::Native => bytes,
            Kind::Pusher => 2 * bytes,
        }
    }
}

/// Apart, so that the native encoding stays small.
#[inline(never)]
fn encode_in_pusher(out: &mut Vec<u8>, channel: Channel<'_>, message: &Message<'_>) {
    let of_user;
    let name = match channel.is_of_user() {
        true => {
            of_user = user::channel_in_pusher(channel);
            &*of_user
        }
        false => channel.as_str(),
    };
    pusher::event::message(out, &envelope(Some(name), message), message.text);
}

#[inline]
fn envelope<'a>(channel: Option<&'a str>, message: &Message<'a>) -> Envelope<'a> {
    let &Message { event, data, text: _, key: _, user_id, offset } = message;
    Envelope { channel, event, data, offset, user_id }
}

/// The audiences of one shard, and its connections as their members.
pub struct Audiences {
    shard: ShardId,
    members: Vec<Member>,
    table: Table,
    /// The bytes to send.
    pages: Pages,
    /// What was encoded for connections that came back in this turn.
    replays: Replays,
    /// What is held back for connections that are blocked.
    conflation: Conflation,
    /// Number of `subscribed` replies that are ready but wait behind earlier ones. While it is 0, delivery skips a check.
    held_back: usize,
    /// Number of connections that are muted. While it is 0, delivery skips a check.
    muted: usize,
    /// Limit of the bytes that wait for one connection.
    outbox_bytes_max: usize,
}

impl Audiences {
    /// Without connections.
    pub fn new(shard: ShardId, outbox_bytes_max: usize) -> Audiences {
        Audiences {
            shard,
            members: Vec::with_capacity(SLOTS_RESERVED),
            table: Table::default(),
            pages: Pages::default(),
            replays: Replays::default(),
            conflation: Conflation::default(),
            held_back: 0,
            muted: 0,
            outbox_bytes_max,
        }
    }

    /// Changes the limit of the bytes that wait for one connection.
    pub fn set_outbox_limit(&mut self, bytes_max: usize) {
        self.outbox_bytes_max = bytes_max;
    }

    // ---- connections

    /// A connection is open. `now`: the tick.
    pub fn connect(&mut self, slot: Slot, dialect: Dialect, now: u32) {
        let at = slot as usize;
        if at >= self.members.len() {
            self.members.resize_with(at + 1, Member::default);
        }
        self.members[at].open = Some(dialect);
        self.members[at].standing = Standing::New;
        self.members[at].changes = SmallBucket::full(now);
    }

    /// From now on the connection receives no messages. Its subscriptions remain until they are removed.
    pub fn mute(&mut self, slot: Slot) {
        let member = &mut self.members[slot as usize];
        if let Some(replies) = &mut member.replies {
            self.held_back -= replies.held_count();
            replies.drop_messages();
        }
        member.standing = Standing::Muted;
        self.muted += 1;
        self.drop_held(slot);
    }

    /// Whether the connection of this slot receives no messages. It may have ended, and still have subscriptions.
    pub fn is_muted(&self, slot: Slot) -> bool {
        self.members.get(slot as usize).is_some_and(|member| member.is_muted())
    }

    /// The connection, which is muted, has ended. The caller must remove its subscriptions
    /// ([`Audiences::remove_subscription`]) and then call [`Audiences::forget`].
    pub fn disconnect(&mut self, slot: Slot) {
        let member = &mut self.members[slot as usize];
        if let Some(replies) = member.replies.take() {
            self.held_back -= replies.held_count();
        }
        member.open = None;
    }

    /// The last subscription of an ended connection has been removed: its slot may be used again.
    pub fn forget(&mut self, slot: Slot) {
        let member = &mut self.members[slot as usize];
        debug_assert!(member.is_muted() && member.subscriptions.is_empty());
        member.standing = Standing::New;
        // Not before: the owners know the subscriptions by the connection's key.
        member.generation = (member.generation + 1) & ((1 << identity::GENERATION_BITS) - 1);
        self.muted -= 1;
    }

    /// The dialect of the open connection that has this slot.
    pub fn dialect(&self, slot: Slot) -> Dialect {
        self.members[slot as usize].open.unwrap_or_default()
    }

    /// The connection has signed in, or has shown a signature for a channel.
    pub fn authorize(&mut self, slot: Slot) {
        let standing = &mut self.members[slot as usize].standing;
        if *standing == Standing::New {
            *standing = Standing::Authorized;
        }
    }

    /// Whether [`Audiences::authorize`] was called for the connection.
    pub fn is_authorized(&self, slot: Slot) -> bool {
        self.members[slot as usize].standing == Standing::Authorized
    }

    /// The connection that has this slot, or had it last.
    pub fn key(&self, slot: Slot) -> ConnKey {
        ConnKey { shard: self.shard, slot, generation: self.members[slot as usize].generation }
    }

    /// The open connection that has this slot, if there is one.
    pub fn live_key(&self, slot: Slot) -> Option<ConnKey> {
        self.members.get(slot as usize).filter(|member| member.is_live()).map(|_| self.key(slot))
    }

    /// Whether the connection is open and belongs to this shard.
    pub fn is_live(&self, key: ConnKey) -> bool {
        key.shard == self.shard && self.live_key(key.slot) == Some(key)
    }

    /// Channels that a connection is subscribed to, without that of its user.
    pub fn channels_of(&self, slot: Slot) -> impl Iterator<Item = &ChannelName> {
        let member = self.members.get(slot as usize);
        let subscriptions = member.map_or(&[][..], |member| &*member.subscriptions);
        let live = subscriptions.iter().filter(|subscription| subscription.is_live());
        let names = live.map(|subscription| self.table.get(subscription.audience).name());
        names.filter(|name| !name.as_channel().is_of_user())
    }

    /// The channel of the audience at this index.
    pub fn name(&self, audience: u32) -> &ChannelName {
        self.table.get(audience).name()
    }

    /// Live subscriptions of all connections, without their sign-ins.
    pub fn subscriptions(&self) -> usize {
        self.table.live()
    }

    // ---- the turn

    /// The turn's pages, and the pages that outboxes refer to.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Like [`Audiences::pages`].
    pub fn pages_mut(&mut self) -> &mut Pages {
        &mut self.pages
    }

    /// Closes the turn's pages, and sends every subscriber its part.
    pub fn end_turn(&mut self, port: &mut impl Port) {
        let touched = self.table.take_touched();
        for &audience in &touched {
            self.fan_out(audience, port);
            self.table.forget_if_idle(audience);
        }
        self.table.give_back(touched);
        self.end_replays();
        self.pages.end_turn();
    }
}

/// For simulations.
#[cfg(any(test, fuzzing))]
impl Audiences {
    /// Whether the shard has no audiences.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Number of `subscribed` replies that are held back.
    pub fn held_back(&self) -> usize {
        self.held_back
    }

    /// Numbers of the connection's subscriptions, and of its changes that are not acknowledged.
    pub fn subscriptions_of(&self, slot: Slot) -> (usize, usize) {
        let subscriptions = &self.members[slot as usize].subscriptions;
        (subscriptions.len(), subscriptions.iter().map(|subscription| usize::from(subscription.pending)).sum())
    }

    /// Panics if the table, the members and the counts disagree.
    pub fn check(&self) {
        let (mut live, mut interest, mut held_back, mut muted) = (0, 0, 0, 0);
        for (slot, member) in self.members.iter().enumerate() {
            assert!(member.is_live() || member.is_muted() || member.subscriptions.is_empty());
            assert!(member.is_live() || member.replies.is_none());
            muted += usize::from(member.is_muted());
            interest += member.subscriptions.len();
            held_back += member.replies.as_ref().map_or(0, |replies| replies.held_count());
            for subscription in member.subscriptions.iter().filter(|subscription| subscription.is_live()) {
                let audience = self.table.get(subscription.audience);
                live += usize::from(!audience.name().as_channel().is_of_user());
                assert_eq!(audience.subscriber(subscription.position).slot as usize, slot, "a position is wrong");
            }
        }
        assert_eq!((self.table.live(), self.table.interest()), (live, interest));
        assert_eq!((self.held_back, self.muted), (held_back, muted));
        self.check_lags();
    }
}
