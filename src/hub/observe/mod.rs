//! What operators and backends observe: lifecycle events ([`reports`] of every shard, numbered by the [`journal`], read by
//! a [`follower`]), the live tap ([`taps`]), and the [`busiest`] channels and addresses.
//!
//! Without observers nothing is recorded. The cost is one branch per request, per publish and per end of a connection, and
//! none per delivery.

pub mod best;
pub mod busiest;
pub mod extras;
pub mod follower;
pub mod journal;
pub mod piece;
pub mod reports;
pub mod sighting;
pub mod taps;

use super::admission::addresses::Addresses;
use super::channel::directory::Directory;
use super::channel::presence;
use super::mail::{Answer, Question};
use super::message::Message;
use crate::api::By;
use crate::ids::{Asker, ShardId};
use crate::protocol::channel::{Channel, ChannelName};
use crate::protocol::close::CloseReason;
use crate::protocol::dialect::Dialect;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::socket_id::SocketId;
use ahash::RandomState;
use busiest::Survey;
use extras::{ClientEvent, Extras};
use journal::{FOLLOWERS_MAX, Journal};
use reports::{Happening, Report, Reports};
use sighting::{Client, Filter, Sight, shortened, shown_channel};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use taps::{TAPS_MAX, Taps};

/// The observers of one shard.
pub struct Observers {
    shard: ShardId,
    /// Lifecycle events that this shard has yet to report to the journal.
    pub(super) reports: Reports,
    pub(super) taps: Taps,
    /// Used only in the shard [`journal::JOURNAL`].
    pub(super) journal: Journal,
    /// Surveys for the busiest channels and addresses, oldest first. Bounded by the requests that admin sessions may have
    /// open.
    pub(super) surveys: VecDeque<Survey>,
    /// Time of the turn, in microseconds. It does not wrap, because a sighting may wait for hours.
    clock_us: u64,
}

impl Observers {
    /// No observers. `hasher` provides the journal's epoch, which distinguishes one run of the server from another.
    pub fn new(shard: ShardId, shards: usize, hasher: RandomState) -> Observers {
        Observers {
            shard,
            reports: Reports::default(),
            taps: Taps::default(),
            journal: Journal::new(hasher.hash_one("epoch"), shards),
            surveys: VecDeque::new(),
            clock_us: 0,
        }
    }

    /// Sets the time of the turn.
    pub fn set_clock(&mut self, now_us: u64) {
        self.clock_us = now_us;
    }

    /// Whether a tap is open.
    pub fn is_watched(&self) -> bool {
        self.taps.is_open()
    }

    // ---- changes of connections and channels

    /// A connection was sent `socket:connected`.
    pub fn connected(&mut self, client: Client, now: u32) {
        let Client { socket_id, address, .. } = client;
        if self.reports.is_listening {
            self.reports.push(Happening::Connected { socket_id, address });
        }
        if self.taps.is_open() {
            self.see("connect", None, address, now, |_| Sight::Connect { client });
        }
    }

    /// A connection has ended.
    pub fn disconnected(&mut self, socket_id: SocketId, dialect: Dialect, reason: &CloseReason) {
        if self.reports.is_listening {
            self.reports.push(Happening::disconnected(socket_id, dialect, reason));
        }
    }

    /// A channel has its first subscriber.
    pub fn occupied(&mut self, channel: &ChannelName) {
        if self.reports.is_listening {
            self.reports.push(Happening::Occupied { channel: channel.clone() });
        }
    }

    /// A channel has had no subscriber for a while.
    pub fn vacated(&mut self, channel: ChannelName) {
        self.reports.push(Happening::Vacated { channel });
    }

    /// A change of the members of a presence channel.
    pub fn member(&mut self, channel: &ChannelName, event: &presence::Event) {
        if !self.reports.is_listening {
            return;
        }
        let (channel, user_id) = (channel.clone(), event.user().shared_id());
        self.reports.push(match event {
            presence::Event::Added(_) => Happening::MemberAdded { channel, user_id },
            presence::Event::Removed(_) => Happening::MemberRemoved { channel, user_id },
        });
    }

    /// What is reported beside changes. Nothing, unless a consumer has asked for it.
    #[inline]
    pub fn extras(&self) -> Extras {
        self.reports.extras
    }

    /// A client event was sequenced. The caller has checked [`Observers::extras`], here and below.
    pub fn client_event(&mut self, event: ClientEvent) {
        self.reports.push_extra(Happening::ClientEvent(Box::new(event)));
    }

    /// A new subscriber of a cache channel found no message.
    pub fn cache_miss(&mut self, channel: ChannelName) {
        self.reports.push_extra(Happening::CacheMiss { channel });
    }

    /// The number of a channel's subscribers is told.
    pub fn subscription_count(&mut self, channel: ChannelName, subscribers: u64) {
        self.reports.push_extra(Happening::SubscriptionCount { channel, subscribers });
    }

    // ---- lifecycle events

    /// Reports lifecycle events from now on, and these extras.
    pub fn listen(&mut self, extras: Extras) {
        self.reports.is_listening = true;
        self.reports.extras = extras;
    }

    /// The next letter to the journal: see [`Reports::letter`].
    pub fn report(&mut self, time_ms: impl FnOnce() -> u64, is_last: bool) -> Option<Report> {
        self.reports.letter(self.shard, time_ms, is_last)
    }

    /// Serves a question of a consumer. `Err` is the answer; `Ok(Some(…))`: the caller must tell the shards to report this.
    /// Other answers are part of a later call of [`Journal::answers`].
    pub fn follow(&mut self, asker: Asker, question: &Question) -> Result<Option<Extras>, Answer> {
        match *question {
            Question::Follow { is_own: false, .. } if self.journal.followers() >= FOLLOWERS_MAX => {
                return Err(Answer::TooMany { limit: FOLLOWERS_MAX });
            }
            Question::Follow { since, epoch, extras, .. } => {
                return Ok(self.journal.follow(asker, since, epoch, extras));
            }
            Question::Unfollow => return Ok(self.journal.leave(asker)),
            _ => self.journal.more(asker),
        }
        Ok(None)
    }

    // ---- the live tap

    /// Opens a tap.
    pub fn tap(&mut self, asker: Asker, filter: Arc<Filter>) -> Answer {
        if self.shard == TAPS && self.taps.count() >= TAPS_MAX {
            return Answer::TooMany { limit: TAPS_MAX };
        }
        self.taps.open(asker, filter);
        Answer::Tapped
    }

    /// Open taps of the server. Only the shard [`TAPS`] reports them; the others return 0.
    pub fn taps(&self) -> usize {
        if self.shard == TAPS { self.taps.count() } else { 0 }
    }

    /// The sightings to send to each tap now. `time_ms`: milliseconds since 1970.
    pub fn sightings(&mut self, time_ms: impl FnOnce() -> u64) -> Vec<(Asker, Answer)> {
        self.taps.answers(self.shard, self.clock_us, time_ms)
    }

    /// An upgrade request was answered with an HTTP error.
    pub fn see_refuse(&mut self, address: Option<SocketAddr>, why: &'static str, now: u32) {
        self.see("refuse", None, address, now, |_| Sight::Refuse { address, why });
    }

    /// A connection ends.
    pub fn see_close(
        &mut self,
        opened: Option<(SocketId, Dialect)>,
        address: Option<SocketAddr>,
        (reason, code): (&CloseReason, Option<u16>),
        now: u32,
    ) {
        let kind = reason.kind() as u8;
        self.see("close", None, address, now, |_| Sight::Close { opened, address, kind, code });
    }

    /// A client asked to subscribe or to unsubscribe, as `kind` says. `name` is as the client sent it.
    pub fn see_request(&mut self, kind: &'static str, client: Client, name: &str, error: Option<ErrorCode>, now: u32) {
        self.see(kind, Some(name), client.address, now, |_| {
            let (channel, error) = (shown_channel(name), error.map(ErrorCode::code));
            Sight::Request { kind, client, channel, error }
        });
    }

    /// A message of a client was refused because of its rate limit.
    pub fn see_limit(&mut self, client: Client, now: u32) {
        self.see("limit", None, client.address, now, |_| Sight::Limit { client });
    }

    /// A message was sequenced.
    pub fn see_publish(&mut self, channel: Channel<'_>, message: &Message<'_>, subscribers: u64, now: u32) {
        let &Message { event, data, .. } = message;
        self.see("publish", Some(channel.as_str()), None, now, |filter| Sight::Publish {
            channel: channel.into(),
            event: event.into(),
            bytes: data.map_or(0, str::len),
            subscribers,
            data: data.filter(|_| filter.data_bytes > 0).map(|data| shortened(data, filter.data_bytes).into()),
        });
    }

    fn see(
        &mut self,
        kind: &'static str,
        channel: Option<&str>,
        address: Option<SocketAddr>,
        now: u32,
        sight: impl Fn(&Filter) -> Sight,
    ) {
        self.taps.see(kind, channel, address, (self.clock_us, now), sight);
    }

    // ---- the busiest channels and addresses

    /// Starts a survey.
    pub fn survey(&mut self, asker: Asker, by: By, limit: usize) {
        self.surveys.push_back(Survey::new(asker, by, limit));
    }

    /// Cancels the session's surveys.
    pub fn cancel_surveys(&mut self, asker: Asker) {
        self.surveys.retain(|survey| !survey.is_for(asker));
    }

    /// Continues the oldest survey by at most `entries` entries. Returns its answer once it is complete.
    pub fn go_on(&mut self, directory: &Directory, addresses: &Addresses, entries: usize) -> Option<(Asker, Answer)> {
        if self.surveys.front_mut()?.go_on(directory, addresses, entries) == 0 {
            return None;
        }
        let Survey { asker, channels, addresses, .. } = self.surveys.pop_front()?;
        Some((asker, Answer::Busiest { channels: Box::new(channels), addresses: Box::new(addresses) }))
    }
}

/// For simulations.
#[cfg(any(test, fuzzing))]
impl Observers {
    /// Lowers the limit of changes that wait for the journal.
    pub fn set_happenings_max(&mut self, max: usize) {
        self.reports.happenings_max = max;
    }

    /// Lowers the limit of bytes that the journal keeps.
    pub fn set_journal_bytes_max(&mut self, max: usize) {
        self.journal.bytes_max = max;
    }

    /// Changes that wait for the journal.
    pub fn waiting_reports(&self) -> usize {
        self.reports.waiting()
    }
}

/// The shard that enforces the limit of taps.
pub const TAPS: ShardId = 0;
