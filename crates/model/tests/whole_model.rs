//! Evaluation and generation of whole models.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use skipstone_model::{
    CpuBackend, EvalOptions, GenerateOptions, LlamaConfig, OptimizerStep, Positions, Role, StageBackend,
    StageSpec, WholeModel, evaluate, generate,
};

fn config() -> LlamaConfig {
    LlamaConfig { num_key_value_heads: 2, ..LlamaConfig::new(23, 16, 4, 6, 32) }
}

fn model() -> WholeModel {
    let mut model = WholeModel::initial(config(), 5, 1, 7).unwrap();
    for x in model.stages_mut().iter_mut().flat_map(|s| &mut s.params) {
        *x *= if x.abs() < 0.5 { 12.0 } else { 1.0 };
    }
    model
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * i * 5 + i * 3) % 23) as u32).collect()
}

/// Logits after the last of `tokens`, by the whole model at once.
fn logits_at_once(model: &WholeModel, tokens: &[u32], visited: &[usize]) -> Vec<f32> {
    let backend = |index: usize| {
        let stage = &model.stages()[index];
        let spec =
            StageSpec { role: stage.role, layers: stage.layers.clone(), batch: 1, context: tokens.len() };
        CpuBackend::new(model.config(), spec, 1).unwrap()
    };
    let mut origin = backend(0);
    let mut x = origin.infer_embed(&model.origin().params, tokens).unwrap();
    for &stage in visited {
        x = backend(stage).infer(&model.stages()[stage].params, &x).unwrap();
    }
    origin.logits(&model.origin().params, &x, Positions::Last).unwrap()
}

fn greedy(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32
}

#[test]
fn generation_is_what_the_whole_model_says_token_by_token() {
    let model = model();
    for skip in [0.0, 0.5] {
        let options =
            GenerateOptions { temperature: 0.0, max_tokens: 20, skip, ..GenerateOptions::default() };
        let mut heard = Vec::new();
        let out = generate(&model, &tokens(5), &options, |t| heard.push(t)).unwrap();
        assert_eq!(out.tokens, heard);
        assert_eq!(out.visited.len(), if skip == 0.0 { 5 } else { 2 });
        let mut text = tokens(5);
        for &token in &out.tokens {
            assert_eq!(token, greedy(&logits_at_once(&model, &text, &out.visited)), "after {text:?}");
            text.push(token);
        }
    }
}

#[test]
fn texts_longer_than_the_context_go_on() {
    let model = model();
    let options = GenerateOptions { temperature: 0.0, max_tokens: 60, ..GenerateOptions::default() };
    for prompt in [3, 31, 32, 33, 100] {
        let out = generate(&model, &tokens(prompt), &options, |_| {}).unwrap();
        assert_eq!(out.tokens.len(), 60);
    }
    // After the older half was forgotten, the younger half is all that counts.
    let out = generate(&model, &tokens(32), &options, |_| {}).unwrap();
    let mut text = tokens(32);
    text.push(out.tokens[0]);
    let window = &text[text.len() - 16..];
    assert_eq!(out.tokens[1], greedy(&logits_at_once(&model, window, &[1, 2, 3, 4, 5])));
}

#[test]
fn draws_follow_the_seed_and_the_distribution() {
    let model = model();
    let run = |seed, threads, top_k, top_p, temperature| {
        let options = GenerateOptions {
            seed,
            threads,
            top_k,
            top_p,
            temperature,
            max_tokens: 24,
            ..GenerateOptions::default()
        };
        generate(&model, &tokens(4), &options, |_| {}).unwrap().tokens
    };
    let first = run(1, 1, 0, 1.0, 1.0);
    assert_eq!(first, run(1, 3, 0, 1.0, 1.0), "threads change the text");
    assert_ne!(first, run(2, 1, 0, 1.0, 1.0));
    let likeliest = run(1, 1, 0, 1.0, 0.0);
    assert_eq!(likeliest, run(5, 1, 1, 1.0, 2.0), "top-k 1 is the likeliest token");
    assert_eq!(likeliest, run(5, 1, 0, 1e-9, 2.0), "a tiny top-p is the likeliest token");

    // The first token's frequencies over many seeds against softmax.
    let logits = logits_at_once(&model, &tokens(4), &[1, 2, 3, 4, 5]);
    let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
    let mut counts = [0u32; 23];
    for seed in 0..4000 {
        let options = GenerateOptions {
            seed,
            max_tokens: 1,
            temperature: 1.0,
            top_p: 1.0,
            ..GenerateOptions::default()
        };
        counts[generate(&model, &tokens(4), &options, |_| {}).unwrap().tokens[0] as usize] += 1;
    }
    for (token, &count) in counts.iter().enumerate() {
        let p = f64::from(logits[token]).exp() / total;
        let allowed = 4.5 * (4000.0 * p * (1.0 - p)).sqrt() + 1.0;
        assert!((f64::from(count) - 4000.0 * p).abs() < allowed, "token {token}: {count} of {}", 4000.0 * p);
    }
}

#[test]
fn stop_tokens_end_the_text_and_are_left_out() {
    let model = model();
    let options = GenerateOptions { temperature: 0.0, max_tokens: 20, ..GenerateOptions::default() };
    let free = generate(&model, &tokens(5), &options, |_| {}).unwrap();
    assert!(!free.stopped);
    let stop = free.tokens[6];
    let first = free.tokens.iter().position(|t| *t == stop).unwrap();
    let options = GenerateOptions { stop: vec![stop], ..options };
    let out = generate(&model, &tokens(5), &options, |_| {}).unwrap();
    assert!(out.stopped);
    assert_eq!(out.tokens, free.tokens[..first]);
}

#[test]
fn bad_options_are_refused() {
    let model = model();
    let ok = GenerateOptions::default();
    let refuse = |prompt: &[u32], options: &GenerateOptions| {
        generate(&model, prompt, options, |_| {}).unwrap_err().to_string()
    };
    assert!(refuse(&[], &ok).contains("prompt is empty"));
    assert!(refuse(&[23], &ok).contains("vocabulary of 23"));
    assert!(refuse(&[1], &GenerateOptions { temperature: -1.0, ..ok.clone() }).contains("temperature"));
    assert!(refuse(&[1], &GenerateOptions { top_p: 0.0, ..ok.clone() }).contains("top-p"));
    assert!(refuse(&[1], &GenerateOptions { skip: 1.0, ..ok.clone() }).contains("skip ratio 1"));
    let eval = EvalOptions { context: 8, batch: 2, skips: vec![], seed: 0, threads: 1 };
    assert!(evaluate(&model, &[1], &eval, |_, _| {}).is_err());
    assert!(evaluate(&model, &[1, 99, 2], &eval, |_, _| {}).is_err());
    assert!(evaluate(&model, &tokens(9), &EvalOptions { context: 0, ..eval.clone() }, |_, _| {}).is_err());
    assert!(evaluate(&model, &tokens(9), &EvalOptions { skips: vec![-0.1], ..eval }, |_, _| {}).is_err());
}

fn options(skips: &[f64]) -> EvalOptions {
    EvalOptions { context: 8, batch: 2, skips: skips.to_vec(), seed: 3, threads: 1 }
}

/// The loss of each window by itself, through the logits.
fn loss_by_hand(model: &WholeModel, tokens: &[u32], context: usize) -> f64 {
    let mut sum = 0.0;
    for at in 1..tokens.len() {
        let start = (at - 1) / context * context;
        let logits = logits_at_once(model, &tokens[start..at], &[1, 2, 3, 4, 5]);
        let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
        sum += total.ln() - f64::from(logits[tokens[at] as usize]);
    }
    sum / (tokens.len() - 1) as f64
}

#[test]
fn every_token_but_the_first_counts() {
    let model = model();
    for n in [2, 8, 9, 10, 41, 45] {
        let tokens = tokens(n);
        let got = evaluate(&model, &tokens, &options(&[0.0]), |_, _| {}).unwrap();
        assert_eq!(got.tokens, n - 1);
        let want = loss_by_hand(&model, &tokens, 8);
        assert!((got.results[0].loss - want).abs() < 1e-5, "{n}: {} {want}", got.results[0].loss);
        assert!((got.results[0].perplexity - want.exp()).abs() < 1e-3 * want.exp());
        assert_eq!(got.results[0].ratio, 1.0);
    }
}

#[test]
fn threads_and_company_change_no_figure() {
    let model = model();
    let tokens = tokens(333);
    let mut steps = Vec::new();
    let all = evaluate(&model, &tokens, &options(&[0.0, 0.25, 0.33, 0.5]), |done, of| steps.push((done, of)));
    let all = all.unwrap();
    assert_eq!(steps, (1..=22).map(|i| (i, 22)).collect::<Vec<_>>());
    for threads in [2, 5, 64] {
        let options = EvalOptions { threads, ..options(&[0.0, 0.25, 0.33, 0.5]) };
        assert_eq!(evaluate(&model, &tokens, &options, |_, _| {}).unwrap(), all);
    }
    let alone = evaluate(&model, &tokens, &options(&[0.5]), |_, _| {}).unwrap();
    assert_eq!(alone.results[0], all.results[3]);
    assert_eq!(alone.results[0].relays_visited, 2);
    assert_eq!(alone.results[0].skip_realised, 0.5);
    let other = evaluate(&model, &tokens, &EvalOptions { seed: 4, ..options(&[0.5]) }, |_, _| {}).unwrap();
    assert_ne!(other.results[0].loss, alone.results[0].loss, "the subset does not follow the seed");
}

#[test]
fn skipping_passes_the_activation_on() {
    // Without relay stages the loss is that of the origin alone; with one left out of one, too.
    let model = model();
    let tokens = tokens(60);
    let none = evaluate(&model, &tokens, &options(&[0.99]), |_, _| {}).unwrap();
    assert_eq!(none.results[0].relays_visited, 0);
    let mut sum = 0.0;
    for at in 1..tokens.len() {
        let logits = logits_at_once(&model, &tokens[(at - 1) / 8 * 8..at], &[]);
        let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
        sum += total.ln() - f64::from(logits[tokens[at] as usize]);
    }
    assert!((none.results[0].loss - sum / 59.0).abs() < 1e-5);
    // Batches draw anew: over many batches of one window every stage must be visited, so the loss with skips lies
    // among those of the fixed subsets, and equals none of them.
    let fixed: Vec<f64> = (1..=5).map(|s| subset_loss(&model, &tokens, s)).collect();
    let one = evaluate(&model, &tokens, &EvalOptions { batch: 1, ..options(&[0.66]) }, |_, _| {}).unwrap();
    assert_eq!(one.results[0].relays_visited, 1);
    let (low, high) = fixed.iter().fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
    assert!(low < one.results[0].loss && one.results[0].loss < high, "{fixed:?} {}", one.results[0].loss);
}

fn subset_loss(model: &WholeModel, tokens: &[u32], stage: usize) -> f64 {
    let mut sum = 0.0;
    for at in 1..tokens.len() {
        let logits = logits_at_once(model, &tokens[(at - 1) / 8 * 8..at], &[stage]);
        let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
        sum += total.ln() - f64::from(logits[tokens[at] as usize]);
    }
    sum / (tokens.len() - 1) as f64
}

#[test]
fn a_model_that_learnt_a_cycle_writes_it() {
    // One origin with a layer, trained on 0 1 2 … 6 0 1 …: greedy text must go round.
    let config = LlamaConfig::new(7, 16, 2, 1, 16);
    let spec = StageSpec { role: Role::Origin, layers: 0..1, batch: 4, context: 16 };
    let mut stage = CpuBackend::new(&config, spec.clone(), 1).unwrap();
    let mut model = WholeModel::initial(config, 0, 1, 1).unwrap();
    let cycle: Vec<u32> = (0..65).map(|i| i % 7).collect();
    let params = &mut model.stages_mut()[0].params;
    let (mut m, mut v) = (vec![0.0; params.len()], vec![0.0; params.len()]);
    for step in 1..=150 {
        let mut grads = vec![0.0; params.len()];
        let (x, saved) = stage.embed(params, &cycle[..64]).unwrap();
        let loss = stage.loss(params, &x, &cycle[1..], Some(&mut grads), 1.0 / 64.0).unwrap();
        stage.embed_backward(params, saved, &loss.dx, Some(&mut grads)).unwrap();
        let rate = OptimizerStep { step, learning_rate: 1e-2, ..OptimizerStep::default() };
        stage.optimizer_step(params, &grads, &mut m, &mut v, &rate).unwrap();
    }
    let eval = evaluate(&model, &cycle, &EvalOptions { context: 16, ..options(&[0.0]) }, |_, _| {}).unwrap();
    assert!(eval.results[0].perplexity < 1.2, "{eval:?}");
    let out = GenerateOptions { temperature: 0.0, max_tokens: 30, ..GenerateOptions::default() };
    let text = generate(&model, &[3, 4], &out, |_| {}).unwrap().tokens;
    assert_eq!(text, (0..30).map(|i| (i + 5) % 7).collect::<Vec<u32>>());
}
