//! The state of a connection, as plain data.

use crate::protocol::dialect::Dialect;
use serde::{Deserialize, Serialize};

/// The state of a connection, without its socket and its buffers. Plain data that can be serialized. Ticks are those of the
/// shard's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionState {
    /// Its phase. Changed by [`super::table::Connections::enter_phase`].
    pub phase: Phase,
    /// Tick at which anything arrived last.
    pub received_at: u32,
    /// Tick of the server's ping: when the outstanding one was sent, or when the next one is due. While closing: when the
    /// connection is dropped.
    pub ping_at: u32,
    /// Tick at which it was accepted.
    pub accepted_at: u32,
    /// The dialect that it speaks once it is open.
    pub dialect: Dialect,
    /// It has a place below the limit of connections.
    pub is_admitted: bool,
    /// A server ping waits for its pong.
    pub is_pinged: bool,
    /// The socket may have more to read, and the poll will not report that again.
    pub is_unread: bool,
    /// Its requests are not read until it has taken replies. Meanwhile `received_at` is the tick at which its socket took
    /// anything.
    pub is_held: bool,
    /// The poll has reported that the peer sends no more, and will not report it again. Reading goes on to the end of the
    /// stream.
    pub is_eof_near: bool,
}

/// The phase of a connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The HTTP request is not whole yet.
    Upgrading,
    /// It was upgraded and is a member of the hub.
    Open,
    /// It was upgraded on the echo path: its messages are echoed, and it is not a member of the hub.
    Echoing {
        /// It is not read until its output is written.
        is_paused: bool,
    },
    /// It is ending, and waits for replies of other shards. Its close frame follows them. Input is discarded.
    Answering {
        /// The peer's close frame, or its end of the stream, has come.
        is_answered: bool,
    },
    /// The last bytes for it are on their way.
    Closing {
        /// Frames are still decoded, to find the peer's close frame. If not, input is discarded: the peer broke the protocol,
        /// or has closed already.
        reads: bool,
        /// The peer's close frame has come: the socket is shut as soon as all is written.
        is_answered: bool,
    },
    /// Nothing more can be done. Its slot is freed at the end of the turn.
    Ended,
}

impl ConnectionState {
    /// The state of a connection that was accepted at tick `now`.
    pub fn new(now: u32) -> ConnectionState {
        ConnectionState {
            phase: Phase::Upgrading,
            received_at: now,
            ping_at: now,
            accepted_at: now,
            dialect: Dialect::Native,
            is_admitted: false,
            is_pinged: false,
            is_unread: false,
            is_held: false,
            is_eof_near: false,
        }
    }

    /// Whether it was accepted within the last second. Such connections wait for each other; other connections do not wait for
    /// them.
    pub fn is_newcomer(&self, now: u32) -> bool {
        self.phase == Phase::Upgrading || now.wrapping_sub(self.accepted_at) < NEWCOMER_TICKS
    }

    /// Whether the stream stays open for the peer's close frame. Firefox loses all messages before a close frame if the end of
    /// the stream comes with the reply to the upgrade, and Pusher's clients need the one that says why they are refused.
    pub fn awaits_answer(&self, now: u32) -> bool {
        self.dialect.is_pusher() && self.is_newcomer(now)
    }

    /// Whether the reason for which it ends has been counted. Only the first one counts.
    pub fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Answering { .. } | Phase::Closing { .. } | Phase::Ended)
    }
}

/// One second: a burst of connections is admitted within that time.
const NEWCOMER_TICKS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::heartbeats::wheel::ticks;

    #[test]
    fn a_state_survives_serialization() {
        let mut state = ConnectionState { is_pinged: true, is_eof_near: true, ..ConnectionState::new(u32::MAX - 7) };
        for phase in [
            Phase::Upgrading,
            Phase::Open,
            Phase::Echoing { is_paused: true },
            Phase::Answering { is_answered: true },
            Phase::Closing { reads: true, is_answered: false },
            Phase::Ended,
        ] {
            state.phase = phase;
            let text = serde_json::to_string(&state).expect("plain data");
            assert_eq!(serde_json::from_str::<ConnectionState>(&text).expect("valid JSON"), state);
        }
    }

    #[test]
    fn a_connection_is_a_newcomer_for_a_second() {
        assert_eq!(NEWCOMER_TICKS, ticks(1000));
    }
}
