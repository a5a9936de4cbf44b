//! What those who watch live are shown of what a hub does.

use super::mail::{Answer, Asker, Mail, ShardId, Slot};
use super::message::Message;
use super::taps::{Filter, Sight, TAPS_MAX, shortened, shown_channel};
use super::{Hub, Port};
use crate::protocol::channel::Channel;
use crate::protocol::close::CloseReason;
use crate::protocol::event::ErrorCode;
use crate::protocol::socket_id::SocketId;
use std::net::SocketAddr;
use std::sync::Arc;

impl Hub {
    /// Shows what was seen since the last call, at every turn's end; costs nothing while nobody watches. `time_ms`:
    /// milliseconds since 1970.
    pub fn show(&mut self, time_ms: impl FnOnce() -> u64, port: &mut impl Port) {
        if !self.taps.is_open() {
            return;
        }
        for (asker, answer) in self.taps.answers(self.shard, self.clock_us, time_ms) {
            self.post(asker.shard, Mail::Answer(asker, Box::new(answer)), port);
        }
        (self.counters.sightings, self.counters.sightings_dropped) = (self.taps.shown, self.taps.dropped);
        self.settle_own(port);
    }

    /// Whether somebody watches this shard.
    pub fn is_watched(&self) -> bool {
        self.taps.is_open()
    }

    /// Those who watch the server, for one shard to say.
    pub fn watchers(&self) -> usize {
        if self.shard == TAPS { self.taps.count() } else { 0 }
    }

    /// An upgrade request was answered with an HTTP error.
    pub fn see_refuse(&mut self, address: Option<SocketAddr>, why: &'static str) {
        let clock = self.clock();
        self.taps.see("refuse", None, address, clock, |_| Sight::Refuse { address, why });
    }

    /// A connection ends; said before [`Hub::disconnect`], as long as it has its name.
    pub fn see_close(&mut self, slot: Slot, address: Option<SocketAddr>, reason: &CloseReason) {
        let socket_id = self.live_key(slot).map(|_| self.socket_id(slot));
        let (kind, code) = (reason.kind() as u8, reason.close_code());
        let clock = self.clock();
        self.taps.see("close", None, address, clock, |_| Sight::Close { socket_id, address, kind, code });
    }

    pub(super) fn tap(&mut self, asker: Asker, filter: Arc<Filter>, port: &mut impl Port) {
        let answer = if self.shard == TAPS && self.taps.count() >= TAPS_MAX {
            Answer::TooMany { limit: TAPS_MAX }
        } else {
            self.taps.open(asker, filter);
            Answer::Tapped
        };
        self.post(asker.shard, Mail::Answer(asker, Box::new(answer)), port);
    }

    pub(super) fn see_connect(&mut self, socket_id: SocketId, address: Option<SocketAddr>) {
        let clock = self.clock();
        self.taps.see("connect", None, address, clock, |_| Sight::Connect { socket_id, address });
    }

    pub(super) fn see_subscribe(&mut self, slot: Slot, name: &str, error: Option<ErrorCode>, port: &impl Port) {
        let (socket_id, address, clock) = (self.socket_id(slot), port.address(slot), self.clock());
        self.taps.see("subscribe", Some(name), address, clock, |_| {
            let (channel, error) = (shown_channel(name), error.map(ErrorCode::code));
            Sight::Subscribe { socket_id, address, channel, error }
        });
    }

    pub(super) fn see_unsubscribe(&mut self, slot: Slot, name: &str, error: Option<ErrorCode>, port: &impl Port) {
        let (socket_id, address, clock) = (self.socket_id(slot), port.address(slot), self.clock());
        self.taps.see("unsubscribe", Some(name), address, clock, |_| {
            let (channel, error) = (shown_channel(name), error.map(ErrorCode::code));
            Sight::Unsubscribe { socket_id, address, channel, error }
        });
    }

    pub(super) fn see_limit(&mut self, slot: Slot, port: &impl Port) {
        let (socket_id, address, clock) = (self.socket_id(slot), port.address(slot), self.clock());
        self.taps.see("limit", None, address, clock, |_| Sight::Limit { socket_id, address });
    }

    pub(super) fn see_publish(&mut self, channel: Channel<'_>, message: Message<'_>, subscribers: u64) {
        let Message { event, data } = message;
        let clock = self.clock();
        self.taps.see("publish", Some(channel.as_str()), None, clock, |filter| Sight::Publish {
            channel: channel.into(),
            event: event.into(),
            bytes: data.map_or(0, str::len),
            subscribers,
            data: data.filter(|_| filter.data_bytes > 0).map(|data| shortened(data, filter.data_bytes).into()),
        });
    }

    fn clock(&self) -> (u64, u32) {
        (self.clock_us, self.now)
    }
}

/// The shard that says how many taps there may be.
pub const TAPS: ShardId = 0;
