//! The floor: a server that does little more than the system calls. It upgrades, records subscriptions, and sends the same
//! encoded bytes to all subscribers. It does not parse JSON, and has no limits and no timeouts. Its speed on a machine is the
//! speed that the kernel leaves to a real server.
//!
//! It has two modes. Per turn, it puts all messages of a turn into one contiguous buffer per channel and sends that once to
//! each subscriber. Per message, it sends each message by itself. All pings of a read are answered with one write of fixed
//! pongs.
//!
//! Publishers use the line format of corecast's admin socket, so that the client is the same for both.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;

use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token};

use crate::wire;

/// Serves until killed.
pub fn serve(address: SocketAddr, admin: Option<&Path>, is_per_message: bool) -> anyhow::Result<()> {
    let mut listener = TcpListener::from_std(listen(address)?);
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let admin = match admin {
        Some(path) => {
            let _ = std::fs::remove_file(path);
            let mut admin = UnixListener::bind(path)?;
            poll.registry().register(&mut admin, ADMIN, Interest::READABLE)?;
            Some(admin)
        }
        None => None,
    };
    eprintln!("floor: listening on {}", listener.local_addr()?);
    let floor = Floor {
        poll,
        listener,
        admin,
        publisher: None,
        connections: Vec::new(),
        free: Vec::new(),
        names: HashMap::new(),
        channels: Vec::new(),
        touched: Vec::new(),
        buffer: vec![0; 512 * 1024],
        is_per_message,
    };
    floor.run()
}

struct Floor {
    poll: Poll,
    listener: TcpListener,
    admin: Option<UnixListener>,
    publisher: Option<Publisher>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    names: HashMap<Vec<u8>, usize>,
    channels: Vec<Channel>,
    /// Channels with something published in this turn.
    touched: Vec<usize>,
    buffer: Vec<u8>,
    is_per_message: bool,
}

struct Publisher {
    stream: UnixStream,
    rest: Vec<u8>,
    answers: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    is_open: bool,
    channels: Vec<usize>,
    rest: Vec<u8>,
    /// Output that the socket has not accepted; later output is queued behind it.
    out: Vec<u8>,
}

#[derive(Default)]
struct Channel {
    subscribers: Vec<usize>,
    /// The frames of this turn, end to end.
    turn: Vec<u8>,
    /// The end of each of them.
    ends: Vec<usize>,
}

impl Floor {
    fn run(mut self) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            if let Err(error) = self.poll.poll(&mut events, None)
                && error.kind() != io::ErrorKind::Interrupted
            {
                return Err(error.into());
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    ADMIN => self.accept_publisher()?,
                    PUBLISHER => self.read_publisher(),
                    Token(id) => {
                        if event.is_writable() {
                            self.drain(id);
                        }
                        if event.is_readable() || event.is_read_closed() || event.is_error() {
                            self.read(id, event.is_read_closed() || event.is_error());
                        }
                    }
                }
            }
            self.flush();
        }
    }

    fn accept(&mut self) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            let id = self.free.pop().unwrap_or(self.connections.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            if stream.set_nodelay(true).is_err()
                || self.poll.registry().register(&mut stream, Token(id), interest).is_err()
            {
                continue;
            }
            if id == self.connections.len() {
                self.connections.push(None);
            }
            let connection =
                Connection { stream, is_open: false, channels: Vec::new(), rest: Vec::new(), out: Vec::new() };
            self.connections[id] = Some(connection);
        }
    }

    fn accept_publisher(&mut self) -> io::Result<()> {
        while let Some((mut stream, _)) = self.admin.as_ref().and_then(|admin| admin.accept().ok()) {
            self.poll.registry().register(&mut stream, PUBLISHER, Interest::READABLE | Interest::WRITABLE)?;
            self.publisher = Some(Publisher { stream, rest: Vec::new(), answers: Vec::new() });
        }
        Ok(())
    }

    /// Appends published messages to the turn buffers of their channels.
    fn read_publisher(&mut self) {
        let Some(mut publisher) = self.publisher.take() else {
            return;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let is_alive = loop {
            let held = publisher.rest.len();
            buffer[..held].copy_from_slice(&publisher.rest);
            let got = match publisher.stream.read(&mut buffer[held..]) {
                Ok(0) => break false,
                Ok(got) => held + got,
                Err(error) => break error.kind() == io::ErrorKind::WouldBlock,
            };
            let mut at = 0;
            while let Some(end) = memchr::memchr(b'\n', &buffer[at..got]) {
                let subscribers = self.publish(&buffer[at..at + end]);
                let answer = format!("{{\"id\":0,\"ok\":true,\"subscribers\":{subscribers}}}\n");
                publisher.answers.extend_from_slice(answer.as_bytes());
                at += end + 1;
            }
            publisher.rest = buffer[at..got].to_vec();
        };
        self.buffer = buffer;
        self.publisher = is_alive.then_some(publisher);
    }

    fn publish(&mut self, line: &[u8]) -> usize {
        let (Some(channel), Some(data)) =
            (between(line, b"\"channel\":\"", b"\""), memchr::memmem::find(line, b"\"data\":"))
        else {
            return 0;
        };
        let data = &line[data + 7..line.len() - 1];
        let Some(&number) = self.names.get(channel) else {
            return 0;
        };
        let message = [b"{\"event\":\"m\",\"channel\":\"", channel, b"\",\"data\":", data, b"}"].concat();
        let place = &mut self.channels[number];
        if place.turn.is_empty() {
            self.touched.push(number);
        }
        wire::push_unmasked(&mut place.turn, wire::TEXT, &message);
        place.ends.push(place.turn.len());
        place.subscribers.len()
    }

    fn flush(&mut self) {
        for number in std::mem::take(&mut self.touched) {
            let channel = &mut self.channels[number];
            let turn = std::mem::take(&mut channel.turn);
            let ends = std::mem::take(&mut channel.ends);
            let subscribers = std::mem::take(&mut channel.subscribers);
            if self.is_per_message {
                let mut from = 0;
                for &end in &ends {
                    for &id in &subscribers {
                        send(&mut self.connections[id], &turn[from..end]);
                    }
                    from = end;
                }
            } else {
                for &id in &subscribers {
                    send(&mut self.connections[id], &turn);
                }
            }
            let channel = &mut self.channels[number];
            channel.subscribers = subscribers;
            (channel.turn, channel.ends) = (turn, ends);
            channel.turn.clear();
            channel.ends.clear();
        }
        if let Some(publisher) = &mut self.publisher
            && !publisher.answers.is_empty()
            && let Ok(written) = publisher.stream.write(&publisher.answers)
        {
            publisher.answers.drain(..written);
        }
    }

    fn read(&mut self, id: usize, is_ending: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut answer = Vec::new();
        let mut is_alive = true;
        while let Some(connection) = self.connections.get_mut(id).and_then(Option::as_mut) {
            let held = connection.rest.len();
            if held >= buffer.len() {
                is_alive = false;
                break;
            }
            buffer[..held].copy_from_slice(&connection.rest);
            let got = match connection.stream.read(&mut buffer[held..]) {
                Ok(0) => {
                    is_alive = false;
                    break;
                }
                Ok(got) => held + got,
                Err(error) => {
                    is_alive = error.kind() == io::ErrorKind::WouldBlock;
                    break;
                }
            };
            let is_drained = got < buffer.len();
            let used = self.input(id, &buffer[..got], &mut answer);
            if let Some(connection) = self.connections[id].as_mut() {
                // Vec::new does not allocate: an idle connection holds no buffer.
                connection.rest = if used < got { buffer[used..got].to_vec() } else { Vec::new() };
            }
            if is_drained && !is_ending {
                break;
            }
        }
        self.buffer = buffer;
        if !answer.is_empty() {
            send(&mut self.connections[id], &answer);
        }
        if !is_alive {
            self.remove(id);
        }
    }

    fn input(&mut self, id: usize, input: &[u8], answer: &mut Vec<u8>) -> usize {
        let Some(connection) = self.connections[id].as_mut() else {
            return 0;
        };
        let mut at = 0;
        if !connection.is_open {
            let Some(end) = memchr::memmem::find(input, b"\r\n\r\n") else {
                return 0;
            };
            let head = &input[..end + 2];
            let key = between(head, b"Sec-WebSocket-Key: ", b"\r\n").unwrap_or_default();
            let accept = tungstenite::handshake::derive_accept_key(key);
            answer.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n");
            answer.extend_from_slice(b"Connection: Upgrade\r\nSec-WebSocket-Accept: ");
            answer.extend_from_slice(accept.as_bytes());
            answer.extend_from_slice(b"\r\n\r\n");
            wire::push_unmasked(answer, wire::TEXT, GREETING);
            connection.is_open = true;
            at = end + 4;
        }
        while let Some(frame) = wire::next_frame(&input[at..]) {
            at += frame.len;
            let Some(mask) = frame.mask else { continue };
            let letter = frame.payload.get(KIND_AT).map_or(0, |byte| byte ^ mask[KIND_AT % 4]);
            match (frame.opcode, letter) {
                (wire::TEXT, b'p') => wire::push_unmasked(answer, wire::TEXT, PONG),
                (wire::TEXT, _) => self.command(id, frame.payload, mask, answer),
                (wire::CLOSE, _) => wire::push_unmasked(answer, wire::CLOSE, &[]),
                _ => {}
            }
        }
        at
    }

    /// Handles subscribe and unsubscribe, which are not measured and need not be fast.
    fn command(&mut self, id: usize, payload: &[u8], mask: [u8; 4], answer: &mut Vec<u8>) {
        let text: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        let Some(name) = between(&text, b"\"channel\":\"", b"\"") else {
            return;
        };
        let channels = &mut self.channels;
        let number = *self.names.entry(name.to_vec()).or_insert_with(|| {
            channels.push(Channel::default());
            channels.len() - 1
        });
        let (Some(connection), Some(channel)) = (self.connections[id].as_mut(), self.channels.get_mut(number)) else {
            return;
        };
        let event: &[u8] = if memchr::memmem::find(&text, b"socket:subscribe").is_some() {
            channel.subscribers.push(id);
            connection.channels.push(number);
            b"{\"event\":\"socket:subscribed\",\"channel\":\""
        } else {
            channel.subscribers.retain(|&subscriber| subscriber != id);
            connection.channels.retain(|&subscribed| subscribed != number);
            b"{\"event\":\"socket:unsubscribed\",\"channel\":\""
        };
        wire::push_unmasked(answer, wire::TEXT, &[event, name, b"\"}"].concat());
    }

    fn drain(&mut self, id: usize) {
        let Some(connection) = self.connections.get_mut(id).and_then(Option::as_mut) else {
            return;
        };
        while !connection.out.is_empty() {
            match connection.stream.write(&connection.out) {
                Ok(written) => drop(connection.out.drain(..written)),
                Err(_) => return,
            }
        }
        connection.out = Vec::new();
    }

    fn remove(&mut self, id: usize) {
        if let Some(connection) = self.connections[id].take() {
            for channel in connection.channels {
                self.channels[channel].subscribers.retain(|&subscriber| subscriber != id);
            }
            self.free.push(id);
        }
    }
}

fn send(connection: &mut Option<Connection>, bytes: &[u8]) {
    let Some(connection) = connection else { return };
    let written = if connection.out.is_empty() { connection.stream.write(bytes).unwrap_or(0) } else { 0 };
    if written < bytes.len() {
        connection.out.extend_from_slice(&bytes[written..]);
    }
}

fn between<'a>(text: &'a [u8], before: &[u8], after: &[u8]) -> Option<&'a [u8]> {
    let from = memchr::memmem::find(text, before)? + before.len();
    let len = memchr::memmem::find(&text[from..], after)?;
    Some(&text[from..from + len])
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

const LISTENER: Token = Token(usize::MAX - 1);
const ADMIN: Token = Token(usize::MAX - 2);
const PUBLISHER: Token = Token(usize::MAX - 3);
/// The length of `{"event":"socket:`. The letter behind it is `p` only in a ping.
const KIND_AT: usize = 17;
const PONG: &[u8] = b"{\"event\":\"socket:pong\",\"data\":{\"reply\":10000000}}";
const GREETING: &[u8] =
    b"{\"event\":\"socket:connected\",\"data\":{\"socket_id\":\"00000000-0000-4000-8000-000000000000\",\
\"heart\":{\"interval\":30,\"timeout\":25}}}";
