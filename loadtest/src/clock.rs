//! Clocks: one monotonic clock for every process of a run, CPU time of a thread, and the timer that paces the open loop.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};

/// Nanoseconds since some fixed moment. The same moment for all processes of a machine, so that a time written into a
/// message by one process can be read by another.
pub fn now_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// CPU time of the calling thread, in nanoseconds: how busy the load generator itself was.
pub fn thread_cpu_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::ThreadCPUTime))
}

/// A timer that wakes an event loop at a given time. It is finer than epoll's millisecond, which would gather publishes
/// into bursts.
pub struct Alarm {
    timer: OwnedFd,
    at_ns: u64,
}

impl Alarm {
    /// Registers a timer with an event loop.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Alarm> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Alarm { timer, at_ns: 0 })
    }

    /// Wakes the event loop at `at_ns` of [`now_ns`] instead of the time set before, but not within [`PAUSE_NS`].
    pub fn set(&mut self, at_ns: u64, now: u64) -> io::Result<()> {
        let at_ns = at_ns.max(now + PAUSE_NS);
        if self.at_ns > now && self.at_ns <= at_ns {
            return Ok(());
        }
        self.at_ns = at_ns;
        let at = Timespec { tv_sec: (at_ns / 1_000_000_000) as i64, tv_nsec: (at_ns % 1_000_000_000) as i64 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(())
    }

    /// Must be called whenever the timer was reported: the kernel reports it again only after it was read.
    pub fn acknowledge(&self) {
        // It fails where it was read already.
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
    }
}

fn nanoseconds(time: Timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Waking more often than this would itself be a load.
const PAUSE_NS: u64 = 50_000;
