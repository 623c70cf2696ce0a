//! Kills and notices on purpose: a rate, an interval, or a trace.

use super::ConfigError;
use super::spot::{SpotTrace, sped_up};
use crate::text::{FILE_BYTES_MAX, from_json};
use serde::Deserialize;
use skipstone_types::StageId;
use std::path::Path;
use std::time::Duration;

/// Whom a trace's line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceTarget {
    /// The n-th node of those that live, in the order of their ids, counted from 0 (round again past the end).
    Node(u32),
    /// A node of a stage.
    Stage(StageId),
}

/// A line of a trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TraceLine {
    /// When, from the start of training.
    pub at: Duration,
    /// Whom.
    pub target: TraceTarget,
    /// Whether the node is given notice (`drain`) instead of being killed.
    pub notice: bool,
}

/// When nodes are killed.
#[derive(Debug, Clone, PartialEq)]
pub enum Churn {
    /// Each node dies so often in an hour, at random times.
    PerNodeHour(f64),
    /// A random node each time.
    Every(Duration),
    /// As written down.
    Trace(Vec<TraceLine>),
    /// As machines went, and came again, on a spot market.
    Spot(SpotTrace),
}

#[derive(Deserialize)]
struct Line {
    t_s: f64,
    node: Option<u32>,
    stage: Option<u16>,
    event: String,
}

impl Churn {
    /// Reads the value of `--churn`.
    ///
    /// # Errors
    /// [`ConfigError::Churn`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let wrong = |why: String| ConfigError::Churn { text: text.to_owned(), why };
        let number = |digits: &str| {
            let value: f64 =
                digits.trim().parse().map_err(|_| wrong(format!("'{digits}' is not a number")))?;
            if value.is_finite() && value > 0.0 {
                Ok(value)
            } else {
                Err(wrong(format!("{value} is not above 0")))
            }
        };
        if let Some(percent) = text.strip_suffix("%/h") {
            return Ok(Self::PerNodeHour(number(percent)? / 100.0));
        }
        if let Some(rest) = text.strip_prefix("every") {
            let rest = rest.trim();
            let (digits, unit_s) = match rest.strip_suffix("min").or_else(|| rest.strip_suffix('m')) {
                Some(digits) => (digits, 60.0),
                None => (rest.strip_suffix('s').unwrap_or(rest), 1.0),
            };
            let seconds = number(digits)? * unit_s;
            return Duration::try_from_secs_f64(seconds)
                .map(Self::Every)
                .map_err(|why| wrong(why.to_string()));
        }
        let trace = skipstone_files::read_text(Path::new(text), FILE_BYTES_MAX)
            .map_err(|why| wrong(format!("it is not a rate, and there is no such trace ({why})")))?;
        if SpotTrace::is_one(&trace) {
            return SpotTrace::parse(&trace).map(Self::Spot).map_err(wrong);
        }
        Self::trace(&trace).map_err(|(line, why)| wrong(format!("line {line}: {why}")))
    }

    /// The same, if a trace's time goes so many times as fast; none of what is no trace.
    pub(super) fn sped_up(self, speed: f64) -> Option<Self> {
        match self {
            Self::PerNodeHour(_) | Self::Every(_) => None,
            Self::Trace(mut lines) => {
                for line in &mut lines {
                    line.at = sped_up(line.at, speed);
                }
                Some(Self::Trace(lines))
            }
            Self::Spot(trace) => Some(Self::Spot(trace.sped_up(speed))),
        }
    }

    fn trace(text: &str) -> Result<Self, (usize, String)> {
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let number = index + 1;
            let line: Line = from_json(line).map_err(|why| (number, why))?;
            let at = Duration::try_from_secs_f64(line.t_s).map_err(|why| (number, format!("t_s: {why}")))?;
            let target = match (line.node, line.stage) {
                (Some(node), None) => TraceTarget::Node(node),
                (None, Some(stage)) => TraceTarget::Stage(StageId(stage)),
                _ => return Err((number, "name either a node or a stage".to_owned())),
            };
            match line.event.as_str() {
                "kill" => lines.push(TraceLine { at, target, notice: false }),
                "drain" => lines.push(TraceLine { at, target, notice: true }),
                // A local swarm starts a new process for each that dies.
                "join" => {}
                other => return Err((number, format!("event '{other}' is not kill, drain or join"))),
            }
        }
        lines.sort_by_key(|line| line.at);
        Ok(Self::Trace(lines))
    }
}
