//! A swarm's gradient is that of the whole model in one process.

use super::swarm::{FIRST, Swarm, VOCABULARY, feed, relative_difference, small};
use skipstone_model::{CpuBackend, Role, StageBackend, StageLayout, StageSpec, initial_parameters};
use skipstone_protocol::End;
use skipstone_types::{Microbatch, StageId};
use skipstone_worlds::config::RunConfig;

/// Gradient of iteration 0 and its loss, by the whole model at once.
fn whole_model(config: &RunConfig) -> (StageLayout, Vec<f32>, f64) {
    let shape = config.shape(VOCABULARY).unwrap();
    let (batch, context) = (shape.batches.batch, shape.batches.context);
    let layers = 0..shape.model.num_hidden_layers;
    let spec = StageSpec { role: Role::Origin, layers, batch, context };
    let layout = StageLayout::of(&shape.model, &spec);
    let mut backend = CpuBackend::new(&shape.model, spec, 1).unwrap();
    let parameters = initial_parameters(&shape.model, &layout, config.seed);
    let mut sum = vec![0.0; layout.len()];
    let mut loss = 0.0;
    for microbatch in 0..config.microbatches {
        let (inputs, targets) = feed(config).batch(FIRST, Microbatch(microbatch)).unwrap();
        let (x, saved) = backend.embed(&parameters, &inputs).unwrap();
        let out = backend.loss(&parameters, &x, &targets, Some(&mut sum), 1.0).unwrap();
        loss += out.loss_sum;
        backend.embed_backward(&parameters, saved, &out.dx, Some(&mut sum)).unwrap();
    }
    let tokens = (config.microbatches as usize * batch * context) as f32;
    sum.iter_mut().for_each(|value| *value /= tokens);
    (layout, sum, loss)
}

fn agrees_with_whole_model(config: &RunConfig) {
    let dir = tempfile::tempdir().unwrap();
    let swarm = Swarm::new(config, None, dir.path().to_owned()).run();
    assert_eq!(swarm.end, Some(End::Done));
    let (whole, gradient, loss) = whole_model(config);
    let records = swarm.records();
    let record = records[0];
    assert!((record.loss_sum / loss - 1.0).abs() < 1e-6, "{} {loss}", record.loss_sum);
    let shape = config.shape(VOCABULARY).unwrap();
    for part in &record.stages {
        let layout = StageLayout::of(&shape.model, &shape.stage_spec(StageId(part.stage.0)));
        let got = &swarm.gradients[&part.gradient];
        for tensor in layout.tensors() {
            let want = &gradient[whole.tensor(&tensor.name).unwrap().range()];
            let difference = relative_difference(&got[tensor.range()], want);
            assert!(difference <= 2e-6, "{} of {}: {difference}", tensor.name, part.stage);
        }
    }
}

#[test]
fn a_swarm_s_gradient_is_the_whole_model_s() {
    agrees_with_whole_model(&small(2, 0, 1));
    agrees_with_whole_model(&small(3, 1, 1));
    agrees_with_whole_model(&small(2, 0, 3));
}

#[test]
fn nothing_is_left_behind_and_learning_happens() {
    let config = RunConfig { steps: 30, skip: 0.34, lr: 1e-2, ..small(3, 0, 2) };
    let dir = tempfile::tempdir().unwrap();
    let swarm = Swarm::new(&config, None, dir.path().to_owned()).run();
    let records = swarm.records();
    assert_eq!(records.len(), 30);
    assert!(records.iter().all(|record| record.paths.iter().all(|path| path.0.len() == 3)));
    let loss = |index: usize| records[index].loss_sum / records[index].tokens as f64;
    assert!(loss(29) < loss(0) - 0.3, "{} {}", loss(0), loss(29));
    // A state, a sum, a reduced gradient: what an idle node may hold does not grow with the iterations.
    assert!(swarm.tensors_max() <= 8, "{}", swarm.tensors_max());
}

/// A reduced part is shorter than any tensor of the backend: once, the backend kept one more for each iteration.
#[test]
fn buffers_for_reuse_do_not_grow_with_the_iterations() {
    let idle = |steps| {
        let config = RunConfig { steps, ..small(2, 0, 2) };
        let dir = tempfile::tempdir().unwrap();
        Swarm::new(&config, None, dir.path().to_owned()).run().idle_bytes_max()
    };
    let early = idle(5);
    assert!(early > 0);
    assert_eq!(idle(25), early);
}
