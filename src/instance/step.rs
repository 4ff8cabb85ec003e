//! Steps: one thing to do for an instance, by the part that does it. What a step is, how it reads, what
//! it may touch and what it changes stands in the file of its part; here is which parts have any.
//!
//! How a step is carried out is in [`crate::controller::instance`], in the file of the same name.

use std::fmt;

use super::{
    Observed, Wanted,
    credentials::CredentialStep,
    dashboard::DashboardStep,
    desired_state::PutDesired,
    handover::HandOverStep,
    records::{DeleteRecords, EnsureRecords},
    rotation::RotationStep,
    routes::RoutesStep,
    server::ServerStep,
    tunnel::TunnelStep,
};
use crate::{
    api::OpenClawInstanceStatus, cloudflare::RecordId, cloudflare::TunnelId, hetzner::ServerId,
    ownership::Owner,
};

/// What the steps of one part have in common. Each must be harmless when it is repeated.
///
/// Their `Display` is what `moorage plan` prints: what is done, to what, without any value that is drawn at
/// random or secret.
pub trait PartStep: fmt::Display {
    /// What a step did: as the world told, or as a forecast foresees it.
    type Outcome;

    /// Whether everything that it writes to is the instance's own, or is not there yet.
    fn touches_only_own(&self, own: &Own<'_>) -> bool;

    /// Whether it speaks to the agent.
    fn needs_agent(&self) -> bool {
        false
    }

    /// Whether it ends a life of the server: it deletes one, or lets the next one begin.
    fn ends_a_life(&self, _: &Observed) -> bool {
        false
    }

    /// Whether its effect can be seen only by observing again.
    fn ends_pass(&self) -> bool {
        false
    }

    /// What has to stand in the status before it is done.
    fn status_first(&self, _: &Observed) -> Option<OpenClawInstanceStatus> {
        None
    }

    /// Its outcome if it works, with placeholders for what only the world knows.
    fn foresee(&self, wanted: &Wanted, observed: &Observed) -> Self::Outcome;

    /// Its effect on what was observed.
    fn note(outcome: Self::Outcome, observed: &mut Observed);
}

/// What the instance's own objects are told by.
pub struct Own<'a> {
    owner: &'a Owner,
    observed: &'a Observed,
}

impl Own<'_> {
    /// Whether a server is the instance's.
    pub fn server(&self, id: ServerId) -> bool {
        let found = self.observed.server.present().filter(|server| server.id == id);
        found.is_some_and(|server| self.owner.server(server).is_ours())
    }

    /// Whether a tunnel is the instance's.
    pub fn tunnel(&self, id: &TunnelId) -> bool {
        let found = self.observed.tunnel.as_ref().filter(|tunnel| tunnel.id == *id);
        found.is_some_and(|tunnel| self.owner.tunnel(tunnel).is_ours())
    }

    /// Whether a DNS record is the instance's.
    pub fn record(&self, id: &RecordId) -> bool {
        let tunnels: Vec<_> = self.observed.tunnel.iter().map(|tunnel| tunnel.id.clone()).collect();
        let mut all = self.observed.records.iter().chain(&self.observed.stray_records);
        let found = all.find(|record| record.id == *id);
        found.is_some_and(|record| self.owner.record(record, &tunnels).is_ours())
    }
}

/// Defines an enum with one variant per part, and a macro that does the same with whichever it is.
macro_rules! one_of_parts {
    ($(#[$of_all:meta])* $name:ident, $with:ident: $($(#[$doc:meta])* $part:ident($one:ty),)+) => {
        $(#[$of_all])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $name {
            $($(#[$doc])* $part($one),)+
        }

        $(impl From<$one> for $name {
            fn from(one: $one) -> Self {
                Self::$part(one)
            }
        })+

        /// Does the same with the one of whichever part it is.
        macro_rules! $with {
            ($either:expr, $inner:ident => $body:expr) => {
                match $either { $($crate::instance::$name::$part($inner) => $body,)+ }
            };
        }
        pub(crate) use $with;
    };
}
pub(super) use one_of_parts;

one_of_parts! {
    /// One thing to do.
    Step, with_step:
    /// Of the server, and its epoch.
    Server(ServerStep),
    Tunnel(TunnelStep),
    /// Of the tunnel's ingress rules.
    Routes(RoutesStep),
    /// Of the DNS records.
    Records(EnsureRecords),
    /// Of the DNS records that an earlier instance of the name left.
    Strays(DeleteRecords),
    /// Of the handover to the newest master key.
    HandOver(HandOverStep),
    /// Of the credentials, and of the Secrets that they came in.
    Credentials(CredentialStep),
    DesiredState(PutDesired),
    /// Of the rotation of the tunnel's token.
    Rotation(RotationStep),
    /// Of the dashboard's Secret.
    Dashboard(DashboardStep),
}

impl Step {
    /// See [`PartStep::touches_only_own`].
    pub fn touches_only_own(&self, owner: &Owner, observed: &Observed) -> bool {
        with_step!(self, step => step.touches_only_own(&Own { owner, observed }))
    }

    /// See [`PartStep::needs_agent`].
    pub fn needs_agent(&self) -> bool {
        with_step!(self, step => step.needs_agent())
    }

    /// See [`PartStep::ends_a_life`].
    pub fn ends_a_life(&self, observed: &Observed) -> bool {
        with_step!(self, step => step.ends_a_life(observed))
    }

    /// See [`PartStep::ends_pass`].
    pub fn ends_pass(&self) -> bool {
        with_step!(self, step => step.ends_pass())
    }

    /// See [`PartStep::status_first`].
    pub fn status_first(&self, observed: &Observed) -> Option<OpenClawInstanceStatus> {
        with_step!(self, step => step.status_first(observed))
    }

    /// Its effect on what was observed, if it works.
    pub fn foresee(&self, wanted: &Wanted, observed: &mut Observed) {
        with_step!(self, step => foresee(step, wanted, observed));
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        with_step!(self, step => step.fmt(formatter))
    }
}

fn foresee<S: PartStep>(step: &S, wanted: &Wanted, observed: &mut Observed) {
    if let Some(status) = step.status_first(observed) {
        observed.status = status;
    }
    let outcome = step.foresee(wanted, observed);
    S::note(outcome, observed);
}
