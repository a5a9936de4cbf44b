//! Numbers about this process from the system (proc(5)).

use rustix::process::{Resource, getrlimit};
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The numbers of the process; `None`: the system does not provide one.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Start time in seconds since the Unix epoch.
    pub start_time_s: f64,
    /// Bytes of resident memory.
    pub resident_bytes: Option<u64>,
    /// User and system time of all threads in seconds.
    pub cpu_s: f64,
    /// Number of open descriptors.
    pub open_fds: Option<u64>,
    /// Limit of open descriptors.
    pub max_fds: Option<u64>,
}

impl Process {
    /// The current values. `started`: when the process started.
    pub fn now(started: SystemTime) -> Process {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Process {
            start_time_s: started.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64(),
            resident_bytes: resident_bytes(),
            cpu_s: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            open_fds: open_fds(),
            max_fds: getrlimit(Resource::Nofile).current,
        }
    }
}

fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Since Linux 6.2 the size of the directory is the number of its entries. Older systems give no number: reading a
/// million entries at every scrape would block this thread.
fn open_fds() -> Option<u64> {
    fs::metadata("/proc/self/fd").ok().map(|directory| directory.len()).filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells() {
        let process = Process::now(SystemTime::now());
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 100_000), "{process:?}");
        assert!(process.cpu_s > 0.0, "{process:?}");
        assert!(process.max_fds.is_some(), "{process:?}");
    }
}
