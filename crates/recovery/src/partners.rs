//! The stages that CheckFree+ swaps with the first and the last one.

use crate::LossView;
use crate::spec::{Spec, SpecError};
use skipstone_types::StageId;

/// What the swap partners of the first and the last relay stage become. These two are copies of their partners in any case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Partners {
    /// An average, as other inner stages.
    Averaged,
    /// A copy of the first or the last one (the authors' code).
    Copied,
}

impl Partners {
    /// The option `partners`.
    pub(crate) fn of(spec: &mut Spec<'_>) -> Result<Self, SpecError> {
        let copied = spec.choice("partners", &["average", "copy"])? == "copy";
        Ok(if copied { Self::Copied } else { Self::Averaged })
    }

    /// The stage that a lost one is a copy of: the one that it is swapped with, if that lives.
    pub(crate) fn copied(self, view: &LossView<'_>) -> Option<StageId> {
        let (lost, last) = (view.lost.0, view.stages.len().saturating_sub(1) as u16);
        let below = last.saturating_sub(1);
        let edges = [(1, 2), (last, below)];
        let partners = [(2, 1), (below, last)];
        let copied = if self == Self::Copied { &partners[..] } else { &[] };
        let mut pairs = edges.iter().chain(copied).filter(|(stage, other)| *stage == lost && *other > 0);
        // Of three relay stages the middle one has two partners: the first that lives.
        let lives = |stage: u16| view.stages.get(usize::from(stage)).is_some_and(|stage| stage.living);
        pairs.find(|(_, other)| lives(*other)).map(|(_, other)| StageId(*other))
    }
}
