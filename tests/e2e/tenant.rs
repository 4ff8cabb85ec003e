//! One scenario's world: a namespace, a Hetzner project, a Cloudflare account and zone, a pool and a
//! release that no other scenario touches; and what its servers and clouds hold.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use k8s_openapi::api::core::v1::{Namespace, Secret as KubeSecret};
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use moorage::api::{HostingPool, OpenClawRelease};
use reqwest::Method;
use serde_json::{Value, json};

use crate::stage::{SYSTEM, Stage};

/// A key of the right format.
pub(crate) const ANTHROPIC_KEY: &str = "sk-ant-api03-a-key-of-a-test-that-opens-nothing-0123456789";

static NEXT: AtomicU32 = AtomicU32::new(1);

/// One scenario's world. Its name is used for everything in it.
pub(crate) struct Tenant {
    pub(crate) stage: Arc<Stage>,
    /// Namespace, pool, project.
    pub(crate) name: String,
    /// The Cloudflare account.
    pub(crate) account: String,
    pub(crate) zone: String,
    /// The zone's domain.
    pub(crate) domain: String,
    pub(crate) hetzner_token: String,
    pub(crate) cloudflare_token: String,
    /// The artifacts of its releases.
    pub(crate) artifacts: Value,
}

impl Tenant {
    /// Makes the world, up to a pool that is ready.
    pub(crate) async fn new(stage: Arc<Stage>, scenario: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{number}");
        let tenant = Self {
            account: format!("{number:032x}"),
            zone: format!("{:032x}", 0xf000_0000_u64 + u64::from(number)),
            domain: format!("{name}.example.com").replace(".example.com", "-example.com"),
            hetzner_token: format!("{number:064}"),
            cloudflare_token: format!("cloudflare-token-of-40-characters-{number:06}"),
            name,
            artifacts: stage.artifacts.clone(),
            stage,
        };
        eprintln!("{scenario}: tenant {}", tenant.name);
        tenant.open_accounts().await;
        tenant.make_namespace().await;
        tenant.put_tokens().await;
        tenant.apply::<OpenClawRelease>(None, tenant.release()).await;
        tenant.apply::<HostingPool>(None, tenant.pool()).await;
        tenant.pool_until("the pool is ready", |pool| is(pool, "Ready", "True")).await;
        tenant
    }

    async fn open_accounts(&self) {
        let simulator = &self.stage.simulator;
        let project = json!({"token": self.hetzner_token, "serverQuota": 20});
        simulator.put_project(&self.name, &project).await.unwrap();
        let zone = json!({"id": self.zone, "name": self.domain, "plan": "free"});
        let account = json!({"token": self.cloudflare_token, "user": self.name, "zones": [zone]});
        simulator.put_account(&self.account, &account).await.unwrap();
    }

    async fn make_namespace(&self) {
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        let api = Api::all(self.stage.client.clone());
        api.create(&PostParams::default(), &namespace).await.unwrap();
    }

    /// Writes the pool's two token Secrets as they should be.
    pub(crate) async fn put_tokens(&self) {
        self.put_token("hetzner", &self.hetzner_token).await;
        self.put_token("cloudflare", &self.cloudflare_token).await;
    }

    /// Writes one of the pool's token Secrets.
    pub(crate) async fn put_token(&self, cloud: &str, token: &str) {
        let name = format!("{}-{cloud}", self.name);
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": SYSTEM},
            "stringData": {"token": token},
        });
        let api: Api<KubeSecret> = Api::namespaced(self.stage.client.clone(), SYSTEM);
        api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(secret)).await.unwrap();
    }

    /// The release that the pool names.
    pub(crate) fn release(&self) -> Value {
        json!({
            "apiVersion": "moorage.dev/v1alpha1",
            "kind": "OpenClawRelease",
            "metadata": {"name": format!("release-{}", self.name)},
            "spec": {
                "version": self.artifacts["openclaw"]["version"], "artifacts": self.artifacts,
            },
        })
    }

    /// Applies a release that is the tenant's first one but for a change of its spec; gives its name,
    /// which is the given one and the tenant's.
    pub(crate) async fn apply_release(
        &self,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> String {
        let mut release = self.release();
        let name = format!("{name}-{}", self.name);
        release["metadata"]["name"] = json!(name);
        change(&mut release["spec"]);
        release["spec"]["version"] = release["spec"]["artifacts"]["openclaw"]["version"].clone();
        self.apply::<OpenClawRelease>(None, release).await;
        name
    }

    /// The pool as it is made.
    pub(crate) fn pool(&self) -> Value {
        json!({
            "apiVersion": "moorage.dev/v1alpha1",
            "kind": "HostingPool",
            "metadata": {"name": self.name},
            "spec": {
                "hetzner": {
                    "tokenSecretRef": {"name": format!("{}-hetzner", self.name)},
                    "serverTypes": ["cx33", "cx43"],
                    "locations": ["fsn1", "nbg1"],
                },
                "cloudflare": {
                    "tokenSecretRef": {"name": format!("{}-cloudflare", self.name)},
                    "accountId": self.account, "zoneId": self.zone, "domain": self.domain,
                },
                "capacity": 20,
                "allowedNamespaces": [self.name],
                "reservedHostnames": ["www"],
                "defaultRelease": format!("release-{}", self.name),
            },
        })
    }

    /// An instance whose name is its host name. `spec` is merged over a minimal one.
    pub(crate) fn instance(&self, name: &str, spec: Value) -> Value {
        let mut instance = json!({
            "apiVersion": "moorage.dev/v1alpha1",
            "kind": "OpenClawInstance",
            "metadata": {"name": name, "namespace": self.name},
            "spec": {
                "pool": self.name,
                "hostname": name,
                "config": {"agents": {"defaults": {"model": {"primary": "anthropic/claude-sonnet-4-5"}}}},
            },
        });
        merge(&mut instance["spec"], spec);
        instance
    }

    /// The root of the disk of an instance's server.
    pub(crate) fn disk(&self, instance: &Value) -> PathBuf {
        self.stage.simulator.server_root(instance["status"]["server"]["id"].as_u64().unwrap())
    }

    /// The file that holds the customer's keys, as JSON.
    pub(crate) fn keys_on_disk(&self, instance: &Value) -> Value {
        let path = moorage_wire::bootstrap::SECRETS_PATH.trim_start_matches('/');
        let text =
            std::fs::read_to_string(self.disk(instance).join(path)).unwrap_or_else(|_| "{}".into());
        serde_json::from_str(&text).unwrap()
    }

    /// `openclaw.json` on the disk of an instance's server.
    pub(crate) fn openclaw_config(&self, instance: &Value) -> Value {
        let path = self.disk(instance).join("var/lib/openclaw/.openclaw/openclaw.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    /// A request through the edge to one of the tenant's host names.
    pub(crate) async fn visit(&self, host: &str, path: &str, token: Option<&str>) -> (u16, String) {
        let mut request = self.at_edge(Method::GET, host, path);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap_or_default())
    }

    /// A request through the edge, to be sent.
    pub(crate) fn at_edge(
        &self,
        method: Method,
        host: &str,
        path: &str,
    ) -> reqwest::RequestBuilder {
        let client = self.edge_client(host).build().unwrap();
        client.request(method, self.url_at_edge(host, path))
    }

    /// A visitor of a host name who comes through the edge, and trusts it.
    pub(crate) fn edge_client(&self, host: &str) -> reqwest::ClientBuilder {
        let clouds = self.stage.simulator.endpoints();
        let ca = reqwest::Certificate::from_pem(&std::fs::read(&clouds.edge_ca).unwrap()).unwrap();
        reqwest::Client::builder().no_proxy().add_root_certificate(ca).resolve(host, clouds.edge)
    }

    /// What such a visitor asks for.
    pub(crate) fn url_at_edge(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.stage.simulator.endpoints().edge.port())
    }

    /// All requests that a cloud got from this tenant, in order; `tenant` is the project or account.
    pub(crate) async fn requests(&self, cloud: &str) -> Vec<Value> {
        let tenant = if cloud == "hetzner" { &self.name } else { &self.account };
        self.stage.simulator.journal(cloud, tenant).await.unwrap()
    }

    /// What the clouds hold of this tenant: (servers, tunnels, DNS records).
    pub(crate) async fn cloud_objects(&self) -> (Vec<Value>, Vec<Value>, Vec<Value>) {
        let hetzner = self.hetzner("GET", "/servers", None).await;
        let account = &self.account;
        let tunnels = self
            .cloudflare("GET", &format!("/accounts/{account}/cfd_tunnel?is_deleted=false"), None)
            .await;
        let records = self
            .cloudflare("GET", &format!("/zones/{}/dns_records?per_page=5000", self.zone), None)
            .await;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let mut records = list(&records["result"]);
        // The pool's own is there all the time.
        records.retain(|record| !record["comment"].to_string().contains("moorage-pool "));
        (list(&hetzner["servers"]), list(&tunnels["result"]), records)
    }

    /// Calls Hetzner's API as somebody with the project's token.
    pub(crate) async fn hetzner(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let base = &self.stage.simulator.endpoints().hetzner;
        call(method, &format!("{base}{path}"), &self.hetzner_token, body).await
    }

    /// Calls Cloudflare's API as somebody with the account's token.
    pub(crate) async fn cloudflare(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let base = &self.stage.simulator.endpoints().cloudflare;
        call(method, &format!("{base}{path}"), &self.cloudflare_token, body).await
    }
}

async fn call(method: &str, url: &str, token: &str, body: Option<Value>) -> Value {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client.request(method.parse().unwrap(), url).bearer_auth(token);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let text = request.send().await.unwrap().text().await.unwrap();
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

/// A condition of an object, or null.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|one| one["type"] == kind).unwrap_or(&Value::Null)
}

/// Whether a condition has this status.
pub(crate) fn is(object: &Value, kind: &str, status: &str) -> bool {
    condition(object, kind)["status"] == status
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
