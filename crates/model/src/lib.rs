//! A stage of a LLaMA model: forward, backward, loss, optimiser, and the mixing of weights for recovery.
//!
//! Start at [`StageBackend`], the trait of every device, and [`CpuBackend`], the one there is. A stage's
//! parameters are one flat `Vec<f32>`, described by [`StageLayout`]. See ARCHITECTURE.md.

pub mod backend;
pub mod bench;
pub mod config;
mod cpu;
mod error;
pub mod eval;
pub mod generate;
pub mod hash;
mod hf_error;
pub mod hf_export;
pub mod hf_import;
mod hf_names;
mod hf_shards;
pub mod init;
pub mod layout;
pub mod math;
pub mod memory;
pub mod mix;
pub mod optimizer;
mod pool;
mod simd;
pub mod whole;

pub use backend::{LossOut, Positions, Saved, StageBackend};
pub use bench::{BenchShape, BenchStage, bench_stage};
pub use config::{ConfigError, LlamaConfig, RopeScaling};
pub use cpu::{CpuBackend, IGNORE, KvCache};
pub use error::{ModelError, Result};
pub use eval::{EvalOptions, EvalResult, Evaluation, evaluate};
pub use generate::{GenerateOptions, Generated, generate};
pub use hash::hash_f32;
pub use hf_error::HfError;
pub use hf_export::{ExportOptions, export};
pub use hf_import::{Imported, import, model_dir, read_config};
pub use init::{initial_parameters, initialise};
pub use layout::{LayerRanges, OriginRanges, Role, StageLayout, StageSpec, TensorSlot};
pub use memory::{MemoryEstimate, memory_estimate};
pub use mix::{weighted_sum, weighted_sum_into};
pub use optimizer::{OptimizerStep, adamw_step, clip_factor, grad_norm};
pub use pool::ComputePool;
pub use whole::{WholeModel, WholeStage, cut};
