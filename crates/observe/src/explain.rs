//! What happened around an iteration, for `show --why`.

use crate::account::NodeTime;
use crate::story::{Story, Subject};
use crate::{RunInfo, RunState, slow, words};
use skipstone_types::{CommittedStage, Event, EventRecord, Iteration};

/// Iterations before the asked one that its loss and time are compared with.
const COMPARED: u64 = 20;

/// A human account of what happened around an iteration of a run, from its events.
pub fn explain(info: &RunInfo, events: &[EventRecord], iteration: Iteration) -> String {
    let t = iteration.0;
    let mut state = RunState::new(info.clone());
    let mut found: Option<Found> = None;
    let mut before = Before::default();
    for record in events {
        match &record.event {
            Event::AttemptStarted { iteration, expected_ms, .. } if iteration.0 == t && found.is_none() => {
                before.attempts += 1;
                before.expected_ms = *expected_ms;
            }
            Event::Committed { iteration, took_ms, .. } if iteration.0 < t => {
                before.took_ms.push(*took_ms);
            }
            _ => {}
        }
        let ended_before = matches!(record.event, Event::Committed { iteration, .. } if iteration.0.checked_add(1) == Some(t));
        let loss_before = state.loss().recent(COMPARED);
        state.apply(record);
        if ended_before {
            before.end_ms = record.time_ms;
            before.time = state.time().clone();
            before.attempts = 0;
            before.open = state.stories().filter(|story| !story.closed).cloned().collect();
        }
        if let Event::Committed { iteration, .. } = &record.event
            && iteration.0 == t
            && found.is_none()
        {
            let stories = state.stories().filter(|story| before.tells(story)).cloned().collect();
            let slow = slow::reasons(events, *iteration);
            found = Some(Found {
                record: record.clone(),
                stories,
                time: state.time().clone(),
                loss_before,
                slow,
            });
        } else if let Some(found) = &mut found {
            found.go_on(&state);
        }
    }
    match found {
        Some(found) => found.tell(&before, &state),
        None => missing(t, &state, &before),
    }
}

/// What led to the iteration.
#[derive(Debug, Default)]
struct Before {
    end_ms: u64,
    time: NodeTime,
    attempts: u32,
    /// What the plan of the last of them expected.
    expected_ms: Option<u64>,
    took_ms: Vec<u64>,
    open: Vec<Story>,
}

impl Before {
    /// Whether a story belongs to the iteration: it began in it, or was not over when it began.
    fn tells(&self, story: &Story) -> bool {
        story.at_ms >= self.end_ms || self.open.iter().any(|open| same(open, story))
    }
}

fn same(one: &Story, other: &Story) -> bool {
    one.at_ms == other.at_ms && one.subject == other.subject && one.subject != Subject::Run
        || one.text() == other.text()
}

/// The iteration's commit, and the stories that are told with it as they went on.
#[derive(Debug)]
struct Found {
    record: EventRecord,
    stories: Vec<Story>,
    time: NodeTime,
    loss_before: Option<f64>,
    /// Why it took longer than usual.
    slow: Vec<String>,
}

impl Found {
    fn go_on(&mut self, state: &RunState) {
        for told in self.stories.iter_mut().filter(|story| !story.closed) {
            if let Some(now) = state.stories().find(|story| same(story, told)) {
                *told = now.clone();
            }
        }
    }

    fn tell(&self, before: &Before, state: &RunState) -> String {
        let Event::Committed { iteration, attempt, loss, tokens, stages, replay_us, took_ms, .. } =
            &self.record.event
        else {
            return String::new();
        };
        let wall_ms = self.record.time_ms.saturating_sub(before.end_ms);
        let mut text = format!(
            "Iteration {} was committed at {} with loss {loss:.4} over {} tokens.\n",
            iteration.0,
            words::clock(self.record.time_ms / 1000),
            words::count(*tokens as f64)
        );
        if let Some(mean) = self.loss_before {
            text.push_str(&format!("  The mean loss of the iterations before was {mean:.4}.\n"));
        }
        let recent = &before.took_ms[before.took_ms.len().saturating_sub(COMPARED as usize)..];
        let mut usual: Vec<u64> = recent.to_vec();
        usual.sort_unstable();
        let usual = usual
            .get(usual.len() / 2)
            .map_or(String::new(), |ms| format!(" (attempts before it took {})", words::delay(*ms)));
        let attempts = before.attempts.max(attempt.0 + 1);
        text.push_str(&format!(
            "  It took {} since the one before, in {}{usual}.\n",
            words::delay(wall_ms),
            words::plural(u64::from(attempts), "attempt")
        ));
        if let Some(expected) = before.expected_ms {
            let error = (*took_ms as f64 / expected.max(1) as f64 - 1.0) * 100.0;
            text.push_str(&format!(
                "  The plan expected {} of the last attempt, which took {} ({error:+.0} %).\n",
                words::delay(expected),
                words::delay(*took_ms)
            ));
        }
        for reason in &self.slow {
            text.push_str(&format!("  Slow, {reason}.\n"));
        }
        text.push_str(&self.account(before));
        if *replay_us > 0 {
            let replay = words::delay(*replay_us / 1000);
            text.push_str(&format!("  {replay} of work was done again for nodes that were lost.\n"));
        }
        text.push_str("\nWho did it:\n");
        for stage in stages {
            text.push_str(&row(stage, state.replicas()));
        }
        text.push_str("\nWhat happened:\n");
        if self.stories.is_empty() {
            text.push_str("  Nothing: no node came, went or failed.\n");
        }
        text + &told(self.stories.iter())
    }

    /// Where the node time between the two commits went.
    fn account(&self, before: &Before) -> String {
        let alive = self.time.alive_seconds() - before.time.alive_seconds() + before.time.open_seconds();
        if alive <= 0.0 {
            return String::new();
        }
        let good = (self.time.good_seconds() - before.time.good_seconds()) / alive;
        let (now, then) = (self.time.badput().causes(), before.time.badput().causes());
        let mut causes: Vec<(&str, f64)> =
            now.iter().zip(then).map(|((name, now), (_, then))| (*name, (now - then) / alive)).collect();
        causes.retain(|(_, share)| *share >= 0.005);
        causes.sort_by(|a, b| b.1.total_cmp(&a.1));
        let causes = causes
            .iter()
            .map(|(name, share)| format!("{} {}", words::percent(*share), name.replace('_', " ")));
        format!("  Node time: {} good; {}.\n", words::percent(good), words::list(causes))
    }
}

/// A line a story, in the order in which they began; a state has them as they went on.
fn told<'a>(stories: impl Iterator<Item = &'a Story>) -> String {
    let mut stories: Vec<&Story> = stories.collect();
    stories.sort_by_key(|story| (story.at_ms, story.number));
    let line = |story: &Story| format!("  {:>7}  {}\n", words::clock(story.at_ms / 1000), story.text());
    stories.into_iter().map(line).collect()
}

fn row(stage: &CommittedStage, replicas: usize) -> String {
    let nodes = words::list(stage.nodes.iter().map(|node| node.0.to_string()));
    let name = words::stage(stage.stage);
    let microbatches = words::plural(u64::from(stage.microbatches), "microbatch");
    match stage.nodes.len() {
        0 => format!("  {name:<9} nobody: paths went around it\n"),
        n => {
            let short = if n < replicas { format!(" (of {replicas})") } else { String::new() };
            let noun = if n == 1 { "node" } else { "nodes" };
            let norm = stage.gradient_norm;
            format!("  {name:<9} {noun} {nodes}{short}: {microbatches}, gradient norm {norm:.3}\n")
        }
    }
}

fn missing(t: u64, state: &RunState, before: &Before) -> String {
    match (state.steps(), before.attempts) {
        (0, 0) => "The log holds no iteration.\n".to_owned(),
        (_, 1..) => {
            let mut text = format!(
                "Iteration {t} was begun {} but never committed; the run {}.\n\nWhat happened:\n",
                if before.attempts == 1 { "once".to_owned() } else { format!("{} times", before.attempts) },
                state
                    .finished()
                    .map_or("goes on".to_owned(), |why| format!("ended: {}", words::clean(why, 200)))
            );
            text.push_str(&told(state.stories().filter(|story| before.tells(story))));
            text
        }
        (steps, _) => {
            format!("Iteration {t} is not in the log, which holds iterations 0 to {}.\n", steps - 1)
        }
    }
}
