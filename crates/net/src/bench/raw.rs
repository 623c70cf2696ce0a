//! Plain TCP between two threads.

use super::timed;
use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// Time to send `values` so many times, received into one buffer, or into a new vector each time, which is then
/// handed to another thread.
pub(super) fn throughput(values: &[f32], frames: usize, reuse: bool) -> io::Result<Duration> {
    let (mut near, mut far) = pair()?;
    thread::scope(|scope| {
        let (hand_over, taken) = mpsc::channel::<Vec<f32>>();
        let mut answer = far.try_clone()?;
        let receiver = scope.spawn(move || -> io::Result<()> {
            let mut buffer = Vec::new();
            for _ in 0..frames {
                buffer.resize(values.len(), 0f32);
                far.read_exact(bytemuck::cast_slice_mut(&mut buffer))?;
                std::hint::black_box(&buffer);
                if !reuse {
                    hand_over.send(std::mem::take(&mut buffer)).map_err(io::Error::other)?;
                }
            }
            Ok(())
        });
        // Ends when the receiver has.
        scope.spawn(move || {
            for tensor in taken {
                std::hint::black_box(&tensor);
            }
            answer.write_all(&[1])
        });
        let time = timed(|| {
            for _ in 0..frames {
                near.write_all(bytemuck::cast_slice(values))?;
            }
            near.read_exact(&mut [0])
        });
        receiver.join().unwrap_or_else(|_| Err(io::Error::other("the receiving thread panicked")))?;
        time
    })
}

/// 64 bytes there and back.
pub(super) fn round_trips(samples: usize) -> io::Result<Vec<Duration>> {
    let (mut near, mut far) = pair()?;
    thread::scope(|scope| {
        let echo = scope.spawn(move || -> io::Result<()> {
            let mut bytes = [0; 64];
            for _ in 0..samples {
                far.read_exact(&mut bytes)?;
                far.write_all(&bytes)?;
            }
            Ok(())
        });
        let mut times = Vec::with_capacity(samples);
        for _ in 0..samples {
            let start = Instant::now();
            near.write_all(&[7; 64])?;
            near.read_exact(&mut [0; 64])?;
            times.push(start.elapsed());
        }
        echo.join().unwrap_or_else(|_| Err(io::Error::other("the echoing thread panicked")))?;
        Ok(times)
    })
}
