//! The state of one consumer of lifecycle events: its next question, and what an answer means. For a snapshot it asks all
//! shards page by page: first for the channels, then for the members of presence channels, then for the connections. After that
//! it keeps asking the journal for more.
//!
//! At most one question is open, and the next is asked once there is room for its answer. So a slow reader receives slowly.

use crate::api::operation::ChannelCount;
use crate::api::operation::Connections;
use crate::api::{ConnectionInfo, Rows};
use crate::hub::mail::{Answer, Question};
use crate::hub::observe::extras::Extras;
use crate::hub::observe::journal::JOURNAL;
use crate::hub::observe::reports::Event;
use crate::ids::ShardId;
use crate::protocol::channel::ChannelName;
use std::sync::Arc;

/// One consumer: its stage, and its position in the snapshot.
pub struct Follower {
    stage: Stage,
    /// Where the next page of `shard` starts.
    after: u32,
    /// The shard that is asked for pages.
    shard: ShardId,
    /// Whether a question is open.
    is_asking: bool,
    /// Channels in the snapshot so far.
    channels: u64,
    /// Members of channels in the snapshot so far.
    members: u64,
    /// Connections in the snapshot so far.
    connections: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begins,
    Channels,
    Members,
    Connections,
    Live,
    Over,
}

/// What a consumer is sent because of an answer.
#[derive(Debug)]
#[allow(missing_docs)] // the variants' sentences explain the fields
pub enum FollowerUpdate {
    /// The events after `number` follow. If it `is_snapshot`, the state at that number comes first.
    Following { epoch: u64, number: u64, is_snapshot: bool },
    /// A page of the snapshot's channels.
    Channels(Vec<ChannelCount>),
    /// A page of the snapshot's members of channels: channel and user id.
    Members(Vec<(ChannelName, Arc<str>)>),
    /// A page of the snapshot's connections.
    Connections(Vec<ConnectionInfo>),
    /// The last page of the snapshot, and the totals of all pages.
    SnapshotEnd { connections_page: Vec<ConnectionInfo>, channels: u64, members: u64, connections: u64 },
    /// The next events.
    Events { events: Box<[Event]> },
    /// The next `missing` events were discarded. This ends the stream.
    FellBehind { missing: u64 },
    /// The server stops. This ends the stream.
    NoMore,
}

impl Follower {
    /// A new consumer, and its first question to the [`JOURNAL`]. It has the events up to `since` of the run `epoch`.
    pub fn new(since: Option<u64>, epoch: Option<u64>, extras: Extras, is_own: bool) -> (Follower, Question) {
        let (stage, after, shard, is_asking) = (Stage::Begins, 0, 0, true);
        let follower = Follower { stage, after, shard, is_asking, channels: 0, members: 0, connections: 0 };
        (follower, Question::Follow { since, epoch, extras, is_own })
    }

    /// The next question and the shard to ask; `None` if a question is open, or the stream has ended.
    pub fn ask(&mut self) -> Option<(ShardId, Question)> {
        let (limit, after) = (PAGE_MAX, self.after);
        let question = match self.stage {
            _ if self.is_asking => return None,
            Stage::Channels => (self.shard, Question::Occupied { limit, after }),
            Stage::Members => (self.shard, Question::Members { limit, after }),
            Stage::Connections => (self.shard, Question::Page { request: Connections::default().into(), limit, after }),
            Stage::Live => (JOURNAL, Question::MoreEvents),
            Stage::Begins | Stage::Over => return None,
        };
        self.is_asking = true;
        Some(question)
    }

    /// Whether [`Follower::ask`] has a question to ask.
    pub fn is_ready(&self) -> bool {
        !self.is_asking && self.stage != Stage::Over
    }

    /// Takes the answer to the open question.
    pub fn take_answer(&mut self, answer: Answer, shards: usize) -> Option<FollowerUpdate> {
        self.is_asking = false;
        match (self.stage, answer) {
            (Stage::Begins, Answer::Following { epoch, number, is_snapshot }) => {
                self.stage = if is_snapshot { Stage::Channels } else { Stage::Live };
                Some(FollowerUpdate::Following { epoch, number, is_snapshot })
            }
            (Stage::Channels, Answer::Page { rows: Rows::Channels(channels), next }) => {
                self.channels += channels.len() as u64;
                self.turn(next, shards, Stage::Members);
                Some(FollowerUpdate::Channels(channels))
            }
            (Stage::Members, Answer::Members { members, next }) => {
                self.members += members.len() as u64;
                self.turn(next, shards, Stage::Connections);
                Some(FollowerUpdate::Members(members))
            }
            (Stage::Connections, Answer::Page { rows: Rows::Connections(page), next }) => {
                self.connections += page.len() as u64;
                self.turn(next, shards, Stage::Live);
                let Follower { channels, members, connections, .. } = *self;
                Some(match self.stage {
                    Stage::Live => {
                        FollowerUpdate::SnapshotEnd { connections_page: page, channels, members, connections }
                    }
                    _ => FollowerUpdate::Connections(page),
                })
            }
            (Stage::Live, Answer::Events { events }) => Some(FollowerUpdate::Events { events }),
            (_, Answer::FellBehind { missing }) => self.end(FollowerUpdate::FellBehind { missing }),
            (_, Answer::NoMoreEvents) => self.end(FollowerUpdate::NoMore),
            _ => None,
        }
    }

    /// Whether the snapshot is complete: all further questions are for events.
    pub fn is_live(&self) -> bool {
        self.stage == Stage::Live
    }

    /// Whether the stream has ended.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Moves to the next page: of the same shard, of the next shard, or of the stage `then`.
    fn turn(&mut self, next: Option<u32>, shards: usize, then: Stage) {
        self.after = next.unwrap_or(0);
        if next.is_none() {
            self.shard += 1;
        }
        if usize::from(self.shard) == shards {
            (self.shard, self.stage) = (0, then);
        }
    }

    fn end(&mut self, update: FollowerUpdate) -> Option<FollowerUpdate> {
        self.stage = Stage::Over;
        Some(update)
    }
}

/// Most rows of one page of a snapshot: about 150 KiB of lines.
const PAGE_MAX: usize = 1000;
