//! Records of a peer, put together to frames.

#![no_main]

skipstone_fuzz::target!("frames");
