//! Seeded runs of a few hubs whose clients sign in with watchlists and leave. Letters between two shards keep their order, and
//! wait for any time. At rest each client must know of each user that it watches whether it is online.

use crate::config::{Key, Limits};
use crate::hub::admission::addresses::Verdict;
use crate::hub::audience::pages::{Chunk, Pages};
use crate::hub::mail::{Answer, Arrival, Mail, Question, Settled};
use crate::hub::simulation::choices::{self, Choices};
use crate::hub::{Hub, Identity, Port, Urgency};
use crate::ids::{Asker, ShardId, Slot};
use crate::protocol::auth;
use crate::protocol::close::CloseReason;
use crate::protocol::dialect::Dialect;
use crate::protocol::pusher::handshake::Version;
use crate::wire::frame::split_text;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What the hubs send: letters, and the frames of connections.
#[derive(Default)]
struct World {
    from: ShardId,
    letters: BTreeMap<(ShardId, ShardId), VecDeque<Mail>>,
    frames: BTreeMap<(ShardId, Slot), Vec<Value>>,
}

impl Port for World {
    fn append(&mut self, pages: &mut Pages, slot: Slot, chunk: Chunk, _: Urgency) {
        let mut bytes = pages.bytes(chunk);
        while !bytes.is_empty() {
            let (text, rest) = split_text(bytes);
            let value = serde_json::from_str(text).expect("JSON");
            self.frames.entry((self.from, slot)).or_default().push(value);
            bytes = rest;
        }
    }
    fn mail(&mut self, to: ShardId, mail: Mail) {
        self.letters.entry((self.from, to)).or_default().push_back(mail);
    }
    fn mail_after(&mut self, _: &[ShardId], to: ShardId, mail: Mail) {
        self.mail(to, mail);
    }
    fn ask(&mut self, _: Asker, _: Question) {}
    fn answer_admin(&mut self, _: Asker, _: Answer) {}
    fn settle(&mut self, _: Asker, _: Settled) {}
    fn admit(&mut self, _: Arrival, _: Verdict) {}
    fn close(&mut self, _: Slot, reason: CloseReason) {
        panic!("{reason:?}")
    }
}

/// A connection that has signed in.
struct Client {
    shard: ShardId,
    slot: Slot,
    user: String,
    list: Vec<String>,
}

struct Cluster {
    hubs: Vec<Hub>,
    world: World,
    clients: Vec<Client>,
    /// Slots that may be used again, by shard.
    free: Vec<Vec<Slot>>,
    next: Slot,
    now: u32,
}

const KEY: &str = "key";

fn key() -> Key {
    Key { id: KEY.into(), secret: "secret".into() }
}

impl Cluster {
    fn new(shards: usize, limits: &Limits) -> Cluster {
        let hub = |shard| {
            let identity = Identity { shard: shard as ShardId, shards, seed: [1, 2, 3, 4] };
            Hub::new(identity, &[key()], limits.clone())
        };
        let (hubs, free) = ((0..shards).map(hub).collect(), vec![Vec::new(); shards]);
        Cluster { hubs, world: World::default(), clients: Vec::new(), free, next: 0, now: 0 }
    }

    fn on<T>(&mut self, shard: ShardId, act: impl FnOnce(&mut Hub, &mut World) -> T) -> T {
        self.world.from = shard;
        let hub = &mut self.hubs[usize::from(shard)];
        hub.now = self.now;
        let result = act(hub, &mut self.world);
        hub.end_turn(&mut self.world);
        result
    }

    fn sign_in(&mut self, shard: ShardId, user: &str, list: &[String]) -> usize {
        let slot = self.free[usize::from(shard)].pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.world.frames.remove(&(shard, slot));
        let user_data = json!({"id": user, "watchlist": list}).to_string();
        self.on(shard, |hub, world| {
            hub.connect(slot, Dialect::Pusher(Version::V7), None, world);
            let auth = auth::sign_user(&key(), &hub.socket_id(slot).to_string(), &user_data);
            let data = json!({"auth": auth, "user_data": user_data});
            hub.handle(slot, &json!({"event": "pusher:signin", "data": data}).to_string(), world);
        });
        self.clients.push(Client { shard, slot, user: user.into(), list: list.to_vec() });
        self.clients.len() - 1
    }

    fn leave(&mut self, client: usize) {
        let Client { shard, slot, .. } = self.clients.swap_remove(client);
        self.on(shard, |hub, world| {
            hub.mute(slot, &CloseReason::ClientGone, world);
            hub.disconnect(slot, &CloseReason::ClientGone, world);
        });
        assert!(self.hubs[usize::from(shard)].has_departed(slot));
        self.free[usize::from(shard)].push(slot);
    }

    /// Delivers the next letter between two shards.
    fn deliver(&mut self, between: usize) {
        let waiting: Vec<(ShardId, ShardId)> =
            self.world.letters.iter().filter(|(_, queue)| !queue.is_empty()).map(|(pair, _)| *pair).collect();
        let Some(&pair) = waiting.get(between % waiting.len().max(1)) else { return };
        let mail = self.world.letters.get_mut(&pair).and_then(VecDeque::pop_front).expect("it waits");
        self.on(pair.1, |hub, world| hub.receive(mail, world));
    }

    fn deliver_all(&mut self) {
        while self.world.letters.values().any(|queue| !queue.is_empty()) {
            self.deliver(0);
        }
    }

    fn pass(&mut self, ticks: u32) {
        self.now += ticks;
        for shard in 0..self.hubs.len() as ShardId {
            self.on(shard, |hub, world| hub.tell_presence(world));
        }
    }

    fn rest(&mut self) {
        self.deliver_all();
        self.pass(100);
        self.deliver_all();
    }

    /// The watchlist events of a connection: each a list of users that are online, and of users that are not.
    fn events(&self, client: &Client) -> Vec<[Vec<String>; 2]> {
        let frames = self.world.frames.get(&(client.shard, client.slot)).into_iter().flatten();
        let watched = frames.filter(|frame| frame["event"] == "pusher_internal:watchlist_events");
        let lists = |frame: &Value| {
            let data: Value = serde_json::from_str(frame["data"].as_str().expect("a string")).expect("JSON");
            ["online", "offline"].map(|name| {
                let events = data["events"].as_array().expect("a list");
                let found = events.iter().find(|event| event["name"] == name);
                let ids = found.map(|event| event["user_ids"].as_array().expect("a list").clone()).unwrap_or_default();
                ids.iter().map(|id| id.as_str().expect("a string").to_owned()).collect()
            })
        };
        watched.map(lists).collect()
    }

    /// At rest: each client knows the truth, and was told each change once.
    fn check(&self) {
        let online: BTreeSet<&str> = self.clients.iter().map(|client| &*client.user).collect();
        for client in &self.clients {
            let mut known = BTreeMap::new();
            for (n, lists) in self.events(client).into_iter().enumerate() {
                for (ids, is_online) in lists.into_iter().zip([true, false]) {
                    for id in ids {
                        assert!(client.list.contains(&id), "{id} is not watched");
                        let before = known.insert(id.clone(), is_online);
                        assert_eq!(before, (n > 0).then_some(!is_online), "{id} of {:?}", client.list);
                    }
                }
            }
            let expected: BTreeMap<String, bool> =
                client.list.iter().map(|id| (id.clone(), online.contains(&**id))).collect();
            assert_eq!(known, expected, "user {}", client.user);
        }
    }
}

fn limits(grace_ms: u32) -> Limits {
    // The clock does not advance, so no client regains an allowance.
    Limits { presence_grace_ms: grace_ms, subscribes_per_second_max: 0, ..Limits::default() }
}

fn ids(list: &[&str]) -> Vec<String> {
    list.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn every_client_knows_who_is_online_in_every_order_of_letters() {
    const USERS: [&str; 6] = ["1", "2", "a|b", "é", "5", "6"];
    for seed in 0..600 {
        let mut choices = Choices::new(choices::bytes(seed, 600));
        let shards = choices.of(&[1, 2, 3, 4]);
        let mut cluster = Cluster::new(shards, &limits(choices.of(&[0, 1000, 3000])));
        for _ in 0..150 {
            match choices.below(8) {
                0 | 1 if cluster.clients.len() < 12 => {
                    let list: Vec<String> =
                        USERS.iter().filter(|_| choices.one_in(2)).map(|id| (*id).to_owned()).collect();
                    let user = choices.of(&USERS);
                    cluster.sign_in(choices.below(shards) as ShardId, user, &list);
                }
                2 if !cluster.clients.is_empty() => cluster.leave(choices.below(cluster.clients.len())),
                3 => cluster.pass(choices.of(&[1, 9, 40])),
                _ => cluster.deliver(choices.below(16)),
            }
        }
        cluster.rest();
        cluster.check();
        while !cluster.clients.is_empty() {
            cluster.leave(0);
        }
        cluster.rest();
        for hub in &cluster.hubs {
            assert!(hub.watchers.watches() == 0 && hub.watched.is_empty(), "seed {seed}: something is left");
            assert_eq!(hub.presence_due_in(), None);
        }
    }
}

#[test]
fn a_user_is_offline_only_after_its_grace() {
    let mut cluster = Cluster::new(2, &limits(3000));
    cluster.sign_in(0, "1", &[]);
    cluster.deliver_all();
    cluster.leave(0);
    cluster.deliver_all();
    let watcher = cluster.sign_in(1, "2", &ids(&["1"]));
    cluster.deliver_all();
    let events = |cluster: &Cluster| cluster.events(&cluster.clients[watcher]);
    assert_eq!(events(&cluster), [[ids(&["1"]), vec![]]], "in its grace, also if it was not watched then");
    cluster.pass(20);
    let back = cluster.sign_in(0, "1", &[]);
    cluster.deliver_all();
    cluster.pass(100);
    cluster.deliver_all();
    assert_eq!(events(&cluster).len(), 1, "back within the grace: no event");
    assert_eq!(back, 1);
    cluster.leave(back);
    cluster.deliver_all();
    cluster.pass(30);
    cluster.deliver_all();
    assert_eq!(events(&cluster).len(), 1);
    cluster.pass(1);
    cluster.deliver_all();
    assert_eq!(events(&cluster)[1..], [[vec![], ids(&["1"])]]);
}

#[test]
fn the_number_of_watches_is_limited_and_they_are_given_back() {
    let mut cluster = Cluster::new(1, &limits(0));
    cluster.hubs[0].watchers = super::watchers::Watchers::new(3);
    let errors = |cluster: &Cluster, client: usize| {
        let Client { shard, slot, .. } = cluster.clients[client];
        let frames = cluster.world.frames[&(shard, slot)].iter();
        frames.filter(|frame| frame["event"] == "pusher:error").map(|frame| frame["data"]["code"].clone()).collect()
    };
    let first = cluster.sign_in(0, "1", &ids(&["1", "2", "2"]));
    let second = cluster.sign_in(0, "2", &ids(&["1", "3"]));
    let found: [Vec<Value>; 2] = [errors(&cluster, first), errors(&cluster, second)];
    assert_eq!(found, [vec![], vec![json!(4302)]]);
    assert_eq!(cluster.events(&cluster.clients[second]), [[ids(&["1"]), vec![]]]);
    assert_eq!((cluster.hubs[0].watchers.watches(), cluster.hubs[0].counters.watches_refused), (3, 1));
    cluster.leave(first);
    assert_eq!(cluster.hubs[0].watchers.watches(), 1);
    let long: Vec<String> = (0..101).map(|n| format!("u{n}")).collect();
    let third = cluster.sign_in(0, "3", &long);
    let found: Vec<Value> = errors(&cluster, third);
    assert_eq!(found, [json!(4302)], "once, whatever the reasons");
    assert_eq!((cluster.hubs[0].watchers.watches(), cluster.hubs[0].counters.watches_refused), (3, 1 + 99));
}

#[test]
fn a_list_that_is_empty_or_off_makes_no_frame() {
    let mut cluster = Cluster::new(1, &limits(0));
    let client = cluster.sign_in(0, "1", &[]);
    assert_eq!(cluster.events(&cluster.clients[client]).len(), 0);
    let mut cluster = Cluster::new(1, &Limits { pusher_watchlist: false, ..limits(0) });
    let client = cluster.sign_in(0, "1", &ids(&["1"]));
    cluster.rest();
    assert_eq!((cluster.events(&cluster.clients[client]).len(), cluster.hubs[0].watchers.watches()), (0, 0));
}
