//! The cluster as the reconciler of instances uses it: a narrow port, and the real one over the
//! Kubernetes API. What is done with Secrets is in `secrets`.

mod secrets;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{Api, Client, Resource as _, api::ListParams};
use moorage_wire::Secret;
use thiserror::Error;

use crate::{
    api::{Guarded, HostingPool, OpenClawInstance, OpenClawInstanceStatus},
    api_server::told,
    controller::{latest::Latest, status},
    credentials::secret_source::{SecretVersion, SecretView},
    instance::deletion::has_history,
    metrics::{Metrics, WriteKind},
};

/// An instance by namespace and name.
#[derive(Debug, Clone, Copy)]
pub struct InstanceKey<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
}

impl<'a> InstanceKey<'a> {
    pub fn of(instance: &'a OpenClawInstance) -> Self {
        let meta = &instance.metadata;
        Self {
            namespace: meta.namespace.as_deref().unwrap_or_default(),
            name: meta.name.as_deref().unwrap_or_default(),
        }
    }
}

/// What stands in the dashboard's Secret.
pub struct DashboardAccess<'a> {
    /// Where the dashboard is.
    pub url: &'a str,
    pub token: &'a Secret,
}

impl DashboardAccess<'_> {
    /// Whether that is what stands in the Secret.
    pub fn is_in(&self, url: &Secret, token: &Secret) -> bool {
        url.expose() == self.url.as_bytes() && token.expose() == self.token.expose()
    }
}

/// A Secret of our type that is bound to an instance, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundSecret {
    pub name: String,
    pub version: SecretVersion,
    /// When it was made, by the API server's clock.
    pub created: Timestamp,
}

/// The Secret of the name that the dashboard's has, or had.
#[derive(Debug)]
pub enum DashboardSecret {
    Absent,
    /// It is somebody else's.
    Foreign,
    /// It is this very instance's, and we made it.
    Ours {
        version: SecretVersion,
        /// The address in it.
        url: Secret,
        token: Secret,
    },
}

/// The cluster, as far as the reconciler of instances needs it.
#[async_trait]
pub trait ClusterApi: Send + Sync {
    /// A Secret, parsed; `None` if there is none.
    async fn secret(&self, namespace: &str, name: &str)
    -> Result<Option<SecretView>, ClusterError>;

    /// The Secrets of our type that are bound to an instance by label.
    async fn bound_secrets(&self, key: InstanceKey<'_>) -> Result<Vec<BoundSecret>, ClusterError>;

    /// Deletes a Secret, if it still is the object that was read. Gone already is fine.
    async fn delete_secret(
        &self,
        namespace: &str,
        name: &str,
        version: &SecretVersion,
    ) -> Result<(), ClusterError>;

    /// Marks a Secret as seen beside its instance, if it still is the object that was read; gives what
    /// it is then.
    async fn mark_secret(
        &self,
        namespace: &str,
        name: &str,
        version: &SecretVersion,
        mark: &str,
    ) -> Result<SecretVersion, ClusterError>;

    /// What we wrote of an instance after the version that was seen of it.
    fn newer(&self, seen: &OpenClawInstance) -> Option<Arc<OpenClawInstance>>;

    /// Forgets what was written of all instances but those with these UIDs.
    fn retain(&self, is_there: &dyn Fn(&str) -> bool);

    /// Writes the whole status, if it says something that `current` does not; tells whether it did.
    /// Refused if the object has changed since `instance`, other than by the pass itself.
    async fn write_status(
        &self,
        instance: &OpenClawInstance,
        current: Option<&OpenClawInstanceStatus>,
        wanted: &OpenClawInstanceStatus,
    ) -> Result<bool, ClusterError>;

    /// Writes the finalizer; refused if the object has changed.
    async fn claim(&self, instance: &OpenClawInstance) -> Result<(), ClusterError>;

    /// The instance as it is now, whole; `None` if there is none, or one that cannot be read.
    async fn instance(
        &self,
        key: InstanceKey<'_>,
    ) -> Result<Option<OpenClawInstance>, ClusterError>;

    /// Whether there is such an instance.
    async fn instance_exists(&self, key: InstanceKey<'_>) -> Result<bool, ClusterError>;

    /// Whether this very object, and not another of its name, is still there.
    async fn is_there(&self, instance: &OpenClawInstance) -> Result<bool, ClusterError>;

    /// Whether there is such a `HostingPool`.
    async fn pool_exists(&self, name: &str) -> Result<bool, ClusterError>;

    /// Removes the finalizer.
    async fn release(&self, instance: &OpenClawInstance) -> Result<(), ClusterError>;

    /// How the dashboard's Secret is, or the one that was the dashboard's before.
    async fn dashboard_secret(
        &self,
        owner: &OpenClawInstance,
        name: &str,
    ) -> Result<DashboardSecret, ClusterError>;

    /// Corrects the dashboard's Secret if it still is the object that was read; makes it if none was.
    /// Gives what it is then.
    async fn write_dashboard_secret(
        &self,
        owner: &OpenClawInstance,
        name: &str,
        version: Option<&SecretVersion>,
        access: &DashboardAccess<'_>,
    ) -> Result<SecretVersion, ClusterError>;
}

/// The Kubernetes API did not do it.
#[derive(Error)]
pub enum ClusterError {
    /// The object has changed or gone since it was read: look again.
    #[error("the object has changed since it was read")]
    Changed,
    #[error("the Kubernetes API: {}", told(.0))]
    Kube(Box<kube::Error>),
}

impl ClusterError {
    /// Whether the object has no room for what was to be written.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Kube(error) if matches!(&**error, kube::Error::Api(status) if status.code == 413))
    }
}

impl fmt::Debug for ClusterError {
    /// kube's own form quotes answers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterError({self})")
    }
}

impl From<kube::Error> for ClusterError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if matches!(status.code, 404 | 409) => Self::Changed,
            error => Self::Kube(Box::new(error)),
        }
    }
}

/// The API server, through a client of kube.
pub struct KubeCluster {
    client: Client,
    metrics: Arc<Metrics>,
    written: Latest<OpenClawInstance>,
}

impl KubeCluster {
    /// Over this client.
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self { client, metrics, written: Latest::default() }
    }

    fn secrets(&self, namespace: &str) -> Api<KubeSecret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn secrets_of(&self, instance: &OpenClawInstance) -> Api<KubeSecret> {
        self.secrets(instance.meta().namespace.as_deref().unwrap_or_default())
    }

    /// The instance of this name. By a selector: the name may be a label's value, which can be empty.
    async fn find_instance(
        &self,
        key: InstanceKey<'_>,
    ) -> Result<Option<Guarded<OpenClawInstance>>, kube::Error> {
        let api: Api<Guarded<OpenClawInstance>> =
            Api::namespaced(self.client.clone(), key.namespace);
        let named = ListParams::default().fields(&format!("metadata.name={}", key.name));
        Ok(api.list(&named).await?.items.into_iter().next())
    }

    fn instances_of(&self, instance: &OpenClawInstance) -> Api<Guarded<OpenClawInstance>> {
        let namespace = instance.meta().namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.client.clone(), namespace)
    }
}

#[async_trait]
impl ClusterApi for KubeCluster {
    async fn secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<SecretView>, ClusterError> {
        Ok(self.secrets(namespace).get_opt(name).await?.map(SecretView::from))
    }

    async fn bound_secrets(&self, key: InstanceKey<'_>) -> Result<Vec<BoundSecret>, ClusterError> {
        secrets::bound(&self.secrets(key.namespace), key).await
    }

    async fn delete_secret(
        &self,
        namespace: &str,
        name: &str,
        version: &SecretVersion,
    ) -> Result<(), ClusterError> {
        if secrets::delete(&self.secrets(namespace), name, version).await? {
            self.metrics.api_write(WriteKind::Delete);
        }
        Ok(())
    }

    async fn mark_secret(
        &self,
        namespace: &str,
        name: &str,
        version: &SecretVersion,
        mark: &str,
    ) -> Result<SecretVersion, ClusterError> {
        let marked = secrets::mark(&self.secrets(namespace), name, version, mark).await?;
        self.metrics.api_write(WriteKind::Object);
        Ok(marked)
    }

    fn newer(&self, seen: &OpenClawInstance) -> Option<Arc<OpenClawInstance>> {
        self.written.newer(seen)
    }

    fn retain(&self, is_there: &dyn Fn(&str) -> bool) {
        self.written.retain(is_there);
    }

    async fn write_status(
        &self,
        instance: &OpenClawInstance,
        current: Option<&OpenClawInstanceStatus>,
        wanted: &OpenClawInstanceStatus,
    ) -> Result<bool, ClusterError> {
        let (api, version) = (self.instances_of(instance), self.written.version(instance));
        let (version, said) = (version.as_deref(), (current, wanted));
        let written = status::write(&api, instance, version, said, &self.metrics).await?;
        let wrote = written.is_some();
        if let Some(Guarded(Ok(mut written))) = written {
            // As the watch brings it: all who are refused are written to at about the same time.
            if instance.is_in_part() || !written.status.as_ref().is_some_and(has_history) {
                written.keep_in_part();
            }
            self.written.note(written);
        }
        Ok(wrote)
    }

    async fn claim(&self, instance: &OpenClawInstance) -> Result<(), ClusterError> {
        let (api, version) = (self.instances_of(instance), self.written.version(instance));
        status::set_finalizer(&api, instance, version.as_deref(), true, &self.metrics).await?;
        Ok(())
    }

    async fn instance(
        &self,
        key: InstanceKey<'_>,
    ) -> Result<Option<OpenClawInstance>, ClusterError> {
        let api: Api<Guarded<OpenClawInstance>> =
            Api::namespaced(self.client.clone(), key.namespace);
        Ok(api.get_opt(key.name).await?.and_then(|instance| instance.0.ok()))
    }

    async fn instance_exists(&self, key: InstanceKey<'_>) -> Result<bool, ClusterError> {
        Ok(self.find_instance(key).await?.is_some())
    }

    async fn is_there(&self, instance: &OpenClawInstance) -> Result<bool, ClusterError> {
        let found = self.find_instance(InstanceKey::of(instance)).await?;
        Ok(found.is_some_and(|found| found.meta().uid == instance.metadata.uid))
    }

    async fn pool_exists(&self, name: &str) -> Result<bool, ClusterError> {
        // By a selector, because a name from an object of an older schema may hold anything.
        let named = ListParams::default().fields(&format!("metadata.name={name}"));
        let of_name = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        if name.is_empty() || !name.bytes().all(of_name) {
            return Ok(false);
        }
        let pools: Api<Guarded<HostingPool>> = Api::all(self.client.clone());
        Ok(!pools.list(&named).await?.items.is_empty())
    }

    async fn release(&self, instance: &OpenClawInstance) -> Result<(), ClusterError> {
        let (api, version) = (self.instances_of(instance), self.written.version(instance));
        status::set_finalizer(&api, instance, version.as_deref(), false, &self.metrics).await?;
        Ok(())
    }

    async fn dashboard_secret(
        &self,
        owner: &OpenClawInstance,
        name: &str,
    ) -> Result<DashboardSecret, ClusterError> {
        secrets::dashboard(&self.secrets_of(owner), owner, name).await
    }

    async fn write_dashboard_secret(
        &self,
        owner: &OpenClawInstance,
        name: &str,
        version: Option<&SecretVersion>,
        access: &DashboardAccess<'_>,
    ) -> Result<SecretVersion, ClusterError> {
        let secrets = self.secrets_of(owner);
        let written = match version {
            None => secrets::create_dashboard(&secrets, owner, name, access).await?,
            Some(version) => {
                secrets::correct_dashboard(&secrets, owner, name, version, access).await?
            }
        };
        self.metrics.api_write(WriteKind::Object);
        Ok(written)
    }
}
