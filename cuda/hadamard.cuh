// hadamard.cuh: Hadamard matrices of nearly any order, and the product of rows with one, in n log n instead of n^2 operations.
//
// A Hadamard matrix H [n, n] has entries +1 and -1 and H H^T = n I, so that H / sqrt(n) is orthogonal: it spreads every value evenly over
// all n. Four constructions, all made when they are asked for (chi(a) = 0 if q | a, 1 if a is a square modulo the prime q, else -1):
//     Sylvester              W_1 = [1],  W_2n = [[W, W], [W, -W]]
//     Paley I,  q = 3 mod 4  order q + 1:    H = I + [[0, 1], [-1, Q]],  Q[i, j] = chi(i - j); not symmetric
//     Paley II, q = 1 mod 4  order 2(q + 1): H = [[0, 1], [1, Q]] (x) [[1, 1], [1, -1]] + I (x) [[1, -1], [-1, -1]]; symmetric
//     Williamson             order 172 = 4 x 43, which Paley lacks: H = [[A, B, C, D], [-B, A, -D, C], [-C, D, A, -B], [-D, -C, B, A]] of
//                            symmetric circulants with A^2 + B^2 + C^2 + D^2 = 172 I
// Kronecker products of Hadamard matrices are Hadamard matrices. So n = m_1 m_2 .. 2^k with such orders m_1 >= m_2 .. has
//     H = H_m1 (x) H_m2 (x) .. (x) W_2^k,
// and of all such factorizations the one with the least sum of the m_i plus k is taken: a row costs n (k + m_1 + m_2 + ..) additions.
// k steps of butterflies (a, b) -> (a + b, a - b) run inside pieces of 2^k values, then, for each m, an m x m product with signs runs over
// values that lie 2^k (times the orders done) apart.
//
// Sources: R. Paley, "On orthogonal matrices", 1933; J. Williamson, "Hadamard's determinant theorem and the sum of four squares", 1944;
// the index order is that of QuaRot (spcl/QuaRot) and SpinQuant.
//
// One block transforms one row, in float, in shared memory: 100 KB of it for the widest official model (25600), which takes CUDA's
// opt-in size. Thread t does butterflies and columns t, t + blockDim, ...; on the CPU these are vectors of neighbours.
//
// defines: HADAMARD_MAX, paley_matrix, williamson_matrix, hadamard_factors, hadamard_block, Hadamard, hadamard_make, hadamard_rows
#pragma once
#include <algorithm>
#include <utility>
#include <vector>
// defines: Vector, LANES, load_vector, store_vector, on the CPU
#include "gemm.cuh"

static constexpr int HADAMARD_MAX = 40960;      // values of a row: 160 KB of shared memory; a block may have 163 on sm_80, 227 on sm_90, 99 on sm_86
static constexpr int HADAMARD_MAX_ORDER = 172;  // of a matrix that isn't Sylvester's: a thread holds so many values
static constexpr int HADAMARD_MAX_FACTORS = 6;  // such matrices in a product

// What a thread has of a row at a time: on the GPU one value, on the CPU a vector of neighbours.
#ifdef __CUDACC__
typedef float Lanes;
DEVICE Lanes load_lanes(const float* p) { return *p; }
DEVICE void store_lanes(float* p, Lanes x) { *p = x; }
#else
typedef Vector<float> Lanes;
inline Lanes load_lanes(const float* p) { return load_vector(p); }
inline void store_lanes(float* p, Lanes x) { store_vector(p, x); }
#endif
static constexpr int N_LANES = sizeof(Lanes) / sizeof(float);

// ---------------------------------------------------------------------------------------------------------------------
// Constructions

inline bool is_prime(int p) {
    for (int d = 2; d * d <= p; d++)
        if (p % d == 0) return false;
    return p > 1;
}

// The prime q of Paley's construction of order m: q = m - 1 (I) or m / 2 - 1 (II); 0 where there is none.
inline int paley_prime(int m) {
    if (m % 4 != 0) return 0;
    if (is_prime(m - 1)) return m - 1;  // 3 mod 4 because m is a multiple of 4
    return is_prime(m / 2 - 1) && (m / 2 - 1) % 4 == 1 ? m / 2 - 1 : 0;
}

// H [m, m] of order m, which has a paley_prime.
inline std::vector<float> paley_matrix(int m) {
    const int q = paley_prime(m), n = q + 1;
    std::vector<int> chi(q, -1);
    for (long x = 1; x < q; x++) chi[x * x % q] = 1;
    chi[0] = 0;
    const bool first = n == m;
    std::vector<int> core((size_t)n * n, 0);  // [[0, 1], [+-1, Q]]
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            if (i != j) core[(size_t)i * n + j] = i == 0 ? 1 : j == 0 ? (first ? -1 : 1) : chi[((i - j) % q + q) % q];
    std::vector<float> H((size_t)m * m);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < m; j++) {
            const int across = first ? 1 : 2, c = core[(size_t)(i / across) * n + j / across];
            const bool diagonal = i / across == j / across, low = i % across == 1 && j % across == 1;
            if (first) H[(size_t)i * m + j] = (float)(c + diagonal);
            else H[(size_t)i * m + j] = (float)(diagonal ? (i % 2 == 0 && j % 2 == 0 ? 1 : -1) : low ? -c : c);
        }
    return H;
}

// H [172, 172], of Qwen2.5-3B's F = 11008 = 172 x 64. A circulant's first row is 1 at 0 and constant on the seven classes of 3^e modulo 43
// with equal e mod 7 (3 has every number but 0 as a power; the classes hold -x with x, so that the circulant is symmetric): bit e mod 7 says
// where a row is 1.
static constexpr int WILLIAMSON = 43;
inline std::vector<float> williamson_matrix() {
    const int q = WILLIAMSON, m = 4 * q, classes[4] = {0b0001111, 0b0100110, 0b0111010, 0b1101100};
    const int block[4][4] = {{0, 1, 2, 3}, {1, 0, 3, 2}, {2, 3, 0, 1}, {3, 2, 1, 0}};
    const int sign[4][4] = {{1, 1, 1, 1}, {-1, 1, -1, 1}, {-1, 1, 1, -1}, {-1, -1, 1, 1}};
    int rows[4][WILLIAMSON] = {{1}, {1}, {1}, {1}};
    for (int e = 0, x = 1; e < q - 1; e++, x = x * 3 % q)
        for (int b = 0; b < 4; b++) rows[b][x] = classes[b] >> e % 7 & 1 ? 1 : -1;
    std::vector<float> H((size_t)m * m);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < m; j++) H[(size_t)i * m + j] = (float)(sign[i / q][j / q] * rows[block[i / q][j / q]][(j % q - i % q + q) % q]);
    return H;
}

inline bool hadamard_order(int m) { return paley_prime(m) || m == 4 * WILLIAMSON; }

struct HadamardFactors {
    std::vector<int> orders;  // Paley's or Williamson's, largest first
    int two = 0;              // 2^k; 0: there is no such product
    int cost = 0;             // operations a value
};

// Splits what is left, odd * 2^k, into such orders and a power of two; keeps the cheapest.
inline void hadamard_split(int odd, int k, std::vector<int>& orders, int cost, HadamardFactors& best) {
    if (odd == 1 && (best.two == 0 || cost + k < best.cost)) best = {orders, 1 << k, cost + k};
    if (odd == 1 || (int)orders.size() == HADAMARD_MAX_FACTORS) return;
    for (int d = 3; d <= odd; d += 2) {
        if (odd % d != 0) continue;
        for (int t = 2; t <= k && d << t <= HADAMARD_MAX_ORDER; t++) {
            const int m = d << t;
            if ((!orders.empty() && m > orders.back()) || !hadamard_order(m)) continue;
            orders.push_back(m);
            hadamard_split(odd / d, k - t, orders, cost + m, best);
            orders.pop_back();
        }
    }
}

inline HadamardFactors hadamard_factors(int n) {
    int k = 0;
    while (n > 0 && n % (2 << k) == 0) k++;
    HadamardFactors best;
    std::vector<int> orders;
    if (n > 0) hadamard_split(n >> k, k, orders, 0, best);
    return best;
}

// Values of a row that this device can transform at a time.
inline int hadamard_max() {
#ifdef __CUDACC__
    int bytes = 0;
    cuda_check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    return std::min(HADAMARD_MAX, bytes / (int)sizeof(float));
#else
    return HADAMARD_MAX;
#endif
}

// The largest divisor of n that has a Hadamard matrix here: n itself, or what a block-diagonal matrix can be made of.
inline int hadamard_block(int n) {
    for (int block = std::min(n, hadamard_max()); block > 1; block--)
        if (n % block == 0 && hadamard_factors(block).two) return block;
    return 1;
}

// ---------------------------------------------------------------------------------------------------------------------
// A matrix ready for use

struct Hadamard {
    int n = 0;      // values of a row: inner * order
    int inner = 1;  // neighbours that are left alone: the matrix is H (x) I_inner
    int order = 0;
    HadamardFactors factors;
    Array<float> signs;       // for y = H x: of each order, the last first, [m, m], whose row c has H[r, c] for all r: what input
                              // c adds to output r
    Array<float> transposed;  // the same for y = H^T x
};

// H (x) I_inner with H of order n / inner. A refusal calls n `what` and ends with the hint.
inline Hadamard hadamard_make(int n, const char* what, int inner = 1, const std::string& hint = "another width") {
    Hadamard h;
    h.n = n, h.inner = inner, h.order = n / inner;
    h.factors = n % inner == 0 ? hadamard_factors(h.order) : HadamardFactors();
    if (!h.factors.two)
        fail("%s = %d: no Hadamard matrix of order %d is a product of Paley's, Williamson's (orders up to %d) and Sylvester's. HINT: %s", what, n,
             h.order, HADAMARD_MAX_ORDER, hint.c_str());
    if (n > hadamard_max())
        fail("%s = %d: a transform of more than %d values at a time does not fit into the shared memory of %s. HINT: %s", what, n, hadamard_max(),
             device_name().c_str(), hint.c_str());
    std::vector<float> signs, transposed;
    for (size_t f = h.factors.orders.size(); f-- > 0;) {
        const int m = h.factors.orders[f];
        const std::vector<float> H = m == 4 * WILLIAMSON ? williamson_matrix() : paley_matrix(m);
        transposed.insert(transposed.end(), H.begin(), H.end());
        for (int c = 0; c < m; c++)
            for (int r = 0; r < m; r++) signs.push_back(H[(size_t)r * m + c]);
    }
    h.signs = Array<float>(signs.size(), "signs of a Hadamard matrix"), h.transposed = Array<float>(signs.size(), "the same");
    copy(h.signs.data, signs.data(), signs.size()), copy(h.transposed.data, transposed.data(), signs.size());
    return h;
}

// What a kernel is told of it.
struct HadamardSteps {
    int n, inner, two, n_orders, orders[HADAMARD_MAX_FACTORS];  // the last factor first
    int log_inner;                                              // -1: not a power of two
    float scale;                                                // 1 / sqrt(order)
    const float* signs;
};

// ---------------------------------------------------------------------------------------------------------------------
// The transform

// (a, b) -> (a + b, a - b) for values h apart, h = inner 2^step.
DEVICE void hadamard_butterflies(float* y, const HadamardSteps& p, int h, int step) {
    if (h % N_LANES != 0) {  // on the CPU alone
        for (int i = 0; i < p.n; i += 2 * h)
            for (int j = i; j < i + h; j++) {
                const float a = y[j], b = y[j + h];
                y[j] = a + b, y[j + h] = a - b;
            }
        return;
    }
    for (int i = threadIdx.x * N_LANES; i < p.n / 2; i += blockDim.x * N_LANES) {
        const int skipped =
            p.log_inner >= 0 ? i >> (p.log_inner + step) << (p.log_inner + step) : i / h * h;  // earlier second halves
        float* at = y + skipped + i;
        const Lanes a = load_lanes(at), b = load_lanes(at + h);
        store_lanes(at, a + b), store_lanes(at + h, a - b);
    }
}

#ifndef __CUDACC__
// The step h < N_LANES inside of a vector: lane l's partner is l ^ h, and the second of a pair is subtracted.
template <int h, size_t... l> Lanes hadamard_pairs(Lanes x, std::index_sequence<l...>) {
#ifdef __clang__
    const Lanes partners = __builtin_shufflevector(x, x, (int)(l ^ h)...);
#else
    const Lanes partners = __builtin_shuffle(x, Vector<int>{(int)(l ^ h)...});
#endif
    return partners + Lanes{(l & h ? -1.0f : 1.0f)...} * x;
}

// All steps with h < N_LANES.
inline void hadamard_inside(float* y, int n) {
    constexpr std::make_index_sequence<N_LANES> all;
    for (int i = 0; i < n; i += N_LANES) {
        Lanes x = load_lanes(y + i);
        x = hadamard_pairs<1>(x, all);
        x = hadamard_pairs<2>(x, all);
        if constexpr (N_LANES >= 8) x = hadamard_pairs<4>(x, all);
        if constexpr (N_LANES >= 16) x = hadamard_pairs<8>(x, all);
        store_lanes(y + i, x);
    }
}
#endif

// out_r = sum over c of H[r, c] in_c for values that lie `stride` apart, in groups of m. One thread has all m of a column.
template <class Column>
DEVICE void hadamard_signs(float* y, int n, int m, int stride, const float* signs /*[m, m], [c][r]*/, Column) {
    constexpr int lanes = sizeof(Column) / sizeof(float);
    const int columns = stride / lanes, units = n / (m * stride) * columns;
    Column in[HADAMARD_MAX_ORDER];
    for (int u = threadIdx.x; u < units; u += blockDim.x) {
        float* at = y + (size_t)(u / columns) * m * stride + u % columns * lanes;
        for (int c = 0; c < m; c++) memcpy(&in[c], at + (size_t)c * stride, sizeof(Column));
        for (int r = 0; r < m; r += 4) {  // m is a multiple of 4
            Column out[4] = {};
            for (int c = 0; c < m; c++)
                for (int k = 0; k < 4; k++) out[k] += signs[c * m + r + k] * in[c];
            for (int k = 0; k < 4; k++) memcpy(at + (size_t)(r + k) * stride, &out[k], sizeof(Column));
        }
    }
}

// A row is block b's p.n values at x + (b / per_row) ld + (b % per_row) p.n. It becomes  after * (scale H (before * row)).
template <class T> KERNEL hadamard_kernel(T* x, size_t ld, int per_row, HadamardSteps p,
                                          const float* before /*[per_row, n] or null*/,
                                          const float* after /*[per_row, n] or null*/) {
#ifdef __CUDACC__
    extern __shared__ uint4 shared[];
    float* y = (float*)shared;
#else
    alignas(64) float y[HADAMARD_MAX];
#endif
    const size_t piece = blockIdx.x % per_row * (size_t)p.n;
    T* row = x + blockIdx.x / per_row * ld + piece;
    for (int i = threadIdx.x; i < p.n; i += blockDim.x) y[i] = to_float(row[i]) * (before ? before[piece + i] : 1);
    block_sync();
    int h = p.inner, step = 0;
#ifndef __CUDACC__
    if (p.inner == 1 && p.two >= N_LANES)
        for (hadamard_inside(y, p.n); h < N_LANES; h *= 2) step++;
#endif
    for (; h < p.inner * p.two; h *= 2, step++) {
        hadamard_butterflies(y, p, h, step);
        block_sync();
    }
    const float* signs = p.signs;
    for (int f = 0; f < p.n_orders; f++) {
        const int m = p.orders[f];
        if (h % N_LANES == 0) hadamard_signs(y, p.n, m, h, signs, Lanes());
        else hadamard_signs(y, p.n, m, h, signs, 0.0f);
        block_sync();
        h *= m, signs += m * m;
    }
    if (after)
        for (int i = threadIdx.x; i < p.n; i += blockDim.x) y[i] *= after[piece + i];
    for (int i = threadIdx.x; i < p.n; i += blockDim.x) store_float(row[i], p.scale * y[i]);
}

// Transforms `rows` rows that lie ld apart, each of them per_row pieces of h.n values: a piece, taken as a row vector, becomes
//     (piece * before) H^T / sqrt(order) * after,         or with H in the place of H^T (`inverse`),
// so that hadamard_rows(s, null) and hadamard_rows(inverse, null, s) undo each other for signs s.
template <class T> void hadamard_rows(T* x, size_t rows, size_t ld, int per_row, const Hadamard& h, bool inverse = false,
                                      const float* before = nullptr, const float* after = nullptr) {
    const size_t blocks = rows * per_row;
    if (blocks > INT32_MAX) fail("hadamard_rows: %zu rows of %d pieces are too many at a time", rows, per_row);
    HadamardSteps p = {};
    p.n = h.n, p.inner = h.inner, p.two = h.factors.two, p.n_orders = (int)h.factors.orders.size();
    for (int f = 0; f < p.n_orders; f++) p.orders[f] = h.factors.orders[p.n_orders - 1 - f];
    for (p.log_inner = 0; 1 << p.log_inner < h.inner; p.log_inner++) {
    }
    if (1 << p.log_inner != h.inner) p.log_inner = -1;
    p.scale = (float)(1 / std::sqrt((double)h.order)), p.signs = inverse ? h.transposed.data : h.signs.data;
    const int threads = std::clamp(h.n / 8 / 32 * 32, 32, 512);
    launch_shared(hadamard_kernel<T>, dim3((unsigned)blocks), threads, h.n * sizeof(float), x, ld, per_row, p, before, after);
}
