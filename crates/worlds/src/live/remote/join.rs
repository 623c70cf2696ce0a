//! `skipstone join`: a machine's nodes, and the parent that watches over them.

use super::ask::{Answer, Ask, RunPass, ask};
use super::reception::WORKERS_MAX;
use super::tickets::now_unix_s;
use super::{Ticket, TicketError};
use crate::config::{ConfigError, RunConfig};
use crate::live::control::Control;
use crate::live::health::{Health, HealthError};
use crate::live::signals::Signals;
use crate::live::spawner::Spawner;
use crate::live::start::{DoorStart, NodeNews, NodeStart};
use crate::wan::TaskTimes;
use serde_json::json;
use skipstone_net::{BindError, EndpointKey, RequestError, Requester};
use skipstone_protocol::WIRE_VERSION;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Time between looks at the nodes.
const LOOK: Duration = Duration::from_millis(50);

/// The pause before a dead node is replaced; it doubles while successors die before they are welcome.
const RESPAWN: Duration = Duration::from_millis(100);
const RESPAWN_MAX: Duration = Duration::from_secs(30);

/// How long news may still be on their way from a node that has ended.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How long nodes that were told to leave may take before they are ended, unless a second signal comes.
const LEAVE: Duration = Duration::from_secs(120);

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
    /// Its time is over.
    #[error("this ticket has expired {} minutes ago; ask for a new one: `skipstone tickets DIR --new`", .0 / 60)]
    Expired(u64),
    /// Too few or too many.
    #[error("--workers takes 1 to {WORKERS_MAX}, not {0}")]
    Workers(usize),
    /// The network can't be used at all.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The coordinator was not reached.
    #[error("{0}")]
    Unreachable(RequestError),
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
    /// The nodes left, as they were told to.
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

struct Worker {
    key: EndpointKey,
    process: Option<(Child, ChildStdin)>,
    welcome: bool,
    /// Bytes of tensors that its processes have sent: those before, and this one.
    sent: (u64, u64),
    /// What it does, in a word.
    does: &'static str,
    pause: Duration,
    again: Instant,
    /// Whether it has ended as it should.
    done: bool,
    /// Tells the coordinator that the process before is gone. Its successor has the same key, so it waits for that.
    telling: Option<JoinHandle<()>>,
}

struct Stay<'a> {
    options: &'a JoinOptions,
    pass: RunPass,
    ticket: Ticket,
    requester: Requester,
    machine: u64,
    spawner: Spawner,
    workers: Vec<Worker>,
    speaker: Sender<(usize, NodeNews)>,
    refused: Option<String>,
    health: Option<Health>,
}

/// Joins a run, and stays until it is over or this process is told to leave (Ctrl-C or SIGTERM; twice ends at once).
///
/// # Errors
/// See [`JoinError`].
pub fn join(options: &JoinOptions, tell: &mut dyn FnMut(JoinNews)) -> Result<Joined, JoinError> {
    let ticket: Ticket = options.ticket.parse()?;
    let late_s = now_unix_s().saturating_sub(ticket.expires_unix_s);
    if late_s > 0 {
        return Err(JoinError::Expired(late_s));
    }
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
    // What an earlier stay has saved was either brought to the coordinator, or is of no use.
    let _ = fs::remove_dir_all(options.dir.join("state"));
    let keys: Vec<EndpointKey> = (0..options.workers).map(|_| EndpointKey::generate()).collect();
    let requester = Requester::open(EndpointKey::generate(), ticket.relays.clone())?;
    tell(JoinNews::Note("looking for the run".to_owned()));
    let mut pass = admission(&requester, &ticket, &keys, options.region.clone())?;
    adapt(&mut pass.config, options);
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
    let now = Instant::now();
    let worker = |key| Worker {
        key,
        process: None,
        welcome: false,
        sent: (0, 0),
        does: "starting",
        pause: RESPAWN,
        again: now,
        done: false,
        telling: None,
    };
    let workers = keys.into_iter().map(worker).collect();
    let mut stay =
        Stay { options, pass, ticket, requester, machine, spawner, workers, speaker, refused: None, health };
    let ended = stay.watch(&signals, &news, tell);
    stay.kill_all();
    // What nodes said at their end may still be unread.
    while let Ok((worker, news)) = news.recv_timeout(LAST_WORDS) {
        stay.hear(worker, &news, &mut |_| {});
    }
    let sent: u64 = stay.workers.iter().map(|worker| worker.sent.0 + worker.sent.1).sum();
    tell(JoinNews::Note(format!("nodes of this machine sent {sent} bytes of tensors to others")));
    stay.requester.close();
    ended
}

fn admission(
    requester: &Requester,
    ticket: &Ticket,
    keys: &[EndpointKey],
    region: Option<String>,
) -> Result<RunPass, JoinError> {
    let question = Ask::Join {
        ticket: ticket.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        wire: WIRE_VERSION,
        workers: keys.iter().map(|key| key.public().to_string()).collect(),
        region,
    };
    match ask(requester, &ticket.host, &question, &[]) {
        Ok((Answer::Pass(pass), _)) if pass.run == ticket.run => Ok(*pass),
        Ok(_) => Err(JoinError::Refused("it answers something else".to_owned())),
        Err(RequestError::Refused(why)) => Err(JoinError::Refused(why)),
        Err(why) => Err(JoinError::Unreachable(why)),
    }
}

/// The run's options, as they are on this machine.
fn adapt(config: &mut RunConfig, options: &JoinOptions) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    config.threads = Some(options.threads.unwrap_or((cores / options.workers).max(1)));
    config.out.clone_from(&options.dir);
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

impl Stay<'_> {
    fn watch(
        &mut self,
        signals: &Signals,
        news: &Receiver<(usize, NodeNews)>,
        tell: &mut dyn FnMut(JoinNews),
    ) -> Result<Joined, JoinError> {
        let mut leaving: Option<Instant> = None;
        loop {
            self.start_due(leaving.is_some())?;
            match news.recv_timeout(LOOK) {
                Ok((worker, news)) => self.hear(worker, &news, tell),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            self.look_after(leaving.is_some(), tell);
            self.tell_health(leaving.is_some());
            if let Some(why) = self.refused.take() {
                return Err(JoinError::Node(why));
            }
            if self
                .workers
                .iter()
                .all(|worker| worker.process.is_none() && (worker.done || leaving.is_some()))
            {
                return Ok(if leaving.is_some() { Joined::Left } else { Joined::RunOver });
            }
            match (signals.count(), leaving) {
                (0, _) | (1, Some(_)) => {}
                (_, None) => {
                    leaving = Some(Instant::now());
                    let text =
                        "leaving: others take over what these nodes do; press Ctrl-C again to end at once";
                    tell(JoinNews::Note(text.to_owned()));
                    self.tell_all(Control::Leave);
                }
                _ => return Ok(Joined::Left),
            }
            if leaving.is_some_and(|since| since.elapsed() > LEAVE) {
                return Ok(Joined::Left);
            }
        }
    }

    /// Says how the nodes are, to who asks.
    fn tell_health(&self, leaving: bool) {
        let Some(health) = &self.health else { return };
        let does: Vec<&str> = self
            .workers
            .iter()
            .map(|worker| match () {
                () if worker.done => "done",
                () if worker.process.is_none() => "gone",
                () => worker.does,
            })
            .collect();
        let works = does.contains(&"working");
        let why = match () {
            () if leaving => Some("its nodes are leaving".to_owned()),
            () if !works => Some("no node works".to_owned()),
            () => None,
        };
        health.set(why, json!({ "stages": self.pass.config.stages, "workers": does }));
    }

    fn start_due(&mut self, leaving: bool) -> Result<(), JoinError> {
        for index in 0..self.workers.len() {
            let worker = &self.workers[index];
            let told = worker.telling.as_ref().is_none_or(JoinHandle::is_finished);
            if worker.process.is_some() || worker.done || leaving || !told || Instant::now() < worker.again {
                continue;
            }
            let place = self.pass.places.get(index);
            let pace = match place {
                Some(place) => place.pace,
                None => TaskTimes::of_run(&self.pass.config, None, index)?,
            };
            let start = NodeStart {
                secret: self.pass.secret.clone(),
                run: self.pass.run,
                coordinator: self.pass.coordinator.clone(),
                dir: self.options.dir.clone(),
                config: self.pass.config.clone(),
                vocabulary: self.pass.vocabulary,
                view: place.map(|place| place.view.clone()),
                waits: false,
                pace,
                door: Some(DoorStart {
                    machine: self.machine,
                    key: Some(worker.key.to_hex()),
                    relays: self.ticket.relays.to_string(),
                    host: Some(self.ticket.host.to_string()),
                }),
            };
            let name = format!("worker-{}", index + 1);
            let system = |source| JoinError::System { what: "a node can't be started".to_owned(), source };
            let (mut child, stdin) =
                self.spawner.spawn("internal-node", &name, Stdio::piped(), &start).map_err(system)?;
            if let Some(stdout) = child.stdout.take() {
                let speaker = self.speaker.clone();
                std::thread::spawn(move || {
                    let lines = BufReader::new(stdout).lines().map_while(Result::ok);
                    for news in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
                        if speaker.send((index, news)).is_err() {
                            return;
                        }
                    }
                });
            }
            self.workers[index].process = Some((child, stdin));
            self.workers[index].welcome = false;
            self.workers[index].does = "starting";
            let (before, now) = self.workers[index].sent;
            self.workers[index].sent = (before + now, 0);
        }
        Ok(())
    }

    fn hear(&mut self, index: usize, news: &NodeNews, tell: &mut dyn FnMut(JoinNews)) {
        self.workers[index].does = match news {
            NodeNews::Welcome { .. } => "waiting",
            NodeNews::Fetching { .. } => "fetching",
            NodeNews::Working { .. } => "working",
            NodeNews::Away => "away",
            NodeNews::Refused { .. } => "refused",
            NodeNews::Sent { sent_bytes } => {
                self.workers[index].sent.1 = *sent_bytes;
                return;
            }
        };
        let what = match news {
            NodeNews::Welcome { node } => {
                self.workers[index].welcome = true;
                self.workers[index].pause = RESPAWN;
                format!("is node {}, and waits for something to do", node.0)
            }
            NodeNews::Fetching { stage } => format!("gets the weights of {stage}"),
            NodeNews::Working { stage, iteration } => {
                format!("works on {stage} from iteration {} on", iteration.0)
            }
            NodeNews::Away => "has lost the coordinator, and looks for it".to_owned(),
            NodeNews::Refused { why } => {
                self.refused = Some(why.clone());
                return;
            }
            NodeNews::Sent { .. } => return,
        };
        tell(JoinNews::Node { worker: index + 1, what });
    }

    /// Notices who has ended, and tells the coordinator at once: it would wait for a silent link much longer.
    fn look_after(&mut self, leaving: bool, tell: &mut dyn FnMut(JoinNews)) {
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let Some((child, _)) = &mut worker.process else { continue };
            let Ok(Some(status)) = child.try_wait() else { continue };
            worker.process = None;
            worker.done |= status.success();
            if !status.success() {
                let (requester, host) = (self.requester.clone(), self.ticket.host.clone());
                let gone = Ask::Gone { worker: worker.key.public().to_string() };
                // Where it can't be told, silence tells.
                worker.telling = Some(std::thread::spawn(move || drop(ask(&requester, &host, &gone, &[]))));
                worker.again = Instant::now() + worker.pause;
                if !worker.welcome {
                    worker.pause = (worker.pause * 2).min(RESPAWN_MAX);
                }
                if !leaving {
                    let what = format!("died ({status}); another one takes its place");
                    tell(JoinNews::Node { worker: index + 1, what });
                    let words = self.spawner.last_words(&format!("worker-{}", index + 1));
                    if !worker.welcome && !words.trim().is_empty() {
                        tell(JoinNews::Note(words.trim().to_owned()));
                    }
                }
            }
        }
    }

    fn tell_all(&mut self, control: Control) {
        for (_, stdin) in self.workers.iter_mut().filter_map(|worker| worker.process.as_mut()) {
            // Who can't hear is dying anyway.
            let _ = writeln!(stdin, "{control}").and_then(|()| stdin.flush());
        }
    }

    fn kill_all(&mut self) {
        for (child, _) in self.workers.iter_mut().filter_map(|worker| worker.process.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
