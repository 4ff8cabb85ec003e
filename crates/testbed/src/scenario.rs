//! Runs scenarios that share a stage, which is dear to start: as the `main` of a test without the
//! standard harness. What stands on a stage is the caller's business.

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Trial};
use tokio::runtime::{Builder, Runtime};

use crate::skip::is_all_required;

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

/// How scenarios are run, if the command line does not say otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How many at a time.
    pub at_once: usize,
    /// How long all of them may take together on a machine that has nothing else to do. More is no
    /// failure: it is said where everything has to run.
    pub time_box: Option<Duration>,
}

/// Starts the stage and runs the scenarios as the command line says, and tells how long that took. If
/// `start` gives nothing, all are skipped, and it has said why.
pub fn run_scenarios<S: Stage>(
    pace: Pace,
    start: impl Future<Output = Option<S>>,
    scenarios: Vec<Scenario<S::Part>>,
) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(pace.at_once));
    // A runner lists the tests before it runs them, and starts a stage once.
    if arguments.list {
        return libtest_mimic::run(&arguments, trials::<S>(scenarios, None)).exit_code();
    }
    let began = Instant::now();
    let runtime = Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    let runtime = Arc::new(runtime);
    let Some(stage) = runtime.block_on(start) else { return ExitCode::SUCCESS };
    let stage = Arc::new(stage);
    let conclusion = libtest_mimic::run(&arguments, trials(scenarios, Some((&runtime, &stage))));
    if conclusion.has_failed() {
        eprintln!("{}", stage.logs());
    }
    drop(stage);
    let took = began.elapsed();
    eprintln!("all of it: {:.0} s", took.as_secs_f64());
    let is_whole = conclusion.num_filtered_out == 0;
    if let Some(time_box) = pace.time_box.filter(|_| is_whole && is_all_required()) {
        warn_of(took, time_box);
    }
    conclusion.exit_code()
}

fn warn_of(took: Duration, time_box: Duration) {
    if took > time_box {
        let (took, time_box) = (took.as_secs(), time_box.as_secs());
        eprintln!("warning: these scenarios took {took} s, and are to take {time_box} s at most");
    }
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
