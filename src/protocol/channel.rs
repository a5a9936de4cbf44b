//! Channel names and kinds.

use crate::config::{self, ENCRYPTED, PRESENCE, PRIVATE};
use std::fmt::Write;
use std::sync::Arc;

/// A legal channel name, or that of a user's channel, borrowed. It contains no character that JSON escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel<'a>(&'a str);

/// The clients that may subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All clients.
    Public,
    /// Clients with a signature from the backend.
    Private,
    /// The same. Only they can read the messages, which publishers encrypt.
    Encrypted,
    /// Clients with a signature from the backend, as users.
    Presence,
    /// None: a message reaches the connections that are signed in as a user ([`ChannelName::of_user`]).
    User,
}

impl Kind {
    /// Whether a subscribe needs a signature.
    pub fn needs_auth(self) -> bool {
        self != Kind::Public
    }
}

impl<'a> Channel<'a> {
    /// Checks a name; `None`: it is not legal (PROTOCOL.md, Channels).
    pub fn parse(name: &'a str) -> Option<Channel<'a>> {
        let bytes = name.as_bytes();
        let is_legal = (1..=NAME_BYTES_MAX).contains(&bytes.len())
            && bytes.iter().all(|&byte| LEGAL[usize::from(byte)])
            && !(Channel(name).kind().needs_auth() && bytes.contains(&b':'));
        is_legal.then_some(Channel(name))
    }

    /// A name that was checked before.
    pub fn of_legal(name: &'a str) -> Channel<'a> {
        debug_assert!(Channel::parse(name).is_some() || Channel(name).is_of_user());
        Channel(name)
    }

    /// The name.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether it is the internal channel of a user. No other name begins with `#`.
    #[inline]
    pub fn is_of_user(self) -> bool {
        self.0.as_bytes().first() == Some(&b'#')
    }

    /// Whether its name gives it a history of one message, which new subscribers receive.
    pub fn is_cache(self) -> bool {
        config::is_cache(self.0)
    }

    /// Its kind, which the prefix decides.
    pub fn kind(self) -> Kind {
        match self.0 {
            name if name.starts_with(ENCRYPTED) => Kind::Encrypted,
            name if name.starts_with(PRIVATE) => Kind::Private,
            name if name.starts_with(PRESENCE) => Kind::Presence,
            name if name.starts_with(USER) => Kind::User,
            _ => Kind::Public,
        }
    }
}

/// The name of a [`Channel`], owned and shared between the tables of several shards.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChannelName(Arc<str>);

impl From<Channel<'_>> for ChannelName {
    fn from(channel: Channel<'_>) -> Self {
        ChannelName(channel.0.into())
    }
}

impl ChannelName {
    /// The internal channel of a user. Its name is not a legal one, so that no client and no operator can name it: `#` comes
    /// first, and each byte of the id that a name may not contain is written as `%` and two hexadecimal digits. So different
    /// ids have different names, and the name contains no character that JSON escapes.
    pub fn of_user(id: &str) -> ChannelName {
        let mut name = String::with_capacity(USER.len() + id.len());
        name.push_str(USER);
        for &byte in id.as_bytes() {
            match LEGAL[usize::from(byte)] {
                true => name.push(char::from(byte)),
                // Writing to a String cannot fail.
                false => drop(write!(name, "%{byte:02X}")),
            }
        }
        ChannelName(name.into())
    }

    /// The borrowed form.
    pub fn as_channel(&self) -> Channel<'_> {
        Channel(&self.0)
    }

    /// The text, shared.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 200;

/// The rule for names, for error messages.
pub const RULE: &str = "a channel name is 1 to 200 bytes of A-Z a-z 0-9 _ - = @ , . ; : / \
                        (no : after private- or presence-)";

/// Prefix of the channels of users ([`ChannelName::of_user`]).
pub const USER: &str = "#server-to-user-";

/// A table, because one look-up per byte takes a tenth of the time of a dozen comparisons.
const LEGAL: [bool; 256] = {
    let mut legal = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        legal[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"_-=@,.;:/";
    let mut at = 0;
    while at < others.len() {
        legal[others[at] as usize] = true;
        at += 1;
    }
    legal
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(name: &str, kind: Option<Kind>) {
        assert_eq!(Channel::parse(name).map(Channel::kind), kind, "{name:?}");
    }

    #[test]
    fn names_are_1_to_200_of_the_legal_characters() {
        check("", None);
        check("a", Some(Kind::Public));
        check(&"x".repeat(200), Some(Kind::Public));
        check(&"x".repeat(201), None);
        for byte in 0..=255u8 {
            let name = format!("a{}", char::from(byte));
            let is_legal =
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-=@,.;:/".contains(char::from(byte));
            check(&name, is_legal.then_some(Kind::Public));
        }
    }

    #[test]
    fn the_prefix_decides_the_kind() {
        check("user:13", Some(Kind::Public));
        check("private-user.1", Some(Kind::Private));
        check("private-", Some(Kind::Private));
        check("private", Some(Kind::Public));
        check("Private-a", Some(Kind::Public));
        check("a-private-b", Some(Kind::Public));
        check("private/a:b", Some(Kind::Public));
        check(&format!("private-{}", "x".repeat(192)), Some(Kind::Private));
        check(&format!("private-{}", "x".repeat(193)), None);
        check("private-encrypted-", Some(Kind::Encrypted));
        check("private-encrypted-cache-a", Some(Kind::Encrypted));
        check("private-encrypted", Some(Kind::Private));
        check("private-cache-a", Some(Kind::Private));
        check("cache-a", Some(Kind::Public));
        check("presence-", Some(Kind::Presence));
        check("presence-room", Some(Kind::Presence));
        check("presence-cache-room", Some(Kind::Presence));
        check("presence", Some(Kind::Public));
        check("Presence-room:1", Some(Kind::Public));
        check("private-presence-a", Some(Kind::Private));
    }

    #[test]
    fn a_name_that_is_signed_has_no_colon_because_colons_join_the_signed_parts() {
        for name in ["private-user:1", "private-:", "private-encrypted-a:b", "presence-room:1", "presence-cache-:"] {
            check(name, None);
        }
    }

    #[test]
    fn a_users_channel_has_a_name_that_clients_cannot_use() {
        let check = |id: &str, expected: &str| {
            let name = ChannelName::of_user(id);
            assert_eq!(name.as_channel().as_str(), expected);
            assert_eq!(name.as_channel().kind(), Kind::User);
        };
        check("12", "#server-to-user-12");
        check("auth0|7", "#server-to-user-auth0%7C7");
        check("a@b.example:1", "#server-to-user-a@b.example:1");
        check("é%41 \"\n", "#server-to-user-%C3%A9%2541%20%22%0A");
    }

    #[test]
    fn an_owned_name_reads_as_the_borrowed_one() {
        let channel = Channel::parse("private-a").unwrap();
        assert_eq!(ChannelName::from(channel).as_channel(), channel);
    }

    proptest! {
        #[test]
        fn a_users_channel_names_one_user(id in "\\PC{1,40}|[%#0-9A-F]{1,8}") {
            let name = ChannelName::of_user(&id);
            let name = name.as_channel().as_str();
            prop_assert_eq!(Channel::parse(name), None);
            prop_assert_eq!(serde_json::to_string(name).unwrap().len(), name.len() + 2);
            let percent = name.strip_prefix("#server-to-user-").unwrap();
            let bytes = percent.as_bytes();
            let mut read = Vec::new();
            let mut at = 0;
            while at < bytes.len() {
                if bytes[at] == b'%' {
                    read.push(u8::from_str_radix(&percent[at + 1..at + 3], 16).unwrap());
                    at += 3;
                } else {
                    read.push(bytes[at]);
                    at += 1;
                }
            }
            prop_assert_eq!(String::from_utf8(read).unwrap(), id);
        }
    }
}
