//! When serial links are free again.

use std::collections::BTreeMap;

/// Up to so many nodes there is a cell for every directed pair.
const DENSE_NODES_MAX: usize = 1024;

/// When each directed pair of nodes may send again.
#[derive(Debug, Clone, Default)]
pub(crate) struct SerialLinks {
    nodes: usize,
    run: u64,
    /// The run that wrote the cell, and when the link is free.
    cells: Vec<(u64, u64)>,
    sparse: BTreeMap<(u32, u32), u64>,
}

impl SerialLinks {
    /// All links are free.
    pub(crate) fn reset(&mut self, nodes: usize) {
        self.run += 1;
        self.sparse.clear();
        if self.nodes != nodes {
            self.nodes = nodes;
            self.cells.clear();
            if nodes <= DENSE_NODES_MAX {
                self.cells.resize(nodes * nodes, (0, 0));
            }
        }
    }

    /// When a message that is ready at `now` is sent, if it keeps the link busy for `sending`.
    pub(crate) fn send(&mut self, from: u32, to: u32, now: u64, sending: u64) -> u64 {
        if self.cells.is_empty() {
            let free = self.sparse.entry((from, to)).or_default();
            let start = now.max(*free);
            *free = start + sending;
            return start;
        }
        let cell = &mut self.cells[from as usize * self.nodes + to as usize];
        let start = if cell.0 == self.run { now.max(cell.1) } else { now };
        *cell = (self.run, start + sending);
        start
    }
}
