//! What waits to be sent to one peer.

use crate::{Frame, LaneLimits, PeerId, Priority, SendError};
use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Two bounded lanes of frames; the control lane always goes first. Frames count against the bound until they
/// have been written.
#[derive(Debug)]
pub(crate) struct SendQueue {
    limits: [LaneLimits; 2],
    lanes: Mutex<[Lane; 2]>,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Frame>,
    /// Bytes of the first frame's payload that have been handed out.
    offset: usize,
    frames: usize,
    bytes: usize,
}

/// A frame or a part of it that is to be written now.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) lane: Priority,
    pub(crate) frame: Frame,
    pub(crate) range: Range<usize>,
}

impl Piece {
    pub(crate) fn is_first(&self) -> bool {
        self.range.start == 0
    }

    fn is_last(&self) -> bool {
        self.range.end == self.frame.payload.len()
    }

    /// This piece of the payload.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.frame.payload.as_bytes()[self.range.clone()]
    }
}

impl SendQueue {
    pub(crate) fn new(control: LaneLimits, bulk: LaneLimits) -> Self {
        Self { limits: [control, bulk], lanes: Mutex::default() }
    }

    fn lanes(&self) -> MutexGuard<'_, [Lane; 2]> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a frame if its lane has room.
    pub(crate) fn push(&self, peer: PeerId, frame: Frame, lane: Priority) -> Result<(), SendError> {
        let limits = self.limits[lane.index()];
        let mut lanes = self.lanes();
        let lane = &mut lanes[lane.index()];
        let length = frame.len();
        if lane.frames >= limits.frames || (lane.frames > 0 && lane.bytes + length > limits.bytes) {
            return Err(SendError::QueueFull { peer, frames: lane.frames, bytes: lane.bytes });
        }
        lane.frames += 1;
        lane.bytes += length;
        lane.waiting.push_back(frame);
        Ok(())
    }

    /// The next piece of the lanes `of`, at most `chunk` bytes of payload.
    pub(crate) fn pop(&self, of: &[Priority], chunk: usize) -> Option<Piece> {
        let mut lanes = self.lanes();
        let priority = of.iter().copied().find(|p| !lanes[p.index()].waiting.is_empty())?;
        let lane = &mut lanes[priority.index()];
        let length = lane.waiting.front()?.payload.len();
        let range = lane.offset..length.min(lane.offset.saturating_add(chunk));
        let frame = if range.end == length {
            lane.offset = 0;
            lane.waiting.pop_front()?
        } else {
            lane.offset = range.end;
            lane.waiting.front()?.clone()
        };
        Some(Piece { lane: priority, frame, range })
    }

    /// A piece has been written: the last one of a frame makes room for others.
    pub(crate) fn written(&self, piece: &Piece) {
        if piece.is_last() {
            let lane = &mut self.lanes()[piece.lane.index()];
            lane.frames -= 1;
            lane.bytes -= piece.frame.len();
        }
    }

    /// Frames of a lane that haven't been written yet.
    pub(crate) fn frames(&self, lane: Priority) -> usize {
        self.lanes()[lane.index()].frames
    }

    /// Whether nothing waits to be handed out in the lanes `of`.
    pub(crate) fn is_empty(&self, of: &[Priority]) -> bool {
        let lanes = self.lanes();
        of.iter().all(|lane| lanes[lane.index()].waiting.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Payload;
    use std::sync::Arc;

    const LIMITS: LaneLimits = LaneLimits { frames: 3, bytes: 100 };

    fn frame(tag: u8, floats: usize) -> Frame {
        Frame::tensor(vec![tag], Arc::new(vec![f32::from(tag); floats]))
    }

    #[test]
    fn control_overtakes_between_pieces() {
        let queue = SendQueue::new(LIMITS, LIMITS);
        queue.push(PeerId(1), frame(1, 20), Priority::Bulk).unwrap();
        let first = queue.pop(&Priority::ALL, 32).unwrap();
        assert_eq!((first.range.clone(), first.is_first(), first.is_last()), (0..32, true, false));
        queue.push(PeerId(1), frame(2, 0), Priority::Control).unwrap();
        let urgent = queue.pop(&Priority::ALL, 32).unwrap();
        assert_eq!((urgent.lane, urgent.range.clone(), urgent.is_last()), (Priority::Control, 0..0, true));
        assert_eq!(queue.pop(&Priority::ALL, 32).unwrap().range, 32..64);
        let last = queue.pop(&Priority::ALL, 32).unwrap();
        assert_eq!((last.range.clone(), last.is_last()), (64..80, true));
        assert!(queue.pop(&Priority::ALL, 32).is_none());
    }

    #[test]
    fn bounded_until_written() {
        let queue = SendQueue::new(LIMITS, LIMITS);
        let push = |floats| queue.push(PeerId(1), frame(1, floats), Priority::Bulk);
        push(200).expect("a frame above the bound is taken when nothing else waits");
        assert!(matches!(push(0), Err(SendError::QueueFull { frames: 1, bytes: 801, .. })));
        let piece = queue.pop(&Priority::ALL, usize::MAX).unwrap();
        assert!(push(0).is_err(), "handed out isn't written");
        queue.push(PeerId(1), frame(9, 0), Priority::Control).expect("lanes are bounded apart");
        queue.written(&piece);
        for _ in 0..3 {
            push(0).unwrap();
        }
        assert!(matches!(push(0), Err(SendError::QueueFull { frames: 3, bytes: 3, .. })));
        assert!(matches!(
            queue.pop(&Priority::ALL, 9).unwrap().frame.payload,
            Payload::Empty | Payload::F32(_)
        ));
    }
}
