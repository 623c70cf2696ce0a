//! The CPU backend: `f32`, by hand over `gemm` and `rayon`.

mod attention;
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
pub use loss::IGNORE;
