//! One core: a thread, an event loop, and everything that the loop needs. The only folder that touches clients' sockets, clocks
//! and wakers. The turn is in `Shard::turn`; see the crate's documentation for its order and why.
//!
//! | looking for | folder or file |
//! |---|---|
//! | accepting | `listener`, `admission`, `clients/upgrading`, `clients/newcomers` |
//! | what is kept of a connection | `connection` |
//! | reading, frames, rate limits | `clients/reading`, `clients/frames`, `read_queue`, `rate_limits` |
//! | writing, slow consumers | `output`, `clients/writing` |
//! | heartbeats, silence, maximum age | `heartbeats`, `clients/heartbeats` |
//! | closing, drain, stop | `clients/closing`, `departures`, `drain`, `stop` |
//! | other shards, the supervisor | `mesh`, `doorbell`, `orders` |
//! | admin sessions | `admins`, `publish_budget` |

mod admin_letters;
pub mod admins;
mod admission;
mod advice;
pub mod clients;
pub mod connection;
mod departures;
pub mod doorbell;
mod drain;
pub mod heartbeats;
pub mod listener;
pub mod mesh;
pub mod notices;
pub mod orders;
pub mod output;
pub mod publish_budget;
mod rate_limits;
mod read_queue;
mod stop;
mod stopwatch;
pub mod tls;
#[cfg(test)]
mod trial;

pub use admission::REFUSALS_MAX;
pub use rate_limits::ALLOWANCE_BYTES;

use crate::api::refusal::NO_CONNECTION;
use crate::config::Live;
use crate::hub::identity;
use crate::hub::mail::{Answer, Mail, Question};
use crate::hub::{Hub, Identity, TurnOutput};
use crate::ids::{Asker, ShardId};
use crate::metrics::Stats;
use crate::protocol::close::CloseReason;
use crate::wire::upgrade::REFUSALS;
use admins::Admins;
use clients::{Clients, Ready};
use crossbeam_channel::{Receiver, Sender};
use doorbell::Doorbell;
use drain::Draining;
use drain::plan::Why;
use heartbeats::clock::ShardClock;
use heartbeats::coverage::PollCoverage;
use heartbeats::wheel::TICK_MS;
use listener::{Accepted, Listener, Origin, SHARE_SLACK};
use mesh::Mesh;
use mio::event::Event;
use mio::net::{TcpListener, UnixListener};
use mio::{Events, Interest, Poll, Token};
use notices::Notices;
use orders::{Call, Order};
use output::write_queue::Progress;
use publish_budget::PublishBudget;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use stop::Stopping;
use stopwatch::Stopwatch;

/// What all shards of a process share: flags, counters, doorbells. No locks.
pub struct Shared {
    /// How each shard is woken.
    pub doorbells: Arc<[Doorbell]>,
    /// The server is going down.
    pub is_stopping: AtomicBool,
    /// Client connections, those included that are not upgraded or are being refused.
    pub accepted: Arc<AtomicUsize>,
    /// Client connections that have a place below the limit.
    pub admitted: Arc<AtomicUsize>,
    /// When clients that cannot be served were last mentioned in the log.
    pub notices: Arc<Notices>,
    /// The process's seed: secrets for channel placement, socket ids and jitter are derived from it.
    pub seed: [u64; 4],
    /// When ticks began.
    pub start: Instant,
    /// The channel to the supervisor.
    pub calls: Sender<Call>,
    /// Log lines dropped so far.
    pub log_lines_dropped: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// What one shard is built from.
pub struct Parts {
    /// Its number.
    pub me: ShardId,
    /// Its poll, with which its doorbell is registered under [`DOORBELL`].
    pub poll: Poll,
    /// Its listener.
    pub listener: TcpListener,
    /// Where the listener's socket comes from.
    pub origin: Origin,
    /// Its handle on the admin listener that all share.
    pub admin_listener: UnixListener,
    /// Its inbox.
    pub inbox: Receiver<Mail>,
    /// The sending end of each shard's inbox.
    pub inboxes: Box<[Sender<Mail>]>,
    /// Orders of the supervisor.
    pub orders: Receiver<Order>,
    /// What all shards share.
    pub shared: Arc<Shared>,
}

/// One core.
pub struct Shard {
    me: ShardId,
    poll: Poll,
    listener: Option<Listener>,
    hub: Hub,
    clients: Clients,
    admins: Admins,
    orders: Receiver<Order>,
    shared: Arc<Shared>,
    buffer: Box<[u8]>,
    publish_budget: PublishBudget,
    /// Output of messages since all bulk output was last written.
    unwritten: TurnOutput,
    stopwatch: Stopwatch,
    clock: ShardClock,
    coverage: PollCoverage,
    draining: Option<Draining>,
    stopping: Option<Stopping>,
    shutdown_timeout_ms: u64,
}

impl Shard {
    /// A shard that has not turned yet.
    pub fn new(parts: Parts, live: Arc<Live>) -> io::Result<Shard> {
        let Parts { me, poll, mut listener, origin, mut admin_listener, inbox, inboxes, orders, shared } = parts;
        let shards = inboxes.len();
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        poll.registry().register(&mut admin_listener, ADMIN_LISTENER, Interest::READABLE)?;
        let limits = &live.limits;
        let admins = Admins::new(me, shards, admin_listener, limits.admin_line_bytes_max);
        let [a, b, c, d] = identity::derived(shared.seed, &format!("jitter of shard {me}"));
        let random = ahash::RandomState::with_seeds(a, b, c, d);
        let mesh = Mesh::new(me, inbox, inboxes, shared.doorbells.clone());
        let listener = Listener::new(listener, origin);
        listener.apply(limits)?;
        let mut hub = Hub::new(Identity { shard: me, shards, seed: shared.seed }, &live.keys, limits.clone());
        hub.set_rules(&live.rules);
        Ok(Shard {
            me,
            listener: Some(listener),
            hub,
            admins,
            orders,
            poll,
            buffer: vec![0; READ_BYTES].into(),
            publish_budget: PublishBudget::new(limits.outbox_bytes_max),
            unwritten: TurnOutput::default(),
            stopwatch: Stopwatch::default(),
            clock: ShardClock::default(),
            coverage: PollCoverage::default(),
            draining: None,
            stopping: None,
            shutdown_timeout_ms: live.shutdown_timeout_ms,
            clients: Clients::new(me, mesh, live, &shared, random),
            shared,
        })
    }

    /// Turns until the server has stopped.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while !self.is_stopped() {
            let timeout = self.timeout();
            self.turn(&mut events, timeout)?;
        }
        self.leave()
    }

    /// Read, decide, then write once.
    fn turn(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        self.poll(events, timeout)?;
        self.work(events, timeout)
    }

    fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// What a turn does after its poll, which had this timeout.
    fn work(&mut self, events: &Events, timeout: Option<Duration>) -> io::Result<()> {
        self.hub.counters.turns += 1;
        let now_us = self.now_us();
        self.stopwatch.begin(now_us);
        self.hub.begin_turn(now_us);
        self.hub.now = (now_us / (TICK_MS * 1000)) as u32;
        let now = self.clock.advance(self.hub.now, timeout);
        let polled_at = std::mem::replace(&mut self.clients.now, now);
        self.clients.begin_reads(&self.hub);

        let mut reported = 0;
        for event in events.iter() {
            reported += 1;
            self.handle_event(event);
        }
        let polls = self.clients.count() / EVENTS_PER_TURN + 1;
        self.coverage.polled(polled_at, reported < EVENTS_PER_TURN, polls);
        self.clients.read_rest(&mut self.hub, &mut self.buffer);
        self.accept();
        self.admins.accept(self.poll.registry(), &mut self.hub);
        // In every turn, even if it takes no mail: while the ring that ended the poll is not cleared, further rings wake
        // nothing.
        self.clients.mesh.look();
        self.obey();
        // While much is still unwritten nothing is added to it: mail and publishes to many subscribers wait, reads do not.
        let is_open = !self.clients.output.is_behind() || !self.publish_budget.is_enough(self.unwritten);
        if is_open {
            self.drain_inbox()?;
            self.hub.tell_presence(&mut self.clients);
        }
        self.clients.apply_verdicts(&mut self.hub);
        self.hub.survey(SURVEYED_PER_TURN, &mut self.clients);
        self.serve_admins(is_open);
        self.clients.mesh.retry();
        let timers_left = self.clients.expire(self.coverage.until(), &mut self.hub);
        self.progress_drain();
        self.progress_stop();
        self.clients.dismiss_due(&mut self.hub);
        self.hub.remove_departed(&mut self.clients);
        self.clients.close_answered(&mut self.hub);
        self.fan_out();
        self.write_out()?;
        self.stopwatch.end(self.now_us(), self.clients.output.taken());
        self.hub.counters.turns_over_budget += u64::from(timers_left || self.has_work());
        Ok(())
    }

    /// Every channel touched: each subscriber gets its part of the turn's page.
    fn fan_out(&mut self) {
        let turn_output = self.hub.turn_output;
        self.hub.end_turn(&mut self.clients);
        if turn_output.bytes > 0 {
            self.unwritten.add(turn_output);
            let end = self.clients.output.end();
            // Bulk output does not wait for output that is soon.
            let soon = if turn_output.fan_out_bytes > turn_output.bulk_bytes { end.soon } else { 0 };
            let bulk = if turn_output.bulk_bytes > 0 { end.bulk } else { 0 };
            self.stopwatch.add(turn_output.age_us, Progress { soon, bulk });
        }
        self.clients.close_broken(&mut self.hub);
    }

    /// Rings doorbells, answers admin sessions, writes, and passes on the results.
    fn write_out(&mut self) -> io::Result<()> {
        // Before the flush, which can take long: other shards go on meanwhile, and so do publishers that wait for a reply.
        self.ring()?;
        self.admins.flush(self.stopping.is_some(), &mut self.hub, &mut self.clients);
        self.clients.flush(&mut self.hub);
        self.clients.limit_outboxes(&mut self.hub);
        self.clients.serve_newcomers(&mut self.hub, &mut self.buffer);
        self.clients.reap(&mut self.hub);
        // Mail from the flush and the reaping: about connections that they closed, and the channels that those left.
        self.hub.end_turn(&mut self.clients);
        self.hub.forget_addresses();
        self.hub.report(wall_ms, &mut self.clients);
        self.hub.show(wall_ms, &mut self.clients);
        self.ring()?;
        if !self.clients.output.is_behind() {
            self.unwritten = TurnOutput::default();
        }
        Ok(())
    }

    /// Reads the clock.
    fn now_us(&self) -> u64 {
        self.shared.start.elapsed().as_micros() as u64
    }

    fn handle_event(&mut self, event: &Event) {
        match event.token() {
            DOORBELL => {}
            LISTENER => self.listener.iter_mut().for_each(Listener::ready),
            ADMIN_LISTENER => self.admins.listener_ready(),
            Token(token @ admins::FIRST_TOKEN..) => {
                let is_eof_near = event.is_read_closed();
                let reads = event.is_readable() || is_eof_near;
                self.admins.ready(token - admins::FIRST_TOKEN, reads, is_eof_near, event.is_writable());
            }
            Token(token) => {
                let (is_eof_near, is_error) = (event.is_read_closed(), event.is_error());
                let ready = Ready {
                    reads: event.is_readable() || is_eof_near || is_error,
                    is_eof_near: is_eof_near || is_error,
                    writes: event.is_writable(),
                };
                let Shard { clients, hub, buffer, .. } = self;
                clients.ready(token as u32, ready, hub, buffer);
            }
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &mut self.listener else { return };
        let is_shared = listener.origin() == Origin::Passed { is_shared: true };
        for _ in 0..ACCEPTS_PER_TURN {
            if is_shared && holds_off(listener, &self.clients, &self.shared) {
                break;
            }
            match listener.accept(self.clients.now) {
                Accepted::Stream(socket, peer) => self.clients.enter(socket, peer, self.poll.registry(), &mut self.hub),
                Accepted::Nothing => return self.backlog_is_empty(),
                Accepted::Exhausted(error) => {
                    self.hub.counters.accept_errors += 1;
                    tracing::warn!(shard = self.me, %error, "accepting pauses; raise the descriptor limit (ulimit -n)");
                    break;
                }
                Accepted::Failed(_) => self.hub.counters.accept_errors += 1,
            }
        }
    }

    /// Accepts no more connections.
    fn close_listener(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.close(self.poll.registry());
        }
    }

    /// Carries out the orders of the supervisor.
    fn obey(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Apply { live, done } => {
                    self.apply(live);
                    // Fails only if the supervisor has ended.
                    let _ = done.send(());
                }
                Order::Answer(asker, answer) => self.clients.letters.answers.push((asker, answer)),
                Order::Drain { over_ms, begun } => self.drain(over_ms, begun),
                Order::Count(counted) => drop(counted.send((self.me, self.clients.count_open()))),
                Order::Shed { count, over_ms, begun } => {
                    let _ = begun.send(self.clients.ask_to_leave(Why::Shed, count, over_ms));
                }
                Order::Adopt(seat) => self.admins.adopt(seat),
            }
        }
    }

    fn apply(&mut self, live: Arc<Live>) {
        self.hub.apply(&live);
        self.admins.apply(&live.limits);
        if let Some(Err(error)) = self.listener.as_ref().map(|listener| listener.apply(&live.limits)) {
            tracing::warn!(shard = self.me, %error, "cannot set TCP_USER_TIMEOUT");
        }
        self.publish_budget = PublishBudget::new(live.limits.outbox_bytes_max);
        self.shutdown_timeout_ms = live.shutdown_timeout_ms;
        self.clients.apply(live);
    }

    fn drain_inbox(&mut self) -> io::Result<()> {
        for _ in 0..LETTERS_PER_TURN {
            if self.publish_budget.is_enough(self.hub.turn_output) {
                break;
            }
            let Some(mail) = self.clients.mesh.receive() else { break };
            self.hub.counters.mail_received += 1;
            self.hub.receive(mail, &mut self.clients);
        }
        self.clients.mesh.call_refused()
    }

    /// `is_open`: sessions that publish to many subscribers are served too.
    fn serve_admins(&mut self, is_open: bool) {
        self.admins.read_bytes = 0;
        self.hand_over();
        if self.stopping.is_none() {
            self.admins.serve(self.publish_budget, is_open, &mut self.hub, &mut self.clients, &mut self.buffer);
        }
        self.admins.stream(&mut self.hub, &mut self.clients);
        self.hand_over();
    }

    /// Delivers letters to admin sessions, and answers questions about this shard's sockets, until none are left.
    fn hand_over(&mut self) {
        loop {
            let letters = std::mem::take(&mut self.clients.letters);
            if letters.is_empty() {
                return;
            }
            for (asker, settled) in letters.settled {
                self.admins.settle(asker, settled);
            }
            for (asker, answer) in letters.answers {
                self.admins.answer(asker, answer, &mut self.hub, &mut self.clients);
            }
            for (asker, question) in letters.questions {
                if let Some(answer) = self.consider(asker, question) {
                    self.hub.answer_admin(asker, answer, &mut self.clients);
                }
            }
        }
    }

    /// `None`: the supervisor answers.
    fn consider(&mut self, asker: Asker, question: Question) -> Option<Answer> {
        Some(match question {
            Question::Page { request, limit, after } => {
                let (rows, next) = self.clients.page(&request, limit, after, &self.hub);
                Answer::Page { rows, next }
            }
            Question::OfConnection { request, member } if self.hub.is_live(member) => {
                Answer::Reply(self.clients.answer(request, member.slot, &mut self.hub))
            }
            Question::Stats => Answer::Stats { shard: self.me, stats: Box::new(self.stats()) },
            Question::Operate(operation) => {
                // The receiver lives as long as the process.
                let _ = self.shared.calls.send(Call::Operate(asker, operation));
                return None;
            }
            _ => Answer::Reply(Err(NO_CONNECTION)),
        })
    }

    fn stats(&mut self) -> Stats {
        let (sent, refused) = self.clients.mesh.take_counts();
        self.hub.counters.mail_sent += sent;
        self.hub.counters.mail_refused += refused;
        self.hub.counters.bytes_encoded = self.clients.output.bytes_encoded();
        self.hub.counters.messages_in_native = self.hub.counters.messages_in - self.hub.counters.messages_in_pusher;
        let mut gauges = self.clients.gauges(&self.hub);
        let closes = CloseReason::LABELS.into_iter().zip(self.clients.closes()).collect();
        let refusals = REFUSALS.iter().map(|refusal| refusal.why).zip(self.clients.refusals()).collect();
        gauges.is_draining = u64::from(self.draining.is_some());
        gauges.admin_connections = self.admins.count() as u64;
        // Only one shard reports the numbers that all share, because the numbers of shards are added up.
        if self.me == 0 {
            self.hub.counters.log_lines_dropped = (self.shared.log_lines_dropped)();
        }
        if let Some(certificate) = self.clients.certificate().filter(|_| self.me == 0) {
            gauges.tls_certificate_days = certificate.days_left(SystemTime::now()).max(0) as u64;
        }
        Stats { counters: self.hub.counters.clone(), closes, refusals, gauges, times: self.stopwatch.times.clone() }
    }

    fn ring(&mut self) -> io::Result<()> {
        self.hub.counters.wakes += self.clients.mesh.ring_mailed()?;
        Ok(())
    }

    /// Whether the next turn has work that the poll does not report.
    fn has_work(&self) -> bool {
        self.clients.has_work(&self.hub)
            || self.hub.is_surveying()
            || self.clients.mesh.has_mail()
            || self.listener.as_ref().is_some_and(|listener| listener.has_work(self.clients.now))
            || self.stopping.is_none() && self.admins.has_work()
            || self.has_drained()
            || self.has_closed()
            || self.admins.may_stream()
            || self.shared.is_stopping.load(Relaxed) && self.stopping.is_none()
    }

    fn timeout(&self) -> Option<Duration> {
        if self.has_work() {
            return Some(Duration::ZERO);
        }
        let heartbeat = self.clients.due_in();
        let accept = self.listener.as_ref().and_then(|listener| listener.due_in(self.clients.now));
        let stop = self.stopping.as_ref().map(|_| 1);
        let admin_accept = self.admins.due_in(self.hub.now);
        let (vacancy, presence) = (self.hub.vacates_in(), self.hub.presence_due_in());
        let due = [heartbeat, accept, admin_accept, stop, self.drain_due_in(), vacancy, presence];
        let tick = due.into_iter().flatten().min().map(|ticks| Duration::from_millis(u64::from(ticks) * TICK_MS));
        let accept = self.listener.as_ref().and_then(Listener::held_off_for);
        tick.into_iter().chain(accept).min()
    }
}

/// Whether a shard leaves the next connection on a shared socket to other shards.
fn holds_off(listener: &mut Listener, clients: &Clients, shared: &Shared) -> bool {
    let share = shared.accepted.load(Relaxed) / shared.doorbells.len() + SHARE_SLACK;
    listener.holds_off(clients.count() > share, shared.start.elapsed().as_micros() as u64)
}

/// Milliseconds since 1970, by the system's clock.
fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Token of a shard's doorbell.
pub const DOORBELL: Token = Token(usize::MAX);
const LISTENER: Token = Token(usize::MAX - 1);
const ADMIN_LISTENER: Token = Token(usize::MAX - 2);

/// The read buffer that all connections share: a client's share of a turn.
pub const READ_BYTES: usize = 64 * 1024;
/// Bytes of the read buffer and of the list of events.
pub const BUFFERS_BYTES: usize = READ_BYTES + EVENTS_PER_TURN * size_of::<Event>();
const EVENTS_PER_TURN: usize = 1024;
/// Accepting and upgrading this many takes about 4 ms. With fewer, a burst of connections overflows the kernel's backlog.
const ACCEPTS_PER_TURN: usize = 128;
const LETTERS_PER_TURN: usize = 4096;
/// Table entries that a search for the busiest connections and channels looks at in one turn.
const SURVEYED_PER_TURN: usize = 16_384;
