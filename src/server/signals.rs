//! SIGTERM, SIGINT and SIGHUP: caught before anything else is done, and passed on to the supervisor.

use super::NO_THREAD;
use crate::shard::orders::Call;
use anyhow::Context;
use crossbeam_channel::{Receiver, Sender, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::thread;
use std::time::{Duration, Instant};

/// Calls to the supervisor, from the start of the process on.
pub struct Calls {
    /// For the shards and signals.
    pub(super) sender: Sender<Call>,
    /// For the supervisor.
    pub(super) receiver: Receiver<Call>,
}

/// Installs the handlers. Call this first: until then a signal ends the process, or is lost where the process is a
/// container's PID 1. Signals that arrive before the supervisor runs wait for it.
///
/// # Errors
/// The system refuses a handler, or the thread that reads the signals.
pub fn catch() -> anyhow::Result<Calls> {
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("cannot catch signals")?;
    let (sender, receiver) = unbounded();
    let calls = sender.clone();
    thread::Builder::new().name("signals".into()).spawn(move || pass_on(signals, &calls)).context(NO_THREAD)?;
    Ok(Calls { sender, receiver })
}

/// The first SIGTERM or SIGINT ends the server. A later one ends the process at once, even if the supervisor is busy.
fn pass_on(mut signals: Signals, calls: &Sender<Call>) {
    let mut first: Option<Instant> = None;
    for signal in signals.forever() {
        let call = match (signal, first) {
            (SIGHUP, _) => Call::Reload,
            (SIGTERM, None) => Call::Terminate,
            (_, None) => Call::Interrupt,
            (_, Some(first)) if first.elapsed() < SAME_SIGNAL => {
                tracing::info!(signal, "signal within a second of the first: it counts as the first");
                continue;
            }
            (_, Some(_)) => {
                tracing::warn!(signal, "second signal: exiting at once");
                std::process::exit(1);
            }
        };
        if signal != SIGHUP {
            first = Some(Instant::now());
        }
        // The receiver lives as long as the process.
        let _ = calls.send(call);
    }
}

/// A terminal sends SIGINT to a whole process group, and wrappers forward it as SIGTERM: one Ctrl-C arrives twice.
const SAME_SIGNAL: Duration = Duration::from_secs(1);
