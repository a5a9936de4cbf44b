//! Sessions that have become streams: after the reply to their last request come lines until one side ends it. Nothing more
//! that the other side says is read, but its end is noticed.
//!
//! A stream is served one question at a time, and only while little of what it was told waits to be written.

use super::event_lines as lines;
use super::request::Refusal;
use super::{Session, State, reply};
use crate::hub::follower::{Follower, Told};
use crate::hub::journal::{FOLLOWERS_MAX, JOURNAL};
use crate::hub::mail::{Answer, Asker, Question};
use crate::hub::{Hub, Port};

/// What a session has become.
pub(super) struct Stream {
    /// The request that made it one.
    asker: Asker,
    follower: Follower,
    /// That of the snapshot.
    number: u64,
    has_begun: bool,
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
        let (follower, question) = Follower::new(since, epoch);
        let asker = self.asker();
        self.wait(id, State::Stream);
        self.stream = Some(Stream { asker, follower, number: 0, has_begun: false });
        hub.ask(JOURNAL, asker, question, port);
    }

    /// Asks for what the stream is to say next, if there is room for it.
    pub fn stream_on(&mut self, hub: &mut Hub, port: &mut impl Port) {
        if self.may_stream_on()
            && let Some(stream) = &mut self.stream
            && let Some((of, question)) = stream.follower.ask()
        {
            hub.ask(of, stream.asker, question, port);
        }
    }

    /// Whether [`Session::stream_on`] has something to do.
    pub fn may_stream_on(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.follower.is_ready())
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
        self.stream.as_ref().is_some_and(|stream| stream.follower.is_over())
    }

    /// Whether the stream still has something to say when the server stops: how everybody was disconnected. A snapshot of a
    /// server that stops is worth nothing.
    pub fn has_last_words(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.follower.is_live())
    }

    /// The connection ends.
    pub fn leave(&mut self, hub: &mut Hub, port: &mut impl Port) {
        if let Some(stream) = self.stream.take() {
            hub.ask(JOURNAL, stream.asker, Question::Unfollow, port);
        }
    }

    pub(super) fn hear_stream(&mut self, answer: Answer, hub: &mut Hub, shards: usize) {
        let Some(stream) = &mut self.stream else { return };
        let (asker, snapshot) = (stream.asker, stream.number);
        match stream.follower.hear(answer, shards) {
            None => {}
            Some(Told::Following { epoch, number, is_snapshot }) => {
                (stream.number, stream.has_begun) = (number, true);
                self.finish(asker, |out, id| {
                    reply::following(out, id, epoch, number);
                    if is_snapshot {
                        lines::snapshot(out, number);
                    }
                });
            }
            Some(Told::Refused) => {
                self.stream = None;
                hub.counters.admin_errors += 1;
                let refusal = Refusal::TooMany { what: "consumers of events", limit: FOLLOWERS_MAX };
                self.finish(asker, |out, id| reply::refused(out, id, &refusal));
            }
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
            Some(Told::NoMore) => {}
        }
    }
}

/// What may wait to be written of a stream before more is asked for.
const STREAM_BYTES_MAX: usize = 256 * 1024;
