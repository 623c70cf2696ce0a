use super::*;
use crate::{Matching, StageView};
use crate::{is_open, with_option};

fn stages(living: &[bool], norms: &[f64]) -> Vec<StageView> {
    living
        .iter()
        .zip(norms)
        .enumerate()
        .map(|(index, (living, norm))| StageView {
            living: *living,
            gradient_norm: *norm,
            like_relay: index > 0,
        })
        .collect()
}

fn sources(name: &str, lost: u16, stages: &[StageView]) -> Vec<(u16, f64)> {
    match strategy(name).unwrap().on_loss(&LossView {
        lost: StageId(lost),
        stages,
        copy_age: None,
        checkpoint_age: None,
        learning_rate_peak: 1e-3,
    }) {
        Decision::Rebuild(recipe) => {
            recipe.sources.iter().map(|source| (source.stage.0, source.coefficient)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn checkfree_weighs_with_gradient_norms() {
    let stages = stages(&[true, true, false, true], &[9.0, 1.0, 5.0, 3.0]);
    let got = sources("checkfree", 2, &stages);
    assert_eq!((got[0].0, got[1].0), (1, 3));
    assert!((got[0].1 - 0.25).abs() < 1e-4 && (got[1].1 - 0.75).abs() < 1e-4, "{got:?}");
}

#[test]
fn two_adjacent_losses_reach_across_and_weigh_with_distance() {
    let stages = stages(&[true, true, false, false, true], &[0.0, 1.0, 1.0, 1.0, 1.0]);
    let got = sources("checkfree", 2, &stages);
    assert_eq!((got[0].0, got[1].0), (1, 4));
    assert!((got[0].1 - 2.0 / 3.0).abs() < 1e-9, "{got:?}");
}

#[test]
fn edges_are_copied_and_an_origin_with_layers_is_a_neighbour() {
    let mut stages = stages(&[true, false, true], &[1.0; 3]);
    assert_eq!(sources("checkfree", 1, &stages), [(2, 1.0)]);
    stages[0].like_relay = true;
    assert_eq!(sources("uniform", 1, &stages), [(0, 0.5), (2, 0.5)]);
    assert_eq!(sources("copy", 1, &stages), [(0, 1.0)]);
}

#[test]
fn checkfree_plus_copies_edges_from_their_swap_partners() {
    let all = |lost: usize, relays: usize| {
        let living: Vec<bool> = (0..=relays).map(|stage| stage != lost).collect();
        let norms: Vec<f64> = (0..=relays).map(|stage| 1.0 + stage as f64).collect();
        let mut stages = stages(&living, &norms);
        stages[0].like_relay = true;
        stages
    };
    for relays in 2..=8 {
        let last = relays as u16;
        for options in ["", ":partners=average", ":partners=copy", ":norm=l2-squared,clip=1"] {
            let name = format!("checkfree+{options}");
            assert_eq!(strategy(&name).unwrap().edge_swaps(), EdgeSwaps::Odd);
            assert_eq!(sources(&name, 1, &all(1, relays)), [(2, 1.0)], "{relays} relays");
            assert_eq!(sources(&name, last, &all(relays, relays)), [(last - 1, 1.0)]);
        }
    }
    for lost in [2, 3, 4, 5] {
        let plain = sources("checkfree", lost, &all(lost.into(), 6));
        assert_eq!(plain.len(), 2);
        assert_eq!(sources("checkfree+", lost, &all(lost.into(), 6)), plain, "inner ones are averages");
    }
    let copied = |lost: usize| sources("checkfree+:partners=copy", lost as u16, &all(lost, 6));
    assert_eq!((copied(2), copied(5)), (vec![(1, 1.0)], vec![(6, 1.0)]));
    assert_eq!((copied(3).len(), copied(4).len()), (2, 2));
    assert_eq!(sources("checkfree+:partners=copy", 2, &all(2, 3)), [(1, 1.0)]);
    assert_eq!(sources("checkfree+", 1, &all(1, 1)), [(0, 1.0)], "there is no partner");
    assert_eq!(strategy("checkfree").unwrap().edge_swaps(), EdgeSwaps::Off);
}

#[test]
fn an_edge_without_its_partner_is_made_as_by_checkfree() {
    let stages = stages(&[true, false, false, true, true], &[1.0; 5]);
    assert_eq!(sources("checkfree+", 1, &stages), [(3, 1.0)]);
    assert_eq!(sources("checkfree+:partners=copy", 2, &stages), sources("checkfree", 2, &stages));
}

#[test]
fn without_relays_weights_are_fresh_and_the_origin_is_refused() {
    let stages = stages(&[true, false, false], &[1.0; 3]);
    for name in STRATEGY_NAMES.into_iter().filter(|name| !strategy(name).unwrap().is_oracle()) {
        assert!(sources(name, 1, &stages).is_empty());
        let view = LossView {
            lost: StageId(0),
            stages: &stages,
            copy_age: None,
            checkpoint_age: None,
            learning_rate_peak: 1e-3,
        };
        assert!(matches!(strategy(name).unwrap().on_loss(&view), Decision::Refuse(_)));
    }
    assert!(strategy("hope").is_err());
}

fn recipe(text: &str, norms: &[f64]) -> Recipe {
    let stages = stages(&[true, true, false, true], norms);
    match strategy(text).unwrap().on_loss(&LossView {
        lost: StageId(2),
        stages: &stages,
        copy_age: None,
        checkpoint_age: None,
        learning_rate_peak: 1e-3,
    }) {
        Decision::Rebuild(recipe) => recipe,
        other => panic!("{other:?}"),
    }
}

#[test]
fn options_say_how_norms_count_and_what_becomes_of_moments_and_rate() {
    let norms = [9.0, 1.0, 5.0, 3.0];
    let first = |text: &str| recipe(text, &norms).sources[0].coefficient;
    assert!((first("checkfree:norm=l2-squared") - 0.1).abs() < 1e-3);
    assert!((first("checkfree:clip=1") - 0.5).abs() < 1e-9, "both are clipped to 1");
    assert!((first("checkfree:clip=2,norm=l2") - 1.0 / 3.0).abs() < 1e-4);
    let usual = recipe("checkfree", &norms);
    assert_eq!((usual.moments, usual.learning_rate_factor), (Moments::Zero, 1.1));
    let mixed = recipe("copy:moments=mix,rate_factor=1.5", &norms);
    assert_eq!((mixed.moments, mixed.learning_rate_factor), (Moments::Mix, 1.5));
    assert_eq!(mixed.sources.len(), 1);
}

#[test]
fn a_copy_of_a_stage_is_taken_as_it_is() {
    let stages = stages(&[true, true, false, true], &[1.0; 4]);
    let decide = |text: &str, lost, copy_age| {
        let strategy = strategy(text).unwrap();
        strategy.on_loss(&LossView {
            lost: StageId(lost),
            stages: &stages,
            copy_age,
            checkpoint_age: None,
            learning_rate_peak: 1e-3,
        })
    };
    let restored = |lost| Decision::Rebuild(Recipe::restore(StageId(lost), StateFormat::F32));
    assert_eq!(decide("neighbour-snapshot", 2, Some(3)), restored(2));
    assert_eq!(decide("neighbour-snapshot", 0, Some(3)), restored(0));
    let rounded = Decision::Rebuild(Recipe::restore(StageId(2), StateFormat::Bf16));
    assert_eq!(decide("neighbour-snapshot:dtype=bf16", 2, Some(3)), rounded);
    assert_eq!(decide("neighbour-snapshot:dtype=int8", 2, None), decide("checkfree", 2, None));
    assert_eq!(decide("neighbour-snapshot", 2, None), decide("checkfree", 2, None));
    assert!(matches!(decide("neighbour-snapshot", 0, None), Decision::Refuse(_)));
    assert!(matches!(decide("neighbour-snapshot:origin=no", 0, Some(3)), Decision::Refuse(_)));
    assert_eq!(decide("checkfree", 2, Some(3)), decide("checkfree", 2, None));
    let every = |text: &str, stage| strategy(text).unwrap().copies_every(StageId(stage)).map(NonZeroU64::get);
    assert_eq!(every(DEFAULT_STRATEGY, 0), Some(8), "the least that a run chooses");
    let all_open = format!("{DEFAULT_STRATEGY},retrace=auto");
    assert!(is_open(DEFAULT_STRATEGY, "every") && !is_open(DEFAULT_STRATEGY, "retrace"));
    for option in ["every", "retrace"] {
        assert!(is_open(&all_open, option) && !is_open("neighbour-snapshot:dtype=int8", option));
        assert!(!is_open("neighbour-snapshot:every=8,retrace=3", option));
    }
    let open = with_option(&all_open, "every", 31);
    assert_eq!(open, "neighbour-snapshot:every=31,dtype=int8,retrace=auto");
    assert_eq!(with_option(&open, "retrace", 9), "neighbour-snapshot:every=31,dtype=int8,retrace=9");
    assert_eq!(with_option("checkfree", "every", 31), "checkfree");
    let retraced = |text: &str| {
        let strategy = strategy(text).unwrap();
        (strategy.retraces(), strategy.iterations_kept())
    };
    assert_eq!(retraced(&all_open), (true, 16));
    assert_eq!(retraced("neighbour-snapshot:retrace=3"), (true, 3));
    assert_eq!(retraced("neighbour-snapshot"), (false, 0));
    assert!(strategy("neighbour-snapshot:retrace=17").is_err());
    assert_eq!(every("neighbour-snapshot:every=1,origin=no", 1), Some(1));
    assert_eq!(every("neighbour-snapshot:every=1,origin=no", 0), None);
    assert_eq!(every("checkfree", 1), None);
    assert_eq!((every("checkfree+", 0), every("checkfree+", 1)), (Some(1), None));
    assert_eq!(every("checkfree+:origin_every=0", 0), None);
}

#[test]
fn with_a_checkpoint_the_run_goes_back_whatever_is_lost() {
    let stages = stages(&[false, true, false, true], &[1.0; 4]);
    let decide = |text: &str, lost, checkpoint_age| {
        let view = LossView {
            lost: StageId(lost),
            stages: &stages,
            copy_age: None,
            checkpoint_age,
            learning_rate_peak: 1e-3,
        };
        strategy(text).unwrap().on_loss(&view)
    };
    for lost in [0, 2] {
        assert_eq!(decide("checkpoint:every=7", lost, Some(3)), Decision::Rollback);
        assert_eq!(decide("checkpoint", lost, None), decide("checkfree", lost, None));
        assert_eq!(decide("checkfree", lost, Some(3)), decide("checkfree", lost, None));
    }
    let every = |text: &str| strategy(text).unwrap().saves_every().map(NonZeroU64::get);
    assert_eq!((every("checkpoint"), every("checkpoint:every=7")), (Some(50), Some(7)));
    assert_eq!(every("neighbour-snapshot"), None);
}

#[test]
fn a_raised_rate_lasts_as_long_as_is_said() {
    let decay = |text: &str| strategy(text).unwrap().rate_decay().map(NonZeroU64::get);
    assert_eq!((decay("checkfree"), decay("checkfree:rate_decay=none")), (None, None));
    for name in ["checkfree", "checkfree+", "uniform", "copy", "neighbour-snapshot", "checkpoint"] {
        assert_eq!(decay(&format!("{name}:rate_decay=100")), Some(100));
    }
}

#[test]
fn an_oracle_gives_back_any_stage() {
    let stages = stages(&[false, true, false], &[1.0; 3]);
    let oracle = strategy("oracle").unwrap();
    assert!(oracle.is_oracle() && !checkfree().is_oracle());
    for lost in [0, 2] {
        let view = LossView {
            lost: StageId(lost),
            stages: &stages,
            copy_age: None,
            checkpoint_age: None,
            learning_rate_peak: 1e-3,
        };
        assert_eq!(oracle.on_loss(&view), Decision::Return);
    }
}

#[test]
fn redundant_computation_keeps_a_stage_with_the_one_before_it() {
    let redundant = strategy("redundant").unwrap();
    assert!(redundant.runs_the_next_stage() && redundant.is_oracle());
    let decide = |living: &[bool], lost| {
        let stages = stages(living, &vec![1.0; living.len()]);
        redundant.on_loss(&LossView {
            lost: StageId(lost),
            stages: &stages,
            copy_age: None,
            checkpoint_age: None,
            learning_rate_peak: 1e-3,
        })
    };
    assert_eq!(decide(&[true, false, true, true], 1), Decision::Return);
    assert_eq!(decide(&[false, true, true, true], 0), Decision::Return, "the last stage keeps the first");
    let second_of_two = decide(&[true, false, false, true], 2);
    assert!(matches!(second_of_two, Decision::Rebuild(_)), "{second_of_two:?}");
    assert!(matches!(decide(&[false, true, true, false], 0), Decision::Refuse(_)));
}

#[test]
fn checkfree_is_what_its_name_gives() {
    let stages = stages(&[true, true, false, true, true], &[9.0, 1.0, 5.0, 3.0, 2.0]);
    let parsed = strategy("checkfree").unwrap();
    for lost in 0..5 {
        let (copy_age, checkpoint_age) = (Some(1), Some(2));
        let view = LossView {
            lost: StageId(lost),
            stages: &stages,
            copy_age,
            checkpoint_age,
            learning_rate_peak: 1e-3,
        };
        assert_eq!(checkfree().on_loss(&view), parsed.on_loss(&view));
    }
    assert_eq!(checkfree().name(), parsed.name());
}

#[test]
fn what_is_not_known_is_refused_with_the_nearest_that_is() {
    for (text, says) in [
        ("checkfee", "checkfree"),
        ("checkfree:nrom=l2", "norm"),
        ("checkfree:norm=l3", "l2"),
        ("checkfree:moments=mixed", "mix"),
        ("uniform:norm=l2", "no option 'norm'"),
        ("checkfree:partners=copy", "no option 'partners'"),
        ("checkfree+:partners=both", "average or copy"),
        ("random:moments=mix", "no option 'moments'"),
        ("random:rate_decay=3", "no option 'rate_decay'"),
        ("oracle:every=3", "no option 'every'; it has none: write oracle"),
        (
            "match:",
            "no option ''; write match, or match:OPTION=VALUE,OPTION=VALUE with any of norm, clip, steps, kept, rate,",
        ),
        ("copy:rate_decay=0", "none, or a whole number"),
        ("copy:rate_factor=nan", "0.01"),
        ("copy:rate_factor=11", "10"),
        ("copy:rate_factor", "rate_factor="),
        ("copy:moments=mix,moments=zero", "twice"),
        ("checkfree:clip=0", "none"),
        ("neighbour-snapshot:dtype=f16", "f32 or bf16 or int8"),
        ("neighbour-snapshot:every=0", "whole number"),
        ("neighbour-snapshot:every=1.5", "whole number"),
        ("neighbour-snapshot:origin=maybe", "yes"),
        ("", "checkfree"),
    ] {
        let why = strategy(text).map(|_| ()).unwrap_err().to_string();
        assert!(why.contains(says), "{text}: {why}");
    }
}

#[test]
fn matching_takes_steps_after_the_average_and_keeps_activations() {
    let matching = |text: &str| recipe(text, &[1.0, 1.0, 1.0, 1.0]);
    let averaged = matching("checkfree:rate_factor=0.3");
    let matched = matching("match:steps=7,kept=3,rate=2");
    assert_eq!(matched.sources, averaged.sources);
    assert_eq!((matched.moments, matched.learning_rate_factor), (averaged.moments, 0.3));
    let wanted = Matching { steps: 7, rate: 2e-3, lessons: Vec::new() };
    assert_eq!(
        matched.matching,
        Some(wanted),
        "twice the run's peak; which lessons there are, the coordinator knows"
    );
    assert_eq!(averaged.matching, None);
    let by_itself = matching("match").matching.expect("it learns");
    assert!(by_itself.steps == 160 && (by_itself.rate - 1.5e-3).abs() < 1e-12, "{by_itself:?}");
    let decay = |text: &str| strategy(text).unwrap().rate_decay().map(std::num::NonZeroU64::get);
    let decays = ["match", "match:rate_decay=none", "match:rate_decay=7", "checkfree"].map(decay);
    assert_eq!(decays, [Some(10), None, Some(7), None]);
    let kept = |text: &str| strategy(text).unwrap().iterations_kept();
    assert_eq!((kept("match:kept=3"), kept("checkfree"), kept("neighbour-snapshot")), (3, 0, 0));
    for wrong in ["match:steps=0", "match:kept=17", "match:rate=0", "match:rate=nan", "checkfree:steps=3"] {
        assert!(strategy(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_rebuild_bears_the_name_of_the_way_that_was_taken() {
    let stages = stages(&[true, true, false, true], &[1.0; 4]);
    let made_by = |name: &str, copy_age| {
        let strategy = strategy(name).unwrap();
        let view = LossView {
            lost: StageId(2),
            stages: &stages,
            copy_age,
            checkpoint_age: None,
            learning_rate_peak: 1e-3,
        };
        let Decision::Rebuild(recipe) = strategy.on_loss(&view) else { panic!("{name} refuses") };
        strategy.made_by(StageId(2), &recipe)
    };
    assert_eq!(made_by("neighbour-snapshot", Some(3)), "neighbour-snapshot");
    for without in ["neighbour-snapshot", "checkpoint", "match", "checkfree"] {
        assert_eq!(made_by(without, None), "checkfree", "{without} has nothing to go by");
    }
    for own in ["uniform", "copy", "random", "checkfree+"] {
        assert_eq!(made_by(own, None), own);
    }
}
