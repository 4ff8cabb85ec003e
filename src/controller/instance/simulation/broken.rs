//! Operators that are broken on purpose, as they might have been written. The simulation has to find
//! each of them.

use moorage_wire::{InstallationId, InstanceId};

use super::{super::Decisions, link::Link, tenants};
use crate::{
    api::OpenClawInstance,
    hetzner::Server,
    instance::{
        Observed, Plan, Step, Wanted,
        credentials::CredentialStep,
        plan::{self, Timing},
    },
};

/// What is wrong with an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defect {
    /// The finalizer is written when it suits, not before anything is made.
    FinalizerLate,
    /// A Secret is deleted when its values are about to be handed over.
    SecretBeforeReceipt,
    /// A server is taken for one's own because of its name.
    AdoptionByName,
    /// What a list does not show is taken for gone.
    OneListTrusted,
    /// An instance says itself who it is.
    IdentityFromAnnotation,
}

impl Defect {
    pub(super) const ALL: [Self; 5] = [
        Self::FinalizerLate,
        Self::SecretBeforeReceipt,
        Self::AdoptionByName,
        Self::OneListTrusted,
        Self::IdentityFromAnnotation,
    ];

    /// The decisions of such an operator. Other defects are in how it reads and writes.
    pub(super) fn decisions(self) -> Decisions {
        match self {
            Self::SecretBeforeReceipt => {
                Decisions { plan: deletes_secrets_first, ..Decisions::default() }
            }
            Self::IdentityFromAnnotation => {
                Decisions { identify: from_annotation, ..Decisions::default() }
            }
            _ => Decisions::default(),
        }
    }
}

/// Names the id of an instance, for whoever believes it.
pub(super) const ID_ANNOTATION: &str = "moorage.dev/instance-id";

fn deletes_secrets_first(wanted: &Wanted, observed: &Observed, timing: Timing) -> Plan {
    let mut plan = plan::plan(wanted, observed, timing);
    let delivery = |step: &Step| matches!(step, Step::Credentials(CredentialStep::Deliver(_)));
    if let Some(at) = plan.steps.iter().position(delivery) {
        for bundle in &observed.bundles {
            let Some(version) = bundle.version.clone() else { continue };
            let name = bundle.secret.clone();
            plan.steps.insert(
                at,
                Step::Credentials(CredentialStep::DeleteSecret {
                    name,
                    version,
                    recreated: Vec::new(),
                }),
            );
        }
    }
    plan
}

fn from_annotation(installation: InstallationId, instance: &OpenClawInstance) -> InstanceId {
    let annotations = instance.metadata.annotations.as_ref();
    let told = annotations.and_then(|all| all.get(ID_ANNOTATION)?.parse().ok());
    told.unwrap_or_else(|| super::super::identity(installation, instance))
}

impl Link {
    /// Whether a server without its labels is taken for an instance's because of its name.
    pub(super) fn believes(&self, server: &Server) -> bool {
        self.defect == Some(Defect::AdoptionByName)
            && tenants::keys().iter().any(|key| tenants::server_name(key) == server.name)
    }

    /// A server as the operator takes it to be.
    pub(super) fn as_believed(&self, server: Server) -> Server {
        if !self.believes(&server) {
            return server;
        }
        let state = self.world.state();
        let named =
            tenants::keys().into_iter().find(|key| tenants::server_name(key) == server.name);
        let epoch = named.as_ref().and_then(|key| {
            state.instance(key)?.status.as_ref()?.server.as_ref()?.epoch.parse().ok()
        });
        let labels = named.zip(epoch).map(|(key, epoch)| tenants::server_labels(&key, epoch));
        Server { labels: labels.unwrap_or_default(), ..server }
    }
}
