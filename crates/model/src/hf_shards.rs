//! Reading safetensors files that nobody vouches for: headers are bounded and checked against the file's length
//! before anything is allocated for tensors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::hf_error::HfError;

/// Longest header, in bytes, as in the reference implementation.
const HEADER_MAX: u64 = 100_000_000;
/// Longest JSON file, in bytes.
const JSON_MAX: u64 = 64 << 20;
/// Most files of one model.
const SHARDS_MAX: usize = 4096;
/// Values converted at once.
const CHUNK: usize = 1 << 20;

/// Where a tensor lies.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    file: usize,
    dtype: Dtype,
    /// Its shape.
    pub(crate) shape: Vec<usize>,
    /// First byte in the file.
    start: u64,
}

/// All tensors of a model's files.
pub(crate) struct Shards {
    files: Vec<(PathBuf, File)>,
    tensors: BTreeMap<String, Place>,
    /// What names the tensors: the one weights file, or the index.
    pub(crate) source: PathBuf,
    /// Bytes of all tensors.
    pub(crate) bytes: u64,
}

/// Reads a JSON file of a model folder.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(
    path: &Path,
    what: &'static str,
) -> Result<T, HfError> {
    let json = |why: String| HfError::Json { path: path.to_owned(), what, why };
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(&read_bounded(path, what)?))
        .map_err(|error| json(error.to_string()))
}

/// The bytes of a JSON file of a model folder.
pub(crate) fn read_bounded(path: &Path, what: &'static str) -> Result<Vec<u8>, HfError> {
    skipstone_files::read(path, JSON_MAX).map_err(|source| match source.kind() {
        std::io::ErrorKind::FileTooLarge => {
            HfError::Json { path: path.to_owned(), what, why: source.to_string() }
        }
        _ => HfError::read(path)(source),
    })
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    /// Opens `model.safetensors`, or the files of `model.safetensors.index.json`.
    pub(crate) fn open(dir: &Path) -> Result<Self, HfError> {
        let single = dir.join("model.safetensors");
        let index = dir.join("model.safetensors.index.json");
        if single.is_file() {
            let mut shards = Self::empty(single.clone());
            shards.add(&single, |_| true)?;
            return Ok(shards);
        }
        if !index.is_file() {
            let why = "it has no model.safetensors nor an index of shards; weights in another format are not \
                       read: convert them with `model.save_pretrained(DIR)` of transformers";
            return Err(HfError::Unsupported { path: dir.to_owned(), why: why.to_owned() });
        }
        let map: Index = read_json(&index, "index of weights")?;
        let damaged = |why: String| HfError::Damaged { path: index.clone(), why };
        let mut files: Vec<&String> = map.weight_map.values().collect();
        files.sort_unstable();
        files.dedup();
        if files.len() > SHARDS_MAX {
            return Err(damaged(format!("it names {} files; at most {SHARDS_MAX} are read", files.len())));
        }
        let mut shards = Self::empty(index.clone());
        for name in files {
            if Path::new(name).file_name().is_none_or(|plain| plain != name.as_str()) {
                return Err(damaged(format!("it names `{name}`, which is not a file of its folder")));
            }
            shards.add(&dir.join(name), |tensor| map.weight_map.get(tensor) == Some(name))?;
        }
        Ok(shards)
    }

    fn empty(source: PathBuf) -> Self {
        Self { files: Vec::new(), tensors: BTreeMap::new(), source, bytes: 0 }
    }

    /// Reads a file's header and takes the tensors that `wanted` names.
    fn add(&mut self, path: &Path, wanted: impl Fn(&str) -> bool) -> Result<(), HfError> {
        let damaged = |why: String| HfError::Damaged { path: path.to_owned(), why };
        let mut file = File::open(path).map_err(HfError::read(path))?;
        let length = file.metadata().map_err(HfError::read(path))?.len();
        if length < 8 {
            return Err(damaged(format!("it has {length} bytes, too few for a safetensors header")));
        }
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(HfError::read(path))?;
        let size = u64::from_le_bytes(size);
        if size > HEADER_MAX {
            return Err(damaged(format!(
                "its header claims {size} bytes, above the bound of {HEADER_MAX}; this is no safetensors file"
            )));
        }
        if size > length - 8 {
            return Err(damaged(format!("its header claims {size} bytes, but the file has {length}")));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(HfError::read(path))?;
        // Checks that tensors lie one after the other and are as long as their shapes say.
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| damaged(format!("its header makes no sense ({error})")))?;
        let data = 8 + size;
        let end = data.saturating_add(metadata.data_len() as u64);
        if end != length {
            let short = if end > length { "shorter" } else { "longer" };
            return Err(damaged(format!(
                "the file is {short} than its header says ({length} instead of {end} bytes)"
            )));
        }
        self.bytes += metadata.data_len() as u64;
        for (name, info) in metadata.tensors() {
            if wanted(&name) {
                let start = data + info.data_offsets.0 as u64;
                let place =
                    Place { file: self.files.len(), dtype: info.dtype, shape: info.shape.clone(), start };
                self.tensors.insert(name, place);
            }
        }
        self.files.push((path.to_owned(), file));
        Ok(())
    }

    /// The tensor of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Place> {
        self.tensors.get(name)
    }

    /// All names, sorted.
    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = &String> {
        self.tensors.keys()
    }

    /// The file that holds a tensor.
    pub(crate) fn path(&self, place: &Place) -> &Path {
        &self.files[place.file].0
    }

    /// Reads a tensor as `f32`; `out` has as many values as it.
    pub(crate) fn read(&mut self, name: &str, place: &Place, out: &mut [f32]) -> Result<(), HfError> {
        let (path, file) = &mut self.files[place.file];
        let (width, convert): (usize, fn(&[u8]) -> f32) = match place.dtype {
            Dtype::F32 => (4, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Dtype::BF16 => (2, |b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16)),
            Dtype::F16 => (2, |b| half_to_f32(u16::from_le_bytes([b[0], b[1]]))),
            other => {
                let why = format!(
                    "tensor `{name}` is of type {other:?}, but F32, F16 and BF16 are read; save the model in one \
                     of them (a quantised model has to be dequantised first)"
                );
                return Err(HfError::Unsupported { path: path.clone(), why });
            }
        };
        file.seek(SeekFrom::Start(place.start)).map_err(HfError::read(path))?;
        let mut bytes = vec![0; width * CHUNK.min(out.len())];
        for chunk in out.chunks_mut(CHUNK) {
            let bytes = &mut bytes[..width * chunk.len()];
            file.read_exact(bytes).map_err(HfError::read(path))?;
            for (x, b) in chunk.iter_mut().zip(bytes.chunks_exact(width)) {
                *x = convert(b);
            }
        }
        if out.iter().all(|x| x.is_finite()) {
            return Ok(());
        }
        Err(HfError::Damaged {
            path: path.clone(),
            why: format!("tensor `{name}` holds values that are not finite numbers"),
        })
    }
}

/// IEEE half precision, exactly.
fn half_to_f32(h: u16) -> f32 {
    let sign = u32::from(h & 0x8000) << 16;
    let exponent = u32::from(h >> 10 & 0x1f);
    let mantissa = u32::from(h & 0x3ff);
    let magnitude = match exponent {
        0 => (mantissa as f32 * f32::from_bits(0x3380_0000)).to_bits(), // subnormal: multiples of 2⁻²⁴
        31 => 0x7f80_0000 | mantissa << 13,
        e => (e + 112) << 23 | mantissa << 13,
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::half_to_f32;

    #[test]
    fn halves() {
        let known = [(0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65504.0), (0x0001, 5.960_464_5e-8)];
        for (bits, want) in known {
            assert_eq!(half_to_f32(bits), want);
        }
        assert_eq!(half_to_f32(0x0400), 6.103_515_6e-5);
        assert!(half_to_f32(0x8000).to_bits() == (-0.0f32).to_bits());
        assert!(half_to_f32(0x7c00).is_infinite() && half_to_f32(0x7e01).is_nan());
    }
}
