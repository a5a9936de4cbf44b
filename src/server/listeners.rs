//! The listeners: WebSocket, HTTP and the admin socket.

use super::socket_activation::{PassedSockets, path_of};
use crate::config::{Config, HttpListener};
use crate::shard::listener::Origin;
use anyhow::{Context, bail};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// All listeners of a server.
pub struct Listeners {
    /// For WebSocket clients: one for each shard.
    pub clients: Vec<TcpListener>,
    /// Where these come from.
    pub origin: Origin,
    /// Where these listen.
    pub address: SocketAddr,
    /// For HTTP, and its address; `None`: HTTP is not served.
    pub http: Option<(TcpListener, SocketAddr)>,
    /// The admin socket.
    pub admin: AdminSocket,
}

impl Listeners {
    /// Takes those that the service manager passes, and opens the others.
    pub fn open(config: &Config) -> anyhow::Result<Listeners> {
        let passed = PassedSockets::take(config)?;
        let http = match passed.http {
            Some(listener) => Some(listener.local_addr().map(|address| (listener, address))?),
            None => config.http.map(listen_http).transpose()?.flatten(),
        };
        let is_shared = passed.clients.len() < config.shards;
        let (clients, address, origin) = match passed.clients.first().map(TcpListener::local_addr) {
            Some(address) => (for_shards(passed.clients, config.shards)?, address?, Origin::Passed { is_shared }),
            None => listen(config.listen, config.shards).map(|(clients, address)| (clients, address, Origin::Own))?,
        };
        let admin = match passed.admin {
            Some(listener) => AdminSocket { listener, file: None },
            None => AdminSocket::bind(&config.admin_socket)?,
        };
        Ok(Listeners { clients, origin, address, http, admin })
    }
}

/// A descriptor for each shard of sockets that were passed: each its own socket, or all the same one.
fn for_shards(mut clients: Vec<TcpListener>, shards: usize) -> io::Result<Vec<TcpListener>> {
    while clients.len() < shards {
        clients.push(clients[0].try_clone()?);
    }
    // As the server does for sockets that it opens.
    for listener in &clients {
        SockRef::from(listener).set_tcp_nodelay(true)?;
        SockRef::from(listener).listen(BACKLOG)?;
    }
    Ok(clients)
}

/// One listener per shard on the same address. With SO_REUSEPORT a second server could share the address unnoticed, so the
/// address is first bound without it.
fn listen(mut address: SocketAddr, shards: usize) -> anyhow::Result<(Vec<TcpListener>, SocketAddr)> {
    let wanted = address;
    let not_had = |error| not_had(error, wanted, format!("cannot listen on {wanted}; --listen chooses another"));
    // A port that the system chooses is free.
    if address.port() != 0 {
        let probe = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Allows the address while connections of an earlier server are in TIME_WAIT, but not a second listener.
        probe.set_reuse_address(true)?;
        probe.bind(&address.into()).map_err(not_had)?;
        // Only a socket that listens reserves the address.
        probe.listen(1).map_err(not_had)?;
    }

    let mut listeners = Vec::new();
    for _ in 0..shards {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        // Accepted sockets inherit it, which saves a system call per connection.
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::from(address)).map_err(not_had)?;
        // The system chooses a port for the first one only.
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
        ErrorKind::AddrNotAvailable => "this machine has no such address; 0.0.0.0 and [::] mean all of its addresses",
        ErrorKind::PermissionDenied => "ports below 1024 need the capability CAP_NET_BIND_SERVICE",
        _ => return anyhow::Error::new(error).context(what),
    };
    anyhow::Error::new(error).context(meaning).context(what)
}

/// The HTTP listener, and its address. If the default address is in use, the server starts without HTTP.
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
            tracing::warn!(%error, "no HTTP: {address} is not available; --http ADDR:PORT chooses another address, --http off disables HTTP");
            Ok(None)
        }
        Err(error) => {
            let what =
                format!("cannot serve HTTP on {address}; --http chooses another address, --http off disables HTTP");
            Err(not_had(error, address, what))
        }
    }
}

/// The listener of the admin socket. On drop its file is removed, if this server created it.
pub struct AdminSocket {
    /// The listener.
    pub listener: UnixListener,
    /// The file that this server created, and its inode.
    file: Option<(PathBuf, u64)>,
}

impl AdminSocket {
    /// Its path. `None`: the service manager has passed a socket without one.
    pub fn path(&self) -> Option<PathBuf> {
        path_of(&self.listener)
    }

    /// Binds it, in place of one that a server has left behind.
    fn bind(path: &Path) -> anyhow::Result<AdminSocket> {
        let at = path.display();
        let connected = UnixStream::connect(path).map_err(|error| error.kind());
        match std::fs::symlink_metadata(path).map(|metadata| metadata.file_type().is_socket()) {
            _ if connected.is_ok() => {
                bail!("another server answers on the admin socket {at}; stop it, or choose another with --admin-socket")
            }
            Ok(false) => {
                bail!(
                    "the admin socket {at} is a file that is not a socket; remove it, or choose another with --admin-socket"
                )
            }
            Ok(true) if connected.is_err_and(|kind| kind == ErrorKind::ConnectionRefused) => {
                tracing::info!(path = %at, "replacing the admin socket of a server that has ended");
                std::fs::remove_file(path).with_context(|| format!("cannot remove {at}"))?;
            }
            Ok(true) => bail!("the admin socket {at} belongs to another user; choose another with --admin-socket"),
            Err(_) => {}
        }
        let bind = || {
            format!(
                "cannot create the admin socket {at}; --admin-socket chooses another, in a directory that this user can write to"
            )
        };
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // On Linux the file gets the mode of the socket, so other users cannot open it at any moment.
        rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).with_context(bind)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?).with_context(bind)?;
        socket.listen(BACKLOG).with_context(bind)?;
        let inode = std::fs::metadata(path).with_context(bind)?.ino();
        Ok(AdminSocket { listener: std::os::fd::OwnedFd::from(socket).into(), file: Some((path.into(), inode)) })
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let Some((path, inode)) = &self.file else { return };
        // Unless another server has replaced it.
        if std::fs::metadata(path).is_ok_and(|metadata| metadata.ino() == *inode) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Connections that may wait to be accepted: as many as the kernel allows (`net.core.somaxconn`). A client that connects
/// while the backlog is full retries after a second.
const BACKLOG: i32 = 65_535;

#[cfg(test)]
mod tests {
    use super::*;
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
