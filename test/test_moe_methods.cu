// Quantizing mixtures of experts: a layer with one expert that no token reaches, one that few, some that many and one that all reach,
// each method's experts against the method's definition in float64 or against the method on that expert alone; some at a time.
#include <array>
#include "moe_layer.h"

// README: fewer tokens than an eighth of its input channels.
TEST(an_expert_starves_below_an_eighth_of_its_channels) {
    Quantizer q;
    q.n_tokens = {0};
    Group expert;
    expert.I = 2048, expert.expert = 3;
    for (auto [tokens, starves] : {std::pair<size_t, bool>{0, true}, {255, true}, {256, false}, {1024, false}}) {
        q.n_tokens[0] = tokens;
        CHECK_EQ(group_starves(q, expert, 0), starves);
    }
    q.n_tokens[0] = 0, expert.expert = -1;  // of a dense layer
    CHECK(!group_starves(q, expert, 0));
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
// GPTQ

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

TEST(experts_some_at_a_time_give_the_same_bytes) {
    const std::vector<std::vector<const char*>> methods = {{"-q", "gptq", "-g", "32"},
                                                           {"-q", "gptq", "-g", "32", "--no-true-sequential"},
                                                           {"-q", "foem", "-g", "32"},
                                                           {"-q", "gptaq", "-g", "32"},
                                                           {"-q", "billm"}};
    for (const auto& method : methods) {
        MoeLayer all;
        all.quantize(method);
#ifdef EMULATED
        const std::vector<int> some_at_once = {3};
#else
        const std::vector<int> some_at_once = {1, 3};
#endif
        for (int at_once : some_at_once) {
            MoeLayer some;
            some.quantize(method, at_once);
            CHECK(all_weights(some) == all_weights(all));
            for (int s : {0, 1}) CHECK(download(some.streams[s].x.data) == download(all.streams[s].x.data));
            CHECK_EQ(some.q.reports.size(), all.q.reports.size());
            for (size_t i = 0; i < some.q.reports.size(); i++) {
                CHECK_EQ(some.q.reports[i].module, all.q.reports[i].module);
                CHECK_EQ(some.q.reports[i].error, all.q.reports[i].error);
                CHECK_EQ(some.q.reports[i].note, all.q.reports[i].note);
            }
        }
    }
}

#ifndef __CUDACC__
TEST(experts_do_not_depend_on_the_number_of_threads) {
    const int threads = omp_get_max_threads();
    for (const char* method : {"gptq", "gptaq", "foem", "awq", "billm", "smoothquant"}) {
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
    for (const ModuleReport& r : l.q.reports) CHECK_EQ(r.starved, ends_with(r.note, " tokens: binarized by its weights alone"));
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
static std::vector<std::vector<float>> awq_inputs_found;

// AWQ, which leaves behind what it was given and what it made. What is kept of the inputs is what the tokens need, however the router
// deals them out.
static void awq_watched(Quantizer& q, Layer& layer) {
    for (int stage = 0; stage < STAGES; stage++) {
        const size_t rows = stage < 2 ? 512 : 512 * (size_t)layer.K;
        CHECK_EQ(q.inputs[stage].n, rows * layer.groups[layer.first_group[stage]].I);
        CHECK_EQ(q.n_inputs[stage], rows);
    }
    awq_inputs_found.clear();
    for (int g = 0; g < (int)layer.groups.size(); g++) {
        const AwqInputs in = awq_inputs(q, layer.groups[g], g);
        awq_inputs_found.push_back(MoeLayer::values(in.data, in.n * layer.groups[g].I));
    }
    awq_solved = awq_layer(q, layer);
    for (int stage = 0; stage < STAGES; stage++) CHECK(q.inputs[stage].n == 0 && q.n_inputs[stage] == 0);
    for (const std::vector<Span>& spans : q.spans) CHECK(spans.empty());
}

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
    l.quantize({"-q", "awq", "-b", "3", "-g", "32"}, INT_MAX, awq_watched);
    std::vector<AwqGroup>& a = awq_solved;
    CHECK_EQ(awq_inputs_found.size(), X.size());
    for (size_t g = 0; g < X.size(); g++) CHECK(awq_inputs_found[g] == X[g]);

    // Whose each row of an expert is, and what its output counts there.
    std::vector<std::vector<size_t>> token;
    std::vector<std::vector<double>> weight(E);
    for (int e = 0; e < E; e++) token.push_back(l.tokens_of(e));
    for (const Chunk& chunk : l.streams[0].chunks) {
        const Routing& r = chunk.routing;
        std::vector<int> places(r.places.n);
        copy(places.data(), r.places.data, places.size());
        std::vector<float> weights = download(r.weights), of_place(weights.size());
        for (size_t i = 0; i < places.size(); i++) of_place[places[i]] = weights[i];
        for (int e = 0; e < E; e++)
            for (int i = r.first[e]; i < r.first[e + 1]; i++) weight[e].push_back(of_place[i]);
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
