//! Starts this executable again as a child, with a pipe to it and a log.

use super::start::write_start;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Bytes of a log quoted in an error.
const LAST_WORDS_BYTES: u64 = 2000;

/// A log is started anew when it has grown to this.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// Starts children of a run.
#[derive(Debug)]
pub(super) struct Spawner {
    program: PathBuf,
    logs: PathBuf,
}

impl Spawner {
    /// For a run whose logs go to `logs`, which is made.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn new(logs: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&logs)?;
        Ok(Self { program: std::env::current_exe()?, logs })
    }

    /// Starts a subcommand and tells it what to do; its pipe stays open.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn spawn<T: Serialize>(
        &self,
        subcommand: &str,
        log: &str,
        stdout: Stdio,
        start: &T,
    ) -> io::Result<(Child, ChildStdin)> {
        let mut command = Command::new(&self.program);
        command.arg(subcommand).stdin(Stdio::piped()).stdout(stdout).stderr(self.log(log)?);
        // Ctrl-C is for the parent, which tells the children.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().ok_or_else(|| io::Error::other("no pipe"))?;
        // A child that dies at once leaves a broken pipe: its death is noticed like any other.
        match write_start(&mut stdin, start) {
            Err(why) if why.kind() != io::ErrorKind::BrokenPipe => Err(why),
            _ => Ok((child, stdin)),
        }
    }

    fn log(&self, name: &str) -> io::Result<File> {
        let path = self.logs.join(format!("{name}.log"));
        let large = path.metadata().is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX);
        OpenOptions::new().create(true).append(!large).write(true).truncate(large).open(path)
    }

    /// The end of a child's log.
    pub(super) fn last_words(&self, name: &str) -> String {
        let read = || {
            let mut file = File::open(self.logs.join(format!("{name}.log")))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|why| format!("(no log: {why})"))
    }
}
