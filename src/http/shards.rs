//! Sends requests to the shards: a session with each, so that a publish goes to the shard that owns its channel.

use crate::admin::link::{Asked, Link, Opener, Outlet, Said};
use crate::api::{Command, Publish, Refusal, Reply, Request, Route};
use crate::hub::placement::Placement;
use crate::ids::ShardId;
use crate::protocol::channel::Channel;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// A session with each shard. Clones share them.
#[derive(Clone)]
pub struct Shards(Arc<Inner>);

struct Inner {
    lines: Box<[Line]>,
    placement: Placement,
}

/// Why a request did not reach the shards. No part of it was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Too many requests are outstanding with a shard: [`REQUESTS_MAX`] or [`BYTES_MAX`].
    Overloaded,
    /// The shards have ended, or are about to end.
    Closed,
}

/// A session with one shard.
struct Line {
    link: Link,
    outstanding: Arc<Mutex<Outstanding>>,
}

#[derive(Default)]
struct Outstanding {
    /// Requests without a reply, oldest first.
    waiting: VecDeque<Waiting>,
    /// Their bytes.
    bytes: usize,
    is_closed: bool,
}

struct Waiting {
    bytes: usize,
    reply: oneshot::Sender<Result<Reply, Refusal>>,
}

/// The future reply to a request.
struct Pending(oneshot::Receiver<Result<Reply, Refusal>>);

impl Shards {
    /// Opens the sessions, and starts a task for the replies of each. Must be called on the runtime.
    pub fn open(opener: &Opener, placement: Placement) -> io::Result<Shards> {
        let lines = (0..placement.shards()).map(|shard| {
            let (sender, receiver) = mpsc::unbounded_channel();
            let outstanding = Arc::<Mutex<Outstanding>>::default();
            let link = opener(shard as ShardId, Box::new(Replies(sender)));
            tokio::spawn(distribute(receiver, outstanding.clone()));
            Some(Line { link: link?, outstanding })
        });
        match lines.collect() {
            Some(lines) => Ok(Shards(Arc::new(Inner { lines, placement }))),
            None => Err(io::Error::other("a shard has ended")),
        }
    }

    /// Asks one shard: the owner of the request's channel, or the first shard.
    pub async fn ask(&self, request: Request) -> Result<Result<Reply, Refusal>, Unavailable> {
        let shard = match request.route() {
            Ok(Route::Owner(channel)) => self.owner(channel),
            Ok(_) => 0,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let asked = Asked { command: Command::Request(request), bytes: OVERHEAD_BYTES };
        let pending = self.send(vec![(shard, asked)])?.pop().ok_or(Unavailable::Closed)?;
        pending.0.await.map_err(|_| Unavailable::Closed)
    }

    /// Publishes all of these messages, or none. Returns the number of their subscribers.
    pub async fn publish(&self, messages: Vec<Publish<'static>>) -> Result<u64, Unavailable> {
        let asked = messages.into_iter().flat_map(|message| self.by_owner(message)).collect();
        let mut sum = 0;
        for pending in self.send(asked)? {
            match pending.0.await {
                Ok(Ok(Reply::Published { subscribers })) => sum += subscribers,
                _ => return Err(Unavailable::Closed),
            }
        }
        Ok(sum)
    }

    /// One message for each shard that owns some of the channels.
    fn by_owner(&self, message: Publish<'static>) -> Vec<(ShardId, Asked)> {
        let Publish { channels, event, data, exclude } = message;
        let mut by_owner = BTreeMap::<ShardId, Publish<'static>>::new();
        for channel in channels {
            let owner = self.owner(&channel);
            let part = by_owner.entry(owner).or_insert_with(|| Publish {
                channels: Default::default(),
                event: event.clone(),
                data: data.clone(),
                exclude,
            });
            part.channels.push(channel);
        }
        let bytes = event.len() + data.as_ref().map_or(0, |data| data.len()) + OVERHEAD_BYTES;
        let asked = |publish: Publish<'static>| Asked { command: Command::Publish(publish), bytes };
        by_owner.into_iter().map(|(shard, part)| (shard, asked(part))).collect()
    }

    fn owner(&self, channel: &str) -> ShardId {
        let Inner { placement, .. } = &*self.0;
        Channel::parse(channel).map_or(0, |channel| placement.owner(placement.hash(channel)))
    }

    /// Sends all of these requests, or none: every shard concerned must have room.
    fn send(&self, requests: Vec<(ShardId, Asked)>) -> Result<Vec<Pending>, Unavailable> {
        let mut counts = BTreeMap::<ShardId, usize>::new();
        requests.iter().for_each(|(shard, _)| *counts.entry(*shard).or_default() += 1);
        // Locked in the order of the shards.
        let mut reserved = BTreeMap::new();
        for (shard, count) in counts {
            let outstanding = self.0.lines[usize::from(shard)].lock();
            if outstanding.is_closed {
                return Err(Unavailable::Closed);
            }
            if outstanding.waiting.len() + count > REQUESTS_MAX || outstanding.bytes > BYTES_MAX {
                return Err(Unavailable::Overloaded);
            }
            reserved.insert(shard, outstanding);
        }
        let mut pending = Vec::with_capacity(requests.len());
        for (shard, asked) in requests {
            let (sender, receiver) = oneshot::channel();
            if let Some(outstanding) = reserved.get_mut(&shard) {
                outstanding.bytes += asked.bytes;
                outstanding.waiting.push_back(Waiting { bytes: asked.bytes, reply: sender });
            }
            pending.push(Pending(receiver));
            // A shard that has ended closes the session, and its requests are refused.
            self.0.lines[usize::from(shard)].link.send(asked);
        }
        for shard in reserved.into_keys() {
            self.0.lines[usize::from(shard)].link.ring();
        }
        Ok(pending)
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Outstanding> {
        lock(&self.outstanding)
    }
}

fn lock(outstanding: &Mutex<Outstanding>) -> MutexGuard<'_, Outstanding> {
    outstanding.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the output of a shard: one message per turn.
struct Replies(mpsc::UnboundedSender<Vec<Said>>);

impl Outlet for Replies {
    fn take(&mut self, said: Vec<Said>) -> bool {
        self.0.send(said).is_ok()
    }

    /// Requests are bounded, and so are their replies.
    fn has_room(&self) -> bool {
        true
    }
}

/// Gives each reply to the task that waits for it.
async fn distribute(mut replies: mpsc::UnboundedReceiver<Vec<Said>>, outstanding: Arc<Mutex<Outstanding>>) {
    while let Some(said) = replies.recv().await {
        let mut outstanding = lock(&outstanding);
        for said in said {
            if let Said::Reply(reply) = said
                && let Some(Waiting { bytes, reply: waiting }) = outstanding.waiting.pop_front()
            {
                outstanding.bytes -= bytes;
                // Sending fails if the task no longer waits; the request was executed all the same.
                let _ = waiting.send(reply);
            }
        }
    }
    let mut outstanding = lock(&outstanding);
    outstanding.is_closed = true;
    outstanding.waiting.clear();
}

/// Most outstanding requests per shard. An HTTP connection has one, a batch of events up to ten.
pub const REQUESTS_MAX: usize = 1024;
/// Bytes of outstanding requests per shard from which the next one is refused.
pub const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Approximate memory of a request in addition to its event and data.
const OVERHEAD_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::link::{self, Seat};
    use crate::api::operation::Ping;
    use std::borrow::Cow;
    use std::sync::mpsc::{Receiver, channel};

    /// Sessions with shards that the script plays.
    fn run(shards: usize, script: impl AsyncFnOnce(Shards, Vec<Seat>)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let (opened, seats): (_, Receiver<Seat>) = channel();
            let opener: Opener = Arc::new(move |_, outlet| {
                let (link, seat) = link::link(Arc::new(|| ()), outlet);
                opened.send(seat).ok().map(|()| link)
            });
            let shards = Shards::open(&opener, Placement::new(0, shards, [1, 2, 3, 4])).expect("links");
            script(shards, seats.try_iter().collect()).await;
        });
    }

    fn message(channels: &[&str], data: &str) -> Publish<'static> {
        let channels = channels.iter().map(|name| Cow::Owned((*name).to_owned())).collect();
        Publish { channels, event: "e".into(), data: Some(data.to_owned().into()), exclude: None }
    }

    /// Answers each waiting request: a publish with the number of its channels. Returns the channels.
    fn answer(seat: &mut Seat) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(Asked { command, .. }) = seat.receive() {
            let reply = match command {
                Command::Publish(publish) => {
                    told.extend(publish.channels.iter().map(|name| name.to_string()));
                    Reply::Published { subscribers: publish.channels.len() as u64 }
                }
                Command::Request(_) => Reply::Done {},
            };
            assert!(seat.say(vec![Said::Reply(Ok(reply))]));
        }
        told
    }

    #[test]
    fn a_publish_goes_to_the_shards_that_own_its_channels() {
        run(4, async |shards, mut seats| {
            let names: Vec<String> = (0..40).map(|n| format!("c{n}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let published = tokio::spawn({
                let (shards, message) = (shards.clone(), message(&names, "1"));
                async move { shards.publish(vec![message]).await }
            });
            tokio::task::yield_now().await;
            for (shard, seat) in seats.iter_mut().enumerate() {
                let channels = answer(seat);
                assert!(!channels.is_empty());
                assert!(channels.iter().all(|name| usize::from(shards.owner(name)) == shard));
            }
            assert_eq!(published.await.expect("no panic"), Ok(40));
        });
    }

    #[test]
    fn replies_find_their_requests_in_order() {
        run(1, async |shards, mut seats| {
            let ask = |request: Request| {
                let asked = Asked { command: Command::Request(request), bytes: 1 };
                shards.send(vec![(0, asked)]).expect("room").remove(0)
            };
            let (first, dropped, last) = (ask(Ping {}.into()), ask(Ping {}.into()), ask(Ping {}.into()));
            drop(dropped);
            let number = |subscribers| Said::Reply(Ok(Reply::Published { subscribers }));
            assert!(seats[0].say(vec![number(1), number(2), number(3)]));
            for (pending, expected) in [(first, 1), (last, 3)] {
                let reply = pending.0.await.expect("a reply");
                assert!(matches!(reply, Ok(Reply::Published { subscribers }) if subscribers == expected), "{reply:?}");
            }
            assert_eq!(shards.0.lines[0].lock().bytes, 0);
        });
    }

    #[test]
    fn a_batch_is_sent_whole_or_not_at_all() {
        run(2, async |shards, seats| {
            let names: Vec<String> = (0..100).map(|n| format!("c{n}")).collect();
            let of =
                |shard: ShardId| names.iter().find(|name| shards.owner(name) == shard).expect("a channel").as_str();
            let (ours, other) = (of(0), of(1));
            let send = |names: &[&str]| {
                let messages = names.iter().map(|name| message(&[*name], "1"));
                shards.send(messages.flat_map(|message| shards.by_owner(message)).collect())
            };
            let pending = send(&vec![ours; REQUESTS_MAX]).expect("room");
            assert_eq!(send(&[other, ours]).err(), Some(Unavailable::Overloaded));
            assert!(!seats[1].has_request(), "the other shard has room, but must receive nothing");
            assert!(send(&[other]).is_ok());
            drop(pending);
        });
        run(1, async |shards, _seats| {
            let large = message(&["c"], &"x".repeat(BYTES_MAX));
            assert!(shards.send(shards.by_owner(large)).is_ok());
            assert_eq!(shards.send(shards.by_owner(message(&["c"], "1"))).err(), Some(Unavailable::Overloaded));
        });
    }

    #[test]
    fn the_end_of_a_shard_ends_what_waits_for_it() {
        run(1, async |shards, seats| {
            let asked = tokio::spawn({
                let shards = shards.clone();
                async move { shards.ask(Ping {}.into()).await.err() }
            });
            tokio::task::yield_now().await;
            drop(seats);
            assert_eq!(asked.await.expect("no panic"), Some(Unavailable::Closed));
            assert_eq!(shards.publish(vec![message(&["c"], "1")]).await.err(), Some(Unavailable::Closed));
        });
    }
}
