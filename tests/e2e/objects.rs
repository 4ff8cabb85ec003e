//! What a scenario does with the cluster's objects, as a person would with `kubectl`, and what it waits
//! for there.

use std::path::{Path, PathBuf};

use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{Secret as KubeSecret, ServiceAccount},
        rbac::v1::RoleBinding,
    },
};
use kube::{
    Api,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use moorage::api::{HostingPool, OpenClawInstance, SEALED_SECRET_TYPE, label};
use moorage_testbed::{conditions, service_account_kubeconfig, wait_until};
use moorage_wire::{Secret, sealing::SealingCertificate, sealing::strict_label};
use serde_json::{Value, json};

use crate::tenant::{Tenant, condition, is};

impl Tenant {
    /// Applies an instance, as `kubectl apply --server-side` does.
    pub(crate) async fn apply_instance(&self, name: &str, spec: Value) {
        self.apply::<OpenClawInstance>(Some(&self.name), self.instance(name, spec)).await;
    }

    /// Applies an instance that may be refused; gives the API server's answer then.
    pub(crate) async fn try_instance(&self, name: &str, spec: Value) -> Result<(), String> {
        let api = self.dynamic::<OpenClawInstance>(Some(&self.name));
        let document = Patch::Apply(self.instance(name, spec));
        let applied = api.patch(name, &PatchParams::apply("test").force(), &document).await;
        applied.map(drop).map_err(|error| error.to_string())
    }

    /// The kubeconfig of somebody with the `ClusterRole` `edit` in the tenant's namespace, and no more.
    pub(crate) async fn editor(&self, folder: &Path) -> PathBuf {
        let account = json!({"metadata": {"name": "editor", "namespace": self.name}});
        let binding = json!({
            "metadata": {"name": "editor", "namespace": self.name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "ServiceAccount", "name": "editor", "namespace": self.name}],
        });
        let client = &self.stage.client;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &self.name);
        let account = serde_json::from_value(account).unwrap();
        accounts.create(&PostParams::default(), &account).await.unwrap();
        let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), &self.name);
        let binding = serde_json::from_value(binding).unwrap();
        bindings.create(&PostParams::default(), &binding).await.unwrap();
        let path = folder.join("editor.kubeconfig");
        let plane = &self.stage.plane;
        service_account_kubeconfig(plane, client.clone(), &self.name, "editor", &path)
            .await
            .unwrap();
        path
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

    /// Makes a Secret that is not for Moorage but carries the label of an instance.
    pub(crate) async fn make_secret(&self, name: &str, kind: &str, instance: &str, data: Value) {
        let metadata = json!({"name": name, "labels": {label::INSTANCE: instance}});
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind,
            "stringData": data,
        });
        self.apply::<KubeSecret>(Some(&self.name), secret).await;
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
}
