//! Where nodes of other machines are, by the table of links.

use crate::config::{ConfigError, RunConfig};
use crate::live::start::PlacesStart;
use crate::wan::{RegionView, TaskTimes, WanTable};
use serde::{Deserialize, Serialize};

/// Where a node is, and how fast it is to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::live) struct GuestPlace {
    /// Its region, and the links from there if they are held back.
    pub(super) view: RegionView,
    /// How long its tasks take, if the run is paced.
    pub(super) pace: Option<TaskTimes>,
}

/// Gives places to those who join.
#[derive(Debug)]
pub(in crate::live) struct Places {
    table: WanTable,
    order: PlacesStart,
    config: RunConfig,
}

impl Places {
    /// By a table; `config` says at which pace nodes compute.
    ///
    /// # Errors
    /// A table that can't be read.
    pub(in crate::live) fn new(order: &PlacesStart, config: &RunConfig) -> Result<Self, ConfigError> {
        let flag = if order.shaped { "--wan" } else { "--links" };
        let why = |why| ConfigError::Wan { name: format!("{flag} {}", order.table), why };
        let table = WanTable::load(&order.table).map_err(why)?;
        Ok(Self { table, order: order.clone(), config: config.clone() })
    }

    /// Places of so many nodes of one machine, `before` of which were given to others. Who says no region gets the next places of
    /// the table.
    ///
    /// # Errors
    /// A region that the table has not; a pace that it does not tell.
    pub(super) fn of(
        &self,
        region: Option<&str>,
        before: usize,
        nodes: usize,
    ) -> Result<Vec<GuestPlace>, String> {
        let named = match region {
            Some(name) => Some(self.table.region(name).ok_or_else(|| {
                format!("the run's table has no region {name}; it has {}", self.table.names().join(", "))
            })?),
            None => None,
        };
        let place = |index: usize| {
            let place = self.order.first + before + index;
            let view =
                self.table.view(named.unwrap_or_else(|| self.table.region_of(place)), self.config.seed);
            let pace =
                TaskTimes::of_run(&self.config, Some(&self.table), place).map_err(|why| why.to_string())?;
            Ok(GuestPlace { view: if self.order.shaped { view } else { view.unshaped() }, pace })
        };
        (0..nodes).map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(shaped: bool, pace: Option<f64>) -> Places {
        let order = PlacesStart { table: "gcp12".to_owned(), shaped, first: 3 };
        Places::new(&order, &RunConfig { pace, ..RunConfig::default() }).unwrap()
    }

    #[test]
    fn places_go_on_where_those_at_home_end_unless_a_region_is_named() {
        let places = places(true, Some(0.5));
        let regions =
            |given: Vec<GuestPlace>| given.iter().map(|place| place.view.region).collect::<Vec<_>>();
        let of_table = |place| places.table.region_of(place);
        assert_eq!(regions(places.of(None, 2, 2).unwrap()), [of_table(5), of_table(6)]);
        let tokyo = places.table.names()[4].clone();
        let given = places.of(Some(&tokyo), 0, 2).unwrap();
        assert_eq!(given[0].pace.unwrap().forward_us, 500_000);
        assert_eq!(given[0].view.links.len(), 12);
        assert_eq!(regions(given), [4, 4]);
        let why = places.of(Some("Atlantis"), 0, 1).unwrap_err();
        assert!(why.contains("Atlantis") && why.contains(&tokyo), "{why}");
    }

    #[test]
    fn links_that_are_only_known_are_not_held_back() {
        let given = places(false, None).of(None, 0, 1).unwrap();
        assert!(given[0].view.links.is_empty() && given[0].pace.is_none());
    }
}
