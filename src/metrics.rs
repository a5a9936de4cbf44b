//! Every counter and gauge, declared once with its help. A shard counts in plain integers of its own; `stats` asks each
//! shard by mail, so nothing is shared and nothing is atomic. Gauges are read from the tables when asked.

/// Declares the table: a struct of integers, and names and help texts in the same order.
macro_rules! table {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $help:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name { $(#[doc = $help] pub $field: u64,)* }

        impl $name {
            /// Name and help of each, in the order of declaration.
            pub const HELP: &'static [(&'static str, &'static str)] = &[$((stringify!($field), $help),)*];

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
        accepts: "Connections accepted by the WebSocket listener.",
        accept_errors: "Accepts that failed, for want of descriptors or otherwise.",
        tls_handshakes: "TLS handshakes finished.",
        tls_handshakes_resumed: "Those of them that took up an earlier session by its ticket.",
        tls_handshakes_failed: "TLS handshakes that broke; the log at level debug says why.",
        upgrades: "Connections upgraded to WebSocket.",
        upgrades_refused: "Upgrade requests answered with an HTTP error.",
        messages_in: "Text messages received from clients, those on the echo path not counted.",
        echo_messages: "Messages sent back on the echo path.",
        echo_pauses: "Times an echo connection was not read because output waited for it.",
        messages_rate_limited: "Messages and control frames refused because their connection sends too many, or too much.",
        bytes_in: "Bytes received from clients.",
        bytes_laid: "Bytes laid out for clients: written, waiting (outbox_bytes) or dropped (outbox_bytes_dropped).",
        bytes_out: "Bytes written to clients.",
        writes: "Write system calls on client sockets.",
        writes_blocked: "Writes that the kernel took only in part or not at all.",
        subscribes: "Subscriptions made.",
        unsubscribes: "Subscriptions ended by request of the client or the operator.",
        requests_refused: "Requests of clients answered with an error event.",
        auth_failures: "Subscriptions to private channels refused for want of a valid signature.",
        pings_sent: "Heartbeats sent to clients.",
        pings_answered: "Heartbeats of clients answered.",
        publishes: "Messages given their place in a channel's order by this shard, the channel's owner.",
        deliveries: "Messages laid out for a subscriber.",
        deliveries_late: "Messages that found no subscriber left in a shard that had one when they were sent.",
        outbox_bytes_dropped: "Bytes that waited for a connection when it ended.",
        address_drops: "Connections dropped unanswered: too many of their address were being told that they are too many.",
        addresses_forgotten: "Addresses whose haste was forgotten early, because there were too many of them.",
        admin_accepts: "Admin connections accepted.",
        admin_refused: "Admin connections refused: too many were open.",
        admin_requests: "Requests read from admin connections.",
        admin_errors: "Requests of admin connections answered with an error.",
        admin_pauses: "Times an admin connection was not read because too much of what it asked for was unsettled, unanswered or unread.",
        mail_sent: "Letters taken by other shards' inboxes.",
        mail_refused: "Letters that found an inbox full and waited.",
        mail_received: "Letters received from other shards.",
        wakes: "Wake-ups sent to other shards.",
        turns: "Turns of the event loop.",
        turns_over_budget: "Turns that left work for the next one.",
        timers_fired: "Timer entries that came due.",
        shutdown_cut_off: "Connections that shutdown's deadline ended before all that waited for them was written.",
    }
}

table! {
    /// What a shard holds now.
    Gauges {
        connections: "Open client connections.",
        connections_echoing: "Those of them that are on the echo path.",
        connections_upgrading: "Client connections whose upgrade is not finished.",
        tls_handshakes_waiting: "TLS handshakes that wait for their turn.",
        tls_certificate_days: "Days until the TLS certificate expires, told by shard 0; 0: it has expired, or there is none.",
        connections_closing: "Client connections whose close is under way.",
        admin_connections: "Open admin connections.",
        subscriptions: "Live subscriptions.",
        channels: "Channels with a subscriber anywhere, counted by their owner.",
        addresses: "Addresses that connections are counted for, by their owner.",
        hasty_addresses: "Addresses that connected lately, where it is limited how often they may.",
        outbox_bytes: "Bytes that wait for clients.",
        page_bytes: "Heap bytes of turn buffers, in use and pooled.",
        mail_waiting: "Letters that wait for room in another shard's inbox.",
    }
}

table! {
    /// What the HTTP listener has counted.
    HttpCounters {
        http_accepts: "HTTP connections accepted.",
        http_refused: "HTTP connections refused: too many were open.",
        http_accept_errors: "Accepts of the HTTP listener that failed.",
        http_requests: "HTTP requests.",
        http_client_errors: "HTTP requests answered with a status of 400 to 499.",
        http_server_errors: "HTTP requests answered with a status of 500 to 599.",
        http_timeouts: "HTTP requests that were not answered in time.",
    }
}

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
}

impl Stats {
    /// Adds another shard's.
    pub fn add(&mut self, other: &Stats) {
        self.counters.add(&other.counters);
        self.gauges.add(&other.gauges);
        add_labelled(&mut self.closes, &other.closes);
        add_labelled(&mut self.refusals, &other.refusals);
    }

    /// Name and value of everything; closes are `closes_` and the reason's label, refusals `upgrades_refused_` and theirs.
    pub fn values(&self) -> impl Iterator<Item = (std::borrow::Cow<'static, str>, u64)> {
        let closes = self.closes.iter().map(|(label, count)| (format!("closes_{label}").into(), *count));
        let refusals = self.refusals.iter().map(|(label, count)| (format!("upgrades_refused_{label}").into(), *count));
        let named = |(name, value): (&'static str, u64)| (name.into(), value);
        self.gauges.values().map(named).chain(self.counters.values().map(named)).chain(closes).chain(refusals)
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
