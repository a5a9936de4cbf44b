//! Draining: no connection is accepted any more, and those that are there are served until they are asked to leave, one after
//! the other. It takes its time; the stop that ends it is quick.

pub mod plan;

use super::Shard;
use super::listener::Listener;
use super::orders::Call;
use crate::shard::heartbeats::wheel::ticks;
use crossbeam_channel::Sender;
use plan::Why;

/// A drain, step by step.
pub struct Draining {
    /// The tick at which the listener is closed, whatever is in its backlog, and upgrades are not waited for any more.
    accepts_until: u32,
    /// Over how many milliseconds, and who is told how many connections there are. Taken once no connection comes any more.
    order: Option<(u64, Sender<usize>)>,
    /// The supervisor has been told that all connections were asked to leave.
    is_done: bool,
}

impl Shard {
    /// An order to drain: in force at once, or in place of an earlier one.
    pub(super) fn drain(&mut self, over_ms: u64, begun: Sender<usize>) {
        // Also where the poll has reported nothing: connections in the backlog are accepted.
        self.listener.iter_mut().for_each(Listener::ready);
        let accepts_until = self.clients.now.wrapping_add(ticks(BACKLOG_TIMEOUT_MS));
        let draining = self.draining.get_or_insert(Draining { accepts_until, order: None, is_done: false });
        draining.order = Some((over_ms, begun));
    }

    /// Closes the listener when its backlog is empty, then plans who leaves when, then says that all have been asked to leave.
    /// Upgrades that are under way come first: before them no close frame can be sent.
    pub(super) fn progress_drain(&mut self) {
        let Some(draining) = &mut self.draining else { return };
        // By the time up to which all that had arrived was read: a stall is not held against clients.
        if self.coverage.until().wrapping_sub(draining.accepts_until) as i32 >= 0 {
            self.listener = None;
        } else if self.listener.is_some() || self.clients.is_upgrading() {
            return;
        }
        if let Some((over_ms, begun)) = draining.order.take() {
            // The receiver is gone where the supervisor is.
            let _ = begun.send(self.clients.ask_to_leave(Why::Drained, usize::MAX, over_ms));
        }
        if self.has_drained() {
            self.draining.iter_mut().for_each(|draining| draining.is_done = true);
            // Received for as long as the process lives.
            let _ = self.shared.calls.send(Call::Drained);
        }
    }

    /// Ticks until a drain waits for no connection any more.
    pub(super) fn drain_due_in(&self) -> Option<u32> {
        let draining = self.draining.as_ref().filter(|draining| draining.order.is_some())?;
        Some((draining.accepts_until.wrapping_sub(self.clients.now) as i32).max(0) as u32)
    }

    /// Whether all connections were asked to leave, and the supervisor does not know it yet.
    pub(super) fn has_drained(&self) -> bool {
        let is_under_way = self.draining.as_ref().is_some_and(|draining| !draining.is_done && draining.order.is_none());
        is_under_way && (self.clients.leaving() == 0 || self.clients.is_empty())
    }

    /// The listener's backlog is empty, or descriptors have run out: a drain has waited for that. A connection that comes between
    /// the look and the end of the listener is reset by the kernel; a later one is refused.
    pub(super) fn backlog_is_empty(&mut self) {
        if self.draining.is_some() {
            self.listener = None;
        }
    }
}

/// How long a drain waits for connections that are in the backlog already, and for their upgrades. Each turn takes many of them.
const BACKLOG_TIMEOUT_MS: u64 = 500;
