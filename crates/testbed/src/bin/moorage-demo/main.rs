//! `moorage-demo`: one instance from `kubectl apply` to Ready on this machine, with a real control
//! plane and simulated clouds. It checks what it shows, and fails with the reason if something is not so.

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

mod checks;
mod debian;
mod lab;
mod progress;
mod stages;
mod terminal;

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::Result;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use lab::Lab;
use terminal::heading;

/// One OpenClaw instance from `kubectl apply` to Ready on this machine
///
/// Nothing leaves it: the clouds are simulated on loopback. Run it through `make demo`.
#[derive(Parser)]
struct Options {
    /// Check, delete the instance, show both clouds empty, and exit
    #[arg(long)]
    once: bool,

    /// Let the server be a real Debian with real programs; needs root and what hack/lab.sh makes. Run
    /// it through `make lab`
    #[arg(long)]
    lab: bool,

    /// Run the operator out of its image alone, whose root filesystem hack/image.sh --rootfs makes; the
    /// clouds are then reached by TLS. Needs bubblewrap
    #[arg(long, value_name = "DIR")]
    image: Option<PathBuf>,

    /// The programs of the lab's release
    #[command(flatten)]
    programs: debian::Programs,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    match until_interrupted(demo(&options)).await {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
        None if options.once => {
            eprintln!("\nInterrupted; everything is taken down again.");
            ExitCode::from(130)
        }
        None => {
            println!("\nEverything is taken down again.");
            ExitCode::SUCCESS
        }
    }
}

/// `None` if SIGINT or SIGTERM came first; what `work` had started has ended then.
async fn until_interrupted<T>(work: impl Future<Output = Result<T>>) -> Option<Result<T>> {
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate) else {
        return Some(Err(anyhow::anyhow!("cannot listen for signals")));
    };
    tokio::select! {
        result = work => Some(result),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    }
}

async fn demo(options: &Options) -> Result<()> {
    let start = Instant::now();
    let debian = if options.lab { Some(options.programs.find()?) } else { None };
    heading("A Kubernetes control plane, two simulated clouds, the operator from its chart");
    let mut lab = Lab::start(debian, options.image.as_deref()).await?;
    let result = show(&mut lab, start, options.once).await;
    // What it was doing when it failed is in the logs, and they go with the lab.
    result.map_err(|error| error.context(lab.logs()))
}

async fn show(lab: &mut Lab, start: Instant, once: bool) -> Result<()> {
    heading("One customer's server: a pool, a release, a sealed key, an instance");
    lab.apply_pool_and_release().await?;
    lab.seal_the_key()?;
    let applied = Instant::now();
    lab.apply_instance()?;
    let milestones = progress::until_ready(lab, applied).await?;
    println!(
        "\n  Ready {:.1} s after kubectl apply, {:.1} s after the start of the demo",
        milestones.ready.as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
    if lab.debian.is_some() {
        let server = lab.simulator.lab_server(lab.server_id().await?);
        stages::show(&server, applied, &milestones).await?;
    }
    checks::all(lab).await?;
    if once {
        checks::deletion(lab).await?;
        println!("\nAll checks passed in {:.1} s.", start.elapsed().as_secs_f64());
        return Ok(());
    }
    lab.say_where_to_look();
    if std::io::stdout().is_terminal() {
        println!("\nIt stays up until you press Ctrl-C, and leaves nothing behind.");
    }
    lab.watch_over().await
}
