//! How much memory a stage takes, before it is built.

use serde::{Deserialize, Serialize};

use crate::config::LlamaConfig;
use crate::cpu;
use crate::error::Result;
use crate::layout::StageSpec;

/// Bytes that a stage on the CPU backend takes. See [`memory_estimate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryEstimate {
    /// The flat parameter buffer.
    pub parameters: u64,
    /// The flat gradient buffer.
    pub gradients: u64,
    /// Both Adam moments.
    pub moments: u64,
    /// Activations saved for backward by one microbatch in flight: what [`crate::Saved::bytes`] says.
    pub saved_per_slot: u64,
    /// Buffers of the backend that are reused by every call, at most (without those of the compute threads).
    pub workspace: u64,
    /// One activation (B, T, D), as it travels between stages.
    pub boundary: u64,
}

impl MemoryEstimate {
    /// All of it, with `slots` microbatches in flight.
    pub fn total(&self, slots: usize) -> u64 {
        self.parameters + self.gradients + self.moments + self.workspace + slots as u64 * self.saved_per_slot
    }
}

/// The memory of a stage; parameters, gradients, moments and saved activations to the byte.
///
/// # Errors
/// If configuration or stage are impossible.
pub fn memory_estimate(config: &LlamaConfig, spec: &StageSpec) -> Result<MemoryEstimate> {
    spec.validate(config)?;
    let flat = 4 * spec.parameters(config) as u64;
    Ok(MemoryEstimate {
        parameters: flat,
        gradients: flat,
        moments: 2 * flat,
        saved_per_slot: cpu::saved_bytes(config, spec),
        workspace: cpu::workspace_bytes(config, spec),
        boundary: 4 * (spec.tokens() * config.hidden_size) as u64,
    })
}
