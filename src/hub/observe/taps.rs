//! Taps: what a shard shows to people who watch it live. For each tap a filter, a sample of what passes it, at most so many
//! sightings a second, and a bounded number that wait; what does not fit is counted, and the count is shown.
//!
//! Nothing is looked at while there is no tap: one branch per request, publish and end of a connection, none per delivery.
//! A tap is told when it asks ([`Taps::more`]), so one that does not read costs what may wait for it and nothing else.

use crate::api::request::{KINDS, SHOWN_BYTES_MAX};
use crate::hub::mail::{Answer, Asker, ShardId};
use crate::protocol::channel::{Channel, ChannelName, NAME_BYTES_MAX};
use crate::protocol::socket_id::SocketId;
use ipnet::IpNet;
use std::net::SocketAddr;
use std::sync::Arc;

/// Something that the server saw, or decided.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are the words of their variant's sentence
pub enum Sight {
    /// A client was let in.
    Connect { socket_id: SocketId, address: Option<SocketAddr> },
    /// An upgrade request was answered with an HTTP error.
    Refuse { address: Option<SocketAddr>, why: &'static str },
    /// A client asked to hear a channel. The name is what it sent where it is no legal one.
    Subscribe { socket_id: SocketId, address: Option<SocketAddr>, channel: Box<str>, error: Option<&'static str> },
    /// Or no longer.
    Unsubscribe { socket_id: SocketId, address: Option<SocketAddr>, channel: Box<str>, error: Option<&'static str> },
    /// A message got its place; `event` as it stands between quotes, `bytes` those of its data, of which the first are shown
    /// where a tap asked for them.
    Publish { channel: ChannelName, event: Box<str>, bytes: usize, subscribers: u64, data: Option<Box<str>> },
    /// A connection ended.
    Close { socket_id: Option<SocketId>, address: Option<SocketAddr>, kind: u8, code: Option<u16> },
    /// A message was refused because its client sends too many.
    Limit { socket_id: SocketId, address: Option<SocketAddr> },
}

/// A sighting, and when: microseconds of the hub's clock of turns.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// When.
    pub at_us: u64,
    /// What was seen.
    pub sight: Sight,
}

/// What a tap wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Bits of [`KINDS`].
    pub kinds: u8,
    /// Only what concerns a channel of such a name; `*` stands for anything.
    pub channel: Option<Box<str>>,
    /// Only what clients from there do.
    pub network: Option<IpNet>,
    /// One in so many of what passes.
    pub sample: u32,
    /// At most so many a second and shard.
    pub rate: u32,
    /// Bytes of data that are shown.
    pub data_bytes: usize,
}

/// The taps of a shard.
#[derive(Default)]
pub struct Taps {
    taps: Vec<Tap>,
    /// Sightings given to taps.
    pub shown: u64,
    /// Those that were one too many.
    pub dropped: u64,
}

struct Tap {
    asker: Asker,
    filter: Arc<Filter>,
    waiting: Vec<Sighting>,
    /// It has asked for more.
    is_asking: bool,
    dropped: u64,
    /// What passed the filter since the last that was taken.
    passed: u32,
    /// The second that `taken` is of, and how many were taken in it.
    second: u32,
    taken: u32,
}

impl Taps {
    /// Whether anybody watches.
    pub fn is_open(&self) -> bool {
        !self.taps.is_empty()
    }

    /// How many do.
    pub fn count(&self) -> usize {
        self.taps.len()
    }

    /// Somebody begins to watch, and has asked for the first sightings by that.
    pub fn open(&mut self, asker: Asker, filter: Arc<Filter>) {
        self.taps.push(Tap {
            asker,
            passed: filter.sample - 1,
            filter,
            waiting: Vec::new(),
            is_asking: true,
            dropped: 0,
            second: 0,
            taken: 0,
        });
    }

    /// A tap has room for more.
    pub fn more(&mut self, asker: Asker) {
        self.taps.iter_mut().filter(|tap| tap.asker == asker).for_each(|tap| tap.is_asking = true);
    }

    /// A tap is gone.
    pub fn close(&mut self, asker: Asker) {
        self.taps.retain(|tap| tap.asker != asker);
        if self.taps.is_empty() {
            self.taps = Vec::new();
        }
    }

    /// Something was seen: of this kind, of this channel, by this client's doing. It is put into words for those who take it.
    pub fn see(
        &mut self,
        kind: &'static str,
        channel: Option<&str>,
        address: Option<SocketAddr>,
        (at_us, now): (u64, u32),
        sight: impl Fn(&Filter) -> Sight,
    ) {
        let Some(kind) = KINDS.iter().position(|name| *name == kind) else { return };
        for tap in &mut self.taps {
            if !tap.filter.passes(kind, channel, address) || !tap.samples() {
                continue;
            }
            if tap.has_room(now) {
                self.shown += 1;
                tap.waiting.push(Sighting { at_us, sight: sight(&tap.filter) });
            } else {
                self.dropped += 1;
                tap.dropped += 1;
            }
        }
    }

    /// What is to be shown to whom now. `time_ms`: that of `at_us`.
    pub fn answers(&mut self, shard: ShardId, at_us: u64, time_ms: impl FnOnce() -> u64) -> Vec<(Asker, Answer)> {
        let is_due = |tap: &&mut Tap| tap.is_asking && (!tap.waiting.is_empty() || tap.dropped > 0);
        let mut due = self.taps.iter_mut().filter(is_due).peekable();
        if due.peek().is_none() {
            return Vec::new();
        }
        let time_ms = time_ms();
        due.map(|tap| {
            tap.is_asking = false;
            let (sightings, dropped) = (std::mem::take(&mut tap.waiting), std::mem::take(&mut tap.dropped));
            (tap.asker, Answer::Seen { shard, at_us, time_ms, sightings, dropped })
        })
        .collect()
    }
}

impl Filter {
    /// Whether a tap wants to see it.
    fn passes(&self, kind: usize, channel: Option<&str>, address: Option<SocketAddr>) -> bool {
        let is_of_channel = |pattern: &str| channel.is_some_and(|channel| matches(pattern, channel));
        let is_of_network = |net: &IpNet| address.is_some_and(|address| net.contains(&address.ip().to_canonical()));
        self.kinds & 1 << kind != 0
            && self.channel.as_deref().is_none_or(is_of_channel)
            && self.network.as_ref().is_none_or(is_of_network)
    }
}

impl Tap {
    /// Whether it is the one in so many.
    fn samples(&mut self) -> bool {
        self.passed += 1;
        let is_taken = self.passed >= self.filter.sample;
        if is_taken {
            self.passed = 0;
        }
        is_taken
    }

    /// Whether one more may be taken.
    fn has_room(&mut self, now: u32) -> bool {
        let second = now / TICKS_PER_SECOND;
        if self.second != second {
            (self.second, self.taken) = (second, 0);
        }
        self.taken += 1;
        self.taken <= self.filter.rate && self.waiting.len() < WAITING_MAX
    }
}

/// Whether a name is of this pattern: `*` stands for any text, everything else for itself.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    // The earliest place for each leaves the most to those behind it.
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// The first bytes of a text, whole characters.
pub fn shortened(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// A channel's name as it is shown, also where it is no legal one.
pub fn shown_channel(name: &str) -> Box<str> {
    match Channel::parse(name) {
        Some(_) => name.into(),
        None => shortened(name, NAME_BYTES_MAX).into(),
    }
}

/// Taps of a server.
pub const TAPS_MAX: usize = 16;
/// Sightings of a shard that may wait for a tap.
const WAITING_MAX: usize = 2048;
/// Heap bytes of them: the name of a channel, that of an event, and data at most.
pub const WAITING_BYTES_MAX: usize =
    WAITING_MAX * (2 * size_of::<Sighting>() + NAME_BYTES_MAX + 2 * SHOWN_BYTES_MAX as usize);
const TICKS_PER_SECOND: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::request::RATE_MAX;

    fn filter() -> Filter {
        Filter { kinds: 0x7f, channel: None, network: None, sample: 1, rate: 1000, data_bytes: 0 }
    }

    fn asker() -> Asker {
        Asker { shard: 0, session: 0, generation: 0, request: 0 }
    }

    fn see(taps: &mut Taps, now: u32) {
        taps.see("refuse", None, None, (0, now), |_| Sight::Refuse { address: None, why: "why" });
    }

    /// Sightings and drops of the only answer.
    fn told(taps: &mut Taps) -> Option<(usize, u64)> {
        match taps.answers(0, 0, || 0).pop() {
            Some((_, Answer::Seen { sightings, dropped, .. })) => Some((sightings.len(), dropped)),
            _ => None,
        }
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name, expected) in [
            ("user:13", "user:13", true),
            ("user:13", "user:131", false),
            ("user:*", "user:", true),
            ("user:*", "users:1", false),
            ("*", "anything", true),
            ("*:1*:z", "a:1:1b:z", true),
            ("*:1*:z", "a:2b:z", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("**x**", "abxcd", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_filter_names_kinds_channels_and_networks() {
        let [near, far] = ["10.1.2.3:5", "11.1.2.3:5"].map(|address| address.parse().ok());
        let of = |change: &dyn Fn(&mut Filter)| {
            let mut filter = filter();
            change(&mut filter);
            filter
        };
        assert!(of(&|_| ()).passes(6, None, None));
        assert!(!of(&|filter| filter.kinds = 1).passes(6, None, None));
        let channel = of(&|filter| filter.channel = Some("a*".into()));
        assert!(
            channel.passes(2, Some("ab"), None)
                && !channel.passes(2, Some("b"), None)
                && !channel.passes(5, None, None)
        );
        let network = of(&|filter| filter.network = "10.0.0.0/8".parse().ok());
        assert!(network.passes(0, None, near) && !network.passes(0, None, far) && !network.passes(0, None, None));
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let mut taps = Taps::default();
        taps.open(asker(), Arc::new(Filter { rate: 3, ..filter() }));
        (0..5).for_each(|_| see(&mut taps, 9));
        assert_eq!((told(&mut taps), told(&mut taps)), (Some((3, 2)), None));
        (0..2).for_each(|_| see(&mut taps, 10));
        assert_eq!(told(&mut taps), None, "it has not asked");
        taps.more(asker());
        assert_eq!(told(&mut taps), Some((2, 0)), "another second");
        assert_eq!((taps.shown, taps.dropped), (5, 2));
        taps.close(asker());
        assert!(!taps.is_open());
    }

    #[test]
    fn one_that_does_not_ask_holds_a_bounded_number() {
        let mut taps = Taps::default();
        taps.open(asker(), Arc::new(Filter { rate: RATE_MAX, sample: 2, ..filter() }));
        (0..20_000).for_each(|_| see(&mut taps, 0));
        assert_eq!(told(&mut taps), Some((WAITING_MAX, 10_000 - WAITING_MAX as u64)));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!((shortened("aé", 2), shortened("aé", 3), shortened("", 9)), ("a", "aé", ""));
    }
}
