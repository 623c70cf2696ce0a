//! An iteration counts the loss and the tokens of its own microbatches, whoever computed them and when.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;

/// See the file's name.
#[derive(Debug)]
pub(super) struct SampleOrderIndependent;

impl Invariant for SampleOrderIndependent {
    fn name(&self) -> &'static str {
        "sample_order_independent"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        let Some(record) = seen.committed() else { return Ok(()) };
        let Some(expected) = truth.expected.get(record.iteration.0 as usize) else { return Ok(()) };
        if record.tokens == expected.tokens && record.loss_sum == expected.loss_sum {
            Ok(())
        } else {
            let (t, tokens, loss) = (record.iteration, record.tokens, record.loss_sum);
            Err(format!(
                "{t} counts {tokens} tokens with loss {loss}, not {} with {}",
                expected.tokens, expected.loss_sum
            ))
        }
    }
}
