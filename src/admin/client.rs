//! The client of the admin socket, for the command line: one request at a time here, a stream of publishes in [`stream`],
//! replies for people in [`render`], a stream of lines from the server in [`watch`].

mod call;
mod error;
pub mod render;
pub mod stream;
pub mod watch;

use crate::api::Request;
use crate::config::shared_admin_socket;
use crate::protocol::json;
pub use call::{Call, data};
pub use error::Error;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Uid, getuid};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest time that the server may take for one request.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// One connection to the admin socket.
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects. The error text says how to start or name a server.
    pub fn connect(path: &Path) -> Result<Client, Error> {
        let connected = UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
            stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
            let user = socket_peercred(&stream)?.uid;
            Ok((stream, user))
        });
        match connected {
            Ok((_, user)) if is_other_user(path, user) => Err(Error::OtherUser { path: path.into(), user }),
            Ok((stream, _)) => Ok(Client { path: path.into(), stream: BufReader::new(stream) }),
            Err(error) => Err(Error::NoServer { path: path.into(), error }),
        }
    }

    /// Sends a request and prints the answer: the reply lines as received, or a rendering for people. With `all` it
    /// requests every page of a list.
    pub fn run<'a>(
        &mut self,
        call: impl Into<Call<'a>>,
        all: bool,
        json: bool,
        out: &mut impl Write,
    ) -> Result<(), Error> {
        let mut call = call.into();
        let mut renderer = render::Renderer::new(call.command);
        loop {
            let line = self.ask(&call)?;
            if json {
                let mut shown = Vec::with_capacity(line.len());
                // Data in a history is what was published, so it may hold characters that control a terminal.
                json::show_into(&mut shown, line.trim_end());
                shown.push(b'\n');
                out.write_all(&shown).map_err(Error::Output)?;
            }
            let reply = self.judge(&line)?;
            let next = match &reply["next"] {
                Value::Null => None,
                Value::String(next) => Some(next.clone()),
                next => Some(next.to_string()),
            };
            let more = next.filter(|next| all && call.turn_page(next));
            if !json {
                renderer.reply(&reply, more.is_none(), out).map_err(Error::Output)?;
            }
            if more.is_none() {
                return out.flush().map_err(Error::Output);
            }
        }
    }

    /// Sends a request and returns the answer.
    pub fn reply(&mut self, request: &Request) -> Result<Value, Error> {
        let line = self.ask(&request.into())?;
        self.judge(&line)
    }

    /// Sends one request and waits for its reply line, newline included.
    fn ask(&mut self, call: &Call<'_>) -> Result<String, Error> {
        let sent = self.stream.get_mut().write_all(call.line().as_bytes());
        let mut reply = String::new();
        // A server that refuses early sends the reason before it closes. So read first, and report a failed write
        // afterwards.
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
        let reply = value(line).unwrap_or_default();
        let text = |member: &str| reply[member].as_str().unwrap_or("unknown").to_owned();
        match reply["ok"].as_bool() {
            Some(true) => Ok(reply),
            Some(false) => Err(Error::Refused { code: text("code"), text: text("error") }),
            None => Err(self.broken(format!("its reply is not valid: {}", line.trim_end()))),
        }
    }

    fn broken(&self, what: String) -> Error {
        Error::Broken { path: self.path.clone(), what }
    }
}

/// A reply as a value. Business data in it becomes its text: it is shown as it was published, and can be more than
/// serde_json's types hold.
fn value(line: &str) -> serde_json::Result<Value> {
    let row = |name: &str, json: &str| match name {
        "data" | "user_info" => Ok(json.into()),
        _ => serde_json::from_str(json),
    };
    object(line, |name, json| match name {
        "messages" | "members" => {
            let rows = serde_json::from_str::<Vec<&RawValue>>(json)?.into_iter();
            rows.map(|members| object(members.get(), row)).collect()
        }
        _ => serde_json::from_str(json),
    })
}

/// An object whose members are read by `read`.
fn object(json: &str, read: impl Fn(&str, &str) -> serde_json::Result<Value>) -> serde_json::Result<Value> {
    let members = serde_json::from_str::<BTreeMap<String, &RawValue>>(json)?.into_iter();
    members.map(|(name, json)| read(&name, json.get()).map(|value| (name, value))).collect()
}

/// Whether the listener belongs to another user although it must not. A path that was given is trusted. The default
/// path in `/tmp` belongs to the process that created it first.
fn is_other_user(path: &Path, user: Uid) -> bool {
    path == Path::new(&shared_admin_socket()) && user != getuid() && !user.is_root()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::operation::{self, Channels, History};
    use crate::api::publish::Draft;
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread::{self, JoinHandle};

    pub(super) fn socket_path() -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        std::env::temp_dir().join(format!("corecast-client-{}-{number}.sock", std::process::id()))
    }

    /// A server that sends the n-th of these replies to the n-th line, then closes. Returns the lines that it received.
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

    /// The output of a request, and the lines that the server received.
    fn run<'a>(
        call: impl Into<Call<'a>>,
        all: bool,
        json: bool,
        replies: &'static [&str],
    ) -> (Result<(), Error>, String, Vec<String>) {
        let (path, server) = scripted(replies);
        let mut out = Vec::new();
        let result = Client::connect(&path).expect("the scripted server").run(call, all, json, &mut out);
        let got = server.join().expect("no panic");
        std::fs::remove_file(path).expect("the socket");
        (result, String::from_utf8(out).expect("UTF-8"), got)
    }

    fn ping() -> Request {
        operation::Ping {}.into()
    }

    #[test]
    fn on_the_default_path_other_users_are_not_trusted() {
        let (ours, root, other) = (getuid(), Uid::ROOT, Uid::from_raw(getuid().as_raw() + 1));
        let shared = PathBuf::from(shared_admin_socket());
        assert_eq!([ours, root, other].map(|user| is_other_user(&shared, user)), [false, false, true]);
        assert!(!is_other_user(Path::new("/run/corecast/admin.sock"), other), "a service has a user of its own");
    }

    #[test]
    fn a_refusal_is_an_error_with_code_and_text() {
        const REPLY: &str = r#"{"id":null,"ok":false,"code":"invalid_channel","error":"not a legal name"}"#;
        let publish = Draft { channels: vec![" ".into()], event: "e".into(), ..Draft::default() };
        let (result, out, _) = run(&publish, false, false, &[REPLY]);
        assert_eq!(result.expect_err("refused").to_string(), "invalid_channel: not a legal name");
        assert_eq!(out, "");
        let (result, out, _) = run(&publish, false, true, &[REPLY]);
        assert!(matches!(result, Err(Error::Refused { .. })));
        assert_eq!(out, format!("{REPLY}\n"));
    }

    #[test]
    fn json_prints_the_lines_as_they_came() {
        let (result, out, got) = run(&ping(), false, true, &[r#"{"id": null, "ok": true}"#]);
        result.expect("ok");
        assert_eq!(out, "{\"id\": null, \"ok\": true}\n");
        assert_eq!(got, ["{\"command\":\"ping\"}\n"]);
    }

    #[test]
    fn all_turns_the_pages_to_the_end() {
        let channels: Request = Channels { limit: Some(1), ..Channels::default() }.into();
        const FIRST: &str = r#"{"id":null,"ok":true,"channels":[{"channel":"a","subscribers":1}],"next":"a"}"#;
        const LAST: &str = r#"{"id":null,"ok":true,"channels":[{"channel":"bcd","subscribers":20}]}"#;
        let (result, out, got) = run(&channels, true, false, &[FIRST, LAST]);
        result.expect("ok");
        assert_eq!(out, "CHANNEL  SUBSCRIBERS\na                  1\nbcd               20\n");
        assert_eq!(got[1], "{\"command\":\"channels\",\"limit\":1,\"after\":\"a\"}\n");
        let (result, out, got) = run(&channels, false, false, &[FIRST]);
        result.expect("ok");
        assert!(out.ends_with("more: --after a, or --all\n"), "{out}");
        assert_eq!(got.len(), 1);
        let (result, _, got) = run(&channels, true, true, &[FIRST, FIRST]);
        result.expect("a cursor that does not move ends the listing");
        assert_eq!(got.len(), 2);
    }

    #[test]
    fn a_history_is_shown_as_it_was_published() {
        const FIRST: &str = "{\"id\":null,\"ok\":true,\"epoch\":\"0f\",\"offset\":12,\"complete\":false,\"messages\":[\
            {\"offset\":7,\"event\":\"\\u0065\",\"data\":{\"a\" : 1.50e999}},\
            {\"offset\":10,\"event\":\"order.paid\",\"data\":\"\\ud83c\u{9b}2J\"}],\"next\":\"0f:10\"}";
        const LAST: &str =
            r#"{"id":null,"ok":true,"epoch":"0f","offset":12,"complete":true,"messages":[{"offset":12,"event":"e"}]}"#;
        let history: Request = History { channel: "a".into(), limit: Some(2), ..History::default() }.into();
        let (result, out, got) = run(&history, true, false, &[FIRST, LAST]);
        result.expect("ok");
        let expected = "\
OFFSET  EVENT       DATA
     7  e           {\"a\" : 1.50e999}
    10  order.paid  \"\\ud83c\u{fffd}2J\"
    12  e
position 0f:12
";
        assert_eq!(out, expected);
        assert_eq!(got[1], "{\"command\":\"history\",\"channel\":\"a\",\"limit\":2,\"after\":\"0f:10\"}\n");
        let (result, out, _) = run(&history, false, true, &[FIRST]);
        result.expect("ok");
        assert_eq!(out, FIRST.replace('\u{9b}', r"\u009b") + "\n");
    }

    #[test]
    fn where_no_server_answers_the_error_names_path_and_remedy() {
        let path = socket_path();
        let error = |path: &Path| match Client::connect(path) {
            Ok(_) => panic!("a server answers"),
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
        let error = client.run(&ping(), false, false, &mut Vec::new()).expect_err("a server that hung up");
        assert!(matches!(error, Error::Broken { .. }), "{error}");
        std::fs::remove_file(path).expect("the socket");
        let (result, ..) = run(&ping(), false, false, &["HTTP/1.1 400 Bad Request"]);
        assert!(result.expect_err("not JSON").to_string().contains("HTTP/1.1 400"));
    }
}
