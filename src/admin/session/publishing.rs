//! The publishes of a session: the parts of the answer, as the owners of the channels settle them.

use super::codec::Codec;
use super::{Session, State};
use crate::api::publish::Placed;
use crate::api::{Publish, Published, Refusal, Reply};
use crate::hub::mail::Settled;
use crate::hub::message::Message;
use crate::hub::{Hub, Port, Submission};
use crate::ids::Asker;
use crate::protocol::channel::{Channel, ChannelName};
use smallvec::SmallVec;
use std::borrow::Cow;

/// A publish that is not settled.
pub(super) struct Tally {
    /// Parts that are missing: see [`Settled`].
    parts: u32,
    subscribers: i64,
    /// Its approximate memory.
    pub(super) bytes: usize,
    /// Of a publish to one channel.
    placed: Option<Placed>,
    /// Of a publish to a list.
    positions: Option<Positions>,
}

/// The places of a publish to a list.
struct Positions {
    /// For each element as written: its number among the distinct ones.
    numbers: Box<[u8]>,
    /// The places of the distinct elements. Empty if none has a place.
    places: Vec<Option<Placed>>,
}

impl Tally {
    fn new<T: PartialEq>(names: &[T], is_list: bool, parts: u32, bytes: usize) -> Tally {
        let positions = is_list.then(|| Positions::of(names));
        Tally { parts, subscribers: 0, bytes, placed: None, positions }
    }

    /// Adds a part. Returns whether it was the last one.
    fn add(&mut self, settled: Settled) -> bool {
        let Settled { parts, subscribers, index, placed } = settled;
        self.parts -= parts;
        self.subscribers += subscribers;
        match &mut self.positions {
            Some(positions) if placed.is_some() => positions.set(index, placed),
            _ => self.placed = self.placed.or(placed),
        }
        self.parts == 0
    }

    fn published(&self) -> Published {
        let positions = self.positions.as_ref().map(Positions::each).unwrap_or_default();
        Published { subscribers: self.subscribers.max(0) as u64, placed: self.placed, positions }
    }
}

impl Positions {
    fn of<T: PartialEq>(written: &[T]) -> Positions {
        let mut distinct: Vec<&T> = Vec::new();
        let numbers = written.iter().map(|name| {
            let number = distinct.iter().position(|known| *known == name).unwrap_or_else(|| {
                distinct.push(name);
                distinct.len() - 1
            });
            number as u8
        });
        Positions { numbers: numbers.collect(), places: Vec::new() }
    }

    fn set(&mut self, index: u8, placed: Option<Placed>) {
        self.places.resize(self.numbers.len(), None);
        self.places[usize::from(index)] = placed;
    }

    /// For each element as written; empty if no element has a place.
    fn each(&self) -> Vec<Option<Placed>> {
        let place = |number: &u8| self.places.get(usize::from(*number)).copied();
        self.numbers.iter().filter_map(place).collect()
    }
}

/// The names of the channels of users.
#[cold]
fn user_channels<'a>(ids: &[Cow<'a, str>]) -> SmallVec<[Cow<'a, str>; 1]> {
    ids.iter().map(|id| ChannelName::of_user(id).as_channel().as_str().to_owned().into()).collect()
}

/// The channels. One that is named twice counts once.
fn distinct<'a>(channels: &'a [Cow<'_, str>]) -> Vec<Channel<'a>> {
    let is_first = |at: &usize| !channels[..*at].contains(&channels[*at]);
    (0..channels.len()).filter(is_first).map(|at| Channel::of_legal(&channels[at])).collect()
}

impl<C: Codec> Session<C> {
    pub(super) fn publish(
        &mut self,
        tag: C::Tag<'_>,
        publish: &Publish<'_>,
        hub: &mut Hub,
        port: &mut impl Port,
    ) -> Result<(), Refusal> {
        let Publish { channels, event, data, .. } = publish;
        let users;
        let (mut channels, mut dedupe) = (channels, None);
        let mut message = Message { event, data: data.as_deref(), ..Message::default() };
        if let Some(more) = &publish.more {
            dedupe = more.dedupe.as_deref();
            (message.key, message.text) = (more.key.as_deref(), more.text.as_text());
            if !more.users.is_empty() {
                users = user_channels(&more.users);
                channels = &users;
            }
        }
        let exclude = publish.exclude.and_then(|id| hub.key_of(id));
        let (one, several);
        let distinct = match &channels[..] {
            [only] => {
                one = Channel::of_legal(only);
                std::slice::from_ref(&one)
            }
            _ => {
                several = distinct(channels);
                &several
            }
        };
        let parts = distinct.len() as u32 * if exclude.is_some() { 2 } else { 1 };
        let bytes = (event.len() + message.data.map_or(0, str::len) + OVERHEAD_BYTES) * distinct.len();
        let asker = self.asker();
        let submission = Submission { message, exclude, dedupe };
        let settled = hub.publish(distinct, &submission, asker, port);
        let is_plain = !publish.is_list || settled.placed.is_none();
        if self.waiting.is_empty() && settled.parts == parts && is_plain {
            C::published(&mut self.output, tag, settled.subscribers as u64, settled.placed);
            return Ok(());
        }
        self.wait(tag, State::Publish(Tally::new(channels, publish.is_list, parts, bytes)));
        self.settle(asker, settled);
        Ok(())
    }

    /// A part of a publish is settled. Never called during [`Session::request`], which adds the request only at its end.
    pub fn settle(&mut self, asker: Asker, settled: Settled) {
        let Some(waiting) = self.at(asker) else { return };
        let State::Publish(tally) = &mut waiting.state else {
            return;
        };
        if !tally.add(settled) {
            return;
        }
        let (published, bytes) = (tally.published(), tally.bytes);
        self.unsettled -= 1;
        self.unsettled_bytes -= bytes;
        self.finish(asker, Ok(Reply::Published(published)));
    }
}

/// Approximate memory of a publish in addition to its event and data: names, counts, header.
const OVERHEAD_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU64;

    fn placed(offset: u64) -> Option<Placed> {
        Some(Placed { epoch: 1, offset: NonZeroU64::new(offset), is_duplicate: false })
    }

    fn part(index: u8, subscribers: i64, placed: Option<Placed>) -> Settled {
        Settled { parts: 1, subscribers, index, placed }
    }

    fn tally(channels: &[&'static str], is_list: bool, parts: u32) -> Tally {
        Tally::new(channels, is_list, parts, 0)
    }

    #[test]
    fn each_element_of_a_list_has_a_position() {
        let mut tally = tally(&["a", "b", "a", "c"], true, 3);
        assert!(!tally.add(part(2, 1, placed(7))));
        assert!(!tally.add(part(1, 2, None)));
        assert!(tally.add(part(0, 3, placed(9))));
        let positions = vec![placed(9), None, placed(9), placed(7)];
        assert_eq!(tally.published(), Published { subscribers: 6, placed: None, positions });
    }

    #[test]
    fn a_list_of_channels_without_history_has_no_positions() {
        let mut tally = tally(&["a", "b"], true, 2);
        assert!(!tally.add(part(0, 1, None)));
        assert!(tally.add(part(1, 1, None)));
        assert_eq!(tally.published(), Published::to(2));
    }

    #[test]
    fn one_channel_has_the_place_of_its_only_placed_part() {
        for order in [[placed(7), None], [None, placed(7)]] {
            let mut tally = tally(&["a"], false, 2);
            let [first, second] = order.map(|placed| part(0, 2, placed));
            assert!(!tally.add(first));
            assert!(tally.add(Settled { subscribers: -1, ..second }));
            assert_eq!(tally.published(), Published { placed: placed(7), ..Published::to(1) });
        }
    }
}
