//! Where checkpoints go beyond the run's own folder: a folder, or an object store by its URL.
//!
//! A [`Store`] holds objects by name, each there whole or not at all. A plain path and `file:///…` are folders;
//! `s3://`, `gs://` and `az://` need the feature `cloud`, and take their credentials from the environment. Calls block; each
//! ends, for every request and the pauses between its tries have a bound.

#[cfg(feature = "cloud")]
mod cloud;
mod error;
mod folder;
mod location;
mod store;

pub use error::StoreError;
pub use location::{Location, Scheme};
pub use store::Store;
