//! Going down. A *drain* takes its time: nobody is accepted any more, and whoever is there is served until it is asked to
//! leave. The *stop*, which ends a drain and can come without one, is quick: publishers are not read any more, a fence goes
//! through all mail, and then everybody who is still there is closed, a few in each turn.

use super::Shard;
use super::clients::leaving::Why;
use super::clients::ticks;
use super::wall_ms;
use crate::metrics::Stats;
use crate::shard::listener::Listener;
use crate::shard::orders::Call;
use crossbeam_channel::Sender;
use std::io;
use std::sync::atomic::Ordering::Acquire;

/// Stopping, step by step.
pub(super) struct Stopping {
    deadline: u32,
    stage: Stage,
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// What was published before is on its way.
    Fencing,
    /// Everybody is being closed.
    Closing,
    /// And has been; whoever reads events will be told so.
    Closed,
}

/// Draining, step by step.
pub(super) struct Draining {
    /// The tick at which the listener is closed, whoever waits in its backlog, and upgrades are not waited for any more.
    accepts_until: u32,
    /// Over how many milliseconds, and who is told how many they are. Taken once nobody comes any more.
    order: Option<(u64, Sender<usize>)>,
    /// The supervisor has been told that everybody was asked to leave.
    is_done: bool,
}

impl Shard {
    /// An order to drain: in force at once, or in place of an earlier one.
    pub(super) fn drain(&mut self, over_ms: u64, begun: Sender<usize>) {
        // Also where the poll has said nothing: who is in the backlog comes in.
        self.listener.iter_mut().for_each(Listener::ready);
        let accepts_until = self.clients.now.wrapping_add(ticks(BACKLOG_TIMEOUT_MS));
        let draining = self.draining.get_or_insert(Draining { accepts_until, order: None, is_done: false });
        draining.order = Some((over_ms, begun));
    }

    /// Closes the listener when its backlog is empty, then draws up who is to leave when, then says that all have been asked to.
    /// Upgrades that are under way come first: before them nobody can be told anything.
    pub(super) fn progress_drain(&mut self) {
        let Some(draining) = &mut self.draining else { return };
        // By the time until which everybody was heard: a stall is not theirs.
        if self.hearing.heard_until().wrapping_sub(draining.accepts_until) as i32 >= 0 {
            self.listener = None;
        } else if self.listener.is_some() || self.clients.is_upgrading() {
            return;
        }
        if let Some((over_ms, begun)) = draining.order.take() {
            // Nobody waits where the supervisor is gone.
            let _ = begun.send(self.clients.ask_to_leave(Why::Drained, usize::MAX, over_ms));
        }
        if self.has_drained() {
            self.draining.iter_mut().for_each(|draining| draining.is_done = true);
            // Received for as long as the process lives.
            let _ = self.shared.calls.send(Call::Drained);
        }
    }

    /// Ticks until a drain waits for nobody any more.
    pub(super) fn drain_due_in(&self) -> Option<u32> {
        let draining = self.draining.as_ref().filter(|draining| draining.order.is_some())?;
        Some((draining.accepts_until.wrapping_sub(self.clients.now) as i32).max(0) as u32)
    }

    /// Whether nobody is left to be asked to leave, which the supervisor does not know yet.
    pub(super) fn has_drained(&self) -> bool {
        let is_under_way = self.draining.as_ref().is_some_and(|draining| !draining.is_done && draining.order.is_none());
        is_under_way && (self.clients.leaving() == 0 || self.clients.is_empty())
    }

    /// The listener's backlog is empty, or descriptors have run out: a drain has waited for that. Who comes between the look
    /// and the end of the listener is reset by the kernel; whoever comes later is refused.
    pub(super) fn nobody_waits(&mut self) {
        if self.draining.is_some() {
            self.listener = None;
        }
    }

    /// Stops accepting and reading publishers, fences the mail, and once that has come back closes everybody: not at once, so
    /// that consumers of events can follow.
    pub(super) fn progress_stop(&mut self) {
        if !self.shared.is_stopping.load(Acquire) {
            return;
        }
        if self.stopping.is_none() {
            self.listener = None;
            self.admins.stop_accepting();
            self.hub.fence(&mut self.clients);
            let deadline = self.clients.now.wrapping_add(ticks(self.shutdown_timeout_ms));
            self.stopping = Some(Stopping { deadline, stage: Stage::Fencing });
        }
        let is_quiet = self.hub.is_fenced() && self.clients.mesh.waiting() == 0 && self.admins.is_settled();
        let (is_late, has_closed) = (self.is_late(), self.has_closed());
        let Some(stopping) = &mut self.stopping else { return };
        if stopping.stage == Stage::Fencing && (is_quiet || is_late) {
            stopping.stage = Stage::Closing;
            self.clients.ask_to_leave(Why::Stopped { deadline: stopping.deadline }, usize::MAX, 0);
        } else if has_closed {
            stopping.stage = Stage::Closed;
            self.hub.report_last(wall_ms, &mut self.clients);
        }
    }

    /// Whether nobody is left to be closed, which is still to be reported.
    pub(super) fn has_closed(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| stopping.stage == Stage::Closing) && self.clients.leaving() == 0
    }

    fn is_late(&self) -> bool {
        let now = self.clients.now;
        self.stopping.as_ref().is_some_and(|stopping| now.wrapping_sub(stopping.deadline) as i32 >= 0)
    }

    pub(super) fn is_stopped(&self) -> bool {
        let Some(stopping) = &self.stopping else { return false };
        let is_done = self.clients.is_empty()
            && self.admins.is_written(self.clients.now)
            // Whoever reads events is told how everybody was disconnected: by this shard, if it keeps the journal.
            && self.hub.journal_sizes().0 == 0
            && self.clients.mesh.waiting() == 0
            // An answer may have come with the stop.
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

/// How long a drain waits for those who are in the backlog already, and for their upgrades. Each turn takes many of them.
const BACKLOG_TIMEOUT_MS: u64 = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::close::CloseReason;
    use crate::shard::clients::leaving::DISMISSALS_PER_TURN;
    use crate::shard::trial::House;

    #[test]
    fn a_stop_closes_a_few_in_each_turn_and_ends_when_all_are_gone() {
        let mut house = House::new(1, |_| ());
        let clients = house.connect(0, 3 * DISMISSALS_PER_TURN + 1);
        house.stop();
        let told = |house: &House| house.shards[0].clients.closes[CloseReason::ServerRestarting.kind()] as usize;
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
    fn who_was_not_told_by_the_deadline_is_cut_off() {
        let mut house = House::new(1, |live| live.shutdown_timeout_ms = 0);
        let clients = house.connect(0, DISMISSALS_PER_TURN + 5);
        house.stop();
        house.turn(0);
        let Shard { clients: served, hub, .. } = &mut house.shards[0];
        assert_eq!((served.count(), served.cut_off(hub), served.count()), (clients.len(), 5, 0));
    }
}
