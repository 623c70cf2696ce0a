//! A connection from `Up` to `Down`.

use super::{
    link::{Close, Link},
    receive::receive,
    shared::Shared,
    transmit::transmit,
    transmit_shaped::transmit_shaped,
};
use crate::NetEvent;
use std::{io, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    sync::Mutex,
    task::JoinHandle,
    time::{self, MissedTickBehavior},
};

/// After sending has failed, what had already arrived is still read, for at most this long.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Takes `link` out of the table and wakes those who wait for its end, whatever happens.
struct Cleanup<'a> {
    shared: &'a Shared,
    link: &'a Link,
}

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        self.shared.table.remove(self.link);
        self.link.set_ended();
    }
}

/// Tells `Up`, moves frames, tells `Down`. `preamble` is sent before the first record.
pub(crate) async fn run_link(
    shared: Arc<Shared>,
    link: Arc<Link>,
    turn: Arc<Mutex<()>>,
    stream: TcpStream,
    preamble: Vec<u8>,
    address: String,
) {
    let peer = link.peer();
    {
        let cleanup = Cleanup { shared: &shared, link: &link };
        // The connection that this one replaces has its last word first.
        let _guard = turn.lock().await;
        if !link.is_closing() {
            link.heard();
            shared.emit(NetEvent::Up { peer, connection: link.connection, address });
            let why = carry(&shared, &link, stream, preamble).await;
            shared.table.remove(&link);
            shared.emit(NetEvent::Down { peer, connection: link.connection, why });
        }
        drop(cleanup);
    }
    drop(turn);
    shared.table.tidy(peer);
}

/// Moves frames both ways; says why it ended.
async fn carry(shared: &Arc<Shared>, link: &Arc<Link>, stream: TcpStream, preamble: Vec<u8>) -> String {
    let (read, write) = stream.into_split();
    let config = &shared.config;
    let (for_writing, writes) = (link.clone(), shared.clone());
    let shape = shared.shape(link.peer());
    let mut writing = AbortOnDrop(tokio::spawn(async move {
        match shape {
            None => transmit(write, &for_writing, &preamble, &writes).await,
            Some(shape) => transmit_shaped(write, &for_writing, &preamble, shape, &writes).await,
        }
    }));
    let mut reading = pin!(receive(read, link, shared));
    let mut check = time::interval((config.silence_limit / 4).max(Duration::from_millis(1)));
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            why = &mut reading => {
                // On a long link the end of a peer is not known at once either.
                if let Some(shape) = shape {
                    tokio::select! {
                        () = time::sleep(shape.latency) => {}
                        _ = link.closing() => {}
                    }
                }
                return why;
            }
            how = link.closing() => {
                let why = match how {
                    Close::Graceful(why) => why,
                    Close::Now(why) => return why.to_owned(),
                };
                link.work.notify_one();
                // The other end closes when it has read our goodbye; closing earlier could cost it frames.
                let linger = config.linger + shape.map_or(Duration::ZERO, |shape| shape.latency * 2);
                let draining = time::timeout(linger, &mut reading);
                tokio::select! {
                    _ = draining => return why.to_owned(),
                    why = link.closing_now() => return why.to_owned(),
                }
            }
            end = &mut writing.0 => {
                let why = sending_failed(end);
                return time::timeout(LAST_WORDS, &mut reading).await.unwrap_or(why);
            }
            _ = check.tick() => {
                let silence = link.silence();
                if silence > config.silence_limit {
                    return format!("nothing came from it for {:.1} s", silence.as_secs_f64());
                }
            }
        }
    }
}

fn sending_failed(end: Result<io::Result<()>, tokio::task::JoinError>) -> String {
    match end {
        Ok(Ok(())) => "closed by this end".to_owned(),
        Ok(Err(error)) => format!("sending failed: {error}"),
        Err(error) => format!("the sending task ended: {error}"),
    }
}

/// A task that ends with its owner.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
