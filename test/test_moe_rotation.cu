// Rotations of mixtures of experts: every weight against its product in float64, and the rotated model as the same function.
#include "matrix.h"
#include "moe_layer.h"

static Matrix doubles(const std::vector<float>& x) { return Matrix(x.begin(), x.end()); }

// The symmetric Hadamard matrix of Sylvester over sqrt(n), n a power of two.
static Matrix sylvester(int n) {
    Matrix H((size_t)n * n);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) H[(size_t)i * n + j] = (__builtin_popcount(i & j) % 2 ? -1 : 1) / std::sqrt((double)n);
    return H;
}

static void check_close(const std::vector<float>& found, const Matrix& expected, const char* what) {
    CHECK_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); i++)
        if (!(std::fabs(found[i] - expected[i]) <= (EXACT ? 3e-6 : std::fabs(expected[i]) / 250 + 1e-5)))
            fail("%s, value %zu: %g, expected %g", what, i, found[i], expected[i]);
}

static Rotation rotation_of(const Config& c) {
    Options o;
    o.seed = 5;
    return rotation_for(o, c);
}

TEST(the_rotated_weights_of_a_mixture_are_what_the_table_says) {
    for (bool r1 : {true, false}) {
        MoeLayer l;
        const Config& c = l.m.config;
        const int C = c.C, F = c.mixture.F;
        Rotation r = rotation_of(c);
        r.has.r1 = r1, r.has.r4 = r1;
        rotation_draw_r2(r, 0);
        std::vector<float> signs(C);
        copy(signs.data(), r.signs.data, C);
        Matrix R1 = sylvester(C), R4 = sylvester(F);
        for (int i = 0; i < C; i++)
            for (int j = 0; j < C; j++) R1[(size_t)i * C + j] *= signs[i];
        if (!r1) R1 = identity(C), R4 = identity(F);
        rotate_layer(l.layer, r);
        auto behind_norm = [&](const std::vector<float>& W) {
            Matrix scaled = doubles(W);
            for (size_t i = 0; r1 && i < W.size(); i++) scaled[i] *= l.gain0[i % C];
            return multiply(scaled, R1, (int)W.size() / C, C, C);
        };
        check_close(MoeLayer::values(l.layer.router, l.router0.size()), behind_norm(l.router0), "the router");
        for (int e = 0; e < c.mixture.E; e++) {
            const int g = l.gate_up(e), d = l.down(e);
            check_close(MoeLayer::weights_of(l.layer.groups[g]), behind_norm(l.W0[g]), l.layer.groups[g].name);
            check_close(MoeLayer::weights_of(l.layer.groups[d]),
                        multiply(transposed(R1, C, C), multiply(doubles(l.W0[d]), R4, C, F, F), C, C, F), l.layer.groups[d].name);
        }
        for (float gain : MoeLayer::values(l.layer.post_norm, C)) CHECK(gain == 1 || !r1);
    }
}

// Logits of the whole model, which has a dense layer between its mixtures.
static std::vector<float> logits_of(const Model& m, Rotation* r) {
    const Config& c = m.config;
    std::vector<int> tokens, rows;
    for (int i = 0; i < 80; i++) tokens.push_back((i * i + 7 * i + 3) % c.V), rows.push_back(i);
    std::vector<Stream> one;
    one.push_back(stream_of_windows(c, "tokens", tokens, 40, false));
    Stream& s = one[0];
    s.x.width = c.C, s.x.data = Array<floatX>(tokens.size() * c.C, "activations");
    stream_embed(m, s);
    Scratch scratch = scratch_alloc(c, one);
    if (r) stream_rotate(s, *r, false, scratch);
    Layer layer = layer_alloc(c);
    for (int l = 0; l < c.L; l++) {
        layer_place(c, layer, l), layer.rotation = nullptr;
        for (const Param& p : layer_params(c, layer)) load_param(m, p);
        if (r) rotation_draw_r2(*r, l), rotate_layer(layer, *r), layer.rotation = r;
        layer_forward(c, layer, s, scratch);
    }
    if (r) stream_rotate(s, *r, true, scratch);
    Head head = head_load(m);
    head_logits(c, head, s.x.data.data, rows);
    std::vector<float> logits(rows.size() * c.V);
    copy(logits.data(), head.logits.data, logits.size());
    return logits;
}

TEST(a_rotated_mixture_is_the_same_function) {
    Options o;
    o.model = "test/golden/moe";
    const Model m = model_open(o);
    const std::vector<float> straight = logits_of(m, nullptr);
    double largest = 0;
    for (float x : straight) largest = std::max(largest, std::fabs((double)x));
    for (int block : {0, 16}) {
        o.rotate_block = block, o.seed = 5;
        Rotation r = rotation_for(o, m.config);
        CHECK(r.ffn.n == (block ? block : 96) && r.expert_ffn.n == (block ? block : 32));
        const std::vector<float> rotated = logits_of(m, &r);
        int apart = 0;  // tokens; in bf16 one may take another expert
        for (int t = 0; t < 80; t++) {
            double most = 0;
            for (int i = 0; i < m.config.V; i++)
                most = std::max(most, std::fabs((double)rotated[t * m.config.V + i] - straight[t * m.config.V + i]));
            apart += !(most <= (EXACT ? 2e-5 : 0.05) * largest);
        }
        if (apart > (EXACT ? 0 : 8)) fail("%d of 80 tokens have other logits", apart);
    }
}

TEST(a_width_that_no_layer_has_is_not_asked_for_its_matrix) {
    const Rotation a = rotation_of(config_official("235b-a22b")), b = rotation_of(config_official("4b"));
    CHECK(a.ffn.n == 0 && a.expert_ffn.n == 1536 && b.ffn.n == 9728 && b.expert_ffn.n == 0);
    CHECK_ERROR(rotation_make({64, 0, 6, 2, 32, 152}, 0, 16),
                "--rotate-block 16: expected a divisor of the model's moe_intermediate_size = 152");
}

// All tokens at every expert, rotated: what down is solved from is rotated, too, so that rounding to nearest loses more on it than GPTQ.
TEST(gptq_on_a_rotated_mixture_beats_rounding) {
    for (const char* flag : {"--calibrate-all-experts", "--act-order"}) {
        MoeLayer gptq, rtn;
        Rotation r = rotation_of(gptq.m.config);
        rotation_draw_r2(r, 0);
        for (MoeLayer* l : {&gptq, &rtn}) {
            rotate_layer(l->layer, r), l->layer.rotation = &r;
            for (size_t g = 0; g < l->layer.groups.size(); g++) l->W0[g] = MoeLayer::weights_of(l->layer.groups[g]);
            stream_rotate(l->streams[0], r, false, l->scratch);
            copy(l->x0.data(), l->streams[0].x.data.data, l->x0.size());
        }
        gptq.quantize({"-q", "gptq", "-b", "3", "-g", "-1", flag}), rtn.quantize({"-q", "rtn", "-b", "3", "-g", "-1"});
        const auto X = gptq.inputs(0);
        for (int e : {0, 3, EVERYBODYS}) {
            const int g = gptq.down(e);
            const Group& group = gptq.layer.groups[g];
            double errors[2] = {0, 0};
            for (int k : {0, 1}) {
                const std::vector<float> W = MoeLayer::weights_of((k ? rtn : gptq).layer.groups[g]);
                for (size_t t = 0; t < X[g].size() / group.I; t++)
                    for (int o = 0; o < group.O; o++) {
                        double d = 0;
                        for (int i = 0; i < group.I; i++)
                            d += ((double)W[(size_t)o * group.I + i] - gptq.W0[g][(size_t)o * group.I + i]) * X[g][t * group.I + i];
                        errors[k] += d * d;
                    }
            }
            if (!(errors[0] < 0.8 * errors[1])) fail("expert %d: %g with GPTQ, %g by rounding", e, errors[0], errors[1]);
        }
    }
}
