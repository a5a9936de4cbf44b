//! The JSON that the console lives on, `/console/api/…`. What it asks the shards for are lines of the admin socket.
//!
//! Numbers come from the snapshot that monitoring shares; lists are walked a page at a time, by one request at a time, and
//! no further than 32 pages: whoever searches among a million is told where to go on. Every refusal is
//! `{"code":"…","error":"…"}`, with the codes of the admin socket where it is the shards that refuse.

use super::super::body::{self, Unread};
use super::super::pipe::Unavailable;
use super::super::process::Process;
use super::super::serving::Peer;
use super::super::{Face, JSON, walk};
use crate::protocol::channel::{self, Channel};
use crate::protocol::json::Reader;
use crate::protocol::socket_id::SocketId;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::sync::Arc;

/// Why a request is refused.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    /// For programs.
    pub code: &'static str,
    /// For people.
    error: Cow<'static, str>,
}

type Answer = Result<Value, Refused>;

/// `GET /info`: what does not change from second to second. `origin` is where the page is from, so that it can be told
/// whether the server would let it connect.
pub async fn info(State(face): State<Arc<Face>>, RawQuery(query): RawQuery) -> Response {
    let answer = async {
        let shards = face.numbers().await?.shards.len();
        let held = face.held();
        let parameters = Parameters::of(query);
        let may_connect = parameters.get("origin").is_none_or(|origin| held.access.admits(origin.as_bytes()));
        let path = held.access.paths.first().map_or("/", String::as_str);
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "shards": shards,
            "start_time_s": Process::now(face.started).start_time_s,
            "websocket": {"port": face.listen.port(), "is_tls": held.is_tls, "path": path, "may_connect": may_connect},
            "can_sign": held.keys.has_keys(),
            "has_key": held.door.asks_for_key(),
        }))
    };
    respond(answer.await)
}

/// `GET /stats`: all sums, some numbers of each shard, and the process. `at_ms` is when the shards were asked, by a clock that
/// does not jump: rates are what changed between two answers by the time between them.
pub async fn stats(State(face): State<Arc<Face>>) -> Response {
    let answer = async {
        let numbers = face.numbers().await?;
        let shard = |values: &std::collections::HashMap<String, u64>| -> Map<String, Value> {
            SHARD_NUMBERS.iter().map(|name| ((*name).into(), values.get(*name).copied().unwrap_or(0).into())).collect()
        };
        let Process { start_time_s, resident_bytes, cpu_s, open_fds, max_fds } = Process::now(face.started);
        Ok(json!({
            "at_ms": numbers.taken.saturating_duration_since(face.begun).as_millis() as u64,
            "stats": numbers.stats,
            "shards": numbers.shards.iter().map(shard).collect::<Vec<_>>(),
            "process": {
                "start_time_s": start_time_s,
                "resident_bytes": resident_bytes,
                "cpu_s": cpu_s,
                "open_fds": open_fds,
                "max_fds": max_fds,
            },
        }))
    };
    respond(answer.await)
}

/// `GET /busiest`: the channels with the most subscribers, or the most messages of late (`by`), and the addresses with the most
/// connections. `at_ms` is when they were told, by the clock of [`stats`]: `messages` only ever grow while a channel lives.
pub async fn busiest(State(face): State<Arc<Face>>, RawQuery(query): RawQuery) -> Response {
    let answer = async {
        let parameters = Parameters::of(query);
        let mut request = json!({"command": "busiest", "limit": parameters.limit()?});
        if let Some(by) = parameters.get("by") {
            request["by"] = by.into();
        }
        // It walks through the tables, too.
        let _walk = face.walks.acquire().await;
        let mut reply = ask(&face, &request.to_string()).await?;
        reply.insert("at_ms".into(), (face.begun.elapsed().as_millis() as u64).into());
        Ok(Value::Object(reply))
    };
    respond(answer.await)
}

/// `GET /channels`: those whose name starts with `prefix` and contains `contains`, in either case.
pub async fn channels(State(face): State<Arc<Face>>, RawQuery(query): RawQuery) -> Response {
    let answer = async {
        let parameters = Parameters::of(query);
        let request = Walk {
            list: "channels",
            prefix: parameters.get("prefix").filter(|prefix| !prefix.is_empty()),
            searched: &["channel"],
            parameters: &parameters,
        };
        request.answer(&face).await
    };
    respond(answer.await)
}

/// `GET /connections`: those whose socket_id or address contains `contains`.
pub async fn connections(State(face): State<Arc<Face>>, RawQuery(query): RawQuery) -> Response {
    let answer = async {
        let parameters = Parameters::of(query);
        let searched = &["socket_id", "address"];
        Walk { list: "connections", prefix: None, searched, parameters: &parameters }.answer(&face).await
    };
    respond(answer.await)
}

/// `GET /connections/SOCKET_ID`: one connection and its channels.
pub async fn connection(State(face): State<Arc<Face>>, Path(socket_id): Path<String>) -> Response {
    let line = json!({"command": "connection", "socket_id": socket_id}).to_string();
    respond(ask(&face, &line).await.map(Value::Object))
}

/// `POST /disconnect`
pub async fn disconnect(State(face): State<Arc<Face>>, request: Request) -> Response {
    let from = peer(&request);
    let answer = async {
        let (body, face) = (json_body(request).await?, &face);
        let Disconnect { socket_id, code, reason } = parse(&body)?;
        let command = Command { command: "disconnect", request: Disconnect { socket_id, code, reason } };
        let reply = ask(face, &line(&command)?).await?;
        tracing::info!(from, socket_id = %command.request.socket_id, "disconnected over the console");
        Ok(Value::Object(reply))
    };
    respond(answer.await)
}

/// `POST /publish`
pub async fn publish(State(face): State<Arc<Face>>, request: Request) -> Response {
    let from = peer(&request);
    let answer = async {
        let (body, face) = (json_body(request).await?, &face);
        let mut reader = Reader::default();
        let text = std::str::from_utf8(&body).map_err(|_| malformed("the body is not valid UTF-8"))?;
        let document = reader.read(text).ok_or(malformed("the body is not valid JSON"))?;
        let members = document.object().ok_or(malformed("the body must be a JSON object"))?;
        let names = ["channel", "event", "data", "exclude"];
        let found = members.named(names);
        let mut line = String::from(r#"{"command":"publish""#);
        for (name, value) in names.iter().zip(found) {
            if let Some(value) = value {
                line += &format!(r#","{name}":{}"#, value.raw);
            }
        }
        // Outside strings a line break is white space, and inside there is none.
        let line = line.replace(['\n', '\r'], " ") + "}";
        let reply = ask(face, &line).await?;
        let [channel, event] =
            [found[0], found[1]].map(|value| value.and_then(|value| value.text()).unwrap_or_default());
        // Legal by now, but an event may be called anything.
        tracing::info!(from, %channel, ?event, "published over the console");
        face.count(|counters| counters.http_publishes += 1);
        Ok(Value::Object(reply))
    };
    respond(answer.await)
}

/// `POST /sign`: what lets a connection subscribe to a private channel, by the server's first key.
pub async fn sign(State(face): State<Arc<Face>>, request: Request) -> Response {
    let from = peer(&request);
    let answer = async {
        let body = json_body(request).await?;
        let Sign { socket_id, channel } = parse(&body)?;
        if SocketId::parse(&socket_id).is_none() {
            return Err(malformed("socket_id is no socket_id"));
        }
        if Channel::parse(&channel).is_none() {
            return Err(Refused::new(StatusCode::BAD_REQUEST, "invalid_channel", channel::RULE));
        }
        let why = "the server has no key to sign with: --key or --key-file adds one";
        let auth = face.held().keys.sign(&socket_id, &channel);
        let auth = auth.ok_or(Refused::new(StatusCode::CONFLICT, "no_key", why))?;
        tracing::info!(from, %socket_id, %channel, "signed over the console");
        Ok(json!({"auth": auth}))
    };
    respond(answer.await)
}

/// Whatever else is asked for.
pub async fn unknown() -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "not_found", "the console's interface has no such path")
}

/// Whatever is asked for otherwise.
pub async fn wrong_method() -> Refused {
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "that path takes another method")
}

#[derive(Serialize, Deserialize)]
struct Disconnect {
    socket_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Sign {
    socket_id: String,
    channel: String,
}

#[derive(Serialize)]
struct Command<T> {
    command: &'static str,
    #[serde(flatten)]
    request: T,
}

/// A request as the shards read it: one line. Outside strings a newline is white space, and inside there is none.
fn line(command: &impl Serialize) -> Result<String, Refused> {
    let line = serde_json::to_string(command).map_err(|_| malformed("the request cannot be written as a line"))?;
    Ok(line.replace(['\n', '\r'], " "))
}

/// A list, searched.
struct Walk<'a> {
    /// The command, and the member of its reply.
    list: &'static str,
    /// What the shards look for themselves.
    prefix: Option<&'a str>,
    /// Members of an entry that `contains` is looked for in.
    searched: &'static [&'static str],
    parameters: &'a Parameters,
}

impl Walk<'_> {
    /// At least `limit` entries, unless there are no more, the walk was long enough or nothing was searched for; `next` says
    /// where to go on. As many as a page holds may come on top: there is no going on from the middle of one.
    async fn answer(&self, face: &Face) -> Answer {
        let limit = self.parameters.limit()?;
        let contains = self.parameters.get("contains").unwrap_or_default().to_ascii_lowercase();
        let mut after = self.parameters.get("after").map(str::to_owned);
        let (mut entries, mut searched) = (Vec::new(), 0);
        // One walk through the tables at a time, so that publishers never wait behind several.
        let _walk = face.walks.acquire().await;
        for _ in 0..PAGES_MAX {
            // Of pages that are not searched, no more than is missing is asked for.
            let page = if contains.is_empty() { limit - entries.len() } else { walk::PAGE };
            let mut request = json!({"command": self.list, "limit": page});
            if let Some(prefix) = self.prefix {
                request["prefix"] = prefix.into();
            }
            if let Some(after) = &after {
                request["after"] = after.as_str().into();
            }
            let mut reply = ask(face, &request.to_string()).await?;
            let Some(Value::Array(found)) = reply.remove(self.list) else { return Err(Unavailable::Closed.into()) };
            searched += found.len();
            entries.extend(found.into_iter().filter(|entry| self.is_wanted(entry, &contains)));
            after = match reply.remove("next") {
                Some(Value::String(next)) => Some(next),
                _ => None,
            };
            if after.is_none() || entries.len() >= limit {
                break;
            }
        }
        Ok(json!({self.list: entries, "next": after, "searched": searched}))
    }

    fn is_wanted(&self, entry: &Value, contains: &str) -> bool {
        let mut texts = self.searched.iter().filter_map(|member| entry[*member].as_str());
        contains.is_empty() || texts.any(|text| text.to_ascii_lowercase().contains(contains))
    }
}

/// The query of a request; of two parameters with one name, the first.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn of(query: Option<String>) -> Parameters {
        Parameters(form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    fn limit(&self) -> Result<usize, Refused> {
        let Some(text) = self.get("limit") else { return Ok(LIMIT_DEFAULT) };
        let limit = text.parse().ok().filter(|limit| (1..=walk::PAGE).contains(limit));
        limit.ok_or(malformed("limit is no integer from 1 to 1000"))
    }
}

/// Asks the shards, whose reply is an object without `id` and `ok`.
async fn ask(face: &Face, line: &str) -> Result<Map<String, Value>, Refused> {
    let reply = face.shards()?.ask(line.as_bytes())?.reply().await?;
    let mut reply: Map<String, Value> = serde_json::from_slice(&reply).map_err(|_| Unavailable::Closed)?;
    reply.remove("id");
    match reply.remove("ok") {
        Some(Value::Bool(true)) => Ok(reply),
        _ => Err(Refused::by_shards(&reply)),
    }
}

/// The body of a request that says that it is JSON: forms of other pages cannot.
async fn json_body(request: Request) -> Result<hyper::body::Bytes, Refused> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(JSON)) {
        let why = "the body has to be application/json";
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", why));
    }
    body::read(request).await.map_err(|unread| match unread {
        Unread::TooLarge => Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", unread.to_string()),
        Unread::Broken => malformed(unread.to_string()),
    })
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| malformed(format!("the body: {error}")))
}

fn peer(request: &Request) -> String {
    request.extensions().get::<Peer>().map(|peer| peer.0.to_string()).unwrap_or_default()
}

fn malformed(why: impl Into<Cow<'static, str>>) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, "malformed_request", why)
}

fn respond(answer: Answer) -> Response {
    match answer {
        Ok(value) => ([(CONTENT_TYPE, JSON), (CACHE_CONTROL, "no-store")], value.to_string()).into_response(),
        Err(refused) => refused.into_response(),
    }
}

impl Refused {
    /// One with this status and code.
    pub fn new(status: StatusCode, code: &'static str, error: impl Into<Cow<'static, str>>) -> Refused {
        Refused { status, code, error: error.into() }
    }

    /// What a line of the admin socket was refused with.
    fn by_shards(reply: &Map<String, Value>) -> Refused {
        let text = |name: &str| reply.get(name).and_then(Value::as_str).unwrap_or_default();
        let (status, code) = match text("code") {
            "not_found" => (StatusCode::NOT_FOUND, "not_found"),
            "too_large" => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            "invalid_channel" => (StatusCode::BAD_REQUEST, "invalid_channel"),
            "reserved_event" => (StatusCode::BAD_REQUEST, "reserved_event"),
            "missing_member" => (StatusCode::BAD_REQUEST, "missing_member"),
            _ => (StatusCode::BAD_REQUEST, "malformed_request"),
        };
        Refused::new(status, code, text("error").to_owned())
    }
}

impl From<Unavailable> for Refused {
    fn from(unavailable: Unavailable) -> Refused {
        let error = match unavailable {
            Unavailable::Overloaded => "too many requests are under way",
            Unavailable::Closed => "the server is stopping",
        };
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Refused { status, code, error } = self;
        let body = json!({"code": code, "error": error}).to_string();
        let mut response = (status, [(CONTENT_TYPE, JSON), (CACHE_CONTROL, "no-store")], body).into_response();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// What the console shows of each shard: its answer is small with 256 of them, too.
const SHARD_NUMBERS: [&str; 11] = [
    "connections",
    "subscriptions",
    "channels",
    "messages_in",
    "publishes",
    "deliveries",
    "bytes_out",
    "outbox_bytes",
    "mail_waiting",
    "turns",
    "turn_us_sum",
];
/// Entries of an answer where nothing else is asked for.
const LIMIT_DEFAULT: usize = 50;
/// Pages of one walk: tens of milliseconds of the shards' time, in parts of about one.
const PAGES_MAX: usize = 32;
