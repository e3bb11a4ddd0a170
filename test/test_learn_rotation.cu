// quant/learn_rotation.cuh: the gradient against finite differences in float64, and what learning must achieve.
#include "../quant/learn_rotation.cuh"
#include "test.h"
#include <numeric>
#include <random>

typedef std::vector<double> Matrix;

// Rows with a few large channels and rms 1, as the model's are; rounded to what is stored.
static std::vector<float> outlier_rows(int rows, int n, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> channel(n), x;
    for (float& c : channel) c = std::exp(1.5f * normal(random));
    for (int t = 0; t < rows; t++) {
        double sum = 0;
        const size_t first = x.size();
        for (int i = 0; i < n; i++) x.push_back(channel[i] * normal(random)), sum += x.back() * x.back();
        for (size_t i = first; i < x.size(); i++) x[i] = to_float(to_floatX(x[i] / (float)std::sqrt(sum / n)));
    }
    return x;
}

static Array<floatX> stored(const std::vector<float>& x) {
    std::vector<floatX> host;
    for (float v : x) host.push_back(to_floatX(v));
    Array<floatX> d(x.size(), "test");
    copy(d.data, host.data(), host.size());
    return d;
}

static std::vector<float> on_host(const Array<float>& a) {
    std::vector<float> host(a.n);
    copy(host.data(), a.data, a.n);
    return host;
}

// An orthogonal matrix: reflections along random directions.
static std::vector<float> orthogonal(int n, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    Matrix R((size_t)n * n, 0);
    for (int i = 0; i < n; i++) R[(size_t)i * n + i] = 1;
    for (int k = 0; k < n; k++) {
        Matrix v(n);
        double norm = 0;
        for (double& x : v) x = normal(random), norm += x * x;
        for (int i = 0; i < n; i++) {
            double dot = 0;
            for (int j = 0; j < n; j++) dot += R[(size_t)i * n + j] * v[j];
            for (int j = 0; j < n; j++) R[(size_t)i * n + j] -= 2 * dot / norm * v[j];
        }
    }
    return std::vector<float>(R.begin(), R.end());
}

static double loss_ref(const std::vector<float>& X, const Matrix& R, int n) {
    const int rows = (int)(X.size() / n);
    double loss = 0;
    for (int t = 0; t < rows; t++) {
        double m = 0;
        for (int j = 0; j < n; j++) {
            double y = 0;
            for (int i = 0; i < n; i++) y += X[(size_t)t * n + i] * R[(size_t)i * n + j];
            m += std::pow(y, 8) / n;
        }
        loss += std::pow(m, 0.25) / rows;
    }
    return loss;
}

TEST(the_gradient_is_that_of_finite_differences) {
    const int n = 20, rows = 30;
    const std::vector<float> X = outlier_rows(rows, n, 1), R = orthogonal(n, 2);
    const Array<floatX> data = stored(X);
    RotationLearner learner(n, rows);
    copy(learner.R.data, R.data(), R.size());
    std::vector<int> which;
    for (int t = 0; t < rows; t++) which.push_back(t);
    const double loss = learner.losses_of(data.data, which) / rows;
    learner.gradient(rows);
    const std::vector<float> G = on_host(learner.A);
    const Matrix at(R.begin(), R.end());
    CHECK_NEAR(loss, loss_ref(X, at, n), 1e-5 * loss);
    CHECK_NEAR(learner.loss_of_all(data.data, rows), loss, 1e-9);
    double largest = 0;
    for (float g : G) largest = std::max(largest, std::fabs((double)g));
    for (size_t i = 0; i < at.size(); i++) {
        Matrix up = at, down = at;
        up[i] += 1e-5, down[i] -= 1e-5;
        CHECK_NEAR(G[i], (loss_ref(X, up, n) - loss_ref(X, down, n)) / 2e-5, 1e-5 * largest);
    }
}

// A step in float64, by the formulas. `bounded`: by the largest turn of a plane and not by eta.
static void check_one_step(double eta, bool bounded) {
    const int n = 12, rows = 40;
    const std::vector<float> X = outlier_rows(rows, n, 3), R0 = orthogonal(n, 4);
    const Array<floatX> data = stored(X);
    Array<float> R(R0.size(), "test");
    copy(R.data, R0.data(), R0.size());
    RotationLearner learner(n, rows);
    copy(learner.R.data, R0.data(), R0.size());
    std::vector<int> which(rows);
    std::iota(which.begin(), which.end(), 0);
    learner.losses_of(data.data, which), learner.gradient(rows), learner.step(eta);
    if (eta == 0.05) {  // what a first step's is
        learn_rotation(R.data, data.data, rows, n, 0, 1);
        CHECK(on_host(R) == on_host(learner.R));
    }
    Matrix at(R0.begin(), R0.end()), G(at.size()), omega(at.size()), Z(at.size());
    for (size_t i = 0; i < at.size(); i++) {
        Matrix up = at, down = at;
        up[i] += 1e-5, down[i] -= 1e-5;
        G[i] = (loss_ref(X, up, n) - loss_ref(X, down, n)) / 2e-5;
    }
    auto product = [&](const Matrix& a, const Matrix& b, bool b_transposed, bool a_transposed = false) {
        Matrix c(at.size(), 0);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++)
                for (int k = 0; k < n; k++)
                    c[i * n + j] += (a_transposed ? a[k * n + i] : a[i * n + k]) * (b_transposed ? b[j * n + k] : b[k * n + j]);
        return c;
    };
    const Matrix a = product(G, at, true), b = product(at, G, true);
    double norm = 0;
    for (size_t i = 0; i < omega.size(); i++) omega[i] = a[i] - b[i], norm += omega[i] * omega[i];
    const Matrix move = product(omega, at, false);
    Matrix longest(n, 0);
    double largest = 0;
    for (int i = 0; i < n; i++) {
        const double row = std::inner_product(&omega[i * n], &omega[i * n] + n, &omega[i * n], 0.0);
        if (row > largest) largest = row, longest.assign(&omega[i * n], &omega[i * n] + n);
    }
    double size = std::sqrt(largest);
    for (int k = 0; k < 8; k++) {
        Matrix next(n, 0);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) next[j] += longest[i] / size * omega[i * n + j];
        longest = next, size = std::sqrt(std::inner_product(next.begin(), next.end(), next.begin(), 0.0));
    }
    const double turn = std::min(eta * std::sqrt(n / norm), 0.1 / size);
    CHECK_EQ(turn < eta * std::sqrt(n / norm), bounded);
    for (size_t i = 0; i < Z.size(); i++) Z[i] = at[i] - turn * move[i];
    for (int k = 0; k < 2; k++) {
        const Matrix S = product(Z, product(Z, Z, false, true), false);
        for (size_t i = 0; i < Z.size(); i++) Z[i] = 1.5 * Z[i] - 0.5 * S[i];
    }
    const std::vector<float> found = on_host(learner.R);
    for (size_t i = 0; i < Z.size(); i++) CHECK_NEAR(found[i], Z[i], 1e-5);
}

TEST(one_step_is_the_formulas) {
    check_one_step(0.05, true);
    check_one_step(0.005, false);
}

TEST(learning_lowers_the_loss_and_stays_orthogonal) {
    skip_when_emulated();
    const int n = 64, rows = 1200;
    const Array<floatX> data = stored(outlier_rows(rows, n, 5));
    Array<float> R((size_t)n * n, "test"), again(R.n, "test");
    const std::vector<float> start = orthogonal(n, 6);
    copy(R.data, start.data(), start.size()), copy(again.data, start.data(), start.size());
    const LearnedRotation result = learn_rotation(R.data, data.data, rows, n, 1, 50, 400);
    CHECK(result.after < 0.95 * result.before);
    CHECK(result.off < 1e-5);
    const std::vector<float> found = on_host(R), x = outlier_rows(rows, n, 5);
    CHECK_NEAR(result.after, loss_ref(x, Matrix(found.begin(), found.end()), n), 1e-4 * result.after);
    learn_rotation(again.data, data.data, rows, n, 1, 50, 400);
    CHECK(on_host(again) == found);  // the same bytes twice
}

// A gradient of one plane alone, as where one channel dominates: it turns by atan(0.1) and not by what eta would make of a wide model,
// and what comes out is a rotation. (0.4 here is a step of 0.05 at n = 4096.)
TEST(a_step_of_one_plane_is_bounded) {
    const int n = 64, i = 3, j = 40;
    RotationLearner learner(n, 5);
    Matrix identity((size_t)n * n, 0);
    for (int k = 0; k < n; k++) identity[(size_t)k * n + k] = 1;
    const std::vector<float> R(identity.begin(), identity.end());
    std::vector<float> G((size_t)n * n, 0);
    G[(size_t)i * n + j] = 7;
    copy(learner.R.data, R.data(), R.size()), copy(learner.A.data, G.data(), G.size());
    learner.step(0.4);
    Matrix expected = identity;
    expected[(size_t)i * n + i] = expected[(size_t)j * n + j] = std::cos(std::atan(0.1));
    expected[(size_t)i * n + j] = -std::sin(std::atan(0.1)), expected[(size_t)j * n + i] = std::sin(std::atan(0.1));
    const std::vector<float> found = on_host(learner.R);
    for (size_t k = 0; k < expected.size(); k++) CHECK_NEAR(found[k], expected[k], 1e-5);
}

// Rows half of whose energy is one channel's constant, in steps of a wide model.
TEST(steps_of_a_wide_model_descend) {
    skip_when_emulated();
    const int n = 64, rows = 300, steps = 30;
    std::vector<float> x = outlier_rows(rows, n, 8);
    for (int t = 0; t < rows; t++)
        for (int c = 0; c < n; c++)
            x[(size_t)t * n + c] = to_float(to_floatX((float)std::sqrt(0.5) * (c == 9 ? std::sqrt((float)n) : x[(size_t)t * n + c])));
    const Array<floatX> data = stored(x);
    RotationLearner learner(n, rows);
    const std::vector<float> start = orthogonal(n, 9);
    copy(learner.R.data, start.data(), start.size());
    std::vector<int> which;
    for (int t = 0; t < rows; t++) which.push_back(t);
    const double before = learner.loss_of_all(data.data, rows);
    for (int k = 0; k < steps; k++) {
        learner.losses_of(data.data, which), learner.gradient(rows), learner.step(0.4 * (1 + std::cos(M_PI * k / steps)) / 2);
        CHECK(learner.off() < 1e-3);
    }
    CHECK(learner.loss_of_all(data.data, rows) < 0.9 * before);
}

// A step for the one row that is drawn, which loses what it gains on 199 others, whose ranges are as small as can be: R stays as it was.
TEST(learning_keeps_what_it_cannot_better) {
    const int n = 16, rows = 200, drawn = (int)PythonRandom(0).randint(0, rows - 1);
    std::vector<float> x;
    for (int t = 0; t < rows; t++)
        for (int c = 0; c < n; c++) x.push_back(t == drawn ? (c == 0 ? 3.9f : c == 1 ? 0.9f : 0.0f) : __builtin_popcount(t & c) % 2 ? -1.0f : 1.0f);
    const Array<floatX> data = stored(x);
    std::vector<float> start((size_t)n * n, 0);
    for (int k = 0; k < n; k++) start[(size_t)k * n + k] = 1;
    RotationLearner learner(n, rows);
    copy(learner.R.data, start.data(), start.size());
    const double before = learner.loss_of_all(data.data, rows);
    learner.losses_of(data.data, {drawn}), learner.gradient(1), learner.step(0.05);
    CHECK(learner.loss_of_all(data.data, rows) > before);
    Array<float> R(start.size(), "test");
    copy(R.data, start.data(), start.size());
    const LearnedRotation result = learn_rotation(R.data, data.data, rows, n, 0, 1, 1);
    CHECK(on_host(R) == start);
    CHECK_EQ(result.after, result.before);
    CHECK_EQ(result.off, 0.0);
}

TEST(rows_are_normalized) {
    const int n = 33;
    std::vector<float> x = outlier_rows(2, n, 7);
    for (float& v : x) v *= 50;
    x.resize(3 * n, 0);
    const Array<floatX> from = stored(x);
    Array<floatX> to(x.size(), "test");
    normalize_rows(to.data, n, from.data, n, 3, n);
    std::vector<floatX> host(to.n);
    copy(host.data(), to.data, to.n);
    for (int t = 0; t < 3; t++) {
        double sum = 0;
        for (int i = 0; i < n; i++) sum += std::pow(to_float(host[t * n + i]), 2);
        CHECK_NEAR(sum / n, t == 2 ? 0 : 1, 1e-2);
    }
}
