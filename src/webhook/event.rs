//! An event of a channel or of a connection.

use crate::protocol::socket_id::SocketId;
use std::sync::Arc;

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A channel, by its name.
    Channel(Arc<str>),
    /// A connection.
    Connection(SocketId),
}

/// A change of a channel or of a connection.
#[derive(Clone, Debug)]
pub struct Event {
    /// Which.
    pub subject: Subject,
    /// Whether the channel is occupied, or the connection open, from now on.
    pub is_there: bool,
    /// As it stands in a body. Empty: the configuration does not select it, so the URL counts as told.
    pub text: Arc<str>,
}

impl Event {
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
        Event { subject: Subject::Channel(text.as_str().into()), is_there: true, text: text.into() }
    }
}

#[cfg(test)]
impl From<&str> for Event {
    fn from(text: &str) -> Event {
        text.to_owned().into()
    }
}
