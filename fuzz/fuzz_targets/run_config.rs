//! `run.toml`.

#![no_main]

skipstone_fuzz::target!("run_config");
