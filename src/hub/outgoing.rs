//! Mail that a full inbox refused: kept in order per peer, offered again when the peer has room.
//!
//! Nothing here blocks and nothing is dropped. It stays bounded because a publish is acknowledged only after every shard
//! concerned has taken its mail ([`Outgoing::send_after`]) and publishers have a window of unacknowledged publishes.

use crate::hub::mail::{Mail, ShardId};
use smallvec::SmallVec;
use std::collections::VecDeque;

/// Backlogs of one shard, one per peer.
pub struct Outgoing {
    peers: Box<[VecDeque<Parcel>]>,
    waiting: usize,
}

/// Where mail is offered: `Err` gives it back, because the peer's inbox is full.
pub trait Post {
    /// Offers `mail` to shard `to`.
    fn offer(&mut self, to: ShardId, mail: Mail) -> Result<(), Mail>;
}

enum Parcel {
    Mail(Mail),
    /// Not for this peer: it waits here until all that stands before it was taken.
    Marker(Box<Marker>),
}

struct Marker {
    then: SmallVec<[ShardId; 8]>,
    to: ShardId,
    mail: Mail,
}

impl Outgoing {
    /// Empty backlogs for `shards` peers.
    pub fn new(shards: usize) -> Outgoing {
        Outgoing { peers: (0..shards).map(|_| VecDeque::new()).collect(), waiting: 0 }
    }

    /// Sends, behind whatever waits for the same peer.
    pub fn send(&mut self, to: ShardId, mail: Mail, post: &mut impl Post) {
        let backlog = &mut self.peers[usize::from(to)];
        let refused = if backlog.is_empty() { post.offer(to, mail).err() } else { Some(mail) };
        if let Some(mail) = refused {
            backlog.push_back(Parcel::Mail(mail));
            self.waiting += 1;
        }
    }

    /// Sends once everything sent before to each shard of `after` has been taken by its inbox.
    pub fn send_after(&mut self, after: &[ShardId], to: ShardId, mail: Mail, post: &mut impl Post) {
        if self.waiting == 0 {
            return self.send(to, mail, post);
        }
        self.advance(Box::new(Marker { then: after.into(), to, mail }), post);
    }

    /// Offers the backlogs again.
    pub fn retry(&mut self, post: &mut impl Post) {
        for peer in 0..self.peers.len() {
            if self.waiting == 0 {
                return;
            }
            self.retry_peer(peer, post);
        }
    }

    /// Letters that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    fn retry_peer(&mut self, peer: usize, post: &mut impl Post) {
        while let Some(parcel) = self.peers[peer].pop_front() {
            match parcel {
                Parcel::Mail(mail) => {
                    if let Err(mail) = post.offer(peer as ShardId, mail) {
                        self.peers[peer].push_front(Parcel::Mail(mail));
                        return;
                    }
                    self.waiting -= 1;
                }
                Parcel::Marker(marker) => {
                    self.waiting -= 1;
                    self.advance(marker, post);
                }
            }
        }
    }

    /// Puts the marker behind the next backlog that it has to wait for, or sends it where there is none.
    fn advance(&mut self, mut marker: Box<Marker>, post: &mut impl Post) {
        while let Some(peer) = marker.then.pop() {
            let backlog = &mut self.peers[usize::from(peer)];
            if !backlog.is_empty() {
                backlog.push_back(Parcel::Marker(marker));
                self.waiting += 1;
                return;
            }
        }
        self.send(marker.to, marker.mail, post);
    }
}
