//! The loop that makes the server what the desired state says. Every pass begins from what is on
//! disk and what runs, so it does not matter where the last one was stopped. Here it is decided what
//! comes when; how is in the modules below.

mod audit;
mod connector;
mod enrolment_key;
mod integrations;
mod openclaw;
mod pairings;
mod pass_on;
mod programs;
mod trouble;
mod update;

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use aws_lc_rs::rand;
use jiff::Timestamp;
use moorage_wire::{Sha256, report::FailureReason};
use tokio::time::timeout;

use crate::{
    core::{Core, blocking},
    desired::{Document, LastGood, Pair, Standing},
    failure::DocumentFailure,
    openclaw::config,
    worker::protocol::Validation,
};

use self::{
    openclaw::{Gate, wait_for_health},
    pass_on::{note_unknown, pass_on_current},
};
pub(crate) use self::{pass_on::pass_on, trouble::Trouble};

/// Converges until the agent ends.
pub(crate) async fn run(core: Arc<Core>) {
    let mut waits = Waits::new(&core);
    if let Err(trouble) = update::clean_up(&core).await {
        tracing::warn!(error = %trouble, "the data of an old update is not removed");
    }
    loop {
        enrolment_key::erase(&core).await;
        if let Err(error) = blocking(&core, Core::hand_key_over).await {
            tracing::warn!(%error, "the worker does not take its key over yet");
        }
        core.replenish_nonces();
        let document = core.desired().digest();
        let outcome = pass(&core).await;
        if matches!(outcome, Err(Trouble::Interrupted)) {
            continue;
        }
        let unfinished = outcome.is_err() || core.secrets_changed.load(Ordering::SeqCst);
        let pause = match &outcome {
            Err(trouble) if trouble.is_remote() => waits.remote(),
            _ if unfinished => waits.local(),
            _ => waits.reset(),
        };
        if let Err(trouble) = &outcome {
            note_unknown(&core, trouble);
            tracing::warn!(error = %trouble, "cannot converge yet, retrying in {pause:?}");
        }
        let trouble = outcome.err().map(|trouble| trouble.of_document());
        core.desired().set_trouble(document, trouble, Timestamp::now());
        // A new document, or the end of the pause.
        let _ = timeout(pause, core.wake_reconcile.notified()).await;
    }
}

/// How long to wait before the next pass.
struct Waits {
    interval: Duration,
    first: (Duration, Duration),
    longest_remote: Duration,
    next: (Duration, Duration),
}

impl Waits {
    fn new(core: &Core) -> Self {
        let timing = &core.settings.timing;
        let first = (timing.retry_after_failure, timing.fetch_retry.0);
        let longest_remote = timing.fetch_retry.1;
        Self { interval: timing.reconcile_interval, first, longest_remote, next: first }
    }

    fn reset(&mut self) -> Duration {
        self.next = self.first;
        self.interval
    }

    fn local(&mut self) -> Duration {
        let wait = self.next.0;
        self.next.0 = (wait * 2).min(self.interval);
        wait
    }

    /// Between half and the whole of the wait: many servers fetch from one.
    fn remote(&mut self) -> Duration {
        let wait = self.next.1;
        self.next.1 = (wait * 2).min(self.longest_remote);
        let mut byte = [0];
        rand::fill(&mut byte).expect("the kernel gives randomness once it has booted");
        wait / 2 + wait / 2 * u32::from(byte[0]) / 255
    }
}

/// One look at everything.
async fn pass(core: &Arc<Core>) -> Result<(), Trouble> {
    // Without a connector nobody can help.
    connector::settle(core).await?;
    blocking(core, |core| core.vault().refresh()).await?;
    // Whatever the result, an update under way is resumed and what worked before is kept.
    let passed_on = pass_on_current(core).await;
    update::advance(core).await?;
    let repair_interval = core.settings.timing.repair_interval;
    if core.desired().is_repair_due(repair_interval) {
        blocking(core, |core| core.desired().forget_failure()).await?;
    }
    let (document, standing, last_good) = {
        let desired = core.desired();
        (desired.document(), desired.standing(), desired.last_good())
    };
    let Some(document) = document else {
        // OpenClaw first starts when a desired state exists. One that ran before is kept running.
        if let Some(good) = last_good {
            openclaw::keep(core, &good).await?;
        }
        openclaw::reload_secrets(core).await?;
        return passed_on;
    };
    match (standing, last_good) {
        (Standing::New, last_good) => {
            openclaw::reload_secrets(core).await?;
            if passed_on.is_err() {
                if let Some(good) = &last_good {
                    openclaw::keep(core, good).await?;
                }
                return passed_on;
            }
            try_document(core, &document, last_good.as_deref()).await?;
        }
        (Standing::Good | Standing::Failed, Some(good)) => openclaw::keep(core, &good).await?,
        (Standing::Good | Standing::Failed, None) => openclaw::keep_stopped(core).await?,
    }
    passed_on?;
    erase_unwanted(core).await?;
    openclaw::reload_secrets(core).await?;
    openclaw::learn_version(core).await;
    pairings::approve(core, &document).await?;
    let reached = reach(core, &document).await;
    // It takes seconds, and nobody waits for it.
    audit::audit(core).await;
    reached
}

/// Notes that all is as the document says, after the last that is to be done for it.
async fn reach(core: &Arc<Core>, document: &Arc<Document>) -> Result<(), Trouble> {
    if !works(core, document) {
        return Ok(());
    }
    // What the way to this server hangs on comes last, and the agent after all else.
    let managed = core.settings.programs.are_managed();
    if managed {
        connector::update(core, document).await?;
    }
    let works = works(core, document);
    if works && (!managed || programs::update_agent(core, document).await?) {
        core.desired().reached(document.digest);
    }
    Ok(())
}

/// Whether this is the current document, and nothing of it failed so far.
fn works(core: &Core, document: &Document) -> bool {
    let desired = core.desired();
    desired.digest() == Some(document.digest) && desired.standing() == Standing::Good
}

async fn try_document(
    core: &Arc<Core>,
    document: &Arc<Document>,
    last_good: Option<&LastGood>,
) -> Result<(), Trouble> {
    let managed = core.settings.programs.are_managed();
    let programs = managed.then(|| Pair::of(&document.state.artifacts));
    if managed {
        if let Some(good) = last_good
            && !openclaw::is_running(core).await?
        {
            // As after a reboot: fetching may take long.
            openclaw::keep(core, good).await?;
        }
        if let Some(failure) = programs::provide_openclaw(core, document).await? {
            return refuse(core, document.digest, failure).await;
        }
    }
    if let Some(failure) = integrations::provide(core, document).await? {
        return refuse(core, document.digest, failure).await;
    }
    if managed {
        if let Some(good) = last_good
            && good.programs.is_some()
            && good.programs != programs
        {
            update::begin(core, document, good).await?;
            return update::advance(core).await;
        }
        openclaw::switch_if_stopped(core, programs).await?;
    }
    let text = prepare(core, document).await?;
    if let Some(good) = last_good
        && good.config == text
        && good.programs == programs
    {
        openclaw::keep(core, good).await?;
        return accept(core, document, text, programs).await;
    }
    let failure = match core.openclaw.validate(document.digest).await? {
        Validation::Invalid { issues } => DocumentFailure::rejected(issues),
        Validation::Valid => {
            openclaw::bring_into_use(core, document.digest, &text, programs).await?;
            match wait_for_health(core, Some(document.digest)).await {
                Gate::Healthy => return accept(core, document, text, programs).await,
                Gate::Superseded => return Ok(()),
                Gate::Unhealthy(why) => {
                    DocumentFailure::new(FailureReason::Unhealthy, why.message, why.failure)
                }
            }
        }
    };
    refuse(core, document.digest, failure).await?;
    match last_good {
        Some(good) => openclaw::keep(core, good).await,
        None => openclaw::stop(core).await,
    }
}

/// Installs the document's integrations and gives the configuration that goes with them, as the worker
/// will write it.
async fn prepare(core: &Arc<Core>, document: &Document) -> Result<String, Trouble> {
    let plugins = if document.state.integrations.is_empty() {
        BTreeSet::default()
    } else {
        core.openclaw.add_integrations(document.digest).await.map_err(Trouble::Integration)?
    };
    Ok(config::to_text(&document.state.config, &core.settings.layout, &plugins))
}

/// The document works with OpenClaw.
async fn accept(
    core: &Arc<Core>,
    document: &Document,
    config: String,
    programs: Option<Pair>,
) -> Result<(), Trouble> {
    let good = LastGood {
        digest: document.digest,
        config,
        programs,
        credentials: document.state.credentials.clone(),
        version: document.state.artifacts.openclaw.version.clone(),
        integrations: document.state.integrations.clone(),
    };
    core.openclaw.remove_integrations(good.digest).await.map_err(Trouble::Integration)?;
    integrations::retain(core, &good.integrations).await?;
    tracing::info!(digest = %document.digest, "converged");
    Ok(blocking(core, move |core| core.desired().worked(good)).await?)
}

/// The document does not work.
async fn refuse(core: &Arc<Core>, digest: Sha256, failure: DocumentFailure) -> Result<(), Trouble> {
    let DocumentFailure { reason, path, .. } = &failure;
    tracing::warn!(%digest, ?reason, path, "the desired state does not work");
    let failed = failure.of(digest, Timestamp::now());
    Ok(blocking(core, move |core| core.desired().did_not_work(failed)).await?)
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
