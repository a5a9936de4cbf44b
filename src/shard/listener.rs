//! Accepting: a few at a time, and not at all for a while when descriptors run out.

use mio::net::{TcpListener, TcpStream};
use std::io::{self, ErrorKind};

/// A shard's own listener of the shared port.
pub struct Listener {
    socket: TcpListener,
    /// Whether the backlog may hold connections: epoll reports only the change.
    is_ready: bool,
    /// Tick before which nothing is accepted.
    resume_at: Option<u32>,
}

/// What an attempt to accept came to.
pub enum Accepted {
    /// A connection.
    Stream(TcpStream),
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
        Listener { socket, is_ready: true, resume_at: None }
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
        self.resume_at = None;
        match self.socket.accept() {
            Ok((stream, _)) => Accepted::Stream(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.is_ready = false;
                Accepted::Nothing
            }
            Err(error) if matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM)) => {
                self.resume_at = Some(now.wrapping_add(PAUSE_TICKS));
                Accepted::Exhausted(error)
            }
            Err(error) => Accepted::Failed(error),
        }
    }

    /// Whether the next turn should accept.
    pub fn has_work(&self, now: u32) -> bool {
        self.is_ready && self.resume_at.is_none_or(|at| now.wrapping_sub(at) as i32 >= 0)
    }

    /// Ticks until accepting resumes, while it pauses.
    pub fn due_in(&self, now: u32) -> Option<u32> {
        let at = self.resume_at.filter(|_| self.is_ready)?;
        Some((at.wrapping_sub(now) as i32).max(0) as u32)
    }
}

/// How long accepting pauses when descriptors ran out: half a second.
pub const PAUSE_TICKS: u32 = 5;

// Linux errno(3).
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOBUFS: i32 = 105;
