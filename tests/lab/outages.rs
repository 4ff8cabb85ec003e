//! What fails around a server while it comes up: the artifact server, and its power, at every step.

use std::path::PathBuf;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use moorage_testbed::{Cloudflared, LabServer, Press};
use serde_json::{Value, json};

use crate::{
    PROGRAMS,
    cuts::until_or_past,
    server::{blocking, prints},
    tenant::{ANTHROPIC_KEY, Tenant, condition},
    trouble::server_id,
    updates::program,
};

const SECRETS: &str = "/var/lib/openclaw/credentials/secrets.json";
const STATE: &str = "/var/lib/openclaw/.openclaw";

pub(crate) async fn a_server_comes_up_wherever_its_power_is_cut(tenant: Tenant) {
    let artifacts = Artifacts::of(&tenant).await;
    let policy = keep_secrets(&tenant).await;
    for path in [&artifacts.agent, &artifacts.cloudflared, &artifacts.node] {
        artifacts.hold(&tenant, path).await;
    }
    ask_for_ada(&tenant, &artifacts).await;
    let has_server = |ada: &Value| ada["status"]["server"]["id"].is_u64();
    let ada = tenant.until("ada", "a server", has_server).await;
    let mut server = Rising { tenant: &tenant, server: tenant.server(&ada), cuts: 0 };

    server.until_prints(&["cat", "/run/cloud-init/status.json"], "init-local").await;
    let state = server.server.state().await.unwrap();
    // Nothing holds it there.
    eprintln!("{}: cloud-init is {:?}", tenant.name, state.cloud_init);
    server.cut("cloud-init runs").await;

    server.until_prints(&["find", "/opt/moorage/agent", "-size", "+0"], "/moorage-agent").await;
    artifacts.let_go(&tenant, &artifacts.agent).await;
    server.cut("the first boot fetches the agent").await;

    server.until_prints(&["ls", "/var/lib/moorage"], "identity.json").await;
    server.until_prints(&["ls", "-A", "/opt/moorage/cloudflared"], ".").await;
    let refusals = [
        json!({"times": 1, "fault": {"kind": "down"}}),
        json!({"times": 1, "fault": {"kind": "cut", "after": 1_000_000}}),
        json!({"times": 1, "fault": {"kind": "wrong-bytes"}}),
    ];
    let simulator = &tenant.stage.simulator;
    simulator.set_faults_of_artifact(&artifacts.cloudflared, &refusals).await.unwrap();
    server.cut("the agent has made its keys and nobody has seen them").await;

    server.until_prints(&["cat", SECRETS], ANTHROPIC_KEY).await;
    assert!(tenant.secret("ada-keys").await.is_some(), "nobody may delete it yet");
    server.cut("a key is on the server and its Secret is not deleted yet").await;
    allow_deletion(&tenant, &policy).await;
    tenant.until_secret_gone("ada-keys").await;

    let parts = ["find", "/var/lib/moorage/downloads", "-name", "*.part", "-size", "+0"];
    server.until_prints(&parts, ".part").await;
    artifacts.let_go(&tenant, &artifacts.node).await;
    server.cut("the agent fetches Node.js").await;
    artifacts.until_resumed(&tenant, &artifacts.node).await;

    let staging = ["ls", "/opt/moorage/.staging/openclaw"];
    let unpacked = ["ls", "/opt/moorage/openclaw"];
    let openclaw = artifacts.pinned["openclaw"]["sha256"].as_str().unwrap();
    until_or_past(
        &tenant,
        "OpenClaw is unpacked",
        || prints(&server.server, &staging, "contents"),
        || prints(&server.server, &unpacked, openclaw),
    )
    .await;
    server.cut("OpenClaw is unpacked").await;

    let configured = ["find", STATE, "-name", "openclaw.json"];
    until_or_past(
        &tenant,
        "the first configuration is checked",
        || prints(&server.server, &["ls", STATE], "openclaw.staged.json"),
        || prints(&server.server, &configured, "openclaw.json"),
    )
    .await;
    server.cut("the first configuration is checked").await;

    tenant.until_active(&server.server, "openclaw.service").await;
    server.cut("OpenClaw starts").await;

    let ada = tenant.until_ready("ada").await;
    tenant.until_dashboard_answers("ada").await;
    assert_eq!(server.server.state().await.unwrap().starts, server.cuts + 1);
    assert_eq!(server_id(&ada), server.server.id(), "the same server");
    assert_eq!(tenant.count("hetzner", "POST", "/servers").await, 1);
    let delivered = ada["status"]["credentials"].as_array().unwrap();
    assert!(delivered.len() == 1 && delivered[0]["recreated"].is_null(), "{delivered:?}");
    let keys: Value = serde_json::from_slice(&server.server.read(SECRETS).await.unwrap()).unwrap();
    assert_eq!(keys["anthropic"], ANTHROPIC_KEY);

    a_full_disk_is_told_and_survived(&tenant, &server.server).await;
}

/// A server on its way up.
struct Rising<'a> {
    tenant: &'a Tenant,
    server: LabServer,
    cuts: u32,
}

impl Rising<'_> {
    async fn until_prints(&self, argv: &[&str], wanted: &str) {
        self.tenant.until_prints(&self.server, argv, wanted).await;
    }

    async fn cut(&mut self, what: &str) {
        self.server.power(Press::Reset).await.unwrap();
        self.cuts += 1;
        eprintln!("{}: power cut {} while {what}", self.tenant.name, self.cuts);
    }
}

async fn ask_for_ada(tenant: &Tenant, artifacts: &Artifacts) {
    let own = |spec: &mut Value| spec["artifacts"] = artifacts.pinned.clone();
    let name = tenant.apply_release("own", own).await;
    let sealed = tenant.seal("ada-keys", ANTHROPIC_KEY).await;
    tenant.apply_secret("ada-keys", "ada", &[("anthropic", &sealed)]).await;
    let reference = json!({"name": "ada-keys", "key": "anthropic"});
    let credential =
        json!({"name": "anthropic", "type": "AnthropicApiKey", "secretRef": reference});
    tenant.apply_instance("ada", json!({"release": name, "credentials": [credential]})).await;
}

/// The programs under addresses of this scenario alone.
struct Artifacts {
    pinned: Value,
    agent: String,
    cloudflared: String,
    node: String,
}

impl Artifacts {
    async fn of(tenant: &Tenant) -> Self {
        let (mut pinned, name) = (tenant.artifacts.clone(), tenant.name.clone());
        blocking(move || {
            let programs = PROGRAMS.get().unwrap();
            let mut show = |kind: &str, file: PathBuf| {
                let version = pinned[kind]["version"].as_str().unwrap().to_owned();
                let (artifact, path) = programs.show_for(&name, kind, &version, &file).unwrap();
                pinned[kind] = artifact;
                path
            };
            let agent = show("agent", program("MOORAGE_LAB_AGENT"));
            let cloudflared = show("cloudflared", Cloudflared::from_env().unwrap().program);
            let node = show("node", program("MOORAGE_LAB_NODE"));
            Self { pinned, agent, cloudflared, node }
        })
        .await
    }

    /// Lets a file come so slowly that it does not arrive.
    async fn hold(&self, tenant: &Tenant, path: &str) {
        let slow = json!({"fault": {"kind": "slow", "bytesPerSecond": 20_000}});
        tenant.stage.simulator.set_faults_of_artifact(path, &[slow]).await.unwrap();
    }

    async fn let_go(&self, tenant: &Tenant, path: &str) {
        tenant.stage.simulator.set_faults_of_artifact(path, &[]).await.unwrap();
    }

    async fn until_resumed(&self, tenant: &Tenant, path: &str) {
        tenant
            .eventually("a part of a file is asked for", || async {
                let requests = tenant.stage.simulator.artifact_requests().await;
                let requests = requests.map_err(|error| error.to_string())?;
                let mut ours = requests.iter().filter(|request| request["path"] == path);
                let resumed = ours.any(|request| request["status"] == 206);
                if resumed { Ok(()) } else { Err("none was".to_owned()) }
            })
            .await;
    }
}

/// Has the cluster refuse to delete the instance's Secret; gives the name of the policy.
async fn keep_secrets(tenant: &Tenant) -> String {
    let name = format!("keep-{}", tenant.name);
    let policy = json!({
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"],
                "operations": ["DELETE"], "resources": ["secrets"],
            }]},
            "validations": [{"expression": "oldObject.metadata.name != 'ada-keys'"}],
        },
    });
    let binding = json!({
        "metadata": {"name": name},
        "spec": {
            "policyName": name, "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {
                "matchLabels": {"kubernetes.io/metadata.name": tenant.name},
            }},
        },
    });
    let client = &tenant.stage.client;
    let policies = Api::<ValidatingAdmissionPolicy>::all(client.clone());
    let policy = serde_json::from_value(policy).unwrap();
    policies.create(&PostParams::default(), &policy).await.unwrap();
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone());
    let binding = serde_json::from_value(binding).unwrap();
    bindings.create(&PostParams::default(), &binding).await.unwrap();
    name
}

async fn allow_deletion(tenant: &Tenant, policy: &str) {
    let client = &tenant.stage.client;
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone());
    bindings.delete(policy, &DeleteParams::default()).await.unwrap();
    let policies = Api::<ValidatingAdmissionPolicy>::all(client.clone());
    policies.delete(policy, &DeleteParams::default()).await.unwrap();
}

async fn a_full_disk_is_told_and_survived(tenant: &Tenant, server: &LabServer) {
    let is_told = |ada: &Value| {
        let said = condition(ada, "ConfigApplied")["message"].as_str().unwrap_or_default();
        said.contains("No space left") || said.contains("os error 28")
    };
    let is_applied = |ada: &Value| {
        ada["status"]["observedGeneration"] == ada["metadata"]["generation"]
            && condition(ada, "ConfigApplied")["reason"] == "Ready"
    };
    // What ends meanwhile may give back room that suffices for once.
    let mut told = false;
    let mut filler = "";
    for number in 0..5 {
        filler = server.fill_disk().await.unwrap();
        let primary = format!("openai/gpt-{}", 5 + number);
        let model = json!({"agents": {"defaults": {"model": {"primary": primary}}}});
        tenant.patch_instance("ada", json!({"spec": {"config": model}})).await;
        let seen = |ada: &Value| is_told(ada) || is_applied(ada);
        told = is_told(&tenant.until("ada", "the full disk is told or suffices", seen).await);
        if told {
            break;
        }
    }
    assert!(told, "a full disk is told");
    tenant.until_dashboard_answers("ada").await;
    server.exec(&["rm", filler]).await.unwrap();
    tenant.until_ready("ada").await;
}
