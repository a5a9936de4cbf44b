//! CPU time, memory and context switches of the server's process, from /proc.

use std::fs;

use serde::{Deserialize, Serialize};

/// The usage of a process and its children, in which nginx does its work.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time so far of all running threads, in nanoseconds.
    pub cpu_ns: u64,
    /// CPU time in user mode, in nanoseconds (the kernel counts it in ticks of 10 ms).
    pub user_ns: u64,
    /// CPU time in the kernel, likewise in ticks.
    pub system_ns: u64,
    /// Resident memory, in bytes.
    pub rss_bytes: u64,
    /// The part of it that is anonymous: data, not the program file.
    pub anon_bytes: u64,
    /// Context switches of threads that waited.
    pub switches_voluntary: u64,
    /// Context switches of threads that were preempted.
    pub switches_involuntary: u64,
}

/// Reads the usage of `pid` and its children. `None` if the process has ended.
pub fn usage(pid: u32) -> Option<Usage> {
    let mut sum = Usage::default();
    fs::metadata(format!("/proc/{pid}")).ok()?;
    for pid in family(pid) {
        add_process(pid, &mut sum);
    }
    Some(sum)
}

/// Resident memory of these processes, in bytes. It is cheap enough to be read often during a measurement.
pub fn rss_bytes(family: &[u32]) -> u64 {
    family.iter().map(|&pid| status_field(&status(pid), "VmRSS:") * 1024).sum()
}

/// Open descriptors of a process. Counting thousands takes milliseconds.
pub fn descriptors(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64)
}

/// Connections that listeners of this machine have dropped because their backlog was full.
pub fn listen_drops() -> u64 {
    let text = fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut fields = names.split(' ').zip(values.split(' '));
    fields.find(|(name, _)| *name == "ListenDrops").and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

/// Memory of the buffers of all TCP sockets of this machine, in bytes. `None` if the kernel does not tell.
pub fn tcp_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/net/sockstat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let pages: u64 = line.split_ascii_whitespace().skip_while(|&word| word != "mem").nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// `pid` and its descendants.
pub fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut at = 0;
    while at < family.len() {
        for task in tasks(family[at]) {
            let children = fs::read_to_string(format!("{task}/children")).unwrap_or_default();
            family.extend(children.split_ascii_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        at += 1;
    }
    family
}

fn add_process(pid: u32, sum: &mut Usage) {
    for task in tasks(pid) {
        let schedstat = fs::read_to_string(format!("{task}/schedstat")).unwrap_or_default();
        sum.cpu_ns += schedstat.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        let status = fs::read_to_string(format!("{task}/status")).unwrap_or_default();
        sum.switches_voluntary += status_field(&status, "voluntary_ctxt_switches:");
        sum.switches_involuntary += status_field(&status, "nonvoluntary_ctxt_switches:");
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold spaces, so the fields are counted after it.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0) * 10_000_000;
    sum.user_ns += ticks(11);
    sum.system_ns += ticks(12);
    let status = status(pid);
    sum.rss_bytes += status_field(&status, "VmRSS:") * 1024;
    sum.anon_bytes += status_field(&status, "RssAnon:") * 1024;
}

fn tasks(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path().to_string_lossy().into_owned()).collect()
}

fn status(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
}

fn status_field(status: &str, name: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line[name.len()..].split_ascii_whitespace().next());
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_has_memory_and_has_run() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 100_000);
        assert!(usage.cpu_ns > 0);
        assert!(super::usage(u32::MAX).is_none());
        assert!(rss_bytes(&[std::process::id()]) > 100_000);
        let before = descriptors(std::process::id());
        let _more: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        // Other tests open and close descriptors at the same time.
        assert!(descriptors(std::process::id()) > before + 25);
    }
}
