//! The machine that a measurement ran on.

use crate::affinity;

/// Processor, number of cores, kernel.
pub fn description() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let kernel: Vec<&str> = kernel.trim().split('.').take(2).collect();
    format!("{model}, {} cores, Linux {}", affinity::cores().len(), kernel.join("."))
}
