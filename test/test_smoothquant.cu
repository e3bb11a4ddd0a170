// SmoothQuant against its definition in float64, against PyTorch (scripts/golden/golden_smoothquant.py), and on the bundled model with
// outlier channels planted.
#include "golden.h"
#include "temp.h"
#include "test.h"
#include <random>

TEST(activations_are_quantized_per_token) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (int bits : {4, 8})
        for (int I : {1, 33, 512}) {
            const int T = 5;
            std::vector<float> x;
            for (int i = 0; i < T * I; i++) x.push_back(to_float(to_floatX(normal(random) * (i % 7 == 3 ? 30 : 1))));
            for (int i = 0; i < I; i++) x[2 * I + i] = 0;  // a token of zeros stays one
            Array<floatX> device = upload(x);
            FlowGrid grid;
            grid.bits = bits;
            flow_grid_apply(device.data, T, I, I, grid);
            const std::vector<float> found = download(device);
            for (int t = 0; t < T; t++) {
                float most = 1e-5f;
                for (int i = 0; i < I; i++) most = std::max(most, std::fabs(x[t * I + i]));
                const float scale = most / (float)((1 << (bits - 1)) - 1);
                for (int i = 0; i < I; i++) {
                    const float expected = to_float(to_floatX(std::nearbyint(x[t * I + i] / scale) * scale));
                    CHECK_NEAR(found[t * I + i], expected, 1e-6 * most);
                }
            }
        }
}

TEST(column_maxima) {
    for (int n : {1, 127, 128, 129, 400})
        for (int I : {1, 256, 300}) {
            std::vector<float> x;
            for (int i = 0; i < n * I; i++) x.push_back(to_float(to_floatX((float)((i * 7919) % 1001) - 500)));
            const std::vector<float> found = column_max(upload(x).data, n, I);
            for (int j = 0; j < I; j++) {
                float most = 0;
                for (int t = 0; t < n; t++) most = std::max(most, std::fabs(x[t * I + j]));
                CHECK_EQ(found[j], most);
            }
        }
    CHECK(std::isnan(column_max(upload({1, 2, NAN, 4}).data, 2, 2)[0]));
}

// One layer-like pair of a norm and a group, as smoothquant_solve sees it.
struct Smoothed {
    std::vector<float> W, gain;
    std::vector<ModuleReport> reports;
};

static Smoothed solve(const GoldenProblem& p, int bits, bool smooth, double alpha = 0.5) {
    Array<floatX> W = upload(p.W), X = upload(p.X), gain = upload(std::vector<float>(p.I, 1));
    Layer layer;
    layer.index = 3;
    layer.input_norm = layer.post_norm = gain.data;
    layer.groups[0] = {"first", p.O, p.I, W.data, nullptr, 1, {{"first", 0, p.O}}};
    Array<floatX> rest = upload({1, 2, 3, 4});
    for (int g = 1; g < 4; g++) layer.groups[g] = {"rest", 2, 2, rest.data, nullptr, 1, {{"rest", 0, 2}}};
    Quantizer q;
    q.opt.wbits = bits, q.opt.alpha = alpha;
    if (smooth) {
        const int half = p.n / 2;
        smoothquant_collect(q, layer.groups[0], 0, X.data, half);
        smoothquant_collect(q, layer.groups[0], 0, X.data + (size_t)half * p.I, p.n - half);
        smoothquant_collect(q, layer.groups[1], 1, X.data, half);  // not behind a norm: ignored
    }
    smoothquant_solve(q, layer);
    return {download(W), download(gain), q.reports};
}

TEST(smoothquant_gives_what_the_pytorch_reference_gives) {
    Checkpoint inputs = safetensors_open("test/golden/gptq.safetensors"),
               ck = safetensors_open("test/golden/smoothquant.safetensors");
    const GoldenProblem p = golden_problem(inputs);
    const std::vector<float> factors = golden<float>(ck, "smoothing");
    struct Setting {
        const char* name;
        int wbits, abits;
        bool smooth;
    };
    for (const Setting& set : {Setting{"w8a8", 8, 8, true}, Setting{"w4a8", 4, 8, true}, Setting{"w4a4", 4, 4, true},
                               Setting{"w8a8_no_smooth", 8, 8, false}}) {
        const std::string name = set.name;
        const Smoothed s = solve(p, set.wbits, set.smooth);
        const std::vector<int8_t> codes = golden<int8_t>(ck, name + ".codes");
        const std::vector<float> scale = golden<float>(ck, name + ".scale"), y = golden<float>(ck, name + ".y");
        size_t wrong = 0;
        for (int r = 0; r < p.O; r++)
            for (int j = 0; j < p.I; j++)
                wrong += std::fabs(s.W[(size_t)r * p.I + j] - codes[(size_t)r * p.I + j] * scale[r]) >
                         0.3f * scale[r] + 4e-3f * std::fabs(s.W[(size_t)r * p.I + j]);
        if (wrong * 10000 > codes.size()) fail("%s: %zu of %zu codes differ", set.name, wrong, codes.size());
        for (int j = 0; j < p.I; j++) {
            const float expected = set.smooth ? 1 / factors[j] : 1;
            CHECK_NEAR(s.gain[j], expected, (sizeof(floatX) == 4 ? 1e-5 : 4e-3) * expected);
        }
        // The quantized product of the first tokens.
        const int T = 32;
        std::vector<float> x;
        for (int t = 0; t < T; t++)
            for (int j = 0; j < p.I; j++) x.push_back(p.X[(size_t)t * p.I + j] * s.gain[j]);
        Array<floatX> X = upload(x), W = upload(s.W), out((size_t)T * p.O, "y");
        FlowGrid grid;
        grid.bits = set.abits;
        flow_grid_apply(X.data, T, p.I, p.I, grid);
        gemm(out.data, X.data, W.data, T, p.O, p.I);
        const std::vector<float> found = download(out);
        double difference = 0, norm = 0;
        for (size_t i = 0; i < y.size(); i++) difference += std::pow(found[i] - y[i], 2), norm += std::pow(y[i], 2);
        // A token's value that lies within rounding of a tie may fall to the other side: one step of its grid.
        CHECK(std::sqrt(difference / norm) < (sizeof(floatX) == 4 ? 1e-3 : set.abits == 4 ? 5e-2 : 1e-2));
    }
}

TEST(smoothing_makes_both_sides_equally_large) {
    Checkpoint inputs = safetensors_open("test/golden/gptq.safetensors");
    const GoldenProblem p = golden_problem(inputs);
    const std::vector<float> a = column_max(upload(p.X).data, p.n, p.I), w = column_max(upload(p.W).data, p.O, p.I);
    const std::vector<float> s = smoothing_factors(a, w, 0.5), all = smoothing_factors(a, w, 1), none = smoothing_factors(a, w, 0);
    for (int j = 0; j < p.I; j++) {
        if (a[j] == 0) {
            CHECK_EQ(s[j], 1e-5f);
            continue;
        }
        CHECK_NEAR(a[j] / s[j], w[j] * s[j], 1e-5 * w[j] * s[j]);
        CHECK_NEAR(all[j], a[j], 1e-6 * a[j]);
        CHECK_NEAR(none[j], 1 / w[j], 1e-6 / w[j]);
    }
}

// The definition in float64: s = max(a^alpha / max(w, 1e-5)^(1 - alpha), 1e-5), the gain 1 / s and the weights W diag(s) to half a step of
// their row's grid. Channels 3 and 5 have no input, 4 and 5 no weights: there the floors alone give s.
TEST(alpha_says_how_much_moves_into_the_weights) {
    const int O = 8, I = 24, n = 40;
    std::mt19937 random(6);
    std::normal_distribution<float> normal;
    GoldenProblem p{O, I, n, {}, {}};
    for (int i = 0; i < O * I; i++)
        p.W.push_back(i % I == 4 || i % I == 5 ? 0 : to_float(to_bf16(normal(random) * (0.02f + 0.03f * (float)(i % I % 5)))));
    for (int i = 0; i < n * I; i++)
        p.X.push_back(i % I == 3 || i % I == 5 ? 0 : to_float(to_bf16(normal(random) * (i % I % 7 == 2 ? 40.0f : 0.5f))));
    for (double alpha : {0.5, 0.8, 0.2}) {
        const Smoothed found = solve(p, 8, true, alpha);
        std::vector<double> s(I);
        for (int j = 0; j < I; j++) {
            double a = 0, w = 0;
            for (int t = 0; t < n; t++) a = std::max(a, std::fabs((double)p.X[t * I + j]));
            for (int r = 0; r < O; r++) w = std::max(w, std::fabs((double)p.W[r * I + j]));
            s[j] = std::max(std::pow(a, alpha) / std::pow(std::max(w, 1e-5), 1 - alpha), 1e-5);
            CHECK_NEAR(found.gain[j], 1 / s[j], (sizeof(floatX) == 4 ? 1e-5 : 4e-3) / s[j]);
        }
        for (int r = 0; r < O; r++) {
            double most = 0;
            for (int j = 0; j < I; j++) most = std::max(most, std::fabs(p.W[r * I + j] * s[j]));
            for (int j = 0; j < I; j++) {
                const double w = p.W[r * I + j] * s[j];
                CHECK_NEAR(found.W[r * I + j], w, 0.501 * most / 127 + (sizeof(floatX) == 4 ? 1e-5 : 4e-3) * std::fabs(w));
            }
        }
    }
}

// A row of zeros stays one, and one whose largest value is less than 1e-5 has the grid of 1e-5.
TEST(rows_of_next_to_nothing_have_the_floors_grid) {
    const int O = 3, I = 16;
    GoldenProblem p{O, I, 2, {}, std::vector<float>(2 * I, 1)};
    for (int i = 0; i < O * I; i++)
        p.W.push_back(to_float(to_bf16(i / I == 0 ? 0 : i / I == 1 ? 1e-7f * (float)(i % I - 7) : 0.01f * (float)(i % I - 7))));
    const Smoothed found = solve(p, 8, false);
    for (int r = 0; r < O; r++) {
        float most = 1e-5f;
        for (int i = 0; i < I; i++) most = std::max(most, std::fabs(p.W[r * I + i]));
        for (int i = 0; i < I; i++)
            CHECK_EQ(found.W[r * I + i], to_float(to_floatX(std::nearbyint(p.W[r * I + i] / (most / 127)) * (most / 127))));
    }
}

// A scale that float16 holds as a subnormal may be rounded down so far that a row's largest values lie beyond the last code.
TEST(codes_of_tiny_rows_stay_in_their_range) {
    const int O = 200, I = 64;
    std::vector<float> w;
    for (int i = 0; i < O * I; i++) w.push_back((i % 2 ? -1 : 1) * std::ldexp(1 + (i / I % 50) / 50.0f, -11 - i / I / 50) * (1 - i % I / 100.0f));
    const Array<float> W = to_device(w);
    Array<floatX> out(w.size(), "test");
    Array<uint8_t> codes(w.size(), "test");
    Array<Grid> grids(O, "test");
    launch(symmetric_grid_kernel, O, 32, out.data, W.data, I, 127.0f, Scale::HALF, GroupCodes{codes.data, grids.data});
    std::vector<uint8_t> q(w.size());
    std::vector<Grid> grid(O);
    copy(q.data(), codes.data, q.size()), copy(grid.data(), grids.data, O);
    const std::vector<float> found = download(out);
    size_t clamped = 0;
    for (int i = 0; i < O * I; i++) {
        const float scale = grid[i / I].scale, expected = std::clamp(std::rint(w[i] / scale), -127.0f, 127.0f);
        CHECK_EQ((float)q[i] - 128, expected);
        CHECK_EQ(found[i], to_float(to_floatX(expected * scale)));
        clamped += std::fabs(std::rint(w[i] / scale)) > 127;
    }
    CHECK(clamped > 0);
}

TEST(a_nan_in_the_activations_is_named) {
    Checkpoint inputs = safetensors_open("test/golden/gptq.safetensors");
    GoldenProblem p = golden_problem(inputs);
    p.X[1000 * p.I + 17] = NAN;
    CHECK_ERROR(solve(p, 8, true), "layer 3, first: input channel 17");
}

// The bundled model with a few channels of every norm made 60 times larger and the columns that read them as much smaller: the
// same function, but with the outliers of large models.
TEST(smoothing_helps_where_there_are_outliers) {
    skip_when_emulated();
    const TempFolder tmp;
    Options o;
    o.model = "data/tiny";
    const Model m = model_open(o);
    const Config& c = m.config;
    {
        CheckpointWriter writer(tmp / "outliers", checkpoint_specs(c));
        copy_small_files(writer, m.dir);
        save_unquantized(writer, m, "model.embed_tokens.weight", {(size_t)c.V, (size_t)c.C});
        Layer layer = layer_alloc(c);
        for (layer.index = 0; layer.index < c.L; layer.index++) {
            for (const Param& p : layer_params(c, layer)) {
                load_param(m, p);
                std::vector<floatX> host(p.size());
                copy(host.data(), p.data, host.size());
                const bool norm = ends_with(p.name, "layernorm.weight");
                const bool reads = p.shape.size() == 2 && p.shape[1] == (size_t)c.C && !ends_with(p.name, "o_proj.weight") &&
                                   !ends_with(p.name, "down_proj.weight");
                for (size_t i = 0; i < host.size(); i++)
                    if ((norm || reads) && i % c.C % 50 == 20) host[i] = to_floatX(to_float(host[i]) * (norm ? 64.0f : 1 / 64.0f));
                writer.write(p.name, host.data(), host.size() * sizeof(floatX));
            }
        }
        save_finish(writer, m, "{}\n");
    }
    auto ppl = [&](std::vector<const char*> args) {
        const std::string model = tmp / "outliers";
        args.insert(args.begin(), {"-m", model.c_str(), "--data", "data/tiny", "--limit", "4"});
        return run_quietly(args).tasks[0].value;
    };
    const double full = ppl({"-q", "fp16"}), smooth = ppl({"-q", "smoothquant", "-n", "8"}),
                 plain = ppl({"-q", "smoothquant", "--no-smooth"}),
                 four = ppl({"-q", "smoothquant", "-b", "4", "-a", "4", "-n", "8"});
    CHECK(smooth < 1.02 * full);
    CHECK(plain > 1.02 * smooth);
    CHECK(four > 1.05 * smooth);
}
