//! How long tasks take by the model, and how often they took longer.

use super::WanTable;
use crate::config::{ConfigError, RunConfig};
use serde::{Deserialize, Serialize};
use skipstone_observe::PaceTruth;
use skipstone_protocol::Task;
use skipstone_recovery::Recipe;
use std::time::Duration;

/// The value of `--pace` that stands for the speeds of the `--wan` table.
pub const PACE_FROM_TABLE: f64 = 0.0;

/// What a task may take beyond its modelled time before it counts as late: this long …
const SLACK_US: u64 = 2_000;
/// … or this part of it.
const SLACK_PART: u64 = 50;

/// Modelled times of one node's tasks, in microseconds, each rounded once. What is not named here (sums, steps,
/// transfers) takes the time that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskTimes {
    /// A relay's forward.
    pub forward_us: u64,
    /// A relay's backward.
    pub backward_us: u64,
    /// Embedding and the origin's layers.
    pub embed_us: u64,
    /// Their backward.
    pub embed_backward_us: u64,
    /// Head and loss.
    pub loss_us: u64,
    /// Sequences of a microbatch, at least 1.
    pub sequences: u32,
}

impl TaskTimes {
    /// Times of a node that needs `forward_s` seconds for the forward of a relay, and `origin` times that for the layers
    /// of the origin; the other ratios are the table's.
    pub fn new(forward_s: f64, origin: f64, table: Option<&WanTable>) -> Self {
        let gap_s = table.map_or(0.0, |table| table.task_gap_s);
        let backward = table.map_or(WanTable::BACKWARD_RATIO, |table| table.backward_ratio);
        let loss = table.map_or(WanTable::LOSS_RATIO, |table| table.loss_ratio);
        let us = |ratio: f64| ((forward_s * ratio + gap_s) * 1e6).round() as u64;
        Self {
            forward_us: us(1.0),
            backward_us: us(backward),
            embed_us: us(origin),
            embed_backward_us: us(origin * backward),
            loss_us: us(loss),
            sequences: 1,
        }
    }

    /// Times of the node at this place in the swarm, if the run is paced.
    ///
    /// # Errors
    /// A pace that is to come from a table which has none.
    pub fn of_run(
        config: &RunConfig,
        table: Option<&WanTable>,
        place: usize,
    ) -> Result<Option<Self>, ConfigError> {
        let Some(pace_s) = config.pace else { return Ok(None) };
        let relay_layers = config.layers_per_relay()?;
        let origin = config.origin_layers as f64 / relay_layers as f64;
        if pace_s != PACE_FROM_TABLE {
            return Ok(Some(Self::new(pace_s, origin, table).with_sequences(config.batch)));
        }
        let speeds = table.map(|table| table.node_speeds.as_slice()).unwrap_or_default();
        if speeds.is_empty() {
            return Err(ConfigError::PaceUnknown);
        }
        let forward_s = speeds[place % speeds.len()] * relay_layers as f64 * config.batch as f64;
        Ok(Some(Self::new(forward_s, origin, table).with_sequences(config.batch)))
    }

    fn with_sequences(self, batch: usize) -> Self {
        Self { sequences: u32::try_from(batch).unwrap_or(u32::MAX).max(1), ..self }
    }

    /// Of a node that also computes the forward of the next stage for each microbatch (of a relay's, also after the last relay, whose
    /// next stage is the origin).
    #[must_use]
    pub fn with_the_next_stage(self) -> Self {
        let Self { forward_us, embed_us, .. } = self;
        Self { forward_us: 2 * forward_us, embed_us: embed_us + forward_us, ..self }
    }

    /// How long a task is to take; none if it takes what it takes.
    pub fn of(&self, task: &Task) -> Option<Duration> {
        let us = match task {
            Task::Forward { .. } => self.forward_us,
            Task::Backward { .. } => self.backward_us,
            Task::Embed { .. } => self.embed_us,
            Task::EmbedBackward { .. } => self.embed_backward_us,
            Task::Loss { .. } => self.loss_us,
            Task::Rebuild { recipe: Recipe { retracing: Some(retracing), .. }, .. } => {
                retracing.microbatches().count() as u64 * (self.forward_us + self.backward_us)
            }
            // A forward and a backward of a sequence a step.
            Task::Rebuild { recipe, .. } if !recipe.lessons().is_empty() => {
                let steps = recipe.matching.as_ref().map_or(0, |matching| u64::from(matching.steps));
                // And how far off it is, before and after.
                let looks = 2 * recipe.lessons().len() as u64;
                steps * (self.forward_us + self.backward_us) / u64::from(self.sequences.max(1))
                    + looks * self.forward_us
            }
            _ => return None,
        };
        Some(Duration::from_micros(us))
    }
}

/// How true the pace of a run was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PaceCount {
    /// The process that says so.
    pub process: u32,
    /// Tasks that had a modelled time.
    pub tasks: u64,
    /// Those that took longer, by more than 2 ms and 2 %.
    pub late: u64,
    /// By how much, together, in microseconds.
    pub late_us: u64,
    /// Modelled time of all tasks, in microseconds.
    pub modelled_us: u64,
}

impl PaceCount {
    /// A task is over that was to take `modelled`.
    pub fn note(&mut self, modelled: Duration, took: Duration) {
        let (modelled_us, took_us) = (modelled.as_micros() as u64, took.as_micros() as u64);
        self.tasks += 1;
        self.modelled_us += modelled_us;
        let excess_us = took_us.saturating_sub(modelled_us);
        if excess_us > SLACK_US.max(modelled_us / SLACK_PART) {
            self.late += 1;
            self.late_us += excess_us;
        }
    }

    /// The same in seconds, for the summary.
    pub fn truth(self) -> PaceTruth {
        let seconds = |us: u64| us as f64 / 1e6;
        let Self { tasks, late, late_us, modelled_us, .. } = self;
        PaceTruth { tasks, late, late_s: seconds(late_us), modelled_s: seconds(modelled_us) }
    }

    /// What another process counted, too.
    pub fn add(&mut self, other: &Self) {
        self.tasks += other.tasks;
        self.late += other.late;
        self.late_us += other.late_us;
        self.modelled_us += other.modelled_us;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_the_ratios() {
        let times = TaskTimes::new(0.5, 0.0, None);
        let want = TaskTimes {
            forward_us: 500_000,
            backward_us: 1_000_000,
            embed_us: 0,
            embed_backward_us: 0,
            loss_us: 125_000,
            sequences: 1,
        };
        assert_eq!(times, want);
        assert_eq!(times.of(&Task::NewSum), None);
    }

    #[test]
    fn a_run_takes_its_pace_from_a_number_or_from_the_table() {
        let table = WanTable::from_json(
            r#"{"regions": {"intra": {"latency_s": 0, "bandwidth_Bps": 1e9}}, "backward_ratio": 1.5, "loss_ratio": 0.5,
                "task_gap_s": 0.001, "nodes": [{"compute_s_per_layer_sample": 0.01}, {"compute_s_per_layer_sample": 0.03}]}"#,
        )
        .unwrap();
        let config = RunConfig {
            pace: Some(PACE_FROM_TABLE),
            layers: Some(5),
            origin_layers: 1,
            stages: 2,
            batch: 4,
            ..RunConfig::default()
        };
        let times = TaskTimes::of_run(&config, Some(&table), 3).unwrap().unwrap();
        // 2 layers of 4 samples at 0.03 s: 0.24 s.
        assert_eq!((times.forward_us, times.backward_us, times.loss_us), (241_000, 361_000, 121_000));
        assert_eq!((times.embed_us, times.embed_backward_us), (121_000, 181_000));
        assert!(TaskTimes::of_run(&config, None, 0).is_err());
        let config = RunConfig { pace: Some(0.5), ..config };
        assert_eq!(TaskTimes::of_run(&config, Some(&table), 0).unwrap().unwrap().forward_us, 501_000);
        assert_eq!(TaskTimes::of_run(&RunConfig::default(), Some(&table), 0).unwrap(), None);
    }

    #[test]
    fn late_is_what_is_seen() {
        let mut count = PaceCount::default();
        let ms = Duration::from_millis;
        count.note(ms(500), ms(505));
        count.note(ms(0), ms(1));
        count.note(ms(10), ms(14));
        assert_eq!((count.tasks, count.late, count.late_us, count.modelled_us), (3, 1, 4000, 510_000));
    }
}
