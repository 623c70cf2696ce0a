//! Copies of a stage's state with nodes of other stages.

use crate::StateFormat;
use crate::retracing::RETRACED_ITERATIONS_MAX;
use crate::spec::{Spec, SpecError};
use skipstone_types::StageId;
use std::num::NonZeroU64;

/// Iterations between copies, where nothing is said: calm times pay for it with less than 5 % more bytes in the lab's runs
/// (docs/recovery.md has what that costs).
const EVERY_ITERATIONS: u64 = 25;

/// The value of an option that leaves it to the run.
const AUTO: &str = "auto";

/// What `every=auto` stands for where nobody knows: the least that a run chooses.
const EVERY_AUTO_ITERATIONS: u64 = 8;

/// Whether a strategy's text leaves this option to the run, which knows what an iteration sends, and what nodes have to keep.
pub fn is_open(text: &str, option: &str) -> bool {
    options(text).any(|said| said.split_once('=') == Some((option, AUTO)))
}

/// The text with this number for the option where it leaves that open.
pub fn with_option(text: &str, option: &str, number: u64) -> String {
    let Some((name, _)) = text.split_once(':') else { return text.to_owned() };
    let said = options(text).map(|said| {
        let is_it = said.split_once('=') == Some((option, AUTO));
        if is_it { format!("{option}={number}") } else { said.to_owned() }
    });
    format!("{name}:{}", said.collect::<Vec<_>>().join(","))
}

fn options(text: &str) -> impl Iterator<Item = &str> {
    text.split_once(':').into_iter().flat_map(|(_, options)| options.split(','))
}

/// Most iterations between copies.
const EVERY_ITERATIONS_MAX: u64 = 1_000_000;

/// How often stages are copied; those that are not have none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Snapshots {
    relays: Option<NonZeroU64>,
    origin: Option<NonZeroU64>,
    format: StateFormat,
    /// Iterations of which nodes keep what restored stages take their steps again with.
    pub(crate) retraced: u64,
}

impl Snapshots {
    /// The options `every`, `origin`, `dtype` and `retrace`.
    pub(crate) fn of(spec: &mut Spec<'_>) -> Result<Self, SpecError> {
        let range = 1..=EVERY_ITERATIONS_MAX;
        let every = spec.whole_or("every", AUTO, EVERY_ITERATIONS, &range)?.unwrap_or(EVERY_AUTO_ITERATIONS);
        let every = NonZeroU64::new(every);
        let origin = spec.choice("origin", &["yes", "no"])? == "yes";
        let format = match spec.choice("dtype", &["f32", "bf16", "int8"])? {
            "bf16" => StateFormat::Bf16,
            "int8" => StateFormat::Int8,
            _ => StateFormat::F32,
        };
        let range = 0..=RETRACED_ITERATIONS_MAX;
        let retraced = spec.whole_or("retrace", AUTO, 0, &range)?.unwrap_or(RETRACED_ITERATIONS_MAX);
        Ok(Self { relays: every, origin: every.filter(|_| origin), format, retraced })
    }

    /// Of the origin alone, every so many iterations: the option `origin_every`, 0 for never.
    pub(crate) fn of_origin(spec: &mut Spec<'_>) -> Result<Self, SpecError> {
        let every = spec.whole("origin_every", 1, &(0..=EVERY_ITERATIONS_MAX))?;
        Ok(Self { relays: None, origin: NonZeroU64::new(every), format: StateFormat::F32, retraced: 0 })
    }

    /// Iterations between two copies of the stage.
    pub(crate) fn every(&self, stage: StageId) -> Option<NonZeroU64> {
        if stage.is_origin() { self.origin } else { self.relays }
    }

    /// In what numbers.
    pub(crate) fn format(&self) -> StateFormat {
        self.format
    }
}
