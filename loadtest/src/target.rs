//! Kinds of servers: how each is subscribed to, pinged and published to.

use serde::{Deserialize, Serialize};

use crate::template::Template;

/// One kind of server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    /// The name, for reports.
    pub name: String,
    /// Path of the WebSocket. It may hold `{channel}`, for servers that subscribe by path.
    pub path: Template,
    /// A text in the first frame, for servers that send one.
    pub greeting: Option<String>,
    /// The message that subscribes; `None` for servers that subscribe by path.
    pub subscribe: Option<Template>,
    /// A text in the answer to `subscribe`.
    pub subscribed: Option<String>,
    /// The message that unsubscribes.
    pub unsubscribe: Option<Template>,
    /// A text in the answer to `unsubscribe`.
    pub unsubscribed: Option<String>,
    /// A message that the server answers with one frame.
    pub ping: Option<Template>,
    /// The server uses TLS.
    pub tls: Option<Tls>,
    /// Messages to the server are binary frames.
    pub binary: bool,
    /// A frame may hold several messages (NATS): look for all stamps in it.
    pub packed: bool,
    /// How messages are published.
    pub publish: Publish,
}

/// Whether clients resume TLS sessions.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Tls {
    /// Every handshake is a full one.
    Full,
    /// A client resumes an earlier session with its ticket.
    Resumed,
}

/// How messages are published.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Publish {
    /// Not at all.
    Nowhere,
    /// As lines on a Unix or TCP stream; each is answered with a line.
    Lines {
        /// The first message, and the end of its answer.
        hello: Option<(String, String)>,
        /// One publish, with its line end.
        template: Template,
    },
    /// As a text message on another WebSocket, without an answer.
    WebSocket {
        /// The message.
        template: Template,
    },
    /// As a POST whose body is the business message, pipelined.
    Http {
        /// The path to post to.
        path: Template,
    },
    /// As signed `POST /apps/ID/events` on several keep-alive connections.
    Rest {
        /// The body.
        template: Template,
        /// The app ID of the server.
        app_id: String,
        /// The name of a key pair of the server.
        key: String,
        /// Its secret.
        secret: String,
    },
}

/// The message subscribers receive.
pub const BODY: &str = r#"{"event":"m","channel":"{channel}","data":{data}}"#;

impl Target {
    /// A target by name; see [`NAMES`].
    #[expect(clippy::too_many_lines, reason = "a table")]
    pub fn named(name: &str) -> Option<Target> {
        let ours = Target {
            name: name.into(),
            path: "/".into(),
            greeting: None,
            subscribe: Some(r#"{"event":"socket:subscribe","data":{"channel":"{channel}"}}"#.into()),
            subscribed: Some("socket:subscribed".into()),
            unsubscribe: Some(r#"{"event":"socket:unsubscribe","data":{"channel":"{channel}"}}"#.into()),
            unsubscribed: Some("socket:unsubscribed".into()),
            ping: Some(r#"{"event":"socket:ping","data":{"id":{n}}}"#.into()),
            tls: None,
            binary: false,
            packed: false,
            publish: Publish::WebSocket {
                template: r#"{"event":"publish","channel":"{channel}","data":{data}}"#.into(),
            },
        };
        let lines = Publish::Lines {
            hello: None,
            template: concat!(
                r#"{"id":{n},"command":"publish","channel":"{channel}","event":"m","data":{data}}"#,
                "\n"
            )
            .into(),
        };
        Some(match name {
            "corecast" | "corecast-2-shards" => {
                Target { greeting: Some("socket:connected".into()), publish: lines, ..ours }
            }
            "corecast-tls" | "corecast-tls-resumed" => Target {
                greeting: Some("socket:connected".into()),
                publish: lines,
                tls: Some(if name == "corecast-tls" { Tls::Full } else { Tls::Resumed }),
                ..ours
            },
            "corecast-rest" => Target {
                greeting: Some("socket:connected".into()),
                publish: Publish::Rest {
                    template: r#"{"name":"m","channel":"{channel}","data":{data}}"#.into(),
                    app_id: "1".into(),
                    key: KEY_PAIR.0.into(),
                    secret: KEY_PAIR.1.into(),
                },
                ..ours
            },
            "floor" | "floor-per-message" => {
                Target { greeting: Some("socket:connected".into()), publish: lines, ..ours }
            }
            "bun" | "bun-deferred" | "node-ws" | "tokio-tungstenite" => ours,
            "nchan" => Target {
                path: "/sub/{channel}".into(),
                subscribe: None,
                subscribed: None,
                unsubscribe: None,
                unsubscribed: None,
                ping: None,
                publish: Publish::Http { path: "/pub/{channel}".into() },
                ..ours
            },
            "nats" => Target {
                subscribe: Some("CONNECT {\"verbose\":false}\r\nSUB {channel} 1\r\nPING\r\n".into()),
                subscribed: Some("PONG".into()),
                unsubscribe: Some("UNSUB 1\r\nPING\r\n".into()),
                unsubscribed: Some("PONG".into()),
                ping: Some("PING\r\n".into()),
                greeting: Some("INFO".into()),
                binary: true,
                packed: true,
                publish: Publish::Lines {
                    hello: Some(("CONNECT {\"verbose\":true}\r\n".into(), "+OK\r\n".into())),
                    template: "PUB {channel} {len}\r\n{body}\r\n".into(),
                },
                ..ours
            },
            _ => return None,
        })
    }

    /// The path a subscriber of `channel` asks for.
    pub fn path_of(&self, channel: u32) -> String {
        String::from_utf8_lossy(&self.path.text(channel, 0)).into_owned()
    }

    /// Whether publishes go through one stream, so that they must arrive in the order in which they were sent.
    pub fn publishes_in_order(&self) -> bool {
        !matches!(self.publish, Publish::Rest { .. })
    }

    /// Opcode of messages to the server.
    pub fn opcode(&self) -> u8 {
        if self.binary { crate::wire::BINARY } else { crate::wire::TEXT }
    }
}

/// The names of known targets.
pub const NAMES: [&str; 13] = [
    "corecast",
    "corecast-2-shards",
    "corecast-rest",
    "corecast-tls",
    "corecast-tls-resumed",
    "floor",
    "floor-per-message",
    "bun",
    "bun-deferred",
    "node-ws",
    "tokio-tungstenite",
    "nchan",
    "nats",
];

/// Name and secret of the key pair that servers are started with which need one.
pub const KEY_PAIR: (&str, &str) = ("loadtest", "a-secret-for-measuring-only");
