//! One client connection: what the shard keeps of it.
//!
//! ```text
//! accept ─► Upgrading ─► Open or Echoing ─► (Answering) ─► Closing ─► Ended ─► slot freed
//!               └───────────────┴───────────────────────────────────► Ended
//! ```

pub mod state;
pub mod table;

use crate::shard::tls::Session;
use crate::wire::decoder::Decoder;
use mio::net::TcpStream;
use state::ConnectionState;

/// 40 bytes; [`crate::shard::output::Output`] adds 33, the hub's [`crate::hub::audience::member::Member`] 40, a subscription 8 in the
/// channel's list, the wheel 8. Everything larger is behind a pointer that is null while the connection is idle. Where its
/// address is counted, [`crate::hub::admission::arrivals::Arrivals`] adds 9, and the owner 16 for each address.
pub struct Connection {
    /// The socket.
    pub socket: TcpStream,
    /// Its state.
    pub state: ConnectionState,
    /// What has partly arrived.
    pub decoder: Decoder,
    /// What most connections do without.
    pub aside: Option<Box<Aside>>,
}

/// What most connections do without.
#[derive(Default)]
pub struct Aside {
    /// The upgrade request, while it has partly arrived.
    pub request: Vec<u8>,
    /// Frames that wait, while the connection is held.
    pub frames: Vec<u8>,
    /// The TLS session on the socket; without one it is plain.
    pub tls: Option<Box<Session>>,
}

impl Connection {
    /// A connection that was accepted at tick `now`.
    pub fn new(socket: TcpStream, now: u32) -> Connection {
        Connection { socket, state: ConnectionState::new(now), decoder: Decoder::default(), aside: None }
    }

    /// The TLS session on the socket, if there is one. Takes the field alone, so that the others can be borrowed beside it.
    pub fn tls(aside: &mut Option<Box<Aside>>) -> Option<&mut Session> {
        aside.as_deref_mut().and_then(|aside| aside.tls.as_deref_mut())
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

    /// What has arrived of the upgrade request so far.
    pub fn take_request(&mut self) -> Vec<u8> {
        let Some(aside) = &mut self.aside else { return Vec::new() };
        let request = std::mem::take(&mut aside.request);
        if aside.tls.is_none() {
            self.aside = None;
        }
        request
    }

    /// The frames that waited while the connection was held.
    pub fn take_frames(&mut self) -> Vec<u8> {
        match &mut self.aside {
            Some(aside) if !aside.frames.is_empty() => {
                let frames = std::mem::take(&mut aside.frames);
                if aside.tls.is_none() {
                    self.aside = None;
                }
                frames
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::audience::member::Member;
    use crate::hub::audience::table::{Audience, Subscriber};
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
        assert_eq!(size_of::<Audience>(), 64);
    }
}
