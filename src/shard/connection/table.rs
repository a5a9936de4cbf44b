//! The connections of a shard, by slot, and how many are in each phase.

use super::Connection;
use super::state::Phase;
use crate::ids::Slot;
use slab::Slab;
use std::ops::{Index, IndexMut};

/// The connections of a shard.
#[derive(Default)]
pub struct Connections {
    slab: Slab<Connection>,
    census: Census,
}

/// How many connections are in each phase, counted as they change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// [`Phase::Upgrading`].
    pub upgrading: usize,
    /// [`Phase::Open`].
    pub open: usize,
    /// [`Phase::Echoing`].
    pub echoing: usize,
    /// [`Phase::Answering`], [`Phase::Closing`] and [`Phase::Ended`].
    pub closing: usize,
}

impl Connections {
    /// The slot that the next connection gets.
    pub fn vacant_slot(&self) -> usize {
        self.slab.vacant_key()
    }

    /// Adds a connection.
    pub fn insert(&mut self, connection: Connection) -> Slot {
        self.census.enter(connection.state.phase);
        self.slab.insert(connection) as Slot
    }

    /// Frees a slot.
    pub fn remove(&mut self, slot: Slot) -> Option<Connection> {
        let connection = self.slab.try_remove(slot as usize)?;
        self.census.leave(connection.state.phase);
        Some(connection)
    }

    /// The connection in a slot.
    pub fn get(&self, slot: Slot) -> Option<&Connection> {
        self.slab.get(slot as usize)
    }

    /// The connection in a slot.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Connection> {
        self.slab.get_mut(slot as usize)
    }

    /// The phase of the connection in a slot.
    pub fn phase(&self, slot: Slot) -> Option<Phase> {
        self.get(slot).map(|connection| connection.state.phase)
    }

    /// Moves a connection to another phase.
    pub fn enter_phase(&mut self, slot: Slot, phase: Phase) {
        let connection = &mut self.slab[slot as usize];
        self.census.leave(std::mem::replace(&mut connection.state.phase, phase));
        self.census.enter(phase);
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Connection)> {
        self.slab.iter().map(|(slot, connection)| (slot as Slot, connection))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// One past the highest slot that was ever used.
    pub fn slots_end(&self) -> Slot {
        self.slab.capacity() as Slot
    }

    /// How many are in each phase.
    pub fn census(&self) -> Census {
        self.census
    }

    /// Counts the connections in each phase, to check the census.
    pub fn count(&self) -> Census {
        let mut census = Census::default();
        self.iter().for_each(|(_, connection)| census.enter(connection.state.phase));
        census
    }
}

impl Index<Slot> for Connections {
    type Output = Connection;

    fn index(&self, slot: Slot) -> &Connection {
        &self.slab[slot as usize]
    }
}

impl IndexMut<Slot> for Connections {
    fn index_mut(&mut self, slot: Slot) -> &mut Connection {
        &mut self.slab[slot as usize]
    }
}

impl Census {
    fn enter(&mut self, phase: Phase) {
        *self.of(phase) += 1;
    }

    fn leave(&mut self, phase: Phase) {
        *self.of(phase) -= 1;
    }

    fn of(&mut self, phase: Phase) -> &mut usize {
        match phase {
            Phase::Upgrading => &mut self.upgrading,
            Phase::Open => &mut self.open,
            Phase::Echoing { .. } => &mut self.echoing,
            Phase::Answering { .. } | Phase::Closing { .. } | Phase::Ended => &mut self.closing,
        }
    }
}
