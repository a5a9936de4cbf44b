//! `corecast events` and `corecast tail`: prints the lines of a stream as they arrive, until one side ends it.

use super::{Client, Error};
use crate::api::Request;
use crate::protocol::json::is_unseen;
use serde_json::Value;
use std::io::{self, BufRead, Write};
use std::time::Duration;
use x509_cert::der::DateTime;

impl Client {
    /// Requests a stream and prints it to its end: the lines as received, or a rendering for people.
    pub fn watch(&mut self, request: &Request, json: bool, out: &mut impl Write) -> Result<(), Error> {
        let mut line = self.ask(&request.into())?;
        let reply = self.judge(&line)?;
        match json {
            true => out.write_all(line.as_bytes()),
            false => begin(&reply, out),
        }
        .map_err(Error::Output)?;
        // Days may pass without a line.
        self.stream.get_ref().set_read_timeout(None).map_err(|error| self.broken(error.to_string()))?;
        loop {
            if memchr::memchr(b'\n', self.stream.buffer()).is_none() {
                out.flush().map_err(Error::Output)?;
            }
            line.clear();
            match self.stream.read_line(&mut line) {
                Ok(0) => return Ok(()),
                Ok(_) if line.ends_with('\n') => {}
                Ok(_) => return Err(self.broken("it stopped in the middle of a line".into())),
                Err(error) => return Err(self.broken(error.to_string())),
            }
            let told: Value = serde_json::from_str(&line).unwrap_or_default();
            match json {
                true => out.write_all(line.as_bytes()),
                false => render(&told, out),
            }
            .map_err(Error::Output)?;
            if told["event"] == "error" {
                out.flush().map_err(Error::Output)?;
                return Err(Error::Refused { code: text(&told["code"]), text: text(&told["error"]) });
            }
        }
    }
}

fn begin(reply: &Value, out: &mut impl Write) -> io::Result<()> {
    if reply["epoch"].is_null() {
        return writeln!(out, "watching");
    }
    writeln!(out, "after number {} of epoch {}", text(&reply["number"]), text(&reply["epoch"]))
}

/// One line for people: the time, the number if there is one, the event, and its subject.
fn render(told: &Value, out: &mut impl Write) -> io::Result<()> {
    let event = text(&told["event"]);
    if told["number"].is_null() && event != "error" {
        return render_sighting(told, &event, out);
    }
    let subject = match &*event {
        "channel_occupied" | "channel_vacated" | "cache_miss" => text(&told["channel"]),
        "subscription_count" => format!("{} {}", text(&told["channel"]), text(&told["subscribers"])),
        "client_event" => {
            let user = told["user_id"].as_str().map(|id| format!(" as {id}")).unwrap_or_default();
            let [channel, name, socket_id, data] =
                ["channel", "name", "socket_id", "data"].map(|what| text(&told[what]));
            format!("{channel} {name} of {socket_id}{user} {data}")
        }
        "member_added" | "member_removed" => format!("{} {}", text(&told["channel"]), text(&told["user_id"])),
        "connected" => {
            let address = told["address"].as_str().unwrap_or("an unknown address");
            format!("{} from {address}, shard {}", text(&told["socket_id"]), text(&told["shard"]))
        }
        "disconnected" => match &told["code"] {
            Value::Null => format!("{} {}", text(&told["socket_id"]), text(&told["reason"])),
            code => format!("{} {} ({code})", text(&told["socket_id"]), text(&told["reason"])),
        },
        "snapshot" => "what follows is the state at this number".into(),
        "snapshot_end" => {
            let [channels, members, connections] = ["channels", "members", "connections"].map(|what| text(&told[what]));
            format!("{channels} channels, {members} members, {connections} connections")
        }
        // The text is printed as the command's error.
        "error" => return Ok(()),
        _ => String::new(),
    };
    let time = told["time_ms"].as_u64().map_or("-".into(), time);
    let line = format!("{time:<24} {:>6} {event:<16} {subject}", text(&told["number"]));
    writeln!(out, "{}", line.trim_end().replace(is_unseen, "\u{fffd}"))
}

/// A sighting: its time, its kind, and every other member by name.
fn render_sighting(told: &Value, event: &str, out: &mut impl Write) -> io::Result<()> {
    let members = [
        "socket_id",
        "address",
        "dialect",
        "channel",
        "name",
        "bytes",
        "subscribers",
        "result",
        "why",
        "reason",
        "code",
        "data",
    ];
    let shown = members.iter().chain(&["count"]).filter(|member| !told[**member].is_null());
    let shown: Vec<String> = shown.map(|member| format!("{member}={}", value(member, &told[*member]))).collect();
    let time = told["time_ms"].as_u64().map_or("-".into(), time);
    let line = format!("{time} {event:<11} shard={} {}", text(&told["shard"]), shown.join(" "));
    writeln!(out, "{}", line.trim_end().replace(is_unseen, "\u{fffd}"))
}

/// Clients choose names, so a name that could be read as several members is quoted. Data is JSON, and comes last.
fn value(member: &str, value: &Value) -> String {
    let text = text(value);
    let is_plain = text.chars().all(|character| character.is_ascii_graphic() && !"\"=".contains(character));
    if member == "data" || is_plain && !text.is_empty() { text } else { value.to_string() }
}

/// UTC in the format of RFC 3339.
fn time(ms: u64) -> String {
    // `DateTime` comes from a crate that certificates need anyway.
    match DateTime::from_unix_duration(Duration::from_millis(ms)) {
        Ok(time) => format!("{}.{:03}Z", time.to_string().trim_end_matches('Z'), ms % 1000),
        Err(_) => ms.to_string(),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &str) {
        let mut out = Vec::new();
        render(&serde_json::from_str(line).expect("JSON"), &mut out).expect("a vector");
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn people_read_one_line_per_event() {
        check(
            r#"{"number":42,"time_ms":1764100000007,"event":"channel_vacated","channel":"user:13"}"#,
            "2025-11-25T19:46:40.007Z     42 channel_vacated  user:13\n",
        );
        check(
            r#"{"number":7,"event":"connected","socket_id":"1.2","address":"192.0.2.7:80","shard":1}"#,
            "-                             7 connected        1.2 from 192.0.2.7:80, shard 1\n",
        );
        check(
            r#"{"number":8,"time_ms":0,"event":"disconnected","socket_id":"1.2","reason":"pong_timeout","code":4201}"#,
            "1970-01-01T00:00:00.000Z      8 disconnected     1.2 pong_timeout (4201)\n",
        );
        check(
            r#"{"number":8,"event":"snapshot_end","channels":2,"members":5,"connections":3}"#,
            "-                             8 snapshot_end     2 channels, 5 members, 3 connections\n",
        );
        check(
            r#"{"number":8,"time_ms":0,"event":"member_added","channel":"presence-a","user_id":"11"}"#,
            "1970-01-01T00:00:00.000Z      8 member_added     presence-a 11\n",
        );
        check(
            r#"{"number":8,"time_ms":0,"event":"subscription_count","channel":"a","subscribers":3}"#,
            "1970-01-01T00:00:00.000Z      8 subscription_count a 3\n",
        );
        check(
            r#"{"number":8,"time_ms":0,"event":"client_event","channel":"presence-a","name":"client-e","data":{"a":1},"socket_id":"1.2","user_id":"11"}"#,
            "1970-01-01T00:00:00.000Z      8 client_event     presence-a client-e of 1.2 as 11 {\"a\":1}\n",
        );
        check(
            r#"{"time_ms":7,"shard":1,"event":"subscribe","socket_id":"1.2","address":"192.0.2.7:80","channel":"a","result":"ok"}"#,
            "1970-01-01T00:00:00.007Z subscribe   shard=1 socket_id=1.2 address=192.0.2.7:80 channel=a result=ok\n",
        );
        check(
            r#"{"time_ms":7,"shard":1,"event":"subscribe","channel":"a result=ok \u202e\u009b","result":"invalid_channel"}"#,
            "1970-01-01T00:00:00.007Z subscribe   shard=1 channel=\"a result=ok \u{fffd}\u{fffd}\" result=invalid_channel\n",
        );
        check(
            r#"{"time_ms":7,"shard":1,"event":"publish","channel":"=@","name":"","bytes":9,"data":"{\"a\": 1}"}"#,
            "1970-01-01T00:00:00.007Z publish     shard=1 channel=\"=@\" name=\"\" bytes=9 data={\"a\": 1}\n",
        );
        check(
            r#"{"time_ms":7,"shard":0,"event":"dropped","count":12}"#,
            "1970-01-01T00:00:00.007Z dropped     shard=0 count=12\n",
        );
        check(r#"{"number":9,"time_ms":0,"event":"new"}"#, "1970-01-01T00:00:00.000Z      9 new\n");
    }
}
