//! Virtual time: what will happen, in order of (time, sequence).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// A queue of events. Events of the same time happen in the order in which they were added.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    order: BinaryHeap<Reverse<(u64, u64)>>,
    events: HashMap<u64, E>,
    next: u64,
}

impl<E> Queue<E> {
    /// An empty queue.
    pub(crate) fn new() -> Self {
        Self { order: BinaryHeap::new(), events: HashMap::new(), next: 0 }
    }

    /// Adds an event at a time in microseconds.
    pub(crate) fn push(&mut self, at_us: u64, event: E) {
        self.order.push(Reverse((at_us, self.next)));
        self.events.insert(self.next, event);
        self.next += 1;
    }

    /// The next event and its time.
    pub(crate) fn pop(&mut self) -> Option<(u64, E)> {
        let Reverse((at_us, sequence)) = self.order.pop()?;
        self.events.remove(&sequence).map(|event| (at_us, event))
    }
}
