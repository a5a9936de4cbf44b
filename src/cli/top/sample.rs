//! One sample of the server: the replies to `stats` and `busiest`.

use corecast::admin::client::{Client, Error};
use corecast::api::By;
use corecast::api::operation::{Busiest, Stats};
use corecast::protocol::json::is_unseen;
use serde_json::Value;
use std::collections::HashMap;
use std::time::Instant;

/// The numbers of `stats` by name.
#[derive(Clone, Default)]
pub struct Numbers(HashMap<String, u64>);

impl Numbers {
    fn of(value: &Value) -> Numbers {
        let members = value.as_object().into_iter().flatten();
        Numbers(members.filter_map(|(name, number)| Some((seen(name), number.as_u64()?))).collect())
    }

    /// The number of this name; 0 if the server is older and does not have it.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// The numbers whose names start with this prefix, with the rest of their names.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, u64)> {
        self.0.iter().filter_map(move |(name, number)| Some((name.strip_prefix(prefix)?, *number)))
    }
}

/// A channel among the busiest.
#[derive(Clone)]
pub struct Channel {
    pub name: String,
    pub subscribers: u64,
    pub messages: u64,
}

/// An address among the busiest.
#[derive(Clone)]
pub struct Address {
    pub name: String,
    pub connections: u64,
}

/// One sample.
#[derive(Clone)]
pub struct Sample {
    pub at: Instant,
    pub total: Numbers,
    pub shards: Vec<Numbers>,
    pub channels: Vec<Channel>,
    pub addresses: Vec<Address>,
}

impl Sample {
    /// Asks the server for a sample. It requests more channels than are shown, so that a rising channel has a previous
    /// value.
    pub fn take(client: &mut Client, by: By) -> Result<Sample, Error> {
        let stats = client.reply(&Stats {}.into())?;
        let at = Instant::now();
        let busiest = client.reply(&Busiest { by, limit: Some(ROWS_ASKED) }.into())?;
        Ok(Sample::read(at, &stats, &busiest))
    }

    /// Builds a sample from the replies to `stats`, which was received at `at`, and `busiest`.
    pub fn read(at: Instant, stats: &Value, busiest: &Value) -> Sample {
        let text = |value: &Value| seen(value.as_str().unwrap_or_default());
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        Sample {
            at,
            total: Numbers::of(&stats["stats"]),
            shards: list(&stats["shards"]).iter().map(Numbers::of).collect(),
            channels: list(&busiest["channels"])
                .iter()
                .map(|item| Channel {
                    name: text(&item["channel"]),
                    subscribers: number(&item["subscribers"]),
                    messages: number(&item["messages"]),
                })
                .collect(),
            addresses: list(&busiest["addresses"])
                .iter()
                .map(|item| Address { name: text(&item["address"]), connections: number(&item["connections"]) })
                .collect(),
        }
    }
}

/// Replaces characters that a terminal does not show, such as control characters.
fn seen(text: &str) -> String {
    text.replace(is_unseen, "\u{fffd}")
}

const ROWS_ASKED: usize = 100;
