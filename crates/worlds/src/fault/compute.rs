//! Carries out tasks on symbolic tensors, and refuses inputs that a task was not meant for.

use super::folder::Folder;
use super::provenance::{self as made, Origin};
use super::store::Store;
use super::value::{Poison, Value};
use skipstone_protocol::{Handle, Outcome, Passed, Task};
use skipstone_recovery::{Lesson, Recipe, StateFormat};
use skipstone_types::{Attempt, Digest, Iteration, Microbatch, NodeId, StageId};

/// What a task does to its store when it ends.
#[derive(Debug, Clone)]
pub(crate) struct Effects {
    pub(crate) outputs: Vec<Value>,
    pub(crate) consumed: Vec<Handle>,
    pub(crate) replaced: Option<(Handle, Value)>,
    pub(crate) outcome: Outcome,
    /// A stage was made from others with this recipe.
    pub(crate) rebuilt: Option<Rebuilt>,
    /// A stage's state was read from the run's folder.
    pub(crate) loaded: Option<(Iteration, StageId, Digest)>,
}

/// A carried out recipe.
#[derive(Debug, Clone)]
pub(crate) struct Rebuilt {
    pub(crate) stage: StageId,
    pub(crate) recipe: Recipe,
    pub(crate) sources: Vec<Origin>,
    /// Of each lesson, what came to the stage, and what it made of it or, where it is retraced, the gradient that came back.
    pub(crate) lessons: Vec<(Origin, Origin)>,
    pub(crate) state: Origin,
}

/// What tasks depend on beside their inputs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) seed: u64,
    /// Chunks that a frozen state is sent in.
    pub(crate) chunks: u32,
    /// The run's folder.
    pub(crate) folder: &'a Folder,
}

impl Effects {
    fn new(outputs: Vec<Value>, outcome: Outcome) -> Self {
        Self { outputs, consumed: Vec::new(), replaced: None, outcome, rebuilt: None, loaded: None }
    }

    /// Carries the effects out when the task is over.
    ///
    /// # Errors
    /// A handle that names nothing, or is given out twice.
    pub(crate) fn settle(
        &self,
        store: &mut Store,
        outputs: &[Handle],
        birth: (Iteration, Attempt),
    ) -> Result<(), String> {
        if matches!(self.outcome, Outcome::Failed { .. }) {
            store.note_failed(outputs);
            return Ok(());
        }
        for handle in &self.consumed {
            store.remove(*handle)?;
        }
        if let Some((handle, value)) = self.replaced {
            store.replace(handle, value)?;
        }
        outputs.iter().zip(&self.outputs).try_for_each(|(handle, value)| store.put(*handle, *value, birth))
    }

    /// A task that fails.
    pub(crate) fn failed(why: &str) -> Self {
        Self::new(Vec::new(), Outcome::Failed { why: why.to_owned() })
    }

    /// The numbers made are others than they should be, in a way of this node's own.
    pub(crate) fn alter(&mut self, node: NodeId) {
        let Some(made) = self.outputs.first_mut() else { return };
        match (made, &mut self.outcome) {
            (Value::State { origin, .. }, Outcome::State { digest })
            | (Value::Reduced { origin }, Outcome::Gradient { digest, .. }) => {
                *origin = made::altered(*origin ^ u64::from(node.0));
                *digest = made::digest(*origin);
            }
            _ => {}
        }
    }

    /// A state is made.
    pub(crate) fn state(stage: StageId, origin: Origin) -> Self {
        let outcome = Outcome::State { digest: made::digest(origin) };
        Self::new(vec![Value::State { stage, origin }], outcome)
    }
}

/// What a task read and made.
fn passed(read: Option<Origin>, made: Option<Origin>) -> Passed {
    Passed { read: read.map(made::digest), made: made.map(made::digest) }
}

fn state(value: Value) -> Result<(StageId, Origin), String> {
    match value {
        Value::State { stage, origin } | Value::Frozen { stage, origin, .. } => Ok((stage, origin)),
        other => Err(format!("a state is needed, not {other:?}")),
    }
}

fn activation(value: Value, of: Microbatch) -> Result<(Iteration, Origin), String> {
    match value {
        Value::Activation { iteration, microbatch, origin } if microbatch == of => Ok((iteration, origin)),
        other => Err(format!("an activation of {of} is needed, not {other:?}")),
    }
}

fn gradient(value: Value, of: Microbatch) -> Result<(Iteration, Origin), String> {
    match value {
        Value::Gradient { iteration, microbatch, origin } if microbatch == of => Ok((iteration, origin)),
        other => Err(format!("a gradient of {of} is needed, not {other:?}")),
    }
}

fn saved(value: Value, of: Microbatch) -> Result<(Iteration, Origin), String> {
    match value {
        Value::Saved { iteration, microbatch, origin } if microbatch == of => Ok((iteration, origin)),
        other => Err(format!("what the forward of {of} saved is needed, not {other:?}")),
    }
}

fn add(sum: Option<(Handle, Value)>, at: Origin, term: u64) -> Result<Option<(Handle, Value)>, String> {
    match sum {
        None => Ok(None),
        Some((handle, Value::Sum { state, terms, count, poison })) if state == at => {
            let (terms, count) = (terms.wrapping_add(term), count + 1);
            Ok(Some((handle, Value::Sum { state, terms, count, poison })))
        }
        Some((_, other)) => Err(format!("a sum of the same state is needed, not {other:?}")),
    }
}

/// What `task` will do to `store`.
pub(crate) fn run(
    task: &Task,
    inputs: &[Handle],
    store: &Store,
    context: Context<'_>,
) -> Result<Effects, String> {
    let values = inputs.iter().map(|handle| store.get(*handle)).collect::<Result<Vec<_>, _>>()?;
    let wrong = || format!("{task:?} can't take {values:?}");
    let sum_at = |index: usize| inputs.get(index).copied().zip(values.get(index).copied());
    match (task, values.as_slice()) {
        (Task::Initialise { stage }, []) => Ok(Effects::state(*stage, made::initial(context.seed, *stage))),
        (Task::Load { stage, iteration, state }, []) => match context.folder.read(*iteration, *stage, *state)
        {
            None => Ok(Effects::failed("there is no such file")),
            Some(origin) => Ok(Effects {
                loaded: Some((*iteration, *stage, made::digest(origin))),
                ..Effects::state(*stage, origin)
            }),
        },
        (Task::Embed { iteration, microbatch }, [held]) => {
            let (_, held) = state(*held)?;
            let (origin, keep) = made::embed(held, *iteration, *microbatch);
            let (iteration, microbatch) = (*iteration, *microbatch);
            Ok(Effects::new(
                vec![
                    Value::Activation { iteration, microbatch, origin },
                    Value::Saved { iteration, microbatch, origin: keep },
                ],
                Outcome::Passed(passed(None, Some(origin))),
            ))
        }
        (Task::Forward { microbatch }, [held, input]) => {
            let ((_, held), microbatch) = (state(*held)?, *microbatch);
            let (iteration, input) = activation(*input, microbatch)?;
            let (origin, keep) = made::forward(held, microbatch, input);
            Ok(Effects::new(
                vec![
                    Value::Activation { iteration, microbatch, origin },
                    Value::Saved { iteration, microbatch, origin: keep },
                ],
                Outcome::Passed(passed(Some(input), Some(origin))),
            ))
        }
        (Task::Loss { iteration, microbatch }, [held, input, ..]) if values.len() <= 3 => {
            let ((_, held), microbatch) = (state(*held)?, *microbatch);
            let (of, input) = activation(*input, microbatch)?;
            if of != *iteration {
                return Err(format!("the loss of {iteration} got an activation of {of}"));
            }
            let (origin, term) = made::loss(held, *iteration, microbatch, input);
            let (loss_sum, tokens) = made::loss_share(origin, microbatch);
            let passed = Some(passed(Some(input), Some(origin)));
            Ok(Effects {
                replaced: add(sum_at(2), held, term)?,
                ..Effects::new(
                    vec![Value::Gradient { iteration: of, microbatch, origin }],
                    Outcome::Loss { loss_sum, tokens, passed },
                )
            })
        }
        (
            Task::Backward { microbatch } | Task::EmbedBackward { microbatch, .. },
            [held, kept, incoming, ..],
        ) if values.len() <= 4 => {
            let ((_, held), microbatch) = (state(*held)?, *microbatch);
            let (forward_of, kept) = saved(*kept, microbatch)?;
            let (iteration, incoming) = gradient(*incoming, microbatch)?;
            if forward_of != iteration {
                return Err(format!("the backward of {forward_of} got a gradient of {iteration}"));
            }
            let (origin, term) = made::backward(held, kept, incoming);
            let relay = matches!(task, Task::Backward { .. });
            let outputs = relay.then_some(Value::Gradient { iteration, microbatch, origin });
            let outcome = Outcome::Passed(passed(Some(incoming), relay.then_some(origin)));
            Ok(Effects {
                consumed: vec![inputs[1]],
                replaced: add(sum_at(3), held, term)?,
                ..Effects::new(outputs.into_iter().collect(), outcome)
            })
        }
        (Task::NewSum, [held]) => {
            let (_, held) = state(*held)?;
            let sum = Value::Sum { state: held, terms: 0, count: 0, poison: None };
            Ok(Effects::new(vec![sum], Outcome::Done))
        }
        (Task::Measure, [Value::Sum { state, terms, count, poison }]) => {
            let norm = made::sum_norm(*terms, *count);
            let norm = match poison {
                None => norm,
                // Equal to itself, unlike NaN: messages are compared.
                Some(Poison::NotFinite) => f64::INFINITY,
                Some(Poison::Scaled) => norm * 1e4,
                Some(Poison::Stale { norm_bits }) => f64::from_bits(*norm_bits),
            };
            let digest = Some(made::digest(made::share(*state, *terms, *count, norm)));
            Ok(Effects::new(Vec::new(), Outcome::Measured { norm, digest }))
        }
        (Task::Part { index, count: parts }, [Value::Sum { state, terms, count, poison }])
            if index < parts =>
        {
            let (state, count) = (*state, *count);
            let terms = if poison.is_some() { made::altered(*terms) } else { *terms };
            let part = Value::Part { state, terms, count, index: *index, parts: *parts };
            Ok(Effects::new(vec![part], Outcome::Done))
        }
        (Task::Sum { microbatches }, [_, ..]) => {
            sum(&values, *microbatches).map(|part| Effects::new(vec![part], Outcome::Done)).ok_or_else(wrong)
        }
        (Task::Assemble, [_, ..]) => assemble(&values).ok_or_else(wrong).map(|origin| {
            let outcome = Outcome::Gradient { digest: made::digest(origin), norm: made::norm(origin) };
            Effects::new(vec![Value::Reduced { origin }], outcome)
        }),
        (Task::Step { iteration, learning_rate, clip_factor }, [held, Value::Reduced { origin }]) => {
            let (stage, held) = state(*held)?;
            let next = made::step(held, *origin, *iteration, *learning_rate, *clip_factor);
            Ok(Effects { consumed: vec![inputs[0]], ..Effects::state(stage, next) })
        }
        (Task::Freeze { format }, [held]) => {
            let chunks = context.chunks;
            let (stage, origin, rounded, format) = match *held {
                Value::Frozen { stage, origin, format, .. } => (stage, origin, None, format),
                other => {
                    let (stage, origin) = state(other)?;
                    let made = made::rounded(origin, *format);
                    (stage, made, format.rounds().then(|| made::digest(made)), *format)
                }
            };
            Ok(Effects::new(
                vec![Value::Frozen { stage, origin, chunks, format }],
                Outcome::Frozen { chunks, bytes: u64::from(chunks) << 20, rounded },
            ))
        }
        (Task::Chunk { index }, [Value::Frozen { stage, origin, chunks, format }]) if index < chunks => {
            let (stage, origin, count, format) = (*stage, *origin, *chunks, *format);
            let chunk = Value::Chunk { stage, origin, index: *index, count, format };
            Ok(Effects::new(vec![chunk], Outcome::Done))
        }
        (Task::Join { stage, format }, [_, ..]) => {
            let (stage, format, chunks) = (*stage, *format, context.chunks);
            let origin = join(&values, stage, format).ok_or_else(wrong)?;
            if !format.rounds() {
                return Ok(Effects::state(stage, origin));
            }
            // It is kept as it came.
            let copy = Value::Frozen { stage, origin, chunks, format };
            Ok(Effects::new(vec![copy], Outcome::State { digest: made::digest(origin) }))
        }
        (Task::Rebuild { stage, recipe }, given)
            if given.len() == recipe.sources.len() + 2 * recipe.lessons().len() =>
        {
            let (sources, activations) = given.split_at(recipe.sources.len());
            let lessons = lessons(recipe, activations)?;
            let found = sources.iter().map(|source| state(*source)).collect::<Result<Vec<_>, _>>()?;
            if found.iter().zip(&recipe.sources).any(|((of, _), source)| *of != source.stage) {
                return Err(wrong());
            }
            let sources: Vec<_> = found.into_iter().map(|(_, origin)| origin).collect();
            let (origin, again) = match sources[..] {
                // A copy gives the same bits again.
                [only] if recipe.restores(*stage) => made::retrace(only, recipe, &lessons),
                _ => (made::rebuild(*stage, recipe, &sources, &lessons), Vec::new()),
            };
            let again = recipe.made_again().zip(again).flat_map(|(lesson, (made, back))| {
                let Lesson { iteration, microbatch } = lesson;
                let made = Value::Activation { iteration, microbatch, origin: made };
                [made, Value::Gradient { iteration, microbatch, origin: back }]
            });
            let again: Vec<_> = again.collect();
            let rebuilt = Rebuilt { stage: *stage, recipe: recipe.clone(), sources, lessons, state: origin };
            let mut effects = Effects::state(*stage, origin);
            effects.outputs.extend(again);
            Ok(Effects { rebuilt: Some(rebuilt), ..effects })
        }
        _ => Err(wrong()),
    }
}

/// What came to a lost stage, and what it made of it or what gradient came back, of each lesson in turn.
fn lessons(recipe: &Recipe, tensors: &[Value]) -> Result<Vec<(Origin, Origin)>, String> {
    type Read = fn(Value, Microbatch) -> Result<(Iteration, Origin), String>;
    let second: Read = if recipe.retracing.is_some() { gradient } else { activation };
    let of = |lesson: Lesson, value: Value, read: Read| match read(value, lesson.microbatch)? {
        (iteration, origin) if iteration == lesson.iteration => Ok(origin),
        (iteration, _) => Err(format!("a tensor of {} is needed, not of {iteration}", lesson.iteration)),
    };
    recipe
        .lessons()
        .into_iter()
        .zip(tensors.chunks_exact(2))
        .map(|(lesson, both)| Ok((of(lesson, both[0], activation)?, of(lesson, both[1], second)?)))
        .collect()
}

/// The sum of equal parts of several contributors' sums.
fn sum(values: &[Value], microbatches: u32) -> Option<Value> {
    let Value::Part { state, index, parts, .. } = *values.first()? else { return None };
    let (mut all_terms, mut all_count) = (0_u64, 0);
    for value in values {
        match *value {
            Value::Part { state: of, terms, count, index: at, parts: out_of }
                if (of, at, out_of) == (state, index, parts) =>
            {
                all_terms = all_terms.wrapping_add(terms);
                all_count += count;
            }
            _ => return None,
        }
    }
    Some(Value::ReducedPart { state, terms: all_terms, count: all_count, index, parts, microbatches })
}

/// The gradient whose parts these are, all of them and in order.
fn assemble(values: &[Value]) -> Option<Origin> {
    let Value::ReducedPart { state, terms, count, parts, microbatches, .. } = *values.first()? else {
        return None;
    };
    let complete = values.len() == parts as usize
        && values.iter().enumerate().all(|(index, value)| {
            let index = index as u32;
            *value == Value::ReducedPart { state, terms, count, index, parts, microbatches }
        });
    complete.then(|| made::reduced(state, terms, count, microbatches))
}

/// The state whose chunks these are, all of them and in order. Donors that do not hold the same make one that nobody
/// holds.
fn join(values: &[Value], stage: StageId, format: StateFormat) -> Option<Origin> {
    let mut joined = None;
    for (at, value) in values.iter().enumerate() {
        match *value {
            Value::Chunk { stage: of, origin, index, count, format: as_of }
                if (of, as_of) == (stage, format)
                    && index as usize == at
                    && count as usize == values.len() =>
            {
                let first = *joined.get_or_insert(origin);
                joined = Some(if first == origin { first } else { made::altered(first ^ origin) });
            }
            _ => return None,
        }
    }
    joined
}
