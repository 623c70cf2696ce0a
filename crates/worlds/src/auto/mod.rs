//! Which options a run over given nodes should have: stages, replicas, microbatches and skip ratio, tried and ranked by
//! what an iteration is predicted to take (`skipstone plan --auto`); the best are simulated.

mod candidates;
mod node_list;
mod predict;
mod ranking;
mod rehearse;

pub use candidates::AutoRequest;
pub use node_list::{ListedNode, NodeList, NodeListError, NodeSpeed};
pub use ranking::{AutoError, Configuration, Ranking, configure};
