//! One pass over a pool's cloud objects: reads, plans and writes, in the order in which things need
//! each other. What was made is reported also when a later step fails, so that it is recorded.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    agent::AccessHeaders,
    api::{HostingPoolSpec, conditions::Reason, pool::AccessStatus},
    cloud::{Cloud, CloudError, Conflict, ErrorKind, Priority},
    cloudflare::{AccessAppId, AccessPolicyId, DnsBatch, ServiceTokenId},
    hetzner::{CreateFirewall, CreateSshKey, FirewallId, LabelSelector, SshKeyId},
    pool::{
        Offers, Outcome,
        access::{self, Step},
        anchor::{self, AnchorStep},
        firewall::{self, FirewallStep, Marker},
        identity::PoolIdentity,
        spec::ParsedSpec,
        ssh_keys, zone,
    },
    problem::{Problem, Retry},
};

use super::{
    access_secret::{self, AccessSecret, StoredToken},
    observe::{self, AccessObjects, Clouds, Glance},
};

/// What a pass works on.
pub struct Pass<'a> {
    pub clouds: Clouds<'a>,
    /// Where the service token is kept.
    pub secret: &'a dyn AccessSecret,
    pub identity: &'a PoolIdentity,
    pub spec: &'a HostingPoolSpec,
    pub parsed: &'a ParsedSpec,
    /// What the status and the pool's annotations say about the firewall.
    pub marker: Marker<'a>,
    /// The Access objects that the status names.
    pub recorded_access: Option<&'a AccessStatus>,
    /// What the Secret holds.
    pub stored: &'a StoredToken,
    /// What the last pass read in Hetzner's catalogue for the same spec.
    pub offers: Option<&'a Arc<Offers>>,
    /// Whether to look at everything; otherwise only as far as nothing has changed.
    pub thorough: bool,
    pub now: Timestamp,
    /// The operator's namespace, for messages.
    pub namespace: &'a str,
}

/// Where the token of a cloud is, for messages.
pub fn token_secret(spec: &HostingPoolSpec, namespace: &str, cloud: Cloud) -> String {
    let reference = match cloud {
        Cloud::Hetzner => &spec.hetzner.token_secret_ref,
        Cloud::Cloudflare => &spec.cloudflare.token_secret_ref,
    };
    format!("Secret {namespace}/{} (key {})", reference.name, reference.key)
}

impl Pass<'_> {
    /// Brings the pool's objects to what the spec says.
    pub async fn run(&self) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.problem = self.steps(&mut outcome).await.err();
        outcome
    }

    async fn steps(&self, outcome: &mut Outcome) -> Result<(), Problem> {
        if self.thorough {
            let found = observe::zone(self.clouds, &self.parsed.zone).await;
            let found = found.map_err(|error| self.cloud(&error))?;
            zone::check(found.as_ref(), &self.parsed.account, &self.spec.cloudflare.domain)?;
        }
        outcome.offers = Some(self.offers().await?);
        let observed = observe::glance(self.clouds, self.identity).await;
        let observed = observed.map_err(|error| self.cloud(&error))?;
        outcome.applications = Some(observed.apps.len());
        self.zone_is_free(&observed)?;
        let rules = self.parsed.rules.clone();
        let step = firewall::plan(self.identity, rules, &observed.firewalls, self.marker)?;
        outcome.firewall = Some(self.firewall(step).await?);
        outcome.ssh_keys = self.ssh_keys(&observed).await?;
        let (ids, headers) = self.access(&observed, &mut outcome.tokens).await?;
        outcome.access = Some(ids);
        outcome.headers = Some(headers);
        if self.thorough {
            self.anchor().await?;
        }
        Ok(())
    }

    /// The pool's own record. Instances do without where it cannot be made: it takes a little longer until
    /// the first agent is reached.
    async fn anchor(&self) -> Result<(), Problem> {
        let domain = &self.spec.cloudflare.domain;
        let (cloudflare, zone) = (self.clouds.cloudflare, &self.parsed.zone);
        let host = anchor::host(self.identity, domain);
        let found = cloudflare.find_dns_records_by_name(Priority::Normal, zone, &host).await;
        let found = found.map_err(|error| self.cloud(&error))?;
        let mut batch = DnsBatch::default();
        match anchor::plan(self.identity, domain, &found) {
            AnchorStep::Keep => return Ok(()),
            AnchorStep::Foreign => {
                tracing::warn!(
                    pool = self.identity.pool,
                    host,
                    "somebody else has the DNS record of the pool's own name"
                );
                return Ok(());
            }
            AnchorStep::Create(post) => batch.posts.push(post),
            AnchorStep::Correct(patch) => batch.patches.push(patch),
        }
        match cloudflare.dns_batch(zone, &batch).await {
            Ok(_) => Ok(()),
            Err(error) if error.blames_the_request() => {
                tracing::warn!(pool = self.identity.pool, host, %error, "the pool's own DNS record cannot be made");
                Ok(())
            }
            Err(error) => Err(self.cloud(&error)),
        }
    }

    /// Before anything is made: of two pools in one zone the second could never reach an agent.
    fn zone_is_free(&self, observed: &Glance) -> Result<(), Problem> {
        let (name, domain) = (self.identity.object_name(), &*self.spec.cloudflare.domain);
        let Some(other) = access::in_the_way(&name, domain, &observed.apps) else { return Ok(()) };
        let message = format!(
            "The Access application {} protects *-mgmt.{domain} already, so that this pool cannot. If another pool has the zone, give this one a zone of its own, or have both clouds named by one pool; if nobody needs the application, delete it in Zero Trust.",
            other.name
        );
        Err(Problem::whole(Reason::ZoneTaken, message).retrying(Retry::Slowly))
    }

    async fn offers(&self) -> Result<Arc<Offers>, Problem> {
        if let (false, Some(known)) = (self.thorough, self.offers) {
            return Ok(Arc::clone(known));
        }
        let catalogue = observe::server_types(self.clouds).await;
        let catalogue = catalogue.map_err(|error| self.cloud(&error))?;
        Ok(Arc::new(Offers::of(&self.spec.hetzner, &catalogue, self.now)))
    }

    fn cloud(&self, error: &CloudError) -> Problem {
        tracing::warn!(pool = self.identity.pool, %error, "a call for the pool failed");
        Problem::of_pool(error, &token_secret(self.spec, self.namespace, error.cloud))
    }

    async fn firewall(&self, step: FirewallStep) -> Result<FirewallId, Problem> {
        let hetzner = self.clouds.hetzner;
        match step {
            FirewallStep::Keep(id) => Ok(id),
            FirewallStep::Repair(id, rules) => {
                tracing::warn!(pool = self.identity.pool, firewall = %id, "repairing the rules of the firewall");
                let repaired = hetzner.set_firewall_rules(id, &rules).await;
                repaired.map(|_| id).map_err(|error| self.cloud(&error))
            }
            FirewallStep::Create(firewall) => match hetzner.create_firewall(&firewall).await {
                Ok(made) => Ok(made.id),
                Err(error) if error.kind == ErrorKind::Conflict(Conflict::NameTaken) => {
                    self.adopt_firewall(&firewall).await
                }
                Err(error) => Err(self.cloud(&error)),
            },
        }
    }

    /// The name is taken: by our own call whose answer was lost, or by a stranger.
    async fn adopt_firewall(&self, wanted: &CreateFirewall) -> Result<FirewallId, Problem> {
        let selector = self.identity.selector();
        let found = self.clouds.hetzner.list_firewalls(Priority::Normal, &selector).await;
        let found = found.map_err(|error| self.cloud(&error))?;
        let ours = found
            .into_iter()
            .find(|firewall| firewall.name == wanted.name && self.identity.owns(&firewall.labels));
        ours.map(|firewall| firewall.id).ok_or_else(|| {
            let message = format!(
                    "The Hetzner project has a firewall {} without this pool's labels, so it is not taken over. Rename or delete it.",
                    wanted.name
                );
            Problem::whole(Reason::CloudRejected, message).retrying(Retry::Slowly)
        })
    }

    async fn ssh_keys(&self, observed: &Glance) -> Result<Vec<SshKeyId>, Problem> {
        let keys = self.spec.hetzner.ssh.as_ref().map_or(&[][..], |ssh| &ssh.keys);
        let steps = ssh_keys::plan(self.identity, keys, &observed.ssh_keys)?;
        let mut ids = steps.keep;
        for key in &steps.create {
            ids.push(self.ssh_key(key).await?);
        }
        for id in steps.delete {
            let deleted = self.clouds.hetzner.delete_ssh_key(id).await;
            deleted.map_err(|error| self.cloud(&error))?;
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Hetzner takes a public key once per project. One that a person put there serves as well; it is
    /// not ours, so it is never deleted.
    async fn ssh_key(&self, key: &CreateSshKey) -> Result<SshKeyId, Problem> {
        let hetzner = self.clouds.hetzner;
        let error = match hetzner.create_ssh_key(key).await {
            Ok(made) => return Ok(made.id),
            Err(error) if error.kind == ErrorKind::Conflict(Conflict::NameTaken) => error,
            Err(error) => return Err(self.cloud(&error)),
        };
        let all = hetzner.list_ssh_keys(Priority::Normal, &LabelSelector::all_of([])).await;
        let all = all.map_err(|error| self.cloud(&error))?;
        let same = all.iter().find(|known| ssh_keys::is_same(known, &key.public_key));
        same.map(|known| known.id).ok_or_else(|| self.cloud(&error))
    }

    async fn access(
        &self,
        observed: &Glance,
        tokens: &mut Option<usize>,
    ) -> Result<(AccessStatus, Arc<AccessHeaders>), Problem> {
        if let (false, Some(known), Some(headers)) =
            (self.thorough, self.unchanged_access(observed), self.stored.headers())
        {
            return Ok((known.clone(), Arc::clone(headers)));
        }
        let objects = observe::access_objects(self.clouds).await;
        let objects = objects.map_err(|error| self.cloud(&error))?;
        *tokens = Some(objects.tokens.len());
        let (token, headers) = self.token(&objects).await?;
        let policy = self.policy(&token, &objects).await?;
        let app = self.app(&policy, observed).await?;
        self.delete_surplus_tokens(&token, &objects).await?;
        let ids = AccessStatus {
            application_id: app.to_string(),
            policy_id: policy.to_string(),
            service_token_id: token.to_string(),
        };
        Ok((ids, headers))
    }

    /// The recorded Access objects, if the application is still as it was made.
    fn unchanged_access(&self, observed: &Glance) -> Option<&AccessStatus> {
        let recorded = self.recorded_access?;
        let app = observed.apps.iter().find(|app| app.id.as_str() == recorded.application_id)?;
        let policy = AccessPolicyId::parse(&*recorded.policy_id).ok()?;
        access::guards(app, &self.spec.cloudflare.domain, &policy).then_some(recorded)
    }

    /// The token first, then the Secret: a crash in between leaves a token whose secret nobody knows,
    /// which the next pass finds by its name and rotates.
    async fn token(
        &self,
        objects: &AccessObjects,
    ) -> Result<(ServiceTokenId, Arc<AccessHeaders>), Problem> {
        if matches!(self.stored, StoredToken::Foreign) {
            return Err(access_secret::foreign(&self.secret.place()));
        }
        let name = self.identity.object_name();
        let stored = self.stored.headers();
        let client_id = stored.map(|headers| headers.client_id.as_str());
        let cloudflare = self.clouds.cloudflare;
        let issued = match (access::plan_token(&name, &objects.tokens, client_id, self.now), stored)
        {
            (Step::Keep(id), Some(headers)) => return Ok((id, Arc::clone(headers))),
            (Step::Keep(id) | Step::Change(id), _) => {
                cloudflare.rotate_service_token(&id, None).await
            }
            (Step::Create, _) => {
                cloudflare.create_service_token(&name, access::TOKEN_DURATION).await
            }
        };
        let issued = issued.map_err(|error| self.cloud(&error))?;
        let id = issued.token.id.clone();
        let stored = self.secret.store(issued, self.stored).await;
        let headers =
            stored.map_err(|error| access_secret::problem(&error, &self.secret.place()))?;
        Ok((id, headers))
    }

    async fn policy(
        &self,
        token: &ServiceTokenId,
        objects: &AccessObjects,
    ) -> Result<AccessPolicyId, Problem> {
        let name = self.identity.object_name();
        let spec = access::policy_spec(&name, token);
        let cloudflare = self.clouds.cloudflare;
        let policy = match access::plan_policy(&name, token, &objects.policies) {
            Step::Keep(id) => return Ok(id),
            Step::Change(id) => cloudflare.update_access_policy(&id, &spec).await,
            Step::Create => cloudflare.create_access_policy(&spec).await,
        };
        policy.map(|policy| policy.id).map_err(|error| self.cloud(&error))
    }

    async fn app(
        &self,
        policy: &AccessPolicyId,
        observed: &Glance,
    ) -> Result<AccessAppId, Problem> {
        let (name, domain) = (self.identity.object_name(), &self.spec.cloudflare.domain);
        let spec = access::app_spec(&name, domain, policy);
        let cloudflare = self.clouds.cloudflare;
        let app = match access::plan_app(&name, domain, policy, &observed.apps) {
            Step::Keep(id) => return Ok(id),
            Step::Change(id) => cloudflare.update_access_app(&id, &spec).await,
            Step::Create => cloudflare.create_access_app(&spec).await,
        };
        app.map(|app| app.id).map_err(|error| self.cloud(&error))
    }

    /// Last, when the policy names the token in use.
    async fn delete_surplus_tokens(
        &self,
        used: &ServiceTokenId,
        objects: &AccessObjects,
    ) -> Result<(), Problem> {
        let name = self.identity.object_name();
        for surplus in access::surplus_tokens(&name, &objects.tokens, used) {
            let deleted = self.clouds.cloudflare.delete_service_token(&surplus).await;
            deleted.map_err(|error| self.cloud(&error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
