//! The publisher: sends publishes and counts the answers. Publishes are pipelined through one stream. Signed REST requests are
//! the exception: they use several keep-alive connections, with one request in flight on each.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use mio::event::Source;
use mio::{Interest, Registry, Token};

use crate::plan::Plan;
use crate::rest::Signer;
use crate::stamp;
use crate::target::{BODY, Publish};
use crate::template::{Fill, Template};
use crate::wire;

/// The streams that publishes are sent through.
pub struct Publisher {
    lanes: Vec<Lane>,
    /// Lanes without a request in flight. Only REST requests take one each.
    free: Vec<usize>,
    kind: Kind,
    body: Template,
    data_bytes: usize,
    scratch: (Vec<u8>, Vec<u8>, Vec<u8>),
    input: Vec<u8>,
    /// Publishes answered.
    pub answered: u64,
    /// Publishes refused.
    pub refused: u64,
}

/// One stream.
struct Lane {
    stream: Stream,
    out: Vec<u8>,
    written: usize,
    /// The end of the last read, where the mark of an answer may have been cut.
    tail: Vec<u8>,
    /// The server closed the stream.
    is_closed: bool,
}

enum Stream {
    Unix(mio::net::UnixStream),
    Tcp(mio::net::TcpStream),
}

enum Kind {
    Lines(Template),
    WebSocket(Template),
    Http { path: Template, host: String },
    Rest { template: Template, signer: Box<Signer> },
}

impl Publisher {
    /// Connects, and sends the hello that the target requires. Lines go to the admin socket, or without one to `publish_to`;
    /// everything else goes to the server's own address. Gives up after [`PATIENCE`], or once `is_over`.
    pub fn connect(plan: &Plan, data_bytes: usize, is_over: &dyn Fn() -> bool) -> anyhow::Result<Publisher> {
        let Plan { target, address, publish_to, .. } = plan;
        let http = publish_to.unwrap_or(*address);
        let dialer = Dialer { deadline: Instant::now() + PATIENCE, is_over };
        let (streams, kind) = match &target.publish {
            Publish::Nowhere => bail!("the target {} cannot be published to", target.name),
            Publish::Lines { hello, template } => {
                let stream = match (&plan.admin_socket, publish_to) {
                    (Some(path), _) => Stream::Unix(dialer.unix(path)?),
                    (None, Some(address)) => Stream::Tcp(dialer.tcp(*address, hello.as_ref())?),
                    (None, None) => bail!(NOWHERE),
                };
                (vec![stream], Kind::Lines(template.clone()))
            }
            Publish::WebSocket { template } => {
                let path = target.path_of(0);
                let request = String::from_utf8(wire::upgrade_request(&address.to_string(), &path))?;
                let stream = dialer.tcp(*address, Some(&(request, "\r\n\r\n".into())))?;
                (vec![Stream::Tcp(stream)], Kind::WebSocket(template.clone()))
            }
            Publish::Http { path } => {
                let stream = Stream::Tcp(dialer.tcp(http, None)?);
                (vec![stream], Kind::Http { path: path.clone(), host: address.to_string() })
            }
            Publish::Rest { template, app_id, key, secret } => {
                let connect = |_| Ok(Stream::Tcp(dialer.tcp(http, None)?));
                let streams = (0..REST_CONNECTIONS).map(connect).collect::<anyhow::Result<_>>()?;
                let signer = Box::new(Signer::new(http, app_id, key, secret));
                (streams, Kind::Rest { template: template.clone(), signer })
            }
        };
        let lanes: Vec<Lane> = streams.into_iter().map(Lane::new).collect();
        Ok(Publisher {
            free: (0..lanes.len()).collect(),
            lanes,
            kind,
            body: BODY.into(),
            data_bytes,
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
        let interest = Interest::READABLE | Interest::WRITABLE;
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            match &mut lane.stream {
                Stream::Unix(stream) => stream.register(registry, Token(token.0 + at), interest)?,
                Stream::Tcp(stream) => stream.register(registry, Token(token.0 + at), interest)?,
            }
        }
        Ok(())
    }

    /// Whether another publish can be pushed now: a lane is free, and not too much is queued.
    pub fn has_room(&self) -> bool {
        match self.kind {
            Kind::Rest { .. } => !self.free.is_empty(),
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
            Kind::Rest { template, signer } => {
                template.push(text, fill);
                let lane = self.free.pop().unwrap_or(0);
                signer.push_request(&mut self.lanes[lane].out, text);
            }
        }
    }

    /// Queued bytes that the server has not taken yet.
    pub fn pending(&self) -> usize {
        self.lanes.iter().map(|lane| lane.out.len() - lane.written).sum()
    }

    /// Whether the server has closed one of the streams.
    pub fn is_closed(&self) -> bool {
        self.lanes.iter().any(|lane| lane.is_closed)
    }

    /// Sends what the streams accept.
    pub fn flush(&mut self) {
        self.lanes.iter_mut().filter(|lane| !lane.out.is_empty()).for_each(Lane::flush);
    }

    /// Reads and counts the answers on stream number `at`.
    pub fn read_answers(&mut self, at: usize) {
        let Some(lane) = self.lanes.get_mut(at) else { return };
        loop {
            match lane.stream.read(&mut self.input) {
                Ok(0) => {
                    lane.is_closed = true;
                    return;
                }
                Ok(got) => {
                    let (answered, refused) = lane.count(&self.kind, &self.input[..got]);
                    self.answered += answered;
                    self.refused += refused;
                    if answered > 0 && matches!(self.kind, Kind::Rest { .. }) {
                        self.free.push(at);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    lane.is_closed |= error.kind() != ErrorKind::WouldBlock;
                    return;
                }
            }
        }
    }
}

impl Lane {
    fn new(stream: Stream) -> Lane {
        Lane { stream, out: Vec::new(), written: 0, tail: Vec::new(), is_closed: false }
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
            Kind::Http { .. } | Kind::Rest { .. } => {
                let answered = count(b"HTTP/1.1 ");
                (answered, answered.saturating_sub(count(b"HTTP/1.1 2")))
            }
        };
        self.tail.clear();
        self.tail.extend_from_slice(&input[input.len() - head..]);
        (answered, refused)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Connects within a deadline.
struct Dialer<'a> {
    deadline: Instant,
    is_over: &'a dyn Fn() -> bool,
}

impl Dialer<'_> {
    fn unix(&self, path: &Path) -> anyhow::Result<mio::net::UnixStream> {
        let what = || format!("cannot publish through {}", path.display());
        loop {
            match mio::net::UnixStream::connect(path) {
                Ok(stream) => return Ok(stream),
                // The server's backlog is full.
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.check().with_context(what)?,
                Err(error) => return Err(error).with_context(what),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn tcp(&self, address: SocketAddr, hello: Option<&(String, String)>) -> anyhow::Result<mio::net::TcpStream> {
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
        Ok(mio::net::TcpStream::from_std(stream))
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(Instant::now() < self.deadline, "no answer within {PATIENCE:?}");
        ensure!(!(self.is_over)(), "interrupted");
        Ok(())
    }
}

/// Limit of streams of a publisher.
pub const LANES_MAX: usize = 16;
/// Keep-alive connections for signed requests.
const REST_CONNECTIONS: usize = LANES_MAX;
/// Limit of queued bytes. Publishes that are due beyond it wait unencoded.
const PENDING_MAX: usize = 4 << 20;
/// Bytes kept of a read: at least the length of the longest mark, minus one.
const TAIL: usize = 16;
/// Time limit for connecting.
const PATIENCE: Duration = Duration::from_secs(5);
/// Interval of the checks whether the run is over.
const SLICE: Duration = Duration::from_millis(200);
/// The error for a target that is published to by lines, without an address.
pub const NOWHERE: &str = "there is no address to publish to: give --admin-socket PATH or --publish-to HOST:PORT";
