//! Tokens of a microbatch, as every origin sees them.

use skipstone_data::{SampleOrder, TokenDataset};
use skipstone_types::{Iteration, Microbatch};
use std::sync::Arc;

/// The training split and the order in which it is visited.
#[derive(Debug, Clone)]
pub struct Feed {
    dataset: Arc<TokenDataset>,
    order: SampleOrder,
}

impl Feed {
    /// A feed from a dataset.
    pub fn new(dataset: Arc<TokenDataset>, order: SampleOrder) -> Self {
        Self { dataset, order }
    }

    /// Inputs and targets of a microbatch, batch × context each.
    ///
    /// # Errors
    /// A microbatch that the run doesn't have.
    pub fn batch(
        &self,
        iteration: Iteration,
        microbatch: Microbatch,
    ) -> Result<(Vec<u32>, Vec<u32>), String> {
        let shape = self.order.shape();
        let index = microbatch.0 as usize;
        if index >= shape.microbatches {
            return Err(format!("{microbatch} of {}", shape.microbatches));
        }
        let tokens = shape.batch * shape.context;
        let (mut inputs, mut targets) = (vec![0; tokens], vec![0; tokens]);
        self.order.fill(self.dataset.train(), iteration.0, index, &mut inputs, &mut targets);
        Ok((inputs, targets))
    }
}
