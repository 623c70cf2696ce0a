//! Identifiers. Each is a newtype, so that a stage can't be passed where a node is meant.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

id!(
    /// A stage of the model. Stage 0 is the origin (data, embedding, head, loss); 1.. are relay stages.
    StageId(u16), "stage {}"
);
id!(
    /// A node: one process that serves one stage. A node that died and came back has a new id.
    NodeId(u32), "node {}"
);
id!(
    /// A microbatch of an iteration, counted from 0.
    Microbatch(u32), "microbatch {}"
);
id!(
    /// An iteration (optimiser step) of the run, counted from 0.
    Iteration(u64), "iteration {}"
);
id!(
    /// A try at an iteration, counted from 0; an attempt that lost a stage's last replica is aborted.
    Attempt(u32), "attempt {}"
);
id!(
    /// A coordinator's reign; every restart on the journal raises it.
    Term(u64), "term {}"
);
id!(
    /// Counts the plans that a coordinator asked for; an answer to an older one is ignored.
    PlanEpoch(u64), "plan {}"
);

impl StageId {
    /// The origin stage.
    pub const ORIGIN: Self = Self(0);

    /// Whether this is the origin stage.
    pub fn is_origin(self) -> bool {
        self.0 == 0
    }
}

impl Iteration {
    /// The iteration after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Attempt {
    /// The attempt after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Names a run; drawn once by whoever starts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
