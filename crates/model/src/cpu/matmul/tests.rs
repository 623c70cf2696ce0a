use super::*;
use proptest::prelude::*;

fn noise(n: usize, seed: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.731 + seed).sin()).collect()
}

/// Instruction sets that this CPU has.
fn available() -> Vec<Isa> {
    let mut all = vec![Isa::Baseline];
    #[cfg(target_arch = "x86_64")]
    {
        if matches!(isa(), Isa::Avx2 | Isa::Avx512) {
            all.push(Isa::Avx2);
        }
        if isa() == Isa::Avx512 {
            all.push(Isa::Avx512);
        }
    }
    all
}

/// Whether the kernel of this instruction set rounds a multiply-add once.
fn fused(isa: Isa) -> bool {
    isa != Isa::Baseline || portable::FUSED
}

/// The value every kernel promises, bit for bit: in each block of k a chain of fused multiply-adds from zero, added to
/// the base or to the blocks before. Without fused multiply-add, the same with two roundings.
fn element(
    k: usize,
    a: impl Fn(usize) -> f32,
    b: impl Fn(usize) -> f32,
    base: Option<f32>,
    fused: bool,
) -> f32 {
    // Written out anew, not called, so that the blocks' depth is pinned too: DEPTH is a promise between machines.
    let blocks = k.div_ceil(256);
    let depth = k.div_ceil(blocks).div_ceil(8) * 8;
    let mut sum = base;
    for start in (0..k).step_by(depth) {
        let chain = (start..k.min(start + depth))
            .fold(0.0f32, |chain, p| if fused { a(p).mul_add(b(p), chain) } else { a(p) * b(p) + chain });
        sum = Some(sum.map_or(chain, |sum| sum + chain));
    }
    sum.unwrap_or(0.0)
}

/// All ways to lay the operands out and to write, on all instruction sets and several numbers of threads: the bits of
/// [`element`], and nothing written beyond C. Few rows, which no kernel computes, only close to it.
fn compare(m: usize, n: usize, k: usize, pad: usize) {
    let (am, an) = (noise(m * (k + pad), 0.1), noise(k * (m + pad), 0.2));
    let (bn, bt) = (noise(k * (n + pad), 0.3), noise(n * (k + pad), 0.4));
    let stride = n + pad;
    let (old, other) = (noise(m * stride, 0.5), noise(m * stride, 0.6));
    for a in [View::rows(&am, k + pad), View::rows(&an, m + pad).t()] {
        for b in [View::rows(&bn, n + pad), View::rows(&bt, k + pad).t()] {
            for write in [Write::Set, Write::Add, Write::Onto(&other)] {
                let run = |f: &dyn Fn(&mut [f32])| {
                    let mut c = old.clone();
                    f(&mut c);
                    c
                };
                let want = |fused: bool| {
                    run(&|c| {
                        for (i, j) in (0..m * n).map(|at| (at / n, at % n)) {
                            let base = match write {
                                Write::Set => None,
                                Write::Add => Some(c[i * stride + j]),
                                Write::Onto(base) => Some(base[i * stride + j]),
                            };
                            let (left, right) = (&a.data[i * a.row..], &b.data[j * b.col..]);
                            c[i * stride + j] =
                                element(k, |p| left[p * a.col], |p| right[p * b.row], base, fused);
                        }
                    })
                };
                let size = (m, n, k);
                let (once_rounded, twice_rounded) = (want(true), want(false));
                let exact = |isa| if fused(isa) { &once_rounded } else { &twice_rounded };
                for threads in [1, 3] {
                    let pool = crate::ComputePool::new(threads).unwrap();
                    for isa in available() {
                        let got = run(&|c| pool.install(|| matmul_on(isa, c, stride, size, a, b, write)));
                        assert!(got == *exact(isa), "{isa:?}: {size:?} + {pad} on {threads} threads");
                    }
                    let got = run(&|c| pool.install(|| matmul(c, stride, size, a, b, write)));
                    if m > FEW_ROWS || a.col != 1 || b.row != 1 {
                        assert!(got == *exact(isa()), "{size:?} + {pad}");
                    }
                    for (got, want) in got.iter().zip(&once_rounded) {
                        assert!((got - want).abs() < 4e-6 * (k as f32).sqrt() + 2e-6 * want.abs());
                    }
                }
                if b.col == 1 && k <= blocked::DEPTH {
                    let got = run(&|c| matmul_small(c, stride, size, a, b, write));
                    assert!(got == *exact(isa()), "small: {size:?} + {pad}");
                }
            }
        }
    }
}

#[test]
fn odd_sizes() {
    for (m, n, k) in
        [(1, 1, 1), (12, 32, 8), (13, 33, 9), (25, 17, 600), (130, 300, 31), (7, 1100, 5), (3, 700, 70)]
    {
        compare(m, n, k, 0);
        compare(m, n, k, 3);
    }
    compare(2100, 5, 3, 1);
    compare(9, 40, 256, 0);
    compare(9, 40, 257, 0);
}

#[test]
fn every_kernel_is_close_to_sums_in_f64() {
    let (m, n, k) = (9, 21, 700);
    let (a, b) = (noise(m * k, 0.1), noise(k * n, 0.3));
    for isa in available() {
        let mut c = vec![0.0; m * n];
        matmul_on(isa, &mut c, n, (m, n, k), View::rows(&a, k), View::rows(&b, n), Write::Set);
        for (at, got) in c.iter().enumerate() {
            let want: f64 = (0..k).map(|p| f64::from(a[at / n * k + p]) * f64::from(b[p * n + at % n])).sum();
            assert!((f64::from(*got) - want).abs() < 4e-6 * (k as f64).sqrt(), "{isa:?}: {got} {want}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_size(m in 1usize..60, n in 1usize..80, k in 1usize..90, pad in 0usize..5) {
        compare(m, n, k, pad);
    }
}
