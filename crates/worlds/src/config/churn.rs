//! Kills and notices on purpose: a rate, an interval, or a trace.

use super::ConfigError;
use super::spot::{SpotTrace, sped_up};
use crate::text::{FILE_BYTES_MAX, from_json};
use serde::Deserialize;
use skipstone_types::{Iteration, StageId};
use std::path::Path;
use std::time::Duration;

/// Whom to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A node of the stage.
    Stage(StageId),
    /// All nodes of the stage, at once.
    WholeStage(StageId),
    /// The n-th node of those that live, in the order of their ids, counted from 0 (round again past the end).
    Node(u32),
    /// Any node, but not the last origin: no strategy rebuilds it.
    AnyNode,
    /// All nodes of a region, at once, but not the last origin.
    Region(u16),
    /// The coordinator.
    Coordinator,
}

/// When to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// As soon as this iteration is under way.
    Iteration(Iteration),
    /// So long after the start.
    At(Duration),
}

/// A line of a script, or of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kill {
    /// When.
    pub when: When,
    /// Whom.
    pub target: Target,
    /// Whether nodes are given notice (`drain`) instead of being killed.
    pub notice: bool,
}

impl Kill {
    /// Without notice.
    pub fn new(when: When, target: Target) -> Self {
        Self { when, target, notice: false }
    }
}

/// When nodes are killed.
#[derive(Debug, Clone, PartialEq)]
pub enum Churn {
    /// Each node dies so often in an hour, at random times.
    PerNodeHour(f64),
    /// A random node each time.
    Every(Duration),
    /// As written down.
    Trace(Vec<Kill>),
    /// As machines went, and came again, on a spot market.
    Spot(SpotTrace),
}

#[derive(Deserialize)]
struct Line {
    t_s: Option<f64>,
    iteration: Option<u64>,
    node: Option<u32>,
    stage: Option<u16>,
    region: Option<String>,
    event: String,
}

impl Churn {
    /// Reads the value of `--churn`; `region` tells the number of a region's name, in a run that has regions.
    ///
    /// # Errors
    /// [`ConfigError::Churn`].
    pub fn parse(text: &str, region: &dyn Fn(&str) -> Option<u16>) -> Result<Self, ConfigError> {
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
        Self::trace(&trace, region).map_err(|(line, why)| wrong(format!("line {line}: {why}")))
    }

    /// The same, if a trace's time goes so many times as fast; none of what is no trace.
    pub(super) fn sped_up(self, speed: f64) -> Option<Self> {
        match self {
            Self::PerNodeHour(_) | Self::Every(_) => None,
            Self::Trace(mut lines) => {
                for line in &mut lines {
                    if let When::At(at) = &mut line.when {
                        *at = sped_up(*at, speed);
                    }
                }
                Some(Self::Trace(lines))
            }
            Self::Spot(trace) => Some(Self::Spot(trace.sped_up(speed))),
        }
    }

    fn trace(text: &str, region: &dyn Fn(&str) -> Option<u16>) -> Result<Self, (usize, String)> {
        let mut kills = Vec::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |why: String| (index + 1, why);
            let line: Line = from_json(line).map_err(wrong)?;
            let when = match (line.t_s, line.iteration) {
                (Some(t_s), None) => Duration::try_from_secs_f64(t_s)
                    .map(When::At)
                    .map_err(|why| wrong(format!("t_s: {why}")))?,
                (None, Some(iteration)) => When::Iteration(Iteration(iteration)),
                _ => return Err(wrong("name either t_s or an iteration".to_owned())),
            };
            let whole = line.event == "lose";
            let target = match (line.node, line.stage, line.region) {
                (Some(node), None, None) if !whole => Target::Node(node),
                (None, Some(stage), None) if whole => Target::WholeStage(StageId(stage)),
                (None, Some(stage), None) => Target::Stage(StageId(stage)),
                (None, None, Some(name)) => Target::Region(region(&name).ok_or_else(|| {
                    wrong(format!(
                        "region '{name}' is not one of the run's; name it as --wan or --links does"
                    ))
                })?),
                _ => {
                    return Err(wrong(
                        "name either a node, a stage or a region; only these two are lost".to_owned(),
                    ));
                }
            };
            match line.event.as_str() {
                "kill" | "lose" => kills.push(Kill::new(when, target)),
                "drain" => kills.push(Kill { when, target, notice: true }),
                // A local swarm starts a new process for each that dies.
                "join" => {}
                other => return Err(wrong(format!("event '{other}' is not kill, lose, drain or join"))),
            }
        }
        Ok(Self::Trace(kills))
    }
}
