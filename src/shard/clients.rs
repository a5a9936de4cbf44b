//! The client connections of one shard: reading, heartbeats, writing, closing. Also the [`Port`] through which the hub
//! has its effects.

use crate::config::Live;
use crate::hub::addresses::Verdict;
use crate::hub::identity::SLOTS_MAX;
use crate::hub::mail::{Answer, Arrival, Asker, Mail, Question, Settled, ShardId, Slot};
use crate::hub::pages::{Chunk, Pages};
use crate::hub::places::Places;
use crate::hub::{Heard, Hub, Port, Urgency};
use crate::protocol::close::CloseReason;
use crate::protocol::heartbeat::Heartbeat;
use crate::shard::connection::{Census, Connection, Phase};
use crate::shard::mesh::Mesh;
use crate::shard::output::Output;
use crate::shard::wheel::{TICK_MS, Wheel};
use crate::shard::{READ_BYTES, Shared};
use crate::wire::frame::{Message, Opcode};
use crate::wire::upgrade::REFUSALS;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use slab::Slab;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

mod aging;
mod arrival;
pub mod echo;
mod ending;
mod heartbeat;
pub mod leaving;
mod operators;
pub mod pace;
mod secure;
mod writing;

use heartbeat::EarlierHeart;
use leaving::Plan;
use pace::Allowances;

/// The connections, and what waits to be done for them in this turn.
pub struct Clients {
    me: ShardId,
    connections: Slab<Connection>,
    census: Census,
    wheel: Wheel,
    /// The turn's tick.
    pub now: u32,
    /// What the connections are sent.
    pub output: Output,
    /// Connections that may have more to read than they were given room for.
    unread: VecDeque<Slot>,
    /// Those who have only just come and have something to read, when it is their turn.
    newcomers: VecDeque<Slot>,
    /// Upgrades whose request waited for the verdict on their address, which has come.
    judged: VecDeque<Slot>,
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
    places: Places,
    /// Who is asked to leave.
    plan: Option<Plan>,
    /// Of owners of addresses, for connections that arrived.
    verdicts: Vec<(Arrival, Verdict)>,
    allowances: Allowances,
    /// When a log line last said that an address has too much.
    warned_at: Option<u32>,
    /// Connections ended, by reason.
    pub closes: [u64; CloseReason::KINDS],
    /// Upgrade requests refused, by what was wrong.
    pub refusals: [u64; REFUSALS.len()],
    /// Client connections of all shards.
    accepted: Arc<AtomicUsize>,
    /// Those of them that have a place below the limit.
    admitted: Arc<AtomicUsize>,
    live: Arc<Live>,
    earlier_heart: Option<EarlierHeart>,
    /// Tick at which the present limit of age came into force.
    aged_since: u32,
    random: ahash::RandomState,
    response: Vec<u8>,
    /// What a read of a TLS session decrypts to.
    plain: Vec<u8>,
}

impl Clients {
    /// No connections yet.
    pub fn new(me: ShardId, mesh: Mesh, live: Arc<Live>, shared: &Shared, random: ahash::RandomState) -> Clients {
        Clients {
            me,
            connections: Slab::new(),
            census: Census::default(),
            wheel: Wheel::new(0),
            now: 0,
            output: Output::default(),
            unread: VecDeque::new(),
            newcomers: VecDeque::new(),
            judged: VecDeque::new(),
            paused: Vec::new(),
            ended: Vec::new(),
            broken: Vec::new(),
            mesh,
            asks: Vec::new(),
            answers: Vec::new(),
            settled: Vec::new(),
            places: Places::default(),
            plan: None,
            verdicts: Vec::new(),
            allowances: Allowances::default(),
            warned_at: None,
            closes: [0; CloseReason::KINDS],
            refusals: [0; REFUSALS.len()],
            accepted: shared.accepted.clone(),
            admitted: shared.admitted.clone(),
            live,
            earlier_heart: None,
            aged_since: 0,
            random,
            response: Vec::new(),
            plain: Vec::new(),
        }
    }

    /// Holds to new settings: at once, but for what a client was told when it came.
    pub fn apply(&mut self, live: Arc<Live>) {
        self.remember_heart(&live.limits);
        self.remember_age(&live.limits);
        // Buckets are of the old size: everybody begins with a full one.
        self.allowances = Allowances::default();
        self.live = live;
    }

    /// A connection was accepted.
    pub fn enter(&mut self, mut socket: TcpStream, peer: SocketAddr, registry: &Registry, hub: &mut Hub) {
        hub.counters.accepts += 1;
        // Those beyond the limit are told so after their upgrade; those far beyond it are not listened to.
        let accepted = self.accepted.fetch_add(1, Relaxed);
        let token = Token(self.connections.vacant_key());
        let is_hopeless =
            accepted >= self.live.limits.connections_max.saturating_add(REFUSALS_MAX) || token.0 >= SLOTS_MAX;
        // Both at once, and never again: edge-triggered, so that writability costs nothing until a write is blocked.
        let registered = registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE);
        if is_hopeless || registered.is_err() {
            self.accepted.fetch_sub(1, Relaxed);
            let limit = self.live.limits.connections_max;
            self.closes[CloseReason::OverCapacity { limit }.kind()] += 1;
            return;
        }
        let slot = self.connections.insert(Connection::new(socket, self.now)) as Slot;
        self.output.open(slot);
        self.census.enter(Phase::Upgrading);
        self.secure(slot, hub);
        self.wheel.arm(slot, self.now.wrapping_add(self.handshake_ticks()));
        self.arrive(slot, peer, hub);
    }

    /// A connection goes on in its life.
    fn go_on(&mut self, slot: Slot, phase: Phase) {
        let connection = &mut self.connections[slot as usize];
        self.census.leave(std::mem::replace(&mut connection.phase, phase));
        self.census.enter(phase);
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
        connection.is_eof_near |= is_eof_near;
        if writes && self.output.is_blocked(slot) {
            self.output.set_blocked(slot, false);
            self.mark(slot);
        }
        if reads {
            self.read(slot, hub, buffer);
        }
    }

    /// Reads again what was left in sockets by earlier turns, and what was paused, up to the turn's budget.
    pub fn read_rest(&mut self, hub: &mut Hub, buffer: &mut [u8]) {
        self.unread.extend(self.paused.drain(..));
        let bytes_end = hub.counters.bytes_in + READ_AGAIN_BYTES_PER_TURN;
        for _ in 0..self.unread.len() {
            if hub.counters.bytes_in >= bytes_end {
                return;
            }
            let Some(slot) = self.unread.pop_front() else { break };
            self.read_again(slot, hub, buffer);
        }
    }

    fn read_again(&mut self, slot: Slot, hub: &mut Hub, buffer: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(slot as usize) else {
            return;
        };
        if std::mem::take(&mut connection.is_unread) {
            self.read(slot, hub, buffer);
        }
    }

    /// One read. What does not fit is read in the next turn, so that nobody is kept waiting by one who says much.
    fn read(&mut self, slot: Slot, hub: &mut Hub, buffer: &mut [u8]) {
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
        if self.echo_pauses(slot) {
            self.connections[slot as usize].is_unread = true;
            hub.counters.echo_pauses += 1;
            return;
        }
        if !self.connections[slot as usize].is_newcomer(self.now) {
            self.take(slot, hub, buffer);
        } else if self.may_read(slot, hub, buffer) {
            self.connections[slot as usize].is_unread = true;
            self.newcomers.push_back(slot);
        }
    }

    /// Takes what one read brings. Returns whether a flight of a TLS handshake was made.
    fn take(&mut self, slot: Slot, hub: &mut Hub, buffer: &mut [u8]) -> bool {
        let connection = &mut self.connections[slot as usize];
        if connection.aside.as_ref().is_some_and(|aside| aside.tls.is_some()) {
            return self.read_secure(slot, hub, buffer);
        }
        match connection.socket.read(buffer) {
            Ok(0) => self.end(slot, &CloseReason::ClientGone, hub),
            Ok(n) => {
                hub.counters.bytes_in += n as u64;
                connection.heard_at = self.now;
                if n == buffer.len() || connection.is_eof_near {
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
        false
    }

    fn heard(&mut self, slot: Slot, bytes: &mut [u8], hub: &mut Hub) {
        match self.connections[slot as usize].phase {
            Phase::Upgrading => return self.upgrade(slot, bytes, hub),
            Phase::Open | Phase::Closing { reads: true, .. } => self.frames(slot, bytes, hub),
            Phase::Echoing { .. } => self.echo(slot, bytes, hub),
            Phase::Closing { reads: false, .. } | Phase::Ended => return,
        }
        if self.is_paced() {
            self.weigh(slot, bytes.len(), hub);
        }
    }

    fn frames(&mut self, slot: Slot, bytes: &mut [u8], hub: &mut Hub) {
        let mut decoder = std::mem::take(&mut self.connections[slot as usize].decoder);
        let mut at = 0;
        let is_paced = self.is_paced();
        loop {
            let is_open = self.connections[slot as usize].phase == Phase::Open;
            if is_open
                && decoder.is_between_messages()
                && let Some((heartbeat, frame_len)) = Heartbeat::read(&mut bytes[at..])
            {
                at += frame_len;
                if !is_paced || !self.is_too_fast(slot, &Message::Text(heartbeat.text()), hub) {
                    hub.counters.messages_in += 1;
                    match heartbeat.ping_id() {
                        Some(id) => hub.answer_ping(slot, id, self),
                        None => self.pong(slot),
                    }
                }
                continue;
            }
            let next = decoder.next(bytes, &mut at, self.live.limits.message_bytes_max);
            if is_paced
                && is_open
                && let Ok(Some(message)) = &next
                && self.is_too_fast(slot, message, hub)
            {
                continue;
            }
            match next {
                Ok(None) => break,
                Ok(Some(Message::Text(text))) if is_open => {
                    hub.counters.messages_in += 1;
                    if hub.hear(slot, text, self) == Heard::Pong {
                        self.pong(slot);
                    }
                }
                Ok(Some(Message::Binary(_))) if is_open => self.close(slot, CloseReason::BinaryMessage, hub),
                Ok(Some(Message::Ping(payload))) if is_open => self.say_frame(slot, Opcode::Pong, payload, hub),
                Ok(Some(Message::Close(close))) => return self.answer_close(slot, close.map(|(code, _)| code), hub),
                Ok(Some(_)) => {}
                Err(violation) => return self.fail(slot, violation, hub),
            }
        }
        let connection = &mut self.connections[slot as usize];
        if matches!(connection.phase, Phase::Open | Phase::Closing { reads: true, .. }) {
            connection.decoder = decoder;
        }
    }

    // ---- what the turn wants to know

    /// Whether the next turn has something to do without being told by the poll.
    pub fn has_work(&self, hub: &Hub) -> bool {
        !self.output.is_idle()
            || !self.unread.is_empty()
            || !self.newcomers.is_empty()
            || !self.judged.is_empty()
            || !self.broken.is_empty()
            || !self.ended.is_empty()
            || !self.verdicts.is_empty()
            // Events that the turn's end told a session of this shard.
            || !self.answers.is_empty()
            // Replies may have gone out since paused connections were last looked at.
            || self.paused.iter().any(|&slot| hub.waiting_replies(slot) <= WAITING_REPLIES_MAX)
    }

    /// Ticks until the next heartbeat or deadline, or until somebody is to leave.
    pub fn due_in(&self) -> Option<u32> {
        [self.wheel.due_in(self.now), self.leaving_due_in()].into_iter().flatten().min()
    }

    /// Connections in any phase.
    pub fn count(&self) -> usize {
        self.connections.len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }
}

impl Port for Clients {
    fn lay(&mut self, pages: &mut Pages, slot: Slot, chunk: Chunk, urgency: Urgency) {
        let Clients { output, connections, now, .. } = self;
        output.lay(pages, slot, chunk, urgency, || connections[slot as usize].is_newcomer(*now));
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

    fn admit(&mut self, arrival: Arrival, verdict: Verdict) {
        self.verdicts.push((arrival, verdict));
    }

    fn address(&self, slot: Slot) -> Option<SocketAddr> {
        Clients::address(self, slot)
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
pub const WAITING_REPLIES_MAX: usize = 256;
/// Connections beyond the limit that are still told so.
pub const REFUSALS_MAX: usize = 256;
/// Of those who say more than is read at once: 16 to 20 ms in the worst case, which is empty messages, each answered with an error.
pub const READ_AGAIN_BYTES_PER_TURN: u64 = 4 * READ_BYTES as u64;
