//! What a Hetzner project holds, and how it ages: servers start, actions end, deleted things go.
//! Nothing runs in the background: [`Project::settle`] brings a project up to a moment.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use jiff::{Timestamp, Unit};
use serde::{Deserialize, Serialize};

use super::ActionFailure;
use super::labels::{Labels, Selector};
use super::model::{
    Action, ActionErrorBody, ActionStatus, Firewall, Image, PrimaryIp, Protection, Resource, Rule,
    Server, ServerStatus, SshKey,
};
use crate::backend::ServerBoot;
use crate::ratelimit::{Bucket, BucketLimit};

/// A project as the admin API makes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProjectSpec {
    /// The API token that opens the project.
    pub token: String,
    /// Whether the token may only read.
    #[serde(default)]
    pub read_only: bool,
    /// Most servers the project may have; 10, as for a young account, when left out.
    #[serde(default = "young_account")]
    pub server_quota: usize,
    /// The rate limit; Hetzner's own when left out.
    #[serde(default)]
    pub rate_limit: BucketLimit,
}

fn young_account() -> usize {
    10
}

/// What one API token of Hetzner opens.
#[derive(Debug)]
pub(crate) struct Project {
    pub(crate) read_only: bool,
    pub(crate) server_quota: usize,
    pub(crate) rate: Bucket,
    pub(crate) servers: BTreeMap<u64, ServerRecord>,
    pub(crate) actions: BTreeMap<u64, ActionRecord>,
    pub(crate) firewalls: BTreeMap<u64, FirewallRecord>,
    pub(crate) ssh_keys: BTreeMap<u64, SshKey>,
    pub(crate) snapshots: BTreeMap<u64, Image>,
    pub(crate) primary_ips: BTreeMap<u64, PrimaryIp>,
}

#[derive(Debug, Clone)]
pub(crate) struct ServerRecord {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) created: Timestamp,
    pub(crate) server_type: &'static str,
    pub(crate) location: &'static str,
    pub(crate) image: Image,
    pub(crate) ipv4: Option<u64>,
    pub(crate) ipv6: Option<u64>,
    pub(crate) protection: Protection,
    pub(crate) backups: bool,
    /// Whether the rescue system is enabled.
    pub(crate) rescue: bool,
    pub(crate) primary_disk_size: u32,
    pub(crate) user_data: String,
    /// Whether the backend knows it: not before its first start.
    pub(crate) booted: bool,
    pub(crate) timeline: Timeline,
    /// While an action runs, others are refused with 423.
    pub(crate) locked_until: Instant,
    /// Set by a deletion: the moment from which the server is gone.
    pub(crate) gone_at: Option<Instant>,
}

/// The statuses of a server, each with the moment it begins.
#[derive(Debug, Clone)]
pub(crate) struct Timeline(Vec<(Instant, ServerStatus)>);

impl Timeline {
    pub(crate) fn new(now: Instant, status: ServerStatus) -> Self {
        Self(vec![(now, status)])
    }

    /// Adds a status that begins after all others.
    pub(crate) fn then(mut self, at: Instant, status: ServerStatus) -> Self {
        self.0.push((at, status));
        self
    }

    pub(crate) fn at(&self, now: Instant) -> ServerStatus {
        self.0
            .iter()
            .rev()
            .find(|(begin, _)| *begin <= now)
            .map_or(ServerStatus::Unknown, |(_, status)| *status)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ActionRecord {
    pub(crate) id: u64,
    pub(crate) command: &'static str,
    pub(crate) resources: Vec<Resource>,
    pub(crate) started: Timestamp,
    pub(crate) began: Instant,
    pub(crate) takes: Duration,
    pub(crate) failure: Option<ActionFailure>,
}

impl ActionRecord {
    /// The action as it is now.
    pub(crate) fn view(&self, now: Instant) -> Action {
        let elapsed = now.saturating_duration_since(self.began);
        let done = elapsed >= self.takes;
        let status = match (&self.failure, done) {
            (_, false) => ActionStatus::Running,
            (None, true) => ActionStatus::Success,
            (Some(_), true) => ActionStatus::Error,
        };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let progress = if done {
            100
        } else {
            (elapsed.as_secs_f64() / self.takes.as_secs_f64() * 99.0) as u8
        };
        Action {
            id: self.id,
            command: self.command.to_owned(),
            status,
            progress,
            started: self.started,
            finished: done.then(|| whole_seconds(self.started + self.takes)),
            resources: self.resources.clone(),
            error: self.failure.as_ref().filter(|_| done).map(|failure| ActionErrorBody {
                code: failure.code.clone(),
                message: failure.message.clone(),
            }),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct FirewallRecord {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) created: Timestamp,
    pub(crate) rules: Vec<Rule>,
    /// Servers it was applied to by id, with the moment from which it covers them.
    pub(crate) servers: BTreeMap<u64, Instant>,
    /// Selectors it was applied to, with the moment from which they cover what they select.
    pub(crate) selectors: Vec<(String, Selector, Instant)>,
    /// Until then it counts as in use although its servers are gone.
    pub(crate) held_until: Option<Instant>,
}

impl FirewallRecord {
    /// From when this firewall covers the server, if it does.
    pub(crate) fn covers(&self, server: &ServerRecord) -> Option<Instant> {
        let by_selector =
            self.selectors.iter().filter(|(_, selector, _)| selector.selects(&server.labels));
        self.servers
            .get(&server.id)
            .copied()
            .into_iter()
            .chain(by_selector.map(|(_, _, from)| *from))
            .min()
    }
}

impl Project {
    pub(crate) fn new(spec: &ProjectSpec) -> Self {
        Self {
            read_only: spec.read_only,
            server_quota: spec.server_quota,
            rate: Bucket::new(spec.rate_limit, Instant::now()),
            servers: BTreeMap::new(),
            actions: BTreeMap::new(),
            firewalls: BTreeMap::new(),
            ssh_keys: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            primary_ips: BTreeMap::new(),
        }
    }

    pub(crate) fn change(&mut self, spec: &ProjectSpec) {
        self.read_only = spec.read_only;
        self.server_quota = spec.server_quota;
        self.rate = Bucket::new(spec.rate_limit, Instant::now());
    }

    /// What the backend has to know to boot a server.
    pub(crate) fn boot_of(&self, record: &ServerRecord) -> ServerBoot {
        let ip = |id: Option<u64>| id.and_then(|id| self.primary_ips.get(&id)).map(|one| &*one.ip);
        let first_of_network = |network: Ipv6Addr| Ipv6Addr::from_bits(network.to_bits() | 1);
        ServerBoot {
            id: record.id,
            name: record.name.clone(),
            user_data: record.user_data.clone(),
            ipv4: ip(record.ipv4).and_then(|ip| ip.parse().ok()),
            ipv6: ip(record.ipv6)
                .and_then(|network| network.split('/').next()?.parse().ok())
                .map(first_of_network),
        }
    }

    /// Notes the running servers of which `is_off` says that they are not.
    pub(crate) fn note_who_is_off(&mut self, now: Instant, is_off: impl Fn(u64) -> bool) {
        for server in self.servers.values_mut() {
            if server.timeline.at(now) == ServerStatus::Running && is_off(server.id) {
                server.timeline = Timeline::new(now, ServerStatus::Off);
            }
        }
    }

    /// Lets everything happen that is due at `now`.
    pub(crate) fn settle(&mut self, now: Instant) {
        let gone: Vec<u64> = self
            .servers
            .values()
            .filter(|server| server.gone_at.is_some_and(|at| at <= now))
            .map(|server| server.id)
            .collect();
        for id in gone {
            self.forget_server(id);
        }
    }

    /// Removes a server with the primary IPs that go with it.
    pub(crate) fn forget_server(&mut self, id: u64) {
        if self.servers.remove(&id).is_none() {
            return;
        }
        for firewall in self.firewalls.values_mut() {
            firewall.servers.remove(&id);
        }
        self.primary_ips.retain(|_, ip| ip.assignee_id != Some(id) || !ip.auto_delete);
        for ip in self.primary_ips.values_mut().filter(|ip| ip.assignee_id == Some(id)) {
            ip.assignee_id = None;
        }
    }

    /// Notes a new action.
    pub(crate) fn begin(
        &mut self,
        id: u64,
        command: &'static str,
        resources: Vec<Resource>,
        takes: Duration,
        failure: Option<ActionFailure>,
    ) -> Action {
        let began = Instant::now();
        let record = ActionRecord {
            id,
            command,
            resources,
            started: now_in_seconds(),
            began,
            takes,
            failure,
        };
        let view = record.view(began);
        self.actions.insert(id, record);
        view
    }

    /// Makes an action fail after the fact, as when the backend cannot boot the server.
    pub(crate) fn fail(&mut self, id: u64, failure: ActionFailure) {
        if let Some(action) = self.actions.get_mut(&id) {
            action.failure = Some(failure);
        }
    }
}

/// What `GET /admin/state` shows of a project.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProjectDump {
    pub(crate) server_quota: usize,
    pub(crate) servers: Vec<ServerDump>,
    pub(crate) firewalls: Vec<Firewall>,
    pub(crate) ssh_keys: Vec<SshKey>,
    pub(crate) primary_ips: Vec<PrimaryIp>,
    pub(crate) snapshots: Vec<Image>,
}

/// A server with what the API never shows again.
#[derive(Debug, Serialize)]
pub(crate) struct ServerDump {
    #[serde(flatten)]
    pub(crate) server: Server,
    pub(crate) user_data: String,
}

/// Now, in whole seconds as the API tells time.
pub(crate) fn now_in_seconds() -> Timestamp {
    whole_seconds(Timestamp::now())
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    time.round(Unit::Second).unwrap_or(time)
}
