//! Asks connections to leave when the server drains, sheds or stops. The [`Plan`] decides which one leaves when.

use super::closing::CLOSE_TIMEOUT_MS;
use super::{Clients, ticks};
use crate::hub::Hub;
use crate::protocol::close::CloseReason;
use crate::shard::connection::Connection;
use crate::shard::connection::state::Phase;
use crate::shard::drain::plan::{Leaver, Plan, Why, wait_ms};

impl Clients {
    /// How many connections are open, and not on their way out.
    pub fn count_open(&self) -> usize {
        let census = self.connections.census();
        census.open + census.echoing
    }

    /// Whether an upgrade is under way.
    pub fn is_upgrading(&self) -> bool {
        self.connections.census().upgrading > 0
    }

    /// Plans for `count` connections to leave over this time, in place of an earlier plan. Returns how many that are. Walks the
    /// connections once; each is drawn at random when a departure is due.
    pub fn ask_to_leave(&mut self, why: Why, count: usize, over_ms: u64) -> usize {
        let connections = self.connections.iter().filter(|(_, connection)| concerns(why, connection.state.phase));
        let waiting: Vec<Leaver> =
            connections.map(|(slot, connection)| Leaver { slot, accepted_at: connection.state.accepted_at }).collect();
        let chance = self.random.hash_one((self.now, waiting.len()));
        let plan = Plan::new(why, waiting, count, self.now, over_ms, chance);
        self.plan.insert(plan).left()
    }

    /// Closes the connections that are due to leave, up to the turn's budget.
    pub fn dismiss_due(&mut self, hub: &mut Hub) {
        let Some(mut plan) = self.plan.take() else { return };
        for _ in 0..DISMISSALS_PER_TURN {
            let chance = self.random.hash_one((self.now, plan.drawn()));
            let Some(leaver) = plan.next(self.now, chance) else { break };
            let retry_after_ms = wait_ms(plan.waits_ms(), chance.rotate_right(32));
            let reason = match plan.why() {
                Why::Drained => CloseReason::Drained { retry_after_ms },
                Why::Shed => CloseReason::Shed { retry_after_ms },
                Why::Stopped { .. } => CloseReason::ServerRestarting,
            };
            self.dismiss(leaver, plan.why(), reason, hub);
        }
        self.plan = (plan.left() > 0).then_some(plan);
    }

    fn dismiss(&mut self, leaver: Leaver, why: Why, reason: CloseReason, hub: &mut Hub) {
        let is_meant = |connection: &&Connection| {
            connection.state.accepted_at == leaver.accepted_at && concerns(why, connection.state.phase)
        };
        let Some(connection) = self.connections.get(leaver.slot).filter(is_meant) else { return };
        match connection.state.phase {
            // No frame can be sent yet.
            Phase::Upgrading => self.end(leaver.slot, &reason, hub),
            Phase::Open | Phase::Echoing { .. } => {
                self.close(leaver.slot, reason, hub);
                if let Why::Stopped { deadline } = why {
                    // Before the deadline itself, at which late connections are cut off and counted.
                    self.drop_at(leaver.slot, deadline.wrapping_add(ticks(CLOSE_TIMEOUT_MS)));
                }
            }
            Phase::Answering { .. } | Phase::Closing { .. } | Phase::Ended => {}
        }
    }

    /// How many connections are still to be asked to leave.
    pub fn leaving(&self) -> usize {
        self.plan.as_ref().map_or(0, Plan::left)
    }

    /// Ticks until the next one is to leave.
    pub(super) fn leaving_due_in(&self) -> Option<u32> {
        self.plan.as_ref()?.due_in(self.now)
    }
}

fn concerns(why: Why, phase: Phase) -> bool {
    match phase {
        Phase::Open | Phase::Echoing { .. } => true,
        Phase::Upgrading => why != Why::Shed,
        Phase::Answering { .. } | Phase::Closing { .. } | Phase::Ended => false,
    }
}

/// About 1 ms of work: for each connection, its subscriptions and a write.
pub const DISMISSALS_PER_TURN: usize = 64;
