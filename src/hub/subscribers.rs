//! This shard's connections, by channel, and what the turn has for each channel.

use crate::hub::mail::Slot;
use crate::hub::pages::{PageId, Pages};
use crate::protocol::channel::{Channel, ChannelName};
use hashbrown::HashTable;
use slab::Slab;
use smallvec::SmallVec;

/// A channel that connections of this shard are in, or are about to enter or leave.
pub struct Local {
    /// Its name.
    pub name: ChannelName,
    /// Hash of the name.
    pub hash: u64,
    /// Connections that the owner has counted in.
    pub subscribers: SmallVec<[Subscriber; 2]>,
    /// Members that refer to this entry, live or not.
    pub interest: u32,
    /// The page that the turn's messages are laid out in.
    pub page: Option<PageId>,
}

/// A live subscriber.
#[derive(Clone, Copy)]
pub struct Subscriber {
    /// The connection.
    pub slot: Slot,
    /// Where in the turn's page its part begins.
    pub from: u32,
}

/// The channels of one shard's connections.
#[derive(Default)]
pub struct Subscribers {
    locals: Slab<Local>,
    by_name: HashTable<u32>,
    touched: Vec<u32>,
    /// Live subscriptions, all channels.
    live: usize,
}

impl Subscribers {
    /// The channel's index, if a connection of this shard has to do with it.
    pub fn find(&self, channel: Channel<'_>, hash: u64) -> Option<u32> {
        self.by_name.find(hash, |&index| self.locals[index as usize].name.as_channel() == channel).copied()
    }

    /// The channel's index, entered if it was not there. The caller adds its interest.
    pub fn find_or_enter(&mut self, channel: Channel<'_>, hash: u64) -> u32 {
        if let Some(index) = self.find(channel, hash) {
            return index;
        }
        let Subscribers { locals, by_name, .. } = self;
        let entry = Local { name: channel.into(), hash, subscribers: SmallVec::new(), interest: 0, page: None };
        let index = locals.insert(entry) as u32;
        by_name.insert_unique(hash, index, |&index| locals[index as usize].hash);
        index
    }

    /// The entry.
    pub fn get(&self, index: u32) -> &Local {
        &self.locals[index as usize]
    }

    /// The entry.
    pub fn get_mut(&mut self, index: u32) -> &mut Local {
        &mut self.locals[index as usize]
    }

    /// Adds a live subscriber. Returns its position.
    pub fn add(&mut self, index: u32, subscriber: Subscriber) -> u32 {
        let subscribers = &mut self.get_mut(index).subscribers;
        subscribers.push(subscriber);
        let position = subscribers.len() as u32 - 1;
        self.live += 1;
        position
    }

    /// Takes a live subscriber out. Returns the connection that has its position now.
    pub fn remove(&mut self, index: u32, position: u32) -> Option<Slot> {
        let subscribers = &mut self.get_mut(index).subscribers;
        subscribers.swap_remove(position as usize);
        let moved = subscribers.get(position as usize).map(|subscriber| subscriber.slot);
        self.live -= 1;
        moved
    }

    /// Forgets the channel if no member refers to it and nothing of this turn is in its page.
    pub fn forget_if_idle(&mut self, index: u32) {
        let Subscribers { locals, by_name, .. } = self;
        let entry = &locals[index as usize];
        if entry.interest > 0 || entry.page.is_some() {
            return;
        }
        if let Ok(found) = by_name.find_entry(entry.hash, |&other| other == index) {
            found.remove();
        }
        locals.remove(index as usize);
    }

    /// The page to append to; opened, and the channel marked as touched, if this is its first message of the turn.
    pub fn page(&mut self, index: u32, pages: &mut Pages) -> PageId {
        let entry = &mut self.locals[index as usize];
        *entry.page.get_or_insert_with(|| {
            self.touched.push(index);
            pages.open()
        })
    }

    /// Channels touched in this turn. They are given back, in any order, by [`Subscribers::laid`].
    pub fn take_touched(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.touched)
    }

    /// Gives the emptied list back, so that its memory is used again.
    pub fn laid(&mut self, mut touched: Vec<u32>) {
        touched.clear();
        self.touched = touched;
    }

    /// Live subscriptions.
    pub fn live(&self) -> usize {
        debug_assert_eq!(self.live, self.locals.iter().map(|(_, local)| local.subscribers.len()).sum::<usize>());
        self.live
    }

    /// Whether connections of this shard have to do with no channel.
    #[cfg(any(test, fuzzing))]
    pub fn is_empty(&self) -> bool {
        self.locals.is_empty()
    }

    /// What the members' references add up to.
    #[cfg(any(test, fuzzing))]
    pub fn interest(&self) -> usize {
        self.locals.iter().map(|(_, local)| local.interest as usize).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_forgotten_when_no_member_and_no_page_needs_it() {
        let (mut subscribers, mut pages) = (Subscribers::default(), Pages::default());
        let channel = Channel::parse("a").unwrap();
        let local = subscribers.find_or_enter(channel, 7);
        assert_eq!(subscribers.find_or_enter(channel, 7), local);
        subscribers.get_mut(local).interest += 1;
        subscribers.forget_if_idle(local);
        assert_eq!(subscribers.find(channel, 7), Some(local), "a member refers to it");

        subscribers.page(local, &mut pages);
        subscribers.page(local, &mut pages);
        subscribers.get_mut(local).interest -= 1;
        subscribers.forget_if_idle(local);
        assert_eq!(subscribers.find(channel, 7), Some(local), "the turn has something in it");

        let touched = subscribers.take_touched();
        assert_eq!(touched, [local], "touched once, however often it is written to");
        subscribers.get_mut(local).page = None;
        subscribers.forget_if_idle(local);
        subscribers.laid(touched);
        assert!(subscribers.is_empty());
        assert_eq!(subscribers.find(channel, 7), None);
    }

    #[test]
    fn channels_of_one_hash_are_told_apart() {
        let mut subscribers = Subscribers::default();
        let [a, b] = ["a", "b"].map(|name| Channel::parse(name).unwrap());
        let (first, second) = (subscribers.find_or_enter(a, 7), subscribers.find_or_enter(b, 7));
        assert_ne!(first, second);
        subscribers.forget_if_idle(first);
        assert_eq!((subscribers.find(a, 7), subscribers.find(b, 7)), (None, Some(second)));
    }
}
