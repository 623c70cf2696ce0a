//! `skipstone join`: a machine's nodes, and the parent that watches over them.

mod admission;
mod stay;

use super::ask::{RunPass, Unreachable};
use super::reception::WORKERS_MAX;
use super::tickets::now_unix_s;
use super::{Capability, Ticket, TicketError, UnfitTicket};
use crate::config::ConfigError;
use crate::live::folder::tokens_path;
use crate::live::health::{Health, HealthError};
use crate::live::signals::Signals;
use crate::live::spawner::Spawner;
use admission::{Admission, Readmission};
use skipstone_net::{BindError, EndpointKey, Requester};
use skipstone_types::RunId;
use stay::{LAST_WORDS, LOOK, Stay, Worker};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use thiserror::Error;

/// What `join` needs.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// The ticket's text.
    pub ticket: String,
    /// Nodes to run here.
    pub workers: usize,
    /// Compute threads of each; none: the cores shared out.
    pub threads: Option<usize>,
    /// For logs, and what is fetched of the run's data.
    pub dir: PathBuf,
    /// The region that this machine is in, by the run's table of links; none: the next of the table's.
    pub region: Option<String>,
    /// Where `GET /health` says how the nodes are: `PORT` of the loopback, or `ADDRESS:PORT`.
    pub health: Option<String>,
}

/// Why a machine can't join, or stay.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Not a ticket.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// It is for something else, or its time is over.
    #[error(transparent)]
    Unfit(#[from] UnfitTicket),
    /// Too few or too many.
    #[error("--workers takes 1 to {WORKERS_MAX}, not {0}")]
    Workers(usize),
    /// The network can't be used at all.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The coordinator was not reached.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// Ctrl-C or SIGTERM came first.
    #[error("told to end before the run had answered; nothing of this machine is part of it")]
    Interrupted,
    /// It says no.
    #[error("the run does not let this machine in: {0}")]
    Refused(String),
    /// What it sends is of no use.
    #[error("the run's options can't be used here: {0}")]
    Config(#[from] ConfigError),
    /// Where it was to say how the nodes are.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// Another process uses the folder.
    #[error("{} is in use by another skipstone; pass another --dir", .0.display())]
    InUse(PathBuf),
    /// The system refuses.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A node says that it can't belong to the run.
    #[error("a node can't go on: {0}")]
    Node(String),
}

/// How a stay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// The run is over.
    RunOver,
    /// The nodes left, as they were told to, here or by an admin.
    Left,
}

/// Something to tell.
#[derive(Debug, Clone, PartialEq)]
pub enum JoinNews {
    /// The run let this machine in.
    Admitted {
        /// Layers, width and the like, in words.
        model: String,
        /// Relay stages.
        stages: u16,
    },
    /// A node's news; nodes count from 1.
    Node {
        /// Which.
        worker: usize,
        /// What.
        what: String,
    },
    /// Anything else.
    Note(String),
}

/// Joins a run, and stays until it is over or this process is told to leave (Ctrl-C or SIGTERM; twice ends at once).
///
/// # Errors
/// See [`JoinError`].
pub fn join(options: &JoinOptions, tell: &mut dyn FnMut(JoinNews)) -> Result<Joined, JoinError> {
    let ticket: Ticket = options.ticket.parse()?;
    ticket.fits(Capability::Worker, now_unix_s())?;
    if options.workers == 0 || options.workers > WORKERS_MAX {
        return Err(JoinError::Workers(options.workers));
    }
    let signals =
        Signals::listen().map_err(|source| JoinError::System { what: "signals".to_owned(), source })?;
    let health = options.health.as_deref().map(Health::listen).transpose()?;
    let _lock = lock(&options.dir)?;
    if let Some(health) = &health {
        tell(JoinNews::Note(format!("how it is: http://{}/health", health.address())));
    }
    let keys: Vec<EndpointKey> = (0..options.workers).map(|_| EndpointKey::generate()).collect();
    let key = EndpointKey::generate();
    let name = key.public().short();
    let requester = Requester::open(key, ticket.relays.clone())?;
    tell(JoinNews::Note(format!("looking for the run; there this machine is called {name}")));
    let admission = Admission::new(requester.clone(), ticket.clone(), &keys, options);
    let pass = first_pass(&admission, &signals)?;
    clear(&options.dir, pass.run)
        .map_err(|source| JoinError::System { what: options.dir.display().to_string(), source })?;
    let shape = pass.config.shape(pass.vocabulary)?;
    tell(JoinNews::Admitted {
        model: format!(
            "{} layers of width {}, {:.1} M parameters",
            shape.model.num_hidden_layers,
            shape.model.hidden_size,
            shape.model.parameters() as f64 / 1e6
        ),
        stages: pass.config.stages,
    });
    let system = |what: &str| {
        let what = what.to_owned();
        move |source| JoinError::System { what, source }
    };
    let spawner = Spawner::new(options.dir.join("logs")).map_err(system("logs/"))?;
    let (speaker, news) = mpsc::channel();
    let machine = getrandom::u64().map_err(io::Error::other).map_err(system("random numbers"))?;
    let workers = keys.into_iter().map(Worker::new).collect();
    let readmission = Readmission::new(admission);
    let mut stay = Stay {
        options,
        pass,
        ticket,
        requester,
        machine,
        spawner,
        workers,
        speaker,
        refused: None,
        health,
        readmission,
    };
    let ended = stay.watch(&signals, &news, tell);
    stay.kill_all();
    // What nodes said at their end may still be unread.
    while let Ok((worker, news)) = news.recv_timeout(LAST_WORDS) {
        stay.hear(worker, &news, &mut |_| {});
    }
    let sent: u64 = stay.workers.iter().map(Worker::sent_bytes).sum();
    tell(JoinNews::Note(format!("nodes of this machine sent {sent} bytes of tensors to others")));
    stay.requester.close();
    ended
}

/// Asks to be let in. Nobody waits for an answer who is told to end: a run that is gone is looked for for a minute.
fn first_pass(admission: &Admission, signals: &Signals) -> Result<RunPass, JoinError> {
    let (sender, answers) = mpsc::channel();
    let asking = admission.clone();
    std::thread::spawn(move || drop(sender.send(asking.ask())));
    loop {
        match answers.recv_timeout(LOOK) {
            Ok(answer) => return answer,
            Err(RecvTimeoutError::Timeout) if signals.count() == 0 => {}
            Err(RecvTimeoutError::Timeout) => return Err(JoinError::Interrupted),
            Err(RecvTimeoutError::Disconnected) => {
                let source = io::Error::other("who asked has ended without an answer");
                return Err(JoinError::System { what: "the run".to_owned(), source });
            }
        }
    }
}

/// Removes what an earlier stay has left: states were either brought to the coordinator, or are of no use; and tokens are those of the
/// run that they were fetched from.
fn clear(dir: &Path, run: RunId) -> io::Result<()> {
    let _ = fs::remove_dir_all(dir.join("state"));
    let (mark, name) = (dir.join("run.id"), format!("{:016x}", run.0));
    if fs::read_to_string(&mark).is_ok_and(|known| known == name) {
        return Ok(());
    }
    let tokens = tokens_path(dir);
    for left in [tokens.with_extension("part"), tokens] {
        match fs::remove_file(left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::write(mark, name)
}

fn lock(dir: &PathBuf) -> Result<File, JoinError> {
    let system = |source| JoinError::System { what: dir.display().to_string(), source };
    fs::create_dir_all(dir).map_err(system)?;
    let file = File::create(dir.join("join.lock")).map_err(system)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JoinError::InUse(dir.clone())),
        Err(TryLockError::Error(source)) => Err(system(source)),
    }
}
