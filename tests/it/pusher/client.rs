//! A client that sends and reads the frames of Pusher's dialect as they are.

use crate::auth;
use crate::harness::{Client, Options, RawClient, Server, frame, opcode, text_frame, text_of};
use serde_json::{Value, json};

/// A connection that has read its first message.
pub struct Pusher {
    pub raw: RawClient,
    pub socket_id: String,
}

/// A subscriber of channel `a` in Pusher's dialect, and one in corecast's own.
pub fn in_both_dialects(server: &Server) -> (Pusher, Client) {
    let (mut client, mut native) = (Pusher::connect(server), Client::connect(server));
    client.subscribe("a");
    native.subscribe("a");
    (client, native)
}

/// Event `e` of channel `a` with this raw JSON as data.
pub fn event_of_a(data: &str) -> String {
    format!(r#"{{"event":"e","channel":"a","data":{data}}}"#)
}

/// A server with HTTP, the key of signed requests, and that of [`auth::auth`]. Clients that a test does not read are not closed.
pub fn options(shards: usize) -> Options {
    beating(shards, 3600, 3600)
}

/// The same, with this interval and timeout of heartbeats.
pub fn beating(shards: usize, interval: u32, timeout: u32) -> Options {
    let options = Server::options(shards).heart(interval, timeout);
    options.arg("--http", "127.0.0.1:0").arg("--key", "app:hunter2").arg("--key", auth::key())
}

impl Pusher {
    /// Speaks protocol 7.
    #[track_caller]
    pub fn connect(server: &Server) -> Pusher {
        Pusher::speaking(server, 7)
    }

    /// Speaks this version of the protocol.
    #[track_caller]
    pub fn speaking(server: &Server, version: u8) -> Pusher {
        Pusher::at(server, &format!("/app/{}?protocol={version}", auth::KEY))
    }

    /// Connects with this path and query.
    #[track_caller]
    pub fn at(server: &Server, target: &str) -> Pusher {
        let (head, client) = Pusher::upgrade(server, target, "");
        assert!(head.starts_with("HTTP/1.1 101 "), "{target}: {head}");
        client.established()
    }

    /// Sends an upgrade request with more header lines. Returns the response; the first message is not read.
    pub fn upgrade(server: &Server, target: &str, lines: &str) -> (String, Pusher) {
        let mut raw = RawClient::tcp(server);
        raw.write(request(target, lines).as_bytes());
        (raw.head(), Pusher { raw, socket_id: String::new() })
    }

    /// Reads the first message, byte for byte but for the id.
    #[track_caller]
    pub fn established(mut self) -> Pusher {
        let text = self.text();
        let rest = text.strip_prefix(r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\""#);
        let rest = rest.unwrap_or_else(|| panic!("first message: {text}"));
        let (id, rest) = rest.split_once('\\').expect("the end of the id");
        assert_eq!(rest, r#"",\"activity_timeout\":120}"}"#);
        let (high, low) = id.split_once('.').expect("two numbers");
        assert!(high.parse::<u64>().is_ok() && low.parse::<u64>().is_ok(), "{text}");
        self.socket_id = id.into();
        self
    }

    /// Sends a text message.
    #[track_caller]
    pub fn send(&mut self, text: &str) {
        self.raw.write(&text_frame(text));
    }

    /// The next frame that is not a ping, which is answered.
    #[track_caller]
    pub fn frame(&mut self) -> (u8, Vec<u8>) {
        loop {
            match self.raw.frame() {
                (opcode::PING, payload) => _ = self.raw.write_anyway(&frame(opcode::PONG, &payload)),
                frame => return frame,
            }
        }
    }

    /// The next message.
    #[track_caller]
    pub fn text(&mut self) -> String {
        text_of(self.frame())
    }

    /// The next message is exactly this text.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        assert_eq!(self.text(), text);
    }

    /// The next message is a `pusher:error` without a code, and with this text; `None`: with any.
    #[track_caller]
    pub fn expect_error(&mut self, message: Option<&str>) {
        let text = self.text();
        let found: Value = serde_json::from_str(&text).expect("JSON");
        let message = message.or(found["data"]["message"].as_str()).unwrap_or_default();
        assert_eq!(text, error(None, message));
        assert!(!message.is_empty());
    }

    /// Nothing was on its way: the next message is the reply to this ping.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        self.send(r#"{"event":"pusher:ping","data":{}}"#);
        self.expect(PONG);
    }

    /// A close frame with this code comes, and then the end. Returns its text.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) -> String {
        let (opcode, payload) = self.frame();
        assert_eq!(opcode, opcode::CLOSE, "waiting for close {code}: {:?}", String::from_utf8_lossy(&payload));
        let (found, reason) = payload.split_at(2);
        let reason = String::from_utf8(reason.to_vec()).expect("text");
        assert_eq!(u16::from_be_bytes([found[0], found[1]]), code, "{reason}");
        // The server waits for the answer of a client that has come within the last second.
        self.raw.write_anyway(&frame(opcode::CLOSE, &payload));
        self.raw.expect_end();
        reason
    }

    /// A message and a close frame with the same code and text come, and then the end. Returns the text.
    #[track_caller]
    pub fn expect_announced_close(&mut self, code: u16) -> String {
        let message = self.text();
        let text = self.expect_close(code);
        assert_eq!(message, error(Some(code), &text));
        text
    }

    /// Subscribes, with a signature where the channel needs one, and reads the reply.
    #[track_caller]
    pub fn subscribe(&mut self, channel: &str) {
        self.send(&self.subscribe_text(channel, None));
        self.expect(&succeeded(channel));
    }

    /// Subscribes to a presence channel as this user. Returns the members that the reply lists.
    #[track_caller]
    pub fn join(&mut self, channel: &str, user: &str) -> Value {
        let channel_data = json!({"user_id": user}).to_string();
        self.send(&self.subscribe_text(channel, Some(&channel_data)));
        self.members(channel)
    }

    /// The next message is the reply to a subscribe to a presence channel, whose members it returns.
    #[track_caller]
    pub fn members(&mut self, channel: &str) -> Value {
        let text = self.text();
        let mut reply: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&reply["event"], &reply["channel"]), (&json!(SUCCEEDED), &json!(channel)), "{text}");
        let data = reply["data"].take();
        let mut data: Value = serde_json::from_str(data.as_str().expect("a string")).expect("JSON");
        data["presence"].take()
    }

    /// The text of a subscribe, signed where the channel needs it.
    pub fn subscribe_text(&self, channel: &str, channel_data: Option<&str>) -> String {
        let needs_auth = ["private-", "presence-"].iter().any(|prefix| channel.starts_with(prefix));
        let mut data = json!({"channel": channel, "auth": ""});
        if needs_auth {
            data["auth"] = auth::auth(&self.socket_id, channel, channel_data).into();
        }
        if let Some(channel_data) = channel_data {
            data["channel_data"] = channel_data.into();
        }
        json!({"event": "pusher:subscribe", "data": data}).to_string()
    }

    /// Unsubscribes, and waits until that has happened.
    #[track_caller]
    pub fn unsubscribe(&mut self, channel: &str) {
        self.send(&json!({"event": "pusher:unsubscribe", "data": {"channel": channel}}).to_string());
        self.expect_nothing();
    }

    /// Signs in with this text, and reads the reply.
    #[track_caller]
    pub fn sign_in(&mut self, user_data: &str) {
        self.send(&self.sign_in_text(user_data));
        self.expect(&signed_in(user_data));
    }

    /// The text of a sign-in.
    pub fn sign_in_text(&self, user_data: &str) -> String {
        let auth = auth::auth_of_user(&self.socket_id, user_data);
        json!({"event": "pusher:signin", "data": {"auth": auth, "user_data": user_data}}).to_string()
    }
}

/// An upgrade request.
pub fn request(target: &str, lines: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: ws.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{lines}\r\n"
    )
}

/// A message whose data is a text.
pub fn message(event: &str, channel: &str, data: &str) -> String {
    format!(r#"{{"event":"{event}","channel":"{channel}","data":{}}}"#, Value::from(data))
}

/// The reply to a subscribe that succeeded, not to a presence channel.
pub fn succeeded(channel: &str) -> String {
    message(SUCCEEDED, channel, "{}")
}

/// The reply to a sign-in that succeeded.
pub fn signed_in(user_data: &str) -> String {
    let data = format!(r#"{{"user_data":{}}}"#, Value::from(user_data));
    format!(r#"{{"event":"pusher:signin_success","data":{}}}"#, Value::from(data))
}

/// `pusher:error`.
pub fn error(code: Option<u16>, message: &str) -> String {
    let code = code.map_or("null".into(), |code| code.to_string());
    format!(r#"{{"event":"pusher:error","data":{{"code":{code},"message":{}}}}}"#, Value::from(message))
}

/// The messages that refuse a subscription, to a client of this version.
pub fn refused(version: u8, channel: &str, kind: &str, status: u16, text: &str) -> Vec<String> {
    let data = format!(r#"{{"type":"{kind}","error":{},"status":{status}}}"#, Value::from(text));
    let channel = Value::from(channel).to_string();
    let channel = &channel[1..channel.len() - 1];
    let mut messages = vec![message("pusher:subscription_error", channel, &data)];
    if version <= 5 {
        messages.push(message("pusher_internal:subscription_error", channel, &data));
    }
    messages.push(error(None, text));
    messages
}

pub const PONG: &str = r#"{"event":"pusher:pong","data":"{}"}"#;
const SUCCEEDED: &str = "pusher_internal:subscription_succeeded";
