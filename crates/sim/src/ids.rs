//! Random identifiers. No state of either cloud lives here.

use std::fmt::Write as _;

/// Bytes from the system's random source.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random source is always readable");
    bytes
}

/// Lower-case hexadecimal of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A random identifier of 32 hexadecimal digits, as Cloudflare gives to accounts, zones and records.
pub(crate) fn hex32() -> String {
    hex(&random_bytes::<16>())
}

/// A random UUID (version 4), as Cloudflare gives to tunnels, connections and Access objects.
pub(crate) fn uuid() -> String {
    random_uuid().to_string()
}

/// A random UUID (version 4).
pub(crate) fn random_uuid() -> uuid::Uuid {
    uuid::Builder::from_random_bytes(random_bytes()).into_uuid()
}
