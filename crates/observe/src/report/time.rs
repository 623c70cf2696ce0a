//! Where the node-seconds went.

use super::svg::Svg;
use crate::account::meaning;
use crate::{RunState, words};

/// The bar and its table.
pub(super) fn draw(state: &RunState) -> String {
    let time = state.time();
    let alive = time.alive_seconds();
    if alive <= 0.0 {
        return "<p class=\"quiet\">No node has lived yet.</p>\n".to_owned();
    }
    let accounts: Vec<(&str, f64)> =
        std::iter::once(("good", time.good_seconds())).chain(time.badput().causes()).collect();
    let mut svg = Svg::new(1000.0, 30.0, "Node-seconds by what they were spent on");
    let mut rows = String::new();
    let mut x = 0.0;
    for (name, seconds) in &accounts {
        let meaning = meaning(name);
        let share = seconds / alive;
        if *seconds <= 0.0 {
            continue;
        }
        let tip = format!("{name}: {} of node time, {}", words::percent(share), words::duration(*seconds));
        svg.rect(&format!("account {name}"), (x, 0.0), (share * 1000.0, 30.0), &tip);
        x += share * 1000.0;
        let shown = if *name == "good" { "goodput".to_owned() } else { name.replace('_', " ") };
        rows.push_str(&format!(
            "<tr><td><i class=\"key {name}\"></i>{shown}</td><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td><td class=\"quiet\">{meaning}</td></tr>\n",
            words::percent(share),
            words::duration(*seconds)
        ));
    }
    let shared = words::sharing(state.info.nodes, state.cores())
        .map_or(String::new(), |sharing| format!("<p class=\"legend\">{sharing}.</p>\n"));
    format!(
        "{}{shared}<table><thead><tr><th>spent on</th><th class=\"number\">share</th><th class=\"number\">node time</th>\
         <th></th></tr></thead><tbody>\n{rows}</tbody></table>\n",
        svg.finish()
    )
}
