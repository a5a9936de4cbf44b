//! The mail between shards: bounded inboxes, backlogs for letters that do not fit, and doorbells that ring once a turn.

use crate::hub::mail::Mail;
use crate::hub::outgoing::{Outgoing, Post};
use crate::ids::ShardId;
use crate::shard::doorbell::Doorbell;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// An inbox. It is bounded, so that backpressure reaches the sender.
pub fn inbox() -> (Sender<Mail>, Receiver<Mail>) {
    bounded(INBOX_LETTERS)
}

/// One shard's place in the mesh.
pub struct Mesh {
    inbox: Receiver<Mail>,
    outgoing: Outgoing,
    wire: Wire,
}

/// The inboxes of the peers; separate from [`Outgoing`] so that a backlog can be offered to them.
struct Wire {
    me: ShardId,
    inboxes: Box<[Sender<Mail>]>,
    doorbells: Arc<[Doorbell]>,
    /// Peers that were mailed since they were last rung.
    mailed: Box<[bool]>,
    /// Letters to this shard itself. Each is due once `taken` has reached its number, so that it stays behind letters that lay
    /// in the inbox before.
    own: VecDeque<(u64, Mail)>,
    /// Letters taken from the inbox.
    taken: u64,
    sent: u64,
    refused: u64,
}

impl Mesh {
    /// The place of shard `me`. A peer has an inbox and a doorbell; every peer is a shard.
    pub fn new(me: ShardId, inbox: Receiver<Mail>, inboxes: Box<[Sender<Mail>]>, doorbells: Arc<[Doorbell]>) -> Mesh {
        let peers = inboxes.len();
        let mailed = vec![false; peers].into();
        let wire = Wire { me, inboxes, doorbells, mailed, own: VecDeque::new(), taken: 0, sent: 0, refused: 0 };
        Mesh { inbox, outgoing: Outgoing::new(peers), wire }
    }

    /// Sends behind the letters that wait for the same peer.
    pub fn send(&mut self, to: ShardId, mail: Mail) {
        self.outgoing.send(to, mail, &mut self.wire);
    }

    /// Sends once each shard of `after` has taken all that was sent to it before.
    pub fn send_after(&mut self, after: &[ShardId], to: ShardId, mail: Mail) {
        self.outgoing.send_after(after, to, mail, &mut self.wire);
    }

    /// Call this before the inbox is drained: a shard that mails from now on rings again.
    pub fn look(&self) {
        self.wire.doorbells[usize::from(self.wire.me)].look();
    }

    /// The next letter.
    pub fn receive(&mut self) -> Option<Mail> {
        if self.wire.own.front().is_none_or(|(behind, _)| *behind > self.wire.taken)
            && let Ok(mail) = self.inbox.try_recv()
        {
            self.wire.taken += 1;
            return Some(mail);
        }
        self.wire.own.pop_front().map(|(_, mail)| mail)
    }

    /// Whether a letter lies in the inbox.
    pub fn has_mail(&self) -> bool {
        !self.wire.own.is_empty() || !self.inbox.is_empty()
    }

    /// There is room in the inbox: wakes the shards that found none.
    pub fn call_refused(&mut self) -> io::Result<()> {
        self.wire.doorbells[usize::from(self.wire.me)].call_refused(&self.wire.doorbells)
    }

    /// Offers the backlog again.
    pub fn retry(&mut self) {
        self.outgoing.retry(&mut self.wire);
    }

    /// Wakes each peer that was mailed since the last call. Returns how many system calls that took.
    pub fn ring_mailed(&mut self) -> io::Result<u64> {
        let mut calls = 0;
        for (peer, mailed) in self.wire.mailed.iter_mut().enumerate() {
            if std::mem::take(mailed) {
                calls += u64::from(self.wire.doorbells[peer].ring()?);
            }
        }
        Ok(calls)
    }

    /// Letters that wait for room.
    pub fn waiting(&self) -> usize {
        self.outgoing.waiting()
    }

    /// Letters taken by inboxes, and refused, since the last call.
    pub fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.wire.sent), std::mem::take(&mut self.wire.refused))
    }
}

impl Post for Wire {
    fn offer(&mut self, to: ShardId, mail: Mail) -> Result<(), Mail> {
        let peer = usize::from(to);
        if to == self.me {
            self.own.push_back((self.taken + self.inboxes[peer].len() as u64, mail));
            return Ok(());
        }
        let offered =
            self.doorbells[peer].offer(usize::from(self.me), mail, |mail| match self.inboxes[peer].try_send(mail) {
                // A shard that has ended has no connections.
                Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
                Err(TrySendError::Full(mail)) => Err(mail),
            });
        match offered {
            Ok(()) => {
                self.sent += 1;
                self.mailed[peer] = true;
            }
            Err(_) => self.refused += 1,
        }
        offered
    }
}

/// Letters of an inbox.
pub const INBOX_LETTERS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::observe::extras::Extras;
    use mio::{Poll, Token, Waker};

    #[test]
    fn a_letter_to_oneself_is_behind_those_that_lie_in_the_inbox() {
        let polls = [Poll::new().expect("a poll"), Poll::new().expect("a poll")];
        let doorbell = |poll: &Poll| Doorbell::new(Waker::new(poll.registry(), Token(0)).expect("a waker"), 2);
        let doorbells: Arc<[Doorbell]> = polls.iter().map(doorbell).collect();
        let (inboxes, receivers): (Vec<_>, Vec<_>) = (0..2).map(|_| inbox()).unzip();
        let mut meshes: Vec<Mesh> = (0..2)
            .zip(receivers)
            .map(|(me, receiver)| Mesh::new(me, receiver, inboxes.clone().into(), doorbells.clone()))
            .collect();
        meshes[1].send(0, Mail::Listen(Extras::default()));
        meshes[0].send(0, Mail::Taken);
        meshes[1].send(0, Mail::Listening);
        let received: Vec<Mail> = std::iter::from_fn(|| meshes[0].receive()).collect();
        assert!(matches!(received[..], [Mail::Listen(_), Mail::Taken, Mail::Listening]));
        assert!(!meshes[0].has_mail());
    }
}
