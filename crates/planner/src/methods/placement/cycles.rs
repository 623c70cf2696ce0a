//! Improving a placement by cycles of moves between groups.

/// A move that is never chosen.
const NEVER: i64 = i64::MIN / 4;

/// Cyclic partitioning: chains of moves group → group → … that close, so that sizes stay, each node moved at most once;
/// the best prefix of each chain, and of the chains, is kept.
///
/// A move's gain is the change of the node's summed delay to its group, times (1 − factor), `factor` being how much more
/// an all-reduce moves than the activations do: with heavy all-reduces close nodes come together, with light ones far
/// nodes do. Only the sign of that factor matters for the choice.
pub(super) struct Cycles<D> {
    /// Delay between two nodes.
    delay: D,
    groups: usize,
    sign: i64,
}

/// Groups of nodes under change.
struct State {
    group: Vec<usize>,
    /// Summed delay of each node to each group, row by row.
    sums: Vec<i64>,
    locked: Vec<bool>,
}

/// The best moves out of each group.
struct Gains {
    /// Best gain from group to group, row by row.
    between: Vec<i64>,
    /// Best gain out of each group: gain, node, target.
    out: Vec<Option<(i64, usize, usize)>>,
}

impl<D: Fn(usize, usize) -> i64> Cycles<D> {
    pub(super) fn new(delay: D, groups: usize, factor: f64) -> Self {
        let sign = match factor.total_cmp(&1.0) {
            std::cmp::Ordering::Less => 1,
            std::cmp::Ordering::Equal => 0,
            std::cmp::Ordering::Greater => -1,
        };
        Self { delay, groups, sign }
    }

    /// The groups after one pass.
    pub(super) fn improve(&self, start: Vec<usize>) -> Vec<usize> {
        let nodes = start.len();
        let mut state = State { sums: self.sums(&start), locked: vec![false; nodes], group: start.clone() };
        let mut entered = vec![false; self.groups];
        let mut results = vec![start];
        let mut sums = vec![0_i64];
        for _ in 0..self.groups {
            let Some(best) = self.cycle(&mut state, &mut entered) else { break };
            results.push(state.group.clone());
            sums.push(best);
            if entered.iter().all(|entered| *entered) {
                break;
            }
        }
        // The reference compares the sums before each result, and keeps the result before that.
        let (mut most, mut chosen, mut total) = (0, 0, 0_i64);
        for index in 1..sums.len() {
            total = total.saturating_add(sums[index - 1]);
            if total > most {
                (most, chosen) = (total, index - 1);
            }
        }
        results.swap_remove(chosen)
    }

    /// One closed chain of moves; its gain. None: nothing can move.
    fn cycle(&self, state: &mut State, entered: &mut [bool]) -> Option<i64> {
        let mut gains = self.gains(state);
        let gain_of = |gains: &Gains, group: usize| gains.out[group].map_or(NEVER, |best| best.0);
        let home = (0..self.groups).max_by_key(|group| (gain_of(&gains, *group), self.groups - group))?;
        gains.out[home]?;
        let mut at = home;
        let mut moves: Vec<(usize, usize, usize)> = Vec::new();
        let (mut out, mut back) = (Vec::new(), Vec::new());
        for _ in 0..state.group.len() {
            let (node, target) = match (gains.out[at], moves.last()) {
                (Some((_, node, target)), _) => (node, target),
                // Everyone here is locked: the last one to come goes home.
                (None, Some((node, _, _))) => (*node, home),
                (None, None) => break,
            };
            out.push(gain_of(&gains, at));
            back.push(gains.between[at * self.groups + home]);
            self.shift(state, node, target);
            state.locked[node] = true;
            entered[target] = true;
            moves.push((node, at, target));
            at = target;
            if at == home {
                break;
            }
            gains = self.gains(state);
        }
        let (mut most, mut last, mut total) = (0, 0, 0_i64);
        for index in 1..out.len() {
            total = total.saturating_add(out[index - 1]);
            if total.saturating_add(back[index]) > most {
                (most, last) = (total.saturating_add(back[index]), index);
            }
        }
        for (node, from, _) in moves[last + 1..].iter().rev() {
            self.shift(state, *node, *from);
        }
        self.shift(state, moves[last].0, home);
        Some(most)
    }

    fn gains(&self, state: &State) -> Gains {
        let groups = self.groups;
        let mut gains = Gains { between: vec![NEVER; groups * groups], out: vec![None; groups] };
        for (node, group) in state.group.iter().enumerate() {
            if state.locked[node] {
                continue;
            }
            let sums = &state.sums[node * groups..(node + 1) * groups];
            for (target, sum) in sums.iter().enumerate() {
                if target == *group {
                    continue;
                }
                let gain = self.sign * (sum - sums[*group]);
                let between = &mut gains.between[group * groups + target];
                *between = gain.max(*between);
                if gains.out[*group].is_none_or(|best| gain > best.0) {
                    gains.out[*group] = Some((gain, node, target));
                }
            }
        }
        gains
    }

    fn shift(&self, state: &mut State, node: usize, target: usize) {
        let from = std::mem::replace(&mut state.group[node], target);
        if from == target {
            return;
        }
        let nodes = state.group.len();
        for other in 0..nodes {
            let delay = (self.delay)(other, node);
            state.sums[other * self.groups + from] -= delay;
            state.sums[other * self.groups + target] += delay;
        }
    }

    fn sums(&self, group: &[usize]) -> Vec<i64> {
        let nodes = group.len();
        let mut sums = vec![0; nodes * self.groups];
        for node in 0..nodes {
            for (other, of) in group.iter().enumerate() {
                sums[node * self.groups + of] += (self.delay)(node, other);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_stay_and_close_nodes_come_together() {
        let mut random = crate::random::Random::new(&[7]);
        let (nodes, groups) = (12, 3);
        // Four nodes in each of three places; delays within a place are short.
        let delay = |a: usize, b: usize| {
            if a == b {
                0
            } else if a % 3 == b % 3 {
                1
            } else {
                100
            }
        };
        let cycles = Cycles::new(delay, groups, 2.0);
        let inside = |group: &[usize]| -> i64 {
            let pairs = (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b)));
            pairs.filter(|(a, b)| group[*a] == group[*b]).map(|(a, b)| delay(a, b)).sum()
        };
        let mut better = 0;
        for _ in 0..50 {
            let mut start: Vec<usize> = (0..nodes).map(|node| node / 4).collect();
            random.shuffle(&mut start);
            let end = cycles.improve(start.clone());
            for group in 0..groups {
                assert_eq!(end.iter().filter(|of| **of == group).count(), 4);
            }
            better += usize::from(inside(&end) < inside(&start));
        }
        assert!(better > 25, "{better} of 50 became better");
    }
}
