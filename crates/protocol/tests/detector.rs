//! The failure detector's judgement: numbers by hand, and long simulated times.

use skipstone_protocol::{PhiAccrual, RunningClock, Suspicion};

const BEAT_US: u64 = 100_000;

/// A detector that heard `count` heartbeats at these intervals, over and over; and the time.
fn steady(intervals_us: &[u64], count: usize) -> (PhiAccrual, u64) {
    let mut now_us = 0;
    let mut detector = PhiAccrual::new(BEAT_US, 0);
    for interval_us in intervals_us.iter().cycle().take(count) {
        now_us += interval_us;
        detector.heard(now_us);
    }
    (detector, now_us)
}

/// The silence after which a node counts as lost, in steps of a millisecond.
fn lost_after_us(detector: &PhiAccrual) -> u64 {
    (0..60_000)
        .map(|ms| ms * 1000)
        .find(|silence_us| detector.suspicion(*silence_us).is_lost())
        .unwrap_or(u64::MAX)
}

/// SplitMix64: no randomness but the seed's.
struct Random(u64);

impl Random {
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Exponential: its tail is far longer than the normal distribution's.
    fn exponential(&mut self, mean_us: f64) -> u64 {
        (-(1.0 - self.fraction()).ln() * mean_us) as u64
    }
}

#[test]
fn phi_is_the_tail_of_the_normal_distribution() {
    let (detector, _) = steady(&[BEAT_US], 1000);
    // Mean and deviation are 100 ms each (the deviation's floor), up to what is left of the prior.
    let at = |silence_us| detector.suspicion(silence_us);
    assert!((at(0).interval_us - 1e5).abs() < 1e-6 && (at(0).deviation_us - 1e5).abs() < 1e-6);
    // −log10 Q(z) for z = −1, 0, 1, 3, 6, 8.
    for (silence_us, phi) in [
        (0, 0.0750),
        (120_000, 0.3759),
        (200_000, 0.7995),
        (400_000, 2.8697),
        (700_000, 9.0059),
        (900_000, 15.2061),
    ] {
        let got = at(silence_us).phi;
        assert!((got - phi).abs() < 0.002 * phi + 0.001, "{silence_us} µs: {got}, not {phi}");
    }
    // No silence is too long to be computed with.
    assert!(at(u64::MAX / 2).phi.is_finite());
    let phis: Vec<_> = (0..3000).map(|ms| at(ms * 1000).phi).collect();
    assert!(phis.windows(2).all(|pair| pair[0] < pair[1]), "φ grows with the silence");
}

#[test]
fn a_node_is_judged_by_its_own_history() {
    let calm = lost_after_us(&steady(&[BEAT_US], 1000).0);
    assert!((780_000..830_000).contains(&calm), "{calm}");
    let slow = lost_after_us(&steady(&[3 * BEAT_US], 1000).0);
    assert!((2_300_000..2_500_000).contains(&slow), "{slow}");
    let irregular = lost_after_us(&steady(&[20_000, 20_000, 20_000, 800_000], 1000).0);
    assert!((2_300_000..3_300_000).contains(&irregular), "{irregular}");
    // One long interval is remembered, and something longer than it is allowed.
    let (mut detector, now_us) = steady(&[BEAT_US], 500);
    detector.heard(now_us + 900_000);
    assert!(lost_after_us(&detector) > 1_500_000);
    // … until the window has passed over it.
    (1..=1000).for_each(|beat| detector.heard(now_us + 900_000 + beat * BEAT_US));
    assert_eq!(lost_after_us(&detector), calm);
}

#[test]
fn a_new_node_is_given_more_time_and_no_more_than_that() {
    let fresh = lost_after_us(&PhiAccrual::new(BEAT_US, 0));
    assert!((1_300_000..1_700_000).contains(&fresh), "{fresh}");
    let after = |beats| lost_after_us(&steady(&[BEAT_US], beats).0);
    assert!(after(5) < fresh);
    assert_eq!(after(40), after(1000), "the prior is outweighed after a few seconds");
}

#[test]
fn while_the_detector_stood_still_nobody_was_silent() {
    let mut clock = RunningClock::new(BEAT_US, 5_000);
    assert_eq!(clock.read(55_000), 50_000);
    assert_eq!(clock.read(10_055_000), 150_000, "ten seconds of standing still count as a stride");
    assert_eq!(clock.read(10_040_000), 150_000, "time never goes back");
    assert_eq!(clock.read(10_105_000), 200_000);

    // The detector is stopped for a minute at any phase of the heartbeat, and what came meanwhile is not read yet.
    for phase_us in (0..BEAT_US).step_by(1000) {
        let mut clock = RunningClock::new(BEAT_US, 0);
        let mut detector = PhiAccrual::new(BEAT_US, 0);
        let mut now_us = 0;
        for _ in 0..500 {
            now_us += BEAT_US;
            detector.heard(clock.read(now_us));
        }
        clock.read(now_us + phase_us);
        let at_us = clock.read(now_us + phase_us + 60_000_000);
        let suspicion = detector.suspicion(detector.silence_us(at_us));
        assert!(suspicion.phi < 1.0, "{suspicion:?}");
    }
}

#[test]
fn half_an_hour_on_a_machine_with_long_delays_gives_no_false_alarm() {
    // Every heartbeat is late by an exponential delay of 40 ms, one in a thousand by a further 100 ms.
    let mut random = Random(7);
    let mut worst: f64 = 0.0;
    for _ in 0..12 {
        let mut detector = PhiAccrual::new(BEAT_US, 0);
        let mut last_us = 0;
        for beat in 1..18_000_u64 {
            let rare = if random.fraction() < 0.001 { random.exponential(100_000.0) } else { 0 };
            let at_us = (beat * BEAT_US + random.exponential(40_000.0) + rare).max(last_us);
            worst = worst.max(detector.suspicion(at_us - last_us).phi);
            detector.heard(at_us);
            last_us = at_us;
        }
    }
    assert!(worst < Suspicion::LOST, "{worst}");
    assert!(worst > 3.0, "the delays were no test: {worst}");
}

#[test]
fn a_stopped_node_is_found_within_a_second_even_then() {
    let mut random = Random(3);
    let mut found_us: Vec<u64> = (0..101)
        .map(|_| {
            let mut detector = PhiAccrual::new(BEAT_US, 0);
            let mut last_us = 0;
            for beat in 1..1000_u64 {
                let at_us = (beat * BEAT_US + random.exponential(40_000.0)).max(last_us);
                detector.heard(at_us);
                last_us = at_us;
            }
            lost_after_us(&detector)
        })
        .collect();
    found_us.sort_unstable();
    assert!(found_us[50] <= 950_000, "{}", found_us[50]);
}
