//! Sessions of threads of this process: requests and replies are typed and cross a channel instead of a socket.
//!
//! ```text
//!   thread                                       shard
//!   Link ── Asked ──► unbounded channel ──► Seat ──► Session<Typed>
//!     └─ rings the shard's doorbell                      │
//!   Outlet ◄── what the session said in a turn ──────────┘
//! ```
//!
//! The channel has no bound of its own. The thread bounds the requests and bytes that it has outstanding, and a stream
//! pauses while its [`Outlet`] has no room.

use super::session::Session;
use super::session::codec::{Codec, Piece};
use crate::api::{Command, Refusal, Reply};
use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};
use std::sync::Arc;

/// A session whose peer is a thread of this process.
pub type TypedSession = Session<Typed>;

/// Values. Replies come in the order of the requests, so they need no tag.
pub enum Typed {}

/// What a session says.
#[derive(Debug)]
pub enum Said {
    /// The reply to the oldest request that has none.
    Reply(Result<Reply, Refusal>),
    /// A piece of a stream.
    Piece(Piece),
}

impl Codec for Typed {
    type Tag<'a> = ();
    type Kept = ();
    type Output = Vec<Said>;

    fn keep((): ()) {}

    fn tag((): &()) {}

    fn reply(output: &mut Vec<Said>, (): (), reply: Result<Reply, Refusal>) {
        output.push(Said::Reply(reply));
    }

    fn tell(output: &mut Vec<Said>, piece: Piece) {
        output.push(Said::Piece(piece));
    }

    fn append(output: &mut Vec<Said>, mut more: Vec<Said>) {
        output.append(&mut more);
    }

    fn bytes(output: &Vec<Said>) -> usize {
        size_of_val(&output[..])
    }
}

/// A request on its way to a shard.
#[derive(Debug)]
pub struct Asked {
    /// The request.
    pub command: Command<'static>,
    /// Its size, roughly.
    pub bytes: usize,
}

/// Takes what a session says. Called by the shard, so it never blocks.
pub trait Outlet: Send {
    /// Takes the output of a turn. Returns whether the thread still reads it.
    fn take(&mut self, said: Vec<Said>) -> bool;
    /// Whether a stream may go on.
    fn has_room(&self) -> bool;
}

/// Wakes the shard.
pub type Bell = Arc<dyn Fn() + Send + Sync>;

/// Opens a session with the shard of this number.
pub type Opener = Arc<dyn Fn(u16, Box<dyn Outlet>) -> Option<Link> + Send + Sync>;

/// The thread's end. The session ends when it is dropped.
pub struct Link {
    /// `None` only while it is being dropped.
    requests: Option<Sender<Asked>>,
    bell: Bell,
}

/// The shard's end.
pub struct Seat {
    requests: Receiver<Asked>,
    outlet: Box<dyn Outlet>,
}

/// A session's two ends.
pub fn link(bell: Bell, outlet: Box<dyn Outlet>) -> (Link, Seat) {
    let (sender, requests) = unbounded();
    (Link { requests: Some(sender), bell }, Seat { requests, outlet })
}

impl Link {
    /// Sends a request; [`Link::ring`] follows. Returns whether the shard still reads.
    pub fn send(&self, asked: Asked) -> bool {
        self.requests.as_ref().is_some_and(|requests| requests.send(asked).is_ok())
    }

    /// Wakes the shard: there are requests, or there is room.
    pub fn ring(&self) {
        (self.bell)();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.requests = None;
        self.ring();
    }
}

impl Seat {
    /// The next request. The error says whether there will be none.
    pub fn receive(&self) -> Result<Asked, TryRecvError> {
        self.requests.try_recv()
    }

    /// Whether a request waits.
    pub fn has_request(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Hands over what the session said. Returns whether the thread still reads it.
    pub fn say(&mut self, said: Vec<Said>) -> bool {
        self.outlet.take(said)
    }

    /// Whether a stream may go on.
    pub fn has_room(&self) -> bool {
        self.outlet.has_room()
    }
}
