//! The admin sessions of this process's own threads: HTTP and webhooks.

use super::Serving;
use crate::admin::link::{Seat, TypedSession};
use crate::hub::Hub;
use crate::hub::mail::{Answer, Settled};
use crate::ids::{Asker, ShardId};
use crate::shard::clients::Clients;
use crossbeam_channel::TryRecvError;
use slab::Slab;

/// The sessions of one shard.
pub struct InProcess {
    me: ShardId,
    shards: usize,
    sessions: Slab<Seated>,
    /// Counts the sessions so far. In every [`Asker`], to tell sessions of one slot apart.
    generation: u32,
    /// The slot that is served first.
    first: usize,
}

struct Seated {
    seat: Seat,
    session: TypedSession,
    /// Its last publish went to many subscribers: the session waits until those messages are written.
    is_bulk: bool,
    /// The thread sends no more.
    is_closed: bool,
}

impl InProcess {
    /// No sessions yet.
    pub fn new(me: ShardId, shards: usize) -> InProcess {
        InProcess { me, shards, sessions: Slab::new(), generation: 0, first: 0 }
    }

    /// Whether a session number belongs to one of these sessions.
    pub fn has(asker: Asker) -> bool {
        asker.session & MARK != 0
    }

    /// A new session.
    pub fn enter(&mut self, seat: Seat) {
        self.generation = self.generation.wrapping_add(1);
        let slot = self.sessions.vacant_key() as u32 | MARK;
        let session = TypedSession::new(self.me, self.shards, slot, self.generation, true);
        self.sessions.insert(Seated { seat, session, is_bulk: false, is_closed: false });
    }

    /// Handles requests within the turn's budget. The next turn begins with the session that was not served in this one.
    pub fn serve(&mut self, serving: &mut Serving<'_>, hub: &mut Hub, clients: &mut Clients) {
        let (slots, start) = (self.sessions.capacity(), self.first);
        for slot in (start..slots).chain(0..start.min(slots)) {
            let Some(seated) = self.sessions.get_mut(slot).filter(|seated| serving.is_open || !seated.is_bulk) else {
                continue;
            };
            seated.is_bulk = false;
            seated.serve(serving, hub, clients);
            if serving.is_exhausted(hub) {
                self.first = slot + 1;
                break;
            }
        }
    }

    /// Lets streams ask for their next pieces. There are few: one for all webhooks.
    pub fn stream(&mut self, hub: &mut Hub, clients: &mut Clients) {
        for (_, seated) in self.sessions.iter_mut().filter(|(_, seated)| seated.may_stream()) {
            seated.session.stream_on(hub, clients);
        }
    }

    /// Whether a stream can go on.
    pub fn may_stream(&self) -> bool {
        self.sessions.iter().any(|(_, seated)| seated.may_stream())
    }

    /// Passes on what a shard answered.
    pub fn answer(&mut self, asker: Asker, answer: Answer, hub: &mut Hub, clients: &mut Clients) {
        if let Some(seated) = self.session(asker) {
            seated.session.answer(asker, answer, hub, clients);
        }
    }

    /// Passes on what an owner settled.
    pub fn settle(&mut self, asker: Asker, settled: Settled) {
        if let Some(seated) = self.session(asker) {
            seated.session.settle(asker, settled);
        }
    }

    fn session(&mut self, asker: Asker) -> Option<&mut Seated> {
        self.sessions.get_mut((asker.session & !MARK) as usize).filter(|seated| seated.session.is(asker))
    }

    /// Hands over each session's output of this turn, and drops sessions that have ended.
    pub fn flush(&mut self, is_stopping: bool, hub: &mut Hub, clients: &mut Clients) {
        self.sessions.retain(|_, seated| {
            let goes_on = seated.flush() && !seated.has_ended(is_stopping);
            if !goes_on {
                seated.session.leave(hub, clients);
            }
            goes_on
        });
    }

    /// Whether a session can go on without being woken.
    pub fn has_work(&self) -> bool {
        let has_work = |seated: &Seated| seated.seat.has_request() && seated.session.may_read();
        self.sessions.iter().any(|(_, seated)| has_work(seated))
    }

    /// Whether no publish waits to be settled.
    pub fn is_settled(&self) -> bool {
        self.sessions.iter().all(|(_, seated)| seated.session.unsettled() == 0)
    }

    /// Whether all streams have ended.
    pub fn has_no_stream(&self) -> bool {
        !self.sessions.iter().any(|(_, seated)| seated.session.is_stream())
    }
}

impl Seated {
    fn serve(&mut self, serving: &mut Serving<'_>, hub: &mut Hub, clients: &mut Clients) {
        while self.session.may_read() && !serving.is_exhausted(hub) && (serving.is_open || !self.is_bulk) {
            match self.seat.receive() {
                // A session that has become a stream takes no more requests.
                Ok(_) if self.session.has_begun_stream() => {}
                Ok(asked) => {
                    let bulk_bytes = hub.turn_output.bulk_bytes;
                    *serving.read_bytes += asked.bytes;
                    self.session.request((), &Ok(asked.command), hub, clients);
                    self.is_bulk |= hub.turn_output.bulk_bytes > bulk_bytes;
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.is_closed = true;
                    return;
                }
            }
        }
    }

    fn may_stream(&self) -> bool {
        !self.is_closed && self.session.may_stream_on() && self.seat.has_room()
    }

    /// Returns whether the thread still reads.
    fn flush(&mut self) -> bool {
        let sent = std::mem::take(&mut self.session.output);
        sent.is_empty() || self.seat.send(sent)
    }

    /// Whether the session is complete: the thread sends no more, or the stream has ended, or the server stops and the stream
    /// has nothing left to report.
    fn has_ended(&self, is_stopping: bool) -> bool {
        let session = &self.session;
        let ends_stream = session.is_stream()
            && (session.is_over() && session.is_answered()
                || is_stopping && !session.is_over() && !session.has_last_words());
        self.is_closed && session.is_answered() || ends_stream
    }
}

/// Set in the numbers of these sessions, and in no other session number.
const MARK: u32 = 1 << 31;
