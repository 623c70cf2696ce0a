//! The `skipstone` binary.
fn main() {}
