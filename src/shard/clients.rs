//! The client connections of one shard: reading, heartbeats, writing, closing. Also the [`Port`] through which the hub
//! has its effects.

use crate::config::Limits;
use crate::hub::identity::SLOTS_MAX;
use crate::hub::mail::{Answer, Asker, ConnectionInfo, Mail, Question, Settled, ShardId, Slot};
use crate::hub::pages::{Chunk, Pages};
use crate::hub::{Heard, Hub, Port, Urgency};
use crate::metrics::Gauges;
use crate::protocol::close::CloseReason;
use crate::protocol::event;
use crate::shard::Shared;
use crate::shard::connection::{Connection, Phase};
use crate::shard::mesh::Mesh;
use crate::shard::outbox::Written;
use crate::shard::wheel::{TICK_MS, Wheel};
use crate::wire::frame::{self, Message, Opcode, Violation};
use crate::wire::upgrade::{Upgrade, upgrade};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use slab::Slab;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The connections, and what waits to be done for them in this turn.
pub struct Clients {
    me: ShardId,
    connections: Slab<Connection>,
    wheel: Wheel,
    /// The turn's tick.
    pub now: u32,
    /// Connections to be written to: replies and small channels first.
    soon: VecDeque<Slot>,
    /// Then the rest.
    bulk: VecDeque<Slot>,
    /// Connections that may have more to read than they were given room for.
    unread: VecDeque<Slot>,
    /// Connections that are not read until fewer of their replies wait.
    paused: Vec<Slot>,
    ended: Vec<Slot>,
    /// Connections that the hub wants closed.
    broken: Vec<(Slot, CloseReason)>,
    /// The mail to other shards.
    pub mesh: Mesh,
    /// Questions for this shard's sockets.
    pub asks: Vec<(Asker, Question)>,
    /// Answers for this shard's admin sessions.
    pub answers: Vec<(Asker, Answer)>,
    /// Settlements for this shard's admin sessions.
    pub settled: Vec<(Asker, Settled)>,
    /// Connections ended, by reason.
    pub closes: [u64; CloseReason::KINDS],
    /// Client connections of all shards.
    accepted: Arc<AtomicUsize>,
    /// Those of them that have a place below the limit.
    admitted: Arc<AtomicUsize>,
    limits: Limits,
    paths: Arc<[String]>,
    random: ahash::RandomState,
    response: Vec<u8>,
}

impl Clients {
    /// No connections yet.
    pub fn new(
        me: ShardId,
        mesh: Mesh,
        limits: Limits,
        paths: Arc<[String]>,
        shared: &Shared,
        random: ahash::RandomState,
    ) -> Clients {
        Clients {
            me,
            connections: Slab::new(),
            wheel: Wheel::new(0),
            now: 0,
            soon: VecDeque::new(),
            bulk: VecDeque::new(),
            unread: VecDeque::new(),
            paused: Vec::new(),
            ended: Vec::new(),
            broken: Vec::new(),
            mesh,
            asks: Vec::new(),
            answers: Vec::new(),
            settled: Vec::new(),
            closes: [0; CloseReason::KINDS],
            accepted: shared.accepted.clone(),
            admitted: shared.admitted.clone(),
            limits,
            paths,
            random,
            response: Vec::new(),
        }
    }

    /// A connection was accepted.
    pub fn enter(&mut self, mut socket: TcpStream, registry: &Registry, hub: &mut Hub) {
        hub.counters.accepts += 1;
        // Those beyond the limit are told so after their upgrade; those far beyond it are not listened to.
        let accepted = self.accepted.fetch_add(1, Relaxed);
        let token = Token(self.connections.vacant_key());
        let is_hopeless = accepted >= self.limits.connections_max.saturating_add(REFUSALS_MAX) || token.0 >= SLOTS_MAX;
        // Both at once, and never again: edge-triggered, so that writability costs nothing until a write is blocked.
        let registered = registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE);
        if is_hopeless || registered.is_err() {
            self.accepted.fetch_sub(1, Relaxed);
            let limit = self.limits.connections_max;
            self.closes[CloseReason::OverCapacity { limit }.kind()] += 1;
            return;
        }
        let slot = self.connections.insert(Connection::new(socket, self.now)) as Slot;
        self.wheel.arm(slot, self.now.wrapping_add(self.handshake_ticks()));
    }

    /// The poll reported a socket.
    pub fn ready(
        &mut self,
        slot: Slot,
        reads: bool,
        is_eof_near: bool,
        writes: bool,
        hub: &mut Hub,
        buffer: &mut [u8],
    ) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        if writes && connection.is_blocked {
            connection.is_blocked = false;
            self.mark(slot, Urgency::Soon);
        }
        if reads {
            self.read(slot, is_eof_near, hub, buffer);
        }
    }

    /// Reads again what was left in sockets by the turn before, and what was paused.
    pub fn read_rest(&mut self, hub: &mut Hub, buffer: &mut [u8]) {
        let (unread, paused) = (self.unread.len(), std::mem::take(&mut self.paused));
        for slot in paused {
            self.read_again(slot, hub, buffer);
        }
        for _ in 0..unread {
            let Some(slot) = self.unread.pop_front() else { break };
            self.read_again(slot, hub, buffer);
        }
    }

    fn read_again(&mut self, slot: Slot, hub: &mut Hub, buffer: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        if std::mem::take(&mut connection.is_unread) {
            // To the end: whether that is near was said by an event that is gone.
            self.read(slot, true, hub, buffer);
        }
    }

    /// One read. What does not fit is read in the next turn, so that nobody is kept waiting by one who says much.
    fn read(&mut self, slot: Slot, is_eof_near: bool, hub: &mut Hub, buffer: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        if connection.phase == Phase::Ended || connection.is_unread {
            return;
        }
        if hub.waiting_replies(slot) > WAITING_REPLIES_MAX {
            connection.is_unread = true;
            self.paused.push(slot);
            return;
        }
        match connection.socket.read(buffer) {
            Ok(0) => self.end(slot, &CloseReason::ClientGone, hub),
            Ok(n) => {
                hub.counters.bytes_in += n as u64;
                connection.heard_at = self.now;
                if n == buffer.len() || is_eof_near {
                    connection.is_unread = true;
                    self.unread.push_back(slot);
                }
                self.heard(slot, &mut buffer[..n], hub);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                connection.is_unread = true;
                self.unread.push_back(slot);
            }
            Err(_) => self.end(slot, &CloseReason::ClientGone, hub),
        }
    }

    fn heard(&mut self, slot: Slot, bytes: &mut [u8], hub: &mut Hub) {
        match self.connections[slot as usize].phase {
            Phase::Upgrading => self.upgrade(slot, bytes, hub),
            Phase::Open | Phase::Closing { reads: true, .. } => self.frames(slot, bytes, hub),
            Phase::Closing { reads: false, .. } | Phase::Ended => {}
        }
    }

    fn upgrade(&mut self, slot: Slot, bytes: &mut [u8], hub: &mut Hub) {
        let connection = &mut self.connections[slot as usize];
        let mut request = connection.request.take();
        let earlier = request.as_ref().map_or(0, |request| request.len());
        if let Some(request) = &mut request {
            request.extend_from_slice(bytes);
        }
        let input = request.as_deref().map_or(&*bytes, |request| request);
        let mut response = std::mem::take(&mut self.response);
        response.clear();
        match upgrade(input, &self.paths, &mut response) {
            Upgrade::Partial => {
                let request = request.unwrap_or_else(|| Box::new(bytes.to_vec()));
                self.connections[slot as usize].request = Some(request);
            }
            Upgrade::Accepted { request_len } => {
                hub.counters.upgrades += 1;
                hub.say_now(slot, self, |out| out.extend_from_slice(&response));
                self.open(slot, hub);
                // The rest belongs to the first frames. It cannot start before what came now: the request was not whole.
                let rest = &mut bytes[request_len - earlier..];
                if !rest.is_empty() {
                    self.heard(slot, rest, hub);
                }
            }
            Upgrade::Refused { why } => {
                hub.counters.upgrades_refused += 1;
                tracing::debug!(shard = self.me, slot, why, "upgrade refused");
                hub.say_now(slot, self, |out| out.extend_from_slice(&response));
                self.close(slot, CloseReason::UpgradeRefused, hub);
            }
        }
        self.response = response;
    }

    fn open(&mut self, slot: Slot, hub: &mut Hub) {
        let limit = self.limits.connections_max;
        if self.admitted.fetch_add(1, Relaxed) >= limit {
            self.admitted.fetch_sub(1, Relaxed);
            return self.close(slot, CloseReason::OverCapacity { limit }, hub);
        }
        let interval = self.interval_ticks();
        // Somewhere in the second half of the interval, so that clients that came together are not pinged together.
        let jitter = self.random.hash_one((slot, self.now)) as u32 % (interval / 2 + 1);
        let connection = &mut self.connections[slot as usize];
        connection.phase = Phase::Open;
        connection.is_admitted = true;
        connection.ping_at = self.now.wrapping_add(interval - jitter);
        let deadline = self.deadline(slot);
        self.wheel.arm(slot, deadline);
        hub.connect(slot, self);
    }

    fn frames(&mut self, slot: Slot, bytes: &mut [u8], hub: &mut Hub) {
        let mut decoder = std::mem::take(&mut self.connections[slot as usize].decoder);
        let mut at = 0;
        loop {
            let next = decoder.next(bytes, &mut at, self.limits.message_bytes_max);
            let phase = self.connections[slot as usize].phase;
            let is_open = phase == Phase::Open;
            match next {
                Ok(None) => break,
                Ok(Some(Message::Text(text))) if is_open => {
                    hub.counters.messages_in += 1;
                    if hub.hear(slot, text, self) == Heard::Pong {
                        self.pong(slot);
                    }
                }
                Ok(Some(Message::Binary(_))) if is_open => self.close(slot, CloseReason::BinaryMessage, hub),
                Ok(Some(Message::Ping(payload))) if is_open => hub.say_now(slot, self, |out| {
                    frame::encode_header(out, Opcode::Pong, payload.len());
                    out.extend_from_slice(payload);
                }),
                Ok(Some(Message::Close(close))) => {
                    let code = close.map(|(code, _)| code);
                    self.close(slot, CloseReason::ClientClosed { code }, hub);
                    self.connections[slot as usize].phase = Phase::Closing { reads: false, is_answered: true };
                    self.mark(slot, Urgency::Soon);
                    break;
                }
                Ok(Some(_)) => {}
                Err(violation) => {
                    let reason = match violation {
                        Violation::Protocol(what) => CloseReason::ProtocolError(what),
                        Violation::InvalidUtf8 => CloseReason::InvalidUtf8,
                        Violation::TooBig => CloseReason::MessageTooBig { limit: self.limits.message_bytes_max },
                    };
                    self.close(slot, reason, hub);
                    self.connections[slot as usize].phase = Phase::Closing { reads: false, is_answered: false };
                    break;
                }
            }
        }
        let connection = &mut self.connections[slot as usize];
        if matches!(connection.phase, Phase::Open | Phase::Closing { reads: true, .. }) {
            connection.decoder = decoder;
        }
    }

    // ---- heartbeats

    fn pong(&mut self, slot: Slot) {
        let interval = self.interval_ticks();
        let connection = &mut self.connections[slot as usize];
        if std::mem::take(&mut connection.is_pinged) {
            connection.ping_at = connection.ping_at.wrapping_add(interval);
            let deadline = self.deadline(slot);
            self.wheel.arm(slot, deadline);
        }
    }

    /// Looks after connections whose entry in the wheel came due. Returns whether some are left for the next turn.
    pub fn expire(&mut self, hub: &mut Hub) -> bool {
        for _ in 0..TIMERS_PER_TURN {
            let Some(slot) = self.wheel.expire(self.now) else {
                return false;
            };
            hub.counters.timers_fired += 1;
            self.expired(slot, hub);
        }
        true
    }

    fn expired(&mut self, slot: Slot, hub: &mut Hub) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        let is_due = |at: u32, now: u32| now.wrapping_sub(at) as i32 >= 0;
        let deadline = match connection.phase {
            Phase::Ended => return,
            Phase::Closing { .. } if is_due(connection.ping_at, self.now) => return self.finish(slot),
            Phase::Upgrading => {
                let deadline = connection.accepted_at.wrapping_add(self.handshake_ticks());
                if is_due(deadline, self.now) {
                    return self.end(slot, &CloseReason::HandshakeTimeout, hub);
                }
                deadline
            }
            Phase::Closing { .. } => connection.ping_at,
            Phase::Open => {
                if is_due(self.deadline(slot), self.now) && !self.beat(slot, hub) {
                    return;
                }
                self.deadline(slot)
            }
        };
        self.wheel.arm(slot, deadline);
    }

    /// An open connection's deadline has come: pings it, or closes it. Returns whether it goes on.
    fn beat(&mut self, slot: Slot, hub: &mut Hub) -> bool {
        let (timeout_s, silence_s) =
            (self.limits.heart_timeout_s, self.limits.heart_interval_s + self.limits.heart_timeout_s);
        let silent_at = self.silent_at(slot);
        let connection = &mut self.connections[slot as usize];
        let reason = if connection.is_pinged {
            CloseReason::PongTimeout { timeout_s }
        } else if self.now.wrapping_sub(silent_at) as i32 >= 0 {
            CloseReason::Silent { timeout_s: silence_s }
        } else {
            connection.is_pinged = true;
            connection.ping_at = self.now;
            hub.counters.pings_sent += 1;
            hub.say_now(slot, self, event::ping);
            return true;
        };
        self.close(slot, reason, hub);
        false
    }

    /// The tick at which an open connection has to be looked at.
    fn deadline(&self, slot: Slot) -> u32 {
        let connection = &self.connections[slot as usize];
        let silent_at = self.silent_at(slot);
        if connection.is_pinged {
            connection.ping_at.wrapping_add(ticks(u64::from(self.limits.heart_timeout_s) * 1000))
        } else if self.limits.server_ping && (silent_at.wrapping_sub(connection.ping_at) as i32) > 0 {
            connection.ping_at
        } else {
            silent_at
        }
    }

    fn silent_at(&self, slot: Slot) -> u32 {
        let silence_s = u64::from(self.limits.heart_interval_s) + u64::from(self.limits.heart_timeout_s);
        self.connections[slot as usize].heard_at.wrapping_add(ticks(silence_s * 1000))
    }

    fn interval_ticks(&self) -> u32 {
        ticks(u64::from(self.limits.heart_interval_s) * 1000)
    }

    fn handshake_ticks(&self) -> u32 {
        ticks(self.limits.handshake_timeout_ms)
    }

    // ---- the end

    /// Says why, and waits for the peer to close. What the connection was sent before goes first.
    pub fn close(&mut self, slot: Slot, reason: CloseReason, hub: &mut Hub) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        let was_open = connection.phase == Phase::Open;
        if !was_open && connection.phase != Phase::Upgrading {
            return;
        }
        self.count_end(slot, &reason);
        if was_open {
            tracing::debug!(shard = self.me, slot, socket_id = %hub.socket_id(slot), ?reason, "closing");
            hub.disconnect(slot, self);
        }
        let connection = &mut self.connections[slot as usize];
        connection.phase = Phase::Closing { reads: true, is_answered: false };
        self.drop_at(slot, self.now.wrapping_add(ticks(CLOSE_TIMEOUT_MS)));
        let connection = &mut self.connections[slot as usize];
        if let CloseReason::SlowConsumer { .. } = reason {
            match connection.outbox.cut_to_frame(&mut hub.pages) {
                Some(dropped) => hub.counters.outbox_bytes_dropped += dropped as u64,
                None => return self.finish(slot),
            }
        }
        if let CloseReason::ClientClosed { code: None } = reason {
            hub.say_now(slot, self, |out| frame::encode_header(out, Opcode::Close, 0));
        } else if let Some((code, text)) = reason.frame() {
            hub.say_now(slot, self, |out| frame::encode_close(out, code, &text));
        }
        self.mark(slot, Urgency::Soon);
    }

    /// The peer is gone, or is treated as if. What already waits for an upgraded connection is still offered to the socket: it
    /// may only have said that it sends no more.
    fn end(&mut self, slot: Slot, reason: &CloseReason, hub: &mut Hub) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        let phase = connection.phase;
        self.count_end(slot, reason);
        match phase {
            Phase::Upgrading | Phase::Ended => return self.finish(slot),
            Phase::Open => {
                hub.disconnect(slot, self);
                self.drop_at(slot, self.now.wrapping_add(ticks(CLOSE_TIMEOUT_MS)));
            }
            Phase::Closing { .. } => {}
        }
        self.connections[slot as usize].phase = Phase::Closing { reads: false, is_answered: true };
        self.mark(slot, Urgency::Soon);
    }

    /// Counts why a connection ends, once: accepts are the connections that are open and those that ended, by reason.
    fn count_end(&mut self, slot: Slot, reason: &CloseReason) {
        if self.connections[slot as usize].end() {
            self.closes[reason.kind()] += 1;
        }
    }

    /// A connection that is closing is dropped at this tick, whatever still waits for it.
    fn drop_at(&mut self, slot: Slot, at: u32) {
        self.connections[slot as usize].ping_at = at;
        self.wheel.arm(slot, at);
    }

    /// Nothing more is to be done for it.
    fn finish(&mut self, slot: Slot) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        if connection.phase != Phase::Ended {
            connection.phase = Phase::Ended;
            self.ended.push(slot);
        }
    }

    /// Closes whom the hub wants closed.
    pub fn close_broken(&mut self, hub: &mut Hub) {
        while let Some((slot, reason)) = self.broken.pop() {
            self.close(slot, reason, hub);
        }
    }

    /// Closes everybody. Until tick `deadline` they may take to read what they were sent before.
    pub fn close_all(&mut self, deadline: u32, hub: &mut Hub) {
        let slots: Vec<Slot> = self.connections.iter().map(|(slot, _)| slot as Slot).collect();
        for slot in slots {
            match self.connections[slot as usize].phase {
                Phase::Upgrading => self.end(slot, &CloseReason::ServerRestarting, hub),
                Phase::Open => {
                    self.close(slot, CloseReason::ServerRestarting, hub);
                    // Not at the deadline itself: who is late then is cut off, and counted.
                    self.drop_at(slot, deadline.wrapping_add(ticks(CLOSE_TIMEOUT_MS)));
                }
                Phase::Closing { .. } | Phase::Ended => {}
            }
        }
    }

    /// Ends everybody without another word. Returns how many still had something to be written.
    pub fn cut_off(&mut self, hub: &mut Hub) -> usize {
        let slots: Vec<Slot> = self.connections.iter().map(|(slot, _)| slot as Slot).collect();
        let late = slots.iter().filter(|&&slot| !self.connections[slot as usize].outbox.is_empty()).count();
        for slot in slots {
            self.count_end(slot, &CloseReason::ServerRestarting);
            self.finish(slot);
        }
        self.reap(hub);
        late
    }

    /// Frees the slots of connections that ended.
    pub fn reap(&mut self, hub: &mut Hub) {
        while let Some(slot) = self.ended.pop() {
            let Some(mut connection) = self.connections.try_remove(slot as usize) else {
                continue;
            };
            hub.counters.outbox_bytes_dropped += connection.outbox.clear(&mut hub.pages) as u64;
            self.wheel.cancel(slot);
            self.accepted.fetch_sub(1, Relaxed);
            self.admitted.fetch_sub(usize::from(connection.is_admitted), Relaxed);
        }
    }

    // ---- writing

    /// Queues a connection for the flush.
    fn mark(&mut self, slot: Slot, urgency: Urgency) {
        let connection = &mut self.connections[slot as usize];
        if !std::mem::replace(&mut connection.is_dirty, true) {
            match urgency {
                Urgency::Soon => self.soon.push_back(slot),
                Urgency::Bulk => self.bulk.push_back(slot),
            }
        }
    }

    /// Writes to connections that have something new, once each, up to the turn's budget.
    pub fn flush(&mut self, hub: &mut Hub) {
        for write in 0..WRITES_PER_TURN {
            // Also where requests flood in: neither mail nor publishers are taken while bulk is behind.
            let is_bulks_turn = write % BULK_EVERY == BULK_EVERY - 1;
            let bulk = if is_bulks_turn || self.soon.is_empty() { self.bulk.pop_front() } else { None };
            let Some(slot) = bulk.or_else(|| self.soon.pop_front()) else {
                return;
            };
            self.write(slot, hub);
        }
    }

    fn write(&mut self, slot: Slot, hub: &mut Hub) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        if !std::mem::take(&mut connection.is_dirty) || connection.phase == Phase::Ended {
            return;
        }
        let limit = self.limits.outbox_bytes_max;
        if !connection.is_blocked || connection.outbox.bytes() > limit {
            match connection.outbox.write(&mut hub.pages, &mut connection.socket) {
                Ok((written, taken, calls)) => {
                    hub.counters.bytes_out += taken as u64;
                    hub.counters.writes += calls as u64;
                    connection.is_blocked = written == Written::Blocked;
                    hub.counters.writes_blocked += u64::from(connection.is_blocked);
                }
                Err(_) => {
                    let was_open = connection.phase == Phase::Open;
                    self.count_end(slot, &CloseReason::ClientGone);
                    if was_open {
                        hub.disconnect(slot, self);
                    }
                    return self.finish(slot);
                }
            }
        } else {
            connection.outbox.unpin(&mut hub.pages);
        }
        let pending = connection.outbox.bytes();
        match connection.phase {
            Phase::Open if pending > limit => {
                self.close(slot, CloseReason::SlowConsumer { limit, pending }, hub);
            }
            Phase::Closing { is_answered, .. } if pending == 0 => {
                if is_answered {
                    self.finish(slot);
                } else {
                    // The peer reads the close frame, then the end; it answers, and its end is ours.
                    let _ = connection.socket.shutdown(Shutdown::Write);
                    self.drop_at(slot, self.now.wrapping_add(ticks(CLOSE_TIMEOUT_MS)));
                }
            }
            _ => {}
        }
    }

    // ---- what the turn wants to know

    /// Whether the next turn has something to do without being told by the poll.
    pub fn has_work(&self, hub: &Hub) -> bool {
        !self.soon.is_empty()
            || !self.bulk.is_empty()
            || !self.unread.is_empty()
            || !self.ended.is_empty()
            // Replies may have gone out since paused connections were last looked at.
            || self.paused.iter().any(|&slot| hub.waiting_replies(slot) <= WAITING_REPLIES_MAX)
    }

    /// Whether bulk output of earlier turns waits to be written.
    pub fn is_behind(&self) -> bool {
        !self.bulk.is_empty()
    }

    /// Ticks until the next heartbeat or deadline.
    pub fn due_in(&self) -> Option<u32> {
        self.wheel.due_in(self.now)
    }

    /// Connections in any phase.
    pub fn count(&self) -> usize {
        self.connections.len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    // ---- what operators ask

    /// One connection.
    pub fn info(&self, slot: Slot, hub: &Hub) -> Option<ConnectionInfo> {
        let connection = self.connections.get(slot as usize).filter(|connection| connection.phase == Phase::Open)?;
        Some(ConnectionInfo {
            socket_id: hub.socket_id(slot),
            address: connection.socket.peer_addr().ok(),
            shard: self.me,
            age_s: u64::from(self.now.wrapping_sub(connection.accepted_at)) * TICK_MS / 1000,
            subscriptions: hub.channels_of(slot).count(),
            outbox_bytes: connection.outbox.bytes(),
        })
    }

    /// A page of the open connections: up to `limit` from slot `after` on, and where to go on.
    pub fn page(&self, limit: usize, after: Slot, hub: &Hub) -> (Vec<ConnectionInfo>, Option<Slot>) {
        let mut page = Vec::new();
        let end = self.connections.capacity() as Slot;
        let stop = end.min(after.saturating_add(SCAN_MAX));
        for slot in after..stop {
            if self.connections.get(slot as usize).is_none_or(|connection| connection.phase != Phase::Open) {
                continue;
            }
            if page.len() == limit {
                return (page, Some(slot));
            }
            page.extend(self.info(slot, hub));
        }
        (page, (stop < end).then_some(stop))
    }

    /// What is held now. Walks the connections.
    pub fn gauges(&self, hub: &Hub) -> Gauges {
        let (subscriptions, channels) = hub.sizes();
        let mut gauges = Gauges {
            subscriptions: subscriptions as u64,
            channels: channels as u64,
            page_bytes: hub.pages.held_bytes() as u64,
            mail_waiting: self.mesh.waiting() as u64,
            ..Gauges::default()
        };
        for (_, connection) in &self.connections {
            gauges.outbox_bytes += connection.outbox.bytes() as u64;
            match connection.phase {
                Phase::Upgrading => gauges.connections_upgrading += 1,
                Phase::Open => gauges.connections += 1,
                Phase::Closing { .. } | Phase::Ended => gauges.connections_closing += 1,
            }
        }
        gauges
    }
}

impl Port for Clients {
    fn lay(&mut self, pages: &mut Pages, slot: Slot, chunk: Chunk, urgency: Urgency) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        if connection.phase == Phase::Ended {
            return;
        }
        connection.outbox.push(pages, chunk);
        self.mark(slot, urgency);
    }

    fn mail(&mut self, to: ShardId, mail: Mail) {
        self.mesh.send(to, mail);
    }

    fn mail_after(&mut self, after: &[ShardId], to: ShardId, mail: Mail) {
        self.mesh.send_after(after, to, mail);
    }

    fn ask(&mut self, asker: Asker, question: Question) {
        self.asks.push((asker, question));
    }

    fn answer(&mut self, asker: Asker, answer: Answer) {
        self.answers.push((asker, answer));
    }

    fn settle(&mut self, asker: Asker, settled: Settled) {
        self.settled.push((asker, settled));
    }

    fn close(&mut self, slot: Slot, reason: CloseReason) {
        self.broken.push((slot, reason));
    }
}

/// Milliseconds in ticks, rounded up.
pub fn ticks(ms: u64) -> u32 {
    ms.div_ceil(TICK_MS).min(u64::from(u32::MAX / 4)) as u32
}

/// Replies of a connection that may wait for owners before it is no longer read.
const WAITING_REPLIES_MAX: usize = 256;
/// Connections beyond the limit that are still told so.
const REFUSALS_MAX: usize = 256;
/// How long a peer may take to answer a close frame.
const CLOSE_TIMEOUT_MS: u64 = 3000;
/// About 2 to 4 ms of system calls.
const WRITES_PER_TURN: usize = 512;
/// One write in so many is bulk's, however much is soon.
const BULK_EVERY: usize = 4;
const TIMERS_PER_TURN: usize = 1024;
/// Slots that one page looks at.
const SCAN_MAX: u32 = 65_536;
