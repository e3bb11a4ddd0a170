// quant/rotation.cuh: the rotated weights against their definitions in float64, the rotated model against the one it was made of, and
// mistakes that a rotation can make, each of which must show.
#include "../quant/rotation.cuh"
#include "golden.h"
#include "matrix.h"
#include "small_model.h"
#include "temp.h"
#include "test.h"
#include <random>

static Layer random_layer(const Config& c, int index) {
    Layer layer = layer_alloc(c);
    layer.index = index;
    std::mt19937 random(index + 5);
    std::normal_distribution<float> normal;
    for (const Param& p : layer_params(c, layer)) {
        std::vector<float> values;
        for (size_t i = 0; i < p.size(); i++)
            values.push_back(p.shape.size() == 1 && !ends_with(p.name, "bias")
                                 ? std::exp(0.7f * normal(random)) * (i % 9 == 4 ? -1 : 1)
                                 : 0.15f * normal(random) + 0.02f);
        copy(p.data, upload(values).data, p.size());
    }
    return layer;
}

static Matrix matrix_of(const floatX* data, size_t n) {
    std::vector<floatX> host(n);
    copy(host.data(), data, n);
    Matrix m;
    for (floatX x : host) m.push_back(to_float(x));
    return m;
}

// What `transform` does to the rows of the identity.
template <class F> static Matrix dense(int n, F transform) {
    std::vector<float> identity((size_t)n * n, 0);
    for (int i = 0; i < n; i++) identity[(size_t)i * n + i] = 1;
    Array<float> d = to_device(identity);
    transform(d.data);
    copy(identity.data(), d.data, identity.size());
    return Matrix(identity.begin(), identity.end());
}

static Matrix with_gain(Matrix W, const Matrix& gain) {
    for (size_t i = 0; i < W.size(); i++) W[i] *= gain[i % gain.size()];
    return W;
}

static void check_close(const Matrix& found, const Matrix& expected) {
    CHECK_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); i++)
        CHECK_NEAR(found[i], expected[i], sizeof(floatX) == 4 ? 3e-6 : std::fabs(expected[i]) / 250 + 1e-5);
}

TEST(the_signs_are_pythons) {
    const int first[] = {1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 1, 0};   // random.Random(0)
    const int second[] = {1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 1, 0, 0};  // Random(7 + (3 << 32))
    const Config c = small_config(false);
    Rotation r = rotation_make(shape_of(c), 0), s = rotation_make(shape_of(c), 7);
    rotation_draw_r2(s, 2);
    std::vector<float> signs(c.C), R2(s.R2.n);
    copy(signs.data(), r.signs.data, c.C), copy(R2.data(), s.R2.data, R2.size());
    for (int i = 0; i < 24; i++) {
        CHECK_EQ(signs[i], first[i] ? 1 : -1);
        CHECK_EQ(R2[i * c.D] > 0, second[i] == 1);  // the first column of H is ones
    }
}

TEST(rotations_are_orthogonal) {
    const Config c = small_config(false);
    Rotation r = rotation_make(shape_of(c), 3);
    rotation_draw_r2(r, 1);
    auto check_orthogonal = [](const Matrix& R, int n) {
        const Matrix P = multiply(transposed(R, n, n), R, n, n, n);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) CHECK_NEAR(P[(size_t)i * n + j], i == j, 1e-6);
    };
    check_orthogonal(dense(c.C, [&](float* x) { rotate_rows(x, c.C, r); }), c.C);
    std::vector<float> R2(r.R2.n);
    copy(R2.data(), r.R2.data, R2.size());
    for (int k = 0; k < c.KV; k++) check_orthogonal(Matrix(R2.begin() + k * c.D * c.D, R2.begin() + (k + 1) * c.D * c.D), c.D);
    CHECK(Matrix(R2.begin(), R2.begin() + c.D * c.D) != Matrix(R2.begin() + c.D * c.D, R2.end()));  // heads have signs of their own
    // QuaRot's is the transform alone: A's first row and column are ones.
    Rotation quarot = rotation_make(shape_of(c), 3, 0, {true, true, true, true, false});
    quarot.has.over_heads = true;
    rotation_draw_r2(quarot, 1);
    copy(R2.data(), quarot.R2.data, R2.size());
    CHECK(Matrix(R2.begin(), R2.begin() + c.D * c.D) == Matrix(R2.begin() + c.D * c.D, R2.end()));
    for (int i = 0; i < c.D; i++) CHECK_NEAR(R2[i], 1 / std::sqrt((double)c.D), 1e-6), CHECK_NEAR(R2[i * c.D], 1 / std::sqrt((double)c.D), 1e-6);
}

// Every weight, from every combination of rotations, bias or none, R1 as a Hadamard matrix, in blocks or as a given matrix.
TEST(the_rotated_weights_are_what_the_table_says) {
    for (int variant = 0; variant < 6; variant++) {
        const bool bias = variant % 2;
        const Config c = small_config(bias, variant == 3 ? 4 : 6);
        Rotation r = rotation_make(shape_of(c), 11, variant == 4 ? 4 : 0);
        rotation_draw_r2(r, 1);
        if (variant == 2) {  // a given R1: a product of two Hadamard matrices, which is no Hadamard matrix
            Matrix R = dense(c.C, [&](float* x) { rotate_rows(x, c.C, r); });
            R = multiply(R, R, c.C, c.C, c.C);
            rotation_set_r1(r, to_device(std::vector<float>(R.begin(), R.end())));
        }
        if (variant == 3) r.has.over_heads = true, r.heads = hadamard_make(c.H * c.D, "heads", c.D);
        if (variant == 5) r.has.r1 = r.has.r4 = false;
        const int HD = c.H * c.D, KVD = c.KV * c.D, values = HD + KVD;
        Matrix identity((size_t)c.C * c.C, 0);
        for (int i = 0; i < c.C; i++) identity[(size_t)i * c.C + i] = 1;
        const Matrix R1 = r.has.r1 ? dense(c.C, [&](float* x) { rotate_rows(x, c.C, r); }) : identity;
        std::vector<float> R2(r.R2.n);
        copy(R2.data(), r.R2.data, R2.size());
        const Matrix R4 = dense(c.F, [&](float* x) {
            if (r.has.r4) hadamard_rows(x, c.F, c.F, c.F / r.ffn.n, r.ffn);
        });

        Layer layer = random_layer(c, 1);
        const Group* g = layer.groups.data();
        auto weights = [&](int k) { return matrix_of(g[k].W, (size_t)g[k].O * g[k].I); };
        const Matrix qkv = weights(0), o = weights(1), gate_up = weights(2), down = weights(3);
        const Matrix input_gain = matrix_of(layer.input_norm, c.C), post_gain = matrix_of(layer.post_norm, c.C);
        const Matrix b = bias ? matrix_of(g[0].bias, g[0].O) : Matrix();
        rotate_layer(layer, r);

        Matrix expected = multiply(r.has.r1 ? with_gain(qkv, input_gain) : qkv, R1, g[0].O, c.C, c.C), expected_bias = b;
        const Matrix straight = expected;
        for (int k = 0; k < c.KV; k++)
            for (int j = 0; j < c.D; j++) {
                for (int i = 0; i < c.C; i++) {
                    double sum = 0;
                    for (int d = 0; d < c.D; d++)
                        sum += R2[(k * c.D + d) * c.D + j] * straight[(size_t)(values + k * c.D + d) * c.C + i];
                    expected[(size_t)(values + k * c.D + j) * c.C + i] = sum;
                }
                double sum = 0;
                for (int d = 0; bias && d < c.D; d++) sum += b[values + k * c.D + d] * R2[(k * c.D + d) * c.D + j];
                if (bias) expected_bias[values + k * c.D + j] = sum;
            }
        check_close(weights(0), expected);
        if (bias) check_close(matrix_of(g[0].bias, g[0].O), expected_bias);
        check_close(weights(2), multiply(r.has.r1 ? with_gain(gate_up, post_gain) : gate_up, R1, g[2].O, c.C, c.C));

        Matrix by_heads((size_t)c.C * HD, 0);
        for (int i = 0; i < c.C; i++)
            for (int h = 0; h < c.H; h++)
                for (int d = 0; d < c.D; d++)
                    for (int j = 0; j < c.D; j++)
                        by_heads[(size_t)i * HD + h * c.D + j] +=
                            o[(size_t)i * HD + h * c.D + d] * R2[(h / (c.H / c.KV) * c.D + d) * c.D + j];
        if (r.has.over_heads) {
            Matrix over((size_t)HD * HD, 0);  // H_4 (x) I
            for (int a = 0; a < 4; a++)
                for (int e = 0; e < 4; e++)
                    for (int d = 0; d < c.D; d++)
                        over[(size_t)(a * c.D + d) * HD + e * c.D + d] = __builtin_popcount(a & e) % 2 ? -0.5 : 0.5;
            by_heads = multiply(by_heads, over, c.C, HD, HD);
        }
        check_close(weights(1), multiply(transposed(R1, c.C, c.C), by_heads, c.C, c.C, HD));
        check_close(weights(3), multiply(transposed(R1, c.C, c.C), multiply(down, R4, c.C, c.F, c.F), c.C, c.C, c.F));
        for (const floatX* gain : {layer.input_norm, layer.post_norm})
            for (double x : matrix_of(gain, c.C)) CHECK(x == 1 || !r.has.r1);
        CHECK(r.has.r1 || matrix_of(layer.input_norm, c.C) == input_gain);
    }
}

TEST(a_streams_rows_come_back) {
    const Config c = small_config(false);
    const Rotation r = rotation_make(shape_of(c), 1);
    std::vector<float> x;
    for (int i = 0; i < 1500 * c.C; i++) x.push_back((float)(i % 37 - 18));  // more than one piece of rows
    Array<floatX> d = upload(x);
    rotate_stream_rows(d.data, 1500, r);
    CHECK(download(d) != x);
    rotate_stream_rows(d.data, 1500, r, true);
    const std::vector<float> found = download(d);
    for (size_t i = 0; i < x.size(); i++) CHECK_NEAR(found[i], x[i], sizeof(floatX) == 4 ? 1e-4 : 0.3);
}

// ---------------------------------------------------------------------------------------------------------------------
// The whole model

enum Mistake { NONE, EMBEDDINGS, FINAL_NORM, GAIN, QK_GAIN, KV_MAP, BEFORE_ROTARY };

// R3 on the rows of q and k, as if it could stand before the rotary embedding.
static void rotate_rows_of_qk(Layer& layer, const Config& c, const Rotation& r) {
    const int rows = (c.H + c.KV) * c.D;
    Array<float> W((size_t)rows * c.C, "test"), Wt(W.n, "test");
    launch(gain_to_float_kernel, rows, 64, W.data, layer.groups[0].W, (const floatX*)nullptr, c.C);
    transpose(Wt.data, rows, W.data, c.C, rows, c.C);
    hadamard_rows(Wt.data, c.C, rows, c.H + c.KV, r.head);
    transpose(W.data, c.C, Wt.data, rows, c.C, rows);
    launch(round_rows_kernel, rows, 64, layer.groups[0].W, W.data, c.C);
}

// Logits [T, V] of some tokens.
static std::vector<float> logits_of(const Model& m, Rotation* r, Mistake mistake = NONE) {
    const Config& c = m.config;
    std::vector<int> tokens;
    for (int i = 0; i < 80; i++) tokens.push_back((i * i + 7 * i + 3) % c.V);
    std::vector<Stream> one;
    one.push_back(stream_of_windows(c, "tokens", tokens, 40, false));
    Stream& s = one[0];
    s.x.width = c.C, s.x.data = Array<floatX>(tokens.size() * c.C, "activations");
    stream_embed(m, s);
    Scratch scratch = scratch_alloc(c, one);
    if (r && mistake != EMBEDDINGS) stream_rotate(s, *r, false, scratch);
    Layer layer = layer_alloc(c);
    for (layer.index = 0; layer.index < c.L; layer.index++) {
        for (const Param& p : layer_params(c, layer)) load_param(m, p);
        if (r) {
            rotation_draw_r2(*r, layer.index);
            if (mistake == GAIN) launch(fill_kernel, 1, 64, layer.input_norm, 1.0f, c.C);
            if (mistake == QK_GAIN)
                launch(fill_kernel, 1, 64, layer.q_norm, 1.0f, c.D), launch(fill_kernel, 1, 64, layer.k_norm, 1.0f, c.D);
            if (mistake == KV_MAP) {  // o takes the heads' matrices in another order than v
                const size_t n = (size_t)c.D * c.D;
                std::vector<float> R2(r->R2.n);
                copy(R2.data(), r->R2.data, R2.size());
                std::swap_ranges(R2.begin(), R2.begin() + n, R2.begin() + n);
                copy(r->R2.data, R2.data(), R2.size());
            }
            rotate_layer(layer, *r);
            if (mistake == BEFORE_ROTARY) rotate_rows_of_qk(layer, c, *r);
            layer.rotation = r;
        }
        layer_forward(c, layer, s, scratch);
    }
    if (r && mistake != FINAL_NORM) stream_rotate(s, *r, true, scratch);
    Head head = head_load(m);
    std::vector<int> rows;
    for (size_t t = 0; t < tokens.size(); t++) rows.push_back((int)t);
    head_logits(c, head, s.x.data.data, rows);
    std::vector<float> logits(rows.size() * c.V);
    copy(logits.data(), head.logits.data, logits.size());
    return logits;
}

static double difference(const std::vector<float>& a, const std::vector<float>& b) {
    double most = 0, largest = 0;
    for (size_t i = 0; i < a.size(); i++)
        most = std::max(most, std::fabs((double)a[i] - b[i])), largest = std::max(largest, std::fabs((double)a[i]));
    return most / largest;
}

TEST(a_rotated_model_is_the_same_function) {
    for (int H : {6, 4, 2})  // grouped and ungrouped queries; 4 and 2 have a Hadamard matrix over the heads
        for (const char* type : {"qwen3", "qwen2", "llama"})
            for (bool tied : {true, false}) {
                if (tied && H != 6) continue;
                Config c = small_config(type == std::string("qwen2"), H);
                c.model_type = type, c.qk_norm = type == std::string("qwen3"), c.tied = tied;
                const Model m = small_model(c);
                const std::vector<float> straight = logits_of(m, nullptr);
                Rotation r = small_rotation(c);
                CHECK(difference(straight, logits_of(m, &r)) < (sizeof(floatX) == 4 ? 2e-5 : 0.03));
                Matrix R = dense(c.C, [&](float* x) { rotate_rows(x, c.C, r); });  // a given R1
                R = multiply(R, R, c.C, c.C, c.C);
                rotation_set_r1(r, to_device(std::vector<float>(R.begin(), R.end())));
                CHECK(difference(straight, logits_of(m, &r)) < (sizeof(floatX) == 4 ? 2e-5 : 0.03));
            }
}

TEST(mistakes_show) {
    for (Mistake mistake : {EMBEDDINGS, FINAL_NORM, GAIN, QK_GAIN, KV_MAP, BEFORE_ROTARY}) {
        Config c = small_config(false);
        if (mistake == BEFORE_ROTARY) c.model_type = "llama", c.qk_norm = false;
        const Model m = small_model(c);
        Rotation r = small_rotation(c);
        const double d = difference(logits_of(m, nullptr), logits_of(m, &r, mistake));
        if (d < 0.06) fail("mistake %d makes a difference of %g only", mistake, d);
    }
}

TEST(rotations_leave_the_bundled_model_as_it_is) {
    skip_when_emulated();
    for (const char* parts : {"r1,r2,r3,r4", "r1,r4", "r2,r3,heads"}) {
        const Report report = run_quietly(
            {"-m", "data/tiny", "--data", "data/tiny", "--limit", "1", "-q", "fp16", "--kl", "--rotate", "--rotate-only", parts});
        const double kl = report.kl[0].kl;
        if (!(std::fabs(kl) < (sizeof(floatX) == 4 ? 1e-6 : 5e-5))) fail("%s: a divergence of %g", parts, kl);
    }
    const Report blocks = run_quietly(
        {"-m", "data/tiny", "--data", "data/tiny", "--limit", "1", "-q", "fp16", "--kl", "--rotate", "--rotate-block", "64"});
    CHECK(std::fabs(blocks.kl[0].kl) < 5e-5);
}

TEST(a_saved_rotated_model_is_the_same_function) {
    skip_when_emulated();
    const TempFolder tmp;
    const std::string saved = tmp / "saved";
    run_quietly({"-m", "data/tiny", "--data", "data/tiny", "-q", "fp16", "--rotate-offline", "--save", saved.c_str()});
    Options o;
    o.model = saved;
    const Model m = model_open(o);
    CHECK(!m.config.tied);
    auto all = [&](const std::string& name, const std::vector<size_t>& shape, float value) {
        const TensorView& t = checkpoint_get(m.checkpoint, name, shape);
        std::vector<float> x(shape[0]);
        tensor_to_f32(t, 0, x.size(), x.data());
        for (float v : x)
            if (v != value) return false;
        return true;
    };
    const size_t C = m.config.C, D = m.config.D;
    for (const char* name :
         {"model.norm.weight", "model.layers.3.input_layernorm.weight", "model.layers.0.post_attention_layernorm.weight"})
        CHECK(all(name, {C}, 1));
    CHECK(!all("model.layers.0.self_attn.k_norm.weight", {D}, 1));
    auto run = [](const char* model) { return run_quietly({"-m", model, "--data", "data/tiny", "--limit", "1", "-q", "fp16"}); };
    const Report again = run(saved.c_str());
    const double straight = run("data/tiny").tasks[0].value;
    CHECK_NEAR(again.tasks[0].value, straight, (sizeof(floatX) == 4 ? 1e-5 : 2e-3) * straight);
    CHECK(std::count(again.notes.begin(), again.notes.end(), "the weights were rotated before: quantization.json") == 1);
}

// ---------------------------------------------------------------------------------------------------------------------
// Few bits

static double divergence(std::vector<const char*> method) {
    std::vector<const char*> args = {"-m", "data/tiny", "--data", "data/tiny", "--limit", "1", "--kl", "-b", "4", "-g", "-1"};
    args.insert(args.end(), method.begin(), method.end());
    return run_quietly(args).kl[0].kl;
}

TEST(rotations_save_four_bit_activations) {
    skip_when_emulated();
    const std::vector<const char*> few = {"-q", "gptq", "-n",       "4",         "-l",        "512",
                                          "-a", "4",    "--a-asym", "--a-heads", "--kv-bits", "4"};
    auto with = [](std::vector<const char*> a, const std::vector<const char*>& b) {
        a.insert(a.end(), b.begin(), b.end());
        return a;
    };
    const double plain = divergence(few), rotated = divergence(with(few, {"--rotate"}));
    CHECK(rotated < 0.65 * plain);
    // Keys and values each cost something.
    const double none = divergence({"-q", "rtn", "--rotate"});
    for (const char* flag : {"--k-bits", "--v-bits"}) CHECK(divergence({"-q", "rtn", "--rotate", flag, "3"}) > 1.02 * none);
}

// ---------------------------------------------------------------------------------------------------------------------
// Learned rotations and their file

static std::vector<const char*> few_bits(const std::vector<const char*>& rotation) {
    std::vector<const char*> args = {"-q", "rtn", "-a", "4", "--a-asym", "--a-heads", "--kv-bits", "4", "--rotate"};
    args.insert(args.end(), rotation.begin(), rotation.end());
    return args;
}

TEST(a_learned_rotation_is_better_than_a_random_one_and_comes_back_from_its_file) {
    skip_when_emulated();
#ifdef __SANITIZE_ADDRESS__
    SKIP("a question of numbers, too slow under a sanitizer");
#endif
    const TempFolder tmp;
    const std::string file = tmp / "rotation.safetensors";
    // Eight windows: of a single one, either may come out ahead.
    const std::vector<const char*> model = {"-m", "data/tiny", "--data", "data/tiny", "--limit", "8", "--kl", "-b", "8", "-g", "-1"};
    std::vector<const char*> args = model;
    for (const char* word : few_bits({"--learn-rotation", "--rotation", file.c_str()})) args.push_back(word);
    const Report learned = run_quietly(args);
    auto setting = [&](const char* key) {
        for (const auto& s : learned.rotation)
            if (s.first == key) return std::stod(s.second);
        return (double)NAN;
    };
    CHECK(setting("r1_after") < 0.9 * setting("r1_before") && setting("r2_after") < 0.99 * setting("r2_before"));
    CHECK(setting("off_orthogonal") < 1e-5);
    args = model;
    for (const char* word : few_bits({"--rotation", file.c_str()})) args.push_back(word);
    CHECK_EQ(run_quietly(args).kl[0].kl, learned.kl[0].kl);
    args.resize(args.size() - 2);
    CHECK(learned.kl[0].kl < run_quietly(args).kl[0].kl);
}

// Matrices that are diag(signs) times Sylvester's, [n, n] each; signs are the draws of Python's random.Random(seed).
static std::vector<Matrix> signed_sylvesters(int matrices, int n, uint64_t seed) {
    PythonRandom random(seed);
    std::vector<Matrix> all(matrices, Matrix((size_t)n * n));
    for (Matrix& R : all)
        for (int i = 0; i < n; i++) {
            const double value = (random.getrandbits(1) ? 1 : -1) / std::sqrt((double)n);
            for (int j = 0; j < n; j++) R[(size_t)i * n + j] = __builtin_popcount(i & j) % 2 ? -value : value;
        }
    return all;
}

// The smooth range, squared, of x R, where x [n] is divided by its root mean square and stored first.
static double soft_range(const float* x, const Matrix& R, int n) {
    double squares = 0, m = 0;
    for (int i = 0; i < n; i++) squares += (double)x[i] * x[i] / n;
    for (int j = 0; j < n; j++) {
        double y = 0;
        for (int i = 0; i < n; i++) y += to_float(to_floatX((float)(x[i] / std::sqrt(squares)))) * R[(size_t)i * n + j];
        m += std::pow(y, 8) / n;
    }
    return std::pow(m, 0.25);
}

// Where learning begins, its losses are means over all that is to be learned from: of R1 every 32nd token's rows before both norms of each
// layer, of R2 the same tokens' heads. Taken here from a pass of the test's own.
static void check_what_rotations_are_learned_from(const char* texts) {
    Config c = small_config(false);
    c.C = 64, c.V = 2048;
    const TempFolder tmp;
    std::filesystem::create_directory_symlink(std::filesystem::absolute("data/tiny"), tmp / "qwen3-tokenizer");
    std::filesystem::create_directory_symlink(std::filesystem::absolute("data/tiny/c4"), tmp / "c4");
    std::filesystem::create_directory(tmp / "wikitext2");
    std::filesystem::create_symlink(std::filesystem::absolute("data/tiny/wikitext2/wiki.test.raw"), tmp / "wikitext2/wiki.train.raw");
    Run run;
    run.options.calibration_set = texts;
    run.options.learn_rotation = run.options.rotate = true, run.options.sample_length = 40, run.options.seed = 3;
    run.model = small_model(c);
    run.rotation = rotation_for(run.options, c);
    learn_rotations(run, tmp.path);

    const TextSet set = calibration_set(model_tokenizer(run.model, tmp.path), tmp.path, texts, 16, 40, 3);
    std::vector<Stream> one;
    one.push_back(stream_of_windows(c, "tokens", set.tokens, 40, false));
    Stream& s = one[0];
    const int T = (int)s.tokens.size(), group = c.H / c.KV;
    CHECK(T == 640 && s.chunks.size() == 1);
    s.x.width = c.C, s.x.data = Array<floatX>((size_t)T * c.C, "activations");
    stream_embed(run.model, s);
    Scratch scratch = scratch_alloc(c, one);
    Layer layer = layer_alloc(c);
    const Matrix R1 = signed_sylvesters(1, c.C, 3)[0];
    double r1 = 0, r2 = 0;
    auto add_stream = [&] {
        const std::vector<float> x = download(s.x.data);
        for (int t = 0; t < T; t += 32) r1 += soft_range(&x[(size_t)t * c.C], R1, c.C) / (2 * c.L * (T / 32));
    };
    for (int l = 0; l < c.L; l++) {
        const std::vector<Matrix> R2 = signed_sylvesters(c.KV, c.D, 3 + ((uint64_t)(l + 1) << 32));
        layer_place(c, layer, l);
        for (const Param& p : layer_params(c, layer)) load_param(run.model, p);
        add_stream();
        for (int stage = 0; stage <= 4; stage++) {
            layer_stage(c, layer, stage, s.x.data.data, scratch.in.data, s.chunks[0], scratch);
            if (stage == 2) add_stream();
            if (stage != 1) continue;
            const std::vector<float> x = download(scratch.in);
            for (int t = 0; t < T; t += 32)
                for (int h = 0; h < c.H; h++)
                    r2 += soft_range(&x[((size_t)t * c.H + h) * c.D], R2[h / group], c.D) / (c.L * (T / 32) * c.H);
        }
    }
    auto setting = [&](const char* key) {
        for (const auto& setting : run.report.rotation)
            if (setting.first == key) return std::stod(setting.second);
        return (double)NAN;
    };
    CHECK_NEAR(setting("r1_before"), r1, 1e-4 * r1);
    CHECK_NEAR(setting("r2_before"), r2, 1e-4 * r2);
    CHECK(setting("r1_after") < r1 && setting("r2_after") < r2);
}

TEST(rotations_are_learned_from_both_norms_and_all_heads) {
    skip_when_emulated();
    for (const char* texts : {"c4", "wikitext2"}) check_what_rotations_are_learned_from(texts);
}

TEST(a_file_of_rotations) {
    const TempFolder tmp;
    const std::string file = tmp / "r.safetensors", old_temporary = file + ".tmp-" + std::to_string(getpid());
    Config c = small_config(false);
    Rotation r = rotation_make(shape_of(c), 9);
    std::vector<float> R1(c.C * c.C, 0);
    for (int i = 0; i < c.C; i++) R1[i * c.C + (i + 3) % c.C] = i % 2 ? -1.0f : 1.0f;
    rotation_set_r1(r, to_device(R1));
    r.all_R2.resize(c.L * c.KV * c.D * c.D, 0);
    for (int k = 0; k < c.L * c.KV; k++)  // each another one
        for (int i = 0; i < c.D; i++) r.all_R2[(k * c.D + i) * c.D + (i + k) % c.D] = i % 3 ? 1.0f : -1.0f;
    for (const std::string& link : {file, old_temporary}) std::filesystem::create_symlink(link + "-target", link);
    rotation_save(r, file, c);
    CHECK(std::filesystem::is_symlink(file) && !std::filesystem::exists(old_temporary));  // written through; not followed
    Rotation again = rotation_make(shape_of(c), 0);
    std::vector<float> found(R1.size());
    rotation_load(again, file, c);
    copy(found.data(), again.R1.data, found.size());
    CHECK(found == R1 && again.all_R2 == r.all_R2);
    // One matrix for all heads of a layer, as SpinQuant has.
    {
        SafetensorsWriter writer(file,
                                 {{"R1", "F32", {(size_t)c.C, (size_t)c.C}}, {"R2", "F32", {2, 1, (size_t)c.D, (size_t)c.D}}});
        writer.write("R1", R1.data(), R1.size() * 4);
        writer.write("R2", r.all_R2.data(), 2 * c.D * c.D * 4);
        writer.finish();
    }
    rotation_load(again, file, c);
    const size_t n = (size_t)c.D * c.D;
    for (size_t k = 0; k < 4; k++)
        CHECK(std::equal(&again.all_R2[k * n], &again.all_R2[k * n] + n, &r.all_R2[k / 2 * n]));
    // A matrix whose transpose does not undo it is refused; but not an R2 that nobody asked for.
    rotation_save(r, file, c);
    rotation_load(again, file, c);
    r.all_R2[3 * n + c.D] += 0.01f;
    rotation_save(r, file, c);
    CHECK_ERROR(rotation_load(again, file, c), "R2 of layer 1, kv head 1, is not orthogonal: |R^T R - I| is 0.01");
    again.has.r2 = false;
    rotation_load(again, file, c);
    again.has.r2 = true;
    r.all_R2.assign(r.all_R2.size(), NAN);
    rotation_save(r, file, c);
    CHECK_ERROR(rotation_load(again, file, c), "R2 of layer 0, kv head 0, is not orthogonal");
    R1[0] = 0.5f;
    rotation_set_r1(r, to_device(R1));
    rotation_save(r, file, c);
    CHECK_ERROR(rotation_load(again, file, c), "R1 is not orthogonal");
    CHECK_ERROR((c.C = 96, rotation_load(again, file, c)), "shape");
}

// max |w| / (2^(bits-1) - 1), codes -2^(bits-1) .. 2^(bits-1) - 1; with --mse the shrunk scale of the least sum |w^ - w|^2.4. Of RTN, and
// of GPTQ with H = 1, where there is nothing to make good; -g of the row's width fits its grids elsewhere in GPTQ.
TEST(the_signed_symmetric_grid) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    const int O = 6, I = 40;
    std::vector<float> w;
    for (int i = 0; i < O * I; i++)
        w.push_back(i / I == 1 ? 0 : to_float(to_floatX(i / I == 2 ? std::fabs(normal(random)) : normal(random))));
    for (int bits : {2, 3, 4})
        for (bool mse : {false, true}) {
            std::vector<std::vector<float>> found;
            for (int group_size : {-1, I})
                for (bool gptq : {false, true}) {
                    Array<floatX> W = upload(w);
                    Layer layer;
                    layer.groups[0] = {"test", O, I, W.data, nullptr, 1, {{"test", 0, O}}};
                    Quantizer q;
                    q.opt.wbits = bits, q.opt.sym_signed = true, q.opt.mse = mse, q.opt.group_size = group_size;
                    q.hessian[0] = white_hessian(I);
                    if (gptq) gptq_solve(q, layer, 0);
                    else rtn_solve(q, layer, 0);
                    found.push_back(download(W));
                }
            for (int r = 0; r < O; r++) {
                const int top = (1 << (bits - 1)) - 1;
                float most = 0;
                for (int i = 0; i < I; i++) most = std::max(most, std::fabs(w[r * I + i]));
                double least = INFINITY;
                std::vector<float> best;
                for (int shrink = 0; shrink < (mse ? 80 : 1); shrink++) {
                    const float scale = most > 0 ? (float)(1 - shrink / 100.0) * most / (float)top : 1;
                    double error = 0;
                    std::vector<float> row;
                    for (int i = 0; i < I; i++) {
                        const double code = std::clamp<double>(std::nearbyint(w[r * I + i] / scale), -top - 1, top);
                        row.push_back((float)(scale * code));
                        error += std::pow(std::fabs(row.back() - w[r * I + i]), 2.4);
                    }
                    if (error < least) least = error, best = row;
                }
                for (const std::vector<float>& W : found)
                    for (int i = 0; i < I; i++) CHECK_NEAR(W[r * I + i], best[i], std::fabs(best[i]) / 200 + 1e-6);
            }
        }
}

TEST(what_cannot_be_rotated_is_refused) {
    // 3008 = 47 x 64 has no matrix; what both widths are multiples of has.
    CHECK_ERROR(rotation_make({2048, 3008, 6, 2, 32}, 0), "HINT: --rotate-block 64");
    CHECK_EQ(rotation_make({2048, 3008, 6, 2, 32}, 0, 64).ffn.n, 64);
    CHECK_ERROR(rotation_make({80, 3008, 6, 2, 32}, 0), "intermediate_size = 3008");
    CHECK_ERROR(rotation_make({80, 3008, 6, 2, 32}, 0), "HINT: --rotate-block 16");
    CHECK_ERROR(rotation_make({80, 3008, 6, 2, 32, 160}, 0, 0, {false, false, false, true}), "HINT: --rotate-block 32");
    CHECK_ERROR(rotation_make({86, 3008, 6, 2, 32}, 0, 0, {true, true, true, true}, true), "HINT: --rotate-block 64");  // R1 comes from a file
    CHECK_EQ(rotation_make({2048, 11008, 16, 2, 128}, 0).ffn.n, 11008);  // Qwen2.5-3B
    CHECK_ERROR(rotation_make({80, 152, 6, 2, 32}, 0, 16),
                "--rotate-block 16: expected a divisor of the model's intermediate_size = 152");
    // A matrix that nobody asks for is not missed.
    CHECK_EQ(rotation_make({80, 3008, 6, 2, 32}, 0, 0, {true, true, false, false}).hidden.n, 80);
    CHECK_EQ(rotation_make({86, 152, 6, 2, 32}, 0, 0, {false, true, true, true}).ffn.n, 152);
    CHECK_EQ(rotation_make({86, 152, 6, 2, 32}, 0, 0, {}, true).ffn.n, 152);  // R1 comes from a file
    CHECK_EQ(rotation_make({80, 152, 6, 2, 43}, 0, 0, {true, false, false, true}).head.n, 0);
    CHECK_ERROR(rotation_make({80, 152, 6, 2, 43}, 0, 0, {true, true, false, true}), "head_dim = 43");
    CHECK_ERROR(rotation_make({80, 152, 6, 2, 43}, 0, 0, {true, true, false, true}), "HINT: --rotate-only without r2 and r3");
}
