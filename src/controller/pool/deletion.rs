//! Takes a pool's cloud objects away: nothing while servers of the pool exist, and done only when a
//! pass finds nothing left.

use crate::{
    api::conditions::Reason,
    cloud::{CloudError, Priority},
    cloudflare::{AccessAppId, AccessPolicyId, DnsBatch, RecordId, ServiceTokenId, ZoneId},
    hetzner::{FirewallId, SshKeyId},
    pool::{access, anchor, identity::PoolIdentity},
    problem::Problem,
};

use super::{
    access_secret::{self, AccessSecret, StoredToken},
    observe::{self, Clouds},
};

/// What is to be taken away.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    records: Vec<RecordId>,
    apps: Vec<AccessAppId>,
    policies: Vec<AccessPolicyId>,
    tokens: Vec<ServiceTokenId>,
    ssh_keys: Vec<SshKeyId>,
    firewalls: Vec<FirewallId>,
    secret: bool,
}

/// A deletion of one pool's objects.
pub struct Deletion<'a> {
    pub clouds: Clouds<'a>,
    /// Where the service token is kept.
    pub secret: &'a dyn AccessSecret,
    pub identity: &'a PoolIdentity,
    pub zone: &'a ZoneId,
    /// The zone's name.
    pub domain: &'a str,
    /// Says where the token of a cloud is.
    pub token_secret: &'a (dyn Fn(&CloudError) -> String + Sync),
}

fn waiting(message: String) -> Problem {
    Problem::whole(Reason::Deleting, message)
}

impl Deletion<'_> {
    /// One pass. `Ok` only if nothing was left to delete.
    pub async fn run(&self) -> Result<(), Problem> {
        self.no_servers().await?;
        let stored = self.secret.read().await;
        let stored =
            stored.map_err(|error| access_secret::problem(&error, &self.secret.place()))?;
        let left = self.left(&stored).await.map_err(|error| self.cloud(&error))?;
        if left == Left::default() {
            return Ok(());
        }
        self.delete(&left).await.map_err(|error| self.cloud(&error))?;
        let deleted = self.secret.delete(&stored).await;
        deleted.map_err(|error| access_secret::problem(&error, &self.secret.place()))?;
        Err(waiting("The pool's objects in the clouds are being deleted.".to_owned()))
    }

    fn cloud(&self, error: &CloudError) -> Problem {
        tracing::warn!(pool = self.identity.pool, %error, "deleting the pool's objects failed");
        Problem::of_pool(error, &(self.token_secret)(error))
    }

    async fn no_servers(&self) -> Result<(), Problem> {
        let hetzner = self.clouds.hetzner;
        let servers = hetzner.list_servers(Priority::Delete, &self.identity.selector()).await;
        let servers = servers.map_err(|error| self.cloud(&error))?;
        if servers.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = servers.iter().take(5).map(|server| server.name.as_str()).collect();
        let more = if servers.len() > names.len() { ", …" } else { "" };
        Err(waiting(format!(
            "The pool's firewall stays while servers carry its label: {} of them are left ({}{more}). Delete them, \
             or take the label moorage.dev/pool off those that shall outlive the pool.",
            servers.len(),
            names.join(", "),
        )))
    }

    async fn left(&self, stored: &StoredToken) -> Result<Left, CloudError> {
        let name = self.identity.object_name();
        let glance = observe::glance(self.clouds, self.identity).await?;
        let objects = observe::access_objects(self.clouds).await?;
        let host = anchor::host(self.identity, self.domain);
        let records = self.clouds.cloudflare;
        let records = records.find_dns_records_by_name(Priority::Delete, self.zone, &host).await?;
        let records = records.iter().filter(|record| anchor::is_own(self.identity, record));
        let owns = |labels| self.identity.owns(labels);
        let firewalls = glance.firewalls.iter().filter(|firewall| owns(&firewall.labels));
        let ssh_keys = glance.ssh_keys.iter().filter(|key| owns(&key.labels));
        let policies = objects.policies.iter().filter(|policy| policy.name == name);
        let tokens = access::named_tokens(&name, &objects.tokens);
        Ok(Left {
            records: records.map(|record| record.id.clone()).collect(),
            apps: access::named_apps(&name, &glance.apps).map(|app| app.id.clone()).collect(),
            policies: policies.map(|policy| policy.id.clone()).collect(),
            tokens: tokens.map(|token| token.id.clone()).collect(),
            ssh_keys: ssh_keys.map(|key| key.id).collect(),
            firewalls: firewalls.map(|firewall| firewall.id).collect(),
            secret: matches!(stored, StoredToken::Damaged(_) | StoredToken::Intact(..)),
        })
    }

    /// An application before its policy, a policy before its token: each is refused while it is used.
    async fn delete(&self, left: &Left) -> Result<(), CloudError> {
        let Clouds { hetzner, cloudflare } = self.clouds;
        if !left.records.is_empty() {
            let batch = DnsBatch { deletes: left.records.clone(), ..DnsBatch::default() };
            cloudflare.dns_batch(self.zone, &batch).await?;
        }
        for app in &left.apps {
            cloudflare.delete_access_app(app).await?;
        }
        for policy in &left.policies {
            cloudflare.delete_access_policy(policy).await?;
        }
        for token in &left.tokens {
            cloudflare.delete_service_token(token).await?;
        }
        for key in &left.ssh_keys {
            hetzner.delete_ssh_key(*key).await?;
        }
        for firewall in &left.firewalls {
            hetzner.delete_firewall(*firewall).await?;
        }
        Ok(())
    }
}
