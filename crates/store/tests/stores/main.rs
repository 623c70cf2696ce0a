//! Folders and object stores behave alike.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(feature = "cloud")]
mod s3_server;

use skipstone_store::{Store, StoreError};
use std::fs::{self, File};
use std::path::Path;

fn put_file(store: &Store, dir: &Path, name: &str, bytes: &[u8]) -> String {
    let path = dir.join("source");
    fs::write(&path, bytes).unwrap();
    store.put_file(name, &mut File::open(&path).unwrap(), bytes.len() as u64).unwrap();
    blake3::hash(bytes).to_hex().to_string()
}

/// What every store does. `large` is more bytes than go at once.
fn keeps_its_promises(store: &Store, large: usize) {
    let dir = tempfile::tempdir().unwrap();
    store.try_out().unwrap();
    assert_eq!(store.get_bytes("checkpoint.json", 100).unwrap(), None, "nothing is left of the trial");
    assert_eq!(store.list("parts").unwrap(), Vec::<String>::new());
    store.put_bytes("checkpoint.json", b"one").unwrap();
    store.put_bytes("checkpoint.json", b"three").unwrap();
    assert_eq!(store.get_bytes("checkpoint.json", 5).unwrap().unwrap(), b"three");
    let told = store.get_bytes("checkpoint.json", 4).unwrap_err().to_string();
    assert!(told.contains("larger than 4") && told.starts_with(store.url()), "{told}");

    let bytes: Vec<u8> = (0..large).map(|at| (at * at % 251) as u8).collect();
    let hash = put_file(store, dir.path(), "parts/a", &bytes);
    put_file(store, dir.path(), "parts/empty", b"");
    let mut names = store.list("parts").unwrap();
    names.sort();
    assert_eq!(names, ["parts/a", "parts/empty"]);
    let to = dir.path().join("back");
    store.get_file("parts/a", &to, bytes.len() as u64, &hash).unwrap();
    assert!(fs::read(&to).unwrap() == bytes);
    fs::remove_file(&to).unwrap();
    for (name, length, hash, why) in [
        ("parts/b", bytes.len(), hash.as_str(), "missing"),
        ("parts/a", bytes.len() - 1, hash.as_str(), "longer"),
        ("parts/a", bytes.len() + 1, hash.as_str(), "other bytes"),
        ("parts/a", bytes.len(), "00", "other bytes"),
    ] {
        let told = store.get_file(name, &to, length as u64, hash).unwrap_err().to_string();
        assert!(told.contains(why) && told.starts_with(store.url()), "{told}");
        assert!(!to.exists(), "nothing that is wrong gets its name");
    }
    store.delete("parts/a").unwrap();
    store.delete("parts/a").unwrap();
    assert_eq!(store.list("parts").unwrap(), ["parts/empty"]);
    let mut short = File::open(dir.path().join("source")).unwrap();
    assert!(store.put_file("parts/short", &mut short, 10).is_err());
    assert_eq!(store.list("parts").unwrap(), ["parts/empty"], "a file that ended early is no object");
}

#[test]
fn a_folder_is_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a").join("b c");
    keeps_its_promises(&Store::open(path.to_str().unwrap()).unwrap(), 3 << 20);
    let url = format!("file://{}", dir.path().join("d%20e").display());
    keeps_its_promises(&Store::open(&url).unwrap(), 100);
    assert!(dir.path().join("d e").join("checkpoint.json").is_file());
}

#[test]
fn a_folder_that_cannot_be_written_is_known_at_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let store = Store::open(dir.path().join("file").to_str().unwrap()).unwrap();
    let told = store.try_out().unwrap_err();
    assert!(matches!(told, StoreError::Folder { .. }), "{told}");
    assert!(told.to_string().contains("check the path"), "{told}");
}

#[cfg(not(feature = "cloud"))]
#[test]
fn what_was_not_built_is_told() {
    let told = Store::open("s3://bucket/run").unwrap_err().to_string();
    assert!(told.contains("--features object-store"), "{told}");
}

#[cfg(feature = "cloud")]
#[test]
fn an_object_store_is_a_store() {
    let server = s3_server::S3Server::start();
    for (name, value) in server.environment() {
        // SAFETY: this is the only test that reads or writes the environment, and it is single-threaded until the server is asked.
        unsafe { std::env::set_var(name, value) };
    }
    keeps_its_promises(&Store::open("s3://bucket/runs/7").unwrap(), 20 << 20);
    assert_eq!(server.names(), ["bucket/runs/7/checkpoint.json", "bucket/runs/7/parts/empty"]);
    keeps_its_promises(&Store::open("s3://other").unwrap(), 10);

    // A busy store is asked again; one that stays busy is given up.
    let store = Store::open("s3://bucket/runs/8").unwrap();
    server.refuse(3);
    store.put_bytes("x", b"y").unwrap();
    assert_eq!(server.object("bucket/runs/8/x").unwrap(), b"y");
    server.refuse(1000);
    let told = store.put_bytes("x", b"z").unwrap_err().to_string();
    assert!(told.starts_with("s3://bucket/runs/8: writing x failed") && told.contains("AWS_"), "{told}");
    server.refuse(0);
    assert_eq!(server.object("bucket/runs/8/x").unwrap(), b"y");

    // SAFETY: as above.
    unsafe { std::env::set_var("AWS_ACCESS_KEY_ID", "somebody") };
    let told = Store::open("s3://bucket/runs/8").unwrap().try_out().unwrap_err().to_string();
    assert!(told.contains("AWS_ACCESS_KEY_ID"), "{told}");
}
