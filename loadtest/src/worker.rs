//! One thread of a run: its share of the work, its phases, and the state that it shares with other threads.

use std::io::Write;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{now_ns, thread_cpu_ns};
use crate::engine::{Handler, Net};
use crate::measure::Tally;
use crate::plan::Plan;

/// State that the workers of one process share.
pub struct Shared {
    /// When the warm-up begins; 0 until all workers are ready.
    pub start_at: AtomicU64,
    /// When to start what the scenario waits for; 0 until that is known.
    pub go_at: AtomicU64,
    /// End the run.
    pub stop: AtomicBool,
    /// Numbers for the progress bar, one for each worker of this process and one for each other process.
    pub live: Vec<Live>,
    /// Per worker of the whole run: every message below this number has reached all of its subscribers.
    pub fronts: Vec<AtomicU32>,
    /// Wakes the publisher's thread, if that is in this process.
    pub publisher: OnceLock<mio::Waker>,
    /// The socket to the first process, if this is another.
    pub upstream: Option<Mutex<UnixStream>>,
}

impl Shared {
    /// Records that all messages below `front` have reached a worker's subscribers, and wakes the publisher.
    pub fn advance(&self, worker: usize, front: u32) {
        self.fronts[worker].store(front, SeqCst);
        if let Some(waker) = self.publisher.get() {
            let _ = waker.wake();
        }
    }

    /// Tells the first process, if this is another.
    pub fn tell_first(&self, word: &Word) {
        if let Some(upstream) = &self.upstream
            && let Ok(mut upstream) = upstream.lock()
            && let Ok(line) = serde_json::to_string(word)
        {
            let _ = upstream.write_all(format!("{line}\n").as_bytes());
        }
    }

    /// The sum of the live numbers. `start` is the beginning of the warm-up, 0 before it is known.
    pub fn moment(&self, start: u64) -> Moment {
        let sum = |what: fn(&Live) -> &AtomicU64| self.live.iter().map(|live| what(live).load(Relaxed)).sum();
        Moment {
            seconds: if start == 0 { -1.0 } else { (now_ns() as f64 - start as f64) / 1e9 },
            connected: sum(|live| &live.connected),
            events: sum(|live| &live.events),
            publishes: sum(|live| &live.publishes),
            rss_bytes: 0,
        }
    }

    /// Whether all workers have set up their connections.
    pub fn is_ready(&self) -> bool {
        self.live.iter().all(|live| live.ready.load(SeqCst))
    }
}

/// A moment of a run, for the progress bar and the timeline.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds since the warm-up began; negative before.
    pub seconds: f64,
    /// Connections open.
    pub connected: u64,
    /// Events so far.
    pub events: u64,
    /// Publishes so far.
    pub publishes: u64,
    /// Resident memory of the server.
    pub rss_bytes: u64,
}

/// What a further process tells the first one, as a line of JSON.
#[derive(Serialize, Deserialize)]
pub enum Word {
    /// All messages below a number have reached this worker's subscribers.
    Front(usize, u32),
    /// Its live numbers, and whether it has set up its connections.
    Live(Moment, bool),
    /// Its results.
    Tally(Box<Tally>),
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
    /// Setting up has ended.
    pub ready: AtomicBool,
}

impl Live {
    /// Takes the numbers of a further process.
    pub fn set(&self, now: Moment, is_ready: bool) {
        self.connected.store(now.connected, Relaxed);
        self.events.store(now.events, Relaxed);
        self.publishes.store(now.publishes, Relaxed);
        self.ready.store(is_ready, SeqCst);
    }
}

/// One thread of a run.
pub struct Worker {
    /// The run.
    pub plan: Arc<Plan>,
    /// Number among all workers of the run. Worker 0 publishes.
    pub index: usize,
    /// Number within this process.
    pub local: usize,
    /// The shared state.
    pub shared: Arc<Shared>,
}

/// The phase of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Some workers are not ready.
    Waiting,
    /// Running, before the measured time.
    Warmup,
    /// The measured time.
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

    /// The phase at `now`.
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

    /// Marks this worker as ready, and serves its connections until all workers are.
    pub fn ready(&self, net: &mut Net, handler: &mut impl Handler) -> std::io::Result<()> {
        self.live().ready.store(true, SeqCst);
        while self.phase(now_ns()) == Phase::Waiting {
            net.turn(handler, Some(Duration::from_millis(1)))?;
        }
        Ok(())
    }

    /// Reports that all messages below `front` have reached this worker's subscribers, and wakes the publisher.
    pub fn advance_front(&self, front: u32) {
        self.shared.advance(self.index, front);
        self.shared.tell_first(&Word::Front(self.index, front));
    }
}

/// The measured time of a worker: the values of its cumulative counters at both ends.
#[derive(Default)]
pub struct Window {
    /// Connections that the scenario wants.
    pub wanted: u64,
    /// Connections that were open when setting up ended.
    pub connected: u64,
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
    /// Must be called every turn with the current values of the counters, which it also writes to the live numbers. Returns the
    /// time, or `None` when the run is over.
    pub fn turn(&mut self, worker: &Worker, net: &Net, events: u64, publishes: u64) -> Option<u64> {
        let now = now_ns();
        let phase = worker.phase(now);
        self.mark(phase, now, events, publishes);
        worker.live().connected.store(net.open as u64, Relaxed);
        worker.live().events.store(events, Relaxed);
        worker.live().publishes.store(publishes, Relaxed);
        (phase != Phase::Over).then_some(now)
    }

    /// Whether the measured time has begun and not ended.
    pub fn is_open(&self) -> bool {
        self.begin.is_some() && self.end.is_none()
    }

    /// Records the counters where `phase` is the first turn of the measured time, or the first after it.
    #[inline]
    pub fn mark(&mut self, phase: Phase, now: u64, events: u64, publishes: u64) {
        let wanted = match phase {
            Phase::Measure => &mut self.begin,
            Phase::Over if self.begin.is_some() => &mut self.end,
            _ => return,
        };
        if wanted.is_none() {
            *wanted = Some(Mark { now, cpu: thread_cpu_ns(), events, publishes });
        }
    }

    /// Adds the differences between the two ends to the tally.
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
