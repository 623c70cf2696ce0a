//! Text to train on.

#![no_main]

skipstone_fuzz::target!("corpus");
