//! The planner's plan, with its check and evaluation.

#![no_main]

skipstone_fuzz::target!("plan");
