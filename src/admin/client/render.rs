//! Renders replies for people as aligned tables and lines. Missing members are left blank, so replies of older and newer
//! servers can be rendered too.

use crate::api::declare::Column;
use crate::api::operation::columns;
use crate::config::bytes;
use crate::protocol::json::is_unseen;
use serde_json::Value;
use std::io::{self, Write};
use std::time::Instant;

/// Renders the replies to one request, page by page.
pub struct Renderer {
    command: &'static str,
    /// Of a list that the API declares.
    columns: Vec<Column>,
    /// Of a reply with rows.
    table: Table,
    asked: Instant,
}

impl Renderer {
    /// A renderer for the replies to this command.
    pub fn new(command: &'static str) -> Renderer {
        let columns = columns(command).unwrap_or_default().to_vec();
        let table = match command {
            "history" => Table::new(&[("OFFSET", Right), ("EVENT", Left), ("DATA", Left)]),
            "members" => Table::new(&[("USER_ID", Left), ("CONNECTIONS", Right), ("USER_INFO", Left)]),
            _ => Table::of(&columns),
        };
        Renderer { command, columns, table, asked: Instant::now() }
    }

    /// Prints one reply; `last`: no other reply follows.
    pub fn reply(&mut self, reply: &Value, last: bool, out: &mut impl Write) -> io::Result<()> {
        let Renderer { command, columns, table, asked } = self;
        match *command {
            "publish" => published(reply, out),
            "history" => {
                let cells = |entry: &Value| ["offset", "event", "data"].map(|member| cell(&entry[member])).to_vec();
                table.print(entries(reply, "messages").map(cells).collect(), false, "", out)?;
                if last {
                    history(reply, out)?;
                }
                more(reply, last, out)
            }
            "members" => {
                let cells =
                    |entry: &Value| ["user_id", "connections", "user_info"].map(|member| cell(&entry[member])).to_vec();
                let none = match &reply["count"] {
                    count if count.as_u64() > Some(0) => format!("{} without names", counted(count, "connection")),
                    _ => "no members".into(),
                };
                table.print(entries(reply, "members").map(cells).collect(), last, &none, out)
            }
            "disconnect" => match &reply["connections"] {
                Value::Null => writeln!(out, "disconnected"),
                connections => writeln!(out, "disconnected {}", counted(connections, "connection")),
            },
            "unsubscribe" => writeln!(out, "unsubscribed"),
            "channel" => channel(reply, out),
            "connection" => describe(reply, out),
            "busiest" => busiest(reply, out),
            "stats" => stats(reply, out),
            "rule" => rule(reply, out),
            "reload" => reloaded(reply, out),
            "drain" | "shed" => leaving(reply, out),
            "ping" => {
                let ms = asked.elapsed().as_secs_f64() * 1000.0;
                writeln!(out, "the server is alive; it answered in {ms:.3} ms")
            }
            rows if !columns.is_empty() => {
                if !table.begun && entries(reply, rows).next().is_some() {
                    let is_given = |column: &Column| entries(reply, rows).any(|entry| !entry[column.name].is_null());
                    columns.retain(|column| !column.is_optional() || is_given(column));
                    *table = Table::of(columns);
                }
                let cells = |entry| columns.iter().map(|column| measured(column.name, entry)).collect();
                table.print(entries(reply, rows).map(cells).collect(), last, &format!("no {rows}"), out)?;
                more(reply, last, out)
            }
            _ => writeln!(out, "done"),
        }
    }
}

/// The counts of one channel, then its newest message.
fn channel(reply: &Value, out: &mut impl Write) -> io::Result<()> {
    let users = match &reply["users"] {
        Value::Null => String::new(),
        users => format!(", {}", counted(users, "user")),
    };
    writeln!(out, "{}: {}{users}{}", cell(&reply["channel"]), subscribers(reply), kept(reply))?;
    match &reply["newest"] {
        Value::Null => Ok(()),
        newest => {
            let [offset, event, data] = ["offset", "event", "data"].map(|member| cell(&newest[member]));
            let ttl = newest["ttl_s"].as_u64().map(age).unwrap_or_default();
            writeln!(out, "newest, kept for {ttl}: {}", [offset, event, data].join("  ").trim_end())
        }
    }
}

/// The table that holds, then a row per key.
fn rule(reply: &Value, out: &mut impl Write) -> io::Result<()> {
    let [channel, number, pattern] = ["channel", "rule", "match"].map(|member| cell(&reply[member]));
    match number.as_str() {
        "" => writeln!(out, "{channel}: no [[channel]] table fits the name")?,
        _ => writeln!(out, "{channel}: [[channel]] table {number}, match {pattern:?}, is the first that fits")?,
    }
    let rows = entries(reply, "keys").map(|key| {
        let source = match key["source"].as_str() {
            Some("rule") => format!("table {number}"),
            Some("name") => "default of the name".into(),
            _ => cell(&key["why"]),
        };
        vec![cell(&key["key"]), cell(&key["value"]), source]
    });
    Table::new(&[("KEY", Left), ("VALUE", Left), ("FROM", Left)]).print(rows.collect(), true, "no keys", out)
}

/// The count of subscribers, and the message's place in the history of each channel.
fn published(reply: &Value, out: &mut impl Write) -> io::Result<()> {
    let place = |of: &Value| match (position(of), of["duplicate"] == true) {
        (position, false) => position,
        (position, true) => Some(format!("{} (published before)", position.unwrap_or("no history".into()))),
    };
    let places = match reply["positions"].as_array() {
        Some(positions) => positions.iter().map(|of| place(of).unwrap_or("no history".into())).collect(),
        None => place(reply).into_iter().collect::<Vec<_>>(),
    };
    let label = if places.is_empty() { "" } else { "; position: " };
    writeln!(out, "published to {}{label}{}", subscribers(reply), places.join(", "))
}

/// The position of a channel with history, and whether messages are missing.
fn history(reply: &Value, out: &mut impl Write) -> io::Result<()> {
    let Some(position) = position(reply) else { return writeln!(out, "the channel has no history") };
    if reply["complete"] == false {
        writeln!(out, "incomplete: older messages were discarded")?;
    }
    writeln!(out, "position {position}")
}

fn position(of: &Value) -> Option<String> {
    let [epoch, offset] = ["epoch", "offset"].map(|member| cell(&of[member]));
    (!offset.is_empty()).then(|| format!("{epoch}:{offset}"))
}

/// A line per option that differs.
fn reloaded(reply: &Value, out: &mut impl Write) -> io::Result<()> {
    let changed = |change: &Value| {
        let [option, old, new] = ["option", "old", "new"].map(|member| cell(&change[member]));
        format!("{option}: {old} → {new}")
    };
    for change in entries(reply, "changes") {
        writeln!(out, "{}", changed(change))?;
    }
    for change in entries(reply, "restart") {
        writeln!(out, "{} needs a restart; the server keeps what it was started with", changed(change))?;
    }
    match entries(reply, "changes").next() {
        Some(_) => Ok(()),
        None => writeln!(out, "reloaded; nothing has changed"),
    }
}

/// The number of connections that will be closed, and how fast.
fn leaving(reply: &Value, out: &mut impl Write) -> io::Result<()> {
    let connections = counted(&reply["connections"], "connection");
    let seconds = reply["over_ms"].as_u64().map(|ms| (ms as f64 / 1000.0).to_string()).unwrap_or_default();
    writeln!(out, "closing {connections} over {seconds} s")
}

fn subscribers(reply: &Value) -> String {
    counted(&reply["subscribers"], "subscriber")
}

fn counted(count: &Value, what: &str) -> String {
    let plural = if count.as_u64() == Some(1) { "" } else { "s" };
    format!("{} {what}{plural}", cell(count))
}

/// What a channel with a history keeps.
fn kept(reply: &Value) -> String {
    match (reply["history"]["messages"].as_u64(), reply["history"]["bytes"].as_u64()) {
        (Some(messages), Some(size)) => {
            format!(", {} kept ({})", counted(&messages.into(), "message"), bytes(size))
        }
        _ => String::new(),
    }
}

fn more(reply: &Value, last: bool, out: &mut impl Write) -> io::Result<()> {
    match &reply["next"] {
        Value::Null => Ok(()),
        next if last => writeln!(out, "more: --after {}, or --all", cell(next)),
        _ => Ok(()),
    }
}

/// A member's value for people. The end of the member's name is its unit.
fn measured(name: &str, entry: &Value) -> String {
    let value = &entry[name];
    match value.as_u64() {
        Some(seconds) if name.ends_with(SECONDS) => age(seconds),
        Some(count) if name.ends_with(BYTES) => bytes(count),
        _ => cell(value),
    }
}

/// The member's name without its unit.
fn title(name: &str) -> &str {
    name.strip_suffix(SECONDS).or_else(|| name.strip_suffix(BYTES)).unwrap_or(name)
}

const SECONDS: &str = "_s";
const BYTES: &str = "_bytes";

/// One connection: a line per member, then its channels.
fn describe(reply: &Value, out: &mut impl Write) -> io::Result<()> {
    for column in columns("connections").unwrap_or_default() {
        writeln!(out, "{:<14} {}", title(column.name), measured(column.name, reply))?;
    }
    for (at, channel) in entries(reply, "channels").enumerate() {
        let name = if at == 0 { "channels" } else { "" };
        writeln!(out, "{name:<14} {}", cell(channel))?;
    }
    Ok(())
}

/// A table of channels, then one of addresses.
fn busiest(reply: &Value, out: &mut impl Write) -> io::Result<()> {
    let rows = |list: &str, members: &[&str]| -> Vec<Vec<String>> {
        entries(reply, list).map(|entry| members.iter().map(|member| cell(&entry[*member])).collect()).collect()
    };
    let mut channels = Table::new(&[("CHANNEL", Left), ("SUBSCRIBERS", Right), ("MESSAGES", Right)]);
    channels.print(rows("channels", &["channel", "subscribers", "messages"]), true, "no channels", out)?;
    writeln!(out)?;
    let mut addresses = Table::new(&[("ADDRESS", Left), ("CONNECTIONS", Right)]);
    addresses.print(rows("addresses", &["address", "connections"]), true, NO_ADDRESSES, out)
}

/// Why the list may be empty although clients are connected.
const NO_ADDRESSES: &str =
    "no addresses (those of this machine are counted only where --max-connections-per-address limits them)";

/// A row per number: the total, then each shard if all fit on a screen.
fn stats(reply: &Value, out: &mut impl Write) -> io::Result<()> {
    const SHARDS_SHOWN_MAX: usize = 8;
    let none = serde_json::Map::new();
    let totals = reply["stats"].as_object().unwrap_or(&none);
    let shards: Vec<&Value> = entries(reply, "shards").collect();
    let shown = if shards.len() <= SHARDS_SHOWN_MAX { &shards[..] } else { &[] };
    let titles: Vec<String> = (0..shown.len()).map(|at| format!("SHARD {at}")).collect();
    let mut columns = vec![("NAME", Left), ("TOTAL", Right)];
    columns.extend(titles.iter().map(|title| (title.as_str(), Right)));
    // Buckets of histograms are for programs.
    let lines = totals.iter().filter(|(name, _)| !name.contains("_us_to_") && !name.ends_with("_us_above"));
    let rows = lines.map(|(name, total)| {
        let each = shown.iter().map(|shard| cell(&shard[name.as_str()]));
        [name.replace(is_unseen, "\u{fffd}"), cell(total)].into_iter().chain(each).collect()
    });
    Table::new(&columns).print(rows.collect(), true, "no numbers", out)?;
    match shown.len() < shards.len() {
        true => writeln!(out, "{} shards: --json has the numbers of each", shards.len()),
        false => Ok(()),
    }
}

fn entries<'a>(reply: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    reply[member].as_array().into_iter().flatten()
}

/// A value as a cell: strings without their quotes, and without characters that control a terminal.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.replace(is_unseen, "\u{fffd}"),
        other => other.to_string(),
    }
}

/// Seconds in the two largest units that apply.
fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

#[derive(Clone, Copy)]
enum Align {
    Left,
    Right,
}
use Align::{Left, Right};

/// Columns two spaces apart. Widths never shrink from page to page; the header is printed once.
struct Table {
    columns: Vec<(String, Align)>,
    widths: Vec<usize>,
    begun: bool,
}

impl Table {
    fn of(columns: &[Column]) -> Table {
        let column = |column: &Column| (title(column.name), if column.is_number() { Right } else { Left });
        Table::new(&columns.iter().map(column).collect::<Vec<_>>())
    }

    fn new(columns: &[(&str, Align)]) -> Table {
        Table {
            columns: columns.iter().map(|(title, align)| (title.to_uppercase(), *align)).collect(),
            widths: columns.iter().map(|(title, _)| title.len()).collect(),
            begun: false,
        }
    }

    fn print(&mut self, rows: Vec<Vec<String>>, last: bool, empty: &str, out: &mut impl Write) -> io::Result<()> {
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        if !self.begun && !rows.is_empty() {
            self.begun = true;
            let titles: Vec<String> = self.columns.iter().map(|(title, _)| title.clone()).collect();
            self.line(&titles, out)?;
        }
        for row in &rows {
            self.line(row, out)?;
        }
        match last && !self.begun {
            true => writeln!(out, "{empty}"),
            false => Ok(()),
        }
    }

    fn line(&self, cells: &[String], out: &mut impl Write) -> io::Result<()> {
        let mut line = String::new();
        for ((cell, (_, align)), &width) in cells.iter().zip(&self.columns).zip(&self.widths) {
            line += &match align {
                Left => format!("{cell:<width$}  "),
                Right => format!("{cell:>width$}  "),
            };
        }
        writeln!(out, "{}", line.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &'static str, reply: &str, expected: &str) {
        let mut out = Vec::new();
        let reply = serde_json::from_str(reply).expect("JSON");
        Renderer::new(command).reply(&reply, true, &mut out).expect("a vector");
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }

    #[test]
    fn one_subscriber_is_singular() {
        check("channel", r#"{"channel":"a","subscribers":1}"#, "a: 1 subscriber\n");
        check("channel", r#"{"channel":"a","subscribers":0}"#, "a: 0 subscribers\n");
        let kept = r#"{"channel":"a","subscribers":1,"history":{"messages":7,"bytes":4198}}"#;
        check("channel", kept, "a: 1 subscriber, 7 messages kept (4.1 KiB)\n");
    }

    #[test]
    fn a_channel_is_shown_with_its_users_and_its_newest_message() {
        check(
            "channel",
            r#"{"channel":"presence-cache-a","subscribers":3,"users":1,"history":{"messages":1,"bytes":100},
                "newest":{"offset":7,"event":"e","data":{"a":1},"ttl_s":1799}}"#,
            "presence-cache-a: 3 subscribers, 1 user, 1 message kept (100 B)\nnewest, kept for 29m 59s: 7  e  {\"a\":1}\n",
        );
    }

    #[test]
    fn a_column_that_no_row_has_is_not_shown() {
        let plain = r#"{"channels":[{"channel":"a","subscribers":1}]}"#;
        check("channels", plain, "CHANNEL  SUBSCRIBERS\na                  1\n");
        let presence =
            r#"{"channels":[{"channel":"a","subscribers":1},{"channel":"presence-a","subscribers":3,"users":2}]}"#;
        let expected = "CHANNEL     SUBSCRIBERS  USERS\na                     1\npresence-a            3      2\n";
        check("channels", presence, expected);
    }

    #[test]
    fn a_publish_is_placed_in_each_history() {
        check("publish", r#"{"subscribers":1}"#, "published to 1 subscriber\n");
        check(
            "publish",
            r#"{"subscribers":2,"epoch":"0f","offset":7}"#,
            "published to 2 subscribers; position: 0f:7\n",
        );
        let duplicate = r#"{"subscribers":2,"epoch":"0f","offset":7,"duplicate":true}"#;
        check("publish", duplicate, "published to 2 subscribers; position: 0f:7 (published before)\n");
        let duplicate = r#"{"subscribers":2,"duplicate":true}"#;
        check("publish", duplicate, "published to 2 subscribers; position: no history (published before)\n");
        let list = r#"{"subscribers":2,"positions":[{"epoch":"0f","offset":7},null,{"duplicate":true}]}"#;
        let expected = "published to 2 subscribers; position: 0f:7, no history, no history (published before)\n";
        check("publish", list, expected);
    }

    #[test]
    fn a_history_ends_with_the_position() {
        let history = r#"{"epoch":"0f","offset":9,"complete":false,"messages":[{"offset":9,"event":"e","data":"{}"}]}"#;
        let expected =
            "OFFSET  EVENT  DATA\n     9  e      {}\nincomplete: older messages were discarded\nposition 0f:9\n";
        check("history", history, expected);
        let empty = r#"{"epoch":"0f","offset":9,"complete":true,"messages":[]}"#;
        check("history", empty, "position 0f:9\n");
        check("history", r#"{"complete":true,"messages":[]}"#, "the channel has no history\n");
    }

    #[test]
    fn members_are_a_table() {
        let reply = r#"{"count":2,"members":[{"user_id":"11","user_info":"{\"a\":1}","connections":2},{"user_id":"12","connections":1}]}"#;
        check(
            "members",
            reply,
            "USER_ID  CONNECTIONS  USER_INFO\n11                 2  {\"a\":1}\n12                 1\n",
        );
        check("members", r#"{"count":0,"members":[]}"#, "no members\n");
        check("members", r#"{"count":1,"members":[]}"#, "1 connection without names\n");
    }

    #[test]
    fn connections_of_a_user_are_counted() {
        check("disconnect", "{}", "disconnected\n");
        check("disconnect", r#"{"connections":1}"#, "disconnected 1 connection\n");
        check("disconnect", r#"{"connections":0}"#, "disconnected 0 connections\n");
    }

    #[test]
    fn connections_that_will_be_closed_are_counted() {
        check("drain", r#"{"connections":2,"over_ms":1500}"#, "closing 2 connections over 1.5 s\n");
        check("drain", r#"{"connections":1,"over_ms":60000}"#, "closing 1 connection over 60 s\n");
    }

    #[test]
    fn connections_are_a_table() {
        let reply = r#"{"connections":[
            {"socket_id":"ab","address":"127.0.0.1:5","dialect":"native","shard":0,"age_s":61,"subscriptions":2,"outbox_bytes":2048},
            {"socket_id":"cd","address":"[::1]:50000","dialect":"pusher","shard":11,"age_s":90000,"subscriptions":0,"outbox_bytes":0}]}"#;
        let expected = "\
SOCKET_ID  ADDRESS      DIALECT  SHARD    AGE  SUBSCRIPTIONS  OUTBOX
ab         127.0.0.1:5  native       0  1m 1s              2   2 KiB
cd         [::1]:50000  pusher      11  1d 1h              0     0 B
";
        check("connections", reply, expected);
        check("connections", r#"{"connections":[]}"#, "no connections\n");
    }

    #[test]
    fn a_connection_is_a_list_of_members() {
        let reply = r#"{"socket_id":"ab","address":"x","dialect":"pusher","shard":1,"age_s":5,"subscriptions":2,"outbox_bytes":0,
            "channels":["a","b"]}"#;
        let expected = "\
socket_id      ab
address        x
dialect        pusher
shard          1
age            5s
subscriptions  2
outbox         0 B
channels       a
               b
";
        check("connection", reply, expected);
    }

    #[test]
    fn a_rule_is_a_table_of_keys() {
        let reply = r#"{"channel":"presence-a","rule":2,"match":"presence-*","keys":[
            {"key":"history","value":100,"source":"rule"},{"key":"slow","value":"disconnect","source":"name"},
            {"key":"presence","value":"members","source":"fixed","why":"always"}]}"#;
        let expected = "\
presence-a: [[channel]] table 2, match \"presence-*\", is the first that fits
KEY       VALUE       FROM
history   100         table 2
slow      disconnect  default of the name
presence  members     always
";
        check("rule", reply, expected);
        let reply = r#"{"channel":"a","keys":[{"key":"history","value":0,"source":"name"}]}"#;
        let expected =
            "a: no [[channel]] table fits the name\nKEY      VALUE  FROM\nhistory  0      default of the name\n";
        check("rule", reply, expected);
    }

    #[test]
    fn the_busiest_are_two_tables() {
        let reply = r#"{"channels":[{"channel":"user:1","subscribers":20,"messages":3}],
            "addresses":[{"address":"2001:db8::/64","connections":7}]}"#;
        let expected = "\
CHANNEL  SUBSCRIBERS  MESSAGES
user:1            20         3

ADDRESS        CONNECTIONS
2001:db8::/64            7
";
        check("busiest", reply, expected);
        check("busiest", r#"{"channels":[],"addresses":[]}"#, &format!("no channels\n\n{NO_ADDRESSES}\n"));
    }

    #[test]
    fn stats_show_total_and_shards_while_they_fit() {
        let reply = r#"{"stats":{"connections":3,"bytes_out":1000},"shards":[{"connections":1,"bytes_out":1000},
            {"connections":2}]}"#;
        let expected = "\
NAME         TOTAL  SHARD 0  SHARD 1
bytes_out     1000     1000
connections      3        1        2
";
        check("stats", reply, expected);
        let reply = format!(r#"{{"stats":{{"x":9}},"shards":[{}]}}"#, [r#"{"x":1}"#; 9].join(","));
        let expected = "NAME  TOTAL\nx         9\n9 shards: --json has the numbers of each\n";
        check("stats", &reply, expected);
    }

    #[test]
    fn nothing_in_a_reply_steers_the_terminal() {
        check("channel", r#"{"channel":"\u001b[2J\u202e","subscribers":2}"#, "\u{fffd}[2J\u{fffd}: 2 subscribers\n");
        check("stats", r#"{"stats":{"\u009b":9}}"#, "NAME  TOTAL\n\u{fffd}         9\n");
    }
}
