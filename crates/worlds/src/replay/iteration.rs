//! One committed iteration, computed again: paths as executed, sums in the recorded order.
//!
//! Nodes added gradients in some order, each of its own share. Those orders together are what the replay keeps; what
//! ran at the same time on several nodes has no order, and its result doesn't depend on one.
//!
//! A node that died had passed gradients on before its share was replayed, later, by another. So the orders alone may
//! ask for a gradient before the share that it now belongs to gets there: then it is computed ahead, uncounted, as the
//! dead node did, and once more when its turn to be added comes.

use super::error::ReplayError;
use super::machine::Machine;
use super::needs::{Boundary, BoundaryKey, Needs};
use skipstone_protocol::{Addition, CommitRecord, Handle, Outcome, StageRecord, Task};
use skipstone_recovery::Lesson;
use skipstone_types::{Digest, Microbatch, StageId};
use std::collections::{BTreeMap, VecDeque};

/// What an iteration gave.
pub(super) struct Computed {
    /// Digest and norm of the reduced gradient of each stage that something reached.
    pub(super) gradients: BTreeMap<StageId, (Handle, Digest, f64)>,
    pub(super) loss_sum: f64,
    pub(super) tokens: u64,
}

/// One node's share: what is still to be added.
struct Queue {
    stage: StageId,
    additions: VecDeque<Addition>,
    sum: Option<Handle>,
    losses: usize,
}

/// One microbatch on its way.
struct Passing {
    path: Vec<StageId>,
    saved: Vec<Option<Handle>>,
    /// The gradient that waits at this position of the path, in that stage's store.
    waits: Option<(usize, Handle)>,
    /// Gradients that were passed through a position ahead of being added there.
    ahead: Vec<Option<Handle>>,
    /// The activation of a loss that was computed ahead of being added.
    loss_ahead: Option<Handle>,
}

/// Computes an iteration with the states that `machines` hold.
pub(super) struct Run<'a> {
    record: &'a CommitRecord,
    machines: &'a mut [Machine],
    needs: &'a mut Needs,
    passing: Vec<Passing>,
    queues: Vec<Queue>,
    losses: BTreeMap<Microbatch, (f64, u64)>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        record: &'a CommitRecord,
        machines: &'a mut [Machine],
        needs: &'a mut Needs,
    ) -> Result<Self, ReplayError> {
        let mut queues = Vec::new();
        for part in &record.stages {
            for share in &part.shares {
                let additions = share.additions().ok_or_else(|| {
                    impossible(record, part.stage, "the losses of a share leave gaps between their places")
                })?;
                queues.push(Queue { stage: part.stage, additions: additions.into(), sum: None, losses: 0 });
            }
        }
        let passing = record
            .paths
            .iter()
            .map(|path| {
                let path: Vec<_> = path.0.iter().map(|visit| visit.stage).collect();
                let known = path.iter().all(|stage| usize::from(stage.0) < machines.len());
                if path.first() != Some(&StageId::ORIGIN) || !known {
                    return Err(impossible(record, StageId::ORIGIN, "a path leads nowhere"));
                }
                Ok(Passing {
                    saved: vec![None; path.len()],
                    ahead: vec![None; path.len()],
                    path,
                    waits: None,
                    loss_ahead: None,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { record, machines, needs, passing, queues, losses: BTreeMap::new() })
    }

    /// Runs it to its end.
    pub(super) fn compute(mut self) -> Result<Computed, ReplayError> {
        while self.queues.iter().any(|queue| !queue.additions.is_empty()) {
            let mut moved = false;
            for index in 0..self.queues.len() {
                while self.backward_if_ready(index)? {
                    moved = true;
                }
            }
            if !moved && !self.begin_one()? && !self.get_ahead()? {
                return Err(self.stuck());
            }
        }
        let unfinished = self.passing.iter().position(|passing| passing.saved.iter().any(Option::is_some));
        if self.losses.len() < self.passing.len() || unfinished.is_some() {
            let microbatch = Microbatch(unfinished.unwrap_or(0) as u32);
            let why = format!("not every stage on the path of {microbatch} counts it");
            return Err(impossible(self.record, StageId::ORIGIN, &why));
        }
        let gradients = self.reduce()?;
        let loss_sum = self.losses.values().map(|(loss, _)| *loss).sum();
        let tokens = self.losses.values().map(|(_, tokens)| *tokens).sum();
        Ok(Computed { gradients, loss_sum, tokens })
    }

    fn failed(&self, stage: StageId) -> impl Fn(String) -> ReplayError + use<> {
        let iteration = self.record.iteration;
        move |why| ReplayError::Computation { iteration, stage, why }
    }

    fn machine(&mut self, stage: StageId) -> &mut Machine {
        &mut self.machines[usize::from(stage.0)]
    }

    /// Two machines at once: a boundary tensor goes from one to the other.
    fn hand_over(&mut self, from: StageId, tensor: Handle, to: StageId) -> Result<Handle, ReplayError> {
        let failed = self.failed(to);
        let (from, to) = (usize::from(from.0), usize::from(to.0));
        if from == to {
            return Ok(tensor);
        }
        let [from, to] = self.machines.get_disjoint_mut([from, to]).map_err(|why| failed(why.to_string()))?;
        from.hand_over(tensor, to).map_err(failed)
    }

    /// The share's sum, made when something is added for the first time.
    fn sum(&mut self, queue: usize) -> Result<Handle, ReplayError> {
        if let Some(sum) = self.queues[queue].sum {
            return Ok(sum);
        }
        let stage = self.queues[queue].stage;
        let failed = self.failed(stage);
        let machine = self.machine(stage);
        let state = machine.state().map_err(&failed)?;
        let (_, outputs) = machine.run(Task::NewSum, &[state], 1).map_err(&failed)?;
        self.queues[queue].sum = outputs.first().copied();
        self.queues[queue].sum.ok_or_else(|| failed("no sum was made".to_owned()))
    }

    /// Adds the backward that is next in a share, if its gradient is there.
    fn backward_if_ready(&mut self, queue: usize) -> Result<bool, ReplayError> {
        let stage = self.queues[queue].stage;
        let Some(Addition::Backward(microbatch)) = self.queues[queue].additions.front().copied() else {
            return Ok(false);
        };
        let Some(passing) = self.passing.get_mut(microbatch.0 as usize) else { return Ok(false) };
        let Some(at) = passing.path.iter().position(|visited| *visited == stage) else { return Ok(false) };
        let passed_on = passing.ahead[at].take();
        let gradient = match (passed_on, passing.waits) {
            (Some(gradient), _) => gradient,
            (None, Some((waits_at, gradient))) if waits_at == at => {
                passing.waits = None;
                gradient
            }
            _ => return Ok(false),
        };
        let saved = passing.saved[at].take();
        let previous = at.checked_sub(1).map(|previous| (previous, passing.path[previous]));
        let iteration = self.record.iteration;
        let failed = self.failed(stage);
        self.keep_if_needed((stage, Lesson { iteration, microbatch }, Boundary::Returned), gradient)?;
        let sum = self.sum(queue)?;
        let machine = self.machine(stage);
        let state = machine.state().map_err(&failed)?;
        let saved = saved.ok_or_else(|| failed("a forward is missing".to_owned()))?;
        let task = match previous {
            None => Task::EmbedBackward { iteration, microbatch },
            Some(_) => Task::Backward { microbatch },
        };
        let inputs = [state, saved, gradient, sum];
        let (_, outputs) = machine.run(task, &inputs, usize::from(previous.is_some())).map_err(&failed)?;
        machine.forget(&[gradient]);
        if passed_on.is_some() {
            self.machine(stage).forget(&outputs);
        } else if let Some(((position, to), output)) = previous.zip(outputs.first().copied()) {
            let handed = self.hand_over(stage, output, to)?;
            self.passing[microbatch.0 as usize].waits = Some((position, handed));
        }
        self.queues[queue].additions.pop_front();
        Ok(true)
    }

    /// Takes a microbatch whose loss is next in some origin's share through all of its forwards; whether there was one.
    /// The share that is least far goes first, so that few microbatches are on their way at once.
    fn begin_one(&mut self) -> Result<bool, ReplayError> {
        let next = self
            .queues
            .iter()
            .enumerate()
            .filter_map(|(index, queue)| match queue.additions.front() {
                Some(Addition::Loss(microbatch)) => Some((queue.losses, index, *microbatch)),
                _ => None,
            })
            .min();
        let Some((_, queue, microbatch)) = next else { return Ok(false) };
        let stage = self.queues[queue].stage;
        let known = (microbatch.0 as usize) < self.passing.len();
        if !known || self.losses.contains_key(&microbatch) || !stage.is_origin() {
            let why = format!("the loss of {microbatch} can't be added");
            return Err(impossible(self.record, stage, &why));
        }
        self.loss(Some(queue), microbatch)?;
        self.queues[queue].additions.pop_front();
        self.queues[queue].losses += 1;
        Ok(true)
    }

    /// Computes, without adding it, the gradient that some share waits for and that can't be added where it comes from
    /// yet; whether there was one.
    fn get_ahead(&mut self) -> Result<bool, ReplayError> {
        let awaited: Vec<_> = self
            .queues
            .iter()
            .filter_map(|queue| match queue.additions.front() {
                Some(Addition::Backward(microbatch)) => Some((queue.stage, *microbatch)),
                _ => None,
            })
            .collect();
        for (stage, microbatch) in awaited {
            let Some(passing) = self.passing.get(microbatch.0 as usize) else { continue };
            match passing.waits {
                Some((at, gradient)) if at > 0 && passing.path[..at].contains(&stage) => {
                    self.backward_ahead(microbatch, at, gradient)?;
                    return Ok(true);
                }
                None if passing.loss_ahead.is_none() && !self.losses.contains_key(&microbatch) => {
                    self.loss(None, microbatch)?;
                    return Ok(true);
                }
                _ => {}
            }
        }
        Ok(false)
    }

    fn backward_ahead(
        &mut self,
        microbatch: Microbatch,
        at: usize,
        gradient: Handle,
    ) -> Result<(), ReplayError> {
        let stage = self.passing[microbatch.0 as usize].path[at];
        let to = self.passing[microbatch.0 as usize].path[at - 1];
        // A backward uses up what its forward has saved, and the one that counts is still to come.
        let mut again = vec![None; at + 1];
        let activation = self.forward(microbatch, &mut again)?;
        let failed = self.failed(stage);
        for (position, saved) in again.iter().take(at).enumerate() {
            let visited = self.passing[microbatch.0 as usize].path[position];
            self.machine(visited).forget(saved.as_slice());
        }
        let machine = self.machine(stage);
        machine.forget(&[activation]);
        let state = machine.state().map_err(&failed)?;
        let saved = again[at].ok_or_else(|| failed("a forward is missing".to_owned()))?;
        let task = Task::Backward { microbatch };
        let (_, outputs) = machine.run(task, &[state, saved, gradient], 1).map_err(&failed)?;
        let output = outputs.first().copied().ok_or_else(|| failed("no gradient was made".to_owned()))?;
        let handed = self.hand_over(stage, output, to)?;
        let passing = &mut self.passing[microbatch.0 as usize];
        passing.ahead[at] = Some(gradient);
        passing.waits = Some((at - 1, handed));
        Ok(())
    }

    /// The forwards of a microbatch along the first `saved.len()` stages of its path; the last one's activation, in that
    /// stage's store.
    fn forward(
        &mut self,
        microbatch: Microbatch,
        saved_of: &mut [Option<Handle>],
    ) -> Result<Handle, ReplayError> {
        let iteration = self.record.iteration;
        let path: Vec<_> = self.passing[microbatch.0 as usize].path[..saved_of.len()].to_vec();
        let mut activation: Option<(StageId, Handle)> = None;
        for (stage, kept) in path.into_iter().zip(saved_of) {
            let failed = self.failed(stage);
            let input = match activation {
                Some((from, tensor)) => Some(self.hand_over(from, tensor, stage)?),
                None => None,
            };
            let machine = self.machine(stage);
            let state = machine.state().map_err(&failed)?;
            let (task, inputs) = match input {
                None => (Task::Embed { iteration, microbatch }, vec![state]),
                Some(input) => (Task::Forward { microbatch }, vec![state, input]),
            };
            let (_, outputs) = machine.run(task, &inputs, 2).map_err(&failed)?;
            let [made, saved] = outputs[..] else { return Err(failed("no activation was made".to_owned())) };
            if let Some(input) = input {
                self.keep_if_needed((stage, Lesson { iteration, microbatch }, Boundary::Came), input)?;
                self.keep_if_needed((stage, Lesson { iteration, microbatch }, Boundary::Made), made)?;
                self.machine(stage).forget(&[input]);
            }
            *kept = Some(saved);
            activation = Some((stage, made));
        }
        let failed = self.failed(StageId::ORIGIN);
        activation.map(|(_, tensor)| tensor).ok_or_else(|| failed("a path is empty".to_owned()))
    }

    /// A boundary tensor that a stage is made again with later is kept, as it was sent.
    fn keep_if_needed(&mut self, key: BoundaryKey, tensor: Handle) -> Result<(), ReplayError> {
        if self.needs.wants_boundary(key) {
            let payload = self.machines[usize::from(key.0.0)].payload(tensor);
            self.needs.keep_boundary(key, payload.map_err(self.failed(key.0))?);
        }
        Ok(())
    }

    /// The activation that a loss is computed from: all forwards, unless they were run ahead.
    fn activation(&mut self, microbatch: Microbatch) -> Result<Handle, ReplayError> {
        let passing = &mut self.passing[microbatch.0 as usize];
        if let Some(activation) = passing.loss_ahead.take() {
            return Ok(activation);
        }
        let last = passing.path[passing.path.len() - 1];
        let mut saved = std::mem::take(&mut passing.saved);
        let activation = self.forward(microbatch, &mut saved)?;
        self.passing[microbatch.0 as usize].saved = saved;
        self.hand_over(last, activation, StageId::ORIGIN)
    }

    /// A loss, added to the share of `queue`, or computed ahead of that.
    fn loss(&mut self, queue: Option<usize>, microbatch: Microbatch) -> Result<(), ReplayError> {
        let iteration = self.record.iteration;
        let failed = self.failed(StageId::ORIGIN);
        let was_ahead = self.passing[microbatch.0 as usize].loss_ahead.is_some();
        let activation = self.activation(microbatch)?;
        let sum = queue.map(|queue| self.sum(queue)).transpose()?;
        let machine = self.machine(StageId::ORIGIN);
        let state = machine.state().map_err(&failed)?;
        let task = Task::Loss { iteration, microbatch };
        let inputs: Vec<_> = [Some(state), Some(activation), sum].into_iter().flatten().collect();
        let (outcome, outputs) = machine.run(task, &inputs, 1).map_err(&failed)?;
        if queue.is_none() {
            self.passing[microbatch.0 as usize].loss_ahead = Some(activation);
        } else {
            machine.forget(&[activation]);
        }
        let (Outcome::Loss { loss_sum, tokens, .. }, Some(gradient)) = (outcome, outputs.first().copied())
        else {
            return Err(failed("no loss was made".to_owned()));
        };
        if queue.is_some() {
            self.losses.insert(microbatch, (loss_sum, tokens));
        }
        if was_ahead {
            self.machine(StageId::ORIGIN).forget(&[gradient]);
            return Ok(());
        }
        let passing = &self.passing[microbatch.0 as usize];
        let last = passing.path.len() - 1;
        let to = passing.path[last];
        let handed = self.hand_over(StageId::ORIGIN, gradient, to)?;
        self.passing[microbatch.0 as usize].waits = Some((last, handed));
        Ok(())
    }

    /// The sums of each stage's shares, added in their order. How many parts the members cut them into has no bearing on
    /// any bit: parts are added number by number.
    fn reduce(&mut self) -> Result<BTreeMap<StageId, (Handle, Digest, f64)>, ReplayError> {
        let mut gradients = BTreeMap::new();
        for part in self.record.stages.iter().filter(|part| !part.shares.is_empty()) {
            let sums: Vec<_> = self
                .queues
                .iter()
                .filter(|queue| queue.stage == part.stage)
                .filter_map(|queue| queue.sum)
                .collect();
            self.check_norms(part, &sums)?;
            let failed = self.failed(part.stage);
            let microbatches = part.microbatches();
            let reduced = self.reduce_stage(part, &sums, microbatches).map_err(failed)?;
            gradients.insert(part.stage, reduced);
        }
        Ok(gradients)
    }

    /// Every share is as large as it was said to be.
    fn check_norms(&mut self, part: &StageRecord, sums: &[Handle]) -> Result<(), ReplayError> {
        let (iteration, stage) = (self.record.iteration, part.stage);
        for (share, sum) in part.shares.iter().zip(sums) {
            let failed = self.failed(stage);
            let (outcome, _) = self.machine(stage).run(Task::Measure, &[*sum], 0).map_err(&failed)?;
            let Outcome::Measured { norm, .. } = outcome else {
                return Err(failed("a sum was not measured".to_owned()));
            };
            let same = norm == share.norm || (norm.is_nan() && share.norm.is_nan());
            if !same {
                let (what, expected, got) = ("norm of a share", share.norm.to_string(), norm.to_string());
                return Err(ReplayError::Differs { iteration, stage, what, expected, got });
            }
        }
        Ok(())
    }

    fn reduce_stage(
        &mut self,
        part: &StageRecord,
        sums: &[Handle],
        microbatches: u32,
    ) -> Result<(Handle, Digest, f64), String> {
        let machine = self.machine(part.stage);
        let mut parts = Vec::with_capacity(sums.len());
        for sum in sums {
            let (_, whole) = machine.run(Task::Part { index: 0, count: 1 }, &[*sum], 1)?;
            parts.extend(whole);
        }
        let (_, summed) = machine.run(Task::Sum { microbatches }, &parts, 1)?;
        machine.forget(&parts);
        let (outcome, outputs) = machine.run(Task::Assemble, &summed, 1)?;
        machine.forget(sums);
        machine.forget(&summed);
        match (outcome, outputs.first()) {
            (Outcome::Gradient { digest, norm }, Some(gradient)) => Ok((*gradient, digest, norm)),
            _ => Err("no gradient was made".to_owned()),
        }
    }

    /// Nothing can go on: the recorded orders contradict each other.
    fn stuck(&self) -> ReplayError {
        let queue = self.queues.iter().find(|queue| !queue.additions.is_empty());
        let stage = queue.map_or(StageId::ORIGIN, |queue| queue.stage);
        let why = match queue.and_then(|queue| queue.additions.front()) {
            Some(Addition::Backward(microbatch)) => format!(
                "a share waits for the gradient of {microbatch}, which never comes: its path, the shares or their \
                 orders contradict each other"
            ),
            _ => "the orders of its shares contradict each other".to_owned(),
        };
        impossible(self.record, stage, &why)
    }
}

fn impossible(record: &CommitRecord, stage: StageId, why: &str) -> ReplayError {
    ReplayError::Impossible { iteration: record.iteration, stage, why: why.to_owned() }
}
