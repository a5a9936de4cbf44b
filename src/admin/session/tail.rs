//! A stream of sightings: keeps track of which shards to ask for more. Pure.

use crate::api::{Refusal, operation};
use crate::config;
use crate::hub::mail::Question;
use crate::hub::observe::TAPS;
use crate::hub::observe::sighting::Filter;
use crate::ids::ShardId;
use ipnet::IpNet;
use std::net::SocketAddr;
use std::sync::Arc;

/// The shards of a tail, and whether they have been asked.
pub struct Tail {
    filter: Arc<Filter>,
    shards: Vec<Place>,
    /// Number of shards that do not watch yet.
    blind: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The shard does not have the tap yet.
    Unasked,
    /// The shard has been asked, and will send its next sightings.
    Asked,
    /// The shard has sent sightings, and sends more once it is asked.
    Ready,
}

impl Tail {
    /// Asks the shard that enforces the limit of taps first; the others are asked once it has agreed.
    pub fn new(filter: Filter, shards: usize) -> (Tail, Question) {
        let filter = Arc::new(filter);
        let mut places = vec![Place::Unasked; shards];
        places[usize::from(TAPS)] = Place::Asked;
        (Tail { filter: filter.clone(), shards: places, blind: shards }, Question::Tap { filter })
    }

    /// The next question, and the shard to ask.
    pub fn ask(&mut self) -> Option<(ShardId, Question)> {
        let shard = self.shards.iter().position(|place| *place != Place::Asked)?;
        let question = match std::mem::replace(&mut self.shards[shard], Place::Asked) {
            Place::Unasked => Question::Tap { filter: self.filter.clone() },
            _ => Question::MoreSeen,
        };
        Some((shard as ShardId, question))
    }

    /// Whether there is a shard to ask.
    pub fn is_ready(&self) -> bool {
        self.shards.iter().any(|place| *place != Place::Asked)
    }

    /// A shard watches. Returns whether all shards watch now.
    pub fn begin(&mut self) -> bool {
        self.blind -= 1;
        self.blind == 0
    }

    /// A shard has sent sightings.
    pub fn received(&mut self, shard: ShardId) {
        self.shards[usize::from(shard)] = Place::Ready;
    }

    /// All shards.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        0..self.shards.len() as ShardId
    }
}

/// The filter of a request.
pub fn filter(tail: &operation::Tail) -> Result<Filter, Refusal> {
    let bit = |event: &str| operation::KINDS.iter().position(|kind| *kind == event).map_or(0, |kind| 1 << kind);
    let kinds = match &tail.events[..] {
        [] => (1 << operation::KINDS.len()) - 1,
        events => events.iter().fold(0, |kinds, event| kinds | bit(event)),
    };
    Ok(Filter {
        kinds,
        channel: tail.channel.clone(),
        network: tail.address.as_deref().map(network).transpose()?,
        sample: tail.sample.unwrap_or(1),
        rate: tail.rate.unwrap_or(RATE),
        data_bytes: tail.data.unwrap_or(0).into(),
    })
}

/// A network in CIDR notation, or an address as lists of connections show it: with a port, which is not compared.
fn network(text: &str) -> Result<IpNet, Refusal> {
    let of_connection = || Some(text.parse::<SocketAddr>().ok()?.ip().to_canonical().into());
    let network = config::network(text).or_else(of_connection);
    network.ok_or_else(|| Refusal::malformed("address must be an IP address, with or without a port, or a network"))
}

/// Limit of sightings per second and shard if none is given.
const RATE: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_becomes_a_filter() {
        let all = Filter { kinds: 127, channel: None, network: None, sample: 1, rate: RATE, data_bytes: 0 };
        assert_eq!(filter(&operation::Tail::default()), Ok(all.clone()));
        for (address, network) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::1", "::1/128"),
            ("10.0.0.7:4000", "10.0.0.7/32"),
            ("[::1]:4000", "::1/128"),
            ("[::ffff:10.0.0.7]:4000", "10.0.0.7/32"),
        ] {
            let tail = operation::Tail { address: Some(address.into()), ..operation::Tail::default() };
            assert_eq!(filter(&tail), Ok(Filter { network: network.parse().ok(), ..all.clone() }));
        }
        let publishes = operation::Tail { events: vec!["publish".into()], data: Some(5), ..operation::Tail::default() };
        assert_eq!(filter(&publishes), Ok(Filter { kinds: 16, data_bytes: 5, ..all }));
        let wrong = operation::Tail { address: Some("x".into()), ..operation::Tail::default() };
        assert_eq!(filter(&wrong).map_err(|refusal| refusal.code()), Err("malformed_request"));
    }
}
