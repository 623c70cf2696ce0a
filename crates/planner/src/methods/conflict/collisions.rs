//! Collisions (TC2): two tasks that overlap on a node in the planned times.

use std::rc::Rc;

use super::time_space::{Delay, Route, Visit};

/// A way to resolve a collision: this slot keeps off the node for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resolution {
    pub(super) agent: usize,
    pub(super) delay: Delay,
}

/// Two tasks that overlap: of a slower slot and of a quicker one.
struct Collision {
    /// Ranks of the slots, slowest first.
    ranks: (usize, usize),
    agents: (usize, usize),
    slow: Visit,
    quick: Visit,
}

/// The first collision in the order of (slower slot, other slot, node, tasks), as the ways to resolve it; none: there is
/// none. Tasks that are both losses or backwards may overlap: their order is left to the nodes.
///
/// Where one of the two is a loss or backward, the later one waits. Of two forwards, either waits; but of the slowest
/// quarter none has to. `slowest` lists the slots, slowest first.
pub(super) fn first_collision(routes: &[Rc<Route>], slowest: &[usize], nodes: usize) -> Vec<Resolution> {
    let mut rank = vec![0; routes.len()];
    slowest.iter().enumerate().for_each(|(place, agent)| rank[*agent] = place);
    let mut at: Vec<Vec<(usize, usize)>> = vec![Vec::new(); nodes];
    for agent in slowest {
        for (task, visit) in routes[*agent].visits.iter().enumerate() {
            at[visit.node as usize].push((*agent, task));
        }
    }
    let mut first: Option<Collision> = None;
    for here in &at {
        for (index, one) in here.iter().enumerate() {
            for other in &here[index + 1..] {
                let ranks = (rank[one.0], rank[other.0]);
                if one.0 == other.0 || first.as_ref().is_some_and(|first| first.ranks <= ranks) {
                    continue;
                }
                let (slow, quick) = (routes[one.0].visits[one.1], routes[other.0].visits[other.1]);
                if collide(&slow, &quick) {
                    first = Some(Collision { ranks, agents: (one.0, other.0), slow, quick });
                }
            }
        }
    }
    let Some(Collision { ranks, agents, slow, quick }) = first else { return Vec::new() };
    let wait = |agent: usize, visit: Visit| {
        let Visit { node, start_us, end_us, .. } = visit;
        Resolution { agent, delay: Delay { node, start_us, end_us } }
    };
    if !slow.is_forward || !quick.is_forward {
        return if slow.start_us < quick.start_us {
            vec![wait(agents.1, slow)]
        } else {
            vec![wait(agents.0, quick)]
        };
    }
    let mut ways = Vec::new();
    if 4 * ranks.0 > routes.len() {
        ways.push(wait(agents.0, quick));
    }
    ways.push(wait(agents.1, slow));
    ways
}

fn collide(one: &Visit, other: &Visit) -> bool {
    (one.is_forward || other.is_forward) && one.start_us.max(other.start_us) < one.end_us.min(other.end_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(visits: &[(u32, u64, u64, bool)]) -> Rc<Route> {
        let visits: Vec<Visit> = visits
            .iter()
            .map(|(node, start_us, end_us, is_forward)| Visit {
                node: *node,
                start_us: *start_us,
                end_us: *end_us,
                is_forward: *is_forward,
            })
            .collect();
        Rc::new(Route { path: Vec::new(), end_us: visits.last().map_or(0, |visit| visit.end_us), visits })
    }

    #[test]
    fn the_later_waits_for_a_backward_and_either_of_two_forwards() {
        let wait =
            |agent, node, start_us, end_us| Resolution { agent, delay: Delay { node, start_us, end_us } };
        // Touching is no collision, and two backwards may overlap.
        let routes =
            [route(&[(0, 0, 5, true), (1, 5, 9, false)]), route(&[(0, 5, 8, true), (1, 6, 7, false)])];
        assert!(first_collision(&routes, &[0, 1], 2).is_empty());
        let routes = [route(&[(1, 5, 9, false)]), route(&[(1, 6, 7, true)])];
        assert_eq!(first_collision(&routes, &[0, 1], 2), [wait(1, 1, 5, 9)]);
        assert_eq!(first_collision(&routes, &[1, 0], 2), [wait(1, 1, 5, 9)]);
        // Of the slowest quarter none has to wait for a forward.
        let routes = [route(&[(1, 5, 9, true)]), route(&[(1, 6, 7, true)]), route(&[]), route(&[])];
        assert_eq!(first_collision(&routes, &[0, 1, 2, 3], 2), [wait(1, 1, 5, 9)]);
        assert_eq!(first_collision(&routes, &[2, 3, 0, 1], 2), [wait(0, 1, 6, 7), wait(1, 1, 5, 9)]);
    }
}
