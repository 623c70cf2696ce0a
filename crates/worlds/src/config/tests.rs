use super::*;
use skipstone_types::{Iteration, StageId};

#[test]
fn defaults_are_a_run() {
    let config = RunConfig::default();
    config.check().unwrap();
    let settings = config.settings().unwrap();
    assert_eq!((settings.relay_stages, settings.nodes(), settings.origin_like_relay), (4, 5, false));
    let shape = config.shape(300).unwrap();
    assert_eq!(shape.stage_spec(StageId(4)).layers, 3..4);
    assert_eq!(shape.model.vocab_size, 300);
    let plan = config.memory_plan(300).unwrap();
    assert!(plan.to_string().contains("4 × relay"), "{plan}");
    assert_eq!(plan.total(), plan.nodes[0].total() + 4 * plan.nodes[1].total());
    // The default keeps copies, in a byte a number and the scales of 64.
    let precise = RunConfig { recovery: "neighbour-snapshot".to_owned(), ..config.clone() };
    let precise = precise.memory_plan(300).unwrap();
    for (rounded, exact) in plan.nodes.iter().zip(&precise.nodes) {
        let share = rounded.copies as f64 / exact.copies as f64;
        assert!((0.26..0.28).contains(&share), "{share}");
    }
    // In float32 the origin keeps itself, frozen, and two relay stages, one of them as it was and as it is now.
    let [origin, relay] = [0, 1].map(|index| &precise.nodes[index]);
    let state = |node: &memory::NodeMemory| node.parameters + node.moments;
    assert_eq!(origin.copies, state(origin) + 3 * state(relay));
    let largest = state(origin).max(state(relay));
    assert_eq!(relay.copies, 2 * state(relay) + 2 * largest);
    let of = |recovery: &str| {
        let config = RunConfig { recovery: recovery.to_owned(), ..config.clone() };
        config.memory_plan(300).unwrap()
    };
    let bare = of("checkfree");
    // Two boundary tensors of each microbatch; who keeps three iterations has one more, and six.
    for (taught, bare) in of("match:kept=3").nodes.iter().zip(&bare.nodes) {
        assert_eq!(2 * taught.retained, 9 * bare.retained);
        assert_eq!(taught.total() - taught.retained, bare.total() - bare.retained);
    }
    assert_eq!(bare.nodes[0].copies + bare.nodes[1].copies, 0);
}

#[test]
fn goes_through_toml_unchanged_and_refuses_unknown_options() {
    let config = RunConfig { data: Some("x.txt".into()), slots: Some(3), skip: 0.33, ..RunConfig::default() };
    let again: RunConfig = toml::from_str(&config.to_toml().unwrap()).unwrap();
    assert_eq!(again, config);
    assert_eq!(toml::from_str::<RunConfig>("").unwrap(), RunConfig::default());
    let error = toml::from_str::<RunConfig>("stagse = 4").unwrap_err();
    assert!(error.message().contains("unknown field `stagse`"), "{error}");
}

#[test]
fn stages_are_swapped_where_the_strategy_asks_for_it_or_somebody_does() {
    let swaps = |recovery: &str, edge_swaps, slots| {
        let config = RunConfig { recovery: recovery.to_owned(), edge_swaps, slots, ..RunConfig::default() };
        config.settings().map(|settings| settings.edge_swaps).map_err(|why| why.to_string())
    };
    let (off, odd) = (EdgeSwaps::Off, EdgeSwaps::Odd);
    assert_eq!(swaps("checkfree", None, Some(1)), Ok(off));
    assert_eq!(swaps("checkfree+:partners=copy", None, None), Ok(odd));
    assert_eq!(swaps("checkfree+", Some(off), Some(1)), Ok(off));
    assert_eq!(swaps("random", Some(odd), Some(2)), Ok(odd));
    assert!(
        swaps("checkfree+", None, Some(1))
            .unwrap_err()
            .contains("pass --slots 2 or more, or --edge-swaps off")
    );
    let alone =
        RunConfig { stages: 1, slots: Some(1), recovery: "checkfree+".to_owned(), ..RunConfig::default() };
    assert!(alone.settings().is_ok(), "one relay stage has nothing to swap");
}

#[test]
fn an_uneven_cut_names_the_nearest_that_work() {
    let config = RunConfig { layers: Some(12), stages: 5, ..RunConfig::default() };
    let error = config.settings().unwrap_err().to_string();
    for way in ["--stages 4", "--stages 6", "--layers 10", "--layers 15"] {
        assert!(error.contains(way), "{error}");
    }
    let config = RunConfig { layers: Some(12), stages: 5, origin_layers: 2, ..RunConfig::default() };
    assert!(config.settings().unwrap().origin_like_relay);
}

#[test]
fn every_bound_is_checked() {
    let ok = RunConfig::default;
    let bad = vec![
        RunConfig { price_per_gb: Some(-1.0), ..ok() },
        RunConfig { price_per_gb: Some(f64::INFINITY), ..ok() },
        RunConfig { device: "cuda".into(), ..ok() },
        RunConfig { repair: Repair::Drop, ..ok() },
        RunConfig { recovery: "hope".into(), ..ok() },
        RunConfig { stages: 0, ..ok() },
        RunConfig { replicas: 65, ..ok() },
        RunConfig { replicas: 64, stages: 1000, ..ok() },
        RunConfig { batch: 0, ..ok() },
        RunConfig { microbatches: 5000, ..ok() },
        RunConfig { steps: 0, ..ok() },
        RunConfig { context: Some(0), ..ok() },
        RunConfig { slots: Some(0), ..ok() },
        RunConfig { threads: Some(0), ..ok() },
        RunConfig { lr: f64::NAN, ..ok() },
        RunConfig { min_lr: Some(1.0), ..ok() },
        RunConfig { skip: 1.0, ..ok() },
        RunConfig { beta1: 1.0, ..ok() },
        RunConfig { clip: -1.0, ..ok() },
        RunConfig { epsilon: 0.0, ..ok() },
        RunConfig { weight_decay: 2.0, ..ok() },
        RunConfig { save_every_s: -1.0, ..ok() },
        RunConfig { story_bytes: 1, ..ok() },
        RunConfig { churn: Some("often".into()), ..ok() },
        RunConfig { notice_command: Some(" ".into()), ..ok() },
        RunConfig { model: "9b".into(), ..ok() },
        RunConfig { model: "none.json".into(), ..ok() },
        RunConfig { heads: Some(3), ..ok() },
    ];
    for config in bad {
        let outcome = config.settings().and_then(|_| config.shape(300).map(drop));
        assert!(outcome.is_err(), "{config:?}");
    }
}

#[test]
fn churn_in_all_its_forms() {
    let parse = |text: &str| Churn::parse(text, &|name| (name == "here").then_some(5));
    assert_eq!(parse("16%/h").unwrap(), Churn::PerNodeHour(0.16));
    assert_eq!(parse("every 20s").unwrap(), Churn::Every(std::time::Duration::from_secs(20)));
    assert_eq!(parse("every 2m").unwrap(), Churn::Every(std::time::Duration::from_mins(2)));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    std::fs::write(
        &path,
        "{\"t_s\":2,\"stage\":1,\"event\":\"kill\"}\n{\"t_s\":1,\"node\":3,\"event\":\"drain\"}\n{\"iteration\":7,\"stage\":2,\"event\":\"lose\"}\n\
         {\"t_s\":3,\"region\":\"here\",\"event\":\"kill\"}\n",
    )
    .unwrap();
    let Churn::Trace(lines) = parse(path.to_str().unwrap()).unwrap() else { panic!() };
    let at = |t_s| When::At(std::time::Duration::from_secs(t_s));
    let expected = [
        Kill::new(at(2), Target::Stage(StageId(1))),
        Kill { when: at(1), target: Target::Node(3), notice: true },
        Kill::new(When::Iteration(Iteration(7)), Target::WholeStage(StageId(2))),
        Kill::new(at(3), Target::Region(5)),
    ];
    assert_eq!(lines, expected);
    for (line, why) in [
        ("{\"t_s\":3,\"region\":\"mars\",\"event\":\"kill\"}", "region 'mars' is not one"),
        ("{\"t_s\":3,\"iteration\":3,\"stage\":1,\"event\":\"kill\"}", "either t_s or an iteration"),
        ("{\"t_s\":3,\"node\":1,\"event\":\"lose\"}", "only these two are lost"),
        ("{\"t_s\":3,\"node\":1,\"event\":\"eat\"}", "event 'eat'"),
    ] {
        std::fs::write(&path, line).unwrap();
        let refusal = parse(path.to_str().unwrap()).unwrap_err().to_string();
        assert!(refusal.contains("line 1") && refusal.contains(why), "{refusal}");
    }
    for bad in ["0%/h", "x%/h", "every", "every -1s"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}
