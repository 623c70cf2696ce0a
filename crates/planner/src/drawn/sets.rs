//! Random sets of stages that a path may visit.

use crate::random::Random;
use crate::subset::may_jump;
use skipstone_types::StageId;

/// How far the share of paths that visit a stage may be from what was asked.
const SHARE_TOLERANCE: f64 = 0.01;
/// A fit as good as this is not made better.
const SHARE_EXACT: f64 = 1e-4;
/// Most sweeps of a fit over all stages.
const FIT_SWEEPS: usize = 2000;
/// Most work of a fit: pairs of stages × visits × stages fitted.
const FIT_WORK: usize = 200_000_000;
/// The least weight; the largest is as far above 1.
const WEIGHT_MIN: f64 = 1e-12;

/// All sets of so many stages that one path can visit in ascending order, each with a chance in proportion to the product of its
/// stages' weights. Only sums, products and quotients are taken, so draws are the same on every machine.
#[derive(Debug, Clone)]
pub(super) struct Sets {
    /// Those that may be visited, ascending.
    stages: Vec<StageId>,
    weights: Vec<f64>,
    always: Vec<bool>,
    picks: usize,
    /// The highest relay stage, served or not.
    last: u16,
    jump_max: u16,
    together: u16,
    /// By visit, by its stage, and by whether enough adjacent stages are left out by then: the weight of all that may follow; each
    /// visit's on a scale of its own.
    followed: Vec<Vec<[f64; 2]>>,
}

/// A stage that is not visited as often as asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Miss {
    pub(super) stage: StageId,
    pub(super) asked: f64,
    pub(super) reached: f64,
}

impl Sets {
    /// Sets of `picks` of these stages, of relay stages up to `last`; each with those that are `always` there, jumps of at most
    /// `jump_max` and `together` adjacent stages left out at one place at least.
    pub(super) fn new(
        stages: Vec<StageId>,
        weights: Vec<f64>,
        always: Vec<bool>,
        (picks, last): (usize, u16),
        (jump_max, together): (u16, u16),
    ) -> Self {
        let followed = Vec::new();
        let mut sets = Self { stages, weights, always, picks, last, jump_max, together, followed };
        sets.follow();
        sets
    }

    /// Whether there is such a set.
    pub(super) fn is_possible(&self) -> bool {
        match self.followed.first() {
            None => self.ends(None, self.start()),
            Some(row) => self.steps(None, self.start()).any(|(to, met)| row[to][met] > 0.0),
        }
    }

    pub(super) fn into_weights(self) -> Vec<f64> {
        self.weights
    }

    /// A set, ascending; an empty one if none is possible.
    pub(super) fn draw(&self, random: &mut Random) -> Vec<StageId> {
        let (mut at, mut met) = (None, self.start());
        let mut set = Vec::with_capacity(self.picks);
        for row in &self.followed {
            let ways: Vec<(usize, usize, f64)> = self
                .steps(at, met)
                .map(|(to, met)| (to, met, self.weights[to] * row[to][met]))
                .filter(|(_, _, weight)| *weight > 0.0)
                .collect();
            let total: f64 = ways.iter().map(|(_, _, weight)| weight).sum();
            let mut left = (random.next() >> 11) as f64 / (1_u64 << 53) as f64 * total;
            let drawn = ways.iter().find(|(_, _, weight)| {
                left -= weight;
                left < 0.0
            });
            // What rounding leaves over is the last one's.
            let Some((to, then, _)) = drawn.or(ways.last()) else { return Vec::new() };
            set.push(self.stages[*to]);
            (at, met) = (Some(*to), *then);
        }
        set
    }

    /// Changes the weights until stages are visited by these shares of the paths; gives the stage that is farthest off if that can't
    /// be.
    ///
    /// The odds of a stage are in proportion to its own weight, so one weight after the other is made to fit. Each such step makes
    /// the sets of most entropy with these shares likelier (coordinate ascent of a concave function), so this ends where they are.
    pub(super) fn fit(&mut self, shares: &[f64]) -> Option<Miss> {
        let sweeps = FIT_WORK / (self.stages.len().pow(3) * self.picks).max(1);
        for _ in 0..sweeps.clamp(1, FIT_SWEEPS) {
            if self.miss(shares).is_none_or(|miss| miss.off() <= SHARE_EXACT) {
                break;
            }
            // Those that are always there count the same in every set.
            for fitted in (0..self.stages.len()).filter(|stage| !self.always[*stage]).collect::<Vec<_>>() {
                let (asked, reached) = (shares[fitted], self.shares()[fitted]);
                let reached = reached.clamp(WEIGHT_MIN, 1.0 - WEIGHT_MIN);
                let weight = self.weights[fitted] * (asked / (1.0 - asked)) * ((1.0 - reached) / reached);
                self.weights[fitted] = weight.clamp(WEIGHT_MIN, 1.0 / WEIGHT_MIN);
                self.follow();
            }
        }
        self.miss(shares).filter(|miss| miss.off() > SHARE_TOLERANCE)
    }

    /// The stage whose share is farthest off.
    fn miss(&self, shares: &[f64]) -> Option<Miss> {
        let misses = self.stages.iter().zip(shares.iter().zip(self.shares()));
        let misses = misses.map(|(stage, (asked, reached))| Miss { stage: *stage, asked: *asked, reached });
        misses.max_by(|a, b| a.off().total_cmp(&b.off()))
    }

    /// The share of the sets that each stage is in.
    fn shares(&self) -> Vec<f64> {
        let mut shares = vec![0.0; self.stages.len()];
        // By stage and by whether enough is left out: the weight of all ways to get there, itself included.
        let mut led = vec![[0.0; 2]; self.stages.len()];
        for (to, met) in self.steps(None, self.start()) {
            led[to][met] += self.weights[to];
        }
        for (visit, row) in self.followed.iter().enumerate() {
            let here: Vec<f64> =
                led.iter().zip(row).map(|(led, row)| led[0] * row[0] + led[1] * row[1]).collect();
            let total: f64 = here.iter().sum();
            if total > 0.0 {
                shares.iter_mut().zip(here).for_each(|(share, here)| *share += here / total);
            }
            if visit + 1 < self.followed.len() {
                let mut next = vec![[0.0; 2]; self.stages.len()];
                for (from, led) in led.iter().enumerate() {
                    for (met, weight) in led.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
                        for (to, then) in self.steps(Some(from), met) {
                            next[to][then] += weight * self.weights[to];
                        }
                    }
                }
                scale(&mut next);
                led = next;
            }
        }
        shares
    }

    /// Computes what may follow each visit.
    fn follow(&mut self) {
        let count = self.stages.len();
        let mut rows: Vec<Vec<[f64; 2]>> = Vec::with_capacity(self.picks);
        for _ in 0..self.picks {
            let mut row = vec![[0.0; 2]; count];
            for (from, ways) in row.iter_mut().enumerate() {
                for (met, weight) in ways.iter_mut().enumerate() {
                    *weight = match rows.last() {
                        None => f64::from(u8::from(self.ends(Some(from), met))),
                        Some(next) => self
                            .steps(Some(from), met)
                            .map(|(to, then)| self.weights[to] * next[to][then])
                            .sum(),
                    };
                }
            }
            scale(&mut row);
            rows.push(row);
        }
        rows.reverse();
        self.followed = rows;
    }

    /// Whether enough adjacent stages are left out before the first visit.
    fn start(&self) -> usize {
        usize::from(self.together == 0)
    }

    /// Where a path may go next, and whether enough adjacent stages are left out then.
    fn steps(&self, from: Option<usize>, met: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let next = from.map_or(0, |from| from + 1);
        let below = from.map_or(0, |from| self.stages[from].0);
        // Nobody passes over a stage that is on every path.
        let end =
            (next..self.stages.len()).find(|to| self.always[*to]).map_or(self.stages.len(), |to| to + 1);
        (next..end).filter(move |to| may_jump(&self.stages, from, *to, self.jump_max)).map(move |to| {
            let passed = self.stages[to].0 - below - 1;
            (to, usize::from(met == 1 || passed >= self.together))
        })
    }

    /// Whether a path may end there.
    fn ends(&self, at: Option<usize>, met: usize) -> bool {
        let next = at.map_or(0, |at| at + 1);
        let below = at.map_or(0, |at| self.stages[at].0);
        let leaves_out = self.last - below;
        (met == 1 || leaves_out >= self.together) && self.always[next..].iter().all(|always| !always)
    }
}

impl Miss {
    fn off(&self) -> f64 {
        (self.asked - self.reached).abs()
    }
}

/// Brings the largest to 1.
fn scale(row: &mut [[f64; 2]]) {
    let largest = row.iter().flatten().copied().fold(0.0, f64::max);
    if largest > 0.0 {
        row.iter_mut().flatten().for_each(|weight| *weight /= largest);
    }
}
