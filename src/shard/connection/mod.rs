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

/// 40 bytes; [`Output`](crate::shard::output::Output) adds 33, the hub's [`Member`](crate::hub::audience::member::Member) 40, a
/// subscription 8 in the channel's list, the wheel 8. Everything larger is behind a pointer that is null while the connection is
/// idle. Where its address is counted, [`Arrivals`](crate::hub::admission::arrivals::Arrivals) adds 9, and the owner 16 for each
/// address.
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
    /// A request that the hub will handle later.
    pub request_text: Option<String>,
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
        self.take(|aside| std::mem::take(&mut aside.request))
    }

    /// Whether requests that have been read wait to be handled.
    pub fn has_requests(&self) -> bool {
        self.aside.as_ref().is_some_and(|aside| aside.request_text.is_some() || !aside.frames.is_empty())
    }

    /// The request that the hub would not handle yet.
    pub fn take_request_text(&mut self) -> Option<String> {
        self.take(|aside| aside.request_text.take())
    }

    /// The frames that waited while the connection was held.
    pub fn take_frames(&mut self) -> Vec<u8> {
        self.take(|aside| std::mem::take(&mut aside.frames))
    }

    /// Bytes of the frames that wait.
    pub fn frames_len(&self) -> usize {
        self.aside.as_ref().map_or(0, |aside| aside.frames.len())
    }

    fn take<T: Default>(&mut self, part: impl FnOnce(&mut Aside) -> T) -> T {
        let Some(aside) = &mut self.aside else { return T::default() };
        let taken = part(aside);
        if aside.is_empty() {
            self.aside = None;
        }
        taken
    }
}

impl Aside {
    fn is_empty(&self) -> bool {
        self.tls.is_none() && self.request.is_empty() && self.request_text.is_none() && self.frames.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::audience::member::Member;
    use crate::hub::audience::table::{Audience, Subscriber};
    use crate::hub::channel::directory;
    use crate::shard::heartbeats::wheel;
    use crate::shard::output;

    /// An entry of the slab, as the crate `slab` declares it.
    #[expect(dead_code)]
    enum Entry {
        Vacant(usize),
        Occupied(Connection),
    }

    #[test]
    fn what_was_kept_aside_leaves_no_memory_behind() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let socket = TcpStream::connect(listener.local_addr().expect("bound")).expect("loopback");
        let mut connection = Connection::new(socket, 0);
        let aside = connection.aside.get_or_insert_default();
        (aside.request_text, aside.frames, aside.request) = (Some("text".into()), b"frames".into(), b"GET".into());
        assert_eq!(connection.take_request(), b"GET");
        assert_eq!(connection.take_frames(), b"frames");
        assert!(connection.has_requests() && !connection.has_request());
        assert_eq!(connection.take_request_text().as_deref(), Some("text"));
        assert!(connection.aside.is_none());
        assert_eq!((connection.take_request_text(), connection.take_frames()), (None, Vec::new()));
    }

    /// The heap bytes of an idle connection that is subscribed to one channel. An allocation is counted by the bytes asked for.
    #[test]
    fn an_idle_connection_is_small() {
        // mio's sockets carry a check of their poll where debug assertions are on.
        let check_bytes = if cfg!(debug_assertions) { 16 } else { 0 };
        let tables = [
            size_of::<Entry>() - check_bytes, // 40: socket 4, state 20, decoder 8, pointer to what most do without 8
            output::ENTRY_BYTES,              // 33: the empty outbox 32, the state of its writes 1
            size_of::<Member>(), // 40: generation 4, flags 2, subscriptions 16, count 4, pointer to replies 8
            wheel::ENTRY_BYTES,  // 8: its neighbours in the list of a tick
            size_of::<Subscriber>(), // 8: its place in the channel's list
        ];
        assert_eq!(tables.iter().sum::<usize>(), 129, "{tables:?}");
        // A channel with no other subscriber adds the entry of this shard and that of the owner. Both have an index of 5 bytes
        // in a hash table, and share the name with its 16 bytes of counts and length.
        assert_eq!(size_of::<Audience>() + directory::ENTRY_BYTES, 64 + 72);
    }
}
