//! Text, token by token.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::backend::{Positions, StageBackend};
use crate::cpu::{CpuBackend, KvCache};
use crate::error::{ModelError, Result};
use crate::layout::StageSpec;
use crate::pool::ComputePool;
use crate::whole::{WholeModel, WholeStage};

/// Rows of a prompt that are computed at once.
const PREFILL: usize = 256;

/// How text is made.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// Most tokens to make.
    pub max_tokens: usize,
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Only the likeliest so many tokens; 0 = all.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability; 1 = all.
    pub top_p: f64,
    /// Seeds the draws, and the choice of stages that are skipped.
    pub seed: u64,
    /// Tokens that end the text.
    pub stop: Vec<u32>,
    /// Share of the stages that is skipped; which ones is drawn once for the whole text.
    pub skip: f64,
    /// Compute threads.
    pub threads: usize,
}

impl Default for GenerateOptions {
    /// 128 tokens at temperature 0.8 and top-p 0.95, seed 0, on one thread.
    fn default() -> Self {
        Self {
            max_tokens: 128,
            temperature: 0.8,
            top_k: 0,
            top_p: 0.95,
            seed: 0,
            stop: Vec::new(),
            skip: 0.0,
            threads: 1,
        }
    }
}

/// Tokens that were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The tokens after the prompt, without the one that ended the text.
    pub tokens: Vec<u32>,
    /// Whether a stop token ended it, rather than the bound on its length.
    pub stopped: bool,
    /// Relay stages that were visited, counted from 1.
    pub visited: Vec<usize>,
}

impl GenerateOptions {
    fn check(&self) -> Result<()> {
        let bad = |why: String| Err(ModelError::Spec(why));
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return bad(format!("temperature {} is not a number from 0 up; try 0.8", self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return bad(format!("top-p {} is not above 0 and at most 1; try 0.95", self.top_p));
        }
        Ok(())
    }
}

/// Goes on after `prompt`, and hands over each token as it is made. The same model, prompt and options give the
/// same tokens on one machine, whatever the number of threads.
///
/// When the text grows past the model's context, the older half of it is forgotten.
///
/// # Errors
/// When the prompt is empty or holds tokens outside the vocabulary, or an option is out of range.
pub fn generate(
    model: &WholeModel,
    prompt: &[u32],
    options: &GenerateOptions,
    mut on_token: impl FnMut(u32),
) -> Result<Generated> {
    options.check()?;
    if prompt.is_empty() {
        return Err(ModelError::Spec(
            "the prompt is empty; give at least one token to go on from".to_owned(),
        ));
    }
    check_tokens(model, prompt)?;
    let kept = kept_stages(model, options.skip, &mut draws(options.seed, "stages"))?;
    let visited: Vec<usize> = (1..=kept.len()).filter(|s| kept[s - 1]).collect();
    let pool = ComputePool::new(options.threads)?;
    let context = model.config().max_position_embeddings;
    let capacity = prompt.len().saturating_add(options.max_tokens).min(context);
    let mut session = Session::new(model, &kept, capacity, &pool)?;
    let mut rng = draws(options.seed, "tokens");
    let mut text = prompt.to_vec();
    let mut tokens = Vec::new();
    let mut seen = 0;
    while tokens.len() < options.max_tokens {
        if session.position() + text.len() - seen > capacity {
            session.restart();
            seen = text.len() - (context / 2).clamp(1, text.len());
        }
        let logits = session.advance(&text[seen..])?;
        seen = text.len();
        let token = sample(logits, options, &mut rng);
        if options.stop.contains(&token) {
            return Ok(Generated { tokens, stopped: true, visited });
        }
        on_token(token);
        tokens.push(token);
        text.push(token);
    }
    Ok(Generated { tokens, stopped: false, visited })
}

pub(crate) fn check_tokens(model: &WholeModel, tokens: &[u32]) -> Result<()> {
    let vocab = model.config().vocab_size;
    match tokens.iter().position(|&token| token as usize >= vocab) {
        Some(position) => Err(ModelError::Token { token: tokens[position], position, vocab }),
        None => Ok(()),
    }
}

/// A stream of draws named by a seed and a purpose.
pub(crate) fn draws(seed: u64, purpose: &str) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new_derive_key("skipstone 2026 generation and evaluation");
    hasher.update(&seed.to_le_bytes()).update(purpose.as_bytes());
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

/// Which relay stages a path of this skip ratio visits: the first of a random order, so that with the same draws a
/// larger ratio visits a subset of a smaller one's.
pub(crate) fn kept_stages(model: &WholeModel, skip: f64, rng: &mut ChaCha8Rng) -> Result<Vec<bool>> {
    let mut order: Vec<usize> = (0..model.relay_stages()).collect();
    for i in (1..order.len()).rev() {
        let j = ((u128::from(rng.next_u64()) * (i as u128 + 1)) >> 64) as usize;
        order.swap(i, j);
    }
    let mut kept = vec![false; order.len()];
    for &stage in order.iter().take(model.relays_visited(skip)?) {
        kept[stage] = true;
    }
    Ok(kept)
}

/// A text in the making. One backend serves all relay stages, which have equal shapes.
struct Session<'m> {
    model: &'m WholeModel,
    origin: (CpuBackend, KvCache),
    relay: Option<CpuBackend>,
    /// The relay stages that are visited.
    visited: Vec<(&'m WholeStage, KvCache)>,
}

impl<'m> Session<'m> {
    fn new(model: &'m WholeModel, kept: &[bool], capacity: usize, pool: &ComputePool) -> Result<Self> {
        let backend = |stage: &WholeStage| {
            let spec = StageSpec { role: stage.role, layers: stage.layers.clone(), batch: 1, context: 1 };
            CpuBackend::with_pool(model.config(), spec, pool.clone())
        };
        let origin = backend(model.origin())?;
        let cache = origin.new_cache(1, capacity);
        let relay = model.relays().first().map(backend).transpose()?;
        let visited = relay.iter().flat_map(|relay| {
            let kept = model.relays().iter().zip(kept).filter(|(_, kept)| **kept);
            kept.map(|(stage, _)| (stage, relay.new_cache(1, capacity)))
        });
        Ok(Self { model, visited: visited.collect(), relay, origin: (origin, cache) })
    }

    /// Tokens seen.
    fn position(&self) -> usize {
        self.origin.1.len()
    }

    /// Forgets all tokens.
    fn restart(&mut self) {
        self.origin.1.truncate(0);
        self.visited.iter_mut().for_each(|(_, cache)| cache.truncate(0));
    }

    /// Takes more tokens in, and gives the logits after the last.
    fn advance(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let params = &self.model.origin().params;
        let (origin, cache) = &mut self.origin;
        let mut x = Vec::new();
        for tokens in tokens.chunks(PREFILL) {
            x = origin.infer_embed_cached(params, tokens, cache)?;
            if let Some(relay) = &mut self.relay {
                for (stage, cache) in &mut self.visited {
                    let y = relay.infer_cached(&stage.params, &x, cache)?;
                    relay.recycle(std::mem::replace(&mut x, y));
                }
            }
        }
        let last = x.len().saturating_sub(self.model.config().hidden_size);
        origin.logits(params, &x[last..], Positions::Last)
    }
}

/// Draws a token; ties go to the lower one.
fn sample(logits: Vec<f32>, options: &GenerateOptions, rng: &mut ChaCha8Rng) -> u32 {
    let draw = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let mut order: Vec<(f32, u32)> = logits.into_iter().zip(0..).collect();
    let likeliest = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if options.temperature == 0.0 {
        return order.iter().min_by(|a, b| likeliest(a, b)).map_or(0, |&(_, token)| token);
    }
    if options.top_k > 0 && options.top_k < order.len() {
        order.select_nth_unstable_by(options.top_k - 1, likeliest);
        order.truncate(options.top_k);
    }
    order.sort_unstable_by(likeliest);
    let best = f64::from(order.first().map_or(0.0, |&(logit, _)| logit));
    let weights: Vec<f64> =
        order.iter().map(|&(logit, _)| ((f64::from(logit) - best) / options.temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut mass = 0.0;
    let nucleus = weights
        .iter()
        .take_while(|&&w| {
            let before = mass;
            mass += w;
            before < options.top_p * total
        })
        .count();
    let target = draw * weights[..nucleus].iter().sum::<f64>();
    let mut sum = 0.0;
    for (&(_, token), w) in order[..nucleus].iter().zip(&weights) {
        sum += w;
        if target < sum {
            return token;
        }
    }
    order[nucleus.max(1) - 1].1
}
