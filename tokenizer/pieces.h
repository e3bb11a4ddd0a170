// pieces.h: how a text is cut into the pieces within which tokens are made, roughly words with the space in front of them. Two
// regular expressions are in use, written out here (\p{L} letters, \p{N} numbers, \s white space; alternatives in this order):
//
//     Qwen2, Qwen3    (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//     Llama 3         the same with \p{N}{1,3}
//     GPT-2           's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//
// SmolLM cuts digits out before GPT-2's expression sees the text ("Digits"), so that no piece holds a digit and something else.
//
// defines: Splitting, qwen_pattern, llama3_pattern, gpt2_pattern, run_end, stretch_end, piece_end
#pragma once
#include <cstdint>
#include "unicode.h"

inline constexpr const char* qwen_pattern = R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)re"
                                            R"re( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
inline constexpr const char* llama3_pattern = R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)re"
                                              R"re( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
inline constexpr const char* gpt2_pattern = R"re('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)re";

struct Splitting {
    bool gpt2 = false;                                         // GPT-2's expression, else Qwen's
    int max_digits = 1;                                        // of Qwen's: \p{N} or \p{N}{1,3}
    enum Digits { TOGETHER, RUNS, SINGLE } digits = TOGETHER;  // cut out before: not at all, run by run, one by one
};

// End of the longest run of code points from p on of which `flags & mask` is nonzero (or zero, with inside = false).
inline const char* run_end(const UnicodeData& unicode, const char* p, const char* end, uint8_t mask, bool inside,
                           size_t at_most = SIZE_MAX) {
    int length;
    for (size_t n = 0; p < end && n < at_most; n++, p += length) {
        if (((unicode.flags[utf8_char(p, &length)] & mask) != 0) != inside) break;
    }
    return p;
}

// What "Digits" cuts out: \p{N}, and the numbers that are new in Unicode 17, which Rust knows and the expressions don't.
inline bool is_digit(const UnicodeData& unicode, uint32_t code) {
    return (unicode.flags[code] & UNICODE_NUMBER) || (code >= 0x11DE0 && code <= 0x11DE9) || (code >= 0x16FF4 && code <= 0x16FF6);
}

// End of the stretch of text that starts at p < end and that the expression sees by itself.
inline const char* stretch_end(const UnicodeData& unicode, const char* p, const char* end, const Splitting& splitting) {
    if (splitting.digits == Splitting::TOGETHER) return end;
    int length;
    const bool digit = is_digit(unicode, utf8_char(p, &length));
    p += length;
    if (digit && splitting.digits == Splitting::SINGLE) return p;
    while (p < end && is_digit(unicode, utf8_char(p, &length)) == digit) p += length;
    return p;
}

// End of (?i:'s|'t|'re|'ve|'m|'ll|'d) at p, or null.
inline const char* contraction_end(const char* p, const char* end, bool ignore_case) {
    if (*p != '\'' || p + 1 == end) return nullptr;
    auto folded = [&](uint32_t code) { return ignore_case ? unicode_fold(code) : code; };
    int length;
    uint32_t first = folded(utf8_char(p + 1, &length));
    const char* next = p + 1 + length;
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return next;
    if (next == end) return nullptr;
    uint32_t second = folded((unsigned char)*next);  // 'e' and 'l' match ASCII only
    bool both = ((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l');
    return both ? next + 1 : nullptr;
}

// \s+(?!\S)|\s+ leaves the last character of a run of white space to the word behind it, if there is one and the run is longer.
inline const char* space_end(const char* p, const char* last, const char* stop, const char* end) {
    return stop == end || last == p ? stop : last;
}

// End of the piece that starts at p < end.
inline const char* gpt2_piece_end(const UnicodeData& unicode, const char* p, const char* end) {
    constexpr uint8_t L = UNICODE_LETTER, N = UNICODE_NUMBER, S = UNICODE_SPACE;
    if (const char* stop = contraction_end(p, end, false)) return stop;
    const char* start = *p == ' ' ? p + 1 : p;
    for (uint8_t kind : {L, N}) {  //  ?\p{L}+| ?\p{N}+
        const char* stop = run_end(unicode, start, end, kind, true);
        if (stop > start) return stop;
    }
    const char* stop = run_end(unicode, start, end, S | L | N, false);  //  ?[^\s\p{L}\p{N}]+
    if (stop > start) return stop;
    const char* last = p;
    int length;
    for (stop = p; stop < end && (unicode.flags[utf8_char(stop, &length)] & S); stop += length) last = stop;
    return space_end(p, last, stop, end);
}

inline const char* qwen_piece_end(const UnicodeData& unicode, const char* p, const char* end, int max_digits) {
    constexpr uint8_t L = UNICODE_LETTER, N = UNICODE_NUMBER, S = UNICODE_SPACE;
    if (const char* stop = contraction_end(p, end, true)) return stop;

    // [^\r\n\p{L}\p{N}]?\p{L}+
    int length;
    const uint8_t flags = unicode.flags[utf8_char(p, &length)];
    const char* start = (flags & (L | N)) || *p == '\r' || *p == '\n' ? p : p + length;
    const char* stop = run_end(unicode, start, end, L, true);
    if (stop > start) return stop;

    // \p{N}{1,max_digits}
    if (flags & N) return run_end(unicode, p, end, N, true, max_digits);

    //  ?[^\s\p{L}\p{N}]+[\r\n]*
    start = *p == ' ' ? p + 1 : p;
    stop = run_end(unicode, start, end, S | L | N, false);
    if (stop > start) {
        while (stop < end && (*stop == '\r' || *stop == '\n')) stop++;
        return stop;
    }

    // White space: \s*[\r\n]+ reaches up to the last line end of the run.
    const char *last = p, *line_end = nullptr;
    for (stop = p; stop < end && (unicode.flags[utf8_char(stop, &length)] & S); stop += length) {
        last = stop;
        if (*stop == '\r' || *stop == '\n') line_end = stop + 1;
    }
    return line_end ? line_end : space_end(p, last, stop, end);
}

inline const char* piece_end(const UnicodeData& unicode, const char* p, const char* end, const Splitting& splitting) {
    return splitting.gpt2 ? gpt2_piece_end(unicode, p, end) : qwen_piece_end(unicode, p, end, splitting.max_digits);
}
