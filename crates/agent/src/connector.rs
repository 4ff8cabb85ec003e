//! The loop that watches cloudflared and moves it from one tunnel token to the next. When to try
//! which token is decided by `tunnel`; here it is done.

use std::{sync::Arc, time::Instant};

use moorage_wire::{Failure, Program, failure::Stage};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::timeout;
use zeroize::Zeroize as _;

use crate::{
    core::{Core, blocking},
    disk::DiskError,
    failure,
    installer::{
        client::InstallerError,
        protocol::{Request, Unit},
    },
    probe,
    secret_text::SecretText,
    tunnel::{Patience, Rotation, Step, Which},
};

#[derive(Debug, Error)]
enum Trouble {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Installer(#[from] InstallerError),
}

impl Trouble {
    fn failure(&self) -> Failure {
        let failure = match self {
            Self::Disk(error) => failure::of_disk(error),
            Self::Installer(error) => error.failure(),
        };
        Failure { stage: Stage::Reload, ..failure }.of(Program::Cloudflared)
    }
}

/// Whether cloudflared holds at least one connection.
pub(crate) async fn is_connected(core: &Core) -> bool {
    probe::is_ok(core.settings.cloudflared_metrics, "/ready").await
}

/// Watches until the agent ends.
pub(crate) async fn run(core: Arc<Core>) {
    let timing = core.settings.timing.clone();
    let patience =
        Patience { disconnected_for: timing.disconnected_for, grace: timing.token_grace };
    let rotation = Arc::new(Mutex::new(Rotation::new(patience)));
    loop {
        let trouble = look(&core, &rotation).await.err();
        let trouble = trouble.map(|error| failure::Trouble {
            message: format!("the tunnel's token cannot be changed: {error}"),
            failure: error.failure(),
        });
        if let Some(failure::Trouble { message, .. }) = &trouble {
            tracing::warn!("{message}");
        }
        core.notes().tunnel_trouble = trouble;
        let rotating = blocking(&core, |core| core.vault().tunnel().is_rotating()).await;
        let pause = if rotating { timing.rotation_poll } else { timing.tunnel_poll };
        let _ = timeout(pause, core.wake_tunnel.notified()).await;
    }
}

async fn look(core: &Arc<Core>, rotation: &Arc<Mutex<Rotation>>) -> Result<(), Trouble> {
    let connected = is_connected(core).await;
    put_right(core, connected).await?;
    let rotation = Arc::clone(rotation);
    // The vault may be busy with a slow worker.
    let step = blocking(core, move |core| {
        let mut rotation = rotation.lock();
        core.vault().tunnel().next_step(&mut rotation, connected, Instant::now())
    })
    .await;
    match step {
        Step::Wait => Ok(()),
        Step::Promote => {
            blocking(core, |core| core.vault().tunnel().promote()).await?;
            tracing::info!("the new tunnel token works; the old one is erased");
            Ok(())
        }
        Step::Switch(which) => switch(core, which).await,
    }
}

/// Looks after the file that cloudflared starts with, which others may write as well.
async fn put_right(core: &Arc<Core>, connected: bool) -> Result<(), Trouble> {
    let compared = move |core: &Core| core.vault().tunnel().compare(connected);
    if let Some(token) = blocking(core, compared).await? {
        tracing::warn!(
            "the tunnel token in cloudflared's file is another one: it is written again"
        );
        write(core, &token).await?;
    }
    Ok(())
}

async fn write(core: &Core, token: &SecretText) -> Result<(), InstallerError> {
    let mut write = Request::WriteTunnelToken { token: token.expose().to_owned() };
    let written = core.installer.perform(&write).await;
    if let Request::WriteTunnelToken { token } = &mut write {
        token.zeroize();
    }
    written
}

async fn switch(core: &Arc<Core>, to: Which) -> Result<(), Trouble> {
    let Some(token) = blocking(core, move |core| core.vault().tunnel().begin_switch(to)).await?
    else {
        return Ok(());
    };
    tracing::info!(token_sha256 = %token.sha256(), "cloudflared is restarted with a token");
    write(core, &token).await?;
    core.installer.perform(&Request::Restart { unit: Unit::Cloudflared }).await?;
    blocking(core, move |core| core.vault().tunnel().finish_switch(to, &token)).await?;
    Ok(())
}
