//! Text in documents, from files or from the embedded stories.

use std::fs;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::LoadError;
use crate::story::StoryCorpus;

/// What separates documents in a text file, as TinyStories and others do it.
pub(crate) const END_OF_TEXT: &str = "<|endoftext|>";

/// Bounds of what [`Corpus::load`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of text, over all files.
    pub max_bytes: u64,
    /// How deep folders may be nested.
    pub max_depth: usize,
}

impl Default for Limits {
    /// 2 GiB and 32 levels.
    fn default() -> Self {
        Self { max_bytes: 2 << 30, max_depth: 32 }
    }
}

/// Documents of text, in a fixed order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Corpus {
    text: String,
    documents: Vec<Range<usize>>,
}

impl Corpus {
    /// Reads a text file (any name), a `.jsonl` file (one object with a string `text` a line), or every `.txt`, `.text`,
    /// `.md` and `.jsonl` file under a folder, sorted by path; hidden files and linked folders are passed over. A text file
    /// is one document, or several parted by `<|endoftext|>`. A byte-order mark is dropped; documents of white space only
    /// are too.
    ///
    /// # Errors
    /// When there is nothing, nothing readable, no text, more than `limits`, or text that is not UTF-8.
    pub fn load(path: &Path, limits: Limits) -> Result<Self, LoadError> {
        let io = |source| LoadError::Io { path: path.to_owned(), source };
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LoadError::Missing { path: path.to_owned() });
            }
            Err(error) => return Err(io(error)),
        };
        let mut files = Vec::new();
        if metadata.is_dir() {
            files_under(path, limits.max_depth, limits, &mut files)?;
            if files.is_empty() {
                return Err(LoadError::NoFiles { path: path.to_owned() });
            }
            files.sort();
        } else {
            files.push(path.to_owned());
        }
        let mut corpus = Self::default();
        let mut left = limits.max_bytes;
        for file in files {
            let text = read_text(&file, left).map_err(|error| match error {
                LoadError::TooLarge { .. } => {
                    LoadError::TooLarge { path: path.to_owned(), limit: limits.max_bytes }
                }
                other => other,
            })?;
            left -= text.len() as u64;
            corpus.add_file(&file, &text)?;
        }
        if corpus.documents.is_empty() {
            return Err(LoadError::Empty { path: path.to_owned() });
        }
        Ok(corpus)
    }

    /// A corpus of these documents; empty ones are left out.
    pub fn from_documents<'d>(documents: impl IntoIterator<Item = &'d str>) -> Self {
        let mut corpus = Self::default();
        for document in documents {
            corpus.push(document);
        }
        corpus
    }

    /// The documents in order.
    pub fn documents(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.documents.iter().map(|range| &self.text[range.clone()])
    }

    /// Bytes of text, over all documents.
    pub fn bytes(&self) -> usize {
        self.documents.iter().map(ExactSizeIterator::len).sum()
    }

    /// How many documents there are.
    pub fn len(&self) -> usize {
        self.documents.len()
    }

    /// Whether there is no document.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    fn push(&mut self, document: &str) {
        if document.trim().is_empty() {
            return;
        }
        let start = self.text.len();
        self.text.push_str(document);
        self.documents.push(start..self.text.len());
    }

    fn add_file(&mut self, path: &Path, text: &str) -> Result<(), LoadError> {
        if extension_of(path).as_deref() == Some("jsonl") {
            #[derive(serde::Deserialize)]
            struct Line {
                text: String,
            }
            for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                let line: Line = serde_json::from_str(line).map_err(|error| LoadError::BadLine {
                    path: path.to_owned(),
                    line: i + 1,
                    why: error.to_string(),
                })?;
                self.push(&line.text);
            }
        } else if text.contains(END_OF_TEXT) {
            text.split(END_OF_TEXT).for_each(|document| self.push(document.trim_matches('\n')));
        } else {
            self.push(text);
        }
        Ok(())
    }
}

impl From<StoryCorpus> for Corpus {
    /// One document a story, without its line end.
    fn from(stories: StoryCorpus) -> Self {
        let mut documents = Vec::with_capacity(stories.stories);
        let mut start = 0;
        for line in stories.text.split_inclusive('\n') {
            documents.push(start..start + line.trim_end_matches('\n').len());
            start += line.len();
        }
        Self { text: stories.text, documents }
    }
}

fn extension_of(path: &Path) -> Option<String> {
    Some(path.extension()?.to_str()?.to_ascii_lowercase())
}

/// Collects the files of a known kind under `folder`, at most `depth` levels down.
fn files_under(
    folder: &Path,
    depth: usize,
    limits: Limits,
    files: &mut Vec<PathBuf>,
) -> Result<(), LoadError> {
    let io = |source| LoadError::Io { path: folder.to_owned(), source };
    if depth == 0 {
        return Err(LoadError::TooDeep { path: folder.to_owned(), limit: limits.max_depth });
    }
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_name().as_encoded_bytes().first() == Some(&b'.') {
            continue;
        }
        let path = entry.path();
        if entry.file_type().map_err(io)?.is_dir() {
            files_under(&path, depth - 1, limits, files)?;
        } else if matches!(extension_of(&path).as_deref(), Some("txt" | "text" | "md" | "jsonl"))
            && fs::metadata(&path).is_ok_and(|metadata| metadata.is_file())
        {
            files.push(path);
        }
    }
    Ok(())
}

/// The text of a file of at most `limit` bytes, without a byte-order mark.
fn read_text(path: &Path, limit: u64) -> Result<String, LoadError> {
    let io = |source| LoadError::Io { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(io)?;
    let too_large = || LoadError::TooLarge { path: path.to_owned(), limit };
    let expected = file.metadata().map_err(io)?.len();
    if expected > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(expected as usize);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    let mut text = String::from_utf8(bytes).map_err(|error| LoadError::NotUtf8 {
        path: path.to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}
