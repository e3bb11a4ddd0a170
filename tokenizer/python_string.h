// python_string.h: what lm-evaluation-harness and llm-awq do to a text with Python's str, the same here, in UTF-8.
//
// defines: python_strip, python_rstrip_size, capitalize, code_points
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include "case_tables.h"
#include "unicode.h"

// str.isspace of the code point at p, which is valid UTF-8.
inline bool python_space(const char* p) {
    int length;
    const uint32_t code = utf8_char(p, &length);
    return (unicode_data().flags[code] & UNICODE_SPACE) || (code >= 0x1C && code <= 0x1F);
}

inline bool utf8_starts(char byte) { return (byte & 0xC0) != 0x80; }  // a code point

// len(text.rstrip()), in bytes.
inline size_t python_rstrip_size(std::string_view text) {
    size_t end = text.size();
    while (end > 0) {
        size_t last = end - 1;
        while (!utf8_starts(text[last])) last--;
        if (!python_space(&text[last])) break;
        end = last;
    }
    return end;
}

// text.strip()
inline std::string_view python_strip(std::string_view text) {
    text = text.substr(0, python_rstrip_size(text));
    size_t start = 0;
    while (start < text.size() && (!utf8_starts(text[start]) || python_space(&text[start]))) start++;
    return text.substr(start);
}

// len(text)
inline int code_points(std::string_view text) {
    int n = 0;
    for (char c : text) n += utf8_starts(c);
    return n;
}

// Appends the code point as the tables map it.
template <size_t R, size_t L>
inline void append_mapped(std::string& out, uint32_t code, const int (&runs)[R][4], const int (&longer)[L][4]) {
    for (const auto& row : longer)
        if (row[0] == (int)code) {
            for (int i = 1; i < 4 && row[i]; i++) utf8_append(out, (uint32_t)row[i]);
            return;
        }
    for (const auto& run : runs)
        if ((int)code >= run[0] && (int)code <= run[1] && ((int)code - run[0]) % run[2] == 0) {
            utf8_append(out, (uint32_t)((int)code + run[3]));
            return;
        }
    utf8_append(out, code);
}

// text.capitalize(): the first character in title case, all others in lower case. A capital sigma that ends a word becomes the
// final one, as in Python (there, marks and apostrophes beside it are looked through; here they end the word).
inline std::string capitalize(std::string_view text) {
    constexpr uint32_t capital_sigma = 0x3A3, final_sigma = 0x3C2;
    std::string out;
    bool after_letter = false;
    for (size_t i = 0; i < text.size();) {
        int length, next_length;
        const uint32_t code = utf8_char(&text[i], &length);
        const size_t next = i + (size_t)length;
        const bool before_letter =
            next < text.size() && (unicode_data().flags[utf8_char(&text[next], &next_length)] & UNICODE_LETTER);
        if (i == 0) append_mapped(out, code, case_title_runs, case_title_long);
        else if (code == capital_sigma && after_letter && !before_letter) utf8_append(out, final_sigma);
        else append_mapped(out, code, case_lower_runs, case_lower_long);
        after_letter = unicode_data().flags[code] & UNICODE_LETTER;
        i = next;
    }
    return out;
}
