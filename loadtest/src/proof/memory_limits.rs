//! What `--check-config` prints of the memory that a server can take at its limits.

use std::process::Command;

use anyhow::Context;

use super::Subject;

/// The sums, in bytes.
pub struct MemoryLimits {
    /// Idle connections, and what clients can add.
    pub clients: u64,
    /// The messages that channels keep.
    pub kept: u64,
    /// The printed lines about them.
    pub lines: Vec<String>,
}

impl Subject {
    /// Asks the server's binary about the options and the rules that the server runs with.
    pub fn memory_limits(&self) -> anyhow::Result<MemoryLimits> {
        let server = &self.args.server;
        let mut command = Command::new(server.starter(&self.stop).corecast()?);
        command.args(["serve", "--check-config", "--shards", &server.shards.max(1).to_string()]);
        command.args(&self.options);
        if let Some(config) = &self.server.config {
            command.arg("--config").arg(config);
        }
        let said = String::from_utf8(command.output()?.stdout)?;
        let sum = |start: &str| {
            let line = said.lines().find(|line| line.starts_with(start));
            let bytes = line.and_then(last_amount);
            bytes.with_context(|| format!("--check-config prints no amount for {start:?}:\n{said}"))
        };
        let is_relevant =
            |line: &&str| ["  outboxes", "  kept messages", "memory that"].iter().any(|it| line.starts_with(it));
        Ok(MemoryLimits {
            clients: sum("memory that clients can take")?,
            kept: sum("  kept messages of all channels")?,
            lines: said.lines().filter(is_relevant).map(single_spaced).collect(),
        })
    }
}

/// A line of a table, without its columns.
fn single_spaced(line: &str) -> String {
    line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// The number of bytes at the end of a line, in the format of the server: `3.2 GiB`.
fn last_amount(line: &str) -> Option<u64> {
    let mut words = line.rsplit(' ').filter(|word| !word.is_empty());
    let (unit, number) = (words.next()?, words.next()?);
    let power = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].iter().position(|&name| name == unit)?;
    Some((number.parse::<f64>().ok()? * 1024f64.powi(power as i32)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_the_server_writes_them() {
        assert_eq!(last_amount("memory: 3.5 GiB"), Some(7 << 29));
        assert_eq!(last_amount("what clients can add    1.0 KiB a shard,     512 B"), Some(512));
        assert_eq!(last_amount("3.5 GB"), None);
        assert_eq!(last_amount(""), None);
    }
}
