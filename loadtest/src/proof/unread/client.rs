//! A client that sends requests as fast as the kernel takes them, and reads no reply until it is told to. Then each reply must
//! be that to its request.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{bail, ensure};

use crate::proof::frame_reader::FrameReader;
use crate::proof::slow::connect_small;
use crate::wire::{self, Upgrade};

/// What every client sends, again and again: empty text frames, whose replies are 17 times as long. After 255 of them comes a
/// ping with a number, so that a reply that is missing or in another place is noticed.
pub struct Requests {
    bytes: Vec<u8>,
    /// Where each request ends.
    ends: Vec<usize>,
}

impl Requests {
    /// The requests of all clients.
    pub fn new() -> Requests {
        let mut requests = Requests { bytes: Vec::new(), ends: Vec::new() };
        for at in 0..PINGS * PING_EVERY {
            let ping =
                ping_number(at).map(|number| format!("{{\"event\":\"socket:ping\",\"data\":{{\"id\":{number}}}}}"));
            wire::push_masked(&mut requests.bytes, wire::TEXT, ping.unwrap_or_default().as_bytes());
            requests.ends.push(requests.bytes.len());
        }
        requests
    }

    /// Requests within the first bytes that were sent. One that was cut does not count.
    pub fn whole(&self, sent: u64) -> u64 {
        let (cycles, rest) = (sent / self.bytes.len() as u64, sent % self.bytes.len() as u64);
        cycles * self.ends.len() as u64 + self.ends.partition_point(|&end| end as u64 <= rest) as u64
    }

    /// Bytes that follow those that were sent, at most `limit`.
    fn following(&self, sent: u64, limit: u64) -> &[u8] {
        let rest = &self.bytes[(sent % self.bytes.len() as u64) as usize..];
        &rest[..rest.len().min(usize::try_from(limit).unwrap_or(usize::MAX))]
    }

    /// Whether the text is the reply to request `at`.
    fn is_reply(&self, at: u64, text: &[u8]) -> bool {
        match ping_number((at % self.ends.len() as u64) as usize) {
            Some(number) => text == format!("{{\"event\":\"socket:pong\",\"data\":{{\"reply\":{number}}}}}").as_bytes(),
            None => text.starts_with(b"{\"event\":\"socket:error\""),
        }
    }
}

/// The number in request `at`, if it is a ping.
fn ping_number(at: usize) -> Option<usize> {
    (at % PING_EVERY == PING_EVERY - 1).then_some(at / PING_EVERY)
}

/// A client.
pub struct UnreadClient {
    socket: FrameReader,
    /// Bytes of requests so far.
    pub sent: u64,
    /// Replies so far.
    pub replies: u64,
    /// Replies that are not those to the request in their place.
    pub misplaced: u64,
}

impl UnreadClient {
    /// Connects, and reads the greeting. Its buffers are small: what they hold costs the client, not the server. Its segments are
    /// those of Ethernet: with those of loopback the server's kernel would take 1 to 4 MiB of replies.
    pub fn connect(address: SocketAddr) -> anyhow::Result<UnreadClient> {
        let mut stream = connect_small(address, Some(SEGMENT))?;
        socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER)?;
        stream.write_all(&wire::upgrade_request(&address.to_string(), "/"))?;
        read_greeting(&mut stream)?;
        Ok(UnreadClient { socket: FrameReader::new(stream)?, sent: 0, replies: 0, misplaced: 0 })
    }

    /// The server closed the connection.
    pub fn is_closed(&self) -> bool {
        self.socket.is_closed
    }

    /// Sends what the kernel takes, up to so many bytes in all. Returns how many bytes.
    pub fn send(&mut self, requests: &Requests, limit: u64) -> io::Result<usize> {
        let bytes = requests.following(self.sent, limit.saturating_sub(self.sent));
        if bytes.is_empty() || self.is_closed() {
            return Ok(0);
        }
        let sent = self.socket.write(bytes)?;
        self.sent += sent as u64;
        Ok(sent)
    }

    /// Prepares to read all that waits.
    pub fn resume(&mut self) -> io::Result<()> {
        self.socket.set_receive_buffer(RECEIVE_BUFFER)
    }

    /// Reads replies, without waiting. Returns how many bytes.
    pub fn read(&mut self, requests: &Requests) -> io::Result<usize> {
        self.socket.read(CHUNK, |frame| {
            if frame.opcode == wire::TEXT {
                self.misplaced += u64::from(!requests.is_reply(self.replies, frame.payload));
                self.replies += 1;
            }
        })
    }
}

/// Reads the answer to the upgrade, and the first frame.
fn read_greeting(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut seen = Vec::new();
    loop {
        let mut piece = [0; 512];
        let got = stream.read(&mut piece)?;
        ensure!(got > 0, "the server closed a connection before its first frame");
        seen.extend_from_slice(&piece[..got]);
        match wire::upgrade_response(&seen) {
            Upgrade::Refused(why) => bail!("an upgrade was refused: {why}"),
            Upgrade::Done(at) if wire::next_frame(&seen[at..]).is_some() => return Ok(()),
            Upgrade::Done(_) | Upgrade::Partial => {}
        }
    }
}

/// A ping is one request of so many.
const PING_EVERY: usize = 256;
/// Numbers of pings.
const PINGS: usize = 100;
/// Bytes of the send buffer.
const SEND_BUFFER: usize = 8 * 1024;
/// Bytes of a segment on Ethernet, with time stamps.
const SEGMENT: u32 = 1448;
/// Bytes of the receive buffer of a client that reads.
const RECEIVE_BUFFER: usize = 256 * 1024;
/// Bytes of one read.
const CHUNK: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_their_bytes() {
        let requests = Requests::new();
        let (len, count) = (requests.bytes.len() as u64, requests.ends.len() as u64);
        assert_eq!([0, 5, 6, 11, 12].map(|sent| requests.whole(sent)), [0, 0, 1, 1, 2]);
        assert_eq!(
            [len - 1, len, len + 5, 3 * len + 6].map(|sent| requests.whole(sent)),
            [count - 1, count, count, 3 * count + 1]
        );
        assert_eq!(requests.following(3 * len + 7, 2), &requests.bytes[7..9]);
        assert_eq!(requests.following(len - 1, 100).len(), 1);
    }

    #[test]
    fn a_reply_in_the_place_of_another_is_noticed() {
        let requests = Requests::new();
        let (error, pong) =
            (&b"{\"event\":\"socket:error\",\"data\":{}}"[..], b"{\"event\":\"socket:pong\",\"data\":{\"reply\":1}}");
        let cycle = requests.ends.len() as u64;
        assert!(requests.is_reply(0, error) && requests.is_reply(cycle + 254, error));
        assert!(requests.is_reply(511, pong) && requests.is_reply(cycle + 511, pong));
        assert!(!requests.is_reply(255, error) && !requests.is_reply(255, pong) && !requests.is_reply(0, pong));
    }
}
