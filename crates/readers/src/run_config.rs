//! `run.toml` (`skipstone-worlds`).

use crate::{Broken, Reader, Seed, SeedError, Verdict, lost, refused, same, scratch, within};
use skipstone_types::{RateShape, WhileLost};
use skipstone_worlds::config::RunConfig;
use std::path::{Path, PathBuf};

/// The text, its tree of TOML values and its spans.
fn memory_max(input: usize) -> usize {
    (256 << 10) + 256 * input
}

pub(crate) const READER: Reader = Reader {
    name: "run_config",
    what: "RUN.toml of `skipstone train`, run.toml of a run",
    text: true,
    memory_max,
    read,
    mend: None,
    seeds,
};

fn read(bytes: &[u8]) -> Result<Verdict, Broken> {
    let path = scratch::file("run.toml", bytes)?;
    let read = within(memory_max(bytes.len()), bytes, || {
        let mut config = RunConfig::read(&path)?;
        // Traces, models and plans in files are other readers' inputs; here they would be any file of this machine.
        config.plan = None;
        config.churn = config.churn.filter(|churn| churn.ends_with("%/h") || churn.starts_with("every"));
        if Path::new(&config.model).extension().is_some() {
            config.model = RunConfig::default().model;
        }
        config.settings()?;
        config.data_request()?;
        let plan = config.memory_plan_expected()?;
        Ok::<_, skipstone_worlds::config::ConfigError>((config, plan))
    })?;
    match read {
        Ok((config, plan)) => {
            let once = config.to_toml().map_err(lost)?;
            let again = RunConfig::read(&scratch::file("again.toml", once.as_bytes())?).map_err(lost)?;
            same(&config, &again)?;
            if plan.total() == 0 { Err(lost("a run that takes no memory")) } else { Ok(Verdict::Taken) }
        }
        Err(why) => refused(why),
    }
}

fn seeds() -> Result<Vec<Seed>, SeedError> {
    let every_option = RunConfig {
        data: Some(PathBuf::from("stories.txt")),
        model: "124m".to_owned(),
        layers: Some(8),
        width: Some(256),
        heads: Some(8),
        kv_heads: Some(4),
        ffn: Some(512),
        origin_layers: 4,
        replicas: 2,
        stage_sizes: vec![3, 2, 2, 2, 1],
        spares: 1,
        skip: 0.25,
        stages: 4,
        full_every: 10,
        full_last: Some(20),
        while_lost: WhileLost::Wait,
        context: Some(64),
        min_lr: Some(1e-4),
        warmup: Some(10),
        schedule: RateShape::Constant,
        deterministic: true,
        edge_swaps: Some(skipstone_types::EdgeSwaps::Odd),
        spot_check_every: Some(20),
        slots: Some(6),
        churn: Some("16%/h".to_owned()),
        notice_command: Some("false".to_owned()),
        domain_price: Some(0.5),
        threads: Some(1),
        ..RunConfig::default()
    };
    // What a run takes is told without memory for each of its layers.
    let deep = RunConfig { layers: Some(20_484), ..RunConfig::default() };
    [("default", RunConfig::default()), ("every-option", every_option), ("deep", deep)]
        .into_iter()
        .map(|(name, config)| Ok((name.to_owned(), config.to_toml()?.into_bytes())))
        .collect()
}
