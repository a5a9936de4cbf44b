//! The transport of a test client: plain TCP, or TLS if the server at that address uses it. Test scripts are the same
//! for both.

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::cell::Cell;
use std::collections::HashSet;
use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Runs a script in which all servers, and therefore their clients, use TLS.
pub fn over_tls(script: impl FnOnce()) {
    IS_OVER_TLS.set(true);
    script();
    IS_OVER_TLS.set(false);
}

thread_local! {
    // Set for the test's own thread, which starts the servers. Its clients may run in any thread.
    static IS_OVER_TLS: Cell<bool> = const { Cell::new(false) };
}

/// Whether servers that start from now on use TLS.
pub fn is_over_tls() -> bool {
    IS_OVER_TLS.get()
}

/// Makes clients of this address use TLS.
pub fn speaks_tls(address: SocketAddr) {
    secure_addresses().lock().expect("no panic while it was held").insert(address);
}

/// Makes clients of this address use plain TCP again: another server may get the address.
pub fn speaks_no_more(address: SocketAddr) {
    secure_addresses().lock().expect("no panic while it was held").remove(&address);
}

fn secure_addresses() -> &'static Mutex<HashSet<SocketAddr>> {
    static ADDRESSES: OnceLock<Mutex<HashSet<SocketAddr>>> = OnceLock::new();
    ADDRESSES.get_or_init(Mutex::default)
}

/// A certificate for this machine and its key, as files in a directory.
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// The certificate in DER, as sent to clients.
    pub der: CertificateDer<'static>,
}

impl Pair {
    /// A new pair, signed by an authority that clients with [`client_config`] trust.
    pub fn make(dir: &Path) -> Pair {
        Pair::expiring(dir, Duration::from_secs(90 * 24 * 3600))
    }

    /// A pair that is valid for `valid` from now on.
    pub fn expiring(dir: &Path, valid: Duration) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set");
        params.not_after = date_time_ymd(1970, 1, 1) + now + valid;
        let certificate = params.signed_by(&key, authority()).expect("signed");
        let pair = Pair { cert: dir.join("cert.pem"), key: dir.join("key.pem"), der: certificate.der().clone() };
        std::fs::write(&pair.cert, certificate.pem()).expect("written");
        std::fs::write(&pair.key, key.serialize_pem()).expect("written");
        // The server warns of secrets that others can read.
        std::fs::set_permissions(&pair.key, std::fs::Permissions::from_mode(0o600)).expect("set");
        pair
    }
}

/// The certificate authority of this test run.
pub fn authority() -> &'static CertifiedIssuer<'static, KeyPair> {
    static AUTHORITY: OnceLock<CertifiedIssuer<'static, KeyPair>> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed")
    })
}

/// A client's configuration, with its own session tickets.
pub fn client_config(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority().der().clone()).expect("an authority");
    let builder = ClientConfig::builder_with_provider(ring::default_provider().into());
    let builder = builder.with_protocol_versions(versions).expect("versions");
    builder.with_root_certificates(roots).with_no_client_auth()
}

fn shared_client_config() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    CONFIG.get_or_init(|| client_config(rustls::ALL_VERSIONS).into()).clone()
}

/// The client's end of a connection.
pub enum Transport {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Transport {
    /// The transport that the server at the other end uses; nothing is sent yet.
    pub fn over(stream: TcpStream) -> Transport {
        let address = stream.peer_addr().expect("a connected socket");
        match secure_addresses().lock().expect("no panic while it was held").contains(&address) {
            true => Transport::tls(stream, shared_client_config()),
            false => Transport::Plain(stream),
        }
    }

    /// TLS with this configuration, even if the server does not use it.
    pub fn tls(stream: TcpStream, config: Arc<ClientConfig>) -> Transport {
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(config, name).expect("a configuration");
        Transport::Tls(Box::new(StreamOwned::new(session, stream)))
    }

    /// The TCP socket.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Transport::Plain(socket) => socket,
            Transport::Tls(tls) => &tls.sock,
        }
    }

    /// The TCP socket, without TLS.
    pub fn into_socket(self) -> TcpStream {
        match self {
            Transport::Plain(socket) => socket,
            Transport::Tls(tls) => tls.sock,
        }
    }

    /// Ends the sending direction; the other direction stays open. Does nothing if the server has reset the connection.
    pub fn finish_writing(&mut self) {
        if let Transport::Tls(tls) = self {
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
        let _ = self.socket().shutdown(Shutdown::Write);
    }
}

impl Read for Transport {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        loop {
            let read = match self {
                Transport::Plain(socket) => socket.read(bytes),
                Transport::Tls(tls) => tls.read(bytes),
            };
            // A read with a timeout is interrupted when the process stops and continues (signal(7)).
            if !matches!(&read, Err(error) if error.kind() == ErrorKind::Interrupted) {
                return read;
            }
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Transport::Plain(socket) => socket.write(bytes),
            Transport::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Transport::Plain(socket) => socket.flush(),
            Transport::Tls(tls) => tls.flush(),
        }
    }
}
