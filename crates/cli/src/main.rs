//! The `skipstone` binary: thin. Each command is a file in `commands/`; results go to stdout, all else to stderr;
//! exit codes are 0 (done), 1 (failed) and 2 (wrong usage or input).

mod commands;
mod failure;
mod finish;
mod model_folder;
mod output;
mod planning;
mod run_flags;
mod run_folder;
#[cfg(feature = "iroh")]
mod ticket_table;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};
use skipstone_worlds::live::{run_coordinator, run_node};

/// Train language models on computers that come and go.
#[derive(Debug, Parser)]
#[command(
    name = "skipstone",
    version,
    arg_required_else_help = true,
    after_help = "Start here:\n  skipstone demo\n\nExit codes: 0 done, 1 failed, 2 wrong usage or input."
)]
struct CommandLine {
    #[command(subcommand)]
    command: commands::Command,
}

/// Options take numbers below zero, so that what is wrong with them is said by who knows what they should be.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let takes_them =
        |arg: clap::Arg| if arg.is_positional() { arg } else { arg.allow_negative_numbers(true) };
    command.mut_args(takes_them).mut_subcommands(with_negative_numbers)
}

fn main() -> ExitCode {
    let matches = with_negative_numbers(CommandLine::command()).get_matches();
    let command = CommandLine::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).command;
    // Children tell their parent more by their exit code than a command does.
    match command {
        commands::Command::InternalCoordinator => return run_coordinator(),
        commands::Command::InternalNode => return run_node(),
        _ => {}
    }
    match command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::say(&format!("error: {failure}"));
            failure.exit_code()
        }
    }
}
