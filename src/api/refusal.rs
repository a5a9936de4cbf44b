//! Why a request is refused: a code for programs, and a text for people.

use super::declare::Declaration;
use crate::protocol::channel;
use std::borrow::Cow;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What is wrong, for people.
    MalformedRequest(Cow<'static, str>),
    /// The command does not exist; the text lists those that do.
    UnknownCommand(&'static [Declaration]),
    /// The member that is missing.
    MissingMember(&'static str),
    /// Not a legal channel name.
    InvalidChannel,
    /// The prefix of an event's name, which is reserved for the server.
    ReservedEvent(&'static str),
    /// Something does not exist; the text for people.
    NotFound(&'static str),
    /// The request is over a limit.
    TooLarge {
        /// The unit of the limit, as in "bytes of data".
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The maximum number already exists.
    TooMany {
        /// What is limited, as in "consumers of events".
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// An element of a list is wrong.
    Element {
        /// The member that holds the list.
        list: &'static str,
        /// Index of the element.
        index: usize,
        /// What is wrong with it.
        why: Box<Refusal>,
    },
    /// What is wrong with a configuration that was to be reloaded.
    InvalidConfiguration(Box<str>),
    /// The server is going down.
    GoingDown,
}

impl Refusal {
    /// A malformed request.
    pub fn malformed(why: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::MalformedRequest(why.into())
    }

    /// The same refusal for an element of a list; the text names the element.
    pub fn within(self, list: &'static str, index: usize) -> Refusal {
        Refusal::Element { list, index, why: Box::new(self) }
    }

    /// Whether the request is over a limit.
    pub fn is_too_large(&self) -> bool {
        self.code() == "too_large"
    }

    /// A member that the operation does not have. Names the member with the most similar spelling. `common`: members
    /// that every request has at this entry point.
    pub fn unknown_member(name: &str, operation: &Declaration, common: &[&'static str]) -> Refusal {
        let known = common.iter().chain(operation.members);
        let likeness = |known: &str| strsim::jaro_winkler(name, known);
        match known.max_by(|a, b| likeness(a).total_cmp(&likeness(b))) {
            Some(nearest) => {
                Refusal::malformed(format!("{} has no member {name:?}; the nearest is {nearest:?}", operation.name))
            }
            None => Refusal::malformed(format!("{} takes no members, but {name:?} was given", operation.name)),
        }
    }

    /// The code, for programs (PROTOCOL.md, The admin socket). A code never changes its meaning.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::MalformedRequest(_) => "malformed_request",
            Refusal::UnknownCommand(_) => "unknown_command",
            Refusal::MissingMember(_) => "missing_member",
            Refusal::InvalidChannel => "invalid_channel",
            Refusal::ReservedEvent(_) => "reserved_event",
            Refusal::NotFound(_) => "not_found",
            Refusal::TooLarge { .. } => "too_large",
            Refusal::TooMany { .. } => "too_many",
            Refusal::Element { why, .. } => why.code(),
            Refusal::InvalidConfiguration(_) => "invalid_configuration",
            Refusal::GoingDown => "going_down",
        }
    }

    /// The text, for people.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Refusal::MalformedRequest(text) => Cow::Borrowed(text),
            Refusal::NotFound(text) => Cow::Borrowed(text),
            Refusal::UnknownCommand(commands) => {
                let names: Vec<&str> = commands.iter().map(|operation| operation.name).collect();
                format!("unknown command; the commands are {}", names.join(", ")).into()
            }
            Refusal::MissingMember(name) => format!("{name} is missing").into(),
            Refusal::InvalidChannel => channel::RULE.into(),
            Refusal::ReservedEvent(prefix) => format!("event names starting with {prefix} are reserved").into(),
            Refusal::TooLarge { what, limit } => {
                let remedy = match *what {
                    "bytes of line" | "bytes of data" | "channels" | "users" => "send less at once",
                    _ => "use a shorter one",
                };
                format!("over the limit of {limit} {what}: {remedy}").into()
            }
            Refusal::TooMany { what, limit } => {
                format!("there are already {limit} {what}, the limit: end one first").into()
            }
            Refusal::Element { list, index, why } => format!("{list}[{index}]: {}", why.text()).into(),
            Refusal::InvalidConfiguration(text) => Cow::Borrowed(text),
            Refusal::GoingDown => "the server is going down".into(),
        }
    }
}

/// No connection has the socket_id.
pub const NO_CONNECTION: Refusal = Refusal::NotFound("no such connection");
/// The connection is not subscribed to the channel, or does not exist.
pub const NO_SUBSCRIPTION: Refusal = Refusal::NotFound("no such connection is subscribed to the channel");
