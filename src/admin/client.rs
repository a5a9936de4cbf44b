//! The command line side of the admin socket: one request at a time here, a stream of publishes in [`stream`], replies
//! for people in [`render`], a stream of lines from the server in [`watch`].

pub mod render;
pub mod stream;
pub mod watch;

use crate::config::shared_admin_socket;
use crate::protocol::json::Reader;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Uid, getuid};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A request, as the admin socket wants it (PROTOCOL.md, "The admin socket").
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "command", rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Request {
    Publish {
        channels: Vec<String>,
        event: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<Box<RawValue>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        exclude: Option<String>,
    },
    Channels {
        #[serde(skip_serializing_if = "Option::is_none")]
        prefix: Option<String>,
        #[serde(flatten)]
        page: Page,
    },
    Channel {
        channel: String,
    },
    Connections {
        #[serde(flatten)]
        page: Page,
    },
    Connection {
        socket_id: String,
    },
    Disconnect {
        socket_id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<u16>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    Unsubscribe {
        socket_id: String,
        channel: String,
    },
    Events {
        #[serde(skip_serializing_if = "Option::is_none")]
        since: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        epoch: Option<String>,
    },
    Busiest {
        by: By,
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<usize>,
    },
    Tail(Tail),
    Stats,
    Reload,
    Drain {
        over_ms: u64,
    },
    Shed {
        #[serde(flatten)]
        share: Share,
        over_ms: u64,
    },
    Ping,
}

/// Which part of all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Share {
    Percent(u8),
    Connections(usize),
}

/// What is to be shown of what the server sees.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tail {
    /// Only what concerns channels of such names; `*` stands for anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Only what clients of this network do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Only these kinds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
    /// One in so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<u32>,
    /// At most so many a second and shard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Bytes of data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<u16>,
}

/// What makes a channel busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Subscribers.
    Subscribers,
    /// Messages in the last seconds.
    Messages,
}

/// Which part of a listing is asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Page {
    /// At most so many entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where the previous page ended: its `next`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Whether to go on until the end; the server knows nothing of it.
    #[serde(skip)]
    pub all: bool,
}

/// Why a command failed.
#[derive(Debug)]
pub enum Error {
    /// Nobody listens on the socket, or it may not be opened.
    NoServer {
        /// The admin socket.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Somebody else listens on the socket that is ours by its name, to be told what we publish.
    Stranger {
        /// The admin socket.
        path: PathBuf,
        /// Who.
        user: Uid,
    },
    /// The server was there and is gone, is silent, or speaks something else.
    Broken {
        /// The admin socket.
        path: PathBuf,
        /// What happened.
        what: String,
    },
    /// The server's answer is no.
    Refused {
        /// For programs.
        code: String,
        /// For people.
        text: String,
    },
    /// What was to be printed could not be.
    Output(io::Error),
    /// What was to be published could not be read to its end.
    Input {
        /// What the system says.
        error: io::Error,
        /// What became of the lines before.
        summary: stream::Summary,
    },
}

/// How long the server may think about one request.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// One connection to the admin socket.
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects; the error says how to get a server to answer.
    pub fn connect(path: &Path) -> Result<Client, Error> {
        let connected = UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
            stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
            let user = socket_peercred(&stream)?.uid;
            Ok((stream, user))
        });
        match connected {
            Ok((_, user)) if is_stranger(path, user) => Err(Error::Stranger { path: path.into(), user }),
            Ok((stream, _)) => Ok(Client { path: path.into(), stream: BufReader::new(stream) }),
            Err(error) => Err(Error::NoServer { path: path.into(), error }),
        }
    }

    /// Asks, and prints the answer: the reply lines as they came, or a rendering for people. Listings go on to the end if
    /// `all` says so.
    pub fn run(&mut self, mut request: Request, json: bool, out: &mut impl Write) -> Result<(), Error> {
        let mut renderer = render::Renderer::new(&request);
        loop {
            let line = self.ask(&request)?;
            if json {
                out.write_all(line.as_bytes()).map_err(Error::Output)?;
            }
            let reply = self.judge(&line)?;
            let next = match &reply["next"] {
                Value::Null => None,
                Value::String(next) => Some(next.clone()),
                next => Some(next.to_string()),
            };
            let more = next.filter(|next| request.turn_page(next));
            if !json {
                renderer.reply(&reply, more.is_none(), out).map_err(Error::Output)?;
            }
            if more.is_none() {
                return out.flush().map_err(Error::Output);
            }
        }
    }

    /// Asks, and returns the answer.
    pub fn reply(&mut self, request: &Request) -> Result<Value, Error> {
        let line = self.ask(request)?;
        self.judge(&line)
    }

    /// Sends one request and waits for its line, newline included.
    fn ask(&mut self, request: &Request) -> Result<String, Error> {
        let mut line = serde_json::to_vec(request).expect("a request has no keys but texts");
        line.push(b'\n');
        let sent = self.stream.get_mut().write_all(&line);
        let mut reply = String::new();
        // A server that refuses early has said why before it hung up: read first, complain about the write after.
        match (self.stream.read_line(&mut reply), sent) {
            (Ok(_), _) if reply.ends_with('\n') => Ok(reply),
            (Err(error), _) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                let seconds = REPLY_TIMEOUT.as_secs();
                Err(self.broken(format!("it has not answered within {seconds} s")))
            }
            (Err(error), _) | (Ok(_), Err(error)) => Err(self.broken(error.to_string())),
            (Ok(_), Ok(())) => Err(self.broken("it closed the connection without an answer".into())),
        }
    }

    fn judge(&self, line: &str) -> Result<Value, Error> {
        let reply: Value = serde_json::from_str(line).unwrap_or_default();
        let text = |member: &str| reply[member].as_str().unwrap_or("unknown").to_owned();
        match reply["ok"].as_bool() {
            Some(true) => Ok(reply),
            Some(false) => Err(Error::Refused { code: text("code"), text: text("error") }),
            None => Err(self.broken(format!("its reply is none of this protocol: {}", line.trim_end()))),
        }
    }

    fn broken(&self, what: String) -> Error {
        Error::Broken { path: self.path.clone(), what }
    }
}

/// Whether a user has no business to listen there: a path that is named is where it is by somebody's will, but the one in
/// `/tmp` is whoever's was there first.
fn is_stranger(path: &Path, user: Uid) -> bool {
    path == Path::new(&shared_admin_socket()) && user != getuid() && !user.is_root()
}

impl Request {
    /// Makes this the request for the page after `next`; `false` where one page was all that was asked for.
    fn turn_page(&mut self, next: &str) -> bool {
        match self {
            Request::Channels { page, .. } | Request::Connections { page } if page.all => {
                // A server that answers with the same cursor again would be asked for ever.
                let turned = page.after.as_deref() != Some(next);
                page.after = Some(next.to_owned());
                turned
            }
            _ => false,
        }
    }
}

/// Reads DATA of the command line: any JSON value, kept as written. A request is one line, so line breaks, which JSON
/// has only between tokens, become spaces.
pub fn data(text: &str) -> Result<Box<RawValue>, String> {
    let Some(value) = Reader::default().read(text).map(|document| document.value().raw) else {
        let quoted = Value::String(text.into()).to_string().replace('\'', r"'\''");
        return Err(format!("not valid JSON. If a text is meant, quote it twice: '{quoted}'"));
    };
    RawValue::from_string(value.replace(['\n', '\r'], " ")).map_err(|error| error.to_string())
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoServer { path, error } => {
                let is_socket = path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
                let path = path.display();
                let remedy = match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        "Run this as the user that the server runs as, or as one whom the socket's mode lets in"
                    }
                    io::ErrorKind::ConnectionRefused if !is_socket => {
                        "That file is no socket: --admin-socket PATH names one"
                    }
                    io::ErrorKind::ConnectionRefused => {
                        "The socket is left over from a server that is gone: start one with `corecast serve`"
                    }
                    _ => {
                        "Start a server with `corecast serve`, or name the socket of the one that runs with \
                         --admin-socket PATH or CORECAST_ADMIN_SOCKET; the systemd unit's is /run/corecast/admin.sock"
                    }
                };
                write!(f, "no server answers on the admin socket {path} ({error}). {remedy}")
            }
            Error::Stranger { path, user } => write!(
                f,
                "the admin socket {} is that of another user ({}), who is told nothing. Name the server's with \
                 --admin-socket PATH or CORECAST_ADMIN_SOCKET, in a directory that others may not write to",
                path.display(),
                user.as_raw()
            ),
            Error::Broken { path, what } => write!(
                f,
                "the server on the admin socket {} failed us: {what}. Its log says more; `corecast ping` tells whether it \
                 is alive",
                path.display()
            ),
            Error::Refused { code, text } => write!(f, "{code}: {text}"),
            Error::Output(error) => write!(f, "cannot write the answer: {error}"),
            Error::Input { error, summary } => write!(f, "cannot read the input: {error}; before that, {summary}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread::{self, JoinHandle};

    pub(super) fn socket_path() -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        std::env::temp_dir().join(format!("corecast-client-{}-{number}.sock", std::process::id()))
    }

    /// A server that answers the n-th line with the n-th of these, then hangs up; returns the lines it got.
    fn scripted(replies: &'static [&str]) -> (PathBuf, JoinHandle<Vec<String>>) {
        let path = socket_path();
        let listener = UnixListener::bind(&path).expect("a socket");
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
            let mut got = Vec::new();
            for reply in replies {
                let mut line = String::new();
                reader.read_line(&mut line).expect("a line");
                got.push(line);
                writeln!(&stream, "{reply}").expect("a client that reads");
            }
            got
        });
        (path, server)
    }

    /// What a request prints, and what the server got.
    fn run(request: Request, json: bool, replies: &'static [&str]) -> (Result<(), Error>, String, Vec<String>) {
        let (path, server) = scripted(replies);
        let mut out = Vec::new();
        let result = Client::connect(&path).expect("the scripted server").run(request, json, &mut out);
        let got = server.join().expect("no panic");
        std::fs::remove_file(path).expect("the socket");
        (result, String::from_utf8(out).expect("UTF-8"), got)
    }

    fn publish(channels: &[&str], data: Option<&str>, exclude: Option<&str>) -> Request {
        Request::Publish {
            channels: channels.iter().map(|channel| (*channel).into()).collect(),
            event: "e".into(),
            data: data.map(|text| super::data(text).expect("JSON")),
            exclude: exclude.map(str::to_owned),
        }
    }

    #[test]
    fn in_a_directory_of_everybodys_nobody_else_is_believed() {
        let (ours, root, other) = (getuid(), Uid::ROOT, Uid::from_raw(getuid().as_raw() + 1));
        let shared = PathBuf::from(shared_admin_socket());
        assert_eq!([ours, root, other].map(|user| is_stranger(&shared, user)), [false, false, true]);
        assert!(!is_stranger(Path::new("/run/corecast/admin.sock"), other), "a service has a user of its own");
    }

    #[test]
    fn requests_are_written_as_the_protocol_has_them() {
        let check = |request: Request, expected: &str| {
            assert_eq!(serde_json::to_string(&request).expect("JSON"), expected);
        };
        check(
            publish(&["a", "b"], Some(" {\"x\":\n1.50} "), Some("1.2")),
            r#"{"command":"publish","channels":["a","b"],"event":"e","data":{"x": 1.50},"exclude":"1.2"}"#,
        );
        check(publish(&["a"], None, None), r#"{"command":"publish","channels":["a"],"event":"e"}"#);
        check(publish(&["a"], Some("null"), None), r#"{"command":"publish","channels":["a"],"event":"e","data":null}"#);
        let page = Page { limit: Some(5), after: Some("c".into()), all: true };
        check(
            Request::Channels { prefix: Some("user:".into()), page: page.clone() },
            r#"{"command":"channels","prefix":"user:","limit":5,"after":"c"}"#,
        );
        check(Request::Connections { page: Page::default() }, r#"{"command":"connections"}"#);
        check(
            Request::Disconnect { socket_id: "1.2".into(), code: Some(4001), reason: None },
            r#"{"command":"disconnect","socket_id":"1.2","code":4001}"#,
        );
        check(Request::Stats, r#"{"command":"stats"}"#);
        check(Request::Drain { over_ms: 1500 }, r#"{"command":"drain","over_ms":1500}"#);
        let shed = |share| Request::Shed { share, over_ms: 0 };
        check(shed(Share::Percent(20)), r#"{"command":"shed","percent":20,"over_ms":0}"#);
        check(shed(Share::Connections(500)), r#"{"command":"shed","connections":500,"over_ms":0}"#);
        let busiest = |limit| Request::Busiest { by: By::Messages, limit };
        check(busiest(None), r#"{"command":"busiest","by":"messages"}"#);
        check(busiest(Some(7)), r#"{"command":"busiest","by":"messages","limit":7}"#);
    }

    #[test]
    fn data_that_is_not_json_is_refused_with_the_way_to_quote_it() {
        let check = |text: &str, hint: &str| {
            let error = data(text).expect_err("not JSON");
            assert!(error.contains(hint), "{error}");
        };
        check("hello", r#"'"hello"'"#);
        check("it's", r#"'"it'\''s"'"#);
        check("", r#"'""'"#);
        check("1 2", "not valid JSON");
        for legal in [
            "\"\\ud83c\"",
            " [\"\\udc00\"] ",
            "null",
            "-1e400",
            "123456789012345678901234567890",
            "\"\\u0000\"",
            "[1,\r\n2]",
        ] {
            assert!(!data(legal).expect(legal).get().contains('\n'));
        }
    }

    #[test]
    fn a_refusal_is_an_error_with_code_and_text() {
        const REPLY: &str = r#"{"id":null,"ok":false,"code":"invalid_channel","error":"no legal name"}"#;
        let (result, out, _) = run(publish(&[" "], None, None), false, &[REPLY]);
        assert_eq!(result.expect_err("refused").to_string(), "invalid_channel: no legal name");
        assert_eq!(out, "");
        let (result, out, _) = run(publish(&[" "], None, None), true, &[REPLY]);
        assert!(matches!(result, Err(Error::Refused { .. })));
        assert_eq!(out, format!("{REPLY}\n"));
    }

    #[test]
    fn json_prints_the_lines_as_they_came() {
        let (result, out, got) = run(Request::Ping, true, &[r#"{"id": null, "ok": true}"#]);
        result.expect("ok");
        assert_eq!(out, "{\"id\": null, \"ok\": true}\n");
        assert_eq!(got, ["{\"command\":\"ping\"}\n"]);
    }

    #[test]
    fn all_turns_the_pages_to_the_end() {
        let page = |all| Page { limit: Some(1), all, ..Page::default() };
        let channels = |all| Request::Channels { prefix: None, page: page(all) };
        const FIRST: &str = r#"{"id":null,"ok":true,"channels":[{"channel":"a","subscribers":1}],"next":"a"}"#;
        const LAST: &str = r#"{"id":null,"ok":true,"channels":[{"channel":"bcd","subscribers":20}]}"#;
        let (result, out, got) = run(channels(true), false, &[FIRST, LAST]);
        result.expect("ok");
        assert_eq!(out, "CHANNEL  SUBSCRIBERS\na                  1\nbcd               20\n");
        assert_eq!(got[1], "{\"command\":\"channels\",\"limit\":1,\"after\":\"a\"}\n");
        let (result, out, got) = run(channels(false), false, &[FIRST]);
        result.expect("ok");
        assert!(out.ends_with("more: --after a, or --all\n"), "{out}");
        assert_eq!(got.len(), 1);
        let (result, _, got) = run(channels(true), true, &[FIRST, FIRST]);
        result.expect("a cursor that does not move ends the listing");
        assert_eq!(got.len(), 2);
    }

    #[test]
    fn where_no_server_answers_the_error_names_path_and_remedy() {
        let path = socket_path();
        let error = |path: &Path| match Client::connect(path) {
            Ok(_) => panic!("somebody answers"),
            Err(error) => error.to_string(),
        };
        let text = error(&path);
        assert!(text.contains(path.to_str().expect("UTF-8")), "{text}");
        assert!(text.contains("corecast serve") && text.contains("--admin-socket"), "{text}");
        drop(UnixListener::bind(&path).expect("a socket"));
        assert!(error(&path).contains("left over"));
        std::fs::remove_file(path).expect("the socket");
    }

    #[test]
    fn a_server_that_hangs_up_or_babbles_is_named() {
        let (path, server) = scripted(&[]);
        let mut client = Client::connect(&path).expect("the scripted server");
        server.join().expect("no panic");
        let error = client.run(Request::Ping, false, &mut Vec::new()).expect_err("nobody");
        assert!(matches!(error, Error::Broken { .. }), "{error}");
        std::fs::remove_file(path).expect("the socket");
        let (result, ..) = run(Request::Ping, false, &["HTTP/1.1 400 Bad Request"]);
        assert!(result.expect_err("no JSON").to_string().contains("HTTP/1.1 400"));
    }
}
