//! The ticket of `skipstone join`.

#![no_main]

skipstone_fuzz::target!("ticket");
