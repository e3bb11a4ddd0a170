// unicode.h: the little of Unicode that a byte-level BPE tokenizer needs: which code points are letters (\p{L}),
// numbers (\p{N}) and white space (\s), and normalization form C (NFC, Unicode Standard Annex 15). The data is in
// unicode_tables.h.
//
// A code point is called stable if it neither changes under NFC nor joins what stands before it: combining class 0,
// its own NFC, and never the second half of a composition. Text of stable code points is NFC already, and any text may
// be cut in front of a stable code point and normalized part by part.
//
// defines: UNICODE_LETTER, UNICODE_NUMBER, UNICODE_SPACE, UNICODE_UNSTABLE, UnicodeData, unicode_data, utf8_char,
//          utf8_append, unicode_fold, unicode_nfc
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>
#include "unicode_tables.h"

constexpr uint8_t UNICODE_LETTER = 1, UNICODE_NUMBER = 2, UNICODE_SPACE = 4, UNICODE_UNSTABLE = 8;
constexpr uint32_t unicode_count = 0x110000;

struct UnicodeData {
    std::vector<uint8_t> flags;      // [unicode_count] the four above, or-ed
    std::vector<uint8_t> combining;  // [unicode_count] canonical combining class
    std::unordered_map<uint32_t, std::pair<uint32_t, uint32_t>> decomposition;  // one step; second 0: there is none
    std::unordered_map<uint64_t, uint32_t> composition;                         // first << 32 | second
};

// Hangul syllables are composed by arithmetic: leading consonant, vowel and, if any, trailing consonant.
constexpr uint32_t hangul_l = 0x1100, hangul_v = 0x1161, hangul_t = 0x11A7, hangul_s = 0xAC00;
constexpr uint32_t hangul_n_l = 19, hangul_n_v = 21, hangul_n_t = 28, hangul_n_s = hangul_n_l * hangul_n_v * hangul_n_t;

// Sets `flag` for every code point inside the runs [n] (see unicode_tables.h).
inline void unicode_set_flag(UnicodeData& data, uint8_t flag, const uint32_t* runs, size_t n) {
    uint32_t code = 0;
    for (size_t i = 0; i < n; i += 2) {
        code += runs[i];
        for (uint32_t end = code + runs[i + 1]; code < end; code++) data.flags[code] |= flag;
    }
}

// The tables in the form that look-ups need. Built at the first call, half a millisecond.
inline const UnicodeData& unicode_data() {
    static const UnicodeData data = [] {
        UnicodeData d;
        d.flags.resize(unicode_count);
        d.combining.resize(unicode_count);
        unicode_set_flag(d, UNICODE_LETTER, unicode_letter_runs, std::size(unicode_letter_runs));
        unicode_set_flag(d, UNICODE_NUMBER, unicode_number_runs, std::size(unicode_number_runs));
        unicode_set_flag(d, UNICODE_SPACE, unicode_space_runs, std::size(unicode_space_runs));
        uint32_t code = 0;
        for (size_t i = 0; i < std::size(unicode_combining_runs); i += 3) {
            code += unicode_combining_runs[i];
            for (uint32_t end = code + unicode_combining_runs[i + 1]; code < end; code++) {
                d.combining[code] = (uint8_t)unicode_combining_runs[i + 2];
                d.flags[code] |= UNICODE_UNSTABLE;
            }
        }
        // Excluded from composition, hence changed by NFC; so is what decomposes into a single code point.
        unicode_set_flag(d, UNICODE_UNSTABLE, unicode_excluded_runs, std::size(unicode_excluded_runs));
        code = 0;
        for (size_t i = 0; i < std::size(unicode_decompositions); i += 3) {
            code += unicode_decompositions[i];
            uint32_t first = unicode_decompositions[i + 1], second = unicode_decompositions[i + 2];
            d.decomposition[code] = {first, second};
            if (second == 0) d.flags[code] |= UNICODE_UNSTABLE;
            if (d.flags[code] & UNICODE_UNSTABLE) continue;
            d.composition[(uint64_t)first << 32 | second] = code;
        }
        for (const auto& pair : d.composition) d.flags[(uint32_t)pair.first] |= UNICODE_UNSTABLE;
        for (uint32_t i = 0; i < hangul_n_v; i++) d.flags[hangul_v + i] |= UNICODE_UNSTABLE;
        for (uint32_t i = 1; i < hangul_n_t; i++) d.flags[hangul_t + i] |= UNICODE_UNSTABLE;
        return d;
    }();
    return data;
}

// The code point at p, which must be well-formed UTF-8; *length becomes its number of bytes.
inline uint32_t utf8_char(const char* p, int* length) {
    const unsigned char* s = (const unsigned char*)p;
    *length = s[0] < 0x80 ? 1 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    switch (*length) {
    case 1: return s[0];
    case 2: return (s[0] & 31u) << 6 | (s[1] & 63u);
    case 3: return (s[0] & 15u) << 12 | (s[1] & 63u) << 6 | (s[2] & 63u);
    default: return (s[0] & 7u) << 18 | (s[1] & 63u) << 12 | (s[2] & 63u) << 6 | (s[3] & 63u);
    }
}

inline void utf8_append(std::string& out, uint32_t code) {
    if (code < 0x80) {
        out += (char)code;
        return;
    }
    if (code < 0x800) {
        out += (char)(0xC0 | code >> 6);
    } else {
        if (code < 0x10000) {
            out += (char)(0xE0 | code >> 12);
        } else {
            out += (char)(0xF0 | code >> 18);
            out += (char)(0x80 | (code >> 12 & 63));
        }
        out += (char)(0x80 | (code >> 6 & 63));
    }
    out += (char)(0x80 | (code & 63));
}

// Simple case folding to ASCII: the ASCII letter that matches the code point when case is ignored, else the code point.
// Beside the ASCII letters there are two: U+017F LATIN SMALL LETTER LONG S and U+212A KELVIN SIGN.
inline uint32_t unicode_fold(uint32_t code) {
    if (code >= 'A' && code <= 'Z') return code + 32;
    return code == 0x17F ? 's' : code == 0x212A ? 'k' : code;
}

// Appends the full canonical decomposition of the code point.
inline void unicode_decompose(const UnicodeData& data, uint32_t code, std::vector<uint32_t>& out) {
    if (code >= hangul_s && code < hangul_s + hangul_n_s) {
        uint32_t s = code - hangul_s;
        out.push_back(hangul_l + s / (hangul_n_v * hangul_n_t));
        out.push_back(hangul_v + s / hangul_n_t % hangul_n_v);
        if (s % hangul_n_t) out.push_back(hangul_t + s % hangul_n_t);
        return;
    }
    auto found = data.decomposition.find(code);
    if (found == data.decomposition.end()) {
        out.push_back(code);
        return;
    }
    unicode_decompose(data, found->second.first, out);
    if (found->second.second) unicode_decompose(data, found->second.second, out);
}

// The primary composite of two code points, or 0.
inline uint32_t unicode_compose(const UnicodeData& data, uint32_t a, uint32_t b) {
    if (a - hangul_l < hangul_n_l && b - hangul_v < hangul_n_v)
        return hangul_s + ((a - hangul_l) * hangul_n_v + b - hangul_v) * hangul_n_t;
    if (a - hangul_s < hangul_n_s && (a - hangul_s) % hangul_n_t == 0 && b > hangul_t && b < hangul_t + hangul_n_t)
        return a + b - hangul_t;
    auto found = data.composition.find((uint64_t)a << 32 | b);
    return found == data.composition.end() ? 0 : found->second;
}

// Appends NFC of the well-formed UTF-8 from p to end. `codes` is working space.
inline void unicode_nfc_part(const UnicodeData& data, const char* p, const char* end, std::vector<uint32_t>& codes,
                             std::string& out) {
    codes.clear();
    for (int length; p < end; p += length) unicode_decompose(data, utf8_char(p, &length), codes);

    // Canonical order: runs of marks (class other than 0) are sorted by class.
    auto combining = [&](uint32_t code) { return data.combining[code]; };
    for (size_t i = 0; i < codes.size(); i++) {
        if (combining(codes[i]) == 0) continue;
        size_t stop = i;
        while (stop < codes.size() && combining(codes[stop]) != 0) stop++;
        std::stable_sort(codes.begin() + i, codes.begin() + stop,
                         [&](uint32_t a, uint32_t b) { return combining(a) < combining(b); });
        i = stop;
    }

    // Each code point joins the last starter (class 0) unless one of the same or a higher class stands in between.
    size_t n = 0, starter = 0;
    bool have_starter = false;
    int between = -1;  // highest class between the starter and here; -1: nothing there
    for (uint32_t code : codes) {
        int k = combining(code);
        uint32_t composite = have_starter && between < k ? unicode_compose(data, codes[starter], code) : 0;
        if (composite) {
            codes[starter] = composite;
            continue;
        }
        between = k;
        if (k == 0) {
            starter = n;
            have_starter = true;
            between = -1;
        }
        codes[n++] = code;
    }
    for (size_t i = 0; i < n; i++) utf8_append(out, codes[i]);
}

// NFC of text [n], which must be well-formed UTF-8.
inline std::string unicode_nfc(const char* text, size_t n) {
    const UnicodeData& data = unicode_data();
    std::vector<uint32_t> codes;
    std::string out;
    const char *end = text + n, *done = text, *part = text;  // part: the last stable code point seen, or the start
    int length;
    for (const char* p = text; p < end; p += length) {
        if (!(data.flags[utf8_char(p, &length)] & UNICODE_UNSTABLE)) {
            part = p;
            continue;
        }
        while (p < end && (data.flags[utf8_char(p, &length)] & UNICODE_UNSTABLE)) p += length;
        out.append(done, part);
        unicode_nfc_part(data, part, p, codes, out);
        done = part = p;
        length = 0;
    }
    out.append(done, end);
    return out;
}
