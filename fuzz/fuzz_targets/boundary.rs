//! Activations and gradients in fewer bytes.

#![no_main]

skipstone_fuzz::target!("boundary");
