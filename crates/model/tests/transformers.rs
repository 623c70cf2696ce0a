//! Model folders against `transformers`, in both directions. Skipped, with a line that says so, where neither
//! `SKIPSTONE_PYTHON` nor `python3` is an interpreter with torch and transformers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;
use skipstone_model::{
    CpuBackend, ExportOptions, LlamaConfig, Positions, RopeScaling, StageBackend, StageSpec, WholeModel,
    export, import,
};

/// Runs golden/check_transformers.py; none if it cannot run here.
fn python(args: &[&str]) -> Option<Output> {
    let interpreter = std::env::var("SKIPSTONE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/check_transformers.py");
    let output = Command::new(&interpreter).arg(script).args(args).env("HF_HUB_OFFLINE", "1").output();
    match output {
        Ok(output) if output.status.code() != Some(77) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(output)
        }
        _ => {
            eprintln!(
                "SKIPPED: {interpreter} has no torch and transformers; name one that has in SKIPSTONE_PYTHON"
            );
            None
        }
    }
}

fn rows(vocab: usize, rows: usize, context: usize) -> Vec<Vec<u32>> {
    (0..rows).map(|r| (0..context).map(|i| ((r * 31 + i * i * 7 + i) % vocab) as u32).collect()).collect()
}

/// Logits of all positions, through the stages one after the other.
fn our_logits(model: &WholeModel, rows: &[Vec<u32>]) -> Vec<f32> {
    let backend = |index: usize| {
        let stage = &model.stages()[index];
        let (role, layers) = (stage.role, stage.layers.clone());
        let spec = StageSpec { role, layers, batch: rows.len(), context: rows[0].len() };
        CpuBackend::new(model.config(), spec, 1).unwrap()
    };
    let mut origin = backend(0);
    let mut x = origin.infer_embed(&model.origin().params, &rows.concat()).unwrap();
    for (index, stage) in model.relays().iter().enumerate() {
        x = backend(index + 1).infer(&stage.params, &x).unwrap();
    }
    origin.logits(&model.origin().params, &x, Positions::All).unwrap()
}

fn same_logits(what: &str, ours: &[f32], file: &Path) {
    let theirs: Vec<f32> = std::fs::read(file)
        .unwrap()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let spread = theirs.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
    eprintln!("{what}: largest difference {worst:.1e} of logits up to {spread:.2}");
    assert!(spread > 0.1, "{what}: nothing was tested");
    assert!(worst <= 1e-4, "{what}: {worst}");
}

/// Weights as after some training: no norm is 1, and nothing is small.
fn trained(config: LlamaConfig, stages: usize, origin_layers: usize) -> WholeModel {
    let mut model = WholeModel::initial(config, stages, origin_layers, 5).unwrap();
    for stage in model.stages_mut() {
        for (i, x) in stage.params.iter_mut().enumerate() {
            *x = *x * if x.abs() < 0.5 { 5.0 } else { 1.0 } + (i % 7) as f32 * 0.01;
        }
    }
    model
}

fn llama3() -> RopeScaling {
    RopeScaling {
        rope_type: "llama3".to_owned(),
        factor: 4.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 32,
    }
}

#[test]
fn our_folders_open_with_the_same_logits() {
    let dir = tempfile::tempdir().unwrap();
    let plain = LlamaConfig::new(97, 32, 4, 4, 64);
    let grouped = LlamaConfig {
        num_key_value_heads: 2,
        head_dim: Some(12),
        rope_scaling: Some(llama3()),
        rope_theta: 500_000.0,
        ..plain.clone()
    };
    let tied = LlamaConfig { tie_word_embeddings: true, ..plain.clone() };
    let cases = [
        ("plain", plain, 4, 0, u64::MAX),
        ("grouped, llama3 rope, sharded", grouped, 3, 1, 20_000),
        ("tied", tied, 2, 2, u64::MAX),
    ];
    for (name, config, stages, origin_layers, max_shard_bytes) in cases {
        let model = trained(config, stages, origin_layers);
        let folder = dir.path().join(name);
        let options = ExportOptions { max_shard_bytes, eos: Some(3), ..ExportOptions::default() };
        export(&model, &folder, &options).unwrap();
        assert_eq!(folder.join("model.safetensors.index.json").exists(), max_shard_bytes < u64::MAX);
        let tokens = rows(97, 2, 41);
        let (input, output) = (dir.path().join("tokens.json"), dir.path().join("logits.bin"));
        std::fs::write(&input, json!(tokens).to_string()).unwrap();
        let Some(said) =
            python(&["logits", folder.to_str().unwrap(), input.to_str().unwrap(), output.to_str().unwrap()])
        else {
            return;
        };
        assert!(String::from_utf8_lossy(&said.stdout).contains(r#"{"eos": 3, "bos": 3}"#));
        same_logits(&format!("export, {name}"), &our_logits(&model, &tokens), &output);
        let back = import(&folder).unwrap();
        assert!(back.knows_stages && back.model == model, "{name}: a round trip changes the model");
        assert_eq!((back.eos, back.bos), (vec![3], Some(3)));
    }
}

#[test]
fn their_folders_open_with_the_same_logits() {
    let dir = tempfile::tempdir().unwrap();
    let base = json!({
        "vocab_size": 83, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
        "num_attention_heads": 4, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
        "bos_token_id": 1, "eos_token_id": [2, 5],
    });
    let rope = json!({
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
    });
    let cases = [
        ("f32", json!({}), "float32", "5GB"),
        ("bf16, tied", json!({ "tie_word_embeddings": true }), "bfloat16", "5GB"),
        ("f16, grouped, sharded", json!({ "num_key_value_heads": 2 }), "float16", "10KB"),
        (
            "llama3 rope, wide heads",
            json!({ "rope_parameters": rope, "head_dim": 10, "num_key_value_heads": 1 }),
            "float32",
            "5GB",
        ),
    ];
    for (name, more, dtype, shard) in cases {
        let mut config = base.clone();
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let tokens = rows(83, 2, 70);
        let spec = json!({ "seed": 1, "config": config, "dtype": dtype, "shard": shard, "tokens": tokens });
        let (folder, input, output) =
            (dir.path().join(name), dir.path().join("spec.json"), dir.path().join("logits.bin"));
        std::fs::write(&input, spec.to_string()).unwrap();
        if python(&["make", folder.to_str().unwrap(), input.to_str().unwrap(), output.to_str().unwrap()])
            .is_none()
        {
            return;
        }
        let found = import(&folder).unwrap();
        assert!(!found.knows_stages);
        assert_eq!((found.model.relay_stages(), found.model.origin_layers()), (2, 1), "a stage is a layer");
        assert_eq!((found.eos.as_slice(), found.bos), ([2, 5].as_slice(), Some(1)));
        same_logits(&format!("import, {name}"), &our_logits(&found.model, &tokens), &output);
        let recut = found.model.recut(3, 0).unwrap();
        same_logits(&format!("import, {name}, cut anew"), &our_logits(&recut, &tokens), &output);
    }
}
