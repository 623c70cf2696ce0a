//! What a machine asks of a run that listens.

#![no_main]

skipstone_fuzz::target!("question");
