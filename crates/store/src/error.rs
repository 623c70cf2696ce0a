//! Why a store can't be used.

use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a store can't be used. Every message names the store, and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The URL names nothing that this program can write to.
    #[error(
        "{url}: {why}; give a folder, file:///PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
    )]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The program was built without what the URL needs.
    #[error(
        "{url}: this skipstone was built without object stores; build it with --features object-store, or give a folder"
    )]
    NotBuilt {
        /// The URL.
        url: String,
    },
    /// The system refuses a folder.
    #[error("{url}: {}: {source}; check the path, its permissions and the free space", path.display())]
    Folder {
        /// The store.
        url: String,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The object store refuses, or can't be reached.
    #[error("{url}: {what} failed: {why}; check {remedy}, and that the store can be reached from here")]
    Cloud {
        /// The store.
        url: String,
        /// What was done.
        what: String,
        /// The store's reason.
        why: String,
        /// What its settings are called.
        remedy: &'static str,
    },
    /// The store does not give back what it was given.
    #[error("{url}: {what}; check that nothing else writes there, or give another URL")]
    Damaged {
        /// The store.
        url: String,
        /// What is wrong.
        what: String,
    },
    /// A file here can't be read or written.
    #[error("{}: {source}; check the path, its permissions and the free space", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}
