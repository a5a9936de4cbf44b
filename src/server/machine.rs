//! What the machine has for this process: descriptors, memory, cores, and the kernel's limits on connections.

use crate::config::Pin;
use rustix::process::{Resource, getrlimit};
use std::fs;
use std::path::{Path, PathBuf};

/// What the machine has for this process.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Descriptors: the hard limit, to which the server raises its own.
    pub descriptors: u64,
    /// Memory; `None`: unknown.
    pub memory: Option<Memory>,
    /// Connections that may wait to be accepted.
    pub backlog_max: Option<u64>,
    /// Connections that the kernel's firewall tracks; `None`: it tracks none, or has no limit.
    pub tracked_max: Option<u64>,
    /// Cores that the process may run on: its affinity mask.
    pub cores: usize,
    /// CPU time that the control groups allow, in thousandths of a core; `None`: no quota.
    pub quota_milli: Option<u64>,
}

/// Memory that is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes.
    pub bytes: u64,
    /// Where this bound comes from.
    pub source: &'static str,
}

impl Machine {
    /// Reads them.
    pub fn look() -> Machine {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Machine {
            descriptors: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
            memory: memory(&groups),
            backlog_max: number("/proc/sys/net/core/somaxconn"),
            tracked_max: number("/proc/sys/net/netfilter/nf_conntrack_max").and_then(tracked_max),
            cores: core_affinity::get_core_ids().map_or(0, |cores| cores.len()),
            quota_milli: group_quota(Path::new(GROUPS), &groups),
        }
    }

    /// Why shards are not pinned although `pin` is auto; `None`: they are pinned, or `pin` is none.
    ///
    /// A quota does not name cores. Servers with a quota would all pin to the first cores and leave the others idle.
    pub fn unpinned(&self, pin: Pin) -> Option<String> {
        let quota = self.quota_milli.filter(|quota| *quota < 1000 * self.cores as u64 && pin == Pin::Auto)?;
        Some(format!(
            "shards are not pinned to cores: the control group's CPU quota is {} of the {} cores that the process may use",
            quota as f64 / 1000.0,
            self.cores
        ))
    }
}

/// The kernel takes 0 for no limit.
fn tracked_max(number: u64) -> Option<u64> {
    (number > 0).then_some(number)
}

/// What is available in the machine, or less if a control group of the process has a limit.
fn memory(groups: &str) -> Option<Memory> {
    let available = available(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let limit = group_limit(Path::new(GROUPS), groups);
    let machine = Memory { bytes: available, source: "this machine" };
    match limit.map(|bytes| Memory { bytes, source: "the control group" }) {
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

/// The smallest memory limit of the process's control groups, bytes.
fn group_limit(root: &Path, groups: &str) -> Option<u64> {
    let number = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse().ok();
    smallest(root, groups, "memory", |directory, is_version_2| {
        // "max" and a missing file mean: unlimited. Beyond memory.high a process is slowed down until it hardly runs.
        let files = if is_version_2 { &["memory.max", "memory.high"][..] } else { &["memory.limit_in_bytes"] };
        files.iter().filter_map(|file| number(directory.join(file))).min()
    })
}

/// The smallest CPU quota of the process's control groups, in thousandths of a core.
fn group_quota(root: &Path, groups: &str) -> Option<u64> {
    smallest(root, groups, "cpu", |directory, is_version_2| {
        let read = |file: &str| fs::read_to_string(directory.join(file)).ok();
        let text = match is_version_2 {
            true => read("cpu.max")?,
            false => read("cpu.cfs_quota_us")? + " " + &read("cpu.cfs_period_us")?,
        };
        let (quota, period) = text.trim().split_once(char::is_whitespace)?;
        // "max" and -1 mean: unlimited.
        let (quota, period): (u64, u64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
        (quota * 1000).checked_div(period)
    })
}

/// The smallest limit of the control groups that /proc/self/cgroup names and of those above them (cgroups(7)): version 2,
/// and a controller of version 1. Inside a container the names may be those outside it; then what can be found counts.
fn smallest(root: &Path, groups: &str, controller: &str, limit: impl Fn(&Path, bool) -> Option<u64>) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (hierarchy, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (mount, is_version_2) = match (hierarchy, controllers) {
            ("0", "") => (root.to_path_buf(), true),
            (_, controllers) if controllers.split(',').any(|name| name == controller) => (root.join(controller), false),
            _ => return None,
        };
        let group: PathBuf = mount.join(path.trim_start_matches('/'));
        let above = group.ancestors().take_while(|directory| directory.starts_with(&mount));
        above.filter_map(|directory| limit(directory, is_version_2)).min()
    });
    limits.min()
}

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

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
    fn shards_are_not_pinned_under_a_quota_that_limits_them() {
        let machine = |cores, quota_milli| Machine { cores, quota_milli, ..Machine::look() };
        let said = machine(2, Some(1000)).unpinned(Pin::Auto).expect("a quota of one of two cores");
        assert!(said.contains("quota is 1 of the 2 cores"), "{said}");
        assert!(machine(4, Some(2500)).unpinned(Pin::Auto).is_some_and(|said| said.contains("2.5 of the 4")));
        for (cores, quota) in [(2, None), (2, Some(2000)), (1, Some(4000))] {
            assert_eq!(machine(cores, quota).unpinned(Pin::Auto), None, "{cores} {quota:?}");
        }
        assert_eq!(machine(2, Some(1000)).unpinned(Pin::None), None);
    }

    #[test]
    fn the_smallest_quota_of_a_group_and_those_above_it_counts() {
        let root = std::env::temp_dir().join(format!("corecast-quotas-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let file = root.join(path);
            fs::create_dir_all(file.parent().expect("a directory")).expect("created");
            fs::write(file, text).expect("written");
        };
        write("pod/cpu.max", "150000 100000\n");
        write("pod/server/cpu.max", "max 100000\n");
        write("cpu/job/cpu.cfs_quota_us", "50000\n");
        write("cpu/job/cpu.cfs_period_us", "100000\n");
        write("cpu/cpu.cfs_quota_us", "-1\n");
        write("cpu/cpu.cfs_period_us", "100000\n");
        let check = |groups: &str, expected| assert_eq!(group_quota(&root, groups), expected, "{groups}");
        check("0::/pod/server\n", Some(1500));
        check("0::/elsewhere\n", None);
        check("3:cpu,cpuacct:/job\n0::/\n", Some(500));
        check("3:cpu,cpuacct:/\n", None);
        fs::remove_dir_all(&root).expect("removed");
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
        write("user.slice/memory.max", "3000000\n");
        write("user.slice/memory.high", "2500000\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/job/memory.limit_in_bytes", "1000000\n");
        let check = |groups: &str, expected| assert_eq!(group_limit(&root, groups), expected, "{groups}");
        check("0::/system.slice/corecast.service\n", Some(2_000_000));
        check("0::/user.slice/shell\n", Some(2_500_000));
        check("0::/elsewhere\n", None);
        check("3:cpuset:/\n4:memory:/job\n0::/\n", Some(1_000_000));
        check("4:cpu,memory:/job/inner\n", Some(1_000_000));
        check("no groups\n", None);
        fs::remove_dir_all(&root).expect("removed");
    }
}
