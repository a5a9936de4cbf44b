//! Conflation: while a connection is blocked, the messages of some channels are held back for it. Later it is sent the newest
//! of each key instead of all of them.
//!
//! A channel conflates if its rule says so (`slow`). A subscriber counts as blocked once `BLOCKED_BYTES` wait for it, and
//! until it has taken all that waits and all that was held back. Other channels, replies, presence and client events are not
//! held back.
//!
//! What is held back is kept once for all connections: each audience has a log of its newest messages, and a connection only
//! remembers which numbers it lacks. So a message that a thousand blocked connections are not sent costs one copy, and a
//! connection that is blocked for an hour costs no more than one that is blocked for a second.

use super::compacted_log::{self, CompactedLog};
use super::pages::{self, Chunk, Pages};
use super::{Audiences, Port};
use crate::config::{Rules, Slow};
use crate::hub::Urgency;
use crate::hub::message::Message;
use crate::ids::Slot;
use std::collections::HashMap;
use std::ops::Range;

/// The messages that are held back, and those on open pages, which may be.
#[derive(Default)]
pub(super) struct Conflation {
    /// By audience that conflates, while its page is open or messages are held back.
    logs: HashMap<u32, Log, ahash::RandomState>,
    /// By blocked connection: what is held back for it, which is never empty.
    lags: HashMap<Slot, Lag, ahash::RandomState>,
    /// Number of runs in all lags.
    runs: usize,
    /// Number of messages that are held back, for each connection.
    held: usize,
    /// Number of messages that were dropped for a newer one, or because their subscriber left the channel.
    dropped: u64,
    /// While changed rules are being applied: the next audience.
    changing: Option<u32>,
}

/// The messages of an audience.
#[derive(Default)]
pub(super) struct Log {
    /// The newest of each key, if it is held back for any connection.
    held: CompactedLog<Held>,
    /// Number of runs that refer to it.
    runs: usize,
    /// The number of the next message that may be replaced.
    next: u64,
    /// All messages on the audience's page, in order.
    page: Vec<Mark>,
    /// The keys of these messages.
    keys: String,
}

/// A message that is held back.
struct Held {
    /// A copy, so that the message does not keep its whole page alive.
    copy: Chunk,
    /// Number of connections that it is held back for.
    holders: usize,
}

/// A message on a page.
struct Mark {
    chunk: Chunk,
    /// Its number, if a newer message may replace it.
    number: Option<u64>,
    /// Its key in [`Log::keys`].
    key: Range<usize>,
    /// Number of connections that it was held back for since the log was taken.
    holders: usize,
}

/// What is held back for a connection.
#[derive(Default)]
struct Lag {
    /// Sorted by audience, and then by number.
    runs: Vec<Run>,
    /// The audience that is sent next. They take turns, so that a busy one does not starve the others.
    next: u32,
}

/// Consecutive messages of an audience. Those that its log no longer has were replaced.
struct Run {
    audience: u32,
    numbers: Range<u64>,
}

/// Delivery.
impl Audiences {
    /// Notes a message of an audience that conflates, which was just appended to its page.
    pub(super) fn mark(&mut self, audience: u32, slow: Slow, chunk: Chunk, message: &Message<'_>) {
        let Log { page, keys, next, .. } = self.conflation.logs.entry(audience).or_default();
        let number = may_be_replaced(message).then_some(*next);
        *next += u64::from(number.is_some());
        let start = keys.len();
        keys.push_str(message.key.filter(|_| slow == Slow::LatestByKey).unwrap_or_default());
        page.push(Mark { chunk, number, key: start..keys.len(), holders: 0 });
    }

    /// Takes the log of an audience that conflates, to send parts of its page.
    pub(super) fn take_log(&mut self, audience: u32) -> Log {
        self.conflation.logs.remove(&audience).unwrap_or_default()
    }

    /// Puts the log back. `is_sent`: every subscriber was sent its part of the page.
    pub(super) fn put_log(&mut self, audience: u32, mut log: Log, is_sent: bool, port: &mut impl Port) {
        self.conflation.copy_held(&mut log, &mut self.pages);
        if is_sent {
            log.page.clear();
            log.keys.clear();
        }
        let too_old = log.held.number_from_end(KEYS_MAX);
        self.conflation.logs.insert(audience, log);
        self.conflation.forget_unused(audience);
        if let Some(too_old) = too_old {
            self.send_older(audience, too_old, port);
        }
    }

    /// Sends a connection a part of the page of an audience that conflates, or holds the part back.
    pub(super) fn emit_or_hold(
        &mut self,
        slot: Slot,
        (audience, log): (u32, &mut Log),
        part: Chunk,
        urgency: Urgency,
        port: &mut impl Port,
    ) {
        if self.held_back | self.muted > 0 && self.keeps_back(slot, audience, part, port) {
            return;
        }
        let mut is_blocked = self.conflation.lags.contains_key(&slot);
        if !is_blocked && port.waiting(slot) + part.len() <= self.blocked_bytes() {
            return port.append(&mut self.pages, slot, part, urgency);
        }
        let first = log.page.partition_point(|mark| mark.chunk.start < part.start);
        let end = log.page.partition_point(|mark| mark.chunk.start < part.end);
        for at in first..end {
            let Mark { chunk, number, .. } = log.page[at];
            is_blocked |= port.waiting(slot) >= self.blocked_bytes();
            match number {
                Some(number) if is_blocked => {
                    self.conflation.hold(slot, (audience, log), number, port);
                    log.page[at].holders += 1;
                }
                _ => port.append(&mut self.pages, slot, chunk, urgency),
            }
        }
    }

    /// A log has too many keys. Connections for which messages up to `number` are held back are sent everything, and the limit
    /// of the outbox applies.
    #[cold]
    fn send_older(&mut self, audience: u32, number: u64, port: &mut impl Port) {
        let is_older = |lag: &Lag| lag.find(audience).is_some_and(|at| lag.runs[at].numbers.start <= number);
        let lags = self.conflation.lags.iter();
        let slots: Vec<Slot> = lags.filter_map(|(slot, lag)| is_older(lag).then_some(*slot)).collect();
        slots.into_iter().for_each(|slot| self.send_held(slot, port));
    }
}

/// What is held back for a connection.
impl Audiences {
    /// Nothing waits for the connection: sends some of what was held back. Returns whether there is more.
    pub fn catch_up(&mut self, slot: Slot, port: &mut impl Port) -> bool {
        let mut room = self.blocked_bytes();
        while room > 0
            && let Some(chunk) = self.conflation.pop(slot, &mut self.pages)
        {
            port.append(&mut self.pages, slot, chunk, Urgency::Bulk);
            self.pages.release(chunk.page);
            room = room.saturating_sub(chunk.len());
        }
        let lag = self.conflation.lags.get_mut(&slot);
        lag.map(|lag| lag.next += 1).is_some()
    }

    /// Sends all that was held back.
    pub fn send_held(&mut self, slot: Slot, port: &mut impl Port) {
        while let Some(chunk) = self.conflation.pop(slot, &mut self.pages) {
            port.append(&mut self.pages, slot, chunk, Urgency::Bulk);
            self.pages.release(chunk.page);
        }
    }

    /// Drops all that was held back, because the connection receives no more messages.
    pub(super) fn drop_held(&mut self, slot: Slot) {
        while let Some(chunk) = self.conflation.pop(slot, &mut self.pages) {
            self.pages.release(chunk.page);
        }
    }

    /// Drops the messages of an audience that the connection leaves.
    pub(super) fn drop_held_of(&mut self, slot: Slot, audience: u32) {
        while let Some(at) = self.conflation.lags.get(&slot).and_then(|lag| lag.find(audience)) {
            if let Some(chunk) = self.conflation.pop_of(slot, at, &mut self.pages) {
                self.pages.release(chunk.page);
                self.conflation.dropped += 1;
            }
        }
    }

    /// Heap bytes that are held back for a connection; its share of what is held back for many.
    pub fn held_bytes_of(&self, slot: Slot) -> usize {
        let Conflation { logs, lags, .. } = &self.conflation;
        let share = |held: &Held| self.pages.page_bytes(held.copy.page) / held.holders;
        let of_run = |run: &Run| {
            let held = logs.get(&run.audience).into_iter().flat_map(|log| log.held.range(&run.numbers));
            held.map(|(_, held)| share(held)).sum::<usize>() + RUN_BYTES
        };
        lags.get(&slot).into_iter().flat_map(|lag| &lag.runs).map(of_run).sum()
    }

    /// Number of messages that are held back, for each connection.
    pub fn held(&self) -> usize {
        self.conflation.held
    }

    /// Heap bytes of all that is held back, without the pages.
    pub fn held_bytes(&self) -> usize {
        self.conflation.runs * RUN_BYTES
    }

    /// Number of messages that were dropped for a newer one, or because their subscriber left the channel.
    pub fn conflated(&self) -> u64 {
        self.conflation.dropped
    }

    /// Below the limit of the outbox, so that messages are held back before the connection is closed.
    fn blocked_bytes(&self) -> usize {
        BLOCKED_BYTES.min(self.outbox_bytes_max / 2)
    }
}

impl Conflation {
    /// Holds a message back for a connection.
    #[inline]
    fn hold(&mut self, slot: Slot, (audience, log): (u32, &mut Log), number: u64, port: &mut impl Port) {
        self.held += 1;
        let lag = self.lags.entry(slot).or_insert_with(|| {
            port.hold_back(slot);
            Lag::default()
        });
        let end = lag.runs.partition_point(|run| run.audience <= audience);
        match lag.runs[..end].last_mut() {
            Some(last) if last.audience == audience && last.numbers.end == number => last.numbers.end += 1,
            _ => self.runs = self.runs.saturating_add_signed(lag.begin_run(audience, log, number)),
        }
    }

    /// Copies the messages of a page that were held back since the log was taken.
    fn copy_held(&mut self, log: &mut Log, pages: &mut Pages) {
        for mark in log.page.iter_mut().filter(|mark| mark.holders > 0) {
            let holders = std::mem::take(&mut mark.holders);
            let Some(number) = mark.number else { continue };
            if let Some(held) = log.held.get_mut(number) {
                held.holders += holders;
                continue;
            }
            let key = &log.keys[mark.key.clone()];
            // A copy can be small, so that what belongs to it must count.
            let beside = pages::ENTRY_BYTES + compacted_log::entry_bytes::<Held>(key.len());
            let copy = pages.copy_with(mark.chunk, beside as u16);
            if let Some(older) = log.held.push(number, key, Held { copy, holders }) {
                pages.release(older.copy.page);
                self.dropped += older.holders as u64;
                self.held -= older.holders;
            }
        }
    }

    /// Takes the next message that is held back for a connection. The caller must release its page.
    fn pop(&mut self, slot: Slot, pages: &mut Pages) -> Option<Chunk> {
        loop {
            let lag = self.lags.get_mut(&slot)?;
            let at = lag.runs.partition_point(|run| run.audience < lag.next) % lag.runs.len();
            lag.next = lag.runs[at].audience;
            if let Some(chunk) = self.pop_of(slot, at, pages) {
                return Some(chunk);
            }
        }
    }

    /// Takes the next message of a run. The caller must release its page. `None`: the run had none, and was removed.
    fn pop_of(&mut self, slot: Slot, at: usize, pages: &mut Pages) -> Option<Chunk> {
        let lag = self.lags.get_mut(&slot)?;
        let Run { audience, numbers } = &mut lag.runs[at];
        let audience = *audience;
        let log = self.logs.get_mut(&audience)?;
        let number = log.held.range(numbers).next().map(|(number, _)| number);
        let popped = number.and_then(|number| log.take(number, pages));
        numbers.start = number.map_or(numbers.end, |number| number + 1);
        if numbers.is_empty() {
            lag.runs.remove(at);
            log.runs -= 1;
            self.runs -= 1;
            if lag.runs.is_empty() {
                self.lags.remove(&slot);
            }
        }
        self.held -= usize::from(popped.is_some());
        self.forget_unused(audience);
        popped
    }

    /// Forgets a log whose page is closed and to which no run refers.
    fn forget_unused(&mut self, audience: u32) {
        if self.logs.get(&audience).is_some_and(|log| log.page.is_empty() && log.runs == 0) {
            self.logs.remove(&audience);
        }
    }
}

impl Log {
    /// One connection less lacks a message. Returns it, with a reference to its page.
    fn take(&mut self, number: u64, pages: &mut Pages) -> Option<Chunk> {
        let held = self.held.get_mut(number)?;
        let copy = held.copy;
        held.holders -= 1;
        match held.holders {
            0 => drop(self.held.remove(number)),
            _ => pages.hold(copy.page),
        }
        Some(copy)
    }
}

impl Lag {
    /// Adds a run. Returns how many more there are now: fewer, if runs were removed whose messages were all replaced.
    #[cold]
    fn begin_run(&mut self, audience: u32, log: &mut Log, number: u64) -> isize {
        let before = self.runs.len();
        if before == self.runs.capacity() {
            // Messages on the page may have no copy yet.
            let on_page = log.page.iter().find_map(|mark| mark.number).unwrap_or(log.next);
            let is_needed = |run: &Run| {
                run.audience != audience || run.numbers.end > on_page || log.held.range(&run.numbers).next().is_some()
            };
            self.runs.retain(is_needed);
        }
        let end = self.runs.partition_point(|run| run.audience <= audience);
        self.runs.insert(end, Run { audience, numbers: number..number + 1 });
        let more = self.runs.len() as isize - before as isize;
        log.runs = log.runs.saturating_add_signed(more);
        more
    }

    /// Where the first run of an audience is.
    fn find(&self, audience: u32) -> Option<usize> {
        let at = self.runs.partition_point(|run| run.audience < audience);
        (self.runs.get(at)?.audience == audience).then_some(at)
    }
}

/// Changes of the rules.
impl Audiences {
    /// The rules have changed. [`Audiences::change_rules`] applies them to the existing audiences.
    pub fn rules_change(&mut self) {
        self.conflation.changing = Some(0);
    }

    /// Applies changed rules to a limited number of audiences. No page is open.
    pub fn change_rules(&mut self, rules: &Rules, port: &mut impl Port) {
        let Some(from) = self.conflation.changing else { return };
        let end = self.table.end();
        let stop = end.min(from + CHANGED_PER_TURN);
        let mut has_stopped = false;
        for index in from..stop {
            let Some(audience) = self.table.find_at(index) else { continue };
            let slow = rules.rule(audience.name().as_channel().as_str()).slow;
            has_stopped |= slow == Slow::Disconnect && audience.slow() != slow;
            if audience.slow() == Slow::Disconnect && slow != Slow::Disconnect {
                (0..audience.len() as u32).for_each(|at| port.keep_fresh(audience.subscriber(at).slot));
            }
            audience.set_slow(slow);
        }
        if has_stopped {
            // New messages must not overtake those that are held back.
            let slots: Vec<Slot> = self.conflation.lags.keys().copied().collect();
            slots.into_iter().for_each(|slot| self.send_held(slot, port));
        }
        self.conflation.changing = (stop < end).then_some(stop);
    }

    /// Whether changed rules remain to be applied.
    pub fn is_changing_rules(&self) -> bool {
        self.conflation.changing.is_some()
    }
}

/// For simulations.
#[cfg(any(test, fuzzing))]
impl Audiences {
    /// Panics if the logs, the lags and their counts disagree.
    pub(super) fn check_lags(&self) {
        let Conflation { logs, lags, runs, held, .. } = &self.conflation;
        for (&audience, log) in logs {
            assert_eq!(log.page.is_empty(), self.table.get(audience).page().is_none());
            assert!(!log.page.is_empty() || log.runs > 0, "the log is not used");
            let runs = lags.values().flat_map(|lag| &lag.runs).filter(|run| run.audience == audience);
            assert_eq!(log.runs, runs.count());
            for (number, Held { holders, .. }) in log.held.range(&(0..u64::MAX)) {
                let is_held = |run: &&Run| run.audience == audience && run.numbers.contains(&number);
                assert_eq!(*holders, lags.values().flat_map(|lag| &lag.runs).filter(is_held).count());
            }
        }
        for (&slot, lag) in lags {
            assert!(self.members[slot as usize].is_live() && !self.is_muted(slot));
            assert!(!lag.runs.is_empty() && lag.runs.iter().all(|run| !run.numbers.is_empty()));
            assert!(lag.runs.is_sorted_by_key(|run| (run.audience, run.numbers.start)));
        }
        assert_eq!(*runs, lags.values().map(|lag| lag.runs.len()).sum::<usize>());
        let holders = |log: &Log| log.held.range(&(0..u64::MAX)).map(|(_, held)| held.holders).sum::<usize>();
        assert_eq!(*held, logs.values().map(holders).sum::<usize>());
    }

    /// Number of runs of messages that are held back for a connection.
    pub fn held_of(&self, slot: Slot) -> usize {
        self.conflation.lags.get(&slot).map_or(0, |lag| lag.runs.len())
    }
}

/// Whether a newer message makes this one obsolete. Presence and client events are changes, not states. An offset shows that
/// a backend published the message, whatever its event is named.
fn may_be_replaced(message: &Message<'_>) -> bool {
    message.offset.is_some()
        || !["socket:", "pusher_internal:", "client-"].iter().any(|prefix| message.event.starts_with(prefix))
}

/// Bytes in its outbox from which on a connection counts as blocked. After a pause a client gets at most 256 KiB of older
/// messages: these, about twice as many in the kernel ([`NOTSENT_BYTES`]), and what its own receive buffer holds.
const BLOCKED_BYTES: usize = 64 * 1024;
/// Bytes that the kernel should hold unsent for a subscriber of a channel that conflates. Without a limit it holds megabytes.
pub const NOTSENT_BYTES: u32 = 64 * 1024;
/// Most keys of a channel that are held back for a connection.
const KEYS_MAX: usize = 1000;
/// Heap bytes of a connection for which the messages of one channel are held back. Tables may have doubled.
const RUN_BYTES: usize = 2 * (size_of::<Run>() + size_of::<(Slot, Lag)>() + 1);
/// Audiences that a change of the rules visits in one turn: about a millisecond of work.
const CHANGED_PER_TURN: u32 = 1024;
