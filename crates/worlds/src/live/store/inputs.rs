//! A task's inputs, by position and kind.

use super::StageState;
use super::tensor::{Flat, Tensor};
use skipstone_model::Saved;
use std::sync::Arc;

pub(super) fn state(inputs: &[Option<Tensor>], index: usize) -> Result<&Arc<StageState>, String> {
    match inputs.get(index) {
        Some(Some(Tensor::State(state))) => Ok(state),
        _ => Err(format!("input {index} is not a state")),
    }
}

pub(super) fn flat(inputs: &[Option<Tensor>], index: usize) -> Result<&Flat, String> {
    match inputs.get(index) {
        Some(Some(Tensor::Flat(flat))) => Ok(flat),
        _ => Err(format!("input {index} is not a flat tensor")),
    }
}

pub(super) fn take_saved(inputs: &mut [Option<Tensor>], index: usize) -> Result<Saved, String> {
    match inputs.get_mut(index).and_then(Option::take) {
        Some(Tensor::Saved(saved)) => Ok(saved),
        _ => Err(format!("input {index} is not what a forward has saved")),
    }
}

/// All inputs, which nobody else needs any more.
pub(super) fn take_flats(inputs: &mut [Option<Tensor>]) -> Result<Vec<Flat>, String> {
    let take = |(index, input): (usize, &mut Option<Tensor>)| match input.take() {
        Some(Tensor::Flat(flat)) => Ok(flat),
        _ => Err(format!("input {index} is not a flat tensor")),
    };
    inputs.iter_mut().enumerate().map(take).collect()
}

/// The sum that a counted task adds to; it is copied first if a reduction still reads it.
pub(super) fn sum_of(rest: &mut [Option<Tensor>]) -> Option<&mut [f32]> {
    match rest.first_mut() {
        Some(Some(Tensor::Flat(flat))) => Some(flat.make_mut()),
        _ => None,
    }
}
