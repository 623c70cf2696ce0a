//! scratch
use skipstone_planner::*;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let objective = if args[1] == "m" { Objective::Makespan } else { Objective::Iteration };
    let limit: f64 = args[2].parse().unwrap();
    let seeds: u64 = args[3].parse().unwrap();
    for path in &args[4..] {
        let instance = Instance::from_json(&std::fs::read_to_string(path).unwrap()).unwrap();
        let compiled = CompiledInstance::new(&instance).unwrap();
        let mut all = vec![];
        let mut rate = 0.0;
        let mut gap = 0.0;
        for seed in 0..seeds {
            let start = std::time::Instant::now();
            let found = search(&compiled, &SearchOptions { objective, seed }, &mut |w| {
                if limit > 1000.0 { w as f64 / limit } else { start.elapsed().as_secs_f64() / limit }
            })
            .unwrap();
            let e = evaluate(&compiled, &found.plan).unwrap_or_else(|v| panic!("{v:?}"));
            let o = if args[1] == "m" { e.makespan_s() } else { e.iteration_s() };
            rate += found.work as f64 / start.elapsed().as_secs_f64();
            let b = LowerBounds::of_plan(&compiled, &found.plan).placement_us() as f64 / 1e6;
            gap += e.makespan_s() / b - 1.0;
            all.push((o * 100.0).round() / 100.0);
        }
        all.sort_by(f64::total_cmp);
        println!(
            "{:24} mean {:.2} {:?} gap {:.1}% rate {:.0}/s",
            instance.name,
            all.iter().sum::<f64>() / all.len() as f64,
            all,
            100.0 * gap / seeds as f64,
            rate / seeds as f64
        );
    }
}
