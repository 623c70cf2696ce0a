//! How fast frames move over loopback, against plain TCP in the same process and minute.

mod ours;
mod raw;
#[cfg(feature = "iroh")]
mod raw_iroh;

use crate::BindError;
use ours::Pair;
use serde::{Deserialize, Serialize};
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

/// What to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchOptions {
    /// Payload sizes in bytes; rounded down to whole floats.
    pub payloads: Vec<usize>,
    /// Bytes sent per measurement.
    pub bytes_per_round: usize,
    /// Measurements of each kind, taken in turns; the median counts.
    pub rounds: usize,
    /// Round trips of a small control frame.
    pub round_trips: usize,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self { payloads: vec![1 << 20, 16 << 20], bytes_per_round: 512 << 20, rounds: 5, round_trips: 2000 }
    }
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetBench {
    /// One entry for each payload size.
    pub payloads: Vec<PayloadBench>,
    /// A 64-byte control frame there and back, nothing else going on.
    pub round_trip: RoundTrip,
    /// 64 bytes there and back over plain TCP between two threads.
    pub raw_round_trip: RoundTrip,
    /// As `round_trip`, while 16 MiB bulk frames keep the same connection busy in one direction.
    pub loaded_round_trip: RoundTrip,
    /// Between machines, over loopback; none in a build without.
    pub internet: Option<InternetBench>,
}

/// Encrypted, over iroh; both ends on this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InternetBench {
    /// Bytes of one payload.
    pub payload_bytes: usize,
    /// Through a transport.
    pub mb_per_s: f64,
    /// A bare iroh stream, each payload received into a vector of its own and handed to another task.
    pub raw_mb_per_s: f64,
    /// `mb_per_s / raw_mb_per_s`
    pub ratio: f64,
    /// A 64-byte control frame there and back, nothing else going on.
    pub round_trip: RoundTrip,
    /// The same, while 16 MiB bulk frames keep the connection busy in one direction.
    pub loaded_round_trip: RoundTrip,
}

/// Throughput for one payload size; medians of alternating rounds. MB are 10⁶ bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PayloadBench {
    /// Bytes of one payload.
    pub payload_bytes: usize,
    /// Through a transport: authenticated, framed, check-summed, received into a vector of its own.
    pub mb_per_s: f64,
    /// Plain TCP, each payload received into a vector of its own too and handed to another thread.
    pub raw_mb_per_s: f64,
    /// Plain TCP, received into the same buffer again and again and thrown away.
    pub raw_reused_mb_per_s: f64,
    /// `mb_per_s / raw_mb_per_s`
    pub ratio: f64,
    /// `mb_per_s / raw_reused_mb_per_s`
    pub ratio_reused: f64,
}

/// A distribution of round-trip times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundTrip {
    /// Round trips measured.
    pub samples: usize,
    /// Median in µs.
    pub p50_us: f64,
    /// 99th percentile in µs.
    pub p99_us: f64,
}

impl RoundTrip {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |q: f64| {
            let index = (q * times.len() as f64) as usize;
            times.get(index.min(times.len().saturating_sub(1))).map_or(0.0, |t| t.as_secs_f64() * 1e6)
        };
        Self { samples: times.len(), p50_us: at(0.5), p99_us: at(0.99) }
    }
}

/// A benchmark that couldn't be finished.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A transport couldn't be made.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Plain TCP failed.
    #[error("plain TCP failed: {0}")]
    Raw(#[from] io::Error),
    /// The transports lost each other.
    #[error("the transports failed: {0}")]
    Lost(String),
}

/// Measures. Takes some seconds.
pub fn bench(options: &BenchOptions) -> Result<NetBench, BenchError> {
    let mut payloads = Vec::new();
    for &bytes in &options.payloads {
        let floats = (bytes / 4).max(1);
        let values: Arc<Vec<f32>> = Arc::new((0..floats).map(|i| i as f32).collect());
        let frames = (options.bytes_per_round / (floats * 4)).max(1);
        let mut pair = Pair::new()?;
        let (mut net, mut owned, mut reused) = (Vec::new(), Vec::new(), Vec::new());
        pair.throughput(&values, frames.min(4))?;
        for _ in 0..options.rounds.max(1) {
            owned.push(raw::throughput(&values, frames, false)?);
            net.push(pair.throughput(&values, frames)?);
            reused.push(raw::throughput(&values, frames, true)?);
        }
        let rate = |times: Vec<Duration>| (frames * floats * 4) as f64 / 1e6 / median(times).as_secs_f64();
        let (mb_per_s, raw_mb_per_s, raw_reused_mb_per_s) = (rate(net), rate(owned), rate(reused));
        payloads.push(PayloadBench {
            payload_bytes: floats * 4,
            mb_per_s,
            raw_mb_per_s,
            raw_reused_mb_per_s,
            ratio: mb_per_s / raw_mb_per_s,
            ratio_reused: mb_per_s / raw_reused_mb_per_s,
        });
    }
    let mut pair = Pair::new()?;
    Ok(NetBench {
        payloads,
        round_trip: RoundTrip::of(pair.round_trips(options.round_trips, None)?),
        raw_round_trip: RoundTrip::of(raw::round_trips(options.round_trips)?),
        loaded_round_trip: {
            let load = Arc::new(vec![1.0; 4 << 20]);
            RoundTrip::of(pair.round_trips(options.round_trips / 4, Some(&load))?)
        },
        internet: internet(options)?,
    })
}

#[cfg(feature = "iroh")]
fn internet(options: &BenchOptions) -> Result<Option<InternetBench>, BenchError> {
    let floats = options.payloads.iter().copied().max().unwrap_or(4) / 4;
    let values: Arc<Vec<f32>> = Arc::new((0..floats).map(|i| i as f32).collect());
    // Encryption makes it several times slower than TCP.
    let frames = (options.bytes_per_round / (floats * 4) / 4).max(1);
    let (mut pair, bare) = (Pair::between_machines()?, raw_iroh::BarePair::new()?);
    let (mut net, mut raw) = (Vec::new(), Vec::new());
    pair.throughput(&values, 1)?;
    for _ in 0..options.rounds.max(1) {
        raw.push(bare.throughput(&values, frames)?);
        net.push(pair.throughput(&values, frames)?);
    }
    let rate = |times: Vec<Duration>| (frames * floats * 4) as f64 / 1e6 / median(times).as_secs_f64();
    let (mb_per_s, raw_mb_per_s) = (rate(net), rate(raw));
    let load = Arc::new(vec![1.0; 4 << 20]);
    Ok(Some(InternetBench {
        payload_bytes: floats * 4,
        mb_per_s,
        raw_mb_per_s,
        ratio: mb_per_s / raw_mb_per_s,
        round_trip: RoundTrip::of(pair.round_trips(options.round_trips, None)?),
        loaded_round_trip: RoundTrip::of(pair.round_trips(options.round_trips / 8, Some(&load))?),
    }))
}

#[cfg(not(feature = "iroh"))]
#[expect(clippy::unnecessary_wraps, reason = "as with the feature")]
fn internet(_: &BenchOptions) -> Result<Option<InternetBench>, BenchError> {
    Ok(None)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Runs `work` and answers with the time it took.
fn timed<E>(work: impl FnOnce() -> Result<(), E>) -> Result<Duration, E> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}
