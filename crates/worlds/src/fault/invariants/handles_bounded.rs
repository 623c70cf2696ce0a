//! A node keeps a bounded number of tensors, and nothing of an attempt that is over but what others may make a
//! lost stage again from.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use crate::fault::value::Kind;
use skipstone_recovery::{LESSONS_MAX, RETRACED_MAX};
use skipstone_types::Settings;

/// See the file's name.
#[derive(Debug)]
pub(super) struct HandlesBounded {
    boundaries: usize,
    reductions: usize,
    states: usize,
    sums: usize,
    /// Boundary tensors of past attempts.
    lessons: usize,
}

impl Invariant for HandlesBounded {
    fn name(&self) -> &'static str {
        "handles_bounded"
    }

    fn observe(&mut self, seen: &Observation<'_>, _truth: &Truth) -> Result<(), String> {
        let Observation::Stored { node, store, attempt, settled } = seen else { return Ok(()) };
        let bounds = [
            (Kind::Boundary, self.boundaries),
            (Kind::Reduction, self.reductions),
            (Kind::State, self.states),
            (Kind::Frozen, self.states),
        ];
        for (kind, bound) in bounds {
            let count = store.count(kind);
            if count > bound {
                return Err(format!("{node} keeps {count} tensors of kind {kind:?}, {} in all", store.len()));
            }
        }
        if !settled {
            return Ok(());
        }
        if store.count(Kind::Sum) > self.sums {
            return Err(format!("{node} keeps {} gradient sums", store.count(Kind::Sum)));
        }
        let mut lessons = 0;
        let left = store.entries().find(|(_, entry)| {
            let of_attempt = matches!(entry.value.kind(), Kind::Boundary | Kind::Saved | Kind::Sum);
            let is_past = of_attempt && entry.birth < *attempt;
            let is_boundary = entry.value.kind() == Kind::Boundary;
            let is_lesson = is_past && is_boundary && lessons < self.lessons;
            lessons += usize::from(is_lesson);
            is_past && !is_lesson
        });
        match left {
            None => Ok(()),
            Some((handle, entry)) => {
                Err(format!("{node} is in {attempt:?} and still keeps {handle:?}: {entry:?}"))
            }
        }
    }
}

impl HandlesBounded {
    pub(super) fn new(settings: &Settings) -> Self {
        let microbatches = settings.microbatches as usize;
        let replicas = usize::from(settings.replicas).max(settings.nodes());
        let kept = skipstone_recovery::strategy(&settings.recovery)
            .map_or(0, |strategy| strategy.iterations_kept() as usize);
        // Two of every microbatch of the iterations that are kept; or, of who makes a stage again, what it is sent for that.
        let lessons =
            if kept == 0 { 0 } else { (2 * kept * microbatches).max(2 * LESSONS_MAX.max(RETRACED_MAX)) };
        Self {
            // Four of each microbatch are kept to be sent again; frames that came early are as many again.
            boundaries: 5 * microbatches + 8 * microbatches + 64 + lessons,
            // Its own, and one of a share that it computes again.
            sums: 1 + usize::from(settings.spot_checks.are_on()),
            // Own parts, pieces, reduced parts and the gradient, of each iteration that a follower lags behind.
            reductions: 10 * (3 * replicas + 1),
            states: 2 + settings.nodes(),
            lessons,
        }
    }
}
