//! What clients are told, in any dialect.

use super::position::Position;
use std::num::NonZeroU64;

/// What a new subscriber is told beside the channel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subscribed<'a> {
    /// The position at which the subscription is live.
    pub position: Option<Position>,
    /// Whether everything after `since` follows.
    pub recovered: Option<bool>,
    /// JSON text of the channel's presence.
    pub presence: Option<&'a str>,
}

/// A business message.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The channel; `None`: the message is for a user.
    pub channel: Option<&'a str>,
    /// The name as the publisher wrote it between the quotes.
    pub event: &'a str,
    /// Raw JSON.
    pub data: Option<&'a str>,
    /// Place of the message in a channel with history.
    pub offset: Option<NonZeroU64>,
    /// The user that sent a client event, [escaped](super::json::escape_into).
    pub user_id: Option<&'a str>,
}

/// The prefix of `name`, the name of an event, that is reserved for the server; `None`: there is none.
pub fn reserved_prefix(name: &str) -> Option<&'static str> {
    RESERVED.into_iter().find(|prefix| name.starts_with(prefix))
}

const RESERVED: [&str; 3] = ["socket:", "pusher:", "pusher_internal:"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_system_events_are_reserved_in_both_dialects() {
        for (name, prefix) in
            [("socket:", "socket:"), ("pusher:ping", "pusher:"), ("pusher_internal:a", "pusher_internal:")]
        {
            assert_eq!(reserved_prefix(name), Some(prefix));
        }
        for name in
            ["", "socket", "Socket:a", " socket:", "pusher", "pusher_:", "Pusher:a", "pusher_internal", "client-a"]
        {
            assert_eq!(reserved_prefix(name), None, "{name}");
        }
    }
}
