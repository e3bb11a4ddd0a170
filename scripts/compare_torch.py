#!/usr/bin/env python3
"""This program beside PyTorch: the same random weights of Qwen3-0.6B's shape, the same tokens, in turn, in one run.

Usage: python3 scripts/compare_torch.py [--device cpu|cuda] [--qwen3 ./qwen3] [--threads 2]
           [--layers 4] [--windows 4] [--samples 4] [--repeats 2] [--dtype bfloat16|float32]

Prints a table: forward tokens/s with the loss, perplexity, seconds of GPTQ. `./qwen3 --save` writes the weights; both sides read
them, cut to the first --layers layers (all 28: --layers 28). The texts and the tokenizer are the bundled model's.
    PyTorch's forward:  transformers, bf16, scaled_dot_product_attention, a window of 2048 tokens at a time; loss in float32. On a CPU
                        without AVX-512 its bf16 takes minutes a window: --dtype float32 is its fastest there (ours stays in bf16).
    PyTorch's GPTQ:     gptq() below, written as the paper's repository does it: a pass through the layer for each of its four
                        groups of linears, Hessians in float32, blocks of 128 columns, group size 128, --act-order; the tokens are
                        WikiText's, so only the time is compared, over --samples samples of 2048 tokens.
Times are each side's own: ours what --json says of `evaluate` and `quantize`, which leaves out loading and tokenizing, as does
PyTorch's. The best of --repeats, which take turns. Packages: torch, transformers (4.56 or later).
"""
import sys

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):  # before it needs its packages
    sys.exit(print(__doc__))

import argparse
import json
import math
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

try:
    import torch
    from transformers import AutoModelForCausalLM, __version__ as transformers_version
    from transformers.utils import logging
except ImportError as error:
    sys.exit(f"compare_torch.py: {error}. HINT: pip install torch transformers")
if tuple(int(part) for part in transformers_version.split(".")[:2]) < (4, 56):  # from_pretrained's dtype
    sys.exit(f"compare_torch.py: expected transformers 4.56 or later, found {transformers_version}. HINT: pip install -U transformers")

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "data" / "tiny"
WINDOW, BITS, GROUP, BLOCK = 2048, 4, 128, 128
GROUPS = (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("self_attn.o_proj",),
          ("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",))


def qwen3(program, *arguments):
    """Runs it; its stdout. Its stderr is shown if it fails."""
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{program} {' '.join(map(str, arguments))}: exit status {done.returncode}\n{done.stderr}")
    return done.stdout


def make_checkpoint(program, folder, layers):
    qwen3(program, "-m", "random:0.6b", "--save", folder)
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = layers  # the other layers' tensors stay in the file, unread
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        shutil.copy(TINY / name, folder)


def wikitext_text():
    """The bundled WikiText stand-in as the program reads it: a row a line, white space alone as "", joined with two newlines."""
    with open(TINY / "wikitext2" / "wiki.test.raw", newline="\n") as lines:
        return "\n\n".join(line if line.strip() else "" for line in lines)


def ours(program, folder, *arguments):
    report = folder / "report.json"
    qwen3(program, "-m", folder, "--data", TINY, "-e", "wikitext2", "--json", report, *arguments)
    return json.loads(report.read_text())


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


@torch.no_grad()
def forward(model, windows):
    """Perplexity of windows [W, 2048]: exp of the mean of 2047 losses a window."""
    losses = []
    for window in windows:
        logits = model(window[None]).logits[0, :-1]
        targets = window[1:]
        total = sum(torch.nn.functional.cross_entropy(logits[i:i + 256].float(), targets[i:i + 256], reduction="sum").item()
                    for i in range(0, len(targets), 256))
        losses.append(total / len(targets))
    return math.exp(sum(losses) / len(losses))


def gptq_linear(linear, H):
    """Quantizes linear.weight [O, I] in place; H [I, I] float32 is 2/n X^T X over all tokens of n windows."""
    W = linear.weight.data.float()
    dead = H.diagonal() == 0
    H.diagonal()[dead] = 1
    W[:, dead] = 0
    order = torch.argsort(H.diagonal(), descending=True)
    W, H = W[:, order], H[order][:, order]
    H.diagonal().add_(0.01 * H.diagonal().mean())
    U = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H)), upper=True)
    Q = torch.zeros_like(W)
    for start in range(0, W.shape[1], BLOCK):
        end = min(start + BLOCK, W.shape[1])
        block, errors = W[:, start:end].clone(), torch.zeros_like(W[:, start:end])
        for i in range(end - start):
            if (start + i) % GROUP == 0:
                columns = W[:, start + i:start + i + GROUP]
                low, high = columns.amin(1).clamp(max=0), columns.amax(1).clamp(min=0)
                scale = (high - low).clamp(min=1e-9) / (2**BITS - 1)
                zero = torch.round(-low / scale)
            code = torch.clamp(torch.round(block[:, i] / scale) + zero, 0, 2**BITS - 1)
            Q[:, start + i] = scale * (code - zero)
            errors[:, i] = (block[:, i] - Q[:, start + i]) / U[start + i, start + i]
            block[:, i:] -= errors[:, i:i + 1] * U[start + i, start + i:end]
        W[:, end:] -= errors @ U[start:end, end:]
    linear.weight.data = Q[:, torch.argsort(order)].to(linear.weight.dtype)


@torch.no_grad()
def gptq(model, windows):
    """GPTQ of all layers, each group of linears from inputs that have passed through the quantized ones before it."""
    hidden = [model.model.embed_tokens(window[None]) for window in windows]
    positions = model.model.rotary_emb(hidden[0], torch.arange(WINDOW, device=hidden[0].device)[None])
    for layer in model.model.layers:
        for names in GROUPS:
            linears = [layer.get_submodule(name) for name in names]
            H = torch.zeros(linears[0].in_features, linears[0].in_features, device=hidden[0].device)

            def add(module, inputs):
                X = inputs[0].reshape(-1, module.in_features).float()
                H.addmm_(X.T, X, alpha=2 / len(hidden))

            handle = linears[0].register_forward_pre_hook(add)
            for x in hidden:
                layer(x, attention_mask=None, position_embeddings=positions)
            handle.remove()
            for linear in linears:
                gptq_linear(linear, H.clone())
        hidden = [layer(x, attention_mask=None, position_embeddings=positions) for x in hidden]


def timed(device, function, *arguments):
    synchronize(device)
    start = time.perf_counter()
    result = function(*arguments)
    synchronize(device)
    return time.perf_counter() - start, result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--qwen3", default=str(ROOT / "qwen3"), help="the program, built for that device")
    parser.add_argument("--threads", type=int, default=2, help="of either side")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--windows", type=int, default=4, help="of 2048 tokens, for the forward pass")
    parser.add_argument("--samples", type=int, default=4, help="of 2048 tokens, for GPTQ")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="PyTorch's")
    o = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(o.threads)
    os.environ["OMP_NUM_THREADS"] = str(o.threads)  # ours
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        make_checkpoint(o.qwen3, folder, o.layers)
        (folder / "text").write_text(wikitext_text())
        ids = [int(line) for line in qwen3(o.qwen3, "-m", folder, "--tokenize", folder / "text").split()]
        n_windows = max(o.windows, o.samples)
        if len(ids) < n_windows * WINDOW:
            raise SystemExit(f"the bundled text has {len(ids)} tokens, too few for {n_windows} windows of {WINDOW}")
        windows = torch.tensor(ids[:n_windows * WINDOW]).reshape(-1, WINDOW).to(o.device)

        def load():
            return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, o.dtype), attn_implementation="sdpa").to(o.device).eval()

        model = load()
        forward(model, windows[:1])  # warm
        best = {name: math.inf for name in ("our forward", "their forward", "our GPTQ", "their GPTQ")}

        def note(name, seconds):
            best[name] = min(best[name], seconds)

        for _ in range(o.repeats):
            report = ours(o.qwen3, folder, "--limit", o.windows)
            note("our forward", report["seconds"]["evaluate"])
            seconds, their_ppl = timed(o.device, forward, model, windows[:o.windows])
            note("their forward", seconds)
        our_ppl = report["results"]["wikitext2"]["value"]
        del model
        for _ in range(o.repeats):
            report_gptq = ours(o.qwen3, folder, "--limit", 1, "-q", "gptq", "-b", BITS, "-g", GROUP, "-n", o.samples)
            note("our GPTQ", report_gptq["seconds"]["quantize"])
            note("their GPTQ", timed(o.device, gptq, load(), windows[:o.samples])[0])

    tokens = o.windows * WINDOW
    print(f"{report['device']}; torch {torch.__version__} on {o.device} in {o.dtype}; commit {report['commit']}; random:0.6b, {o.layers} layers")
    print(f"{'what':<44} {'ours':>12} {'PyTorch':>12} {'ratio':>8}")
    our_rate, their_rate = tokens / best["our forward"], tokens / best["their forward"]
    print(f"{f'forward with loss, {tokens} tokens, tokens/s':<44} {our_rate:12.0f} {their_rate:12.0f} {our_rate / their_rate:8.2f}")
    print(f"{'perplexity of the same tokens':<44} {our_ppl:12.1f} {their_ppl:12.1f} {our_ppl / their_ppl:8.4f}")
    name = f"GPTQ, {o.samples * WINDOW} tokens, s"
    print(f"{name:<44} {best['our GPTQ']:12.2f} {best['their GPTQ']:12.2f} {best['their GPTQ'] / best['our GPTQ']:8.2f}")


if __name__ == "__main__":
    main()
