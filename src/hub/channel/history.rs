//! The newest messages of one channel, for connections that come back: bounded by number, bytes and age.
//!
//! A position is the offset of the last message that a client has. It is recoverable while every later message is kept. The
//! answer is never partial: a client that cannot be sent all of them is sent none, and told.

use crate::hub::admission::bucket::TICKS_PER_S;
use crate::hub::message::Payload;
use crate::ids::ConnKey;
use crate::{api, config};
use std::collections::VecDeque;
use std::sync::Arc;

/// A message that is kept. Copying it copies a reference.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its place in the order: greater than that of every earlier message of the channel.
    pub offset: u64,
    /// The connection that did not receive it.
    pub exclude: Option<ConnKey>,
    /// Tick at which it was published.
    kept_at: u32,
    /// The message.
    pub payload: Payload,
}

/// Messages to send to one connection: those of `messages` from index `start` on.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Shared by all connections that come back before the next message.
    pub messages: Arc<[Kept]>,
    /// Index of the first message to send.
    pub start: usize,
}

/// Bounds of a replay, whatever the channel keeps.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of the frames.
    pub bytes_max: usize,
    /// Bytes of a frame that are neither event nor data.
    pub envelope_bytes: usize,
}

/// A part of the history, in its order or the reverse.
#[derive(Debug)]
pub struct Page {
    /// The messages.
    pub messages: Vec<Kept>,
    /// Whether more follow.
    pub has_more: bool,
}

/// The messages that one channel keeps.
pub struct History {
    limits: config::History,
    /// Oldest first.
    kept: VecDeque<Kept>,
    /// Heap bytes of the messages.
    bytes: usize,
    /// Offset of the newest message, kept or not; before the first one, the position of the channel's beginning.
    last: u64,
    /// Offset of the newest message that is not kept any more. Every later message is kept.
    floor: u64,
    /// Tick at which messages were removed to free memory, while the channel's limits would still keep them.
    evicted_at: Option<u32>,
    /// The newest messages within the bounds of a replay, and the bytes that the bounds allowed. For the other replays of the
    /// turn, until the next change.
    snapshot: Option<(usize, Arc<[Kept]>)>,
}

impl History {
    /// An empty history at the position `last`. Positions below `floor` are not recoverable.
    pub fn new(limits: config::History, last: u64, floor: u64) -> History {
        History { limits, kept: VecDeque::new(), bytes: 0, last, floor, evicted_at: None, snapshot: None }
    }

    /// The same history, of which earlier messages may have been removed to free memory, at this tick or before.
    pub fn incomplete(self, evicted_at: Option<u32>) -> History {
        History { evicted_at, ..self }
    }

    /// Offset of the newest message.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Heap bytes of the messages.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether no message is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Keeps a message, whose offset must be greater than [`History::last`].
    pub fn keep(&mut self, offset: u64, exclude: Option<ConnKey>, payload: Payload, now: u32) {
        debug_assert!(offset > self.last);
        self.last = offset;
        self.snapshot = None;
        let kept = Kept { offset, exclude, kept_at: now, payload };
        self.bytes += kept.bytes();
        if self.kept.len() == self.kept.capacity() {
            // Room is not counted. In smaller steps the lists that were left behind would take more memory than the room saves.
            let most = (self.limits.messages_max as usize + 1).saturating_sub(self.kept.len());
            self.kept.reserve_exact(self.kept.len().min(most).max(1));
        }
        self.kept.push_back(kept);
        self.trim(now);
    }

    /// The newest message.
    pub fn newest_payload(&self) -> Option<&Payload> {
        self.kept.back().map(|kept| &kept.payload)
    }

    /// Changes the limits.
    pub fn set_limits(&mut self, limits: config::History, now: u32) {
        self.limits = limits;
        self.trim(now);
    }

    /// Removes messages beyond the limits.
    pub fn trim(&mut self, now: u32) {
        let config::History { messages_max, bytes_max, ttl_s } = self.limits;
        let ttl = ttl_s.saturating_mul(TICKS_PER_S);
        while let Some(oldest) = self.kept.front() {
            let is_within = self.kept.len() <= messages_max as usize && self.bytes <= bytes_max as usize;
            if is_within && now.wrapping_sub(oldest.kept_at) < ttl {
                break;
            }
            self.bytes -= oldest.bytes();
            self.floor = oldest.offset;
            self.kept.pop_front();
            self.snapshot = None;
        }
        if self.kept.len() <= self.kept.capacity() / 4 {
            self.kept.shrink_to_fit();
        }
        if let Some(at) = self.evicted_at
            && (now.wrapping_sub(at) >= ttl || self.kept.len() >= messages_max as usize)
        {
            self.evicted_at = None;
        }
    }

    /// Ticks until the oldest message is too old; `None`: the history is empty.
    pub fn expires_in(&self, now: u32) -> Option<u32> {
        let age = now.wrapping_sub(self.kept.front()?.kept_at);
        Some(self.limits.ttl_s.saturating_mul(TICKS_PER_S).saturating_sub(age))
    }

    /// The newest message, and the ticks for which it is still kept.
    pub fn last_kept(&self, now: u32) -> Option<(&Kept, u32)> {
        let newest = self.kept.back()?;
        let age = now.wrapping_sub(newest.kept_at);
        Some((newest, self.limits.ttl_s.saturating_mul(TICKS_PER_S).saturating_sub(age)))
    }

    /// Whether messages are ready for other replays.
    pub fn has_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    /// Frees them. [`History::bytes`] does not count them, so they must not outlive the turn.
    pub fn forget_snapshot(&mut self) {
        self.snapshot = None;
    }

    /// Removes all messages, to free memory. Returns their number.
    pub fn evict(&mut self, now: u32) -> usize {
        self.evicted_at = (!self.kept.is_empty()).then_some(now).or(self.evicted_at);
        (self.bytes, self.floor, self.snapshot) = (0, self.last, None);
        std::mem::take(&mut self.kept).len()
    }

    /// The messages after the position `since`; `None` if the position is not recoverable within the bounds.
    pub fn replay(&mut self, since: u64, bounds: Bounds) -> Option<Replay> {
        if since < self.floor || since > self.last {
            return None;
        }
        let newer = self.kept.len() - self.kept.partition_point(|kept| kept.offset <= since);
        if newer == 0 {
            return Some(Replay { messages: Arc::new([]), start: 0 });
        }
        let messages = self.snapshot(bounds);
        let is_bounded = newer > 1 || messages.last().is_some_and(|newest| newest.fits(bounds));
        let start = messages.len().checked_sub(newer).filter(|_| is_bounded)?;
        Some(Replay { messages, start })
    }

    /// The newest message, whatever its size.
    pub fn newest(&mut self, bounds: Bounds) -> Option<Replay> {
        let messages = self.snapshot(bounds);
        let start = messages.len().checked_sub(1)?;
        Some(Replay { messages, start })
    }

    /// The newest messages within the bounds.
    pub fn all(&mut self, bounds: Bounds) -> Option<Replay> {
        let messages = self.snapshot(bounds);
        let is_any = messages.last()?.fits(bounds);
        is_any.then_some(Replay { messages, start: 0 })
    }

    /// At least the newest message, and as many before it as the bounds allow.
    fn snapshot(&mut self, bounds: Bounds) -> Arc<[Kept]> {
        let History { snapshot, kept, .. } = self;
        let make = || {
            let mut bytes = 0;
            let is_within = |kept: &&Kept| {
                bytes += kept.payload.bytes() + bounds.envelope_bytes;
                bytes <= bounds.bytes_max
            };
            let within = kept.iter().rev().take(REPLAY_MESSAGES_MAX).take_while(is_within).count();
            kept.range(kept.len() - within.max(1).min(kept.len())..).cloned().collect()
        };
        let made = snapshot.take().filter(|(bytes_max, _)| *bytes_max == bounds.bytes_max);
        snapshot.insert(made.unwrap_or_else(|| (bounds.bytes_max, make()))).1.clone()
    }

    /// Whether every message after `since` is kept; without `since`, whether all are kept that the limits would keep.
    pub fn is_complete(&self, since: Option<u64>) -> bool {
        match since {
            Some(since) => (self.floor..=self.last).contains(&since),
            None => self.evicted_at.is_none(),
        }
    }

    /// At most `limit` messages after `since`, from the position `after` of an earlier page on. `bytes_max` bounds events
    /// and data; the first message is returned whatever its size.
    pub fn page(&self, since: u64, after: Option<u64>, is_reverse: bool, limit: usize, bytes_max: usize) -> Page {
        let first = self.kept.partition_point(|kept| kept.offset <= since);
        let mut messages = Vec::new();
        let mut bytes = 0;
        let mut has_more = false;
        let mut add = |kept: &Kept| {
            bytes += kept.payload.bytes();
            has_more = messages.len() == limit || (bytes > bytes_max && !messages.is_empty());
            if !has_more {
                messages.push(kept.clone());
            }
            has_more
        };
        let kept = self.kept.range(first..);
        let _ = match is_reverse {
            false => kept.filter(|kept| after.is_none_or(|after| kept.offset > after)).any(&mut add),
            true => kept.rev().filter(|kept| after.is_none_or(|after| kept.offset < after)).any(&mut add),
        };
        Page { messages, has_more }
    }
}

impl Kept {
    /// As replies show it.
    pub fn shown(&self) -> api::history::Kept {
        let message = self.payload.message(None);
        api::history::Kept { offset: self.offset, event: message.event.into(), data: message.data.map(Box::from) }
    }

    /// Heap bytes.
    fn bytes(&self) -> usize {
        size_of::<Kept>() + self.payload.heap_bytes()
    }

    fn fits(&self, bounds: Bounds) -> bool {
        self.payload.bytes() + bounds.envelope_bytes <= bounds.bytes_max
    }
}

/// Most messages of a replay.
pub const REPLAY_MESSAGES_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::message::Message;
    use proptest::prelude::*;

    const LIMITS: config::History = config::History { messages_max: 4, bytes_max: 1 << 20, ttl_s: 60 };
    const BOUNDS: Bounds = Bounds { bytes_max: 1000, envelope_bytes: 0 };

    fn keep(history: &mut History, offset: u64, len: usize, now: u32) {
        let data = "1".repeat(len);
        let message = Message { event: "", data: Some(&data), ..Message::default() };
        history.keep(offset, None, Payload::new(&message, &mut String::new()), now);
    }

    fn offsets(replay: Option<Replay>) -> Option<Vec<u64>> {
        replay.map(|replay| replay.messages[replay.start..].iter().map(|kept| kept.offset).collect())
    }

    #[test]
    fn a_replay_is_everything_after_the_position_or_nothing() {
        let mut history = History::new(LIMITS, 10, 10);
        assert_eq!(offsets(history.replay(10, BOUNDS)), Some(vec![]));
        assert_eq!((offsets(history.newest(BOUNDS)), offsets(history.all(BOUNDS))), (None, None));
        for offset in [12, 15, 16, 19, 20] {
            keep(&mut history, offset, 1, 0);
        }
        let check = |history: &mut History, since, expected: Option<&[u64]>| {
            assert_eq!(offsets(history.replay(since, BOUNDS)).as_deref(), expected, "since {since}");
        };
        check(&mut history, 10, None);
        check(&mut history, 11, None);
        check(&mut history, 12, Some(&[15, 16, 19, 20]));
        check(&mut history, 14, Some(&[15, 16, 19, 20]));
        check(&mut history, 19, Some(&[20]));
        check(&mut history, 20, Some(&[]));
        check(&mut history, 21, None);
        assert_eq!(offsets(history.newest(BOUNDS)), Some(vec![20]));
        assert_eq!(offsets(history.all(BOUNDS)), Some(vec![15, 16, 19, 20]));
        assert_eq!(history.evict(0), 4);
        check(&mut history, 19, None);
        check(&mut history, 20, Some(&[]));
        assert_eq!((history.bytes(), history.is_complete(None), history.is_complete(Some(20))), (0, false, true));
    }

    #[test]
    fn a_replay_is_bounded_by_bytes_and_by_number() {
        let mut history = History::new(config::History { messages_max: 2000, ..LIMITS }, 0, 0);
        for offset in 1..=5 {
            keep(&mut history, offset, 300, 0);
        }
        assert_eq!(offsets(history.replay(2, BOUNDS)), Some(vec![3, 4, 5]));
        assert_eq!(offsets(history.replay(1, BOUNDS)), None, "four messages of 300 bytes are more than 1000 bytes");
        assert_eq!(offsets(history.all(BOUNDS)), Some(vec![3, 4, 5]));
        keep(&mut history, 6, 1001, 0);
        assert_eq!(offsets(history.replay(5, BOUNDS)), None, "the message is larger than a replay");
        assert_eq!(offsets(history.newest(BOUNDS)), Some(vec![6]), "the newest message has no other bound");
        assert_eq!(offsets(history.all(BOUNDS)), None);
        keep(&mut history, 7, 600, 0);
        let other_limit = Bounds { bytes_max: 500, ..BOUNDS };
        assert_eq!(offsets(history.replay(6, BOUNDS)), Some(vec![7]));
        assert_eq!(offsets(history.replay(6, other_limit)), None, "the bounds have changed, the messages have not");
        assert_eq!(offsets(history.all(BOUNDS)), Some(vec![7]));
        for offset in 8..1200 {
            keep(&mut history, offset, 0, 0);
        }
        assert_eq!(offsets(history.replay(199, BOUNDS)).map(|offsets| offsets.len()), Some(1000));
        assert_eq!(offsets(history.replay(198, BOUNDS)), None);
    }

    #[test]
    fn messages_expire() {
        let mut history = History::new(LIMITS, 0, 0);
        assert_eq!(history.expires_in(7), None);
        keep(&mut history, 1, 1, u32::MAX - 9);
        keep(&mut history, 2, 1, 0);
        assert_eq!(history.expires_in(0), Some(590));
        history.trim(589);
        assert_eq!(history.len(), 2);
        history.trim(590);
        assert_eq!((history.len(), history.expires_in(590)), (1, Some(10)));
        assert_eq!((offsets(history.replay(0, BOUNDS)), offsets(history.replay(1, BOUNDS))), (None, Some(vec![2])));
    }

    #[test]
    fn the_list_has_little_room_that_is_not_counted() {
        for messages_max in [1, 7, 1000] {
            let mut history = History::new(config::History { messages_max, ..LIMITS }, 0, 0);
            let check = |history: &History, at: u64| {
                let (len, room) = (history.len(), history.kept.capacity());
                let most = (2 * len).min(messages_max as usize + 1);
                assert!(room <= most, "room for {room} of {messages_max}, and {len} messages after {at}");
                assert_eq!(history.bytes(), len * (size_of::<Kept>() + 128));
            };
            for offset in 1..=2000 {
                keep(&mut history, offset, 100, offset as u32 / 10);
                check(&history, offset);
            }
            history.trim(600 + 198);
            assert!(history.kept.capacity() <= 4 * history.len(), "messages that expire leave their room behind");
            history.trim(600 + 200);
            assert_eq!((history.bytes(), history.kept.capacity()), (0, 0));
        }
    }

    #[test]
    fn eviction_is_told_until_the_limits_would_have_removed_the_messages() {
        let mut history = History::new(LIMITS, 0, 0);
        keep(&mut history, 1, 1, 0);
        history.evict(5);
        history.trim(604);
        assert!(!history.is_complete(None));
        history.trim(605);
        assert!(history.is_complete(None));
        keep(&mut history, 2, 1, 606);
        history.evict(606);
        (3..7).for_each(|offset| keep(&mut history, offset, 1, 607));
        assert!(history.is_complete(None), "four later messages are all that the limits keep");
    }

    #[test]
    fn pages_join_to_the_whole() {
        let mut history = History::new(config::History { messages_max: 100, ..LIMITS }, 0, 0);
        (1..=10).for_each(|offset| keep(&mut history, offset * 2, 10, 0));
        let all = |since: u64, is_reverse, limit, bytes_max| {
            let (mut offsets, mut after) = (Vec::new(), None);
            loop {
                let page = history.page(since, after, is_reverse, limit, bytes_max);
                assert!(page.messages.len() <= limit);
                offsets.extend(page.messages.iter().map(|kept| kept.offset));
                after = offsets.last().copied();
                if !page.has_more {
                    return offsets;
                }
            }
        };
        let expected: Vec<u64> = (3..=10).map(|offset| offset * 2).collect();
        for limit in 1..10 {
            assert_eq!(all(4, false, limit, 1000), expected);
            assert_eq!(all(5, true, limit, 25), expected.iter().rev().copied().collect::<Vec<_>>());
        }
        let page = history.page(4, None, false, 0, 1000);
        assert!(page.messages.is_empty() && page.has_more);
        assert_eq!(history.page(0, None, false, 9, 5).messages.len(), 1, "a page has at least one message");
    }

    proptest! {
        /// Against a list of everything that was ever published.
        #[test]
        fn a_history_is_a_bounded_list(
            steps in prop::collection::vec((0_u8..10, 1_u64..4, 0_usize..400), 0..80),
            messages_max in 1_u32..8,
            bytes_max in 200_u32..2000,
        ) {
            let limits = config::History { messages_max, bytes_max, ttl_s: 3 };
            let mut history = History::new(limits, 5, 5);
            let (mut all, mut now, mut last) = (Vec::new(), 0, 5);
            for (action, step, len) in steps {
                match action {
                    0 => {
                        now += len as u32 / 8;
                        history.trim(now);
                    }
                    1 => _ = history.evict(now),
                    _ => {
                        last += step;
                        keep(&mut history, last, len, now);
                        all.push((last, now));
                    }
                }
                prop_assert!(history.len() <= messages_max as usize && history.bytes() <= bytes_max as usize);
                for since in 0..=last + 1 {
                    let newer: Vec<u64> = all.iter().map(|&(offset, _)| offset).filter(|&offset| offset > since).collect();
                    match offsets(history.replay(since, BOUNDS)) {
                        Some(replayed) => prop_assert_eq!(replayed, newer, "since {}", since),
                        None => {
                            let is_gone = newer.len() > history.len() || !(5..=last).contains(&since);
                            let is_long = newer.len() * 400 > BOUNDS.bytes_max;
                            prop_assert!(is_gone || is_long, "since {since} is recoverable");
                        }
                    }
                }
                for kept in &history.kept {
                    let &(_, at) = all.iter().find(|(offset, _)| *offset == kept.offset).expect("it was published");
                    prop_assert!(now - at < 30, "a message is too old");
                }
            }
        }
    }
}
