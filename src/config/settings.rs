//! The sources of a configuration: the text of each option from the command line, the environment or the file.

use super::certificate::Certificate;
use super::console::AccessKey;
use super::files::Files;
use super::options::{OPTIONS, Opt};
use super::rules::Tables;
use super::value::{List, Shape, nearest, scalar};
use super::{CONNECTIONS_AUTO_MAX, Config, Key, Live, WEBHOOKS_MAX, bytes};
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Value;
use toml::de::DeTable;

/// The command line: the values of each option that was given, by name; `config` is the file to read.
pub type Flags = BTreeMap<String, Vec<String>>;

/// Names the file if `--config` does not.
pub const CONFIG_ENV: &str = "CORECAST_CONFIG";

/// Every option with its winning source: command line, then environment, then file, then default. A list is taken whole
/// from one source. Holds secrets, so it has no `Debug`.
pub struct Settings {
    /// In the order of [`OPTIONS`].
    given: Vec<Given>,
    /// The `[[channel]]` tables of the file.
    tables: Tables,
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

/// The problems of an invalid configuration, each with its remedy. Holds no secret.
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

    /// All problems on one line, for a log or a reply.
    pub fn in_one_line(&self) -> String {
        self.0.join("; ")
    }
}

impl Settings {
    /// Gathers the sources at the start; reads the configuration file if one is named. Values are not validated yet.
    pub fn gather(flags: &Flags, env: impl Fn(&str) -> Option<OsString>) -> Result<Settings, Invalid> {
        Settings::gather_from(flags, env, Files::at_start())
    }

    /// Gathers the sources for a reload, which reads no FIFO.
    pub fn gather_again(flags: &Flags, env: impl Fn(&str) -> Option<OsString>) -> Result<Settings, Invalid> {
        Settings::gather_from(flags, env, Files::at_reload())
    }

    fn gather_from(flags: &Flags, env: impl Fn(&str) -> Option<OsString>, files: Files) -> Result<Settings, Invalid> {
        let env = |name: &str| text_of(name, env(name)).transpose();
        let named = flags.get("config").and_then(|values| values.first().cloned());
        let named = match named {
            Some(path) => Some(path),
            None => env(CONFIG_ENV)?,
        };
        let Some(path) = named.map(PathBuf::from) else {
            return Settings::layer(flags, env, None, files);
        };
        let read = files.read(&path).map_err(|why| {
            Invalid::new(format!(
                "the configuration file: {why}. Correct --config (or {CONFIG_ENV}); without one, the defaults apply"
            ))
        })?;
        let file = parse_file(&read.text, &path)?;
        if read.is_open_to_others && file.options.contains_key("key") {
            files.note_open(&path);
        }
        Settings::layer(flags, env, Some((path, file)), files)
    }

    fn layer(
        flags: &Flags,
        env: impl Fn(&str) -> Result<Option<String>, Invalid>,
        file: Option<(PathBuf, Parsed)>,
        files: Files,
    ) -> Result<Settings, Invalid> {
        let (path, Parsed { options, tables }) = file.unwrap_or_default();
        let pick = |option: &'static Opt| {
            let (values, source) = if let Some(values) = flags.get(option.name) {
                (values.clone(), Source::Flag)
            } else if let Some(text) = env(&option.env())? {
                let values = match option.repeatable {
                    true => text.split_whitespace().map(str::to_owned).collect(),
                    false => vec![text],
                };
                (values, Source::Environment)
            } else if let Some((line, values)) = options.get(option.name) {
                (values.clone(), Source::File(path.clone(), *line))
            } else if option.name == "admin-socket" {
                (vec![default_admin_socket(&env)?], Source::Default)
            } else {
                (option.default_values(), Source::Default)
            };
            Ok(Given { option, values, source })
        };
        Ok(Settings { given: OPTIONS.iter().map(pick).collect::<Result<_, _>>()?, tables, files })
    }

    /// Warnings about variables with nearly the name of an option. Other variables may begin with `CORECAST_` for other
    /// reasons, such as those that Kubernetes names after a service.
    pub fn strays(names: impl Iterator<Item = String>) -> Vec<String> {
        let is_known = |name: &str| name == CONFIG_ENV || OPTIONS.iter().any(|option| option.env() == name);
        let stray = |name: String| {
            let option = meant(name.strip_prefix("CORECAST_")?).filter(|_| !is_known(&name))?;
            Some(format!("{name} is set, but it is not an option. Did you mean {}?", option.env()))
        };
        names.filter_map(stray).collect()
    }

    fn given(&self, name: &str) -> &Given {
        let given = self.given.iter().find(|given| given.option.name == name);
        given.expect("a name of OPTIONS")
    }

    /// Validates every value. The error lists all problems, not only the first.
    pub fn validate(&self) -> Result<Config, Invalid> {
        let mut check = Check::read(self, |_| true);
        check.shards_and_connections();
        check.access();
        check.config.live.keys = check.keys();
        check.config.live.certificate = check.certificate();
        check.webhooks();
        check.console();
        check.publish_token();
        check.presence_members();
        check.rules();
        check.notes();
        check.finish(|config| config)
    }

    /// The key pairs alone, `--key` before `--key-file`: what `sign` needs.
    pub fn keys(&self) -> Result<Vec<Key>, Invalid> {
        let mut check = Check::read(self, |name| matches!(name, "key" | "key-file"));
        check.config.live.keys = check.keys();
        check.finish(|config| config.live.keys)
    }

    /// The admin socket alone: what the client commands need.
    pub fn admin_socket(&self) -> Result<PathBuf, Invalid> {
        Check::read(self, |name| name == "admin-socket").finish(|config| config.admin_socket)
    }

    /// The effective configuration as a file that can be read back, except for the secrets, which are left out. Each line
    /// names the source of its value.
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
        text + &self.tables.to_toml()
    }

    fn effective(&self, given: &Given, config: &Config) -> Option<Value> {
        match given.option.name {
            // The pairs of the key file are read from there again.
            "key" => List::show(&config.live.keys[..given.values.len()].to_vec(), given.option.kind),
            _ => given.option.show(config),
        }
    }
}

/// Reads the values into a configuration and collects what is wrong with them.
struct Check<'a> {
    settings: &'a Settings,
    config: Config,
    problems: Vec<String>,
}

impl<'a> Check<'a> {
    fn read(settings: &'a Settings, is_wanted: impl Fn(&str) -> bool) -> Check<'a> {
        let mut check = Check { settings, config: Config::of_defaults(), problems: Vec::new() };
        for given in settings.given.iter().filter(|given| is_wanted(given.option.name)) {
            let wrong = given.option.read(&mut check.config, &given.values);
            check.problems.extend(wrong.iter().map(|wrong| given.problem(wrong)));
        }
        check
    }

    fn shards_and_connections(&mut self) {
        let Config { shards, live, http, .. } = &mut self.config;
        if *shards == 0 {
            *shards = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(256));
        }
        live.limits.connections_max = live.connections_named.unwrap_or(CONNECTIONS_AUTO_MAX);
        if let Some(http) = http {
            http.is_named = self.settings.given("http").source != Source::Default;
        }
    }

    fn access(&mut self) {
        let Config { listen, http, live, .. } = &self.config;
        let access = &live.access;
        let mut wrong = Vec::new();
        if let Some(http) = http.map(|http| http.address).filter(|http| overlap(*http, *listen)) {
            wrong.push(("http", format!("{http} overlaps with the value of listen, {listen}")));
        }
        if access.has_proxy_header && access.trusted.is_empty() {
            wrong.push((
                "proxy-protocol",
                "\"on\" needs --trust-proxy: PROXY headers of other addresses are not trusted".into(),
            ));
        }
        if let Some(path) = access.echo_path.as_ref().filter(|path| access.paths.contains(path)) {
            wrong.push(("echo-path", format!("{path:?} is one of the values of path, too")));
        }
        let room = access.request_bytes_max - REQUEST_BYTES_MIN;
        let paths = access.paths.iter().map(|path| ("path", path));
        for (option, path) in paths.chain(access.echo_path.iter().map(|path| ("echo-path", path))) {
            if path.len() > room {
                wrong.push((option, format!("a path of {} bytes does not fit into max-request", path.len())));
            }
        }
        wrong.iter().for_each(|(option, wrong)| self.refuse(option, wrong));
    }

    /// `tls-cert` and `tls-key`, both or neither.
    fn certificate(&mut self) -> Option<Arc<Certificate>> {
        let alone = |given: &str, missing: &str, what: &str| {
            format!("{given} is given without {missing}. Add {missing}, {what}, or leave both out to serve without TLS")
        };
        let files = &self.config.live.files;
        let is_missing = |name: &str| self.settings.given(name).values.is_empty();
        let problem = match (&files.tls_cert, &files.tls_key) {
            (Some(cert), Some(key)) => match Certificate::load(cert, key, &self.settings.files) {
                Ok(certificate) => return Some(certificate.into()),
                Err(unfit) => {
                    self.settings.given(if unfit.is_key { "tls-key" } else { "tls-cert" }).problem(&unfit.why)
                }
            },
            (Some(_), None) if is_missing("tls-key") => alone("tls-cert", "tls-key", "the file of its private key"),
            (None, Some(_)) if is_missing("tls-cert") => alone("tls-key", "tls-cert", "the file of its certificate"),
            _ => return None,
        };
        self.problems.push(problem);
        None
    }

    /// Reads the key file of an option. `None`: the option names no file, or its file is refused.
    fn access_key(&mut self, option: &str, path: Option<PathBuf>) -> Option<AccessKey> {
        let loaded = AccessKey::load(&path?, &self.settings.files);
        loaded.map_err(|why| self.refuse(option, &why)).ok()
    }

    fn console(&mut self) {
        let path = self.config.live.files.console_key.clone();
        self.config.live.console.key = self.access_key("console-key-file", path);
    }

    /// A signing key is not a token: processes that hold only the token must not be able to sign.
    fn publish_token(&mut self) {
        let path = self.config.live.files.publish_token.clone();
        let Some(token) = self.access_key("publish-token-file", path) else { return };
        // A console session signs subscriptions, so the key that opens one is a signing key.
        if self.config.live.console.key.as_ref().is_some_and(|key| key.secret == token.secret) {
            let why = format!("{} holds the key of the console, which signs; make another", token.path.display());
            return self.refuse("publish-token-file", &why);
        }
        let is_token = |key: &&Key| token.secret == key.secret || token.secret == format!("{}:{}", key.id, key.secret);
        if let Some(key) = self.config.live.keys.iter().find(is_token) {
            let why = format!("{} holds the signing key {:?}; make another", token.path.display(), key.id);
            return self.refuse("publish-token-file", &why);
        }
        self.config.live.publish_token = Some(token);
    }

    /// The pairs of `key`, then those of `key-file`.
    fn keys(&mut self) -> Vec<Key> {
        let mut keys = std::mem::take(&mut self.config.live.keys);
        if let Some(path) = &self.config.live.files.keys {
            match read_key_file(path, &self.settings.files) {
                Ok(read) => {
                    if read.is_empty() {
                        let note = format!("key-file has no effect: no key pair in {}", path.display());
                        self.config.live.notes.push(note);
                    }
                    keys.extend(read);
                }
                Err(why) => self.refuse("key-file", &why),
            }
        }
        let mut seen = HashSet::new();
        for key in &keys {
            if !seen.insert(&key.id) {
                self.problems.push(format!(
                    "the key ID {:?} is given twice (key and key-file count together). Every ID names one secret: remove \
                     one of them, or make a new pair with `corecast keygen`",
                    key.id
                ));
            }
            if key.secret.len() < SECRET_BYTES_MIN {
                self.config.live.notes.push(format!(
                    "the secret of the key {:?} is shorter than {SECRET_BYTES_MIN} bytes and can be guessed; `corecast \
                     keygen` makes a longer one",
                    key.id
                ));
            }
        }
        keys
    }

    /// Receivers check signatures, so there must be a key pair to sign with.
    fn webhooks(&mut self) {
        let Live { webhooks, keys, .. } = &self.config.live;
        let urls = &webhooks.urls;
        let mut seen = HashSet::new();
        let twice: HashSet<_> = urls.iter().filter(|url| !seen.insert(*url)).collect();
        let mut wrong: Vec<String> = twice.iter().map(|url| format!("{url} is given twice")).collect();
        if urls.len() > WEBHOOKS_MAX {
            wrong.push(format!("{} URLs are more than {WEBHOOKS_MAX}", urls.len()));
        }
        let is_key_given = ["key", "key-file"].iter().any(|name| !self.settings.given(name).values.is_empty());
        if !urls.is_empty() && keys.is_empty() {
            let remedy = match is_key_given {
                true => "`corecast keygen >> FILE` adds one to the key file",
                false => "`corecast keygen` makes one; add it with --key-file or --key",
            };
            wrong.push(format!("webhooks are signed with a key pair, and none is set ({remedy})"));
        }
        wrong.iter().for_each(|wrong| self.refuse("webhook", wrong));
    }

    /// The largest member list must fit into half of the outbox limit.
    fn presence_members(&mut self) {
        let limits = &self.config.live.limits;
        let fitting = limits.presence_members_fitting();
        let (members, member) = (limits.presence_members_max, bytes(limits.presence_member_bytes_max() as u64));
        if members <= fitting {
            return;
        }
        let outbox = bytes(limits.outbox_bytes_max as u64);
        if fitting == 0 {
            let wrong =
                format!("a member of {member} does not fit into half of outbox-limit, {outbox}; raise outbox-limit");
            return self.refuse("presence-info-max", &wrong);
        }
        let wrong = format!("{members} members of {member} do not fit into half of outbox-limit, {outbox}");
        if self.settings.given("presence-members").source != Source::Default {
            return self.refuse("presence-members", &format!("{wrong}: at most {fitting} do, or raise outbox-limit"));
        }
        self.config.live.limits.presence_members_max = fitting;
        self.config.live.notes.push(format!(
            "presence-members is lowered to {fitting}: {wrong}; raise outbox-limit, lower presence-info-max, or set \
             presence-members"
        ));
    }

    fn rules(&mut self) {
        let tables = &self.settings.tables;
        self.problems.extend(tables.problems.iter().cloned());
        let share = self.config.live.limits.history_bytes_max / self.config.shards;
        self.config.live.notes.extend(tables.notes.iter().cloned().chain(tables.beyond(share)));
        self.config.live.rules = Arc::new(tables.rules.clone());
    }

    /// Values that cannot take effect, and files that are open to others.
    fn notes(&mut self) {
        let Config { http, live, .. } = &self.config;
        let (is_off, defaults) = (http.is_none(), Config::of_defaults());
        let is_local = |ip: IpAddr| ip.is_unspecified() || ip.to_canonical().is_loopback();
        let is_remote = http.is_some_and(|http| !is_local(http.address.ip()));
        let named = live.connections_named.unwrap_or(usize::MAX);
        let per_address = live.limits.connections_per_address_max.unwrap_or(0) as usize;
        let info_max = live.limits.presence_info_bytes_max;
        let posts_counts = !live.webhooks.urls.is_empty() && live.webhooks.events.contains(&"subscription_count");
        let no_effect = [
            ("app-id", is_off, "http is off"),
            ("console-key-file", is_off, "http is off"),
            ("publish-token-file", is_off, "http is off"),
            ("publish-token-file", is_remote, "http is an address that this machine does not reach over loopback"),
            ("console-key-file", !is_off && !live.console.is_on, "console is off"),
            ("webhook-events", live.webhooks.urls.is_empty(), "webhook is not set"),
            ("webhook-retry", live.webhooks.urls.is_empty(), "webhook is not set"),
            ("pusher-activity-timeout", !live.access.pusher, "pusher is off"),
            ("pusher-client-events", !live.access.pusher, "pusher is off"),
            ("pusher-watchlist", !live.access.pusher, "pusher is off"),
            ("pusher-authorize-within", !live.access.pusher, "pusher is off"),
            ("pusher-subscription-count", !live.access.pusher && !posts_counts, "pusher is off"),
            ("max-connections-per-address", per_address > named, "max-connections is smaller"),
            ("presence-info-max", info_max > live.limits.message_bytes_max, "max-message is smaller"),
        ];
        let notes = no_effect.into_iter().filter_map(|(name, is_idle, why)| {
            let option = self.settings.given(name).option;
            let is_changed = option.show(&self.config) != option.show(&defaults);
            (is_idle && is_changed).then(|| format!("{name} has no effect: {why}"))
        });
        let uncounted = (posts_counts && !live.limits.subscription_count)
            .then(|| "webhook-events: subscription_count has no effect: pusher-subscription-count is off".into());
        let notes: Vec<String> = notes.chain(uncounted).chain(self.settings.files.take_notes()).collect();
        self.config.live.notes.extend(notes);
    }

    fn refuse(&mut self, option: &str, wrong: &str) {
        self.problems.push(self.settings.given(option).problem(wrong));
    }

    fn finish<T>(self, value: impl FnOnce(Config) -> T) -> Result<T, Invalid> {
        match self.problems.is_empty() {
            true => Ok(value(self.config)),
            false => Err(Invalid(self.problems)),
        }
    }
}

/// Whether two listeners at these addresses would get the same connections. `[::]` takes those of IPv4, too.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    let takes = |a: IpAddr, b: IpAddr| a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    one.port() != 0 && one.port() == other.port() && (a == b || takes(a, b) || takes(b, a))
}

/// An upgrade request without its path: the request line and the headers that RFC 6455 asks for.
const REQUEST_BYTES_MIN: usize = 160;
/// A shorter secret can be guessed.
const SECRET_BYTES_MIN: usize = 16;

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
    let text = files.read_secret(path).map_err(|why| format!("{why}; `corecast keygen >> FILE` makes one"))?;
    let lines = text.lines().map(str::trim).zip(1..);
    lines
        .filter(|(line, _)| !line.is_empty() && !line.starts_with('#'))
        .map(|(line, number)| {
            Key::parse(line)
                .map_err(|why| format!("line {number} of {} is not an ID:SECRET pair: {why}", path.display()))
        })
        .collect()
}

/// What a file holds.
#[derive(Default)]
struct Parsed {
    /// Values by name, and the line of the name.
    options: BTreeMap<String, (usize, Vec<String>)>,
    tables: Tables,
}

/// The file as text per option. Errors never quote the values of options: the line may hold a secret.
fn parse_file(text: &str, path: &Path) -> Result<Parsed, Invalid> {
    let at = path.display();
    let line_of = |span: Range<usize>| text[..span.start].matches('\n').count() + 1;
    let no_toml = |error: toml::de::Error| {
        Invalid(vec![format!(
            "{at} is not valid TOML, line {}: {}. Values are numbers, true, false, or texts in double quotes",
            error.span().map_or(1, line_of),
            error.message()
        )])
    };
    let table: toml::Table = text.parse().map_err(no_toml)?;
    // Parsed once more for the line numbers, which a plain table does not have.
    let places = DeTable::parse(text).map_err(no_toml)?;
    let mut parsed = Parsed::default();
    let mut problems = Vec::new();
    for (name, value) in table {
        let (key, place) = places.get_ref().get_key_value(&*name).expect("the same text");
        let line = line_of(key.span());
        if name == TABLES {
            parsed.tables = Tables::read(&at.to_string(), &value, place.get_ref(), &line_of);
            continue;
        }
        let Some(option) = OPTIONS.iter().find(|option| option.name == name) else {
            problems.push(format!("unknown key {name:?} ({at}, line {line}). {}", hint(&name, &value)));
            continue;
        };
        let texts = match value {
            Value::Array(values) if option.repeatable => values.iter().map(scalar).collect(),
            Value::Array(_) => None,
            value => scalar(&value).map(|text| vec![text]),
        };
        match texts {
            Some(texts) => drop(parsed.options.insert(name, (line, texts))),
            None => problems.push(format!(
                "{name} ({at}, line {line}) has a value of the wrong type; it takes {}. Correct the line, or remove it",
                option.kind.allowed()
            )),
        }
    }
    match problems.is_empty() {
        true => Ok(parsed),
        false => Err(Invalid(problems)),
    }
}

/// The name of the tables of rules.
const TABLES: &str = "channel";

fn hint(name: &str, value: &Value) -> String {
    let is_table =
        matches!(value, Value::Table(_)) || value.as_array().is_some_and(|values| values.iter().any(Value::is_table));
    match meant(name) {
        _ if is_table && nearest(name, [TABLES].into_iter()).is_some() => "Did you mean [[channel]]?".into(),
        _ if is_table => "The only sections are [[channel]]: other keys belong to the top level".into(),
        Some(option) => format!("Did you mean {}?", option.name),
        None => {
            let names: Vec<_> = OPTIONS.iter().map(|option| option.name).collect();
            format!("The keys are {}", names.join(", "))
        }
    }
}

/// The option with nearly this name.
fn meant(name: &str) -> Option<&'static Opt> {
    let nearest = nearest(name, OPTIONS.iter().map(|option| option.name))?;
    OPTIONS.iter().find(|option| option.name == nearest)
}

/// The text of an environment variable. Compose files and unit files write "not set" as an empty value.
fn text_of(name: &str, value: Option<OsString>) -> Option<Result<String, Invalid>> {
    match value.filter(|value| !value.is_empty())?.into_string() {
        Ok(text) if text.trim().is_empty() => None,
        Ok(text) => Some(Ok(text)),
        Err(_) => Some(Err(Invalid::new(format!("{name} is not valid UTF-8. Correct {name}, or unset it")))),
    }
}

/// Beside the user's other sockets if the system has a directory for them, else in `/tmp` under a name with the user's ID.
fn default_admin_socket(env: &impl Fn(&str) -> Result<Option<String>, Invalid>) -> Result<String, Invalid> {
    Ok(match env("XDG_RUNTIME_DIR")? {
        Some(directory) => format!("{directory}/corecast.sock"),
        None => shared_admin_socket(),
    })
}

/// Where the admin socket is if the user has no runtime directory. Every user may create files there.
pub fn shared_admin_socket() -> String {
    format!("/tmp/corecast-{}.sock", rustix::process::getuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Access, History, HttpListener, Limits, Pin, Rule};

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
            text_of(name, found.map(|(_, value)| (*value).into())).transpose()
        };
        let path = PathBuf::from("test.toml");
        let file = parse_file(file, &path)?;
        Settings::layer(&flags(on_line), env, Some((path, file)), Files::at_start())
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

    /// A file that is removed when the test ends.
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
        check(&key.0, &key.0, &["--tls-cert", &key.0, "holds a private key, not a certificate"]);
        check(&cert.0, &cert.0, &["--tls-key", &cert.0, "holds no private key"]);
        check(&torn.0, &key.0, &["--tls-cert", &torn.0, "a section has no end"]);
        check(&rubbish.0, &key.0, &["--tls-cert", &rubbish.0, "not an X.509 certificate"]);
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
        let limits = Limits {
            heart_interval_s: 30,
            heart_timeout_s: 25,
            activity_timeout_s: 120,
            pusher_client_events: true,
            pusher_watchlist: true,
            pusher_authorize_within_s: 0,
            server_ping: true,
            outbox_bytes_max: 1 << 20,
            shard_outboxes_bytes_max: usize::MAX,
            message_bytes_max: 1 << 16,
            subscriptions_max: 128,
            subscribes_per_second_max: 50,
            connections_max: CONNECTIONS_AUTO_MAX,
            connections_per_address_max: None,
            upgrades_per_address_max: 0,
            messages_per_second_max: 0,
            bytes_per_second_max: 0,
            handshake_timeout_ms: 10_000,
            admin_line_bytes_max: 1 << 20,
            connection_age_max_s: 0,
            history_bytes_max: 256 << 20,
            presence_members_max: 100,
            presence_grace_ms: 3000,
            presence_info_bytes_max: 1024,
            client_events_per_second_max: 10,
            subscription_count: false,
        };
        assert_eq!((&config.live.limits, &Limits::default()), (&limits, &limits));
        let Access { paths, echo_path, pusher, origins, trusted, has_proxy_header, request_bytes_max } =
            config.live.access;
        assert_eq!((paths, echo_path, pusher, origins, trusted), (vec![], None, true, vec![], vec![]));
        assert_eq!((has_proxy_header, request_bytes_max), (false, 8192));
        assert_eq!(config.live.drain_timeout_ms, 0);
        assert_eq!(config.live.shutdown_timeout_ms, 8_000);
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
    fn the_listeners_have_separate_addresses() {
        let check = |listen: &str, http: &str, is_legal: bool| {
            let config = config(&[("listen", listen), ("http", http)], &[], "");
            assert_eq!(config.is_ok(), is_legal, "{listen} {http}");
        };
        for (one, other, is_legal) in [
            ("127.0.0.1:9000", "127.0.0.1:9000", false),
            ("0.0.0.0:9000", "127.0.0.1:9000", false),
            ("[::]:9000", "127.0.0.1:9000", false),
            ("[::]:9000", "[::1]:9000", false),
            ("[::]:9000", "0.0.0.0:9000", false),
            ("[::ffff:127.0.0.1]:9000", "127.0.0.1:9000", false),
            ("0.0.0.0:9000", "[::1]:9000", true),
            ("127.0.0.1:9000", "127.0.0.2:9000", true),
            ("0.0.0.0:9000", "127.0.0.1:9001", true),
            ("0.0.0.0:0", "127.0.0.1:0", true),
        ] {
            check(one, other, is_legal);
            check(other, one, is_legal);
        }
        let wrong = error(&[("listen", "0.0.0.0:9001")], &[], "");
        assert!(wrong.contains("127.0.0.1:9001 overlaps with the value of listen, 0.0.0.0:9001"), "{wrong}");
    }

    #[test]
    fn the_key_of_the_console_is_not_a_publish_token() {
        let (one, other) = (temporary("console-key", "0123456789abcdef"), temporary("token", "0123456789abcdef\n"));
        let files = [("console-key-file", one.0.as_str()), ("publish-token-file", other.0.as_str())];
        let wrong = error(&files, &[], "");
        assert!(wrong.contains("holds the key of the console"), "{wrong}");
        assert!(!wrong.contains("0123456789abcdef"), "{wrong}");
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
            "console-key-file" | "publish-token-file" => console_key.0.clone(),
            "webhook" => "https://example.com/hooks".to_owned(),
            _ => option.default.to_owned(),
        };
        for option in OPTIONS {
            let value = value(option);
            // These need one another.
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
        for option in OPTIONS {
            let name = option.name;
            match shown.options.get(name) {
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
        let token = temporary("manual-token", "fedcba9876543210");
        let key_file = temporary("manual", "# rotated in May\n\nold:s1\n  new:s2  \n");
        let (cert, key) = pair("manual");
        let examples = MANUAL
            .replace("\n#", "\n")
            .replace("/etc/corecast/keys", &key_file.0)
            .replace("/etc/corecast/console-key", &console_key.0)
            .replace("/etc/corecast/publish-token", &token.0)
            .replace("/etc/corecast/fullchain.pem", &cert.0)
            .replace("/etc/corecast/privkey.pem", &key.0);
        let legal: String =
            examples.lines().filter(|line| !line.starts_with(' ')).map(|line| format!("{line}\n")).collect();
        let config = config(&[], &[], &legal).unwrap_or_else(|invalid| panic!("{invalid}\n{legal}"));
        assert!(!config.live.access.paths.is_empty());
        let history = History { messages_max: 100, bytes_max: 256 << 10, ttl_s: 300 };
        assert_eq!(config.live.rules.rule("prices:eur"), Rule { history: Some(history), ..Rule::PLAIN });
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
    fn the_largest_member_list_fits_into_half_of_the_outbox_limit() {
        // A member of 1180 bytes: 28 of JSON, 128 of the ID, 1024 of the information.
        let members = |given: &[(&str, &str)]| {
            let live = config(given, &[], "").unwrap_or_else(|invalid| panic!("{invalid}")).live;
            (live.limits.presence_members_max, live.notes)
        };
        let outbox = |members: usize| (2 * 1180 * members).to_string();
        assert_eq!(members(&[]), (100, vec![]));
        assert_eq!(members(&[("outbox-limit", &outbox(100))]), (100, vec![]));
        let (lowered, notes) = members(&[("outbox-limit", &(2 * 1180 * 100 - 1).to_string())]);
        assert_eq!((lowered, notes.len()), (99, 1));
        assert!(notes[0].starts_with("presence-members is lowered to 99: 100 members of 1.2 KiB"), "{notes:?}");
        assert_eq!(members(&[("outbox-limit", &outbox(7)), ("presence-members", "7")]), (7, vec![]));
        let small_info = [("outbox-limit", "64KiB"), ("presence-info-max", "100"), ("presence-members", "128")];
        assert_eq!(members(&small_info), (128, vec![]));
        let text = error(&[("outbox-limit", &outbox(7)), ("presence-members", "8")], &[], "");
        for part in ["--presence-members: 8 members of 1.2 KiB", "outbox-limit", "at most 7 do", "1 to 1000000"] {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
        let text = error(&[("outbox-limit", "4KiB"), ("presence-info-max", "4KiB")], &[], "");
        assert!(
            text.contains("--presence-info-max: a member of 4.2 KiB") && text.contains("raise outbox-limit"),
            "{text}"
        );
    }

    #[test]
    fn tables_of_channels_come_from_the_file() {
        let file = "log = \"off\"\n[[channel]]\nmatch = \"a*\"\nhistory = 3\n[[channel]]\nmatch = \"ab\"\n";
        let live = config(&[], &[], file).expect("legal").live;
        assert_eq!(live.rules.rule("ab").history.expect("a history").messages_max, 3);
        assert!(matches!(&live.notes[..], [note] if note.contains("table 2")), "{:?}", live.notes);
        let text = error(&[("pin", "yes")], &[], "[[channel]]\nmatch = \"a\"\nhistory = -1\nslow = 1");
        assert_eq!(text.lines().count(), 3, "{text}");
        let large = "history-memory = \"1MiB\"\nshards = 4\n[[channel]]\nmatch = \"a\"\nhistory = 1\nhistory-bytes = \"257KiB\"";
        let notes = config(&[], &[], large).expect("legal").live.notes;
        assert!(matches!(&notes[..], [note] if note.contains("no effect beyond 256 KiB")), "{notes:?}");
        assert_eq!(config(&[], &[], &large.replace("257", "256")).expect("legal").live.notes, [""; 0]);
        // What client commands need does not depend on the tables.
        let broken = settings(&[], &[], "[[channel]]\nhistory = -1").expect("gathered");
        assert!(broken.admin_socket().is_ok() && broken.keys().is_ok() && broken.validate().is_err());
        assert!(error(&[], &[], "[[chanel]]\nmatch = \"a\"").contains("Did you mean [[channel]]?"));
        assert!(error(&[], &[], "[channels]\nmatch = \"a\"").contains("Did you mean [[channel]]?"));
    }

    #[test]
    fn all_problems_are_reported_at_once() {
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
        assert!(text.contains("\"limits\"") && text.contains("The only sections are [[channel]]"), "{text}");
    }

    #[test]
    fn variables_with_nearly_the_name_of_an_option_are_warned_of() {
        let names = ["CORECAST_LISTN", "CORECAST_LISTEN", "CORECAST_CONFIG", "CORECAST_PORT", "CORECAST_SERVICE_HOST"];
        let strays = Settings::strays(names.into_iter().map(str::to_owned));
        assert_eq!(strays, ["CORECAST_LISTN is set, but it is not an option. Did you mean CORECAST_LISTEN?"]);
    }

    #[test]
    fn errors_and_prints_hold_no_secret() {
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
    fn a_printed_configuration_reads_back_as_the_same() {
        let on_line = [("max-message", "2KiB"), ("handshake-timeout", "0.5"), ("server-ping", "off"), ("path", "/ws")];
        let file =
            "pin = \"none\"\n[[channel]]\nmatch = \"a*\"\nhistory = 3\nslow = \"latest\"\n[[channel]]\nmatch = \"*\"";
        let settings = settings(&on_line, &[("CORECAST_LOG", "off")], file).expect("legal");
        let first = settings.validate().expect("legal");
        let printed = settings.to_toml(&first);
        assert!(printed.contains("max-message = 2048 # --max-message\n"), "{printed}");
        assert!(printed.contains("log = \"off\" # CORECAST_LOG\n"), "{printed}");
        assert!(printed.contains("pin = \"none\" # \"test.toml\", line 1\n"), "{printed}");
        assert!(printed.contains("heart-timeout = 25 # default\n"), "{printed}");
        assert!(printed.contains("\n[[channel]] # \"test.toml\", line 2\nmatch = \"a*\"\nhistory = 3\n"), "{printed}");
        let mut second = config(&[], &[], &printed).unwrap_or_else(|invalid| panic!("{invalid}\n{printed}"));
        // An address in a file counts as named.
        assert_eq!(second.http, first.http.map(|http| HttpListener { is_named: true, ..http }));
        second.http = first.http;
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
    }

    #[test]
    fn the_file_is_named_by_flag_or_environment() {
        let file = temporary("named", "shards = 3");
        let from_flag = Settings::gather(&flags(&[("config", &file.0)]), |_| None);
        let from_env = Settings::gather(&flags(&[]), |name| (name == CONFIG_ENV).then(|| file.0.clone().into()));
        for settings in [from_flag, from_env] {
            let settings = settings.unwrap_or_else(|invalid| panic!("{invalid}"));
            assert_eq!(settings.validate().expect("legal").shards, 3);
        }
        let missing = Settings::gather(&flags(&[("config", "/none/such.toml")]), |_| None);
        assert!(missing.is_err_and(|invalid| invalid.to_string().contains("/none/such.toml")));
    }
}
