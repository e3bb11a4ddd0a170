// AWQ against a brute-force reference from the definition that shares no code with it, mostly in float64, on small problems
// (test_awq_golden.cu: against a PyTorch one on a whole layer). Its calibration rule is tested in test_eval.cu.
#include "awq_layer.h"
#include "test.h"
#include <random>

// ---------------------------------------------------------------------------------------------------------------------
// The definition

struct Problem {
    int O, I, n;
    std::vector<float> W, X;  // [O, I], [n, I], floatX numbers
};

static Problem make_problem(int O, int I, int n, unsigned seed) {
    Problem p{O, I, n, {}, {}};
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (int i = 0; i < O * I; i++) p.W.push_back(to_float(to_floatX(0.1f * normal(random) * (i % 37 == 0 ? 3 : 1))));
    for (int i = 0; i < n * I; i++)
        p.X.push_back(to_float(to_floatX(normal(random) * (i % I % 19 == 3 ? 12.0f : 0.2f + 0.1f * (float)(i % I % 7)))));
    return p;
}

// float arithmetic on purpose: the grid is defined in float32, and a code must not hang on the last bit of a scale.
static std::vector<float> grid_ref(const std::vector<float>& w, int bits) {
    const float maxq = (float)((1 << bits) - 1);
    const float lo = *std::min_element(w.begin(), w.end()), hi = *std::max_element(w.begin(), w.end());
    const float scale = std::max(hi - lo, 1e-5f) / maxq;
    const float zero = std::min(maxq, std::max(0.0f, -std::nearbyint(lo / scale)));
    std::vector<float> out;
    for (float x : w) out.push_back(scale * (std::min(maxq, std::max(0.0f, std::nearbyint(x / scale) + zero)) - zero));
    return out;
}

static std::vector<float> clamped_ref(const std::vector<float>& w, int i) {
    float most = 0;
    for (float x : w) most = std::max(most, std::fabs(x));
    const float limit = most * (float)(1 - i / 20.0);
    std::vector<float> out;
    for (float x : w) out.push_back(std::min(limit, std::max(-limit, x)));
    return out;
}

static std::vector<float> slice(const std::vector<float>& v, size_t start, size_t n) {
    return std::vector<float>(v.begin() + start, v.begin() + start + n);
}

static std::vector<double> scales_ref(const Problem& p, int k) {
    std::vector<double> s(p.I, 0);
    for (int t = 0; t < p.n; t++)
        for (int j = 0; j < p.I; j++) s[j] += std::fabs(p.X[(size_t)t * p.I + j]) / (double)p.n;
    double most = 0, least = INFINITY;
    for (double& x : s) {
        x = std::max(std::pow(x, k / 20.0), 1e-4);
        most = std::max(most, x), least = std::min(least, x);
    }
    for (double& x : s) x /= std::sqrt(most * least);
    return s;
}

// Candidate k: grid(W diag(s)) diag(1/s), stored as floatX.
static std::vector<float> candidate_ref(const Problem& p, int k, int bits, int G) {
    const std::vector<double> s = scales_ref(p, k);
    std::vector<float> scaled, out;
    for (size_t i = 0; i < p.W.size(); i++) scaled.push_back(p.W[i] * (float)s[i % p.I]);
    for (size_t start = 0; start < scaled.size(); start += G)
        for (float x : grid_ref(slice(scaled, start, G), bits)) out.push_back(to_float(to_floatX(x / (float)s[out.size() % p.I])));
    return out;
}

// [n, O], stored as floatX
static std::vector<float> product_ref(const Problem& p, const std::vector<float>& W) {
    std::vector<float> out;
    for (int t = 0; t < p.n; t++)
        for (int o = 0; o < p.O; o++) {
            double y = 0;
            for (int j = 0; j < p.I; j++) y += (double)W[(size_t)o * p.I + j] * p.X[(size_t)t * p.I + j];
            out.push_back(to_float(to_floatX((float)y)));
        }
    return out;
}

static double loss_ref(const Problem& p, int k, int bits, int G) {
    const std::vector<float> full = product_ref(p, p.W), out = product_ref(p, candidate_ref(p, k, bits, G));
    double sum = 0;
    for (size_t i = 0; i < out.size(); i++) sum += ((double)out[i] - full[i]) * ((double)out[i] - full[i]);
    return sum / (double)out.size();
}

// ---------------------------------------------------------------------------------------------------------------------
// The pieces against it

TEST(awq_grid_is_its_definition) {
    Problem p = make_problem(9, 96, 1, 1);
    for (int i = 0; i < 96; i++) p.W[i] = to_float(to_floatX(1 + std::fabs(p.W[i])));  // no 0 in the range
    for (int i = 96; i < 2 * 96; i++) p.W[i] = to_float(to_floatX(-2 - std::fabs(p.W[i])));
    for (int i = 2 * 96; i < 3 * 96; i++) p.W[i] = i % 96 < 48 ? 0 : -0.25f;  // constant groups
    std::vector<int> clip;
    for (int bits = 1; bits <= 8; bits++)
        for (int group : {-1, 32, 3})
            for (bool clipping : {false, true}) {
                const int G = group == -1 ? p.I : group, groups = p.I / G;
                Array<float> W(p.W.size(), "W");
                Array<floatX> out(p.W.size(), "out");
                copy(W.data, p.W.data(), p.W.size());
                clip.clear();
                for (int i = 0; i < p.O * groups; i++) clip.push_back(i % AWQ_CLIPS);
                Array<int> clip_d(clip.size(), "clip");
                copy(clip_d.data, clip.data(), clip.size());
                launch(awq_quantize_kernel, dim3(p.O, groups), std::min(G, 64), out.data, W.data, (const float*)nullptr,
                       clipping ? (const int*)clip_d.data : (const int*)nullptr, p.I, G, (float)((1 << bits) - 1),
                       Scale::F32, GroupCodes());
                const std::vector<float> found = download(out);
                for (int g = 0; g < p.O * groups; g++) {
                    std::vector<float> w = slice(p.W, (size_t)g * G, G);
                    if (clipping) w = clamped_ref(w, clip[g]);
                    const std::vector<float> expected = grid_ref(w, bits);
                    for (int i = 0; i < G; i++) {
                        const float stored = to_float(to_floatX(expected[i]));
                        CHECK_NEAR(found[(size_t)g * G + i], stored, 1e-6 * std::fabs(stored));
                    }
                }
            }
}

static std::vector<float> channel_means(const Array<floatX>& X /*[n, I]*/, int I, const char* where) {
    return awq_channel_means(X.data, X.n / I, I, where);
}

TEST(awq_channel_means_are_means) {
    for (int n : {1, 511, 513, 1100})
        for (int I : {1, 256, 300}) {
            const Problem p = make_problem(1, I, n, 2);
            const std::vector<float> found = channel_means(upload(p.X), I, "test");
            for (int j = 0; j < I; j++) {
                double sum = 0;
                for (int t = 0; t < n; t++) sum += std::fabs(p.X[(size_t)t * I + j]);
                CHECK_NEAR(found[j], sum / n, 1e-5 * sum / n);
            }
        }
}

TEST(awq_search_is_its_definition) {
    const Problem p = make_problem(24, 96, 70, 3);
    const std::vector<float> s_x = channel_means(upload(p.X), p.I, "test");
    int moved = 0;
    for (int bits = 1; bits <= 8; bits++)
        for (int group : {-1, 32}) {
            Array<floatX> W = upload(p.W), X = upload(p.X);
            Group g = {"test", p.O, p.I, W.data, nullptr, 1, {{"test", 0, p.O}}};
            const Array<float> W0 = weights_to_float(g);
            const AwqSearch found = awq_search({{&g, &W0}}, s_x, awq_options(bits, group), p.n, p.O,
                                               [&](floatX* out) { gemm(out, X.data, W.data, p.n, p.O, p.I); }, "test");
            // A code that lies halfway may go either way, and at 8 bits the rounding to bf16 is as large as the grid's.
            const double tolerance = sizeof(floatX) == 4 ? 2e-3 : 2e-2;
            double least = INFINITY, ours = 0;
            for (int k = 0; k < AWQ_RATIOS; k++) {
                const double loss = loss_ref(p, k, bits, group == -1 ? p.I : group);
                CHECK_NEAR(found.losses[k], loss, tolerance * loss);
                least = std::min(least, loss);
                if (k == found.best) ours = loss;
            }
            CHECK(ours <= least * (1 + tolerance));
            CHECK_EQ(found.best, (int)(std::min_element(found.losses.begin(), found.losses.end()) - found.losses.begin()));
            const std::vector<double> s = scales_ref(p, found.best);
            for (int j = 0; j < p.I; j++) CHECK_NEAR(found.s[j], s[j], 1e-5 * s[j]);
            moved += found.best > 0;
        }
    CHECK(moved >= 12);  // the outlier channels are worth scaling
}

// A channel that is always 0 has s_x = 0: beside r = 0 it has the floor's scale, which is the least and so moves all others.
TEST(awq_scales_a_dead_channel_by_the_floor) {
    Problem p = make_problem(24, 96, 70, 3);
    for (int t = 0; t < p.n; t++) p.X[(size_t)t * p.I + 40] = 0;
    const std::vector<float> s_x = channel_means(upload(p.X), p.I, "test");
    Array<floatX> W = upload(p.W), X = upload(p.X);
    Group g = {"test", p.O, p.I, W.data, nullptr, 1, {{"test", 0, p.O}}};
    const Array<float> W0 = weights_to_float(g);
    const AwqSearch found = awq_search({{&g, &W0}}, s_x, awq_options(3, 32), p.n, p.O,
                                       [&](floatX* out) { gemm(out, X.data, W.data, p.n, p.O, p.I); }, "test");
    CHECK(found.best > 0);
    for (int k = 0; k < AWQ_RATIOS; k++) {
        const std::vector<double> expected = scales_ref(p, k);
        const std::vector<float> s = k == found.best ? found.s : awq_scales(s_x, k);
        for (int j = 0; j < p.I; j++) CHECK_NEAR(s[j], expected[j], 1e-5 * expected[j]);
        CHECK_EQ(std::min_element(s.begin(), s.end()) - s.begin() == 40, k > 0);
    }
}

TEST(awq_keeps_the_first_of_equal_losses) {
    Problem p = make_problem(4, 32, 10, 4);
    std::fill(p.W.begin(), p.W.end(), 0.0f);
    for (int t = 0; t < p.n; t++) p.X[(size_t)t * p.I + 7] = 0;  // a dead channel: s_x = 0
    Array<floatX> W = upload(p.W), X = upload(p.X);
    Group g = {"test", p.O, p.I, W.data, nullptr, 1, {{"test", 0, p.O}}};
    const Array<float> W0 = weights_to_float(g);
    const AwqSearch found = awq_search({{&g, &W0}}, channel_means(upload(p.X), p.I, "test"), awq_options(4, -1), p.n, p.O,
                                       [&](floatX* out) { gemm(out, X.data, W.data, p.n, p.O, p.I); }, "test");
    for (double loss : found.losses) CHECK_EQ(loss, 0.0);
    CHECK_EQ(found.best, 0);
    for (float s : found.s) CHECK_EQ(s, 1.0f);
}

TEST(awq_clipping_is_its_definition) {
    size_t clipped = 0;
    for (int n : {40, 1023, 1100}) {  // of 1100 tokens, 512 twice and more, every second is taken
        const Problem p = make_problem(8, 96, n, 5);
        const int stride = n == 1100 ? 2 : 1;
        std::vector<float> s;
        for (int j = 0; j < p.I; j++) s.push_back(0.5f + 0.1f * (float)(j % 11));
        const AwqTokens sample = awq_sample(upload(p.X).data, n, s, AWQ_CLIP_TOKENS);
        CHECK_EQ(sample.m, n == 1100 ? 550 : n);
        std::vector<float> Xt(sample.Xt.n);
        copy(Xt.data(), sample.Xt.data, Xt.size());
        for (int j = 0; j < p.I; j++)
            for (int t = 0; t < sample.m; t++) CHECK_EQ(Xt[(size_t)j * sample.m + t], p.X[(size_t)t * stride * p.I + j] / s[j]);
        for (int bits = 1; bits <= 8; bits += n == 1023 ? 3 : 1)
            for (int group : {-1, 32}) {
                const int G = group == -1 ? p.I : group, groups = p.I / G;
                Array<float> W(p.W.size(), "W");
                copy(W.data, p.W.data(), p.W.size());
                const Array<int> found = awq_clip(W.data, p.O, p.I, sample, awq_options(bits, group));
                std::vector<int> best(found.n);
                copy(best.data(), found.data, best.size());
                for (int g = 0; g < p.O * groups; g++) {
                    const std::vector<float> w = slice(p.W, (size_t)g * G, G);
                    const int first = g % groups * G;
                    double least = INFINITY, ours = 0;
                    for (int i = 0; i < AWQ_CLIPS; i++) {
                        const std::vector<float> q = grid_ref(clamped_ref(w, i), bits);
                        double error = 0;
                        for (int t = 0; t < sample.m; t++) {
                            double d = 0;
                            for (int j = 0; j < G; j++)
                                d += ((double)w[j] - q[j]) * p.X[(size_t)t * stride * p.I + first + j] / s[first + j];
                            error += d * d;
                        }
                        least = std::min(least, error);
                        if (i == best[g]) ours = error;
                    }
                    CHECK(ours <= least * (1 + 1e-4));
                    clipped += best[g] > 0;
                }
            }
    }
    CHECK(clipped > 200);
}

// ---------------------------------------------------------------------------------------------------------------------
// A whole layer, through the program's own forward pass

static std::vector<float> values_of(const floatX* data, size_t n) {
    Array<floatX> device(n, "values");
    copy(device.data, data, n);
    return download(device);
}

// Layer 2 of a small model with random weights, 192 tokens.
struct Small {
    Model model;
    std::vector<float> x;
    Layer layer;
    explicit Small(const std::string& name = "qwen3_tied") {
        model.random = true;
        model.seed = 5;
        model.config = config_load("test/golden/" + name + "/config.json");
        layer = layer_alloc(model.config);
        layer.index = 2;
        for (const Param& p : layer_params(model.config, layer)) load_param(model, p);
        for (int i = 0; i < 192 * model.config.C; i++) x.push_back(random_unit(1, i) * (i % model.config.C % 16 == 5 ? 10 : 1));
    }
};

TEST(awq_scales_leave_the_function_as_it_is) {
    Small m;
    const Config& c = m.model.config;
    std::vector<float> W[4], gains[2] = {values_of(m.layer.input_norm, c.C), values_of(m.layer.post_norm, c.C)};
    for (int g = 0; g < 4; g++) W[g] = values_of(m.layer.groups[g].W, (size_t)m.layer.groups[g].O * m.layer.groups[g].I);
    const std::vector<float> before = AwqBench(c, m.x, 64).forward(m.layer);
    AwqBench bench(c, m.x, 64);
    bench.quantize(m.layer, awq_options(3, 32));
    // The calibration stream went through the layer as it was.
    const std::vector<float> calibration = download(bench.streams[0].x.data);
    for (size_t i = 0; i < before.size(); i++) CHECK_EQ(calibration[i], before[i]);

    const std::vector<float> divided[2] = {values_of(m.layer.input_norm, c.C), values_of(m.layer.post_norm, c.C)};
    std::vector<float> scaled[4];
    for (int g = 0; g < 4; g++) {
        scaled[g].resize(W[g].size());
        copy(scaled[g].data(), awq_solved[g].W.data, scaled[g].size());
    }
    CHECK(awq_solved[0].search.best > 0 && awq_solved[2].search.best > 0 && awq_solved[3].search.best > 0);
    auto check = [](double a, double b) { CHECK_NEAR(a, b, 1e-6 * std::fabs(b)); };
    for (int o = 0; o < m.layer.groups[0].O; o++)
        for (int j = 0; j < c.C; j++) check((double)scaled[0][o * c.C + j] * divided[0][j], (double)W[0][o * c.C + j] * gains[0][j]);
    CHECK(scaled[1] == W[1]);
    for (int o = 0; o < 2 * c.F; o++)
        for (int j = 0; j < c.C; j++) {
            const double s = o < c.F ? 1 : awq_solved[3].s[o - c.F];
            check((double)scaled[2][o * c.C + j] * divided[1][j] * s, (double)W[2][o * c.C + j] * gains[1][j]);
        }
    for (int o = 0; o < c.C; o++)
        for (int j = 0; j < c.F; j++) check(scaled[3][o * c.F + j], (double)W[3][o * c.F + j] * awq_solved[3].s[j]);

    for (int g = 0; g < 4; g++) copy(m.layer.groups[g].W, upload(scaled[g]).data, scaled[g].size());
    const std::vector<float> after = AwqBench(c, m.x, 64).forward(m.layer);
    double difference = 0, size = 0;
    for (size_t i = 0; i < after.size(); i++) {
        difference += std::pow((double)after[i] - before[i], 2);
        size += std::pow((double)before[i] - to_float(to_floatX(m.x[i])), 2);
    }
    CHECK(std::sqrt(difference / size) < (sizeof(floatX) == 4 ? 1e-5 : 2e-2));
}

// --no-clip: the same scales, and every weight on the grid of the scaled ones as they are.
TEST(awq_without_clipping_rounds_the_scaled_weights) {
    Small m, clipped;
    AwqBench(clipped.model.config, clipped.x, 64).quantize(clipped.layer, awq_options(3, 32));
    std::vector<int> ratios;
    for (const AwqGroup& a : awq_solved) ratios.push_back(a.search.best);
    QuantOptions o = awq_options(3, 32);
    o.clip = false;
    const std::vector<ModuleReport> reports = AwqBench(m.model.config, m.x, 64).quantize(m.layer, o);
    size_t differ = 0;
    for (int g = 0; g < 4; g++) {
        const size_t n = (size_t)m.layer.groups[g].O * m.layer.groups[g].I;
        std::vector<float> scaled(n);
        copy(scaled.data(), awq_solved[g].W.data, n);
        const std::vector<float> found = values_of(m.layer.groups[g].W, n), other = values_of(clipped.layer.groups[g].W, n);
        for (size_t start = 0; start < n; start += 32) {
            const std::vector<float> expected = grid_ref(slice(scaled, start, 32), 3);
            for (size_t i = 0; i < 32; i++) {
                const float stored = to_float(to_floatX(expected[i]));
                CHECK_NEAR(found[start + i], stored, 1e-6 * std::fabs(stored));
                differ += found[start + i] != other[start + i];
            }
        }
        CHECK_EQ(awq_solved[g].search.best, ratios[g]);
    }
    CHECK(differ > 1000);
    for (const ModuleReport& r : reports)
        for (const auto& value : r.values) CHECK(value.first != "clipped");
}

// With as many v heads as q heads, o is scaled too, and v's rows and biases take the scales back.
TEST(awq_scales_o_where_it_has_the_shape_of_v) {
    Small m("qwen2_bias");
    const Config& c = m.model.config;
    const int C = c.C;
    Group &qkv = m.layer.groups[0], &o = m.layer.groups[1];
    CHECK(qkv.bias && c.H == c.KV && o.I == C);
    const size_t v_row = (size_t)qkv.linears[2].row;
    const std::vector<float> V = values_of(qkv.W + v_row * C, (size_t)C * C), bias = values_of(qkv.bias, qkv.O);

    // The definition: o's inputs, by the layer's own stages, and a search that is judged on o's output.
    Problem p{C, C, 192, values_of(o.W, (size_t)C * C), {}};
    std::vector<float> uneven = V;  // so that there is something to gain
    for (int i = 0; i < C * C; i++) uneven[i] = to_float(to_floatX(V[i] * (i / C % 16 == 5 ? 2.0f : 0.125f)));
    copy(qkv.W + v_row * C, upload(uneven).data, uneven.size());
    const std::vector<float> before = AwqBench(c, m.x, 64).forward(m.layer);
    {
        AwqBench bench(c, m.x, 64);
        CHECK_EQ(bench.streams[0].chunks.size(), (size_t)1);
        for (int stage = 0; stage < 2; stage++)
            layer_stage(c, m.layer, stage, bench.streams[0].x.data.data, bench.scratch.in.data, bench.streams[0].chunks[0],
                        bench.scratch);
        p.X = values_of(bench.scratch.in.data, (size_t)p.n * C);
    }
    const std::vector<ModuleReport> reports = AwqBench(c, m.x, 64).quantize(m.layer, awq_options(3, 32));
    const double tolerance = sizeof(floatX) == 4 ? 2e-3 : 2e-2;
    double least = INFINITY, ours = 0;
    for (int k = 0; k < AWQ_RATIOS; k++) {
        const double loss = loss_ref(p, k, 3, 32);
        CHECK_NEAR(awq_solved[1].search.losses[k], loss, tolerance * loss);
        least = std::min(least, loss);
        if (k == awq_solved[1].search.best) ours = loss;
    }
    CHECK(awq_solved[1].search.best > 0);
    CHECK(ours <= least * (1 + tolerance) && ours < 0.9 * loss_ref(p, 0, 3, 32));

    // What it is folded into.
    const std::vector<double> s = scales_ref(p, awq_solved[1].search.best);
    const std::vector<float> divided = values_of(qkv.bias, qkv.O);
    std::vector<float> scaled[4];
    for (int g = 0; g < 4; g++) {
        scaled[g].resize(awq_solved[g].W.n);
        copy(scaled[g].data(), awq_solved[g].W.data, scaled[g].size());
    }
    for (int i = 0; i < qkv.O; i++) {
        const bool v = (size_t)i >= v_row;
        const double expected = v ? bias[i] / s[i - v_row] : bias[i];
        CHECK_NEAR(divided[i], expected, (v ? 1e-5 + (sizeof(floatX) == 4 ? 0 : 4e-3) : 0) * std::fabs(expected));
        for (int j = 0; v && j < C; j++) {
            const double w = uneven[(i - v_row) * C + j] * (double)awq_solved[0].s[j] / s[i - v_row];
            CHECK_NEAR(scaled[0][(size_t)i * C + j], w, 1e-5 * std::fabs(w));
        }
    }
    for (int i = 0; i < C * C; i++) CHECK_NEAR(scaled[1][i], p.W[i] * s[i % C], 1e-5 * std::fabs(p.W[i] * s[i % C]));

    // The layer does as before, and its report has the search.
    for (int g = 0; g < 4; g++) copy(m.layer.groups[g].W, upload(scaled[g]).data, scaled[g].size());
    const std::vector<float> after = AwqBench(c, m.x, 64).forward(m.layer);
    double difference = 0, size = 0;
    for (size_t i = 0; i < after.size(); i++) {
        difference += std::pow((double)after[i] - before[i], 2);
        size += std::pow((double)before[i] - to_float(to_floatX(m.x[i])), 2);
    }
    CHECK(std::sqrt(difference / size) < (sizeof(floatX) == 4 ? 1e-5 : 2e-2));
    CHECK_EQ(reports[3].module, std::string("o_proj"));
    CHECK_EQ(reports[3].values[0].second, awq_solved[1].search.best / 20.0);
}

TEST(awq_twice_gives_the_same_bytes) {
    std::vector<floatX> bytes[2];
    std::vector<ModuleReport> reports[2];
    for (int run = 0; run < 2; run++) {
        Small m;
        reports[run] = AwqBench(m.model.config, m.x, 64).quantize(m.layer, awq_options(3, 32));
        bytes[run].resize(m.layer.storage.n);
        copy(bytes[run].data(), m.layer.storage.data, m.layer.storage.n);
    }
    CHECK(memcmp(bytes[0].data(), bytes[1].data(), bytes[0].size() * sizeof(floatX)) == 0);
    CHECK_EQ(reports[0].size(), (size_t)7);
    for (int i = 0; i < 7; i++) {
        CHECK_EQ(reports[0][i].error, reports[1][i].error);
        CHECK(reports[0][i].values == reports[1][i].values);
        CHECK_EQ(reports[0][i].layer, 2);
    }
}

TEST(awq_names_where_it_failed) {
    auto quantize_with = [](int g, size_t weight, size_t activation, std::vector<float> bad = {NAN}) {
        Small m;
        if (weight < SIZE_MAX) copy(m.layer.groups[g].W + weight, upload(bad).data, bad.size());
        if (activation < SIZE_MAX) m.x[activation] = INFINITY;
        AwqBench(m.model.config, m.x, 64).quantize(m.layer, awq_options(4, 32));
    };
    CHECK_ERROR(quantize_with(0, SIZE_MAX, 70), "layer 2, qkv: the calibration activations hold NaN or Inf at input channel 6");
    CHECK_ERROR(quantize_with(1, 5, SIZE_MAX), "layer 2, o_proj: weights of input channel 5 are NaN or Inf");
    CHECK_ERROR(quantize_with(3, 5, SIZE_MAX), "layer 2, down_proj: weights of input channel 5 are NaN or Inf");
    // Finite weights whose products are not: seen where the module's output is judged.
    const std::vector<float> huge = {3e38f, -3e38f};
    CHECK_ERROR(quantize_with(1, 5, SIZE_MAX, huge), "layer 2, qkv: the loss of AWQ's scales with ratio 0/20 is not finite");
    CHECK_ERROR(quantize_with(3, 5, SIZE_MAX, huge), "layer 2, gate_up: the loss of AWQ's scales with ratio 0/20 is not finite");
    std::vector<float> X(40, 1.0f);
    X[26] = NAN;
    CHECK_ERROR(channel_means(upload(X), 10, "layer 7, down"), "layer 7, down: the calibration activations hold NaN or Inf at input channel 6");
}

TEST(awq_refuses_a_stream_of_another_length) {
    Small m;
    Quantizer q;
    q.n_calibration = 3;
    Array<floatX> X = upload(std::vector<float>(4 * m.model.config.C, 1));
    CHECK_ERROR(awq_collect(q, m.layer.groups[0], 0, X.data, 4), "4 inputs are more than the 3 of the calibration tokens");
    awq_collect(q, m.layer.groups[0], 0, X.data, 2);
    CHECK_ERROR(awq_layer(q, m.layer), "layer 2, qkv: expected inputs of 3 tokens, found 2");
}

// ---------------------------------------------------------------------------------------------------------------------
// The command line

// The run after add_streams has made a command line's calibration.
static Run calibration_of(std::vector<const char*> args) {
    args.insert(args.begin(), {"qwen3", "-m", "data/tiny", "--data", "data/tiny", "-q", "awq", "--save", "unused"});
    Run run;
    run.options = options_parse((int)args.size(), args.data());
    run.method = method_for(run.options);
    run.model = model_open(run.options);
    add_streams(run, "data/tiny");
    return run;
}

TEST(awq_calibrates_by_its_own_rule_unless_told_otherwise) {
    auto value = [](const Settings& settings, const std::string& key) {
        for (const auto& s : settings)
            if (s.first == key) return s.second;
        return std::string("missing");
    };
    // What is expected of each rule and seed is tested against Python in test_eval.cu.
    auto check = [&](std::vector<const char*> args, const char* samples, const char* length, const char* seed, const char* source,
                     const TextSet& expected) {
        const Run run = calibration_of(args);
        const Settings& found = run.report.calibration;
        CHECK_EQ(value(found, "samples"), samples);
        CHECK_EQ(value(found, "length"), length);
        CHECK_EQ(value(found, "seed"), seed);
        CHECK(value(found, "source").find(source) != std::string::npos);
        CHECK_EQ(std::to_string(run.streams[0].segments.size()), samples);
        CHECK(run.streams[0].tokens == expected.tokens);
    };
    const Tokenizer t = tokenizer_load("data/tiny");
    auto by_awqs_rule = [&](int seed) { return awq_calibration_set(t, "data/tiny", 128, 512, seed); };
    auto as_gptq = [&](int n, int length, int seed) { return calibration_set(t, "data/tiny", "c4", n, length, seed); };
    check({}, "70", "512", "42", "AWQ's rule: 128 of 370 train documents", by_awqs_rule(42));
    check({"--seed", "7"}, "69", "512", "7", "AWQ's rule: 128 of 370 train documents", by_awqs_rule(7));
    check({"-n", "3"}, "3", "2048", "0", "370 train documents", as_gptq(3, 2048, 0));
    check({"-n", "2", "-l", "300", "--seed", "4"}, "2", "300", "4", "370 train documents", as_gptq(2, 300, 4));
    CHECK(by_awqs_rule(7).tokens != by_awqs_rule(42).tokens && as_gptq(2, 300, 4).tokens != as_gptq(2, 300, 0).tokens);
}

TEST(awq_runs_from_end_to_end) {
    skip_when_emulated();
    const Report r = run_quietly({"-m", "data/tiny", "--data", "data/tiny", "-q", "awq", "-b", "3", "-n", "1", "-l", "512", "--limit", "1"});
    const Report full = run_quietly({"-m", "data/tiny", "--data", "data/tiny", "-q", "fp16", "--limit", "1"});
    CHECK(r.tasks[0].value > full.tasks[0].value && r.tasks[0].value < 1.2 * full.tasks[0].value);
    CHECK_EQ(r.modules.size(), (size_t)4 * 7);
    for (const ModuleResult& m : r.modules) CHECK(m.error > 0.02 && m.error < 0.5 && m.note.empty());
    CHECK_EQ(r.options.size(), (size_t)4);
    CHECK(r.options[3].first == "clipping" && r.options[3].second == "true");
}
