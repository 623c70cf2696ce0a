//! The nearest living stages on both sides of a lost one.

use crate::LossView;
use skipstone_types::StageId;

/// A living stage near a lost one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Neighbour {
    pub(crate) stage: StageId,
    /// Stages between the two, plus one.
    pub(crate) distance: u16,
    pub(crate) gradient_norm: f64,
}

/// The nearest usable stage below and above, at most one each. A stage is usable if it lives and holds the same
/// layers as the lost one.
pub(crate) fn nearest(view: &LossView<'_>) -> Vec<Neighbour> {
    let lost = usize::from(view.lost.0);
    let usable = |index: &usize| view.stages[*index].living && view.stages[*index].like_relay;
    let below = (0..lost).rev().find(usable);
    let above = (lost + 1..view.stages.len()).find(usable);
    below
        .into_iter()
        .chain(above)
        .map(|index| Neighbour {
            stage: StageId(index as u16),
            distance: index.abs_diff(lost) as u16,
            gradient_norm: view.stages[index].gradient_norm,
        })
        .collect()
}
