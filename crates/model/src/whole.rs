//! A whole model, assembled from its stages: what is exported, imported, evaluated and asked for text.

use std::ops::Range;

use crate::config::LlamaConfig;
use crate::error::{ModelError, Result, expect_len};
use crate::init::initial_parameters;
use crate::layout::{Role, StageLayout, StageSpec};

/// One stage's weights.
#[derive(Clone, Debug, PartialEq)]
pub struct WholeStage {
    /// Origin (the first stage) or relay.
    pub role: Role,
    /// Absolute indices of the layers held.
    pub layers: Range<usize>,
    /// The flat parameter buffer, as [`WholeStage::layout`] lays it out.
    pub params: Vec<f32>,
}

impl WholeStage {
    /// Where its tensors lie.
    pub fn layout(&self, config: &LlamaConfig) -> StageLayout {
        StageLayout::new(config, self.role, self.layers.clone())
    }
}

/// A whole model: the origin, then relay stages that hold equal numbers of layers.
#[derive(Clone, Debug, PartialEq)]
pub struct WholeModel {
    config: LlamaConfig,
    stages: Vec<WholeStage>,
}

/// The layers of each stage, origin first, when a model is cut into `relay_stages` relay stages of equal numbers of
/// layers after an origin that holds `origin_layers` of its own.
///
/// # Errors
/// [`ModelError::Spec`] when the layers do not divide.
pub fn cut(config: &LlamaConfig, relay_stages: usize, origin_layers: usize) -> Result<Vec<Range<usize>>> {
    let layers = config.num_hidden_layers;
    let bad = |why: String| Err(ModelError::Spec(why));
    let Some(rest) = layers.checked_sub(origin_layers) else {
        return bad(format!(
            "the origin is to hold {origin_layers} layers, but the model has {layers}; pass a smaller --origin-layers"
        ));
    };
    if rest == 0 && relay_stages == 0 {
        return Ok(vec![Range { start: 0, end: layers }]);
    }
    if relay_stages == 0 || rest == 0 || !rest.is_multiple_of(relay_stages) {
        let fits: Vec<String> =
            (1..=rest.min(64)).filter(|s| rest.is_multiple_of(*s)).map(|s| s.to_string()).collect();
        let remedy = if fits.is_empty() {
            "pass a smaller --origin-layers".to_owned()
        } else {
            format!("pass --stages {} or another --origin-layers", fits.join(", "))
        };
        return bad(format!(
            "{rest} layers (the model's {layers}, less {origin_layers} of the origin) do not divide over {relay_stages} relay stages; {remedy}"
        ));
    }
    let each = rest / relay_stages;
    let relays = (0..relay_stages).map(|s| origin_layers + s * each..origin_layers + (s + 1) * each);
    Ok(std::iter::once(0..origin_layers).chain(relays).collect())
}

impl WholeModel {
    /// Assembles stages, origin first, relay stages in order. Batch and context of the specifications do not matter.
    ///
    /// # Errors
    /// When they are not one whole model cut into equal relay stages, or a buffer has the wrong length.
    pub fn new(config: LlamaConfig, stages: Vec<(StageSpec, Vec<f32>)>) -> Result<Self> {
        config.validate()?;
        let held = stages.first().map_or(0, |(spec, _)| spec.layers.len());
        let want = cut(&config, stages.len().saturating_sub(1), held)?;
        let mut whole = Vec::with_capacity(stages.len());
        for (index, (spec, params)) in stages.into_iter().enumerate() {
            let role = if index == 0 { Role::Origin } else { Role::Relay };
            if spec.role != role || want.get(index) != Some(&spec.layers) {
                return Err(ModelError::Spec(format!(
                    "stage {index} is a {:?} of layers {:?}, but {role:?} of layers {:?} has to be there; give the \
                     origin first, then the relay stages in order",
                    spec.role,
                    spec.layers,
                    want.get(index)
                )));
            }
            let stage = WholeStage { role, layers: spec.layers, params };
            expect_len("parameters", stage.params.len(), stage.layout(&config).len())?;
            whole.push(stage);
        }
        if whole.is_empty() {
            return Err(ModelError::Spec("a model needs at least its origin; give its stages".to_owned()));
        }
        Ok(Self { config, stages: whole })
    }

    /// A model whose weights are all 0, to be filled.
    ///
    /// # Errors
    /// As [`cut`], or an impossible configuration.
    pub fn zeroed(config: LlamaConfig, relay_stages: usize, origin_layers: usize) -> Result<Self> {
        Self::filled(config, relay_stages, origin_layers, |_, layout| vec![0.0; layout.len()])
    }

    /// A model with the first weights of a run of this seed.
    ///
    /// # Errors
    /// As [`cut`], or an impossible configuration.
    pub fn initial(
        config: LlamaConfig,
        relay_stages: usize,
        origin_layers: usize,
        seed: u64,
    ) -> Result<Self> {
        Self::filled(config, relay_stages, origin_layers, |config, layout| {
            initial_parameters(config, layout, seed)
        })
    }

    fn filled(
        config: LlamaConfig,
        relay_stages: usize,
        origin_layers: usize,
        fill: impl Fn(&LlamaConfig, &StageLayout) -> Vec<f32>,
    ) -> Result<Self> {
        config.validate()?;
        let stages = cut(&config, relay_stages, origin_layers)?
            .into_iter()
            .enumerate()
            .map(|(index, layers)| {
                let role = if index == 0 { Role::Origin } else { Role::Relay };
                let params = fill(&config, &StageLayout::new(&config, role, layers.clone()));
                WholeStage { role, layers, params }
            })
            .collect();
        Ok(Self { config, stages })
    }

    /// The same weights cut elsewhere.
    ///
    /// # Errors
    /// As [`cut`].
    pub fn recut(self, relay_stages: usize, origin_layers: usize) -> Result<Self> {
        if (relay_stages, origin_layers) == (self.relay_stages(), self.origin_layers()) {
            return Ok(self);
        }
        let mut new = Self::zeroed(self.config.clone(), relay_stages, origin_layers)?;
        let config = &self.config;
        for stage in &mut new.stages {
            let layout = stage.layout(config);
            for layer in stage.layers.clone() {
                let Some(from) = self.stages.iter().find(|s| s.layers.contains(&layer)) else { continue };
                let source = from.layout(config).layer_range(layer - from.layers.start);
                let target = layout.layer_range(layer - stage.layers.start);
                stage.params[target].copy_from_slice(&from.params[source]);
            }
        }
        let (from, to) = (&self.stages[0], &mut new.stages[0]);
        let (source, target) = (from.layout(config), to.layout(config));
        for name in ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"] {
            if let (Some(source), Some(target)) = (source.tensor(name), target.tensor(name)) {
                to.params[target.range()].copy_from_slice(&from.params[source.range()]);
            }
        }
        Ok(new)
    }

    /// The model's shape.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Its stages, origin first.
    pub fn stages(&self) -> &[WholeStage] {
        &self.stages
    }

    /// Its stages, to be filled.
    pub fn stages_mut(&mut self) -> &mut [WholeStage] {
        &mut self.stages
    }

    /// The origin stage.
    pub fn origin(&self) -> &WholeStage {
        &self.stages[0]
    }

    /// The relay stages, in order.
    pub fn relays(&self) -> &[WholeStage] {
        &self.stages[1..]
    }

    /// Number of relay stages, S.
    pub fn relay_stages(&self) -> usize {
        self.stages.len() - 1
    }

    /// Layers that the origin holds.
    pub fn origin_layers(&self) -> usize {
        self.stages[0].layers.len()
    }

    /// Relay stages that a path of skip ratio `skip` visits: L = max(1, round((1 − r)·K)), half up, of the K stages
    /// that hold layers, the origin's own always among them.
    ///
    /// # Errors
    /// [`ModelError::Spec`] when `skip` is not in 0..1.
    pub fn relays_visited(&self, skip: f64) -> Result<usize> {
        if !(0.0..1.0).contains(&skip) {
            return Err(ModelError::Spec(format!(
                "skip ratio {skip} is not a ratio; pass a number from 0 up to, not including, 1"
            )));
        }
        let own = usize::from(self.origin_layers() > 0);
        let stages = self.relay_stages() + own;
        let visited = ((1.0 - skip) * stages as f64 + 0.5).floor() as usize;
        Ok(visited.clamp(stages.min(1), stages) - own.min(visited.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(layers: usize) -> LlamaConfig {
        LlamaConfig::new(11, 8, 2, layers, 16)
    }

    #[test]
    fn cuts_and_says_what_would_divide() {
        assert_eq!(cut(&config(6), 3, 0).unwrap(), [0..0, 0..2, 2..4, 4..6]);
        assert_eq!(cut(&config(6), 5, 1).unwrap(), [0..1, 1..2, 2..3, 3..4, 4..5, 5..6]);
        assert_eq!(cut(&config(2), 0, 2).unwrap().len(), 1);
        let error = cut(&config(6), 4, 0).unwrap_err().to_string();
        assert!(error.contains("--stages 1, 2, 3, 6"), "{error}");
        assert!(cut(&config(6), 1, 7).is_err());
        assert!(cut(&config(6), 1, 6).is_err());
        assert!(cut(&config(6), 0, 0).is_err());
    }

    #[test]
    fn recutting_moves_weights_and_nothing_else() {
        for tie in [false, true] {
            let config = LlamaConfig { tie_word_embeddings: tie, ..config(6) };
            let first = |s, o| WholeModel::initial(config.clone(), s, o, 3).unwrap();
            for (s, o) in [(3, 0), (6, 0), (5, 1), (2, 2), (0, 6)] {
                assert_eq!(first(1, 0).recut(s, o).unwrap(), first(s, o), "{s} stages, {o} layers");
            }
        }
    }

    #[test]
    fn refuses_stages_that_are_not_a_model() {
        let model = WholeModel::initial(config(4), 2, 0, 1).unwrap();
        let parts = || -> Vec<(StageSpec, Vec<f32>)> {
            let spec =
                |s: &WholeStage| StageSpec { role: s.role, layers: s.layers.clone(), batch: 1, context: 1 };
            model.stages().iter().map(|s| (spec(s), s.params.clone())).collect()
        };
        assert_eq!(WholeModel::new(config(4), parts()).unwrap(), model);
        let mut swapped = parts();
        swapped.swap(1, 2);
        assert!(WholeModel::new(config(4), swapped).is_err());
        let mut short = parts();
        short[2].1.pop();
        assert!(WholeModel::new(config(4), short).is_err());
        assert!(WholeModel::new(config(4), parts().split_off(1)).is_err());
        assert!(WholeModel::new(config(4), Vec::new()).is_err());
    }

    #[test]
    fn path_lengths_are_those_of_the_paper() {
        let visited = |layers, s, o, skip| {
            WholeModel::zeroed(config(layers), s, o).unwrap().relays_visited(skip).unwrap()
        };
        assert_eq!(visited(6, 5, 1, 0.33), 3); // 4 of 6, the origin's own among them
        assert_eq!(visited(6, 5, 1, 0.5), 2);
        assert_eq!(visited(6, 6, 0, 0.33), 4);
        assert_eq!(visited(6, 6, 0, 0.99), 1);
        assert_eq!(visited(6, 5, 1, 0.99), 0);
        assert_eq!(visited(2, 0, 2, 0.5), 0);
        assert!(WholeModel::zeroed(config(2), 2, 0).unwrap().relays_visited(1.0).is_err());
    }
}
