#!/usr/bin/env python3
"""Writes the reference files under test/golden/ that the C++ tests compare with; run from anywhere:

Usage: python3 scripts/golden/make_golden.py            writes the files, on the CPU
       python3 scripts/golden/make_golden.py --check    generates them again elsewhere and compares with the stored files
Packages: numpy, safetensors, tokenizers, torch, transformers (5: an older one reads no rope_parameters).

1. test/golden/NAME/{config.json, reference.safetensors}: logits of Hugging Face transformers, eager attention, for
   random weights that golden_common.py defines; the weights are not stored. Tensors:
       seed I32 [1]                  of the weights and tokens
       tokens I32 [2048]             tokens(seed, i, V); a sequence of length T is the first T of them
       rows_T I32 [R]                for T = 1, 7, 1025, 2048: the positions whose logits are stored
       logits_T F32 [R, V]           after position rows_T[r] of the sequence of length T
   Logits come from the float64 model, rounded to float32; Hugging Face keeps the arithmetic of rotary angles, norms and
   softmax in float32 even there. The metadata's one entry, "about", tells how far the float32 model is from it.
2. test/golden/checkpoints/NAME: small checkpoints as save_pretrained writes them, with a reference.safetensors as above
   (T = 40). Weights are golden_common.py's, rounded to the stored dtype; the logits are those of the rounded weights.
       bf16_tied             one file; lm_head.weight is stored too, and config.json has the keys of the official Qwen3
                             checkpoints (rope_theta and torch_dtype at the top level, not rope_parameters)
       f16_untied_sharded    three shards and model.safetensors.index.json
       f32                   Qwen2 with q, k, v biases, tied, without lm_head.weight
3. test/golden/gptq.safetensors: golden_gptq.py's results (see references() there); codes are packed two a byte.
   test/golden/billm.safetensors: golden_billm.py's; masks are packed four a byte.
   test/golden/awq.safetensors: golden_awq.py's.
   (test/golden/packed/ is written by golden_packed.py itself, which needs numpy alone.)
4. test/golden/prompts/: golden_prompts.py's prompts, token ids and scores of the multiple-choice tasks (see there). Its
   real.json needs the real sets ($QWEN3_DATA, else ../shared/data); without them the stored one stays.
"""
import sys

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):  # before it needs its packages
    sys.exit(print(__doc__))

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM,
                          Qwen3Config, Qwen3ForCausalLM, __version__ as transformers_version)
from transformers.utils import logging

import golden_awq
import golden_billm
import golden_common
import golden_gptq
import golden_prompts
import golden_smoothquant

if int(transformers_version.split(".")[0]) < 5:
    sys.exit(f"make_golden.py: expected transformers 5, found {transformers_version}. HINT: pip install -U transformers")
GOLDEN = Path(__file__).resolve().parents[2] / "test" / "golden"
LENGTHS = (1, 7, 1025, 2048)


def shape(hidden, layers, heads, kv, ffn, vocab, tied, head_dim=None, theta=1e6, eps=1e-6):
    options = dict(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv,
                   intermediate_size=ffn, vocab_size=vocab, tie_word_embeddings=tied, rms_norm_eps=eps, dtype="float32",
                   max_position_embeddings=4096, rope_parameters=dict(rope_type="default", rope_theta=theta),
                   bos_token_id=None, eos_token_id=None, pad_token_id=None)
    return options | (dict(head_dim=head_dim) if head_dim else {})


# name: model class, config, seed
LOGITS = {
    "qwen3_tied": (Qwen3ForCausalLM, Qwen3Config(**shape(64, 3, 4, 2, 160, 300, True, 32)), 1),
    "qwen3_untied": (Qwen3ForCausalLM, Qwen3Config(**shape(96, 2, 6, 1, 128, 257, False, 16, 1e4, 1e-5)), 2),
    "qwen2_bias": (Qwen2ForCausalLM, Qwen2Config(**shape(64, 2, 4, 4, 96, 200, True)), 3),
    "llama": (LlamaForCausalLM, LlamaConfig(**shape(64, 2, 4, 2, 96, 200, False, theta=5e5, eps=1e-5)), 4),
    "llama3_scaling": (LlamaForCausalLM, LlamaConfig(**shape(64, 2, 4, 2, 96, 200, False, 32) | dict(rope_parameters=dict(
        rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=256))), 6),
    "qwen3_06b_2layers": (Qwen3ForCausalLM, Qwen3Config(**shape(1024, 2, 16, 8, 3072, 512, True, 128)), 5),
}
CHECKPOINTS = {
    "bf16_tied": (Qwen3ForCausalLM, Qwen3Config(**shape(32, 2, 4, 2, 64, 120, True, 16)), 11),
    "f16_untied_sharded": (Qwen3ForCausalLM, Qwen3Config(**shape(48, 2, 3, 1, 80, 97, False, 16, 1e4, 1e-5)), 12),
    "f32": (Qwen2ForCausalLM, Qwen2Config(**shape(32, 2, 2, 2, 48, 110, True)), 13),
}


def build(model_class, config, seed):
    """The model in float32 with golden_common's weights, eager attention."""
    config._attn_implementation = "eager"
    model = model_class(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(golden_common.weight(name, seed, tuple(parameter.shape))))
    return model


@torch.no_grad()
def reference(model, seed, lengths):
    """Tensors and metadata of a reference.safetensors; turns the model into float64."""
    vocab = model.config.vocab_size
    tokens = torch.from_numpy(golden_common.tokens(seed, max(lengths), vocab))
    out, worst = {"seed": torch.tensor([seed], dtype=torch.int32), "tokens": tokens}, 0.0
    rows = {T: torch.arange(T) if T <= 64 else torch.linspace(0, T - 1, 12).round().long() for T in lengths}
    single = {T: model(tokens[None, :T].long(), use_cache=False).logits[0, rows[T]] for T in lengths}
    model.double()
    for T in lengths:
        logits = model(tokens[None, :T].long(), use_cache=False).logits[0, rows[T]]
        assert logits.dtype == torch.float64 and not logits.isnan().any()
        worst = max(worst, float((single[T] - logits).abs().max() / logits.abs().max()))
        out[f"rows_{T}"], out[f"logits_{T}"] = rows[T].int(), logits.float().contiguous()
    top = logits[-1].sort(descending=True).values[:3]
    print(f"    float32 differs from float64 by {worst:.1e} of the largest logit; last row's largest: {top.tolist()}")
    assert worst < 1e-5
    # One entry only: safetensors writes several in random order, and the same run should give the same bytes.
    return out, {"about": f"transformers {transformers_version}, computed in float64; float32 differs by {worst:.0e} "
                          "of the largest logit"}


def write_config(model, folder, official_keys=False):
    """config.json as save_pretrained writes it, or with the keys that the official Qwen3 checkpoints have."""
    model.config.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["architectures"] = [type(model).__name__]
    if official_keys:
        config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
        config["rope_scaling"] = None
        config["torch_dtype"] = config.pop("dtype")
        del config["layer_types"]
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def make_logits(golden):
    for name, (model_class, config, seed) in LOGITS.items():
        print(name)
        folder = golden / name
        folder.mkdir(parents=True)
        model = build(model_class, config, seed)
        write_config(model, folder)
        tensors, metadata = reference(model, seed, LENGTHS)
        save_file(tensors, folder / "reference.safetensors", metadata)


def make_checkpoints(golden):
    dtypes = {"bf16_tied": torch.bfloat16, "f16_untied_sharded": torch.float16, "f32": torch.float32}
    for name, (model_class, config, seed) in CHECKPOINTS.items():
        print(f"checkpoints/{name}")
        folder = golden / "checkpoints" / name
        model = build(model_class, config, seed).to(dtypes[name])
        model.save_pretrained(folder, max_shard_size="40KB" if name.endswith("sharded") else "1GB")
        (folder / "generation_config.json").unlink(missing_ok=True)
        if name == "bf16_tied":
            tensors = load_file(folder / "model.safetensors")
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
            save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        write_config(model, folder, official_keys=name == "bf16_tied")
        shards = len(list(folder.glob("model*.safetensors")))
        assert shards == (3 if name.endswith("sharded") else 1), f"{name}: {shards} shards"
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        tensors, metadata = reference(model, seed, (40,))
        save_file(tensors, folder / "reference.safetensors", metadata)


def make_gptq(golden):
    save_file(golden_gptq.references(), golden / "gptq.safetensors")


def make_smoothquant(golden):
    save_file(golden_smoothquant.references(), golden / "smoothquant.safetensors",
              metadata={"about": "scripts/golden/golden_smoothquant.py"})


def make_awq(golden):
    save_file(golden_awq.references(), golden / "awq.safetensors")


def make_billm(golden):
    save_file(golden_billm.references(), golden / "billm.safetensors")


def make_prompts(golden):
    (golden / "prompts").mkdir()
    golden_prompts.write(golden / "prompts")


def same_json(a, b):
    """Equality, but fractions (the scores of golden_prompts.py) may differ by 0.001."""
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= 1e-3
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_json(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same_json, a, b))
    return type(a) is type(b) and a == b


def difference(name, stored, new):
    """A sentence when two tensors differ by more than their kind may, else None."""
    if stored.shape != new.shape or stored.dtype != new.dtype:
        return f"stored {list(stored.shape)} {stored.dtype}, now {list(new.shape)} {new.dtype}"
    if name.endswith((".codes", ".masks")):
        share = float((stored != new).double().mean())
        return f"{share:.2%} of bytes differ (1% may)" if share > 0.01 else None
    if name.endswith((".clip", ".margin")):
        share = float(((stored.double() - new.double()).abs() > 0.01 * stored.double()).double().mean())
        return f"{share:.2%} of entries differ by more than 1% (3% may)" if share > 0.03 else None
    if name.endswith((".loss", ".losses", ".error", ".errors", ".error_float64", ".rtn_error")):
        worst = float((stored / new - 1).abs().max())
        return f"relative difference {worst:.1e} (2e-3 may be)" if worst > 2e-3 else None
    if name.endswith((".scale", ".zero", ".threshold", ".W_hat")):
        share = float(((stored - new).abs() > 1e-3 * new.abs()).double().mean())
        return f"{share:.2%} of entries differ by more than 0.1% (1% may)" if share > 0.01 else None
    if name.startswith("logits_") or name == "check.H_diagonal" or name.endswith(".y"):
        worst = float((stored - new).abs().max() / new.abs().max())
        return f"differ by {worst:.1e} of the largest (1e-5 may be)" if worst > 1e-5 else None
    return None if torch.equal(stored, new) else "differ (they must be equal)"


def compare(golden, fresh):
    """Compares every file that was generated with the stored one; returns the number of complaints."""
    complaints = []
    for path in sorted(p for p in fresh.rglob("*") if p.is_file()):
        name = path.relative_to(fresh)
        if not (golden / name).is_file():
            complaints.append(f"{name}: not stored")
        elif path.suffix == ".json":
            a, b = (json.loads(p.read_text()) for p in (golden / name, path))
            for config in (a, b):
                config.pop("transformers_version", None)
            if not (same_json(a, b) if name.parts[0] == "prompts" else a == b):
                complaints.append(f"{name}: JSON differs")
        elif path.suffix == ".safetensors":
            a, b = load_file(golden / name), load_file(path)
            if a.keys() != b.keys():
                complaints.append(f"{name}: tensor names differ")
            for key in sorted(a.keys() & b.keys()):
                problem = difference(key, a[key], b[key])
                if problem:
                    complaints.append(f"{name}: {key}: {problem}")
        elif (golden / name).read_bytes() != path.read_bytes():
            complaints.append(f"{name}: bytes differ")
    for complaint in complaints:
        print(complaint)
    print("check: " + (f"{len(complaints)} differences" if complaints else "the stored files are reproduced"))
    return len(complaints)


def main():
    parser = argparse.ArgumentParser(description="Writes or checks the reference files under test/golden/.")
    parser.add_argument("--check", action="store_true", help="generate again and compare with the stored files")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        make_logits(fresh)
        make_checkpoints(fresh)
        make_gptq(fresh)
        make_awq(fresh)
        make_billm(fresh)
        make_smoothquant(fresh)
        make_prompts(fresh)
        if arguments.check:
            return 1 if compare(GOLDEN, fresh) else 0
        for entry in [*LOGITS, "checkpoints", "prompts/edge"]:
            shutil.rmtree(GOLDEN / entry, ignore_errors=True)
        for path in fresh.glob("*.safetensors"):
            (GOLDEN / path.name).unlink(missing_ok=True)
        shutil.copytree(fresh, GOLDEN, copy_function=shutil.copyfile, dirs_exist_ok=True)
        GOLDEN.chmod(0o755)  # the temporary folder's permissions came along
    return 0


if __name__ == "__main__":
    sys.exit(main())
