//! What the machine has: descriptors, memory, and the kernel's limits on connections.

use rustix::process::{Resource, getrlimit};
use std::fs;
use std::path::{Path, PathBuf};

/// What it has for this process.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Descriptors: the hard limit, to which the server raises its own.
    pub descriptors: u64,
    /// Memory, where it can be told.
    pub memory: Option<Memory>,
    /// Connections that may wait to be accepted.
    pub backlog_max: Option<u64>,
    /// Connections that the kernel's firewall tracks; `None`: it tracks none, or as many as there are.
    pub tracked_max: Option<u64>,
}

/// Memory that is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// So much.
    pub bytes: u64,
    /// Who sets that bound.
    pub whose: &'static str,
}

impl Machine {
    /// Looks.
    pub fn look() -> Machine {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
        Machine {
            descriptors: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
            memory: memory(),
            backlog_max: number("/proc/sys/net/core/somaxconn"),
            tracked_max: number("/proc/sys/net/netfilter/nf_conntrack_max").and_then(tracked_max),
        }
    }
}

/// The kernel takes 0 for no limit.
fn tracked_max(number: u64) -> Option<u64> {
    (number > 0).then_some(number)
}

/// What is available in the machine, or less where the process's control group has a limit.
fn memory() -> Option<Memory> {
    let available = available(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = group_limit(Path::new("/sys/fs/cgroup"), &groups);
    let machine = Memory { bytes: available, whose: "this machine" };
    match limit.map(|bytes| Memory { bytes, whose: "the control group" }) {
        Some(group) if group.bytes < machine.bytes => Some(group),
        _ => Some(machine),
    }
}

/// `MemAvailable` of /proc/meminfo (proc_meminfo(5)).
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The least limit of the control groups that /proc/self/cgroup names, and of those above them (cgroups(7)): version 2, and
/// the memory controller of version 1. Inside a container the names may be those outside it; then what can be found counts.
fn group_limit(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (hierarchy, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (mount, file) = match (hierarchy, controllers) {
            ("0", "") => (root.to_path_buf(), "memory.max"),
            (_, controllers) if controllers.split(',').any(|controller| controller == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let group: PathBuf = mount.join(path.trim_start_matches('/'));
        let above = group.ancestors().take_while(|directory| directory.starts_with(&mount));
        // "max", and no file, are no limit.
        above.filter_map(|directory| fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()).min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_descriptors_and_memory() {
        let machine = Machine::look();
        assert!(machine.descriptors > 0);
        assert!(machine.memory.is_some_and(|memory| memory.bytes > 1 << 20));
    }

    #[test]
    fn a_firewall_that_tracks_at_most_0_tracks_all() {
        assert_eq!([0, 262_144].map(tracked_max), [None, Some(262_144)]);
    }

    #[test]
    fn available_memory_is_read() {
        let meminfo = "MemTotal:       24683520 kB\nMemFree:          123 kB\nMemAvailable:   1000 kB\nBuffers: 1 kB\n";
        assert_eq!(available(meminfo), Some(1_024_000));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn the_least_limit_of_a_group_and_those_above_it_counts() {
        let root = std::env::temp_dir().join(format!("corecast-groups-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let file = root.join(path);
            fs::create_dir_all(file.parent().expect("a directory")).expect("created");
            fs::write(file, text).expect("written");
        };
        write("system.slice/memory.max", "2000000\n");
        write("system.slice/corecast.service/memory.max", "max\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/job/memory.limit_in_bytes", "1000000\n");
        let check = |groups: &str, expected| assert_eq!(group_limit(&root, groups), expected, "{groups}");
        check("0::/system.slice/corecast.service\n", Some(2_000_000));
        check("0::/elsewhere\n", None);
        check("3:cpuset:/\n4:memory:/job\n0::/\n", Some(1_000_000));
        check("4:cpu,memory:/job/inner\n", Some(1_000_000));
        check("no groups\n", None);
        fs::remove_dir_all(&root).expect("removed");
    }
}
