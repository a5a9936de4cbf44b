//! The shards' numbers, asked for at most every so often, however many requests want them.

use super::shards::{Shards, Unavailable};
use crate::api::Reply;
use crate::api::operation::Stats;
use crate::metrics;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// What `stats` answers.
#[derive(Debug)]
pub struct Numbers {
    /// When they came: rates are what changed between two snapshots, by the time between them.
    pub taken: Instant,
    /// The sums, by name.
    pub stats: HashMap<String, u64>,
    /// Each shard's.
    pub shards: Vec<HashMap<String, u64>>,
}

/// The latest numbers. To count what is held, shards walk their tables: a flood of requests to `/ready` or `/metrics` makes
/// them do that no more than once in [`AGE_MAX`].
#[derive(Default)]
pub struct Snapshot(Mutex<Option<Arc<Numbers>>>);

impl Snapshot {
    /// The numbers, at most [`AGE_MAX`] old. Requests that come while they are being fetched wait for the same.
    pub async fn numbers(&self, shards: &Shards) -> Result<Arc<Numbers>, Unavailable> {
        let mut latest = self.0.lock().await;
        if let Some(numbers) = &*latest
            && numbers.taken.elapsed() < AGE_MAX
        {
            return Ok(numbers.clone());
        }
        let Ok(Reply::Stats { stats, shards }) = shards.ask(Stats {}.into()).await? else {
            return Err(Unavailable::Closed);
        };
        let by_name = |stats: &metrics::Stats| stats.values().map(|(name, value)| (name.into_owned(), value)).collect();
        let (stats, shards) = (by_name(&stats), shards.iter().map(by_name).collect());
        let numbers = Arc::new(Numbers { taken: Instant::now(), stats, shards });
        *latest = Some(numbers.clone());
        Ok(numbers)
    }
}

/// Scrapes come every few seconds, readiness probes likewise.
pub const AGE_MAX: Duration = Duration::from_millis(500);
