//! Events that are reported only while a consumer asks for them. They are not part of any state: no snapshot holds them.

use crate::hub::message::Payload;
use crate::protocol::channel::ChannelName;
use crate::protocol::socket_id::SocketId;

/// Kinds of these events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Messages of subscribers to the other subscribers of a channel.
    pub client_events: bool,
    /// Subscribes to a cache channel that has no message.
    pub cache_misses: bool,
    /// The number of a channel's subscribers, while the server tells it.
    pub subscription_counts: bool,
}

/// A client event that was sequenced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientEvent {
    /// The channel.
    pub channel: ChannelName,
    /// The connection that sent it.
    pub sender: SocketId,
    /// The message. On a presence channel it names the sender's user.
    pub payload: Payload,
}

impl Extras {
    /// The kinds of these names, which are those of [`ALSO`](crate::api::operation::ALSO).
    pub fn named(names: &[Box<str>]) -> Extras {
        let has = |name: &str| names.iter().any(|given| **given == *name);
        Extras {
            client_events: has("client_event"),
            cache_misses: has("cache_miss"),
            subscription_counts: has("subscription_count"),
        }
    }

    /// The kinds of both.
    pub fn or(self, other: Extras) -> Extras {
        Extras {
            client_events: self.client_events || other.client_events,
            cache_misses: self.cache_misses || other.cache_misses,
            subscription_counts: self.subscription_counts || other.subscription_counts,
        }
    }
}
