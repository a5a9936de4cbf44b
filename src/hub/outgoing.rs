//! Mail that a full inbox refused: kept in order per peer, offered again when the peer has room.
//!
//! Nothing here blocks and nothing is dropped. It stays bounded because a publish is acknowledged only after every shard
//! concerned has taken its mail ([`Outgoing::send_after`]) and publishers have a window of unacknowledged publishes.

use crate::hub::mail::Mail;
use crate::ids::ShardId;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::mail::Settled;
    use crate::ids::Asker;

    /// Peers that take as many letters as they have room for, and what they took, in order. Letters carry a number.
    struct Peers {
        room: Vec<usize>,
        taken: Vec<(ShardId, u64)>,
    }

    impl Post for Peers {
        fn offer(&mut self, to: ShardId, mail: Mail) -> Result<(), Mail> {
            let room = &mut self.room[usize::from(to)];
            if *room == 0 {
                return Err(mail);
            }
            *room -= 1;
            self.taken.push((to, number(&mail)));
            Ok(())
        }
    }

    fn letter(number: u64) -> Mail {
        let asker = Asker { shard: 0, session: 0, generation: 0, request: number };
        Mail::Settled(asker, Settled { parts: 1, subscribers: 0 })
    }

    fn number(mail: &Mail) -> u64 {
        match mail {
            Mail::Settled(asker, _) => asker.request,
            other => panic!("{other:?} was never sent"),
        }
    }

    fn peers(room: &[usize]) -> (Outgoing, Peers) {
        (Outgoing::new(room.len()), Peers { room: room.to_vec(), taken: Vec::new() })
    }

    #[test]
    fn what_is_refused_waits_in_order() {
        let (mut outgoing, mut peers) = peers(&[1, 9]);
        (0..4).for_each(|n| outgoing.send(0, letter(n), &mut peers));
        outgoing.send(1, letter(4), &mut peers);
        assert_eq!(peers.taken, [(0, 0), (1, 4)], "one full peer does not hold up another");
        assert_eq!(outgoing.waiting(), 3);

        peers.room[0] = 2;
        outgoing.send(0, letter(5), &mut peers);
        assert_eq!(outgoing.waiting(), 4, "room alone lets nobody overtake");
        outgoing.retry(&mut peers);
        peers.room[0] = 9;
        outgoing.retry(&mut peers);
        assert_eq!(peers.taken, [(0, 0), (1, 4), (0, 1), (0, 2), (0, 3), (0, 5)]);
        assert_eq!(outgoing.waiting(), 0);
    }

    #[test]
    fn send_after_waits_for_every_peer() {
        let (mut outgoing, mut peers) = peers(&[9, 0, 0]);
        outgoing.send(1, letter(1), &mut peers);
        outgoing.send(2, letter(2), &mut peers);
        outgoing.send_after(&[1, 2], 0, letter(3), &mut peers);
        outgoing.send(0, letter(4), &mut peers);
        assert_eq!(peers.taken, [(0, 4)], "what waits for others is not in the way");

        peers.room[2] = 1;
        outgoing.retry(&mut peers);
        assert_eq!(peers.taken, [(0, 4), (2, 2)], "peer 1 has not taken its letter");
        peers.room[1] = 1;
        outgoing.retry(&mut peers);
        assert_eq!(peers.taken, [(0, 4), (2, 2), (1, 1), (0, 3)]);
        assert_eq!(outgoing.waiting(), 0);
    }

    #[test]
    fn send_after_that_is_refused_itself_waits_for_its_receiver() {
        let (mut outgoing, mut peers) = peers(&[0, 0]);
        outgoing.send(1, letter(1), &mut peers);
        outgoing.send_after(&[1], 0, letter(2), &mut peers);
        peers.room[1] = 1;
        outgoing.retry(&mut peers);
        assert_eq!((&peers.taken[..], outgoing.waiting()), (&[(1, 1)][..], 1));
        peers.room[0] = 1;
        outgoing.retry(&mut peers);
        assert_eq!((&peers.taken[..], outgoing.waiting()), (&[(1, 1), (0, 2)][..], 0));
    }

    #[test]
    fn send_after_with_nothing_before_it_goes_at_once() {
        let (mut outgoing, mut peers) = peers(&[1, 0]);
        outgoing.send_after(&[1], 0, letter(1), &mut peers);
        assert_eq!((&peers.taken[..], outgoing.waiting()), (&[(0, 1)][..], 0));
    }
}
