//! A restored stage takes the steps again that it had taken since its copy.

use super::StageState;
use super::boundary;
use super::engine::{Engine, Made};
use super::inputs::flat;
use super::tensor::{Flat, Tensor};
use skipstone_model::{ModelError, StageBackend};
use skipstone_protocol::Outcome;
use skipstone_recovery::{Retraced, Retracing};
use std::sync::Arc;

impl Engine {
    /// The stage after the steps of `retracing`, from what it was sent and what gradients came back to it: two tensors of each
    /// microbatch, in order. The same bits as when they were taken for the first time, if the state before them has those. If
    /// `keeps`, also what it makes of them: two tensors of each, as they were sent.
    pub(super) fn retrace(
        &mut self,
        mut state: Arc<StageState>,
        retracing: &Retracing,
        keeps: bool,
        tensors: &[Option<Tensor>],
    ) -> Made {
        let count = retracing.microbatches().count();
        if tensors.len() != 2 * count {
            return Err(format!(
                "{} tensors for {count} microbatches that are computed again",
                tensors.len()
            ));
        }
        let values = self.setup.shape.tokens() * self.setup.shape.model.hidden_size;
        let fits = |index| flat(tensors, index).is_ok_and(|tensor| tensor.as_slice().len() == values);
        if !(0..tensors.len()).all(fits) {
            return Err("a tensor that was kept is no boundary tensor of this run".to_owned());
        }
        let (mut rest, mut again) = (tensors, Vec::new());
        for retraced in &retracing.iterations {
            let count = 2 * retraced.shares.iter().flatten().count();
            let (now, later) = rest.split_at(count);
            state = self.retrace_one(state, retraced, now, keeps.then_some(&mut again))?;
            rest = later;
        }
        let outcome = Outcome::State { digest: state.digest() };
        Ok((outcome, [Tensor::State(state)].into_iter().chain(again).collect()))
    }

    fn retrace_one(
        &mut self,
        state: Arc<StageState>,
        retraced: &Retraced,
        tensors: &[Option<Tensor>],
        mut again: Option<&mut Vec<Tensor>>,
    ) -> Result<Arc<StageState>, String> {
        let mut at = 0;
        let mut parts = Vec::new();
        for share in &retraced.shares {
            let mut sum = self.buffer(state.parameters.len());
            sum.fill(0.0);
            for _ in share {
                let (x, dy) = (flat(tensors, at)?.as_slice(), flat(tensors, at + 1)?.as_slice());
                at += 2;
                let wire = self.setup.wire;
                let backend = self.backend(state.stage)?;
                let failed = |error: ModelError| error.to_string();
                let (made, saved) = backend.forward(&state.parameters, x).map_err(failed)?;
                let back = backend.backward(&state.parameters, saved, dy, Some(&mut sum)).map_err(failed)?;
                for mut buffer in [made, back] {
                    match again.as_mut() {
                        Some(again) => {
                            boundary::round(&mut buffer, wire);
                            again.push(Tensor::Flat(Flat::new(buffer)));
                        }
                        None => backend.recycle(buffer),
                    }
                }
            }
            parts.push(Some(Tensor::Flat(self.rounded(Flat::new(sum)))));
        }
        let microbatches = (tensors.len() / 2) as u32;
        let (_, gradient) = self.sum(&parts, microbatches)?;
        let mut inputs: Vec<_> = [Tensor::State(state)].into_iter().chain(gradient).map(Some).collect();
        let (_, stepped) = self.step(&mut inputs, retraced.learning_rate, retraced.clip_factor)?;
        match stepped.into_iter().next() {
            Some(Tensor::State(state)) => Ok(state),
            _ => Err("a step gave no state".to_owned()),
        }
    }
}
