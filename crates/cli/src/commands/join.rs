//! `skipstone join`.

use crate::failure::{Failure, Outcome};
use crate::output::say;
use clap::Args;
use skipstone_worlds::live::remote::{JoinError, JoinNews, JoinOptions, Joined, join};
use std::path::PathBuf;
use std::time::Instant;

const EXAMPLES: &str = "\
Examples:
  skipstone join skipstone1abc…                  one node, with all cores of this machine
  skipstone join skipstone1abc… --workers 2      two nodes, with half of the cores each
  skipstone join skipstone1abc… --health 9201    http://127.0.0.1:9201/health says whether a node here works
  skipstone join skipstone1abc… --region Japan   says where it is, for a run that plans by a table of links

The ticket comes from `skipstone train --listen`, or `skipstone tickets DIR --new`. No port has to be open: the node looks for
the run through the relays that the ticket names, and talks to the others directly wherever that can be.

It stays until the run is over, or refuses it. Ctrl-C or SIGTERM: its nodes hand over what they do, and leave; twice, or while the
run can't be found: at once. A node that dies is replaced by an empty one. A run that was killed and goes on with --resume gets its machines
back by itself. DIR holds logs, and the run's data once a node here serves the origin.";

/// Options of `join`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Join {
    /// The ticket
    ticket: String,
    /// Nodes to run on this machine
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: usize,
    /// Compute threads of a node [default: the cores shared out]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The region that this machine is in, where the run knows its links (--links or --wan) [default: the table's next]
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// Answer `GET /health` with 200 or 503 and what the nodes do, in JSON: on PORT of this machine alone, or ADDRESS:PORT
    #[arg(long, value_name = "PORT|ADDRESS:PORT")]
    health: Option<String>,
    /// A folder for logs and what is fetched
    #[arg(long, value_name = "DIR", default_value = "skipstone-join")]
    dir: PathBuf,
}

impl Join {
    pub(crate) fn run(self) -> Outcome {
        let Self { ticket, workers, threads, region, health, dir } = self;
        let options = JoinOptions { ticket, workers, threads, dir, region, health };
        let began = Instant::now();
        let ended = join(&options, &mut |news| {
            let text = match news {
                JoinNews::Admitted { model, stages } => {
                    format!("let in: a model of {model}, in {stages} relay stages")
                }
                JoinNews::Node { worker, what } => format!("worker {worker} {what}"),
                JoinNews::Note(note) => note,
            };
            say(&format!("{:7.1} s  {text}", began.elapsed().as_secs_f64()));
        });
        match ended {
            Ok(Joined::RunOver) => say("the run is over"),
            Ok(Joined::Left) => say("left"),
            Err(
                why @ (JoinError::Ticket(_)
                | JoinError::Unfit(_)
                | JoinError::Workers(_)
                | JoinError::Refused(_)
                | JoinError::Health(_)
                | JoinError::InUse(_)),
            ) => return Err(Failure::input(why)),
            Err(why) => return Err(Failure::failed(why)),
        }
        Ok(())
    }
}
