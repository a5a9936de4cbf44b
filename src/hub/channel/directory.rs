//! The channels that this shard owns: their subscribers per shard, and how busy they are.
//!
//! While lifecycle events are reported, a channel keeps its entry for [`HELD_BACK_TICKS`] after its last subscriber has
//! left, so that the reload of a page in a browser causes no events. An entry exists exactly while the reported events
//! say that the channel is occupied, or while the owner remembers more about the channel ([`memory`](super::memory)). So one
//! walk over the entries gives a snapshot that matches the events.

mod members;

use crate::protocol::dialect::Dialect;
pub use members::{News, Notice, text_of_count};

use super::history::{Bounds, History};
use super::memory::{Log, Memory};
use super::presence::Presence;
use super::presence::members::Left;
use super::presence::timers::Timers;
use super::subscription_count::SubscriptionCounts;
use crate::api::history::{HistoryPage, Newest};
use crate::api::operation::{self, ChannelCount, KeptCount};
use crate::config::Rules;
use crate::hub::admission::bucket::TICKS_PER_S;
use crate::hub::mail::{Change, Welcome};
use crate::hub::message::Payload;
use crate::ids::{ConnKey, ShardId};
use crate::protocol::channel::{Channel, ChannelName, Kind};
use hashbrown::HashTable;
use slab::Slab;
use smallvec::SmallVec;
use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU64;
use std::sync::Arc;

/// Entries exist for channels with a subscriber on any shard, including subscriptions under way, and for vacant channels
/// that are held back, and for channels whose messages are kept.
pub struct Directory {
    channels: Slab<Entry>,
    by_name: HashTable<u32>,
    /// Whether vacant channels are kept for a while.
    holds_back: bool,
    /// The vacant channels that are kept: index, and tick since when. A channel without subscribers that has members is one.
    vacant: HashMap<u32, u32, ahash::RandomState>,
    /// The same in the order of their ticks, without those that have members. Some are occupied again, or have been removed.
    vacancies: VecDeque<(u32, u32)>,
    /// The current window of recent messages.
    window: u32,
    /// Numbers and bounds the messages that channels keep.
    log: Log,
    /// What channels wait for.
    timers: Timers,
    /// When subscription counts are told.
    subscription_counts: SubscriptionCounts,
    /// Entries without subscribers that are not reported as occupied.
    idle: usize,
    /// Entries of users.
    users: usize,
    /// Where to go on with a change of the rules.
    changing: Option<u32>,
}

struct Entry {
    name: ChannelName,
    hash: u64,
    counts: Counts,
    /// What the channel has beyond delivery.
    memory: Option<Box<Memory>>,
    /// Messages since the entry was made.
    messages: u64,
    /// Recent messages, as of `window`.
    recent: u32,
    /// The window of the last message.
    window: u32,
}

/// The channel of a message that was sequenced.
#[derive(Default)]
pub struct Sequenced<'a> {
    /// Its name; `None` if the channel has no entry, and so no subscribers.
    pub name: Option<&'a ChannelName>,
    /// Subscribers per shard.
    pub counts: &'a [(ShardId, u32)],
    /// Its offset, if the channel keeps it.
    pub offset: Option<NonZeroU64>,
    /// The message, if the channel keeps it.
    pub kept: Option<&'a Payload>,
}

/// What the owner answers to a new subscriber.
pub struct Joined {
    /// Whether the channel becomes occupied.
    pub is_first: bool,
    /// What the subscriber is told, if anything.
    pub welcome: Option<Box<Welcome>>,
}

/// How busy a channel is.
pub struct Activity<'a> {
    /// Its name.
    pub name: &'a ChannelName,
    /// Subscribers of all shards.
    pub subscribers: u64,
    /// Messages since the channel became occupied.
    pub messages: u64,
    /// Recent messages: those of this window, half of those of the window before, a quarter of those before that.
    pub recent: u64,
}

/// Heap bytes of an entry, without the channel's name.
pub const ENTRY_BYTES: usize = size_of::<Entry>();

/// Subscribers per shard, without zeros. Empty: the channel is vacant and held back.
pub type Counts = SmallVec<[(ShardId, u32); 2]>;

impl Directory {
    /// An empty directory. `epoch` identifies the offsets of this run; for `grace_ms` see [`Directory::set_grace`].
    pub fn new(epoch: u64, grace_ms: u32) -> Directory {
        Directory {
            channels: Slab::new(),
            by_name: HashTable::new(),
            holds_back: false,
            vacant: HashMap::default(),
            vacancies: VecDeque::new(),
            window: 0,
            log: Log::new(epoch),
            timers: Timers::new(grace_ms),
            subscription_counts: SubscriptionCounts::default(),
            idle: 0,
            users: 0,
            changing: None,
        }
    }

    /// Sets the time of the turn, in microseconds.
    pub fn set_clock(&mut self, now_us: u64) {
        self.window = (now_us >> WINDOW_BITS) as u32;
        self.log.set_tick(now_us / TICK_US);
    }

    /// Counts a new subscriber.
    pub fn join(&mut self, change: &Change, bounds: Bounds, now: u32) -> Joined {
        let Change { channel, hash, membership, wish } = change;
        let index = self.find_or_enter(channel, *hash);
        let Directory { channels, vacant, log, idle, .. } = self;
        let entry = &mut channels[index as usize];
        let is_first = entry.counts.is_empty() && vacant.remove(&index).is_none();
        *idle -= usize::from(is_first);
        let shard = membership.member.shard;
        match entry.counts.iter_mut().find(|(of, _)| *of == shard) {
            Some((_, count)) => *count += 1,
            None => entry.counts.push((shard, 1)),
        }
        let since = wish.as_ref().and_then(|wish| wish.since);
        let mut welcome = match &mut entry.memory {
            Some(memory) => {
                log.wake(memory);
                log.welcome(index, memory, since, bounds)
            }
            None => since.map(|_| Box::new(Welcome::not_recovered())),
        };
        if entry.memory.is_some()
            && let dialect = wish.as_ref().map_or(Dialect::Native, |wish| wish.dialect)
            && let Some(presence) = self.presence_text(index, dialect, now)
        {
            welcome.get_or_insert_default().presence = Some(presence);
        }
        Joined { is_first, welcome }
    }

    fn find_or_enter(&mut self, name: &ChannelName, hash: u64) -> u32 {
        self.find(name.as_channel(), hash).unwrap_or_else(|| {
            self.idle += 1;
            let memory = self.log.memory(name.as_channel().as_str());
            self.insert(name.clone(), hash, memory)
        })
    }

    /// A subscriber leaves: removes it from the count, and its user if that has no other connection and no grace. After the
    /// last subscriber the entry is removed at once, or held back from tick `now` on, or kept for its members.
    pub fn leave(&mut self, change: &Change, now: u32) -> Left {
        let Some(index) = self.find(change.channel.as_channel(), change.hash) else {
            return Left::NotSubscribed;
        };
        let left = self.leave_members(index, change.membership.member, now);
        if !matches!(left, Left::NotSubscribed) {
            self.remove_from_count(index, change.membership.member.shard, now);
            self.note_count(index, now);
        }
        left
    }

    fn remove_from_count(&mut self, index: u32, shard: ShardId, now: u32) {
        let counts = &mut self.channels[index as usize].counts;
        if let Some(at) = counts.iter().position(|(of, _)| *of == shard) {
            counts[at].1 -= 1;
            if counts[at].1 == 0 {
                counts.swap_remove(at);
            }
        }
        if !counts.is_empty() {
            return;
        }
        match self.has_members(index) {
            true => _ = self.vacant.insert(index, now),
            false => self.vacate_later(index, now),
        }
    }

    /// The channel has neither subscribers nor members from tick `now` on.
    fn vacate_later(&mut self, index: u32, now: u32) {
        if self.holds_back && !self.channels[index as usize].name.as_channel().is_of_user() {
            self.vacant.insert(index, now);
            self.vacancies.push_back((index, now));
        } else {
            self.idle(index);
        }
    }

    /// The rules of channels.
    pub fn rules(&self) -> &Rules {
        &self.log.rules
    }

    /// The last offset that was given out, for simulations.
    #[cfg(any(test, fuzzing))]
    pub fn last_offset(&self) -> u64 {
        self.log.last
    }

    /// Identifies the offsets of this run.
    pub fn epoch(&self) -> u64 {
        self.log.epoch
    }

    /// The number of messages that were removed to free memory, and the heap bytes of all histories.
    pub fn history_sizes(&self) -> (u64, usize) {
        (self.log.evicted, self.log.bytes())
    }

    /// The index of a channel's entry.
    #[inline]
    fn find(&self, channel: Channel<'_>, hash: u64) -> Option<u32> {
        self.by_name.find(hash, |&index| self.channels[index as usize].name.as_channel() == channel).copied()
    }

    fn insert(&mut self, name: ChannelName, hash: u64, memory: Option<Box<Memory>>) -> u32 {
        let Directory { channels, by_name, users, .. } = self;
        let counts = Counts::new();
        let entry = Entry { name, hash, counts, memory, messages: 0, recent: 0, window: 0 };
        *users += usize::from(entry.is_of_user());
        let index = channels.insert(entry) as u32;
        by_name.insert_unique(hash, index, |&index| channels[index as usize].hash);
        index
    }

    /// The channel has no subscribers, and is not reported as occupied: its entry remains only if it remembers something.
    fn idle(&mut self, index: u32) {
        self.idle += 1;
        let entry = &mut self.channels[index as usize];
        match entry.memory.as_mut().filter(|memory| memory.is_needed()) {
            Some(memory) => {
                let bytes = ENTRY_BYTES + size_of::<Memory>() + entry.name.as_channel().as_str().len();
                self.log.idle(index, memory, bytes);
                self.evict();
            }
            None => self.remove(index),
        }
    }

    /// Removes an idle entry.
    fn remove(&mut self, index: u32) {
        let entry = self.channels.remove(index as usize);
        self.users -= usize::from(entry.is_of_user());
        let Entry { hash, memory, .. } = entry;
        self.subscription_counts.end(index, &mut self.timers);
        if let Ok(found) = self.by_name.find_entry(hash, |&other| other == index) {
            found.remove();
        }
        if let Some(memory) = memory {
            self.log.forget(&memory);
            if let Some(Presence::Count(count)) = memory.presence {
                count.end(&mut self.timers);
            }
        }
        self.idle -= 1;
    }

    /// Frees memory until the histories are within their budget.
    fn evict(&mut self) {
        while self.log.is_over_budget()
            && let Some((index, serial, age)) = self.log.next_by_age()
        {
            let Directory { channels, log, vacant, .. } = self;
            let Some(entry) = channels.get_mut(index as usize) else { continue };
            let Some(memory) = entry.memory.as_mut().filter(|memory| memory.is(serial)) else { continue };
            let is_idle = entry.counts.is_empty() && !vacant.contains_key(&index);
            if log.evict(index, memory, age) && is_idle {
                self.remove(index);
            }
        }
    }

    /// Removes messages that are too old, of a limited number of channels.
    pub fn expire(&mut self) {
        for _ in 0..EXPIRED_PER_TURN {
            let Some((index, serial)) = self.log.next_expired() else { return };
            let memory = self.channels.get_mut(index as usize).and_then(|entry| entry.memory.as_mut());
            if let Some(memory) = memory.filter(|memory| memory.is(serial)) {
                self.log.expire(index, memory);
            }
        }
    }

    /// A turn has ended: frees what replays had made ready for others.
    pub fn forget_snapshots(&mut self) {
        for (index, serial) in self.log.take_snapshots() {
            let memory = self.channels.get_mut(index as usize).and_then(|entry| entry.memory.as_mut());
            let history = memory.filter(|memory| memory.is(serial)).and_then(|memory| memory.history.as_mut());
            history.into_iter().for_each(History::forget_snapshot);
        }
    }

    /// Changes the rules, and the memory that histories may take. [`Directory::change_rules`] applies them to the existing
    /// channels. Returns whether the rules differ.
    pub fn set_rules(&mut self, rules: &Arc<Rules>, history_bytes_max: usize) -> bool {
        let do_differ = self.log.set_rules(rules, history_bytes_max);
        if do_differ {
            self.changing = Some(0);
        }
        self.evict();
        do_differ
    }

    /// Applies changed rules to a limited number of channels.
    pub fn change_rules(&mut self, now: u32) {
        let Some(from) = self.changing else { return };
        let end = self.channels.capacity() as u32;
        let stop = end.min(from + CHANGED_PER_TURN);
        for index in from..stop {
            self.change_rule(index, now);
        }
        self.changing = (stop < end).then_some(stop);
        self.evict();
    }

    /// Whether changed rules remain to be applied.
    pub fn is_changing_rules(&self) -> bool {
        self.changing.is_some()
    }

    fn change_rule(&mut self, index: u32, now: u32) {
        let Some(entry) = self.channels.get_mut(index as usize) else { return };
        let name = entry.name.as_channel().as_str();
        match &mut entry.memory {
            Some(memory) => {
                let rule = self.log.rules.rule(name);
                self.log.change_rule(index, memory, rule);
                memory.change_presence(rule, &mut self.timers);
                if memory.is_needed() {
                    return self.note_count(index, now);
                }
                if entry.counts.is_empty() && !self.vacant.contains_key(&index) {
                    self.remove(index);
                } else if rule.is_plain() {
                    entry.memory = None;
                }
            }
            memory => *memory = self.log.memory(name),
        }
        self.note_count(index, now);
    }

    /// From now on keeps vacant channels for a while.
    pub fn hold_back(&mut self) {
        self.holds_back = true;
    }

    /// Removes one channel that has been vacant for long enough; if too many are held back, the oldest one.
    pub fn vacate(&mut self, now: u32) -> Option<ChannelName> {
        while let Some(&(index, since)) = self.vacancies.front() {
            if !is_due(since, now) && !self.is_crowded() {
                return None;
            }
            self.vacancies.pop_front();
            // Otherwise the channel was occupied again, and perhaps vacated again later.
            if self.vacant.get(&index) == Some(&since) && !self.has_members(index) {
                self.vacant.remove(&index);
                let name = self.channels[index as usize].name.clone();
                self.idle(index);
                return Some(name);
            }
        }
        if self.vacancies.capacity() > VACANCIES_KEPT {
            self.vacancies = VecDeque::new();
            self.vacant.shrink_to_fit();
        }
        None
    }

    /// Whether more channels are held back than allowed.
    pub fn is_crowded(&self) -> bool {
        self.vacancies.len() > VACANCIES_MAX
    }

    /// Ticks until the next call of [`Directory::vacate`] may have a channel to remove.
    pub fn due_in(&self, now: u32) -> Option<u32> {
        let &(_, since) = self.vacancies.front()?;
        Some(HELD_BACK_TICKS.saturating_sub(now.wrapping_sub(since)))
    }

    /// Subscribers per shard; empty if the channel has none.
    pub fn counts(&self, channel: Channel<'_>, hash: u64) -> &[(ShardId, u32)] {
        self.find(channel, hash).map_or(&[], |index| &self.channels[index as usize].counts)
    }

    /// Sequences a message: counts it, keeps it if the channel has a history, and returns the shards to send it to.
    pub fn sequence(
        &mut self,
        channel: Channel<'_>,
        hash: u64,
        exclude: Option<ConnKey>,
        payload: impl FnOnce() -> Payload,
    ) -> Sequenced<'_> {
        let found = self.find(channel, hash);
        let index = match found {
            Some(index) => index,
            None if !self.log.rules.may_apply(channel.as_str()) => return Sequenced::default(),
            None => match self.enter_for_history(channel, hash) {
                Some(index) => index,
                None => return Sequenced::default(),
            },
        };
        let entry = &mut self.channels[index as usize];
        entry.count(self.window);
        let mut offset = None;
        if let Some(memory) = &mut entry.memory {
            offset = self.log.keep(index, memory, exclude, payload);
            match found {
                Some(_) => self.evict(),
                None => self.idle(index),
            }
        }
        match self.channels.get(index as usize) {
            Some(Entry { name, counts, memory, .. }) => {
                let kept = offset.and_then(|_| memory.as_ref()?.history.as_ref()?.newest_payload());
                Sequenced { name: Some(name), counts, offset, kept }
            }
            // It had no subscribers, and was forgotten to free memory.
            None => Sequenced { offset, ..Sequenced::default() },
        }
    }

    /// Makes an entry for a channel without subscribers, if it keeps messages. The caller must call [`Directory::idle`].
    fn enter_for_history(&mut self, channel: Channel<'_>, hash: u64) -> Option<u32> {
        let memory = self.log.memory(channel.as_str()).filter(|memory| memory.is_needed())?;
        Some(self.insert(channel.into(), hash, Some(memory)))
    }

    /// A page of a channel's history.
    pub fn history(&mut self, channel: Channel<'_>, hash: u64, request: &operation::History) -> HistoryPage {
        let index = self.find(channel, hash);
        let memory = index.and_then(|index| self.channels[index as usize].memory.as_mut());
        match memory {
            Some(memory) => self.log.page(memory, request),
            None if index.is_some() => HistoryPage::without_history(request.since.is_some()),
            None => match self.log.memory(channel.as_str()) {
                Some(mut memory) => self.log.page(&mut memory, request),
                None => HistoryPage::without_history(request.since.is_some()),
            },
        }
    }

    /// How much a channel keeps; `None`: it has no history.
    pub fn kept(&mut self, channel: Channel<'_>, hash: u64) -> Option<KeptCount> {
        match self.find(channel, hash) {
            Some(index) => self.log.kept(self.channels[index as usize].memory.as_mut()?),
            None => {
                let mut memory = self.log.memory(channel.as_str())?;
                self.log.kept(&mut memory)
            }
        }
    }

    /// The newest message that a channel keeps.
    pub fn newest(&mut self, channel: Channel<'_>, hash: u64) -> Option<Newest> {
        let index = self.find(channel, hash)?;
        self.log.newest(self.channels[index as usize].memory.as_mut()?)
    }

    /// The number of a channel's subscribers, and that of its members.
    pub fn count(&self, channel: &ChannelName, hash: u64) -> ChannelCount {
        match self.find(channel.as_channel(), hash) {
            Some(index) => self.channels[index as usize].count_of_subscribers(),
            None => {
                let has_members = channel.as_channel().kind() == Kind::Presence;
                ChannelCount { channel: channel.clone(), subscribers: 0, users: has_members.then_some(0) }
            }
        }
    }

    /// Whether subscription counts are told. Presence channels and users have none.
    pub fn set_subscription_counts(&mut self, is_on: bool) {
        self.subscription_counts.set(is_on);
    }

    /// Whether subscription counts are told.
    #[inline]
    pub fn tells_subscription_counts(&self) -> bool {
        self.subscription_counts.is_on()
    }

    /// The number of subscribers of a channel whose subscribers are told it.
    pub fn subscription_count(&self, channel: Channel<'_>, hash: u64) -> Option<u64> {
        let is_told = self.subscription_counts.is_on() && !matches!(channel.kind(), Kind::Presence | Kind::User);
        is_told.then(|| total(self.counts(channel, hash)))
    }

    /// After a subscriber of the channel has come or gone: the number of subscribers, if it is told now.
    pub fn count_to_tell(&mut self, channel: Channel<'_>, hash: u64, now: u32) -> Option<u64> {
        if !self.subscription_counts.is_on() || matches!(channel.kind(), Kind::Presence | Kind::User) {
            return None;
        }
        // The last subscriber of a channel without an entry has gone.
        let Some(index) = self.find(channel, hash) else { return Some(0) };
        let count = total(&self.channels[index as usize].counts);
        self.subscription_counts.changed(index, count, now, &mut self.timers).then_some(count)
    }

    /// After a subscriber of the channel has come: whether it is a cache channel without a message, of which this was not said
    /// a short time ago.
    pub fn note_cache_miss(&mut self, channel: Channel<'_>, hash: u64, now: u32) -> bool {
        let index = if channel.is_cache() { self.find(channel, hash) } else { None };
        let memory = index.and_then(|index| self.channels[index as usize].memory.as_mut());
        memory.is_some_and(|memory| memory.note_cache_miss(now))
    }

    /// How busy the channel at an index below [`Directory::end`] is; `None` if it is vacant, or the index is free.
    pub fn activity(&self, index: usize) -> Option<Activity<'_>> {
        let entry = self.channels.get(index).filter(|entry| !entry.counts.is_empty() && !entry.is_of_user())?;
        Some(Activity {
            name: &entry.name,
            subscribers: total(&entry.counts),
            messages: entry.messages,
            recent: u64::from(entry.recent_in(self.window)),
        })
    }

    /// One past the last index.
    pub fn end(&self) -> usize {
        self.channels.capacity()
    }

    /// Up to `limit` channels whose name starts with `prefix`, from index `after` on, and the index of the next page. A channel
    /// that exists from the first page to the last is returned once. A page looks at a bounded number of entries, so it may
    /// hold fewer than `limit` channels.
    pub fn page(&self, prefix: &str, limit: usize, after: u32) -> (Vec<ChannelCount>, Option<u32>) {
        let is_meant =
            |_, entry: &Entry| !entry.counts.is_empty() && entry.name.as_channel().as_str().starts_with(prefix);
        self.page_of(is_meant, limit, after)
    }

    /// Like [`Directory::page`], of all channels that are reported as occupied, those held back included.
    pub fn page_occupied(&self, limit: usize, after: u32) -> (Vec<ChannelCount>, Option<u32>) {
        let is_meant = |index, entry: &Entry| !entry.counts.is_empty() || self.vacant.contains_key(&index);
        self.page_of(is_meant, limit, after)
    }

    fn page_of(
        &self,
        is_meant: impl Fn(u32, &Entry) -> bool,
        limit: usize,
        after: u32,
    ) -> (Vec<ChannelCount>, Option<u32>) {
        let mut page = Vec::new();
        let end = self.channels.capacity().min(u32::MAX as usize) as u32;
        let stop = end.min(after.saturating_add(SCAN_MAX));
        for index in after..stop {
            let Some(entry) = self.channels.get(index as usize) else {
                continue;
            };
            if entry.is_of_user() || !is_meant(index, entry) {
                continue;
            }
            if page.len() == limit {
                return (page, Some(index));
            }
            page.push(entry.count_of_subscribers());
        }
        (page, (stop < end).then_some(stop))
    }

    /// Channels with a subscriber on any shard.
    pub fn occupied(&self) -> usize {
        self.channels.len() - self.vacant.len() - self.idle - self.users
    }

    /// Users that are signed in.
    pub fn users(&self) -> usize {
        self.users
    }
}

impl Entry {
    /// Whether it is the internal channel of a user, which is not listed.
    fn is_of_user(&self) -> bool {
        self.name.as_channel().is_of_user()
    }

    fn count_of_subscribers(&self) -> ChannelCount {
        let users = self.memory.as_ref().and_then(|memory| memory.users());
        ChannelCount { channel: self.name.clone(), subscribers: total(&self.counts), users }
    }

    /// Counts a message. The lookup of the subscribers has already loaded this cache line.
    fn count(&mut self, window: u32) {
        self.messages += 1;
        if self.window != window {
            self.recent = self.recent_in(window);
            self.window = window;
        }
        self.recent = self.recent.saturating_add(1);
    }

    /// The count of recent messages as of a later window: it halves with each window.
    fn recent_in(&self, window: u32) -> u32 {
        self.recent.checked_shr(window.wrapping_sub(self.window)).unwrap_or(0)
    }
}

/// Whether a channel that is vacant since a tick is reported as that.
fn is_due(since: u32, now: u32) -> bool {
    now.wrapping_sub(since) >= HELD_BACK_TICKS
}

/// Subscribers of all shards.
#[inline]
pub fn total(counts: &[(ShardId, u32)]) -> u64 {
    counts.iter().map(|&(_, count)| u64::from(count)).sum()
}

/// Recent messages are counted in windows of 2²² µs, about 4 s.
const WINDOW_BITS: u32 = 22;
const TICK_US: u64 = 1_000_000 / TICKS_PER_S as u64;
/// Channels whose messages expire in one turn: about a millisecond of work.
const EXPIRED_PER_TURN: usize = 1024;
/// Entries that a change of the rules visits in one turn: about a millisecond of work.
const CHANGED_PER_TURN: u32 = 4096;
/// Most entries that one page looks at, which takes about a millisecond.
const SCAN_MAX: u32 = 65_536;
/// A channel is vacated after 3 s without subscribers. A browser reloads a page in less.
pub const HELD_BACK_TICKS: u32 = 30;
/// Limit of the channels that are held back, including queue entries of channels that are occupied again. Beyond it the
/// oldest are vacated early. They take at most 2 MiB, in addition to their entries.
const VACANCIES_MAX: usize = 65_536;
/// Heap bytes of the queue and of the table of vacant channels, with spare capacity.
pub const VACANCIES_BYTES_MAX: usize = VACANCIES_MAX * 4 * size_of::<(u32, u32)>();
/// Capacity that the queue keeps when it is empty.
const VACANCIES_KEPT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::channel::presence::user::User;
    use crate::hub::mail::{Cause, Membership, Wish};
    use crate::hub::message::Message;

    fn name(text: &str) -> ChannelName {
        Channel::parse(text).unwrap().into()
    }

    fn change(name: &ChannelName, hash: u64, shard: ShardId) -> Change {
        let member = ConnKey { shard, slot: 0, generation: 0 };
        let membership = Membership { member, audience: 0, cause: Cause::Left };
        Change { channel: name.clone(), hash, membership, wish: None }
    }

    fn join(directory: &mut Directory, name: &ChannelName, hash: u64, shard: ShardId) -> bool {
        directory.join(&change(name, hash, shard), BOUNDS, 0).is_first
    }

    fn leave(directory: &mut Directory, name: &ChannelName, hash: u64, shard: ShardId, now: u32) {
        directory.leave(&change(name, hash, shard), now);
    }

    fn sequence<'a>(directory: &'a mut Directory, name: &ChannelName) -> Sequenced<'a> {
        directory.sequence(name.as_channel(), HASH, None, || unreachable!("the channel has no history"))
    }

    const BOUNDS: Bounds = Bounds { bytes_max: 1000, envelope_bytes: 100 };

    #[track_caller]
    fn check_counts(directory: &Directory, channel: &str, expected: &[(ShardId, u32)]) {
        let mut counts = directory.counts(Channel::parse(channel).unwrap(), HASH).to_vec();
        counts.sort_unstable();
        assert_eq!(counts, expected, "{channel}");
    }

    #[test]
    fn counts_are_per_shard_and_hold_no_zeros() {
        let mut directory = Directory::new(1, 0);
        let (a, b) = (name("a"), name("b"));
        for (channel, shard) in [(&a, 0), (&a, 3), (&a, 3), (&b, 3)] {
            join(&mut directory, channel, HASH, shard);
        }
        check_counts(&directory, "a", &[(0, 1), (3, 2)]);
        check_counts(&directory, "b", &[(3, 1)]);
        check_counts(&directory, "c", &[]);
        leave(&mut directory, &a, HASH, 0, 0);
        leave(&mut directory, &a, HASH, 3, 0);
        check_counts(&directory, "a", &[(3, 1)]);
        leave(&mut directory, &a, HASH, 3, 0);
        check_counts(&directory, "a", &[]);
        assert_eq!(directory.occupied(), 1, "a channel without subscribers has no entry");
        leave(&mut directory, &b, HASH, 3, 0);
        assert_eq!(directory.occupied(), 0);
    }

    /// A channel may have been removed before the end of the turn, and another one may have its index.
    #[test]
    fn messages_are_ready_for_other_replays_until_the_end_of_the_turn() {
        let mut directory = Directory::new(1, 0);
        let rules = Rules::parse("[[channel]]\nmatch = \"*\"\nhistory = 9\non-subscribe = \"all\"\n");
        directory.set_rules(&Arc::new(rules), 1 << 20);
        let [a, b] = ["a", "b"].map(name);
        let payload = || Payload::new(&Message { event: "e", ..Message::default() }, &mut String::new());
        let replayed = |directory: &mut Directory, channel: &ChannelName| {
            let welcome = directory.join(&change(channel, HASH, 0), BOUNDS, 0).welcome.expect("a position");
            welcome.replay.expect("a greeting").messages
        };
        for channel in [&a, &b] {
            directory.sequence(channel.as_channel(), HASH, None, payload);
        }
        let [first, second] = [(); 2].map(|()| replayed(&mut directory, &a));
        assert!(Arc::ptr_eq(&first, &second), "the second newcomer of a turn costs a copy");
        let of_b = replayed(&mut directory, &b);
        assert_eq!([&first, &of_b].map(Arc::strong_count), [3, 2]);
        directory.forget_snapshots();
        assert_eq!([&first, &of_b].map(Arc::strong_count), [2, 1]);

        let of_b = replayed(&mut directory, &b);
        leave(&mut directory, &b, HASH, 0, 0);
        leave(&mut directory, &b, HASH, 0, 0);
        directory.set_rules(&Arc::default(), 1 << 20);
        directory.change_rules(0);
        assert_eq!(Arc::strong_count(&of_b), 1, "the history is gone");
        directory.forget_snapshots();
    }

    #[test]
    fn pages_list_each_channel_once_while_other_channels_change() {
        let mut directory = Directory::new(1, 0);
        let stay: Vec<String> = (0..20).map(|n| format!("stay:{n}")).collect();
        for (n, channel) in stay.iter().enumerate() {
            join(&mut directory, &name(channel), HASH, 0);
            join(&mut directory, &name(&format!("go:{n}")), HASH, 1);
        }
        let (mut listed, mut after, mut n) = (Vec::new(), Some(0), 0);
        while let Some(from) = after {
            let (page, next) = directory.page("stay:", 3, from);
            assert!(page.len() <= 3);
            listed.extend(page.into_iter().map(|row| (row.channel.as_channel().as_str().to_owned(), row.subscribers)));
            after = next;
            leave(&mut directory, &name(&format!("go:{n}")), HASH, 1, 0);
            join(&mut directory, &name(&format!("late:{n}")), HASH, 1);
            n += 1;
        }
        let mut expected: Vec<_> = stay.into_iter().map(|name| (name, 1)).collect();
        listed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(listed, expected);
    }

    #[test]
    fn a_channel_is_vacated_after_a_while_without_subscribers() {
        let mut directory = Directory::new(1, 0);
        let (a, b) = (name("a"), name("b"));
        directory.hold_back();
        assert!(
            join(&mut directory, &a, HASH, 0)
                && !join(&mut directory, &a, HASH, 1)
                && join(&mut directory, &b, HASH, 0)
        );
        leave(&mut directory, &a, HASH, 0, 0);
        assert_eq!(directory.due_in(0), None, "the channel still has a subscriber");
        leave(&mut directory, &a, HASH, 1, 10);
        check_counts(&directory, "a", &[]);
        assert_eq!(
            (directory.occupied(), directory.page("", 9, 0).0.len(), directory.page_occupied(9, 0).0.len()),
            (1, 1, 2)
        );
        assert_eq!((directory.due_in(10), directory.vacate(39)), (Some(30), None));
        assert!(!join(&mut directory, &a, HASH, 2), "the channel was held back, and never vacated");
        leave(&mut directory, &a, HASH, 2, 39);
        assert_eq!((directory.vacate(40), directory.due_in(40)), (None, Some(29)));
        assert_eq!((directory.vacate(69), directory.vacate(69)), (Some(a.clone()), None));
        assert!(join(&mut directory, &a, HASH, 2), "the channel was vacated");
        leave(&mut directory, &a, HASH, 2, u32::MAX);
        leave(&mut directory, &b, HASH, 0, u32::MAX);
        assert_eq!(directory.occupied(), 0);
        assert_eq!([29, 29].map(|now| directory.vacate(now)), [Some(a), Some(b)], "ticks wrap");
        assert_eq!(directory.page_occupied(9, 0), (Vec::new(), None));
    }

    #[test]
    fn a_channel_without_subscribers_for_long_is_vacated_with_its_last_member() {
        for (removed_at, is_vacated) in [(29, false), (30, true)] {
            let mut directory = Directory::new(1, 1000);
            directory.hold_back();
            let channel = name("presence-a");
            let wish = Wish { since: None, user: Some(User::new("11", None).into()), dialect: Dialect::Native };
            let change = Change { wish: Some(Box::new(wish)), ..change(&channel, HASH, 0) };
            assert_eq!(directory.admit(&change, 9).map(|events| events.len()), Ok(1));
            directory.join(&change, BOUNDS, 0);
            directory.leave(&change, 0);
            let notice = directory.next_notice(removed_at).expect("its grace is over");
            assert!(
                matches!(notice.what, News::Removed { is_vacated: is, .. } if is == is_vacated),
                "{:?}",
                notice.what
            );
            let later = directory.vacate(removed_at + HELD_BACK_TICKS);
            assert_eq!(later, (!is_vacated).then_some(channel));
        }
    }

    #[test]
    fn beyond_the_limit_the_oldest_channels_are_vacated_early() {
        let mut directory = Directory::new(1, 0);
        directory.hold_back();
        for n in 0..VACANCIES_MAX + 2 {
            let channel = name(&n.to_string());
            let hash = ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(n);
            join(&mut directory, &channel, hash, 0);
            leave(&mut directory, &channel, hash, 0, 0);
        }
        assert!(directory.vacate(1).is_some() && directory.vacate(1).is_some());
        assert_eq!(directory.vacate(1), None);
        while directory.vacate(HELD_BACK_TICKS).is_some() {}
        assert!(directory.vacancies.capacity() <= VACANCIES_KEPT && directory.vacant.capacity() == 0);
    }

    #[test]
    fn recent_messages_halve_with_each_window() {
        let mut directory = Directory::new(1, 0);
        let channel = name("a");
        join(&mut directory, &channel, HASH, 0);
        join(&mut directory, &channel, HASH, 0);
        let check = |directory: &Directory, messages: u64, recent: u64| {
            let activity = directory.activity(0).expect("the first entry");
            assert_eq!((activity.subscribers, activity.messages, activity.recent), (2, messages, recent));
        };
        let at = |windows: u64| windows << WINDOW_BITS;
        directory.set_clock(at(7));
        for _ in 0..9 {
            assert_eq!(sequence(&mut directory, &channel).counts, [(0, 2)]);
        }
        check(&directory, 9, 9);
        directory.set_clock(at(8) - 1);
        check(&directory, 9, 9);
        directory.set_clock(at(8));
        check(&directory, 9, 4);
        assert_eq!(sequence(&mut directory, &channel).counts, [(0, 2)]);
        check(&directory, 10, 5);
        directory.set_clock(at(10));
        check(&directory, 10, 1);
        directory.set_clock(at(1000));
        check(&directory, 10, 0);
    }

    #[test]
    fn a_message_is_counted_if_the_channel_has_an_entry() {
        let mut directory = Directory::new(1, 0);
        let channel = name("a");
        assert!(sequence(&mut directory, &channel).name.is_none());
        join(&mut directory, &channel, HASH, 1);
        assert_eq!(directory.activity(0).map(|activity| activity.messages), Some(0));
        let Sequenced { name, counts, .. } = sequence(&mut directory, &channel);
        assert_eq!((name, counts), (Some(&channel), &[(1, 1)][..]));
        assert_eq!(directory.activity(0).map(|activity| activity.messages), Some(1));
        assert!(directory.activity(directory.end()).is_none());
        assert_eq!(size_of::<Entry>(), 72);
    }

    /// The hash of all channels here: the table must distinguish names, not hashes.
    const HASH: u64 = 7;
}
