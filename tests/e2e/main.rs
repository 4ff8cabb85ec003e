//! The whole way against a real Kubernetes control plane: the chart is installed with the real helm,
//! the operator runs with the chart's `ServiceAccount`, and the clouds are simulated at their HTTP
//! border. One control plane serves all scenarios, which run in parallel, each with tenants of its own.
//!
//! Needs the tools of `hack/tools.sh` and the workspace's binaries; without them it says that it is
//! skipped, and fails if `MOORAGE_REQUIRE_ALL=1`.

#![allow(clippy::unwrap_used)] // A scenario fails by panicking, like any test.

mod lifecycle;
mod stage;
mod tenant;

use std::{process::ExitCode, sync::Arc};

use libtest_mimic::{Arguments, Trial};
use stage::Stage;
use tenant::Tenant;

/// One scenario: its name is a sentence about behaviour. It gets a tenant of its own.
type Scenario = (&'static str, fn(Tenant) -> futures::future::BoxFuture<'static, ()>);

/// Turns an async function into a [`Scenario`].
macro_rules! scenario {
    ($module:ident :: $name:ident) => {
        (concat!(stringify!($module), "::", stringify!($name)), |tenant| {
            Box::pin($module::$name(tenant))
        })
    };
}

fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(lifecycle::an_instance_becomes_ready_with_few_calls_and_writes),
        scenario!(lifecycle::a_quiet_instance_causes_no_writes),
    ]
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each scenario waits most of its time; the servers behind them are what is heavy.
    arguments.test_threads = arguments.test_threads.or(Some(4));
    // The runner of libtest-mimic lists without a stage.
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(None)).exit_code();
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let runtime = Arc::new(runtime);
    let Some(stage) = runtime.block_on(Stage::start()) else { return ExitCode::SUCCESS };
    let stage = Arc::new(stage);
    let conclusion = libtest_mimic::run(&arguments, trials(Some((&runtime, &stage))));
    if conclusion.has_failed() {
        eprintln!("{}", stage.logs());
    }
    drop(stage);
    conclusion.exit_code()
}

fn trials(on: Option<(&Arc<tokio::runtime::Runtime>, &Arc<Stage>)>) -> Vec<Trial> {
    let trial = |(name, scenario): Scenario| {
        let on = on.map(|(runtime, stage)| (Arc::clone(runtime), Arc::clone(stage)));
        Trial::test(name, move || {
            let (runtime, stage) = on.expect("a listed scenario is not run");
            let work = async move {
                let tenant = Tenant::new(stage, name).await;
                scenario(tenant).await;
            };
            runtime.block_on(runtime.spawn(work)).map_err(|error| error.to_string().into())
        })
    };
    scenarios().into_iter().map(trial).collect()
}
