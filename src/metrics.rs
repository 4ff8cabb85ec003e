//! What the operator counts, as Prometheus metrics.

/// All metrics.
#[derive(Debug, Default)]
pub struct Metrics {}
