//! The binary: its allocator, and the first moment of the process. The rest is [`cli`].

mod cli;

use corecast::server::signals;
use std::process::ExitCode;

/// Returns freed memory to the system: `tikv-jemallocator` in `Cargo.toml` says why.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Parsing the command line takes milliseconds in which a signal would be lost. Client commands keep the system's handling.
    let calls = cli::is_server(std::env::args_os().nth(1)).then(signals::catch);
    cli::run(calls)
}
