//! The thread that sends states: one is on its way, one at most waits.

use super::fetch::hash_of;
use super::manifest::{BASE, BYTES_MAX, Checkpoint, NAME, OPTIONS, PARTS, STATE, StoredFile};
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
use thiserror::Error;

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
            let mut sending = Sending::new(store, dir, run, known);
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

/// Why a state was not sent.
#[derive(Debug, Error)]
enum SendError {
    /// The store, or a file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody else writes there, and would lose what is written over, as this run would: no other try helps.
    #[error(
        "{NAME} there is not the one that this run put last: {found}; another process writes to this store, so nothing more is \
         sent to it. Let one of the two end, or go on with another --checkpoint-to"
    )]
    Taken {
        /// What is there.
        found: String,
    },
}

/// What the thread knows.
struct Sending {
    store: Store,
    dir: PathBuf,
    run: RunId,
    /// The checkpoint that was put last, or found at the start.
    last: Option<Checkpoint>,
    /// One that was to be put after it, and may have been: a store that fails may have done what was asked.
    tried: Option<Checkpoint>,
    /// Files that don't change while the run goes on.
    base: Vec<(StoredFile, File)>,
    /// Objects that the store has.
    there: BTreeSet<String>,
}

impl Sending {
    /// Learns which objects of the checkpoint before are there.
    fn new(store: Store, dir: PathBuf, run: RunId, known: Option<Checkpoint>) -> Self {
        let named: BTreeSet<String> = known
            .as_ref()
            .map(|known| known.files.iter().map(StoredFile::object).collect())
            .unwrap_or_default();
        // What can't be listed is sent again.
        let listed = store.list(PARTS).unwrap_or_default();
        let there = listed.into_iter().filter(|name| named.contains(name)).collect();
        Self { store, dir, run, last: known, tried: None, base: Vec::new(), there }
    }

    /// Whether the store still holds what this run put there last: else what is sent would replace another's checkpoint, and
    /// what is tidied away would be its objects.
    fn look_again(&mut self) -> Result<(), SendError> {
        let bytes = self.store.get_bytes(NAME, BYTES_MAX)?;
        let now = match bytes.map(|bytes| Checkpoint::parse(&bytes)).transpose() {
            Ok(now) => now,
            Err(why) => return Err(SendError::Taken { found: format!("it can't be read ({why})") }),
        };
        if now.is_some() && now == self.tried {
            self.last = self.tried.take();
        }
        if now == self.last {
            return Ok(());
        }
        let found = now.map_or_else(
            || "it is gone".to_owned(),
            |other| format!("it is of run {} after {} iterations", other.run, other.iteration.0),
        );
        Err(SendError::Taken { found })
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
                Some(pause) if matches!(why, SendError::Store(_)) && !newer() => std::thread::sleep(*pause),
                _ => return Event::StoreFailed { iteration, why: why.to_string() },
            }
        }
    }

    fn send(&mut self, snapshot: &mut Snapshot, sent: &mut u64) -> Result<(), SendError> {
        self.look_again()?;
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
        // The files may have taken long.
        self.look_again()?;
        self.tried = Some(checkpoint.clone());
        self.store.put_bytes(NAME, &checkpoint.to_json())?;
        self.there = checkpoint.files.iter().map(StoredFile::object).collect();
        (self.last, self.tried) = (Some(checkpoint), None);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::offsite::read;
    use skipstone_protocol::SavedStage;
    use skipstone_types::{Digest, StageId};
    use std::fs;
    use tempfile::TempDir;

    /// A run's folder with a saved state, and a store beside it.
    struct Scene {
        dir: TempDir,
    }

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("run").join("data")).unwrap();
            for name in ["data/tokens.bin", "data/data.json", OPTIONS] {
                fs::write(dir.path().join("run").join(name), name).unwrap();
            }
            Self { dir }
        }

        fn store(&self) -> Store {
            Store::open(self.dir.path().join("store").to_str().unwrap()).unwrap()
        }

        /// A process of the run that begins to send now.
        fn sending(&self) -> Sending {
            let known = read(&self.store()).unwrap();
            Sending::new(self.store(), self.dir.path().join("run"), RunId(7), known)
        }

        fn snapshot(&self, iteration: u64) -> Snapshot {
            let part = SavedStage { stage: StageId(0), state: Digest([iteration as u8; 32]), lineage: 0 };
            let (iteration, run) = (Iteration(iteration), self.dir.path().join("run"));
            let path = stage_path(&run.join("state"), iteration, part.stage, &part.state);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("the state after {} iterations", iteration.0)).unwrap();
            Snapshot::open(&run, &StateManifest::new(iteration, 0, vec![part])).unwrap()
        }

        /// What the store holds, every object of it checked.
        fn stored(&self) -> u64 {
            let (store, checkpoint) = (self.store(), read(&self.store()).unwrap().unwrap());
            for file in &checkpoint.files {
                let bytes = store.get_bytes(&file.object(), file.bytes).unwrap().unwrap();
                assert_eq!(blake3::hash(&bytes).to_hex().as_str(), file.hash);
            }
            checkpoint.iteration.0
        }

        fn send(&self, sending: &mut Sending, iteration: u64) -> Event {
            sending.send_patiently(&mut self.snapshot(iteration), || true)
        }
    }

    fn is_stored(event: &Event) -> bool {
        matches!(event, Event::StateStored { .. })
    }

    #[test]
    fn of_two_who_send_to_one_store_the_second_to_write_stops_and_takes_nothing_away() {
        let scene = Scene::new();
        let (mut one, mut other) = (scene.sending(), scene.sending());
        assert!(is_stored(&scene.send(&mut one, 5)) && is_stored(&scene.send(&mut one, 6)));
        // It found an empty store, and would send its own older state.
        for iteration in [3, 9] {
            // Nothing newer waits: a try again would sleep for seconds.
            let began = Instant::now();
            let mut snapshot = scene.snapshot(iteration);
            let Event::StoreFailed { why, .. } = other.send_patiently(&mut snapshot, || false) else {
                panic!("it was sent")
            };
            assert!(began.elapsed() < PAUSES[0], "what is of no use is not tried again");
            assert!(why.contains("after 6 iterations") && why.contains("--checkpoint-to"), "{why}");
            assert_eq!(scene.stored(), 6);
        }
        assert!(is_stored(&scene.send(&mut one, 7)));
        // Whoever begins now goes on from what is there; the one before notices.
        let mut third = scene.sending();
        assert!(is_stored(&scene.send(&mut third, 8)));
        assert!(!is_stored(&scene.send(&mut one, 9)));
        assert_eq!(scene.stored(), 8);
    }

    #[test]
    fn a_manifest_that_is_gone_or_damaged_is_not_ones_own() {
        let scene = Scene::new();
        let mut other = scene.sending();
        assert!(is_stored(&scene.send(&mut other, 4)));
        fs::remove_file(scene.dir.path().join("store").join(NAME)).unwrap();
        let Err(gone) = other.look_again() else { panic!("it is there") };
        assert!(gone.to_string().contains("it is gone"), "{gone}");
        fs::write(scene.dir.path().join("store").join(NAME), "{").unwrap();
        let Err(damaged) = other.look_again() else { panic!("it is whole") };
        assert!(damaged.to_string().contains("can't be read"), "{damaged}");
    }

    #[test]
    fn what_a_failing_store_has_put_all_the_same_is_known_as_ones_own() {
        let scene = Scene::new();
        let mut sending = scene.sending();
        assert!(is_stored(&scene.send(&mut sending, 1)));
        let first = sending.last.clone();
        assert!(is_stored(&scene.send(&mut sending, 2)));
        // As if the answer to the second had been lost.
        (sending.tried, sending.last) = (sending.last.take(), first);
        assert!(is_stored(&scene.send(&mut sending, 3)));
        assert_eq!(scene.stored(), 3);
    }
}
