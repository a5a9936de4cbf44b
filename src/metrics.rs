//! Every counter and gauge, declared once with its help. A shard counts in plain integers of its own; `stats` asks each
//! shard by mail, so that nothing is shared or atomic. Gauges are read from the tables on request.

/// One line of a table.
pub struct Entry {
    /// Its name in `stats`.
    pub name: &'static str,
    /// Its name for Prometheus (by convention: base units, `_total` on counters).
    pub metric: &'static str,
    /// Value of its label `dialect`, if it has that label. Entries with the same metric are neighbours.
    pub dialect: Option<&'static str>,
    /// Factor from our unit to that of Prometheus.
    pub scale: u64,
    /// For people.
    pub help: &'static str,
}

/// Declares a table: a struct of integers, and in the same order the name of each in `stats` and for Prometheus, its help,
/// its dialect if the metric is labelled with one, and its scale if the units differ.
macro_rules! table {
    (@dialect) => { None };
    (@dialect $dialect:literal) => { Some($dialect) };
    ($(#[$meta:meta])* $name:ident {
        $($field:ident: $metric:literal $([$dialect:literal])? $(* $scale:literal)?, $help:literal,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name { $(#[doc = $help] pub $field: u64,)* }

        impl $name {
            /// The table, in the order of declaration.
            pub const ENTRIES: &'static [Entry] = &[
                $(Entry {
                    name: stringify!($field),
                    metric: $metric,
                    dialect: table!(@dialect $($dialect)?),
                    scale: 1 $(* $scale)?,
                    help: $help,
                },)*
            ];

            /// Name and value of each, in the order of declaration.
            pub fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field),)*].into_iter()
            }

            /// Adds those of another shard.
            pub fn add(&mut self, other: &$name) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

table! {
    /// Counters of a shard since its start.
    Counters {
        accepts: "corecast_accepts_total", "Connections accepted by the WebSocket listener.",
        accept_errors: "corecast_accept_errors_total", "Accepts that failed, for lack of descriptors or otherwise.",
        tls_handshakes: "corecast_tls_handshakes_total", "TLS handshakes completed.",
        tls_handshakes_resumed: "corecast_tls_handshakes_resumed_total", "TLS handshakes that resumed an earlier session by its ticket.",
        tls_handshakes_failed: "corecast_tls_handshakes_failed_total", "TLS handshakes that failed; the log at level debug says why.",
        upgrades: "corecast_upgrades_total", "Connections upgraded to WebSocket.",
        upgrades_native: "corecast_dialect_upgrades_total" ["native"], "Connections upgraded to WebSocket, by dialect; those of the echo path have none.",
        upgrades_pusher: "corecast_dialect_upgrades_total" ["pusher"], "Connections upgraded to WebSocket that speak Pusher's dialect.",
        upgrades_refused: "corecast_upgrades_refused_total", "Upgrade requests answered with an HTTP error.",
        messages_in: "corecast_received_messages_total", "Text messages received from clients, without those on the echo path.",
        messages_in_native: "corecast_dialect_received_messages_total" ["native"], "Text messages received from clients, by dialect.",
        messages_in_pusher: "corecast_dialect_received_messages_total" ["pusher"], "Text messages received from Pusher's clients.",
        echo_messages: "corecast_echo_messages_total", "Messages echoed on the echo path.",
        echo_pauses: "corecast_echo_pauses_total", "Times an echo connection was not read because its output waited.",
        messages_rate_limited: "corecast_messages_rate_limited_total", "Messages and control frames refused because their connection exceeded its message or byte rate.",
        bytes_in: "corecast_received_bytes_total", "Bytes received from clients, without the overhead of TLS.",
        bytes_encoded: "corecast_encoded_bytes_total", "Bytes encoded for clients: written, waiting (outbox_bytes) or dropped (outbox_bytes_dropped).",
        bytes_out: "corecast_sent_bytes_total", "Bytes written to clients, without the overhead of TLS.",
        writes: "corecast_writes_total", "Write system calls on client sockets.",
        writes_blocked: "corecast_writes_blocked_total", "Writes that the kernel accepted in part or not at all.",
        subscribes: "corecast_subscribes_total", "Subscriptions made.",
        subscribes_rate_limited: "corecast_subscribes_rate_limited_total", "Subscribes and unsubscribes refused because their connection exceeded its rate.",
        unsubscribes: "corecast_unsubscribes_total", "Subscriptions ended by a request of the client or an operator.",
        requests_refused: "corecast_requests_refused_total", "Client requests answered with an error event.",
        auth_failures: "corecast_auth_failures_total", "Subscribes and sign-ins refused without a valid signature.",
        pings_sent: "corecast_pings_sent_total", "Heartbeats sent to clients.",
        pings_answered: "corecast_pings_answered_total", "Client heartbeats answered.",
        publishes: "corecast_publishes_total", "Messages sequenced by this shard as the owner of their channel.",
        deliveries: "corecast_deliveries_total", "Messages encoded for a subscriber.",
        deliveries_late: "corecast_deliveries_late_total", "Messages that reached a shard after its last subscriber of the channel had left.",
        sign_ins: "corecast_sign_ins_total", "Connections that signed in as a user.",
        subscription_counts: "corecast_subscription_counts_total", "Times that the subscribers of a channel were told how many they are (pusher-subscription-count).",
        watchlist_events: "corecast_watchlist_events_total", "Frames with users that are online or offline, sent to connections that watch them.",
        watches_refused: "corecast_watches_refused_total", "Users of watchlists that are not watched: over 100 in a list, or too many watches on the server.",
        client_events: "corecast_client_events_total", "Client events sent to the owners of their channels.",
        publishes_repeated: "corecast_publishes_repeated_total", "Publishes answered and not sent, because a publish with the same dedupe came before.",
        dedupe_forgotten: "corecast_dedupe_forgotten_total", "Values of dedupe forgotten early, because there were too many.",
        messages_conflated: "corecast_conflated_messages_total", "Messages that a slow subscriber was not sent, because a newer one replaced them (slow = \"latest\", \"latest-by-key\").",
        recoveries: "corecast_recoveries_total", "Subscribes with a position that was recovered: everything after it was sent.",
        recoveries_failed: "corecast_recoveries_failed_total", "Subscribes with a position that could not be recovered.",
        messages_replayed: "corecast_replayed_messages_total", "Messages sent from histories to new subscribers.",
        histories_evicted: "corecast_histories_evicted_messages_total", "Messages removed from histories to free memory (--history-memory).",
        presence_joins: "corecast_presence_joins_total", "Users that became members of presence channels; one that returns within its grace does not count.",
        presence_leaves: "corecast_presence_leaves_total", "Users that were removed from presence channels.",
        presence_full: "corecast_presence_full_total", "Subscribes refused because their presence channel had too many members (--presence-members).",
        presence_evicted_early: "corecast_presence_evicted_early_total", "Users removed before the end of their grace, to make room in their channel or because too many were in theirs.",
        outbox_bytes_dropped: "corecast_outbox_dropped_bytes_total", "Bytes that still waited for a connection when it ended.",
        address_drops: "corecast_address_drops_total", "Connections dropped unanswered: too many connections of their address were being refused.",
        addresses_forgotten: "corecast_addresses_forgotten_total", "Addresses whose connection rate was forgotten early, because there were too many addresses.",
        admin_accepts: "corecast_admin_accepts_total", "Admin connections accepted.",
        admin_refused: "corecast_admin_refused_total", "Admin connections refused: too many were open.",
        admin_requests: "corecast_admin_requests_total", "Requests read from admin connections.",
        admin_errors: "corecast_admin_errors_total", "Admin requests answered with an error.",
        admin_pauses: "corecast_admin_pauses_total", "Times an admin connection was not read because too many of its requests were unsettled, unanswered or unread.",
        events: "corecast_events_total", "Lifecycle events numbered by the journal, which starts with its first consumer.",
        events_lost: "corecast_events_lost_total", "Lifecycle events lost because too many waited for the journal; its consumers started over with a snapshot.",
        event_consumers_too_slow: "corecast_event_consumers_too_slow_total", "Consumers of lifecycle events closed because their next event was no longer kept.",
        sightings: "corecast_sightings_total", "Live tap lines delivered (corecast tail).",
        sightings_dropped: "corecast_sightings_dropped_total", "Live tap lines dropped because of the requested rate or a full queue.",
        mail_sent: "corecast_mail_sent_total", "Letters accepted by the inboxes of other shards.",
        mail_refused: "corecast_mail_refused_total", "Letters that waited because an inbox was full.",
        mail_received: "corecast_mail_received_total", "Letters received, including those that a shard sends to itself.",
        wakes: "corecast_wakes_total", "Wake-ups sent to other shards.",
        turns: "corecast_turns_total", "Turns of the event loop.",
        turns_over_budget: "corecast_turns_over_budget_total", "Turns that left work for the next one.",
        timers_fired: "corecast_timers_fired_total", "Timers that expired.",
        log_lines_dropped: "corecast_log_dropped_lines_total", "Log lines dropped because stderr was read too slowly; reported by shard 0.",
        shutdown_cut_off: "corecast_shutdown_cut_off_total", "Connections closed at the shutdown deadline before their pending output was written.",
    }
}

impl Counters {
    /// Counts a text message of a client. Native messages are the total without Pusher's.
    #[inline]
    pub fn count_message(&mut self, is_native: bool) {
        self.messages_in += 1;
        self.messages_in_pusher += u64::from(!is_native);
    }
}

table! {
    /// Gauges of a shard.
    Gauges {
        connections: "corecast_connections", "Open client connections.",
        connections_native: "corecast_dialect_connections" ["native"], "Open client connections, by dialect; those of the echo path have none.",
        connections_pusher: "corecast_dialect_connections" ["pusher"], "Open client connections of Pusher's clients.",
        connections_echoing: "corecast_connections_echoing", "Open client connections on the echo path.",
        connections_upgrading: "corecast_connections_upgrading", "Client connections whose upgrade is not finished.",
        newcomers_waiting: "corecast_newcomers_waiting", "Connections of the last second whose upgrade, TLS handshake or first messages wait for their turn.",
        tls_certificate_days: "corecast_tls_certificate_remaining_seconds" * 86400, "Time until the TLS certificate expires, in whole days, reported by shard 0; 0: it has expired, or there is none.",
        connections_closing: "corecast_connections_closing", "Client connections that are being closed.",
        connections_leaving: "corecast_connections_leaving", "Client connections that a drain, a shed or the shutdown will close and that wait for their turn.",
        is_draining: "corecast_draining", "Shards that are draining: they accept no connections and close the existing ones over a time.",
        admin_connections: "corecast_admin_connections", "Open admin connections.",
        subscriptions: "corecast_subscriptions", "Live subscriptions.",
        channels: "corecast_channels", "Channels with a subscriber on any shard, counted by their owner.",
        users: "corecast_users", "Users that are signed in, counted by the owners of their channels.",
        watches: "corecast_watches", "Users that connections watch (pusher-watchlist); each connection counts.",
        history_bytes: "corecast_history_bytes", "Heap bytes of the messages that channels keep, and of channels without subscribers whose position is kept.",
        dedupe_bytes: "corecast_dedupe_bytes", "Heap bytes of the values of dedupe that are remembered.",
        messages_held_back: "corecast_held_back_messages", "Messages held back for slow subscribers (slow = \"latest\", \"latest-by-key\"). Their bytes count in page_bytes.",
        presence_members: "corecast_presence_members", "Members of presence channels, counted by the owner of each channel.",
        addresses: "corecast_addresses", "Addresses whose connections are counted, by their owner.",
        recent_addresses: "corecast_recent_addresses", "Addresses that connected recently, if their connection rate is limited.",
        outbox_bytes: "corecast_outbox_bytes", "Bytes waiting in outboxes for clients.",
        page_bytes: "corecast_page_bytes", "Heap bytes of turn buffers, in use and pooled.",
        event_consumers: "corecast_event_consumers", "Consumers of lifecycle events.",
        event_journal_bytes: "corecast_event_journal_bytes", "Bytes of lifecycle events kept for consumers that reconnect.",
        tails: "corecast_tails", "Live taps (corecast tail), reported by shard 0.",
        mail_waiting: "corecast_mail_waiting", "Letters waiting for room in another shard's inbox.",
    }
}

table! {
    /// Counters of the HTTP listener.
    HttpCounters {
        http_accepts: "corecast_http_accepts_total", "HTTP connections accepted.",
        http_refused: "corecast_http_refused_total", "HTTP connections refused: too many were open.",
        http_evicted: "corecast_http_evicted_total", "HTTP connections closed because a new connection needed their place.",
        http_heads_overdue: "corecast_http_heads_overdue_total", "HTTP connections closed because their first head did not arrive in time.",
        http_accept_errors: "corecast_http_accept_errors_total", "Accepts of the HTTP listener that failed.",
        http_requests: "corecast_http_requests_total", "HTTP requests.",
        http_client_errors: "corecast_http_client_errors_total", "HTTP requests answered with a status of 400 to 499.",
        http_server_errors: "corecast_http_server_errors_total", "HTTP requests answered with a status of 500 to 599.",
        http_publishes: "corecast_http_publishes_total", "Events published over HTTP.",
        http_auth_failures: "corecast_http_auth_failures_total", "HTTP requests refused without a valid signature or token.",
        http_signatures_forgotten: "corecast_http_signatures_forgotten_total", "Signatures of HTTP requests forgotten early: too many to remember.",
        console_key_failures: "corecast_console_key_failures_total", "Console requests with a wrong or expired token or key.",
        console_throttled: "corecast_console_throttled_total", "Console requests refused unread, after too many wrong tokens or keys from their address.",
        console_links: "corecast_console_links_total", "Links to the console made by corecast console.",
        console_sessions: "corecast_console_sessions_total", "Sessions of the console begun with a link.",
        console_tokens_dropped: "corecast_console_tokens_dropped_total", "Links and sessions of the console ended early: too many newer ones.",
        http_timeouts: "corecast_http_timeouts_total", "HTTP requests not answered in time.",
    }
}

table! {
    /// Counters of webhooks.
    WebhookCounters {
        webhook_requests: "corecast_webhook_requests_total", "Webhook requests sent, retries included.",
        webhook_failures: "corecast_webhook_failures_total", "Webhook requests not answered in time with a status of 200 to 299.",
        webhook_events: "corecast_webhook_events_total", "Events delivered to webhook URLs; each URL counts.",
        webhook_cancelled: "corecast_webhook_cancelled_events_total", "Webhook events cancelled before sending, as a later event undid them.",
        webhook_streams_lost: "corecast_webhook_streams_lost_total", "Times the event stream for webhooks broke off and was restarted.",
    }
}

table! {
    /// Gauges of webhooks.
    WebhookGauges {
        webhook_waiting_events: "corecast_webhook_waiting_events", "Events waiting for delivery to webhook URLs; each URL counts.",
        webhook_waiting_bytes: "corecast_webhook_waiting_bytes", "Bytes of events waiting for webhook URLs.",
    }
}

/// [`WebhookStats::losses`].
pub const WEBHOOK_LOSSES: Labelled = Labelled {
    prefix: "webhook_dropped_",
    metric: "corecast_webhook_dropped_events_total",
    help: "Events not delivered to a webhook's URL, by reason.",
};

/// All numbers of webhooks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookStats {
    /// Since the start.
    pub counters: WebhookCounters,
    /// At this moment.
    pub gauges: WebhookGauges,
    /// Events that were not delivered, by the label of the reason.
    pub losses: Vec<(&'static str, u64)>,
}

/// Durations in buckets of doubling size, in plain integers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Of bucket `i`: up to its [`Histogram::bound_us`] and longer than that of the bucket before.
    pub counts: [u64; Histogram::BUCKETS],
    /// Sum of all durations, microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// Number of buckets. The last one has no bound: 4.2 s and more.
    pub const BUCKETS: usize = 22;

    /// Longest duration of a bucket, microseconds: 4, 8, 16 … 4 194 304; `None`: no bound.
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

/// The names of a histogram.
pub struct HistogramEntry {
    /// `NAME_us_to_4`, `NAME_us_to_8` … `NAME_us_above` and `NAME_us_sum`.
    pub name: &'static str,
    /// Its name for Prometheus, in seconds.
    pub metric: &'static str,
    /// For people.
    pub help: &'static str,
}

impl HistogramEntry {
    /// The name of a bucket in `stats`.
    pub fn bucket_name(&self, bucket: usize) -> String {
        match Histogram::bound_us(bucket) {
            Some(bound) => format!("{}_us_to_{bound}", self.name),
            None => format!("{}_us_above", self.name),
        }
    }

    /// The name of the sum in `stats`.
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
        help: "For each turn of a shard that had messages for its subscribers: the age of the oldest message, from the turn that \
               read it from its publisher to the end of the turn that had offered all of them to the kernel.",
    },
];

/// Durations in a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Turns.
    pub turn: Histogram,
    /// From publish to write.
    pub written: Histogram,
}

impl Times {
    fn each(&self) -> [(&'static HistogramEntry, &Histogram); 2] {
        let [turn, written] = &HISTOGRAMS;
        [(turn, &self.turn), (written, &self.written)]
    }
}

/// The names of counts by a label.
pub struct Labelled {
    /// In `stats`, before the label.
    pub prefix: &'static str,
    /// For Prometheus, with the label `reason`.
    pub metric: &'static str,
    /// For people.
    pub help: &'static str,
}

/// [`Stats::closes`] and [`Stats::refusals`].
pub const LABELLED: [Labelled; 2] = [
    Labelled { prefix: "closes_", metric: "corecast_closes_total", help: "Connections closed, by reason." },
    Labelled {
        prefix: "upgrades_refused_",
        metric: "corecast_upgrade_refusals_total",
        help: "Upgrade requests answered with an HTTP error, by reason.",
    },
];

/// All numbers of one shard, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Since the start.
    pub counters: Counters,
    /// Connections closed, by the label of the reason.
    pub closes: Vec<(&'static str, u64)>,
    /// Upgrade requests answered with an HTTP error, by the label of the reason.
    pub refusals: Vec<(&'static str, u64)>,
    /// At this moment.
    pub gauges: Gauges,
    /// Durations.
    pub times: Times,
}

impl Stats {
    /// Adds those of another shard.
    pub fn add(&mut self, other: &Stats) {
        self.counters.add(&other.counters);
        self.gauges.add(&other.gauges);
        add_labelled(&mut self.closes, &other.closes);
        add_labelled(&mut self.refusals, &other.refusals);
        self.times.turn.add(&other.times.turn);
        self.times.written.add(&other.times.written);
    }

    /// Name and value of everything: closes are `closes_` and the label of the reason, refusals `upgrades_refused_` and
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
        let counters = Counters::ENTRIES.iter().chain(HttpCounters::ENTRIES).chain(WebhookCounters::ENTRIES);
        let gauges = Gauges::ENTRIES.iter().chain(WebhookGauges::ENTRIES);
        assert!(counters.clone().all(|entry| entry.metric.ends_with("_total")));
        assert!(gauges.clone().all(|entry| !entry.metric.ends_with("_total")));
        let mut names: Vec<(&str, Option<&str>)> =
            counters.chain(gauges).map(|entry| (entry.metric, entry.dialect)).collect();
        assert!(names.iter().all(|(name, _)| name.starts_with("corecast_")));
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
