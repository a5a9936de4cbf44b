//! Sessions that have become streams: after the reply to their last request come lines until one side ends it. Nothing more
//! that the other side says is read, but its end is noticed.
//!
//! A stream asks for what it is to say next, and only while little of what it was told waits to be written.

use super::event_lines as lines;
use super::request::Refusal;
use super::tail::{self, Tail};
use super::{Session, State, reply};
use crate::hub::follower::{Follower, Told};
use crate::hub::journal::JOURNAL;
use crate::hub::mail::{Answer, Asker, Question, ShardId};
use crate::hub::taps::Filter;
use crate::hub::watching::TAPS;
use crate::hub::{Hub, Port};

/// What a session has become.
pub(super) struct Stream {
    /// The request that made it one.
    asker: Asker,
    of: Source,
    has_begun: bool,
}

enum Source {
    /// Lifecycle events; the number is that of the snapshot.
    Events { follower: Follower, number: u64 },
    /// What the server sees and decides.
    Sightings(Tail),
}

impl Stream {
    /// Whether an answer is for the stream.
    pub(super) fn is(&self, asker: Asker) -> bool {
        self.asker == asker
    }

    /// Whether nothing that follows can be a request.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether there is something to ask.
    fn is_ready(&self) -> bool {
        match &self.of {
            Source::Events { follower, .. } => follower.is_ready(),
            Source::Sightings(tail) => self.has_begun && tail.is_ready(),
        }
    }

    fn ask(&mut self) -> Option<(ShardId, Question)> {
        match &mut self.of {
            Source::Events { follower, .. } => follower.ask(),
            Source::Sightings(tail) => tail.ask(),
        }
    }
}

impl Session {
    /// The session becomes a stream of lifecycle events.
    pub(super) fn follow(
        &mut self,
        id: &str,
        since: Option<u64>,
        epoch: Option<u64>,
        hub: &mut Hub,
        port: &mut impl Port,
    ) {
        let (follower, question) = Follower::new(since, epoch, self.is_own);
        self.become_stream(id, Source::Events { follower, number: 0 }, (JOURNAL, question), hub, port);
    }

    /// The session becomes a stream of what the server sees.
    pub(super) fn watch(&mut self, id: &str, filter: Filter, shards: usize, hub: &mut Hub, port: &mut impl Port) {
        let (tail, question) = Tail::new(filter, shards);
        self.become_stream(id, Source::Sightings(tail), (TAPS, question), hub, port);
    }

    fn become_stream(
        &mut self,
        id: &str,
        of: Source,
        (shard, question): (ShardId, Question),
        hub: &mut Hub,
        port: &mut impl Port,
    ) {
        let asker = self.asker();
        self.wait(id, State::Stream);
        self.stream = Some(Stream { asker, of, has_begun: false });
        hub.ask(shard, asker, question, port);
    }

    /// Asks for what the stream is to say next, if there is room for it.
    pub fn stream_on(&mut self, hub: &mut Hub, port: &mut impl Port) {
        while self.may_stream_on()
            && let Some(stream) = &mut self.stream
            && let Some((of, question)) = stream.ask()
        {
            hub.ask(of, stream.asker, question, port);
        }
    }

    /// Whether [`Session::stream_on`] has something to do.
    pub fn may_stream_on(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::is_ready)
            && self.waiting.is_empty()
            && self.output.len() < STREAM_BYTES_MAX
    }

    /// Whether the session has become a stream.
    pub fn is_stream(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether it has, and what it says is not read.
    pub fn has_begun_stream(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::has_begun)
    }

    /// Whether the stream has said its last line.
    pub fn is_over(&self) -> bool {
        self.follower().is_some_and(Follower::is_over)
    }

    /// Whether the stream still has something to say when the server stops: how everybody was disconnected. A snapshot of a
    /// server that stops is worth nothing, and nobody watches it for ever.
    pub fn has_last_words(&self) -> bool {
        self.follower().is_some_and(Follower::is_live)
    }

    fn follower(&self) -> Option<&Follower> {
        match &self.stream.as_ref()?.of {
            Source::Events { follower, .. } => Some(follower),
            Source::Sightings(_) => None,
        }
    }

    /// The connection ends.
    pub(super) fn leave_stream(&mut self, hub: &mut Hub, port: &mut impl Port) {
        match self.stream.take() {
            None => {}
            Some(Stream { asker, of: Source::Events { .. }, .. }) => hub.ask(JOURNAL, asker, Question::Unfollow, port),
            Some(Stream { asker, of: Source::Sightings(tail), .. }) => {
                tail.shards().for_each(|shard| hub.ask(shard, asker, Question::Untap, port));
            }
        }
    }

    pub(super) fn hear_stream(&mut self, answer: Answer, hub: &mut Hub, shards: usize, port: &mut impl Port) {
        let Some(stream) = &mut self.stream else { return };
        let asker = stream.asker;
        match (&mut stream.of, answer) {
            (of, Answer::TooMany { limit }) => {
                let what = match of {
                    Source::Events { .. } => "consumers of events",
                    Source::Sightings(_) => "tails",
                };
                self.stream = None;
                hub.counters.admin_errors += 1;
                let refusal = Refusal::TooMany { what, limit };
                self.finish(asker, |out, id| reply::refused(out, id, &refusal));
            }
            (Source::Events { follower, number: snapshot }, answer) => {
                let told = follower.hear(answer, shards);
                if let Some(Told::Following { number, .. }) = told {
                    (*snapshot, stream.has_begun) = (number, true);
                }
                let snapshot = *snapshot;
                self.tell(asker, snapshot, told);
            }
            (Source::Sightings(tail), Answer::Tapped) => {
                let has_begun = tail.begin();
                stream.has_begun = has_begun;
                while let Some((of, question)) = tail.ask() {
                    hub.ask(of, asker, question, port);
                }
                if has_begun {
                    self.finish(asker, reply::done);
                }
            }
            (Source::Sightings(tail), Answer::Seen { shard, at_us, time_ms, sightings, dropped }) => {
                tail.hear(shard);
                self.say("null", |out| tail::lines(out, shard, at_us, time_ms, &sightings, dropped));
            }
            (Source::Sightings(_), _) => {}
        }
    }

    fn tell(&mut self, asker: Asker, snapshot: u64, told: Option<Told>) {
        match told {
            None | Some(Told::NoMore) => {}
            Some(Told::Following { epoch, number, is_snapshot }) => self.finish(asker, |out, id| {
                reply::following(out, id, epoch, number);
                if is_snapshot {
                    lines::snapshot(out, number);
                }
            }),
            Some(Told::Channels(page)) => self.say("null", |out| lines::channels(out, snapshot, &page)),
            Some(Told::Connections(page)) => self.say("null", |out| lines::connections(out, snapshot, &page)),
            Some(Told::SnapshotEnd { connections_page, channels, connections }) => self.say("null", |out| {
                lines::connections(out, snapshot, &connections_page);
                lines::snapshot_end(out, snapshot, channels, connections);
            }),
            Some(Told::Events { number, events }) => self.say("null", |out| {
                for (number, event) in (number..).zip(&events) {
                    lines::event(out, number, event);
                }
            }),
            Some(Told::FellBehind { missing }) => self.say("null", |out| lines::too_slow(out, missing)),
        }
    }
}

/// What may wait to be written of a stream before more is asked for.
const STREAM_BYTES_MAX: usize = 256 * 1024;
