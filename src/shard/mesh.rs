//! The mail between shards: bounded inboxes, backlogs for what does not fit, and doorbells that ring once a turn.

use crate::hub::mail::{Mail, ShardId};
use crate::hub::outgoing::{Outgoing, Post};
use crate::shard::doorbell::Doorbell;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// An inbox: `bounded` so that overload is felt by whoever causes it.
pub fn inbox() -> (Sender<Mail>, Receiver<Mail>) {
    bounded(INBOX_LETTERS)
}

/// One shard's place in the mesh.
pub struct Mesh {
    me: ShardId,
    inbox: Receiver<Mail>,
    outgoing: Outgoing,
    wire: Wire,
}

/// The way to the others; separate from [`Outgoing`] so that a backlog can be offered to it.
struct Wire {
    me: ShardId,
    inboxes: Box<[Sender<Mail>]>,
    doorbells: Arc<[Doorbell]>,
    /// Peers that were mailed since they were last rung.
    mailed: Box<[bool]>,
    /// Letters of the outgoing backlog that turned out to be for this shard.
    returned: VecDeque<Mail>,
    sent: u64,
    refused: u64,
}

impl Mesh {
    /// The place of shard `me`.
    pub fn new(me: ShardId, inbox: Receiver<Mail>, inboxes: Box<[Sender<Mail>]>, doorbells: Arc<[Doorbell]>) -> Mesh {
        let shards = inboxes.len();
        let mailed = vec![false; shards].into();
        let wire = Wire { me, inboxes, doorbells, mailed, returned: VecDeque::new(), sent: 0, refused: 0 };
        Mesh { me, inbox, outgoing: Outgoing::new(shards), wire }
    }

    /// Sends behind whatever waits for the same peer.
    pub fn send(&mut self, to: ShardId, mail: Mail) {
        self.outgoing.send(to, mail, &mut self.wire);
    }

    /// Sends once all that was sent before to each shard of `after` was taken.
    pub fn send_after(&mut self, after: &[ShardId], to: ShardId, mail: Mail) {
        self.outgoing.send_after(after, to, mail, &mut self.wire);
    }

    /// Says that the inbox is about to be looked at: whoever mails from now on rings again.
    pub fn look(&self) {
        self.wire.doorbells[usize::from(self.me)].look();
    }

    /// The next letter.
    pub fn receive(&mut self) -> Option<Mail> {
        self.wire.returned.pop_front().or_else(|| self.inbox.try_recv().ok())
    }

    /// Whether a letter lies in the inbox.
    pub fn has_mail(&self) -> bool {
        !self.wire.returned.is_empty() || !self.inbox.is_empty()
    }

    /// There is room in the inbox: wakes those who found none.
    pub fn call_refused(&mut self) -> io::Result<()> {
        self.wire.doorbells[usize::from(self.me)].call_refused(&self.wire.doorbells)
    }

    /// Offers the backlog again.
    pub fn retry(&mut self) {
        if self.outgoing.waiting() > 0 {
            self.outgoing.retry(&mut self.wire);
        }
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
            self.returned.push_back(mail);
            return Ok(());
        }
        let offered =
            self.doorbells[peer].offer(usize::from(self.me), mail, |mail| match self.inboxes[peer].try_send(mail) {
                // A shard that is gone has nobody left to deliver to.
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
