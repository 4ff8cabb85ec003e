//! Many lives, on all cores, and how fast they go by.

use std::{
    fmt,
    ops::Range,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    broken::Defect,
    life::{Ended, live},
    world::Counts,
};

/// How often it is said how far they are.
const PROGRESS: Duration = Duration::from_secs(10);

/// What became of many lives.
pub(super) struct Lived {
    lives: u64,
    time: Duration,
    counts: Counts,
    /// The first seed that broke something, and what.
    pub(super) violation: Option<(u64, String)>,
}

/// One that nothing else runs on. What a dead process left behind ends with it.
pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// The life of a seed.
pub(super) fn life(seed: u64, defect: Option<Defect>, log: bool) -> Ended {
    runtime().block_on(live(seed, defect, log))
}

/// Lives the lives of these seeds, until one breaks something.
pub(super) fn live_all(seeds: Range<u64>, defect: Option<Defect>) -> Lived {
    let (next, end) = (AtomicU64::new(seeds.start), AtomicU64::new(seeds.end));
    let (began, told) = (Instant::now(), Mutex::new(Instant::now()));
    let total = Mutex::new((0, Counts::default()));
    let violations = Mutex::new(Vec::new());
    let work = || {
        let (mut lives, mut counts) = (0, Counts::default());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            // Those before the one that broke something are finished, so that it is the first.
            if seed >= end.load(Ordering::Relaxed) {
                break;
            }
            let ended = life(seed, defect, false);
            lives += 1;
            counts += ended.counts;
            if let Some(violation) = ended.violation {
                end.fetch_min(seed, Ordering::Relaxed);
                violations.lock().push((seed, violation));
            }
            if let Some(mut told) = told.try_lock().filter(|told| told.elapsed() > PROGRESS) {
                let (done, all) = (seed - seeds.start, seeds.end - seeds.start);
                eprintln!("{done} of {all} lives, {:.0} a second", rate(done, began.elapsed()));
                *told = Instant::now();
            }
        }
        let mut total = total.lock();
        total.0 += lives;
        total.1 += counts;
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    let (lives, counts) = total.into_inner();
    let violation = violations.into_inner().into_iter().min();
    Lived { lives, time: began.elapsed(), counts, violation }
}

/// What a variable of the environment says.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// Lives `SEEDS` lives from `FIRST_SEED` on, or the one of `SEED`, and tells of it; of one that breaks
/// something all that happened.
pub(crate) fn main() -> ExitCode {
    if let Some(seed) = number("SEED") {
        return tell(seed);
    }
    let (first, count) = (number("FIRST_SEED").unwrap_or(0), number("SEEDS").unwrap_or(100_000));
    let lived = live_all(first..first + count, None);
    eprintln!("{lived}");
    lived.violation.map_or(ExitCode::SUCCESS, |(seed, _)| tell(seed))
}

/// Tells all that happens in the life of a seed.
fn tell(seed: u64) -> ExitCode {
    let ended = life(seed, None, true);
    eprintln!("{}", ended.log.join("\n"));
    let Some(violation) = ended.violation else {
        eprintln!("Seed {seed} breaks nothing.");
        return ExitCode::SUCCESS;
    };
    eprintln!("Seed {seed}: {violation}\nReplay it: make simulate SEED={seed}");
    ExitCode::FAILURE
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

impl fmt::Display for Lived {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lives, time, counts, .. } = self;
        let mean = |count: u64| count as f64 / *lives as f64;
        write!(
            formatter,
            "{lives} lives in {:.1} s, {:.0} a second. In each, on average: {:.1} calls, of which {:.2} failed; {:.1} passes; {:.2} processes died; {:.1} things that people did",
            time.as_secs_f64(),
            rate(*lives, *time),
            mean(counts.calls),
            mean(counts.faults),
            mean(counts.passes),
            mean(counts.deaths),
            mean(counts.deeds),
        )
    }
}
