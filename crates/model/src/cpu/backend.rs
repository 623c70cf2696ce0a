//! [`CpuBackend`]: a stage on this machine's CPU.

use super::layer::{self, LayerSaved, LayerShape, linear};
use super::loss::{self, Gradients, IGNORE};
use super::matmul::Write;
use super::rope::RopeTable;
use super::sizes::{layer_shape, saved_bytes};
use super::{embedding, norm};
use crate::backend::{LossOut, Positions, Saved, StageBackend};
use crate::config::LlamaConfig;
use crate::error::{ModelError, Result, expect_len};
use crate::layout::{OriginRanges, Role, StageLayout, StageSpec};
use crate::optimizer::{self, OptimizerStep};
use crate::pool::{BufferPool, ComputePool};

/// Activations of one microbatch.
struct CpuSaved {
    tokens: Vec<u32>,
    shape: (usize, usize),
    layers: Vec<LayerSaved>,
}

/// A stage on the CPU. Results are bitwise the same for any number of threads.
pub struct CpuBackend {
    pub(super) config: LlamaConfig,
    spec: StageSpec,
    pub(super) layout: StageLayout,
    pub(super) rope: RopeTable,
    pub(super) threads: ComputePool,
    pub(super) buffers: BufferPool,
    losses: Vec<f64>,
}

impl CpuBackend {
    /// A backend with `threads` threads of its own.
    ///
    /// # Errors
    /// If configuration or stage are impossible, or the threads cannot be started.
    pub fn new(config: &LlamaConfig, spec: StageSpec, threads: usize) -> Result<Self> {
        spec.validate(config)?;
        Self::with_pool(config, spec, ComputePool::new(threads)?)
    }

    /// A backend on threads that it may share with others.
    ///
    /// # Errors
    /// If configuration or stage are impossible.
    pub fn with_pool(config: &LlamaConfig, spec: StageSpec, threads: ComputePool) -> Result<Self> {
        spec.validate(config)?;
        Ok(Self {
            layout: StageLayout::of(config, &spec),
            rope: RopeTable::new(config, spec.context),
            config: config.clone(),
            spec,
            threads,
            buffers: BufferPool::default(),
            losses: Vec::new(),
        })
    }

    /// The threads this backend computes on.
    pub fn pool(&self) -> &ComputePool {
        &self.threads
    }

    /// Bytes of buffers that wait for reuse.
    pub fn idle_bytes(&self) -> u64 {
        self.buffers.bytes()
    }

    /// Frees the buffers that wait for reuse.
    pub fn trim(&mut self) {
        self.buffers.clear();
    }

    pub(super) fn layer_shape(&self, shape: (usize, usize)) -> LayerShape {
        layer_shape(&self.config, shape)
    }

    fn shape(&self) -> (usize, usize) {
        (self.spec.batch, self.spec.context)
    }

    pub(super) fn check_params(&self, params: &[f32]) -> Result<()> {
        expect_len("parameters", params.len(), self.layout.len())
    }

    fn check_grads(&self, grads: Option<&[f32]>) -> Result<()> {
        grads.map_or(Ok(()), |g| expect_len("gradients", g.len(), self.layout.len()))
    }

    fn check_activation(&self, what: &'static str, x: &[f32]) -> Result<()> {
        expect_len(what, x.len(), self.spec.tokens() * self.config.hidden_size)
    }

    fn check_tokens(&self, what: &'static str, tokens: &[u32], ignore: bool) -> Result<()> {
        expect_len(what, tokens.len(), self.spec.tokens())?;
        self.check_vocabulary(tokens, ignore)
    }

    pub(super) fn check_vocabulary(&self, tokens: &[u32], ignore: bool) -> Result<()> {
        let vocab = self.config.vocab_size;
        match tokens.iter().position(|&t| t as usize >= vocab && !(ignore && t == IGNORE)) {
            Some(position) => Err(ModelError::Token { token: tokens[position], position, vocab }),
            None => Ok(()),
        }
    }

    pub(super) fn origin(&self) -> Result<OriginRanges> {
        self.layout
            .origin()
            .cloned()
            .ok_or(ModelError::Role("a relay stage has no embedding, head or loss; send this to an origin"))
    }

    pub(super) fn relay(&self) -> Result<()> {
        match self.spec.role {
            Role::Relay => Ok(()),
            Role::Origin => {
                Err(ModelError::Role("an origin starts from tokens; call embed instead of forward"))
            }
        }
    }

    /// Runs all layers on `x`; keeps what backward needs if `keep`.
    fn run_layers(&mut self, params: &[f32], mut x: Vec<f32>, keep: bool) -> (Vec<f32>, Vec<LayerSaved>) {
        let shape = self.layer_shape(self.shape());
        let mut layers = Vec::with_capacity(if keep { self.layout.layers().len() } else { 0 });
        let (rope, buffers, layout) = (&self.rope, &mut self.buffers, &self.layout);
        self.threads.install(|| {
            for at in layout.layers() {
                let (y, saved) = layer::forward(&shape, rope, params, at, x, None, buffers);
                if keep {
                    layers.push(saved);
                } else {
                    saved.recycle(buffers);
                }
                x = y;
            }
            (x, layers)
        })
    }

    fn start_embed(&mut self, params: &[f32], tokens: &[u32]) -> Result<Vec<f32>> {
        let at = self.origin()?;
        self.check_params(params)?;
        self.check_tokens("tokens", tokens, false)?;
        let d = self.config.hidden_size;
        let mut x = self.buffers.take(tokens.len() * d);
        self.threads.install(|| embedding::forward(&params[at.embedding], tokens, &mut x, d));
        Ok(x)
    }

    fn start_forward(&mut self, params: &[f32], x: &[f32]) -> Result<Vec<f32>> {
        self.relay()?;
        self.check_params(params)?;
        self.check_activation("x", x)?;
        let mut copy = self.buffers.take(x.len());
        copy.copy_from_slice(x);
        Ok(copy)
    }

    fn save(&self, tokens: Vec<u32>, layers: Vec<LayerSaved>) -> Saved {
        let bytes = saved_bytes(&self.config, &self.spec);
        Saved::new(CpuSaved { tokens, shape: self.shape(), layers }, bytes)
    }

    fn open(&self, saved: Saved) -> Result<Box<CpuSaved>> {
        saved
            .into_inner::<CpuSaved>()
            .filter(|s| s.layers.len() == self.layout.layers().len())
            .ok_or(ModelError::ForeignSaved)
    }

    /// Backward through all layers, last first; `d` becomes the gradient of the first layer's input.
    fn run_backward(
        &mut self,
        params: &[f32],
        shape: (usize, usize),
        layers: Vec<LayerSaved>,
        d: &mut [f32],
        mut grads: Option<&mut [f32]>,
    ) {
        let shape = self.layer_shape(shape);
        let (rope, buffers, layout) = (&self.rope, &mut self.buffers, &self.layout);
        self.threads.install(|| {
            for (at, saved) in layout.layers().iter().zip(layers).rev() {
                layer::backward(&shape, rope, params, at, saved, d, grads.as_deref_mut(), buffers);
            }
        });
    }

    /// Loss and, if `scale` is given, the gradient of x in `h`'s buffer; else that buffer is recycled.
    fn run_loss(
        &mut self,
        params: &[f32],
        x: &[f32],
        targets: &[u32],
        mut grads: Option<&mut [f32]>,
        scale: Option<f32>,
    ) -> Result<LossOut> {
        let at = self.origin()?;
        self.check_params(params)?;
        self.check_grads(grads.as_deref())?;
        self.check_activation("x", x)?;
        self.check_tokens("targets", targets, true)?;
        let (n, d, v) = (targets.len(), self.config.hidden_size, self.config.vocab_size);
        let mut h = self.buffers.take(n * d);
        let mut inv = self.buffers.take(n);
        let mut logits = self.buffers.take(loss::tile_rows(v, n) * v);
        let mut dx = self.buffers.take(if scale.is_some() { n * d } else { 0 });
        let mut partials = self.buffers.take(if scale.is_some() { norm::partials_len(n, d) } else { 0 });
        let mut losses = std::mem::take(&mut self.losses);
        losses.resize(n, 0.0);
        let (w, head) = (&params[at.final_norm.clone()], &params[at.head.clone()]);
        let eps = self.config.rms_norm_eps;
        let (loss_sum, tokens) = self.threads.install(|| {
            norm::forward(x, w, eps, &mut h, &mut inv);
            let gradients = scale.map(|scale| Gradients {
                head: grads.as_deref_mut().map(|g| &mut g[at.head.clone()]),
                scale,
            });
            let sums =
                loss::cross_entropy(&mut h, head, targets, (d, v), gradients, &mut logits, &mut losses);
            if scale.is_some() {
                dx.fill(0.0);
                let dw = grads.map(|g| &mut g[at.final_norm.clone()]);
                norm::backward(x, w, &inv, &mut h, &mut dx, dw, &mut partials);
            }
            sums
        });
        self.losses = losses;
        for buffer in [h, inv, logits, partials] {
            self.buffers.give(buffer);
        }
        Ok(LossOut { dx, loss_sum, tokens })
    }
}

impl StageBackend for CpuBackend {
    fn config(&self) -> &LlamaConfig {
        &self.config
    }
    fn spec(&self) -> &StageSpec {
        &self.spec
    }
    fn layout(&self) -> &StageLayout {
        &self.layout
    }

    fn set_shape(&mut self, batch: usize, context: usize) -> Result<()> {
        let spec = StageSpec { batch, context, ..self.spec.clone() };
        if spec != self.spec {
            spec.validate(&self.config)?;
            self.rope.grow(context);
            self.buffers.clear();
            self.spec = spec;
        }
        Ok(())
    }

    fn embed(&mut self, params: &[f32], tokens: &[u32]) -> Result<(Vec<f32>, Saved)> {
        let x = self.start_embed(params, tokens)?;
        let (y, layers) = self.run_layers(params, x, true);
        let saved = self.save(tokens.to_vec(), layers);
        Ok((y, saved))
    }

    fn forward(&mut self, params: &[f32], x: &[f32]) -> Result<(Vec<f32>, Saved)> {
        let x = self.start_forward(params, x)?;
        let (y, layers) = self.run_layers(params, x, true);
        let saved = self.save(Vec::new(), layers);
        Ok((y, saved))
    }

    fn infer_embed(&mut self, params: &[f32], tokens: &[u32]) -> Result<Vec<f32>> {
        let x = self.start_embed(params, tokens)?;
        Ok(self.run_layers(params, x, false).0)
    }

    fn infer(&mut self, params: &[f32], x: &[f32]) -> Result<Vec<f32>> {
        let x = self.start_forward(params, x)?;
        Ok(self.run_layers(params, x, false).0)
    }

    fn loss(
        &mut self,
        params: &[f32],
        x: &[f32],
        targets: &[u32],
        grads: Option<&mut [f32]>,
        loss_scale: f32,
    ) -> Result<LossOut> {
        self.run_loss(params, x, targets, grads, Some(loss_scale))
    }

    fn evaluate(&mut self, params: &[f32], x: &[f32], targets: &[u32]) -> Result<(f64, usize)> {
        let out = self.run_loss(params, x, targets, None, None)?;
        Ok((out.loss_sum, out.tokens))
    }

    fn logits(&mut self, params: &[f32], x: &[f32], positions: Positions) -> Result<Vec<f32>> {
        let at = self.origin()?;
        self.check_params(params)?;
        let (d, v, b) = (self.config.hidden_size, self.config.vocab_size, self.spec.batch);
        let t = (x.len() / (b * d)).max(1); // not always the stage's own: see infer_cached
        expect_len("x", x.len(), b * t * d)?;
        let rows: Vec<f32> = match positions {
            Positions::All => Vec::new(),
            Positions::Last => x.chunks_exact(t * d).flat_map(|s| &s[(t - 1) * d..]).copied().collect(),
        };
        let x = if positions == Positions::All { x } else { &rows };
        let n = x.len() / d;
        let (mut h, mut inv) = (self.buffers.take(n * d), self.buffers.take(n));
        let mut logits = self.buffers.take(n * v);
        let eps = self.config.rms_norm_eps;
        self.threads.install(|| {
            norm::forward(x, &params[at.final_norm], eps, &mut h, &mut inv);
            linear(&mut logits, &h, &params[at.head], (n, v, d), Write::Set);
        });
        self.buffers.give(h);
        self.buffers.give(inv);
        Ok(logits)
    }

    fn backward(
        &mut self,
        params: &[f32],
        saved: Saved,
        dy: &[f32],
        grads: Option<&mut [f32]>,
    ) -> Result<Vec<f32>> {
        self.relay()?;
        self.check_params(params)?;
        self.check_grads(grads.as_deref())?;
        let saved = self.open(saved)?;
        expect_len("dy", dy.len(), saved.shape.0 * saved.shape.1 * self.config.hidden_size)?;
        let mut d = self.buffers.take(dy.len());
        d.copy_from_slice(dy);
        self.run_backward(params, saved.shape, saved.layers, &mut d, grads);
        Ok(d)
    }

    fn embed_backward(
        &mut self,
        params: &[f32],
        saved: Saved,
        dy: &[f32],
        grads: Option<&mut [f32]>,
    ) -> Result<()> {
        let at = self.origin()?;
        self.check_params(params)?;
        self.check_grads(grads.as_deref())?;
        let saved = self.open(saved)?;
        expect_len("dy", dy.len(), saved.shape.0 * saved.shape.1 * self.config.hidden_size)?;
        let Some(grads) = grads else {
            saved.layers.into_iter().for_each(|layer| layer.recycle(&mut self.buffers));
            return Ok(());
        };
        let mut d = self.buffers.take(dy.len());
        d.copy_from_slice(dy);
        self.run_backward(params, saved.shape, saved.layers, &mut d, Some(grads));
        embedding::backward(&mut grads[at.embedding], &saved.tokens, &d, self.config.hidden_size);
        self.buffers.give(d);
        Ok(())
    }

    fn discard(&mut self, saved: Saved) {
        if let Some(saved) = saved.into_inner::<CpuSaved>() {
            saved.layers.into_iter().for_each(|layer| layer.recycle(&mut self.buffers));
        }
    }

    fn recycle(&mut self, buffer: Vec<f32>) {
        self.buffers.give(buffer);
    }

    fn grad_norm(&mut self, grads: &[f32]) -> f64 {
        self.threads.install(|| optimizer::grad_norm(grads))
    }

    fn optimizer_step(
        &mut self,
        params: &mut [f32],
        grads: &[f32],
        m: &mut [f32],
        v: &mut [f32],
        step: &OptimizerStep,
    ) -> Result<()> {
        self.check_params(params)?;
        let layout = &self.layout;
        self.threads.install(|| optimizer::adamw_step(layout, params, grads, m, v, step))
    }
}
