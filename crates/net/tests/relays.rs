//! Peers of two machines whose relays don't answer: one that refuses, and one that takes connections and stays silent.
#![cfg(feature = "iroh")]
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{World, config};
use skipstone_net::{Door, EndpointKey, Reach, Relays};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Half of what is waited for a relay at least, wherever one is waited for.
const AT_ONCE: Duration = Duration::from_secs(5);

#[test]
fn who_can_be_reached_directly_does_not_wait_for_relays() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent_url = format!("http://{}/", silent.local_addr().unwrap());
    let refusing_url = format!("http://{refusing}/");
    let both = vec![refusing_url.clone(), silent_url.clone()];
    // The public ones may answer where this runs, or not.
    for relays in
        [Relays::Own(vec![refusing_url]), Relays::Own(vec![silent_url]), Relays::Own(both), Relays::Public]
    {
        let start = Instant::now();
        let [mut a, mut b] = [1, 2].map(|id| {
            let mut config = config(id);
            config.door = Some(Door::new(EndpointKey::generate(), relays.clone()));
            World::Iroh.peer_at(config, "127.0.0.1:0")
        });
        let reach: Reach = a.net.local_address().parse().unwrap();
        let ways = reach.internet.unwrap().ways;
        assert!(ways.iter().any(|way| way.starts_with("relay:")), "it may come to be found there: {ways:?}");
        b.dial(&a);
        let connection = b.wait_up(a.id);
        a.wait_up(b.id);
        assert!(start.elapsed() < AT_ONCE, "{relays}: {:?}", start.elapsed());

        // Nor where the connection is made again.
        let again = Instant::now();
        a.net.disconnect(b.id);
        b.wait_down(a.id);
        assert!(b.wait_up(a.id) > connection);
        assert!(again.elapsed() < AT_ONCE, "{relays}: again after {:?}", again.elapsed());
    }
}
