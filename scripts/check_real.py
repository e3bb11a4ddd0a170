#!/usr/bin/env python3
"""Is ./qwen3 right on a checkpoint? The same tokens through it and through transformers in float32, and a table of what agrees.

Usage: python3 scripts/check_real.py -m DIR [--quick] [--qwen3 ./qwen3] [--data DIR] [--device cpu|cuda] [--threads N]
                                     [--windows N] [--documents N] [--questions N] [--bf16-scores]
Packages: numpy, torch, tokenizers, transformers; lm_eval (lm-eval[hf] on PyPI) where it is installed; transformers 4.56 or later.

    tokens       ids of WikiText-2's test split and of C4's first --documents documents, against `tokenizers`
    logits       of WikiText-2's first 512 tokens: the largest difference, as a share of the largest logit
    perplexity   of WikiText-2's first --windows windows of 2048 tokens
    saved        what --save writes (RTN, and GPTQ without --quick) loads in transformers and has the same perplexity there; not of
                 a packed checkpoint, which is quantized already (and loads in transformers only in some formats)
    questions    the scores (log-probabilities of the choices) of the first --questions questions of the six zero-shot tasks and of
                 MMLU, five shots, question by question: against lm-evaluation-harness's own tasks, which read the same local files;
                 where it is not installed, against scripts/golden/golden_prompts.py's prompts, through transformers.
                 --bf16-scores: both sides as the harness has it on a model in bf16, logits, log-probabilities and sums rounded

--quick: one window, one bit width, twenty documents, two questions of each task; minutes on two cores. Otherwise all windows, 1000
documents, 200 questions a task, each unless it is named. Both sides' numbers, the difference and its bound stand in the table; a
bf16 build has wider bounds, since its activations have 8 bits. An answer that differs is no error where the reference's scores of the
two choices are closer than the bound. Exit status: 0 all within bounds, 1 not so, or one side failed, 2 wrong usage.
"""
import sys

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):  # before it needs its packages
    sys.exit(print(__doc__))

import argparse
import importlib.util
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}
try:
    import numpy as np
    import tokenizers
    import torch
    import transformers
except ImportError as error:
    sys.exit(f"check_real.py: {error}. HINT: pip install numpy torch tokenizers transformers")
if tuple(int(part) for part in transformers.__version__.split(".")[:2]) < (4, 56):  # from_pretrained's dtype
    sys.exit(f"check_real.py: expected transformers 4.56 or later, found {transformers.__version__}. HINT: pip install -U transformers")

ROOT = Path(__file__).resolve().parent.parent
WINDOW, LOGIT_TOKENS, SHOTS = 2048, 512, 5
ZERO_SHOT = ("piqa", "arc_easy", "arc_challenge", "hellaswag", "winogrande", "boolq")
SET_OF = {"arc_easy": "arc", "arc_challenge": "arc"}  # data/NAME of a task whose own name it isn't
# Bounds by the program's precision: logits as a share of the largest, perplexity in percent, a score s by a + b |s|.
BOUNDS = {"fp32": {"logits": 1e-5, "ppl": 0.02, "score": (1e-4, 1e-4)}, "bf16": {"logits": 0.05, "ppl": 0.3, "score": (0.5, 0.05)}}


def counted(n, noun):
    return f"{n} {noun}" + ("s" if n != 1 else "")


class Table:
    """Rows (what, ours, theirs, difference, bound, verdict); `broken` counts the rows outside their bounds."""

    def __init__(self):
        self.rows, self.broken = [], 0

    def add(self, what, ours, theirs, difference, bound, agrees):
        self.rows.append((what, ours, theirs, difference, bound, "yes" if agrees else "**NO**"))
        self.broken += not agrees
        print(f"{what}: {ours} | {theirs} | {difference} (bound {bound}){'' if agrees else '  <-- BROKEN'}", file=sys.stderr)

    def text(self):
        head = ("what", "./qwen3", "reference", "difference", "bound", "agrees")
        rows = [head, *self.rows]
        width = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, width)) + " |" for row in rows]
        return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in width) + "|", *lines[1:]])


# ---- this program ----

def qwen3(o, *arguments):
    """stdout of ./qwen3 -m DIR ARGUMENTS."""
    environment = os.environ | {"OMP_NUM_THREADS": str(o.threads)}
    run = subprocess.run([o.qwen3, "-m", o.model, *map(str, arguments)], capture_output=True, env=environment)
    if run.returncode:
        lines = run.stderr.decode(errors="replace").strip().split("\n")
        sys.exit(f"check_real.py: {o.qwen3} -m {o.model} {' '.join(map(str, arguments))}: status {run.returncode}: {lines[-1]}")
    return run.stdout


def report(o, folder, *arguments):
    file = folder / "report.json"
    qwen3(o, "--data", o.data, "--json", file, *arguments)
    return json.loads(file.read_text())


# ---- transformers ----

def load_tokenizer(folder):
    """A tokenizers.Tokenizer."""
    file = Path(folder) / "tokenizer.json"
    if file.exists():
        return tokenizers.Tokenizer.from_file(str(file))
    return transformers.AutoTokenizer.from_pretrained(folder).backend_tokenizer


def load_model(o, folder, dtype=torch.float32):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model.to(o.device).eval()


@torch.no_grad()
def perplexity(o, model, ids, windows):
    """exp of the mean over windows of the mean of WINDOW - 1 losses; the head takes 256 rows at a time."""
    means = []
    for w in range(windows):
        x = torch.tensor(ids[w * WINDOW:(w + 1) * WINDOW], device=o.device)
        hidden, total = model.base_model(x[None]).last_hidden_state[0], 0.0
        for i in range(0, WINDOW - 1, 256):
            logits = model.get_output_embeddings()(hidden[i:min(i + 256, WINDOW - 1)]).float()
            total += float(torch.nn.functional.cross_entropy(logits, x[i + 1:i + 1 + len(logits)], reduction="sum"))
        means.append(total / (WINDOW - 1))
    return float(np.exp(np.mean(means)))


def wikitext(data):
    """The test split as it is evaluated: rows joined with two newlines, a row of white space being empty."""
    lines = (Path(data) / "wikitext2/wiki.test.raw").read_bytes().decode().split("\n")
    rows = [line + "\n" if line.strip() else "" for line in lines[:-1]]
    return "\n\n".join(rows)


# ---- what is compared ----

def check_tokens(o, table, folder, tokenizer):
    """The ids of WikiText-2 by `tokenizers`."""
    def ours(text):
        file = folder / "text"
        file.write_bytes(text.encode())
        return [int(line) for line in qwen3(o, "--tokenize", file).split()]

    def differing(a, b):  # ids at the same place
        return sum(x != y for x, y in zip(a, b)) + abs(len(a) - len(b))

    text = wikitext(o.data)
    ids, found = tokenizer.encode(text, add_special_tokens=False).ids, ours(text)
    wrong = differing(found, ids)
    table.add("token ids, WikiText-2 test", f"{len(found)}", f"{len(ids)}", f"{wrong} differ", "0", wrong == 0)
    n = wrong = total = count = 0
    with open(Path(o.data) / "c4/validation.jsonl", encoding="utf-8") as file:
        for n, line in zip(range(1, o.documents + 1), file):
            document = json.loads(line)["text"]
            expected, found = tokenizer.encode(document, add_special_tokens=False).ids, ours(document)
            total, count, wrong = total + len(expected), count + len(found), wrong + differing(found, expected)
    table.add(f"token ids, {n} documents of C4", f"{count}", f"{total}", f"{wrong} differ", "0", wrong == 0)
    return ids


def check_logits(o, table, folder, model, ids, bound):
    (folder / "ids").write_text("\n".join(map(str, ids[:LOGIT_TOKENS])))
    ours = np.frombuffer(qwen3(o, "--logits", folder / "ids"), np.float32).reshape(LOGIT_TOKENS, -1)
    with torch.no_grad():
        theirs = model(torch.tensor([ids[:LOGIT_TOKENS]], device=o.device)).logits[0].float().cpu().numpy()
    assert ours.shape == theirs.shape, f"logits {ours.shape}, transformers' {theirs.shape}"
    largest, error = np.abs(theirs).max(), np.abs(ours - theirs).max()
    same = 100 * np.mean(ours.argmax(1) == theirs.argmax(1))
    table.add(f"logits, {LOGIT_TOKENS} tokens", f"largest {np.abs(ours).max():.4f}", f"largest {largest:.4f}",
              f"{error / largest:.1e} of it, {same:.1f} % same first", f"{bound:g}", error <= bound * largest)


def check_perplexity(table, what, ours, theirs, bound):
    difference = 100 * (ours / theirs - 1)
    table.add(what, f"{ours:.5g}", f"{theirs:.5g}", f"{round(difference, 4) + 0:+.4f} %", f"{bound:g} %", abs(difference) <= bound)


def is_packed(folder):
    return json.loads((Path(folder) / "config.json").read_text()).get("quantization_config") is not None


def check_saved(o, table, folder, ids, bound):
    settings = [("-q", "rtn", "-b", "4", "-g", "64")]
    if not o.quick:
        settings = [("-q", "rtn", "-b", "8"), *settings, ("-q", "rtn", "-b", "3", "-g", "64"),
                    ("-q", "gptq", "-b", "4", "-g", "64", "-n", "16", "-l", "512")]
    for setting in settings:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            saved = Path(place) / "saved"
            ours = report(o, folder, *setting, "--save", saved, "-e", "wikitext2", "--limit", o.windows)
            theirs = perplexity(o, load_model(o, saved), ids, o.windows)
        check_perplexity(table, f"saved by {' '.join(setting)}: perplexity of {counted(o.windows, 'window')}",
                         ours["results"]["wikitext2"]["value"], theirs, bound)


def question_folder(o, folder):
    """A data folder like --data, with MMLU cut to --questions questions, spread over the subjects; returns it and the number a subject."""
    place, source = folder / "data", Path(o.data)
    place.mkdir()
    for entry in source.iterdir():
        if entry.name != "mmlu":
            (place / entry.name).symlink_to(entry.resolve())
    subjects = [path.name.removesuffix("_test.csv") for path in sorted((source / "mmlu/test").glob("*_test.csv"))]
    subjects = subjects[:o.questions]
    for split in ("dev", "test"):
        (place / "mmlu" / split).mkdir(parents=True)
        for subject in subjects:
            (place / f"mmlu/{split}/{subject}_{split}.csv").symlink_to((source / f"mmlu/{split}/{subject}_{split}.csv").resolve())
    return place, -(-o.questions // len(subjects))


def our_questions(o, folder):
    """{task: [(scores, the right choice)]}, the data folder, questions a subject of MMLU, {task: (acc, acc_norm or None)}."""
    data, a_subject = question_folder(o, folder)
    scores, accuracies = {}, {}
    for tasks, limit in ((ZERO_SHOT, o.questions), (("mmlu",), a_subject)):
        style = ["--mmlu-style", "lm-eval"] * (tasks == ("mmlu",)) + ["--bf16-scores"] * o.bf16_scores
        results = report(o, folder, "--data", data, "-e", ",".join(tasks), "--limit", limit, "--questions", folder / "questions", *style)
        for line in (folder / "questions").read_text().split("\n")[:-1]:
            question = json.loads(line)
            scores.setdefault(question["task"], []).append((question["scores"], question["gold"]))
        for task in tasks:
            accuracies[task] = (results["results"][task]["value"], results["results"][task].get("acc_norm"))
    return scores, data, a_subject, accuracies


def lm_eval_rows(data, task, limit):
    """The first rows of a task's file, as the hub's data set has them."""
    import csv

    def jsonl(name):
        return [json.loads(line) for line in (data / name).read_bytes().decode().split("\n")[:limit] if line.strip()]

    if task == "piqa":
        labels = (data / "piqa/valid-labels.lst").read_text().split()
        return [row | {"label": int(label)} for row, label in zip(jsonl("piqa/valid.jsonl"), labels)]
    if task.startswith("arc_"):
        name = {"arc_easy": "Easy", "arc_challenge": "Challenge"}[task]
        return [{"question": row["question"]["stem"], "answerKey": row["answerKey"],
                 "choices": {key: [choice[key] for choice in row["question"]["choices"]] for key in ("text", "label")}}
                for row in jsonl(f"arc/ARC-{name}-Test.jsonl")]
    if task == "boolq":
        return [row | {"label": int(row["label"])} for row in jsonl("boolq/val.jsonl")]
    if task in ("hellaswag", "winogrande"):
        return jsonl({"hellaswag": "hellaswag/hellaswag_val.jsonl", "winogrande": "winogrande/dev.jsonl"}[task])
    with open(data / f"mmlu/{task}", newline="", encoding="utf-8") as file:
        return [{"question": row[0], "choices": row[1:5], "answer": "ABCD".index(row[5])} for row in list(csv.reader(file))[:limit]]


def lm_eval_questions(o, folder, data, a_subject, model, tokenizer):
    """{task: [(scores, lengths of the choices)]}, {task: (acc, acc_norm or None)}, whose they are: by lm-evaluation-harness, whose task
    files are overridden in where the data are only."""
    import datasets
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    datasets.disable_progress_bars()
    source, place = Path(lm_eval.__file__).parent / "tasks", folder / "tasks"
    place.mkdir()

    def define(name, include, **files):
        for split, rows in files.items():
            (place / f"{name}-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        lines = [f"include: {source / include}", f"task: check_{name}", "dataset_path: json", "dataset_name: null", "tag: null",
                 "dataset_kwargs:", "  data_files:", *(f"    {split}: {place / f'{name}-{split}.jsonl'}" for split in files)]
        lines += [f"{split}_split: {split if split in files else 'null'}" for split in ("training", "validation", "test")]
        if "dev" in files:
            lines += ["fewshot_split: dev", f"num_fewshot: {SHOTS}"]
        (place / f"{name}.yaml").write_text("\n".join(lines) + "\n")
        return f"check_{name}"

    where = {"piqa": "piqa/piqa.yaml", "arc_easy": "arc/arc_easy.yaml", "arc_challenge": "arc/arc_challenge.yaml",
             "hellaswag": "hellaswag/hellaswag.yaml", "winogrande": "winogrande/default.yaml", "boolq": "super_glue/boolq/default.yaml"}
    names = {}
    for task, include in where.items():
        split = "test" if task.startswith("arc_") else "validation"
        names[define(task, include, **{split: lm_eval_rows(data, task, o.questions)})] = task
    for path in sorted((data / "mmlu/test").glob("*_test.csv")):
        subject = path.name.removesuffix("_test.csv")
        names[define(f"mmlu_{subject}", f"mmlu/default/mmlu_{subject}.yaml", test=lm_eval_rows(data, f"test/{subject}_test.csv", a_subject),
                     dev=lm_eval_rows(data, f"dev/{subject}_dev.csv", SHOTS))] = "mmlu"
    # AutoTokenizer of transformers 5 rebuilds a tokenizer from its class, and loses what tokenizer.json has besides (SmolLM2's digits).
    auto = transformers.AutoTokenizer.from_pretrained(o.model)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=auto.bos_token, eos_token=auto.eos_token,
                                                pad_token=auto.pad_token)
    found = lm_eval.simple_evaluate(model=HFLM(pretrained=model, tokenizer=fast, batch_size=1), tasks=list(names), log_samples=True,
                                    task_manager=TaskManager(include_path=str(place), include_defaults=False), bootstrap_iters=0)
    scores, hits = {}, {}
    for name, task in names.items():
        for sample in sorted(found["samples"][name], key=lambda sample: sample["doc_id"]):
            lengths = [len(continuation) - 1 for _, continuation in sample["arguments"]]  # without the space before it
            scores.setdefault(task, []).append(([float(response[0]) for response in sample["filtered_resps"]], lengths))
            hits.setdefault(task, []).append((sample["acc"], sample.get("acc_norm")))
    means = {task: tuple(None if h[0][i] is None else 100 * float(np.mean([x[i] for x in h])) for i in (0, 1)) for task, h in hits.items()}
    return scores, means, f"lm-eval {lm_eval.__version__}"


def prompts_questions(o, data, a_subject, model, tokenizer):
    """The same by scripts/golden/golden_prompts.py."""
    sys.path.insert(0, str(ROOT / "scripts/golden"))
    import golden_prompts as golden

    scores, means = {}, {}
    for task in (*ZERO_SHOT, "mmlu"):
        key = "mmlu_lm_eval" if task == "mmlu" else task
        questions = golden.TASKS[key](data, tokenizer)
        if task == "mmlu":  # the first of every subject
            counts = [len(golden.read_csv(path)) for path in sorted((data / "mmlu/test").glob("*_test.csv"))]
            starts = np.cumsum([0, *counts[:-1]])
            chosen = [questions[start + i] for start, n in zip(starts, counts) for i in range(min(n, a_subject))]
        else:
            chosen = questions[:o.questions]
        hits = []
        for choices, gold in chosen:
            found = [golden.log_probability(model, *golden.split_ids(tokenizer, key, context, text)) for context, text, _ in choices]
            lengths = [max(1, length) for _, _, length in choices]
            scores.setdefault(task, []).append((found, lengths))
            normed = [score / length for score, length in zip(found, lengths)]
            hits.append((np.argmax(found) == gold, np.argmax(normed) == gold))
        acc, norm = 100 * np.mean(hits, axis=0)
        means[task] = (float(acc), float(norm) if task in golden.NORMALIZED else None)
    return scores, means, "golden_prompts.py"


def is_near_tie(scores, limits, lengths):
    """Whether errors within the limits can make another choice the answer, that with the largest score / length."""
    values, slack = np.divide(scores, lengths), np.divide(limits, lengths)
    best = int(np.argmax(values))
    return any(values[best] - values[i] <= slack[best] + slack[i] for i in range(len(values)) if i != best)


def check_questions(o, table, folder, model, tokenizer, bound):
    """Scores within the bound; answers the same, unless near ties; so many right as the answers and near ties allow. Whose reference."""
    ours, data, a_subject, accuracies = our_questions(o, folder)
    try:
        import lm_eval  # noqa: F401
    except ImportError:
        theirs, means, by = prompts_questions(o, data, a_subject, model, tokenizer)
    else:
        theirs, means, by = lm_eval_questions(o, folder, data, a_subject, model, tokenizer)
    for task in (*ZERO_SHOT, "mmlu"):
        n = len(theirs[task])
        assert [len(scores) for scores, _ in ours[task]] == [len(scores) for scores, _ in theirs[task]], f"{task}: other questions"
        worst, within, differ, near, normed_near = 0.0, True, 0, 0, 0
        for (mine, _), (reference, lengths) in zip(ours[task], theirs[task]):
            limits = [bound[0] + bound[1] * abs(score) for score in reference]
            errors = [abs(a - b) for a, b in zip(mine, reference)]
            worst = max(worst, *errors)
            within = within and all(error <= limit for error, limit in zip(errors, limits))
            if np.argmax(mine) != np.argmax(reference):
                differ, near = differ + 1, near + is_near_tie(reference, limits, [1] * len(limits))
            normed_near += is_near_tie(reference, limits, lengths)
        (acc, norm), (their_acc, their_norm) = accuracies[task], means[task]
        same = abs(acc - their_acc) * n / 100 < differ + 0.5 and (norm is None) == (their_norm is None)
        same = same and (norm is None or abs(norm - their_norm) * n / 100 < normed_near + 0.5)

        def percent(acc, norm):
            return f"{acc:.2f}" + ("" if norm is None else f" / {norm:.2f}")

        text = f"score {worst:.1e}, {differ} answers differ" + (f", {near} of them near ties" if differ else "")
        table.add(f"{task}, {n} questions, acc{'' if norm is None else ' / acc_norm'}", percent(acc, norm), percent(their_acc, their_norm), text,
                  f"{bound[0]:g} + {100 * bound[1]:g} % of it", within and differ == near and same)
    return by


def main():
    parser = argparse.ArgumentParser(usage="scripts/check_real.py -m DIR [OPTION]... (-h: all of them)", add_help=False)
    parser.add_argument("-m", dest="model", required=True, metavar="DIR")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--qwen3", default=str(ROOT / "qwen3"))
    parser.add_argument("--data", default=os.environ.get("QWEN3_DATA") or str(ROOT / "data"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--windows", type=int)
    parser.add_argument("--documents", type=int)
    parser.add_argument("--questions", type=int)
    parser.add_argument("--bf16-scores", action="store_true")
    o = parser.parse_args()
    for name, few, many in (("windows", 1, None), ("documents", 20, 1000), ("questions", 2, 200)):
        if getattr(o, name) is None:
            setattr(o, name, few if o.quick else many)
        elif getattr(o, name) < 1:
            parser.error(f"--{name} {getattr(o, name)}: expected a positive number")
    if o.threads < 1:
        parser.error(f"--threads {o.threads}: expected a positive number")
    o.qwen3 = os.path.abspath(o.qwen3)
    sets = ("wikitext2/wiki.test.raw", "c4/validation.jsonl", "mmlu/test", *(SET_OF.get(task, task) for task in ZERO_SHOT))
    for path, hint in ((o.qwen3, "make"), (f"{o.model}/config.json", "-m takes a checkpoint's folder"),
                       *((f"{o.data}/{name}", "scripts/download.sh all-data, or --data DIR") for name in sets)):
        if not Path(path).exists():
            sys.exit(f"check_real.py: {path}: there is no such file. HINT: {hint}")
    if o.device == "cuda" and not torch.cuda.is_available():
        sys.exit("check_real.py: --device cuda: torch finds no GPU. HINT: --device cpu")
    if o.bf16_scores and not importlib.util.find_spec("lm_eval"):
        sys.exit("check_real.py: --bf16-scores: expected lm-eval, whose rounding it is. HINT: pip install 'lm-eval[hf]'")
    if importlib.util.find_spec("lm_eval"):
        for name in ("datasets", "accelerate", "peft"):  # what its model of transformers imports; not all come with lm-eval alone
            if not importlib.util.find_spec(name):
                sys.exit(f"check_real.py: lm-eval is here, but {name}, which it needs, isn't. HINT: pip install 'lm-eval[hf]'")
    start = time.time()
    torch.set_num_threads(o.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    table = Table()
    with tempfile.TemporaryDirectory() as place:
        folder, tokenizer = Path(place), load_tokenizer(o.model)
        ids = check_tokens(o, table, folder, tokenizer)
        o.windows = min(o.windows or len(ids) // WINDOW, len(ids) // WINDOW)
        ours = report(o, folder, "-e", "wikitext2", "--limit", o.windows)
        bounds = BOUNDS[ours["precision"]]
        model = load_model(o, o.model)
        # First: what compressed-tensors packed is unpacked when a model is called as a whole, which perplexity() does not do.
        check_logits(o, table, folder, model, ids, bounds["logits"])
        check_perplexity(table, f"perplexity of {counted(o.windows, 'window')}", ours["results"]["wikitext2"]["value"],
                         perplexity(o, model, ids, o.windows), bounds["ppl"])
        if o.bf16_scores:
            model, bounds = load_model(o, o.model, torch.bfloat16), bounds | {"score": BOUNDS["bf16"]["score"]}
        by = check_questions(o, table, folder, model, tokenizer, bounds["score"]) + " in bf16" * o.bf16_scores
        del model
        if not is_packed(o.model):  # what is quantized already is not quantized again
            check_saved(o, table, folder, ids, bounds["ppl"])
    print(f"{ours['model']}: {ours['precision']} build, commit {ours['commit']}, {ours['device']}; transformers "
          f"{transformers.__version__} in float32 on {o.device}, tokenizers {tokenizers.__version__}, questions by {by}\n")
    print(table.text())
    verdict = "all within their bounds" if not table.broken else f"{table.broken} outside their bounds"
    print(f"\n{len(table.rows)} comparisons, {verdict}")
    if table.broken and ours["precision"] == "bf16":
        print("HINT: a float build tells rounding from error: make CPU=1 PRECISION=FP32 build/cpu-FP32/qwen3, then --qwen3 build/cpu-FP32/qwen3")
    print(f"{time.time() - start:.0f} s", file=sys.stderr)
    return 1 if table.broken else 0


if __name__ == "__main__":
    sys.exit(main())
