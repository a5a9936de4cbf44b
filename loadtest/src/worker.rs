//! One thread of a run: its share of the work, the phases it goes through, and what it shares with the others.

use std::io::Write;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::clock::{now_ns, thread_cpu_ns};
use crate::engine::{Handler, Net};
use crate::measure::Tally;
use crate::plan::Plan;

/// What the workers of one process share.
pub struct Shared {
    /// When the warm-up begins; 0 until everyone is ready.
    pub start_at: AtomicU64,
    /// When to do what the scenario waits to be told; 0 until that is known.
    pub go_at: AtomicU64,
    /// Somebody pressed Ctrl-C.
    pub stop: AtomicBool,
    /// Numbers for the progress bar, one for each worker of this process and one for each other process.
    pub live: Vec<Live>,
    /// Per worker of the whole run: every message below this number has reached all of its subscribers.
    pub fronts: Vec<AtomicU32>,
    /// Wakes the publisher's thread, where that is in this process.
    pub publisher: OnceLock<mio::Waker>,
    /// The way to the process that has the publisher, where that is another.
    pub upstream: Option<Mutex<UnixStream>>,
}

/// Numbers for the progress bar.
#[derive(Default)]
pub struct Live {
    /// Connections open.
    pub connected: AtomicU64,
    /// Deliveries, pongs, handshakes: whatever the scenario counts.
    pub events: AtomicU64,
    /// Publishes.
    pub publishes: AtomicU64,
    /// Set up, or unable to.
    pub ready: AtomicBool,
}

/// One thread's place in a run.
pub struct Worker {
    /// The run.
    pub plan: Arc<Plan>,
    /// Number among all workers of the run. Worker 0 publishes.
    pub index: usize,
    /// Number within this process.
    pub local: usize,
    /// What is shared.
    pub shared: Arc<Shared>,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not everyone is ready.
    Waiting,
    /// Running, not counting yet.
    Warmup,
    /// Counting.
    Measure,
    /// Time is up.
    Over,
}

impl Worker {
    /// This worker's part of `count` things.
    pub fn share(&self, count: usize) -> Range<usize> {
        let total = self.plan.workers();
        count * self.index / total..count * (self.index + 1) / total
    }

    /// This worker's numbers for the progress bar.
    pub fn live(&self) -> &Live {
        &self.shared.live[self.local]
    }

    /// Where the run stands at `now`.
    pub fn phase(&self, now: u64) -> Phase {
        let start = self.shared.start_at.load(Relaxed);
        if self.shared.stop.load(Relaxed) {
            Phase::Over
        } else if start == 0 || now < start {
            Phase::Waiting
        } else if now < start + self.plan.warmup_ns {
            Phase::Warmup
        } else if now < start + self.plan.warmup_ns + self.plan.duration_ns {
            Phase::Measure
        } else {
            Phase::Over
        }
    }

    /// Says that this worker is ready, and keeps its connections served until all are.
    pub fn ready(&self, net: &mut Net, handler: &mut impl Handler) -> std::io::Result<()> {
        self.live().ready.store(true, SeqCst);
        while self.phase(now_ns()) == Phase::Waiting {
            net.turn(handler, Some(Duration::from_millis(1)))?;
        }
        Ok(())
    }

    /// Publishes how far this worker's subscribers are, and wakes the publisher.
    pub fn advance_front(&self, front: u32) {
        self.shared.fronts[self.index].store(front, SeqCst);
        if let Some(waker) = self.shared.publisher.get() {
            let _ = waker.wake();
        }
        if let Some(upstream) = &self.shared.upstream {
            let line = format!("front {} {front}\n", self.index);
            if let Ok(mut upstream) = upstream.lock() {
                let _ = upstream.write_all(line.as_bytes());
            }
        }
    }
}

/// Cuts the measured time out of a run: counters are cumulative, and what they were at its two ends is kept.
#[derive(Default)]
pub struct Window {
    begin: Option<Mark>,
    end: Option<Mark>,
}

#[derive(Clone, Copy)]
struct Mark {
    now: u64,
    cpu: u64,
    events: u64,
    publishes: u64,
}

impl Window {
    /// To be called every turn with the counters as they stand.
    #[inline]
    pub fn turn(&mut self, phase: Phase, now: u64, events: u64, publishes: u64) {
        let wanted = match phase {
            Phase::Measure => &mut self.begin,
            Phase::Over if self.begin.is_some() => &mut self.end,
            _ => return,
        };
        if wanted.is_none() {
            *wanted = Some(Mark { now, cpu: thread_cpu_ns(), events, publishes });
        }
    }

    /// Writes what lies between the two ends into the tally.
    pub fn close(&self, tally: &mut Tally) {
        let (Some(begin), Some(end)) = (self.begin, self.end) else {
            return;
        };
        tally.window_ns.push(end.now - begin.now);
        tally.cpu_ns.push(end.cpu - begin.cpu);
        tally.events += end.events - begin.events;
        tally.publishes += end.publishes - begin.publishes;
    }
}
