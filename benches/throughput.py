#!/usr/bin/env python3
"""CheckFree's throughput under failures, every strategy: `skipstone simulate` of its 500M setting.

    benches/throughput.py SKIPSTONE [--seeds 5] [--iterations 1000] [--threads N]

Six relay stages of four layers, one node each, in seven of the twelve regions of gcp12; 4 microbatches of 16 x 1024
tokens; 0.055 s a layer and sample forward, as SkipPipe measured. Each node but the only origin dies at the rate given, and an
empty process takes its place at once. Prints a Markdown table: iterations in an hour, as a share of those without
failures and without anything sent for recovery; the mean of the seeds, and half the 95 % interval.
"""
import argparse
import concurrent.futures
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

RATES = [0, 5, 10, 16, 33]
STRATEGIES = ["neighbour-snapshot:every=auto,dtype=int8", "neighbour-snapshot", "checkfree", "checkfree+", "match",
              "checkpoint:every=10", "checkpoint:every=50", "checkpoint:every=100", "redundant"]
BATCH, MICROBATCHES, PACE = 16, 4, 0.055 * 4 * 16

# Two-sided, 95 %, by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout


def simulate(program, scratch, strategy, rate, seed, iterations):
    # Two stages in a node's memory leave room for half a microbatch, which takes half the time.
    parts = 2 if strategy == "redundant" else 1
    flags = ["--model", "500m", "--stages", "6", "--batch", BATCH // parts, "--microbatches", MICROBATCHES * parts,
             "--pace", PACE / parts, "--wan", "gcp12", "--replicas", "1", "--recovery", "checkfree",
             "--seed", seed, "--steps", iterations]
    text = run([program, "config", *map(str, flags)])
    # `config` writes what `train` can do; `redundant` is only modelled.
    text = text.replace('recovery = "checkfree"', f'recovery = "{strategy}"')
    file = scratch / f"{strategy.replace(':', '-')}-{rate}-{seed}.toml"
    file.write_text(text)
    churn = ["--churn", f"{rate}%/h"] if rate else []
    result = json.loads(run([program, "simulate", str(file), *churn, "--json"]))
    return result["wall_s"] / iterations, result["kills"], result["sent_bytes"] / iterations


def interval(values):
    if len(values) < 2:
        return 0.0
    return STUDENT[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", metavar="SKIPSTONE")
    parser.add_argument("--seeds", type=int, default=5, choices=range(1, 11))
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(options.threads) as pool:
        scratch = pathlib.Path(folder)
        jobs = {
            (strategy, rate): [
                pool.submit(simulate, options.program, scratch, strategy, rate, seed, options.iterations)
                for seed in range(1, 1 + (options.seeds if rate else 1))
            ]
            for strategy in STRATEGIES
            for rate in RATES
        }
        results = {key: [job.result() for job in list_of] for key, list_of in jobs.items()}
    calm_s, _, calm_bytes = results["checkfree", 0][0]
    print(f"Without failures `checkfree` takes {calm_s:.1f} s an iteration and sends {calm_bytes / 1e9:.2f} GB.\n")
    print("| strategy | GB sent, no failures | " + " | ".join(f"{rate} % an hour" for rate in RATES) + " |")
    print("|---|---|" + "---|" * len(RATES))
    for strategy in STRATEGIES:
        row = []
        for rate in RATES:
            shares = [100 * calm_s / seconds for seconds, _, _ in results[strategy, rate]]
            spread = f" ± {interval(shares):.1f}" if rate else ""
            row.append(f"{statistics.mean(shares):.1f}{spread} %")
        print(f"| `{strategy}` | {results[strategy, 0][0][2] / 1e9:.2f} | " + " | ".join(row) + " |")
    losses = [sum(kills for _, kills, _ in results["checkfree", rate]) for rate in RATES]
    print("\nNodes lost under `checkfree`, all seeds: " + ", ".join(map(str, losses)) + ".")


if __name__ == "__main__":
    main()
