//! The coordinator's decisions, seen through its commands.

mod hedging;

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
    }
}

/// A coordinator, and what it said.
struct Bench {
    coordinator: Coordinator,
    journal: Vec<Entry>,
    sent: Vec<(NodeId, ToWorker)>,
    events: Vec<Event>,
    end: Option<End>,
    now_us: u64,
    connections: u64,
    reduces: std::collections::BTreeMap<NodeId, ReduceId>,
    problems: Vec<PlanProblem>,
    /// A node that gets no share.
    idle: Option<NodeId>,
    /// Microbatches that each node has added since an attempt began, and the norm of one.
    added: std::collections::BTreeMap<NodeId, u32>,
    norm: f64,
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
            now_us: 0,
            connections: 0,
            reduces: std::collections::BTreeMap::new(),
            problems: vec![],
            idle: None,
            added: std::collections::BTreeMap::new(),
            // Other sums than those in the journal.
            norm: 1.0 + 0.1 * journal.len() as f64,
        };
        bench.carry_out(commands);
        bench
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
                    self.input(CoordinatorInput::Planned { plan: Plan { epoch: problem.epoch, paths } });
                }
                CoordinatorCommand::Bind { .. }
                | CoordinatorCommand::Reject { .. }
                | CoordinatorCommand::Disconnect { .. }
                | CoordinatorCommand::Publish { .. }
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
        self.input(CoordinatorInput::Hello { connection: self.connections, hello });
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
        let mut bench = Self::open(settings, &[]);
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
        self.says(node, ToCoordinator::Measured { iteration, attempt, microbatches, norm });
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
    let replay =
        Duty { microbatch: Microbatch(1), counted: true, replay: true, previous: origin, next: origin };
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
    let Method::Rebuild { recipe, donors } = method else { panic!("{method:?}") };
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
    assert!(why.contains("--replicas 2"), "{why}");
}

#[test]
fn a_restarted_coordinator_goes_on_with_the_nodes_that_return() {
    let settings = settings(1, 2);
    let (mut bench, nodes) = Bench::started(&settings);
    run_iteration(&mut bench, &nodes);
    let record = bench.commits()[0].clone();
    let mut second = Bench::open(&settings, &bench.journal);
    assert_eq!((second.coordinator.term(), second.coordinator.iteration()), (Term(2), Iteration(1)));
    let mut returned = Vec::new();
    for (stage, node) in nodes.iter().enumerate() {
        // The last node has not heard of the commit.
        let behind = stage == 2;
        let mut holding = holding(*node, stage as u16, u64::from(!behind), 9);
        holding.reduced = behind.then_some(Digest([40; 32]));
        holding.record = (!behind).then(|| Box::new(record.clone()));
        returned.push(second.hello(Some(Box::new(holding))));
    }
    // The journal does not tell who was fenced, so nobody is taken in under an id that others may not hear.
    assert!(returned.iter().all(|node| !nodes.contains(node)), "{returned:?}");
    let told_again = second
        .sent
        .iter()
        .any(|(to, message)| *to == returned[2] && matches!(message, ToWorker::Commit { .. }));
    assert!(told_again, "the decided iteration is heard by all");
    assert_eq!(
        joins(&second),
        returned.iter().copied().zip(nodes.iter().copied().map(Some)).collect::<Vec<_>>()
    );
    assert!(
        !second
            .events
            .iter()
            .any(|event| matches!(event, Event::NodeLost { .. } | Event::NodeEmptied { .. }))
    );
    // One that held nothing has another name too; what is no id of an earlier term is not believed.
    for (says, known) in
        [(Some(NodeId(60)), Some(NodeId(60))), (Some(NodeId(9999)), None), (Some(returned[0]), None)]
    {
        let node = second.hello_of(says, None);
        assert_eq!(joins(&second).last(), Some(&(node, known)));
    }
    let nodes = returned;
    stepped(&mut second, nodes[2], 2, 1, 9);
    assert_eq!(second.current(), (Iteration(1), Attempt(1)), "a new attempt, so that old frames don't mix");
    run_iteration(&mut second, &nodes);
    assert_eq!(second.commits()[1].previous, record.digest());
}

/// The first iteration is decided, and no node has heard of it.
fn returns_behind(node: NodeId, stage: u16, names: &[NodeId]) -> Option<Box<Holding>> {
    let mut holding = holding(node, stage, 0, 7);
    holding.reduced = Some(Digest([40; 32]));
    holding.names = names.to_vec();
    Some(Box::new(holding))
}

fn is_emptied(bench: &Bench) -> bool {
    bench.events.iter().any(|event| matches!(event, Event::NodeEmptied { .. } | Event::StageLost { .. }))
}

#[test]
fn coordinators_that_die_one_after_another_cost_no_stage() {
    let settings = settings(1, 2);
    let (mut bench, nodes) = Bench::started(&settings);
    run_iteration(&mut bench, &nodes);
    // The second takes them in under new ids, and dies before it has decided anything.
    let mut second = Bench::open(&settings, &bench.journal);
    let renamed: Vec<_> =
        (0..).zip(&nodes).map(|(stage, node)| second.hello(returns_behind(*node, stage, &[*node]))).collect();
    let mut third = Bench::open(&settings, &second.journal);
    let mut back = Vec::new();
    for (stage, (was, is)) in (0..).zip(nodes.iter().zip(&renamed)) {
        back.push(third.hello(returns_behind(*is, stage, &[*was, *is])));
    }
    assert!(!is_emptied(&third));
    for (stage, node) in (0..).zip(&back) {
        let told =
            |(to, message): &(NodeId, ToWorker)| to == node && matches!(message, ToWorker::Commit { .. });
        assert!(
            third.sent.iter().any(told),
            "the decided iteration is heard by all, without waiting for more"
        );
        stepped(&mut third, *node, stage, 1, 9);
    }
    run_iteration(&mut third, &back);
    assert_eq!(third.commits().len(), 2);
    // Nobody can say of itself what no record says.
    let mut third = Bench::open(&settings, &second.journal);
    for (stage, is) in (0..).zip(&renamed) {
        third.hello(returns_behind(*is, stage, &[*is]));
    }
    third.wait(10_000_000);
    assert!(is_emptied(&third));
}

#[test]
fn a_node_that_comes_after_the_wait_for_it_still_steps_with_its_record() {
    let settings = settings(1, 2);
    let (mut bench, nodes) = Bench::started(&settings);
    run_iteration(&mut bench, &nodes);
    let mut second = Bench::open(&settings, &bench.journal);
    second.hello(returns_behind(nodes[0], 0, &nodes[..1]));
    second.hello(returns_behind(nodes[1], 1, &nodes[1..2]));
    second.wait(4_000_000);
    let late = second.hello(returns_behind(nodes[2], 2, &nodes[2..]));
    assert!(!starts_empty(&second, late));
    let (_, stage, method) = second.last_assignment(late);
    assert_eq!((stage, method), (StageId(2), Method::Keep));
}

#[test]
fn a_node_that_returns_with_a_state_of_no_use_is_told_to_be_empty() {
    let settings = settings(2, 1);
    let (mut bench, nodes) = Bench::started(&settings);
    // (Only the journal matters for a second coordinator.)
    for (node, microbatch) in [(nodes[0], 0), (nodes[1], 1)] {
        bench.share(node, microbatch, true);
    }
    for (node, microbatch) in [(nodes[2], 0), (nodes[3], 1)] {
        bench.share(node, microbatch, false);
    }
    nodes.iter().enumerate().for_each(|(index, node)| bench.reduced(*node, 40 + index as u8 / 2));
    assert_eq!(bench.commits().len(), 1);
    let mut second = Bench::open(&settings, &bench.journal);
    let mut returned = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        // The last one is before the step, and lacks the gradient for it.
        let behind = index == 3;
        let stage = index as u16 / 2;
        let holding = holding(*node, stage, u64::from(!behind), 9 + stage as u8);
        returned.push(second.hello(Some(Box::new(holding))));
    }
    assert_eq!(joins(&second)[3], (returned[3], Some(nodes[3])), "it is the same process");
    let emptied = Event::NodeEmptied { node: returned[3], stage: StageId(1) };
    assert!(second.events.contains(&emptied), "{:#?}", second.events);
    assert!(starts_empty(&second, returned[3]));
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
        attempt: Attempt(0),
        state: Digest([state; 32]),
        reduced: None,
        record: None,
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
fn a_rebuilt_stage_is_known_after_a_restart_before_any_record_names_it() {
    let settings = settings(1, 3);
    let (mut bench, nodes) = Bench::started(&settings);
    run_iteration(&mut bench, &nodes);
    lose(&mut bench, nodes[2]);
    // The attempt around the hole is aborted, so the heir enters for the same iteration.
    let heir = bench.hello(None);
    bench.holds(heir);
    lose(&mut bench, nodes[3]);
    let Some(Entry::Rebuilt(rebuild)) = bench.journal.last() else { panic!("no rebuild is journalled") };
    assert_eq!((rebuild.stage, rebuild.lineage, rebuild.state), (StageId(2), 1, Digest([3; 32])));
    assert_eq!((rebuild.from, rebuild.source_lineages.as_slice()), (Iteration(1), [0, 0].as_slice()));
    let sources: Vec<_> = rebuild.recipe.sources.iter().map(|source| source.stage).collect();
    assert_eq!(sources, [StageId(1), StageId(3)]);
    let mut second = Bench::open(&settings, &bench.journal);
    // The old replica missed its last step; it must not pass for the rebuilt stage.
    let mut old = holding(nodes[2], 2, 0, 30);
    old.reduced = Some(Digest([40; 32]));
    let old = second.hello(Some(Box::new(old)));
    let mut living: Vec<_> = [(nodes[0], 0), (nodes[1], 1)]
        .map(|(node, stage)| second.hello(Some(Box::new(holding(node, stage, 1, 9)))))
        .to_vec();
    living.push(second.hello(Some(Box::new(holding(heir, 2, 1, 3)))));
    second.wait(10_000_000);
    assert!(starts_empty(&second, old));
    run_iteration(&mut second, &living);
    let part = &second.commits()[1].stages[2];
    assert_eq!((part.lineage, part.state), (1, Some(Digest([3; 32]))));
}

#[test]
fn a_node_that_missed_its_last_step_returns_only_with_the_gradient_for_it() {
    for has_gradient in [false, true] {
        let (mut bench, nodes) = Bench::started(&settings(1, 2));
        run_iteration(&mut bench, &nodes);
        lose(&mut bench, nodes[2]);
        let mut returns = holding(nodes[2], 2, 0, 3);
        returns.reduced = has_gradient.then_some(bench.commits()[0].stages[2].gradient);
        let node = bench.hello(Some(Box::new(returns)));
        assert_eq!(starts_empty(&bench, node), !has_gradient);
        let (_, stage, method) = bench.last_assignment(node);
        assert_eq!((stage, method == Method::Keep), (StageId(2), has_gradient));
        let told =
            bench.sent.iter().any(|(to, message)| *to == node && matches!(message, ToWorker::Commit { .. }));
        assert_eq!(told, has_gradient, "it steps before it enters");
    }
}

#[test]
fn a_stages_only_node_that_is_away_before_it_tells_of_its_step_returns_with_it() {
    for (heard, keeps) in [(true, true), (false, false)] {
        let (mut bench, nodes) = Bench::started(&settings(1, 2));
        run_iteration(&mut bench, &nodes);
        lose(&mut bench, nodes[2]);
        let mut returns = holding(nodes[2], 2, 1, 77);
        returns.record = heard.then(|| Box::new(bench.commits()[0].clone()));
        let node = bench.hello(Some(Box::new(returns)));
        assert_eq!(starts_empty(&bench, node), !keeps);
    }
    // Another node of the run can't say what it was never a member of.
    let (mut bench, nodes) = Bench::started(&settings(1, 2));
    run_iteration(&mut bench, &nodes);
    lose(&mut bench, nodes[2]);
    let mut returns = holding(NodeId(99), 2, 1, 77);
    returns.record = Some(Box::new(bench.commits()[0].clone()));
    let node = bench.hello(Some(Box::new(returns)));
    assert!(starts_empty(&bench, node));
}

#[test]
fn a_copy_that_steps_before_it_is_let_in_votes_with_what_it_holds_then() {
    let (mut wide, pairs) = Bench::started(&settings(2, 1));
    // One of two replicas is lost; its heir copies, and follows the iteration. It reports the gradient and its step
    // when the next attempt has begun already; that one is aborted, as the last replica is lost.
    let (kept, lost) = (pairs[2], pairs[3]);
    lose(&mut wide, lost);
    let heir = wide.hello(None);
    wide.holds(heir);
    for (node, origin) in [(pairs[0], true), (pairs[1], true), (kept, false)] {
        for microbatch in 0..2 {
            wide.share(node, microbatch, origin);
        }
    }
    let followed = ToCoordinator::Reduced {
        iteration: Iteration(0),
        attempt: Attempt(0),
        reduce: wide.reduces[&heir],
        digest: Digest([8; 32]),
        norm: 2.0,
        spent: Spent::default(),
    };
    for (node, digest) in [(pairs[0], 7), (pairs[1], 7), (kept, 8)] {
        wide.reduced(node, digest);
    }
    wide.wait(10_000_000);
    assert_eq!(wide.current().0, Iteration(1), "it was waited for, but not for long");
    wide.says(heir, followed);
    stepped(&mut wide, heir, 1, 1, 22);
    lose(&mut wide, kept);
    for node in [pairs[0], pairs[1]] {
        stepped(&mut wide, node, 0, 1, 21);
    }
    for (node, origin) in [(pairs[0], true), (pairs[1], true), (heir, false)] {
        for microbatch in 0..2 {
            wide.share(node, microbatch, origin);
        }
    }
    for (node, digest) in [(pairs[0], 5), (pairs[1], 5), (heir, 6)] {
        wide.reduced(node, digest);
    }
    assert_eq!(wide.commits()[1].stages[1].state, Some(Digest([22; 32])));
}

#[test]
fn a_copy_that_is_complete_when_its_donor_dies_is_not_thrown_away() {
    let (mut bench, nodes) = Bench::started(&settings(2, 1));
    lose(&mut bench, nodes[1]);
    let heir = bench.hello(None);
    let (transfer, stage, method) = bench.last_assignment(heir);
    assert_eq!((stage, method), (StageId(0), Method::Copy { donors: vec![nodes[0]] }));
    // The last origin is declared lost while the heir's word is on its way.
    lose(&mut bench, nodes[0]);
    let holds = ToCoordinator::Holds {
        transfer: Some(transfer),
        stage,
        iteration: Iteration(0),
        digest: Digest([1; 32]),
    };
    bench.says(heir, holds);
    let (transfer, stage, method) = bench.last_assignment(heir);
    assert_eq!((stage, method), (StageId(0), Method::Keep));
    let holds = ToCoordinator::Holds {
        transfer: Some(transfer),
        stage,
        iteration: Iteration(0),
        digest: Digest([1; 32]),
    };
    bench.says(heir, holds);
    assert!(!bench.duties(heir).is_empty(), "it serves");
}

#[test]
fn a_clock_that_jumps_ends_nobodys_patience() {
    let (mut bench, nodes) = Bench::started(&settings(1, 2));
    run_iteration(&mut bench, &nodes);
    lose(&mut bench, nodes[0]);
    bench.now_us += 3_600_000_000;
    bench.input(CoordinatorInput::Tick);
    bench.now_us -= 1_800_000_000;
    bench.input(CoordinatorInput::Tick);
    assert!(!bench.sent.iter().any(|(_, message)| matches!(message, ToWorker::Save { .. })), "it may return");
    bench.wait(10_000_000);
    assert!(
        bench.sent.iter().any(|(_, message)| matches!(message, ToWorker::Save { .. })),
        "time passes again"
    );
}

#[test]
fn a_clock_that_jumps_again_and_again_ends_nobodys_patience_either() {
    let (mut bench, nodes) = Bench::started(&settings(1, 2));
    run_iteration(&mut bench, &nodes);
    lose(&mut bench, nodes[0]);
    let saves =
        |bench: &Bench| bench.sent.iter().any(|(_, message)| matches!(message, ToWorker::Save { .. }));
    for _ in 0..30 {
        bench.now_us += 60_000_000;
        bench.input(CoordinatorInput::Tick);
    }
    bench.wait(7_000_000);
    assert!(!saves(&bench), "the origin has been away for 7 s of a running clock: it may return");
    for _ in 0..100 {
        bench.now_us += 60_000_000;
        bench.input(CoordinatorInput::Tick);
    }
    assert!(saves(&bench), "on a machine that is always late waits end too");
}

#[test]
fn a_run_is_not_given_up_if_its_origin_comes_back_while_the_rest_is_saved() {
    let (mut bench, nodes) = Bench::started(&settings(1, 2));
    lose(&mut bench, nodes[0]);
    bench.wait(10_000_000);
    assert!(bench.sent.iter().any(|(_, message)| matches!(message, ToWorker::Save { .. })));
    let origin = bench.hello(Some(Box::new(holding(nodes[0], 0, 0, 1))));
    bench.holds(origin);
    assert!(!bench.duties(origin).is_empty(), "it goes on");
    assert_eq!(bench.end, None);
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

#[test]
fn a_stage_that_was_not_saved_is_rebuilt_when_the_run_goes_on() {
    let settings = settings(1, 2);
    let stages = [0, 2]
        .map(|stage| SavedStage { stage: StageId(stage), state: Digest([stage as u8 + 1; 32]), lineage: 0 })
        .to_vec();
    let resume = SavedState { iteration: Iteration(0), stages };
    let (coordinator, commands) = Coordinator::open(settings.clone(), &[], Some(resume), 0);
    let mut bench = Bench { coordinator, ..Bench::open(&settings, &[]) };
    bench.carry_out(commands);
    let nodes: Vec<_> = (0..3).map(|_| bench.hello(None)).collect();
    for (node, stage) in [(nodes[0], 0), (nodes[1], 2)] {
        let state = Digest([stage as u8 + 1; 32]);
        let (_, of, method) = bench.last_assignment(node);
        assert_eq!((of, method), (StageId(stage), Method::Load { state }));
        bench.holds(node);
    }
    let (_, stage, method) = bench.last_assignment(nodes[2]);
    assert!(stage == StageId(1) && matches!(method, Method::Rebuild { .. }), "{stage} {method:?}");
}

#[test]
fn a_last_save_that_fails_is_tried_again() {
    let (mut bench, nodes) = Bench::started(&settings(1, 1));
    bench.input(CoordinatorInput::Stop);
    run_iteration(&mut bench, &nodes);
    all_step(&mut bench, &nodes);
    let iteration = Iteration(1);
    let why = "no space left".to_owned();
    bench.says(nodes[0], ToCoordinator::SaveFailed { stage: StageId(0), iteration, why });
    assert_eq!(bench.end, None);
    bench.sent.clear();
    bench.wait(2_000_000);
    let asked = bench.sent.iter().filter(|(_, message)| matches!(message, ToWorker::Save { .. })).count();
    assert_eq!(asked, 2);
    for stage in 0..2 {
        let digest = Digest([100 + stage as u8; 32]);
        bench.says(nodes[stage as usize], ToCoordinator::Saved { stage: StageId(stage), iteration, digest });
    }
    assert_eq!(bench.end, Some(End::Stopped));
}

#[test]
fn a_state_that_its_replicas_do_not_hold_is_not_published() {
    let mut settings = settings(1, 1);
    settings.save_every_iterations = 1;
    let (mut bench, nodes) = Bench::started(&settings);
    run_iteration(&mut bench, &nodes);
    all_step(&mut bench, &nodes);
    let iteration = Iteration(1);
    for (stage, digest) in [(0, 100), (1, 66)] {
        let saved = ToCoordinator::Saved { stage: StageId(stage), iteration, digest: Digest([digest; 32]) };
        bench.says(nodes[usize::from(stage)], saved);
    }
    assert!(
        !bench.events.iter().any(|event| matches!(event, Event::StateSaved { .. })),
        "{:?}",
        bench.events
    );
}

#[test]
fn before_the_start_a_doubled_stage_gives_a_node_to_an_empty_one() {
    let mut settings = settings(2, 1);
    settings.respawn = false;
    let mut bench = Bench::open(&settings, &[]);
    let nodes: Vec<_> = (0..4).map(|_| bench.hello(None)).collect();
    let relays: Vec<_> =
        nodes.iter().filter(|node| bench.last_assignment(**node).1 == StageId(1)).copied().collect();
    for node in &relays {
        lose(&mut bench, *node);
    }
    let stages: Vec<_> = nodes
        .iter()
        .filter(|node| !relays.contains(node))
        .map(|node| bench.last_assignment(*node).1)
        .collect();
    assert_eq!(stages, [StageId(0), StageId(1)]);
}

#[test]
fn a_follower_whose_report_is_just_behind_every_commit_gets_in() {
    let (mut bench, nodes) = Bench::started(&settings(2, 1));
    lose(&mut bench, nodes[3]);
    let heir = bench.hello(None);
    bench.holds(heir);
    for (node, origin) in [(nodes[0], true), (nodes[1], true), (nodes[2], false)] {
        for microbatch in 0..2 {
            bench.share(node, microbatch, origin);
        }
    }
    let followed = ToCoordinator::Reduced {
        iteration: Iteration(0),
        attempt: Attempt(0),
        reduce: bench.reduces[&heir],
        digest: Digest([8; 32]),
        norm: 2.0,
        spent: Spent::default(),
    };
    for (node, digest) in [(nodes[0], 7), (nodes[1], 7), (nodes[2], 8)] {
        bench.reduced(node, digest);
    }
    assert_eq!(bench.coordinator.iteration(), Iteration(1));
    assert_eq!(bench.current().0, Iteration(0), "the next attempt waits a little");
    bench.says(heir, followed);
    assert_eq!(bench.current().0, Iteration(1));
    assert!(!bench.duties(heir).is_empty(), "with the follower");
}

#[test]
fn a_copy_that_nobody_can_vouch_for_any_more_is_let_in() {
    let settings = settings(2, 1);
    let (mut bench, nodes) = Bench::started(&settings);
    lose(&mut bench, nodes[0]);
    lose(&mut bench, nodes[2]);
    run_iteration(&mut bench, &[nodes[1], nodes[3]]);
    // Nobody has told what it holds after the step, when all but a complete copy is lost.
    let heir = bench.hello(None);
    assert_eq!(bench.last_assignment(heir).1, StageId(0));
    bench.holds(heir);
    lose(&mut bench, nodes[1]);
    assert_eq!(bench.current(), (Iteration(1), Attempt(1)));
    assert!(!bench.duties(heir).is_empty());
}

/// Nodes told to save, since the last look.
fn savers(bench: &mut Bench) -> Vec<NodeId> {
    let saves = bench.sent.iter().filter(|(_, message)| matches!(message, ToWorker::Save { .. }));
    let savers = saves.map(|(node, _)| *node).collect();
    bench.sent.clear();
    savers
}

#[test]
fn a_last_save_that_fails_is_tried_again_until_the_disk_takes_it() {
    let settings = Settings { steps: 1, ..settings(1, 2) };
    let (mut bench, nodes) = Bench::started(&settings);
    run_iteration(&mut bench, &nodes);
    let mut pauses_us = Vec::new();
    for _ in 0..4 {
        assert_eq!(savers(&mut bench), nodes);
        let why = "No space left on device".to_owned();
        let failed = ToCoordinator::SaveFailed { stage: StageId(1), iteration: Iteration(1), why };
        let failed_us = bench.now_us;
        bench.says(nodes[1], failed);
        let saves =
            |bench: &Bench| bench.sent.iter().any(|(_, message)| matches!(message, ToWorker::Save { .. }));
        while !saves(&bench) {
            bench.now_us += 50_000;
            bench.input(CoordinatorInput::Tick);
            assert_eq!(bench.end, None, "what was trained must not be lost to a full disk");
        }
        pauses_us.push(bench.now_us - failed_us);
    }
    assert!(pauses_us.windows(2).all(|pair| pair[1] > pair[0]), "patience grows: {pauses_us:?}");
    all_step(&mut bench, &nodes);
    for (stage, node) in nodes.iter().enumerate() {
        let (stage, digest) = (StageId(stage as u16), Digest([100 + stage as u8; 32]));
        bench.says(*node, ToCoordinator::Saved { stage, iteration: Iteration(1), digest });
    }
    assert_eq!(bench.end, Some(End::Done));
}

/// A stage that was lost when the state was saved has nothing to be loaded: once, the run that went back to such a state
/// ended at once.
#[test]
fn a_state_saved_with_a_hole_is_gone_on_from_and_lineages_with_it() {
    let settings = settings(1, 2);
    let saved =
        |stage, lineage| SavedStage { stage: StageId(stage), state: Digest([stage as u8 + 1; 32]), lineage };
    let state = SavedState { iteration: Iteration(1), stages: vec![saved(0, 0), saved(1, 4)] };
    let journal = [Entry::Opened { run: RunId(7), term: Term(1) }];
    let mut bench = Bench::resume(&settings, &journal, Some(state.clone()));
    assert!(matches!(
        &bench.journal[2],
        Entry::RolledBack { iteration: Iteration(1), generation: 1, stages } if *stages == state.stages
    ));
    let nodes: Vec<_> = (0..3).map(|_| bench.hello(None)).collect();
    for (node, stage) in [(nodes[0], 0), (nodes[1], 1)] {
        let (_, given, method) = bench.last_assignment(node);
        assert!(given == StageId(stage) && matches!(method, Method::Load { .. }), "{method:?}");
        bench.holds(node);
    }
    let (_, stage, method) = bench.last_assignment(nodes[2]);
    assert!(stage == StageId(2) && matches!(method, Method::Rebuild { .. }), "{method:?}");
    let lost = |event: &&Event| matches!(event, Event::StageLost { stage: StageId(2), .. });
    assert_eq!(bench.events.iter().filter(lost).count(), 1);
    bench.holds(nodes[2]);
    lose(&mut bench, nodes[1]);
    let entries = bench.journal.iter().filter_map(|entry| match entry {
        Entry::Rebuilt(rebuild) => Some((rebuild.stage, rebuild.lineage, rebuild.source_lineages.clone())),
        _ => None,
    });
    assert_eq!(entries.collect::<Vec<_>>(), [(StageId(2), 1, vec![4])]);
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
        let busy_us = busy_us(*node) * duties.len() as u64;
        let message = ToCoordinator::Reduced {
            iteration,
            attempt,
            reduce: bench.reduces[node],
            digest: Digest([stage.0 as u8; 32]),
            norm: 1.0,
            spent: Spent { busy_us, ..Spent::default() },
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

#[test]
fn plans_are_asked_for_with_the_paces_of_the_last_iterations() {
    let settings = Settings { steps: 30, ..settings(2, 1) };
    let (mut bench, nodes) = Bench::started(&settings);
    let slow = nodes[3];
    assert_eq!(bench.problems.last().unwrap().paces, [], "nothing is known yet");
    for _ in 0..6 {
        paced_iteration(&mut bench, &nodes, &|node| if node == slow { 9000 } else { 1000 });
    }
    let paces = &bench.problems.last().unwrap().paces;
    let pace =
        |node| paces.iter().find(|pace| pace.node == node).map(|pace| (pace.microbatch_us, pace.probe));
    assert_eq!(pace(nodes[0]), Some((1000, false)));
    assert_eq!(pace(slow), Some((9000, false)));
    // It recovers: after four iterations that is all that counts.
    for _ in 0..4 {
        paced_iteration(&mut bench, &nodes, &|_| 1000);
    }
    let recovered = bench.problems.last().unwrap().paces.iter().all(|pace| pace.microbatch_us == 1000);
    assert!(recovered, "{:?}", bench.problems.last());

    // Without a share for four iterations it is to get one, so that a recovery shows.
    bench.idle = Some(slow);
    let probes: Vec<_> = (0..6)
        .map(|_| {
            paced_iteration(&mut bench, &nodes, &|_| 1000);
            bench.problems.last().unwrap().paces.iter().any(|pace| pace.node == slow && pace.probe)
        })
        .collect();
    assert_eq!(probes, [false, false, false, true, true, true]);
}

#[test]
fn a_deterministic_run_plans_without_speeds() {
    let settings = Settings { steps: 30, deterministic: true, ..settings(2, 1) };
    let (mut bench, nodes) = Bench::started(&settings);
    for _ in 0..6 {
        paced_iteration(&mut bench, &nodes, &|node| u64::from(node.0) * 1000);
    }
    assert!(bench.problems.len() > 6 && bench.problems.iter().all(|problem| problem.paces.is_empty()));
}

/// Four nodes, the origins' first; one iteration took 1 ms a microbatch.
fn known_paces() -> (Bench, Vec<NodeId>) {
    let settings = Settings { steps: 30, ..settings(2, 1) };
    let (mut bench, nodes) = Bench::started(&settings);
    paced_iteration(&mut bench, &nodes, &|_| 1000);
    (bench, nodes)
}

fn answer(bench: &mut Bench, node: NodeId, task: Option<u64>, duty: bool) {
    bench.says(node, ToCoordinator::Computing { task, duty });
}

#[test]
fn a_node_whose_task_never_ends_is_set_aside_and_its_share_replayed() {
    let (mut bench, nodes) = known_paces();
    let asked = pass_ms(&mut bench, 1000);
    assert_eq!(asked.len(), 4, "everyone is quiet: {asked:?}");
    assert!(asked.iter().all(|(_, message)| *message == ToWorker::Poll));
    answer(&mut bench, nodes[2], Some(7), true);
    for second in 1..=10 {
        assert_eq!(bench.events.iter().filter(|event| matches!(event, Event::NodeLost { .. })).count(), 0);
        let asked = pass_ms(&mut bench, 1000);
        assert!(asked.contains(&(nodes[2], ToWorker::Poll)), "second {second}: {asked:?}");
        answer(&mut bench, nodes[2], Some(7), true);
    }
    let stuck = bench.events.iter().find(|event| matches!(event, Event::Stuck { .. })).cloned();
    let numbers = Event::Stuck { node: nodes[2], waited_ms: 10_000.0, late_ms: 8.0, limit_ms: 10_000.0 };
    assert_eq!(stuck, Some(numbers));
    assert!(bench.events.iter().any(
        |event| matches!(event, Event::NodeLost { node, why, .. } if *node == nodes[2] && why == "stuck")
    ));
    assert!(
        bench
            .events
            .iter()
            .any(|event| matches!(event, Event::Repaired { lost, microbatches: 1, .. } if *lost == nodes[2]))
    );
}

#[test]
fn a_node_that_works_on_is_never_set_aside() {
    let (mut bench, nodes) = known_paces();
    for second in 0..100 {
        pass_ms(&mut bench, 1000);
        // One finishes a task a second, one is idle now and then, one saves, and one says nothing (its heartbeats are
        // another's business).
        answer(&mut bench, nodes[0], Some(second), true);
        answer(&mut bench, nodes[1], (second % 9 > 0).then_some(7), true);
        if second < 39 {
            answer(&mut bench, nodes[2], Some(3), false);
        }
    }
    assert!(!bench.events.iter().any(|event| matches!(event, Event::Stuck { .. })), "{:?}", bench.events);
}

#[test]
fn the_last_of_a_stage_is_given_more_time_and_the_last_origin_all_of_it() {
    let settings = Settings { steps: 30, ..settings(1, 1) };
    let (mut bench, nodes) = Bench::started(&settings);
    paced_iteration(&mut bench, &nodes, &|_| 1000);
    let mut lost_after = [None, None];
    for second in 0..100 {
        pass_ms(&mut bench, 1000);
        for (index, node) in nodes.iter().enumerate() {
            answer(&mut bench, *node, Some(7), true);
            let lost = bench
                .events
                .iter()
                .any(|event| matches!(event, Event::NodeLost { node: lost, .. } if lost == node));
            lost_after[index] = lost_after[index].or(lost.then_some(second));
        }
    }
    assert_eq!(lost_after, [None, Some(40)]);
}

#[test]
fn while_the_coordinator_stood_still_nobody_was_quiet() {
    let (mut bench, nodes) = known_paces();
    for node in &nodes {
        answer(&mut bench, *node, Some(7), true);
    }
    let sent = bench.sent.len();
    bench.now_us += 60_000_000;
    bench.input(CoordinatorInput::Tick);
    assert_eq!(bench.sent.len(), sent, "a minute of standing still is a fifth of a second");
}

fn is_told(bench: &Bench, node: NodeId, message: &ToWorker) -> bool {
    bench.sent.iter().any(|(to, told)| *to == node && told == message)
}

fn has_left(bench: &Bench, node: NodeId) -> bool {
    let lost = bench.events.iter().any(
        |event| matches!(event, Event::NodeLost { node: lost, why, .. } if *lost == node && why == "left"),
    );
    assert_eq!(lost, is_told(bench, node, &ToWorker::Leave));
    lost
}

#[test]
fn a_node_with_a_replica_leaves_at_the_next_boundary_with_its_share_done() {
    let settings = Settings { steps: 30, ..settings(2, 1) };
    let (mut bench, nodes) = Bench::started(&settings);
    let (leaver, stays) = (nodes[2], nodes[3]);
    bench.says(leaver, ToCoordinator::Leaving);
    bench.says(leaver, ToCoordinator::Leaving);
    let leaving = Event::Leaving { node: leaver, stage: Some(StageId(1)) };
    assert_eq!(bench.events.iter().filter(|event| **event == leaving).count(), 1);
    assert!(!has_left(&bench, leaver), "it owns a microbatch of this iteration");
    paced_iteration(&mut bench, &nodes, &|_| 1000);
    assert_eq!(bench.commits()[0].stages[1].shares.len(), 2, "its share counts");
    assert!(has_left(&bench, leaver));
    assert!(!bench.events.iter().any(|event| matches!(event, Event::Repaired { .. })));
    assert_eq!(begun(&bench, stays).len(), 2, "the other one takes both microbatches");
    assert_eq!(bench.problems.last().unwrap().nodes[1], [stays]);
}

/// A follower of stage 1 has the reduced gradient of an iteration.
fn follows(bench: &mut Bench, node: NodeId, iteration: Iteration) {
    let (reduce, digest, spent) = (bench.reduces[&node], Digest([1; 32]), Spent::default());
    let message = ToCoordinator::Reduced { iteration, attempt: Attempt(0), reduce, digest, norm: 1.0, spent };
    bench.says(node, message);
}

#[test]
fn a_spare_takes_the_place_before_the_node_goes() {
    let settings = Settings { steps: 30, spares: 1, ..settings(2, 1) };
    let mut bench = Bench::open(&settings, &[]);
    let mut nodes: Vec<_> = (0..4).map(|_| bench.hello(None)).collect();
    let spare = bench.hello(None);
    for node in &nodes {
        bench.holds(*node);
    }
    nodes.sort_by_key(|node| bench.last_assignment(*node).1);
    let leaver = nodes[2];
    bench.says(leaver, ToCoordinator::Leaving);
    let (transfer, stage, method) = bench.last_assignment(spare);
    assert_eq!((stage, method), (StageId(1), Method::Copy { donors: nodes[2..].to_vec() }));
    assert!(is_told(&bench, leaver, &ToWorker::Donate { transfer, iteration: Iteration(0), to: spare }));
    paced_iteration(&mut bench, &nodes, &|_| 1000);
    assert!(!has_left(&bench, leaver), "it still donates");
    assert_eq!(begun(&bench, leaver), [], "but it works no more");
    bench.says(
        spare,
        ToCoordinator::Holds {
            transfer: Some(transfer),
            stage,
            iteration: Iteration(0),
            digest: Digest([2; 32]),
        },
    );
    // The spare follows the gradients of the iterations that it missed, and enters.
    follows(&mut bench, spare, Iteration(0));
    for node in &nodes[..2] {
        for duty in begun(&bench, *node) {
            bench.share(*node, duty.microbatch.0, true);
        }
    }
    for duty in begun(&bench, nodes[3]) {
        bench.share(nodes[3], duty.microbatch.0, false);
    }
    follows(&mut bench, spare, Iteration(1));
    for (node, digest) in [(nodes[0], 0), (nodes[1], 0), (nodes[2], 1), (nodes[3], 1)] {
        bench.reduced(node, digest);
    }
    assert!(bench.events.iter().any(
        |event| matches!(event, Event::NodeEntered { node, iteration: Iteration(2), .. } if *node == spare)
    ));
    assert!(has_left(&bench, leaver));
    assert!(
        !bench.events.iter().any(|event| matches!(event, Event::StageLost { .. } | Event::Repaired { .. }))
    );
}

#[test]
fn the_last_of_a_stage_works_on_until_someone_comes() {
    let settings = Settings { steps: 30, ..settings(1, 1) };
    let (mut bench, nodes) = Bench::started(&settings);
    bench.says(nodes[1], ToCoordinator::Leaving);
    for _ in 0..3 {
        paced_iteration(&mut bench, &nodes, &|_| 1000);
    }
    assert!(!has_left(&bench, nodes[1]));
    let comes = bench.hello(None);
    let (_, stage, method) = bench.last_assignment(comes);
    assert_eq!((stage, method), (StageId(1), Method::Copy { donors: vec![nodes[1]] }));
    assert!(!has_left(&bench, nodes[1]), "it is a donor now");
}

#[test]
fn a_spare_and_a_joiner_may_go_at_once() {
    let settings = Settings { steps: 30, spares: 1, ..settings(1, 1) };
    let mut bench = Bench::open(&settings, &[]);
    let nodes: Vec<_> = (0..3).map(|_| bench.hello(None)).collect();
    for node in &nodes[..2] {
        bench.holds(*node);
    }
    bench.says(nodes[2], ToCoordinator::Leaving);
    assert!(has_left(&bench, nodes[2]));
    bench.input(CoordinatorInput::Lost { node: nodes[1], why: "connection".to_owned() });
    let rebuilds = bench.hello(None);
    assert!(matches!(bench.last_assignment(rebuilds).2, Method::Rebuild { .. }));
    bench.says(rebuilds, ToCoordinator::Leaving);
    assert!(has_left(&bench, rebuilds));
}

/// Iterations that teach what is usual: the guard knows 8 shares of each stage then.
fn run_until_known(bench: &mut Bench, nodes: &[NodeId], origins: usize) {
    for _ in 0..8 {
        for (index, node) in nodes.iter().enumerate() {
            bench.share(*node, (index % 2) as u32, index < origins);
        }
        nodes.iter().for_each(|node| bench.reduced(*node, 40));
        all_step(bench, nodes);
    }
}

fn refusals(bench: &Bench) -> Vec<(NodeId, Refusal, Remedy)> {
    bench
        .events
        .iter()
        .filter_map(|event| match event {
            Event::ShareRefused { node, why, then, .. } => Some((*node, *why, *then)),
            _ => None,
        })
        .collect()
}

/// Replicas of two stages, an iteration's microbatches one each; the shares known.
fn guarded() -> (Bench, Vec<NodeId>) {
    let (mut bench, nodes) = Bench::started(&Settings { steps: 100, ..settings(2, 1) });
    run_until_known(&mut bench, &nodes, 2);
    assert_eq!(bench.commits().len(), 8);
    (bench, nodes)
}

/// The node reports this norm where it would have reported a usual one.
fn bad_share(bench: &mut Bench, node: NodeId, microbatch: u32, norm: f64) {
    let (iteration, attempt) = bench.current();
    let microbatch = Microbatch(microbatch);
    bench.says(node, ToCoordinator::ShareDone { iteration, attempt, microbatch, loss: None });
    bench.measured(node, 1, norm);
}

#[test]
fn a_poisoned_share_is_made_again_by_a_replica_and_counts_for_nothing() {
    for (norm, why) in [(f64::NAN, Refusal::NotFinite), (1e4, Refusal::Outlying), (1e-4, Refusal::Outlying)] {
        let (mut bench, nodes) = guarded();
        let (liar, heir) = (nodes[3], nodes[2]);
        bench.share(nodes[0], 0, true);
        bench.share(nodes[1], 1, true);
        bench.share(heir, 0, false);
        bench.reduces.remove(&heir);
        bench.sent.clear();
        bad_share(&mut bench, liar, 1, norm);
        assert_eq!(refusals(&bench), [(liar, why, Remedy::Replica)]);
        assert!(!bench.reduces.contains_key(&heir), "not sealed");
        let duty = bench.duties(heir)[0];
        assert_eq!((duty.microbatch, duty.counted, duty.replay), (Microbatch(1), true, true));
        // What the liar says of it later counts no more.
        bench.measured(liar, 1, 1.0);
        assert!(!bench.reduces.contains_key(&heir));
        bench.share(heir, 1, false);
        nodes.iter().for_each(|node| bench.reduced(*node, 40));
        let record = bench.commits().pop().unwrap().clone();
        let shares = &record.stages[1].shares;
        assert_eq!((shares.len(), shares[0].node, shares[0].microbatches.len()), (1, heir, 2));
        let struck = bench.events.iter().any(
            |event| matches!(event, Event::Struck { node, strikes: 1, strikes_max: 3, .. } if *node == liar),
        );
        assert!(struck, "{:?}", bench.events.last());
    }
}

#[test]
fn three_strikes_set_a_node_aside() {
    let (mut bench, nodes) = guarded();
    let (liar, heir) = (nodes[3], nodes[2]);
    for strike in 1..=3 {
        bench.share(nodes[0], 0, true);
        bench.share(nodes[1], 1, true);
        bench.share(heir, 0, false);
        bad_share(&mut bench, liar, 1, f64::INFINITY);
        bench.share(heir, 1, false);
        nodes.iter().for_each(|node| bench.reduced(*node, 40));
        let aside = bench.events.iter().any(
            |event| matches!(event, Event::NodeLost { node, why, .. } if *node == liar && why == "numbers"),
        );
        assert_eq!(aside, strike == 3, "after {strike}");
        all_step(&mut bench, &nodes);
    }
    assert_eq!(bench.commits().len(), 11);
}

#[test]
fn a_share_that_counted_before_is_refused() {
    let (mut bench, nodes) = guarded();
    let old = bench.commits()[5].stages[1].shares[0].norm;
    bad_share(&mut bench, nodes[3], 1, old);
    assert_eq!(refusals(&bench), [(nodes[3], Refusal::Repeated, Remedy::Replica)]);
}

#[test]
fn without_a_replica_the_iteration_runs_again_and_what_comes_out_twice_counts() {
    let (mut bench, nodes) = Bench::started(&Settings { steps: 100, ..settings(1, 1) });
    for _ in 0..8 {
        run_iteration(&mut bench, &nodes);
        all_step(&mut bench, &nodes);
    }
    for attempt in 0..2 {
        assert_eq!(bench.current(), (Iteration(8), Attempt(attempt)));
        for microbatch in 0..2 {
            bench.share(nodes[0], microbatch, true);
        }
        bad_share(&mut bench, nodes[1], 0, 1.0);
        let (iteration, number) = bench.current();
        let microbatch = Microbatch(1);
        let done = ToCoordinator::ShareDone { iteration, attempt: number, microbatch, loss: None };
        bench.says(nodes[1], done);
        bench.measured(nodes[1], 2, 1e6);
    }
    let outlying = |then| (nodes[1], Refusal::Outlying, then);
    assert_eq!(refusals(&bench), [outlying(Remedy::Retry), outlying(Remedy::Counts)]);
    nodes.iter().for_each(|node| bench.reduced(*node, 40));
    assert_eq!(bench.commits().len(), 9);
    assert!(!bench.events.iter().any(|event| matches!(event, Event::Struck { .. })));
}

#[test]
fn a_restarted_coordinator_knows_what_is_usual() {
    let (bench, nodes) = guarded();
    let settings = Settings { steps: 100, ..settings(2, 1) };
    let record = bench.commits().pop().unwrap().clone();
    let mut second = Bench::open(&settings, &bench.journal);
    let mut returned = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let mut holding = holding(*node, (index / 2) as u16, 8, 100 + (index / 2) as u8);
        holding.record = Some(Box::new(record.clone()));
        returned.push(second.hello(Some(Box::new(holding))));
    }
    assert_eq!(second.current().0, Iteration(8));
    bad_share(&mut second, returned[3], 1, 1e4);
    assert_eq!(refusals(&second), [(returned[3], Refusal::Outlying, Remedy::Replica)]);
}

/// Stage 1 has three replicas, and a fourth node copies from the three.
fn one_copies() -> (Bench, Vec<NodeId>, NodeId) {
    let settings = Settings { steps: 30, microbatches: 6, ..settings(3, 1) };
    let (mut bench, nodes) = Bench::started(&settings);
    lose(&mut bench, nodes[5]);
    let joiner = bench.hello(None);
    assert_eq!(bench.last_assignment(joiner).2, Method::Copy { donors: vec![nodes[3], nodes[4]] });
    (bench, nodes, joiner)
}

#[test]
fn a_copy_goes_on_when_one_of_its_donors_is_lost() {
    let (mut bench, nodes, joiner) = one_copies();
    let transfer = bench.last_assignment(joiner).0;
    lose(&mut bench, nodes[3]);
    assert_eq!(bench.last_assignment(joiner).0, transfer, "the same transfer");
    let released = |node| is_told(&bench, node, &ToWorker::Release { transfer });
    assert!(!released(nodes[4]));
    let said = ToCoordinator::Obtained { transfer, chunks: 3, chunks_total: 4, bytes_total: 400, donors: 1 };
    bench.says(joiner, said);
    let told = Event::StateArriving {
        node: joiner,
        stage: StageId(1),
        chunks: 3,
        chunks_total: 4,
        bytes: 300,
        bytes_total: 400,
        donors: 1,
    };
    assert_eq!(bench.events.last(), Some(&told));
    // Without the last donor the stage is lost, and the copy with it.
    lose(&mut bench, nodes[4]);
    assert!(matches!(bench.last_assignment(joiner).2, Method::Rebuild { .. }));
}
