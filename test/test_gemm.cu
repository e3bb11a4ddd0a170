// Tests of cuda/gemm.cuh: every product against a plain float64 loop over the same inputs.
//
// Tolerance: a sum of K products in float, in whatever order, differs from the exact one by at most K u sum |a_k b_k|,
// with u = 2^-24. Rounding errors are as often up as down, so their sum grows with sqrt(K): 4 sqrt(K) u sum |a_k b_k|
// is asked for, plus half a last place of a bf16 result.
#include <fstream>
#include <random>
#include <vector>
#include "../cuda/gemm.cuh"
#include "products.h"
#include "test.h"

typedef std::vector<float> Floats;

static const double FLOAT_UNIT = std::ldexp(1.0, -24);
static const double FLOATX_UNIT = sizeof(floatX) == 2 ? std::ldexp(1.0, -8) : FLOAT_UNIT;

// Values that floatX holds exactly, so that host and device compute with the same inputs.
static Floats random_values(size_t n, unsigned seed) {
    std::mt19937 generator(seed);
    Floats x(n);
    for (float& v : x) v = to_float(to_floatX((float)((double)generator() / 2147483648.0 - 1)));
    return x;
}

template <class T> static Array<T> upload(const Floats& x) {
    std::vector<T> typed(x.size());
    for (size_t i = 0; i < x.size(); i++)
        if constexpr (sizeof(T) == 2) typed[i] = to_bf16(x[i]);
        else typed[i] = x[i];
    Array<T> device(x.size(), "test");
    copy(device.data, typed.data(), typed.size());
    return device;
}

template <class T> static Floats download(const Array<T>& device) {
    std::vector<T> typed(device.n);
    copy(typed.data(), device.data, device.n);
    Floats x(device.n);
    for (size_t i = 0; i < x.size(); i++) x[i] = to_float(typed[i]);
    return x;
}

static bool same_bytes(const Floats& a, const Floats& b) {
    return a.size() == b.size() && memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(products_are_counted) {
    const Array<floatX> X = upload<floatX>(Floats(6 * 5)), W = upload<floatX>(Floats(4 * 5));
    Array<floatX> Y(6 * 4, "test");
    Array<float> H(5 * 5, "test"), logits(6 * 4, "test");
    auto counted = [](auto product) {
        const uint64_t before = multiply_adds();
        product();
        return multiply_adds() - before;
    };
    CHECK_EQ(counted([&] { gemm(Y.data, X.data, W.data, 6, 4, 5); }), (uint64_t)6 * 4 * 5);
    CHECK_EQ(counted([&] { gemm_logits(logits.data, X.data, W.data, 6, 4, 5); }), (uint64_t)6 * 4 * 5);
    CHECK_EQ(counted([&] { cross_add(H.data, X.data, X.data, 6, 5); }), (uint64_t)6 * 5 * 5);
    CHECK_EQ(counted([&] { hessian_add(H.data, X.data, 6, 5); }), (uint64_t)6 * 5 * 5 / 2);  // half of it is computed
    CHECK_EQ(counted([&] { gemm(Y.data, X.data, W.data, 0, 4, 5); }), (uint64_t)0);
}

// Entries (i, j) of an M x N result to check: all, or 2000 drawn at random if there are more than 100000.
static std::vector<std::pair<int, int>> entries(int M, int N) {
    std::vector<std::pair<int, int>> all;
    if ((size_t)M * N <= 100000) {
        for (int i = 0; i < M; i++)
            for (int j = 0; j < N; j++) all.push_back({i, j});
    } else {
        std::mt19937 generator(9);
        for (int e = 0; e < 2000; e++) all.push_back({(int)(generator() % M), (int)(generator() % N)});
        for (int i : {0, M - 1})
            for (int j : {0, N - 1}) all.push_back({i, j});
    }
    return all;
}

struct Exact {
    double sum, tolerance;
};

// sum over k of a[k * a_step] b[k * b_step], and what a float sum of it may be off by.
static Exact exact_sum(const float* a, size_t a_step, const float* b, size_t b_step, int K) {
    double sum = 0, magnitude = 0;
    for (int k = 0; k < K; k++) {
        const double product = (double)a[k * a_step] * b[k * b_step];
        sum += product;
        magnitude += std::fabs(product);
    }
    return {sum, 4 * std::sqrt((double)K) * FLOAT_UNIT * magnitude};
}

struct Size {
    int M, N, K;
};
static const Size SIZES[] = {{1, 1, 1},       {1, 1, 2},       {2, 3, 5},       {1, 257, 64},    {33, 1, 100},     {17, 33, 129},
                             {14, 32, 192},   {15, 31, 193},   {64, 64, 64},    {168, 512, 384}, {169, 513, 385}, {100, 70, 1000},
                             {5, 1100, 7},    {1023, 5, 31},   {300, 1700, 5000}, {40, 1700, 5000}, {1300, 40, 5000}};

static bool takes_long(Size s) { return loops_for_tiles() && (double)s.M * s.N * s.K > (traps_for_tiles() ? 1e8 : 1e9); }

// The result before the product: NaN, so that an element that is not written, or is read, shows.
static Floats poison(size_t n) { return Floats(n, NAN); }

// Runs gemm or gemm_logits, both A B^T, on device copies.
template <class T, class Product> static Floats linear(Product product, const Floats& a, const Floats& b, Size s) {
    Array<T> C = upload<T>(poison((size_t)s.M * s.N));
    Array<floatX> A = upload<floatX>(a), B = upload<floatX>(b);
    product(C.data, A.data, B.data, s.M, s.N, s.K);
    return download(C);
}

TEST_ON_EVERY_PRODUCT(gemm) {
    for (Size s : SIZES) {
        if (takes_long(s)) continue;
        const Floats a = random_values((size_t)s.M * s.K, 1), b = random_values((size_t)s.N * s.K, 2);
        const Floats c = linear<floatX>(gemm, a, b, s);
        for (auto [i, j] : entries(s.M, s.N)) {
            const Exact exact = exact_sum(&a[(size_t)i * s.K], 1, &b[(size_t)j * s.K], 1, s.K);
            CHECK_NEAR(c[(size_t)i * s.N + j], exact.sum, exact.tolerance + FLOATX_UNIT * std::fabs(exact.sum));
        }
    }
}

TEST_ON_EVERY_PRODUCT(gemm_logits) {
    for (Size s : SIZES) {
        if (takes_long(s)) continue;
        const Floats a = random_values((size_t)s.M * s.K, 3), b = random_values((size_t)s.N * s.K, 4);
        const Floats c = linear<float>(gemm_logits, a, b, s);
        for (auto [i, j] : entries(s.M, s.N)) {
            const Exact exact = exact_sum(&a[(size_t)i * s.K], 1, &b[(size_t)j * s.K], 1, s.K);
            CHECK_NEAR(c[(size_t)i * s.N + j], exact.sum, exact.tolerance);
        }
    }
}

TEST_ON_EVERY_PRODUCT(hessian_add) {
    for (Size s : {Size{0, 1, 1}, {0, 5, 1}, {0, 33, 17}, {0, 64, 200}, {0, 129, 385}, {0, 1000, 77}, {0, 2100, 500}}) {
        if (takes_long({s.N, s.N, s.K})) continue;
        const int I = s.N, T = s.K;
        const Floats x = random_values((size_t)T * I, 7), before = random_values((size_t)I * I, 8);
        Array<float> H = upload<float>(before);
        Array<floatX> X = upload<floatX>(x);
        hessian_add(H.data, X.data, T, I);
        hessian_add(H.data, X.data, T, I);
        const Floats h = download(H);
        for (auto [i, j] : entries(I, I)) {
            if (j < i) continue;
            const Exact exact = exact_sum(&x[i], I, &x[j], I, T);
            const double expected = before[(size_t)i * I + j] + 2 * exact.sum;
            const double last_adds = 2 * FLOAT_UNIT * (1 + 2 * std::fabs(exact.sum));
            CHECK_NEAR(h[(size_t)i * I + j], expected, 2 * exact.tolerance + last_adds);
        }
    }
}

// A chunk of eight samples whose first tokens are a thousand times as large in two channels: what a sum as long as this loses must stay far
// below the damping, a hundredth of the diagonal's mean. (A GPU's tensor cores may cut off, not round, what they add to a large sum.)
TEST_ON_EVERY_PRODUCT(hessian_of_many_tokens) {
    const int T = 16384, I = 24;
    Floats x = random_values((size_t)T * I, 9);
    for (int t = 0; t < T; t += 2048) x[(size_t)t * I] = 3008, x[(size_t)t * I + 1] = 2112;
    Array<float> H(I * I, "hessian"), D(I * I, "cross product");
    fill_zero(H.data, I * I), fill_zero(D.data, I * I);
    Array<floatX> X = upload<floatX>(x);
    hessian_add(H.data, X.data, T, I);
    cross_add(D.data, X.data, X.data, T, I);
    const Floats h = download(H), d = download(D);
    const auto exact = [&](int i, int j) { return exact_sum(&x[i], I, &x[j], I, T).sum; };
    for (int i = 0; i < I; i++)
        for (int j = 0; j < I; j++) {
            const double tolerance = 2e-4 * std::sqrt(exact(i, i) * exact(j, j));
            if (j >= i) CHECK_NEAR(h[i * I + j], exact(i, j), tolerance);
            CHECK_NEAR(d[i * I + j], exact(i, j), tolerance);
        }
}

TEST(cross_add) {
    for (Size s : {Size{0, 1, 1}, {0, 5, 1}, {0, 33, 17}, {0, 64, 200}, {0, 129, 385}, {0, 1000, 77}, {0, 1100, 500}}) {
        const int I = s.N, T = s.K;
        const Floats x = random_values((size_t)T * I, 21), y = random_values((size_t)T * I, 22);
        const Floats before = random_values((size_t)I * I, 23);
        Array<float> D = upload<float>(before);
        Array<floatX> X = upload<floatX>(x), Y = upload<floatX>(y);
        cross_add(D.data, Y.data, X.data, T, I);
        cross_add(D.data, Y.data, X.data, T, I);
        const Floats d = download(D);
        for (auto [i, j] : entries(I, I)) {
            const Exact exact = exact_sum(&y[i], I, &x[j], I, T);
            const double expected = before[(size_t)i * I + j] + 2 * exact.sum;
            const double last_adds = 2 * FLOAT_UNIT * (1 + 2 * std::fabs(exact.sum));
            CHECK_NEAR(d[(size_t)i * I + j], expected, 2 * exact.tolerance + last_adds);
        }
    }
}

TEST(gemm_float_takes_a_transposed_factor) {
    for (Size s : {Size{1, 1, 1}, {17, 33, 129}, {64, 200, 128}, {3, 700, 1}, {300, 1100, 700}}) {
        const int ldb = s.K + 3;
        const Floats a = random_values((size_t)s.M * s.K, 24), b = random_values((size_t)s.N * ldb, 25);
        Array<float> C = upload<float>(poison((size_t)s.M * s.N)), A = upload<float>(a), B = upload<float>(b);
        gemm_float(C.data, s.N, A.data, s.K, B.data, ldb, s.M, s.N, s.K, 2, 0, true);
        const Floats c = download(C);
        for (auto [i, j] : entries(s.M, s.N)) {
            const Exact exact = exact_sum(&a[(size_t)i * s.K], 1, &b[(size_t)j * ldb], 1, s.K);
            CHECK_NEAR(c[(size_t)i * s.N + j], 2 * exact.sum, 2 * exact.tolerance + 4 * FLOAT_UNIT * std::fabs(exact.sum));
        }
    }
}

TEST(gemm_float) {
    struct Case {
        Size size;
        int gap_c, gap_a, gap_b;  // leading dimension minus width
        float alpha, beta;
    };
    for (Case t : {Case{{1, 1, 1}, 0, 0, 0, 1, 0},
                   {{17, 33, 129}, 3, 5, 7, 1, 1},
                   {{17, 33, 129}, 0, 0, 0, -1, 1},
                   {{64, 200, 128}, 56, 0, 56, -1, 1},
                   {{3, 700, 1}, 1, 0, 0, 0.5f, 0},
                   {{1, 40, 300}, 0, 9, 2, 2, -0.25f},
                   {{40, 1, 300}, 6, 1, 0, 1, 0},
                   {{300, 1100, 700}, 0, 4, 1, -1, 1},
                   {{170, 530, 2000}, 2, 2, 2, 3, 0}}) {
        const Size s = t.size;
        const int ldc = s.N + t.gap_c, lda = s.K + t.gap_a, ldb = s.N + t.gap_b;
        Floats a = random_values((size_t)s.M * lda, 9), b = random_values((size_t)s.K * ldb, 10);
        Floats before = t.beta == 0 ? poison((size_t)s.M * ldc) : random_values((size_t)s.M * ldc, 11);
        for (int i = 0; i < s.M; i++)
            for (int j = s.K; j < lda; j++) a[(size_t)i * lda + j] = NAN;  // the gaps must not be read
        for (int i = 0; i < s.K; i++)
            for (int j = s.N; j < ldb; j++) b[(size_t)i * ldb + j] = NAN;
        for (int i = 0; i < s.M; i++)
            for (int j = s.N; j < ldc; j++) before[(size_t)i * ldc + j] = (float)(i + j);  // nor written
        Array<float> C = upload<float>(before), A = upload<float>(a), B = upload<float>(b);
        gemm_float(C.data, ldc, A.data, lda, B.data, ldb, s.M, s.N, s.K, t.alpha, t.beta);
        const Floats c = download(C);
        for (int i = 0; i < s.M; i++)
            for (int j = s.N; j < ldc; j++) CHECK_EQ(c[(size_t)i * ldc + j], (float)(i + j));
        for (auto [i, j] : entries(s.M, s.N)) {
            const Exact exact = exact_sum(&a[(size_t)i * lda], 1, &b[j], ldb, s.K);
            const double old = t.beta == 0 ? 0 : t.beta * (double)before[(size_t)i * ldc + j];
            const double expected = t.alpha * exact.sum + old, scale = std::fabs(t.alpha);
            CHECK_NEAR(c[(size_t)i * ldc + j], expected,
                       scale * exact.tolerance + 2 * FLOAT_UNIT * (scale * std::fabs(exact.sum) + std::fabs(old)));
        }
    }
}

// Float products are no TF32 products: 1 + 2^-20 would lose its last bits.
TEST(gemm_float_is_not_tf32) {
    const int n = 64;
    const float x = 1 + std::ldexp(1.0f, -20);
    Floats a((size_t)n * n, 0), b = random_values((size_t)n * n, 12);
    for (int i = 0; i < n; i++) a[(size_t)i * n + i] = x;
    Array<float> C = upload<float>(poison((size_t)n * n)), A = upload<float>(a), B = upload<float>(b);
    gemm_float(C.data, n, A.data, n, B.data, n, n, n, n, 1, 0);
    const Floats c = download(C);
    for (size_t e = 0; e < c.size(); e++) CHECK_EQ(c[e], x * b[e]);
}

TEST_ON_EVERY_PRODUCT(a_size_of_zero_is_no_work) {
    Array<floatX> X = upload<floatX>(Floats(4, 3));
    Array<float> F = upload<float>(Floats(4, 3));
    for (Size s : {Size{0, 2, 2}, {2, 0, 2}, {2, 2, 0}}) {
        gemm(X.data, X.data, X.data, s.M, s.N, s.K);
        gemm_logits(F.data, X.data, X.data, s.M, s.N, s.K);
        gemm_float(F.data, 2, F.data, 2, F.data, 2, s.M, s.N, s.K, 1, 0);
        if (s.M == 0 || s.N == 0) hessian_add(F.data, X.data, s.M, s.N), cross_add(F.data, X.data, X.data, s.M, s.N);
    }
    for (float x : download(X)) CHECK_EQ(x, 3);
    for (float x : download(F)) CHECK_EQ(x, 3);
}

// C's factors are finite but for one bad value, which makes bad_product of an element that it belongs to.
static bool as_it_should_be(float found, bool belongs, double bad_product) {
    if (!belongs) return std::isfinite(found);
    return std::isnan(bad_product) ? std::isnan(found) : found == bad_product;  // Inf outweighs all other products
}

// A NaN or an Inf reaches its row (from A) or its column (from B) of C and nothing else, at every edge of the padding.
TEST_ON_EVERY_PRODUCT(nan_and_inf_go_where_they_belong) {
    for (Size s : {Size{17, 33, 129}, {15, 31, 193}, {3, 5, 1}, {169, 513, 33}}) {
        const Floats a = random_values((size_t)s.M * s.K, 13), b = random_values((size_t)s.N * s.K, 14);
        for (double bad : {(double)NAN, (double)INFINITY, -(double)INFINITY}) {
            for (int row : {0, s.M / 2, s.M - 1}) {
                Floats poisoned = a;
                poisoned[(size_t)row * s.K + s.K - 1] = (float)bad;
                const Floats c = linear<floatX>(gemm, poisoned, b, s);
                for (int i = 0; i < s.M; i++)
                    for (int j = 0; j < s.N; j++)
                        CHECK(as_it_should_be(c[(size_t)i * s.N + j], i == row, bad * b[(size_t)j * s.K + s.K - 1]));
            }
            for (int column : {0, s.N / 2, s.N - 1}) {
                Floats poisoned = b;
                poisoned[(size_t)column * s.K] = (float)bad;
                const Floats c = linear<floatX>(gemm, a, poisoned, s);
                for (int i = 0; i < s.M; i++)
                    for (int j = 0; j < s.N; j++)
                        CHECK(as_it_should_be(c[(size_t)i * s.N + j], j == column, bad * a[(size_t)i * s.K]));
            }
        }
    }
}

TEST_ON_EVERY_PRODUCT(nan_in_the_hessian) {
    const int I = 70, T = 33;
    Floats x = random_values((size_t)T * I, 15);
    x[(size_t)(T - 1) * I + 40] = NAN;
    Array<float> H = upload<float>(Floats((size_t)I * I, 0));
    Array<floatX> X = upload<floatX>(x);
    hessian_add(H.data, X.data, T, I);
    const Floats h = download(H);
    for (int i = 0; i < I; i++)
        for (int j = i; j < I; j++) CHECK(std::isnan(h[(size_t)i * I + j]) == (i == 40 || j == 40));
}

// All products in one run, for the tests below.
static std::vector<Floats> all_products(int M, int N, int K) {
    const Size s = {M, N, K};
    const Floats a = random_values((size_t)M * K, 16), b = random_values((size_t)N * K, 17);
    Array<float> H = upload<float>(Floats((size_t)K * K, 0)), D = upload<float>(Floats((size_t)K * K, 0));
    Array<float> C = upload<float>(poison((size_t)M * N));
    Array<float> A = upload<float>(a), B = upload<float>(b);
    Array<floatX> X = upload<floatX>(a);
    hessian_add(H.data, X.data, M, K);
    cross_add(D.data, upload<floatX>(random_values((size_t)M * K, 18)).data, X.data, M, K);
    gemm_float(C.data, N, A.data, K, B.data, N, M, N, K, -1, 0);
    return {linear<floatX>(gemm, a, b, s), linear<float>(gemm_logits, a, b, s), download(H), download(D), download(C)};
}

TEST_ON_EVERY_PRODUCT(two_runs_give_the_same_bytes) {
    const int part = traps_for_tiles() ? 4 : 1;
    const auto first = all_products(200 / part, 1000 / part, 700 / part), second = all_products(200 / part, 1000 / part, 700 / part);
    for (size_t p = 0; p < first.size(); p++) CHECK(same_bytes(first[p], second[p]));
}

#ifndef __CUDACC__
TEST_ON_EVERY_PRODUCT(threads_do_not_change_a_byte) {
    const int threads = omp_get_max_threads(), part = traps_for_tiles() ? 4 : 1;
    std::vector<std::vector<Floats>> results;
    for (int n : {1, 2, 3, 16}) {
        omp_set_num_threads(n);
        results.push_back(all_products(350 / part, 1100 / part, 500 / part));
    }
    omp_set_num_threads(threads);
    for (size_t n = 1; n < results.size(); n++)
        for (size_t p = 0; p < results[0].size(); p++) CHECK(same_bytes(results[0][p], results[n][p]));
}
#endif

#if !defined(__CUDACC__) && !defined(PRECISION_FP32)
// Bits of a float: its tile's words, ready for loads and stores.
typedef std::vector<uint32_t> Words32;

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static float flushed(float x) { return std::fabs(x) < std::ldexp(1.0f, -126) ? std::copysign(0.0f, x) : x; }

// TDPBF16PS as Intel's manual states it, a sum at a time. A long double's 64 bits are more than twice a float's: rounded to those
// first, a sum rounds to the same float.
static float defined_dot(uint32_t c, const uint32_t* a, const uint32_t* b /*every 16th*/) {
    volatile float sums[2] = {0, 0};  // volatile: the compiler keeps the order
    for (int k = 0; k < 16; k++)
        for (int half = 0; half < 2; half++) {
            const int shift = half ? 0 : 16;
            const float x = flushed(float_of(a[k] << shift & 0xffff0000)), y = flushed(float_of(b[16 * k] << shift & 0xffff0000));
            const volatile long double exact = (long double)x * y + sums[half];
            sums[half] = flushed((float)exact);
        }
    volatile float both = sums[0] + sums[1];
    both = flushed(both);
    volatile float sum = flushed(float_of(c)) + both;
    return flushed(sum);
}

static bool same_float(float x, float y) { return std::isnan(x) ? std::isnan(y) : x == y; }

// Words whose bf16 halves are drawn from a range of exponents; in one of `rare` of them any bits at all: denormals, Inf, NaN too.
static Words32 random_words(std::mt19937& random, size_t n, int lowest, int highest, int rare) {
    Words32 words(n);
    for (uint32_t& w : words) {
        w = 0;
        for (int half = 0; half < 2; half++) {
            const uint32_t exponent = lowest + random() % (highest - lowest + 1), rest = random();
            w = w << 16 | (rare && random() % rare == 0 ? rest & 0xffff : (rest & 0x807f) | exponent << 7);
        }
    }
    return words;
}

static Words32 tile_dot_of(const Words32& c, const Words32& a, const Words32& b, bool real) {
    Words32 result(256);
    const auto run = [&](auto kind) {
        constexpr bool REAL = decltype(kind)::value;
        tiles_begin<REAL>();
        tile_load<REAL, 0>(c.data(), 64), tile_load<REAL, 1>(a.data(), 64), tile_load<REAL, 2>(b.data(), 64);
        tile_dot<REAL, 0, 1, 2>();
        tile_store<REAL, 0>(result.data(), 64);
        tiles_end<REAL>();
    };
    if (real) run(std::true_type());
    else run(std::false_type());
    return result;
}

static void check_tile_dot(bool real) {
    std::mt19937 random(18);
    const int ranges[][2] = {{120, 134}, {127, 127}, {0, 10}, {50, 70}, {55, 72}, {0, 254}, {180, 200}, {244, 254}};
    for (auto [lowest, highest] : ranges)
        for (int rare : {0, 1, 20, 1000})
            for (int repeat = 0; repeat < 8; repeat++) {
                Words32 a = random_words(random, 256, lowest, highest, rare), b = random_words(random, 256, lowest, highest, rare);
                Words32 c =
                    random_words(random, 256, std::max(0, 2 * lowest - 127), std::min(254, std::max(0, 2 * highest - 127)), rare);
                if (repeat % 4 == 0) a[random() % 256] = 0x7fc00001, b[random() % 256] = 0xff803f80, c[random() % 256] = 0x00400000;
                if (repeat % 4 == 1)  // cancellation down to denormals
                    for (int i = 0; i < 256; i++)
                        a[i] = (a[i] & 0xffff) | ((a[i] & 0xffff) ^ 0x8000) << 16, b[i] = (b[i] & 0xffff) * 0x10001;
                const Words32 d = tile_dot_of(c, a, b, real);
                for (int m = 0; m < 16; m++)
                    for (int n = 0; n < 16; n++) {
                        const float expected = defined_dot(c[16 * m + n], &a[16 * m], &b[n]), found = float_of(d[16 * m + n]);
                        if (same_float(found, expected)) continue;
                        fail("exponents %d to %d, sum %d %d is %.9g, expected %.9g", lowest, highest, m, n, found, expected);
                    }
            }
}

TEST(the_loops_in_place_of_tiles_are_the_instruction) { check_tile_dot(false); }

TEST(the_tiles_are_as_the_manual_says) {
    if (tile_support() != TileSupport::Granted && !trap_tiles()) SKIP("no AMX here");
    check_tile_dot(true);
}

// Sums that a float can't hold between the two products of a pair, or that a product passes through: one rounding, not two.
static void check_fused_tile(bool real) {
    Words32 a(256, 0), b(256, 0), c(256, 0);
    const auto pair = [](float even, float odd) { return to_bf16(even).bits | (uint32_t)to_bf16(odd).bits << 16; };
    // 2^100 2^100 overflows; with -2^127 already there, 2^64 2^64 = 2^128 doesn't.
    a[0] = pair(-std::ldexp(1.0f, 63), 1), b[0] = pair(std::ldexp(1.0f, 64), 2);
    a[1] = pair(std::ldexp(1.0f, 64), 0), b[16] = pair(std::ldexp(1.0f, 64), 0);
    CHECK_EQ(float_of(tile_dot_of(c, a, b, real)[0]), std::ldexp(1.0f, 127));
    // Even and odd have sums of their own, each from 0 on: 2^30 + 1 - 2^30 is 0 among the even, and 1 + 2^-20 stays among the odd.
    a.assign(256, 0), b.assign(256, 0);
    a[0] = pair(std::ldexp(1.0f, 30), 1), a[1] = pair(1, std::ldexp(1.0f, -20)), a[2] = pair(-std::ldexp(1.0f, 30), 0);
    b[0] = b[16] = b[32] = pair(1, 1);
    CHECK_EQ(float_of(tile_dot_of(c, a, b, real)[0]), 1 + std::ldexp(1.0f, -20));
}
TEST(the_loops_in_place_of_tiles_fuse_their_multiply_adds) { check_fused_tile(false); }
TEST(a_tile_fuses_its_multiply_adds) {
    if (tile_support() != TileSupport::Granted && !trap_tiles()) SKIP("no AMX here");
    check_fused_tile(true);
}

// By what Linux says of the CPU: where it names no tiles, vdpbf16ps is for those it doesn't slow down.
TEST(vdpbf16ps_is_not_for_intel_since_sapphire_rapids) {
    std::ifstream file("/proc/cpuinfo");
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    const auto says = [&](const char* word) { return text.find(word) != std::string::npos; };
    if (!says("vendor_id") || says("amx_bf16")) SKIP("a CPU with tiles, or not x86-64");
    const bool slow = says("GenuineIntel") && says("avx512_fp16");
    CHECK_EQ(slow_pairs(), slow);
#ifdef BF16_PAIRS
    CHECK(bf16_product() == (slow ? Bf16Product::Widened : Bf16Product::Pairs));
#else
    CHECK(bf16_product() == Bf16Product::Widened);
#endif
}

// A CPU without tiles or a kernel that refuses them leaves another way, and the device line says which.
TEST(the_device_line_says_which_product) {
    const std::string name = device_name(), text = bf16_product_text();
    CHECK(name.size() > text.size() && name.compare(name.size() - text.size(), text.size(), text) == 0);
    CHECK_EQ(tiles_used(), tile_support() == TileSupport::Granted);
    if (bf16_product() == Bf16Product::Widened && tile_support() == TileSupport::Refused)
        CHECK(name.find("refused by the kernel") != std::string::npos);
}
#endif
