//! A node holds at most its slots' number of microbatches between forward and backward.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;

/// See the file's name.
#[derive(Debug)]
pub(super) struct SlotsNeverExceeded;

impl Invariant for SlotsNeverExceeded {
    fn name(&self) -> &'static str {
        "slots_never_exceeded"
    }

    fn observe(&mut self, seen: &Observation<'_>, _truth: &Truth) -> Result<(), String> {
        match seen {
            Observation::Slots { node, saved, slots } if *saved > *slots as usize => {
                Err(format!("{node} holds {saved} microbatches in {slots} slots"))
            }
            _ => Ok(()),
        }
    }
}
