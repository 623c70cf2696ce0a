//! `events.jsonl` of a run, with its report.

#![no_main]

skipstone_fuzz::target!("events");
