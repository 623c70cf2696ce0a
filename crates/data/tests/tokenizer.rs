//! Text to tokens and back.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Command;

use proptest::prelude::*;
use skipstone_data::story::StoryCorpus;
use skipstone_data::{Corpus, Tokenizer, TokenizerError};

fn stories(bytes: usize) -> Corpus {
    Corpus::from(StoryCorpus::generate(1, bytes))
}

fn trained() -> Tokenizer {
    Tokenizer::train_bpe(&stories(200_000), 600).unwrap()
}

fn reloaded(tokenizer: &Tokenizer) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    tokenizer.save(&path).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the file itself is left");
    Tokenizer::from_file(&path).unwrap()
}

#[test]
fn any_text_comes_back() {
    let tokenizers = [Tokenizer::bytes().unwrap(), trained(), reloaded(&trained())];
    proptest!(|(text in "(\\PC|[ \n\t\r]|the |<\\|endoftext\\|>){0,60}")| {
        for tokenizer in &tokenizers {
            let tokens = tokenizer.encode(&text).unwrap();
            prop_assert!(tokens.iter().all(|&token| (token as usize) < tokenizer.vocab_size()));
            prop_assert!(!tokens.contains(&tokenizer.eos_id()), "text is no end of text");
            prop_assert_eq!(tokenizer.decode(&tokens).unwrap(), text.clone());
        }
    });
    let emoji = "\u{1f469}\u{200d}\u{1f52c} na\u{ef}ve \u{4f60}\u{597d}\0\u{10ffff}";
    for tokenizer in &tokenizers {
        assert_eq!(tokenizer.decode(&tokenizer.encode(emoji).unwrap()).unwrap(), emoji);
    }
}

#[test]
fn bytes_are_their_values() {
    let bytes = Tokenizer::bytes().unwrap();
    assert_eq!((bytes.vocab_size(), bytes.eos_id()), (257, 256));
    let text = "\u{0}\u{7f}\u{e9}\n \u{4f60}";
    let values: Vec<u32> = text.bytes().map(u32::from).collect();
    assert_eq!(bytes.encode(text).unwrap(), values);
    let loaded = reloaded(&bytes);
    assert_eq!((loaded.vocab_size(), loaded.eos_id()), (257, 256));
    assert_eq!(loaded.encode(text).unwrap(), values, "the file alone says the same");
}

#[test]
fn the_same_corpus_trains_the_same_tokenizer() {
    let corpus = stories(300_000);
    let first = Tokenizer::train_bpe(&corpus, 700).unwrap();
    assert_eq!((first.vocab_size(), first.eos_id()), (700, 0));
    for _ in 0..3 {
        assert_eq!(Tokenizer::train_bpe(&corpus, 700).unwrap().to_json().unwrap(), first.to_json().unwrap());
    }
    let line = "\u{e4}b ".repeat(3 << 20);
    let bounded = Tokenizer::train_bpe(&Corpus::from_documents([line.as_str()]), 300).unwrap();
    assert!(bounded.encode(" \u{e4}b").unwrap().len() == 1, "12 MB without a line end: learnt from a part");
    let tokens = first.encode(" Lily and the goose went home").unwrap();
    assert!(tokens.len() <= 8, "about a token a word: {tokens:?}");
}

/// Long texts are cut into pieces that are encoded in parallel; a tokenizer loaded from the file never cuts.
#[test]
fn long_texts_have_the_tokens_of_the_whole() {
    let tokenizer = trained();
    let whole = reloaded(&tokenizer);
    let parts =
        ["the dog", "\n", "\n", " ", "\n\n", "\t\n", "\r\n", " \n", "it's", "\u{e9}", "42", "?!", "\u{2003}"];
    let mut state = 7_u64;
    let text: String = (0..120_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            parts[(state >> 40) as usize % parts.len()]
        })
        .collect();
    assert!(text.len() > 4 * 65_536);
    assert_eq!(tokenizer.encode(&text).unwrap(), whole.encode(&text).unwrap());
    let blank = text.replace('\n', "\u{2028}");
    assert_eq!(tokenizer.encode(&blank).unwrap(), whole.encode(&blank).unwrap(), "nowhere to cut");
}

#[test]
fn every_document_ends_with_end_of_text() {
    let corpus = Corpus::from_documents(["one", "two\n"]);
    let bytes = Tokenizer::bytes().unwrap();
    let expected: Vec<u32> = b"one"
        .iter()
        .map(|&b| b.into())
        .chain([256])
        .chain(b"two\n".iter().map(|&b| b.into()))
        .chain([256])
        .collect();
    assert_eq!(bytes.encode_corpus(&corpus).unwrap(), expected);
    assert_eq!(bytes.decode(&expected).unwrap(), "one<|endoftext|>two\n<|endoftext|>");
}

#[test]
fn refusals_say_why() {
    let corpus = stories(1000);
    assert!(matches!(Tokenizer::train_bpe(&corpus, 256), Err(TokenizerError::VocabSize { min: 257, .. })));
    assert!(matches!(Tokenizer::train_bpe(&Corpus::default(), 512), Err(TokenizerError::Empty)));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    assert!(matches!(Tokenizer::from_file(&path), Err(TokenizerError::Io { .. })));
    fs::write(&path, "{\"version\": \"1.0\"}").unwrap();
    assert!(matches!(Tokenizer::from_file(&path), Err(TokenizerError::Unusable { .. })));
    let json = Tokenizer::bytes().unwrap().to_json().unwrap();
    fs::write(&path, json.replace("<|endoftext|>", "<|other|>")).unwrap();
    let error = Tokenizer::from_file(&path).unwrap_err().to_string();
    assert!(error.contains("no end-of-text token"), "{error}");
}

/// `transformers` opens what is saved, by file and by folder, and agrees on every token. Needs a Python with `transformers`,
/// named by SKIPSTONE_PYTHON (else `python3`).
#[test]
fn transformers_agrees() {
    let python = std::env::var("SKIPSTONE_PYTHON").unwrap_or_else(|_| "python3".into());
    let found = Command::new(&python).args(["-c", "import transformers, tokenizers"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {python} has no transformers; set SKIPSTONE_PYTHON to one that has");
        return;
    }
    let text = "Once there was a caf\u{e9}.\n\n  It's 42 \u{4f60}\u{597d} \u{1f642}!";
    for tokenizer in [Tokenizer::bytes().unwrap(), trained()] {
        let folder = tempfile::tempdir().unwrap();
        tokenizer.save(&folder.path().join("tokenizer.json")).unwrap();
        fs::write(folder.path().join("tokenizer_config.json"), tokenizer.config_json()).unwrap();
        fs::write(folder.path().join("config.json"), "{\"model_type\": \"llama\"}").unwrap();
        let script = "
import sys, json
from transformers import AutoTokenizer, PreTrainedTokenizerFast
folder, text = sys.argv[1:]
both = [PreTrainedTokenizerFast(tokenizer_file=folder + '/tokenizer.json'), AutoTokenizer.from_pretrained(folder)]
ids = [t.encode(text) for t in both]
assert ids[0] == ids[1], ids
assert all(t.decode(i) == text for t, i in zip(both, ids)), [t.decode(i) for t, i in zip(both, ids)]
print(json.dumps({'ids': ids[0], 'eos': both[1].eos_token_id, 'size': len(both[1])}))
";
        let output =
            Command::new(&python).args(["-c", script]).arg(folder.path()).arg(text).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let ours = serde_json::json!({
            "ids": tokenizer.encode(text).unwrap(), "eos": tokenizer.eos_id(), "size": tokenizer.vocab_size(),
        });
        assert_eq!(theirs, ours);
    }
}
