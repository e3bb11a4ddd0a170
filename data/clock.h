// clock.h: seconds, measured and in words.
//
// defines: Clock, duration_text
#pragma once
#include <chrono>
#include <string>
#include "error.h"

struct Clock {
    std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
    double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); }
};

inline std::string duration_text(double seconds) {
    const long s = (long)(seconds + 0.5);
    return s < 60     ? format("%lds", s)
           : s < 3600 ? format("%ldm%02lds", s / 60, s % 60)
                      : format("%ldh%02ldm", s / 3600, s / 60 % 60);
}
