//! The child processes: started, listened to, replaced.

mod faults;
mod first_word;
mod host;
mod words;

use super::{ListenOptions, RunError};
use crate::config::RunConfig;
use crate::fixed_plan::FixedPlan;
use crate::live::control::Control;
use crate::live::folder::RunFolder;
use crate::live::spawner::Spawner;
use crate::live::start::{
    CoordinatorFindable, CoordinatorReady, CoordinatorStart, CoordinatorWelcomed, DoorStart, ListenStart,
    NodeCount, NodeStart, PlacesStart,
};
use crate::wan::{PaceCount, RegionView, TaskTimes, WanTable, describe};
use first_word::{Patience, Unready, first_word};
use host::{for_others, invitation, machine_number, note_host, port_before, udp_port_of};
use skipstone_net::{Reach, RunSecret};
use skipstone_planner::SwarmDescription;
use skipstone_protocol::SavedState;
use skipstone_types::{Event, NodeId, Settings};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use words::{Word, hear_coordinator, hear_counts};

/// So many deaths of nodes before a welcome within [`DYING_WINDOW`] are no accident, nor are so many coordinators in a row that can't start.
const DEATHS_AT_START_MAX: usize = 20;
const DYING_WINDOW: Duration = Duration::from_secs(10);

/// What the parent hears.
#[derive(Debug)]
pub(super) enum News {
    /// From the coordinator.
    Event(Event),
    /// How other machines join, in words.
    Invitation(String),
    /// What no event tells, in words.
    Remark(String),
    /// A process was replaced.
    Respawned(&'static str),
}

/// Who has come from elsewhere, in words.
fn welcome(CoordinatorWelcomed { node, machine, ticket }: &CoordinatorWelcomed) -> News {
    News::Remark(format!("{node} joins from machine {machine} with ticket {ticket}"))
}

struct Process {
    child: Child,
    /// Held open: a child ends when it closes.
    stdin: ChildStdin,
    slot: usize,
    /// Whether its successor was started when it said that it leaves.
    succeeded: bool,
}

/// The processes of a swarm.
pub(super) struct Children {
    spawner: Spawner,
    config: RunConfig,
    dir: PathBuf,
    vocabulary: usize,
    settings: Settings,
    secret: String,
    wan: Option<WanTable>,
    /// What the planner is told of it.
    swarm: Option<SwarmDescription>,
    /// Stages and paths, if they are given.
    fixed: Option<FixedPlan>,
    port: u16,
    /// This machine's number, if there are others.
    machine: u64,
    listen: Option<ListenOptions>,
    /// The UDP port of the coordinator.
    udp_port: u16,
    address: String,
    /// Whether it has been said how other machines join.
    invited: bool,
    resume: Option<SavedState>,
    coordinator: Option<Process>,
    coordinator_exit: Option<bool>,
    nodes: Vec<Process>,
    /// Places whose process is gone, and not yet replaced.
    empty: VecDeque<usize>,
    /// How many of them are to stay empty.
    away: usize,
    words: Receiver<Word>,
    speaker: Sender<Word>,
    welcomed: BTreeSet<u32>,
    /// Processes of the nodes that were welcomed.
    processes: BTreeMap<NodeId, u32>,
    deaths_at_start: VecDeque<Instant>,
    /// Coordinators in a row that could not start.
    failed_coordinators: usize,
    /// How true the pace of each process was.
    paces: BTreeMap<u32, PaceCount>,
    /// Bytes of tensors that each process has sent.
    sent: BTreeMap<u32, u64>,
    /// Whether the run has ended: nobody is replaced any more.
    over: bool,
    /// Processes that wait for their turn to join, and the one whose turn it is.
    turns: VecDeque<u32>,
    let_in: Option<u32>,
    /// Whether the coordinator was told to stop; its successor is told too.
    stops: bool,
}

impl Children {
    /// Starts the coordinator, and as many nodes as the run has. `heed` is called while the coordinator is waited for, with what is to
    /// be said of that, if anything is; answers whether to go on.
    pub(super) fn start(
        config: &RunConfig,
        folder: &RunFolder,
        settings: Settings,
        resume: Option<SavedState>,
        port: u16,
        listen: Option<ListenOptions>,
        heed: &mut dyn FnMut(Option<&str>) -> bool,
    ) -> Result<Self, RunError> {
        let machine = machine_number(listen.is_some())?;
        let workers = listen.as_ref().and_then(|listen| listen.workers).unwrap_or(config.nodes());
        let spawner = Spawner::new(folder.dir.join("logs"))
            .map_err(|source| RunError::Spawn { what: "a node", source })?;
        let (speaker, words) = channel();
        let wan = config.wan_table()?;
        // Where it was before is what earlier tickets say.
        let udp_port = listen
            .as_ref()
            .map_or(0, |listen| listen.udp_port.or_else(|| port_before(&folder.dir)).unwrap_or_default());
        let mut children = Self {
            spawner,
            config: config.clone(),
            dir: folder.dir.clone(),
            vocabulary: folder.facts.vocabulary,
            settings,
            secret: RunSecret::generate().to_hex(),
            swarm: wan.as_ref().map(|table| describe(config, &folder.shape, table)).transpose()?,
            fixed: config.fixed_plan()?,
            wan,
            port,
            machine,
            listen,
            udp_port,
            address: String::new(),
            invited: false,
            resume,
            coordinator: None,
            coordinator_exit: None,
            nodes: Vec::new(),
            empty: VecDeque::new(),
            away: 0,
            words,
            speaker,
            welcomed: BTreeSet::new(),
            processes: BTreeMap::new(),
            deaths_at_start: VecDeque::new(),
            failed_coordinators: 0,
            paces: BTreeMap::new(),
            sent: BTreeMap::new(),
            over: false,
            turns: VecDeque::new(),
            let_in: None,
            stops: false,
        };
        children.start_coordinator()?;
        children.wait_for_address(heed)?;
        // Where regions differ, who is let in when decides which of them serves a stage.
        let waits = children.wan.is_some();
        for slot in 0..workers {
            let process = children.start_node(slot, waits)?;
            if waits {
                children.turns.push_back(process);
            }
        }
        children.let_in();
        Ok(children)
    }

    fn start_coordinator(&mut self) -> Result<(), RunError> {
        let what = "the coordinator";
        let failed = |source| RunError::Spawn { what, source };
        let start = CoordinatorStart {
            secret: self.secret.clone(),
            settings: self.settings.clone(),
            dir: self.dir.clone(),
            port: self.port,
            resume: self.resume.clone(),
            swarm: self.swarm.clone(),
            fixed: self.fixed.clone(),
            domain_price_s: self.config.domain_price,
            regions: self.wan.as_ref().map(|table| table.names().to_vec()).unwrap_or_default(),
            view: self.view(WanTable::coordinator),
            listen: self.listen.as_ref().map(|listen| ListenStart {
                machine: self.machine,
                relays: listen.relays.clone(),
                lan: listen.lan,
                port: self.udp_port,
                config: for_others(&self.config),
                vocabulary: self.vocabulary,
                places: self.config.table_of_links().map(|table| PlacesStart {
                    table: table.to_owned(),
                    shaped: self.config.wan.is_some(),
                    first: listen.workers.unwrap_or(self.config.nodes()),
                }),
            }),
        };
        let (mut child, stdin) = self
            .spawner
            .spawn("internal-coordinator", "coordinator", Stdio::piped(), &start)
            .map_err(failed)?;
        if let Some(stdout) = child.stdout.take() {
            let speaker = self.speaker.clone();
            std::thread::spawn(move || hear_coordinator(stdout, &speaker));
        }
        self.coordinator = Some(Process { child, stdin, slot: 0, succeeded: false });
        if self.stops {
            self.tell_coordinator("stop");
        }
        Ok(())
    }

    /// Nodes need to know where the coordinator listens; so does its successor.
    fn wait_for_address(&mut self, heed: &mut dyn FnMut(Option<&str>) -> bool) -> Result<(), RunError> {
        let coordinator = &mut self.coordinator;
        let mut lives =
            || coordinator.as_mut().is_some_and(|process| matches!(process.child.try_wait(), Ok(None)));
        let ready = first_word(&self.words, &mut lives, &Patience::default(), heed);
        let words = || self.spawner.last_words("coordinator");
        let ready = ready.map_err(|why| match why {
            Unready::Dead => RunError::KeepsDying { what: "the coordinator", words: words() },
            Unready::Silent(waited) => RunError::Silent { waited_s: waited.as_secs(), words: words() },
            Unready::Unwanted => RunError::Interrupted,
        })?;
        self.take_address(ready)
    }

    fn take_address(&mut self, ready: CoordinatorReady) -> Result<(), RunError> {
        if let Ok(reach) = ready.address.parse::<Reach>() {
            self.udp_port = reach.internet.as_ref().and_then(udp_port_of).unwrap_or(self.udp_port);
            let tcp_port = reach.tcp.and_then(|(_, address)| address.rsplit(':').next()?.parse().ok());
            self.port = tcp_port.unwrap_or(self.port);
        }
        let asked = self.listen.as_ref().and_then(|listen| listen.udp_port);
        if let Some(asked) = asked.filter(|asked| *asked != self.udp_port) {
            return Err(RunError::Listen(format!(
                "--udp-port {asked}: another program of this machine has that UDP port; end it, or take another port"
            )));
        }
        // A coordinator that comes again may have another port.
        self.note_address(ready.address)
    }

    fn note_address(&mut self, address: String) -> Result<(), RunError> {
        self.address = address;
        self.listen.as_ref().map_or(Ok(()), |listen| note_host(&self.dir, &self.address, listen))
    }

    /// Other machines may join from now on; how they do, in words, the first time.
    fn invite(&mut self, findable: CoordinatorFindable) -> Result<Option<String>, RunError> {
        self.note_address(findable.address)?;
        let Some(listen) = self.listen.as_ref().filter(|_| !self.invited) else { return Ok(None) };
        self.invited = true;
        invitation(&self.dir, self.settings.run, findable.by_relay, listen).map(Some)
    }

    /// Links as they are seen from a region; held back where that is asked for.
    fn view(&self, region: impl Fn(&WanTable) -> u16) -> Option<RegionView> {
        let view = self.wan.as_ref().map(|table| table.view(region(table), self.config.seed))?;
        Some(if self.config.wan.is_some() { view } else { view.unshaped() })
    }

    /// Starts a process; answers with its id.
    fn start_node(&mut self, slot: usize, waits: bool) -> Result<u32, RunError> {
        let failed = |source| RunError::Spawn { what: "a node", source };
        let start = NodeStart {
            secret: self.secret.clone(),
            run: self.settings.run,
            coordinator: self.address.clone(),
            dir: self.dir.clone(),
            config: self.config.clone(),
            vocabulary: self.vocabulary,
            // Who takes a node's place is where it was, and as fast.
            view: self.view(|table| self.region_of(table, slot)),
            waits,
            pace: TaskTimes::of_run(&self.config, self.wan.as_ref(), slot)?,
            door: self.listen.as_ref().map(|listen| DoorStart {
                machine: self.machine,
                key: None,
                relays: listen.relays.clone(),
                host: None,
            }),
        };
        // A paced node says how true its pace is, and one whose bytes cost something how many it sent; any other has nothing
        // to say.
        let counts = start.pace.is_some() || self.config.price_per_gb.is_some();
        let stdout = if counts { Stdio::piped() } else { Stdio::null() };
        let (mut child, stdin) =
            self.spawner.spawn("internal-node", &format!("node-{slot}"), stdout, &start).map_err(failed)?;
        if let Some(stdout) = child.stdout.take() {
            let speaker = self.speaker.clone();
            std::thread::spawn(move || hear_counts(stdout, &speaker));
        }
        let process = child.id();
        self.nodes.push(Process { child, stdin, slot, succeeded: false });
        Ok(process)
    }

    /// Lets the next node in that waits for its turn, once the one before has joined.
    fn let_in(&mut self) {
        while let Some(process) = self.turns.front().copied() {
            let joined = self.welcomed.contains(&process);
            let told = self.let_in == Some(process);
            // A node that is gone is passed over; its successor waits for nobody.
            if !joined && (told || self.tell_node(process, Control::Enter)) {
                self.let_in = Some(process);
                if self.nodes.iter().any(|node| node.child.id() == process) {
                    return;
                }
            }
            self.turns.pop_front();
        }
    }

    /// So many of the dead are not replaced from now on.
    pub(super) fn leave_empty(&mut self, places: usize) {
        self.away = places;
    }

    /// Waits for news at most so long, and replaces the dead.
    pub(super) fn look(&mut self, wait: Duration) -> Result<Vec<News>, RunError> {
        let mut news = Vec::new();
        let mut word = self.words.recv_timeout(wait).ok();
        while let Some(said) = word {
            match said {
                Word::Ready(ready) => self.take_address(ready)?,
                Word::Findable(findable) => news.extend(self.invite(findable)?.map(News::Invitation)),
                Word::Welcomed(welcomed) => news.push(welcome(&welcomed)),
                Word::Node(count) => self.count(count),
                Word::Event(event) => {
                    self.note(&event);
                    let leaves = if let Event::Leaving { node, .. } = &event { Some(*node) } else { None };
                    news.push(News::Event(event));
                    if let Some(node) = leaves {
                        self.succeed(node, &mut news)?;
                    }
                }
            }
            word = self.words.try_recv().ok();
        }
        self.let_in();
        self.replace_dead_nodes(&mut news)?;
        self.replace_dead_coordinator(&mut news)?;
        Ok(news)
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::CoordinatorStarted { .. } => self.resume = None,
            Event::NodeJoined { node, process, .. } => {
                self.welcomed.insert(*process);
                self.processes.insert(*node, *process);
            }
            Event::NodeLost { node, .. } => {
                self.processes.remove(node);
            }
            Event::Finished { .. } => self.over = true,
            _ => {}
        }
    }

    /// A node leaves with notice: its successor comes first, so that it can take over while the node still serves.
    fn succeed(&mut self, node: NodeId, news: &mut Vec<News>) -> Result<(), RunError> {
        let process = self.processes.get(&node);
        let leaver = self.nodes.iter_mut().find(|other| Some(&other.child.id()) == process);
        // Where all are told to end, as by whoever ends a service, none is to come instead.
        let goes_on = self.config.respawn && !self.over && !self.stops;
        let Some(leaver) = leaver.filter(|leaver| !leaver.succeeded && goes_on) else {
            return Ok(());
        };
        leaver.succeeded = true;
        let slot = leaver.slot;
        self.start_node(slot, false)?;
        news.push(News::Respawned("node"));
        Ok(())
    }

    fn replace_dead_nodes(&mut self, news: &mut Vec<News>) -> Result<(), RunError> {
        let mut dead = Vec::new();
        self.nodes.retain_mut(|process| {
            let alive = matches!(process.child.try_wait(), Ok(None));
            if !alive {
                dead.push((process.child.id(), process.slot, process.succeeded));
            }
            alive
        });
        for (process, slot, succeeded) in dead {
            if !self.welcomed.remove(&process) && !self.over {
                self.note_death_at_start(&format!("node-{slot}"))?;
            }
            if !succeeded {
                self.empty.push_back(slot);
            }
        }
        while self.config.respawn && !self.over && self.empty.len() > self.away {
            let Some(slot) = self.empty.pop_front() else { break };
            self.start_node(slot, false)?;
            news.push(News::Respawned("node"));
        }
        Ok(())
    }

    fn replace_dead_coordinator(&mut self, news: &mut Vec<News>) -> Result<(), RunError> {
        let Some(process) = &mut self.coordinator else { return Ok(()) };
        let Ok(Some(status)) = process.child.try_wait() else { return Ok(()) };
        self.coordinator = None;
        // What it said last may still be on its way.
        let until = Instant::now() + Duration::from_millis(200);
        while let Ok(word) = self.words.recv_timeout(until.saturating_duration_since(Instant::now())) {
            match word {
                Word::Event(event) => {
                    self.note(&event);
                    news.push(News::Event(event));
                }
                Word::Node(count) => self.count(count),
                Word::Welcomed(welcomed) => news.push(welcome(&welcomed)),
                // Its successor tells anew where it is.
                Word::Ready(_) | Word::Findable(_) => {}
            }
        }
        if self.over {
            self.coordinator_exit = Some(status.success());
            return Ok(());
        }
        if !self.config.respawn {
            return Err(RunError::CoordinatorDied);
        }
        // However long each of them tries, all must not try for ever.
        let could_not_start = status.code() == Some(2);
        self.failed_coordinators = if could_not_start { self.failed_coordinators + 1 } else { 0 };
        if self.failed_coordinators > DEATHS_AT_START_MAX {
            let words = self.spawner.last_words("coordinator");
            return Err(RunError::KeepsDying { what: "the coordinator", words });
        }
        self.start_coordinator()?;
        news.push(News::Respawned("coordinator"));
        Ok(())
    }

    fn note_death_at_start(&mut self, log: &str) -> Result<(), RunError> {
        let now = Instant::now();
        self.deaths_at_start.push_back(now);
        while self.deaths_at_start.front().is_some_and(|at| now.duration_since(*at) > DYING_WINDOW) {
            self.deaths_at_start.pop_front();
        }
        if self.deaths_at_start.len() > DEATHS_AT_START_MAX {
            return Err(RunError::KeepsDying { what: "a node", words: self.spawner.last_words(log) });
        }
        Ok(())
    }

    /// Once the run is over: whether the coordinator ended as it should.
    pub(super) fn coordinator_exit(&self) -> Option<bool> {
        self.coordinator_exit
    }

    fn count(&mut self, count: NodeCount) {
        match count {
            NodeCount::Pace(count) => drop(self.paces.insert(count.process, count)),
            NodeCount::Sent(count) => drop(self.sent.insert(count.process, count.sent_bytes)),
        }
    }

    /// Bytes of tensors that this machine's nodes have sent, as far as they were counted; asked after [`Children::pace`].
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent.values().sum()
    }

    /// How true the pace was, of all nodes; none if the run was not paced.
    pub(super) fn pace(&mut self) -> Option<PaceCount> {
        // What nodes said at their end may still be unread.
        while let Ok(word) = self.words.try_recv() {
            if let Word::Node(count) = word {
                self.count(count);
            }
        }
        let mut counts = self.paces.values().copied();
        let first = counts.next()?;
        Some(counts.fold(first, |mut sum, count| {
            sum.add(&count);
            sum
        }))
    }

    /// Where a node of this machine is: by its place if links are made longer, else where the machine is.
    fn region_of(&self, table: &WanTable, slot: usize) -> u16 {
        if self.config.wan.is_some() { table.region_of(slot) } else { table.coordinator() }
    }

    /// Process ids: the coordinator's, and the nodes'.
    pub(super) fn processes(&self) -> (Option<u32>, Vec<u32>) {
        let coordinator = self.coordinator.as_ref().map(|process| process.child.id());
        (coordinator, self.nodes.iter().map(|node| node.child.id()).collect())
    }

    pub(super) fn kill_all(&mut self) {
        self.over = true;
        for process in self.nodes.iter_mut().chain(&mut self.coordinator) {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
        self.nodes.clear();
        self.coordinator = None;
    }

    /// Waits until all have ended by themselves; then kills what is left.
    pub(super) fn leave(&mut self, patience: Duration) {
        self.over = true;
        let until = Instant::now() + patience;
        while Instant::now() < until {
            self.nodes.retain_mut(|process| matches!(process.child.try_wait(), Ok(None)));
            if self.nodes.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill_all();
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.kill_all();
    }
}
