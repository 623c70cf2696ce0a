//! How much memory a run takes, before it starts.

use super::{ConfigError, RunConfig, RunShape};
use serde::{Deserialize, Serialize};
use skipstone_protocol::COPIES_HELD_MAX;
use skipstone_recovery::Strategy;
use skipstone_types::StageId;
use std::fmt;

/// Bytes that one node of a stage takes, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeMemory {
    /// The stage.
    pub stage: StageId,
    /// Nodes that serve it.
    pub nodes: u64,
    /// Weights.
    pub parameters: u64,
    /// The gradient sum.
    pub gradients: u64,
    /// Adam's moments.
    pub moments: u64,
    /// Activations kept for backward, in all slots.
    pub slots: u64,
    /// Boundary tensors kept until the commit, so that a lost neighbour's work can be replayed.
    pub retained: u64,
    /// The reduced gradient, and its parts while replicas exchange them.
    pub reduce: u64,
    /// Buffers of the computation.
    pub workspace: u64,
    /// Copies of other stages' states, and its own state while another node is sent a copy of it, where the strategy asks for
    /// copies.
    pub copies: u64,
    /// Its state as it was, while it is written to `state/` beside the work.
    pub saving: u64,
}

impl NodeMemory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.parameters
            + self.gradients
            + self.moments
            + self.slots
            + self.retained
            + self.reduce
            + self.workspace
            + self.copies
            + self.saving
    }
}

/// Memory of a whole run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPlan {
    /// The origin, and a relay stage (they are all alike).
    pub nodes: Vec<NodeMemory>,
}

impl MemoryPlan {
    pub(super) fn new(config: &RunConfig, shape: &RunShape) -> Result<Self, ConfigError> {
        let of_origin = u64::from(config.size_of(StageId::ORIGIN));
        let relays = || (1..=config.stages).map(|stage| u64::from(config.size_of(StageId(stage))));
        // Of relay stages the one whose nodes get the most.
        let smallest = relays().min().unwrap_or(1);
        let mut nodes = Vec::new();
        // The last save finds no step that would change the state.
        // Options that don't fit each other are refused where they are checked; here slots, say, are still being looked for.
        let recovery =
            config.settings().map_or_else(|_| config.recovery.clone(), |settings| settings.recovery);
        let strategy = skipstone_recovery::strategy(&recovery)?;
        let saves = config.save_every_s > 0.0 || strategy.saves_every().is_some();
        for (stage, replicas, count) in
            [(StageId::ORIGIN, of_origin, of_origin), (StageId(1), smallest, relays().sum())]
        {
            // A replica gets at most its part of the microbatches, and all of them when the others have died.
            let microbatches = u64::from(config.microbatches).div_ceil(replicas.max(1));
            let estimate = skipstone_model::memory_estimate(&shape.model, &shape.stage_spec(stage))?;
            let slots = u64::from(config.slot_count()).min(microbatches);
            let exchanged = if replicas > 1 { 2 * estimate.gradients } else { 0 };
            nodes.push(NodeMemory {
                stage,
                nodes: count,
                parameters: estimate.parameters,
                gradients: estimate.gradients,
                moments: estimate.moments,
                slots: slots * estimate.saved_per_slot,
                retained: boundaries_retained(strategy.as_ref()) * microbatches * estimate.boundary,
                reduce: estimate.gradients + exchanged,
                workspace: estimate.workspace,
                copies: 0,
                saving: if saves { estimate.parameters + estimate.moments } else { 0 },
            });
        }
        add_copies(config, &mut nodes);
        Ok(Self { nodes })
    }

    /// Bytes that every run of this shape takes sooner or later, whatever the slots: weights, moments, gradients and
    /// reduced gradients.
    pub fn least(&self) -> u64 {
        let fixed = |node: &NodeMemory| {
            node.parameters + node.gradients + node.moments + node.parameters.min(node.reduce)
        };
        self.nodes.iter().map(|node| node.nodes * fixed(node)).sum()
    }

    /// Bytes of all nodes together.
    pub fn total(&self) -> u64 {
        self.nodes.iter().map(|node| node.nodes * node.total()).sum()
    }
}

impl fmt::Display for MemoryPlan {
    /// A table of less than 100 columns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["each", "weights", "gradients", "moments", "slots", "retained", "reduce", "workspace"];
        write!(f, "{:<12}", "memory")?;
        heads.iter().try_for_each(|head| write!(f, " {head:>10}"))?;
        writeln!(f)?;
        for node in &self.nodes {
            let name = if node.stage.is_origin() { "origin" } else { "relay" };
            write!(f, "{:<12}", format!("{} × {name}", node.nodes))?;
            let cells = [
                node.total(),
                node.parameters,
                node.gradients,
                node.moments,
                node.slots,
                node.retained,
                node.reduce,
                node.workspace,
            ];
            cells.iter().try_for_each(|cell| write!(f, " {:>10}", bytes_in_units(*cell)))?;
            for (what, bytes) in [("copies", node.copies), ("saving", node.saving)] {
                if bytes > 0 {
                    write!(f, "  and {what} {}", bytes_in_units(bytes))?;
                }
            }
            writeln!(f)?;
        }
        write!(f, "{:<12} {:>10}", "all nodes", bytes_in_units(self.total()))
    }
}

/// Boundary tensors that are kept of each microbatch: what was made each way, until the commit; and, where lost stages are retraced
/// with those of so many iterations, both of those too; where they are learned from what passed, what came as well, and both
/// activations of those iterations.
fn boundaries_retained(strategy: &dyn Strategy) -> u64 {
    match strategy.iterations_kept() {
        0 => 2,
        kept if strategy.retraces() => 2 + 2 * kept,
        kept => 3 + 2 * kept,
    }
}

/// What copies take at most: of other stages' states as many as a node holds (`COPIES_HELD_MAX`: the copies that it keeps, and
/// one that takes the place of one of them), and its own state, frozen (or rounded) while another node is sent a copy of it.
fn add_copies(config: &RunConfig, nodes: &mut [NodeMemory]) {
    let Ok(strategy) = skipstone_recovery::strategy(&config.recovery) else { return };
    let state = |node: &NodeMemory| {
        let copied = strategy.copies_every(node.stage).is_some();
        let bytes = (node.parameters + node.moments) as f64 * strategy.copy_format().share();
        if copied { bytes.ceil() as u64 } else { 0 }
    };
    // The origin's, and a relay stage's.
    let [origin, relay] = [0, 1].map(|index| nodes.get(index).map_or(0, &state));
    for node in nodes {
        let (own, others) = if node.stage.is_origin() {
            (origin, vec![relay; usize::from(config.stages)])
        } else {
            let mut others = vec![relay; usize::from(config.stages).saturating_sub(1)];
            others.push(origin);
            (relay, others)
        };
        node.copies = own + held_at_most(&others);
    }
}

/// The largest that a node can hold of these states, each of which can be there twice: as it was, and as it is now.
fn held_at_most(states: &[u64]) -> u64 {
    let mut twice: Vec<u64> = states.iter().flat_map(|state| [*state; 2]).collect();
    twice.sort_unstable_by(|a, b| b.cmp(a));
    twice.iter().take(COPIES_HELD_MAX).sum()
}

/// A number of bytes for people.
pub(crate) fn bytes_in_units(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}
