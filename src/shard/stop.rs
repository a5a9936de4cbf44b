//! The stop: reading from publishers ends, a fence goes through all mail, upgrades in progress are finished, and then all
//! remaining connections are closed, a few in each turn.

use super::{Shard, wall_ms};
use crate::metrics::Stats;
use crate::shard::drain::plan::Why;
use crate::shard::heartbeats::wheel::ticks;
use std::io;
use std::sync::atomic::Ordering::Acquire;

/// A stop, step by step.
pub struct Stopping {
    deadline: u32,
    /// The tick at which the wait for upgrades ends.
    upgrades_until: u32,
    stage: Stage,
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// What was published before is on its way.
    Fencing,
    /// All connections are being closed.
    Closing,
    /// All connections were closed, which consumers of events are still to be told.
    Closed,
}

impl Shard {
    /// Stops accepting and reading publishers, and fences the mail. Once the fence has come back and upgrades are finished, because
    /// no close frame can be sent before, closes all connections, a few in each turn so that consumers of events can keep up.
    pub(super) fn progress_stop(&mut self) {
        if !self.shared.is_stopping.load(Acquire) {
            return;
        }
        if self.stopping.is_none() {
            self.close_listener();
            self.admins.stop_accepting();
            self.hub.fence(&mut self.clients);
            let [deadline, upgrades_until] =
                [self.shutdown_timeout_ms, UPGRADES_TIMEOUT_MS].map(|ms| self.clients.now.wrapping_add(ticks(ms)));
            self.stopping = Some(Stopping { deadline, upgrades_until, stage: Stage::Fencing });
        }
        let is_quiet = self.hub.is_fenced() && self.clients.mesh.waiting() == 0 && self.admins.is_settled();
        let (is_late, has_closed, is_upgrading) = (self.is_late(), self.has_closed(), self.clients.is_upgrading());
        // Measured as for a drain, so that a stall does not count against clients.
        let read_until = self.coverage.until();
        let Some(stopping) = &mut self.stopping else { return };
        let waits_for_upgrades = is_upgrading && (read_until.wrapping_sub(stopping.upgrades_until) as i32) < 0;
        if stopping.stage == Stage::Fencing && (is_quiet && !waits_for_upgrades || is_late) {
            stopping.stage = Stage::Closing;
            self.clients.ask_to_leave(Why::Stopped { deadline: stopping.deadline }, usize::MAX, 0);
        } else if has_closed {
            stopping.stage = Stage::Closed;
            self.hub.report_last(wall_ms, &mut self.clients);
        }
    }

    /// Whether all connections were closed, which is still to be reported.
    pub(super) fn has_closed(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| stopping.stage == Stage::Closing)
            && self.clients.leaving() == 0
            && !self.hub.has_departures()
    }

    fn is_late(&self) -> bool {
        let now = self.clients.now;
        self.stopping.as_ref().is_some_and(|stopping| now.wrapping_sub(stopping.deadline) as i32 >= 0)
    }

    pub(super) fn is_stopped(&self) -> bool {
        let Some(stopping) = &self.stopping else { return false };
        let is_done = self.clients.is_empty()
            && self.admins.is_written(self.clients.now)
            // If this shard keeps the journal, it must still deliver the last events to their consumers.
            && !self.hub.has_event_consumers()
            && self.clients.mesh.waiting() == 0
            // An order with an answer may have come together with the stop.
            && self.orders.is_empty();
        match stopping.stage {
            Stage::Fencing => false,
            Stage::Closing => self.is_late(),
            Stage::Closed => is_done || self.is_late(),
        }
    }

    pub(super) fn leave(mut self) -> io::Result<()> {
        let late = self.clients.cut_off(&mut self.hub);
        self.hub.counters.shutdown_cut_off += late as u64;
        self.ring()?;
        let Stats { counters, .. } = self.stats();
        tracing::info!(
            shard = self.me,
            cut_off = late,
            publishes = counters.publishes,
            deliveries = counters.deliveries,
            connections = counters.upgrades,
            "shard stopped"
        );
        Ok(())
    }
}

/// How long a stop waits for upgrades in progress: as long as a drain.
const UPGRADES_TIMEOUT_MS: u64 = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::close::CloseReason;
    use crate::shard::clients::DISMISSALS_PER_TURN;
    use crate::shard::trial::House;

    #[test]
    fn a_stop_closes_a_few_in_each_turn_and_ends_when_all_are_gone() {
        let mut house = House::new(1, |_| ());
        let clients = house.connect(0, 3 * DISMISSALS_PER_TURN + 1);
        house.stop();
        let told = |house: &House| house.shards[0].clients.closes()[CloseReason::ServerRestarting.kind()] as usize;
        let mut turns = 0;
        while told(&house) < clients.len() {
            let before = told(&house);
            house.turn(0);
            assert!(told(&house) - before <= DISMISSALS_PER_TURN, "{} in one turn", told(&house) - before);
            turns += usize::from(told(&house) > before);
        }
        assert_eq!(turns, 4);
        drop(clients);
        while !house.shards[0].is_stopped() {
            house.turn(0);
        }
        assert!(house.shards[0].clients.is_empty());
    }

    #[test]
    fn connections_that_are_not_told_by_the_deadline_are_cut_off() {
        let mut house = House::new(1, |live| live.shutdown_timeout_ms = 0);
        let clients = house.connect(0, DISMISSALS_PER_TURN + 5);
        house.stop();
        house.turn(0);
        let Shard { clients: served, hub, .. } = &mut house.shards[0];
        assert_eq!((served.count(), served.cut_off(hub), served.count()), (clients.len(), 5, 0));
    }
}
