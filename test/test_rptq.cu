// quant/rptq.cuh: extremes, k-means and grids against loops in float64 and brute force, GPTQ with grids of clusters against the
// definition, labels against a model whose channels were moved, and what the method does in a run. (Against its authors' own code:
// test_rptq_golden.cu; whose grids and bits q, k and v have: test_rptq_places.cu.)
#include "../quant/rptq.cuh"
#include "rptq_layer.h"
#include "temp.h"
#include "test.h"
#include <random>

static std::vector<float> normal_values(size_t n, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values;
    for (size_t i = 0; i < n; i++) values.push_back(to_float(to_floatX(normal(random))));
    return values;
}

// ---------------------------------------------------------------------------------------------------------------------
// Extremes

TEST(extremes_of_samples) {
    const int length = 7, samples = 37, ld = 150, I = 131, at = 5;  // more samples than are taken at a time
    std::vector<float> x = normal_values((size_t)samples * length * ld, 1);
    Quantizer q;
    q.sample_length = length;
    for (bool bad : {false, true}) {
        if (bad)
            x[(11 * length + 3) * ld + at + 8] = NAN, x[(12 * length) * ld + at + 9] = -INFINITY, x[13 * length * ld + at] = NAN;
        const Array<floatX> d = upload(x);
        Extremes e;
        const int first = 20 * length;  // two chunks
        collect_extremes(e, q, d.data + at, first, ld, I);
        collect_extremes(e, q, d.data + at + (size_t)first * ld, samples * length - first, ld, I);
        CHECK_EQ(e.lo.size(), (size_t)samples * I);
        for (int w = 0; w < samples; w++)
            for (int i = 0; i < I; i++) {
                float lo = INFINITY, hi = -INFINITY;
                bool nan = false;
                for (int t = 0; t < length; t++) {
                    const float v = x[((size_t)w * length + t) * ld + at + i];
                    nan = nan || std::isnan(v), lo = std::min(lo, v), hi = std::max(hi, v);
                }
                if (nan) CHECK(std::isnan(e.lo[w * I + i]) && std::isnan(e.hi[w * I + i]));
                else CHECK(e.lo[w * I + i] == lo && e.hi[w * I + i] == hi);
            }
        if (bad) CHECK_ERROR(overall(e, I, "layer 3, o"), "layer 3, o: the calibration activations hold NaN or Inf in channel 8");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// k-means

static double inertia_of(const std::vector<double>& points, int d, const std::vector<int>& label, int k) {
    const size_t n = label.size();
    double sum = 0;
    for (int c = 0; c < k; c++)
        for (int x = 0; x < d; x++) {
            double mean = 0, members = 0;
            for (size_t i = 0; i < n; i++)
                if (label[i] == c) mean += points[i * d + x], members++;
            for (size_t i = 0; i < n; i++)
                if (label[i] == c) sum += (points[i * d + x] - mean / members) * (points[i * d + x] - mean / members);
        }
    return sum;
}

// Lloyd's rounds end in the nearest valley; with 10 starts nearly always in the deepest, and always where there are clear groups.
TEST(k_means_finds_the_best_of_all_partitions) {
    std::mt19937 random(3);
    std::normal_distribution<double> normal;
    int best = 0;
    for (int problem = 0; problem < 40; problem++) {
        const bool groups = problem % 2;
        const int n = 5 + problem % 4, d = problem % 3 ? 2 : 4, k = 2 + problem % 3;
        std::vector<double> points;
        for (int i = 0; i < n * d; i++) points.push_back(normal(random) + (groups ? 25 * (i / d % k) : 0));
        double least = INFINITY;
        std::vector<int> label(n, 0);
        for (long code = 0, all = std::lround(std::pow(k, n)); code < all; code++) {
            long rest = code;
            for (int& l : label) l = (int)(rest % k), rest /= k;
            least = std::min(least, inertia_of(points, d, label, k));
        }
        const KMeans found = k_means(points, d, k);
        CHECK_NEAR(found.inertia, inertia_of(points, d, found.label, k), 1e-9);
        CHECK(found.inertia > least - 1e-9);
        best += found.inertia < least + 1e-9;
        CHECK(!groups || found.inertia < least + 1e-9);
    }
    CHECK(best >= 36);
}

// Every point is at its nearest mean, every cluster has points, and a large problem is no worse than its groups as they were made.
TEST(k_means_stops_where_nothing_moves) {
    std::mt19937 random(4);
    std::normal_distribution<double> normal;
    const int n = 3000, k = 32;
    std::vector<double> points;
    std::vector<int> made;
    for (int i = 0; i < n; i++) {
        made.push_back(i % k);
        points.push_back(20 * (i % k % 8) + normal(random)), points.push_back(-30 * (i % k / 8) + normal(random));
    }
    const KMeans found = k_means(points, 2, k);
    CHECK(found.inertia <= inertia_of(points, 2, made, k) * (1 + 1e-9));
    std::vector<double> mean(2 * k, 0);
    std::vector<int> members(k, 0);
    for (int i = 0; i < n; i++)
        members[found.label[i]]++, mean[2 * found.label[i]] += points[2 * i], mean[2 * found.label[i] + 1] += points[2 * i + 1];
    for (int c = 0; c < k; c++) CHECK(members[c] > 0);
    for (int i = 0; i < n; i++) {
        double own = 0, least = INFINITY;
        for (int c = 0; c < k; c++) {
            const double x = points[2 * i] - mean[2 * c] / members[c], y = points[2 * i + 1] - mean[2 * c + 1] / members[c];
            least = std::min(least, x * x + y * y);
            if (c == found.label[i]) own = x * x + y * y;
        }
        CHECK_NEAR(own, least, 1e-9);
    }
#ifndef __CUDACC__
    const int before = omp_get_max_threads();
    omp_set_num_threads(1);
    const KMeans alone = k_means(points, 2, k);
    omp_set_num_threads(before);
    CHECK(alone.label == found.label && alone.inertia == found.inertia);
#endif
}

TEST(k_means_of_few_different_points) {
    const KMeans same = k_means(std::vector<double>(20, 1.5), 2, 4);
    CHECK(same.label == std::vector<int>(10, 0) && same.inertia == 0);
    const KMeans two = k_means({0, 0, 5, 5, 0, 0, 5, 5, 0, 0}, 2, 4);
    CHECK(two.label[0] == two.label[2] && two.label[0] == two.label[4] && two.label[1] == two.label[3] &&
          two.label[0] != two.label[1]);
    CHECK(two.label[0] + two.label[1] == 1 && two.inertia == 0);  // labels 0 and 1
}

TEST(labels_of_heads) {
    // Two kv heads of 4 channels, each shared by two query heads.
    const int KV = 2, D = 4, H = 4;
    Extremes q = {std::vector<float>(H * D, 0), std::vector<float>(H * D, 0)},
             k = {std::vector<float>(KV * D, 0), std::vector<float>(KV * D, 0)};
    for (int i = 0; i < H * D; i++) q.lo[i] = (float)-(i % 7), q.hi[i] = (float)(i % 5);
    q.hi[1 * D + 2] = 50;  // only the second query head of kv head 0 has this
    k.lo[1 * D + 3] = -70;
    const std::vector<int> of_q = head_labels({&q}, KV, D), both = head_labels({&q, &k}, KV, D);
    CHECK_EQ(of_q.size(), (size_t)KV * D);
    auto alone = [&](const std::vector<int>& labels, int channel) {
        return std::count(labels.begin() + channel / D * D, labels.begin() + (channel / D + 1) * D, labels[channel]) == 1;
    };
    CHECK(alone(of_q, 2) && alone(both, 2) && alone(both, D + 3));
    const ChannelClusters c = clusters_of_heads({0, 1, 1, 0, 2, 0, 1, 1}, H, KV, D);
    CHECK((c.label == std::vector<int>{0, 1, 1, 0, 2, 3, 3, 2, 6, 4, 5, 5, 9, 7, 8, 8}));
    CHECK((c.order == std::vector<int>{0, 3, 1, 2, 4, 7, 5, 6, 9, 10, 11, 8, 13, 14, 15, 12}));
    CHECK((c.starts == std::vector<int>{0, 2, 4, 6, 8, 9, 11, 12, 13, 15, 16}) && c.n() == 10);
}

// ---------------------------------------------------------------------------------------------------------------------
// Grids

struct GridProblem {
    int I = 40, samples = 5;
    Quantizer q;
    ChannelClusters c;
    GridProblem() {
        std::mt19937 random(8);
        std::normal_distribution<float> normal;
        std::vector<int> label;
        for (int i = 0; i < I; i++) label.push_back(i * i % 6 == 5 ? 1 : i * i % 6);  // 0, 1, 3, 4, and 2 for one
        label[7] = 2;
        c = clusters_of_labels(label);
        quantizer_expect(q, Layer());
        Extremes& e = q.extremes[0];
        for (int w = 0; w < samples; w++)
            for (int i = 0; i < I; i++) {
                const float size = label[i] == 3   ? 1e-6f
                                   : label[i] == 4 ? 40
                                                   : 1,
                            a = size * normal(random), b = size * normal(random);
                const float shift = label[i] == 1 ? 9 : 0;  // one sign
                e.lo.push_back(std::min(a, b) + shift), e.hi.push_back(std::max(a, b) + shift);
            }
        e.hi[2 * I + 7] = 1e9f;
    }
    // By the definition, in double: lo and hi as running means, s and z.
    void expect(int k, int bits, double& s, double& z) const {
        const Extremes& e = q.extremes[0];
        double lo = 0, hi = 0;
        for (int w = 0; w < samples; w++) {
            double least = INFINITY, most = -INFINITY;
            for (int i = 0; i < I; i++)
                if (c.label[i] == k)
                    least = std::min(least, (double)e.lo[w * I + i]), most = std::max(most, (double)e.hi[w * I + i]);
            lo = w ? 0.99 * lo + 0.01 * least : least, hi = w ? 0.99 * hi + 0.01 * most : most;
        }
        s = std::clamp((hi - lo) / std::pow(2, bits), 1e-4, 1e4);
        z = std::nearbyint(-(hi + lo) / (2 * s));
    }
};

TEST(static_grids_are_running_means) {
    for (int bits : {2, 3, 4, 8}) {
        GridProblem p;
        const std::vector<Grid> grids = running_grids(p.q.extremes[0], p.c, bits);
        const FlowGrid grid = place_grid(p.q, 0, p.c, bits);
        CHECK_EQ(grids.size(), (size_t)5);
        const int rows = 9;
        std::vector<float> x = normal_values((size_t)rows * p.I, 2);
        for (size_t i = 0; i < x.size(); i++)
            x[i] = to_float(to_floatX(x[i] * (i % 3 ? 1.0f : 30.0f) + (p.c.label[i % p.I] == 1 ? 9.0f : 0.0f)));
        const Array<floatX> d = upload(x);
        flow_grid_apply(d.data, rows, p.I, p.I, grid);
        const std::vector<float> found = download(d);
        bool least = false, most = false;
        for (int i = 0; i < p.I; i++) {
            double s, z;
            p.expect(p.c.label[i], bits, s, z);
            least = least || s == 1e-4, most = most || s == 1e4;
            CHECK_NEAR(grids[p.c.label[i]].scale, s, 1e-6 * s);
            CHECK_NEAR(grids[p.c.label[i]].zero, z, 1e-6 * std::fabs(z));
            s = grids[p.c.label[i]].scale, z = grids[p.c.label[i]].zero;  // so that a tie is one here too
            for (int r = 0; r < rows; r++) {
                const double top = std::pow(2, bits - 1),
                             code = std::clamp(std::nearbyint((float)(x[r * p.I + i] / (float)s)) + z, -top, top - 1);
                CHECK_EQ(found[r * p.I + i], to_float(to_floatX((float)(s * (code - z)))));
            }
        }
        CHECK(least && (most || bits > 2));
    }
}

TEST(dynamic_grids_are_of_a_token_and_a_cluster) {
    GridProblem p;
    p.q.opt.a_dynamic = true;
    const FlowGrid grid = place_grid(p.q, 0, p.c, 4);
    const int rows = 9;
    const std::vector<float> x = normal_values((size_t)rows * p.I, 2);
    const Array<floatX> d = upload(x);
    flow_grid_apply(d.data, rows, p.I, p.I, grid);
    const std::vector<float> found = download(d);
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < p.c.n(); k++) {
            float lo = INFINITY, hi = -INFINITY;
            int members = 0;
            for (int i = 0; i < p.I; i++)
                if (p.c.label[i] == k) lo = std::min(lo, x[r * p.I + i]), hi = std::max(hi, x[r * p.I + i]), members++;
            for (int i = 0; i < p.I; i++) {
                if (p.c.label[i] != k) continue;
                const float v = x[r * p.I + i], s = (hi - lo) / 15;
                if (members == 1) {  // held exactly
                    CHECK_EQ(found[r * p.I + i], v);
                    continue;
                }
                const double z = std::nearbyint(-lo / s), code = std::clamp<double>(std::nearbyint(v / s) + z, 0, 15);
                CHECK_NEAR(found[r * p.I + i], s * (code - z), sizeof(floatX) == 4 ? 1e-6 : std::fabs(v) / 200 + 1e-6);
            }
        }
    CHECK_EQ(place_grid(p.q, 0, p.c, 16).bits, 16);
}

// ---------------------------------------------------------------------------------------------------------------------
// Weights

struct WeightProblem {
    int O = 12, I = 150, n = 400;  // more than a block of columns
    std::vector<float> W, X;
    std::vector<int> label;
    Array<floatX> W_d;
    Array<float> W0, H;
    Group group = {};
    explicit WeightProblem(const std::vector<int>* order = nullptr) {
        W = normal_values((size_t)O * I, 5), X = normal_values((size_t)n * I, 6);
        for (int t = 0; t < n; t++)
            for (int i = I - 1; i > 0; i--) {
                float& x = X[t * I + i];
                x = to_float(
                    to_floatX(i == 33 ? 0 : (x + 0.7f * X[t * I + i - 1]) * (i % 11 == 4 ? 6.0f : 1.0f)));  // one dead channel
            }
        for (int i = 0; i < I; i++) label.push_back(i % 11 == 4 ? 0 : 1 + i * 7 % 5);
        if (order) move(*order);
        W_d = upload(W);
        std::vector<float> floats = W;
        W0 = to_device(floats), H = Array<float>((size_t)I * I, "Hessian");
        fill_zero(H.data, H.n);
        hessian_add(H.data, upload(X).data, n, I);
        mirror_upper(H.data, I);
        group = {"test", O, I, W_d.data, nullptr, 1, {{"test_proj", 0, O}}};
    }
    void move(const std::vector<int>& order) {
        auto rows = [&](std::vector<float>& m) {
            const std::vector<float> before = m;
            for (size_t k = 0; k < m.size(); k++) m[k] = before[k / I * I + order[k % I]];
        };
        rows(W), rows(X);
        const std::vector<int> before = label;
        for (int i = 0; i < I; i++) label[i] = before[order[i]];
    }
    std::vector<float> solve(int bits, double damp = 0.01) {
        QuantOptions opt;
        opt.wbits = bits, opt.group_size = -1, opt.damp = damp;
        rptq_weights(group, W0.data, H.data, 1, clusters_of_labels(label), opt, "test");
        return download(W_d);
    }
};

// Column by column, and every later column corrected at once, with the inverse of H that is left when the columns so far are gone.
static std::vector<double> by_definition(const WeightProblem& p, int bits, double damp) {
    const int I = p.I, O = p.O;
    std::vector<int> order;
    for (int k = 0; k < 6; k++)
        for (int i = 0; i < I; i++)
            if (p.label[i] == k) order.push_back(i);
    std::vector<double> H((size_t)I * I, 0), inverse((size_t)I * I, 0);
    for (int t = 0; t < p.n; t++)
        for (int a = 0; a < I; a++)
            for (int b = 0; b < I; b++) H[a * I + b] += 2.0 * p.X[t * I + order[a]] * p.X[t * I + order[b]];
    double mean = 0;
    for (int a = 0; a < I; a++) {
        if (H[a * I + a] == 0) H[a * I + a] = 1;
        mean += H[a * I + a] / I;
    }
    for (int a = 0; a < I; a++) H[a * I + a] += damp * mean, inverse[a * I + a] = 1;
    for (int a = 0; a < I; a++) {  // Gauss and Jordan; H is positive definite
        const double pivot = H[a * I + a];
        for (int j = 0; j < I; j++) H[a * I + j] /= pivot, inverse[a * I + j] /= pivot;
        for (int b = 0; b < I; b++) {
            const double factor = H[b * I + a];
            for (int j = 0; b != a && j < I; j++)
                H[b * I + j] -= factor * H[a * I + j], inverse[b * I + j] -= factor * inverse[a * I + j];
        }
    }
    std::vector<double> s((size_t)O * 6), z((size_t)O * 6), w((size_t)O * I), result((size_t)O * I);
    for (int r = 0; r < O; r++)
        for (int k = 0; k < 6; k++) {
            double lo = INFINITY, hi = -INFINITY;
            for (int i = 0; i < I; i++)
                if (p.label[i] == k) lo = std::min(lo, (double)p.W[r * I + i]), hi = std::max(hi, (double)p.W[r * I + i]);
            s[r * 6 + k] = std::clamp((hi - lo) / std::pow(2, bits), 1e-4, 1e4);
            z[r * 6 + k] = std::nearbyint(-(hi + lo) / (2 * s[r * 6 + k]));
        }
    for (int r = 0; r < O; r++)
        for (int a = 0; a < I; a++) w[r * I + a] = order[a] == 33 ? 0 : p.W[r * I + order[a]];
    for (int a = 0; a < I; a++) {
        const double d = inverse[a * I + a], top = std::pow(2, bits - 1);
        for (int r = 0; r < O; r++) {
            const double scale = s[r * 6 + p.label[order[a]]], zero = z[r * 6 + p.label[order[a]]];
            const double rounded = scale * (std::clamp(std::nearbyint(w[r * I + a] / scale) + zero, -top, top - 1) - zero);
            const double error = (w[r * I + a] - rounded) / d;
            for (int b = a + 1; b < I; b++) w[r * I + b] -= error * inverse[a * I + b];
            result[r * I + order[a]] = rounded;
        }
        const std::vector<double> row(&inverse[a * I], &inverse[a * I] + I);
        for (int b = a + 1; b < I; b++)
            for (int j = a + 1; j < I; j++) inverse[b * I + j] -= row[b] * row[j] / d;
    }
    return result;
}

TEST(weights_are_gptqs_with_a_grid_for_each_cluster) {
    for (const auto& [bits, damp] : {std::pair<int, double>{2, 0.01}, {3, 0.01}, {4, 0.01}, {8, 0.01}, {3, 0.3}}) {
        WeightProblem p;
        const std::vector<float> found = p.solve(bits, damp);
        const std::vector<double> expected = by_definition(p, bits, damp);
        size_t equal = 0;
        for (size_t k = 0; k < found.size(); k++) equal += std::fabs(found[k] - expected[k]) < 0.004 + std::fabs(expected[k]) / 200;
        if (equal < 0.985 * found.size()) fail("%d bits, damping %g: %zu of %zu weights are the definition's", bits, damp, equal, found.size());
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Labels, and channels that were moved so that a cluster's are neighbours

TEST(labelled_weights_are_those_of_moved_columns_bit_for_bit) {
    WeightProblem p;
    const std::vector<int> order = clusters_of_labels(p.label).order;
    CHECK(!std::is_sorted(order.begin(), order.end()));
    WeightProblem moved(&order);
    CHECK(std::is_sorted(moved.label.begin(), moved.label.end()));
    for (int bits : {3, 4}) {
        const std::vector<float> found = p.solve(bits), of_moved = moved.solve(bits);
        for (int r = 0; r < p.O; r++)
            for (int i = 0; i < p.I; i++) CHECK_EQ(of_moved[r * p.I + i], found[r * p.I + order[i]]);
        p = WeightProblem(), moved = WeightProblem(&order);
    }
}

// The layer's channels of v and o, and of gate, up and down, moved into the order of their labels. v's and o's move alike in all heads of a
// kv head; what the norms write and what is rotated by position can't be moved alone, and need not be.
static Layer moved_layer(const Config& c, const Layer& layer, Quantizer& q, Quantizer& of_moved) {
    Layer moved = layer_copy(c, layer);
    const Group &qkv = moved.groups[0], &o = moved.groups[1], &gate_up = moved.groups[2], &down = moved.groups[3];
    auto host = [](const int* data, int n) {
        std::vector<int> v(n);
        copy(v.data(), data, n);
        return v;
    };
    const std::vector<int> values = host(q.clusters[V_PLACE].order.data, c.KV * c.D), ffn = host(q.clusters[3].order.data, c.F);
    std::vector<int> heads;  // o's columns
    for (int h = 0; h < c.H; h++)
        for (int d = 0; d < c.D; d++) heads.push_back(h * c.D + values[h / (c.H / c.KV) * c.D + d] % c.D);
    auto move = [&](floatX* W, int rows, int I, const std::vector<int>* row_order, const std::vector<int>* column_order) {
        std::vector<floatX> before((size_t)rows * I), after(before.size());
        copy(before.data(), W, before.size());
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < I; i++)
                after[(size_t)r * I + i] =
                    before[(size_t)(row_order ? (*row_order)[r] : r) * I + (column_order ? (*column_order)[i] : i)];
        copy(W, after.data(), after.size());
    };
    move(qkv.W + (size_t)(c.H + c.KV) * c.D * c.C, c.KV * c.D, c.C, &values, nullptr);
    move(o.W, c.C, c.H * c.D, nullptr, &heads);
    move(gate_up.W, c.F, c.C, &ffn, nullptr), move(gate_up.W + (size_t)c.F * c.C, c.F, c.C, &ffn, nullptr);
    move(down.W, c.C, c.F, nullptr, &ffn);
    for (int g = 0; g < STAGES; g++) moved.groups[g].grid = layer.groups[g].grid;
    moved.q_grid = layer.q_grid, moved.k_grid = layer.k_grid, moved.v_grid = layer.v_grid, moved.p_bits = layer.p_bits;
    // The runs of the moved channels: the same starts, and channels in their own order.
    quantizer_expect(of_moved, moved);
    auto runs = [&](FlowGrid& grid, int place, int I) {
        std::vector<int> identity(I);
        std::iota(identity.begin(), identity.end(), 0);
        of_moved.clusters[place].order = to_device(identity), grid.order = of_moved.clusters[place].order.data;
    };
    runs(moved.groups[1].grid, 1, c.H * c.D), runs(moved.groups[3].grid, 3, c.F), runs(moved.v_grid, V_PLACE, c.KV * c.D);
    return moved;
}

TEST(a_labelled_layer_is_the_one_whose_channels_were_moved) {
    skip_when_emulated();
    RptqLayer l;
    const Config& c = l.model.config;
    l.quantize({"-q", "rptq", "-a", "4", "--a-dynamic"});
    Quantizer of_moved;
    const Layer moved = moved_layer(c, l.layer, l.q, of_moved);
    Scratch scratch = scratch_alloc(c, l.streams);
    std::vector<int> o_order(c.H * c.D), down_order(c.F);
    copy(o_order.data(), l.q.clusters[1].order.data, o_order.size()),
        copy(down_order.data(), l.q.clusters[3].order.data, down_order.size());
    for (const Chunk& chunk : l.streams[0].chunks) {
        const size_t n = (size_t)chunk.T * c.C;
        Array<floatX> x(n, "test"), y(n, "test");
        copy(x.data, l.streams[0].x.data.data + chunk.start * c.C, n), copy(y.data, x.data, n);
        std::vector<float> inputs[2][STAGES], outputs[2];
        for (int which = 0; which < 2; which++)
            for (int stage = 0; stage <= STAGES; stage++) {
                const Layer& layer = which ? moved : l.layer;
                layer_stage(c, layer, stage, which ? y.data : x.data, scratch.in.data, chunk, scratch);
                if (stage == STAGES) {
                    outputs[which] = download(which ? y : x);
                    continue;
                }
                const Group& group = layer.groups[stage];
                inputs[which][stage] = download(scratch.in);
                inputs[which][stage].resize((size_t)chunk.T * group.I);
                const Array<floatX> rounded = upload(inputs[which][stage]);
                flow_grid_apply(rounded.data, chunk.T, group.I, group.I, group.grid);
                inputs[which][stage] = download(rounded);
            }
        CHECK(inputs[0][0] == inputs[1][0]);
        for (int t = 0; t < chunk.T; t++)
            for (int i = 0; i < c.H * c.D; i++)
                CHECK_EQ(inputs[1][1][(size_t)t * c.H * c.D + i], inputs[0][1][(size_t)t * c.H * c.D + o_order[i]]);
        // o's product adds the same numbers in another order, and a last bit may move a code behind it.
        double difference = 0, size = 0;
        for (size_t i = 0; i < n; i++) difference += std::pow(outputs[0][i] - outputs[1][i], 2), size += std::pow(outputs[0][i], 2);
        CHECK(std::sqrt(difference / size) < (sizeof(floatX) == 4 ? 0.02 : 0.05));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// In a layer and in a run

TEST(the_stream_goes_on_through_the_quantized_layer_and_its_grids) {
    skip_when_emulated();
    for (const std::vector<const char*>& more :
         {std::vector<const char*>{"-a", "4"}, {"-a", "4", "--a-dynamic"}, {"-a", "16"}, {"-a", "16", "--kv-bits", "3"}}) {
        std::vector<const char*> args = {"-q", "rptq"};
        args.insert(args.end(), more.begin(), more.end());
        RptqLayer before, l;
        l.quantize(args);
        Scratch scratch = scratch_alloc(l.model.config, before.streams);
        layer_forward(l.model.config, l.layer, before.streams[0], scratch);
        CHECK(download(before.streams[0].x.data) == download(l.streams[0].x.data));
        const bool four = std::string(more[1]) == "4";
        const int bits[] = {four ? 8 : 16, four ? 4 : 16, four ? 8 : 16, four ? 4 : 16};
        for (int g = 0; g < STAGES; g++) CHECK_EQ(l.layer.groups[g].grid.bits, bits[g]);
        CHECK_EQ(l.layer.q_grid.bits, four ? 4 : 16);
        CHECK_EQ(l.layer.k_grid.bits, four ? 4 : more.size() > 2 ? 3 : 16);
        CHECK_EQ(l.layer.v_grid.bits, l.layer.k_grid.bits);
        CHECK_EQ(l.layer.p_bits, four ? 8 : 16);
    }
}

// o's static grid is that of a layer whose probabilities are rounded, and of no other.
TEST(what_calibrates_has_the_probabilities_grid) {
    skip_when_emulated();
    RptqLayer l;
    const Config& c = l.model.config;
    l.quantize({"-q", "rptq", "-a", "4"});
    std::vector<float> scale(c.H * c.D);
    copy(scale.data(), l.q.clusters[1].scale.data, scale.size());
    for (int p_bits : {8, 16}) {
        RptqLayer before;
        before.layer.p_bits = p_bits;
        Scratch scratch = scratch_alloc(c, before.streams);
        Quantizer q;
        q.sample_length = before.streams[0].segments[0].len;
        Extremes e;
        for (const Chunk& chunk : before.streams[0].chunks) {
            floatX* x = before.streams[0].x.data.data + (size_t)chunk.start * c.C;
            for (int stage : {0, 1}) layer_stage(c, before.layer, stage, x, scratch.in.data, chunk, scratch);
            collect_extremes(e, q, scratch.in.data, chunk.T, c.H * c.D, c.H * c.D);
        }
        const Extremes all = overall(e, c.H * c.D, "test");
        const ChannelClusters clusters = clusters_of_heads(head_labels({&all}, c.KV, c.D), c.H, c.KV, c.D);
        const std::vector<Grid> grids = running_grids(e, clusters, 4);
        int equal = 0;
        for (size_t i = 0; i < scale.size(); i++) equal += grids[clusters.label[i]].scale == scale[i];
        CHECK(p_bits == 8 ? equal == (int)scale.size() : equal < (int)scale.size() / 2);
    }
}

static Report run_tiny(std::vector<const char*> args) {
    args.insert(args.begin(),
                {"-m", "data/tiny", "--data", "data/tiny", "--limit", "1", "-q", "rptq", "-n", "4", "-l", "256", "--kl"});
    return run_quietly(args);
}

TEST(fewer_bits_are_worse) {
    skip_when_emulated();
#ifdef __SANITIZE_ADDRESS__
    SKIP("a question of numbers, too slow under a sanitizer");
#endif
    auto kl = [](const std::vector<const char*>& args) { return run_tiny(args).kl[0].kl; };
    // Eight bits lose nothing where the range is the token's own; what a static range has not seen in calibration, it clips.
    CHECK(kl({"-b", "8", "-a", "16"}) < 2e-4 && kl({"-b", "8", "-a", "8", "--a-dynamic", "--p-bits", "16"}) < 2e-4);
    const double w4a16 = kl({"-a", "16"}), w4a8 = kl({}), w4a4 = kl({"-a", "4"});
    CHECK(w4a16 > 1e-3 && w4a8 > w4a16 && w4a4 > 2 * w4a8);
    CHECK(kl({"-a", "4", "--a-dynamic"}) < 0.2 * w4a4);
    // Of the norms' outputs too. By a token's own range: what a static one clips is another thing after every change in a last bit.
    auto norms = [&](const char* bits) { return kl({"-b", "8", "-a", "4", "--norm-abits", bits, "--a-dynamic"}); };
    const double norms4 = norms("4");
    CHECK(norms4 > 1.1 * norms("8") && norms("2") > 5 * norms4);
    const double kv4 = kl({"-a", "16", "--kv-bits", "4"}), kv3 = kl({"-a", "16", "--kv-bits", "3"});
    CHECK(kv4 > w4a16 && kv3 > kv4 && kv3 < w4a4);
    CHECK(kl({"-b", "3", "-a", "16"}) > 2 * w4a16);
    const double p8 = kl({"-b", "8", "-a", "16", "--p-bits", "8"}), p4 = kl({"-b", "8", "-a", "16", "--p-bits", "4"});
    CHECK(p8 > 2e-4 && p4 > 4 * p8);
}

TEST(the_row_says_that_the_norms_outputs_have_more_bits) {
    skip_when_emulated();
    const Report a4 = run_tiny({"-a", "4"}), a8 = run_tiny({}), kv = run_tiny({"-a", "16", "--kv-bits", "3"});
    CHECK(report_text(a4).find("rptq k4 v4 p8  4  4, norms 8") != std::string::npos);
    CHECK(report_text(a8).find("rptq k8 v8 p8  4  8  ") != std::string::npos);
    CHECK(report_text(kv).find("rptq k3 v3  4  16 ") != std::string::npos);
    CHECK(report_json(a4).find("\"norm_activation_bits\": 8, \"activation_grids\": \"static\"") != std::string::npos);
    CHECK(report_json(a8).find("\"clip\": 1, \"p_bits\": 8") != std::string::npos);
    CHECK(report_json(kv).find("p_bits") == std::string::npos);
    CHECK(report_json(kv).find("norm_activation_bits") == std::string::npos);
}

// A checkpoint holds the weights. With 16 bits of activations it is the whole model; else the run says what is missing.
TEST(a_saved_rptq_model) {
    skip_when_emulated();
    const TempFolder tmp;
    const std::string saved = tmp / "saved", other = tmp / "other";
    const Report whole = run_tiny({"-e", "wikitext2", "-a", "16", "--save", saved.c_str()}),
                 few = run_tiny({"-e", "wikitext2", "-a", "4", "--save", other.c_str()});
    CHECK(whole.notes.empty());
    CHECK_EQ(few.notes.size(), (size_t)1);
    CHECK(few.notes[0].find("the checkpoint holds rptq's weights alone") == 0);
    const Report again = run_quietly({"-m", saved.c_str(), "--data", "data/tiny", "--limit", "1", "-q", "fp16"});
    CHECK_EQ(again.tasks[0].value, whole.tasks[0].value);
}

TEST(options_of_rptq) {
    const QuantOptions o = parse({"-q", "rptq", "-a", "4", "--k-bits", "8"}).quant;
    CHECK(o.wbits == 4 && o.abits == 4 && o.norm_abits == 8 && o.k_bits == 8 && o.v_bits == 4 && o.p_bits == 8 && !o.a_dynamic && o.damp == 0.01);
    const QuantOptions kv = parse({"-q", "rptq", "-b", "3", "-a", "16", "--kv-bits", "3"}).quant;
    CHECK(kv.wbits == 3 && kv.abits == 16 && kv.k_bits == 3 && kv.v_bits == 3 && kv.p_bits == 16);
    CHECK_EQ(parse({"-q", "rptq"}).quant.v_bits, 8);
    CHECK_EQ(parse({"-q", "rptq", "--p-bits", "16"}).quant.p_bits, 16);
    CHECK_EQ(parse({"-q", "gptq", "-a", "4"}).quant.p_bits, 16);
    CHECK_ERROR(parse({"-q", "rtn", "--p-bits", "9"}), "--p-bits 9: expected 2 to 8 bits, or 16 for none");
    CHECK_ERROR(parse({"-q", "rtn", "--p-bits", "8", "--save", "x", "--format", "gptq"}), "bits of keys, values and probabilities");
    CHECK_ERROR(parse({"-q", "rptq", "--rotate"}), "a rotation makes all of one range");
    CHECK_ERROR(run_quietly({"-m", "test/golden/moe", "-q", "rptq", "-n", "1", "-l", "64"}), "-q rptq on a mixture of experts is not supported");
    CHECK_ERROR(parse({"-q", "rptq", "-a", "16", "--norm-abits", "8"}), "--norm-abits has no meaning without bits of activations");
    CHECK_ERROR(parse({"-q", "rptq", "-a", "4", "--norm-abits", "1"}), "--norm-abits 1: expected 2 to 8 bits, or 16 for none");
    CHECK_ERROR(parse({"-q", "rptq", "-a", "16", "--a-dynamic"}), "--a-dynamic has no meaning without bits");
    CHECK_ERROR(parse({"-q", "rptq", "-g", "128"}), "-g has no meaning with -q rptq");
    CHECK_ERROR(parse({"-q", "rptq", "--a-asym"}), "--a-asym has no meaning with -q rptq");
    CHECK_ERROR(parse({"-q", "gptq", "--a-dynamic"}), "--a-dynamic has no meaning with -q gptq");
    CHECK_ERROR(parse({"-q", "rptq", "--save", "x", "--format", "gptq"}), "whose grids belong to clusters of columns of any size");
}
