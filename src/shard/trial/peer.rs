//! One client: what it still has to send, what the server must send for that, and what the server has sent.

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, SockRef, Socket, Type};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::time::Duration;

pub struct Peer {
    link: Option<Link>,
    to_send: VecDeque<u8>,
    inbound: Vec<u8>,
    stage: Stage,
    is_echo: bool,
    /// What the server must send next.
    expected: VecDeque<Expected>,
    /// Payloads of the WebSocket pongs that it must get. They do not wait for replies of channel owners.
    pongs: VecDeque<Vec<u8>>,
    /// By channel: whether its requests so far leave it subscribed.
    wanted: [bool; CHANNELS],
    /// By channel: the last message since the reply to its subscribe.
    received: [Option<Option<u32>>; CHANNELS],
    /// It has not broken the protocol, and has not begun to close.
    pub is_lawful: bool,
    /// It has sent arbitrary bytes.
    is_noisy: bool,
    /// It was dropped without a reply.
    pub was_dropped: bool,
    /// It does not read for now.
    pub is_stalled: bool,
    pings: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Upgrading,
    Open,
    /// Closed or refused with this close code or HTTP status.
    Closed(u16),
    /// The server has ended the stream.
    Ended,
}

#[derive(Debug, PartialEq)]
enum Expected {
    Pong(u32),
    Subscribed(usize),
    Unsubscribed(usize),
    NotSubscribed(usize),
    AlreadySubscribed(usize),
    /// Opcode and payload of a frame that is echoed.
    Frame(u8, Vec<u8>),
}

impl Peer {
    /// Connects from 127.0.0.`host`, sends `preface`, and then speaks TLS if there is a configuration for it.
    pub fn connect(
        to: SocketAddr,
        host: u8,
        tls: Option<Arc<ClientConfig>>,
        preface: &str,
        head: &str,
        is_echo: bool,
    ) -> Peer {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, host), 0).into()).expect("a free port");
        socket.connect(&to.into()).expect("the shard listens");
        socket.set_tcp_nodelay(true).expect("a socket option");
        socket.set_nonblocking(true).expect("a socket option");
        let mut socket = TcpStream::from(socket);
        socket.write_all(preface.as_bytes()).expect("room for a line");
        Peer {
            link: Some(Link::new(socket, tls)),
            to_send: head.bytes().collect(),
            inbound: Vec::new(),
            stage: Stage::Upgrading,
            is_echo,
            expected: VecDeque::new(),
            pongs: VecDeque::new(),
            wanted: [false; CHANNELS],
            received: [None; CHANNELS],
            is_lawful: true,
            is_noisy: false,
            was_dropped: false,
            is_stalled: false,
            pings: 0,
        }
    }

    /// Whether it is open, and has done nothing for which it could be closed.
    pub fn is_served(&self) -> bool {
        self.is_lawful && self.stage == Stage::Open
    }

    pub fn is_gone(&self) -> bool {
        self.link.is_none()
    }

    // ---- what it does

    pub fn ping(&mut self, mask: u32, split: usize) {
        self.pings += 1;
        let text = format!(r#"{{"event":"socket:ping","data":{{"id":{}}}}}"#, self.pings);
        self.queue_text(&text, mask, split);
        if !self.is_echo {
            self.expected.push_back(Expected::Pong(self.pings));
        }
    }

    pub fn subscribe(&mut self, channel: usize, mask: u32, split: usize) {
        let text = format!(r#"{{"event":"socket:subscribe","data":{{"channel":"c{channel}"}}}}"#);
        self.queue_text(&text, mask, split);
        if !self.is_echo {
            let was_wanted = std::mem::replace(&mut self.wanted[channel], true);
            self.expected.push_back(if was_wanted {
                Expected::AlreadySubscribed(channel)
            } else {
                Expected::Subscribed(channel)
            });
        }
    }

    pub fn unsubscribe(&mut self, channel: usize, mask: u32, split: usize) {
        let text = format!(r#"{{"event":"socket:unsubscribe","data":{{"channel":"c{channel}"}}}}"#);
        self.queue_text(&text, mask, split);
        if !self.is_echo {
            let was_wanted = std::mem::replace(&mut self.wanted[channel], false);
            self.expected.push_back(if was_wanted {
                Expected::Unsubscribed(channel)
            } else {
                Expected::NotSubscribed(channel)
            });
        }
    }

    pub fn queue_long(&mut self, len: usize, mask: u32) {
        let text = "x".repeat(len);
        if self.is_echo {
            self.expected.push_back(Expected::Frame(0x82, text.clone().into_bytes()));
            self.queue(0x82, text.as_bytes(), mask);
        } else {
            self.ping(mask, len);
        }
    }

    /// A WebSocket ping.
    pub fn ping_frame(&mut self, mask: u32) {
        let payload = mask.to_be_bytes();
        self.pongs.push_back(payload.to_vec());
        self.queue(0x89, &payload, mask);
    }

    /// Sends a close frame. What it sent before is answered.
    pub fn close(&mut self, mask: u32) {
        self.queue(0x88, &1001u16.to_be_bytes(), mask);
        self.is_lawful = false;
    }

    /// Sends arbitrary bytes, which may end the connection. `is_bare`: on the bare socket, even below TLS.
    pub fn misbehave(&mut self, bytes: &[u8], is_bare: bool) {
        (self.is_lawful, self.is_noisy) = (false, true);
        match &mut self.link {
            Some(link) if is_bare => drop(link.socket_mut().write(bytes)),
            _ => self.to_send.extend(bytes),
        }
    }

    /// Shuts its sending side.
    pub fn shut(&mut self) {
        self.is_lawful = false;
        self.to_send.clear();
        if let Some(link) = &mut self.link {
            link.shut();
        }
    }

    /// Drops the connection, with or without a reset.
    pub fn go(&mut self, resets: bool) {
        self.is_lawful = false;
        if let Some(link) = self.link.take()
            && resets
        {
            let _ = SockRef::from(link.socket()).set_linger(Some(Duration::ZERO));
        }
    }

    fn queue_text(&mut self, text: &str, mask: u32, split: usize) {
        if self.is_echo {
            self.expected.push_back(Expected::Frame(0x81, text.as_bytes().to_vec()));
        }
        let split = split % (2 * text.len());
        if split == 0 || split >= text.len() {
            return self.queue(0x81, text.as_bytes(), mask);
        }
        self.queue(0x01, &text.as_bytes()[..split], mask);
        self.queue(0x80, &text.as_bytes()[split..], !mask);
    }

    fn queue(&mut self, first: u8, payload: &[u8], mask: u32) {
        let mask = mask.to_be_bytes();
        self.to_send.push_back(first);
        match payload.len() {
            len @ ..126 => self.to_send.push_back(0x80 | len as u8),
            len @ ..=0xffff => {
                self.to_send.push_back(0x80 | 126);
                self.to_send.extend((len as u16).to_be_bytes());
            }
            len => {
                self.to_send.push_back(0x80 | 127);
                self.to_send.extend((len as u64).to_be_bytes());
            }
        }
        self.to_send.extend(mask);
        self.to_send.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }

    // ---- its socket

    /// Sends up to this many bytes. Returns whether any were taken.
    pub fn send(&mut self, most: usize) -> bool {
        let Some(link) = &mut self.link else { return false };
        let (front, _) = self.to_send.as_slices();
        let piece = &front[..front.len().min(most)];
        if piece.is_empty() {
            return false;
        }
        match link.write(piece) {
            Ok(n) => {
                self.to_send.drain(..n);
                n > 0
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            // What the server sent last may still be unread.
            Err(_) => {
                self.to_send.clear();
                false
            }
        }
    }

    /// Reads up to this many bytes. Returns whether there were any, or the end of the stream.
    pub fn read(&mut self, most: usize) -> bool {
        let Some(link) = &mut self.link else { return false };
        if self.stage == Stage::Ended {
            return false;
        }
        let mut buffer = vec![0; most];
        match link.read(&mut buffer) {
            Ok(n) if n > 0 => {
                self.inbound.extend_from_slice(&buffer[..n]);
                self.take();
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            end => {
                self.was_dropped = self.is_lawful && self.stage == Stage::Upgrading;
                assert!(!self.is_served(), "ended without a close frame: {end:?}");
                (self.stage, self.link) = (Stage::Ended, None);
                true
            }
        }
    }

    fn take(&mut self) {
        if self.stage == Stage::Upgrading {
            let Some(end) = self.inbound.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return };
            let head = String::from_utf8(self.inbound.drain(..end + 4).collect()).expect("HTTP");
            let status: u16 = head[9..12].parse().expect("a status");
            self.stage = if status == 101 { Stage::Open } else { Stage::Closed(status) };
        }
        while self.stage == Stage::Open
            && !self.is_noisy
            && let Some((first, payload)) = self.frame()
        {
            match first {
                0x88 => {
                    self.stage = Stage::Closed(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)))
                }
                0x81 if !self.is_echo => self.receive(std::str::from_utf8(&payload).expect("text")),
                0x8a => assert_eq!(self.pongs.pop_front(), Some(payload)),
                _ => self.expect(Expected::Frame(first, payload)),
            }
        }
        if let Stage::Closed(_) = self.stage {
            self.inbound.clear();
        }
    }

    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let bytes = &self.inbound;
        let (len, header) = match *bytes.get(1)? {
            126 => (usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize, 10),
            len => (usize::from(len), 2),
        };
        if bytes.len() < header + len {
            return None;
        }
        let first = bytes[0];
        let frame: Vec<u8> = self.inbound.drain(..header + len).collect();
        Some((first, frame[header..].to_vec()))
    }

    fn receive(&mut self, text: &str) {
        let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
        let channel = || value["channel"].as_str().and_then(|name| name[1..].parse::<usize>().ok()).expect("a channel");
        match value["event"].as_str().expect("an event") {
            "socket:connected" => {}
            "socket:ping" => self.queue(0x81, br#"{"event":"socket:pong"}"#, 7),
            "socket:pong" => self.expect(Expected::Pong(value["data"]["reply"].as_u64().expect("a number") as u32)),
            "socket:subscribed" => {
                assert!(self.received[channel()].replace(None).is_none(), "subscribed twice");
                self.expect(Expected::Subscribed(channel()));
            }
            "socket:unsubscribed" => {
                self.received[channel()] = None;
                self.expect(Expected::Unsubscribed(channel()));
            }
            "socket:subscribe.error" | "socket:unsubscribe.error" => {
                self.expect(match value["data"]["code"].as_str() {
                    Some("already_subscribed") => Expected::AlreadySubscribed(channel()),
                    Some("not_subscribed") => Expected::NotSubscribed(channel()),
                    _ => panic!("{text}"),
                })
            }
            "m" => {
                let number =
                    value["data"].as_str().and_then(|data| data.split(':').next()?.parse().ok()).expect("a number");
                let received = self.received[channel()].as_mut().expect("subscribed");
                if let Some(last) = received.replace(number) {
                    assert_eq!(number, last + 1, "a gap, or a repetition");
                }
            }
            _ => assert!(!self.is_lawful, "{text}"),
        }
    }

    fn expect(&mut self, got: Expected) {
        let expected = self.expected.pop_front();
        assert!(expected.as_ref() == Some(&got), "got {got:?}, expected {expected:?}");
    }

    /// What it should have sent or received by now and has not, if it kept to the protocol; `published`: messages, by channel.
    pub fn lacks(&self, published: &[u32]) -> Option<String> {
        if !self.is_lawful || self.is_gone() {
            return None;
        }
        match self.stage {
            Stage::Open if !self.to_send.is_empty() => Some(format!("{} bytes were not read", self.to_send.len())),
            Stage::Open if !self.pongs.is_empty() => Some("a pong".into()),
            Stage::Open if !self.expected.is_empty() => Some(format!("not answered: {:?}", self.expected)),
            Stage::Open => (0..CHANNELS).find_map(|channel| {
                let next = self.received[channel].flatten().map_or(published[channel], |last| last + 1);
                let is_right = self.received[channel].is_some() == self.wanted[channel] && next == published[channel];
                (!is_right)
                    .then(|| format!("of channel {channel} {:?}, not {}", self.received[channel], published[channel]))
            }),
            // Too slow, one too many of its address, or asked to leave.
            Stage::Closed(4100 | 429 | 1012) => None,
            stage => Some(format!("all: {stage:?}")),
        }
    }
}

/// Its socket, plain or with TLS.
enum Link {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Link {
    fn new(socket: TcpStream, tls: Option<Arc<ClientConfig>>) -> Link {
        let Some(config) = tls else { return Link::Plain(socket) };
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(config, name).expect("a session");
        Link::Tls(Box::new(StreamOwned::new(session, socket)))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Link::Plain(socket) => socket,
            Link::Tls(tls) => &tls.sock,
        }
    }

    fn socket_mut(&mut self) -> &mut TcpStream {
        match self {
            Link::Plain(socket) => socket,
            Link::Tls(tls) => &mut tls.sock,
        }
    }

    fn shut(&mut self) {
        if let Link::Tls(tls) = self {
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
        let _ = self.socket().shutdown(Shutdown::Write);
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Link::Plain(socket) => socket.write(bytes),
            Link::Tls(tls) => tls.write(bytes),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Link::Plain(socket) => socket.read(buffer),
            Link::Tls(tls) => tls.read(buffer),
        }
    }
}

pub const CHANNELS: usize = 3;
pub const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
