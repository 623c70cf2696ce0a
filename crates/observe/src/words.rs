//! Numbers and lists as people write them.

use skipstone_types::StageId;

/// `0.42 s`, `8.1 s`, `1:32`, `2:05:09`, `3 d 4 h`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match seconds {
        s if s < 9.95 => format!("{:.1} s", s.max(0.0)),
        s if s < 59.5 => format!("{whole} s"),
        s if s < 3600.0 => format!("{}:{:02}", whole / 60, whole % 60),
        s if s < 48.0 * 3600.0 => clock(whole),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// `0:07`, `1:32`, `2:05:09`: a point in the run's time.
pub(crate) fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// A short delay: `20 ms`, `0.4 s`, `12 s`.
pub(crate) fn delay(ms: u64) -> String {
    if ms < 95 { format!("{ms} ms") } else { duration(ms as f64 / 1000.0) }
}

/// `840`, `12.3 k`, `3.21 M`, `1.50 B`.
pub(crate) fn count(n: f64) -> String {
    match n {
        n if n < 999.5 => format!("{n:.0}"),
        n if n < 9_995.0 => format!("{:.2} k", n / 1e3),
        n if n < 999_500.0 => format!("{:.1} k", n / 1e3),
        n if n < 999.5e6 => format!("{:.2} M", n / 1e6),
        _ => format!("{:.2} B", n / 1e9),
    }
}

/// `71 %`, and `0.4 %` where whole per cents hide it.
pub(crate) fn percent(fraction: f64) -> String {
    let percent = fraction * 100.0;
    match percent {
        p if p > 0.0 && p < 0.05 => "< 0.1 %".to_owned(),
        p if p > 0.0 && p < 0.95 => format!("{p:.1} %"),
        p => format!("{p:.0} %"),
    }
}

/// `12.5 MB`.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// `1 kill`, `3 kills`.
pub(crate) fn plural(n: u64, one: &str) -> String {
    match one {
        _ if n == 1 => format!("1 {one}"),
        "recovery" => format!("{n} recoveries"),
        "microbatch" => format!("{n} microbatches"),
        one => format!("{n} {one}s"),
    }
}

/// `origin` or `stage 3`.
pub(crate) fn stage(stage: StageId) -> String {
    if stage.is_origin() { "origin".to_owned() } else { stage.to_string() }
}

/// `the origin` or `stage 3`, within a sentence.
pub(crate) fn the_stage(stage: StageId) -> String {
    if stage.is_origin() { "the origin".to_owned() } else { stage.to_string() }
}

/// `2`, `2 and 4`, `2, 3 and 4`.
pub(crate) fn list(items: impl IntoIterator<Item = String>) -> String {
    let mut items: Vec<String> = items.into_iter().collect();
    match items.pop() {
        None => String::new(),
        Some(last) if items.is_empty() => last,
        Some(last) => format!("{} and {last}", items.join(", ")),
    }
}

/// Stages within a sentence: `the origin and stage 2`, `stages 2 and 4`.
pub(crate) fn stages(stages: &[StageId]) -> String {
    let relays = stages.iter().filter(|stage| !stage.is_origin()).count();
    let mut noun = if relays > 1 { "stages " } else { "stage " };
    list(stages.iter().map(|stage| {
        if stage.is_origin() {
            "the origin".to_owned()
        } else {
            format!("{}{}", std::mem::take(&mut noun), stage.0)
        }
    }))
}

/// `12 nodes share 2 processor cores, and wait for …`, where nodes have to take turns.
pub(crate) fn sharing(nodes: usize, cores: usize) -> Option<String> {
    let cores_in_words = plural(cores as u64, "processor core");
    (0 < cores && cores < nodes).then(|| {
        format!("{nodes} nodes share {cores_in_words}, and wait for each other; a task that waits for a core counts as work")
    })
}

/// `s` on one line, without control characters, of at most `max` characters: what a peer or the system said is
/// not trusted to leave the terminal alone.
pub(crate) fn clean(s: &str, max: usize) -> String {
    let mut clean: String =
        s.chars().map(|c| if c.is_control() { ' ' } else { c }).take(max.saturating_add(1)).collect();
    if clean.chars().count() > max {
        clean.pop();
        clean.push('…');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(duration(0.42), "0.4 s");
        assert_eq!(duration(9.96), "10 s");
        assert_eq!(duration(92.0), "1:32");
        assert_eq!(duration(7509.0), "2:05:09");
        assert_eq!(duration(100.0 * 3600.0), "4 d 4 h");
        assert_eq!(delay(20), "20 ms");
        assert_eq!(delay(400), "0.4 s");
        assert_eq!(count(999.7), "1.00 k");
        assert_eq!(count(12_345.0), "12.3 k");
        assert_eq!(count(3_214_000.0), "3.21 M");
        assert_eq!(percent(0.004), "0.4 %");
        assert_eq!(percent(0.714), "71 %");
        assert_eq!(stages(&[StageId(0), StageId(2), StageId(4)]), "the origin, stages 2 and 4");
        assert_eq!(stages(&[StageId(3)]), "stage 3");
        assert!(sharing(12, 2).is_some_and(|text| text.starts_with("12 nodes share 2 processor cores")));
        assert_eq!((sharing(2, 2), sharing(2, 0)), (None, None));
        assert_eq!(list([]), "");
    }

    #[test]
    fn foreign_text_is_one_short_line() {
        assert_eq!(clean("a\x1b[2Jb\nc", 80), "a [2Jb c");
        assert_eq!(clean("abcdef", 3), "abc…");
    }
}
