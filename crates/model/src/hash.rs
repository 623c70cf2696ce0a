//! Hashes of tensors, by which replicas check that they hold the same bits.

use rayon::prelude::*;

/// Values per chunk of the hash tree; part of the definition of the hash.
pub const HASH_CHUNK: usize = 1 << 16;

/// BLAKE3 over the number of values and the BLAKE3 hashes of chunks of [`HASH_CHUNK`] values (little-endian),
/// computed in parallel; the same for any number of threads and on any machine.
///
/// Bits are hashed, not numbers: −0 and 0 differ, and so do NaNs of different payload.
pub fn hash_f32(values: &[f32]) -> [u8; 32] {
    let hashes: Vec<[u8; 32]> = values.par_chunks(HASH_CHUNK).map(hash_chunk).collect();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(values.len() as u64).to_le_bytes());
    for hash in &hashes {
        hasher.update(hash);
    }
    *hasher.finalize().as_bytes()
}

fn hash_chunk(chunk: &[f32]) -> [u8; 32] {
    if cfg!(target_endian = "little") {
        return *blake3::hash(bytemuck::cast_slice(chunk)).as_bytes();
    }
    let mut hasher = blake3::Hasher::new();
    for value in chunk {
        hasher.update(&value.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bit_counts_and_threads_do_not() {
        let mut x: Vec<f32> = (0..HASH_CHUNK * 3 + 17).map(|i| i as f32).collect();
        let hash = hash_f32(&x);
        for threads in [1, 2, 4] {
            assert_eq!(crate::ComputePool::new(threads).unwrap().install(|| hash_f32(&x)), hash);
        }
        x[HASH_CHUNK * 2] = f32::from_bits(x[HASH_CHUNK * 2].to_bits() ^ 1);
        assert_ne!(hash_f32(&x), hash);
        assert_ne!(hash_f32(&[0.0]), hash_f32(&[-0.0]));
        assert_ne!(hash_f32(&[]), hash_f32(&[0.0]));
    }
}
