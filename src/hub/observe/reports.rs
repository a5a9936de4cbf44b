//! A shard's reports to the journal: nothing until the journal asks for reports, then every change of its connections and
//! of the channels that it owns, in order, in one letter a turn.
//!
//! At most one letter is under way. Changes that occur before the journal has taken it go into the next letter, so a busy
//! journal gets fewer and larger letters. The number of waiting changes is limited. At the limit all of them are dropped
//! and reported as lost, and every consumer restarts from a snapshot.

use super::extras::{ClientEvent, Extras};
use crate::config::USER_ID_BYTES_MAX;
use crate::ids::ShardId;
use crate::protocol::channel::{ChannelName, NAME_BYTES_MAX};
use crate::protocol::close::CloseReason;
use crate::protocol::dialect::Dialect;
use crate::protocol::socket_id::SocketId;
use std::net::SocketAddr;
use std::sync::Arc;

/// A change that is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the variants' sentences explain the fields
pub enum Happening {
    /// A channel has its first subscriber.
    Occupied { channel: ChannelName },
    /// A channel has had no subscriber for a while.
    Vacated { channel: ChannelName },
    /// A user became a member of a presence channel.
    MemberAdded { channel: ChannelName, user_id: Arc<str> },
    /// A user stopped being a member: its last connection left, and its grace has ended.
    MemberRemoved { channel: ChannelName, user_id: Arc<str> },
    /// A client event was sequenced.
    ClientEvent(Box<ClientEvent>),
    /// A new subscriber of a cache channel found no message.
    CacheMiss { channel: ChannelName },
    /// The number of a channel's subscribers was told.
    SubscriptionCount { channel: ChannelName, subscribers: u64 },
    /// A connection is open. Its address is that of the socket, or the one that a trusted proxy named; port 0: the proxy
    /// named no port.
    Connected { socket_id: SocketId, address: Option<SocketAddr> },
    /// A connection has ended, for a reason of this [`kind`](CloseReason::kind). `code` is that of the close frame, sent by
    /// the server or by the client.
    Disconnected { socket_id: SocketId, kind: u8, code: Option<u16> },
}

impl Happening {
    /// Heap bytes that it holds.
    pub fn heap_bytes(&self) -> usize {
        let bytes = |shared: &str| shared.len() + 2 * size_of::<usize>();
        match self {
            Happening::Occupied { channel }
            | Happening::Vacated { channel }
            | Happening::CacheMiss { channel }
            | Happening::SubscriptionCount { channel, .. } => bytes(channel.as_channel().as_str()),
            Happening::ClientEvent(event) => {
                let name = bytes(event.channel.as_channel().as_str());
                size_of::<ClientEvent>() + name + event.payload.heap_bytes()
            }
            Happening::MemberAdded { channel, user_id } | Happening::MemberRemoved { channel, user_id } => {
                bytes(channel.as_channel().as_str()) + bytes(user_id)
            }
            Happening::Connected { .. } | Happening::Disconnected { .. } => 0,
        }
    }

    /// Whether a consumer that asked for these extras receives it.
    pub fn is_for(&self, extras: Extras) -> bool {
        match self {
            Happening::ClientEvent(_) => extras.client_events,
            Happening::CacheMiss { .. } => extras.cache_misses,
            Happening::SubscriptionCount { .. } => extras.subscription_counts,
            _ => true,
        }
    }

    /// A connection has ended for this reason.
    pub fn disconnected(socket_id: SocketId, dialect: Dialect, reason: &CloseReason) -> Happening {
        Happening::Disconnected { socket_id, kind: reason.kind() as u8, code: reason.close_code(dialect) }
    }
}

/// A letter to the journal.
#[derive(Debug)]
pub struct Report {
    /// The shard that reports.
    pub shard: ShardId,
    /// Time of the report, milliseconds since 1970.
    pub time_ms: u64,
    /// Number of changes that were dropped before these.
    pub lost: u64,
    /// The changes since the previous letter, in order.
    pub happenings: Vec<Happening>,
}

/// One line of the journal.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its number.
    pub number: u64,
    /// Time of the report, milliseconds since 1970.
    pub time_ms: u64,
    /// The shard that reported it.
    pub shard: ShardId,
    /// The change.
    pub what: Happening,
}

/// Changes that wait to be reported.
pub struct Reports {
    /// Whether the journal has asked for reports.
    pub is_listening: bool,
    /// What it has asked for beside the changes of channels, members and connections.
    pub extras: Extras,
    happenings: Vec<Happening>,
    /// Heap bytes of the waiting extras.
    extra_bytes: usize,
    pub(super) happenings_max: usize,
    /// Whether the journal has not yet taken the last letter.
    is_under_way: bool,
    /// Changes dropped since the last letter.
    lost: u64,
    /// Changes dropped since the start.
    pub lost_total: u64,
}

impl Reports {
    /// Adds a change. The caller has checked [`Reports::is_listening`].
    pub fn push(&mut self, happening: Happening) {
        if self.happenings.len() >= self.happenings_max {
            let dropped = self.happenings.len() as u64;
            self.happenings.clear();
            self.extra_bytes = 0;
            self.lost += dropped;
            self.lost_total += dropped;
        }
        self.happenings.push(happening);
    }

    /// Adds an event that is not a change. It is dropped if many wait, so that it never displaces changes. The caller has
    /// checked [`Reports::extras`].
    pub fn push_extra(&mut self, happening: Happening) {
        let bytes = self.extra_bytes + size_of::<Happening>() + happening.heap_bytes();
        if bytes > EXTRA_BYTES_MAX || self.happenings.len() >= self.happenings_max / 2 {
            self.lost_total += 1;
            return;
        }
        self.extra_bytes = bytes;
        self.happenings.push(happening);
    }

    /// The next letter, if a change waits and the journal has taken the previous letter. With `is_last` it does not wait for
    /// the journal.
    pub fn letter(&mut self, shard: ShardId, time_ms: impl FnOnce() -> u64, is_last: bool) -> Option<Report> {
        if self.happenings.is_empty() || self.is_under_way && !is_last {
            return None;
        }
        self.is_under_way = true;
        self.extra_bytes = 0;
        let happenings = std::mem::take(&mut self.happenings);
        Some(Report { shard, time_ms: time_ms(), lost: std::mem::take(&mut self.lost), happenings })
    }

    /// The journal has taken the letter.
    pub fn taken(&mut self) {
        self.is_under_way = false;
    }

    /// Changes that wait, plus one for a letter that is under way.
    #[cfg(any(test, fuzzing))]
    pub(super) fn waiting(&self) -> usize {
        self.happenings.len() + usize::from(self.is_under_way)
    }
}

impl Default for Reports {
    fn default() -> Self {
        Reports {
            is_listening: false,
            extras: Extras::default(),
            happenings: Vec::new(),
            extra_bytes: 0,
            happenings_max: HAPPENINGS_MAX,
            is_under_way: false,
            lost: 0,
            lost_total: 0,
        }
    }
}

/// Limit of the changes that wait to be reported.
const HAPPENINGS_MAX: usize = 65_536;
/// Limit of the heap bytes of client events and other extras that wait.
const EXTRA_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Heap bytes of all of them: a table with spare capacity, the channels' names and the members' ids, and the extras.
pub const HEAP_BYTES_MAX: usize = EXTRA_BYTES_MAX
    + HAPPENINGS_MAX * (2 * size_of::<Happening>() + NAME_BYTES_MAX + USER_ID_BYTES_MAX + 4 * size_of::<usize>());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::message::{Message, Payload};
    use crate::protocol::channel::Channel;

    fn channel(name: &str) -> ChannelName {
        Channel::parse(name).expect("a legal name").into()
    }

    fn occupied(name: &str) -> Happening {
        Happening::Occupied { channel: channel(name) }
    }

    #[test]
    fn at_most_one_letter_is_under_way_and_later_changes_wait() {
        let mut reports = Reports::default();
        assert!(reports.letter(3, || unreachable!("the clock is not read without a letter"), false).is_none());
        reports.push(occupied("a"));
        let letter = reports.letter(3, || 7, false).expect("a letter");
        assert_eq!((letter.shard, letter.time_ms, letter.lost, letter.happenings.len()), (3, 7, 0, 1));
        (0..3).for_each(|_| reports.push(occupied("b")));
        assert!(reports.letter(3, || 8, false).is_none());
        reports.taken();
        assert_eq!(reports.letter(3, || 9, false).map(|letter| letter.happenings.len()), Some(3));
        reports.push(occupied("c"));
        assert!(reports.letter(3, || 9, true).is_some(), "the last letter does not wait");
    }

    #[test]
    fn changes_beyond_the_limit_are_dropped_and_reported_as_lost() {
        let mut reports = Reports::default();
        (0..HAPPENINGS_MAX + 2).for_each(|_| reports.push(occupied("a")));
        let letter = reports.letter(0, || 7, false).expect("a letter");
        assert_eq!((letter.lost, letter.happenings.len()), (HAPPENINGS_MAX as u64, 2));
        assert_eq!((reports.lost, reports.lost_total), (0, HAPPENINGS_MAX as u64));
    }

    #[test]
    fn extras_are_dropped_before_they_displace_changes() {
        let mut reports = Reports::default();
        let extra = |bytes: usize| {
            let channel = channel("a");
            let data = "1".repeat(bytes);
            let message = Message { event: "client-e", data: Some(&data), ..Message::default() };
            let payload = Payload::new(&message, &mut String::new());
            Happening::ClientEvent(Box::new(ClientEvent { channel, sender: SocketId { high: 1, low: 2 }, payload }))
        };
        (0..5).for_each(|_| reports.push_extra(extra(EXTRA_BYTES_MAX / 4)));
        assert_eq!((reports.happenings.len(), reports.lost, reports.lost_total), (3, 0, 2));
        reports.push(occupied("a"));
        let letter = reports.letter(0, || 7, false).expect("a letter");
        assert_eq!((letter.lost, letter.happenings.len()), (0, 4));
        reports.push_extra(extra(EXTRA_BYTES_MAX / 4));
        assert_eq!((reports.happenings.len(), reports.lost_total), (1, 2), "the letter has made room");
        (0..HAPPENINGS_MAX).for_each(|_| reports.push_extra(Happening::CacheMiss { channel: channel("a") }));
        assert!(reports.happenings.len() <= HAPPENINGS_MAX / 2);
        assert_eq!(reports.lost, 0);
    }
}
