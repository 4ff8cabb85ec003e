//! Randomness as the reconciler uses it: a narrow port, so that one seed decides all of it in the
//! simulation. Keys are not made from it.

/// Where random bytes come from.
pub trait Randomness: Send + Sync {
    /// Fills `bytes`; `false` if there is no randomness, and then `bytes` says nothing.
    fn fill(&self, bytes: &mut [u8]) -> bool;

    /// A number in `0.0..1.0`. Without randomness there is no jitter, which is no reason to stop.
    fn fraction(&self) -> f64 {
        let mut bytes = [0; 4];
        if !self.fill(&mut bytes) {
            return 0.5;
        }
        f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
    }
}

/// The system's randomness, fit for keys.
pub struct SystemRandomness;

impl Randomness for SystemRandomness {
    fn fill(&self, bytes: &mut [u8]) -> bool {
        aws_lc_rs::rand::fill(bytes).is_ok()
    }
}
