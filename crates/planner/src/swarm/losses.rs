//! Plans for losses that have not happened.

use std::collections::BTreeMap;

use skipstone_types::{NodeId, Path, PlanProblem};

/// The largest swarm whose losses are prepared for: of a larger one each node's turn would come too seldom.
const NODES_MAX: usize = 64;

/// For each node of a swarm the paths without it, as far as they have been looked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Losses {
    /// Who serves.
    nodes: Vec<Vec<NodeId>>,
    plans: BTreeMap<NodeId, Vec<Path>>,
    /// Turns taken.
    turns: usize,
}

impl Losses {
    /// Tells of the swarm that was planned for; whether it is another one than before.
    pub(crate) fn meet(&mut self, problem: &PlanProblem) -> bool {
        let changed = self.nodes != problem.nodes;
        if changed {
            self.nodes.clone_from(&problem.nodes);
            self.plans.clear();
        }
        changed
    }

    /// Where exactly one node of a stage with others is gone, and nobody came: the paths without it, empty if there was no
    /// time to look for any.
    pub(crate) fn prepared(&self, problem: &PlanProblem) -> Option<&[Path]> {
        let lost = self.lost(problem)?;
        Some(self.plans.get(&lost).map_or(&[], Vec::as_slice))
    }

    fn lost(&self, problem: &PlanProblem) -> Option<NodeId> {
        let mut lost = None;
        if self.nodes.len() != problem.nodes.len() {
            return None;
        }
        for (before, now) in self.nodes.iter().zip(&problem.nodes) {
            if before == now {
                continue;
            }
            let place = before.iter().zip(now).take_while(|(a, b)| a == b).count();
            let one = before.len() == now.len() + 1 && before[place + 1..] == now[place..];
            if !one || now.is_empty() || lost.replace(before[place]).is_some() {
                return None;
            }
        }
        lost
    }

    /// The node whose turn it is, and the problem without it.
    pub(crate) fn next(&mut self, problem: &PlanProblem) -> Option<(NodeId, PlanProblem)> {
        if problem.nodes.iter().map(Vec::len).sum::<usize>() > NODES_MAX {
            return None;
        }
        let replaceable = problem.nodes.iter().filter(|nodes| nodes.len() > 1).flatten();
        let candidates: Vec<NodeId> = replaceable.copied().collect();
        let lost = *candidates.get(self.turns % candidates.len().max(1))?;
        self.turns = self.turns.wrapping_add(1);
        let mut without = problem.clone();
        without.nodes.iter_mut().for_each(|nodes| nodes.retain(|node| *node != lost));
        without.paces.retain(|pace| pace.node != lost);
        Some((lost, without))
    }

    /// The paths without a node.
    pub(crate) fn plan(&self, lost: NodeId) -> Option<&Vec<Path>> {
        self.plans.get(&lost)
    }

    /// Keeps the paths without a node.
    pub(crate) fn keep(&mut self, lost: NodeId, paths: Vec<Path>) {
        self.plans.insert(lost, paths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skipstone_types::{Attempt, Iteration, PathRules, PlanEpoch};

    fn problem(nodes: &[&[u32]]) -> PlanProblem {
        PlanProblem {
            epoch: PlanEpoch(0),
            seed: 0,
            iteration: Iteration(0),
            attempt: Attempt(0),
            nodes: nodes.iter().map(|ids| ids.iter().copied().map(NodeId).collect()).collect(),
            microbatches: 4,
            path_length: 2,
            full: false,
            rules: PathRules::default(),
            paces: vec![],
            edge_swaps: skipstone_types::EdgeSwaps::Off,
        }
    }

    #[test]
    fn a_loss_is_told_from_other_changes() {
        let mut losses = Losses::default();
        assert!(losses.meet(&problem(&[&[1, 2], &[3, 4, 5], &[6]])));
        assert!(!losses.meet(&problem(&[&[1, 2], &[3, 4, 5], &[6]])));
        losses.keep(NodeId(4), vec![Path(vec![])]);
        let prepared = |nodes: &[&[u32]]| losses.prepared(&problem(nodes)).map(<[Path]>::len);
        assert_eq!(prepared(&[&[1, 2], &[3, 5], &[6]]), Some(1));
        assert_eq!(prepared(&[&[1, 2], &[3, 4], &[6]]), Some(0), "nothing was prepared");
        assert_eq!(prepared(&[&[1], &[3, 4, 5], &[6]]), Some(0));
        assert_eq!(prepared(&[&[1, 2], &[3, 4, 5], &[6]]), None, "nobody is lost");
        assert_eq!(prepared(&[&[1, 2], &[3, 4, 5], &[]]), None, "a stage is lost");
        assert_eq!(prepared(&[&[1, 2], &[3], &[6]]), None, "two are lost");
        assert_eq!(prepared(&[&[1], &[3, 5], &[6]]), None);
        assert_eq!(prepared(&[&[1, 2], &[3, 5, 7], &[6]]), None, "one came");
        assert!(losses.meet(&problem(&[&[1, 2], &[3, 5], &[6]])));
        assert_eq!(losses.plan(NodeId(4)), None, "what was prepared is of another swarm");
    }

    #[test]
    fn everybody_with_a_replica_gets_a_turn() {
        let mut losses = Losses::default();
        let problem = problem(&[&[1, 2], &[3], &[4, 5]]);
        let turns: Vec<u32> = (0..4).map(|_| losses.next(&problem).unwrap().0.0).collect();
        assert_eq!(turns, [1, 2, 4, 5]);
        let (lost, without) = losses.next(&problem).unwrap();
        assert_eq!((lost, without.nodes[0].as_slice()), (NodeId(1), [NodeId(2)].as_slice()));
    }
}
