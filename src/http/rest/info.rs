//! The attributes of channels in answers: `info` in requests.

use super::Refused;
use crate::api::history::Newest;
use crate::api::operation::ChannelCount;
use crate::config::PRESENCE;
use crate::protocol::channel::{Channel, Kind};
use crate::protocol::json::well_formed;
use crate::protocol::pusher::data::write_text;
use serde_json::{Map, Value, json};

/// The attributes that a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Number of users that are members. Only presence channels have it.
    pub user_count: bool,
    /// Number of subscribed connections. All channels have it.
    pub subscription_count: bool,
    /// The cached message. Only cache channels have it.
    pub cache: bool,
}

/// The state of one channel.
pub struct State {
    /// Its subscribers and its users.
    pub count: ChannelCount,
    /// Whether it keeps messages.
    pub has_history: bool,
    /// Its newest message, if it keeps one.
    pub newest: Option<Box<Newest>>,
}

impl Info {
    /// Reads attributes separated by commas. Empty ones are ignored.
    pub fn parse(text: Option<&str>) -> Result<Info, Refused> {
        let mut info = Info::default();
        for attribute in text.unwrap_or_default().split(',').filter(|attribute| !attribute.is_empty()) {
            match attribute {
                "user_count" => info.user_count = true,
                "subscription_count" => info.subscription_count = true,
                "cache" => info.cache = true,
                _ => return Err("info: the attributes are user_count, subscription_count and cache".into()),
            }
        }
        Ok(info)
    }

    /// Whether no attribute is asked for.
    pub fn is_empty(self) -> bool {
        self == Info::default()
    }

    /// Refuses attributes that some channels with this prefix do not have.
    pub fn check_list(self, prefix: &str) -> Result<(), Refused> {
        match self {
            Info { cache: true, .. } => {
                Err("info: cache is an attribute of single channels: ask for one channel".into())
            }
            Info { user_count: true, .. } if !prefix.starts_with(PRESENCE) => {
                Err("info: user_count needs a filter_by_prefix that starts with presence-".into())
            }
            _ => Ok(()),
        }
    }

    /// Refuses attributes that the channel does not have.
    pub fn check(self, channel: Channel<'_>, state: &State) -> Result<(), Refused> {
        if self.user_count && channel.kind() != Kind::Presence {
            return Err("info: only presence channels have user_count".into());
        }
        match self.cache && !state.is_cached(channel) {
            true => Err("info: only cache channels have cache".into()),
            false => Ok(()),
        }
    }

    /// The attributes of a channel. Those that it does not have are left out.
    pub fn of(self, channel: Channel<'_>, state: &State) -> Map<String, Value> {
        let mut attributes = Map::new();
        if let Some(users) = state.count.users.filter(|_| self.user_count) {
            attributes.insert("user_count".into(), users.into());
        }
        if self.subscription_count {
            attributes.insert("subscription_count".into(), state.count.subscribers.into());
        }
        if self.cache && state.is_cached(channel) {
            let cached = |newest: &Newest| json!({"data": text(newest), "ttl": newest.ttl_s});
            attributes.insert("cache".into(), state.newest.as_deref().map_or(Value::Null, cached));
        }
        attributes
    }
}

impl State {
    /// A cache channel whose rule turns its history off is an ordinary channel.
    fn is_cached(&self, channel: Channel<'_>) -> bool {
        channel.is_cache() && self.has_history
    }
}

/// The data of a message as Pusher's clients receive it: a text.
fn text(Newest { message, text, .. }: &Newest) -> String {
    let mut written = vec![b'"'];
    write_text(&mut written, message.data.as_deref(), text.as_text());
    written.push(b'"');
    serde_json::from_str(&well_formed(&String::from_utf8_lossy(&written))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::history::Kept;
    use crate::protocol::channel::ChannelName;
    use crate::protocol::pusher::data::OwnedText;

    fn channel(name: &str) -> Channel<'_> {
        Channel::parse(name).expect("a legal name")
    }

    fn state(name: &str, cached: Option<&str>) -> State {
        let newest = cached.map(|data| {
            let message = Kept { offset: 7, event: "e".into(), data: Some(data.into()) };
            let text = if data.starts_with('"') { OwnedText::Content } else { OwnedText::Json };
            Box::new(Newest { message, text, ttl_s: 1799 })
        });
        let users = (channel(name).kind() == Kind::Presence).then_some(1);
        let count = ChannelCount { channel: ChannelName::from(channel(name)), subscribers: 2, users };
        State { count, has_history: channel(name).is_cache(), newest }
    }

    #[test]
    fn attributes_are_known_words() {
        let check = |info, expected: Option<(bool, bool, bool)>| {
            let expected =
                expected.map(|(user_count, subscription_count, cache)| Info { user_count, subscription_count, cache });
            assert_eq!(Info::parse(info).ok(), expected, "{info:?}");
        };
        check(None, Some((false, false, false)));
        check(Some(""), Some((false, false, false)));
        check(Some("subscription_count"), Some((false, true, false)));
        check(Some("cache,user_count,,cache"), Some((true, false, true)));
        for unknown in ["colour", "subscription_count,colour", "Subscription_count", " subscription_count"] {
            check(Some(unknown), None);
        }
    }

    #[test]
    fn attributes_that_a_channel_does_not_have_are_left_out_or_refused() {
        let all = Info { user_count: true, subscription_count: true, cache: true };
        let check = |name: &str, cached: Option<&str>, expected: Value, is_legal: bool| {
            let state = state(name, cached);
            assert_eq!(Value::Object(all.of(channel(name), &state)), expected, "{name}");
            assert_eq!(all.check(channel(name), &state).is_ok(), is_legal, "{name}");
        };
        check("a", None, json!({"subscription_count": 2}), false);
        check("presence-a", None, json!({"subscription_count": 2, "user_count": 1}), false);
        check("cache-a", None, json!({"subscription_count": 2, "cache": null}), false);
        let cached = json!({"data": "{\"a\" : 1}", "ttl": 1799});
        check("private-cache-a", Some(r#"{"a" : 1}"#), json!({"subscription_count": 2, "cache": cached}), false);
        let all = json!({"subscription_count": 2, "user_count": 1, "cache": {"data": "x\n", "ttl": 1799}});
        check("presence-cache-a", Some(r#""x\n""#), all, true);
    }

    #[test]
    fn a_list_has_the_attributes_that_all_its_channels_have() {
        let check = |info: &str, prefix: &str, is_legal: bool| {
            let info = Info::parse(Some(info)).expect("legal");
            assert_eq!(info.check_list(prefix).is_ok(), is_legal, "{info:?} {prefix}");
        };
        check("subscription_count", "", true);
        check("user_count", "", false);
        check("user_count", "presence", false);
        check("user_count", "presence-", true);
        check("user_count,subscription_count", "presence-a", true);
        check("cache", "cache-", false);
    }
}
