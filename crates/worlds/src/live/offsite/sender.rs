//! The thread that sends states: one is on its way, one at most waits.

use super::fetch::hash_of;
use super::manifest::{BASE, Checkpoint, NAME, OPTIONS, PARTS, STATE, StoredFile};
use crate::live::publish::StateManifest;
use crate::live::store::stage_path;
use skipstone_store::{Store, StoreError};
use skipstone_types::{Event, Iteration, RunId};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Pauses between tries to send a state. Each of its requests is tried again by itself, too.
const PAUSES: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(10)];

/// A saved state whose files are held open: they can be read to their end even when the folder goes on without them.
#[derive(Debug)]
pub(super) struct Snapshot {
    iteration: Iteration,
    stages: Vec<(String, File)>,
    manifest: Vec<u8>,
}

impl Snapshot {
    pub(super) fn open(dir: &Path, manifest: &StateManifest) -> io::Result<Self> {
        let stage = |saved: &skipstone_protocol::SavedStage| {
            let path = stage_path(&dir.join("state"), manifest.iteration, saved.stage, &saved.state);
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            Ok((format!("state/{}/{name}", manifest.iteration.0), File::open(&path)?))
        };
        Ok(Self {
            iteration: manifest.iteration,
            stages: manifest.stages.iter().map(stage).collect::<io::Result<_>>()?,
            manifest: serde_json::to_vec_pretty(manifest).map_err(io::Error::other)?,
        })
    }
}

#[derive(Debug, Default)]
struct Slot {
    next: Option<Snapshot>,
    busy: bool,
}

/// To the thread.
#[derive(Debug)]
pub(super) struct Sender {
    slot: Arc<(Mutex<Slot>, Condvar)>,
    tell: mpsc::Sender<Event>,
    told: mpsc::Receiver<Event>,
}

fn held(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sender {
    /// Starts the thread; `known` is what the store holds. It ends with the process.
    pub(super) fn start(
        store: Store,
        dir: PathBuf,
        run: RunId,
        known: Option<Checkpoint>,
    ) -> io::Result<Self> {
        let slot: Arc<(Mutex<Slot>, Condvar)> = Arc::default();
        let (tell, told) = mpsc::channel();
        let (work, telling) = (slot.clone(), tell.clone());
        std::thread::Builder::new().name("checkpoints".to_owned()).spawn(move || {
            let mut sending = Sending { store, dir, run, base: Vec::new(), there: BTreeSet::new() };
            sending.look(known.as_ref());
            loop {
                let mut next = {
                    let mut slot = held(&work.0);
                    loop {
                        if let Some(next) = slot.next.take() {
                            slot.busy = true;
                            break next;
                        }
                        slot = work.1.wait(slot).unwrap_or_else(PoisonError::into_inner);
                    }
                };
                let event = sending.send_patiently(&mut next, || held(&work.0).next.is_some());
                let told = telling.send(event);
                held(&work.0).busy = false;
                if told.is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { slot, tell, told })
    }

    /// Sends this state next, in place of one that still waits.
    pub(super) fn offer(&self, snapshot: Snapshot) {
        let late = held(&self.slot.0).next.replace(snapshot);
        self.slot.1.notify_one();
        if let Some(Snapshot { iteration, .. }) = late {
            let why = "a newer one came before it was its turn".to_owned();
            drop(self.tell.send(Event::StoreFailed { iteration, why }));
        }
    }

    pub(super) fn news(&self) -> Vec<Event> {
        self.told.try_iter().collect()
    }

    pub(super) fn is_idle(&self) -> bool {
        let slot = held(&self.slot.0);
        !slot.busy && slot.next.is_none()
    }
}

/// What the thread knows.
struct Sending {
    store: Store,
    dir: PathBuf,
    run: RunId,
    /// Files that don't change while the run goes on.
    base: Vec<(StoredFile, File)>,
    /// Objects that the store has.
    there: BTreeSet<String>,
}

impl Sending {
    /// Learns which objects of the checkpoint before are there.
    fn look(&mut self, known: Option<&Checkpoint>) {
        let named: BTreeSet<String> =
            known.map(|known| known.files.iter().map(StoredFile::object).collect()).unwrap_or_default();
        // What can't be listed is sent again.
        let listed = self.store.list(PARTS).unwrap_or_default();
        self.there = listed.into_iter().filter(|name| named.contains(name)).collect();
    }

    /// Tries until the state is stored, a newer one waits, or patience ends.
    fn send_patiently(&mut self, snapshot: &mut Snapshot, newer: impl Fn() -> bool) -> Event {
        let (began, iteration) = (Instant::now(), snapshot.iteration);
        let mut bytes = 0;
        let mut pauses = PAUSES.iter();
        loop {
            let Err(why) = self.send(snapshot, &mut bytes) else {
                let took_ms = began.elapsed().as_millis() as u64;
                return Event::StateStored { iteration, bytes, took_ms };
            };
            match pauses.next() {
                Some(pause) if !newer() => std::thread::sleep(*pause),
                _ => return Event::StoreFailed { iteration, why: why.to_string() },
            }
        }
    }

    fn send(&mut self, snapshot: &mut Snapshot, sent: &mut u64) -> Result<(), StoreError> {
        if self.base.is_empty() {
            self.base = self.open_base()?;
        }
        let mut base = std::mem::take(&mut self.base);
        let done = base.iter_mut().try_for_each(|(stored, file)| self.put(stored, file, sent));
        self.base = base;
        done?;
        let (options, mut files): (Vec<_>, Vec<_>) =
            self.base.iter().map(|(stored, _)| stored.clone()).partition(|stored| stored.name == OPTIONS);
        for (name, file) in &mut snapshot.stages {
            let stored = described(name, file)?;
            self.put(&stored, file, sent)?;
            files.push(stored);
        }
        let state = StoredFile {
            name: STATE.to_owned(),
            bytes: snapshot.manifest.len() as u64,
            hash: blake3::hash(&snapshot.manifest).to_hex().to_string(),
        };
        self.store.put_bytes(&state.object(), &snapshot.manifest)?;
        *sent += state.bytes;
        files.push(state);
        files.extend(options);
        let checkpoint = Checkpoint::new(self.run, snapshot.iteration, files);
        self.store.put_bytes(NAME, &checkpoint.to_json())?;
        self.there = checkpoint.files.iter().map(StoredFile::object).collect();
        self.clean_up();
        Ok(())
    }

    /// Puts a file, unless the store has its bytes.
    fn put(&mut self, stored: &StoredFile, file: &mut File, sent: &mut u64) -> Result<(), StoreError> {
        if !self.there.contains(&stored.object()) {
            self.store.put_file(&stored.object(), file, stored.bytes)?;
            *sent += stored.bytes;
            self.there.insert(stored.object());
        }
        Ok(())
    }

    /// Deletes what no checkpoint names. What can't be deleted now goes the next time.
    fn clean_up(&self) {
        let listed = self.store.list(PARTS).unwrap_or_default();
        for name in listed.iter().filter(|name| !self.there.contains(*name)) {
            let _ = self.store.delete(name);
        }
    }

    fn open_base(&self) -> Result<Vec<(StoredFile, File)>, StoreError> {
        let there = BASE.iter().filter(|name| self.dir.join(name).is_file());
        there
            .map(|name| {
                let path = self.dir.join(name);
                let mut file = File::open(&path).map_err(|source| StoreError::File { path, source })?;
                Ok((described(name, &mut file)?, file))
            })
            .collect()
    }
}

/// A file's length and hash.
fn described(name: &str, file: &mut File) -> Result<StoredFile, StoreError> {
    let unreadable = |source| StoreError::File { path: name.into(), source };
    io::Seek::rewind(file).map_err(unreadable)?;
    let (bytes, hash) = hash_of(file).map_err(unreadable)?;
    Ok(StoredFile { name: name.to_owned(), bytes, hash })
}
