// error.h: how this program fails. Every failure is one sentence: what file or layer, what was expected, what was found,
// and a HINT what to do about it. `fail` throws; main() prints the sentence and exits with status 1 (2 for wrong usage),
// temporaries are cleaned up on the way out, and tests can read the message.
//
// defines: fail, usage_fail, UsageError, format, is_word_of, ends_with, printable
#pragma once
#include <cstdarg>
#include <cstdio>
#include <stdexcept>
#include <string>

// A wrong command line, as opposed to wrong data: exit status 2 instead of 1.
struct UsageError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline std::string vformat(const char* fmt, va_list args) {
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(nullptr, 0, fmt, args);
    std::string s(n > 0 ? (size_t)n : 0, '\0');
    if (n > 0) vsnprintf(&s[0], (size_t)n + 1, fmt, again);
    va_end(again);
    return s;
}

// printf into a std::string.
__attribute__((format(printf, 1, 2))) inline std::string format(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    std::string s = vformat(fmt, args);
    va_end(args);
    return s;
}

// The text with everything that could steer a terminal spelled out: control characters (C0, DEL, C1) and bytes that aren't UTF-8
// become \x1b and the like, but for line ends. Messages quote files, and a file may hold anything.
inline std::string printable(const std::string& text) {
    std::string out;
    for (size_t i = 0, n; i < text.size(); i += n) {
        const unsigned char c = (unsigned char)text[i];
        n = c < 0x80 ? 1 : c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
        bool whole = c < 0x80 || (c >= 0xC2 && c <= 0xF4 && i + n <= text.size());
        for (size_t k = 1; whole && k < n; k++) whole = ((unsigned char)text[i + k] & 0xC0) == 0x80;
        if (!whole) n = 1;
        const bool control = (c < 0x20 && c != '\n') || c == 0x7F || (c == 0xC2 && whole && (unsigned char)text[i + 1] < 0xA0);
        if (whole && !control) {
            out.append(text, i, n);
            continue;
        }
        for (size_t k = 0; k < n; k++) out += format("\\x%02x", (unsigned char)text[i + k]);
    }
    return out;
}

[[noreturn]] __attribute__((format(printf, 1, 2))) inline void fail(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    std::string s = vformat(fmt, args);
    va_end(args);
    throw std::runtime_error(printable(s));
}

[[noreturn]] __attribute__((format(printf, 1, 2))) inline void usage_fail(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    std::string s = vformat(fmt, args);
    va_end(args);
    throw UsageError(printable(s));
}

inline bool ends_with(const std::string& s, const std::string& end) {
    return s.size() >= end.size() && s.compare(s.size() - end.size(), end.size(), end) == 0;
}

// Whether `words`, separated by blanks, has this word; two of them are none.
inline bool is_word_of(const std::string& word, const char* words) {
    return word.find(' ') == std::string::npos && (" " + std::string(words) + " ").find(" " + word + " ") != std::string::npos;
}
