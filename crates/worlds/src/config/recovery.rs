//! What a recovery strategy leaves to the run.

use super::copies::{STATE_NUMBERS, VALUE_BYTES, copies_every};
use super::{ConfigError, RunConfig};
use skipstone_recovery::{RETRACED_ITERATIONS_MAX, RETRACED_MAX, is_open, strategy, with_option};
use skipstone_types::{Settings, StageId};

/// Bytes that a node may always keep for whoever is restored, however small its stage is.
const KEPT_BYTES: f64 = (256_u64 << 20) as f64;

/// The strategy with a number for everything that the options leave open: how often stages are copied, and how many iterations are
/// kept so that restored ones can take their steps again.
///
/// # Errors
/// A strategy that is not known; a model that can't be built or cut so.
pub(super) fn settled(config: &RunConfig, settings: &Settings) -> Result<String, ConfigError> {
    let mut text = config.recovery.clone();
    if is_open(&text, "every") {
        let every = copies_every(config, settings, strategy(&text)?.copy_format())?;
        text = with_option(&text, "every", every);
    }
    if is_open(&text, "retrace") {
        let every = strategy(&text)?.copies_every(StageId(1)).map_or(1, std::num::NonZeroU64::get);
        text = with_option(&text, "retrace", iterations_kept(config, every)?);
    }
    Ok(text)
}

/// As many iterations as the older of two copies of a stage is old, but no more than one stage takes again, nor than for which a node
/// keeps what its own state takes, or [`KEPT_BYTES`].
fn iterations_kept(config: &RunConfig, every: u64) -> Result<u64, ConfigError> {
    let shape = config.shape_expected()?;
    let boundary = VALUE_BYTES * (shape.tokens() * shape.model.hidden_size) as f64;
    let replicas = (1..=config.stages).map(|stage| u32::from(config.size_of(StageId(stage))).max(1)).min();
    let microbatches = f64::from(config.microbatches.div_ceil(replicas.unwrap_or(1)));
    let state = STATE_NUMBERS * VALUE_BYTES * shape.parameters(StageId(1)) as f64;
    let fits = (state.max(KEPT_BYTES) / (2.0 * microbatches * boundary)) as u64;
    let taken_again = RETRACED_MAX as u64 / u64::from(config.microbatches.max(1));
    Ok(fits.min(taken_again).min(2 * every).min(RETRACED_ITERATIONS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retraced(config: &RunConfig) -> u64 {
        strategy(&config.settings().unwrap().recovery).unwrap().iterations_kept()
    }

    #[test]
    fn as_many_iterations_are_kept_as_copies_are_old_and_memory_allows() {
        let recovery = "neighbour-snapshot:every=auto,dtype=int8,retrace=auto".to_owned();
        let small = RunConfig { microbatches: 8, recovery, ..RunConfig::default() };
        assert_eq!(retraced(&small), 16);
        let many = RunConfig { microbatches: 64, ..small.clone() };
        assert_eq!(retraced(&many), 4, "256 microbatches");
        let recovery = "neighbour-snapshot:every=3,retrace=auto".to_owned();
        assert_eq!(retraced(&RunConfig { recovery, ..small.clone() }), 6);
        // 500 million weights, 16 microbatches of 1024 tokens and 1024 numbers each: 128 MiB an iteration, and a state of 1.4 GB.
        let large = RunConfig { recovery: small.recovery.clone(), ..RunConfig::half_a_billion() };
        let kept = retraced(&large);
        assert!((6..16).contains(&kept), "{kept}");
        // With twice the replicas each has half of the microbatches.
        assert!(retraced(&RunConfig { replicas: 2, ..large.clone() }) > kept);
        // Where not even one fits, none are kept.
        assert_eq!(retraced(&RunConfig { microbatches: 16 * 32, ..large }), 0);
        let said = RunConfig { recovery: "neighbour-snapshot:retrace=5".to_owned(), ..small.clone() };
        assert_eq!(retraced(&said), 5);
        assert_eq!(retraced(&RunConfig { recovery: "checkfree".to_owned(), ..small }), 0);
    }
}
