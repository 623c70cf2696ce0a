//! Which microbatches may take a node's free slots, so that nodes never wait for each other in a circle.
//!
//! A microbatch takes a slot when its forward starts at a node, and gives it back when its backward there has ended. While it
//! holds one, it waits for nothing but a slot at a later stop of its own path: activations go forward to the loss, which takes no
//! slot, and gradients come back through stops that hold theirs already. That stays so under replays, stand-ins and hedges,
//! however late they bring a microbatch to a node, because they change who serves a stop and never which stages a path visits:
//! where several stops are computed again at once, each starts when the one before it has sent its activation, and waits for the
//! ones after it.
//!
//! **Without swaps** paths ascend. Of all microbatches that wait for a slot take the one that waits at the highest stage: the slots
//! there are held by microbatches that wait for none, as they could only wait for one at a still higher stage. They go on, and a
//! slot comes free.
//!
//! **With swaps** (`edge_swaps`) some paths *go back*: they visit stage k right before stage k − 1, while others visit k − 1 first,
//! and hold a slot there when they wait for one at k. Give the slots a rank: at stage k, 2k − 3 for a path that goes back from
//! there, 2k for others. Ranks rise along every path, which goes back by one stage at a time:
//! - from i up to k, from which it does not go back: 2i < 2k;
//! - from i up to k, from which it goes back to k − 1, so that i is k − 2 at most: 2i < 2k − 3;
//! - from k back to k − 1, from which it goes up: 2k − 3 < 2(k − 1).
//!
//! The rule: **paths that go back take all slots of a node but one at most.** Of all microbatches that wait for a slot take one
//! that waits for the highest rank, r. If it does not go back from there, all slots are taken, and one of them at least by
//! another that does not, so with rank r. If it goes back, all slots are taken, or all but one by others that go back: there are two
//! or more ([`Settings::check`]), so somebody holds one there, with rank r, or with 2k, which is higher. In both cases that one could only
//! wait for a higher rank still, which nobody does. So it goes on, and its slot comes free; and as an attempt has finitely
//! many microbatches, the one that waits gets it in the end.
//!
//! The rule knows of no numbers, so it does not matter in which order microbatches come. Where a node keeps them in ascending order
//! (`AttemptWork::is_turn`), the lowest one that is not through finds all slots free: those before it have given theirs back, and those
//! after it have not begun.

use super::passage::Passage;
use crate::message::Duty;
use skipstone_types::{EdgeSwaps, Settings};

/// What a node's slots are free for.
#[derive(Debug, Clone, Copy)]
pub(super) struct FreeSlots {
    any: bool,
    going_back: bool,
}

impl FreeSlots {
    /// Of a node with these microbatches.
    pub(super) fn of<'a>(settings: &Settings, passages: impl Iterator<Item = &'a Passage>) -> Self {
        let (mut held, mut going_back) = (0, 0);
        for passage in passages.filter(|passage| passage.holds_slot()) {
            held += 1;
            going_back += u32::from(passage.duty.goes_back);
        }
        let any = held < settings.slots;
        let keeps_last = settings.edge_swaps != EdgeSwaps::Off;
        Self { any, going_back: any && (!keeps_last || going_back + 1 < settings.slots) }
    }

    /// Whether there is one for the duty.
    pub(super) fn has_one_for(self, duty: &Duty) -> bool {
        if duty.goes_back { self.going_back } else { self.any }
    }
}
