//! The certificate roots of the system, which both clouds and Cloudflare's edge are trusted by.

/// What the system's store holds.
#[derive(Debug)]
pub(crate) struct SystemRoots {
    pub(crate) count: usize,
    /// What could not be read of it.
    pub(crate) problems: Vec<String>,
}

/// Reads the system's store.
pub(crate) fn system_roots() -> SystemRoots {
    let found = rustls_native_certs::load_native_certs();
    let problems = found.errors.iter().map(ToString::to_string).collect();
    SystemRoots { count: found.certs.len(), problems }
}
