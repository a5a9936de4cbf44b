//! Limits the log lines about clients that cannot be served to one a minute of each kind, for the whole server, so that clients
//! cannot fill the log. `clients/notices.rs` writes the lines.

use crate::protocol::pusher::handshake;
use crate::wire::upgrade::{REFUSALS, Refusal};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An upgrade request was refused, for the reason at this index of [`REFUSALS`].
    Upgrade(usize),
    /// A Pusher client named another path than `/app/KEY`.
    PusherPath,
    /// A Pusher client named an unknown key.
    PusherKey,
    /// A Pusher client named a version that is not supported.
    PusherVersion,
    /// A request looks like that of a Pusher client, and `--pusher` is off.
    PusherOff,
    /// A client sent a message of Pusher's dialect on a native connection.
    PusherOnNative,
    /// A client sent a message of the native dialect on a connection of Pusher's.
    NativeOnPusher,
    /// The sign-in of a Pusher client was refused.
    SignIn,
}

impl Kind {
    /// The kind for a refused upgrade.
    pub fn of_upgrade(refusal: &Refusal) -> Kind {
        Kind::Upgrade(refusal.kind())
    }

    /// The kind for a refused Pusher client.
    pub fn of_pusher(refusal: &handshake::Refusal) -> Kind {
        match refusal {
            handshake::Refusal::PathNotFound => Kind::PusherPath,
            handshake::Refusal::UnknownKey(_) => Kind::PusherKey,
            handshake::Refusal::VersionMalformed | handshake::Refusal::VersionUnsupported => Kind::PusherVersion,
        }
    }

    fn index(self) -> usize {
        let own = match self {
            Kind::Upgrade(refusal) => return refusal,
            Kind::PusherPath => 0,
            Kind::PusherKey => 1,
            Kind::PusherVersion => 2,
            Kind::PusherOff => 3,
            Kind::PusherOnNative => 4,
            Kind::NativeOnPusher => 5,
            Kind::SignIn => 6,
        };
        REFUSALS.len() + own
    }
}

/// When the last line of each kind was written, on any shard.
#[derive(Debug)]
pub struct Notices {
    start: Instant,
    kinds: [Throttle; REFUSALS.len() + 7],
}

/// The lines of one kind. Shards touch it only when a client cannot be served.
#[derive(Debug, Default)]
struct Throttle {
    /// When the last line was written, in milliseconds since the start; 0: never.
    said_at_ms: AtomicU64,
    /// Lines left out since then.
    left_out: AtomicU64,
}

impl Default for Notices {
    fn default() -> Notices {
        Notices { start: Instant::now(), kinds: Default::default() }
    }
}

impl Notices {
    /// Whether a line of this kind may be written; if so, how many were left out before it.
    pub fn may_say(&self, kind: Kind) -> Option<u64> {
        self.kinds[kind.index()].may_say(self.start.elapsed().as_millis() as u64)
    }
}

impl Throttle {
    fn may_say(&self, now_ms: u64) -> Option<u64> {
        let said_at_ms = self.said_at_ms.load(Relaxed);
        let is_due = said_at_ms == 0 || now_ms >= said_at_ms + PAUSE_MS;
        // If two shards are due at once, one of them writes the line.
        if is_due && self.said_at_ms.compare_exchange(said_at_ms, now_ms.max(1), Relaxed, Relaxed).is_ok() {
            return Some(self.left_out.swap(0, Relaxed));
        }
        self.left_out.fetch_add(1, Relaxed);
        None
    }
}

/// Time between two lines of a kind.
const PAUSE_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_once_a_minute_with_the_number_of_those_left_out() {
        let throttle = Throttle::default();
        assert_eq!(throttle.may_say(0), Some(0));
        assert_eq!([1, 30_000, PAUSE_MS].map(|now| throttle.may_say(now)), [None; 3]);
        assert_eq!(throttle.may_say(PAUSE_MS + 1), Some(3));
        assert_eq!(throttle.may_say(PAUSE_MS + 2), None);
        assert_eq!(throttle.may_say(10 * PAUSE_MS), Some(1));
    }

    #[test]
    fn kinds_do_not_share_a_throttle() {
        let notices = Notices::default();
        let refusals = (0..REFUSALS.len()).map(Kind::Upgrade);
        let own = [
            Kind::PusherPath,
            Kind::PusherKey,
            Kind::PusherVersion,
            Kind::PusherOff,
            Kind::PusherOnNative,
            Kind::NativeOnPusher,
            Kind::SignIn,
        ];
        for kind in refusals.chain(own) {
            assert_eq!((notices.may_say(kind), notices.may_say(kind)), (Some(0), None), "{kind:?}");
        }
    }
}
