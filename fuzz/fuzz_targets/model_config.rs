//! A model's `config.json`.

#![no_main]

skipstone_fuzz::target!("model_config");
