//! What the hub sends to a shard's admin sessions, and the questions that it passes to the shard for them.

use crate::hub::mail::{Answer, Question, Settled};
use crate::ids::Asker;

/// Collected while the hub runs; the turn hands them over.
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
    /// Whether all lists are empty.
    pub fn is_empty(&self) -> bool {
        self.questions.is_empty() && self.answers.is_empty() && self.settled.is_empty()
    }
}
