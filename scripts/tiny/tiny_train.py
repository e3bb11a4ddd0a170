"""The model of data/tiny (see make_tiny.py): its training, and its evaluation in PyTorch as a check on the C++ program.

`train` and `evaluate` are the stages --train and --eval; `args` are make_tiny.py's. Both read WORK/tiny (config.json,
the tokenizer, the sets), `train` also WORK/tokens.npy. They write OUT/model.safetensors and OUT/train.json, and
OUT/eval.json: perplexity and accuracy in float32 of the stored model, and of it rounded by RTN and by GPTQ.

defines: train, evaluate
Shapes: T tokens of a window, B windows of a batch, O x I a weight.

Usage: part of make_tiny.py. Packages: numpy, safetensors, tokenizers, torch, transformers.
"""
if __name__ == "__main__":
    raise SystemExit(print(__doc__))

import csv
import json
import math
import random
import sys
import time

import numpy
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoConfig, Qwen3ForCausalLM

from tiny_questions import PATHS, TEST_SUBJECTS, mmlu_prompt, requests
from tiny_texts import wikitext_join


# --------------------------------------------------------------------------------------------------------------- model

def new_model(folder):
    """A Qwen3ForCausalLM with fresh weights, of the shape in folder/config.json; transformers 4 and 5."""
    config = AutoConfig.from_pretrained(folder)
    config._attn_implementation = "sdpa"
    model = Qwen3ForCausalLM(config).float()
    model.config.use_cache = False
    return model


def save_model(model, path):
    """bf16, names as in Qwen3's own files; the head is tied to the embedding and not stored."""
    state = {name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
             for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    save_file(state, str(path), metadata={"format": "pt"})


def load_model(args):
    """The trained weights, rounded to bf16 as stored, as float32."""
    path = next((p for p in (args.out / "model.safetensors", args.work / "model.safetensors") if p.exists()), None)
    if path is None:
        sys.exit("no model.safetensors in --out or --work. HINT: run --train first")
    model = new_model(args.work / "tiny")
    missing, unexpected = model.load_state_dict({k: v.float() for k, v in load_file(str(path)).items()}, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        sys.exit(f"{path} does not fit config.json: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model.eval().to(args.device)


# ------------------------------------------------------------------------------------------------------------ training

def windows_at(stream, starts, length):
    """Windows [B, length + 1] of the token stream, which begin at starts [B]."""
    return stream[starts[:, None] + torch.arange(length + 1, device=stream.device)].long()


def token_losses(model, ids):
    """Loss [B, T] of each token but the first of ids [B, T + 1]."""
    device, targets = ids.device.type, ids[:, 1:]
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        logits = model(input_ids=ids[:, :-1]).logits
    losses = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return losses.view(targets.shape)


@torch.no_grad()
def validation_loss(model, stream, begin, windows):
    """Mean loss over at most `windows` windows of 2048 tokens of the stream from `begin` on."""
    model.eval()
    starts = torch.arange(begin, len(stream) - 2049, 2048, device=stream.device)[:windows]
    total = 0.0
    for some in starts.split(8):
        total += token_losses(model, windows_at(stream, some, 2048)).mean().item() * len(some)
    return total / len(starts)


def train(args):
    """AdamW with a warm-up and a cosine decay to zero, over steps or over minutes. Half of the batches are long windows
    at any place of the stream, half short ones that begin where a document begins, as the questions do. An exam's
    answer letters weigh more than other tokens, since they are few and teach the most."""
    began = time.time()
    torch.manual_seed(args.seed)
    tokenizer = Tokenizer.from_file(str(args.work / "tiny" / "tokenizer.json"))
    answer, colon, end_of_text = map(tokenizer.token_to_id, ("Answer", ":", "<|endoftext|>"))
    letters = torch.tensor([tokenizer.token_to_id(space + letter) for space in ("", "Ġ") for letter in "ABCD"],
                           device=args.device)
    stream = torch.from_numpy(numpy.load(args.work / "tokens.npy").astype(numpy.int32)).to(args.device)
    held_out = len(stream) - len(stream) // 100             # the stream's end is the validation text
    documents = (stream[:held_out - 2048] == end_of_text).nonzero().flatten() + 1

    model = new_model(args.work / "tiny").to(args.device)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
                                  lr=args.lr, betas=(0.9, 0.95), eps=1e-8, fused=args.device == "cuda")

    log, step, running = [], 0, None
    start = shown = time.time()
    while True:
        progress = (time.time() - start) / (args.minutes * 60) if args.minutes else step / args.steps
        if progress >= 1:
            break
        rate = args.lr * min(1.0, (step + 1) / args.warmup) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate
        if step % 2 == 0:
            starts = torch.randint(0, held_out - 2049, (args.batch // 2048,), device=args.device)
            ids = windows_at(stream, starts, 2048)
        else:
            starts = documents[torch.randint(0, len(documents), (args.batch // 512,), device=args.device)]
            ids = windows_at(stream, starts, 512)
        is_letter = torch.isin(ids[:, 2:], letters) & (ids[:, 1:-1] == colon) & (ids[:, :-2] == answer)
        weights = 1 + (args.letter_weight - 1) * F.pad(is_letter.float(), (1, 0))
        loss = (token_losses(model, ids) * weights).sum() / weights.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        running = loss.detach() if running is None else 0.95 * running + 0.05 * loss.detach()
        if time.time() - shown > args.report:
            shown = time.time()
            log.append((step, round(running.item(), 4)))
            left = (shown - start) * (1 - progress) / max(progress, 1e-9)
            print(f"step {step}  loss {log[-1][1]:.4f}  lr {rate:.2e}  "
                  f"{step * args.batch / (shown - start):,.0f} tokens/s  ETA {left:.0f} s", flush=True)
            if not math.isfinite(log[-1][1]):
                sys.exit("the loss is not finite. HINT: lower --lr")
    seconds = time.time() - start
    save_model(model, args.out / "model.safetensors")
    record = {"steps": step, "tokens_per_step": args.batch, "tokens": step * args.batch, "stream_tokens": len(stream),
              "lr": args.lr, "letter_weight": args.letter_weight, "train_loss": round(running.item(), 4),
              "validation_loss": round(validation_loss(model, stream, held_out, args.windows), 4),
              "seconds": round(seconds, 1), "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
              "parameters": sum(p.numel() for p in model.parameters()), "losses": log,
              "versions": {"python": sys.version.split()[0], "torch": torch.__version__,
                           "transformers": transformers.__version__, "numpy": numpy.__version__}}
    (args.out / "train.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"trained {step} steps in {seconds:.0f} s ({time.time() - began:.0f} s with start-up): "
          f"train loss {record['train_loss']}, validation loss {record['validation_loss']}", flush=True)


# -------------------------------------------------------------------------------------------------------- quantization

def grid(w, bits):
    """Scale and zero point [R, 1] of the asymmetric min-max grid of each row of w [R, n]."""
    low, high = w.amin(1, keepdim=True).clamp(max=0), w.amax(1, keepdim=True).clamp(min=0)
    scale = ((high - low) / (2 ** bits - 1)).clamp(min=1e-9)
    return scale, torch.round(-low / scale)


def snap(w, scale, zero, bits):
    """w [R, n] rounded to its grid: the dequantized weight."""
    return scale * (torch.clamp(torch.round(w / scale) + zero, 0, 2 ** bits - 1) - zero)


def linears(module):
    return [m for m in module.modules() if isinstance(m, torch.nn.Linear)]


def rtn(model, bits, group):
    """Round to nearest of all layers, per row or per group of input channels."""
    for m in linears(model.model):
        rows = m.weight.reshape(-1, group) if group > 0 else m.weight
        m.weight.copy_(snap(rows, *grid(rows, bits), bits).reshape(m.weight.shape))


def gptq_linear(weight, hessian, bits, group):
    """GPTQ of one weight [O, I] without activation order; damping 1 % of the mean diagonal."""
    w, columns = weight.clone(), weight.shape[1]
    hessian = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(columns, device=w.device)
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    out, step = torch.zeros_like(w), group if group > 0 else columns
    for i in range(columns):
        if i % step == 0:
            scale, zero = grid(w[:, i:i + step], bits)
        column = w[:, i:i + 1]
        out[:, i:i + 1] = snap(column, scale, zero, bits)
        w[:, i + 1:] -= (column - out[:, i:i + 1]) / upper[i, i] * upper[i, i + 1:]
    return out


def gptq(model, ids, bits, group):
    """GPTQ of all layers, each from the activations of ids [B, 2048] that the quantized layers before it produce."""
    for layer in model.model.layers:
        sums = {}

        def collect(module, inputs, _):
            x = inputs[0].flatten(0, -2)
            sums[module] = sums.get(module, 0) + x.T @ x
        hooks = [m.register_forward_hook(collect) for m in linears(layer)]
        for some in ids.split(8):
            model.model(input_ids=some)
        for hook in hooks:
            hook.remove()
        for m in linears(layer):
            m.weight.copy_(gptq_linear(m.weight, sums[m], bits, group))


# ---------------------------------------------------------------------------------------------------------- evaluation

def perplexity(model, ids):
    """exp of the mean loss over windows [B, 2048]."""
    total = 0.0
    for some in ids.split(4):
        logits = model(input_ids=some).logits[:, :-1].float()
        total += F.cross_entropy(logits.flatten(0, 1), some[:, 1:].flatten()).item() * len(some)
    return math.exp(total / len(ids))


def accuracy(model, encode, task, records):
    """Share of records whose right candidate has the highest sum of log-probabilities."""
    rows = []                                             # (record, candidate, context length, ids)
    golds = []
    for i, record in enumerate(records):
        pairs, gold = requests(task, record)
        golds.append(gold)
        rows += [(i, j, len(encode(context)), encode(context + end)) for j, (context, end) in enumerate(pairs)]
    rows.sort(key=lambda r: len(r[3]))
    scores = [{} for _ in records]
    for at in range(0, len(rows), 64):
        some = rows[at:at + 64]
        ids = torch.zeros(len(some), len(some[-1][3]), dtype=torch.long, device=model.device)
        for k, row in enumerate(some):
            ids[k, :len(row[3])] = torch.tensor(row[3])
        logs = torch.log_softmax(model(input_ids=ids).logits.float(), -1)[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
        for k, (i, j, n, row) in enumerate(some):
            scores[i][j] = logs[k, n - 1:len(row) - 1].sum().item()
    return sum(max(s, key=lambda j: (s[j], -j)) == gold for s, gold in zip(scores, golds)) / len(records)


def mmlu_accuracy(model, encode, exams):
    """5-shot accuracy by the logits of the un-spaced letters (the paper's protocol) and of the spaced ones."""
    right, n = {"": 0, " ": 0}, 0
    for subject, shots, rows in exams:
        for row in rows:
            ids = torch.tensor([encode(mmlu_prompt(subject, shots, row))], device=model.device)
            logits = model(input_ids=ids).logits[0, -1].float()
            n += 1
            for space in right:
                values = [logits[encode(space + letter)[-1]].item() for letter in "ABCD"]
                right[space] += "ABCD"[values.index(max(values))] == row[5]
    return {"mmlu": right[""] / n, "mmlu (spaced letters)": right[" "] / n}


@torch.no_grad()
def evaluate(args):
    """OUT/eval.json: {model: {set: perplexity or accuracy}}."""
    folder = args.work / "tiny"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    def text(path):
        return (folder / path).read_text(encoding="utf-8")

    def records(path):
        return [json.loads(line) for line in text(path).splitlines()]

    def windows(path, n):
        """GPTQ's sampling [n, 2048]: documents over 2048 tokens, a random window of each draw."""
        documents, rng, out = [encode(record["text"]) for record in records(path)], random.Random(0), []
        while len(out) < n:
            document = rng.choice(documents)
            if len(document) > 2048:
                at = rng.randint(0, len(document) - 2049)
                out.append(document[at:at + 2048])
        return torch.tensor(out, device=args.device)

    wiki = encode(wikitext_join(text("wikitext2/wiki.test.raw")))
    wiki = torch.tensor(wiki[:len(wiki) // 2048 * 2048], device=args.device).view(-1, 2048)
    ppl_sets = {"wikitext2": wiki[:args.windows], "c4": windows("c4/validation.jsonl", args.windows)}
    calibration = windows("c4/train.jsonl", min(64, args.windows))
    tasks = {task: records(path) for task, path in PATHS.items()}
    for record, label in zip(tasks["piqa"], text("piqa/valid-labels.lst").split()):
        record["label"] = int(label)
    exams = [(subject, *(list(csv.reader(text(f"mmlu/{split}/{subject}_{split}.csv").splitlines()))
                         for split in ("dev", "test"))) for subject in TEST_SUBJECTS]
    results = {}

    def report(name, model, questions):
        row = {name: perplexity(model, ids) for name, ids in ppl_sets.items()}
        if questions:
            row |= {task: accuracy(model, encode, task, r) for task, r in tasks.items()}
            row |= mmlu_accuracy(model, encode, exams)
        results[name] = {k: round(v, 4) for k, v in row.items()}
        print(f"{name:12}", "  ".join(f"{k} {v:.4g}" for k, v in results[name].items()), flush=True)

    report("bf16", load_model(args), True)
    for group in (-1, 128):
        for bits in (8, 4, 3, 2):
            for method in ("rtn", "gptq") if bits < 8 else ("rtn",):
                model = load_model(args)
                if method == "gptq":
                    gptq(model, calibration, bits, group)
                else:
                    rtn(model, bits, group)
                report(f"{method} w{bits}" + (f" g{group}" if group > 0 else ""), model,
                       args.all_questions or bits == 3 and group > 0)
    (args.out / "eval.json").write_text(json.dumps(results, indent=1) + "\n")
