//! Regions on a ring, those that talk much close to each other.

/// Rounds of exchanging places.
const ROUNDS_MAX: usize = 40;

/// An order of regions around a ring in which heavy pairs are close. `weights` is square, row by row, symmetric.
pub(super) fn ring_order(weights: &[f64], regions: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..regions).collect();
    let stretch = |order: &[usize]| -> f64 {
        let mut sum = 0.0;
        for a in 0..regions {
            for b in 0..a {
                let apart = (a - b).min(regions - (a - b));
                sum += weights[order[a] * regions + order[b]] * apart as f64;
            }
        }
        sum
    };
    if regions > 64 {
        return order;
    }
    let mut best = stretch(&order);
    for _ in 0..ROUNDS_MAX {
        let before = best;
        for a in 0..regions {
            for b in a + 1..regions {
                // Exchange two, or move one.
                for moves in [false, true] {
                    let mut other = order.clone();
                    if moves {
                        let region = other.remove(a);
                        other.insert(b, region);
                    } else {
                        other.swap(a, b);
                    }
                    let length = stretch(&other);
                    if length < best - 1e-9 {
                        (order, best) = (other, length);
                    }
                }
            }
        }
        if best >= before {
            break;
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heavy_pairs_are_neighbours() {
        // 0–3, 3–1, 1–2 … each region talks to two others: a ring exists without any stretch.
        let pairs = [(0, 3), (3, 1), (1, 5), (5, 2), (2, 4), (4, 0)];
        let mut weights = vec![0.0; 36];
        for (a, b) in pairs {
            weights[a * 6 + b] = 1.0;
            weights[b * 6 + a] = 1.0;
        }
        let order = ring_order(&weights, 6);
        let place = |region: usize| order.iter().position(|r| *r == region).unwrap();
        for (a, b) in pairs {
            let apart = place(a).abs_diff(place(b));
            assert!(apart == 1 || apart == 5, "{order:?}");
        }
    }
}
