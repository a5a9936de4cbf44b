//! Kinds of servers: how each is subscribed to, pinged and published to.

use serde::{Deserialize, Serialize};

use crate::template::Template;
use crate::wire;

/// One kind of server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    /// The name, for reports.
    pub name: String,
    /// How connections talk to it.
    pub dialect: Dialect,
    /// Another dialect, and the share of the connections that speak it.
    pub second: Option<(f64, Dialect)>,
    /// The server uses TLS.
    pub tls: Option<Tls>,
    /// How messages are published.
    pub publish: Publish,
}

/// How a connection is opened, and how it subscribes and pings.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Dialect {
    /// Path of the WebSocket. It may hold `{channel}`, for servers that subscribe by path.
    pub path: Template,
    /// A text in the first frame, for servers that send one.
    pub greeting: Option<String>,
    /// The message that subscribes; `None` for servers that subscribe by path.
    pub subscribe: Option<Template>,
    /// A text in the answer to `subscribe`.
    pub subscribed: Option<String>,
    /// The messages that unsubscribe. Only the last one is answered.
    pub unsubscribe: Vec<Template>,
    /// A text in the answer to `unsubscribe`.
    pub unsubscribed: Option<String>,
    /// A message that the server answers with one frame.
    pub ping: Option<Template>,
    /// Messages to the server are binary frames.
    pub binary: bool,
    /// A frame may hold several messages (NATS): look for all stamps in it.
    pub packed: bool,
    /// A JSON value arrives as text in a string.
    pub quotes: bool,
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
    Rest(App),
}

/// An application of a server that speaks Pusher's protocol, and how to publish to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct App {
    /// Its ID, in the paths of signed REST requests.
    pub id: String,
    /// Its key, in the path of the WebSocket and in signatures.
    pub key: String,
    /// The secret of the key.
    pub secret: String,
    /// Limit of requests in flight on each connection.
    pub pipeline: usize,
    /// Limit of messages in a request. Above 1: `POST /apps/ID/batch_events`.
    pub batch: usize,
}

/// The message subscribers receive.
pub const BODY: &str = r#"{"event":"m","channel":"{channel}","data":{data}}"#;

impl Target {
    /// A target by name, as this program starts it; see [`NAMES`].
    pub fn named(name: &str) -> Option<Target> {
        Target::with_app(name, App::default())
    }

    /// A target by name, with another application.
    pub fn with_app(name: &str, app: App) -> Option<Target> {
        let native = Dialect::native;
        let peer = Dialect { greeting: None, ..native() };
        let pusher = Dialect::pusher(&app.key);
        let (dialect, publish) = match name {
            "corecast"
            | "corecast-2-shards"
            | "corecast-tls"
            | "corecast-tls-resumed"
            | "corecast-both"
            | "floor"
            | "floor-per-message" => (native(), Publish::lines()),
            "corecast-rest" => (native(), Publish::Rest(app)),
            "corecast-pusher" => (pusher.clone(), Publish::lines()),
            "corecast-pusher-rest" | "pusher" | "soketi" => (pusher.clone(), Publish::Rest(app)),
            "bun" | "bun-deferred" | "node-ws" | "tokio-tungstenite" => {
                let template = r#"{"event":"publish","channel":"{channel}","data":{data}}"#.into();
                (peer, Publish::WebSocket { template })
            }
            "nchan" => (Dialect::nchan(), Publish::Http { path: "/pub/{channel}".into() }),
            "nats" => {
                let hello = Some(("CONNECT {\"verbose\":true}\r\n".into(), "+OK\r\n".into()));
                (Dialect::nats(), Publish::Lines { hello, template: "PUB {channel} {len}\r\n{body}\r\n".into() })
            }
            _ => return None,
        };
        let tls = match name {
            "corecast-tls" => Some(Tls::Full),
            "corecast-tls-resumed" => Some(Tls::Resumed),
            _ => None,
        };
        let second = (name == "corecast-both").then_some((0.5, pusher));
        Some(Target { name: name.into(), dialect, second, tls, publish })
    }

    /// The dialect of connection `id`. The second one's connections are spread evenly over all numbers, and over those of each
    /// channel.
    pub fn dialect(&self, id: usize) -> &Dialect {
        match &self.second {
            Some((share, second)) if (id as f64 * GOLDEN_RATIO).fract() < *share => second,
            _ => &self.dialect,
        }
    }

    /// Makes `frame` the ping of connection `id`; empty if its dialect has none.
    pub fn push_ping(&self, frame: &mut Vec<u8>, id: usize) {
        frame.clear();
        let dialect = self.dialect(id);
        if let Some(ping) = &dialect.ping {
            dialect.push(frame, ping, 0, 1);
        }
    }

    /// Whether connection `id` receives a string with its quotes, as text in a string. Through REST it is a text for all.
    pub fn is_quoted(&self, id: usize) -> bool {
        self.dialect(id).quotes && !matches!(self.publish, Publish::Rest(_))
    }

    /// Bytes by which published `data` must be shorter for subscribers to receive the size that was asked for, on average.
    pub fn quoting(&self) -> usize {
        (0..SAMPLE).filter(|&id| self.is_quoted(id)).count() * QUOTING / SAMPLE
    }

    /// Whether publishes go through one stream, so that they must arrive in the order in which they were sent.
    pub fn publishes_in_order(&self) -> bool {
        !matches!(self.publish, Publish::Rest(_))
    }
}

impl Dialect {
    /// Corecast's own, which some peers speak, too.
    pub fn native() -> Dialect {
        Dialect {
            path: "/".into(),
            greeting: Some("socket:connected".into()),
            subscribe: Some(r#"{"event":"socket:subscribe","data":{"channel":"{channel}"}}"#.into()),
            subscribed: Some("socket:subscribed".into()),
            unsubscribe: vec![r#"{"event":"socket:unsubscribe","data":{"channel":"{channel}"}}"#.into()],
            unsubscribed: Some("socket:unsubscribed".into()),
            ping: Some(r#"{"event":"socket:ping","data":{"id":{n}}}"#.into()),
            binary: false,
            packed: false,
            quotes: false,
        }
    }

    /// Pusher's protocol, version 7. Its `data` is a string that holds the JSON text of the value.
    pub fn pusher(key: &str) -> Dialect {
        let ping = r#"{"event":"pusher:ping","data":{}}"#;
        Dialect {
            path: format!("/app/{key}?protocol=7&client=loadtest&version=1").into(),
            greeting: Some("pusher:connection_established".into()),
            subscribe: Some(r#"{"event":"pusher:subscribe","data":{"auth":"","channel":"{channel}"}}"#.into()),
            subscribed: Some("pusher_internal:subscription_succeeded".into()),
            // Unsubscribing has no answer.
            unsubscribe: vec![r#"{"event":"pusher:unsubscribe","data":{"channel":"{channel}"}}"#.into(), ping.into()],
            unsubscribed: Some("pusher:pong".into()),
            ping: Some(ping.into()),
            quotes: true,
            ..Dialect::native()
        }
    }

    fn nchan() -> Dialect {
        Dialect {
            path: "/sub/{channel}".into(),
            greeting: None,
            subscribe: None,
            subscribed: None,
            unsubscribe: Vec::new(),
            unsubscribed: None,
            ping: None,
            ..Dialect::native()
        }
    }

    fn nats() -> Dialect {
        Dialect {
            greeting: Some("INFO".into()),
            subscribe: Some("CONNECT {\"verbose\":false}\r\nSUB {channel} 1\r\nPING\r\n".into()),
            subscribed: Some("PONG".into()),
            unsubscribe: vec!["UNSUB 1\r\nPING\r\n".into()],
            unsubscribed: Some("PONG".into()),
            ping: Some("PING\r\n".into()),
            binary: true,
            packed: true,
            ..Dialect::native()
        }
    }

    /// The path a subscriber of `channel` asks for.
    pub fn path_of(&self, channel: u32) -> String {
        String::from_utf8_lossy(&self.path.text(channel, 0)).into_owned()
    }

    /// Appends a message to the server as a frame.
    pub fn push(&self, out: &mut Vec<u8>, message: &Template, channel: u32, number: u64) {
        let opcode = if self.binary { wire::BINARY } else { wire::TEXT };
        wire::push_masked(out, opcode, &message.text(channel, number));
    }
}

impl Publish {
    fn lines() -> Publish {
        let template = r#"{"id":{n},"command":"publish","channel":"{channel}","event":"m","data":{data}}"#;
        Publish::Lines { hello: None, template: format!("{template}\n").into() }
    }
}

impl Default for App {
    fn default() -> App {
        let (key, secret) = KEY_PAIR;
        App { id: "1".into(), key: key.into(), secret: secret.into(), pipeline: 1, batch: 1 }
    }
}

/// The names of known targets.
pub const NAMES: [&str; 18] = [
    "corecast",
    "corecast-2-shards",
    "corecast-rest",
    "corecast-pusher",
    "corecast-pusher-rest",
    "corecast-both",
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
    "soketi",
    "pusher",
];

/// Name and secret of the key pair that servers are started with which need one.
pub const KEY_PAIR: (&str, &str) = ("loadtest", "a-secret-for-measuring-only");
/// Its multiples, modulo 1, are spread evenly (Weyl).
const GOLDEN_RATIO: f64 = 0.618_033_988_749_895;
/// Connections that stand for all when lengths are averaged.
const SAMPLE: usize = 1000;
/// The string `"x"` arrives as `"\"x\""`.
const QUOTING: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialects_are_spread_evenly_over_the_subscribers_of_each_channel() {
        let mut target = Target::named("corecast-both").unwrap();
        for share in [0.0, 0.1, 0.5, 1.0] {
            target.second.as_mut().unwrap().0 = share;
            for channels in [1, 2, 3, 10] {
                let of_second = |channel| {
                    let ids = (channel..1000).step_by(channels);
                    let count = ids.clone().filter(|&id| target.dialect(id).quotes).count();
                    count as f64 / ids.len() as f64
                };
                for channel in 0..channels {
                    let got = of_second(channel);
                    assert!((got - share).abs() < 0.05, "{got} of channel {channel} instead of {share}");
                }
            }
        }
    }

    /// The lengths of frames with a payload of 128 bytes, as both dialects receive it.
    #[test]
    fn subscribers_receive_the_size_that_was_asked_for() {
        let check = |name, expected| assert_eq!(Target::named(name).unwrap().quoting(), expected, "{name}");
        check("corecast", 0);
        check("corecast-pusher", 4);
        check("corecast-both", 2);
        check("corecast-pusher-rest", 0);
        let text = serde_json::to_string(&serde_json::json!("x")).unwrap();
        assert_eq!(serde_json::to_string(&text).unwrap().len() - text.len(), QUOTING);
    }
}
