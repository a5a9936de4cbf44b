//! Rules: what channels get beyond delivery. The first `[[channel]]` table whose pattern fits a channel's name holds; what it
//! leaves out keeps the default of the name.

mod table;

use super::bytes;
use super::kind::Kind;
use super::pattern;
use super::value::{Scalar, listed, refused};
use serde::Serialize;
use std::collections::HashSet;
use table::{DEFAULTS, KEYS, Keys, Table};
use toml::Value;

pub use table::RULES_MAX;
pub(super) use table::Tables;

/// What a channel gets beyond delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which messages are kept; `None`: none.
    pub history: Option<History>,
    /// What follows `socket:subscribed`.
    pub on_subscribe: OnSubscribe,
    /// What happens to a subscriber that falls behind.
    pub slow: Slow,
    /// What subscribers are told about each other.
    pub presence: Presence,
    /// Whether subscribers may send client events.
    pub client_events: bool,
}

/// The bounds of what a channel keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Messages, at least 1.
    pub messages_max: u32,
    /// Bytes of all of them.
    pub bytes_max: u32,
    /// Seconds that a message is kept, at least 1.
    pub ttl_s: u32,
}

/// Declares values that are words of the configuration.
macro_rules! words {
    ($($(#[$about:meta])* $name:ident, $placeholder:literal { $($(#[$what:meta])* $variant:ident = $word:literal,)* })*) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$what])* $variant,)* }

        impl $name {
            const KIND: Kind = Kind::Choice($placeholder, &[$($word),*]);
        }

        impl Scalar for $name {
            fn read(text: &str, _: Kind) -> Result<$name, String> {
                match text {
                    $($word => Ok($name::$variant),)*
                    _ => Err(refused(text)),
                }
            }

            fn show(&self, _: Kind) -> Value {
                Value::String(match self { $($name::$variant => $word.into(),)* })
            }
        }
    )*};
}

words! {
    /// Which kept messages follow `socket:subscribed`.
    OnSubscribe, "nothing|last|all" {
        /// None.
        Nothing = "nothing",
        /// The newest one.
        Last = "last",
        /// Everything kept, within the bounds of a replay.
        All = "all",
    }
    /// What happens to a subscriber that falls behind.
    Slow, "disconnect|latest|latest-by-key" {
        /// It is closed once its outbox is full.
        Disconnect = "disconnect",
        /// It gets the newest message that was not sent yet.
        Latest = "latest",
        /// It gets the newest message of each key.
        LatestByKey = "latest-by-key",
    }
    /// What subscribers are told about each other.
    Presence, "off|count" {
        /// Nothing.
        Off = "off",
        /// How many connections there are.
        Count = "count",
        /// Which users there are.
        Members = "members",
    }
    /// Which clients may send client events.
    ClientEvents, "off|members" {
        /// None.
        Off = "off",
        /// Subscribers of the channel.
        Members = "members",
    }
}

impl Rule {
    /// Delivery and nothing else.
    pub const PLAIN: Rule = Rule {
        history: None,
        on_subscribe: OnSubscribe::Nothing,
        slow: Slow::Disconnect,
        presence: Presence::Off,
        client_events: false,
    };

    /// Whether the channel gets delivery and nothing else.
    pub fn is_plain(&self) -> bool {
        *self == Rule::PLAIN
    }

    fn of(keys: &Keys) -> Rule {
        let history = History { messages_max: keys.history, bytes_max: keys.history_bytes, ttl_s: keys.history_ttl };
        Rule {
            history: (keys.history > 0).then_some(history),
            on_subscribe: keys.on_subscribe,
            slow: keys.slow,
            presence: keys.presence,
            client_events: keys.client_events == ClientEvents::Members,
        }
    }
}

/// The `[[channel]]` tables of a configuration, at most [`RULES_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    tables: Vec<Table>,
}

/// Which rule a channel has, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explained {
    /// The rule.
    #[serde(skip)]
    pub rule: Rule,
    /// The number of the table that holds, from 1; `None`: no table fits the name.
    #[serde(rename = "rule", skip_serializing_if = "Option::is_none")]
    pub table: Option<usize>,
    /// Its `match`.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Every key.
    pub keys: Vec<ExplainedKey>,
}

/// A key of a channel's rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedKey {
    /// Its name.
    pub key: &'static str,
    /// Its value, a number or a word.
    pub value: Value,
    /// Where the value comes from.
    #[serde(flatten)]
    pub source: KeySource,
}

/// Where the value of a key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "source", content = "why", rename_all = "lowercase")]
pub enum KeySource {
    /// The table that holds.
    #[serde(rename = "rule")]
    Table,
    /// The default of the channel's name.
    Name,
    /// Neither of them can change it, for this reason.
    Fixed(&'static str),
}

impl Rules {
    /// Whether the name may have a rule other than [`Rule::PLAIN`]: there are tables, or the name's first letter is that of a
    /// prefix with defaults.
    #[inline]
    pub fn may_apply(&self, name: &str) -> bool {
        !self.tables.is_empty() || (matches!(name.as_bytes().first(), Some(b'c' | b'p')) && has_defaults(name))
    }

    /// The rules of a text, for tests and simulations.
    #[cfg(any(test, fuzzing))]
    pub fn parse(text: &str) -> Rules {
        let read = Tables::parse(text);
        assert!(read.problems.is_empty(), "{:?}", read.problems);
        read.rules
    }

    /// Whether any channel holds messages back for slow readers.
    pub fn may_conflate(&self) -> bool {
        self.tables.iter().any(|table| table.over(DEFAULTS).slow != Slow::Disconnect)
    }

    /// The rule of a channel. Costs a compare or two for a name that cannot have one.
    pub fn rule(&self, name: &str) -> Rule {
        if !self.may_apply(name) {
            return Rule::PLAIN;
        }
        let table = self.table(name).map(|(_, table)| table);
        Rule::of(&effective(table, name))
    }

    /// The rule of a channel, and where each of its keys comes from.
    pub fn explain(&self, name: &str) -> Explained {
        let table = self.table(name);
        let given = table.map(|(_, table)| table);
        let (defaults, keys) = (Keys::of_name(name), effective(given, name));
        let explained = KEYS.iter().map(|key| {
            let value = (key.value)(&keys);
            let from_table = given.and_then(|table| (key.given)(table));
            let source = match from_table {
                Some(given) if given == value => KeySource::Table,
                None if (key.value)(&defaults) == value => KeySource::Name,
                _ => KeySource::Fixed(key.fixed),
            };
            ExplainedKey { key: key.name, value, source }
        });
        Explained {
            rule: Rule::of(&keys),
            table: table.map(|(at, _)| at + 1),
            pattern: given.map(|table| table.pattern.clone()),
            keys: explained.collect(),
        }
    }

    /// What one channel can keep, for people: a line for each kind of channels.
    pub fn costs(&self, history_bytes_max: usize) -> Vec<String> {
        let cost = |what: String, messages: u32, bytes_max: u32| {
            let (plural, channels) = (if messages == 1 { "" } else { "s" }, history_bytes_max / bytes_max as usize);
            let bytes = bytes(bytes_max.into());
            format!(
                "{what}: {messages} message{plural}, {bytes} at most; history-memory holds {channels} such channels"
            )
        };
        let of_table = |(table, number): (&Table, usize)| {
            let keys = table.over(Keys { history: table.messages_max(), ..DEFAULTS });
            let what = format!("[[channel]] table {number}, match {:?}", table.pattern);
            (keys.history > 0).then(|| cost(what, keys.history, keys.history_bytes))
        };
        let other = cost("other names with a cache prefix".into(), 1, DEFAULTS.history_bytes);
        self.tables.iter().zip(1..).filter_map(of_table).chain([other]).collect()
    }

    /// From these tables to `new`, for people: the old and the new text of each change. A table is known by its pattern.
    pub(super) fn changes(&self, new: &Rules) -> Vec<(String, String)> {
        let text = |table: Option<&Table>| table.map_or("none".into(), Table::to_string);
        let patterns = self.patterns().chain(new.patterns().filter(|pattern| self.of(pattern).is_none()));
        let pairs = patterns.map(|pattern| (self.of(pattern), new.of(pattern)));
        let mut changes: Vec<_> =
            pairs.filter(|(old, new)| old != new).map(|(old, new)| (text(old), text(new))).collect();
        let order = |rules: &Rules, other: &Rules| {
            let kept = rules.patterns().filter(|pattern| other.of(pattern).is_some());
            format!("order: {}", listed(kept.map(str::to_owned)))
        };
        let (was, is) = (order(self, new), order(new, self));
        if was != is {
            changes.push((was, is));
        }
        changes
    }

    /// The pattern of each table, but each once: a second table of a pattern has no effect.
    fn patterns(&self) -> impl Iterator<Item = &str> {
        let mut seen = HashSet::new();
        self.tables.iter().map(|table| &*table.pattern).filter(move |pattern| seen.insert(*pattern))
    }

    /// The table of a pattern.
    fn of(&self, pattern: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.pattern == pattern)
    }

    /// Whether the channel's table says which clients may send client events.
    pub fn names_client_events(&self, name: &str) -> bool {
        self.table(name).is_some_and(|(_, table)| table.names_client_events())
    }

    /// The first table whose pattern fits the name, and its index. Names of internal channels have no table.
    fn table(&self, name: &str) -> Option<(usize, &Table)> {
        let mut tables = self.tables.iter().enumerate();
        tables.find(|(_, table)| !name.starts_with('#') && pattern::matches(&table.pattern, name))
    }
}

/// The keys that take effect for a channel of this name.
fn effective(table: Option<&Table>, name: &str) -> Keys {
    let defaults = Keys::of_name(name);
    let mut keys = table.map_or(defaults, |table| table.over(defaults));
    if keys.history == 0 {
        keys.on_subscribe = OnSubscribe::Nothing;
    }
    if name.starts_with(PRESENCE) {
        keys.presence = Presence::Members;
    }
    if !may_take_client_events(name) {
        keys.client_events = ClientEvents::Off;
    }
    keys
}

/// Whether the name alone gives a channel more than delivery.
fn has_defaults(name: &str) -> bool {
    matches!(name.as_bytes().first(), Some(b'c' | b'p')) && (name.starts_with(PRESENCE) || is_cache(name))
}

/// Whether the name allows client events.
pub fn may_take_client_events(name: &str) -> bool {
    name.starts_with(PRESENCE) || name.starts_with(PRIVATE) && !name.starts_with(ENCRYPTED)
}

/// Whether the name alone makes a channel keep its newest message.
pub fn is_cache(name: &str) -> bool {
    CACHE.iter().any(|prefix| name.starts_with(prefix))
}

/// Prefix of presence channels.
pub const PRESENCE: &str = "presence-";
/// Prefix of private channels.
pub const PRIVATE: &str = "private-";
/// Prefix of private channels whose messages are encrypted.
pub const ENCRYPTED: &str = "private-encrypted-";
/// Prefixes of channels that keep their newest message.
const CACHE: [&str; 4] = ["cache-", "private-cache-", "private-encrypted-cache-", "presence-cache-"];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn rules(text: &str) -> Rules {
        Rules::parse(text)
    }

    fn kept(messages_max: u32, bytes_max: u32, ttl_s: u32) -> Option<History> {
        Some(History { messages_max, bytes_max, ttl_s })
    }

    const CACHED: Rule = Rule {
        history: Some(History { messages_max: 1, bytes_max: 256 << 10, ttl_s: 1800 }),
        on_subscribe: OnSubscribe::Last,
        ..Rule::PLAIN
    };

    #[test]
    fn without_tables_the_name_decides() {
        let rules = Rules::default();
        let check = |name: &str, expected: Rule| assert_eq!(rules.rule(name), expected, "{name}");
        for plain in ["", "a", "prices:eur", "private-a", "private-encrypted-a", "cache", "Cache-a", "a-cache-b", "#a"]
        {
            check(plain, Rule::PLAIN);
        }
        for plain in ["presence", "Presence-a", "private-presence-a", "#presence-a", "#cache-a", "p", "c"] {
            check(plain, Rule::PLAIN);
        }
        for cached in ["cache-", "cache-a", "private-cache-a", "private-encrypted-cache-a"] {
            check(cached, CACHED);
        }
        let members = Rule { presence: Presence::Members, ..Rule::PLAIN };
        check("presence-a", members);
        check("presence-", members);
        check("presence-cache-a", Rule { presence: Presence::Members, ..CACHED });
        assert!(Rule::PLAIN.is_plain() && !members.is_plain());
    }

    #[test]
    fn the_first_table_that_fits_holds_and_only_it() {
        let rules = rules(
            r#"
            [[channel]]
            match = "prices:eur"
            history = 1
            [[channel]]
            match = "prices:*"
            history = 2
            slow = "latest"
            [[channel]]
            match = "*"
            presence = "count"
            "#,
        );
        let check = |name: &str, expected: Rule| assert_eq!(rules.rule(name), expected, "{name}");
        check("prices:eur", Rule { history: kept(1, 256 << 10, 300), ..Rule::PLAIN });
        check("prices:usd", Rule { history: kept(2, 256 << 10, 300), slow: Slow::Latest, ..Rule::PLAIN });
        check("other", Rule { presence: Presence::Count, ..Rule::PLAIN });
        check("#other", Rule::PLAIN);
        check("#presence-", Rule::PLAIN);
    }

    #[test]
    fn a_key_that_a_table_leaves_out_keeps_the_default_of_the_name() {
        let rules = rules(
            r#"
            [[channel]]
            match = "cache-none-*"
            history = 0
            [[channel]]
            match = "cache-quiet-*"
            on-subscribe = "nothing"
            [[channel]]
            match = "cache-*"
            history = 5
            history-bytes = 1000
            [[channel]]
            match = "presence-*"
            client-events = "members"
            "#,
        );
        let check = |name: &str, expected: Rule| assert_eq!(rules.rule(name), expected, "{name}");
        check("cache-none-a", Rule::PLAIN);
        check("cache-quiet-a", Rule { on_subscribe: OnSubscribe::Nothing, ..CACHED });
        check("cache-a", Rule { history: kept(5, 1000, 1800), ..CACHED });
        check("private-cache-a", CACHED);
        let members = Rule { presence: Presence::Members, client_events: true, ..Rule::PLAIN };
        check("presence-a", members);
        check("presence-cache-a", Rule { history: CACHED.history, on_subscribe: OnSubscribe::Last, ..members });
    }

    #[test]
    fn names_limit_what_a_table_gives() {
        let rules = rules("[[channel]]\nmatch = \"*\"\npresence = \"count\"\nclient-events = \"members\"\n");
        let counted = Rule { presence: Presence::Count, ..Rule::PLAIN };
        let check = |name: &str, expected: Rule| assert_eq!(rules.rule(name), expected, "{name}");
        check("room", counted);
        check("private-encrypted-room", counted);
        check("private-room", Rule { client_events: true, ..counted });
        check("private-encrypted", Rule { client_events: true, ..counted });
        check("presence-room", Rule { presence: Presence::Members, client_events: true, ..Rule::PLAIN });
        check("cache-room", Rule { presence: Presence::Count, ..CACHED });
    }

    #[test]
    fn an_explanation_names_the_source_of_each_key() {
        let text = "[[channel]]\nmatch = \"x\"\n[[channel]]\nmatch = \"*-*\"\nhistory = 0\nslow = \"disconnect\"\n\
                    presence = \"count\"\nclient-events = \"members\"\n";
        let rules = rules(text);
        let check = |name: &str, table: Option<usize>, expected: &[(&str, &str, Option<KeySource>)]| {
            let explained = rules.explain(name);
            assert_eq!(explained.table, table, "{name}");
            assert_eq!(explained.rule, rules.rule(name));
            assert_eq!(explained.keys.len(), KEYS.len());
            for (key, value, source) in expected {
                let found = explained.keys.iter().find(|found| found.key == *key).expect("every key");
                let expected = value.parse().map_or_else(|_| Value::String((*value).into()), Value::Integer);
                assert_eq!(found.value, expected, "{name} {key}");
                match source {
                    Some(source) => assert_eq!(found.source, *source, "{name} {key}"),
                    None => assert!(matches!(found.source, KeySource::Fixed(why) if !why.is_empty()), "{found:?}"),
                }
            }
        };
        let (table, name) = (Some(KeySource::Table), Some(KeySource::Name));
        check("a", None, &[("history", "0", name), ("slow", "disconnect", name), ("presence", "off", name)]);
        check("x", Some(1), &[("history", "0", name), ("client-events", "off", name)]);
        check(
            "cache-a",
            Some(2),
            &[
                ("history", "0", table),
                ("history-bytes", "262144", name),
                ("history-ttl", "1800", name),
                ("on-subscribe", "nothing", None),
                ("slow", "disconnect", table),
                ("presence", "count", table),
                ("client-events", "off", None),
            ],
        );
        check("presence-a", Some(2), &[("presence", "members", None), ("client-events", "members", table)]);
        check("#a-b", None, &[("presence", "off", name)]);
        assert_eq!(rules.explain("a-b").pattern.as_deref(), Some("*-*"));
    }

    #[test]
    fn costs_have_a_line_for_each_kind_of_channels() {
        let text = "[[channel]]\nmatch = \"a\"\nhistory = 7\nhistory-bytes = \"1KiB\"\n[[channel]]\nmatch = \"b\"\n\
                    [[channel]]\nmatch = \"c*\"\nslow = \"latest\"\n[[channel]]\nmatch = \"cache-*\"\nhistory = 0\n";
        assert_eq!(
            rules(text).costs(1 << 20),
            [
                "[[channel]] table 1, match \"a\": 7 messages, 1 KiB at most; history-memory holds 1024 such channels",
                "[[channel]] table 3, match \"c*\": 1 message, 256 KiB at most; history-memory holds 4 such channels",
                "other names with a cache prefix: 1 message, 256 KiB at most; history-memory holds 4 such channels",
            ]
        );
    }

    /// A table as texts by key.
    type Texts = BTreeMap<&'static str, String>;

    /// The rule as PROTOCOL.md words it.
    fn reference(tables: &[Texts], name: &str) -> Rule {
        if name.starts_with('#') {
            return Rule::PLAIN;
        }
        let starts = |prefix: &str| name.len() >= prefix.len() && &name[..prefix.len()] == prefix;
        let is_cache =
            ["", "private-", "private-encrypted-", "presence-"].iter().any(|kind| starts(&format!("{kind}cache-")));
        let mut keys: BTreeMap<&str, String> = [
            ("history", if is_cache { "1" } else { "0" }),
            ("history-bytes", "262144"),
            ("history-ttl", if is_cache { "1800" } else { "300" }),
            ("on-subscribe", if is_cache { "last" } else { "nothing" }),
            ("slow", "disconnect"),
            ("presence", "off"),
            ("client-events", "off"),
        ]
        .map(|(key, value)| (key, value.to_owned()))
        .into();
        let fits = |table: &&Texts| pattern::tests::naive(table["match"].as_bytes(), name.as_bytes());
        keys.extend(tables.iter().find(fits).into_iter().flatten().map(|(key, value)| (*key, value.clone())));
        let number = |key: &str| keys[key].parse::<u32>().expect("a number");
        let history = kept(number("history"), number("history-bytes"), number("history-ttl"));
        let history = history.filter(|history| history.messages_max > 0);
        Rule {
            history,
            on_subscribe: match keys["on-subscribe"].as_str() {
                "last" if history.is_some() => OnSubscribe::Last,
                "all" if history.is_some() => OnSubscribe::All,
                _ => OnSubscribe::Nothing,
            },
            slow: match keys["slow"].as_str() {
                "latest" => Slow::Latest,
                "latest-by-key" => Slow::LatestByKey,
                _ => Slow::Disconnect,
            },
            presence: match keys["presence"].as_str() {
                _ if starts("presence-") => Presence::Members,
                "count" => Presence::Count,
                _ => Presence::Off,
            },
            client_events: keys["client-events"] == "members"
                && (starts("presence-") || starts("private-") && !starts("private-encrypted-")),
        }
    }

    fn texts() -> impl Strategy<Value = Texts> {
        const HEADS: &[&str] = &[
            "",
            "cache-",
            "private-",
            "private-cache-",
            "private-encrypted-",
            "presence-",
            "presence-cache-",
            "p",
            "c",
        ];
        let optional = |values: &'static [&'static str]| prop::option::of(prop::sample::select(values));
        (
            (prop::sample::select(HEADS), "[ab*]{0,3}").prop_map(|(head, tail)| format!("{head}{tail}*")),
            optional(&["0", "1", "9"]),
            (optional(&["300", "262144"]), optional(&["7", "300"]), optional(&["nothing", "last", "all"])),
            optional(&["disconnect", "latest", "latest-by-key"]),
            optional(&["off", "count"]),
            optional(&["off", "members"]),
        )
            .prop_map(|(pattern, history, (bytes, ttl, sent), slow, presence, events)| {
                // Without history the others are refused.
                let needs =
                    |value: Option<&'static str>| value.filter(|_| history.is_some_and(|history| history != "0"));
                let keys = [
                    ("match", Some(pattern)),
                    ("history", history.map(str::to_owned)),
                    ("history-bytes", needs(bytes).map(str::to_owned)),
                    ("history-ttl", needs(ttl).map(str::to_owned)),
                    ("on-subscribe", needs(sent).map(str::to_owned)),
                    ("slow", slow.map(str::to_owned)),
                    ("presence", presence.map(str::to_owned)),
                    ("client-events", events.map(str::to_owned)),
                ];
                keys.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
            })
    }

    proptest! {
        #[test]
        fn rules_follow_the_reference(
            texts in prop::collection::vec(texts(), 1..5),
            name in "#?(cache-|private-|private-cache-|private-encrypted-|private-encrypted-cache-|presence-|presence-cache-|p|c)?[ab]{0,4}",
        ) {
            let table = |table: &Texts| {
                let keys: String = table.iter().map(|(key, value)| format!("{key} = {value:?}\n")).collect();
                format!("[[channel]]\n{keys}")
            };
            let rules = rules(&texts.iter().map(table).collect::<String>());
            prop_assert_eq!(rules.rule(&name), reference(&texts, &name));
            prop_assert_eq!(rules.explain(&name).rule, reference(&texts, &name));
            prop_assert_eq!(Rules::default().rule(&name), reference(&[], &name));
        }
    }
}
