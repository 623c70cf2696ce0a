//! Copies of stages with nodes of other stages.

use super::*;
use skipstone_protocol::{KeptCopy, StageCopy};
use skipstone_recovery::Recipe;
use skipstone_recovery::StateFormat::{Bf16, F32};

fn with_copies(relay_stages: u16) -> Settings {
    Settings { recovery: "neighbour-snapshot:every=1".to_owned(), ..settings(1, relay_stages) }
}

/// Who was last told to keep a copy of the stage: the transfer, the keeper and the donor.
fn asked(bench: &Bench, of: u16) -> Option<(TransferId, Iteration, NodeId, NodeId)> {
    bench.sent.iter().rev().find_map(|(to, message)| match message {
        ToWorker::KeepCopy { transfer, stage, iteration, donor, .. } if stage.0 == of => {
            Some((*transfer, *iteration, *to, *donor))
        }
        _ => None,
    })
}

fn keeps(bench: &mut Bench, of: u16, digest: u8) -> NodeId {
    let (transfer, iteration, keeper, _) = asked(bench, of).expect("a copy is asked for");
    let (stage, digest) = (StageId(of), Digest([digest; 32]));
    bench.says(keeper, ToCoordinator::CopyKept { transfer, stage, iteration, digest });
    keeper
}

/// After one iteration; the copy of `of` before the second is kept, if it has these bits.
fn copied(relay_stages: u16, of: u16, digest: u8) -> (Bench, Vec<NodeId>) {
    let (mut bench, nodes) = Bench::started(&with_copies(relay_stages));
    assert_eq!(asked(&bench, of), None, "the first state follows from the seed");
    run_iteration(&mut bench, &nodes);
    all_step(&mut bench, &nodes);
    keeps(&mut bench, of, digest);
    (bench, nodes)
}

fn was_told(bench: &Bench, node: NodeId, what: &ToWorker) -> bool {
    bench.sent.iter().any(|(to, message)| *to == node && message == what)
}

#[test]
fn the_last_origin_comes_back_from_its_copy_and_nothing_else_will_do() {
    let (mut bench, nodes) = copied(2, 0, 100);
    let copy = StageCopy { stage: StageId(0), iteration: Iteration(1), lineage: 0, state: Digest([100; 32]) };
    assert_eq!(bench.journal.last(), Some(&Entry::CopyKept(copy)));
    run_iteration(&mut bench, &nodes);
    all_step(&mut bench, &nodes);
    assert_eq!(bench.coordinator.iteration(), Iteration(2));
    lose(&mut bench, nodes[0]);
    let heir = bench.hello(None);
    let (transfer, stage, method) = bench.last_assignment(heir);
    let recipe = Recipe::restore(StageId(0), F32);
    assert_eq!(
        (stage, method),
        (StageId(0), Method::Rebuild { recipe, donors: vec![nodes[1]], teachers: vec![] })
    );
    let donate = ToWorker::Donate { transfer, stage, iteration: Iteration(1), to: heir, format: F32 };
    assert!(was_told(&bench, nodes[1], &donate));
    bench.wait(20_000_000);
    assert_eq!(bench.end, None, "it is on its way");
    let holds = |digest: u8| ToCoordinator::Holds {
        transfer: Some(transfer),
        stage,
        iteration: Iteration(2),
        digest: Digest([digest; 32]),
    };
    bench.says(heir, holds(100));
    let Some(Entry::Rebuilt(rebuild)) = bench.journal.last() else { panic!("{:?}", bench.journal.last()) };
    assert_eq!(
        (rebuild.from, rebuild.lineage, rebuild.source_lineages[..].to_vec()),
        (Iteration(1), 1, vec![0])
    );
    assert_eq!(bench.current(), (Iteration(2), Attempt(1)));
}

#[test]
fn what_comes_of_a_copy_must_have_its_bits() {
    let (mut bench, nodes) = copied(3, 2, 102);
    lose(&mut bench, nodes[2]);
    let heir = bench.hello(None);
    let (transfer, stage, method) = bench.last_assignment(heir);
    assert_eq!(
        method,
        Method::Rebuild { recipe: Recipe::restore(stage, F32), donors: vec![nodes[3]], teachers: vec![] }
    );
    let (iteration, digest) = (Iteration(1), Digest([9; 32]));
    bench.says(heir, ToCoordinator::Holds { transfer: Some(transfer), stage, iteration, digest });
    let (_, _, method) = bench.last_assignment(heir);
    let Method::Rebuild { recipe, donors, .. } = method else { panic!("{method:?}") };
    assert_eq!((recipe.sources.len(), donors), (2, vec![nodes[1], nodes[3]]), "made from its neighbours");
    assert!(was_told(&bench, nodes[3], &ToWorker::DropCopy { stage }));
}

#[test]
fn a_copy_with_other_bits_than_its_stage_counts_for_nothing() {
    let (mut bench, nodes) = copied(2, 1, 77);
    assert!(!bench.journal.iter().any(|entry| matches!(entry, Entry::CopyKept(_))));
    let keeper = nodes[2];
    assert!(was_told(&bench, keeper, &ToWorker::DropCopy { stage: StageId(1) }));
    lose(&mut bench, nodes[1]);
    let heir = bench.hello(None);
    let (_, _, method) = bench.last_assignment(heir);
    let Method::Rebuild { recipe, .. } = method else { panic!("{method:?}") };
    assert!(!recipe.restores(StageId(1)));
}

#[test]
fn a_copy_that_is_on_its_way_for_many_iterations_counts() {
    let recovery = "neighbour-snapshot:every=60".to_owned();
    let (mut bench, nodes) = Bench::started(&Settings { recovery, steps: 40, ..with_copies(2) });
    run_iteration(&mut bench, &nodes);
    all_step(&mut bench, &nodes);
    let first = asked(&bench, 1).expect("nobody has one");
    for _ in 0..30 {
        run_iteration(&mut bench, &nodes);
        all_step(&mut bench, &nodes);
    }
    assert_eq!(asked(&bench, 1), Some(first), "it has time");
    keeps(&mut bench, 1, 101);
    let copy = StageCopy { stage: StageId(1), iteration: Iteration(1), lineage: 0, state: Digest([101; 32]) };
    assert_eq!(bench.journal.last(), Some(&Entry::CopyKept(copy)));
}

#[test]
fn of_a_rounded_copy_the_donor_says_what_comes_of_it_and_its_replicas_of_what_it_is_one() {
    // The digest of the donor's state, what it says of the rounded one, and the keeper's word.
    for (of, says, kept, counts) in [(101, 55, 55, true), (101, 55, 54, false), (77, 55, 55, false)] {
        for kept_first in [true, false] {
            let recovery = "neighbour-snapshot:every=1,dtype=bf16".to_owned();
            let (mut bench, nodes) = Bench::started(&Settings { recovery, ..with_copies(2) });
            run_iteration(&mut bench, &nodes);
            all_step(&mut bench, &nodes);
            let (transfer, iteration, keeper, donor) = asked(&bench, 1).expect("a copy is asked for");
            let stage = StageId(1);
            let donate = ToWorker::Donate { transfer, stage, iteration, to: keeper, format: Bf16 };
            assert!(was_told(&bench, donor, &donate));
            let frozen =
                ToCoordinator::CopyFrozen { transfer, digest: Digest([of; 32]), rounded: Digest([says; 32]) };
            let digest = Digest([kept; 32]);
            let arrived = ToCoordinator::CopyKept { transfer, stage, iteration, digest };
            let is_kept =
                |bench: &Bench| bench.journal.iter().any(|entry| matches!(entry, Entry::CopyKept(_)));
            if kept_first {
                bench.says(keeper, arrived);
                assert!(!is_kept(&bench), "nobody has said what it must be");
                bench.says(donor, frozen);
            } else {
                bench.says(donor, frozen);
                bench.says(keeper, arrived);
            }
            assert_eq!(is_kept(&bench), counts, "{of} {says} {kept}");
            assert_eq!(was_told(&bench, keeper, &ToWorker::DropCopy { stage }), !counts);
            if !counts {
                continue;
            }
            lose(&mut bench, nodes[1]);
            let heir = bench.hello(None);
            let (transfer, _, method) = bench.last_assignment(heir);
            let recipe = Recipe::restore(stage, Bf16);
            assert_eq!(method, Method::Rebuild { recipe, donors: vec![keeper], teachers: vec![] });
            let donate = ToWorker::Donate { transfer, stage, iteration, to: heir, format: Bf16 };
            assert!(was_told(&bench, keeper, &donate));
        }
    }
}

#[test]
fn a_rounded_copy_that_had_arrived_when_its_donor_was_lost_counts_in_the_place_of_the_older_one() {
    let recovery = "neighbour-snapshot:every=1,dtype=bf16".to_owned();
    let (mut bench, nodes) = Bench::started(&Settings { recovery, steps: 20, ..with_copies(2) });
    let stage = StageId(1);
    let mut keepers = Vec::new();
    for _ in 0..3 {
        run_iteration(&mut bench, &nodes);
        all_step(&mut bench, &nodes);
        for (keeper, transfer, of, iteration) in bench.take_asked_copies() {
            let (donor, digest) = (nodes[usize::from(of.0)], Digest([100 + of.0 as u8; 32]));
            let rounded = Digest([55; 32]);
            bench.says(donor, ToCoordinator::CopyFrozen { transfer, digest, rounded });
            if of == stage && keepers.len() == 2 {
                lose(&mut bench, donor);
                assert!(was_told(&bench, keeper, &ToWorker::Release { transfer }), "it has an older one");
            }
            bench.says(keeper, ToCoordinator::CopyKept { transfer, stage: of, iteration, digest: rounded });
            let last = bench.journal.last();
            let Some(Entry::CopyKept(copy)) = last else { panic!("{last:?}") };
            assert_eq!((copy.stage, copy.iteration, copy.state), (of, iteration, rounded));
            keepers.extend((of == stage).then_some(keeper));
        }
    }
    assert_eq!((keepers[0], keepers.len()), (keepers[2], 3));
    assert_ne!(keepers[0], keepers[1]);
    let heir = bench.hello(None);
    let (_, _, method) = bench.last_assignment(heir);
    let recipe = Recipe::restore(stage, Bf16);
    assert_eq!(method, Method::Rebuild { recipe, donors: vec![keepers[2]], teachers: vec![] });
}

#[test]
fn the_next_coordinator_knows_a_copy_when_its_keeper_comes() {
    for has_it in [true, false] {
        let (mut bench, nodes) = copied(2, 0, 100);
        run_iteration(&mut bench, &nodes);
        let mut second = Bench::open(&with_copies(2), &bench.journal);
        for (index, node) in nodes.iter().enumerate().skip(1) {
            let mut holding = holding(*node, index as u16, 2, 7);
            let (stage, iteration) = (StageId(0), Iteration(1));
            let digest = Digest([if has_it { 100 } else { 99 }; 32]);
            holding.copies = vec![KeptCopy { stage, iteration, digest }];
            second.hello(Some(Box::new(holding)));
        }
        second.wait(13_000_000);
        let heir = second.hello(None);
        let assigned = second.sent.iter().any(|(to, message)| {
            *to == heir && matches!(message, ToWorker::Assign { stage: StageId(0), .. })
        });
        assert_eq!(assigned, has_it);
    }
}

/// Every copy that is asked for and not yet here arrives, with the right bits: the keepers, and what each keeps now. Nodes of a stage
/// hold the digest 100 + stage.
fn all_arrive(bench: &mut Bench) -> Vec<(NodeId, StageId)> {
    let asked = bench.take_asked_copies();
    for (keeper, transfer, stage, iteration) in asked.iter().copied() {
        let digest = Digest([100 + stage.0 as u8; 32]);
        bench.says(keeper, ToCoordinator::CopyKept { transfer, stage, iteration, digest });
    }
    asked.into_iter().map(|(keeper, _, stage, _)| (keeper, stage)).collect()
}

/// Who keeps which stage, as told by what was sent.
fn keepers(bench: &Bench) -> Vec<(NodeId, u16)> {
    let mut keepers: Vec<(NodeId, u16)> = Vec::new();
    for (to, message) in &bench.sent {
        match message {
            ToWorker::KeepCopy { stage, .. } if !keepers.contains(&(*to, stage.0)) => {
                keepers.push((*to, stage.0));
            }
            ToWorker::DropCopy { stage } => keepers.retain(|kept| *kept != (*to, stage.0)),
            _ => {}
        }
    }
    keepers.sort_unstable();
    keepers
}

#[test]
fn the_first_copies_go_to_one_node_each() {
    for relays in 1..=6 {
        let (mut bench, nodes) = Bench::started(&with_copies(relays));
        run_iteration(&mut bench, &nodes);
        all_step(&mut bench, &nodes);
        let kept = keepers(&bench);
        let each: Vec<_> = kept.iter().map(|(node, _)| *node).collect();
        assert_eq!(each, nodes, "{kept:?}");
        assert!(kept.iter().all(|(node, stage)| nodes[usize::from(*stage)] != *node), "{kept:?}");
    }
}

#[test]
fn a_copy_is_kept_where_it_is_not_lost_together_with_its_stage() {
    // Neighbours are in the same region, but for stages 2 and 3.
    let (mut bench, nodes) = Bench::started_in(&with_copies(5), &[0, 0, 0, 1, 1, 1]);
    run_iteration(&mut bench, &nodes);
    all_step(&mut bench, &nodes);
    let kept = keepers(&bench);
    assert_eq!(kept.len(), 6, "{kept:?}");
    for (node, stage) in kept {
        let keeper = nodes.iter().position(|other| *other == node).unwrap();
        assert_ne!(keeper / 3, usize::from(stage) / 3, "stage {stage} is kept by stage {keeper}'s node");
    }
    // Where there is one region, any will do.
    let (mut bench, nodes) = Bench::started_in(&with_copies(2), &[4, 4, 4]);
    run_iteration(&mut bench, &nodes);
    all_step(&mut bench, &nodes);
    assert_eq!(keepers(&bench).len(), 3);
}

#[test]
fn two_nodes_keep_a_stage_in_turn_and_every_node_two_stages() {
    for relays in 2..=6 {
        let (mut bench, nodes) = Bench::started(&Settings { steps: 10, ..with_copies(relays) });
        let (mut turns, mut kept) = (Vec::new(), Vec::new());
        for _ in 0..6 {
            run_iteration(&mut bench, &nodes);
            all_step(&mut bench, &nodes);
            turns.push(asked(&bench, 1).map(|(_, _, keeper, _)| keeper));
            for pair in all_arrive(&mut bench) {
                kept.retain(|other| *other != pair);
                kept.push(pair);
            }
        }
        assert_ne!(turns[0], turns[1]);
        assert!(turns.iter().zip(&turns[2..]).all(|(before, after)| before == after), "{turns:?}");
        let of_others = |node: &NodeId| kept.iter().filter(|(keeper, _)| keeper == node).count();
        assert!(nodes.iter().all(|node| of_others(node) == 2), "{relays}: {kept:?}");
        let drops = |(_, message): &(NodeId, ToWorker)| matches!(message, ToWorker::DropCopy { .. });
        assert!(!bench.sent.iter().any(drops), "a newer one takes the place of the one before");
    }
}

#[test]
fn a_stage_that_is_lost_together_with_a_keeper_comes_back_from_the_other() {
    for is_newest_lost in [true, false] {
        let (mut bench, nodes) = copied(4, 2, 102);
        let (_, older, older_keeper, _) = asked(&bench, 2).expect("it was asked for");
        run_iteration(&mut bench, &nodes);
        all_step(&mut bench, &nodes);
        let newest_keeper = keeps(&mut bench, 2, 102);
        assert_eq!((older, bench.coordinator.iteration()), (Iteration(1), Iteration(2)));
        assert_ne!(older_keeper, newest_keeper);
        let (lost, donor, copied) = if is_newest_lost {
            (newest_keeper, older_keeper, Iteration(1))
        } else {
            (older_keeper, newest_keeper, Iteration(2))
        };
        lose(&mut bench, lost);
        lose(&mut bench, nodes[2]);
        let heirs = [bench.hello(None), bench.hello(None)];
        let found = heirs.iter().find_map(|heir| {
            let (transfer, stage, method) = bench.last_assignment(*heir);
            (stage == StageId(2)).then_some((*heir, transfer, method))
        });
        let (to, transfer, method) = found.expect("somebody makes the stage again");
        let (stage, recipe) = (StageId(2), Recipe::restore(StageId(2), F32));
        assert_eq!(method, Method::Rebuild { recipe, donors: vec![donor], teachers: vec![] });
        let donate = ToWorker::Donate { transfer, stage, iteration: copied, to, format: F32 };
        assert!(was_told(&bench, donor, &donate));
    }
}

#[test]
fn a_node_that_holds_three_states_of_others_is_asked_for_no_fourth() {
    let (mut bench, nodes) = Bench::started(&Settings { steps: 10, ..with_copies(3) });
    for _ in 0..2 {
        run_iteration(&mut bench, &nodes);
        all_step(&mut bench, &nodes);
        all_arrive(&mut bench);
    }
    // Each node keeps the two stages below it; stage 0's newest copy is with stage 2's node, which goes. In its place comes stage
    // 3's, which keeps stages 1 and 2 already.
    lose(&mut bench, nodes[2]);
    let (_, iteration, keeper, _) = asked(&bench, 0).expect("another keeper is asked");
    assert_eq!((iteration, keeper), (Iteration(2), nodes[3]));
    all_arrive(&mut bench);
    // It is the only one that could keep the origin's, and has three.
    lose(&mut bench, nodes[1]);
    all_arrive(&mut bench);
    bench.sent.clear();
    run_iteration(&mut bench, &[nodes[0], nodes[3]]);
    let newer: Vec<_> = bench
        .sent
        .iter()
        .filter_map(|(to, message)| match message {
            ToWorker::KeepCopy { stage, .. } => Some((*to, stage.0)),
            _ => None,
        })
        .collect();
    assert_eq!(newer, [(nodes[0], 3)]);
}

#[test]
fn a_lost_keeper_is_replaced_at_the_next_attempt() {
    let (mut bench, nodes) = copied(3, 1, 101);
    assert_eq!(asked(&bench, 1).map(|(_, _, keeper, _)| keeper), Some(nodes[2]));
    lose(&mut bench, nodes[2]);
    let (_, iteration, keeper, donor) = asked(&bench, 1).expect("another keeper is asked");
    assert_eq!((iteration, keeper, donor), (Iteration(1), nodes[3], nodes[1]), "who keeps nothing");
}

#[test]
fn a_keeper_stays_where_another_replica_can_fill_a_hole() {
    let settings = Settings { respawn: false, replicas: 2, ..with_copies(2) };
    let (mut bench, nodes) = Bench::started(&settings);
    let keeper = nodes[5];
    for (index, node) in nodes.iter().enumerate() {
        bench.share(*node, index as u32 % 2, index < 2);
    }
    nodes.iter().for_each(|node| bench.reduced(*node, 40));
    let (transfer, iteration, asked_keeper, _) = asked(&bench, 1).expect("a copy is asked for");
    assert!(nodes[4..].contains(&asked_keeper));
    nodes.iter().enumerate().for_each(|(index, node)| {
        let stage = index as u16 / 2;
        stepped(&mut bench, *node, stage, 1, 100 + stage as u8);
    });
    let (stage, digest) = (StageId(1), Digest([101; 32]));
    bench.says(asked_keeper, ToCoordinator::CopyKept { transfer, stage, iteration, digest });
    let other = if asked_keeper == keeper { nodes[4] } else { keeper };
    lose(&mut bench, nodes[2]);
    lose(&mut bench, nodes[3]);
    let moved = bench.sent.iter().rev().find_map(|(to, message)| match message {
        ToWorker::Assign { stage: StageId(1), method: Method::Rebuild { recipe, donors, .. }, .. } => {
            Some((*to, recipe.restores(StageId(1)), donors.clone()))
        }
        _ => None,
    });
    if let Some((node, restores, donors)) = moved {
        assert!(node != asked_keeper && restores && donors == [asked_keeper], "{node} {donors:?}");
        assert!(node == other || nodes[..2].contains(&node));
    } else {
        panic!("nobody fills the hole");
    }
}

#[test]
fn a_stage_that_is_back_soon_is_in_the_next_attempt_if_it_is_waited_for_briefly() {
    for (while_lost, in_time) in
        [(WhileLost::Skip, true), (WhileLost::Briefly, true), (WhileLost::Briefly, false)]
    {
        let (mut bench, nodes) = Bench::started(&Settings { while_lost, ..with_copies(2) });
        bench.wait(2_000_000);
        run_iteration(&mut bench, &nodes);
        all_step(&mut bench, &nodes);
        keeps(&mut bench, 1, 101);
        lose(&mut bench, nodes[1]);
        let holds_up = while_lost == WhileLost::Briefly;
        assert_eq!(bench.current() == (Iteration(1), Attempt(1)), !holds_up, "{while_lost:?}");
        if !holds_up {
            continue;
        }
        if in_time {
            let heir = bench.hello(None);
            let (transfer, stage, _) = bench.last_assignment(heir);
            let (iteration, digest) = (Iteration(1), Digest([101; 32]));
            bench.says(heir, ToCoordinator::Holds { transfer: Some(transfer), stage, iteration, digest });
        } else {
            bench.wait(1_000_000);
        }
        assert_eq!(bench.current(), (Iteration(1), Attempt(1)), "{in_time}");
        let served = bench
            .sent
            .iter()
            .rev()
            .any(|(_, message)| matches!(message, ToWorker::Begin { attempt: Attempt(1), .. }));
        assert!(served);
    }
}

/// The run is told to stop while `lost` has no node, one iteration after the copy of it was taken; what its keeper was told to save.
fn stopped_without(lost: u16) -> (Bench, Vec<NodeId>, NodeId) {
    let (mut bench, nodes) = copied(3, lost, 100 + lost as u8);
    let (_, _, keeper, _) = asked(&bench, lost).expect("a copy was asked for");
    run_iteration(&mut bench, &nodes);
    all_step(&mut bench, &nodes);
    bench.input(CoordinatorInput::Stop);
    lose(&mut bench, nodes[usize::from(lost)]);
    (bench, nodes, keeper)
}

/// Whoever serves a stage writes it as it is before the third iteration.
fn those_who_serve_save(bench: &mut Bench, nodes: &[NodeId], lost: u16) {
    let iteration = Iteration(2);
    for (stage, node) in (0..).zip(nodes).filter(|(stage, _)| *stage != lost) {
        let digest = Digest([100 + stage as u8; 32]);
        bench.says(*node, ToCoordinator::Saved { stage: StageId(stage), iteration, digest });
    }
}

fn save_copy(lost: u16) -> ToWorker {
    let (stage, copied) = (StageId(lost), Iteration(1));
    ToWorker::SaveCopy { stage, iteration: Iteration(2), copied, recipe: Recipe::restore(stage, F32) }
}

#[test]
fn a_run_that_stops_while_a_stage_has_no_node_saves_the_copy_of_it() {
    // An inner stage, the last, and the origin, without which nothing could be gone on with.
    for lost in [2, 3, 0] {
        let (mut bench, nodes, keeper) = stopped_without(lost);
        assert!(was_told(&bench, keeper, &save_copy(lost)), "{lost}");
        those_who_serve_save(&mut bench, &nodes, lost);
        assert_eq!((&bench.end, bench.published.len()), (&None, 0), "the copy is not written yet");
        let (stage, iteration) = (StageId(lost), Iteration(2));
        let state = Digest([100 + lost as u8; 32]);
        bench.says(keeper, ToCoordinator::Saved { stage, iteration, digest: state });
        assert_eq!(bench.end, Some(End::Stopped));
        let [saved] = &bench.published[..] else { panic!("{:?}", bench.published) };
        assert_eq!((saved.iteration, saved.stages.len()), (iteration, 4), "nothing is missing");
        assert_eq!(saved.stages[usize::from(lost)], SavedStage { stage, state, lineage: 1 });
        let Some(Entry::Rebuilt(rebuild)) = bench.journal.last() else {
            panic!("{:?}", bench.journal.last())
        };
        assert_eq!((rebuild.stage, rebuild.from, rebuild.lineage), (stage, Iteration(1), 1));
        assert_eq!((&rebuild.recipe, rebuild.state), (&Recipe::restore(stage, F32), state));
        let told = |event: &Event| matches!(event, Event::StageRebuilt { kind, .. } if kind == "saved");
        assert!(bench.events.iter().any(told), "{:?}", bench.events);

        // The run goes on from it.
        let mut second = Bench::resume(&with_copies(3), &bench.journal, Some(saved.clone()));
        let heirs: Vec<_> = (0..4).map(|_| second.hello(None)).collect();
        let loads = |heir: &NodeId| second.last_assignment(*heir).2 == Method::Load { state };
        assert!(heirs.iter().any(loads));
    }
}

#[test]
fn a_run_that_loses_its_last_origin_for_good_saves_the_copy_and_says_so() {
    let (mut bench, nodes) = copied(3, 0, 100);
    let (_, _, keeper, _) = asked(&bench, 0).expect("a copy was asked for");
    run_iteration(&mut bench, &nodes);
    all_step(&mut bench, &nodes);
    lose(&mut bench, nodes[0]);
    bench.wait(10_000_000);
    assert!(was_told(&bench, keeper, &save_copy(0)), "nobody came");
    those_who_serve_save(&mut bench, &nodes, 0);
    let (stage, iteration) = (StageId(0), Iteration(2));
    bench.says(keeper, ToCoordinator::Saved { stage, iteration, digest: Digest([100; 32]) });
    let Some(End::Failed { why }) = &bench.end else { panic!("{:?}", bench.end) };
    assert!(why.contains("copy") && why.contains("--resume"), "{why}");
    assert_eq!(bench.published.last().map(|saved| saved.stages.len()), Some(4));
}

#[test]
fn a_copy_that_gives_other_bits_or_is_not_there_any_more_is_not_saved() {
    let (stage, iteration) = (StageId(2), Iteration(2));
    let why = "no copy is kept".to_owned();
    let answers = [
        ToCoordinator::Saved { stage, iteration, digest: Digest([9; 32]) },
        ToCoordinator::CopyUnusable { stage, iteration: Iteration(1), why },
    ];
    for answer in answers {
        let (mut bench, nodes, keeper) = stopped_without(2);
        bench.says(keeper, answer);
        assert!(was_told(&bench, keeper, &ToWorker::DropCopy { stage }));
        assert!(bench.events.iter().any(|event| matches!(event, Event::Refused { .. })), "it is told");
        bench.wait(30_000_000);
        those_who_serve_save(&mut bench, &nodes, 2);
        assert_eq!(bench.end, Some(End::Stopped), "the end does not wait for what nobody has");
        let saved: Vec<_> =
            bench.published.iter().flat_map(|saved| &saved.stages).map(|part| part.stage).collect();
        assert_eq!(saved, [StageId(0), StageId(1), StageId(3)]);
    }
}

#[test]
fn a_keeper_that_comes_back_while_the_last_state_is_written_saves_its_copy() {
    let (mut bench, nodes, keeper) = stopped_without(2);
    lose(&mut bench, keeper);
    bench.wait(30_000_000);
    let index = nodes.iter().position(|node| *node == keeper).expect("one of them") as u16;
    let mut holding = holding(keeper, index, 2, 100 + index as u8);
    let (stage, digest) = (StageId(2), Digest([102; 32]));
    holding.copies = vec![KeptCopy { stage, iteration: Iteration(1), digest }];
    let back = bench.hello(Some(Box::new(holding)));
    let saves = |bench: &mut Bench| {
        for (stage, node) in (0..).zip(&nodes).filter(|(_, node)| **node != keeper && **node != nodes[2]) {
            let digest = Digest([100 + stage as u8; 32]);
            let iteration = Iteration(2);
            bench.says(*node, ToCoordinator::Saved { stage: StageId(stage), iteration, digest });
        }
    };
    saves(&mut bench);
    assert_eq!((&bench.end, bench.published.len()), (&None, 0), "a stage is missing that it keeps");
    bench.wait(30_000_000);
    assert!(was_told(&bench, back, &save_copy(2)));
}

#[test]
fn a_node_that_is_about_to_serve_a_lost_stage_is_waited_for_at_the_end() {
    let (mut bench, nodes) = copied(3, 2, 102);
    run_iteration(&mut bench, &nodes);
    all_step(&mut bench, &nodes);
    lose(&mut bench, nodes[2]);
    let heir = bench.hello(None);
    assert_eq!(bench.last_assignment(heir).1, StageId(2));
    let others = [nodes[0], nodes[1], nodes[3]];
    run_iteration(&mut bench, &others);
    all_step(&mut bench, &others);
    bench.wait(1_000_000);
    let saves = |message: &ToWorker| matches!(message, ToWorker::Save { .. } | ToWorker::SaveCopy { .. });
    assert!(!bench.sent.iter().any(|(_, message)| saves(message)));
    // It is lost on its way: the copy is still there.
    lose(&mut bench, heir);
    let (stage, copied, iteration) = (StageId(2), Iteration(1), Iteration(3));
    let recipe = Recipe::restore(stage, F32);
    assert!(was_told(&bench, nodes[3], &ToWorker::SaveCopy { stage, iteration, copied, recipe }));
}

#[test]
fn what_is_not_published_is_not_told_to_be_saved() {
    let (mut bench, nodes) = copied(3, 2, 102);
    run_iteration(&mut bench, &nodes);
    all_step(&mut bench, &nodes);
    bench.input(CoordinatorInput::Stop);
    // Of the origin nobody keeps a copy: an older state/ that is whole stays.
    lose(&mut bench, nodes[2]);
    lose(&mut bench, nodes[0]);
    bench.wait(40_000_000);
    let (iteration, digest) = (Iteration(2), |stage: u8| Digest([100 + stage; 32]));
    for (stage, node) in [(1, nodes[1]), (2, nodes[3]), (3, nodes[3])] {
        let saved = ToCoordinator::Saved { stage: StageId(stage), iteration, digest: digest(stage as u8) };
        bench.says(node, saved);
    }
    assert!(bench.end.is_some());
    assert_eq!(bench.published, []);
    assert!(!bench.journal.iter().any(|entry| matches!(entry, Entry::Rebuilt(_))));
}
