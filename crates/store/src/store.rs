//! A store of objects.

use crate::folder::Folder;
use crate::{Location, StoreError};
use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;

/// Objects by name, each there whole or not at all.
#[derive(Debug)]
pub struct Store {
    url: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Folder(Folder),
    #[cfg(feature = "cloud")]
    Cloud(crate::cloud::Cloud),
}

impl Store {
    /// The store at a path or URL. Nothing is read or written yet.
    ///
    /// # Errors
    /// [`StoreError::Url`], [`StoreError::NotBuilt`], and settings in the environment that can't be.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let kind = match Location::parse(url)? {
            Location::Folder { url, path } => Kind::Folder(Folder::new(url, path)),
            #[cfg(feature = "cloud")]
            Location::Cloud { url, scheme, bucket, prefix } => {
                Kind::Cloud(crate::cloud::Cloud::open(&url, scheme, &bucket, prefix)?)
            }
            #[cfg(not(feature = "cloud"))]
            Location::Cloud { url, .. } => return Err(StoreError::NotBuilt { url }),
        };
        Ok(Self { url: url.to_owned(), kind })
    }

    /// As it was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Writes a small object, reads it back, and deletes it: what can't work is known now.
    ///
    /// # Errors
    /// The store's.
    pub fn try_out(&self) -> Result<(), StoreError> {
        let name = format!("try-{}", std::process::id());
        let text = b"skipstone writes this to see whether it may, and deletes it";
        self.put_bytes(&name, text)?;
        let back = self.get_bytes(&name, text.len() as u64);
        self.delete(&name)?;
        if back?.as_deref() == Some(text) {
            return Ok(());
        }
        let what = "what was written can't be read back".to_owned();
        Err(StoreError::Damaged { url: self.url.clone(), what })
    }

    /// Makes `length` bytes of a file, from its beginning, the object `name`.
    ///
    /// # Errors
    /// The store's, or the file's; then the object is as it was.
    pub fn put_file(&self, name: &str, file: &mut File, length: u64) -> Result<(), StoreError> {
        let unreadable = |source| StoreError::File { path: name.into(), source };
        file.rewind().map_err(unreadable)?;
        match &self.kind {
            Kind::Folder(folder) => folder.put(name, file, length),
            #[cfg(feature = "cloud")]
            Kind::Cloud(cloud) => cloud.put(name, file, length),
        }
    }

    /// Makes these bytes the object `name`.
    ///
    /// # Errors
    /// The store's; then the object is as it was.
    pub fn put_bytes(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Folder(folder) => folder.put_bytes(name, bytes),
            #[cfg(feature = "cloud")]
            Kind::Cloud(cloud) => cloud.put_bytes(name, bytes),
        }
    }

    /// The object's bytes; none if it isn't there.
    ///
    /// # Errors
    /// The store's, and an object of more than `bytes_max` bytes.
    pub fn get_bytes(&self, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let mut bytes = Vec::new();
        let there = self.get(name, &mut |piece| {
            bytes.extend_from_slice(piece);
            if bytes.len() as u64 <= bytes_max {
                return Ok(());
            }
            Err(self.damaged(format!("{name} is larger than {bytes_max} bytes, the most that it may be")))
        })?;
        Ok(there.then_some(bytes))
    }

    /// Makes the object a file at `to`, written beside it, checked and renamed.
    ///
    /// # Errors
    /// The store's, the file's, and an object that is missing, or is not of this length and BLAKE3 hash (in hexadecimal).
    pub fn get_file(&self, name: &str, to: &Path, length: u64, hash: &str) -> Result<(), StoreError> {
        let unwritable = |source| StoreError::File { path: to.to_owned(), source };
        let mut failed = None;
        let written = skipstone_files::replace(to, |beside| {
            let mut file = File::create(beside)?;
            let (mut had, mut hasher) = (0, blake3::Hasher::new());
            let got = self.get(name, &mut |piece| {
                had += piece.len() as u64;
                if had > length {
                    return Err(self.damaged(format!("{name} is longer than {length} bytes")));
                }
                hasher.update(piece);
                file.write_all(piece).map_err(unwritable)
            });
            let why = match got {
                Err(error) => error,
                Ok(false) => self.damaged(format!("{name} is missing")),
                Ok(true) if had < length || hasher.finalize().to_hex().as_str() != hash => {
                    self.damaged(format!("{name} has other bytes than were written"))
                }
                Ok(true) => return Ok(()),
            };
            failed = Some(why);
            Err(std::io::Error::other("it can't be had"))
        });
        match (failed, written) {
            (Some(why), _) => Err(why),
            (None, written) => written.map_err(unwritable),
        }
    }

    /// Deletes an object, if it is there.
    ///
    /// # Errors
    /// The store's.
    pub fn delete(&self, name: &str) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Folder(folder) => folder.delete(name),
            #[cfg(feature = "cloud")]
            Kind::Cloud(cloud) => cloud.delete(name),
        }
    }

    /// Names of the objects `under/…`, in no order.
    ///
    /// # Errors
    /// The store's.
    pub fn list(&self, under: &str) -> Result<Vec<String>, StoreError> {
        match &self.kind {
            Kind::Folder(folder) => folder.list(under),
            #[cfg(feature = "cloud")]
            Kind::Cloud(cloud) => cloud.list(under),
        }
    }

    fn get(
        &self,
        name: &str,
        take: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        match &self.kind {
            Kind::Folder(folder) => folder.get(name, take),
            #[cfg(feature = "cloud")]
            Kind::Cloud(cloud) => cloud.get(name, take),
        }
    }

    fn damaged(&self, what: String) -> StoreError {
        StoreError::Damaged { url: self.url.clone(), what }
    }
}
