//! Subscribers that come and go, as the channel's owner counts them; and what it tells the others about that. The order of the
//! letters is explained in [`channel::presence`](super::channel::presence).

use super::channel::directory::{Joined, News, Notice, text_of_count};
use super::channel::presence::Event;
use super::channel::presence::members::Left;
use super::mail::{Cause, Change, Delivery, Fence, Mail, Welcome};
use super::message::{Message, Payload};
use super::{Hub, Port};
use crate::ids::ShardId;
use crate::protocol::channel::ChannelName;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::pusher::event::{SUBSCRIPTION_COUNT, text_of_subscription_count};
use smallvec::SmallVec;

impl Hub {
    /// Counts a new subscriber, or refuses it.
    pub(super) fn count_in(&mut self, change: Change, port: &mut impl Port) {
        let member = change.membership.member;
        let max = self.limits.presence_members_max;
        let Ok(events) = self.directory.admit(&change, max) else {
            self.counters.presence_full += 1;
            let refused = Mail::Refused(change.membership, ErrorCode::PresenceFull { max });
            return self.post(member.shard, refused, port);
        };
        for event in &events {
            self.counters.presence_evicted_early += u64::from(matches!(event, Event::Removed(_)));
            self.tell_event(&change.channel, change.hash, event, port);
        }
        let others = if events.is_empty() { SmallVec::new() } else { self.shards_with(&change.channel, change.hash) };
        let bounds = self.replay_bounds(&change.channel);
        let Joined { is_first, mut welcome } = self.directory.join(&change, bounds, self.now);
        if is_first {
            match change.channel.as_channel().is_of_user() {
                true => self.user_came(&change.channel, port),
                false => self.observers.occupied(&change.channel),
            }
        }
        self.report_members(&change.channel, &events);
        if self.observers.extras().cache_misses
            && self.directory.note_cache_miss(change.channel.as_channel(), change.hash, self.now)
        {
            self.observers.cache_miss(change.channel.clone());
        }
        // The next request that makes events waits until the other shards have taken these. So a client cannot fill the
        // backlog of a shard that is busy.
        let waits = others.iter().any(|shard| *shard != self.shard());
        welcome.iter_mut().for_each(|welcome| welcome.waits = waits);
        let count = if self.directory.tells_subscription_counts() {
            self.count_for_newcomer(&change, &mut welcome)
        } else {
            None
        };
        self.post(member.shard, Mail::Subscribed(change.membership, welcome), port);
        if let Some(count) = count {
            self.tell_subscription_count(&change.channel, change.hash, count, port);
        }
        if waits {
            port.mail_after(&others, member.shard, Mail::Welcomed(member));
        }
    }

    /// No longer counts a subscriber.
    pub(super) fn count_out(&mut self, change: &Change, port: &mut impl Port) {
        let left = self.directory.leave(change, self.now);
        if !matches!(change.membership.cause, Cause::Left) {
            self.post(change.membership.member.shard, Mail::Unsubscribed(change.membership), port);
        }
        if let Left::Removed(event) = left {
            self.tell_event(&change.channel, change.hash, &event, port);
            self.report_members(&change.channel, &[event]);
        } else if matches!(left, Left::Remains)
            && change.channel.as_channel().is_of_user()
            && self.directory.counts(change.channel.as_channel(), change.hash).is_empty()
        {
            self.user_left(&change.channel, port);
        }
        if self.directory.tells_subscription_counts()
            && let Some(count) = self.directory.count_to_tell(change.channel.as_channel(), change.hash, self.now)
        {
            self.tell_subscription_count(&change.channel, change.hash, count, port);
        }
    }

    /// The number of subscribers, if all of them are told now. Otherwise the newcomer alone is told.
    fn count_for_newcomer(&mut self, change: &Change, welcome: &mut Option<Box<Welcome>>) -> Option<u64> {
        let (channel, hash) = (change.channel.as_channel(), change.hash);
        let told = self.directory.count_to_tell(channel, hash, self.now);
        if told.is_none()
            && let Some(count) = self.directory.subscription_count(channel, hash)
        {
            welcome.get_or_insert_default().subscription_count = Some(count);
        }
        told
    }

    /// Tells the number of a channel's subscribers: to those that are Pusher's clients, and to backends.
    fn tell_subscription_count(&mut self, channel: &ChannelName, hash: u64, count: u64, port: &mut impl Port) {
        if self.is_ending() {
            return;
        }
        self.counters.subscription_counts += 1;
        if self.observers.extras().subscription_counts {
            self.observers.subscription_count(channel.clone(), count);
        }
        let message = (SUBSCRIPTION_COUNT, &*text_of_subscription_count(count));
        self.tell_by(Mail::DeliverToPusher, (channel, hash), message, port);
    }

    /// Tells subscribers what is due: users whose grace has ended, and counts. A limited number in each turn.
    pub fn tell_presence(&mut self, port: &mut impl Port) {
        let mut left = NOTICES_PER_TURN;
        while left > 0 || self.directory.has_too_many_leaving() {
            let Some(Notice { channel, hash, what }) = self.directory.next_notice(self.now) else { break };
            match what {
                News::SubscriptionCount(count) => self.tell_subscription_count(&channel, hash, count, port),
                News::Count(count) => self.tell(&channel, hash, "socket:presence", &text_of_count(count), port),
                News::Removed { event, is_early, is_vacated } => {
                    self.counters.presence_evicted_early += u64::from(is_early);
                    self.tell_event(&channel, hash, &event, port);
                    self.report_members(&channel, &[event]);
                    if is_vacated {
                        self.observers.vacated(channel);
                    }
                }
            }
            left = left.saturating_sub(1);
        }
        self.tell_watchers(port);
        self.settle_own(port);
    }

    /// Ticks until the next call of [`Hub::tell_presence`] may have something to tell.
    pub fn presence_due_in(&self) -> Option<u32> {
        [self.directory.notice_due_in(self.now), self.watched.due_in(self.now)].into_iter().flatten().min()
    }

    fn tell_event(&mut self, channel: &ChannelName, hash: u64, event: &Event, port: &mut impl Port) {
        match event {
            Event::Added(_) => self.counters.presence_joins += 1,
            Event::Removed(_) => self.counters.presence_leaves += 1,
        }
        self.tell(channel, hash, event.name(), &event.data(), port);
    }

    /// Sends the subscribers of a channel an event. It is a letter also for this shard, so that it follows the letters that
    /// wait for this hub.
    fn tell(&mut self, channel: &ChannelName, hash: u64, event: &str, data: &str, port: &mut impl Port) {
        self.tell_by(Mail::Deliver, (channel, hash), (event, data), port);
    }

    /// The same, with a letter of this kind.
    fn tell_by(
        &mut self,
        mail: fn(Delivery) -> Mail,
        (channel, hash): (&ChannelName, u64),
        (event, data): (&str, &str),
        port: &mut impl Port,
    ) {
        if self.is_ending() {
            return;
        }
        let shards = self.shards_with(channel, hash);
        let message = Message { event, data: Some(data), ..Message::default() };
        let mut payload = None;
        for shard in shards {
            let payload = payload.get_or_insert_with(|| Payload::new(&message, &mut self.scratch)).clone();
            let (channel, read_at) = (channel.clone(), self.turn_us);
            let delivery = Delivery { channel, hash, payload, offset: None, exclude: None, read_at };
            self.post(shard, mail(delivery), port);
        }
    }

    fn report_members(&mut self, channel: &ChannelName, events: &[Event]) {
        if !self.is_ending() {
            events.iter().for_each(|event| self.observers.member(channel, event));
        }
    }

    /// Whether a shard has stopped reading from publishers.
    pub(super) fn has_begun_to_stop(&self) -> bool {
        self.fences[Fence::Publishers as usize] > 0
    }

    /// Whether the server stops, and this shard has sent its last message: the connections are about to be closed. Their users
    /// come back to this server or its successor.
    pub(super) fn is_ending(&self) -> bool {
        self.fences[Fence::Publishers as usize] == self.placement.shards()
    }

    /// The shards with subscribers of a channel that this shard owns.
    pub(super) fn shards_with(&self, channel: &ChannelName, hash: u64) -> SmallVec<[ShardId; 8]> {
        self.directory.counts(channel.as_channel(), hash).iter().map(|(shard, _)| *shard).collect()
    }
}

/// Most events that one turn sends because of timers: some milliseconds of work.
const NOTICES_PER_TURN: usize = 1024;
