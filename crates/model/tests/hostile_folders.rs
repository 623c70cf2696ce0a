//! Model folders that are damaged, incomplete or made to harm: each is refused with the file's name and a remedy.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use skipstone_model::{ExportOptions, HfError, LlamaConfig, WholeModel, export, import};
use tempfile::TempDir;

fn good(max_shard_bytes: u64) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let model = WholeModel::initial(LlamaConfig::new(17, 8, 2, 3, 16), 3, 0, 1).unwrap();
    let options = ExportOptions { max_shard_bytes, ..ExportOptions::default() };
    export(&model, &dir.path().join("model"), &options).unwrap();
    dir
}

/// Harms a good folder, and checks that the refusal holds each of these words.
fn refused(what: &str, words: &[&str], harm: impl FnOnce(&Path)) {
    refused_of(&good(u64::MAX), what, words, harm);
}

fn refused_of(dir: &TempDir, what: &str, words: &[&str], harm: impl FnOnce(&Path)) {
    let folder = dir.path().join("model");
    import(&folder).unwrap();
    harm(&folder);
    let error = import(&folder).expect_err(what).to_string();
    for word in words {
        assert!(error.contains(word), "{what}: `{word}` is not in: {error}");
    }
}

fn edit_config(folder: &Path, edit: impl FnOnce(&mut Value)) {
    let path = folder.join("config.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

/// Rewrites the header of the weights, keeping the data.
fn edit_header(folder: &Path, edit: impl FnOnce(&mut Value)) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + size]).unwrap();
    edit(&mut header);
    let header = header.to_string();
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(&bytes[8 + size..]);
    fs::write(path, out).unwrap();
}

#[test]
fn weights_that_are_damaged() {
    const FILE: &str = "model.safetensors";
    let damaged = [FILE, "is damaged", "copy or download it again"];
    refused("cut short", &[&damaged[..], &["shorter than its header says"]].concat(), |f| {
        let bytes = fs::read(f.join(FILE)).unwrap();
        fs::write(f.join(FILE), &bytes[..bytes.len() - 5]).unwrap();
    });
    refused("too long", &[&damaged[..], &["longer than its header says"]].concat(), |f| {
        let mut bytes = fs::read(f.join(FILE)).unwrap();
        bytes.push(0);
        fs::write(f.join(FILE), bytes).unwrap();
    });
    refused("empty", &damaged, |f| fs::write(f.join(FILE), b"").unwrap());
    refused("header over the bound", &[&damaged[..], &["above the bound"]].concat(), |f| {
        let mut bytes = fs::read(f.join(FILE)).unwrap();
        bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        fs::write(f.join(FILE), bytes).unwrap();
    });
    refused("header beyond the file", &damaged, |f| {
        let mut bytes = fs::read(f.join(FILE)).unwrap();
        bytes[..8].copy_from_slice(&50_000_000u64.to_le_bytes());
        fs::write(f.join(FILE), bytes).unwrap();
    });
    refused("header of noise", &damaged, |f| {
        let mut bytes = fs::read(f.join(FILE)).unwrap();
        bytes[8..40].fill(0xfe);
        fs::write(f.join(FILE), bytes).unwrap();
    });
    refused("offsets that overlap", &damaged, |f| {
        edit_header(f, |h| h["model.norm.weight"]["data_offsets"] = json!([0, 32]));
    });
    refused("offsets that overflow", &damaged, |f| {
        edit_header(f, |h| h["model.norm.weight"]["data_offsets"] = json!([u64::MAX - 31, u64::MAX]));
    });
    refused("shape that overflows", &damaged, |f| {
        edit_header(f, |h| h["model.norm.weight"]["shape"] = json!([u64::MAX, u64::MAX]));
    });
    refused("not finite", &[&damaged[..], &["not finite", "`lm_head.weight`"]].concat(), |f| {
        let mut bytes = fs::read(f.join(FILE)).unwrap();
        let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[8 + size..12 + size].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(f.join(FILE), bytes).unwrap();
    });
}

#[test]
fn weights_that_do_not_belong() {
    refused("missing tensor", &["model.safetensors", "`model.layers.1.mlp.up_proj.weight`", "copy"], |f| {
        edit_header(f, |h| {
            let h = h.as_object_mut().unwrap();
            let tensor = h.remove("model.layers.1.mlp.up_proj.weight").unwrap();
            h.insert("model.rotary_emb.inv_freq".to_owned(), tensor);
        });
    });
    refused("missing head", &["lm_head.weight", "tie_word_embeddings"], |f| {
        edit_header(f, |h| {
            let h = h.as_object_mut().unwrap();
            let tensor = h.remove("lm_head.weight").unwrap();
            h.insert("model.rotary_emb.inv_freq".to_owned(), tensor);
        });
    });
    refused("wrong shape", &["model.safetensors", "`lm_head.weight`", "[8, 17]", "[17, 8]"], |f| {
        edit_header(f, |h| h["lm_head.weight"]["shape"] = json!([8, 17]));
    });
    refused("wrong type", &["model.safetensors", "I32", "save the model in"], |f| {
        edit_header(f, |h| h["model.norm.weight"]["dtype"] = json!("I32"));
    });
    refused("a bias", &["model.safetensors", "q_proj.bias", "merge adapters"], |f| {
        edit_config(f, |c| c["tie_word_embeddings"] = json!(true));
        edit_header(f, |h| {
            let h = h.as_object_mut().unwrap();
            let tensor = h.remove("lm_head.weight").unwrap();
            h.insert("model.layers.0.self_attn.q_proj.bias".to_owned(), tensor);
        });
    });
    refused("fewer layers in config.json", &["model.layers.2", "config.json"], |f| {
        edit_config(f, |c| c["num_hidden_layers"] = json!(2));
    });
    refused("weights of pickle", &["no model.safetensors", "save_pretrained"], |f| {
        fs::rename(f.join("model.safetensors"), f.join("pytorch_model.bin")).unwrap();
    });
}

#[test]
fn configurations_that_cannot_be() {
    let file = "config.json";
    refused("no JSON", &[file, "restore"], |f| fs::write(f.join(file), "{\"vocab_size\": ").unwrap());
    refused("a field missing", &[file, "hidden_size"], |f| {
        edit_config(f, |c| _ = c.as_object_mut().unwrap().remove("hidden_size"));
    });
    refused("another family", &[file, "gpt2", "choose a LLaMA model"], |f| {
        edit_config(f, |c| c["model_type"] = json!("gpt2"));
    });
    refused("quantised", &[file, "dequantise"], |f| {
        edit_config(f, |c| c["quantization_config"] = json!({ "bits": 4 }));
    });
    refused("heads that do not divide", &[file, "num_attention_heads 3"], |f| {
        edit_config(f, |c| c["num_attention_heads"] = json!(3));
    });
    // As many layers as fit an i32, and a width of 2³⁰: nothing may be allocated for them.
    for (name, value) in
        [("num_hidden_layers", 2_147_483_647u64), ("hidden_size", 1 << 20), ("vocab_size", 1 << 30)]
    {
        refused(name, &[file, "parameters", "do not belong together"], |f| {
            edit_config(f, |c| c[name] = json!(value));
        });
    }
    refused("stages that do not divide", &[file, "do not divide over 2"], |f| {
        edit_config(f, |c| c["skipstone"]["stages"] = json!(2));
    });
    refused("stages beyond reason", &[file, "18446744073709551615"], |f| {
        edit_config(f, |c| c["skipstone"]["stages"] = json!(u64::MAX));
    });
    refused("no folder", &["no model at", "config.json"], |f| fs::remove_dir_all(f).unwrap());
}

#[test]
fn indexes_that_lie() {
    let index = "model.safetensors.index.json";
    let sharded = || good(2000);
    let edit = |f: &Path, edit: &dyn Fn(&mut Value)| {
        let mut json: Value = serde_json::from_slice(&fs::read(f.join(index)).unwrap()).unwrap();
        edit(&mut json);
        fs::write(f.join(index), json.to_string()).unwrap();
    };
    refused_of(&sharded(), "a file outside", &[index, "../../etc/passwd"], |f| {
        edit(f, &|j| j["weight_map"]["lm_head.weight"] = json!("../../etc/passwd"));
    });
    refused_of(&sharded(), "an absolute file", &[index, "/etc/passwd"], |f| {
        edit(f, &|j| j["weight_map"]["lm_head.weight"] = json!("/etc/passwd"));
    });
    refused_of(&sharded(), "a tensor left out", &[index, "`lm_head.weight`"], |f| {
        edit(f, &|j| _ = j["weight_map"].as_object_mut().unwrap().remove("lm_head.weight"));
    });
    refused_of(&sharded(), "a shard missing", &["model-00002-of-", "check the path"], |f| {
        let shard = fs::read_dir(f).unwrap().map(|e| e.unwrap().path());
        let shard = shard.filter(|p| p.to_string_lossy().contains("model-00002-of-")).last().unwrap();
        fs::remove_file(shard).unwrap();
    });
    refused_of(&sharded(), "no index", &[index, "restore"], |f| fs::write(f.join(index), "[]").unwrap());
}

#[test]
fn exports_replace_models_only() {
    let dir = good(2000);
    let folder = dir.path().join("model");
    let model = import(&folder).unwrap().model;
    export(&model, &folder, &ExportOptions::default()).unwrap();
    assert!(!folder.join("model.safetensors.index.json").exists(), "shards of the old model are left");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something is left beside the folder");

    fs::write(folder.join("thesis.tex"), "years of work").unwrap();
    let error = export(&model, &folder, &ExportOptions::default()).unwrap_err();
    assert!(matches!(&error, HfError::Foreign { found, .. } if found == "thesis.tex"), "{error}");
    assert_eq!(fs::read(folder.join("thesis.tex")).unwrap(), b"years of work");
    assert_eq!(import(&folder).unwrap().model, model);

    // An export that died between its renames left the old model under another name.
    fs::remove_file(folder.join("thesis.tex")).unwrap();
    fs::rename(&folder, dir.path().join(".model.old")).unwrap();
    export(&model, &folder, &ExportOptions::default()).unwrap();
    assert_eq!(import(&folder).unwrap().model, model);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
