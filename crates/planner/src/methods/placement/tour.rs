//! The order of stages: a round trip from stage 0.

/// Most relay stages for which the order is exact.
const EXACT_MAX: usize = 10;

/// The cheapest closed tour that starts at stage 0, as (cost, stages in order).
///
/// `costs` is square, row by row. Where sizes of stages differ, a group may only take a place of its size.
pub(crate) fn tour(costs: &[i64], sizes: &[usize]) -> (i64, Vec<usize>) {
    let stages = sizes.len();
    if stages <= 2 {
        let there = if stages == 2 { costs[1] } else { 0 };
        return (2 * there, (0..stages).collect());
    }
    if stages - 1 <= EXACT_MAX { exact(costs, sizes) } else { improved(costs, sizes) }
}

/// Dynamic programming over (relays visited, last one).
fn exact(costs: &[i64], sizes: &[usize]) -> (i64, Vec<usize>) {
    let stages = sizes.len();
    let relays = stages - 1;
    let sets = 1_usize << relays;
    let infinite = i64::MAX / 4;
    let mut best = vec![infinite; sets * relays];
    let mut from = vec![usize::MAX; sets * relays];
    for set in 1..sets {
        let place = set.count_ones() as usize;
        for last in 0..relays {
            if set >> last & 1 == 0 || sizes[last + 1] != sizes[place] {
                continue;
            }
            let before = set & !(1 << last);
            if before == 0 {
                best[set * relays + last] = costs[last + 1];
                continue;
            }
            for other in 0..relays {
                let cost =
                    best[before * relays + other].saturating_add(costs[(other + 1) * stages + last + 1]);
                if cost < best[set * relays + last] {
                    best[set * relays + last] = cost;
                    from[set * relays + last] = other;
                }
            }
        }
    }
    let closed = |last: usize| best[(sets - 1) * relays + last].saturating_add(costs[(last + 1) * stages]);
    let mut last = (0..relays).min_by_key(|last| (closed(*last), *last)).unwrap_or(0);
    let cost = closed(last);
    let (mut set, mut order) = (sets - 1, Vec::with_capacity(stages));
    while set != 0 {
        order.push(last + 1);
        let before = from[set * relays + last];
        set &= !(1 << last);
        last = before;
    }
    order.push(0);
    order.reverse();
    (cost, order)
}

/// The order as it is, improved by exchanging two stages of one size at a time.
fn improved(costs: &[i64], sizes: &[usize]) -> (i64, Vec<usize>) {
    let stages = sizes.len();
    let length = |order: &[usize]| -> i64 {
        (0..stages).map(|place| costs[order[place] * stages + order[(place + 1) % stages]]).sum()
    };
    let mut order: Vec<usize> = (0..stages).collect();
    let mut best = length(&order);
    loop {
        let before = best;
        for a in 1..stages {
            for b in a + 1..stages {
                if sizes[a] != sizes[b] {
                    continue;
                }
                order.swap(a, b);
                let cost = length(&order);
                if cost < best {
                    best = cost;
                } else {
                    order.swap(a, b);
                }
            }
        }
        if best == before {
            return (best, order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_tours_are_cheapest_and_keep_sizes() {
        let mut random = crate::random::Random::new(&[3]);
        for _ in 0..200 {
            let stages = 3 + random.below(3);
            let mut costs = vec![0; stages * stages];
            for a in 0..stages {
                for b in 0..a {
                    let cost = 1 + random.below(50) as i64;
                    costs[a * stages + b] = cost;
                    costs[b * stages + a] = cost;
                }
            }
            let sizes: Vec<usize> = (0..stages).map(|_| 2 + random.below(2)).collect();
            let (cost, order) = tour(&costs, &sizes);
            let length = |order: &[usize]| -> i64 {
                (0..stages).map(|k| costs[order[k] * stages + order[(k + 1) % stages]]).sum()
            };
            assert_eq!(order[0], 0);
            assert!((0..stages).all(|place| sizes[order[place]] == sizes[place]), "{order:?} {sizes:?}");
            assert_eq!(length(&order), cost);
            // No exchange of two, or cycle of three, of one size is cheaper.
            for a in 1..stages {
                for b in 1..stages {
                    for c in 1..stages {
                        let mut other = order.clone();
                        other.swap(a, b);
                        other.swap(b, c);
                        if (0..stages).all(|place| sizes[other[place]] == sizes[place]) {
                            assert!(length(&other) >= cost);
                        }
                    }
                }
            }
            assert!(improved(&costs, &sizes).0 >= cost);
        }
    }
}
