//! Whether Hetzner's token may write.

use super::Run;
use crate::{
    doctor::{
        HetznerTarget,
        finding::{Check, Finding},
        hetzner::SCOPE,
        run_name::LABEL,
    },
    hetzner::{CreateFirewall, HetznerApi as _, Labels},
};

/// A firewall can be made.
pub const FIREWALL: Check = Check { id: "write.firewall", title: "Firewall" };

/// The firewall of a run: nothing comes in.
pub(in crate::doctor) fn of(run: &Run<'_>) -> CreateFirewall {
    let labels = Labels::from([(LABEL.to_owned(), "true".to_owned())]);
    CreateFirewall { name: run.name.to_string(), labels, rules: Vec::new() }
}

pub(super) async fn check(run: &Run<'_>, target: &HetznerTarget) -> Finding {
    match target.client.create_firewall(&of(run)).await {
        Ok(_) => FIREWALL.pass("One was made, so the token may write"),
        Err(error) => FIREWALL.refused(&error, SCOPE),
    }
}
