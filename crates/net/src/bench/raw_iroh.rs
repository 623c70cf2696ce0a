//! A bare iroh stream between two endpoints.

use super::{BenchError, timed};
use crate::internet::{Door, EndpointKey, Relays, settle};
use iroh::{Endpoint, EndpointAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime;
use tokio::sync::mpsc;

/// Pieces of a payload, as transports write them.
const PIECE_BYTES: usize = 256 << 10;

/// Two endpoints with one thread each, as transports have.
pub(super) struct BarePair {
    near: (runtime::Runtime, Endpoint),
    far: (runtime::Runtime, Endpoint),
    address: EndpointAddr,
}

fn lost(why: impl std::fmt::Display) -> BenchError {
    BenchError::Lost(format!("bare iroh: {why}"))
}

impl BarePair {
    pub(super) fn new() -> Result<Self, BenchError> {
        let make = || -> Result<(runtime::Runtime, Endpoint), BenchError> {
            let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            let door = Door::new(EndpointKey::generate(), Relays::None);
            let endpoint = runtime.block_on(async {
                let endpoint = door.open().await?;
                settle(&endpoint).await;
                Ok::<_, BenchError>(endpoint)
            })?;
            Ok((runtime, endpoint))
        };
        let (near, far) = (make()?, make()?);
        let address = far.1.addr();
        Ok(Self { near, far, address })
    }

    /// Time to send `values` so many times, each received into a vector of its own and handed to another task.
    pub(super) fn throughput(&self, values: &Arc<Vec<f32>>, frames: usize) -> Result<Duration, BenchError> {
        let (accepting, count) = (self.far.1.clone(), values.len());
        let (hand_over, mut taken) = mpsc::unbounded_channel::<Vec<f32>>();
        let receiver = self.far.0.spawn(async move {
            let incoming = accepting.accept().await.ok_or_else(|| lost("closed"))?;
            let connection = incoming.await.map_err(lost)?;
            let (mut answer, mut stream) = connection.accept_bi().await.map_err(lost)?;
            for _ in 0..frames {
                let mut buffer = vec![0_f32; count];
                stream.read_exact(bytemuck::cast_slice_mut(&mut buffer)).await.map_err(lost)?;
                hand_over.send(buffer).map_err(lost)?;
            }
            answer.write_all(&[1]).await.map_err(lost)?;
            answer.finish().map_err(lost)?;
            drop(answer.stopped().await);
            Ok::<_, BenchError>(())
        });
        let (near, address, values) = (self.near.1.clone(), self.address.clone(), values.clone());
        let (ready, started) = std::sync::mpsc::channel();
        let sender = self.near.0.spawn(async move {
            let connection = near.connect(address, crate::internet::FRAMES).await.map_err(lost)?;
            let (mut stream, mut answer) = connection.open_bi().await.map_err(lost)?;
            let _ = ready.send(());
            for _ in 0..frames {
                for piece in bytemuck::cast_slice::<f32, u8>(&values).chunks(PIECE_BYTES) {
                    stream.write_all(piece).await.map_err(lost)?;
                }
            }
            answer.read_exact(&mut [0]).await.map_err(lost)?;
            Ok::<_, BenchError>(())
        });
        started.recv().map_err(lost)?;
        let time = timed(|| {
            for _ in 0..frames {
                std::hint::black_box(taken.blocking_recv().ok_or_else(|| lost("ended early"))?);
            }
            Ok::<_, BenchError>(())
        })?;
        self.near.0.block_on(sender).map_err(lost)??;
        self.far.0.block_on(receiver).map_err(lost)??;
        Ok(time)
    }
}
