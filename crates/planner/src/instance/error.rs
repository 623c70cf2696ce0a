//! Why an instance is refused.

use thiserror::Error;

/// The first thing wrong with an instance: the field, the reason, and what to do.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum InstanceError {
    /// The text is not JSON of this shape.
    #[error(
        "the instance can't be read near field `{field}`, line {line}, column {column}: {reason}; docs/instances.md explains every field"
    )]
    Syntax {
        /// The last field begun before the fault.
        field: String,
        /// What the reader says.
        reason: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// Another format.
    #[error("`schema` is {found:?}; this program reads {:?}", super::INSTANCE_SCHEMA)]
    Schema {
        /// The schema named.
        found: String,
    },
    /// A number outside its range.
    #[error("`{field}` is {found}; it must be {must}")]
    Number {
        /// The field, with its place in lists.
        field: String,
        /// What it is.
        found: f64,
        /// What it may be.
        must: &'static str,
    },
    /// More than this program takes.
    #[error("`{field}` is {found}, more than {most}; make the instance smaller")]
    TooLarge {
        /// The field.
        field: String,
        /// What it is.
        found: f64,
        /// The largest allowed.
        most: f64,
    },
    /// A node's id is not its place.
    #[error("`nodes[{place}].id` is {found}, {}; number the nodes 0, 1, 2, … in the order of the list",
        if *.duplicate { "a duplicate" } else { "not its place in the list" })]
    NodeId {
        /// Place in the list.
        place: usize,
        /// The id there.
        found: u32,
        /// Whether another node has it.
        duplicate: bool,
    },
    /// Nodes of two regions that no link joins.
    #[error(
        "`regions.links` has no link between {a:?} and {b:?}, which both have nodes; add {{\"a\": {a:?}, \"b\": {b:?}, \"latency_s\": …, \"bandwidth_Bps\": …}}"
    )]
    MissingLink {
        /// One region.
        a: String,
        /// The other.
        b: String,
    },
    /// A pair of regions with two different links.
    #[error("`regions.links` gives {a:?} and {b:?} twice, with different figures; keep one of them")]
    LinkTwice {
        /// One region.
        a: String,
        /// The other.
        b: String,
    },
    /// Two fields that can't both hold.
    #[error("`{field}`: {reason}; {remedy}")]
    Contradiction {
        /// The field to change first.
        field: &'static str,
        /// What does not fit.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
}
