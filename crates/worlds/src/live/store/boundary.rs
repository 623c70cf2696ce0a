//! Tensors in fewer bytes: rounded where they are made ([`round`]), and packed on their way without any further loss
//! ([`pack`], [`unpack`]). What can't be packed so travels as it is.

use crate::wire_format::WireFormat;

/// Numbers that share a power of two; parts of a sum begin where a block does.
pub(super) const BLOCK: usize = 64;

/// Bytes before the numbers: the format, three of nothing, and how many numbers there are.
const HEAD: usize = 8;

const BF16: u8 = 1;
const INT8: u8 = 2;

/// Most numbers of one tensor.
const VALUES_MAX: usize = 1 << 30;

/// Rounds to what the format can hold. In a block of int8 that holds anything but numbers nothing is changed.
pub(super) fn round(values: &mut [f32], format: WireFormat) {
    match format {
        WireFormat::F32 => {}
        WireFormat::Bf16 => values.iter_mut().for_each(|value| *value = to_bf16(*value)),
        WireFormat::Int8 => {
            for block in values.chunks_mut(BLOCK) {
                let Some(exponent) = exponent_of(block) else { continue };
                for value in block {
                    *value = steps(*value, exponent) * power(exponent);
                }
            }
        }
    }
}

/// To nearest, ties to even; what is no number stays none.
fn to_bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    if value.is_nan() {
        return f32::from_bits((bits & 0xffff_0000) | 0x0040_0000);
    }
    let rounding = 0x7fff + ((bits >> 16) & 1);
    f32::from_bits((bits + rounding) & 0xffff_0000)
}

/// The power of two that a block is counted in: the smallest with which no number has more than 127 steps. Rounding a block
/// leaves it as it is. None if not all of them are numbers; what is smaller than 2⁻¹⁰⁰ counts as zero.
fn exponent_of(block: &[f32]) -> Option<i16> {
    let largest = block.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    if block.iter().any(|value| !value.is_finite()) {
        return None;
    }
    if largest < power(-100) {
        return Some(-100);
    }
    // 1.m · 2ᵏ is 64 to 128 steps of 2ᵏ⁻⁶.
    let exponent = (largest.to_bits() >> 23) as i16 - 127 - 6;
    Some(if steps(largest, exponent) > 127.0 { exponent + 1 } else { exponent })
}

/// 2 to this power, for powers of normal numbers.
fn power(exponent: i16) -> f32 {
    f32::from_bits(((i32::from(exponent) + 127) as u32) << 23)
}

/// The nearest whole number of steps, without a sign if it is zero.
fn steps(value: f32, exponent: i16) -> f32 {
    // By halves: the power's inverse may be out of range.
    let (half, rest) = (exponent / 2, exponent - exponent / 2);
    (value * power(-half) * power(-rest)).round_ties_even() + 0.0
}

/// The bytes of a tensor that was rounded; none if they would lose anything.
pub(super) fn pack(values: &[f32]) -> Option<Vec<u8>> {
    if values.is_empty() || values.len() > VALUES_MAX {
        return None;
    }
    // Either format's numbers end in zeros. A tensor of others is told from that by a few of them.
    let stride = values.len().div_ceil(BLOCK);
    if values.iter().step_by(stride).any(|value| value.to_bits() & 0xffff != 0) {
        return None;
    }
    pack_int8(values).or_else(|| pack_bf16(values))
}

fn head(format: u8, count: usize, bytes: usize) -> Vec<u8> {
    let mut packed = Vec::with_capacity(HEAD + bytes);
    packed.extend_from_slice(&[format, 0, 0, 0]);
    packed.extend_from_slice(&(count as u32).to_le_bytes());
    packed
}

fn pack_bf16(values: &[f32]) -> Option<Vec<u8>> {
    let mut packed = head(BF16, values.len(), 2 * values.len());
    for value in values {
        let bits = value.to_bits();
        if bits & 0xffff != 0 {
            return None;
        }
        packed.extend_from_slice(&((bits >> 16) as u16).to_le_bytes());
    }
    Some(packed)
}

fn pack_int8(values: &[f32]) -> Option<Vec<u8>> {
    let mut packed = head(INT8, values.len(), values.len() + 2 * values.len().div_ceil(BLOCK));
    for block in values.chunks(BLOCK) {
        let exponent = exponent_of(block)?;
        packed.extend_from_slice(&exponent.to_le_bytes());
        for value in block {
            let steps = steps(*value, exponent);
            if (steps * power(exponent)).to_bits() != value.to_bits() {
                return None;
            }
            packed.push(steps as i8 as u8);
        }
    }
    Some(packed)
}

/// The tensor that [`pack`] was given; none if the bytes are not its own.
pub(super) fn unpack(packed: &[u8]) -> Option<Vec<f32>> {
    let (head, body) = packed.split_at_checked(HEAD)?;
    let count = u32::from_le_bytes(head[4..].try_into().ok()?) as usize;
    if head[1..4] != [0; 3] || count == 0 || count > VALUES_MAX {
        return None;
    }
    match head[0] {
        BF16 if body.len() == 2 * count => {
            let value = |two: &[u8]| f32::from_bits(u32::from(u16::from_le_bytes([two[0], two[1]])) << 16);
            Some(body.chunks_exact(2).map(value).collect())
        }
        INT8 if body.len() == count + 2 * count.div_ceil(BLOCK) => {
            let mut values = Vec::with_capacity(count);
            for block in body.chunks(BLOCK + 2) {
                let (exponent, bytes) = block.split_at_checked(2)?;
                let exponent = i16::from_le_bytes([exponent[0], exponent[1]]);
                if !(-126..=127).contains(&exponent) {
                    return None;
                }
                values.extend(bytes.iter().map(|byte| f32::from(*byte as i8) * power(exponent)));
            }
            Some(values)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Numbers of all sizes that occur, and some that don't.
    fn tensor(count: usize, seed: u64) -> Vec<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let size = 10.0_f32.powf(random.random_range(-44.0..38.0));
        (0..count).map(|_| size * random.random_range(-1.0_f32..1.0)).collect()
    }

    #[test]
    fn what_was_rounded_is_packed_without_loss_and_rounding_again_changes_nothing() {
        for seed in 0..2000 {
            let values = tensor(1 + seed as usize % 200, seed);
            for format in [WireFormat::Bf16, WireFormat::Int8] {
                let mut rounded = values.clone();
                round(&mut rounded, format);
                let mut again = rounded.clone();
                round(&mut again, format);
                assert_eq!(bits(&again), bits(&rounded), "{format} {seed}");
                let packed = pack(&rounded).expect("it was rounded");
                assert_eq!(bits(&unpack(&packed).unwrap()), bits(&rounded), "{format} {seed}");
                let bytes = format.share() * 4.0 * rounded.len() as f64 + 10.0;
                assert!(packed.len() as f64 <= bytes, "{format} {seed}: {} bytes", packed.len());
            }
        }
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn rounding_is_close() {
        for seed in 0..200 {
            let values = tensor(64, seed);
            let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            if largest < 1e-28 {
                continue;
            }
            let worst = |format| {
                let mut rounded = values.clone();
                round(&mut rounded, format);
                let off = values.iter().zip(&rounded).map(|(a, b)| f64::from((a - b).abs()));
                off.fold(0.0, f64::max) / f64::from(largest)
            };
            assert!(worst(WireFormat::Bf16) <= 1.0 / 256.0);
            assert!(worst(WireFormat::Int8) <= 1.0 / 126.0);
            assert_eq!(worst(WireFormat::F32), 0.0);
        }
    }

    #[test]
    fn what_can_not_be_packed_is_not_and_no_number_stays_none() {
        assert_eq!(pack(&[1.0, 1.000_000_1]), None);
        assert_eq!(pack(&[]), None);
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for format in [WireFormat::Bf16, WireFormat::Int8] {
                let mut values = vec![0.5, odd, 3.0];
                round(&mut values, format);
                assert!(!values[1].is_finite(), "{format} {odd}");
                let back = pack(&values).and_then(|packed| unpack(&packed)).unwrap_or(values.clone());
                assert_eq!(back[1].is_nan(), odd.is_nan(), "{format} {odd}");
            }
        }
    }

    #[test]
    fn bytes_that_nobody_packed_are_refused() {
        let mut values = tensor(100, 1);
        round(&mut values, WireFormat::Int8);
        let packed = pack(&values).unwrap();
        for cut in 0..packed.len() {
            assert_eq!(unpack(&packed[..cut]), None, "{cut}");
        }
        for (at, byte) in [(0, 9), (1, 1), (4, 7), (7, 255), (9, 0x7f)] {
            let mut bad = packed.clone();
            bad[at] = byte;
            assert_eq!(unpack(&bad), None, "{at}");
        }
    }
}
