//! `skipstone doctor`.

use crate::failure::{Failure, Outcome};
use crate::output::{print, print_json};
use clap::Args;
use serde_json::json;
use skipstone_net::Relays;
use skipstone_worlds::live::remote::{DoctorOptions, Health, Ticket, examine};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  skipstone doctor                          memory, disk, compute speed, relays and addresses of this machine
  skipstone doctor skipstone1abc…           and whether the run of this ticket is reached, how fast, and whether clocks agree
  skipstone doctor --relay none             without asking anybody on the internet

Each line is ok, slow or broken, and says what to do. Exit code 1 if anything is broken.";

/// Options of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// A ticket of the run that is to be joined
    ticket: Option<String>,
    /// Without a ticket: through whom machines are to find each other
    #[arg(long, value_name = "public|none|URL", default_value = "public")]
    relay: String,
    /// The folder that a run or a node would use
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(crate) fn run(self) -> Outcome {
        let ticket = self.ticket.as_deref().map(str::parse::<Ticket>).transpose().map_err(Failure::input)?;
        let relays: Relays = self.relay.parse().map_err(|why| Failure::input(format!("--relay: {why}")))?;
        let options = DoctorOptions { ticket, relays, dir: self.dir };
        let json = self.json;
        let mut said = Ok(());
        let checks = examine(&options, &mut |check| {
            if json || said.is_err() {
                return;
            }
            let health = match check.health {
                Health::Ok => "ok",
                Health::Slow => "slow",
                Health::Broken => "broken",
            };
            let mut line = format!("{health:<7} {:<13} {}\n", check.name, check.found);
            if !check.advice.is_empty() {
                line.push_str(&format!("{:22}→ {}\n", "", check.advice));
            }
            said = print(&line);
        });
        said?;
        if json {
            print_json(&json!({ "checks": checks }))?;
        }
        let broken: Vec<&str> = checks
            .iter()
            .filter(|check| check.health == Health::Broken)
            .map(|check| check.name.as_str())
            .collect();
        if broken.is_empty() {
            Ok(())
        } else {
            Err(Failure::failed(format!("broken: {}", broken.join(", "))))
        }
    }
}
