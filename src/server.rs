//! Assembly: limits, listeners, mesh, spawn and pin shards, signals, drain, join.

use crate::config::Config;

/// Serves until it is told to stop.
pub fn run(config: Config) -> anyhow::Result<()> {
    anyhow::bail!("this build cannot serve {} yet", config.listen)
}
