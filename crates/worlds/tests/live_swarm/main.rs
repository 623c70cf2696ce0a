//! The cores with real tensors, in one process and one thread: what is proven with symbols by the fault simulation,
//! measured with numbers.

#![allow(clippy::unwrap_used, reason = "tests")]

mod conformance;
mod repair;
mod replay;
mod states;
mod swarm;
