//! The index of a model's weights.

#![no_main]

skipstone_fuzz::target!("weights_index");
