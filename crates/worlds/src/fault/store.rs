//! A worker's handle store: names of tensors, and what they are. Every misuse of a name is an error.

use super::value::{KINDS, Kind, Value};
use skipstone_protocol::Handle;
use skipstone_types::{Attempt, Iteration};
use std::collections::{BTreeMap, BTreeSet};

/// A tensor and the attempt that it was made in or sent for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) value: Value,
    pub(crate) birth: (Iteration, Attempt),
}

/// The tensors of a worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    entries: BTreeMap<Handle, Entry>,
    counts: [usize; KINDS],
    received: u64,
    /// Outputs of tasks that failed: dropping them is allowed.
    failed: BTreeSet<Handle>,
}

impl Store {
    /// The tensor called `handle`.
    pub(crate) fn get(&self, handle: Handle) -> Result<Value, String> {
        self.entries
            .get(&handle)
            .map(|entry| entry.value)
            .ok_or_else(|| format!("{handle:?} names nothing (dropped, consumed or never made)"))
    }

    /// Gives a tensor a name.
    pub(crate) fn put(
        &mut self,
        handle: Handle,
        value: Value,
        birth: (Iteration, Attempt),
    ) -> Result<(), String> {
        self.counts[value.kind() as usize] += 1;
        match self.entries.insert(handle, Entry { value, birth }) {
            None => Ok(()),
            Some(old) => Err(format!("{handle:?} is given out twice; it already names {:?}", old.value)),
        }
    }

    /// Names a received payload.
    pub(crate) fn receive(&mut self, value: Value, birth: (Iteration, Attempt)) -> Result<Handle, String> {
        let handle = Handle(Handle::RECEIVED + self.received);
        self.received += 1;
        self.put(handle, value, birth).map(|()| handle)
    }

    /// Replaces what a name stands for (a sum that was added to).
    pub(crate) fn replace(&mut self, handle: Handle, value: Value) -> Result<(), String> {
        let entry =
            self.entries.get_mut(&handle).ok_or_else(|| format!("{handle:?} was dropped under a task"))?;
        entry.value = value;
        Ok(())
    }

    /// Takes a name away.
    pub(crate) fn remove(&mut self, handle: Handle) -> Result<Value, String> {
        let value = self.get(handle)?;
        self.entries.remove(&handle);
        self.counts[value.kind() as usize] -= 1;
        Ok(value)
    }

    /// Forgets tensors, as a worker asked.
    pub(crate) fn forget(&mut self, handles: &[Handle]) -> Result<(), String> {
        for handle in handles {
            if !self.failed.remove(handle) {
                self.remove(*handle).map_err(|why| format!("dropped, but {why}"))?;
            }
        }
        Ok(())
    }

    /// Notes the outputs of a failed task.
    pub(crate) fn note_failed(&mut self, outputs: &[Handle]) {
        self.failed.extend(outputs);
    }

    /// How many tensors of a kind there are.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.counts[kind as usize]
    }

    /// How many tensors there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All tensors.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Handle, &Entry)> {
        self.entries.iter().map(|(handle, entry)| (*handle, entry))
    }
}
