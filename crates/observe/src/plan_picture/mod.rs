//! Pictures of a plan, as SVG files that need nothing else: no script, no font, no network; light and dark.

mod gantt;
mod legend;
mod map;
mod ring;

use skipstone_planner::{CompiledInstance, Evaluation, MICROSECONDS, PipelinePlan};

pub use gantt::gantt;
pub use map::map;

const STYLE: &str = include_str!("style.css");

/// One iteration under a plan, and what no plan with its placement can go below.
#[derive(Debug, Clone, Copy)]
pub struct PlannedIteration<'a> {
    /// The instance.
    pub compiled: &'a CompiledInstance,
    /// The plan, without violations.
    pub plan: &'a PipelinePlan,
    /// Its evaluation.
    pub evaluation: &'a Evaluation,
    /// The lower bound on the makespan that the gap is measured against, microseconds.
    pub bound_us: u64,
}

impl PlannedIteration<'_> {
    /// The region of a node.
    fn region(&self, node: u32) -> &str {
        self.compiled.instance().nodes.get(node as usize).map_or("?", |node| node.region.as_str())
    }

    /// What the picture is of, in a line.
    fn title(&self) -> String {
        format!("{} · {}", self.compiled.instance().name, self.plan.method)
    }

    /// The figures, in a line.
    fn figures(&self) -> String {
        let evaluation = self.evaluation;
        let bound_s = self.bound_us as f64 / MICROSECONDS;
        let gap = 100.0 * (evaluation.makespan_s() / bound_s.max(1e-6) - 1.0);
        format!(
            "makespan {:.2} s ({gap:.1} % above the bound {bound_s:.2} s) + all-reduce {:.2} s = {:.2} s an iteration · \
             {} microbatches · {} nodes · {:.0} % of node time busy until the makespan",
            evaluation.makespan_s(),
            evaluation.allreduce_s,
            evaluation.iteration_s(),
            self.plan.microbatches.len(),
            self.compiled.nodes(),
            100.0 * (1.0 - evaluation.idle_share()),
        )
    }
}

/// A name that is cut where it is too long for its place.
fn short(name: &str, letters: usize) -> String {
    if name.chars().count() <= letters {
        return name.to_owned();
    }
    name.chars().take(letters.saturating_sub(1)).chain(['…']).collect()
}

/// What a stage is called.
fn stage_name(stage: usize) -> String {
    if stage == 0 { "origin".to_owned() } else { format!("stage {stage}") }
}
