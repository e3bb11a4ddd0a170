"""Prompts, token ids and scores of the multiple-choice tasks, as a reference for eval/choice.h, eval/mmlu.h and
eval/trie.h: the rules of lm-evaluation-harness v0.4 for the six zero-shot tasks, those of the paper's repository and of
lm-evaluation-harness for MMLU, written down a second time, in Python.

edge/        a data folder of our own with a few rows of each task, each of which breaks a reader that is a little wrong
TASK.json    for piqa, arc_easy, arc_challenge, hellaswag, winogrande, boolq, mmlu, mmlu_lm_eval:
                 task, normalized (acc_norm is defined), questions: [{
                     data       the data folder, relative to the project's root: the edge folder or data/tiny
                     row        of the question, from 0; for MMLU over all subjects in the order of their file names
                     gold       the right choice, from 0
                     choices: [{
                         context, continuation            the texts; white space hasn't moved between them yet
                         context_ids, continuation_ids    of tokenizer data/tiny
                         length      of the choice in code points, 0 where acc_norm isn't defined
                         score       sum of the log-probabilities of continuation_ids after context_ids by model
                                     data/tiny, Hugging Face transformers, float32 (only where `data` is data/tiny)
                     }], ...
                 }]; what all choices of a question share (context, context_ids) stands in the question instead
real.json    the same of the real sets (20 rows of each) with the tokenizer of Qwen3, as digests only:
                 {TASK: {source, count, all,
                         questions: [{row, gold, choices: [{text, ids, n_context, n_continuation}]}]}}
                     source SHA-256 over the bytes of the set's files, one after the other; for MMLU subject by subject,
                            dev, then test. Copies of a set differ, and the digests are of this one.
                     text   SHA-256 of context + "\\0" + continuation in UTF-8
                     ids    SHA-256 of context_ids, then continuation_ids, as little-endian int32
                     all    SHA-256 over all rows: context + "\\0" + continuation + "\\0" of each choice, then
                            str(gold) + "\\0"
                 hellaswag_raw: the same, without ids, of raw_subset_1000.jsonl in place of hellaswag_val.jsonl

Usage: part of make_golden.py. Packages: numpy, torch, tokenizers, transformers.
"""
if __name__ == "__main__":
    raise SystemExit(print(__doc__))

import csv
import hashlib
import json
import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parents[2]
EDGE, TINY = "test/golden/prompts/edge", "data/tiny"
MMLU_TOKENS, SHOTS = 2048, 5

# ---- the edge folder ----

PIQA = [  # goal, sol1, sol2, label
    ("How do you keep bread soft?", "'Tis best to wrap it in a cloth.", ".5 litres of water beside it will do.", 0),
    ("Type the words café and 你好. ", "Press é for the naïve one 🙂.", "Copy 世界 from a page.", 1),
    ("Two steps:\n1. open \"it\"\n2. close it", " a leading space", "a trailing space ", 1),
    ("Count the letters.", "cafe\u0301 au lait", "\U0001f469\u200d\U0001f467 and 한국어", 0),
    ("", "the goal is empty", "<|im_start|>", 0),
    ("Separators\u2028in a\u0085line are no line ends,  are they", "a", "\tb\u00a0", 1),
    ("Does \\n stay two characters?", "yes: \\n", "no: \n", 0),
    ("Which is the same?", "both", "both", 1),
]
ARC_EASY = [  # stem, choices as (label, text), answerKey
    ("Which of these floats?", [("A", "a cork"), ("B", "a nail"), ("C", "a stone"), ("D", "a coin")], "A"),
    ("Three will do. ", [("A", "'s"), ("B", ".5"), ("C", "½ of it")], "C"),
    ("Five?", [("A", "A"), ("B", "B"), ("C", "C"), ("D", "D"), ("E", "E")], "E"),
    ("Digits label these.", [("1", "2"), ("2", "3"), ("3", "4"), ("4", "1")], "4"),
    (" Élan, in\na stem\n", [("A", "vif-argent"), ("B", "mercurè"), ("C", "Hg"), ("D", "汞")], "D"),
]
ARC_CHALLENGE = [
    ("The labels are in disorder.", [("C", "third"), ("A", "first"), ("D", "fourth"), ("B", "second")], "B"),
    ("Digits, three of them", [("1", "one"), ("2", "two"), ("3", "three")], "2"),
    ("Digits, five of them", [("1", "5"), ("2", "4"), ("3", "3"), ("4", "2"), ("5", "1")], "1"),
    ("Answer:", [("A", " Answer:"), ("B", "Question: "), ("C", "''"), ("D", "...")], "D"),
]
HELLASWAG = [  # activity_label, ctx_a, ctx_b, endings, label
    ("Baking bread", "[header] How to bake bread [title] Mix the flour. [step] Use warm water.", "iPhone AND oven",
     ["are set [title] Wait an hour.", "[title] Knead it.", "rise [substeps] slowly.", "burn."], 0),
    ("Three  spaces", "One two  three   four    five     end.", "then   THEN",
     ["three   of them", "four    of them", "x  [title]  y", "[step]   [step]"], 1),
    ("Walking", "A man walks his dog.", "", ["He runs.", " leading", "trailing ", "\u00a0\u3000both\u2003\u00a0"], 2),
    ("École", "Le vent souffle.", "éTÉ À LYON", ["déjà vu", "ça va", "'s late", ".5 km"], 3),
    ("Río", "El agua baja.", "ÑANDÚ Y ÁRBOL", ["corre", "¿salta?", "vuela 🐦", "鳥が飛ぶ"], 0),
    ("Кухня", "Повар режет хлеб.", "йОГУРТ И СЫР", ["едят.", "пьют.", "[title] Спят.", "[шаг] ждут."], 1),
    ("Numbers", "It costs 3 [title]", "3D PRINTER", ["[1] and [2].", "see [a\nb] there", "[[x]y] z", "a ]b[ c"], 2),
    ("Trailing [step]", "The context ends in a space. [step]", "", ["go", "'s", ".", "[step] go"], 3),
    ("Newline", "The context ends in a line end.\n[step]", "", ["go", "\ngo", "[step]\ngo", "go\n"], 0),
    ("Controls", "\u001c\u0085A file separator is white space.\u001f", "", ["\u001cone\u001d", "\u200btwo\u200b",
     "\u1680three", "\ufefffour"], 1),
    ("[title]", " [title][title] [title]", "", ["a[title]b [title]c", " [title] d", "[ title] e", "[Title] f"], 2),
    ("Open [bracket", "and more", "THE END]", ["[no end", "no start]", "[] [x]y", "x[]y"], 3),
]
WINOGRANDE = [  # sentence, option1, option2, answer
    ("Ann lent Bea a lamp since _'s own was broken.", "Ann", "Bea", "2"),
    ("The harp was not in the trunk because it was the _.", "harp", "trunk", "1"),
    ("Tom gave _ the snake_case book and_so on.", "Ida", "Max", "1"),
    ("_ ran, but not far.", "The cat", "The dog", "2"),
    ("The option ends in spaces, _ sees.", "Kim  ", "Lee\t", "1"),
    ("Zoë met Øyvind; \u00a0_\u00a0\u3000 laughed – très haut 🙂.  ", "Zoë", "Øyvind", "2"),
    ("A list of two: _ (that is all)", "the first:\n", "the second.\n", "1"),
    ("It is__not that.", "a", "b", "2"),
    ("Then_\nthe end", " and", " but", "1"),
]
BOOLQ = [  # question, passage, label
    ("Is Mount Ember higher than Mount Ash", "Mount Ember -- Mount Ember is 2,000 m high; Mount Ash, 1,900 m.", True),
    ("does it already end in a question mark?", "Marks -- A passage with \"quotes\" and a tab\there.", False),
    ("is the end kept", "Ends -- The passage ends in white space. \n", 0),
    (" élan vital ", "  Élan -- Two  spaces,\n\ntwo line ends, 你好 and 🙂", 1),
]
# A CSV file is written out byte for byte: quoting and line ends are the point.
MMLU = {
    "dev/cell_by_cell": 'What is two and two?,3,4,5,6,B\n'
                        '"Which, if any,\nis ""it""?",this,that,"both, really",none,D\n'
                        ' space before and after ," one",two ,three,four,A\n'
                        '"Statement 1| All\n\nStatement 2| None","True, True","False, False","True, False",neither,C\n'
                        'été,naïve,你好,"""",🙂,B\n'
                        'a sixth row is no shot,w,x,y,z,A\n',
    "test/cell_by_cell": '"Only ""quotes""","""a""","b""","""c",d,B\n'
                         '"\nline ends around\n","a\nb","\nc","d\n"," e ",A\n'
                         '\u00a0no-break spaces around\u3000,1,2,3,4,D\n'
                         'apostrophe\'s,\'s,.5,"1,000",–,C\n'
                         'no line end after this row,p,q,r,s,A',
    "dev/carriage_returns": 'First?,a,b,c,d,A\r\nSecond?,a,b,c,d,B\r\n"Third\r\nwith CRLF?",a,b,c,d,C\r\n'
                            'Fourth?,"a\rb",c,d,e,D\r\nFifth? ,f,g,h,i ,A\r\n',
    "test/carriage_returns": 'Plain?,a,b,c,d,D\r\n"Lone\rCR?","\r",b,"c\r",d,C\r\n'
                             '"CRLF\r\ninside?","a\r\nb",c,"\r\n",d,B\r\n" \r\n stripped \r",a,b,c,d,A\r\n',
    "dev/etiquette": ''.join(f'{question},bow,wave,nod,smile,{answer}\n' for question, answer in
                             (("Who?", "D"), ("Why?", "C"), ("How?", "B"), ("When?", "A"), ("Where?", "D"))),
    "test/etiquette": 'One word makes the subject.,bow,wave,nod,smile,C\n',
}


def long_subject(tokenizer):
    """A subject of long shots (a digit is a token): prompts of less than 2048 tokens, exactly 2048, 2049, many more."""
    dev = "".join(f"{name} {'0123456789' * 32}?,stay,go,wait,{i},{'ABCDA'[i]}\n"
                  for i, name in enumerate(("First:", "Second:", "Third:", "Fourth:", "Last:")))
    shots = list(csv.reader(dev.splitlines()))
    rows = [["Short?", "a", "b", "c", "d", "A"]]
    for target in (MMLU_TOKENS, MMLU_TOKENS + 1):
        row = ["Padded to the token:", "a", "b", "c", "d", "B"]
        while len(encode(tokenizer, paper_prompt("long_shots", shots, row))) < target:
            row[0] += "7"
        assert len(encode(tokenizer, paper_prompt("long_shots", shots, row))) == target
        rows.append(row)
    rows.append(["Long: " + "56789" * 280, "a", "b", "c", "d", "C"])
    rows.append(["Longer: " + "98765" * 380, "a", "b", "c", "d", "D"])
    fewest = [len(encode(tokenizer, paper_prompt("long_shots", shots[:k], rows[-1]))) for k in (0, 1)]
    assert fewest[0] <= MMLU_TOKENS < fewest[1]
    return {"dev/long_shots": dev, "test/long_shots": "".join(",".join(row) + "\n" for row in rows)}


def write_edge(folder, tokenizer):
    def write(name, text):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())

    def jsonl(name, keys, rows, end="\n"):
        """Every other line spells what isn't ASCII with escapes."""
        lines = [json.dumps(dict(zip(keys, row)), ensure_ascii=i % 2 > 0) for i, row in enumerate(rows)]
        write(name, "".join(line + end for line in lines))

    jsonl("piqa/valid.jsonl", ("goal", "sol1", "sol2"), PIQA)
    write("piqa/valid-labels.lst", "\n".join(str(row[3]) for row in PIQA))
    for name, rows in ("Easy", ARC_EASY), ("Challenge", ARC_CHALLENGE):
        jsonl(f"arc/ARC-{name}-Test.jsonl", ("id", "question", "answerKey"),
              [(f"edge_{i}", {"stem": stem, "choices": [dict(text=text, label=label) for label, text in choices]}, key)
               for i, (stem, choices, key) in enumerate(rows)])
    jsonl("hellaswag/hellaswag_val.jsonl", ("ind", "activity_label", "ctx_a", "ctx_b", "ctx", "endings", "label"),
          [(i, activity, a, b, "this is not used", endings, label)
           for i, (activity, a, b, endings, label) in enumerate(HELLASWAG)])
    jsonl("winogrande/dev.jsonl", ("sentence", "option1", "option2", "answer"), WINOGRANDE, "\r\n")
    jsonl("boolq/val.jsonl", ("question", "passage", "label"), BOOLQ)
    for name, text in (MMLU | long_subject(tokenizer)).items():
        write(f"mmlu/{name}_{name.split('/')[0]}.csv", text)


# ---- questions: lists of (choices, gold), a choice being (context, continuation, length) ----

def read_jsonl(path):
    """The rows of a file; lines end with LF, nothing else that Python takes for a line end ends one."""
    return [json.loads(line) for line in path.read_bytes().decode().split("\n") if line.strip()]


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file, strict=True))
    assert all(len(row) == 6 and row[5] in set("ABCD") for row in rows), path
    return rows


def same_context(context, choices):
    return [(context, " " + choice, len(choice)) for choice in choices]


def piqa(data):
    rows, labels = read_jsonl(data / "piqa/valid.jsonl"), (data / "piqa/valid-labels.lst").read_text().split()
    assert len(rows) == len(labels)
    return [(same_context(f"Question: {row['goal']}\nAnswer:", [row["sol1"], row["sol2"]]), int(label))
            for row, label in zip(rows, labels)]


def arc(data, name):
    out = []
    for row in read_jsonl(data / f"arc/ARC-{name}-Test.jsonl"):
        question = row["question"]
        labels = [choice["label"] for choice in question["choices"]]
        texts = [choice["text"] for choice in question["choices"]]
        out.append((same_context(f"Question: {question['stem']}\nAnswer:", texts), labels.index(row["answerKey"])))
    return out


def hellaswag_text(text):
    """lm-evaluation-harness's preprocess of HellaSwag."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def hellaswag(data, name="hellaswag_val.jsonl"):
    return [(same_context(hellaswag_text(row["activity_label"] + ": " + row["ctx_a"] + " " + row["ctx_b"].capitalize()),
                          [hellaswag_text(ending) for ending in row["endings"]]), row["label"])
            for row in read_jsonl(data / "hellaswag" / name)]


def winogrande(data):
    out = []
    for row in read_jsonl(data / "winogrande/dev.jsonl"):
        before, after = row["sentence"].split("_", 1)
        out.append(([(before + row[option], " " + after.strip(), 0) for option in ("option1", "option2")],
                    ("1", "2").index(row["answer"])))
    return out


def boolq(data):
    return [([(f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:", answer, 0) for answer in (" no", " yes")],
             int(row["label"])) for row in read_jsonl(data / "boolq/val.jsonl")]


def mmlu_example(question, row):
    return question + "".join(f"\n{letter}. {choice}" for letter, choice in zip("ABCD", row[1:5])) + "\nAnswer:"


def paper_prompt(subject, shots, row):
    about = "".join(" " + word for word in subject.split("_"))
    return (f"The following are multiple choice questions (with answers) about {about}.\n\n"
            + "".join(mmlu_example(shot[0], shot) + f" {shot[5]}\n\n" for shot in shots) + mmlu_example(row[0], row))


def lm_eval_prompt(subject, shots, row):
    examples = [mmlu_example(shot[0].strip(), shot) + f" {shot[5]}" for shot in shots]
    examples.append(mmlu_example(row[0].strip(), row))
    return (f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
            + "\n\n".join(examples))


def mmlu_subjects(data):
    return [path.name.removesuffix("_test.csv") for path in sorted((data / "mmlu/test").glob("*_test.csv"))]


def mmlu(data, tokenizer, style):
    """The paper's prompts lose shots, the last first, until they have no more than 2048 tokens; the harness's don't."""
    out = []
    for subject in mmlu_subjects(data):
        shots = read_csv(data / f"mmlu/dev/{subject}_dev.csv")[:SHOTS]
        rows = read_csv(data / f"mmlu/test/{subject}_test.csv")
        if style == "paper":
            prompts, k = [paper_prompt(subject, shots, row) for row in rows], SHOTS
            while k > 0:
                k -= 1
                encodings = tokenizer.encode_batch(prompts, add_special_tokens=False)
                long = [len(encoding.ids) > MMLU_TOKENS for encoding in encodings]
                prompts = [paper_prompt(subject, shots[:k], row) if cut else prompt
                           for prompt, row, cut in zip(prompts, rows, long)]
                if not any(long):
                    break
        else:
            prompts = [lm_eval_prompt(subject, shots, row) for row in rows]
        letters = "ABCD" if style == "paper" else (" A", " B", " C", " D")
        out += [([(prompt, letter, 0) for letter in letters], "ABCD".index(row[5]))
                for prompt, row in zip(prompts, rows)]
    return out


TASKS = {
    "piqa": lambda data, tokenizer: piqa(data),
    "arc_easy": lambda data, tokenizer: arc(data, "Easy"),
    "arc_challenge": lambda data, tokenizer: arc(data, "Challenge"),
    "hellaswag": lambda data, tokenizer: hellaswag(data),
    "winogrande": lambda data, tokenizer: winogrande(data),
    "boolq": lambda data, tokenizer: boolq(data),
    "mmlu": lambda data, tokenizer: mmlu(data, tokenizer, "paper"),
    "mmlu_lm_eval": lambda data, tokenizer: mmlu(data, tokenizer, "lm-eval"),
}
SOURCES = {
    "piqa": ("piqa/valid.jsonl", "piqa/valid-labels.lst"), "arc_easy": ("arc/ARC-Easy-Test.jsonl",),
    "arc_challenge": ("arc/ARC-Challenge-Test.jsonl",), "hellaswag": ("hellaswag/hellaswag_val.jsonl",),
    "winogrande": ("winogrande/dev.jsonl",), "boolq": ("boolq/val.jsonl",),
    "hellaswag_raw": ("hellaswag/raw_subset_1000.jsonl",),
}
NORMALIZED = ("piqa", "arc_easy", "arc_challenge", "hellaswag")

# ---- ids and scores ----


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def split_ids(tokenizer, task, context, continuation):
    """Ids of context and continuation. The paper's MMLU looks the letter up alone; behind "Answer:" it might merge."""
    if task == "mmlu":
        return encode(tokenizer, context), encode(tokenizer, continuation)[-1:]
    kept = context.rstrip()
    whole, context_ids = encode(tokenizer, context + continuation), encode(tokenizer, kept)
    return context_ids, whole[len(context_ids):]


def qwen_tokenizer(folder):
    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
               r"\s*[\r\n]+|\s+(?!\S)|\s+")
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    added = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    for number, flags in sorted(added.items(), key=lambda item: int(item[0])):
        token = AddedToken(flags["content"], special=flags["special"], normalized=False)
        assert tokenizer.add_tokens([token]) == 1 and tokenizer.token_to_id(flags["content"]) == int(number)
    return tokenizer


@torch.no_grad()
def log_probability(model, context_ids, continuation_ids):
    ids = torch.tensor(context_ids + continuation_ids, device=model.device)
    logits = model(ids[None, :-1], use_cache=False).logits[0, len(context_ids) - 1:]
    assert logits.dtype == torch.float32
    return float(logits.log_softmax(-1).gather(1, ids[len(context_ids):, None]).sum())


# ---- the files ----


def spread(n, count=20):
    return [round(i * (n - 1) / (count - 1)) for i in range(count)] if n > count else list(range(n))


def reference_question(tokenizer, task, choices, gold, data, row, model):
    question = {"data": data, "row": row, "gold": gold, "choices": []}
    for context, continuation, length in choices:
        context_ids, continuation_ids = split_ids(tokenizer, task, context, continuation)
        assert context_ids and continuation_ids, (task, data, row)
        choice = {"context": context, "continuation": continuation, "context_ids": context_ids,
                  "continuation_ids": continuation_ids, "length": length}
        if model:
            choice["score"] = round(log_probability(model, context_ids, continuation_ids), 5)
        question["choices"].append(choice)
    for key in ("context", "context_ids"):
        if all(choice[key] == question["choices"][0][key] for choice in question["choices"]):
            question[key] = [choice.pop(key) for choice in question["choices"]][0]
    return question


def questions_json(head):
    """An object whose last member is the array `questions`, with a line a question."""
    lines = [json.dumps(question, ensure_ascii=False, separators=(",", ":")) for question in head.pop("questions")]
    return json.dumps(head)[:-1] + ', "questions": [\n' + ",\n".join(lines) + "\n]}"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def digest_questions(task, data, questions, rows, ids=None):
    """The entry of a task in real.json; ids(context, continuation) gives token ids."""
    sources = SOURCES.get(task) or [f"mmlu/{split}/{subject}_{split}.csv" for subject in mmlu_subjects(data)
                                    for split in ("dev", "test")]
    everything, out = hashlib.sha256(), []
    for choices, gold in questions:
        for context, continuation, _ in choices:
            everything.update(f"{context}\0{continuation}\0".encode())
        everything.update(f"{gold}\0".encode())
    for row in rows:
        choices, gold = questions[row]
        out.append({"row": row, "gold": gold, "choices": []})
        for context, continuation, _ in choices:
            choice = {"text": sha256(f"{context}\0{continuation}".encode())}
            if ids:
                context_ids, continuation_ids = ids(context, continuation)
                choice |= {"ids": sha256(np.array(context_ids + continuation_ids, "<i4").tobytes()),
                           "n_context": len(context_ids), "n_continuation": len(continuation_ids)}
            out[-1]["choices"].append(choice)
    return {"source": sha256(b"".join((data / name).read_bytes() for name in sources)), "count": len(questions),
            "all": everything.hexdigest(), "questions": out}


def real_mmlu_rows(data):
    """20 rows of 20 subjects: some with a line end in a cell, some with a quote, some long, some from the middle."""
    subjects = mmlu_subjects(data)
    chosen, start, picked = {subjects[i] for i in spread(len(subjects), 20)}, 0, []
    for subject in subjects:
        rows = read_csv(data / f"mmlu/test/{subject}_test.csv")
        kinds = [[i for i, row in enumerate(rows) if any("\n" in cell for cell in row)],
                 [i for i, row in enumerate(rows) if any('"' in cell for cell in row)],
                 [max(range(len(rows)), key=lambda i: len("".join(rows[i])))]]
        wanted = kinds[len(picked) % 3] or [len(rows) // 2]
        if subject in chosen:
            picked.append(start + wanted[0])
        start += len(rows)
    return picked


def real(data):
    tokenizer = qwen_tokenizer(data / "qwen3-tokenizer")
    tasks = {}
    for task, questions_of in TASKS.items():
        print(f"prompts/real: {task}")
        questions = questions_of(data, tokenizer)
        rows = real_mmlu_rows(data) if task.startswith("mmlu") else spread(len(questions))
        tasks[task] = digest_questions(task, data, questions, rows, partial(split_ids, tokenizer, task))
    raw = hellaswag(data, "raw_subset_1000.jsonl")
    return tasks | {"hellaswag_raw": digest_questions("hellaswag_raw", data, raw, spread(len(raw)))}


def write(folder):
    """Everything under `folder`, which stands for test/golden/prompts; real.json only where the real sets are."""
    tokenizer = Tokenizer.from_file(str(ROOT / TINY / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(ROOT / TINY, dtype=torch.float32, attn_implementation="eager").eval()
    write_edge(folder / "edge", tokenizer)
    for task, questions_of in TASKS.items():
        print(f"prompts/{task}")
        out = []
        for row, (choices, gold) in enumerate(questions_of(folder / "edge", tokenizer)):
            out.append(reference_question(tokenizer, task, choices, gold, EDGE, row, None))
        questions = questions_of(ROOT / TINY, tokenizer)
        if task.startswith("mmlu"):
            subjects = len(mmlu_subjects(ROOT / TINY))
            size = len(questions) // subjects
            rows = [subject * size + row for subject in range(subjects) for row in spread(size, 20 // subjects)]
        else:
            rows = spread(len(questions))
        for row in rows:
            out.append(reference_question(tokenizer, task, *questions[row], TINY, row, model))
        text = questions_json({"task": task, "normalized": task in NORMALIZED, "questions": out})
        (folder / f"{task}.json").write_text(text + "\n", encoding="utf-8")
    data = Path(os.environ.get("QWEN3_DATA") or ROOT.parent / "shared" / "data")
    if data.is_dir():
        text = ",\n".join(f'"{name}": {questions_json(digests)}' for name, digests in real(data).items())
        (folder / "real.json").write_text("{" + text + "}\n")
    else:
        print(f"prompts/real.json is left as it is: no real sets in {data}")
