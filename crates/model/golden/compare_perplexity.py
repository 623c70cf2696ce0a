#!/usr/bin/env python3
"""Perplexity of a LLaMA folder that `transformers` wrote, here and in PyTorch, on the same text and windows.

compare_perplexity.py MODEL TEXT SKIPSTONE   (MODEL: a folder with a tokenizer, such as RUN/model; SKIPSTONE: the binary)
Loads MODEL with `transformers`, writes it again with `save_pretrained`, and evaluates that folder with both."""
import json, math, os, subprocess, sys, tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

model_folder, text_file, skipstone = sys.argv[1:4]
model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(model_folder)
context = min(model.config.max_position_embeddings, 1024)
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    ours = json.loads(subprocess.run(
        [skipstone, "eval", folder, "--data", text_file, "--context", str(context), "--json"],
        capture_output=True, text=True, check=True).stdout)
text = open(text_file, encoding="utf-8").read()
tokens = tokenizer(text, return_tensors="pt", verbose=False).input_ids[0]
# A document ends with the end-of-text token, which is predicted too.
tokens = torch.cat((tokens, torch.tensor([model.config.eos_token_id])))
assert len(tokens) - 1 == ours["tokens"], (len(tokens) - 1, ours["tokens"])
total = 0.0
with torch.no_grad():
    for start in range(0, len(tokens) - 1, context):
        window = tokens[start:start + context + 1]
        logits = model(window[None, :-1]).logits[0]
        total += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
theirs = math.exp(total / (len(tokens) - 1))
mine = ours["results"][0]["perplexity"]
print(f"{ours['tokens']} tokens: perplexity {mine:.6f} here, {theirs:.6f} in PyTorch, relative difference {abs(mine / theirs - 1):.1e}")
sys.exit(abs(mine / theirs - 1) > 1e-3)
