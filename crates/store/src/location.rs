//! Names of stores, as people give them.

use crate::StoreError;
use std::fmt;
use std::path::PathBuf;

/// What kind of store a URL names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `s3://`: Amazon S3, and what speaks like it.
    S3,
    /// `gs://`: Google Cloud Storage.
    Gs,
    /// `az://`: Azure Blob Storage.
    Az,
}

/// A store's name, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A folder.
    Folder {
        /// As it was given.
        url: String,
        /// The folder.
        path: PathBuf,
    },
    /// A place in an object store.
    Cloud {
        /// As it was given.
        url: String,
        /// What kind of store.
        scheme: Scheme,
        /// Bucket or container.
        bucket: String,
        /// What object names begin with: parts without a slash at either end; empty for the whole bucket.
        prefix: String,
    },
}

impl Location {
    /// Reads a path or a URL.
    ///
    /// # Errors
    /// [`StoreError::Url`].
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let refuse = |why: &str| StoreError::Url { url: text.to_owned(), why: why.to_owned() };
        if text.trim().is_empty() || text.chars().any(char::is_control) {
            return Err(refuse("it names nothing"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self::Folder { url: text.to_owned(), path: PathBuf::from(text) });
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "file" => {
                let path = rest.strip_prefix("localhost").unwrap_or(rest);
                if !path.starts_with('/') {
                    return Err(refuse("file: takes a path from the root, with three slashes"));
                }
                let path = decoded(path)
                    .ok_or_else(|| refuse("a % in a URL stands before two hexadecimal digits"))?;
                return Ok(Self::Folder { url: text.to_owned(), path: PathBuf::from(path) });
            }
            "s3" | "s3a" => Scheme::S3,
            "gs" => Scheme::Gs,
            "az" | "azure" => Scheme::Az,
            other => return Err(refuse(&format!("{other}:// is no store that is known here"))),
        };
        if rest.contains('@') {
            return Err(refuse(
                "credentials don't belong in a URL, which is logged: they are read from the environment",
            ));
        }
        if rest.contains(['?', '#', '\\']) {
            return Err(refuse("a store's URL has no query, fragment or backslash"));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(refuse("the bucket is missing"));
        }
        if !bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(refuse("a bucket's name has letters, digits, dots, hyphens and underscores"));
        }
        let prefix = prefix.trim_matches('/').to_owned();
        if prefix.split('/').any(|part| matches!(part, "." | "..") || (part.is_empty() && !prefix.is_empty()))
        {
            return Err(refuse("the parts of its path are names"));
        }
        Ok(Self::Cloud { url: text.to_owned(), scheme, bucket: bucket.to_owned(), prefix })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Folder { url, .. } | Self::Cloud { url, .. }) = self;
        f.write_str(url)
    }
}

/// `%20` and the like as what they stand for.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        bytes.push((16 * digit()? + digit()?) as u8);
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_urls_of_folders() {
        for (text, path) in [
            ("backup", "backup"),
            ("/mnt/run", "/mnt/run"),
            ("file:///mnt/run%201", "/mnt/run 1"),
            ("FILE://localhost/mnt", "/mnt"),
        ] {
            let want = Location::Folder { url: text.to_owned(), path: PathBuf::from(path) };
            assert_eq!(Location::parse(text).unwrap(), want);
        }
    }

    #[test]
    fn urls_of_object_stores() {
        let cloud = |text: &str| match Location::parse(text).unwrap() {
            Location::Cloud { scheme, bucket, prefix, .. } => (scheme, bucket, prefix),
            folder @ Location::Folder { .. } => panic!("{folder:?}"),
        };
        assert_eq!(cloud("s3://b"), (Scheme::S3, "b".to_owned(), String::new()));
        assert_eq!(cloud("gs://b.x/runs/7/"), (Scheme::Gs, "b.x".to_owned(), "runs/7".to_owned()));
        assert_eq!(cloud("az://c/r"), (Scheme::Az, "c".to_owned(), "r".to_owned()));
        for (bad, why) in [
            ("", "nothing"),
            ("s3://", "bucket is missing"),
            ("s3:///x", "bucket is missing"),
            ("s3://key:secret@bucket/x", "environment"),
            ("s3://b/x?versionId=3", "no query"),
            ("s3://b/a/../c", "names"),
            ("s3://b/a//c", "names"),
            ("ftp://host/x", "ftp:// is no store"),
            ("https://b.s3.amazonaws.com/x", "https:// is no store"),
            ("file://x", "three slashes"),
            ("file:///x%2", "hexadecimal"),
            ("file:///x%00", "hexadecimal"),
            ("s3://b c/x", "bucket's name"),
        ] {
            let told = Location::parse(bad).unwrap_err().to_string();
            assert!(told.contains(why) && told.contains("s3://BUCKET"), "{bad}: {told}");
        }
    }
}
