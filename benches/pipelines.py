#!/usr/bin/env python3
"""Partial against full pipelines, live: 20 processes on shaped links at a modelled pace.

    benches/pipelines.py SKIPSTONE INSTANCE.json [--faster K] [--iterations N] [--work N] [--baseline-s S]

The instance (SkipPipe's 20-node setting, say) is made K times faster, links and compute alike, and its tensors as small as
those of a tiny model, with bandwidths that are as much smaller. So each transfer and each task has its share of an
iteration, and the tiny model's own arithmetic does not count as long as the machine has time for it. Four runs follow:

    dt-fm     full pipelines by DT-FM's placement and matching (`skipstone plan --method full`)
    full      full pipelines by our own search (`skipstone plan`, all stages on each path)
    partial   the instance's paths by our own search (`skipstone plan`)
    training  what `skipstone train --wan` does by itself: placed at the start, paths searched anew each iteration

and with --arms those that tell how much of the gain is skipping, scheduling and placement:

    skippipe, no-tc2, random   the instance's paths by SkipPipe, without its collision constraint, and skipped at random, each on
                               the placement of SkipPipe's genetic search
    full-there, ours-there     full pipelines by matching, and our own search's paths, on that placement

All but `training` carry their plan out with `train --plan`; plans are made first. Printed: seconds per iteration, live (the median, the shortest
and the longest; a machine that is busy with other work stalls some) and as `skipstone simulate` tells the same run.toml, and
ratios.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

WIDTH, FFN, HEADS, CONTEXT, BATCH = 64, 176, 2, 48, 2
MODEL = ["--tokenizer", "bytes", "--story-bytes", "300000", "--width", str(WIDTH), "--ffn", str(FFN), "--heads", str(HEADS),
         "--kv-heads", str(HEADS), "--context", str(CONTEXT), "--batch", str(BATCH), "--threads", "1",
         "--recovery", "checkfree", "--origin-layers", "1"]
# Bytes of a microbatch's activation, and of a layer's gradient: projections, feed-forward, two norms.
ACTIVATION = 4 * BATCH * CONTEXT * WIDTH
GRADIENT = 4 * (4 * WIDTH * WIDTH + 3 * WIDTH * FFN + 2 * WIDTH)


def run(command):
    command = [str(part) for part in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return done.stdout


def nearest(regions):
    """The region that no other is far from."""
    names = sorted({it[end] for it in regions["links"] for end in "ab"})
    return min(names, key=lambda name: max(it["latency_s"] for it in regions["links"] if name in (it["a"], it["b"])))


def for_planner(table, sizes):
    """The instance of a table. Its all-reduce is a ring; nodes exchange parts directly, which r replicas do in 1/(r-1) of
    the time."""
    common = max(set(sizes[1:]), key=sizes[1:].count)
    instance = {**table, "param_bytes_per_stage": GRADIENT / max(common - 1, 1)}
    del instance["coordinator_region"]
    return instance


def shrunk(instance, faster):
    """The instance with times `faster` times as short, and a tiny model's tensors."""
    samples = instance["samples_per_mb"]
    smaller = ACTIVATION / (instance["activation_bytes_per_sample"] * samples)

    def link(it):
        return {**it, "latency_s": it["latency_s"] / faster, "bandwidth_Bps": it["bandwidth_Bps"] * smaller * faster}

    regions = instance["regions"]
    forward = instance["layers_per_stage"] * samples / BATCH / faster
    return {
        **instance,
        "layers_per_stage": 1,
        "origin_layers": 1,
        "samples_per_mb": BATCH,
        "activation_bytes_per_sample": ACTIVATION / BATCH,
        "param_bytes_per_stage": GRADIENT,
        "link_overhead_s": instance["link_overhead_s"] / faster,
        "task_gap_s": instance.get("task_gap_s", 0.0) / faster,
        "dp_allreduce_max_s": None,
        # The trainer's paths ascend.
        "swap": {**instance["swap"], "max_distance": 0},
        "coordinator_region": nearest(regions),
        "regions": {"intra": link(regions["intra"]), "links": [link(it) for it in regions["links"]]},
        "nodes": [{**node, "compute_s_per_layer_sample": node["compute_s_per_layer_sample"] * forward}
                  for node in instance["nodes"]],
    }


def seconds_per_iteration(folder):
    """From commit to commit, without the first, ascending."""
    commits = []
    for line in (folder / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event.get("event") == "committed":
            commits.append(event["time_ms"] / 1000)
    return sorted(after - before for before, after in zip(commits, commits[1:]))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("skipstone")
    parser.add_argument("instance", type=pathlib.Path)
    parser.add_argument("--faster", type=float, default=6.0, help="times as fast as the instance [default: 6]")
    parser.add_argument("--iterations", type=int, default=5, help="of each run; the first is not counted [default: 5]")
    parser.add_argument("--work", type=int, default=600000, help="candidates of our own searches [default: 600000]")
    parser.add_argument("--baseline-s", type=int, default=60, help="limit of DT-FM's and SkipPipe's searches [default: 60]")
    parser.add_argument("--arms", default="dt-fm,full,partial,training", help="which of the runs, in order")
    return parser.parse_args()


def main():
    options = arguments()
    instance = json.loads(options.instance.read_text())
    slots = {node["memory"] for node in instance["nodes"]}
    if len(slots) > 1 or instance.get("origin_layers", instance["layers_per_stage"]) != instance["layers_per_stage"]:
        sys.exit("nodes must have the same memory, and the origin as many layers as relays")
    partial = shrunk(instance, options.faster)
    full = {**partial, "path_len": instance["n_stages"], "skip_ratio": 0.0, "stage_visits_max": None}
    count = instance["total_microbatches"]
    ours = ["--as-trained", "--work", options.work, "--seed", "1"]
    skip = 1 - instance["path_len"] / instance["n_stages"]

    def theirs(method):
        return ["--method", method, "--time-limit", options.baseline_s, "--seed", "5"]

    # What each plans, how much of it is skipped, how, and whose stages it keeps.
    arms = {
        "dt-fm": (full, 0.0, theirs("full"), None),
        "full": (full, 0.0, ours, None),
        "partial": (partial, skip, ours, None),
        "training": (partial, skip, None, None),
        "skippipe": (partial, skip, theirs("skippipe"), None),
        "no-tc2": (partial, skip, theirs("no-tc2"), "skippipe"),
        "random": (partial, skip, theirs("random"), "skippipe"),
        "full-there": (full, 0.0, theirs("full"), "skippipe"),
        "ours-there": (partial, skip, ours, "skippipe"),
    }
    chosen = options.arms.split(",")
    for name in chosen:
        there = arms[name][3] if name in arms else sys.exit(f"no arm is called {name}; there are {', '.join(arms)}")
        if there is not None and there not in chosen[: chosen.index(name)]:
            sys.exit(f"{name} needs the placement of {there}: name that before it")
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        plans = {}
        for name in chosen:
            what, _, planner, there = arms[name]
            if planner is not None:
                problem, plan = (scratch / f"{name}{end}" for end in (".instance.json", ".plan.json"))
                problem.write_text(json.dumps(for_planner(what, instance["stage_sizes"])))
                kept = ["--stages-from", plans[there]] if there is not None else []
                run([options.skipstone, "plan", problem, *planner, *kept, "--out", plan])
                plans[name] = plan
        for name in chosen:
            what, skip, _, _ = arms[name]
            table, folder = (scratch / f"{name}{end}" for end in (".json", ""))
            table.write_text(json.dumps(what))
            sizes, given = instance["stage_sizes"], []
            if name in plans:
                sizes = [len(nodes) for nodes in json.loads(plans[name].read_text())["stages"]]
                given = ["--plan", plans[name]]
            report = json.loads(run([
                options.skipstone, "train", *MODEL, "--layers", instance["n_stages"], "--stages", len(sizes) - 1,
                "--stage-sizes", ",".join(map(str, sizes)), "--skip", f"{skip:.4f}", "--microbatches", count,
                "--slots", max(slots), "--wan", table, "--pace=0", *given, "--steps", options.iterations,
                "--out", folder, "--plain", "--json"]))
            told = json.loads(run([options.skipstone, "simulate", folder / "run.toml", "--json"]))
            times = seconds_per_iteration(folder)
            live = statistics.median(times)
            results[name] = (live, told["iteration"]["mean_s"])
            pace = report["pace"]
            mean = told["iteration"]["mean_s"]
            print(f"{name:10} live {live:7.3f} s/iteration ({times[0]:.3f} to {times[-1]:.3f}), told {mean:7.3f} "
                  f"({100 * (mean / live - 1):+.1f} %); "
                  f"{100 * pace['late'] / pace['tasks']:.2f} % of tasks late", flush=True)
    for name in ("partial", "training"):
        for baseline in ("dt-fm", "full"):
            if name in results and baseline in results:
                live, told = (results[name][way] / results[baseline][way] for way in range(2))
                print(f"{name} takes {live:.3f} of {baseline}'s time live, {told:.3f} as told")


if __name__ == "__main__":
    main()
