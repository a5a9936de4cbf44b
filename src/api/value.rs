//! Values of members and replies, and their JSON forms.

use super::member::{Given, Written};
use crate::metrics;
use crate::protocol::channel::ChannelName;
use crate::protocol::position::Position;
use crate::protocol::socket_id::SocketId;
use serde::ser::{Error, SerializeMap};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::net::SocketAddr;

/// The measure of how busy a channel is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// The number of its subscribers.
    #[default]
    Subscribers,
    /// The number of its messages in the last seconds.
    Messages,
}

impl By {
    /// The words for it in requests.
    pub const WORDS: [(&'static str, By); 2] = [("subscribers", By::Subscribers), ("messages", By::Messages)];
}

impl Written for By {
    fn written(&self) -> Option<Given<'_>> {
        let (word, _) = By::WORDS[*self as usize];
        Some(Given::Text(Cow::Borrowed(word)))
    }
}

/// An operation on the whole server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Explain the rule of a channel.
    Rule {
        /// Its name.
        channel: ChannelName,
    },
    /// Read the configuration again, and apply it.
    Reload,
    /// Accept no more connections, close all of them over this time, and stop.
    Drain {
        /// Milliseconds.
        over_ms: u64,
    },
    /// Close some connections over this time, and continue.
    Shed {
        /// The part of all connections to close.
        share: Share,
        /// Milliseconds.
        over_ms: u64,
    },
    /// Make a token for a link to the console.
    ConsoleToken {
        /// What its session may do.
        read_only: bool,
    },
}

/// A part of the connections of the whole server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Per cent, at most 100.
    Percent(u8),
    /// This many, or all if there are fewer.
    Count(usize),
}

/// A client's address as text; without a port if a trusted proxy named none.
pub fn written(address: SocketAddr) -> String {
    match address.port() {
        0 => address.ip().to_string(),
        _ => address.to_string(),
    }
}

/// Serializes an address for a reply.
pub(super) fn address<S: Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    address.map(written).serialize(serializer)
}

/// Serializes an epoch as sixteen hexadecimal digits.
pub(super) fn hexadecimal<S: Serializer>(epoch: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{epoch:016x}"))
}

/// An epoch as sixteen hexadecimal digits, for texts that are written too often for a formatter.
pub fn epoch_digits(epoch: u64) -> [u8; 16] {
    const EACH: u128 = u128::MAX / 0xff;
    // Spread until each byte holds one digit.
    let mut digits = u128::from(epoch);
    digits = (digits | digits << 32) & (u128::MAX / 0xffff_ffff_ffff_ffff * 0xffff_ffff);
    digits = (digits | digits << 16) & (u128::MAX / 0xffff_ffff * 0xffff);
    digits = (digits | digits << 8) & (u128::MAX / 0xffff * 0xff);
    digits = (digits | digits << 4) & (EACH * 0xf);
    // Those above 9 reach 16 with 6 more.
    let letters = ((digits + EACH * 6) >> 4) & EACH;
    (digits + EACH * u128::from(b'0') + letters * u128::from(b'a' - b'0' - 10)).to_be_bytes()
}

/// JSON that is serialized as it is.
pub(super) fn raw_json<E: Error>(json: &str) -> Result<&RawValue, E> {
    serde_json::from_str(json).map_err(E::custom)
}

/// Serializes the text of a JSON value as that value.
pub(super) fn optional_json<S: Serializer>(json: &Option<Box<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    json.as_deref().map(raw_json).transpose()?.serialize(serializer)
}

/// An object with `epoch` and `offset`.
impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("epoch", &format_args!("{:016x}", self.epoch))?;
        map.serialize_entry("offset", &self.offset)?;
        map.end()
    }
}

impl Serialize for ChannelName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_channel().as_str())
    }
}

impl Serialize for SocketId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Serializes pairs as an object: name → number.
impl Serialize for metrics::Stats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.values())
    }
}
