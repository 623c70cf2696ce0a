//! The planner's instance.

#![no_main]

skipstone_fuzz::target!("instance");
