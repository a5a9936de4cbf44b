//! The shards' numbers, asked for at most every so often, however many ask.

use super::pipe::{Pipe, Unavailable};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// What `stats` answers (PROTOCOL.md, The admin socket).
#[derive(Debug, Deserialize)]
pub struct Numbers {
    /// When they came: rates are what changed from one snapshot to another, by the time between them.
    #[serde(skip, default = "Instant::now")]
    pub taken: Instant,
    /// The sums, by name.
    pub stats: HashMap<String, u64>,
    /// Each shard's.
    pub shards: Vec<HashMap<String, u64>>,
}

/// The latest numbers. To count what is held, shards walk their connections: whoever floods `/ready` or `/metrics` makes them
/// do that no more than once in [`AGE_MAX`].
#[derive(Default)]
pub struct Snapshot(Mutex<Option<Arc<Numbers>>>);

impl Snapshot {
    /// The numbers, at most [`AGE_MAX`] old. Those who come while they are being fetched wait for the same.
    pub async fn numbers(&self, pipe: &Pipe) -> Result<Arc<Numbers>, Unavailable> {
        let mut latest = self.0.lock().await;
        if let Some(numbers) = &*latest
            && numbers.taken.elapsed() < AGE_MAX
        {
            return Ok(numbers.clone());
        }
        let reply = pipe.ask(br#"{"command":"stats"}"#)?.reply().await?;
        let numbers: Arc<Numbers> = Arc::new(serde_json::from_slice(&reply).map_err(|_| Unavailable::Closed)?);
        *latest = Some(numbers.clone());
        Ok(numbers)
    }
}

/// Scrapes come every few seconds, readiness probes likewise.
pub const AGE_MAX: Duration = Duration::from_millis(500);
