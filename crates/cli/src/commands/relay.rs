//! `skipstone relay`.

use crate::failure::{Failure, Outcome};
use crate::output::say;
use clap::Args;
use skipstone_net::Relay as Server;

const EXAMPLES: &str = "\
Examples:
  skipstone relay                                on port 3340 of every interface
  skipstone relay --bind 127.0.0.1:3340          for a proxy on this machine that adds https
  skipstone train --listen --relay http://relay.example.org:3340

Machines that have no direct way to each other talk through a relay, and find each other by it. What they say is encrypted
from end to end: a relay sees who talks to whom, and how much. It keeps nothing: if it dies, start it again.";

/// Options of `relay`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Relay {
    /// Where to serve
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:3340")]
    bind: String,
}

impl Relay {
    pub(crate) fn run(self) -> Outcome {
        let server = Server::start(&self.bind).map_err(Failure::input)?;
        say(&format!("relay at http://{}; Ctrl-C ends it", server.address()));
        loop {
            std::thread::park();
        }
    }
}
