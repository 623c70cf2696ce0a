//! The steps that a search takes from one draft to the next.

use skipstone_types::StageId;

use super::draft::Draft;
use crate::compiled::CompiledInstance;
use crate::random::Random;
use crate::simulate::NONE;

/// How often each kind of step is tried, relative to the others.
const NODE: usize = 24;
const EXCHANGE: usize = 30;
const CHANGE: usize = 8;
const TRADE_WAYS: usize = 16;
const TURN: usize = 8;
const SEATS: usize = 24;
const RESIZE: usize = 2;
const RANK: usize = 4;
/// How often ways are chosen anew in place of a step, in a hundred.
const REROUTE: usize = 30;

/// Steps of a search over one instance.
#[derive(Debug, Clone)]
pub(crate) struct Moves {
    /// Whether nodes may change stages.
    placement: bool,
    /// Whether stages may change sizes.
    resize: bool,
    /// How often each stage may be visited, at least and at most; none: as often as the draft has it.
    visits: Option<(u32, u32)>,
    /// Whether paths may go back.
    turns: bool,
    /// Whether microbatches may go before others.
    ranks: bool,
    /// Whether whole ways are chosen anew now and then.
    reroutes: bool,
}

impl Moves {
    /// The steps of `compiled`.
    pub(crate) fn new(compiled: &CompiledInstance) -> Self {
        Self {
            placement: compiled.nodes() > 1 && compiled.stages() > 1,
            resize: compiled.instance().stage_sizes.is_none() && compiled.stages() > 2,
            visits: Some((0, u32::MAX)),
            turns: compiled.path_length() > 2,
            ranks: !compiled.equal_ranks,
            reroutes: false,
        }
    }

    /// The steps that leave every node where it is.
    pub(crate) fn of_paths(compiled: &CompiledInstance) -> Self {
        Self { placement: false, resize: false, ..Self::new(compiled) }
    }

    /// The same, and now and then the way that ends first is looked for. It pays where there are many nodes to choose among
    /// (`docs/planner.md`, "Ways chosen anew").
    pub(crate) fn with_reroutes(self, compiled: &CompiledInstance) -> Self {
        Self { reroutes: compiled.path_length() > 1, ..self }
    }

    /// Whether ways are to be chosen anew in place of a step.
    pub(crate) fn reroutes(&self, random: &mut Random) -> bool {
        self.reroutes && random.below(100) < REROUTE
    }

    /// The steps that also leave every stage its number of visits, and all microbatches equal in rank.
    pub(crate) fn of_even_paths() -> Self {
        Self { placement: false, resize: false, visits: None, turns: false, ranks: false, reroutes: false }
    }

    /// The same, but for visits: steps change them, and lead no stage beyond so many, at least and at most.
    pub(crate) fn of_paths_within(visits: (u32, u32)) -> Self {
        Self { visits: Some(visits), ..Self::of_even_paths() }
    }

    /// The same, but for nodes, which may change stages.
    pub(crate) fn of_even_places() -> Self {
        Self { placement: true, ..Self::of_even_paths() }
    }

    /// Takes a random step; false where it turned out to be none. The draft is then of no use.
    pub(crate) fn step(&self, compiled: &CompiledInstance, draft: &mut Draft, random: &mut Random) -> bool {
        let length = compiled.path_length();
        let seats = if self.placement { SEATS } else { 0 };
        let resize = if self.resize { RESIZE } else { 0 };
        let relays = usize::from(length > 1);
        let kinds = [
            relays * NODE,
            relays * EXCHANGE,
            usize::from(self.visits.is_some()) * relays * CHANGE,
            relays * TRADE_WAYS,
            usize::from(self.turns) * TURN,
            seats,
            resize,
            usize::from(self.ranks) * RANK,
        ];
        let mut draw = random.below(kinds.iter().sum());
        let mut kind = 0;
        while draw >= kinds[kind] {
            draw -= kinds[kind];
            kind += 1;
        }
        match kind {
            0 => Self::other_node(draft, random),
            1 => Self::exchange_stages(compiled, draft, random),
            2 => self.change_stage(compiled, draft, random),
            3 => Self::trade_ways(compiled, draft, random),
            4 => Self::turn(compiled, draft, random),
            5 => Self::trade_seats(compiled, draft, random),
            6 => Self::resize(compiled, draft, random),
            _ => Self::change_rank(draft, random),
        }
    }

    /// Takes a random step after which some microbatches visit other stages, or in another order; false where it turned out to
    /// be none. The draft is then of no use.
    pub(crate) fn step_of_stages(
        &self,
        compiled: &CompiledInstance,
        draft: &mut Draft,
        random: &mut Random,
    ) -> bool {
        match random.below(32) {
            0..8 if self.turns => Self::turn(compiled, draft, random),
            8..11 if self.visits.is_some() => self.change_stage(compiled, draft, random),
            _ => Self::exchange_stages(compiled, draft, random),
        }
    }

    /// Another node of the same stage for one visit.
    fn other_node(draft: &mut Draft, random: &mut Random) -> bool {
        let microbatch = random.below(draft.len());
        let place = 1 + random.below(draft.path(microbatch).len() - 1);
        let (stage, seat) = draft.seat[draft.path(microbatch)[place] as usize];
        let members = &draft.stages[stage as usize];
        if members.len() < 2 {
            return false;
        }
        let other = (seat as usize + 1 + random.below(members.len() - 1)) % members.len();
        draft.path_mut(microbatch)[place] = draft.stages[stage as usize][other];
        true
    }

    /// Two microbatches trade one visit.
    fn exchange_stages(compiled: &CompiledInstance, draft: &mut Draft, random: &mut Random) -> bool {
        let (a, b) = (random.below(draft.len()), random.below(draft.len()));
        let length = compiled.path_length();
        let (at_a, at_b) = (1 + random.below(length - 1), 1 + random.below(length - 1));
        let (node_a, node_b) = (draft.path(a)[at_a], draft.path(b)[at_b]);
        if a == b || node_a == node_b {
            return false;
        }
        draft.path_mut(a)[at_a] = node_b;
        draft.path_mut(b)[at_b] = node_a;
        if draft.stage_of(node_a) == draft.stage_of(node_b) {
            return true;
        }
        Self::mend(compiled, draft, a) && Self::mend(compiled, draft, b)
    }

    /// One visit goes to another stage.
    fn change_stage(&self, compiled: &CompiledInstance, draft: &mut Draft, random: &mut Random) -> bool {
        let microbatch = random.below(draft.len());
        let place = 1 + random.below(compiled.path_length() - 1);
        let from = draft.stage_of(draft.path(microbatch)[place]);
        let to = 1 + random.below(draft.stages.len() - 1);
        let (least, most) = self.visits.unwrap_or((0, u32::MAX));
        let most = most.min(compiled.visits_max(to));
        if to == from
            || draft.visits[to] >= most
            || draft.visits[from] <= least
            || draft.stages[to].is_empty()
        {
            return false;
        }
        draft.path_mut(microbatch)[place] = draft.stages[to][random.below(draft.stages[to].len())];
        draft.visits[from] -= 1;
        draft.visits[to] += 1;
        Self::mend(compiled, draft, microbatch)
    }

    /// Two microbatches trade the ends of their ways.
    fn trade_ways(compiled: &CompiledInstance, draft: &mut Draft, random: &mut Random) -> bool {
        let (a, b) = (random.below(draft.len()), random.below(draft.len()));
        if a == b {
            return false;
        }
        let length = compiled.path_length();
        let from = if random.below(3) == 0 { 1 + random.below(length - 1) } else { 1 };
        let mut changed = false;
        for place in from..length {
            let (node_a, node_b) = (draft.path(a)[place], draft.path(b)[place]);
            changed |= node_a != node_b;
            draft.path_mut(a)[place] = node_b;
            draft.path_mut(b)[place] = node_a;
        }
        let mut is_legal = |microbatch| {
            // What is legal for an odd microbatch is not for an even one, where there is one order for each.
            if compiled.has_trained_order() {
                Self::mend(compiled, draft, microbatch)
            } else {
                draft.is_legal(compiled, microbatch)
            }
        };
        changed && is_legal(a) && is_legal(b)
    }

    /// Two visits of one path trade places.
    fn turn(compiled: &CompiledInstance, draft: &mut Draft, random: &mut Random) -> bool {
        let microbatch = random.below(draft.len());
        let length = compiled.path_length();
        let first = 1 + random.below(length - 2);
        let second =
            if random.below(4) == 0 { first + 1 + random.below(length - 1 - first) } else { first + 1 };
        draft.path_mut(microbatch).swap(first, second);
        draft.is_legal(compiled, microbatch)
    }

    /// Two nodes trade seats, or a spare takes one.
    fn trade_seats(compiled: &CompiledInstance, draft: &mut Draft, random: &mut Random) -> bool {
        let nodes = compiled.nodes();
        let (a, b) = (random.below(nodes), random.below(nodes));
        let (stage_a, stage_b) = (draft.stage_of(a as u32), draft.stage_of(b as u32));
        let (has_a, has_b) = (draft.has_seat(a as u32), draft.has_seat(b as u32));
        let able = (!has_b || compiled.may_serve(a, stage_b)) && (!has_a || compiled.may_serve(b, stage_a));
        let differs = if has_a && has_b { stage_a != stage_b } else { has_a || has_b };
        if !differs || !able || compiled.is_alike(a, b) {
            return false;
        }
        draft.trade_seats(compiled, a as u32, b as u32);
        true
    }

    /// A relay moves to another relay stage.
    fn resize(compiled: &CompiledInstance, draft: &mut Draft, random: &mut Random) -> bool {
        let node = random.below(compiled.nodes()) as u32;
        let (from, place) = draft.seat[node as usize];
        let from = from as usize;
        if from == 0 || draft.stages[from].len() < 2 || draft.stages.len() < 3 {
            return false;
        }
        let to = 1 + (from + random.below(draft.stages.len() - 2)) % (draft.stages.len() - 1);
        draft.stages[from].swap_remove(place as usize);
        if let Some(moved) = draft.stages[from].get(place as usize) {
            draft.seat[*moved as usize].1 = place;
        }
        draft.seat[node as usize] = (to as u32, draft.stages[to].len() as u32);
        if let Some(stage) = draft.schedule.stage_of.get_mut(node as usize) {
            *stage = to as u32;
        }
        draft.stages[to].push(node);
        let left = draft.stages[from].len();
        // Visits of the node go to those who stay, half of them of the new stage's come over.
        for index in 0..draft.schedule.nodes.len() {
            let visited = draft.schedule.nodes[index];
            if visited == node {
                draft.schedule.nodes[index] = draft.stages[from][random.below(left)];
            } else if draft.stage_of(visited) == to && random.below(draft.stages[to].len()) == 0 {
                draft.schedule.nodes[index] = node;
            }
        }
        draft.refresh_allreduce(compiled, from);
        draft.refresh_allreduce(compiled, to);
        true
    }

    /// A microbatch goes before or after others of its class.
    fn change_rank(draft: &mut Draft, random: &mut Random) -> bool {
        let microbatch = random.below(draft.len());
        if draft.schedule.after[microbatch] != NONE {
            draft.schedule.after[microbatch] = NONE;
            return true;
        }
        let rank = random.below(4) as u32;
        std::mem::replace(&mut draft.schedule.rank[microbatch], rank) != rank
    }

    /// Makes a path legal again after one of its visits went to another stage, by ordering its relays.
    fn mend(compiled: &CompiledInstance, draft: &mut Draft, microbatch: usize) -> bool {
        if draft.is_legal(compiled, microbatch) {
            return true;
        }
        let seat = std::mem::take(&mut draft.seat);
        let path = draft.path_mut(microbatch);
        path[1..].sort_unstable_by_key(|node| seat[*node as usize].0);
        let stage = |node: &u32| StageId(seat[*node as usize].0 as u16);
        compiled.order_as_trained(microbatch, &mut path[1..], stage);
        if compiled.swaps_edges(microbatch as u32) {
            for (first, second) in compiled.edge_pairs() {
                let place =
                    |wanted: usize| path.iter().position(|node| seat[*node as usize].0 as usize == wanted);
                if let (Some(one), Some(other)) = (place(first), place(second))
                    && one > other
                {
                    path[other..=one].rotate_right(1);
                }
            }
        }
        draft.seat = seat;
        draft.is_legal(compiled, microbatch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{DrawnSize, draw_instance};
    use crate::search::construct::first_draft;
    use crate::search::{Guide, Objective};

    #[test]
    fn steps_keep_visits_within_bounds_and_reach_both() {
        let size = DrawnSize { nodes: 15, stages: 5, path_len: 3, regions: 5 };
        let mut instance = draw_instance(size, 1);
        instance.stage_visits_max = None;
        let compiled = CompiledInstance::new(&instance).expect("an instance");
        let guide = Guide::new(&compiled, Objective::Iteration);
        let random = &mut Random::new(&[7]);
        let mut draft = first_draft(&compiled, &guide, random).expect("paths");
        let even = draft.visits[1..].iter().sum::<u32>() / (draft.visits.len() as u32 - 1);
        let (least, most) = (even - 2, even + 2);
        let moves = Moves::of_paths_within((least, most));
        let (mut fewest, mut most_seen) = (even, even);
        for _ in 0..20_000 {
            let mut next = draft.clone();
            if !moves.step(&compiled, &mut next, random) {
                continue;
            }
            draft = next;
            fewest = fewest.min(draft.visits[1..].iter().copied().min().expect("relays"));
            most_seen = most_seen.max(draft.visits[1..].iter().copied().max().expect("relays"));
            assert!((0..draft.len()).all(|microbatch| draft.is_legal(&compiled, microbatch)));
        }
        let counted = draft.clone();
        draft.refresh(&compiled);
        assert_eq!(draft.visits, counted.visits, "steps count visits");
        assert_eq!((fewest, most_seen), (least, most));
        assert!(draft.schedule.rank.iter().all(|rank| *rank == 0));
    }
}
