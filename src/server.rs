//! Assembles the server: limits, listeners, mesh, shards on their cores, threads, and the shutdown.

mod apportion;
pub mod capacity;
pub mod http_thread;
mod listeners;
pub mod log;
pub mod machine;
pub mod signals;
mod socket_activation;
mod supervisor;
mod systemd;

use crate::admin::link::{self, Opener};
use crate::api::Phase;
use crate::config::{Config, Invalid, Live, Pin};
use crate::hub::placement::Placement;
use crate::ids::{SHARDS_MAX, ShardId};
use crate::shard::doorbell::Doorbell;
use crate::shard::mesh;
use crate::shard::orders::{Call, Order};
use crate::shard::{DOORBELL, Parts, Shard, Shared};
use anyhow::{Context, ensure};
use capacity::Capacity;
use crossbeam_channel::{Sender, bounded, unbounded};
use http_thread::HttpThread;
use listeners::Listeners;
use log::Log;
use machine::Machine;
use mio::{Poll, Waker};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit, setrlimit};
use signals::Calls;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime};
use supervisor::{Course, Reloads, Supervisor};

/// Reads the configuration again, from the sources of the start.
pub type Reread = Arc<dyn Fn() -> Result<Config, Invalid> + Send + Sync>;

/// Serves until a signal stops the server, then until everything acknowledged is written or the deadline has passed.
/// `calls` comes from [`signals::catch`].
///
/// # Errors
/// What keeps the server from starting, such as an address in use, or a shard from running.
pub fn run(config: Config, reread: Reread, log: Log, calls: Calls) -> anyhow::Result<()> {
    ensure!((1..=SHARDS_MAX).contains(&config.shards), "shards: {} is not in 1..={SHARDS_MAX}", config.shards);
    abort_on_panic();
    let descriptors = raise_descriptors();
    let room = capacity::room(&config, descriptors);
    ensure!(room > 0, capacity::no_room(descriptors));
    let machine = Machine { descriptors, ..Machine::look() };
    let live = fit(&config, &machine);
    reserve_descriptors(&config, &machine, &live);
    let mut listeners = Listeners::open(&config)?;
    let (address, http) = (listeners.address, listeners.http.take());
    let polls = (0..config.shards).map(|_| Poll::new()).collect::<Result<Vec<_>, _>>()?;
    let shared = share(&polls, calls.sender, log.lines_dropped)?;
    let (shards, orders) = build(polls, &mut listeners, &shared, &live)?;
    let (listener, http_address) = http.unzip();
    let http = HttpThread::start(http_thread::Parts {
        listener,
        opener: opener(orders.clone(), shared.clone()),
        placement: Placement::new(0, config.shards, shared.seed),
        app_id: config.app_id.clone(),
        listen: address,
        live: live.clone(),
        seed: shared.seed,
    })
    .context(NO_THREAD)?;
    let threads = spawn(shards, &config, &machine)?;
    let remote = http.remote();
    let supervisor = Supervisor {
        shared,
        orders,
        calls: calls.receiver,
        config: config.clone(),
        machine,
        http: remote.clone(),
        reread,
        set_log: log.set_level,
        course: Course::Serving,
        reloads: Reloads::default(),
    };
    // Its thread must exist before the server is announced, and it begins afterwards.
    let (begin, begun) = bounded(1);
    let run = move || begun.recv().map_or((), |()| supervisor.run());
    thread::Builder::new().name("supervisor".into()).spawn(run).context(NO_THREAD)?;
    remote.enter(Phase::Serving);
    announce(&config, &machine, &live, &listeners, http_address);
    if http_address.is_some() {
        announce_console(&remote);
    }
    systemd::tell_ready();
    let _ = begin.send(());

    let result = join(threads);
    http.end();
    result
}

/// What the shards of these polls share.
fn share(
    polls: &[Poll],
    calls: Sender<Call>,
    log_lines_dropped: Box<dyn Fn() -> u64 + Send + Sync>,
) -> anyhow::Result<Arc<Shared>> {
    let mut seed = [0; 4];
    for word in &mut seed {
        *word = getrandom::u64().map_err(|error| anyhow::anyhow!("the system provides no random numbers: {error}"))?;
    }
    let doorbell = |poll: &Poll| Waker::new(poll.registry(), DOORBELL).map(|waker| Doorbell::new(waker, polls.len()));
    Ok(Arc::new(Shared {
        doorbells: polls.iter().map(doorbell).collect::<Result<Vec<_>, _>>()?.into(),
        is_stopping: AtomicBool::new(false),
        accepted: Arc::default(),
        admitted: Arc::default(),
        notices: Arc::default(),
        seed,
        start: Instant::now(),
        calls,
        log_lines_dropped,
    }))
}

/// The shards, and the channel of orders to each.
fn build(
    polls: Vec<Poll>,
    listeners: &mut Listeners,
    shared: &Arc<Shared>,
    live: &Arc<Live>,
) -> anyhow::Result<(Vec<Shard>, Vec<Sender<Order>>)> {
    let (inboxes, receivers): (Vec<_>, Vec<_>) = polls.iter().map(|_| mesh::inbox()).unzip();
    let (mut shards, mut orders) = (Vec::new(), Vec::new());
    let clients = std::mem::take(&mut listeners.clients);
    for (me, ((poll, listener), inbox)) in polls.into_iter().zip(clients).zip(receivers).enumerate() {
        let (order, obeyed) = unbounded();
        orders.push(order);
        let parts = Parts {
            me: me as ShardId,
            poll,
            listener: mio::net::TcpListener::from_std(listener),
            origin: listeners.origin,
            admin_listener: mio::net::UnixListener::from_std(listeners.admin.listener.try_clone()?),
            inbox,
            inboxes: inboxes.clone().into(),
            orders: obeyed,
            shared: shared.clone(),
        };
        shards.push(Shard::new(parts, live.clone())?);
    }
    Ok((shards, orders))
}

/// Waits until all shards have stopped.
fn join(threads: Vec<JoinHandle<io::Result<()>>>) -> anyhow::Result<()> {
    let mut result = Ok(());
    for (me, thread) in threads.into_iter().enumerate() {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => result = Err(error).with_context(|| format!("shard {me} failed")),
            Err(_) => result = Err(anyhow::anyhow!("shard {me} panicked")),
        }
    }
    result
}

/// Opens sessions of this process's own threads with the shards.
fn opener(orders: Vec<Sender<Order>>, shared: Arc<Shared>) -> Opener {
    Arc::new(move |shard, outlet| {
        let ring = shared.clone();
        let bell = move || {
            if let Err(error) = ring.doorbells[usize::from(shard)].ring() {
                tracing::error!(%error, shard, "cannot wake a shard");
            }
        };
        let (link, seat) = link::link(Arc::new(bell), outlet);
        orders.get(usize::from(shard))?.send(Order::Adopt(seat)).ok()?;
        link.ring();
        Some(link)
    })
}

/// A panic in any thread ends the process: a server without one of its threads would not serve correctly.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}

/// Raises the soft limit of descriptors to the hard limit, and returns it.
fn raise_descriptors() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum {
        let wanted = limit.maximum;
        limit.current = wanted;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, ?wanted, "cannot raise the descriptor limit");
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Makes the kernel allocate its table of descriptors for all connections at once. Otherwise the table doubles as
/// connections arrive, and each time an accept waits 5 to 25 ms until no core uses the old table.
fn reserve_descriptors(config: &Config, machine: &Machine, live: &Live) {
    let room = capacity::room(config, machine.descriptors);
    let most = machine.descriptors - room + room.min(live.limits.connections_max as u64);
    // If the kernel refuses, the table grows as usual.
    let _ = fcntl_dupfd_cloexec(std::io::stderr(), RawFd::try_from(most - 1).unwrap_or(RawFd::MAX));
}

fn announce(config: &Config, machine: &Machine, live: &Live, listeners: &Listeners, http: Option<SocketAddr>) {
    log_costs(config, machine);
    if let Some(certificate) = &live.certificate {
        let days_left = certificate.days_left(SystemTime::now());
        tracing::info!(days_left, "TLS with {certificate}");
    }
    live.warnings(SystemTime::now()).iter().for_each(|warning| tracing::warn!("{warning}"));
    if live.keys.is_empty() {
        tracing::info!(
            "no key: private channels are refused; `corecast keygen` makes one, --key ID:SECRET or --key-file adds it"
        );
    }
    if let Some(address) = http {
        tracing::info!(%address, "HTTP: health, metrics, publishing");
    }
    let line = format!(
        "corecast {} listening on {} ({} shard{}, {}, admin socket {}, http {})\n",
        env!("CARGO_PKG_VERSION"),
        listeners.address,
        config.shards,
        if config.shards == 1 { "" } else { "s" },
        if live.certificate.is_some() { "wss" } else { "ws" },
        listeners.admin.path().unwrap_or_else(|| config.admin_socket.clone()).display(),
        http.map_or("off".into(), |address| address.to_string()),
    );
    // Scripts wait for this line at any log level. One write, so that none of them reads a part of it, and no other line comes in
    // between. The server starts even if it cannot be written.
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Logs what the limits can cost, and what the machine cannot hold.
fn log_costs(config: &Config, machine: &Machine) {
    let capacity = Capacity::of(config, machine);
    capacity.lines().iter().for_each(|line| tracing::info!("{line}"));
    capacity.warnings(config, machine).iter().for_each(|warning| tracing::warn!("{warning}"));
}

fn announce_console(http: &http_thread::Remote) {
    match http.console() {
        Ok(url) => tracing::info!("the console is at {url}; `corecast console` prints a link that opens it"),
        Err(why) => tracing::info!("{why}"),
    }
}

/// Starts a thread for each shard, pinned to its core if the configuration and the machine allow it.
fn spawn(shards: Vec<Shard>, config: &Config, machine: &Machine) -> anyhow::Result<Vec<JoinHandle<io::Result<()>>>> {
    let unpinned = machine.unpinned(config.pin);
    let cores = match config.pin {
        Pin::Auto if unpinned.is_none() => core_affinity::get_core_ids().unwrap_or_default(),
        _ => Vec::new(),
    };
    unpinned.iter().for_each(|why| tracing::info!("{why}"));
    let spawn = |(me, shard): (usize, Shard)| {
        let core = (!cores.is_empty()).then(|| cores[me % cores.len()]);
        let run = move || {
            if let Some(core) = core
                && !core_affinity::set_for_current(core)
            {
                tracing::warn!(shard = me, core = core.id, "cannot pin the shard to its core; it runs unpinned");
            }
            shard.run()
        };
        thread::Builder::new().name(format!("shard-{me}")).spawn(run).context(NO_THREAD)
    };
    shards.into_iter().enumerate().map(spawn).collect()
}

/// The settings for the shards: no more connections than the machine holds, and a share of the memory for outboxes.
fn fit(config: &Config, machine: &Machine) -> Arc<Live> {
    let mut live = config.live.clone();
    live.limits.shard_outboxes_bytes_max = capacity::outbox_memory(config, machine) as usize / config.shards;
    live.limits.connections_max = Capacity::of(config, machine).connections as usize;
    Arc::new(live)
}

/// The remedy if the system refuses a thread.
pub const NO_THREAD: &str = "cannot start a thread; raise the limit of processes (TasksMax= in the service's unit, --pids-limit of \
                             the container, or ulimit -u)";
