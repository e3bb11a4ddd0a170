"""Makes data/tiny: a small trained Qwen3 model with its own texts and questions, so that all runs without a download.

The texts tell of an invented world (tiny_world.py) and imitate the layout of the real sets: WikiText-2, C4, PIQA, ARC,
HellaSwag, WinoGrande, BoolQ and MMLU. The model learns from other texts about the same world. It is a stand-in: its
numbers say whether the program works and in which order methods come, nothing about real models.

Stages, in this order; each can run alone, on what the earlier ones left in --work:
    --texts          the sets, the tokenizer and config.json       (WORK/tiny)
    --tokens N       N million tokens of training text             (WORK/tokens.npy), on all cores
    --train          the model, in --minutes M or --steps N        (OUT/model.safetensors, OUT/train.json)
    --eval           perplexity and accuracy of it, and of it rounded to 4, 3 and 2 bits   (OUT/eval.json)
    --write          data/tiny from these pieces, with manifest.json
    --check          data/tiny against its manifest, and its texts against a fresh generation (standard library only)

Needs torch, transformers, tokenizers, safetensors and numpy; --check needs none of them.
"""
import argparse
import csv
import hashlib
import io
import json
import math
import random
import re
import shutil
import sys
import time
from pathlib import Path

from tiny_world import (ACTIVITIES, KINDS, OBJECTS, SCHEMAS, STORIES, TOOLS, Teller, World, article, full_name, pick,
                        question, sentence_case, web_page, wiki_lines)

ROOT = Path(__file__).resolve().parent.parent
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
SUBJECTS = {}                                             # MMLU subject -> kinds of entities that it asks about
for _kind, _info in KINDS.items():
    SUBJECTS.setdefault(_info["subject"], []).append(_kind)
TEST_SUBJECTS = ["field_zoology", "garden_botany", "great_lives", "world_geography"]


# --------------------------------------------------------------------------------------------- questions of the tasks
# Each maker returns one record in the layout of the real set's file; `requests` says how a record is scored.

def any_fact(teller, kinds):
    kind = teller.rng.choice(kinds)
    return teller.draw(kind), teller.rng.choice(list(KINDS[kind]["facts"]))


def other_values(teller, entity, fact, n):
    return teller.rng.sample([v for v in teller.world.values[entity["kind"], fact] if v != entity[fact]], n)


def shuffled(rng, right, wrong):
    choices = [right] + wrong
    rng.shuffle(choices)
    return choices, choices.index(right)


def arc_record(stem, choices, gold):
    options = [{"text": text, "label": "ABCDE"[i]} for i, text in enumerate(choices)]
    return {"id": "", "question": {"stem": stem, "choices": options}, "answerKey": "ABCDE"[gold]}


def arc_easy(teller):
    """What is the value of a fact?"""
    entity, fact = any_fact(teller, list(KINDS))
    n = teller.rng.choices([2, 3, 4], [1, 14, 1])[0]
    wrong = other_values(teller, entity, fact, n)
    return arc_record(question(entity, fact), *shuffled(teller.rng, entity[fact], wrong))


def arc_challenge(teller):
    """Which entity has these two values?"""
    kind = teller.rng.choice(["creature", "plant", "town", "person", "dish", "stone"])
    entity = teller.draw(kind)
    first, second = teller.rng.sample(list(KINDS[kind]["facts"]), 2)
    others = [e for e in teller.world.entities[kind] if e[first] != entity[first] and e[second] != entity[second]]
    hints = "".join(f" {sentence_case(fact)}: {entity[fact]}." for fact in (first, second))
    stem = f"Which {'animal' if kind == 'creature' else kind} is meant?{hints}"
    wrong = []
    while len(wrong) < 3:
        name = full_name(pick(teller.rng, others))
        if name not in wrong:
            wrong.append(name)
    return arc_record(stem, *shuffled(teller.rng, full_name(entity), wrong))


def piqa(teller):
    """A goal and two ways to it that differ in one point."""
    rng, form = teller.rng, teller.rng.randrange(4)
    if form == 0:
        right, wrong = rng.sample(TOOLS, 2)
        goal = teller.say("[How do you|What do you need to|How can I|What is the best way to] {do}?", do=right[1])
        way = "[Take|Use|Get|Find] a {x}[|, and work {adv}| from {town}|, never a {thing}]."
        pair = (right[0], wrong[0])
    elif form == 1:
        (label, _, *steps), (_, _, *others) = rng.sample(ACTIVITIES, 2)
        k = rng.randrange(len(steps) - 1)
        goal = teller.say("{label}: [what comes after you {step}?|you {step}. Then?]", label=label, step=steps[k])
        way = "[|Then |Next, |Now ]{x}[|, {adv}| with {friend}| before {month}]."
        pair = (steps[k + 1], rng.choice(others))
    elif form == 2:
        plant = teller.draw("plant")
        other = rng.choice([p for p in teller.world.entities["plant"][:80] if p["use"] != plant["use"]])
        goal = teller.say("[Make {use} at home.|How do you make {use}?|I want to make {use}.]", use=plant["use"])
        way = "[Gather|Boil|Dry|Press] the [leaves|roots|seeds] of the {x}[| in a {thing}| for {number} hours]."
        pair = (plant["name"], other["name"])
    else:
        dish = teller.draw("dish")
        fact = rng.choice(["base", "vessel", "served"])
        goal = teller.say("[Make|Cook|Prepare] {name}[| at home| for guests|].", name=dish["name"])
        way = {"base": "[Start with|Take|Wash] the {x}[| and {number} spoons of salt].",
               "vessel": "Put [it|everything] into a {x}[| for {number} hours].",
               "served": "[Serve|Eat] it with {x}[| in {month}]."}[fact]
        pair = (dish[fact], other_values(teller, dish, fact, 1)[0])
    state = rng.getstate()
    solutions = []
    for x in pair:                                        # the same words around both
        rng.setstate(state)
        solutions.append(teller.say(way, x=x))
    label = int(rng.random() < 0.5)
    return {"goal": goal, "sol1": solutions[label], "sol2": solutions[1 - label], "label": label}


def third_person(step):
    verb, rest = step.split(" ", 1)
    ending = "es" if verb.endswith(("ch", "sh", "s", "x", "o")) else "s"
    return (verb[:-1] + "ies" if verb.endswith("y") and verb[-2] not in "aeiou" else verb + ending) + " " + rest


def hellaswag(teller):
    """What happens next in an activity: its next step, an earlier one, or steps of other activities."""
    rng = teller.rng
    label, opening, *steps = rng.choice(ACTIVITIES)
    k = rng.randint(1, len(steps) - 1)
    others = [s for a in rng.sample([a for a in ACTIVITIES if a[0] != label], 3) for s in rng.sample(a[2:], 1)]
    wrong = others[:2] + [steps[k - 1] if rng.random() < 0.5 else others[2]]
    tail = teller.say("[|, {adv}| once more| in the {weather}|, watched by {people}]")
    if rng.random() < 0.2:
        hint = "[Take your time|Mind your fingers|Do this {adv}]."
        told = "".join(f" [title] {sentence_case(s)}. [step] {teller.say(hint)}" for s in steps[max(0, k - 2):k])
        ctx_a, ctx_b, label, write = f"[header] {label}{told}", "then", "Home and Garden", lambda s: f"{s}{tail}."
    else:
        who = rng.choice(["woman", "man", "girl", "boy"])
        she = "she" if who in ("woman", "girl") else "he"
        told = "".join(f" {she.capitalize()} {third_person(s)}." for s in steps[max(0, k - 2):k])
        ctx_a, ctx_b, write = f"A {who} {opening}.{told}", rng.choice([she,
            "the " + who]), lambda s: f"{third_person(s)}{tail}."
    endings, gold = shuffled(rng, write(steps[k]), [write(s) for s in wrong])
    return {"ind": 0, "activity_label": label, "ctx_a": ctx_a, "ctx_b": ctx_b, "ctx": f"{ctx_a} {ctx_b}",
        "endings": endings,
            "label": gold, "split": "val"}


def winogrande(teller):
    """Two candidates for a blank; the clause after it fits one."""
    rng = teller.rng
    stem, first, second = rng.choice(SCHEMAS)
    a, b = rng.sample(OBJECTS if "{a}" in stem else teller.world.first_names, 2)
    answer = rng.randint(1, 2)
    start = teller.say(stem, A=a, B=b, a=a, b=b)
    clause = teller.say(first if answer == 1 else second)
    sentence = f"{start} _ {clause[0].lower()}{clause[1:]}."
    options = (a, b) if rng.random() < 0.5 else (b, a)
    return {"qID": "", "sentence": sentence, "option1": options[0], "option2": options[1],
            "answer": str(1 + options.index((a, b)[answer - 1]))}


def boolq(teller):
    """A passage about an entity and a yes-no question about one of the facts told in it."""
    rng = teller.rng
    teller.new_document()
    kind = rng.choice(list(KINDS))
    teller.about(teller.draw(kind))
    entity = teller.entity
    facts = rng.sample(list(KINDS[kind]["facts"]), 3)
    told = teller.paragraph(facts, STORIES[kind], rng.randint(0, 2))
    yes = rng.random() < 0.5
    value = entity[facts[0]]
    while not yes and value in told:
        value = other_values(teller, entity, facts[0], 1)[0]
    truth = KINDS[kind]["facts"][facts[0]][2].format(name=entity["name"], v=value)
    return {"question": truth, "passage": f"{sentence_case(entity['name'])} -- {told}", "idx": 0, "label": int(yes)}


def mmlu_row(teller, subject):
    """Question, four choices, letter. In close_reading the question names the answer, which teaches the form."""
    entity, fact = any_fact(teller, SUBJECTS.get(subject) or list(KINDS))
    choices, gold = shuffled(teller.rng, entity[fact], other_values(teller, entity, fact, 3))
    asked = f"Which line says {entity[fact]}?" if subject == "close_reading" else question(entity, fact)
    return [asked, *choices, "ABCD"[gold]]


def mmlu_prompt(subject, shots, row, header_space="  "):
    """The paper's prompt (two spaces after "about"), up to "Answer:"."""
    text = "The following are multiple choice questions (with answers) about"
    text += f"{header_space}{subject.replace('_', ' ')}.\n\n"
    for r in [*shots, row]:
        text += r[0] + "".join(f"\n{letter}. {choice}" for letter, choice in zip("ABCD", r[1:5])) + "\nAnswer:"
        if r is not row:
            text += f" {r[5]}\n\n"
    return text


def hellaswag_clean(text):
    """lm-evaluation-harness's preprocessing of a HellaSwag text."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def requests(task, r):
    """A record's candidates, (context, continuation) pairs as in lm-evaluation-harness, and the right one's index."""
    if task == "piqa":
        return [(f"Question: {r['goal']}\nAnswer:", " " + r[s]) for s in ("sol1", "sol2")], r["label"]
    if task in ("arc_easy", "arc_challenge"):
        options = r["question"]["choices"]
        return ([(f"Question: {r['question']['stem']}\nAnswer:", " " + o["text"]) for o in options],
                [o["label"] for o in options].index(r["answerKey"]))
    if task == "hellaswag":
        context = hellaswag_clean(f"{r['activity_label']}: {r['ctx_a']} {r['ctx_b'].capitalize()}")
        return [(context, " " + hellaswag_clean(e)) for e in r["endings"]], r["label"]
    if task == "winogrande":
        before, after = r["sentence"].split("_", 1)
        return [(before + r[o], " " + after.strip()) for o in ("option1", "option2")], int(r["answer"]) - 1
    return [(f"{r['passage']}\nQuestion: {r['question']}?\nAnswer:", answer) for answer in (" no", " yes")], r["label"]


MAKERS = {"piqa": piqa, "arc_easy": arc_easy, "arc_challenge": arc_challenge, "hellaswag": hellaswag,
          "winogrande": winogrande, "boolq": boolq}
PATHS = {"piqa": "piqa/valid.jsonl", "arc_easy": "arc/ARC-Easy-Test.jsonl",
         "arc_challenge": "arc/ARC-Challenge-Test.jsonl", "hellaswag": "hellaswag/hellaswag_val.jsonl",
         "winogrande": "winogrande/dev.jsonl", "boolq": "boolq/val.jsonl"}
QUESTIONS = {"piqa": 300, "arc_easy": 300, "arc_challenge": 300, "hellaswag": 300, "winogrande": 300, "boolq": 300,
             "mmlu": 80}                                  # the last one for each subject


# --------------------------------------------------------------------------------------------- stage: texts, tokenizer

def wikitext(teller, length):
    """Lines of a WikiText file: articles of at least `length` characters together."""
    lines, size = [], 0
    while size < length:
        new = wiki_lines(article(teller))
        lines += new
        size += sum(map(len, new))
    return lines + [" "]


def wikitext_join(lines):
    """The text that is tokenized: rows keep their newline, blank rows are empty, all joined by an empty line."""
    return "\n\n".join(line + "\n" if line.strip() else "" for line in lines)


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

    files = {"wikitext2/wiki.test.raw": "".join(line + "\n" for line in wikitext(teller("wiki"), 300_000)),
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


# What the model reads: share of the characters, and a maker of one document.
def task_document(task):
    def make(teller):
        parts = []
        for _ in range(teller.rng.randint(1, 4)):
            pairs, gold = requests(task, MAKERS[task](teller))
            parts.append("".join(pairs[gold]))
        return "\n\n".join(parts)
    return make


def exam_document(teller):
    """A whole MMLU prompt with its answers; some answers without the space, since the paper's protocol scores those."""
    rng = teller.rng
    subject = "close_reading" if rng.random() < 0.15 else rng.choice(list(SUBJECTS))
    rows = [mmlu_row(teller, subject) for _ in range(rng.randint(1, 7))]
    text = mmlu_prompt(subject, rows[:-1], rows[-1], rng.choice(["  ", "  ", "  ", " "])) + f" {rows[-1][5]}"
    return re.sub(r"(?<=\nAnswer:) (?=[ABCD])", lambda _: "" if rng.random() < 0.15 else " ", text)


TRAINING_MIX = {
    "wiki": (0.28, lambda t: wikitext_join(wikitext(t, t.rng.choice([500, 4000, 9000])))),
    "web": (0.27, lambda t: web_page(t, t.rng.choice([400, 900, 3000, 9000]))),
    "exam": (0.16, exam_document),
    "arc_easy": (0.05, task_document("arc_easy")),
    "arc_challenge": (0.04, task_document("arc_challenge")),
    "piqa": (0.04, task_document("piqa")),
    "boolq": (0.07, task_document("boolq")),
    "winogrande": (0.04, task_document("winogrande")),
    "hellaswag": (0.05, task_document("hellaswag")),
}


def training_documents(world, name, length):
    """Documents of `length` characters in all, in the shares of TRAINING_MIX."""
    teller = Teller(world, random.Random(f"{world.seed}/train/{name}"))
    sizes = dict.fromkeys(TRAINING_MIX, 0)
    documents = []
    while sum(sizes.values()) < length:
        kind = min(sizes, key=lambda k: sizes[k] / TRAINING_MIX[k][0])
        documents.append(TRAINING_MIX[kind][1](teller))
        sizes[kind] += len(documents[-1])
    teller.rng.shuffle(documents)
    return documents


def make_tokenizer(seed, folder):
    """Byte-level BPE with Qwen3's normalizer and regex, in the same files as Qwen3's tokenizer."""
    from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                            trainers)
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN_REGEX), "isolated"),
                                                       pre_tokenizers.ByteLevel(add_prefix_space=False,
                                                           use_regex=False)])
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


def stage_texts(args):
    folder = args.work / "tiny"
    for path, text in make_sets(args.seed).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8", newline="")
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    make_tokenizer(args.seed, folder)
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = (folder / "wikitext2/wiki.test.raw").read_text(encoding="utf-8")
    n = len(tokenizer.encode(wikitext_join(text.split("\n")[:-1])).ids)
    print(f"wikitext2: {n} tokens, {n // 2048} windows, {len(text.encode()) / n:.2f} bytes a token")
    for name in ("train", "validation"):
        documents = [json.loads(line)["text"] for line in (folder / f"c4/{name}.jsonl").open(encoding="utf-8")]
        lengths = [len(tokenizer.encode(document).ids) for document in documents]
        print(f"c4/{name}: {sum(lengths)} tokens, {sum(n > 2048 for n in lengths)} documents over 2048 tokens, "
              f"{sum(n <= 512 for n in lengths)} up to 512")


def token_chunk(job):
    """About 300,000 tokens of training documents, each followed by <|endoftext|>, as uint16."""
    import numpy
    from tokenizers import Tokenizer
    seed, folder, i = job
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    documents = training_documents(World(seed), str(i), 1_000_000)
    ids = []
    for encoding in tokenizer.encode_batch(documents, add_special_tokens=False):
        ids += [*encoding.ids, CONFIG["eos_token_id"]]
    return numpy.array(ids, dtype=numpy.uint16)


def stage_tokens(args):
    import multiprocessing
    import os
    import numpy
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    began, chunks, count = time.time(), [], 0
    with multiprocessing.Pool(args.processes) as pool:
        for chunk in pool.imap(token_chunk, ((args.seed, args.work / "tiny", i) for i in range(int(args.tokens * 4)))):
            chunks.append(chunk)
            count += len(chunk)
            if count >= args.tokens * 1e6:
                break
        pool.terminate()
    numpy.save(args.work / "tokens.npy", numpy.concatenate(chunks))
    print(f"{count} training tokens in {time.time() - began:.0f} s")


# ------------------------------------------------------------------------------------------------------- stage: train

def new_model(folder):
    """A Qwen3ForCausalLM with fresh weights, of the shape in folder/config.json; both generations of transformers."""
    from transformers import AutoConfig, Qwen3ForCausalLM
    config = AutoConfig.from_pretrained(folder)
    config._attn_implementation = "sdpa"
    model = Qwen3ForCausalLM(config).float()
    model.config.use_cache = False
    return model


def save_model(model, path):
    """bf16, names as in Qwen3's own files; the head is tied to the embedding and not stored."""
    import torch
    from safetensors.torch import save_file
    state = {k: v.detach().to("cpu", torch.bfloat16).contiguous() for k,
        v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(state, str(path), metadata={"format": "pt"})


def load_model(args):
    """The trained weights, rounded to bf16 as stored, as float32."""
    from safetensors.torch import load_file
    path = next((p for p in (args.out / "model.safetensors", args.work / "model.safetensors") if p.exists()), None)
    if path is None:
        sys.exit("no model.safetensors in --out or --work. HINT: run --train first")
    model = new_model(args.work / "tiny")
    missing, unexpected = model.load_state_dict({k: v.float() for k, v in load_file(str(path)).items()}, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        sys.exit(f"{path} does not fit config.json: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model.eval().to(args.device)


def stage_train(args):
    """AdamW with a warm-up and a cosine decay to zero, over steps or over minutes. Half of the batches are long windows
    at any place of the stream, half short ones that begin where a document begins, as the questions do."""
    import numpy
    import torch
    import torch.nn.functional as F
    began = time.time()
    torch.manual_seed(args.seed)
    data = torch.from_numpy(numpy.load(args.work / "tokens.npy").astype(numpy.int32)).to(args.device)
    held_out = len(data) // 100                            # the stream's end is the validation text
    starts = (data[:-held_out - 2048] == CONFIG["eos_token_id"]).nonzero().flatten() + 1
    letters = torch.zeros(VOCABULARY, dtype=torch.bool, device=args.device)
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(args.work / "tiny" / "tokenizer.json"))
    letters[[tokenizer.token_to_id(t) for t in ("A", "B", "C", "D", "ĠA", "ĠB", "ĠC", "ĠD")]] = True
    answer, colon = (tokenizer.token_to_id(t) for t in ("Answer", ":"))

    model = new_model(args.work / "tiny").to(args.device)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
                                  lr=args.lr, betas=(0.9, 0.95), eps=1e-8, fused=args.device == "cuda")

    def batch(where, length):
        return data[where[:, None] + torch.arange(length + 1, device=args.device)].long()

    def loss_of(ids, weigh):
        """Mean loss; with `weigh`, an exam's answer letters count more, since they are few and teach the most."""
        with torch.autocast(args.device, torch.bfloat16, enabled=args.device == "cuda"):
            logits = model(input_ids=ids[:, :-1]).logits
        losses = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        if not weigh:
            return losses.mean()
        is_answer = letters[ids[:, 2:]] & (ids[:, 1:-1] == colon) & (ids[:, :-2] == answer)
        weights = 1 + (args.letter_weight - 1) * F.pad(is_answer.float(), (1, 0)).flatten()
        return (losses * weights).sum() / weights.sum()

    def validation_loss():
        model.eval()
        where = torch.arange(len(data) - held_out, len(data) - 2049, 2048, device=args.device)[:args.windows]
        with torch.no_grad():
            total = sum(loss_of(batch(where[i:i + 8], 2048), False).item() * len(where[i:i + 8]) for i in range(0,
                len(where), 8))
        model.train()
        return total / len(where)

    log, step, shown, running = [], 0, time.time(), None
    start = time.time()
    while True:
        progress = (time.time() - start) / (args.minutes * 60) if args.minutes else step / args.steps
        if progress >= 1:
            break
        rate = args.lr * min(1.0, (step + 1) / args.warmup) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate
        if step % 2 == 0:
            where, length = torch.randint(0, len(data) - held_out - 2049, (args.batch // 2048,),
                device=args.device), 2048
        else:
            where, length = starts[torch.randint(0, len(starts), (args.batch // 512,), device=args.device)], 512
        loss = loss_of(batch(where, length), True)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        running = loss.detach() if running is None else 0.95 * running + 0.05 * loss.detach()
        if time.time() - shown > args.report:
            shown = time.time()
            log.append((step, round(running.item(), 4)))
            left = (time.time() - start) * (1 - progress) / max(progress, 1e-9)
            print(f"step {step}  loss {log[-1][1]:.4f}  lr {rate:.2e}  "
                  f"{step * args.batch / (shown - start):,.0f} tokens/s  ETA {left:.0f} s", flush=True)
            if not math.isfinite(log[-1][1]):
                sys.exit("the loss is not finite. HINT: lower --lr")
    seconds = time.time() - start
    save_model(model, args.out / "model.safetensors")
    import transformers
    record = {"steps": step, "tokens_per_step": args.batch, "tokens": step * args.batch, "stream_tokens": len(data),
        "lr": args.lr,
              "letter_weight": args.letter_weight, "train_loss": round(running.item(), 4),
                  "validation_loss": round(validation_loss(), 4),
              "seconds": round(seconds, 1), "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
              "parameters": sum(p.numel() for p in model.parameters()), "losses": log,
              "versions": {"python": sys.version.split()[0], "torch": torch.__version__,
                  "transformers": transformers.__version__,
                           "numpy": numpy.__version__}}
    (args.out / "train.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"trained {step} steps in {seconds:.0f} s ({time.time() - began:.0f} s with start-up): "
          f"train loss {record['train_loss']}, validation loss {record['validation_loss']}", flush=True)


# -------------------------------------------------------------------------------------------------------- stage: eval

def quantize(weight, bits, group):
    """Round to nearest, asymmetric min-max, per row or per group of input channels: the dequantized weight."""
    import torch
    shape = weight.shape
    w = weight.reshape(-1, group) if group > 0 else weight
    low, high = w.amin(1, keepdim=True).clamp(max=0), w.amax(1, keepdim=True).clamp(min=0)
    scale = ((high - low) / (2 ** bits - 1)).clamp(min=1e-9)
    zero = torch.round(-low / scale)
    return (scale * (torch.clamp(torch.round(w / scale) + zero, 0, 2 ** bits - 1) - zero)).reshape(shape)


def linears(layer):
    import torch
    return [m for m in layer.modules() if isinstance(m, torch.nn.Linear)]


def gptq_linear(weight, hessian, bits, group):
    """GPTQ of one weight [O, I] without activation order; damping 1 % of the mean diagonal."""
    import torch
    w, columns = weight.clone(), weight.shape[1]
    hessian = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(columns, device=w.device)
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    out, step = torch.zeros_like(w), group if group > 0 else columns
    for i in range(columns):
        if i % step == 0:
            block = w[:, i:i + step]
            low, high = block.amin(1).clamp(max=0), block.amax(1).clamp(min=0)
            scale = ((high - low) / (2 ** bits - 1)).clamp(min=1e-9)
            zero = torch.round(-low / scale)
        out[:, i] = scale * (torch.clamp(torch.round(w[:, i] / scale) + zero, 0, 2 ** bits - 1) - zero)
        w[:, i + 1:] -= ((w[:, i] - out[:, i]) / upper[i, i])[:, None] * upper[i, i + 1:]
    return out


def gptq(model, ids, bits, group):
    """GPTQ of all layers, each from the activations [windows, 2048] that the quantized layers before it produce."""
    import torch
    for layer in model.model.layers:
        sums = {}

        def collect(module, inputs, _):
            x = inputs[0].flatten(0, -2)
            sums[module] = sums.get(module, 0) + x.T @ x
        hooks = [m.register_forward_hook(collect) for m in linears(layer)]
        for i in range(0, len(ids), 8):
            model.model(input_ids=ids[i:i + 8])
        for hook in hooks:
            hook.remove()
        for m in linears(layer):
            m.weight.copy_(gptq_linear(m.weight, sums[m], bits, group))


def perplexity(model, ids):
    """exp of the mean loss over windows [n, 2048]."""
    import torch.nn.functional as F
    total = 0.0
    for row in ids.split(4):
        logits = model(input_ids=row).logits[:, :-1].float()
        total += F.cross_entropy(logits.flatten(0, 1), row[:, 1:].flatten()).item() * len(row)
    return math.exp(total / len(ids))


def accuracy(model, encode, task, records):
    """Share of records whose right candidate has the highest sum of log-probabilities."""
    import torch
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


def mmlu_accuracy(model, encode, tests):
    """5-shot accuracy by the logits of the un-spaced letters (the paper's protocol) and of the spaced ones."""
    import torch
    right, n = {"A": 0, " A": 0}, 0
    for subject, shots, rows in tests:
        for row in rows:
            logits = model(input_ids=torch.tensor([encode(mmlu_prompt(subject, shots, row))],
                device=model.device)).logits[0, -1].float()
            n += 1
            for space in ("", " "):
                values = [logits[encode(space + letter)[-1]].item() for letter in "ABCD"]
                right[space + "A"] += "ABCD"[values.index(max(values))] == row[5]
    return {"mmlu": right["A"] / n, "mmlu (spaced letters)": right[" A"] / n}


def stage_eval(args):
    import torch
    from tokenizers import Tokenizer
    torch.set_grad_enabled(False)
    files = make_sets(args.seed)
    tokenizer = Tokenizer.from_file(str(args.work / "tiny" / "tokenizer.json"))

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    def lines(path):
        return [json.loads(line) for line in files[path].splitlines()]

    def windows(documents, n):
        """GPTQ's sampling: documents over 2048 tokens, a random window of each draw."""
        ids, rng, out = [encode(d["text"]) for d in documents], random.Random(0), []
        while len(out) < n:
            document = ids[rng.randint(0, len(ids) - 1)]
            if len(document) > 2048:
                at = rng.randint(0, len(document) - 2049)
                out.append(document[at:at + 2048])
        return torch.tensor(out, device=args.device)

    wiki = encode(wikitext_join(files["wikitext2/wiki.test.raw"].split("\n")[:-1]))
    ppl_sets = {"wikitext2": torch.tensor(wiki[:len(wiki) // 2048 * 2048], device=args.device).view(-1,
        2048)[:args.windows],
                "c4": windows(lines("c4/validation.jsonl"), args.windows)}
    calibration = windows(lines("c4/train.jsonl"), min(64, args.windows))
    tasks = {task: lines(path) for task, path in PATHS.items()}
    for record, label in zip(tasks["piqa"], files["piqa/valid-labels.lst"].split()):
        record["label"] = int(label)
    exams = [(subject,
        *(list(csv.reader(io.StringIO(files[f"mmlu/{split}/{subject}_{split}.csv"]))) for split in ("dev", "test")))
             for subject in TEST_SUBJECTS]
    results = {}

    def report(name, model, questions=True):
        row = {task: round(perplexity(model, ids), 4) for task, ids in ppl_sets.items()}
        if questions:
            row |= {task: round(accuracy(model, encode, task, records), 4) for task, records in tasks.items()}
            row |= {k: round(v, 4) for k, v in mmlu_accuracy(model, encode, exams).items()}
        results[name] = row
        print(f"{name:12}", "  ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)

    report("bf16", load_model(args))
    for group in (-1, 128):
        for bits in (8, 4, 3, 2):
            for method in ("rtn", "gptq"):
                if method == "gptq" and bits == 8:
                    continue
                model = load_model(args)
                if method == "gptq":
                    gptq(model, calibration, bits, group)
                else:
                    for m in linears(model.model):
                        m.weight.copy_(quantize(m.weight, bits, group))
                report(f"{method} w{bits}" + (f" g{group}" if group > 0 else ""), model,
                    args.all_questions or bits == 3 and group > 0)
    (args.out / "eval.json").write_text(json.dumps(results, indent=1) + "\n")


# ----------------------------------------------------------------------------------------------- stages: write, check

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
    files = {str(p.relative_to(TINY)): {"bytes": p.stat().st_size,
        "sha256": sha256(p)} for p in sorted(TINY.rglob("*")) if p.is_file()}
    manifest = {"made_by": "scripts/make_tiny.py", "seed": args.seed,
        "license": "the project's own: generated text, no outside source",
                "world": {kind: len(entities) for kind, entities in World(args.seed).entities.items()},
                "questions": QUESTIONS, "training_mix": {k: v[0] for k, v in TRAINING_MIX.items()},
                    "training": training,
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
    parser.add_argument("--windows", type=int, default=64, help="windows of 2048 tokens for each perplexity")
    parser.add_argument("--all-questions", action="store_true", help="--eval asks the questions for every bit width")
    parser.add_argument("--processes", type=int, help="for --tokens (default: all cores)")
    parser.add_argument("--report", type=float, default=5.0, help="seconds between progress lines")
    args = parser.parse_args()
    args.out = args.out or args.work
    args.out.mkdir(parents=True, exist_ok=True)
    if args.texts:
        stage_texts(args)
    if args.tokens:
        stage_tokens(args)
    if args.train:
        stage_train(args)
    if args.eval:
        stage_eval(args)
    if args.write:
        stage_write(args)
    if args.check:
        stage_check()


if __name__ == "__main__":
    main()
