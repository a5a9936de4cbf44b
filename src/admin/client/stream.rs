//! `publish --stdin`: lines from a reader become pipelined publishes.
//!
//! ```text
//!   pump thread    input line → check → push its number → write `{"id":N,"command":"publish",` + the line's own bytes
//!   this thread    reply line → pop the number of the line it answers (replies come in request order) → count
//! ```
//!
//! The queue of numbers is bounded, and so is the number of unanswered lines. Neither thread waits for both directions:
//! while the pump blocks on a full socket, this thread still reads replies, which lets the server continue to read. The
//! pump's last request is a `ping`; its reply shows that every line before it was answered.

use super::{Client, Error};
use crate::api::Refusal;
use crate::api::publish::PUBLISH;
use crate::protocol::json::Reader;
use serde::Deserialize;
use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

/// Lines that may wait for their replies: several times the server's own limit, so that the server never waits for input.
const UNANSWERED_MAX: usize = 8192;

/// Bytes read or written at once. A write is smaller only if the input has no more data for now.
const BUFFER_BYTES: usize = 256 * 1024;

/// Refusals that are printed individually.
const REFUSALS_TOLD_MAX: usize = 10;

/// The result of the lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines that the server accepted.
    pub published: u64,
    /// Sum of the subscribers that they were published to.
    pub deliveries: u64,
    /// Lines that were not requests, or that the server refused.
    pub refused: Refusals,
}

/// Lines that were not published: their number, and the first of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Number of refused lines.
    pub count: u64,
    /// Line numbers, counted from 1, and the reasons.
    pub first: Vec<(u64, String)>,
}

#[derive(Deserialize)]
struct Reply<'a> {
    ok: bool,
    #[serde(default)]
    subscribers: u64,
    #[serde(borrow, default)]
    code: Cow<'a, str>,
    #[serde(borrow, default)]
    error: Cow<'a, str>,
}

/// A request that the pump has written.
enum Sent {
    /// The publish of this line.
    Line(u64),
    /// The last ping, at the end of the input.
    End(Box<Ended>),
}

struct Ended {
    refused: Refusals,
    error: Option<io::Error>,
}

impl Client {
    /// Publishes every line of `input`. With `json`, prints the reply lines as received; their `id` is the number of
    /// the line. A refused line does not stop the others. Returns early if the server closes the connection, even while
    /// `input` is silent.
    pub fn publish_lines(
        self,
        input: impl Read + Send + 'static,
        json: bool,
        out: &mut impl Write,
    ) -> Result<Summary, Error> {
        let socket = self.stream.get_ref();
        // A busy server may be slow: it does not read faster than it delivers.
        let writer = socket
            .set_read_timeout(None)
            .and_then(|()| socket.set_write_timeout(None))
            .and_then(|()| socket.try_clone())
            .map_err(|error| self.broken(error.to_string()))?;
        let (sent, unanswered) = sync_channel(UNANSWERED_MAX);
        let pump = thread::Builder::new().spawn(move || pump(input, writer, &sent));
        pump.map_err(|error| Error::Input { error, summary: Summary::default() })?;
        self.collect(&unanswered, json, out)
    }

    fn collect(mut self, unanswered: &Receiver<Sent>, json: bool, out: &mut impl Write) -> Result<Summary, Error> {
        let mut summary = Summary::default();
        let mut line = Vec::new();
        loop {
            if json && memchr::memchr(b'\n', self.stream.buffer()).is_none() {
                out.flush().map_err(Error::Output)?;
            }
            line.clear();
            let read = self.stream.read_until(b'\n', &mut line);
            if !line.ends_with(b"\n") {
                return Err(self.cut_off(read.err(), unanswered, &summary));
            }
            let Ok(reply) = serde_json::from_slice::<Reply>(&line) else {
                let text = String::from_utf8_lossy(&line);
                return Err(self.broken(format!("its reply is not valid: {}", text.trim_end())));
            };
            // The number was pushed before the line was written, so it is available before the reply.
            let number = match unanswered.recv() {
                Ok(Sent::Line(number)) => number,
                Ok(Sent::End(ended)) => {
                    summary.refused.absorb(ended.refused);
                    return match ended.error {
                        None => Ok(summary),
                        Some(error) => Err(Error::Input { error, summary }),
                    };
                }
                Err(_) => return Err(self.broken("it sent a reply without a request".into())),
            };
            if reply.ok {
                summary.published += 1;
                summary.deliveries += reply.subscribers;
            } else {
                summary.refused.note(number, || format!("{}: {}", reply.code, reply.error));
            }
            if json {
                out.write_all(&line).map_err(Error::Output)?;
            }
        }
    }

    fn cut_off(&self, error: Option<io::Error>, unanswered: &Receiver<Sent>, summary: &Summary) -> Error {
        let why = error.map_or_else(|| "it closed the connection".to_owned(), |error| error.to_string());
        let from = match unanswered.try_recv() {
            Ok(Sent::Line(number)) => format!(
                "; lines from {number} on were not answered and may or may not have been published (a line beyond the \
                 server's admin-line-limit ends the connection)"
            ),
            _ => String::new(),
        };
        self.broken(format!("{why} after {} published lines{from}", summary.published))
    }
}

/// Reads the input to its end. Stops early if the socket is closed, which the thread that reads replies notices too.
fn pump(input: impl Read, socket: UnixStream, sent: &SyncSender<Sent>) {
    let mut pump = Pump {
        output: BufWriter::with_capacity(BUFFER_BYTES, socket),
        reader: Reader::default(),
        sent,
        number: 0,
        refused: Refusals::default(),
    };
    let mut input = BufReader::with_capacity(BUFFER_BYTES, input);
    let mut spill = Vec::new();
    let error = loop {
        if let Some(end) = memchr::memchr(b'\n', input.buffer()) {
            if pump.line(&input.buffer()[..end]).is_err() {
                return;
            }
            input.consume(end + 1);
            continue;
        }
        // The input may be a terminal, so lines are sent before the next read.
        if pump.output.flush().is_err() {
            return;
        }
        spill.clear();
        match input.read_until(b'\n', &mut spill) {
            Ok(0) => break None,
            Ok(_) => {
                if pump.line(&spill).is_err() {
                    return;
                }
            }
            Err(error) => break Some(error),
        }
    };
    let refused = pump.refused;
    let ended = sent.send(Sent::End(Box::new(Ended { refused, error })));
    if ended.is_ok() {
        // A failure needs no handling: the other thread notices that the socket is closed.
        let _ = pump.output.write_all(b"{\"command\":\"ping\"}\n");
        let _ = pump.output.flush();
    }
}

struct Pump<'a> {
    output: BufWriter<UnixStream>,
    reader: Reader,
    sent: &'a SyncSender<Sent>,
    number: u64,
    refused: Refusals,
}

impl Pump<'_> {
    /// Takes one line. An error means that no further line can be sent.
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        self.number += 1;
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let members = match members(line, &mut self.reader) {
            Ok(members) => members,
            Err(why) => {
                self.refused.note(self.number, || format!("malformed_request: {why}"));
                return Ok(());
            }
        };
        match self.sent.try_send(Sent::Line(self.number)) {
            Ok(()) => {}
            Err(TrySendError::Full(number)) => {
                // Lines must be sent before the pump waits for their replies.
                self.output.flush()?;
                self.sent.send(number).map_err(|_| io::ErrorKind::BrokenPipe)?;
            }
            Err(TrySendError::Disconnected(_)) => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        write!(self.output, "{{\"id\":{},\"command\":\"publish\",", self.number)?;
        self.output.write_all(members.as_bytes())?;
        self.output.write_all(b"\n")
    }
}

/// The members of a line, up to and including the closing brace. Only members of a publish are allowed, so none clashes
/// with what is written before them. The server checks their values.
fn members<'a>(line: &'a [u8], reader: &mut Reader) -> Result<&'a str, String> {
    let text = std::str::from_utf8(line).map_err(|_| "the line is not valid UTF-8")?;
    let document = reader.read(text).ok_or("the line is not valid JSON")?;
    let mut has_event = false;
    for (key, _) in document.object().ok_or("the line must be a JSON object")? {
        match key.text().as_deref() {
            Some("event") => has_event = true,
            Some(name) if PUBLISH.members.contains(&name) => {}
            name => {
                let refusal = Refusal::unknown_member(name.unwrap_or(key.raw), &PUBLISH, &[]);
                return Err(refusal.text().into_owned());
            }
        }
    }
    match has_event {
        true => Ok(&document.value().raw[1..]),
        false => Err("event is missing".into()),
    }
}

impl Refusals {
    fn note(&mut self, number: u64, why: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < REFUSALS_TOLD_MAX {
            self.first.push((number, why()));
        }
    }

    fn absorb(&mut self, other: Refusals) {
        self.count += other.count;
        self.first.extend(other.first);
        self.first.sort_by_key(|(number, _)| *number);
        self.first.truncate(REFUSALS_TOLD_MAX);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { published, deliveries, refused } = self;
        write!(f, "published {published} ({deliveries} deliveries), refused {}", refused.count)?;
        for (number, why) in &refused.first {
            write!(f, "\n  line {number}: {why}")?;
        }
        match refused.count - refused.first.len() as u64 {
            0 => Ok(()),
            rest => write!(f, "\n  and {rest} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::socket_path;
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    /// A server that reads up to `batch` available lines before it answers them. It refuses lines that contain "bad",
    /// and closes the connection after `lines_max` lines.
    fn server(batch: usize, lines_max: usize, received: Option<Sender<String>>) -> PathBuf {
        let path = socket_path();
        let listener = UnixListener::bind(&path).expect("a socket");
        thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
            let mut replies = Vec::new();
            let mut line = String::new();
            for number in 1..=lines_max {
                line.clear();
                if reader.read_line(&mut line).expect("a line") == 0 {
                    return;
                }
                if let Some(received) = &received {
                    received.send(line.trim_end().to_owned()).expect("a listening test");
                }
                let id = line.split([':', ',']).nth(1).expect("an id comes first");
                if id == "\"ping\"}\n" {
                    writeln!(replies, r#"{{"id":null,"ok":true}}"#)
                } else if line.contains("bad") {
                    writeln!(replies, r#"{{"id":{id},"ok":false,"code":"invalid_channel","error":"bad"}}"#)
                } else {
                    writeln!(replies, r#"{{"id":{id},"ok":true,"subscribers":2}}"#)
                }
                .expect("a vector");
                if number % batch == 0 || reader.buffer().is_empty() {
                    (&stream).write_all(&replies).expect("a client that reads");
                    replies.clear();
                }
            }
        });
        path
    }

    fn publish(path: &PathBuf, input: impl Read + Send + 'static, json: bool) -> (Result<Summary, Error>, String) {
        let mut out = Vec::new();
        let client = Client::connect(path).expect("the server");
        std::fs::remove_file(path).expect("the socket");
        let result = client.publish_lines(input, json, &mut out);
        (result, String::from_utf8(out).expect("UTF-8"))
    }

    #[test]
    fn lines_go_out_as_they_are_and_refusals_name_theirs() {
        let (received, lines) = channel();
        let input = "\
{\"channel\":\"a\",\"event\":\"e\",\"data\":{\"n\": 1.0e+2, \"s\":\"\\u00e9\"}}\n\
\n\
{\"channels\":[\"a\",\"b\"],\"event\":\"e\",\"data\":null}\r\n\
{\"channel\":\"bad\",\"event\":\"e\"}\n\
{\"channel\":\"a\"}\n\
nonsense\n\
[1,2,3,4,5]\n\
{\"channel\":\"a\",\"event\":\"e\",\"command\":\"disconnect\"}\n\
  {\"channel\":\"a\",\"event\":\"e\",\"exclude\":\"1.2\"}\n\
{\"event\":\"x\",\"ch\\u0061nnel\":\"a\",\"event\":\"e\",\"data\":[1e999,\"\\ud83c\"]}\n\
{\"channel\":\"a\",\"event\":\"e\",\"\\ud83c\":1}\n\
\u{c}{\"channel\":\"a\",\"event\":\"e\"}\n\
\u{feff}{\"channel\":\"a\",\"event\":\"e\"}";
        let (summary, out) = publish(&server(1, 100, Some(received)), input.as_bytes(), true);
        let summary = summary.expect("a summary");
        assert_eq!((summary.published, summary.deliveries, summary.refused.count), (4, 8, 8));
        let numbers: Vec<u64> = summary.refused.first.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [4, 5, 6, 7, 8, 11, 12, 13]);
        let told = summary.to_string();
        assert!(told.starts_with("published 4 (8 deliveries), refused 8\n  line 4: invalid_channel: bad\n"), "{told}");
        assert!(told.contains("line 5: malformed_request: event is missing"), "{told}");
        assert!(told.contains("line 8: malformed_request: publish has no member \"command\""), "{told}");
        assert_eq!(out.lines().count(), 5);
        let got: Vec<String> = lines.try_iter().collect();
        assert_eq!(
            got,
            [
                r#"{"id":1,"command":"publish","channel":"a","event":"e","data":{"n": 1.0e+2, "s":"\u00e9"}}"#,
                r#"{"id":3,"command":"publish","channels":["a","b"],"event":"e","data":null}"#,
                r#"{"id":4,"command":"publish","channel":"bad","event":"e"}"#,
                r#"{"id":9,"command":"publish","channel":"a","event":"e","exclude":"1.2"}"#,
                r#"{"id":10,"command":"publish","event":"x","ch\u0061nnel":"a","event":"e","data":[1e999,"\ud83c"]}"#,
                r#"{"command":"ping"}"#,
            ]
        );
    }

    /// Far more than the window, buffers and sockets hold, in both directions.
    #[test]
    fn a_long_stream_never_locks_up() {
        const LINES: usize = 60_000;
        let line = format!("{{\"channel\":\"a\",\"event\":\"e\",\"data\":\"{}\"}}\n", "x".repeat(100));
        let input = io::Cursor::new(line.repeat(LINES));
        let (summary, _) = publish(&server(500, usize::MAX, None), input, false);
        let summary = summary.expect("a summary");
        assert_eq!((summary.published, summary.refused.count), (LINES as u64, 0));
        let (summary, _) = publish(&server(1, usize::MAX, None), io::Cursor::new("?\n".repeat(LINES)), false);
        let summary = summary.expect("a summary");
        assert_eq!((summary.published, summary.refused.count), (0, LINES as u64));
        assert!(summary.to_string().ends_with("and 59990 more"), "{summary}");
    }

    #[test]
    fn a_line_goes_out_at_once_while_the_input_stays_open() {
        let (received, lines) = channel();
        let path = server(1, 100, Some(received));
        let (mut typing, input) = UnixStream::pair().expect("a pair");
        let publishing = thread::spawn(move || publish(&path, input, false).0);
        for number in 1..=3 {
            writeln!(typing, "{{\"channel\":\"a\",\"event\":\"e\"}}").expect("an input that is read");
            let line = lines.recv_timeout(Duration::from_secs(60)).expect("the line, before the input ends");
            assert!(line.starts_with(&format!("{{\"id\":{number},")), "{line}");
        }
        drop(typing);
        let summary = publishing.join().expect("no panic").expect("a summary");
        assert_eq!(summary.published, 3);
    }

    #[test]
    fn a_server_that_hangs_up_ends_it_though_the_input_is_silent() {
        let path = server(1, 2, None);
        let (mut typing, input) = UnixStream::pair().expect("a pair");
        typing.write_all("{\"channel\":\"a\",\"event\":\"e\"}\n".repeat(3).as_bytes()).expect("room");
        let (result, _) = publish(&path, input, false);
        let text = result.expect_err("cut off").to_string();
        assert!(text.contains("after 2 published lines; lines from 3 on"), "{text}");
    }

    #[test]
    fn an_empty_input_publishes_nothing() {
        let (summary, out) = publish(&server(1, 100, None), io::empty(), true);
        assert_eq!(summary.expect("a summary"), Summary::default());
        assert_eq!(out, "");
    }
}
