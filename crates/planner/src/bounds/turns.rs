//! An origin's microbatches take turns in its slots and on its machine.

use crate::compiled::CompiledInstance;

/// Most branches of an exact search; beyond, fewer microbatches are looked at, or the simple bound counts.
const LOOKS_MAX: usize = 4_000;
/// Most rounds of the slots that are searched exactly.
const ROUNDS_MAX: u32 = 4;
/// Most microbatches of an exact search: how deep it goes is twice that.
const COUNT_MAX: u32 = 64;

/// Least end of `count` microbatches of one origin whose round trips take at least `trip`, microseconds.
///
/// Two bounds, of which the larger counts. The simple one: with m slots and q = ⌈count / m⌉ some slot serves q of them.
/// Where m divides the count, either some slot serves q + 1, or all serve exactly q; then the first forwards of the m slots
/// start at 0, f, 2f, … or later, as they share the origin, and the last backwards end at T, T − b, T − 2b, … or earlier. The
/// slot that starts i-th and ends j-th from the end needs i·f + q·trip + j·b ≤ T; the best pairing of starts and ends leaves
/// (m − 1)·max(f, b) at least.
///
/// The exact one, see [`Turns`]: between the rounds of the slots, too, forwards and backwards share the origin. Where there
/// are many rounds, the last ones are searched: a microbatch starts no sooner than the one m before it has ended, so the last
/// n′ of them, if m divides count − n′, begin after (count − n′) / m trips at least, and are a smaller problem of their own.
pub(crate) fn turns_bound(compiled: &CompiledInstance, origin: usize, trip: u64, count: u32) -> u64 {
    let slots = compiled.memory[origin];
    let (forward, backward) = (compiled.origin_forward[origin], compiled.origin_backward[origin]);
    if count == 0 || slots == 0 {
        return 0;
    }
    let rounds = u64::from(count.div_ceil(slots));
    let simple = if count.is_multiple_of(slots) {
        ((rounds + 1) * trip).min(rounds * trip + u64::from(slots - 1) * forward.max(backward))
    } else {
        rounds * trip
    };
    let uneven = count % slots;
    for searched in (1..=ROUNDS_MAX).rev() {
        let last = (u64::from(searched) * u64::from(slots) + u64::from(uneven)).min(u64::from(count)) as u32;
        if last > COUNT_MAX {
            continue;
        }
        if let Some(least) = Turns::new(slots, last, forward, backward, trip).least() {
            return simple.max(u64::from((count - last) / slots) * trip + least);
        }
    }
    simple
}

/// The relaxed problem of one origin that has all relays to itself: `count` forwards and backwards on one machine, the end of
/// a microbatch's backward at least `trip` after the start of its forward, and never more than `slots` microbatches between
/// the two. Losses take no time of the machine here.
///
/// Microbatches are alike, so the k-th backward belongs to the k-th forward: of any schedule, sort starts Sₖ and ends
/// Cₖ; as at least k starts lie before Cₖ − trip, Sₖ ≤ Cₖ − trip; and as at most m are in flight, Sₖ ≥ Cₖ₋ₘ. What is
/// left open is how forwards and backwards take turns, and all constraints are least distances in time, so that a task is never
/// worth delaying for another that could not have ended before it starts (active schedules, Giffler and Thompson 1960).
/// Branch and bound over these is exact.
struct Turns {
    slots: usize,
    count: usize,
    forward: u64,
    backward: u64,
    trip: u64,
    starts: Vec<u64>,
    ends: Vec<u64>,
    best: u64,
    looks: usize,
}

impl Turns {
    fn new(slots: u32, count: u32, forward: u64, backward: u64, trip: u64) -> Self {
        let (slots, count) = (slots as usize, count as usize);
        let times = || Vec::with_capacity(count);
        Self {
            slots,
            count,
            forward,
            backward,
            trip,
            starts: times(),
            ends: times(),
            best: u64::MAX,
            looks: 0,
        }
    }

    /// The least end; none where that takes too long to find.
    fn least(mut self) -> Option<u64> {
        self.branch(0);
        (self.looks <= LOOKS_MAX).then_some(self.best)
    }

    /// When the next forward can start at the soonest: `now` where it waits for an end yet to come.
    fn next_start(&self, now: u64) -> u64 {
        let waits_for = self.starts.len().checked_sub(self.slots);
        waits_for.and_then(|end| self.ends.get(end)).map_or(now, |end| now.max(*end))
    }

    /// All that can follow, the machine being free from `now` on.
    fn branch(&mut self, now: u64) {
        self.looks += 1;
        if self.looks > LOOKS_MAX {
            return;
        }
        let (started, ended) = (self.starts.len(), self.ends.len());
        if ended == self.count {
            self.best = self.best.min(now);
            return;
        }
        let left = self.count - started;
        let work = left as u64 * self.forward + (self.count - ended) as u64 * self.backward;
        let trips = left.div_ceil(self.slots) as u64 * self.trip;
        let soonest = self.next_start(now);
        if now + work >= self.best || (left > 0 && soonest + trips >= self.best) {
            return;
        }
        let forward = (left > 0 && started < ended + self.slots).then_some((soonest, false));
        let backward = (ended < started)
            .then(|| (now.max((self.starts[ended] + self.trip).saturating_sub(self.backward)), true));
        let (first, second) = match (forward, backward) {
            (Some(one), Some(other)) if other < one => (other, Some(one)),
            (Some(one), other) => (one, other),
            (None, Some(one)) => (one, None),
            (None, None) => return,
        };
        let first_ends = self.take(first);
        if let Some(second) = second.filter(|(start, _)| *start < first_ends) {
            self.take(second);
        }
    }

    /// Goes on with a forward or a backward that starts then; when it ends.
    fn take(&mut self, (start, is_backward): (u64, bool)) -> u64 {
        let end = start + if is_backward { self.backward } else { self.forward };
        if is_backward {
            self.ends.push(end);
            self.branch(end);
            self.ends.pop();
        } else {
            self.starts.push(start);
            self.branch(end);
            self.starts.pop();
        }
        end
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every order of all forwards and backwards, any microbatch's at any time.
    struct Orders {
        turns: Turns,
        starts: Vec<Option<u64>>,
        open: Vec<usize>,
        ended: usize,
    }

    impl Orders {
        fn least(&mut self, now: u64) -> u64 {
            let mut best = if self.ended == self.starts.len() { now } else { u64::MAX };
            for microbatch in 0..self.starts.len() {
                if self.starts[microbatch].is_none() && self.open.len() < self.turns.slots {
                    self.starts[microbatch] = Some(now);
                    self.open.push(microbatch);
                    best = best.min(self.least(now + self.turns.forward));
                    self.open.pop();
                    self.starts[microbatch] = None;
                } else if let Some(place) = self.open.iter().position(|other| *other == microbatch) {
                    let back = self.starts[microbatch].unwrap() + self.turns.trip;
                    self.open.remove(place);
                    self.ended += 1;
                    best = best.min(self.least(back.max(now + self.turns.backward)));
                    self.ended -= 1;
                    self.open.insert(place, microbatch);
                }
            }
            best
        }
    }

    proptest! {
        #[test]
        fn no_order_of_the_tasks_is_better_and_one_is_as_good(
            slots in 1_u32..4, count in 1_u32..5, forward in 0_u64..6, backward in 0_u64..8, more in 0_u64..30,
        ) {
            let trip = forward + backward + more;
            let least = Turns::new(slots, count, forward, backward, trip).least().unwrap();
            let turns = Turns::new(slots, count, forward, backward, trip);
            let starts = vec![None; count as usize];
            let brute = Orders { turns, starts, open: Vec::new(), ended: 0 }.least(0);
            prop_assert_eq!(least, brute);
        }

        #[test]
        fn the_last_rounds_alone_promise_no_more_than_all(
            slots in 1_u32..4, rounds in 2_u32..4, uneven in 0_u32..3, forward in 0_u64..6, backward in 0_u64..8, more in 0_u64..30,
        ) {
            let trip = forward + backward + more;
            let last = slots + uneven % slots;
            let count = rounds * slots + uneven % slots;
            let all = Turns::new(slots, count, forward, backward, trip).least().unwrap();
            let part = Turns::new(slots, last, forward, backward, trip).least().unwrap();
            prop_assert!(u64::from((count - last) / slots) * trip + part <= all);
        }
    }

    #[test]
    fn forwards_and_backwards_share_the_origin_between_rounds_too() {
        // Two rounds of three slots: (m − 1)·(f + b) beyond the trips, not (m − 1)·max(f, b).
        assert_eq!(Turns::new(3, 6, 1760, 2640, 20_973).least(), Some(2 * 20_973 + 2 * (1760 + 2640)));
        // One round.
        assert_eq!(Turns::new(3, 3, 1760, 2640, 20_973).least(), Some(20_973 + 2 * 2640));
    }
}
