#!/usr/bin/env python3
"""Writes the golden files that the Rust tests compare with: values, gradients and losses by PyTorch's autograd on
transformers' LLaMA. Needs torch, transformers, safetensors. Run: python make_golden.py (writes beside itself)."""
import json, os
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
torch.set_num_threads(1)


def config(**over):
    base = dict(vocab_size=37, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=3,
                num_key_value_heads=3, max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0,
                tie_word_embeddings=False)
    return base | over


GQA = dict(num_attention_heads=4, num_key_value_heads=2, head_dim=6, rope_theta=500000.0,
           rope_scaling=dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                             original_max_position_embeddings=32))
CASES = {
    "mha": (config(), 2, 11),
    "gqa": (config(**GQA), 2, 19),
    "tied": (config(num_key_value_heads=1, tie_word_embeddings=True), 3, 7),
}


def build(cfg, seed):
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**cfg))
    with torch.no_grad():  # larger weights than at the start of training, so that every path matters
        for name, p in model.named_parameters():
            p.copy_(torch.randn_like(p) * (0.2 if p.dim() > 1 else 0.1) + (1.0 if p.dim() == 1 else 0.0))
    return model


def layers(model, x):
    """The model's decoder layers alone."""
    t = x.shape[1]
    positions = torch.arange(t)[None]
    rope = model.model.rotary_emb(x, positions)
    for layer in model.model.layers:
        x = layer(x, attention_mask=None, position_ids=positions, position_embeddings=rope)
        x = x[0] if isinstance(x, tuple) else x
    return x


def case(name, cfg, b, t):
    model = build(cfg, 1)
    out = {f"w.{k}": v.detach().clone() for k, v in model.named_parameters()}
    # 1. the layers as a relay stage
    x = torch.randn(b, t, cfg["hidden_size"], requires_grad=True)
    dy = torch.randn(b, t, cfg["hidden_size"])
    y = layers(model, x)
    y.backward(dy)
    out |= {"x": x.detach(), "dy": dy, "y": y.detach(), "dx": x.grad.clone()}
    out |= {f"relay.{k}": p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    # 2. the whole model as an origin
    tokens = torch.randint(cfg["vocab_size"], (b, t))
    targets = torch.randint(cfg["vocab_size"], (b, t))
    targets[0, 2] = -100
    logits = model(tokens).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    (loss * 0.5).backward()
    out |= {f"origin.{k}": p.grad.clone() for k, p in model.named_parameters()}
    out |= {"tokens": tokens.int(), "targets": targets.int(), "logits": logits.detach(),
            "loss": loss.detach()[None]}
    save_file({k: v.contiguous() for k, v in out.items()}, f"{HERE}/{name}.safetensors",
              metadata={"config": json.dumps(cfg), "batch": str(b), "context": str(t)})


def training():
    """Ten steps: mean loss of each, AdamW with decay on matrices only, gradients clipped to 1."""
    cfg, b, t = config(num_key_value_heads=1), 4, 12
    model = build(cfg, 2)
    out = {f"w.{k}": v.detach().clone() for k, v in model.named_parameters()}
    matrices = [p for p in model.parameters() if p.dim() > 1]
    norms = [p for p in model.parameters() if p.dim() == 1]
    adam = torch.optim.AdamW([dict(params=matrices, weight_decay=0.1), dict(params=norms, weight_decay=0.0)],
                             lr=3e-3, betas=(0.9, 0.95), eps=1e-8)
    tokens = torch.randint(cfg["vocab_size"], (10, b, t + 1))
    losses, norms_out = [], []
    for batch in tokens:
        logits = model(batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        adam.zero_grad()
        loss.backward()
        norms_out.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        adam.step()
        losses.append(loss.item())
    out |= {"tokens": tokens.int(), "losses": torch.tensor(losses), "norms": torch.tensor(norms_out)}
    out |= {f"end.{k}": v.detach().clone() for k, v in model.named_parameters()}
    save_file(out, f"{HERE}/training.safetensors",
              metadata={"config": json.dumps(cfg), "batch": str(b), "context": str(t)})


for name, (cfg, b, t) in CASES.items():
    case(name, cfg, b, t)
training()
