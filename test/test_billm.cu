// BiLLM against references that share no code with it: a PyTorch implementation on a 256 x 512 problem (scripts/golden/golden_billm.py),
// and here a float64 one written from the definition alone: whole masks instead of ranked rows, and the explicit inverse of the
// Hessian, downdated column by column, instead of a Cholesky factor.
#include "golden.h"
#include "test.h"
#include <random>

// ---------------------------------------------------------------------------------------------------------------------
// The definition in float64

typedef std::vector<double> Matrix;  // [rows, columns]
typedef std::vector<bool> Mask;      // of the same shape

// `closest` becomes the least |x - m| / a that is met, if it is less: a sign that hangs on rounding says nothing about the code.
static Matrix R_ref(const Matrix& A, const Mask& mask, int order, int rows, int columns, double* closest) {
    Matrix sum(A.size(), 0);
    for (int o = 0; o < order; o++)
        for (int r = 0; r < rows; r++) {
            double count = 0, mean = 0, alpha = 0;
            for (int i = r * columns; i < (r + 1) * columns; i++)
                if (mask[i]) mean += A[i] - sum[i], count++;
            if (count == 0) continue;
            mean /= count;
            for (int i = r * columns; i < (r + 1) * columns; i++)
                if (mask[i]) alpha += std::fabs(A[i] - sum[i] - mean) / count;
            for (int i = r * columns; i < (r + 1) * columns; i++) {
                if (!mask[i]) continue;
                const double d = A[i] - sum[i] - mean;
                if (alpha > 1e-9) *closest = std::min(*closest, std::fabs(d) / alpha);
                sum[i] += mean + (d > 0 ? alpha : d < 0 ? -alpha : 0);
            }
        }
    return sum;
}

static double square_error_ref(const Matrix& A, std::initializer_list<Matrix> parts) {
    double error = 0;
    for (size_t i = 0; i < A.size(); i++) {
        double left = A[i];
        for (const Matrix& part : parts) left -= part[i];
        error += left * left;
    }
    return error;
}

// As torch.quantile: linear interpolation at q (n - 1), q = percent / 100.
static double quantile_ref(std::vector<double> x, int percent) {
    std::sort(x.begin(), x.end());
    const double position = percent * (double)(x.size() - 1) / 100;
    const size_t low = std::min((size_t)position, x.size() - 1), high = std::min(low + 1, x.size() - 1);
    return x[low] + (x[high] - x[low]) * (position - (double)low);
}

struct Reference {
    Matrix W;                       // [O, I] W^
    std::vector<int> masks;         // [O, I] 0 small, 1 large, 2 salient
    std::vector<int> n_salient;     // of each block
    std::vector<double> thresholds;
};

// The least, and that rounding could not have made another one the least.
static int clear_least(const std::vector<double>& losses) {
    const int best = (int)(std::min_element(losses.begin(), losses.end()) - losses.begin());
    for (int i = 0; i < (int)losses.size(); i++)
        if (i != best && losses[i] < losses[best] * (1 + 3e-5))
            fail("the problem is not fit for a test: candidates %d and %d are too close", best, i);
    return best;
}

static Reference billm_ref(const GoldenProblem& p, bool hessian_metric, double damp) {
    const int O = p.O, I = p.I;
    Matrix W(p.W.begin(), p.W.end()), H((size_t)I * I, 0), inverse((size_t)I * I, 0);
    for (int t = 0; t < p.n; t++)
        for (int i = 0; i < I; i++)
            for (int j = 0; j < I; j++) H[(size_t)i * I + j] += 2.0 / p.sequences * p.X[(size_t)t * I + i] * p.X[(size_t)t * I + j];
    double mean = 0;
    for (int i = 0; i < I; i++) {
        if (H[(size_t)i * I + i] == 0) {
            H[(size_t)i * I + i] = 1;
            for (int r = 0; r < O; r++) W[(size_t)r * I + i] = 0;
        }
        mean += H[(size_t)i * I + i] / I;
    }
    for (int i = 0; i < I; i++) H[(size_t)i * I + i] += damp * mean, inverse[(size_t)i * I + i] = 1;
    for (int i = 0; i < I; i++) {  // Gauss-Jordan
        const double pivot = H[(size_t)i * I + i];
        for (int j = 0; j < I; j++) H[(size_t)i * I + j] /= pivot, inverse[(size_t)i * I + j] /= pivot;
        for (int r = 0; r < I; r++) {
            const double f = H[(size_t)r * I + i];
            if (r == i || f == 0) continue;
            for (int j = 0; j < I; j++) {
                H[(size_t)r * I + j] -= f * H[(size_t)i * I + j];
                inverse[(size_t)r * I + j] -= f * inverse[(size_t)i * I + j];
            }
        }
    }
    // Row k of `inverse` becomes that of the inverse of what is left of H when the columns before k are gone: U_kk U_kj.
    for (int k = 0; k < I; k++)
        for (int i = k + 1; i < I; i++) {
            const double f = inverse[(size_t)i * I + k] / inverse[(size_t)k * I + k];
            for (int j = k + 1; j < I; j++) inverse[(size_t)i * I + j] -= f * inverse[(size_t)k * I + j];
        }

    Reference ref = {Matrix((size_t)O * I), std::vector<int>((size_t)O * I), {}, {}};
    for (int start = 0; start < I; start += 128) {
        const int n = std::min(128, I - start);
        Matrix W1((size_t)O * n), S((size_t)O * n);
        std::vector<double> saliency(n, 0);
        for (int r = 0; r < O; r++)
            for (int j = 0; j < n; j++) {
                const double w = W[(size_t)r * I + start + j], U_squared = inverse[(size_t)(start + j) * I + start + j];
                W1[r * n + j] = w, S[r * n + j] = hessian_metric ? w * w / U_squared : w;
                saliency[j] += std::fabs(S[r * n + j]);
            }
        std::vector<int> ranking(n);
        for (int j = 0; j < n; j++) ranking[j] = j;
        std::stable_sort(ranking.begin(), ranking.end(), [&](int a, int b) { return saliency[a] > saliency[b]; });
        auto masks_of = [&](int n_salient, double t) {
            std::vector<Mask> masks(4, Mask((size_t)O * n, false));  // small, large, salient, not salient
            for (int k = 0; k < n; k++)
                for (int r = 0; r < O; r++) {
                    const int i = r * n + ranking[k];
                    masks[k < n_salient ? 2 : std::fabs(S[i]) >= t ? 1 : 0][i] = true;
                    masks[3][i] = k >= n_salient;
                }
            return masks;
        };
        double closest = INFINITY;
        auto R = [&](const Matrix& A, const Mask& mask, int order) { return R_ref(A, mask, order, O, n, &closest); };
        std::vector<double> losses;
        for (int c = 1; c <= std::min(49, n); c++) {
            const std::vector<Mask> m = masks_of(c, 0);
            losses.push_back(square_error_ref(S, {R(S, m[2], 2), R(S, m[3], 2)}));
        }
        const int n_salient = 1 + clear_least(losses);
        std::vector<double> magnitudes, candidates;
        const std::vector<Mask> with_salient = masks_of(n_salient, 0);
        for (size_t i = 0; i < S.size(); i++) magnitudes.push_back(with_salient[2][i] ? 0 : std::fabs(S[i]));
        losses.clear();
        for (int c = 0; c < 81; c++) {
            candidates.push_back(quantile_ref(magnitudes, 10 + c));
            const std::vector<Mask> m = masks_of(n_salient, candidates[c]);
            losses.push_back(square_error_ref(S, {R(S, m[0], 1), R(S, m[1], 1), R(S, m[2], 2)}));
        }
        const double t = candidates[clear_least(losses)];
        const std::vector<Mask> m = masks_of(n_salient, t);
        closest = INFINITY;
        const Matrix small = R(W1, m[0], 1), large = R(W1, m[1], 1), salient = R(W1, m[2], 2);
        if (closest < 1e-5) fail("the problem is not fit for a test: a weight is at its set's mean");
        for (int r = 0; r < O; r++)
            for (int k = 0; k < n; k++) {
                const int i = r * n + k, column = start + k;
                const double rounded = small[i] + large[i] + salient[i];
                const double error = (W1[i] - rounded) / inverse[(size_t)column * I + column];
                ref.W[(size_t)r * I + column] = rounded;
                ref.masks[(size_t)r * I + column] = m[2][i] ? 2 : m[1][i];
                for (int j = start + n; j < I; j++) W[(size_t)r * I + j] -= error * inverse[(size_t)column * I + j];
            }
        ref.n_salient.push_back(n_salient), ref.thresholds.push_back(t);
    }
    return ref;
}

// ---------------------------------------------------------------------------------------------------------------------
// The program's BiLLM on a problem

// A few columns of large weights; row 1 is 0, row 2 far from it.
// Column `dead_column`, and with `dead_every` also each of that many, never has an input.
static GoldenProblem make_problem(int O, int I, int n, unsigned seed, int dead_column, int dead_every = 0, int sequences = 1) {
    GoldenProblem p{O, I, n, {}, {}, sequences};
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (int r = 0; r < O; r++)
        for (int i = 0; i < I; i++) {
            const float size = r == 1 ? 0 : i % 9 == 4 ? 2.0f : 1.0f;
            p.W.push_back(to_float(to_bf16((size * normal(random) + (r == 2 ? 3.0f : 0)) * 0.05f)));
        }
    std::vector<float> scale(I);
    for (int i = 0; i < I; i++) {
        const bool dead = i == dead_column || (dead_every && i % dead_every == 3);
        scale[i] = dead ? 0 : i % 11 == 2 ? 3.0f : 0.5f + 0.1f * (i % 7);
    }
    for (int t = 0; t < n; t++) {
        const float shared = normal(random);
        for (int i = 0; i < I; i++) p.X.push_back(to_float(to_bf16(scale[i] * (normal(random) + 0.5f * shared))));
    }
    return p;
}

struct Solved {
    std::vector<float> W;        // [O, I]
    std::vector<uint8_t> masks;  // [O, I]
    BillmResult result;
    double error;                // relative output error
};

static Solved solve(const GoldenProblem& p, bool hessian_metric, double damp = 0.01) {
    Array<floatX> W = upload(p.W), X = upload(p.X);
    Quantizer q;
    q.n_sequences = (size_t)p.sequences;
    Group group = {"test", p.O, p.I, W.data, nullptr, 1, {{"test", 0, p.O}}};
    hessian_collect(q, group, 0, X.data, p.n);
    const float* H = q.hessian[0].H.data;
    mirror_upper(q.hessian[0].H.data, p.I);
    Array<float> W0 = weights_to_float(group);
    Array<uint8_t> masks((size_t)p.O * p.I, "masks");
    Solved s;
    const HessianFactor f = hessian_factor(H, p.I, q.hessian[0].n, damp, false, "test");
    s.result = billm_weights(W.data, W0.data, p.O, p.I, f, hessian_metric, "test", masks.data);
    s.error = output_errors(group, W0.data, H)[0];
    s.W = download(W);
    s.masks.resize(masks.n);
    copy(s.masks.data(), masks.data, masks.n);
    return s;
}

static void check_against_definition(const GoldenProblem& p, bool hessian_metric, double damp = 0.01) {
    const Solved s = solve(p, hessian_metric, damp);
    const Reference ref = billm_ref(p, hessian_metric, damp);
    CHECK_EQ(s.result.n_salient.size(), ref.n_salient.size());
    int salient = 0;
    for (size_t b = 0; b < ref.n_salient.size(); b++) {
        CHECK_EQ(s.result.n_salient[b], ref.n_salient[b]);
        CHECK_NEAR(s.result.thresholds[b], ref.thresholds[b], 1e-4 * ref.thresholds[b]);
        salient += ref.n_salient[b];
    }
    CHECK_NEAR(s.result.bits, 1 + (double)salient / p.I, 1e-12);
    const double storage = sizeof(floatX) == 4 ? 1e-4 : 4e-3;  // what storing W^ costs
    for (size_t i = 0; i < ref.W.size(); i++) {
        CHECK_EQ((int)s.masks[i], ref.masks[i]);
        CHECK_NEAR(s.W[i], ref.W[i], storage * std::fabs(ref.W[i]) + 1e-5);
    }
}

TEST(billm_is_its_definition_by_the_hessian) {
    check_against_definition(make_problem(12, 192, 400, 1, 33), true);
    check_against_definition(make_problem(7, 300, 500, 2, -1), true);
    check_against_definition(make_problem(40, 160, 300, 13, 130), true, 0.1);
}

TEST(billm_is_its_definition_by_magnitude) {
    check_against_definition(make_problem(12, 192, 400, 4, 33), false);
    check_against_definition(make_problem(7, 300, 500, 5, -1), false);
}

TEST(billm_with_dead_channels_has_the_originals_factor) {
    GoldenProblem p = make_problem(12, 256, 384, 14, -1, 10, 3);  // 26 of 256 channels
    for (float& x : p.X) x /= 16;                                 // the dead channels' 1 is then not small
    check_against_definition(p, true);
    GoldenProblem by_tokens = p;  // the wrong factor gives other masks: the problem can tell
    by_tokens.sequences = p.n;
    CHECK(billm_ref(p, true, 0.01).masks != billm_ref(by_tokens, true, 0.01).masks);
    check_against_definition(make_problem(9, 192, 300, 15, -1, 10, 6), false);
}

TEST(billm_on_a_group_narrower_than_the_salient_search) {
    check_against_definition(make_problem(6, 24, 100, 6, -1), true);
    check_against_definition(make_problem(5, 130, 300, 7, -1), false);  // a last block of two columns
}

TEST(billm_counts_a_weight_at_the_threshold_as_large) {
    check_against_definition(make_problem(3, 67, 200, 12, -1), true);  // 201 values: every quantile is one of them
    check_against_definition(make_problem(3, 67, 200, 13, -1), false);
}

// ---------------------------------------------------------------------------------------------------------------------
// The PyTorch reference at a realistic size

static double rtn_error(const GoldenProblem& p) {
    Array<floatX> W = upload(p.W), X = upload(p.X);
    Layer layer;
    layer.groups[0] = {"test", p.O, p.I, W.data, nullptr, 1, {{"test", 0, p.O}}};
    Quantizer q;
    q.opt.wbits = 1, q.opt.group_size = -1;
    hessian_collect(q, layer.groups[0], 0, X.data, p.n);
    mirror_upper(q.hessian[0].H.data, p.I);
    Array<float> W0 = weights_to_float(layer.groups[0]);
    rtn_solve(q, layer, 0);
    return output_errors(layer.groups[0], W0.data, q.hessian[0].H.data)[0];
}

TEST(billm_agrees_with_the_pytorch_reference) {
    Checkpoint ck = safetensors_open("test/golden/billm.safetensors");
    const GoldenProblem p = golden_problem(ck);
    CHECK_NEAR(rtn_error(p), golden<double>(ck, "rtn.error")[0], 1e-3);
    for (const std::string name : {"hessian", "magnitude"}) {
        const Solved s = solve(p, name == "hessian");
        const std::vector<uint8_t> masks = golden<uint8_t>(ck, name + ".masks");
        const std::vector<float> W = golden<float>(ck, name + ".W_hat");
        const std::vector<double> thresholds = golden<double>(ck, name + ".threshold");
        const double error = golden<double>(ck, name + ".error")[0];
        CHECK(s.result.n_salient == golden<int>(ck, name + ".n_salient"));
        for (size_t b = 0; b < thresholds.size(); b++) CHECK_NEAR(s.result.thresholds[b], thresholds[b], 1e-4 * thresholds[b]);
        size_t wrong = 0, off = 0;
        for (size_t i = 0; i < s.masks.size(); i++) wrong += s.masks[i] != (masks[i / 4] >> 2 * (i % 4) & 3);
        const double storage = sizeof(floatX) == 4 ? 1e-4 : 4e-3;
        for (size_t i = 0; i < W.size(); i++) off += std::fabs(s.W[i] - W[i]) > storage * std::fabs(W[i]) + 1e-6;
        if (wrong * 1000 > s.masks.size()) fail("%s: %zu of %zu masks differ", name.c_str(), wrong, s.masks.size());
        if (off * 1000 > W.size()) fail("%s: %zu of %zu weights differ", name.c_str(), off, W.size());
        CHECK_NEAR(s.error, error, 1e-3 * error);
        CHECK(s.error < 0.5 * rtn_error(p));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Its parts

KERNEL binarize_twice_kernel(float* out /*[n]*/, const float* x /*[n]*/, int n) {
    const Binary2 b = binary2_fit(x, n);
    for (int j = threadIdx.x; j < n; j += blockDim.x) out[j] = binary2_round(b, x[j]);
}

TEST(binarization_of_order_two_by_hand) {
    const std::pair<std::vector<float>, std::vector<float>> cases[] = {
        // mean 0, alpha 2/3 leave -1/3, 0, 1/3, of which alpha is 2/9; the sign of 0 is 0
        {{-1, 0, 1}, {-8.0f / 9, 0, 8.0f / 9}},
        // mean 2, alpha 7/2 leave -5/2, 5/2, 1/2, -1/2: mean 0, alpha 3/2
        {{-4, 1, 6, 5}, {-3, 0, 7, 4}},
        // mean 1, alpha 3/2 leave 1/2, 1/2, 1/2, 3/2: mean 3/4, alpha 3/8
        {{0, 0, 0, 4}, {-0.125f, -0.125f, -0.125f, 3.625f}},
        {{7}, {7}},
        {{3, -5}, {3, -5}}};
    for (const auto& c : cases) {
        const int n = (int)c.first.size();
        Array<float> x(n, "values"), out(n, "values");
        copy(x.data, c.first.data(), n);
        launch(binarize_twice_kernel, 1, 32, out.data, x.data, n);
        std::vector<float> rounded(n);
        copy(rounded.data(), out.data, n);
        for (int j = 0; j < n; j++) CHECK_NEAR(rounded[j], c.second[j], 1e-6);
    }
}

TEST(sort_ascending_sorts) {
    for (size_t n : {(size_t)0, (size_t)1, (size_t)2, (size_t)1000, (size_t)100001}) {
        std::mt19937 random(7);
        std::vector<float> expected(n);
        for (float& x : expected) x = (float)(random() % 5000) * 0x1p-3f * (random() % 3 == 0 ? 1e-30f : -1e3f);
        Array<float> device(n, "values");
        copy(device.data, expected.data(), n);
        sort_ascending(device.data, n);
        std::sort(expected.begin(), expected.end());
        std::vector<float> sorted(n);
        copy(sorted.data(), device.data, n);
        CHECK(sorted == expected);
    }
}

TEST(quantiles_are_interpolated) {
    for (size_t n : {(size_t)1, (size_t)2, (size_t)101, (size_t)1600}) {
        std::vector<float> x(n), quantiles(81);
        for (size_t i = 0; i < n; i++) x[i] = (float)(i * i);
        Array<float> x_d(n, "values"), quantiles_d(81, "quantiles");
        copy(x_d.data, x.data(), n);
        launch(billm_quantiles_kernel, 1, 128, quantiles_d.data, x_d.data, n);
        copy(quantiles.data(), quantiles_d.data, (size_t)81);
        for (int k = 0; k < 81; k++) {
            const double expected = quantile_ref(std::vector<double>(x.begin(), x.end()), 10 + k);
            CHECK_NEAR(quantiles[k], expected, 1e-6 * expected);
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// billm_solve: a group's linears, reports, and what is not nominal

struct SolvedGroup {
    std::vector<float> W;
    Quantizer q;
};

// The problem's rows as two linears of layer 3.
static SolvedGroup solve_group(const GoldenProblem& p, int split, double damp = 0.01, const char* salient_metric = "hessian") {
    Array<floatX> W = upload(p.W), X = upload(p.X);
    Layer layer;
    layer.index = 3;
    layer.groups[2] = {"gate_up", p.O, p.I, W.data, nullptr, 2, {{"gate_proj", 0, split}, {"up_proj", split, p.O - split}}};
    SolvedGroup s;
    s.q.opt.damp = damp, s.q.opt.salient_metric = salient_metric;
    hessian_collect(s.q, layer.groups[2], 2, X.data, p.n);
    billm_solve(s.q, layer, 2);
    s.W = download(W);
    return s;
}

TEST(billm_solves_each_linear_of_a_group_on_its_own) {
    GoldenProblem p = make_problem(30, 192, 400, 8, 50);
    const SolvedGroup both = solve_group(p, 20);
    GoldenProblem first = p, second = p;
    first.O = 20, first.W.resize((size_t)20 * p.I);
    second.O = 10, second.W.erase(second.W.begin(), second.W.begin() + 20 * p.I);
    const Solved a = solve(first, true), b = solve(second, true);
    std::vector<float> expected = a.W;
    expected.insert(expected.end(), b.W.begin(), b.W.end());
    CHECK(both.W == expected);
    CHECK_EQ(both.q.reports.size(), (size_t)2);
    const ModuleReport &gate = both.q.reports[0], &up = both.q.reports[1];
    CHECK_EQ(up.module, std::string("up_proj"));
    CHECK_EQ(up.layer, 3);
    CHECK_EQ(up.error_kind, std::string("output"));
    CHECK_EQ(up.values[0].second, b.result.bits);
    CHECK_EQ(up.values[1].second, 0.01);
    CHECK_EQ(up.note, std::string("1 dead input channels"));
    CHECK_NEAR(gate.error, a.error, 1e-6);
    CHECK_NEAR(up.error, b.error, 1e-6);
    CHECK_NEAR(both.q.weight_bits / both.q.weights, (2 * a.result.bits + b.result.bits) / 3, 1e-12);
}

TEST(billm_solves_a_group_by_the_metric_and_damping_that_are_asked_for) {
    const GoldenProblem p = make_problem(12, 192, 400, 16, 50);
    GoldenProblem first = p, second = p;
    first.O = 7, first.W.resize((size_t)7 * p.I);
    second.O = 5, second.W.erase(second.W.begin(), second.W.begin() + 7 * p.I);
    std::vector<std::vector<float>> all;
    for (const char* metric : {"hessian", "magnitude"})
        for (double damp : {0.01, 0.3}) {
            const bool hessian_metric = std::string(metric) == "hessian";
            std::vector<float> expected = solve(first, hessian_metric, damp).W;
            const std::vector<float> rest = solve(second, hessian_metric, damp).W;
            expected.insert(expected.end(), rest.begin(), rest.end());
            CHECK(solve_group(p, 7, damp, metric).W == expected);
            CHECK(std::find(all.begin(), all.end(), expected) == all.end());
            all.push_back(expected);
        }
}

TEST(billm_raises_the_damping_and_says_so) {
    const SolvedGroup s = solve_group(make_problem(6, 64, 3, 9, -1), 4, 0);  // 3 tokens: H has rank 3
    CHECK_EQ(s.q.reports[0].note, std::string("damping raised to 0.01"));
}

TEST(billm_names_where_it_failed) {
    GoldenProblem p = make_problem(8, 192, 100, 10, -1);
    p.X[195] = NAN;
    CHECK_ERROR(solve_group(p, 4), "layer 3, gate_up: the Hessian has a non-finite diagonal entry at input channel 3");
    p = make_problem(8, 192, 100, 10, -1);
    p.W[5 * 192 + 140] = NAN;
    CHECK_ERROR(solve_group(p, 4), "layer 3, up_proj: weights of input channel 140 are NaN or Inf");
    p.W[5 * 192 + 140] = 0.1f, p.W[2 * 192 + 7] = INFINITY;
    CHECK_ERROR(solve_group(p, 4), "layer 3, gate_proj: weights of input channel 7 are NaN or Inf");
    p.W[2 * 192 + 7] = 1e18f;  // its saliency is finite, the square of that is not
    CHECK_ERROR(solve_group(p, 4), "layer 3, gate_proj: BiLLM's error is not finite");
}

TEST(billm_twice_gives_the_same_bytes) {
    const GoldenProblem p = make_problem(300, 256, 300, 11, -1);
    const Solved a = solve(p, true);
#ifndef __CUDACC__
    const int threads = omp_get_max_threads();
    omp_set_num_threads(threads == 1 ? 2 : 1);
#endif
    const Solved b = solve(p, true);
#ifndef __CUDACC__
    omp_set_num_threads(threads);
#endif
    CHECK(memcmp(a.W.data(), b.W.data(), a.W.size() * sizeof(float)) == 0);
    CHECK(a.masks == b.masks);
    CHECK_EQ(a.error, b.error);
}

TEST(billm_finds_its_row_of_the_paper) {
    const PaperRow row = paper_row_find("data/paper/tables.csv", "Qwen3-0.6B-Base", "billm", 1, 16, 128);
    CHECK_EQ(row.cell("wbits"), std::string("1.06"));
    CHECK_EQ(row.cell("wikitext2"), std::string("8.64E4"));
    CHECK(paper_row_find("data/paper/tables.csv", "Qwen3-0.6B-Base", "billm", 1, 8, 128).cells.empty());
}

// What the row prints for W is the mean over weights, not over modules: the bundled model's have 65,536 to 131,072.
TEST(billms_bits_are_the_mean_over_all_weights) {
    skip_when_emulated();
    const Report r = run_quietly({"-m", "data/tiny", "--data", "data/tiny", "-q", "billm", "-n", "2", "-l", "256", "--limit", "1"});
    const Config c = config_load("data/tiny/config.json");
    double weights = 0, bits = 0, modules = 0;
    for (const ModuleResult& m : r.modules) {
        const bool kv = m.module == "k_proj" || m.module == "v_proj", qo = m.module == "q_proj" || m.module == "o_proj";
        const double n = (double)c.C * (kv ? c.KV * c.D : qo ? c.H * c.D : c.F);
        CHECK_EQ(m.values[0].first, "bits");
        CHECK(m.values[0].second > 1 && m.values[0].second < 1.5);
        weights += n, bits += n * m.values[0].second, modules += m.values[0].second / r.modules.size();
    }
    CHECK_EQ(r.modules.size(), (size_t)4 * 7);
    CHECK_NEAR(r.effective_bits, bits / weights, 1e-9);
    CHECK(std::fabs(modules - bits / weights) > 1e-5);
    CHECK(report_text(r).find(format("  billm   %.2f  16  ", bits / weights)) != std::string::npos);
}
