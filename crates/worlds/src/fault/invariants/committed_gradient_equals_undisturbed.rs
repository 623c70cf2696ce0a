//! A committed gradient is the multiset of terms that the same paths give when nothing goes wrong.

use super::{Invariant, Observation};
use crate::fault::provenance as made;
use crate::fault::truth::Truth;
use crate::fault::truth::clip_factor;

/// See the file's name.
#[derive(Debug)]
pub(super) struct CommittedGradientEqualsUndisturbed;

impl Invariant for CommittedGradientEqualsUndisturbed {
    fn name(&self) -> &'static str {
        "committed_gradient_equals_undisturbed"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        let Some(record) = seen.committed() else { return Ok(()) };
        let Some(expected) = truth.expected.get(record.iteration.0 as usize) else { return Ok(()) };
        for (part, gradient) in record.stages.iter().zip(&expected.gradients) {
            let stage = part.stage;
            match gradient {
                None if part.step || !part.shares.is_empty() => {
                    return Err(format!(
                        "nothing reached {stage} in {}, and still it steps",
                        record.iteration
                    ));
                }
                None => {}
                Some(gradient) => {
                    if part.gradient != made::digest(*gradient) {
                        let (t, terms) = (record.iteration, &part.shares);
                        return Err(format!(
                            "{t}: the gradient of {stage} is another one; shares: {terms:?}"
                        ));
                    }
                    let norm = made::norm(*gradient);
                    let clip = clip_factor(&truth.settings, norm);
                    if !part.step || part.gradient_norm != norm || part.clip_factor != clip {
                        return Err(format!("{stage} has another norm, clip factor or no step: {part:?}"));
                    }
                }
            }
        }
        if record.learning_rate == truth.settings.learning_rate.at(record.iteration) {
            Ok(())
        } else {
            Err(format!("the learning rate of {} is {}", record.iteration, record.learning_rate))
        }
    }
}
