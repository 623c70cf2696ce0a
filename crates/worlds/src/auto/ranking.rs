//! Trying configurations, and putting them in order.

use super::candidates::AutoRequest;
use super::node_list::NodeList;
use super::predict::{Fitted, PredictError};
use crate::config::{ConfigError, RunConfig, RunShape};
use rayon::prelude::*;
use serde::Serialize;
use skipstone_planner::{Placement, SearchOptions};
use thiserror::Error;

/// The share of a search in which every configuration is tried; the rest goes to the best.
const FIRST_SHARE: f64 = 0.6;
/// How many get the rest.
const FINALISTS: usize = 8;

/// Why there is no ranking.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AutoError {
    /// A model that can't be built.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Nothing to try.
    #[error(
        "no run over {nodes} nodes cuts {sequences} sequences and {layers} layers so: at least {replicas} replicas of two stages or more, a microbatch for each replica; lower --replicas-min, raise --sequences, or list more nodes"
    )]
    Nothing {
        /// Nodes of the list.
        nodes: usize,
        /// Sequences of an iteration.
        sequences: u32,
        /// Layers of the model.
        layers: usize,
        /// Replicas at least.
        replicas: u16,
    },
}

/// One way to run, and what it is predicted to take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Configuration {
    /// Relay stages.
    pub stages: u16,
    /// Layers of the origin.
    pub origin_layers: usize,
    /// Layers of each relay stage.
    pub relay_layers: usize,
    /// Replicas of every stage.
    pub replicas: u16,
    /// Nodes beyond those.
    pub spares: u16,
    /// Sequences of a microbatch.
    pub batch: usize,
    /// Microbatches of an iteration.
    pub microbatches: u32,
    /// The skip ratio asked for.
    pub skip: f64,
    /// The ratio that whole stages realise.
    pub skip_realised: f64,
    /// Microbatches that a node holds.
    pub slots: u32,
    /// Bytes that an origin takes.
    pub origin_bytes: u64,
    /// Bytes that a relay takes.
    pub relay_bytes: u64,
    /// Whether it can be run.
    pub fits: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Predicted seconds of an iteration: makespan and all-reduce of the best plan that a long search finds for one.
    pub iteration_s: Option<f64>,
    /// Seconds of an iteration as simulated, of those that were: paths change, and are searched in the time that there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub simulated_s: Option<f64>,
    /// Tokens a second, as simulated or else as predicted.
    pub tokens_per_s: Option<f64>,
    /// Whether no other that fits is at least as fast, takes no more memory and skips no more, and is better in one of it.
    pub best_of_its_kind: bool,
    /// Names of each stage's nodes, the origins' first; of those that were searched longest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub placement: Vec<Vec<String>>,
    /// The options of `skipstone train`.
    pub train_flags: String,
}

impl Configuration {
    /// Bytes of the node that takes the most.
    pub fn bytes_max(&self) -> u64 {
        self.origin_bytes.max(self.relay_bytes)
    }

    fn new(fitted: &Fitted, shape: &RunShape, skip_realised: f64) -> Self {
        let config = &fitted.config;
        Self {
            stages: config.stages,
            origin_layers: config.origin_layers,
            relay_layers: shape.relay_layers,
            replicas: config.replicas,
            spares: config.spares,
            batch: config.batch,
            microbatches: config.microbatches,
            skip: config.skip,
            skip_realised,
            slots: config.slot_count(),
            origin_bytes: fitted.bytes.0,
            relay_bytes: fitted.bytes.1,
            fits: fitted.lacks.is_none(),
            why: fitted.lacks.clone(),
            iteration_s: None,
            simulated_s: None,
            tokens_per_s: None,
            best_of_its_kind: false,
            placement: Vec::new(),
            train_flags: train_flags(config),
        }
    }

    /// Seconds of an iteration: as simulated, or as predicted and as much longer as those that were simulated are.
    fn seconds(&self, longer: f64) -> f64 {
        self.simulated_s.or(self.iteration_s.map(|s| longer * s)).unwrap_or(f64::INFINITY)
    }

    /// What a search found: the better of it and what was known before.
    fn note(&mut self, placed: Result<Placement, PredictError>, tokens: f64, list: &NodeList) {
        match placed {
            Ok(placement) => {
                let iteration_s = placement.expected_us as f64 / 1e6;
                if self.iteration_s.is_none_or(|known| iteration_s < known) {
                    let name = |node: &u32| list.nodes[*node as usize].name.clone();
                    self.placement =
                        placement.stages.iter().map(|stage| stage.iter().map(name).collect()).collect();
                    self.iteration_s = Some(iteration_s);
                    self.tokens_per_s = Some(tokens / iteration_s.max(1e-6));
                }
            }
            Err(why) if self.iteration_s.is_none() => {
                self.fits = false;
                self.why = Some(why.to_string());
            }
            Err(_) => {}
        }
    }
}

/// Everything that was tried, the best first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ranking {
    /// Those that fit: those that were simulated by that time, the others by the predicted one, and then by memory; then those
    /// that don't fit.
    pub configurations: Vec<Configuration>,
    /// Candidates of all searches together.
    pub work: u64,
}

/// Tries every configuration and ranks them.
///
/// `progress` is asked at marks, with the candidates tried so far in all searches, how much of the whole lies behind, from
/// 0 to 1. The result is a function of the arguments and its answers.
///
/// # Errors
/// See [`AutoError`].
pub fn configure(
    request: &AutoRequest,
    list: &NodeList,
    seed: u64,
    progress: &mut dyn FnMut(u64) -> f64,
) -> Result<Ranking, AutoError> {
    let candidates = request.candidates(list.nodes.len())?;
    let mut fitted = Vec::with_capacity(candidates.len());
    let mut found = Vec::with_capacity(candidates.len());
    let mut tokens = 0.0;
    for config in candidates {
        let shape = config.shape_expected()?;
        let skip_realised = config.settings()?.skip_realised();
        tokens = f64::from(request.sequences) * shape.batches.context as f64;
        let candidate = Fitted::new(config, list)?;
        found.push(Configuration::new(&candidate, &shape, skip_realised));
        fitted.push(candidate);
    }
    if found.is_empty() {
        let probe = RunConfig { stages: 1, ..request.base.clone() }.shape_expected()?;
        return Err(AutoError::Nothing {
            nodes: list.nodes.len(),
            sequences: request.sequences,
            layers: probe.model.num_hidden_layers,
            replicas: request.replicas_min,
        });
    }
    let mut budget = Budget { work: 0, progress };
    let options = SearchOptions { seed, ..SearchOptions::default() };
    let all: Vec<usize> = (0..found.len()).filter(|index| found[*index].fits).collect();
    for (place, index) in all.iter().enumerate() {
        let end = FIRST_SHARE * (place + 1) as f64 / all.len() as f64;
        let placed = budget.spend(end, |progress| fitted[*index].place(list, &options, progress));
        found[*index].note(placed, tokens, list);
    }
    let mut finalists: Vec<usize> = all.into_iter().filter(|index| found[*index].fits).collect();
    let key = |found: &[Configuration], index: usize| found[index].iteration_s.unwrap_or(f64::INFINITY);
    finalists.sort_by(|a, b| key(&found, *a).total_cmp(&key(&found, *b)).then(a.cmp(b)));
    finalists.truncate(FINALISTS);
    for (place, index) in finalists.iter().enumerate() {
        let end = FIRST_SHARE + (1.0 - FIRST_SHARE) * (place + 1) as f64 / finalists.len() as f64;
        let placed = budget.spend(end, |progress| fitted[*index].place(list, &options, progress));
        found[*index].note(placed, tokens, list);
    }
    for (index, configuration) in found.iter_mut().enumerate() {
        if !finalists.contains(&index) {
            configuration.placement = Vec::new();
        }
    }
    finalists.sort_by(|a, b| key(&found, *a).total_cmp(&key(&found, *b)).then(a.cmp(b)));
    finalists.truncate(request.simulate);
    let rehearsed: Vec<_> = finalists.par_iter().map(|index| fitted[*index].rehearse(list)).collect();
    for (index, seconds) in finalists.iter().zip(rehearsed) {
        match seconds {
            Ok(seconds) => found[*index].simulated_s = seconds,
            Err(why) => found[*index].why = Some(format!("simulated: {why}")),
        }
        if let Some(seconds) = found[*index].simulated_s {
            found[*index].tokens_per_s = Some(tokens / seconds.max(1e-6));
        }
    }
    let longer = mean_ratio(&found);
    mark_best(&mut found, longer);
    found.sort_by(|a, b| {
        let kind = |it: &Configuration| (!it.fits, it.simulated_s.is_none());
        let by_time = a.seconds(longer).total_cmp(&b.seconds(longer));
        kind(a).cmp(&kind(b)).then(by_time).then(a.bytes_max().cmp(&b.bytes_max()))
    });
    Ok(Ranking { configurations: found, work: budget.work })
}

/// How many times as long as predicted iterations take that were simulated; 1 where none was.
fn mean_ratio(found: &[Configuration]) -> f64 {
    let ratios: Vec<f64> = found.iter().filter_map(|it| Some(it.simulated_s? / it.iteration_s?)).collect();
    if ratios.is_empty() { 1.0 } else { ratios.iter().sum::<f64>() / ratios.len() as f64 }
}

/// What is left of the whole search.
struct Budget<'a> {
    work: u64,
    progress: &'a mut dyn FnMut(u64) -> f64,
}

impl Budget<'_> {
    /// A search that may go on until the part `end` of the whole lies behind.
    fn spend<T>(&mut self, end: f64, search: impl FnOnce(&mut dyn FnMut(u64) -> f64) -> T) -> T {
        let (before, start) = (self.work, (self.progress)(self.work));
        let share = (end - start).max(1e-9);
        let mut own = |work: u64| {
            self.work = before + work;
            ((self.progress)(self.work) - start) / share
        };
        search(&mut own)
    }
}

fn mark_best(found: &mut [Configuration], longer: f64) {
    let figures = |it: &Configuration| (it.seconds(longer), it.bytes_max(), it.skip_realised);
    for index in 0..found.len() {
        let (s, bytes, skip) = figures(&found[index]);
        let beaten = found.iter().filter(|other| other.fits).any(|other| {
            let (other_s, other_bytes, other_skip) = figures(other);
            let no_worse = other_s <= s && other_bytes <= bytes && other_skip <= skip;
            no_worse && (other_s < s || other_bytes < bytes || other_skip < skip)
        });
        found[index].best_of_its_kind = found[index].fits && found[index].iteration_s.is_some() && !beaten;
    }
}

/// The options in which a run differs from the defaults.
fn train_flags(config: &RunConfig) -> String {
    let usual = RunConfig::default();
    let mut flags = vec![format!("--model {}", config.model)];
    let mut add = |differs: bool, flag: String| {
        if differs {
            flags.push(flag);
        }
    };
    add(config.tokenizer != usual.tokenizer, format!("--tokenizer {}", config.tokenizer));
    add(config.vocab_size != usual.vocab_size, format!("--vocab-size {}", config.vocab_size));
    if let Some(context) = config.context {
        add(true, format!("--context {context}"));
    }
    add(true, format!("--stages {}", config.stages));
    add(config.origin_layers != 0, format!("--origin-layers {}", config.origin_layers));
    add(true, format!("--replicas {}", config.replicas));
    add(config.spares != 0, format!("--spares {}", config.spares));
    add(config.skip > 0.0, format!("--skip {}", config.skip));
    add(true, format!("--batch {} --microbatches {}", config.batch, config.microbatches));
    add(true, format!("--slots {}", config.slot_count()));
    if let Some(wan) = &config.wan {
        add(true, format!("--wan {wan}"));
    }
    flags.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(nodes: &[(&str, f64, f64)]) -> NodeList {
        let nodes: Vec<String> = nodes
            .iter()
            .map(|(region, flop_per_s, bytes)| {
                format!(r#"{{"region": "{region}", "flop_per_s": {flop_per_s}, "memory_bytes": {bytes}}}"#)
            })
            .collect();
        let text = format!(
            r#"{{"nodes": [{}], "regions": {{"intra": {{"latency_s": 0.25, "bandwidth_Bps": 1e6}},
                "links": [{{"a": "x", "b": "y", "latency_s": 1, "bandwidth_Bps": 1e5}}]}}}}"#,
            nodes.join(",")
        );
        NodeList::from_json(&text, None).unwrap()
    }

    fn request() -> AutoRequest {
        let base = RunConfig { tokenizer: "bytes".to_owned(), ..RunConfig::default() };
        let (batches, skips) = (vec![1, 2, 3], vec![0.0, 0.5]);
        AutoRequest { base, sequences: 8, batches, skips, replicas_min: 1, simulate: 0 }
    }

    fn tried(request: &AutoRequest, list: &NodeList) -> Ranking {
        configure(request, list, 1, &mut |work| work as f64 / 40_000.0).unwrap()
    }

    #[test]
    fn one_microbatch_takes_its_tasks_and_ways() {
        let request = AutoRequest { batches: vec![8], skips: vec![0.0], ..request() };
        let found = tried(&request, &list(&[("x", 1e9, 1e12), ("x", 1e9, 1e12)])).configurations;
        let one = found.iter().find(|it| it.origin_layers == 0 && it.stages == 1).unwrap();
        // 4 layers forward and backward, and the head three times, at 1e9 operations a second; four ways between two
        // nodes, of 8 · 64 · 128 numbers. A stage of one node has no all-reduce, but the coordinator tells it to begin and to
        // sum, and hears of its share and of the sum: four ways of a message. Then the origin's sums and its step move 14 times the
        // bytes of its gradient, 2·10⁹ a second; a relay is through before.
        let weights = f64::from(4 * 128 * 128 + 3 * 384 * 128 + 2 * 128);
        let layer = 64.0 * (2.0 * weights + 2.0 * 64.0 * 128.0);
        let head = 64.0 * 2.0 * 257.0 * 128.0;
        let ways_s = 4.0 * (0.25 + 4.0 * 8.0 * 64.0 * 128.0 / 1e6);
        let closing_s = 14.0 * 4.0 * (2.0 * 257.0 * 128.0 + 128.0) / 2e9;
        let want_s = 8.0 * 3.0 * (4.0 * layer + head) / 1e9 + ways_s + 4.0 * 0.25 + closing_s;
        let got_s = one.iteration_s.unwrap();
        assert!((got_s / want_s - 1.0).abs() < 1e-4, "{got_s} {want_s}");
        assert!((one.tokens_per_s.unwrap() * got_s / (8.0 * 64.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn everything_that_can_be_is_tried_and_ranked() {
        let found = tried(&request(), &list(&[("x", 1e9, 1e12); 6])).configurations;
        let key = |it: &Configuration| {
            (it.stages, it.origin_layers, it.replicas, it.batch, (it.skip_realised * 100.0) as u32)
        };
        let mut keys: Vec<_> = found.iter().map(key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), found.len(), "each once");
        assert!(found.iter().all(|it| it.batch != 3), "8 sequences are no multiple of 3");
        assert!(found.iter().all(|it| it.relay_layers * usize::from(it.stages) + it.origin_layers == 4));
        for want in [(1, 0, 3, 1, 0), (1, 2, 3, 1, 0), (1, 2, 1, 2, 0), (2, 0, 2, 2, 50), (3, 1, 1, 1, 50)] {
            assert!(keys.contains(&want), "{want:?} is not in {keys:?}");
        }
        let seconds: Vec<f64> = found.iter().map(|it| it.iteration_s.unwrap()).collect();
        assert!(seconds.is_sorted(), "{seconds:?}");
        assert!(found[0].best_of_its_kind && found.iter().any(|it| !it.best_of_its_kind));
        let slow = tried(&request(), &list(&[("x", 1e8, 1e12); 6])).configurations;
        assert!(slow[0].iteration_s > found[0].iteration_s);
    }

    #[test]
    fn nodes_serve_only_what_they_hold_and_what_does_not_fit_says_why() {
        // The origin holds no layers and needs less than a relay: two nodes can't be anything else.
        let mut request = AutoRequest { batches: vec![1], skips: vec![0.0], replicas_min: 2, ..request() };
        request.base.slots = Some(1);
        let of_two = |nodes: &[(&str, f64, f64)]| {
            let found = tried(&request, &list(nodes)).configurations;
            found.into_iter().find(|it| (it.stages, it.origin_layers) == (2, 0)).unwrap()
        };
        let needs = of_two(&[("x", 1e9, 1e12); 6]);
        assert!(needs.origin_bytes < needs.relay_bytes);
        let mut nodes = [("x", 1e9, 1e12); 6];
        for place in [2, 5] {
            nodes[place] = ("y", 9e9, needs.relay_bytes as f64 - 1.0);
        }
        let mixed = of_two(&nodes);
        assert!(mixed.fits);
        assert_eq!(mixed.placement[0], ["2", "5"]);
        let found = tried(&request, &list(&[("x", 1e9, 1e3); 6])).configurations;
        assert!(found.iter().all(|it| !it.fits && it.iteration_s.is_none()));
        assert!(found[0].why.as_ref().unwrap().contains("0 of 6 nodes hold an origin"));
    }

    #[test]
    fn the_best_are_simulated_and_ranked_by_it() {
        let request = AutoRequest { simulate: 3, ..request() };
        let found = tried(&request, &list(&[("x", 1e9, 1e12); 6])).configurations;
        let (simulated, rest) = found.split_at(3);
        assert!(rest.iter().all(|it| it.simulated_s.is_none()));
        let seconds: Vec<f64> = simulated.iter().map(|it| it.simulated_s.unwrap()).collect();
        assert!(seconds.is_sorted(), "{seconds:?}");
        for (it, seconds) in simulated.iter().zip(seconds) {
            let longer = seconds / it.iteration_s.unwrap();
            assert!((0.98..1.5).contains(&longer), "simulated {longer} times as long as predicted: {it:?}");
            assert!((it.tokens_per_s.unwrap() * seconds / (8.0 * 64.0) - 1.0).abs() < 1e-9);
        }
        let again = tried(&request, &list(&[("x", 1e9, 1e12); 6])).configurations;
        assert_eq!(again, found, "the same every time");
        // A node that can't be an origin.
        let mut nodes = [("x", 1e9, 1e12); 6];
        nodes[0].2 = found.iter().map(|it| it.relay_bytes).min().unwrap() as f64;
        assert!(tried(&request, &list(&nodes)).configurations.iter().all(|it| it.simulated_s.is_none()));
    }

    #[test]
    fn too_few_nodes_are_refused() {
        let request = AutoRequest { replicas_min: 4, ..request() };
        let error = configure(&request, &list(&[("x", 1e9, 1e12); 6]), 0, &mut |_| 1.0).unwrap_err();
        assert!(error.to_string().contains("--replicas-min"), "{error}");
    }
}
