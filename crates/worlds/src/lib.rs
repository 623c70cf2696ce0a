//! See ARCHITECTURE.md.

pub mod audit;
pub mod auto;
pub mod config;
pub mod cost;
pub mod fault;
pub mod fixed_plan;
pub mod lab;
pub mod live;
pub mod replay;
mod text;
pub mod wan;
mod wire_format;
