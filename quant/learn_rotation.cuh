// learn_rotation.cuh: a rotation that is learned from activations, by products and elementwise kernels alone: no backward pass of the
// model, no QR, no eigenvectors.
//
// The error of a token's grid is proportional to the square of its range. So a rotation R [n, n] of rows x_t, each divided by its root
// mean square, is made to minimize a smooth range, a power mean with p = 8:
//     y_t = x_t R,    m_t = mean over j of y_tj^p,    L = mean over t of m_t^(2/p)
//     dL/dy_tj = 2 / (N n) m_t^(2/p - 1) y_tj^(p-1),  G = dL/dR = X^T dL/dY
// by descent along the orthogonal matrices, with momentum, and a way back onto them (Newton and Schulz's iteration):
//     Omega = G R^T - R G^T                                            skew
//     M <- 0.9 M + Omega                                               (0 at first)
//     R <- R - t M R,    t = min(eta sqrt(n) / ||M||_F, 0.1 / ||M||_2),    eta = 0.05 (1 + cos(pi step / steps)) / 2
//     twice  R <- 1.5 R - 0.5 R (R^T R)
// Rows are drawn anew for each step. eta is the rms angle of a step, and no plane turns by more than about atan(0.1): where one channel
// dominates, the gradient is nearly one plane's, ||M||_2 = ||M||_F / sqrt(2), and eta alone would turn that plane by sqrt(n / 2) eta: 2.3
// at n = 4096, where the iteration, which needs singular values sqrt(1 + (t ||M||_2)^2) below sqrt(3), has no limit. ||M||_2 is found by 8
// power iterations from M's longest row. A rotation that is no better than where it began is not taken.
//
// The objective is KurTail's (p = 4 is kurtosis, as |y| is fixed) made sharper; DartQuant learns without a backward pass too.
// symbols: X, Y [rows, n], N rows a step, R, G and M (momentum) [n, n]; L the loss, but in RotationSamples the layers
// defaults: 200 steps of 4096 rows, from 16 calibration samples: ours
// cost: 4 N n^2 + 12 n^3 operations a step; five n x n and three N x n float matrices
//
// defines: LEARN_WINDOWS, LEARN_EVERY, LearnedRotation, learn_rotation, learn_rotation_bytes, normalize_rows, off_orthogonal, RotationSamples,
//          rotation_samples_bytes, require_room_to_learn
#pragma once
#include "../data/progress.h"
#include "rotation.cuh"

static constexpr int LEARN_STEPS = 200, LEARN_ROWS = 4096;
static constexpr double LEARN_TURN = 0.1;  // the most that a plane turns in a step: its angle's tangent

struct LearnedRotation {
    double before, after;  // L over all rows; after <= before
    double off;            // max |R^T R - I|
};

// out[r] = x[r] / rms(x[r]); a row of zeros stays one.
KERNEL normalize_rows_kernel(floatX* out /*[rows, n]*/, size_t out_ld, const floatX* x, size_t ld, int n) {
    const floatX* from = x + blockIdx.x * ld;
    floatX* to = out + blockIdx.x * out_ld;
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += to_float(from[i]) * to_float(from[i]);
    sum = block_sum(sum) / (float)n;
    const float scale = sum > 0 ? 1 / sqrtf(sum) : 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) to[i] = to_floatX(to_float(from[i]) * scale);
}

inline void normalize_rows(floatX* out, size_t out_ld, const floatX* x, size_t ld, int rows, int n) {
    launch(normalize_rows_kernel, rows, 256, out, out_ld, x, ld, n);
}

KERNEL draw_rows_kernel(float* out /*[N, n]*/, const floatX* X /*[rows, n]*/, const int* rows /*[N]*/, int n) {
    const floatX* from = X + (size_t)rows[blockIdx.x] * n;
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[(size_t)blockIdx.x * n + i] = to_float(from[i]);
}

// losses[t] = m_t^(2/8); Y becomes dL/dY.
KERNEL soft_range_kernel(float* Y /*[N, n]*/, float* losses /*[N]*/, int n, float N) {
    float* y = Y + (size_t)blockIdx.x * n;
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const float y2 = y[i] * y[i], y4 = y2 * y2;
        sum += y4 * y4;
    }
    const float m = block_sum(sum) / (float)n, loss = sqrtf(sqrtf(m));
    const float factor = m > 0 ? 2 / (N * (float)n) * loss / m : 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const float y2 = y[i] * y[i];
        y[i] = factor * y2 * y2 * y2 * y[i];
    }
    if (threadIdx.x == 0) losses[blockIdx.x] = loss;
}

// M = 0.9 M + P - P^T, and the sum of squares of each row.
KERNEL momentum_kernel(float* M /*[n, n]*/, float* squares /*[n]*/, const float* P /*[n, n]*/, const float* Pt /*[n, n]*/, int n) {
    const size_t row = (size_t)blockIdx.x * n;
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const float m = 0.9f * M[row + i] + P[row + i] - Pt[row + i];
        M[row + i] = m, sum += m * m;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) squares[blockIdx.x] = sum;
}

struct RotationLearner {
    int n, N;
    Array<float> X, Y, Xt;         // [N, n], [N, n], [n, N]
    Array<float> R, M, A, B, C;    // [n, n]
    Array<float> losses, squares;  // [N], [n]
    Array<int> rows;               // [N]

    RotationLearner(int n, int N) : n(n), N(N) {
        X = Array<float>((size_t)N * n, "rows to learn from"), Y = Array<float>(X.n, "rotated rows"),
        Xt = Array<float>(X.n, "rows");
        for (Array<float>* a : {&R, &M, &A, &B, &C}) *a = Array<float>((size_t)n * n, "learning a rotation");
        losses = Array<float>(N, "losses"), squares = Array<float>(n, "squares"), rows = Array<int>(N, "row numbers");
        fill_zero(M.data, M.n);
    }

    // Y = dL/dY of the `count` rows; returns the sum of their losses.
    double losses_of(const floatX* data, const std::vector<int>& which) {
        const int count = (int)which.size();
        copy(rows.data, which.data(), which.size());
        launch(draw_rows_kernel, count, 256, X.data, data, rows.data, n);
        gemm_float(Y.data, n, X.data, n, R.data, n, count, n, n, 1, 0);
        launch(soft_range_kernel, count, 256, Y.data, losses.data, n, (float)count);
        std::vector<float> host(count);
        copy(host.data(), losses.data, count);
        double sum = 0;
        for (float x : host) sum += x;
        return sum;
    }

    double loss_of_all(const floatX* data, size_t n_rows) {
        double sum = 0;
        for (size_t first = 0; first < n_rows; first += N) {
            std::vector<int> which;
            for (size_t r = first; r < std::min(n_rows, first + N); r++) which.push_back((int)r);
            sum += losses_of(data, which);
        }
        return sum / (double)n_rows;
    }

    // A = G, the gradient with respect to R, for the rows that losses_of was called with.
    void gradient(int count) {
        transpose(Xt.data, count, X.data, n, count, n);
        gemm_float(A.data, n, Xt.data, count, Y.data, n, n, n, count, 1, 0);
    }

    void to_orthogonal() {
        transpose(B.data, n, R.data, n, n, n);
        gemm_float(C.data, n, B.data, n, R.data, n, n, n, n, 1, 0);
        copy(A.data, R.data, R.n);
        gemm_float(A.data, n, R.data, n, C.data, n, n, n, n, -0.5f, 1.5f);
        R.swap(A);
    }

    // ||M||_2, from below, closely where one plane is far ahead. row_squares: of M's rows. Overwrites X and Y.
    double spectral_norm(const std::vector<float>& row_squares) {
        const size_t longest = std::max_element(row_squares.begin(), row_squares.end()) - row_squares.begin();
        double norm = std::sqrt((double)row_squares[longest]);
        copy(X.data, M.data + longest * n, n);
        std::vector<float> host(n);
        for (int i = 0; i < 8 && norm > 0; i++) {
            gemm_float(Y.data, n, X.data, n, M.data, n, 1, n, n, (float)(1 / norm), 0);
            copy(host.data(), Y.data, n);
            double sum = 0;
            for (float y : host) sum += (double)y * y;
            norm = std::sqrt(sum);
            X.swap(Y);
        }
        return norm;
    }

    void step(double eta) {
        transpose(B.data, n, R.data, n, n, n);                       // B = R^T; A is G
        gemm_float(C.data, n, A.data, n, B.data, n, n, n, n, 1, 0);  // C = G R^T
        transpose(A.data, n, C.data, n, n, n);                       // A = R G^T
        launch(momentum_kernel, n, 256, M.data, squares.data, C.data, A.data, n);
        std::vector<float> host(n);
        copy(host.data(), squares.data, n);
        double squared = 0;  // ||M||_F^2
        for (float x : host) squared += x;
        if (!(squared > 0)) return;  // nothing to gain
        const double t = std::min(eta * std::sqrt(n / squared), LEARN_TURN / spectral_norm(host));
        copy(A.data, R.data, R.n);
        gemm_float(A.data, n, M.data, n, R.data, n, n, n, n, (float)-t, 1);
        R.swap(A);
        for (int i = 0; i < 2; i++) to_orthogonal();
    }

    // max |R^T R - I|, infinite if any of it is not finite
    double off() {
        transpose(B.data, n, R.data, n, n, n);
        gemm_float(C.data, n, B.data, n, R.data, n, n, n, n, 1, 0);
        std::vector<float> host(C.n);
        copy(host.data(), C.data, C.n);
        double most = 0;
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) {
                const double x = std::fabs((double)host[(size_t)i * n + j] - (i == j));
                most = std::isfinite(x) ? std::max(most, x) : INFINITY;
            }
        return most;
    }
};

// Turns R [n, n], where it begins, into the rotation that makes the ranges of the rows X [n_rows, n] small; their rms is 1.
inline LearnedRotation learn_rotation(float* R, const floatX* X, size_t n_rows, int n, uint64_t seed, int steps = LEARN_STEPS,
                                      int rows_a_step = LEARN_ROWS) {
    if (n_rows == 0 || n_rows > INT32_MAX) fail("a rotation cannot be learned from %zu rows", n_rows);
    const int N = (int)std::min(n_rows, (size_t)rows_a_step);
    RotationLearner learner(n, N);
    PythonRandom random(seed);
    copy(learner.R.data, R, learner.R.n);
    LearnedRotation result;
    result.before = learner.loss_of_all(X, n_rows);
    std::vector<int> which(N);
    Parts progress{"learning a rotation: step", steps};
    for (int step = 0; step < steps; step++) {
        for (int i = 0; i < N; i++) which[i] = (size_t)N == n_rows ? i : (int)random.randint(0, (long long)n_rows - 1);
        learner.losses_of(X, which);
        learner.gradient(N);
        learner.step(0.05 * (1 + std::cos(M_PI * step / steps)) / 2);
        progress.done(step + 1);
    }
    result.after = learner.loss_of_all(X, n_rows);
    result.off = learner.off();
    if (!std::isfinite(result.before) || !std::isfinite(result.after) || !(result.off < 1e-3))
        fail("learning a rotation ended with a loss of %g after %g, |R^T R - I| %g. HINT: are the checkpoint's activations finite (-q fp16 -e wikitext2)?",
             result.after, result.before, result.off);
    if (result.after < result.before) copy(R, learner.R.data, learner.R.n);
    else copy(learner.R.data, R, learner.R.n), result.after = result.before, result.off = learner.off();
    return result;
}

// What learn_rotation allocates.
inline size_t learn_rotation_bytes(int n, size_t n_rows) {
    const size_t N = std::min(n_rows, (size_t)LEARN_ROWS);
    return (5 * (size_t)n * n + 3 * N * n + 2 * N + n) * sizeof(float);
}

// max |R^T R - I| of R [n, n]
inline double off_orthogonal(const Array<float>& R, int n) {
    RotationLearner learner(n, 1);
    copy(learner.R.data, R.data, R.n);
    return learner.off();
}

static constexpr int LEARN_WINDOWS = 16, LEARN_EVERY = 32;  // calibration samples of the extra pass, and which of their tokens are kept

// What R1 and the R2 are learned from, taken from one pass of the full-precision model: for R1 the residual stream before both norms of
// every layer, for R2 of a kv head what attention made of its values; each row divided by its root mean square. Here a sample is such a row.
struct RotationSamples {
    Rotation& r;
    int L, most;           // layers; tokens that are kept
    Array<floatX> stream;  // [2 L most, C]
    Array<floatX> heads;   // [KV, most H / KV, D] of the layer at hand
    size_t n_stream = 0, n_tokens = 0;
    double r2_before = 0, r2_after = 0, off = 0;

    RotationSamples(Rotation& r, int L, int most) : r(r), L(L), most(most) {
        const RotationShape& s = r.shape;
        if (r.has.r1) stream = Array<floatX>((size_t)2 * L * most * s.C, "the residual stream of some tokens");
        if (r.has.r2) heads = Array<floatX>((size_t)most * s.H * s.D, "heads of some tokens");
        if (r.has.r2) r.all_R2.resize((size_t)L * s.KV * s.D * s.D);
    }

    void take_stream(const floatX* x /*[T, C]*/, int T) {
        const size_t C = (size_t)r.shape.C;
        const int n = ceil_div(T, LEARN_EVERY);
        if (r.has.r1) normalize_rows(stream.data + n_stream * C, C, x, LEARN_EVERY * C, n, r.shape.C);
        n_stream += (size_t)n;
    }

    void take_heads(const floatX* x /*[T, H D]*/, int T) {
        const RotationShape& s = r.shape;
        const size_t D = (size_t)s.D, HD = s.H * D, group = (size_t)(s.H / s.KV);
        const int n = ceil_div(T, LEARN_EVERY);
        for (int h = 0; r.has.r2 && h < s.H; h++)  // row (token, head of the group) of its kv head
            normalize_rows(heads.data + ((size_t)kv_head(s, h) * most * group + n_tokens * group + h % group) * D, group * D,
                           x + h * D, LEARN_EVERY * HD, n, s.D);
        n_tokens += (size_t)n;
    }

    // From what was taken of layer l.
    void learn_r2(int l) {
        const RotationShape& s = r.shape;
        const size_t n = (size_t)s.D * s.D, group = (size_t)(s.H / s.KV);
        if (!r.has.r2) return;
        std::vector<float> learned_so_far;
        learned_so_far.swap(r.all_R2);  // empty: rotation_draw_r2 draws
        rotation_draw_r2(r, l);         // where learning begins
        learned_so_far.swap(r.all_R2);
        for (int k = 0; k < s.KV; k++) {
            const LearnedRotation learned =
                learn_rotation(r.R2.data + k * n, heads.data + k * most * group * s.D, n_tokens * group, s.D, r.seed);
            r2_before += learned.before / (L * s.KV), r2_after += learned.after / (L * s.KV), off = std::max(off, learned.off);
        }
        copy(r.all_R2.data() + (size_t)l * s.KV * n, r.R2.data, s.KV * n);
        n_tokens = 0;
    }

    LearnedRotation learn_r1() {
        const int C = r.shape.C;
        std::vector<float> identity((size_t)C * C, 0);
        for (int i = 0; i < C; i++) identity[(size_t)i * C + i] = 1;
        Array<float> R1(identity.size(), "R1");
        copy(R1.data, identity.data(), R1.n);
        rotate_rows(R1.data, C, r);
        const LearnedRotation learned = learn_rotation(R1.data, stream.data, n_stream, C, r.seed);
        rotation_set_r1(r, std::move(R1));
        off = std::max(off, learned.off);
        return learned;
    }
};

inline void require_room_to_learn(size_t bytes, size_t room) {
    if (bytes > room)
        fail("not enough memory: learning a rotation needs %.2f GB on the device, %.2f GB are free. HINT: a shorter -l, or a "
             "rotation from "
             "--rotation FILE",
             bytes / 1e9, room / 1e9);
}

// What RotationSamples and its learning allocate, R1 included.
inline size_t rotation_samples_bytes(const RotationShape& s, int L, int most) {
    const size_t rows = (size_t)2 * L * most, C = (size_t)s.C;
    return (rows * C + (size_t)most * s.H * s.D) * sizeof(floatX) + learn_rotation_bytes(s.C, rows) + 2 * C * C * sizeof(float);
}
