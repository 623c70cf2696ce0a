//! How often stages are copied, where a run is to find out by itself.

use super::{ConfigError, RunConfig};
use skipstone_recovery::StateFormat;
use skipstone_types::{Settings, StageId};

/// Bytes that copies may take, as a share of those that an iteration sends without them.
const BYTES_SHARE_MAX: f64 = 0.04;

/// Fewest iterations between copies: more often brings nothing that the lab could see (docs/recovery.md).
const EVERY_MIN: u64 = 8;

/// Most: older copies lose more than their bytes are worth.
const EVERY_MAX: u64 = 100;

/// Bytes of a number in memory.
pub(super) const VALUE_BYTES: f64 = 4.0;

/// Numbers of a weight's state: itself and two moments.
pub(super) const STATE_NUMBERS: f64 = 3.0;

/// Iterations between copies of every stage, so that they take at most 4 % of the bytes that an iteration of these settings sends
/// without them: boundary tensors, forward and backward, and the sums of gradients between replicas.
///
/// # Errors
/// A model that can't be built or cut so.
pub(super) fn copies_every(
    config: &RunConfig,
    settings: &Settings,
    format: StateFormat,
) -> Result<u64, ConfigError> {
    let shape = config.shape_expected()?;
    let boundary = config.wire.share() * VALUE_BYTES * (shape.tokens() * shape.model.hidden_size) as f64;
    // A path is a circle through the origin: as many ways forward as visits, and as many back.
    let boundaries = 2.0 * f64::from(settings.path_length()) * f64::from(settings.microbatches);
    let mut sent = boundaries * boundary;
    let mut copied = 0.0;
    for stage in (0..=config.stages).map(StageId) {
        let gradient = VALUE_BYTES * shape.parameters(stage) as f64;
        // Each replica gets its part from all others, and sends them its sum.
        let others = f64::from(config.size_of(stage).max(1)) - 1.0;
        sent += 2.0 * others * gradient * config.reduce.share();
        copied += STATE_NUMBERS * gradient * format.share();
    }
    Ok(((copied / (BYTES_SHARE_MAX * sent)).ceil() as u64).clamp(EVERY_MIN, EVERY_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(config: &RunConfig) -> String {
        config.settings().unwrap().recovery
    }

    #[test]
    fn copies_are_as_frequent_as_their_bytes_allow() {
        let small = RunConfig { microbatches: 64, ..RunConfig::default() };
        assert_eq!(small.recovery, "neighbour-snapshot:every=auto,dtype=int8");
        assert_eq!(every(&small), "neighbour-snapshot:every=8,dtype=int8");
        let large = RunConfig::half_a_billion();
        let settings = large.settings().unwrap();
        let chosen: u64 = settings.recovery["neighbour-snapshot:every=".len()..]
            .split(',')
            .next()
            .and_then(|every| every.parse().ok())
            .unwrap();
        assert!((20..80).contains(&chosen), "{chosen}");
        let more = RunConfig { microbatches: 32, ..large.clone() };
        assert!(copies_every(&more, &more.settings().unwrap(), StateFormat::Int8).unwrap() < chosen);
        let exact = copies_every(&large, &settings, StateFormat::F32).unwrap();
        assert!(exact > chosen, "a number takes four times as many bytes: {exact}");
        let said =
            RunConfig { recovery: "neighbour-snapshot:every=8,dtype=int8".to_owned(), ..large.clone() };
        assert_eq!(every(&said), said.recovery, "who says a number has it");
        let other = RunConfig { recovery: "checkfree".to_owned(), ..large };
        assert_eq!(every(&other), "checkfree");
    }
}
