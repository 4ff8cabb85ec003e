//! The services that the installer controls, by name, and what can be done with them. Whose D-Bus
//! that goes over is in [`super::systemd`].

use thiserror::Error;

use super::{client::UnitStatus, protocol::Unit};

/// A service of the server. There is no way to name another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// `openclaw.service`, OpenClaw's gateway.
    Openclaw,
    /// `cloudflared.service`, the tunnel connector.
    Cloudflared,
    /// `moorage-agent.service`.
    Agent,
    /// The agent's hand in OpenClaw's files.
    Worker,
    /// `moorage-installer.service`: this process.
    Installer,
}

impl From<Unit> for Service {
    fn from(unit: Unit) -> Self {
        match unit {
            Unit::Openclaw => Self::Openclaw,
            Unit::Cloudflared => Self::Cloudflared,
            Unit::Agent => Self::Agent,
        }
    }
}

impl Service {
    /// The name of its unit.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Openclaw => "openclaw.service",
            Self::Cloudflared => "cloudflared.service",
            Self::Agent => "moorage-agent.service",
            Self::Worker => "moorage-worker.service",
            Self::Installer => "moorage-installer.service",
        }
    }

    /// The socket that systemd holds for it. It fails together with a service that cannot start.
    pub fn socket(self) -> Option<&'static str> {
        match self {
            Self::Openclaw | Self::Cloudflared => None,
            Self::Agent => Some("moorage-agent.socket"),
            Self::Worker => Some("moorage-worker.socket"),
            Self::Installer => Some("moorage-installer.socket"),
        }
    }
}

/// What systemd did not do.
#[derive(Debug, Error)]
pub enum UnitError {
    /// The bus, or systemd on it, does not answer.
    #[error("systemd cannot be asked to {action} {unit}: {cause}")]
    Bus {
        /// A verb for the message, such as `start`.
        action: &'static str,
        /// Name of the unit.
        unit: &'static str,
        /// What the bus said.
        cause: String,
    },
    /// It tried, and the unit did not follow.
    #[error("{unit} did not {action}: {result} (see `journalctl -u {unit}`)")]
    Job {
        /// A verb for the message, such as `start`.
        action: &'static str,
        /// Name of the unit.
        unit: &'static str,
        /// The result of systemd's job: `failed`, `timeout`, `dependency`, and so on.
        result: String,
    },
    /// It is still at it.
    #[error("{unit} did not {action} in time")]
    Timeout {
        /// A verb for the message, such as `start`.
        action: &'static str,
        /// Name of the unit.
        unit: &'static str,
    },
}

/// How a machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    PowerOff,
    Reboot,
}

/// The service manager of a server. Everything is waited for to its end.
pub trait Units: Send + Sync + 'static {
    /// Whether a service runs.
    fn status(
        &self,
        service: Service,
    ) -> impl Future<Output = Result<UnitStatus, UnitError>> + Send;

    /// Starts a service unless it runs, whatever it did before.
    fn start(&self, service: Service) -> impl Future<Output = Result<(), UnitError>> + Send;

    /// Stops a service if it runs.
    fn stop(&self, service: Service) -> impl Future<Output = Result<(), UnitError>> + Send;

    /// Stops a service if it runs, and starts it, whatever it did before.
    fn restart(&self, service: Service) -> impl Future<Output = Result<(), UnitError>> + Send;

    /// Restarts a service only if it runs.
    fn refresh(&self, service: Service) -> impl Future<Output = Result<(), UnitError>> + Send;

    /// Whether the machine is still coming up, with everything starting at once.
    fn is_booting(&self) -> impl Future<Output = Result<bool, UnitError>> + Send;

    /// Has the machine go down; does not wait for it.
    fn down(&self, how: Down) -> impl Future<Output = Result<(), UnitError>> + Send;
}
