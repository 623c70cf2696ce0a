//! The heaviest set of stages that one path can visit in ascending order.

use skipstone_types::StageId;

/// Weight that no sum of others outweighs (a path has at most 1000 stages).
pub(crate) const DECISIVE: i64 = 1 << 40;

/// The indices of the `picks` stages of largest total weight that jumps of at most `jump_max` can join, ascending.
///
/// `stages` are the served relays in ascending order. Where holes leave no stage within the limit, the jump
/// straight to the next served stage is allowed, so that there is always an answer: the first `picks` stages.
pub(crate) fn heaviest_path(stages: &[StageId], weights: &[i64], picks: usize, jump_max: u16) -> Vec<usize> {
    if picks >= stages.len() {
        return (0..stages.len()).collect();
    }
    let mut order: Vec<usize> = (0..stages.len()).collect();
    order.sort_by_key(|index| (std::cmp::Reverse(weights[*index]), *index));
    let mut heaviest = order[..picks].to_vec();
    heaviest.sort_unstable();
    if is_joined(stages, &heaviest, jump_max) {
        return heaviest;
    }
    search(stages, weights, picks, jump_max)
}

/// Whether a path may go from `from` (none: the origin) to `to`.
pub(crate) fn may_jump(stages: &[StageId], from: Option<usize>, to: usize, jump_max: u16) -> bool {
    let (next, start) = from.map_or((0, 0), |from| (from + 1, stages[from].0));
    to == next || (to > next && stages[to].0 - start <= jump_max)
}

/// How many sets of stages one path may visit, roughly where there are very many.
pub(crate) fn count_paths(stages: &[StageId], picks: usize, jump_max: u16) -> f64 {
    if picks == 0 {
        return 1.0;
    }
    let start = |to| f64::from(u8::from(may_jump(stages, None, to, jump_max)));
    let mut ways: Vec<f64> = (0..stages.len()).map(start).collect();
    for _ in 1..picks {
        let from = |to: usize| -> f64 {
            let before = (0..to).filter(|from| may_jump(stages, Some(*from), to, jump_max));
            before.map(|from| ways[from]).sum()
        };
        ways = (0..stages.len()).map(from).collect();
    }
    ways.iter().sum::<f64>().min(1.0e300)
}

fn is_joined(stages: &[StageId], path: &[usize], jump_max: u16) -> bool {
    let mut from = None;
    path.iter().all(|to| {
        let allowed = may_jump(stages, from, *to, jump_max);
        from = Some(*to);
        allowed
    })
}

/// Dynamic programming over (visits so far, last stage).
fn search(stages: &[StageId], weights: &[i64], picks: usize, jump_max: u16) -> Vec<usize> {
    // best[visit][last]: the largest weight of a path of visit + 1 relays that ends at `last`, and where it came from.
    let mut best: Vec<Vec<Option<(i64, usize)>>> = Vec::with_capacity(picks);
    for visit in 0..picks {
        let row = (0..stages.len())
            .map(|to| {
                if visit == 0 {
                    return may_jump(stages, None, to, jump_max).then_some((weights[to], to));
                }
                (0..to)
                    .rev()
                    .take_while(|from| may_jump(stages, Some(*from), to, jump_max))
                    .filter_map(|from| best[visit - 1][from].map(|(weight, _)| (weight + weights[to], from)))
                    .max()
            })
            .collect();
        best.push(row);
    }
    let Some(row) = best.last() else { return Vec::new() };
    let last = (0..stages.len()).max_by_key(|last| row[*last].map(|(weight, _)| weight));
    let mut path = Vec::with_capacity(picks);
    let mut at = last;
    for row in best.iter().rev() {
        let Some((index, (_, from))) = at.and_then(|index| row[index].map(|found| (index, found))) else {
            break;
        };
        path.push(index);
        at = Some(from);
    }
    path.reverse();
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subsets(stages: &[StageId], picks: usize, jump_max: u16) -> Vec<Vec<usize>> {
        (0_u32..1 << stages.len())
            .filter(|bits| bits.count_ones() as usize == picks)
            .map(|bits| (0..stages.len()).filter(|index| bits >> index & 1 == 1).collect())
            .filter(|path: &Vec<usize>| is_joined(stages, path, jump_max))
            .collect()
    }

    proptest! {
        #[test]
        fn legal_sets_are_counted(
            served in proptest::collection::btree_set(1_u16..16, 1..9), picks in 0_usize..9, jump_max in 1_u16..5,
        ) {
            let stages: Vec<_> = served.into_iter().map(StageId).collect();
            let picks = picks.min(stages.len());
            let legal = subsets(&stages, picks, jump_max).len();
            prop_assert!((count_paths(&stages, picks, jump_max) - legal as f64).abs() < 0.5);
        }

        #[test]
        fn no_legal_set_is_heavier(
            served in proptest::collection::btree_set(1_u16..16, 1..9),
            seed in any::<u64>(),
            picks in 1_usize..9,
            jump_max in 1_u16..5,
        ) {
            let stages: Vec<_> = served.into_iter().map(StageId).collect();
            let picks = picks.min(stages.len());
            let mut random = crate::random::Random::new(&[seed]);
            let weights: Vec<_> = stages.iter().map(|_| random.below(1000) as i64 - 300).collect();
            let got = heaviest_path(&stages, &weights, picks, jump_max);
            let total = |path: &[usize]| path.iter().map(|index| weights[*index]).sum::<i64>();
            let legal = subsets(&stages, picks, jump_max);
            prop_assert!(legal.contains(&got), "{got:?} is not among {legal:?}");
            prop_assert_eq!(total(&got), legal.iter().map(|path| total(path)).max().unwrap());
        }
    }
}
