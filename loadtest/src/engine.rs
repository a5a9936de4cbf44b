//! The engine: one epoll loop with many client connections. It handles WebSockets; a scenario handles the messages, as a
//! [`Handler`]. All connections share one read buffer; an idle connection holds no buffer.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use rustls::ClientConfig;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::clock::now_ns;
use crate::stream::{Stream, client_config};
use crate::target::Target;
use crate::wire::{self, Upgrade};

/// The scenario, as the engine calls it. Every call may close connections and open new ones. The number of a closed
/// connection is not reused within the turn.
pub trait Handler {
    /// The target's greeting, right before [`Handler::opened`].
    fn greeted(&mut self, _id: usize, _greeting: &[u8]) {}
    /// The connection is open: upgraded, and greeted if the target greets. That took `connect_ns`.
    fn opened(&mut self, net: &mut Net, id: usize, connect_ns: u64);
    /// A data frame. `now` is the time at which it was read.
    fn frame(&mut self, net: &mut Net, id: usize, payload: &[u8], now: u64);
    /// All frames of one read have been passed.
    fn read_done(&mut self, _net: &mut Net, _id: usize, _now: u64) {}
    /// The connection has ended, other than by [`Net::close`].
    fn closed(&mut self, net: &mut Net, id: usize, why: Ended);
    /// A descriptor registered by the scenario itself is ready.
    fn other(&mut self, _net: &mut Net, _token: Token) {}
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It never opened.
    Refused(String),
    /// It was open; with the close code, if the server sent one.
    Closed(Option<u16>),
}

/// Tokens from here up belong to the scenario: two, and one for each stream of a publisher.
pub const TOKEN_MIN: usize = usize::MAX - 511;
/// Limit of reads from one connection in a turn, so that a connection with endless data does not block the others.
const READS_MAX: usize = 64;
/// A connection whose frame is longer is closed.
const FRAME_MAX: usize = 64 << 20;
/// The number of source addresses in 127.0.0.0/8.
const SOURCES: u32 = 250 * 250 * 250;

/// The connections of one thread.
pub struct Net {
    poll: Poll,
    events: Option<Events>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Numbers closed in this turn. They are free from the next turn on, when no event refers to them.
    freed: Vec<usize>,
    /// Connections that could not be started; reported in the next turn.
    failed: Vec<(usize, String)>,
    /// Connections with more to read than one turn allows. Edge-triggered events do not report them again.
    unread: Vec<usize>,
    buffer: Vec<u8>,
    /// Encrypted input.
    scratch: Vec<u8>,
    tls: Option<Arc<ClientConfig>>,
    address: SocketAddr,
    target: Arc<Target>,
    /// The upgrade request, and the path that it asks for.
    request: (String, Vec<u8>),
    /// The number of the run's first source address.
    source_base: u32,
    started: u32,
    /// Connections that are open.
    pub open: usize,
    /// Connections that are opening.
    pub opening: usize,
    /// Bytes read.
    pub bytes_read: u64,
    /// Reads that returned something.
    pub reads: u64,
}

struct Connection {
    stream: Stream,
    phase: Phase,
    started_ns: u64,
    channel: u32,
    /// The beginning of a frame whose rest has not arrived.
    rest: Vec<u8>,
    /// Output that the socket has not accepted yet.
    out: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Upgrading,
    Greeting,
    Open,
}

impl Net {
    /// An event loop without connections.
    pub fn new(address: SocketAddr, target: Arc<Target>) -> io::Result<Net> {
        Ok(Net {
            poll: Poll::new()?,
            events: Some(Events::with_capacity(1024)),
            connections: Vec::new(),
            free: Vec::new(),
            freed: Vec::new(),
            failed: Vec::new(),
            unread: Vec::new(),
            buffer: vec![0; 512 * 1024],
            scratch: Vec::new(),
            tls: target.tls.map(client_config).transpose()?,
            address,
            request: Default::default(),
            target,
            source_base: fastrand::u32(..SOURCES),
            started: 0,
            open: 0,
            opening: 0,
            bytes_read: 0,
            reads: 0,
        })
    }

    /// The registry for the descriptors of a scenario, with tokens from [`TOKEN_MIN`] up.
    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Starts a connection and returns its number. Numbers are small, and reused after a close. `channel` is for targets that
    /// subscribe by path.
    pub fn open(&mut self, channel: u32) -> usize {
        let id = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        match self.connect(id, channel) {
            Ok(connection) => {
                self.connections[id] = Some(connection);
                self.opening += 1;
            }
            // It counts as opening until it is reported; a loop that opens connections up to a number must end.
            Err(error) => {
                self.opening += 1;
                self.failed.push((id, error.to_string()));
            }
        }
        id
    }

    fn connect(&mut self, id: usize, channel: u32) -> io::Result<Connection> {
        let started_ns = now_ns();
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if let Some(source) = self.source() {
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        match socket.connect(&self.address.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        let mut stream = TcpStream::from_std(std::net::TcpStream::from(socket));
        let mut phase = Phase::Connecting;
        let mut out = Vec::new();
        if self.tls.is_none() {
            // On loopback the connection is established by now, although connect returned EINPROGRESS.
            let request = self.request(id, channel);
            match stream.write(request) {
                Ok(written) => (phase, out) = (Phase::Upgrading, request[written..].to_vec()),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {}
                Err(error) => return Err(error),
            }
        }
        self.poll.registry().register(&mut stream, Token(id), Interest::READABLE | Interest::WRITABLE)?;
        let stream = Stream::new(stream, self.tls.as_ref())?;
        Ok(Connection { stream, phase, started_ns, channel, rest: Vec::new(), out })
    }

    /// The upgrade request. Most scenarios have one path for all connections.
    fn request(&mut self, id: usize, channel: u32) -> &[u8] {
        let path = self.target.dialect(id).path_of(channel);
        if self.request.0 != path {
            let request = wire::upgrade_request(&self.address.to_string(), &path);
            self.request = (path, request);
        }
        &self.request.1
    }

    /// Another source address for every thousand connections, beginning at a random one. An address has some 28 000 ports;
    /// those in TIME_WAIT are taken for a minute, and the kernel's search for a free one takes milliseconds.
    fn source(&mut self) -> Option<Ipv4Addr> {
        self.started += 1;
        match self.address.ip() {
            IpAddr::V4(ip) if ip.is_loopback() => {
                let number = (self.source_base + self.started / 1000) % SOURCES;
                let [a, b, c] = [number / 62_500, number / 250 % 250, number % 250].map(|n| n as u8 + 1);
                Some(Ipv4Addr::new(127, a, b, c))
            }
            _ => None,
        }
    }

    /// Whether this connection still exists.
    pub fn is_alive(&self, id: usize) -> bool {
        self.connections.get(id).is_some_and(Option::is_some)
    }

    /// Sends encoded frames. What the socket does not accept is kept and sent later.
    pub fn send(&mut self, id: usize, frames: &[u8]) {
        let Some(connection) = self.connections.get_mut(id).and_then(Option::as_mut) else {
            return;
        };
        let mut written = 0;
        if connection.out.is_empty() {
            // An error is also reported as an event, and handled there.
            written = connection.stream.write(frames).unwrap_or(0);
        }
        if written < frames.len() {
            connection.out.extend_from_slice(&frames[written..]);
        }
    }

    /// Sends a text message.
    pub fn send_text(&mut self, id: usize, text: &[u8]) {
        let mut frame = Vec::new();
        wire::push_masked(&mut frame, wire::TEXT, text);
        self.send(id, &frame);
    }

    /// Closes a connection without a call to the handler.
    pub fn close(&mut self, id: usize) {
        if let Some(connection) = self.connections.get_mut(id).and_then(Option::take) {
            match connection.phase {
                Phase::Open => self.open -= 1,
                _ => self.opening -= 1,
            }
            self.freed.push(id);
        }
    }

    /// Resets a connection without a call to the handler.
    pub fn reset(&mut self, id: usize) {
        if let Some(connection) = self.connections.get_mut(id).and_then(Option::as_mut) {
            // If it fails, the connection is closed with a FIN.
            let _ = SockRef::from(&*connection.stream.tcp()).set_linger(Some(Duration::ZERO));
        }
        self.close(id);
    }

    /// Gives up connections that have been opening for longer than `limit_ns`. Returns how many.
    pub fn give_up_opening(&mut self, limit_ns: u64, handler: &mut impl Handler) -> usize {
        let now = now_ns();
        let late: Vec<usize> = (0..self.connections.len())
            .filter(|&id| {
                let connection = self.connections[id].as_ref();
                connection.is_some_and(|c| c.phase != Phase::Open && now.saturating_sub(c.started_ns) > limit_ns)
            })
            .collect();
        for &id in &late {
            let phase = self.connections[id].as_ref().map(|connection| connection.phase);
            self.close(id);
            let why = match phase {
                Some(Phase::Connecting) => "the TCP connection was not established in time",
                Some(Phase::Upgrading) => "the upgrade was not answered in time",
                _ => "no greeting arrived in time",
            };
            handler.closed(self, id, Ended::Refused(why.into()));
        }
        late.len()
    }

    /// One turn: waits for events, at most `timeout`, and handles them.
    pub fn turn(&mut self, handler: &mut impl Handler, timeout: Option<Duration>) -> io::Result<()> {
        self.free.append(&mut self.freed);
        for (id, why) in std::mem::take(&mut self.failed) {
            self.opening -= 1;
            self.freed.push(id);
            handler.closed(self, id, Ended::Refused(why));
        }
        let mut events = self.events.take().unwrap_or_else(|| Events::with_capacity(1024));
        for id in std::mem::take(&mut self.unread) {
            self.readable(id, false, handler);
        }
        let timeout = if self.unread.is_empty() { timeout } else { Some(Duration::ZERO) };
        match self.poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            let Token(id) = event.token();
            if id >= TOKEN_MIN {
                handler.other(self, event.token());
                continue;
            }
            if event.is_writable() {
                self.writable(id, handler);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.readable(id, event.is_read_closed() || event.is_error(), handler);
            }
        }
        self.events = Some(events);
        Ok(())
    }

    fn writable(&mut self, id: usize, handler: &mut impl Handler) {
        if self.phase(id) == Some(Phase::Connecting) {
            self.established(id, handler);
        }
        let Some(connection) = self.connections[id].as_mut() else {
            return;
        };
        connection.stream.writable();
        while !connection.out.is_empty() {
            match connection.stream.write(&connection.out) {
                Ok(written) => drop(connection.out.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
        connection.out = Vec::new();
    }

    /// Handles the first event of a connection that was in progress: it is established or refused.
    fn established(&mut self, id: usize, handler: &mut impl Handler) {
        let Some(connection) = self.connections[id].as_mut() else {
            return;
        };
        if let Ok(Some(error)) | Err(error) = connection.stream.tcp().take_error() {
            return self.end(id, Ended::Refused(error.to_string()), handler);
        }
        if connection.stream.tcp().peer_addr().is_ok() {
            let channel = connection.channel;
            let request = self.request(id, channel).to_vec();
            if let Some(connection) = self.connections[id].as_mut() {
                (connection.phase, connection.out) = (Phase::Upgrading, request);
            }
        }
    }

    fn readable(&mut self, id: usize, is_ending: bool, handler: &mut impl Handler) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut reads = 0;
        let ended = loop {
            if reads == READS_MAX {
                self.unread.push(id);
                break None;
            }
            reads += 1;
            let Some(connection) = self.connections[id].as_mut() else {
                break None;
            };
            if connection.phase == Phase::Connecting {
                break None;
            }
            let held = connection.rest.len();
            if held > FRAME_MAX {
                break Some(None);
            }
            if held * 2 > buffer.len() {
                buffer.resize(buffer.len() * 2, 0);
            }
            let got = match connection.stream.read(&mut buffer[held..], &mut self.scratch) {
                Ok(0) => break Some(None),
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break Some(None),
            };
            self.bytes_read += got as u64;
            self.reads += 1;
            let drained = connection.stream.is_drained;
            if held > 0 {
                buffer[..held].copy_from_slice(&connection.rest);
                connection.rest = Vec::new();
            }
            match self.walk(id, &buffer[..held + got], handler) {
                Ok(used) => {
                    if let Some(connection) = self.connections[id].as_mut()
                        && used < held + got
                    {
                        connection.rest = buffer[used..held + got].to_vec();
                    }
                }
                Err(ended) => {
                    self.buffer = buffer;
                    return self.end(id, ended, handler);
                }
            }
            if drained && !is_ending {
                // Edge-triggered: data that arrives after a short read is reported by another event. An end that was
                // reported already is not.
                break None;
            }
        };
        self.buffer = buffer;
        if let Some(code) = ended {
            let is_open = self.connections[id].as_ref().is_some_and(|c| c.phase == Phase::Open);
            let why = if is_open { Ended::Closed(code) } else { Ended::Refused("closed while opening".into()) };
            self.end(id, why, handler);
        }
    }

    /// Passes the complete frames in `bytes` to the handler. Returns the bytes used.
    fn walk(&mut self, id: usize, bytes: &[u8], handler: &mut impl Handler) -> Result<usize, Ended> {
        let now = now_ns();
        let mut at = 0;
        if self.phase(id) == Some(Phase::Upgrading) {
            match wire::upgrade_response(bytes) {
                Upgrade::Partial => return Ok(0),
                Upgrade::Refused(why) => return Err(Ended::Refused(why)),
                Upgrade::Done(head) => at = head,
            }
            if self.target.dialect(id).greeting.is_some() {
                self.set_phase(id, Phase::Greeting);
            } else {
                self.opened(id, now, handler);
            }
        }
        let mut data = false;
        let mut ended = None;
        while let Some(frame) = wire::next_frame(&bytes[at..]) {
            at += frame.len;
            match frame.opcode {
                0..=wire::BINARY => {
                    if self.phase(id) == Some(Phase::Greeting) {
                        let greeting = self.target.dialect(id).greeting.as_deref().unwrap_or_default();
                        if memchr::memmem::find(frame.payload, greeting.as_bytes()).is_some() {
                            handler.greeted(id, frame.payload);
                            self.opened(id, now, handler);
                        }
                        continue;
                    }
                    handler.frame(self, id, frame.payload, now);
                    data = true;
                }
                wire::PING => {
                    let mut pong = Vec::new();
                    wire::push_masked(&mut pong, wire::PONG, frame.payload);
                    self.send(id, &pong);
                }
                wire::CLOSE => {
                    let code = frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    ended = Some(Ended::Closed(code));
                    break;
                }
                _ => {}
            }
        }
        if data {
            handler.read_done(self, id, now);
        }
        match ended {
            Some(Ended::Closed(code)) if self.phase(id) == Some(Phase::Greeting) => {
                let code = code.map_or("without a code".into(), |code| format!("with {code}"));
                Err(Ended::Refused(format!("closed {code} instead of a greeting")))
            }
            ended => ended.map_or(Ok(at), Err),
        }
    }

    fn opened(&mut self, id: usize, now: u64, handler: &mut impl Handler) {
        self.set_phase(id, Phase::Open);
        self.opening -= 1;
        self.open += 1;
        let started = self.connections[id].as_ref().map_or(now, |connection| connection.started_ns);
        handler.opened(self, id, now.saturating_sub(started));
        // Only now, because a scenario may close the connection at once. The first write is not delayed without it either.
        if let Some(connection) = self.connections[id].as_mut() {
            let _ = connection.stream.tcp().set_nodelay(true);
        }
    }

    fn end(&mut self, id: usize, why: Ended, handler: &mut impl Handler) {
        if self.is_alive(id) {
            self.close(id);
            handler.closed(self, id, why);
        }
    }

    fn phase(&self, id: usize) -> Option<Phase> {
        self.connections[id].as_ref().map(|connection| connection.phase)
    }

    fn set_phase(&mut self, id: usize, phase: Phase) {
        if let Some(connection) = self.connections[id].as_mut() {
            connection.phase = phase;
        }
    }
}
