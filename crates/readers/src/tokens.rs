//! `data/tokens.bin` of a run's folder (`skipstone-data`).

use crate::{Broken, Reader, Seed, SeedError, Verdict, lost, refused, same, scratch, within};
use skipstone_data::TokenDataset;
use skipstone_types::Digest;

/// Where the header's hash lies: it covers all the rest.
const HASH: std::ops::Range<usize> = 48..80;

/// The file's tokens as they lie, and as numbers of twice the width.
fn memory_max(input: usize) -> usize {
    (64 << 10) + 4 * input
}

pub(crate) const READER: Reader = Reader {
    name: "tokens",
    what: "data/tokens.bin of a run",
    text: false,
    memory_max,
    read,
    mend: Some(mend),
    seeds,
};

fn read(bytes: &[u8]) -> Result<Verdict, Broken> {
    let path = scratch::file("tokens.bin", bytes)?;
    let dataset = match within(memory_max(bytes.len()), bytes, || TokenDataset::read(&path))? {
        Ok(dataset) => dataset,
        Err(why) => return refused(why),
    };
    let again = scratch::folder()?.join("again.bin");
    dataset.write(&again).map_err(lost)?;
    same(&dataset, &TokenDataset::read(&again).map_err(lost)?)
}

fn mend(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    if out.len() >= HASH.end {
        let digest = Digest::of(&[&out[..HASH.start], &out[HASH.end..]].concat());
        out[HASH].copy_from_slice(&digest.0);
    }
    out
}

fn seeds() -> Result<Vec<Seed>, SeedError> {
    let narrow = TokenDataset::new((0..40).collect(), (0..9).collect(), 257)?;
    let wide = TokenDataset::new(vec![1, 70_000], vec![2], 100_000)?;
    let empty = TokenDataset::new(Vec::new(), Vec::new(), 1)?;
    [("narrow", narrow), ("wide", wide), ("empty", empty)]
        .into_iter()
        .map(|(name, dataset)| {
            scratch::made_in(|dir| {
                let path = dir.join("tokens.bin");
                dataset.write(&path)?;
                Ok((name.to_owned(), std::fs::read(path)?))
            })
        })
        .collect()
}
