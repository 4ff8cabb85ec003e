//! Tests of `plan`, against a cluster that is given.

use async_trait::async_trait;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{OpenClawRelease, annotation},
    cli::Cli,
    credentials::{secret_source::SecretView, test_keys},
};

const MANIFEST: &str = "
apiVersion: moorage.dev/v1alpha1
kind: OpenClawInstance
metadata: {name: ada, namespace: tenants}
spec:
  pool: eu-1
  hostname: ada
  config: {agents: {defaults: {workspace: ~/work}}}
  credentials:
    - {name: anthropic, type: AnthropicApiKey, secretRef: {name: ada-keys, key: anthropic}}
";

/// A cluster with one pool, one release, and whatever else a test gives it.
#[derive(Default)]
struct Cluster {
    instance: Option<OpenClawInstance>,
    secret: Option<Value>,
    secrets_forbidden: bool,
}

#[async_trait]
impl ClusterReader for Cluster {
    #[expect(clippy::unnecessary_literal_bound, reason = "the signature of the port")]
    fn namespace(&self) -> &str {
        "default"
    }

    async fn instance(&self, _: &str, _: &str) -> Result<Option<OpenClawInstance>, ReadError> {
        Ok(self.instance.clone())
    }

    async fn pool(&self, name: &str) -> Result<Option<HostingPool>, ReadError> {
        let pool = json!({
            "apiVersion": "moorage.dev/v1alpha1",
            "kind": "HostingPool",
            "metadata": {"name": name},
            "spec": {
                "hetzner": {"tokenSecretRef": {"name": "h"}, "serverTypes": ["cx33"], "locations": ["fsn1"]},
                "cloudflare": {
                    "tokenSecretRef": {"name": "c"},
                    "accountId": "0123456789abcdef0123456789abcdef",
                    "zoneId": "0123456789abcdef0123456789abcdef",
                    "domain": "example.com",
                },
                "capacity": 10,
                "allowedNamespaces": ["tenants"],
                "reservedHostnames": ["www"],
                "defaultRelease": "2026.9.6-1",
            },
            "status": {"sealingCertificate": test_keys::key(0).certificate().pem()},
        });
        Ok((name == "eu-1").then(|| serde_json::from_value(pool).unwrap()))
    }

    async fn release(&self, name: &str) -> Result<Option<OpenClawRelease>, ReadError> {
        let artifact = json!({"version": "1", "url": "https://artifacts.example/a", "sha256": "a".repeat(64), "size": 1});
        let release = json!({
            "apiVersion": "moorage.dev/v1alpha1",
            "kind": "OpenClawRelease",
            "metadata": {"name": name},
            "spec": {
                "version": "2026.9.6",
                "artifacts": {"openclaw": artifact, "node": artifact, "cloudflared": artifact, "agent": artifact},
            },
        });
        Ok((name == "2026.9.6-1").then(|| serde_json::from_value(release).unwrap()))
    }

    async fn secret(&self, _: &str, _: &str) -> Result<Option<SecretView>, ReadError> {
        if self.secrets_forbidden {
            return Err("secrets is forbidden".into());
        }
        Ok(self.secret.clone().map(|secret| {
            SecretView::from(
                serde_json::from_value::<k8s_openapi::api::core::v1::Secret>(secret).unwrap(),
            )
        }))
    }
}

fn now() -> Timestamp {
    "2026-09-01T12:00:00Z".parse().unwrap()
}

fn manifest() -> OpenClawInstance {
    parse_manifest("ada.yaml", MANIFEST, None).unwrap()
}

/// The Secret with a ciphertext that is always the same.
fn secret() -> Value {
    let bytes = [&256_u16.to_be_bytes()[..], &[1; 272]].concat();
    let sealed = moorage_wire::envelope::Envelope::from_bytes(bytes).unwrap().to_base64();
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "moorage.dev/sealed-credentials",
        "metadata": {
            "name": "ada-keys", "namespace": "tenants", "uid": "u", "resourceVersion": "7",
            "creationTimestamp": "2026-09-01T11:00:00Z", "labels": {"moorage.dev/instance": "ada"},
        },
        "stringData": {"anthropic": sealed},
    })
}

/// The instance as a ready one stands in the cluster.
fn running() -> OpenClawInstance {
    let condition = |kind: &str| {
        json!({
            "type": kind, "status": "True", "reason": "Ready", "message": "", "observedGeneration": 1,
            "lastTransitionTime": "2026-09-01T11:40:00Z",
        })
    };
    let kinds = [
        "AgentReady",
        "ConfigApplied",
        "CredentialsDelivered",
        "Ready",
        "RoutesReady",
        "ServerReady",
        "TunnelReady",
        "UpToDate",
    ];
    let mut document = serde_json::to_value(manifest()).unwrap();
    document["metadata"]["generation"] = json!(1);
    document["metadata"]["uid"] = json!("u-1");
    document["metadata"]["creationTimestamp"] = json!("2026-09-01T11:00:00Z");
    document["metadata"]["finalizers"] = json!([FINALIZER]);
    document["status"] = json!({
        "observedGeneration": 1,
        "phase": "Ready",
        "conditions": kinds.map(condition),
        "release": "2026.9.6-1",
        "server": {"epoch": "01".repeat(8), "id": 4711, "type": "cx33", "location": "fsn1"},
        "tunnel": {"id": "6ff42ae2-765d-4adf-8112-31c55c1551ef"},
        "agent": {
            "epoch": "01".repeat(8),
            "publicKey": AgentKey::from_seed(&Secret::from([5; 32])).public_key().to_string(),
            "sealingCertificate": test_keys::key(1).certificate().pem(),
        },
        "credentials": [{
            "name": "anthropic", "deliveredAt": "2026-09-01T11:30:00Z", "epoch": "01".repeat(8), "ciphertextSHA256": "b".repeat(64),
        }],
    });
    serde_json::from_value(document).unwrap()
}

async fn plan(asked: &OpenClawInstance, cluster: &Cluster) -> String {
    report(asked, cluster.instance.as_ref(), cluster, now()).await.unwrap().to_string()
}

#[tokio::test]
async fn a_new_instance_gets_the_whole_way_to_ready() {
    let cluster = Cluster { secret: Some(secret()), ..Cluster::default() };
    insta::assert_snapshot!(plan(&manifest(), &cluster).await);
}

#[tokio::test]
async fn an_instance_that_is_as_its_status_says_has_nothing_to_do() {
    let cluster = Cluster { instance: Some(running()), ..Cluster::default() };
    insta::assert_snapshot!(plan(&running(), &cluster).await);
}

#[tokio::test]
async fn a_changed_manifest_is_compared_with_what_the_server_has() {
    let cluster = Cluster { instance: Some(running()), ..Cluster::default() };
    let mut changed = manifest();
    changed.spec.config =
        serde_json::from_value(json!({"agents": {"defaults": {"workspace": "~/elsewhere"}}}))
            .unwrap();
    let asked = merged(changed, cluster.instance.as_ref(), "tenants");
    insta::assert_snapshot!(plan(&asked, &cluster).await);
}

#[tokio::test]
async fn a_rebuild_starts_over_and_says_which_key_is_lost() {
    let mut asked = running();
    asked.annotations_mut().insert(annotation::REBUILD.to_owned(), "4711".to_owned());
    let cluster = Cluster { instance: Some(running()), ..Cluster::default() };
    insta::assert_snapshot!(plan(&asked, &cluster).await);
}

#[tokio::test]
async fn a_deletion_shows_what_goes_in_which_order() {
    let mut asked = running();
    asked.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    let cluster = Cluster { instance: Some(running()), ..Cluster::default() };
    insta::assert_snapshot!(plan(&asked, &cluster).await);
}

#[tokio::test]
async fn a_secret_that_may_not_be_read_is_told() {
    let cluster = Cluster { secrets_forbidden: true, ..Cluster::default() };
    let text = plan(&manifest(), &cluster).await;
    assert!(
        text.contains("Secret ada-keys cannot be read, so it is planned as if it did not exist"),
        "{text}"
    );
}

#[test]
fn a_field_that_cannot_be_read_is_named() {
    let mut document = serde_json::to_value(manifest()).unwrap();
    document["spec"]["hostname"] = json!("ada-mgmt");
    let error = parse_manifest("ada.yaml", &document.to_string(), None).unwrap_err().to_string();
    assert!(error.contains("spec.hostname: expected one DNS label"), "{error}");
}

#[rstest]
#[case::suspended(json!({"suspend": true}), "spec.suspend is true")]
#[case::reserved(json!({"hostname": "www"}), "HostnameReserved: spec.hostname: www is reserved")]
#[case::too_deep(
    json!({"config": (0..70).fold(json!(1), |inner, _| json!({"a": inner}))}),
    "InvalidSpec: spec.config: it has more than 64 levels"
)]
#[case::a_literal_key(
    json!({"config": {"models": {"providers": {"anthropic": {"apiKey": test_keys::ANTHROPIC}}}}}),
    "LiteralSecret: spec.config.models.providers.anthropic.apiKey"
)]
#[case::not_offered(json!({"server": {"locations": ["hel1"]}}), "spec.server.locations: HostingPool eu-1 does not offer hel1")]
#[case::not_approved(json!({"integrations": [{"name": "x"}]}), "IntegrationNotApproved")]
#[tokio::test]
async fn what_is_refused_is_told_with_its_reason(#[case] changes: Value, #[case] words: &str) {
    let mut document = serde_json::to_value(manifest()).unwrap();
    for (field, value) in changes.as_object().unwrap() {
        document["spec"][field] = value.clone();
    }
    let text = plan(&serde_json::from_value(document).unwrap(), &Cluster::default()).await;
    assert!(text.contains("Nothing would be done") && text.contains(words), "{text}");
    assert!(!text.contains(test_keys::ANTHROPIC), "{text}");
}

#[tokio::test]
async fn another_namespace_is_refused_by_the_pool() {
    let mut asked = manifest();
    asked.metadata.namespace = Some("elsewhere".to_owned());
    let text = plan(&asked, &Cluster::default()).await;
    assert!(text.contains("NamespaceNotAllowed"), "{text}");
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let mut asked = manifest();
    asked.spec.pool = "us-1".parse().unwrap();
    let error = report(&asked, None, &Cluster::default(), now()).await.err().unwrap();
    assert_eq!(error.to_string(), "there is no HostingPool us-1");
    let mut asked = manifest();
    asked.spec.release = Some("next".parse().unwrap());
    let error = report(&asked, None, &Cluster::default(), now()).await.err().unwrap();
    assert_eq!(error.to_string(), "there is no OpenClawRelease next");
}

#[rstest]
#[case::not_yaml("{", None, "ada.yaml is not the manifest of one OpenClawInstance")]
#[case::another_kind(
    "apiVersion: v1\nkind: Secret\n",
    None,
    "its apiVersion is v1 and its kind Secret"
)]
#[case::no_name(
    "apiVersion: moorage.dev/v1alpha1\nkind: OpenClawInstance\nspec: {pool: a, hostname: b}\nmetadata: {}\n",
    None,
    "it has no metadata.name"
)]
#[case::no_pool(
    "apiVersion: moorage.dev/v1alpha1\nkind: OpenClawInstance\nspec: {hostname: b}\nmetadata: {name: a}\n",
    None,
    "pool"
)]
#[case::two_namespaces(
    MANIFEST,
    Some("other"),
    "the manifest is for namespace tenants, --namespace says other"
)]
fn a_manifest_that_is_none_is_refused(
    #[case] text: &str,
    #[case] namespace: Option<&str>,
    #[case] words: &str,
) {
    let error = parse_manifest("ada.yaml", text, namespace).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

#[rstest]
#[case::neither(&["plan"], false)]
#[case::both(&["plan", "-f", "ada.yaml", "ada"], false)]
#[case::a_file(&["plan", "-f", "-"], true)]
#[case::a_name(&["plan", "-n", "tenants", "ada"], true)]
fn exactly_one_of_file_and_name_is_needed(#[case] options: &[&str], #[case] good: bool) {
    use clap::Parser as _;
    let parsed = Cli::try_parse_from([&["moorage"], options].concat());
    assert_eq!(parsed.is_ok(), good);
}
