//! What is counted of webhooks, by all their tasks.

use crate::metrics::{WebhookCounters, WebhookStats};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The numbers. Clones share them.
#[derive(Clone)]
pub struct Tally(Arc<Mutex<WebhookStats>>);

/// Why an event is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Its queue was full.
    Full,
    /// It was offered for as long as the configuration says.
    Expired,
    /// The configuration no longer has its URL.
    Removed,
    /// The server has ended.
    Stopped,
}

impl Lost {
    /// Metric label of each, in the order of declaration.
    const LABELS: [&str; 4] = ["queue_full", "expired", "removed", "stopped"];

    /// For the log and the metric.
    pub fn label(self) -> &'static str {
        Lost::LABELS[self as usize]
    }
}

impl Default for Tally {
    fn default() -> Tally {
        let losses = Lost::LABELS.map(|label| (label, 0)).to_vec();
        Tally(Arc::new(Mutex::new(WebhookStats { losses, ..WebhookStats::default() })))
    }
}

impl Tally {
    /// As they are now.
    pub fn now(&self) -> WebhookStats {
        self.lock().clone()
    }

    /// Counts something.
    pub fn count(&self, count: impl FnOnce(&mut WebhookCounters)) {
        count(&mut self.lock().counters);
    }

    /// Counts dropped events.
    pub fn lose(&self, why: Lost, events: usize) {
        self.lock().losses[why as usize].1 += events as u64;
    }

    /// What a queue holds: before, and now.
    pub fn held(&self, before: (usize, usize), now: (usize, usize)) {
        let gauges = &mut self.lock().gauges;
        gauges.webhook_waiting_events = gauges.webhook_waiting_events + now.0 as u64 - before.0 as u64;
        gauges.webhook_waiting_bytes = gauges.webhook_waiting_bytes + now.1 as u64 - before.1 as u64;
    }

    fn lock(&self) -> MutexGuard<'_, WebhookStats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
