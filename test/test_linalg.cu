// Tests of cuda/linalg.cuh against the long way round in float64: Cholesky of A, the inverse from it, Cholesky of that.
#include <random>
#include <vector>
#include "../cuda/linalg.cuh"
#include "test.h"

typedef std::vector<double> Matrix;  // [n,n]

static const double FLOAT_UNIT = std::ldexp(1.0, -24);

// A = X^T X / samples + damping * mean(diag) * I, rounded to float. From X's first column to its last, the scale falls
// by 1/`decay`. With fewer samples than n, A would be singular without the damping.
static std::vector<float> gram(int n, int samples, double damping, double decay, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    Matrix x((size_t)samples * n), a((size_t)n * n, 0);
    for (int t = 0; t < samples; t++) {
        const double common = normal(generator);  // columns are correlated
        for (int i = 0; i < n; i++)
            x[(size_t)t * n + i] = (normal(generator) + common) * std::pow(decay, -(double)i / n);
    }
    for (int t = 0; t < samples; t++)
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) a[(size_t)i * n + j] += x[(size_t)t * n + i] * x[(size_t)t * n + j] / samples;
    double mean = 0;
    for (int i = 0; i < n; i++) mean += a[(size_t)i * n + i] / n;
    for (int i = 0; i < n; i++) a[(size_t)i * n + i] += damping * mean;
    return std::vector<float>(a.begin(), a.end());
}

// Lower L with A = L L^T; A must be positive definite.
static Matrix cholesky(const Matrix& a, int n) {
    Matrix l((size_t)n * n, 0);
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            double sum = a[(size_t)i * n + j];
            for (int k = 0; k < j; k++) sum -= l[(size_t)i * n + k] * l[(size_t)j * n + k];
            l[(size_t)i * n + j] = i == j ? std::sqrt(sum) : sum / l[(size_t)j * n + j];
        }
    return l;
}

// Upper U with A^-1 = U^T U.
static Matrix reference(const std::vector<float>& a, int n) {
    const Matrix l = cholesky(Matrix(a.begin(), a.end()), n);
    // Column c of the inverse, kept as row c: L y = e_c, then L^T x = y.
    Matrix inverse((size_t)n * n, 0);
    for (int c = 0; c < n; c++) {
        double* x = &inverse[(size_t)c * n];
        for (int i = c; i < n; i++) {
            double sum = i == c ? 1 : 0;
            for (int k = c; k < i; k++) sum -= l[(size_t)i * n + k] * x[k];
            x[i] = sum / l[(size_t)i * n + i];
        }
        for (int i = n - 1; i >= 0; i--) {
            x[i] /= l[(size_t)i * n + i];
            for (int k = 0; k < i; k++) x[k] -= l[(size_t)i * n + k] * x[i];
        }
    }
    const Matrix lower = cholesky(inverse, n);
    Matrix u((size_t)n * n);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) u[(size_t)i * n + j] = lower[(size_t)j * n + i];
    return u;
}

static bool run(const std::vector<float>& a, int n, std::vector<float>& u) {
    Array<float> A((size_t)n * n, "test");
    copy(A.data, a.data(), a.size());
    const bool ok = inverse_cholesky_upper(A.data, n);
    u.resize(a.size());
    copy(u.data(), A.data, u.size());
    return ok;
}

// The result is computed in double and rounded to float once. So it may differ from the reference by a float's
// rounding, and by what A's condition makes of double's roundings: `condition_error` of the largest entry.
static void check_against_reference(const std::vector<float>& a, int n, double condition_error) {
    std::vector<float> u;
    CHECK(run(a, n, u));
    const Matrix expected = reference(a, n);
    double largest = 0;
    for (double x : expected) largest = std::max(largest, std::fabs(x));
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            const size_t e = (size_t)i * n + j;
            if (j < i) CHECK_EQ(u[e], 0);
            CHECK_NEAR(u[e], expected[e], 1.01 * FLOAT_UNIT * std::fabs(expected[e]) + condition_error * largest);
        }
}

// U A U^T = I, on a few rows, to the error that rounding U's entries to float makes.
static void check_residual(const std::vector<float>& a, int n) {
    std::vector<float> u;
    CHECK(run(a, n, u));
    for (int i : {0, n / 3, n / 2, n - 1}) {
        Matrix row(n, 0), magnitude(n, 0);  // row i of U A
        for (int k = i; k < n; k++)
            for (int j = 0; j < n; j++) {
                row[j] += (double)u[(size_t)i * n + k] * a[(size_t)k * n + j];
                magnitude[j] += std::fabs((double)u[(size_t)i * n + k] * a[(size_t)k * n + j]);
            }
        for (int j = 0; j < n; j++) {
            double sum = 0, sum_magnitude = 0;
            for (int k = j; k < n; k++) {
                sum += row[k] * u[(size_t)j * n + k];
                sum_magnitude += magnitude[k] * std::fabs(u[(size_t)j * n + k]);
            }
            CHECK_NEAR(sum, i == j, 2 * FLOAT_UNIT * sum_magnitude);
        }
    }
}

TEST(small_by_hand) {
    std::vector<float> u;
    CHECK(run({4}, 1, u));
    CHECK_EQ(u[0], 0.5f);
    // A = R R^T with R = [2, 1; 0, 4]; U = R^-1 = [1/2, -1/8; 0, 1/4].
    CHECK(run({5, 4, 4, 16}, 2, u));
    const float expected[] = {0.5f, -0.125f, 0, 0.25f};
    for (int e = 0; e < 4; e++) CHECK_NEAR(u[e], expected[e], FLOAT_UNIT);
    CHECK(run({}, 0, u));
}

TEST(well_conditioned) {
    for (int n : {1, 2, 3, 63, 64, 65, 127, 128, 129, 200, 513}) {
        const std::vector<float> a = gram(n, 2 * n + 4, 0.01, 1, n);
        check_against_reference(a, n, 1e-13);
        check_residual(a, n);
    }
}

// GPTQ's matrices: almost no signal in many directions, 1 % of the mean of the diagonal added.
TEST(ill_conditioned) {
    for (int n : {64, 200, 513}) {
        const std::vector<float> a = gram(n, n / 4, 0.01, 1e3, n);
        check_against_reference(a, n, 1e-11);
        check_residual(a, n);
    }
    const std::vector<float> a = gram(257, 60, 1e-5, 1e3, 5);
    check_against_reference(a, 257, 1e-9);
}

TEST(n_1000) {
    const std::vector<float> a = gram(1000, 300, 0.01, 100, 1);
    check_against_reference(a, 1000, 1e-11);
    check_residual(a, 1000);
}

TEST(only_the_upper_half_is_read) {
    const int n = 150;
    const std::vector<float> a = gram(n, n, 0.01, 10, 2);
    std::vector<float> upper = a, expected, found;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++) upper[(size_t)i * n + j] = NAN;
    CHECK(run(a, n, expected));
    CHECK(run(upper, n, found));
    CHECK(memcmp(expected.data(), found.data(), a.size() * sizeof(float)) == 0);
}

TEST(what_is_not_positive_definite_fails) {
    std::vector<float> u;
    CHECK(!run({0}, 1, u));
    CHECK(!run({-1}, 1, u));
    CHECK(!run({NAN}, 1, u));
    CHECK(!run({INFINITY}, 1, u));
    CHECK(!run({1, 2, 2, 1}, 2, u));  // a positive diagonal, an eigenvalue of -1
    CHECK(!run({1, 1, 1, 1}, 2, u));  // singular
    const int n = 300;
    const std::vector<float> a = gram(n, n, 0.01, 10, 3);
    CHECK(run(a, n, u));
    for (int i : {0, 1, 63, 64, 150, 298, 299}) {
        for (float bad : {-1e-3f, 0.0f, (float)NAN, (float)INFINITY}) {
            std::vector<float> broken = a;
            broken[(size_t)i * n + i] = bad;
            CHECK(!run(broken, n, u));
        }
        std::vector<float> broken = a;
        const int j = std::min(i + 7, n - 1);
        broken[(size_t)std::min(i, j) * n + j] = NAN;
        CHECK(!run(broken, n, u));
        broken[(size_t)std::min(i, j) * n + j] = 1e6f;  // larger than the diagonal allows
        if (i < j) CHECK(!run(broken, n, u));
    }
}

TEST(two_runs_give_the_same_bytes) {
    const int n = 700;
    const std::vector<float> a = gram(n, 100, 0.01, 10, 4);
    std::vector<float> first, again;
    CHECK(run(a, n, first));
#ifndef __CUDACC__
    const int threads = omp_get_max_threads();
    for (int t : {1, 2, 5}) {
        omp_set_num_threads(t);
        CHECK(run(a, n, again));
        CHECK(memcmp(first.data(), again.data(), first.size() * sizeof(float)) == 0);
    }
    omp_set_num_threads(threads);
#endif
    CHECK(run(a, n, again));
    CHECK(memcmp(first.data(), again.data(), first.size() * sizeof(float)) == 0);
}
