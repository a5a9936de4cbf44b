//! Sessions for threads of this process. Requests and replies are typed, and use a channel instead of a socket.
//!
//! ```text
//!   thread                                       shard
//!   Link ── Asked ──► unbounded channel ──► Seat ──► Session<Typed>
//!     └─ rings the shard's doorbell                      │
//!   Outlet ◄── output of the session's turn ─────────────┘
//! ```
//!
//! The channel is not bounded. The thread limits its own outstanding requests and bytes, and a stream pauses while its
//! [`Outlet`] has no room.

use super::session::Session;
use super::session::codec::Codec;
use crate::api::{Command, Refusal, Reply};
use crate::hub::observe::piece::Piece;
use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};
use std::sync::Arc;

/// A session whose peer is a thread of this process.
pub type TypedSession = Session<Typed>;

/// The codec of typed values. Replies come in the order of the requests, so they need no tag.
pub enum Typed {}

/// One output of a session.
#[derive(Debug)]
pub enum Sent {
    /// The reply to the oldest request without a reply.
    Reply(Result<Reply, Refusal>),
    /// A piece of a stream.
    Piece(Piece),
}

impl Codec for Typed {
    type Tag<'a> = ();
    type Kept = ();
    type Output = Vec<Sent>;

    fn keep((): ()) {}

    fn tag((): &()) {}

    fn reply(output: &mut Vec<Sent>, (): (), reply: Result<Reply, Refusal>) {
        output.push(Sent::Reply(reply));
    }

    fn tell(output: &mut Vec<Sent>, piece: Piece) {
        output.push(Sent::Piece(piece));
    }

    fn append(output: &mut Vec<Sent>, mut more: Vec<Sent>) {
        output.append(&mut more);
    }

    fn bytes(output: &Vec<Sent>) -> usize {
        size_of_val(&output[..])
    }
}

/// A request on its way to a shard.
#[derive(Debug)]
pub struct Asked {
    /// The request.
    pub command: Command<'static>,
    /// Its approximate size.
    pub bytes: usize,
}

/// Takes the output of a session. The shard calls it, so it must not block.
pub trait Outlet: Send {
    /// Takes the output of one turn. Returns whether the thread still reads it.
    fn take(&mut self, sent: Vec<Sent>) -> bool;
    /// Whether a stream may continue.
    fn has_room(&self) -> bool;
}

/// Wakes the shard.
pub type Bell = Arc<dyn Fn() + Send + Sync>;

/// Opens a session with this shard.
pub type Opener = Arc<dyn Fn(u16, Box<dyn Outlet>) -> Option<Link> + Send + Sync>;

/// The thread's end. Dropping it ends the session.
pub struct Link {
    /// `None` only during the drop.
    requests: Option<Sender<Asked>>,
    bell: Bell,
}

/// The shard's end.
pub struct Seat {
    requests: Receiver<Asked>,
    outlet: Box<dyn Outlet>,
}

/// Makes the two ends of a session.
pub fn link(bell: Bell, outlet: Box<dyn Outlet>) -> (Link, Seat) {
    let (sender, requests) = unbounded();
    (Link { requests: Some(sender), bell }, Seat { requests, outlet })
}

impl Link {
    /// Sends a request; the caller must then call [`Link::ring`]. Returns whether the shard still reads.
    pub fn send(&self, asked: Asked) -> bool {
        self.requests.as_ref().is_some_and(|requests| requests.send(asked).is_ok())
    }

    /// Wakes the shard for new requests, or for room for its output.
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
    /// The next request. The error distinguishes an empty channel from a closed one.
    pub fn receive(&self) -> Result<Asked, TryRecvError> {
        self.requests.try_recv()
    }

    /// Whether a request is waiting.
    pub fn has_request(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Passes on the output of the session. Returns whether the thread still reads it.
    pub fn send(&mut self, sent: Vec<Sent>) -> bool {
        self.outlet.take(sent)
    }

    /// Whether a stream may continue.
    pub fn has_room(&self) -> bool {
        self.outlet.has_room()
    }
}
