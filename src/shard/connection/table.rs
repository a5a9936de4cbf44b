//! The connections of a shard, by slot, and how many are in each phase.

use super::Connection;
use super::state::{ConnectionState, Phase};
use crate::ids::{SLOTS_RESERVED, Slot};
use slab::Slab;
use std::ops::{Index, IndexMut};

/// The connections of a shard.
pub struct Connections {
    slab: Slab<Connection>,
    census: Census,
    slots_end: Slot,
}

/// How many connections are in each phase, counted as they change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// [`Phase::Upgrading`].
    pub upgrading: usize,
    /// [`Phase::Open`].
    pub open: usize,
    /// Those of them that speak Pusher's dialect.
    pub open_pusher: usize,
    /// [`Phase::Echoing`].
    pub echoing: usize,
    /// [`Phase::Answering`], [`Phase::Closing`] and [`Phase::Ended`].
    pub closing: usize,
}

impl Default for Connections {
    fn default() -> Connections {
        Connections { slab: Slab::with_capacity(SLOTS_RESERVED), census: Census::default(), slots_end: 0 }
    }
}

impl Connections {
    /// The slot that the next connection gets.
    pub fn vacant_slot(&self) -> usize {
        self.slab.vacant_key()
    }

    /// Adds a connection.
    pub fn insert(&mut self, connection: Connection) -> Slot {
        self.census.enter(&connection.state);
        let slot = self.slab.insert(connection) as Slot;
        self.slots_end = self.slots_end.max(slot + 1);
        slot
    }

    /// Frees a slot.
    pub fn remove(&mut self, slot: Slot) -> Option<Connection> {
        let connection = self.slab.try_remove(slot as usize)?;
        self.census.leave(&connection.state);
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

    /// Moves a connection to another phase. Its dialect does not change while it is open.
    pub fn enter_phase(&mut self, slot: Slot, phase: Phase) {
        let state = &mut self.slab[slot as usize].state;
        self.census.leave(state);
        state.phase = phase;
        self.census.enter(state);
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Connection)> {
        self.slab.iter().map(|(slot, connection)| (slot as Slot, connection))
    }

    /// Number of connections.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether the table has no connections.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// One past the highest slot that was ever used.
    pub fn slots_end(&self) -> Slot {
        self.slots_end
    }

    /// How many are in each phase.
    pub fn census(&self) -> Census {
        self.census
    }

    /// Counts the connections in each phase, to check the census.
    pub fn count(&self) -> Census {
        let mut census = Census::default();
        self.iter().for_each(|(_, connection)| census.enter(&connection.state));
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
    fn enter(&mut self, state: &ConnectionState) {
        *self.of(state.phase) += 1;
        self.open_pusher += is_open_pusher(state);
    }

    fn leave(&mut self, state: &ConnectionState) {
        *self.of(state.phase) -= 1;
        self.open_pusher -= is_open_pusher(state);
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

fn is_open_pusher(state: &ConnectionState) -> usize {
    usize::from(state.phase == Phase::Open && state.dialect.is_pusher())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_table_has_room_from_the_start_and_ends_behind_the_highest_slot_used() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let connection = || {
            let socket = mio::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("loopback");
            Connection::new(socket, 0)
        };
        let mut connections = Connections::default();
        assert!(connections.slab.capacity() >= SLOTS_RESERVED);
        assert_eq!(connections.slots_end(), 0);
        let slots = [connections.insert(connection()), connections.insert(connection())];
        assert_eq!((slots, connections.slots_end()), ([0, 1], 2));
        slots.into_iter().for_each(|slot| drop(connections.remove(slot)));
        connections.insert(connection());
        assert_eq!((connections.len(), connections.slots_end()), (1, 2));
    }
}
