//! The numbers of a run: latencies, deliveries, faults, and how busy the load generator itself was.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::track::Faults;

/// A histogram of latencies in nanoseconds, exact to three digits.
#[derive(Clone)]
pub struct Latency(Histogram<u64>);

impl Latency {
    /// An empty histogram.
    pub fn new() -> Latency {
        // 1 µs to 10 minutes. Values outside count as the nearest bound.
        Latency(Histogram::new_with_bounds(1_000, 600_000_000_000, 3).expect("constant bounds are legal"))
    }

    /// Counts `count` latencies of `ns`.
    #[inline]
    pub fn record(&mut self, ns: u64, count: u64) {
        self.0.saturating_record_n(ns, count);
    }

    /// The number of latencies.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency at a quantile from 0 to 1.
    pub fn quantile(&self, share: f64) -> u64 {
        self.0.value_at_quantile(share)
    }

    /// The largest latency.
    pub fn max(&self) -> u64 {
        self.0.max()
    }

    /// The arithmetic mean.
    pub fn mean(&self) -> f64 {
        self.0.mean()
    }

    fn add(&mut self, other: &Latency) {
        self.0.add(&other.0).expect("all histograms have the same bounds");
    }
}

impl Serialize for Latency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())))
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Latency, D::Error> {
        let mut latency = Latency::new();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            latency.record(value, count);
        }
        Ok(latency)
    }
}

/// The numbers of one worker, or the sum over several.
#[derive(Default, Clone, Serialize, Deserialize)]
pub struct Tally {
    /// Connections that the scenario wants.
    pub wanted: u64,
    /// Connections open when the run began.
    pub connected: u64,
    /// Connections that the server ended.
    pub disconnected: u64,
    /// Deliveries, pongs, handshakes or what else the scenario counts, within the measured time.
    pub events: u64,
    /// Publishes within the measured time.
    pub publishes: u64,
    /// Publishes that were due in the open loop within the measured time, sent or not.
    pub owed: u64,
    /// Publishes refused by the server.
    pub refused: u64,
    /// Messages that `--verify` found to be wrong.
    pub invalid: u64,
    /// Messages that never arrived, although later ones of their channel did.
    pub skipped: u64,
    /// Messages that had not arrived when the drain ended, including those for connections that ended early.
    pub undelivered: u64,
    /// Requests without an answer: pings, subscribes, unsubscribes, publishes.
    pub unanswered: u64,
    /// The number of subscriptions that expect each message next. `undelivered` is computed from it with `stride` and
    /// `published`.
    pub awaited: BTreeMap<u32, u64>,
    /// The distance between the numbers of two messages of one channel.
    pub stride: u32,
    /// Messages published in the whole run.
    pub published: u32,
    /// See [`Faults`].
    pub duplicated: u64,
    /// See [`Faults`].
    pub reordered: u64,
    /// Measured time of each worker, in nanoseconds.
    pub window_ns: Vec<u64>,
    /// CPU time of each worker within it.
    pub cpu_ns: Vec<u64>,
    /// Bytes received within the whole run.
    pub bytes_read: u64,
    /// Reads that returned something, within the whole run.
    pub reads: u64,
    /// Workers that ended with an error.
    pub failed_workers: u64,
    /// Latencies by name; the scenario says which is the main one.
    pub latencies: BTreeMap<String, Latency>,
    /// What only some scenarios count, by name.
    pub counts: BTreeMap<String, u64>,
    /// Remarks for the report, and how often each was made.
    pub notes: BTreeMap<String, u64>,
}

impl Tally {
    /// Adds the faults of a tracker.
    pub fn add_faults(&mut self, faults: Faults) {
        self.skipped += faults.lost;
        self.duplicated += faults.duplicated;
        self.reordered += faults.reordered;
    }

    /// Counts undelivered messages, once the tallies of all workers are added up: only one of them knows what was published.
    pub fn settle(&mut self) {
        let missing = |next: u32| u64::from(self.published.saturating_sub(next).div_ceil(self.stride.max(1)));
        self.undelivered += self.awaited.iter().map(|(&next, count)| count * missing(next)).sum::<u64>();
        self.awaited.clear();
    }

    /// The number of each kind of fault and loss.
    pub fn faults(&self) -> [(u64, &'static str); 8] {
        [
            (self.skipped, "messages lost"),
            (self.undelivered, "messages not delivered at the end"),
            (self.unanswered, "requests without an answer"),
            (self.duplicated, "messages arrived twice"),
            (self.reordered, "messages out of order"),
            (self.invalid, "messages were not as published"),
            (self.disconnected, "connections closed by the server"),
            (self.refused, "publishes refused"),
        ]
    }

    /// Messages that were published for a subscription and never arrived.
    pub fn lost(&self) -> u64 {
        self.skipped + self.undelivered
    }

    /// Adds a remark for the report.
    pub fn note(&mut self, what: impl Into<String>) {
        *self.notes.entry(what.into()).or_default() += 1;
    }

    /// Adds to what only some scenarios count.
    pub fn count(&mut self, name: &str, count: u64) {
        *self.counts.entry(name.to_owned()).or_default() += count;
    }

    /// Adds another worker's tally.
    pub fn add(&mut self, other: Tally) {
        self.wanted += other.wanted;
        self.connected += other.connected;
        self.disconnected += other.disconnected;
        self.events += other.events;
        self.publishes += other.publishes;
        self.owed += other.owed;
        self.refused += other.refused;
        self.invalid += other.invalid;
        self.skipped += other.skipped;
        self.undelivered += other.undelivered;
        self.unanswered += other.unanswered;
        add_all(&mut self.awaited, other.awaited);
        self.stride = self.stride.max(other.stride);
        self.published = self.published.max(other.published);
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.window_ns.extend(other.window_ns);
        self.cpu_ns.extend(other.cpu_ns);
        self.bytes_read += other.bytes_read;
        self.reads += other.reads;
        self.failed_workers += other.failed_workers;
        for (name, latency) in other.latencies {
            match self.latencies.get_mut(&name) {
                Some(sum) => sum.add(&latency),
                None => drop(self.latencies.insert(name, latency)),
            }
        }
        add_all(&mut self.counts, other.counts);
        add_all(&mut self.notes, other.notes);
    }

    /// Measured seconds: the mean over workers.
    pub fn seconds(&self) -> f64 {
        let sum: u64 = self.window_ns.iter().sum();
        sum as f64 / 1e9 / self.window_ns.len().max(1) as f64
    }

    /// The busiest worker's share of a core.
    pub fn busy(&self) -> f64 {
        let shares = self.cpu_ns.iter().zip(&self.window_ns).map(|(&cpu, &wall)| cpu as f64 / wall.max(1) as f64);
        shares.fold(0.0, f64::max)
    }
}

fn add_all<K: Ord>(sums: &mut BTreeMap<K, u64>, other: BTreeMap<K, u64>) {
    for (key, count) in other {
        *sums.entry(key).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_survives_the_trip_between_processes() {
        let mut latency = Latency::new();
        for ns in [1_500, 20_000, 20_000, 3_000_000] {
            latency.record(ns, 2);
        }
        let mut tally = Tally { events: 5, window_ns: vec![10], cpu_ns: vec![9], ..Tally::default() };
        tally.latencies.insert("receipt".into(), latency.clone());
        tally.note("something");
        let mut back: Tally = serde_json::from_str(&serde_json::to_string(&tally).unwrap()).unwrap();
        assert_eq!(back.latencies["receipt"].count(), 8);
        assert_eq!(back.latencies["receipt"].quantile(0.5), latency.quantile(0.5));
        back.add(tally);
        assert_eq!((back.events, back.latencies["receipt"].count(), back.notes["something"]), (10, 16, 2));
        assert!((back.busy() - 0.9).abs() < 1e-9);
    }

    #[test]
    fn what_no_worker_has_seen_is_undelivered() {
        // The publisher's process has no subscriber. Of the other's two, one saw message 0 and the other nothing.
        let mut tally = Tally { published: 10, stride: 2, ..Tally::default() };
        tally.add(Tally { awaited: BTreeMap::from([(2, 1), (1, 1)]), stride: 2, ..Tally::default() });
        tally.settle();
        assert_eq!((tally.undelivered, tally.lost()), (4 + 5, 9));
    }
}
