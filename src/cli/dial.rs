//! Connects to the server that a URL names: plain TCP for ws://, TLS for wss://.

use anyhow::{Context, anyhow, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use tungstenite::http::Uri;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Connector, Error, HandshakeError, WebSocket};

/// The certificates that a client trusts.
pub enum Trust {
    /// Those in the system's trust store.
    System,
    /// Those signed by a certificate in this PEM file.
    Authorities(PathBuf),
    /// Every certificate.
    All,
}

/// Connects and upgrades. Also returns the TCP socket, so that the caller can set timeouts.
pub fn dial(url: &Uri, trust: &Trust) -> anyhow::Result<(WebSocket<MaybeTlsStream<TcpStream>>, TcpStream)> {
    let is_secure = url.scheme_str() == Some("wss");
    let (host, port) = (url.host().unwrap_or_default(), url.port_u16().unwrap_or(if is_secure { 443 } else { 80 }));
    let tcp = TcpStream::connect((host.trim_matches(['[', ']']), port))
        .with_context(|| format!("no server answers at {url}; --url names another"))?;
    tcp.set_nodelay(true)?;
    let handle = tcp.try_clone()?;
    match tungstenite::client_tls_with_config(url, tcp, None, connector(trust)?) {
        Ok((socket, _)) => Ok((socket, handle)),
        Err(HandshakeError::Failure(Error::Http(answer))) => {
            bail!("{url} answers {}, so it is not a WebSocket endpoint; --url names another", answer.status())
        }
        Err(error) => Err(anyhow!("{error}")).with_context(|| match is_secure {
            true => format!(
                "cannot set up TLS with {url}: --ca PATH names the certificates to trust, --insecure trusts all; use \
                 ws:// for a server without a certificate"
            ),
            false => format!("cannot open a WebSocket to {url}; use wss:// for a server with a certificate"),
        }),
    }
}

/// Checks the URL of a server.
pub fn url(text: &str) -> Result<Uri, String> {
    let url: Option<Uri> = text.parse().ok();
    let is_legal = |url: &Uri| {
        let Some(authority) = url.authority() else { return false };
        // `Authority` accepts a port of 99999, but then reports no port.
        let has_legal_port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => true,
            Some(port) => port.strip_prefix(':').is_some_and(|port| matches!(port.parse::<u16>(), Ok(1..))),
            None => false,
        };
        matches!(url.scheme_str(), Some("ws" | "wss")) && !authority.host().is_empty() && has_legal_port
    };
    url.filter(is_legal).ok_or_else(|| "must be ws://HOST:PORT or wss://HOST:PORT".into())
}

/// The TLS connector for these certificates; `None`: the system's trust store.
fn connector(trust: &Trust) -> anyhow::Result<Option<Connector>> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let config = match trust {
        Trust::System => return Ok(None),
        Trust::Authorities(path) => {
            let name = || format!("cannot read certificates from {}", path.display());
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(path).with_context(name)? {
                roots.add(certificate.with_context(name)?).with_context(name)?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        Trust::All => {
            let verifier = Arc::new(TrustAll(provider));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
    };
    Ok(Some(Connector::Rustls(config.into())))
}

/// Trusts every certificate. Verifies only that the server holds its private key.
#[derive(Debug)]
struct TrustAll(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
