#!/usr/bin/env python3
"""Writes tokenizer/unicode_tables.h, the Unicode data that tokenizer/unicode.h reads.

Usage: python3 scripts/golden/make_unicode.py            writes the file
       python3 scripts/golden/make_unicode.py --check    compares the same data with Hugging Face `tokenizers`, every code point

Packages: unicodedata2==16.0.0, unless Python is 3.14, whose unicodedata has Unicode 16.0; --check: tokenizers.

Hugging Face `tokenizers` (0.23.3 was probed) mixes two Unicode versions, and so do the tables:
- its regex engine has the letters, numbers and white space of Unicode 16.0;
- its NFC has an older one: the characters of UNKNOWN_TO_NFC have no combining class and no decomposition there. The
  list was found by probing every code point; that the version is Unicode 9.0 is an inference from it. All others agree
  with Unicode 16.0, as they must: a character that is assigned never changes its normalization.
"""
import sys

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):  # before it needs its packages
    sys.exit(print(__doc__))

import os

import unicodedata

if unicodedata.unidata_version != "16.0.0":
    try:
        import unicodedata2 as unicodedata
    except ImportError:
        sys.exit("unicodedata is %s, 16.0.0 is needed. HINT: pip install unicodedata2==16.0.0"
                 % unicodedata.unidata_version)
    if unicodedata.unidata_version != "16.0.0":
        sys.exit("unicodedata2 is %s. HINT: pip install unicodedata2==16.0.0" % unicodedata.unidata_version)

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tokenizer", "unicode_tables.h")

# Characters with a combining class or a canonical decomposition in Unicode 16.0, but not in the NFC of `tokenizers`.
UNKNOWN_TO_NFC = """7FD 897-89F 8CA-8D3 9FE C3C D3B-D3C EBA 1715 1ABF-1ACE 1DF6-1DFA A82C 105C9 105E4 10D24-10D27
    10D69-10D6D 10EAB-10EAC 10EFD-10EFF 10F46-10F50 10F82-10F85 11070 1133B 11383 11385 1138E 11391 113C5 113C7-113C8
    113CE-113D0 1145E 11839-1183A 11938 1193D-1193E 11943 119E0 11A34 11A47 11A99 11D42 11D44-11D45 11D97 11F41-11F42
    16121-16128 1612F 16D68-16D6A 16FF0-16FF1 1E08F 1E130-1E136 1E2AE 1E2EC-1E2EF 1E4EC-1E4EF 1E5EE-1E5EF"""

CODES = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
HANGUL = range(0xAC00, 0xD7A4)  # decomposed by arithmetic, not by a table


def unknown_to_nfc():
    codes = set()
    for word in UNKNOWN_TO_NFC.split():
        first, last = (word.split("-") * 2)[:2]
        codes.update(range(int(first, 16), int(last, 16) + 1))
    return codes


def read_data():
    """letters, numbers, spaces: sets; combining: {code: class}; decompositions: {code: (first, second or 0)};
    excluded: codes with a decomposition of two that NFC doesn't put together again."""
    unknown = unknown_to_nfc()
    category = {c: unicodedata.category(chr(c)) for c in CODES}
    letters = {c for c in CODES if category[c][0] == "L"}
    numbers = {c for c in CODES if category[c][0] == "N"}
    spaces = {c for c in CODES if category[c][0] == "Z"} | set(range(0x09, 0x0E)) | {0x85}
    combining, decompositions, excluded = {}, {}, set()
    for c in CODES:
        if c in unknown or c in HANGUL:
            continue
        if unicodedata.combining(chr(c)):
            combining[c] = unicodedata.combining(chr(c))
        words = unicodedata.decomposition(chr(c)).split()
        if words and not words[0].startswith("<"):
            parts = [int(w, 16) for w in words]
            assert len(parts) <= 2
            decompositions[c] = (parts[0], parts[1] if len(parts) == 2 else 0)
            if len(parts) == 2 and unicodedata.normalize("NFC", chr(c)) != chr(c):
                excluded.add(c)
    return letters, numbers, spaces, combining, decompositions, excluded


def runs(codes):
    """[(first, length)] of the consecutive runs."""
    out = []
    for c in sorted(codes):
        if out and out[-1][0] + out[-1][1] == c:
            out[-1][1] += 1
        else:
            out.append([c, 1])
    return out


def run_lengths(codes):
    """Code points outside and inside the set in turn, as lengths of runs from U+0000."""
    numbers, end = [], 0
    for first, length in runs(codes):
        numbers += [first - end, length]
        end = first + length
    return numbers


def array(name, comment, numbers):
    lines, line = [], "   "
    for n in numbers:
        if len(line) + len(str(n)) + 2 > 120:
            lines.append(line)
            line = "   "
        line += " %d," % n
    lines.append(line)
    return "%s\ninline constexpr uint32_t %s[] = {\n%s\n};\n" % (comment, name, "\n".join(lines))


def write():
    letters, numbers, spaces, combining, decompositions, excluded = read_data()
    classes, end = [], 0
    by_class = {}
    for c, k in combining.items():
        by_class.setdefault(k, set()).add(c)
    for first, length, k in sorted((f, n, k) for k, codes in by_class.items() for f, n in runs(codes)):
        classes += [first - end, length, k]
        end = first + length
    decomposed, last = [], 0
    for c in sorted(decompositions):
        decomposed += [c - last, *decompositions[c]]
        last = c
    text = """\
// unicode_tables.h: generated by scripts/golden/make_unicode.py, do not edit. Letters, numbers and white space are of
// Unicode 16.0, normalization is of an older version (9.0, it seems): as in Hugging Face `tokenizers`, see the script.
// A set is written as lengths of runs of code points from U+0000: outside, inside, outside, inside, ...
//
// defines: unicode_letter_runs, unicode_number_runs, unicode_space_runs, unicode_combining_runs,
//          unicode_decompositions, unicode_excluded_runs
#pragma once
#include <cstdint>

"""
    text += "\n".join([
        array("unicode_letter_runs", "// \\p{L}: general categories Lu, Ll, Lt, Lm, Lo", run_lengths(letters)),
        array("unicode_number_runs", "// \\p{N}: general categories Nd, Nl, No", run_lengths(numbers)),
        array("unicode_space_runs", "// \\s: the property White_Space", run_lengths(spaces)),
        array("unicode_combining_runs",
              "// Canonical combining classes but 0: outside, inside, class of those inside, ...", classes),
        array("unicode_decompositions",
              "// Canonical decompositions but Hangul's: step from the code point before, first, second (0: none)",
              decomposed),
        array("unicode_excluded_runs",
              "// Decomposed into two, but no primary composites: NFC never makes these code points",
              run_lengths(excluded)),
    ])
    with open(OUT, "w") as f:
        f.write(text)
    print("%s: %d letters, %d numbers, %d combining, %d decompositions" %
          (os.path.normpath(OUT), len(letters), len(numbers), len(combining), len(decompositions)))


def check():
    from tokenizers import Regex, normalizers, pre_tokenizers
    letters, numbers, spaces, combining, decompositions, excluded = read_data()
    bad = 0

    def compare(name, ours, theirs):
        nonlocal bad
        differing = ["%X+%d" % tuple(r) for r in runs(ours ^ theirs)]
        print("%-28s %6d  differing: %s" % (name, len(ours), " ".join(differing) or "none"))
        bad += len(differing)

    def matched(pattern):
        split = pre_tokenizers.Split(Regex(pattern), "removed")
        return {c for c in CODES if not split.pre_tokenize_str(chr(c))}

    compare("\\p{L}", letters, matched(r"\p{L}"))
    compare("\\p{N}", numbers, matched(r"\p{N}"))
    compare("\\s", spaces, matched(r"\s"))

    nfc, nfd = normalizers.NFC().normalize_str, normalizers.NFD().normalize_str

    def decompose(c):
        if c in HANGUL:
            return unicodedata.normalize("NFD", chr(c))
        if c not in decompositions:
            return chr(c)
        return "".join(decompose(d) for d in decompositions[c] if d)

    compare("decomposed by NFD", {c for c in CODES if decompose(c) != chr(c)},
            {c for c in CODES if nfd(chr(c)) != chr(c)})
    compare("NFD differs", set(), {c for c in CODES if nfd(chr(c)) != decompose(c)})
    changed = excluded | {c for c, d in decompositions.items() if d[1] == 0}
    compare("changed by NFC", changed, {c for c in CODES if nfc(chr(c)) != chr(c)})
    composed = {c for c in decompositions if decompositions[c][1]} - excluded | set(HANGUL)
    apart = {c: unicodedata.normalize("NFD", chr(c)) for c in CODES}
    compare("composed by NFC", composed, {c for c in CODES if apart[c] != chr(c) and nfc(apart[c]) == chr(c)})
    # A combining class is found by trying which marks of known class a character moves behind.
    ladder = {}
    for c, k in combining.items():
        if c not in decompositions:
            ladder.setdefault(k, chr(c))
    wrong = set()
    for c in CODES:
        if c in decompositions or c in HANGUL:
            continue  # its parts are probed on their own
        lower = {k for k, m in ladder.items() if nfd("x" + chr(c) + m) == "x" + m + chr(c) and m != chr(c)}
        higher = {k for k, m in ladder.items() if nfd("x" + m + chr(c)) == "x" + chr(c) + m and m != chr(c)}
        mine = combining.get(c, 0)
        if lower != {k for k in ladder if k < mine} or higher != {k for k in ladder if 0 < mine < k}:
            wrong.add(c)
    compare("combining class differs", set(), wrong)
    return bad == 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if check() else 1)
    if sys.argv[1:]:
        sys.exit(__doc__)
    write()
