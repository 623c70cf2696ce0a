//! `state/<iteration>/stage-<k>.safetensors` of a run's folder (`skipstone-worlds`).

use crate::{Broken, Reader, Seed, SeedError, Verdict, lost, refused, same, scratch, within};
use skipstone_model::{LlamaConfig, Role, StageLayout};
use skipstone_types::{Iteration, StageId};
use skipstone_worlds::live::store::{StageState, StateFile};

/// The file as it lies, its header as a tree of values, and the stage.
fn memory_max(input: usize) -> usize {
    (256 << 10) + 128 * input
}

pub(crate) const READER: Reader = Reader {
    name: "stage_file",
    what: "state/ITERATION/stage-N.safetensors of a run",
    text: false,
    memory_max,
    read,
    mend: None,
    seeds,
};

const STAGE: StageId = StageId(1);

fn file() -> StateFile<'static> {
    StateFile { stage: STAGE, iteration: Iteration(40), shape: "a-shape" }
}

fn layout() -> StageLayout {
    StageLayout::new(&LlamaConfig::new(5, 2, 1, 2, 8), Role::Relay, 0..1)
}

fn read(bytes: &[u8]) -> Result<Verdict, Broken> {
    let path = scratch::file("stage.safetensors", bytes)?;
    let layout = layout();
    let state = match within(memory_max(bytes.len()), bytes, || file().read(&path, &layout))? {
        Ok(state) => state,
        Err(why) => return refused(why),
    };
    let again = scratch::folder()?.join("again.safetensors");
    file().write(&again, &state, &state.digest()).map_err(lost)?;
    // Its digest covers every bit.
    same(&state.digest(), &file().read(&again, &layout).map_err(lost)?.digest())
}

fn seeds() -> Result<Vec<Seed>, SeedError> {
    let count = layout().len();
    let fresh = StageState::fresh(STAGE, vec![0.0; count], 1.0);
    let ramp = |scale: f32| (0..count).map(|index| index as f32 * scale).collect::<Vec<_>>();
    let trained = StageState {
        stage: STAGE,
        parameters: ramp(0.5),
        first_moments: ramp(-0.25),
        second_moments: ramp(0.125),
        optimizer_step: 41,
        learning_rate_factor: 1.1,
    };
    [("fresh", fresh), ("trained", trained)]
        .into_iter()
        .map(|(name, state)| {
            scratch::made_in(|dir| {
                let path = dir.join("stage.safetensors");
                file().write(&path, &state, &state.digest())?;
                Ok((name.to_owned(), std::fs::read(path)?))
            })
        })
        .collect()
}
