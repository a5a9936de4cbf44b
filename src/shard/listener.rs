//! Accepting: a few at a time, after other shards where they share the socket, and not at all for a while when descriptors run
//! out.

use crate::config::Limits;
use mio::Registry;
use mio::net::{TcpListener, TcpStream};
use socket2::SockRef;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

/// A shard's listener.
pub struct Listener {
    socket: TcpListener,
    origin: Origin,
    /// Whether the backlog may hold connections: epoll reports only the change.
    is_ready: bool,
    pause: Pause,
    hold_off: HoldOff,
}

/// Where a shard's listening socket comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The server opened it for this shard alone.
    Own,
    /// A service manager passed it, and keeps it open after this server has ended.
    Passed {
        /// Whether all shards accept from it.
        is_shared: bool,
    },
}

/// Lets the other shards accept first from a shared socket, while this shard has more than its share of connections. The
/// kernel wakes every shard for each connection, and the first one to run takes it. Without this, that is nearly always the
/// same shard while the server is quiet.
#[derive(Default)]
struct HoldOff {
    until_us: Option<u64>,
    /// Connections accepted since then.
    accepted: usize,
    /// The last answer of [`HoldOff::applies`].
    is_waiting: bool,
}

impl HoldOff {
    /// Whether the shard leaves the next connection to others for now.
    fn applies(&mut self, has_enough: bool, now_us: u64) -> bool {
        self.is_waiting = match self.until_us {
            _ if !has_enough => {
                *self = HoldOff::default();
                false
            }
            Some(until) if now_us < until => true,
            Some(_) if self.accepted < HELD_OFF_ACCEPTS => {
                self.accepted += 1;
                false
            }
            _ => {
                *self = HoldOff { until_us: Some(now_us + HOLD_OFF.as_micros() as u64), ..HoldOff::default() };
                true
            }
        };
        self.is_waiting
    }
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

    /// Whether accepting is not paused, or the time of the pause has passed.
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
    pub fn new(socket: TcpListener, origin: Origin) -> Listener {
        Listener { socket, origin, is_ready: true, pause: Pause::default(), hold_off: HoldOff::default() }
    }

    /// Where the socket comes from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Closes this descriptor. The registration is removed first: it would stay while another process holds the socket, and
    /// wake the shard for each connection.
    pub fn close(mut self, registry: &Registry) {
        if let Err(error) = registry.deregister(&mut self.socket) {
            tracing::warn!(%error, "cannot remove a listener from the poll");
        }
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
                self.hold_off = HoldOff::default();
                Accepted::Nothing
            }
            Err(error) if matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM)) => {
                self.pause.begin(now);
                Accepted::Exhausted(error)
            }
            Err(error) => Accepted::Failed(error),
        }
    }

    /// Whether to leave the next connection to other shards for now. `has_enough`: this one has more than its share.
    pub fn holds_off(&mut self, has_enough: bool, now_us: u64) -> bool {
        self.is_ready && self.hold_off.applies(has_enough, now_us)
    }

    /// Whether the next turn should accept.
    pub fn has_work(&self, now: u32) -> bool {
        self.is_ready && self.pause.is_over(now) && !self.hold_off.is_waiting
    }

    /// How long it leaves connections to other shards.
    pub fn held_off_for(&self) -> Option<Duration> {
        (self.is_ready && self.hold_off.is_waiting).then_some(HOLD_OFF)
    }

    /// Ticks until accepting resumes, while it pauses.
    pub fn due_in(&self, now: u32) -> Option<u32> {
        self.pause.due_in(now).filter(|_| self.is_ready)
    }
}

/// How long accepting pauses when descriptors ran out: half a second.
pub const PAUSE_TICKS: u32 = 5;
/// How long a shard leaves connections to others. They need about 0.1 ms to wake up and accept.
const HOLD_OFF: Duration = Duration::from_millis(1);
/// Connections that a shard accepts after it, if the others have left them: 16 000 a second.
const HELD_OFF_ACCEPTS: usize = 16;
/// Connections above the average that still count as a shard's share.
pub const SHARE_SLACK: usize = 16;

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
        let mut listener = Listener::new(socket, Origin::Own);
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

    #[test]
    fn a_shard_with_more_than_its_share_accepts_a_few_after_each_wait() {
        let mut hold_off = HoldOff::default();
        assert!(!hold_off.applies(false, 0));
        for wait in 0..3 {
            let (begin, end) = (wait * 1000, wait * 1000 + 999);
            assert!(hold_off.applies(true, begin) && hold_off.applies(true, end), "wait {wait}");
            assert!(hold_off.is_waiting);
            for accepted in 0..HELD_OFF_ACCEPTS {
                assert!(!hold_off.applies(true, end + 1), "wait {wait}, accept {accepted}");
            }
        }
        assert!(!hold_off.applies(false, 2999), "it has its share only");
        assert!(hold_off.applies(true, 2999), "a new wait");
    }
}
