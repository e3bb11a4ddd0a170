// GPTQ, its descendants GPTAQ and FOEM, and RTN against references that share no code with them: a PyTorch implementation's codes on a
// 256 x 512 problem (scripts/golden/golden_gptq.py), those of the descendants' own code on another (golden_gptaq.py), and here a float64
// one written from the definition alone: optimal brain quantization with the explicit inverse of the Hessian, which is downdated column
// by column (no Cholesky factor).
#include "golden.h"
#include "test.h"
#include <random>

// ---------------------------------------------------------------------------------------------------------------------
// The definition in float64

struct Problem : GoldenProblem {
    std::vector<double> H;      // [I, I] = 2/sequences X^T X
    std::vector<float> X_full;  // [n, I], for GPTAQ
    std::vector<double> D;      // [I, I] = 2/sequences (X_full - X)^T X
};

// Column `dead_column`, and with `dead_every` also each of that many, never has an input.
static Problem make_problem(int O, int I, int n, unsigned seed, int dead_column, int dead_every = 0, int sequences = 1) {
    Problem p;
    p.O = O, p.I = I, p.n = n, p.sequences = sequences;
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (int i = 0; i < O * I; i++) p.W.push_back(to_float(to_floatX(normal(random))));
    std::vector<float> scale(I);
    for (int i = 0; i < I; i++) {
        const bool dead = i == dead_column || (dead_every && i % dead_every == 3);
        scale[i] = dead ? 0 : i % 5 == 2 ? 6.0f : 0.3f + 0.1f * (i % 7);
    }
    for (int t = 0; t < n; t++) {
        const float shared = normal(random);
        for (int i = 0; i < I; i++) p.X.push_back(to_float(to_floatX(scale[i] * (normal(random) + shared))));
    }
    p.H.assign((size_t)I * I, 0);
    for (int t = 0; t < n; t++)
        for (int i = 0; i < I; i++)
            for (int j = 0; j < I; j++) p.H[(size_t)i * I + j] += 2.0 / sequences * p.X[(size_t)t * I + i] * p.X[(size_t)t * I + j];
    return p;
}

// The problem with inputs of the full-precision model beside its own, which have something of their neighbours as well.
static Problem make_pair(int O, int I, int n, unsigned seed, int dead_column, int dead_every = 0, int sequences = 1) {
    Problem p = make_problem(O, I, n, seed, dead_column, dead_every, sequences);
    std::mt19937 random(seed + 100);
    std::normal_distribution<float> normal;
    p.D.assign((size_t)I * I, 0);
    for (int t = 0; t < n; t++) {
        const float *x = &p.X[(size_t)t * I], common = normal(random);
        for (int i = 0; i < I; i++)
            p.X_full.push_back(to_float(to_floatX(x[i] + 0.2f * x[(i + 1) % I] - 0.1f * x[(i + 7) % I] + 0.1f * common)));
        // As the program has it: the difference is rounded to floatX.
        for (int i = 0; i < I; i++)
            for (int j = 0; j < I; j++)
                p.D[(size_t)i * I + j] += 2.0 / sequences * to_float(to_floatX(p.X_full[(size_t)t * I + i] - x[i])) * x[j];
    }
    return p;
}

static double half_even(double x) { return std::nearbyint(x); }

struct GridRef {
    float scale, zero;
};

// float arithmetic on purpose: the grid is defined in float32, and a code must not hang on the last bit of a scale.
static GridRef fit_ref(const std::vector<double>& w, int bits, bool sym, bool mse) {
    const float maxq = (float)((1 << bits) - 1);
    float lo = 0, hi = 0;
    for (double x : w) lo = std::min(lo, (float)x), hi = std::max(hi, (float)x);
    if (sym) {
        hi = std::max(hi, -lo);
        if (lo < 0) lo = -hi;
    }
    if (lo == 0 && hi == 0) lo = -1, hi = 1;
    auto grid = [&](float p) {
        const float scale = (p * hi - p * lo) / maxq;
        return GridRef{scale, sym ? (maxq + 1) / 2 : (float)half_even(-(p * lo) / scale)};
    };
    GridRef best = grid(1);
    double least = INFINITY;
    for (int i = 0; mse && i < 80; i++) {
        const GridRef g = grid((float)(1 - i / 100.0));
        double error = 0;
        for (double x : w) {
            const double q = std::min<double>(maxq, std::max(0.0, half_even(x / g.scale) + g.zero));
            error += std::pow(std::fabs(g.scale * (q - g.zero) - x), 2.4);
        }
        if (error < least) least = error, best = g;
    }
    return best;
}

static double round_ref(double w, GridRef g, int bits) {
    const double maxq = (1 << bits) - 1;
    return g.scale * (std::min(maxq, std::max(0.0, half_even(w / g.scale) + g.zero)) - g.zero);
}

// The same in float32, in which a weight that lies halfway between two codes does so exactly.
static float round_ref_float(float w, GridRef g, int bits) {
    const float maxq = (float)((1 << bits) - 1);
    return g.scale * (std::min(maxq, std::max(0.0f, std::nearbyint(w / g.scale) + g.zero)) - g.zero);
}

// Returns W^ [O, I] in the original column order. alpha and beta are those of GPTAQ and FOEM.
static std::vector<double> gptq_ref(const Problem& p, const QuantOptions& o, double alpha = 0, double beta = 0) {
    const int O = p.O, I = p.I, G = o.group_size == -1 ? I : o.group_size, n_grids = (I + G - 1) / G;
    std::vector<double> H = p.H, W(p.W.begin(), p.W.end()), result((size_t)O * I);
    std::vector<int> order(I), dead(I, 0);
    double mean = 0;
    for (int i = 0; i < I; i++) {
        order[i] = i;
        if (H[(size_t)i * I + i] == 0) {
            dead[i] = 1;
            H[(size_t)i * I + i] = 1;
            for (int r = 0; r < O; r++) W[(size_t)r * I + i] = 0;
        }
        mean += H[(size_t)i * I + i] / I;
    }
    if (o.act_order)
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return H[(size_t)a * I + a] > H[(size_t)b * I + b]; });
    // The inverse of the damped, permuted Hessian by Gauss-Jordan.
    std::vector<double> A((size_t)I * I), inverse((size_t)I * I, 0);
    for (int i = 0; i < I; i++)
        for (int j = 0; j < I; j++) A[(size_t)i * I + j] = H[(size_t)order[i] * I + order[j]] + (i == j ? o.damp * mean : 0);
    for (int i = 0; i < I; i++) inverse[(size_t)i * I + i] = 1;
    for (int i = 0; i < I; i++) {
        const double pivot = A[(size_t)i * I + i];
        for (int j = 0; j < I; j++) A[(size_t)i * I + j] /= pivot, inverse[(size_t)i * I + j] /= pivot;
        for (int r = 0; r < I; r++) {
            const double f = A[(size_t)r * I + i];
            if (r == i || f == 0) continue;
            for (int j = 0; j < I; j++) {
                A[(size_t)r * I + j] -= f * A[(size_t)i * I + j];
                inverse[(size_t)r * I + j] -= f * inverse[(size_t)i * I + j];
            }
        }
    }
    for (int r = 0; r < O; r++) {
        std::vector<double> w(I), inv = inverse;
        std::vector<GridRef> grids(n_grids);
        const double* original = &W[(size_t)r * I];
        for (int k = 0; k < I; k++) w[k] = original[order[k]];
        std::vector<double> at_block = w;  // as the grids see the row: corrected by whole blocks of 128 only
        const std::vector<double> w0 = w;
        if (o.group_size == -1)
            grids[0] =
                fit_ref(std::vector<double>(p.W.begin() + (size_t)r * I, p.W.begin() + (size_t)(r + 1) * I), o.wbits, o.sym, o.mse);
        for (int c = 0; c < n_grids && o.static_groups && o.group_size != -1; c++)
            grids[c] = fit_ref(std::vector<double>(original + c * G, original + std::min((c + 1) * G, I)), o.wbits, o.sym, o.mse);
        for (int k = 0; k < I; k++) {
            if (k % 128 == 0) at_block = w;
            if (o.group_size != -1 && !o.static_groups && k % G == 0)
                grids[k / G] = fit_ref(std::vector<double>(at_block.begin() + k, at_block.begin() + std::min(k + G, I)), o.wbits,
                                       o.sym, o.mse);
            if (k % 128 != 0) w[k] -= beta * (w[k] - w0[k]);
            const double q = round_ref(w[k], grids[o.static_groups ? order[k] / G : k / G], o.wbits), drift = beta * (w[k] - w0[k]);
            const double d = inv[(size_t)k * I + k], e = (w[k] - q - drift) / d;
            for (int j = k + 1; j < I; j++) w[j] -= e * inv[(size_t)k * I + j];
            for (int i = k + 1; i < I; i++)  // the inverse of what is left of H
                for (int j = k + 1; j < I; j++) inv[(size_t)i * I + j] -= inv[(size_t)i * I + k] * inv[(size_t)k * I + j] / d;
            for (int m = k + 1; m < I && alpha > 0; m++) {  // w_k (x~_k - x_k) on what is left, solved with that inverse
                const double D_km = dead[order[m]] ? 0 : p.D[(size_t)order[k] * I + order[m]];
                for (int j = k + 1; j < I; j++)
                    w[j] += alpha * (j / 128 == k / 128 ? w[k] : q + drift) * D_km * inv[(size_t)m * I + j];
            }
            w[k] = q;
            result[(size_t)r * I + order[k]] = q;
        }
    }
    return result;
}

// ---------------------------------------------------------------------------------------------------------------------
// The program's GPTQ on a problem

struct Solved {
    std::vector<float> W;  // [O, I]
    GptqResult result;
    double error;  // relative output error, as reported
};

static Solved solve(const GoldenProblem& p, const QuantOptions& o) {
    Array<floatX> W = upload(p.W), X = upload(p.X);
    Layer layer;
    layer.index = 0;
    layer.groups[0] = {"test", p.O, p.I, W.data, nullptr, 1, {{"test", 0, p.O}}};
    Quantizer q;
    q.opt = o;
    q.n_sequences = (size_t)p.sequences;
    const int half = p.n / 2;  // in two chunks
    hessian_collect(q, layer.groups[0], 0, X.data, half);
    hessian_collect(q, layer.groups[0], 0, X.data + (size_t)half * p.I, p.n - half);
    CHECK_EQ(q.hessian[0].n, (size_t)p.sequences);
    Array<float> W0 = weights_to_float(layer.groups[0]);
    mirror_upper(q.hessian[0].H.data, p.I);
    Solved s;
    s.result = gptq_weights(layer.groups[0], W0.data, q.hessian[0].H.data, q.hessian[0].n, o, "test");
    s.error = output_errors(layer.groups[0], W0.data, q.hessian[0].H.data)[0];
    s.W = download(W);
    return s;
}

// The same with GPTAQ's and FOEM's terms.
struct SolvedPair {
    std::vector<float> W;
    double objective;  // as reported
};

static SolvedPair solve_pair(int O, int I, int n, int sequences, const std::vector<float>& weights, const std::vector<float>& x,
                             const std::vector<float>& x_full, QuantOptions o, double alpha, double beta) {
    Array<floatX> W = upload(weights), X = upload(x), X_full = upload(x_full);
    Group group = {"test", O, I, W.data, nullptr, 1, {{"test", 0, O}}};
    Quantizer q;
    q.n_sequences = (size_t)sequences;
    const int first = n / 2;  // in two chunks, the second the longer one where n is odd
    pair_collect(q, group, 0, X.data, X_full.data, first);
    pair_collect(q, group, 0, X.data + (size_t)first * I, X_full.data + (size_t)first * I, n - first);
    mirror_upper(q.hessian[0].H.data, I);
    const Array<float> W0 = weights_to_float(group);
    o.alpha = alpha;
    gptaq_weights(group, W0.data, q.hessian[0], o, beta, "test");
    std::vector<double> objectives;
    output_errors(group, W0.data, q.hessian[0].H.data, q.hessian[0].D.data, &objectives);
    return {download(W), objectives[0]};
}

// ||(W - V) X^T|| / ||W X^T|| in float64.
template <class V> double output_error_ref(const GoldenProblem& p, const std::vector<V>& v) {
    double num = 0, den = 0;
    for (int r = 0; r < p.O; r++)
        for (int t = 0; t < p.n; t++) {
            double d = 0, y = 0;
            for (int i = 0; i < p.I; i++) {
                const double x = p.X[(size_t)t * p.I + i], w = p.W[(size_t)r * p.I + i];
                d += (w - (double)v[(size_t)r * p.I + i]) * x, y += w * x;
            }
            num += d * d, den += y * y;
        }
    return std::sqrt(num / den);
}

static QuantOptions options(int bits, int group, bool act_order, bool static_groups = false, bool sym = false, bool mse = false) {
    QuantOptions o;
    o.wbits = bits, o.group_size = group, o.act_order = act_order, o.static_groups = static_groups, o.sym = sym, o.mse = mse;
    return o;
}

// Values are compared up to what storing W^ as floatX costs; a value on another grid point is off by a whole scale.
static void check_against_definition(const Problem& p, const QuantOptions& o) {
    const Solved s = solve(p, o);
    const std::vector<double> expected = gptq_ref(p, o);
    size_t wrong = 0;
    for (size_t i = 0; i < expected.size(); i++)
        wrong += std::fabs(s.W[i] - expected[i]) > (sizeof(floatX) == 4 ? 1e-4 : 8e-3) * (std::fabs(expected[i]) + 0.1);
    const std::string setting = format("%d bits, group %d, act_order %d, static %d, sym %d, mse %d", o.wbits, o.group_size,
                                       o.act_order, o.static_groups, o.sym, o.mse);
    if (wrong * 500 > expected.size())
        fail("%s: %zu of %zu weights differ from the definition", setting.c_str(), wrong, expected.size());
    CHECK_NEAR(s.error, output_error_ref(p, s.W), 2e-4 * s.error + 1e-6);
    std::vector<float> stored;  // at 8 bits, storing W^ as bf16 costs as much as the grid
    for (double w : expected) stored.push_back(to_float(to_floatX((float)w)));
    CHECK_NEAR(s.error, output_error_ref(p, stored), 2e-2 * s.error);
}

TEST(gptq_is_its_definition_for_every_option) {
    const Problem p = make_problem(6, 160, 300, 1, 33);
    for (int bits : {1, 2, 3, 4, 8})
        for (int group : {-1, 32, 80}) check_against_definition(p, options(bits, group, true));
    check_against_definition(p, options(3, 32, false));
    check_against_definition(p, options(3, -1, false));
    check_against_definition(p, options(3, 32, true, true));
    check_against_definition(p, options(3, 32, false, true));
    check_against_definition(p, options(3, 32, true, false, true));
    check_against_definition(p, options(4, -1, false, false, true));
    check_against_definition(p, options(3, 32, true, false, false, true));
    check_against_definition(p, options(3, 32, true, true, true, true));
    QuantOptions damped = options(4, 32, true);
    damped.damp = 0.1;
    check_against_definition(p, damped);
}

// In two chunks; weights of which the square root is exact, and one where it is rounded.
TEST(the_first_token_of_a_sample_counts_as_often_as_asked) {
    const int I = 40, length = 7, samples = 6;
    const Problem p = make_problem(1, I, samples * length, 3, -1);
    Array<floatX> X = upload(p.X);
    for (double weight : {1.0, 5.0, 65.0, 3.0}) {
        Quantizer q;
        q.opt.first_token_weight = weight, q.sample_length = length, q.n_sequences = samples;
        Group group = {"test", 1, I, nullptr, nullptr, 1, {{"test", 0, 1}}};
        hessian_collect(q, group, 0, X.data, 2 * length);
        hessian_collect(q, group, 0, X.data + (size_t)2 * length * I, 4 * length);
        CHECK_EQ(q.hessian[0].n, (size_t)samples);
        mirror_upper(q.hessian[0].H.data, I);
        std::vector<float> H((size_t)I * I);
        copy(H.data(), q.hessian[0].H.data, H.size());
        for (int i = 0; i < I; i++)
            for (int j = 0; j < I; j++) {
                double expected = 0, size = 0;
                for (int t = 0; t < samples * length; t++) {
                    const double x = (double)p.X[(size_t)t * I + i] * p.X[(size_t)t * I + j] * (t % length == 0 ? weight : 1);
                    expected += x, size += std::fabs(x);
                }
                CHECK_NEAR(H[(size_t)i * I + j], expected, (weight == 3.0 && sizeof(floatX) == 2 ? 8e-3 : 1e-5) * size);
            }
    }
}

TEST(gptq_with_several_blocks_and_groups_across_them) {
    const Problem p = make_problem(3, 384, 500, 2, -1);
    for (int group : {48, 64, 128, 192, 384}) check_against_definition(p, options(3, group, true));
    check_against_definition(p, options(2, 96, false));
}

TEST(gptq_with_dead_channels_has_the_originals_factor) {
    Problem p = make_problem(10, 256, 384, 8, -1, 10, 3);  // 26 of 256 channels
    for (float& x : p.X) x /= 16;                          // the dead channels' 1 is then not small
    for (double& h : p.H) h /= 256;
    const QuantOptions o = options(3, 128, true);
    check_against_definition(p, o);
    CHECK_EQ(solve(p, o).result.dead, 26);
    Problem by_tokens = p;  // the wrong factor gives other codes: the problem can tell
    for (double& h : by_tokens.H) h *= (double)p.sequences / p.n;
    const std::vector<double> right = gptq_ref(p, o), wrong = gptq_ref(by_tokens, o);
    size_t differ = 0;
    for (size_t i = 0; i < right.size(); i++) differ += std::fabs(right[i] - wrong[i]) > 1e-3;
    CHECK(differ * 4 > right.size());
    check_against_definition(p, options(3, 32, false));
    check_against_definition(p, options(3, -1, true));
    check_against_definition(p, options(4, 64, true, true));
}

// The row is then fitted after its dead columns are 0; per channel it is before.
TEST(a_group_of_the_rows_width_is_a_group) {
    Problem p = make_problem(12, 160, 300, 9, 33);
    for (int r = 0; r < p.O; r++) p.W[(size_t)r * p.I + 33] = r % 2 ? 9.0f : -9.0f;  // bounds the row's grid, if it counts
    for (int group : {-1, 160, 4000})
        for (bool static_groups : {false, true}) check_against_definition(p, options(3, group, true, static_groups));
    CHECK(solve(p, options(3, -1, true)).W != solve(p, options(3, 160, true)).W);
    CHECK(solve(p, options(3, 4000, true)).W == solve(p, options(3, 160, true)).W);
}

TEST(gptq_with_a_narrower_last_group) {
    const Problem p = make_problem(6, 288, 400, 10, 250);
    for (int group : {48 + 7, 100, 128, 200, 287}) {
        check_against_definition(p, options(3, group, true));
        check_against_definition(p, options(3, group, false));
        check_against_definition(p, options(3, group, true, true));
        check_against_definition(p, options(3, group, false, true, true));
    }
    check_against_definition(p, options(2, 100, true, false, false, true));
}

TEST(gptq_beats_rtn_on_the_same_hessian) {
    const Problem p = make_problem(16, 128, 400, 3, -1);
    for (int bits : {2, 3, 4, 8})
        for (int group : {-1, 32}) {
            const QuantOptions o = options(bits, group, true);
            std::vector<double> rtn;
            const int G = group == -1 ? p.I : group;
            for (int start = 0; start < p.O * p.I; start += G) {
                const std::vector<double> w(p.W.begin() + start, p.W.begin() + start + G);
                const GridRef g = fit_ref(w, bits, false, false);
                for (double x : w) rtn.push_back(round_ref(x, g, bits));
            }
            CHECK(solve(p, o).error < output_error_ref(p, rtn));
        }
}

TEST(rtn_is_its_definition) {
    const Problem p = make_problem(9, 96, 2, 4, -1);
    for (int bits = 1; bits <= 8; bits++)
        for (int group : {-1, 32, 3, 40, 95, 500})  // 40, 95: the last group is narrower; 500: one of 96
            for (int sym = 0; sym < 2; sym++) {
                Array<floatX> W = upload(p.W);
                Layer layer;
                layer.index = 0;
                layer.groups[0] = {"test", p.O, p.I, W.data, nullptr, 2, {{"a", 0, 4}, {"b", 4, 5}}};
                Quantizer q;
                q.opt = options(bits, group, false, false, sym, bits % 2 == 0);
                rtn_solve(q, layer, 0);
                const std::vector<float> host = download(W);
                const int G = group == -1 ? p.I : group;
                double num = 0, den = 0;
                for (int start = 0, width; start < p.O * p.I; start += width) {
                    width = std::min(G, p.I - start % p.I);
                    const std::vector<double> w(p.W.begin() + start, p.W.begin() + start + width);
                    const GridRef g = fit_ref(w, bits, sym, q.opt.mse);
                    for (int i = 0; i < width; i++) {
                        const float expected = to_float(to_floatX(round_ref_float((float)w[i], g, bits)));
                        CHECK_NEAR(host[start + i], expected, 1e-6 * std::fabs(expected));
                        if (start < 4 * p.I) num += std::pow(w[i] - host[start + i], 2), den += w[i] * w[i];
                    }
                }
                CHECK_EQ(q.reports.size(), (size_t)2);
                CHECK_NEAR(q.reports[0].error, std::sqrt(num / den), 1e-5);
            }
}

// ---------------------------------------------------------------------------------------------------------------------
// The PyTorch reference at a realistic size

TEST(gptq_gives_the_codes_of_the_pytorch_reference) {
    Checkpoint ck = safetensors_open("test/golden/gptq.safetensors");
    const GoldenProblem p = golden_problem(ck);
    const std::pair<const char*, QuantOptions> settings[] = {{"w4_g128_act", options(4, 128, true)},
                                                             {"w3_g128_act", options(3, 128, true)},
                                                             {"w3_channel", options(3, -1, false)},
                                                             {"w2_g64", options(2, 64, false)},
                                                             {"w4_g128_static_act", options(4, 128, true, true)},
                                                             {"w4_channel_sym", options(4, -1, false, false, true)},
                                                             {"w3_g128_mse", options(3, 128, false, false, false, true)},
                                                             {"w3_g200_act", options(3, 200, true)}};
    for (const auto& setting : settings) {
        const std::string name = setting.first;
        const Solved s = solve(p, setting.second);
        const std::vector<uint8_t> packed = golden<uint8_t>(ck, name + ".codes");
        const std::vector<float> scale = golden<float>(ck, name + ".scale"), zero = golden<float>(ck, name + ".zero");
        const std::vector<int> group = golden<int>(ck, name + ".group");
        const int n_groups = (int)scale.size() / p.O;
        size_t wrong = 0;
        for (int r = 0; r < p.O; r++)
            for (int j = 0; j < p.I; j++) {
                const int code = packed[r * 256 + j / 2] >> 4 * (j % 2) & 15, g = r * n_groups + group[j];
                const float expected = scale[g] * ((float)code - zero[g]);
                wrong += std::fabs(s.W[(size_t)r * p.I + j] - expected) > 0.25f * scale[g];
            }
        double loss = 0;
        for (float x : s.result.losses) loss += x;
        const double expected_loss = golden<double>(ck, name + ".loss")[0], expected_error = golden<double>(ck, name + ".error")[0];
        if (wrong * 1000 > (size_t)p.O * p.I) fail("%s: %zu of %d codes differ", name.c_str(), wrong, p.O * p.I);
        CHECK_NEAR(s.error, expected_error, 1e-3 * expected_error);
        CHECK_NEAR(loss, expected_loss, 1e-3 * expected_loss);
        CHECK_EQ(s.result.dead, 1);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// GPTAQ and FOEM

static void check_pair_against_definition(const Problem& p, const QuantOptions& o, double alpha, double beta) {
    const SolvedPair s = solve_pair(p.O, p.I, p.n, p.sequences, p.W, p.X, p.X_full, o, alpha, beta);
    const std::vector<double> expected = gptq_ref(p, o, alpha, beta);
    size_t wrong = 0;
    for (size_t i = 0; i < expected.size(); i++)
        wrong += std::fabs(s.W[i] - expected[i]) > (sizeof(floatX) == 4 ? 1e-4 : 8e-3) * (std::fabs(expected[i]) + 0.1);
    if (wrong * 500 > expected.size())
        fail("%d bits, group %d, act_order %d, static %d, sym %d, mse %d, alpha %g, beta %g: %zu of %zu weights differ", o.wbits,
             o.group_size, o.act_order, o.static_groups, o.sym, o.mse, alpha, beta, wrong, expected.size());
    // ||W X~ - W^ X||^2 - ||W (X~ - X)||^2, relative to ||W X||^2, from the inputs themselves.
    double objective = 0, norm = 0;
    for (int r = 0; r < p.O; r++)
        for (int t = 0; t < p.n; t++) {
            double y = 0, full = 0, found = 0;
            for (int i = 0; i < p.I; i++) {
                const double w = p.W[(size_t)r * p.I + i], x = p.X[(size_t)t * p.I + i];
                const double d = to_float(to_floatX(p.X_full[(size_t)t * p.I + i] - p.X[(size_t)t * p.I + i]));
                y += w * x, full += w * d, found += (w - s.W[(size_t)r * p.I + i]) * x;
            }
            objective += (full + found) * (full + found) - full * full, norm += y * y;
        }
    CHECK_NEAR(s.objective, objective / norm, 1e-4 * std::fabs(objective / norm) + 1e-5);
}

TEST(gptaq_and_foem_are_their_definitions_for_every_option) {
    const Problem p = make_pair(5, 288, 400, 21, 33), dead = make_pair(5, 288, 400, 22, -1, 10, 4);
    const std::pair<double, double> terms[] = {{0.25, 0}, {1, 0}, {0, 0.1}, {0, 0.25}, {0.25, 0.2}};
    for (const auto& [alpha, beta] : terms) {
        for (int group : {-1, 32, 100, 128, 288}) check_pair_against_definition(p, options(3, group, true), alpha, beta);
        check_pair_against_definition(p, options(4, 128, false), alpha, beta);
        check_pair_against_definition(p, options(2, 64, true, true), alpha, beta);
        check_pair_against_definition(p, options(3, 100, false, true, true), alpha, beta);
        check_pair_against_definition(p, options(3, 128, true, false, false, true), alpha, beta);
        check_pair_against_definition(dead, options(3, 128, true), alpha, beta);
        check_pair_against_definition(dead, options(3, -1, true), alpha, beta);
    }
}

TEST(gptaq_and_foem_without_their_terms_are_gptq) {
    const Problem p = make_pair(40, 300, 401, 23, 33);
    auto solved = [&](const std::vector<float>& x_full, const QuantOptions& o, double alpha, double beta) {
        return solve_pair(p.O, p.I, p.n, 1, p.W, p.X, x_full, o, alpha, beta);
    };
    for (const QuantOptions& o : {options(3, 128, true), options(4, -1, false), options(2, 100, true, true)}) {
        const std::vector<float> gptq = solve(p, o).W;
        CHECK(solved(p.X_full, o, 0, 0).W == gptq);
        CHECK(solved(p.X, o, 0.25, 0).W == gptq);  // two equal streams: D is 0
        CHECK(solved(p.X_full, o, 0.25, 0).W != gptq);
        CHECK(solved(p.X_full, o, 0, 0.1).W != gptq);
    }
    const SolvedPair equal = solved(p.X, options(3, 128, true), 0.25, 0);
    CHECK_NEAR(equal.objective, std::pow(output_error_ref(p, equal.W), 2), 1e-3 * equal.objective);
}

TEST(gptaq_comes_closer_to_the_full_precision_outputs) {
    const Problem p = make_pair(16, 256, 800, 24, -1);
    const QuantOptions o = options(4, 128, true);
    const auto objective = [&](double alpha) { return solve_pair(p.O, p.I, p.n, 1, p.W, p.X, p.X_full, o, alpha, 0).objective; };
    CHECK(objective(0) > 0 && objective(0.25) < 0);
}

// The outputs of the original code.
TEST(gptaq_and_foem_give_the_codes_of_the_originals) {
    Checkpoint ck = safetensors_open("test/golden/gptaq.safetensors");
    const auto numbers = [&](const char* name) {
        std::vector<float> values;
        for (uint16_t bits : golden<uint16_t>(ck, name)) {
            bf16 x;
            memcpy(&x, &bits, 2);
            values.push_back(to_float(x));
        }
        return values;
    };
    const int O = 64, I = 256, n = 768;
    const std::vector<float> W = numbers("W"), X = numbers("X"), X_full = numbers("X_full");
    const std::vector<int> order = golden<int>(ck, "order");
    std::vector<int> group(I);
    for (int k = 0; k < I; k++) group[order[k]] = k / 128;
    const struct {
        std::string name;
        double alpha, beta;
    } runs[] = {{"gptq", 0, 0}, {"gptaq", 0.25, 0}, {"foem", 0, 0.1}, {"foem_gptaq", 0.25, 0.2}};
    for (const auto& run : runs) {
        const SolvedPair s = solve_pair(O, I, n, 1, W, X, X_full, options(3, 128, true), run.alpha, run.beta);
        const std::vector<uint8_t> codes = golden<uint8_t>(ck, run.name + ".codes");
        const std::vector<float> scale = golden<float>(ck, run.name + ".scale"), zero = golden<float>(ck, run.name + ".zero");
        size_t wrong = 0;
        double difference = 0, norm = 0;
        for (int r = 0; r < O; r++) {
            for (int j = 0; j < I; j++) {
                const int g = r * 2 + group[j];
                wrong += std::fabs(s.W[r * I + j] - scale[g] * ((float)codes[r * I + j] - zero[g])) > 0.25f * scale[g];
            }
            for (int t = 0; t < n; t++) {
                double full = 0, y = 0;
                for (int j = 0; j < I; j++)
                    full += (double)W[r * I + j] * X_full[t * I + j], y += (double)s.W[r * I + j] * X[t * I + j];
                difference += (full - y) * (full - y), norm += full * full;
            }
        }
        if (wrong * 500 > codes.size()) fail("%s: %zu of %zu codes differ", run.name.c_str(), wrong, codes.size());
        const double error = golden<double>(ck, run.name + ".error")[0];
        CHECK_NEAR(std::sqrt(difference / norm), error, (sizeof(floatX) == 4 ? 1e-3 : 4e-3) * error);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What is not nominal

TEST(gptq_raises_the_damping_and_says_so) {
    Problem p = make_problem(4, 64, 3, 5, -1);  // 3 tokens: H has rank 3
    QuantOptions o = options(4, 32, true);
    o.damp = 0;
    CHECK_EQ(solve(p, o).result.damp, 0.01);
}

// Ten times as much, and again, up to 1, which is tried wherever it began.
TEST(the_damping_goes_up_to_1) {
    for (double damp : {0.0, 0.01, 0.02, 0.05, 1.0})
        CHECK_EQ(hessian_factor(to_device(std::vector<float>{1, 1.7f, 1.7f, 1}).data, 2, 2, damp, true, "test").damp, 1.0);
    for (double damp : {0.05, 1.0})
        CHECK_ERROR(hessian_factor(to_device(std::vector<float>{1, 2.1f, 2.1f, 1}).data, 2, 2, damp, true, "test"),
                    "test: the Hessian is not positive definite even with damping 1.");
    CHECK_ERROR(hessian_factor(to_device(std::vector<float>{1, 4, 4, 1}).data, 2, 2, 2, true, "test"), "even with damping 2.");
}

TEST(gptq_names_where_it_failed) {
    Problem p = make_problem(4, 64, 20, 6, -1);
    p.X[70] = NAN;
    CHECK_ERROR(solve(p, options(4, 32, true)), "test: the Hessian has a non-finite diagonal entry at input channel 6");
}

TEST(gptq_twice_gives_the_same_bytes) {
    const Problem p = make_problem(40, 256, 300, 7, -1);
    const Solved a = solve(p, options(3, 128, true)), b = solve(p, options(3, 128, true));
    CHECK(memcmp(a.W.data(), b.W.data(), a.W.size() * sizeof(float)) == 0);
    CHECK_EQ(a.error, b.error);
}
