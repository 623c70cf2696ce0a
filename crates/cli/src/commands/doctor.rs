//! `skipstone doctor`.

use crate::failure::{Failure, Outcome};
use crate::output::{print, print_json};
use crate::run_flags::parse_seconds;
use clap::Args;
use serde_json::json;
use skipstone_net::Relays;
use skipstone_worlds::live::remote::{DoctorOptions, Health, LinksInvitation, Ticket, examine};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  skipstone doctor                          memory, disk, compute speed, relays and addresses of this machine
  skipstone doctor skipstone1abc…           and whether the run of this ticket is reached, how fast, and takes the ticket
  skipstone doctor --relay none             without asking anybody on the internet
  skipstone doctor --links links.json --machines 3 --region home
                                            how long and fast the links between three machines are: prints an invitation
  skipstone doctor skipstonelinks1… --region Berlin             on each of the others
  skipstone train --listen --links links.json                   then train with what was measured

Each line is ok, slow or broken, and says what to do. Exit code 1 if anything is broken.

--links needs no run. Each two machines are measured, one direction after the other, over the connections that a run
would have: latency is half of the shortest round trip, jitter what the mean is above it, bandwidth that of one stream
in its last 0.7 s or more. Up to 128 MiB are sent each way; 32 machines at most.";

/// Options of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// A ticket of the run that is to be joined, or an invitation of `doctor --links`
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
    /// Measure the links between machines instead, and write a table for `--links` and `--wan` to FILE
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ticket", "json"], help_heading = "Links")]
    links: Option<PathBuf>,
    /// With --links: how many machines take part, this one among them
    #[arg(long, value_name = "N", default_value_t = 2, requires = "links", help_heading = "Links")]
    machines: usize,
    /// With --links or an invitation: where this machine is; machines near each other say the same [default with --links: home]
    #[arg(long, value_name = "NAME", help_heading = "Links")]
    region: Option<String>,
    /// With --links: how long to wait for the other machines
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_seconds,
        default_value = "30m",
        requires = "links",
        help_heading = "Links"
    )]
    wait: f64,
    /// With --links or an invitation: hold links back as `train --wan` does, to rehearse on one machine
    #[arg(long, value_name = "TABLE", help_heading = "Links")]
    wan: Option<String>,
}

impl Doctor {
    pub(crate) fn run(self) -> Outcome {
        let relays = |text: &str| text.parse().map_err(|why| Failure::input(format!("--relay: {why}")));
        if let Some(file) = &self.links {
            let region = self.region.unwrap_or_else(|| "home".to_owned());
            let relays = relays(&self.relay)?;
            return super::doctor_links::host(file, self.machines, region, relays, self.wait, self.wan);
        }
        if let Some(invitation) = self.ticket.as_ref().filter(|text| LinksInvitation::is_meant(text)) {
            return super::doctor_links::guest(invitation.clone(), self.region, self.wan);
        }
        if self.region.is_some() || self.wan.is_some() {
            return Err(Failure::input(
                "--region and --wan go with --links FILE, or with an invitation of another machine's",
            ));
        }
        let ticket = self.ticket.as_deref().map(str::parse::<Ticket>).transpose().map_err(Failure::input)?;
        let relays: Relays = relays(&self.relay)?;
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
