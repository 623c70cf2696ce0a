//! Writes good inputs for every reader, made by the real encoders: `seeds FOLDER` makes `FOLDER/READER/NAME`, and
//! `FOLDER/READER.dict`, the words of a text format for a fuzzer to play with.

use skipstone_readers::{READERS, Seed, SeedError};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), SeedError> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("name the folder to write to")?);
    let mut bytes = 0;
    for reader in READERS {
        let seeds = (reader.seeds)()?;
        let dir = folder.join(reader.name);
        fs::create_dir_all(&dir)?;
        for (name, seed) in &seeds {
            bytes += seed.len();
            fs::write(dir.join(name), seed)?;
        }
        if reader.text {
            fs::write(folder.join(format!("{}.dict", reader.name)), dictionary(&seeds))?;
        }
    }
    eprintln!("{bytes} bytes of seeds for {} readers in {}", READERS.len(), folder.display());
    Ok(())
}

/// The words of the seeds, quoted, and what is hostile in any text format.
fn dictionary(seeds: &[Seed]) -> String {
    const HOSTILE: [&str; 12] = [
        "18446744073709551615",
        "9223372036854775808",
        "4294967295",
        "-1",
        "1e308",
        "1e-308",
        "NaN",
        "null",
        "{}",
        "[]",
        "0",
        "nan",
    ];
    let mut words: BTreeSet<&str> = HOSTILE.into_iter().collect();
    for (_, seed) in seeds {
        let text = str::from_utf8(seed).unwrap_or_default();
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
        words.extend(
            text.split(|letter| !plain(letter)).filter(|word| (2..=40).contains(&word.len())).take(400),
        );
    }
    words.into_iter().flat_map(|word| ["\"", word, "\"\n"]).collect()
}
