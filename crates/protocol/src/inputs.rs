//! A coordinator's inputs, recorded: bytes only; the driver writes the file.
//!
//! A coordinator is a function of its journal and its inputs, so both together make the same decisions again
//! ([`crate::Coordinator::open`], then [`crate::Coordinator::on`] for each). A file is a header (magic, version), then
//! frames: length, body. The first holds the [`Opening`], the others a time and an input each. A torn tail is dropped.

use crate::command::CoordinatorInput;
use crate::record::SavedState;
use serde::{Deserialize, Serialize};
use skipstone_types::{Settings, Term};
use thiserror::Error;

/// First bytes of a file of inputs: name and version.
pub(crate) const INPUTS_HEADER: &[u8; 12] = b"SKIPINPT\x08\0\0\0";

/// Largest frame, in bytes.
const FRAME_BYTES_MAX: usize = 32 << 20;

/// What a coordinator was opened with, beside its journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opening {
    /// Its term.
    pub term: Term,
    /// The run.
    pub settings: Settings,
    /// The state that it went back to.
    pub resume: Option<SavedState>,
}

/// Inputs in order, each with its time in microseconds.
pub type TimedInputs = Vec<(u64, CoordinatorInput)>;

/// Why recorded inputs can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InputsError {
    /// Not such a file, or of another version.
    #[error("not a file of recorded inputs of this version ({})", INPUTS_HEADER[8])]
    Header,
    /// A frame is not what this version writes.
    #[error("the recorded inputs are damaged at byte {0}")]
    Damaged(usize),
}

/// The first bytes of a file: header and opening.
pub fn encode_opening(opening: &Opening) -> Vec<u8> {
    let mut bytes = INPUTS_HEADER.to_vec();
    frame(&mut bytes, opening);
    bytes
}

/// The bytes that append an input, taken at a time in microseconds.
pub fn encode_input(now_us: u64, input: &CoordinatorInput) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame(&mut bytes, &(now_us, input));
    bytes
}

fn frame(bytes: &mut Vec<u8>, body: &impl Serialize) {
    // These hold only numbers, texts, vectors and options, which postcard always writes.
    let body = postcard::to_stdvec(body).unwrap_or_default();
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&body);
}

/// The opening, and the inputs in order, each with its time. `None` if not even the opening is whole.
///
/// # Errors
/// See [`InputsError`].
pub fn decode_inputs(bytes: &[u8]) -> Result<Option<(Opening, TimedInputs)>, InputsError> {
    let Some(start) = bytes.get(..INPUTS_HEADER.len()) else {
        return if INPUTS_HEADER.starts_with(bytes) { Ok(None) } else { Err(InputsError::Header) };
    };
    if start != INPUTS_HEADER {
        return Err(InputsError::Header);
    }
    let mut at = INPUTS_HEADER.len();
    let mut opening = None;
    let mut inputs = Vec::new();
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(InputsError::Damaged(at));
        }
        let Some(body) = bytes.get(at + 4..at + 4 + length) else { break };
        let end = at + 4 + length;
        let is_read = if opening.is_none() {
            opening = postcard::from_bytes::<Opening>(body).ok();
            opening.is_some()
        } else {
            let input = postcard::from_bytes(body).ok();
            let is_read = input.is_some();
            inputs.extend(input);
            is_read
        };
        if !is_read {
            // After a power cut zeros may stand where the last frames were to be written.
            let is_torn = bytes[at..end].ends_with(&[0]) && bytes[end..].iter().all(|byte| *byte == 0);
            if is_torn {
                break;
            }
            return Err(InputsError::Damaged(at));
        }
        at = end;
    }
    Ok(opening.map(|opening| (opening, inputs)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::settings;
    use crate::message::ToCoordinator;
    use skipstone_types::NodeId;

    fn opening() -> Opening {
        Opening { term: Term(3), settings: settings(), resume: None }
    }

    #[test]
    fn cut_anywhere_the_whole_frames_are_read() {
        let inputs = vec![
            (1, CoordinatorInput::Tick),
            (20, CoordinatorInput::Lost { node: NodeId(4), why: "silence".to_owned() }),
            (
                300,
                CoordinatorInput::Worker {
                    node: NodeId(4),
                    message: ToCoordinator::Broken { why: "a test".to_owned() },
                },
            ),
        ];
        let mut bytes = encode_opening(&opening());
        let first = bytes.len();
        inputs.iter().for_each(|(now_us, input)| bytes.extend(encode_input(*now_us, input)));
        assert_eq!(decode_inputs(&bytes), Ok(Some((opening(), inputs.clone()))));
        for end in 0..bytes.len() {
            match decode_inputs(&bytes[..end]).unwrap() {
                Some((_, got)) => assert!(end >= first && inputs.starts_with(&got), "cut at {end}"),
                None => assert!(end < first, "cut at {end}"),
            }
        }
        assert_eq!(decode_inputs(b"SKIPJRNL\x01\0\0\0"), Err(InputsError::Header));
        // A file system may have made the file longer before it wrote what belongs there.
        for whole in first..bytes.len() {
            let mut torn = bytes[..whole].to_vec();
            torn.resize(bytes.len() + 100, 0);
            let (_, got) = decode_inputs(&torn).unwrap().unwrap();
            // The frame that is torn may read as another input; all before it are whole.
            let whole_ones = got.len().saturating_sub(1);
            assert!(inputs.starts_with(&got[..whole_ones]), "zeros from {whole} on");
        }
        bytes[first + 3] = 0xff;
        assert_eq!(decode_inputs(&bytes), Err(InputsError::Damaged(first)));
    }
}
