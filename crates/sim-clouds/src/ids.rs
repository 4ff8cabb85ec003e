//! Random identifiers. No state of either cloud lives here.

/// Bytes from the system's random source.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random source is always readable");
    bytes
}

/// A random identifier of 32 hexadecimal digits, as Cloudflare gives to accounts, zones and records.
pub(crate) fn hex32() -> String {
    hex::encode(random_bytes::<16>())
}

/// A random UUID (version 4), as Cloudflare gives to tunnels, connections and Access objects.
pub fn uuid() -> String {
    random_uuid().to_string()
}

/// A random UUID (version 4).
pub fn random_uuid() -> uuid::Uuid {
    uuid::Builder::from_random_bytes(random_bytes()).into_uuid()
}
