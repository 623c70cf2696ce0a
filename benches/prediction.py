#!/usr/bin/env python3
"""How well `skipstone simulate` predicts live runs on shaped links at a modelled pace.

    benches/prediction.py SKIPSTONE [CASE ...]

Runs each case live (`train`), tells the same run.toml by `simulate`, and prints both: seconds per iteration, and for the
case with kills the share of the calm run's speed and goodput that is left. Nothing else should run on the machine.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

SMALL = ["--tokenizer", "bytes", "--story-bytes", "300000", "--width", "32", "--heads", "2", "--context", "32",
         "--batch", "2", "--threads", "1"]

TWO_REGIONS = {
    "regions": {
        "intra": {"latency_s": 0.001, "bandwidth_Bps": 1e8},
        "links": [{"a": "here", "b": "there", "latency_s": 0.08, "bandwidth_Bps": 2e4}],
    },
    "node_regions": ["here", "there"],
}

# Name: flags, iterations.
CASES = {
    "paced": (["--layers", "3", "--stages", "3", "--microbatches", "6", "--pace", "0.2"], 10),
    "gcp12": (["--layers", "6", "--origin-layers", "1", "--stages", "5", "--replicas", "2", "--skip", "0.33",
               "--microbatches", "8", "--pace", "0.2", "--wan", "gcp12"], 10),
    "thin": (["--layers", "4", "--stages", "4", "--microbatches", "6", "--pace", "0.1", "--wan", "TWO"], 10),
    "calm": (["--layers", "6", "--stages", "6", "--replicas", "2", "--microbatches", "4", "--pace", "0.5"], 20),
    "kills": (["--layers", "6", "--stages", "6", "--replicas", "2", "--microbatches", "4", "--pace", "0.5",
               "--churn", "every 15s"], 40),
    "iroh": (["--layers", "10", "--origin-layers", "1", "--stages", "9", "--replicas", "2", "--skip", "0.33",
              "--microbatches", "12", "--pace", "0.2", "--wan", "gcp12"], 12),
}

# Cases whose nodes are so many machines of one node each, which join over iroh.
JOINED = {"iroh": 20}


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def run_joined(train, folder, scratch, machines):
    """Nothing runs at home but the coordinator."""
    program = train[0]
    host = subprocess.Popen([*train, "--listen", "--relay", "none", "--workers", "0"], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)
    ticket = None
    for line in host.stderr:
        if "skipstone join " in line:
            ticket = line.split()[-1]
            break
    if ticket is None:
        sys.exit("no ticket was printed")
    joined = [
        subprocess.Popen([program, "join", ticket, "--threads", "1", "--dir", str(scratch / f"machine-{number}")],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for number in range(machines)
    ]
    out, said = host.communicate()
    for machine in joined:
        machine.wait()
    if host.returncode != 0:
        sys.exit(said[-2000:])
    return json.loads(out)


def seconds_per_iteration(folder):
    """From commit to commit, without the first."""
    commits = []
    for line in (folder / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event.get("event") == "committed":
            commits.append(event["time_ms"] / 1000)
    return (commits[-1] - commits[0]) / (len(commits) - 1)


def measure(program, name, scratch):
    flags, steps = CASES[name]
    table = scratch / "two.json"
    table.write_text(json.dumps(TWO_REGIONS))
    flags = [str(table) if flag == "TWO" else flag for flag in flags]
    folder = scratch / name
    train = [program, "train", *SMALL, *flags, "--steps", str(steps), "--out", str(folder), "--plain", "--json"]
    live = run_joined(train, folder, scratch, JOINED[name]) if name in JOINED else run(train)
    # Chance kills others in virtual time: the mean of many iterations is what can be told.
    many = ["--iterations", "500"] if "--churn" in flags else []
    told = run([program, "simulate", str(folder / "run.toml"), *many, "--json"])
    return {
        "case": name,
        "live_s": seconds_per_iteration(folder),
        "told_s": told["iteration"]["mean_s"],
        "live_goodput": live["goodput"],
        "told_goodput": told["goodput"],
        "kills": live["kills"],
        "late": late_share(live.get("pace")),
    }


def late_share(pace):
    """How true the pace was; nodes that joined from elsewhere don't tell."""
    return f"{100 * pace['late'] / pace['tasks']:.2f} % of tasks late" if pace else "lateness of joined nodes not told"


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    names = sys.argv[2:] or list(CASES)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        sys.exit(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            result = results[name] = measure(sys.argv[1], name, pathlib.Path(scratch))
            print(f"{name:6} live {result['live_s']:7.3f} s/iteration, told {result['told_s']:7.3f} "
                  f"({100 * (result['told_s'] / result['live_s'] - 1):+.1f} %); goodput live "
                  f"{100 * result['live_goodput']:.1f} %, told {100 * result['told_goodput']:.1f} %; "
                  f"{result['kills']} kills; {result['late']}", flush=True)
    if "calm" in results and "kills" in results:
        for what in ("live", "told"):
            calm, kills = results["calm"], results["kills"]
            print(f"with kills, {what}: {100 * calm[what + '_s'] / kills[what + '_s']:.1f} % of the calm run's speed, "
                  f"{100 * kills[what + '_goodput'] / calm[what + '_goodput']:.1f} % of its goodput")


if __name__ == "__main__":
    main()
