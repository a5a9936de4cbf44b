//! Sends requests to the shards: a session with each, so that a publish goes to the shard that owns its channel.

use crate::admin::link::{Asked, Link, Opener, Outlet, Sent};
use crate::api::{Command, Publish, Published, Refusal, Reply, Request, Route};
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

/// The part of a message for one shard.
struct Part {
    shard: ShardId,
    /// Indices of its channels among those of the message.
    elements: Vec<usize>,
    asked: Asked,
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

    /// Publishes a message.
    pub async fn publish(&self, message: Publish<'static>) -> Result<Result<Published, Refusal>, Unavailable> {
        match self.publish_all(vec![message]).await? {
            Ok(mut published) => published.pop().map(Ok).ok_or(Unavailable::Closed),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// Publishes all of these messages, or none. Returns the answer to each.
    pub async fn publish_all(
        &self,
        messages: Vec<Publish<'static>>,
    ) -> Result<Result<Vec<Published>, Refusal>, Unavailable> {
        let lens: Vec<usize> = messages.iter().map(|message| message.channels.len() + message.users().len()).collect();
        let parts = messages.into_iter().enumerate();
        let parts =
            parts.flat_map(|(number, message)| self.by_owner(message).into_iter().map(move |part| (number, part)));
        let (asked, elements): (Vec<_>, Vec<_>) =
            parts.map(|(number, part)| ((part.shard, part.asked), (number, part.elements))).unzip();
        let mut published = vec![Published::default(); lens.len()];
        for (pending, (number, elements)) in self.send(asked)?.into_iter().zip(elements) {
            match pending.0.await {
                Ok(Ok(Reply::Published(part))) => add(&mut published[number], part, &elements, lens[number]),
                Ok(Err(refusal)) => return Ok(Err(refusal)),
                _ => return Err(Unavailable::Closed),
            }
        }
        Ok(Ok(published))
    }

    /// One message for each shard that owns some of the channels. A message for users goes to the first shard.
    fn by_owner(&self, mut message: Publish<'static>) -> Vec<Part> {
        let channels = std::mem::take(&mut message.channels);
        let mut by_owner = BTreeMap::<ShardId, (Publish<'static>, Vec<usize>)>::new();
        if channels.is_empty() {
            by_owner.insert(0, (message.clone(), (0..message.users().len()).collect()));
        }
        for (element, channel) in channels.into_iter().enumerate() {
            let owner = self.owner(&channel);
            let (part, elements) = by_owner.entry(owner).or_insert_with(|| (message.clone(), Vec::new()));
            part.channels.push(channel);
            elements.push(element);
        }
        let bytes = message.event.len() + message.data.as_ref().map_or(0, |data| data.len()) + OVERHEAD_BYTES;
        let part = |(shard, (publish, elements))| Part {
            shard,
            elements,
            asked: Asked { command: Command::Publish(publish), bytes },
        };
        by_owner.into_iter().map(part).collect()
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

/// Adds the answer to a part of a message that was published to `len` elements. `elements` are those of the part.
fn add(published: &mut Published, part: Published, elements: &[usize], len: usize) {
    published.subscribers += part.subscribers;
    published.placed = published.placed.or(part.placed);
    if !part.positions.is_empty() {
        published.positions.resize(len, None);
        elements.iter().zip(part.positions).for_each(|(&element, placed)| published.positions[element] = placed);
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
struct Replies(mpsc::UnboundedSender<Vec<Sent>>);

impl Outlet for Replies {
    fn take(&mut self, sent: Vec<Sent>) -> bool {
        self.0.send(sent).is_ok()
    }

    /// Requests are bounded, and so are their replies.
    fn has_room(&self) -> bool {
        true
    }
}

/// Gives each reply to the task that waits for it.
async fn distribute(mut replies: mpsc::UnboundedReceiver<Vec<Sent>>, outstanding: Arc<Mutex<Outstanding>>) {
    while let Some(sent) = replies.recv().await {
        let mut outstanding = lock(&outstanding);
        for sent in sent {
            if let Sent::Reply(reply) = sent
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
    use crate::api::publish::Placed;
    use std::borrow::Cow;
    use std::num::NonZeroU64;
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
        let data = Some(data.to_owned().into());
        Publish { channels, is_list: true, event: "e".into(), data, ..Publish::default() }
    }

    /// Answers each waiting request: a publish with the number of its channels, and their numbers as places. Returns the
    /// channels.
    fn answer(seat: &mut Seat) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(Asked { command, .. }) = seat.receive() {
            let reply = match command {
                Command::Publish(publish) => {
                    told.extend(publish.channels.iter().map(|name| name.to_string()));
                    let positions = publish.channels.iter().map(|name| place(name)).collect();
                    Reply::Published(Published { positions, ..Published::to(publish.channels.len() as u64) })
                }
                Command::Request(_) => Reply::Done {},
            };
            assert!(seat.send(vec![Sent::Reply(Ok(reply))]));
        }
        told
    }

    /// The place that [`answer`] gives to a channel named `cN`; none to every third one.
    fn place(name: &str) -> Option<Placed> {
        let offset = NonZeroU64::new(name[1..].parse().expect("a number")).filter(|offset| offset.get() % 3 != 0);
        offset.map(|offset| Placed { epoch: 1, offset: Some(offset), is_duplicate: false })
    }

    #[test]
    fn a_publish_goes_to_the_shards_that_own_its_channels() {
        run(4, async |shards, mut seats| {
            let names: Vec<String> = (0..40).map(|n| format!("c{n}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let published = tokio::spawn({
                let (shards, message) = (shards.clone(), message(&names, "1"));
                async move { shards.publish(message).await }
            });
            tokio::task::yield_now().await;
            for (shard, seat) in seats.iter_mut().enumerate() {
                let channels = answer(seat);
                assert!(!channels.is_empty());
                assert!(channels.iter().all(|name| usize::from(shards.owner(name)) == shard));
            }
            let positions = names.iter().map(|name| place(name)).collect();
            let expected = Published { positions, ..Published::to(40) };
            assert_eq!(published.await.expect("no panic"), Ok(Ok(expected)));
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
            let number = |subscribers| Sent::Reply(Ok(Reply::Published(Published::to(subscribers))));
            assert!(seats[0].send(vec![number(1), number(2), number(3)]));
            for (pending, expected) in [(first, 1), (last, 3)] {
                let reply = pending.0.await.expect("a reply");
                assert!(
                    matches!(&reply, Ok(Reply::Published(published)) if *published == Published::to(expected)),
                    "{reply:?}"
                );
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
                let parts = messages.flat_map(|message| shards.by_owner(message));
                shards.send(parts.map(|part| (part.shard, part.asked)).collect())
            };
            let pending = send(&vec![ours; REQUESTS_MAX]).expect("room");
            assert_eq!(send(&[other, ours]).err(), Some(Unavailable::Overloaded));
            assert!(!seats[1].has_request(), "the other shard has room, but must receive nothing");
            assert!(send(&[other]).is_ok());
            drop(pending);
        });
        run(1, async |shards, _seats| {
            let send = |data: &str| {
                let parts = shards.by_owner(message(&["c"], data));
                shards.send(parts.into_iter().map(|part| (part.shard, part.asked)).collect())
            };
            assert!(send(&"x".repeat(BYTES_MAX)).is_ok());
            assert_eq!(send("1").err(), Some(Unavailable::Overloaded));
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
            assert_eq!(shards.publish(message(&["c"], "1")).await.err(), Some(Unavailable::Closed));
        });
    }
}
