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

    /// Live subscriptions. Walks the channels.
    pub fn live(&self) -> usize {
        self.locals.iter().map(|(_, local)| local.subscribers.len()).sum()
    }

    /// Channels that connections of this shard have to do with.
    pub fn len(&self) -> usize {
        self.locals.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.locals.is_empty()
    }
}
