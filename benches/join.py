#!/usr/bin/env python3
"""What a node that joins costs a run of 124 million parameters: iterations while it gets its state, against the others.

    benches/join.py SKIPSTONE [JOINS]        e.g. benches/join.py target/release/skipstone 4

Six relay stages and the origin on eight nodes. After a few iterations a machine joins with an empty node (`skipstone join`),
copies its stage, works for an iteration, and leaves again; and so on. Compute is paced, so that cores are not what is short.
Nothing else should run on the machine: some 12 GiB of memory, and 9 minutes for 4 joins.
"""
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

# 18 layers of 7.08 million parameters, and 2 x 0.2 million for bytes.
FLAGS = ["--layers", "18", "--width", "768", "--heads", "12", "--ffn", "2048", "--tokenizer", "bytes",
         "--story-bytes", "300000", "--context", "16", "--batch", "1", "--microbatches", "4", "--stages", "6",
         "--replicas", "2", "--pace", "0.7", "--threads", "1", "--relay", "none", "--workers", "8"]
CALM_BETWEEN = 3


class Log:
    """The run's events so far."""

    def __init__(self, path):
        self.path = path

    def events(self):
        if not self.path.exists():
            return []
        whole = self.path.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def wait(self, what, found):
        """Waits until `found` returns something of the events."""
        until = time.monotonic() + 300
        while time.monotonic() < until:
            result = found(self.events())
            if result:
                return result
            time.sleep(0.2)
        sys.exit(f"no {what} in 5 minutes; {self.path} has what happened")

    def commits(self):
        return [event["time_ms"] for event in self.events() if event["event"] == "committed"]

    def wait_commits(self, more):
        target = len(self.commits()) + more
        self.wait("commit", lambda events: sum(event["event"] == "committed" for event in events) >= target)


def mean(values):
    return sum(values) / len(values)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    program = sys.argv[1]
    joins = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "run"
        log = Log(folder / "events.jsonl")
        train = subprocess.Popen(
            [program, "train", *FLAGS, "--steps", "100000", "--save-every", "0", "--listen", "--plain",
             "--out", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            measure(program, log, folder, joins, pathlib.Path(scratch))
        finally:
            for _ in range(2):
                train.send_signal(signal.SIGINT)
                time.sleep(1)
            train.wait()


def measure(program, log, folder, joins, scratch):
    log.wait("iteration", lambda events: sum(event["event"] == "committed" for event in events) >= 2)
    ticket = subprocess.run([program, "tickets", str(folder), "--new"], stdout=subprocess.PIPE, text=True,
                            check=True).stdout
    ticket = next(word for word in ticket.split() if word.startswith("skipstone1"))
    spans = []
    for turn in range(joins):
        log.wait_commits(CALM_BETWEEN)
        seen = len(log.events())
        guest = subprocess.Popen([program, "join", ticket, "--dir", str(scratch / f"join{turn}"), "--threads", "1"],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        joined = log.wait("join", lambda events: [e for e in events[seen:] if e["event"] == "node_joined"])[0]
        entered = log.wait("entry", lambda events: [
            e for e in events[seen:] if e["event"] == "node_entered" and e["node"] == joined["node"]])[0]
        arrived = [e for e in log.events()[seen:] if e["event"] == "state_arriving" and e["node"] == joined["node"]]
        spans.append((joined["time_ms"], entered["time_ms"]))
        print(f"join {turn + 1}: {(entered['time_ms'] - joined['time_ms']) / 1000:.1f} s until it serves stage "
              f"{entered['stage']}, {arrived[-1]['bytes_total'] / 2**20 if arrived else 0:.0f} MiB copied", flush=True)
        log.wait_commits(1)
        guest.send_signal(signal.SIGTERM)
        guest.wait()
    log.wait_commits(CALM_BETWEEN)
    report(log.events(), spans)


def report(events, spans):
    """An iteration is from the beginning of its first attempt to that of the next one's, holding up for the joiner included."""
    begins = [(event["iteration"], event["time_ms"]) for event in events
              if event["event"] == "attempt_started" and event["attempt"] == 0]
    aborted = sum(event["event"] == "attempt_aborted" for event in events)
    during, calm, doubled = [], [], []
    for (_, before), (_, after) in zip(begins[1:], begins[2:]):
        seconds = (after - before) / 1000
        if any(start < after and before < end for start, end in spans):
            during.append(seconds)
        elif any(end <= before < end + 1500 * seconds for _, end in spans):
            # With the node at work its stage is another one: it exchanges gradients, and computes faster.
            doubled.append(seconds)
        else:
            calm.append(seconds)
    each = " ".join(f"{seconds:.2f}" for seconds in during)
    print(f"calm: {len(calm)} iterations, {mean(calm):.2f} s in the mean (longest {max(calm):.2f} s)")
    print(f"while a node copies, until it is in: {each} s, {mean(during):.2f} in the mean: "
          f"{100 * (mean(during) / mean(calm) - 1):+.1f} %")
    print(f"with the node at work: {mean(doubled):.2f} s in the mean")
    print(f"attempts that were broken off: {aborted}")


if __name__ == "__main__":
    main()
