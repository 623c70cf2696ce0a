//! The text that says which paths microbatches take.

use crate::cost::Paths;
use skipstone_planner::DrawnPaths;
use skipstone_recovery::{Spec, SpecError};

/// The paths of arms of which nothing is said.
pub(super) const PLANNED: &str = "planned";

/// Longest jump or swap, and most swaps, in words of an option: beyond any number of stages.
const STAGES_MAX: u64 = 1000;

/// The paths that `text` describes: a name, and options after a colon, as in `drawn:swaps=2,jump=3`.
///
/// | name | paths | options (default first) |
/// |---|---|---|
/// | `planned` | as a live run has them: searched for over links where `wan` names some, else balanced | |
/// | `balanced` | ascending; an iteration visits all relay stages equally often, whatever the links | |
/// | `drawn` | drawn for each microbatch on its own ([`skipstone_planner::DrawnChooser`]) | `swaps=0` times that a path goes back, as far as it has room; `distance=1`, how far behind the highest stage so far; `jump=4`, the longest way from there to the next stage; `together=0` adjacent relay stages that are left out at one place at least; `visits=W/W/…`, how often each relay stage is visited beside the others, all equally if it is left out |
///
/// # Errors
/// A name, option or value that is not known; the nearest that is known is named.
pub(super) fn parse(text: &str) -> Result<Paths, SpecError> {
    let mut spec = Spec::parse("paths", text)?;
    let name = spec.one_of(&[PLANNED, "balanced", "drawn"])?;
    let paths = match name {
        "balanced" => Paths::Balanced,
        "drawn" => {
            let usual = DrawnPaths::default();
            let mut stages = |option, usual: u16, least: u64| {
                spec.whole(option, usual.into(), &(least..=STAGES_MAX)).map(|stages| stages as u16)
            };
            Paths::Drawn(DrawnPaths {
                swaps: stages("swaps", usual.swaps, 0)?,
                swap_distance_max: stages("distance", usual.swap_distance_max, 1)?,
                jump_max: stages("jump", usual.jump_max, 1)?,
                together: stages("together", usual.together, 0)?,
                visits: spec.numbers("visits", &(0.001..=1000.0))?,
            })
        }
        _ => Paths::Planned,
    };
    spec.finish()?;
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_say_which_paths_are_drawn() {
        assert_eq!(parse("planned"), Ok(Paths::Planned));
        assert_eq!(parse("balanced"), Ok(Paths::Balanced));
        assert_eq!(parse("drawn"), Ok(Paths::Drawn(DrawnPaths::default())));
        let all = DrawnPaths {
            swaps: 3,
            swap_distance_max: 2,
            jump_max: 5,
            together: 1,
            visits: Some(vec![2.0, 1.0, 0.5]),
        };
        assert_eq!(parse("drawn:visits=2/1/0.5,together=1,jump=5,distance=2,swaps=3"), Ok(Paths::Drawn(all)));
    }

    #[test]
    fn what_is_not_known_is_refused_with_the_nearest_that_is() {
        for (text, says) in [
            (
                "drwan",
                "paths drwan is not known (did you mean drawn?); pass one of: planned, balanced, drawn",
            ),
            ("drawn:swap=2", "no option 'swap' (did you mean swaps?)"),
            ("balanced:swaps=2", "it has none: write balanced"),
            ("drawn:jump=0", "jump=a whole number from 1 to 1000"),
            ("drawn:swaps=-1", "swaps=a whole number from 0 to 1000"),
            ("drawn:visits=1/0", "numbers from 0.001 to 1000 with a slash between two"),
            ("drawn:visits=1/nan", "with a slash"),
            ("drawn:visits", "with a slash"),
            ("drawn:jump=2,jump=3", "twice"),
        ] {
            let why = parse(text).unwrap_err().to_string();
            assert!(why.contains(says), "{text}: {why}");
        }
    }
}
