//! The data path of one shard without its sockets: admin lines and client frames in, bytes to a sink out. The allocation test
//! and the instruction counts measure it.

use corecast::admin::lines::LineSession;
use corecast::admin::lines::reader::Parser;
use corecast::config::Limits;
use corecast::hub::admission::addresses::Verdict;
use corecast::hub::audience::pages::{Chunk, Pages};
use corecast::hub::mail::{Answer, Arrival, Mail, Question, Settled};
use corecast::hub::{Hub, Identity, Port, Urgency};
use corecast::ids::{Asker, ShardId, Slot};
use corecast::protocol::close::CloseReason;
use corecast::protocol::dialect::Dialect;
use corecast::protocol::native::heartbeat::Heartbeat;
use corecast::shard::output::outbox::{Outbox, Written};
use corecast::wire::decoder::{Decoder, Message};
use std::io::{self, IoSlice, Write};

/// Accepts and drops all output.
#[derive(Default)]
pub struct Sink {
    /// Bytes accepted.
    pub bytes: usize,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len();
        Ok(bytes.len())
    }
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let taken = slices.iter().map(|slice| slice.len()).sum();
        self.bytes += taken;
        Ok(taken)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The outboxes, and the connections with new output.
#[derive(Default)]
struct Outboxes {
    outboxes: Vec<Outbox>,
    dirty: Vec<Slot>,
}

impl Port for Outboxes {
    fn append(&mut self, pages: &mut Pages, slot: Slot, chunk: Chunk, _: Urgency) {
        let outbox = &mut self.outboxes[slot as usize];
        if outbox.is_empty() {
            self.dirty.push(slot);
        }
        outbox.push(pages, chunk);
    }
    fn mail(&mut self, _: ShardId, _: Mail) {
        unreachable!("there is one shard");
    }
    fn mail_after(&mut self, _: &[ShardId], _: ShardId, _: Mail) {
        unreachable!("there is one shard");
    }
    fn ask(&mut self, _: Asker, _: Question) {}
    fn answer_admin(&mut self, _: Asker, _: Answer) {}
    fn settle(&mut self, _: Asker, _: Settled) {}
    fn admit(&mut self, _: Arrival, _: Verdict) {}
    fn close(&mut self, _: Slot, _: CloseReason) {}
}

/// A channel without a rule.
pub const PLAIN: &str = "bench";
/// A channel with a history, because of its name: each message replaces the one before.
pub const KEPT: &str = "cache-b";

/// A shard with `subscribers` connections, all subscribed to one channel.
pub struct DataPath {
    hub: Hub,
    port: Outboxes,
    session: LineSession,
    parser: Parser,
    decoder: Decoder,
    /// The destination of all output.
    pub sink: Sink,
}

impl DataPath {
    /// A shard with its subscribers.
    pub fn new(channel: &str, subscribers: usize) -> DataPath {
        let limits = Limits { connections_max: usize::MAX, ..Limits::default() };
        let mut path = DataPath {
            hub: Hub::new(Identity { shard: 0, shards: 1, seed: [1, 2, 3, 4] }, &[], limits),
            port: Outboxes::default(),
            session: LineSession::new(0, 1, 0, 0, false),
            parser: Parser::default(),
            decoder: Decoder::default(),
            sink: Sink::default(),
        };
        path.port.outboxes.resize_with(subscribers, Outbox::default);
        let subscribe = format!(r#"{{"event":"socket:subscribe","data":{{"channel":"{channel}"}}}}"#);
        for slot in 0..subscribers as Slot {
            path.hub.connect(slot, Dialect::Native, None, &mut path.port);
            path.hub.handle(slot, &subscribe, &mut path.port);
        }
        path.flush();
        path
    }

    /// Handles one admin line, as read from the socket.
    pub fn line(&mut self, line: &[u8]) {
        self.session.line(line, &mut self.parser, &mut self.hub, &mut self.port);
    }

    /// Handles a client's frames, as read from its socket. They are unmasked in place.
    pub fn frames(&mut self, slot: Slot, bytes: &mut [u8]) {
        let mut at = 0;
        loop {
            if let Some((heartbeat, frame_len)) = Heartbeat::read(&mut bytes[at..]) {
                at += frame_len;
                if let Some(id) = heartbeat.ping_id() {
                    self.hub.answer_ping(slot, id, &mut self.port);
                }
                continue;
            }
            match self.decoder.next(bytes, &mut at, 1 << 16, &mut 0) {
                Ok(Some(Message::Text(text))) => drop(self.hub.handle(slot, text, &mut self.port)),
                Ok(Some(_)) => {}
                _ => return,
            }
        }
    }

    /// Ends a turn: delivers, writes, and drops the replies of the admin session.
    pub fn flush(&mut self) {
        self.hub.end_turn(&mut self.port);
        while let Some(slot) = self.port.dirty.pop() {
            let written = self.port.outboxes[slot as usize].write(self.hub.pages_mut(), &mut self.sink);
            assert_eq!(written.expect("the sink accepts everything").0, Written::All);
        }
        self.session.output.clear();
    }
}

/// An admin line that publishes 128 bytes of data to the channel.
pub fn publish_line(channel: &str) -> Vec<u8> {
    let data = "x".repeat(126);
    format!(r#"{{"id":1,"command":"publish","channel":"{channel}","event":"m","data":"{data}"}}"#).into_bytes()
}

/// A masked client frame with a `socket:ping`.
pub fn ping_frame() -> Vec<u8> {
    let text = br#"{"event":"socket:ping","data":{"id":1}}"#;
    let mask = [1, 2, 3, 4];
    let mut frame = vec![0x81, 0x80 | text.len() as u8];
    frame.extend_from_slice(&mask);
    frame.extend(text.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
