//! Questions of admin sessions, reports of lifecycle events, and the live tap.

use super::mail::{Answer, Fence, Mail, Question};
use super::observe::extras::Extras;
use super::observe::journal::JOURNAL;
use super::observe::reports::Report;
use super::observe::sighting::Client;
use super::{Hub, Port};
use crate::api::operation::{ChannelCount, Unsubscribe};
use crate::api::refusal::NO_SUBSCRIPTION;
use crate::api::{Reply, Request, Rows};
use crate::ids::{Asker, ShardId, Slot};
use crate::protocol::channel::Channel;
use crate::protocol::close::CloseReason;
use crate::protocol::dialect::Dialect;
use crate::protocol::error_code::ErrorCode;
use std::net::SocketAddr;

impl Hub {
    // ---- questions

    /// Asks a shard on behalf of an admin session of this one.
    pub fn ask(&mut self, of: ShardId, asker: Asker, question: Question, port: &mut impl Port) {
        self.post(of, Mail::Ask(asker, Box::new(question)), port);
        self.settle_own(port);
    }

    /// Sends the answer to a question that an admin session of any shard asked of this one.
    pub fn answer_admin(&mut self, asker: Asker, answer: Answer, port: &mut impl Port) {
        self.post_answer(asker, answer, port);
        self.settle_own(port);
    }

    pub(super) fn serve_question(&mut self, asker: Asker, question: Question, port: &mut impl Port) {
        let answer = match question {
            Question::OfChannel { request: Request::Channel(request), channel, hash } => {
                let history = self.directory.kept(channel.as_channel(), hash);
                let newest = request.newest.then(|| self.directory.newest(channel.as_channel(), hash)).flatten();
                let count = self.directory.count(&channel, hash);
                Answer::Reply(Ok(Reply::Channel { count, history, newest: newest.map(Box::new) }))
            }
            Question::OfChannel { request: Request::History(history), channel, hash } => {
                let page = self.directory.history(channel.as_channel(), hash, &history);
                Answer::Reply(Ok(Reply::History(Box::new(page))))
            }
            Question::OfChannel { request: Request::Members(_), channel, hash } => {
                let (count, members) = self.directory.members(channel.as_channel(), hash);
                Answer::Reply(Ok(Reply::Members { count, members }))
            }
            Question::OfChannel { request: Request::Disconnect(disconnect), channel, hash } => {
                return self.disconnect_user(&channel, hash, &disconnect, asker, port);
            }
            Question::Page { request: Request::Channels(channels), limit, after } => {
                let prefix = channels.prefix.unwrap_or_default();
                channel_page(self.directory.page(&prefix, limit, after))
            }
            Question::Occupied { limit, after } => channel_page(self.directory.page_occupied(limit, after)),
            Question::Members { limit, after } => {
                let (members, next) = self.directory.page_of_members(limit, after);
                Answer::Members { members, next }
            }
            Question::Follow { .. } | Question::MoreEvents | Question::Unfollow => {
                return self.serve_follower(asker, &question, port);
            }
            Question::Busiest { by, limit } => return self.observers.survey(asker, by, limit),
            Question::Unsurvey => return self.observers.cancel_surveys(asker),
            Question::Tap { filter } => self.observers.tap(asker, filter),
            Question::MoreSeen => return self.observers.taps.more(asker),
            Question::Untap => return self.observers.taps.close(asker),
            Question::OfConnection { request: Request::Unsubscribe(Unsubscribe { channel, .. }), member } => {
                let channel = Channel::parse(&channel).filter(|_| self.is_live(member));
                let expel = |channel| self.audiences.expel(member.slot, channel, self.placement.hash(channel), asker);
                match channel.and_then(expel) {
                    Some(change) => return self.post(self.owner(change.hash), Mail::Unsubscribe(change), port),
                    None => Answer::Reply(Err(NO_SUBSCRIPTION)),
                }
            }
            other => return port.ask(asker, other),
        };
        self.post_answer(asker, answer, port);
    }

    /// Continues the oldest survey for the busiest channels and addresses, by at most `entries` entries.
    pub fn survey(&mut self, entries: usize, port: &mut impl Port) {
        if let Some((asker, answer)) = self.observers.go_on(&self.directory, &self.addresses, entries) {
            self.answer_admin(asker, answer, port);
        }
    }

    /// Whether a survey is under way.
    pub fn is_surveying(&self) -> bool {
        !self.observers.surveys.is_empty()
    }

    // ---- lifecycle events

    /// Whether this shard reports lifecycle events.
    pub fn is_listened_to(&self) -> bool {
        self.observers.reports.is_listening
    }

    /// Reports the lifecycle events since the last call to the journal, including channels that have now been vacant for long
    /// enough. Called at the end of each turn; costs one branch while nothing is reported. `time_ms`: milliseconds since
    /// 1970.
    pub fn report(&mut self, time_ms: impl FnOnce() -> u64, port: &mut impl Port) {
        if self.is_listened_to() {
            self.send_report(time_ms, false, port);
        }
    }

    /// Sends the last report, and its fence. All connections have ended.
    pub fn report_last(&mut self, time_ms: impl FnOnce() -> u64, port: &mut impl Port) {
        self.send_report(time_ms, true, port);
        self.post(JOURNAL, Mail::Fence(Fence::Reports), port);
        self.settle_own(port);
    }

    fn send_report(&mut self, time_ms: impl FnOnce() -> u64, is_last: bool, port: &mut impl Port) {
        let mut left = if is_last { usize::MAX } else { VACATED_PER_TURN };
        while left > 0 || self.directory.is_crowded() {
            let Some(channel) = self.directory.vacate(self.now) else { break };
            self.observers.vacated(channel);
            left = left.saturating_sub(1);
        }
        if let Some(report) = self.observers.report(time_ms, is_last) {
            self.post(JOURNAL, Mail::Happened(Box::new(report)), port);
            self.settle_own(port);
        }
        self.counters.events_lost = self.observers.reports.lost_total;
    }

    /// Ticks until the next vacant channel is reported, unless it gets a subscriber before.
    pub fn vacates_in(&self) -> Option<u32> {
        self.directory.due_in(self.now)
    }

    /// Whether this shard keeps the journal, and it has consumers.
    pub fn has_event_consumers(&self) -> bool {
        self.observers.journal.followers() > 0
    }

    /// The journal asks for reports from now on.
    pub(super) fn listen(&mut self, extras: Extras, port: &mut impl Port) {
        self.observers.listen(extras);
        self.directory.hold_back();
        self.post(JOURNAL, Mail::Listening, port);
    }

    /// As the journal: one more shard reports.
    pub(super) fn start_journal(&mut self, port: &mut impl Port) {
        self.observers.journal.started();
        self.answer_followers(port);
    }

    /// As the journal: takes a shard's report.
    pub(super) fn take_report(&mut self, report: Report, port: &mut impl Port) {
        self.counters.events += report.happenings.len() as u64;
        self.post(report.shard, Mail::Taken, port);
        self.observers.journal.append(report);
        self.answer_followers(port);
    }

    /// As the journal: all shards have sent their last report.
    pub(super) fn complete_journal(&mut self, port: &mut impl Port) {
        self.observers.journal.complete();
        self.answer_followers(port);
    }

    fn serve_follower(&mut self, asker: Asker, question: &Question, port: &mut impl Port) {
        if matches!(question, Question::Unfollow) && self.has_begun_to_stop() {
            // Shards that have ended take no letters.
            return self.observers.journal.forget(asker);
        }
        match self.observers.follow(asker, question) {
            Ok(Some(extras)) => self.post_all(|| Mail::Listen(extras), port),
            Ok(None) => {}
            Err(answer) => self.post_answer(asker, answer, port),
        }
        self.answer_followers(port);
    }

    fn answer_followers(&mut self, port: &mut impl Port) {
        for (asker, answer) in self.observers.journal.answers() {
            self.post_answer(asker, answer, port);
        }
        self.counters.event_consumers_too_slow = self.observers.journal.ended_too_slow;
    }

    // ---- the live tap

    /// Whether a tap is open.
    pub fn is_watched(&self) -> bool {
        self.observers.is_watched()
    }

    /// Sends the taps the sightings since the last call. Called at the end of each turn; costs one branch without taps.
    /// `time_ms`: milliseconds since 1970.
    pub fn show(&mut self, time_ms: impl FnOnce() -> u64, port: &mut impl Port) {
        if !self.is_watched() {
            return;
        }
        for (asker, answer) in self.observers.sightings(time_ms) {
            self.post_answer(asker, answer, port);
        }
        self.counters.sightings = self.observers.taps.shown;
        self.counters.sightings_dropped = self.observers.taps.dropped;
        self.settle_own(port);
    }

    /// An upgrade request was answered with an HTTP error.
    pub fn see_refuse(&mut self, address: Option<SocketAddr>, why: &'static str) {
        self.observers.see_refuse(address, why, self.now);
    }

    /// A connection ends. Called before [`Hub::disconnect`], while the connection still has its socket id.
    pub fn see_close(&mut self, slot: Slot, dialect: Dialect, address: Option<SocketAddr>, reason: &CloseReason) {
        let opened = self.audiences.live_key(slot).map(|key| (self.identities.socket_id(key), dialect));
        self.observers.see_close(opened, address, (reason, reason.close_code(dialect)), self.now);
    }

    pub(super) fn see_request(
        &mut self,
        kind: &'static str,
        slot: Slot,
        name: &str,
        error: Option<ErrorCode>,
        port: &impl Port,
    ) {
        let client = self.client(slot, port);
        self.observers.see_request(kind, client, name, error, self.now);
    }

    pub(super) fn see_limit(&mut self, slot: Slot, port: &impl Port) {
        let client = self.client(slot, port);
        self.observers.see_limit(client, self.now);
    }

    fn client(&self, slot: Slot, port: &impl Port) -> Client {
        Client { socket_id: self.socket_id(slot), address: port.address(slot), dialect: self.audiences.dialect(slot) }
    }
}

fn channel_page((channels, next): (Vec<ChannelCount>, Option<u32>)) -> Answer {
    Answer::Page { rows: Rows::Channels(channels), next }
}

/// Most channels that one turn reports as vacated: under 1 ms of work. Many clients that leave at once vacate thousands.
const VACATED_PER_TURN: usize = 4096;
