//! The certificate of the WebSocket listener and its private key: read, checked against each other, and made into the
//! configuration of TLS sessions.

use super::files::Files;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{InconsistentKeys, ServerConfig};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_cert::der::Decode;

/// A certificate chain with its key, ready to serve.
pub struct Certificate {
    /// The configuration of new sessions. All shards share it and its key of session tickets, so a client can resume its
    /// session on any shard.
    pub server: Arc<ServerConfig>,
    /// When the server's own certificate, the first of the chain, expires.
    pub not_after: SystemTime,
    /// The file of the chain.
    pub path: PathBuf,
    /// The file of the key.
    pub key_path: PathBuf,
    chain: Vec<CertificateDer<'static>>,
}

/// Why a certificate and its key cannot be used: which file is at fault, and why.
pub struct Unfit {
    /// Whether it is the file of the key.
    pub is_key: bool,
    /// The reason, with the remedy.
    pub why: String,
}

impl Certificate {
    /// Reads both files. An expired certificate is not an error: see [`Certificate::warning`].
    ///
    /// # Errors
    /// A file that cannot be read or holds something else, or a key of another certificate.
    pub fn load(cert: &Path, key: &Path, files: &Files) -> Result<Certificate, Unfit> {
        let of_cert = |why| Unfit { is_key: false, why };
        let of_key = |why| Unfit { is_key: true, why };
        let chain = read_chain(cert, files).map_err(of_cert)?;
        let not_after = not_after(&chain[0]).ok_or_else(|| {
            of_cert(format!("the first certificate in {} is not an X.509 certificate", cert.display()))
        })?;
        let private = read_key(key, files).map_err(of_key)?;
        let server = serve(chain.clone(), private).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => of_key(format!(
                "the key in {} is not that of the first certificate in {}: they are of different pairs, or the chain does \
                 not begin with the server's own certificate",
                key.display(),
                cert.display()
            )),
            rustls::Error::InvalidCertificate(_) => {
                of_cert(format!("the first certificate in {} cannot be used: {error}", cert.display()))
            }
            _ => of_key(format!("the key in {} cannot be used ({error}); RSA, ECDSA and Ed25519 can", key.display())),
        })?;
        Ok(Certificate { server: Arc::new(server), not_after, path: cert.into(), key_path: key.into(), chain })
    }

    /// Whole days until it expires; negative once it has.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        match self.not_after.duration_since(now) {
            Ok(left) => (left.as_secs() / SECONDS_PER_DAY) as i64,
            Err(past) => -((past.duration().as_secs() / SECONDS_PER_DAY) as i64) - 1,
        }
    }

    /// A warning for operators if it expires soon or has expired.
    pub fn warning(&self, now: SystemTime) -> Option<String> {
        let path = self.path.display();
        match self.days_left(now) {
            days if days < 0 => {
                let ago = in_days(-days - 1);
                Some(format!(
                    "the certificate in {path} expired {ago} ago, and clients refuse it; renew it, then reload"
                ))
            }
            days if days < WARNING_DAYS => {
                Some(format!("the certificate in {path} expires in {}; renew it, then reload", in_days(days)))
            }
            _ => None,
        }
    }

    /// SHA-256 of the server's own certificate in hexadecimal, as `openssl x509 -fingerprint -sha256` shows it.
    pub fn fingerprint(&self) -> String {
        Sha256::digest(&self.chain[0]).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether the chain is the same. (A chain has one key, so the key is the same, too.)
    pub fn is_same(&self, other: &Certificate) -> bool {
        self.chain == other.chain
    }
}

/// Its file and the start of its fingerprint.
impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SHA-256 {:.16}…)", self.path.display(), self.fingerprint())
    }
}

/// Keeps the key out of logs.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({self})")
    }
}

fn serve(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<ServerConfig, rustls::Error> {
    let mut server = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    // With tickets the client keeps the state of resumption: no memory here, and no lock between shards.
    server.ticketer = ring::Ticketer::new()?;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    // Each resumption sends a new one.
    server.send_tls13_tickets = 1;
    Ok(server)
}

fn read_chain(path: &Path, files: &Files) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = files.read(path)?.text.into_bytes();
    let chain = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    match chain.map_err(|error| no_pem(path, &error))? {
        chain if !chain.is_empty() => Ok(chain),
        _ if PrivateKeyDer::from_pem_slice(&bytes).is_ok() => Err(format!(
            "{} holds a private key, not a certificate; give the certificate with tls-cert and its key with tls-key",
            path.display()
        )),
        _ => Err(format!(
            "{} holds no certificate; a PEM file with -----BEGIN CERTIFICATE----- is needed",
            path.display()
        )),
    }
}

fn read_key(path: &Path, files: &Files) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = files.read_secret(path)?.into_bytes();
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound if memchr::memmem::find(&bytes, b"BEGIN ENCRYPTED PRIVATE KEY").is_some() => {
            let path = path.display();
            format!("the key in {path} has a passphrase; remove it with: openssl pkey -in {path}")
        }
        pem::Error::NoItemsFound => {
            format!("{} holds no private key; a PEM file with -----BEGIN PRIVATE KEY----- is needed", path.display())
        }
        error => no_pem(path, &error),
    })
}

fn no_pem(path: &Path, error: &pem::Error) -> String {
    // The file is not quoted, because it may hold a key.
    let what = match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "a section is damaged",
    };
    format!("{} is not a PEM file: {what}", path.display())
}

fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
    Some(UNIX_EPOCH + certificate.tbs_certificate.validity.not_after.to_unix_duration())
}

fn in_days(count: i64) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} day{plural}")
}

/// From this many days before a certificate expires, warnings are logged.
pub const WARNING_DAYS: i64 = 14;
/// How often a running server checks whether a warning is due.
pub const WARNING_INTERVAL: Duration = Duration::from_secs(SECONDS_PER_DAY);
const SECONDS_PER_DAY: u64 = 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_expires_soon_is_warned_of() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let chain = vec![made.cert.der().clone()];
        let not_after = UNIX_EPOCH + Duration::from_secs(100 * SECONDS_PER_DAY);
        let server = serve(chain.clone(), key).expect("a pair").into();
        let certificate = Certificate { server, not_after, path: "cert.pem".into(), key_path: "key.pem".into(), chain };
        let check = |hours: u64, days: i64, expected: Option<&str>| {
            let now = UNIX_EPOCH + Duration::from_secs(hours * 3600);
            assert_eq!(certificate.days_left(now), days, "{hours}");
            let warning = certificate.warning(now);
            match expected {
                None => assert_eq!(warning, None, "{hours}"),
                Some(part) => assert!(warning.as_deref().is_some_and(|text| text.contains(part)), "{warning:?}"),
            }
        };
        check(0, 100, None);
        check(86 * 24, 14, None);
        check(86 * 24 + 1, 13, Some("cert.pem expires in 13 days"));
        check(98 * 24 + 1, 1, Some("expires in 1 day;"));
        check(100 * 24 - 1, 0, Some("expires in 0 days"));
        check(100 * 24 + 1, -1, Some("cert.pem expired 0 days ago"));
        check(103 * 24 + 1, -4, Some("expired 3 days ago"));
    }
}
