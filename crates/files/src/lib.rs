//! Files that are there whole or not at all, whenever the process or the machine dies.
//!
//! A file is written beside its place, synced, and renamed into it; then the folder is synced, for a rename alone may
//! not outlast a power cut. A reader sees the old file or the new one. One writer at a time for a path of a process;
//! two processes don't disturb each other, and the last one to rename wins.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The bytes of a file, if there are no more than `bytes_max` of them. What a path names may be anything, a device
/// without an end too: no more than that is ever read.
///
/// # Errors
/// The file system's, or [`io::ErrorKind::FileTooLarge`].
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 <= bytes_max {
        return Ok(bytes);
    }
    let why = format!("it is larger than {bytes_max} bytes, the most that is read");
    Err(io::Error::new(io::ErrorKind::FileTooLarge, why))
}

/// The text of a file, if it has no more than `bytes_max` bytes.
///
/// # Errors
/// As [`read`], and [`io::ErrorKind::InvalidData`] where it is not UTF-8.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    String::from_utf8(read(path, bytes_max)?).map_err(|error| {
        let why = format!("it is not UTF-8 at byte {}", error.utf8_error().valid_up_to());
        io::Error::new(io::ErrorKind::InvalidData, why)
    })
}

/// Makes `path` a file of `parts`, one after the other.
///
/// # Errors
/// The file system's; then `path` is as it was, and nothing is left beside it.
pub fn write(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    replace(path, |beside| {
        let mut file = File::create(beside)?;
        parts.iter().try_for_each(|part| file.write_all(part))
    })
}

/// Makes `path` the file that `write` makes under the name that it is given, in the same folder.
///
/// # Errors
/// What `write` says, or the file system; then `path` is as it was, and nothing is left beside it.
pub fn replace(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let beside = beside(path)?;
    let replaced = write(&beside).and_then(|()| sync(&beside)).and_then(|()| fs::rename(&beside, path));
    if replaced.is_err() {
        // What failed is reported; a leftover beside it, which may not exist, is not worth another error.
        let _ = fs::remove_file(&beside);
        return replaced;
    }
    sync_folder(folder_of(path))
}

/// Has the system write everything of a file to the disk.
///
/// # Errors
/// The file system's.
pub fn sync(file: &Path) -> io::Result<()> {
    File::open(file)?.sync_all()
}

/// Makes what was renamed, made or removed in a folder last, where folders can be opened.
///
/// # Errors
/// The file system's.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { sync(folder) } else { Ok(()) }
}

/// The folder that holds `path`.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `.NAME.PROCESS.tmp` in the folder of `path`.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let mut beside = OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}.tmp", std::process::id()));
    Ok(path.with_file_name(beside))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write(&path, &[b"one", b" ", b"two"]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one two");
        write(&path, &[b"3"]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"3");
        assert_eq!(names(dir.path()), ["a.json"]);
    }

    #[test]
    fn no_more_is_read_than_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, &[b"caf\xc3\xa9"]).unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "caf\u{e9}");
        assert_eq!(read(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        write(&path, &[b"caf\xe9"]).unwrap();
        assert_eq!(read_text(&path, 5).unwrap_err().to_string(), "it is not UTF-8 at byte 3");
        #[cfg(target_os = "linux")]
        assert!(read(Path::new("/dev/zero"), 1 << 16).unwrap_err().to_string().contains("larger than 65536"));
    }

    #[test]
    fn what_was_there_stays_if_the_new_file_cannot_be_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, &[b"old"]).unwrap();
        let error = replace(&path, |beside| {
            fs::write(beside, "half a f")?;
            Err(io::Error::other("the disk is full"))
        });
        assert_eq!(error.unwrap_err().to_string(), "the disk is full");
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"old".to_vec(), vec!["a".to_owned()]));
        // A folder can't be replaced by a file.
        let folder = dir.path().join("b");
        fs::create_dir(&folder).unwrap();
        assert!(write(&folder, &[b"x"]).is_err());
        assert_eq!(names(dir.path()), ["a", "b"]);
        assert!(write(Path::new("/"), &[b"x"]).is_err());
    }
}
