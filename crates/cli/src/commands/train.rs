//! `skipstone train`.

use clap::Args;
use skipstone_observe::Progress;
use skipstone_worlds::config::RunConfig;
use skipstone_worlds::live::{Ended, KillScript, ListenOptions, RunOptions, fetch_run, run};
use std::path::PathBuf;

use crate::failure::{Failure, Outcome};
use crate::finish::finish;
use crate::output::{print, print_json, say};
use crate::run_flags::{RunFlags, parse_seconds};

const EXAMPLES: &str = "\
Examples:
  skipstone train                                       embedded stories, a tiny model, 5 processes
  skipstone train --data book.txt --model tiny --layers 6 --stages 5 --origin-layers 1 --replicas 2 --skip 0.33
  skipstone train --churn 'every 20s' --steps 500       a node is killed every 20 seconds
  skipstone train --churn p3-trace.csv --churn-speed 60 --steps 2000    machines come and go as on a spot market
  skipstone train --recovery checkfree+ --stages 6      the first and last stage swap places with a partner, and come back from it
  skipstone train --recovery checkfree --edge-swaps odd the swaps alone
  skipstone train --recovery neighbour-snapshot:every=8,retrace=16 --while-lost wait    a lost stage comes back bit for bit as it was
  skipstone train --recovery neighbour-snapshot:every=25        copies in float32, every 25 iterations (default: a byte a number, as often as 4 % more bytes allow)
  skipstone train --recovery checkfree                  no copies: a lost stage is the average of its neighbours
  skipstone train --recovery match                      no copies either; then it learns from activations that its neighbours kept
  skipstone train --recovery checkpoint:every=50        a lost stage sends the whole run back to its last checkpoint
  skipstone train --replicas 2 --notice-command \\
    'until curl -fs http://169.254.169.254/latest/meta-data/spot/instance-action; do sleep 5; done'
                                                        leave in order when the cloud takes the machine back
  skipstone train run.toml --lr 3e-4 --out second       options from a file; flags go first
  skipstone train --wan gcp12 --pace 0.5 --stages 5     as if spread over 12 regions, with half a second a forward
  skipstone train --wan gcp12 --replicas 2 --domain-price 0.1      give 0.1 s an iteration for each stage kept apart
  skipstone train --wan INSTANCE.json --pace --plan PLAN.json --stages 5 --stage-sizes 5,3,3,3,3,3 --microbatches 30
                                                        carry out what `skipstone plan --as-trained` has found
  skipstone train --listen                              other machines join with the ticket that it prints
  skipstone train --listen --workers 2 --stages 5       two of the six nodes run here, four are to join
  skipstone train --listen --relay none --udp-port 4433  no relay: a router passes this UDP port on
  skipstone train --listen --links links.json           machines say where they are; paths go where links are fast
  skipstone train --listen --replicas 3 --spot-check-every 20      replicas compute each other's shares again more often
  skipstone train --listen --health 9200                http://127.0.0.1:9200/health says whether the run is well
  skipstone train --price-per-hour 0.35                 what a million tokens cost, and what was paid for nothing
  skipstone train --checkpoint-to s3://bucket/run       each save goes to an object store too
  skipstone train --resume --checkpoint-to s3://bucket/run --out new    go on from there, on another machine
  skipstone train --resume --out second                 go on after a power cut, or with more --steps

A run's folder holds run.toml, events.jsonl, report.html, tensorboard/, state/ (for --resume) and model/ (for
transformers). Ctrl-C finishes the iteration, saves, and ends; twice ends at once.

--checkpoint-to: after each save (--save-every, --recovery checkpoint) this process sends the state, and once the options and the
tokens, beside the training. Nothing there is written over: checkpoint.json is put last, and names every object with its hash. One
state is on its way at a time; of those that come meanwhile the newest is next. Requests are tried again; the log says what arrived.
Credentials come from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION (AWS_ENDPOINT and AWS_ALLOW_HTTP=true
for a server of your own); GOOGLE_APPLICATION_CREDENTIALS; AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY. The store is
tried at the start. With --resume a folder without a run is filled from there, and one without state/ gets its state; a folder whose
state is older than the store's is refused, and what another process has put there meanwhile is never written over.

A --churn trace is a file of JSON lines {\"t_s\": 12.5, \"stage\": 3, \"event\": \"kill\"} (or \"node\": 2, the third that lives, or a
\"region\" of the table with all its nodes; or \"iteration\": 30 for t_s; or \"drain\", which is notice, or \"lose\", which is all of a
stage), a spot market's lines 60000,add,NAME and 2040000,remove,NAME (milliseconds; Bamboo's and Oobleck's), or its counts
{\"metadata\": {\"gap_seconds\": 300}, \"data\": [4, 4, 3]} (SkyPilot's). On a spot market's machines a place whose machine is taken away
gets the next that is free, and stays empty while there is none; a trace that never has as many machines as the run has nodes lends
each to several. Its time begins when all places have a machine. A market and a region spare the last origin.

--wan holds back what processes send to each other: a message arrives its link's latency later, a tensor latency +
bytes / bandwidth. gcp12 has 12 cloud regions; a file is JSON {\"regions\", \"node_regions\"} with the fields of a planner's
instance (which is a table too), and may have coordinator_region [default: the first], link_serial, link_overhead_s,
backward_ratio [2], loss_ratio [0.25], task_gap_s. A link may have jitter_s and loss, and a `back` with what is different
the other way: {\"a\": \"home\", \"b\": \"x\", \"latency_s\": 0.02, \"bandwidth_Bps\": 2.5e6, \"jitter_s\": 0.004, \"back\":
{\"bandwidth_Bps\": 25e6, \"loss\": 0.001}}; docs/machines.md has what is made of them. Nodes take the regions in turn; who replaces a node is where it was.
--pace S: a forward of a relay stage takes S seconds, its backward backward_ratio times that, head and loss loss_ratio
times; the origin's layers in proportion to a relay's. Nodes are placed on stages by the table: where an iteration gets
short, and so that no region can take a stage away, or two adjacent ones, if that costs less than --domain-price each. The summary says whether the machine kept up.";

/// In one iteration of so many replicas check each other, where nodes of others take part.
const SPOT_CHECK_EVERY: u64 = 100;

/// Options of `train`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Train {
    #[command(flatten)]
    flags: RunFlags,
    /// Go on with the run in --out. Options may be others, but for those that a replay of the run must have alike (model, data, batch, numbers, weight decay): they are refused
    #[arg(long, help_heading = "Running")]
    resume: bool,
    /// The coordinator's port on this machine; 0 takes any free one
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Running")]
    port: u16,
    #[command(flatten)]
    listen: Listen,
    /// Answer `GET /health` with 200 or 503 and how the run is, in JSON: on PORT of this machine alone, or ADDRESS:PORT
    #[arg(long, value_name = "PORT|ADDRESS:PORT", help_heading = "Running")]
    health: Option<String>,
    /// Plain lines instead of the live view
    #[arg(long, help_heading = "Running")]
    plain: bool,
    /// One JSON document on stdout at the end
    #[arg(long, help_heading = "Running")]
    json: bool,
}

/// How other machines take part.
#[derive(Debug, Args)]
struct Listen {
    /// Let other machines join: prints a ticket
    #[arg(long = "listen", help_heading = "Other machines")]
    wanted: bool,
    /// Through whom machines find each other, and talk where there is no direct way: public (those of the iroh project),
    /// none, or URLs of your own, with commas
    #[arg(
        long,
        value_name = "public|none|URL",
        default_value = "public",
        requires = "wanted",
        help_heading = "Other machines"
    )]
    relay: String,
    /// Don't say on this machine's own network where the run is, to those who ask for it by its key: a ticket then holds
    /// only while the addresses in it do, or a relay is there
    #[arg(long, requires = "wanted", help_heading = "Other machines")]
    no_lan: bool,
    /// The UDP port at which other machines find the run, for a router that passes it on [default: the one before, if the run
    /// had one, or any free one]
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..),
        requires = "wanted",
        help_heading = "Other machines"
    )]
    udp_port: Option<u16>,
    /// Nodes on this machine, the others are to join [default: all of the run's]
    #[arg(long, value_name = "N", requires = "wanted", help_heading = "Other machines")]
    workers: Option<usize>,
    /// For how long the ticket lets machines in
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_seconds,
        default_value = "24h",
        requires = "wanted",
        help_heading = "Other machines"
    )]
    ticket_life: f64,
    /// Write the ticket to a file too, for machines that share a folder; whoever can read it can join
    #[arg(long, value_name = "FILE", requires = "wanted", help_heading = "Other machines")]
    ticket_file: Option<PathBuf>,
}

impl Listen {
    #[cfg_attr(not(feature = "iroh"), expect(clippy::unnecessary_wraps, reason = "as with the feature"))]
    fn options(self) -> Outcome<Option<ListenOptions>> {
        if !self.wanted {
            return Ok(None);
        }
        #[cfg(feature = "iroh")]
        self.relay
            .parse::<skipstone_net::Relays>()
            .map_err(|why| Failure::input(format!("--relay: {why}")))?;
        let ticket_life_s = self.ticket_life as u64;
        Ok(Some(ListenOptions {
            relays: self.relay,
            lan: !self.no_lan,
            udp_port: self.udp_port,
            workers: self.workers,
            ticket_life_s,
            ticket_file: self.ticket_file,
        }))
    }
}

impl Train {
    pub(crate) fn run(self) -> Outcome {
        let folder = self.flags.folder();
        if let (true, Some(url)) =
            (self.resume && !folder.join("run.toml").exists(), &self.flags.checkpoint_to)
        {
            fetch_run(url, &folder, &mut say)?;
        }
        let mut config = self.flags.config(self.resume)?;
        if self.listen.wanted {
            config.spot_check_every.get_or_insert(SPOT_CHECK_EVERY);
        }
        let options = RunOptions {
            health: self.health,
            resume: self.resume,
            progress: Progress::choose(self.plain || self.json),
            kills: KillScript::new(),
            chaos: None,
            port: self.port,
            listen: self.listen.options()?,
        };
        train(&config, options, self.json)
    }
}

/// Runs to the end, exports, evaluates and sums up.
pub(crate) fn train(config: &RunConfig, options: RunOptions, json: bool) -> Outcome {
    config.check_live()?;
    let outcome = run(config, options)?;
    let summary = finish(&outcome);
    if let Ok(summary) = &summary {
        if json {
            print_json(summary)?;
        } else {
            print(&summary.render(skipstone_observe::stdout_width()))?;
        }
    }
    match outcome.ended {
        Ended::Failed(why) => Err(Failure::failed(why)),
        Ended::Done | Ended::Stopped => summary.map(drop),
    }
}
