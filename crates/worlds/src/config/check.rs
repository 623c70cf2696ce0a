//! Bounds of every option.

use super::{ConfigError, Repair, RunConfig};
use crate::wan::PACE_FROM_TABLE;
use std::fmt::Display;

/// The most processes that one machine is asked to run.
const NODES_MAX: usize = 1024;

/// The longest time between saves, in seconds: more than a duration holds would end the run.
const SAVE_EVERY_S_MAX: f64 = 1e9;

/// The longest forward that a run is paced to, in seconds.
const PACE_S_MAX: f64 = 3600.0;

pub(super) fn check(config: &RunConfig) -> Result<(), ConfigError> {
    if config.device != "cpu" {
        return Err(ConfigError::Device(config.device.clone()));
    }
    if config.repair == Repair::Drop {
        return Err(ConfigError::RepairDrop);
    }
    skipstone_recovery::strategy(&config.recovery)?;
    config.churn_plan()?;
    if config.wan.is_some() && config.links.is_some() {
        return Err(ConfigError::TwoTables);
    }
    let table = config.wan_table()?;
    if config.notice_command.as_ref().is_some_and(|command| command.trim().is_empty()) {
        return Err(ConfigError::NoticeCommand);
    }
    if let Some(url) = &config.checkpoint_to {
        skipstone_store::Location::parse(url)?;
    }
    integers(config)?;
    numbers(config)?;
    config.fixed_plan()?;
    if config.pace == Some(PACE_FROM_TABLE) && table.is_none_or(|table| table.node_speeds.is_empty()) {
        return Err(ConfigError::PaceUnknown);
    }
    Ok(())
}

#[allow(clippy::needless_pass_by_value, reason = "numbers, which are copied")]
fn range(option: &'static str, value: impl Display, range: &'static str) -> ConfigError {
    ConfigError::Range { option, value: value.to_string(), range }
}

fn integers(config: &RunConfig) -> Result<(), ConfigError> {
    let bounds: [(&'static str, u64, u64, u64, &'static str); 9] = [
        ("stages", config.stages.into(), 1, 1000, "between 1 and 1000"),
        ("replicas", config.replicas.into(), 1, 64, "between 1 and 64"),
        ("batch", config.batch as u64, 1, 1 << 16, "between 1 and 65536"),
        ("microbatches", config.microbatches.into(), 1, 4096, "between 1 and 4096"),
        ("steps", config.steps, 1, 1 << 48, "between 1 and 2^48"),
        ("context", config.context.unwrap_or(1) as u64, 1, 1 << 20, "between 1 and 1048576"),
        ("slots", config.slots.unwrap_or(1).into(), 1, 1 << 16, "between 1 and 65536"),
        ("threads", config.threads.unwrap_or(1) as u64, 1, 1024, "between 1 and 1024"),
        ("origin-layers", config.origin_layers as u64, 0, 1 << 16, "between 0 and 65536"),
    ];
    for (option, value, least, most, text) in bounds {
        if !(least..=most).contains(&value) {
            return Err(range(option, value, text));
        }
    }
    let sizes = &config.stage_sizes;
    if !sizes.is_empty() && sizes.len() != usize::from(config.stages) + 1 {
        return Err(ConfigError::StageSizes { found: sizes.len(), stages: usize::from(config.stages) + 1 });
    }
    if let Some(wrong) = sizes.iter().find(|size| !(1..=64).contains(*size)) {
        return Err(range("stage-sizes", wrong, "between 1 and 64 each"));
    }
    if config.nodes() > NODES_MAX {
        return Err(range(
            "replicas",
            config.replicas,
            "so that replicas × (stages + 1) + spares is at most 1024",
        ));
    }
    if config.data.is_none() && !(1 << 12..=1 << 32).contains(&config.story_bytes) {
        return Err(range("story-bytes", config.story_bytes, "between 4 KiB and 4 GiB"));
    }
    Ok(())
}

fn numbers(config: &RunConfig) -> Result<(), ConfigError> {
    let positive = |value: f64| value.is_finite() && value > 0.0;
    let from_zero = |value: f64| value.is_finite() && value >= 0.0;
    if !positive(config.lr) || config.lr > 10.0 {
        return Err(range("lr", config.lr, "above 0 and at most 10"));
    }
    if config.min_lr.is_some_and(|rate| !from_zero(rate) || rate > config.lr) {
        return Err(range("min-lr", config.min_lr.unwrap_or_default(), "between 0 and --lr"));
    }
    if !(0.0..1.0).contains(&config.skip) {
        return Err(range("skip", config.skip, "a ratio from 0 up to, not including, 1 (a third is 0.33)"));
    }
    for (option, beta) in [("beta1", config.beta1), ("beta2", config.beta2)] {
        if !(0.0..1.0).contains(&beta) {
            return Err(range(option, beta, "from 0 up to, not including, 1"));
        }
    }
    if !positive(config.epsilon.into()) {
        return Err(range("epsilon", config.epsilon, "above 0"));
    }
    if !from_zero(config.weight_decay.into()) || config.weight_decay > 1.0 {
        return Err(range("weight-decay", config.weight_decay, "between 0 and 1"));
    }
    if !from_zero(config.clip) {
        return Err(range("clip", config.clip, "0 (no clipping) or more"));
    }
    if config.pace.is_some_and(|seconds| !from_zero(seconds) || seconds > PACE_S_MAX) {
        return Err(range(
            "pace",
            config.pace.unwrap_or_default(),
            "between 0 (as the --wan table says) and 3600 seconds",
        ));
    }
    if config.domain_price.is_some_and(|seconds| !from_zero(seconds) || seconds > PACE_S_MAX) {
        return Err(range(
            "domain-price",
            config.domain_price.unwrap_or_default(),
            "between 0 (failures are not thought of) and 3600 seconds",
        ));
    }
    if config.price_per_hour.is_some_and(|price| !from_zero(price) || price > 1e9) {
        return Err(range("price-per-hour", config.price_per_hour.unwrap_or_default(), "between 0 and 1e9"));
    }
    if config.price_per_gb.is_some_and(|price| !from_zero(price) || price > 1e9) {
        return Err(range("price-per-gb", config.price_per_gb.unwrap_or_default(), "between 0 and 1e9"));
    }
    if !from_zero(config.save_every_s) || config.save_every_s > SAVE_EVERY_S_MAX {
        return Err(range("save-every", config.save_every_s, "between 0 (only at the end) and 1e9 seconds"));
    }
    Ok(())
}
