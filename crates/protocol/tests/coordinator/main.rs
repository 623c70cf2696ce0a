//! The coordinator's decisions, seen through its commands.

mod copies;
mod entering;
mod guard;
mod hedging;
mod leaving;
mod lessons;
mod pace;
mod placing;
mod restarting;
mod retracing;
mod saving;
mod spot_checks;
mod votes;

use skipstone_protocol::*;
use skipstone_types::*;

fn settings(replicas: u16, relay_stages: u16) -> Settings {
    Settings {
        run: RunId(7),
        seed: 1,
        relay_stages,
        origin_like_relay: false,
        origin_has_layers: false,
        replicas,
        spares: 0,
        microbatches: 2,
        steps: 3,
        skip: 0.0,
        full_every: 0,
        full_last: 0,
        slots: 2,
        while_lost: WhileLost::Skip,
        recovery: "checkfree".to_owned(),
        clip_norm_max: 1.0,
        learning_rate: LearningRate {
            peak: 1e-3,
            floor: 0.0,
            warmup_iterations: 0,
            total_iterations: 3,
            shape: RateShape::Constant,
        },
        save_every_iterations: 0,
        deterministic: false,
        respawn: true,
        stage_replicas: Vec::new(),
        places: false,
        edge_swaps: skipstone_types::EdgeSwaps::Off,
        spot_checks: skipstone_types::SpotChecks::OFF,
    }
}

/// A coordinator, and what it said.
struct Bench {
    coordinator: Coordinator,
    journal: Vec<Entry>,
    sent: Vec<(NodeId, ToWorker)>,
    events: Vec<Event>,
    end: Option<End>,
    /// What was published as `state/`, in order.
    published: Vec<SavedState>,
    now_us: u64,
    connections: u64,
    /// Where the n-th that says hello is.
    regions: Vec<u16>,
    reduces: std::collections::BTreeMap<NodeId, ReduceId>,
    problems: Vec<PlanProblem>,
    questions: Vec<PlaceProblem>,
    /// A node that gets no share.
    idle: Option<NodeId>,
    /// Microbatches that each node has added since an attempt began, and the norm of one.
    added: std::collections::BTreeMap<NodeId, u32>,
    norm: f64,
    /// Whether nodes say what they computed, and those that say otherwise than they should.
    checks: bool,
    lies: std::collections::BTreeMap<NodeId, ShareDigests>,
}

impl Bench {
    fn open(settings: &Settings, journal: &[Entry]) -> Self {
        Self::resume(settings, journal, None)
    }

    fn resume(settings: &Settings, journal: &[Entry], saved: Option<SavedState>) -> Self {
        let (coordinator, commands) = Coordinator::open(settings.clone(), journal, saved, 0);
        let mut bench = Self {
            coordinator,
            journal: journal.to_vec(),
            sent: vec![],
            events: vec![],
            end: None,
            published: vec![],
            now_us: 0,
            connections: 0,
            regions: vec![],
            reduces: std::collections::BTreeMap::new(),
            problems: vec![],
            questions: vec![],
            idle: None,
            added: std::collections::BTreeMap::new(),
            // Other sums than those in the journal.
            norm: 1.0 + 0.1 * journal.len() as f64,
            checks: settings.spot_checks.are_on(),
            lies: std::collections::BTreeMap::new(),
        };
        bench.carry_out(commands);
        bench
    }

    /// The copies that were asked for since this was last called: keeper, transfer, stage and iteration.
    fn take_asked_copies(&mut self) -> Vec<(NodeId, TransferId, StageId, Iteration)> {
        let asked = self.sent.iter().filter_map(|(to, message)| match message {
            ToWorker::KeepCopy { transfer, stage, iteration, .. } => {
                Some((*to, *transfer, *stage, *iteration))
            }
            _ => None,
        });
        let asked = asked.collect();
        self.sent.retain(|(_, message)| !matches!(message, ToWorker::KeepCopy { .. }));
        asked
    }

    fn carry_out(&mut self, commands: Vec<CoordinatorCommand>) {
        for command in commands {
            match command {
                CoordinatorCommand::Send { to, message } => {
                    if let ToWorker::Seal { reduce, .. } = &message {
                        self.reduces.insert(to, *reduce);
                    }
                    if let ToWorker::Begin { .. } = &message {
                        self.added.remove(&to);
                    }
                    self.sent.push((to, message));
                }
                CoordinatorCommand::Journal { entry } => self.journal.push(entry),
                CoordinatorCommand::Log { event } => self.events.push(event),
                CoordinatorCommand::End { end } => self.end = Some(end),
                CoordinatorCommand::Plan { mut problem } => {
                    self.problems.push(problem.clone());
                    problem.nodes.iter_mut().for_each(|nodes| nodes.retain(|node| Some(*node) != self.idle));
                    // Every microbatch through the first living node of every served stage, but the second
                    // microbatch through the second where there is one.
                    let paths = (0..problem.microbatches as usize)
                        .map(|m| {
                            let visits =
                                problem.nodes.iter().enumerate().filter(|(_, nodes)| !nodes.is_empty());
                            Path(
                                visits
                                    .map(|(stage, nodes)| Visit {
                                        stage: StageId(stage as u16),
                                        node: nodes[m % nodes.len()],
                                    })
                                    .collect(),
                            )
                        })
                        .collect();
                    self.input(CoordinatorInput::Planned {
                        plan: Plan { epoch: problem.epoch, paths, expected_us: None },
                    });
                }
                CoordinatorCommand::Publish { iteration, stages, .. } => {
                    self.published.push(SavedState { iteration, stages });
                }
                CoordinatorCommand::Place { problem } => self.questions.push(problem),
                CoordinatorCommand::Bind { .. }
                | CoordinatorCommand::Reject { .. }
                | CoordinatorCommand::Disconnect { .. }
                | CoordinatorCommand::Discard { .. } => {}
            }
        }
    }

    fn input(&mut self, input: CoordinatorInput) {
        self.now_us += 1000;
        let commands = self.coordinator.on(input, self.now_us);
        self.carry_out(commands);
    }

    /// Time passes, in the steps of a driver that ticks.
    fn wait(&mut self, us: u64) {
        for _ in 0..us / 100_000 {
            self.now_us += 99_000;
            self.input(CoordinatorInput::Tick);
        }
    }

    fn hello(&mut self, holding: Option<Box<Holding>>) -> NodeId {
        let was = holding.as_ref().map(|holding| holding.node);
        self.hello_of(was, holding)
    }

    fn hello_of(&mut self, was: Option<NodeId>, holding: Option<Box<Holding>>) -> NodeId {
        self.connections += 1;
        let address = format!("n:{}", self.connections);
        let hello = ToCoordinator::Hello { holding, address, process: 0, was };
        let region = self.regions.get(self.connections as usize - 1).copied();
        let domain = FailureDomain { region, machine: None };
        self.input(CoordinatorInput::Hello { connection: self.connections, hello, domain });
        let welcome = self.sent.iter().rev().find(|(_, message)| matches!(message, ToWorker::Welcome { .. }));
        welcome.expect("a welcome").0
    }

    fn says(&mut self, node: NodeId, message: ToCoordinator) {
        self.input(CoordinatorInput::Worker { node, message });
    }

    fn last_assignment(&self, to: NodeId) -> (TransferId, StageId, Method) {
        self.sent
            .iter()
            .rev()
            .find_map(|(node, message)| match message {
                ToWorker::Assign { transfer, stage, method, .. } if *node == to => {
                    Some((*transfer, *stage, method.clone()))
                }
                _ => None,
            })
            .expect("an assignment")
    }

    fn holds(&mut self, node: NodeId) {
        let (transfer, stage, _) = self.last_assignment(node);
        let iteration = self.coordinator.iteration();
        let digest = Digest([stage.0 as u8 + 1; 32]);
        self.says(node, ToCoordinator::Holds { transfer: Some(transfer), stage, iteration, digest });
    }

    /// All nodes of `settings`, with their first weights; the first attempt has begun. Nodes in order of stage.
    fn started(settings: &Settings) -> (Self, Vec<NodeId>) {
        Self::started_in(settings, &[])
    }

    /// With the n-th node in the n-th of these regions.
    fn started_in(settings: &Settings, regions: &[u16]) -> (Self, Vec<NodeId>) {
        let mut bench = Self::open(settings, &[]);
        bench.regions = regions.to_vec();
        let nodes: Vec<_> = (0..settings.nodes()).map(|_| bench.hello(None)).collect();
        for node in &nodes {
            bench.holds(*node);
        }
        let mut by_stage = nodes;
        by_stage.sort_by_key(|node| bench.last_assignment(*node).1);
        (bench, by_stage)
    }

    fn current(&self) -> (Iteration, Attempt) {
        self.events
            .iter()
            .rev()
            .find_map(|event| match event {
                Event::AttemptStarted { iteration, attempt, .. } => Some((*iteration, *attempt)),
                _ => None,
            })
            .expect("an attempt")
    }

    fn share(&mut self, node: NodeId, microbatch: u32, origin: bool) {
        let (iteration, attempt) = self.current();
        let loss = origin.then_some(LossShare { loss_sum: 8.0, tokens: 4, place: 0 });
        self.says(
            node,
            ToCoordinator::ShareDone { iteration, attempt, microbatch: Microbatch(microbatch), loss },
        );
        // No two sums are the same to the last bit.
        self.norm *= 1.0001;
        let added = self.added.entry(node).or_default();
        *added += 1;
        let microbatches = *added;
        self.measured(node, microbatches, self.norm * f64::from(microbatches));
    }

    fn measured(&mut self, node: NodeId, microbatches: u32, norm: f64) {
        let (iteration, attempt) = self.current();
        let digests = self.digests_of(node);
        self.says(node, ToCoordinator::Measured { iteration, attempt, microbatches, norm, digests });
    }

    fn digests_of(&self, node: NodeId) -> Option<ShareDigests> {
        self.checks.then(|| self.lies.get(&node).copied().unwrap_or_default())
    }

    fn reduced(&mut self, node: NodeId, digest: u8) {
        let (iteration, attempt) = self.current();
        let reduce = self.reduces[&node];
        let message = ToCoordinator::Reduced {
            iteration,
            attempt,
            reduce,
            digest: Digest([digest; 32]),
            norm: 2.0,
            spent: Spent::default(),
        };
        self.says(node, message);
    }

    fn commits(&self) -> Vec<&CommitRecord> {
        self.journal
            .iter()
            .filter_map(|entry| match entry {
                Entry::Committed(record) => Some(record.as_ref()),
                _ => None,
            })
            .collect()
    }

    fn duties(&self, node: NodeId) -> Vec<Duty> {
        self.sent
            .iter()
            .filter(|(to, _)| *to == node)
            .flat_map(|(_, message)| match message {
                ToWorker::Begin { duties, .. } | ToWorker::Reroute { duties, .. } => duties.clone(),
                _ => vec![],
            })
            .collect()
    }
}

/// One iteration with a node a stage, all of whom do what they are told.
fn run_iteration(bench: &mut Bench, nodes: &[NodeId]) {
    for (stage, node) in nodes.iter().enumerate() {
        for microbatch in 0..2 {
            bench.share(*node, microbatch, stage == 0);
        }
    }
    for node in nodes {
        bench.reduced(*node, 40);
    }
}

/// Everyone who was told to step says what it holds then.
fn all_step(bench: &mut Bench, nodes: &[NodeId]) {
    let record = bench.commits().pop().expect("a commit").clone();
    for part in &record.stages {
        for node in part.members.iter().filter(|node| nodes.contains(node)) {
            let (stage, next) = (part.stage.0, record.iteration.0 + 1);
            stepped(bench, *node, stage, next, 100 + stage as u8);
        }
    }
}

#[test]
fn whole_iterations_are_those_that_are_due_and_the_last_ones() {
    let whole = Settings { steps: 10, full_every: 4, full_last: 3, ..settings(1, 2) };
    let (mut bench, nodes) = Bench::started(&whole);
    for _ in 0..10 {
        run_iteration(&mut bench, &nodes);
        all_step(&mut bench, &nodes);
    }
    let full: Vec<_> =
        bench.problems.iter().filter(|problem| problem.full).map(|problem| problem.iteration.0).collect();
    assert_eq!(full, [3, 7, 8, 9]);
}

#[test]
fn an_iteration_is_journalled_before_it_is_heard() {
    let (mut bench, nodes) = Bench::started(&settings(1, 2));
    run_iteration(&mut bench, &nodes);
    let records = bench.commits();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].loss_sum, records[0].tokens), (16.0, 8));
    assert_eq!(records[0].stages[1].clip_factor, 0.5, "norm 2 clipped to 1");
    assert_eq!(records[0].stages[2].shares[0].microbatches, [Microbatch(0), Microbatch(1)]);
    // The order of commands: journal, then commit to all, then the next attempt.
    let mut again = Bench::started(&settings(1, 2)).0;
    for (stage, node) in nodes.iter().enumerate() {
        (0..2).for_each(|microbatch| again.share(*node, microbatch, stage == 0));
    }
    again.reduced(nodes[0], 1);
    again.reduced(nodes[1], 1);
    let reduce = again.reduces[&nodes[2]];
    let last = ToCoordinator::Reduced {
        iteration: Iteration(0),
        attempt: Attempt(0),
        reduce,
        digest: Digest([1; 32]),
        norm: 0.5,
        spent: Spent::default(),
    };
    let commands =
        again.coordinator.on(CoordinatorInput::Worker { node: nodes[2], message: last }, 1_000_000);
    let at = |wanted: fn(&CoordinatorCommand) -> bool| commands.iter().position(wanted).expect("the command");
    let journal = at(|command| matches!(command, CoordinatorCommand::Journal { entry: Entry::Committed(_) }));
    let commit =
        at(|command| matches!(command, CoordinatorCommand::Send { message: ToWorker::Commit { .. }, .. }));
    let plan = at(|command| matches!(command, CoordinatorCommand::Plan { .. }));
    assert!(journal < commit && commit < plan);
}

#[test]
fn a_dead_replicas_share_is_replayed_by_the_living_one() {
    let (mut bench, nodes) = Bench::started(&settings(2, 1));
    // Stage 1 is served by nodes[2] and nodes[3]; microbatch 1 goes through the second.
    let (origin, heir, victim) = (nodes[1], nodes[2], nodes[3]);
    bench.share(victim, 1, false);
    bench.input(CoordinatorInput::Lost { node: victim, why: "connection".to_owned() });
    assert!(bench.events.contains(&Event::Repaired { stage: StageId(1), lost: victim, microbatches: 1 }));
    let replay = Duty {
        goes_back: false,
        microbatch: Microbatch(1),
        counted: true,
        replay: true,
        previous: origin,
        next: origin,
    };
    assert!(bench.duties(heir).contains(&replay), "{:?}", bench.duties(heir));
    let told: Vec<_> = bench.duties(origin).iter().map(|duty| (duty.previous, duty.next)).collect();
    assert_eq!(told, [(victim, victim), (heir, heir)]);
    // What the dead node did before does not count: the stage is sealed when the heir has done both.
    bench.share(heir, 0, false);
    assert!(!bench.reduces.contains_key(&heir));
    bench.share(heir, 1, false);
    assert!(bench.reduces.contains_key(&heir));
}

#[test]
fn a_stage_without_replica_is_routed_around_and_rebuilt_from_its_neighbours() {
    let (mut bench, nodes) = Bench::started(&settings(1, 3));
    run_iteration(&mut bench, &nodes);
    all_step(&mut bench, &nodes);
    bench.input(CoordinatorInput::Lost { node: nodes[2], why: "connection".to_owned() });
    assert!(bench.events.contains(&Event::StageLost { stage: StageId(2), iteration: Iteration(1) }));
    assert_eq!(bench.current(), (Iteration(1), Attempt(1)));
    let holes = bench.events.iter().rev().find_map(|event| match event {
        Event::AttemptStarted { holes, .. } => Some(holes.clone()),
        _ => None,
    });
    assert_eq!(holes, Some(vec![StageId(2)]));
    // A new node rebuilds it, and serves it from the next attempt on.
    let heir = bench.hello(None);
    let (_, stage, method) = bench.last_assignment(heir);
    let Method::Rebuild { recipe, donors, .. } = method else { panic!("{method:?}") };
    assert_eq!((stage, donors), (StageId(2), vec![nodes[1], nodes[3]]));
    assert_eq!(recipe.sources.iter().map(|source| source.coefficient).sum::<f64>(), 1.0);
    bench.holds(heir);
    run_iteration(&mut bench, &[nodes[0], nodes[1], nodes[3]]);
    assert_eq!(bench.coordinator.iteration(), Iteration(2));
    assert!(!bench.duties(heir).is_empty());
    let rebuilt = bench.events.iter().any(|event| {
        matches!(event, Event::StageRebuilt { stage: StageId(2), kind, sources, iteration: Iteration(2), .. }
            if kind == "checkfree" && sources[..] == [StageId(1), StageId(3)])
    });
    assert!(rebuilt, "{:?}", bench.events);
    all_step(&mut bench, &nodes);
    run_iteration(&mut bench, &[nodes[0], nodes[1], heir, nodes[3]]);
    assert_eq!(bench.commits()[2].stages[2].lineage, 1);
}

#[test]
fn unequal_digests_are_reduced_again_and_then_set_aside() {
    let (mut bench, nodes) = Bench::started(&settings(3, 1));
    for (node, origin) in [(nodes[0], true), (nodes[3], false)] {
        bench.share(node, 0, origin);
    }
    for (node, origin) in [(nodes[1], true), (nodes[4], false)] {
        bench.share(node, 1, origin);
    }
    let first = bench.reduces[&nodes[3]];
    for (node, digest) in [(nodes[3], 1), (nodes[4], 2), (nodes[5], 1)] {
        bench.reduced(node, digest);
    }
    assert_ne!(bench.reduces[&nodes[3]], first, "a second try");
    for (node, digest) in [(nodes[3], 1), (nodes[4], 2), (nodes[5], 1)] {
        bench.reduced(node, digest);
    }
    let lost = bench.events.iter().any(
        |event| matches!(event, Event::NodeLost { node, why, .. } if *node == nodes[4] && why == "hash"),
    );
    assert!(lost, "{:?}", bench.events);
}

#[test]
fn the_last_origin_is_not_rebuilt() {
    let (mut bench, nodes) = Bench::started(&settings(1, 2));
    run_iteration(&mut bench, &nodes);
    all_step(&mut bench, &nodes);
    bench.input(CoordinatorInput::Lost { node: nodes[0], why: "connection".to_owned() });
    assert!(!bench.sent.iter().any(|(_, message)| matches!(message, ToWorker::Save { .. })), "it may return");
    bench.wait(10_000_000);
    for (node, stage) in [(nodes[1], 1), (nodes[2], 2)] {
        let saved = ToCoordinator::Saved {
            stage: StageId(stage),
            iteration: bench.coordinator.iteration(),
            digest: Digest([100 + stage as u8; 32]),
        };
        bench.says(node, saved);
    }
    let Some(End::Failed { why }) = &bench.end else { panic!("{:?}", bench.end) };
    assert!(why.contains("--replicas") && why.contains("--resume"), "{why}");
}

/// Nodes that joined, with the ids that they had.
fn joins(bench: &Bench) -> Vec<(NodeId, Option<NodeId>)> {
    let join = |event: &Event| match event {
        Event::NodeJoined { node, was, .. } => Some((*node, *was)),
        _ => None,
    };
    bench.events.iter().filter_map(join).collect()
}

/// What a node of the first term says that it holds.
fn holding(node: NodeId, stage: u16, iteration: u64, state: u8) -> Holding {
    Holding {
        names: vec![node],
        run: RunId(7),
        term: Term(1),
        node,
        stage: StageId(stage),
        iteration: Iteration(iteration),
        newest: (Iteration(iteration), Attempt(0)),
        state: Digest([state; 32]),
        reduced: None,
        record: None,
        copies: Vec::new(),
    }
}

fn lose(bench: &mut Bench, node: NodeId) {
    bench.input(CoordinatorInput::Lost { node, why: "connection".to_owned() });
}

/// A node reports what it holds after a step.
fn stepped(bench: &mut Bench, node: NodeId, stage: u16, iteration: u64, state: u8) {
    let (stage, iteration, digest) = (StageId(stage), Iteration(iteration), Digest([state; 32]));
    bench.says(node, ToCoordinator::Holds { transfer: None, stage, iteration, digest });
}

fn starts_empty(bench: &Bench, node: NodeId) -> bool {
    bench
        .sent
        .iter()
        .any(|(to, message)| *to == node && matches!(message, ToWorker::Welcome { empty: true, .. }))
}

#[test]
fn replicas_that_differ_after_a_step_taint_what_was_computed_since() {
    let (mut bench, nodes) = Bench::started(&settings(3, 1));
    for (index, node) in nodes.iter().enumerate() {
        for microbatch in 0..2 {
            bench.share(*node, microbatch, index < 3);
        }
    }
    for (index, node) in nodes.iter().enumerate() {
        bench.reduced(*node, if index < 3 { 1 } else { 2 });
    }
    assert_eq!(bench.current(), (Iteration(1), Attempt(0)));
    // One of three is wrong, and is heard before the others; all have begun to compute.
    stepped(&mut bench, nodes[3], 1, 1, 66);
    stepped(&mut bench, nodes[4], 1, 1, 77);
    for node in &nodes[3..5] {
        for microbatch in 0..2 {
            bench.share(*node, microbatch, false);
        }
    }
    let sealed = |bench: &Bench| {
        bench
            .sent
            .iter()
            .filter(|(_, message)| matches!(message, ToWorker::Seal { iteration: Iteration(1), .. }))
            .count()
    };
    assert_eq!(sealed(&bench), 0, "nothing is added up before all have said what they hold");
    stepped(&mut bench, nodes[5], 1, 1, 77);
    let lost =
        bench.events.iter().any(|event| matches!(event, Event::NodeLost { node, .. } if *node == nodes[3]));
    assert!(lost, "{:?}", bench.events);
    assert_eq!(
        bench.current(),
        (Iteration(1), Attempt(1)),
        "what was made with the wrong state counts nowhere"
    );
}

/// A coordinator that is asked about time: ticks every 50 ms, for so long.
fn pass_ms(bench: &mut Bench, ms: u64) -> Vec<(NodeId, ToWorker)> {
    let sent = bench.sent.len();
    for _ in 0..ms / 50 {
        bench.now_us += 49_000;
        bench.input(CoordinatorInput::Tick);
    }
    bench.sent[sent..].to_vec()
}

fn paced_iteration(bench: &mut Bench, nodes: &[NodeId], busy_us: &dyn Fn(NodeId) -> u64) {
    spent_iteration(bench, nodes, &|node, microbatches| Spent {
        busy_us: busy_us(node) * microbatches,
        ..Spent::default()
    });
}

/// An iteration in which each node spends what is said of it and its microbatches.
fn spent_iteration(bench: &mut Bench, nodes: &[NodeId], spent: &dyn Fn(NodeId, u64) -> Spent) {
    let duties: Vec<_> = nodes.iter().map(|node| (*node, begun(bench, *node))).collect();
    for (node, duties) in &duties {
        let origin = bench.last_assignment(*node).1.is_origin();
        for duty in duties {
            bench.share(*node, duty.microbatch.0, origin);
        }
    }
    let (iteration, attempt) = bench.current();
    for (node, duties) in &duties {
        let stage = bench.last_assignment(*node).1;
        let message = ToCoordinator::Reduced {
            iteration,
            attempt,
            reduce: bench.reduces[node],
            digest: Digest([stage.0 as u8; 32]),
            norm: 1.0,
            spent: spent(*node, duties.len() as u64),
        };
        bench.says(*node, message);
    }
    all_step(bench, nodes);
}

/// The duties that the node was given with the last attempt.
fn begun(bench: &Bench, node: NodeId) -> Vec<Duty> {
    bench
        .sent
        .iter()
        .rev()
        .find_map(|(to, message)| match message {
            ToWorker::Begin { duties, .. } if *to == node => Some(duties.clone()),
            _ => None,
        })
        .unwrap_or_default()
}

fn is_told(bench: &Bench, node: NodeId, message: &ToWorker) -> bool {
    bench.sent.iter().any(|(to, told)| *to == node && told == message)
}
