//! The types of option values: read from text within the limits of a [`Kind`], and shown again.

use super::access::{self, Origin};
use super::kind::Kind;
use super::{HttpListener, Key, Pin, REDACTED, WEBHOOK_EVENTS, WebhookUrl};
use ipnet::IpNet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use toml::Value;
use tracing::level_filters::LevelFilter;

/// A single value.
pub trait Scalar: Sized {
    /// Reads the value from a text. The error says what is wrong with the text, and holds no secret.
    fn read(text: &str, kind: Kind) -> Result<Self, String>;
    /// As the configuration file holds it.
    fn show(&self, kind: Kind) -> Value;
}

/// How an option's texts become its field.
pub trait Shape<Field> {
    /// Reads the texts that one source has; returns what is wrong with them.
    fn read(field: &mut Field, texts: &[String], kind: Kind) -> Vec<String>;
    /// The value in force; `None`: it has none.
    fn show(field: &Field, kind: Kind) -> Option<Value>;
}

/// One value, which has a default.
pub struct One;
/// One value or none.
pub struct Maybe;
/// One value, or `auto`, which is `None`.
pub struct Auto;
/// Any number of values.
pub struct List;

impl<T: Scalar> Shape<T> for One {
    fn read(field: &mut T, texts: &[String], kind: Kind) -> Vec<String> {
        let read = texts.first().map(|text| T::read(text, kind).map(|value| *field = value));
        read.and_then(Result::err).into_iter().collect()
    }

    fn show(field: &T, kind: Kind) -> Option<Value> {
        Some(field.show(kind))
    }
}

impl<T: Scalar> Shape<Option<T>> for Maybe {
    fn read(field: &mut Option<T>, texts: &[String], kind: Kind) -> Vec<String> {
        let read = texts.first().map(|text| T::read(text, kind).map(|value| *field = Some(value)));
        read.and_then(Result::err).into_iter().collect()
    }

    fn show(field: &Option<T>, kind: Kind) -> Option<Value> {
        field.as_ref().map(|value| value.show(kind))
    }
}

impl<T: Scalar> Shape<Option<T>> for Auto {
    fn read(field: &mut Option<T>, texts: &[String], kind: Kind) -> Vec<String> {
        if texts.first().is_some_and(|text| text == "auto") { Vec::new() } else { Maybe::read(field, texts, kind) }
    }

    fn show(field: &Option<T>, kind: Kind) -> Option<Value> {
        Some(Maybe::show(field, kind).unwrap_or_else(|| Value::String("auto".into())))
    }
}

impl<T: Scalar> Shape<Vec<T>> for List {
    fn read(field: &mut Vec<T>, texts: &[String], kind: Kind) -> Vec<String> {
        let (mut wrong, mut values) = (Vec::new(), Vec::new());
        for text in texts {
            T::read(text, kind).map_or_else(|problem| wrong.push(problem), |value| values.push(value));
        }
        *field = values;
        wrong
    }

    fn show(field: &Vec<T>, kind: Kind) -> Option<Value> {
        Some(Value::Array(field.iter().map(|value| value.show(kind)).collect()))
    }
}

/// What is wrong with a text that its kind does not take.
pub(super) fn refused(text: &str) -> String {
    format!("{text:?} is not allowed")
}

/// The text of a value in the file; `None`: it is not a single one.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(true) => Some("on".into()),
        Value::Boolean(false) => Some("off".into()),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

/// The name that differs in at most one letter of four, in any spelling.
pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.replace(['-', '_'], "").trim_end_matches('s').to_lowercase();
    let distance = |known: &&str| strsim::osa_distance(&plain(known), &plain(name));
    names.min_by_key(distance).filter(|known| distance(known) * 4 <= plain(name).len())
}

/// A value for people: texts without quotes, lists separated by commas.
pub(super) fn plain(value: Option<Value>) -> String {
    match value {
        None => "none".into(),
        Some(Value::String(text)) => text,
        Some(Value::Boolean(true)) => "on".into(),
        Some(Value::Boolean(false)) => "off".into(),
        Some(Value::Array(values)) => listed(values.into_iter().map(|value| plain(Some(value)))),
        Some(other) => other.to_string(),
    }
}

/// Separated by commas, for people.
pub(super) fn listed(texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<String> = texts.collect();
    if texts.is_empty() { "none".into() } else { texts.join(", ") }
}

/// Whole numbers, in the kind's unit.
macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl Scalar for $type {
            fn read(text: &str, kind: Kind) -> Result<$type, String> {
                kind.number(text).and_then(|number| number.try_into().ok()).ok_or_else(|| refused(text))
            }

            fn show(&self, kind: Kind) -> Value {
                match kind {
                    Kind::Millis(..) if self % 1000 != 0 => Value::Float(*self as f64 / 1000.0),
                    Kind::Millis(..) => Value::Integer((self / 1000) as i64),
                    _ => Value::Integer(*self as i64),
                }
            }
        }
    )*};
}

numbers!(u32 u64 usize);

impl Scalar for bool {
    fn read(text: &str, kind: Kind) -> Result<bool, String> {
        String::read(text, kind).map(|text| text == "on")
    }

    fn show(&self, _: Kind) -> Value {
        Value::Boolean(*self)
    }
}

impl Scalar for PathBuf {
    fn read(text: &str, kind: Kind) -> Result<PathBuf, String> {
        String::read(text, kind).map(PathBuf::from)
    }

    fn show(&self, _: Kind) -> Value {
        Value::String(self.display().to_string())
    }
}

/// `off` is `None`.
impl Scalar for Option<HttpListener> {
    fn read(text: &str, kind: Kind) -> Result<Option<HttpListener>, String> {
        match text {
            "off" => Ok(None),
            _ => SocketAddr::read(text, kind).map(|address| Some(HttpListener { address, is_named: true })),
        }
    }

    fn show(&self, kind: Kind) -> Value {
        self.map_or_else(|| Value::String("off".into()), |http| http.address.show(kind))
    }
}

impl Scalar for Pin {
    fn read(text: &str, kind: Kind) -> Result<Pin, String> {
        String::read(text, kind).map(|text| if text == "none" { Pin::None } else { Pin::Auto })
    }

    fn show(&self, _: Kind) -> Value {
        Value::String(if *self == Pin::None { "none".into() } else { "auto".into() })
    }
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_multicast() || address.ip() == Ipv4Addr::BROADCAST => {
            Err(format!("{}: no connection arrives at a multicast or broadcast address", refused(text)))
        }
        Ok(address) => Ok(address),
        Err(_) if text.contains('%') => Err(format!(
            "{}: a zone is the number of its interface, as in [fe80::1%2]:9000 (`ip link` shows the numbers)",
            refused(text)
        )),
        Err(_) => Err(refused(text)),
    }
}

/// Values that are shown as they display themselves.
macro_rules! texts {
    ($($type:ty: $read:expr;)*) => {$(
        impl Scalar for $type {
            fn read(text: &str, kind: Kind) -> Result<$type, String> {
                let read: fn(&str, Kind) -> Result<$type, String> = $read;
                read(text, kind)
            }

            fn show(&self, _: Kind) -> Value {
                Value::String(self.to_string())
            }
        }
    )*};
}

texts! {
    String: |text, kind| if kind.accepts(text) { Ok(text.to_owned()) } else { Err(refused(text)) };
    SocketAddr: |text, _| socket_address(text);
    LevelFilter: |text, kind| String::read(text, kind)?.parse().map_err(|_| refused(text));
    Origin: |text, _| Origin::parse(text).map_err(|why| format!("{}: {why}", refused(text)));
    IpNet: |text, _| access::network(text).ok_or_else(|| refused(text));
    WebhookUrl: |text, _| WebhookUrl::parse(text).ok_or_else(|| refused(text));
}

/// Names of [`WEBHOOK_EVENTS`], each once.
impl Scalar for Vec<&'static str> {
    fn read(text: &str, kind: Kind) -> Result<Vec<&'static str>, String> {
        let words = String::read(text, kind)?;
        Ok(WEBHOOK_EVENTS.into_iter().filter(|name| words.split(',').any(|word| word.trim() == *name)).collect())
    }

    fn show(&self, _: Kind) -> Value {
        Value::String(self.join(","))
    }
}

/// The secret is never shown.
impl Scalar for Key {
    fn read(text: &str, _: Kind) -> Result<Key, String> {
        Key::parse(text).map_err(|why| format!("a key pair is not allowed: {why}"))
    }

    fn show(&self, _: Kind) -> Value {
        Value::String(format!("{}:{REDACTED}", self.id))
    }
}
