//! `bench_stage WIDTH HEADS FFN CONTEXT BATCH THREADS REPEATS [LAYERS] [KV_HEADS]`: one JSON line of
//! [`skipstone_model::bench::BenchStage`]. `golden/compare_torch.py` runs it against PyTorch.

use skipstone_model::bench::{BenchShape, bench_stage};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = std::env::args().skip(1).map(|a| a.parse()).collect::<Result<Vec<usize>, _>>()?;
    let [width, heads, ffn, context, batch, threads, repeats, ..] = args[..] else {
        return Err(
            "usage: bench_stage WIDTH HEADS FFN CONTEXT BATCH THREADS REPEATS [LAYERS] [KV_HEADS]".into()
        );
    };
    let layers = args.get(7).copied().unwrap_or(2);
    let kv_heads = args.get(8).copied().unwrap_or(heads);
    let shape = BenchShape { width, layers, heads, kv_heads, ffn, context, batch, threads, repeats };
    println!("{}", serde_json::to_string(&bench_stage(&shape)?)?);
    Ok(())
}
