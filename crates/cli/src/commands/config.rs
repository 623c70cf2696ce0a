//! `skipstone config`.

use clap::Args;

use crate::failure::Outcome;
use crate::output::{print, print_json};
use crate::run_flags::RunFlags;

const EXAMPLES: &str = "\
Examples:
  skipstone config > run.toml                   every option with its default
  skipstone config run.toml --lr 3e-4           what `train` would do with the same arguments
  skipstone config --model 8b --stages 8        how much memory each node would take
  skipstone config --model 124m --json";

/// Options of `config`: those of `train`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Config {
    #[command(flatten)]
    flags: RunFlags,
    /// As one JSON document
    #[arg(long)]
    json: bool,
}

impl Config {
    pub(crate) fn run(self) -> Outcome {
        let config = self.flags.config(false)?;
        config.settings()?;
        if self.json {
            return print_json(&config);
        }
        let plan = config.memory_plan_expected()?.to_string();
        let plan = plan.lines().fold(String::new(), |text, line| text + "# " + line + "\n");
        let plan = plan
            + "# Slots shrink with --slots, --batch and --context; all but slots and workspace with more --stages.\n";
        print(&format!("{plan}{}", config.to_toml()?))
    }
}
