//! What a run's folder tells: its options, its events, its state.

use std::path::Path;

use skipstone_model::{WholeModel, weighted_sum};
use skipstone_observe::{RunInfo, RunState, read_events};
use skipstone_types::{EventRecord, StageId};
use skipstone_worlds::config::{RunConfig, RunShape};
use skipstone_worlds::live::folder::{FolderError, read_facts, read_options};
use skipstone_worlds::live::publish::StateManifest;
use skipstone_worlds::live::store::{StateFile, stage_path};

use crate::failure::{Failure, Outcome};

/// A run that is read back from its folder.
pub(crate) struct Run {
    pub(crate) info: RunInfo,
    pub(crate) events: Vec<EventRecord>,
}

impl Run {
    /// Reads options, data facts and events.
    pub(crate) fn read(dir: &Path) -> Outcome<Self> {
        let options = dir.join("run.toml");
        if !options.is_file() {
            return Err(Failure::input(format!(
                "{} is not a run's folder: it holds no run.toml; give the folder that --out named",
                dir.display()
            )));
        }
        let config = read_options(&options)?;
        let facts = read_facts(dir).map_err(|error| match error {
            FolderError::NoRun { dir, .. } => Failure::input(format!(
                "the run in {} never began: it holds no data/data.json; start it again",
                dir.display()
            )),
            other => other.into(),
        })?;
        let info = RunInfo {
            model: config.model.clone(),
            parameters: config.shape(facts.vocabulary)?.model.parameters() as u64,
            price_per_hour: config.price_per_hour,
            price_per_gb: config.price_per_gb,
            out: dir.to_owned(),
            bigram_val_loss: facts.bigram_loss,
            entropy_floor_loss: facts.entropy_floor,
            settings: settings(&config),
            ..RunInfo::from_settings(&config.settings()?)
        };
        let events = read_events(&dir.join("events.jsonl"))?;
        Ok(Self { info, events })
    }

    /// The run as it stands after its last event.
    pub(crate) fn state(&self) -> RunState {
        let mut state = RunState::new(self.info.clone());
        self.events.iter().for_each(|event| state.apply(event));
        state
    }
}

/// Options by name, for the report.
fn settings(config: &RunConfig) -> Vec<(String, String)> {
    let text = config.to_toml().unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

/// The whole model from a saved state. A relay stage that was lost when the state was saved is made from its
/// neighbours, as a run that goes on would make it; `says` hears of it.
pub(crate) fn model_from_state(
    dir: &Path,
    shape: &RunShape,
    saved: &StateManifest,
    says: &mut dyn FnMut(&str),
) -> Outcome<WholeModel> {
    let mut model = WholeModel::zeroed(shape.model.clone(), usize::from(shape.stages), shape.origin_layers)?;
    let digest = shape.digest();
    let mut present = vec![false; model.stages().len()];
    for saved_stage in &saved.stages {
        let stage = &saved_stage.stage;
        let index = usize::from(stage.0);
        let Some(whole) = model.stages_mut().get_mut(index) else {
            return Err(Failure::failed(format!("state.json names {stage}, which the model does not have")));
        };
        let file = StateFile { stage: *stage, iteration: saved.iteration, shape: &digest };
        let path = stage_path(&dir.join("state"), saved.iteration, *stage, &saved_stage.state);
        let layout = whole.layout(&shape.model);
        whole.params = file.read(&path, &layout).map_err(Failure::failed)?.parameters;
        present[index] = true;
    }
    if !present[0] {
        return Err(Failure::failed(format!(
            "the state saved in {} lacks the origin, so there is no embedding and no head to export; go on with \
             --resume from an older copy of state/",
            dir.display()
        )));
    }
    for index in (1..present.len()).filter(|index| !present[*index]) {
        let below = (1..index).rev().find(|stage| present[*stage]);
        let above = (index + 1..present.len()).find(|stage| present[*stage]);
        let sources: Vec<usize> = below.into_iter().chain(above).collect();
        if sources.is_empty() {
            return Err(Failure::failed(
                "the saved state holds no relay stage, so there is no model to export; go on with --resume",
            ));
        }
        let share = 1.0 / sources.len() as f64;
        let buffers: Vec<(&[f32], f64)> =
            sources.iter().map(|stage| (model.stages()[*stage].params.as_slice(), share)).collect();
        let mixed = weighted_sum(&buffers)?;
        let from: Vec<String> = sources.iter().map(|stage| StageId(*stage as u16).to_string()).collect();
        says(&format!(
            "warning: stage {index} was lost when the state was saved; the exported one is made from {}",
            from.join(" and ")
        ));
        model.stages_mut()[index].params = mixed;
    }
    Ok(model)
}
