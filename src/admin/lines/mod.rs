//! The codec of the admin socket: one JSON object per line, in both directions.

pub mod events;
pub mod reader;
pub mod sightings;
pub mod writer;

use super::session::codec::Codec;
use super::session::{self, Session};
use crate::api::publish::Placed;
use crate::api::{Refusal, Reply};
use crate::hub::observe::piece::Piece;
use crate::hub::{Hub, Port};
use reader::Parser;

/// A session whose peer is a client of the admin socket.
pub type LineSession = Session<Lines>;

/// Memory of a waiting reply, without its line.
pub const WAITING_BYTES: usize = session::waiting_bytes::<Lines>() + reader::ID_BYTES_MAX;

/// The codec of the admin socket.
pub enum Lines {}

impl Codec for Lines {
    /// `id`, as written by the peer.
    type Tag<'a> = &'a str;
    type Kept = Box<str>;
    /// Whole lines.
    type Output = Vec<u8>;

    fn keep(id: &str) -> Box<str> {
        id.into()
    }

    fn tag(kept: &Box<str>) -> &str {
        kept
    }

    fn reply(output: &mut Vec<u8>, id: &str, reply: Result<Reply, Refusal>) {
        match reply {
            Ok(Reply::Published(published)) => writer::published(output, id, &published),
            Ok(reply) => writer::reply(output, id, &reply),
            Err(refusal) => writer::refused(output, id, &refusal),
        }
    }

    #[inline]
    fn published(output: &mut Vec<u8>, id: &str, subscribers: u64, placed: Option<Placed>) {
        writer::published_to_one(output, id, subscribers, placed);
    }

    fn tell(output: &mut Vec<u8>, piece: Piece) {
        match piece {
            Piece::Snapshot { number } => events::snapshot(output, number),
            Piece::Channels { number, channels } => events::channels(output, number, &channels),
            Piece::Connections { number, connections } => events::connections(output, number, &connections),
            Piece::Members { number, members } => events::members(output, number, &members),
            Piece::SnapshotEnd { number, channels, members, connections } => {
                events::snapshot_end(output, number, [channels, members, connections]);
            }
            Piece::Events { events } => events.iter().for_each(|event| events::event(output, event)),
            Piece::FellBehind { missing } => events::too_slow(output, missing),
            Piece::Seen { shard, at_us, time_ms, sightings, dropped } => {
                sightings::lines(output, shard, at_us, time_ms, &sightings, dropped);
            }
        }
    }

    fn append(output: &mut Vec<u8>, more: Vec<u8>) {
        output.extend_from_slice(&more);
    }

    fn bytes(output: &Vec<u8>) -> usize {
        output.len()
    }
}

impl LineSession {
    /// Handles one line, without its newline.
    pub fn line(&mut self, line: &[u8], parser: &mut Parser, hub: &mut Hub, port: &mut impl Port) {
        let request = parser.request(line);
        self.request(request.id, &request.command, hub, port);
    }

    /// Refuses a line over the limit. This is the last reply before the connection is closed.
    pub fn line_too_long(&mut self, limit: usize, hub: &mut Hub, port: &mut impl Port) {
        self.request("null", &Err(Refusal::TooLarge { what: "bytes of line", limit }), hub, port);
    }
}
