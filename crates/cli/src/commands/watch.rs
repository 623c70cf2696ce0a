//! `skipstone watch`.

use crate::failure::{Failure, Outcome};
use crate::output::{print, say};
use clap::Args;
use skipstone_observe::{Progress, stdout_width};
use skipstone_worlds::live::remote::{WatchError, Watched, watch};

const EXAMPLES: &str = "\
Examples:
  skipstone watch skipstone1abc…                 the live view of a run on another machine
  skipstone watch skipstone1abc… --plain         plain lines, which nodes serve which stage among them

The ticket comes from `skipstone tickets DIR --new --for viewer`: it shows the run's events, and lets nobody join. A ticket to join with
shows them too. Watching disturbs nobody; Ctrl-C ends it.";

/// Options of `watch`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Watch {
    /// The ticket
    ticket: String,
    /// Plain lines instead of the live view
    #[arg(long)]
    plain: bool,
}

impl Watch {
    pub(crate) fn run(self) -> Outcome {
        match watch(&self.ticket, Progress::choose(self.plain)) {
            Ok(Watched::Ended(summary)) => print(&summary.render(stdout_width())),
            Ok(Watched::Silent(summary)) => {
                say("the run does not answer any more: it has ended, or its computer is away");
                print(&summary.render(stdout_width()))
            }
            Err(why @ (WatchError::Ticket(_) | WatchError::Unfit(_) | WatchError::Refused(_))) => {
                Err(Failure::input(why))
            }
            Err(why) => Err(Failure::failed(why)),
        }
    }
}
