//! Plans attempts for the coordinator, on a thread of its own where that takes a while, and keeps `plan.json`.

use super::plan_file::{PlacementNote, write_plan};
use crate::fixed_plan::FixedPlan;
use crate::live::say;
use skipstone_planner::{BalancedChooser, PathChooser, PlanError, SwarmChooser};
use skipstone_types::{NodeId, PlaceAnswer, PlaceProblem, Plan, PlanProblem};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

/// How long a search is waited for before the balanced plan takes its place.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long the search for the first nodes' stages goes on, and that for stages while training.
const FIRST_PLACES: Duration = Duration::from_secs(3);
const PLACES: Duration = Duration::from_millis(150);

/// How much longer an answer is waited for than its search goes on: the machine may be busy.
const PLACES_GRACE: Duration = Duration::from_millis(500);

/// What the thread has found.
pub(super) enum Found {
    /// Paths.
    Plan(Result<Plan, PlanError>),
    /// Stages for nodes.
    Places(PlaceAnswer),
}

enum Request {
    Answer { problem: PlaceProblem, time: Option<Duration> },
    Place { node: NodeId, region: String },
    Search { problem: PlanProblem },
    Keep { problem: PlanProblem, plan: Plan },
}

/// A plan that is being searched for.
#[derive(Debug)]
struct Waiting {
    problem: PlanProblem,
    stand_in: Plan,
    since: Instant,
}

/// Answers requests for plans, and for stages of nodes.
///
/// Without a description of the swarm's links plans are balanced, and made at once. With one they are searched for; the
/// balanced plan stands in for a search that is late, unless plans must be the same whatever the time.
#[derive(Debug)]
pub(super) struct Planner {
    requests: Sender<Request>,
    /// Stages and paths that are given; they are searched for only once a node of theirs is lost.
    fixed: Option<FixedPlan>,
    searches: bool,
    waits: bool,
    waiting: Option<Waiting>,
    /// The question for stages that is not answered, and when nobody waits for the answer any more; none: however long it takes.
    placing: Option<(u64, Option<Instant>)>,
    /// Who served each stage in the plan that was kept last.
    kept: Vec<Vec<NodeId>>,
}

impl Planner {
    /// Starts the thread. It hands what it finds to `found`, and writes `plan.json` into `dir`. `waits`: no plan stands in
    /// for a late one.
    pub(super) fn start(
        dir: PathBuf,
        chooser: Option<SwarmChooser>,
        fixed: Option<FixedPlan>,
        waits: bool,
        found: impl Fn(Found) + Send + 'static,
    ) -> io::Result<Self> {
        let (requests, queue) = mpsc::channel();
        let searches = chooser.is_some();
        std::thread::Builder::new()
            .name("planner".to_owned())
            .spawn(move || work(&dir, chooser, &queue, &found))?;
        Ok(Self { requests, fixed, searches, waits, waiting: None, placing: None, kept: Vec::new() })
    }

    /// Says in which region a node is.
    pub(super) fn place(&self, node: NodeId, region: String) {
        // A thread that is gone plans nothing.
        drop(self.requests.send(Request::Place { node, region }));
    }

    /// Asks for nodes' stages; answers with none where nothing is known of links.
    pub(super) fn ask_places(&mut self, problem: PlaceProblem, now: Instant) -> Option<PlaceAnswer> {
        if let Some(fixed) = self.fixed.as_ref().filter(|_| FixedPlan::answers(&problem)) {
            return Some(fixed.places(&problem));
        }
        let epoch = problem.epoch;
        let first = problem.nodes.iter().all(Vec::is_empty);
        let time = if first { FIRST_PLACES } else { PLACES };
        let time = (!self.waits).then_some(time);
        let asked = self.searches && self.requests.send(Request::Answer { problem, time }).is_ok();
        if !asked {
            return Some(PlaceAnswer { epoch, ..PlaceAnswer::default() });
        }
        self.placing = Some((epoch, time.map(|time| now + time + PLACES_GRACE)));
        None
    }

    /// Stages were found; none if they are no longer asked for.
    pub(super) fn found_places(&mut self, answer: PlaceAnswer) -> Option<PlaceAnswer> {
        self.placing.take_if(|(epoch, _)| *epoch == answer.epoch)?;
        Some(answer)
    }

    /// An answer without stages, once the search for them is late.
    pub(super) fn overdue_places(&mut self, now: Instant) -> Option<PlaceAnswer> {
        let (epoch, _) = self.placing.take_if(|(_, until)| until.is_some_and(|until| now >= until))?;
        Some(PlaceAnswer { epoch, ..PlaceAnswer::default() })
    }

    /// Asks for a plan; answers with one where it needs no search.
    pub(super) fn ask(&mut self, problem: PlanProblem, now: Instant) -> Result<Option<Plan>, PlanError> {
        if let Some(given) = self.fixed.as_ref().and_then(|fixed| fixed.plan(&problem)) {
            return Ok(Some(self.keep(problem, given)));
        }
        let balanced = BalancedChooser.choose(&problem)?;
        if !self.searches {
            return Ok(Some(self.keep(problem, balanced)));
        }
        let search = Request::Search { problem: problem.clone() };
        if self.requests.send(search).is_err() {
            // A thread that is gone finds nothing.
            return Ok(Some(balanced));
        }
        self.waiting = Some(Waiting { problem, stand_in: balanced, since: now });
        Ok(None)
    }

    /// The search has found a plan; none if it is no longer asked for.
    pub(super) fn found(&mut self, plan: Plan) -> Option<Plan> {
        let waiting = self.waiting.take_if(|waiting| waiting.problem.epoch == plan.epoch)?;
        Some(self.keep(waiting.problem, plan))
    }

    /// The stand-in, once the search is late.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<Plan> {
        let late = |waiting: &mut Waiting| now >= waiting.since + PATIENCE;
        let waiting = if self.waits { None } else { self.waiting.take_if(late) }?;
        Some(self.keep(waiting.problem, waiting.stand_in))
    }

    /// Has the plan written down, if other nodes serve than in the last one.
    fn keep(&mut self, problem: PlanProblem, plan: Plan) -> Plan {
        if self.kept != problem.nodes {
            self.kept.clone_from(&problem.nodes);
            // Without the thread there is no file, and training goes on.
            drop(self.requests.send(Request::Keep { problem, plan: plan.clone() }));
        }
        plan
    }
}

fn work(
    dir: &std::path::Path,
    mut chooser: Option<SwarmChooser>,
    queue: &Receiver<Request>,
    found: &impl Fn(Found),
) {
    let mut placement = None;
    while let Ok(request) = queue.recv() {
        match (request, &mut chooser) {
            (Request::Search { problem }, Some(chooser)) => found(Found::Plan(chooser.choose(&problem))),
            (Request::Answer { problem, time }, Some(chooser)) => {
                let since = Instant::now();
                let mut hurry =
                    || time.map_or(0.0, |time| since.elapsed().as_secs_f64() / time.as_secs_f64());
                let answer = chooser.answer(&problem, &mut hurry);
                if let Some(note) = PlacementNote::of(&answer) {
                    placement = Some(note);
                }
                found(Found::Places(answer));
            }
            (Request::Place { node, region }, Some(chooser)) => {
                // How fast it is shows after its first iteration.
                if let Err(error) = chooser.locate(node, region) {
                    say(&format_args!("{node} is planned for as if it were where the table says ({error})"));
                }
            }
            (Request::Search { .. } | Request::Place { .. } | Request::Answer { .. }, None) => {}
            (Request::Keep { problem, plan }, chooser) => {
                let region = |node| chooser.as_ref()?.region(node).map(str::to_owned);
                if let Err(error) = write_plan(dir, &problem, &plan, region, placement) {
                    say(&format_args!("plan.json can't be written ({error}); training goes on without it"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skipstone_planner::{DrawnSize, SwarmDescription, draw_instance};
    use skipstone_types::{Attempt, Iteration, PathRules, PlanEpoch};

    fn problem(epoch: u64, nodes: Vec<Vec<NodeId>>) -> PlanProblem {
        PlanProblem {
            epoch: PlanEpoch(epoch),
            seed: 1,
            iteration: Iteration(epoch),
            attempt: Attempt(0),
            nodes,
            microbatches: 6,
            path_length: 3,
            full: false,
            rules: PathRules::default(),
            paces: Vec::new(),
            edge_swaps: skipstone_types::EdgeSwaps::Off,
        }
    }

    fn nodes() -> Vec<Vec<NodeId>> {
        vec![vec![NodeId(1), NodeId(2)], vec![NodeId(3)], vec![NodeId(4)], vec![NodeId(5), NodeId(6)]]
    }

    fn chooser() -> SwarmChooser {
        let size = DrawnSize { nodes: 6, stages: 4, path_len: 3, regions: 2 };
        SwarmChooser::new(SwarmDescription::of_instance(&draw_instance(size, 1))).expect("a description")
    }

    fn planner(chooser: Option<SwarmChooser>, waits: bool) -> (Planner, Receiver<Plan>, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a folder");
        let (found, plans) = mpsc::channel();
        let tell = move |what: Found| match what {
            Found::Plan(plan) => drop(found.send(plan.expect("a plan"))),
            Found::Places(_) => {}
        };
        (Planner::start(dir.path().to_owned(), chooser, None, waits, tell).expect("a thread"), plans, dir)
    }

    #[test]
    fn without_links_the_balanced_plan_comes_at_once() {
        let (mut planner, _plans, _dir) = planner(None, false);
        let problem = problem(1, nodes());
        let plan = planner.ask(problem.clone(), Instant::now()).expect("feasible");
        assert_eq!(plan, Some(BalancedChooser.choose(&problem).expect("feasible")));
    }

    #[test]
    fn a_search_answers_once_and_its_estimate_comes_along() {
        let (mut planner, plans, dir) = planner(Some(chooser()), true);
        let start = Instant::now();
        assert_eq!(planner.ask(problem(1, nodes()), start), Ok(None));
        assert_eq!(planner.overdue(start + 10 * PATIENCE), None, "it waits for the search");
        let plan = plans.recv().expect("a plan");
        assert!(plan.expected_us.is_some());
        assert_eq!(planner.found(plan.clone()), Some(plan.clone()));
        assert_eq!(planner.found(plan), None, "nobody asks any more");
        // The thread is through with the file once it answers again.
        assert_eq!(planner.ask(problem(2, nodes()), start), Ok(None));
        plans.recv().expect("a plan");
        let text = std::fs::read_to_string(dir.path().join("plan.json")).expect("written");
        let file = skipstone_planner::PipelinePlan::from_json(&text).expect("a plan");
        assert_eq!((file.stages[0].len(), file.microbatches.len()), (2, 6));
    }

    #[test]
    fn the_balanced_plan_stands_in_for_a_late_search() {
        let (mut planner, plans, _dir) = planner(Some(chooser()), false);
        let (start, problem) = (Instant::now(), problem(1, nodes()));
        assert_eq!(planner.ask(problem.clone(), start), Ok(None));
        assert_eq!(planner.overdue(start), None);
        let stand_in = planner.overdue(start + PATIENCE);
        assert_eq!(stand_in, Some(BalancedChooser.choose(&problem).expect("feasible")));
        assert_eq!(planner.found(plans.recv().expect("a plan")), None, "it is late");
    }
}
