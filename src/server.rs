//! Assembly: limits, listeners, mesh, shards on their cores, signals, and the end.

mod apportion;
pub mod capacity;
pub mod log;
pub mod machine;
pub mod signals;
mod supervisor;
mod systemd;

use crate::config::{Config, HttpListener, Invalid, Live, Pin};
use crate::control as http;
use crate::ids::{SHARDS_MAX, ShardId};
use crate::shard::doorbell::Doorbell;
use crate::shard::mesh;
use crate::shard::orders::Order;
use crate::shard::{DOORBELL, Parts, Shard, Shared};
use anyhow::{Context, bail, ensure};
use capacity::Capacity;
use crossbeam_channel::{Sender, bounded, unbounded};
use log::Log;
use machine::Machine;
use mio::{Poll, Waker};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, getrlimit, setrlimit};
use signals::Calls;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::RawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime};
use supervisor::{Course, Reloads, Supervisor};

/// Reads the configuration again, from where it was read at the start.
pub type Reread = Arc<dyn Fn() -> Result<Config, Invalid> + Send + Sync>;

/// Serves until a signal says stop, then until everything acknowledged is written or the deadline has come. `calls` comes
/// from [`signals::catch`].
///
/// # Errors
/// What kept the server from starting (an address in use, an admin socket that another server answers on), or a shard from
/// turning.
pub fn run(config: Config, reread: Reread, log: Log, calls: Calls) -> anyhow::Result<()> {
    ensure!((1..=SHARDS_MAX).contains(&config.shards), "shards: {} is not in 1..={SHARDS_MAX}", config.shards);
    abort_on_panic();
    let descriptors = raise_descriptors();
    let room = capacity::room(&config, descriptors);
    ensure!(room > 0, capacity::no_room(descriptors));
    let machine = Machine { descriptors, ..Machine::look() };
    let live = fit(&config, &machine);
    reserve_descriptors(&config, &machine, &live);
    let http = config.http.map(listen_http).transpose()?.flatten();
    let (listeners, address) = listen(config.listen, config.shards)?;
    let admin = AdminSocket::bind(&config.admin_socket)?;
    let mut seed = [0; 4];
    for word in &mut seed {
        *word = getrandom::u64().map_err(|error| anyhow::anyhow!("no randomness from the system: {error}"))?;
    }

    let polls = (0..config.shards).map(|_| Poll::new()).collect::<Result<Vec<_>, _>>()?;
    let doorbell = |poll: &Poll| Waker::new(poll.registry(), DOORBELL).map(|waker| Doorbell::new(waker, config.shards));
    let doorbells: Arc<[Doorbell]> = polls.iter().map(doorbell).collect::<Result<Vec<_>, _>>()?.into();
    let shared = Arc::new(Shared {
        doorbells,
        is_stopping: AtomicBool::new(false),
        accepted: Arc::default(),
        admitted: Arc::default(),
        seed,
        start: Instant::now(),
        calls: calls.sender,
        log_lines_dropped: log.lines_dropped,
    });
    let (inboxes, receivers): (Vec<_>, Vec<_>) = (0..config.shards).map(|_| mesh::inbox()).unzip();

    let mut shards = Vec::new();
    let mut orders = Vec::new();
    for (me, ((poll, listener), inbox)) in polls.into_iter().zip(listeners).zip(receivers).enumerate() {
        let (order, obeyed) = unbounded();
        orders.push(order);
        let parts = Parts {
            me: me as ShardId,
            poll,
            listener: mio::net::TcpListener::from_std(listener),
            admin_listener: mio::net::UnixListener::from_std(admin.listener.try_clone()?),
            inbox,
            inboxes: inboxes.clone().into(),
            orders: obeyed,
            shared: shared.clone(),
        };
        shards.push(Shard::new(parts, live.clone())?);
    }
    drop(inboxes);
    let (listener, http_address) = http.unzip();
    let http = http::Control::start(http::Parts {
        listener,
        sessions: sessions(orders[0].clone(), shared.clone()),
        app_id: config.app_id.clone(),
        listen: address,
        live: live.clone(),
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
    // Started before the server says that it serves, it waits until that is said.
    let (begin, begun) = bounded(1);
    let run = move || begun.recv().map_or((), |()| supervisor.run());
    thread::Builder::new().name("supervisor".into()).spawn(run).context(NO_THREAD)?;
    remote.enter(http::Phase::Serving);
    announce(&config, &machine, &live, address, http_address);
    if let Some(address) = http_address {
        announce_console(&remote, address);
    }
    systemd::tell_ready();
    let _ = begin.send(());

    let mut result = Ok(());
    for (me, thread) in threads.into_iter().enumerate() {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => result = Err(error).with_context(|| format!("shard {me} failed")),
            Err(_) => result = Err(anyhow::anyhow!("shard {me} panicked")),
        }
    }
    http.end();
    result
}

/// Admin sessions of the process's own, all with shard 0: they are few.
fn sessions(order: Sender<Order>, shared: Arc<Shared>) -> http::Sessions {
    Box::new(move || {
        let (ours, theirs) = UnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        order
            .send(Order::Adopt(mio::net::UnixStream::from_std(theirs)))
            .map_err(|_| io::Error::other("the shard has stopped"))?;
        shared.doorbells[0].ring()?;
        Ok(ours)
    })
}

/// A panic anywhere ends the process: half a server is worse than none.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}

/// Raises the soft limit of descriptors to the hard one. Returns what it is now.
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

/// Has the kernel make its table of our descriptors as large as it may become. By itself it doubles as they come, and whoever
/// accepts then waits until no core looks at the old one any more: 5 to 25 ms, in the middle of a turn.
fn reserve_descriptors(config: &Config, machine: &Machine, live: &Live) {
    let room = capacity::room(config, machine.descriptors);
    let most = machine.descriptors - room + room.min(live.limits.connections_max as u64);
    // Where it is refused the table grows as it would have.
    let _ = fcntl_dupfd_cloexec(std::io::stderr(), RawFd::try_from(most - 1).unwrap_or(RawFd::MAX));
}

fn announce(config: &Config, machine: &Machine, live: &Live, address: SocketAddr, http: Option<SocketAddr>) {
    tell_costs(config, machine);
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
    // Scripts wait for this line, whatever the log level. A log that cannot be written is no reason not to serve.
    let _ = writeln!(
        std::io::stderr(),
        "corecast {} listening on {address} ({} shard{}, {}, admin socket {}, http {})",
        env!("CARGO_PKG_VERSION"),
        config.shards,
        if config.shards == 1 { "" } else { "s" },
        if live.certificate.is_some() { "wss" } else { "ws" },
        config.admin_socket.display(),
        http.map_or("off".into(), |address| address.to_string()),
    );
}

/// What the limits can cost, and what the machine cannot hold, to the log.
fn tell_costs(config: &Config, machine: &Machine) {
    let capacity = Capacity::of(config, machine);
    capacity.lines().iter().for_each(|line| tracing::info!("{line}"));
    capacity.warnings(config, machine).iter().for_each(|warning| tracing::warn!("{warning}"));
}

fn announce_console(http: &http::Remote, address: SocketAddr) {
    match http.console_closed() {
        Some(why) => tracing::info!("{why}"),
        None => tracing::info!("the console is at http://{address}/console"),
    }
}

/// One listener per shard on the same address. SO_REUSEPORT would let a second server in unseen, so the address is first
/// bound without it.
fn listen(mut address: SocketAddr, shards: usize) -> anyhow::Result<(Vec<TcpListener>, SocketAddr)> {
    let wanted = address;
    let not_had = |error| not_had(error, wanted, format!("cannot listen on {wanted}; --listen chooses another"));
    // A port that the system chooses is nobody else's.
    if address.port() != 0 {
        let probe = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Not a second listener, but connections of an earlier server that linger in TIME_WAIT are no obstacle.
        probe.set_reuse_address(true)?;
        probe.bind(&address.into()).map_err(not_had)?;
        // A bound socket that does not listen does not keep others from it; one that does, does.
        probe.listen(1).map_err(not_had)?;
    }

    let mut listeners = Vec::new();
    for _ in 0..shards {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        // Accepted sockets inherit it: one system call less per connection.
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::from(address)).map_err(not_had)?;
        // The others go where the first one is.
        address = socket.local_addr()?.as_socket().unwrap_or(address);
        socket.listen(BACKLOG).map_err(not_had)?;
        listeners.push(socket.into());
    }
    Ok((listeners, address))
}

/// Why the server cannot listen on an address, with the remedy.
fn not_had(error: io::Error, address: SocketAddr, what: String) -> anyhow::Error {
    let is_link_local = matches!(address, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local());
    let meaning = match error.kind() {
        _ if is_link_local && matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::NODEV)) => {
            "a link-local address needs the number of its interface as its zone, as in [fe80::1%2]:9000; `ip link` shows it"
        }
        ErrorKind::AddrInUse => "something listens there already; `ss -ltnp` shows what",
        ErrorKind::AddrNotAvailable => "this machine has no such address; 0.0.0.0 and [::] stand for all that it has",
        ErrorKind::PermissionDenied => "ports below 1024 need the capability CAP_NET_BIND_SERVICE",
        _ => return anyhow::Error::new(error).context(what),
    };
    anyhow::Error::new(error).context(meaning).context(what)
}

/// The HTTP listener, and its address. Nobody asked for the default one: where it is taken, the server does without.
fn listen_http(wanted: HttpListener) -> anyhow::Result<Option<(TcpListener, SocketAddr)>> {
    let HttpListener { address, is_named } = wanted;
    let listen = || -> std::io::Result<(TcpListener, SocketAddr)> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    match listen() {
        Ok(listening) => Ok(Some(listening)),
        Err(error) if !is_named => {
            tracing::warn!(%error, "no HTTP: {address} cannot be had; --http ADDR:PORT chooses another, --http off none");
            Ok(None)
        }
        Err(error) => {
            let what = format!("cannot speak HTTP on {address}; --http chooses another address, --http off none");
            Err(not_had(error, address, what))
        }
    }
}

/// The admin socket's listener; the file goes with it.
struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl AdminSocket {
    fn bind(path: &Path) -> anyhow::Result<AdminSocket> {
        let at = path.display();
        let connected = UnixStream::connect(path).map_err(|error| error.kind());
        match std::fs::symlink_metadata(path).map(|metadata| metadata.file_type().is_socket()) {
            _ if connected.is_ok() => {
                bail!("another server answers on the admin socket {at}; stop it, or choose another with --admin-socket")
            }
            Ok(false) => {
                bail!(
                    "the admin socket {at} is a file that is no socket; remove it, or choose another with --admin-socket"
                )
            }
            Ok(true) if connected.is_err_and(|kind| kind == ErrorKind::ConnectionRefused) => {
                tracing::info!(path = %at, "replacing the admin socket of a server that is gone");
                std::fs::remove_file(path).with_context(|| format!("cannot remove {at}"))?;
            }
            Ok(true) => bail!("the admin socket {at} is somebody else's; choose another with --admin-socket"),
            Err(_) => {}
        }
        let bind = || {
            format!(
                "cannot create the admin socket {at}; --admin-socket chooses another, in a directory that this user may write to"
            )
        };
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // On Linux a socket file is created with the mode of its socket: there is no moment in which it is wider.
        rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).with_context(bind)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?).with_context(bind)?;
        socket.listen(BACKLOG).with_context(bind)?;
        let inode = std::fs::metadata(path).with_context(bind)?.ino();
        Ok(AdminSocket { listener: std::os::fd::OwnedFd::from(socket).into(), path: path.into(), inode })
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // Unless another server has put its own there.
        if std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Starts a thread for each shard, pinned to its core where the configuration and the machine allow it.
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

/// The settings as the shards hold to them: no more connections than there is room for.
fn fit(config: &Config, machine: &Machine) -> Arc<Live> {
    let mut live = config.live.clone();
    live.limits.connections_max = Capacity::of(config, machine).connections as usize;
    Arc::new(live)
}

/// Why the system may refuse a thread.
pub const NO_THREAD: &str = "cannot start a thread; raise the limit of processes (TasksMax= in the service's unit, --pids-limit of \
                             the container, or ulimit -u)";

/// Connections that may wait to be accepted: as many as the kernel allows (`net.core.somaxconn`). Who comes while that is
/// full comes again a second later.
const BACKLOG: i32 = 65_535;

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::net::TcpStream;

    #[test]
    fn a_link_local_address_without_a_zone_is_explained() {
        let said = |address: &str, errno: Errno| {
            format!("{:#}", not_had(errno.into(), address.parse().expect("an address"), "cannot listen".into()))
        };
        assert!(said("[fe80::1]:9000", Errno::INVAL).contains("[fe80::1%2]:9000"));
        assert!(said("[fe80::1%99]:9000", Errno::NODEV).contains("`ip link` shows it"));
        assert!(!said("[::1]:9000", Errno::INVAL).contains("zone"));
    }

    #[test]
    fn accepted_sockets_do_not_wait_for_more() {
        let (listeners, address) = listen(([127, 0, 0, 1], 0).into(), 1).expect("a free port");
        let _client = TcpStream::connect(address).expect("the listener listens");
        listeners[0].set_nonblocking(false).expect("socket option");
        let (accepted, _) = listeners[0].accept().expect("a connection");
        assert!(SockRef::from(&accepted).tcp_nodelay().expect("socket option"));
    }
}
