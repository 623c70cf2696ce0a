#!/usr/bin/env python3
"""Peak memory of a command and all its descendants together, in proportional set size (Linux).

peak_memory.py COMMAND …    e.g. peak_memory.py skipstone train --plain --model 124m --stages 4 --steps 3
Shared pages count once. Sampled every 100 ms; the peak, and what each process then had, go to stderr."""
import os, subprocess, sys, time


def descendants(root):
    children = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as file:
                parent = int(file.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(entry))
    found, todo = [], [root]
    while todo:
        process = todo.pop()
        found.append(process)
        todo += children.get(process, [])
    return found


def pss_kib(process):
    try:
        with open(f"/proc/{process}/smaps_rollup") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0


command = subprocess.Popen(sys.argv[1:])
peak = {}
while command.poll() is None:
    now = {process: pss_kib(process) for process in descendants(command.pid)}
    if sum(now.values()) > sum(peak.values()):
        peak = now
    time.sleep(0.1)
each = ", ".join(str(kib // 1024) for kib in sorted(peak.values(), reverse=True))
print(f"peak of all processes: {sum(peak.values()) / 1024:.0f} MiB ({each})", file=sys.stderr)
sys.exit(command.returncode)
