//! Loading text.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use skipstone_data::story::StoryCorpus;
use skipstone_data::{Corpus, Limits, LoadError};
use tempfile::TempDir;

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
    folder
}

fn load(path: &Path) -> Result<Corpus, LoadError> {
    Corpus::load(path, Limits::default())
}

fn documents(path: &Path) -> Vec<String> {
    load(path).unwrap().documents().map(str::to_owned).collect()
}

#[test]
fn a_folder_is_read_in_the_order_of_its_paths() {
    let folder = folder(&[
        ("b.txt", b"second"),
        ("a/z.md", "\u{feff}first \u{e4}".as_bytes()),
        ("c/d/e.jsonl", b"{\"text\": \"third\", \"id\": 3}\n\n{\"text\": \"fourth\\n\"}\n{\"text\": \" \"}"),
        ("d.TEXT", b"<|endoftext|>\nfifth\n<|endoftext|>\nsixth<|endoftext|>\n"),
        (".hidden.txt", b"no"),
        (".git/x.txt", b"no"),
        ("image.png", b"\xff\xd8"),
    ]);
    let expected = ["first \u{e4}", "second", "third", "fourth\n", "fifth", "sixth"];
    assert_eq!(documents(folder.path()), expected);
    let corpus = load(folder.path()).unwrap();
    assert_eq!((corpus.len(), corpus.bytes()), (6, expected.iter().map(|text| text.len()).sum()));
    assert_eq!(corpus, Corpus::from_documents(expected).clone());
}

#[test]
fn any_single_file_is_text() {
    let folder = folder(&[("README", b"hello\n")]);
    assert_eq!(documents(&folder.path().join("README")), ["hello\n"]);
}

#[test]
fn every_error_names_what_and_where() {
    let folder = folder(&[
        ("latin.txt", b"caf\xe9"),
        ("lines.jsonl", b"{\"text\": \"a\"}\n\n{\"txt\": \"b\"}\n"),
        ("empty.txt", b" \n"),
        ("none/image.png", b"x"),
        ("deep/a/b/c.txt", b"x"),
        ("large/a.txt", b"12345"),
        ("large/b.txt", b"12345"),
    ]);
    let at = |name: &str| folder.path().join(name);
    assert!(
        matches!(load(&at("latin.txt")), Err(LoadError::NotUtf8 { offset: 3, path }) if path == at("latin.txt"))
    );
    assert!(matches!(load(&at("lines.jsonl")), Err(LoadError::BadLine { line: 3, .. })));
    assert!(matches!(load(&at("empty.txt")), Err(LoadError::Empty { .. })));
    assert!(matches!(load(&at("none")), Err(LoadError::NoFiles { .. })));
    assert!(matches!(load(&at("absent")), Err(LoadError::Missing { .. })));
    let limits = Limits { max_bytes: 9, max_depth: 2 };
    assert!(matches!(Corpus::load(&at("deep"), limits), Err(LoadError::TooDeep { limit: 2, .. })));
    assert!(
        matches!(Corpus::load(&at("large"), limits), Err(LoadError::TooLarge { limit: 9, path }) if path == at("large"))
    );
    assert!(Corpus::load(&at("large"), Limits { max_bytes: 10, ..limits }).is_ok());
    let message = load(&at("latin.txt")).unwrap_err().to_string();
    assert!(message.contains("latin.txt is not UTF-8 at byte 3") && message.contains("iconv"), "{message}");
}

#[test]
fn stories_are_documents_without_their_line_ends() {
    let stories = StoryCorpus::generate(9, 5000);
    let corpus = Corpus::from(stories.clone());
    assert_eq!(corpus.documents().collect::<Vec<_>>(), stories.text.lines().collect::<Vec<_>>());
    assert_eq!(corpus.len(), stories.stories);
    assert!(corpus.documents().all(|story| story.contains(" At last the ") && story.ends_with('.')));
}
