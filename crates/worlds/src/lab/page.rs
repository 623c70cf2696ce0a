//! Results as pictures and a page.

use super::paths::PLANNED;
use super::text::{LEFT_OUT, NOTE_OF_LEFT_OUT, PathsTold, notes};
use super::{Experiment, Group, LabError, markdown};
use skipstone_observe::{Curve, CurveChart, CurvePoint, CurvesPage, CurvesTable, curves_page};
use std::path::{Path, PathBuf};

/// Writes `table.md`, `report.html`, and each chart as an SVG and a PNG file, into the folder `dir`; gives their paths.
///
/// # Errors
/// The file system's, or a picture's that is too large.
pub fn write_pages(experiment: &Experiment, groups: &[Group], dir: &Path) -> Result<Vec<PathBuf>, LabError> {
    let table = markdown(experiment, groups);
    let charts = charts(groups);
    let page = CurvesPage {
        title: experiment.name.clone(),
        about: experiment.about.trim().to_owned(),
        charts: charts.iter().map(|(_, chart)| chart.clone()).collect(),
        tables: tables(experiment, groups),
    };
    let mut files = vec![
        ("report.html".to_owned(), curves_page(&page).into_bytes()),
        ("table.md".to_owned(), table.into_bytes()),
    ];
    for (name, chart) in &charts {
        files.push((format!("{name}.svg"), chart.file().into_bytes()));
        let (name, picture) = (format!("{name}.png"), chart.png());
        let picture = picture.map_err(|source| LabError::Picture { path: dir.join(&name), source })?;
        files.push((name, picture));
    }
    let mut paths = Vec::new();
    for (name, content) in files {
        let path = dir.join(name);
        skipstone_files::write(&path, &[&content])
            .map_err(|source| LabError::Write { path: path.clone(), source })?;
        paths.push(path);
    }
    Ok(paths)
}

fn tables(experiment: &Experiment, groups: &[Group]) -> Vec<CurvesTable> {
    let kinds = PathsTold::of(groups);
    let rows = groups.iter().map(|group| kinds.row(group)).collect();
    let plain = |note: &str| note.replace(['*', '`'], "");
    let notes = notes(experiment, &kinds).iter().map(|note| plain(note)).collect();
    let title = "All figures".to_owned();
    let mut tables = vec![CurvesTable { title, notes, columns: kinds.columns(), rows }];
    if let Some(columns) = kinds.columns_of_left_out(groups) {
        let rows = groups.iter().filter_map(|group| kinds.row_of_left_out(group)).collect();
        tables.push(CurvesTable {
            title: LEFT_OUT.to_owned(),
            notes: vec![plain(NOTE_OF_LEFT_OUT)],
            columns,
            rows,
        });
    }
    tables
}

const NOTE: &str = "a line is the mean over seeds, a band the range of them; the first descent is cut off";

/// What is drawn in one picture.
struct Picture<'a> {
    /// In words.
    what: String,
    /// The end of its files' names.
    name: String,
    /// Each with its curve's name.
    shown: Vec<(String, &'a Group)>,
}

/// For each skip ratio, kind of paths and kind of failure a picture, in which strategies are compared. If nothing fails, one of all skip
/// ratios, or for each skip ratio one of all kinds of paths.
fn pictures(groups: &[Group]) -> Vec<Picture<'_>> {
    let is_one_kind = groups.windows(2).all(|pair| pair[0].paths == pair[1].paths);
    let mut kinds: Vec<(f64, &str, &str)> = Vec::new();
    for group in groups.iter().filter(|group| !group.is_calm()) {
        let kind = (group.skip, group.paths.as_str(), group.failures.as_str());
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() && is_one_kind {
        let shown = groups.iter().map(|group| (format!("{:.0} % skipped", 100.0 * group.skip), group));
        let paths = groups.first().map(|group| group.paths.as_str()).filter(|paths| *paths != PLANNED);
        let of_paths = paths.map(|paths| format!(", {paths} paths")).unwrap_or_default();
        let (what, name) = (format!("no failures{of_paths}"), "without-failures".to_owned());
        return vec![Picture { what, name, shown: shown.collect() }];
    }
    if kinds.is_empty() {
        let mut skips: Vec<f64> = groups.iter().map(|group| group.skip).collect();
        skips.dedup();
        let picture = |skip: f64| Picture {
            what: format!("no failures, {:.0} % skipped", 100.0 * skip),
            name: format!("without-failures-skip-{skip}"),
            shown: groups
                .iter()
                .filter(|group| group.skip == skip)
                .map(|group| (group.paths.clone(), group))
                .collect(),
        };
        return skips.into_iter().map(picture).collect();
    }
    let in_names = |text: &str| -> String {
        let letter = |letter: char| letter.is_alphanumeric() || ".-".contains(letter);
        text.chars().map(|c| if letter(c) { c } else { '-' }).collect()
    };
    let picture = |(skip, paths, failures): (f64, &str, &str)| {
        let rate = failures.parse::<f64>().map(|rate| format!("{rate} losses a stage and iteration"));
        let is_told = !is_one_kind || paths != PLANNED;
        let of_paths = if is_told { format!(", {paths} paths") } else { String::new() };
        let named_paths = if is_one_kind { String::new() } else { format!("-paths-{}", in_names(paths)) };
        let failed = rate.unwrap_or_else(|_| failures.to_owned());
        Picture {
            what: format!("{failed}, {:.0} % skipped{of_paths}", 100.0 * skip),
            name: format!("rate-{}-skip-{skip}{named_paths}", in_names(failures)),
            shown: groups
                .iter()
                .filter(|group| group.skip == skip && group.paths == paths)
                .filter(|group| group.failures == failures || group.is_calm())
                .map(|group| (group.strategy.clone(), group))
                .collect(),
        }
    };
    kinds.into_iter().map(picture).collect()
}

/// Of each picture two charts: by iteration, and by modelled time.
fn charts(groups: &[Group]) -> Vec<(String, CurveChart)> {
    let mut charts = Vec::new();
    for Picture { what, name, shown } in pictures(groups) {
        for (axis, by_time) in [("iterations", false), ("hours", true)] {
            let curves = shown.iter().map(|(name, group)| Curve {
                name: name.clone(),
                points: group
                    .curve
                    .iter()
                    .map(|point| CurvePoint {
                        x: if by_time { point.hours } else { point.iteration as f64 },
                        y: point.mean,
                        low: point.low,
                        high: point.high,
                    })
                    .collect(),
            });
            let chart = CurveChart {
                title: format!("Loss by {axis}: {what}"),
                x_name: if by_time { "hours of modelled time" } else { "iterations" }.to_owned(),
                y_name: "validation loss, nats per token".to_owned(),
                note: NOTE.to_owned(),
                curves: curves.collect(),
            };
            charts.push((format!("loss-by-{axis}-{name}"), chart));
        }
    }
    charts
}
