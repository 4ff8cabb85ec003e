//! The API server in the model world.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::{
    ByteString,
    api::core::v1::Secret as KubeSecret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{Resource as _, ResourceExt as _};
use moorage_wire::Secret;

use super::{
    invariants,
    link::{Fate, Link},
    world::{Key, SecretThere, State},
};
use crate::{
    api::{FINALIZER, OpenClawInstance, OpenClawInstanceStatus, SEALED_SECRET_TYPE, label},
    cluster::{
        BoundSecret, ClusterApi, ClusterError, DashboardAccess, DashboardSecret, InstanceKey,
    },
    controller::status,
    credentials::secret_source::{SecretVersion, SecretView},
};

const URL: &str = "url";
const TOKEN: &str = "token";

fn failed() -> ClusterError {
    ClusterError::Kube(Box::new(kube::Error::LinesCodecMaxLineLengthExceeded))
}

fn key_of(instance: &OpenClawInstance) -> Key {
    (instance.namespace().unwrap_or_default(), instance.name_any())
}

fn version_of(secret: &SecretThere) -> SecretVersion {
    SecretVersion { uid: secret.uid.clone(), resource_version: secret.version.to_string() }
}

fn view(key: &Key, secret: &SecretThere) -> SecretView {
    let bytes = |(name, value): (&String, &Vec<u8>)| (name.clone(), ByteString(value.clone()));
    SecretView::from(KubeSecret {
        metadata: ObjectMeta {
            namespace: Some(key.0.clone()),
            name: Some(key.1.clone()),
            uid: Some(secret.uid.clone()),
            resource_version: Some(secret.version.to_string()),
            creation_timestamp: Some(Time(secret.created)),
            labels: Some(secret.labels.clone()),
            ..ObjectMeta::default()
        },
        data: Some(secret.data.iter().map(bytes).collect()),
        type_: Some(secret.kind.clone()),
        ..KubeSecret::default()
    })
}

impl Link {
    async fn cluster<T>(
        &self,
        call: &'static str,
        effect: impl FnOnce(&mut State) -> Result<T, ClusterError>,
    ) -> Result<T, ClusterError> {
        let fate = self.gate(call).await;
        if fate == Fate::Refused {
            return Err(failed());
        }
        let answer = effect(&mut self.world.state());
        if fate == Fate::Unanswered { Err(failed()) } else { answer }
    }

    /// Writes an object that still is the one that was read.
    fn change_instance(
        &self,
        state: &mut State,
        read: &OpenClawInstance,
        change: impl FnOnce(&mut OpenClawInstance),
    ) -> Result<OpenClawInstance, ClusterError> {
        let key = key_of(read);
        let instance = state.instance(&key).ok_or(ClusterError::Changed)?;
        let unchanged = instance.metadata.resource_version == self.written.version(read);
        if !unchanged || instance.metadata.uid != read.metadata.uid {
            return Err(ClusterError::Changed);
        }
        state.writes += 1;
        self.check_owner(state, "write to an instance", Some(&key));
        let written = state.change(&key, change).ok_or(ClusterError::Changed)?;
        Ok(written.clone())
    }
}

#[async_trait]
impl ClusterApi for Link {
    async fn secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<SecretView>, ClusterError> {
        let key = (namespace.to_owned(), name.to_owned());
        self.cluster("get secret", |state| {
            Ok(state.secrets.get(&key).map(|secret| view(&key, secret)))
        })
        .await
    }

    async fn bound_secrets(
        &self,
        asked: InstanceKey<'_>,
    ) -> Result<Vec<BoundSecret>, ClusterError> {
        self.cluster("list secrets", |state| {
            let bound = state.secrets.iter().filter(|((namespace, _), secret)| {
                namespace == asked.namespace
                    && secret.kind == SEALED_SECRET_TYPE
                    && secret.labels.get(label::INSTANCE).is_some_and(|of| of == asked.name)
            });
            let bound = bound.map(|((_, name), secret)| BoundSecret {
                name: name.clone(),
                version: version_of(secret),
                created: secret.created,
            });
            Ok(bound.collect())
        })
        .await
    }

    async fn delete_secret(
        &self,
        namespace: &str,
        name: &str,
        version: &SecretVersion,
    ) -> Result<(), ClusterError> {
        let key = (namespace.to_owned(), name.to_owned());
        self.cluster("delete secret", |state| {
            let Some(secret) = state.secrets.get(&key).cloned() else { return Ok(()) };
            if version_of(&secret) != *version {
                return Err(ClusterError::Changed);
            }
            invariants::secret_deleted(state, &key, &secret);
            state.secrets.remove(&key);
            state.writes += 1;
            Ok(())
        })
        .await
    }

    async fn mark_secret(
        &self,
        _: &str,
        _: &str,
        _: &SecretVersion,
        _: &str,
    ) -> Result<SecretVersion, ClusterError> {
        panic!("an instance's pass does not ask for this")
    }

    fn newer(&self, observed: &OpenClawInstance) -> Option<Arc<OpenClawInstance>> {
        self.written.newer(observed)
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
        if !status::differs(current, wanted) {
            return Ok(false);
        }
        let written = self.cluster("write status", |state| {
            let set = |stored: &mut OpenClawInstance| stored.status = Some(wanted.clone());
            let changed = self.change_instance(state, instance, set)?;
            state.status_writes += 1;
            Ok(changed)
        });
        self.written.note(written.await?);
        Ok(true)
    }

    async fn claim(&self, instance: &OpenClawInstance) -> Result<(), ClusterError> {
        self.cluster("claim", |state| {
            let hold = |stored: &mut OpenClawInstance| {
                stored.finalizers_mut().push(FINALIZER.to_owned());
            };
            self.change_instance(state, instance, hold)?;
            state.held.insert(key_of(instance));
            Ok(())
        })
        .await
    }

    async fn instance(
        &self,
        asked: InstanceKey<'_>,
    ) -> Result<Option<OpenClawInstance>, ClusterError> {
        let key = (asked.namespace.to_owned(), asked.name.to_owned());
        self.cluster("read instance", |state| Ok(state.instance(&key).cloned())).await
    }

    async fn instance_exists(&self, asked: InstanceKey<'_>) -> Result<bool, ClusterError> {
        let key = (asked.namespace.to_owned(), asked.name.to_owned());
        self.cluster("look for instance", |state| Ok(state.instances.contains_key(&key))).await
    }

    async fn is_there(&self, instance: &OpenClawInstance) -> Result<bool, ClusterError> {
        let key = key_of(instance);
        self.cluster("look for this instance", |state| {
            Ok(state.instance(&key).is_some_and(|there| there.uid() == instance.uid()))
        })
        .await
    }

    async fn pool_exists(&self, _: &str) -> Result<bool, ClusterError> {
        self.cluster("look for pool", |_| Ok(true)).await
    }

    async fn release(&self, instance: &OpenClawInstance) -> Result<(), ClusterError> {
        let key = key_of(instance);
        self.cluster("release", |state| {
            if !state.instances.contains_key(&key) {
                return Ok(());
            }
            let free = |stored: &mut OpenClawInstance| {
                stored.finalizers_mut().retain(|held| held != FINALIZER);
            };
            let freed = self.change_instance(state, instance, free)?;
            invariants::released(state, &key);
            if freed.metadata.deletion_timestamp.is_some() && freed.finalizers().is_empty() {
                state.remove_instance(&key);
            }
            Ok(())
        })
        .await
    }

    async fn dashboard_secret(
        &self,
        owner: &OpenClawInstance,
        name: &str,
    ) -> Result<DashboardSecret, ClusterError> {
        let key = (owner.namespace().unwrap_or_default(), name.to_owned());
        self.cluster("get dashboard secret", |state| {
            let Some(secret) = state.secrets.get(&key) else { return Ok(DashboardSecret::Absent) };
            if secret.controller != owner.uid() || !secret.labels.contains_key(label::DASHBOARD_OF)
            {
                return Ok(DashboardSecret::Foreign);
            }
            let value = |key: &str| Secret::new(secret.data.get(key).cloned().unwrap_or_default());
            Ok(DashboardSecret::Ours {
                version: version_of(secret),
                url: value(URL),
                token: value(TOKEN),
            })
        })
        .await
    }

    async fn write_dashboard_secret(
        &self,
        owner: &OpenClawInstance,
        name: &str,
        version: Option<&SecretVersion>,
        access: &DashboardAccess<'_>,
    ) -> Result<SecretVersion, ClusterError> {
        let key = (owner.namespace().unwrap_or_default(), name.to_owned());
        self.cluster("write dashboard secret", |state| {
            if state.secrets.get(&key).map(version_of).as_ref() != version {
                return Err(ClusterError::Changed);
            }
            let number = state.number();
            let before = state.secrets.get(&key);
            let values = [(URL, access.url.as_bytes()), (TOKEN, access.token.expose())];
            let written = SecretThere {
                uid: before.map_or_else(|| format!("secret-{number}"), |secret| secret.uid.clone()),
                version: number,
                created: before.map_or(state.now, |secret| secret.created),
                kind: "Opaque".to_owned(),
                labels: [(label::DASHBOARD_OF.to_owned(), owner.name_any())].into(),
                data: values.map(|(name, value)| (name.to_owned(), value.to_vec())).into(),
                controller: owner.meta().uid.clone(),
            };
            let version = version_of(&written);
            state.secrets.insert(key, written);
            state.writes += 1;
            Ok(version)
        })
        .await
    }
}
