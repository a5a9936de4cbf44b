//! What the command line, the environment and the file say: text per option, and where it came from.

use super::access::{self, Access, Origin};
use super::certificate::Certificate;
use super::console::{Console, ConsoleKey};
use super::difference::redacted;
use super::files::Files;
use super::options::{self, OPTIONS, Opt};
use super::{CONNECTIONS_AUTO_MAX, WEBHOOK_EVENTS, WEBHOOKS_MAX};
use super::{Config, HttpListener, Key, Limits, Live, Pin, WebhookUrl, Webhooks};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Value;
use toml::de::DeTable;

/// What the command line says: the values of each option that was given, by name; `config` is the file to read.
pub type Flags = BTreeMap<String, Vec<String>>;

/// Names the file where `--config` does not.
pub const CONFIG_ENV: &str = "CORECAST_CONFIG";

/// Every option with its winning source: command line, then environment, then file, then default. A list is taken whole
/// from one source. Holds secrets, so it has no `Debug`.
pub struct Settings {
    /// In the order of [`OPTIONS`].
    given: Vec<Given>,
    /// Reads the files that options name.
    files: Files,
}

struct Given {
    option: &'static Opt,
    values: Vec<String>,
    source: Source,
}

#[derive(Clone, PartialEq, Eq)]
enum Source {
    Flag,
    Environment,
    /// The line of the option's name, from 1.
    File(PathBuf, usize),
    Default,
}

/// Why a configuration is refused: every problem found, each with its remedy. Holds no secret.
#[derive(Debug)]
pub struct Invalid(Vec<String>);

impl std::error::Error for Invalid {}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\nerror: "))
    }
}

impl Invalid {
    /// One problem.
    pub fn new(problem: impl Into<String>) -> Invalid {
        Invalid(vec![problem.into()])
    }

    /// All of it on one line, for a log or a reply.
    pub fn in_one_line(&self) -> String {
        self.0.join("; ")
    }
}

impl Settings {
    /// Gathers the sources at the start; reads the configuration file if one is named. Values are not judged yet.
    pub fn gather(flags: &Flags, env: impl Fn(&str) -> Option<String>) -> Result<Settings, Invalid> {
        Settings::gather_from(flags, env, Files::at_start())
    }

    /// Gathers the sources for a reload, which reads no FIFO.
    pub fn gather_again(flags: &Flags, env: impl Fn(&str) -> Option<String>) -> Result<Settings, Invalid> {
        Settings::gather_from(flags, env, Files::at_reload())
    }

    fn gather_from(flags: &Flags, env: impl Fn(&str) -> Option<String>, files: Files) -> Result<Settings, Invalid> {
        // Set but empty is how compose files and unit files say "not set".
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let named = flags.get("config").and_then(|values| values.first().cloned());
        let Some(path) = named.or_else(|| env(CONFIG_ENV)).map(PathBuf::from) else {
            return Ok(Settings::layer(flags, env, None, files));
        };
        let read = files.read(&path).map_err(|why| {
            Invalid::new(format!(
                "the configuration file: {why}. Correct --config (or {CONFIG_ENV}); without one, the defaults apply"
            ))
        })?;
        let file = parse_file(&read.text, &path)?;
        Ok(Settings::layer(flags, env, Some((path, file)), files))
    }

    fn layer(
        flags: &Flags,
        env: impl Fn(&str) -> Option<String>,
        file: Option<(PathBuf, Lines)>,
        files: Files,
    ) -> Settings {
        let pick = |option: &'static Opt| {
            let (values, source) = if let Some(values) = flags.get(option.name) {
                (values.clone(), Source::Flag)
            } else if let Some(text) = env(&option.env()) {
                let values = match option.repeatable {
                    true => text.split_whitespace().map(str::to_owned).collect(),
                    false => vec![text],
                };
                (values, Source::Environment)
            } else if let Some((path, (line, values))) =
                file.as_ref().and_then(|(path, file)| Some((path, file.get(option.name)?)))
            {
                (values.clone(), Source::File(path.clone(), *line))
            } else {
                let text = match option.name {
                    "admin-socket" => default_admin_socket(&env),
                    _ => option.default.to_owned(),
                };
                (Some(text).filter(|text| !text.is_empty()).into_iter().collect(), Source::Default)
            };
            Given { option, values, source }
        };
        Settings { given: OPTIONS.iter().map(pick).collect(), files }
    }

    /// Variables that look like an option's and are none: what they were set for does not happen. Others may begin with
    /// `CORECAST_` for reasons of their own, as those that Kubernetes names after a service do.
    pub fn strays(names: impl Iterator<Item = String>) -> Vec<String> {
        let is_known = |name: &str| name == CONFIG_ENV || OPTIONS.iter().any(|option| option.env() == name);
        let stray = |name: String| {
            let option = meant(name.strip_prefix("CORECAST_")?).filter(|_| !is_known(&name))?;
            Some(format!("{name} is set and nobody reads it. Did you mean {}?", option.env()))
        };
        names.filter_map(stray).collect()
    }

    fn given(&self, name: &str) -> &Given {
        let given = self.given.iter().find(|given| given.option.name == name);
        given.expect("a name of OPTIONS")
    }

    /// Judges every value. The error lists all that is wrong, not only the first.
    pub fn validate(&self) -> Result<Config, Invalid> {
        let mut check = Check { settings: self, problems: Vec::new() };
        let keys = check.keys();
        let connections_named = match check.one("max-connections") {
            Some("auto") => None,
            _ => Some(check.number("max-connections") as usize),
        };
        let config = Config {
            listen: check.one("listen").and_then(|text| text.parse().ok()).unwrap_or(([0; 4], 0).into()),
            admin_socket: check.one("admin-socket").unwrap_or_default().into(),
            http: check.http(),
            app_id: check.one("app-id").unwrap_or_default().into(),
            shards: match check.one("shards") {
                Some("auto") => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(256)),
                _ => check.number("shards") as usize,
            },
            pin: match check.one("pin") {
                Some("none") => Pin::None,
                _ => Pin::Auto,
            },
            live: Live {
                certificate: check.certificate(),
                access: check.access(),
                webhooks: check.webhooks(&keys),
                keys,
                console: check.console(),
                connections_named,
                limits: Limits {
                    heart_interval_s: check.number("heart-interval") as u32,
                    heart_timeout_s: check.number("heart-timeout") as u32,
                    server_ping: check.one("server-ping") == Some("on"),
                    outbox_bytes_max: check.number("outbox-limit") as usize,
                    message_bytes_max: check.number("max-message") as usize,
                    subscriptions_max: check.number("max-subscriptions") as usize,
                    connections_max: connections_named.unwrap_or(CONNECTIONS_AUTO_MAX),
                    connections_per_address_max: match check.one("max-connections-per-address") {
                        Some("auto") => None,
                        _ => Some(check.number("max-connections-per-address") as u32),
                    },
                    upgrades_per_address_max: check.number("max-upgrades-per-address") as u32,
                    messages_per_second_max: check.number("max-messages-per-second") as u32,
                    bytes_per_second_max: check.number("max-bytes-per-second") as u32,
                    handshake_timeout_ms: check.number("handshake-timeout"),
                    admin_line_bytes_max: check.number("admin-line-limit") as usize,
                    connection_age_max_s: check.number("connection-age-max") as u32,
                },
                drain_timeout_ms: check.number("drain-timeout"),
                shutdown_timeout_ms: check.number("shutdown-timeout"),
                log: check
                    .one("log")
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(tracing::level_filters::LevelFilter::OFF),
            },
        };
        check.finish(config)
    }

    /// The key pairs alone, `--key` before `--key-file`: what `sign` needs.
    pub fn keys(&self) -> Result<Vec<Key>, Invalid> {
        let mut check = Check { settings: self, problems: Vec::new() };
        let keys = check.keys();
        check.finish(keys)
    }

    /// The admin socket alone: what the client commands need.
    pub fn admin_socket(&self) -> Result<PathBuf, Invalid> {
        let mut check = Check { settings: self, problems: Vec::new() };
        let path = check.one("admin-socket").unwrap_or_default().into();
        check.finish(path)
    }

    /// The effective configuration as a file that could be read back, but for the secrets, which are left out. Each line
    /// says where its value came from.
    pub fn to_toml(&self, config: &Config) -> String {
        let mut text = String::new();
        for given in &self.given {
            let name = given.option.name;
            let source = match &given.source {
                Source::Flag => format!("--{name}"),
                Source::Environment => given.option.env(),
                Source::File(path, line) => format!("{path:?}, line {line}"),
                Source::Default => "default".into(),
            };
            match self.effective(given, config) {
                Some(value) => text += &format!("{name} = {value} # {source}\n"),
                None => text += &format!("# {name}: none\n"),
            }
        }
        text
    }

    fn effective(&self, given: &Given, config: &Config) -> Option<Value> {
        match given.option.name {
            // Those of the key file come from there again.
            "key" => Some(redacted(&config.live.keys[..given.values.len()])),
            "key-file" => Some(Value::String(given.values.first()?.clone())),
            name => config.value(name),
        }
    }
}

/// Reads values and collects what is wrong with them.
struct Check<'a> {
    settings: &'a Settings,
    problems: Vec<String>,
}

impl<'a> Check<'a> {
    /// The value of an option that holds one; `None` once a problem is noted (or where there is neither value nor default).
    fn one(&mut self, name: &str) -> Option<&'a str> {
        let given = self.settings.given(name);
        let text = given.values.first()?;
        if given.option.kind.accepts(text) {
            return Some(text);
        }
        let problem = given.problem(&format!("{text:?} is not allowed"));
        self.note(problem);
        None
    }

    fn number(&mut self, name: &str) -> u64 {
        let kind = self.settings.given(name).option.kind;
        self.one(name).and_then(|text| kind.number(text)).unwrap_or_default()
    }

    fn http(&mut self) -> Option<HttpListener> {
        let address = self.one("http")?.parse().ok()?;
        Some(HttpListener { address, is_named: self.settings.given("http").source != Source::Default })
    }

    fn access(&mut self) -> Access {
        let access = Access {
            paths: self.all("path"),
            echo_path: self.echo_path(),
            origins: self.all("allow-origin").iter().filter_map(|text| Origin::parse(text)).collect(),
            trusted: self.all("trust-proxy").iter().filter_map(|text| access::network(text)).collect(),
            has_proxy_header: self.one("proxy-protocol") == Some("on"),
            request_bytes_max: self.number("max-request") as usize,
        };
        if access.has_proxy_header && self.settings.given("trust-proxy").values.is_empty() {
            let given = self.settings.given("proxy-protocol");
            self.note(given.problem("\"on\" needs --trust-proxy: without it nobody's PROXY header is believed"));
        }
        access
    }

    fn all(&mut self, name: &str) -> Vec<String> {
        let given = self.settings.given(name);
        for text in given.values.iter().filter(|text| !given.option.kind.accepts(text)) {
            self.note(given.problem(&format!("{text:?} is not allowed")));
        }
        given.values.clone()
    }

    /// A path leads to one place.
    fn echo_path(&mut self) -> Option<String> {
        let path = self.one("echo-path")?;
        if self.settings.given("path").values.iter().any(|served| served == path) {
            self.note(self.settings.given("echo-path").problem(&format!("{path:?} is one of the values of path, too")));
        }
        Some(path.to_owned())
    }

    /// `tls-cert` and `tls-key`, both or neither.
    fn certificate(&mut self) -> Option<Arc<Certificate>> {
        let (cert, key) = (self.one("tls-cert"), self.one("tls-key"));
        let alone = |given: &str, missing: &str, what: &str| {
            format!("{given} is given without {missing}. Add {missing}, {what}, or leave both out to serve without TLS")
        };
        match (cert, key) {
            (Some(cert), Some(key)) => match Certificate::load(Path::new(cert), Path::new(key), &self.settings.files) {
                Ok(certificate) => return Some(certificate.into()),
                Err(unfit) => {
                    let given = self.settings.given(if unfit.is_key { "tls-key" } else { "tls-cert" });
                    self.note(given.problem(&unfit.why));
                }
            },
            (Some(_), None) if self.settings.given("tls-key").values.is_empty() => {
                self.note(alone("tls-cert", "tls-key", "the file of its private key"));
            }
            (None, Some(_)) if self.settings.given("tls-cert").values.is_empty() => {
                self.note(alone("tls-key", "tls-cert", "the file of its certificate"));
            }
            _ => {}
        }
        None
    }

    fn console(&mut self) -> Console {
        let is_on = self.one("console") == Some("on");
        let Some(path) = self.one("console-key-file") else {
            return Console { is_on, key: None };
        };
        let key = ConsoleKey::load(Path::new(path), &self.settings.files).map_err(|why| {
            let problem = self.settings.given("console-key-file").problem(&why);
            self.note(problem);
        });
        Console { is_on, key: key.ok() }
    }

    /// Those of `key`, then those of `key-file`.
    fn keys(&mut self) -> Vec<Key> {
        let mut keys: Vec<Key> = Vec::new();
        let given = self.settings.given("key");
        for (at, text) in given.values.iter().enumerate() {
            match options::key_pair(text) {
                Ok(key) => keys.push(key),
                Err(why) => self.note(given.problem(&format!("pair {} is not allowed: {why}", at + 1))),
            }
        }
        if let Some(path) = self.one("key-file") {
            let given = self.settings.given("key-file");
            match read_key_file(Path::new(path), &self.settings.files) {
                Ok(read) => keys.extend(read),
                Err(why) => self.note(given.problem(&why)),
            }
        }
        let mut seen = HashSet::new();
        for key in keys.iter().filter(|key| !seen.insert(&key.id)) {
            self.note(format!(
                "the key ID {:?} is given twice (key and key-file count together). Every ID names one secret: remove one \
                 of them, or make a new pair with `corecast keygen`",
                key.id
            ));
        }
        keys
    }

    /// Whoever gets one has to be able to tell that it is ours: `keys` holds one to sign with.
    fn webhooks(&mut self, keys: &[Key]) -> Webhooks {
        let given = self.settings.given("webhook");
        let mut urls: Vec<WebhookUrl> = Vec::new();
        for url in self.all("webhook").iter().filter_map(|text| WebhookUrl::parse(text)) {
            match urls.contains(&url) {
                true => self.note(given.problem(&format!("{url} is given twice"))),
                false => urls.push(url),
            }
        }
        if urls.len() > WEBHOOKS_MAX {
            self.note(given.problem(&format!("{} URLs are more than {WEBHOOKS_MAX}", urls.len())));
        }
        let is_key_given = ["key", "key-file"].iter().any(|name| !self.settings.given(name).values.is_empty());
        if !urls.is_empty() && keys.is_empty() {
            let remedy = match is_key_given {
                true => "`corecast keygen >> FILE` adds one to the key file",
                false => "`corecast keygen` makes one; add it with --key-file or --key",
            };
            self.note(given.problem(&format!("webhooks are signed with a key pair and there is none ({remedy})")));
        }
        let words = self.one("webhook-events").unwrap_or_default();
        let wanted = |name: &&str| words.split(',').any(|word| word.trim() == *name);
        let events = WEBHOOK_EVENTS.into_iter().filter(wanted).collect();
        Webhooks { urls, events, retry_ms: self.number("webhook-retry") }
    }

    /// Notes a problem once, however many readers meet it.
    fn note(&mut self, problem: String) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn finish<T>(self, value: T) -> Result<T, Invalid> {
        match self.problems.is_empty() {
            true => Ok(value),
            false => Err(Invalid(self.problems)),
        }
    }
}

impl Given {
    /// Option, what is wrong, allowed range, remedy.
    fn problem(&self, wrong: &str) -> String {
        let name = self.option.name;
        let (called, remedy) = match &self.source {
            Source::Flag => (format!("--{name}"), format!("Correct --{name}, or leave it out")),
            Source::Environment => {
                let variable = self.option.env();
                (format!("{name} ({variable})"), format!("Correct {variable}, or unset it"))
            }
            Source::File(path, line) => {
                (format!("{name} ({}, line {line})", path.display()), "Correct the line, or remove it".into())
            }
            Source::Default => (format!("{name} (its default)"), format!("Give it with --{name}")),
        };
        let default = match self.option.default {
            "" => String::new(),
            default => format!("; the default is {default}"),
        };
        format!("{called}: {wrong}; it takes {}. {remedy}{default}", self.option.kind.allowed())
    }
}

/// One `ID:SECRET` a line; `#` starts a comment line, blank lines are skipped.
fn read_key_file(path: &Path, files: &Files) -> Result<Vec<Key>, String> {
    let read = files.read(path).map_err(|why| format!("{why}; `corecast keygen >> FILE` makes one"))?;
    let lines = read.text.lines().map(str::trim).zip(1..);
    lines
        .filter(|(line, _)| !line.is_empty() && !line.starts_with('#'))
        .map(|(line, number)| {
            options::key_pair(line)
                .map_err(|why| format!("line {number} of {} is no ID:SECRET pair: {why}", path.display()))
        })
        .collect()
}

/// What a file says: values by name, and the line of the name.
type Lines = BTreeMap<String, (usize, Vec<String>)>;

/// The file as text per option. Errors never quote the file: the line may hold a secret.
fn parse_file(text: &str, path: &Path) -> Result<Lines, Invalid> {
    let at = path.display();
    let line_of = |byte: usize| text[..byte].matches('\n').count() + 1;
    let no_toml = |error: toml::de::Error| {
        Invalid(vec![format!(
            "{at} is no TOML, line {}: {}. Values are numbers, true, false, or texts in double quotes",
            error.span().map_or(1, |span| line_of(span.start)),
            error.message()
        )])
    };
    let table: toml::Table = text.parse().map_err(no_toml)?;
    // Once more for the places: a plain table has none.
    let places = DeTable::parse(text).map_err(no_toml)?;
    let places = places.get_ref().keys().map(|name| (name.get_ref().to_string(), line_of(name.span().start)));
    let places: BTreeMap<String, usize> = places.collect();
    let mut values = Lines::new();
    let mut problems = Vec::new();
    for (name, value) in table {
        let line = places.get(&name).copied().unwrap_or(1);
        let Some(option) = OPTIONS.iter().find(|option| option.name == name) else {
            let hint = match value {
                Value::Table(_) => "There are no sections: each key stands by itself".into(),
                _ => hint(&name),
            };
            problems.push(format!("unknown key {name:?} ({at}, line {line}). {hint}"));
            continue;
        };
        let texts = match value {
            Value::Array(values) if option.repeatable => values.iter().map(scalar).collect(),
            Value::Array(_) => None,
            value => scalar(&value).map(|text| vec![text]),
        };
        match texts {
            Some(texts) => drop(values.insert(name, (line, texts))),
            None => problems.push(format!(
                "{name} ({at}, line {line}) has a value of the wrong type; it takes {}. Correct the line, or remove it",
                option.kind.allowed()
            )),
        }
    }
    match problems.is_empty() {
        true => Ok(values),
        false => Err(Invalid(problems)),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(true) => Some("on".into()),
        Value::Boolean(false) => Some("off".into()),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

fn hint(name: &str) -> String {
    match meant(name) {
        Some(option) => format!("Did you mean {}?", option.name),
        None => {
            let names: Vec<_> = OPTIONS.iter().map(|option| option.name).collect();
            format!("The keys are {}", names.join(", "))
        }
    }
}

/// The option whose name this is but for a letter in four, in any spelling.
fn meant(name: &str) -> Option<&'static Opt> {
    let plain = |text: &str| text.replace(['-', '_'], "").trim_end_matches('s').to_lowercase();
    let distance = |option: &&Opt| strsim::osa_distance(&plain(option.name), &plain(name));
    OPTIONS.iter().min_by_key(distance).filter(|option| distance(option) * 4 <= plain(name).len())
}

/// Beside the user's other sockets where the system has a place for them, else in `/tmp` under a name of the user's own.
fn default_admin_socket(env: &impl Fn(&str) -> Option<String>) -> String {
    match env("XDG_RUNTIME_DIR") {
        Some(directory) => format!("{directory}/corecast.sock"),
        None => shared_admin_socket(),
    }
}

/// Where the admin socket is for want of a directory of the user's own. Anybody may put something there.
pub fn shared_admin_socket() -> String {
    format!("/tmp/corecast-{}.sock", rustix::process::getuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANUAL: &str = include_str!("../../corecast.toml");

    fn flags(pairs: &[(&str, &str)]) -> Flags {
        let mut flags = Flags::new();
        for (name, value) in pairs {
            flags.entry((*name).into()).or_default().push((*value).into());
        }
        flags
    }

    /// The settings of these sources, the process's own environment left out.
    fn settings(on_line: &[(&str, &str)], in_env: &[(&str, &str)], file: &str) -> Result<Settings, Invalid> {
        let env = |name: &str| {
            let found = in_env.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned()).filter(|value| !value.is_empty())
        };
        let path = PathBuf::from("test.toml");
        let file = parse_file(file, &path)?;
        Ok(Settings::layer(&flags(on_line), env, Some((path, file)), Files::at_start()))
    }

    fn config(on_line: &[(&str, &str)], in_env: &[(&str, &str)], file: &str) -> Result<Config, Invalid> {
        settings(on_line, in_env, file)?.validate()
    }

    fn error(on_line: &[(&str, &str)], in_env: &[(&str, &str)], file: &str) -> String {
        match config(on_line, in_env, file) {
            Ok(config) => panic!("accepted: {config:?}"),
            Err(invalid) => invalid.to_string(),
        }
    }

    /// A file that is gone when the test is.
    struct Temporary(String);

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn temporary(name: &str, text: &str) -> Temporary {
        let path = std::env::temp_dir().join(format!("corecast-test-{}-{name}", std::process::id()));
        std::fs::write(&path, text).expect("a temporary file");
        Temporary(path.to_str().expect("a path in UTF-8").to_owned())
    }

    /// Files with a certificate and with its key.
    fn pair(name: &str) -> (Temporary, Temporary) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let cert = temporary(&format!("{name}-cert"), &made.cert.pem());
        (cert, temporary(&format!("{name}-key"), &made.signing_key.serialize_pem()))
    }

    #[test]
    fn a_certificate_and_its_key_go_together() {
        let ((cert, key), (_, other)) = (pair("mine"), pair("other"));
        let legal = config(&[("tls-cert", &cert.0), ("tls-key", &key.0)], &[], "").expect("a pair");
        assert!(legal.live.certificate.is_some());
        let check = |cert: &str, key: &str, expected: &[&str]| {
            let given = [("tls-cert", cert), ("tls-key", key)];
            let given: Vec<_> = given.into_iter().filter(|(_, value)| !value.is_empty()).collect();
            let text = error(&given, &[], "");
            for part in expected {
                assert!(text.contains(part), "{part:?} is not in {text:?}");
            }
            assert_eq!(text.matches("error:").count(), 0, "one problem: {text}");
        };
        let torn = temporary("torn", "-----BEGIN CERTIFICATE-----\nMIIB\n");
        let rubbish = temporary("rubbish", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
        let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let locked = temporary("locked", locked);
        check(&cert.0, "", &["tls-cert is given without tls-key", "leave both out"]);
        check("", &key.0, &["tls-key is given without tls-cert", "leave both out"]);
        check("/nowhere", &key.0, &["--tls-cert", "cannot read /nowhere", "leave it out"]);
        check(&cert.0, "/nowhere", &["--tls-key", "cannot read /nowhere", "leave it out"]);
        check(&key.0, &key.0, &["--tls-cert", &key.0, "holds a private key and no certificate"]);
        check(&cert.0, &cert.0, &["--tls-key", &cert.0, "holds no private key"]);
        check(&torn.0, &key.0, &["--tls-cert", &torn.0, "a section has no end"]);
        check(&rubbish.0, &key.0, &["--tls-cert", &rubbish.0, "no X.509 certificate"]);
        check(&cert.0, &locked.0, &["--tls-key", &locked.0, "passphrase", "openssl pkey"]);
        check(&cert.0, &other.0, &["--tls-key", &other.0, "is not that of the first certificate", &cert.0]);
    }

    #[test]
    fn the_defaults_are_those_of_the_protocol() {
        let config = config(&[], &[("XDG_RUNTIME_DIR", "/run/user/7")], "").expect("the defaults are legal");
        assert_eq!(config.listen.to_string(), "127.0.0.1:9000");
        assert_eq!(config.admin_socket, Path::new("/run/user/7/corecast.sock"));
        assert_eq!(config.shards, std::thread::available_parallelism().expect("a number of cores").get().min(256));
        assert_eq!(config.pin, Pin::Auto);
        let address = ([127, 0, 0, 1], 9001).into();
        assert_eq!(config.http, Some(HttpListener { address, is_named: false }));
        assert_eq!(config.app_id, "1");
        assert!(config.live.keys.is_empty());
        assert_eq!(config.live.access, Access::default());
        assert_eq!(config.live.limits, Limits::default());
        assert_eq!(config.live.drain_timeout_ms, 0);
        assert_eq!(config.live.shutdown_timeout_ms, 10_000);
        assert_eq!(config.live.log, tracing::level_filters::LevelFilter::INFO);
    }

    #[test]
    fn without_a_runtime_directory_the_admin_socket_is_named_after_the_user() {
        for in_env in [&[][..], &[("XDG_RUNTIME_DIR", "")]] {
            let path = config(&[], in_env, "").expect("legal").admin_socket;
            let expected = format!("/tmp/corecast-{}.sock", rustix::process::getuid().as_raw());
            assert_eq!(path, Path::new(&expected));
        }
    }

    #[test]
    fn the_command_line_beats_the_environment_beats_the_file_beats_the_default() {
        let file = "heart-interval = 13";
        let env = [("CORECAST_HEART_INTERVAL", "12")];
        let check = |on_line: &[(&str, &str)], in_env: &[(&str, &str)], file: &str, expected| {
            let config = config(on_line, in_env, file).expect("legal");
            assert_eq!(config.live.limits.heart_interval_s, expected);
        };
        check(&[("heart-interval", "11")], &env, file, 11);
        check(&[], &env, file, 12);
        check(&[], &[("CORECAST_HEART_INTERVAL", "")], file, 13);
        check(&[], &[], file, 13);
        check(&[], &[], "", 30);
    }

    #[test]
    fn a_list_comes_whole_from_one_source() {
        let paths = |on_line: &[(&str, &str)], in_env: &[(&str, &str)]| {
            config(on_line, in_env, "path = [\"/file\"]").expect("legal").live.access.paths
        };
        assert_eq!(paths(&[("path", "/a"), ("path", "/b")], &[("CORECAST_PATH", "/env")]), ["/a", "/b"]);
        assert_eq!(paths(&[], &[("CORECAST_PATH", "/x /y")]), ["/x", "/y"]);
        assert_eq!(paths(&[], &[]), ["/file"]);
    }

    #[test]
    fn every_option_can_be_given_in_every_source() {
        let key_file = temporary("every-option", "");
        let console_key = temporary("every-option-console", "0123456789abcdef");
        let (cert, key) = pair("every-option");
        let value = |option: &Opt| match option.name {
            "tls-cert" => cert.0.clone(),
            "tls-key" => key.0.clone(),
            "path" | "echo-path" => "/ws".to_owned(),
            "admin-socket" => "/tmp/x.sock".to_owned(),
            "allow-origin" => "https://*.example.com".to_owned(),
            "trust-proxy" => "10.0.0.0/8".to_owned(),
            "key" => "app:secret".to_owned(),
            "key-file" => key_file.0.clone(),
            "console-key-file" => console_key.0.clone(),
            "webhook" => "https://example.com/hooks".to_owned(),
            _ => option.default.to_owned(),
        };
        for option in &OPTIONS {
            let value = value(option);
            // One does not go without the other.
            let other = match option.name {
                "tls-cert" => vec![("tls-key", key.0.as_str())],
                "tls-key" => vec![("tls-cert", cert.0.as_str())],
                "webhook" => vec![("key", "app:secret")],
                _ => Vec::new(),
            };
            let from = |result: Result<Settings, Invalid>| {
                let settings = result.unwrap_or_else(|invalid| panic!("{invalid}"));
                settings.validate().unwrap_or_else(|invalid| panic!("{invalid}"));
                assert_eq!(settings.given(option.name).values, [value.as_str()]);
                settings.given(option.name).source.clone()
            };
            let on_line = [&other[..], &[(option.name, &value)]].concat();
            assert!(from(settings(&on_line, &[], "")) == Source::Flag);
            assert!(from(settings(&other, &[(&option.env(), &value)], "")) == Source::Environment);
            let file = format!("{} = {value:?}", option.name);
            assert!(from(settings(&other, &[], &file)) == Source::File("test.toml".into(), 1));
        }
    }

    #[test]
    fn the_manual_shows_the_defaults() {
        let shown = parse_file(MANUAL, Path::new("corecast.toml")).unwrap_or_else(|invalid| panic!("{invalid}"));
        for option in &OPTIONS {
            let name = option.name;
            match shown.get(name) {
                Some((_, values)) => match option.kind.number(option.default) {
                    Some(number) => assert_eq!(option.kind.number(&values[0]), Some(number), "{name}"),
                    None => assert_eq!(values[..], [option.default.to_owned()], "{name}"),
                },
                None => {
                    assert_eq!(option.default, "", "{name} has a default, and the manual leaves it out");
                    assert!(MANUAL.contains(&format!("\n#{name} = ")), "{name} is not in the manual");
                }
            }
        }
    }

    #[test]
    fn the_examples_of_the_manual_are_legal() {
        let console_key = temporary("manual-console", "0123456789abcdef");
        let key_file = temporary("manual", "# rotated in May\n\nold:s1\n  new:s2  \n");
        let (cert, key) = pair("manual");
        let examples = MANUAL
            .replace("\n#", "\n")
            .replace("/etc/corecast/keys", &key_file.0)
            .replace("/etc/corecast/console-key", &console_key.0)
            .replace("/etc/corecast/fullchain.pem", &cert.0)
            .replace("/etc/corecast/privkey.pem", &key.0);
        let legal: String =
            examples.lines().filter(|line| !line.starts_with(' ')).map(|line| format!("{line}\n")).collect();
        let config = config(&[], &[], &legal).unwrap_or_else(|invalid| panic!("{invalid}\n{legal}"));
        assert!(!config.live.access.paths.is_empty());
        assert_eq!(config.live.keys.last().expect("keys").id, "new");
    }

    #[test]
    fn an_error_names_option_value_range_and_remedy() {
        let check = |text: String, expected: &[&str]| {
            for part in expected {
                assert!(text.contains(part), "{part:?} is not in {text:?}");
            }
        };
        check(
            error(&[("outbox-limit", "4095")], &[], ""),
            &["--outbox-limit", "\"4095\"", "4096 to 1073741824 bytes", "leave it out", "1MiB"],
        );
        check(error(&[], &[("CORECAST_SHARDS", "257")], ""), &["CORECAST_SHARDS", "\"257\"", "1 to 256", "unset"]);
        check(
            error(&[], &[], "server-ping = 1"),
            &["server-ping (test.toml, line 1)", "\"1\"", "on or off", "remove it"],
        );
        check(error(&[("listen", "localhost:9000")], &[], ""), &["\"localhost:9000\"", "127.0.0.1:9000"]);
        check(error(&[("admin-socket", "")], &[], ""), &["--admin-socket", "107"]);
        check(error(&[("path", "ws")], &[], ""), &["\"ws\"", "starts with /"]);
        check(error(&[("echo-path", "/e"), ("path", "/e")], &[], ""), &["--echo-path", "\"/e\"", "values of path"]);
        check(error(&[("key-file", "/none/such")], &[], ""), &["/none/such", "keygen"]);
        check(error(&[("console-key-file", "/none/such")], &[], ""), &["--console-key-file", "/none/such", "keygen"]);
        let hook = ("webhook", "https://example.com/hooks");
        check(
            error(&[hook], &[], ""),
            &["--webhook", "signed with a key pair", "keygen", "--key-file", "leave it out"],
        );
        check(
            error(&[hook, hook, ("key", "a:1")], &[], ""),
            &["--webhook", "https://example.com/hooks is given twice"],
        );
        check(error(&[("webhook", "example.com"), ("key", "a:1")], &[], ""), &["\"example.com\"", "http or https URL"]);
        check(error(&[("webhook-events", "vacated")], &[], ""), &["\"vacated\"", "channel_vacated", "disconnected"]);
        check(error(&[], &[], "log = [\"info\"]"), &["log", "wrong type"]);
        check(error(&[], &[], "listen = \"1.2.3.4:1\"\nlog = "), &["test.toml", "line 2"]);
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let text = error(&[("pin", "yes"), ("log", "loud")], &[("CORECAST_MAX_MESSAGE", "1")], "");
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    #[test]
    fn unknown_keys_in_the_file_are_errors() {
        assert!(error(&[], &[], "outbox_limit = 1").contains("Did you mean outbox-limit?"));
        assert!(error(&[], &[], "keys = []").contains("Did you mean key?"));
        assert!(error(&[], &[], "outbox-limt = 1").contains("Did you mean outbox-limit?"));
        assert!(error(&[], &[], "max_conections = 1").contains("Did you mean max-connections?"));
        for name in ["port", "server", "timeout", "x"] {
            let text = error(&[], &[], &format!("{name} = 1"));
            assert!(text.contains(&format!("{name:?}")) && text.contains("max-subscriptions"), "{text}");
        }
        let text = error(&[], &[], "[limits]\noutbox = 1");
        assert!(text.contains("\"limits\"") && text.contains("no sections"), "{text}");
    }

    #[test]
    fn variables_that_are_nearly_an_option_are_pointed_out() {
        let names = ["CORECAST_LISTN", "CORECAST_LISTEN", "CORECAST_CONFIG", "CORECAST_PORT", "CORECAST_SERVICE_HOST"];
        let strays = Settings::strays(names.into_iter().map(str::to_owned));
        assert_eq!(strays, ["CORECAST_LISTN is set and nobody reads it. Did you mean CORECAST_LISTEN?"]);
    }

    #[test]
    fn secrets_are_in_no_error_and_in_no_print() {
        let file = temporary("secrets", "ok:hunter2\nhunter2\n");
        let short = temporary("secrets-short", "hunter2\n");
        let long = temporary("secrets-long", "hunter2-hunter2-hunter2\n");
        for text in [
            error(&[("key", "hunter2")], &[], ""),
            error(&[("key", ":hunter2")], &[], ""),
            error(&[], &[("CORECAST_KEY", "hunter2 app:hunter2")], ""),
            error(&[], &[], "key = [\"app:hunter2\", 7]\nkey = 1"),
            error(&[], &[], "key = [\"app:hunter2\""),
            error(&[], &[], "key = app:hunter2"),
            error(&[], &[], "key = [[\"hunter2\"]]"),
            error(&[("key", "app:hunter2"), ("key", "app:hunter2")], &[], ""),
            error(&[("key-file", &file.0)], &[], ""),
            error(&[("console-key-file", &file.0)], &[], ""),
            error(&[("console-key-file", &short.0)], &[], ""),
        ] {
            assert!(!text.contains("hunter2"), "{text}");
        }
        let settings = settings(&[("key", "app:hunter2"), ("console-key-file", &long.0)], &[], "").expect("legal");
        let config = settings.validate().expect("legal");
        let printed = settings.to_toml(&config);
        assert!(printed.contains("key = [\"app:[redacted]\"] # --key"), "{printed}");
        assert!(!printed.contains("hunter2") && !format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn key_ids_are_unique_across_both_options() {
        let file = temporary("unique", "b:2\na:3\n");
        let text = error(&[("key", "a:1"), ("key-file", &file.0)], &[], "");
        assert!(text.contains("\"a\" is given twice"), "{text}");
        let keys = settings(&[("key", "c:1"), ("key-file", &file.0)], &[], "").expect("legal").keys().expect("legal");
        let ids: Vec<_> = keys.iter().map(|key| key.id.as_str()).collect();
        assert_eq!(ids, ["c", "b", "a"]);
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same_configuration() {
        let on_line = [("max-message", "2KiB"), ("handshake-timeout", "0.5"), ("server-ping", "off"), ("path", "/ws")];
        let settings = settings(&on_line, &[("CORECAST_LOG", "off")], "pin = \"none\"").expect("legal");
        let first = settings.validate().expect("legal");
        let printed = settings.to_toml(&first);
        assert!(printed.contains("max-message = 2048 # --max-message\n"), "{printed}");
        assert!(printed.contains("log = \"off\" # CORECAST_LOG\n"), "{printed}");
        assert!(printed.contains("pin = \"none\" # \"test.toml\", line 1\n"), "{printed}");
        assert!(printed.contains("heart-timeout = 25 # default\n"), "{printed}");
        let mut second = config(&[], &[], &printed).unwrap_or_else(|invalid| panic!("{invalid}\n{printed}"));
        // A file names the address, whatever it is.
        assert_eq!(second.http, first.http.map(|http| HttpListener { is_named: true, ..http }));
        second.http = first.http;
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
    }

    #[test]
    fn the_file_is_named_by_flag_or_environment() {
        let file = temporary("named", "shards = 3");
        let from_flag = Settings::gather(&flags(&[("config", &file.0)]), |_| None);
        let from_env = Settings::gather(&flags(&[]), |name| (name == CONFIG_ENV).then(|| file.0.clone()));
        for settings in [from_flag, from_env] {
            let settings = settings.unwrap_or_else(|invalid| panic!("{invalid}"));
            assert_eq!(settings.validate().expect("legal").shards, 3);
        }
        let missing = Settings::gather(&flags(&[("config", "/none/such.toml")]), |_| None);
        assert!(missing.is_err_and(|invalid| invalid.to_string().contains("/none/such.toml")));
    }
}
