//! The state of one consumer of lifecycle events: its next question, and what an answer means. For a snapshot it asks all
//! shards page by page: first for the channels, then for the members of presence channels, then for the connections. After that
//! it keeps asking the journal for more.
//!
//! At most one question is open, and the next is asked once there is room for its answer. So a slow reader receives slowly.

use crate::api::Rows;
use crate::api::operation::Connections;
use crate::hub::mail::{Answer, Question};
use crate::hub::observe::journal::JOURNAL;
use crate::hub::observe::piece::Piece;
use crate::ids::ShardId;

/// One consumer: its stage, and its position in the snapshot.
pub struct Follower {
    stage: Stage,
    /// Where the next page of `shard` starts.
    after: u32,
    /// The shard that is asked for pages.
    shard: ShardId,
    /// Number of shards.
    shards: usize,
    /// Whether a question is open.
    is_asking: bool,
    /// Number of the snapshot.
    number: u64,
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
pub struct Update {
    /// The reply to its request: the epoch, and the number of the last event before those that follow.
    pub begins: Option<(u64, u64)>,
    /// What follows the reply.
    pub pieces: Vec<Piece>,
}

impl Follower {
    /// A new consumer, whose request was sent to the [`JOURNAL`] as [`Question::Follow`].
    pub fn new(shards: usize) -> Follower {
        Follower {
            stage: Stage::Begins,
            after: 0,
            shard: 0,
            shards,
            is_asking: true,
            number: 0,
            channels: 0,
            members: 0,
            connections: 0,
        }
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
    pub fn take_answer(&mut self, answer: Answer) -> Update {
        self.is_asking = false;
        let number = self.number;
        let pieces = match (self.stage, answer) {
            (Stage::Begins, Answer::Following { epoch, number, is_snapshot }) => {
                self.number = number;
                self.stage = if is_snapshot { Stage::Channels } else { Stage::Live };
                let pieces = if is_snapshot { vec![Piece::Snapshot { number }] } else { Vec::new() };
                return Update { begins: Some((epoch, number)), pieces };
            }
            (Stage::Channels, Answer::Page { rows: Rows::Channels(channels), next }) => {
                self.channels += channels.len() as u64;
                self.turn(next, Stage::Members);
                vec![Piece::Channels { number, channels }]
            }
            (Stage::Members, Answer::Members { members, next }) => {
                self.members += members.len() as u64;
                self.turn(next, Stage::Connections);
                vec![Piece::Members { number, members }]
            }
            (Stage::Connections, Answer::Page { rows: Rows::Connections(connections), next }) => {
                self.connections += connections.len() as u64;
                self.turn(next, Stage::Live);
                let mut pieces = vec![Piece::Connections { number, connections }];
                if self.is_live() {
                    let Follower { channels, members, connections, .. } = *self;
                    pieces.push(Piece::SnapshotEnd { number, channels, members, connections });
                }
                pieces
            }
            (Stage::Live, Answer::Events { events }) => vec![Piece::Events { events }],
            (_, Answer::FellBehind { missing }) => {
                self.stage = Stage::Over;
                vec![Piece::FellBehind { missing }]
            }
            (_, Answer::NoMoreEvents) => {
                self.stage = Stage::Over;
                Vec::new()
            }
            _ => Vec::new(),
        };
        Update { begins: None, pieces }
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
    fn turn(&mut self, next: Option<u32>, then: Stage) {
        self.after = next.unwrap_or(0);
        if next.is_none() {
            self.shard += 1;
        }
        if usize::from(self.shard) == self.shards {
            (self.shard, self.stage) = (0, then);
        }
    }
}

/// Most rows of one page of a snapshot: about 150 KiB of lines.
const PAGE_MAX: usize = 1000;
