//! Accepting: a few at a time, and not at all for a while when descriptors run out.

use crate::config::Limits;
use mio::net::{TcpListener, TcpStream};
use socket2::SockRef;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

/// A shard's own listener of the shared port.
pub struct Listener {
    socket: TcpListener,
    /// Whether the backlog may hold connections: epoll reports only the change.
    is_ready: bool,
    pause: Pause,
}

/// A pause of accepting, because descriptors ran out.
#[derive(Default)]
pub struct Pause {
    until: Option<u32>,
}

impl Pause {
    /// Pauses for [`PAUSE_TICKS`] from now.
    pub fn begin(&mut self, now: u32) {
        self.until = Some(now.wrapping_add(PAUSE_TICKS));
    }

    /// Whether there is no pause, or its time has passed.
    pub fn is_over(&self, now: u32) -> bool {
        self.until.is_none_or(|until| now.wrapping_sub(until) as i32 >= 0)
    }

    /// Ends the pause, before accepting is tried again.
    pub fn end(&mut self) {
        self.until = None;
    }

    /// Ticks until it is over.
    pub fn due_in(&self, now: u32) -> Option<u32> {
        self.until.map(|until| (until.wrapping_sub(now) as i32).max(0) as u32)
    }
}

/// The result of an attempt to accept.
pub enum Accepted {
    /// A connection, and where it comes from.
    Stream(TcpStream, SocketAddr),
    /// The backlog is empty, or accepting pauses.
    Nothing,
    /// Out of descriptors or memory: accepting pauses for [`PAUSE_TICKS`].
    Exhausted(io::Error),
    /// This connection failed; there may be others.
    Failed(io::Error),
}

impl Listener {
    /// Around a listening socket that is registered with the shard's poll.
    pub fn new(socket: TcpListener) -> Listener {
        Listener { socket, is_ready: true, pause: Pause::default() }
    }

    /// Applies new limits: sockets accepted from now on inherit TCP_USER_TIMEOUT (tcp(7)), the time within which a peer must
    /// acknowledge bytes. It is as long as a peer may be silent. By default the kernel retransmits for a quarter of an hour
    /// after the peer's network is gone.
    pub fn apply(&self, limits: &Limits) -> io::Result<()> {
        let silence_s = u64::from(limits.heart_interval_s) + u64::from(limits.heart_timeout_s);
        SockRef::from(&self.socket).set_tcp_user_timeout(Some(Duration::from_secs(silence_s)))
    }

    /// The poll reported the socket.
    pub fn ready(&mut self) {
        self.is_ready = true;
    }

    /// Takes one connection from the backlog.
    pub fn accept(&mut self, now: u32) -> Accepted {
        if !self.has_work(now) {
            return Accepted::Nothing;
        }
        self.pause.end();
        match self.socket.accept() {
            Ok((stream, peer)) => Accepted::Stream(stream, peer),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.is_ready = false;
                Accepted::Nothing
            }
            Err(error) if matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM)) => {
                self.pause.begin(now);
                Accepted::Exhausted(error)
            }
            Err(error) => Accepted::Failed(error),
        }
    }

    /// Whether the next turn should accept.
    pub fn has_work(&self, now: u32) -> bool {
        self.is_ready && self.pause.is_over(now)
    }

    /// Ticks until accepting resumes, while it pauses.
    pub fn due_in(&self, now: u32) -> Option<u32> {
        self.pause.due_in(now).filter(|_| self.is_ready)
    }
}

/// How long accepting pauses when descriptors ran out: half a second.
pub const PAUSE_TICKS: u32 = 5;

// Linux errno(3).
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOBUFS: i32 = 105;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_sockets_inherit_how_long_a_peer_may_leave_bytes_unacknowledged() {
        let socket = TcpListener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = socket.local_addr().expect("a bound socket");
        let mut listener = Listener::new(socket);
        for (heart_interval_s, heart_timeout_s, seconds) in [(30, 25, 55), (2, 5, 7)] {
            let limits = Limits { heart_interval_s, heart_timeout_s, ..Limits::default() };
            listener.apply(&limits).expect("socket option");
            let _client = std::net::TcpStream::connect(address).expect("the listener listens");
            let accepted = loop {
                listener.ready();
                if let Accepted::Stream(accepted, _) = listener.accept(0) {
                    break accepted;
                }
            };
            let timeout = SockRef::from(&accepted).tcp_user_timeout().expect("socket option");
            assert_eq!(timeout, Some(Duration::from_secs(seconds)));
        }
    }
}
