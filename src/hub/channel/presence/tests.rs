//! Members against a naive model, and the views of subscribers that see only their list and the events after it.

use super::Event;
use super::members::{Full, Left, Members};
use super::timers::{Due, LEAVING_MAX, Timers};
use super::user::User;
use crate::ids::ConnKey;
use crate::protocol::dialect::Dialect;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A user's id and info, as subscribers see them.
type Seen = (String, Option<String>);

fn connection(slot: u32) -> ConnKey {
    ConnKey { shard: (slot % 3) as u16, slot, generation: 0 }
}

fn user(id: &str) -> Arc<User> {
    User::new(id, None).into()
}

#[track_caller]
fn check_ids(events: &[Event], expected: &[(bool, &str)]) {
    let seen: Vec<_> = events.iter().map(|event| (matches!(event, Event::Added(_)), event.user().id())).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_user_with_several_connections_is_one_member_with_the_info_of_the_first() {
    let (mut members, mut timers) = (Members::default(), Timers::new(0));
    let events = members.join(connection(1), User::new("11", Some(r#"{"name": "A"}"#)).into(), 9, &mut timers);
    check_ids(&events.expect("room"), &[(true, "11")]);
    let list = members.list(Dialect::Native);
    assert_eq!(&*list, r#"{"count":1,"members":[{"user_id":"11","user_info":{"name": "A"}}]}"#);
    assert!(members.join(connection(2), User::new("11", Some("7")).into(), 9, &mut timers).expect("room").is_empty());
    assert!(std::ptr::eq(&*list, &*members.list(Dialect::Native)), "newcomers share the list while it does not change");
    members.join(connection(3), user("12"), 9, &mut timers).expect("room");
    let list = r#"{"count":2,"members":[{"user_id":"11","user_info":{"name": "A"}},{"user_id":"12"}]}"#;
    assert_eq!(&*members.list(Dialect::Native), list);
    assert_eq!(members.user_of(connection(2)).map(User::id), Some("11"));
    let connections: Vec<_> = members.iter().map(|(user, connections)| (user.id(), connections)).collect();
    assert_eq!(connections, [("11", 2), ("12", 1)]);
    assert!(matches!(members.leave(0, connection(1), 0, &mut timers), Left::Remains));
    assert!(matches!(members.leave(0, connection(1), 0, &mut timers), Left::NotSubscribed));
    let Left::Removed(event) = members.leave(0, connection(2), 0, &mut timers) else { panic!("11 is removed at once") };
    check_ids(&[event], &[(false, "11")]);
    assert_eq!(&*members.list(Dialect::Native), r#"{"count":1,"members":[{"user_id":"12"}]}"#);
}

#[test]
fn a_user_is_removed_after_its_grace_and_not_if_it_returns() {
    let (mut members, mut timers) = (Members::default(), Timers::new(3000));
    members.join(connection(1), user("11"), 9, &mut timers).expect("room");
    assert!(matches!(members.leave(5, connection(1), u32::MAX - 9, &mut timers), Left::Remains));
    assert_eq!((members.len(), timers.due_in(u32::MAX - 9), timers.leaving()), (1, Some(31), 1));
    assert_eq!((timers.next(20), timers.due_in(20)), (None, Some(1)), "3 s have not certainly passed");
    assert!(members.join(connection(2), user("11"), 9, &mut timers).expect("room").is_empty());
    assert_eq!((timers.due_in(20), timers.leaving()), (None, 0));
    members.leave(5, connection(2), 20, &mut timers);
    assert_eq!(timers.next(50), None);
    let Some(Due::Removal { channel: 5, user, is_early: false }) = timers.next(51) else { panic!("the grace is over") };
    check_ids(&members.remove(user, &mut timers).into_iter().collect::<Vec<_>>(), &[(false, "11")]);
    assert!(members.is_empty() && timers.due_in(51).is_none());
    assert_eq!(&*members.list(Dialect::Native), r#"{"count":0,"members":[]}"#);
}

#[test]
fn a_shorter_grace_applies_to_users_that_are_in_it() {
    let (mut members, mut timers) = (Members::default(), Timers::new(60_000));
    members.join(connection(1), user("11"), 9, &mut timers).expect("room");
    members.leave(0, connection(1), 0, &mut timers);
    assert_eq!((timers.next(100), timers.due_in(100)), (None, Some(501)));
    timers.set_grace(250);
    assert_eq!(timers.due_in(0), Some(4), "rounded up");
    timers.set_grace(0);
    assert!(timers.next(0).is_some());
}

#[test]
fn a_full_channel_removes_the_user_that_is_longest_in_its_grace_before_it_refuses_one() {
    let (mut members, mut timers) = (Members::default(), Timers::new(3000));
    for (slot, id) in [(1, "11"), (2, "12"), (3, "13")] {
        members.join(connection(slot), user(id), 3, &mut timers).expect("room");
    }
    assert_eq!(members.join(connection(4), user("14"), 3, &mut timers).err(), Some(Full));
    assert_eq!(members.user_of(connection(4)).map(User::id), None);
    assert!(members.join(connection(4), user("12"), 3, &mut timers).is_ok(), "a member always gets in");
    for slot in [3, 1] {
        members.leave(0, connection(slot), 7, &mut timers);
    }
    let events = members.join(connection(5), user("14"), 3, &mut timers);
    check_ids(&events.expect("13 makes room"), &[(false, "13"), (true, "14")]);
    assert_eq!(members.join(connection(6), user("15"), 2, &mut timers).err(), Some(Full), "one would not be enough");
    assert_eq!((members.len(), timers.leaving()), (3, 1));
    assert!(members.join(connection(7), user("11"), 3, &mut timers).expect("in its grace").is_empty());
    assert_eq!((members.join(connection(6), user("15"), 3, &mut timers).err(), timers.leaving()), (Some(Full), 0));
}

#[test]
fn beyond_the_limit_of_graces_the_oldest_are_cut_short() {
    let (mut members, mut timers) = (Members::default(), Timers::new(3000));
    for n in 0..LEAVING_MAX as u32 + 2 {
        members.join(connection(n), user(&n.to_string()), usize::MAX, &mut timers).expect("room");
        members.leave(0, connection(n), 9, &mut timers);
    }
    let removal = |user, is_early| Some(Due::Removal { channel: 0, user, is_early });
    assert_eq!([timers.next(9), timers.next(9), timers.next(9)], [removal(0, true), removal(1, true), None]);
    assert_eq!(timers.next(40), removal(2, false));
}

#[test]
fn a_channel_with_ten_thousand_users_keeps_their_order() {
    let (mut members, mut timers) = (Members::default(), Timers::new(0));
    for n in 0..10_000 {
        members.join(connection(n), user(&n.to_string()), 10_000, &mut timers).expect("room");
    }
    for n in (0..10_000).filter(|n| n % 1000 != 7) {
        members.leave(0, connection(n), 0, &mut timers);
    }
    members.join(connection(0), user("0"), 10_000, &mut timers).expect("room");
    let ids: Vec<_> = members.iter().map(|(user, _)| user.id().to_owned()).collect();
    assert_eq!(ids, ["7", "1007", "2007", "3007", "4007", "5007", "6007", "7007", "8007", "9007", "0"]);
    assert!(members.capacity() < 100, "an empty room does not keep the memory of a full one");
}

/// The naive model of one channel: a list that is searched.
#[derive(Default)]
struct Model {
    users: Vec<ModelUser>,
    /// What each subscribed connection knows, from its list and the events since.
    views: BTreeMap<u32, Vec<Seen>>,
}

struct ModelUser {
    seen: Seen,
    connections: Vec<u32>,
    /// Tick since when it has no connections, and how many users had left before.
    left: Option<(u32, u32)>,
}

impl Model {
    fn user_of(&self, slot: u32) -> Option<&str> {
        self.users.iter().find(|user| user.connections.contains(&slot)).map(|user| &*user.seen.0)
    }

    /// Whether the user gets in; and the events.
    fn join(&mut self, slot: u32, seen: Seen, max: usize) -> Option<Vec<(bool, Seen)>> {
        let mut events = Vec::new();
        if let Some(user) = self.users.iter_mut().find(|user| user.seen.0 == seen.0) {
            user.connections.push(slot);
            user.left = None;
            return Some(events);
        }
        let leaving = self.users.iter().filter(|user| user.left.is_some()).count();
        if self.users.len() - leaving >= max {
            return None;
        }
        while self.users.len() >= max {
            let oldest = self.users.iter().filter_map(|user| user.left).min_by_key(|&(_, order)| order);
            let at = self.users.iter().position(|user| user.left.is_some() && user.left == oldest);
            events.push((false, self.users.remove(at.expect("a user in its grace")).seen));
        }
        events.push((true, seen.clone()));
        self.users.push(ModelUser { seen, connections: vec![slot], left: None });
        Some(events)
    }

    fn leave(&mut self, slot: u32, now: u32, order: u32) {
        if let Some(user) = self.users.iter_mut().find(|user| user.connections.contains(&slot)) {
            user.connections.retain(|&other| other != slot);
            user.left = user.connections.is_empty().then_some((now, order));
        }
    }

    /// Users whose grace has ended, in the order in which they left.
    fn expire(&mut self, now: u32, grace_ms: u32) -> Vec<(u32, Seen)> {
        let mut removed = Vec::new();
        self.users.retain(|user| {
            let is_over = |&(at, _): &(u32, u32)| grace_ms == 0 || now.wrapping_sub(at) * 100 >= grace_ms + 100;
            if let Some((_, order)) = user.left.filter(is_over) {
                removed.push((order, user.seen.clone()));
                return false;
            }
            true
        });
        removed
    }

    /// A subscriber's view after an event that it receives.
    fn show(&mut self, event: &Event) {
        let seen = seen(event.user());
        for (&slot, view) in &mut self.views {
            let own = self.users.iter().find(|user| user.connections.contains(&slot)).map(|user| &user.seen.0);
            assert_ne!(own, Some(&seen.0), "an event about the subscriber's own user");
            match event {
                Event::Added(_) => view.push(seen.clone()),
                Event::Removed(_) => {
                    let at = view.iter().position(|other| *other == seen).expect("only members are removed");
                    view.remove(at);
                }
            }
        }
    }

    fn list(&self) -> Vec<Seen> {
        self.users.iter().map(|user| user.seen.clone()).collect()
    }
}

fn seen(user: &User) -> Seen {
    (user.id().to_owned(), user.info().map(str::to_owned))
}

fn read_list(members: &mut Members) -> Vec<Seen> {
    #[derive(serde::Deserialize)]
    struct List {
        count: usize,
        members: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        user_id: String,
        user_info: Option<Box<serde_json::value::RawValue>>,
    }
    let list: List = serde_json::from_str(&members.list(Dialect::Native)).expect("the list is JSON");
    assert_eq!(list.count, list.members.len());
    let text = |info: Box<serde_json::value::RawValue>| info.get().to_owned();
    list.members.into_iter().map(|entry| (entry.user_id, entry.user_info.map(text))).collect()
}

fn as_pairs(events: &[Event]) -> Vec<(bool, Seen)> {
    events.iter().map(|event| (matches!(event, Event::Added(_)), seen(event.user()))).collect()
}

/// Two channels of a shard and their models.
struct Run {
    channels: [(Members, Model); 2],
    timers: Timers,
    grace_ms: u32,
    now: u32,
    departures: u32,
}

impl Run {
    fn join(&mut self, channel: usize, slot: u32, seen: Seen, max: usize) {
        let (members, model) = &mut self.channels[channel];
        if model.user_of(slot).is_some() {
            return;
        }
        let user = User::new(&seen.0, seen.1.as_deref());
        let joined = members.join(connection(slot), user.into(), max, &mut self.timers);
        let expected = model.join(slot, seen, max);
        assert_eq!(joined.as_deref().ok().map(as_pairs), expected);
        if let Ok(events) = joined {
            events.iter().for_each(|event| model.show(event));
            model.views.insert(slot, read_list(members));
        }
    }

    fn leave(&mut self, channel: usize, slot: u32) {
        let (members, model) = &mut self.channels[channel];
        let was_subscribed = model.user_of(slot).is_some();
        model.leave(slot, self.now, self.departures);
        model.views.remove(&slot);
        self.departures += 1;
        match members.leave(channel as u32, connection(slot), self.now, &mut self.timers) {
            Left::NotSubscribed => assert!(!was_subscribed),
            Left::Remains => assert!(was_subscribed),
            Left::Removed(event) => {
                assert_eq!(self.grace_ms, 0);
                model.users.retain(|user| user.seen.0 != event.user().id() || !user.connections.is_empty());
                model.show(&event);
            }
        }
    }

    fn pass(&mut self, ticks: u32) {
        let due_in = self.timers.due_in(self.now);
        self.now = self.now.wrapping_add(ticks);
        let mut expected: Vec<_> = Vec::new();
        for (channel, (_, model)) in self.channels.iter_mut().enumerate() {
            expected.extend(model.expire(self.now, self.grace_ms).into_iter().map(|removed| (removed, channel)));
        }
        expected.sort();
        assert!(expected.is_empty() || due_in.is_some_and(|due_in| due_in <= ticks), "due in {due_in:?}");
        let mut removed = Vec::new();
        while let Some(due) = self.timers.next(self.now) {
            let Due::Removal { channel, user, is_early: false } = due else { panic!("{due:?}") };
            let (members, model) = &mut self.channels[channel as usize];
            let event = members.remove(user, &mut self.timers).expect("a member");
            model.show(&event);
            removed.push((seen(event.user()), channel as usize));
        }
        assert_eq!(removed, expected.into_iter().map(|((_, seen), channel)| (seen, channel)).collect::<Vec<_>>());
    }

    fn check(&mut self) {
        let mut leaving = 0;
        for (members, model) in &mut self.channels {
            let list = model.list();
            assert_eq!(read_list(members), list);
            assert!(model.views.values().all(|view| *view == list), "a subscriber's view differs from the list");
            for user in &model.users {
                assert!(user.connections.iter().all(|&slot| {
                    members.user_of(connection(slot)).map(User::id) == Some(&user.seen.0)
                        && model.views.contains_key(&slot)
                }));
                leaving += usize::from(user.left.is_some());
            }
            let counts = model.users.iter().map(|user| user.connections.len() as u32);
            assert!(members.iter().map(|(_, connections)| connections).eq(counts));
        }
        assert_eq!(self.timers.leaving(), leaving);
        assert_eq!(self.timers.due_in(self.now).is_some(), leaving > 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// In every order of joins, leaves and time: the events and lists are those of the model, and each subscriber's view,
    /// made from its list and the later events alone, equals the owner's list.
    #[test]
    fn the_events_replayed_by_a_subscriber_equal_the_list_at_every_moment(
        start: u32,
        grace_ms in prop::sample::select(vec![0_u32, 100, 250, 3000]),
        max in 1_usize..6,
        steps in prop::collection::vec((0_u8..10, 0_usize..2, 0_u32..12, 0_u32..8, 0_u32..3), 1..300),
    ) {
        let channels = [(Members::default(), Model::default()), (Members::default(), Model::default())];
        let mut run = Run { channels, timers: Timers::new(grace_ms), grace_ms, now: start, departures: 0 };
        for (what, channel, slot, id, info) in steps {
            match what {
                0..5 => {
                    let info = [None, Some("7"), Some(r#"{"n" : 1}"#)][info as usize].map(str::to_owned);
                    run.join(channel, slot, (format!("\"{id}"), info), max);
                }
                5..8 => run.leave(channel, slot),
                8 => run.pass(id),
                _ => run.pass(slot * 5),
            }
            run.check();
        }
    }
}
