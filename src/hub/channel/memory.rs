//! What an owner remembers about channels beyond the count of their subscribers, if a rule or the channel's name says so.
//!
//! All histories of a shard share one log, which numbers their messages, and one budget of bytes. Beyond the budget the
//! channel that was published to longest ago loses its messages. A channel without subscribers and messages is kept, because
//! clients may come back to its position; under pressure it is forgotten, and recovery from its position fails.

use super::history::{Bounds, History, Kept, Replay};
use super::presence::Presence;
use super::presence::timers::Timers;
use crate::api::history::HistoryPage;
use crate::api::operation::KeptCount;
use crate::api::{history, operation};
use crate::config::{self, OnSubscribe, Rule, Rules};
use crate::hub::admission::bucket::{TICKS_PER_S, ticks_between};
use crate::hub::mail::{Since, Welcome};
use crate::hub::message::Payload;
use crate::ids::ConnKey;
use crate::protocol::position::Position;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU64;
use std::sync::Arc;

/// What a channel has beyond delivery.
pub struct Memory {
    /// The rule that it follows.
    pub rule: Rule,
    /// Its messages, if it keeps any.
    pub history: Option<History>,
    /// Its members or their count, if its subscribers are told.
    pub presence: Option<Presence>,
    /// Number that no other history of the shard has, for [`Log`].
    serial: u64,
    /// Bytes that the channel takes besides its messages, while it has no subscribers.
    idle_bytes: usize,
    /// Whether [`Log::by_age`] has an entry for it.
    is_aging: bool,
    /// Whether [`Log::by_expiry`] has an entry for it.
    is_timed: bool,
    /// Tick at which backends were last told that a new subscriber found no message.
    missed_at: Option<u32>,
}

/// The log of a shard: it numbers the messages of all channels with a history, and bounds the memory that they take.
pub struct Log {
    /// The rules for new channels.
    pub rules: Arc<Rules>,
    /// Identifies the numbers of this run.
    pub epoch: u64,
    /// The last offset that was given out.
    pub(super) last: u64,
    /// The greatest position of any channel that was forgotten. A new channel cannot tell positions below from its own.
    watermark: u64,
    /// Heap bytes of all messages, and of channels without subscribers.
    bytes: usize,
    bytes_max: usize,
    serials: u64,
    /// Tick of the turn, which does not wrap.
    tick: u64,
    /// Tick at which a channel with a history was last forgotten to free memory.
    forgotten_at: Option<u32>,
    /// Channels with something to evict: offset of the newest message when the entry was made, the channel's index and its
    /// serial. An entry with an outdated offset is renewed when it comes up.
    by_age: BinaryHeap<Reverse<(u64, u32, u64)>>,
    /// Channels with messages: the tick at which the oldest becomes too old, likewise.
    by_expiry: BinaryHeap<Reverse<(u64, u32, u64)>>,
    /// Channels with messages that are ready for other replays of the turn: index and serial.
    snapshots: Vec<(u32, u64)>,
    /// Number of messages that were removed to free memory.
    pub evicted: u64,
}

impl Memory {
    /// Whether it is the one with this number.
    pub fn is(&self, serial: u64) -> bool {
        self.serial == serial
    }

    /// Whether it outlives the channel's subscribers.
    pub fn is_needed(&self) -> bool {
        self.history.is_some()
    }

    /// Follows a change of the rule: subscribers are told the count from now on, or no longer. Whether a channel has members
    /// depends on its name alone.
    pub fn change_presence(&mut self, rule: Rule, timers: &mut Timers) {
        match (&self.presence, rule.presence) {
            (None, config::Presence::Count) => self.presence = Presence::of(rule.presence),
            (Some(Presence::Count(_)), config::Presence::Off) => {
                if let Some(Presence::Count(count)) = self.presence.take() {
                    count.end(timers);
                }
            }
            _ => {}
        }
    }

    /// A new subscriber of a cache channel is greeted. Returns whether backends are told of a cache miss.
    pub fn note_cache_miss(&mut self, now: u32) -> bool {
        let is_empty = self.history.as_ref().is_some_and(History::is_empty);
        let is_told = is_empty && self.missed_at.is_none_or(|at| ticks_between(at, now) >= MISS_PAUSE_TICKS);
        self.missed_at = if is_told { Some(now) } else { self.missed_at };
        is_told
    }

    /// Number of users that are members, if the channel has members.
    pub fn users(&self) -> Option<u64> {
        match self.presence.as_ref()? {
            Presence::Members(members) => Some(members.len() as u64),
            Presence::Count(_) => None,
        }
    }

    fn history_bytes(&self) -> usize {
        self.history.as_ref().map_or(0, History::bytes)
    }
}

impl Log {
    /// An empty log.
    pub fn new(epoch: u64) -> Log {
        Log {
            rules: Arc::default(),
            epoch,
            last: 0,
            watermark: 0,
            bytes: 0,
            bytes_max: usize::MAX,
            serials: 0,
            tick: 0,
            forgotten_at: None,
            by_age: BinaryHeap::new(),
            by_expiry: BinaryHeap::new(),
            snapshots: Vec::new(),
            evicted: 0,
        }
    }

    /// Changes the rules, and the limit of the bytes. Returns whether the rules differ.
    pub fn set_rules(&mut self, rules: &Arc<Rules>, bytes_max: usize) -> bool {
        self.bytes_max = bytes_max;
        if self.rules == *rules {
            return false;
        }
        self.rules = rules.clone();
        // A channel without a history now, which gets one again later, must not accept the positions of its first.
        self.last += 1;
        self.watermark = self.last;
        true
    }

    /// What a channel of this name remembers; `None`: nothing.
    pub fn memory(&mut self, name: &str) -> Option<Box<Memory>> {
        let rule = self.rules.rule(name);
        if rule.is_plain() {
            return None;
        }
        // Of a channel that was forgotten, it is not known what was removed.
        let history =
            rule.history.map(|limits| History::new(limits, self.last, self.watermark).incomplete(self.forgotten_at));
        self.serials += 1;
        let serial = self.serials;
        let presence = Presence::of(rule.presence);
        Some(Box::new(Memory {
            rule,
            history,
            presence,
            serial,
            idle_bytes: 0,
            is_aging: false,
            is_timed: false,
            missed_at: None,
        }))
    }

    /// Changes the rule of a channel.
    pub fn change_rule(&mut self, index: u32, memory: &mut Memory, rule: Rule) {
        memory.rule = rule;
        let bytes = memory.history_bytes();
        match (&mut memory.history, rule.history) {
            (Some(history), Some(limits)) => history.set_limits(limits, self.tick as u32),
            (history, limits) => {
                // Earlier positions are those of a history that was removed, or of none.
                *history = limits.map(|limits| History::new(limits, self.last, self.last));
            }
        }
        self.count(bytes, memory);
        self.queue(index, memory);
    }

    /// Gives a message the next offset, and keeps it; `None`: the channel has no history.
    pub fn keep(
        &mut self,
        index: u32,
        memory: &mut Memory,
        exclude: Option<ConnKey>,
        payload: impl FnOnce() -> Payload,
    ) -> Option<NonZeroU64> {
        let bytes = memory.history_bytes();
        let history = memory.history.as_mut()?;
        self.last += 1;
        history.keep(self.last, exclude, payload(), self.tick as u32);
        self.count(bytes, memory);
        self.queue(index, memory);
        NonZeroU64::new(self.last)
    }

    /// The channel has lost its last subscriber, and takes `bytes` besides its messages.
    pub fn idle(&mut self, index: u32, memory: &mut Memory, bytes: usize) {
        memory.idle_bytes = bytes;
        self.bytes += bytes;
        self.queue(index, memory);
    }

    /// The channel gets a subscriber.
    pub fn wake(&mut self, memory: &mut Memory) {
        self.bytes -= std::mem::take(&mut memory.idle_bytes);
    }

    /// The channel is removed.
    pub fn forget(&mut self, memory: &Memory) {
        self.bytes -= memory.history_bytes() + memory.idle_bytes;
        if let Some(history) = &memory.history {
            self.watermark = self.watermark.max(history.last());
            self.forgotten_at = Some(self.now());
        }
    }

    /// Whether histories take more memory than allowed.
    pub fn is_over_budget(&self) -> bool {
        self.bytes > self.bytes_max
    }

    /// The channel to evict next: index, serial, and the age for [`Log::evict`].
    pub fn next_by_age(&mut self) -> Option<(u32, u64, u64)> {
        self.by_age.pop().map(|Reverse((age, index, serial))| (index, serial, age))
    }

    /// Removes all messages of the channel, unless it was published to since it was queued. Returns whether it did.
    pub fn evict(&mut self, index: u32, memory: &mut Memory, age: u64) -> bool {
        memory.is_aging = false;
        let (now, bytes) = (self.now(), memory.history_bytes());
        let Some(history) = &mut memory.history else { return true };
        let is_oldest = history.last() == age;
        if is_oldest {
            self.evicted += history.evict(now) as u64;
            self.count(bytes, memory);
        } else {
            self.queue(index, memory);
        }
        is_oldest
    }

    /// A channel whose oldest message is too old: index and serial.
    pub fn next_expired(&mut self) -> Option<(u32, u64)> {
        let &Reverse((due, index, serial)) = self.by_expiry.peek()?;
        if due > self.tick {
            return None;
        }
        self.by_expiry.pop();
        Some((index, serial))
    }

    /// Removes messages that are too old from a channel that [`Log::next_expired`] returned.
    pub fn expire(&mut self, index: u32, memory: &mut Memory) {
        memory.is_timed = false;
        self.trim(memory);
        self.queue(index, memory);
    }

    /// Removes messages that are too old.
    fn trim(&mut self, memory: &mut Memory) {
        let (now, bytes) = (self.now(), memory.history_bytes());
        if let Some(history) = &mut memory.history {
            history.trim(now);
            self.count(bytes, memory);
        }
    }

    /// How much a channel keeps; `None`: it has no history.
    pub fn kept(&mut self, memory: &mut Memory) -> Option<KeptCount> {
        self.trim(memory);
        memory.history.as_ref().map(|history| KeptCount { messages: history.len(), bytes: history.bytes() })
    }

    /// The newest message that a channel keeps.
    pub fn newest(&mut self, memory: &mut Memory) -> Option<history::Newest> {
        self.trim(memory);
        let (kept, ticks) = memory.history.as_ref()?.last_kept(self.now())?;
        let text = kept.payload.message(None).text.into();
        Some(history::Newest { message: kept.shown(), text, ttl_s: u64::from(ticks / TICKS_PER_S) })
    }

    /// A page of a channel's history.
    pub fn page(&mut self, memory: &mut Memory, request: &operation::History) -> HistoryPage {
        self.trim(memory);
        let Some(history) = &memory.history else { return HistoryPage::without_history(request.since.is_some()) };
        let position = |offset| Position { epoch: self.epoch, offset };
        let of_this_run = |since: &history::Since| (since.epoch() == Some(self.epoch)).then_some(since.offset);
        let since = request.since.as_ref().map(of_this_run);
        let after = request.after.as_ref().and_then(|cursor| of_this_run(&cursor.0));
        let complete = match since {
            None => history.is_complete(None),
            Some(since) => since.is_some_and(|since| history.is_complete(Some(since))),
        };
        let limit = request.limit.unwrap_or(history::MESSAGES_MAX);
        let since = since.flatten().unwrap_or(0);
        let page = history.page(since, after, request.reverse, limit, history::PAGE_BYTES_MAX);
        let messages: Vec<history::Kept> = page.messages.iter().map(Kept::shown).collect();
        let next = messages.last().filter(|_| page.has_more).map(|last| position(last.offset));
        HistoryPage { position: Some(position(history.last())), complete, messages, next }
    }

    /// What a subscriber is told at this point of the channel's order; `None`: nothing.
    pub fn welcome(
        &mut self,
        index: u32,
        memory: &mut Memory,
        since: Option<Since>,
        bounds: Bounds,
    ) -> Option<Box<Welcome>> {
        self.trim(memory);
        let Some(history) = &mut memory.history else {
            return since.map(|_| Box::new(Welcome::not_recovered()));
        };
        let had_snapshot = history.has_snapshot();
        let mut offset = history.last();
        let recovered = since.filter(|since| since.epoch == Some(self.epoch));
        let recovered = recovered.and_then(|since| history.replay(since.offset, bounds));
        let is_recovered = recovered.is_some();
        let replay = recovered.or_else(|| {
            let greeting = match memory.rule.on_subscribe {
                OnSubscribe::Nothing => None,
                OnSubscribe::Last => history.newest(bounds),
                OnSubscribe::All => history.all(bounds),
            };
            if let Some(Replay { messages, start }) = &greeting {
                offset = messages[*start].offset - 1;
            }
            greeting
        });
        if history.has_snapshot() && !had_snapshot {
            self.snapshots.push((index, memory.serial));
        }
        Some(Box::new(Welcome {
            position: Some(Position { epoch: self.epoch, offset }),
            recovered: since.map(|_| is_recovered),
            earlier: since.and_then(|since| since.earlier),
            replay,
            presence: None,
            subscription_count: None,
            waits: false,
        }))
    }

    /// The channels whose messages are ready for other replays of a turn: index and serial.
    pub fn take_snapshots(&mut self) -> Vec<(u32, u64)> {
        std::mem::take(&mut self.snapshots)
    }

    /// Sets the time of the turn, in ticks.
    pub fn set_tick(&mut self, tick: u64) {
        self.tick = tick;
    }

    /// Heap bytes of all histories.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn now(&self) -> u32 {
        self.tick as u32
    }

    /// Counts the bytes of a history that took `before`.
    fn count(&mut self, before: usize, memory: &Memory) {
        self.bytes = self.bytes - before + memory.history_bytes();
    }

    /// Makes the entries that the channel needs and does not have. A publish finds both.
    #[inline]
    fn queue(&mut self, index: u32, memory: &mut Memory) {
        if !(memory.is_aging && memory.is_timed) {
            self.enter(index, memory);
        }
    }

    fn enter(&mut self, index: u32, memory: &mut Memory) {
        let Some(history) = &memory.history else { return };
        let has_work = !history.is_empty() || memory.idle_bytes > 0;
        if has_work && !std::mem::replace(&mut memory.is_aging, true) {
            self.by_age.push(Reverse((history.last(), index, memory.serial)));
        }
        if let Some(ticks) = history.expires_in(self.now())
            && !std::mem::replace(&mut memory.is_timed, true)
        {
            self.by_expiry.push(Reverse((self.tick + u64::from(ticks), index, memory.serial)));
        }
    }
}

/// For how long backends are not told again that a cache channel has no message.
const MISS_PAUSE_TICKS: u32 = 3 * TICKS_PER_S;
