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

// A step of R and M in float64, by the formulas. Returns whether the largest turn of a plane bounds it, and not eta.
static bool step_in_float64(const std::vector<float>& X, int n, Matrix& R, Matrix& M, double eta) {
    Matrix G(R.size());
    for (size_t i = 0; i < R.size(); i++) {
        Matrix up = R, down = R;
        up[i] += 1e-5, down[i] -= 1e-5;
        G[i] = (loss_ref(X, up, n) - loss_ref(X, down, n)) / 2e-5;
    }
    auto product = [&](const Matrix& a, const Matrix& b, bool b_transposed, bool a_transposed = false) {
        Matrix c(R.size(), 0);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++)
                for (int k = 0; k < n; k++)
                    c[i * n + j] += (a_transposed ? a[k * n + i] : a[i * n + k]) * (b_transposed ? b[j * n + k] : b[k * n + j]);
        return c;
    };
    const Matrix a = product(G, R, true), b = product(R, G, true);
    double norm = 0;
    for (size_t i = 0; i < M.size(); i++) M[i] = 0.9 * M[i] + a[i] - b[i], norm += M[i] * M[i];
    const Matrix move = product(M, R, false);
    Matrix longest(n, 0);
    double largest = 0;
    for (int i = 0; i < n; i++) {
        const double row = std::inner_product(&M[i * n], &M[i * n] + n, &M[i * n], 0.0);
        if (row > largest) largest = row, longest.assign(&M[i * n], &M[i * n] + n);
    }
    double size = std::sqrt(largest);
    for (int k = 0; k < 8; k++) {
        Matrix next(n, 0);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) next[j] += longest[i] / size * M[i * n + j];
        longest = next, size = std::sqrt(std::inner_product(next.begin(), next.end(), next.begin(), 0.0));
    }
    const double turn = std::min(eta * std::sqrt(n / norm), 0.1 / size);
    for (size_t i = 0; i < R.size(); i++) R[i] -= turn * move[i];
    for (int k = 0; k < 2; k++) {
        const Matrix S = product(R, product(R, R, false, true), false);
        for (size_t i = 0; i < R.size(); i++) R[i] = 1.5 * R[i] - 0.5 * S[i];
    }
    return turn < eta * std::sqrt(n / norm);
}

// Steps of all rows, the first with M = 0 and the others with what the ones before left of it.
static void check_steps(const std::vector<double>& etas, bool bounded) {
    const int n = 12, rows = 40;
    const std::vector<float> X = outlier_rows(rows, n, 3), R0 = orthogonal(n, 4);
    const Array<floatX> data = stored(X);
    RotationLearner learner(n, rows);
    copy(learner.R.data, R0.data(), R0.size());
    Matrix R(R0.begin(), R0.end()), M(R0.size(), 0);
    std::vector<int> which(rows);
    std::iota(which.begin(), which.end(), 0);
    for (double eta : etas) {
        learner.losses_of(data.data, which), learner.gradient(rows), learner.step(eta);
        CHECK_EQ(step_in_float64(X, n, R, M, eta), bounded);
    }
    const std::vector<float> found = on_host(learner.R);
    for (size_t i = 0; i < R.size(); i++) CHECK_NEAR(found[i], R[i], 1e-5);
}

TEST(steps_are_the_formulas) {
    check_steps({0.05}, true);
    check_steps({0.005}, false);
    check_steps({0.005, 0.003, 0.002}, false);
}

// eta falls by half a cosine, from 0.05 to nearly 0: the last of the three steps is below the bound of a turn.
TEST(learning_is_its_steps) {
    const int n = 12, rows = 40, steps = 3;
    const std::vector<float> X = outlier_rows(rows, n, 3), R0 = orthogonal(n, 4);
    Array<float> found(R0.size(), "test");
    copy(found.data, R0.data(), R0.size());
    const LearnedRotation learned = learn_rotation(found.data, stored(X).data, rows, n, 0, steps);
    Matrix R(R0.begin(), R0.end()), M(R0.size(), 0);
    CHECK_NEAR(learned.before, loss_ref(X, R, n), 1e-5 * learned.before);
    bool bounded = true;
    for (int k = 0; k < steps; k++) bounded = step_in_float64(X, n, R, M, 0.05 * (1 + std::cos(M_PI * k / steps)) / 2);
    CHECK(!bounded);
    CHECK_NEAR(learned.after, loss_ref(X, R, n), 1e-5 * learned.before);
    const std::vector<float> host = on_host(found);
    for (size_t i = 0; i < R.size(); i++) CHECK_NEAR(host[i], R[i], 1e-5);
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

// From two chunks of 70 and 40 tokens, of which 0, 32 and 64, and 0 and 32 are kept: rows for R1 one after another, and for the R2 of a
// kv head token after token those of its query heads. All divided by their root mean square.
TEST(samples_lie_where_they_are_learned_from) {
    const int C = 20, H = 6, KV = 2, D = 8, most = 7;
    Rotation r = rotation_make({C, 16, H, KV, D}, 0);
    RotationSamples samples(r, 1, most);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    auto rows_of = [&](int width, int T) {
        std::vector<float> x;
        for (int i = 0; i < width * T; i++) x.push_back(to_float(to_floatX(3 * normal(random))));
        return x;
    };
    const int chunks[] = {70, 40};
    std::vector<float> stream, heads;  // of the tokens that are kept
    for (int T : chunks) {
        const std::vector<float> x = rows_of(C, T), y = rows_of(H * D, T);
        samples.take_stream(stored(x).data, T), samples.take_heads(stored(y).data, T);
        for (int t = 0; t < T; t += 32) {
            stream.insert(stream.end(), x.begin() + t * C, x.begin() + (t + 1) * C);
            heads.insert(heads.end(), y.begin() + t * H * D, y.begin() + (t + 1) * H * D);
        }
    }
    CHECK(samples.n_stream == 5 && samples.n_tokens == 5);
    auto check_row = [](const Array<floatX>& found, size_t at, const float* x, int n) {
        double squares = 0;
        for (int i = 0; i < n; i++) squares += (double)x[i] * x[i] / n;
        std::vector<floatX> host(n);
        copy(host.data(), found.data + at, n);
        for (int i = 0; i < n; i++) CHECK_NEAR(to_float(host[i]), x[i] / std::sqrt(squares), sizeof(floatX) == 4 ? 1e-6 : 0.01);
    };
    for (int t = 0; t < 5; t++) {
        check_row(samples.stream, (size_t)t * C, &stream[t * C], C);
        for (int k = 0; k < KV; k++)
            for (int i = 0; i < H / KV; i++)  // query head k H / KV + i reads kv head k
                check_row(samples.heads, ((size_t)(k * most + t) * (H / KV) + i) * D, &heads[(t * H + k * (H / KV) + i) * D], D);
    }
}
