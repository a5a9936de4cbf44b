//! What is in force, option by option, and what changes between two configurations.

use super::{Certificate, Config, ConsoleKey, Key, OPTIONS, Origin, Pin, REDACTED};
use std::path::Path;
use std::sync::Arc;
use toml::Value;

/// An option that two configurations disagree about. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name; for the pairs of `key` and `key-file` together, `key`.
    pub option: &'static str,
    /// What was in force, as people read it.
    pub old: String,
    /// What the new configuration says.
    pub new: String,
}

/// What a reload came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// In force now.
    pub changes: Vec<Change>,
    /// In force after the next start: a running server keeps what it was started with.
    pub restart: Vec<Change>,
}

impl Config {
    /// From this configuration to `new`, in the order of [`OPTIONS`].
    pub fn difference(&self, new: &Config) -> Difference {
        let mut difference = Difference::default();
        for option in &OPTIONS {
            let (old, new) = match option.name {
                "key" if same_keys(&self.live.keys, &new.live.keys) => continue,
                "key" => (ids(&self.live.keys), ids_beside(&new.live.keys, &self.live.keys)),
                "tls-cert" => {
                    (chain(&self.live.certificate), chain_beside(&new.live.certificate, &self.live.certificate))
                }
                "console-key-file" => {
                    let (old, new) = (&self.live.console.key, &new.live.console.key);
                    let is_changed = old.as_ref().zip(new.as_ref()).is_some_and(|(old, new)| old.is_changed(new));
                    let path = |key: &Option<ConsoleKey>| {
                        key.as_ref().map_or("none".into(), |key| key.path.display().to_string())
                    };
                    (path(old), if is_changed { format!("{} (another key)", path(new)) } else { path(new) })
                }
                name => (plain(self.value(name)), plain(new.value(name))),
            };
            if old != new {
                let changes = if option.needs_restart { &mut difference.restart } else { &mut difference.changes };
                changes.push(Change { option: option.name, old, new });
            }
        }
        difference
    }

    /// The value of an option as it is in force; `None`: it has none. `key` stands for `key-file` too.
    pub(super) fn value(&self, option: &str) -> Option<Value> {
        let live = &self.live;
        let (limits, access) = (&live.limits, &live.access);
        let whole = |number: u64| Value::Integer(number as i64);
        let seconds = |millis: u64| match millis % 1000 {
            0 => whole(millis / 1000),
            _ => Value::Float(millis as f64 / 1000.0),
        };
        let list = |texts: Vec<String>| Value::Array(texts.into_iter().map(Value::String).collect());
        let path = |path: &Path| Value::String(path.display().to_string());
        Some(match option {
            "listen" => Value::String(self.listen.to_string()),
            "tls-cert" => path(&live.certificate.as_ref()?.path),
            "tls-key" => path(&live.certificate.as_ref()?.key_path),
            "path" => list(access.paths.clone()),
            "echo-path" => Value::String(access.echo_path.clone()?),
            "allow-origin" => list(access.origins.iter().map(Origin::to_string).collect()),
            "trust-proxy" => list(access.trusted.iter().map(|network| network.to_string()).collect()),
            "proxy-protocol" => Value::Boolean(access.has_proxy_header),
            "admin-socket" => path(&self.admin_socket),
            "http" => Value::String(self.http.map_or("off".into(), |http| http.address.to_string())),
            "app-id" => Value::String(self.app_id.clone()),
            "console" => Value::Boolean(live.console.is_on),
            "console-key-file" => path(&live.console.key.as_ref()?.path),
            "shards" => whole(self.shards as u64),
            "pin" => Value::String(match self.pin {
                Pin::Auto => "auto".into(),
                Pin::None => "none".into(),
            }),
            "key" => redacted(&live.keys),
            "key-file" => return None,
            "webhook" => list(live.webhooks.urls.iter().map(ToString::to_string).collect()),
            "webhook-events" => Value::String(live.webhooks.events.join(",")),
            "webhook-retry" => seconds(live.webhooks.retry_ms),
            "heart-interval" => whole(limits.heart_interval_s.into()),
            "heart-timeout" => whole(limits.heart_timeout_s.into()),
            "server-ping" => Value::Boolean(limits.server_ping),
            "outbox-limit" => whole(limits.outbox_bytes_max as u64),
            "max-message" => whole(limits.message_bytes_max as u64),
            "max-subscriptions" => whole(limits.subscriptions_max as u64),
            "max-connections" => match live.connections_named {
                None => Value::String("auto".into()),
                Some(max) => whole(max as u64),
            },
            "max-connections-per-address" => match limits.connections_per_address_max {
                None => Value::String("auto".into()),
                Some(max) => whole(max.into()),
            },
            "max-upgrades-per-address" => whole(limits.upgrades_per_address_max.into()),
            "max-messages-per-second" => whole(limits.messages_per_second_max.into()),
            "max-bytes-per-second" => whole(limits.bytes_per_second_max.into()),
            "max-request" => whole(access.request_bytes_max as u64),
            "handshake-timeout" => seconds(limits.handshake_timeout_ms),
            "admin-line-limit" => whole(limits.admin_line_bytes_max as u64),
            "connection-age-max" => whole(limits.connection_age_max_s.into()),
            "drain-timeout" => seconds(live.drain_timeout_ms),
            "shutdown-timeout" => seconds(live.shutdown_timeout_ms),
            "log" => Value::String(live.log.to_string()),
            name => unreachable!("{name} is no option"),
        })
    }
}

/// The pairs as a list of `ID:[redacted]`.
pub(super) fn redacted(keys: &[Key]) -> Value {
    Value::Array(keys.iter().map(|key| Value::String(format!("{}:{REDACTED}", key.id))).collect())
}

/// As people write it: texts without quotes, lists separated by commas.
fn plain(value: Option<Value>) -> String {
    match value {
        None => "none".into(),
        Some(Value::String(text)) => text,
        Some(Value::Boolean(true)) => "on".into(),
        Some(Value::Boolean(false)) => "off".into(),
        Some(Value::Array(values)) => listed(values.into_iter().map(|value| plain(Some(value)))),
        Some(other) => other.to_string(),
    }
}

fn listed(texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<String> = texts.collect();
    if texts.is_empty() { "none".into() } else { texts.join(", ") }
}

fn same_keys(old: &[Key], new: &[Key]) -> bool {
    old.len() == new.len()
        && old.iter().all(|key| new.iter().any(|other| other.id == key.id && !is_resecreted(key, other)))
}

fn is_resecreted(old: &Key, new: &Key) -> bool {
    old.id == new.id && old.secret != new.secret
}

fn ids(keys: &[Key]) -> String {
    listed(keys.iter().map(|key| key.id.clone()))
}

/// The IDs; those whose secret is another than in `old` say so.
fn ids_beside(keys: &[Key], old: &[Key]) -> String {
    listed(keys.iter().map(|key| match old.iter().any(|old| is_resecreted(old, key)) {
        true => format!("{} (another secret)", key.id),
        false => key.id.clone(),
    }))
}

fn chain(certificate: &Option<Arc<Certificate>>) -> String {
    certificate.as_ref().map_or("none".into(), |certificate| certificate.to_string())
}

/// The certificate; a renewed one may have the same fingerprint and come with other authorities.
fn chain_beside(new: &Option<Arc<Certificate>>, old: &Option<Arc<Certificate>>) -> String {
    match (old, new) {
        (Some(old), Some(new)) if old.fingerprint() == new.fingerprint() && !old.is_same(new) => {
            format!("{new}, another chain")
        }
        _ => chain(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Settings};

    fn config(given: &[(&str, &str)]) -> Config {
        let mut flags = Flags::new();
        for (name, value) in given {
            flags.entry((*name).into()).or_default().push((*value).into());
        }
        let settings = Settings::gather(&flags, |_| None).unwrap_or_else(|invalid| panic!("{invalid}"));
        settings.validate().unwrap_or_else(|invalid| panic!("{invalid}"))
    }

    fn change(option: &'static str, old: &str, new: &str) -> Change {
        Change { option, old: old.into(), new: new.into() }
    }

    #[test]
    fn nothing_differs_from_itself() {
        let config = config(&[("key", "a:1"), ("path", "/ws")]);
        assert_eq!(config.difference(&config), Difference::default());
    }

    /// So that no option is added which a reload neither reports nor names as one that needs a restart.
    #[test]
    fn every_option_is_reported_and_by_itself() {
        let file = std::env::temp_dir().join(format!("corecast-test-{}-difference", std::process::id()));
        std::fs::write(&file, "b:2").expect("a temporary file");
        let console_key = file.with_extension("console");
        std::fs::write(&console_key, "0123456789abcdef").expect("a temporary file");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let pem = |name: &str, text: &str| {
            let path = std::env::temp_dir().join(format!("corecast-test-{}-difference-{name}", std::process::id()));
            std::fs::write(&path, text).expect("a temporary file");
            path.to_str().expect("UTF-8").to_owned()
        };
        let [cert, cert2] = ["cert", "cert2"].map(|name| pem(name, &made.cert.pem()));
        let [pkey, pkey2] = ["key", "key2"].map(|name| pem(name, &made.signing_key.serialize_pem()));
        let base = [
            ("shards", "2"),
            ("trust-proxy", "192.168.0.0/16"),
            ("tls-cert", &*cert),
            ("tls-key", &*pkey),
            ("key", "base:0"),
        ];
        for option in &OPTIONS {
            let other = match option.name {
                "listen" => "127.0.0.1:1",
                "tls-cert" => &cert2,
                "tls-key" => &pkey2,
                "path" | "echo-path" => "/ws",
                "allow-origin" => "https://example.com",
                "trust-proxy" => "10.0.0.0/8",
                "proxy-protocol" => "on",
                "admin-socket" => "/x.sock",
                "http" | "console" => "off",
                "app-id" => "other",
                "shards" => "3",
                "pin" => "none",
                "key" => "a:1",
                "key-file" => file.to_str().expect("UTF-8"),
                "console-key-file" => console_key.to_str().expect("UTF-8"),
                "webhook" => "https://example.com/hooks",
                "webhook-events" => "connected",
                "server-ping" => "off",
                "log" => "debug",
                _ => "4097",
            };
            let other = if option.kind.accepts(other) { other } else { "7" };
            let mut given = base.to_vec();
            given.retain(|(name, _)| *name != option.name);
            given.push((option.name, other));
            let Difference { changes, restart } = config(&base).difference(&config(&given));
            let name = if option.name == "key-file" { "key" } else { option.name };
            let names = |changes: &[Change]| changes.iter().map(|change| change.option).collect::<Vec<_>>();
            let (reported, other) = if option.needs_restart { (restart, changes) } else { (changes, restart) };
            assert_eq!((names(&reported), names(&other)), (vec![name], vec![]), "{}", option.name);
        }
        for file in [file, console_key, cert.into(), cert2.into(), pkey.into(), pkey2.into()] {
            let _ = std::fs::remove_file(file);
        }
    }

    #[test]
    fn a_renewed_certificate_is_a_change_under_the_same_name() {
        let with = |days: u64| {
            let chain = rcgen::generate_simple_self_signed([format!("{days}.example.com")]).expect("a certificate");
            let path = std::env::temp_dir().join(format!("corecast-test-{}-renewed", std::process::id()));
            let key_path = path.with_extension("key");
            std::fs::write(&path, chain.cert.pem()).expect("a temporary file");
            std::fs::write(&key_path, chain.signing_key.serialize_pem()).expect("a temporary file");
            let config = config(&[("tls-cert", path.to_str().unwrap()), ("tls-key", key_path.to_str().unwrap())]);
            for path in [path, key_path] {
                std::fs::remove_file(path).expect("removed");
            }
            config
        };
        let (mut old, new) = (with(1), with(2));
        let Difference { changes, .. } = old.difference(&new);
        let [change] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!(change.option, "tls-cert");
        assert!(change.new.contains(&new.live.certificate.as_ref().unwrap().fingerprint()[..16]), "{change:?}");
        old.live.exchange(new.live.clone());
        assert_eq!(old.difference(&new), Difference::default());
    }

    #[test]
    fn another_console_key_is_a_change_under_the_same_path() {
        let path = std::env::temp_dir().join(format!("corecast-test-{}-console-key", std::process::id()));
        let with = |secret: &str| {
            std::fs::write(&path, secret).expect("a temporary file");
            config(&[("console-key-file", path.to_str().expect("UTF-8"))])
        };
        let (old, new) = (with("hunter1-hunter1-hunter1"), with("hunter2-hunter2-hunter2"));
        std::fs::remove_file(&path).expect("removed");
        let path = path.display();
        let changed = change("console-key-file", &path.to_string(), &format!("{path} (another key)"));
        assert_eq!(old.difference(&new).changes, [changed]);
        assert_eq!(old.difference(&old), Difference::default());
    }

    #[test]
    fn values_are_shown_as_people_write_them() {
        let old = config(&[("shards", "2"), ("handshake-timeout", "0.5"), ("path", "/a"), ("path", "/b")]);
        let new = config(&[("shards", "4"), ("outbox-limit", "2MiB"), ("server-ping", "off")]);
        let Difference { changes, restart } = old.difference(&new);
        assert_eq!(restart, [change("shards", "2", "4")]);
        assert_eq!(
            changes,
            [
                change("path", "/a, /b", "none"),
                change("server-ping", "on", "off"),
                change("outbox-limit", "1048576", "2097152"),
                change("handshake-timeout", "0.5", "10"),
            ]
        );
    }

    #[test]
    fn keys_are_told_apart_and_never_shown() {
        let check = |old: &[(&str, &str)], new: &[(&str, &str)], expected: Option<Change>| {
            let Difference { changes, .. } = config(old).difference(&config(new));
            assert_eq!(changes.first(), expected.as_ref());
            assert!(!format!("{changes:?}").contains("hunter"));
        };
        let (a, a2, b) = (("key", "a:hunter1"), ("key", "a:hunter2"), ("key", "b:hunter3"));
        check(&[a], &[a, b], Some(change("key", "a", "a, b")));
        check(&[a, b], &[b, a], None);
        check(&[a, b], &[a2, b], Some(change("key", "a, b", "a (another secret), b")));
        check(&[a], &[], Some(change("key", "a", "none")));
    }
}
