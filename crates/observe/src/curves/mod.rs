//! Curves side by side: a chart as a file of its own, and a page of charts and a table that needs nothing else.
//!
//! A chart is laid out once, as a list of marks (`drawing.rs`). An SVG and a PNG (`painter.rs`) are two ways to write that list.

mod chart;
mod clip;
mod drawing;
mod font;
mod painter;
mod palette;

pub use chart::{Curve, CurveChart, CurvePoint};
pub use painter::PictureError;

use crate::report::svg::escape;

/// A page of charts.
#[derive(Debug, Clone, Default)]
pub struct CurvesPage {
    /// Its title.
    pub title: String,
    /// A paragraph below it.
    pub about: String,
    /// The charts.
    pub charts: Vec<CurveChart>,
    /// The tables below them.
    pub tables: Vec<CurvesTable>,
}

/// A table of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurvesTable {
    /// What it shows.
    pub title: String,
    /// Paragraphs that say what its columns are.
    pub notes: Vec<String>,
    /// Its columns.
    pub columns: Vec<String>,
    /// Its rows.
    pub rows: Vec<Vec<String>>,
}

/// The page as HTML: one file without scripts or anything from elsewhere.
pub fn curves_page(page: &CurvesPage) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n\
         <style>\n{}{}</style>\n<main class=\"wide\">\n<header>\n<h1>{}</h1>\n<p>{}</p>\n</header>\n",
        escape(&page.title),
        include_str!("../report/style.css"),
        palette::style(),
        escape(&page.title),
        escape(&page.about),
    );
    for chart in &page.charts {
        html.push_str(&format!(
            "<section>\n<h2>{}</h2>\n{}{}<p class=\"legend\">{}</p>\n</section>\n",
            escape(&chart.title),
            chart.draw(),
            chart.legend(),
            escape(&chart.note)
        ));
    }
    let cells = |tag: &str, cells: &[String]| -> String {
        cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect()
    };
    for table in &page.tables {
        let rows: String = table.rows.iter().map(|row| format!("<tr>{}</tr>\n", cells("td", row))).collect();
        let notes: String =
            table.notes.iter().map(|note| format!("<p class=\"legend\">{}</p>\n", escape(note))).collect();
        html.push_str(&format!(
            "<section class=\"scroll\">\n<h2>{}</h2>\n{}<table>\n<tr>{}</tr>\n{rows}</table>\n</section>\n",
            escape(&table.title),
            notes,
            cells("th", &table.columns)
        ));
    }
    html.push_str("</main>\n</html>\n");
    html
}
