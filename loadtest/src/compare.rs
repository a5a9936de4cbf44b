//! Comparison (stub while the engine is brought up).

use clap::Args;

/// Options of a comparison.
#[derive(Args)]
pub struct CompareArgs {}

/// Compares.
pub fn compare(_args: &CompareArgs) -> anyhow::Result<()> {
    Ok(())
}
