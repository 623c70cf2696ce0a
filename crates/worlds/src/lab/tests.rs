use super::*;
use crate::config::RunConfig;
use skipstone_types::WhileLost;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// A model of a few thousand parameters, two relay stages.
fn experiment(strategies: &[&str], rates: &[f64], seeds: &[u64]) -> Experiment {
    Experiment {
        name: "test".to_owned(),
        about: String::new(),
        seeds: seeds.to_vec(),
        strategies: strategies.iter().map(|name| (*name).to_owned()).collect(),
        loss_rates: rates.iter().map(|rate| LossRate::Each(*rate)).collect(),
        region_loss_rates: Vec::new(),
        traces: Vec::new(),
        eval_skips: Vec::new(),
        skips: Vec::new(),
        paths: Vec::new(),
        eval_every: 8,
        eval_tokens: 512,
        deterministic: true,
        run: RunConfig {
            tokenizer: "bytes".to_owned(),
            story_bytes: 20_000,
            layers: Some(3),
            width: Some(16),
            heads: Some(2),
            context: Some(16),
            batch: 2,
            microbatches: 2,
            stages: 3,
            steps: 40,
            lr: 5e-3,
            pace: Some(0.5),
            ..RunConfig::default()
        },
    }
}

fn run(experiment: &Experiment, dir: &Path, threads: usize) -> (Vec<ArmResult>, usize) {
    run_experiment(experiment, dir, threads, &AtomicBool::new(false), &|_| {}).unwrap()
}

fn lines(dir: &Path) -> String {
    std::fs::read_to_string(dir.join(ResultsFile::NAME)).unwrap()
}

#[test]
fn arms_learn_and_lose_the_same_stages() {
    let dir = tempfile::tempdir().unwrap();
    let experiment = experiment(&["checkfree", "random"], &[0.03], &[1]);
    let (results, others) = run(&experiment, dir.path(), 2);
    assert_eq!((results.len(), others), (3, 0));
    let [calm, checkfree, random] = results.as_slice() else { panic!("{results:?}") };
    assert_eq!((calm.strategy.as_str(), calm.lost.len(), calm.around_holes), ("no failures", 0, 0));
    let lost = |result: &ArmResult| -> Vec<_> {
        result.lost.iter().map(|lost| (lost.iteration, lost.stage)).collect()
    };
    assert!(!checkfree.lost.is_empty() && lost(checkfree) == lost(random), "{checkfree:?}");
    let loss = |result: &ArmResult| result.final_loss().unwrap();
    let start = calm.points[0];
    assert_eq!((start.iteration, start.validation_loss), (0, random.points[0].validation_loss));
    assert!(loss(calm) < start.validation_loss - 0.5, "{calm:?}");
    assert!(loss(random) != loss(calm) && loss(random) != loss(checkfree));
    for result in &results {
        let iterations: Vec<_> = result.points.iter().map(|point| point.iteration).collect();
        assert_eq!(iterations, [0, 8, 16, 24, 32, 40]);
        assert_eq!((result.iterations, result.ended.as_str()), (40, "done"));
        assert!(result.lost.iter().all(|lost| lost.back_s.is_some_and(|back_s| back_s > lost.at_s)));
    }
}

#[test]
fn an_oracle_gives_a_stage_back_as_it_was_and_sends_nothing_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut experiment = experiment(&["oracle", "checkfree", "checkfree:rate_decay=2"], &[0.03], &[1]);
    experiment.run.while_lost = WhileLost::Skip;
    let (results, _) = run(&experiment, dir.path(), 2);
    let [calm, oracle, checkfree, decays] = results.as_slice() else { panic!("{results:?}") };
    assert_eq!(oracle.lost.len(), checkfree.lost.len());
    assert_eq!((oracle.refused, oracle.iterations, oracle.ended.as_str()), (0, 40, "done"));
    assert!(oracle.around_holes > 0 && oracle.lost.iter().all(|lost| lost.back_s.is_some()));
    assert!(oracle.sent_bytes < checkfree.sent_bytes, "no state travels");
    let loss = |result: &ArmResult| result.final_loss().unwrap();
    assert!(loss(oracle) != loss(calm), "the hole is there all the same");
    assert!(loss(oracle) < loss(checkfree), "{} {}", loss(oracle), loss(checkfree));
    assert!(loss(decays) != loss(checkfree), "the raised rate goes down again");
}

#[test]
fn a_stage_that_is_back_at_once_costs_nothing_where_it_is_waited_for_briefly() {
    let dir = tempfile::tempdir().unwrap();
    let experiment = experiment(&["oracle"], &[0.03], &[1]);
    let (results, _) = run(&experiment, dir.path(), 2);
    let [calm, oracle] = results.as_slice() else { panic!("{results:?}") };
    assert!(!oracle.lost.is_empty());
    assert_eq!(oracle.around_holes, 0);
    assert_eq!(oracle.final_loss(), calm.final_loss());
}

#[test]
fn a_run_whose_lost_stages_take_their_steps_again_is_the_run_without_failures_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let strategies = ["neighbour-snapshot:every=5,retrace=8", "neighbour-snapshot:every=5"];
    let mut experiment = experiment(&strategies, &[0.06], &[1]);
    experiment.run.while_lost = WhileLost::Wait;
    let (results, _) = run(&experiment, dir.path(), 2);
    let [calm, retraced, restored] = results.as_slice() else { panic!("{results:?}") };
    let losses = |result: &ArmResult| -> Vec<_> {
        result.points.iter().map(|point| (point.iteration, point.validation_loss.to_bits())).collect()
    };
    assert!(retraced.lost.len() > 2 && retraced.lost.len() == restored.lost.len(), "{retraced:?}");
    assert_eq!(losses(retraced), losses(calm), "{:?}", retraced.lost);
    assert_ne!(losses(restored), losses(calm), "its stages have forgotten up to five iterations each");
    let away_s = |result: &ArmResult| -> f64 {
        result.lost.iter().filter_map(|lost| Some(lost.back_s? - lost.at_s)).sum()
    };
    assert!(away_s(retraced) > away_s(restored), "what is computed again takes its time");
}

#[test]
fn stages_take_their_steps_again_beside_neighbours_that_have_just_taken_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut experiment = experiment(&["neighbour-snapshot:every=5,retrace=8"], &[0.12], &[1, 3, 4]);
    experiment.run.while_lost = WhileLost::Wait;
    let (results, _) = run(&experiment, dir.path(), 2);
    let (calm, lossy) = results.split_at(3);
    let mut beside_new_ones = 0;
    for (calm, lossy) in calm.iter().zip(lossy) {
        let near = |one: &LostStage, other: &LostStage| one.stage.abs_diff(other.stage) == 1;
        // Two side by side that are lost at once have nothing to take again from each other.
        let both = |lost: &&LostStage| {
            lossy.lost.iter().any(|other| near(lost, other) && lost.iteration == other.iteration)
        };
        let until = lossy.lost.iter().find(both).map_or(u64::MAX, |lost| lost.iteration);
        let alone: Vec<_> = lossy.lost.iter().filter(|lost| lost.iteration < until).collect();
        let is_new = |lost: &&&LostStage| {
            alone.iter().any(|other| {
                near(lost, other) && (1..5).contains(&(lost.iteration.saturating_sub(other.iteration)))
            })
        };
        beside_new_ones += alone.iter().filter(is_new).count();
        let exact = calm.points.iter().zip(&lossy.points).filter(|(calm, _)| calm.iteration <= until);
        for (calm, lossy) in exact {
            assert_eq!(
                (calm.iteration, calm.validation_loss.to_bits()),
                (lossy.iteration, lossy.validation_loss.to_bits()),
                "{alone:?}"
            );
        }
    }
    assert!(beside_new_ones > 8, "{beside_new_ones}");
}

#[test]
fn microbatches_as_they_come_make_shorter_iterations_and_the_same_bits_every_time() {
    let run_as = |deterministic: bool, threads: usize| {
        let dir = tempfile::tempdir().unwrap();
        let mut experiment = experiment(&["checkfree"], &[0.02], &[1, 2]);
        experiment.deterministic = deterministic;
        experiment.run.microbatches = 6;
        experiment.run.layers = Some(6);
        experiment.run.stages = 6;
        experiment.run.skip = 0.5;
        experiment.run.wan = Some("gcp12".to_owned());
        let (results, _) = run(&experiment, dir.path(), threads);
        (results[0].iteration_s, lines(dir.path()))
    };
    let ((as_they_come_s, one), (_, two)) = (run_as(false, 1), run_as(false, 2));
    assert_eq!(one, two);
    let (in_order_s, _) = run_as(true, 2);
    assert!(as_they_come_s < 0.97 * in_order_s, "{as_they_come_s} and {in_order_s}");
}

#[test]
fn the_lab_is_measured_against_its_computation_alone() {
    let experiment = experiment(&["checkfree"], &[0.03], &[1]);
    let bench = bench_lab(&experiment, 2, 1).unwrap();
    let parameters = experiment.run.shape_expected().unwrap().model.parameters();
    assert_eq!((bench.parameters, bench.tokens), (parameters, 2 * 2 * 16));
    assert!(bench.bare_s > 0.0 && bench.lab_s > 0.0 && bench.ratio > 0.0, "{bench:?}");
    assert!(bench_lab(&experiment, 0, 1).is_err() && bench_lab(&experiment, 1, 0).is_err());
}

#[test]
fn only_arms_of_checkfree_plus_swap_stages() {
    let dir = tempfile::tempdir().unwrap();
    let mut experiment = experiment(&["checkfree", "checkfree+"], &[0.03], &[1]);
    let swaps = |experiment: &Experiment| -> Vec<(String, String)> {
        let arms = experiment.arms().unwrap().into_iter();
        arms.map(|arm| (arm.strategy.clone(), arm.config.edge_swaps().to_string())).collect()
    };
    let of = |strategy: &str, swaps: &str| (strategy.to_owned(), swaps.to_owned());
    let expected = [of("no failures", "off"), of("checkfree", "off"), of("checkfree+", "odd")];
    assert_eq!(swaps(&experiment), expected);
    let (results, _) = run(&experiment, dir.path(), 2);
    let [calm, checkfree, plus] = results.as_slice() else { panic!("{results:?}") };
    // Losses are the same; what is learned before the first of them is not.
    let losses =
        |result: &ArmResult| result.points.iter().map(|point| point.training_loss).collect::<Vec<_>>();
    assert!(losses(plus) != losses(checkfree) && losses(checkfree) != losses(calm));
    assert_eq!(plus.lost.len(), checkfree.lost.len());
    assert!(plus.lost.iter().all(|lost| lost.back_s.is_some()), "{plus:?}");
    experiment.run.slots = Some(1);
    assert!(experiment.check().unwrap_err().to_string().contains("--slots 2"));
}

#[test]
fn the_same_experiment_gives_the_same_file_on_any_number_of_threads() {
    let experiment = experiment(&["uniform", "copy"], &[0.05], &[1, 2]);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(&experiment, one.path(), 1);
    run(&experiment, two.path(), 2);
    assert_eq!(lines(one.path()), lines(two.path()));
}

#[test]
fn what_was_done_is_not_done_again_and_what_was_cut_short_is() {
    let dir = tempfile::tempdir().unwrap();
    let first = experiment(&["uniform"], &[0.05], &[1]);
    run(&first, dir.path(), 1);
    let whole = lines(dir.path());
    // As if the machine had died while the second line was written.
    let path = dir.path().join(ResultsFile::NAME);
    std::fs::write(&path, &whole[..whole.len() - 40]).unwrap();
    let begun = std::sync::atomic::AtomicU64::new(0);
    run_experiment(&first, dir.path(), 1, &AtomicBool::new(false), &|progress| {
        begun.store(progress.iterations, Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!((begun.into_inner(), lines(dir.path())), (40, whole.clone()));
    // An edited experiment does its own arms, and keeps the others.
    let edited = experiment(&["copy"], &[0.05], &[1]);
    let (results, others) = run(&edited, dir.path(), 1);
    assert_eq!((results.len(), others), (2, 1));
    let lines = lines(dir.path());
    assert!(whole.lines().all(|line| lines.contains(line)));
}

#[test]
fn results_of_another_make_are_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(ResultsFile::NAME);
    for bad in ["{\"key\": 3}\n", "{}\n{}\n", "\u{0}\n", "{\"key\":\"a\"}\nx"] {
        std::fs::write(&path, bad).unwrap();
        let why = ResultsFile::open(dir.path()).unwrap_err().to_string();
        assert!(why.contains("line 1") && why.contains("--out"), "{why}");
        assert_eq!(lines(dir.path()), bad);
    }
}

#[test]
fn a_stopped_experiment_keeps_what_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let experiment = experiment(&["uniform"], &[0.05], &[1]);
    let stop = AtomicBool::new(false);
    let stopped = run_experiment(&experiment, dir.path(), 1, &stop, &|progress| {
        stop.store(progress.arms_done == 1, Ordering::Relaxed);
    });
    assert!(matches!(stopped, Err(LabError::Interrupted)), "{stopped:?}");
    assert_eq!(lines(dir.path()).lines().count(), 1);
    assert_eq!(run(&experiment, dir.path(), 1).0.len(), 2);
}

#[test]
fn iterations_that_a_rollback_repeats_count_once() {
    let dir = tempfile::tempdir().unwrap();
    let experiment = experiment(&["checkpoint:every=8"], &[0.05], &[1]);
    let told = std::sync::Mutex::new(Vec::new());
    let (results, _) = run_experiment(&experiment, dir.path(), 1, &AtomicBool::new(false), &|progress| {
        told.lock().unwrap().push(progress.iterations_done);
    })
    .unwrap();
    assert!(results.iter().any(|result| !result.lost.is_empty()), "{results:?}");
    let told = told.into_inner().unwrap();
    assert!(told.is_sorted() && told.len() > 80, "{told:?}");
    assert_eq!(told.last(), Some(&80), "two runs of 40");
}

#[test]
fn bad_experiments_are_refused_by_their_field() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("experiment.toml");
    let good = "name = 'x'\nstrategies = ['checkfree']\nloss_rates = [0.1]\n[run]\npace = 0.5\n";
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Experiment::read(&path).map_err(|why| why.to_string())
    };
    assert!(read(good).is_ok());
    for (from, to, says) in [
        ("'checkfree'", "'checkfee'", "checkfee"),
        ("0.1", "0.7", "loss_rates"),
        ("0.1", "-0.1", "loss_rates"),
        ("0.1", "nan", "loss_rates"),
        ("[0.1]", "[]", "loss_rates"),
        ("pace = 0.5", "skip = 0.0", "pace"),
        ("pace = 0.5", "pace = 0.5\nchurn = 'every 3s'", "churn"),
        ("loss_rates = [0.1]", "region_loss_rates = [0.1]", "region_loss_rates: nodes have no regions"),
        ("loss_rates = [0.1]", "loss_rates = [[0.1]]", "loss_rates: 1 chances for"),
        ("loss_rates = [0.1]", "traces = ['none.csv']", "none.csv"),
        (
            "loss_rates = [0.1]\n[run]",
            "region_loss_rates = [2]\n[run]\nwan = 'gcp12'",
            "region_loss_rates: 2 is not",
        ),
        ("name = 'x'", "name = 'x'\neval_skips = [1.0]", "eval_skips: 1 is not"),
        ("pace = 0.5", "pace = 0.5\nchurn_speed = 3", "churn_speed: only a trace"),
        ("name = 'x'", "name = ''", "name"),
        ("name = 'x'", "name = 'x'\nseeds = [1, 1]", "seeds"),
        ("name = 'x'", "name = 'x'\neval_every = 0", "eval_every"),
        ("name = 'x'", "name = 'x'\nspeed = 3", "speed"),
        ("name = 'x'", "name = 'x'\nskips = [1.5]", "skip"),
        ("name = 'x'", "name = 'x'\npaths = ['drwan']", "paths drwan is not known (did you mean drawn?)"),
        ("name = 'x'", "name = 'x'\npaths = ['drawn:jmp=2']", "no option 'jmp' (did you mean jump?)"),
        ("name = 'x'", "name = 'x'\npaths = ['drawn', 'drawn']", "paths: drawn is there twice"),
        ("name = 'x'", "name = 'x'\npaths = ['drawn:visits=1/2']", "visits: 2 numbers for"),
        ("name = 'x'", "name = 'x'\nskips = [0.34]\npaths = ['drawn:jump=1']", "with skip 0.34: no paths of"),
        ("name = 'x'", "name = 'x'\nskips = [0.34]\npaths = ['drawn:together=5']", "no path visits"),
        (
            "strategies = ['checkfree']",
            "strategies = ['checkfree+']\npaths = ['drawn']",
            "so does checkfree+, which swaps the first and the last ones; set edge_swaps",
        ),
        ("[run]", "paths = ['drawn']\n[run]\nedge_swaps = 'odd'", "so does edge_swaps = \"odd\" in [run]"),
        (
            "loss_rates = [0.1]\n[run]",
            "loss_rates = [0.1]\npaths = ['drawn', 'drawn:swaps=1']\n[run]\nslots = 2",
            "drawn:swaps=1: with slots = 2, ",
        ),
    ] {
        let why = read(&good.replace(from, to)).unwrap_err();
        assert!(why.contains(says), "{why} does not say {says}");
    }
    assert!(Experiment::read(&dir.path().join("none.toml")).unwrap_err().to_string().contains("none.toml"));
}

#[test]
fn figures_pair_seeds() {
    let arm = |strategy: &str, seed: u64, losses: [f64; 3]| ArmResult {
        key: format!("{strategy}{seed}"),
        strategy: strategy.to_owned(),
        loss_rate: if strategy == "no failures" { 0.0 } else { 0.1 },
        failures: None,
        skip: 0.0,
        paths: None,
        seed,
        ended: "done".to_owned(),
        iterations: 100,
        around_holes: 0,
        refused: 0,
        virtual_s: 7200.0,
        iteration_s: 72.0,
        sent_bytes: 100,
        lost: Vec::new(),
        points: (0..3)
            .zip(losses)
            .map(|(index, validation_loss)| Point {
                iteration: 50 * index,
                at_s: 3600.0 * index as f64,
                validation_loss,
                training_loss: None,
            })
            .collect(),
        left_out: Vec::new(),
    };
    // Without failures: 3, 2, 1; after 80 iterations 1.4.
    let results = [
        arm("no failures", 1, [3.0, 2.0, 1.0]),
        arm("no failures", 2, [3.0, 2.0, 1.0]),
        arm("copy", 1, [3.0, 2.2, 1.2]),
        arm("copy", 2, [3.0, 2.4, 1.4]),
        arm("random", 1, [3.0, 2.5, 1.5]),
    ];
    let groups = figures(&results);
    let [calm, copy, random] = groups.as_slice() else { panic!("{groups:?}") };
    assert_eq!(calm.iterations_ratio.map(|figure| figure.mean), Some(1.0));
    let ratio = copy.iterations_ratio.unwrap();
    // 90 and 100 iterations over 80.
    assert!((ratio.mean - 95.0 / 80.0).abs() < 1e-9, "{ratio:?}");
    assert!((ratio.half_width.unwrap() - 12.706 * 5.0 / 80.0).abs() < 1e-3, "{ratio:?}");
    assert!((copy.final_loss_more.unwrap().mean - 0.3).abs() < 1e-9);
    assert!((copy.hours_to_target.unwrap().mean - 1.9).abs() < 1e-9);
    assert_eq!((random.iterations_ratio, random.short_of_target), (None, 1));
    assert_eq!(copy.curve[1].low, 2.2);
}

#[test]
fn traces_and_regions_fail_alike_for_every_strategy() {
    let dir = tempfile::tempdir().unwrap();
    let mut experiment = experiment(&["checkfree", "neighbour-snapshot:every=5"], &[], &[1]);
    let [lines, machines] = ["lines.jsonl", "machines.csv"].map(|name| dir.path().join(name));
    std::fs::write(&lines, "{\"iteration\":9,\"stage\":2,\"event\":\"lose\"}\n").unwrap();
    let trace = "0,add,a\n0,add,b\n0,add,c\n0,add,d\n100000,remove,c\n160000,add,e\n";
    std::fs::write(&machines, trace).unwrap();
    experiment.traces = vec![lines.clone(), machines];
    experiment.run.churn_speed = Some(1.0);
    experiment.region_loss_rates = vec![0.05];
    experiment.run.wan = Some("gcp12".to_owned());
    experiment.check().unwrap();
    let (results, _) = run(&experiment, dir.path(), 2);
    let [_, by_region, by_region_too, by_line, by_line_too, by_machine, by_machine_too] = results.as_slice()
    else {
        panic!("{results:?}")
    };
    let failed: Vec<String> = results.iter().map(ArmResult::what_failed).collect();
    assert_eq!(
        failed[1..].iter().step_by(2).collect::<Vec<_>>(),
        ["regions 0.05", "lines.jsonl", "machines.csv"]
    );
    let lost = |result: &ArmResult| -> Vec<_> {
        result.lost.iter().map(|lost| (lost.iteration, lost.stage)).collect()
    };
    assert_eq!(lost(by_line), [(9, 2)]);
    assert_eq!(lost(by_line), lost(by_line_too));
    assert!(!by_region.lost.is_empty() && lost(by_region) == lost(by_region_too), "{by_region:?}");
    let [lost_to_market] = by_machine.lost.as_slice() else { panic!("{:?}", by_machine.lost) };
    // No machine is there for a minute.
    assert!(lost_to_market.back_s.unwrap() - lost_to_market.at_s > 59.0, "{lost_to_market:?}");
    assert!(by_machine.around_holes > 0);
    assert_eq!(lost(by_machine), lost(by_machine_too));
    // What a trace says is part of an arm's content.
    std::fs::write(&lines, "{\"iteration\":11,\"stage\":2,\"event\":\"lose\"}\n").unwrap();
    let (again, others) = run(&experiment, dir.path(), 2);
    assert_eq!((again[3].lost[0].iteration, others), (11, 2));
}

#[test]
fn trained_models_are_tried_without_some_of_their_stages() {
    let dir = tempfile::tempdir().unwrap();
    let mut experiment = experiment(&["copy"], &[0.0], &[1]);
    experiment.skips = vec![0.0, 0.34];
    let (plain, _) = run(&experiment, dir.path(), 2);
    assert!(plain.iter().all(|result| result.left_out.is_empty()));
    experiment.eval_skips = vec![0.34, 0.67];
    experiment.check().unwrap();
    let (results, others) = run(&experiment, dir.path(), 2);
    assert_eq!(others, 2, "these are other results");
    for (result, plain) in results.iter().zip(&plain) {
        assert_eq!(result.points, plain.points);
        let visited: Vec<usize> = result.left_out.iter().map(|left_out| left_out.relays_visited).collect();
        assert_eq!(visited, [2, 1]);
        let whole = result.final_loss().unwrap().exp();
        for left_out in &result.left_out {
            assert!((left_out.perplexity / whole - left_out.ratio).abs() < 1e-9, "{left_out:?}");
        }
    }
    let groups = figures(&results);
    assert_eq!(groups[0].over_unskipped.map(|figure| figure.mean), Some(1.0));
    assert!(groups[1].over_unskipped.is_some_and(|figure| figure.mean > 0.5), "{groups:?}");
    let text = markdown(&experiment, &groups);
    assert!(text.contains("34 % left out") && text.contains("over training without skips"), "{text}");
    let files = write_pages(&experiment, &groups, dir.path()).unwrap();
    let svgs: Vec<_> = files.iter().filter(|file| file.extension().is_some_and(|end| end == "svg")).collect();
    assert_eq!((svgs.len(), files.len()), (2, 6), "by iterations and by hours: {files:?}");
    for svg in svgs {
        let drawing = std::fs::read_to_string(svg).unwrap();
        assert!(drawing.contains(">34 % skipped</text>") && drawing.contains("nats per token"), "{drawing}");
        assert!(std::fs::read(svg.with_extension("png")).unwrap().starts_with(b"\x89PNG"), "{svg:?}");
    }
}

/// Three relay stages, of which a path visits two.
fn experiment_of_paths(paths: &[&str], rates: &[f64]) -> Experiment {
    let mut experiment = experiment(&["checkfree"], rates, &[1]);
    experiment.skips = vec![0.34];
    experiment.paths = paths.iter().map(|text| (*text).to_owned()).collect();
    experiment.check().unwrap();
    experiment
}

#[test]
fn kinds_of_paths_are_compared_and_planned_ones_are_as_before() {
    let dir = tempfile::tempdir().unwrap();
    run(&experiment_of_paths(&[], &[0.0]), dir.path(), 2);
    let before = lines(dir.path());
    let experiment =
        experiment_of_paths(&["planned", "balanced", "drawn", "drawn:swaps=1,distance=2"], &[0.0]);
    let (results, others) = run(&experiment, dir.path(), 2);
    let [planned, balanced, drawn, swapped] = results.as_slice() else { panic!("{results:?}") };
    assert_eq!(others, 0, "planned paths have the key that they have where nothing is said");
    assert!(lines(dir.path()).starts_with(&before) && !before.contains("paths"));
    assert_eq!(planned.points, balanced.points, "without links to search over");
    let kinds: Vec<_> = results.iter().map(ArmResult::paths).collect();
    assert_eq!(kinds, experiment.paths);
    let loss = |result: &ArmResult| result.final_loss().unwrap();
    assert!(loss(drawn) != loss(planned) && loss(swapped) != loss(drawn));
    let groups = figures(&results);
    let more: Vec<_> = groups.iter().map(|group| group.more_than_first_paths.map(|more| more.mean)).collect();
    assert_eq!(more[..2], [None, Some(0.0)]);
    assert_eq!(more[3], Some(loss(swapped) - loss(planned)));
    let text = markdown(&experiment, &groups);
    assert!(
        text.contains("| skip | paths | failures |") && text.contains("| more than with planned |"),
        "{text}"
    );
    assert!(text.contains("| 0.34 | drawn:swaps=1,distance=2 | 0 | no failures |"), "{text}");
    let files = write_pages(&experiment, &groups, dir.path()).unwrap();
    let chart = files.iter().find(|path| path.ends_with("loss-by-iterations-without-failures-skip-0.34.svg"));
    let chart = std::fs::read_to_string(chart.unwrap()).unwrap();
    assert!(experiment.paths.iter().all(|paths| chart.contains(paths.as_str())), "{chart}");
    let text = markdown(&experiment, &groups[..1]);
    assert!(!text.contains("paths"), "{text}");
}

#[test]
fn drawn_paths_that_go_back_go_around_lost_stages() {
    let dir = tempfile::tempdir().unwrap();
    let mut experiment =
        experiment_of_paths(&["drawn:visits=2/1/1", "drawn:swaps=2,distance=2,visits=2/1/1"], &[0.05]);
    experiment.run.while_lost = WhileLost::Skip;
    // More than a node would have slots for.
    experiment.run.microbatches = 12;
    experiment.check().unwrap();
    let slots: Vec<_> = experiment.arms().unwrap().into_iter().map(|arm| arm.config.slots).collect();
    assert_eq!(slots, [None, None, Some(12), Some(12)]);
    let (results, _) = run(&experiment, dir.path(), 2);
    let [calm, lossy, calm_too, lossy_too] = results.as_slice() else { panic!("{results:?}") };
    for (lossy, calm) in [(lossy, calm), (lossy_too, calm_too)] {
        assert_eq!((lossy.iterations, lossy.ended.as_str(), lossy.refused), (40, "done", 0));
        assert!(lossy.around_holes > 0 && lossy.lost.iter().all(|lost| lost.back_s.is_some()), "{lossy:?}");
        assert!(lossy.final_loss() != calm.final_loss() && calm.around_holes == 0);
    }
    assert_eq!(lossy.lost.len(), lossy_too.lost.len());
    // Both kinds of paths in pictures of their own.
    let files = write_pages(&experiment, &figures(&results), dir.path()).unwrap();
    let names: Vec<_> = files.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    for paths in ["drawn-visits-2-1-1", "drawn-swaps-2-distance-2-visits-2-1-1"] {
        assert!(
            names.contains(&format!("loss-by-hours-rate-0.05-skip-0.34-paths-{paths}.svg").as_str()),
            "{names:?}"
        );
    }
}

#[test]
fn redundant_computation_loses_nothing_and_pays_with_time_and_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (results, _) = run(&experiment(&["redundant", "oracle"], &[0.03], &[1]), dir.path(), 2);
    let [calm, redundant, oracle] = results.as_slice() else { panic!("{results:?}") };
    assert!(!redundant.lost.is_empty());
    let loss = |result: &ArmResult| result.final_loss().unwrap();
    // Halves of microbatches are added up in another order.
    assert!((loss(redundant) - loss(calm)).abs() < 1e-3, "{} {}", loss(redundant), loss(calm));
    // A forward more to a forward and a backward of twice that; twice as many microbatches leave less of a bubble.
    let slower = redundant.iteration_s / oracle.iteration_s;
    assert!((1.02..1.34).contains(&slower), "{slower}");
    assert!(redundant.sent_bytes > oracle.sent_bytes);
}

#[test]
fn an_arm_that_happens_to_lose_nothing_has_the_result_of_the_one_without_failures_and_its_own_name() {
    let dir = tempfile::tempdir().unwrap();
    // At this rate nothing is lost in 40 iterations, and at both of these the same.
    let experiment = experiment(&["checkfree", "copy"], &[0.000_001, 0.000_002], &[1, 2]);
    let (results, others) = run(&experiment, dir.path(), 2);
    assert_eq!((results.len(), others), (10, 0));
    assert!(results.iter().all(|result| result.lost.is_empty()));
    let names: Vec<_> =
        results.iter().map(|result| (result.strategy.as_str(), result.loss_rate, result.seed)).collect();
    let expected: Vec<_> = [("no failures", 0.0)]
        .into_iter()
        .chain([0.000_001, 0.000_002].into_iter().flat_map(|rate| [("checkfree", rate), ("copy", rate)]))
        .flat_map(|(strategy, rate)| [1, 2].map(|seed| (strategy, rate, seed)))
        .collect();
    assert_eq!(names, expected);
    // What checkfree does without losses is the run without failures; copy sends no more, but is an arm of its own.
    assert_eq!(lines(dir.path()).lines().count(), 4);
    let groups = figures(&results);
    assert_eq!(groups.len(), 5);
    assert!(groups.iter().all(|group| group.seeds == 2 && group.iterations_ratio.is_some()));
    assert_eq!(run(&experiment, dir.path(), 1), (results, 0), "all of it is cached");
}

#[test]
fn what_is_there_twice_is_refused() {
    let with = |change: fn(&mut Experiment)| {
        let mut experiment = experiment(&["checkfree"], &[0.1], &[1]);
        change(&mut experiment);
        experiment.check().map_err(|why| why.to_string())
    };
    assert_eq!(with(|_| {}), Ok(()));
    let changes: [fn(&mut Experiment); 5] = [
        |experiment| experiment.seeds.push(1),
        |experiment| experiment.strategies.push("checkfree".to_owned()),
        |experiment| experiment.loss_rates.push(LossRate::Each(0.1)),
        |experiment| experiment.skips = vec![0.0, 0.5, 0.0],
        |experiment| experiment.paths = vec!["drawn".to_owned(), "drawn".to_owned()],
    ];
    for change in changes {
        let why = with(change).unwrap_err();
        assert!(why.contains("is there twice"), "{why}");
    }
}

#[test]
fn the_only_kind_of_paths_is_named_unless_it_is_the_planned_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut experiment = experiment(&["checkfree"], &[0.0], &[1]);
    experiment.run.steps = 8;
    let table = |experiment: &Experiment| {
        let (results, _) = run(experiment, dir.path(), 1);
        write_pages(experiment, &figures(&results), dir.path()).unwrap();
        std::fs::read_to_string(dir.path().join("table.md")).unwrap()
    };
    assert!(!table(&experiment).contains("paths"));
    experiment.paths = vec!["drawn:swaps=1".to_owned()];
    assert!(table(&experiment).contains("| drawn:swaps=1 |"));
    let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(page.contains("drawn:swaps=1"));
}
