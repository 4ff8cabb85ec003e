//! What `moorage doctor --pool` reads from the cluster of the user's kubeconfig. Only an access review is
//! created, which nothing stores.

use k8s_openapi::{
    api::{
        admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
        authorization::v1::{
            ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
        },
        core::v1::Secret,
        networking::v1::NetworkPolicy,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};

use super::DoctorError;
use crate::{
    api::{
        GROUP, Guarded, HostingPool, HostingPoolSpec, OpenClawRelease, conditions::Reason,
        pool::TokenSecretRef,
    },
    api_server::told,
    cli::{
        cluster_error::ClusterReadError,
        cluster_reader::{connect, readable},
    },
    cloud::ApiToken,
    doctor::{
        Finding,
        cluster::{self, RELEASE, Read, Seen, TOKEN_SECRET},
    },
};

/// What operating Moorage takes: verb, group, resource, and whether in the operator's namespace.
const NEEDED: [(&str, &str, &str, bool); 5] = [
    ("get", GROUP, "hostingpools", false),
    ("patch", GROUP, "hostingpools", false),
    ("list", GROUP, "openclawinstances", false),
    ("get", "", "secrets", true),
    ("create", "", "secrets", true),
];

/// A pool as it stands in a cluster.
pub(super) struct FromCluster {
    pub(super) pool: HostingPoolSpec,
    pub(super) releases: Vec<OpenClawRelease>,
    pub(super) hetzner: Option<ApiToken>,
    pub(super) cloudflare: Option<ApiToken>,
    /// What is to be said of the cluster.
    pub(super) findings: Vec<Finding>,
}

/// Reads the pool, its tokens and releases, and looks at the cluster.
pub(super) async fn read(name: &str, namespace: &str) -> Result<FromCluster, DoctorError> {
    let client = connect().await?;
    let what = format!("HostingPool {name}");
    let pools = Api::<Guarded<HostingPool>>::all(client.clone());
    let pool = readable(&what, pools.get_opt(name).await)?;
    let pool = pool.ok_or(ClusterReadError::NotFound { what })?;
    let conditions = pool.status.map(|status| status.conditions).unwrap_or_default();
    let mut findings = cluster::judge(&look(&client, namespace, conditions).await);
    let releases = releases(&client, &pool.spec, &mut findings).await?;
    let secrets = Api::<Secret>::namespaced(client, namespace);
    let hetzner = token(&secrets, &pool.spec.hetzner.token_secret_ref, &mut findings).await;
    let cloudflare = token(&secrets, &pool.spec.cloudflare.token_secret_ref, &mut findings).await;
    Ok(FromCluster { pool: pool.spec, releases, hetzner, cloudflare, findings })
}

async fn look(
    client: &Client,
    namespace: &str,
    conditions: Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>,
) -> Seen {
    let all = ListParams::default();
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let policies = Api::<ValidatingAdmissionPolicy>::all(client.clone());
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone());
    let network = Api::<NetworkPolicy>::namespaced(client.clone(), namespace);
    let (version, definitions, policies, bindings, network, denied) = tokio::join!(
        client.apiserver_version(),
        definitions.list(&all),
        policies.list(&all),
        bindings.list(&all),
        network.list(&all),
        denied(client, namespace),
    );
    let words = |error: kube::Error| told(&error);
    let policies = policies.map(|list| list.iter().map(kube::ResourceExt::name_any).collect());
    let bindings = bindings.map(|list| list.iter().map(kube::ResourceExt::name_any).collect());
    Seen {
        version: version.map(|version| version.git_version).map_err(words),
        definitions: definitions.map(|list| list.items).map_err(words),
        policies: policies.and_then(|policies| Ok((policies, bindings?))).map_err(words),
        network: network.map(|list| list.items).map_err(words),
        denied,
        conditions,
    }
}

async fn denied(client: &Client, namespace: &str) -> Read<Vec<String>> {
    let reviews = Api::<SelfSubjectAccessReview>::all(client.clone());
    let mut denied = Vec::new();
    for (verb, group, resource, namespaced) in NEEDED {
        let attributes = ResourceAttributes {
            verb: Some(verb.to_owned()),
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            namespace: namespaced.then(|| namespace.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let answer = reviews.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| told(&error))?;
        if !answer.status.is_some_and(|status| status.allowed) {
            denied.push(format!("{verb} {resource}"));
        }
    }
    Ok(denied)
}

/// Those that the pool names; all if it names none.
async fn releases(
    client: &Client,
    pool: &HostingPoolSpec,
    findings: &mut Vec<Finding>,
) -> Result<Vec<OpenClawRelease>, DoctorError> {
    let releases = Api::<Guarded<OpenClawRelease>>::all(client.clone());
    let mut names: Vec<String> = pool.allowed_releases.iter().map(ToString::to_string).collect();
    if let Some(default) = &pool.default_release
        && !names.iter().any(|name| default == name)
    {
        names.push(default.to_string());
    }
    if names.is_empty() {
        let list = releases.list(&ListParams::default()).await;
        let list = list.map_err(|error| ClusterReadError::of("OpenClawReleases", &error))?;
        return Ok(list.items.into_iter().filter_map(|release| release.0.ok()).collect());
    }
    let mut found = Vec::new();
    for name in names {
        let what = format!("OpenClawRelease {name}");
        match readable(&what, releases.get_opt(&name).await)? {
            Some(release) => found.push(release),
            None => findings.push(
                RELEASE
                    .fail(format!("There is no {what}"), Reason::ReleaseNotFound.remedy())
                    .of(name),
            ),
        }
    }
    Ok(found)
}

/// The token, or a finding that says why there is none.
async fn token(
    secrets: &Api<Secret>,
    reference: &TokenSecretRef,
    findings: &mut Vec<Finding>,
) -> Option<ApiToken> {
    let (name, key) = (reference.name.to_string(), reference.key.to_string());
    let mut failed = |why: String| {
        let finding = TOKEN_SECRET.fail(why, Reason::TokenSecretMissing.remedy());
        findings.push(finding.of(name.clone()));
        None
    };
    let what = format!("Secret {name}");
    let secret = match secrets.get_opt(&name).await {
        Ok(Some(secret)) => secret,
        Ok(None) => return failed(format!("There is no {what}")),
        Err(error) => return failed(ClusterReadError::of(&*what, &error).to_string()),
    };
    let Some(value) = secret.data.and_then(|mut data| data.remove(&key)) else {
        return failed(format!("{what} has no key {key}"));
    };
    match ApiToken::parse(value.0) {
        Ok(token) => Some(token),
        Err(error) => failed(format!("{what}: {error}")),
    }
}
