//! Messages that a new subscriber is sent right after its reply, because it missed them or its channel greets it.
//!
//! Many connections can come back to a channel in one turn. A message is encoded once per audience and turn; each connection
//! is sent the parts of the pages that it needs.

use super::pages::{Chunk, PageId, Pages};
use super::{Audiences, Kind, Port};
use crate::hub::Urgency;
use crate::hub::channel::history::{Kept, Replay};
use crate::hub::message::Message;
use crate::ids::{ConnKey, Slot};
use crate::protocol::channel::ChannelName;
use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU64;

/// The frames that were encoded for replays in this turn.
#[derive(Default)]
pub(super) struct Replays {
    /// By audience.
    runs: HashMap<u32, Run, ahash::RandomState>,
    /// The last page is written to.
    pages: Vec<PageId>,
}

/// Frames of successive messages of a channel, oldest first.
struct Run {
    name: ChannelName,
    kind: Kind,
    frames: VecDeque<Frame>,
}

struct Frame {
    offset: u64,
    exclude: Option<ConnKey>,
    chunk: Chunk,
}

impl Audiences {
    /// Sends a connection the messages of a replay, except those that were not for one of the connections `not_for`. Returns
    /// their number.
    pub(super) fn replay(
        &mut self,
        slot: Slot,
        audience: u32,
        replay: &Replay,
        not_for: &[ConnKey],
        port: &mut impl Port,
    ) -> usize {
        let messages = &replay.messages[replay.start..];
        let (Some(first), Some(last)) = (messages.first(), messages.last()) else { return 0 };
        let entry = self.table.get(audience);
        // Within a turn, the index of an audience that was left may be given to another one.
        let is_own = |run: &Run| run.name == *entry.name() && run.kind == entry.kind();
        let run = self.replays.runs.remove(&audience).filter(is_own);
        let mut run =
            run.unwrap_or_else(|| Run { name: entry.name().clone(), kind: entry.kind(), frames: VecDeque::new() });
        run.encode(replay, &mut self.replays.pages, &mut self.pages);
        let from = run.frames.partition_point(|frame| frame.offset < first.offset);
        let frames = run.frames.range(from..).take_while(|frame| frame.offset <= last.offset);
        let mut sent = 0;
        let mut part: Option<Chunk> = None;
        let is_meant = |frame: &&Frame| frame.exclude.is_none_or(|exclude| !not_for.contains(&exclude));
        for frame in frames.filter(is_meant) {
            sent += 1;
            part = match part {
                Some(before) if before.page == frame.chunk.page && before.end == frame.chunk.start => {
                    Some(Chunk { end: frame.chunk.end, ..before })
                }
                before => {
                    before.into_iter().for_each(|before| self.emit(slot, audience, before, Urgency::Soon, port));
                    Some(frame.chunk)
                }
            };
        }
        part.into_iter().for_each(|part| self.emit(slot, audience, part, Urgency::Soon, port));
        self.replays.runs.insert(audience, run);
        sent
    }

    /// Forgets the frames of the turn.
    pub(super) fn end_replays(&mut self) {
        if self.replays.pages.is_empty() {
            return;
        }
        self.replays.runs.clear();
        for page in std::mem::take(&mut self.replays.pages) {
            self.pages.release(page);
        }
    }
}

impl Run {
    /// Adds the frames of the replay's messages that it does not have. The frames stay those of successive messages: no
    /// message that a later replay needs is left out.
    fn encode(&mut self, replay: &Replay, own: &mut Vec<PageId>, pages: &mut Pages) {
        let Replay { messages, start } = replay;
        let newest = self.frames.back().map(|frame| frame.offset);
        if let Some(oldest) = self.frames.front().map(|frame| frame.offset) {
            let older = messages.partition_point(|kept| kept.offset < oldest).max(*start);
            for kept in messages[*start..older].iter().rev() {
                let frame = self.frame(kept, own, pages);
                self.frames.push_front(frame);
            }
        }
        let newer = newest.map_or(*start, |newest| messages.partition_point(|kept| kept.offset <= newest));
        for kept in &messages[newer..] {
            let frame = self.frame(kept, own, pages);
            self.frames.push_back(frame);
        }
    }

    fn frame(&self, kept: &Kept, own: &mut Vec<PageId>, pages: &mut Pages) -> Frame {
        let channel = self.name.as_channel();
        let message: Message<'_> = kept.payload.message(NonZeroU64::new(kept.offset));
        let len = self.kind.frame_bytes(channel, &message);
        let page = match own.last() {
            Some(&page) if !pages.is_full_for(page, len) => page,
            _ => {
                own.push(pages.open());
                own[own.len() - 1]
            }
        };
        let chunk = pages.append(page, |out| self.kind.encode(out, channel, &message));
        Frame { offset: kept.offset, exclude: kept.exclude, chunk }
    }
}
