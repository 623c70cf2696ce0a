//! `checkpoint.json`: the files of a checkpoint in a store. It is put last, and replaces the one before at once.

use crate::text::from_json;
use serde::{Deserialize, Serialize};
use skipstone_types::{Iteration, RunId};
use std::collections::BTreeSet;

/// The manifest's name in the store.
pub(super) const NAME: &str = "checkpoint.json";

/// What the names of all other objects begin with.
pub(super) const PARTS: &str = "parts";

/// Version of the manifest.
const FORMAT: u32 = 1;

/// What is read of a manifest at most.
pub(super) const BYTES_MAX: u64 = 16 << 20;

/// Files that a run goes on with beside its state.
pub(super) const BASE: [&str; 7] = [
    "data/tokenizer.json",
    "data/tokenizer_config.json",
    "data/tokens.bin",
    "data/data.json",
    "wan.json",
    "given-plan.json",
    OPTIONS,
];

/// The options, which come last: a folder that has them has a run.
pub(super) const OPTIONS: &str = "run.toml";

/// The manifest of `state/`.
pub(super) const STATE: &str = "state/state.json";

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    format: u32,
    /// The run.
    pub(super) run: RunId,
    /// The iteration that runs next.
    pub(super) iteration: Iteration,
    /// Its files, in the order in which they are to be written.
    pub(super) files: Vec<StoredFile>,
}

/// A file of the run's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredFile {
    /// Its path there.
    pub(super) name: String,
    /// Its length.
    pub(super) bytes: u64,
    /// Its BLAKE3 hash, in hexadecimal.
    pub(super) hash: String,
}

impl StoredFile {
    /// The object that has its bytes.
    pub(super) fn object(&self) -> String {
        format!("{PARTS}/{}", self.hash)
    }

    /// Whether it is part of the state.
    pub(super) fn is_of_state(&self) -> bool {
        self.name.starts_with("state/")
    }
}

impl Checkpoint {
    pub(super) fn new(run: RunId, iteration: Iteration, files: Vec<StoredFile>) -> Self {
        Self { format: FORMAT, run, iteration, files }
    }

    /// Reads a manifest, and checks that it names nothing but files of a run.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|why| why.to_string())?;
        let checkpoint: Self = from_json(text)?;
        if checkpoint.format != FORMAT {
            return Err(format!("it is of format {}, this version reads {FORMAT}", checkpoint.format));
        }
        let mut names = BTreeSet::new();
        for StoredFile { name, hash, .. } in &checkpoint.files {
            if !(BASE.contains(&name.as_str()) || name == STATE || is_of_stage(name)) {
                return Err(format!("it names {name:?}, which is no file of a run"));
            }
            if !names.insert(name) {
                return Err(format!("it names {name} twice"));
            }
            if hash.len() != 64 || !hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
                return Err(format!("the hash of {name} is none"));
            }
        }
        for needed in [OPTIONS, STATE, "data/data.json", "data/tokens.bin"] {
            if !names.iter().any(|name| *name == needed) {
                return Err(format!("it lacks {needed}"));
            }
        }
        Ok(checkpoint)
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }
}

/// Whether a path names a stage's saved state.
fn is_of_stage(name: &str) -> bool {
    let parts = || {
        let (iteration, file) = name.strip_prefix("state/")?.split_once('/')?;
        let (stage, digest) = file.strip_prefix("stage-")?.strip_suffix(".safetensors")?.split_once('-')?;
        Some((iteration, stage, digest))
    };
    let number =
        |text: &str| (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    parts().is_some_and(|(iteration, stage, digest)| {
        number(iteration)
            && number(stage)
            && digest.len() == 16
            && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        let file = |name: &str| StoredFile { name: name.to_owned(), bytes: 3, hash: "0a".repeat(32) };
        let names = [
            "data/tokens.bin",
            "data/data.json",
            "state/7/stage-0-0123456789abcdef.safetensors",
            STATE,
            OPTIONS,
        ];
        Checkpoint::new(RunId(5), Iteration(7), names.map(file).to_vec())
    }

    #[test]
    fn a_manifest_is_read_back_and_names_only_files_of_a_run() {
        assert_eq!(Checkpoint::parse(&checkpoint().to_json()), Ok(checkpoint()));
        for bad in [
            "/etc/passwd",
            "../run.toml",
            "state/../run.toml",
            "state/7/stage-0-0123456789abcdeg.safetensors",
            "state/7/../stage-0-0123456789abcdef.safetensors",
            "join/key",
            "events.jsonl",
        ] {
            let mut hostile = checkpoint();
            hostile.files[0].name = bad.to_owned();
            assert!(Checkpoint::parse(&hostile.to_json()).unwrap_err().contains("no file of a run"), "{bad}");
        }
        let mut hostile = checkpoint();
        hostile.files[1].hash = format!("../{}", "a".repeat(61));
        assert!(Checkpoint::parse(&hostile.to_json()).unwrap_err().contains("hash"));
        let mut twice = checkpoint();
        twice.files.push(twice.files[0].clone());
        assert!(Checkpoint::parse(&twice.to_json()).unwrap_err().contains("twice"));
        let mut lacking = checkpoint();
        lacking.files.pop();
        assert!(Checkpoint::parse(&lacking.to_json()).unwrap_err().contains("lacks run.toml"));
        let mut newer = checkpoint();
        newer.format = 2;
        assert!(Checkpoint::parse(&newer.to_json()).unwrap_err().contains("format 2"));
        assert!(Checkpoint::parse(b"{").is_err() && Checkpoint::parse(b"\xff").is_err());
    }
}
