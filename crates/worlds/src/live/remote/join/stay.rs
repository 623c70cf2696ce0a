//! A machine's stay in a run: its nodes are started, looked after, and replaced.

use super::admission::{Readmission, Readmitted};
use super::{JoinError, JoinNews, JoinOptions, Joined};
use crate::live::control::Control;
use crate::live::health::Health;
use crate::live::remote::Ticket;
use crate::live::remote::ask::{Ask, RunPass, ask};
use crate::live::signals::Signals;
use crate::live::spawner::Spawner;
use crate::live::start::{DoorStart, NodeNews, NodeStart};
use crate::wan::TaskTimes;
use serde_json::json;
use skipstone_net::{EndpointKey, Requester};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between looks at the nodes.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// The pause before a dead node is replaced; it doubles while successors die before they are welcome.
const RESPAWN: Duration = Duration::from_millis(100);
const RESPAWN_MAX: Duration = Duration::from_secs(30);

/// How long news may still be on their way from a node that has ended.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(200);

/// How long nodes that were told to leave may take before they are ended, unless a second signal comes.
const LEAVE: Duration = Duration::from_secs(120);

/// How long they look for a coordinator that is to hear of it; one that dies is back sooner, where there is one.
const LEAVE_UNHEARD: Duration = Duration::from_secs(2);

/// One node of this machine.
pub(super) struct Worker {
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

impl Worker {
    /// One that has not begun.
    pub(super) fn new(key: EndpointKey) -> Self {
        Self {
            key,
            process: None,
            welcome: false,
            sent: (0, 0),
            does: "starting",
            pause: RESPAWN,
            again: Instant::now(),
            done: false,
            telling: None,
        }
    }

    /// Bytes of tensors that its processes have sent.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent.0 + self.sent.1
    }

    /// Whether it is there and knows no coordinator.
    fn is_away(&self) -> bool {
        self.process.is_some() && (!self.welcome || self.does == "away")
    }

    fn kill(&mut self) {
        if let Some((mut child, _)) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// All of them.
pub(super) struct Stay<'a> {
    pub(super) options: &'a JoinOptions,
    pub(super) pass: RunPass,
    pub(super) ticket: Ticket,
    pub(super) requester: Requester,
    pub(super) machine: u64,
    pub(super) spawner: Spawner,
    pub(super) workers: Vec<Worker>,
    pub(super) speaker: Sender<(usize, NodeNews)>,
    pub(super) refused: Option<String>,
    pub(super) health: Option<Health>,
    pub(super) readmission: Readmission,
}

impl Stay<'_> {
    /// Stays until the run is over, or this process is told to leave.
    pub(super) fn watch(
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
            if leaving.is_none() {
                self.come_back(tell)?;
            }
            self.tell_health(leaving.is_some());
            if let Some(why) = self.refused.take() {
                return Err(JoinError::Node(why));
            }
            if self
                .workers
                .iter()
                .all(|worker| worker.process.is_none() && (worker.done || leaving.is_some()))
            {
                let left = leaving.is_some() || self.workers.iter().all(|worker| worker.does == "left");
                return Ok(if left { Joined::Left } else { Joined::RunOver });
            }
            match (signals.count(), leaving) {
                (0, _) | (1, Some(_)) => {}
                (_, None) => {
                    leaving = Some(Instant::now());
                    let alone = |worker: &Worker| worker.process.is_none() || worker.is_away();
                    let text = if self.workers.iter().all(alone) {
                        "leaving: the run is out of reach, so there is nobody to hand over to"
                    } else {
                        "leaving: others take over what these nodes do; press Ctrl-C again to end at once"
                    };
                    tell(JoinNews::Note(text.to_owned()));
                    self.tell_all(Control::Leave);
                }
                _ => return Ok(Joined::Left),
            }
            let waited = leaving.map_or(Duration::ZERO, |since| since.elapsed());
            if waited > LEAVE_UNHEARD {
                // There is nobody to hand over to.
                self.workers.iter_mut().filter(|worker| worker.is_away()).for_each(Worker::kill);
            }
            if waited > LEAVE {
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
                () if worker.done && worker.does != "left" => "done",
                () if worker.done => "left",
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

    /// Where the run has started anew, its nodes here do too.
    fn come_back(&mut self, tell: &mut dyn FnMut(JoinNews)) -> Result<(), JoinError> {
        let away = self.workers.iter().any(Worker::is_away);
        match self.readmission.look(away, &self.pass.secret) {
            None => {}
            Some(Readmitted::Never(why)) => return Err(why),
            Some(Readmitted::Anew(pass)) => {
                tell(JoinNews::Note(
                    "the run has started again; this machine's nodes join it anew".to_owned(),
                ));
                self.pass = *pass;
                // The new coordinator knows nothing of them, so nobody need be told that they are gone.
                self.kill_all();
                let _ = fs::remove_dir_all(self.options.dir.join("state"));
                for worker in &mut self.workers {
                    worker.again = Instant::now();
                    worker.pause = RESPAWN;
                }
            }
        }
        Ok(())
    }

    /// What a node says.
    pub(super) fn hear(&mut self, index: usize, news: &NodeNews, tell: &mut dyn FnMut(JoinNews)) {
        self.workers[index].does = match news {
            NodeNews::Welcome { .. } => "waiting",
            NodeNews::Fetching { .. } => "fetching",
            NodeNews::Working { .. } => "working",
            NodeNews::Away => "away",
            NodeNews::Left => "left",
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
            NodeNews::Left => "has left the run; others have taken over what it did".to_owned(),
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

    /// Ends them all at once.
    pub(super) fn kill_all(&mut self) {
        self.workers.iter_mut().for_each(Worker::kill);
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::admission::Admission;
    use super::*;
    use crate::config::RunConfig;
    use crate::live::remote::Capability;
    use skipstone_net::{InternetReach, Relays};
    use skipstone_types::RunId;
    use std::process::Command;
    use std::sync::mpsc;

    #[test]
    fn who_leaves_a_run_that_is_out_of_reach_waits_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let key = EndpointKey::generate();
        let host = InternetReach { key: key.public(), ways: Vec::new() };
        let ticket = Ticket::issue(&key, RunId(4), Capability::Worker, 1, u64::MAX, host, Relays::None);
        let options = JoinOptions {
            ticket: ticket.to_string(),
            workers: 1,
            threads: None,
            dir: dir.path().to_owned(),
            region: None,
            health: None,
        };
        let pass = RunPass {
            run: RunId(4),
            secret: String::new(),
            coordinator: String::new(),
            config: RunConfig::default(),
            vocabulary: 256,
            places: Vec::new(),
        };
        let requester = Requester::open(EndpointKey::generate(), Relays::None).unwrap();
        let mut node = Command::new("sleep").arg("1000").stdin(Stdio::piped()).spawn().unwrap();
        let stdin = node.stdin.take().unwrap();
        let mut worker = Worker::new(key);
        (worker.process, worker.welcome, worker.does) = (Some((node, stdin)), true, "away");
        let (speaker, news) = mpsc::channel();
        let admission = Admission::new(requester.clone(), ticket.clone(), &[], &options);
        let mut stay = Stay {
            options: &options,
            pass,
            ticket,
            requester,
            machine: 1,
            spawner: Spawner::new(dir.path().join("logs")).unwrap(),
            workers: vec![worker],
            speaker,
            refused: None,
            health: None,
            readmission: Readmission::new(admission),
        };
        let (began, mut told) = (Instant::now(), Vec::new());
        let ended = stay.watch(&Signals::counted(1).unwrap(), &news, &mut |news| told.push(news));
        stay.kill_all();
        assert!(matches!(ended, Ok(Joined::Left)), "{ended:?}");
        assert!(began.elapsed() < LEAVE / 4, "{:?}", began.elapsed());
        assert!(
            matches!(&told[..], [JoinNews::Note(text)] if text.contains("nobody to hand over to")),
            "{told:?}"
        );
    }
}
