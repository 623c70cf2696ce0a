//! `--churn`.

#![no_main]

skipstone_fuzz::target!("churn");
