//! Lifecycle events, from where something happens to the consumer that asked: shards report, the journal numbers.

use super::journal::{FOLLOWERS_MAX, JOURNAL};
use super::mail::{Answer, Asker, Fence, Mail, Question, ShardId};
use super::reports::{Happening, Report};
use super::{Hub, Port};
use crate::protocol::channel::ChannelName;

impl Hub {
    /// Tells the journal what happened since the last call, channels included that are vacant for long enough by now. At
    /// every turn's end; costs nothing while nobody listens. `time_ms`: milliseconds since 1970.
    pub fn report(&mut self, time_ms: impl FnOnce() -> u64, port: &mut impl Port) {
        if self.reports.is_listening {
            self.tell(time_ms, false, port);
        }
    }

    /// Whether somebody wants to know what happens.
    pub fn is_listened_to(&self) -> bool {
        self.reports.is_listening
    }

    /// Everybody has been disconnected: tells the rest, and that it is the rest.
    pub fn report_last(&mut self, time_ms: impl FnOnce() -> u64, port: &mut impl Port) {
        self.tell(time_ms, true, port);
        self.post(JOURNAL, Mail::Fence(Fence::Reports), port);
        self.settle_own(port);
    }

    fn tell(&mut self, time_ms: impl FnOnce() -> u64, is_last: bool, port: &mut impl Port) {
        let mut left = if is_last { usize::MAX } else { VACATED_PER_TURN };
        while left > 0 || self.directory.is_crowded() {
            let Some(channel) = self.directory.vacate(self.now) else { break };
            self.reports.push(Happening::Vacated { channel });
            left = left.saturating_sub(1);
        }
        if let Some(report) = self.reports.letter(self.shard, time_ms, is_last) {
            self.post(JOURNAL, Mail::Happened(Box::new(report)), port);
            self.settle_own(port);
        }
        self.counters.events_lost = self.reports.lost_total;
    }

    /// Ticks until the next channel is vacated, if nobody comes.
    pub fn vacates_in(&self) -> Option<u32> {
        self.directory.due_in(self.now)
    }

    /// Consumers of the journal that this shard keeps, and the bytes that it holds.
    pub fn journal_sizes(&self) -> (usize, usize) {
        (self.journal.followers(), self.journal.bytes())
    }

    /// A subscriber of a channel that this shard owns.
    pub(super) fn count_in(&mut self, channel: &ChannelName, hash: u64, shard: ShardId) {
        let is_occupied = self.directory.join(channel, hash, shard);
        if is_occupied && self.reports.is_listening {
            self.reports.push(Happening::Occupied { channel: channel.clone() });
        }
    }

    /// The journal wants to know everything from now on.
    pub(super) fn listen(&mut self, port: &mut impl Port) {
        self.reports.is_listening = true;
        self.directory.hold_back();
        self.post(JOURNAL, Mail::Listening, port);
    }

    // ---- of the shard that keeps the journal

    /// One more shard reports.
    pub(super) fn start_journal(&mut self, port: &mut impl Port) {
        self.journal.started();
        self.tell_followers(port);
    }

    pub(super) fn take_report(&mut self, report: Report, port: &mut impl Port) {
        self.counters.events += report.happenings.len() as u64;
        self.post(report.shard, Mail::Taken, port);
        self.journal.append(report);
        self.tell_followers(port);
    }

    pub(super) fn complete_journal(&mut self, port: &mut impl Port) {
        self.journal.complete();
        self.tell_followers(port);
    }

    pub(super) fn serve_follower(&mut self, asker: Asker, question: &Question, port: &mut impl Port) {
        match *question {
            Question::Follow { is_own: false, .. } if self.journal.followers() >= FOLLOWERS_MAX => {
                let answer = Answer::TooMany { limit: FOLLOWERS_MAX };
                self.post(asker.shard, Mail::Answer(asker, Box::new(answer)), port);
            }
            Question::Follow { since, epoch, .. } => {
                if self.journal.follow(asker, since, epoch, self.shards) {
                    self.post_all(|| Mail::Listen, port);
                }
            }
            Question::Unfollow => self.journal.leave(asker),
            _ => self.journal.more(asker),
        }
        self.tell_followers(port);
    }

    fn tell_followers(&mut self, port: &mut impl Port) {
        for (asker, answer) in self.journal.answers() {
            self.post(asker.shard, Mail::Answer(asker, Box::new(answer)), port);
        }
        self.counters.event_consumers_too_slow = self.journal.told_off;
    }
}

/// Channels that are vacant for long enough. Thousands are at once when a crowd leaves; under 1 ms of work.
const VACATED_PER_TURN: usize = 4096;
