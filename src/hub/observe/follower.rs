//! A consumer of events: what it asks for next, and what the answers mean. A snapshot takes it through all shards, page by
//! page: the channels first, then the connections; then it asks the journal for more, again and again.
//!
//! One question is open at a time and the next is asked when there is room for its answer, so whoever reads slowly is told
//! slowly.

use crate::api::operation::ChannelCount;
use crate::api::operation::Connections;
use crate::api::{ConnectionInfo, Rows};
use crate::hub::mail::{Answer, Question};
use crate::hub::observe::journal::JOURNAL;
use crate::hub::observe::reports::Event;
use crate::ids::ShardId;

/// One consumer's place.
pub struct Follower {
    stage: Stage,
    /// Where the shard that is asked goes on.
    after: u32,
    shard: ShardId,
    /// A question is open.
    is_asking: bool,
    /// What the snapshot had.
    channels: u64,
    connections: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begins,
    Channels,
    Connections,
    Live,
    Over,
}

/// What there is to say.
#[derive(Debug)]
#[allow(missing_docs)] // the fields are the words of their variant's sentence
pub enum Told {
    /// Events after `number` follow, in the snapshot's case the state at that number first.
    Following { epoch: u64, number: u64, is_snapshot: bool },
    /// A page of the snapshot.
    Channels(Vec<ChannelCount>),
    /// Another.
    Connections(Vec<ConnectionInfo>),
    /// The last page of the snapshot, which had so much in all.
    SnapshotEnd { connections_page: Vec<ConnectionInfo>, channels: u64, connections: u64 },
    /// Consecutive events; the first one's number.
    Events { number: u64, events: Box<[Event]> },
    /// What would be next is no longer kept, and `missing` events with it; the end.
    FellBehind { missing: u64 },
    /// The server stops; the end.
    NoMore,
}

impl Follower {
    /// Asks the [`JOURNAL`] to begin. `since`: everything up to there, of the run `epoch`, is known.
    pub fn new(since: Option<u64>, epoch: Option<u64>, is_own: bool) -> (Follower, Question) {
        let follower =
            Follower { stage: Stage::Begins, after: 0, shard: 0, is_asking: true, channels: 0, connections: 0 };
        (follower, Question::Follow { since, epoch, is_own })
    }

    /// What to ask next, and whom; `None`: a question is open, or it is over.
    pub fn ask(&mut self) -> Option<(ShardId, Question)> {
        let (limit, after) = (PAGE_MAX, self.after);
        let question = match self.stage {
            _ if self.is_asking => return None,
            Stage::Channels => (self.shard, Question::Occupied { limit, after }),
            Stage::Connections => (self.shard, Question::Page { request: Connections::default().into(), limit, after }),
            Stage::Live => (JOURNAL, Question::MoreEvents),
            Stage::Begins | Stage::Over => return None,
        };
        self.is_asking = true;
        Some(question)
    }

    /// Whether there is something to ask, once there is room for the answer.
    pub fn is_ready(&self) -> bool {
        !self.is_asking && self.stage != Stage::Over
    }

    /// The answer to what was asked.
    pub fn hear(&mut self, answer: Answer, shards: usize) -> Option<Told> {
        self.is_asking = false;
        match (self.stage, answer) {
            (Stage::Begins, Answer::Following { epoch, number, is_snapshot }) => {
                self.stage = if is_snapshot { Stage::Channels } else { Stage::Live };
                Some(Told::Following { epoch, number, is_snapshot })
            }
            (Stage::Channels, Answer::Page { rows: Rows::Channels(channels), next }) => {
                self.channels += channels.len() as u64;
                self.turn(next, shards, Stage::Connections);
                Some(Told::Channels(channels))
            }
            (Stage::Connections, Answer::Page { rows: Rows::Connections(page), next }) => {
                self.connections += page.len() as u64;
                self.turn(next, shards, Stage::Live);
                let Follower { channels, connections, .. } = *self;
                Some(match self.stage {
                    Stage::Live => Told::SnapshotEnd { connections_page: page, channels, connections },
                    _ => Told::Connections(page),
                })
            }
            (Stage::Live, Answer::Events { number, events }) => Some(Told::Events { number, events }),
            (_, Answer::FellBehind { missing }) => self.end(Told::FellBehind { missing }),
            (_, Answer::NoMoreEvents) => self.end(Told::NoMore),
            _ => None,
        }
    }

    /// Whether all that it asks for is events.
    pub fn is_live(&self) -> bool {
        self.stage == Stage::Live
    }

    /// Whether nothing more is to be told.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Goes on with the next page: of the same shard, of the next one, or of the next stage.
    fn turn(&mut self, next: Option<u32>, shards: usize, then: Stage) {
        self.after = next.unwrap_or(0);
        if next.is_none() {
            self.shard += 1;
        }
        if usize::from(self.shard) == shards {
            (self.shard, self.stage) = (0, then);
        }
    }

    fn end(&mut self, told: Told) -> Option<Told> {
        self.stage = Stage::Over;
        Some(told)
    }
}

/// Lines of one page of a snapshot: some 150 KiB.
const PAGE_MAX: usize = 1000;
