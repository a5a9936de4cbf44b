//! Sessions that have become streams: pieces follow the reply to their last request, until one side ends the stream.
//! Further requests of the peer are ignored, but its end is noticed.
//!
//! A stream asks for its next piece only while little output waits to be sent.

use super::codec::Codec;
use super::tail::{self, Tail};
use super::{Session, State};
use crate::api::operation::{self, Events};
use crate::api::{Refusal, Reply};
use crate::hub::mail::{Answer, Question};
use crate::hub::observe::TAPS;
use crate::hub::observe::extras::Extras;
use crate::hub::observe::follower::{Follower, Update};
use crate::hub::observe::journal::JOURNAL;
use crate::hub::observe::piece::Piece;
use crate::hub::{Hub, Port};
use crate::ids::{Asker, ShardId};
use crate::protocol::position::read_epoch;

/// The stream that a session has become.
pub(super) struct Stream {
    /// The request that started it.
    asker: Asker,
    of: Source,
    has_begun: bool,
}

enum Source {
    /// Lifecycle events.
    Events(Follower),
    /// Sightings: what the server sees and decides.
    Sightings(Tail),
}

impl Stream {
    /// Whether an answer is for the stream.
    pub(super) fn is(&self, asker: Asker) -> bool {
        self.asker == asker
    }

    /// Whether the stream has started, so that no further request is accepted.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether there is a question to ask.
    fn is_ready(&self) -> bool {
        match &self.of {
            Source::Events(follower) => follower.is_ready(),
            Source::Sightings(tail) => self.has_begun && tail.is_ready(),
        }
    }

    fn ask(&mut self) -> Option<(ShardId, Question)> {
        match &mut self.of {
            Source::Events(follower) => follower.ask(),
            Source::Sightings(tail) => tail.ask(),
        }
    }
}

impl<C: Codec> Session<C> {
    /// The session becomes a stream of lifecycle events.
    pub(super) fn follow(&mut self, tag: C::Tag<'_>, events: &Events, hub: &mut Hub, port: &mut impl Port) {
        let (since, epoch) = position(events);
        let extras = Extras::named(&events.also);
        let question = Question::Follow { since, epoch, extras, is_own: self.is_own() };
        self.become_stream(tag, Source::Events(Follower::new(self.shards)), (JOURNAL, question), hub, port);
    }

    /// The session becomes a stream of sightings.
    pub(super) fn watch(
        &mut self,
        tag: C::Tag<'_>,
        tail: &operation::Tail,
        hub: &mut Hub,
        port: &mut impl Port,
    ) -> Result<(), Refusal> {
        let (tail, question) = Tail::new(tail::filter(tail)?, self.shards);
        self.become_stream(tag, Source::Sightings(tail), (TAPS, question), hub, port);
        Ok(())
    }

    fn become_stream(
        &mut self,
        tag: C::Tag<'_>,
        of: Source,
        (shard, question): (ShardId, Question),
        hub: &mut Hub,
        port: &mut impl Port,
    ) {
        let asker = self.asker();
        self.wait(tag, State::Stream);
        self.stream = Some(Stream { asker, of, has_begun: false });
        hub.ask(shard, asker, question, port);
    }

    /// Asks for the next pieces of the stream, if there is room for them.
    pub fn stream_on(&mut self, hub: &mut Hub, port: &mut impl Port) {
        while self.may_stream_on()
            && let Some(stream) = &mut self.stream
            && let Some((of, question)) = stream.ask()
        {
            hub.ask(of, stream.asker, question, port);
        }
    }

    /// Whether [`Session::stream_on`] has a question to ask.
    pub fn may_stream_on(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::is_ready)
            && self.is_answered()
            && C::bytes(&self.output) < STREAM_BYTES_MAX
    }

    /// Whether the session has become a stream.
    pub fn is_stream(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether the stream has started, so that requests of the peer are ignored.
    pub fn has_begun_stream(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::has_begun)
    }

    /// Whether the stream has sent its last piece.
    pub fn is_over(&self) -> bool {
        self.follower().is_some_and(Follower::is_over)
    }

    /// Whether the stream still has events to send when the server stops: those of the connections that ended. A
    /// snapshot is useless by then, and a tail never ends by itself.
    pub fn has_last_words(&self) -> bool {
        self.follower().is_some_and(Follower::is_live)
    }

    fn follower(&self) -> Option<&Follower> {
        match &self.stream.as_ref()?.of {
            Source::Events(follower) => Some(follower),
            Source::Sightings(_) => None,
        }
    }

    /// The session ends.
    pub(super) fn leave_stream(&mut self, hub: &mut Hub, port: &mut impl Port) {
        match self.stream.take() {
            None => {}
            Some(Stream { asker, of: Source::Events(_), .. }) => hub.ask(JOURNAL, asker, Question::Unfollow, port),
            Some(Stream { asker, of: Source::Sightings(tail), .. }) => {
                tail.shards().for_each(|shard| hub.ask(shard, asker, Question::Untap, port));
            }
        }
    }

    pub(super) fn take_stream_answer(&mut self, answer: Answer, hub: &mut Hub, port: &mut impl Port) {
        let Some(stream) = &mut self.stream else { return };
        let asker = stream.asker;
        match (&mut stream.of, answer) {
            (of, Answer::TooMany { limit }) => {
                let what = match of {
                    Source::Events(_) => "consumers of events",
                    Source::Sightings(_) => "tails",
                };
                self.stream = None;
                hub.counters.admin_errors += 1;
                self.finish(asker, Err(Refusal::TooMany { what, limit }));
            }
            (Source::Events(follower), answer) => {
                let Update { begins, pieces } = follower.take_answer(answer);
                if let Some((epoch, number)) = begins {
                    stream.has_begun = true;
                    self.finish(asker, Ok(Reply::Following { epoch, number }));
                }
                pieces.into_iter().for_each(|piece| self.tell(piece));
            }
            (Source::Sightings(tail), Answer::Tapped) => {
                let has_begun = tail.begin();
                stream.has_begun = has_begun;
                while let Some((of, question)) = tail.ask() {
                    hub.ask(of, asker, question, port);
                }
                if has_begun {
                    self.finish(asker, Ok(Reply::Done {}));
                }
            }
            (Source::Sightings(tail), Answer::Seen { shard, at_us, time_ms, sightings, dropped }) => {
                tail.received(shard);
                self.tell(Piece::Seen { shard, at_us, time_ms, sightings, dropped });
            }
            (Source::Sightings(_), _) => {}
        }
    }
}

/// The consumer's position: it has the events up to this number, of this run of the server. With an epoch that no
/// server has assigned, it has none.
fn position(events: &Events) -> (Option<u64>, Option<u64>) {
    match events.epoch.as_deref().map(read_epoch) {
        Some(None) => (None, None),
        epoch => (events.since, epoch.flatten()),
    }
}

/// Bytes of a stream that may wait to be sent before the stream stops asking for more.
const STREAM_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_that_no_server_has_assigned_has_no_position() {
        let check = |epoch: Option<&str>, expected| {
            let events = Events { since: Some(41), epoch: epoch.map(Box::from), also: Vec::new() };
            assert_eq!(position(&events), expected, "{epoch:?}");
        };
        check(None, (Some(41), None));
        check(Some("00000000000000ff"), (Some(41), Some(255)));
        for other in ["", "ff", "+0000000000000ff", "00000000000000FF"] {
            check(Some(other), (None, None));
        }
    }
}
