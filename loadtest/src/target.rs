//! Whom we talk to: how a server wants to be subscribed to, pinged and published to.

use serde::{Deserialize, Serialize};

use crate::template::Template;

/// One kind of server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    /// For people.
    pub name: String,
    /// Path of the WebSocket; may hold `{channel}`, where subscribing is done by path.
    pub path: Template,
    /// A text in the first frame, where the server speaks first.
    pub greeting: Option<String>,
    /// What to say to subscribe; nothing where the path says it.
    pub subscribe: Option<Template>,
    /// A text in the answer to it.
    pub subscribed: Option<String>,
    /// What to say to unsubscribe.
    pub unsubscribe: Option<Template>,
    /// A text in the answer to it.
    pub unsubscribed: Option<String>,
    /// What to say so that the server answers with one frame.
    pub ping: Option<Template>,
    /// It speaks TLS.
    pub tls: Option<Tls>,
    /// What we say goes in binary frames.
    pub binary: bool,
    /// A frame may hold several messages (NATS): look for all stamps in it.
    pub packed: bool,
    /// How to publish.
    pub publish: Publish,
}

/// What a client that comes back brings along.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Tls {
    /// Nothing: every handshake is a full one.
    Full,
    /// The ticket of an earlier session.
    Resumed,
}

/// How a message gets published.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Publish {
    /// Not at all.
    Nowhere,
    /// As lines on a Unix or TCP stream; each is answered with a line unless `silent`.
    Lines {
        /// What to say first; its answer ends with this text.
        hello: Option<(String, String)>,
        /// One publish, line end included.
        template: Template,
    },
    /// As a text message on a WebSocket of its own, unanswered.
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
                    key: REST_KEY.0.into(),
                    secret: REST_KEY.1.into(),
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

    /// Whether publishes go through one stream, so that subscribers must see them in the order in which they were sent.
    pub fn publishes_in_order(&self) -> bool {
        !matches!(self.publish, Publish::Rest { .. })
    }

    /// Opcode of what we say.
    pub fn opcode(&self) -> u8 {
        if self.binary { crate::wire::BINARY } else { crate::wire::TEXT }
    }
}

/// The targets that are known by name.
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

/// Name and secret of the key pair that `corecast-rest` is started with.
pub const REST_KEY: (&str, &str) = ("loadtest", "a-secret-for-measuring-only");
