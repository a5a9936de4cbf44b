//! What the hub has for the admin sessions of a shard, and for the shard itself on their behalf.

use crate::hub::mail::{Answer, Question, Settled};
use crate::ids::Asker;

/// Collected while the hub runs, and handed over by the turn.
#[derive(Default)]
pub struct AdminLetters {
    /// Questions that only the owner of sockets can answer.
    pub questions: Vec<(Asker, Question)>,
    /// Answers for this shard's admin sessions.
    pub answers: Vec<(Asker, Answer)>,
    /// Settled publishes of this shard's admin sessions.
    pub settled: Vec<(Asker, Settled)>,
}

impl AdminLetters {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.questions.is_empty() && self.answers.is_empty() && self.settled.is_empty()
    }
}
