//! Channel names and kinds.

use std::sync::Arc;

/// A legal channel name, borrowed. It contains no character that JSON escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel<'a>(&'a str);

/// The clients that may subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All clients.
    Public,
    /// Clients with a signature from the backend.
    Private,
}

impl<'a> Channel<'a> {
    /// Checks a name; `None`: it is not legal (PROTOCOL.md, Channels), or starts with `presence-`.
    pub fn parse(name: &'a str) -> Option<Channel<'a>> {
        let bytes = name.as_bytes();
        let is_legal = (1..=NAME_BYTES_MAX).contains(&bytes.len())
            && bytes.iter().all(|&byte| LEGAL[usize::from(byte)])
            && !name.starts_with("presence-")
            && !(name.starts_with(PRIVATE) && bytes.contains(&b':'));
        is_legal.then_some(Channel(name))
    }
    /// The name.
    pub fn as_str(self) -> &'a str {
        self.0
    }
    /// Its kind, which the prefix decides.
    pub fn kind(self) -> Kind {
        if self.0.starts_with(PRIVATE) { Kind::Private } else { Kind::Public }
    }
}

/// A legal channel name, owned and shared between the tables of several shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelName(Arc<str>);

impl From<Channel<'_>> for ChannelName {
    fn from(channel: Channel<'_>) -> Self {
        ChannelName(channel.0.into())
    }
}

impl ChannelName {
    /// The borrowed form.
    pub fn as_channel(&self) -> Channel<'_> {
        Channel(&self.0)
    }
}

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 200;

/// The rule for names, for error messages.
pub const RULE: &str = "a channel name is 1 to 200 bytes of A-Z a-z 0-9 _ - = @ , . ; : / \
                        (no : after private-, and presence- is reserved)";

const PRIVATE: &str = "private-";

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
    }

    #[test]
    fn a_private_name_has_no_colon_because_colons_join_the_signed_parts() {
        check("private-user:1", None);
        check("private-:", None);
    }

    #[test]
    fn presence_is_refused_until_it_exists() {
        check("presence-", None);
        check("presence-room", None);
        check("presence-room:1", None);
        check("presence", Some(Kind::Public));
        check("Presence-room", Some(Kind::Public));
    }

    #[test]
    fn an_owned_name_reads_as_the_borrowed_one() {
        let channel = Channel::parse("private-a").unwrap();
        assert_eq!(ChannelName::from(channel).as_channel(), channel);
    }
}
