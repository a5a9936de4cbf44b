//! The admin sessions of one shard: connections of the admin socket, each with its own buffers, and the sessions of this
//! process's own threads.

mod in_process;

use crate::admin::lines::reader::Parser;
use crate::admin::lines::{LineSession, writer};
use crate::admin::link::Seat;
use crate::api::Refusal;
use crate::config::Limits;
use crate::hub::Hub;
use crate::hub::mail::{Answer, Settled};
use crate::ids::{Asker, ShardId};
use crate::shard::clients::{Clients, ticks};
use crate::shard::listener::Pause;
use crate::shard::publish_budget::{PublishBudget, READ_BYTES_MAX};
use in_process::InProcess;
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use slab::Slab;
use std::io::{ErrorKind, Read, Write};

/// The admin connections, and the listener that all shards share.
pub struct Admins {
    me: ShardId,
    shards: usize,
    listener: Option<UnixListener>,
    is_listener_ready: bool,
    pause: Pause,
    connections: Slab<Admin>,
    /// Counts the sessions so far. In every [`Asker`], to tell sessions of one slot apart.
    generation: u32,
    parser: Parser,
    line_bytes_max: usize,
    in_process: InProcess,
    /// Bytes of lines that were read in this turn.
    pub read_bytes: usize,
    /// The slot that is served first.
    first: usize,
    /// The slot whose stream is served first.
    first_stream: usize,
}

struct Admin {
    socket: UnixStream,
    session: LineSession,
    /// Bytes that are read and not handled yet: at most a part of a line, unless the session is paused.
    input: Vec<u8>,
    /// Up to here, `input` has been searched for newlines.
    searched: usize,
    /// Bytes of the session's output that are written.
    written: usize,
    /// Tick at which the socket last took bytes.
    taken_at: u32,
    /// The socket may have more to read.
    is_unread: bool,
    /// The peer has closed its sending side; what it sent before may still be unread.
    is_eof_near: bool,
    is_blocked: bool,
    was_paused: bool,
    /// Its last publish went to many subscribers: the session waits until those messages are written.
    is_bulk: bool,
    /// The peer sends no more: the connection is closed when all its requests are answered.
    is_eof: bool,
    /// A line was over the limit: the connection is closed when the refusal is written.
    is_broken: bool,
}

impl Admins {
    /// No connections yet.
    pub fn new(me: ShardId, shards: usize, listener: UnixListener, line_bytes_max: usize) -> Admins {
        Admins {
            me,
            shards,
            listener: Some(listener),
            is_listener_ready: true,
            pause: Pause::default(),
            connections: Slab::new(),
            generation: 0,
            parser: Parser::default(),
            line_bytes_max,
            in_process: InProcess::new(me, shards),
            read_bytes: 0,
            first: 0,
            first_stream: 0,
        }
    }

    /// Applies new limits, from the next line on.
    pub fn apply(&mut self, limits: &Limits) {
        self.line_bytes_max = limits.admin_line_bytes_max;
    }

    /// The poll reported the listener.
    pub fn listener_ready(&mut self) {
        self.is_listener_ready = true;
    }

    /// Accepts waiting connections. All shards share the listener, so another may have been faster.
    pub fn accept(&mut self, registry: &Registry, hub: &mut Hub) {
        if !self.pause.is_over(hub.now) {
            return;
        }
        self.pause.end();
        while self.is_listener_ready
            && let Some(listener) = &self.listener
        {
            match listener.accept() {
                Ok((mut socket, _)) => {
                    hub.counters.admin_accepts += 1;
                    let slot = self.connections.vacant_key();
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    let registered = registry.register(&mut socket, Token(FIRST_TOKEN + slot), interest);
                    if self.connections.len() >= ADMINS_MAX || registered.is_err() {
                        hub.counters.admin_refused += 1;
                        refuse(&mut socket);
                        continue;
                    }
                    self.enter(socket);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_listener_ready = false,
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => {
                    // Out of descriptors. Without a pause the log would get thousands of lines a second.
                    hub.counters.accept_errors += 1;
                    tracing::warn!(shard = self.me, %error, "accepting admin connections pauses");
                    self.pause.begin(hub.now);
                    return;
                }
            }
        }
    }

    /// Ticks until accepting resumes, while it pauses.
    pub fn due_in(&self, now: u32) -> Option<u32> {
        self.pause.due_in(now).filter(|_| self.is_listener_ready && self.listener.is_some())
    }

    /// Adds a session of another thread of this process.
    pub fn adopt(&mut self, seat: Seat) {
        self.in_process.enter(seat);
    }

    /// Serves this connection on this shard, bypassing the listener.
    #[cfg(test)]
    pub fn adopt_socket(&mut self, mut socket: UnixStream, registry: &Registry) {
        let token = Token(FIRST_TOKEN + self.connections.vacant_key());
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE).expect("a poll");
        self.enter(socket);
    }

    fn enter(&mut self, socket: UnixStream) {
        self.generation = self.generation.wrapping_add(1);
        let slot = self.connections.vacant_key() as u32;
        let session = LineSession::new(self.me, self.shards, slot, self.generation, false);
        self.connections.insert(Admin {
            socket,
            session,
            input: Vec::new(),
            searched: 0,
            written: 0,
            taken_at: 0,
            is_unread: true,
            is_eof_near: false,
            is_blocked: false,
            was_paused: false,
            is_bulk: false,
            is_eof: false,
            is_broken: false,
        });
    }

    /// The poll reported a socket. `is_eof_near`: it also reported that the peer sends no more.
    pub fn ready(&mut self, slot: usize, reads: bool, is_eof_near: bool, writes: bool) {
        if let Some(admin) = self.connections.get_mut(slot) {
            admin.is_unread |= reads;
            admin.is_eof_near |= is_eof_near;
            admin.is_blocked &= !writes;
        }
    }

    /// Reads and handles requests within the turn's budget. The next turn begins with the session that was not served in this
    /// one. `is_open`: sessions that publish to many subscribers are served too.
    pub fn serve(
        &mut self,
        budget: PublishBudget,
        is_open: bool,
        hub: &mut Hub,
        clients: &mut Clients,
        buffer: &mut [u8],
    ) {
        let Admins { connections, parser, read_bytes, line_bytes_max, first, in_process, .. } = self;
        let slots = connections.capacity();
        let mut serving = Serving { parser, line_bytes_max: *line_bytes_max, read_bytes, budget, is_open };
        let start = *first;
        for slot in (start..slots).chain(0..start.min(slots)) {
            let Some(admin) = connections.get_mut(slot) else { continue };
            if !is_open && admin.is_bulk {
                continue;
            }
            admin.serve(&mut serving, hub, clients, buffer);
            if serving.is_exhausted(hub) {
                *first = slot + 1;
                break;
            }
        }
        in_process.serve(&mut serving, hub, clients);
    }

    /// Lets streams ask for their next pieces, a few in each turn, because pages of a snapshot take time.
    pub fn stream(&mut self, hub: &mut Hub, clients: &mut Clients) {
        self.in_process.stream(hub, clients);
        let (slots, start) = (self.connections.capacity(), self.first_stream);
        let mut left = STREAMS_PER_TURN;
        for slot in (start..slots).chain(0..start.min(slots)) {
            let Some(admin) = self.connections.get_mut(slot).filter(|admin| admin.may_stream()) else { continue };
            admin.session.stream_on(hub, clients);
            left -= 1;
            if left == 0 {
                self.first_stream = slot + 1;
                return;
            }
        }
    }

    /// Whether a stream can go on.
    pub fn may_stream(&self) -> bool {
        self.in_process.may_stream() || self.connections.iter().any(|(_, admin)| admin.may_stream())
    }

    /// Passes on what a shard answered.
    pub fn answer(&mut self, asker: Asker, answer: Answer, hub: &mut Hub, clients: &mut Clients) {
        if InProcess::has(asker) {
            self.in_process.answer(asker, answer, hub, clients);
        } else if let Some(admin) = self.session(asker) {
            admin.session.answer(asker, answer, hub, clients);
        }
    }

    /// Passes on what an owner settled.
    pub fn settle(&mut self, asker: Asker, settled: Settled) {
        if InProcess::has(asker) {
            self.in_process.settle(asker, settled);
        } else if let Some(admin) = self.session(asker) {
            admin.session.settle(asker, settled);
        }
    }

    fn session(&mut self, asker: Asker) -> Option<&mut Admin> {
        self.connections.get_mut(asker.session as usize).filter(|admin| admin.session.is(asker))
    }

    /// Writes each session's replies, all of a turn in one write, and drops sessions that have ended.
    pub fn flush(&mut self, is_stopping: bool, hub: &mut Hub, clients: &mut Clients) {
        self.in_process.flush(is_stopping, hub, clients);
        self.connections.retain(|_, admin| {
            let goes_on = admin.flush(clients.now) && !admin.ends_stream(is_stopping, clients.now);
            if !goes_on {
                admin.session.leave(hub, clients);
            }
            goes_on
        });
    }

    /// Whether a session can go on without an event of the poll.
    pub fn has_work(&self) -> bool {
        self.in_process.has_work() || self.connections.iter().any(|(_, admin)| admin.has_work())
    }

    /// Whether no publish waits to be settled.
    pub fn is_settled(&self) -> bool {
        let is_settled = |(_, admin): (usize, &Admin)| admin.session.unsettled() == 0;
        self.in_process.is_settled() && self.connections.iter().all(is_settled)
    }

    /// Whether all streams have ended, and no reply waits for a peer that reads.
    pub fn is_written(&self, now: u32) -> bool {
        let is_done = |admin: &Admin| admin.session.output.is_empty() || !admin.is_reading(now);
        let has_ended = |(_, admin): (usize, &Admin)| !admin.session.is_stream() && is_done(admin);
        self.in_process.has_no_stream() && self.connections.iter().all(has_ended)
    }

    /// Open admin connections.
    pub fn count(&self) -> usize {
        self.connections.len()
    }

    /// Accepts no more connections.
    pub fn stop_accepting(&mut self) {
        self.listener = None;
    }
}

/// What serving a session needs beside the session.
pub(super) struct Serving<'a> {
    parser: &'a mut Parser,
    line_bytes_max: usize,
    /// Bytes of requests that were read in this turn.
    pub(super) read_bytes: &'a mut usize,
    budget: PublishBudget,
    /// Sessions that publish to many subscribers are served too.
    pub(super) is_open: bool,
}

impl Serving<'_> {
    /// Whether the turn takes no more requests.
    pub(super) fn is_exhausted(&self, hub: &Hub) -> bool {
        *self.read_bytes >= READ_BYTES_MAX || self.budget.is_enough(hub.turn_output)
    }
}

impl Admin {
    fn has_work(&self) -> bool {
        (self.is_unread || self.has_line()) && !self.is_broken && self.session.may_read()
    }

    fn has_line(&self) -> bool {
        self.searched < self.input.len()
    }

    fn serve(&mut self, serving: &mut Serving<'_>, hub: &mut Hub, clients: &mut Clients, buffer: &mut [u8]) {
        self.is_bulk = false;
        self.lines(serving, hub, clients);
        while self.is_unread && self.is_served(serving, hub) {
            match self.socket.read(buffer) {
                Ok(0) => {
                    (self.is_unread, self.is_eof) = (false, true);
                    // The last line may lack its newline.
                    if self.input.last().is_some_and(|&byte| byte != b'\n') {
                        self.input.push(b'\n');
                        self.lines(serving, hub, clients);
                    }
                }
                Ok(n) => {
                    // After a short read the poll reports further bytes. An end of the stream behind these bytes is already
                    // reported.
                    self.is_unread = n == buffer.len() || self.is_eof_near;
                    self.input.extend_from_slice(&buffer[..n]);
                    self.lines(serving, hub, clients);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_unread = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => (self.is_unread, self.is_eof) = (false, true),
            }
        }
        let is_paused = !self.session.may_read();
        hub.counters.admin_pauses += u64::from(is_paused && !self.was_paused);
        self.was_paused = is_paused;
    }

    /// Whether the session may go on in this turn.
    fn is_served(&self, serving: &Serving<'_>, hub: &Hub) -> bool {
        let is_held_back = self.is_bulk && !serving.is_open;
        !self.is_broken && !is_held_back && !serving.is_exhausted(hub) && self.session.may_read()
    }

    /// Handles whole lines.
    fn lines(&mut self, serving: &mut Serving<'_>, hub: &mut Hub, clients: &mut Clients) {
        if self.session.has_begun_stream() {
            // A session that has become a stream takes no more requests.
            *serving.read_bytes += self.input.len();
            (self.input, self.searched) = (Vec::new(), 0);
            return;
        }
        let mut start = 0;
        while self.has_line() && self.is_served(serving, hub) {
            let Some(found) = memchr::memchr(b'\n', &self.input[self.searched..]) else {
                self.searched = self.input.len();
                break;
            };
            let end = self.searched + found;
            self.searched = end + 1;
            *serving.read_bytes += end + 1 - start;
            if end - start > serving.line_bytes_max {
                self.break_off(serving.line_bytes_max, hub, clients);
                break;
            }
            let line = self.input[start..end].strip_suffix(b"\r").unwrap_or(&self.input[start..end]);
            let bulk_bytes = hub.turn_output.bulk_bytes;
            self.session.line(line, serving.parser, hub, clients);
            self.is_bulk |= hub.turn_output.bulk_bytes > bulk_bytes;
            start = end + 1;
        }
        self.input.drain(..start);
        self.searched -= start;
        if self.searched > serving.line_bytes_max {
            self.break_off(serving.line_bytes_max, hub, clients);
        }
        if self.input.is_empty() && self.input.capacity() > INPUT_BYTES_KEPT {
            self.input = Vec::new();
        }
    }

    fn break_off(&mut self, limit: usize, hub: &mut Hub, clients: &mut Clients) {
        if !self.is_broken {
            self.session.line_too_long(limit, hub, clients);
            self.is_broken = true;
        }
    }

    /// Whether the socket has taken bytes recently.
    fn is_reading(&self, now: u32) -> bool {
        now.wrapping_sub(self.taken_at) < ticks(READ_TIMEOUT_MS)
    }

    /// Whether it is a stream that can go on. After the peer has closed its sending side nothing is added: the connection ends
    /// like any other, once everything is answered and written.
    fn may_stream(&self) -> bool {
        !self.is_eof && self.session.may_stream_on()
    }

    /// Whether the stream must end: it is complete, or the server stops and the stream has nothing left to report or is not
    /// read.
    fn ends_stream(&self, is_stopping: bool, now: u32) -> bool {
        let session = &self.session;
        session.is_stream()
            && (session.is_over() && session.is_answered() && session.output.is_empty()
                || is_stopping && !session.is_over() && !session.has_last_words()
                || is_stopping && !session.output.is_empty() && !self.is_reading(now))
    }

    /// Returns whether the connection stays.
    fn flush(&mut self, now: u32) -> bool {
        let output = &mut self.session.output;
        while !self.is_blocked && self.written < output.len() {
            match self.socket.write(&output[self.written..]) {
                Ok(n) => {
                    self.written += n;
                    self.taken_at = now;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_blocked = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        output.drain(..self.written);
        self.written = 0;
        if output.is_empty() && output.capacity() > OUTPUT_BYTES_KEPT {
            *output = Vec::new();
        }
        let says_no_more = self.is_broken || self.is_eof && !self.has_line();
        !(says_no_more && self.session.is_answered() && self.session.output.is_empty())
    }
}

/// Sends the refusal of a connection over the limit.
fn refuse(socket: &mut UnixStream) {
    let mut line = Vec::new();
    let refusal = Refusal::TooMany { what: "admin connections of a shard", limit: ADMINS_MAX };
    writer::refused(&mut line, "null", &refusal);
    // An empty send buffer takes it at once, unless the peer has closed.
    let _ = socket.write(&line);
}

/// Tokens below are slots of clients, from here on of admin connections.
pub const FIRST_TOKEN: usize = 1 << 32;
/// Admin connections of a shard.
pub const ADMINS_MAX: usize = 1024;
/// Streams that are served in one turn.
const STREAMS_PER_TURN: usize = 8;
/// A peer that takes no bytes for this long counts as not reading. A stop does not wait for it.
const READ_TIMEOUT_MS: u64 = 3000;
/// Capacity that an idle connection keeps of its input buffer, and of its output buffer.
const INPUT_BYTES_KEPT: usize = 512 * 1024;
const OUTPUT_BYTES_KEPT: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Identity;
    use crate::shard::Shard;
    use crate::shard::heartbeats::wheel::TICK_MS;
    use crate::shard::listener::PAUSE_TICKS;
    use crate::shard::trial::House;
    use socket2::{Domain, Socket, Type};
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    #[test]
    fn accepting_pauses_after_an_error() {
        // A socket that does not listen, so that accepting fails.
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        let listener = UnixListener::from_std(OwnedFd::from(socket).into());
        let mut admins = Admins::new(0, 1, listener, 1024);
        let mut hub = Hub::new(Identity { shard: 0, shards: 1, seed: [1, 2, 3, 4] }, &[], Limits::default());
        let poll = mio::Poll::new().expect("a poll");
        hub.now = u32::MAX;
        for (passed, expected) in [(0, 1), (0, 1), (PAUSE_TICKS - 1, 1), (1, 2), (0, 2)] {
            hub.now = hub.now.wrapping_add(passed);
            admins.accept(poll.registry(), &mut hub);
            assert_eq!(hub.counters.accept_errors, expected);
        }
    }

    #[test]
    fn accepting_is_tried_again_after_a_pause() {
        let mut house = House::new(1, |_| ());
        house.rest();
        let pause = Duration::from_millis(u64::from(PAUSE_TICKS) * TICK_MS);
        let Shard { admins, .. } = &mut house.shards[0];
        // A socket that does not listen, so that accepting fails.
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        admins.listener = Some(UnixListener::from_std(OwnedFd::from(socket).into()));
        admins.listener_ready();
        for errors in 1..3 {
            house.turn(0);
            assert_eq!(house.shards[0].hub.counters.accept_errors, errors);
            assert!(house.shards[0].timeout().is_some_and(|timeout| timeout <= pause && timeout > Duration::ZERO));
            house.pass(pause);
        }
        house.shards[0].admins.stop_accepting();
        assert_eq!(house.shards[0].timeout(), None);
    }
}
