//! The `moorage` program: parses the command line and runs the command.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::anyhow;
use clap::Parser as _;
use moorage::{
    cli::{
        Cli, Command, cleanup, cluster_certificates::ClusterCertificates,
        cluster_reader::KubeReader, crds, doctor, plan, policies, reasons, release, run, seal,
        status,
    },
    telemetry,
};

/// For threads that cannot be interrupted, such as one that makes a key.
const RUNTIME_GRACE: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli) {
        Ok(code) => code,
        Err(error) => {
            // For the terminal; the operator's log has its own line.
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    // One TLS stack for the process: kube and reqwest both take it.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow!("a TLS provider is installed already"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| anyhow!("the runtime cannot be started: {error}"))?;
    let ended = runtime.block_on(perform(cli));
    runtime.shutdown_timeout(RUNTIME_GRACE);
    ended
}

async fn perform(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Run(args) => {
            telemetry::init(args.log_format, &args.log_filter)?;
            let ended = Box::pin(run::run(*args)).await;
            ended.inspect_err(|error| tracing::error!(%error, "the operator ended"))?;
        }
        Command::Seal(args) => {
            let output = seal::run(*args, &ClusterCertificates).await?;
            for note in output.notes {
                eprintln!("{note}");
            }
            io::stdout().write_all(output.text.as_bytes())?;
        }
        Command::Crds(args) => crds::run(&args, &mut io::stdout().lock())?,
        Command::AdmissionPolicies(args) => policies::run(&args, &mut io::stdout().lock())?,
        Command::Reasons(args) => reasons::run(&args, &mut io::stdout().lock())?,
        Command::Plan(args) => {
            let cluster = KubeReader::connect().await.map_err(|error| anyhow!(error))?;
            io::stdout().write_all(plan::run(*args, &cluster).await?.as_bytes())?;
        }
        Command::Release(args) => {
            let progress = |line: &str| eprintln!("release: {line}");
            let text = Box::pin(release::run(*args, &progress)).await?;
            io::stdout().write_all(text.as_bytes())?;
        }
        Command::Status(args) => {
            let cluster = KubeReader::connect().await.map_err(|error| anyhow!(error))?;
            io::stdout().write_all(status::run(*args, &cluster).await?.as_bytes())?;
        }
        Command::Cleanup(args) => {
            let report = cleanup::run(*args, &Terminal("cleanup")).await?;
            io::stdout().write_all(report.text.as_bytes())?;
            if report.left {
                return Ok(ExitCode::from(cleanup::SOMETHING_LEFT));
            }
        }
        Command::Doctor(args) => return diagnose(*args).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// A wrong command line is told apart from clouds that are not as they should be.
async fn diagnose(args: doctor::DoctorArgs) -> anyhow::Result<ExitCode> {
    match Box::pin(doctor::run(args, &Terminal("doctor"))).await {
        Ok(report) => {
            io::stdout().write_all(report.text.as_bytes())?;
            Ok(if report.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Err(error) => {
            eprintln!("error: {error}");
            Ok(ExitCode::from(doctor::USAGE))
        }
    }
}

/// Whoever sits at the terminal, and the command that speaks.
struct Terminal(&'static str);

impl cleanup::Person for Terminal {
    fn progress(&self, line: &str) {
        eprintln!("{}: {line}", self.0);
    }

    fn ask(&self, question: &str) -> io::Result<String> {
        eprint!("{question}");
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        Ok(line)
    }
}
