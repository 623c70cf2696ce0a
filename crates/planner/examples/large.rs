use skipstone_planner::*;
fn main() {
    let a: Vec<f64> = std::env::args().skip(1).map(|x| x.parse().unwrap()).collect();
    let size = DrawnSize { nodes: a[0] as usize, stages: 6, path_len: 4, regions: 12 };
    let instance = draw_instance(size, 1);
    let compiled = CompiledInstance::new(&instance).unwrap();
    for objective in [Objective::Makespan, Objective::Iteration] {
        for limit in &a[1..] {
            let start = std::time::Instant::now();
            let found = search(&compiled, &SearchOptions { objective, seed: 0 }, &mut |w| {
                if *limit == 0.0 {
                    if w > 0 { 1.0 } else { 0.0 }
                } else {
                    start.elapsed().as_secs_f64() / limit
                }
            })
            .unwrap();
            let t = start.elapsed().as_secs_f64();
            let e = evaluate(&compiled, &found.plan).unwrap();
            println!(
                "{} {objective:?} limit {limit} took {t:.2} work {} makespan {:.2} iteration {:.2}",
                instance.name,
                found.work,
                e.makespan_s(),
                e.iteration_s()
            );
        }
    }
}
