//! Pictures of plans: sound SVG with everything in it, whatever names the regions have.

#![allow(clippy::unwrap_used)]

use skipstone_observe::{PlannedIteration, gantt, map};
use skipstone_planner::{CompiledInstance, Instance, LowerBounds, PipelinePlan, evaluate};

const INSTANCE: &str = r#"{"schema": "skippipe-instance-1", "name": "<two> & \"three\"", "n_stages": 3,
    "stage_sizes": [2, 1, 1], "layers_per_stage": 1, "path_len": 2, "samples_per_mb": 1,
    "activation_bytes_per_sample": 1e6, "param_bytes_per_stage": 2000, "backward_ratio": 2, "loss_ratio": 0.5,
    "microbatches_per_origin": 2, "total_microbatches": 4, "max_jump": 4,
    "swap": {"max_distance": 1, "max_count": 2, "max_total_distance": 2},
    "regions": {"intra": {"latency_s": 0.001, "bandwidth_Bps": 1e9},
                "links": [{"a": "</svg><script>", "b": "y", "latency_s": 0.1, "bandwidth_Bps": 1e7}]},
    "nodes": [{"id": 0, "region": "</svg><script>", "compute_s_per_layer_sample": 1.0, "memory": 1},
              {"id": 1, "region": "y", "compute_s_per_layer_sample": 1.0, "memory": 1},
              {"id": 2, "region": "y", "compute_s_per_layer_sample": 1.0, "memory": 1},
              {"id": 3, "region": "y", "compute_s_per_layer_sample": 1.0, "memory": 1}]}"#;

const PLAN: &str = r#"{"method": "by hand", "stages": [[0, 1], [2], [3]], "microbatches": [
    {"id": 0, "path": [0, 2]}, {"id": 1, "path": [0, 3]}, {"id": 2, "path": [1, 3]}, {"id": 3, "path": [1, 2]}]}"#;

/// Both pictures.
fn pictures() -> [String; 2] {
    let compiled = CompiledInstance::new(&Instance::from_json(INSTANCE).unwrap()).unwrap();
    let plan = PipelinePlan::from_json(PLAN).unwrap();
    let evaluation = evaluate(&compiled, &plan).unwrap();
    let bound_us = LowerBounds::of_plan(&compiled, &plan).placement_us();
    let iteration = PlannedIteration { compiled: &compiled, plan: &plan, evaluation: &evaluation, bound_us };
    [gantt(&iteration), map(&iteration)]
}

/// Names of elements in the order in which they open; fails where the markup is not well formed.
fn elements(svg: &str) -> Vec<String> {
    let (mut open, mut seen, mut rest) = (Vec::new(), Vec::new(), svg);
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>') || open.last() == Some(&"style".to_owned()), "stray >");
        let end = rest[start..].find('>').unwrap() + start;
        let tag = &rest[start + 1..end];
        assert!(!tag.contains('<'), "stray < in {tag}");
        assert_eq!(tag.matches('"').count() % 2, 0, "open quote in {tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
        } else {
            let name = tag.split([' ', '/']).next().unwrap().to_owned();
            seen.push(name.clone());
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "left open: {open:?}");
    seen
}

#[test]
fn pictures_are_well_formed_and_ask_for_nothing() {
    for svg in pictures() {
        let elements = elements(&svg);
        assert_eq!(elements[0], "svg");
        let known = ["svg", "style", "title", "text", "rect", "line", "path", "circle", "defs", "pattern"];
        assert!(elements.iter().all(|name| known.contains(&name.as_str())), "{elements:?}");
        for asked in ["http:", "https:", "href", "@import", "url("] {
            let allowed = ["xmlns=\"http://www.w3.org/2000/svg\"", "url(#hatch)"];
            let cleaned = allowed.iter().fold(svg.clone(), |svg, allowed| svg.replace(allowed, ""));
            assert!(!cleaned.contains(asked), "{asked}");
        }
        assert!(svg.contains("&lt;two&gt; &amp; &quot;three&quot; · by hand"));
        assert!(svg.contains("prefers-color-scheme: dark"));
    }
}

#[test]
fn the_lanes_show_every_task_transfer_and_wait() {
    let [svg, _] = pictures();
    for microbatch in 0..4 {
        for task in ["forward", "loss", "backward"] {
            assert!(
                svg.contains(&format!("<title>{task} of microbatch {microbatch} on node ")),
                "{task} {microbatch}"
            );
        }
        let transfers = svg.matches(&format!(" of microbatch {microbatch}: node ")).count();
        assert_eq!(transfers, 4, "there, to the loss, back twice");
    }
    assert!(svg.contains("waits for memory"));
    assert!(svg.contains("makespan ") && svg.contains("bound "));
    assert!(svg.contains(">stage 2<") && svg.contains(">origin<"));
}

#[test]
fn the_map_shows_every_node_and_link() {
    let [_, svg] = pictures();
    for node in 0..4 {
        assert!(svg.contains(&format!("<title>node {node}: ")), "node {node}");
    }
    // Node 0 sends both of its microbatches to y: four transfers each of 1 MB.
    assert!(svg.contains("8 transfers, 8 MB an iteration; 10 MB/s, 100 ms"));
    assert!(svg.contains("8 MB inside regions"));
}
