//! Runs the arms of an experiment, several at once.

use super::data::Data;
use super::{Arm, ArmResult, Experiment, LabError, ResultsFile};
use skipstone_model::ComputePool;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// How far an experiment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Arms that are done, those of earlier calls included.
    pub arms_done: usize,
    /// All of them; those of the same content count once.
    pub arms: usize,
    /// Iterations of this call's arms that are done.
    pub iterations_done: u64,
    /// All that this call has to do.
    pub iterations: u64,
}

/// Runs what is not done yet of an experiment, `threads` arms at once, and keeps the results in the folder `dir`. `progress` hears
/// how far it is, from any thread. Once `stop` is set, arms under way are given up.
///
/// Gives the arms' results in the experiment's order, and how many results of other arms are in the file.
///
/// # Errors
/// See [`LabError`]; what was finished is kept.
pub fn run_experiment(
    experiment: &Experiment,
    dir: &Path,
    threads: usize,
    stop: &AtomicBool,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<(Vec<ArmResult>, usize), LabError> {
    let file = ResultsFile::open(dir)?;
    let mut data = BTreeMap::new();
    for seed in &experiment.seeds {
        data.insert(*seed, experiment.data(*seed)?);
    }
    std::fs::create_dir_all(dir).map_err(|source| LabError::Write { path: dir.to_owned(), source })?;
    let keyed: Vec<(Arm, String)> = experiment
        .arms()?
        .into_iter()
        .filter_map(|arm| data.get(&arm.seed).map(|data| arm.key(data).map(|key| (arm, key))))
        .collect::<Result<_, _>>()?;
    let mut keys = BTreeSet::new();
    let distinct: Vec<&(Arm, String)> = keyed.iter().filter(|(_, key)| keys.insert(key.as_str())).collect();
    let missing: Vec<&(Arm, String)> =
        distinct.iter().filter(|(_, key)| file.get(key).is_none()).copied().collect();
    let state = State {
        file: Mutex::new(file),
        next: AtomicUsize::new(0),
        arms_done: AtomicUsize::new(distinct.len() - missing.len()),
        iterations_done: AtomicU64::new(0),
        failure: Mutex::new(None),
        stop,
    };
    let total = Progress {
        arms_done: 0,
        arms: distinct.len(),
        iterations_done: 0,
        iterations: missing.iter().map(|(arm, _)| arm.config.steps).sum(),
    };
    let pools = (0..threads.clamp(1, missing.len().max(1)))
        .map(|_| ComputePool::new(1))
        .collect::<Result<Vec<_>, _>>()?;
    std::thread::scope(|scope| {
        for pool in &pools {
            // All of an arm happens on its pool's one thread.
            scope.spawn(|| pool.install(|| state.work(&missing, &data, &total, progress)));
        }
    });
    let failure = state.failure.into_inner().ok().flatten();
    if let Some(failure) = failure {
        return Err(failure);
    }
    let Ok(file) = state.file.into_inner() else { return Err(LabError::Interrupted) };
    let order: Vec<&str> = distinct.iter().map(|(_, key)| key.as_str()).collect();
    file.rewrite(&order)?;
    let of = |(arm, key): &(Arm, String)| file.get(key).map(|result| result.clone().of(arm));
    let results: Vec<ArmResult> = keyed.iter().filter_map(of).collect();
    let others = file.len() - order.len();
    Ok((results, others))
}

/// What the threads share.
struct State<'a> {
    file: Mutex<ResultsFile>,
    next: AtomicUsize,
    arms_done: AtomicUsize,
    iterations_done: AtomicU64,
    failure: Mutex<Option<LabError>>,
    stop: &'a AtomicBool,
}

impl State<'_> {
    fn work(
        &self,
        missing: &[&(Arm, String)],
        data: &BTreeMap<u64, Data>,
        total: &Progress,
        progress: &(dyn Fn(Progress) + Sync),
    ) {
        while let Some((arm, _)) = missing.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let Some(data) = data.get(&arm.seed) else { continue };
            let mut last = 0;
            let mut tell = |done: u64| {
                self.iterations_done.fetch_add(done - last, Ordering::Relaxed);
                last = done;
                progress(Progress {
                    arms_done: self.arms_done.load(Ordering::Relaxed),
                    iterations_done: self.iterations_done.load(Ordering::Relaxed),
                    ..*total
                });
                !self.stop.load(Ordering::Relaxed) && !self.has_failed()
            };
            let outcome = arm.run(data, &mut tell).and_then(|result| self.keep(result));
            if let Err(error) = outcome {
                self.fail(error);
            }
            if self.has_failed() {
                return;
            }
            self.arms_done.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn keep(&self, result: ArmResult) -> Result<(), LabError> {
        match self.file.lock() {
            Ok(mut file) => file.add(result),
            Err(_) => Err(LabError::Interrupted),
        }
    }

    fn has_failed(&self) -> bool {
        self.failure.lock().map_or(true, |failure| failure.is_some())
    }

    /// The first failure is told; the others follow from it.
    fn fail(&self, error: LabError) {
        if let Ok(mut failure) = self.failure.lock() {
            failure.get_or_insert(error);
        }
    }
}
