//! `corecast subscribe`: a client that prints the messages of channels.

use super::dial::{Trust, dial};
use anyhow::{Context, bail};
use corecast::hub::channel::presence::user::User;
use corecast::protocol::auth;
use corecast::protocol::channel::{Channel, Kind};
use corecast::protocol::json;
use corecast::protocol::socket_id::SocketId;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::io::{self, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tungstenite::http::Uri;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

type Socket = WebSocket<MaybeTlsStream<TcpStream>>;

/// Subscribes to `channels` at `url` and prints each message on a line. Ends after `count` messages, or when the server
/// closes the connection. `key` signs for private and presence channels; `member` is the `channel_data` of the latter.
pub fn run(
    url: &Uri,
    trust: &Trust,
    channels: &[String],
    key: Option<&corecast::config::Key>,
    member: Option<&str>,
    count: Option<u64>,
) -> anyhow::Result<()> {
    let (mut socket, tcp) = dial(url, trust)?;
    let mut heartbeat = None;
    let mut seen = 0;
    while count.is_none_or(|count| seen < count) {
        let Some(text) = next(&mut socket, &tcp, &mut heartbeat)? else { continue };
        let event = event(&text).with_context(|| format!("not a message: {text}"))?;
        if !event.starts_with("socket:") {
            seen += 1;
            print(&text)?;
            continue;
        }
        let frame: Value = serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))?;
        match &*event {
            "socket:connected" => {
                let interval = frame["data"]["heart"]["interval"].as_u64().unwrap_or(120).max(1);
                heartbeat = Some(Heartbeat::new(Duration::from_secs(interval)));
                let id = socket_id(&frame["data"]["socket_id"])?;
                for channel in channels {
                    let data = request(channel, id, key, member);
                    send(&mut socket, &json!({ "event": "socket:subscribe", "data": data }))?;
                }
            }
            "socket:subscribed" => eprintln!("subscribed to {}", frame["channel"].as_str().unwrap_or_default()),
            "socket:subscribe.error" => bail!(
                "{}: {}: {}",
                frame["channel"].as_str().unwrap_or_default(),
                frame["data"]["code"].as_str().unwrap_or_default(),
                frame["data"]["error"].as_str().unwrap_or_default()
            ),
            "socket:unsubscribed" => bail!("the server ended the subscription to {}", frame["channel"]),
            "socket:error" => bail!("{}", frame["data"]),
            "socket:member_added" | "socket:member_removed" | "socket:presence" => print(&text)?,
            "socket:ping" => send(&mut socket, &json!({ "event": "socket:pong" }))?,
            _ => {}
        }
    }
    let _ = socket.close(None);
    Ok(())
}

/// The id that the server gave to this connection. Another text could make a signature valid for another channel or for an HTTP
/// request, and the server may be one that does not have the key.
fn socket_id(value: &Value) -> anyhow::Result<&str> {
    let id = value.as_str().filter(|id| SocketId::parse(id).is_some());
    id.with_context(|| {
        format!("the server names {value} as the socket_id, which is not a UUID or two numbers joined by a dot")
    })
}

/// The data of a subscribe.
fn request(channel: &str, id: &str, key: Option<&corecast::config::Key>, member: Option<&str>) -> Value {
    let mut data = json!({ "channel": channel });
    let kind = Channel::parse(channel).map_or(Kind::Public, Channel::kind);
    let channel_data = member.filter(|_| kind == Kind::Presence);
    if let Some(channel_data) = channel_data {
        data["channel_data"] = channel_data.into();
    }
    if let Some(key) = key.filter(|_| kind.needs_auth()) {
        data["auth"] = auth::sign(key, id, channel, channel_data).into();
    }
    data
}

/// The `channel_data` of a user; `None`: `info` is not JSON.
pub fn member(user_id: &str, info: Option<&str>) -> Option<String> {
    let info = match info {
        Some(info) => Some(json::Reader::default().read(info)?.value().raw),
        None => None,
    };
    Some(User::new(user_id, info).text().to_owned())
}

/// The name of a message's event. Not read with serde_json, whose types cannot hold every JSON value that `data` may be.
fn event(text: &str) -> Option<String> {
    let [event] = json::Reader::default().read(text)?.object()?.named(["event"]);
    event?.text().map(Cow::into_owned)
}

/// Prints a message on one line.
fn print(text: &str) -> anyhow::Result<()> {
    let mut line = Vec::with_capacity(text.len() + 1);
    json::show_into(&mut line, text);
    line.push(b'\n');
    let mut out = io::stdout().lock();
    Ok(out.write_all(&line).and_then(|()| out.flush()).map_err(corecast::admin::client::Error::Output)?)
}

/// When the client's next ping is due.
struct Heartbeat {
    interval: Duration,
    due: Instant,
    id: u64,
}

impl Heartbeat {
    fn new(interval: Duration) -> Heartbeat {
        Heartbeat { interval, due: Instant::now() + interval, id: 0 }
    }
}

/// The next text message; `None`: a heartbeat was due first, or the message was not text.
fn next(socket: &mut Socket, tcp: &TcpStream, heartbeat: &mut Option<Heartbeat>) -> anyhow::Result<Option<String>> {
    if let Some(heartbeat) = heartbeat {
        if heartbeat.due <= Instant::now() {
            heartbeat.due = Instant::now() + heartbeat.interval;
            heartbeat.id += 1;
            send(socket, &json!({ "event": "socket:ping", "data": { "id": heartbeat.id } }))?;
        }
        let wait = heartbeat.due.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        tcp.set_read_timeout(Some(wait))?;
    }
    match socket.read() {
        Ok(Message::Text(text)) => Ok(Some(text.to_string())),
        Ok(Message::Close(Some(frame))) => bail!("the server closed: {} {}", frame.code, frame.reason),
        Ok(Message::Close(None)) => bail!("the server closed"),
        Ok(_) => Ok(None),
        Err(tungstenite::Error::Io(error)) if is_over(error.kind()) => Ok(None),
        Err(error) => Err(error).context("the connection broke"),
    }
}

/// Whether a read has ended although the connection is as before: after the wait, or because the process was stopped and continued,
/// which interrupts a read with a timeout (signal(7)).
fn is_over(error: io::ErrorKind) -> bool {
    matches!(error, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn send(socket: &mut Socket, message: &Value) -> anyhow::Result<()> {
    socket.send(Message::text(message.to_string())).context("the connection broke")
}
