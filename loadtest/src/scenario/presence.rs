//! Users of presence channels that leave and come back all the time. Each has a connection of its own and keeps its view of the
//! channel: the members that `socket:subscribed` listed, and the changes since. At rest, every view must be what the server
//! lists as `members`, and the server must list the users that are subscribed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use serde_json::Value;

use super::{DRAIN_NS, conclude, is_heartbeat, note_ended, set_up};
use crate::clock::now_ns;
use crate::engine::{Ended, Handler, Net};
use crate::measure::{Latency, Tally};
use crate::members::{self, Users, channel_name, user_of, users_of};
use crate::plan::{Presence, nanoseconds};
use crate::target::KEY_PAIR;
use crate::worker::{Window, Worker};

/// Does a worker's share of the channels.
pub fn work(worker: &Worker, presence: &Presence) -> anyhow::Result<Tally> {
    let mut handler = Presences::new(worker, presence);
    let count = handler.users.len();
    let (mut net, mut window) = set_up(worker, &mut handler, count, |_| 0, |_, handler| handler.settled)?;
    worker.ready(&mut net, &mut handler)?;

    let start = worker.shared.start_at.load(SeqCst);
    handler.joins = 0;
    while let Some(now) = window.turn(worker, &net, handler.joins + handler.departures, 0) {
        handler.come_and_go(&mut net, start, now);
        net.turn(&mut handler, Some(Duration::from_millis(1)))?;
    }
    handler.come_to_rest(&mut net)?;
    Ok(handler.finish(&net, &window))
}

/// A user.
struct User {
    state: State,
    /// Its connection; it may have left the channel and kept it.
    connection: Option<usize>,
    socket_id: String,
    /// The members of its channel, as it knows them.
    view: Users,
    /// When it last subscribed.
    joined_ns: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Away,
    Joining,
    Here,
    /// Its unsubscribe is not answered yet.
    Leaving,
}

struct Presences<'a> {
    worker: &'a Worker,
    presence: Presence,
    /// Number of this worker's first user. All users of a channel belong to one worker.
    first: usize,
    users: Vec<User>,
    /// Users that wait for a connection.
    arriving: Vec<usize>,
    /// By connection: the user.
    user_of: Vec<Option<usize>>,
    /// Subscribes that were answered.
    settled: usize,
    /// When users come back that are away.
    returns: BinaryHeap<Reverse<(u64, usize)>>,
    departures: u64,
    joins: u64,
    /// From the subscribe to `subscribed`.
    joined: Latency,
    /// From the subscribe to `member_added` on the other connections of the channel.
    added: Latency,
    tally: Tally,
}

impl Presences<'_> {
    fn new<'a>(worker: &'a Worker, presence: &Presence) -> Presences<'a> {
        let channels = worker.share(presence.users.div_ceil(presence.each));
        let first = channels.start * presence.each;
        let count = (channels.end * presence.each).min(presence.users).saturating_sub(first);
        let user = || User {
            state: State::Joining,
            connection: None,
            socket_id: String::new(),
            view: Users::new(),
            joined_ns: 0,
        };
        Presences {
            worker,
            presence: presence.clone(),
            first,
            users: std::iter::repeat_with(user).take(count).collect(),
            arriving: (0..count).collect(),
            user_of: Vec::new(),
            settled: 0,
            returns: BinaryHeap::new(),
            departures: 0,
            joins: 0,
            joined: Latency::new(),
            added: Latency::new(),
            tally: Tally::default(),
        }
    }

    fn channel_of(&self, user: usize) -> usize {
        (self.first + user) / self.presence.each
    }

    /// Lets the users leave and return that are due.
    fn come_and_go(&mut self, net: &mut Net, start_ns: u64, now: u64) {
        let share = self.users.len() as f64 / self.presence.users as f64;
        let due = (now.saturating_sub(start_ns) as f64 / 1e9 * self.presence.rate * share) as u64;
        while self.departures < due {
            self.departures += 1;
            // Nearly all are there, so few tries are needed.
            let here = std::iter::repeat_with(|| fastrand::usize(..self.users.len())).take(100);
            let mut here = here.filter(|&user| self.users[user].state == State::Here);
            if let Some(user) = here.next() {
                self.leave(net, user, now);
            }
        }
        while let Some(&Reverse((at, user))) = self.returns.peek()
            && at <= now
        {
            self.returns.pop();
            self.come(net, user, now);
        }
    }

    /// A user leaves: it unsubscribes, closes its connection, or resets it.
    fn leave(&mut self, net: &mut Net, user: usize, now: u64) {
        self.returns.push(Reverse((now + fastrand::u64(..=2 * nanoseconds(self.presence.away)), user)));
        let channel = channel_name(self.channel_of(user));
        let it = &mut self.users[user];
        it.view.clear();
        let Some(id) = it.connection else { return };
        if fastrand::bool() {
            it.state = State::Leaving;
            let text = format!(r#"{{"event":"socket:unsubscribe","data":{{"channel":"{channel}"}}}}"#);
            return net.send_text(id, text.as_bytes());
        }
        (it.state, it.connection, self.user_of[id]) = (State::Away, None, None);
        if fastrand::bool() { net.close(id) } else { net.reset(id) }
    }

    /// A user comes back, on the connection that it has or on another one.
    fn come(&mut self, net: &mut Net, user: usize, now: u64) {
        let it = &mut self.users[user];
        match (it.state, it.connection) {
            (State::Away, Some(id)) => self.subscribe(net, id, user, now),
            (State::Away, None) => {
                it.state = State::Joining;
                self.arriving.push(user);
                net.open(0);
            }
            (State::Leaving, _) => self.returns.push(Reverse((now + NOT_YET_NS, user))),
            (State::Joining | State::Here, _) => {}
        }
    }

    fn subscribe(&mut self, net: &mut Net, id: usize, user: usize, now: u64) {
        let channel = self.channel_of(user);
        let it = &mut self.users[user];
        (it.state, it.joined_ns) = (State::Joining, now);
        let text = members::subscribe(KEY_PAIR, &it.socket_id, channel, self.first + user);
        net.send_text(id, text.as_bytes());
    }

    fn subscribed(&mut self, user: usize, data: &Value, now: u64) {
        let number = self.first + user;
        let it = &mut self.users[user];
        let members = users_of(&data["presence"]["members"]);
        let is_right = it.state == State::Joining
            && members.as_ref().is_some_and(|them| them.contains(&number) && data["presence"]["count"] == them.len());
        it.view = members.unwrap_or_default();
        it.state = State::Here;
        self.joined.record(now.saturating_sub(it.joined_ns), 1);
        self.settled += 1;
        self.joins += 1;
        if !is_right {
            self.wrong(format!("u{number} was told that the members are {data}"));
        }
    }

    /// A member of the channel of `user` came or went.
    fn changed(&mut self, user: usize, member: &Value, is_added: bool, now: u64) {
        let number = self.first + user;
        let it = &mut self.users[user];
        match (it.state, user_of(member)) {
            // Events that were on their way when it left.
            (State::Leaving, _) => return,
            (State::Here, Some(other)) if other != number => {
                let is_new = if is_added { it.view.insert(other) } else { it.view.remove(&other) };
                let joined_ns = other.checked_sub(self.first).and_then(|at| self.users.get(at)).map(|it| it.joined_ns);
                if let Some(joined_ns) = joined_ns.filter(|_| is_added) {
                    self.added.record(now.saturating_sub(joined_ns), 1);
                }
                self.tally.duplicated += u64::from(!is_new);
                return;
            }
            _ => {}
        }
        self.wrong(format!("u{number} was told about {member} (added: {is_added})"));
    }

    fn wrong(&mut self, what: String) {
        self.tally.invalid += 1;
        self.tally.note(what.chars().take(200).collect::<String>());
    }

    /// Waits until every view is what the server lists, and the server lists the users that are subscribed; at most for the grace and
    /// the time of a drain. Users that are away stay away.
    fn come_to_rest(&mut self, net: &mut Net) -> anyhow::Result<()> {
        let begun = now_ns();
        loop {
            let next = now_ns() + CHECK_NS;
            while now_ns() < next {
                net.turn(self, Some(Duration::from_millis(10)))?;
            }
            let moving =
                self.users.iter().filter(|it| matches!(it.state, State::Joining | State::Leaving)).count() as u64;
            let (right, wrong) = self.compare();
            if (moving == 0 && wrong.is_empty()) || now_ns() - begun > self.presence.grace * 1_000_000_000 + DRAIN_NS {
                self.tally.unanswered += moving;
                self.tally.count("views_right", right);
                self.tally.count("views_wrong", wrong.len() as u64);
                wrong.into_iter().take(5).for_each(|what| self.tally.note(what));
                return Ok(());
            }
        }
    }

    /// The number of views that are as the server's lists, and what is not as it should be.
    fn compare(&self) -> (u64, Vec<String>) {
        let (mut right, mut wrong) = (0, Vec::new());
        let channels = self.first / self.presence.each..(self.first + self.users.len()).div_ceil(self.presence.each);
        let Some(admin) = &self.worker.plan.admin_socket else {
            return (0, vec!["the plan names no admin socket".into()]);
        };
        let lists = match members::ask(admin, channels) {
            Ok(lists) => lists,
            Err(error) => return (0, vec![format!("{error:#}")]),
        };
        for (channel, listed) in lists {
            let start = channel * self.presence.each - self.first;
            let end = (start + self.presence.each).min(self.users.len());
            let here = (start..end).filter(|&user| self.users[user].state == State::Here);
            let there: Users = here.clone().map(|user| self.first + user).collect();
            if listed != there {
                wrong.push(format!("{} lists {listed:?}; there are {there:?}", channel_name(channel)));
            }
            for user in here {
                let view = &self.users[user].view;
                if *view == listed {
                    right += 1;
                } else {
                    wrong.push(format!(
                        "u{} sees {view:?}; {} lists {listed:?}",
                        self.first + user,
                        channel_name(channel)
                    ));
                }
            }
        }
        (right, wrong)
    }

    fn finish(self, net: &Net, window: &Window) -> Tally {
        let mut tally = conclude(self.tally, net, window);
        tally.count("joins", self.joins);
        tally.count("departures", self.departures);
        tally.latencies.insert("joined".into(), self.joined);
        tally.latencies.insert("added".into(), self.added);
        tally
    }
}

impl Handler for Presences<'_> {
    fn greeted(&mut self, id: usize, greeting: &[u8]) {
        let Some(user) = self.arriving.pop() else { return };
        let greeting: Value = serde_json::from_slice(greeting).unwrap_or_default();
        self.user_of.resize(self.user_of.len().max(id + 1), None);
        self.user_of[id] = Some(user);
        self.users[user].connection = Some(id);
        self.users[user].socket_id = greeting["data"]["socket_id"].as_str().unwrap_or_default().into();
    }

    fn opened(&mut self, net: &mut Net, id: usize, _connect_ns: u64) {
        if let Some(user) = self.user_of[id] {
            self.subscribe(net, id, user, now_ns());
        }
    }

    fn frame(&mut self, net: &mut Net, id: usize, payload: &[u8], now: u64) {
        if is_heartbeat(net, id, payload) {
            return;
        }
        let Some(user) = self.user_of[id] else { return };
        let message: Value = serde_json::from_slice(payload).unwrap_or_default();
        match message["event"].as_str() {
            Some("socket:member_added") => self.changed(user, &message["data"], true, now),
            Some("socket:member_removed") => self.changed(user, &message["data"], false, now),
            Some("socket:subscribed") => self.subscribed(user, &message["data"], now),
            Some("socket:unsubscribed") if self.users[user].state == State::Leaving => {
                self.users[user].state = State::Away;
            }
            _ => {
                self.settled += 1;
                self.wrong(format!("the server said {message}"));
            }
        }
    }

    fn closed(&mut self, _net: &mut Net, id: usize, why: Ended) {
        note_ended(&mut self.tally, &why);
        let user = self.user_of.get_mut(id).and_then(Option::take).or_else(|| self.arriving.pop());
        if let Some(user) = user {
            (self.users[user].state, self.users[user].connection) = (State::Away, None);
        }
    }
}

/// Time after which a return is tried again, because an unsubscribe is not answered yet.
const NOT_YET_NS: u64 = 10_000_000;
/// Time between two comparisons at rest.
const CHECK_NS: u64 = 200_000_000;
