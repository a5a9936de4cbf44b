//! Clients that sign in, and clients that send messages to other subscribers.

use super::{Cluster, Shard};
use crate::config::Presence;
use crate::hub::Handled;
use crate::hub::simulation::model::{Change, Message, Reply};
use crate::ids::ConnKey;
use crate::protocol::auth;
use crate::protocol::channel::ChannelName;

impl<I: Iterator<Item = u8>> Cluster<I> {
    /// The channels of users, in which those who sign in are subscribed.
    pub(super) fn add_users(&mut self) {
        for user in USERS {
            let name = ChannelName::of_user(user).as_channel().as_str().to_owned();
            self.add_channel(&name);
        }
    }

    /// A client signs in, perhaps a second time, perhaps as another user.
    pub(super) fn sign_in(&mut self) {
        let Some(client) = self.some_client() else { return };
        let user = self.choices.below(USERS.len());
        let channel = self.named + user;
        if channel >= self.history.channels.len() {
            return;
        }
        let is_signed = !self.choices.one_in(6);
        let watchlist = self.choices.of(&WATCHLISTS);
        let list = if watchlist.is_empty() { String::new() } else { format!(r#","watchlist":{watchlist:?}"#) };
        let user_data = format!(r#"{{"id":"{}","user_info":{}{list}}}"#, USERS[user], client % 100);
        let asking = &mut self.clients[client];
        let auth = match is_signed {
            true => auth::sign_user(&self.keys[0], &asking.socket_id, &user_data),
            false => format!("key:{:064}", 7),
        };
        let refusal = match asking.user {
            _ if !is_signed => Some("auth_invalid"),
            Some(known) if known != user => Some("already_signed_in"),
            _ => None,
        };
        let is_first = refusal.is_none() && asking.user.is_none();
        if is_first {
            asking.user = Some(user);
            asking.wanted[channel] = true;
            asking.changes[channel].push_back(Change::Subscribe { since: None, user: None, entry: None });
            if asking.pusher.is_some() {
                asking.watchlist = watchlist;
            }
        }
        asking.replies.push_back(Reply {
            event: refusal.map_or("socket:signed_in", |_| "socket:signin.error"),
            channel: None,
            detail: refusal.map(String::from),
        });
        if is_first {
            self.enter_own(client, channel);
        }
        let data = serde_json::json!({"auth": auth, "user_data": user_data});
        let handled = self.send(client, &format!(r#"{{"event":"socket:signin","data":{data}}}"#));
        assert_eq!(handled, Handled::Other);
    }

    /// At rest, a second after the last change: clients know which users of their watchlists are online.
    pub(super) fn check_watchers(&self) {
        let is_signed_in = |id: &str| {
            let mut signed_in = self.clients.iter().filter(|client| client.is_live).filter_map(|client| client.user);
            signed_in.any(|user| USERS[user] == id)
        };
        for client in self.clients.iter().filter(|client| client.is_live) {
            for &id in client.watchlist {
                let is_online = *client.watched.get(id).expect("it was told of each user");
                // The user may be in its grace.
                let is_right = is_online == is_signed_in(id) || is_online && self.limits.presence_grace_ms > 1000;
                assert!(is_right, "client {} takes {id} for online: {is_online}", client.number);
            }
        }
    }

    /// A client sends a message to the other subscribers of a channel.
    pub(super) fn send_client_event(&mut self) {
        let Some(client) = self.some_client() else { return };
        let channel = self.choices.below(self.named);
        let ConnKey { shard, slot, .. } = self.clients[client].key;
        let topic = &self.history.channels[channel];
        let has_members = topic.rule.presence == Presence::Members;
        // The user as which it is subscribed is known only if no change is under way.
        let is_clear = !has_members || self.clients[client].changes[channel].is_empty();
        // Without a rule an option decides for Pusher's clients.
        let is_clear = is_clear && (topic.rule.client_events || self.clients[client].pusher.is_none());
        let Shard { hub, is_fenced, .. } = &mut self.shards[usize::from(shard)];
        // After the fence an event may be under way at the end.
        if !is_clear || *is_fenced || hub.has_too_many_events(slot) {
            return;
        }
        let is_taken = topic.rule.client_events && hub.audiences.is_subscribed(slot, topic.channel(), topic.hash);
        let (name, is_own) = (topic.name.clone(), topic.owner == usize::from(shard));
        let data = self.choices.of(&[None, Some("1"), Some(r#"{"user_id":"x"}"#)]);
        let number = self.history.messages.len();
        if is_taken {
            let view = self.clients[client].views[channel].as_ref().filter(|_| has_members);
            let message = Message {
                channel,
                data: data.map(String::from),
                exclude: Some(client),
                is_client_event: true,
                user_id: view.map(|view| view.own().to_owned()),
                ..Message::default()
            };
            self.add_client_event(message, is_own);
        } else {
            self.expect(client, "socket:error", Some(&name), "client_event_refused");
        }
        let data = data.map_or(String::new(), |data| format!(r#","data":{data}"#));
        let text = format!(r#"{{"event":"client-m{number}","channel":"{name}"{data}}}"#);
        assert_eq!(self.send(client, &text), Handled::Other);
    }

    /// `is_own`: the sender's shard owns the channel, and sequences the event at once.
    fn add_client_event(&mut self, message: Message, is_own: bool) {
        let number = self.history.messages.len();
        self.history.messages.push(message);
        self.mesh.unaccepted.push(0);
        if is_own {
            self.history.sequence(number);
        }
    }

    /// Most letters of client events that may wait.
    pub(super) fn client_events_max(&self) -> usize {
        self.clients.iter().filter(|client| client.is_live).count() * EVENTS_WAITING_MAX * self.shards.len()
    }
}

/// Users of presence channels have these ids, too.
const USERS: [&str; 2] = ["u0", "u1"];
/// No client signs in as the last one.
const WATCHLISTS: [&[&str]; 3] = [&[], &["u1"], &["u0", "u1", "u9"]];
/// Client events of one connection that may wait for owners.
const EVENTS_WAITING_MAX: usize = 10;
