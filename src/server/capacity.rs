//! What the configured limits can cost: descriptors, and memory by kind, a term each. Worst cases: nothing here is a
//! forecast, and nothing that a stranger sends makes it more. An allocation is counted as it was asked for; the allocator
//! rounds it up, by a quarter at most.
//!
//! A new thing that can grow gets a term here. Sizes come from where the thing lives, so that a term follows it.

use super::machine::Machine;
use crate::admin::lines::WAITING_BYTES;
use crate::admin::session;
use crate::api;
use crate::config::{CONNECTIONS_AUTO_MAX, Config, bytes};
use crate::control::webhook::{self, known, queue};
use crate::control::{self, body, pipe, serving, walk};
use crate::hub::admission::addresses;
use crate::hub::admission::arrivals::{self, Named};
use crate::hub::audience::REPLY_BYTES;
use crate::hub::audience::member::{Member, Subscription};
use crate::hub::audience::pages::{PINNED_FOLD, POOL_BYTES_MAX};
use crate::hub::audience::table::{Audience, Subscriber};
use crate::hub::channel::directory;
use crate::hub::mail::Mail;
use crate::hub::observe::{journal, reports, taps};
use crate::protocol::channel::NAME_BYTES_MAX;
use crate::protocol::json::NODE_BYTES;
use crate::shard::admins::ADMINS_MAX;
use crate::shard::clients::{WAITING_REPLIES_MAX, echo};
use crate::shard::connection::{Aside, Connection};
use crate::shard::heartbeats::wheel;
use crate::shard::mesh::INBOX_LETTERS;
use crate::shard::output;
use crate::shard::publish_budget::PublishBudget;
use crate::shard::tls::{INCOMING_BYTES_MAX, SCRATCH_BYTES, SESSION_BYTES};
use crate::shard::{ALLOWANCE_BYTES, BUFFERS_BYTES, READ_BYTES, REFUSALS_MAX};
use crate::wire::decoder::Decoder;
use std::fmt;

/// So many of a kind, at so much each.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// What it is.
    pub kind: &'static str,
    /// How many there can be.
    pub count: u64,
    /// Bytes, or descriptors, of one.
    pub each: u64,
}

impl Term {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.count.saturating_mul(self.each)
    }
}

/// The sum, by terms.
pub struct Capacity {
    shards: u64,
    /// Client connections that there can be.
    pub connections: u64,
    /// Client connections that are configured; `None`: as many as the machine holds.
    configured: Option<u64>,
    /// What keeps them from being more, where it is not the configuration.
    bound: Option<&'static str>,
    /// Descriptors.
    pub descriptors: Vec<Term>,
    /// Memory when everybody is connected and quiet.
    pub quiet: Vec<Term>,
    /// Memory that clients can make the server hold beyond that, all of them at once.
    pub clients: Vec<Term>,
    /// Memory that publishers and operators can, who have been let in.
    pub publishers: Vec<Term>,
}

impl Capacity {
    /// That of a configuration on a machine.
    pub fn of(config: &Config, machine: &Machine) -> Capacity {
        let mut bounds = vec![("descriptors allow no more", room(config, machine.descriptors))];
        let configured = config.live.connections_named.map(|named| named as u64);
        if configured.is_none() {
            bounds.push(("name a number for more", CONNECTIONS_AUTO_MAX as u64));
            bounds.extend(machine.tracked_max.map(|tracked| ("the firewall tracks no more", tracked)));
            bounds.extend(machine.memory.map(|memory| ("memory holds no more", quiet_in(config, memory.bytes).max(1))));
        }
        let (bound, most) = bounds.into_iter().min_by_key(|(_, most)| *most).expect("the descriptors are one");
        let connections = configured.map_or(most, |configured| configured.min(most));
        let bound = (configured != Some(connections)).then_some(bound);
        Capacity { configured, bound, ..Capacity::of_connections(config, connections) }
    }

    fn of_connections(config: &Config, connections: u64) -> Capacity {
        let term = |kind, count, each| Term { kind, count, each };
        let limits = &config.live.limits;
        let shards = config.shards as u64;
        let is_secure = config.live.certificate.is_some();
        let http = u64::from(config.http.is_some());
        let webhooks = config.live.webhooks.urls.len() as u64;
        let only_if = |condition: bool, bytes: usize| if condition { bytes } else { 0 };

        let descriptors = vec![
            term("client connections", connections, 1),
            term("HTTP connections", http, serving::CONNECTIONS_MAX as u64),
            term("webhooks", webhooks, webhook::DESCRIPTORS_EACH),
            term("the thread of both", 1, control::DESCRIPTORS_SPARE),
            term("a shard's listeners, poller and doorbell", shards, DESCRIPTORS_PER_SHARD),
            term("admin connections, log, spare", 1, DESCRIPTORS_SPARE),
        ];

        // Those who are told that there is no room are connections too.
        let accepted = connections + REFUSALS_MAX as u64;
        // All in tables by slot.
        let connection = size_of::<Connection>()
            + output::ENTRY_BYTES
            + size_of::<Member>()
            + wheel::ENTRY_BYTES
            + arrivals::ENTRY_BYTES
            + only_if(limits.messages_per_second_max | limits.bytes_per_second_max > 0, ALLOWANCE_BYTES);
        // An address each, entered where they are counted; and whose connection it is, where a proxy says so.
        let address = in_table(addresses::COUNT_BYTES)
            + only_if(!config.live.access.trusted.is_empty(), in_table(size_of::<(u32, Named)>()));
        let haste = u64::from(limits.upgrades_per_address_max > 0);
        let inbox = INBOX_LETTERS * (size_of::<Mail>() + size_of::<usize>());
        let buffers = BUFFERS_BYTES + only_if(is_secure, READ_BYTES + SCRATCH_BYTES);
        let quiet = vec![
            term("connections", accepted, (connection * GROWTH) as u64),
            term("a first subscription each, to a channel of its own", connections, SUBSCRIPTION_BYTES),
            term("TLS sessions", if is_secure { accepted } else { 0 }, SESSION_BYTES as u64),
            term("addresses", accepted, address as u64),
            term(
                "addresses that came lately",
                shards * haste,
                (addresses::BUCKETS_MAX * in_table(addresses::RATED_BYTES)) as u64,
            ),
            term("a shard's read buffers", shards, buffers as u64),
            term("a shard's inbox", shards, inbox as u64),
            term("a shard's pool of pages", shards, POOL_BYTES_MAX as u64),
            term("the kernel's sockets, roughly", accepted, KERNEL_SOCKET_BYTES),
        ];

        let tells =
            |events: [&str; 2]| webhooks > 0 && events.iter().any(|event| config.live.webhooks.events.contains(event));
        let clients = vec![
            term(
                "further subscriptions, each to a channel of its own",
                connections.saturating_mul(limits.subscriptions_max.saturating_sub(1) as u64),
                SUBSCRIPTION_BYTES,
            ),
            term("outboxes at their limit, and the pages they keep", connections, outbox_bytes(config)),
            term(
                "replies that wait for another shard",
                if shards > 1 { connections } else { 0 },
                replies_bytes(limits.outbox_bytes_max),
            ),
            term("messages half received", accepted, inbound_bytes(config)),
            term(
                "TLS records on their way",
                if is_secure { accepted } else { 0 },
                (GROWTH * (INCOMING_BYTES_MAX + SCRATCH_BYTES)) as u64,
            ),
            term("the journal of events", 1, (GROWTH * journal::BYTES_MAX) as u64),
            // Twice while a snapshot is read.
            term(
                "channels that webhooks are told of",
                if tells(webhook::CHANNELS) { connections.saturating_mul(limits.subscriptions_max as u64) } else { 0 },
                (2 * (in_table(known::ENTRY_BYTES) + NAME_BYTES_MAX)) as u64,
            ),
            term(
                "connections that webhooks are told of",
                if tells(webhook::CONNECTIONS) { connections } else { 0 },
                (2 * (in_table(known::ENTRY_BYTES) + SOCKET_ID_BYTES)) as u64,
            ),
            // The body of a batch beside it.
            term("what waits for a webhook", webhooks, (queue::BYTES_MAX + queue::BATCH_BYTES_MAX) as u64),
            // The tape of one message at a time.
            term("a shard's parser of messages", shards, (NODE_BYTES * limits.message_bytes_max) as u64),
        ];

        let publishers = vec![
            term("admin connections", shards * ADMINS_MAX as u64, admin_bytes(config)),
            // The tape of one line at a time.
            term("a shard's parser of lines", shards, (NODE_BYTES * limits.admin_line_bytes_max) as u64),
            term(
                "a shard's events that wait to be kept, or are held back",
                shards,
                (reports::HEAP_BYTES_MAX + directory::VACANCIES_BYTES_MAX) as u64,
            ),
            term("sightings that wait for tails", shards * taps::TAPS_MAX as u64, taps::WAITING_BYTES_MAX as u64),
            term(
                "HTTP requests",
                http * serving::CONNECTIONS_MAX as u64,
                (serving::HEAD_BYTES_MAX + HTTP_BODY_FOLD * body::BYTES_MAX) as u64,
            ),
            term(
                "lists of channels on their way over HTTP",
                http * walk::LISTINGS_MAX as u64,
                (GROWTH * walk::CHANNELS_MAX * LISTED_BYTES) as u64,
            ),
            // Lines that wait, and those that are being written. A listing that is gathered, one at a time.
            term(
                "HTTP's way to the shards",
                http,
                (2 * GROWTH * pipe::BYTES_MAX + GROWTH * walk::CHANNELS_MAX * LISTED_BYTES) as u64,
            ),
        ];
        Capacity {
            shards,
            connections,
            configured: Some(connections),
            bound: None,
            descriptors,
            quiet,
            clients,
            publishers,
        }
    }

    /// Bytes that strangers can take: everybody connected, and each at every limit.
    fn worst(&self) -> u64 {
        sum(&self.quiet).saturating_add(sum(&self.clients))
    }

    /// What the machine cannot hold, each with its remedy.
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
            let (quiet, worst) = (sum(&self.quiet), self.worst());
            let (needed, when, holds) = if quiet > memory.bytes {
                (quiet, "with everybody connected and quiet", quiet_in(config, memory.bytes))
            } else if worst > memory.bytes && self.configured.is_some() {
                (worst, "with every client at every limit at once", worst_in(config, memory.bytes))
            } else {
                (0, "", 0)
            };
            if needed > 0 {
                warnings.push(format!(
                    "memory: {when} it is {}, and {} has {}; that is enough for {holds} such connections. Lower max-connections \
                     to that, or outbox-limit, max-message and max-subscriptions, or add memory",
                    bytes(needed),
                    memory.whose,
                    bytes(memory.bytes),
                ));
            }
        }
        if let Some(tracked) = machine.tracked_max.filter(|&tracked| tracked < connections) {
            warnings.push(format!(
                "the firewall tracks at most {tracked} connections, fewer than {connections}: raise it (sysctl -w \
                 net.netfilter.nf_conntrack_max={}), or do not track the port",
                connections.next_power_of_two()
            ));
        }
        if let Some(backlog) = machine.backlog_max.filter(|&backlog| backlog < BACKLOG_MIN.min(connections)) {
            warnings.push(format!(
                "only {backlog} connections can wait to be accepted, so a crowd that comes back at once is turned away: raise it \
                 (sysctl -w net.core.somaxconn={BACKLOG_MIN})"
            ));
        }
        warnings
    }

    /// How many can connect, and why no more.
    fn title(&self) -> String {
        let plural = if self.shards == 1 { "" } else { "s" };
        let title = format!("{} shard{plural}, at most {} client connections", self.shards, self.connections);
        match (self.configured, self.bound) {
            (Some(configured), Some(bound)) => format!("{title} (of {configured} configured: {bound})"),
            (None, Some(bound)) => format!("{title} (max-connections is auto: {bound})"),
            (_, None) => title,
        }
    }

    /// The sums for the log, a line each: every kind that costs anything.
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
            memory("memory with everybody connected and quiet", &self.quiet),
            memory("what clients can add, all at once", &self.clients),
            memory("what publishers and operators can add", &self.publishers),
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
        table("memory with everybody connected and quiet", &self.quiet, bytes)?;
        table("what clients can add, all at once", &self.clients, bytes)?;
        table("what publishers and operators can add", &self.publishers, bytes)?;
        write!(f, "memory that strangers can take: {}", bytes(self.worst()))
    }
}

/// Too few descriptors for a single connection.
pub fn no_room(descriptors: u64) -> String {
    format!(
        "{descriptors} descriptors leave none for connections; raise the hard limit (LimitNOFILE= in the service's unit, or ulimit -Hn)"
    )
}

/// Descriptors that are left for client connections.
pub fn room(config: &Config, descriptors: u64) -> u64 {
    let http = if config.http.is_some() { serving::CONNECTIONS_MAX as u64 } else { 0 };
    let webhooks = webhook::DESCRIPTORS_EACH * config.live.webhooks.urls.len() as u64;
    let shards = DESCRIPTORS_PER_SHARD * config.shards as u64;
    descriptors.saturating_sub(DESCRIPTORS_SPARE + control::DESCRIPTORS_SPARE + http + webhooks + shards)
}

/// Connections that so many bytes hold while they are quiet.
fn quiet_in(config: &Config, bytes: u64) -> u64 {
    largest(config.live.limits.connections_max as u64, |count| {
        sum(&Capacity::of_connections(config, count).quiet) <= bytes
    })
}

/// Connections that so many bytes hold whatever they do.
fn worst_in(config: &Config, bytes: u64) -> u64 {
    largest(config.live.limits.connections_max as u64, |count| Capacity::of_connections(config, count).worst() <= bytes)
}

fn sum(terms: &[Term]) -> u64 {
    terms.iter().fold(0, |sum, term| sum.saturating_add(term.total()))
}

/// The largest number up to `max` that holds, where every smaller one does.
fn largest(max: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, max);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if holds(middle) { low = middle } else { high = middle - 1 }
    }
    low
}

/// Bytes of an entry in a hash table: at least half of what holds at most 7/8, and a byte of control.
const fn in_table(entry: usize) -> usize {
    (entry + 1) * GROWTH * 8 / 7
}

/// One more subscription: in its connection's list and the channel's, and, at worst, a channel that nobody else is in: this
/// shard's entry, the owner's, and the name that they share where they are one, which takes a copy each where they are not.
const SUBSCRIPTION_BYTES: u64 = (GROWTH * (size_of::<Subscription>() + size_of::<Subscriber>())
    + GROWTH * (size_of::<Audience>() + directory::ENTRY_BYTES)
    + 2 * in_table(size_of::<u32>())
    + NAME_BYTES_MAX
    + COUNTED_BYTES) as u64;

/// What may wait, and a turn's worth that is laid before the limit is looked at; and the pages that keep it.
fn outbox_bytes(config: &Config) -> u64 {
    let limits = &config.live.limits;
    let waiting = limits.outbox_bytes_max + turn_bytes(limits.outbox_bytes_max);
    let echoed = config.live.access.echo_path.as_ref().map_or(0, |_| echo::waiting_bytes_max(limits));
    (PINNED_FOLD * waiting.max(echoed)) as u64
}

/// Messages of one turn to one connection: the budget, and the message that goes beyond it.
fn turn_bytes(outbox_bytes_max: usize) -> usize {
    PublishBudget::new(outbox_bytes_max).laid_bytes_max + api::publish::DATA_BYTES_MAX + api::publish::EVENT_BYTES_MAX
}

/// Replies that wait, and, behind a `subscribed` that does, its channel's messages, which have the outbox's limit.
fn replies_bytes(outbox_bytes_max: usize) -> u64 {
    (GROWTH
        * (WAITING_REPLIES_MAX * (REPLY_BYTES + NAME_BYTES_MAX + READ_BYTES / WAITING_REPLIES_MAX) + outbox_bytes_max))
        as u64
}

/// A message that lacks its last byte, or a request; a connection has not both.
fn inbound_bytes(config: &Config) -> u64 {
    let message = Decoder::PARTIAL_BYTES + GROWTH * config.live.limits.message_bytes_max;
    let request = size_of::<Aside>() + GROWTH * config.live.access.request_bytes_max;
    message.max(request) as u64
}

/// Input up to a line and a read beyond it; replies, of which the last may be as long as the rest; the window of publishes that
/// are not settled, and the one that goes beyond it, to as many channels as its line has room for.
fn admin_bytes(config: &Config) -> u64 {
    use api::publish::{CHANNELS_MAX, DATA_BYTES_MAX};
    let input = config.live.limits.admin_line_bytes_max + READ_BYTES;
    let replies = 2 * session::REPLY_BYTES_MAX + session::WAITING_MAX * WAITING_BYTES;
    let data = DATA_BYTES_MAX.min(config.live.limits.admin_line_bytes_max);
    let window = if config.shards > 1 { session::WINDOW_BYTES + CHANNELS_MAX * data } else { 0 };
    (GROWTH * (input + replies) + window) as u64
}

/// What grows by doubling may be half empty, and for the time of a copy there twice.
const GROWTH: usize = 2;
/// Counts and length before a shared name.
const COUNTED_BYTES: usize = 16;
/// A body as it came, what was read out of it, and the lines that it became.
const HTTP_BODY_FOLD: usize = 3;
/// A UUID, as text.
const SOCKET_ID_BYTES: usize = 36;
/// A channel in a listing.
const LISTED_BYTES: usize = NAME_BYTES_MAX + 56;
/// What Linux keeps of an idle TCP connection and its descriptor: socket, inode, file, entry of epoll. Measured.
const KERNEL_SOCKET_BYTES: u64 = 4096;
/// A shard's two listeners, its poller and its doorbell.
const DESCRIPTORS_PER_SHARD: u64 = 4;
/// Descriptors for admin connections, and what the process needs beside its connections.
const DESCRIPTORS_SPARE: u64 = 64;
/// What Linux allows by itself since 5.4.
const BACKLOG_MIN: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Settings};
    use crate::server::machine::Memory;

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

    /// Where one of these grows, a million connections cost that much more.
    #[test]
    fn terms_follow_the_sizes_of_things() {
        let capacity = Capacity::of(&config(&[]), &MACHINE);
        let connections = find(&capacity.quiet, "connections");
        assert_eq!(connections.count, 1256);
        // 40 of the connection, 33 of its output, 40 of the member, 8 of the wheel, 9 of the address; tables that doubled.
        // mio's sockets know their poll in debug builds.
        let debug = if cfg!(debug_assertions) { 16 } else { 0 };
        assert_eq!(connections.each, 2 * (40 + 33 + debug + 40 + 8 + 9));
        // 12 and 8 in the lists, 64 and 64 for the channel, its 200 bytes of name.
        assert_eq!(find(&capacity.quiet, "a first subscription").each, 2 * (12 + 8 + 64 + 64) + 2 * 11 + 200 + 16);
        assert_eq!(find(&capacity.quiet, "a shard's inbox").each, 4096 * 88);
        // The parser's own: a node of its tape.
        assert_eq!(NODE_BYTES, size_of::<simd_json::Node<'_>>());
    }

    #[test]
    fn terms_follow_the_limits() {
        let outbox = |given: &[(&str, &str)]| find(&Capacity::of(&config(given), &MACHINE).clients, "outboxes").each;
        // A MiB, a turn's quarter of it and a message, all on pages of which half is empty.
        assert_eq!(outbox(&[]), 2 * ((1 << 20) + (1 << 18) + (1 << 18) + 1024));
        assert_eq!(outbox(&[("outbox-limit", "64KiB")]), 2 * ((1 << 16) + (1 << 14) + (1 << 18) + 1024));
        assert_eq!(outbox(&[("echo-path", "/echo"), ("max-message", "16MiB")]), 4 * ((1 << 24) + (1 << 16)));

        let few = Capacity::of(&config(&[("max-subscriptions", "1"), ("http", "off")]), &MACHINE);
        assert_eq!(find(&few.clients, "further subscriptions").total(), 0);
        assert_eq!(find(&few.publishers, "HTTP requests").total(), 0);
        assert_eq!(find(&few.quiet, "TLS").total(), 0);
        assert_eq!(find(&few.clients, "channels that webhooks").total(), 0);
        let hook = [("webhook", "http://a/"), ("webhook-events", "connected"), ("key", "a:1")];
        let told = Capacity::of(&config(&hook), &MACHINE);
        assert_eq!(find(&told.clients, "channels that webhooks").total(), 0);
        assert_eq!(find(&told.clients, "connections that webhooks").count, told.connections);
        assert_eq!(find(&told.clients, "what waits for a webhook").count, 1);
        assert_eq!(find(&few.quiet, "addresses that came lately").total(), 0);
        let hasty = Capacity::of(&config(&[("max-upgrades-per-address", "5")]), &MACHINE);
        // What the table of addresses says of itself.
        assert!((3 << 20..=5 << 20).contains(&find(&hasty.quiet, "addresses that came lately").each));
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
    fn what_the_machine_cannot_hold_is_warned_of_with_a_remedy_that_works() {
        let config_of = config;
        let config = config(&[]);
        let warnings = |machine: Machine| Capacity::of(&config, &machine).warnings(&config, &machine);
        let with = |bytes| Machine { memory: Some(Memory { bytes, whose: "the test" }), ..MACHINE };
        assert_eq!(warnings(MACHINE), Vec::<String>::new());
        assert_eq!(warnings(with(64 << 30)), Vec::<String>::new());
        let check = |machine, expected: &str| match &warnings(machine)[..] {
            [warning] if warning.contains(expected) => {}
            other => panic!("{expected}: {other:?}"),
        };
        check(with(1 << 30), "every client at every limit");
        check(with(10 << 20), "everybody connected and quiet");
        check(with(0), "enough for 0 such connections");
        check(Machine { descriptors: 1000, ..MACHINE }, "raise the hard limit to 1338");
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
    fn auto_is_what_the_machine_holds_and_no_reason_to_warn() {
        let config = config(&[("max-connections", "auto")]);
        let check = |machine: Machine, expected: u64, why: &str| {
            let capacity = Capacity::of(&config, &machine);
            assert_eq!(capacity.connections, expected, "{}", capacity.title());
            assert_eq!(capacity.warnings(&config, &machine), Vec::<String>::new());
            assert!(capacity.title().contains(why), "{}", capacity.title());
        };
        let with = |bytes| Machine { memory: Some(Memory { bytes, whose: "the test" }), ..MACHINE };
        check(MACHINE, 1_000_000, "name a number for more");
        check(with(64 << 30), 1_000_000, "name a number for more");
        check(Machine { descriptors: 1024, ..with(1 << 30) }, 686, "descriptors allow no more");
        check(Machine { tracked_max: Some(262_144), ..MACHINE }, 262_144, "the firewall tracks no more");
        let held = quiet_in(&config, 1 << 30);
        check(with(1 << 30), held, "memory holds no more");
        let quiet = |count| sum(&Capacity::of_connections(&config, count).quiet);
        assert!(quiet(held) <= 1 << 30 && quiet(held + 1) > 1 << 30);
        // Where there is room for nobody, somebody is let in, and it is said.
        let nothing = Capacity::of(&config, &with(0));
        assert_eq!(nothing.connections, 1);
        assert!(nothing.warnings(&config, &with(0))[0].contains("everybody connected and quiet"));
    }

    #[test]
    fn the_table_and_the_lines_say_the_same() {
        let capacity = Capacity::of(&config(&[]), &MACHINE);
        let (table, lines) = (capacity.to_string(), capacity.lines().join("\n"));
        let terms = [&capacity.quiet, &capacity.clients, &capacity.publishers];
        for term in terms.into_iter().flatten().filter(|term| term.count > 0) {
            assert!(table.contains(term.kind) && lines.contains(term.kind), "{}", term.kind);
            assert!(table.contains(&bytes(term.total())) && lines.contains(&bytes(term.total())), "{}", term.kind);
        }
        assert!(!table.contains("TLS"), "what is off is not in it");
    }
}
