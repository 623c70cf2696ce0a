#!/usr/bin/env python3
"""Ours against PyTorch eager, run alternately so that other load on the machine hits both; prints the ratios.

compare_torch.py [ROUNDS] [WIDTH ...]   (first: cargo build --release -p skipstone-model --example bench_stage;
BENCH_STAGE names the binary). PyTorch's threads wait passively: on a
busy machine its spinning would count against it, on a quiet one it makes no difference. On a busy machine believe
the ratio of processor time, which counts what was computed and not what was waited for."""
import json, os, statistics, subprocess, sys

HERE = os.path.dirname(os.path.abspath(__file__))
OURS = os.environ.get("BENCH_STAGE", f"{HERE}/../../../target/release/examples/bench_stage")
#        width heads ffn context batch repeats
SHAPES = {128: (4, 384, 128, 8, 60), 512: (8, 1408, 512, 4, 5), 1024: (16, 2752, 1024, 2, 3)}
os.environ |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
widths = list(map(int, sys.argv[2:])) or list(SHAPES)


def run(command):
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


for width in widths:
    heads, ffn, context, batch, repeats = SHAPES[width]
    for threads in (1, 2):
        args = list(map(str, (width, heads, ffn, context, batch, threads, repeats)))
        pairs = []
        for _ in range(rounds):
            ours = run([OURS, *args])
            torch = run([sys.executable, f"{HERE}/bench_torch.py", *args])
            pairs.append((ours, torch))
        ratio = lambda key: statistics.median(o[key] / t[key] for o, t in pairs)
        med = lambda i, key: statistics.median(p[i][key] for p in pairs)
        print(f"width {width} context {context} batch {batch} threads {threads}: "
              f"tokens/s {med(0, 'tokens_per_s'):.0f} against {med(1, 'tokens_per_s'):.0f} = "
              f"{ratio('tokens_per_s'):.2f}x (best of each "
              f"{max(o['tokens_per_s'] for o, _ in pairs) / max(t['tokens_per_s'] for _, t in pairs):.2f}x); "
              f"processor time {med(1, 'cpu_ms') / med(0, 'cpu_ms'):.2f}x; ms forward {med(0, 'forward_ms'):.1f}/{med(1, 'forward_ms'):.1f} "
              f"backward {med(0, 'backward_ms'):.1f}/{med(1, 'backward_ms'):.1f} "
              f"optimizer {med(0, 'optimizer_ms'):.1f}/{med(1, 'optimizer_ms'):.1f}; "
              f"peak MB {med(0, 'peak_rss_bytes') / 1e6:.0f}/{med(1, 'peak_rss_bytes') / 1e6:.0f} = "
              f"{ratio('peak_rss_bytes'):.2f}x (without the interpreter and libraries "
              f"{statistics.median(o['peak_rss_bytes'] / (t['peak_rss_bytes'] - t['rss_before_bytes']) for o, t in pairs):.2f}x)",
              flush=True)
