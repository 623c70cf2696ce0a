//! A saved stage.

#![no_main]

skipstone_fuzz::target!("stage_file");
