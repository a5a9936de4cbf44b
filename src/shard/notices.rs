//! Limits the log lines about clients that cannot be served to one a minute of each kind, for the whole server, so that clients
//! cannot fill the log. `clients/notices.rs` writes the lines.

use crate::protocol::pusher::handshake;
use crate::wire::upgrade::{REFUSALS, Refusal};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// What a line is about: the reason for which an upgrade is refused, by its index in [`REFUSALS`], or one of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(usize);

impl Kind {
    /// A Pusher client named another path than `/app/KEY`.
    pub const PUSHER_PATH: Kind = Kind(REFUSALS.len());
    /// A Pusher client named an unknown key.
    pub const PUSHER_KEY: Kind = Kind(REFUSALS.len() + 1);
    /// A Pusher client named a version that is not supported.
    pub const PUSHER_VERSION: Kind = Kind(REFUSALS.len() + 2);
    /// A request looks like that of a Pusher client, and `--pusher` is off.
    pub const PUSHER_OFF: Kind = Kind(REFUSALS.len() + 3);
    /// A client sent a message of Pusher's dialect on a native connection.
    pub const PUSHER_ON_NATIVE: Kind = Kind(REFUSALS.len() + 4);
    /// A client sent a message of the native dialect on a connection of Pusher's.
    pub const NATIVE_ON_PUSHER: Kind = Kind(REFUSALS.len() + 5);
    /// The sign-in of a Pusher client was refused.
    pub const SIGN_IN: Kind = Kind(REFUSALS.len() + 6);

    /// The kind for a refused upgrade.
    pub fn of_upgrade(refusal: &Refusal) -> Kind {
        Kind(refusal.kind())
    }

    /// The kind for a refused Pusher client.
    pub fn of_pusher(refusal: &handshake::Refusal) -> Kind {
        match refusal {
            handshake::Refusal::PathNotFound => Kind::PUSHER_PATH,
            handshake::Refusal::UnknownKey(_) => Kind::PUSHER_KEY,
            handshake::Refusal::VersionMalformed | handshake::Refusal::VersionUnsupported => Kind::PUSHER_VERSION,
        }
    }
}

/// When the last line of each kind was written, on any shard.
#[derive(Debug)]
pub struct Notices {
    start: Instant,
    kinds: [Throttle; Kind::SIGN_IN.0 + 1],
}

/// The lines of one kind. Shards touch it only when a client cannot be served.
#[derive(Debug, Default)]
struct Throttle {
    /// When the last line was written, in milliseconds since the start; 0: never.
    written_at_ms: AtomicU64,
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
    pub fn may_write(&self, kind: Kind) -> Option<u64> {
        self.kinds[kind.0].may_write(self.start.elapsed().as_millis() as u64)
    }
}

impl Throttle {
    fn may_write(&self, now_ms: u64) -> Option<u64> {
        let written_at_ms = self.written_at_ms.load(Relaxed);
        let is_due = written_at_ms == 0 || now_ms >= written_at_ms + PAUSE_MS;
        // If two shards are due at once, one of them writes the line.
        if is_due && self.written_at_ms.compare_exchange(written_at_ms, now_ms.max(1), Relaxed, Relaxed).is_ok() {
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
        assert_eq!(throttle.may_write(0), Some(0));
        assert_eq!([1, 30_000, PAUSE_MS].map(|now| throttle.may_write(now)), [None; 3]);
        assert_eq!(throttle.may_write(PAUSE_MS + 1), Some(3));
        assert_eq!(throttle.may_write(PAUSE_MS + 2), None);
        assert_eq!(throttle.may_write(10 * PAUSE_MS), Some(1));
    }

    #[test]
    fn kinds_do_not_share_a_throttle() {
        let notices = Notices::default();
        let refusals = (0..REFUSALS.len()).map(Kind);
        let own = [
            Kind::PUSHER_PATH,
            Kind::PUSHER_KEY,
            Kind::PUSHER_VERSION,
            Kind::PUSHER_OFF,
            Kind::PUSHER_ON_NATIVE,
            Kind::NATIVE_ON_PUSHER,
            Kind::SIGN_IN,
        ];
        for kind in refusals.chain(own) {
            assert_eq!((notices.may_write(kind), notices.may_write(kind)), (Some(0), None), "{kind:?}");
        }
    }
}
