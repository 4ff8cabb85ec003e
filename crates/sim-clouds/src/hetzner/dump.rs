//! What the admin API sees of Hetzner, and does to it behind everybody's back.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use std::sync::Arc;

use super::{Call, Project, ProjectDump, firewalls, project::ServerDump, servers};
use crate::world::World;

/// Every project by name.
pub(crate) fn dump(world: &Arc<World>) -> BTreeMap<String, ProjectDump> {
    let projects = world.hetzner.all().into_iter();
    projects
        .map(|(name, project)| {
            let call = Call {
                world: Arc::clone(world),
                project,
                project_name: name.clone(),
                action_failure: None,
                boot: super::Boot::Runs,
            };
            (name, dump_project(&call))
        })
        .collect()
}

fn dump_project(call: &Call) -> ProjectDump {
    let project = call.project();
    let servers = project.servers.values().map(|record| ServerDump {
        server: servers::view(call, &project, record),
        user_data: record.user_data.clone(),
    });
    ProjectDump {
        server_quota: project.server_quota,
        servers: servers.collect(),
        firewalls: firewalls::dump(&project),
        ssh_keys: project.ssh_keys.values().cloned().collect(),
        primary_ips: project.primary_ips.values().cloned().collect(),
        snapshots: project.snapshots.values().cloned().collect(),
    }
}

/// Removes a server at once. False when there is none of that id.
pub(crate) fn vanish(project: &Mutex<Project>, id: u64) -> bool {
    let mut project = project.lock();
    let found = project.servers.contains_key(&id);
    project.forget_server(id);
    found
}
