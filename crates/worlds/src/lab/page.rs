//! Results as pictures and a page.

use super::text::{LEFT_OUT, columns, columns_of_left_out, row, row_of_left_out};
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
        tables: tables(groups),
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

fn tables(groups: &[Group]) -> Vec<CurvesTable> {
    let rows = groups.iter().map(row).collect();
    let mut tables = vec![CurvesTable { title: "All figures".to_owned(), columns: columns(), rows }];
    if let Some(columns) = columns_of_left_out(groups) {
        let rows = groups.iter().filter_map(row_of_left_out).collect();
        tables.push(CurvesTable { title: LEFT_OUT.to_owned(), columns, rows });
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

/// For each skip ratio and kind of failure a picture; one of all skip ratios if nothing fails.
fn pictures(groups: &[Group]) -> Vec<Picture<'_>> {
    let mut kinds: Vec<(f64, &str)> = Vec::new();
    for group in groups.iter().filter(|group| !group.is_calm()) {
        if !kinds.contains(&(group.skip, &group.failures)) {
            kinds.push((group.skip, &group.failures));
        }
    }
    if kinds.is_empty() {
        let shown = groups.iter().map(|group| (format!("{:.0} % skipped", 100.0 * group.skip), group));
        let (what, name) = ("no failures".to_owned(), "without-failures".to_owned());
        return vec![Picture { what, name, shown: shown.collect() }];
    }
    let picture = |(skip, failures): (f64, &str)| {
        let rate = failures.parse::<f64>().map(|rate| format!("{rate} losses a stage and iteration"));
        let letter =
            |letter: char| if letter.is_alphanumeric() || ".-".contains(letter) { letter } else { '-' };
        Picture {
            what: format!("{}, {:.0} % skipped", rate.unwrap_or_else(|_| failures.to_owned()), 100.0 * skip),
            name: format!("rate-{}-skip-{skip}", failures.chars().map(letter).collect::<String>()),
            shown: groups
                .iter()
                .filter(|group| group.skip == skip && (group.failures == failures || group.is_calm()))
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
