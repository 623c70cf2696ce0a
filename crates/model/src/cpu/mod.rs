//! The CPU backend: `f32`, by hand over `gemm` and `rayon`.

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod backend;
mod cache;
mod embedding;
mod layer;
mod loss;
mod matmul;
mod norm;
mod rope;
mod scratch;
mod sizes;
mod swiglu;

pub use backend::CpuBackend;
pub use cache::KvCache;
pub use loss::IGNORE;
pub(crate) use sizes::{saved_bytes, workspace_bytes};
