//! The Secrets that go with a deleted instance.

use super::{Ending, Gone, PassError, Remove};
use crate::instance::secrets::SecretsRemoval;

impl Remove for SecretsRemoval {
    async fn remove(&self, ending: &Ending<'_>) -> Result<Gone, PassError> {
        let (cluster, namespace) = (&ending.controller.cluster, &ending.subject.namespace);
        for secret in &self.0 {
            cluster.delete_secret(namespace, &secret.name, &secret.version).await?;
        }
        Ok(Gone::Yes)
    }
}
