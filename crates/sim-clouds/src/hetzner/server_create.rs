//! `POST /servers`: the checks in Hetzner's order, then a server with its addresses and firewalls.

use std::time::{Duration, Instant};

use axum::Json;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::body::{IdOrName, JsonBody};
use super::labels::{self, Labels};
use super::model::{
    Action, Image, ImageProtection, Location, PrimaryIp, Protection, Server, ServerStatus,
};
use super::project::{ServerRecord, Timeline, now_in_seconds};
use super::servers::{of, view};
use super::{ApiError, Boot, Call, Project, catalogue, validate};
use crate::backend::ServerBoot;
use crate::ids::random_bytes;

/// Firewalls that one server can have.
const FIREWALLS_PER_SERVER: usize = 5;
/// Longer than any test.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateServer {
    name: String,
    server_type: IdOrName,
    image: IdOrName,
    location: Option<IdOrName>,
    labels: Option<Labels>,
    ssh_keys: Option<Vec<IdOrName>>,
    user_data: Option<String>,
    networks: Option<Vec<u64>>,
    firewalls: Option<Vec<FirewallRef>>,
    volumes: Option<Vec<u64>>,
    #[serde(rename = "automount")]
    _automount: Option<bool>,
    public_net: Option<PublicNetRequest>,
    placement_group: Option<u64>,
    start_after_create: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirewallRef {
    firewall: u64,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct PublicNetRequest {
    enable_ipv4: Option<bool>,
    enable_ipv6: Option<bool>,
    ipv4: Option<u64>,
    ipv6: Option<u64>,
}

#[derive(Serialize)]
pub(crate) struct CreatedServer {
    server: Server,
    action: Action,
    next_actions: Vec<Action>,
    root_password: Option<String>,
}

/// `POST /servers`
pub(crate) async fn create(
    call: Call,
    JsonBody(request): JsonBody<CreateServer>,
) -> Result<(StatusCode, Json<CreatedServer>), ApiError> {
    let (answer, boot) = admit(&call, request)?;
    if let Some(boot) = boot {
        call.behind(answer.action.id, |backend| async move { backend.create(boot).await }).await;
    }
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Checks the request and lets the server come into being. The boot is missing when nothing shall
/// start.
fn admit(
    call: &Call,
    request: CreateServer,
) -> Result<(CreatedServer, Option<ServerBoot>), ApiError> {
    let mut project = call.project();
    let wanted = Wanted::check(&project, &request)?;
    if project.servers.values().any(|other| other.name == request.name) {
        return Err(ApiError::taken("server name is already used"));
    }
    if project.servers.len() >= project.server_quota {
        return Err(ApiError::quota("server limit exceeded"));
    }
    if call.world.faults.strike_stock(
        &call.project_name,
        wanted.server_type.name,
        wanted.location.name,
    ) {
        let (kind, place) = (wanted.server_type.name, wanted.location.name);
        return Err(ApiError::out_of_stock(format!(
            "server type {kind} is not available in {place}"
        )));
    }

    let id = call.next_id();
    let (ipv4, ipv6) = addresses(
        call,
        &mut project,
        id,
        &request.public_net.unwrap_or_default(),
        wanted.location,
    )?;
    let (now, step) = (Instant::now(), call.world.timings.action);
    let starts = request.start_after_create.unwrap_or(true)
        && call.action_failure.is_none()
        && call.boot == Boot::Runs;
    let timeline = Timeline::new(now, ServerStatus::Initializing);
    let timeline = match call.boot {
        Boot::StaysInitializing => timeline,
        Boot::Runs if starts => timeline
            .then(now + step, ServerStatus::Starting)
            .then(now + step * 2, ServerStatus::Running),
        Boot::Runs | Boot::StaysOff => timeline.then(now + step, ServerStatus::Off),
    };
    let busy = if call.boot == Boot::StaysInitializing { NEVER } else { step };
    let user_data = request.user_data.unwrap_or_default();
    let record = ServerRecord {
        id,
        name: request.name,
        labels: request.labels.unwrap_or_default(),
        created: now_in_seconds(),
        server_type: wanted.server_type.name,
        location: wanted.location.name,
        image: wanted.image,
        ipv4,
        ipv6,
        protection: Protection::default(),
        backups: false,
        rescue: false,
        primary_disk_size: wanted.server_type.disk,
        user_data,
        booted: starts,
        timeline,
        locked_until: now + busy,
        gone_at: None,
    };
    for firewall in &wanted.firewalls {
        if let Some(firewall) = project.firewalls.get_mut(firewall) {
            // Attached in the call that creates it: there is no moment without it.
            firewall.servers.insert(id, now);
        }
    }
    let boot = starts.then(|| project.boot_of(&record));
    project.servers.insert(id, record.clone());
    let action =
        project.begin(call.next_id(), "create_server", of(id), busy, call.action_failure.clone());
    let next_actions = if starts {
        vec![project.begin(call.next_id(), "start_server", of(id), step * 2, None)]
    } else {
        Vec::new()
    };
    let root_password = wanted.no_keys.then(|| URL_SAFE_NO_PAD.encode(random_bytes::<15>()));
    let server = view(call, &project, &record);
    Ok((CreatedServer { server, action, next_actions, root_password }, boot))
}

/// What a request refers to, looked up.
struct Wanted {
    server_type: &'static catalogue::TypeRow,
    location: &'static Location,
    image: Image,
    firewalls: Vec<u64>,
    no_keys: bool,
}

impl Wanted {
    fn check(project: &Project, request: &CreateServer) -> Result<Self, ApiError> {
        validate::server_name(&request.name)?;
        request.labels.as_ref().map_or(Ok(()), labels::check)?;
        validate::user_data(request.user_data.as_deref().unwrap_or_default())?;
        validate::nothing_of(
            "networks",
            "network",
            request.networks.as_deref().unwrap_or_default(),
        )?;
        validate::nothing_of("volumes", "volume", request.volumes.as_deref().unwrap_or_default())?;
        validate::nothing_of(
            "placement_group",
            "placement group",
            request.placement_group.as_slice(),
        )?;

        let server_type = find_type(&request.server_type)?;
        if server_type.deprecation.is_some() {
            return Err(ApiError::invalid(
                "server_type",
                format!("server type {} is deprecated", server_type.name),
            ));
        }
        let location = match &request.location {
            Some(wanted) => catalogue::locations()
                .iter()
                .find(|location| wanted.means(location.id, location.name)),
            None => catalogue::location_named("fsn1"),
        };
        let location = location.ok_or_else(|| {
            request.location.as_ref().map_or_else(
                || ApiError::not_found("location", ""),
                |wanted| validate::unknown("location", wanted),
            )
        })?;
        if !server_type.is_offered_in(location.name) {
            return Err(ApiError::invalid("location", "unsupported location for server type"));
        }
        let keys = request.ssh_keys.as_deref().unwrap_or_default();
        for key in keys {
            if !project.ssh_keys.values().any(|known| key.means(known.id, &known.name)) {
                return Err(validate::unknown("ssh_keys", key));
            }
        }
        let firewalls: Vec<u64> =
            request.firewalls.iter().flatten().map(|reference| reference.firewall).collect();
        if firewalls.len() > FIREWALLS_PER_SERVER {
            return Err(ApiError::invalid("firewalls", "a server can have at most 5 firewalls"));
        }
        if let Some(missing) = firewalls.iter().find(|id| !project.firewalls.contains_key(id)) {
            return Err(ApiError::invalid("firewalls", format!("firewall {missing} not found")));
        }
        let image = find_image(project, &request.image, server_type.architecture)?;
        Ok(Self { server_type, location, image, firewalls, no_keys: keys.is_empty() })
    }
}

/// The server type that a request names.
pub(crate) fn find_type(wanted: &IdOrName) -> Result<&'static catalogue::TypeRow, ApiError> {
    let row = catalogue::types().iter().find(|row| wanted.means(row.id, row.name));
    row.ok_or_else(|| validate::unknown("server_type", wanted))
}

/// The image that a request names, which must fit the architecture.
pub(crate) fn find_image(
    project: &Project,
    wanted: &IdOrName,
    architecture: &str,
) -> Result<Image, ApiError> {
    let system = catalogue::system_images();
    system
        .iter()
        .chain(project.snapshots.values())
        .find(|image| {
            image.architecture == architecture
                && wanted.means(image.id, image.name.as_deref().unwrap_or(""))
        })
        .cloned()
        .ok_or_else(|| validate::unknown("image", wanted))
}

/// Makes or takes the primary IPs of a new server.
fn addresses(
    call: &Call,
    project: &mut Project,
    server: u64,
    request: &PublicNetRequest,
    location: &'static Location,
) -> Result<(Option<u64>, Option<u64>), ApiError> {
    let mut one = |kind: &'static str,
                   enabled: Option<bool>,
                   wanted: Option<u64>|
     -> Result<Option<u64>, ApiError> {
        if !enabled.unwrap_or(true) {
            return Ok(None);
        }
        if let Some(id) = wanted {
            let ip = project
                .primary_ips
                .get_mut(&id)
                .filter(|ip| ip.kind == kind && ip.assignee_id.is_none());
            let ip = ip.ok_or_else(|| {
                ApiError::invalid("public_net", format!("primary IP {id} is not available"))
            })?;
            ip.assignee_id = Some(server);
            return Ok(Some(id));
        }
        let id = call.next_id();
        let ip = if kind == "ipv4" {
            // 198.18.0.0/15 is set aside for benchmarks (RFC 2544).
            format!("198.{}.{}.{}", 18 + (id >> 16) % 2, (id >> 8) % 256, id % 256)
        } else {
            format!("2001:db8:{:x}:{:x}::/64", (id >> 16) % 65536, id % 65536)
        };
        project.primary_ips.insert(
            id,
            PrimaryIp {
                id,
                name: format!("primary_ip-{id}"),
                kind,
                ip,
                labels: Labels::new(),
                created: now_in_seconds(),
                blocked: false,
                auto_delete: true,
                assignee_id: Some(server),
                assignee_type: "server",
                dns_ptr: Vec::new(),
                protection: ImageProtection::default(),
                location: location.clone(),
            },
        );
        Ok(Some(id))
    };
    Ok((
        one("ipv4", request.enable_ipv4, request.ipv4)?,
        one("ipv6", request.enable_ipv6, request.ipv6)?,
    ))
}
