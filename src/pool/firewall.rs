//! The pool's firewall: denies everything inbound but what `spec.hetzner.ssh.allowFrom` says, and
//! marks the Hetzner project as the pool's. Pure; `apply` carries the step out.

use std::collections::BTreeSet;

use crate::{
    api::{annotation::Mark, conditions::Reason},
    cidr::Network,
    hetzner::{CreateFirewall, Direction, Firewall, FirewallId, FirewallRule, Protocol},
    problem::Problem,
};

use super::identity::PoolIdentity;

const SSH_PORT: &str = "22";

/// What to do about the firewall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirewallStep {
    /// It is as it should be.
    Keep(FirewallId),
    /// Its rules were changed by someone.
    Repair(FirewallId, Vec<FirewallRule>),
    /// There is none yet.
    Create(CreateFirewall),
}

/// What the marker logic needs to know besides the firewalls that carry the pool's labels.
#[derive(Debug, Clone, Copy)]
pub struct Marker<'a> {
    /// The firewall that the status names.
    pub recorded: Option<FirewallId>,
    /// Whether some instance names the pool.
    pub has_instances: bool,
    /// The value of the annotation `moorage.dev/retry`.
    pub retry: Option<&'a Mark>,
}

/// Decides. A recorded firewall that is not there means that the token is of another project, where
/// every server would look gone; so nothing is recreated while there is something to lose, unless a
/// person names the lost firewall in `moorage.dev/retry`.
pub fn plan(
    identity: &PoolIdentity,
    rules: Vec<FirewallRule>,
    found: &[Firewall],
    marker: Marker<'_>,
) -> Result<FirewallStep, Problem> {
    let ours = |firewall: &&Firewall| identity.owns(&firewall.labels);
    if let Some(recorded) = marker.recorded {
        if let Some(firewall) = found.iter().filter(ours).find(|firewall| firewall.id == recorded) {
            return Ok(keep_or_repair(firewall, rules));
        }
        let given_up = marker.retry.is_some_and(|mark| mark.names(recorded.0));
        if marker.has_instances && !given_up {
            return Err(project_changed(recorded));
        }
    }
    let name = identity.object_name();
    match found.iter().filter(ours).find(|firewall| firewall.name == name) {
        Some(firewall) => Ok(keep_or_repair(firewall, rules)),
        None => Ok(FirewallStep::Create(CreateFirewall { name, labels: identity.labels(), rules })),
    }
}

fn keep_or_repair(firewall: &Firewall, rules: Vec<FirewallRule>) -> FirewallStep {
    if comparable(&firewall.rules) == comparable(&rules) {
        FirewallStep::Keep(firewall.id)
    } else {
        FirewallStep::Repair(firewall.id, rules)
    }
}

/// Rules without what does not matter: order, descriptions, and lists that do not apply.
fn comparable(rules: &[FirewallRule]) -> BTreeSet<(String, String, Option<&str>, BTreeSet<&str>)> {
    rules
        .iter()
        .map(|rule| {
            let networks = match rule.direction {
                Direction::Out => &rule.destination_ips,
                _ => &rule.source_ips,
            };
            (
                rule.direction.to_string(),
                rule.protocol.to_string(),
                rule.port.as_deref(),
                networks.iter().map(String::as_str).collect(),
            )
        })
        .collect()
}

fn project_changed(recorded: FirewallId) -> Problem {
    Problem::whole(
        Reason::ProjectChanged,
        format!(
            "Firewall {recorded}, which marks this pool's Hetzner project, is not in the project of the token. \
             Nothing is made or forgotten until that is settled. If the token is of the wrong project, put the \
             right one into its Secret. If someone deleted the firewall, annotate the pool with \
             moorage.dev/retry={recorded} to have a new one made."
        ),
    )
}

/// The rules that the spec asks for: none at all without `ssh.allowFrom`.
pub fn rules(allow_from: &[impl AsRef<str>]) -> Result<Vec<FirewallRule>, Problem> {
    if allow_from.is_empty() {
        return Ok(Vec::new());
    }
    let networks = allow_from.iter().map(|text| {
        text.as_ref().parse::<Network>().map_err(|error| {
            Problem::invalid_spec("spec.hetzner.ssh.allowFrom", &error.to_string())
        })
    });
    // A set: Hetzner refuses a rule that names a network twice.
    let networks = networks.collect::<Result<BTreeSet<_>, _>>()?;
    Ok(vec![FirewallRule {
        direction: Direction::In,
        protocol: Protocol::Tcp,
        port: Some(SSH_PORT.to_owned()),
        source_ips: networks.iter().map(Network::to_string).collect(),
        destination_ips: Vec::new(),
        description: Some("SSH, from spec.hetzner.ssh.allowFrom".to_owned()),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hetzner::Labels;
    use moorage_wire::InstallationId;
    use rstest::rstest;

    fn identity() -> PoolIdentity {
        PoolIdentity::new("eu-1", InstallationId::from_bytes([7; 8]))
    }

    fn firewall(id: u64, rules: Vec<FirewallRule>) -> Firewall {
        let (name, labels) = (identity().object_name(), identity().labels());
        Firewall { id: FirewallId(id), name, labels, rules, applied_to: Vec::new() }
    }

    fn open(port: &str) -> FirewallRule {
        let everyone = vec!["0.0.0.0/0".to_owned()];
        FirewallRule {
            direction: Direction::In,
            protocol: Protocol::Tcp,
            port: Some(port.to_owned()),
            source_ips: everyone,
            destination_ips: Vec::new(),
            description: None,
        }
    }

    /// What a step is, without its data.
    fn kind(step: &Result<FirewallStep, Problem>) -> &'static str {
        match step {
            Ok(FirewallStep::Keep(_)) => "keep",
            Ok(FirewallStep::Repair(..)) => "repair",
            Ok(FirewallStep::Create(_)) => "create",
            Err(problem) => problem.reason.as_str(),
        }
    }

    #[rstest]
    #[case::first_pass(None, false, None, vec![], "create")]
    #[case::instances_came_before_the_pool(None, true, None, vec![], "create")]
    #[case::status_was_lost(None, true, None, vec![firewall(4, vec![])], "keep")]
    #[case::all_is_well(Some(4), true, None, vec![firewall(4, vec![])], "keep")]
    #[case::someone_opened_a_port(Some(4), true, None, vec![firewall(4, vec![open("22")])], "repair")]
    #[case::another_project(Some(4), true, None, vec![], "ProjectChanged")]
    #[case::another_project_that_was_ours_once(Some(4), true, None, vec![firewall(9, vec![])], "ProjectChanged")]
    #[case::an_old_word_of_a_person(Some(4), true, Some("3"), vec![], "ProjectChanged")]
    #[case::a_number_in_another_way(Some(4), true, Some("+4"), vec![], "ProjectChanged")]
    #[case::an_empty_word_of_a_person(Some(4), true, Some(""), vec![], "ProjectChanged")]
    #[case::a_person_says_so(Some(4), true, Some("4"), vec![], "create")]
    #[case::a_crash_after_a_person_said_so(Some(4), true, Some("4"), vec![firewall(9, vec![])], "keep")]
    #[case::nothing_to_lose(Some(4), false, None, vec![], "create")]
    fn the_marker_decides(
        #[case] recorded: Option<u64>,
        #[case] has_instances: bool,
        #[case] retry: Option<&str>,
        #[case] found: Vec<Firewall>,
        #[case] expected: &str,
    ) {
        let recorded = recorded.map(FirewallId);
        let retry = retry.map(Mark::new);
        let marker = Marker { recorded, has_instances, retry: retry.as_ref() };
        assert_eq!(kind(&plan(&identity(), Vec::new(), &found, marker)), expected);
    }

    #[test]
    fn a_firewall_without_our_labels_is_not_ours() {
        let foreign = Firewall { labels: Labels::new(), ..firewall(4, Vec::new()) };
        let marker = Marker { recorded: Some(FirewallId(4)), has_instances: true, retry: None };
        let step = plan(&identity(), Vec::new(), &[foreign], marker);
        assert_eq!(kind(&step), "ProjectChanged");
    }

    #[test]
    fn order_and_descriptions_are_no_drift() {
        let wanted = rules(&["10.0.0.0/8".to_owned(), "192.0.2.1/32".to_owned()]).unwrap();
        let mut stored = wanted.clone();
        stored[0].source_ips.reverse();
        stored[0].description = None;
        let marker = Marker { recorded: Some(FirewallId(4)), has_instances: true, retry: None };
        let step = plan(&identity(), wanted, &[firewall(4, stored)], marker);
        assert_eq!(kind(&step), "keep");
    }

    #[test]
    fn without_networks_nothing_comes_in() {
        assert_eq!(rules(&[""; 0]).unwrap(), []);
        let problem = rules(&["nowhere".to_owned()]).unwrap_err();
        assert_eq!(problem.reason, Reason::InvalidSpec);
        assert!(problem.message.contains("allowFrom"), "{}", problem.message);
    }
}
