//! The values that labels have: their set is bounded by the code.

use strum::{IntoStaticStr, VariantArray};

use crate::api::instance::Phase;

/// What the operator writes to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum WriteKind {
    /// The status of one of Moorage's resources.
    Status,
    /// Finalizers and annotations of one of Moorage's resources.
    Finalizer,
    Event,
    /// The deletion of an object.
    Delete,
    /// Making or changing a Secret or `ConfigMap`.
    Object,
}

impl WriteKind {
    /// Its value of the metrics label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What became of an attempt to hand a credential over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum DeliveryOutcome {
    Delivered,
    /// The agent had it before; its receipt is there.
    AlreadyDelivered,
    /// The operator or the agent refused the value.
    Refused,
    /// Nothing is known: no answer, or none that is the agent's.
    Failed,
}

impl DeliveryOutcome {
    /// Its value of the metrics label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// All phases, in the order of [`phase_index`].
pub(super) const PHASES: [(Phase, &str); 8] = [
    (Phase::Pending, "Pending"),
    (Phase::Provisioning, "Provisioning"),
    (Phase::Ready, "Ready"),
    (Phase::Updating, "Updating"),
    (Phase::Degraded, "Degraded"),
    (Phase::Stalled, "Stalled"),
    (Phase::Suspended, "Suspended"),
    (Phase::Deleting, "Deleting"),
];

/// Where a phase is in [`PHASES`].
pub(super) const fn phase_index(phase: Phase) -> usize {
    match phase {
        Phase::Pending => 0,
        Phase::Provisioning => 1,
        Phase::Ready => 2,
        Phase::Updating => 3,
        Phase::Degraded => 4,
        Phase::Stalled => 5,
        Phase::Suspended => 6,
        Phase::Deleting => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_counted_under_their_own_names() {
        for (index, (phase, label)) in PHASES.iter().enumerate() {
            assert_eq!(phase_index(*phase), index);
            assert_eq!(format!("{phase:?}"), *label);
        }
    }
}
