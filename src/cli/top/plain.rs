//! One view as plain text: the output of `--once`.

use super::figures::{byte_rate, count, micros, percent, rate};
use super::view::View;
use corecast::config::bytes;
use std::fmt::Write;

/// The whole view.
pub fn page(view: &View) -> String {
    let mut page = levels(view);
    page.push('\n');
    let titles = ["BUSY", "TURN", "P99", "CONNECTIONS", "DELIVERED/S", "PUBLISHED/S", "SENT/S", "OUTBOX", "MAIL"];
    row(&mut page, "SHARD", -6, &titles);
    for (at, shard) in view.shards.iter().enumerate() {
        let cells = [
            percent(shard.busy),
            micros(shard.turn_mean_us),
            micros(shard.turn_p99_us.map(|us| us as f64)),
            count(shard.connections),
            rate(shard.deliveries),
            rate(shard.publishes),
            byte_rate(shard.bytes_out),
            bytes(shard.outbox_bytes),
            count(shard.mail_waiting),
        ];
        row(&mut page, &at.to_string(), -6, &cells);
    }
    page.push('\n');
    row(&mut page, "CLOSES", -40, &["CLOSES/S", "TOTAL"]);
    for close in &view.closes {
        row(&mut page, &close.reason, -40, &[rate(close.rate), count(close.total)]);
    }
    page.push('\n');
    row(&mut page, "CHANNEL", -40, &["SUBSCRIBERS", "MESSAGES/S", "DELIVERED/S"]);
    for channel in view.channels.iter().take(ROWS_MAX) {
        let cells = [count(channel.subscribers), rate(channel.messages), rate(channel.deliveries)];
        row(&mut page, &channel.channel, -40, &cells);
    }
    page.push('\n');
    row(&mut page, "ADDRESS", -40, &["CONNECTIONS"]);
    for address in view.addresses.iter().take(ROWS_MAX) {
        row(&mut page, &address.address, -40, &[count(address.connections)]);
    }
    page
}

/// The values of the whole server.
fn levels(view: &View) -> String {
    let mut page = String::new();
    let rates = &view.rates;
    for (name, value) in [
        ("connections", count(view.connections)),
        ("connections of Pusher", count(view.connections_pusher)),
        ("connections upgrading", count(view.connections_upgrading)),
        ("subscriptions", count(view.subscriptions)),
        ("channels", count(view.channels_count)),
        ("outbox", bytes(view.outbox_bytes)),
        ("mail waiting", count(view.mail_waiting)),
        ("users", count(view.users)),
        ("members", count(view.presence_members)),
        ("kept messages", bytes(view.history_bytes)),
        ("deliveries/s", rate(rates.deliveries)),
        ("publishes/s", rate(rates.publishes)),
        ("sent/s", byte_rate(rates.bytes_out)),
        ("received/s", rate(rates.messages_in)),
        ("accepts/s", rate(rates.accepts)),
        ("closes/s", rate(rates.closes)),
        ("client events/s", rate(rates.client_events)),
        ("recovered/s", rate(rates.recoveries)),
        ("not recovered/s", rate(rates.recoveries_failed)),
        ("conflated/s", rate(rates.messages_conflated)),
        ("evicted/s", rate(rates.histories_evicted)),
    ] {
        line(&mut page, &[(name, -22), (&value, 12)]);
    }
    page
}

/// A name and its numbers.
fn row(page: &mut String, name: &str, width: i16, cells: &[impl AsRef<str>]) {
    let mut all = vec![(name, width)];
    all.extend(cells.iter().map(|cell| (cell.as_ref(), 11)));
    line(page, &all);
}

/// Cells two spaces apart. A negative width aligns its cell to the left.
fn line(page: &mut String, cells: &[(&str, i16)]) {
    let start = page.len();
    for (cell, width) in cells {
        let columns = usize::from(width.unsigned_abs());
        // Writing to a String cannot fail.
        let _ = match width < &0 {
            true => write!(page, "{cell:<columns$}  "),
            false => write!(page, "{cell:>columns$}  "),
        };
    }
    page.truncate(start + page[start..].trim_end().len());
    page.push('\n');
}

const ROWS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::super::view::tests::samples;
    use super::*;
    use corecast::api::By;

    #[test]
    fn a_page_is_aligned_and_has_everything() {
        let [before, now] = samples();
        let page = page(&View::between(Some(&before), &now, By::Messages));
        assert!(page.contains("deliveries/s               1 000 000\n"), "{page}");
        assert!(page.contains("0               75%      15.0 ms      16.4 ms          120    1 000 000"), "{page}");
        assert!(page.contains("client_gone                                        20           44\n"), "{page}");
        let channels = page.lines().skip_while(|line| !line.starts_with("CHANNEL ")).skip(1);
        assert!(channels.take(2).map(|line| line.split(' ').next().unwrap()).eq(["user:13", "news"]), "{page}");
        assert!(page.ends_with("192.0.2.7                                           9\n"), "{page}");
    }
}
