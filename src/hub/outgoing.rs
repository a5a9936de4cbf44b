//! Letters that a full inbox refused: kept in order per peer, and offered again once the peer has room.
//!
//! Sending never blocks and never drops a letter. The backlog is bounded: a publish is acknowledged only after every shard
//! concerned has taken its letters ([`Outgoing::send_after`]), and the number of unacknowledged publishes is limited.

use crate::hub::mail::Mail;
use crate::ids::ShardId;
use smallvec::SmallVec;
use std::collections::VecDeque;

/// Backlogs of one shard, one per peer.
pub struct Outgoing {
    peers: Box<[VecDeque<Parcel>]>,
    waiting: usize,
}

/// The inboxes of the peers.
pub trait Post {
    /// Offers a letter to shard `to`. `Err` returns it, because the inbox is full.
    fn offer(&mut self, to: ShardId, mail: Mail) -> Result<(), Mail>;
}

enum Parcel {
    Mail(Mail),
    /// A letter to another shard, which waits until this peer has taken all letters before the marker.
    Marker(Box<Marker>),
}

struct Marker {
    /// The peers whose backlogs it has yet to wait for.
    then: SmallVec<[ShardId; 8]>,
    to: ShardId,
    mail: Mail,
}

impl Outgoing {
    /// Empty backlogs for `shards` peers.
    pub fn new(shards: usize) -> Outgoing {
        Outgoing { peers: (0..shards).map(|_| VecDeque::new()).collect(), waiting: 0 }
    }

    /// Sends a letter, after those that wait for the same peer.
    pub fn send(&mut self, to: ShardId, mail: Mail, post: &mut impl Post) {
        let backlog = &mut self.peers[usize::from(to)];
        let refused = if backlog.is_empty() { post.offer(to, mail).err() } else { Some(mail) };
        if let Some(mail) = refused {
            backlog.push_back(Parcel::Mail(mail));
            self.waiting += 1;
        }
    }

    /// Sends a letter once the inboxes of the shards `after` have taken all letters sent to them before.
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

    /// Number of letters that wait.
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

    /// Appends the marker to the next backlog that it has to wait for, or sends its letter if there is none.
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

    /// Peers with limited room, and the letters that they took, in order. Letters carry a number.
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
        Mail::Settled(asker, Settled { parts: 1, ..Settled::default() })
    }

    fn number(mail: &Mail) -> u64 {
        match mail {
            Mail::Settled(asker, _) => asker.request,
            other => panic!("{other:?} was not sent by this test"),
        }
    }

    fn peers(room: &[usize]) -> (Outgoing, Peers) {
        (Outgoing::new(room.len()), Peers { room: room.to_vec(), taken: Vec::new() })
    }

    #[test]
    fn refused_letters_wait_in_order() {
        let (mut outgoing, mut peers) = peers(&[1, 9]);
        (0..4).for_each(|n| outgoing.send(0, letter(n), &mut peers));
        outgoing.send(1, letter(4), &mut peers);
        assert_eq!(peers.taken, [(0, 0), (1, 4)], "a full peer does not delay another");
        assert_eq!(outgoing.waiting(), 3);

        peers.room[0] = 2;
        outgoing.send(0, letter(5), &mut peers);
        assert_eq!(outgoing.waiting(), 4, "room in the inbox does not let a letter overtake the backlog");
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
        assert_eq!(peers.taken, [(0, 4)], "a letter that waits for other peers does not delay later letters");

        peers.room[2] = 1;
        outgoing.retry(&mut peers);
        assert_eq!(peers.taken, [(0, 4), (2, 2)], "peer 1 has not taken its letter");
        peers.room[1] = 1;
        outgoing.retry(&mut peers);
        assert_eq!(peers.taken, [(0, 4), (2, 2), (1, 1), (0, 3)]);
        assert_eq!(outgoing.waiting(), 0);
    }

    #[test]
    fn a_refused_letter_of_send_after_waits_for_its_receiver() {
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
    fn send_after_without_a_backlog_sends_at_once() {
        let (mut outgoing, mut peers) = peers(&[1, 0]);
        outgoing.send_after(&[1], 0, letter(1), &mut peers);
        assert_eq!((&peers.taken[..], outgoing.waiting()), (&[(0, 1)][..], 0));
    }
}
