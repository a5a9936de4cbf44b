//! Lines of the admin socket → requests. Pure.
//!
//! Members are judged in the order of PROTOCOL.md's table, and the first that is wrong decides the refusal. Members that a
//! command does not know are ignored. Numbers are integers as written: `4000.0` and `4e3` are refused.

use crate::hub::mail::Share;
use crate::hub::survey::By;
use crate::hub::taps::{self, Filter};
use crate::protocol::channel::Channel;
use crate::protocol::json::{Document, Reader, Value, scan};
use crate::protocol::socket_id::SocketId;
use ipnet::IpNet;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::net::IpAddr;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// `id` as it was written, any JSON value; `null` where there was none, or the line could not be read.
    pub id: &'a str,
    /// What is asked, or why the line is refused.
    pub command: Result<Command<'a>, Refusal>,
}

/// A command of the admin socket. A `socket_id` that is `None` is in neither spelling: no connection has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Command<'a> {
    Publish(Publish<'a>),
    Channels {
        prefix: Cow<'a, str>,
        limit: Option<usize>,
        after: Option<Cow<'a, str>>,
    },
    Channel {
        /// A legal name.
        channel: Cow<'a, str>,
    },
    Connections {
        limit: Option<usize>,
        after: Option<Cow<'a, str>>,
    },
    Connection {
        socket_id: Option<SocketId>,
    },
    Disconnect {
        socket_id: Option<SocketId>,
        /// 4000–4999.
        code: u16,
        /// Fits a close frame.
        reason: Cow<'a, str>,
    },
    Unsubscribe {
        socket_id: Option<SocketId>,
        /// Any string: what is no legal name has no subscriber either.
        channel: Cow<'a, str>,
    },
    Events {
        /// Everything up to this number is known.
        since: Option<u64>,
        /// Of this run of the server, or of whichever runs.
        epoch: Option<u64>,
    },
    Busiest {
        by: By,
        limit: Option<usize>,
    },
    Tail(Filter),
    Stats,
    Reload,
    Drain {
        over_ms: u64,
    },
    Shed {
        share: Share,
        over_ms: u64,
    },
    Ping,
}

/// `publish`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// 1 to 100 legal names.
    pub channels: SmallVec<[Cow<'a, str>; 1]>,
    /// What stands between the quotes of `event`, as written.
    pub event: &'a str,
    /// Raw JSON of `data`, byte for byte; `null` is data too.
    pub data: Option<&'a str>,
    /// Who is left out.
    pub exclude: Option<SocketId>,
}

/// Why a request is refused: code for programs, text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What is wrong, for people.
    MalformedRequest(&'static str),
    /// A command that there is not.
    UnknownCommand,
    /// The member that is missing.
    MissingMember(&'static str),
    /// Not a legal channel name.
    InvalidChannel,
    /// An event name that starts with `socket:`.
    ReservedEvent,
    /// What was not found, for people.
    NotFound(&'static str),
    /// A limit that was passed.
    TooLarge {
        /// What there is too much of: "bytes of data".
        what: &'static str,
        /// The most there may be.
        limit: usize,
    },
    /// Somebody has to leave first.
    TooMany {
        /// What there is too much of: "consumers of events".
        what: &'static str,
        /// The most there may be.
        limit: usize,
    },
    /// What is wrong with a configuration that was to be reloaded.
    InvalidConfiguration(Box<str>),
    /// The server is going down.
    GoingDown,
}

/// Reads lines; owns the tape and the copy that simd-json works on.
#[derive(Default)]
pub struct Parser {
    reader: Reader,
}

impl Parser {
    /// Reads one line (without its newline).
    pub fn request<'a>(&mut self, line: &'a [u8]) -> Request<'a> {
        let refused = |text| Request { id: "null", command: Err(Refusal::MalformedRequest(text)) };
        let Ok(line) = std::str::from_utf8(line) else {
            return refused("the line is no valid UTF-8");
        };
        if let Some(publish) = plain_publish(line) {
            return publish;
        }
        self.parsed(line)
    }

    fn parsed<'a>(&mut self, line: &'a str) -> Request<'a> {
        let refused = |text| Request { id: "null", command: Err(Refusal::MalformedRequest(text)) };
        let Some(document) = self.reader.read(line) else {
            return refused("the line is no valid JSON");
        };
        let Some(members) = Members::of(document) else {
            return refused("the line is no JSON object");
        };
        match members.id {
            Some(id) if id.raw.len() > ID_BYTES_MAX => refused("id is longer than 256 bytes"),
            id => Request { id: id.map_or("null", |id| id.raw), command: members.command() },
        }
    }
}

/// The fast path for a publish to one channel with no members but the usual ones, by [`scan`]. `None` decides nothing: the
/// parser reads every other line, and words every refusal.
fn plain_publish(line: &str) -> Option<Request<'_>> {
    let [mut id, mut command, mut channel, mut event, mut data] = [None; 5];
    scan::members(line, |key, value| {
        let member = match key {
            "id" => &mut id,
            "command" => &mut command,
            "channel" => &mut channel,
            "event" => &mut event,
            "data" => &mut data,
            _ => return None,
        };
        *member = Some(value);
        Some(())
    })?;
    let channel = unquoted(channel?)?;
    let event = unquoted(event?)?;
    let is_plain = command? == r#""publish""#
        && Channel::parse(channel).is_some()
        && (1..=EVENT_BYTES_MAX).contains(&event.len())
        && !event.contains('\\')
        && !event.starts_with("socket:")
        && data.map_or(0, str::len) <= DATA_BYTES_MAX
        && id.map_or(0, str::len) <= ID_BYTES_MAX;
    let publish = Publish { channels: SmallVec::from_buf([channel.into()]), event, data, exclude: None };
    is_plain.then_some(Request { id: id.unwrap_or("null"), command: Ok(Command::Publish(publish)) })
}

fn unquoted(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"')
}

/// The members that any command knows, by name; of two with one name, the last.
struct Members<'r, 'a> {
    document: Document<'r, 'a>,
    id: Member<'a>,
    command: Member<'a>,
    channel: Member<'a>,
    channels: Member<'a>,
    event: Member<'a>,
    data: Member<'a>,
    exclude: Member<'a>,
    prefix: Member<'a>,
    limit: Member<'a>,
    after: Member<'a>,
    socket_id: Member<'a>,
    code: Member<'a>,
    reason: Member<'a>,
    over_ms: Member<'a>,
    percent: Member<'a>,
    connections: Member<'a>,
    since: Member<'a>,
    epoch: Member<'a>,
    by: Member<'a>,
    events: Member<'a>,
    address: Member<'a>,
    sample: Member<'a>,
    rate: Member<'a>,
}

type Member<'a> = Option<Value<'a>>;

impl<'r, 'a> Members<'r, 'a> {
    fn of(document: Document<'r, 'a>) -> Option<Self> {
        #[rustfmt::skip]
        let [
            id, command, channel, channels, event, data, exclude, prefix, limit, after, socket_id, code, reason, over_ms,
            percent, connections, since, epoch, by, events, address, sample, rate,
        ] = document.object()?.named([
            "id", "command", "channel", "channels", "event", "data", "exclude", "prefix", "limit", "after", "socket_id",
            "code", "reason", "over_ms", "percent", "connections", "since", "epoch", "by", "events",
            "address", "sample", "rate",
        ]);
        #[rustfmt::skip]
        let members = Members {
            document, id, command, channel, channels, event, data, exclude, prefix, limit, after, socket_id, code, reason,
            over_ms, percent, connections, since, epoch, by, events, address, sample, rate,
        };
        Some(members)
    }

    fn command(&self) -> Result<Command<'a>, Refusal> {
        let command = required(self.command, "command")?.text();
        match &*command.ok_or(Refusal::MalformedRequest("command is no string"))? {
            "publish" => self.publish().map(Command::Publish),
            "channels" => Ok(Command::Channels {
                prefix: text(self.prefix, "prefix is no string")?.unwrap_or_default(),
                limit: self.limit()?,
                after: text(self.after, "after is no string")?,
            }),
            "channel" => Ok(Command::Channel { channel: legal(self.channel()?)? }),
            "connections" => {
                Ok(Command::Connections { limit: self.limit()?, after: text(self.after, "after is no string")? })
            }
            "connection" => Ok(Command::Connection { socket_id: self.socket_id()? }),
            "disconnect" => {
                Ok(Command::Disconnect { socket_id: self.socket_id()?, code: self.code()?, reason: self.reason()? })
            }
            "unsubscribe" => Ok(Command::Unsubscribe { socket_id: self.socket_id()?, channel: self.channel()? }),
            "events" => self.events(),
            "busiest" => Ok(Command::Busiest { by: self.by()?, limit: self.limit()? }),
            "tail" => self.tail().map(Command::Tail),
            "stats" => Ok(Command::Stats),
            "reload" => Ok(Command::Reload),
            "drain" => Ok(Command::Drain { over_ms: self.over_ms()? }),
            "shed" => Ok(Command::Shed { share: self.share()?, over_ms: self.over_ms()? }),
            "ping" => Ok(Command::Ping),
            _ => Err(Refusal::UnknownCommand),
        }
    }

    fn publish(&self) -> Result<Publish<'a>, Refusal> {
        let channels = self.publish_channels()?;
        let event = required(self.event, "event")?.string();
        let event = event.ok_or(Refusal::MalformedRequest("event is no string"))?;
        if event.raw.is_empty() {
            return Err(Refusal::MalformedRequest("event is empty"));
        }
        if event.value.starts_with("socket:") {
            return Err(Refusal::ReservedEvent);
        }
        at_most(EVENT_BYTES_MAX, "bytes of event", event.raw.len())?;
        let data = self.data.map(|data| data.raw);
        at_most(DATA_BYTES_MAX, "bytes of data", data.map_or(0, str::len))?;
        let exclude = match text(self.exclude, "exclude is no string")? {
            Some(text) => Some(SocketId::parse(&text).ok_or(Refusal::MalformedRequest("exclude is no socket_id"))?),
            None => None,
        };
        Ok(Publish { channels, event: event.raw, data, exclude })
    }

    fn publish_channels(&self) -> Result<SmallVec<[Cow<'a, str>; 1]>, Refusal> {
        match (self.channel, self.channels) {
            (Some(_), Some(_)) => Err(Refusal::MalformedRequest("channel and channels are both given")),
            (_, None) => Ok(SmallVec::from_elem(legal(self.channel()?)?, 1)),
            (None, Some(channels)) => {
                let names =
                    || self.document.elements(channels).ok_or(Refusal::MalformedRequest("channels is no array"));
                match names()?.count() {
                    0 => return Err(Refusal::MalformedRequest("channels is empty")),
                    count => at_most(PUBLISH_CHANNELS_MAX, "channels", count)?,
                }
                let name =
                    |name: Value<'a>| name.text().ok_or(Refusal::MalformedRequest("channels holds what is no string"));
                names()?.map(|value| legal(name(value)?)).collect()
            }
        }
    }

    fn channel(&self) -> Result<Cow<'a, str>, Refusal> {
        required(self.channel, "channel")?.text().ok_or(Refusal::MalformedRequest("channel is no string"))
    }

    fn socket_id(&self) -> Result<Option<SocketId>, Refusal> {
        let text = required(self.socket_id, "socket_id")?.text();
        Ok(SocketId::parse(&text.ok_or(Refusal::MalformedRequest("socket_id is no string"))?))
    }

    fn events(&self) -> Result<Command<'a>, Refusal> {
        let since = integer(self.since, 0..=u64::MAX, "since is no whole number")?;
        let epoch = text(self.epoch, "epoch is no string")?;
        let known = epoch.as_deref().map(|epoch| u64::from_str_radix(epoch, 16));
        Ok(match known.transpose() {
            Ok(epoch) => Command::Events { since, epoch },
            // No run of this server, nor of any other: nothing is known.
            Err(_) => Command::Events { since: None, epoch: None },
        })
    }

    fn tail(&self) -> Result<Filter, Refusal> {
        let address = text(self.address, "address is no string")?;
        let network = address.map(|address| network(&address)).transpose()?;
        let channel = text(self.channel, "channel is no string")?;
        at_most(taps::PATTERN_BYTES_MAX, "bytes of channel", channel.as_deref().map_or(0, str::len))?;
        let bytes = integer(self.data, 0..=taps::DATA_BYTES_MAX, "data is no integer from 0 to 1024")?;
        Ok(Filter {
            kinds: self.kinds()?,
            channel: channel.map(Cow::into),
            network,
            sample: integer(self.sample, 1..=u32::MAX, "sample is no integer from 1 on")?.unwrap_or(1),
            rate: integer(self.rate, 1..=taps::RATE_MAX, "rate is no integer from 1 to 100000")?.unwrap_or(TAIL_RATE),
            data_bytes: bytes.unwrap_or(0),
        })
    }

    /// Those that are named, or all.
    fn kinds(&self) -> Result<u8, Refusal> {
        const NO_KINDS: Refusal = Refusal::MalformedRequest(
            "events is no array of connect, refuse, subscribe, unsubscribe, publish, close, limit",
        );
        let Some(events) = self.events else { return Ok((1 << taps::KINDS.len()) - 1) };
        self.document.elements(events).ok_or(NO_KINDS)?.try_fold(0, |kinds, event| {
            let event = event.text().ok_or(NO_KINDS)?;
            let kind = taps::KINDS.iter().position(|kind| *kind == event).ok_or(NO_KINDS)?;
            Ok(kinds | 1 << kind)
        })
    }

    fn limit(&self) -> Result<Option<usize>, Refusal> {
        integer(self.limit, 1..=PAGE_MAX, "limit is no integer from 1 to 1000")
    }

    fn by(&self) -> Result<By, Refusal> {
        match self.by.map(|by| by.text()) {
            None => Ok(By::default()),
            Some(Some(by)) if by == "subscribers" => Ok(By::Subscribers),
            Some(Some(by)) if by == "messages" => Ok(By::Messages),
            Some(_) => Err(Refusal::MalformedRequest("by is neither subscribers nor messages")),
        }
    }

    fn code(&self) -> Result<u16, Refusal> {
        let code = integer(self.code, 4000..=4999, "code is no integer from 4000 to 4999")?;
        Ok(code.unwrap_or(DISCONNECT_CODE))
    }

    fn over_ms(&self) -> Result<u64, Refusal> {
        let over_ms = integer(self.over_ms, 0..=OVER_MS_MAX, "over_ms is no integer from 0 to 3600000")?;
        Ok(over_ms.unwrap_or(OVER_MS))
    }

    fn share(&self) -> Result<Share, Refusal> {
        let percent = integer(self.percent, 0..=100, "percent is no integer from 0 to 100")?;
        let connections = integer(self.connections, 0..=usize::MAX, "connections is no integer from 0 on")?;
        match (percent, connections) {
            (Some(percent), None) => Ok(Share::Percent(percent)),
            (None, Some(connections)) => Ok(Share::Count(connections)),
            (Some(_), Some(_)) => Err(Refusal::MalformedRequest("percent and connections are both given")),
            (None, None) => Err(Refusal::MissingMember("percent or connections")),
        }
    }

    fn reason(&self) -> Result<Cow<'a, str>, Refusal> {
        let reason = text(self.reason, "reason is no string")?.unwrap_or(Cow::Borrowed(DISCONNECT_REASON));
        at_most(REASON_BYTES_MAX, "bytes of reason", reason.len())?;
        Ok(reason)
    }
}

fn required<'a>(member: Member<'a>, name: &'static str) -> Result<Value<'a>, Refusal> {
    member.ok_or(Refusal::MissingMember(name))
}

/// A member that may be missing, but is a string where it is not.
fn text<'a>(member: Member<'a>, otherwise: &'static str) -> Result<Option<Cow<'a, str>>, Refusal> {
    member.map(|value| value.text().ok_or(Refusal::MalformedRequest(otherwise))).transpose()
}

/// A member that may be missing, but is an integer in a range where it is not.
fn integer<T>(
    member: Member<'_>,
    range: std::ops::RangeInclusive<T>,
    otherwise: &'static str,
) -> Result<Option<T>, Refusal>
where
    T: std::str::FromStr + PartialOrd,
{
    let Some(value) = member else { return Ok(None) };
    let number = value.raw.parse().ok().filter(|number| range.contains(number));
    number.map(Some).ok_or(Refusal::MalformedRequest(otherwise))
}

fn legal(name: Cow<'_, str>) -> Result<Cow<'_, str>, Refusal> {
    if Channel::parse(&name).is_some() { Ok(name) } else { Err(Refusal::InvalidChannel) }
}

/// A network in CIDR notation, or an address.
fn network(text: &str) -> Result<IpNet, Refusal> {
    let of_address = |_| text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(of_address).map_err(|_| Refusal::MalformedRequest("address is no address or network"))
}

fn at_most(limit: usize, what: &'static str, count: usize) -> Result<(), Refusal> {
    if count > limit { Err(Refusal::TooLarge { what, limit }) } else { Ok(()) }
}

/// Longest `id`, as written: it is echoed, and must not make a reply large.
pub const ID_BYTES_MAX: usize = 256;

/// Most `channels` of one publish.
pub const PUBLISH_CHANNELS_MAX: usize = 100;

/// Largest `data` of one publish, as written. The envelope comes on top; the next limit bounds it.
pub const DATA_BYTES_MAX: usize = 256 * 1024;

/// Longest `event` of one publish, as written.
pub const EVENT_BYTES_MAX: usize = 1024;

/// Most entries of one reply.
pub const PAGE_MAX: usize = 1000;

/// Longest `reason`, unescaped: a close frame holds no more beside the code (RFC 6455 §5.5).
const REASON_BYTES_MAX: usize = 123;

/// Longest time that connections may be closed over: an hour.
pub const OVER_MS_MAX: u64 = 3_600_000;

/// Where nothing else is asked for.
const OVER_MS: u64 = 60_000;

/// Sightings a second and shard of a tail that does not say how many.
const TAIL_RATE: u32 = 1000;

const DISCONNECT_CODE: u16 = 4000;
const DISCONNECT_REASON: &str = "disconnected by the server's operator";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json::tests::{mutated, serde_says_json, slips, written_json};
    use proptest::prelude::*;

    const MALFORMED: &str = "malformed_request";

    /// The code of the refusal, or "ok".
    fn verdict<T>(result: &Result<T, Refusal>) -> &'static str {
        result.as_ref().map_or_else(Refusal::code, |_| "ok")
    }

    #[track_caller]
    fn check<'a>(line: &'a str, expected: Command<'a>) {
        assert_eq!(Parser::default().request(line.as_bytes()), Request { id: "1", command: Ok(expected) }, "{line}");
    }

    #[track_caller]
    fn check_code(line: impl AsRef<[u8]>, id: &str, code: &str) {
        let (mut parser, shown) =
            (Parser::default(), String::from_utf8_lossy(&line.as_ref()[..line.as_ref().len().min(200)]));
        let request = parser.request(line.as_ref());
        assert_eq!((request.id, verdict(&request.command)), (id, code), "{shown}: {:?}", request.command);
    }

    fn publish<'a>(channels: &[&'a str], event: &'a str, data: Option<&'a str>) -> Publish<'a> {
        let channels = channels.iter().map(|name| Cow::Borrowed(*name)).collect();
        Publish { channels, event, data, exclude: None }
    }

    #[test]
    fn every_command_is_read() {
        let socket_id = Some(SocketId { high: 12, low: 34 });
        check(r#"{"id":1,"command":"stats"}"#, Command::Stats);
        check(r#"{"id":1,"command":"reload"}"#, Command::Reload);
        check(r#"{"id":1,"command":"drain"}"#, Command::Drain { over_ms: 60_000 });
        check(r#"{"id":1,"command":"drain","over_ms":0}"#, Command::Drain { over_ms: 0 });
        let shed = |share, over_ms| Command::Shed { share, over_ms };
        check(r#"{"id":1,"command":"shed","percent":20}"#, shed(Share::Percent(20), 60_000));
        check(r#"{"id":1,"command":"shed","connections":500,"over_ms":1}"#, shed(Share::Count(500), 1));
        let all = Filter { kinds: 127, channel: None, network: None, sample: 1, rate: 1000, data_bytes: 0 };
        check(r#"{"id":1,"command":"tail"}"#, Command::Tail(all.clone()));
        let publishes =
            Filter { kinds: 16, channel: Some("a*".into()), sample: 9, rate: 7, data_bytes: 5, ..all.clone() };
        check(
            r#"{"id":1,"command":"tail","channel":"a*","events":["publish"],"sample":9,"rate":7,"data":5}"#,
            Command::Tail(publishes),
        );
        for (address, network) in [("10.0.0.0/8", "10.0.0.0/8"), ("::1", "::1/128")] {
            check(
                &format!(r#"{{"id":1,"command":"tail","address":"{address}"}}"#),
                Command::Tail(Filter { network: network.parse().ok(), ..all.clone() }),
            );
        }
        for wrong in [r#""address":"x""#, r#""events":["shut"]"#, r#""events":"close""#, r#""sample":0"#, r#""rate":0"#]
        {
            check_code(format!(r#"{{"id":1,"command":"tail",{wrong}}}"#), "1", MALFORMED);
        }
        check_code(format!(r#"{{"id":1,"command":"tail","channel":"{}"}}"#, "*".repeat(257)), "1", "too_large");
        check(r#"{"id":1,"command":"events"}"#, Command::Events { since: None, epoch: None });
        check(
            r#"{"id":1,"command":"events","since":41,"epoch":"00000000000000Ff"}"#,
            Command::Events { since: Some(41), epoch: Some(255) },
        );
        check(
            r#"{"id":1,"command":"events","since":41,"epoch":"another's"}"#,
            Command::Events { since: None, epoch: None },
        );
        check(r#"{"id":1,"command":"busiest"}"#, Command::Busiest { by: By::Subscribers, limit: None });
        check(
            r#"{"id":1,"command":"busiest","by":"messages","limit":20}"#,
            Command::Busiest { by: By::Messages, limit: Some(20) },
        );
        check(
            r#"{"id":1,"command":"busiest","by":"s\u0075bscribers"}"#,
            Command::Busiest { by: By::Subscribers, limit: None },
        );
        check(r#"{"id":1,"command":"p\u0069ng","x":1e999}"#, Command::Ping);
        check(r#"{"id":1,"command":"channels"}"#, Command::Channels { prefix: "".into(), limit: None, after: None });
        check(
            r#"{"id":1,"command":"channels","prefix":"user:","limit":1000,"after":"user:7"}"#,
            Command::Channels { prefix: "user:".into(), limit: Some(1000), after: Some("user:7".into()) },
        );
        check(r#"{"id":1,"command":"channel","channel":"user:13"}"#, Command::Channel { channel: "user:13".into() });
        check(r#"{"id":1,"command":"connections"}"#, Command::Connections { limit: None, after: None });
        check(
            r#"{"id":1,"command":"connections","limit":1,"after":""}"#,
            Command::Connections { limit: Some(1), after: Some("".into()) },
        );
        check(r#"{"id":1,"command":"connection","socket_id":"12.34"}"#, Command::Connection { socket_id });
        check(r#"{"id":1,"command":"connection","socket_id":"nobody"}"#, Command::Connection { socket_id: None });
        check(
            r#"{"id":1,"command":"disconnect","socket_id":"12.34"}"#,
            Command::Disconnect { socket_id, code: 4000, reason: "disconnected by the server's operator".into() },
        );
        check(
            r#"{"id":1,"command":"disconnect","socket_id":"00000000-0000-000c-0000-000000000022","code":4999,"reason":"b\u0061nned"}"#,
            Command::Disconnect { socket_id, code: 4999, reason: "banned".into() },
        );
        check(
            r#"{"id":1,"command":"unsubscribe","socket_id":"12.34","channel":"no legal name"}"#,
            Command::Unsubscribe { socket_id, channel: "no legal name".into() },
        );
    }

    #[test]
    fn a_publish_keeps_event_and_data_as_written() {
        let check = |members: &str, expected: Publish<'_>| {
            let line = format!(r#"{{"id":1,"command":"publish",{members}}}"#);
            let Ok(Command::Publish(read)) = Parser::default().request(line.as_bytes()).command else {
                panic!("{line}")
            };
            assert_eq!(format!("{read:?}"), format!("{expected:?}"));
        };
        check(
            r#""channel":"user:13","event":"order.paid","data":{"id": 42}"#,
            publish(&["user:13"], "order.paid", Some(r#"{"id": 42}"#)),
        );
        check(r#""channel":"user:13","event":"order.paid""#, publish(&["user:13"], "order.paid", None));
        check(r#""channel":"a","event":"e","data":null"#, publish(&["a"], "e", Some("null")));
        check(r#""channel":"a","event":"e","data": -1E+999 "#, publish(&["a"], "e", Some("-1E+999")));
        check(
            r#""channel":"a\u002fb","event":"\u0065\"","data":"\ud83d\ude00""#,
            publish(&["a/b"], r#"\u0065\""#, Some(r#""\ud83d\ude00""#)),
        );
        check(r#""channels":["a", "b","a"],"event":"e""#, publish(&["a", "b", "a"], "e", None));
        check(
            r#""event":"x","channel":"a","event":"e","data":1,"d\u0061ta":[ 2 ]"#,
            publish(&["a"], "e", Some("[ 2 ]")),
        );
        let exclude = Some(SocketId { high: 12, low: 34 });
        check(r#""channel":"a","event":"e","exclude":"12.34""#, Publish { exclude, ..publish(&["a"], "e", None) });
    }

    #[test]
    fn a_line_that_is_no_json_object_is_answered_with_id_null() {
        for line in ["", " ", "{", "[]", "1", "null", "\"publish\"", r#"{"id":1}x"#, r#"[{"id":1}]"#] {
            check_code(line, "null", MALFORMED);
        }
        check_code(
            b"{\"id\":1,\"command\":\"publish\",\"channel\":\"a\",\"event\":\"e\",\"data\":\"\xFF\"}",
            "null",
            MALFORMED,
        );
        check_code(b"{\"id\":1,\"command\":\"ping\",\"x\":\"\xED\xA0\x80\"}", "null", MALFORMED);
        check_code(format!("{{\"id\":1,\"data\":{}", "[".repeat(60_000)), "null", MALFORMED);
    }

    #[test]
    fn any_id_is_echoed_as_written_up_to_256_bytes() {
        for id in [
            "\"\\ud83c\"",
            "{\"\\udc00\":1}",
            "null",
            "0",
            "-1.50e+999",
            "\"a\\u0062\"",
            "[1, {\"a\" :2}]",
            "{ }",
            "false",
        ] {
            check_code(format!("{{\"id\" : {id} , \"command\":\"ping\"}}"), id, "ok");
            check_code(format!("{{\"id\" : {id} , \"command\":\"pong\"}}"), id, "unknown_command");
        }
        check_code(r#"{"id":1,"id":2,"command":"ping"}"#, "2", "ok");
        check_code(r#"{"command":"ping"}"#, "null", "ok");
        let longest = "7".repeat(256);
        check_code(format!("{{\"id\":{longest},\"command\":\"ping\"}}"), &longest, "ok");
        check_code(format!("{{\"id\":{longest}7,\"command\":\"ping\"}}"), "null", MALFORMED);
    }

    #[test]
    fn each_wrong_member_has_its_code() {
        let check = |members: &str, code| check_code(format!("{{\"id\":1{members}}}"), "1", code);
        check("", "missing_member");
        check(r#","command":"""#, "unknown_command");
        check(r#","command":"Ping""#, "unknown_command");
        for no_string in ["null", "1", "[]", "{}", "true"] {
            check(&format!(r#","command":{no_string}"#), MALFORMED);
            for (command, member) in [
                ("channels", "prefix"),
                ("channels", "after"),
                ("channel", "channel"),
                ("connections", "after"),
                ("busiest", "by"),
            ] {
                check(&format!(r#","command":"{command}","{member}":{no_string}"#), MALFORMED);
            }
            for command in ["connection", "disconnect", "unsubscribe"] {
                check(&format!(r#","command":"{command}","socket_id":{no_string}"#), MALFORMED);
            }
            check(&format!(r#","command":"unsubscribe","socket_id":"1.1","channel":{no_string}"#), MALFORMED);
            check(&format!(r#","command":"disconnect","socket_id":"1.1","reason":{no_string}"#), MALFORMED);
        }
        for (command, members) in [
            ("channel", ""),
            ("connection", ""),
            ("disconnect", r#","code":4000"#),
            ("unsubscribe", r#","channel":"a""#),
            ("unsubscribe", r#","socket_id":"1.1""#),
        ] {
            check(&format!(r#","command":"{command}"{members}"#), "missing_member");
        }
        for name in ["", "a b", "presence-x", "private-a:b", "é"] {
            check(&format!(r#","command":"channel","channel":"{name}""#), "invalid_channel");
        }
    }

    #[test]
    fn data_may_hold_an_unpaired_surrogate_and_names_may_not() {
        for data in [r#""\ud83c""#, r#"{"\udc00":["\ud83c\ud83c"]}"#] {
            for rest in ["", r#","exclude":"1.1""#] {
                let line =
                    format!(r#"{{"id":"\ud83c","command":"publish","channel":"a","event":"e","data":{data}{rest}}}"#);
                let mut parser = Parser::default();
                let request = parser.request(line.as_bytes());
                let Ok(Command::Publish(publish)) = request.command else { panic!("{line}") };
                assert_eq!((request.id, publish.data), (r#""\ud83c""#, Some(data)));
            }
        }
        let publish = r#""command":"publish","channel":"a","event":"e""#;
        for (member, value) in [
            ("command", r#""publish\ud83c""#),
            ("channel", r#""a\udc00""#),
            ("event", r#""\ud83ce""#),
            ("channels", r#"["\ud800\ud800"]"#),
            ("exclude", r#""1.1\ud83c""#),
        ] {
            check_code(format!(r#"{{"id":7,{publish},"{member}":{value}}}"#), "7", MALFORMED);
        }
        check_code(r#"{"id":7,"command":"connection","socket_id":"\ud83c"}"#, "7", MALFORMED);
    }

    #[test]
    fn numbers_are_integers_within_their_range() {
        let check = |member: &str, number: &str, code| {
            check_code(format!(r#"{{"id":1,"command":"channels","{member}":{number}}}"#), "1", code);
        };
        for limit in
            ["0", "-1", "-0", "1001", "1.0", "1e2", "null", "\"1\"", "1e999", "99999999999999999999", "true", "[1]"]
        {
            check("limit", limit, MALFORMED);
        }
        for limit in ["1", "1000"] {
            check("limit", limit, "ok");
        }
        let check = |code: &str, verdict| {
            check_code(format!(r#"{{"id":1,"command":"disconnect","socket_id":"1.1","code":{code}}}"#), "1", verdict);
        };
        for code in ["3999", "5000", "1000", "-4000", "4000.0", "4e3", "\"4000\"", "null", "69536"] {
            check(code, MALFORMED);
        }
        for code in ["4000", "4123", "4999"] {
            check(code, "ok");
        }
        let check = |over_ms: &str, verdict| {
            check_code(format!(r#"{{"id":1,"command":"drain","over_ms":{over_ms}}}"#), "1", verdict);
        };
        for over_ms in ["-1", "3600001", "1.0", "1e3", "\"1\"", "null", "\"60s\""] {
            check(over_ms, MALFORMED);
        }
        for over_ms in ["0", "1", "3600000"] {
            check(over_ms, "ok");
        }
        let check =
            |members: &str, verdict| check_code(format!(r#"{{"id":1,"command":"shed"{members}}}"#), "1", verdict);
        for members in [
            r#","percent":101"#,
            r#","percent":"20%""#,
            r#","percent":2.5"#,
            r#","connections":-1"#,
            r#","connections":null"#,
        ] {
            check(members, MALFORMED);
        }
        check(r#","percent":1,"connections":1"#, MALFORMED);
        check("", "missing_member");
        check(r#","percent":0"#, "ok");
        check(r#","connections":0"#, "ok");
    }

    #[test]
    fn a_reason_fits_a_close_frame() {
        let check = |reason: &str, verdict| {
            check_code(
                format!(r#"{{"id":1,"command":"disconnect","socket_id":"1.1","reason":"{reason}"}}"#),
                "1",
                verdict,
            );
        };
        check("", "ok");
        check(&"x".repeat(123), "ok");
        check(&"x".repeat(124), "too_large");
        check(&"é".repeat(62), "too_large");
        check(&"\\u0041".repeat(123), "ok");
    }

    #[test]
    fn a_publish_is_refused_by_its_first_wrong_member() {
        let check = |members: &str, code| check_code(format!(r#"{{"id":1,"command":"publish"{members}}}"#), "1", code);
        check("", "missing_member");
        check(r#","event":"e""#, "missing_member");
        check(r#","channel":"a""#, "missing_member");
        check(r#","channel":"a","channels":["a"],"event":"e""#, MALFORMED);
        check(r#","channel":null,"channels":["a"],"event":"e""#, MALFORMED);
        for channel in ["null", "1", "[\"a\"]", "{}"] {
            check(&format!(r#","channel":{channel},"event":"e""#), MALFORMED);
        }
        for channels in ["null", "1", "\"a\"", "{}", "[]", "[1]", "[null]", "[[\"a\"]]", r#"["a",1]"#] {
            check(&format!(r#","channels":{channels},"event":"e""#), MALFORMED);
        }
        check(r#","channel":"","event":"e""#, "invalid_channel");
        check(r#","channel":"presence-a","event":"e""#, "invalid_channel");
        check(r#","channels":["a","b c"],"event":"e""#, "invalid_channel");
        check(r#","channel":"a b","event":"socket:ping""#, "invalid_channel");
        for event in ["null", "1", "[]", r#""""#] {
            check(&format!(r#","channel":"a","event":{event}"#), MALFORMED);
        }
        for event in ["socket:ping", "socket:", "socket:anything", "\\u0073ocket:ping", "socket\\u003a"] {
            check(&format!(r#","channel":"a","event":"{event}","data":1"#), "reserved_event");
        }
        for event in ["socket", "Socket:ping", " socket:ping", "sockets:ping"] {
            check(&format!(r#","channel":"a","event":"{event}""#), "ok");
        }
        for exclude in ["null", "1", "\"\"", "\"nobody\"", "[]"] {
            check(&format!(r#","channel":"a","event":"e","exclude":{exclude}"#), MALFORMED);
        }
    }

    #[test]
    fn a_publish_is_bounded() {
        let check = |members: &str, code| check_code(format!(r#"{{"id":1,"command":"publish"{members}}}"#), "1", code);
        let channels = |count: usize| format!(r#","channels":["a"{}],"event":"e""#, r#","a""#.repeat(count - 1));
        check(&channels(100), "ok");
        check(&channels(101), "too_large");
        check(&format!(r#","channels":[{}1],"event":"e""#, "1,".repeat(100)), "too_large");
        let data = |len: usize| format!(r#","channel":"a","event":"e","data":"{}""#, "x".repeat(len - 2));
        check(&data(262_144), "ok");
        check(&data(262_145), "too_large");
        let event = |len| format!(r#","channel":"a","event":"{}""#, "x".repeat(len));
        check(&event(1024), "ok");
        check(&event(1025), "too_large");
        check(&format!(r#","channel":"a","event":"socket:{}""#, "x".repeat(2000)), "reserved_event");
    }

    /// Lines that are nearly right, so that slips hit what matters.
    fn nearly_requests() -> impl Strategy<Value = String> {
        let command = prop::sample::select(vec![
            "publish",
            "channels",
            "channel",
            "connections",
            "disconnect",
            "unsubscribe",
            "ping",
        ]);
        let key = prop::sample::select(vec![
            "id",
            "channel",
            "channels",
            "event",
            "data",
            "exclude",
            "limit",
            "code",
            "reason",
            "socket_id",
        ]);
        let value = prop_oneof![
            written_json(),
            Just("\"1.1\"".to_owned()),
            Just("[\"a\",\"b\"]".to_owned()),
            Just("4000".to_owned())
        ];
        (command, prop::collection::vec((key, value), 0..5)).prop_map(|(command, members)| {
            let members: String = members.iter().map(|(key, value)| format!(",\"{key}\":{value}")).collect();
            format!(r#"{{"command":"{command}","channel":"a","event":"e"{members}}}"#)
        })
    }

    #[test]
    fn a_plain_publish_goes_around_the_parser() {
        for line in [
            r#"{"id":1,"command":"publish","channel":"user:13","event":"order.paid","data":{"id":42}}"#,
            r#"{"id": 1, "command": "publish", "channel": "user:13", "event": "order.paid", "data": {"a": "\n"}}"#,
            r#"{"channel":"a","event":"e","command":"publish"}"#,
        ] {
            assert_eq!(plain_publish(line), Some(Parser::default().parsed(line)), "{line}");
        }
        for line in [
            r#"{"command":"publish","channel":"a","event":"e","exclude":"12.34"}"#,
            r#"{"command":"publish","channels":["a"],"event":"e"}"#,
            r#"{"command":"publish","channel":"a b","event":"e"}"#,
            r#"{"command":"publish","channel":"a","event":"socket:e"}"#,
            r#"{"command":"publish","channel":"a","event":"\\"}"#,
            r#"{"command":"publish","channel":"a","event":""}"#,
            r#"{"command":"publish","channel":"a","event":1}"#,
            r#"{"command":"publish","channel":"a","event":"e"} 1"#,
            r#"{"command":"ping","channel":"a","event":"e"}"#,
            r#"{"channel":"a","event":"e"}"#,
        ] {
            assert_eq!(plain_publish(line), None, "{line}");
        }
    }

    /// Publishes of every spelling, most of them plain.
    fn publishes() -> impl Strategy<Value = String> {
        let member = prop_oneof![
            8 => written_json().prop_map(|data| format!("\"data\":{data}")),
            2 => written_json().prop_map(|id| format!("\"id\" :{id}")),
            1 => Just("\"id\":17".to_owned()),
            1 => "[a-z:\\\\\"]{0,9}".prop_map(|event| format!("\"event\": \"{event}\"")),
            1 => "[a-z:-]{0,9}".prop_map(|channel| format!("\"channel\":\"{channel}\"")),
            1 => Just("\"event\":\"socket:x\"".to_owned()),
        ];
        let fixed = [r#""command":"publish""#, r#""channel":"a""#, r#""event":"e""#].map(str::to_owned).to_vec();
        prop::collection::vec(member, 0..4)
            .prop_flat_map(move |members| Just([members, fixed.clone()].concat()).prop_shuffle())
            .prop_map(|members| format!("{{{}}}", members.join(",")))
    }

    proptest! {
        #[test]
        fn a_plain_publish_is_what_the_parser_reads(
            line in publishes(),
            slips in prop::collection::vec(slips(), 0..2),
        ) {
            let line = slips.iter().fold(line, |line, (at, len, with)| mutated(&line, *at, *len, with));
            if let Some(plain) = plain_publish(&line) {
                prop_assert_eq!(plain, Parser::default().parsed(&line), "{:?}", line);
            }
        }

        #[test]
        fn any_bytes_are_answered(line in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Parser::default().request(&line).command.is_err());
        }

        #[test]
        fn what_is_no_json_is_malformed_and_what_is_read_is_echoed(
            line in nearly_requests(),
            slips in prop::collection::vec(slips(), 0..3),
        ) {
            let line = slips.iter().fold(line, |line, (at, len, with)| mutated(&line, *at, *len, with));
            let mut parser = Parser::default();
            let request = parser.request(line.as_bytes());
            let is_object = serde_says_json(&line) && line.trim_start().starts_with('{');
            prop_assert!(is_object || (request.id, verdict(&request.command)) == ("null", MALFORMED), "{:?}", line);
            if let Ok(Command::Publish(publish)) = request.command {
                type Raw<'a> = std::collections::HashMap<String, &'a serde_json::value::RawValue>;
                // It has no name for a key with an unpaired surrogate.
                let Ok(members) = serde_json::from_str::<Raw<'_>>(&line) else { return Ok(()) };
                prop_assert_eq!(publish.data, members.get("data").map(|raw| raw.get()));
                prop_assert_eq!(request.id, members.get("id").map_or("null", |raw| raw.get()));
                prop_assert_eq!(format!("\"{}\"", publish.event), members["event"].get());
            }
        }
    }
}
