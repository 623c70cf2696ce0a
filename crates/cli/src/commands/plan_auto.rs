//! `skipstone plan --auto`: which options a run over given nodes should have.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use skipstone_worlds::auto::{AutoRequest, Configuration, NodeList, NodeListError, Ranking, configure};
use skipstone_worlds::config::RunConfig;

use crate::failure::{Failure, Outcome};
use crate::output::{print, print_json};
use crate::planning::{SearchFlags, refused};

/// Most values of a list on the command line.
const VALUES_MAX: usize = 16;

/// Most nodes of runs that are simulated without being asked for: larger ones take long.
const SIMULATED_NODES_MAX: usize = 100;

/// Options of `plan --auto`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Configuration of a run")]
pub(super) struct AutoFlags {
    /// Try stage counts, replicas, microbatch sizes and skip ratios, and rank them
    #[arg(long, requires = "node_list",
          conflicts_with_all = ["method", "stages_from", "out", "evaluate", "gantt", "map", "objective", "domain_price", "as_published"])]
    auto: bool,
    /// The nodes there are: regions, speeds, memory, links
    #[arg(long, value_name = "NODES.json", requires = "auto")]
    node_list: Option<PathBuf>,
    /// Preset or a Hugging Face config.json
    #[arg(
        long,
        value_name = "tiny|124m|500m|1.5b|8b|CONFIG.json",
        default_value = "tiny",
        requires = "auto"
    )]
    model: String,
    /// Links between the nodes' regions, in place of the list's: gcp12, or a file as for `train --wan`
    #[arg(long, value_name = "TABLE", requires = "auto")]
    wan: Option<String>,
    /// Tokens of a sequence [default: the model's]
    #[arg(long, value_name = "T", requires = "auto")]
    context: Option<usize>,
    /// Tokens of the tokenizer
    #[arg(long, value_name = "N", default_value_t = 2048, requires = "auto")]
    vocab_size: usize,
    /// Sequences of an iteration, which are cut into microbatches
    #[arg(long, value_name = "N", default_value_t = 32, requires = "auto",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sequences: u32,
    /// Sequences of a microbatch to try
    #[arg(long, value_name = "B,…", value_delimiter = ',', default_value = "1,2,4,8,16", requires = "auto",
          value_parser = clap::value_parser!(u16).range(1..))]
    batches: Vec<u16>,
    /// Skip ratios to try
    #[arg(
        long,
        value_name = "RATIO,…",
        value_delimiter = ',',
        default_value = "0,0.25,0.33,0.5",
        requires = "auto"
    )]
    skips: Vec<f64>,
    /// Fewest replicas of a stage
    #[arg(long, value_name = "R", default_value_t = 2, requires = "auto",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas_min: u16,
    /// How many of the best are simulated, as `skipstone simulate` does a run [default: 5, beyond 100 nodes 0]
    #[arg(long, value_name = "N", requires = "auto", value_parser = clap::value_parser!(u8).range(..=8))]
    simulate: Option<u8>,
    /// Rows of the table; --json has all
    #[arg(long, value_name = "N", default_value_t = 20, requires = "auto")]
    rows: usize,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    model: &'a str,
    context: usize,
    sequences: u32,
    nodes: usize,
    seed: u64,
    work: u64,
    search_s: f64,
    /// The quickest that fits.
    best: Option<&'a Configuration>,
    configurations: &'a [Configuration],
}

impl AutoFlags {
    /// Tries, ranks and prints.
    pub(super) fn run(&self, search: &SearchFlags, json: bool) -> Outcome {
        let started = Instant::now();
        let path = self.node_list.clone().unwrap_or_default();
        let list = NodeList::load(&path, self.wan.as_deref()).map_err(|why| match why {
            NodeListError::Wan { .. } => Failure::input(why),
            _ => refused(&path, &why),
        })?;
        let request = self.request(list.nodes.len())?;
        let mut progress = search.budget();
        let ranking = search
            .pool()?
            .install(|| configure(&request, &list, search.seed, &mut progress))
            .map_err(Failure::input)?;
        drop(progress);
        let document = Document {
            model: &self.model,
            context: request.base.context_of()?,
            sequences: self.sequences,
            nodes: list.nodes.len(),
            seed: search.seed,
            work: ranking.work,
            search_s: started.elapsed().as_secs_f64(),
            best: ranking.configurations.first().filter(|best| best.fits),
            configurations: &ranking.configurations,
        };
        if json {
            print_json(&document)?;
        } else {
            print(&self.text(&document, &ranking))?;
        }
        if document.best.is_some() {
            return Ok(());
        }
        let why = ranking.configurations.iter().find_map(|it| it.why.as_deref()).unwrap_or("none was tried");
        Err(Failure::failed(format!(
            "{}: no configuration fits: {why}; list nodes with more memory, or try a smaller --model, --context or --batches",
            path.display()
        )))
    }

    fn request(&self, nodes: usize) -> Outcome<AutoRequest> {
        for (option, count) in [("batches", self.batches.len()), ("skips", self.skips.len())] {
            if !(1..=VALUES_MAX).contains(&count) {
                return Err(Failure::input(format!(
                    "--{option} has {count} values; give between 1 and {VALUES_MAX}"
                )));
            }
        }
        if let Some(skip) = self.skips.iter().find(|skip| !(0.0..1.0).contains(*skip)) {
            return Err(Failure::input(format!(
                "--skips has {skip}, but each must be a ratio from 0 up to, not including, 1"
            )));
        }
        let base = RunConfig {
            model: self.model.clone(),
            context: self.context,
            vocab_size: self.vocab_size,
            wan: self.wan.clone(),
            ..RunConfig::default()
        };
        Ok(AutoRequest {
            base,
            sequences: self.sequences,
            batches: self.batches.iter().map(|batch| usize::from(*batch)).collect(),
            skips: self.skips.clone(),
            replicas_min: self.replicas_min,
            simulate: self.simulate.map_or(if nodes > SIMULATED_NODES_MAX { 0 } else { 5 }, usize::from),
        })
    }

    fn text(&self, document: &Document, ranking: &Ranking) -> String {
        let all = &ranking.configurations;
        let fit = all.iter().filter(|it| it.fits).count();
        let mut text = format!(
            "{} over {} nodes, {} sequences of {} tokens an iteration: {} configurations tried, {fit} fit\n\n\
             {:>2} {:>6} {:>7} {:>8} {:>6} {:>5} {:>8} {:>6} {:>5} {:>11} {:>11} {:>10} {:>10}\n",
            self.model,
            document.nodes,
            document.sequences,
            document.context,
            all.len(),
            "",
            "stages",
            "layers",
            "replicas",
            "spares",
            "batch",
            "microb.",
            "skip",
            "slots",
            "predicted",
            "simulated",
            "tokens/s",
            "memory",
        );
        all.iter().take(self.rows).for_each(|it| text += &row(it));
        if all.len() > self.rows {
            text += &format!("… and {} more; --rows or --json shows them\n", all.len() - self.rows);
        }
        text += "\nstages: the origin's and the relays'; layers: of the origin and of a relay; memory: of the node that needs \
                 most;\npredicted: an iteration by the best plan found for it; simulated: the mean of twelve, as training plans them;\n\
                 *: none that fits is quicker with as little memory and as little skipped\n";
        if let Some(best) = document.best {
            text += &format!("\nskipstone train {}\n", best.train_flags);
            // What is skipped is not trained by that microbatch: a quicker iteration is worth less.
            let full = all.iter().find(|it| it.fits && it.skip_realised == 0.0);
            if let Some(full) = full.filter(|_| best.skip_realised > 0.0) {
                text += &format!("skipping nothing: skipstone train {}\n", full.train_flags);
            }
        }
        text + &format!(
            "{} candidates in {:.1} s, seed {}\n",
            document.work, document.search_s, document.seed
        )
    }
}

fn row(it: &Configuration) -> String {
    let mark = if it.best_of_its_kind { "*" } else { "" };
    let time = |seconds: Option<f64>| seconds.map_or("–".to_owned(), |seconds| format!("{seconds:.2} s"));
    let (predicted, simulated) = (time(it.iteration_s), time(it.simulated_s));
    let tokens = it.tokens_per_s.map_or("–".to_owned(), |tokens| format!("{tokens:.0}"));
    let memory = format!("{:.2} GiB", it.bytes_max() as f64 / f64::from(1 << 30));
    let why = it.why.as_ref().map_or(String::new(), |why| format!("  {why}"));
    format!(
        "{mark:>2} {:>6} {:>7} {:>8} {:>6} {:>5} {:>8} {:>6} {:>5} {predicted:>11} {simulated:>11} {tokens:>10} {memory:>10}{why}\n",
        format!("1+{}", it.stages),
        format!("{}+{}", it.origin_layers, it.relay_layers),
        it.replicas,
        it.spares,
        it.batch,
        it.microbatches,
        format!("{:.0} %", 100.0 * it.skip_realised),
        it.slots,
    )
}
