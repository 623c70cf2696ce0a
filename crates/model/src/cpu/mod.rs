//! The CPU backend: `f32`, by hand over `gemm` and `rayon`.

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod backend;
mod embedding;
mod layer;
mod loss;
mod matmul;
mod norm;
mod rope;
mod scratch;
mod swiglu;

pub use backend::CpuBackend;
pub(crate) use backend::{saved_bytes, workspace_bytes};
pub use loss::IGNORE;
