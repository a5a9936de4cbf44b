//! Clocks: one monotonic clock for every process of a run, CPU time of a thread, and the timer that paces the open loop.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

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

/// A timer that wakes an event loop every so often: finer than epoll's millisecond, because rounding up to that would gather
/// publishes into bursts nobody asked for.
pub struct Ticker(OwnedFd);

impl Ticker {
    /// Registers a timer with an event loop.
    pub fn start(interval: Duration, registry: &Registry, token: Token) -> io::Result<Ticker> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let every = Timespec { tv_sec: interval.as_secs() as i64, tv_nsec: i64::from(interval.subsec_nanos()) };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: every, it_value: every })?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Ticker(timer))
    }

    /// To be called whenever it was reported: a kernel of 2026 reports it again only once it has been read.
    pub fn heard(&self) {
        // Nothing to read: it was read already.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

fn nanoseconds(time: Timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
