#!/usr/bin/env python3
"""Compares `skipstone plan --evaluate` with the reference evaluator on random instances and plans, to the microsecond.

usage: differential.py SKIPSTONE EVALUATE.PY [COUNT [SEED]]

Instances vary in sizes, speeds, regions, ratios, path rules, serial links, swapped edges, layers of the origin and lists of
quotas; plans in paths, starts, priorities, policies, strict orders, full pipelines, and rules broken on purpose."""
import importlib.util, json, os, random, subprocess, sys, tempfile


def random_instance(draw):
    stages = draw.randint(1, 8)
    sizes = [draw.randint(1, 4) for _ in range(stages)]
    nodes = sum(sizes)
    regions = [f"r{k}" for k in range(draw.randint(1, 5))]
    length = draw.randint(1, stages)
    memory = draw.randint(1, 4)
    quota = draw.choice([draw.randint(1, 6), [draw.randint(0, 5) for _ in range(sizes[0])]])
    total = sum(quota) if isinstance(quota, list) else quota * sizes[0]
    if total == 0:
        quota, total = 1, sizes[0]
    relays = total * (length - 1)
    link = lambda: {"latency_s": draw.choice([0, round(draw.random() / 5, 3)]),
                    "bandwidth_Bps": draw.choice([1e7, 2.5e8, draw.uniform(1e6, 1e9)])}
    instance = {
        "schema": "skippipe-instance-1", "name": "random", "n_stages": stages,
        "stage_sizes": draw.choice([sizes, None]),
        "layers_per_stage": draw.randint(1, 6), "path_len": length, "samples_per_mb": draw.randint(1, 16),
        "activation_bytes_per_sample": draw.choice([0, 4194304, draw.uniform(0, 1e7)]),
        "param_bytes_per_stage": draw.choice([0, 268468224]), "backward_ratio": draw.choice([1.5, 2, 0, draw.uniform(0.5, 3)]),
        "loss_ratio": draw.choice([0.25, 0, draw.random()]), "link_overhead_s": draw.choice([0, 0.35]),
        "task_gap_s": draw.choice([0, 0.0125]), "link_serial": draw.random() < 0.4,
        "microbatches_per_origin": quota, "total_microbatches": total,
        "stage_visits_max": draw.choice([None, max(1, -(-relays // max(1, stages - 1)) + draw.randint(0, 4)), max(1, relays)]),
        "swap": {"max_distance": draw.randint(0, 3), "max_count": draw.randint(0, 3), "max_total_distance": draw.randint(0, 4)},
        "max_jump": draw.randint(1, 7),
        "regions": {"intra": link(), "links": [dict(a=a, b=b, **link()) for i, a in enumerate(regions) for b in regions[:i]]},
        "nodes": [{"id": k, "region": draw.choice(regions), "memory": memory if draw.random() < 0.7 else draw.randint(1, 5),
                   "compute_s_per_layer_sample": draw.choice([0.055, draw.uniform(0.01, 0.2)])} for k in range(nodes)],
    }
    if draw.random() < 0.25:
        instance["origin_layers"] = draw.randint(0, 6)
    if draw.random() < 0.25:
        instance["edge_swaps"] = "odd"
    if draw.random() < 0.2:
        instance["dp_allreduce_max_s"] = draw.choice([0, 1, 20, 100])
    return instance, sizes


def random_plan(draw, reference, instance, sizes):
    order = list(range(len(instance["nodes"])))
    draw.shuffle(order)
    stages, rest = [], order
    for size in sizes:
        stages.append(rest[:size])
        rest = rest[size:]
    full = draw.random() < 0.2
    quota = instance["microbatches_per_origin"]
    quota = quota if isinstance(quota, list) else [quota] * sizes[0]
    origins = [v for v, q in zip(stages[0], quota) for _ in range(q)]
    draw.shuffle(origins)
    ids = list(range(len(origins)))
    if draw.random() < 0.3:
        draw.shuffle(ids)
    microbatches = []
    for k, origin in zip(ids, origins):
        for _ in range(60):
            relays = list(range(1, instance["n_stages"]))
            if not full:
                relays = draw.sample(relays, instance["path_len"] - 1)
                if draw.random() < 0.8:
                    relays.sort()
            if full or reference.legal(instance, [0] + relays) is None:
                break
        entry = {"id": k, "path": [origin] + [draw.choice(stages[s]) for s in relays]}
        if draw.random() < 0.3:
            entry["priority"] = draw.choice([0, 1, -1, 2.5])
        if draw.random() < 0.3:
            entry["release"] = draw.uniform(0, 20)
        if draw.random() < 0.2:
            entry["after"] = draw.choice(ids)
        microbatches.append(entry)
    plan = {"instance": "random", "method": "random", "mode": "full" if full else "partial", "stages": stages,
            "microbatches": microbatches, "policy": draw.choice(["bwd", "fifo", "fwd"])}
    if draw.random() < 0.3:
        tracks = {}
        X = reference.Inst(instance)
        reference.place(X, plan)
        trace = []
        reference.simulate(X, plan, trace)
        for start, _, v, k, kind in sorted(trace):
            tracks.setdefault(v, []).append([k, kind])
        plan["node_order"] = {}
        for v, tasks in tracks.items():
            if draw.random() < 0.5:
                if draw.random() < 0.3:
                    i = draw.randrange(len(tasks))
                    j = min(len(tasks) - 1, i + 1)
                    tasks[i], tasks[j] = tasks[j], tasks[i]
                plan["node_order"][str(v)] = tasks
    if draw.random() < 0.1:
        broken = draw.choice(["path", "twice", "stage", "id"])
        entry = draw.choice(microbatches)
        if broken == "path":
            entry["path"] = entry["path"][:-1] or [0]
        elif broken == "twice":
            entry["path"][-1] = entry["path"][0]
        elif broken == "id":
            entry["id"] = 999
        else:
            plan["stages"][0] = plan["stages"][0][:-1]
    return plan


def main():
    program, evaluator = sys.argv[1], sys.argv[2]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 300
    seed = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    spec = importlib.util.spec_from_file_location("reference", evaluator)
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    bounds_of = reference.bounds

    def bounds(X, plan):  # The reference's bounds know no path without relays.
        try:
            return bounds_of(X, plan)
        except (RecursionError, TypeError, IndexError, ValueError):
            return {k: v / reference.US for k, v in reference.lb_plan(X, plan).items()}

    reference.bounds = bounds
    draw = random.Random(seed)
    done = refused = differ = 0
    with tempfile.TemporaryDirectory() as folder:
        instance_file, plan_file = os.path.join(folder, "instance.json"), os.path.join(folder, "plan.json")
        while done + refused < count:
            instance, sizes = random_instance(draw)
            plan = random_plan(draw, reference, instance, sizes)
            json.dump(instance, open(instance_file, "w"))
            json.dump(plan, open(plan_file, "w"))
            run = subprocess.run([program, "plan", instance_file, "--evaluate", plan_file, "--json"], capture_output=True, text=True)
            if run.returncode == 2 and run.stderr.strip().split("\n")[-1].find("instance.json") > 0:
                continue  # An instance that contradicts itself: the reference does not look.
            try:
                want = reference.evaluate(instance, plan)
            except (KeyError, IndexError, ValueError):
                if run.returncode != 2:
                    differ += 1
                    print("the reference gives up, skipstone does not:", run.stdout, run.stderr)
                continue
            if want["violations"]:
                refused += 1
                if run.returncode != 2:
                    differ += 1
                    print("not refused:", want["violations"][:3], json.dumps(instance), json.dumps(plan))
                continue
            done += 1
            if run.returncode != 0:
                differ += 1
                print("refused:", run.stderr, json.dumps(instance), json.dumps(plan))
                continue
            got = json.loads(run.stdout)
            bounds, theirs = got["lower_bounds_s"], want["lower_bounds_s"]
            same = [got["makespan_s"] == want["makespan_s"], abs(got["allreduce_s"] - want["allreduce_s"]) < 1e-9,
                    all(abs(bounds[k] - theirs[k]) < 1e-9 for k in ("critical_path", "node", "memory"))]
            at_least = max([theirs.get(k, 0) for k in ("assign", "instance_latency", "instance_work")])
            same.append(got["lower_bound_s"] >= at_least - 1e-3 and got["lower_bound_s"] <= want["makespan_s"] + 1e-9)
            if not all(same):
                differ += 1
                print("differs:", same, got["makespan_s"], got["lower_bound_s"], bounds, want, json.dumps(instance), json.dumps(plan))
    print(f"{done} plans evaluated, {refused} refused by both; {differ} differ")
    sys.exit(1 if differ else 0)


main()
