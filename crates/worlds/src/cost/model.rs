//! What things cost in a simulated run.

use super::SimulateError;
use super::tensors::Numbers;
use super::wires::Way;
use crate::config::{Churn, RunConfig};
use crate::fixed_plan::FixedPlan;
use crate::live::store::CHUNK_VALUES;
use crate::live::supervisor::kills::KillScript;
use crate::wan::{TaskTimes, WanTable, describe};
use skipstone_planner::{DrawnPaths, SwarmDescription};
use skipstone_types::{Settings, StageId};

/// Bytes of a number on the wire.
const VALUE_BYTES: f64 = 4.0;

/// Bytes of a stage's tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageBytes {
    /// A whole gradient.
    pub gradient: f64,
    /// Weights and moments.
    pub state: f64,
    /// Pieces in which the state is handed over.
    pub chunks: u32,
}

/// Times of what no option says, in microseconds: as measured on live swarms of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tempo {
    /// From the start of a process until it dials.
    pub startup_us: u64,
    /// A connection's handshakes, beside the ways of its messages.
    pub connect_us: u64,
    /// A write to the journal, synced.
    pub journal_us: u64,
    /// From a message's arrival until what it causes is done by a process that computes nothing.
    pub driver_us: u64,
    /// A task that only moves bytes, beside those.
    pub task_us: u64,
    /// Bytes that such a task moves in a microsecond; 0: they take no time.
    pub moved_bytes_per_us: u64,
}

impl Tempo {
    /// Of a planner's instance, where nothing takes time but tasks and transfers.
    pub const OF_INSTANCES: Self =
        Self { startup_us: 0, connect_us: 0, journal_us: 0, driver_us: 0, task_us: 0, moved_bytes_per_us: 0 };
}

impl Default for Tempo {
    fn default() -> Self {
        Self {
            startup_us: 40_000,
            connect_us: 1_000,
            journal_us: 2_000,
            driver_us: 100,
            task_us: 50,
            moved_bytes_per_us: MOVED_BYTES_PER_US,
        }
    }
}

/// Bytes per microsecond that a task moves which only moves bytes (sums, steps): one core of a common machine.
const MOVED_BYTES_PER_US: u64 = 2_000;

/// The network of a run that is not shaped: processes of one machine.
const LOOPBACK: &str = r#"{"regions": {"intra": {"latency_s": 0.0001, "bandwidth_Bps": 1e9}}}"#;

/// Who chooses paths where a plan does not give them.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Paths {
    /// As live: they are balanced, or searched for over links that are described.
    #[default]
    Planned,
    /// Balanced, whatever the links.
    Balanced,
    /// Drawn at random.
    Drawn(DrawnPaths),
}

/// A run and what it costs.
#[derive(Debug, Clone)]
pub struct CostModel {
    /// The run.
    pub settings: Settings,
    /// Tokens of a microbatch.
    pub tokens: u64,
    /// Regions, links, and who is where.
    pub network: WanTable,
    /// Times of each node's tasks, by its place in the swarm; who replaces it has the same.
    pub times: Vec<TaskTimes>,
    /// Bytes of a boundary tensor.
    pub activation_bytes: f64,
    /// Bytes of a part of a gradient on its way, as a share of those in memory.
    pub reduce_share: f64,
    /// What a node costs an hour, if that was said.
    pub price_per_hour: Option<f64>,
    /// What 10⁹ bytes cost that a node sends, if that was said.
    pub price_per_gb: Option<f64>,
    /// The origin's tensors.
    pub origin: StageBytes,
    /// A relay's tensors.
    pub relay: StageBytes,
    /// Who dies, and when.
    pub churn: Option<Churn>,
    /// Bytes that nodes send in an iteration for the sake of recovery, beside the copies that the protocol sends; links are not
    /// loaded with them.
    pub calm_bytes: f64,
    /// Seconds between saves of the state; 0 = only at the end.
    pub save_every_s: f64,
    /// What the planner is told of the network; none: planned paths are balanced.
    pub swarm: Option<SwarmDescription>,
    /// Seconds of an iteration that are given for each stage that one region could take away; none: 2 %.
    pub domain_price_s: Option<f64>,
    /// Microbatches that each node holds between forward and backward, by its place; empty: as the settings say.
    pub slots: Vec<u32>,
    /// Stages and paths, if they are given.
    pub fixed: Option<FixedPlan>,
    /// Other paths.
    pub paths: Paths,
    /// Whether the coordinator is beside every node.
    pub coordinator_beside: bool,
    /// Everything else.
    pub tempo: Tempo,
    /// Kills beside those of `churn`.
    pub script: KillScript,
    /// What nodes compute with; none: tensors are symbols.
    pub numbers: Option<Numbers>,
    /// A watcher is shown events, and the weights before every n-th iteration; 0 = nothing.
    pub weights_every: u64,
}

impl CostModel {
    /// What the run with these options costs.
    ///
    /// # Errors
    /// Options that can't work, or that don't say how long tasks take.
    pub fn of_run(config: &RunConfig) -> Result<Self, SimulateError> {
        let settings = config.settings()?;
        let shape = config.shape_expected()?;
        let table = config.wan_table()?;
        let redundant =
            skipstone_recovery::strategy(&settings.recovery).is_ok_and(|s| s.runs_the_next_stage());
        let times = (0..config.nodes())
            .map(|place| {
                let times = TaskTimes::of_run(config, table.as_ref(), place)?;
                let times = times.ok_or(SimulateError::NoPace)?;
                Ok::<_, SimulateError>(if redundant { times.with_the_next_stage() } else { times })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let bytes = |stage| StageBytes::of(shape.parameters(StageId(stage)) as f64);
        Ok(Self {
            swarm: table.as_ref().map(|table| describe(config, &shape, table)).transpose()?,
            settings,
            tokens: shape.tokens() as u64,
            network: match table {
                Some(table) => table,
                None => WanTable::from_json(LOOPBACK).map_err(|why| SimulateError::Bug(why.to_string()))?,
            },
            times,
            activation_bytes: config.wire.share()
                * VALUE_BYTES
                * shape.tokens() as f64
                * shape.model.hidden_size as f64,
            reduce_share: config.reduce.share(),
            price_per_hour: config.price_per_hour,
            price_per_gb: config.price_per_gb,
            origin: bytes(0),
            relay: bytes(1),
            churn: config.churn_plan()?,
            // Who keeps the next stage steps it with its gradient.
            calm_bytes: if redundant {
                bytes(0).gradient + f64::from(config.stages) * bytes(1).gradient
            } else {
                0.0
            },
            save_every_s: config.save_every_s,
            domain_price_s: config.domain_price,
            slots: Vec::new(),
            fixed: config.fixed_plan()?,
            paths: Paths::Planned,
            coordinator_beside: false,
            tempo: Tempo::default(),
            script: Vec::new(),
            numbers: None,
            weights_every: 0,
        })
    }

    /// The tensors of a stage.
    pub(super) fn stage(&self, stage: StageId) -> StageBytes {
        if stage.is_origin() { self.origin } else { self.relay }
    }

    /// The link from one region to another.
    pub(super) fn way(&self, a: u16, b: u16) -> Way {
        let us = |seconds: f64| (seconds * 1e6).round() as u64;
        let latency_us = us(self.network.link(a, b).latency_s);
        Way {
            latency_us,
            round_trip_us: latency_us + us(self.network.link(b, a).latency_s),
            bytes_per_us: self.network.way(a, b).bandwidth_bytes_per_s / 1e6,
            overhead_us: us(self.network.overhead_s),
            serial: self.network.serial,
            unsteady: self.network.chance(a, b).map(|chance| chance.unsteady(self.settings.seed)),
        }
    }
}

impl StageBytes {
    /// Seconds for which a node computes once an iteration, beside its microbatches, as a simulation counts them
    /// (`moving_us`): a sum is made, measured, cut into parts, summed with the others' and put together, and the state steps.
    pub(crate) fn closing_s(&self) -> f64 {
        let sums = (1.0 + 1.0 + 2.0 + 1.0 + 2.0) * self.gradient;
        let step = self.gradient + 2.0 * self.state;
        (sums + step) / MOVED_BYTES_PER_US as f64 / 1e6
    }

    /// Of a stage with so many parameters.
    pub fn of(parameters: f64) -> Self {
        let state = 3.0 * parameters;
        Self {
            gradient: VALUE_BYTES * parameters,
            state: VALUE_BYTES * state,
            chunks: (state / CHUNK_VALUES as f64).ceil().max(1.0) as u32,
        }
    }
}
