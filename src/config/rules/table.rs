//! `[[channel]]` tables: their keys, how they are read, and what cannot take effect.

use super::{CACHE, ClientEvents, ENCRYPTED, OnSubscribe, PRESENCE, PRIVATE, Presence, Rules, Slow, is_cache};
use crate::config::bytes;
use crate::config::kind::Kind;
use crate::config::options::OPTIONS;
use crate::config::pattern::{covers, reaches};
use crate::config::value::{Maybe, One, Scalar, Shape, nearest, scalar};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use toml::Value;
use toml::de::DeValue;

/// Declares the keys of a table beside `match`: name, field, type, kind, default; why neither table nor name can change it.
macro_rules! keys {
    ($($name:literal, $field:ident: $type:ty, $kind:expr, $default:expr; $fixed:expr;)*) => {
        /// The value of every key.
        #[derive(Clone, Copy)]
        pub struct Keys {
            $(pub $field: $type,)*
        }

        /// A table: a pattern, and the keys that are not left out.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Table {
            /// Which channels it is for.
            pub pattern: String,
            $($field: Option<$type>,)*
        }

        /// A key of a table.
        pub struct Key {
            /// As the file has it.
            pub name: &'static str,
            /// Why a value is neither that of the table nor that of the name.
            pub fixed: &'static str,
            kind: Kind,
            read: fn(&mut Table, &[String]) -> Vec<String>,
            /// The value in a table.
            pub given: fn(&Table) -> Option<Value>,
            /// The value among those of all keys.
            pub value: fn(&Keys) -> Value,
        }

        /// Every key, in the order of the manual.
        pub const KEYS: &[Key] = &[$(Key {
            name: $name,
            fixed: $fixed,
            kind: $kind,
            read: |table, texts| Maybe::read(&mut table.$field, texts, $kind),
            given: |table| Maybe::show(&table.$field, $kind),
            value: |keys| keys.$field.show($kind),
        },)*];

        impl Table {
            /// Its values, and those of `keys` where it has none.
            pub fn over(&self, keys: Keys) -> Keys {
                Keys { $($field: self.$field.unwrap_or(keys.$field),)* }
            }
        }

        /// The defaults of most names.
        pub const DEFAULTS: Keys = Keys { $($field: $default,)* };
    };
}

keys! {
    "history", history: u32, Kind::Count(0, 100_000, "messages"), 0; "";
    "history-bytes", history_bytes: u32, Kind::Bytes(256, 16 << 20), 256 << 10; "";
    "history-ttl", history_ttl: u32, Kind::Seconds(1, 86_400), 300; "";
    "on-subscribe", on_subscribe: OnSubscribe, OnSubscribe::KIND, OnSubscribe::Nothing;
        "nothing is kept that could be sent";
    "slow", slow: Slow, Slow::KIND, Slow::Disconnect; "";
    "presence", presence: Presence, Presence::KIND, Presence::Off;
        ALWAYS_MEMBERS;
    "client-events", client_events: ClientEvents, ClientEvents::KIND, ClientEvents::Off;
        NO_CLIENT_EVENTS;
}

impl Keys {
    /// The defaults of a channel's name.
    pub fn of_name(name: &str) -> Keys {
        let presence = if name.starts_with(PRESENCE) { Presence::Members } else { DEFAULTS.presence };
        match is_cache(name) {
            true => Keys { history: 1, history_ttl: 1800, on_subscribe: OnSubscribe::Last, presence, ..DEFAULTS },
            false => Keys { presence, ..DEFAULTS },
        }
    }
}

/// As the file may hold it, on one line.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.lines();
        write!(f, "{}", keys.collect::<Vec<_>>().join(", "))
    }
}

impl Table {
    /// Its keys as lines of the file.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let keys = KEYS.iter().filter_map(|key| Some((key.name, (key.given)(self)?)));
        let first = ("match", Value::String(self.pattern.clone()));
        std::iter::once(first).chain(keys).map(|(name, value)| format!("{name} = {value}"))
    }

    /// Whether it says which clients may send client events.
    pub fn names_client_events(&self) -> bool {
        self.client_events.is_some()
    }

    /// The most messages that a channel keeps. Names with a cache prefix keep one by default.
    pub fn messages_max(&self) -> u32 {
        self.history.unwrap_or_else(|| u32::from(CACHE.iter().any(|prefix| reaches(&self.pattern, prefix))))
    }

    /// What in it contradicts the rest.
    fn contradictions(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        let may_keep = self.messages_max() > 0;
        let sends = self.on_subscribe.is_some_and(|sent| sent != OnSubscribe::Nothing);
        let needing = [
            ("history-bytes", self.history_bytes.is_some()),
            ("history-ttl", self.history_ttl.is_some()),
            ("on-subscribe", sends),
        ];
        let needs = "it has no effect without history. Add history = 1 or more, or remove it";
        wrong.extend(needing.into_iter().filter(|(_, given)| *given && !may_keep).map(|(key, _)| (key, needs.into())));
        if self.presence == Some(Presence::Members) && !self.pattern.starts_with(PRESENCE) {
            let why = "\"members\" is not allowed here: only names that begin with presence- have members. Begin match with \
                       presence-, or count the subscribers with \"count\"";
            wrong.push(("presence", why.into()));
        }
        let is_signed = [PRESENCE, PRIVATE].iter().any(|prefix| self.pattern.starts_with(prefix));
        if is_signed && self.pattern.contains(':') {
            let why = "no channel can fit it: names that begin with private- or presence- hold no colon. Use another \
                       separator, such as a dot";
            wrong.push(("match", why.into()));
        }
        wrong
    }

    /// Keys that the names it fits override, and why.
    fn idle(&self) -> Vec<(&'static str, &'static str)> {
        let mut idle = Vec::new();
        if self.pattern.starts_with(PRESENCE) && self.presence.is_some_and(|presence| presence != Presence::Members) {
            idle.push(("presence", ALWAYS_MEMBERS));
        }
        let is_private = reaches(&self.pattern, PRIVATE) && !self.pattern.starts_with(ENCRYPTED);
        let takes_client_events = is_private || reaches(&self.pattern, PRESENCE);
        if self.client_events == Some(ClientEvents::Members) && !takes_client_events {
            idle.push(("client-events", NO_CLIENT_EVENTS));
        }
        idle
    }
}

/// The tables of a file as they were read.
#[derive(Default)]
pub struct Tables {
    /// The file.
    at: String,
    /// The rules, if the file has no problems.
    pub rules: Rules,
    /// The line of each table, from 1.
    lines: Vec<usize>,
    /// What keeps the server from starting.
    pub problems: Vec<String>,
    /// What has no effect.
    pub notes: Vec<String>,
}

impl Tables {
    /// Reads the value of `channel` in the file `at`. `place` is the same value with positions, which `line_of` makes lines.
    pub fn read(at: &str, value: &Value, place: &DeValue, line_of: &dyn Fn(Range<usize>) -> usize) -> Tables {
        let mut read = Tables { at: at.into(), ..Tables::default() };
        let (values, places) = (value.as_array().map_or(&[][..], |values| values), place.as_array());
        for (value, place) in values.iter().zip(places.into_iter().flat_map(|places| places.iter())) {
            if let (Some(value), Some(keys)) = (value.as_table(), place.get_ref().as_table()) {
                let line = line_of(place.span());
                let lines = keys.keys().map(|key| (key.get_ref().to_string(), line_of(key.span())));
                read.lines.push(line);
                read.table(&Place { at, line, lines: lines.collect() }, value);
            }
        }
        if read.lines.len() != values.len() || values.is_empty() {
            read.problems.push(format!("channel ({at}) must be tables, each of which begins with [[channel]]"));
        }
        if values.len() > RULES_MAX {
            read.problems.push(format!(
                "{} [[channel]] tables ({at}) are more than {RULES_MAX}; remove some, or join them with * in match",
                values.len()
            ));
        }
        if read.problems.is_empty() {
            read.note_shadowed();
        }
        read
    }

    /// The tables of a file that holds nothing else, for tests and simulations.
    #[cfg(any(test, fuzzing))]
    pub fn parse(text: &str) -> Tables {
        let values: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
        let places = toml::de::DeTable::parse(text).expect("parsed before");
        let place = places.get_ref().get("channel").expect("channel");
        Tables::read("test.toml", &values["channel"], place.get_ref(), &|span| text[..span.start].lines().count() + 1)
    }

    /// The tables as a file that can be read back. Each names its source.
    pub fn to_toml(&self) -> String {
        let tables = self.rules.tables.iter().zip(&self.lines);
        let text = |(table, line): (&Table, &usize)| {
            let keys: Vec<String> = table.lines().collect();
            format!("\n[[channel]] # {:?}, line {line}\n{}\n", self.at, keys.join("\n"))
        };
        tables.map(text).collect()
    }

    fn table(&mut self, place: &Place, values: &toml::Table) {
        let number = self.lines.len();
        let Some(pattern) = values.get("match").and_then(Value::as_str) else {
            self.problems.push(format!(
                "{}: match is missing, or not a text; it takes {}",
                place.of(number, "", "match"),
                Kind::Pattern.allowed()
            ));
            return;
        };
        let mut table = Table::default();
        let mut wrong = Vec::new();
        for (name, value) in values {
            let mut say = |what: String| wrong.push(format!("{}: {what}", place.of(number, pattern, name)));
            let Some((kind, read)) = reader(name) else {
                say(format!("unknown key {name:?}. {}", hint(name)));
                continue;
            };
            let problems = match scalar(value) {
                Some(text) => read(&mut table, &[text]),
                None => vec!["a value of this type is not allowed".into()],
            };
            problems.iter().for_each(|problem| {
                say(format!("{name}: {problem}; it takes {}. Correct the line, or remove it", kind.allowed()));
            });
        }
        if wrong.is_empty() {
            let wrongs = table.contradictions().into_iter();
            wrong = wrongs.map(|(key, why)| format!("{}: {key}: {why}", place.of(number, pattern, key))).collect();
            let idle = table.idle().into_iter();
            self.notes.extend(
                idle.map(|(key, why)| format!("{}: {key} has no effect: {why}", place.of(number, pattern, key))),
            );
        }
        self.problems.append(&mut wrong);
        self.rules.tables.push(table);
    }

    /// Warnings about tables whose channels cannot keep as much as they say, because a shard can keep only `share` bytes.
    pub fn beyond(&self, share: usize) -> impl Iterator<Item = String> {
        let tables = self.rules.tables.iter().enumerate();
        tables.filter(move |(_, table)| table.history_bytes.is_some_and(|max| max as usize > share)).map(
            move |(index, table)| {
                let share = bytes(share as u64);
                format!(
                    "{}: history-bytes has no effect beyond {share}, a shard's share of history-memory. Raise history-memory, or \
                     lower history-bytes",
                    self.place(index).of(index + 1, &table.pattern, "history-bytes")
                )
            },
        )
    }

    fn place(&self, index: usize) -> Place<'_> {
        Place { at: &self.at, line: self.lines[index], lines: BTreeMap::new() }
    }

    /// Tables behind one that fits all of their names.
    fn note_shadowed(&mut self) {
        let tables = &self.rules.tables;
        for (index, table) in tables.iter().enumerate() {
            let Some(first) = tables[..index].iter().position(|first| covers(&first.pattern, &table.pattern)) else {
                continue;
            };
            self.notes.push(format!(
                "{} has no effect: table {}, match {:?}, fits every name that it fits, and the first table that fits holds. \
                 Move it up, or remove it",
                self.place(index).of(index + 1, &table.pattern, ""),
                first + 1,
                tables[first].pattern,
            ));
        }
    }
}

/// Where a table stands.
struct Place<'a> {
    /// The file.
    at: &'a str,
    line: usize,
    /// The lines of its keys.
    lines: BTreeMap<String, usize>,
}

impl Place<'_> {
    fn of(&self, number: usize, pattern: &str, key: &str) -> String {
        let line = self.lines.get(key).unwrap_or(&self.line);
        format!("[[channel]] table {number}, match {pattern:?} ({}, line {line})", self.at)
    }
}

type Reader = fn(&mut Table, &[String]) -> Vec<String>;

fn reader(key: &str) -> Option<(Kind, Reader)> {
    if key == "match" {
        return Some((Kind::Pattern, |table, texts| One::read(&mut table.pattern, texts, Kind::Pattern)));
    }
    KEYS.iter().find(|known| known.name == key).map(|known| (known.kind, known.read))
}

/// What an unknown key may mean. Keys below the first table belong to a table.
fn hint(key: &str) -> String {
    let names = || std::iter::once("match").chain(KEYS.iter().map(|key| key.name));
    if OPTIONS.iter().any(|option| option.name == key) {
        return "It is an option of the server: move it above the first [[channel]]".into();
    }
    match nearest(key, names()) {
        Some(name) => format!("Did you mean {name}?"),
        None => format!("The keys are {}", names().collect::<Vec<_>>().join(", ")),
    }
}

const ALWAYS_MEMBERS: &str = "names that begin with presence- always have members";
const NO_CLIENT_EVENTS: &str =
    "names that do not begin with private- or presence- take no client events, nor do private-encrypted- ones";
/// The largest number of tables.
pub const RULES_MAX: usize = 64;

#[cfg(test)]
pub(in crate::config) mod tests {
    use super::*;

    /// The tables of a file that holds nothing else.
    pub fn tables(text: &str) -> Tables {
        Tables::parse(text)
    }

    /// The only problem, or else note, of this text holds all parts.
    #[track_caller]
    fn check(text: &str, parts: &[&str]) {
        let read = tables(text);
        let said = if read.problems.is_empty() { &read.notes } else { &read.problems };
        let [said] = &said[..] else { panic!("{said:?}") };
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
    }

    #[track_caller]
    fn refused(keys: &str, parts: &[&str]) {
        let text = format!("[[channel]]\n{keys}\n");
        assert_eq!(tables(&text).problems.len(), 1, "{:?}", tables(&text).problems);
        check(&text, parts);
    }

    #[track_caller]
    fn noted(text: &str, parts: &[&str]) {
        assert_eq!(tables(text).problems, [""; 0]);
        check(text, parts);
    }

    #[track_caller]
    fn accepted(keys: &str) {
        let read = tables(&format!("[[channel]]\n{keys}\n"));
        assert_eq!((read.problems, read.notes), (vec![], vec![]), "{keys}");
    }

    #[test]
    fn every_key_takes_its_values() {
        accepted("match = \"*\"");
        for messages in ["0", "1", "100000", "\"7\""] {
            accepted(&format!("match = \"a\"\nhistory = {messages}"));
        }
        for (key, values) in [
            ("history-bytes", &["256", "\"16MiB\"", "\"1 KiB\""][..]),
            ("history-ttl", &["1", "86400"]),
            ("on-subscribe", &["\"nothing\"", "\"last\"", "\"all\""]),
        ] {
            values.iter().for_each(|value| accepted(&format!("match = \"a\"\nhistory = 1\n{key} = {value}")));
        }
        for slow in ["disconnect", "latest", "latest-by-key"] {
            accepted(&format!("match = \"a\"\nslow = \"{slow}\""));
        }
        accepted("match = \"a\"\npresence = \"off\"");
        accepted("match = \"a\"\npresence = \"count\"");
        accepted("match = \"presence-*\"\npresence = \"members\"");
        accepted("match = \"a\"\nclient-events = \"off\"");
        for pattern in ["*", "p*", "private-*", "private-room", "presence-*", "private-*x"] {
            accepted(&format!("match = {pattern:?}\nclient-events = \"members\""));
        }
    }

    #[test]
    fn a_value_that_is_not_allowed_is_named_with_its_table_line_key_and_limit() {
        let history = ["table 1", "match \"a\"", "test.toml, line 3", "history: ", "0 to 100000 messages"];
        for value in ["-1", "100001", "1.5", "true", "\"\"", "\"many\"", "4294967297"] {
            let text = value.trim_matches('"').replace("true", "on");
            refused(&format!("match = \"a\"\nhistory = {value}"), &[&history[..], &[&format!("{text:?}")]].concat());
        }
        refused("match = \"a\"\nhistory = [1]", &[&history[..], &["of this type"]].concat());
        let with = |key: &str, value: &str| format!("match = \"a\"\nhistory = 1\n{key} = {value}");
        for (key, value, limit) in [
            ("history-bytes", "255", "256 to 16777216 bytes"),
            ("history-bytes", "16777217", "256 to 16777216 bytes"),
            ("history-bytes", "\"17MiB\"", "256 to 16777216 bytes"),
            ("history-ttl", "0", "1 to 86400 seconds"),
            ("history-ttl", "86401", "1 to 86400 seconds"),
            ("on-subscribe", "\"first\"", "nothing or last or all"),
            ("on-subscribe", "false", "nothing or last or all"),
            ("slow", "\"drop\"", "disconnect or latest or latest-by-key"),
            ("presence", "\"on\"", "off or count"),
            ("presence", "true", "off or count"),
            ("client-events", "\"all\"", "off or members"),
        ] {
            refused(&with(key, value), &["table 1", "line 4", &format!(" {key}: "), limit, "Correct the line"]);
        }
        for pattern in ["", "a b", "#server", "a?", "ä*", &"x".repeat(201)] {
            refused(&format!("match = {pattern:?}"), &["table 1", "line 2", "match: ", "1 to 200"]);
        }
        refused("history = 1", &["table 1", "line 1", "match is missing"]);
        refused("match = 1", &["table 1", "line 2", "match is missing, or not a text"]);
    }

    #[test]
    fn an_unknown_key_names_the_nearest_one() {
        let unknown = |key: &str, hint: &str| {
            refused(
                &format!("match = \"a\"\n{key} = 1"),
                &["table 1", "line 3", &format!("unknown key {key:?}"), hint],
            );
        };
        unknown("histroy", "Did you mean history?");
        unknown("history_bytes", "Did you mean history-bytes?");
        unknown("historyttl", "Did you mean history-ttl?");
        unknown("clientevents", "Did you mean client-events?");
        unknown("onsubscribe", "Did you mean on-subscribe?");
        unknown("keep", "The keys are match, history, history-bytes");
        unknown("log", "move it above the first [[channel]]");
    }

    #[test]
    fn channel_is_a_list_of_tables() {
        for text in ["channel = 1", "channel = []", "channel = [1]", "[channel]\nmatch = \"a\"", "channel = \"a\""] {
            check(text, &["test.toml", "[[channel]]"]);
        }
        let inline = tables("channel = [{match = \"a\"}, {match = \"b\"}]");
        assert_eq!((inline.problems, inline.rules.tables.len()), (vec![], 2));
    }

    #[test]
    fn there_are_at_most_64_tables() {
        let many = |count| (0..count).map(|i| format!("[[channel]]\nmatch = \"c{i}\"\n")).collect::<String>();
        assert_eq!(tables(&many(64)).problems, [""; 0]);
        check(&many(65), &["65", "more than 64", "test.toml"]);
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let read = tables(
            "[[channel]]\nmatch = \"a\"\nslow = 1\nx = 1\n[[channel]]\n[[channel]]\nmatch = \"b\"\nhistory = -1",
        );
        assert_eq!(read.problems.len(), 4, "{:?}", read.problems);
        assert!(read.problems[2].contains("table 2") && read.problems[2].contains("line 5"), "{:?}", read.problems);
        assert!(read.problems[3].contains("table 3") && read.problems[3].contains("line 8"), "{:?}", read.problems);
    }

    #[test]
    fn what_needs_history_is_refused_without_it() {
        for key in ["history-bytes = 1000", "history-ttl = 5", "on-subscribe = \"last\"", "on-subscribe = \"all\""] {
            let parts = ["table 1", "without history", "Add history", key.split(' ').next().unwrap()];
            refused(&format!("match = \"a\"\n{key}"), &parts);
            refused(&format!("match = \"cache-*\"\nhistory = 0\n{key}"), &parts);
            // These names have a history by default.
            for pattern in ["cache-*", "private-*", "*", "presence-cache-x"] {
                accepted(&format!("match = {pattern:?}\n{key}"));
            }
        }
        accepted("match = \"a\"\non-subscribe = \"nothing\"");
        accepted("match = \"cache-*\"\nhistory = 0");
    }

    #[test]
    fn members_are_for_presence_names_alone() {
        for pattern in ["*", "presence*", "*presence-", "room", "private-*", "Presence-*"] {
            refused(&format!("match = {pattern:?}\npresence = \"members\""), &["table 1", "presence: ", "presence-"]);
        }
    }

    #[test]
    fn a_pattern_that_no_name_fits_is_refused() {
        for pattern in ["private-room:1", "private-*:*", "presence-a:*"] {
            refused(&format!("match = {pattern:?}"), &["table 1", "match: ", "hold no colon"]);
        }
        accepted("match = \"*:*\"");
        accepted("match = \"p*:*\"");
    }

    #[test]
    fn what_a_name_overrides_is_noted() {
        for presence in ["off", "count"] {
            let text = format!("[[channel]]\nmatch = \"presence-*\"\npresence = {presence:?}");
            noted(&text, &["table 1", "line 3", "presence has no effect", "always have members"]);
        }
        for pattern in ["a", "room:*", "private-encrypted-*", "cache-*", "privat"] {
            let text = format!("[[channel]]\nmatch = {pattern:?}\nclient-events = \"members\"");
            noted(&text, &["table 1", "line 3", "client-events has no effect", "private-"]);
        }
    }

    #[test]
    fn a_table_behind_one_that_fits_all_of_its_names_is_noted() {
        let noted = |first: &str, second: &str| {
            let text = format!("[[channel]]\nmatch = {first:?}\n\n[[channel]]\nmatch = {second:?}\n");
            noted(&text, &["table 2", "line 4", "has no effect", "table 1", first, "Move it up"]);
        };
        noted("a", "a");
        noted("*", "prices:*");
        noted("prices:*", "prices:eur");
        noted("p*:*", "prices:*:x*");
        let both = tables("[[channel]]\nmatch = \"prices:*\"\n[[channel]]\nmatch = \"*\"\n");
        assert_eq!((both.problems, both.notes), (vec![], vec![]));
    }

    #[test]
    fn the_manual_has_every_key() {
        for key in std::iter::once("match").chain(KEYS.iter().map(|key| key.name)) {
            let line = format!("\n#{key} = ");
            assert_eq!(include_str!("../../../corecast.toml").matches(&line).count(), 1, "{key}");
        }
    }

    #[test]
    fn tables_are_printed_as_they_are_read() {
        let text = "[[channel]]\nmatch = \"a*\"\nhistory = 7\nhistory-bytes = \"1KiB\"\nhistory-ttl = 5\n\
                    on-subscribe = \"all\"\nslow = \"latest-by-key\"\npresence = \"count\"\n[[channel]]\nmatch = \"private-*\"\n\
                    client-events = \"members\"\n";
        let read = tables(text);
        let printed = read.to_toml();
        assert_eq!(
            printed,
            "\n[[channel]] # \"test.toml\", line 1\nmatch = \"a*\"\nhistory = 7\nhistory-bytes = 1024\nhistory-ttl = 5\n\
             on-subscribe = \"all\"\nslow = \"latest-by-key\"\npresence = \"count\"\n\
             \n[[channel]] # \"test.toml\", line 9\nmatch = \"private-*\"\nclient-events = \"members\"\n"
        );
        assert_eq!(tables(&printed).rules, read.rules);
    }
}
