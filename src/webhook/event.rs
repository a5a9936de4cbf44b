//! An event of a channel, of a member of one, or of a connection.

use crate::protocol::socket_id::SocketId;
use std::sync::Arc;

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A channel, by its name.
    Channel(Arc<str>),
    /// A user that is a member of a presence channel.
    Member(Arc<Member>),
    /// A connection.
    Connection(SocketId),
}

/// A user in a channel.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// The channel's name.
    pub channel: Arc<str>,
    /// The user.
    pub user_id: Arc<str>,
}

/// A change of a subject, or something that happened once.
#[derive(Clone, Debug)]
pub struct Event {
    /// The subject; `None`: it is not a change, so nothing cancels it and it is not told again.
    pub subject: Option<Subject>,
    /// Whether the channel is occupied, the user a member, or the connection open, from now on.
    pub is_there: bool,
    /// As it stands in a body. Empty: the configuration does not select it, so the URL counts as told.
    pub text: Arc<str>,
}

impl Event {
    /// Something that happened once.
    pub fn once(text: Arc<str>) -> Event {
        Event { subject: None, is_there: true, text }
    }

    /// Whether a body contains it.
    pub fn is_sent(&self) -> bool {
        !self.text.is_empty()
    }

    /// Bytes in a body, with a comma.
    pub fn body_bytes(&self) -> usize {
        self.text.len() + usize::from(self.is_sent())
    }
}

#[cfg(test)]
impl From<String> for Event {
    fn from(text: String) -> Event {
        Event { subject: Some(Subject::Channel(text.as_str().into())), is_there: true, text: text.into() }
    }
}

#[cfg(test)]
impl From<&str> for Event {
    fn from(text: &str) -> Event {
        text.to_owned().into()
    }
}
