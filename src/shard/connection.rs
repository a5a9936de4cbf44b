//! One client connection: its life, and what the shard keeps of it.
//!
//! ```text
//! accept ─► Upgrading ─► Open or Echoing ─► Closing ─► Ended ─► reaped (slot free)
//!               └───────────────┴─────────────────────► Ended
//! ```

use crate::shard::tls::Session;
use crate::shard::wheel::TICK_MS;
use crate::wire::frame::Decoder;
use mio::net::TcpStream;

/// 40 bytes; [`crate::shard::output::Output`] adds 33, the hub's [`crate::hub::member::Member`] 40, a subscription 8 in the
/// channel's list, the wheel 8.
/// Everything larger is behind a pointer that is null while the connection is idle. Where its address is counted,
/// [`crate::hub::places::Places`] adds 9, and its owner 16 for each address.
pub struct Connection {
    /// The socket.
    pub socket: TcpStream,
    /// Where in its life it is. Whoever lets it enter another phase tells the [`Census`].
    pub phase: Phase,
    /// What has half arrived.
    pub decoder: Decoder,
    /// What most connections do without.
    pub aside: Option<Box<Aside>>,
    /// Tick at which anything arrived last.
    pub heard_at: u32,
    /// Tick of the server's ping: when the outstanding one was sent, or when the next one is due. While closing: when the
    /// connection is dropped.
    pub ping_at: u32,
    /// Tick at which it was accepted.
    pub accepted_at: u32,
    /// It has a place below the limit of connections.
    pub is_admitted: bool,
    /// A server ping waits for its pong.
    pub is_pinged: bool,
    /// The socket may have more to read, and the poll will not say so again.
    pub is_unread: bool,
    /// The poll has said that the peer sends no more: what is still to be read ends with an end, which it will not say again.
    pub is_eof_near: bool,
}

/// What most connections do without.
#[derive(Default)]
pub struct Aside {
    /// The upgrade request, while it has half arrived.
    pub request: Vec<u8>,
    /// The TLS session on the socket; without one it is plain.
    pub tls: Option<Box<Session>>,
}

/// Where in its life a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The HTTP request is not whole yet.
    Upgrading,
    /// It was upgraded and is a member of the hub.
    Open,
    /// It was upgraded on the echo path: what it says comes back, and the hub does not know it.
    Echoing {
        /// It is not read until its output is written.
        is_paused: bool,
    },
    /// The last that it hears is on its way. `reads`: frames are still decoded, in wait for the peer's close frame.
    Closing {
        /// Otherwise what arrives is thrown away: the peer broke the protocol, or has closed already.
        reads: bool,
        /// The socket is shut as soon as all is written: the peer's close frame has come.
        is_answered: bool,
    },
    /// Nothing more can be done; reaped at the end of the turn.
    Ended,
}

/// How many connections are in each phase, so that nobody has to walk them to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// [`Phase::Upgrading`].
    pub upgrading: usize,
    /// [`Phase::Open`].
    pub open: usize,
    /// [`Phase::Echoing`].
    pub echoing: usize,
    /// [`Phase::Closing`] and [`Phase::Ended`].
    pub closing: usize,
}

impl Census {
    /// One more is in this phase.
    pub fn enter(&mut self, phase: Phase) {
        *self.count(phase) += 1;
    }

    /// One that was in this phase is not any more.
    pub fn leave(&mut self, phase: Phase) {
        *self.count(phase) -= 1;
    }

    fn count(&mut self, phase: Phase) -> &mut usize {
        match phase {
            Phase::Upgrading => &mut self.upgrading,
            Phase::Open => &mut self.open,
            Phase::Echoing { .. } => &mut self.echoing,
            Phase::Closing { .. } | Phase::Ended => &mut self.closing,
        }
    }
}

impl Connection {
    /// A connection that was accepted at tick `now`.
    pub fn new(socket: TcpStream, now: u32) -> Connection {
        Connection {
            socket,
            phase: Phase::Upgrading,
            decoder: Decoder::default(),
            aside: None,
            heard_at: now,
            ping_at: now,
            accepted_at: now,
            is_admitted: false,
            is_pinged: false,
            is_unread: false,
            is_eof_near: false,
        }
    }

    /// The TLS session on the socket, if there is one. (Of the field alone, so that the others can be borrowed beside it.)
    pub fn tls(aside: &mut Option<Box<Aside>>) -> Option<&mut Session> {
        aside.as_deref_mut().and_then(|aside| aside.tls.as_deref_mut())
    }

    /// Whether it has only just come: such connections wait for each other, and nobody else for them.
    pub fn is_newcomer(&self, now: u32) -> bool {
        self.phase == Phase::Upgrading || now.wrapping_sub(self.accepted_at) < NEWCOMER_TICKS
    }

    /// Bytes of ciphertext that wait for room in the socket.
    pub fn unsent(&self) -> usize {
        let tls = self.aside.as_deref().and_then(|aside| aside.tls.as_deref());
        tls.map_or(0, Session::unsent)
    }

    /// Whether some of the upgrade request has arrived and waits.
    pub fn has_request(&self) -> bool {
        self.aside.as_ref().is_some_and(|aside| !aside.request.is_empty())
    }

    /// What has arrived of the upgrade request; nothing where all of it comes now.
    pub fn take_request(&mut self) -> Vec<u8> {
        let Some(aside) = &mut self.aside else { return Vec::new() };
        let request = std::mem::take(&mut aside.request);
        if aside.tls.is_none() {
            self.aside = None;
        }
        request
    }

    /// Whether the reason for which it ends has been counted: the first is the one that counts.
    pub fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. } | Phase::Ended)
    }
}

/// One second: as long as a crowd takes to be let in.
const NEWCOMER_TICKS: u32 = (1000 / TICK_MS) as u32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::member::Member;
    use crate::hub::subscribers::{Local, Subscriber};
    use crate::shard::output;

    #[test]
    fn an_idle_connection_is_small() {
        // 40 + 33 of its output + 40 + 8 in the channel's list + 8 in the wheel = 129 bytes on a shared channel. A channel of its
        // own adds the entry, its name, and the owner's 64. mio's sockets carry a check of their poll where debug assertions
        // are on.
        let check_bytes = if cfg!(debug_assertions) { 16 } else { 0 };
        assert!(size_of::<Connection>() <= 40 + check_bytes);
        assert_eq!(output::ENTRY_BYTES, 33);
        assert_eq!(size_of::<Member>(), 40);
        assert_eq!(size_of::<Subscriber>(), 8);
        assert_eq!(size_of::<Local>(), 64);
    }
}
