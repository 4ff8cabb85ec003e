//! A running OpenClaw: starting it with a configuration, letting it take one up while it runs, waiting
//! for its health, and what it has to be told.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use moorage_wire::{
    Failure, Program, Sha256,
    failure::{FailureCode, Stage},
};
use tokio::time::sleep;

use super::Trouble;
use crate::{
    core::{Core, blocking},
    desired::{LastGood, Pair},
    failure,
    installer::protocol::{Request, Unit, UnitFailure},
    openclaw::{config::Started, health},
    worker::{
        WorkerError,
        protocol::{Reload, Stale},
    },
};

const UNIT: Unit = Unit::Openclaw;
/// So many failed starts in a row are not waited out: what a start needs does not come by starting
/// again.
const FAILED_STARTS: u32 = 3;

/// How a wait for OpenClaw's health ended.
pub(super) enum Gate {
    Healthy,
    /// It does not work.
    Unhealthy(failure::Trouble),
    Superseded,
}

/// Makes sure that `OpenClaw` runs with what worked before.
pub(super) async fn keep(core: &Arc<Core>, good: &LastGood) -> Result<(), Trouble> {
    if !is_live(core, &good.config, good.programs).await? {
        if let Err(error) = restore_integrations(core, good).await {
            // OpenClaw runs without them; better than not at all.
            tracing::warn!(%error, "integrations are not what they were");
        }
        return bring_into_use(core, good.digest, &good.config, good.programs).await;
    }
    if !is_running(core).await? {
        start(core).await?;
    }
    Ok(())
}

async fn restore_integrations(core: &Core, good: &LastGood) -> Result<(), WorkerError> {
    core.openclaw.remove_integrations(good.digest).await?;
    if !good.integrations.is_empty() {
        core.openclaw.add_integrations(good.digest).await?;
    }
    Ok(())
}

/// Stops its unit, also one that systemd is about to start again.
pub(super) async fn stop(core: &Core) -> Result<(), Trouble> {
    Ok(core.installer.perform(&Request::Stop { unit: UNIT }).await?)
}

/// There is nothing good to run.
pub(super) async fn keep_stopped(core: &Core) -> Result<(), Trouble> {
    let status = core.installer.status(UNIT).await?;
    if status.running || status.failure.is_some_and(|failure| !failure.given_up) {
        stop(core).await?;
    }
    Ok(())
}

/// Whether its unit runs.
pub(super) async fn is_running(core: &Core) -> Result<bool, Trouble> {
    Ok(core.installer.status(UNIT).await?.running)
}

/// Makes both programs the current ones where nothing runs yet, so that the command line is there.
pub(super) async fn switch_if_stopped(
    core: &Arc<Core>,
    programs: Option<Pair>,
) -> Result<(), Trouble> {
    if is_running(core).await? { Ok(()) } else { switch(core, programs).await }
}

/// Runs what is current, with the configuration that is live.
async fn start(core: &Core) -> Result<(), Trouble> {
    Ok(core.installer.perform(&Request::Start { unit: UNIT }).await?)
}

async fn is_live(core: &Core, config: &str, programs: Option<Pair>) -> Result<bool, Trouble> {
    let started = Started::read(&core.disk, &core.settings.layout)?;
    let live = core.openclaw.config_digest().await?;
    Ok(live == Some(Sha256::of(config.as_bytes()))
        && started == Some(Started::with(config, programs)))
}

/// Makes `config`, which is that of `document`, the live configuration and `programs` the current ones,
/// and has `OpenClaw` use them: without a restart if it can.
pub(super) async fn bring_into_use(
    core: &Arc<Core>,
    document: Sha256,
    config: &str,
    programs: Option<Pair>,
) -> Result<(), Trouble> {
    let running = is_running(core).await?;
    let started = Started::read(&core.disk, &core.settings.layout)?;
    let reloads = running && started.is_some_and(|started| started.has_programs(programs));
    switch(core, programs).await?;
    core.openclaw.write_config(document).await?;
    if !(reloads && is_taken_up(core).await) {
        // It reads all secrets when it starts.
        core.secrets_changed.store(false, Ordering::SeqCst);
        core.notes().openclaw_version = None;
        let unit = UNIT;
        let request = if running { Request::Restart { unit } } else { Request::Start { unit } };
        core.installer.perform(&request).await?;
    }
    let now = Started::with(config, programs);
    blocking(core, move |core| now.note(&core.disk, &core.settings.layout)).await?;
    Ok(())
}

/// Makes both programs the current ones. Until OpenClaw is started, it is unknown what runs.
pub(super) async fn switch(core: &Arc<Core>, programs: Option<Pair>) -> Result<(), Trouble> {
    blocking(core, |core| Started::forget(&core.disk, &core.settings.layout)).await?;
    let Some(Pair { openclaw, node }) = programs else { return Ok(()) };
    let inventory = core.installer.inventory().await?;
    for (kind, sha256) in [(Program::Node, node), (Program::Openclaw, openclaw)] {
        if inventory.active(kind) != Some(sha256) {
            core.installer.activate(kind, sha256).await?;
        }
    }
    Ok(())
}

/// Whether a running OpenClaw says in time that it uses the configuration that was just written. That it
/// does not answer once is no reason to restart it: it may be busy with that configuration.
async fn is_taken_up(core: &Core) -> bool {
    let timing = &core.settings.timing;
    let begin = Instant::now();
    loop {
        if health::ask(core.settings.gateway).await.started {
            match core.openclaw.is_config_applied().await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "OpenClaw does not say which configuration it uses");
                }
            }
        }
        if begin.elapsed() >= timing.reload_patience {
            return false;
        }
        sleep(timing.health_poll).await;
    }
}

/// Waits until `OpenClaw` is started, its unit has failed for good, or the deadline is over. With the digest of a document it waits
/// only as long as that is the current one.
pub(super) async fn wait_for_health(core: &Core, digest: Option<Sha256>) -> Gate {
    let timing = &core.settings.timing;
    let begin = Instant::now();
    let mut failures = Failures::default();
    loop {
        if health::ask(core.settings.gateway).await.started {
            return Gate::Healthy;
        }
        if digest.is_some() && core.desired().digest() != digest {
            return Gate::Superseded;
        }
        // Without the installer there is still the deadline.
        match core.installer.status(UNIT).await {
            Ok(status) => failures.note(status.failure),
            Err(error) => tracing::debug!(%error, "how OpenClaw's unit is doing is not known"),
        }
        if let Some(reason) = failures.verdict() {
            return Gate::Unhealthy(reason);
        }
        if begin.elapsed() >= timing.health_deadline {
            let seconds = timing.health_deadline.as_secs();
            return Gate::Unhealthy(failures.at_deadline(seconds));
        }
        sleep(timing.health_poll).await;
    }
}

/// The failed starts that systemd reported while the gate waited.
#[derive(Default)]
struct Failures {
    count: u32,
    last: Option<UnitFailure>,
}

impl Failures {
    fn note(&mut self, failure: Option<UnitFailure>) {
        let Some(failure) = failure else { return };
        // The pause between two starts is long enough to be looked at more than once.
        if self.last.is_none_or(|last| last.restarts != failure.restarts) {
            self.count += 1;
        }
        self.last = Some(failure);
    }

    /// Why there is nothing to wait for any more.
    fn verdict(&self) -> Option<failure::Trouble> {
        let UnitFailure { ending, restarts, given_up } = self.last?;
        let what = if given_up {
            format!("systemd gave up on it after {restarts} restarts")
        } else if self.count >= FAILED_STARTS {
            format!("it ended {} times", self.count)
        } else {
            return None;
        };
        let failure = Failure::new(Stage::Start, FailureCode::ProcessEnded).of(Program::Openclaw);
        Some(failure::Trouble {
            message: format!(
                "OpenClaw does not start: {what} ({ending}); see `journalctl -u openclaw`"
            ),
            failure: failure.with_detail(&format!("{what}: {ending}")),
        })
    }

    fn at_deadline(&self, seconds: u64) -> failure::Trouble {
        let ended = match self.last {
            Some(last) => format!(", and ended {} times ({})", self.count, last.ending),
            None => String::new(),
        };
        let failure =
            Failure::new(Stage::Health, FailureCode::DeadlineExceeded).of(Program::Openclaw);
        let within = format!("did not start within {seconds} s{ended}");
        failure::Trouble {
            failure: failure.with_detail(&format!("it {within}")),
            message: format!("OpenClaw {within}"),
        }
    }
}

/// Has a running `OpenClaw` read its secrets again, if any changed. Failures are retried.
pub(super) async fn reload_secrets(core: &Arc<Core>) -> Result<(), Trouble> {
    if !core.secrets_changed.load(Ordering::SeqCst) {
        return Ok(());
    }
    if core.desired().last_good().is_none() {
        // Nothing runs, or what runs is still on its way up and reads them then.
        core.secrets_changed.store(false, Ordering::SeqCst);
        return Ok(());
    }
    if !health::ask(core.settings.gateway).await.started {
        return Ok(());
    }
    core.secrets_changed.store(false, Ordering::SeqCst);
    let trouble = match core.openclaw.reload_secrets().await {
        Ok(Reload::Done) => {
            core.notes().restarted_for_secrets = false;
            None
        }
        Ok(Reload::RestartNeeded { because }) if core.notes().restarted_for_secrets => {
            let does = match because {
                Stale::RefusesNew => "refuses its new token",
                Stale::TakesOld => "still takes its old token",
            };
            let said = format!("the gateway {does}, even after a restart");
            let failure = Failure::new(Stage::Reload, FailureCode::NotTakenUp);
            let failure = failure.of(Program::Openclaw).with_detail(&said);
            Some(failure::Trouble { message: said, failure })
        }
        Ok(Reload::RestartNeeded { because }) => {
            tracing::info!(?because, "OpenClaw is restarted: its gateway did not change its token");
            core.notes().restarted_for_secrets = true;
            // After the start it is asked again.
            core.secrets_changed.store(true, Ordering::SeqCst);
            core.installer.perform(&Request::Restart { unit: UNIT }).await?;
            None
        }
        Err(error) => {
            let failure = Failure { stage: Stage::Reload, ..error.failure() };
            let failure = failure.of(Program::Openclaw);
            Some(failure::Trouble { message: error.to_string(), failure })
        }
    };
    if let Some(failure::Trouble { message: error, .. }) = &trouble {
        core.secrets_changed.store(true, Ordering::SeqCst);
        tracing::warn!(error, "OpenClaw does not reload its secrets");
    }
    core.notes().reload_trouble = trouble;
    Ok(())
}

pub(super) async fn learn_version(core: &Core) {
    let known = core.notes().openclaw_version.is_some();
    if known || core.desired().last_good().is_none() {
        return;
    }
    match core.openclaw.version().await {
        Ok(version) => core.notes().openclaw_version = Some(version),
        Err(error) => tracing::debug!(%error, "OpenClaw's version is not known"),
    }
}
