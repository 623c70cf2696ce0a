//! `report.html`: a run on one page that needs nothing else.

mod curve;
pub(crate) mod svg;
mod time;
mod timeline;

use crate::{RunState, words};
use std::path::{Path, PathBuf};
use svg::escape;

/// Rows of a table; the latest.
const ROWS_MAX: usize = 200;

/// Writes the report of a run as `report.html` into its folder `dir`, and gives its path.
///
/// # Errors
/// A file that can't be written; the sentence names it.
pub fn write_report(dir: &Path, state: &RunState) -> Result<PathBuf, String> {
    let path = dir.join("report.html");
    match skipstone_files::write(&path, &[report(state).as_bytes()]) {
        Ok(()) => Ok(path),
        Err(why) => Err(format!("can't write the report {}: {why}", path.display())),
    }
}

/// The report of a run: one page without scripts or anything from elsewhere.
pub fn report(state: &RunState) -> String {
    let info = &state.info;
    let name = if info.model.is_empty() { "a model" } else { &info.model };
    let title = format!("skipstone: {name}, {}", words::plural(state.steps(), "iteration"));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n\
         <style>\n{}</style>\n<main>\n",
        escape(&title),
        include_str!("style.css")
    );
    page.push_str(&header(state, name));
    page.push_str(&cards(state));
    if let Some(curve) = curve::draw(state) {
        page.push_str(&section("Loss", &format!("{curve}{}", legend_of_loss(state))));
    }
    let (lanes, hidden) = timeline::draw(state);
    let more = if hidden > 0 {
        format!(
            "<p class=\"quiet\">{} with less trouble not shown.</p>\n",
            words::plural(hidden as u64, "stage")
        )
    } else {
        String::new()
    };
    page.push_str(&section("Who served when", &format!("{lanes}{}{more}", legend_of_lanes())));
    page.push_str(&section("Where the node time went", &time::draw(state)));
    page.push_str(&section("Recoveries", &recoveries(state)));
    page.push_str(&section("What happened last", &incidents(state)));
    if !info.settings.is_empty() {
        page.push_str(&section("Settings", &settings(state)));
    }
    page.push_str("</main>\n</html>\n");
    page
}

fn section(title: &str, body: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n{body}</section>\n")
}

fn header(state: &RunState, name: &str) -> String {
    let info = &state.info;
    let mut parts = Vec::new();
    if info.parameters > 0 {
        parts.push(format!("{} parameters", words::count(info.parameters as f64)));
    }
    parts.push(format!(
        "{} and the origin, {} each",
        words::plural(u64::from(info.relay_stages), "relay stage"),
        words::plural(u64::from(info.replicas.max(1)), "replica")
    ));
    if info.skip_realised > 0.0 {
        parts.push(format!("each path skips {}", words::percent(info.skip_realised)));
    }
    if !info.recovery.is_empty() {
        parts.push(format!("recovery: {}", words::clean(&info.recovery, 60)));
    }
    let ended = match state.finished() {
        Some("done") => "done".to_owned(),
        Some(why) => format!("ended: {}", words::clean(why, 200)),
        None => "not finished".to_owned(),
    };
    let wall = words::duration(state.now_ms() as f64 / 1000.0);
    format!(
        "<header>\n<h1>{}</h1>\n<p>{}</p>\n<p>{} in {wall} · {}</p>\n</header>\n",
        escape(name),
        escape(&parts.join(" · ")),
        words::plural(state.steps(), "iteration"),
        escape(&ended)
    )
}

fn cards(state: &RunState) -> String {
    let mut cards = Vec::new();
    match (state.validation().points().last(), state.final_train_loss()) {
        (Some(last), _) => {
            cards.push((format!("{:.3}", last.value), "validation loss".to_owned()));
            cards.push((format!("{:.2}", last.value.exp()), "perplexity".to_owned()));
        }
        (None, Some(loss)) => cards.push((format!("{loss:.3}"), "training loss".to_owned())),
        _ => {}
    }
    cards.push((words::count(state.tokens() as f64), "tokens".to_owned()));
    cards.push((words::count(state.tokens_per_s()), "tokens per second".to_owned()));
    cards.push((words::percent(state.time().goodput()), "goodput".to_owned()));
    let back = state.recoveries_total() + state.restarts().len() as u64;
    let (count, died) = match (state.kills(), state.losses()) {
        (0, losses) => (losses, "lost"),
        (kills, _) => (kills, "killed"),
    };
    cards.push((count.to_string(), format!("{died}, {}", words::plural(back, "recovery"))));
    let cards: String = cards
        .iter()
        .map(|(number, name)| format!("<div class=\"card\"><b>{number}</b><span>{name}</span></div>\n"))
        .collect();
    format!("<div class=\"cards\">\n{cards}</div>\n")
}

fn legend_of_loss(state: &RunState) -> String {
    let mut parts = Vec::new();
    if !state.timeline().marks().is_empty() {
        parts.push("<b class=\"dead\">×</b>a process died".to_owned());
    }
    parts.push("in nats per token; thin: each iteration, thick: a moving mean".to_owned());
    let (whole, drawn) = (state.loss().points(), state.loss().after_descent());
    if let (Some(first), true) = (whole.first(), drawn.len() < whole.len()) {
        parts.push(format!("the descent from {:.2} is cut off", first.value));
    }
    let parts: String = parts.iter().map(|part| format!("<span>{part}</span>")).collect();
    format!("<p class=\"legend\">{parts}</p>\n")
}

fn legend_of_lanes() -> String {
    let kinds: String = timeline::KINDS
        .iter()
        .map(|(_, class, name)| format!("<span><i class=\"key {class}\"></i>{name}</span>"))
        .collect();
    format!("<p class=\"legend\">{kinds}<span><b class=\"dead\">×</b>a process died</span></p>\n")
}

fn recoveries(state: &RunState) -> String {
    let mut rows: Vec<(String, String, String)> = state
        .restarts()
        .map(|restart| {
            let seconds = restart.seconds.map_or("unknown".to_owned(), words::duration);
            ("coordinator".to_owned(), format!("restart on its journal, term {}", restart.term), seconds)
        })
        .collect();
    rows.extend(state.recoveries().map(|recovery| {
        let kind = match recovery.kind.as_str() {
            "copy" => "a replica replaced by copying another".to_owned(),
            "return" => "came back with what it had".to_owned(),
            kind => format!("no replica left: rebuilt by {}", words::clean(kind, 60)),
        };
        (words::stage(recovery.stage), kind, words::duration(recovery.seconds))
    }));
    if rows.is_empty() {
        return "<p class=\"quiet\">Nothing had to be recovered.</p>\n".to_owned();
    }
    let all = state.recoveries_total() as usize + state.restarts().len();
    let skipped = rows.len().saturating_sub(ROWS_MAX);
    let body: String = rows[skipped..]
        .iter()
        .map(|(who, how, took)| {
            format!(
                "<tr><td>{}</td><td>{}</td><td class=\"number\">{took}</td></tr>\n",
                escape(who),
                escape(how)
            )
        })
        .collect();
    let note = if all > ROWS_MAX {
        format!("<p class=\"quiet\">The last {ROWS_MAX} of {all}.</p>\n")
    } else {
        String::new()
    };
    format!(
        "{note}<table><thead><tr><th>what</th><th>how</th><th class=\"number\">until it served again</th></tr>\
         </thead><tbody>\n{body}</tbody></table>\n"
    )
}

fn incidents(state: &RunState) -> String {
    let rows: String = state
        .stories()
        .map(|story| {
            let at = words::clock(story.at_ms / 1000);
            format!("<tr><td class=\"quiet\">{at}</td><td>{}</td></tr>\n", escape(&story.text()))
        })
        .collect();
    if rows.is_empty() {
        return "<p class=\"quiet\">Nothing yet.</p>\n".to_owned();
    }
    format!("<table><tbody>\n{rows}</tbody></table>\n")
}

fn settings(state: &RunState) -> String {
    let rows: String = state
        .info
        .settings
        .iter()
        .map(|(name, value)| {
            format!("<tr><td class=\"quiet\">{}</td><td>{}</td></tr>\n", escape(name), escape(value))
        })
        .collect();
    format!("<table><tbody>\n{rows}</tbody></table>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunInfo;
    use skipstone_types::{EVENT_SCHEMA, Event, EventRecord};

    #[test]
    fn foreign_text_is_escaped_everywhere() {
        let evil = "<script>alert(1)</script>";
        let info = RunInfo {
            model: evil.into(),
            recovery: evil.into(),
            settings: vec![(evil.into(), evil.into())],
            ..RunInfo::default()
        };
        let mut state = RunState::new(info);
        let mut add = |event| state.apply(&EventRecord { schema: EVENT_SCHEMA, time_ms: 5, event });
        add(Event::SaveFailed { why: evil.into() });
        add(Event::Finished { iteration: skipstone_types::Iteration(0), why: evil.into() });
        let page = report(&state);
        assert!(!page.contains("<script"), "{page}");
        assert!(page.matches("&lt;script&gt;").count() >= 6);
        assert!(!page.contains("http"), "nothing from elsewhere");
    }
}
