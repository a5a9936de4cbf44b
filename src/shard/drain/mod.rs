//! Draining: no further connections are accepted, and existing ones are served until they are asked to leave, one after the
//! other. A drain takes the time that it is given; the stop after it is quick.

pub mod plan;

use super::Shard;
use super::listener::{Listener, Origin};
use super::orders::Call;
use crate::shard::heartbeats::wheel::ticks;
use crossbeam_channel::Sender;
use plan::Why;

/// A drain, step by step.
pub struct Draining {
    /// The tick at which the listener is closed even if connections are in its backlog, and the wait for upgrades ends.
    accepts_until: u32,
    /// The time in milliseconds, and the channel for the number of connections. Taken once no further connection can come.
    order: Option<(u64, Sender<usize>)>,
    /// The supervisor has been told that all connections were asked to leave.
    is_done: bool,
}

impl Shard {
    /// An order to drain. It replaces an earlier one.
    pub(super) fn drain(&mut self, over_ms: u64, begun: Sender<usize>) {
        if self.listener.as_ref().is_some_and(|listener| listener.origin() != Origin::Own) {
            // Connections in its backlog wait for the next server.
            self.close_listener();
        }
        // Connections in the backlog are accepted, even if the poll has not reported them.
        self.listener.iter_mut().for_each(Listener::ready);
        let accepts_until = self.clients.now.wrapping_add(ticks(BACKLOG_TIMEOUT_MS));
        let draining = self.draining.get_or_insert(Draining { accepts_until, order: None, is_done: false });
        draining.order = Some((over_ms, begun));
    }

    /// Closes the listener once its backlog is empty, then plans the departures, then reports that all connections were asked
    /// to leave. Upgrades in progress are finished first, because no close frame can be sent before.
    pub(super) fn progress_drain(&mut self) {
        let Some(draining) = &self.draining else { return };
        // Measured up to the tick by which all input was read, so that a stall does not count against clients.
        if self.coverage.until().wrapping_sub(draining.accepts_until) as i32 >= 0 {
            self.close_listener();
        } else if self.listener.is_some() || self.clients.is_upgrading() {
            return;
        }
        let order = self.draining.as_mut().and_then(|draining| draining.order.take());
        if let Some((over_ms, begun)) = order {
            // Fails only if the supervisor has ended.
            let _ = begun.send(self.clients.ask_to_leave(Why::Drained, usize::MAX, over_ms));
        }
        if self.has_drained() {
            self.draining.iter_mut().for_each(|draining| draining.is_done = true);
            // The receiver lives as long as the process.
            let _ = self.shared.calls.send(Call::Drained);
        }
    }

    /// Ticks until a drain stops waiting for connections and upgrades.
    pub(super) fn drain_due_in(&self) -> Option<u32> {
        let draining = self.draining.as_ref().filter(|draining| draining.order.is_some())?;
        Some((draining.accepts_until.wrapping_sub(self.clients.now) as i32).max(0) as u32)
    }

    /// Whether all connections were asked to leave, and the supervisor does not know it yet.
    pub(super) fn has_drained(&self) -> bool {
        let is_under_way = self.draining.as_ref().is_some_and(|draining| !draining.is_done && draining.order.is_none());
        is_under_way && (self.clients.leaving() == 0 || self.clients.is_empty())
    }

    /// The listener's backlog is empty, or descriptors have run out: a drain closes the listener. The kernel resets a
    /// connection that arrives between the last accept and the close, and refuses later ones.
    pub(super) fn backlog_is_empty(&mut self) {
        if self.draining.is_some() {
            self.close_listener();
        }
    }
}

/// How long a drain waits for connections that are in the backlog already, and for their upgrades. Each turn takes many of them.
const BACKLOG_TIMEOUT_MS: u64 = 500;
