//! A certificate, and clients that trust it.

use crate::config::{Certificate, Files};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use std::sync::{Arc, OnceLock};

/// The same for all runs.
pub fn certificate() -> Arc<Certificate> {
    made().0.clone()
}

/// Each client speaks a different version of TLS.
pub fn clients() -> Vec<Arc<ClientConfig>> {
    made().1.clone()
}

fn made() -> &'static (Arc<Certificate>, Vec<Arc<ClientConfig>>) {
    static MADE: OnceLock<(Arc<Certificate>, Vec<Arc<ClientConfig>>)> = OnceLock::new();
    MADE.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let folder = std::env::temp_dir().join(format!("corecast-trial-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("created");
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).expect("written");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
        let certificate =
            Certificate::load(&cert, &key, &Files::at_start()).unwrap_or_else(|unfit| panic!("{}", unfit.why));
        std::fs::remove_dir_all(&folder).expect("removed");
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).expect("a certificate"))
            .expect("a trusted root");
        let client = |version| {
            let builder = ClientConfig::builder_with_provider(ring::default_provider().into());
            let builder = builder.with_protocol_versions(&[version]).expect("a version");
            Arc::new(builder.with_root_certificates(roots.clone()).with_no_client_auth())
        };
        (Arc::new(certificate), vec![client(&TLS12), client(&TLS13)])
    })
}
