//! HTTPS without a system's OpenSSL: rustls with ring.
//!
//! In:     nothing but the machine's certificate store.
//! Out:    a `reqwest` client builder.
//! Touches: reads the system's root certificates once per process.
//! Holds:  the system's roots are trusted when there are any (so a company's own authority works); a machine
//!         without any falls back to Mozilla's list, compiled in.
//! Absent: time limits and headers. Each caller sets its own.

use std::sync::{Arc, OnceLock};

/// A client builder whose TLS works on any machine.
pub fn client_builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder().tls_backend_preconfigured(tls())
}

/// The same for a client of threads that wait.
pub fn blocking_client_builder() -> reqwest::blocking::ClientBuilder {
    reqwest::blocking::Client::builder().tls_backend_preconfigured(tls())
}

fn tls() -> rustls::ClientConfig {
    static TLS: OnceLock<rustls::ClientConfig> = OnceLock::new();
    TLS.get_or_init(trusting).clone()
}

fn trusting() -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring offers TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
