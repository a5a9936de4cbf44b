//! Presence of the channels of a directory: subscribers as users, their graces, and the counts that subscribers are told.
//!
//! A channel with a member keeps its entry, also without subscribers. Backends are told first that its last member was
//! removed and then that it was vacated.

use super::{Directory, SCAN_MAX, is_due, total};
use crate::api::operation::PresentUser;
use crate::hub::channel::memory::Memory;
use crate::hub::channel::presence::members::{Full, Left, Members};
use crate::hub::channel::presence::timers::{Due, LEAVING_MAX};
use crate::hub::channel::presence::user::User;
use crate::hub::channel::presence::{Event, Presence};
use crate::hub::mail::Change;
use crate::ids::ConnKey;
use crate::protocol::channel::{Channel, ChannelName};
use crate::protocol::dialect::Dialect;
use std::sync::Arc;

/// What subscribers must be told because of a timer.
pub struct Notice {
    /// The channel.
    pub channel: ChannelName,
    /// Hash of its name.
    pub hash: u64,
    /// What they are told.
    pub what: News,
}

/// News about the subscribers of a channel.
#[derive(Debug)]
pub enum News {
    /// A user stopped being a member.
    Removed {
        /// The user.
        event: Event,
        /// Whether its grace was cut short.
        is_early: bool,
        /// Whether the channel is vacant from now on, and reported as that.
        is_vacated: bool,
    },
    /// The number of connections.
    Count(u64),
    /// The number of subscribers, on a channel that is told it every few seconds.
    SubscriptionCount(u64),
}

impl Directory {
    /// Changes how long a user remains a member without connections.
    pub fn set_grace(&mut self, grace_ms: u32) {
        self.timers.set_grace(grace_ms);
    }

    /// Before [`Directory::join`]: makes the user of a subscriber a member. Returns the events for the present subscribers.
    pub fn admit(&mut self, change: &Change, users_max: usize) -> Result<Vec<Event>, Full> {
        let Some(user) = change.wish.as_ref().and_then(|wish| wish.user.as_ref()) else { return Ok(Vec::new()) };
        let index = self.find_or_enter(&change.channel, change.hash);
        match members_of(&mut self.channels[index as usize].memory) {
            Some(members) => members.join(change.membership.member, user.clone(), users_max, &mut self.timers),
            None => Ok(Vec::new()),
        }
    }

    /// A subscriber leaves, which is still counted.
    pub(super) fn leave_members(&mut self, index: u32, connection: ConnKey, now: u32) -> Left {
        match members_of(&mut self.channels[index as usize].memory) {
            Some(members) => members.leave(index, connection, now, &mut self.timers),
            None => Left::Remains,
        }
    }

    /// The list or the count of the channel as JSON, for the reply of a subscriber that was just counted.
    pub(super) fn presence_text(&mut self, index: u32, dialect: Dialect, now: u32) -> Option<Arc<str>> {
        let Directory { channels, timers, .. } = self;
        let entry = channels.get_mut(index as usize)?;
        match entry.memory.as_mut()?.presence.as_mut()? {
            Presence::Members(members) => Some(members.list(dialect)),
            Presence::Count(count) => {
                let subscribers = total(&entry.counts);
                count.joined(index, subscribers, now, timers);
                Some(text_of_count(subscribers).into())
            }
        }
    }

    /// The next news that a timer brings.
    pub fn next_notice(&mut self, now: u32) -> Option<Notice> {
        while let Some(due) = self.timers.next(now) {
            let (index, what) = match due {
                Due::Removal { channel, user, is_early } => (channel, self.remove_member(channel, user, is_early, now)),
                Due::Count { channel } => (channel, self.tell_count(channel)),
                Due::SubscriptionCount { channel } => (channel, self.tell_subscription_count(channel, now)),
            };
            if let Some((channel, hash, what)) = what {
                return Some(Notice { channel, hash, what });
            }
            debug_assert!(self.channels.contains(index as usize), "a timer outlives its channel");
        }
        None
    }

    /// Ticks until [`Directory::next_notice`] may have one.
    pub fn notice_due_in(&self, now: u32) -> Option<u32> {
        self.timers.due_in(now)
    }

    /// Whether more users are in their grace than allowed, so that [`Directory::next_notice`] has one at once.
    pub fn has_too_many_leaving(&self) -> bool {
        self.timers.leaving() > LEAVING_MAX
    }

    /// The user as whom a connection is a member of a channel.
    pub fn user_of(&self, channel: &ChannelName, hash: u64, connection: ConnKey) -> Option<&User> {
        let index = self.find(channel.as_channel(), hash)?;
        match self.channels[index as usize].memory.as_ref()?.presence.as_ref()? {
            Presence::Members(members) => members.user_of(connection),
            Presence::Count(_) => None,
        }
    }

    /// The number of a channel's members, and the members in order of joining; or the number of its connections, without
    /// names, if that is what its subscribers are told.
    pub fn members(&self, channel: Channel<'_>, hash: u64) -> (u64, Vec<PresentUser>) {
        let entry = self.find(channel, hash).map(|index| &self.channels[index as usize]);
        let Some(entry) = entry else { return (0, Vec::new()) };
        match entry.memory.as_ref().and_then(|memory| memory.presence.as_ref()) {
            Some(Presence::Members(members)) => {
                let present = |(user, connections): (&User, u32)| PresentUser {
                    user_id: user.id().into(),
                    user_info: user.info().map(Box::from),
                    connections: connections.into(),
                };
                let present: Vec<_> = members.iter().map(present).collect();
                (present.len() as u64, present)
            }
            Some(Presence::Count(_)) => (total(&entry.counts), Vec::new()),
            None => (0, Vec::new()),
        }
    }

    /// Members of channels from index `after` on: at least `limit` if there are as many, because a channel is not divided;
    /// and the index of the next page.
    pub fn page_of_members(&self, limit: usize, after: u32) -> (Vec<(ChannelName, Arc<str>)>, Option<u32>) {
        let mut page = Vec::new();
        let end = self.channels.capacity() as u32;
        let stop = end.min(after.saturating_add(SCAN_MAX));
        for index in after..stop {
            if page.len() >= limit {
                return (page, Some(index));
            }
            let Some(entry) = self.channels.get(index as usize) else { continue };
            if let Some(Presence::Members(members)) = entry.memory.as_ref().and_then(|memory| memory.presence.as_ref())
            {
                page.extend(members.iter().map(|(user, _)| (entry.name.clone(), user.shared_id())));
            }
        }
        (page, (stop < end).then_some(stop))
    }

    /// Whether the channel has members, with or without connections.
    pub(super) fn has_members(&self, index: u32) -> bool {
        let memory = self.channels[index as usize].memory.as_ref();
        let presence = memory.and_then(|memory| memory.presence.as_ref());
        matches!(presence, Some(Presence::Members(members)) if !members.is_empty())
    }

    /// Notes that the number of subscribers may have changed.
    pub(super) fn note_count(&mut self, index: u32, now: u32) {
        let Directory { channels, timers, .. } = self;
        let Some(entry) = channels.get_mut(index as usize) else { return };
        if let Some(Presence::Count(count)) = entry.memory.as_mut().and_then(|memory| memory.presence.as_mut()) {
            count.changed(index, total(&entry.counts), now, timers);
        }
    }

    fn tell_count(&mut self, index: u32) -> Option<(ChannelName, u64, News)> {
        let entry = self.channels.get_mut(index as usize)?;
        let Presence::Count(count) = entry.memory.as_mut()?.presence.as_mut()? else { return None };
        let subscribers = total(&entry.counts);
        count.told(subscribers).then(|| (entry.name.clone(), entry.hash, News::Count(subscribers)))
    }

    fn tell_subscription_count(&mut self, index: u32, now: u32) -> Option<(ChannelName, u64, News)> {
        let Directory { channels, timers, subscription_counts, .. } = self;
        let entry = channels.get(index as usize)?;
        let count = total(&entry.counts);
        let is_told = subscription_counts.fired(index, count, now, timers);
        is_told.then(|| (entry.name.clone(), entry.hash, News::SubscriptionCount(count)))
    }

    fn remove_member(&mut self, index: u32, user: u64, is_early: bool, now: u32) -> Option<(ChannelName, u64, News)> {
        let entry = self.channels.get_mut(index as usize)?;
        let (name, hash) = (entry.name.clone(), entry.hash);
        let event = members_of(&mut entry.memory)?.remove(user, &mut self.timers)?;
        let is_last = entry.counts.is_empty() && !self.has_members(index);
        let mut is_vacated = false;
        if is_last {
            let is_over = self.vacant.remove(&index).is_some_and(|since| is_due(since, now));
            is_vacated = self.holds_back && is_over;
            match is_over {
                true => self.idle(index),
                false => self.vacate_later(index, now),
            }
        }
        Some((name, hash, News::Removed { event, is_early, is_vacated }))
    }
}

fn members_of(memory: &mut Option<Box<Memory>>) -> Option<&mut Members> {
    match memory.as_mut()?.presence.as_mut()? {
        Presence::Members(members) => Some(members),
        Presence::Count(_) => None,
    }
}

/// The data of a `socket:presence`, and `presence` in a reply.
pub fn text_of_count(count: u64) -> String {
    format!(r#"{{"count":{count}}}"#)
}
