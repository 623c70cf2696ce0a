//! A model's `model.safetensors`.

#![no_main]

skipstone_fuzz::target!("weights");
