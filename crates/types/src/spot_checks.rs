//! Spot checks: now and then replicas compute each other's shares of a gradient again, and both sums are compared bit by bit.

use serde::{Deserialize, Serialize};

/// How often nodes' shares are computed a second time, by a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SpotChecks {
    /// An iteration is checked with probability 1 / `every`; 0 = never. In it a node of every stage is, where there are two or more.
    pub every: u64,
    /// Which iterations, and which nodes, follows from this: only the coordinator knows it, and nodes are told 0.
    pub salt: u64,
}

impl SpotChecks {
    /// No checks.
    pub const OFF: Self = Self { every: 0, salt: 0 };

    /// Whether there are any.
    pub fn are_on(self) -> bool {
        self.every > 0
    }
}

/// In what two computations of the same share differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// They got other boundary tensors: whoever sent them, or one of the two, says what is not so.
    Inputs,
    /// They made other boundary tensors of the same.
    Outputs,
    /// They added up another gradient.
    Sum,
}

/// What follows from a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ruling {
    /// Another replica computes the share too.
    Asks,
    /// Two agree: the third is set aside, and the iteration runs again.
    SetAside,
    /// Nobody can tell who is wrong: the share counts, as it would have without a check.
    Undecided,
}
