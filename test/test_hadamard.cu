// cuda/hadamard.cuh against the definitions, in integers and float64: Paley's matrices from Euler's criterion, Williamson's from its rows,
// Kronecker products written out, and the transform against the product with the matrix.
#include <random>
#include <vector>
#include "../cuda/hadamard.cuh"
#include "test.h"

typedef std::vector<int> Signs;  // [n, n]

static int power_mod(long long a, int e, int q) {
    long long r = 1;
    for (; e; e /= 2, a = a * a % q)
        if (e % 2) r = r * a % q;
    return (int)r;
}

// chi(a) by Euler's criterion: a^((q - 1) / 2) is 1 for squares and -1 for the others.
static int chi(int a, int q) {
    a = ((a % q) + q) % q;
    return a == 0 ? 0 : power_mod(a, (q - 1) / 2, q) == 1 ? 1 : -1;
}

static Signs kronecker(const Signs& a, int m, const Signs& b, int n) {
    Signs c((size_t)m * n * m * n);
    for (int i = 0; i < m * n; i++)
        for (int j = 0; j < m * n; j++) c[(size_t)i * m * n + j] = a[i / n * m + j / n] * b[i % n * n + j % n];
    return c;
}

// [[0, 1], [corner, Q]]
static Signs bordered(int q, int corner) {
    Signs s((size_t)(q + 1) * (q + 1), 0);
    for (int i = 1; i <= q; i++) {
        s[i] = 1, s[(size_t)i * (q + 1)] = corner;
        for (int j = 1; j <= q; j++) s[(size_t)i * (q + 1) + j] = chi(i - j, q);
    }
    return s;
}

static Signs paley_one(int q) {
    Signs s = bordered(q, -1);
    for (int i = 0; i <= q; i++) s[(size_t)i * (q + 2)] += 1;
    return s;
}

static Signs paley_two(int q) {
    Signs identity((size_t)(q + 1) * (q + 1), 0);
    for (int i = 0; i <= q; i++) identity[(size_t)i * (q + 2)] = 1;
    Signs a = kronecker(bordered(q, 1), q + 1, {1, 1, 1, -1}, 2), b = kronecker(identity, q + 1, {1, -1, -1, -1}, 2);
    for (size_t i = 0; i < a.size(); i++) a[i] += b[i];
    return a;
}

// Williamson's matrix from four first rows and the definition of a circulant, the blocks as in his paper.
static Signs williamson() {
    const char* rows[4] = {
        "++-+--++-+++----+++-++++-+++----+++-++--+-+",
        "+--++----+-+---+--++++++++--+---+-+----++--",
        "+--+++--+-+--+-+++++-++-+++++-+--+-+--+++--",
        "+-+-+----++++-++++-++--++-++++-++++----+-+-"};
    const int at[4][4] = {{+1, +2, +3, +4}, {-2, +1, -4, +3}, {-3, +4, +1, -2}, {-4, -3, +2, +1}};
    Signs h((size_t)172 * 172);
    for (int block_row = 0; block_row < 4; block_row++)
        for (int block = 0; block < 4; block++)
            for (int i = 0; i < 43; i++)
                for (int k = 0; k < 43; k++) {
                    const int which = at[block_row][block];
                    const int value = rows[std::abs(which) - 1][k] == '+' ? 1 : -1;
                    h[(size_t)(43 * block_row + i) * 172 + 43 * block + (i + k) % 43] = which > 0 ? value : -value;
                }
    return h;
}

static Signs base(int m) {
    if (m == 172) return williamson();
    return m == 76 ? paley_two(37) : m == 28 ? paley_two(13) : m == 36 ? paley_two(17) : paley_one(m - 1);
}

static bool is_hadamard(const Signs& h, int n) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            int dot = 0;
            for (int k = 0; k < n; k++) dot += h[(size_t)i * n + k] * h[(size_t)j * n + k];
            if (dot != (i == j ? n : 0)) return false;
        }
    return true;
}

struct Size {
    int n;
    std::vector<int> orders;
    int two;
};

// Every official width, the numbers of heads, and the bundled model's and Qwen2.5's; factors as in the literature's table.
static const std::vector<Size> SIZES = {
    {128, {}, 128},    {1024, {}, 1024},  {2048, {}, 2048},  {4096, {}, 4096},    {2560, {20}, 128},  {5120, {20}, 256},
    {3072, {12}, 256}, {6144, {12}, 512}, {9728, {76}, 128}, {12288, {12}, 1024}, {17408, {68}, 256}, {25600, {20, 20}, 64},
    {16, {}, 16},      {32, {}, 32},      {64, {}, 64},      {40, {20}, 2},       {256, {}, 256},     {512, {}, 512},
    {8192, {}, 8192},  {896, {28}, 32},   {1, {}, 1},        {2, {}, 2},          {4, {}, 4},         {12, {12}, 1},
    {20, {20}, 1},     {24, {12}, 2},     {36, {36}, 1},     {80, {20}, 4},       {152, {76}, 2},     {144, {12, 12}, 1},
    {164, {164}, 1},   {172, {172}, 1},
    {11008, {172}, 64}};

// The whole matrix, rows times columns as the index order says: H_m1 (x) H_m2 (x) W.
static Signs dense(const Size& s) {
    Signs h = {1};
    int n = 1;
    for (int m : s.orders) h = kronecker(h, n, base(m), m), n *= m;
    for (int two = s.two; two > 1; two /= 2) h = kronecker(h, n, {1, 1, 1, -1}, 2), n *= 2;
    return h;
}

TEST(the_factors_of_every_size) {
    for (const Size& s : SIZES) {
        const HadamardFactors f = hadamard_factors(s.n);
        CHECK_EQ(f.two, s.two);
        CHECK(f.orders == s.orders);
    }
    CHECK_EQ(hadamard_factors(25600).cost, 46);
}

TEST(paleys_and_williamsons_matrices_are_hadamard_and_what_the_definition_says) {
    for (int m : {12, 20, 24, 28, 36, 68, 76, 148, 164, 168}) {
        const std::vector<float> found = paley_matrix(m);
        Signs h(found.begin(), found.end());
        if (m == 12 || m == 20 || m == 24 || m == 28 || m == 36 || m == 68 || m == 76) CHECK(h == base(m));
        for (int x : h) CHECK(x == 1 || x == -1);
        CHECK(is_hadamard(h, m));
    }
    const std::vector<float> found = williamson_matrix();
    CHECK(Signs(found.begin(), found.end()) == williamson());
}

// Small ones whole; of the large ones each factor, and then (A (x) B)(A (x) B)^T = A A^T (x) B B^T.
TEST(every_size_has_a_hadamard_matrix) {
    for (const Size& s : SIZES)
        if (s.n <= 512) CHECK(is_hadamard(dense(s), s.n));
        else
            for (int m : s.orders) CHECK(is_hadamard(base(m), m));
}

static Array<float> to_device_float(const std::vector<double>& x) {
    std::vector<float> host(x.begin(), x.end());
    Array<float> a(x.size(), "test");
    copy(a.data, host.data(), host.size());
    return a;
}

static std::vector<float> from_device(const Array<float>& a) {
    std::vector<float> host(a.n);
    copy(host.data(), a.data, a.n);
    return host;
}

// x H^T / sqrt(n), or x H / sqrt(n), of one row in float64, from the factors: entry (r, c) is a product of the factors' entries.
static std::vector<double> product(const Size& s, const std::vector<double>& x, bool inverse) {
    std::vector<double> y = x;
    int stride = s.n;
    std::vector<std::pair<Signs, int>> factors;
    for (int m : s.orders) factors.push_back({base(m), m});
    for (int two = s.two; two > 1; two /= 2) factors.push_back({{1, 1, 1, -1}, 2});
    for (const auto& f : factors) {
        const int m = f.second;
        stride /= m;
        std::vector<double> z(s.n, 0);
        for (int i = 0; i < s.n; i++) {
            const int r = i / stride % m, first = i - r * stride;
            for (int c = 0; c < m; c++) z[i] += (inverse ? f.first[c * m + r] : f.first[r * m + c]) * y[first + c * stride];
        }
        y = z;
    }
    for (double& v : y) v /= std::sqrt((double)s.n);
    return y;
}

static std::vector<double> random_values(size_t n, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<double> x(n);
    for (double& v : x) v = to_float(to_floatX(normal(random)));
    return x;
}

TEST(the_transform_is_the_product_with_the_matrix) {
    for (const Size& s : SIZES)
        for (bool inverse : {false, true}) {
            if (s.n > hadamard_max()) continue;  // a GPU's shared memory
            const int rows = s.n > 4096 ? 2 : 5;
            const std::vector<double> x = random_values((size_t)rows * s.n, s.n);
            Array<float> d = to_device_float(x);
            hadamard_rows(d.data, rows, s.n, 1, hadamard_make(s.n, "n"), inverse);
            const std::vector<float> found = from_device(d);
            for (int r = 0; r < rows; r++) {
                const std::vector<double> row(x.begin() + (size_t)r * s.n, x.begin() + (size_t)(r + 1) * s.n);
                std::vector<double> expected = product(s, row, inverse);
                if (s.n <= 512) {  // against the whole matrix too
                    const Signs h = dense(s);
                    for (int i = 0; i < s.n; i++) {
                        double sum = 0;
                        for (int j = 0; j < s.n; j++) sum += (inverse ? h[(size_t)j * s.n + i] : h[(size_t)i * s.n + j]) * row[j];
                        CHECK_NEAR(sum / std::sqrt((double)s.n), expected[i], 1e-12);
                    }
                }
                for (int i = 0; i < s.n; i++) CHECK_NEAR(found[(size_t)r * s.n + i], expected[i], 4e-6);
            }
        }
}

TEST(signs_and_the_inverse_undo_each_other) {
    for (int n : {12, 128, 2560, 9728}) {
        const std::vector<double> x = random_values((size_t)3 * n, 1), s = random_values(n, 2);
        std::vector<double> signs;
        for (double v : s) signs.push_back(v < 0 ? -1 : 1);
        Array<float> d = to_device_float(x), signs_d = to_device_float(signs);
        const Hadamard h = hadamard_make(n, "n");
        hadamard_rows(d.data, 3, n, 1, h, false, signs_d.data);
        std::vector<double> expected(n);
        for (int i = 0; i < n; i++) expected[i] = x[i] * signs[i];
        expected = product({n, h.factors.orders, h.factors.two}, expected, false);
        for (int i = 0; i < n; i++) CHECK_NEAR(from_device(d)[i], expected[i], 4e-6);
        hadamard_rows(d.data, 3, n, 1, h, true, nullptr, signs_d.data);
        for (size_t i = 0; i < x.size(); i++) CHECK_NEAR(from_device(d)[i], x[i], 8e-6);
    }
}

// Pieces of rows, rows that lie further apart than they are long, and storage in floatX, rounded once.
TEST(pieces_of_rows) {
    const int rows = 3, per_row = 5, n = 40, ld = 233;
    const std::vector<double> x = random_values((size_t)rows * ld, 3);
    Array<floatX> d(x.size(), "test");
    std::vector<floatX> host;
    for (double v : x) host.push_back(to_floatX((float)v));
    copy(d.data, host.data(), host.size());
    hadamard_rows(d.data, rows, ld, per_row, hadamard_make(n, "n"));
    copy(host.data(), d.data, host.size());
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < ld; i++) {
            const size_t at = (size_t)r * ld + i;
            if (i >= per_row * n) {
                CHECK_EQ(to_float(host[at]), (float)x[at]);
                continue;
            }
            const size_t piece = (size_t)r * ld + i / n * n;
            const double y = product({n, {20}, 2}, std::vector<double>(x.begin() + piece, x.begin() + piece + n), false)[i % n];
            CHECK_NEAR(to_float(host[at]), y, sizeof(floatX) == 4 ? 4e-6 : std::fabs(y) / 256 + 4e-6);
        }
}

// H over the heads, the values of a head left alone: H (x) I.
TEST(a_transform_over_heads) {
    for (int heads : {16, 32, 40, 6 * 2, 64})
        for (int D : {8, 24, 128}) {
            const int n = heads * D;
            const std::vector<double> x = random_values((size_t)2 * n, heads);
            Array<float> d = to_device_float(x);
            const Hadamard h = hadamard_make(n, "heads", D);
            hadamard_rows(d.data, 2, n, 1, h);
            const std::vector<float> found = from_device(d);
            for (int r = 0; r < 2; r++)
                for (int i = 0; i < D; i++) {
                    std::vector<double> column(heads);
                    for (int k = 0; k < heads; k++) column[k] = x[(size_t)r * n + k * D + i];
                    const std::vector<double> y = product({heads, h.factors.orders, h.factors.two}, column, false);
                    for (int k = 0; k < heads; k++) CHECK_NEAR(found[(size_t)r * n + k * D + i], y[k], 4e-6);
                }
        }
}

TEST(what_does_not_factor_is_refused_by_name) {
    CHECK_ERROR(hadamard_make(47 * 64, "intermediate_size"),
                "intermediate_size = 3008: no Hadamard matrix of order 3008 is a product of Paley's, Williamson's (orders up to 172) and "
                "Sylvester's. HINT: another width");
    CHECK_ERROR(hadamard_make(14 * 64, "heads", 64, "--rotate-only without heads"), "HINT: --rotate-only without heads");
    CHECK_ERROR(hadamard_make(65536, "hidden_size", 1, "--rotate-block 8192"), "HINT: --rotate-block 8192");
    CHECK_EQ(hadamard_block(9728), 9728);
    CHECK_EQ(hadamard_block(47 * 64), 64);
    CHECK_EQ(hadamard_block(65536), hadamard_max() < 32768 ? 16384 : 32768);
}

TEST(the_same_bytes_twice_whatever_the_threads) {
    const std::vector<double> x = random_values((size_t)9 * 5120, 7);
    const Hadamard h = hadamard_make(5120, "n");
    Array<float> a = to_device_float(x), b = to_device_float(x);
    hadamard_rows(a.data, 9, 5120, 1, h);
#ifndef __CUDACC__
    const int threads = omp_get_max_threads();
    omp_set_num_threads(3);
#endif
    hadamard_rows(b.data, 9, 5120, 1, h);
#ifndef __CUDACC__
    omp_set_num_threads(threads);
#endif
    CHECK(from_device(a) == from_device(b));
}
