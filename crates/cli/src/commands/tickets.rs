//! `skipstone tickets`.

use crate::failure::{Failure, Outcome};
use crate::output::{print, print_json, say};
use crate::run_flags::parse_seconds;
use crate::ticket_table::{parse_capability, parse_number, ticket_table};
use clap::Args;
use serde_json::json;
use skipstone_worlds::live::folder::read_facts;
use skipstone_worlds::live::remote::{Capability, Dropped, Tickets as Book};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  skipstone tickets                          what was issued for the run in skipstone-run, and until when it holds
  skipstone tickets second --new             one more ticket, for a day
  skipstone tickets --new --life 1h          one for an hour
  skipstone tickets --new --for viewer       one that shows the run, and lets nobody join: skipstone watch TICKET
  skipstone tickets --new --for admin        one to issue and revoke tickets, save and stop from elsewhere: skipstone manage TICKET
  skipstone tickets --revoke 2               lets nobody in any more, and cuts off who came with it
  skipstone tickets --revoke expired         forgets those whose time is over, or that were revoked; cuts off who came with them

Whoever has a ticket can join the run, and takes part in everything until the ticket is revoked: hand it to people you trust.
The end of its time only keeps others from coming.";

/// Options of `tickets`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tickets {
    /// The run's folder
    #[arg(default_value = "skipstone-run")]
    dir: PathBuf,
    /// Issue one
    #[arg(long, conflicts_with = "revoke")]
    new: bool,
    /// For how long it lets machines in, as 90s, 10m or 1h
    #[arg(long, value_name = "TIME", value_parser = parse_life, default_value = "24h", requires = "new")]
    life: f64,
    /// What it is for: worker joins with nodes, viewer only watches, admin manages the run from elsewhere
    #[arg(long = "for", value_name = "worker|viewer|admin", value_parser = parse_capability, default_value = "worker", requires = "new")]
    capability: Capability,
    /// Take one back, by its number; or forget all that have expired or were taken back
    #[arg(long, value_name = "NUMBER|expired")]
    revoke: Option<String>,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// The longest that a ticket may let machines in, in seconds: a year.
const LIFE_S_MAX: f64 = 365.0 * 86_400.0;

pub(super) fn parse_life(text: &str) -> Result<f64, String> {
    let life = parse_seconds(text)?;
    let fits = (1.0..=LIFE_S_MAX).contains(&life);
    fits.then_some(life).ok_or_else(|| "a ticket lets machines in for 1s to 8760h".to_owned())
}

impl Tickets {
    pub(crate) fn run(self) -> Outcome {
        let mut book = Book::read(&self.dir).map_err(Failure::input)?;
        if self.new {
            let run = read_facts(&self.dir)?.run;
            let ticket = book.issue(run, self.capability, self.life as u64).map_err(Failure::failed)?;
            return if self.json {
                print_json(&json!({ "ticket": ticket.to_string(), "id": ticket.id }))
            } else {
                print(&format!("skipstone {} {ticket}\n", self.capability.command()))
            };
        }
        match self.revoke.as_deref() {
            None => {}
            Some("expired") => {
                let Dropped { expired, revoked } = book.drop_old().map_err(Failure::failed)?;
                say(&format!("forgotten: {expired} expired, {revoked} revoked before"));
            }
            Some(number) => {
                let number = parse_number(number)
                    .map_err(|why| Failure::input(format!("--revoke {number}: {why}; or expired")))?;
                book.revoke(number).map_err(Failure::input)?;
            }
        }
        if self.json {
            return print_json(&json!({ "tickets": book.all() }));
        }
        print(&ticket_table(book.all()))
    }
}
