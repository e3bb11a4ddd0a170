// error.h: how this program fails. Every failure is one sentence: what file or layer, what was expected, what was found,
// and a HINT what to do about it. `fail` throws; main() prints the sentence and exits with status 1 (2 for wrong usage),
// temporaries are cleaned up on the way out, and tests can read the message.
//
// defines: fail, usage_fail, UsageError, format
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

[[noreturn]] __attribute__((format(printf, 1, 2))) inline void fail(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    std::string s = vformat(fmt, args);
    va_end(args);
    throw std::runtime_error(s);
}

[[noreturn]] __attribute__((format(printf, 1, 2))) inline void usage_fail(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    std::string s = vformat(fmt, args);
    va_end(args);
    throw UsageError(s);
}
