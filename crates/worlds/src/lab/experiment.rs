//! What is to be tried.

use super::arm::Arm;
use super::failures::{Failures, LossRate};
use super::paths::{self, PLANNED};
use super::{LabError, data};
use crate::config::RunConfig;
use crate::cost::Paths;
use crate::text;
use crate::wan::PACE_FROM_TABLE;
use serde::{Deserialize, Serialize};
use skipstone_types::EdgeSwaps;
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// Arms of an experiment.
const ARMS_MAX: usize = 10_000;

/// The strategy that an arm without losses is filed under.
pub(super) const NO_LOSSES: &str = "no failures";

/// What that arm would do: nothing is recovered, whatever the experiment compares, and nothing is sent for it.
const CALM_STRATEGY: &str = "checkfree";

/// `EXPERIMENT.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// What it is called.
    pub name: String,
    /// What it is to show.
    #[serde(default)]
    pub about: String,
    /// Seeds of weights, samples and failures. Arms of the same seed are paired.
    #[serde(default = "one_seed")]
    pub seeds: Vec<u64>,
    /// Recovery strategies, as for `--recovery`.
    pub strategies: Vec<String>,
    /// Chances that a relay stage is lost in an iteration. An arm without losses, to compare with, is always run.
    #[serde(default)]
    pub loss_rates: Vec<LossRate>,
    /// Chances that a region is lost in an iteration, with all its nodes.
    #[serde(default)]
    pub region_loss_rates: Vec<f64>,
    /// Files that say what is lost, as for `--churn`.
    #[serde(default)]
    pub traces: Vec<PathBuf>,
    /// Skip ratios; none = the run's.
    #[serde(default)]
    pub skips: Vec<f64>,
    /// Which paths microbatches take; none = planned ones.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Iterations between two validations.
    #[serde(default = "default_eval_every")]
    pub eval_every: u64,
    /// Tokens of a validation.
    #[serde(default = "default_eval_tokens")]
    pub eval_tokens: usize,
    /// Shares of the relay stages that are left out of the trained model in validations at the end of a run.
    #[serde(default)]
    pub eval_skips: Vec<f64>,
    /// Whether nodes take microbatches in the order of their numbers, as under `train --deterministic`, which then gives the lab's
    /// bits; else as they come, so that iterations are as long as without it. The lab gives the same results every time, either way.
    #[serde(default = "deterministic")]
    pub deterministic: bool,
    /// The run, as in a `run.toml`.
    pub run: RunConfig,
}

/// What is in a list twice.
fn twice<T: PartialEq + Display>(list: &[T]) -> Option<String> {
    let again = list.iter().enumerate().find(|(index, item)| list[..*index].contains(item));
    again.map(|(_, item)| item.to_string())
}

fn one_seed() -> Vec<u64> {
    vec![0]
}

fn default_eval_every() -> u64 {
    50
}

fn default_eval_tokens() -> usize {
    16_384
}

fn deterministic() -> bool {
    true
}

impl Experiment {
    /// Reads an experiment; a `data` path in it is taken as relative to its folder.
    ///
    /// # Errors
    /// A file that can't be read, is no experiment, or can't work.
    pub fn read(path: &Path) -> Result<Self, LabError> {
        let content = skipstone_files::read_text(path, text::FILE_BYTES_MAX)
            .map_err(|source| LabError::Read { path: path.to_owned(), source })?;
        let mut experiment: Self =
            text::from_toml(&content).map_err(|why| LabError::Parse { path: path.to_owned(), why })?;
        if let (Some(data), Some(folder)) = (&experiment.run.data, path.parent()) {
            experiment.run.data = Some(folder.join(data));
        }
        for trace in &mut experiment.traces {
            *trace = path.parent().map_or_else(|| trace.clone(), |folder| folder.join(&trace));
        }
        experiment.check()?;
        Ok(experiment)
    }

    pub(super) fn check(&self) -> Result<(), LabError> {
        let wrong = |field, why: &str| Err(LabError::Field { field, why: why.to_owned() });
        if self.name.is_empty() || self.name.len() > 80 {
            return wrong("name", "give 1 to 80 characters");
        }
        if self.seeds.is_empty() || self.strategies.is_empty() || self.failures().is_empty() {
            return wrong("seeds, strategies, loss_rates", "give at least one of each");
        }
        for (field, twice) in [
            ("seeds", twice(&self.seeds)),
            ("strategies", twice(&self.strategies)),
            ("loss_rates, region_loss_rates, traces", twice(&self.failures())),
            ("skips", twice(&self.skips)),
            ("paths", twice(&self.paths)),
        ] {
            if let Some(twice) = twice {
                return wrong(field, &format!("{twice} is there twice; each counts once"));
            }
        }
        if self.eval_every == 0 || self.eval_every > self.run.steps {
            return wrong("eval_every", "must be from 1 to the run's steps");
        }
        if self.eval_tokens < 2 {
            return wrong("eval_tokens", "must be at least 2");
        }
        if let Some(skip) = self.eval_skips.iter().find(|skip| !(0.0..1.0).contains(*skip)) {
            return wrong("eval_skips", &format!("{skip} is not a share from 0 up to, not including, 1"));
        }
        if self.run.churn.is_some() {
            return wrong(
                "run.churn",
                "losses come from loss_rates, region_loss_rates and traces; leave it out",
            );
        }
        if self.run.pace.is_none() {
            return wrong(
                "run.pace",
                "time is modelled: say how many seconds a relay stage's forward takes, as pace = 0.5",
            );
        }
        for strategy in &self.strategies {
            skipstone_recovery::strategy(strategy)
                .map_err(|why| LabError::Field { field: "strategies", why: why.to_string() })?;
        }
        let skips = self.skips.len().max(1);
        let paths = self.paths.len().max(1);
        let arms = [self.seeds.len(), self.strategies.len(), self.failures().len(), skips, paths];
        if arms.iter().product::<usize>() > ARMS_MAX {
            return wrong("seeds, strategies, loss_rates, skips, paths", "more than 10 000 combinations");
        }
        for rate in &self.loss_rates {
            rate.check(self.run.stages)?;
        }
        if !self.region_loss_rates.is_empty() && self.run.wan.is_none() {
            return wrong(
                "region_loss_rates",
                "nodes have no regions; say where they are, as wan = \"gcp12\" in [run]",
            );
        }
        for rate in &self.region_loss_rates {
            if !(0.0..=0.5).contains(rate) {
                return wrong(
                    "region_loss_rates",
                    &format!("{rate} is not a chance from 0 to 0.5 per region and iteration"),
                );
            }
        }
        if self.traces.is_empty() && self.run.churn_speed.is_some() {
            return wrong("run.churn_speed", "only a trace has a time that could go faster; leave it out");
        }
        for trace in &self.traces {
            RunConfig { churn: Some(trace.display().to_string()), ..self.run.clone() }.churn_plan()?;
        }
        for skip in self.skips_tried() {
            for strategy in &self.strategies {
                self.config(self.seeds[0], skip, &Paths::Planned, strategy).settings()?;
            }
        }
        self.check_paths()
    }

    fn check_paths(&self) -> Result<(), LabError> {
        let wrong = |why: String| LabError::Field { field: "paths", why };
        for text in &self.paths {
            let parsed = paths::parse(text)?;
            let Paths::Drawn(paths) = &parsed else { continue };
            for skip in self.skips_tried() {
                for strategy in &self.strategies {
                    let settings = self.config(self.seeds[0], skip, &parsed, strategy).settings()?;
                    if settings.edge_swaps != EdgeSwaps::Off {
                        let who = match self.run.edge_swaps {
                            Some(_) => "edge_swaps = \"odd\" in [run]",
                            None => strategy,
                        };
                        return Err(wrong(format!(
                            "{text} says in which order stages are visited, and so does {who}, which swaps the first and the last ones; set \
                             edge_swaps = \"off\" in [run], or leave one of the two out"
                        )));
                    }
                    if paths.swaps > 0 && settings.slots < settings.microbatches {
                        return Err(wrong(format!(
                            "{text}: with slots = {}, {} microbatches that go back can wait for each other for ever; give that many slots, or leave \
                             slots out",
                            settings.slots, settings.microbatches
                        )));
                    }
                    paths
                        .check(settings.relay_stages, settings.path_length() - 1)
                        .map_err(|why| wrong(format!("{text}, with skip {skip}: {why}")))?;
                }
            }
        }
        Ok(())
    }

    /// Skip ratios, ascending as written; at least one.
    fn skips_tried(&self) -> Vec<f64> {
        if self.skips.is_empty() { vec![self.run.skip] } else { self.skips.clone() }
    }

    fn config(&self, seed: u64, skip: f64, paths: &Paths, strategy: &str) -> RunConfig {
        let redundant = skipstone_recovery::strategy(strategy).is_ok_and(|s| s.runs_the_next_stage());
        let run = &self.run;
        // Two stages in a node's memory leave room for half a microbatch (CheckFree's evaluation of Bamboo).
        let (batch, microbatches) = if redundant && run.batch.is_multiple_of(2) {
            (run.batch / 2, 2 * run.microbatches)
        } else {
            (run.batch, run.microbatches)
        };
        // Drawn paths that go back can wait for each other in a circle: what nodes know of slots (`protocol`, `worker/slots.rs`) only keeps
        // CheckFree+'s swaps from that. With a slot for every microbatch nobody waits for one.
        let goes_back = matches!(paths, Paths::Drawn(drawn) if drawn.swaps > 0);
        let slots = run.slots.or(goes_back.then_some(microbatches));
        // Half a microbatch takes half the time.
        let pace = run
            .pace
            .map(|pace| if pace == PACE_FROM_TABLE { pace } else { pace * batch as f64 / run.batch as f64 });
        RunConfig {
            batch,
            microbatches,
            pace,
            slots,
            seed,
            skip,
            recovery: strategy.to_owned(),
            // What a run is, not where it lies and who computes it: results don't depend on that.
            deterministic: self.deterministic,
            respawn: true,
            save_every_s: 0.0,
            threads: Some(1),
            // Of traces, which only some arms have.
            churn_speed: None,
            out: PathBuf::new(),
            ..self.run.clone()
        }
    }

    /// Which paths are tried; at least one.
    fn paths_tried(&self) -> Vec<&str> {
        if self.paths.is_empty() { vec![PLANNED] } else { self.paths.iter().map(String::as_str).collect() }
    }

    /// What fails in arms with losses.
    fn failures(&self) -> Vec<Failures> {
        let stages = self.loss_rates.iter().cloned().map(Failures::Stages);
        let regions = self.region_loss_rates.iter().copied().map(Failures::Regions);
        let traces = self.traces.iter().cloned().map(Failures::Trace);
        stages.chain(regions).chain(traces).collect()
    }

    /// All combinations, in the order in which they are shown: for each skip ratio, kind of paths and seed the arm without losses first.
    ///
    /// # Errors
    /// A table of regions that can't be read.
    pub fn arms(&self) -> Result<Vec<Arm>, LabError> {
        let mut arms = Vec::new();
        let mut add = |seed: u64, skip: f64, paths: &str, strategy: &str, failures: Failures| {
            let mut config = self.config(seed, skip, &paths::parse(paths)?, strategy);
            if let Failures::Trace(path) = &failures {
                config.churn = Some(path.display().to_string());
                config.churn_speed = self.run.churn_speed;
            }
            let losses = failures.losses(seed, &config)?;
            let strategy = if failures == Failures::None { NO_LOSSES } else { strategy }.to_owned();
            let (eval_every, eval_tokens) = (self.eval_every, self.eval_tokens);
            let eval_skips = self.eval_skips.clone();
            arms.push(Arm {
                strategy,
                failures,
                skip,
                paths: paths.to_owned(),
                seed,
                losses,
                eval_every,
                eval_tokens,
                eval_skips,
                config,
            });
            Ok::<_, LabError>(())
        };
        let none = Failures::Stages(LossRate::Each(0.0));
        let failures: Vec<Failures> =
            self.failures().into_iter().filter(|failures| *failures != none).collect();
        let tried = self.skips_tried().into_iter();
        for (skip, paths) in
            tried.flat_map(|skip| self.paths_tried().into_iter().map(move |paths| (skip, paths)))
        {
            for seed in &self.seeds {
                add(*seed, skip, paths, CALM_STRATEGY, Failures::None)?;
            }
            for failures in &failures {
                for strategy in &self.strategies {
                    for seed in &self.seeds {
                        add(*seed, skip, paths, strategy, failures.clone())?;
                    }
                }
            }
        }
        Ok(arms)
    }

    /// The data that an arm of this seed trains on.
    pub(super) fn data(&self, seed: u64) -> Result<data::Data, LabError> {
        data::Data::prepare(&RunConfig { seed, ..self.run.clone() })
    }
}
