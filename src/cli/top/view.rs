//! The view: values of the last sample, and rates since the sample before. Pure. Also the output of `--once --json`.

use super::sample::{Numbers, Sample};
use corecast::api::By;
use serde::Serialize;
use std::collections::HashMap;

/// Per second; `None` until this server has been sampled twice.
pub type Rate = Option<f64>;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct View {
    /// Time between the two samples.
    pub interval_s: f64,
    pub connections: u64,
    pub connections_pusher: u64,
    pub connections_upgrading: u64,
    pub subscriptions: u64,
    pub channels_count: u64,
    pub outbox_bytes: u64,
    pub mail_waiting: u64,
    /// Users that are signed in.
    pub users: u64,
    pub presence_members: u64,
    pub history_bytes: u64,
    pub rates: Rates,
    pub shards: Vec<Shard>,
    /// Reasons that have occurred, those that are most frequent now first.
    pub closes: Vec<Close>,
    pub channels: Vec<Channel>,
    pub addresses: Vec<Address>,
}

/// Totals of all shards.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    pub publishes: Rate,
    pub deliveries: Rate,
    pub bytes_out: Rate,
    pub messages_in: Rate,
    pub accepts: Rate,
    pub closes: Rate,
    pub client_events: Rate,
    pub recoveries: Rate,
    pub recoveries_failed: Rate,
    pub messages_conflated: Rate,
    pub histories_evicted: Rate,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Shard {
    /// Share of the time that it spent in turns, 0 to 1.
    pub busy: Rate,
    /// Average duration of a turn.
    pub turn_mean_us: Option<f64>,
    /// 99 of 100 turns took at most this long; `None`: no turn, or longer than 4 s.
    pub turn_p99_us: Option<u64>,
    pub connections: u64,
    pub publishes: Rate,
    pub deliveries: Rate,
    pub bytes_out: Rate,
    pub outbox_bytes: u64,
    pub mail_waiting: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Close {
    pub reason: String,
    pub rate: Rate,
    pub total: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Channel {
    pub channel: String,
    pub subscribers: u64,
    pub messages: Rate,
    /// Messages times the current number of subscribers.
    pub deliveries: Rate,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Address {
    pub address: String,
    pub connections: u64,
}

impl View {
    /// The view of `now`, with the rates since `before`, an earlier sample of the same server.
    pub fn between(before: Option<&Sample>, now: &Sample, by: By) -> View {
        let interval_s = before.map_or(0.0, |before| now.at.duration_since(before.at).as_secs_f64());
        let span = Span { before: before.map(|before| &before.total), now: &now.total, interval_s };
        let mut view = View {
            interval_s,
            connections: now.total.get("connections"),
            connections_pusher: now.total.get("connections_pusher"),
            connections_upgrading: now.total.get("connections_upgrading"),
            subscriptions: now.total.get("subscriptions"),
            channels_count: now.total.get("channels"),
            outbox_bytes: now.total.get("outbox_bytes"),
            mail_waiting: now.total.get("mail_waiting"),
            users: now.total.get("users"),
            presence_members: now.total.get("presence_members"),
            history_bytes: now.total.get("history_bytes"),
            rates: Rates {
                publishes: span.rate("publishes"),
                deliveries: span.rate("deliveries"),
                bytes_out: span.rate("bytes_out"),
                messages_in: span.rate("messages_in"),
                accepts: span.rate("accepts"),
                closes: None,
                client_events: span.rate("client_events"),
                recoveries: span.rate("recoveries"),
                recoveries_failed: span.rate("recoveries_failed"),
                messages_conflated: span.rate("messages_conflated"),
                histories_evicted: span.rate("histories_evicted"),
            },
            shards: Vec::new(),
            closes: closes(&span),
            channels: channels(before, now, interval_s),
            addresses: now
                .addresses
                .iter()
                .map(|address| Address { address: address.name.clone(), connections: address.connections })
                .collect(),
        };
        view.rates.closes =
            before.map(|_| view.closes.iter().filter_map(|close| close.rate).fold(0.0, |sum, rate| sum + rate));
        for (at, numbers) in now.shards.iter().enumerate() {
            let before = before.and_then(|before| before.shards.get(at));
            view.shards.push(shard(&Span { before, now: numbers, interval_s }));
        }
        view.sort(by);
        view
    }

    /// Sorts by how busy channels are. Equal channels keep the server's order.
    pub fn sort(&mut self, by: By) {
        self.channels.sort_by(|a, b| match by {
            By::Subscribers => b.subscribers.cmp(&a.subscribers),
            By::Messages => b.messages.unwrap_or(-1.0).total_cmp(&a.messages.unwrap_or(-1.0)),
        });
    }
}

/// The numbers of one shard, or of all shards, at two times.
struct Span<'a> {
    before: Option<&'a Numbers>,
    now: &'a Numbers,
    interval_s: f64,
}

impl Span<'_> {
    /// The increase of a counter.
    fn growth(&self, name: &str) -> Option<u64> {
        self.now.get(name).checked_sub(self.before?.get(name))
    }

    fn rate(&self, name: &str) -> Rate {
        per_second(self.growth(name)?, self.interval_s)
    }
}

fn per_second(count: u64, interval_s: f64) -> Rate {
    (interval_s > 0.0).then(|| count as f64 / interval_s)
}

fn shard(span: &Span<'_>) -> Shard {
    let turn = Turns::of(span);
    Shard {
        busy: turn.as_ref().and_then(|turn| per_second(turn.sum_us, span.interval_s)).map(|us| (us / 1e6).min(1.0)),
        turn_mean_us: turn.as_ref().and_then(Turns::mean_us),
        turn_p99_us: turn.as_ref().and_then(Turns::p99_us),
        connections: span.now.get("connections"),
        publishes: span.rate("publishes"),
        deliveries: span.rate("deliveries"),
        bytes_out: span.rate("bytes_out"),
        outbox_bytes: span.now.get("outbox_bytes"),
        mail_waiting: span.now.get("mail_waiting"),
    }
}

/// The turns between two samples.
struct Turns {
    sum_us: u64,
    /// Upper bounds in µs and counts, longest last: a bucket excludes the turns of the one before it.
    buckets: Vec<(u64, u64)>,
    count: u64,
}

impl Turns {
    fn of(span: &Span<'_>) -> Option<Turns> {
        let mut buckets: Vec<(u64, u64)> = Vec::new();
        for (bound, _) in span.now.with_prefix("turn_us_to_") {
            buckets.push((bound.parse().ok()?, span.growth(&format!("turn_us_to_{bound}"))?));
        }
        buckets.sort_unstable();
        let count = buckets.iter().map(|(_, count)| count).sum::<u64>() + span.growth("turn_us_above")?;
        Some(Turns { sum_us: span.growth("turn_us_sum")?, buckets, count })
    }

    fn mean_us(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_us as f64 / self.count as f64)
    }

    fn p99_us(&self) -> Option<u64> {
        let wanted = (self.count * 99).div_ceil(100);
        let mut seen = 0;
        let bound = self.buckets.iter().find(|(_, count)| {
            seen += count;
            seen >= wanted
        });
        bound.filter(|_| self.count > 0).map(|(bound, _)| *bound)
    }
}

fn closes(span: &Span<'_>) -> Vec<Close> {
    let happened = span.now.with_prefix("closes_").filter(|(_, total)| *total > 0);
    let mut closes: Vec<Close> = happened
        .map(|(reason, total)| Close { reason: reason.into(), rate: span.rate(&format!("closes_{reason}")), total })
        .collect();
    let of_late = |close: &Close| close.rate.unwrap_or_default();
    closes.sort_by(|a, b| {
        of_late(b).total_cmp(&of_late(a)).then(b.total.cmp(&a.total)).then_with(|| a.reason.cmp(&b.reason))
    });
    closes
}

fn channels(before: Option<&Sample>, now: &Sample, interval_s: f64) -> Vec<Channel> {
    let earlier: HashMap<&str, u64> = before
        .map(|before| before.channels.iter().map(|channel| (channel.name.as_str(), channel.messages)).collect())
        .unwrap_or_default();
    let rate = |name: &str, messages: u64| per_second(messages.checked_sub(*earlier.get(name)?)?, interval_s);
    let channels = now.channels.iter().map(|channel| {
        let messages = rate(&channel.name, channel.messages);
        Channel {
            channel: channel.name.clone(),
            subscribers: channel.subscribers,
            messages,
            deliveries: messages.map(|messages| messages * channel.subscribers as f64),
        }
    });
    channels.collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::time::{Duration, Instant};

    /// Two samples of a server of two shards, two seconds apart.
    pub fn samples() -> [Sample; 2] {
        let start = Instant::now();
        let stats = |shards: [Value; 2]| {
            let mut total = shards[0].clone();
            for (name, number) in shards[1].as_object().expect("an object") {
                total[name] = json!(total[name].as_u64().unwrap_or(0) + number.as_u64().expect("a number"));
            }
            json!({"stats": total, "shards": shards})
        };
        let before = stats([
            json!({"connections": 100, "publishes": 1000, "deliveries": 50_000, "bytes_out": 5_000_000, "turns": 10,
                "turn_us_sum": 1000, "turn_us_to_128": 10, "turn_us_to_16384": 0, "turn_us_above": 0}),
            json!({"connections": 90, "turns": 5, "turn_us_sum": 10, "turn_us_to_128": 5, "turn_us_to_16384": 0,
                "turn_us_above": 0, "closes_client_gone": 4}),
        ]);
        let now = stats([
            json!({"connections": 120, "publishes": 3000, "deliveries": 2_050_000, "bytes_out": 305_000_000, "turns": 110,
                "turn_us_sum": 1_501_000, "turn_us_to_128": 60, "turn_us_to_16384": 50, "turn_us_above": 0,
                "accepts": 300, "subscriptions": 400, "channels": 7, "outbox_bytes": 1_500_000, "mail_waiting": 3,
                "messages_in": 14, "connections_upgrading": 2, "connections_pusher": 40, "users": 12, "presence_members": 9,
                "history_bytes": 3_000_000, "client_events": 6, "recoveries": 8, "recoveries_failed": 2,
                "messages_conflated": 100, "histories_evicted": 50}),
            json!({"connections": 95, "turns": 5, "turn_us_sum": 10, "turn_us_to_128": 5, "turn_us_to_16384": 0,
                "turn_us_above": 0, "closes_client_gone": 44, "closes_slow_consumer": 3, "closes_silent": 0}),
        ]);
        let channel = |name: &str, subscribers: u64, messages: u64| json!({"channel": name, "subscribers": subscribers, "messages": messages});
        let addresses =
            json!([{"address": "2001:db8:1:2::/64", "connections": 60}, {"address": "192.0.2.7", "connections": 9}]);
        let early = json!({"channels": [channel("news", 150, 10), channel("user:13", 2, 100), channel("quiet", 1, 5)]});
        let late = json!({"channels": [channel("news", 160, 30), channel("user:13", 2, 1900), channel("quiet", 1, 5),
            channel("private-new.1", 1, 77)], "addresses": addresses});
        [Sample::read(start, &before, &early), Sample::read(start + Duration::from_secs(2), &now, &late)]
    }

    #[test]
    fn levels_are_of_now_and_rates_are_since_before() {
        let [before, now] = samples();
        let view = View::between(Some(&before), &now, By::Subscribers);
        assert_eq!((view.interval_s, view.connections, view.outbox_bytes), (2.0, 215, 1_500_000));
        assert_eq!((view.rates.publishes, view.rates.deliveries), (Some(1000.0), Some(1_000_000.0)));
        assert_eq!(view.rates.closes, Some(21.5));
        let [first, second] = &view.shards[..] else { panic!("{:?}", view.shards) };
        assert_eq!((first.busy, first.turn_mean_us, first.turn_p99_us), (Some(0.75), Some(15_000.0), Some(16_384)));
        assert_eq!((second.busy, second.turn_mean_us, second.turn_p99_us), (Some(0.0), None, None));
        let closes: Vec<_> = view.closes.iter().map(|close| (&*close.reason, close.rate, close.total)).collect();
        assert_eq!(closes, [("client_gone", Some(20.0), 44), ("slow_consumer", Some(1.5), 3)]);
    }

    #[test]
    fn channels_are_sorted_and_who_is_new_has_no_rate() {
        let [before, now] = samples();
        let names = |view: &View| view.channels.iter().map(|row| row.channel.clone()).collect::<Vec<_>>();
        let mut view = View::between(Some(&before), &now, By::Subscribers);
        assert_eq!(names(&view), ["news", "user:13", "quiet", "private-new.1"]);
        let rates: Vec<_> = view.channels.iter().map(|row| (row.messages, row.deliveries)).collect();
        let expected = [(Some(10.0), Some(1600.0)), (Some(900.0), Some(1800.0)), (Some(0.0), Some(0.0)), (None, None)];
        assert_eq!(rates, expected);
        view.sort(By::Messages);
        assert_eq!(names(&view), ["user:13", "news", "quiet", "private-new.1"]);
    }

    #[test]
    fn there_are_no_rates_without_an_earlier_sample() {
        let [now, _] = samples();
        let view = View::between(None, &now, By::Messages);
        assert_eq!((view.rates.clone(), view.shards[0].busy), (Rates::default(), None));
        assert!(view.channels.iter().all(|row| row.messages.is_none()));
    }
}
