//! What a shard tells the journal: nothing until somebody listens, then everything that happens to its connections and to
//! the channels that it owns, in order, a letter a turn.
//!
//! One letter is under way at most. What happens until the journal has taken it goes into the next, so a journal that is
//! busy gets fewer and larger letters, and what may wait is bounded: beyond it all that waits is given up, and said to be
//! lost, which makes every consumer begin anew.

use crate::ids::ShardId;
use crate::protocol::channel::{ChannelName, NAME_BYTES_MAX};
use crate::protocol::close::CloseReason;
use crate::protocol::socket_id::SocketId;
use std::net::SocketAddr;

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are the words of their variant's sentence
pub enum Happening {
    /// A channel has its first subscriber.
    Occupied { channel: ChannelName },
    /// A channel has had none for a while.
    Vacated { channel: ChannelName },
    /// A client may be spoken to. Its address, where a trusted proxy told or the socket tells; port 0: a proxy did not say.
    Connected { socket_id: SocketId, address: Option<SocketAddr> },
    /// And no longer, for a reason of this [`kind`](CloseReason::kind); the code is that of the close frame, whoever sent it.
    Disconnected { socket_id: SocketId, kind: u8, code: Option<u16> },
}

impl Happening {
    /// What it holds beside itself.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Happening::Occupied { channel } | Happening::Vacated { channel } => {
                channel.as_channel().as_str().len() + 2 * size_of::<usize>()
            }
            Happening::Connected { .. } | Happening::Disconnected { .. } => 0,
        }
    }

    /// The end of a connection.
    pub fn disconnected(socket_id: SocketId, reason: &CloseReason) -> Happening {
        Happening::Disconnected { socket_id, kind: reason.kind() as u8, code: reason.close_code() }
    }
}

/// A letter to the journal.
#[derive(Debug)]
pub struct Report {
    /// Who tells.
    pub shard: ShardId,
    /// When, milliseconds since 1970.
    pub time_ms: u64,
    /// So much was given up before these.
    pub lost: u64,
    /// What happened since the letter before, in order.
    pub happenings: Vec<Happening>,
}

/// One numbered line of the journal.
#[derive(Clone, Debug)]
pub struct Event {
    /// When its shard told, milliseconds since 1970.
    pub time_ms: u64,
    /// The shard that told.
    pub shard: ShardId,
    /// What happened.
    pub what: Happening,
}

/// What waits to be told.
pub struct Reports {
    /// Somebody wants to know.
    pub is_listening: bool,
    happenings: Vec<Happening>,
    pub(super) happenings_max: usize,
    /// The journal has not taken the last letter.
    is_under_way: bool,
    lost: u64,
    /// Happenings given up since the start.
    pub lost_total: u64,
}

impl Reports {
    /// Something happened, and somebody listens.
    pub fn push(&mut self, happening: Happening) {
        if self.happenings.len() >= self.happenings_max {
            let given_up = self.happenings.len() as u64;
            self.happenings.clear();
            self.lost += given_up;
            self.lost_total += given_up;
        }
        self.happenings.push(happening);
    }

    /// The next letter, if there is something to tell and the journal has taken the one before; with `is_last`, also if it
    /// has not.
    pub fn letter(&mut self, shard: ShardId, time_ms: impl FnOnce() -> u64, is_last: bool) -> Option<Report> {
        if self.happenings.is_empty() || self.is_under_way && !is_last {
            return None;
        }
        self.is_under_way = true;
        let happenings = std::mem::take(&mut self.happenings);
        Some(Report { shard, time_ms: time_ms(), lost: std::mem::take(&mut self.lost), happenings })
    }

    /// The journal has taken the letter.
    pub fn taken(&mut self) {
        self.is_under_way = false;
    }

    /// Happenings that wait.
    #[cfg(any(test, fuzzing))]
    pub(super) fn waiting(&self) -> usize {
        self.happenings.len() + usize::from(self.is_under_way)
    }
}

impl Default for Reports {
    fn default() -> Self {
        Reports {
            is_listening: false,
            happenings: Vec::new(),
            happenings_max: HAPPENINGS_MAX,
            is_under_way: false,
            lost: 0,
            lost_total: 0,
        }
    }
}

/// What may wait to be told.
const HAPPENINGS_MAX: usize = 65_536;
/// Heap bytes of it: a table with room to grow, and names.
pub const HEAP_BYTES_MAX: usize =
    HAPPENINGS_MAX * (2 * size_of::<Happening>() + NAME_BYTES_MAX + 2 * size_of::<usize>());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::channel::Channel;

    fn occupied(name: &str) -> Happening {
        Happening::Occupied { channel: Channel::parse(name).expect("a legal name").into() }
    }

    #[test]
    fn one_letter_is_under_way_and_the_rest_waits() {
        let mut reports = Reports::default();
        assert!(reports.letter(3, || unreachable!("the clock is not read for nothing"), false).is_none());
        reports.push(occupied("a"));
        let letter = reports.letter(3, || 7, false).expect("a letter");
        assert_eq!((letter.shard, letter.time_ms, letter.lost, letter.happenings.len()), (3, 7, 0, 1));
        (0..3).for_each(|_| reports.push(occupied("b")));
        assert!(reports.letter(3, || 8, false).is_none());
        reports.taken();
        assert_eq!(reports.letter(3, || 9, false).map(|letter| letter.happenings.len()), Some(3));
        reports.push(occupied("c"));
        assert!(reports.letter(3, || 9, true).is_some(), "the last one waits for nothing");
    }

    #[test]
    fn too_much_is_given_up_and_said_to_be_lost() {
        let mut reports = Reports::default();
        (0..HAPPENINGS_MAX + 2).for_each(|_| reports.push(occupied("a")));
        let letter = reports.letter(0, || 7, false).expect("a letter");
        assert_eq!((letter.lost, letter.happenings.len()), (HAPPENINGS_MAX as u64, 2));
        assert_eq!((reports.lost, reports.lost_total), (0, HAPPENINGS_MAX as u64));
    }
}
