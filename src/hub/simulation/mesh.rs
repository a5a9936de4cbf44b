//! Bounded queues between shards, and the environment of a hub.

use super::model;
use crate::hub::admission::addresses::Verdict;
use crate::hub::audience::pages::{Chunk, Pages};
use crate::hub::mail::{Answer, Arrival, Delivery, Mail, Question, Settled};
use crate::hub::outgoing::{Outgoing, Post};
use crate::hub::{Port, Urgency};
use crate::ids::{Asker, ShardId, Slot};
use crate::protocol::close::CloseReason;
use std::collections::VecDeque;

/// One queue per sender and receiver, because the real mesh keeps only the order within each such pair.
pub struct Mesh {
    shards: usize,
    queues: Vec<Queue>,
    /// By message: number of letters that the owner has sent and no queue has taken.
    pub unaccepted: Vec<u32>,
    pub unaccepted_total: usize,
}

struct Queue {
    letters: VecDeque<Mail>,
    capacity: usize,
}

impl Mesh {
    /// `capacity` is asked once per queue.
    pub fn new(shards: usize, mut capacity: impl FnMut() -> usize) -> Mesh {
        let mut queue = || Queue { letters: VecDeque::new(), capacity: capacity() };
        Mesh {
            shards,
            queues: (0..shards * shards).map(|_| queue()).collect(),
            unaccepted: Vec::new(),
            unaccepted_total: 0,
        }
    }

    /// Takes the next letter of this sender to this receiver.
    pub fn take(&mut self, from: usize, to: usize) -> Option<Mail> {
        self.queues[from * self.shards + to].letters.pop_front()
    }

    /// Senders with letters for this receiver.
    pub fn senders(&self, to: usize) -> Vec<usize> {
        let has_mail = |from: &usize| !self.queues[from * self.shards + to].letters.is_empty();
        (0..self.shards).filter(has_mail).collect()
    }

    pub fn inboxes(&mut self, from: ShardId) -> Inboxes<'_> {
        Inboxes { from, mesh: self }
    }
}

/// The queues of one sender.
pub struct Inboxes<'a> {
    from: ShardId,
    mesh: &'a mut Mesh,
}

impl Post for Inboxes<'_> {
    fn offer(&mut self, to: ShardId, mail: Mail) -> Result<(), Mail> {
        let at = usize::from(self.from) * self.mesh.shards + usize::from(to);
        let queue = &mut self.mesh.queues[at];
        if queue.letters.len() >= queue.capacity {
            return Err(mail);
        }
        if let Mail::Deliver(Delivery { payload, .. }) = &mail
            && let Some(number) = model::message_of(payload)
        {
            self.mesh.unaccepted[number] -= 1;
            self.mesh.unaccepted_total -= 1;
        }
        queue.letters.push_back(mail);
        Ok(())
    }
}

/// One effect of a hub.
pub enum Effect {
    Appended(Slot, Box<[u8]>),
    Asked(Asker, Box<Question>),
    Answered(Asker, Box<Answer>),
    Settled(Asker, Settled),
    Admitted(Arrival, Verdict),
    /// Messages are held back for the connection, for which this many bytes wait.
    HeldBack(Slot, usize),
    Closed(Slot),
}

/// One connection's output: chunks that are not written yet, each with its bytes when it was appended.
#[derive(Default)]
pub struct Wire {
    /// The client that has the connection now.
    pub client: Option<usize>,
    /// Whether messages are held back for it.
    pub is_lagging: bool,
    pub queue: VecDeque<(Chunk, Box<[u8]>)>,
}

impl Wire {
    /// Writes one chunk.
    pub fn write(&mut self, pages: &mut Pages) {
        if let Some((chunk, appended)) = self.queue.pop_front() {
            assert!(pages.bytes(chunk) == &*appended, "the page of a waiting chunk changed");
            pages.release(chunk.page);
        }
    }
}

/// The shard around a hub, reduced to what the simulation needs.
pub struct TestPort<'a> {
    pub shard: ShardId,
    pub mesh: &'a mut Mesh,
    pub outgoing: &'a mut Outgoing,
    pub wires: &'a mut [Wire],
    pub effects: &'a mut Vec<Effect>,
}

impl Port for TestPort<'_> {
    fn append(&mut self, pages: &mut Pages, slot: Slot, chunk: Chunk, _: Urgency) {
        assert!(!chunk.is_empty(), "an empty chunk was appended");
        let bytes: Box<[u8]> = pages.bytes(chunk).into();
        pages.hold(chunk.page);
        self.wires[slot as usize].queue.push_back((chunk, bytes.clone()));
        self.effects.push(Effect::Appended(slot, bytes));
    }

    fn mail(&mut self, to: ShardId, mail: Mail) {
        assert_ne!(to, self.shard, "a letter to the hub itself must not leave it");
        if let Mail::Deliver(Delivery { payload, .. }) = &mail
            && let Some(number) = model::message_of(payload)
        {
            self.mesh.unaccepted[number] += 1;
            self.mesh.unaccepted_total += 1;
        }
        self.outgoing.send(to, mail, &mut self.mesh.inboxes(self.shard));
    }

    fn mail_after(&mut self, after: &[ShardId], to: ShardId, mail: Mail) {
        self.outgoing.send_after(after, to, mail, &mut self.mesh.inboxes(self.shard));
    }

    fn ask(&mut self, asker: Asker, question: Question) {
        self.effects.push(Effect::Asked(asker, Box::new(question)));
    }

    fn answer_admin(&mut self, asker: Asker, answer: Answer) {
        assert_eq!(asker.shard, self.shard, "an answer reached the wrong shard");
        self.effects.push(Effect::Answered(asker, Box::new(answer)));
    }

    fn settle(&mut self, asker: Asker, settled: Settled) {
        assert_eq!(asker.shard, self.shard, "a settled part reached the wrong shard");
        self.effects.push(Effect::Settled(asker, settled));
    }

    fn admit(&mut self, arrival: Arrival, verdict: Verdict) {
        self.effects.push(Effect::Admitted(arrival, verdict));
    }

    fn waiting(&self, slot: Slot) -> usize {
        self.wires[slot as usize].queue.iter().map(|(chunk, _)| chunk.len()).sum()
    }

    fn hold_back(&mut self, slot: Slot) {
        self.effects.push(Effect::HeldBack(slot, self.waiting(slot)));
    }

    fn close(&mut self, slot: Slot, _: CloseReason) {
        self.effects.push(Effect::Closed(slot));
    }
}
