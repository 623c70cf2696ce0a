//! One file a command.

use clap::Subcommand;

use crate::failure::Outcome;

mod audit;
mod bench;
mod bench_plan;
mod chaos;
mod config;
mod demo;
#[cfg(feature = "iroh")]
mod doctor;
#[cfg(feature = "iroh")]
mod doctor_links;
mod eval;
mod generate;
#[cfg(feature = "iroh")]
mod join;
mod lab;
#[cfg(feature = "iroh")]
mod manage;
mod plan;
mod plan_auto;
#[cfg(feature = "relay")]
mod relay;
mod replay;
mod show;
mod simulate;
#[cfg(feature = "iroh")]
mod tickets;
mod train;
#[cfg(feature = "iroh")]
mod watch;

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a small model on this machine while processes are killed
    Demo(demo::Demo),
    /// Train a model on a swarm of processes that come and go
    Train(Box<train::Train>),
    /// Take part in a run on another machine
    #[cfg(feature = "iroh")]
    Join(join::Join),
    /// Issue and revoke the tickets that machines join a run with
    #[cfg(feature = "iroh")]
    Tickets(tickets::Tickets),
    /// Show a run that goes on elsewhere
    #[cfg(feature = "iroh")]
    Watch(watch::Watch),
    /// Issue and revoke tickets, save and stop a run that goes on elsewhere
    #[cfg(feature = "iroh")]
    Manage(manage::Manage),
    /// Help machines find each other, and talk where there is no direct way
    #[cfg(feature = "relay")]
    Relay(relay::Relay),
    /// Whether this machine can take part in a run, and what to do if not
    #[cfg(feature = "iroh")]
    Doctor(doctor::Doctor),
    /// Perplexity of a model, and what is left of it with stages missing
    Eval(eval::Eval),
    /// Let a model go on with a text
    Generate(generate::Generate),
    /// Check the data's ledger of a run: every microbatch counted exactly once
    Audit(audit::Audit),
    /// Compute a run again from its own records, to the same bits
    Replay(replay::Replay),
    /// Summary of a run, or what happened around an iteration
    Show(show::Show),
    /// How fast this machine computes, prepares data, and moves bytes
    Bench(bench::Bench),
    /// Find where nodes serve and which way microbatches take, and prove how good that is
    Plan(Box<plan::Plan>),
    /// Tell what a run will take, or try every fault by seed: both in virtual time
    Simulate(simulate::Simulate),
    /// Compare recovery strategies on equal failures, with real gradients in virtual time
    Lab(lab::Lab),
    /// Train a small model while everything that can go wrong does, and check what was promised
    Chaos(chaos::Chaos),
    /// Print the options that a run would have, as run.toml
    Config(Box<config::Config>),
    /// The coordinator of a run; started by `train`
    #[command(hide = true)]
    InternalCoordinator,
    /// A node of a run; started by `train`
    #[command(hide = true)]
    InternalNode,
}

impl Command {
    /// Runs the command.
    pub(crate) fn run(self) -> Outcome {
        match self {
            Self::Demo(demo) => demo.run(),
            Self::Train(train) => train.run(),
            #[cfg(feature = "relay")]
            Self::Relay(relay) => relay.run(),
            #[cfg(feature = "iroh")]
            Self::Doctor(doctor) => doctor.run(),
            #[cfg(feature = "iroh")]
            Self::Join(join) => join.run(),
            #[cfg(feature = "iroh")]
            Self::Tickets(tickets) => tickets.run(),
            #[cfg(feature = "iroh")]
            Self::Watch(watch) => watch.run(),
            #[cfg(feature = "iroh")]
            Self::Manage(manage) => manage.run(),
            Self::Eval(eval) => eval.run(),
            Self::Generate(generate) => generate.run(),
            Self::Audit(audit) => audit.run(),
            Self::Lab(lab) => lab.run(),
            Self::Chaos(chaos) => chaos.run(),
            Self::Replay(replay) => replay.run(),
            Self::Show(show) => show.run(),
            Self::Bench(bench) => bench.run(),
            Self::Plan(plan) => plan.run(),
            Self::Simulate(simulate) => simulate.run(),
            Self::Config(config) => config.run(),
            // `main` runs these itself.
            Self::InternalCoordinator | Self::InternalNode => Ok(()),
        }
    }
}
