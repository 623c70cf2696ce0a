//! A lost stage is made again: from other stages, or from a copy of it, as the strategy says.

use super::Coordinator;
use super::roster::{JoinKind, Making};
use crate::message::Method;
use skipstone_recovery::{
    Decision, LESSONS_MAX, Lesson, LossView, Recipe, Retracing, StageView, StateFormat,
};
use skipstone_types::{Event, Iteration, Microbatch, NodeId, StageId, Visit};

impl Coordinator {
    /// A node gets a stage that has no replica.
    pub(super) fn rebuild(&mut self, node: NodeId, stage: StageId) {
        match self.decide(stage, Some(node)) {
            Decision::Rebuild(recipe) => self.rebuild_with(node, stage, recipe),
            Decision::Return => self.give_back(node, stage),
            // It is done as soon as nobody is about to serve the stage.
            Decision::Rollback => {}
            Decision::Refuse(why) => {
                self.stages[usize::from(stage.0)].refused = true;
                self.log(Event::RebuildRefused { stage, why });
            }
        }
    }

    /// What the strategy says to the loss of a stage that `node` is to serve.
    pub(super) fn decide(&mut self, stage: StageId, node: Option<NodeId>) -> Decision {
        self.settle_copies();
        let age = |iteration: Iteration| self.iteration.0.saturating_sub(iteration.0);
        let copy_age = self.copy_of(stage, node).map(|(_, copy)| age(copy.iteration));
        let checkpoint = self.rollbacks.newest.as_ref();
        let checkpoint_age = checkpoint.map(|checkpoint| age(checkpoint.saved.iteration));
        let stages: Vec<_> = self
            .stage_ids()
            .map(|other| StageView {
                living: self.is_served(other) && other != stage,
                gradient_norm: self.stages[usize::from(other.0)].gradient_norm,
                like_relay: !other.is_origin() || self.settings.origin_like_relay,
            })
            .collect();
        let learning_rate_peak = self.settings.learning_rate.peak;
        let view = LossView { lost: stage, stages: &stages, copy_age, checkpoint_age, learning_rate_peak };
        self.strategy.on_loss(&view)
    }

    fn rebuild_with(&mut self, node: NodeId, stage: StageId, mut recipe: Recipe) {
        if recipe.restores(stage) {
            self.restore(node, stage, recipe);
            return;
        }
        let donors: Vec<_> = recipe
            .sources
            .iter()
            .filter_map(|source| self.serving(source.stage).into_iter().find(|donor| *donor != node))
            .collect();
        if donors.len() < recipe.sources.len() {
            return;
        }
        let teachers = self.find_lessons(node, stage, &mut recipe);
        let sources: Vec<_> =
            recipe.sources.iter().map(|source| (source.stage, source.coefficient)).collect();
        let source_lineages =
            sources.iter().map(|(stage, _)| self.stages[usize::from(stage.0)].lineage).collect();
        let making = Making {
            recipe: recipe.clone(),
            from: self.iteration,
            source_lineages,
            teachers: teachers.clone(),
            gives: None,
        };
        let kind = JoinKind::Rebuild(Box::new(making));
        let lessons = teachers.len() as u32;
        self.log(Event::RebuildStarted { stage, node, sources, lessons });
        let method = Method::Rebuild { recipe, donors: donors.clone(), teachers };
        self.assign(node, stage, kind, method, donors, "rebuild");
    }

    /// Names in a recipe that matches what there is to learn the stage from: microbatches of the last iterations whose neighbours on
    /// the path still serve as they did, which are returned in the order of the lessons. After a try that has failed there are none, so
    /// that what can't be had is not asked for again.
    fn find_lessons(&self, node: NodeId, stage: StageId, recipe: &mut Recipe) -> Vec<(NodeId, NodeId)> {
        let kept = self.strategy.iterations_kept() as usize;
        let Some(matching) = recipe.matching.as_mut() else { return Vec::new() };
        if self.stages[usize::from(stage.0)].lessons_failed {
            return Vec::new();
        }
        let serves = |visit: &Visit| {
            visit.node != node && self.nodes.serving(visit.stage).binary_search(&visit.node).is_ok()
        };
        let mut found: Vec<(Lesson, (NodeId, NodeId))> = Vec::new();
        for (iteration, record) in self.records.iter().rev().take(kept) {
            for (microbatch, path) in (0..).map(Microbatch).zip(&record.paths) {
                let Some((before, after)) = path.neighbours(stage).filter(|(a, b)| serves(a) && serves(b))
                else {
                    continue;
                };
                found.push((Lesson { iteration: *iteration, microbatch }, (before.node, after.node)));
            }
        }
        found.truncate(LESSONS_MAX);
        found.sort_unstable();
        matching.lessons = found.iter().map(|(lesson, _)| *lesson).collect();
        found.into_iter().map(|(_, teachers)| teachers).collect()
    }

    /// The stage becomes again what its copy is, and takes the steps again that it has taken since, if others kept what it takes.
    fn restore(&mut self, node: NodeId, stage: StageId, mut recipe: Recipe) {
        let Some((keeper, copy)) = self.copy_of(stage, Some(node)) else { return };
        let sources = vec![(stage, 1.0)];
        let (retraced, teachers) = self.steps_since(&copy, node);
        let known = &self.stages[usize::from(stage.0)];
        // In rounded numbers nobody knows what comes of it; and of a former lineage no digest is kept.
        let gives = match retraced.last() {
            None => Some(copy.state),
            Some(last) if recipe.format.rounds() || last.lineage != known.lineage => None,
            Some(last) => known.digests.get(&last.iteration.next()).copied(),
        };
        if !retraced.is_empty() {
            recipe.retracing = Some(Retracing { copy: copy.state, iterations: retraced });
        }
        let making = Making {
            recipe: recipe.clone(),
            from: copy.iteration,
            source_lineages: vec![copy.lineage],
            teachers: teachers.clone(),
            gives,
        };
        let kind = JoinKind::Rebuild(Box::new(making));
        self.log(Event::RebuildStarted { stage, node, sources, lessons: teachers.len() as u32 });
        let method = Method::Rebuild { recipe, donors: vec![keeper], teachers };
        self.assign(node, stage, kind, method, vec![keeper], "rebuild");
    }

    /// The stage becomes again what it was: who carries tasks out remembers it, and nobody donates anything.
    fn give_back(&mut self, node: NodeId, stage: StageId) {
        let recipe = Recipe::restore(stage, StateFormat::F32);
        let making = Making {
            recipe: recipe.clone(),
            from: self.iteration,
            source_lineages: vec![self.stages[usize::from(stage.0)].lineage],
            teachers: Vec::new(),
            gives: None,
        };
        let kind = JoinKind::Rebuild(Box::new(making));
        self.log(Event::RebuildStarted { stage, node, sources: vec![(stage, 1.0)], lessons: 0 });
        let method = Method::Rebuild { recipe, donors: Vec::new(), teachers: Vec::new() };
        self.assign(node, stage, kind, method, Vec::new(), "rebuild");
    }

    /// Each donor, with the stage and the iteration whose state it is to freeze: a rebuilt stage's donors give their own, or a
    /// copy of what the stage was.
    pub(super) fn what_donors_give(
        &self,
        stage: StageId,
        kind: &JoinKind,
        donors: &[NodeId],
    ) -> Vec<(NodeId, StageId, Iteration, StateFormat)> {
        let what = |index: usize| match kind {
            JoinKind::Rebuild(making) => {
                let source = making.recipe.sources.get(index).map_or(stage, |source| source.stage);
                (source, making.from, making.recipe.travels_as(stage))
            }
            JoinKind::First | JoinKind::Copy | JoinKind::Keep => (stage, self.iteration, StateFormat::F32),
        };
        let gives = |(index, donor): (usize, &NodeId)| {
            let (stage, iteration, format) = what(index);
            (*donor, stage, iteration, format)
        };
        donors.iter().enumerate().map(gives).collect()
    }
}
