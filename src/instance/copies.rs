//! Which of the servers that say they are an instance's is its server. Names are unique in a project,
//! so the operator never makes a second one beside a first: whatever else has the labels is a copy that
//! somebody made, such as a snapshot that was restored with them. A copy is told, never taken over.

use crate::{
    api::instance::ServerStatus,
    hetzner::{Server, ServerId, ServerStatus as Power},
    names,
};

/// The servers with an instance's labels, told apart.
#[derive(Debug, Default, PartialEq)]
pub struct ToldApart {
    /// The one that the instance uses; `None` if none of them is.
    pub own: Option<Server>,
    pub copies: Vec<ServerId>,
}

/// What is known of the instance's server besides the labels.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// What the status says.
    pub recorded: Option<&'a ServerStatus>,
    /// Whether the recorded server was asked for by its id and is not there.
    pub gone: bool,
    /// The name that its server is made with.
    pub name: &'a str,
}

/// Tells them apart. All of `servers` have the instance's labels.
pub fn tell_apart(servers: &[Server], known: Known<'_>) -> ToldApart {
    let own = choose(servers, known).cloned();
    let copy = |server: &&Server| {
        server.status != Power::Deleting && own.as_ref().is_none_or(|own| own.id != server.id)
    };
    let copies = servers.iter().filter(copy).map(|server| server.id).collect();
    ToldApart { own, copies }
}

fn choose<'a>(servers: &'a [Server], known: Known<'_>) -> Option<&'a Server> {
    let Some(recorded) = known.recorded else {
        // The status was lost.
        return heir(servers.iter(), known.name);
    };
    let epoch = recorded.epoch.parse().ok();
    let of_epoch = || servers.iter().filter(|server| names::epoch(server) == epoch);
    match recorded.id {
        Some(id) => servers.iter().find(|server| server.id == ServerId(id)).or_else(|| {
            // A status that is older than the server, or a snapshot in the place of a lost one.
            let heirs =
                || heir(of_epoch(), known.name).or_else(|| heir(servers.iter(), known.name));
            known.gone.then(heirs).flatten()
        }),
        // Nothing was made before this epoch was written down, so all others are not it.
        None => heir(of_epoch(), known.name),
    }
}

/// Of several the one that stays, that has the name which the operator gives, that is the newest.
fn heir<'a>(servers: impl Iterator<Item = &'a Server>, name: &str) -> Option<&'a Server> {
    servers.max_by_key(|server| {
        (server.status != Power::Deleting, server.name == name, server.created, server.id)
    })
}
