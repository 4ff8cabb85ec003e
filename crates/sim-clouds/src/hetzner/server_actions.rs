//! `POST /servers/{id}/actions/{command}`: power, rebuild, change of type, protection, backups,
//! snapshots.

use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::Path;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::body::{self, IdOrName};
use super::labels::{self, Labels};
use super::model::{Action, CreatedFrom, Image, ImageProtection, ServerStatus};
use super::project::{Project, ServerRecord, Timeline, now_in_seconds};
use super::server_create::{find_image, find_type};
use super::servers::{not_found, of};
use super::{ApiError, Call, catalogue, validate};
use crate::backend::{PowerAction, ServerBoot};

#[derive(Serialize)]
pub(crate) struct Started {
    action: Action,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<Image>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rebuild {
    image: IdOrName,
    user_data: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeType {
    server_type: IdOrName,
    upgrade_disk: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeProtection {
    delete: Option<bool>,
    rebuild: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateImage {
    #[serde(rename = "type")]
    kind: Option<String>,
    description: Option<String>,
    labels: Option<Labels>,
}

/// What the backend has to do once the action has begun.
enum Behind {
    Nothing,
    Power(PowerAction),
    Boot(ServerBoot),
    Rebuild(ServerBoot),
}

/// An action that has been checked and begun.
struct Begun {
    command: &'static str,
    takes: Duration,
    behind: Behind,
    image: Option<Image>,
}

/// `POST /servers/{id}/actions/{command}`
pub(crate) async fn start(
    call: Call,
    Path((id, command)): Path<(String, String)>,
    bytes: Bytes,
) -> Result<(StatusCode, Json<Started>), ApiError> {
    let id = id.parse().map_err(|_| ApiError::not_found("server with ID", &id))?;
    let (action, begun) = begin(&call, id, &command, &bytes)?;
    if call.action_failure.is_none() {
        match begun.behind {
            Behind::Nothing => {}
            Behind::Power(press) => {
                call.behind(action.id, |backend| async move { backend.power(id, press).await })
                    .await;
            }
            Behind::Boot(boot) => {
                call.behind(action.id, |backend| async move { backend.create(boot).await }).await;
            }
            Behind::Rebuild(boot) => {
                call.behind(action.id, |backend| async move { backend.rebuild(boot).await }).await;
            }
        }
    }
    Ok((StatusCode::CREATED, Json(Started { action, image: begun.image })))
}

fn begin(call: &Call, id: u64, command: &str, bytes: &[u8]) -> Result<(Action, Begun), ApiError> {
    let now = Instant::now();
    let mut project = call.project();
    let mut record = project.servers.get(&id).cloned().ok_or_else(|| not_found(id))?;
    if record.gone_at.is_some() || record.locked_until > now {
        return Err(ApiError::locked("server"));
    }
    let step = call.world.timings.action;
    let power =
        |command, press| Begun { command, takes: step, behind: Behind::Power(press), image: None };
    let quiet = |command, takes| Begun { command, takes, behind: Behind::Nothing, image: None };
    let begun = match command {
        "poweron" => power_on(&project, &mut record, now, step),
        "poweroff" => {
            record.timeline =
                Timeline::new(now, ServerStatus::Stopping).then(now + step, ServerStatus::Off);
            power("stop_server", PowerAction::Off)
        }
        "shutdown" => {
            // The action ends when the signal is sent; the system is off some time later.
            record.timeline = Timeline::new(now, ServerStatus::Running)
                .then(now + step, ServerStatus::Stopping)
                .then(now + step * 2, ServerStatus::Off);
            power("shutdown_server", PowerAction::Shutdown)
        }
        "reboot" => power("reboot_server", PowerAction::Reboot),
        "reset" => power("reset_server", PowerAction::Reset),
        "rebuild" => {
            let request: Rebuild = body::parse(bytes)?;
            let architecture =
                catalogue::type_named(record.server_type).map_or("x86", |row| row.architecture);
            let image = find_image(&project, &request.image, architecture)?;
            rebuild(&project, &mut record, image, request.user_data, now, step)?
        }
        "change_type" => {
            change_type(call, &mut record, &body::parse(bytes)?, now, step)?;
            quiet("change_server_type", step)
        }
        "change_protection" => {
            let request: ChangeProtection = body::parse(bytes)?;
            record.protection.delete = request.delete.unwrap_or(record.protection.delete);
            record.protection.rebuild = request.rebuild.unwrap_or(record.protection.rebuild);
            quiet("change_protection", Duration::ZERO)
        }
        "enable_backup" | "disable_backup" => {
            record.backups = command == "enable_backup";
            quiet(if record.backups { "enable_backup" } else { "disable_backup" }, Duration::ZERO)
        }
        "enable_rescue" | "disable_rescue" => {
            record.rescue = command == "enable_rescue";
            quiet(if record.rescue { "enable_rescue" } else { "disable_rescue" }, Duration::ZERO)
        }
        "create_image" => {
            let image = snapshot(call, &record, body::parse(bytes)?)?;
            project.snapshots.insert(image.id, image.clone());
            Begun { image: Some(image), ..quiet("create_image", step) }
        }
        _ => return Err(ApiError::not_found("action", format!("'{command}'"))),
    };
    if call.action_failure.is_none() {
        record.locked_until = now + begun.takes;
        project.servers.insert(id, record);
    }
    let action = project.begin(
        call.next_id(),
        begun.command,
        of(id),
        begun.takes,
        call.action_failure.clone(),
    );
    Ok((action, begun))
}

fn power_on(project: &Project, record: &mut ServerRecord, now: Instant, step: Duration) -> Begun {
    let behind = if !record.booted {
        record.booted = true;
        Behind::Boot(project.boot_of(record))
    } else if record.timeline.at(now) == ServerStatus::Off {
        Behind::Power(PowerAction::On)
    } else {
        // It is on already: Hetzner lets the action succeed.
        Behind::Nothing
    };
    if !matches!(behind, Behind::Nothing) {
        record.timeline =
            Timeline::new(now, ServerStatus::Starting).then(now + step, ServerStatus::Running);
    }
    Begun { command: "start_server", takes: step, behind, image: None }
}

fn rebuild(
    project: &Project,
    record: &mut ServerRecord,
    image: Image,
    user_data: Option<String>,
    now: Instant,
    step: Duration,
) -> Result<Begun, ApiError> {
    if record.protection.rebuild {
        return Err(ApiError::protected("server rebuild"));
    }
    record.image = image;
    if let Some(user_data) = user_data {
        validate::user_data(&user_data)?;
        record.user_data = user_data;
    }
    record.booted = true;
    record.timeline = Timeline::new(now, ServerStatus::Rebuilding)
        .then(now + step, ServerStatus::Starting)
        .then(now + step * 2, ServerStatus::Running);
    let boot = project.boot_of(record);
    Ok(Begun { command: "rebuild_server", takes: step, behind: Behind::Rebuild(boot), image: None })
}

fn change_type(
    call: &Call,
    record: &mut ServerRecord,
    request: &ChangeType,
    now: Instant,
    step: Duration,
) -> Result<(), ApiError> {
    if record.timeline.at(now) != ServerStatus::Off {
        return Err(ApiError::unprocessable(
            "server_not_stopped",
            "the server must be powered off to change its type",
        ));
    }
    let row = find_type(&request.server_type)?;
    let fits = row.architecture
        == catalogue::type_named(record.server_type).map_or("", |old| old.architecture)
        && row.disk >= record.primary_disk_size;
    if !fits || row.deprecation.is_some() || row.name == record.server_type {
        return Err(ApiError::unprocessable(
            "invalid_server_type",
            "the server cannot become that type",
        ));
    }
    if call.world.faults.strike_stock(&call.project_name, row.name, record.location)
        || !row.is_offered_in(record.location)
    {
        return Err(ApiError::out_of_stock(format!(
            "server type {} is not available in {}",
            row.name, record.location
        )));
    }
    record.server_type = row.name;
    if request.upgrade_disk {
        record.primary_disk_size = row.disk;
    }
    record.timeline =
        Timeline::new(now, ServerStatus::Migrating).then(now + step, ServerStatus::Off);
    Ok(())
}

fn snapshot(call: &Call, record: &ServerRecord, request: CreateImage) -> Result<Image, ApiError> {
    let kind = match request.kind.as_deref() {
        None | Some("snapshot") => "snapshot",
        Some("backup") if record.backups => "backup",
        Some("backup") => {
            return Err(ApiError::invalid("type", "backups are not enabled for this server"));
        }
        Some(_) => return Err(ApiError::invalid("type", "must be snapshot or backup")),
    };
    request.labels.as_ref().map_or(Ok(()), labels::check)?;
    Ok(Image {
        id: call.next_id(),
        kind,
        status: "available",
        name: None,
        description: request.description.unwrap_or_else(|| format!("{kind} of {}", record.name)),
        image_size: Some(1.5),
        disk_size: record.primary_disk_size,
        created: now_in_seconds(),
        created_from: Some(CreatedFrom { id: record.id, name: record.name.clone() }),
        bound_to: (kind == "backup").then_some(record.id),
        protection: ImageProtection::default(),
        labels: request.labels.unwrap_or_default(),
        ..record.image.clone()
    })
}
