//! The shards' numbers, requested at most once per [`AGE_MAX`], however many requests need them.

use super::shards::{Shards, Unavailable};
use crate::api::Reply;
use crate::api::operation::Stats;
use crate::metrics;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// The reply to `stats`.
#[derive(Debug)]
pub struct Numbers {
    /// Time of the reply. A rate is the difference of two snapshots, divided by the time between them.
    pub taken: Instant,
    /// The totals, by name.
    pub stats: HashMap<String, u64>,
    /// The numbers of each shard.
    pub shards: Vec<HashMap<String, u64>>,
}

/// The latest numbers. Shards walk their tables to compute them, so even many requests to `/ready` or `/metrics` cause
/// only one walk per [`AGE_MAX`].
#[derive(Default)]
pub struct Snapshot(Mutex<Option<Arc<Numbers>>>);

impl Snapshot {
    /// The numbers, at most [`AGE_MAX`] old. Requests that arrive during a fetch share its result.
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

/// Scrapes and readiness probes are usually several seconds apart.
pub const AGE_MAX: Duration = Duration::from_millis(500);
