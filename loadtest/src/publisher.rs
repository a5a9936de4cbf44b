//! The publisher: sends publishes and counts the answers. Publishes are pipelined through one stream. Signed REST requests are
//! the exception: they use several keep-alive connections, with few requests in flight on each. A connection that the server
//! closes after a response is opened again for the next request.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use mio::event::Source;
use mio::{Interest, Registry, Token};

use crate::measure::Tally;
use crate::plan::{Plan, Scenario};
use crate::rest::Requests;
use crate::stamp;
use crate::target::{BODY, Publish};
use crate::template::{Fill, Template};
use crate::wire;

/// The streams that publishes are sent through.
pub struct Publisher {
    lanes: Vec<Lane>,
    /// The lanes that take another request, each as often as it does. Only REST requests count.
    free: Vec<usize>,
    kind: Kind,
    /// Where the streams are registered: to register those that are opened again.
    registered: Option<(Registry, Token)>,
    body: Template,
    data_bytes: usize,
    scratch: (Vec<u8>, Vec<u8>, Vec<u8>),
    input: Vec<u8>,
    /// Publishes answered.
    pub answered: u64,
    /// Publishes refused.
    refused: u64,
}

/// One stream.
struct Lane {
    stream: Box<dyn Stream>,
    out: Vec<u8>,
    written: usize,
    /// The end of the last read, where the mark of an answer may have been cut.
    tail: Vec<u8>,
    /// The server closed the stream, although more was to come.
    is_closed: bool,
    /// Messages of each REST request in flight.
    in_flight: VecDeque<u64>,
    /// The server has said that it closes the stream. It takes no more requests.
    is_closing: bool,
    /// Requests answered since: their places are free again when the stream has ended.
    held: usize,
    /// The stream has ended. The next request opens it again.
    has_ended: bool,
}

/// A Unix or TCP stream.
trait Stream: Read + Write + Source {}

impl Stream for mio::net::UnixStream {}
impl Stream for mio::net::TcpStream {}

enum Kind {
    Lines(Template),
    WebSocket(Template),
    Http { path: Template, host: String },
    Rest(Box<Requests>),
}

impl Publisher {
    /// Connects, and sends the hello that the target requires. Lines go to the admin socket, or without one to `publish_to`;
    /// everything else goes to the server's own address. Gives up after [`PATIENCE`], or once `is_over`.
    pub fn connect(plan: &Plan, data_bytes: usize, is_over: &dyn Fn() -> bool) -> anyhow::Result<Publisher> {
        let Plan { target, address, publish_to, .. } = plan;
        let http = publish_to.unwrap_or(*address);
        let dialer = Dialer { deadline: Instant::now() + PATIENCE, is_over };
        let mut places = 1;
        let (streams, kind): (Vec<Box<dyn Stream>>, Kind) = match &target.publish {
            Publish::Lines { hello, template } => {
                let stream = match (&plan.admin_socket, publish_to) {
                    (Some(path), _) => dialer.unix(path)?,
                    (None, Some(address)) => dialer.tcp(*address, hello.as_ref())?,
                    (None, None) => bail!(NOWHERE),
                };
                (vec![stream], Kind::Lines(template.clone()))
            }
            Publish::WebSocket { template } => {
                let path = target.dialect.path_of(0);
                let request = String::from_utf8(wire::upgrade_request(&address.to_string(), &path))?;
                let stream = dialer.tcp(*address, Some(&(request, "\r\n\r\n".into())))?;
                (vec![stream], Kind::WebSocket(template.clone()))
            }
            Publish::Http { path } => {
                let stream = dialer.tcp(http, None)?;
                (vec![stream], Kind::Http { path: path.clone(), host: address.to_string() })
            }
            Publish::Rest(app) => {
                let connections = match &plan.scenario {
                    Scenario::Flood(flood) if flood.rate.is_none() => (flood.window as usize).min(LANES_MAX),
                    _ => REST_CONNECTIONS,
                };
                let streams = (0..connections).map(|_| dialer.tcp(http, None)).collect::<anyhow::Result<_>>()?;
                places = app.pipeline;
                (streams, Kind::Rest(Box::new(Requests::new(http, app))))
            }
        };
        let lanes: Vec<Lane> = streams.into_iter().map(Lane::new).collect();
        Ok(Publisher {
            free: (0..lanes.len()).cycle().take(lanes.len() * places).collect(),
            lanes,
            kind,
            registered: None,
            body: BODY.into(),
            data_bytes: data_bytes.saturating_sub(target.quoting()),
            scratch: Default::default(),
            input: vec![0; 64 * 1024],
            answered: 0,
            refused: 0,
        })
    }

    /// Whether publishes are answered, so that the next one can wait for it.
    pub fn is_answered(&self) -> bool {
        !matches!(self.kind, Kind::WebSocket(_))
    }

    /// Registers the streams with an event loop, with `token` and the ones after it: at most [`LANES_MAX`].
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            lane.stream.register(registry, Token(token.0 + at), INTEREST)?;
        }
        self.registered = Some((registry.try_clone()?, token));
        Ok(())
    }

    /// Whether another publish can be pushed now: a lane is free, and not too much is queued.
    pub fn has_room(&self) -> bool {
        match self.kind {
            Kind::Rest(_) => !self.free.is_empty(),
            _ => self.pending() <= PENDING_MAX,
        }
    }

    /// Queues one publish; [`Publisher::flush`] sends it.
    pub fn push(&mut self, sequence: u32, time_ns: u64, channel: u32) {
        let (data, body, text) = &mut self.scratch;
        data.clear();
        body.clear();
        text.clear();
        stamp::push_payload(data, sequence, time_ns, self.data_bytes);
        let fill = Fill { channel, data, number: u64::from(sequence), ..Fill::default() };
        self.body.push(body, fill);
        let out = &mut self.lanes[0].out;
        match &mut self.kind {
            Kind::Lines(template) => template.push(out, Fill { body, ..fill }),
            Kind::WebSocket(template) => {
                template.push(text, Fill { body, ..fill });
                wire::push_masked(out, wire::TEXT, text);
            }
            Kind::Http { path, host } => {
                out.extend_from_slice(b"POST ");
                path.push(out, fill);
                let head = format!(" HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n", body.len());
                out.extend_from_slice(head.as_bytes());
                out.extend_from_slice(body);
            }
            Kind::Rest(requests) => {
                if requests.add(fill) {
                    self.request();
                }
            }
        }
    }

    /// Sends the messages that wait for a request, if a lane is free.
    fn request(&mut self) {
        let Kind::Rest(requests) = &mut self.kind else { return };
        let Some(at) = self.free.pop_if(|_| !requests.is_empty()) else { return };
        let lane = &mut self.lanes[at];
        if lane.has_ended
            && let Some((registry, token)) = &self.registered
        {
            lane.reopen(requests.address, registry, Token(token.0 + at));
        }
        lane.in_flight.push_back(requests.push_request(&mut lane.out));
    }

    /// How many of so many publishes wait for their answer.
    fn unanswered(&self, published: u32) -> u64 {
        if self.is_answered() { u64::from(published).saturating_sub(self.answered) } else { 0 }
    }

    /// Whether so many publishes have been sent, and answered by a server that answers them.
    pub fn is_done(&self, published: u32) -> bool {
        self.unanswered(published) == 0 && self.pending() == 0
    }

    /// Adds the refused and unanswered ones of so many publishes to a tally.
    pub fn conclude(&self, published: u32, tally: &mut Tally) {
        tally.refused += self.refused;
        tally.unanswered += self.unanswered(published);
        if self.lanes.iter().any(|lane| lane.is_closed) {
            tally.note("the server closed the publisher's connection");
        }
    }

    /// Queued bytes that the server has not taken yet.
    pub fn pending(&self) -> usize {
        self.lanes.iter().map(|lane| lane.out.len() - lane.written).sum()
    }

    /// Sends what the streams accept.
    pub fn flush(&mut self) {
        self.request();
        self.lanes.iter_mut().filter(|lane| !lane.out.is_empty()).for_each(Lane::flush);
    }

    /// Reads and counts the answers on stream number `at`.
    pub fn read_answers(&mut self, at: usize) {
        let Some(lane) = self.lanes.get_mut(at) else { return };
        loop {
            let is_rest = matches!(self.kind, Kind::Rest(_));
            match lane.stream.read(&mut self.input) {
                Ok(got) if got > 0 => {
                    let (answers, refusals) = lane.count(&self.kind, &self.input[..got]);
                    let (messages, places) = if is_rest { lane.settle(answers) } else { (answers, 0) };
                    self.free.extend(std::iter::repeat_n(at, places));
                    self.answered += messages;
                    self.refused += messages * refusals / answers.max(1);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                _ => {
                    let places = lane.end(is_rest);
                    self.free.extend(std::iter::repeat_n(at, places));
                    return;
                }
            }
        }
    }
}

impl Lane {
    fn new(stream: Box<dyn Stream>) -> Lane {
        Lane {
            stream,
            out: Vec::new(),
            written: 0,
            tail: Vec::new(),
            is_closed: false,
            in_flight: VecDeque::new(),
            is_closing: false,
            held: 0,
            has_ended: false,
        }
    }

    /// Connects again, after the end of the stream.
    fn reopen(&mut self, address: SocketAddr, registry: &Registry, token: Token) {
        let opened = mio::net::TcpStream::connect(address).and_then(|mut stream| {
            stream.set_nodelay(true)?;
            stream.register(registry, token, INTEREST)?;
            Ok(stream)
        });
        match opened {
            Ok(stream) => *self = Lane { is_closed: self.is_closed, ..Lane::new(Box::new(stream)) },
            Err(_) => self.is_closed = true,
        }
    }

    /// Records the end of the stream. Returns how many places for REST requests are free again: those in flight are lost.
    fn end(&mut self, is_rest: bool) -> usize {
        self.is_closed |= !is_rest || !self.in_flight.is_empty();
        self.has_ended = true;
        self.is_closing = false;
        let lost = std::mem::take(&mut self.in_flight).len();
        std::mem::take(&mut self.held) + lost
    }

    /// Settles answered REST requests. Returns the number of their messages, and how many places for requests are free again.
    fn settle(&mut self, answers: u64) -> (u64, usize) {
        let settled = self.in_flight.len().min(answers as usize);
        let messages = self.in_flight.drain(..settled).sum();
        if self.is_closing {
            self.held += settled;
            return (messages, 0);
        }
        (messages, settled)
    }

    fn flush(&mut self) {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.written > 1 << 20 {
                        self.out.drain(..self.written);
                        self.written = 0;
                    }
                    return;
                }
                Err(_) => {
                    self.is_closed = true;
                    return;
                }
            }
        }
        self.out.clear();
        self.written = 0;
    }

    /// The number of answers in `input`, and of refusals among them.
    fn count(&mut self, kind: &Kind, input: &[u8]) -> (u64, u64) {
        let head = input.len().min(TAIL);
        let known = self.tail.len();
        self.tail.extend_from_slice(&input[..head]);
        let tail = &self.tail;
        let count = |mark: &[u8]| {
            let within = |bytes: &[u8]| memchr::memmem::find_iter(bytes, mark).count() as u64;
            // Marks across two reads are in `tail`, but in neither part of it.
            within(input) + within(tail) - within(&tail[..known]) - within(&tail[known..])
        };
        let (answered, refused) = match kind {
            Kind::Lines(_) => (count(b"\n"), count(b"\"ok\":false")),
            Kind::WebSocket(_) => (0, 0),
            Kind::Http { .. } | Kind::Rest(_) => {
                let answered = count(b"HTTP/1.1 ");
                let refused = answered.saturating_sub(count(b"HTTP/1.1 2"));
                self.is_closing |= count(b"onnection: close") > 0;
                (answered, refused)
            }
        };
        self.tail.clear();
        self.tail.extend_from_slice(&input[input.len() - head..]);
        (answered, refused)
    }
}

/// Connects within a deadline.
struct Dialer<'a> {
    deadline: Instant,
    is_over: &'a dyn Fn() -> bool,
}

impl Dialer<'_> {
    fn unix(&self, path: &Path) -> anyhow::Result<Box<dyn Stream>> {
        let what = || format!("cannot publish through {}", path.display());
        loop {
            match mio::net::UnixStream::connect(path) {
                Ok(stream) => return Ok(Box::new(stream)),
                // The server's backlog is full.
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.check().with_context(what)?,
                Err(error) => return Err(error).with_context(what),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn tcp(&self, address: SocketAddr, hello: Option<&(String, String)>) -> anyhow::Result<Box<dyn Stream>> {
        let what = || format!("cannot connect the publisher to {address}");
        let mut stream = loop {
            match TcpStream::connect_timeout(&address, SLICE * 5) {
                Ok(stream) => break stream,
                Err(error) if error.kind() == ErrorKind::TimedOut => self.check().with_context(what)?,
                Err(error) => return Err(error).with_context(what),
            }
        };
        stream.set_nodelay(true)?;
        if let Some((hello, answer)) = hello {
            stream.set_read_timeout(Some(SLICE))?;
            stream.write_all(hello.as_bytes())?;
            let mut seen = Vec::new();
            while memchr::memmem::find(&seen, answer.as_bytes()).is_none() {
                let mut piece = [0; 1024];
                match stream.read(&mut piece) {
                    Ok(0) => bail!("the server closed the publisher's connection"),
                    Ok(got) => seen.extend_from_slice(&piece[..got]),
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                    Err(error) => return Err(error).with_context(what),
                }
                self.check().with_context(what)?;
            }
        }
        stream.set_nonblocking(true)?;
        Ok(Box::new(mio::net::TcpStream::from_std(stream)))
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(Instant::now() < self.deadline, "no answer within {PATIENCE:?}");
        ensure!(!(self.is_over)(), "interrupted");
        Ok(())
    }
}

/// Limit of streams of a publisher.
pub const LANES_MAX: usize = 256;
/// Connections for signed requests in an open loop. In a closed loop there is one for each publish in flight.
const REST_CONNECTIONS: usize = 16;
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);
/// Limit of queued bytes. Publishes that are due beyond it wait unencoded.
const PENDING_MAX: usize = 4 << 20;
/// Bytes kept of a read: at least the length of the longest mark, minus one.
const TAIL: usize = 16;
/// Time limit for connecting.
const PATIENCE: Duration = Duration::from_secs(15);
/// Interval of the checks whether the run is over.
const SLICE: Duration = Duration::from_millis(200);
/// The error for a target that is published to by lines, without an address.
pub const NOWHERE: &str = "no address to publish to: give --admin-socket PATH or --publish-to HOST:PORT";
