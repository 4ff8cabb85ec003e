//! Moorage is taken away in the wrong order, and comes back; and its master key is rotated. Each has a
//! cluster of its own, since what is taken away is everybody's. The commands are those of
//! `docs/operations.md`.

use std::{path::PathBuf, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Namespace, Secret as KubeSecret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::Api;
use moorage_testbed::{Tool, Tools, kubectl, service_account_kubeconfig, wait_until};
use serde_json::{Value, json};

use crate::{
    lifecycle::make_ada,
    stage::{Installed, Kept, SYSTEM, Servers, Stage},
    tenant::{Tenant, is},
    trouble::server_id,
};

/// A cluster of one's own.
pub(crate) struct Own {
    pub(crate) tools: Tools,
    pub(crate) stage: Arc<Stage>,
    pub(crate) tenant: Tenant,
}

impl Own {
    /// `None`, said loudly, where a tool is missing.
    pub(crate) async fn start(installed: Installed) -> Option<Self> {
        let tools = Tools::for_test(&[Tool::Kubectl])?;
        let stage = Arc::new(Stage::start_as(Servers::processes(), installed).await?);
        let tenant = Tenant::new(Arc::clone(&stage), "removal").await;
        Some(Self { tools, stage, tenant })
    }

    pub(crate) fn kubectl(&self, command: &str) -> String {
        self.kubectl_with(command, b"")
    }

    pub(crate) fn kubectl_with(&self, command: &str, input: &[u8]) -> String {
        let arguments: Vec<_> = command.split(' ').collect();
        kubectl(self.tools, &self.stage.plane, &arguments, input)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Ends the operator, as the deletion of its Deployment does.
    pub(crate) fn stop(&self) {
        let mut kept = self.stage.operator.lock().unwrap();
        kept.wanted = false;
        kept.operator.process().stop();
    }

    /// Crashes the operator.
    fn kill(&self) {
        let mut kept = self.stage.operator.lock().unwrap();
        kept.wanted = false;
        kept.operator.process().kill();
    }

    /// Starts the operator as the one in the cluster starts: with its own rights.
    pub(crate) async fn run(&self) {
        let client = self.stage.client.clone();
        let path = &self.stage.kubeconfig;
        service_account_kubeconfig(&self.stage.plane, client, SYSTEM, "moorage", path)
            .await
            .unwrap();
        let kept = Kept::start(&self.stage.options, self.stage.simulator.endpoints()).await;
        *self.stage.operator.lock().unwrap() = kept;
    }

    pub(crate) fn secrets(&self) -> Api<KubeSecret> {
        Api::namespaced(self.stage.client.clone(), SYSTEM)
    }

    pub(crate) async fn eventually<F>(&self, what: &str, look: impl FnMut() -> F)
    where
        F: Future<Output = Result<(), String>>,
    {
        let seen = wait_until(what, self.stage.patience, look);
        seen.await.unwrap_or_else(|late| panic!("{late}\n{}", self.stage.operator_log()));
    }

    async fn until_namespace_is_gone(&self) {
        let namespaces: Api<Namespace> = Api::all(self.stage.client.clone());
        self.eventually("the namespace goes", || async {
            let found = namespaces.get_opt(SYSTEM).await.map_err(|error| error.to_string())?;
            found.map_or(Ok(()), |namespace| Err(format!("{:?}", namespace.status)))
        })
        .await;
    }

    pub(crate) async fn posts(&self) -> usize {
        self.tenant.count("hetzner", "POST", "/servers").await
    }
}

pub(crate) async fn what_is_removed_in_the_wrong_order_has_a_way_back(_: Tenant) {
    let Some(own) = Own::start(Installed::Kustomize).await else { return };
    let ada = make_ada(&own.tenant).await;
    let posts = own.posts().await;
    the_operator_goes_first(&own, &ada).await;
    the_namespace_goes_first(&own, &ada).await;
    assert_eq!(own.posts().await, posts, "no server was recreated");
    the_definitions_go_first(&own).await;
    helm_takes_over_what_kustomize_made(&own);
}

/// `kubectl delete -k config/default`, the command that made it with `delete` in place of `apply`.
async fn the_operator_goes_first(own: &Own, ada: &Value) {
    own.kubectl("delete -k config/default");
    own.stop();
    let now = own.tenant.get("ada").await.unwrap();
    assert!(now["metadata"]["deletionTimestamp"].is_null(), "nothing of a customer is deleted");
    own.secrets().get("moorage-master-key").await.unwrap();
    let (status, _) = own.tenant.visit(&format!("ada.{}", own.tenant.domain), "/", None).await;
    assert_eq!(status, 200, "the customer notices nothing");

    own.kubectl("apply --server-side -k config/default");
    own.run().await;
    let back = own.tenant.until_ready("ada").await;
    assert_eq!(server_id(&back), server_id(ada));
}

/// The namespace with the master key, the tokens, the sealing keys and the operator.
async fn the_namespace_goes_first(own: &Own, ada: &Value) {
    own.kubectl("delete namespace moorage-system --wait=false");
    own.stop();
    own.eventually("all but the key is gone", || async {
        let left = own.secrets().list(&kube::api::ListParams::default()).await;
        let left = left.map_err(|error| error.to_string())?;
        let names: Vec<_> = left.iter().filter_map(|secret| secret.metadata.name.clone()).collect();
        if names == ["moorage-master-key"] { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;

    // The way back, word by word.
    let part = |key: &str| {
        let path = format!("jsonpath={{.data['{key}']}}");
        own.kubectl(&format!("-n moorage-system get secret moorage-master-key -o {path}"))
    };
    let saved = [part("key"), part("installation-id")];
    own.kubectl("-n moorage-system patch secret moorage-master-key --type=merge -p {\"metadata\":{\"finalizers\":null}}");
    own.until_namespace_is_gone().await;
    own.kubectl("apply --server-side -k config/prerequisites");
    let restored = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "moorage-master-key", "namespace": SYSTEM},
        "data": {"key": saved[0], "installation-id": saved[1]},
    });
    own.kubectl_with("create -f -", restored.to_string().as_bytes());
    own.tenant.put_tokens().await;
    own.kubectl("apply --server-side -k config/default");
    own.run().await;
    own.tenant.pool_until("the pool is ready", |pool| is(pool, "Ready", "True")).await;
    own.tenant.look_now("ada").await;
    let back = own.tenant.until_ready("ada").await;
    assert_eq!(server_id(&back), server_id(ada));
    assert_eq!(back["status"]["agent"]["publicKey"], ada["status"]["agent"]["publicKey"]);
}

/// The definitions, and with them every object, while no operator runs.
async fn the_definitions_go_first(own: &Own) {
    own.stop();
    own.kubectl("delete -k config/crd --wait=false");
    own.eventually("the instance is to go", || async {
        let ada = own.tenant.get("ada").await.ok_or("it is gone")?;
        let asked = &ada["metadata"]["deletionTimestamp"];
        if asked.is_string() { Ok(()) } else { Err(ada["metadata"].to_string()) }
    })
    .await;
    // The way: let an operator finish it.
    own.run().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(own.stage.client.clone());
    own.eventually("the definitions go", || async {
        let left = definitions.list(&kube::api::ListParams::default()).await;
        let left = left.map_err(|error| error.to_string())?;
        let names: Vec<_> = left.iter().filter_map(|crd| crd.metadata.name.clone()).collect();
        if names.is_empty() { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    let (servers, tunnels, records) = own.tenant.cloud_objects().await;
    assert_eq!((servers, tunnels, records), (vec![], vec![], vec![]));
    let firewalls = own.tenant.hetzner("GET", "/firewalls", None).await;
    assert_eq!(firewalls["firewalls"], json!([]));
    let account = format!("/accounts/{}/access", own.tenant.account);
    for kind in ["apps", "policies", "service_tokens"] {
        let left = own.tenant.cloudflare("GET", &format!("{account}/{kind}"), None).await;
        assert_eq!(left["result"], json!([]), "{kind}");
    }
    own.stop();
}

fn helm_takes_over_what_kustomize_made(own: &Own) {
    own.kubectl("apply --server-side -k config/prerequisites");
    own.kubectl("apply --server-side -k config/default");
    let scratch: PathBuf = own.stage.kubeconfig.with_file_name("helm");
    let install = |further: &[&str]| {
        moorage_testbed::install_chart_with(
            own.tools,
            &own.stage.plane,
            SYSTEM,
            &[],
            further,
            &scratch,
        )
    };
    let refused = install(&[]).unwrap_err().to_string();
    assert!(refused.contains("invalid ownership metadata"), "{refused}");
    install(&["--take-ownership", "--force-conflicts"]).unwrap();
}

pub(crate) async fn a_master_key_is_rotated_under_crashes_and_the_old_one_can_go(_: Tenant) {
    let Some(own) = Own::start(Installed::Chart).await else { return };
    let tenant = &own.tenant;
    let access = json!({"access": {"dashboardSecretName": "ada-dashboard"}});
    tenant.apply_instance("ada", access).await;
    tenant.make("bob").await;
    let ada = tenant.until_ready("ada").await;
    let old = ada["status"]["server"]["masterKeyId"].as_str().unwrap().to_owned();
    let token = async || dashboard_token(tenant).await;
    let first = token().await;
    let told = tenant.pool_until("the key is told", |pool| pool["status"]["masterKey"].is_object());
    let told = told.await["status"]["masterKey"].clone();
    assert_eq!((&told["id"], &told["source"]), (&json!(old), &json!("Secret")));
    assert!(told["message"].as_str().unwrap().contains("etcd"), "{told}");

    own.kubectl_with(
        "-n moorage-system create secret generic moorage-master-key-2 --from-file=key=/dev/stdin",
        b"0123456789abcdef0123456789abcdef",
    );
    // Asked for too early: nothing is lost.
    own.kubectl("-n moorage-system delete secret moorage-master-key --wait=false");
    for _ in 0..3 {
        own.kill();
        own.run().await;
        tenant.look_now("ada").await;
        tenant.look_now("bob").await;
    }
    let moved = |instance: &Value| {
        let id = &instance["status"]["server"]["masterKeyId"];
        id.is_string() && *id != json!(old) && is(instance, "Ready", "True")
    };
    for (name, before) in [("ada", Some(&ada)), ("bob", None)] {
        let after = tenant.until(name, "it obeys the new key", moved).await;
        if let Some(before) = before {
            assert_eq!(server_id(&after), server_id(before));
        }
    }
    own.eventually("the old key goes by itself", || async {
        let found = own.secrets().get_opt("moorage-master-key").await;
        let found = found.map_err(|error| error.to_string())?;
        found.map_or(Ok(()), |secret| Err(format!("{:?}", secret.metadata)))
    })
    .await;
    let rotated = tenant.pool_until("one key is left", |pool| {
        let key = &pool["status"]["masterKey"];
        key["id"] != json!(old) && key["older"].is_null()
    });
    rotated.await;
    assert_ne!(token().await, first, "whoever has the old key has no token that works");
    let host = format!("ada.{}", tenant.domain);
    // The tunnel's secret is of the new key as well, so that cloudflared connects again.
    own.eventually("the dashboard answers", || async {
        let (status, page) = tenant.visit(&host, "/", None).await;
        if status == 200 { Ok(()) } else { Err(format!("{status}: {page}")) }
    })
    .await;

    // With the new key alone everything works: a restart, a change, a new server, the end.
    own.kill();
    own.run().await;
    tenant
        .patch_instance(
            "ada",
            json!({"spec": {"config": {"agents": {"defaults": {"timeoutSeconds": 600}}}}}),
        )
        .await;
    tenant.until_ready("ada").await;
    let carol = tenant.make("carol").await;
    assert_ne!(carol["status"]["server"]["masterKeyId"], json!(old));
    tenant.forget_status("bob").await;
    tenant.until_ready("bob").await;
}

async fn dashboard_token(tenant: &Tenant) -> Vec<u8> {
    let secrets: Api<KubeSecret> = Api::namespaced(tenant.stage.client.clone(), &tenant.name);
    let secret = secrets.get("ada-dashboard").await.unwrap();
    secret.data.unwrap()["token"].0.clone()
}
