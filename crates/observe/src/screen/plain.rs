//! Progress as plain lines, for files, pipes and `--plain`.

use crate::{RunState, words};
use skipstone_types::NodeId;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

const LINE_EVERY: Duration = Duration::from_secs(5);

/// A story that isn't over after so long is told as far as it has got, once: by then silence would mislead.
const PATIENCE_MS: u64 = 5000;

/// Progress as plain lines: one every few seconds, and one for each incident when it is over. An incident that
/// takes long has one more, on the way.
#[derive(Debug)]
pub struct PlainView<W> {
    out: W,
    every: Duration,
    said: Option<Instant>,
    said_steps: u64,
    /// Stories below this number are known.
    next: u64,
    /// Stories that aren't over, by number, and whether their beginning has been told. No more than there are
    /// stories.
    open: BTreeMap<u64, bool>,
    /// What was said of the nodes last, if that is wanted.
    nodes: Option<String>,
}

impl<W: Write> PlainView<W> {
    /// Writes to `out`, which should be stderr.
    pub fn new(out: W) -> Self {
        Self {
            out,
            every: LINE_EVERY,
            said: None,
            said_steps: 0,
            next: 0,
            open: BTreeMap::new(),
            nodes: None,
        }
    }

    /// Sets how often progress is told; never more often than there is any.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Has it say with the progress which nodes there are, whenever others are.
    pub fn name_nodes(&mut self) {
        self.nodes.get_or_insert_default();
    }

    /// Passes over what has happened before the view was there.
    pub fn skip(&mut self, state: &RunState) {
        self.next = state.stories().map(|story| story.number + 1).max().unwrap_or(self.next);
    }

    /// Says what has happened and how far the run is, if it is time to. Call it after each event, and now and then.
    pub fn tick(&mut self, state: &RunState) {
        self.stories(state, PATIENCE_MS);
        let due = self.said.is_none_or(|said| said.elapsed() >= self.every);
        if due && state.steps() != self.said_steps {
            self.said = Some(Instant::now());
            self.said_steps = state.steps();
            let text = progress(state);
            self.line(state, &text);
            let names = nodes(state);
            if let Some(said) = self.nodes.as_mut().filter(|said| **said != names) {
                said.clone_from(&names);
                self.line(state, &names);
            }
        }
    }

    /// Says how the stories stand that aren't over: nothing will follow.
    pub fn close(&mut self, state: &RunState) {
        self.stories(state, 0);
    }

    /// Something that has just happened and that no event tells.
    pub fn remark(&mut self, text: &str, state: &RunState) {
        self.line(state, text);
    }

    /// A line of somebody else's.
    pub fn note(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}");
    }

    fn stories(&mut self, state: &RunState, patience_ms: u64) {
        let mut due = Vec::new();
        let mut open = BTreeMap::new();
        for story in state.stories() {
            let begun = self.open.get(&story.number).copied();
            if begun.is_none() && story.number < self.next {
                continue; // told to its end
            }
            let begun = begun.unwrap_or(false);
            let late = !begun && state.now_ms().saturating_sub(story.at_ms) >= patience_ms;
            if story.closed || late {
                due.push(story);
            }
            if !story.closed {
                open.insert(story.number, begun || late);
            }
        }
        // A story that another has taken in is told with that one.
        self.open = open;
        due.sort_by_key(|story| story.number);
        self.next = state.stories().map(|story| story.number + 1).max().unwrap_or(0).max(self.next);
        let texts: Vec<String> = due.iter().map(|story| story.text_at(state.now_ms())).collect();
        texts.iter().for_each(|text| self.line(state, text));
    }

    fn line(&mut self, state: &RunState, text: &str) {
        // A reader that went away is no reason to stop training.
        let _ = writeln!(self.out, "{:>7}  {text}", words::clock(state.now_ms() / 1000));
        let _ = self.out.flush();
    }
}

/// `nodes by stage  origin: 1 and 5; stage 1: 2 and 4; stage 2: nobody; without a stage: 7`
fn nodes(state: &RunState) -> String {
    let numbers = |nodes: Vec<NodeId>| words::list(nodes.iter().map(|node| node.0.to_string()));
    let mut parts: Vec<String> = Vec::new();
    for stage in state.stages() {
        let there: Vec<NodeId> = stage.nodes.keys().copied().collect();
        let who = if there.is_empty() { "nobody".to_owned() } else { numbers(there) };
        parts.push(format!("{}: {who}", words::stage(stage.stage)));
    }
    let spares: Vec<NodeId> =
        state.nodes.iter().filter(|(_, stage)| stage.is_none()).map(|(node, _)| *node).collect();
    if !spares.is_empty() {
        parts.push(format!("without a stage: {}", numbers(spares)));
    }
    format!("nodes by stage  {}", parts.join("; "))
}

/// `iteration 312/600  loss 2.314  12.3 k tokens/s  14 nodes  goodput 71 %`
fn progress(state: &RunState) -> String {
    let of = state.steps_aimed_at().map_or(String::new(), |steps| format!("/{steps}"));
    let mut text = format!("iteration {}{of}", state.steps());
    if let Some(loss) = state.loss().recent(1) {
        text.push_str(&format!("  loss {loss:.3}"));
    }
    let tokens_per_s = state.recent_tokens_per_s();
    if tokens_per_s > 0.0 {
        text.push_str(&format!("  {} tokens/s", words::count(tokens_per_s)));
    }
    text.push_str(&format!(
        "  {}  goodput {}",
        words::plural(state.living() as u64, "node"),
        words::percent(state.time().goodput())
    ));
    let holes: Vec<_> = state.stages().filter(|stage| stage.is_hole()).map(|stage| stage.stage).collect();
    if !holes.is_empty() {
        text.push_str(&format!("  without {}", words::stages(&holes)));
    }
    if let Some(seconds) = state.remaining_s() {
        text.push_str(&format!("  {} left", words::duration(seconds)));
    }
    text
}
