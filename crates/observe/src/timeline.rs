//! When each stage was served, and what was killed when.

use skipstone_types::StageId;
use std::collections::BTreeMap;

/// How a stage stood for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpanKind {
    /// Nobody has served it yet.
    Starting,
    /// All its replicas serve.
    Served,
    /// It is served, but a replica is missing.
    Thin,
    /// It has no living replica; paths go around it.
    Hole,
    /// It has none, and one is being rebuilt.
    Rebuilding,
}

/// A stretch of time in which a stage stood one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its begin, in milliseconds of the run; it lasts until the next one.
    pub from_ms: u64,
    /// How the stage stood.
    pub kind: SpanKind,
}

/// A process that died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// When, in milliseconds of the run.
    pub at_ms: u64,
    /// The iteration that ran.
    pub iteration: u64,
    /// The stage that the process served, if any.
    pub stage: Option<StageId>,
    /// Whether it was the coordinator.
    pub coordinator: bool,
    /// Whether skipstone itself killed it.
    pub killed: bool,
}

/// The stretches of a stage, in order.
pub type Lane = Vec<Span>;

/// When each stage was served, and what was killed when, in bounded memory: in a long run the shortest stretches
/// are merged into the one before, and only every second death stays marked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Timeline {
    lanes: BTreeMap<StageId, Lane>,
    marks: Vec<Mark>,
    /// Only each `every`-th mark is kept.
    every: u64,
    seen: u64,
}

impl Timeline {
    /// The most stretches of a stage.
    pub const SPANS_MAX: usize = 1000;
    /// The most marks.
    pub const MARKS_MAX: usize = 1000;

    /// The stretches by stage.
    pub fn lanes(&self) -> &BTreeMap<StageId, Lane> {
        &self.lanes
    }

    /// Deaths in order of time.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    pub(crate) fn set(&mut self, stage: StageId, kind: SpanKind, now_ms: u64) {
        let lane = self.lanes.entry(stage).or_default();
        match lane.last_mut() {
            Some(last) if last.kind == kind => return,
            Some(last) if last.from_ms == now_ms => last.kind = kind,
            _ => lane.push(Span { from_ms: now_ms, kind }),
        }
        lane.dedup_by_key(|span| span.kind);
        let mut shortest_ms = now_ms / Self::SPANS_MAX as u64 / 4 + 1;
        while lane.len() > Self::SPANS_MAX {
            coarsen(lane, shortest_ms);
            shortest_ms = shortest_ms.saturating_mul(2);
        }
    }

    pub(crate) fn mark(&mut self, mark: Mark) {
        let every = self.every.max(1);
        if self.seen.is_multiple_of(every) {
            self.marks.push(mark);
        }
        self.seen += 1;
        if self.marks.len() > Self::MARKS_MAX {
            let mut index = 0;
            self.marks.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.every = every * 2;
        }
    }
}

/// Merges stretches shorter than `shortest_ms` into the one before; the last stays, for it goes on.
fn coarsen(lane: &mut Lane, shortest_ms: u64) {
    let mut kept: Lane = Vec::with_capacity(lane.len());
    for (index, span) in lane.iter().enumerate() {
        let lasts_ms = lane.get(index + 1).map_or(u64::MAX, |next| next.from_ms.saturating_sub(span.from_ms));
        if (kept.is_empty() || lasts_ms >= shortest_ms)
            && kept.last().is_none_or(|last| last.kind != span.kind)
        {
            kept.push(*span);
        }
    }
    *lane = kept;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_neighbours_are_one_and_memory_is_bounded() {
        let mut timeline = Timeline::default();
        let stage = StageId(3);
        timeline.set(stage, SpanKind::Starting, 0);
        timeline.set(stage, SpanKind::Served, 5);
        timeline.set(stage, SpanKind::Hole, 5);
        timeline.set(stage, SpanKind::Hole, 9);
        assert_eq!(
            timeline.lanes()[&stage],
            [Span { from_ms: 0, kind: SpanKind::Starting }, Span { from_ms: 5, kind: SpanKind::Hole }]
        );
        for step in 0..50_000_u64 {
            let kind = if step % 2 == 0 { SpanKind::Served } else { SpanKind::Thin };
            timeline.set(stage, kind, 10 + step * 10);
            let mark = Mark { at_ms: step, iteration: 0, stage: None, coordinator: false, killed: true };
            timeline.mark(mark);
        }
        let lane = &timeline.lanes()[&stage];
        assert!(lane.len() <= Timeline::SPANS_MAX && lane.len() >= 2, "{}", lane.len());
        assert!(
            lane.windows(2).all(|pair| pair[0].from_ms < pair[1].from_ms && pair[0].kind != pair[1].kind)
        );
        assert!(timeline.marks().len() <= Timeline::MARKS_MAX);
        assert!(timeline.marks().last().unwrap().at_ms > 49_000, "marks reach the end");
    }
}
