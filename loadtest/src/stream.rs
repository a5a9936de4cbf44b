//! A client's socket, with a TLS session if the target uses TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};

use crate::target::Tls;

/// Reads and writes without blocking.
pub struct Stream {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// The last read emptied the socket: an edge-triggered poll reports what arrives later.
    pub is_drained: bool,
}

impl Stream {
    /// A stream over a socket that may still be connecting.
    pub fn new(tcp: TcpStream, config: Option<&Arc<ClientConfig>>) -> io::Result<Stream> {
        let session = |config: &Arc<ClientConfig>| {
            let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
            let mut session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
            session.set_buffer_limit(None);
            Ok::<_, io::Error>(Box::new(session))
        };
        Ok(Stream { tcp, tls: config.map(session).transpose()?, is_drained: false })
    }

    /// The socket.
    pub fn tcp(&mut self) -> &mut TcpStream {
        &mut self.tcp
    }

    /// Reads once from the socket, and over TLS until there is plain data. `scratch` receives the encrypted data.
    pub fn read(&mut self, buffer: &mut [u8], scratch: &mut Vec<u8>) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            let got = self.tcp.read(buffer)?;
            self.is_drained = got < buffer.len();
            return Ok(got);
        };
        // Small enough that the decrypted data fits into the buffer, with the rest of an earlier record.
        scratch.resize(64 * 1024, 0);
        loop {
            let encrypted = self.tcp.read(scratch)?;
            self.is_drained = encrypted < scratch.len();
            let mut input = &scratch[..encrypted];
            let mut got = 0;
            while !input.is_empty() {
                tls.read_tls(&mut input)?;
                let state = tls.process_new_packets().map_err(io::Error::other)?;
                if state.plaintext_bytes_to_read() > 0 {
                    got += tls.reader().read(&mut buffer[got..])?;
                }
            }
            Self::flush(tls, &mut self.tcp)?;
            if got > 0 || encrypted == 0 {
                return Ok(got);
            }
        }
    }

    /// Writes what the socket accepts. A TLS session accepts everything, and sends it when it can.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.tcp.write(bytes);
        };
        tls.writer().write_all(bytes)?;
        Self::flush(tls, &mut self.tcp)?;
        Ok(bytes.len())
    }

    /// The socket is writable again.
    pub fn writable(&mut self) {
        if let Some(tls) = &mut self.tls {
            // An error is reported when the socket is read.
            let _ = Self::flush(tls, &mut self.tcp);
        }
    }

    fn flush(tls: &mut ClientConnection, tcp: &mut TcpStream) -> io::Result<()> {
        while tls.wants_write() {
            match tls.write_tls(tcp) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The TLS configuration of all clients of a thread.
pub fn client_config(tls: Tls) -> io::Result<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let verifier = Arc::new(AcceptAll);
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.resumption = match tls {
        Tls::Full => Resumption::disabled(),
        Tls::Resumed => Resumption::in_memory_sessions(8),
    };
    Ok(Arc::new(config))
}

/// Accepts every certificate. The server is measured, and verifying would cost the client half of a handshake.
#[derive(Debug)]
struct AcceptAll;

impl ServerCertVerifier for AcceptAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
