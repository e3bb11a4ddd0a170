#!/usr/bin/env python3
"""Writes test/golden/tokenizer/, the reference for test/test_tokenizer.cu, with Hugging Face `tokenizers` (0.23.3).

    qwen/tokenizer.json       a small byte-level BPE with Qwen3's expression, NFC and some added tokens
    pair/                     the same one as vocab.json, merges.txt and tokenizer_config.json
    llama/tokenizer.json      as Llama 3 has it: \\p{N}{1,3}, no normalizer, ignore_merges, merges as "a b"
    smollm/tokenizer.json     as SmolLM has it: single digits cut out, GPT-2's expression, special tokens in the vocabulary too, and
                              a vocabulary that lacks some single bytes, which are dropped
    gpt2/tokenizer.json       as GPT-2 has it: its expression alone; here such bytes become an unknown token, one for several
    texts.json                {"texts": [...], "qwen": [[ids], ...], "llama", "smollm", "gpt2",
                               "smollm_runs": digits cut out run by run, "gpt2_each": an unknown token for each such byte,
                               "long": [{"unit", "repeat", "n_ids", "sha256" of the ids as little-endian int32}, ...]}

Usage: python3 scripts/golden/make_golden_tokenizer.py. Packages: tokenizers==0.23.3.
"""
import sys

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):  # before it needs its packages
    sys.exit(print(__doc__))

import hashlib
import json
import os
import random
import struct

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "test", "golden", "tokenizer")
QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
        r"\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
# Some start, end or continue others: the leftmost match counts, and of several there the longest.
ADDED = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<think", "think>", "<<", "hello",
         "hello world", "world wide", "\u00e9!", "\u4e16\u754c"]
SPECIAL = 3  # so many of them are special tokens
LONG = ["a", "the", "Tokenization", " ", "=", "e\u0301", "\u0301", "x \n", "<"]  # repeated up to a million bytes
WHOLE = ["unmergeable", " unmergeable", "zqxj", "\n\n\n\n\n"]  # tokens of the Llama-like one that no merge makes
# Every pair of a last and a first byte of these, and "12" "3", is merged when nothing else is left to merge: then a border
# between two pieces that is in the wrong place shows in the ids.
# The bytes that the SmolLM-like one has no token for: within words, so that what is beside them becomes neighbours and may merge.
MISSING = "jZ#\u007f\u0001\u0e01"
CROSSED = "ast'12 \n\r\t!<\u017f\u0301\u00a0\u2003\u0085\u00b2\u0661\u4f60\U0001f642"

TRAINING = """
The tokenizer is trained on a little of everything, and it's not meant to be good: it's meant to be small. We'll see
that the words the reader would expect aren't always there, and that's fine; they're spelled out. I'm sure you've seen.
In the beginning there was a string of bytes, and the bytes were merged, two by two, into the tokens of the vocabulary.
What the test needs is merges of many kinds: of letters, of spaces, of digits 10, 100, 1000, of signs == != -> // **.
    for (int i = 0; i < n; i++) {\n        sum += x[i] * y[i];\n    }\n\treturn sum;\r\n}\r\n\r\n
La tokenisation découpe le texte en unités; été, forêt, naïve, garçon, café. Über den Wörterbüchern schläft die Größe.
Привет, мир! Это пример текста, и это не последний. Ελληνικά και άλλα.
你好，世界！这是一个测试。日本語のテストです。한국어 문장이 있습니다. हिन्दी में लिखा हुआ. مرحبا بالعالم.
"""


def build(model, pattern, nfc):
    tokenizer = Tokenizer(model)
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def spell(text):
    """Text in GPT-2's alphabet."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)[0][0]


def missing_bytes(vocab, merges):
    """Without the tokens that have one of MISSING's bytes, ids closed up, and without the merges that need them."""
    lost = set("".join(spell(c) for c in MISSING))
    kept = [token for token in sorted(vocab, key=vocab.get) if not lost & set(token)]
    return {t: i for i, t in enumerate(kept)}, [m for m in merges if not lost & set("".join(m))]


def save(tokenizer, name, change=None):
    """The tokenizer's file, changed if asked for, and the tokenizer that it is."""
    state = json.loads(tokenizer.to_str())
    if change:
        change(state)
    os.makedirs(os.path.join(OUT, name), exist_ok=True)
    dump(os.path.join(OUT, name, "tokenizer.json"), state)
    return Tokenizer.from_file(os.path.join(OUT, name, "tokenizer.json"))


def gpt2_like(vocab, merges):
    """SmolLM's and GPT-2's, and what only a setting makes of each."""
    vocab, merges = missing_bytes(vocab, merges)
    vocab = {**{t: i for i, t in enumerate(ADDED[:SPECIAL])}, **{t: i + SPECIAL for t, i in vocab.items()}}
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)

    def build_one(digits, **model):
        tokenizer = Tokenizer(models.BPE(vocab, merges, **model))
        steps = [] if digits is None else [pre_tokenizers.Digits(individual_digits=digits)]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps + [byte_level]) if steps else byte_level
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ADDED[:SPECIAL]])
        tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ADDED[SPECIAL:]])
        return tokenizer

    return {"smollm": save(build_one(True), "smollm"), "smollm_runs": build_one(False),
            "gpt2": save(build_one(None, unk_token=ADDED[0], fuse_unk=True), "gpt2"),
            "gpt2_each": build_one(None, unk_token=ADDED[0])}


def add_tokens(tokenizer):
    for i, text in enumerate(ADDED):
        token = AddedToken(text, normalized=False, special=i < SPECIAL)
        (tokenizer.add_special_tokens if i < SPECIAL else tokenizer.add_tokens)([token])


def texts():
    out = ["", " ", "  ", "   ", "\n", "\r", "\r\n", "\n\r\n\r\r\n", " \n", "\n ", "\t\t x", " \t\n \t", "a", " a",
           "  a", "a ", "a  "]
    out += ["1222a1", "12312", "\ra\na\ta", "a\rs\r\ns", "!a'a!'s<s!\n!", " !\r\n\t!", "1's'1",
            "\u06611\u0661", "\u4f60\u20031"]
    # White space: kinds, runs, what is left to the word behind.
    out += ["a%sb" % w for w in "\u00a0\u2003\u3000\u0085\u000b\u000c\u1680\u2028\u2029\u202f\u205f\u200b\ufeff\u180e"
            "\u001c\u001f\u0000\u2060"]
    out += ["a%s%sb %s!" % (w, w, w) for w in "\u00a0\u2003\u3000\u0085\u2028"]
    out += ["x \n\n  y", "x\r\n\r\n\r\ny", "x \u00a0\n\u3000\n\u2003y", "  \n  \n  x", "    \n    \n",
            "a\n\n\n\n\nb\n\n\n\n\n", "end.\n\nNext.\r\n", "!!!\n\n\n  !", ";\r\n\r\n;", "...\n ...", "a   \u00a0b",
            "\u3000\u3000\u4f60", "\u2003word", " \u2003word", "\t\tint x;\n\t}\n", "        return sum;\r\n",
            "a \t\u3000 b", "trailing   ", "trailing \n", "\u0085\u0085a", "a\u0085\n\u0085b"]
    # Contractions, and what only looks like them.
    out += ["don't DON'T we'll I'VE it'S they'Re I'M he'D", "'s't're've'm'll'd", "'S'T'RE'VE'M'LL'D",
            "'\u017f a'\u017f \u017f's", "'\u212a \u212a \u212a's", "'r 'v 'l 'x '", "'", "''", "'''s", "''sx",
            "'re'", "'rE'Ve'lL", "'lla", "'reverse", "\u2019s \u2019t", "it\u2019ll", "'1", "' s", "rock 'n' roll",
            "'\u017fs '\u017ft '\u017f1", "'\u00e9", "'r\u00e9", "'l\u0130", "x'\n's", "a'sb",
            "1's", "'s1", "'m\u0301", "'s\u0301", "'t\u0307a"]
    # Numbers: of other scripts, and such that aren't decimal digits.
    out += ["12345 3.14159 2025-11-22", "1 22 333 4444 55555", "\u0661\u0662\u0663\u0664\u0665", "\u0967\u0968\u0969",
            "\uff11\uff12\uff13\uff14", "x\u00b2 \u00bd \u2167 \u2460 \u3007 \u5341", "\u00b2\u00b3\u00b9\u2070",
            "\U0001d7d8\U0001d7d9\U0001d7da\U0001d7db", "\U00010d40\U00010d41", "a1b22c333", "1\u0301\u0661",
            "1,000,000", "\u2167\u216b iv", "0x1F", "\u0d5810"]
    # Letters: scripts, cases without a case, unassigned and private code points, the ends of the planes.
    out += ["Привет мир! Ελληνικά", "中文测试：你好，世界！", "日本語のテキスト と English", "عربى العَرَبِيَّة", "שָׁלוֹם", "हिन्दी में",
            "ภาษาไทย", "\u01c5 \u02b0 \u00aa \u00ba \u2160", "\ud55c\uad6d\uc5b4 \ubb38\uc7a5\uc774",
            "\ue000\uf8ff\U000f0000\U0010ffff", "\uffff\ufffe\ufffd", "\U0001f1e9\U0001f1ea",
            "\U00020000\U0002a6df\U00031350", "\U000105c0\U00010d4a\U0001611d", "\U0003fffd a", "\u1c89\u1c8a\ua7da"]
    # NFC: composition, order, blocking, singletons, exclusions, Hangul.
    out += ["caf\u00e9 vs cafe\u0301", "e\u0301\u0301", "q\u0307\u0323", "q\u0323\u0307",
            "s\u0323\u0307 s\u0307\u0323 \u1e69", "a\u0315\u0300\u05ae\u0062", "a\u0323\u0302 a\u0302\u0323 \u1ead",
            "\u1e0b\u0323", "\u0344", "\u212b \u2126 \u212a", "\u0958 \u0915\u093c", "\u0929 \u0928\u093c",
            "\u2adc \u2add\u0338", "\ufb1d \ufb4f", "\u0f43 \u0f42\u0fb7", "\u0f71\u0f72 \u0f73 \u0f81",
            "\uf900\ufa0e\ufa10\U0002f800", "\u1100\u1161\u11a8 \u1100\u1161", "\uac00\u11a8 \uac01\u11a8",
            "\u1100\u1161\u11a7", "\u1112\u1175\u11c2", "\u1113\u1161 \u1100\u1176", "\u1100\u0301\u1161",
            "\u1161\u1100", "\u0301a", "\u0301", " \u0301", "\n\u0308", "\u0b47\u0b3e \u0b47\u0b56",
            "\u0dd9\u0dcf\u0dca", "\u09c7\u09be", "\u304b\u3099 \u304c \u30cf\u309a", "\U00011099\U000110ba",
            "\U0001d157\U0001d165 \U0001d15e", "\U00011935\U00011930 \U00011938", "\U000105d2\u0307 \U000105c9",
            "\u1025\u102e", "\u0438\u0306 \u0439", "\u03b1\u0301\u0345 \u1fb4", "\u1f00\u0345\u0301",
            "\u0061\u0300\u0301\u0316\u0327\u0334", "A\u030a\u0327 \u01fa", "\u0627\u0653 \u0622 \u0627\u0655\u0654",
            "o\u031b\u0323 \u1ee3", "a\u0898\u0316\U0001e4ec\u0301", "\u4f60\u0301", "\u0064\u0323\u200d\u0307",
            "\u00c5\u0301 \u01fa", "x\u0338= =\u0338 \u2260", "n\u0303n\u0303", "\u1e9b\u0323",
            "a\u0305\u0301", "a\u0316\u0317\u0301", "\u0301\u0300\u0316\u0323" * 20]
    # Emoji.
    out += ["emoji \U0001f642\U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467 family",
            "\u2764\ufe0f\u200d\U0001f525", "1\ufe0f\u20e3", "\U0001f3f4\U000e0067\U000e0062\U000e007f",
            "a\u200db\u200c\u0915\u094d\u200d\u0937"]
    # Added tokens: adjacent, overlapping, partial, next to spaces and marks.
    out += ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", "<|endoftext|>",
            "<|endoftext|><|endoftext|>", "<|endoftext", "<|endoftext|", "|endoftext|>", "<<|endoftext|>>",
            "<<think>>", "<<<think>", "<think", "<thin", "</think", "think>", "<thinkthink>", "hello", "hello worl",
            "hello world", "hello world wide", "hello world wide web", "ahellob", "Hello", "hellohello", "\u00e9!",
            "e\u0301!", "caf\u00e9!x", "\u4e16\u754c!", "\u4f60\u597d\u4e16\u754c", "  \n", "   \n", "a   b",
            "a    b", "<think>\u0301", "\u0301<think>\u0308a", " <think> ", "\n<think>\n", "<|im_start|>\u1161",
            "\u1100<think>\u1161", "it<think>'s", "'<think>s", "1<<2", "<\u0338<\u0338"]
    # Words that only ignore_merges takes whole, and long pieces.
    out += ["unmergeable", " unmergeable", "  unmergeable", "unmergeablex", "zqxj zqxj", "\n\n\n\n\n"]
    out += ["a" * 2000, "the" * 700, " " * 333 + "x", "=" * 777, "\u00e9" * 300, "e\u0301" * 300, "\n" * 200,
            "\u0301\u0316" * 100, "12" * 100,
            "\u4f60\u597d" * 200, "\U0001f642" * 100, "x \n" * 100, "'s" * 100, "<<" * 50 + "<", "Aa" * 500 + "!" * 10]
    # Bytes that the SmolLM-like tokenizer lacks, digits that only "Digits" knows, and what GPT-2's expression does otherwise.
    out += ["ajs tjt ajjs", "jjj", "aZ#s", " #s", "j a", "1j2", "a\u0e01s \u0e02\u0e01", "a\u007fs\u0001t", "#" * 50 + "a" * 50,
            "\U00011de0\U00011de9a1", "1\U00016ff4\U00016ff6 2", "a12 345  6\u0967x7 ", "12 a  1  b\n 3\n\n4", "IT'S it's 'S's",
            "a'\u017f", "!!\n\n??\n", " \n\n a\n\n\nb", "\u00bd1\u00b2", "x1'll 2've", " '12's", "\u20033\u2003 4"]
    r = random.Random(1)
    words = [t for t in out if t and len(t) < 12]
    out += ["".join(r.choice(words) for _ in range(r.randrange(2, 9))) for _ in range(60)]
    return out


def dump(path, value):
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        json.dump(value, f, ensure_ascii=True, separators=(",", ":"))
        f.write("\n")


def main():
    for name in ["qwen", "pair", "llama"]:
        os.makedirs(os.path.join(OUT, name), exist_ok=True)
    qwen = build(models.BPE(), QWEN, True)
    qwen.train_from_iterator([TRAINING], trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    state = json.loads(qwen.to_str())["model"]
    vocab, merges = state["vocab"], [tuple(m) for m in state["merges"]]
    for a in CROSSED:
        for b in CROSSED:
            merges.append((spell(a)[-1], spell(b)[0]))
    merges = list(dict.fromkeys(merges + [("12", "3")]))
    for pair in merges:
        vocab.setdefault("".join(pair), len(vocab))
    qwen = build(models.BPE(vocab, merges), QWEN, True)
    add_tokens(qwen)
    qwen.save(os.path.join(OUT, "qwen", "tokenizer.json"), pretty=False)

    dump(os.path.join(OUT, "pair", "vocab.json"), vocab)
    with open(os.path.join(OUT, "pair", "merges.txt"), "w", encoding="utf-8", newline="\n") as f:
        f.write("#version: 0.2\n" + "".join("%s %s\n" % m for m in merges))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    dump(os.path.join(OUT, "pair", "tokenizer_config.json"), {
        "add_prefix_space": False, "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": {str(qwen.token_to_id(t)): {"content": t, **flags, "special": i < SPECIAL}
                                 for i, t in enumerate(ADDED)}})

    more = dict(vocab, **{spell(t): len(vocab) + i for i, t in enumerate(WHOLE)})
    llama = build(models.BPE(more, merges, ignore_merges=True), LLAMA, False)
    add_tokens(llama)
    state = json.loads(llama.to_str())
    state["model"]["merges"] = [" ".join(m) for m in merges]
    dump(os.path.join(OUT, "llama", "tokenizer.json"), state)
    llama = Tokenizer.from_file(os.path.join(OUT, "llama", "tokenizer.json"))

    cases = texts()
    all_of_them = {"qwen": qwen, "llama": llama, **gpt2_like(dict(vocab), merges)}
    ids = {name: [t.encode(x, add_special_tokens=False).ids for x in cases] for name, t in all_of_them.items()}
    long = []
    for unit in LONG:
        repeat = 1000000 // len(unit.encode())
        found = qwen.encode(unit * repeat, add_special_tokens=False).ids
        long.append({"unit": unit, "repeat": repeat, "n_ids": len(found),
                     "sha256": hashlib.sha256(struct.pack("<%di" % len(found), *found)).hexdigest()})
    dump(os.path.join(OUT, "texts.json"), {"tokenizers": tokenizers.__version__, "texts": cases, **ids, "long": long})
    print("%d texts, %d tokens, %d merges" % (len(cases), len(vocab), len(merges)))


if __name__ == "__main__":
    main()
