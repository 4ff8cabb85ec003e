//! Refer and validate: everything that an instance names is looked up and checked, once. What comes
//! out is all that the rest of the pass trusts.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use moorage_wire::{
    InstanceId,
    desired::{Artifact, Artifacts, Integration, IntegrationKind as WireIntegration},
};

use super::{Controller, recorded_id};
use crate::{
    api::{
        OpenClawInstance, OpenClawRelease, annotation,
        conditions::reason,
        release::{IntegrationKind, PinnedArtifact},
    },
    credentials::secret_source::{CredentialEntry, parse_entries},
    hetzner::ServerId,
    instance::{
        Wanted,
        wanted::{Refused, Release, Subject, narrow, placements},
    },
    names::OwnedName as _,
    openclaw,
    pool::{PoolRuntime, PoolState},
};

/// A checked instance and the pool that it lives in.
pub(super) struct Referred {
    pub(super) wanted: Wanted,
    pub(super) pool: Arc<PoolRuntime>,
}

impl Controller {
    /// The running pool of an instance.
    pub(super) fn pool(&self, name: &str) -> Result<Arc<PoolRuntime>, Refused> {
        match self.ctx.pools.get(name) {
            Some(PoolState::Running(pool)) => Ok(pool),
            Some(PoolState::Blocked(blocked)) => Err(Refused::waiting(
                reason::POOL_NOT_READY,
                format!("HostingPool {name} cannot be used: {}", blocked.message),
            )),
            None => Err(Refused::waiting(
                reason::POOL_NOT_FOUND,
                format!(
                    "spec.pool: there is no HostingPool {name} that this operator looks after; make it, or correct the name in a new instance"
                ),
            )),
        }
    }

    /// Looks up and checks all that the instance names.
    pub(super) fn refer(
        &self,
        instance: &OpenClawInstance,
        id: InstanceId,
    ) -> Result<Referred, Refused> {
        let spec = &instance.spec;
        let pool = self.pool(&spec.pool)?;
        let subject = self.subject(instance, id, &pool);
        self.check_place(instance, &subject, &pool)?;
        let facilities = pool.facilities.as_ref().map_err(|blocked| {
            let message =
                format!("HostingPool {} cannot take instances: {}", pool.name, blocked.message);
            Refused::waiting(reason::POOL_NOT_READY, message)
        })?;
        let firewall = facilities.firewall;
        let config = spec.config.to_value();
        openclaw::check(&config).map_err(|refusals| {
            let kinds =
                refusals.first().map_or(reason::INVALID_SPEC, openclaw::ConfigRefusal::reason);
            let messages: Vec<_> = refusals.iter().map(ToString::to_string).collect();
            Refused::terminal(kinds, messages.join("; "))
        })?;
        let release = self.release(instance, &pool)?;
        let entries: Vec<_> = spec.credentials.iter().map(entry).collect();
        let (credentials, credential_refusals) = parse_entries(&entries);
        let wishes = &spec.server;
        let offers = &pool.spec.hetzner;
        let types = narrow(&offers.server_types, &wishes.server_types);
        let locations = narrow(&offers.locations, &wishes.locations);
        let unknown = |field: &str, unknown: &[String]| {
            let message = format!(
                "spec.server.{field}: HostingPool {} does not offer {}",
                pool.name,
                unknown.join(", ")
            );
            Refused::terminal(reason::INVALID_SPEC, message)
        };
        let types = types.map_err(|names| unknown("serverTypes", &names))?;
        let locations = locations.map_err(|names| unknown("locations", &names))?;
        let annotations = instance.annotations();
        let wanted = Wanted {
            subject,
            account: pool.account.clone(),
            placements: placements(&types, &locations),
            firewall,
            image: offers.image.clone(),
            ipv4: wishes.ipv4.unwrap_or(true),
            ssh: offers.ssh.clone(),
            config,
            release,
            credentials,
            credential_refusals,
            approved_pairings: spec.access.approved_pairings.iter().cloned().collect(),
            dashboard_secret: spec.access.dashboard_secret_name.clone(),
            retry: annotations.get(annotation::RETRY).cloned(),
            rebuild: annotations
                .get(annotation::REBUILD)
                .and_then(|id| id.parse().ok())
                .map(ServerId),
        };
        Ok(Referred { wanted, pool })
    }

    pub(super) fn subject(
        &self,
        instance: &OpenClawInstance,
        id: InstanceId,
        pool: &PoolRuntime,
    ) -> Subject {
        Subject {
            namespace: instance.namespace().unwrap_or_default(),
            name: instance.name_any(),
            uid: instance.uid().unwrap_or_default(),
            created: created(instance),
            instance: id,
            installation: self.installation(),
            pool: pool.name.clone(),
            hostname: instance.spec.hostname.clone(),
            domain: pool.spec.cloudflare.domain.clone(),
            deletion_policy: instance.spec.deletion_policy,
        }
    }

    /// Namespace, host name and capacity: what others have a say in.
    fn check_place(
        &self,
        instance: &OpenClawInstance,
        subject: &Subject,
        pool: &PoolRuntime,
    ) -> Result<(), Refused> {
        let allowed = &pool.spec.allowed_namespaces;
        if !allowed.iter().any(|name| name == "*" || *name == subject.namespace) {
            let message = format!(
                "HostingPool {} does not take instances of namespace {}; add it to spec.allowedNamespaces of the pool",
                pool.name, subject.namespace
            );
            return Err(Refused::terminal(reason::NAMESPACE_NOT_ALLOWED, message));
        }
        let hostname = &subject.hostname;
        let valid = !hostname.ends_with("-mgmt")
            && hostname.len() <= 58
            && hostname
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !hostname.starts_with('-')
            && !hostname.ends_with('-')
            && !hostname.is_empty();
        if !valid {
            let message = "spec.hostname must be one DNS label of at most 58 characters that does not end in -mgmt";
            return Err(Refused::terminal(reason::INVALID_SPEC, message));
        }
        if pool.spec.reserved_hostnames.contains(hostname) {
            let message = format!(
                "spec.hostname: {hostname} is reserved by HostingPool {}; make the instance with another",
                pool.name
            );
            return Err(Refused::terminal(reason::HOSTNAME_RESERVED, message));
        }
        let older = self.older(instance, subject, pool);
        if older.has_hostname {
            let message = format!(
                "spec.hostname: {hostname} belongs to an older instance; make this one with another"
            );
            return Err(Refused::terminal(reason::HOSTNAME_TAKEN, message));
        }
        let has_server = instance.status.as_ref().is_some_and(|status| status.server.is_some());
        if !has_server && older.in_pool >= pool.spec.capacity as usize {
            let message = format!(
                "HostingPool {} is full with {} instances; raise spec.capacity, or use another pool",
                pool.name, pool.spec.capacity
            );
            return Err(Refused::terminal(reason::POOL_FULL, message));
        }
        self.check_records(subject, pool)
    }

    /// A name that somebody else's record stands at is left alone.
    fn check_records(&self, subject: &Subject, pool: &PoolRuntime) -> Result<(), Refused> {
        let [dashboard, management] = subject.hosts();
        let view = pool.inventory.view(subject.instance, [&dashboard, &management]);
        let foreign = view
            .records
            .iter()
            .find(|record| record.owner(self.installation()) != Some(subject.instance));
        foreign.map_or(Ok(()), |record| {
            let message = format!("There is a DNS record at {} that is not this instance's; it is left untouched: remove it, or make the instance with another hostname", record.name);
            Err(Refused::terminal(reason::FOREIGN_DNS_RECORD, message))
        })
    }

    /// What older instances already have; of two made in the same second the one with the lower UID
    /// counts as older.
    fn older(&self, instance: &OpenClawInstance, subject: &Subject, pool: &PoolRuntime) -> Older {
        let age = |other: &OpenClawInstance| (created(other), other.uid().unwrap_or_default());
        let own_age = age(instance);
        let mut older = Older::default();
        for other in self.instances.state().iter().filter_map(|other| other.0.as_ref().ok()) {
            if age(other) >= own_age || recorded_id(other).is_none() && other.spec.suspend {
                continue;
            }
            older.in_pool += usize::from(other.spec.pool == pool.name);
            let same_domain = other.spec.pool == pool.name
                || matches!(self.ctx.pools.get(&other.spec.pool), Some(PoolState::Running(theirs)) if theirs.zone == pool.zone);
            older.has_hostname |= same_domain && other.spec.hostname == subject.hostname;
        }
        older
    }

    fn release(&self, instance: &OpenClawInstance, pool: &PoolRuntime) -> Result<Release, Refused> {
        let named = instance.spec.release.as_ref().or(pool.spec.default_release.as_ref());
        let name = named.ok_or_else(|| {
            let message = format!(
                "spec.release is not set and HostingPool {} has no defaultRelease; set one of them",
                pool.name
            );
            Refused::terminal(reason::RELEASE_NOT_FOUND, message)
        })?;
        let found = self
            .releases
            .find(|release| release.0.as_ref().is_ok_and(|release| release.name_any() == *name));
        let release =
            found.as_ref().and_then(|release| release.0.as_ref().ok()).ok_or_else(|| {
                let message = format!(
                    "spec.release: there is no OpenClawRelease {name}; make it, or name another"
                );
                Refused::waiting(reason::RELEASE_NOT_FOUND, message)
            })?;
        Ok(Release {
            name: name.clone(),
            artifacts: artifacts(name, release)?,
            integrations: integrations(instance, name, release)?,
        })
    }
}

#[derive(Default)]
struct Older {
    in_pool: usize,
    has_hostname: bool,
}

fn created(instance: &OpenClawInstance) -> jiff::Timestamp {
    instance.creation_timestamp().map_or(jiff::Timestamp::MAX, |Time(at)| at)
}

fn entry(credential: &crate::api::instance::CredentialSpec) -> CredentialEntry<'_> {
    CredentialEntry {
        name: &credential.name,
        r#type: &credential.r#type,
        secret_ref: credential
            .secret_ref
            .as_ref()
            .map(|secret| (secret.name.as_str(), secret.key.as_str())),
        sealed: credential.sealed.as_deref(),
        sealed_to_agent: credential.sealed_to == crate::api::instance::SealedTo::Agent,
    }
}

fn artifacts(name: &str, release: &OpenClawRelease) -> Result<Artifacts, Refused> {
    let artifact = |what: &str, pinned: &PinnedArtifact| {
        let sha256 = pinned.sha256.parse().map_err(|error| {
            let message = format!("OpenClawRelease {name}: spec.artifacts.{what}.sha256: {error}");
            Refused::terminal(reason::INVALID_SPEC, message)
        })?;
        let (version, url) = (pinned.version.clone(), pinned.url.clone());
        Ok(Artifact { version, url, sha256, size: pinned.size })
    };
    let pinned = &release.spec.artifacts;
    Ok(Artifacts {
        release: name.to_owned(),
        openclaw: artifact("openclaw", &pinned.openclaw)?,
        node: artifact("node", &pinned.node)?,
        cloudflared: artifact("cloudflared", &pinned.cloudflared)?,
        agent: artifact("agent", &pinned.agent)?,
    })
}

fn integrations(
    instance: &OpenClawInstance,
    name: &str,
    release: &OpenClawRelease,
) -> Result<Vec<Integration>, Refused> {
    let find = |wanted: &crate::api::instance::IntegrationRef| {
        let approved = release.spec.integrations.iter().find(|known| known.name == wanted.name);
        let approved = approved.ok_or_else(|| {
            let message = format!("spec.integrations: OpenClawRelease {name} does not approve {}; remove it, or use a release that does", wanted.name);
            Refused::terminal(reason::INTEGRATION_NOT_APPROVED, message)
        })?;
        let kind = match approved.kind {
            IntegrationKind::Plugin => WireIntegration::Plugin,
            IntegrationKind::Skill => WireIntegration::Skill,
        };
        Ok(Integration { kind, name: approved.name.clone(), version: approved.version.clone() })
    };
    instance.spec.integrations.iter().map(find).collect()
}
