//! The coordinator's inputs on disk, so that its decisions can be made again: a file a term, beside the journal.

use crate::live::say;
use skipstone_protocol::{CoordinatorInput, Opening, encode_input, encode_opening};
use skipstone_types::Term;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Bytes of recorded inputs kept for a run. When a new term begins, those of the oldest ones go; a term that fills it alone
/// is recorded up to here.
const INPUTS_BYTES_MAX: u64 = 64 << 20;

/// Where the inputs of a term lie.
pub fn inputs_path(dir: &Path, term: Term) -> PathBuf {
    dir.join("journal").join(format!("inputs-{}.bin", term.0))
}

/// The terms whose inputs are there, ascending.
pub fn recorded_terms(dir: &Path) -> Vec<Term> {
    let Ok(entries) = fs::read_dir(dir.join("journal")) else { return Vec::new() };
    let mut terms: Vec<Term> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_prefix("inputs-")?.strip_suffix(".bin")?.parse().ok().map(Term)
        })
        .collect();
    terms.sort_unstable();
    terms
}

/// Records a coordinator's inputs. Training never waits for it, and goes on without when the disk refuses.
#[derive(Debug)]
pub(super) struct InputsFile {
    file: Option<BufWriter<File>>,
    bytes: u64,
}

impl InputsFile {
    /// Starts the file of a term.
    pub(super) fn start(dir: &Path, opening: &Opening) -> Self {
        make_room(dir);
        let head = encode_opening(opening);
        let started = File::create(inputs_path(dir, opening.term)).and_then(|file| {
            let mut file = BufWriter::new(file);
            file.write_all(&head)?;
            Ok(file)
        });
        let mut recorder = Self { file: None, bytes: head.len() as u64 };
        match started {
            Ok(file) => recorder.file = Some(file),
            Err(error) => recorder.give_up(&error),
        }
        recorder
    }

    /// Records an input, before the coordinator gets it.
    pub(super) fn record(&mut self, now_us: u64, input: &CoordinatorInput) {
        let Some(file) = &mut self.file else { return };
        let bytes = encode_input(now_us, input);
        self.bytes += bytes.len() as u64;
        if self.bytes > INPUTS_BYTES_MAX {
            self.flush();
            self.file = None;
        } else if let Err(error) = file.write_all(&bytes) {
            self.give_up(&error);
        }
    }

    /// Hands what is recorded to the system: before a decision that follows from it is journalled.
    pub(super) fn flush(&mut self) {
        if let Some(Err(error)) = self.file.as_mut().map(Write::flush) {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        say(&format_args!(
            "inputs are not recorded ({error}); `replay` can't make this term's decisions again"
        ));
        self.file = None;
    }
}

/// Drops the inputs of the oldest terms until half of the room is free.
fn make_room(dir: &Path) {
    let size = |term: &Term| fs::metadata(inputs_path(dir, *term)).map_or(0, |metadata| metadata.len());
    let terms = recorded_terms(dir);
    let mut total: u64 = terms.iter().map(size).sum();
    for term in &terms {
        if total <= INPUTS_BYTES_MAX / 2 {
            return;
        }
        total -= size(term);
        // What can't be removed is only left behind.
        let _ = fs::remove_file(inputs_path(dir, *term));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_terms_make_room() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(dir.path().join("journal")).expect("made");
        for term in [2, 10, 9] {
            let file = File::create(inputs_path(dir.path(), Term(term))).expect("made");
            file.set_len(INPUTS_BYTES_MAX / 4).expect("set");
        }
        assert_eq!(recorded_terms(dir.path()), [Term(2), Term(9), Term(10)]);
        make_room(dir.path());
        assert_eq!(recorded_terms(dir.path()), [Term(9), Term(10)]);
    }
}
