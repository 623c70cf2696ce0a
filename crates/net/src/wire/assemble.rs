//! Records back into frames.

use super::{HEAD_LEN, Head, Kind, Limits, PayloadKind, WireError, body_sum};
use crate::{Frame, Payload, Priority};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What a record brought.
#[derive(Debug, PartialEq)]
pub enum Incoming {
    /// A piece of a frame that isn't complete yet.
    Piece,
    /// The last piece of a frame, and how long it took from the first byte of its first.
    Frame(Priority, Frame, Duration),
    /// A heartbeat to be answered with the same number.
    Ping(u64),
    /// The answer to ours.
    Pong(u64),
    /// Nothing more will come.
    Goodbye,
}

/// Reads one direction of a connection. Payloads are read from the stream into the vector in which they are
/// handed out. Memory is taken only for lengths that have been checked, at most one frame a lane.
#[derive(Debug)]
pub struct Assembler {
    limits: Limits,
    seed: u64,
    sequence: u64,
    unfinished: [Option<Unfinished>; 2],
}

/// A frame of which pieces are missing.
#[derive(Debug)]
struct Unfinished {
    header: Bytes,
    buffer: Buffer,
    filled: usize,
    began: Instant,
}

#[derive(Debug)]
enum Buffer {
    Empty,
    F32(Vec<f32>),
    Bytes(Vec<u8>),
}

impl Buffer {
    fn new(kind: PayloadKind, bytes: usize) -> Self {
        match kind {
            PayloadKind::Empty => Self::Empty,
            PayloadKind::F32 => Self::F32(vec![0.0; bytes / 4]),
            PayloadKind::Bytes => Self::Bytes(vec![0; bytes]),
        }
    }

    fn kind(&self) -> PayloadKind {
        match self {
            Self::Empty => PayloadKind::Empty,
            Self::F32(_) => PayloadKind::F32,
            Self::Bytes(_) => PayloadKind::Bytes,
        }
    }

    fn as_bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Empty => &mut [],
            Self::F32(values) => bytemuck::cast_slice_mut(values),
            Self::Bytes(bytes) => bytes,
        }
    }

    fn finish(self) -> Payload {
        match self {
            Self::Empty => Payload::Empty,
            Self::F32(values) => Payload::F32(Arc::new(values)),
            Self::Bytes(bytes) => Payload::Bytes(bytes.into()),
        }
    }
}

impl Assembler {
    /// For a connection on which nothing has been received yet.
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self { limits, seed, sequence: 0, unfinished: [None, None] }
    }

    /// Reads one record. After an error, or if the future is dropped, the stream can't be read any further.
    pub async fn read<R: AsyncRead + Unpin>(&mut self, stream: &mut R) -> Result<Incoming, WireError> {
        let mut bytes = [0; HEAD_LEN];
        if stream.read(&mut bytes[..1]).await.map_err(WireError::io)? == 0 {
            let within = self.unfinished.iter().any(Option::is_some);
            return Err(if within { WireError::Truncated } else { WireError::Closed });
        }
        let began = Instant::now();
        stream.read_exact(&mut bytes[1..]).await.map_err(WireError::io)?;
        let head = Head::decode(&bytes, self.seed, self.limits)?;
        if head.sequence != self.sequence {
            return Err(WireError::OutOfOrder { expected: self.sequence, got: head.sequence });
        }
        self.sequence += 1;
        match head.kind {
            Kind::Ping(token) => Ok(Incoming::Ping(token)),
            Kind::Pong(token) => Ok(Incoming::Pong(token)),
            Kind::Goodbye => Ok(Incoming::Goodbye),
            Kind::First => {
                if self.unfinished[head.lane.index()].is_some() {
                    return Err(WireError::Malformed("a frame begins before the lane's last one has ended"));
                }
                let mut header = vec![0; head.header_len as usize];
                stream.read_exact(&mut header).await.map_err(WireError::io)?;
                let buffer = Buffer::new(head.payload_kind, head.payload_len as usize);
                let frame = Unfinished { header: header.into(), buffer, filled: 0, began };
                self.fill(&head, frame, stream).await
            }
            Kind::More => {
                let Some(frame) = self.unfinished[head.lane.index()].take() else {
                    return Err(WireError::Malformed("a piece of a frame that hasn't begun"));
                };
                self.fill(&head, frame, stream).await
            }
        }
    }

    /// Reads the record's piece into `frame`.
    async fn fill<R: AsyncRead + Unpin>(
        &mut self,
        head: &Head,
        mut frame: Unfinished,
        stream: &mut R,
    ) -> Result<Incoming, WireError> {
        let kind = frame.buffer.kind();
        let target = frame.buffer.as_bytes_mut();
        if head.payload_len != target.len() as u64 || head.payload_kind != kind {
            return Err(WireError::Malformed("a piece of another payload"));
        }
        if head.kind == Kind::More && head.header_len != 0 {
            return Err(WireError::Malformed("a second header"));
        }
        let end = frame.filled + head.chunk_len as usize;
        let Some(piece) = target.get_mut(frame.filled..end) else {
            return Err(WireError::Malformed("more pieces than payload"));
        };
        stream.read_exact(piece).await.map_err(WireError::io)?;
        let header: &[u8] = if head.kind == Kind::First { &frame.header } else { &[] };
        if body_sum(header, piece, self.seed) != head.body_sum {
            return Err(WireError::CorruptBody);
        }
        frame.filled = end;
        if (frame.filled as u64) < head.payload_len {
            self.unfinished[head.lane.index()] = Some(frame);
            return Ok(Incoming::Piece);
        }
        let receiving = frame.began.elapsed();
        let frame = Frame { header: frame.header, payload: frame.buffer.finish() };
        Ok(Incoming::Frame(head.lane, frame, receiving))
    }
}
