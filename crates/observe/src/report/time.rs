//! Where the node-seconds went.

use super::svg::Svg;
use crate::{RunState, words};

/// What each account means.
const MEANINGS: [(&str, &str); 10] = [
    ("good", "work that ended in a commit"),
    ("startup", "before nodes first served"),
    ("bubble", "serving with nothing to do, waits on links included"),
    ("link", "waiting for bytes on the wire"),
    ("memory_wait", "waiting for a free slot"),
    ("detection", "dead and not yet known to be"),
    ("recovery", "getting weights back after a loss, or waiting for that"),
    ("replay", "work done again for lost nodes"),
    ("aborted", "attempts that were given up"),
    ("idle", "spares and nodes without a stage"),
];

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
    for ((name, seconds), (_, meaning)) in accounts.iter().zip(MEANINGS) {
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
    format!(
        "{}<table><thead><tr><th>spent on</th><th class=\"number\">share</th><th class=\"number\">node time</th>\
         <th></th></tr></thead><tbody>\n{rows}</tbody></table>\n",
        svg.finish()
    )
}
