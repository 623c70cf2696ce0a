//! What every backend must keep, whatever the device: the suite is generic over [`StageBackend`].

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use skipstone_model::{
    CpuBackend, IGNORE, LlamaConfig, ModelError, Positions, Role, StageBackend, StageLayout, StageSpec,
    initial_parameters, memory_estimate,
};

fn noise(n: usize, seed: f64) -> Vec<f32> {
    (0..n).map(|i| ((i as f64 * 0.618_033_988_7 + seed).fract() * 2.0 - 1.0) as f32).collect()
}

fn config(heads: usize, kv_heads: usize, head_dim: usize, width: usize, ffn: usize) -> LlamaConfig {
    LlamaConfig {
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim: Some(head_dim),
        intermediate_size: ffn,
        ..LlamaConfig::new(23, width, 1, 2, 64)
    }
}

/// Weights large enough that attention and gates are far from linear.
fn parameters(config: &LlamaConfig, layout: &StageLayout) -> Vec<f32> {
    let mut params = initial_parameters(config, layout, 5);
    for t in layout.tensors() {
        params[t.range()].iter_mut().for_each(|x| *x *= if t.decay { 8.0 } else { 0.9 });
    }
    params
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

/// a + k·b
fn shifted(a: &[f32], k: f32, b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(x, y)| x + k * y).collect()
}

/// The gradient along a direction against the central difference of values that are off by about `noise`.
/// The slope may be small by chance, so the error is measured by what a typical direction would show.
fn same_slope(what: &str, gradient: &[f32], along: &[f32], (up, down): (f64, f64), step: f32, noise: f64) {
    let (analytic, numeric) = (dot(gradient, along), (up - down) / (2.0 * f64::from(step)));
    let typical = (dot(gradient, gradient) * dot(along, along) / along.len() as f64).sqrt();
    let allowed = 0.02 * typical.max(analytic.abs()) + noise / f64::from(step);
    assert!(
        (analytic - numeric).abs() < allowed,
        "{what}: gradient {analytic}, difference {numeric} ± {allowed}"
    );
    assert!(typical > noise / f64::from(step), "{what}: nothing was tested");
}

fn relay_gradients(stage: &mut impl StageBackend) {
    let (config, layout, n) = (stage.config().clone(), stage.layout().clone(), stage.spec().tokens());
    let params = parameters(&config, &layout);
    let x = noise(n * config.hidden_size, 0.1);
    let dy = noise(n * config.hidden_size, 0.7);
    let (y, saved) = stage.forward(&params, &x).unwrap();
    let mut grads = vec![0.0; layout.len()];
    let dx = stage.backward(&params, saved, &dy, Some(&mut grads)).unwrap();
    let noise_of_sum = 5e-7 * y.iter().zip(&dy).map(|(y, d)| f64::from(y * d).powi(2)).sum::<f64>().sqrt();
    let mut value = |params: &[f32], x: &[f32]| dot(&stage.infer(params, x).unwrap(), &dy);
    let step = 2e-3;
    let along = noise(x.len(), 0.33);
    let (up, down) =
        (value(&params, &shifted(&x, step, &along)), value(&params, &shifted(&x, -step, &along)));
    same_slope("dx", &dx, &along, (up, down), step, noise_of_sum);
    for t in layout.tensors() {
        let mut along = vec![0.0; layout.len()];
        along[t.range()].copy_from_slice(&noise(t.len, 0.21));
        let (up, down) =
            (value(&shifted(&params, step, &along), &x), value(&shifted(&params, -step, &along), &x));
        same_slope(&t.name, &grads[t.range()], &along[t.range()], (up, down), step, noise_of_sum);
    }
}

fn origin_gradients(stage: &mut impl StageBackend) {
    let (config, layout, n) = (stage.config().clone(), stage.layout().clone(), stage.spec().tokens());
    let params = parameters(&config, &layout);
    let v = config.vocab_size as u32;
    let tokens: Vec<u32> = (0..n as u32).map(|i| i * 7 % v).collect();
    let targets: Vec<u32> = (0..n as u32).map(|i| if i % 5 == 3 { IGNORE } else { i * 11 % v }).collect();
    let (y, saved) = stage.embed(&params, &tokens).unwrap();
    assert_eq!(stage.infer_embed(&params, &tokens).unwrap(), y);
    let mut grads = vec![0.0; layout.len()];
    let out = stage.loss(&params, &y, &targets, Some(&mut grads), 2.0).unwrap();
    assert_eq!(out.tokens, targets.iter().filter(|&&t| t != IGNORE).count());
    stage.embed_backward(&params, saved, &out.dx, Some(&mut grads)).unwrap();
    // Loss from the logits, in f64.
    let logits = stage.logits(&params, &y, Positions::All).unwrap();
    let want: f64 = logits
        .chunks_exact(v as usize)
        .zip(&targets)
        .filter(|&(_, &t)| t != IGNORE)
        .map(|(row, &t)| {
            row.iter().map(|&l| f64::from(l).exp()).sum::<f64>().ln() - f64::from(row[t as usize])
        })
        .sum();
    assert!((out.loss_sum - want).abs() < 1e-4 * want.max(1.0), "{} {want}", out.loss_sum);
    let noise_of_sum = 1e-6 * (n as f64).sqrt();
    let mut value = |params: &[f32]| {
        let y = stage.infer_embed(params, &tokens).unwrap();
        2.0 * stage.evaluate(params, &y, &targets).unwrap().0
    };
    let step = 2e-3;
    for t in layout.tensors() {
        let mut along = vec![0.0; layout.len()];
        along[t.range()].copy_from_slice(&noise(t.len, 0.21));
        let (up, down) = (value(&shifted(&params, step, &along)), value(&shifted(&params, -step, &along)));
        same_slope(&t.name, &grads[t.range()], &along[t.range()], (up, down), step, noise_of_sum);
    }
}

/// Microbatches in flight do not disturb each other, gradients add up, and dx needs no gradient buffer.
fn several_in_flight(stage: &mut impl StageBackend) {
    let (config, layout, n) = (stage.config().clone(), stage.layout().clone(), stage.spec().tokens());
    let params = parameters(&config, &layout);
    let size = n * config.hidden_size;
    let inputs: Vec<_> =
        (0..3).map(|i| (noise(size, f64::from(i) * 0.17), noise(size, f64::from(i) * 0.29))).collect();
    let mut one_by_one = vec![0.0; layout.len()];
    let mut expected = Vec::new();
    for (x, dy) in &inputs {
        let (y, saved) = stage.forward(&params, x).unwrap();
        let dx = stage.backward(&params, saved, dy, Some(&mut one_by_one)).unwrap();
        expected.push((y.clone(), dx.clone()));
        stage.recycle(y); // its buffer comes back with other values
        stage.recycle(dx);
    }
    let mut grads = vec![0.0; layout.len()];
    let mut saved = Vec::new();
    for ((x, _), (y, _)) in inputs.iter().zip(&expected) {
        let (again, s) = stage.forward(&params, x).unwrap();
        assert_eq!(&again, y);
        saved.push(s);
    }
    let (_, dropped) = stage.forward(&params, &inputs[2].0).unwrap();
    stage.discard(dropped);
    for (s, ((_, dy), (_, dx))) in saved.into_iter().zip(inputs.iter().zip(&expected)) {
        assert_eq!(&stage.backward(&params, s, dy, Some(&mut grads)).unwrap(), dx);
    }
    assert_eq!(grads, one_by_one);
    let (_, s) = stage.forward(&params, &inputs[1].0).unwrap();
    assert_eq!(stage.backward(&params, s, &inputs[1].1, None).unwrap(), expected[1].1);
}

/// A token does not see those after it, nor other sequences.
fn causal(stage: &mut impl StageBackend) {
    let (config, layout) = (stage.config().clone(), stage.layout().clone());
    let params = parameters(&config, &layout);
    let (b, t, d) = (stage.spec().batch, stage.spec().context, config.hidden_size);
    let mut x = noise(b * t * d, 0.4);
    let before = stage.infer(&params, &x).unwrap();
    let changed = t / 2;
    x[changed * d..(changed + 1) * d].fill(0.3); // in the first sequence
    let after = stage.infer(&params, &x).unwrap();
    assert_eq!(before[..changed * d], after[..changed * d]);
    assert_ne!(before[changed * d..t * d], after[changed * d..t * d]);
    assert_eq!(before[t * d..], after[t * d..]);
}

fn cpu(config: &LlamaConfig, role: Role, batch: usize, context: usize, threads: usize) -> CpuBackend {
    CpuBackend::new(config, StageSpec { role, layers: 0..2, batch, context }, threads).unwrap()
}

#[test]
fn cpu_conforms() {
    for (config, batch, context) in
        [(config(2, 2, 8, 16, 24), 2, 13), (config(4, 2, 6, 20, 36), 1, 61), (config(3, 1, 2, 10, 7), 3, 1)]
    {
        relay_gradients(&mut cpu(&config, Role::Relay, batch, context, 2));
        several_in_flight(&mut cpu(&config, Role::Relay, batch, context, 2));
        causal(&mut cpu(&config, Role::Relay, batch, context, 1));
        for tie in [false, true] {
            let config = LlamaConfig { tie_word_embeddings: tie, ..config.clone() };
            origin_gradients(&mut cpu(&config, Role::Origin, batch, context, 2));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn gradients_of_odd_shapes(
        (kv, group, half) in (1usize..4, 1usize..4, 1usize..10),
        (width, ffn) in (4usize..40, 1usize..70),
        (batch, context) in (1usize..4, 1usize..60),
    ) {
        let config = config(kv * group, kv, 2 * half, width, ffn);
        relay_gradients(&mut cpu(&config, Role::Relay, batch, context, 2));
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let mut config = config(4, 2, 32, 128, 200);
    config.vocab_size = 1000;
    let (batch, context) = (3, 200);
    let n = batch * context;
    let run = |threads: usize| {
        let mut stage = cpu(&config, Role::Origin, batch, context, threads);
        let params = parameters(&config, stage.layout());
        let tokens: Vec<u32> = (0..n as u32).map(|i| i * 37 % 1000).collect();
        let mut grads = vec![0.0; params.len()];
        let (y, saved) = stage.embed(&params, &tokens).unwrap();
        let out = stage.loss(&params, &y, &tokens, Some(&mut grads), 1.0 / n as f32).unwrap();
        stage.embed_backward(&params, saved, &out.dx, Some(&mut grads)).unwrap();
        let logits = stage.logits(&params, &y, Positions::Last).unwrap();
        (y, out, stage.grad_norm(&grads), grads, logits)
    };
    let one = run(1);
    assert!(one.2.is_finite() && one.2 > 0.0);
    for threads in [2, 3, 7] {
        assert!(run(threads) == one, "{threads} threads differ");
    }
}

#[test]
fn memory_is_as_estimated_and_does_not_grow() {
    for (role, layers) in [(Role::Relay, 0..2), (Role::Origin, 0..1), (Role::Origin, 0..0)] {
        let config = config(4, 2, 10, 24, 30);
        let spec = StageSpec { role, layers, batch: 2, context: 50 };
        let estimate = memory_estimate(&config, &spec).unwrap();
        let mut stage = CpuBackend::new(&config, spec, 2).unwrap();
        let params = parameters(&config, stage.layout());
        assert_eq!(estimate.parameters, 4 * params.len() as u64);
        let mut grads = vec![0.0; params.len()];
        for _ in 0..3 {
            let saved_bytes;
            if role == Role::Relay {
                let (y, saved) = stage.forward(&params, &noise(100 * 24, 0.1)).unwrap();
                saved_bytes = saved.bytes();
                let dx = stage.backward(&params, saved, &y, Some(&mut grads)).unwrap();
                stage.recycle(y);
                stage.recycle(dx);
            } else {
                let tokens = vec![3; 100];
                let (y, saved) = stage.embed(&params, &tokens).unwrap();
                saved_bytes = saved.bytes();
                let out = stage.loss(&params, &y, &tokens, Some(&mut grads), 1.0).unwrap();
                stage.embed_backward(&params, saved, &out.dx, Some(&mut grads)).unwrap();
                stage.recycle(y);
                stage.recycle(out.dx);
            }
            assert_eq!(saved_bytes, estimate.saved_per_slot);
            let tokens = if role == Role::Origin { 400 } else { 0 }; // a `Vec` of its own
            let buffers = saved_bytes - tokens + estimate.workspace + 2 * estimate.boundary;
            assert_eq!(stage.idle_bytes(), buffers, "{role:?} {:?}", stage.spec());
        }
        stage.trim();
        assert_eq!(stage.idle_bytes(), 0);
    }
}

#[test]
fn cached_inference_agrees_with_the_whole() {
    let config = config(6, 2, 8, 20, 33);
    let (batch, context) = (2, 70);
    let mut origin = cpu(&config, Role::Origin, batch, context, 2);
    let mut relay = cpu(&config, Role::Relay, batch, context, 2);
    let (po, pr) = (parameters(&config, origin.layout()), parameters(&config, relay.layout()));
    let tokens: Vec<u32> = (0..batch as u32 * context as u32).map(|i| i * 5 % 23).collect();
    let y = origin.infer_embed(&po, &tokens).unwrap();
    let whole = relay.infer(&pr, &y).unwrap();
    let want = origin.logits(&po, &whole, Positions::All).unwrap();
    let (mut co, mut cr) = (origin.new_cache(batch, context), relay.new_cache(batch, context));
    let v = config.vocab_size;
    let mut seen = 0;
    for new in [50, 1, 1, 5, 1, 12] {
        let part: Vec<u32> =
            tokens.chunks_exact(context).flat_map(|row| &row[seen..seen + new]).copied().collect();
        let y = origin.infer_embed_cached(&po, &part, &mut co).unwrap();
        let y = relay.infer_cached(&pr, &y, &mut cr).unwrap();
        let logits = origin.logits(&po, &y, Positions::Last).unwrap();
        seen += new;
        assert_eq!((co.len(), cr.len()), (seen, seen));
        for b in 0..batch {
            let want = &want[(b * context + seen - 1) * v..][..v];
            for (a, b) in logits[b * v..][..v].iter().zip(want) {
                assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "{a} {b}");
            }
        }
    }
    assert!(origin.infer_embed_cached(&po, &[0, 0], &mut co).is_err(), "the cache is full");
    co.truncate(60);
    assert!(origin.infer_embed_cached(&po, &[0, 0, 0], &mut co).is_err(), "not two sequences");
    assert!(origin.infer_embed_cached(&po, &[0, 0], &mut co).is_ok());
    assert_eq!(co.len(), 61);
}

#[test]
fn mistakes_are_errors() {
    let config = config(2, 2, 8, 16, 24);
    let mut origin = cpu(&config, Role::Origin, 1, 4, 1);
    let mut relay = cpu(&config, Role::Relay, 1, 4, 1);
    let (po, pr) = (parameters(&config, origin.layout()), parameters(&config, relay.layout()));
    let x = noise(4 * 16, 0.0);
    assert!(matches!(origin.forward(&po, &x), Err(ModelError::Role(_))));
    assert!(matches!(relay.embed(&pr, &[0; 4]), Err(ModelError::Role(_))));
    assert!(matches!(relay.loss(&pr, &x, &[0; 4], None, 1.0), Err(ModelError::Role(_))));
    assert!(matches!(relay.forward(&pr, &x[1..]), Err(ModelError::Length { .. })));
    assert!(matches!(relay.forward(&po, &x), Err(ModelError::Length { .. })));
    assert!(matches!(
        origin.embed(&po, &[0, 1, 23, 0]),
        Err(ModelError::Token { position: 2, token: 23, .. })
    ));
    assert!(matches!(origin.embed(&po, &[0, IGNORE, 0, 0]), Err(ModelError::Token { .. })));
    let (y, saved) = origin.embed(&po, &[0, 1, 2, 3]).unwrap();
    assert!(matches!(origin.loss(&po, &y, &[0, 1, 2, 99], None, 1.0), Err(ModelError::Token { .. })));
    let mut short = vec![0.0; 3];
    assert!(matches!(
        origin.embed_backward(&po, saved, &y, Some(&mut short)),
        Err(ModelError::Length { what: "gradients", .. })
    ));
    let foreign = skipstone_model::Saved::new("not activations", 0);
    assert!(matches!(relay.backward(&pr, foreign, &x, None), Err(ModelError::ForeignSaved)));
    assert!(CpuBackend::new(&config, relay.spec().clone(), 0).is_err());
    relay.set_shape(2, 3).unwrap();
    assert_eq!(relay.infer(&pr, &noise(6 * 16, 0.2)).unwrap().len(), 6 * 16);
    assert!(relay.set_shape(0, 3).is_err());
}
