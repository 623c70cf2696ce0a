//! What a parent tells its children: one JSON line on their standard input, so that the run's secret is seen neither
//! in arguments nor in the environment. Afterwards the pipe stays open: when it closes, the parent is gone, and the
//! child ends.

use crate::config::RunConfig;
use crate::fixed_plan::FixedPlan;
use crate::wan::{PaceCount, RegionView, TaskTimes};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skipstone_planner::SwarmDescription;
use skipstone_protocol::SavedState;
use skipstone_types::{Iteration, NodeId, RunId, Settings, StageId};
use std::io::{self, BufRead, Write};
use std::path::PathBuf;

/// Longest first line, in bytes.
const LINE_BYTES_MAX: u64 = 8 << 20;

/// For a coordinator.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CoordinatorStart {
    /// The run's secret, in hexadecimal.
    pub(super) secret: String,
    /// The run.
    pub(super) settings: Settings,
    /// The run's folder.
    pub(super) dir: PathBuf,
    /// The port to listen on; 0 takes any free one.
    pub(super) port: u16,
    /// Go back to what `state/` holds.
    pub(super) resume: Option<SavedState>,
    /// What is known of links and speeds; none: paths are balanced.
    pub(super) swarm: Option<SwarmDescription>,
    /// Stages and paths, if they are given.
    pub(super) fixed: Option<FixedPlan>,
    /// What placement gives for failures kept apart, in seconds of an iteration; none: 2 %.
    pub(super) domain_price_s: Option<f64>,
    /// Names of the regions, in the order of their numbers.
    pub(super) regions: Vec<String>,
    /// Where it is, if links are shaped.
    pub(super) view: Option<RegionView>,
    /// How other machines find it, if they may.
    pub(super) listen: Option<ListenStart>,
}

/// For a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct NodeStart {
    /// The run's secret, in hexadecimal.
    pub(super) secret: String,
    /// The run.
    pub(super) run: RunId,
    /// Where the coordinator listens.
    pub(super) coordinator: String,
    /// The run's folder.
    pub(super) dir: PathBuf,
    /// Model, stages, batches, optimiser, seed.
    pub(super) config: RunConfig,
    /// Tokens of the vocabulary.
    pub(super) vocabulary: usize,
    /// Where it is, if links are shaped.
    pub(super) view: Option<RegionView>,
    /// Whether it says nothing to the coordinator until it is told to: nodes are let in by their places, so that a region
    /// serves the same stage each time.
    pub(super) waits: bool,
    /// How long its tasks take, if the run is paced.
    pub(super) pace: Option<TaskTimes>,
    /// How it takes part in the internet, if the run has nodes on other machines.
    pub(super) door: Option<DoorStart>,
}

/// How a node takes part in the internet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DoorStart {
    /// The machine's number, which tells who is reached over loopback.
    pub(super) machine: u64,
    /// Its secret key, in hexadecimal; none: it draws one.
    pub(super) key: Option<String>,
    /// Through whom it is found: `public`, `none` or URLs.
    pub(super) relays: String,
    /// On a machine without the run's folder: where the coordinator is, which has it. Such a node tells its parent what
    /// becomes of it.
    pub(super) host: Option<String>,
}

/// How a run is found by other machines.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ListenStart {
    /// The machine's number.
    pub(super) machine: u64,
    /// Through whom it is found: `public`, `none` or URLs.
    pub(super) relays: String,
    /// Whether it says where it is to whoever asks on its own network.
    pub(super) lan: bool,
    /// The UDP port; 0 takes any free one.
    pub(super) port: u16,
    /// What nodes of other machines are told.
    pub(super) config: RunConfig,
    /// Tokens of the vocabulary.
    pub(super) vocabulary: usize,
    /// Where they are, if links are known.
    pub(super) places: Option<PlacesStart>,
}

/// Where nodes of other machines are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PlacesStart {
    /// The table of links: a built-in one, or a file on the coordinator's machine.
    pub(super) table: String,
    /// Whether links are held back to what it says.
    pub(super) shaped: bool,
    /// The table's place of the first node that does not say where it is.
    pub(super) first: usize,
}

/// What a node at home tells its parent: a JSON line each.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum NodeCount {
    /// How true its pace is.
    Pace(PaceCount),
    /// How much it sent.
    Sent(SentCount),
}

/// How much a node has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SentCount {
    /// Its process.
    pub(super) process: u32,
    /// Bytes of tensors, to other nodes.
    pub(super) sent_bytes: u64,
}

/// What a node on a machine without the run's folder tells its parent: a JSON line each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum NodeNews {
    /// The run took it in.
    Welcome { node: NodeId },
    /// It gets the state of a stage.
    Fetching { stage: StageId },
    /// It has computed something that counts.
    Working { stage: StageId, iteration: Iteration },
    /// The coordinator is not there.
    Away,
    /// Nothing depends on it any more: it goes, as it asked to, or as an admin had it do.
    Left,
    /// The run does not take it in.
    Refused { why: String },
    /// It has sent so many bytes of tensors.
    Sent { sent_bytes: u64 },
}

/// A coordinator's first line on standard output; events follow, one a line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CoordinatorReady {
    /// Where it listens.
    pub(super) address: String,
}

/// Told once by a coordinator that listens, when it has looked for a relay: a line among its events.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CoordinatorFindable {
    /// Where other machines find it.
    pub(super) address: String,
    /// Whether they may also find it by a relay.
    pub(super) by_relay: bool,
}

/// Told by a coordinator for each node of another machine that it welcomes: a line among its events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CoordinatorWelcomed {
    /// The node.
    pub(super) node: NodeId,
    /// The machine, as it calls itself: the beginning of its key.
    pub(super) machine: String,
    /// The number of the ticket that it came with.
    pub(super) ticket: u64,
}

/// Writes a child's first line.
///
/// # Errors
/// A child that is gone.
pub(super) fn write_start<T: Serialize>(pipe: &mut impl Write, start: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(start).map_err(io::Error::other)?;
    line.push(b'\n');
    pipe.write_all(&line)?;
    pipe.flush()
}

/// Reads the first line.
///
/// # Errors
/// A line that is not what a parent of this version writes.
pub(super) fn read_start<T: DeserializeOwned>(pipe: &mut impl BufRead) -> io::Result<T> {
    let mut line = String::new();
    io::Read::take(pipe, LINE_BYTES_MAX).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(|why| {
        let text = format!("this command is started by `skipstone train`, not by hand ({why})");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

/// Exit code of a child whose parent is gone.
const ORPHAN_EXIT: i32 = 3;

/// Reads stdin to its end on a thread of its own: `each` gets every line. When the parent has gone the pipe ends, and
/// with it this process.
pub(super) fn follow_parent(each: impl Fn(&str) + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name("parent".to_owned()).spawn(move || {
        let mut input = io::stdin().lock();
        let mut line = String::new();
        loop {
            line.clear();
            match io::Read::take(&mut input, LINE_BYTES_MAX).read_line(&mut line) {
                Ok(0) | Err(_) => std::process::exit(ORPHAN_EXIT),
                Ok(_) => each(line.trim()),
            }
        }
    })?;
    Ok(())
}
