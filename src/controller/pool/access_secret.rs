//! The Secret `moorage-access-<pool>` in the operator's namespace: the one place where the service
//! token's secret is kept, since Cloudflare shows it once.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::{
    ByteString, api::core::v1::Secret as KubeSecret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams, Preconditions},
};
use moorage_wire::Secret;

use crate::pool::identity::PoolIdentity;
use crate::{
    agent::AccessHeaders,
    api::conditions::Reason,
    api_server::told,
    cloudflare::IssuedServiceToken,
    metrics::{Metrics, WriteKind},
    problem::{Problem, Retry},
};

/// Type of the Secret that the operator keeps a pool's Access token in.
pub const ACCESS_SECRET_TYPE: &str = "moorage.dev/access-token";
const CLIENT_ID: &str = "client-id";
const CLIENT_SECRET: &str = "client-secret";

/// Which version of the Secret was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Version {
    uid: Option<String>,
    resource_version: Option<String>,
}

/// What the Secret of a pool's Access token holds.
#[derive(Debug, Clone)]
pub enum StoredToken {
    /// There is no such Secret.
    Absent,
    /// There is one, and it is not this pool's.
    Foreign,
    /// Ours, but without a usable token in it.
    Damaged(Version),
    Intact(Version, Arc<AccessHeaders>),
}

impl StoredToken {
    /// The token, if there is one.
    pub fn headers(&self) -> Option<&Arc<AccessHeaders>> {
        match self {
            Self::Intact(_, headers) => Some(headers),
            _ => None,
        }
    }
}

/// The port to the Secret, so that a pass can be tested without a cluster.
#[async_trait]
pub trait AccessSecret: Send + Sync {
    /// For messages: the Secret by namespace and name.
    fn place(&self) -> String;

    async fn read(&self) -> Result<StoredToken, kube::Error>;

    /// Stores a token: creates the Secret if there was none, else replaces exactly what was read.
    async fn store(
        &self,
        token: IssuedServiceToken,
        replaces: &StoredToken,
    ) -> Result<Arc<AccessHeaders>, kube::Error>;

    /// Deletes what was read.
    async fn delete(&self, stored: &StoredToken) -> Result<(), kube::Error>;
}

/// What an error of the API server about this Secret means for the pool.
pub fn problem(error: &kube::Error, place: &str) -> Problem {
    tracing::warn!(error = told(error), secret = place, "the Access service token cannot be kept");
    let forbidden = matches!(error, kube::Error::Api(status) if status.is_forbidden());
    if forbidden {
        let message = format!(
            "The operator may not read and write Secret {place}. Give its Role that right."
        );
        Problem::whole(Reason::Forbidden, message).retrying(Retry::Slowly)
    } else {
        let message = format!("Secret {place} cannot be read or written. Moorage tries again.");
        Problem::whole(Reason::Progressing, message)
    }
}

/// The Secret has been made by someone else.
pub fn foreign(place: &str) -> Problem {
    let message = format!(
        "Secret {place} exists and is not of this pool. Delete or rename it: Moorage keeps the pool's Access service token there."
    );
    Problem::whole(Reason::ForeignSecret, message).retrying(Retry::BackOff)
}

pub fn secret_name(pool: &str) -> String {
    format!("moorage-access-{pool}")
}

/// The Secret in the cluster.
pub struct KubeAccessSecret<'a> {
    api: Api<KubeSecret>,
    namespace: &'a str,
    identity: &'a PoolIdentity,
    metrics: &'a Metrics,
}

impl<'a> KubeAccessSecret<'a> {
    /// The pool's Secret in the operator's namespace.
    pub fn new(
        client: Client,
        namespace: &'a str,
        identity: &'a PoolIdentity,
        metrics: &'a Metrics,
    ) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace, identity, metrics }
    }

    fn name(&self) -> String {
        secret_name(&self.identity.pool)
    }

    fn document(&self, headers: &AccessHeaders, resource_version: Option<String>) -> KubeSecret {
        let bytes = |bytes: &[u8]| ByteString(bytes.to_vec());
        let mut labels: BTreeMap<_, _> = self.identity.labels();
        labels.insert("app.kubernetes.io/managed-by".to_owned(), "moorage".to_owned());
        KubeSecret {
            metadata: ObjectMeta {
                name: Some(self.name()),
                labels: Some(labels),
                resource_version,
                ..ObjectMeta::default()
            },
            type_: Some(ACCESS_SECRET_TYPE.to_owned()),
            data: Some(BTreeMap::from([
                (CLIENT_ID.to_owned(), bytes(headers.client_id.as_bytes())),
                (CLIENT_SECRET.to_owned(), bytes(headers.client_secret.expose())),
            ])),
            ..KubeSecret::default()
        }
    }
}

#[async_trait]
impl AccessSecret for KubeAccessSecret<'_> {
    fn place(&self) -> String {
        format!("{}/{}", self.namespace, self.name())
    }

    async fn read(&self) -> Result<StoredToken, kube::Error> {
        Ok(parse(self.api.get_opt(&self.name()).await?, self.identity))
    }

    async fn store(
        &self,
        token: IssuedServiceToken,
        replaces: &StoredToken,
    ) -> Result<Arc<AccessHeaders>, kube::Error> {
        let headers = AccessHeaders {
            client_id: token.token.client_id,
            client_secret: Secret::new(token.client_secret.expose_secret().as_bytes().to_vec()),
        };
        let parameters = PostParams::default();
        match replaces {
            StoredToken::Damaged(version) | StoredToken::Intact(version, _) => {
                let document = self.document(&headers, version.resource_version.clone());
                self.api.replace(&self.name(), &parameters, &document).await?;
            }
            StoredToken::Absent | StoredToken::Foreign => {
                self.api.create(&parameters, &self.document(&headers, None)).await?;
            }
        }
        self.metrics.api_write(WriteKind::Object);
        Ok(Arc::new(headers))
    }

    async fn delete(&self, stored: &StoredToken) -> Result<(), kube::Error> {
        let (StoredToken::Damaged(version) | StoredToken::Intact(version, _)) = stored else {
            return Ok(());
        };
        let preconditions = Preconditions {
            uid: version.uid.clone(),
            resource_version: version.resource_version.clone(),
        };
        let parameters =
            DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.api.delete(&self.name(), &parameters).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            deleted => drop(deleted?),
        }
        self.metrics.api_write(WriteKind::Object);
        Ok(())
    }
}

fn parse(secret: Option<KubeSecret>, identity: &PoolIdentity) -> StoredToken {
    let Some(secret) = secret else { return StoredToken::Absent };
    let labels = secret.metadata.labels.unwrap_or_default();
    let typed = secret.type_.as_deref() == Some(ACCESS_SECRET_TYPE);
    if !typed || !identity.owns(&labels) {
        return StoredToken::Foreign;
    }
    let version =
        Version { uid: secret.metadata.uid, resource_version: secret.metadata.resource_version };
    let mut data = secret.data.unwrap_or_default();
    let client_id = data.remove(CLIENT_ID).and_then(|bytes| String::from_utf8(bytes.0).ok());
    let client_secret = data.remove(CLIENT_SECRET).map(|bytes| Secret::new(bytes.0));
    match (client_id, client_secret) {
        (Some(client_id), Some(client_secret))
            if !client_id.is_empty() && !client_secret.is_empty() =>
        {
            StoredToken::Intact(version, Arc::new(AccessHeaders { client_id, client_secret }))
        }
        _ => StoredToken::Damaged(version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moorage_wire::InstallationId;
    use rstest::rstest;

    fn identity() -> PoolIdentity {
        PoolIdentity::new("eu-1", InstallationId::from_bytes([7; 8]))
    }

    fn secret() -> KubeSecret {
        let data = [(CLIENT_ID, "id.access"), (CLIENT_SECRET, "hush")];
        let data = data.map(|(key, value)| (key.to_owned(), ByteString(value.into())));
        KubeSecret {
            metadata: ObjectMeta { labels: Some(identity().labels()), ..ObjectMeta::default() },
            type_: Some(ACCESS_SECRET_TYPE.to_owned()),
            data: Some(data.into()),
            ..KubeSecret::default()
        }
    }

    fn kind(stored: &StoredToken) -> &'static str {
        match stored {
            StoredToken::Absent => "absent",
            StoredToken::Foreign => "foreign",
            StoredToken::Damaged(_) => "damaged",
            StoredToken::Intact(..) => "intact",
        }
    }

    #[rstest]
    #[case(None, "absent")]
    #[case(Some(secret()), "intact")]
    #[case(Some(KubeSecret { type_: Some("Opaque".into()), ..secret() }), "foreign")]
    #[case(Some(KubeSecret { metadata: ObjectMeta::default(), ..secret() }), "foreign")]
    #[case(Some(KubeSecret { data: None, ..secret() }), "damaged")]
    fn a_stored_token_is_told_from_others_and_from_damage(
        #[case] secret: Option<KubeSecret>,
        #[case] expected: &str,
    ) {
        assert_eq!(kind(&parse(secret, &identity())), expected);
    }

    #[test]
    fn the_secret_is_not_printed() {
        let stored = parse(Some(secret()), &identity());
        assert!(!format!("{stored:?}").contains("hush"));
    }
}
