//! Sightings, which a tap shows, and the filter that selects them.

use crate::config::pattern::matches;
use crate::protocol::channel::{Channel, ChannelName, NAME_BYTES_MAX};
use crate::protocol::dialect::Dialect;
use crate::protocol::socket_id::SocketId;
use ipnet::IpNet;
use std::net::SocketAddr;

/// An action of a client or a decision of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the variants' sentences explain the fields
pub enum Sight {
    /// A connection was opened.
    Connect { client: Client },
    /// An upgrade request was answered with an HTTP error.
    Refuse { address: Option<SocketAddr>, why: &'static str },
    /// A client asked to subscribe or to unsubscribe, as `kind` says. A name that is not legal is shown as the client sent it.
    Request { kind: &'static str, client: Client, channel: Box<str>, error: Option<&'static str> },
    /// A message was sequenced. `event` is as written between the quotes; `bytes` is the length of the data. `data` holds its
    /// first bytes, if the tap asked for them.
    Publish { channel: ChannelName, event: Box<str>, bytes: usize, subscribers: u64, data: Option<Box<str>> },
    /// A connection ended. `opened`: what it was while it was open.
    Close { opened: Option<(SocketId, Dialect)>, address: Option<SocketAddr>, kind: u8, code: Option<u16> },
    /// A message was refused because of its client's rate limit.
    Limit { client: Client },
}

/// The client that a sighting is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its socket id.
    pub socket_id: SocketId,
    /// Its address, if known.
    pub address: Option<SocketAddr>,
    /// The dialect that it speaks.
    pub dialect: Dialect,
}

/// A sighting with its time.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// Time of the turn, in microseconds of the hub's clock.
    pub at_us: u64,
    /// What was seen.
    pub sight: Sight,
}

/// Selects the sightings of a tap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// A set of bits: bit n stands for kind n of [`KINDS`](crate::api::operation::KINDS).
    pub kinds: u8,
    /// Only sightings of channels whose name matches this pattern; `*` matches any text.
    pub channel: Option<Box<str>>,
    /// Only sightings of clients with an address in this network.
    pub network: Option<IpNet>,
    /// Takes one in this many of the sightings that pass.
    pub sample: u32,
    /// Most sightings per second and shard.
    pub rate: u32,
    /// Most bytes of a message's data that are shown.
    pub data_bytes: usize,
}

impl Filter {
    /// Whether a sighting passes. `kind` is an index into [`KINDS`](crate::api::operation::KINDS).
    pub(super) fn passes(&self, kind: usize, channel: Option<&str>, address: Option<SocketAddr>) -> bool {
        let is_of_channel = |pattern: &str| channel.is_some_and(|channel| matches(pattern, channel));
        let is_of_network = |net: &IpNet| address.is_some_and(|address| net.contains(&address.ip().to_canonical()));
        self.kinds & 1 << kind != 0
            && self.channel.as_deref().is_none_or(is_of_channel)
            && self.network.as_ref().is_none_or(is_of_network)
    }
}

/// The first bytes of a text, cut between characters.
pub fn shortened(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// A channel's name as it is shown. A name that is not legal is shortened.
pub fn shown_channel(name: &str) -> Box<str> {
    match Channel::parse(name) {
        Some(_) => name.into(),
        None => shortened(name, NAME_BYTES_MAX).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter() -> Filter {
        Filter { kinds: 0x7f, channel: None, network: None, sample: 1, rate: 1000, data_bytes: 0 }
    }

    #[test]
    fn a_filter_selects_kinds_channels_and_networks() {
        let [near, far] = ["10.1.2.3:5", "11.1.2.3:5"].map(|address| address.parse().ok());
        let of = |change: &dyn Fn(&mut Filter)| {
            let mut filter = filter();
            change(&mut filter);
            filter
        };
        assert!(of(&|_| ()).passes(6, None, None));
        assert!(!of(&|filter| filter.kinds = 1).passes(6, None, None));
        let channel = of(&|filter| filter.channel = Some("a*".into()));
        assert!(
            channel.passes(2, Some("ab"), None)
                && !channel.passes(2, Some("b"), None)
                && !channel.passes(5, None, None)
        );
        let network = of(&|filter| filter.network = "10.0.0.0/8".parse().ok());
        assert!(network.passes(0, None, near) && !network.passes(0, None, far) && !network.passes(0, None, None));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!((shortened("aé", 2), shortened("aé", 3), shortened("", 9)), ("a", "aé", ""));
    }
}
