//! `state/state.json` and `data/data.json` of a run's folder (`skipstone-worlds`).

use crate::{Broken, Reader, Seed, SeedError, Verdict, lost, refused, same, scratch, within};
use skipstone_protocol::SavedStage;
use skipstone_types::{Digest, Iteration, RunId, StageId};
use skipstone_worlds::live::folder::{DataFacts, read_facts};
use skipstone_worlds::live::publish::{StateManifest, read_state};

/// The text, and its tree of JSON values, of which a small one takes 32 bytes for 2 of text while its list grows.
fn memory_max(input: usize) -> usize {
    (256 << 10) + 128 * input
}

pub(crate) const STATE: Reader = Reader {
    name: "state_manifest",
    what: "state/state.json of a run",
    text: true,
    memory_max,
    read: read_manifest,
    mend: None,
    seeds: manifest_seeds,
};

pub(crate) const FACTS: Reader = Reader {
    name: "data_facts",
    what: "data/data.json of a run",
    text: true,
    memory_max,
    read: read_data_facts,
    mend: None,
    seeds: facts_seeds,
};

fn read_manifest(bytes: &[u8]) -> Result<Verdict, Broken> {
    scratch::file("run/state/state.json", bytes)?;
    let dir = scratch::folder()?.join("run");
    let manifest = match within(memory_max(bytes.len()), bytes, || read_state(&dir))? {
        Ok(manifest) => manifest,
        Err(why) => return refused(why),
    };
    let once = serde_json::to_vec(&manifest).map_err(lost)?;
    scratch::file("run/state/state.json", &once)?;
    same(&manifest, &read_state(&dir).map_err(lost)?)
}

fn read_data_facts(bytes: &[u8]) -> Result<Verdict, Broken> {
    scratch::file("run/data/data.json", bytes)?;
    let dir = scratch::folder()?.join("run");
    let facts = match within(memory_max(bytes.len()), bytes, || read_facts(&dir))? {
        Ok(facts) => facts,
        Err(why) => return refused(why),
    };
    let once = serde_json::to_vec(&facts).map_err(lost)?;
    scratch::file("run/data/data.json", &once)?;
    same(&facts, &read_facts(&dir).map_err(lost)?)
}

fn manifest_seeds() -> Result<Vec<Seed>, SeedError> {
    let stage = |stage| SavedStage { stage: StageId(stage), state: Digest::of(b"state"), lineage: 1 };
    let whole = StateManifest::new(Iteration(40), 1, vec![stage(0), stage(1), stage(2)]);
    let empty = StateManifest::new(Iteration(0), 0, Vec::new());
    [("whole", whole), ("empty", empty)]
        .into_iter()
        .map(|(name, manifest)| Ok((name.to_owned(), serde_json::to_vec_pretty(&manifest)?)))
        .collect()
}

fn facts_seeds() -> Result<Vec<Seed>, SeedError> {
    let facts = DataFacts {
        run: RunId(7),
        vocabulary: 257,
        train_tokens: 9000,
        validation_tokens: 1000,
        bytes: 9876,
        bigram_loss: Some(2.5),
        entropy_floor: None,
    };
    Ok(vec![("facts".to_owned(), serde_json::to_vec_pretty(&facts)?)])
}
