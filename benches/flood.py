#!/usr/bin/env python3
"""What strangers at the door cost a run that listens: seconds per iteration while they knock, against before and after.

    benches/flood.py SKIPSTONE FLOOD [CONNECTIONS]

FLOOD is `cargo build --release -p skipstone-net --example flood`'s program, CONNECTIONS 10000 by default. Two machines join a
paced run of four stages; then so many strangers send garbage, ask for files, or show forged tickets, 40 at once. Prints the
memory of the coordinator's process too.
"""
import contextlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

FLAGS = ["--tokenizer", "bytes", "--story-bytes", "300000", "--width", "32", "--heads", "2", "--context", "32", "--batch", "2",
         "--threads", "1", "--layers", "3", "--stages", "3", "--replicas", "2", "--microbatches", "6", "--pace", "0.1",
         "--steps", "100000", "--save-every", "0", "--plain", "--relay", "none", "--workers", "4", "--listen"]
CALM_S = 40


def commits(folder):
    whole = (folder / "events.jsonl").read_text().rpartition("\n")[0]
    events = (json.loads(line) for line in whole.splitlines())
    return [event["time_ms"] / 1000 for event in events if event["event"] == "committed"]


def memory_mib(process):
    """Resident memory of the coordinator, a child of `train`."""
    children = subprocess.run(["ps", "--ppid", str(process), "-o", "rss=,args="], stdout=subprocess.PIPE, text=True).stdout
    return next(int(line.split()[0]) / 1024 for line in children.splitlines() if "internal-coordinator" in line)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    program, flood = sys.argv[1:3]
    connections = sys.argv[3] if len(sys.argv) > 3 else "10000"
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        folder = scratch / "run"
        train = subprocess.Popen([program, "train", *FLAGS, "--out", str(folder)], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE, text=True)
        ticket = next(line.split()[-1] for line in train.stderr if "skipstone join " in line)
        guests = [subprocess.Popen([program, "join", ticket, "--workers", "2", "--threads", "1",
                                    "--dir", str(scratch / f"machine-{number}")],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for number in range(2)]
        try:
            while not (folder / "events.jsonl").exists() or len(commits(folder)) < 3:
                time.sleep(0.5)
            measure(folder, train.pid, flood, connections)
        finally:
            for _ in range(2):
                train.send_signal(signal.SIGINT)
                time.sleep(0.5)
            train.communicate()
            # The run ended at once and told nobody: its guests look for it.
            for guest in guests:
                guest.kill()
                guest.wait()


def elsewhere():
    """Strangers are on other machines: here they take only the time that the run leaves (Linux)."""
    os.setsid()
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/autogroup").write_text("19")
    os.nice(19)


def measure(folder, process, flood, connections):
    address = "iroh:" + json.loads((folder / "join" / "tickets.json").read_text())["host"][0]
    began = len(commits(folder))
    time.sleep(CALM_S)
    before, memory = len(commits(folder)), memory_mib(process)
    said = subprocess.run([flood, address, connections], stdout=subprocess.PIPE, text=True, check=True,
                          preexec_fn=elsewhere).stdout.strip()
    after, memory_after = len(commits(folder)), memory_mib(process)
    time.sleep(CALM_S)
    memory_late = memory_mib(process)
    times = commits(folder)
    took = [b - a for a, b in zip(times, times[1:])]
    calm, flooded, again = took[began:before - 1], took[before:after - 1], took[after:]
    print(f"{connections} strangers: {said}")
    for name, span in (("before", calm), ("meanwhile", flooded), ("afterwards", again)):
        print(f"{name:10} {statistics.mean(span):.3f} s per iteration over {len(span)}, longest {max(span):.3f} s")
    usual = statistics.mean(calm + again)
    print(f"meanwhile {100 * (statistics.mean(flooded) / usual - 1):+.1f} %; "
          f"coordinator {memory:.0f} MiB before, {memory_after:.0f} MiB after, {memory_late:.0f} MiB {CALM_S} s later")


if __name__ == "__main__":
    main()
