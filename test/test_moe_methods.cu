// Quantizing mixtures of experts: a layer with one expert that no token reaches, one that few, some that many and one that all reach,
// each method's experts against the method's definition in float64 or against the method on that expert alone; some at a time.
#include <array>
#include "golden.h"
#include "test.h"

static const bool EXACT = sizeof(floatX) == 4;
static const int NOBODYS = 5, RARE = 4, EVERYBODYS = 2;  // experts

// Layer 0 of test/golden/moe and a calibration stream of 512 tokens. The stream has a direction d in common, in or against which the
// router looks to give the three experts above what their names say.
struct MoeLayer {
    Model m;
    Layer layer;
    std::vector<Stream> streams;
    Scratch scratch;
    Quantizer q;
    std::vector<floatX> x0;              // the stream as it comes in
    std::vector<std::vector<float>> W0;  // [O, I] of each group as it was
    std::vector<float> router0, gain0;   // [E, C], [C]

    MoeLayer() {
        Options o;
        o.model = "test/golden/moe";
        m = model_open(o);
        const Config& c = m.config;
        layer = layer_alloc(c);
        for (const Param& p : layer_params(c, layer)) load_param(m, p);
        std::vector<int> tokens;
        for (int i = 0; i < 512; i++) tokens.push_back((int)(random_bits(i) % c.V));
        streams.push_back(stream_of_windows(c, "calibration", tokens, 256, false));
        Stream& s = streams[0];
        s.x.width = c.C, s.in.width = widest_input(c);
        s.x.data = Array<floatX>(tokens.size() * c.C, "activations");
        s.in.data = Array<floatX>(tokens.size() * s.in.width, "activations");
        stream_embed(m, s);
        std::vector<float> x = download(s.x.data);
        for (size_t i = 0; i < x.size(); i++) x[i] = x[i] * 20 + (i % c.C % 2 ? 8.0f : -8.0f);
        copy(s.x.data.data, upload(x).data, x.size());
        Array<floatX> router((size_t)c.mixture.E * c.C, "router");
        copy(router.data, layer.router, router.n);
        router0 = download(router);
        for (int i = 0; i < c.C; i++) {
            const float d = i % 2 ? 1.0f : -1.0f;
            router0[NOBODYS * c.C + i] = -d, router0[EVERYBODYS * c.C + i] = d, router0[RARE * c.C + i] -= 0.115f * d;
        }
        copy(layer.router, upload(router0).data, router0.size());
        router0 = values(layer.router, router0.size());  // as rounded
        x0.resize(x.size());
        copy(x0.data(), s.x.data.data, x0.size());
        for (const Group& g : layer.groups) W0.push_back(weights_of(g));
        gain0 = values(layer.post_norm, c.C);
        scratch = scratch_alloc(c, streams);
    }
    static std::vector<float> values(const floatX* from, size_t n) {
        Array<floatX> copied(n, "values");
        copy(copied.data, from, n);
        return download(copied);
    }
    static std::vector<float> weights_of(const Group& g) { return values(g.W, (size_t)g.O * g.I); }
    void quantize(std::vector<const char*> args, int at_once = INT_MAX, void (*solve_layer)(Quantizer&, Layer&) = nullptr) {
        args.insert(args.begin(), "qwen3");
        const Options o = options_parse((int)args.size(), args.data());
        ForwardContext forward = {m.config, streams[0], scratch};
        q.opt = o.quant, q.opt.groups_at_once = at_once;
        q.forward = &forward;
        q.n_calibration = streams[0].tokens.size(), q.n_sequences = streams[0].segments.size();
        Method method = method_for(o);
        if (solve_layer) method.solve_layer = solve_layer;
        quantize_layer(m.config, layer, method, q, &streams[0], scratch);
    }
    // What reaches each group, [n, I], when the stream goes through the layer as it is now, but for the groups first .. which are as they
    // were.
    std::vector<std::vector<float>> inputs(int first) {
        const Config& c = m.config;
        std::vector<std::vector<float>> now, X(layer.groups.size());
        for (size_t g = first; g < layer.groups.size(); g++) {
            now.push_back(weights_of(layer.groups[g]));
            copy(layer.groups[g].W, upload(W0[g]).data, W0[g].size());
        }
        Array<floatX> x(x0.size(), "stream");
        copy(x.data, x0.data(), x0.size());
        for (const Chunk& chunk : streams[0].chunks)
            for (int stage = 0; stage < STAGES; stage++) {
                layer_stage(c, layer, stage, x.data + chunk.start * c.C, scratch.in.data, chunk, scratch);
                const int begin = layer.first_group[stage], end = layer.first_group[stage + 1];
                const floatX* in = grouped_inputs(layer, stage, scratch.in.data, chunk, scratch, begin, end);
                for (int g = begin; g < end; g++) {
                    const Rows rows = group_rows(layer.groups[g], chunk);
                    if (rows.n == 0) continue;
                    const std::vector<float> part = values(in + rows.first * layer.groups[g].I, (size_t)rows.n * layer.groups[g].I);
                    X[g].insert(X[g].end(), part.begin(), part.end());
                }
            }
        for (size_t g = first; g < layer.groups.size(); g++)
            copy(layer.groups[g].W, upload(now[g - first]).data, now[g - first].size());
        return X;
    }
    int gate_up(int e) const { return 2 + e; }
    int down(int e) const { return 2 + m.config.mixture.E + e; }
};

// The worst of found's rows against expected's: how many of its values are not the same to 1e-3 of the row's range.
static double share_apart(const std::vector<float>& found, const std::vector<double>& expected, int I) {
    CHECK_EQ(found.size(), expected.size());
    size_t apart = 0;
    for (size_t r = 0; r < found.size() / I; r++) {
        const auto [lo, hi] = std::minmax_element(expected.begin() + r * I, expected.begin() + (r + 1) * I);
        for (int i = 0; i < I; i++) apart += !(std::fabs(found[r * I + i] - expected[r * I + i]) <= 0.02 * (*hi - *lo));
    }
    return (double)apart / found.size();
}

TEST(the_experts_have_the_tokens_that_their_names_say) {
    MoeLayer l;
    const auto X = l.inputs(0);
    CHECK_EQ(X[l.gate_up(NOBODYS)].size(), (size_t)0);
    CHECK_EQ(X[l.gate_up(EVERYBODYS)].size(), (size_t)512 * 64);
    const size_t rare = X[l.gate_up(RARE)].size() / 64;
    if (rare < 1 || rare >= 4) fail("the rare expert has %zu tokens", rare);
    for (int e : {0, 1, 3, 6, 7}) CHECK(X[l.gate_up(e)].size() / 64 >= 40);
}

// ---------------------------------------------------------------------------------------------------------------------
// GPTQ in float64, of one row a grid: the definition with an explicit inverse, in the order of the columns

static double nearest_on_grid(double w, double scale, double zero, double maxq) {
    return scale * (std::clamp(std::nearbyint(w / scale) + zero, 0.0, maxq) - zero);
}

static std::vector<double> gptq_in_float64(const std::vector<float>& W, const std::vector<double>& H0, int O, int I, int bits) {
    const double maxq = (1 << bits) - 1;
    std::vector<double> H = H0, inverse((size_t)I * I, 0), result(W.size());
    double mean = 0;
    for (int i = 0; i < I; i++) mean += H[(size_t)i * I + i] / I;
    for (int i = 0; i < I; i++) H[(size_t)i * I + i] += 0.01 * mean, inverse[(size_t)i * I + i] = 1;
    for (int i = 0; i < I; i++) {
        const double pivot = H[(size_t)i * I + i];
        for (int j = 0; j < I; j++) H[(size_t)i * I + j] /= pivot, inverse[(size_t)i * I + j] /= pivot;
        for (int r = 0; r < I; r++) {
            const double f = H[(size_t)r * I + i];
            for (int j = 0; j < I && r != i; j++) {
                H[(size_t)r * I + j] -= f * H[(size_t)i * I + j];
                inverse[(size_t)r * I + j] -= f * inverse[(size_t)i * I + j];
            }
        }
    }
    for (int r = 0; r < O; r++) {
        std::vector<double> w(W.begin() + (size_t)r * I, W.begin() + (size_t)(r + 1) * I), inv = inverse;
        const double lo = std::min(0.0, *std::min_element(w.begin(), w.end())),
                     hi = std::max(0.0, *std::max_element(w.begin(), w.end()));
        const double scale = (hi - lo) / maxq, zero = std::nearbyint(-lo / scale);
        for (int k = 0; k < I; k++) {
            const double d = inv[(size_t)k * I + k], q = nearest_on_grid(w[k], scale, zero, maxq);
            for (int j = k + 1; j < I; j++) w[j] -= (w[k] - q) / d * inv[(size_t)k * I + j];
            for (int i = k + 1; i < I; i++)
                for (int j = k + 1; j < I; j++) inv[(size_t)i * I + j] -= inv[(size_t)i * I + k] * inv[(size_t)k * I + j] / d;
            result[(size_t)r * I + k] = q;
        }
    }
    return result;
}

static std::vector<double> hessian_of(const std::vector<float>& X, int I) {
    std::vector<double> H((size_t)I * I, 0);
    for (size_t t = 0; t < X.size() / I; t++)
        for (int i = 0; i < I; i++)
            for (int j = 0; j < I; j++) H[(size_t)i * I + j] += (double)X[t * I + i] * X[t * I + j];
    return H;
}

static std::vector<double> identity(int I) {
    std::vector<double> H((size_t)I * I, 0);
    for (int i = 0; i < I; i++) H[(size_t)i * I + i] = 1;
    return H;
}

// gate and up share the inputs of their expert, down sees what the quantized two give; starved ones see nothing.
static void check_gptq(bool sequential) {
    MoeLayer l;
    if (sequential) l.quantize({"-q", "gptq", "-b", "3", "-g", "-1", "--no-act-order"});
    else l.quantize({"-q", "gptq", "-b", "3", "-g", "-1", "--no-act-order", "--no-true-sequential"});
    const auto X_gate_up = l.inputs(sequential ? l.gate_up(0) : 0), X_down = l.inputs(sequential ? l.down(0) : 0);
    for (int e : {0, 3, NOBODYS, RARE, EVERYBODYS})
        for (int g : {l.gate_up(e), l.down(e)}) {
            const Group& group = l.layer.groups[g];
            const std::vector<float>& X = g == l.gate_up(e) ? X_gate_up[g] : X_down[g];
            const bool starved = X.size() / group.I < (size_t)group.I / 8;
            CHECK_EQ(starved, e == NOBODYS || e == RARE);
            const std::vector<double> expected =
                gptq_in_float64(l.W0[g], starved ? identity(group.I) : hessian_of(X, group.I), group.O, group.I, 3);
            const double apart = share_apart(MoeLayer::weights_of(group), expected, group.I);
            if (!(apart <= 0.005)) fail("%s: %g of the weights are not those of the definition", group.name, apart);
        }
    size_t starved = 0;
    for (const ModuleReport& r : l.q.reports) {
        starved += r.starved;
        CHECK_EQ(r.note.empty(), !r.starved);
        CHECK_EQ(r.error_kind, r.starved ? "weight" : "output");
        if (r.module == "experts.5.down_proj") CHECK_EQ(r.note, "0 tokens: rounded to nearest");
    }
    CHECK_EQ(starved, (size_t)6);  // gate, up and down of two experts
    CHECK_EQ(l.q.reports.size(), (size_t)(4 + 8 * 3));
}

TEST(gptq_of_experts_is_its_definition) { check_gptq(true); }
TEST(gptq_of_experts_from_one_pass_is_its_definition) { check_gptq(false); }

TEST(starved_experts_are_rounded_to_nearest) {
    MoeLayer gptq, rtn;
    gptq.quantize({"-q", "gptq", "-b", "3", "-g", "16"});
    rtn.quantize({"-q", "rtn", "-b", "3", "-g", "16"});
    for (int e : {NOBODYS, RARE})
        for (int g : {gptq.gate_up(e), gptq.down(e)})
            CHECK(MoeLayer::weights_of(gptq.layer.groups[g]) == MoeLayer::weights_of(rtn.layer.groups[g]));
    CHECK(MoeLayer::weights_of(gptq.layer.groups[2]) != MoeLayer::weights_of(rtn.layer.groups[2]));
}

// With --calibrate-all-experts an expert sees all tokens: of gate and up the normed inputs, of down what it makes of them.
TEST(experts_that_see_all_tokens) {
    for (bool sequential : {true, false}) {
        MoeLayer l;
        std::vector<const char*> args = {"-q", "gptq", "-b", "3", "-g", "-1", "--no-act-order", "--calibrate-all-experts"};
        if (!sequential) args.push_back("--no-true-sequential");
        l.quantize(args, 3);
        const auto X = l.inputs(sequential ? l.gate_up(0) : 0);
        const int C = l.m.config.C, F = l.m.config.mixture.F;
        const std::vector<float>& all = X[l.gate_up(EVERYBODYS)];  // who gets them all in any case
        for (int e : {0, NOBODYS, RARE, EVERYBODYS}) {
            const std::vector<float> W = sequential ? MoeLayer::weights_of(l.layer.groups[l.gate_up(e)]) : l.W0[l.gate_up(e)];
            std::vector<float> own;
            for (size_t t = 0; t < all.size() / C; t++)
                for (int f = 0; f < F; f++) {
                    double gate = 0, up = 0;
                    for (int i = 0; i < C; i++) {
                        gate += (double)W[(size_t)f * C + i] * all[t * C + i];
                        up += (double)W[(size_t)(F + f) * C + i] * all[t * C + i];
                    }
                    own.push_back((float)(gate / (1 + std::exp(-gate)) * up));
                }
            for (int g : {l.gate_up(e), l.down(e)}) {
                const Group& group = l.layer.groups[g];
                const std::vector<double> expected =
                    gptq_in_float64(l.W0[g], hessian_of(g == l.gate_up(e) ? all : own, group.I), group.O, group.I, 3);
                // own is not rounded to bf16 as the program's is, and a weight near the middle of two codes may go either way
                const double apart = share_apart(MoeLayer::weights_of(group), expected, group.I);
                if (!(apart <= (EXACT ? 0.005 : 0.05)))
                    fail("%s: %g of the weights are not those of the definition", group.name, apart);
            }
        }
        for (const ModuleReport& r : l.q.reports) CHECK(!r.starved && r.error_kind == "output");
    }
}

static std::vector<float> all_weights(const MoeLayer& l) { return MoeLayer::values(l.layer.storage.data, l.layer.storage.n); }

TEST(experts_some_at_a_time_give_the_same_bytes) {
    MoeLayer all;
    all.quantize({"-q", "gptq", "-b", "3", "-g", "32"});
    const std::vector<float> x = download(all.streams[0].x.data);
    for (int at_once : {1, 3}) {
        MoeLayer some;
        some.quantize({"-q", "gptq", "-b", "3", "-g", "32"}, at_once);
        CHECK(all_weights(some) == all_weights(all));
        CHECK(download(some.streams[0].x.data) == x);
        CHECK_EQ(some.q.reports.size(), all.q.reports.size());
        for (size_t i = 0; i < some.q.reports.size(); i++) CHECK_EQ(some.q.reports[i].error, all.q.reports[i].error);
    }
}

#ifndef __CUDACC__
TEST(experts_do_not_depend_on_the_number_of_threads) {
    const int threads = omp_get_max_threads();
    for (const char* method : {"gptq", "awq", "billm", "smoothquant"}) {
        MoeLayer one, two;
        std::vector<const char*> args = {"-q", method};
        if (method == std::string("awq")) args.insert(args.end(), {"-g", "32"});
        omp_set_num_threads(1);
        one.quantize(args);
        omp_set_num_threads(2);
        two.quantize(args);
        omp_set_num_threads(threads);
        CHECK(all_weights(one) == all_weights(two));
    }
}
#endif

// ---------------------------------------------------------------------------------------------------------------------
// BiLLM: an expert's weights are those of a group by itself with the expert's inputs (test_billm.cu has the definition)

TEST(billm_of_experts_is_billm_of_each_alone) {
    MoeLayer l;
    l.quantize({"-q", "billm"});
    const auto X = l.inputs(0);
    for (int e : {0, NOBODYS, RARE, EVERYBODYS})
        for (int g : {l.gate_up(e), l.down(e)}) {
            const Group& group = l.layer.groups[g];
            Layer alone;
            Array<floatX> W = upload(l.W0[g]);
            alone.groups[0] = group, alone.groups[0].W = W.data;
            Quantizer q;
            q.opt = l.q.opt, q.n_sequences = l.q.n_sequences;
            if (e == NOBODYS || e == RARE) q.hessian[0] = white_hessian(group.I);
            else hessian_collect(q, group, 0, upload(X[g]).data, (int)(X[g].size() / group.I));
            billm_solve(q, alone, 0);
            const std::vector<float> found = MoeLayer::weights_of(group), expected = download(W);
            size_t apart = 0;  // the program adds its Hessian up chunk by chunk, as here
            for (size_t i = 0; i < found.size(); i++) apart += found[i] != expected[i];
            CHECK_EQ(apart, (size_t)0);
        }
}

// ---------------------------------------------------------------------------------------------------------------------
// SmoothQuant in float64: one s for all experts and the router

TEST(smoothquant_of_experts_is_its_definition) {
    MoeLayer l;
    const auto X = l.inputs(0);
    const int C = l.m.config.C, E = l.m.config.mixture.E;
    std::vector<double> a(C, 0), w(C, 0), s(C);
    for (int e = 0; e < E; e++) {
        for (size_t i = 0; i < X[l.gate_up(e)].size(); i++) a[i % C] = std::max(a[i % C], (double)std::fabs(X[l.gate_up(e)][i]));
        for (size_t i = 0; i < l.W0[l.gate_up(e)].size(); i++)
            w[i % C] = std::max(w[i % C], (double)std::fabs(l.W0[l.gate_up(e)][i]));
    }
    for (size_t i = 0; i < l.router0.size(); i++) w[i % C] = std::max(w[i % C], (double)std::fabs(l.router0[i]));
    for (int j = 0; j < C; j++) s[j] = std::sqrt(a[j] / w[j]);
    l.quantize({"-q", "smoothquant", "-b", "4"});
    const double eps = sizeof(floatX) == 4 ? 1e-5 : 0.005;
    const std::vector<float> router = MoeLayer::values(l.layer.router, l.router0.size()),
                             gain = MoeLayer::values(l.layer.post_norm, C);
    for (size_t i = 0; i < router.size(); i++)
        CHECK_NEAR(router[i], l.router0[i] * s[i % C], eps * std::fabs(l.router0[i] * s[i % C]));
    for (int j = 0; j < C; j++) CHECK_NEAR(gain[j], l.gain0[j] / s[j], eps * std::fabs(l.gain0[j] / s[j]));
    for (int e : {0, NOBODYS, RARE, EVERYBODYS})
        for (int g : {l.gate_up(e), l.down(e)}) {
            const Group& group = l.layer.groups[g];
            std::vector<double> expected(l.W0[g].begin(), l.W0[g].end());
            for (int r = 0; r < group.O; r++) {
                double most = 1e-5;
                for (int i = 0; i < group.I; i++) {
                    double& x = expected[(size_t)r * group.I + i];
                    if (g == l.gate_up(e)) x *= s[i];
                    most = std::max(most, std::fabs(x));
                }
                for (int i = 0; i < group.I; i++) {
                    double& x = expected[(size_t)r * group.I + i];
                    x = std::nearbyint(x / (most / 7)) * (most / 7);
                }
            }
            CHECK(share_apart(MoeLayer::weights_of(group), expected, group.I) <= 0.002);
        }
}

// ---------------------------------------------------------------------------------------------------------------------
// AWQ in float64: one s for all experts, judged on the whole block's output; one an expert for down

// out = grid(clamp(w)) of n weights.
static void awq_grid_in_float64(const double* w, double* out, int n, int bits, int clip) {
    const double maxq = (1 << bits) - 1;
    double most = 0, lo = INFINITY, hi = -INFINITY;
    for (int i = 0; i < n; i++) most = std::max(most, std::fabs(w[i]));
    const double limit = most * (1 - clip / 20.0);
    for (int i = 0; i < n; i++)
        lo = std::min(lo, std::clamp(w[i], -limit, limit)), hi = std::max(hi, std::clamp(w[i], -limit, limit));
    const double scale = std::max(hi - lo, 1e-5) / maxq, zero = std::clamp(-std::nearbyint(lo / scale), 0.0, maxq);
    for (int i = 0; i < n; i++) out[i] = nearest_on_grid(std::clamp(w[i], -limit, limit), scale, zero, maxq);
}

// grid(W diag(s)) diag(1/s)
static std::vector<double> awq_candidate(const std::vector<float>& W, const std::vector<double>& s, int G, int bits) {
    const int I = (int)s.size();
    std::vector<double> scaled(W.size()), out(W.size());
    for (size_t i = 0; i < W.size(); i++) scaled[i] = W[i] * s[i % I];
    for (size_t i = 0; i < W.size(); i += G) awq_grid_in_float64(&scaled[i], &out[i], G, bits, 0);
    for (size_t i = 0; i < W.size(); i++) out[i] /= s[i % I];
    return out;
}

static std::vector<double> scales_of(const std::vector<double>& s_x, int k) {
    std::vector<double> s;
    for (double x : s_x) s.push_back(std::max(std::pow(x, k / 20.0), 1e-4));
    const double middle = std::sqrt(*std::max_element(s.begin(), s.end()) * *std::min_element(s.begin(), s.end()));
    for (double& x : s) x /= middle;
    return s;
}

template <class T> std::vector<double> times(const std::vector<float>& X, const std::vector<T>& W, int O, int I) {  // [n, O]
    std::vector<double> out(X.size() / I * O, 0);
    for (size_t t = 0; t < X.size() / I; t++)
        for (int o = 0; o < O; o++)
            for (int i = 0; i < I; i++) out[t * O + o] += (double)X[t * I + i] * W[(size_t)o * I + i];
    return out;
}

static std::vector<AwqGroup> awq_solved;

// The program's losses against those of the definition, and its choice, which must be about as good as the best.
static void check_losses(const AwqSearch& found, const std::array<double, AWQ_RATIOS>& losses, const char* what) {
    const double tolerance = EXACT ? 5e-3 : 0.05;
    for (int k = 0; k < AWQ_RATIOS; k++)
        if (!(std::fabs(found.losses[k] - losses[k]) <= tolerance * losses[k] + 1e-12))
            fail("%s, ratio %d/20: a loss of %g, by definition %g", what, k, found.losses[k], losses[k]);
    CHECK(losses[found.best] <= (1 + 2 * tolerance) * *std::min_element(losses.begin(), losses.end()));
}

TEST(awq_of_experts_is_its_definition) {
    MoeLayer l;
    const auto X = l.inputs(0);
    const int C = l.m.config.C, F = l.m.config.mixture.F, E = l.m.config.mixture.E, G = 32, bits = 3;
    l.quantize({"-q", "awq", "-b", "3", "-g", "32"}, INT_MAX, [](Quantizer& q, Layer& layer) { awq_solved = awq_layer(q, layer); });
    std::vector<AwqGroup>& a = awq_solved;

    // Whose each row of an expert is, and what its output counts there.
    std::vector<std::vector<size_t>> token(E);
    std::vector<std::vector<double>> weight(E);
    for (const Chunk& chunk : l.streams[0].chunks) {
        const Routing& r = chunk.routing;
        std::vector<int> tokens(r.tokens.n), places(r.places.n);
        copy(tokens.data(), r.tokens.data, tokens.size()), copy(places.data(), r.places.data, places.size());
        std::vector<float> weights = download(r.weights), of_place(weights.size());
        for (size_t i = 0; i < places.size(); i++) of_place[places[i]] = weights[i];
        for (int e = 0; e < E; e++)
            for (int i = r.first[e]; i < r.first[e + 1]; i++)
                token[e].push_back(chunk.start + tokens[i]), weight[e].push_back(of_place[i]);
    }
    std::vector<double> s_x(C, 0);
    for (int e = 0; e < E; e++)
        for (size_t i = 0; i < X[l.gate_up(e)].size(); i++) s_x[i % C] += std::fabs(X[l.gate_up(e)][i]) / (512 * 3);
    auto block = [&](const std::vector<double>* s) {
        std::vector<double> y((size_t)512 * C, 0);
        for (int e = 0; e < E; e++) {
            const std::vector<float>&W = l.W0[l.gate_up(e)], &x = X[l.gate_up(e)];
            const std::vector<double> h = s ? times(x, awq_candidate(W, *s, G, bits), 2 * F, C) : times(x, W, 2 * F, C);
            std::vector<float> in;
            for (size_t t = 0; t < token[e].size(); t++)
                for (int f = 0; f < F; f++) {
                    const double gate = h[t * 2 * F + f];
                    in.push_back((float)(gate / (1 + std::exp(-gate)) * h[t * 2 * F + F + f]));
                }
            const std::vector<double> out = times(in, l.W0[l.down(e)], C, F);
            for (size_t t = 0; t < token[e].size(); t++)
                for (int i = 0; i < C; i++) y[token[e][t] * C + i] += weight[e][t] * out[t * C + i];
        }
        return y;
    };
    auto mean_square = [](const std::vector<double>& a, const std::vector<double>& b) {
        double sum = 0;
        for (size_t i = 0; i < a.size(); i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
        return sum / a.size();
    };
    const std::vector<double> full = block(nullptr);
    std::array<double, AWQ_RATIOS> losses;
    for (int k = 0; k < AWQ_RATIOS; k++) {
        const std::vector<double> s = scales_of(s_x, k);
        losses[k] = mean_square(block(&s), full);
    }
    check_losses(a[l.gate_up(0)].search, losses, "experts");

    // One s, which the gain and the router have, too.
    const std::vector<double> chosen = scales_of(s_x, a[l.gate_up(0)].search.best);
    const std::vector<float> router = MoeLayer::values(l.layer.router, l.router0.size()),
                             gain = MoeLayer::values(l.layer.post_norm, C);
    const double eps = EXACT ? 1e-5 : 0.005;
    for (int j = 0; j < C; j++) {
        const double s = a[l.gate_up(0)].s[j];
        CHECK_NEAR(s, chosen[j], (EXACT ? 1e-4 : 0.01) * chosen[j]);
        CHECK_NEAR(gain[j] * s, l.gain0[j], 1e-6 * std::fabs(l.gain0[j]));
        for (int e = 0; e < E; e++)
            CHECK_NEAR(router[e * C + j], l.router0[e * C + j] * s, eps * std::fabs(l.router0[e * C + j] * s));
    }
    for (int e : {0, NOBODYS, RARE, EVERYBODYS}) {
        const int g = l.gate_up(e), d = l.down(e);
        const bool starved = e == NOBODYS || e == RARE;
        CHECK(a[g].s == a[l.gate_up(0)].s);
        CHECK_EQ(a[d].search.s.empty(), starved);
        if (!starved) {
            const size_t n = X[d].size() / F;
            std::vector<double> mean(F, 0);
            for (size_t i = 0; i < X[d].size(); i++) mean[i % F] += std::fabs(X[d][i]) / n;
            const std::vector<double> of_expert = times(X[d], l.W0[d], C, F);
            for (int k = 0; k < AWQ_RATIOS; k++)
                losses[k] = mean_square(times(X[d], awq_candidate(l.W0[d], scales_of(mean, k), G, bits), C, F), of_expert);
            check_losses(a[d].search, losses, l.layer.groups[d].name);
        }
        // The weights are those as they were, scaled, on the grid of what is clipped.
        for (int of : {g, d}) {
            const Group& group = l.layer.groups[of];
            std::vector<float> scaled(a[of].W.n);
            copy(scaled.data(), a[of].W.data, scaled.size());
            std::vector<double> expected(scaled.size());
            for (int r = 0; r < group.O; r++)
                for (int i = 0; i < group.I; i++) {
                    const double s = a[of].s[i] / (of == g && r >= F ? a[d].s[r - F] : 1),
                                 w = l.W0[of][(size_t)r * group.I + i] * s;
                    CHECK_NEAR(scaled[(size_t)r * group.I + i], w, 1e-5 * std::fabs(w));
                }
            const std::vector<double> from(scaled.begin(), scaled.end());
            for (int k = 0; k < group.n_linears; k++) {
                const Linear& linear = group.linears[k];
                CHECK_EQ(a[of].clip[k].empty(), starved);
                for (int c = 0; c < linear.O * group.I / G; c++) {
                    const size_t at = (size_t)linear.row * group.I + (size_t)c * G;
                    awq_grid_in_float64(&from[at], &expected[at], G, bits, starved ? 0 : a[of].clip[k][c]);
                }
            }
            CHECK(share_apart(MoeLayer::weights_of(group), expected, group.I) <= 0.005);
        }
    }
    for (const ModuleReport& r : l.q.reports) CHECK_EQ(r.starved, r.note.find(" tokens: rounded to nearest") != std::string::npos);
    awq_solved.clear();
}
