//! One scenario's world: a namespace, a Hetzner project, a Cloudflare account and zone, a pool and a
//! release that no other scenario touches; and what a person would do in it.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use k8s_openapi::{
    ByteString,
    api::core::v1::{Namespace, Secret as KubeSecret},
};
use kube::{
    Api,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use moorage::api::{HostingPool, OpenClawInstance, OpenClawRelease, SEALED_SECRET_TYPE, label};
use moorage_testbed::{conditions, wait_until};
use moorage_wire::{Secret, sealing::SealingCertificate, sealing::strict_label};
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
            "spec": {"version": "2026.9.6", "artifacts": self.stage.artifacts},
        })
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

    /// Applies an instance, as `kubectl apply --server-side` does.
    pub(crate) async fn apply_instance(&self, name: &str, spec: Value) {
        self.apply::<OpenClawInstance>(Some(&self.name), self.instance(name, spec)).await;
    }

    /// Applies any document.
    pub(crate) async fn apply<K>(&self, namespace: Option<&str>, document: Value)
    where
        K: kube::Resource<DynamicType = ()>,
    {
        let api = self.dynamic::<K>(namespace);
        let name = document["metadata"]["name"].as_str().unwrap().to_owned();
        let params = PatchParams::apply("test").force();
        api.patch(&name, &params, &Patch::Apply(document)).await.unwrap();
    }

    /// Merges a patch into an instance.
    pub(crate) async fn patch_instance(&self, name: &str, patch: Value) {
        let api = self.dynamic::<OpenClawInstance>(Some(&self.name));
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Asks for the deletion of an instance.
    pub(crate) async fn delete_instance(&self, name: &str) {
        let api = self.dynamic::<OpenClawInstance>(Some(&self.name));
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    fn dynamic<K: kube::Resource<DynamicType = ()>>(
        &self,
        namespace: Option<&str>,
    ) -> Api<kube::api::DynamicObject> {
        let resource = kube::api::ApiResource::erase::<K>(&());
        let client = self.stage.client.clone();
        match namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        }
    }

    /// The instance as it is now; `None` if there is none.
    pub(crate) async fn get(&self, name: &str) -> Option<Value> {
        let found = self.dynamic::<OpenClawInstance>(Some(&self.name)).get_opt(name).await.unwrap();
        found.map(|object| serde_json::to_value(object).unwrap())
    }

    /// Waits until the instance is as asked, and gives it.
    pub(crate) async fn until(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let seen = wait_until(format!("{name}: {what}"), self.stage.patience, || async {
            let instance = self.get(name).await.ok_or("there is no such instance")?;
            if wanted(&instance) { Ok(instance) } else { Err(conditions(&instance)) }
        });
        seen.await.unwrap_or_else(|late| panic!("{late}"))
    }

    /// Waits until the instance is Ready at its newest generation.
    pub(crate) async fn until_ready(&self, name: &str) -> Value {
        self.until(name, "Ready", |instance| {
            is(instance, "Ready", "True")
                && instance["status"]["observedGeneration"] == instance["metadata"]["generation"]
        })
        .await
    }

    /// Waits until a condition has this reason, and gives its message.
    pub(crate) async fn until_reason(&self, name: &str, kind: &str, reason: &str) -> String {
        let what = format!("{kind} says {reason}");
        let instance =
            self.until(name, &what, |instance| condition(instance, kind)["reason"] == reason).await;
        condition(&instance, kind)["message"].as_str().unwrap_or_default().to_owned()
    }

    /// Merges a patch into the pool.
    pub(crate) async fn patch_pool(&self, patch: Value) {
        let api = self.dynamic::<HostingPool>(None);
        api.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Loses the status of an instance, as a restore from a backup does.
    pub(crate) async fn forget_status(&self, name: &str) {
        let api = self.dynamic::<OpenClawInstance>(Some(&self.name));
        let mut object = api.get_status(name).await.unwrap();
        object.data.as_object_mut().unwrap().remove("status");
        object.metadata.managed_fields = None;
        let before = object.metadata.resource_version.clone();
        let written = api.replace_status(name, &PostParams::default(), &object).await.unwrap();
        assert_ne!(written.metadata.resource_version, before, "the status was lost");
    }

    /// Looks until `look` is content.
    pub(crate) async fn eventually<F>(&self, what: &str, look: impl FnMut() -> F)
    where
        F: Future<Output = Result<(), String>>,
    {
        wait_until(what, self.stage.patience, look).await.unwrap_or_else(|late| panic!("{late}"));
    }

    /// Waits until the clock shows another second.
    pub(crate) async fn next_second(&self) {
        let second = || jiff::Timestamp::now().as_second();
        let now = second();
        self.eventually("another second", || async move {
            if second() > now + 1 { Ok(()) } else { Err("the same".to_owned()) }
        })
        .await;
    }

    /// Waits until both clouds have been swept twice since, so that the operator knows of everything
    /// that is there now.
    pub(crate) async fn sweep_passed(&self) {
        let sweeps = |requests: &[Value]| {
            requests
                .iter()
                .filter(|entry| entry["path"] == "/servers" && entry["method"] == "GET")
                .count()
        };
        let before = sweeps(&self.requests("hetzner").await);
        self.eventually("two sweeps", || async {
            let now = sweeps(&self.requests("hetzner").await);
            if now >= before + 2 { Ok(()) } else { Err(format!("{} so far", now - before)) }
        })
        .await;
    }

    /// Waits until the instance is gone.
    pub(crate) async fn until_gone(&self, name: &str) {
        let gone = wait_until(format!("{name} is gone"), self.stage.patience, || async {
            self.get(name).await.map_or(Ok(()), |instance| Err(conditions(&instance)))
        });
        gone.await.unwrap_or_else(|late| panic!("{late}"));
    }

    /// Waits until the pool is as asked, and gives it.
    pub(crate) async fn pool_until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let pools = self.dynamic::<HostingPool>(None);
        let seen = wait_until(what, self.stage.patience, || async {
            let pool = pools.get(&self.name).await.map_err(|error| error.to_string())?;
            let pool = serde_json::to_value(pool).unwrap();
            if wanted(&pool) { Ok(pool) } else { Err(conditions(&pool)) }
        });
        seen.await.unwrap_or_else(|late| panic!("{late}"))
    }

    /// A value sealed as `kubeseal --raw` would, with the pool's certificate.
    pub(crate) async fn seal(&self, secret_or_instance: &str, value: &str) -> String {
        let pool = self
            .pool_until("a certificate", |pool| pool["status"]["sealingCertificate"].is_string())
            .await;
        let certificate = pool["status"]["sealingCertificate"].as_str().unwrap();
        self.seal_to(certificate, secret_or_instance, value)
    }

    /// A value sealed to any certificate.
    pub(crate) fn seal_to(
        &self,
        certificate: &str,
        secret_or_instance: &str,
        value: &str,
    ) -> String {
        let certificate = SealingCertificate::parse(certificate).unwrap();
        let label = strict_label(&self.name, secret_or_instance);
        certificate.seal(&Secret::from(value.to_owned()), &label).unwrap().to_base64()
    }

    /// Applies a Secret of sealed values that is bound to an instance.
    pub(crate) async fn apply_secret(&self, name: &str, instance: &str, values: &[(&str, &str)]) {
        let data = values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        let secret = KubeSecret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some([(label::INSTANCE.to_owned(), instance.to_owned())].into()),
                ..ObjectMeta::default()
            },
            type_: Some(SEALED_SECRET_TYPE.to_owned()),
            data: Some(data.collect()),
            ..KubeSecret::default()
        };
        let api: Api<KubeSecret> = Api::namespaced(self.stage.client.clone(), &self.name);
        let params = PatchParams::apply("test").force();
        api.patch(name, &params, &Patch::Apply(&secret)).await.unwrap();
    }

    /// A Secret of the tenant's namespace.
    pub(crate) async fn secret(&self, name: &str) -> Option<KubeSecret> {
        Api::namespaced(self.stage.client.clone(), &self.name).get_opt(name).await.unwrap()
    }

    /// Waits until a Secret is gone.
    pub(crate) async fn until_secret_gone(&self, name: &str) {
        let gone = wait_until(format!("Secret {name} is gone"), self.stage.patience, || async {
            self.secret(name).await.map_or(Ok(()), |_| Err("it is there".to_owned()))
        });
        gone.await.unwrap_or_else(|late| panic!("{late}"));
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
        let clouds = self.stage.simulator.endpoints();
        let ca = reqwest::Certificate::from_pem(&std::fs::read(&clouds.edge_ca).unwrap()).unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .add_root_certificate(ca)
            .resolve(host, clouds.edge)
            .build()
            .unwrap();
        let mut request = client.get(format!("https://{host}:{}{path}", clouds.edge.port()));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap_or_default())
    }

    /// All requests that a cloud got from this tenant, in order; `tenant` is the project or account.
    pub(crate) async fn requests(&self, cloud: &str) -> Vec<Value> {
        let tenant = if cloud == "hetzner" { &self.name } else { &self.account };
        let journal = self.stage.simulator.journal(0).await.unwrap();
        let ours = |entry: &Value| entry["cloud"] == cloud && entry["tenant"] == **tenant;
        journal.into_iter().filter(ours).collect()
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
        (list(&hetzner["servers"]), list(&tunnels["result"]), list(&records["result"]))
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
