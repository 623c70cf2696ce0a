//! Hostile and damaged input for every reader of outside bytes: refused with a sentence that says what and why, in bounded
//! memory, without a panic.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use skipstone_readers::{Meter, READERS, Reader, Verdict, meter};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[global_allocator]
static METER: Meter = Meter;

/// Held by each test: what is counted is the whole process's memory.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Positions of a seed that are damaged, at most.
const POSITIONS: usize = 150;

fn attacks() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/attacks")
}

/// Reads the input; a panic or a broken promise in words.
fn read(reader: &Reader, bytes: &[u8]) -> Result<Verdict, String> {
    match catch_unwind(AssertUnwindSafe(|| reader.try_on(bytes))) {
        Ok(outcome) => outcome.map_err(|broken| broken.to_string()),
        Err(_) => Err("it panicked".to_owned()),
    }
}

fn report(failures: &[String]) {
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn memory_is_counted() {
    let _alone = alone();
    // The harness's own threads may free a little meanwhile.
    let least = (1 << 20) - (1 << 16);
    let (kept, held) = meter::measure(|| black_box(vec![1_u8; 1 << 20]));
    assert!(held >= least, "{held} of {}", kept.len());
    let ((), held) = meter::measure(|| drop(black_box(vec![1_u8; 1 << 20])));
    assert!(held >= least, "{held}");
}

#[test]
fn every_attack_is_refused_for_its_reason() {
    let _alone = alone();
    type Words = BTreeMap<String, Vec<String>>;
    let text = fs::read_to_string(attacks().join("refusals.toml")).unwrap();
    let refusals: BTreeMap<String, Words> = toml::from_str(&text).unwrap();
    let mut failures = Vec::new();
    for reader in &READERS {
        let dir = attacks().join(reader.name);
        let files: BTreeSet<String> = fs::read_dir(&dir)
            .unwrap_or_else(|why| panic!("{}: {why}", dir.display()))
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        let expected = &refusals[reader.name];
        assert_eq!(
            files,
            expected.keys().cloned().collect(),
            "refusals.toml and the files of {}",
            reader.name
        );
        for (file, words) in expected {
            let said = match read(reader, &fs::read(dir.join(file)).unwrap()) {
                Ok(Verdict::Taken) if words.is_empty() => continue,
                Ok(Verdict::Taken) => "it was taken".to_owned(),
                Ok(Verdict::Refused(why))
                    if words.iter().all(|word| why.contains(word)) && !words.is_empty() =>
                {
                    continue;
                }
                Ok(Verdict::Refused(why)) => why.chars().take(400).collect(),
                Err(why) => why,
            };
            failures.push(format!("{}/{file}: {words:?} are not in: {said}", reader.name));
        }
    }
    report(&failures);
}

#[test]
fn good_input_is_taken() {
    let _alone = alone();
    let mut failures = Vec::new();
    for reader in &READERS {
        for (name, seed) in (reader.seeds)().unwrap() {
            match read(reader, &seed) {
                Ok(Verdict::Taken) => {}
                other => failures.push(format!("{}/{name}: {other:?}", reader.name)),
            }
        }
    }
    report(&failures);
}

#[test]
fn damage_anywhere_breaks_no_promise() {
    let _alone = alone();
    let mut failures = Vec::new();
    for reader in &READERS {
        for (name, seed) in (reader.seeds)().unwrap() {
            let step = seed.len().div_ceil(POSITIONS).max(1);
            for at in (0..seed.len()).step_by(step) {
                let mut flipped = seed.clone();
                flipped[at] ^= 1 << (at % 8);
                let mut largest = seed.clone();
                largest[at..(at + 8).min(seed.len())].fill(0xff);
                let doubled = [&seed[..at], &seed].concat();
                for (damage, bytes) in [
                    ("cut", &seed[..at]),
                    ("flipped", &flipped),
                    ("filled", &largest),
                    ("repeated", &doubled),
                ] {
                    if let Err(why) = read(reader, bytes) {
                        failures.push(format!("{}/{name}, {damage} at {at}: {why}", reader.name));
                    }
                }
            }
        }
    }
    report(&failures);
}
