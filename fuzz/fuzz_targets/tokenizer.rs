//! `tokenizer.json`.

#![no_main]

skipstone_fuzz::target!("tokenizer");
