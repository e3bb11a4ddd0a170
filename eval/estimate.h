// estimate.h: a mean with its standard error.
//
// defines: Estimate, NamedEstimates, mean_estimate, mean_difference
#pragma once
#include <cmath>
#include <string>
#include "../data/error.h"
#include <utility>
#include <vector>

struct Estimate {
    double value, stderr_;
    size_t n;  // what the mean is over: windows, questions
};

typedef std::vector<std::pair<std::string, Estimate>> NamedEstimates;

// stderr = s / sqrt(n), s^2 with n - 1; a single value has none: NaN. A mean over nothing is an error.
inline Estimate mean_estimate(const std::vector<double>& values) {
    const size_t n = values.size();
    if (n == 0) fail("expected values to take the mean of, found none");
    double sum = 0, squares = 0;
    for (double x : values) sum += x;
    const double mean = sum / (double)n;
    for (double x : values) squares += (x - mean) * (x - mean);
    return {mean, n > 1 ? std::sqrt(squares / (double)(n - 1) / (double)n) : NAN, n};
}

// The mean of a - b over what both were measured on, in the same order; what moves both alike is not in its standard error.
inline Estimate mean_difference(std::vector<double> a, const std::vector<double>& b) {
    if (a.size() != b.size()) fail("expected as many values of both to take the difference of, found %zu and %zu", a.size(), b.size());
    for (size_t i = 0; i < a.size(); i++) a[i] -= b[i];
    return mean_estimate(a);
}
