//! How events become incidents ([`crate::Story`]): the words for everything that happens to a run.

use crate::fold::ROLLBACK;
use crate::state::RunState;
use crate::story::{Subject, all_replicas, node_of};
use crate::words;
use skipstone_types::{Difference, Event, NodeId, Ruling, StageId};

impl RunState {
    /// Tells an event that has just been taken in.
    pub(crate) fn tell(&mut self, event: &Event) {
        let now_ms = self.now_ms;
        match event {
            Event::CoordinatorStarted { term, iteration } if term.0 > 1 && self.resuming => {
                let text = format!("goes on after {}", words::plural(iteration.0, "iteration"));
                self.stories.tell(Subject::Run, now_ms, text);
            }
            Event::CoordinatorStarted { term, .. } if term.0 > 1 => self.tell_restart(term.0),
            Event::Killed { target, .. } if target == "coordinator" => {
                self.stories.tell(Subject::Coordinator, now_ms, "coordinator killed".to_owned());
            }
            Event::Killed { node: Some(node), stage, .. } => {
                let stage = stage.or_else(|| self.nodes.get(node).copied().flatten());
                let text = format!("{} killed", node_of(*node, stage));
                self.stories.tell(Subject::Node(*node, stage), now_ms, text);
            }
            Event::Injected { fault, node, peer, for_ms } => {
                let stage = self.nodes.get(node).copied().flatten();
                let text = injected(fault, &node_of(*node, stage), *peer, *for_ms);
                self.stories.tell(Subject::Run, now_ms, text);
            }
            Event::Leaving { node, stage } => {
                let text = format!("{} is about to leave", node_of(*node, *stage));
                self.stories.tell(Subject::Node(*node, *stage), now_ms, text);
            }
            Event::NodeLost { why, .. } if why == ROLLBACK => {}
            Event::NodeLost { node, stage, why, .. } => self.tell_lost(*node, *stage, why),
            Event::Repaired { stage, lost, microbatches } => self.tell_repair(*stage, *lost, *microbatches),
            Event::Hedged { stage, node, microbatches, .. } => {
                let text = format!(
                    "{} is late → {} moved to replicas",
                    node_of(*node, Some(*stage)),
                    words::plural(u64::from(*microbatches), "microbatch")
                );
                self.stories.tell(Subject::Node(*node, Some(*stage)), now_ms, text);
            }
            // The first time: it may well be found again.
            Event::Disputed { stage, node, by, differ, then: Ruling::Undecided, .. }
                if self.disputed.insert(*stage) =>
            {
                let text = undecided(*stage, *node, by, *differ);
                self.stories.tell(Subject::Run, now_ms, text);
            }
            Event::StageLost { stage, .. } => self.tell_stage_lost(*stage),
            Event::RolledBack { stage, from, iteration, .. } => {
                let undone = words::plural(from.0.saturating_sub(iteration.0), "iteration");
                let text = format!(
                    "the run goes back to its checkpoint before {iteration}, {undone} to be trained again"
                );
                let subject = Subject::Stage(*stage);
                if !self.stories.add(subject, text.clone()) {
                    self.stories.tell(subject, now_ms, format!("{}: {text}", words::the_stage(*stage)));
                }
            }
            // After a rollback all do.
            Event::NodeEmptied { .. } if self.rolling_back => {}
            Event::NodeEmptied { node, stage } => {
                let text = format!("{} came back out of date and starts empty", node_of(*node, Some(*stage)));
                self.stories.tell(Subject::Run, now_ms, text);
            }
            Event::AttemptStarted { iteration, holes, .. } => {
                self.tell_training_again();
                if self.first_attempt_ms == Some(now_ms) && self.steps == 0 && iteration.0 == 0 {
                    let (nodes, stages) = (self.living() as u64, self.stages.len() as u64);
                    let text = format!(
                        "{} on {}: training starts",
                        words::plural(nodes, "node"),
                        words::plural(stages, "stage")
                    );
                    self.stories.tell(Subject::Run, now_ms, text);
                }
                for hole in holes {
                    let subject = Subject::Stage(*hole);
                    if self.stories.open(subject).is_some_and(|story| !story.says("routed around")) {
                        self.stories.add(subject, "routed around".to_owned());
                    }
                }
            }
            Event::RebuildStarted { stage, node, sources, lessons } => {
                let sources: Vec<StageId> = sources.iter().map(|(source, _)| *source).collect();
                let microbatches = if *lessons == 1 { "microbatch" } else { "microbatches" };
                let goes_on = match lessons {
                    0 => String::new(),
                    _ if sources == [*stage] => format!(", and computes {lessons} {microbatches} again"),
                    _ => format!(", and learns from {lessons} {microbatches}"),
                };
                let text = format!("{node} rebuilds it{}{goes_on}", from(*stage, &sources));
                self.stories.pending(Subject::Stage(*stage), text);
            }
            Event::StageRebuilt { stage, kind, sources, .. } => {
                let how = match kind.as_str() {
                    "return" => "back with what its node had".to_owned(),
                    "checkpoint" => "back as it was then".to_owned(),
                    "copy" => "served by a node that had just copied it".to_owned(),
                    "saved" => "without a node at the end, and saved as its copy was,".to_owned(),
                    _ => format!("rebuilt{}", from(*stage, sources)),
                };
                // As it was taken in: a coordinator that came back counts from its own start.
                let seconds = self.recoveries.back().map_or(0.0, |recovery| recovery.seconds);
                let text = format!("{how} in {}", words::delay((seconds * 1000.0).round() as u64));
                let subject = Subject::Stage(*stage);
                if !self.stories.add(subject, text.clone()) {
                    self.stories.tell(subject, now_ms, format!("{} {text}", words::the_stage(*stage)));
                }
                self.stories.close(subject);
            }
            Event::RebuildRefused { stage, why } => {
                let text = format!("can't be rebuilt: {}", words::clean(why, 120));
                let subject = Subject::Stage(*stage);
                if !self.stories.add(subject, text.clone()) {
                    self.stories.tell(subject, now_ms, format!("{} {text}", words::the_stage(*stage)));
                }
            }
            Event::NodeAssigned { node, stage, how } => self.tell_assigned(*node, *stage, how),
            Event::StateArriving { node, stage, bytes, bytes_total, donors, .. } => {
                let text = format!(
                    "{node} has {} of {} of its weights from {}",
                    words::megabytes(*bytes),
                    words::megabytes(*bytes_total),
                    words::plural(u64::from(*donors), "donor")
                );
                let stage_story = Subject::Stage(*stage);
                let open = self.stories.open(stage_story).map(|_| stage_story);
                if let Some(subject) = open.or_else(|| self.stories.open_node_of(*stage)) {
                    self.stories.pending(subject, text);
                }
            }
            Event::NodeEntered { node, stage, took_ms, .. } => self.tell_entered(*node, *stage, *took_ms),
            _ => self.tell_run(event),
        }
    }

    /// Events that stand for themselves.
    fn tell_run(&mut self, event: &Event) {
        let text = match event {
            Event::Placed { by, places, expected_ms: Some(expected), before_ms, .. } if by == "search" => {
                let nodes = words::plural(places.len() as u64, "node");
                match (before_ms, places.as_slice()) {
                    (Some(before), [(a, _), (b, _)]) => format!(
                        "{a} and {b} change places: {} an iteration expected, not {}",
                        words::delay(*expected),
                        words::delay(*before)
                    ),
                    _ => {
                        format!("{nodes} placed by links: {} an iteration expected", words::delay(*expected))
                    }
                }
            }
            Event::StateSaved { iteration } => {
                format!("saved after {}", words::plural(iteration.0, "iteration"))
            }
            Event::SaveSkipped { iteration, writing } => format!(
                "not saved after {}: the state after {writing} is still being written",
                words::plural(iteration.0, "iteration")
            ),
            Event::EndWaits { for_ms, what } => format!(
                "still ending after {}: waits for {}",
                words::delay(*for_ms),
                words::clean(&what.join("; "), 200)
            ),
            Event::SaveFailed { why } => {
                format!("can't save the state: {}; it will be tried again", words::clean(why, 120))
            }
            Event::StateStored { iteration, bytes, took_ms } => format!(
                "the state after {} is stored: {:.1} MB in {:.1} s",
                words::plural(iteration.0, "iteration"),
                *bytes as f64 / 1e6,
                *took_ms as f64 / 1e3
            ),
            Event::StoreFailed { iteration, why } => format!(
                "the state after {} is not stored: {}",
                words::plural(iteration.0, "iteration"),
                words::clean(why, 300)
            ),
            Event::Refused { node, why } => match node {
                Some(node) => format!("refused {node}: {}", words::clean(why, 120)),
                None => format!("refused a peer: {}", words::clean(why, 120)),
            },
            Event::Managed { ticket, order, of: Some(of) } => {
                let what = if order == "drain" { "node" } else { "ticket" };
                format!("{} of {what} {of}, ordered with ticket {ticket}", words::clean(order, 20))
            }
            Event::Managed { ticket, order, of: None } => {
                format!("{}, ordered with ticket {ticket}", words::clean(order, 20))
            }
            Event::Validated { iteration, loss } => format!(
                "validation loss {loss:.3} (perplexity {:.2}) after {}",
                loss.exp(),
                words::plural(iteration.0, "iteration")
            ),
            Event::Finished { iteration, why } => {
                let iterations = words::plural(iteration.0, "iteration");
                match why.as_str() {
                    "done" => format!("done: {iterations}"),
                    "stopped" => format!("stopped after {iterations}"),
                    why => format!("ended after {iterations}: {}", words::clean(why, 160)),
                }
            }
            _ => return,
        };
        self.stories.tell(Subject::Run, self.now_ms, text);
    }

    fn tell_restart(&mut self, term: u64) {
        let away_ms = self.coordinator_killed_ms.take().map(|ms| self.now_ms.saturating_sub(ms));
        let text = match away_ms {
            Some(ms) => format!("back with term {term} in {}", words::delay(ms)),
            None => format!("coordinator came back with term {term}"),
        };
        if away_ms.is_none() || !self.stories.add(Subject::Coordinator, text.clone()) {
            self.stories.close(Subject::Coordinator);
            self.stories.tell(Subject::Coordinator, self.now_ms, text);
        }
    }

    /// The first attempt under a coordinator that came back ends its story.
    fn tell_training_again(&mut self) {
        let Some(story) = self.stories.open(Subject::Coordinator) else { return };
        let text = format!("training again after {}", words::delay(self.now_ms.saturating_sub(story.at_ms)));
        self.stories.add(Subject::Coordinator, text);
        self.stories.close(Subject::Coordinator);
    }

    fn tell_lost(&mut self, node: NodeId, stage: Option<StageId>, why: &str) {
        if why == "left" && self.stories.add(Subject::Node(node, stage), "left".to_owned()) {
            return;
        }
        let known = self
            .stories
            .iter()
            .rev()
            .any(|story| matches!(story.subject, Subject::Node(of, _) if of == node && !story.closed));
        if known {
            return;
        }
        let text = match why {
            "connection" => format!("{} lost its connection", node_of(node, stage)),
            "silence" => format!("{} fell silent", node_of(node, stage)),
            "stuck" => format!("{} lives but gets nothing done: set aside", node_of(node, stage)),
            "hash" => format!("{} was fenced: its numbers differ from its replicas'", node_of(node, stage)),
            "check" => {
                format!("{} computed other numbers than its replicas: set aside", node_of(node, stage))
            }
            "left" => format!("{} left", node_of(node, stage)),
            why => format!("{} lost: {}", node_of(node, stage), words::clean(why, 80)),
        };
        self.stories.tell(Subject::Node(node, stage), self.now_ms, text);
        if stage.is_none() {
            self.stories.close(Subject::Node(node, stage)); // a spare: nobody has to replace it
        }
    }

    fn tell_repair(&mut self, stage: StageId, lost: NodeId, microbatches: u32) {
        let nodes = self.stages.get(&stage).map(|state| state.serving().collect::<Vec<_>>());
        let by = match nodes.as_deref() {
            Some([one]) => one.to_string(),
            Some([_, _, ..]) => "its replicas".to_owned(),
            _ => "its replica".to_owned(),
        };
        let text = format!("its {} replayed by {by}", words::plural(u64::from(microbatches), "microbatch"));
        let subject = Subject::Node(lost, Some(stage));
        if !self.stories.add(subject, text.clone()) {
            let text = format!("{} lost → {text}", node_of(lost, Some(stage)));
            self.stories.tell(subject, self.now_ms, text);
        }
    }

    fn tell_stage_lost(&mut self, stage: StageId) {
        if self.stories.open(Subject::Stage(stage)).is_some() {
            return; // a coordinator that came back says again which stages are lost
        }
        let mut nodes = self.stories.absorb_nodes_of(stage);
        nodes.sort_unstable();
        let replicas = self.stages.get(&stage).map_or(0, |state| state.unreplaced_ms.len());
        let replicas = replicas.min(self.replicas()).max(1);
        // It may have had more than it should have, or one of them was only about to serve it.
        let whom = if nodes.len() > replicas { "all its nodes".to_owned() } else { all_replicas(replicas) };
        let mut text = format!("{} lost {whom}", words::the_stage(stage));
        if !nodes.is_empty() {
            let noun = if nodes.len() == 1 { "node" } else { "nodes" };
            let numbers = words::list(nodes.iter().map(|node| node.0.to_string()));
            text.push_str(&format!(" ({noun} {numbers})"));
        }
        self.stories.tell(Subject::Stage(stage), self.now_ms, text);
    }

    fn tell_assigned(&mut self, node: NodeId, stage: StageId, how: &str) {
        let text = match how {
            "copy" => format!("{node} copies its weights"),
            "return" => format!("{node} came back with what it had"),
            _ => return,
        };
        if let Some(subject) = self.stories.open_node_of(stage) {
            self.stories.pending(subject, text);
        }
    }

    fn tell_entered(&mut self, node: NodeId, stage: StageId, took_ms: u64) {
        if self.rolling_back
            || self.resuming
            || self.stages.get(&stage).is_some_and(|state| state.lost_since_ms.is_some())
        {
            return; // told as one
        }
        if let Some(subject) = self.stories.open_node_of(stage) {
            let text = format!("replaced by {node} (ready in {})", words::delay(took_ms));
            self.stories.add(subject, text);
            self.stories.close(subject);
        } else if self.first_attempt_ms.is_some() {
            let serving = self.stages.get(&stage).map_or(0, |state| state.serving().count());
            let text = format!(
                "{} has {} again with {node}",
                words::the_stage(stage),
                words::plural(serving as u64, "replica")
            );
            let text = if serving <= self.replicas() {
                text
            } else {
                format!("{node} now serves {} too", words::the_stage(stage))
            };
            self.stories.tell(Subject::Run, self.now_ms, text);
        }
    }
}

/// What a spot check found that decides nothing, and what to do.
fn undecided(stage: StageId, node: NodeId, by: &[NodeId], differ: Difference) -> String {
    let nodes = words::list(std::iter::once(&node).chain(by).map(ToString::to_string));
    let stage = words::the_stage(stage);
    match differ {
        Difference::Inputs => format!(
            "{stage}: {nodes} were sent other tensors for the same share; one of them, or a node before or after them on its paths, does not say what is so"
        ),
        Difference::Outputs | Difference::Sum => format!(
            "{stage}: {nodes} computed the same share, and got other numbers; nobody can tell who is wrong: give the stage another node (--replicas 3 or more), or revoke the ticket of the one you trust least"
        ),
    }
}

/// ` from stages 2 and 4`, ` with fresh weights`.
fn from(stage: StageId, sources: &[StageId]) -> String {
    if sources.is_empty() {
        " with fresh weights".to_owned()
    } else if sources == [stage] {
        " from a neighbour's copy of it".to_owned()
    } else {
        format!(" from {}", words::stages(sources))
    }
}

/// `node 3 (stage 1) stopped for 1.2 s (on purpose)`.
fn injected(fault: &str, node: &str, peer: Option<NodeId>, for_ms: u64) -> String {
    let to = match peer {
        Some(NodeId(0)) => "the coordinator".to_owned(),
        Some(peer) => peer.to_string(),
        None => String::new(),
    };
    let lasts = words::delay(for_ms);
    match fault {
        "stop" => format!("{node} stopped for {lasts} (on purpose)"),
        "slow" => format!("{node} slowed down for {lasts} (on purpose)"),
        "partition" => format!("link of {node} to {to} cut for {lasts} (on purpose)"),
        "drain" => format!("{node} told to leave (on purpose)"),
        "corrupt" => format!("a frame of {node} to {to} damaged (on purpose)"),
        other => format!("{other} at {node} (on purpose)"),
    }
}
