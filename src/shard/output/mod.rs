//! What the shard's connections are sent: an outbox for each, and the queue of those that wait for a write.
//!
//! The hub adds messages and replies; the shard itself adds HTTP responses, heartbeats and close frames. All bytes lie in the
//! pages of the hub, which are passed by reference.

pub mod outbox;
pub mod write_queue;

use crate::hub::Urgency;
use crate::hub::audience::conflation::NOTSENT_BYTES;
use crate::hub::audience::pages::{Chunk, Pages};
use crate::ids::{SLOTS_RESERVED, Slot};
use crate::shard::tls::{SCRATCH_BYTES, Session};
use mio::net::TcpStream;
use outbox::{Outbox, Written};
use socket2::SockRef;
use std::io;
use write_queue::{Progress, WriteQueue};

/// The outboxes of a shard's connections and their order of writing. By slot: 33 bytes for a connection that nothing waits for.
pub struct Output {
    outboxes: Vec<Outbox>,
    states: Vec<State>,
    queue: WriteQueue,
    /// Bytes added so far: written, waiting, or dropped.
    bytes_encoded: u64,
    /// Where TLS records are encrypted before they are sent. Empty until the first.
    scratch: Vec<u8>,
}

impl Default for Output {
    fn default() -> Output {
        Output {
            outboxes: Vec::with_capacity(SLOTS_RESERVED),
            states: Vec::with_capacity(SLOTS_RESERVED),
            queue: WriteQueue::default(),
            bytes_encoded: 0,
            scratch: Vec::new(),
        }
    }
}

/// What the writes of one connection depend on.
#[derive(Clone, Copy, Default)]
struct State(u8);

impl State {
    /// Bytes may be added.
    const OPEN: u8 = 1;
    /// The kernel took no more; the poll reports the socket.
    const BLOCKED: u8 = 2;
    /// It waits in the queue's lane "soon", or that of newcomers.
    const QUEUED_SOON: u8 = 4;
    /// It waits in the queue's lane for bulk.
    const QUEUED_BULK: u8 = 8;
    /// Messages are held back for it.
    const LAGGING: u8 = 16;
    /// The kernel holds little for it.
    const FRESH: u8 = 32;
    const QUEUED: u8 = State::QUEUED_SOON | State::QUEUED_BULK;

    fn has(self, bits: u8) -> bool {
        self.0 & bits != 0
    }

    fn set(&mut self, bits: u8, on: bool) {
        self.0 = if on { self.0 | bits } else { self.0 & !bits };
    }
}

/// The result of a write.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Why it returned.
    pub written: Written,
    /// Bytes taken from the outbox.
    pub taken: usize,
    /// System calls made.
    pub calls: usize,
}

/// Where the bytes of a connection go.
pub struct Destination<'a> {
    /// Its socket.
    pub socket: &'a mut TcpStream,
    /// The TLS session on the socket; without one it is plain.
    pub tls: Option<&'a mut Session>,
}

/// The life of an outbox.
impl Output {
    /// A connection was accepted: bytes may be added.
    pub fn open(&mut self, slot: Slot) {
        let at = slot as usize;
        if at >= self.outboxes.len() {
            self.outboxes.resize_with(at + 1, Outbox::default);
            self.states.resize(at + 1, State::default());
        }
        self.states[at] = State(State::OPEN);
    }

    /// The connection has ended: nothing more is added or written. What waits is dropped by [`Output::clear`].
    pub fn shut(&mut self, slot: Slot) {
        self.states[slot as usize].set(State::OPEN, false);
    }

    /// Drops all that waits. Returns its bytes.
    pub fn clear(&mut self, pages: &mut Pages, slot: Slot) -> usize {
        self.outboxes[slot as usize].clear(pages)
    }

    /// Drops what waits, except for bytes that must go out before another frame can follow. Returns the bytes dropped, and
    /// whether a frame can follow.
    pub fn cut_to_frame(&mut self, pages: &mut Pages, slot: Slot) -> (usize, bool) {
        let waiting = self.waiting(slot);
        let cut = self.outboxes[slot as usize].cut_to_frame(pages);
        (cut.unwrap_or(waiting), cut.is_some())
    }

    /// Bytes that wait for the connection.
    pub fn waiting(&self, slot: Slot) -> usize {
        self.outboxes[slot as usize].bytes()
    }

    /// Whether so many replies wait for the connection that its requests are not read.
    #[inline]
    pub fn holds_requests(&self, slot: Slot) -> bool {
        let outbox = &self.outboxes[slot as usize];
        outbox.bytes() > UNREAD_REPLIES_MAX && outbox.replies() > UNREAD_REPLIES_MAX
    }
}

/// Adding bytes. Each method queues the connection. `is_newcomer`: whether it was accepted within the last second; called only
/// if it is not queued yet.
impl Output {
    /// Adds a chunk to the output of a connection.
    #[inline]
    pub fn append(
        &mut self,
        pages: &mut Pages,
        slot: Slot,
        chunk: Chunk,
        urgency: Urgency,
        is_newcomer: impl FnOnce() -> bool,
    ) {
        if !self.states.get(slot as usize).is_some_and(|state| state.has(State::OPEN)) {
            return;
        }
        self.outboxes[slot as usize].push(pages, chunk);
        self.bytes_encoded += chunk.len() as u64;
        self.mark(slot, urgency, is_newcomer);
    }

    /// Adds a frame of the shard's own: a heartbeat, a pong, a close frame.
    pub fn send(
        &mut self,
        pages: &mut Pages,
        slot: Slot,
        is_newcomer: impl FnOnce() -> bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let chunk = pages.append_single(write);
        self.append(pages, slot, chunk, Urgency::Soon, is_newcomer);
    }

    /// Adds the HTTP response, which comes before all frames and is never cut.
    pub fn respond(&mut self, pages: &mut Pages, slot: Slot, response: &[u8]) {
        let chunk = pages.append_single(|out| out.extend_from_slice(response));
        self.outboxes[slot as usize].push_preamble(pages, chunk);
        self.bytes_encoded += chunk.len() as u64;
        self.mark(slot, Urgency::Soon, || true);
    }

    /// Queues a connection: it has something to write, or its state must be checked.
    #[inline]
    pub fn mark(&mut self, slot: Slot, urgency: Urgency, is_newcomer: impl FnOnce() -> bool) {
        let state = &mut self.states[slot as usize];
        let (queued, covered) = match urgency {
            Urgency::Soon => (State::QUEUED_SOON, State::QUEUED),
            Urgency::Bulk => (State::QUEUED_BULK, State::QUEUED_BULK),
        };
        if !state.has(covered) {
            state.set(queued, true);
            self.queue.push(slot, urgency, is_newcomer);
        }
    }
}

/// Writing.
impl Output {
    /// The next connection to write to.
    pub fn pop(&mut self) -> Option<Slot> {
        self.queue.pop()
    }

    /// Reports the result for the connection that [`Output::pop`] returned.
    pub fn looked(&mut self, was_written_to: bool) {
        self.queue.looked(was_written_to);
    }

    /// Takes a connection off the queue. Returns whether it was on it and has not ended.
    pub fn take_queued(&mut self, slot: Slot) -> bool {
        let Some(state) = self.states.get_mut(slot as usize) else { return false };
        let was_queued = state.has(State::QUEUED);
        state.set(State::QUEUED, false);
        was_queued && state.has(State::OPEN)
    }

    /// Writes all that waits, or as much as the kernel takes.
    ///
    /// # Errors
    /// Those of the socket. Bytes that the kernel took before the error no longer wait.
    pub fn write(&mut self, pages: &mut Pages, slot: Slot, to: Destination<'_>) -> io::Result<Sent> {
        let outbox = &mut self.outboxes[slot as usize];
        let (written, taken, calls) = match to.tls {
            None => outbox.write(pages, to.socket)?,
            Some(tls) => {
                self.scratch.resize(SCRATCH_BYTES, 0);
                tls.write(to.socket, outbox, pages, &mut self.scratch)?
            }
        };
        self.set_blocked(slot, written == Written::Blocked);
        Ok(Sent { written, taken, calls })
    }

    /// The connection is blocked and cannot be written to: frees what its outbox need not keep.
    pub fn unpin(&mut self, pages: &mut Pages, slot: Slot) {
        self.outboxes[slot as usize].unpin(pages);
    }

    /// Whether the kernel took no more.
    pub fn is_blocked(&self, slot: Slot) -> bool {
        self.states[slot as usize].has(State::BLOCKED)
    }

    /// Notes whether the kernel takes no more.
    pub fn set_blocked(&mut self, slot: Slot, is_blocked: bool) {
        self.states[slot as usize].set(State::BLOCKED, is_blocked);
    }
}

/// Channels that conflate.
impl Output {
    /// Keeps what waits in the kernel short. Without effect where the system does not support it.
    pub fn keep_fresh(&mut self, slot: Slot, socket: &TcpStream) {
        let state = &mut self.states[slot as usize];
        if !state.has(State::FRESH) {
            state.set(State::FRESH, true);
            let _ = SockRef::from(socket).set_tcp_notsent_lowat(NOTSENT_BYTES);
        }
    }

    /// Notes whether messages are held back.
    pub fn set_lagging(&mut self, slot: Slot, is_lagging: bool) {
        self.states[slot as usize].set(State::LAGGING, is_lagging);
    }

    /// Whether messages are held back, and are to be sent once nothing else waits.
    pub fn is_lagging(&self, slot: Slot) -> bool {
        self.states[slot as usize].has(State::LAGGING)
    }
}

/// All connections together.
impl Output {
    /// Whether no connection waits for a write.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether bulk output of earlier turns waits for a write.
    pub fn is_behind(&self) -> bool {
        self.queue.has_bulk()
    }

    /// How far the queue has come.
    pub fn taken(&self) -> Progress {
        self.queue.taken()
    }

    /// How far the queue will have come once all that waits now is taken.
    pub fn end(&self) -> Progress {
        self.queue.end()
    }

    /// The connections that something waits for, each with the memory that its outbox keeps. The largest are first. `held`:
    /// memory that a connection takes elsewhere.
    pub fn largest(&self, pages: &Pages, held: impl Fn(Slot) -> usize) -> Vec<(usize, Slot)> {
        let kept = self.outboxes.iter().zip(0..).map(|(outbox, slot)| (outbox.kept_bytes(pages) + held(slot), slot));
        let mut largest: Vec<(usize, Slot)> = kept.filter(|(bytes, _)| *bytes > 0).collect();
        largest.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        largest
    }

    /// Bytes added so far.
    pub fn bytes_encoded(&self) -> u64 {
        self.bytes_encoded
    }
}

/// Bytes of replies that may wait for a connection before the shard stops reading from it.
pub const UNREAD_REPLIES_MAX: usize = 64 * 1024;
/// Heap bytes for a connection that nothing waits for.
pub const ENTRY_BYTES: usize = size_of::<Outbox>() + size_of::<State>();
/// Connections that one turn looks at, whether or not there is something to write.
pub const LOOKS_PER_TURN: usize = 4096;
