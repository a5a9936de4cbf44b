//! `publish`, the one operation that arrives hundreds of thousands of times a second: its request borrows from the input.

use super::declare::Declaration;
use super::member::{Given, at_most};
use super::refusal::Refusal;
use crate::protocol::channel::Channel;
use crate::protocol::socket_id::SocketId;
use smallvec::SmallVec;
use std::borrow::Cow;

/// A message that may be published: all its values have been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// 1 to [`CHANNELS_MAX`] legal names.
    pub channels: SmallVec<[Cow<'a, str>; 1]>,
    /// The event's name as written between the quotes.
    pub event: Cow<'a, str>,
    /// Raw JSON of `data`, byte for byte; `null` is data too.
    pub data: Option<Cow<'a, str>>,
    /// The connection that does not receive the message.
    pub exclude: Option<SocketId>,
}

impl Publish<'_> {
    /// Copies what is borrowed, for another thread.
    pub fn into_owned(self) -> Publish<'static> {
        Publish {
            channels: self.channels.into_iter().map(|name| Cow::Owned(name.into_owned())).collect(),
            event: Cow::Owned(self.event.into_owned()),
            data: self.data.map(|data| Cow::Owned(data.into_owned())),
            exclude: self.exclude,
        }
    }
}

/// Checks the name of an event: `raw` as written between the quotes, and unescaped.
pub fn check_event(raw: &str, value: &str) -> Result<(), Refusal> {
    if raw.is_empty() {
        return Err(Refusal::malformed("event is empty"));
    }
    if value.starts_with("socket:") {
        return Err(Refusal::ReservedEvent);
    }
    at_most(EVENT_BYTES_MAX, "bytes of event", raw.len())
}

/// Checks `data`, as written.
pub fn check_data(data: Option<&str>) -> Result<(), Refusal> {
    at_most(DATA_BYTES_MAX, "bytes of data", data.map_or(0, str::len))
}

/// Checks the name of a channel.
pub fn check_channel(name: Cow<'_, str>) -> Result<Cow<'_, str>, Refusal> {
    if Channel::parse(&name).is_some() { Ok(name) } else { Err(Refusal::InvalidChannel) }
}

/// Checks the number of channels.
pub fn check_channels(count: usize) -> Result<(), Refusal> {
    match count {
        0 => Err(Refusal::malformed("channels is empty")),
        count => at_most(CHANNELS_MAX, "channels", count),
    }
}

/// Checks the socket_id of the excluded connection.
pub fn check_exclude(text: Option<&str>) -> Result<Option<SocketId>, Refusal> {
    let id = |text| SocketId::parse(text).ok_or(Refusal::malformed("exclude is not a socket_id"));
    text.map(id).transpose()
}

/// `publish` as a client writes it. The server checks it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// Channels to publish to.
    pub channels: Vec<Box<str>>,
    /// Name of the event.
    pub event: Box<str>,
    /// JSON of the data.
    pub data: Option<Box<str>>,
    /// socket_id of the connection that does not receive the message.
    pub exclude: Option<Box<str>>,
}

impl Draft {
    /// The members, in the order of the declaration.
    pub fn members(&self) -> Vec<(&'static str, Given<'_>)> {
        let channels = self.channels.iter().map(|name| Some(Cow::Borrowed(&**name))).collect();
        let mut members =
            vec![("channels", Given::Texts(channels)), ("event", Given::Text(Cow::Borrowed(&self.event)))];
        members.extend(self.data.as_deref().map(|data| ("data", Given::Json(data))));
        members.extend(self.exclude.as_deref().map(|id| ("exclude", Given::Text(Cow::Borrowed(id)))));
        members
    }
}

/// The declaration.
pub const PUBLISH: Declaration = Declaration {
    name: "publish",
    help: "Publish one message, or one per line of standard input",
    members: &["channel", "channels", "event", "data", "exclude"],
};

/// Most channels of one publish.
pub const CHANNELS_MAX: usize = 100;
/// Most bytes of `data`, as written. The envelope is added to it; the limit of an event bounds the sum.
pub const DATA_BYTES_MAX: usize = 256 * 1024;
/// Most bytes of `event`, as written.
pub const EVENT_BYTES_MAX: usize = 1024;
