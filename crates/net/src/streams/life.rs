//! A connection from `Up` to `Down`.

use super::{
    duct::{Duct, Ducts, Writer, bulk_seeds, control_lanes},
    link::{Close, Link},
    receive::{Ended, receive},
    settle::Settled,
    shared::Shared,
    transmit::{Encoder, transmit},
    transmit_shaped::transmit_shaped,
};
use crate::{LinkShape, NetEvent, PeerKey, Priority, wire::Kind};
use std::{io, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::AsyncWriteExt,
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

/// Where the other end of a connection is.
pub(crate) struct Origin {
    pub(crate) address: String,
    pub(crate) key: Option<PeerKey>,
}

/// Tells `Up`, moves frames, tells `Down`.
pub(crate) async fn run_link(shared: Arc<Shared>, settled: Settled, ducts: Ducts, origin: Origin) {
    let Settled { link, turn, preamble } = settled;
    let Origin { address, key } = origin;
    let peer = link.peer();
    {
        let cleanup = Cleanup { shared: &shared, link: &link };
        // The connection that this one replaces has its last word first.
        let _guard = turn.lock().await;
        if !link.is_closing() {
            link.heard();
            shared.emit(NetEvent::Up { peer, connection: link.connection, address, key });
            let why = carry(&shared, &link, ducts, preamble).await;
            shared.table.remove(&link);
            shared.emit(NetEvent::Down { peer, connection: link.connection, why });
        }
        drop(cleanup);
    }
    drop(turn);
    shared.table.tidy(peer);
}

/// Moves frames both ways; says why it ended.
async fn carry(shared: &Arc<Shared>, link: &Arc<Link>, ducts: Ducts, preamble: Vec<u8>) -> String {
    let Ducts { control, bulk, _keep } = ducts;
    let config = &shared.config;
    let shape = shared.shape(link.peer());
    let (bulk_read, bulk_write) = bulk.map(|Duct { read, write }| (read, write)).unzip();
    let mut writing = AbortOnDrop(tokio::spawn(write_all(
        shared.clone(),
        link.clone(),
        control.write,
        bulk_write,
        preamble,
        shape,
    )));
    let seeds = link.who.seeds;
    let mut reading = pin!(async {
        let control = receive(control.read, seeds.incoming, link, shared);
        match bulk_read {
            None => control.await,
            Some(read) => both(control, receive(read, bulk_seeds(seeds).incoming, link, shared)).await,
        }
    });
    let mut check = time::interval((config.silence_limit / 4).max(Duration::from_millis(1)));
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            why = &mut reading => {
                // On a long link the end of a peer is not known at once either.
                if let Some(shape) = shape {
                    tokio::select! {
                        () = time::sleep(shape.latency_back()) => {}
                        _ = link.closing() => {}
                    }
                }
                return told(why);
            }
            how = link.closing() => {
                let why = match how {
                    Close::Graceful(why) => why,
                    Close::Now(why) => return why.to_owned(),
                };
                Priority::ALL.into_iter().for_each(|lane| link.wake(lane));
                // The other end closes when it has read our goodbye; closing earlier could cost it frames.
                let linger = config.linger + shape.map_or(Duration::ZERO, |shape| shape.round_trip);
                let draining = time::timeout(linger, &mut reading);
                tokio::select! {
                    _ = draining => return why.to_owned(),
                    why = link.closing_now() => return why.to_owned(),
                }
            }
            end = &mut writing.0 => {
                let why = sending_failed(end);
                return time::timeout(LAST_WORDS, &mut reading).await.map_or(why, told);
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

/// Writes until the link is closing and everything has been written.
async fn write_all(
    shared: Arc<Shared>,
    link: Arc<Link>,
    control: Writer,
    bulk: Option<Writer>,
    preamble: Vec<u8>,
    shape: Option<LinkShape>,
) -> io::Result<()> {
    let seeds = link.who.seeds;
    let bulk_seed = bulk_seeds(seeds).outgoing;
    match (shape, bulk) {
        (None, None) => {
            transmit(control, &link, &preamble, control_lanes(false), seeds.outgoing, &shared).await
        }
        (None, Some(bulk)) => tokio::try_join!(
            transmit(control, &link, &preamble, control_lanes(true), seeds.outgoing, &shared),
            transmit(bulk, &link, &[], &[Priority::Bulk], bulk_seed, &shared),
        )
        .map(drop),
        // A shaped link is one line, on which things wait for each other.
        (Some(shape), bulk) => {
            transmit_shaped(control, &link, &preamble, shape, &shared).await?;
            match bulk {
                None => Ok(()),
                Some(mut bulk) => {
                    let mut encoder = Encoder::new(&[], bulk_seed);
                    encoder.bare(Kind::Goodbye);
                    bulk.write_all(&encoder.out).await?;
                    bulk.shutdown().await
                }
            }
        }
    }
}

/// Reads two streams until both have said goodbye, or one is broken.
async fn both(first: impl Future<Output = Ended>, second: impl Future<Output = Ended>) -> Ended {
    let (mut first, mut second) = (pin!(first), pin!(second));
    tokio::select! {
        end = &mut first => match end {
            Ended::Goodbye => second.await,
            broken @ Ended::Broken(_) => broken,
        },
        end = &mut second => match end {
            Ended::Goodbye => first.await,
            broken @ Ended::Broken(_) => broken,
        },
    }
}

fn told(end: Ended) -> String {
    match end {
        Ended::Goodbye => "closed by the other end".to_owned(),
        Ended::Broken(why) => why,
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
