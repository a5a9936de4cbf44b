//! Every counter and gauge, declared once with its help. A shard counts in plain integers of its own; `stats` asks each
//! shard by mail, so nothing is shared and nothing is atomic. Gauges are read from the tables when asked.

/// One line of a table.
pub struct Entry {
    /// What `stats` calls it.
    pub name: &'static str,
    /// What Prometheus calls it (the convention: base units, `_total` on counters).
    pub metric: &'static str,
    /// Prometheus's value of one of ours.
    pub scale: u64,
    /// For people.
    pub help: &'static str,
}

/// Declares a table: a struct of integers, and in the same order what each is called by `stats` and by Prometheus, its
/// help, and its scale where the units differ.
macro_rules! table {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $metric:literal $(* $scale:literal)?, $help:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name { $(#[doc = $help] pub $field: u64,)* }

        impl $name {
            /// The table, in the order of declaration.
            pub const ENTRIES: &'static [Entry] = &[
                $(Entry { name: stringify!($field), metric: $metric, scale: 1 $(* $scale)?, help: $help },)*
            ];

            /// Name and value of each, in the order of declaration.
            pub fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field),)*].into_iter()
            }

            /// Adds another shard's.
            pub fn add(&mut self, other: &$name) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

table! {
    /// What a shard has counted since it started.
    Counters {
        accepts: "corecast_accepts_total", "Connections accepted by the WebSocket listener.",
        accept_errors: "corecast_accept_errors_total", "Accepts that failed, for want of descriptors or otherwise.",
        tls_handshakes: "corecast_tls_handshakes_total", "TLS handshakes finished.",
        tls_handshakes_resumed: "corecast_tls_handshakes_resumed_total", "Those of them that took up an earlier session by its ticket.",
        tls_handshakes_failed: "corecast_tls_handshakes_failed_total", "TLS handshakes that broke; the log at level debug says why.",
        upgrades: "corecast_upgrades_total", "Connections upgraded to WebSocket.",
        upgrades_refused: "corecast_upgrades_refused_total", "Upgrade requests answered with an HTTP error.",
        messages_in: "corecast_received_messages_total", "Text messages received from clients, those on the echo path not counted.",
        echo_messages: "corecast_echo_messages_total", "Messages sent back on the echo path.",
        echo_pauses: "corecast_echo_pauses_total", "Times an echo connection was not read because output waited for it.",
        messages_rate_limited: "corecast_messages_rate_limited_total", "Messages and control frames refused because their connection sends too many, or too much.",
        bytes_in: "corecast_received_bytes_total", "Bytes received from clients, without what TLS adds.",
        bytes_laid: "corecast_laid_bytes_total", "Bytes laid out for clients: written, waiting (outbox_bytes) or dropped (outbox_bytes_dropped).",
        bytes_out: "corecast_sent_bytes_total", "Bytes written to clients, without what TLS adds.",
        writes: "corecast_writes_total", "Write system calls on client sockets.",
        writes_blocked: "corecast_writes_blocked_total", "Writes that the kernel took only in part or not at all.",
        subscribes: "corecast_subscribes_total", "Subscriptions made.",
        unsubscribes: "corecast_unsubscribes_total", "Subscriptions ended by request of the client or the operator.",
        requests_refused: "corecast_requests_refused_total", "Requests of clients answered with an error event.",
        auth_failures: "corecast_auth_failures_total", "Subscriptions to private channels refused for want of a valid signature.",
        pings_sent: "corecast_pings_sent_total", "Heartbeats sent to clients.",
        pings_answered: "corecast_pings_answered_total", "Heartbeats of clients answered.",
        publishes: "corecast_publishes_total", "Messages given their place in a channel's order by this shard, the channel's owner.",
        deliveries: "corecast_deliveries_total", "Messages laid out for a subscriber.",
        deliveries_late: "corecast_deliveries_late_total", "Messages that found no subscriber left in a shard that had one when they were sent.",
        outbox_bytes_dropped: "corecast_outbox_dropped_bytes_total", "Bytes that waited for a connection when it ended.",
        address_drops: "corecast_address_drops_total", "Connections dropped unanswered: too many of their address were being told that they are too many.",
        addresses_forgotten: "corecast_addresses_forgotten_total", "Addresses whose haste was forgotten early, because there were too many of them.",
        admin_accepts: "corecast_admin_accepts_total", "Admin connections accepted.",
        admin_refused: "corecast_admin_refused_total", "Admin connections refused: too many were open.",
        admin_requests: "corecast_admin_requests_total", "Requests read from admin connections.",
        admin_errors: "corecast_admin_errors_total", "Requests of admin connections answered with an error.",
        admin_pauses: "corecast_admin_pauses_total", "Times an admin connection was not read because too much of what it asked for was unsettled, unanswered or unread.",
        events: "corecast_events_total", "Lifecycle events numbered by the journal, which begins with its first consumer.",
        events_lost: "corecast_events_lost_total", "Lifecycle events given up because too many waited for the journal; its consumers began anew.",
        event_consumers_too_slow: "corecast_event_consumers_too_slow_total", "Consumers of lifecycle events ended because what they had to read next was no longer kept.",
        sightings: "corecast_sightings_total", "Sightings given to those who watch live.",
        sightings_dropped: "corecast_sightings_dropped_total", "Sightings not given to them: more than they asked for in a second, or more than could wait for them.",
        mail_sent: "corecast_mail_sent_total", "Letters taken by other shards' inboxes.",
        mail_refused: "corecast_mail_refused_total", "Letters that found an inbox full and waited.",
        mail_received: "corecast_mail_received_total", "Letters received from other shards.",
        wakes: "corecast_wakes_total", "Wake-ups sent to other shards.",
        turns: "corecast_turns_total", "Turns of the event loop.",
        turns_over_budget: "corecast_turns_over_budget_total", "Turns that left work for the next one.",
        timers_fired: "corecast_timers_fired_total", "Timer entries that came due.",
        log_lines_dropped: "corecast_log_dropped_lines_total", "Log lines dropped because whoever reads stderr does not keep up; told by shard 0.",
        shutdown_cut_off: "corecast_shutdown_cut_off_total", "Connections that shutdown's deadline ended before all that waited for them was written.",
    }
}

table! {
    /// What a shard holds now.
    Gauges {
        connections: "corecast_connections", "Open client connections.",
        connections_echoing: "corecast_connections_echoing", "Those of them that are on the echo path.",
        connections_upgrading: "corecast_connections_upgrading", "Client connections whose upgrade is not finished.",
        newcomers_waiting: "corecast_newcomers_waiting", "Connections of the last second that wait for their turn: with their upgrade, TLS handshake or first messages.",
        tls_certificate_days: "corecast_tls_certificate_remaining_seconds" * 86400, "Time until the TLS certificate expires, in whole days and told by shard 0; 0: it has expired, or there is none.",
        connections_closing: "corecast_connections_closing", "Client connections whose close is under way.",
        connections_leaving: "corecast_connections_leaving", "Client connections that are to be closed by a drain, a shed or the stop, and wait for their turn.",
        is_draining: "corecast_draining", "Shards that accept nobody any more and close whom they have, over a time.",
        admin_connections: "corecast_admin_connections", "Open admin connections.",
        subscriptions: "corecast_subscriptions", "Live subscriptions.",
        channels: "corecast_channels", "Channels with a subscriber anywhere, counted by their owner.",
        addresses: "corecast_addresses", "Addresses that connections are counted for, by their owner.",
        hasty_addresses: "corecast_hasty_addresses", "Addresses that connected lately, where it is limited how often they may.",
        outbox_bytes: "corecast_outbox_bytes", "Bytes that wait for clients.",
        page_bytes: "corecast_page_bytes", "Heap bytes of turn buffers, in use and pooled.",
        event_consumers: "corecast_event_consumers", "Consumers of lifecycle events.",
        event_journal_bytes: "corecast_event_journal_bytes", "Bytes of the lifecycle events that are kept for consumers who come back.",
        tails: "corecast_tails", "Those who watch live, told by shard 0.",
        mail_waiting: "corecast_mail_waiting", "Letters that wait for room in another shard's inbox.",
    }
}

table! {
    /// What the HTTP listener has counted.
    HttpCounters {
        http_accepts: "corecast_http_accepts_total", "HTTP connections accepted.",
        http_refused: "corecast_http_refused_total", "HTTP connections refused: too many were open.",
        http_accept_errors: "corecast_http_accept_errors_total", "Accepts of the HTTP listener that failed.",
        http_requests: "corecast_http_requests_total", "HTTP requests.",
        http_client_errors: "corecast_http_client_errors_total", "HTTP requests answered with a status of 400 to 499.",
        http_server_errors: "corecast_http_server_errors_total", "HTTP requests answered with a status of 500 to 599.",
        http_publishes: "corecast_http_publishes_total", "Events published over HTTP.",
        http_auth_failures: "corecast_http_auth_failures_total", "HTTP requests refused for want of a valid signature.",
        console_key_failures: "corecast_console_key_failures_total", "Requests to the console refused for want of its key.",
        console_throttled: "corecast_console_throttled_total", "Requests to the console refused unread: too many of their address had a wrong key.",
        http_timeouts: "corecast_http_timeouts_total", "HTTP requests that were not answered in time.",
    }
}

table! {
    /// What webhooks have counted.
    WebhookCounters {
        webhook_requests: "corecast_webhook_requests_total", "Webhook requests sent, repetitions included.",
        webhook_failures: "corecast_webhook_failures_total", "Webhook requests that were not answered in time with a status of 200 to 299.",
        webhook_events: "corecast_webhook_events_total", "Events that a webhook's URL has taken, those of each URL counted.",
        webhook_streams_lost: "corecast_webhook_streams_lost_total", "Times the stream of events for webhooks broke off and was asked for anew.",
    }
}

table! {
    /// What webhooks hold now.
    WebhookGauges {
        webhook_waiting_events: "corecast_webhook_waiting_events", "Events that wait for a webhook's URL to take them, those of each URL counted.",
        webhook_waiting_bytes: "corecast_webhook_waiting_bytes", "Bytes of those.",
    }
}

/// [`WebhookStats::losses`].
pub const WEBHOOK_LOSSES: Labelled = Labelled {
    prefix: "webhook_dropped_",
    metric: "corecast_webhook_dropped_events_total",
    help: "Events that a webhook's URL was not told, by what kept it from them.",
};

/// All numbers of webhooks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookStats {
    /// Counted since the start.
    pub counters: WebhookCounters,
    /// Held now.
    pub gauges: WebhookGauges,
    /// Events that were not told, by the label of the reason.
    pub losses: Vec<(&'static str, u64)>,
}

/// Durations in buckets that double, plain integers like everything a shard counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Of bucket `i`: as long as [`Histogram::bound_us`] of it and longer than that of the one before.
    pub counts: [u64; Histogram::BUCKETS],
    /// All durations together, microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// The last one has no bound: 4.2 s and more.
    pub const BUCKETS: usize = 22;

    /// Longest duration of a bucket, microseconds: 4, 8, 16 … 4 194 304; `None`: any.
    pub const fn bound_us(bucket: usize) -> Option<u64> {
        if bucket + 1 < Self::BUCKETS { Some(4 << bucket) } else { None }
    }

    /// Counts one duration.
    pub fn observe(&mut self, us: u64) {
        let doublings = u64::BITS - us.saturating_sub(1).leading_zeros();
        self.counts[(doublings.saturating_sub(2) as usize).min(Self::BUCKETS - 1)] += 1;
        self.sum_us += us;
    }

    fn add(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(other.counts).for_each(|(sum, count)| *sum += count);
        self.sum_us += other.sum_us;
    }
}

/// A histogram as `stats` and Prometheus call it.
pub struct HistogramEntry {
    /// `NAME_us_to_4`, `NAME_us_to_8` … `NAME_us_above` and `NAME_us_sum`.
    pub name: &'static str,
    /// In seconds.
    pub metric: &'static str,
    /// For people.
    pub help: &'static str,
}

impl HistogramEntry {
    /// What `stats` calls a bucket.
    pub fn bucket_name(&self, bucket: usize) -> String {
        match Histogram::bound_us(bucket) {
            Some(bound) => format!("{}_us_to_{bound}", self.name),
            None => format!("{}_us_above", self.name),
        }
    }

    /// What `stats` calls the sum.
    pub fn sum_name(&self) -> String {
        format!("{}_us_sum", self.name)
    }
}

/// The histograms of [`Times`], in its order.
pub const HISTOGRAMS: [HistogramEntry; 2] = [
    HistogramEntry {
        name: "turn",
        metric: "corecast_turn_duration_seconds",
        help: "Turns of the event loop, from the end of the poll to the end of the flush.",
    },
    HistogramEntry {
        name: "written",
        metric: "corecast_publish_written_seconds",
        help: "For each turn of a shard that had messages for its subscribers: the age of the oldest of them, from the turn that \
               read it from its publisher to the end of the turn that had offered all of them to the kernel.",
    },
];

/// How long things took in a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Turns.
    pub turn: Histogram,
    /// From publish to written.
    pub written: Histogram,
}

impl Times {
    fn each(&self) -> [(&'static HistogramEntry, &Histogram); 2] {
        let [turn, written] = &HISTOGRAMS;
        [(turn, &self.turn), (written, &self.written)]
    }
}

/// Counts by a label: what `stats` puts before the label, and what Prometheus calls them.
pub struct Labelled {
    /// `PREFIX` and the label.
    pub prefix: &'static str,
    /// With the label `reason`.
    pub metric: &'static str,
    /// For people.
    pub help: &'static str,
}

/// [`Stats::closes`] and [`Stats::refusals`].
pub const LABELLED: [Labelled; 2] = [
    Labelled { prefix: "closes_", metric: "corecast_closes_total", help: "Connections that ended, by reason." },
    Labelled {
        prefix: "upgrades_refused_",
        metric: "corecast_upgrade_refusals_total",
        help: "Upgrade requests answered with an HTTP error, by what was wrong.",
    },
];

/// All numbers of one shard, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Counted since the start.
    pub counters: Counters,
    /// Connections that ended, by the label of their reason.
    pub closes: Vec<(&'static str, u64)>,
    /// Upgrade requests answered with an HTTP error, by the label of what was wrong.
    pub refusals: Vec<(&'static str, u64)>,
    /// Held now.
    pub gauges: Gauges,
    /// How long things took.
    pub times: Times,
}

impl Stats {
    /// Adds another shard's.
    pub fn add(&mut self, other: &Stats) {
        self.counters.add(&other.counters);
        self.gauges.add(&other.gauges);
        add_labelled(&mut self.closes, &other.closes);
        add_labelled(&mut self.refusals, &other.refusals);
        self.times.turn.add(&other.times.turn);
        self.times.written.add(&other.times.written);
    }

    /// Name and value of everything; closes are `closes_` and the reason's label, refusals `upgrades_refused_` and
    /// theirs, durations [`HistogramEntry::bucket_name`].
    pub fn values(&self) -> impl Iterator<Item = (std::borrow::Cow<'static, str>, u64)> {
        let labelled = LABELLED.iter().zip([&self.closes, &self.refusals]).flat_map(|(table, counts)| {
            counts.iter().map(|(label, count)| (format!("{}{label}", table.prefix).into(), *count))
        });
        let times = self.times.each().into_iter().flat_map(|(entry, histogram)| {
            let bucket = |(bucket, count): (usize, &u64)| (entry.bucket_name(bucket).into(), *count);
            let sum = (entry.sum_name().into(), histogram.sum_us);
            histogram.counts.iter().enumerate().map(bucket).chain([sum])
        });
        let named = |(name, value): (&'static str, u64)| (name.into(), value);
        self.gauges.values().map(named).chain(self.counters.values().map(named)).chain(labelled).chain(times)
    }
}

fn add_labelled(sums: &mut Vec<(&'static str, u64)>, others: &[(&'static str, u64)]) {
    if sums.is_empty() {
        return others.clone_into(sums);
    }
    for ((_, sum), (_, other)) in sums.iter_mut().zip(others) {
        *sum += other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_find_their_bucket() {
        for (us, bound) in [(0, 4), (4, 4), (5, 8), (8, 8), (9, 16), (4 << 20, 4 << 20)] {
            let mut histogram = Histogram::default();
            histogram.observe(us);
            let bucket = histogram.counts.iter().position(|count| *count == 1).unwrap();
            assert_eq!(Histogram::bound_us(bucket), Some(bound), "{us}");
        }
        let mut histogram = Histogram::default();
        histogram.observe((4 << 20) + 1);
        histogram.observe(u64::MAX >> 1);
        assert_eq!(histogram.counts[Histogram::BUCKETS - 1], 2);
    }

    #[test]
    fn metrics_are_named_by_the_convention_and_once() {
        let counters = Counters::ENTRIES.iter().chain(HttpCounters::ENTRIES);
        assert!(counters.clone().all(|entry| entry.metric.ends_with("_total")));
        assert!(Gauges::ENTRIES.iter().all(|entry| !entry.metric.ends_with("_total")));
        let mut names: Vec<&str> = counters.chain(Gauges::ENTRIES).map(|entry| entry.metric).collect();
        assert!(names.iter().all(|name| name.starts_with("corecast_")));
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
