//! Strangers at a run's door: `flood ADDRESS CONNECTIONS`, ADDRESS as in `iroh:KEY,WAY,…` (the `coordinator` that a run
//! that listens prints into its log, or a ticket's). Some send garbage, some ask for what they may not have, some
//! show a forged ticket. Says how many were turned away, and how long it took.

use skipstone_net::{EndpointKey, Reach, Relays, RequestError, Requester};
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Connections at once.
const AT_ONCE: usize = 40;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "flood ADDRESS CONNECTIONS";
    let address: Reach = arguments.next().ok_or(usage)?.parse()?;
    let count: usize = arguments.next().ok_or(usage)?.parse()?;
    let host = address.internet.ok_or("the address has no iroh part")?;
    let (next, refused, dead) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < count {
                    let number = next.load(Ordering::Relaxed);
                    let counter = match knock(&host, number % 3) {
                        Ok(()) => &refused,
                        Err(_) => &dead,
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let (refused, dead) = (refused.into_inner(), dead.into_inner());
    println!("{refused} turned away, {dead} not heard, in {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// One stranger; fine if it was turned away.
fn knock(host: &skipstone_net::InternetReach, kind: usize) -> Result<(), Box<dyn Error>> {
    let requester = Requester::open(EndpointKey::generate(), Relays::None)?;
    let question: &[u8] = match kind {
        0 => b"{\"Read\":{\"path\":\"data/tokens.bin\",\"offset\":0}}",
        1 => b"\x00\xff\xfe garbage",
        _ => b"{\"Join\":{\"ticket\":\"skipstone1aa\",\"version\":\"0\",\"wire\":8,\"workers\":[]}}",
    };
    if kind == 1 {
        // Whoever says nothing for a while is in the way of others for as long.
        std::thread::sleep(Duration::from_millis(100));
    }
    match requester.ask(host, question, &[]) {
        Err(RequestError::Refused(_)) => Ok(()),
        Err(why) => Err(why.into()),
        Ok(_) => Err("it was let in".into()),
    }
}
