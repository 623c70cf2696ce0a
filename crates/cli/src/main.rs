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

use clap::Parser;
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

fn main() -> ExitCode {
    let command = CommandLine::parse().command;
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
