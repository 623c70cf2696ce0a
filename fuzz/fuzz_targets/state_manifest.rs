//! `state.json` of a run.

#![no_main]

skipstone_fuzz::target!("state_manifest");
