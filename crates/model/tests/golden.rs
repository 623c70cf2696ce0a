//! Values, gradients and losses against PyTorch's (golden/make_golden.py).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use safetensors::SafeTensors;
use skipstone_model::{
    CpuBackend, IGNORE, LlamaConfig, OptimizerStep, Positions, Role, StageBackend, StageLayout, StageSpec,
    clip_factor,
};

struct Golden {
    bytes: Vec<u8>,
    config: LlamaConfig,
    batch: usize,
    context: usize,
}

impl Golden {
    fn load(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{name}.safetensors"));
        let bytes = std::fs::read(path).unwrap();
        let (_, meta) = SafeTensors::read_metadata(&bytes).unwrap();
        let meta = meta.metadata().clone().unwrap();
        let config = serde_json::from_str(&meta["config"]).unwrap();
        let (batch, context) = (meta["batch"].parse().unwrap(), meta["context"].parse().unwrap());
        Self { bytes, config, batch, context }
    }

    fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.bytes).unwrap().tensor(name).is_ok()
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let data = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")).data().to_vec();
        data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// Tokens; −100 becomes [`IGNORE`].
    fn u32(&self, name: &str) -> Vec<u32> {
        self.f32(name).iter().map(|x| x.to_bits()).map(|t| if t > 1 << 30 { IGNORE } else { t }).collect()
    }

    /// The flat buffer of a stage from tensors named as in Hugging Face, fused ones put together.
    fn flat(&self, layout: &StageLayout, prefix: &str) -> Vec<f32> {
        let mut out = Vec::new();
        for t in layout.tensors() {
            assert_eq!(out.len(), t.offset);
            let parts: &[&str] = match t.name.as_str() {
                n if n.contains("qkv_proj") => &["q_proj", "k_proj", "v_proj"],
                n if n.contains("gate_up_proj") => &["gate_proj", "up_proj"],
                _ => &[""],
            };
            for part in parts {
                let name = t.name.replace("qkv_proj", part).replace("gate_up_proj", part);
                let name = if self.has(&format!("{prefix}{name}")) { name } else { t.name.clone() };
                out.extend(self.f32(&format!("{prefix}{name}")));
            }
        }
        assert_eq!(out.len(), layout.len());
        out
    }

    fn spec(&self, role: Role) -> StageSpec {
        StageSpec { role, layers: 0..2, batch: self.batch, context: self.context }
    }
}

/// ‖a − b‖ / ‖b‖.
fn error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let diff: f64 = a.iter().zip(b).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum();
    let norm: f64 = b.iter().map(|y| f64::from(*y).powi(2)).sum();
    (diff / norm).sqrt()
}

fn close(what: &str, a: &[f32], b: &[f32]) {
    let e = error(a, b);
    assert!(e < 1e-5, "{what}: relative error {e:.2e}");
}

fn close_by_tensor(layout: &StageLayout, got: &[f32], want: &[f32]) {
    for t in layout.tensors() {
        close(&t.name, &got[t.range()], &want[t.range()]);
    }
}

const CASES: [&str; 3] = ["mha", "gqa", "tied"];

#[test]
fn relay_values_and_gradients() {
    for case in CASES {
        let g = Golden::load(case);
        let mut stage = CpuBackend::new(&g.config, g.spec(Role::Relay), 2).unwrap();
        let layout = stage.layout().clone();
        let params = g.flat(&layout, "w.");
        let (y, saved) = stage.forward(&params, &g.f32("x")).unwrap();
        close(case, &y, &g.f32("y"));
        assert_eq!(stage.infer(&params, &g.f32("x")).unwrap(), y);
        let mut grads = vec![0.0; layout.len()];
        let dx = stage.backward(&params, saved, &g.f32("dy"), Some(&mut grads)).unwrap();
        close(case, &dx, &g.f32("dx"));
        close_by_tensor(&layout, &grads, &g.flat(&layout, "relay."));

        let (_, saved) = stage.forward(&params, &g.f32("x")).unwrap();
        assert_eq!(stage.backward(&params, saved, &g.f32("dy"), None).unwrap(), dx);
    }
}

#[test]
fn origin_loss_logits_and_gradients() {
    for case in CASES {
        let g = Golden::load(case);
        let mut stage = CpuBackend::new(&g.config, g.spec(Role::Origin), 1).unwrap();
        let layout = stage.layout().clone();
        let params = g.flat(&layout, "w.");
        let (tokens, targets) = (g.u32("tokens"), g.u32("targets"));
        assert_eq!(targets.iter().filter(|&&t| t == IGNORE).count(), 1);
        let (y, saved) = stage.embed(&params, &tokens).unwrap();
        let logits = stage.logits(&params, &y, Positions::All).unwrap();
        close(case, &logits, &g.f32("logits"));
        let last = stage.logits(&params, &y, Positions::Last).unwrap();
        let (v, t) = (g.config.vocab_size, g.context);
        for b in 0..g.batch {
            let want = &logits[(b * t + t - 1) * v..][..v];
            assert!(error(&last[b * v..][..v], want) < 1e-6);
        }
        let mut grads = vec![0.0; layout.len()];
        let out = stage.loss(&params, &y, &targets, Some(&mut grads), 0.5).unwrap();
        assert_eq!(out.tokens, targets.len() - 1);
        close(case, &[out.loss_sum as f32], &g.f32("loss"));
        assert_eq!(stage.evaluate(&params, &y, &targets).unwrap(), (out.loss_sum, out.tokens));
        stage.embed_backward(&params, saved, &out.dx, Some(&mut grads)).unwrap();
        close_by_tensor(&layout, &grads, &g.flat(&layout, "origin."));
    }
}

#[test]
fn ten_training_steps() {
    let g = Golden::load("training");
    let mut stage = CpuBackend::new(&g.config, g.spec(Role::Origin), 2).unwrap();
    let layout = stage.layout().clone();
    let mut params = g.flat(&layout, "w.");
    let (mut m, mut v) = (vec![0.0; layout.len()], vec![0.0; layout.len()]);
    let tokens = g.u32("tokens");
    let row = g.context + 1;
    let (losses, norms) = (g.f32("losses"), g.f32("norms"));
    for (step, batch) in tokens.chunks_exact(g.batch * row).enumerate() {
        let input: Vec<u32> = batch.chunks_exact(row).flat_map(|r| &r[..row - 1]).copied().collect();
        let target: Vec<u32> = batch.chunks_exact(row).flat_map(|r| &r[1..]).copied().collect();
        let mut grads = vec![0.0; layout.len()];
        let (y, saved) = stage.embed(&params, &input).unwrap();
        let scale = 1.0 / target.len() as f32;
        let out = stage.loss(&params, &y, &target, Some(&mut grads), scale).unwrap();
        stage.embed_backward(&params, saved, &out.dx, Some(&mut grads)).unwrap();
        let norm = stage.grad_norm(&grads);
        let loss = (out.loss_sum / out.tokens as f64) as f32;
        assert!((loss / losses[step] - 1.0).abs() < 1e-5, "step {step}: {loss} {}", losses[step]);
        assert!((norm / f64::from(norms[step]) - 1.0).abs() < 1e-4, "step {step}: {norm} {}", norms[step]);
        assert!(norms[step] > 1.0, "the golden run must clip");
        let options = OptimizerStep {
            step: step as u64 + 1,
            learning_rate: 3e-3,
            beta2: 0.95,
            weight_decay: 0.1,
            clip_factor: clip_factor(norm, 1.0) as f32,
            ..OptimizerStep::default()
        };
        stage.optimizer_step(&mut params, &grads, &mut m, &mut v, &options).unwrap();
    }
    let end = g.flat(&layout, "end.");
    assert!(error(&params, &end) < 1e-4, "{}", error(&params, &end));
}
