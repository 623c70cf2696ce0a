//! A run's folder: who may use it, and what lies in it before training starts.

use super::store::EngineSetup;
use crate::config::{ConfigError, RunConfig, RunShape};
use crate::text::{FILE_BYTES_MAX, from_json};
use crate::wan::BUILT_IN;
use serde::{Deserialize, Serialize};
use skipstone_data::{DataError, DatasetError, TokenDataset, TokenizerError, bigram_loss, prepare};
use skipstone_types::RunId;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a run can't have its folder.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FolderError {
    /// Another run is in it.
    #[error("{} is in use by another run; wait until it has ended, or pass another --out", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// It holds a run.
    #[error("{} is not empty; pass --resume to go on with the run in it, or another --out", dir.display())]
    NotEmpty {
        /// The folder.
        dir: PathBuf,
    },
    /// It holds something that is no run.
    #[error("{} is not empty, and holds no run to go on with: there is no run.toml; pass another --out, or empty it", dir.display())]
    Foreign {
        /// The folder.
        dir: PathBuf,
    },
    /// It is a file.
    #[error("{} is a file; pass another --out", dir.display())]
    NoFolder {
        /// The file.
        dir: PathBuf,
    },
    /// There is no run in it.
    #[error("{} holds no run to go on with: there is no {missing}; leave out --resume to start one in an empty folder, or put the file back", dir.display())]
    NoRun {
        /// The folder.
        dir: PathBuf,
        /// What makes it one.
        missing: &'static str,
    },
    /// The run in it was another.
    #[error("the run in {} was made with other {what}; --resume goes on with the same model, data and seed, so leave those options out, or start a new run with another --out", dir.display())]
    Other {
        /// The folder.
        dir: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// The file system refuses.
    #[error("{}: {source}; check the path, its permissions and the free space", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// `data/data.json` is damaged.
    #[error("{} is damaged ({why}); start a new run with another --out", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The options.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The token file.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// What was found out about the data, in `data/data.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataFacts {
    /// The run.
    pub run: RunId,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Tokens to train on.
    pub train_tokens: usize,
    /// Tokens to validate on.
    pub validation_tokens: usize,
    /// Bytes of text.
    pub bytes: usize,
    /// Loss of a bigram model on the validation tokens, in nats per token.
    pub bigram_loss: Option<f64>,
    /// The least loss that any model can expect, in nats per token, where it is known.
    pub entropy_floor: Option<f64>,
}

/// A run's folder, held against others.
#[derive(Debug)]
pub struct RunFolder {
    /// The folder.
    pub dir: PathBuf,
    /// The data.
    pub facts: DataFacts,
    /// Model and stages.
    pub shape: RunShape,
    _lock: File,
}

/// The file that a process which uses the folder keeps locked.
const LOCK: &str = "run.lock";

/// What that file says from when a new run's folder begins to be filled until it has its `run.toml`: what else is there then is of no
/// use to anybody, if whoever filled it was killed.
const FILLING: &str = "filling";

/// The copy of the table of `--wan` or `--links`, where that is a file.
const WAN: &str = "wan.json";

/// The folder of the data, and the options, which come last.
const DATA: &str = "data";
const OPTIONS: &str = "run.toml";

/// The copy of the plan of `--plan`; `plan.json` is what the run does.
const GIVEN_PLAN: &str = "given-plan.json";

impl RunFolder {
    /// Takes a folder that is new, empty, or left by a start that was killed, writes `run.toml`, and prepares the data. `say` hears
    /// what is going on.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn create(config: &RunConfig, say: &mut dyn FnMut(&str)) -> Result<Self, FolderError> {
        // The cheap checks come first: bad options must not cost a tokenizer's training.
        config.settings()?;
        let request = config.data_request()?;
        let dir = &config.out;
        let mut lock = lock(dir)?;
        if dir.join(OPTIONS).exists() {
            return Err(FolderError::NotEmpty { dir: dir.clone() });
        }
        let refused = |source| FolderError::File { path: dir.join(LOCK), source };
        let was_filled = is_filling(&mut lock).map_err(refused)?;
        let foreign = fs::read_dir(dir)
            .map_err(|source| FolderError::File { path: dir.clone(), source })?
            .filter_map(Result::ok)
            .any(|entry| entry.file_name() != LOCK && !(was_filled && is_filled_in(&entry.file_name())));
        if foreign {
            return Err(FolderError::Foreign { dir: dir.clone() });
        }
        Self::empty(dir);
        note_filling(&mut lock).map_err(refused)?;
        let made = Self::fill(config, &request, say);
        if made.is_err() {
            Self::clear(dir);
        }
        let (facts, shape) = made?;
        // From here on run.toml says what the folder is; that this file says less is only tidy.
        let _ = lock.set_len(0);
        Ok(Self { dir: dir.clone(), facts, shape, _lock: lock })
    }

    /// Nothing of a run that never was stays behind.
    pub(super) fn clear(dir: &Path) {
        Self::empty(dir);
        let _ = fs::remove_file(dir.join(LOCK));
        let _ = fs::remove_dir(dir);
    }

    /// Removes what is filled in.
    fn empty(dir: &Path) {
        let _ = fs::remove_dir_all(dir.join(DATA));
        let names = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
        for name in names.map(|entry| entry.file_name()).filter(|name| is_filled_in(name)) {
            let _ = fs::remove_file(dir.join(name));
        }
    }

    fn fill(
        config: &RunConfig,
        request: &skipstone_data::DataRequest,
        say: &mut dyn FnMut(&str),
    ) -> Result<(DataFacts, RunShape), FolderError> {
        say(match &config.data {
            Some(_) => "reading the data",
            None => "generating stories",
        });
        let prepared = prepare(request)?;
        let shape = config.shape(prepared.tokenizer.vocab_size())?;
        let data = config.out.join(DATA);
        fs::create_dir_all(&data).map_err(|source| FolderError::File { path: data.clone(), source })?;
        prepared.tokenizer.save(&data.join("tokenizer.json"))?;
        write(&data.join("tokenizer_config.json"), prepared.tokenizer.config_json().as_bytes())?;
        prepared.dataset.write(&tokens_path(&config.out))?;
        let (train, validation) = (prepared.dataset.train(), prepared.dataset.validation());
        let facts = DataFacts {
            run: new_run_id(),
            vocabulary: prepared.tokenizer.vocab_size(),
            train_tokens: train.len(),
            validation_tokens: validation.len(),
            bytes: prepared.bytes,
            bigram_loss: bigram_loss(train, validation, prepared.tokenizer.vocab_size()),
            entropy_floor: prepared.entropy_floor,
        };
        let json = serde_json::to_vec_pretty(&facts).unwrap_or_default();
        write(&data.join("data.json"), &json)?;
        write(&config.out.join(OPTIONS), kept(config)?.to_toml()?.as_bytes())?;
        say(&format!(
            "{} of text, {} tokens of a vocabulary of {}",
            bytes_in_words(facts.bytes as u64),
            facts.train_tokens + facts.validation_tokens,
            facts.vocabulary
        ));
        Ok((facts, shape))
    }

    /// Takes the folder of a run that is to go on. `config` may differ from the run's in what weights and data do not
    /// depend on.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn resume(config: &RunConfig) -> Result<Self, FolderError> {
        let dir = &config.out;
        if !dir.join(OPTIONS).is_file() {
            return Err(FolderError::NoRun { dir: dir.clone(), missing: OPTIONS });
        }
        let lock = lock(dir)?;
        let before = RunConfig::read(&dir.join(OPTIONS))?;
        let facts = read_facts(dir)?;
        let shape = config.shape(facts.vocabulary)?;
        let other = |what| FolderError::Other { dir: dir.clone(), what };
        if before.shape(facts.vocabulary)?.digest() != shape.digest() {
            return Err(other("model or stages"));
        }
        if before.seed != config.seed {
            return Err(other("--seed"));
        }
        if (&before.data, &before.tokenizer, before.story_bytes)
            != (&config.data, &config.tokenizer, config.story_bytes)
        {
            return Err(other("--data or --tokenizer"));
        }
        if (before.wire, before.reduce) != (config.wire, config.reduce) {
            return Err(other("--wire or --reduce"));
        }
        // Records don't tell of these, so a replay takes all steps with the same.
        let setup = |config| EngineSetup::of(config, dir, facts.vocabulary);
        let (was, is) = (setup(&before)?.optimizer, setup(config)?.optimizer);
        if was.raise_kept != is.raise_kept {
            return Err(other("rate_decay of --recovery (of match it is 10 where nothing is said)"));
        }
        if was != is {
            return Err(other("--weight-decay, beta1, beta2 or epsilon"));
        }
        if before.batch_shape()? != config.batch_shape()? {
            return Err(other("--batch, --microbatches or --context"));
        }
        config.settings()?;
        TokenDataset::read(&tokens_path(dir))?;
        write(&dir.join(OPTIONS), kept(config)?.to_toml()?.as_bytes())?;
        Ok(Self { dir: dir.clone(), facts, shape, _lock: lock })
    }
}

/// Where the tokens lie.
pub fn tokens_path(dir: &Path) -> PathBuf {
    dir.join(DATA).join("tokens.bin")
}

/// Where it lies what was found out about the data.
fn facts_path(dir: &Path) -> PathBuf {
    dir.join(DATA).join("data.json")
}

/// What was found out about the data of the run in `dir`.
///
/// # Errors
/// [`FolderError::NoRun`] or [`FolderError::Damaged`].
pub fn read_facts(dir: &Path) -> Result<DataFacts, FolderError> {
    let path = facts_path(dir);
    let text = match skipstone_files::read_text(&path, FILE_BYTES_MAX) {
        Ok(text) => text,
        Err(why) if matches!(why.kind(), io::ErrorKind::InvalidData | io::ErrorKind::FileTooLarge) => {
            return Err(FolderError::Damaged { path, why: why.to_string() });
        }
        Err(_) => return Err(FolderError::NoRun { dir: dir.to_owned(), missing: "data/data.json" }),
    };
    from_json(&text).map_err(|why| FolderError::Damaged { path, why })
}

/// Whether a run's folder gets a file of this name, or one beside such a file while that is written, before the run begins.
fn is_filled_in(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let half_written =
        |of: &str| name.strip_suffix(".tmp").is_some_and(|name| name.starts_with(&format!(".{of}.")));
    name == DATA || [OPTIONS, WAN, GIVEN_PLAN].iter().any(|of| name == *of || half_written(of))
}

/// Whether the lock's file says that the folder is being filled.
fn is_filling(lock: &mut File) -> io::Result<bool> {
    let mut said = Vec::new();
    lock.rewind()?;
    lock.take(FILLING.len() as u64 + 1).read_to_end(&mut said)?;
    Ok(said == FILLING.as_bytes())
}

/// Has it say so, whatever happens next.
fn note_filling(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    lock.write_all(FILLING.as_bytes())?;
    lock.sync_all()
}

fn lock(dir: &Path) -> Result<File, FolderError> {
    let failed = |path: &Path, source| FolderError::File { path: path.to_owned(), source };
    if dir.is_file() {
        return Err(FolderError::NoFolder { dir: dir.to_owned() });
    }
    fs::create_dir_all(dir).map_err(|source| failed(dir, source))?;
    let path = dir.join(LOCK);
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|source| failed(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(FolderError::InUse { dir: dir.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(failed(&path, source)),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    skipstone_files::write(path, &[bytes])
        .map_err(|source| FolderError::File { path: path.to_owned(), source })
}

/// The options as `run.toml` keeps them: a table of links and a plan that are files are copied into the folder, so that the run
/// can be simulated and gone on with when the files are no more.
fn kept(config: &RunConfig) -> Result<RunConfig, FolderError> {
    let mut kept = config.clone();
    for table in [&mut kept.wan, &mut kept.links] {
        if let Some(name) = table.as_ref().filter(|name| BUILT_IN.iter().all(|(known, _)| known != name)) {
            *table = keep(name, &config.out.join(WAN))?;
        }
    }
    if let Some(name) = &config.plan {
        kept.plan = keep(name, &config.out.join(GIVEN_PLAN))?;
    }
    Ok(kept)
}

/// Reads a `run.toml`. That of a run's folder names the copies that are kept there as the folder was named when they were made,
/// seen from where the run was started; they are named as it is now.
///
/// # Errors
/// As [`RunConfig::read`].
pub fn read_options(path: &Path) -> Result<RunConfig, ConfigError> {
    let mut config = RunConfig::read(path)?;
    let dir = path.parent().unwrap_or(Path::new(""));
    // Options that somebody wrote name files as whoever uses them sees them.
    if path.file_name() == Some(OPTIONS.as_ref()) && facts_path(dir).is_file() {
        rehome(&mut config, dir);
    }
    Ok(config)
}

/// Options in the folder `dir`: names of the copies that it keeps are those in it.
fn rehome(config: &mut RunConfig, dir: &Path) {
    let copies = [(&mut config.wan, WAN), (&mut config.links, WAN), (&mut config.plan, GIVEN_PLAN)];
    for (name, copy) in copies {
        let is_copy = name.as_ref().is_some_and(|name| Path::new(name).file_name() == Some(copy.as_ref()));
        if let (true, Some(here)) = (is_copy, dir.join(copy).to_str()) {
            *name = Some(here.to_owned());
        }
    }
}

/// Copies a file into the folder, if it is not that copy; its name there.
fn keep(name: &str, copy: &Path) -> Result<Option<String>, FolderError> {
    let path = PathBuf::from(name);
    if path != copy {
        let text = skipstone_files::read_text(&path, FILE_BYTES_MAX)
            .map_err(|source| FolderError::File { path, source })?;
        write(copy, text.as_bytes())?;
    }
    // A folder's name that is not UTF-8 can't be told in run.toml anyway.
    Ok(copy.to_str().map(str::to_owned))
}

/// A number that no other run has. It names the run and is no part of what is computed.
fn new_run_id() -> RunId {
    let mut bytes = [0_u8; 8];
    // Without randomness the process id still tells runs of one machine apart.
    if getrandom::fill(&mut bytes).is_err() {
        bytes = u64::from(std::process::id()).to_le_bytes();
    }
    RunId(u64::from_le_bytes(bytes))
}

/// `12.3 MB` and the like.
pub fn bytes_in_words(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_looked_for_where_the_folder_is_now() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("moved");
        fs::create_dir_all(run.join("data")).unwrap();
        let path = run.join("run.toml");
        let write = |text: &str| fs::write(&path, text).unwrap();
        let here = |name: &str| run.join(name).to_str().map(str::to_owned);
        write("links = \"old/wan.json\"\nplan = \"old/given-plan.json\"\n");
        let config = read_options(&path).unwrap();
        assert_eq!(config.links.as_deref(), Some("old/wan.json"), "there is no run: somebody wrote that");
        fs::write(run.join("data").join("data.json"), "{}").unwrap();
        let config = read_options(&path).unwrap();
        assert_eq!((config.links, config.plan), (here("wan.json"), here("given-plan.json")));
        write("wan = \"wan.json\"\n");
        assert_eq!(read_options(&path).unwrap().wan, here("wan.json"));
        write("wan = \"gcp12\"\n");
        assert_eq!(read_options(&path).unwrap().wan.as_deref(), Some("gcp12"));
        fs::write(run.join("other.toml"), "wan = \"old/wan.json\"\n").unwrap();
        assert_eq!(read_options(&run.join("other.toml")).unwrap().wan.as_deref(), Some("old/wan.json"));
    }
}
