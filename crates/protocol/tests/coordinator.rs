//! The coordinator's decisions, seen through its commands.

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
}

impl Bench {
    fn open(settings: &Settings, journal: &[Entry]) -> Self {
        let (coordinator, commands) = Coordinator::open(settings.clone(), journal, None, 0);
        let mut bench = Self {
            coordinator,
            journal: journal.to_vec(),
            sent: vec![],
            events: vec![],
            end: None,
            now_us: 0,
            connections: 0,
            reduces: std::collections::BTreeMap::new(),
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
                    self.sent.push((to, message));
                }
                CoordinatorCommand::Journal { entry } => self.journal.push(entry),
                CoordinatorCommand::Log { event } => self.events.push(event),
                CoordinatorCommand::End { end } => self.end = Some(end),
                CoordinatorCommand::Plan { problem } => {
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
                | CoordinatorCommand::Publish { .. } => {}
            }
        }
    }

    fn input(&mut self, input: CoordinatorInput) {
        self.now_us += 1000;
        let commands = self.coordinator.on(input, self.now_us);
        self.carry_out(commands);
    }

    fn hello(&mut self, holding: Option<Box<Holding>>) -> NodeId {
        self.connections += 1;
        let hello = ToCoordinator::Hello { holding, address: format!("n:{}", self.connections), process: 0 };
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
    bench.input(CoordinatorInput::Lost { node: nodes[0], why: "connection".to_owned() });
    assert!(!bench.sent.iter().any(|(_, message)| matches!(message, ToWorker::Save { .. })), "it may return");
    bench.now_us += 10_000_000;
    bench.input(CoordinatorInput::Tick);
    for (node, stage) in [(nodes[1], 1), (nodes[2], 2)] {
        let saved = ToCoordinator::Saved {
            stage: StageId(stage),
            iteration: bench.coordinator.iteration(),
            digest: Digest::default(),
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
    let nodes = returned;
    assert_eq!(second.current(), (Iteration(1), Attempt(1)), "a new attempt, so that old frames don't mix");
    run_iteration(&mut second, &nodes);
    assert_eq!(second.commits()[1].previous, record.digest());
}

/// What a node of the first term says that it holds.
fn holding(node: NodeId, stage: u16, iteration: u64, state: u8) -> Holding {
    Holding {
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
    second.now_us += 10_000_000;
    second.input(CoordinatorInput::Tick);
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
    wide.now_us += 10_000_000;
    wide.input(CoordinatorInput::Tick);
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
