//! Objects as files of a folder.

use crate::StoreError;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(crate) struct Folder {
    url: String,
    dir: PathBuf,
}

impl Folder {
    pub(crate) fn new(url: String, dir: PathBuf) -> Self {
        Self { url, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn failed(&self, path: &Path, source: io::Error) -> StoreError {
        StoreError::Folder { url: self.url.clone(), path: path.to_owned(), source }
    }

    pub(crate) fn put(&self, name: &str, from: &mut File, length: u64) -> Result<(), StoreError> {
        self.write(name, |beside| {
            let copied = io::copy(&mut from.take(length), &mut File::create(beside)?)?;
            if copied == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
        })
    }

    pub(crate) fn put_bytes(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.write(name, |beside| fs::write(beside, bytes))
    }

    fn write(&self, name: &str, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), StoreError> {
        let path = self.path(name);
        let put = || {
            fs::create_dir_all(path.parent().unwrap_or(&self.dir))?;
            skipstone_files::replace(&path, write)?;
            // The folder that it lies in may be new.
            skipstone_files::sync_folder(&self.dir)
        };
        put().map_err(|source| self.failed(&path, source))
    }

    pub(crate) fn get(
        &self,
        name: &str,
        take: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        let path = self.path(name);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(why) => return Err(self.failed(&path, why)),
        };
        let mut piece = vec![0; 1 << 20];
        loop {
            match file.read(&mut piece).map_err(|why| self.failed(&path, why))? {
                0 => return Ok(true),
                length => take(&piece[..length])?,
            }
        }
    }

    pub(crate) fn delete(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(self.failed(&path, why)),
            _ => Ok(()),
        }
    }

    pub(crate) fn list(&self, under: &str) -> Result<Vec<String>, StoreError> {
        let path = self.path(under);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(why) => return Err(self.failed(&path, why)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|why| self.failed(&path, why))?;
            names.extend(entry.file_name().to_str().map(|name| format!("{under}/{name}")));
        }
        Ok(names)
    }
}
