//! `publish`, the one operation that arrives hundreds of thousands of times a second: its request borrows from the input.

use super::declare::Declaration;
use super::member::{Given, Member, Written, at_most, text};
use super::refusal::Refusal;
use crate::config::USER_ID_BYTES_MAX;
use crate::protocol::channel::Channel;
use crate::protocol::event::reserved_prefix;
use crate::protocol::pusher::data::OwnedText;
use crate::protocol::socket_id::SocketId;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::num::NonZeroU64;

/// A message that may be published: all its values have been checked. It names either channels or users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Up to [`CHANNELS_MAX`] legal names.
    pub channels: SmallVec<[Cow<'a, str>; 1]>,
    /// Whether the channels or users were written as a list. The answer then has a place for each of its elements.
    pub is_list: bool,
    /// The event's name as written between the quotes.
    pub event: Cow<'a, str>,
    /// Raw JSON of `data`, byte for byte; `null` is data too.
    pub data: Option<Cow<'a, str>>,
    /// The connection that does not receive the message.
    pub exclude: Option<SocketId>,
    /// What most publishes do without. Kept apart because a publish is moved several times.
    pub more: Option<Box<More<'a>>>,
}

/// The rare members of a publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct More<'a> {
    /// Up to [`USERS_MAX`] ids: the message goes to every connection that is signed in as one of these users.
    pub users: Vec<Cow<'a, str>>,
    /// Names the message. A repetition within some minutes publishes nothing.
    pub dedupe: Option<Cow<'a, str>>,
    /// Names the value that the message updates.
    pub key: Option<Cow<'a, str>>,
    /// The text that Pusher's clients receive for the data.
    pub text: OwnedText,
}

impl<'a> More<'a> {
    /// `None` if all members are absent.
    pub fn boxed(self) -> Option<Box<More<'a>>> {
        (self != More::default()).then(|| Box::new(self))
    }
}

impl Publish<'_> {
    /// Copies what is borrowed, for another thread.
    pub fn into_owned(self) -> Publish<'static> {
        fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
            Cow::Owned(text.into_owned())
        }
        Publish {
            channels: self.channels.into_iter().map(owned).collect(),
            is_list: self.is_list,
            event: owned(self.event),
            data: self.data.map(owned),
            exclude: self.exclude,
            more: self.more.map(|more| {
                let More { users, dedupe, key, text } = *more;
                let users = users.into_iter().map(owned).collect();
                Box::new(More { users, dedupe: dedupe.map(owned), key: key.map(owned), text })
            }),
        }
    }

    /// See [`More::users`].
    pub fn users(&self) -> &[Cow<'_, str>] {
        self.more.as_ref().map_or(&[], |more| &more.users)
    }

    /// See [`More::dedupe`].
    pub fn dedupe(&self) -> Option<&str> {
        self.more.as_ref().and_then(|more| more.dedupe.as_deref())
    }

    /// See [`More::key`].
    pub fn key(&self) -> Option<&str> {
        self.more.as_ref().and_then(|more| more.key.as_deref())
    }
}

/// The answer to a publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Connections that it goes to.
    pub subscribers: u64,
    /// Of a publish to one channel or user.
    pub placed: Option<Placed>,
    /// Of a publish to a list: for each element as written. Empty if no element has a place.
    pub positions: Vec<Option<Placed>>,
}

/// The place of a message in its channel's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The life of the log.
    pub epoch: u64,
    /// `None`: the channel has no history. The message is a duplicate then.
    pub offset: Option<NonZeroU64>,
    /// An earlier publish with the same `dedupe` has this place; this one published nothing.
    pub is_duplicate: bool,
}

impl Published {
    /// The answer where no channel has history.
    pub fn to(subscribers: u64) -> Published {
        Published { subscribers, ..Published::default() }
    }
}

impl Serialize for Published {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("subscribers", &self.subscribers)?;
        if let Some(placed) = self.placed {
            placed.entries(&mut map)?;
        }
        if !self.positions.is_empty() {
            map.serialize_entry("positions", &self.positions)?;
        }
        map.end()
    }
}

impl Serialize for Placed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.entries(&mut map)?;
        map.end()
    }
}

impl Placed {
    fn entries<M: SerializeMap>(self, map: &mut M) -> Result<(), M::Error> {
        if let Some(offset) = self.offset {
            map.serialize_entry("epoch", &format_args!("{:016x}", self.epoch))?;
            map.serialize_entry("offset", &offset)?;
        }
        if self.is_duplicate {
            map.serialize_entry("duplicate", &true)?;
        }
        Ok(())
    }
}

/// Checks the name of an event: `raw` as written between the quotes, and unescaped.
pub fn check_event(raw: &str, value: &str) -> Result<(), Refusal> {
    if raw.is_empty() {
        return Err(Refusal::malformed("event is empty"));
    }
    if let Some(prefix) = reserved_prefix(value) {
        return Err(Refusal::ReservedEvent(prefix));
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

/// Checks the id of a user.
pub fn check_user(id: Cow<'_, str>) -> Result<Cow<'_, str>, Refusal> {
    check_text(id, "user", "bytes of user", USER_ID_BYTES_MAX)
}

/// An optional id of a user.
pub(super) fn user(member: Member<'_>) -> Result<Option<Box<str>>, Refusal> {
    let id = text(member)?.map(|id| check_user(Cow::Owned(id.into()))).transpose()?;
    Ok(id.map(|id| id.into()))
}

/// Checks the number of users.
pub fn check_users(count: usize) -> Result<(), Refusal> {
    match count {
        0 => Err(Refusal::malformed("users is empty")),
        count => at_most(USERS_MAX, "users", count),
    }
}

/// Checks `dedupe`.
pub fn check_dedupe(text: Cow<'_, str>) -> Result<Cow<'_, str>, Refusal> {
    check_text(text, "dedupe", "bytes of dedupe", DEDUPE_BYTES_MAX)
}

/// Checks `key`.
pub fn check_key(text: Cow<'_, str>) -> Result<Cow<'_, str>, Refusal> {
    check_text(text, "key", "bytes of key", KEY_BYTES_MAX)
}

fn check_text<'a>(
    text: Cow<'a, str>,
    name: &str,
    what: &'static str,
    bytes_max: usize,
) -> Result<Cow<'a, str>, Refusal> {
    match text.len() {
        0 => Err(Refusal::malformed(format!("{name} is empty"))),
        len => at_most(bytes_max, what, len).map(|()| text),
    }
}

/// Checks an optional socket_id, which the member `name` holds.
pub fn check_socket_id(text: Option<&str>, name: &str) -> Result<Option<SocketId>, Refusal> {
    let wrong = || Refusal::malformed(format!("{name} is neither a UUID nor two numbers joined by a dot"));
    text.map(|text| SocketId::parse(text).ok_or_else(wrong)).transpose()
}

/// `publish` as a client writes it. The server checks it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// Channels to publish to.
    pub channels: Vec<Box<str>>,
    /// Users to publish to.
    pub users: Vec<Box<str>>,
    /// Name of the event.
    pub event: Box<str>,
    /// JSON of the data.
    pub data: Option<Box<str>>,
    /// socket_id of the connection that does not receive the message.
    pub exclude: Option<Box<str>>,
    /// Name of the message.
    pub dedupe: Option<Box<str>>,
    /// Name of the value that the message updates.
    pub key: Option<Box<str>>,
}

impl Draft {
    /// The members, in the order of the declaration.
    pub fn members(&self) -> Vec<(&'static str, Given<'_>)> {
        fn list<'a>(
            one: &'static str,
            many: &'static str,
            texts: &'a Vec<Box<str>>,
        ) -> (&'static str, Option<Given<'a>>) {
            match &texts[..] {
                [text] => (one, text.written()),
                _ => (many, texts.written()),
            }
        }
        let members = [
            list("channel", "channels", &self.channels),
            list("user", "users", &self.users),
            ("event", self.event.written()),
            ("data", self.data.as_deref().map(|data| Given::Json(data.into()))),
            ("exclude", self.exclude.written()),
            ("dedupe", self.dedupe.written()),
            ("key", self.key.written()),
        ];
        members.into_iter().filter_map(|(name, given)| Some((name, given?))).collect()
    }
}

/// The declaration.
pub const PUBLISH: Declaration = Declaration {
    name: "publish",
    help: "Publish one message, or one per line of standard input",
    members: &["channel", "channels", "user", "users", "event", "data", "exclude", "dedupe", "key"],
};

/// Most channels of one publish.
pub const CHANNELS_MAX: usize = 100;
/// Most users of one publish.
pub const USERS_MAX: usize = 100;
/// Most bytes of `dedupe`, unescaped.
pub const DEDUPE_BYTES_MAX: usize = 64;
/// Most bytes of `key`, unescaped.
pub const KEY_BYTES_MAX: usize = 64;
/// Most bytes of `data`, as written. The envelope is added to it; the limit of an event bounds the sum.
pub const DATA_BYTES_MAX: usize = 256 * 1024;
/// Most bytes of `event`, as written.
pub const EVENT_BYTES_MAX: usize = 1024;
