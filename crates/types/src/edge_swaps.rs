//! CheckFree+'s swaps of the first two and the last two relay stages.

use crate::{PathRules, StageId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which microbatches visit the first two and the last two relay stages in swapped order (CheckFree+, arXiv 2506.15461): a
/// stage that has learned to stand in its neighbour's place can be copied there when the neighbour is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EdgeSwaps {
    /// None: all paths ascend.
    #[default]
    Off,
    /// Those with an odd number: relay 2 before relay 1, and the last relay before the one before it, where they visit both.
    Odd,
}

impl EdgeSwaps {
    /// Brings the relays of a path, which ascend, into the order in which `microbatch` visits them, where the run has
    /// `relay_stages` of them. A swap is left out where `rules` forbid it: where the jump to the higher stage would be too long.
    ///
    /// Of three relay stages the middle one belongs to both pairs, and can't go back twice: microbatches that visit all three
    /// swap the two pairs in turn, the first where the number leaves 1 when divided by 4, the last where it leaves 3.
    pub fn order<T>(
        self,
        microbatch: u32,
        relay_stages: u16,
        rules: &PathRules,
        relays: &mut [T],
        stage: impl Fn(&T) -> StageId,
    ) {
        if self == Self::Off || microbatch.is_multiple_of(2) {
            return;
        }
        let all_three = relay_stages == 3 && relays.len() == 3;
        let first = !all_three || microbatch % 4 == 1;
        let last = if all_three { microbatch % 4 == 3 } else { relay_stages != 2 };
        let mut swaps = 0;
        for higher in [first.then_some(2), last.then_some(relay_stages)].into_iter().flatten() {
            let is_pair = |pair: &[T]| stage(&pair[0]).0 + 1 == higher && stage(&pair[1]).0 == higher;
            let Some(place) = relays.windows(2).position(is_pair) else { continue };
            let frontier = relays[..place].iter().map(|relay| stage(relay).0).max().unwrap_or(0);
            let allowed = higher - frontier <= rules.jump_max
                && rules.swap_distance_max >= 1
                && swaps < rules.swap_count_max.min(rules.swap_total_distance_max);
            if allowed {
                relays.swap(place, place + 1);
                swaps += 1;
            }
        }
    }
}

impl fmt::Display for EdgeSwaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Odd => "odd",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(microbatch: u32, relay_stages: u16, visits: &[u16]) -> Vec<u16> {
        let mut relays: Vec<_> = visits.iter().copied().map(StageId).collect();
        EdgeSwaps::Odd.order(microbatch, relay_stages, &PathRules::default(), &mut relays, |stage| *stage);
        relays.into_iter().map(|stage| stage.0).collect()
    }

    #[test]
    fn whole_paths_of_one_to_eight_relays() {
        let all = |stages: u16, microbatch: u32| order(microbatch, stages, &(1..=stages).collect::<Vec<_>>());
        for stages in 1..=8 {
            for microbatch in [0, 2, 4] {
                assert!(all(stages, microbatch).is_sorted(), "even ones ascend");
            }
        }
        let odd: [&[u16]; 8] = [
            &[1],
            &[2, 1],
            &[2, 1, 3],
            &[2, 1, 4, 3],
            &[2, 1, 3, 5, 4],
            &[2, 1, 3, 4, 6, 5],
            &[2, 1, 3, 4, 5, 7, 6],
            &[2, 1, 3, 4, 5, 6, 8, 7],
        ];
        for (stages, path) in (1..).zip(odd) {
            assert_eq!(all(stages, 1), path);
            assert_eq!(all(stages, 5), path);
        }
        assert_eq!(all(3, 3), [1, 3, 2], "two overlapping pairs take turns");
        assert_eq!(all(3, 7), [1, 3, 2]);
        assert_eq!(all(4, 3), [2, 1, 4, 3]);
    }

    #[test]
    fn a_pair_is_swapped_where_both_are_visited() {
        assert_eq!(order(1, 6, &[1, 3, 5, 6]), [1, 3, 6, 5]);
        assert_eq!(order(1, 6, &[2, 3, 4, 6]), [2, 3, 4, 6]);
        assert_eq!(order(1, 6, &[1, 2, 4, 5]), [2, 1, 4, 5]);
        assert_eq!(order(3, 3, &[1, 2]), [2, 1]);
        assert_eq!(order(1, 3, &[2, 3]), [3, 2]);
        assert_eq!(order(1, 3, &[1, 3]), [1, 3]);
        assert!(order(1, 1, &[]).is_empty());
    }

    #[test]
    fn every_order_keeps_the_rules_of_paths_and_holds_the_same_stages() {
        let rules = PathRules::default();
        for stages in 1..=8_u16 {
            for bits in 0_u32..1 << stages {
                let visits: Vec<u16> = (1..=stages).filter(|stage| bits >> (stage - 1) & 1 == 1).collect();
                let whole = |relays: &[u16]| {
                    std::iter::once(0).chain(relays.iter().copied()).map(StageId).collect::<Vec<_>>()
                };
                for microbatch in 0..8 {
                    let path = order(microbatch, stages, &visits);
                    let mut sorted = path.clone();
                    sorted.sort_unstable();
                    assert_eq!(sorted, visits);
                    if rules.check(&whole(&visits)).is_ok() {
                        assert_eq!(rules.check(&whole(&path)), Ok(()), "{path:?} of {stages}");
                    }
                }
            }
        }
        assert_eq!(order(1, 8, &[1, 3, 7, 8]), [1, 3, 7, 8], "the jump from 3 to 8 is too long");
        let mut relays = [StageId(1), StageId(2)];
        let none = PathRules { swap_count_max: 0, ..rules };
        EdgeSwaps::Odd.order(1, 2, &none, &mut relays, |stage| *stage);
        assert_eq!(relays, [StageId(1), StageId(2)]);
    }
}
