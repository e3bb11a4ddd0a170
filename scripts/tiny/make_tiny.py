#!/usr/bin/env python3
"""Makes data/tiny: a small trained Qwen3 model with its own texts and questions, so that all runs without a download.

The texts tell of an invented world (tiny_world.py, tiny_texts.py) and imitate the layout of the real sets: WikiText-2
and C4, and PIQA, ARC, HellaSwag, WinoGrande, BoolQ and MMLU (tiny_questions.py). The model learns from other texts
about the same world (tiny_train.py). It is a stand-in: its numbers say whether the program works and in which order
methods come, nothing about real models.

Usage: python3 scripts/tiny/make_tiny.py STAGE... [OPTION]...
Stages, in this order; each can run alone, on what the earlier ones left in --work:
    --texts          the sets, the tokenizer and config.json       (WORK/tiny)
    --tokens N       N million tokens of training text             (WORK/tokens.npy), on all cores
    --train          the model, in --minutes M or --steps N        (OUT/model.safetensors, OUT/train.json)
    --eval           perplexity and accuracy of it, and of it rounded to 8, 4, 3 and 2 bits   (OUT/eval.json)
    --write          data/tiny from these pieces, with manifest.json
    --check          data/tiny against its manifest, and its texts against a fresh generation (standard library only)

Packages: numpy, safetensors, tokenizers, torch, transformers; for --check none.
"""
import argparse
import csv
import hashlib
import io
import json
import multiprocessing
import os
import random
import re
import shutil
import sys
import time
from pathlib import Path

from tiny_questions import MAKERS, PATHS, TEST_SUBJECTS, exam_document, mmlu_row, task_document
from tiny_texts import Teller, web_page, wikitext, wikitext_join
from tiny_world import World

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "data" / "tiny"
VOCABULARY = 2048
ADDED_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN_REGEX = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
              r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "torch_dtype": "bfloat16",
    "vocab_size": VOCABULARY, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 128, "hidden_act": "silu",
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "rope_scaling": None,
    "attention_bias": False, "attention_dropout": 0.0, "tie_word_embeddings": True, "initializer_range": 0.02,
    "use_cache": True, "use_sliding_window": False, "sliding_window": None, "max_window_layers": 4,
    "bos_token_id": VOCABULARY - 3, "eos_token_id": VOCABULARY - 3,
}
QUESTIONS = {"piqa": 300, "arc_easy": 300, "arc_challenge": 300, "hellaswag": 300, "winogrande": 300, "boolq": 300,
             "mmlu": 80}                                  # the last one for each subject


# ---------------------------------------------------------------------------------------------------------------- sets

def make_sets(seed):
    """Every text file of data/tiny, {relative path: text}. Standard library only."""
    world = World(seed)

    def teller(name):
        return Teller(world, random.Random(f"{seed}/set/{name}"))

    def jsonl(records):
        return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)

    def pages(name, n_long, n_short):
        voice = teller(name)
        lengths = [voice.rng.randint(7800, 10200) for _ in range(n_long)]
        lengths += [voice.rng.randint(300, 1100) for _ in range(n_short)]
        voice.rng.shuffle(lengths)
        return jsonl({"text": web_page(voice, n)} for n in lengths)

    files = {"wikitext2/wiki.test.raw": wikitext(teller("wiki"), 300_000),
             "c4/train.jsonl": pages("c4-train", 170, 200), "c4/validation.jsonl": pages("c4-validation", 70, 100)}
    for task, path in PATHS.items():
        voice = teller(task)
        records = [MAKERS[task](voice) for _ in range(QUESTIONS[task])]
        for i, r in enumerate(records):
            for key, value in (("id", f"TINY_{i}"), ("qID", str(i)), ("ind", i), ("idx", i)):
                if key in r:
                    r[key] = value
        if task == "piqa":
            files["piqa/valid-labels.lst"] = "".join(f"{r.pop('label')}\n" for r in records)
        files[path] = jsonl(records)
    for subject in TEST_SUBJECTS:
        for split, n in (("dev", 5), ("test", QUESTIONS["mmlu"])):
            out, voice = io.StringIO(), teller(f"mmlu-{split}-{subject}")
            csv.writer(out, lineterminator="\n").writerows(mmlu_row(voice, subject) for _ in range(n))
            files[f"mmlu/{split}/{subject}_{split}.csv"] = out.getvalue()
    return files


# ------------------------------------------------------------------------------------------------------ training texts

TRAINING_MIX = {"wiki": 0.28, "web": 0.27, "exam": 0.16, "arc_easy": 0.05, "arc_challenge": 0.04, "piqa": 0.04,
                "boolq": 0.07, "winogrande": 0.04, "hellaswag": 0.05}       # share of the characters


def training_document(kind, teller):
    """A document of one kind of TRAINING_MIX."""
    if kind == "wiki":
        return wikitext_join(wikitext(teller, teller.rng.choice([500, 4000, 9000])))
    if kind == "web":
        return web_page(teller, teller.rng.choice([400, 900, 3000, 9000]))
    return exam_document(teller) if kind == "exam" else task_document(kind, teller)


def training_documents(world, name, length):
    """Documents of `length` characters in all, in the shares of TRAINING_MIX."""
    teller = Teller(world, random.Random(f"{world.seed}/train/{name}"))
    sizes = dict.fromkeys(TRAINING_MIX, 0)
    documents = []
    while sum(sizes.values()) < length:
        kind = min(sizes, key=lambda k: sizes[k] / TRAINING_MIX[k])
        documents.append(training_document(kind, teller))
        sizes[kind] += len(documents[-1])
    teller.rng.shuffle(documents)
    return documents


def make_tokenizer(seed, folder):
    """Byte-level BPE with Qwen3's normalizer and regex; writes the same files as Qwen3's tokenizer, and returns it."""
    from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                            trainers)
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN_REGEX), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - len(ADDED_TOKENS), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    texts = training_documents(World(seed), "tokenizer", 6_000_000)
    texts = (re.sub(r"Answer:(?=[ABCD])", "Answer: ", text) for text in texts)
    tokenizer.train_from_iterator(texts, trainer)             # ":A" must not become one token
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ADDED_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))

    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    ids = model["vocab"]
    in_order = all(ids[merge.replace(" ", "")] == 256 + i for i, merge in enumerate(merges))
    if len(ids) != VOCABULARY - len(ADDED_TOKENS) or not in_order:
        sys.exit("the trained vocabulary is not 256 bytes followed by one token a merge")
    missing = [t for t in ("A", "B", "C", "D", "ĠA", "ĠB", "ĠC", "ĠD", "Ġyes", "Ġno", "Answer") if t not in ids]
    if missing or ":A" in ids:
        sys.exit(f"the vocabulary has no single token for {missing}, or one for ':A'")
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {str(len(ids) + i): {"content": token, **flags} for i, token in enumerate(ADDED_TOKENS)}
    config = {"add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added,
              "additional_special_tokens": ADDED_TOKENS[1:], "bos_token": None, "clean_up_tokenization_spaces": False,
              "eos_token": ADDED_TOKENS[0], "errors": "replace", "model_max_length": CONFIG["max_position_embeddings"],
              "pad_token": ADDED_TOKENS[0], "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer",
              "unk_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return tokenizer


def token_chunk(job):
    """About 300,000 tokens of training documents, each followed by <|endoftext|>, as uint16. job: (seed, folder, i)."""
    import numpy
    from tokenizers import Tokenizer
    seed, folder, i = job
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    documents = training_documents(World(seed), str(i), 1_000_000)
    ids = []
    for encoding in tokenizer.encode_batch(documents, add_special_tokens=False):
        ids += [*encoding.ids, CONFIG["eos_token_id"]]
    return numpy.array(ids, dtype=numpy.uint16)


# -------------------------------------------------------------------------------------------------------------- stages

def stage_texts(args):
    folder = args.work / "tiny"
    files = make_sets(args.seed)
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8", newline="")
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    tokenizer = make_tokenizer(args.seed, folder)
    text = files["wikitext2/wiki.test.raw"]
    n = len(tokenizer.encode(wikitext_join(text)).ids)
    print(f"wikitext2: {n} tokens, {n // 2048} windows, {len(text.encode()) / n:.2f} bytes a token")
    for path in ("c4/train.jsonl", "c4/validation.jsonl"):
        lengths = [len(tokenizer.encode(json.loads(line)["text"]).ids) for line in files[path].splitlines()]
        print(f"{path}: {sum(lengths)} tokens, {sum(n > 2048 for n in lengths)} documents over 2048 tokens, "
              f"{sum(n <= 512 for n in lengths)} up to 512")


def stage_tokens(args):
    import numpy
    os.environ["TOKENIZERS_PARALLELISM"] = "false"            # one process a core already
    began, chunks, count = time.time(), [], 0
    jobs = ((args.seed, args.work / "tiny", i) for i in range(int(args.tokens * 4)))
    with multiprocessing.Pool(args.processes) as pool:        # leaving the block ends what still runs
        for chunk in pool.imap(token_chunk, jobs):
            chunks.append(chunk)
            count += len(chunk)
            if count >= args.tokens * 1e6:
                break
    numpy.save(args.work / "tokens.npy", numpy.concatenate(chunks))
    print(f"{count} training tokens in {time.time() - began:.0f} s")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stage_write(args):
    """Copies the texts, the tokenizer and the model into data/tiny, with a manifest of everything."""
    import tokenizers
    if TINY.exists():
        shutil.rmtree(TINY)
    shutil.copytree(args.work / "tiny", TINY)
    shutil.copyfile(args.out / "model.safetensors", TINY / "model.safetensors")
    training = json.loads((args.out / "train.json").read_text())
    training["versions"]["tokenizers (tokenizer.json)"] = tokenizers.__version__
    training.pop("losses")
    files = {str(p.relative_to(TINY)): {"bytes": p.stat().st_size, "sha256": sha256(p)}
             for p in sorted(TINY.rglob("*")) if p.is_file()}
    manifest = {"made_by": "scripts/tiny/make_tiny.py", "seed": args.seed,
                "license": "the project's own: generated text, no outside source",
                "world": {kind: len(entities) for kind, entities in World(args.seed).entities.items()},
                "questions": QUESTIONS, "training_mix": TRAINING_MIX, "training": training,
                "evaluation_float32": json.loads((args.out / "eval.json").read_text()), "files": files}
    (TINY / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(f"data/tiny: {len(files) + 1} files, {sum(f['bytes'] for f in files.values()):,} bytes")


def stage_check():
    """Exits with 1 and a line for each difference."""
    manifest = json.loads((TINY / "manifest.json").read_text())
    wrong = []
    for name, entry in manifest["files"].items():
        path = TINY / name
        if not path.exists():
            wrong.append(f"{name} is missing")
        elif (path.stat().st_size, sha256(path)) != (entry["bytes"], entry["sha256"]):
            wrong.append(f"{name} is not the file of the manifest")
    present = {str(p.relative_to(TINY)) for p in TINY.rglob("*") if p.is_file()}
    wrong += [f"{name} is not in the manifest" for name in sorted(present - set(manifest["files"]) - {"manifest.json"})]
    for name, text in make_sets(manifest["seed"]).items():
        if (TINY / name).exists() and (TINY / name).read_bytes() != text.encode("utf-8"):
            wrong.append(f"{name} differs from what seed {manifest['seed']} generates")
    print("\n".join(wrong) or f"data/tiny: {len(manifest['files'])} files as in the manifest, texts as generated")
    sys.exit(1 if wrong else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for stage in ("texts", "train", "eval", "write", "check"):
        parser.add_argument(f"--{stage}", action="store_true")
    parser.add_argument("--tokens", type=float, default=0, help="millions of training tokens to generate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("/tmp/tiny"), help="scratch folder")
    parser.add_argument("--out", type=Path, help="where --train and --eval write (default: the scratch folder)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--minutes", type=float, default=0, help="length of the training")
    parser.add_argument("--steps", type=int, default=100, help="length of the training, without --minutes")
    parser.add_argument("--batch", type=int, default=65536, help="tokens a step, a multiple of 2048")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--warmup", type=int, default=200, help="steps")
    parser.add_argument("--letter-weight", type=float, default=5.0, help="loss weight of an exam's answer letters")
    parser.add_argument("--windows", type=int, default=128, help="windows of 2048 tokens for each perplexity")
    parser.add_argument("--all-questions", action="store_true", help="--eval asks the questions for every bit width")
    parser.add_argument("--processes", type=int, help="for --tokens (default: all cores)")
    parser.add_argument("--report", type=float, default=5.0, help="seconds between progress lines")
    args = parser.parse_args()
    if not (args.texts or args.tokens or args.train or args.eval or args.write or args.check):
        parser.error("no stage given. HINT: --help lists them")
    args.out = args.out or args.work
    args.out.mkdir(parents=True, exist_ok=True)
    if args.texts:
        stage_texts(args)
    if args.tokens:
        stage_tokens(args)
    if args.train or args.eval:
        import tiny_train                                     # needs torch, unlike the other stages
        if args.train:
            tiny_train.train(args)
        if args.eval:
            tiny_train.evaluate(args)
    if args.write:
        stage_write(args)
    if args.check:
        stage_check()


if __name__ == "__main__":
    main()
