//! The journal: the lifecycle events of the whole server, numbered, in one order. One shard keeps it ([`JOURNAL`]). All
//! shards mail it their events ([`reports`](super::reports)); a consumer on any shard asks it for more
//! ([`follower`](super::follower)).
//!
//! The journal starts with the first consumer, so a server without consumers of events stores and mails nothing. From then
//! on it keeps the latest events, up to [`BYTES_MAX`], with or without consumers.
//!
//! Consumers pull. Each has at most one open question; a question that finds no new event waits in the journal for the next
//! one. A consumer that does not read costs one entry in a table and does not delay the others. It is ended once its next
//! event has been discarded.
//!
//! Shards report [`Extras`] only of the kinds that a consumer has asked for, and a consumer receives only what it has asked for.
//! So the numbers that it sees have gaps where it has not asked for an event.
//!
//! # Consistency of a snapshot
//!
//! A snapshot carries the number of the journal's last event at the time of the request. Its pages are gathered later,
//! while the server continues. A shard that listens reports every change, in order. So a change that a page shows and that
//! is newer than the snapshot's number is also an event that follows. For each connection and channel the last event is the
//! current state; without an event, the page is. A consumer that applies the snapshot and then the events has the state of
//! the server.

use crate::hub::mail::Answer;
use crate::hub::observe::extras::Extras;
use crate::hub::observe::reports::{Event, Report};
use crate::ids::{Asker, ShardId};
use std::collections::VecDeque;

/// The shard that keeps the journal.
pub const JOURNAL: ShardId = 0;

/// The latest events and their consumers.
pub struct Journal {
    epoch: u64,
    /// Number of shards that report.
    shards: usize,
    state: JournalState,
    /// Shards that have not confirmed yet that they report what they were last asked for.
    starting: usize,
    /// What the shards were asked for beside changes.
    extras: Extras,
    /// Number of the oldest event that is kept; of the next event if none is kept.
    first: u64,
    events: VecDeque<Event>,
    bytes: usize,
    pub(super) bytes_max: usize,
    followers: Vec<Follower>,
    /// Consumers ended because their next event was no longer kept.
    pub ended_too_slow: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum JournalState {
    /// There has not been a consumer.
    Idle,
    Running,
    /// All shards have sent their last report.
    Complete,
}

struct Follower {
    asker: Asker,
    /// What it receives beside changes.
    extras: Extras,
    progress: Progress,
}

enum Progress {
    /// It asked for the events after `since`, and waits until all shards report.
    Begins { since: Option<u64> },
    /// It has all events up to this number, and has not asked for more.
    Served(u64),
    /// It has all events up to this number, and asks for more.
    Waits(u64),
}

impl Journal {
    /// An empty journal of this many shards. `epoch` distinguishes one run of the server from another.
    pub fn new(epoch: u64, shards: usize) -> Journal {
        Journal {
            epoch,
            shards,
            state: JournalState::Idle,
            starting: 0,
            extras: Extras::default(),
            first: FIRST,
            events: VecDeque::new(),
            bytes: 0,
            bytes_max: BYTES_MAX,
            followers: Vec::new(),
            ended_too_slow: 0,
        }
    }

    /// Adds a consumer, which has the events up to `since` of the run `epoch`, or none. Returns what the shards must be told to
    /// report, if that changes. The answer is part of a later call of [`Journal::answers`].
    pub fn follow(&mut self, asker: Asker, since: Option<u64>, epoch: Option<u64>, extras: Extras) -> Option<Extras> {
        let since = since.filter(|_| epoch.is_none_or(|epoch| epoch == self.epoch));
        self.followers.push(Follower { asker, extras, progress: Progress::Begins { since } });
        let begins = self.state == JournalState::Idle;
        if begins {
            self.state = JournalState::Running;
        }
        self.change_extras(begins)
    }

    /// One more shard reports what it was told to.
    pub fn started(&mut self) {
        self.starting = self.starting.saturating_sub(1);
    }

    /// The consumer asks for more events.
    pub fn more(&mut self, asker: Asker) {
        if let Some(follower) = self.followers.iter_mut().find(|follower| follower.is(asker))
            && let Progress::Served(number) = follower.progress
        {
            follower.progress = Progress::Waits(number);
        }
    }

    /// Removes the consumer. Returns what the shards must be told to report, if that changes.
    pub fn leave(&mut self, asker: Asker) -> Option<Extras> {
        self.forget(asker);
        self.change_extras(false)
    }

    /// Removes the consumer. What the shards report does not change.
    pub fn forget(&mut self, asker: Asker) {
        self.followers.retain(|follower| !follower.is(asker));
    }

    fn change_extras(&mut self, begins: bool) -> Option<Extras> {
        let extras = self.followers.iter().fold(Extras::default(), |extras, follower| extras.or(follower.extras));
        let changes = begins || self.state == JournalState::Running && extras != self.extras;
        changes.then(|| {
            self.extras = extras;
            self.starting += self.shards;
            extras
        })
    }

    /// Appends a shard's events. Drops the oldest events beyond the limit of bytes.
    pub fn append(&mut self, report: Report) {
        let Report { shard, time_ms, lost, happenings } = report;
        if lost > 0 {
            // Events were lost; consumers must restart from a snapshot.
            self.first = self.number() + 1 + lost;
            self.events.clear();
            self.bytes = 0;
        }
        for what in happenings {
            self.bytes += size_of::<Event>() + what.heap_bytes();
            let number = self.number() + 1;
            self.events.push_back(Event { number, time_ms, shard, what });
        }
        while self.bytes > self.bytes_max
            && let Some(event) = self.events.pop_front()
        {
            self.bytes -= size_of::<Event>() + event.what.heap_bytes();
            self.first += 1;
        }
    }

    /// All shards have sent their last report: consumers receive the remaining events, then the end.
    pub fn complete(&mut self) {
        self.state = JournalState::Complete;
        self.starting = 0;
    }

    /// The answers that are ready, with the consumer that each is for.
    pub fn answers(&mut self) -> Vec<(Asker, Answer)> {
        let mut answers = Vec::new();
        let (number, first, is_complete) = (self.number(), self.first, self.state == JournalState::Complete);
        let has_started = self.starting == 0;
        let Journal { epoch, events, followers, ended_too_slow, .. } = self;
        followers.retain_mut(|follower| {
            let (answer, stays) = match follower.progress {
                Progress::Begins { .. } if !has_started => return true,
                Progress::Begins { since } => {
                    let known = since.filter(|since| (first - 1..=number).contains(since));
                    let number = known.unwrap_or(number);
                    follower.progress = Progress::Served(number);
                    (Answer::Following { epoch: *epoch, number, is_snapshot: known.is_none() }, true)
                }
                Progress::Served(seen) | Progress::Waits(seen) if seen + 1 < first => {
                    *ended_too_slow += 1;
                    (Answer::FellBehind { missing: first - seen - 1 }, false)
                }
                Progress::Waits(seen) if seen < number => {
                    let from = (seen + 1 - first) as usize;
                    let (batch, seen) = batch(events.iter().skip(from), follower.extras, seen);
                    if !batch.is_empty() {
                        follower.progress = Progress::Served(seen);
                        (Answer::Events { events: batch }, true)
                    } else if is_complete {
                        (Answer::NoMoreEvents, false)
                    } else {
                        follower.progress = Progress::Waits(seen);
                        return true;
                    }
                }
                Progress::Waits(_) if is_complete => (Answer::NoMoreEvents, false),
                Progress::Served(_) | Progress::Waits(_) => return true,
            };
            answers.push((follower.asker, answer));
            stays
        });
        answers
    }

    /// Number of the last event.
    pub fn number(&self) -> u64 {
        self.first + self.events.len() as u64 - 1
    }

    /// Number of consumers.
    pub fn followers(&self) -> usize {
        self.followers.len()
    }

    /// Bytes of the events that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The next events for a consumer that has asked for these extras and has `seen` the events before; and the number of the
/// last event that they cover.
fn batch<'a>(events: impl Iterator<Item = &'a Event>, extras: Extras, mut seen: u64) -> (Box<[Event]>, u64) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for event in events {
        seen = event.number;
        if event.what.is_for(extras) {
            bytes += event.what.heap_bytes();
            batch.push(event.clone());
        }
        if batch.len() == BATCH_EVENTS || bytes > BATCH_BYTES {
            break;
        }
    }
    (batch.into(), seen)
}

impl Follower {
    /// A session has at most one stream, so its asker identifies the consumer.
    fn is(&self, asker: Asker) -> bool {
        self.asker == asker
    }
}

/// Number of the first event. Number 1 is the start of the journal, so `since: 0` asks for a snapshot.
const FIRST: u64 = 2;
/// Limit of consumers. Consumers inside the process are admitted beyond it.
pub const FOLLOWERS_MAX: usize = 64;
/// Bytes of the events that are kept, names included: about 200 000 events. A second with 20 000 connects and 20 000
/// disconnects takes a fifth of it. The table has spare capacity, so the heap use is at most twice this.
pub const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most events of one answer: about 100 KiB of lines.
const BATCH_EVENTS: usize = 1024;
/// Heap bytes of events after which an answer ends.
const BATCH_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::message::{Message, Payload};
    use crate::hub::observe::extras::ClientEvent;
    use crate::hub::observe::reports::Happening;
    use crate::protocol::channel::{Channel, ChannelName};
    use crate::protocol::socket_id::SocketId;

    fn asker(session: u32) -> Asker {
        Asker { shard: 0, session, generation: 0, request: 0 }
    }

    fn follow(journal: &mut Journal, session: u32, since: Option<u64>, epoch: Option<u64>) -> Option<Extras> {
        journal.follow(asker(session), since, epoch, Extras::default())
    }

    fn report(happenings: usize, lost: u64) -> Report {
        let what = || Happening::Connected { socket_id: SocketId { high: 1, low: 2 }, address: None };
        Report { shard: 0, time_ms: 7, lost, happenings: std::iter::repeat_with(what).take(happenings).collect() }
    }

    /// The only answer, abbreviated.
    fn answer(journal: &mut Journal) -> String {
        let mut answers = journal.answers();
        assert!(answers.len() < 2);
        match answers.pop() {
            None => "nothing".into(),
            Some((_, Answer::Following { number, is_snapshot, .. })) => {
                format!("{} at {number}", if is_snapshot { "snapshot" } else { "goes on" })
            }
            Some((_, Answer::Events { events })) => format!("{} and {} in all", events[0].number, events.len()),
            Some((_, other)) => format!("{other:?}"),
        }
    }

    fn running() -> Journal {
        let mut journal = Journal::new(5, 2);
        assert_eq!(follow(&mut journal, 1, None, None), Some(Extras::default()));
        assert_eq!(follow(&mut journal, 2, None, None), None, "shards are told to report once");
        assert_eq!(journal.leave(asker(2)), None);
        journal.started();
        assert_eq!(answer(&mut journal), "nothing", "a shard does not report yet");
        journal.started();
        assert_eq!(answer(&mut journal), "snapshot at 1");
        journal
    }

    #[test]
    fn a_question_waits_until_something_happens() {
        let mut journal = running();
        journal.append(report(2, 0));
        assert_eq!(answer(&mut journal), "nothing", "the consumer has not asked for more");
        journal.more(asker(1));
        assert_eq!(answer(&mut journal), "2 and 2 in all");
        journal.more(asker(1));
        assert_eq!(answer(&mut journal), "nothing");
        journal.append(report(BATCH_EVENTS + 1, 0));
        assert_eq!(answer(&mut journal), format!("4 and {BATCH_EVENTS} in all"));
        journal.more(asker(1));
        assert_eq!(answer(&mut journal), format!("{} and 1 in all", 4 + BATCH_EVENTS));
        journal.more(asker(1));
        journal.complete();
        assert_eq!(answer(&mut journal), "NoMoreEvents");
        assert_eq!(journal.followers(), 0);
    }

    #[test]
    fn a_consumer_resumes_after_a_number_that_is_of_this_run_and_kept() {
        let mut journal = running();
        journal.leave(asker(1));
        journal.append(report(3, 0));
        for (since, epoch, expected) in [
            (None, None, "snapshot at 4"),
            (Some(0), None, "snapshot at 4"),
            (Some(1), None, "goes on at 1"),
            (Some(3), Some(5), "goes on at 3"),
            (Some(4), Some(5), "goes on at 4"),
            (Some(3), Some(6), "snapshot at 4"),
            (Some(5), Some(5), "snapshot at 4"),
            (Some(u64::MAX), None, "snapshot at 4"),
        ] {
            follow(&mut journal, 1, since, epoch);
            assert_eq!(answer(&mut journal), expected, "{since:?} {epoch:?}");
            journal.leave(asker(1));
        }
    }

    #[test]
    fn the_journal_is_bounded_and_a_consumer_that_falls_behind_is_ended() {
        let mut journal = running();
        follow(&mut journal, 2, None, None);
        assert_eq!(answer(&mut journal), "snapshot at 1");
        journal.more(asker(2));
        for _ in 0..100 {
            journal.append(report(5000, 0));
            assert!(journal.bytes() <= BYTES_MAX);
            let reads = journal.answers().into_iter().filter(|(_, answer)| matches!(answer, Answer::Events { .. }));
            for (reader, _) in reads.collect::<Vec<_>>() {
                assert_eq!(reader, asker(2), "the other consumer does not ask");
                // This consumer would fall behind too: it receives 1024 of every 5000 events.
                journal.leave(reader);
                let number = journal.number();
                follow(&mut journal, 2, Some(number), Some(5));
                assert_eq!(journal.answers().len(), 1);
                journal.more(reader);
            }
        }
        assert_eq!((journal.followers(), journal.ended_too_slow), (1, 1));
        let kept = journal.events.len();
        assert!((100_000..300_000).contains(&kept), "{kept} are kept");
    }

    #[test]
    fn after_a_loss_consumers_restart_from_a_snapshot() {
        let mut journal = running();
        journal.append(report(1, 0));
        journal.more(asker(1));
        assert_eq!(answer(&mut journal), "2 and 1 in all");
        journal.append(report(1, 10));
        assert_eq!(journal.number(), 13);
        assert_eq!(answer(&mut journal), "FellBehind { missing: 10 }");
        follow(&mut journal, 1, Some(2), Some(5));
        assert_eq!(answer(&mut journal), "snapshot at 13");
    }

    #[test]
    fn a_consumer_receives_the_extras_that_it_has_asked_for() {
        let mut journal = running();
        let misses = Extras { cache_misses: true, ..Extras::default() };
        assert_eq!(journal.follow(asker(2), None, None, misses), Some(misses));
        assert_eq!(answer(&mut journal), "nothing", "the shards do not report them yet");
        (0..2).for_each(|_| journal.started());
        assert_eq!(answer(&mut journal), "snapshot at 1");
        let channel: ChannelName = Channel::parse("cache-a").expect("a legal name").into();
        let happenings = |changes: usize, extras: usize| {
            let mut report = report(changes, 0);
            report.happenings.extend((0..extras).map(|_| Happening::CacheMiss { channel: channel.clone() }));
            report
        };
        (1..=2).for_each(|session| journal.more(asker(session)));
        journal.append(happenings(0, 3));
        assert_eq!(answer(&mut journal), "2 and 3 in all", "only for the second consumer");
        journal.append(happenings(1, 1));
        journal.more(asker(2));
        let numbers: Vec<(u32, Vec<u64>)> = journal
            .answers()
            .into_iter()
            .map(|(asker, answer)| match answer {
                Answer::Events { events } => (asker.session, events.iter().map(|event| event.number).collect()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(numbers, [(1, vec![5]), (2, vec![5, 6])]);
        assert_eq!(journal.leave(asker(2)), Some(Extras::default()));
        assert_eq!(journal.leave(asker(1)), None);
    }

    #[test]
    fn an_answer_is_bounded_by_bytes() {
        let mut journal = running();
        let extras = Extras { client_events: true, ..Extras::default() };
        journal.follow(asker(2), None, None, extras);
        (0..2).for_each(|_| journal.started());
        assert_eq!(answer(&mut journal), "snapshot at 1");
        let channel: ChannelName = Channel::parse("private-a").expect("a legal name").into();
        let data = "1".repeat(10 * 1024);
        let message = Message { event: "client-e", data: Some(&data), ..Message::default() };
        let payload = Payload::new(&message, &mut String::new());
        let event = ClientEvent { channel, sender: SocketId { high: 1, low: 2 }, payload };
        let what = Happening::ClientEvent(Box::new(event));
        journal.append(Report { happenings: vec![what; 100], ..report(0, 0) });
        (1..=2).for_each(|session| journal.more(asker(session)));
        assert_eq!(answer(&mut journal), "2 and 22 in all");
        journal.more(asker(2));
        assert_eq!(answer(&mut journal), "24 and 22 in all");
    }

    #[test]
    fn an_event_is_small() {
        assert!(size_of::<Event>() <= 80, "{} bytes", size_of::<Event>());
    }
}
