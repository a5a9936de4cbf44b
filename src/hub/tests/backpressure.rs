//! Requests whose letters wait for a shard that takes none: they are not settled before, so that few letters wait.

use super::*;
use crate::api::operation::Disconnect;
use crate::hub::mail::{Change, Membership};
use crate::protocol::auth;
use crate::protocol::dialect::Dialect;

/// Keeps the letters that must follow those to other shards.
#[derive(Default)]
struct World {
    after: Vec<(Vec<ShardId>, Mail)>,
    answers: usize,
}

impl Port for World {
    fn append(&mut self, _: &mut Pages, _: Slot, _: Chunk, _: Urgency) {}
    fn mail(&mut self, _: ShardId, _: Mail) {}
    fn mail_after(&mut self, after: &[ShardId], to: ShardId, mail: Mail) {
        assert_eq!(to, 0);
        self.after.push((after.to_vec(), mail));
    }
    fn ask(&mut self, _: Asker, _: Question) {}
    fn answer_admin(&mut self, _: Asker, _: Answer) {
        self.answers += 1;
    }
    fn settle(&mut self, _: Asker, _: Settled) {}
    fn admit(&mut self, _: Arrival, _: Verdict) {}
    fn close(&mut self, _: Slot, _: CloseReason) {}
}

fn key() -> Key {
    Key { id: "key".into(), secret: "secret".into() }
}

/// The first of two shards.
fn hub() -> Hub {
    let limits = Limits { client_events_per_second_max: 1000, ..Limits::default() };
    let mut hub = Hub::new(Identity { shard: 0, shards: 2, seed: [1, 2, 3, 4] }, &[key()], limits);
    hub.set_rules(&Arc::new(Rules::parse("[[channel]]\nmatch = \"*\"\nclient-events = \"members\"\n")));
    hub
}

/// A connection of the other shard subscribes to a channel that this shard owns.
fn subscribe_elsewhere(hub: &mut Hub, channel: &ChannelName, world: &mut World) {
    let hash = hub.hash(channel.as_channel());
    let member = ConnKey { shard: 1, slot: 0, generation: 0 };
    let membership = Membership { member, audience: 0, cause: Cause::Left };
    hub.receive(Mail::Subscribe(Change { channel: channel.clone(), hash, membership, wish: None }), world);
}

/// The shard of the sender owns the channel.
#[test]
fn a_sender_of_client_events_waits_until_other_shards_have_taken_them() {
    let (mut hub, mut world) = (hub(), World::default());
    let names = (0..).map(|n| format!("private-{n}"));
    let mut names = names.filter(|name| hub.owner(hub.hash(Channel::parse(name).expect("a legal name"))) == 0);
    let name = names.next().expect("a name");
    hub.connect(0, Dialect::Native, None, &mut world);
    let auth = auth::sign(&key(), &hub.socket_id(0).to_string(), &name, None);
    let request = format!(r#"{{"event":"socket:subscribe","data":{{"channel":"{name}","auth":"{auth}"}}}}"#);
    hub.handle(0, &request, &mut world);
    let event = format!(r#"{{"event":"client-e","channel":"{name}"}}"#);
    let send = |hub: &mut Hub, world: &mut World| {
        (0..100).take_while(|_| hub.handle(0, &event, world) != Handled::Later).count()
    };
    assert_eq!(send(&mut hub, &mut world), 100, "no other shard has a subscriber");

    subscribe_elsewhere(&mut hub, &Channel::parse(&name).expect("a legal name").into(), &mut world);
    assert_eq!(send(&mut hub, &mut world), 10);
    let letters = std::mem::take(&mut world.after);
    assert!(letters.iter().all(|(after, _)| after.contains(&1)));
    letters.into_iter().take(3).for_each(|(_, mail)| hub.receive(mail, &mut world));
    assert_eq!(send(&mut hub, &mut world), 3);
}

/// The shard of the session owns the channel of the user.
#[test]
fn a_disconnect_of_a_user_is_answered_once_other_shards_have_taken_it() {
    let (mut hub, mut world) = (hub(), World::default());
    let channel = ChannelName::of_user("11");
    let disconnect = |hub: &mut Hub, world: &mut World| {
        let hash = hub.hash(channel.as_channel());
        let request = Disconnect::default().into();
        let asker = Asker { shard: 0, session: 0, generation: 0, request: 0 };
        let question = Question::OfChannel { request, channel: channel.clone(), hash };
        hub.receive(Mail::Ask(asker, Box::new(question)), world);
    };
    disconnect(&mut hub, &mut world);
    assert_eq!(world.answers, 1, "the user has no connections");
    subscribe_elsewhere(&mut hub, &channel, &mut world);
    disconnect(&mut hub, &mut world);
    assert_eq!((world.answers, world.after.len()), (1, 1));
    let (after, answer) = world.after.remove(0);
    assert_eq!(after, [1]);
    hub.receive(answer, &mut world);
    assert_eq!(world.answers, 2);
}
