// Mixtures of experts: FOEM, GPTAQ on two streams that the router sends different ways, and first tokens that count more, against their
// definitions in float64: of experts that no token reaches, few, many and all.
#include "moe_layer.h"

// U [I, I] upper triangular, with U^T U = the inverse [I, I].
static std::vector<double> upper_factor(const std::vector<double>& inverse, int I) {
    std::vector<double> U(inverse.size(), 0);
    for (int i = 0; i < I; i++)
        for (int j = i; j < I; j++) {
            double sum = inverse[i * I + j];
            for (int k = 0; k < i; k++) sum -= U[k * I + i] * U[k * I + j];
            U[i * I + j] = i == j ? std::sqrt(sum) : sum / U[i * I + i];
        }
    return U;
}

// P_ij = alpha sum over k > i of (D U^T)_ik U_kj
static std::vector<double> correction(const std::vector<double>& D, const std::vector<double>& U, int I, double alpha) {
    std::vector<double> P(D.size(), 0);
    for (int i = 0; i < I; i++)
        for (int k = i + 1; k < I; k++) {
            double sum = 0;
            for (int m = 0; m < I; m++) sum += D[i * I + m] * U[k * I + m];
            for (int j = 0; j < I; j++) P[i * I + j] += alpha * sum * U[k * I + j];
        }
    return P;
}

// GPTAQ and FOEM in float64 (quant/gptaq.cuh, foem.cuh), of one row a grid, in the order of the columns, which are one block: H [I, I], and
// D of pairs with the factor that H has.
static std::vector<double> pair_in_float64(const std::vector<float>& W, const std::vector<double>& H, const std::vector<double>& D, int O,
                                           int I, int bits, double alpha, double beta) {
    const std::vector<double> U = upper_factor(damped_inverse(H, I), I), P = correction(D, U, I, alpha);
    std::vector<double> result(W.size());
    const double maxq = (1 << bits) - 1;
    for (int r = 0; r < O; r++) {
        const std::vector<double> w0(W.begin() + (size_t)r * I, W.begin() + (size_t)(r + 1) * I);
        std::vector<double> w = w0;
        const double lo = std::min(0.0, *std::min_element(w.begin(), w.end())),
                     hi = std::max(0.0, *std::max_element(w.begin(), w.end()));
        const double scale = (hi - lo) / maxq, zero = std::nearbyint(-lo / scale);
        for (int i = 0; i < I; i++) {
            if (i > 0) w[i] -= beta * (w[i] - w0[i]);
            const double q = nearest_on_grid(w[i], scale, zero, maxq), e = (w[i] - q - beta * (w[i] - w0[i])) / U[i * I + i];
            for (int j = i + 1; j < I; j++) w[j] += w[i] * P[i * I + j] - e * U[i * I + j];
            result[(size_t)r * I + i] = q;
        }
    }
    return result;
}

// sum of (x~ - x) x^T
static std::vector<double> difference_of(const std::vector<float>& X, const std::vector<float>& X_full, int I) {
    CHECK_EQ(X.size(), X_full.size());
    std::vector<double> D((size_t)I * I, 0);
    for (size_t t = 0; t < X.size() / I; t++)
        for (int i = 0; i < I; i++)
            for (int j = 0; j < I; j++) D[(size_t)i * I + j] += ((double)X_full[t * I + i] - X[t * I + i]) * X[t * I + j];
    return D;
}

// x~'s normed inputs of stage 2, [tokens, C], and how many tokens its router sends to other experts than x's.
static std::vector<float> full_inputs(MoeLayer& l, int* elsewhere) {
    const Config& c = l.m.config;
    std::vector<float> all;
    Layer original = layer_copy(c, l.layer);
    for (size_t g = 0; g < original.groups.size(); g++) copy(original.groups[g].W, upload(l.W0[g]).data, l.W0[g].size());
    Array<floatX> x = to_device(l.full0);
    for (size_t i = 0; i < l.streams[1].chunks.size(); i++) {
        const Chunk& chunk = l.streams[1].chunks[i];
        for (int stage = 0; stage <= 2; stage++)
            layer_stage(c, original, stage, x.data + chunk.start * c.C, l.scratch.in.data, chunk, l.scratch);
        const std::vector<float> in = MoeLayer::values(l.scratch.in.data, (size_t)chunk.T * c.C);
        all.insert(all.end(), in.begin(), in.end());
        const Routing &a = l.streams[0].chunks[i].routing, &b = chunk.routing;
        std::vector<int> of_a(a.experts.n), of_b(b.experts.n);
        copy(of_a.data(), a.experts.data, a.experts.n), copy(of_b.data(), b.experts.data, b.experts.n);
        for (int t = 0; t < a.T; t++) *elsewhere += !std::equal(&of_a[t * a.K], &of_a[t * a.K] + a.K, &of_b[t * a.K]);
    }
    return all;
}

// What a stage of an expert would make of inputs X [n, C]: silu(gate) * up, [n, F], each product rounded as the program does.
static std::vector<float> made_by(const std::vector<float>& W, const std::vector<float>& X, int C, int F) {
    std::vector<float> out;
    auto product = [&](size_t t, int row) {
        double sum = 0;
        for (int i = 0; i < C; i++) sum += (double)W[(size_t)row * C + i] * X[t * C + i];
        return to_float(to_floatX((float)sum));
    };
    for (size_t t = 0; t < X.size() / C; t++)
        for (int f = 0; f < F; f++) {
            const double gate = product(t, f);
            out.push_back(to_float(to_floatX((float)(gate / (1 + std::exp(-gate)) * product(t, F + f)))));
        }
    return out;
}

static void check_pairs(std::vector<const char*> method, double alpha, double beta) {
    MoeLayer l;
    method.insert(method.end(), {"-b", "3", "-g", "-1", "--no-act-order"});
    l.quantize(method);
    const int C = l.m.config.C, F = l.m.config.mixture.F, E = l.m.config.mixture.E;
    const auto X_gate_up = l.inputs(l.gate_up(0)), X_down = l.inputs(l.down(0));
    int elsewhere = 0;
    const std::vector<float> full = full_inputs(l, &elsewhere);
    if (elsewhere < 50) fail("only %d tokens of x~ go elsewhere", elsewhere);
    double without = 0;  // how far the results are from those of a D of 0
    for (int e = 0; e < E; e++) {
        const std::vector<size_t> tokens = l.tokens_of(e);
        std::vector<float> of_expert;
        for (size_t t : tokens) of_expert.insert(of_expert.end(), full.begin() + t * C, full.begin() + (t + 1) * C);
        for (int g : {l.gate_up(e), l.down(e)}) {
            const Group& group = l.layer.groups[g];
            const std::vector<float>&X = g == l.gate_up(e) ? X_gate_up[g] : X_down[g],
                   X_full = g == l.gate_up(e) ? of_expert : made_by(l.W0[l.gate_up(e)], of_expert, C, F);
            CHECK_EQ(X.size() / group.I, tokens.size());
            const bool starved = tokens.size() < (size_t)group.I / 8;
            CHECK_EQ(starved, e == NOBODYS || e == RARE);
            const std::vector<double> none((size_t)group.I * group.I, 0), H = starved ? identity(group.I) : hessian_of(X, group.I),
                                      D = starved || alpha == 0 ? none : difference_of(X, X_full, group.I);
            const std::vector<double> expected = pair_in_float64(l.W0[g], H, D, group.O, group.I, 3, alpha, beta);
            const std::vector<float> found = MoeLayer::weights_of(group);
            const double apart = share_apart(found, expected, group.I);
            if (!(apart <= (EXACT ? 0.005 : 0.03))) fail("%s: %g of the weights are not those of the definition", group.name, apart);
            if (!starved)
                without += share_apart(found, pair_in_float64(l.W0[g], H, none, group.O, group.I, 3, 0, 0), group.I) / (2 * (E - 2));
        }
    }
    if (!(without >= 0.04)) fail("GPTQ would have given nearly the same: %g of the weights differ", without);
    size_t starved = 0;
    for (const ModuleReport& r : l.q.reports) starved += r.starved;
    CHECK_EQ(starved, (size_t)6);
}

TEST(foem_of_experts_is_its_definition) { check_pairs({"-q", "foem"}, 0, 0.1); }
TEST(gptaq_of_experts_is_its_definition) { check_pairs({"-q", "gptaq", "--alpha", "1"}, 1, 0); }
TEST(foem_of_experts_with_gptaqs_term_is_its_definition) { check_pairs({"-q", "foem", "--alpha", "0.5"}, 0.5, 0.1); }

// The second stream leaves the layer as the full-precision model's does.
TEST(the_other_stream_of_a_pair_goes_through_the_mixture_as_it_was) {
    MoeLayer l, plain;
    l.quantize({"-q", "gptaq"});
    layer_forward(plain.m.config, plain.layer, plain.streams[1], plain.scratch);
    CHECK(download(l.streams[1].x.data) == download(plain.streams[1].x.data));
    layer_forward(l.m.config, l.layer, plain.streams[0], plain.scratch);
    CHECK(download(l.streams[0].x.data) == download(plain.streams[0].x.data));
}

// Two samples of 256 tokens.
TEST(first_tokens_count_as_often_as_asked_at_the_experts_they_go_to) {
    for (bool sequential : {true, false}) {
        MoeLayer l, plain;
        std::vector<const char*> args = {"-q", "gptq", "-b", "3", "-g", "-1", "--no-act-order"};
        if (!sequential) args.push_back("--no-true-sequential");
        plain.quantize(args);
        args.insert(args.end(), {"--first-token-weight", "65"});
        l.quantize(args);
        const auto X_gate_up = l.inputs(sequential ? l.gate_up(0) : 0), X_down = l.inputs(sequential ? l.down(0) : 0);
        size_t with = 0, unlike = 0;
        for (int e : {0, 1, 3, 6, 7, NOBODYS, RARE, EVERYBODYS}) {
            const std::vector<size_t> tokens = l.tokens_of(e);
            size_t firsts = 0;
            for (size_t t : tokens) firsts += t % 256 == 0;
            for (int g : {l.gate_up(e), l.down(e)}) {
                const Group& group = l.layer.groups[g];
                std::vector<float> X = g == l.gate_up(e) ? X_gate_up[g] : X_down[g], again;
                const bool starved = tokens.size() < (size_t)group.I / 8;
                for (size_t r = 0; r < tokens.size(); r++)
                    for (int i = 0; tokens[r] % 256 == 0 && i < group.I; i++) again.push_back(X[r * group.I + i]);
                std::vector<double> H = hessian_of(X, group.I), more = hessian_of(again, group.I);
                for (size_t i = 0; i < H.size(); i++) H[i] += 64 * more[i];
                const std::vector<double> expected =
                    gptq_in_float64(l.W0[g], starved ? identity(group.I) : H, group.O, group.I, 3);
                const double apart = share_apart(MoeLayer::weights_of(group), expected, group.I);
                if (!(apart <= 0.005)) fail("%s: %g of the weights are not those of the definition", group.name, apart);
                if (starved || g == l.down(e)) continue;
                with += firsts > 0, unlike += MoeLayer::weights_of(group) != MoeLayer::weights_of(plain.layer.groups[g]);
            }
        }
        CHECK(with >= 2 && unlike >= with);
    }
}
