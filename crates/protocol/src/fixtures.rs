//! What unit tests of this crate share.

use skipstone_types::{LearningRate, RateShape, RunId, Settings, WhileLost};

/// A run of two relay stages, one replica each.
pub(crate) fn settings() -> Settings {
    Settings {
        run: RunId(5),
        seed: 0,
        relay_stages: 2,
        origin_like_relay: false,
        origin_has_layers: false,
        replicas: 1,
        spares: 0,
        microbatches: 1,
        steps: 100,
        skip: 0.0,
        full_every: 0,
        full_last: 0,
        slots: 2,
        while_lost: WhileLost::Skip,
        recovery: "checkfree".to_owned(),
        clip_norm_max: 1.0,
        learning_rate: LearningRate {
            peak: 1.0,
            floor: 1.0,
            warmup_iterations: 0,
            total_iterations: 100,
            shape: RateShape::Constant,
        },
        save_every_iterations: 0,
        deterministic: false,
        respawn: true,
        stage_replicas: Vec::new(),
        places: false,
        edge_swaps: skipstone_types::EdgeSwaps::Off,
        spot_checks: skipstone_types::SpotChecks::OFF,
    }
}
