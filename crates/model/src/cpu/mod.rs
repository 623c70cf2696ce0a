//! The CPU backend: `f32`, by hand over `rayon`.

mod attention;
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
