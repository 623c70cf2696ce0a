//! One task at a time, in the order of urgency; drops wait until the task under way no longer reads what they drop.

use super::Worker;
use crate::command::WorkerCommand;
use crate::message::{ReduceId, ToCoordinator, TransferId};
use crate::task::{Handle, Outcome, Task, TaskId};
use skipstone_types::{Attempt, Iteration, Microbatch, NodeId, StageId};
use std::collections::VecDeque;

/// Which of a microbatch's tasks on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leg {
    /// Forward, or embedding at the origin.
    First,
    /// Head and loss, at the origin.
    Loss,
    /// Backward.
    Last,
}

/// What a task is for: decides what happens to its outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Leg {
        iteration: Iteration,
        attempt: Attempt,
        microbatch: Microbatch,
        leg: Leg,
        replay: bool,
    },
    NewSum {
        iteration: Iteration,
        attempt: Attempt,
    },
    Measure {
        iteration: Iteration,
        attempt: Attempt,
        microbatches: u32,
    },
    /// As the three before, of a share that is computed for a spot check.
    CheckLeg {
        iteration: Iteration,
        attempt: Attempt,
        microbatch: Microbatch,
        leg: Leg,
    },
    CheckSum {
        iteration: Iteration,
        attempt: Attempt,
    },
    CheckMeasure {
        iteration: Iteration,
        attempt: Attempt,
    },
    Part {
        iteration: Iteration,
        reduce: ReduceId,
        index: u32,
    },
    Sum {
        iteration: Iteration,
        reduce: ReduceId,
    },
    Assemble {
        iteration: Iteration,
        reduce: ReduceId,
    },
    Step {
        iteration: Iteration,
    },
    Freeze {
        transfer: TransferId,
    },
    Chunk {
        transfer: TransferId,
        index: u32,
        to: NodeId,
    },
    Join {
        transfer: TransferId,
        source: usize,
    },
    Obtain {
        transfer: TransferId,
    },
    SaveCopy {
        stage: StageId,
        copied: Iteration,
    },
}

impl Purpose {
    pub(super) fn is_of_reduce(&self, id: ReduceId) -> bool {
        matches!(self,
            Self::Part { reduce, .. } | Self::Sum { reduce, .. } | Self::Assemble { reduce, .. } if *reduce == id)
    }

    pub(super) fn is_of_attempt(&self, of: (Iteration, Attempt)) -> bool {
        matches!(self,
            Self::Leg { iteration, attempt, .. }
            | Self::NewSum { iteration, attempt }
            | Self::Measure { iteration, attempt, .. }
            | Self::CheckLeg { iteration, attempt, .. }
            | Self::CheckSum { iteration, attempt }
            | Self::CheckMeasure { iteration, attempt }
                if (*iteration, *attempt) == of)
    }

    /// Whether the task is part of a microbatch.
    fn is_duty(&self) -> bool {
        matches!(self, Self::Leg { .. } | Self::NewSum { .. } | Self::CheckLeg { .. } | Self::CheckSum { .. })
    }

    /// Whether the task belongs to training itself: not to handing weights over, nor to checking others.
    fn is_training(&self) -> bool {
        matches!(
            self,
            Self::Leg { .. }
                | Self::NewSum { .. }
                | Self::Measure { .. }
                | Self::Part { .. }
                | Self::Sum { .. }
                | Self::Assemble { .. }
                | Self::Step { .. }
        )
    }

    pub(super) fn is_of_transfer(&self, id: TransferId) -> bool {
        matches!(self,
            Self::Freeze { transfer } | Self::Chunk { transfer, .. } | Self::Join { transfer, .. }
            | Self::Obtain { transfer } if *transfer == id)
    }
}

#[derive(Debug, Clone)]
struct Queued {
    purpose: Purpose,
    task: Task,
    inputs: Vec<Handle>,
    outputs: Vec<Handle>,
}

#[derive(Debug, Clone)]
struct Running {
    id: TaskId,
    purpose: Purpose,
    inputs: Vec<Handle>,
    outputs: Vec<Handle>,
    started_us: u64,
}

/// The tasks of a worker.
#[derive(Debug, Clone, Default)]
pub(super) struct Compute {
    handles: u64,
    tasks: u64,
    urgent: VecDeque<Queued>,
    running: Option<Running>,
    drops: Vec<Handle>,
}

impl Compute {
    /// Appends a task that goes before all legs, with `outputs` new handles.
    pub(super) fn enqueue(&mut self, purpose: Purpose, task: Task, inputs: Vec<Handle>, outputs: usize) {
        let outputs = self.new_handles(outputs);
        self.urgent.push_back(Queued { purpose, task, inputs, outputs });
    }

    /// Whether a task for this waits.
    pub(super) fn is_queued(&self, purpose: Purpose) -> bool {
        self.urgent.iter().any(|queued| queued.purpose == purpose)
    }

    /// The next task's name.
    pub(super) fn new_id(&mut self) -> TaskId {
        let id = TaskId(self.tasks);
        self.tasks += 1;
        id
    }

    fn new_handles(&mut self, count: usize) -> Vec<Handle> {
        let first = self.handles;
        self.handles += count as u64;
        (first..self.handles).map(Handle).collect()
    }

    /// How many tasks wait.
    pub(super) fn queued(&self) -> usize {
        self.urgent.len()
    }

    /// Forgets queued tasks whose purpose matches; a running one ends, and its outputs find no use.
    pub(super) fn cancel(&mut self, matches: impl Fn(&Purpose) -> bool) {
        self.urgent.retain(|queued| !matches(&queued.purpose));
    }

    /// Forgets a queued step, and returns the state that it would have consumed.
    pub(super) fn cancel_step(&mut self) -> Option<Handle> {
        let index = self.urgent.iter().position(|queued| matches!(queued.purpose, Purpose::Step { .. }))?;
        self.urgent.remove(index).and_then(|queued| queued.inputs.first().copied())
    }

    pub(super) fn drop_later(&mut self, handles: impl IntoIterator<Item = Handle>) {
        self.drops.extend(handles);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none() && self.urgent.is_empty()
    }
}

impl Worker {
    /// Starts the next task, if none is under way.
    pub(super) fn dispatch(&mut self, now_us: u64) {
        self.flush_drops();
        if self.compute.running.is_none() {
            if let Some(queued) = self.compute.urgent.pop_front() {
                self.start(queued, now_us);
            } else if let Some((purpose, task, inputs, outputs)) =
                self.next_leg().or_else(|| self.next_check_leg())
            {
                let outputs = self.compute.new_handles(outputs);
                self.start(Queued { purpose, task, inputs, outputs }, now_us);
            }
        }
        self.note_idle(now_us);
    }

    fn start(&mut self, queued: Queued, now_us: u64) {
        let id = self.compute.new_id();
        self.compute.running = Some(Running {
            id,
            purpose: queued.purpose,
            inputs: queued.inputs.clone(),
            outputs: queued.outputs.clone(),
            started_us: now_us,
        });
        self.out.push(WorkerCommand::Compute {
            id,
            task: queued.task,
            inputs: queued.inputs,
            outputs: queued.outputs,
        });
    }

    /// Whether the task was made for an attempt that has ended meanwhile.
    fn is_of_past_attempt(&self, purpose: &Purpose) -> bool {
        let (Purpose::Leg { iteration, attempt, .. }
        | Purpose::NewSum { iteration, attempt }
        | Purpose::Measure { iteration, attempt, .. }) = purpose
        else {
            return false;
        };
        self.work.as_ref().is_none_or(|work| (work.iteration, work.attempt) != (*iteration, *attempt))
    }

    /// Tells which task is under way.
    pub(super) fn tell_task(&mut self) {
        let running = self.compute.running.as_ref();
        let task = running.map(|running| running.id.0);
        let duty = running.is_some_and(|running| running.purpose.is_duty());
        self.report(ToCoordinator::Computing { task, duty });
    }

    fn flush_drops(&mut self) {
        // A task may take long, or never end: only what it reads itself waits for it.
        let read = self.compute.running.as_ref().map_or(&[][..], |running| &running.inputs);
        let (waiting, handles) = std::mem::take(&mut self.compute.drops)
            .into_iter()
            .partition::<Vec<_>, _>(|drop| read.contains(drop));
        self.compute.drops = waiting;
        if !handles.is_empty() {
            self.out.push(WorkerCommand::Drop { handles });
        }
    }

    pub(super) fn on_computed(&mut self, id: TaskId, outcome: Outcome, now_us: u64) {
        let Some(running) = self.compute.running.take_if(|running| running.id == id) else { return };
        let Running { purpose, outputs, started_us, .. } = running;
        let took_us = now_us.saturating_sub(started_us);
        if let Outcome::Failed { why } = outcome {
            self.on_failed(purpose, why);
            return;
        }
        if purpose.is_training() && !self.is_of_past_attempt(&purpose) {
            match purpose {
                Purpose::Leg { replay, .. } => self.spending.compute(took_us, replay),
                _ => self.spending.compute_once(took_us),
            }
        }
        match (purpose, outcome) {
            (Purpose::Leg { iteration, attempt, microbatch, leg, .. }, outcome) => {
                self.leg_done((iteration, attempt), microbatch, leg, outputs, &outcome);
            }
            (Purpose::NewSum { iteration, attempt }, _) => self.sum_made((iteration, attempt), outputs),
            (Purpose::Measure { iteration, attempt, microbatches }, Outcome::Measured { norm, digest }) => {
                let digests = self.share_digests((iteration, attempt), digest);
                self.report(ToCoordinator::Measured { iteration, attempt, microbatches, norm, digests });
            }
            (Purpose::CheckLeg { iteration, attempt, microbatch, leg }, outcome) => {
                self.check_leg_done((iteration, attempt), microbatch, leg, outputs, &outcome);
            }
            (Purpose::CheckSum { iteration, attempt }, _) => {
                self.check_sum_made((iteration, attempt), outputs);
            }
            (Purpose::CheckMeasure { iteration, attempt }, Outcome::Measured { digest, .. }) => {
                self.check_measured((iteration, attempt), digest);
            }
            (Purpose::Part { iteration, reduce, index }, _) => {
                self.part_made(iteration, reduce, index, outputs);
            }
            (Purpose::Sum { iteration, reduce }, _) => self.part_reduced(iteration, reduce, outputs),
            (Purpose::Assemble { iteration, reduce }, Outcome::Gradient { digest, norm }) => {
                self.assembled(iteration, reduce, outputs, digest, norm);
            }
            (Purpose::Step { iteration }, Outcome::State { digest }) => match outputs.first() {
                Some(state) => self.stepped(iteration, *state, digest),
                None => self.broken("the step made no state".to_owned()),
            },
            (Purpose::Freeze { transfer }, Outcome::Frozen { chunks, bytes, rounded }) => {
                self.frozen(transfer, outputs, (chunks, bytes), rounded);
            }
            (Purpose::Chunk { transfer, index, to }, _) => self.chunk_made(transfer, index, to, outputs),
            (Purpose::Join { transfer, source }, Outcome::State { digest }) => {
                self.joined(transfer, source, outputs, digest);
            }
            (Purpose::Obtain { transfer }, Outcome::State { digest }) => {
                self.obtained(transfer, outputs, digest);
            }
            (Purpose::SaveCopy { stage, copied }, Outcome::State { digest }) => {
                self.copy_made((stage, copied), outputs, digest);
            }
            (purpose, outcome) => self.broken(format!("{purpose:?} ended with {outcome:?}")),
        }
    }

    fn on_failed(&mut self, purpose: Purpose, why: String) {
        match purpose {
            Purpose::Join { transfer, .. } | Purpose::Obtain { transfer } => {
                if self.obtaining.as_ref().is_some_and(|obtaining| obtaining.transfer == transfer) {
                    self.fail_obtaining(transfer, why);
                    return;
                }
                self.report(ToCoordinator::TransferFailed { transfer, why });
                self.stop_copy_by(transfer);
            }
            Purpose::SaveCopy { stage, .. } => self.give_up_saving_copy(stage, why),
            _ => self.broken(why),
        }
    }
}
