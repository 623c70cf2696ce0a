//! `data.json` of a run.

#![no_main]

skipstone_fuzz::target!("data_facts");
