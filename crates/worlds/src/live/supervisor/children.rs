//! The child processes: started, listened to, replaced.

use super::{ListenOptions, RunError};
use crate::config::RunConfig;
use crate::fixed_plan::FixedPlan;
use crate::live::control::Control;
use crate::live::folder::RunFolder;
use crate::live::spawner::Spawner;
use crate::live::start::{
    CoordinatorReady, CoordinatorStart, DoorStart, ListenStart, NodeCount, NodeStart, PlacesStart,
};
use crate::wan::{PaceCount, RegionView, TaskTimes, WanTable, describe};
use skipstone_net::{Reach, RunSecret};
use skipstone_planner::SwarmDescription;
use skipstone_protocol::SavedState;
use skipstone_types::{Event, NodeId, Settings};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// So many deaths before a welcome within [`DYING_WINDOW`] are no accident.
const DEATHS_AT_START_MAX: usize = 20;
const DYING_WINDOW: Duration = Duration::from_secs(10);

/// What the parent hears.
#[derive(Debug)]
pub(super) enum News {
    /// From the coordinator.
    Event(Event),
    /// A process was replaced.
    Respawned(&'static str),
}

enum Word {
    Ready(CoordinatorReady),
    Event(Event),
    Node(NodeCount),
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
    /// Starts the coordinator, and as many nodes as the run has.
    pub(super) fn start(
        config: &RunConfig,
        folder: &RunFolder,
        settings: Settings,
        resume: Option<SavedState>,
        port: u16,
        listen: Option<ListenOptions>,
    ) -> Result<Self, RunError> {
        let machine = machine_number(listen.is_some())?;
        let workers = listen.as_ref().and_then(|listen| listen.workers).unwrap_or(config.nodes());
        let spawner = Spawner::new(folder.dir.join("logs"))
            .map_err(|source| RunError::Spawn { what: "a node", source })?;
        let (speaker, words) = channel();
        let wan = config.wan_table()?;
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
            udp_port: 0,
            address: String::new(),
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
            paces: BTreeMap::new(),
            sent: BTreeMap::new(),
            over: false,
            turns: VecDeque::new(),
            let_in: None,
            stops: false,
        };
        children.start_coordinator()?;
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
            std::thread::spawn(move || listen(stdout, &speaker));
        }
        self.coordinator = Some(Process { child, stdin, slot: 0, succeeded: false });
        if self.stops {
            self.tell_coordinator("stop");
        }
        if self.address.is_empty() {
            self.wait_for_address()?;
        }
        Ok(())
    }

    /// Nodes need to know where the coordinator listens; so does its successor.
    fn wait_for_address(&mut self) -> Result<(), RunError> {
        let until = Instant::now() + Duration::from_secs(20);
        while self.address.is_empty() {
            match self.words.recv_timeout(Duration::from_millis(50)) {
                Ok(Word::Ready(ready)) => self.take_address(ready)?,
                Ok(word) => drop(self.speaker.send(word)),
                Err(_) => {}
            }
            let dead =
                self.coordinator.as_mut().is_none_or(|process| !matches!(process.child.try_wait(), Ok(None)));
            if (dead && self.address.is_empty()) || Instant::now() > until {
                return Err(RunError::KeepsDying {
                    what: "the coordinator",
                    words: self.spawner.last_words("coordinator"),
                });
            }
        }
        Ok(())
    }

    fn take_address(&mut self, ready: CoordinatorReady) -> Result<(), RunError> {
        let port = |text: &str| text.rsplit(':').next().and_then(|port| port.parse().ok());
        if let Ok(reach) = ready.address.parse::<Reach>() {
            let ways = reach.internet.iter().flat_map(|internet| &internet.ways);
            self.udp_port =
                ways.filter(|way| way.starts_with("ip:")).find_map(|way| port(way)).unwrap_or(self.udp_port);
            self.port = reach.tcp.and_then(|(_, address)| port(&address)).unwrap_or(self.port);
        }
        self.address = ready.address;
        // A coordinator that comes again may have another port.
        self.listen.as_ref().map_or(Ok(()), |listen| note_host(&self.dir, &self.address, listen))
    }

    /// How other machines join, in words, if they may.
    pub(super) fn invitation(&self) -> Result<Option<String>, RunError> {
        let Some(listen) = &self.listen else { return Ok(None) };
        invitation(&self.dir, self.settings.run, &self.address, listen).map(Some)
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
                // Where the coordinator found no relay its nodes need not look for one.
                relays: if self.address.contains("relay:") {
                    listen.relays.clone()
                } else {
                    "none".to_owned()
                },
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
        let Some(leaver) = leaver.filter(|leaver| !leaver.succeeded && self.config.respawn && !self.over)
        else {
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
                self.note_death_at_start("a node", &format!("node-{slot}"))?;
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
                Word::Ready(_) => {}
            }
        }
        if self.over {
            self.coordinator_exit = Some(status.success());
            return Ok(());
        }
        if !self.config.respawn {
            return Err(RunError::CoordinatorDied);
        }
        if status.code() == Some(2) {
            self.note_death_at_start("the coordinator", "coordinator")?;
        }
        self.start_coordinator()?;
        news.push(News::Respawned("coordinator"));
        Ok(())
    }

    fn note_death_at_start(&mut self, what: &'static str, log: &str) -> Result<(), RunError> {
        let now = Instant::now();
        self.deaths_at_start.push_back(now);
        while self.deaths_at_start.front().is_some_and(|at| now.duration_since(*at) > DYING_WINDOW) {
            self.deaths_at_start.pop_front();
        }
        if self.deaths_at_start.len() > DEATHS_AT_START_MAX {
            return Err(RunError::KeepsDying { what, words: self.spawner.last_words(log) });
        }
        Ok(())
    }

    /// Once the run is over: whether the coordinator ended as it should.
    pub(super) fn coordinator_exit(&self) -> Option<bool> {
        self.coordinator_exit
    }

    pub(super) fn tell_coordinator(&mut self, word: &str) {
        self.stops |= word == "stop";
        if let Some(process) = &mut self.coordinator {
            // A coordinator that is just dying hears nothing: its successor is told to stop, and a save is put off.
            let _ = writeln!(process.stdin, "{word}").and_then(|()| process.stdin.flush());
        }
    }

    /// Gives a node notice: it leaves once others have what is needed of it. Whether there was such a node.
    pub(super) fn drain_node(&mut self, process: u32) -> bool {
        self.tell_node(process, Control::Leave)
    }

    /// SIGKILL. Whether there was such a node.
    pub(super) fn kill_node(&mut self, process: u32) -> bool {
        self.nodes
            .iter_mut()
            .find(|node| node.child.id() == process)
            .is_some_and(|node| node.child.kill().is_ok())
    }

    /// Tells a node to make a fault. Whether there was such a node.
    pub(super) fn tell_node(&mut self, process: u32, control: Control) -> bool {
        self.nodes
            .iter_mut()
            .find(|node| node.child.id() == process)
            .is_some_and(|node| writeln!(node.stdin, "{control}").and_then(|()| node.stdin.flush()).is_ok())
    }

    /// SIGSTOP, or SIGCONT. Whether there was such a node.
    #[cfg(unix)]
    pub(super) fn halt_node(&mut self, process: u32, halt: bool) -> bool {
        use rustix::process::{Pid, Signal, kill_process};
        let signal = if halt { Signal::STOP } else { Signal::CONT };
        // A child that has died is not reaped before `look` says so: the id is still its own.
        self.nodes
            .iter()
            .find(|node| node.child.id() == process)
            .and_then(|node| Pid::from_raw(node.child.id() as i32))
            .is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// Processes can't be stopped here.
    #[cfg(not(unix))]
    pub(super) fn halt_node(&mut self, _: u32, _: bool) -> bool {
        false
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

    /// Process id and slot of each node.
    pub(super) fn places(&self) -> Vec<(u32, usize)> {
        self.nodes.iter().map(|process| (process.child.id(), process.slot)).collect()
    }

    /// Processes of the nodes in a region of the run's table.
    pub(super) fn in_region(&self, region: u16) -> Vec<u32> {
        let Some(table) = &self.wan else { return Vec::new() };
        let of = |slot| self.region_of(table, slot);
        self.nodes
            .iter()
            .filter(|process| of(process.slot) == region)
            .map(|process| process.child.id())
            .collect()
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

    /// SIGKILL. Whether there was a coordinator.
    pub(super) fn kill_coordinator(&mut self) -> bool {
        self.coordinator.as_mut().is_some_and(|process| process.child.kill().is_ok())
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

/// A number that tells this machine from others; 0 where there are none.
fn machine_number(listens: bool) -> Result<u64, RunError> {
    if !listens {
        return Ok(0);
    }
    getrandom::u64().map(|number| number | 1).map_err(|why| RunError::Listen(why.to_string()))
}

/// The options as other machines may know them: no paths of this one, and no command to run.
fn for_others(config: &RunConfig) -> RunConfig {
    RunConfig {
        data: None,
        notice_command: None,
        threads: None,
        wan: None,
        links: None,
        out: PathBuf::new(),
        ..config.clone()
    }
}

/// Notes where the coordinator is.
#[cfg(feature = "iroh")]
fn note_host(dir: &Path, address: &str, listen: &ListenOptions) -> Result<(), RunError> {
    let failed = |why: String| RunError::Listen(why);
    let relays = listen.relays.parse().map_err(|why: skipstone_net::RelaysError| failed(why.to_string()))?;
    crate::live::remote::note_host(dir, address, &relays).map_err(|why| failed(why.to_string()))
}

#[cfg(not(feature = "iroh"))]
fn note_host(_: &Path, _: &str, _: &ListenOptions) -> Result<(), RunError> {
    Err(RunError::Listen("this build has no way to other machines (feature iroh)".to_owned()))
}

/// Issues a ticket; says how it is used.
#[cfg(feature = "iroh")]
fn invitation(
    dir: &Path,
    run: skipstone_types::RunId,
    address: &str,
    listen: &ListenOptions,
) -> Result<String, RunError> {
    let ticket = crate::live::remote::invite(dir, run, listen.ticket_life_s)
        .map_err(|why| RunError::Listen(why.to_string()))?;
    if let Some(file) = &listen.ticket_file {
        let text = format!("{ticket}\n");
        skipstone_files::write(file, &[text.as_bytes()])
            .map_err(|why| RunError::Listen(format!("--ticket-file {}: {why}", file.display())))?;
    }
    let way = match (address.contains("relay:"), listen.relays.as_str()) {
        (true, _) => "",
        (false, "none") => "\n(no relay: machines must reach an address of this one directly)",
        (false, _) => "\n(no relay answers: machines must reach an address of this one directly)",
    };
    Ok(format!("other machines join with:\n\n  skipstone join {ticket}\n{way}"))
}

#[cfg(not(feature = "iroh"))]
fn invitation(_: &Path, _: skipstone_types::RunId, _: &str, _: &ListenOptions) -> Result<String, RunError> {
    Err(RunError::Listen("this build has no way to other machines (feature iroh)".to_owned()))
}

fn hear_counts(stdout: impl Read, speaker: &Sender<Word>) {
    let counts = BufReader::new(stdout).lines().map_while(Result::ok);
    for count in counts.filter_map(|line| serde_json::from_str(&line).ok()) {
        if speaker.send(Word::Node(count)).is_err() {
            return;
        }
    }
}

fn listen(stdout: impl Read, speaker: &Sender<Word>) {
    for (number, line) in BufReader::new(stdout).lines().enumerate() {
        let Ok(line) = line else { return };
        let word = if number == 0 {
            serde_json::from_str(&line).ok().map(Word::Ready)
        } else {
            serde_json::from_str(&line).ok().map(Word::Event)
        };
        if let Some(word) = word
            && speaker.send(word).is_err()
        {
            return;
        }
    }
}
