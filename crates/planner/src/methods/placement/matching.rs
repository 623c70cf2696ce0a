//! Matchings between the nodes of two stages.

/// A cost larger than any sum of real ones: 1e6 s in microseconds, as the reference has it.
const FORBIDDEN: i64 = 1_000_000_000_000;

/// How the matching of two stages is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Matching {
    /// The longest edge as short as can be; among those, the smallest sum.
    Bottleneck,
    /// As the released code does: one edge too few is allowed, and row and column of each pair are exchanged.
    AsPublished,
}

/// Costs of a matching: `rows` × `columns`, row by row; padded to a square with edges that cost nothing.
#[derive(Debug, Clone)]
pub(crate) struct Costs {
    size: usize,
    values: Vec<i64>,
}

impl Costs {
    /// The costs of pairs.
    pub(crate) fn new(rows: usize, columns: usize, cost: impl Fn(usize, usize) -> u64) -> Self {
        let size = rows.max(columns);
        let mut values = vec![0; size * size];
        for row in 0..rows {
            for column in 0..columns {
                values[row * size + column] = cost(row, column).min(FORBIDDEN as u64 / 1024) as i64;
            }
        }
        Self { size, values }
    }

    /// The least possible largest cost of a perfect matching.
    pub(crate) fn bottleneck(&self) -> i64 {
        let mut levels = self.values.clone();
        levels.sort_unstable();
        levels.dedup();
        let (mut low, mut high) = (0, levels.len().saturating_sub(1));
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.has_perfect(|value| value <= levels[middle]) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        levels.get(low).copied().unwrap_or(0)
    }

    /// Whether the allowed edges contain a perfect matching (augmenting paths).
    fn has_perfect(&self, allowed: impl Fn(i64) -> bool) -> bool {
        let mut row_of = vec![usize::MAX; self.size];
        let mut seen = vec![usize::MAX; self.size];
        // (row, next column to look at); a row's partner is found by going down a stack instead of recursing.
        let mut stack: Vec<(usize, usize)> = Vec::new();
        for start in 0..self.size {
            stack.clear();
            stack.push((start, 0));
            let mut free = None;
            while let Some((row, column)) = stack.last_mut() {
                if *column == self.size {
                    stack.pop();
                    if let Some((_, column)) = stack.last_mut() {
                        *column += 1;
                    }
                    continue;
                }
                if seen[*column] == start || !allowed(self.values[*row * self.size + *column]) {
                    *column += 1;
                    continue;
                }
                seen[*column] = start;
                if row_of[*column] == usize::MAX {
                    free = Some(*column);
                    break;
                }
                let next = row_of[*column];
                stack.push((next, 0));
            }
            if free.is_none() {
                return false;
            }
            for (row, column) in &stack {
                row_of[*column] = *row;
            }
        }
        true
    }

    /// The column of each row in the assignment of smallest sum (Hungarian method, with potentials).
    fn assignment(&self) -> Vec<usize> {
        let n = self.size;
        let infinite = i64::MAX / 4;
        let (mut of_row, mut of_column) = (vec![0_i64; n + 1], vec![0_i64; n + 1]);
        // Row matched to each column; both from 1, 0 is none.
        let mut matched = vec![0_usize; n + 1];
        let mut way = vec![0_usize; n + 1];
        for row in 1..=n {
            matched[0] = row;
            let mut column = 0;
            let mut least = vec![infinite; n + 1];
            let mut used = vec![false; n + 1];
            loop {
                used[column] = true;
                let at = matched[column];
                let (mut delta, mut next) = (infinite, 0);
                for other in 1..=n {
                    if used[other] {
                        continue;
                    }
                    let reduced = self.values[(at - 1) * n + other - 1] - of_row[at] - of_column[other];
                    if reduced < least[other] {
                        least[other] = reduced;
                        way[other] = column;
                    }
                    if least[other] < delta {
                        (delta, next) = (least[other], other);
                    }
                }
                for other in 0..=n {
                    if used[other] {
                        of_row[matched[other]] += delta;
                        of_column[other] -= delta;
                    } else {
                        least[other] -= delta;
                    }
                }
                column = next;
                if matched[column] == 0 {
                    break;
                }
            }
            while column != 0 {
                matched[column] = matched[way[column]];
                column = way[column];
            }
        }
        let mut columns = vec![0; n];
        for column in 1..=n {
            columns[matched[column] - 1] = column - 1;
        }
        columns
    }
}

/// The column that each row is joined to; `rows.max(columns)` entries, of which those at or above `rows`, and columns at
/// or above `columns`, stand for nobody.
pub(crate) fn match_rows(
    rows: usize,
    columns: usize,
    kind: Matching,
    cost: impl Fn(usize, usize) -> u64,
) -> Vec<usize> {
    let mut costs = Costs::new(rows, columns, cost);
    let longest = costs.bottleneck();
    costs.values.iter_mut().filter(|value| **value > longest).for_each(|value| *value = FORBIDDEN);
    if kind == Matching::Bottleneck {
        return costs.assignment();
    }
    // The code forbids edges from the longest down until no perfect matching is left, and takes the assignment of then.
    for place in (0..costs.values.len()).rev() {
        if costs.values[place] == longest {
            costs.values[place] = FORBIDDEN;
            if !costs.has_perfect(|value| value < FORBIDDEN) {
                break;
            }
        }
    }
    let columns_of = costs.assignment();
    let mut inverse = vec![0; columns_of.len()];
    for (row, column) in columns_of.into_iter().enumerate() {
        inverse[column] = row;
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn permutations(size: usize) -> Vec<Vec<usize>> {
        let mut all = vec![Vec::new()];
        for _ in 0..size {
            all = all
                .iter()
                .flat_map(|p: &Vec<usize>| {
                    (0..size)
                        .filter(|x| !p.contains(x))
                        .map(|x| [p.clone(), vec![x]].concat())
                        .collect::<Vec<_>>()
                })
                .collect();
        }
        all
    }

    proptest! {
        #[test]
        fn the_longest_edge_is_as_short_as_can_be(
            rows in 1_usize..6, columns in 1_usize..6, values in proptest::collection::vec(1_u64..30, 25)
        ) {
            let cost = |row: usize, column: usize| {
                if row < rows && column < columns { values[row * 5 + column] } else { 0 }
            };
            let size = rows.max(columns);
            let figures = |p: &[usize]| {
                let costs = p.iter().enumerate().map(|(row, column)| cost(row, *column));
                (costs.clone().max().unwrap_or(0), costs.sum::<u64>())
            };
            let best = permutations(size).iter().map(|p| figures(p)).min().unwrap();
            prop_assert_eq!(Costs::new(rows, columns, cost).bottleneck() as u64, best.0);
            prop_assert_eq!(figures(&match_rows(rows, columns, Matching::Bottleneck, cost)), best);
            let mut published = match_rows(rows, columns, Matching::AsPublished, cost);
            published.sort_unstable();
            prop_assert_eq!(published, (0..size).collect::<Vec<_>>());
        }
    }

    #[test]
    fn as_published_is_an_inverse_with_one_forbidden_edge() {
        // Row 0 prefers 1, row 1 prefers 2, row 2 prefers 0; every other edge is long.
        let cost = |row: usize, column: usize| if column == (row + 1) % 3 { 1 } else { 9 };
        assert_eq!(match_rows(3, 3, Matching::Bottleneck, cost), [1, 2, 0]);
        // All short edges are equal: the last is forbidden, and no other assignment uses fewer forbidden ones.
        assert_eq!(match_rows(3, 3, Matching::AsPublished, cost), [2, 0, 1]);
    }
}
