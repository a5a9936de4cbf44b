//! The other ends of admin sessions: publishers and readers of streams.

use super::House;
use super::peer::CHANNELS;
use crate::shard::Shard;
use std::collections::{BTreeSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

/// A session of one shard.
struct Session {
    socket: UnixStream,
    to_send: VecDeque<u8>,
    inbound: Vec<u8>,
    has_ended: bool,
}

impl Session {
    fn open(house: &mut House, shard: usize) -> Session {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("a socket option");
        theirs.set_nonblocking(true).expect("a socket option");
        let Shard { admins, poll, .. } = &mut house.shards[shard];
        admins.adopt_socket(mio::net::UnixStream::from_std(theirs), poll.registry());
        Session { socket: ours, to_send: VecDeque::new(), inbound: Vec::new(), has_ended: false }
    }

    /// Sends and reads. Returns whether anything moved.
    fn move_bytes(&mut self) -> bool {
        let (front, _) = self.to_send.as_slices();
        let sent = self.socket.write(front).unwrap_or(0);
        self.to_send.drain(..sent);
        let mut buffer = [0; 4096];
        let read = match self.socket.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Ok(n) if n > 0 => n,
            _ => return !std::mem::replace(&mut self.has_ended, true),
        };
        self.inbound.extend_from_slice(&buffer[..read]);
        sent + read > 0
    }

    /// The next whole line.
    fn line(&mut self) -> Option<String> {
        let end = self.inbound.iter().position(|&byte| byte == b'\n')?;
        let line = self.inbound.drain(..=end).collect();
        Some(String::from_utf8(line).expect("text"))
    }
}

/// Publishes to one channel: each message is its number, and padding.
pub struct Publisher {
    session: Session,
    channel: usize,
    pub published: u32,
    acknowledged: u32,
}

impl Publisher {
    pub fn new(house: &mut House, shard: usize, channel: usize) -> Publisher {
        assert!(channel < CHANNELS);
        Publisher { session: Session::open(house, shard), channel, published: 0, acknowledged: 0 }
    }

    pub fn publish(&mut self, len: usize) {
        let Publisher { channel, published: number, .. } = *self;
        let padding = "x".repeat(len);
        let line = format!(
            "{{\"id\":{number},\"command\":\"publish\",\"channel\":\"c{channel}\",\"event\":\"m\",\"data\":\"{number}:{padding}\"}}\n",
        );
        self.session.to_send.extend(line.bytes());
        self.published += 1;
    }

    /// Whether everything was acknowledged.
    pub fn is_done(&self) -> bool {
        self.acknowledged == self.published
    }

    pub fn move_bytes(&mut self) -> bool {
        let moved = self.session.move_bytes();
        while let Some(line) = self.session.line() {
            let expected = format!("{{\"id\":{},\"ok\":true,", self.acknowledged);
            assert!(line.starts_with(&expected), "{line}");
            self.acknowledged += 1;
        }
        moved
    }
}

/// Reads a stream: lifecycle events, or a tail.
pub struct Reader {
    session: Session,
    /// The open connections according to the stream; `None` before the end of the snapshot.
    pub connections: Option<BTreeSet<String>>,
    snapshot: BTreeSet<String>,
    is_tail: bool,
}

impl Reader {
    pub fn new(house: &mut House, shard: usize, is_tail: bool) -> Reader {
        let mut session = Session::open(house, shard);
        let command = if is_tail { "tail" } else { "events" };
        session.to_send.extend(format!("{{\"id\":0,\"command\":\"{command}\"}}\n").bytes());
        Reader { session, connections: None, snapshot: BTreeSet::new(), is_tail }
    }

    /// How its open connections differ from these; `None`: they are the same.
    pub fn lacks(&self, live: &BTreeSet<String>) -> Option<String> {
        let is_right = self.is_tail || self.connections.as_ref() == Some(live);
        (!is_right).then(|| format!("{live:?}, knows {:?}", self.connections))
    }

    pub fn has_ended(&self) -> bool {
        self.session.has_ended
    }

    pub fn move_bytes(&mut self) -> bool {
        let moved = self.session.move_bytes();
        while let Some(line) = self.session.line() {
            let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            if !self.is_tail {
                self.read(&line);
            }
        }
        moved
    }

    fn read(&mut self, line: &serde_json::Value) {
        let known = self.connections.as_mut().unwrap_or(&mut self.snapshot);
        let socket_id = || line["socket_id"].as_str().expect("a socket id").to_owned();
        match line["event"].as_str() {
            Some("connected") => drop(known.insert(socket_id())),
            Some("disconnected") => drop(known.remove(&socket_id())),
            Some("snapshot_end") => self.connections = Some(std::mem::take(&mut self.snapshot)),
            Some("snapshot" | "channel_occupied" | "channel_vacated") => {}
            None => assert_eq!(line["ok"], true, "{line}"),
            Some(_) => panic!("{line}"),
        }
    }
}
