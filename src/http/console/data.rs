//! The data that the console's page shows, as JSON, at `/console/api/…`.
//!
//! Numbers come from the snapshot that monitoring uses too. Lists are read page by page, by one request at a time, and
//! at most 32 pages: a search through a million entries returns a cursor. Every refusal is `{"code":"…","error":"…"}`,
//! with the codes of the admin socket.

use super::super::body;
use super::super::process::Process;
use super::super::reply::{Refused, uncached};
use super::super::serving::Peer;
use super::super::shards::Unavailable;
use super::super::{Face, JSON, walk};
use super::tokens::Rights;
use crate::api::declare::Declaration;
use crate::api::member::{Given, Member, Members, integer};
use crate::api::operation::{Connection, Disconnect, columns, declaration};
use crate::api::publish::{PUBLISH, check_socket_id};
use crate::api::{self, Command, Refusal, Reply};
use crate::protocol::channel::Channel;
use crate::protocol::json::Reader;
use axum::Extension;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tracing::field;

type Answer = Result<Shown, Refused>;

/// The answer to a request.
pub struct Shown(pub Value);

impl IntoResponse for Shown {
    fn into_response(self) -> Response {
        uncached(StatusCode::OK, self.0.to_string())
    }
}

/// `GET /info`: values that rarely change. `origin` is the page's origin; the answer says whether the server would let it
/// connect.
pub async fn info(
    State(face): State<Arc<Face>>,
    Extension(rights): Extension<Rights>,
    RawQuery(query): RawQuery,
) -> Answer {
    let shards = face.numbers().await?.shards.len();
    let held = face.held();
    let parameters = Parameters::of(query);
    let may_connect = parameters.get("origin").is_none_or(|origin| held.access.admits(origin.as_bytes()));
    let path = held.access.paths.first().map_or("/", String::as_str);
    Ok(Shown(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "shards": shards,
        "start_time_s": Process::now(face.started).start_time_s,
        "websocket": {"port": face.listen.port(), "is_tls": held.is_tls, "path": path, "may_connect": may_connect},
        "can_sign": held.keys.has_keys(),
        "read_only": rights == Rights::Read,
    })))
}

/// `GET /stats`: all totals, some numbers of each shard, and the process. `at_ms` is the time of the numbers, by a
/// monotonic clock. A rate is the difference of two answers, divided by the time between them.
pub async fn stats(State(face): State<Arc<Face>>) -> Answer {
    let numbers = face.numbers().await?;
    let shard = |values: &std::collections::HashMap<String, u64>| -> Map<String, Value> {
        SHARD_NUMBERS.iter().map(|name| ((*name).into(), values.get(*name).copied().unwrap_or(0).into())).collect()
    };
    let Process { start_time_s, resident_bytes, cpu_s, open_fds, max_fds } = Process::now(face.started);
    Ok(Shown(json!({
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
    })))
}

/// `GET /busiest`: `at_ms` is the time of the report, by the clock of [`stats`]. `messages` never decreases while a
/// channel is in use.
pub async fn busiest(State(face): State<Arc<Face>>, RawQuery(query): RawQuery) -> Answer {
    let parameters = Parameters::of(query);
    parameters.check(declaration("busiest")?, &[])?;
    let request = api::Request::read("busiest", &parameters)?;
    // A survey walks the shards' tables too, so it waits for its turn.
    let _walk = face.walks.acquire().await;
    let mut reply = object(&ask(&face, request).await?);
    reply.insert("at_ms".into(), (face.begun.elapsed().as_millis() as u64).into());
    Ok(Shown(Value::Object(reply)))
}

/// `GET /LIST`: a list of the admin socket, with its members as parameters. `contains` searches the texts of each row,
/// ignoring case.
pub async fn list(State(face): State<Arc<Face>>, Path(name): Path<String>, RawQuery(query): RawQuery) -> Answer {
    match declaration(&name).ok().filter(|operation| columns(operation.name).is_some()) {
        Some(operation) => walk_pages(&face, operation, &Parameters::of(query)).await,
        None => Err(unknown().await),
    }
}

/// At least `limit` rows, unless the list ends or the walk gets too long. Without a search, at most `limit`, and perhaps fewer.
/// `next` is the cursor for more. The answer may exceed `limit` by the rest of a page, because a cursor cannot point into a page.
async fn walk_pages(face: &Face, operation: &Declaration, parameters: &Parameters) -> Answer {
    parameters.check(operation, &["contains"])?;
    let limit = integer(Member::of("limit", parameters), 1..=walk::PAGE)?.unwrap_or(LIMIT_DEFAULT);
    let contains = parameters.get("contains").unwrap_or_default().to_ascii_lowercase();
    let mut after = parameters.get("after").map(str::to_owned);
    let (mut rows, mut searched) = (Vec::new(), 0);
    // Only one walk through the tables at a time, so that publishers wait for at most one.
    let _walk = face.walks.acquire().await;
    for _ in 0..PAGES_MAX {
        // Without a search, pages hold no more rows than are missing.
        let page = if contains.is_empty() { limit - rows.len() } else { walk::PAGE };
        let request = api::Request::read(operation.name, &parameters.page(page, after.as_deref()))?;
        let reply = ask(face, request).await?;
        let Reply::Page { rows: found, next } = &reply else { return Err(Unavailable::Closed.into()) };
        searched += found.len();
        after.clone_from(next);
        if let Some(Value::Array(found)) = object(&reply).remove(operation.name) {
            rows.extend(found.into_iter().filter(|row| is_wanted(row, &contains)));
        }
        if after.is_none() || rows.len() >= limit {
            break;
        }
    }
    Ok(Shown(json!({operation.name: rows, "next": after, "searched": searched})))
}

fn is_wanted(row: &Value, contains: &str) -> bool {
    let mut texts = row.as_object().into_iter().flat_map(Map::values).filter_map(Value::as_str);
    contains.is_empty() || texts.any(|text| text.to_ascii_lowercase().contains(contains))
}

/// `GET /channel`: one channel: its subscribers, what it keeps, its rule, its position, and its members.
pub async fn channel(State(face): State<Arc<Face>>, RawQuery(query): RawQuery) -> Answer {
    let parameters = Parameters::of(query);
    parameters.check(declaration("channel")?, &[])?;
    let mut shown = object(&ask(&face, api::Request::read("channel", &parameters)?).await?);
    for (name, operation) in [("rule", "rule"), ("position", "history"), ("members", "members")] {
        // A history of no messages is a position.
        let request = api::Request::read(operation, &parameters.page(0, None))?;
        shown.insert(name.into(), Value::Object(object(&ask(&face, request).await?)));
    }
    Ok(Shown(Value::Object(shown)))
}

/// `GET /connections/SOCKET_ID`: one connection and its channels.
pub async fn connection(State(face): State<Arc<Face>>, Path(socket_id): Path<String>) -> Answer {
    let reply = ask(&face, Connection { socket_id: socket_id.into() }.into()).await?;
    Ok(Shown(Value::Object(object(&reply))))
}

/// `POST /disconnect`: the members of the admin command.
pub async fn disconnect(State(face): State<Arc<Face>>, request: Request) -> Answer {
    let from = peer(&request);
    let body = json_body(request).await?;
    let command = face.readers().members.members(declaration("disconnect")?, &body)?;
    let Command::Request(request) = command else { return Err(Unavailable::Closed.into()) };
    let reply = ask(&face, request.clone()).await?;
    if let api::Request::Disconnect(Disconnect { socket_id, user, .. }) = request {
        let (socket_id, user) = (socket_id.map(field::display), user.map(field::debug));
        tracing::info!(from, socket_id, user, "disconnected over the console");
    }
    Ok(Shown(Value::Object(object(&reply))))
}

/// `POST /publish`: the members of the admin command.
pub async fn publish(State(face): State<Arc<Face>>, request: Request) -> Answer {
    let from = peer(&request);
    let body = json_body(request).await?;
    let publish = match face.readers().members.members(&PUBLISH, &body)? {
        Command::Publish(publish) => publish.into_owned(),
        Command::Request(_) => return Err(Unavailable::Closed.into()),
    };
    // Channel names are legal here, but a user or an event may have any name.
    let channels = (!publish.channels.is_empty()).then(|| field::display(publish.channels.join(" ")));
    let users = (!publish.users().is_empty()).then(|| field::debug(publish.users().join(" ")));
    // Checked above, so it can be put between quotes as it was written.
    let event: String = serde_json::from_str(&format!("\"{}\"", publish.event)).unwrap_or_default();
    let published = face.shards()?.publish(publish).await??;
    tracing::info!(from, channel = channels, user = users, ?event, "published over the console");
    face.count(|counters| counters.http_publishes += 1);
    Ok(Shown(json!(published)))
}

/// `POST /sign`: the signature that a connection needs for a private or presence channel, by the server's first key.
pub async fn sign(State(face): State<Arc<Face>>, request: Request) -> Answer {
    let from = peer(&request);
    let body = json_body(request).await?;
    let [socket_id, channel, channel_data] = strings(&body, ["socket_id", "channel", "channel_data"])?;
    // Signatures are verified over the server's own spelling of a UUID.
    let socket_id = socket_id.ok_or(Refusal::MissingMember("socket_id"))?.to_ascii_lowercase();
    let channel = channel.ok_or(Refusal::MissingMember("channel"))?;
    check_socket_id(Some(&socket_id), "socket_id")?;
    Channel::parse(&channel).ok_or(Refusal::InvalidChannel)?;
    let why = "the server has no key to sign with: --key or --key-file adds one";
    let auth = face.held().keys.sign(&socket_id, &channel, channel_data.as_deref());
    let auth = auth.ok_or(Refused::new(StatusCode::CONFLICT, "no_key", why))?;
    tracing::info!(from, %socket_id, %channel, "signed over the console");
    Ok(Shown(json!({"auth": auth})))
}

/// Any other path.
pub async fn unknown() -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "not_found", "the console has no such path")
}

/// Any other method.
pub async fn wrong_method() -> Refused {
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "that path takes another method")
}

/// The query of a request. If several parameters have the same name, the last one counts.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn of(query: Option<String>) -> Parameters {
        Parameters(form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rfind(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Refuses parameters that are neither members of the operation nor `more`.
    fn check(&self, operation: &Declaration, more: &[&'static str]) -> Result<(), Refused> {
        let is_known = |name: &str| operation.members.contains(&name) || more.contains(&name);
        match self.0.iter().find(|(name, _)| !is_known(name)) {
            Some((name, _)) => Err(Refusal::unknown_member(name, operation, more).into()),
            None => Ok(()),
        }
    }

    /// The same check for the parameters of a page.
    fn page(&self, limit: usize, after: Option<&str>) -> Parameters {
        let after = after.map(|after| ("after".to_owned(), after.to_owned()));
        Parameters(self.0.iter().cloned().chain([("limit".to_owned(), limit.to_string())]).chain(after).collect())
    }
}

impl Members for Parameters {
    fn given(&self, name: &str) -> Option<Given<'_>> {
        self.get(name).map(|value| Given::Word(value.into()))
    }
}

async fn ask(face: &Face, request: api::Request) -> Result<Reply, Refused> {
    Ok(face.shards()?.ask(request).await??)
}

/// The reply as a JSON object.
fn object(reply: &Reply) -> Map<String, Value> {
    match serde_json::to_value(reply) {
        Ok(Value::Object(members)) => members,
        _ => Map::new(),
    }
}

/// The body of a request that declares JSON.
async fn json_body(request: Request) -> Result<hyper::body::Bytes, Refused> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(JSON)) {
        let why = "the body has to be application/json";
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", why));
    }
    Ok(body::read(request).await?)
}

/// The string members of a body.
fn strings<const N: usize>(body: &[u8], names: [&str; N]) -> Result<[Option<String>; N], Refused> {
    let text = std::str::from_utf8(body).map_err(|_| Refused::malformed("the body is not valid UTF-8"))?;
    let mut reader = Reader::default();
    let document = reader.read(text).ok_or(Refused::malformed("the body is not valid JSON"))?;
    let found = document.object().ok_or(Refused::malformed("the body is not a JSON object"))?.named(names);
    let mut texts = [const { None }; N];
    for ((name, value), text) in names.iter().zip(found).zip(&mut texts) {
        let Some(value) = value else { continue };
        let value =
            value.text().ok_or_else(|| Refused::malformed(format!("{name} must be a string of Unicode text")))?;
        *text = Some(value.into_owned());
    }
    Ok(texts)
}

fn peer(request: &Request) -> String {
    request.extensions().get::<Peer>().map(|peer| peer.0.to_string()).unwrap_or_default()
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Refused { status, code, error } = self;
        uncached(status, json!({"code": code, "error": error}).to_string())
    }
}

/// The numbers of each shard that the console shows. They are few, so that the answer is small even for 256 shards.
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
/// Entries of an answer if no limit is given.
const LIMIT_DEFAULT: usize = 50;
/// Most pages of one walk: tens of milliseconds of the shards' time, in parts of about one.
const PAGES_MAX: usize = 32;
