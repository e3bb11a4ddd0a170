// cuda/flow_grid.cuh against its definition, written out value by value in loops of their own.
#include <cfloat>
#include <random>
#include <vector>
#include "../cuda/flow_grid.cuh"
#include "test.h"

typedef std::vector<float> Values;

static Values rounded(Values x) {
    for (float& v : x) v = to_float(to_floatX(v));
    return x;
}

static Values apply(const Values& x, int rows, size_t ld, int I, const FlowGrid& g) {
    std::vector<floatX> host;
    for (float v : x) host.push_back(to_floatX(v));
    Array<floatX> d(x.size(), "test");
    copy(d.data, host.data(), host.size());
    flow_grid_apply(d.data, rows, ld, I, g);
    copy(host.data(), d.data, host.size());
    Values y;
    for (floatX v : host) y.push_back(to_float(v));
    return y;
}

// The values of one grid. Float arithmetic where the definition's own is float32: scales and quotients, so that a code does not hang
// on the last bit.
static Values expected(const Values& x, const FlowGrid& g) {
    float lo = x[0], hi = x[0];
    for (float v : x) lo = std::min(lo, v), hi = std::max(hi, v);
    Values y;
    if (g.sym) {
        const float scale = g.clip * std::max({std::fabs(lo), std::fabs(hi), 1e-5f}) / (float)((1 << (g.bits - 1)) - 1);
        for (float v : x) {
            const double q = std::clamp<double>(std::nearbyint(v / scale), -(1 << (g.bits - 1)), (1 << (g.bits - 1)) - 1);
            y.push_back((float)(scale * q));
        }
        return y;
    }
    if (g.zero || lo == hi) lo = std::min(lo, 0.0f), hi = std::max(hi, 0.0f);
    lo *= g.clip, hi *= g.clip;
    if (lo == 0 && hi == 0) lo = -1, hi = 1;
    const float scale = (hi - lo) / (float)((1 << g.bits) - 1);
    const double zero = std::nearbyint(-lo / scale);
    for (float v : x) {
        const double q = std::clamp<double>(std::nearbyint(v / scale) + zero, 0, (1 << g.bits) - 1);
        y.push_back((float)(scale * (q - zero)));
    }
    return y;
}

static void check(const Values& found, const Values& want, const Values& x) {
    float most = 0;
    for (float v : x) most = std::max(most, std::fabs(v));
    for (size_t i = 0; i < want.size(); i++)
        CHECK_NEAR(found[i], to_float(to_floatX(want[i])),
                   (sizeof(floatX) == 4 ? 1e-6 : 1e-7) * most + std::fabs(want[i]) / (sizeof(floatX) == 4 ? 1e6 : 250));
}

// Rows of every kind: with outliers, of zeros, of one sign, constant, of values that differ a little.
static Values rows_of_all_kinds(int rows, int I, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    Values x;
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < I; i++) {
            const float v = normal(random) * (i % 7 == 3 ? 30 : 1);
            x.push_back(r % 7 == 1   ? 0
                        : r % 7 == 2 ? std::fabs(v) + 1
                        : r % 7 == 3 ? -std::fabs(v) - 1
                        : r % 7 == 4 ? 2.5f
                        : r % 7 == 5 ? -1.25f
                                     : v);
        }
    return rounded(x);
}

static FlowGrid grid(int bits, bool sym, float clip = 1, int group = -1, bool zero = true) {
    FlowGrid g;
    g.bits = bits, g.sym = sym, g.clip = clip, g.group = group, g.zero = zero;
    return g;
}

TEST(grids_of_rows_and_groups) {
    const int rows = 14;
    for (int bits : {2, 3, 4, 8})
        for (bool sym : {true, false})
            for (bool zero : {true, false})
                for (float clip : {1.0f, 0.9f, 0.5f})
                    for (int I : {1, 33, 512})
                        for (int group : {-1, I % 32 == 0 ? 32 : 1}) {
                            const Values x = rows_of_all_kinds(rows, I, bits + I);
                            const FlowGrid g = grid(bits, sym, clip, group, zero);
                            const Values found = apply(x, rows, I, I, g);
                            const int G = group == -1 ? I : group;
                            for (int first = 0; first < rows * I; first += G) {
                                const Values part(x.begin() + first, x.begin() + first + G);
                                check(Values(found.begin() + first, found.begin() + first + G), expected(part, g), part);
                            }
                        }
}

// What the program did before there was a description of a grid: scale = max(max |x|, 1e-5) / qmax, x = round(x / scale) scale.
TEST(the_symmetric_grid_without_a_clip_is_smoothquants) {
    for (int bits : {4, 8})
        for (int I : {1, 33, 512}) {
            const int rows = 14;
            const Values x = rows_of_all_kinds(rows, I, I), found = apply(x, rows, I, I, grid(bits, true));
            for (int r = 0; r < rows; r++) {
                float most = 1e-5f;
                for (int i = 0; i < I; i++) most = std::max(most, std::fabs(x[r * I + i]));
                const float scale = most / (float)((1 << (bits - 1)) - 1);
                for (int i = 0; i < I; i++) CHECK_EQ(found[r * I + i], to_float(to_floatX(rintf(x[r * I + i] / scale) * scale)));
            }
        }
}

TEST(what_a_grid_must_hold) {
    // A constant is held exactly, 0 too, whatever the sign and whether or not the grid must hold the 0.
    for (bool zero : {true, false})
        for (float c : {0.0f, 3.0f, -3.0f}) CHECK(apply(Values(8, c), 1, 8, 8, grid(4, false, 1, -1, zero)) == Values(8, c));
    // One sign, far from 0: without the 0 the grid is 15 times finer.
    const Values x = rounded({100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 114, 115});
    CHECK(apply(x, 1, 16, 16, grid(4, false, 1, -1, false)) == x);
    CHECK(apply(x, 1, 16, 16, grid(4, false, 1, -1, true)) != x);
    // The largest value is clipped, -8 is used where it is allowed.
    const Values y = apply({7, -8, 0, 1, 2, 3, 4, 5}, 1, 8, 8, grid(4, true, 0.875f));
    CHECK(y == Values({7, -8, 0, 1, 2, 3, 4, 5}));
    // Values too small to divide their range.
    for (float v : apply({0, 1e-40f, 0, 0}, 1, 4, 4, grid(4, false))) CHECK_NEAR(v, 0, 1e-39);
}

TEST(rows_that_lie_apart) {
    const int rows = 5, I = 64, ld = 200;
    const Values x = rows_of_all_kinds(rows, ld, 3), found = apply(x, rows, ld, I, grid(4, false, 0.95f, 32));
    for (int r = 0; r < rows; r++)
        for (int i = I; i < ld; i++) CHECK_EQ(found[r * ld + i], x[r * ld + i]);
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < 2; k++) {
            const Values part(x.begin() + r * ld + k * 32, x.begin() + r * ld + (k + 1) * 32);
            check(Values(found.begin() + r * ld + k * 32, found.begin() + r * ld + (k + 1) * 32),
                  expected(part, grid(4, false, 0.95f)), part);
        }
}

TEST(a_nan_stays) {
    for (bool sym : {true, false})
        for (int group : {-1, 4}) {
            const Values y = apply({1, 2, NAN, 4, 5, 6, 7, 8}, 1, 8, 8, grid(4, sym, 1, group));
            CHECK(std::isnan(y[2]));
        }
}

template <class T> static Array<T> on_device(const std::vector<T>& host) {
    Array<T> d(host.size(), "test");
    copy(d.data, host.data(), host.size());
    return d;
}

TEST(clusters_of_channels) {
    const int rows = 14, I = 48;
    const std::vector<int> label = [] {
        std::vector<int> l;
        for (int i = 0; i < 48; i++) l.push_back(i * i % 5);
        return l;
    }();
    std::vector<int> order, starts;
    for (int k = 0; k < 5; k++) {
        starts.push_back((int)order.size());
        for (int i = 0; i < I; i++)
            if (label[i] == k) order.push_back(i);
    }
    starts.push_back(I);
    const Array<int> order_d = on_device(order), starts_d = on_device(starts);
    const Values x = rows_of_all_kinds(rows, I, 9);
    for (bool zero : {true, false}) {
        FlowGrid g = grid(4, false, 1, -1, zero);
        g.order = order_d.data, g.starts = starts_d.data, g.n_clusters = 5;
        const Values found = apply(x, rows, I, I, g);
        for (int r = 0; r < rows; r++)
            for (int k = 0; k < 5; k++) {
                Values part, of_found;
                for (int i = 0; i < I; i++)
                    if (label[i] == k) part.push_back(x[r * I + i]), of_found.push_back(found[r * I + i]);
                if (!part.empty()) check(of_found, expected(part, g), part);
            }
        // The same as in a matrix whose channels were put in the order of the clusters: bit for bit.
        Values moved;
        for (int r = 0; r < rows; r++)
            for (int i : order) moved.push_back(x[r * I + i]);
        FlowGrid plain = g;
        std::vector<int> identity(I);
        for (int i = 0; i < I; i++) identity[i] = i;
        const Array<int> identity_d = on_device(identity);
        plain.order = identity_d.data;
        const Values of_moved = apply(moved, rows, I, I, plain);
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < I; i++) CHECK_EQ(of_moved[r * I + i], found[r * I + order[i]]);
    }
}

TEST(static_grids) {
    const int rows = 3, I = 20;
    Values scale, zero;
    for (int i = 0; i < I; i++) scale.push_back(0.125f * (float)(1 + i % 5)), zero.push_back((float)(i % 7 - 3));
    const Array<float> scale_d = on_device(scale), zero_d = on_device(zero);
    const Values x = rows_of_all_kinds(rows, I, 4);
    for (int bits : {3, 4, 8}) {
        FlowGrid g = grid(bits, false);
        g.scale = scale_d.data, g.zero_point = zero_d.data;
        const Values found = apply(x, rows, I, I, g);
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < I; i++) {
                const double q = std::clamp<double>(std::nearbyint(x[r * I + i] / scale[i]) + zero[i], -(1 << (bits - 1)),
                                                    (1 << (bits - 1)) - 1);
                CHECK_EQ(found[r * I + i], to_float(to_floatX((float)(scale[i] * (q - zero[i])))));
            }
    }
}
