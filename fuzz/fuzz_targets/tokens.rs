//! `tokens.bin` of a run.

#![no_main]

skipstone_fuzz::target!("tokens");
