#!/usr/bin/env python3
"""Both directions between our model folders and `transformers`.

  check_transformers.py logits DIR TOKENS.json OUT.bin   opens DIR, writes its logits (f32, little-endian) for the token rows
  check_transformers.py make DIR SPEC.json OUT.bin       saves a random LLaMA as SPEC says into DIR, and writes its logits
  check_transformers.py encode DIR TEXT                  prints the tokens that AutoTokenizer makes of TEXT, and their text

Exit code 77: torch or transformers is not installed."""
import json, sys

try:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(77)

torch.set_num_threads(1)


def write_logits(model, rows, out):
    with torch.no_grad():
        logits = model.eval()(torch.tensor(rows)).logits
    open(out, "wb").write(logits.contiguous().numpy().astype("<f4").tobytes())


def logits(folder, tokens, out):
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert type(model) is LlamaForCausalLM, type(model)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[kind], (kind, info[kind])
    write_logits(model, json.load(open(tokens)), out)
    print(json.dumps({"eos": model.generation_config.eos_token_id, "bos": model.config.bos_token_id}))


def make(folder, spec, out):
    spec = json.load(open(spec))
    torch.manual_seed(spec["seed"])
    model = LlamaForCausalLM(LlamaConfig(**spec["config"]))
    with torch.no_grad():  # larger weights than at the start of training, so that every path matters
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * (0.2 if p.dim() > 1 else 0.1) + (1.0 if p.dim() == 1 else 0.0))
    model = model.to(getattr(torch, spec["dtype"]))
    model.save_pretrained(folder, max_shard_size=spec["shard"])
    # Opened anew: converting in memory would round the rotary frequencies too.
    write_logits(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), spec["tokens"], out)


def encode(folder, text):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text)["input_ids"]
    print(json.dumps({"ids": ids, "text": tokenizer.decode(ids), "eos": tokenizer.eos_token_id}))


{"logits": logits, "make": make, "encode": encode}[sys.argv[1]](*sys.argv[2:])
