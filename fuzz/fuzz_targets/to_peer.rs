//! Messages of a peer.

#![no_main]

skipstone_fuzz::target!("to_peer");
