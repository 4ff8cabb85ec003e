//! What stands behind a created server. The cloud half only ever calls this trait; it does not
//! know processes, containers or agents.

use std::net::{Ipv4Addr, Ipv6Addr};

use async_trait::async_trait;

/// What stands behind a created server.
#[async_trait]
pub trait VpsBackend: Send + Sync + 'static {
    /// Boots a server with its user-data. Returns as soon as the boot has begun.
    async fn create(&self, server: ServerBoot) -> Result<(), BackendError>;
    /// Powers the server off and forgets it. Unknown ids are fine.
    async fn delete(&self, id: u64) -> Result<(), BackendError>;
    /// Presses one of the power buttons.
    async fn power(&self, id: u64, action: PowerAction) -> Result<(), BackendError>;
    /// Wipes the disk and boots again with the given user-data.
    async fn rebuild(&self, server: ServerBoot) -> Result<(), BackendError>;
    /// Whether a server has powered itself off since its power was last switched on.
    fn is_off_by_itself(&self, _id: u64) -> bool {
        false
    }
    /// Stops everything and leaves nothing running.
    async fn shutdown(&self);
    /// What the admin API offers besides, with this backend: paths below `/admin`.
    fn admin_routes(&self) -> axum::Router {
        axum::Router::new()
    }
}

/// What a server needs to boot.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerBoot {
    /// The server's id in the Hetzner API.
    pub id: u64,
    /// The server's name, which becomes its host name.
    pub name: String,
    /// The cloud-init user-data, empty when none was given.
    pub user_data: String,
    /// The public IPv4 address, if it has one.
    pub ipv4: Option<Ipv4Addr>,
    /// The first address of the public IPv6 network, if it has one.
    pub ipv6: Option<Ipv6Addr>,
}

impl std::fmt::Debug for ServerBoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // User-data carries one-time keys: only its size may reach a log.
        f.debug_struct("ServerBoot")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("user_data_bytes", &self.user_data.len())
            .field("ipv4", &self.ipv4)
            .field("ipv6", &self.ipv6)
            .finish()
    }
}

/// The power buttons of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerAction {
    /// Press the power button of a server that is off.
    On,
    Off,
    /// Ask the system to shut down (ACPI).
    Shutdown,
    /// Ask the system to reboot (ACPI).
    Reboot,
    /// Cut the power and give it back.
    Reset,
}

/// A backend could not do what the cloud asked of it. The message ends up in the action's error.
#[derive(Debug, thiserror::Error)]
#[error("the server backend failed: {0}")]
pub struct BackendError(pub String);

/// Nothing stands behind the servers: for tests of the APIs alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBackend;

#[async_trait]
impl VpsBackend for NoBackend {
    async fn create(&self, _server: ServerBoot) -> Result<(), BackendError> {
        Ok(())
    }
    async fn delete(&self, _id: u64) -> Result<(), BackendError> {
        Ok(())
    }
    async fn power(&self, _id: u64, _action: PowerAction) -> Result<(), BackendError> {
        Ok(())
    }
    async fn rebuild(&self, _server: ServerBoot) -> Result<(), BackendError> {
        Ok(())
    }
    async fn shutdown(&self) {}
}
