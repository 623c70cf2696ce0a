use super::*;
use crate::config::RunConfig;

/// Two relay stages and the origin, half a second a forward.
fn config() -> RunConfig {
    RunConfig {
        tokenizer: "bytes".to_owned(),
        layers: Some(2),
        width: Some(32),
        heads: Some(2),
        context: Some(32),
        batch: 2,
        microbatches: 4,
        stages: 2,
        steps: 20,
        pace: Some(0.5),
        ..RunConfig::default()
    }
}

fn run(config: &RunConfig) -> Simulated {
    simulate(CostModel::of_run(config).unwrap(), &mut |_| {}).unwrap()
}

#[test]
fn a_pipeline_takes_what_its_tasks_take() {
    let simulated = run(&config());
    assert_eq!((simulated.summary.steps, simulated.summary.ended.as_deref()), (20, Some("done")));
    // A relay has 4 forwards of 0.5 s and 4 backwards of 1 s; before its first comes nothing that takes time, between
    // the first relay's forwards and backwards at least the other's and the loss.
    let bound_s = 4.0 * 1.5;
    let mean_s = simulated.iteration.mean_s;
    assert!((bound_s..1.6 * bound_s).contains(&mean_s), "{mean_s}");
    assert!(simulated.summary.badput.bubble > 0.0);
}

#[test]
fn one_microbatch_walks_alone() {
    let simulated = run(&RunConfig { microbatches: 1, ..config() });
    // Two forwards, loss, two backwards: 3.125 s, and a little for all that has no model.
    let mean_s = simulated.iteration.mean_s;
    assert!((3.125..3.2).contains(&mean_s), "{mean_s}");
}

#[test]
fn links_are_walked_through() {
    let near = run(&RunConfig { microbatches: 1, ..config() });
    let far = run(&RunConfig { microbatches: 1, wan: Some("gcp12".to_owned()), ..config() });
    // The origin in Australia, relays in Belgium and Canada: twice the circle of 129 + 41 + 98 ms, and what the
    // coordinator says.
    let more_s = far.iteration.mean_s - near.iteration.mean_s;
    assert!((2.0 * 0.268..2.0 * 0.268 + 0.8).contains(&more_s), "{more_s}");
    assert!(far.summary.badput.link > near.summary.badput.link);
}

#[test]
fn the_same_run_twice_is_the_same_run() {
    let config = RunConfig { replicas: 2, churn: Some("every 20s".to_owned()), steps: 40, ..config() };
    let simulated = run(&config);
    assert_eq!(simulated, run(&config));
    assert!(simulated.summary.kills > 3, "{}", simulated.summary.kills);
    assert_eq!((simulated.summary.steps, simulated.summary.ended.as_deref()), (40, Some("done")));
    let other = run(&RunConfig { seed: 1, ..config });
    assert_ne!(simulated, other);
}

#[test]
fn churn_costs_and_is_accounted_for() {
    let calm = RunConfig { replicas: 2, steps: 60, ..config() };
    let churned = RunConfig { churn: Some("every 15s".to_owned()), ..calm.clone() };
    let (calm, churned) = (run(&calm), run(&churned));
    assert!(calm.summary.kills == 0 && calm.summary.badput.detection == 0.0);
    assert!(churned.summary.goodput < calm.summary.goodput);
    let accounted = churned.summary.goodput * churned.summary.node_seconds + churned.summary.badput.total();
    assert!((accounted - churned.summary.node_seconds).abs() < 1e-3 * churned.summary.node_seconds);
    assert!(churned.summary.badput.recovery > 0.0 && churned.summary.recoveries.len() > 3);
}

#[test]
fn without_a_pace_nothing_can_be_said() {
    let config = RunConfig { pace: None, ..config() };
    assert!(matches!(CostModel::of_run(&config), Err(SimulateError::NoPace)));
}

#[test]
fn a_run_that_can_not_go_on_says_so() {
    let config = RunConfig {
        churn: Some("every 5s".to_owned()),
        respawn: false,
        while_lost: skipstone_types::WhileLost::Wait,
        ..config()
    };
    let ended = simulate(CostModel::of_run(&config).unwrap(), &mut |_| {});
    assert!(matches!(ended, Err(SimulateError::Standstill { .. })), "{ended:?}");
}

/// Three regions in a ring, where `more` is said of each link; how long iterations of one microbatch take with these seeds.
fn ring(more: &str, seeds: &[u64]) -> Vec<Simulated> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table.json");
    let links = [("x", "y"), ("y", "z"), ("z", "x")].map(|(a, b)| {
        format!(r#"{{"a": "{a}", "b": "{b}", "latency_s": 0.05, "bandwidth_Bps": 1e5{more}}}"#)
    });
    let links = links.join(", ");
    let text = format!(
        r#"{{"regions": {{"intra": {{"latency_s": 0, "bandwidth_Bps": 1e9}}, "links": [{links}]}}}}"#
    );
    std::fs::write(&path, text).unwrap();
    let wan = path.to_str().map(str::to_owned);
    let config = RunConfig { microbatches: 1, wan, steps: 60, ..config() };
    seeds.iter().map(|seed| run(&RunConfig { seed: *seed, ..config.clone() })).collect()
}

#[test]
fn a_link_may_be_shorter_one_way_than_the_other() {
    // Around the ring there and back: 3 × 50 ms and 3 × 250 ms, in place of 6 × 50 ms.
    let even = ring("", &[0]);
    let uneven = ring(r#", "back": {"latency_s": 0.25}"#, &[0]);
    let [even, uneven] = [&even[0], &uneven[0]].map(|run| (run.iteration.mean_s, run.iteration.expected_s));
    assert!((0.6..1.2).contains(&(uneven.0 - even.0)), "{uneven:?} {even:?}");
    // The tensors' ways are 0.6 s of it to the planner too; the rest is what the coordinator says.
    assert!((0.6..1.2).contains(&(uneven.1.unwrap() - even.1.unwrap())), "{uneven:?} {even:?}");
    // The slow way is taken once an iteration whichever direction of the ring it is.
    let bandwidth = ring(r#", "back": {"bandwidth_Bps": 2e4}"#, &[0]);
    let bytes = 4.0 * 2.0 * 32.0 * 32.0;
    let more_s = bandwidth[0].iteration.mean_s - even.0;
    assert!((more_s - 3.0 * bytes * (1.0 / 2e4 - 1.0 / 1e5)).abs() < 0.1, "{more_s}");
}

#[test]
fn jitter_and_loss_follow_from_the_seed_and_plans_reckon_with_their_mean() {
    let unsteady = r#", "jitter_s": 0.2, "loss": 0.05"#;
    let steady = ring("", &[0]);
    let runs = ring(unsteady, &[0, 0, 1]);
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0].iteration.mean_s, runs[2].iteration.mean_s);
    for run in [&runs[0], &runs[2]] {
        let IterationTimes { mean_s, expected_s, .. } = run.iteration;
        assert!(mean_s > steady[0].iteration.mean_s + 6.0 * 0.1, "{mean_s}");
        let ratio = mean_s / expected_s.unwrap();
        // The coordinator waits for three nodes, so that it is the latest of three that counts, and not the mean.
        assert!((1.0..1.2).contains(&ratio), "{mean_s} s, {expected_s:?} s expected");
    }
}

/// Ten nodes on ten continents' worth of links, tasks of 50 ms.
fn spread() -> RunConfig {
    RunConfig {
        wan: Some("gcp12".to_owned()),
        pace: Some(0.05),
        stages: 4,
        layers: Some(4),
        replicas: 2,
        microbatches: 8,
        skip: 0.25,
        ..config()
    }
}

#[test]
fn placed_by_the_planner_an_iteration_is_shorter_than_placed_as_they_come() {
    let model = CostModel::of_run(&spread()).unwrap();
    assert!(model.settings.places);
    let mut as_they_come = model.clone();
    as_they_come.settings.places = false;
    let mean_s = |model: CostModel| simulate(model, &mut |_| {}).unwrap().iteration.mean_s;
    let (placed_s, as_they_come_s) = (mean_s(model), mean_s(as_they_come));
    assert!(placed_s < 0.95 * as_they_come_s, "{placed_s} s placed, {as_they_come_s} s as they come");
}

#[test]
fn plans_over_links_expect_what_the_protocol_takes() {
    for (replicas, skip, seed) in [(2, 0.25, 0), (3, 0.0, 1), (1, 0.5, 2)] {
        let simulated = run(&RunConfig { replicas, skip, seed, ..spread() });
        let IterationTimes { mean_s, expected_s, .. } = simulated.iteration;
        let expected_s = expected_s.expect("links are planned for");
        let ratio = mean_s / expected_s;
        assert!((0.97..1.08).contains(&ratio), "{mean_s} s, and {expected_s} s expected");
    }
    assert_eq!(run(&config()).iteration.expected_s, None);
}

#[test]
fn a_node_that_comes_back_far_from_its_stage_is_placed_where_it_serves_best() {
    let config = RunConfig { churn: Some("every 20s".to_owned()), spares: 1, steps: 60, ..spread() };
    let simulated = run(&config);
    assert_eq!((simulated.summary.steps, simulated.summary.ended.as_deref()), (60, Some("done")));
    assert!(simulated.summary.kills > 2, "{}", simulated.summary.kills);
    assert_eq!(simulated, run(&config));
}
