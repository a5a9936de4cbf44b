//! The table of audiences: for each channel and kind, its subscribers on this shard and its part of the turn's page.

use super::Kind;
use super::pages::{PageId, Pages};
use crate::config::Slow;
use crate::ids::Slot;
use crate::protocol::channel::{Channel, ChannelName};
use hashbrown::HashTable;
use slab::Slab;
use smallvec::SmallVec;

/// The subscribers of one channel on this shard that receive identical bytes.
pub struct Audience {
    name: ChannelName,
    hash: u64,
    /// Connections that the owner counts.
    subscribers: SmallVec<[Subscriber; 2]>,
    /// Number of members that refer to this entry, counted by the owner or not.
    interest: u32,
    kind: Kind,
    slow: Slow,
    /// Whether its subscribers have signed in as its user: they are not subscriptions.
    is_of_user: bool,
    /// The page that holds the turn's messages.
    page: Option<PageId>,
}

/// A connection that receives the audience's messages.
#[derive(Clone, Copy)]
pub struct Subscriber {
    /// The connection.
    pub slot: Slot,
    /// Start of its part of the turn's page.
    pub from: u32,
}

impl Audience {
    /// The channel's name.
    pub fn name(&self) -> &ChannelName {
        &self.name
    }

    /// Hash of the name.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The kind of its subscribers.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What happens to a subscriber that falls behind.
    pub fn slow(&self) -> Slow {
        self.slow
    }

    /// Changes what happens to a subscriber that falls behind. No page is open.
    pub fn set_slow(&mut self, slow: Slow) {
        debug_assert!(self.page.is_none(), "either all messages of a page may be held back, or none");
        self.slow = slow;
    }

    /// Number of subscribers that the owner counts.
    #[inline]
    pub fn len(&self) -> usize {
        self.subscribers.len()
    }

    /// Whether the audience has no subscribers, so that messages are not encoded.
    pub fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }

    /// The subscriber at this position.
    pub fn subscriber(&self, position: u32) -> Subscriber {
        self.subscribers[position as usize]
    }

    /// Lets the subscriber's part of the turn's page start at `from`.
    pub fn start_at(&mut self, position: u32, from: u32) {
        self.subscribers[position as usize].from = from;
    }

    /// The page that holds the turn's messages, if there are any.
    pub fn page(&self) -> Option<PageId> {
        self.page
    }

    /// Continues in another page.
    pub fn set_page(&mut self, page: PageId) {
        self.page = Some(page);
    }

    /// Takes the page and the subscribers, to send each its part. The caller must return the subscribers by
    /// [`Audience::put_subscribers`].
    pub fn take_for_fan_out(&mut self) -> Option<(PageId, SmallVec<[Subscriber; 2]>)> {
        Some((self.page.take()?, std::mem::take(&mut self.subscribers)))
    }

    /// See [`Audience::take_for_fan_out`].
    pub fn put_subscribers(&mut self, subscribers: SmallVec<[Subscriber; 2]>) {
        self.subscribers = subscribers;
    }
}

/// The audiences of one shard, by index and by name and kind.
#[derive(Default)]
pub struct Table {
    audiences: Slab<Audience>,
    by_name: HashTable<u32>,
    /// Audiences that have messages in this turn.
    touched: Vec<u32>,
    /// Number of subscribers of all audiences, without those of users' channels.
    live: usize,
    /// Number of audiences of Pusher's dialect. While it is 0, no message is looked up for them.
    of_pusher: usize,
}

impl Table {
    /// The index of an audience, if it exists.
    #[inline]
    pub fn find(&self, channel: Channel<'_>, hash: u64, kind: Kind) -> Option<u32> {
        let is_meant = |audience: &Audience| audience.name.as_channel() == channel && audience.kind == kind;
        self.by_name.find(hash, |&index| is_meant(&self.audiences[index as usize])).copied()
    }

    /// The index of an audience, which is added if necessary. The caller must add its interest. `slow`: for a new one.
    pub fn find_or_enter(&mut self, channel: Channel<'_>, hash: u64, kind: Kind, slow: Slow) -> u32 {
        if let Some(index) = self.find(channel, hash, kind) {
            return index;
        }
        let Table { audiences, by_name, .. } = self;
        let (name, is_of_user) = (channel.into(), channel.is_of_user());
        let entry =
            Audience { name, hash, subscribers: SmallVec::new(), interest: 0, kind, slow, is_of_user, page: None };
        let index = audiences.insert(entry) as u32;
        self.of_pusher += usize::from(kind == Kind::Pusher);
        by_name.insert_unique(hash, index, |&index| audiences[index as usize].hash);
        index
    }

    /// The audience at an index.
    #[inline]
    pub fn get(&self, index: u32) -> &Audience {
        &self.audiences[index as usize]
    }

    /// The audience at an index.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> &mut Audience {
        &mut self.audiences[index as usize]
    }

    /// The audience at an index, if there is one.
    pub fn find_at(&mut self, index: u32) -> Option<&mut Audience> {
        self.audiences.get_mut(index as usize)
    }

    /// One past the highest index.
    pub fn end(&self) -> u32 {
        self.audiences.capacity() as u32
    }

    /// Adds a subscriber. Returns its position.
    pub fn add(&mut self, index: u32, subscriber: Subscriber) -> u32 {
        let entry = self.get_mut(index);
        entry.subscribers.push(subscriber);
        let position = entry.subscribers.len() as u32 - 1;
        let is_subscription = !entry.is_of_user;
        self.live += usize::from(is_subscription);
        position
    }

    /// Removes a subscriber. Returns the connection that has its position now.
    pub fn remove(&mut self, index: u32, position: u32) -> Option<Slot> {
        let entry = self.get_mut(index);
        entry.subscribers.swap_remove(position as usize);
        let moved = entry.subscribers.get(position as usize).map(|subscriber| subscriber.slot);
        let is_subscription = !entry.is_of_user;
        self.live -= usize::from(is_subscription);
        moved
    }

    /// One more member refers to the audience.
    pub fn add_interest(&mut self, index: u32) {
        self.get_mut(index).interest += 1;
    }

    /// One member less refers to the audience. The audience is removed after the last.
    pub fn remove_interest(&mut self, index: u32) {
        self.get_mut(index).interest -= 1;
        self.forget_if_idle(index);
    }

    /// Removes the audience if no member refers to it and it has no messages in this turn.
    pub fn forget_if_idle(&mut self, index: u32) {
        let Table { audiences, by_name, .. } = self;
        let entry = &audiences[index as usize];
        if entry.interest > 0 || entry.page.is_some() {
            return;
        }
        if let Ok(found) = by_name.find_entry(entry.hash, |&other| other == index) {
            found.remove();
        }
        let removed = audiences.remove(index as usize);
        self.of_pusher -= usize::from(removed.kind == Kind::Pusher);
    }

    /// Whether there is an audience of Pusher's dialect.
    #[inline]
    pub fn has_pusher(&self) -> bool {
        self.of_pusher > 0
    }

    /// The page to append to. The audience's first message of the turn opens it, and marks the audience as touched.
    pub fn page(&mut self, index: u32, pages: &mut Pages) -> PageId {
        let entry = &mut self.audiences[index as usize];
        *entry.page.get_or_insert_with(|| {
            self.touched.push(index);
            pages.open()
        })
    }

    /// Takes the list of audiences touched in this turn. The caller must return it by [`Table::give_back`].
    pub fn take_touched(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.touched)
    }

    /// Takes the list back, to reuse its memory.
    pub fn give_back(&mut self, mut touched: Vec<u32>) {
        touched.clear();
        self.touched = touched;
    }

    /// Number of subscribers of all audiences, without those of users' channels: a sign-in is not a subscription.
    pub fn live(&self) -> usize {
        let counted = self.audiences.iter().filter(|(_, audience)| !audience.is_of_user);
        debug_assert_eq!(self.live, counted.map(|(_, audience)| audience.len()).sum::<usize>());
        self.live
    }

    /// Whether the table has no audiences.
    #[cfg(any(test, fuzzing))]
    pub fn is_empty(&self) -> bool {
        self.audiences.is_empty()
    }

    /// Number of the members' references to all audiences.
    #[cfg(any(test, fuzzing))]
    pub fn interest(&self) -> usize {
        self.audiences.iter().map(|(_, audience)| audience.interest as usize).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audience_is_removed_once_it_has_no_member_and_no_page() {
        let (mut table, mut pages) = (Table::default(), Pages::default());
        let channel = Channel::parse("a").unwrap();
        let index = table.find_or_enter(channel, 7, Kind::Native, Slow::Disconnect);
        assert_eq!(table.find_or_enter(channel, 7, Kind::Native, Slow::Disconnect), index);
        table.add_interest(index);
        table.forget_if_idle(index);
        assert_eq!(table.find(channel, 7, Kind::Native), Some(index), "a member refers to it");

        table.page(index, &mut pages);
        table.page(index, &mut pages);
        table.remove_interest(index);
        assert_eq!(table.find(channel, 7, Kind::Native), Some(index), "it has messages in this turn");

        let touched = table.take_touched();
        assert_eq!(touched, [index], "an audience is listed once per turn");
        let (page, subscribers) = table.get_mut(index).take_for_fan_out().expect("it has messages");
        pages.release(page);
        table.get_mut(index).put_subscribers(subscribers);
        table.forget_if_idle(index);
        table.give_back(touched);
        assert!(table.is_empty());
        assert_eq!(table.find(channel, 7, Kind::Native), None);
    }

    #[test]
    fn channels_with_equal_hashes_are_distinguished() {
        let mut table = Table::default();
        let [a, b] = ["a", "b"].map(|name| Channel::parse(name).unwrap());
        let [first, second] = [a, b].map(|channel| table.find_or_enter(channel, 7, Kind::Native, Slow::Disconnect));
        assert_ne!(first, second);
        table.forget_if_idle(first);
        assert_eq!((table.find(a, 7, Kind::Native), table.find(b, 7, Kind::Native)), (None, Some(second)));
    }

    #[test]
    fn an_audience_takes_one_cache_line() {
        assert_eq!(size_of::<Audience>(), 64);
    }
}
