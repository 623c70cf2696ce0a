//! A coordinator takes over from a journal, with the nodes that still hold the run.

use super::*;

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

#[test]
fn who_has_not_heard_that_the_run_went_back_does_not_speak_for_a_stage() {
    let settings = settings(1, 2);
    let (mut bench, nodes) = Bench::started(&settings);
    run_iteration(&mut bench, &nodes);
    let undone = bench.commits()[0].clone();
    let saved =
        |stage| SavedStage { stage: StageId(stage), state: Digest([stage as u8 + 1; 32]), lineage: 0 };
    let state = SavedState { iteration: Iteration(0), stages: (0..3).map(saved).collect() };
    let mut second = Bench::resume(&settings, &bench.journal, Some(state));
    let again: Vec<_> = nodes.iter().map(|_| second.hello(None)).collect();
    again.iter().for_each(|node| second.holds(*node));
    run_iteration(&mut second, &again);
    let record = (*second.commits().last().unwrap()).clone();
    assert!(record.generation > undone.generation);
    let mut third = Bench::open(&settings, &second.journal);
    let came = |node, stage, state, record: &CommitRecord| {
        Some(Box::new(Holding { record: Some(Box::new(record.clone())), ..holding(node, stage, 1, state) }))
    };
    let stale = third.hello(came(nodes[1], 1, 66, &undone));
    for (stage, node) in (0..).zip(&again) {
        third.hello(came(*node, stage, 9, &record));
    }
    assert!(starts_empty(&third, stale));
    let lost =
        third.events.iter().any(|event| matches!(event, Event::NodeLost { .. } | Event::StageLost { .. }));
    assert!(!lost, "{:#?}", third.events);
}

/// The first iteration is decided, and no node has heard of it.
fn returns_behind(node: NodeId, stage: u16, names: &[NodeId]) -> Box<Holding> {
    let mut holding = holding(node, stage, 0, 7);
    holding.reduced = Some(Digest([40; 32]));
    holding.names = names.to_vec();
    Box::new(holding)
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
    let renamed: Vec<_> = (0..)
        .zip(&nodes)
        .map(|(stage, node)| second.hello(Some(returns_behind(*node, stage, &[*node]))))
        .collect();
    let mut third = Bench::open(&settings, &second.journal);
    let mut back = Vec::new();
    for (stage, (was, is)) in (0..).zip(nodes.iter().zip(&renamed)) {
        back.push(third.hello(Some(returns_behind(*is, stage, &[*was, *is]))));
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
        third.hello(Some(returns_behind(*is, stage, &[*is])));
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
    second.hello(Some(returns_behind(nodes[0], 0, &nodes[..1])));
    second.hello(Some(returns_behind(nodes[1], 1, &nodes[1..2])));
    second.wait(4_000_000);
    let late = second.hello(Some(returns_behind(nodes[2], 2, &nodes[2..])));
    assert!(!starts_empty(&second, late));
    let (_, stage, method) = second.last_assignment(late);
    assert_eq!((stage, method), (StageId(2), Method::Keep));
}

#[test]
fn attempts_begin_after_those_that_a_node_heard_of_before_its_step() {
    let settings = settings(1, 1);
    let (mut bench, nodes) = Bench::started(&settings);
    run_iteration(&mut bench, &nodes);
    let gradient = bench.commits()[0].stages[1].gradient;
    let mut second = Bench::open(&settings, &bench.journal);
    for (stage, node) in nodes.iter().enumerate() {
        // Its step goes on, and meanwhile an earlier coordinator has begun the next iteration four times.
        let mut holding = holding(*node, stage as u16, 0, 1 + stage as u8);
        holding.newest = (Iteration(1), Attempt(3));
        holding.reduced = Some(gradient);
        second.hello(Some(Box::new(holding)));
    }
    assert_eq!(second.current(), (Iteration(1), Attempt(4)));
}
