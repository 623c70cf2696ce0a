//! `tokenizer.json` (`skipstone-data`).

use crate::{Broken, Reader, Seed, SeedError, Verdict, lost, refused, same, scratch, within};
use skipstone_data::{Corpus, Tokenizer};

/// The text, its tree of JSON values, the vocabulary as maps both ways, and eight patterns of some 20 MB.
fn memory_max(input: usize) -> usize {
    (256 << 20) + 512 * input
}

pub(crate) const READER: Reader = Reader {
    name: "tokenizer",
    what: "tokenizer.json of `--tokenizer FILE` and of a model",
    text: true,
    memory_max,
    read,
    mend: None,
    seeds,
};

/// Encoded with whatever was read.
const TEXT: &str = "One day, a \u{1f600} said: <|endoftext|> don't!\n";

fn read(bytes: &[u8]) -> Result<Verdict, Broken> {
    let path = scratch::file("tokenizer.json", bytes)?;
    let tokenizer = match within(memory_max(bytes.len()), bytes, || Tokenizer::from_file(&path))? {
        Ok(tokenizer) => tokenizer,
        Err(why) => return refused(why),
    };
    let tokens = match tokenizer.encode(TEXT) {
        Ok(tokens) => tokens,
        Err(why) => return refused(why),
    };
    if tokens.iter().any(|token| *token as usize >= tokenizer.vocab_size()) {
        return Err(lost("a token outside the vocabulary"));
    }
    let text = match tokenizer.decode(&tokens) {
        Ok(text) => text,
        Err(why) => return refused(why),
    };
    let once = tokenizer.to_json().map_err(lost)?;
    let again = Tokenizer::from_file(&scratch::file("again.json", once.as_bytes())?).map_err(lost)?;
    same(&(tokens.clone(), text), &(again.encode(TEXT).map_err(lost)?, again.decode(&tokens).map_err(lost)?))
}

fn seeds() -> Result<Vec<Seed>, SeedError> {
    let corpus = Corpus::from_documents(["One day, one dog saw one day old dog.", "A dog said: one day!"]);
    let trained = Tokenizer::train_bpe(&corpus, 264)?;
    let compact = |json: String| -> Result<Vec<u8>, SeedError> {
        Ok(serde_json::to_vec(&serde_json::from_str::<serde_json::Value>(&json)?)?)
    };
    let small = serde_json::json!({
        "version": "1.0",
        "added_tokens": [{"id": 3, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": null,
        "decoder": {"type": "BPEDecoder", "suffix": "</w>"},
        "model": {"type": "WordLevel", "vocab": {"one": 0, "day": 1, "?": 2}, "unk_token": "?"}
    });
    Ok(vec![
        ("trained".to_owned(), compact(trained.to_json()?)?),
        ("bytes".to_owned(), compact(Tokenizer::bytes()?.to_json()?)?),
        ("words".to_owned(), serde_json::to_vec(&small)?),
    ])
}
