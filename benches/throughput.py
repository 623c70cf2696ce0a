#!/usr/bin/env python3
"""CheckFree's throughput under failures, every strategy: `skipstone simulate` of its 500M setting.

    benches/throughput.py SKIPSTONE [--seeds 5] [--iterations 1000] [--threads N]

Six relay stages of four layers, one node each, in seven of the twelve regions of gcp12; 4 microbatches of 16 x 1024
tokens; 0.055 s a layer and sample forward, as SkipPipe measured. Each node but the only origin dies at the rate given, and an
empty process takes its place at once. Prints a Markdown table: iterations in an hour, as a share of those of CheckFree
without failures; the mean of the seeds, and half the 95 % interval. Redundant computation fills a node's memory with two
stages, so that microbatches are halved, and twice as many; halves fill a pipeline sooner, so the default is there with
them too.
"""
import argparse
import concurrent.futures
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

RATES = [0, 5, 10, 16, 33]
DEFAULT = "neighbour-snapshot:every=auto,dtype=int8"
# Each with the number of parts that a microbatch is cut into.
ROWS = [(DEFAULT, 1), ("neighbour-snapshot", 1), ("checkfree", 1), ("checkfree+", 1), ("match", 1),
        ("checkpoint:every=10", 1), ("checkpoint:every=50", 1), ("redundant", 1), ("redundant", 2), (DEFAULT, 2)]
BATCH, MICROBATCHES, PACE = 16, 4, 0.055 * 4 * 16

# Two-sided, 95 %, by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout


def simulate(program, scratch, strategy, parts, rate, seed, iterations):
    # Half a microbatch takes half the time. Nothing is saved by the clock: a checkpoint is as old as the strategy says.
    flags = ["--model", "500m", "--stages", "6", "--batch", BATCH // parts, "--microbatches", MICROBATCHES * parts,
             "--pace", PACE / parts, "--wan", "gcp12", "--replicas", "1", "--recovery", "checkfree",
             "--save-every", "0", "--seed", seed, "--steps", iterations]
    text = run([program, "config", *map(str, flags)])
    # `config` writes what `train` can do; `redundant` is only modelled.
    text = text.replace('recovery = "checkfree"', f'recovery = "{strategy}"')
    file = scratch / f"{strategy.replace(':', '-')}-{parts}-{rate}-{seed}.toml"
    file.write_text(text)
    churn = ["--churn", f"{rate}%/h"] if rate else []
    result = json.loads(run([program, "simulate", str(file), *churn, "--json"]))
    return result["wall_s"] / iterations, result["kills"], result["sent_bytes"] / iterations


def cell(values):
    mean = f"{statistics.mean(values):.1f}"
    if len(values) < 2:
        return f"{mean} %"
    half = STUDENT[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean} ± {half:.1f} %"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", metavar="SKIPSTONE", help="the program")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", choices=range(1, 11),
                        help="runs of each strategy and rate, 1 to 10 [default: 5]")
    parser.add_argument("--iterations", type=int, default=1000, metavar="N", help="of each run [default: 1000]")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N", choices=range(1, 1025),
                        help="runs at once [default: the machine's cores]")
    options = parser.parse_args()
    if shutil.which(options.program) is None:
        parser.error(f"there is no program {options.program}; `cargo build --release` makes target/release/skipstone")
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(options.threads) as pool:
        scratch = pathlib.Path(folder)
        jobs = {
            (row, rate): [
                pool.submit(simulate, options.program, scratch, *row, rate, seed, options.iterations)
                for seed in range(1, 1 + (options.seeds if rate else 1))
            ]
            for row in ROWS
            for rate in RATES
        }
        results = {}
        for number, (key, list_of) in enumerate(jobs.items(), 1):
            results[key] = [job.result() for job in list_of]
            print(f"{number} of {len(jobs)} cells", end="\r", file=sys.stderr, flush=True)
        print(file=sys.stderr)
    base = ("checkfree", 1)
    calm_s, _, calm_bytes = results[base, 0][0]
    print(f"Without failures `checkfree` takes {calm_s:.1f} s an iteration and sends {calm_bytes / 1e9:.2f} GB.\n")
    print("| strategy | GB sent, no failures | " + " | ".join(f"{rate} % an hour" for rate in RATES) + " |")
    print("|---|---|" + "---|" * len(RATES))
    for row in ROWS:
        cells = [cell([100 * calm_s / seconds for seconds, _, _ in results[row, rate]]) for rate in RATES]
        name = f"`{row[0]}`" + (", halved microbatches" if row[1] == 2 else "")
        print(f"| {name} | {results[row, 0][0][2] / 1e9:.2f} | " + " | ".join(cells) + " |")
    losses = [sum(kills for _, kills, _ in results[base, rate]) for rate in RATES]
    print("\nNodes lost under `checkfree`, all seeds: " + ", ".join(map(str, losses)) + ".")


if __name__ == "__main__":
    main()
