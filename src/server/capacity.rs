//! What the configured limits can cost: descriptors, and memory by kind, a term each. These are upper bounds, not a
//! forecast. An allocation counts with the requested size; the allocator rounds it up, by a quarter at most.
//!
//! Everything that can grow has a term here, with sizes from the module that it belongs to, so that they stay current.

use super::http_thread;
use super::machine::Machine;
use crate::admin::lines::WAITING_BYTES;
use crate::admin::session;
use crate::api;
use crate::config::{CONNECTIONS_AUTO_MAX, Config, Limits, USER_ID_BYTES_MAX, bytes};
use crate::http::{body, serving, shards as sessions, walk};
use crate::hub::admission::addresses;
use crate::hub::admission::arrivals::{self, Named};
use crate::hub::audience::REPLY_BYTES;
use crate::hub::audience::member::{Member, Subscription};
use crate::hub::audience::pages::{PAGE_BYTES, PINNED_FOLD, POOL_BYTES_MAX};
use crate::hub::audience::table::{Audience, Subscriber};
use crate::hub::channel::dedupe;
use crate::hub::channel::directory;
use crate::hub::channel::presence::{members, timers};
use crate::hub::mail::Mail;
use crate::hub::observe::{journal, reports, taps};
use crate::hub::watchlist::{WATCHES_MAX, watched, watchers};
use crate::protocol::channel::NAME_BYTES_MAX;
use crate::protocol::json::NODE_BYTES;
use crate::protocol::user::WATCHLIST_MAX;
use crate::shard::admins::ADMINS_MAX;
use crate::shard::clients::{WAITING_REPLIES_MAX, echo};
use crate::shard::connection::{Aside, Connection};
use crate::shard::heartbeats::wheel;
use crate::shard::mesh::INBOX_LETTERS;
use crate::shard::output::{self, UNREAD_REPLIES_MAX};
use crate::shard::publish_budget::PublishBudget;
use crate::shard::tls::{INCOMING_BYTES_MAX, SCRATCH_BYTES, SESSION_BYTES};
use crate::shard::{ALLOWANCE_BYTES, BUFFERS_BYTES, READ_BYTES, REFUSALS_MAX};
use crate::webhook::{self, queue, told};
use crate::wire::decoder::Decoder;
use std::fmt;

/// A number of things of one kind, and the cost of each.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// The kind.
    pub kind: &'static str,
    /// The largest number of them.
    pub count: u64,
    /// Bytes, or descriptors, of one.
    pub each: u64,
}

impl Term {
    /// The cost of all of them.
    pub fn total(&self) -> u64 {
        self.count.saturating_mul(self.each)
    }
}

/// The largest costs, by terms.
pub struct Capacity {
    shards: u64,
    /// The most client connections.
    pub connections: u64,
    /// Client connections that are configured; `None`: as many as the machine holds.
    configured: Option<u64>,
    /// Bytes for all outboxes.
    outbox_memory: u64,
    /// What limits the connections, if it is not the configuration.
    bound: Option<&'static str>,
    /// Descriptors.
    pub descriptors: Vec<Term>,
    /// Memory with all connections open and idle.
    pub idle: Vec<Term>,
    /// Memory that clients can make the server hold beyond that, all of them at once.
    pub clients: Vec<Term>,
    /// Memory that publishers and operators can make it hold.
    pub publishers: Vec<Term>,
    /// What one channel can keep, a line for each kind of channels.
    channels: Vec<String>,
}

impl Capacity {
    /// The costs of a configuration on a machine.
    pub fn of(config: &Config, machine: &Machine) -> Capacity {
        let mut bounds = vec![("descriptors allow no more", room(config, machine.descriptors))];
        let configured = config.live.connections_named.map(|named| named as u64);
        if configured.is_none() {
            bounds.push(("name a number for more", CONNECTIONS_AUTO_MAX as u64));
            bounds.extend(machine.tracked_max.map(|tracked| ("the firewall tracks no more", tracked)));
            bounds.extend(machine.memory.map(|memory| ("memory holds no more", idle_in(config, memory.bytes).max(1))));
        }
        let (bound, most) = bounds.into_iter().min_by_key(|(_, most)| *most).expect("the descriptors are one");
        let connections = configured.map_or(most, |configured| configured.min(most));
        let bound = (configured != Some(connections)).then_some(bound);
        Capacity { configured, bound, ..Capacity::of_connections(config, connections, outbox_memory(config, machine)) }
    }

    fn of_connections(config: &Config, connections: u64, outbox_memory: u64) -> Capacity {
        let of = Kinds {
            config,
            connections,
            outbox_memory,
            // Connections that are refused for lack of room are connections, too.
            accepted: connections + REFUSALS_MAX as u64,
            shards: config.shards as u64,
            http: u64::from(config.http.is_some()),
            webhooks: config.live.webhooks.urls.len() as u64,
            is_secure: config.live.certificate.is_some(),
        };
        Capacity {
            shards: of.shards,
            connections,
            outbox_memory,
            configured: Some(connections),
            bound: None,
            descriptors: of.descriptors(),
            idle: of.idle(),
            clients: of.clients(),
            publishers: of.publishers(),
            channels: of.channels(),
        }
    }

    /// Bytes that clients can take: all connected, and each at every limit.
    fn worst(&self) -> u64 {
        sum(&self.idle).saturating_add(sum(&self.clients))
    }

    /// Warnings about what the machine cannot hold, each with its remedy.
    pub fn warnings(&self, config: &Config, machine: &Machine) -> Vec<String> {
        let mut warnings = Vec::new();
        let connections = self.connections;
        if connections == 0 {
            warnings.push(no_room(machine.descriptors) + ": so it does not start");
        }
        if let Some(configured) = self.configured.filter(|&configured| connections < configured) {
            warnings.push(format!(
                "descriptors: the limit of {} leaves room for {connections} of the {configured} connections of max-connections; \
                 raise the hard limit to {} (LimitNOFILE= in the service's unit, or ulimit -Hn), or lower max-connections",
                machine.descriptors,
                configured.saturating_add(machine.descriptors.saturating_sub(connections)),
            ));
        }
        if let Some(memory) = machine.memory {
            let (idle, worst) = (sum(&self.idle), self.worst());
            let (needed, when, holds) = if idle > memory.bytes {
                (idle, "with all connections idle", idle_in(config, memory.bytes))
            } else if worst > memory.bytes && self.configured.is_some() {
                (worst, "with every client at every limit at once", worst_in(config, memory.bytes, self.outbox_memory))
            } else {
                (0, "", 0)
            };
            if needed > 0 {
                warnings.push(format!(
                    "memory: {when} the server takes {}, and {} has {}, enough for {holds} such connections. Lower max-connections \
                     to that, or outbox-memory, max-message and max-subscriptions, or add memory",
                    bytes(needed),
                    memory.source,
                    bytes(memory.bytes),
                ));
            }
        }
        let (share, each) = (self.outbox_memory / self.shards, outbox_bytes(config));
        if share < each {
            warnings.push(format!(
                "outbox-memory: a shard's share of {} is less than the {} that one outbox at its limit can keep, so clients are closed \
                 before they reach outbox-limit; raise outbox-memory to {}, or lower outbox-limit",
                bytes(share),
                bytes(each),
                bytes(each.saturating_mul(self.shards)),
            ));
        }
        if let Some(tracked) = machine.tracked_max.filter(|&tracked| tracked < connections) {
            warnings.push(format!(
                "the firewall tracks at most {tracked} connections, fewer than {connections}: raise it (sysctl -w \
                 net.netfilter.nf_conntrack_max={}), or exclude the port from tracking",
                connections.next_power_of_two()
            ));
        }
        if let Some(backlog) = machine.backlog_max.filter(|&backlog| backlog < BACKLOG_MIN.min(connections)) {
            warnings.push(format!(
                "only {backlog} connections can wait to be accepted, so many clients that reconnect at once are refused; raise it \
                 (sysctl -w net.core.somaxconn={BACKLOG_MIN})"
            ));
        }
        warnings
    }

    /// The most client connections, and what limits them.
    fn title(&self) -> String {
        let plural = if self.shards == 1 { "" } else { "s" };
        let title = format!("{} shard{plural}, at most {} client connections", self.shards, self.connections);
        match (self.configured, self.bound) {
            (Some(configured), Some(bound)) => format!("{title} (of {configured} configured: {bound})"),
            (None, Some(bound)) => format!("{title} (max-connections is auto: {bound})"),
            (_, None) => title,
        }
    }

    /// The sums for the log, a line each, with every kind that costs anything.
    pub fn lines(&self) -> Vec<String> {
        let memory = |what: &str, terms: &[Term]| {
            let total = sum(terms);
            let terms: Vec<String> = terms
                .iter()
                .filter(|term| term.count > 0)
                .map(|term| format!("{} {}", term.kind, bytes(term.total())))
                .collect();
            format!("{what}: {} ({} a shard): {}", bytes(total), bytes(total / self.shards), terms.join(", "))
        };
        let descriptors: Vec<String> = self
            .descriptors
            .iter()
            .filter(|term| term.count > 0)
            .map(|term| format!("{} {}", term.kind, term.total()))
            .collect();
        vec![
            self.title(),
            format!("descriptors at most: {}: {}", sum(&self.descriptors), descriptors.join(", ")),
            memory("memory with all connections idle", &self.idle),
            memory("what clients can add at most", &self.clients),
            memory("what publishers and operators can add at most", &self.publishers),
        ]
    }
}

/// The table of `--check-config`.
impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.title())?;
        let mut table = |title: &str, terms: &[Term], write: fn(u64) -> String| {
            let total = sum(terms);
            writeln!(f, "{title:<52} {:>23} {:>12}", format!("{} a shard,", write(total / self.shards)), write(total))?;
            for term in terms.iter().filter(|term| term.count > 0) {
                let factors = format!("{} x {}", term.count, write(term.each));
                writeln!(f, "  {:<50} {factors:>23} {:>12}", term.kind, write(term.total()))?;
            }
            writeln!(f)
        };
        table("descriptors", &self.descriptors, |count| count.to_string())?;
        table("memory with all connections idle", &self.idle, bytes)?;
        table("what clients can add at most", &self.clients, bytes)?;
        table("what publishers and operators can add at most", &self.publishers, bytes)?;
        writeln!(f, "what one channel can keep")?;
        self.channels.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        write!(f, "\nmemory that clients can take: {}", bytes(self.worst()))
    }
}

/// What the terms are computed from.
struct Kinds<'a> {
    config: &'a Config,
    connections: u64,
    outbox_memory: u64,
    accepted: u64,
    shards: u64,
    http: u64,
    webhooks: u64,
    is_secure: bool,
}

impl Kinds<'_> {
    fn descriptors(&self) -> Vec<Term> {
        vec![
            term("client connections", self.connections, 1),
            term("HTTP connections", self.http, serving::TASKS_MAX as u64),
            term("webhooks", self.webhooks, webhook::DESCRIPTORS_EACH),
            term("the thread of HTTP and webhooks", 1, http_thread::DESCRIPTORS_SPARE),
            term("a shard's listeners, poller and doorbell", self.shards, DESCRIPTORS_PER_SHARD),
            term("admin connections, log, spare", 1, DESCRIPTORS_SPARE),
        ]
    }

    fn idle(&self) -> Vec<Term> {
        let limits = &self.config.live.limits;
        let only_if = |condition: bool, bytes: usize| if condition { bytes } else { 0 };
        // All in tables by slot.
        let connection = size_of::<Connection>()
            + output::ENTRY_BYTES
            + size_of::<Member>()
            + wheel::ENTRY_BYTES
            + arrivals::ENTRY_BYTES
            + only_if(limits.messages_per_second_max | limits.bytes_per_second_max > 0, ALLOWANCE_BYTES);
        // One address each, in the table that counts them; behind proxies also the address of each connection.
        let address = in_table(addresses::COUNT_BYTES)
            + only_if(!self.config.live.access.trusted.is_empty(), in_table(size_of::<(u32, Named)>()));
        let is_rated = u64::from(limits.upgrades_per_address_max > 0);
        let inbox = INBOX_LETTERS * (size_of::<Mail>() + size_of::<usize>());
        let buffers = BUFFERS_BYTES + only_if(self.is_secure, READ_BYTES + SCRATCH_BYTES);
        vec![
            term("connections", self.accepted, (connection * GROWTH) as u64),
            term("a first subscription each, to a separate channel", self.connections, SUBSCRIPTION_BYTES),
            term("TLS sessions", if self.is_secure { self.accepted } else { 0 }, SESSION_BYTES as u64),
            term("addresses", self.accepted, address as u64),
            term(
                "addresses that connected recently",
                self.shards * is_rated,
                (addresses::BUCKETS_MAX * in_table(addresses::RATED_BYTES)) as u64,
            ),
            term("a shard's read buffers", self.shards, buffers as u64),
            term("a shard's inbox", self.shards, inbox as u64),
            term("a shard's pool of pages", self.shards, POOL_BYTES_MAX as u64),
            term("the kernel's sockets, roughly", self.accepted, KERNEL_SOCKET_BYTES),
        ]
    }

    fn clients(&self) -> Vec<Term> {
        let Kinds { config, connections, outbox_memory, accepted, shards, .. } = *self;
        let limits = &config.live.limits;
        let terms = vec![
            term(
                "further subscriptions, each to a separate channel",
                connections.saturating_mul(limits.subscriptions_max.saturating_sub(1) as u64),
                SUBSCRIPTION_BYTES,
            ),
            term(
                "outboxes, what is held back, and their pages",
                1,
                if config.live.rules.may_conflate() {
                    outbox_memory // what is held back has no other limit
                } else {
                    outbox_memory.min(connections.saturating_mul(outbox_bytes(config)))
                },
            ),
            // The memory of outboxes is limited at the end of a turn.
            term("what a turn adds to them before that is limited", shards, turn_pages_bytes(config)),
            term(
                "replies that wait for another shard",
                if shards > 1 { connections } else { 0 },
                replies_bytes(limits.outbox_bytes_max),
            ),
            term("messages partly received", accepted, inbound_bytes(config)),
            term(
                "TLS records partly received or sent",
                if self.is_secure { accepted } else { 0 },
                (GROWTH * (INCOMING_BYTES_MAX + SCRATCH_BYTES)) as u64,
            ),
            // Without a key pair, presence channels cannot exist. In their grace, users have no subscription.
            term(
                "users of presence channels, and their lists",
                if config.live.keys.is_empty() {
                    0
                } else {
                    connections.saturating_mul(limits.subscriptions_max as u64) + shards * timers::LEAVING_MAX as u64
                },
                user_bytes(limits),
            ),
            term("watches of watchlists", watches_max(config, connections), WATCH_BYTES),
            term("the journal of events", 1, (GROWTH * journal::BYTES_MAX) as u64),
            // The tape of one message at a time.
            term("a shard's parser of messages", shards, (NODE_BYTES * limits.message_bytes_max) as u64),
        ];
        [terms, self.webhooks()].concat()
    }

    /// What clients make the server hold for webhooks.
    fn webhooks(&self) -> Vec<Term> {
        let Kinds { config, connections, webhooks, .. } = *self;
        let posts = |event: &&str| webhooks > 0 && config.live.webhooks.events.contains(event);
        let posted = |events: [&str; 2], count| if events.iter().any(posts) { count } else { 0 };
        let subscriptions = connections.saturating_mul(config.live.limits.subscriptions_max as u64);
        let channels = posted(webhook::CHANNELS, subscriptions);
        let members = posted(webhook::MEMBERS, subscriptions);
        let connections = posted(webhook::CONNECTIONS, connections);
        let view = |kind, count| term(kind, webhooks.saturating_mul(count), in_table(queue::VIEW_BYTES) as u64);
        vec![
            // Twice while a snapshot is read.
            term("channels known to webhooks", channels, (2 * (in_table(told::SUBJECT_BYTES) + NAME_BYTES_MAX)) as u64),
            term(
                "members of channels known to webhooks",
                members,
                (2 * (in_table(told::SUBJECT_BYTES) + told::MEMBER_BYTES + NAME_BYTES_MAX + USER_ID_BYTES_MAX)) as u64,
            ),
            term("connections known to webhooks", connections, (2 * in_table(told::SUBJECT_BYTES)) as u64),
            view("what each webhook was told of channels", channels),
            view("what each webhook was told of members", members),
            view("what each webhook was told of connections", connections),
            // With the body of a batch.
            term("a webhook's queue", webhooks, (queue::BYTES_MAX + queue::BATCH_BYTES_MAX) as u64),
        ]
    }

    /// What one channel can keep.
    fn channels(&self) -> Vec<String> {
        let limits = &self.config.live.limits;
        let (members, member) = (limits.presence_members_max, limits.presence_member_bytes_max());
        let list = format!(
            "a list of members: {members} x {}, {} at most; half of outbox-limit is {}",
            bytes(member as u64),
            bytes((members * member) as u64),
            bytes(limits.outbox_bytes_max as u64 / 2)
        );
        self.config.live.rules.costs(limits.history_bytes_max).into_iter().chain([list]).collect()
    }

    fn publishers(&self) -> Vec<Term> {
        let Kinds { config, shards, http, .. } = *self;
        vec![
            term("kept messages of all channels", 1, config.live.limits.history_bytes_max as u64),
            term("values of dedupe", dedupe::KEYS_MAX as u64, DEDUPE_BYTES),
            term("admin connections", shards * ADMINS_MAX as u64, admin_bytes(config)),
            // The tape of one line at a time.
            term("a shard's parser of lines", shards, (NODE_BYTES * config.live.limits.admin_line_bytes_max) as u64),
            term(
                "a shard's events that wait for the journal, or are held back",
                shards,
                (reports::HEAP_BYTES_MAX + directory::VACANCIES_BYTES_MAX) as u64,
            ),
            term("lines that wait for tails", shards * taps::TAPS_MAX as u64, taps::WAITING_BYTES_MAX as u64),
            term(
                "HTTP requests",
                http * serving::TASKS_MAX as u64,
                (serving::HEAD_BYTES_MAX + HTTP_BODY_FOLD * body::BYTES_MAX) as u64,
            ),
            term(
                "lists of channels being sent over HTTP",
                http * walk::LISTINGS_MAX as u64,
                (GROWTH * walk::CHANNELS_MAX * LISTED_BYTES) as u64,
            ),
            // Refused beyond the limit, which the last request may pass.
            term("HTTP's requests to the shards", http * shards, (sessions::BYTES_MAX + body::BYTES_MAX) as u64),
            // One is gathered at a time.
            term("a list of channels for HTTP", http, (GROWTH * walk::CHANNELS_MAX * LISTED_BYTES) as u64),
        ]
    }
}

fn term(kind: &'static str, count: u64, each: u64) -> Term {
    Term { kind, count, each }
}

/// The error if the descriptors leave room for no connection.
pub fn no_room(descriptors: u64) -> String {
    format!(
        "{descriptors} descriptors leave none for connections; raise the hard limit (LimitNOFILE= in the service's unit, or ulimit -Hn)"
    )
}

/// Descriptors that remain for client connections.
pub fn room(config: &Config, descriptors: u64) -> u64 {
    let http = if config.http.is_some() { serving::TASKS_MAX as u64 } else { 0 };
    let webhooks = webhook::DESCRIPTORS_EACH * config.live.webhooks.urls.len() as u64;
    let shards = DESCRIPTORS_PER_SHARD * config.shards as u64;
    descriptors.saturating_sub(DESCRIPTORS_SPARE + http_thread::DESCRIPTORS_SPARE + http + webhooks + shards)
}

/// Bytes for all outboxes, as configured or as the machine allows.
pub fn outbox_memory(config: &Config, machine: &Machine) -> u64 {
    let auto = || machine.memory.map_or(0, |memory| memory.bytes / 4).max(OUTBOX_MEMORY_AUTO_MIN);
    config.live.outbox_memory_named.unwrap_or_else(auto)
}

/// The most connections that fit into these bytes while they are idle.
fn idle_in(config: &Config, bytes: u64) -> u64 {
    largest(config.live.limits.connections_max as u64, |count| {
        sum(&Capacity::of_connections(config, count, 0).idle) <= bytes
    })
}

/// The most connections that fit into these bytes at every limit.
fn worst_in(config: &Config, bytes: u64, outbox_memory: u64) -> u64 {
    largest(config.live.limits.connections_max as u64, |count| {
        Capacity::of_connections(config, count, outbox_memory).worst() <= bytes
    })
}

fn sum(terms: &[Term]) -> u64 {
    terms.iter().fold(0, |sum, term| sum.saturating_add(term.total()))
}

/// The largest number up to `max` that holds, if every smaller number does.
fn largest(max: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, max);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if holds(middle) { low = middle } else { high = middle - 1 }
    }
    low
}

/// Bytes of an entry in a hash table, which is at most 7/8 full, may just have doubled, and has a control byte per entry.
const fn in_table(entry: usize) -> usize {
    (entry + 1) * GROWTH * 8 / 7
}

/// One more subscription: in the lists of its connection and its channel. At worst the channel has no other subscriber. Then it
/// adds the entry of this shard, that of the owner, and the name, which both share if they are one shard.
const SUBSCRIPTION_BYTES: u64 = (GROWTH * (size_of::<Subscription>() + size_of::<Subscriber>())
    + GROWTH * (size_of::<Audience>() + directory::ENTRY_BYTES)
    + 2 * in_table(size_of::<u32>())
    + NAME_BYTES_MAX
    + COUNTED_BYTES) as u64;

/// Watches of connections that have signed in, which needs a key pair.
fn watches_max(config: &Config, connections: u64) -> u64 {
    let has_watchlists = config.live.limits.pusher_watchlist && config.live.access.pusher;
    match has_watchlists && !config.live.keys.is_empty() {
        true => connections.saturating_mul(WATCHLIST_MAX as u64).min(WATCHES_MAX as u64),
        false => 0,
    }
}

/// A watch, at most: of a user with one watcher. Each byte of the ID may be written as three in the name of its channel.
const WATCH_BYTES: u64 = (in_table(watchers::WATCH_BYTES)
    + in_table(watched::USER_BYTES)
    + 2 * (NAME_BYTES_MAX + 3 * USER_ID_BYTES_MAX + COUNTED_BYTES)) as u64;

/// A value of `dedupe`: in a list and in a table, and its texts.
const DEDUPE_BYTES: u64 = (GROWTH * dedupe::ENTRY_BYTES
    + in_table(size_of::<u64>())
    + NAME_BYTES_MAX
    + COUNTED_BYTES
    + api::publish::DEDUPE_BYTES_MAX) as u64;

/// A user of a presence channel: its entries, its ID, and its text, which the channel's list repeats. A byte of the ID may
/// be written as six.
fn user_bytes(limits: &Limits) -> u64 {
    let text = limits.presence_member_bytes_max() + 5 * USER_ID_BYTES_MAX;
    (in_table(members::USER_BYTES) + USER_ID_BYTES_MAX + COUNTED_BYTES + 2 * text) as u64
}

/// What may wait, what a turn may add before the limit is checked, and the pages that hold it.
fn outbox_bytes(config: &Config) -> u64 {
    let limits = &config.live.limits;
    let waiting = limits.outbox_bytes_max + turn_bytes(limits.outbox_bytes_max);
    let echoed = config.live.access.echo_path.as_ref().map_or(0, |_| echo::waiting_bytes_max(limits));
    (PINNED_FOLD * waiting.max(echoed)) as u64
}

/// The pages of a turn, which may be half empty: messages, and the replies to the read that exceeds the limit.
fn turn_pages_bytes(config: &Config) -> u64 {
    (PINNED_FOLD * (turn_bytes(config.live.limits.outbox_bytes_max) + UNREAD_REPLIES_MAX + PAGE_BYTES)) as u64
}

/// Messages of one turn to one connection: the budget, and the message that exceeds it.
fn turn_bytes(outbox_bytes_max: usize) -> usize {
    PublishBudget::new(outbox_bytes_max).turn_bytes_max + api::publish::DATA_BYTES_MAX + api::publish::EVENT_BYTES_MAX
}

/// Replies that wait, and the messages of a channel behind a `subscribed` that waits, up to the outbox limit.
fn replies_bytes(outbox_bytes_max: usize) -> u64 {
    (GROWTH
        * (WAITING_REPLIES_MAX * (REPLY_BYTES + NAME_BYTES_MAX + READ_BYTES / WAITING_REPLIES_MAX) + outbox_bytes_max))
        as u64
}

/// A message without its last byte, and frames that wait while its replies are not read; or a request.
fn inbound_bytes(config: &Config) -> u64 {
    let message = Decoder::PARTIAL_BYTES + GROWTH * config.live.limits.message_bytes_max + READ_BYTES;
    let request = size_of::<Aside>() + GROWTH * config.live.access.request_bytes_max;
    message.max(request) as u64
}

/// The sum of three terms. Input: a line and a read beyond it. Replies: the last may be as long as the rest. The window of
/// unsettled publishes, and the publish that exceeds it, to as many channels as fit into its line.
fn admin_bytes(config: &Config) -> u64 {
    use api::publish::{CHANNELS_MAX, DATA_BYTES_MAX};
    let input = config.live.limits.admin_line_bytes_max + READ_BYTES;
    let replies = 2 * session::REPLY_BYTES_MAX + session::WAITING_MAX * WAITING_BYTES;
    let data = DATA_BYTES_MAX.min(config.live.limits.admin_line_bytes_max);
    let window = if config.shards > 1 { session::WINDOW_BYTES + CHANNELS_MAX * data } else { 0 };
    (GROWTH * (input + replies) + window) as u64
}

/// A buffer that grows by doubling may be half empty, and exists twice while it is copied.
const GROWTH: usize = 2;
/// Counts and length before a shared name.
const COUNTED_BYTES: usize = 16;
/// A body as received, the values read from it, and the lines made of them.
const HTTP_BODY_FOLD: usize = 3;
/// A channel in a listing.
const LISTED_BYTES: usize = NAME_BYTES_MAX + 56;
/// Memory of Linux for an idle TCP connection and its descriptor: socket, inode, file, epoll entry. Measured.
const KERNEL_SOCKET_BYTES: u64 = 4096;
/// A shard's two listeners, its poller and its doorbell.
const DESCRIPTORS_PER_SHARD: u64 = 4;
/// Descriptors for admin connections, and for the process itself.
const DESCRIPTORS_SPARE: u64 = 64;
/// The least memory for outboxes that is not configured.
const OUTBOX_MEMORY_AUTO_MIN: u64 = 64 << 20;
/// The default of Linux since 5.4.
const BACKLOG_MIN: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Rules, Settings};
    use crate::server::machine::Memory;
    use std::sync::Arc;

    const MACHINE: Machine = Machine {
        descriptors: 1 << 20,
        memory: None,
        backlog_max: Some(4096),
        tracked_max: None,
        cores: 2,
        quota_milli: None,
    };

    fn config(given: &[(&str, &str)]) -> Config {
        let mut flags = Flags::new();
        for (name, value) in [("shards", "2"), ("max-connections", "1000")].iter().chain(given) {
            flags.insert((*name).into(), vec![(*value).into()]);
        }
        let settings = Settings::gather(&flags, |_| None).unwrap_or_else(|invalid| panic!("{invalid}"));
        settings.validate().unwrap_or_else(|invalid| panic!("{invalid}"))
    }

    fn find(terms: &[Term], kind: &str) -> Term {
        *terms.iter().find(|term| term.kind.starts_with(kind)).unwrap_or_else(|| panic!("no term {kind}"))
    }

    /// If one of these grows, a million connections cost that much more.
    #[test]
    fn terms_follow_the_sizes_of_types() {
        let capacity = Capacity::of(&config(&[]), &MACHINE);
        let connections = find(&capacity.idle, "connections");
        assert_eq!(connections.count, 1256);
        // 40 of the connection, 33 of its output, 40 of the member, 8 of the wheel, 9 of the address; tables that doubled. In
        // debug builds mio's sockets also hold the id of their poll.
        let debug = if cfg!(debug_assertions) { 16 } else { 0 };
        assert_eq!(connections.each, 2 * (40 + 33 + debug + 40 + 8 + 9));
        // 12 and 8 in the lists, 64 and 72 for the channel, its 200 bytes of name.
        assert_eq!(find(&capacity.idle, "a first subscription").each, 2 * (12 + 8 + 64 + 72) + 2 * 11 + 200 + 16);
        assert_eq!(find(&capacity.idle, "a shard's inbox").each, 4096 * 96);
        // The parser's own: a node of its tape.
        assert_eq!(NODE_BYTES, size_of::<simd_json::Node<'_>>());
    }

    #[test]
    fn terms_follow_the_limits() {
        let outboxes =
            |given: &[(&str, &str)], machine| find(&Capacity::of(&config(given), &machine).clients, "outboxes").total();
        let vast = Machine { memory: Some(Memory { bytes: 1 << 50, source: "the test" }), ..MACHINE };
        // Each of the 1000: a MiB, a turn's quarter of it and a message, all on pages of which half is empty.
        let check = |given: &[(&str, &str)], each: u64| assert_eq!(outboxes(given, vast), 1000 * each, "{given:?}");
        check(&[], 2 * ((1 << 20) + (1 << 18) + (1 << 18) + 1024));
        check(&[("outbox-limit", "64KiB")], 2 * ((1 << 16) + (1 << 14) + (1 << 18) + 1024));
        check(&[("echo-path", "/echo"), ("max-message", "16MiB")], 4 * ((1 << 24) + (1 << 16)));
        // All together: as configured, or a quarter of the memory, and not less than 64 MiB.
        assert_eq!(outboxes(&[("outbox-memory", "70MiB")], vast), 70 << 20);
        // Slow readers of channels that conflate may take all of it, whatever the limit of an outbox.
        let mut conflating = config(&[("outbox-limit", "64KiB"), ("outbox-memory", "10GiB")]);
        let total = |config: &Config| find(&Capacity::of(config, &vast).clients, "outboxes").total();
        assert!(total(&conflating) < 1 << 30);
        conflating.live.rules = Arc::new(Rules::parse("[[channel]]\nmatch = \"a\"\nslow = \"latest\"\n"));
        assert_eq!(total(&conflating), 10 << 30);
        let gibibyte = Machine { memory: Some(Memory { bytes: 1 << 30, source: "the test" }), ..MACHINE };
        assert_eq!((outboxes(&[], gibibyte), outboxes(&[], MACHINE)), (1 << 28, 64 << 20));

        let few = Capacity::of(&config(&[("max-subscriptions", "1"), ("http", "off")]), &MACHINE);
        assert_eq!(find(&few.clients, "further subscriptions").total(), 0);
        assert_eq!(find(&few.publishers, "HTTP requests").total(), 0);
        assert_eq!(find(&few.idle, "TLS").total(), 0);
        assert_eq!(find(&few.clients, "channels known to webhooks").total(), 0);
        let hook = [("webhook", "http://a/"), ("webhook-events", "connected"), ("key", "a:1")];
        let told = Capacity::of(&config(&hook), &MACHINE);
        assert_eq!(find(&told.clients, "channels known to webhooks").total(), 0);
        assert_eq!(find(&told.clients, "connections known to webhooks").count, told.connections);
        assert_eq!(find(&told.clients, "a webhook's queue").count, 1);
        assert_eq!(find(&few.idle, "addresses that connected recently").total(), 0);
        assert_eq!(find(&few.clients, "users of presence channels").total(), 0);
        let watches = |given: &[(&str, &str)]| find(&Capacity::of(&config(given), &MACHINE).clients, "watches").count;
        assert_eq!(watches(&[("key", "a:1")]), 1000 * 100);
        assert_eq!(watches(&[("key", "a:1"), ("pusher-watchlist", "off")]), 0);
        assert_eq!(watches(&[]), 0);
        let signed = |info: &str| {
            let given = [("key", "a:1"), ("max-subscriptions", "3"), ("presence-info-max", info)];
            find(&Capacity::of(&config(&given), &MACHINE).clients, "users of presence channels")
        };
        assert_eq!(signed("1KiB").count, 3 * 1000 + 2 * 65_536);
        assert_eq!(signed("2KiB").each - signed("1KiB").each, 2 * 1024);
        let kept = Capacity::of(&config(&[("history-memory", "3MiB")]), &MACHINE);
        assert_eq!(find(&kept.publishers, "kept messages of all channels").total(), 3 << 20);
        // For the server, whatever the number of its shards.
        assert_eq!(find(&kept.publishers, "values of dedupe").count, 65_536);
        assert!((300..600).contains(&find(&kept.publishers, "values of dedupe").each));
        let limited = Capacity::of(&config(&[("max-upgrades-per-address", "5")]), &MACHINE);
        // The bounds that the table of addresses states.
        assert!((3 << 20..=5 << 20).contains(&find(&limited.idle, "addresses that connected recently").each));
    }

    #[test]
    fn descriptors_add_up_to_what_there_is() {
        let config = config(&[("max-connections", "1000000")]);
        let capacity = Capacity::of(&config, &Machine { descriptors: 20_000, ..MACHINE });
        assert_eq!(sum(&capacity.descriptors), 20_000);
        assert_eq!(capacity.connections, room(&config, 20_000));
        assert_eq!(room(&config, 64), 0);
    }

    #[test]
    fn warnings_have_a_remedy_that_works() {
        let config_of = config;
        let config = config(&[]);
        let warnings = |machine: Machine| Capacity::of(&config, &machine).warnings(&config, &machine);
        let with = |bytes| Machine { memory: Some(Memory { bytes, source: "the test" }), ..MACHINE };
        assert_eq!(warnings(MACHINE), Vec::<String>::new());
        assert_eq!(warnings(with(64 << 30)), Vec::<String>::new());
        let check = |machine, expected: &str| match &warnings(machine)[..] {
            [warning] if warning.contains(expected) => {}
            other => panic!("{expected}: {other:?}"),
        };
        check(with(1 << 30), "every client at every limit");
        check(with(10 << 20), "all connections idle");
        check(with(0), "enough for 0 such connections");
        check(Machine { descriptors: 1000, ..MACHINE }, "raise the hard limit to 1360");
        check(Machine { tracked_max: Some(500), ..MACHINE }, "nf_conntrack_max=1024");
        check(Machine { backlog_max: Some(128), ..MACHINE }, "somaxconn=4096");

        let machine = with(1 << 30);
        let holds = Capacity::of(&config, &machine).warnings(&config, &machine)[0].clone();
        let count = holds.split("enough for ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a number");
        let lowered = config_of(&[("max-connections", count)]);
        assert_eq!(Capacity::of(&lowered, &machine).warnings(&lowered, &machine), Vec::<String>::new());

        let config = config_of(&[("max-connections", "auto")]);
        let machine = Machine { descriptors: 300, ..MACHINE };
        let warnings = Capacity::of(&config, &machine).warnings(&config, &machine);
        assert!(
            matches!(&warnings[..], [warning] if warning.starts_with("300 descriptors leave none")),
            "{warnings:?}"
        );
    }

    #[test]
    fn auto_is_what_the_machine_holds_without_a_warning() {
        let config = config(&[("max-connections", "auto")]);
        let check = |machine: Machine, expected: u64, why: &str| {
            let capacity = Capacity::of(&config, &machine);
            assert_eq!(capacity.connections, expected, "{}", capacity.title());
            assert_eq!(capacity.warnings(&config, &machine), Vec::<String>::new());
            assert!(capacity.title().contains(why), "{}", capacity.title());
        };
        let with = |bytes| Machine { memory: Some(Memory { bytes, source: "the test" }), ..MACHINE };
        check(MACHINE, 1_000_000, "name a number for more");
        check(with(64 << 30), 1_000_000, "name a number for more");
        check(Machine { descriptors: 1024, ..with(1 << 30) }, 664, "descriptors allow no more");
        check(Machine { tracked_max: Some(262_144), ..MACHINE }, 262_144, "the firewall tracks no more");
        let held = idle_in(&config, 1 << 30);
        check(with(1 << 30), held, "memory holds no more");
        let idle = |count| sum(&Capacity::of_connections(&config, count, 0).idle);
        assert!(idle(held) <= 1 << 30 && idle(held + 1) > 1 << 30);
        // Without room for any connection one is accepted, with a warning.
        let nothing = Capacity::of(&config, &with(0));
        assert_eq!(nothing.connections, 1);
        assert!(nothing.warnings(&config, &with(0))[0].contains("all connections idle"));
    }

    #[test]
    fn the_table_and_the_lines_say_the_same() {
        let capacity = Capacity::of(&config(&[]), &MACHINE);
        let (table, lines) = (capacity.to_string(), capacity.lines().join("\n"));
        let terms = [&capacity.idle, &capacity.clients, &capacity.publishers];
        for term in terms.into_iter().flatten().filter(|term| term.count > 0) {
            assert!(table.contains(term.kind) && lines.contains(term.kind), "{}", term.kind);
            assert!(table.contains(&bytes(term.total())) && lines.contains(&bytes(term.total())), "{}", term.kind);
        }
        assert!(!table.contains("TLS"), "the table lists TLS, which is off");
    }
}
