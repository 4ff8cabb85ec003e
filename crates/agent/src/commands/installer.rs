//! `moorage-agent installer` and `moorage-agent roll-back`.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use moorage_agent::{
    Disk, Layout, accounts,
    installer::{
        roll_back::{self, Outcome},
        server::Installer,
        settings::InstallerSettings,
        systemd::Systemd,
        update::UpdateTiming,
    },
};
use moorage_wire::{Program, Sha256};

use super::PrivateService;

/// How to reach systemd.
#[derive(Args)]
pub(crate) struct Bus {
    /// The address of the bus that systemd is on. [default: the system bus]
    #[arg(long, env = "MOORAGE_INSTALLER_BUS", value_name = "unix:path=/PATH")]
    bus: Option<String>,
}

#[derive(Args)]
pub(crate) struct Install {
    #[command(flatten)]
    bus: Bus,
    #[command(flatten)]
    service: PrivateService,
    /// Who may read the tunnel's token besides root: a group's name or number.
    #[arg(long, env = "MOORAGE_INSTALLER_TOKEN_GROUP", default_value = "cloudflared")]
    token_group: String,
    /// The user that a new agent is tried as: a name, or numbers as UID:GID.
    #[arg(long, env = "MOORAGE_INSTALLER_TRIAL_USER", default_value = "nobody")]
    trial_user: String,
    /// How many seconds a new agent has to answer on its socket.
    #[arg(long, env = "MOORAGE_INSTALLER_SOCKET_DEADLINE", default_value_t = 10, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=600))]
    socket_deadline: u64,
    /// How many seconds a signed call of the operator has to reach a new agent.
    #[arg(long, env = "MOORAGE_INSTALLER_CONFIRM_DEADLINE", default_value_t = 300, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=86400))]
    confirm_deadline: u64,
}

impl Install {
    fn settings(self, layout: Layout) -> anyhow::Result<InstallerSettings> {
        let timing = UpdateTiming {
            socket: Duration::from_secs(self.socket_deadline),
            confirmation: Duration::from_secs(self.confirm_deadline),
            ..UpdateTiming::default()
        };
        Ok(InstallerSettings {
            listen: self.service.listen,
            client: self.service.client,
            token_group: Some(accounts::group(&self.token_group).context("--token-group")?),
            // Others cannot be played without root's powers.
            trial_user: rustix::process::geteuid()
                .is_root()
                .then(|| accounts::user(&self.trial_user))
                .transpose()
                .context("--trial-user")?,
            running: installed_version(&layout),
            timing,
            layout,
        })
    }

    pub(crate) async fn run(
        mut self,
        layout: Layout,
        shutdown: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let units = Systemd::new(self.bus.bus.take());
        let settings = self.settings(layout)?;
        let installer = Installer::start(&settings, Disk::default(), units)?;
        // systemd waits for this; without systemd it does nothing.
        sd_notify::notify(false, &[sd_notify::NotifyState::Ready])
            .context("cannot tell systemd that it is ready")?;
        installer.run_until(shutdown).await;
        Ok(())
    }
}

impl Bus {
    pub(crate) async fn roll_back(self, layout: &Layout) -> anyhow::Result<()> {
        let units = Systemd::new(self.bus);
        match roll_back::roll_back(&Disk::default(), layout, &units).await? {
            Outcome::RolledBack => tracing::info!("the agent before is back"),
            Outcome::BackBefore => tracing::warn!("the agent before is back, and fails as well"),
            Outcome::NothingToRollBack => tracing::warn!("no update of the agent is under way"),
        }
        Ok(())
    }
}

/// The version of this program, by the folder that it lies in.
fn installed_version(layout: &Layout) -> Option<Sha256> {
    let itself = std::env::current_exe().ok()?;
    let version = itself.parent()?;
    let folder = layout.programs().join(Program::Agent.name());
    if version.parent()? != folder.canonicalize().ok()? {
        return None;
    }
    version.file_name()?.to_str()?.parse().ok()
}
