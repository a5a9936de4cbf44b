//! A client: its requests, the frames that it must receive because of them, and a check of each frame that it receives.

use crate::config::{OnSubscribe, Presence, Rule, Slow};
use crate::hub::channel::history::REPLAY_MESSAGES_MAX;
use crate::hub::message::Payload;
use crate::hub::simulation::presence::{self, View};
use crate::hub::simulation::pusher::{self, Translator};
use crate::ids::ConnKey;
use crate::protocol::channel::{Channel, ChannelName};
use crate::wire::frame::split_text;
use std::collections::{BTreeMap, HashSet, VecDeque};

/// All published messages, and each channel's order.
#[derive(Default)]
pub struct History {
    pub channels: Vec<ChannelHistory>,
    pub messages: Vec<Message>,
    /// Whether kept messages can expire, or be removed to free memory.
    pub forgets: bool,
}

pub struct ChannelHistory {
    pub name: String,
    pub hash: u64,
    pub owner: usize,
    pub needs_auth: bool,
    /// Whether each shard has a spy: a client that is subscribed to the channel from start to end.
    pub is_spied: bool,
    /// What the channel has beyond delivery.
    pub rule: Rule,
    /// The values of `dedupe` that were published.
    pub seen: HashSet<u8>,
    /// Numbers of the messages, in the channel's order.
    pub order: Vec<usize>,
}

#[derive(Default)]
pub struct Message {
    pub channel: usize,
    /// Raw JSON.
    pub data: Option<String>,
    /// The excluded client.
    pub exclude: Option<usize>,
    /// Its place in the channel's order, once it is sequenced.
    pub place: Option<usize>,
    /// The offset that its owner gave it, if the channel keeps a history.
    pub offset: Option<u64>,
    /// Its `dedupe`.
    pub dedupe: Option<u8>,
    /// It was repeated, and not sequenced.
    pub is_repetition: bool,
    /// The value that it updates.
    pub key: Option<&'static str>,
    /// A client sent it, which is excluded.
    pub is_client_event: bool,
    /// The user of the client that sent it.
    pub user_id: Option<String>,
}

/// The position of a client that may come back, as another connection.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    pub epoch: u64,
    pub offset: u64,
    /// The client that had it, if the server is told.
    pub earlier: Option<usize>,
}

pub struct Client {
    pub number: usize,
    pub key: ConnKey,
    pub socket_id: String,
    pub is_spy: bool,
    pub is_live: bool,
    /// It is ending, and receives only replies to its requests.
    pub is_muted: bool,
    /// It speaks Pusher's dialect.
    pub pusher: Option<Translator>,
    is_greeted: bool,
    /// Messages are held back for it.
    pub is_lagging: bool,
    /// The number of the first message after it last had what was held back; 0: nothing ever was.
    pub caught_up_at: usize,
    /// The user that it has signed in as.
    pub user: Option<usize>,
    /// The users that it watches, and which of them are online, once it was told.
    pub watchlist: &'static [&'static str],
    pub watched: BTreeMap<String, bool>,
    /// By channel: whether it is subscribed once all requests so far, its own and the operator's, are answered.
    pub wanted: Vec<bool>,
    /// Replies that it must receive next.
    pub replies: VecDeque<Reply>,
    /// By channel: changes of its membership that are not acknowledged.
    pub changes: Vec<VecDeque<Change>>,
    /// By channel: the messages received since `socket:subscribed`.
    runs: Vec<Option<Run>>,
    /// By channel: what it knows about the channel's presence, while it is subscribed.
    pub views: Vec<Option<View>>,
    /// By channel: its last subscribe was refused by the owner.
    is_refused: Vec<bool>,
    /// By channel: the position of its last message, or of its last subscription.
    pub positions: Vec<Option<Position>>,
}

#[derive(Debug, PartialEq)]
pub struct Reply {
    pub event: &'static str,
    pub channel: Option<String>,
    /// The error's code, or the pong's id.
    pub detail: Option<String>,
}

#[derive(Debug)]
pub enum Change {
    /// `user`: as whom it subscribes. `entry`: set once the owner has decided.
    Subscribe { since: Option<Position>, user: Option<String>, entry: Option<Entry> },
    /// Every message before this place must arrive. `end`: the place from which on none may, once the owner has decided.
    Unsubscribe { until: usize, is_asked: bool, end: Option<usize> },
}

/// What the owner decides about a subscribe.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Messages from this place on are for the client.
    pub at: usize,
    /// The channel has no room for its user.
    pub is_full: bool,
}

#[derive(Debug)]
struct Run {
    from: usize,
    /// The first place whose message must be received next.
    next: usize,
    is_started: bool,
    /// Messages before this place came before the subscription. Of these, client events are not sent again.
    live: usize,
    /// Messages before this place are sent again; those that were not for the client of the earlier connection are not.
    replayed: usize,
    earlier: Option<usize>,
    /// Messages before this place may greet a newcomer, which then receives also those that were not for it.
    greeted: usize,
}

impl ChannelHistory {
    pub fn channel(&self) -> Channel<'_> {
        Channel::of_legal(&self.name)
    }
}

impl Client {
    pub fn new(number: usize, key: ConnKey, socket_id: String, channels: usize) -> Client {
        Client {
            number,
            key,
            socket_id,
            is_spy: false,
            is_live: true,
            is_muted: false,
            pusher: None,
            is_greeted: false,
            is_lagging: false,
            caught_up_at: 0,
            user: None,
            watchlist: &[],
            watched: BTreeMap::new(),
            wanted: vec![false; channels],
            replies: VecDeque::new(),
            changes: (0..channels).map(|_| VecDeque::new()).collect(),
            runs: (0..channels).map(|_| None).collect(),
            views: (0..channels).map(|_| None).collect(),
            is_refused: vec![false; channels],
            positions: vec![None; channels],
        }
    }

    /// Checks output for the client: whole frames, each of which must be expected.
    pub fn read(&mut self, bytes: &[u8], history: &History) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (payload, after) = split_text(rest);
            rest = after;
            let translated = match &mut self.pusher {
                None => payload.to_owned(),
                Some(pusher) => match pusher.message(payload, self.replies.front(), history) {
                    Some(translated) => translated,
                    None => {
                        self.check_miss(payload, history);
                        self.check_count(payload, history);
                        self.check_watched(payload);
                        continue;
                    }
                },
            };
            let payload = &*translated;
            let frame = Frame::parse(payload);
            if frame.event == "socket:connected" {
                assert!(!self.is_greeted, "a second socket:connected");
                assert!(payload.contains(&self.socket_id), "the socket id is not {}", self.socket_id);
                self.is_greeted = true;
                continue;
            }
            assert!(self.is_greeted, "{payload} came before socket:connected");
            if matches!(frame.event, "socket:member_added" | "socket:member_removed" | "socket:presence") {
                self.check_presence(&frame, history);
            } else if frame.event.starts_with("socket:") {
                self.check_reply(&frame, history);
            } else {
                self.check_message(&frame, history);
            }
        }
    }

    fn check_reply(&mut self, frame: &Frame<'_>, history: &History) {
        let channel = frame.channel.and_then(|name| history.find(name));
        if let Some(channel) = channel.filter(|_| self.is_muted) {
            while let Some(Change::Unsubscribe { is_asked: false, .. }) = self.changes[channel].front() {
                self.changes[channel].pop_front();
                self.runs[channel] = None;
                self.views[channel] = None;
            }
        }
        if let Some(channel) = channel.filter(|_| frame.data.is_some_and(|data| data.ends_with(r#""presence_full"}"#)))
        {
            return self.check_full(channel, frame);
        }
        let was_asked = match (frame.event, channel) {
            ("socket:subscribed", Some(channel)) => {
                let Some(Change::Subscribe { since, user, entry }) = self.changes[channel].pop_front() else {
                    panic!("{frame:?}: nothing to subscribe");
                };
                let Entry { at, is_full } = entry.expect("the owner was asked");
                assert!(!is_full, "{frame:?}: the channel has no room for {user:?}");
                self.is_refused[channel] = false;
                let told: Told = serde_json::from_str(frame.data.unwrap_or("{}")).expect("what a subscriber is told");
                assert!(frame.data != Some("{}"), "{frame:?}");
                let run = self.begin_run(&told, channel, at, since, history);
                let mut rule = history.channels[channel].rule.presence;
                if self.pusher.is_some() && rule == Presence::Count {
                    // Counts are of the native dialect.
                    rule = Presence::Off;
                }
                self.views[channel] = Some(View::new(rule, user, told.presence));
                let before = self.runs[channel].replace(run);
                assert!(before.is_none(), "{frame:?}: is subscribed");
                true
            }
            ("socket:unsubscribed", Some(channel)) => self.check_unsubscribed(channel, frame, history),
            ("socket:signed_in", _) => {
                self.check_signed_in(frame, history);
                true
            }
            _ => true,
        };
        if was_asked {
            let expected = self.replies.pop_front();
            assert!(
                expected.as_ref().is_some_and(|reply| frame.is(reply)),
                "received {frame:?}, expected {expected:?}"
            );
        }
    }

    /// Returns whether the client asked for it.
    fn check_unsubscribed(&mut self, channel: usize, frame: &Frame<'_>, history: &History) -> bool {
        let Some(Change::Unsubscribe { until, is_asked, end }) = self.changes[channel].pop_front() else {
            panic!("{frame:?}: nothing to unsubscribe");
        };
        assert!(!is_asked || end.is_some(), "{frame:?}: the owner was not asked");
        if let (Some(end), Some(run)) = (end, &self.runs[channel]) {
            assert!(!run.is_started || run.next <= end, "{frame:?}: a message came after {end}: {run:?}");
        }
        let until = end.unwrap_or(until);
        let is_refused = std::mem::take(&mut self.is_refused[channel]);
        assert!(!is_refused || self.runs[channel].is_none());
        // What is held back is dropped with the subscription, which may be some time before this reply.
        let has_lagged = self.is_lagging || self.caught_up_at > 0;
        let is_dropped = has_lagged && history.channels[channel].rule.slow != Slow::Disconnect;
        if !self.is_muted && !is_refused && !is_dropped {
            self.check_received_until(channel, until, history);
        }
        self.runs[channel] = None;
        self.views[channel] = None;
        is_asked
    }

    /// The owner has refused a subscribe because the channel has no room for another user.
    fn check_full(&mut self, channel: usize, frame: &Frame<'_>) {
        let change = self.changes[channel].pop_front();
        let is_full = |change: &Change| matches!(change, Change::Subscribe { entry: Some(entry), .. } if entry.is_full);
        assert!(change.as_ref().is_some_and(is_full), "{frame:?}: the channel has room: {change:?}");
        let expected = self.replies.pop_front().map(|reply| (reply.event, reply.channel));
        assert_eq!(expected, Some(("socket:subscribed", frame.channel.map(str::to_owned))));
        self.is_refused[channel] = true;
        // It is not told that an operator ended a subscription that it did not have.
        while let Some(Change::Unsubscribe { is_asked: false, .. }) = self.changes[channel].front() {
            self.changes[channel].pop_front();
        }
    }

    /// From the first sign-in on, the client is subscribed to the channel of its user.
    fn check_signed_in(&mut self, frame: &Frame<'_>, history: &History) {
        let told: SignedIn = serde_json::from_str(frame.data.expect("data")).expect("a user");
        let channel = history.find(ChannelName::of_user(&told.user_id).as_channel().as_str()).expect("a user");
        let Some(Change::Subscribe { entry, .. }) = self.changes[channel].pop_front() else {
            assert!(self.runs[channel].is_some(), "{frame:?}: is not signed in");
            return;
        };
        let rule = &history.channels[channel].rule;
        self.runs[channel] = Some(Run::live(entry.expect("the owner was asked").at));
        self.views[channel] = Some(View::new(rule.presence, None, None));
    }

    /// The messages that must follow a `socket:subscribed`, of which those from the place `at` on are live.
    fn begin_run(&mut self, told: &Told, channel: usize, at: usize, since: Option<Position>, history: &History) -> Run {
        let topic = &history.channels[channel];
        let live = Run::live(at);
        let Some(limits) = topic.rule.history else {
            let recovered = since.map(|_| false);
            assert_eq!((&told.epoch, told.offset, told.recovered), (&None, None, recovered), "{}", topic.name);
            return live;
        };
        let kept = history.kept_before(topic, at);
        let greeting = kept.len().saturating_sub(greeting_max(&topic.rule));
        if self.pusher.is_some() {
            // It is not told whether older messages are still kept.
            let Some(&(from, _)) = kept.get(greeting) else { return live };
            return Run { from, next: if history.forgets { at } else { from }, greeted: at, ..live };
        }
        let (Some(epoch), Some(offset)) = (&told.epoch, told.offset) else { panic!("{told:?}: no position") };
        let epoch = u64::from_str_radix(epoch, 16).expect("an epoch");
        self.positions[channel] = Some(Position { epoch, offset, earlier: Some(self.number) });
        assert_eq!(told.recovered.is_some(), since.is_some(), "{told:?}");
        let place_of = |index: usize| kept.get(index).map_or(at, |&(place, _)| place);
        let last = kept.last().filter(|_| !history.forgets).map_or(offset, |&(_, offset)| offset);
        if let Some(since) = since {
            let older = kept.partition_point(|&(_, offset)| offset <= since.offset);
            let may_recover = since.epoch == epoch
                && since.offset <= last
                && kept.len() - older <= REPLAY_MESSAGES_MAX.min(limits.messages_max as usize);
            if told.recovered == Some(true) {
                assert!(may_recover && offset == last, "{told:?} to {since:?}: {kept:?}");
                let from = place_of(older);
                return Run { from, next: from, replayed: at, earlier: since.earlier, ..live };
            }
            // Whether the channel existed at a position before its first message is not known here.
            let must_recover = may_recover && older > 0 && !history.forgets;
            assert!(!must_recover, "{told:?} to {since:?}: {kept:?}");
        }
        let from = place_of(kept.partition_point(|&(_, kept)| kept <= offset));
        if !history.forgets {
            let position = kept.get(greeting).map_or(last, |&(_, offset)| offset - 1);
            assert_eq!((from, offset), (place_of(greeting), position), "{told:?}: {kept:?}");
        }
        Run { from, next: from, greeted: at, ..live }
    }

    /// A channel with a cache has nothing for this newcomer, if the message is `pusher:cache_miss`.
    fn check_miss(&self, payload: &str, history: &History) {
        if payload.contains(r#""pusher:cache_miss""#) && !history.forgets {
            let runs = self.runs.iter().zip(&history.channels);
            let mut of_channel = runs.filter(|(_, topic)| payload.contains(&format!(r#""channel":"{}""#, topic.name)));
            let run = of_channel.next().and_then(|(run, _)| run.as_ref()).expect("a subscription");
            assert!(run.greeted == 0 && !run.is_started, "{payload}, but there was a message: {run:?}");
        }
    }

    /// The number of subscribers is told to subscribers alone, if the message is `pusher_internal:subscription_count`.
    fn check_count(&self, payload: &str, history: &History) {
        if payload.contains(r#""pusher_internal:subscription_count""#) {
            assert!(!self.is_muted, "{payload} was received after the end");
            let runs = self.runs.iter().zip(&history.channels);
            let mut of_channel = runs.filter(|(_, topic)| payload.contains(&format!(r#""channel":"{}""#, topic.name)));
            assert!(of_channel.any(|(run, _)| run.is_some()), "{payload} was received without a subscription");
        }
    }

    fn check_message(&mut self, frame: &Frame<'_>, history: &History) {
        let number = number_of(frame.event);
        assert!(!self.is_muted, "m{number} was received after the end");
        let message = &history.messages[number];
        let channel = message.channel;
        let topic = &history.channels[channel];
        // A message to a user has no channel.
        assert_eq!(frame.channel, Some(&*topic.name).filter(|_| !topic.channel().is_of_user()));
        assert_eq!(frame.user_id, message.user_id.as_deref(), "m{number}: the user");
        assert!(frame.data == message.data.as_deref(), "m{number}: the data changed");
        let Some(place) = message.place else {
            panic!("m{number} was received before it was sequenced");
        };
        let Some(run) = &mut self.runs[channel] else {
            panic!("m{number} was received without a subscription to {}", topic.name);
        };
        assert_eq!(frame.offset, message.offset, "m{number}: the offset changed");
        let is_kept = !message.is_client_event;
        let is_greeting = is_kept && place < run.greeted;
        assert!(is_greeting || message.exclude != Some(self.number), "m{number} excludes this client");
        let is_replayed = is_kept && place < run.replayed;
        assert!(
            !is_replayed || message.exclude.is_none() || message.exclude != run.earlier,
            "m{number} was not for {run:?}"
        );
        assert!(is_kept || place >= run.live, "m{number}, a client event, came before {run:?}");
        let at_least = if run.is_started { run.next } else { run.from };
        assert!(place >= at_least, "m{number}, place {place}, was received twice or too early: {run:?}");
        let due = run.next;
        run.is_started = true;
        run.next = place + 1;
        self.check_none_due(channel, due, place, history);
        if let (Some(offset), Some(position)) = (frame.offset, &mut self.positions[channel]) {
            position.offset = offset;
        }
    }

    /// An event about other subscribers.
    fn check_presence(&mut self, frame: &Frame<'_>, history: &History) {
        assert!(!self.is_muted, "{frame:?} was received after the end");
        let channel = frame.channel.and_then(|name| history.find(name)).expect("a channel");
        let Some(view) = &mut self.views[channel] else { panic!("{frame:?} was received without a subscription") };
        assert_eq!(frame.offset, None);
        view.handle(frame.event, frame.data.expect("data"));
    }

    fn check_received_until(&self, channel: usize, until: usize, history: &History) {
        match &self.runs[channel] {
            Some(run) => self.check_none_due(channel, run.next, until, history),
            None => panic!("the subscription to {channel} ends and has not begun"),
        }
    }

    fn check_none_due(&self, channel: usize, from: usize, until: usize, history: &History) {
        for place in from..until {
            let number = history.channels[channel].order[place];
            let Message { exclude, is_client_event, .. } = history.messages[number];
            let run = self.runs[channel].as_ref();
            let earlier = run.filter(|run| place < run.replayed).and_then(|run| run.earlier);
            let is_not_kept = is_client_event && run.is_some_and(|run| place < run.live);
            assert!(
                exclude.is_some() && (exclude == Some(self.number) || exclude == earlier)
                    || is_not_kept
                    || self.is_replaced(channel, place, history),
                "m{number}, place {place} of {}, is missing: {run:?}",
                history.channels[channel].name
            );
        }
    }

    /// Whether a message may have been held back for this client, and a newer one of the same key has taken its place. The newer
    /// one need not arrive: the client may be excluded from it.
    fn is_replaced(&self, channel: usize, place: usize, history: &History) -> bool {
        let topic = &history.channels[channel];
        let number = topic.order[place];
        if !self.is_lagging && number >= self.caught_up_at {
            return false;
        }
        let mut newer = topic.order[place + 1..].iter().map(|&number| &history.messages[number]);
        match topic.rule.slow {
            Slow::Disconnect => false,
            Slow::Latest => newer.next().is_some(),
            Slow::LatestByKey => newer.any(|newer| newer.key == history.messages[number].key),
        }
    }

    /// The owner has decided about the oldest subscribe that it was not asked about before.
    pub fn enters(&mut self, channel: usize, entry: Entry) {
        let mut entries = self.changes[channel].iter_mut().filter_map(|change| match change {
            Change::Subscribe { entry: entry @ None, .. } => Some(entry),
            _ => None,
        });
        *entries.next().expect("a subscribe") = Some(entry);
    }

    /// The same for an unsubscribe.
    pub fn leaves(&mut self, channel: usize, at: usize) {
        let mut ends = self.changes[channel].iter_mut().filter_map(|change| match change {
            Change::Unsubscribe { end: end @ None, is_asked: true, .. } => Some(end),
            _ => None,
        });
        *ends.next().expect("an unsubscribe") = Some(at);
    }

    /// The user of the oldest subscribe that the owner was not asked about.
    pub fn enters_as(&self, channel: usize) -> Option<&str> {
        let mut users = self.changes[channel].iter().filter_map(|change| match change {
            Change::Subscribe { entry: None, user, .. } => Some(user),
            _ => None,
        });
        users.next().and_then(Option::as_deref)
    }

    /// What it is told about the users of its watchlist, if the message is `pusher_internal:watchlist_events`: first of each
    /// user, then of changes alone.
    fn check_watched(&mut self, payload: &str) {
        let Some(told) = pusher::watched(payload) else { return };
        assert!(!self.is_muted, "{payload} was received after the end");
        let is_first = self.watched.is_empty();
        assert!(!is_first || told.len() == self.watchlist.len(), "{payload}");
        for (id, is_online) in told {
            assert!(self.watchlist.contains(&&*id), "{payload}");
            let before = self.watched.insert(id, is_online);
            assert_eq!(before, (!is_first).then_some(!is_online), "{payload} is not a change");
        }
    }

    /// Whether all requests are answered.
    pub fn is_answered(&self) -> bool {
        self.replies.is_empty() && self.changes.iter().all(VecDeque::is_empty)
    }

    /// Checks that each subscription has received all messages, and that the client has the subscriptions that it wants.
    pub fn check_complete(&self, history: &History) {
        for (channel, topic) in history.channels.iter().enumerate() {
            if !self.changes[channel].is_empty() {
                continue;
            }
            assert_eq!(self.runs[channel].is_some(), self.wanted[channel]);
            if self.wanted[channel] {
                self.check_received_until(channel, topic.order.len(), history);
            }
        }
    }
}

impl Run {
    /// Of a subscription without a replay, from this place on.
    fn live(at: usize) -> Run {
        Run { from: at, next: at, is_started: false, live: at, replayed: 0, earlier: None, greeted: 0 }
    }
}

impl History {
    fn find(&self, name: &str) -> Option<usize> {
        self.channels.iter().position(|channel| channel.name == name)
    }

    /// Place and offset of each message before a place that backends have published.
    fn kept_before(&self, topic: &ChannelHistory, at: usize) -> Vec<(usize, u64)> {
        let places = topic.order[..at].iter().enumerate();
        places.filter_map(|(place, &number)| Some((place, self.messages[number].offset?))).collect()
    }

    /// The offset of the published message with this event.
    pub fn offset_of(&self, event: &str) -> Option<u64> {
        self.messages[number_of(event)].offset
    }

    /// The owner sequences the message: appends it to the channel's order, unless it is a repetition.
    pub fn sequence(&mut self, number: usize) {
        let message = &mut self.messages[number];
        let channel = &mut self.channels[message.channel];
        assert!(message.place.is_none() && !message.is_repetition, "m{number} was sequenced twice");
        if message.dedupe.is_some_and(|key| !channel.seen.insert(key)) {
            message.is_repetition = true;
            return;
        }
        message.place = Some(channel.order.len());
        channel.order.push(number);
    }
}

/// The parsed payload of a frame. The server writes members in a fixed order.
#[derive(Debug)]
struct Frame<'a> {
    event: &'a str,
    channel: Option<&'a str>,
    data: Option<&'a str>,
    offset: Option<u64>,
    user_id: Option<&'a str>,
}

/// The data of a `socket:signed_in`.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct SignedIn {
    user_id: String,
}

/// The data of a `socket:subscribed`.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    epoch: Option<String>,
    offset: Option<u64>,
    recovered: Option<bool>,
    presence: Option<presence::Told>,
}

impl<'a> Frame<'a> {
    fn parse(payload: &'a str) -> Frame<'a> {
        let inside = payload.strip_prefix(r#"{"event":""#).and_then(|rest| rest.strip_suffix('}'));
        let (event, mut rest) =
            inside.and_then(|rest| rest.split_once('"')).unwrap_or_else(|| panic!("no event: {payload}"));
        let mut channel = None;
        if let Some((name, after)) = rest.strip_prefix(r#","channel":""#).and_then(|rest| rest.split_once('"')) {
            (channel, rest) = (Some(name), after);
        }
        let mut user_id = None;
        if let Some((before, id)) = rest.rsplit_once(r#","user_id":""#)
            && let Some(id) = id.strip_suffix('"')
        {
            (rest, user_id) = (before, Some(id));
        }
        let mut offset = None;
        if let Some((before, digits)) = rest.rsplit_once(r#","offset":"#)
            && let Ok(number) = digits.parse()
        {
            (rest, offset) = (before, Some(number));
        }
        let data = rest.strip_prefix(r#","data":"#);
        assert!(data.is_some() || rest.is_empty(), "unexpected members: {payload}");
        Frame { event, channel, data, offset, user_id }
    }

    fn is(&self, reply: &Reply) -> bool {
        let detail = self.data.filter(|_| self.event != "socket:subscribed").and_then(|data| {
            let text = data.strip_suffix('}')?;
            if self.event == "socket:pong" {
                return text.strip_prefix(r#"{"reply":"#);
            }
            text.strip_suffix('"')?.rsplit_once(r#""code":""#).map(|(_, code)| code)
        });
        self.event == reply.event && self.channel == reply.channel.as_deref() && detail == reply.detail.as_deref()
    }
}

/// Most messages that a newcomer is sent.
fn greeting_max(rule: &Rule) -> usize {
    match rule.on_subscribe {
        OnSubscribe::Nothing => 0,
        OnSubscribe::Last => 1,
        OnSubscribe::All => rule.history.map_or(0, |limits| REPLAY_MESSAGES_MAX.min(limits.messages_max as usize)),
    }
}

/// The number of the published message in a letter; `None`: it is an event about subscribers.
pub fn message_of(payload: &Payload) -> Option<usize> {
    Some(payload.message(None).event).filter(|event| !event.starts_with("socket:")).map(number_of)
}

fn number_of(event: &str) -> usize {
    event
        .strip_prefix("client-")
        .unwrap_or(event)
        .strip_prefix('m')
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_else(|| panic!("{event} is not the event of a published message"))
}
