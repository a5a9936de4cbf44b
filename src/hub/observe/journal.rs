//! The journal: what happened in the whole server, in one order, numbered. State of one shard, [`JOURNAL`]; the others mail
//! it what happened ([`reports`](super::reports)), consumers anywhere ask it for more ([`follower`](super::follower)).
//!
//! It begins with the first consumer, because before that nobody can know a number to go on from: a server whose events
//! nobody reads holds and mails nothing. From then on it keeps the latest `BYTES_MAX` of them, whoever reads.
//!
//! Consumers pull: each has at most one question open, and a question that finds nothing new waits here until something
//! happens. So a consumer that does not read costs the journal its line in a table, holds up nobody, and is told off once
//! what it should read next is gone.
//!
//! # What a snapshot is worth
//!
//! A snapshot has the journal's last number of when it was asked for, and is gathered page by page afterwards, while the
//! server goes on. A shard reports everything that it does from the moment it listens, in order, so what a page shows
//! beyond the snapshot's number comes again as an event. Per connection and per channel the last event decides, or, where
//! there is none, the page, which then is right: whoever applies snapshot and events knows what the server knows.

use crate::hub::mail::Answer;
use crate::hub::observe::reports::{Event, Report};
use crate::ids::{Asker, ShardId};
use std::collections::VecDeque;

/// The shard that keeps the journal.
pub const JOURNAL: ShardId = 0;

/// The latest events, and who reads them.
pub struct Journal {
    epoch: u64,
    state: State,
    /// Number of the oldest event that is kept, or of the next one.
    first: u64,
    events: VecDeque<Event>,
    bytes: usize,
    pub(super) bytes_max: usize,
    followers: Vec<Follower>,
    /// Consumers ended because they did not read fast enough.
    pub told_off: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody has asked.
    Idle,
    /// So many shards do not report yet.
    Starting(usize),
    Running,
    /// All shards have told all that they ever will.
    Complete,
}

struct Follower {
    asker: Asker,
    place: Place,
}

enum Place {
    /// It asked to begin here, and waits for the shards to listen.
    Begins { since: Option<u64> },
    /// It was given everything up to this number, and has not asked for more.
    Served(u64),
    /// It asked for more than this number.
    Waits(u64),
}

impl Journal {
    /// An empty journal. `epoch`: tells one run of the server from another.
    pub fn new(epoch: u64) -> Journal {
        Journal {
            epoch,
            state: State::Idle,
            first: FIRST,
            events: VecDeque::new(),
            bytes: 0,
            bytes_max: BYTES_MAX,
            followers: Vec::new(),
            told_off: 0,
        }
    }

    /// A consumer comes: it knows everything up to `since` of the run `epoch`, or nothing. Returns whether the shards are to
    /// be told to report. Its answer is among the next [`Journal::answers`], or one of those after.
    pub fn follow(&mut self, asker: Asker, since: Option<u64>, epoch: Option<u64>, shards: usize) -> bool {
        let since = since.filter(|_| epoch.is_none_or(|epoch| epoch == self.epoch));
        self.followers.push(Follower { asker, place: Place::Begins { since } });
        let begins = self.state == State::Idle;
        if begins {
            self.state = State::Starting(shards);
        }
        begins
    }

    /// One more shard reports.
    pub fn started(&mut self) {
        if let State::Starting(left) = &mut self.state {
            *left -= 1;
            if *left == 0 {
                self.state = State::Running;
            }
        }
    }

    /// The consumer has room for more.
    pub fn more(&mut self, asker: Asker) {
        if let Some(follower) = self.followers.iter_mut().find(|follower| follower.is(asker))
            && let Place::Served(number) = follower.place
        {
            follower.place = Place::Waits(number);
        }
    }

    /// The consumer is gone.
    pub fn leave(&mut self, asker: Asker) {
        self.followers.retain(|follower| !follower.is(asker));
    }

    /// Takes what a shard reports. What its events no longer fit in with is forgotten, the oldest first.
    pub fn append(&mut self, report: Report) {
        let Report { shard, time_ms, lost, happenings } = report;
        if lost > 0 {
            // Nobody may take the rest for the whole: who reads on begins anew.
            self.first = self.number() + 1 + lost;
            self.events.clear();
            self.bytes = 0;
        }
        for what in happenings {
            self.bytes += size_of::<Event>() + what.heap_bytes();
            self.events.push_back(Event { time_ms, shard, what });
        }
        while self.bytes > self.bytes_max
            && let Some(event) = self.events.pop_front()
        {
            self.bytes -= size_of::<Event>() + event.what.heap_bytes();
            self.first += 1;
        }
    }

    /// All shards have told all that they ever will: consumers get the rest, then the end.
    pub fn complete(&mut self) {
        self.state = State::Complete;
    }

    /// What is to be told to whom now.
    pub fn answers(&mut self) -> Vec<(Asker, Answer)> {
        let mut answers = Vec::new();
        if matches!(self.state, State::Idle | State::Starting(_)) {
            return answers;
        }
        let (number, first, is_complete) = (self.number(), self.first, self.state == State::Complete);
        let Journal { epoch, events, followers, told_off, .. } = self;
        followers.retain_mut(|follower| {
            let (answer, stays) = match follower.place {
                Place::Begins { since } => {
                    let known = since.filter(|since| (first - 1..=number).contains(since));
                    let number = known.unwrap_or(number);
                    follower.place = Place::Served(number);
                    (Answer::Following { epoch: *epoch, number, is_snapshot: known.is_none() }, true)
                }
                Place::Served(seen) | Place::Waits(seen) if seen + 1 < first => {
                    *told_off += 1;
                    (Answer::FellBehind { missing: first - seen - 1 }, false)
                }
                Place::Waits(seen) if seen < number => {
                    let from = (seen + 1 - first) as usize;
                    let batch: Box<[Event]> = events.iter().skip(from).take(BATCH_EVENTS).cloned().collect();
                    follower.place = Place::Served(seen + batch.len() as u64);
                    (Answer::Events { number: seen + 1, events: batch }, true)
                }
                Place::Waits(_) if is_complete => (Answer::NoMoreEvents, false),
                Place::Served(_) | Place::Waits(_) => return true,
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

    /// Consumers.
    pub fn followers(&self) -> usize {
        self.followers.len()
    }

    /// Bytes of the events that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Follower {
    /// A session has one stream.
    fn is(&self, asker: Asker) -> bool {
        self.asker == asker
    }
}

/// The journal's own beginning is number 1: who knows everything up to 0 knows nothing, and is given a snapshot.
const FIRST: u64 = 2;
/// Consumers of a server; its own are let in beyond it.
pub const FOLLOWERS_MAX: usize = 64;
/// What is kept, names included: some 200 000 events. Those of a second in which 20 000 clients come and 20 000 go are a
/// fifth of it. With the room that a table leaves, the heap holds at most twice this.
pub const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Events of one answer: some 100 KiB of lines.
const BATCH_EVENTS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::observe::reports::Happening;
    use crate::protocol::socket_id::SocketId;

    fn asker(session: u32) -> Asker {
        Asker { shard: 0, session, generation: 0, request: 0 }
    }

    fn report(happenings: usize, lost: u64) -> Report {
        let what = || Happening::Connected { socket_id: SocketId { high: 1, low: 2 }, address: None };
        Report { shard: 0, time_ms: 7, lost, happenings: std::iter::repeat_with(what).take(happenings).collect() }
    }

    /// The only answer, in short.
    fn answer(journal: &mut Journal) -> String {
        let mut answers = journal.answers();
        assert!(answers.len() < 2);
        match answers.pop() {
            None => "nothing".into(),
            Some((_, Answer::Following { number, is_snapshot, .. })) => {
                format!("{} at {number}", if is_snapshot { "snapshot" } else { "goes on" })
            }
            Some((_, Answer::Events { number, events })) => format!("{number} and {} in all", events.len()),
            Some((_, other)) => format!("{other:?}"),
        }
    }

    fn running() -> Journal {
        let mut journal = Journal::new(5);
        assert!(journal.follow(asker(1), None, None, 2));
        assert!(!journal.follow(asker(2), None, None, 2), "told once");
        journal.leave(asker(2));
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
        assert_eq!(answer(&mut journal), "nothing", "nobody asked");
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
    fn who_knows_a_number_goes_on_from_it_if_it_is_of_this_run_and_kept() {
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
            journal.follow(asker(1), since, epoch, 2);
            assert_eq!(answer(&mut journal), expected, "{since:?} {epoch:?}");
            journal.leave(asker(1));
        }
    }

    #[test]
    fn it_is_bounded_and_who_fell_behind_is_told_so() {
        let mut journal = running();
        journal.follow(asker(2), None, None, 2);
        assert_eq!(answer(&mut journal), "snapshot at 1");
        journal.more(asker(2));
        for _ in 0..100 {
            journal.append(report(5000, 0));
            assert!(journal.bytes() <= BYTES_MAX);
            let reads = journal.answers().into_iter().filter(|(_, answer)| matches!(answer, Answer::Events { .. }));
            for (reader, _) in reads.collect::<Vec<_>>() {
                assert_eq!(reader, asker(2), "the other does not ask");
                // It would fall behind, too, at 1024 of 5000.
                journal.leave(reader);
                journal.follow(reader, Some(journal.number()), Some(5), 2);
                assert_eq!(journal.answers().len(), 1);
                journal.more(reader);
            }
        }
        assert_eq!((journal.followers(), journal.told_off), (1, 1));
        let kept = journal.events.len();
        assert!((100_000..300_000).contains(&kept), "{kept} are kept");
    }

    #[test]
    fn a_loss_is_a_gap_and_everybody_begins_anew() {
        let mut journal = running();
        journal.append(report(1, 0));
        journal.more(asker(1));
        assert_eq!(answer(&mut journal), "2 and 1 in all");
        journal.append(report(1, 10));
        assert_eq!(journal.number(), 13);
        assert_eq!(answer(&mut journal), "FellBehind { missing: 10 }");
        journal.follow(asker(1), Some(2), Some(5), 2);
        assert_eq!(answer(&mut journal), "snapshot at 13");
    }

    #[test]
    fn an_event_is_small() {
        assert!(size_of::<Event>() <= 80, "{} bytes", size_of::<Event>());
    }
}
