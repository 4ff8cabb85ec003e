//! The cluster: its version, what Moorage installed in it, and whether the operator can reach the clouds.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use k8s_openapi::{
    api::networking::v1::{NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPeer},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::{apis::meta::v1::Condition, util::intstr::IntOrString},
};
use serde_json::Value;

use super::finding::{Check, Finding};
use crate::api::conditions::Reason;

/// The API server's version.
pub const VERSION: Check = Check { id: "cluster.version", title: "Kubernetes" };
/// The custom resources.
pub const DEFINITIONS: Check = Check { id: "cluster.crds", title: "Custom resources" };
/// What the API server refuses by itself.
pub const POLICIES: Check = Check { id: "cluster.admission-policies", title: "Admission policies" };
/// The operator's way out.
pub const NETWORK: Check = Check { id: "cluster.network-policy", title: "Way out of the cluster" };
/// What whoever asks may do.
pub const RBAC: Check = Check { id: "cluster.rbac", title: "Your permissions" };
pub const TOKEN_SECRET: Check = Check { id: "cluster.token-secret", title: "Secret of a token" };
/// A release that the pool names.
pub const RELEASE: Check = Check { id: "cluster.release", title: "Release" };
/// The pool itself.
pub const POOL: Check = Check { id: "cluster.pool", title: "Pool" };

/// As the chart says.
const OLDEST: (u32, u32) = (1, 33);
/// The label of the operator's pods, in the chart and in the Kustomize base.
const OPERATOR: (&str, &str) = ("app.kubernetes.io/name", "moorage");
const HTTPS: i32 = 443;
const DNS: i32 = 53;
/// Any address outside: the clouds' own addresses change.
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));

/// Something that was read, or why it could not be.
pub type Read<T> = Result<T, String>;

/// What was seen of the cluster.
pub struct Seen {
    /// Such as `v1.33.2`.
    pub version: Read<String>,
    /// Those of Moorage that are installed.
    pub definitions: Read<Vec<CustomResourceDefinition>>,
    /// The names of all policies and of all bindings.
    pub policies: Read<(Vec<String>, Vec<String>)>,
    /// Those of the operator's namespace.
    pub network: Read<Vec<NetworkPolicy>>,
    /// What whoever asks may not do, of what operating Moorage takes.
    pub denied: Read<Vec<String>>,
    /// The pool's conditions.
    pub conditions: Vec<Condition>,
}

/// All checks of the cluster.
pub fn judge(seen: &Seen) -> Vec<Finding> {
    vec![
        version(&seen.version),
        definitions(&seen.definitions),
        policies(&seen.policies),
        network(&seen.network),
        rbac(&seen.denied),
        pool(&seen.conditions),
    ]
}

fn version(seen: &Read<String>) -> Finding {
    let text = match seen {
        Ok(text) => text,
        Err(why) => return VERSION.fail(why, "See that the API server of your kubeconfig answers"),
    };
    let mut numbers = text.trim_start_matches('v').split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < OLDEST => VERSION.fail(
            format!("{text}, and Moorage needs {}.{} or newer", OLDEST.0, OLDEST.1),
            "Upgrade the cluster",
        ),
        (Some(Ok(_)), Some(Ok(_))) => VERSION.pass(text),
        _ => VERSION.unknown(format!("The version {text} cannot be read")),
    }
}

/// Paths of fields are compared: an API server writes schemas down in its own words.
fn definitions(seen: &Read<Vec<CustomResourceDefinition>>) -> Finding {
    const REMEDY: &str = "Install those of this version: moorage crds | kubectl apply --server-side -f -, or upgrade the chart";
    let installed = match seen {
        Ok(installed) => installed,
        Err(why) => return DEFINITIONS.unknown(format!("They cannot be read: {why}")),
    };
    for wanted in crate::api::custom_resource_definitions() {
        let name = wanted.metadata.name.clone().unwrap_or_default();
        let found = installed.iter().find(|one| one.metadata.name.as_ref() == Some(&name));
        let Some(found) = found else {
            return DEFINITIONS.fail(format!("{name} is not installed"), REMEDY);
        };
        let (ours, theirs) = (fields(&wanted), fields(found));
        if let Some(missing) = ours.iter().find(|field| !theirs.contains(field)) {
            return DEFINITIONS
                .fail(format!("{name} is of another version: it has no {missing}"), REMEDY);
        }
        if let Some(more) = theirs.iter().find(|field| !ours.contains(field)) {
            return DEFINITIONS.warn(
                format!("{name} is of a newer version: it has {more}"),
                "Use the version of moorage that the operator has",
            );
        }
    }
    DEFINITIONS.pass("All three are installed, as this version knows them")
}

/// The paths of all fields that a definition has.
fn fields(definition: &CustomResourceDefinition) -> Vec<String> {
    let mut found = Vec::new();
    for version in &definition.spec.versions {
        let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        let schema = schema.and_then(|schema| serde_json::to_value(schema).ok());
        note_fields(&schema.unwrap_or_default(), "", &mut found);
    }
    found
}

fn note_fields(schema: &Value, path: &str, found: &mut Vec<String>) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        note_fields(inner, &path, found);
        found.push(path);
    }
    if schema["items"].is_object() {
        note_fields(&schema["items"], &format!("{path}[]"), found);
    }
}

fn policies(seen: &Read<(Vec<String>, Vec<String>)>) -> Finding {
    let (policies, bindings) = match seen {
        Ok(seen) => seen,
        Err(why) => return POLICIES.unknown(format!("They cannot be read: {why}")),
    };
    let wanted = crate::admission_policy::policies();
    let missing = wanted.iter().find_map(|(policy, binding)| {
        let policy = policy.metadata.name.clone().unwrap_or_default();
        let binding = binding.metadata.name.clone().unwrap_or_default();
        (!policies.contains(&policy) || !bindings.contains(&binding)).then_some(policy)
    });
    match missing {
        Some(name) => POLICIES.warn(
            format!("{name} is not in force, so keys in the clear reach etcd before the operator refuses them"),
            "Install it: moorage admission-policies | kubectl apply -f -",
        ),
        None => POLICIES.pass("Both are in force"),
    }
}

fn network(seen: &Read<Vec<NetworkPolicy>>) -> Finding {
    let all = match seen {
        Ok(all) => all,
        Err(why) => return NETWORK.unknown(format!("They cannot be read: {why}")),
    };
    let ours: Vec<_> = all.iter().filter(|policy| is_egress_of_operator(policy)).collect();
    if ours.is_empty() {
        return NETWORK.pass("No NetworkPolicy limits where the operator may go");
    }
    let rules: Vec<_> = ours
        .iter()
        .filter_map(|policy| policy.spec.as_ref()?.egress.as_deref())
        .flatten()
        .collect();
    let https = rules.iter().any(|rule| lets_port(rule, HTTPS) && lets_out(rule));
    // The name server is a pod of the cluster as a rule; where exactly is not looked at.
    let dns = rules.iter().any(|rule| lets_port(rule, DNS));
    let name = |policy: &NetworkPolicy| policy.metadata.name.clone().unwrap_or_default();
    let names = ours.iter().map(|policy| name(policy)).collect::<Vec<_>>().join(", ");
    match (https, dns) {
        (true, true) => NETWORK.pass(format!("{names} lets HTTPS and DNS out")),
        (false, _) => NETWORK.fail(
            format!("{names} does not let the operator reach the clouds"),
            "Allow egress to TCP 443 of all addresses",
        ),
        (true, false) => NETWORK.fail(
            format!("{names} does not let the operator ask for names"),
            "Allow egress to UDP and TCP 53 of the cluster's DNS",
        ),
    }
}

/// Whether it selects the operator's pods. Expressions are taken to: a wrong alarm is looked into.
fn is_egress_of_operator(policy: &NetworkPolicy) -> bool {
    let Some(spec) = &policy.spec else { return false };
    let types = spec.policy_types.clone().unwrap_or_default();
    let is_egress = types.iter().any(|kind| kind == "Egress") || spec.egress.is_some();
    let labels = BTreeMap::from([(OPERATOR.0.to_owned(), OPERATOR.1.to_owned())]);
    let selector = spec.pod_selector.as_ref();
    let wanted = selector.and_then(|selector| selector.match_labels.clone()).unwrap_or_default();
    is_egress && wanted.iter().all(|(key, value)| labels.get(key).is_none_or(|has| has == value))
}

fn lets_port(rule: &NetworkPolicyEgressRule, wanted: i32) -> bool {
    let Some(ports) = rule.ports.as_deref().filter(|ports| !ports.is_empty()) else { return true };
    ports.iter().any(|port| match (&port.port, port.end_port) {
        (None, _) => true,
        (Some(IntOrString::Int(first)), Some(last)) => (*first..=last).contains(&wanted),
        (Some(IntOrString::Int(port)), None) => *port == wanted,
        (Some(IntOrString::String(name)), _) => {
            name == if wanted == HTTPS { "https" } else { "dns" }
        }
    })
}

fn lets_out(rule: &NetworkPolicyEgressRule) -> bool {
    let Some(peers) = rule.to.as_deref().filter(|peers| !peers.is_empty()) else { return true };
    peers.iter().any(|peer: &NetworkPolicyPeer| {
        let contains = |cidr: &str| cidr.parse::<IpNet>().is_ok_and(|net| net.contains(&OUTSIDE));
        peer.ip_block.as_ref().is_some_and(|block| {
            contains(&block.cidr) && !block.except.iter().flatten().any(|except| contains(except))
        })
    })
}

fn rbac(seen: &Read<Vec<String>>) -> Finding {
    match seen {
        Err(why) => RBAC.unknown(format!("They cannot be asked for: {why}")),
        Ok(denied) if denied.is_empty() => RBAC.pass("You may do what operating Moorage takes"),
        Ok(denied) => RBAC.warn(
            format!("You may not {}", denied.join(", ")),
            "Ask an administrator of the cluster, if you are to operate Moorage",
        ),
    }
}

fn pool(conditions: &[Condition]) -> Finding {
    let Some(ready) = conditions.iter().find(|condition| condition.type_ == "Ready") else {
        return POOL.fail(
            "No operator has looked at it yet",
            "See that the operator runs: its log says what it waits for",
        );
    };
    let detail = format!("{}: {}", ready.reason, ready.message);
    let reason = Reason::ALL.iter().find(|known| known.as_str() == ready.reason);
    if ready.status == "True" {
        POOL.pass(detail)
    } else {
        POOL.fail(detail, reason.map_or("See the message", |reason| reason.remedy()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict::{self, Fail, Pass, Unknown, Warn};
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::newer("v1.34.0+k3s1", Pass)]
    #[case::oldest("v1.33.0", Pass)]
    #[case::older("v1.32.9", Fail)]
    #[case::nonsense("next", Unknown)]
    fn the_version_is_the_charts(#[case] text: &str, #[case] verdict: Verdict) {
        assert_eq!(version(&Ok(text.to_owned())).verdict, verdict);
    }

    #[test]
    fn definitions_of_another_version_are_told() {
        let ours = || crate::api::custom_resource_definitions().to_vec();
        let judge = |all: Vec<CustomResourceDefinition>| definitions(&Ok(all)).verdict;
        assert_eq!(judge(ours()), Pass);
        assert_eq!(judge(ours()[..2].to_vec()), Fail);
        let changed = |add: bool| {
            let mut all = ours();
            let schema = all[1].spec.versions[0].schema.as_mut().unwrap();
            let root = schema.open_api_v3_schema.as_mut().unwrap();
            let spec = root.properties.as_mut().unwrap().get_mut("spec").unwrap();
            let fields = spec.properties.as_mut().unwrap();
            let capacity = fields.remove("capacity").unwrap();
            if add {
                fields.insert("capacity".to_owned(), capacity.clone());
                fields.insert("later".to_owned(), capacity);
            }
            all
        };
        assert_eq!(judge(changed(false)), Fail);
        assert_eq!(judge(changed(true)), Warn);
    }

    #[rstest]
    #[case::none(json!([]), Pass)]
    #[case::ingress_alone(json!([{"podSelector": {}, "policyTypes": ["Ingress"]}]), Pass)]
    #[case::of_other_pods(json!([{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "db"}}, "policyTypes": ["Egress"]}]), Pass)]
    #[case::nothing_goes_out(json!([{"podSelector": {}, "policyTypes": ["Egress"]}]), Fail)]
    #[case::everything_goes_out(json!([{"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}]), Pass)]
    #[case::the_cluster_alone(json!([{"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"namespaceSelector": {}}]}]}]), Fail)]
    #[case::https_without_names(json!([{"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 443, "protocol": "TCP"}]}]}]), Fail)]
    #[case::https_and_names(json!([{"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 443}], "to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}, {"ports": [{"port": 53}]}]}]), Pass)]
    #[case::two_policies_add_up(json!([{"podSelector": {}, "policyTypes": ["Egress"]}, {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}]), Pass)]
    fn a_way_out_needs_https_and_names(#[case] specs: Value, #[case] verdict: Verdict) {
        let specs = specs.as_array().unwrap().iter();
        let policies = specs.map(|spec| {
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
        });
        assert_eq!(network(&Ok(policies.collect())).verdict, verdict);
    }

    #[test]
    fn policies_need_their_bindings() {
        let wanted = crate::admission_policy::policies();
        let names: Vec<_> =
            wanted.iter().map(|(policy, _)| policy.metadata.name.clone().unwrap()).collect();
        let bindings: Vec<_> =
            wanted.iter().map(|(_, binding)| binding.metadata.name.clone().unwrap()).collect();
        assert_eq!(policies(&Ok((names.clone(), bindings))).verdict, Pass);
        assert_eq!(policies(&Ok((names, Vec::new()))).verdict, Warn);
    }

    #[rstest]
    #[case::ready(json!([{"type": "Ready", "status": "True", "reason": "Ready", "message": "x", "lastTransitionTime": "2026-01-01T00:00:00Z"}]), Pass)]
    #[case::not_ready(json!([{"type": "Ready", "status": "False", "reason": "Unauthorized", "message": "x", "lastTransitionTime": "2026-01-01T00:00:00Z"}]), Fail)]
    #[case::not_looked_at(json!([]), Fail)]
    fn a_pool_is_as_its_condition_says(#[case] conditions: Value, #[case] verdict: Verdict) {
        let conditions: Vec<Condition> = serde_json::from_value(conditions).unwrap();
        assert_eq!(pool(&conditions).verdict, verdict);
    }

    #[test]
    fn what_one_may_not_do_is_named() {
        assert_eq!(rbac(&Ok(Vec::new())).verdict, Pass);
        let finding = rbac(&Ok(vec!["get secrets".to_owned()]));
        assert_eq!((finding.verdict, finding.detail.as_str()), (Warn, "You may not get secrets"));
    }
}
