//! The parent of a local swarm: it prepares the folder, starts the coordinator and the nodes, replaces those that die,
//! and tells what happens. It takes no part in training.

pub(in crate::live) mod capacity;
mod chaos;
mod children;
mod error;
pub(crate) mod kills;
mod memory;
mod notices;

pub use crate::config::{Kill, Target, When};
pub use chaos::{ChaosPlan, Fault};
pub use error::RunError;
pub use kills::KillScript;
pub use memory::MemorySample;

use super::folder::RunFolder;
use super::publish::{StateManifest, read_state};
use crate::config::RunConfig;
use crate::live::health::Health;
use crate::live::offsite::Offsite;
use crate::live::say;
use crate::live::signals::Signals;
use crate::wan::PaceCount;
use chaos::Injector;
use children::{Children, News};
use kills::{Deed, Killer, Roster};
use memory::MemoryWatch;
use notices::Notices;
use skipstone_observe::{Observer, Outcome, Progress, RunInfo};

use serde_json::json;
use skipstone_types::{Event, Iteration, NodeId, StageId};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Time between looks at the children.
const LOOK: Duration = Duration::from_millis(20);

/// How long nodes may take to end once the run is over.
const LEAVE: Duration = Duration::from_secs(5);

/// A run is not well any more if no iteration ends for so long, and for so many times as long as one ever took.
const QUIET: Duration = Duration::from_secs(60);
const QUIET_FACTOR: u32 = 10;

/// Silence at the end of a run after which it is said that there is one.
const SILENCE: Duration = Duration::from_secs(30);

/// What `run` needs beyond the configuration.
#[derive(Debug)]
pub struct RunOptions {
    /// Go on from `state/`.
    pub resume: bool,
    /// How progress is shown.
    pub progress: Progress,
    /// Kills on purpose.
    pub kills: KillScript,
    /// Faults on purpose, of every kind.
    pub chaos: Option<ChaosPlan>,
    /// Coordinator's port; 0 takes any free one.
    pub port: u16,
    /// Let nodes of other machines in.
    pub listen: Option<ListenOptions>,
    /// Where `GET /health` says how the run is: `PORT` of the loopback, or `ADDRESS:PORT`.
    pub health: Option<String>,
}

/// How a run takes other machines in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenOptions {
    /// Through whom it is found: `public`, `none`, or relays by URL, with commas.
    pub relays: String,
    /// Whether it says where it is to whoever asks on its own network (multicast DNS).
    pub lan: bool,
    /// The UDP port at which it is found; none: the one that it had before, or any free one.
    pub udp_port: Option<u16>,
    /// Nodes on this machine; none: as many as the run has.
    pub workers: Option<usize>,
    /// For how many seconds the ticket lets machines in.
    pub ticket_life_s: u64,
    /// A file that gets the ticket, for machines that share a folder; none: it is only shown.
    pub ticket_file: Option<PathBuf>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// All iterations are done.
    Done,
    /// Stopped by a signal; `--resume` goes on.
    Stopped,
    /// It could not go on, because of this.
    Failed(String),
}

/// What a chaos run leaves beyond its folder.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChaosTrace {
    /// Memory over time.
    pub memory: Vec<MemorySample>,
    /// Whether the run hung and had to be ended.
    pub hung: bool,
}

/// What a run leaves behind.
#[derive(Debug)]
pub struct RunOutcome {
    /// How it ended.
    pub ended: Ended,
    /// The folder, still held.
    pub folder: RunFolder,
    /// The state saved last, if any was.
    pub state: Option<StateManifest>,
    /// What a chaos run is judged by besides.
    pub chaos: ChaosTrace,
    /// Numbers and report.
    pub observed: Outcome,
}

/// Trains until the run ends.
///
/// # Errors
/// What keeps a run from starting, or from being told what becomes of it. A run that starts and can't go on is
/// [`Ended::Failed`].
pub fn run(config: &RunConfig, options: RunOptions) -> Result<RunOutcome, RunError> {
    let signals = Signals::listen().map_err(RunError::Signals)?;
    let workers = options.listen.as_ref().and_then(|listen| listen.workers).unwrap_or(config.nodes());
    capacity::check(config, workers)?;
    let health = options.health.as_deref().map(Health::listen).transpose()?;
    let offsite = Offsite::open(config, options.resume)?;
    let folder = open_folder(config, options.resume, &signals)?;
    let offsite = offsite.map(|tried| tried.start(&folder, options.resume)).transpose()?;
    let resume = if options.resume { Some(read_state(&folder.dir)?.saved()) } else { None };
    let mut settings = config.settings()?;
    settings.run = folder.facts.run;
    let info = RunInfo {
        model: config.model.clone(),
        parameters: folder.shape.model.parameters() as u64,
        price_per_hour: config.price_per_hour,
        price_per_gb: config.price_per_gb,
        out: folder.dir.clone(),
        bigram_val_loss: folder.facts.bigram_loss,
        entropy_floor_loss: folder.facts.entropy_floor,
        settings: told_settings(config),
        ..RunInfo::from_settings(&settings)
    };
    // Where time ends the run, nobody knows how many iterations it will have made.
    let steps = if options.chaos.is_some() { 0 } else { info.steps };
    let info = RunInfo { steps, ..info };
    let mut observer = Observer::start(&folder.dir, info.clone(), options.progress)?;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    observer.record(0, Event::SwarmStarted { cores });
    observer.note(&config.memory_plan(folder.facts.vocabulary)?.to_string());
    let resumed = resume.as_ref().map(|saved| saved.iteration);
    if let Some(done) = resumed.map(|saved| saved.0).filter(|done| *done >= config.steps) {
        observer.note(&done_already(config, done));
    }
    let mut heed = |text: Option<&str>| {
        text.into_iter().for_each(|text| observer.note(text));
        // Once asks for an orderly end, which there is when it has begun.
        signals.count() < 2
    };
    let (port, listen) = (options.port, options.listen.clone());
    let mut children = Children::start(config, &folder, settings, resume, port, listen, &mut heed)?;
    if let Some(health) = &health {
        observer.note(&format!("how it is: http://{}/health", health.address()));
    }
    let killer = Killer::new(options.kills, config.churn_plan()?, config.seed, config.nodes());
    let killer = match resumed {
        Some(saved) => killer.going_on_from(saved),
        None => killer,
    };
    let mut parent = Parent {
        config,
        observer,
        roster: Roster::default(),
        injector: options.chaos.map(Injector::new),
        memory: MemoryWatch::default(),
        moved: None,
        longest: Duration::ZERO,
        health,
        hung: false,
        killer,
        began: Instant::now(),
        saved: Instant::now(),
        iteration: Iteration(0),
        ended: None,
        signals,
        offsite,
        notices: config.notice_command.clone().map(|command| Notices::new(command, folder.dir.join("logs"))),
        stopping: false,
        heard: Instant::now(),
        refused: None,
    };
    let ended = parent.watch(&mut children)?;
    children.leave(LEAVE);
    parent.wait_for_store();
    let chaos = ChaosTrace { memory: std::mem::take(&mut parent.memory.samples), hung: parent.hung };
    let mut observed = parent.observer.finish();
    observed.summary.pace = children.pace().map(PaceCount::truth);
    observed.summary.set_traffic(&info, children.sent_bytes());
    let state = read_state(&folder.dir).ok();
    Ok(RunOutcome { ended, folder, state, chaos, observed })
}

/// The run's folder. Reading the data of a new one may take long, and hears of nothing: it happens aside, and a signal ends it.
fn open_folder(config: &RunConfig, resume: bool, signals: &Signals) -> Result<RunFolder, RunError> {
    if resume {
        return Ok(RunFolder::resume(config)?);
    }
    let (sender, made) = mpsc::channel();
    // What is said first is that the folder is ours.
    let is_ours = Arc::new(AtomicBool::new(false));
    let (said, config_aside) = (is_ours.clone(), config.clone());
    let aside = std::thread::spawn(move || {
        let made = RunFolder::create(&config_aside, &mut |line| {
            said.store(true, Ordering::Relaxed);
            say(&line);
        });
        _ = sender.send(made);
    });
    loop {
        match made.recv_timeout(LOOK) {
            Ok(made) => return Ok(made?),
            Err(RecvTimeoutError::Timeout) if signals.count() == 0 => {}
            Err(RecvTimeoutError::Timeout) => {
                if is_ours.load(Ordering::Relaxed) {
                    RunFolder::clear(&config.out);
                }
                return Err(RunError::NotBegun);
            }
            Err(RecvTimeoutError::Disconnected) => {
                if let Err(panic) = aside.join() {
                    std::panic::resume_unwind(panic);
                }
                return Err(RunError::NotBegun);
            }
        }
    }
}

/// What is said where nothing is left to do.
fn done_already(config: &RunConfig, done: u64) -> String {
    format!(
        "the run is done already: it has {done} iterations, and --steps is {}; go on with more: skipstone train --resume --out {} --steps {}",
        config.steps,
        config.out.display(),
        done.saturating_mul(2).max(done.saturating_add(1))
    )
}

/// Options for the report.
fn told_settings(config: &RunConfig) -> Vec<(String, String)> {
    let Ok(text) = config.to_toml() else { return Vec::new() };
    text.lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

struct Parent<'a> {
    config: &'a RunConfig,
    observer: Observer,
    roster: Roster,
    injector: Option<Injector>,
    memory: MemoryWatch,
    /// When the run got further last, since `began`, and the longest time that it took.
    moved: Option<Duration>,
    longest: Duration,
    health: Option<Health>,
    hung: bool,
    killer: Killer,
    began: Instant,
    saved: Instant,
    iteration: Iteration,
    ended: Option<String>,
    signals: Signals,
    offsite: Option<Offsite>,
    notices: Option<Notices>,
    stopping: bool,
    /// When there was news last, or that there is none was said.
    heard: Instant,
    /// What the disk refused last.
    refused: Option<String>,
}

impl Parent<'_> {
    fn watch(&mut self, children: &mut Children) -> Result<Ended, RunError> {
        loop {
            for news in children.look(LOOK)? {
                self.on_news(news);
            }
            let elapsed_ms = self.elapsed_ms();
            self.observer.tick(elapsed_ms);
            self.tell_stored();
            self.tell_health();
            if let Some(exit) = children.coordinator_exit() {
                return Ok(self.verdict(exit));
            }
            match self.signals.count() {
                1 if !self.stopping => {
                    self.stopping = true;
                    self.observer.note(
                        "stopping: the iteration is finished and saved; press Ctrl-C again to end at once",
                    );
                    children.tell_coordinator("stop");
                }
                0 | 1 => {}
                _ => {
                    children.kill_all();
                    return Err(RunError::Interrupted);
                }
            }
            self.tell_silence();
            if let Some(ended) = self.make_chaos(children) {
                return Ok(ended);
            }
            let trains = self.iteration.0 < self.config.steps;
            if trains && !self.stopping && self.ended.is_none() {
                self.kill_on_purpose(children);
                self.save_by_time(children);
                self.heed_notices(children);
            }
        }
    }

    /// An end that does not come is told, and why if that is known: who can't write can't tell.
    fn tell_silence(&mut self) {
        if !self.stopping || self.heard.elapsed() < SILENCE {
            return;
        }
        self.heard = Instant::now();
        let why = self.refused.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        self.observer.note(&format!(
            "still ending, and nothing was heard for {} s{why}; press Ctrl-C again to end at once",
            SILENCE.as_secs()
        ));
    }

    /// Tells what became of states on their way to the store.
    fn tell_stored(&mut self) {
        let news = self.offsite.as_ref().map(Offsite::news).unwrap_or_default();
        let elapsed_ms = self.elapsed_ms();
        for event in news {
            self.observer.record(elapsed_ms, event);
        }
    }

    /// The last state is on its way to the store: it ends, one way or the other, as every try has a bound. Ctrl-C leaves it.
    fn wait_for_store(&mut self) {
        let Some(offsite) = self.offsite.take() else { return };
        let signals = self.signals.count();
        if !offsite.is_idle() {
            self.observer.note(&format!("the state is on its way to {}; Ctrl-C leaves it", offsite.url()));
        }
        while !offsite.is_idle() && self.signals.count() == signals {
            std::thread::sleep(LOOK);
            self.observer.tick(self.elapsed_ms());
        }
        self.offsite = Some(offsite);
        self.tell_stored();
    }

    /// Says how the run is, to who asks.
    fn tell_health(&self) {
        let Some(health) = &self.health else { return };
        let age = self.moved.map(|moved| self.began.elapsed().saturating_sub(moved));
        let stages = (0..=self.config.stages).map(StageId);
        let holes: Vec<u16> =
            stages.filter(|stage| self.roster.of_stage(*stage).is_empty()).map(|stage| stage.0).collect();
        let disputed: Vec<u16> = self.observer.state().disputed_stages().map(|stage| stage.0).collect();
        let facts = json!({
            "iteration": self.iteration.0,
            "steps": self.config.steps,
            "nodes": self.observer.state().living(),
            "stages_without_a_node": holes,
            "disputed_stages": disputed,
            "last_commit_age_s": age.map(|age| (age.as_secs_f64() * 10.0).round() / 10.0),
        });
        let limit = QUIET.max(self.longest * QUIET_FACTOR);
        let why = match age {
            _ if self.ended.is_some() => Some("it is over".to_owned()),
            _ if self.stopping => Some("it is stopping".to_owned()),
            _ if !holes.is_empty() => Some("stages have no node".to_owned()),
            None => Some("no iteration is done yet".to_owned()),
            Some(age) if age > limit => Some(format!("no iteration was done for {} s", limit.as_secs())),
            Some(_) => None,
        };
        health.set(why, facts);
    }

    fn elapsed_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn on_news(&mut self, news: News) {
        let event = match news {
            News::Event(event) => event,
            News::Invitation(text) => return self.observer.note(&text),
            News::Remark(text) => return self.observer.remark(&text),
            News::Respawned(target) => Event::Respawned { target: target.to_owned() },
        };
        self.roster.apply(&event);
        self.heard = Instant::now();
        match &event {
            Event::SaveFailed { why } => self.refused = Some(why.clone()),
            Event::Committed { iteration, .. } => {
                self.iteration = iteration.next();
                let now = self.began.elapsed();
                self.longest = self.longest.max(now.saturating_sub(self.moved.unwrap_or_default()));
                self.moved = Some(now);
            }
            Event::StateSaved { .. } => {
                self.refused = None;
                if let Some(offsite) = &self.offsite {
                    offsite.offer();
                }
            }
            Event::Finished { why, .. } => self.ended = Some(why.clone()),
            _ => {}
        }
        let elapsed_ms = self.elapsed_ms();
        self.observer.record(elapsed_ms, event);
    }

    fn verdict(&self, success: bool) -> Ended {
        match self.ended.as_deref() {
            Some("done") if success => Ended::Done,
            Some("stopped") if success => Ended::Stopped,
            Some(why) => Ended::Failed(why.to_owned()),
            None => {
                Ended::Failed("the coordinator ended without a word; see logs/coordinator.log".to_owned())
            }
        }
    }

    /// Faults of every kind; stops the run when their time is over. Answers when the run hangs: then it has been ended.
    fn make_chaos(&mut self, children: &mut Children) -> Option<Ended> {
        let injector = self.injector.as_mut()?;
        let elapsed = self.began.elapsed();
        let (coordinator, nodes) = children.processes();
        self.memory.look(elapsed, coordinator, &nodes);
        if elapsed > self.moved.unwrap_or_default() + injector.plan().hang {
            self.hung = true;
            children.kill_all();
            let why = format!("the run hung: nothing happened for {} s", injector.plan().hang.as_secs());
            return Some(Ended::Failed(why));
        }
        if self.stopping || self.ended.is_some() {
            injector.go_on(injector.plan().time, children);
        } else if elapsed >= injector.plan().time {
            injector.go_on(elapsed, children);
            self.stopping = true;
            self.observer.note("the time is over: no more faults, the iteration is finished and saved");
            children.tell_coordinator("stop");
        } else if self.iteration > Iteration(0) {
            for event in injector.make(elapsed, &mut self.roster, children) {
                self.observer.record(elapsed.as_millis() as u64, event);
            }
        }
        None
    }

    /// Drains nodes whose machine is about to be taken away; stops the run if that is so for all.
    fn heed_notices(&mut self, children: &mut Children) {
        let Some(notices) = &mut self.notices else { return };
        let given = notices.look(&children.places(), Instant::now());
        if let Some(complaint) = given.complaint {
            self.observer.note(&complaint);
        }
        if given.all {
            self.stopping = true;
            self.observer.note("every node has notice: the iteration is finished and saved");
            children.tell_coordinator("stop");
            return;
        }
        for process in given.nodes {
            // The node says itself that it leaves.
            children.drain_node(process);
        }
    }

    fn kill_on_purpose(&mut self, children: &mut Children) {
        let deeds = self.killer.due(self.began.elapsed(), self.iteration, &self.roster);
        children.leave_empty(self.killer.away());
        for deed in deeds {
            match deed {
                Deed::Kill(None) => {
                    if children.kill_coordinator() {
                        self.note_killed("coordinator", None);
                    }
                }
                Deed::Kill(Some(node)) => self.take_away(children, node, false),
                Deed::Drain(node) => self.take_away(children, node, true),
                Deed::Region { region, notice } => {
                    let there = children.in_region(region);
                    let mut nodes = self.roster.all();
                    nodes.retain(|node| {
                        self.roster.process_of(*node).is_some_and(|process| there.contains(&process))
                    });
                    for node in self.roster.but_the_last_origin(nodes) {
                        self.take_away(children, node, notice);
                    }
                }
            }
        }
    }

    /// Kills a node, or gives it notice.
    fn take_away(&mut self, children: &mut Children, node: NodeId, notice: bool) {
        let Some(process) = self.roster.process_of(node) else { return };
        if notice {
            // The node says itself that it leaves.
            children.drain_node(process);
        } else if children.kill_node(process) {
            self.note_killed("node", Some(node));
        }
    }

    fn note_killed(&mut self, target: &str, node: Option<NodeId>) {
        let stage = node.and_then(|node| self.roster.stage_of(node));
        let elapsed_ms = self.elapsed_ms();
        self.observer.record(elapsed_ms, Event::Killed { target: target.to_owned(), node, stage });
    }

    fn save_by_time(&mut self, children: &mut Children) {
        let every_s = self.config.save_every_s;
        if every_s > 0.0 && self.saved.elapsed().as_secs_f64() >= every_s {
            self.saved = Instant::now();
            children.tell_coordinator("save");
        }
    }
}
