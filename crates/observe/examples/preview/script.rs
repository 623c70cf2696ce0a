//! A made-up run whose events come in the order in which the coordinator and the parent give them.

#![allow(unreachable_pub)] // shared with the tests

use skipstone_observe::RunInfo;
use skipstone_types::{
    Attempt, CommittedStage, Digest, EVENT_SCHEMA, Event, EventRecord, Iteration, NodeId, StageId, Term,
};
use std::collections::BTreeMap;

const STAGES: u16 = 7;
const MICROBATCHES: u32 = 24;
const ITERATION_MS: u64 = 350;

/// What the run is.
pub fn info(steps: u64) -> RunInfo {
    let settings = [
        ("model", "tiny (width 128, 12 layers)"),
        ("recovery", "checkfree+"),
        ("skip", "0.33 (realised 0.33)"),
        ("microbatches", "24 × 4 × 128 tokens"),
        ("learning rate", "3e-3 cosine, warm-up 30"),
        ("note", "<script>alert('escaped')</script> & \"quotes\""),
    ];
    RunInfo {
        model: "tiny".to_owned(),
        parameters: 3_214_000,
        steps,
        relay_stages: STAGES - 1,
        replicas: 2,
        nodes: 14,
        microbatches: MICROBATCHES,
        skip: 0.33,
        skip_realised: 1.0 / 3.0,
        recovery: "checkfree+".to_owned(),
        bigram_val_loss: Some(2.46),
        entropy_floor_loss: Some(1.31),
        price_per_hour: Some(0.35),
        price_per_gb: None,
        out: "runs/demo".into(),
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
    }
}

/// The events of the run.
pub fn events(steps: u64) -> Vec<EventRecord> {
    let mut run = Script { events: Vec::new(), now_ms: 0, serving: BTreeMap::new(), next: 0, noise: 7 };
    run.start();
    for t in 0..steps {
        run.iteration(t);
    }
    run.push(Event::Finished { iteration: Iteration(steps), why: "done".to_owned() });
    run.events
}

struct Script {
    events: Vec<EventRecord>,
    now_ms: u64,
    serving: BTreeMap<u32, u16>,
    next: u32,
    noise: u64,
}

impl Script {
    fn push(&mut self, event: Event) {
        self.events.push(EventRecord { schema: EVENT_SCHEMA, time_ms: self.now_ms, event });
    }

    fn random(&mut self) -> f64 {
        self.noise =
            self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.noise >> 33) as f64 / (1_u64 << 31) as f64
    }

    fn start(&mut self) {
        self.push(Event::SwarmStarted { cores: 4 });
        self.now_ms = 120;
        self.push(Event::CoordinatorStarted { term: Term(1), iteration: Iteration(0) });
        for node in 0..14 {
            self.now_ms += 30;
            let stage = (node / 2) as u16;
            self.join(stage, "initialise");
        }
        for node in 0..14 {
            self.now_ms += 40;
            self.enter(node, (node / 2) as u16, 0);
        }
    }

    fn join(&mut self, stage: u16, how: &str) -> u32 {
        let node = self.next;
        self.next += 1;
        self.push(Event::NodeJoined { node: NodeId(node), process: 4000 + node, was: None });
        self.push(Event::NodeAssigned { node: NodeId(node), stage: StageId(stage), how: how.to_owned() });
        node
    }

    fn enter(&mut self, node: u32, stage: u16, t: u64) {
        let (node_id, stage_id) = (NodeId(node), StageId(stage));
        self.push(Event::NodeEntered {
            node: node_id,
            stage: stage_id,
            iteration: Iteration(t),
            took_ms: 640,
        });
        self.serving.insert(node, stage);
    }

    fn nodes_of(&self, stage: u16) -> Vec<u32> {
        self.serving.iter().filter(|(_, of)| **of == stage).map(|(node, _)| *node).collect()
    }

    fn holes(&self) -> Vec<StageId> {
        (0..STAGES).filter(|stage| self.nodes_of(*stage).is_empty()).map(StageId).collect()
    }

    fn attempt(&mut self, t: u64, attempt: u32) {
        let holes = self.holes();
        self.push(Event::AttemptStarted {
            iteration: Iteration(t),
            attempt: Attempt(attempt),
            holes,
            expected_ms: None,
        });
    }

    fn kill(&mut self, node: u32, announced: bool) {
        let stage = self.serving.remove(&node).map(StageId);
        if announced {
            self.push(Event::Killed { target: "node".to_owned(), node: Some(NodeId(node)), stage });
        }
        self.now_ms += 35;
        let why = if announced { "connection" } else { "silence" }.to_owned();
        self.push(Event::NodeLost { node: NodeId(node), stage, why, wasted_us: 90_000 });
        self.push(Event::Respawned { target: "node".to_owned() });
    }

    fn repair(&mut self, node: u32, stage: u16) {
        self.push(Event::Repaired { stage: StageId(stage), lost: NodeId(node), microbatches: 3 });
    }

    fn iteration(&mut self, t: u64) {
        let mut attempt = 0;
        self.arrivals(t);
        self.attempt(t, 0);
        self.now_ms += ITERATION_MS / 2;
        let mut replay_us = 0;
        match t {
            60 | 420 => {
                let stage = if t == 60 { 2 } else { 0 };
                let node = self.nodes_of(stage)[0];
                self.kill(node, true);
                self.repair(node, stage);
                self.now_ms += 90;
                replay_us = 140_000;
            }
            150 | 520 => {
                let stage = if t == 150 { 3 } else { 6 };
                for node in self.nodes_of(stage) {
                    self.kill(node, true);
                }
                self.push(Event::StageLost { stage: StageId(stage), iteration: Iteration(t) });
                let ran_ms = ITERATION_MS / 2 + 70;
                self.push(Event::AttemptAborted { iteration: Iteration(t), attempt: Attempt(0), ran_ms });
                self.now_ms += 25;
                attempt = 1;
                self.attempt(t, attempt);
                self.now_ms += ITERATION_MS / 2;
            }
            240 => {
                self.push(Event::Killed { target: "coordinator".to_owned(), node: None, stage: None });
                self.now_ms += 210;
                self.push(Event::Respawned { target: "coordinator".to_owned() });
                self.push(Event::CoordinatorStarted { term: Term(2), iteration: Iteration(t) });
                // All come back under new ids, and go on with what they hold.
                let serving = std::mem::take(&mut self.serving);
                let renamed: Vec<_> = serving
                    .into_iter()
                    .zip(self.next..)
                    .map(|((was, stage), node)| (was, node, stage))
                    .collect();
                for (was, node, _) in &renamed {
                    let was = Some(NodeId(*was));
                    self.push(Event::NodeJoined { node: NodeId(*node), process: 4000 + *node, was });
                    self.now_ms += 10;
                }
                for (_, node, stage) in &renamed {
                    self.next = node + 1;
                    self.enter(*node, *stage, t);
                }
                attempt = 1;
                self.attempt(t, attempt);
                self.now_ms += ITERATION_MS / 2;
            }
            330 => {
                let node = self.nodes_of(5)[1];
                self.kill(node, false);
                self.repair(node, 5);
                replay_us = 140_000;
            }
            _ => {}
        }
        self.now_ms += ITERATION_MS / 2 + (self.random() * 40.0) as u64;
        self.commit(t, attempt, replay_us);
        if (t + 1).is_multiple_of(50) {
            let loss = curve(t) + 0.03;
            self.push(Event::Validated { iteration: Iteration(t + 1), loss });
        }
        if (t + 1).is_multiple_of(200) {
            self.push(Event::StateSaved { iteration: Iteration(t + 1) });
        }
    }

    /// Nodes that were started in place of lost ones.
    fn arrivals(&mut self, t: u64) {
        let copy = |t0: u64, stage: u16| (t == t0 + 2 || t == t0 + 6).then_some((stage, t == t0 + 2));
        for (stage, joins) in
            [copy(60, 2), copy(420, 0), copy(330, 5), copy(157, 3), copy(526, 6)].into_iter().flatten()
        {
            if joins {
                self.join(stage, "copy");
            } else {
                self.enter(self.next - 1, stage, t);
            }
        }
        for (lost, stage, sources) in [(150, 3, [2, 4]), (520, 6, [4, 5])] {
            if t == lost + 1 {
                let node = self.join(stage, "rebuild");
                let sources = sources.map(|source| (StageId(source), 0.5)).to_vec();
                self.push(Event::RebuildStarted {
                    stage: StageId(stage),
                    node: NodeId(node),
                    sources,
                    lessons: 0,
                });
            }
            if t == lost + 4 {
                self.enter(self.next - 1, stage, t);
                self.push(Event::StageRebuilt {
                    stage: StageId(stage),
                    kind: "checkfree+".to_owned(),
                    sources: sources.map(StageId).to_vec(),
                    took_ms: 4 * ITERATION_MS,
                    iteration: Iteration(t),
                });
            }
        }
    }

    fn commit(&mut self, t: u64, attempt: u32, replay_us: u64) {
        let stages = (0..STAGES)
            .map(|stage| {
                let nodes: Vec<NodeId> = self.nodes_of(stage).into_iter().map(NodeId).collect();
                let microbatches = match stage {
                    _ if nodes.is_empty() => 0,
                    0 => MICROBATCHES,
                    _ => 14 + (t as u32 * 7 + u32::from(stage) * 5) % 5,
                };
                let gradient_norm =
                    if microbatches == 0 { 0.0 } else { 0.3 + f64::from(stage) * 0.07 + self.random() * 0.1 };
                CommittedStage { stage: StageId(stage), microbatches, nodes, gradient_norm, pace: None }
            })
            .collect();
        let nodes = self.serving.len() as u64;
        let loss = curve(t) + (self.random() - 0.5) * 0.09 + if (150..165).contains(&t) { 0.16 } else { 0.0 };
        self.push(Event::Committed {
            iteration: Iteration(t),
            attempt: Attempt(attempt),
            loss,
            tokens: u64::from(MICROBATCHES) * 4 * 128,
            learning_rate: 3e-3 * (t.min(30) + 1) as f64 / 31.0,
            stages,
            busy_us: nodes * ITERATION_MS * 720,
            replay_us,
            memory_wait_us: nodes * 9_000,
            link_us: nodes * 14_000,
            took_ms: ITERATION_MS,
            record: Digest::of(&t.to_le_bytes()),
        });
    }
}

fn curve(t: u64) -> f64 {
    1.62 + 3.93 * (-(t as f64) / 45.0).exp() + 0.55 * (-(t as f64) / 400.0).exp()
}
