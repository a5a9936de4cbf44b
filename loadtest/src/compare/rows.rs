//! The rows of a comparison: what is measured, and in what unit.

use crate::plan::{Connect, Flood, Idle, Ping, Scenario};

/// One measurement.
pub struct Row {
    /// Its name on the command line.
    pub key: &'static str,
    /// What is measured.
    pub title: &'static str,
    /// The unit of its value.
    pub unit: &'static str,
    /// The metric of the report that is the value.
    pub metric: &'static str,
    /// Whether less is better.
    pub is_less_better: bool,
    /// Minimum measured time, in seconds.
    pub seconds_min: f64,
    /// Server and client use all cores, instead of one each.
    pub is_spread: bool,
    /// How corecast is started and published to, where that differs. Peers have no such row.
    pub variant: Option<&'static str>,
    /// The load.
    pub scenario: Scenario,
}

/// The rows that two corecast binaries are compared in unless others are asked for.
pub const GATED: [&str; 10] =
    ["w1", "w16", "w256", "chan10k", "ping1", "ping16", "admin", "rest16", "pusher16", "shards2"];

/// All rows, in the order of the table.
pub fn rows() -> Vec<Row> {
    let mut rows = throughput();
    rows.extend(costs());
    rows
}

fn throughput() -> Vec<Row> {
    let ping = |depth| Scenario::Ping(Ping { connections: 1000, depth });
    vec![
        row("w1", "1 000 subscribers, W=1", "deliveries/s", flood(1000, 1, 1, None)),
        row("w16", "1 000 subscribers, W=16", "deliveries/s", flood(1000, 1, 16, None)),
        row("w256", "1 000 subscribers, W=256", "deliveries/s", flood(1000, 1, 256, None)),
        row("open20k", "20 000 publishes/s × 1 000", "deliveries/s", flood(1000, 1, 1, Some(20_000.0))),
        row("open30k", "30 000 publishes/s × 1 000", "deliveries/s", flood(1000, 1, 1, Some(30_000.0))),
        row("subs10k", "10 000 subscribers, W=16", "deliveries/s", flood(10_000, 1, 16, None)),
        row("chan10k", "10 000 channels × 1 subscriber, W=256", "deliveries/s", flood(10_000, 10_000, 256, None)),
        row("ping1", "ping → pong, 1 000 connections, depth 1", "pongs/s", ping(1)),
        row("ping16", "ping → pong, 1 000 connections, depth 16", "pongs/s", ping(16)),
        row("connect", "handshakes", "handshakes/s", connect()),
        row("admin", "publishes, pipelined, 0 subscribers", "publishes/s", flood(0, 1, 1024, None)),
        Row {
            variant: Some("corecast-rest"),
            ..row("rest16", "1 000 subscribers, 16 signed REST connections", "deliveries/s", flood(1000, 1, 16, None))
        },
        Row {
            variant: Some("corecast-pusher"),
            ..row(
                "pusher16",
                "1 000 subscribers with Pusher's protocol, W=16",
                "deliveries/s",
                flood(1000, 1, 16, None),
            )
        },
        Row {
            variant: Some("corecast-both"),
            ..row("both16", "1 000 subscribers, half in each dialect, W=16", "deliveries/s", flood(1000, 1, 16, None))
        },
    ]
}

fn costs() -> Vec<Row> {
    let idle = |channels| Scenario::Idle(Idle { connections: 15_000, channels, each: 1, departure: None });
    let cost = |metric, row| Row { metric, is_less_better: true, ..row };
    let memory =
        |key, title, channels| cost("server_rss_bytes_per_connection", row(key, title, "B each", idle(channels)));
    let cores = |key, title, scenario| Row {
        is_spread: true,
        ..cost("server_cpu_ns_per_event", row(key, title, "ns of CPU each", scenario))
    };
    vec![
        memory("idle", "15 000 idle connections, no channel", 0),
        memory("idle-shared", "15 000 idle connections on one channel", 1),
        memory("idle-own", "15 000 idle connections, a channel each", 15_000),
        Row {
            // Heartbeats come every 25 and 30 s: a shorter measurement sees too few of them.
            seconds_min: 15.0,
            ..cost(
                "server_cpu_ns_per_connection_s",
                row("idle-cpu", "15 000 idle connections, heartbeats", "ns of CPU/s each", idle(1)),
            )
        },
        // The rate of handshakes is limited by the slower side, which may be the client.
        cost("server_cpu_ns_per_event", row("connect-cpu", "a handshake and its end", "ns of CPU each", connect())),
        cores("cores16", "all cores: a delivery at W=16", flood(1000, 1, 16, None)),
        cores("cores2k", "all cores: a delivery at 2 000 publishes/s", flood(1000, 1, 1, Some(2_000.0))),
        Row {
            variant: Some("corecast-2-shards"),
            ..cores("shards2", "2 shards, all cores: a delivery at W=16", flood(1000, 1, 16, None))
        },
    ]
}

fn row(key: &'static str, title: &'static str, unit: &'static str, scenario: Scenario) -> Row {
    Row {
        key,
        title,
        unit,
        metric: "rate",
        is_less_better: false,
        seconds_min: 0.0,
        is_spread: false,
        variant: None,
        scenario,
    }
}

fn flood(subscribers: usize, channels: u32, window: u32, rate: Option<f64>) -> Scenario {
    Scenario::Flood(Flood { subscribers, channels, window, rate, ..Flood::default() })
}

fn connect() -> Scenario {
    Scenario::Connect(Connect { in_flight: 64, hold: 0 })
}
