//! Notice from a cloud (`--notice-command`): a command of the user's tells when a machine is about to be taken away.
//!
//! It runs in a shell, once for each node, in the background. It ends with 0 when the node is to go: then the node is
//! drained, as by SIGTERM, and its successor comes first. Any other end means "not now", and it is run again after a pause:
//! so a script may block until the notice comes, or only look once. When every node has notice, the machine itself goes: the
//! run is finished and saved, as by Ctrl-C. A command ends with its node, and with the run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// From an end that was no notice to the next try.
const PAUSE: Duration = Duration::from_secs(5);

/// Watches over the nodes of a swarm, by the process ids of the nodes.
#[derive(Debug)]
pub(super) struct Notices {
    command: String,
    logs: PathBuf,
    watches: BTreeMap<u32, Watch>,
    complained: bool,
}

/// The command for one node.
#[derive(Debug)]
enum Watch {
    Running(Child),
    /// Until then.
    Resting(Instant),
    /// The node has notice.
    Given,
}

/// What is new.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Processes of nodes that are to be drained.
    pub(super) nodes: Vec<u32>,
    /// Whether no node is left that may stay.
    pub(super) all: bool,
    /// Why the command can't be run; told once.
    pub(super) complaint: Option<String>,
}

impl Notices {
    /// Runs `command` for nodes; what it says on stderr goes to `logs`.
    pub(super) fn new(command: String, logs: PathBuf) -> Self {
        Self { command, logs, watches: BTreeMap::new(), complained: false }
    }

    /// Looks at the commands of these nodes, given by process id and slot: starts those that are due, and ends those of nodes
    /// that are gone.
    pub(super) fn look(&mut self, nodes: &[(u32, usize)], now: Instant) -> Given {
        let mut given = Given::default();
        self.watches.retain(|process, watch| {
            let lives = nodes.iter().any(|(node, _)| node == process);
            if !lives {
                watch.end();
            }
            lives
        });
        for (process, slot) in nodes {
            let due = match self.watches.get_mut(process) {
                None => true,
                Some(Watch::Given) => false,
                Some(Watch::Resting(until)) => now >= *until,
                Some(watch) => {
                    if let Some(notice) = watch.ended() {
                        if notice {
                            given.nodes.push(*process);
                        }
                        *watch = if notice { Watch::Given } else { Watch::Resting(now + PAUSE) };
                    }
                    false
                }
            };
            if due {
                let watch = self.start(*process, *slot).unwrap_or_else(|why| {
                    if !std::mem::replace(&mut self.complained, true) {
                        given.complaint = Some(format!("--notice-command can't be run: {why}"));
                    }
                    Watch::Resting(now + PAUSE)
                });
                self.watches.insert(*process, watch);
            }
        }
        given.all = !nodes.is_empty()
            && nodes.iter().all(|(process, _)| matches!(self.watches.get(process), Some(Watch::Given)));
        given
    }

    fn start(&self, process: u32, slot: usize) -> io::Result<Watch> {
        let log = File::create(self.logs.join(format!("notice-{slot}.log")))?;
        let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
        let mut command = Command::new(shell);
        command
            .args([flag, &self.command])
            .env("SKIPSTONE_SLOT", slot.to_string())
            .env("SKIPSTONE_PROCESS", process.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // What the shell starts ends with it, and Ctrl-C is for the parent.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn().map(Watch::Running)
    }
}

impl Watch {
    /// Whether the command has ended, and if so, whether with notice.
    fn ended(&mut self) -> Option<bool> {
        let Self::Running(child) = self else { return None };
        match child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(status.success()),
            Err(_) => Some(false),
        }
    }

    /// Ends the command, and what it started.
    fn end(&mut self) {
        let Self::Running(child) = self else { return };
        // A child that has ended is not reaped before `wait`: the id is still its own.
        #[cfg(unix)]
        if let Some(group) = rustix::process::Pid::from_raw(child.id() as i32) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.watches.values_mut().for_each(Watch::end);
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn look_until(notices: &mut Notices, nodes: &[(u32, usize)], wanted: impl Fn(&Given) -> bool) -> Given {
        let started = Instant::now();
        loop {
            let given = notices.look(nodes, Instant::now());
            if wanted(&given) {
                return given;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{given:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_command_that_ends_with_0_is_notice_for_its_node_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let command = "[ $SKIPSTONE_SLOT = 1 ] || exec sleep 600".to_owned();
        let mut notices = Notices::new(command, dir.path().to_owned());
        let nodes = [(70_001, 0), (70_002, 1)];
        let given = look_until(&mut notices, &nodes, |given| !given.nodes.is_empty());
        assert_eq!((given.nodes, given.all), (vec![70_002], false));
        assert_eq!(notices.look(&nodes, Instant::now() + PAUSE * 2).nodes, [0_u32; 0]);
        // The other goes: nobody is left who may stay, and its command does not outlive it.
        assert!(notices.look(&nodes[1..], Instant::now()).all);
        assert_eq!(notices.watches.len(), 1);
    }

    #[test]
    fn another_end_is_no_notice_and_the_command_runs_again_after_a_pause() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let command = format!("[ -e {0} ] || {{ touch {0}; exit 3; }}", mark.display());
        let mut notices = Notices::new(command, dir.path().to_owned());
        let nodes = [(70_001, 0)];
        notices.look(&nodes, Instant::now());
        while !matches!(notices.watches.get(&70_001), Some(Watch::Resting(_))) {
            assert_eq!(notices.look(&nodes, Instant::now()).nodes, [0_u32; 0]);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(notices.look(&nodes, Instant::now()).nodes, [0_u32; 0], "it rests");
        notices.look(&nodes, Instant::now() + PAUSE * 2);
        let given = look_until(&mut notices, &nodes, |given| !given.nodes.is_empty());
        assert!(given.all);
    }
}
