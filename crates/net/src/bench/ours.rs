//! Two transports in this process, used as a driver uses them.

use super::{BenchError, timed};
use crate::{
    Frame, NetConfig, NetEvent, Payload, PeerId, Priority, RunSecret, SendError, StreamTransport, Transport,
    channel,
};
use std::{
    sync::{Arc, mpsc::Receiver},
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_mins(1);
const NEAR: PeerId = PeerId(1);
const FAR: PeerId = PeerId(2);

pub(super) struct Pair {
    near: StreamTransport,
    far: StreamTransport,
    near_events: Receiver<NetEvent>,
    far_events: Receiver<NetEvent>,
}

impl Pair {
    /// Over loopback TCP.
    pub(super) fn new() -> Result<Self, BenchError> {
        Self::make(|_| {})
    }

    /// As if each were on a machine of its own.
    #[cfg(feature = "iroh")]
    pub(super) fn between_machines() -> Result<Self, BenchError> {
        use crate::internet::{Door, EndpointKey, Relays};
        Self::make(|config| {
            config.machine = config.id.0;
            config.door = Some(Door::new(EndpointKey::generate(), Relays::None));
        })
    }

    fn make(adapt: impl Fn(&mut NetConfig)) -> Result<Self, BenchError> {
        let secret = RunSecret::generate();
        let make = |id| {
            let (sink, events) = channel();
            let mut config = NetConfig::new(id, 0, secret.clone());
            adapt(&mut config);
            StreamTransport::bind(config, "127.0.0.1:0", sink).map(|net| (net, events))
        };
        let (near, mut near_events) = make(NEAR)?;
        let (far, mut far_events) = make(FAR)?;
        near.connect(FAR, &far.local_address());
        for events in [&mut near_events, &mut far_events] {
            wait(events, |event| matches!(event, NetEvent::Up { .. }).then_some(()))?;
        }
        Ok(Self { near, far, near_events, far_events })
    }

    /// Time from the first send until the last of so many frames has been taken by the other driver.
    pub(super) fn throughput(
        &mut self,
        values: &Arc<Vec<f32>>,
        frames: usize,
    ) -> Result<Duration, BenchError> {
        let Self { near, far_events, .. } = self;
        thread::scope(|scope| {
            let sender = scope.spawn(|| {
                for _ in 0..frames {
                    push(near, &Frame::tensor(&b"tensor"[..], values.clone()))?;
                }
                Ok::<(), BenchError>(())
            });
            let time = timed(|| {
                for _ in 0..frames {
                    let payload = wait(far_events, |event| match event {
                        NetEvent::Frame { frame, .. } => Some(frame.payload),
                        _ => None,
                    })?;
                    match payload {
                        Payload::F32(got) if got.len() == values.len() => {}
                        _ => return Err(BenchError::Lost("a wrong payload arrived".to_owned())),
                    }
                }
                Ok(())
            });
            sender.join().unwrap_or_else(|_| Err(BenchError::Lost("the sender panicked".to_owned())))?;
            time
        })
    }

    /// A control frame there and back, so many times; the far driver answers from its own thread.
    pub(super) fn round_trips(
        &mut self,
        samples: usize,
        load: Option<&Arc<Vec<f32>>>,
    ) -> Result<Vec<Duration>, BenchError> {
        let message = Frame::message(vec![7; 64]);
        let Self { near, far, near_events, far_events } = self;
        thread::scope(|scope| {
            let echo = scope.spawn(|| {
                let mut left = samples;
                while left > 0 {
                    let frame = wait(far_events, |event| match event {
                        NetEvent::Frame { frame, .. } => Some(frame),
                        _ => None,
                    })?;
                    if frame.payload == Payload::Empty {
                        left -= 1;
                        send(far, NEAR, frame, Priority::Control)?;
                    }
                }
                Ok::<(), BenchError>(())
            });
            let mut times = Vec::with_capacity(samples);
            for _ in 0..samples {
                if let Some(values) = load {
                    // Three frames ahead keep the connection busy.
                    while near.waiting(FAR) < 3 {
                        push(near, &Frame::tensor(&b"load"[..], values.clone()))?;
                    }
                }
                let start = Instant::now();
                send(near, FAR, message.clone(), Priority::Control)?;
                wait(near_events, |event| matches!(event, NetEvent::Frame { .. }).then_some(()))?;
                times.push(start.elapsed());
            }
            echo.join().unwrap_or_else(|_| Err(BenchError::Lost("the echo panicked".to_owned())))?;
            Ok(times)
        })
    }
}

/// Queues a bulk frame, waiting while the queue is full.
fn push(net: &StreamTransport, frame: &Frame) -> Result<(), BenchError> {
    loop {
        match net.send(FAR, frame.clone(), Priority::Bulk) {
            Err(SendError::QueueFull { .. }) => thread::sleep(Duration::from_millis(2)),
            other => return other.map_err(|error| BenchError::Lost(error.to_string())),
        }
    }
}

fn send(net: &StreamTransport, to: PeerId, frame: Frame, priority: Priority) -> Result<(), BenchError> {
    net.send(to, frame, priority).map_err(|error| BenchError::Lost(error.to_string()))
}

/// Skips events until one is picked.
fn wait<T>(
    events: &mut Receiver<NetEvent>,
    mut pick: impl FnMut(NetEvent) -> Option<T>,
) -> Result<T, BenchError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = events
            .recv_timeout(left)
            .map_err(|_| BenchError::Lost("nothing came for a minute".to_owned()))?;
        if let NetEvent::Down { why, .. } = event {
            return Err(BenchError::Lost(why));
        }
        if let Some(picked) = pick(event) {
            return Ok(picked);
        }
    }
}
