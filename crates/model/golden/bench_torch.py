#!/usr/bin/env python3
"""The same as `skipstone bench stage`, in PyTorch eager: LLaMA layers with SDPA, backward, clipping, Adam (foreach).

bench_torch.py WIDTH HEADS FFN CONTEXT BATCH THREADS REPEATS [LAYERS] [KV_HEADS] -> one JSON line"""
import json, resource, statistics, sys, time
import torch
import torch.nn as nn
import torch.nn.functional as F

a = list(map(int, sys.argv[1:]))
width, heads, ffn, context, batch, threads, repeats = a[:7]
n_layers = a[7] if len(a) > 7 else 2
kv_heads = a[8] if len(a) > 8 else heads
torch.set_num_threads(threads)
hd = width // heads


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x, (width,), self.weight, 1e-5)


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        lin = lambda i, o: nn.Linear(i, o, bias=False)
        self.n1, self.n2 = Norm(), Norm()
        self.q, self.k, self.v = lin(width, width), lin(width, kv_heads * hd), lin(width, kv_heads * hd)
        self.o = lin(width, width)
        self.gate, self.up, self.down = lin(width, ffn), lin(width, ffn), lin(ffn, width)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        h = self.n1(x)
        q = rotate(self.q(h).view(b, t, heads, hd).transpose(1, 2), cos, sin)
        k = rotate(self.k(h).view(b, t, kv_heads, hd).transpose(1, 2), cos, sin)
        v = self.v(h).view(b, t, kv_heads, hd).transpose(1, 2)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=kv_heads != heads)
        x = x + self.o(o.transpose(1, 2).reshape(b, t, width))
        h = self.n2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


torch.manual_seed(0)
layers = nn.ModuleList(Layer() for _ in range(n_layers))
params = list(layers.parameters())
adam = torch.optim.Adam(params, lr=3e-4, fused=False)
inv = 1.0 / 10000 ** (torch.arange(0, hd, 2).float() / hd)
angle = torch.outer(torch.arange(context).float(), inv)
angle = torch.cat((angle, angle), -1)
cos, sin = angle.cos(), angle.sin()
x0, dy = torch.randn(batch, context, width), torch.randn(batch, context, width)
rss = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = rss()
times = [[], [], []]
for i in range(repeats + 1):
    if i == 1:
        cpu = time.process_time()
    t0 = time.perf_counter()
    x = x0.detach().requires_grad_()
    y = x
    for layer in layers:
        y = layer(y, cos, sin)
    t1 = time.perf_counter()
    y.backward(dy)
    t2 = time.perf_counter()
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    adam.step()
    adam.zero_grad(set_to_none=True)
    t3 = time.perf_counter()
    if i:
        for list_, t in zip(times, (t1 - t0, t2 - t1, t3 - t2)):
            list_.append(t * 1e3)
cpu = (time.process_time() - cpu) * 1e3 / repeats
f, b, o = map(statistics.median, times)
print(json.dumps(dict(forward_ms=f, backward_ms=b, optimizer_ms=o, tokens_per_s=batch * context * 1e3 / (f + b + o), cpu_ms=cpu,
                      peak_rss_bytes=rss(), rss_before_bytes=before)))
