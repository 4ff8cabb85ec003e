//! What an operator does while another one leads: it serves the sealing certificate, since requests
//! for it reach every replica.

use std::{convert::Infallible, time::Duration};

use kube::Client;
use tokio::time::sleep;

use super::Settings;
use crate::{
    credentials::key_ring_store::KeyRingStore, http::PublishedCertificate,
    master_key_store::MasterKeyStore,
};

/// A certificate is valid for weeks after a newer one is there, so minutes do not matter.
const REFRESH: Duration = Duration::from_secs(300);
/// Until there is a certificate at all.
const RETRY: Duration = Duration::from_secs(10);

/// Reads the certificate again and again.
pub(super) async fn publish_certificate(
    settings: &Settings,
    client: &Client,
    published: &PublishedCertificate,
) -> Infallible {
    let keys =
        MasterKeyStore::new(client.clone(), &settings.namespace, settings.master_key.clone());
    let rings = KeyRingStore::new(client.clone(), &settings.namespace);
    loop {
        let pause = match read(&keys, &rings).await {
            Ok(Some(pem)) => {
                published.publish(pem);
                REFRESH
            }
            Ok(None) => RETRY,
            Err(error) => {
                tracing::warn!(error, "the sealing certificate cannot be read");
                RETRY
            }
        };
        sleep(pause).await;
    }
}

async fn read(keys: &MasterKeyStore, rings: &KeyRingStore) -> Result<Option<String>, String> {
    let Some(keys) = keys.load().await.map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let ring = rings.load(&keys.wrapping_keys()).await.map_err(|error| error.to_string())?;
    Ok(ring.certificate().map(|certificate| certificate.pem().to_owned()))
}
