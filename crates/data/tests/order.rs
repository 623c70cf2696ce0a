//! The order of samples.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use proptest::prelude::*;
use skipstone_data::{BatchShape, OrderError, SampleId, SampleOrder};

fn ids(order: &SampleOrder, samples: usize) -> Vec<SampleId> {
    let microbatches = order.shape().microbatches;
    (0..).flat_map(|t| (0..microbatches).flat_map(move |m| order.sample_ids(t, m))).take(samples).collect()
}

fn order(seed: u64, tokens: usize, context: usize, batch: usize, microbatches: usize) -> SampleOrder {
    SampleOrder::new(seed, tokens, BatchShape { context, batch, microbatches }).unwrap()
}

proptest! {
    #[test]
    fn each_sample_once_an_epoch(seed: u64, context in 1_usize..20, extra in 1_usize..500, batch in 1_usize..7, microbatches in 1_usize..5) {
        let tokens = context + extra;
        let order = order(seed, tokens, context, batch, microbatches);
        let windows = order.samples_per_epoch() as usize;
        prop_assert!(windows >= (tokens / context).saturating_sub(1));
        for (epoch, samples) in ids(&order, 3 * windows).chunks(windows).enumerate() {
            let seen: HashSet<u64> = samples.iter().map(|sample| sample.index).collect();
            prop_assert_eq!(seen.len(), windows);
            prop_assert!(samples.iter().all(|s| s.epoch == epoch as u64 && s.index < windows as u64));
            let mut starts: Vec<usize> = samples.iter().map(|&s| order.start_of(s)).collect();
            starts.sort_unstable();
            prop_assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == context), "no overlap, no gap");
            prop_assert!(starts[windows - 1] + context < tokens, "the last target is there");
        }
    }

    /// The order is one sequence of samples: how it is cut into microbatches and iterations does not alter it.
    #[test]
    fn batches_only_cut_the_sequence(seed: u64, batch in 1_usize..6, microbatches in 1_usize..6) {
        let one = ids(&order(seed, 1000, 8, 1, 1), 400);
        prop_assert_eq!(ids(&order(seed, 1000, 8, batch, microbatches), 400), one);
    }

    #[test]
    fn fill_writes_the_samples_it_names(seed: u64, iteration in 0_u64..1 << 40, batch in 1_usize..6) {
        let order = order(seed, 777, 9, batch, 3);
        let tokens: Vec<u32> = (1000..1777).collect();
        let (mut inputs, mut targets) = (vec![0; 9 * batch], vec![0; 9 * batch]);
        for microbatch in 0..3 {
            order.fill(&tokens, iteration, microbatch, &mut inputs, &mut targets);
            for (row, sample) in order.sample_ids(iteration, microbatch).into_iter().enumerate() {
                let start = order.start_of(sample);
                prop_assert_eq!(&inputs[9 * row..][..9], &tokens[start..start + 9]);
                prop_assert_eq!(&targets[9 * row..][..9], &tokens[start + 1..start + 10]);
            }
        }
    }
}

#[test]
fn epochs_and_seeds_differ() {
    let order_a = order(1, 6500, 64, 4, 2);
    let windows = order_a.samples_per_epoch() as usize;
    let samples = ids(&order_a, 200 * windows);
    let index = |samples: &[SampleId]| samples.iter().map(|s| s.index).collect::<Vec<_>>();
    assert_ne!(index(&samples[..windows]), index(&samples[windows..2 * windows]));
    assert_ne!(index(&samples[..windows]), index(&ids(&order(2, 6500, 64, 4, 2), windows)));
    // 200 epochs draw their offsets from 100 (6500 - 1 - 100 * 64 + 1): well over half of them come up, the ends too in time.
    let offsets: HashSet<usize> =
        (0..200).map(|epoch| order_a.start_of(SampleId { epoch, index: 0 })).collect();
    assert!(offsets.len() > 60, "{} different offsets", offsets.len());
}

/// Part of the contract: a run resumed by a later version goes on with the same samples.
#[test]
fn the_order_stays() {
    let order = order(42, 100_000, 64, 4, 2);
    let named: Vec<(u64, u64)> =
        ids(&order, 4).into_iter().chain(order.sample_ids(1000, 1)).map(|s| (s.epoch, s.index)).collect();
    assert_eq!(named, [(0, 5), (0, 670), (0, 484), (0, 511), (5, 435), (5, 521), (5, 1288), (5, 1311)]);
}

#[test]
fn impossible_shapes_are_refused() {
    let shape = BatchShape { context: 8, batch: 1, microbatches: 1 };
    assert!(matches!(SampleOrder::new(0, 8, shape), Err(OrderError::TooShort { tokens: 8, context: 8 })));
    assert_eq!(SampleOrder::new(0, 9, shape).unwrap().samples_per_epoch(), 1);
    for (i, name) in ["context", "batch", "microbatches"].into_iter().enumerate() {
        let sizes: [usize; 3] = std::array::from_fn(|j| usize::from(i != j));
        let shape = BatchShape { context: sizes[0], batch: sizes[1], microbatches: sizes[2] };
        assert!(matches!(SampleOrder::new(0, 100, shape), Err(OrderError::Zero { name: n }) if n == name));
    }
}
