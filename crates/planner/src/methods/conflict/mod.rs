//! SkipPipe's paths: conflict-based search over time-space A* (arXiv 2502.19913, section 4; branching as in its code).
//!
//! Every slot of every origin gets the quickest path; then conflicts are taken one by one, and a conflict branches into
//! the ways to forbid it: first stages with too many visits, then nodes with more paths than memory (TC1), then two tasks
//! that overlap on a node (TC2).

mod collisions;
mod node;
mod search;
mod time_space;

pub(super) use search::{Constraints, plan};
