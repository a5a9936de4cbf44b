//! The server's memory while clients load it, at its peak, and after they have left.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::{Findings, Subject};
use crate::procfs;

/// A reading of the memory, in bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Memory {
    /// The server's data.
    pub anon: u64,
    /// All resident memory of the server.
    pub rss: u64,
    /// Buffers of all TCP sockets of this machine, of servers and clients alike; `None` if the kernel does not tell.
    pub kernel: Option<u64>,
}

/// What is left after the clients have closed their connections.
pub struct Release {
    /// The memory then.
    pub after: Memory,
    /// The bytes of `anon` that may be left.
    pub allowed: u64,
    /// Time until no more than that was left.
    pub seconds: f64,
}

impl Memory {
    /// The larger value of each.
    fn max(self, other: Memory) -> Memory {
        Memory { anon: self.anon.max(other.anon), rss: self.rss.max(other.rss), kernel: self.kernel.max(other.kernel) }
    }
}

impl Subject {
    /// The memory now.
    pub fn memory(&self) -> Memory {
        let usage = self.usage();
        Memory { anon: usage.anon_bytes, rss: usage.rss_bytes, kernel: procfs::tcp_bytes() }
    }

    /// Memory that the server may take once and keep.
    pub fn slack(&self) -> u64 {
        SLACK * self.args.server.shards.max(1) as u64
    }

    /// Does the work, and returns the memory at its peak meanwhile.
    pub fn peak_during<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, Memory)> {
        let (peak, is_done) = (Mutex::new(self.memory()), AtomicBool::new(false));
        let done = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(SeqCst) {
                    let now = self.memory();
                    if let Ok(mut peak) = peak.lock() {
                        *peak = peak.max(now);
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            let done = work();
            is_done.store(true, SeqCst);
            done
        })?;
        Ok((done, peak.into_inner().unwrap_or_default()))
    }

    /// Waits until the server has returned what it took beyond `before`, or for 10 s.
    pub fn wait_until_released(&self, before: Memory, peak: Memory) -> Release {
        let start = Instant::now();
        let allowed = before.anon + peak.anon.saturating_sub(before.anon) / 100 * KEPT_PERCENT + self.slack();
        while self.memory().anon > allowed && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(50));
        }
        Release { after: self.memory(), allowed, seconds: start.elapsed().as_secs_f64() }
    }
}

impl Findings {
    /// The memory that was taken must have been returned.
    pub fn check_released(&mut self, before: Memory, peak: Memory, release: &Release) {
        let (after, peak, before) = (release.after.anon, peak.anon, before.anon);
        self.check(after <= release.allowed, format!("{after} bytes are left of a peak of {peak}, {before} before"));
    }
}

/// Share of the grown memory that may remain: the records of the allocator.
const KEPT_PERCENT: u64 = 2;
/// What a shard may take once and keep: the pool of pages, the parsers' buffers, grown tables.
const SLACK: u64 = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_the_largest_of_each_value() {
        let first = Memory { anon: 1, rss: 9, kernel: None };
        let second = Memory { anon: 2, rss: 5, kernel: Some(4) };
        assert_eq!(first.max(second), Memory { anon: 2, rss: 9, kernel: Some(4) });
    }

    #[test]
    fn memory_that_is_left_is_a_violation() {
        let check = |after| {
            let mut findings = Findings::default();
            let memory = |anon| Memory { anon, ..Memory::default() };
            let release = Release { after: memory(after), allowed: 10, seconds: 0.0 };
            findings.check_released(memory(5), memory(50), &release);
            findings.violations.is_empty()
        };
        assert!(check(10) && !check(11));
    }
}
