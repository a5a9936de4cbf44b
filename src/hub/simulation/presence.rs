//! What a client knows about a channel's presence: from its `socket:subscribed`, and from the events after it.

use crate::config;
use serde::Deserialize;

/// Of one subscription.
#[derive(Debug)]
pub struct View {
    /// The client's own user, of which it must receive nothing.
    own: Option<String>,
    /// The members, in order of joining.
    pub members: Vec<String>,
    /// The number of connections, or of members.
    pub count: u64,
    rule: config::Presence,
}

/// `presence` in a `socket:subscribed`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    count: u64,
    members: Option<Vec<Member>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    user_id: String,
    user_info: Option<u64>,
}

impl View {
    /// A subscription begins, as this user; `told` is what its reply says.
    pub fn new(rule: config::Presence, own: Option<String>, told: Option<Told>) -> View {
        let members = told.as_ref().and_then(|told| told.members.as_ref());
        let has_members = members.is_some();
        assert_eq!((told.is_some(), has_members), (rule != config::Presence::Off, rule == config::Presence::Members));
        let count = told.as_ref().map_or(0, |told| told.count);
        let members: Vec<String> = members.into_iter().flatten().map(Member::name).collect();
        assert!(!has_members || count == members.len() as u64 && own.as_ref().is_some_and(|own| members.contains(own)));
        View { own, members, count, rule }
    }

    /// Whether it knows the number of connections.
    pub fn is_counting(&self) -> bool {
        self.rule == config::Presence::Count
    }

    /// The client's own user.
    pub fn own(&self) -> &str {
        self.own.as_deref().expect("the channel has members")
    }

    /// An event of the channel.
    pub fn handle(&mut self, event: &str, data: &str) {
        if event == "socket:presence" {
            assert_eq!(self.rule, config::Presence::Count);
            let told: Told = serde_json::from_str(data).expect("a count");
            self.count = told.count;
            return;
        }
        assert_eq!(self.rule, config::Presence::Members, "{event} {data}");
        let member = serde_json::from_str::<Member>(data).expect("a user").name();
        let place = self.members.iter().position(|known| *known == member);
        assert_ne!(self.own.as_ref(), Some(&member), "{event} about the client's own user");
        match (event, place) {
            ("socket:member_added", None) => self.members.push(member),
            ("socket:member_removed", Some(place)) => _ = self.members.remove(place),
            _ => panic!("{event} {data}, which does not fit {self:?}"),
        }
        self.count = self.members.len() as u64;
    }
}

impl Member {
    /// The id. The info is that of the first connection, and differs from one connection to the next.
    fn name(&self) -> String {
        assert!(self.user_info.is_none_or(|info| info < 100));
        self.user_id.clone()
    }
}
