//! Why a request is refused, in any dialect.

use super::auth::Failure;
use super::channel;
use std::borrow::Cow;

/// Why a request was refused; the text is for people, the code for programs (PROTOCOL.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ErrorCode {
    AlreadySubscribed,
    NotSubscribed,
    InvalidChannel,
    AuthRequired,
    AuthInvalid(Failure),
    SignInAuthRequired,
    SignInAuthInvalid(Failure),
    AlreadySignedIn,
    OtherUser,
    InvalidData(&'static str),
    /// Bytes of `user_info`.
    UserInfoTooLarge {
        bytes: usize,
        max: usize,
    },
    MalformedSince,
    PresenceFull {
        max: usize,
    },
    TooManySubscriptions {
        max: usize,
    },
    MalformedMessage(&'static str),
    UnknownEvent,
    ClientEventRefused(&'static str),
    RateLimited,
    /// Subscribes and unsubscribes.
    TooManyChanges {
        per_second: u32,
    },
    Unavailable,
}

impl ErrorCode {
    /// The code, for programs.
    pub fn code(self) -> &'static str {
        match self {
            ErrorCode::AlreadySubscribed => "already_subscribed",
            ErrorCode::NotSubscribed => "not_subscribed",
            ErrorCode::InvalidChannel => "invalid_channel",
            ErrorCode::AuthRequired | ErrorCode::SignInAuthRequired => "auth_required",
            ErrorCode::AuthInvalid(_) | ErrorCode::SignInAuthInvalid(_) => "auth_invalid",
            ErrorCode::AlreadySignedIn => "already_signed_in",
            ErrorCode::OtherUser => "auth_required",
            ErrorCode::InvalidData(_) | ErrorCode::UserInfoTooLarge { .. } => "invalid_data",
            ErrorCode::MalformedSince => "malformed_since",
            ErrorCode::PresenceFull { .. } => "presence_full",
            ErrorCode::TooManySubscriptions { .. } => "too_many_subscriptions",
            ErrorCode::MalformedMessage(_) => "malformed_message",
            ErrorCode::UnknownEvent => "unknown_event",
            ErrorCode::ClientEventRefused(_) => "client_event_refused",
            ErrorCode::RateLimited | ErrorCode::TooManyChanges { .. } => "rate_limited",
            ErrorCode::Unavailable => "unavailable",
        }
    }

    /// The text for people.
    pub fn text(self) -> Cow<'static, str> {
        let text = match self {
            ErrorCode::AlreadySubscribed => "the connection is already subscribed to the channel",
            ErrorCode::NotSubscribed => "the connection is not subscribed to the channel",
            ErrorCode::InvalidChannel => channel::RULE,
            ErrorCode::AuthRequired => "auth is missing: a private channel needs a signature from the backend",
            ErrorCode::AuthInvalid(_) => {
                "auth is not a signature of this socket_id, channel and channel_data: request one from the backend"
            }
            ErrorCode::SignInAuthRequired => "auth is missing: a sign-in needs a signature from the backend",
            ErrorCode::SignInAuthInvalid(_) => {
                "auth is not a signature of this socket_id and user_data: request one from the backend"
            }
            ErrorCode::OtherUser => "the channel belongs to a user: sign in as that user first",
            ErrorCode::AlreadySignedIn => {
                "the connection is signed in as another user: open another connection for this user"
            }
            ErrorCode::MalformedSince => {
                "data.since must be an object with epoch, a string, and offset, an integer from 0 to 9007199254740991; \
                 socket_id, where present, must be the id of an earlier connection: subscribe without since"
            }
            ErrorCode::UserInfoTooLarge { bytes, max } => {
                return format!("user_info has {bytes} bytes, over the limit of {max}: the backend must sign less")
                    .into();
            }
            ErrorCode::PresenceFull { max } => {
                return format!("the channel has {max} members, the limit: subscribe again later").into();
            }
            ErrorCode::TooManySubscriptions { max } => {
                return format!("the connection has {max} subscriptions, the limit: unsubscribe from a channel first")
                    .into();
            }
            ErrorCode::TooManyChanges { per_second } => {
                return format!(
                    "the connection subscribes and unsubscribes more than {per_second} times a second: try again later"
                )
                .into();
            }
            ErrorCode::MalformedMessage(text) | ErrorCode::InvalidData(text) | ErrorCode::ClientEventRefused(text) => {
                text
            }
            ErrorCode::UnknownEvent => {
                "unknown event: a client may send socket:subscribe, socket:unsubscribe, socket:signin, socket:ping, socket:pong, \
                 and client events, whose names begin with client-"
            }
            ErrorCode::RateLimited => {
                "the rate limit was exceeded and the message was not processed: send it again later, and fewer per second"
            }
            ErrorCode::Unavailable => "the server cannot process this message now: send it again later",
        };
        text.into()
    }
}
