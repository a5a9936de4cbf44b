//! The client connections of one shard: their state, and the [`Port`] through which the hub acts on them.
//!
//! The state lies in structs with private fields: [`Connections`], [`Output`], `ReadQueue`, [`Heartbeats`], `Admission`,
//! `RateLimits`, `Departures`, `Plan`. The modules of this folder are the flows that need several of them:
//!
//! | file | flow |
//! |---|---|
//! | `reading` | when a connection is read, and what a read brings |
//! | `newcomers` | connections that were accepted a moment ago |
//! | `upgrading` | from the first byte to an open connection: PROXY header, place of the address, HTTP upgrade |
//! | `tls` | TLS sessions: their beginning, and reading |
//! | `frames` | frames to requests |
//! | `echo` | connections of the echo path |
//! | `heartbeats` | pings, silence, age |
//! | `writing` | the flush, slow consumers |
//! | `closing` | close handshake, the end, the return of the slot |
//! | `leaving` | connections that are asked to leave |
//! | `info` | what operators see of the connections |
//! | `notices` | what the log says about clients that cannot be served |

pub mod echo;

mod closing;
mod frames;
mod heartbeats;
mod info;
mod leaving;
mod newcomers;
mod notices;
mod reading;
mod tls;
mod upgrading;
mod writing;

use crate::config::{Certificate, Live};
use crate::hub::admission::addresses::Verdict;
use crate::hub::audience::pages::{Chunk, Pages};
use crate::hub::identity::SLOTS_MAX;
use crate::hub::mail::{Answer, Arrival, Mail, Question, Settled};
use crate::hub::{Hub, Notice, Port, Urgency};
use crate::ids::{Asker, ShardId, Slot};
use crate::protocol::close::CloseReason;
use crate::shard::Shared;
use crate::shard::admin_letters::AdminLetters;
use crate::shard::admission::Admission;
use crate::shard::connection::Connection;
use crate::shard::connection::table::Connections;
use crate::shard::departures::Departures;
use crate::shard::drain::plan::Plan;
use crate::shard::heartbeats::Heartbeats;
use crate::shard::heartbeats::authorization::Authorization;
use crate::shard::heartbeats::max_age::MaxAge;
use crate::shard::mesh::Mesh;
use crate::shard::notices::Notices;
use crate::shard::output::Output;
use crate::shard::rate_limits::RateLimits;
use crate::shard::read_queue::ReadQueue;
use crate::wire::upgrade::REFUSALS;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::net::SocketAddr;
use std::sync::Arc;

pub use crate::shard::heartbeats::wheel::ticks;
pub use leaving::DISMISSALS_PER_TURN;
pub use reading::{READ_AGAIN_BYTES_PER_TURN, SHORT_READ_BYTES, WAITING_REPLIES_MAX};

/// The connections, and what waits to be done for them in this turn.
pub struct Clients {
    me: ShardId,
    /// The turn's tick.
    pub now: u32,
    live: Arc<Live>,
    random: ahash::RandomState,
    connections: Connections,
    /// What the connections are sent.
    pub output: Output,
    read_queue: ReadQueue,
    /// Once the shard has read so many bytes, a connection that the poll reports is read in part.
    full_reads_until: u64,
    /// Bytes of frames that were handled later than they were read, because their connection was held.
    bytes_resumed: u64,
    heartbeats: Heartbeats,
    max_age: MaxAge,
    authorization: Authorization,
    admission: Admission,
    rate_limits: RateLimits,
    departures: Departures,
    notices: Arc<Notices>,
    /// The connections that are asked to leave.
    plan: Option<Plan>,
    /// The mail to other shards.
    pub mesh: Mesh,
    /// What the hub has for admin sessions.
    pub letters: AdminLetters,
    /// What a read of a TLS session decrypts to.
    decrypted: Vec<u8>,
    /// The response to an upgrade.
    response: Vec<u8>,
}

impl Clients {
    /// No connections yet.
    pub fn new(me: ShardId, mesh: Mesh, live: Arc<Live>, shared: &Shared, random: ahash::RandomState) -> Clients {
        Clients {
            me,
            now: 0,
            random,
            connections: Connections::default(),
            output: Output::default(),
            read_queue: ReadQueue::default(),
            full_reads_until: 0,
            bytes_resumed: 0,
            heartbeats: Heartbeats::default(),
            max_age: MaxAge::new(live.limits.connection_age_max_s),
            authorization: Authorization::default(),
            admission: Admission::new(me, shared.accepted.clone(), shared.admitted.clone()),
            rate_limits: RateLimits::default(),
            departures: Departures::default(),
            notices: shared.notices.clone(),
            plan: None,
            mesh,
            letters: AdminLetters::default(),
            decrypted: Vec::new(),
            response: Vec::new(),
            live,
        }
    }

    /// Applies new settings at once, except for what a client was told when it connected.
    pub fn apply(&mut self, live: Arc<Live>) {
        self.heartbeats.remember(&self.live.limits, &live.limits, self.now);
        self.max_age.apply(live.limits.connection_age_max_s, self.now);
        if live.limits.pusher_authorize_within_s == 0 {
            self.authorization.lift();
        }
        self.rate_limits.reset();
        self.live = live;
    }

    /// The TLS certificate of connections that are accepted from now on. Others keep theirs.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.live.certificate.as_deref()
    }

    /// A connection was accepted.
    pub fn enter(&mut self, mut socket: TcpStream, peer: SocketAddr, registry: &Registry, hub: &mut Hub) {
        hub.counters.accepts += 1;
        let limit = self.live.limits.connections_max;
        let token = Token(self.connections.vacant_slot());
        // Connections beyond the limit get a reply after their upgrade; those far beyond it are dropped.
        let is_far_beyond = self.admission.accept(limit) || token.0 >= SLOTS_MAX;
        // Both at once, and never again: edge-triggered, so that writability costs nothing until a write is blocked.
        let registered = registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE);
        if is_far_beyond || registered.is_err() {
            self.admission.release();
            return self.departures.count(&CloseReason::OverCapacity { limit });
        }
        let slot = self.connections.insert(Connection::new(socket, self.now));
        self.output.open(slot);
        self.begin_tls(slot, hub);
        self.heartbeats.look_at(slot, self.now.wrapping_add(self.handshake_ticks()));
        self.arrive(slot, peer, hub);
    }

    /// The poll reported a socket.
    pub fn ready(&mut self, slot: Slot, ready: Ready, hub: &mut Hub, buffer: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        connection.state.is_eof_near |= ready.is_eof_near;
        if ready.writes && self.output.is_blocked(slot) {
            self.output.set_blocked(slot, false);
            self.mark(slot);
        }
        if ready.reads {
            let is_full_read = hub.counters.bytes_in < self.full_reads_until;
            let len = if is_full_read { buffer.len() } else { SHORT_READ_BYTES };
            self.read(slot, hub, &mut buffer[..len]);
        }
    }

    /// Whether the next turn has work that the poll does not report.
    pub fn has_work(&self, hub: &Hub) -> bool {
        !self.output.is_idle()
            // Replies may have been written since the last check of the held connections.
            || self.read_queue.has_work(|slot| hub.waiting_replies(slot) <= WAITING_REPLIES_MAX && !hub.awaits(slot))
            || self.admission.has_work()
            || self.departures.has_work()
            || hub.has_departures()
            || hub.is_changing_rules()
            // Events that the end of the turn produced for a session of this shard.
            || !self.letters.answers.is_empty()
    }

    /// Ticks until the next heartbeat or deadline, or until a connection is to leave.
    pub fn due_in(&self) -> Option<u32> {
        [self.heartbeats.due_in(self.now), self.leaving_due_in()].into_iter().flatten().min()
    }

    /// Connections in any phase.
    pub fn count(&self) -> usize {
        self.connections.len()
    }

    /// Whether the shard has no connections.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Connections that ended or are ending, by reason.
    pub fn closes(&self) -> [u64; CloseReason::KINDS] {
        self.departures.closes()
    }

    /// Upgrade requests refused, by what was wrong.
    pub fn refusals(&self) -> [u64; REFUSALS.len()] {
        self.admission.refusals()
    }
}

/// What the poll reported of a socket.
#[derive(Clone, Copy)]
pub struct Ready {
    /// There may be something to read.
    pub reads: bool,
    /// The peer sends no more.
    pub is_eof_near: bool,
    /// There is room to write.
    pub writes: bool,
}

impl Port for Clients {
    fn append(&mut self, pages: &mut Pages, slot: Slot, chunk: Chunk, urgency: Urgency) {
        let Clients { output, connections, now, .. } = self;
        output.append(pages, slot, chunk, urgency, || connections[slot].state.is_newcomer(*now));
    }

    fn mail(&mut self, to: ShardId, mail: Mail) {
        self.mesh.send(to, mail);
    }

    fn mail_after(&mut self, after: &[ShardId], to: ShardId, mail: Mail) {
        self.mesh.send_after(after, to, mail);
    }

    fn ask(&mut self, asker: Asker, question: Question) {
        self.letters.questions.push((asker, question));
    }

    fn answer_admin(&mut self, asker: Asker, answer: Answer) {
        self.letters.answers.push((asker, answer));
    }

    fn settle(&mut self, asker: Asker, settled: Settled) {
        self.letters.settled.push((asker, settled));
    }

    fn admit(&mut self, arrival: Arrival, verdict: Verdict) {
        self.admission.push_verdict(arrival, verdict);
    }

    fn address(&self, slot: Slot) -> Option<SocketAddr> {
        Clients::address(self, slot)
    }

    fn waiting(&self, slot: Slot) -> usize {
        self.output.waiting(slot)
    }

    fn keep_fresh(&mut self, slot: Slot) {
        self.output.keep_fresh(slot, &self.connections[slot].socket);
    }

    fn hold_back(&mut self, slot: Slot) {
        self.output.set_lagging(slot, true);
    }

    fn close(&mut self, slot: Slot, reason: CloseReason) {
        self.departures.ask(slot, reason);
    }

    fn notice(&mut self, slot: Slot, notice: Notice<'_>) {
        self.write_notice(slot, notice);
    }
}
