//! Prints what `skipstone bench net` measures.

fn main() -> Result<(), skipstone_net::BenchError> {
    println!("{:#?}", skipstone_net::bench(&skipstone_net::BenchOptions::default())?);
    Ok(())
}
