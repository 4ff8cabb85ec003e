//! Runs scenarios that share a stage, which is dear to start: as the `main` of a test without the
//! standard harness. What stands on a stage is the caller's business.

use std::{process::ExitCode, sync::Arc, time::Instant};

use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Trial};
use tokio::runtime::{Builder, Runtime};

/// What all scenarios of a test share. It ends when they have.
pub trait Stage: Send + Sync + Sized + 'static {
    /// What one scenario gets.
    type Part: Send + 'static;

    /// Makes the part of the scenario of this name.
    fn part(self: Arc<Self>, scenario: &str) -> impl Future<Output = Self::Part> + Send;

    /// The last lines of all logs, for the end of a run in which something failed.
    fn logs(&self) -> String;
}

/// One scenario: a sentence about behaviour, and what shows it. It fails by panicking.
pub struct Scenario<Part> {
    name: &'static str,
    act: Box<dyn FnOnce(Part) -> BoxFuture<'static, ()> + Send>,
}

impl<Part> Scenario<Part> {
    /// See [`scenario!`](crate::scenario).
    pub fn new<Acted>(name: &'static str, act: impl FnOnce(Part) -> Acted + Send + 'static) -> Self
    where
        Acted: Future<Output = ()> + Send + 'static,
    {
        Self { name, act: Box::new(|part| Box::pin(act(part))) }
    }
}

/// A [`Scenario`](crate::Scenario) of an async function `module::sentence_about_behaviour`.
#[macro_export]
macro_rules! scenario {
    ($module:ident :: $name:ident) => {
        $crate::Scenario::new(concat!(stringify!($module), "::", stringify!($name)), $module::$name)
    };
}

/// Starts the stage and runs the scenarios as the command line says; `at_once` is how many run at a
/// time if it does not say so. If `start` gives nothing, all are skipped, and it has said why.
pub fn run_scenarios<S: Stage>(
    at_once: usize,
    start: impl Future<Output = Option<S>>,
    scenarios: Vec<Scenario<S::Part>>,
) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(at_once));
    // A runner lists the tests before it runs them, and starts a stage once.
    if arguments.list {
        return libtest_mimic::run(&arguments, trials::<S>(scenarios, None)).exit_code();
    }
    let runtime = Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    let runtime = Arc::new(runtime);
    let Some(stage) = runtime.block_on(start) else { return ExitCode::SUCCESS };
    let stage = Arc::new(stage);
    let conclusion = libtest_mimic::run(&arguments, trials(scenarios, Some((&runtime, &stage))));
    if conclusion.has_failed() {
        eprintln!("{}", stage.logs());
    }
    drop(stage);
    conclusion.exit_code()
}

fn trials<S: Stage>(
    scenarios: Vec<Scenario<S::Part>>,
    on: Option<(&Arc<Runtime>, &Arc<S>)>,
) -> Vec<Trial> {
    let trial = |Scenario { name, act }: Scenario<S::Part>| {
        let on = on.map(|(runtime, stage)| (Arc::clone(runtime), Arc::clone(stage)));
        Trial::test(name, move || {
            let (runtime, stage) = on.expect("a listed scenario is not run");
            let began = Instant::now();
            let work = async move {
                act(stage.part(name).await).await;
                eprintln!("{name}: {:.0} s", began.elapsed().as_secs_f64());
            };
            runtime.block_on(runtime.spawn(work)).map_err(|error| error.to_string().into())
        })
    };
    scenarios.into_iter().map(trial).collect()
}
