#!/usr/bin/env python3
"""What `skipstone plan` reaches on every instance of a folder, beside the figures that it was built to reach.

    benches/plans.py SKIPSTONE INSTANCES [--evaluate EVALUATE.py] [--seconds 1,10] [--seed 0] [--only NAME ...] [--cores N]
                    [--settle 3,60]

For each instance and both objectives: seconds of the plan's objective after each time of search, the makespan's gap to the
bound of the plan's own placement at the end, the figures to reach, and what SkipPipe's released code was measured to reach
(with a seed, minutes of search). Instances of 40 nodes and more are also searched for the two times of --settle: after the
first the plan is to be within 2 % of the one after the second. EVALUATE.py is a second opinion: it is called with INSTANCE PLAN --json and must find
the same makespan and all-reduce to the microsecond. The load of the machine is printed: times are only as good as it.

With --cores N the search is cut by work, not by time, so that a busy machine tells the same: it tries as many candidates as N
cores do in that time, by the processor seconds that a candidate takes on one of them, measured first.
"""
import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

# Instance: objective: (seconds of search: figure to reach), then what SkipPipe reaches, both in seconds. None: no figure.
GOALS = {
    "a_ref20_skip33": {"makespan": ({1: 66.0, 10: 63.0}, "69.5–79.5"), "iteration": ({1: 90.0, 10: 85.0}, "113–122.5")},
    "a0_shipped_schedule": {"makespan": ({10: 24.8}, "32.9"), "iteration": ({10: 34.7}, "45.2")},
    "b_ref20_skip50": {"makespan": ({10: 45.3}, "55.6"), "iteration": ({10: 66.3}, "98.6")},
    "c_homog20_skip33": {"makespan": ({10: 52.4}, "63.2"), "iteration": ({10: 52.6}, "63.4")},
    "d_n12_skip33": {"makespan": ({10: 65.8}, ""), "iteration": ({10: 82.5}, "")},
    "e_rand20_s101": {"makespan": ({10: 65.5}, "no plan"), "iteration": ({10: 89.5}, "no plan")},
}
# Most that a makespan may be above the bound of its placement after the longest search, a share.
GAPS = {"a_ref20_skip33": 0.10, "a0_shipped_schedule": 0.10, "b_ref20_skip50": 0.16, "c_homog20_skip33": 0.16, "e_rand20_s101": 0.25}
# From how many nodes on a plan is to settle, and how near to the one of the longer search it is to be, a share.
SETTLE_NODES = 40
SETTLE_SHARE = 0.02


def fail(why):
    sys.exit(f"plans.py: {why}")


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        fail(f"`{' '.join(map(str, command))}` ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def processor_s():
    """Processor seconds of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def candidates_per_s(arguments, path, objective):
    """Candidates that one core tries in a second."""
    work = 5000
    while True:
        before = processor_s()
        found = json.loads(run([arguments.skipstone, "plan", path, "--objective", objective, "--work", str(work),
                                "--threads", "1", "--json"]))
        used = processor_s() - before
        if used > 0.5:
            return found["work"] / used
        work *= 4


def agree(arguments, instance, plan, figures):
    """Whether the second evaluator finds the same."""
    found = json.loads(run([sys.executable, arguments.evaluate, instance, plan, "--json"]))
    for ours, names in (("makespan_s", ("makespan_s", "makespan")), ("allreduce_s", ("allreduce_s", "allreduce"))):
        theirs = next((found[name] for name in names if name in found), None)
        if theirs is None:
            fail(f"{arguments.evaluate} says nothing of {ours}: its keys are {', '.join(found)}")
        if abs(theirs - figures[ours]) > 0.6e-6 and abs(theirs - figures[ours]) > 1e-9 * abs(theirs):
            fail(f"{instance}: {ours} is {figures[ours]}, and {theirs} by {arguments.evaluate}")


def search(arguments, path, objective, limit, rate, folder):
    """The figures of a plan that was searched for `limit` seconds, or for as much work as that is at `rate`; checked."""
    plan = pathlib.Path(folder) / "plan.json"
    effort = ["--time-limit", f"{limit:g}"]
    if rate:
        effort = ["--work", str(int(rate * arguments.cores * limit)), "--threads", str(arguments.cores)]
    figures = json.loads(run([arguments.skipstone, "plan", path, "--objective", objective, *effort, "--seed", arguments.seed,
                              "--out", plan, "--json"]))
    if arguments.evaluate:
        agree(arguments, path, plan, figures)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("skipstone")
    parser.add_argument("instances", type=pathlib.Path)
    parser.add_argument("--evaluate")
    parser.add_argument("--seconds", default="1,10")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--cores", type=int)
    parser.add_argument("--settle", default="3,60", help="seconds of a short and a long search of large instances, or nothing")
    parser.add_argument("--only", nargs="*", default=[])
    arguments = parser.parse_args()
    seconds = [float(text) for text in arguments.seconds.split(",")]
    settle = [float(text) for text in arguments.settle.split(",") if text]
    if len(settle) not in (0, 2):
        fail("--settle takes two times, such as 3,60, or nothing: --settle ''")
    paths = sorted(path for path in arguments.instances.glob("*.json") if not arguments.only or path.stem in arguments.only)
    if not paths:
        fail(f"{arguments.instances} has no instance of that name; name a folder of INSTANCE.json files")
    heads = [f"{limit:g} s" for limit in seconds]
    print(f"| instance | objective | {' | '.join(heads)} | above bound | to reach | SkipPipe |")
    print(f"|---|---|{'---:|' * len(seconds)}---:|---:|---:|")
    missed = 0
    settled = []
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            nodes = len(json.loads(path.read_text())["nodes"])
            for objective in ("makespan", "iteration"):
                goals, theirs = GOALS.get(path.stem, {}).get(objective, ({}, ""))
                gap_goal = GAPS.get(path.stem) if objective == "makespan" else None
                cells = []
                rate = candidates_per_s(arguments, path, objective) if arguments.cores else None
                for limit in seconds:
                    figures = search(arguments, path, objective, limit, rate, folder)
                    reached = figures[f"{objective}_s"]
                    late = limit in goals and reached > goals[limit] + 1e-9
                    missed += late
                    cells.append(f"{reached:.2f}{' (missed)' if late else ''}")
                late = gap_goal is not None and figures["gap"] > gap_goal
                missed += late
                goal = [f"{figure:g} in {limit:g} s" for limit, figure in goals.items()]
                goal += [f"{100 * gap_goal:g} % above"] if gap_goal is not None else []
                print(f"| {path.stem} | {objective} | {' | '.join(cells)} | {100 * figures['gap']:.1f} %{' (missed)' if late else ''} | "
                      f"{', '.join(goal)} | {theirs} |", flush=True)
                if nodes >= SETTLE_NODES and settle:
                    short, long = (search(arguments, path, objective, limit, rate, folder)[f"{objective}_s"] for limit in settle)
                    late = short > long * (1.0 + SETTLE_SHARE)
                    missed += late
                    settled.append(f"| {path.stem} | {objective} | {short:.2f} | {long:.2f} | "
                                   f"{100 * (short / long - 1.0):+.1f} %{' (missed)' if late else ''} |")
    if settled:
        print(f"\n| instance of {SETTLE_NODES} nodes and more | objective | {settle[0]:g} s | {settle[1]:g} s | to reach: {100 * SETTLE_SHARE:+g} % |")
        print("|---|---|---:|---:|---:|")
        print("\n".join(settled))
    checked = "checked by a second evaluator to the microsecond" if arguments.evaluate else "not checked by a second evaluator"
    cut = f"; cut by the work of {arguments.cores} cores" if arguments.cores else ""
    print(f"\n{missed} figures missed; every plan {checked}{cut}; {os.cpu_count()} cores, load "
          f"{', '.join(f'{load:.1f}' for load in os.getloadavg())} at the end.")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
