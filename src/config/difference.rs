//! What changes between two configurations, option by option.

use super::value::{listed, plain};
use super::{Certificate, Config, Key, OPTIONS, Opt};
use serde::Serialize;
use std::sync::Arc;

/// An option whose value differs between two configurations. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its name; for the pairs of `key` and `key-file` together, `key`; for a table, `channel`.
    pub option: &'static str,
    /// The old value, for people.
    pub old: String,
    /// The new value.
    pub new: String,
}

/// What a reload changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// In force now.
    pub changes: Vec<Change>,
    /// In force after the next start: a running server keeps the values that it was started with.
    pub restart: Vec<Change>,
}

impl Config {
    /// From this configuration to `new`, in the order of [`OPTIONS`]; tables come last.
    pub fn difference(&self, new: &Config) -> Difference {
        let mut difference = Difference::default();
        for option in OPTIONS {
            let Some((old, new)) = self.values(option, new).filter(|(old, new)| old != new) else {
                continue;
            };
            let changes = if option.needs_restart { &mut difference.restart } else { &mut difference.changes };
            changes.push(Change { option: option.name, old, new });
        }
        let rules = self.live.rules.changes(&new.live.rules).into_iter();
        difference.changes.extend(rules.map(|(old, new)| Change { option: "channel", old, new }));
        difference
    }

    /// The old and the new value of an option. What a file holds may change while its path stays.
    fn values(&self, option: &Opt, new: &Config) -> Option<(String, String)> {
        let (was, is) = (&self.live, &new.live);
        Some(match option.name {
            // Its pairs count as those of `key`.
            "key-file" => return None,
            "key" if same_keys(&was.keys, &is.keys) => return None,
            "key" => (ids(&was.keys), ids_beside(&is.keys, &was.keys)),
            "tls-cert" => (chain(&was.certificate), chain_beside(&is.certificate, &was.certificate)),
            name => {
                let (old, mut new) = (plain(option.show(self)), plain(option.show(new)));
                let keys = match name {
                    "console-key-file" => was.console.key.as_ref().zip(is.console.key.as_ref()),
                    "publish-token-file" => was.publish_token.as_ref().zip(is.publish_token.as_ref()),
                    _ => None,
                };
                if keys.is_some_and(|(old, new)| old.is_changed(new)) {
                    new += " (another key)";
                }
                (old, new)
            }
        })
    }
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

/// The IDs, with a remark behind those whose secret is not that of `old`.
fn ids_beside(keys: &[Key], old: &[Key]) -> String {
    listed(keys.iter().map(|key| match old.iter().any(|old| is_resecreted(old, key)) {
        true => format!("{} (another secret)", key.id),
        false => key.id.clone(),
    }))
}

fn chain(certificate: &Option<Arc<Certificate>>) -> String {
    certificate.as_ref().map_or("none".into(), |certificate| certificate.to_string())
}

/// The certificate. A renewed one may have the same fingerprint and other intermediate certificates.
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

    /// A reload reports every option as changed, or as one that needs a restart.
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
        for option in OPTIONS {
            let other = match option.name {
                "listen" => "127.0.0.1:1",
                "tls-cert" => &cert2,
                "tls-key" => &pkey2,
                "path" | "echo-path" => "/ws",
                "allow-origin" => "https://example.com",
                "trust-proxy" => "10.0.0.0/8",
                "proxy-protocol" | "pusher-subscription-count" => "on",
                "admin-socket" => "/x.sock",
                "http" | "console" | "pusher" | "pusher-client-events" | "pusher-watchlist" => "off",
                "app-id" => "other",
                "shards" => "3",
                "pin" => "none",
                "key" => "a:1",
                "key-file" => file.to_str().expect("UTF-8"),
                "console-key-file" | "publish-token-file" => console_key.to_str().expect("UTF-8"),
                "webhook" => "https://example.com/hooks",
                "webhook-events" => "connected",
                "server-ping" => "off",
                "log" => "debug",
                // A smaller limit would lower presence-members, too.
                "outbox-limit" | "outbox-memory" | "history-memory" => "2MiB",
                "presence-members" => "7",
                _ => "4097",
            };
            let other = if option.read(&mut Config::of_defaults(), &[other.into()]).is_empty() { other } else { "7" };
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
    fn another_access_key_is_a_change_under_the_same_path() {
        for option in ["console-key-file", "publish-token-file"] {
            let path = std::env::temp_dir().join(format!("corecast-test-{}-{option}", std::process::id()));
            let with = |secret: &str| {
                std::fs::write(&path, secret).expect("a temporary file");
                config(&[(option, path.to_str().expect("UTF-8"))])
            };
            let (old, new) = (with("hunter1-hunter1-hunter1"), with("hunter2-hunter2-hunter2"));
            std::fs::remove_file(&path).expect("removed");
            let path = path.display();
            let changed = change(option, &path.to_string(), &format!("{path} (another key)"));
            assert_eq!(old.difference(&new).changes, [changed]);
            assert_eq!(old.difference(&old), Difference::default());
        }
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
    fn changed_tables_are_shown_by_their_match() {
        let (a, b) = (r#"match = "a*", history = 1"#, r#"match = "b", slow = "latest""#);
        let check = |old: &[&str], new: &[&str], expected: &[(&str, &str)]| {
            let with = |tables: &[&str]| {
                let tables = tables.iter().map(|keys| format!("[[channel]]\n{}\n", keys.replace(", ", "\n")));
                let path = std::env::temp_dir().join(format!("corecast-test-{}-tables", std::process::id()));
                std::fs::write(&path, tables.collect::<String>()).expect("a temporary file");
                config(&[("config", path.to_str().expect("UTF-8"))])
            };
            let Difference { changes, restart } = with(old).difference(&with(new));
            let expected: Vec<_> = expected.iter().map(|(old, new)| change("channel", old, new)).collect();
            assert_eq!((changes, restart), (expected, vec![]));
        };
        let a2 = r#"match = "a*", history = 2"#;
        check(&[a, b], &[a, b], &[]);
        check(&[], &[a], &[("none", a)]);
        check(&[a], &[], &[(a, "none")]);
        check(&[a, b], &[a2, b], &[(a, a2)]);
        check(&[a, b], &[b, a], &[("order: a*, b", "order: b, a*")]);
        check(&[a, b], &[b, a2], &[(a, a2), ("order: a*, b", "order: b, a*")]);
        check(&[a], &[b, a], &[("none", b)]);
        // The second table of the same match has no effect.
        check(&[a], &[a, a2], &[]);
        check(&[a, a2], &[a2, a], &[(a, a2)]);
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
