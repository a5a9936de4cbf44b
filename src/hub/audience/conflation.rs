//! Conflation: while a connection is blocked, the messages of some channels are held back for it. Later it is sent the newest
//! of each key instead of all of them.
//!
//! A channel conflates if its rule says so (`slow`). A subscriber counts as blocked once `BLOCKED_BYTES` wait for it, and
//! until it has taken all that waits and all that was held back. Other channels, replies, presence and client events are not
//! held back. A message is copied when it is first held back, once for all connections, so that it does not keep its whole page
//! alive.

use super::lag::{self, Full, Lag, Place};
use super::pages::{self, Chunk, Pages};
use super::{Audiences, Port};
use crate::config::{Rules, Slow};
use crate::hub::Urgency;
use crate::hub::message::Message;
use crate::ids::Slot;
use std::collections::HashMap;
use std::sync::Arc;

/// The messages that are held back, and those on open pages, which may be.
#[derive(Default)]
pub(super) struct Conflation {
    /// By audience that conflates: the messages on its page.
    marks: HashMap<u32, Marks, ahash::RandomState>,
    /// By blocked connection: what is held back for it, which is never empty.
    lags: HashMap<Slot, Lag<Chunk>, ahash::RandomState>,
    hasher: ahash::RandomState,
    /// Number of messages in all lags.
    held: usize,
    /// Number of messages that were dropped for a newer one, or because their subscriber left the channel.
    dropped: u64,
    /// While changed rules are being applied: the next audience.
    changing: Option<u32>,
}

/// The messages on an audience's page, in order.
#[derive(Default)]
struct Marks {
    list: Vec<Mark>,
    keys: String,
}

struct Mark {
    start: u32,
    end: u32,
    /// The place of its key in [`Marks::keys`]; `None`: it has no key.
    key: Option<(u32, u32)>,
    /// Whether a newer message may replace it.
    is_conflated: bool,
    /// Its place in a lag, and its copy. Made when it is first held back.
    copy: Option<(Place, Chunk)>,
}

/// Delivery.
impl Audiences {
    /// Notes a message of an audience that conflates, which was just appended to its page.
    pub(super) fn mark(&mut self, audience: u32, slow: Slow, chunk: Chunk, message: &Message<'_>) {
        let Marks { list, keys } = self.conflation.marks.entry(audience).or_default();
        let key = message.key.filter(|_| slow == Slow::LatestByKey).map(|key| {
            let start = keys.len() as u32;
            keys.push_str(key);
            (start, keys.len() as u32)
        });
        let Chunk { start, end, .. } = chunk;
        list.push(Mark { start, end, key, is_conflated: may_be_replaced(message), copy: None });
    }

    /// The page of an audience that conflates is closed: every subscriber was sent its part.
    pub(super) fn forget_marks(&mut self, audience: u32) {
        let marks = self.conflation.marks.remove(&audience).unwrap_or_default();
        marks.list.iter().flat_map(|mark| &mark.copy).for_each(|(_, copy)| self.pages.release(copy.page));
    }

    /// Sends a connection a part of the page of an audience that conflates, or holds the part back.
    pub(super) fn emit_or_hold(
        &mut self,
        slot: Slot,
        audience: u32,
        part: Chunk,
        urgency: Urgency,
        port: &mut impl Port,
    ) {
        if self.held_back | self.muted > 0 && self.keeps_back(slot, audience, part, port) {
            return;
        }
        if !self.is_lagging(slot) && port.waiting(slot) + part.len() <= self.blocked_bytes() {
            return port.append(&mut self.pages, slot, part, urgency);
        }
        let mut marks = self.conflation.marks.remove(&audience).unwrap_or_default();
        let Marks { list, keys } = &mut marks;
        let from = list.partition_point(|mark| mark.start < part.start);
        for mark in list[from..].iter_mut().take_while(|mark| mark.end <= part.end) {
            let chunk = Chunk { start: mark.start, end: mark.end, ..part };
            let is_blocked = self.is_lagging(slot) || port.waiting(slot) >= self.blocked_bytes();
            if is_blocked && mark.is_conflated {
                let hasher = &self.conflation.hasher;
                let (place, copy) = mark.copy(audience, keys, hasher, chunk, &mut self.pages).clone();
                self.hold(slot, place, copy, port);
            } else {
                port.append(&mut self.pages, slot, chunk, urgency);
            }
        }
        self.conflation.marks.insert(audience, marks);
    }

    /// Holds a message back. Beyond the limit of keys everything is sent, and the limit of the outbox applies.
    fn hold(&mut self, slot: Slot, place: Place, copy: Chunk, port: &mut impl Port) {
        let Conflation { lags, held, dropped, .. } = &mut self.conflation;
        let lag = lags.entry(slot).or_insert_with(|| {
            port.hold_back(slot);
            Lag::default()
        });
        match lag.put(place, copy) {
            Ok(replaced) => {
                self.pages.hold(copy.page);
                match replaced {
                    Some(older) => {
                        self.pages.release(older.page);
                        *dropped += 1;
                    }
                    None => *held += 1,
                }
            }
            Err(Full) => {
                self.send_held(slot, port);
                port.append(&mut self.pages, slot, copy, Urgency::Bulk);
            }
        }
    }
}

/// What is held back for a connection.
impl Audiences {
    /// Nothing waits for the connection: sends some of what was held back. Returns whether there is more.
    pub fn catch_up(&mut self, slot: Slot, port: &mut impl Port) -> bool {
        let mut room = self.blocked_bytes();
        let Conflation { lags, held, .. } = &mut self.conflation;
        let Some(lag) = lags.get_mut(&slot) else { return false };
        while room > 0
            && let Some(chunk) = lag.pop()
        {
            *held -= 1;
            port.append(&mut self.pages, slot, chunk, Urgency::Bulk);
            self.pages.release(chunk.page);
            room = room.saturating_sub(chunk.len());
        }
        if lag.is_empty() {
            lags.remove(&slot);
        }
        self.is_lagging(slot)
    }

    /// Sends all that was held back.
    pub fn send_held(&mut self, slot: Slot, port: &mut impl Port) {
        for chunk in self.take_held(slot) {
            port.append(&mut self.pages, slot, chunk, Urgency::Bulk);
            self.pages.release(chunk.page);
        }
    }

    /// Drops all that was held back, because the connection receives no more messages.
    pub(super) fn drop_held(&mut self, slot: Slot) {
        self.take_held(slot).for_each(|chunk| self.pages.release(chunk.page));
    }

    /// Drops the messages of an audience that the connection leaves.
    pub(super) fn drop_held_of(&mut self, slot: Slot, audience: u32) {
        let Conflation { lags, held, dropped, .. } = &mut self.conflation;
        let Some(lag) = lags.get_mut(&slot) else { return };
        for chunk in lag.remove_audience(audience) {
            self.pages.release(chunk.page);
            *held -= 1;
            *dropped += 1;
        }
        if lag.is_empty() {
            lags.remove(&slot);
        }
    }

    /// Heap bytes that are held back for a connection; its share of what is held back for many.
    pub fn held_bytes_of(&self, slot: Slot) -> usize {
        let Some(lag) = self.conflation.lags.get(&slot) else { return 0 };
        lag.iter().map(|chunk| self.pages.share_bytes(chunk.page) + lag::ENTRY_BYTES).sum()
    }

    /// Number of messages that are held back for all connections.
    pub fn held(&self) -> usize {
        self.conflation.held
    }

    /// Heap bytes of all that is held back, without the pages.
    pub fn held_bytes(&self) -> usize {
        self.conflation.held * lag::ENTRY_BYTES
    }

    /// Number of messages that were dropped for a newer one, or because their subscriber left the channel.
    pub fn conflated(&self) -> u64 {
        self.conflation.dropped
    }

    fn take_held(&mut self, slot: Slot) -> impl Iterator<Item = Chunk> + use<> {
        let mut lag = self.conflation.lags.remove(&slot).unwrap_or_default();
        self.conflation.held -= lag.len();
        std::iter::from_fn(move || lag.pop())
    }

    fn is_lagging(&self, slot: Slot) -> bool {
        self.conflation.lags.contains_key(&slot)
    }

    /// Below the limit of the outbox, so that messages are held back before the connection is closed.
    fn blocked_bytes(&self) -> usize {
        BLOCKED_BYTES.min(self.outbox_bytes_max / 2)
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
    /// Panics if the lags and their counts disagree.
    pub(super) fn check_lags(&self) {
        let Conflation { marks, lags, held, .. } = &self.conflation;
        assert!(marks.keys().all(|&audience| self.table.get(audience).page().is_some()), "a page is closed");
        assert!(lags.values().all(|lag| !lag.is_empty()));
        assert_eq!(*held, lags.values().map(Lag::len).sum::<usize>());
        assert!(lags.keys().all(|&slot| self.members[slot as usize].is_live() && !self.is_muted(slot)));
    }

    /// Number of messages that are held back for a connection.
    pub fn held_of(&self, slot: Slot) -> usize {
        self.conflation.lags.get(&slot).map_or(0, Lag::len)
    }
}

impl Mark {
    fn copy(
        &mut self,
        audience: u32,
        keys: &str,
        hasher: &ahash::RandomState,
        chunk: Chunk,
        pages: &mut Pages,
    ) -> &(Place, Chunk) {
        self.copy.get_or_insert_with(|| {
            let key = self.key.map(|(start, end)| &keys[start as usize..end as usize]);
            let hash = hasher.hash_one((audience, key));
            let place = Place { audience, key: key.map(Arc::from), hash };
            // A copy can be small, so that what belongs to it must count.
            let beside = pages::ENTRY_BYTES + place.key_bytes();
            (place, pages.copy_with(chunk, beside as u16))
        })
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
/// Audiences that a change of the rules visits in one turn: about a millisecond of work.
const CHANGED_PER_TURN: u32 = 1024;
