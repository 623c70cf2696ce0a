//! What a seed stands for: a run, its machines and network, and what goes wrong.

use super::Options;
use super::kinds::Fault;
use super::random::Random;
use super::tamper::Tamper;
use serde::Serialize;
use skipstone_types::{EdgeSwaps, LearningRate, RateShape, RunId, Settings, SpotChecks, WhileLost};

/// Times in microseconds, each a range that durations are drawn from.
#[derive(Debug, Clone, Serialize)]
pub struct Tempo {
    /// A message's way.
    pub message_us: (u64, u64),
    /// Probability that a message takes ten times as long.
    pub slow_message: f64,
    /// A task.
    pub task_us: (u64, u64),
    /// From a broken connection to the next dial.
    pub redial_us: (u64, u64),
    /// From a node's death to its successor's start.
    pub respawn_us: (u64, u64),
    /// From the coordinator's death to its restart.
    pub restart_us: (u64, u64),
    /// A write to the journal.
    pub write_us: (u64, u64),
    /// How long a process stands still.
    pub stall_us: (u64, u64),
    /// After this long without a word a node is called lost.
    pub silence_us: u64,
    /// A search for paths.
    pub plan_us: (u64, u64),
}

/// A run and its faults, drawn from a seed.
#[derive(Debug, Clone, Serialize)]
pub struct FaultPlan {
    /// The seed.
    pub seed: u64,
    /// The run.
    pub settings: Settings,
    /// How long things take.
    pub tempo: Tempo,
    /// The faults that happen, with their weights.
    pub faults: Vec<(Fault, f64)>,
    /// Mean time from one fault to the next; 0 = none.
    pub fault_every_us: u64,
    /// Faults end when this many iterations are committed …
    pub faults_until_iteration: u64,
    /// … or at this time.
    pub faults_until_us: u64,
    /// Probability that two faults happen at once.
    pub two_at_once: f64,
    /// Regions that machines are spread over.
    pub regions: usize,
    /// Times that the run is begun anew with `--resume`.
    pub resumptions_max: u32,
    /// Probability that a frame to a peer that has to be dialled first is lost.
    pub lose_undialled: f64,
    /// Probability that what a dead process has sent still arrives.
    pub drain: f64,
    /// Whether the last living origin is spared.
    pub protect_origin: bool,
    /// Chunks of a frozen state.
    pub chunks: u32,
    /// A chunk is so many times as long under way as a message.
    pub chunk_ways: u64,
    /// A write of a state takes as long as so many tasks.
    pub write_tasks: u64,
    /// Whether every message goes through its wire form.
    pub codecs: bool,
}

impl FaultPlan {
    /// The plan of `seed`.
    pub fn new(seed: u64, options: &Options) -> Self {
        let mut random = Random::new(seed, 1);
        let mut settings = settings(seed, options, &mut random);
        if options.tamper == Some(Tamper::GiveLastSlot) {
            crowd_relays(&mut settings);
        }
        let tempo = tempo(&mut random);
        let everything = random.chance(0.5);
        let mut faults: Vec<_> = Fault::ALL
            .into_iter()
            .filter(|fault| options.faults.contains(*fault) && *fault != Fault::Lie)
            .filter(|_| everything || random.chance(0.35))
            .map(|fault| (fault, weight(fault)))
            .collect();
        let lies = check_spots(&mut settings, options, faults.is_empty());
        if faults.is_empty() {
            faults = Fault::ALL
                .into_iter()
                .filter(|fault| options.faults.contains(*fault))
                .map(|fault| (fault, 1.0))
                .collect();
        }
        for (_, weight) in &mut faults {
            *weight *= 0.3 + random.fraction();
        }
        // Behind all draws, so that seeds found before stay what they were.
        faults.extend(
            lies.filter(|_| !faults.iter().any(|(fault, _)| *fault == Fault::Lie))
                .map(|weight| (Fault::Lie, weight)),
        );
        let (chunk_ways, write_tasks) = take_long(&mut settings);
        let steps = settings.steps;
        let calm = if random.chance(0.5) { 4 } else { random.between(4, 4.max(steps / 2)) };
        Self {
            seed,
            faults_until_iteration: steps.saturating_sub(calm),
            faults_until_us: random.magnitude(20_000_000, 200_000_000),
            fault_every_us: if random.chance(0.03) { 0 } else { random.magnitude(40_000, 4_000_000) },
            two_at_once: if random.chance(0.3) { random.fraction() } else { 0.0 },
            regions: random.between(2, 4) as usize,
            resumptions_max: random.between(0, 3) as u32,
            lose_undialled: if random.chance(0.5) { 0.0 } else { random.fraction() },
            drain: random.fraction(),
            protect_origin: random.chance(0.95),
            chunks: random.between(1, 6) as u32,
            chunk_ways,
            write_tasks,
            codecs: random.chance(0.125),
            settings,
            tempo,
            faults,
        }
    }

    /// Whether a fault may happen.
    pub(super) fn has(&self, fault: Fault) -> bool {
        self.faults.iter().any(|(other, _)| *other == fault)
    }
}

/// A write of a state mostly takes as long as so many tasks.
const WRITE_TASKS: u64 = 6;

/// How much more often than others a fault happens.
fn weight(fault: Fault) -> f64 {
    match fault {
        Fault::Kill | Fault::Cut => 3.0,
        Fault::Stop | Fault::Journal => 2.0,
        Fault::Stage | Fault::Adjacent | Fault::Origins | Fault::Disk | Fault::Task | Fault::Hang => 0.4,
        Fault::Interrupt | Fault::Blackout => 0.1,
        _ => 1.0,
    }
}

fn settings(seed: u64, options: &Options, random: &mut Random) -> Settings {
    let (replicas, relay_stages, spares) = match options.nodes {
        None => (random.between(1, 3) as u16, random.between(1, 6) as u16, random.between(0, 2) as u16),
        Some(nodes) => {
            let nodes = nodes.clamp(2, 3000) as u16;
            let replicas = random.between(1, 3.min(u64::from(nodes) / 2)) as u16;
            let relays = (nodes / replicas - 1).clamp(1, random.between(6, 24) as u16);
            let replicas = (nodes / (relays + 1)).clamp(1, 64);
            (replicas, relays, nodes - replicas * (relays + 1))
        }
    };
    let steps = options.iterations.max(8);
    let origin_has_layers = random.chance(0.5);
    let mut settings = Settings {
        run: RunId(seed ^ 0x5bd1_e995),
        seed,
        relay_stages,
        origin_like_relay: origin_has_layers && random.chance(0.7),
        origin_has_layers,
        replicas,
        spares,
        microbatches: random.between(2, 12) as u32,
        steps,
        skip: *random.pick(&[0.0, 0.25, 0.33, 0.5]).unwrap_or(&0.0),
        full_every: *random.pick(&[0, 0, 1, 5]).unwrap_or(&0),
        full_last: 0,
        slots: random.between(1, 4) as u32,
        while_lost: if random.chance(0.7) { WhileLost::Skip } else { WhileLost::Wait },
        recovery: draw_recovery(random),
        clip_norm_max: if random.chance(0.5) { 1.0 } else { 0.0 },
        learning_rate: LearningRate {
            peak: 1e-3,
            floor: 1e-4,
            warmup_iterations: 5,
            total_iterations: steps,
            shape: RateShape::Cosine,
        },
        save_every_iterations: *random.pick(&[0, 0, 3, 10]).unwrap_or(&0),
        // Without a draw, so that seeds found before stay what they were.
        deterministic: steps.is_multiple_of(3),
        respawn: random.chance(0.7),
        stage_replicas: Vec::new(),
        places: steps.is_multiple_of(7),
        edge_swaps: EdgeSwaps::Off,
        spot_checks: SpotChecks::OFF,
    };
    round_copies(&mut settings);
    retrace_stages(&mut settings);
    wait_briefly(&mut settings);
    end_whole(&mut settings);
    swap_edges(&mut settings);
    if settings.check().is_err() {
        settings.skip = 0.0;
    }
    settings
}

/// Spot checks in two of five runs, in most of which some nodes lie: how often. Drawn apart, so that seeds found before stay what they
/// were in the others.
fn check_spots(settings: &mut Settings, options: &Options, only: bool) -> Option<f64> {
    let mut random = Random::new(settings.seed, 6);
    let may_lie = options.faults.contains(Fault::Lie);
    if !(random.chance(0.4) || (only && may_lie)) {
        return None;
    }
    settings.spot_checks = SpotChecks { every: random.between(1, 4), salt: settings.seed ^ 0x9d2c };
    (may_lie && random.chance(0.7)).then(|| 0.3 + random.fraction())
}

/// Copies in rounded numbers, in half of the runs that take any. Drawn apart, so that seeds found before stay what they were in the
/// others.
fn round_copies(settings: &mut Settings) {
    let mut random = Random::new(settings.seed, 4);
    if settings.recovery.starts_with("neighbour-snapshot") && random.chance(0.5) {
        settings.recovery.push_str(if random.chance(0.5) { ",dtype=bf16" } else { ",dtype=int8" });
    }
}

/// Steps that restored stages take again, in two thirds of the runs that take copies; now and then nodes keep less than it takes. Drawn
/// apart, as above.
fn retrace_stages(settings: &mut Settings) {
    let mut random = Random::new(settings.seed, 7);
    if settings.recovery.starts_with("neighbour-snapshot") && random.chance(2.0 / 3.0) {
        settings.recovery.push_str(&format!(",retrace={}", random.between(1, 16)));
    }
}

/// Waits briefly for lost stages, as runs do by default, in two thirds of the runs that don't wait for them. Drawn apart, as above.
fn wait_briefly(settings: &mut Settings) {
    let skips = settings.while_lost == WhileLost::Skip;
    if skips && Random::new(settings.seed, 5).chance(2.0 / 3.0) {
        settings.while_lost = WhileLost::Briefly;
    }
}

/// Visits every stage in the last iterations, in every third run. Drawn apart, as above.
fn end_whole(settings: &mut Settings) {
    let mut random = Random::new(settings.seed, 8);
    if random.chance(1.0 / 3.0) {
        settings.full_last = random.between(1, 10);
    }
}

/// How many times as long as a message a piece of a state is under way, and as many tasks as how many a write of a state takes: in one
/// of four runs each so long that many iterations pass meanwhile. Copies are then taken less often. Drawn apart, as above.
fn take_long(settings: &mut Settings) -> (u64, u64) {
    let mut random = Random::new(settings.seed, 9);
    let chunk_ways = if random.chance(0.25) { random.magnitude(4, 1500) } else { 1 };
    let write_tasks = if random.chance(0.25) { random.magnitude(WRITE_TASKS, 3000) } else { WRITE_TASKS };
    if chunk_ways > 1
        && let Some((name, options)) = settings.recovery.split_once(":every=")
        && name == "neighbour-snapshot"
    {
        let others = options.find(',').map_or("", |at| &options[at..]);
        settings.recovery = format!("{name}:every={}{others}", random.between(8, 60));
    }
    (chunk_ways, write_tasks)
}

/// Swaps stages in every third run, in half of those because the strategy asks for it. Drawn apart, so that seeds found before stay
/// what they were in the others.
fn swap_edges(settings: &mut Settings) {
    let mut random = Random::new(settings.seed, 3);
    if settings.relay_stages < 2 || !random.chance(1.0 / 3.0) {
        return;
    }
    settings.edge_swaps = EdgeSwaps::Odd;
    // Two or three: the fewer, the sooner nodes would wait for each other.
    settings.slots = 2 + settings.slots / 4;
    if random.chance(0.5) {
        let strategy = *random.pick(&["checkfree+", "checkfree+:partners=copy"]).unwrap_or(&"checkfree+");
        strategy.clone_into(&mut settings.recovery);
    }
}

/// Makes it likely that two relays wait for each other's slots, where the rule that forbids it is broken: origins send more
/// microbatches than the relays that they swap have slots.
fn crowd_relays(settings: &mut Settings) {
    settings.relay_stages = settings.relay_stages.max(2);
    settings.stage_replicas = vec![1; usize::from(settings.relay_stages) + 1];
    settings.stage_replicas[0] = 3;
    settings.edge_swaps = EdgeSwaps::Odd;
    settings.skip = 0.0;
    (settings.slots, settings.microbatches) = (2, 9);
}

fn tempo(random: &mut Random) -> Tempo {
    let mut range = |low, high, spread| {
        let from = random.magnitude(low, high);
        (from, from * spread)
    };
    Tempo {
        message_us: range(50, 3_000, 4),
        task_us: range(100, 3_000, 5),
        redial_us: range(1_000, 100_000, 4),
        respawn_us: range(10_000, 1_000_000, 3),
        restart_us: range(10_000, 1_000_000, 3),
        write_us: range(50, 5_000, 4),
        stall_us: range(10_000, 1_000_000, 8),
        plan_us: range(50, 2_000, 4),
        silence_us: random.magnitude(100_000, 2_000_000),
        slow_message: if random.chance(0.5) { 0.0 } else { 0.02 },
    }
}

/// A strategy; copies are taken so often that some are old when they are needed, and some on their way.
fn draw_recovery(random: &mut Random) -> String {
    // The one that swaps stages is drawn where they are swapped; what an oracle knows no node does.
    let names: Vec<_> = skipstone_recovery::STRATEGY_NAMES
        .into_iter()
        .filter(|name| !["checkfree+", "redundant", "oracle"].contains(name))
        .collect();
    // The one whose stages take the most messages to be made is drawn more often.
    let name = if random.chance(0.2) { "match" } else { *random.pick(&names).unwrap_or(&"checkfree") };
    match name {
        "neighbour-snapshot" => format!("{name}:every={}", random.between(1, 7)),
        "checkpoint" => format!("{name}:every={}", random.between(3, 20)),
        "match" => format!("{name}:kept={}", random.between(1, 4)),
        _ => name.to_owned(),
    }
}
