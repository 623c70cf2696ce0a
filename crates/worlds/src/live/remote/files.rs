//! Files that cross the network: the tokens and saved states. Both sides know by the path alone what may be asked for.

use super::ask::{Answer, Ask, PIECE_BYTES, ask};
use crate::live::store::RunFiles;
use skipstone_net::{InternetReach, PeerKey, Requester};
use skipstone_types::{Iteration, StageId};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The tokens' path in the run's folder.
pub(super) const TOKENS: &str = "data/tokens.bin";

/// Whether a path in a run's folder names something that nodes of other machines may have.
pub(super) fn may_read(path: &str) -> bool {
    path == TOKENS || saved_stage(path).is_some()
}

/// The iteration and stage whose saved state a path in a run's folder names, if it names one.
pub(super) fn saved_stage(path: &str) -> Option<(Iteration, StageId)> {
    let (iteration, name) = path.strip_prefix("state/")?.split_once('/')?;
    let (stage, digest) = name.strip_prefix("stage-")?.strip_suffix(".safetensors")?.split_once('-')?;
    let (iteration, stage) = (Iteration(number(iteration)?), StageId(number(stage)?));
    (digest.len() == 16 && digest.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some((iteration, stage))
}

/// A number as it is in a name: one number has one name.
fn number<T: FromStr + ToString>(text: &str) -> Option<T> {
    text.parse().ok().filter(|number: &T| number.to_string() == text)
}

/// BLAKE3 of a file, in hexadecimal.
pub(super) fn digest_of(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// A piece of a file, and the whole file's length.
pub(super) fn read_piece(path: &Path, offset: u64) -> io::Result<(Vec<u8>, u64)> {
    let mut file = File::open(path)?;
    let total = file.metadata()?.len();
    file.seek(SeekFrom::Start(offset.min(total)))?;
    let mut piece = Vec::new();
    file.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok((piece, total))
}

/// Takes a piece of a file that comes from the owner of `from`; whether the file is whole now.
///
/// # Errors
/// The file system's, and a piece that does not follow the one before.
pub(super) fn write_piece(
    path: &Path,
    from: &PeerKey,
    offset: u64,
    piece: &[u8],
    total: u64,
    digest: &str,
) -> io::Result<bool> {
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| wrong("no name"))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let beside = folder.join(format!(".{name}.{}", from.short()));
    if offset == 0 {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create(offset == 0).truncate(offset == 0).open(&beside)?;
    if file.metadata()?.len() != offset {
        return Err(wrong("a piece is missing before it; begin again"));
    }
    let end = offset + piece.len() as u64;
    if end > total || (piece.is_empty() && end < total) {
        return Err(wrong("the pieces are not of the length that was said"));
    }
    file.seek(SeekFrom::End(0))?;
    file.write_all(piece)?;
    if end < total {
        return Ok(false);
    }
    file.sync_all()?;
    drop(file);
    if digest_of(&beside)? != digest {
        fs::remove_file(&beside)?;
        return Err(wrong("the file that arrived is not the one that was sent; begin again"));
    }
    fs::rename(&beside, path)?;
    skipstone_files::sync_folder(folder)?;
    Ok(true)
}

/// The run's folder, as a node of another machine sees it: what it lacks it gets from the coordinator's machine, and what it
/// saves it brings there.
#[derive(Clone)]
pub(in crate::live) struct RemoteFiles {
    requester: Requester,
    host: InternetReach,
    dir: PathBuf,
}

impl RemoteFiles {
    /// `dir` stands for the run's folder on this machine.
    pub(in crate::live) fn new(requester: Requester, host: InternetReach, dir: PathBuf) -> Self {
        Self { requester, host, dir }
    }

    fn name(&self, path: &Path) -> io::Result<String> {
        let inside = path.strip_prefix(&self.dir).ok().and_then(Path::to_str);
        let name = inside.map(|inside| inside.replace('\\', "/"));
        name.ok_or_else(|| io::Error::other(format!("{} is not in the run's folder", path.display())))
    }

    fn piece(&self, name: &str, offset: u64) -> io::Result<(Answer, Vec<u8>)> {
        let question = Ask::Read { path: name.to_owned(), offset };
        ask(&self.requester, &self.host, &question, &[]).map_err(io::Error::other)
    }
}

impl RunFiles for RemoteFiles {
    /// What came before a failure stays, and is gone on from.
    fn fetch(&self, path: &Path) -> io::Result<()> {
        if path.exists() {
            return Ok(());
        }
        let name = self.name(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        // Another node of this machine may need the same file: it waits, and then finds it there.
        let waits = File::create(path.with_extension("lock"))?;
        waits.lock()?;
        if path.exists() {
            return Ok(());
        }
        let part = path.with_extension("part");
        let mut file = OpenOptions::new().create(true).append(true).open(&part)?;
        let mut have = file.metadata()?.len();
        // The first piece says what the whole is, wherever the rest is gone on from.
        let (Answer::Piece { total, digest }, first) = self.piece(&name, 0)? else {
            return Err(unexpected());
        };
        if have == 0 {
            file.write_all(&first)?;
            have = first.len() as u64;
        }
        while have < total {
            let (_, piece) = self.piece(&name, have)?;
            if piece.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            file.write_all(&piece)?;
            have += piece.len() as u64;
        }
        file.sync_all()?;
        drop(file);
        if digest.is_some_and(|digest| digest_of(&part).ok() != Some(digest)) {
            fs::remove_file(&part)?;
            return Err(io::Error::other(format!("{name} arrived damaged; it is fetched anew next time")));
        }
        fs::rename(&part, path)
    }

    fn deliver(&self, path: &Path) -> io::Result<()> {
        let name = self.name(path)?;
        let digest = digest_of(path)?;
        let mut offset = 0;
        loop {
            let (piece, total) = read_piece(path, offset)?;
            let question = Ask::Write { path: name.clone(), offset, total, digest: digest.clone() };
            ask(&self.requester, &self.host, &question, &piece).map_err(io::Error::other)?;
            offset += piece.len() as u64;
            if offset >= total {
                break;
            }
        }
        fs::remove_file(path)
    }
}

impl std::fmt::Debug for RemoteFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteFiles").field("host", &self.host.key).finish_non_exhaustive()
    }
}

fn unexpected() -> io::Error {
    io::Error::other("the coordinator answers something else")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_and_states_have_names() {
        let state = "state/12/stage-3-0123456789abcdef.safetensors";
        assert_eq!(saved_stage(state), Some((Iteration(12), StageId(3))));
        assert!(may_read(state) && may_read(TOKENS) && saved_stage(TOKENS).is_none());
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "join/key",
            "run.toml",
            "state/../join/key",
            "data/../join/key",
            "state/1/stage-1-0123456789abcde.safetensors",
            "state/x/stage-1-0123456789abcdef.safetensors",
            "state/1/../stage-1-0123456789abcdef.safetensors",
            "state/1/stage--0123456789abcdef.safetensors",
            "state/01/stage-1-0123456789abcdef.safetensors",
            "state/1/stage-+1-0123456789abcdef.safetensors",
            "state/1/stage-65536-0123456789abcdef.safetensors",
            "state/state.json",
            "state//stage-1-0123456789abcdef.safetensors",
        ] {
            assert!(!may_read(bad), "{bad}");
        }
    }

    #[test]
    fn a_file_arrives_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (path, from) = (dir.path().join("state").join("5").join("s"), PeerKey([3; 32]));
        let digest = blake3::hash(b"abcdef").to_hex().to_string();
        let write = |offset, piece: &[u8], total| write_piece(&path, &from, offset, piece, total, &digest);
        assert!(write(3, b"def", 6).is_err(), "it begins in the middle");
        assert!(!write(0, b"abc", 6).unwrap());
        assert!(write(2, b"cde", 6).is_err(), "a piece that does not follow");
        assert!(write(3, b"defg", 6).is_err(), "longer than was said");
        assert!(!path.exists());
        assert!(write(3, b"def", 6).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"abcdef");
        assert!(write(0, b"abcdeX", 6).is_err(), "other bytes");
        assert_eq!(fs::read(&path).unwrap(), b"abcdef", "what was there stays");
    }
}
