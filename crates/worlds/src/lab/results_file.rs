//! `results.jsonl`: a line for every arm that is done. Lines are added as arms end, and put in the experiment's order at its
//! end.

use super::{ArmResult, LabError};
use crate::text;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The largest file that is read, in bytes.
const BYTES_MAX: u64 = 1 << 30;

/// The results in a folder.
#[derive(Debug)]
pub struct ResultsFile {
    path: PathBuf,
    results: BTreeMap<String, ArmResult>,
}

impl ResultsFile {
    /// The name in its folder.
    pub const NAME: &'static str = "results.jsonl";

    /// What is in the folder `dir`; nothing if there is no such file. A last line that was cut short is dropped.
    ///
    /// # Errors
    /// A file that can't be read, or that is another's.
    pub fn open(dir: &Path) -> Result<Self, LabError> {
        let path = dir.join(Self::NAME);
        let content = match skipstone_files::read_text(&path, BYTES_MAX) {
            Ok(content) => content,
            Err(why) if why.kind() == ErrorKind::NotFound => String::new(),
            Err(source) => return Err(LabError::Read { path, source }),
        };
        let mut results = BTreeMap::new();
        let whole = content.ends_with('\n') || content.is_empty();
        let count = content.lines().count();
        for (index, line) in content.lines().enumerate() {
            match text::from_json::<ArmResult>(line) {
                Ok(result) => _ = results.insert(result.key.clone(), result),
                Err(_) if !whole && index + 1 == count => {}
                Err(why) => return Err(LabError::Results { path, line: index + 1, why }),
            }
        }
        let file = Self { path, results };
        if !whole {
            file.rewrite(&[])?;
        }
        Ok(file)
    }

    /// The result of an arm with this key.
    pub fn get(&self, key: &str) -> Option<&ArmResult> {
        self.results.get(key)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.results.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.results.is_empty()
    }

    /// Adds a result, and has it on disk.
    ///
    /// # Errors
    /// The file system's.
    pub fn add(&mut self, result: ArmResult) -> Result<(), LabError> {
        let failed = |source| LabError::Write { path: self.path.clone(), source };
        let line = line_of(&result);
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path).map_err(failed)?;
        file.write_all(line.as_bytes()).and_then(|()| file.sync_data()).map_err(failed)?;
        self.results.insert(result.key.clone(), result);
        Ok(())
    }

    /// Writes the file anew: these first and in this order, then all others, by key.
    ///
    /// # Errors
    /// The file system's; then the file is as it was.
    pub fn rewrite(&self, first: &[&str]) -> Result<(), LabError> {
        let others = self.results.keys().map(String::as_str).filter(|key| !first.contains(key));
        let lines: String = first
            .iter()
            .copied()
            .chain(others)
            .filter_map(|key| self.results.get(key))
            .map(line_of)
            .collect();
        skipstone_files::write(&self.path, &[lines.as_bytes()])
            .map_err(|source| LabError::Write { path: self.path.clone(), source })
    }
}

fn line_of(result: &ArmResult) -> String {
    // Numbers, texts and lists are always written.
    serde_json::to_string(result).unwrap_or_default() + "\n"
}
