//! The planner in the loop: paths for the swarm as it stands, iteration after iteration.

mod chooser;
mod description;
mod error;
mod losses;
mod place;
mod placing;
mod refine;
mod rotation;
mod start;
mod view;

pub use chooser::SwarmChooser;
pub use description::{StageCost, SwarmDescription, SwarmNode};
pub use error::{PlacementError, SwarmError};
pub use place::{NodeRoles, Placement, SwarmShape, place, place_with_roles};
