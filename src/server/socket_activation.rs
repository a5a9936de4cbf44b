//! Socket activation (sd_listen_fds(3)): listening sockets that a service manager has opened. It keeps them open while the server
//! restarts, so connections wait in their backlog instead of being refused.

use crate::config::Config;
use anyhow::{Context, bail, ensure};
use listenfd::ListenFd;
use socket2::SockRef;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::{env, fs};

/// The sockets that were passed, by what they serve.
#[derive(Default)]
pub struct PassedSockets {
    /// For WebSocket clients: none, one for all shards, or one for each shard.
    pub clients: Vec<TcpListener>,
    /// For HTTP.
    pub http: Option<TcpListener>,
    /// For the admin socket.
    pub admin: Option<UnixListener>,
}

impl PassedSockets {
    /// Takes the sockets that the service manager has passed to this process. Called once: it removes the environment variables.
    ///
    /// # Errors
    /// A socket belongs to none of the options, or does not fit its option.
    pub fn take(config: &Config) -> anyhow::Result<PassedSockets> {
        let mut passed = PassedSockets::default();
        let sockets = received()?;
        let count = sockets.len();
        for socket in sockets {
            let label = socket.label();
            passed.add(socket, config).context(label).context("a socket of the service manager cannot be used")?;
        }
        check_shards(&passed.clients, config.shards)?;
        if count > 0 {
            passed.log(config);
        }
        Ok(passed)
    }

    fn add(&mut self, socket: Socket, config: &Config) -> anyhow::Result<()> {
        let purpose = purpose(&socket.name, &socket.address, config)?;
        match (purpose, socket.listener) {
            (Purpose::Clients, Listener::Tcp(listener)) => self.clients.push(listener),
            (Purpose::Http, Listener::Tcp(listener)) => {
                ensure!(config.http.is_some(), "it is for HTTP, and --http is off");
                ensure!(self.http.replace(listener).is_none(), "it is the second one for HTTP; pass one");
            }
            (Purpose::Admin, Listener::Unix(listener)) => {
                warn_if_open_to_all(&socket.address);
                ensure!(self.admin.replace(listener).is_none(), "it is the second one for the admin socket; pass one");
            }
            (Purpose::Admin, _) => bail!("the admin socket is a Unix socket: ListenStream= must be a path"),
            (_, Listener::Unix(_)) => bail!("ListenStream= must be an address and a port"),
        }
        Ok(())
    }

    /// Logs which options use a passed socket, and warns of those whose value differs from it.
    fn log(&self, config: &Config) {
        let address = |listener: &TcpListener| listener.local_addr().map(|address| address.to_string()).ok();
        let path = |path: PathBuf| path.display().to_string();
        let http = config.http.map(|http| http.address.to_string());
        for (option, passed, configured, makes) in [
            ("listen", self.clients.first().and_then(address), Some(config.listen.to_string()), "opens"),
            ("http", self.http.as_ref().and_then(address), http, "opens"),
            (
                "admin-socket",
                self.admin.as_ref().and_then(path_of).map(path),
                Some(path(config.admin_socket.clone())),
                "creates",
            ),
        ] {
            let Some(configured) = configured else { continue };
            match passed {
                Some(passed) if passed == configured => {
                    tracing::info!("--{option}: the service manager's socket {passed}");
                }
                Some(passed) => tracing::warn!(
                    "--{option} {configured} is not used: the service manager's socket for it is {passed}"
                ),
                None => tracing::info!("--{option}: no socket was passed; the server {makes} {configured} itself"),
            }
        }
    }
}

/// What a socket serves.
#[derive(Debug, PartialEq, Eq)]
enum Purpose {
    Clients,
    Http,
    Admin,
}

/// A socket that was passed.
struct Socket {
    /// Its name: `FileDescriptorName=` of its unit.
    name: String,
    listener: Listener,
    address: Address,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Where a socket listens.
#[derive(Debug)]
enum Address {
    Tcp(SocketAddr),
    /// `None`: the socket has no path.
    Unix(Option<PathBuf>),
}

impl Socket {
    /// The socket in error texts.
    fn label(&self) -> String {
        match &self.address {
            Address::Tcp(address) => format!("{:?} at {address}", self.name),
            Address::Unix(Some(path)) => format!("{:?} at {}", self.name, path.display()),
            Address::Unix(None) => format!("{:?} without a path", self.name),
        }
    }
}

/// What a socket serves, by its name, or else by its address.
fn purpose(name: &str, address: &Address, config: &Config) -> anyhow::Result<Purpose> {
    Ok(match (name, address) {
        ("clients", _) => Purpose::Clients,
        ("http", _) => Purpose::Http,
        ("admin", _) => Purpose::Admin,
        (_, Address::Tcp(address)) if *address == config.listen => Purpose::Clients,
        (_, Address::Tcp(address)) if config.http.is_some_and(|http| http.address == *address) => Purpose::Http,
        (_, Address::Unix(Some(path))) if *path == config.admin_socket => Purpose::Admin,
        _ => bail!(
            "no option has this address; set FileDescriptorName= in its unit to clients, http or admin, or set --listen, --http or \
             --admin-socket to it"
        ),
    })
}

/// Checks that one socket serves all shards, or that each shard has its own, all with the same address.
fn check_shards(clients: &[TcpListener], shards: usize) -> anyhow::Result<()> {
    ensure!(
        clients.len() <= 1 || clients.len() == shards,
        "the service manager passed {} sockets for clients, and the server has {shards} shards; pass one, or one for each shard",
        clients.len()
    );
    let addresses = clients.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
    if let Some(other) = addresses.iter().find(|address| **address != addresses[0]) {
        bail!(
            "the service manager passed sockets for clients at {} and {other}; all must have one address: ListenStream=PORT accepts IPv4 \
             and IPv6",
            addresses[0]
        );
    }
    Ok(())
}

/// Warns of a mode that lets every user of the machine publish. It is systemd's default.
fn warn_if_open_to_all(address: &Address) {
    let Address::Unix(Some(path)) = address else { return };
    if fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o002 != 0) {
        tracing::warn!(
            "every user of this machine may use the admin socket {}; set SocketMode=0600 and SocketUser= in its unit",
            path.display()
        );
    }
}

/// The sockets that were passed to this process. All of them listen.
fn received() -> anyhow::Result<Vec<Socket>> {
    let Ok(pid) = env::var("LISTEN_PID") else { return Ok(Vec::new()) };
    if pid != std::process::id().to_string() {
        tracing::warn!(
            "LISTEN_PID is {pid}, but this process is {}: the sockets are for another process; a script must start corecast with exec",
            std::process::id()
        );
        return Ok(Vec::new());
    }
    // The library takes another value for no sockets.
    let count = env::var("LISTEN_FDS").unwrap_or_default();
    let is_count = count.is_empty() || count.parse::<u16>().is_ok();
    ensure!(is_count, "LISTEN_FDS is {count:?}, and not the number of sockets that are passed");
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    (0..passed.len()).map(|index| receive(&mut passed, index, names.next().unwrap_or_default())).collect()
}

fn receive(passed: &mut ListenFd, index: usize, name: &str) -> anyhow::Result<Socket> {
    let is_kind = "ListenStream= is the only kind of socket that corecast takes";
    let what = || format!("the service manager passed {name:?} as descriptor {}: {is_kind}", FIRST_DESCRIPTOR + index);
    let (listener, address) = match passed.take_tcp_listener(index) {
        Ok(Some(listener)) => {
            let address = listener.local_addr().with_context(what)?;
            prepare(SockRef::from(&listener)).with_context(what)?;
            (Listener::Tcp(listener), Address::Tcp(address))
        }
        _ => {
            let listener = passed.take_unix_listener(index).with_context(what)?.with_context(what)?;
            prepare(SockRef::from(&listener)).with_context(what)?;
            let address = Address::Unix(path_of(&listener));
            (Listener::Unix(listener), address)
        }
    };
    Ok(Socket { name: name.into(), listener, address })
}

/// Checks that a socket listens, and makes it non-blocking.
fn prepare(socket: SockRef<'_>) -> anyhow::Result<()> {
    ensure!(socket.is_listener()?, "it does not listen; Accept= must be off");
    Ok(socket.set_nonblocking(true)?)
}

pub(super) fn path_of(listener: &UnixListener) -> Option<PathBuf> {
    Some(listener.local_addr().ok()?.as_pathname()?.to_owned())
}

/// The first descriptor that is passed.
const FIRST_DESCRIPTOR: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Settings};

    #[test]
    fn a_socket_is_known_by_its_name_or_else_by_its_address() {
        let flags = [("listen", "0.0.0.0:9000"), ("http", "127.0.0.1:9001"), ("admin-socket", "/run/x.sock")];
        let flags = Flags::from(flags.map(|(name, value)| (name.to_owned(), vec![value.to_owned()])));
        let config = Settings::gather(&flags, |_| None).and_then(|settings| settings.validate()).expect("valid");
        let tcp = |address: &str| Address::Tcp(address.parse().expect("an address"));
        let unix = |path: &str| Address::Unix(Some(path.into()));
        let check = |name, address, expected| assert_eq!(purpose(name, &address, &config).ok(), expected, "{name}");
        check("clients", tcp("[::]:80"), Some(Purpose::Clients));
        check("http", tcp("0.0.0.0:9000"), Some(Purpose::Http));
        check("admin", unix("/run/y.sock"), Some(Purpose::Admin));
        check("corecast.socket", tcp("0.0.0.0:9000"), Some(Purpose::Clients));
        check("corecast.socket", tcp("127.0.0.1:9001"), Some(Purpose::Http));
        check("corecast.socket", unix("/run/x.sock"), Some(Purpose::Admin));
        check("corecast.socket", tcp("127.0.0.1:9000"), None);
        check("corecast.socket", unix("/run/y.sock"), None);
        check("", Address::Unix(None), None);
    }

    #[test]
    fn shards_have_one_socket_together_or_one_each() {
        let listener = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        let one = listener();
        let twice = || [one.try_clone().expect("a descriptor"), one.try_clone().expect("a descriptor")];
        assert!(check_shards(&[], 4).is_ok());
        assert!(check_shards(&[listener()], 4).is_ok());
        assert!(check_shards(&twice(), 2).is_ok());
        let said = |clients: &[TcpListener], shards| check_shards(clients, shards).expect_err("refused").to_string();
        assert!(said(&twice(), 4).contains("2 sockets for clients, and the server has 4 shards"));
        assert!(said(&[listener(), listener()], 2).contains("all must have one address"));
    }
}
