//! The token file, and from a request to tokens.

#![allow(clippy::unwrap_used)]

use std::fs;

use proptest::prelude::*;
use skipstone_data::{
    Corpus, DataError, DataRequest, DatasetError, Limits, TokenDataset, Tokenizer, TokenizerSource,
    bigram_loss, prepare, validation_batches,
};

fn request() -> DataRequest {
    DataRequest {
        data: None,
        tokenizer: TokenizerSource::Train { vocab_size: 1024 },
        seed: 11,
        story_bytes: 1_000_000,
        context: 128,
        limits: Limits::default(),
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(wide: bool, train in prop::collection::vec(0_u32..65_536, 0..300), validation in prop::collection::vec(0_u32..65_536, 0..300)) {
        let vocab_size = if wide { 65_537 } else { 65_536 };
        let dataset = TokenDataset::new(train, validation, vocab_size).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.bin");
        let hash = dataset.write(&path).unwrap();
        prop_assert_eq!(hash, dataset.hash());
        prop_assert_eq!(TokenDataset::read(&path).unwrap(), dataset.clone());
        let tokens = dataset.train().len() + dataset.validation().len();
        prop_assert_eq!(fs::metadata(&path).unwrap().len() as usize, 80 + tokens * if wide { 4 } else { 2 });
        prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

/// Any byte altered, any end cut off, anything added: refused, never a panic, never other tokens.
#[test]
fn damage_is_found() {
    let dataset = TokenDataset::new((0..40).collect(), (40..50).collect(), 50).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.bin");
    dataset.write(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = TokenDataset::read(&path).unwrap_err();
        assert!(matches!(error, DatasetError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("tokens.bin is damaged"), "{error}");
    };
    for at in 0..whole.len() {
        for flip in [1, 0x80, 0xff] {
            let mut altered = whole.clone();
            altered[at] ^= flip;
            refused(&altered);
        }
        refused(&whole[..at]);
    }
    refused(&[&whole[..], b"x"].concat());
    fs::remove_file(&path).unwrap();
    assert!(matches!(TokenDataset::read(&path), Err(DatasetError::Io { .. })));
}

#[test]
fn a_tenth_at_the_end_is_for_validation() {
    let dataset = TokenDataset::split((0..105).collect(), 105, 10).unwrap();
    assert_eq!(dataset.train(), (0..95).collect::<Vec<_>>());
    assert_eq!(dataset.validation(), (95..105).collect::<Vec<_>>());
    assert!(dataset.check_context(9).is_ok());
    assert!(matches!(
        dataset.check_context(10),
        Err(DatasetError::TooShort { split: "validation", tokens: 10, context: 10 })
    ));
    assert!(matches!(
        TokenDataset::split((0..105).collect(), 104, 10),
        Err(DatasetError::OutsideVocab { split: "validation", position: 9, token: 104, .. })
    ));
}

#[test]
fn validation_batches_follow_each_other() {
    let tokens: Vec<u32> = (0..33).collect();
    let batches = validation_batches(&tokens, 4, 3, usize::MAX);
    assert_eq!(batches.iter().map(|batch| batch.rows).collect::<Vec<_>>(), [3, 3, 2]);
    let inputs: Vec<u32> = batches.iter().flat_map(|batch| batch.inputs.clone()).collect();
    let targets: Vec<u32> = batches.iter().flat_map(|batch| batch.targets.clone()).collect();
    assert_eq!(inputs, (0..32).collect::<Vec<_>>());
    assert_eq!(targets, (1..33).collect::<Vec<_>>());
    assert_eq!(validation_batches(&tokens, 4, 3, 2), batches[..2]);
    assert!(validation_batches(&tokens[..4], 4, 3, 2).is_empty(), "no target for the last token");
}

/// What the demo promises: a floor that is known, and a bigram model far above it.
#[test]
fn the_embedded_stories_leave_room_above_the_floor() {
    let prepared = prepare(&request()).unwrap();
    let dataset = &prepared.dataset;
    let floor = prepared.entropy_floor.unwrap();
    let bigram = bigram_loss(dataset.train(), dataset.validation(), dataset.vocab_size()).unwrap();
    assert!((0.7..1.5).contains(&floor), "{floor} nats a token");
    assert!(bigram > 1.8 * floor, "bigram {bigram}, floor {floor}");
    let share = dataset.validation().len() as f64 / dataset.train().len() as f64;
    assert!((0.09..0.12).contains(&share), "{share} for validation");
    let again = prepare(&request()).unwrap();
    assert_eq!(again.dataset.hash(), dataset.hash(), "prepared twice, the same tokens");
}

/// The floor in nats a token is the text's: it is the same number of nats whatever the tokenizer.
#[test]
fn the_floor_does_not_depend_on_the_tokenizer() {
    let nats = |tokenizer| {
        let prepared = prepare(&DataRequest { tokenizer, story_bytes: 100_000, ..request() }).unwrap();
        prepared.entropy_floor.unwrap() * prepared.dataset.validation().len() as f64
    };
    let (bytes, bpe) = (nats(TokenizerSource::Bytes), nats(TokenizerSource::Train { vocab_size: 512 }));
    assert!((bytes - bpe).abs() < 1e-6, "{bytes} and {bpe}");
}

#[test]
fn files_are_prepared_with_any_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let (text, saved) = (folder.path().join("text.txt"), folder.path().join("tokenizer.json"));
    let words = "To be, or not to be, that is the question:\n".repeat(100);
    fs::write(&text, &words).unwrap();
    let corpus = Corpus::from_documents([words.as_str()]);
    Tokenizer::train_bpe(&corpus, 300).unwrap().save(&saved).unwrap();
    for tokenizer in
        [TokenizerSource::Bytes, TokenizerSource::Train { vocab_size: 300 }, TokenizerSource::File(saved)]
    {
        let request = DataRequest { data: Some(text.clone()), tokenizer, context: 16, ..request() };
        let prepared = prepare(&request).unwrap();
        assert_eq!((prepared.entropy_floor, prepared.bytes, prepared.documents), (None, words.len(), 1));
        let both = [prepared.dataset.train(), prepared.dataset.validation()].concat();
        assert_eq!(prepared.tokenizer.decode(&both).unwrap(), words.clone() + "<|endoftext|>");
        let too_long = DataRequest { context: 2000, ..request };
        let error = prepare(&too_long).unwrap_err();
        assert!(matches!(error, DataError::Dataset(DatasetError::TooShort { .. })), "{error}");
    }
}

#[test]
fn the_benchmark_measures_something() {
    let bench = skipstone_data::bench_data(200_000, 512, 64).unwrap();
    let speeds = [bench.corpus_mb_per_s, bench.encode_tokens_per_s, bench.fill_samples_per_s];
    assert!(speeds.iter().all(|&speed| speed.is_finite() && speed > 1.0), "{bench:?}");
    assert!(bench.bytes_per_token > 1.5 && bench.vocab_size == 512, "{bench:?}");
}
