//! The log: lines on stderr. A separate thread writes them, so that a pipe that is not read does not block a shard.

use super::NO_THREAD;
use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::{self, IsTerminal};
use std::thread;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, reload};

/// The running log.
pub struct Log {
    /// Changes the level.
    pub(super) set_level: Box<dyn Fn(LevelFilter) + Send>,
    /// Lines dropped so far because stderr was read too slowly.
    pub(super) lines_dropped: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// Starts the log. Drop the second value last: that writes the lines which still wait.
///
/// # Errors
/// The system refuses a thread.
pub fn start(level: LevelFilter) -> anyhow::Result<(Log, LastLines)> {
    // The library panics if it cannot start its thread.
    drop(thread::Builder::new().spawn(|| ()).context(NO_THREAD)?.join());
    let (filter, handle) = reload::Layer::new(level);
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(LINES_MAX).thread_name("log").finish(io::stderr());
    let dropped = writer.error_counter();
    let lines = fmt::layer().compact().with_writer(writer).with_ansi(io::stderr().is_terminal());
    // An error of the log is reported on stderr by a macro that panics if stderr is a full disk.
    let lines = lines.log_internal_errors(false);
    tracing_subscriber::registry().with(filter).with(lines).init();
    let log = Log {
        // Fails only if the subscriber, and so the log, has ended.
        set_level: Box::new(move |level| drop(handle.reload(level))),
        lines_dropped: Box::new(move || dropped.dropped_lines() as u64),
    };
    Ok((log, LastLines(Some(guard))))
}

/// On drop, writes the lines that still wait, for at most a second. If stderr is not read they are abandoned: the library's
/// guard would wait in vain and print an error on stdout.
pub struct LastLines(Option<WorkerGuard>);

impl Drop for LastLines {
    fn drop(&mut self) {
        let stderr = io::stderr();
        let is_read = rustix::event::poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&TIMEOUT));
        if is_read == Ok(0) {
            std::mem::forget(self.0.take());
        }
    }
}

/// How long stderr may take at the end.
const TIMEOUT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Lines that may wait to be written, of about 150 bytes each. Further ones are dropped and counted.
const LINES_MAX: usize = 8192;
