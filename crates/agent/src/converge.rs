//! The loop that makes the server what the desired state says. Every pass begins from what is on
//! disk and what runs, so it does not matter where the last one was stopped.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use jiff::Timestamp;
use moorage_wire::{
    Sha256,
    report::{FailedDigest, FailureReason},
};
use thiserror::Error;
use tokio::time::{sleep, timeout};

use crate::{
    core::{Core, blocking},
    desired::{Document, LastGood, Standing},
    disk::DiskError,
    installer::{
        client::InstallerError,
        protocol::{Request, Unit},
    },
    openclaw::{
        cli::{CliError, Validation},
        config, health,
    },
};

/// What keeps a pass from its end; it is tried again.
#[derive(Debug, Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Installer(#[from] InstallerError),
    #[error(transparent)]
    OpenClaw(#[from] CliError),
}

/// How a wait for OpenClaw's health ended.
enum Gate {
    Healthy,
    Unhealthy,
    /// Another document arrived.
    Superseded,
}

/// Converges until the agent ends.
pub(crate) async fn run(core: Arc<Core>) {
    let timing = core.settings.timing.clone();
    let mut wait = timing.retry_after_failure;
    loop {
        let outcome = pass(&core).await;
        let message = outcome.as_ref().err().map(ToString::to_string);
        if let Some(message) = &message {
            tracing::warn!(error = message, "cannot converge yet, trying again in {wait:?}");
        }
        core.desired().set_trouble(message, Timestamp::now());
        let unfinished = outcome.is_err() || core.secrets_changed.load(Ordering::SeqCst);
        let pause = if unfinished { wait } else { timing.reconcile_interval };
        wait = if unfinished {
            (wait * 2).min(timing.reconcile_interval)
        } else {
            timing.retry_after_failure
        };
        // A new document, or the end of the pause.
        let _ = timeout(pause, core.wake_reconcile.notified()).await;
    }
}

/// One look at everything.
async fn pass(core: &Arc<Core>) -> Result<(), Trouble> {
    blocking(core, |core| core.vault().refresh()).await?;
    let (document, standing, last_good) = {
        let desired = core.desired();
        (desired.document(), desired.standing(), desired.last_good())
    };
    let Some(document) = document else {
        // OpenClaw first starts when a desired state exists. One that ran before goes on.
        if let Some(good) = last_good {
            keep(core, &good.config).await?;
        }
        reload_secrets(core).await;
        return Ok(());
    };
    match (standing, last_good) {
        (Standing::New, last_good) => try_document(core, &document, last_good.as_deref()).await?,
        (Standing::Good | Standing::Failed, Some(good)) => keep(core, &good.config).await?,
        (Standing::Good | Standing::Failed, None) => stop(core).await?,
    }
    erase_unwanted(core).await?;
    reload_secrets(core).await;
    learn_version(core).await;
    Ok(())
}

async fn try_document(
    core: &Arc<Core>,
    document: &Arc<Document>,
    last_good: Option<&LastGood>,
) -> Result<(), Trouble> {
    let bytes = config::to_bytes(&document.state.config, &core.settings.layout);
    let text = String::from_utf8(bytes).unwrap_or_default();
    let failure = if last_good.is_some_and(|good| good.config == text) {
        keep(core, &text).await?;
        None
    } else if let Validation::Invalid { path } = validate(core, &text).await? {
        let at = path.as_deref().map_or(String::new(), |path| format!(" at {path}"));
        let message = format!("OpenClaw rejects the configuration{at}");
        Some((FailureReason::InvalidConfig, message, path))
    } else {
        activate(core, &text).await?;
        match wait_for_health(core, document.digest).await {
            Gate::Healthy => None,
            Gate::Superseded => return Ok(()),
            Gate::Unhealthy => {
                let seconds = core.settings.timing.health_deadline.as_secs();
                let message = format!("OpenClaw did not start within {seconds} s");
                Some((FailureReason::Unhealthy, message, None))
            }
        }
    };
    match failure {
        None => accept(core, document, text).await,
        Some((reason, message, path)) => {
            let digest = document.digest;
            tracing::warn!(%digest, ?reason, path, "the desired state does not work");
            let failed = FailedDigest { digest, reason, message, path, at: Timestamp::now() };
            blocking(core, move |core| core.desired().did_not_work(failed)).await?;
            match last_good {
                Some(good) => keep(core, &good.config).await,
                None => stop(core).await,
            }
        }
    }
}

async fn accept(core: &Arc<Core>, document: &Document, config: String) -> Result<(), Trouble> {
    let credentials = document.state.credentials.clone();
    let good = LastGood { digest: document.digest, config, credentials };
    tracing::info!(digest = %document.digest, "converged");
    Ok(blocking(core, move |core| core.desired().worked(good)).await?)
}

async fn validate(core: &Arc<Core>, config: &str) -> Result<Validation, Trouble> {
    let staged = core.settings.layout.staged_config();
    let (path, text) = (staged.clone(), config.to_owned());
    blocking(core, move |core| core.disk.write(&path, text.as_bytes())).await?;
    let validation = core.openclaw.validate(&staged).await;
    blocking(core, move |core| core.disk.remove(&staged)).await?;
    Ok(validation?)
}

/// Makes `config` the live one and has `OpenClaw` start with it.
async fn activate(core: &Arc<Core>, config: &str) -> Result<(), Trouble> {
    let text = config.to_owned();
    blocking(core, move |core| config::write(&core.disk, &core.settings.layout, &text)).await?;
    // It reads all secrets when it starts.
    core.secrets_changed.store(false, Ordering::SeqCst);
    core.notes().openclaw_version = None;
    let unit = Unit::Openclaw;
    let running = core.installer.status(unit).await?.running;
    let request = if running { Request::Restart { unit } } else { Request::Start { unit } };
    core.installer.perform(&request).await?;
    let text = config.to_owned();
    blocking(core, move |core| config::note_started(&core.disk, &core.settings.layout, &text))
        .await?;
    Ok(())
}

/// Makes sure that `OpenClaw` runs with `config`, which worked before.
async fn keep(core: &Arc<Core>, config: &str) -> Result<(), Trouble> {
    let text = config.to_owned();
    let live =
        blocking(core, move |core| config::is_live(&core.disk, &core.settings.layout, &text))
            .await?;
    if !live {
        return activate(core, config).await;
    }
    let unit = Unit::Openclaw;
    if !core.installer.status(unit).await?.running {
        core.installer.perform(&Request::Start { unit }).await?;
    }
    Ok(())
}

/// There is nothing good to run.
async fn stop(core: &Arc<Core>) -> Result<(), Trouble> {
    let unit = Unit::Openclaw;
    if core.installer.status(unit).await?.running {
        core.installer.perform(&Request::Stop { unit }).await?;
    }
    Ok(())
}

async fn wait_for_health(core: &Arc<Core>, digest: Sha256) -> Gate {
    let timing = &core.settings.timing;
    let begin = Instant::now();
    loop {
        if health::ask(core.settings.gateway).await.started {
            return Gate::Healthy;
        }
        if core.desired().digest() != Some(digest) {
            return Gate::Superseded;
        }
        if begin.elapsed() >= timing.health_deadline {
            return Gate::Unhealthy;
        }
        sleep(timing.health_poll).await;
    }
}

/// Erases what neither the current document nor the one to fall back to names.
async fn erase_unwanted(core: &Arc<Core>) -> Result<(), Trouble> {
    let erased = blocking(core, |core| {
        let (document, last_good) = {
            let desired = core.desired();
            (desired.document(), desired.last_good())
        };
        let Some(document) = document else { return Ok(false) };
        let mut wanted = document.state.credentials.clone();
        wanted.extend(last_good.iter().flat_map(|good| good.credentials.iter().cloned()));
        core.vault().erase_all_but(&wanted, document.digest)
    })
    .await?;
    if erased {
        core.secrets_changed.store(true, Ordering::SeqCst);
    }
    Ok(())
}

/// Has a running `OpenClaw` read its secrets again, if any changed. What fails is tried again.
async fn reload_secrets(core: &Arc<Core>) {
    if !core.secrets_changed.load(Ordering::SeqCst) {
        return;
    }
    if core.desired().last_good().is_none() {
        // Nothing runs, or what runs is still on its way up and reads them then.
        core.secrets_changed.store(false, Ordering::SeqCst);
        return;
    }
    if !health::ask(core.settings.gateway).await.started {
        return;
    }
    core.secrets_changed.store(false, Ordering::SeqCst);
    let trouble = core.openclaw.reload_secrets().await.err().map(|error| error.to_string());
    if let Some(error) = &trouble {
        core.secrets_changed.store(true, Ordering::SeqCst);
        tracing::warn!(error, "OpenClaw does not reload its secrets");
    }
    core.notes().reload_trouble = trouble;
}

async fn learn_version(core: &Arc<Core>) {
    let known = core.notes().openclaw_version.is_some();
    if known || core.desired().last_good().is_none() {
        return;
    }
    match core.openclaw.version().await {
        Ok(version) => core.notes().openclaw_version = Some(version),
        Err(error) => tracing::debug!(%error, "OpenClaw's version is not known"),
    }
}
