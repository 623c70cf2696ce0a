//! The summary as people read it at the end of a run.

use crate::account::meaning;
use crate::{PaceTruth, Recovery, Summary, words};
use std::collections::BTreeMap;

/// Columns of standard output: the terminal's, and 100 where it is none.
pub fn stdout_width() -> usize {
    terminal_size::terminal_size_of(std::io::stdout()).map_or(100, |(columns, _)| columns.0.into())
}

impl Summary {
    /// The summary as people read it: what came out, what it took, what was survived, what to do next.
    /// Prose is wrapped to `width` columns (see [`stdout_width`]), at least 60 and at most 100.
    pub fn render(&self, width: usize) -> String {
        let width = width.clamp(60, 100);
        let row = |name: &str, text: &str| row(name, text, width);
        let mut text = String::from("\n");
        text.push_str(&self.headline());
        text.push_str(&row("model", &self.quality()));
        for (name, reference) in
            [("bigram", self.bigram_val_loss), ("entropy floor", self.entropy_floor_loss)]
        {
            if let Some(loss) = reference {
                text.push_str(&row("", &format!("{name}: {loss:.3} nats per token")));
            }
        }
        text.push_str(&row("speed", &self.speed()));
        if self.node_seconds > 0.0 {
            text.push_str(&row("goodput", &self.waste()));
            if let Some(sharing) = words::sharing(self.nodes, self.cores) {
                text.push_str(&row("", &sharing));
            }
        }
        if let Some(cost) = &self.cost {
            text.push_str(&row("cost", &cost.render()));
        }
        if let Some(pace) = self.pace {
            text.push_str(&row("pace", &pace_truth(&pace)));
        }
        for (index, line) in self.survived().into_iter().enumerate() {
            let is_over = matches!(self.ended.as_deref(), None | Some("done" | "stopped"));
            let heading = if is_over { "survived" } else { "underwent" };
            text.push_str(&row(if index == 0 { heading } else { "" }, &line));
        }
        if let Some(sample) = &self.sample {
            text.push_str("\nIt writes:\n");
            for line in sample.lines().take(12) {
                for line in wrap(&words::clean(line, 600), width - 4) {
                    text.push_str(&format!("  │ {line}\n"));
                }
            }
        }
        text.push_str(&self.next());
        text
    }

    fn headline(&self) -> String {
        let iterations = words::plural(self.steps, "iteration");
        let wall = words::duration(self.wall_s);
        match self.ended.as_deref() {
            Some("done") => format!("Done: {iterations} in {wall}.\n\n"),
            Some("stopped") if self.steps == 0 => {
                format!(
                    "Stopped after {wall}, before the first iteration: there is nothing to go on from.\n\n"
                )
            }
            Some("stopped") => {
                format!("Stopped after {iterations} and {wall}; `--resume` goes on from here.\n\n")
            }
            Some(why) => format!("Ended after {iterations} and {wall}: {}\n\n", words::clean(why, 300)),
            None => format!("{iterations} in {wall}; the log has no end yet.\n\n"),
        }
    }

    fn quality(&self) -> String {
        let mut parts = Vec::new();
        if let (Some(loss), Some(perplexity)) = (self.val_loss, self.val_perplexity) {
            parts.push(format!("validation loss {loss:.3} (perplexity {perplexity:.2})"));
        }
        if let Some(loss) = self.train_loss {
            parts.push(format!("training loss {loss:.3}"));
        }
        if parts.is_empty() { "not trained yet".to_owned() } else { parts.join(", ") }
    }

    fn speed(&self) -> String {
        format!(
            "{} tokens/s over {} tokens, {} on {}",
            words::count(self.tokens_per_s),
            words::count(self.tokens as f64),
            words::plural(self.nodes as u64, "node"),
            words::plural(u64::from(self.stages) + 1, "stage")
        )
    }

    fn waste(&self) -> String {
        let mut causes: Vec<(&str, f64)> = self
            .badput
            .causes()
            .into_iter()
            .map(|(name, seconds)| (name, seconds / self.node_seconds))
            .filter(|(_, share)| *share >= 0.0005)
            .collect();
        causes.sort_by(|a, b| b.1.total_cmp(&a.1));
        let rest: Vec<String> = causes
            .iter()
            .enumerate()
            .map(|(index, (name, share))| {
                let text = format!("{} {}", name.replace('_', " "), words::percent(*share));
                // What costs most is explained.
                if index == 0 { format!("{text} ({})", meaning(name)) } else { text }
            })
            .collect();
        let good = words::percent(self.goodput);
        if rest.is_empty() { good } else { format!("{good} of node time; the rest: {}", rest.join(", ")) }
    }

    fn survived(&self) -> Vec<String> {
        if self.kills == 0 && self.losses == 0 && self.coordinator_restarts.is_empty() {
            return Vec::new();
        }
        let mut lines = vec![if self.kills > 0 {
            words::plural(self.kills, "kill")
        } else {
            format!("the loss of {}", words::plural(self.losses, "node"))
        }];
        let mut kinds: BTreeMap<&str, Vec<&Recovery>> = BTreeMap::new();
        for recovery in &self.recoveries {
            kinds.entry(&recovery.kind).or_default().push(recovery);
        }
        for (kind, recoveries) in kinds {
            let count = recoveries.len() as u64;
            let what = match kind {
                "copy" => format!("{} replaced by copying", words::plural(count, "replica")),
                "return" => format!("{} came back as it was", words::plural(count, "stage")),
                "saved" => format!("{} without a node saved from a copy", words::plural(count, "stage")),
                "random" => format!("{} begun anew with fresh weights", words::plural(count, "stage")),
                kind => format!("{} rebuilt by {}", words::plural(count, "stage"), words::clean(kind, 40)),
            };
            let slowest = recoveries.iter().map(|recovery| recovery.seconds).fold(0.0, f64::max);
            let mean = recoveries.iter().map(|recovery| recovery.seconds).sum::<f64>() / count as f64;
            lines.push(if count == 1 {
                format!("{what} in {}", words::duration(mean))
            } else {
                format!(
                    "{what} in {} on average, {} at most",
                    words::duration(mean),
                    words::duration(slowest)
                )
            });
        }
        if !self.coordinator_restarts.is_empty() {
            let count = self.coordinator_restarts.len() as u64;
            let seconds = self.coordinator_restarts.iter().filter_map(|restart| restart.seconds);
            let slowest = seconds.fold(0.0, f64::max);
            let took = if slowest > 0.0 {
                format!(", away {} at most", words::duration(slowest))
            } else {
                String::new()
            };
            lines.push(format!("{} of the coordinator{took}", words::plural(count, "restart")));
        }
        lines
    }

    fn next(&self) -> String {
        if self.steps == 0 || self.out.as_os_str().is_empty() {
            return String::new();
        }
        let out = shell_quoted(&self.out.display().to_string());
        let mut text = String::from("\nNext:\n");
        // Only a model that was exported has been evaluated.
        if self.val_loss.is_some() {
            let model = shell_quoted(&self.out.join("model").display().to_string());
            text.push_str(&format!(
                "  skipstone generate {model} --prompt \"Once\"\n  skipstone eval {model} --data FILE --skip 0,0.25,0.5\n"
            ));
        }
        let report = shell_quoted(&self.out.join("report.html").display().to_string());
        text.push_str(&format!("  skipstone show {out}          (and open {report})\n"));
        text
    }
}

fn pace_truth(pace: &PaceTruth) -> String {
    let tasks = words::plural(pace.tasks, "task");
    if pace.late == 0 {
        return format!("{tasks} took their modelled time");
    }
    format!(
        "warning: {} of {tasks} took longer than modelled, by {} on average ({} of the modelled time): times are \
         longer than the model's; pace more slowly, or take a smaller model",
        pace.late,
        words::duration(pace.late_s / pace.late as f64),
        words::percent(pace.late_s / pace.modelled_s.max(1e-9))
    )
}

fn row(name: &str, text: &str, width: usize) -> String {
    let mut name = name;
    wrap(text, width - 12)
        .into_iter()
        .map(|line| format!("  {:<9} {line}\n", std::mem::take(&mut name)))
        .collect()
}

/// As it can be pasted into a shell.
fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", words::clean(text, 4096).replace('\'', "'\\''"))
    }
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let fits = |line: &String| line.chars().count() + 1 + word.chars().count() <= width;
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if fits(line) => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
