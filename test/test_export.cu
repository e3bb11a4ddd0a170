// test_export.cu: whole runs with packed checkpoints.
//     reading   the bundled model is quantized here, by loops of this file, and written once packed and once as the weights that the
//               packed form stands for: both must give the same row, digit for digit
//     writing   what methods leave is what their weights are made of, and a run's row that of the packed checkpoint loaded back
#include "../data/export.h"
#include "golden.h"
#include "temp.h"
#include "test.h"
#include <functional>
#include <random>

static const std::string STORED = sizeof(floatX) == 2 ? "BF16" : "F32";

// The bundled model's tensors, a linear at a time.
static void each_tensor(const std::function<void(const TensorView&, bool linear)>& use) {
    static const Checkpoint ck = checkpoint_open("data/tiny");
    for (const TensorView& t : ck.tensors) use(t, ends_with(t.name, "_proj.weight"));
}

// t [O, I] on a grid of the format, from its weights' range.
static PackedLinear quantize_here(const QuantFormat& f, const TensorView& t) {
    const size_t O = t.shape[0], I = t.shape[1], G = f.group_size == -1 ? I : (size_t)f.group_size, n = I / G;
    PackedLinear p = {t.name.substr(0, t.name.rfind('.')),
                      O,
                      I,
                      n,
                      f.bits,
                      std::vector<uint8_t>(O * I),
                      std::vector<float>(O * n),
                      std::vector<uint8_t>(O * n),
                      std::vector<int>(I)};
    for (size_t i = 0; i < I; i++) p.group[i] = (int)(f.act_order ? (i * 37 + 11) % I / G : i / G);
    std::vector<float> w(O * I);
    tensor_to_f32(t, 0, w.size(), w.data());
    const double maxq = (1 << f.bits) - 1;
    for (size_t o = 0; o < O; o++)
        for (size_t g = 0; g < n; g++) {
            double lo = 0, hi = 0;
            for (size_t i = 0; i < I; i++)
                if (p.group[i] == (int)g) lo = std::min<double>(lo, w[o * I + i]), hi = std::max<double>(hi, w[o * I + i]);
            if (f.symmetric) hi = std::max(hi, -lo), lo = -hi;
            float scale = (float)std::max((hi - lo) / maxq, 1e-4);
            scale = f.kind == QuantFormat::GPTQ ? f32_from_f16(f16_from_f32(scale)) : f32_from_bf16(bf16_from_f32(scale));
            const double zero = f.symmetric ? (maxq + 1) / 2 : std::min(maxq, std::nearbyint(-lo / scale));
            p.scales[o * n + g] = scale, p.zeros[o * n + g] = (uint8_t)zero;
            for (size_t i = 0; i < I; i++)
                if (p.group[i] == (int)g)
                    p.codes[o * I + i] = (uint8_t)std::clamp(std::nearbyint(w[o * I + i] / scale) + zero, 0.0, maxq);
        }
    return p;
}

static void write_config(CheckpointWriter& writer, const std::string& quantization) {
    std::string config = read_bytes("data/tiny/config.json");
    if (!quantization.empty()) config.insert(config.find('{') + 1, "\"quantization_config\": " + quantization + ",");
    writer.write_text("config.json", config);
    for (const char* name : {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"})
        writer.copy_file(std::string("data/tiny/") + name);
    writer.finish();
}

// The bundled model quantized and packed in `dir`; `dir`-dense holds what it stands for. Linears for which `as_it_is` are not packed.
static void make_packed(const QuantFormat& f, const std::string& dir, const std::function<bool(const std::string&)>& as_it_is) {
    std::vector<TensorSpec> packed, dense;
    each_tensor([&](const TensorView& t, bool linear) {
        dense.push_back({t.name, linear ? STORED : t.dtype, t.shape});
        if (!linear || as_it_is(t.name)) return packed.push_back({t.name, t.dtype, t.shape});
        for (TensorSpec& spec : export_specs(f, "BF16", t.name.substr(0, t.name.rfind('.')), t.shape[0], t.shape[1]))
            packed.push_back(spec);
    });
    CheckpointWriter to_packed(dir, packed), to_dense(dir + "-dense", dense);
    each_tensor([&](const TensorView& t, bool linear) {
        if (!linear) return to_packed.write(t.name, t.data, t.n_bytes), to_dense.write(t.name, t.data, t.n_bytes);
        std::vector<floatX> weights(tensor_size(t));
        if (as_it_is(t.name)) {
            checkpoint_values(t, 0, weights.size(), weights.data());
            to_packed.write(t.name, t.data, t.n_bytes);
        } else {
            const PackedLinear p = quantize_here(f, t);
            for (size_t o = 0; o < p.O; o++)
                for (size_t i = 0; i < p.I; i++) {
                    const size_t at = o * p.n + (size_t)p.group[i];
                    weights[o * p.I + i] = to_floatX((float)((double)p.scales[at] * (p.codes[o * p.I + i] - p.zeros[at])));
                }
            export_write(to_packed, f, "BF16", p);
        }
        to_dense.write(t.name, weights.data(), weights.size() * sizeof(floatX));
    });
    write_config(to_packed, export_config(f));
    write_config(to_dense, "");
}

static bool none(const std::string&) { return false; }

static Report row_of(const std::string& dir, std::vector<const char*> more = {}) {
    std::vector<const char*> args = {"-m", dir.c_str(), "--data", "data/tiny", "-e", "wikitext2,piqa", "--limit", "1"};
    args.insert(args.end(), more.begin(), more.end());
    return run_quietly(args);
}

static void check_same_results(const Report& a, const Report& b) {
    CHECK_EQ(a.tasks.size(), b.tasks.size());
    for (size_t i = 0; i < a.tasks.size(); i++)
        CHECK(a.tasks[i].value == b.tasks[i].value && error_text(a.tasks[i].stderr_) == error_text(b.tasks[i].stderr_));
}

static QuantFormat format_of(QuantFormat::Kind kind, int bits, int group_size, bool symmetric) {
    QuantFormat f;
    f.kind = kind, f.bits = bits, f.group_size = group_size, f.symmetric = symmetric;
    f.zeros_less_one = kind == QuantFormat::GPTQ && symmetric;
    return f;
}

TEST(packed_checkpoints_run_as_they_are) {
    skip_when_emulated();
    std::vector<QuantFormat> formats = {format_of(QuantFormat::PACK, 3, 64, false), format_of(QuantFormat::PACK, 8, -1, true),
                                        format_of(QuantFormat::INT, 4, 32, false), format_of(QuantFormat::GPTQ, 4, 128, true),
                                        format_of(QuantFormat::GPTQ, 3, 128, false)};
    formats.back().act_order = true;
    for (const QuantFormat& f : formats) {
        TempFolder tmp;
        make_packed(f, tmp / "Packed-GPTQ-Int4", none);
        const Report packed = row_of(tmp / "Packed-GPTQ-Int4"), dense = row_of(tmp / "Packed-GPTQ-Int4-dense");
        check_same_results(packed, dense);
        for (const Report* r : {&packed, &dense})
            for (const std::string& note : r->notes) CHECK(note.find("left unread") == std::string::npos);
        CHECK(packed.loaded && !dense.loaded);
        CHECK_EQ(packed.wbits, f.bits);
        CHECK_EQ(packed.group, f.group_size);
        CHECK(report_text(packed).find(quantization_method(f) + ", loaded") != std::string::npos);
        CHECK(report_json(packed).find("\"loaded\": true") != std::string::npos);
    }
}

static bool has(const Report& r, const char* difference) {
    return std::count(r.not_the_papers.begin(), r.not_the_papers.end(), difference) == 1;
}

// Beside a paper's cells a row says that others quantized its weights, and this program's own doesn't.
TEST(others_checkpoints_are_not_the_papers) {
    skip_when_emulated();
    TempFolder tmp;
    const std::string theirs = tmp / "Qwen3-8B-GPTQ-Int4", sets = tmp / "sets";
    std::filesystem::create_directories(sets + "/wikitext2");
    write_bytes(sets + "/wikitext2/wiki.test.raw", read_bytes("data/tiny/wikitext2/wiki.test.raw").substr(0, 12000));
    make_packed(format_of(QuantFormat::GPTQ, 4, 128, true), theirs, none);
    auto row = [&](const char* limit = "0") {
        return run_quietly({"-m", theirs.c_str(), "--data", sets.c_str(), "-e", "wikitext2", "--limit", limit});
    };
    CHECK(has(row(), "quantized by others") && has(row(), "shape"));
    // A trial has no cells beside it; plot.py takes it all the same, and must know what it is of.
    const Report trial = row("1");
    CHECK(has(trial, "--limit") && has(trial, "quantized by others") && has(trial, "shape") && trial.paper.cells.empty());
    write_bytes(theirs + "/quantization.json", "{\"method\": \"gptq\", \"fake_quantized\": false, \"not_the_papers\": []}");
    const Report ours = row();
    CHECK(!has(ours, "quantized by others"));
    if (sizeof(floatX) == 2) CHECK_EQ(ours.paper.cell("method"), "gptq");
}

// What an int-quantized checkpoint says of its inputs is what -a would do.
TEST(packed_checkpoints_quantize_their_inputs) {
    skip_when_emulated();
    TempFolder tmp;
    QuantFormat f = format_of(QuantFormat::INT, 8, -1, true);
    f.abits = 8;
    make_packed(f, tmp / "w8a8", none);
    const Report packed = row_of(tmp / "w8a8"), dense = row_of(tmp / "w8a8-dense");
    CHECK_EQ(packed.abits, 8);
    CHECK(packed.tasks[0].value != dense.tasks[0].value);
    // Symmetric 8 bits a row and the same grid again: rounding to nearest leaves such weights as they are, up to their scale's last bit.
    const Report again = row_of(tmp / "w8a8-dense", {"-q", "rtn", "-b", "8", "-a", "8", "--sym"});
    CHECK_NEAR(packed.tasks[0].value, again.tasks[0].value, 1e-2 * again.tasks[0].value);
}

TEST(packed_checkpoints_are_refused) {
    skip_when_emulated();
    TempFolder tmp;
    QuantFormat f = format_of(QuantFormat::PACK, 4, 128, true);
    make_packed(f, tmp / "ct", none);
    CHECK_ERROR(row_of(tmp / "ct", {"-q", "rtn"}), "-q rtn: ct is quantized already (compressed-tensors 4 bits g128)");
    CHECK_ERROR(row_of(tmp / "ct", {"--save", "unused"}), "quantized already");
    CHECK_ERROR(row_of(tmp / "ct", {"--rotate"}), "on no grid");
    CHECK(!file_exists("unused"));
    // Its config.json beside weights that aren't quantized, or are so otherwise.
    write_bytes(tmp / "ct-dense/config.json", read_bytes(tmp / "ct/config.json"));
    CHECK_ERROR(row_of(tmp / "ct-dense"), "but its linears are not. HINT: does it belong to these files? If it was left over, take it out");
    write_bytes(tmp / "ct/config.json", read_bytes("data/tiny/config.json"));
    CHECK_ERROR(row_of(tmp / "ct"), "q_proj.weight_packed\" is there, which does not belong to a linear that is not quantized");
    // One linear of many as it is: taken, but not beside quantized inputs.
    auto one = [](const std::string& name) { return name.find("layers.2.mlp.down_proj") != std::string::npos; };
    make_packed(f, tmp / "mixed", one);
    check_same_results(row_of(tmp / "mixed"), row_of(tmp / "mixed-dense"));
    f.abits = 8;
    make_packed(f, tmp / "mixed8", one);
    CHECK_ERROR(row_of(tmp / "mixed8"), "layers.2.mlp.down_proj.weight\" is not quantized");
    // Of tensors that aren't quantized no values but plain ones are read; that shows before the work.
    for (const std::string name : {"model.layers.3.input_layernorm.weight", "model.layers.3.mlp.down_proj.weight"}) {
        const std::string dir = tmp / name.c_str();
        std::vector<TensorSpec> specs;
        each_tensor([&](const TensorView& t, bool) { specs.push_back({t.name, t.name == name ? "I16" : t.dtype, t.shape}); });
        CheckpointWriter writer(dir, specs);
        each_tensor([&](const TensorView& t, bool) { writer.write(t.name, t.data, t.n_bytes); });
        write_config(writer, "");
        CHECK_ERROR(run_quietly({"-m", dir.c_str(), "--data", "nowhere", "-q", "rtn"}),
                    "tensor \"" + name + "\" should be BF16, F16 or F32, found I16. HINT: take a checkpoint whose layers'");
    }
    // A file that ends early.
    const std::string file = tmp / "mixed/model.safetensors", bytes = read_bytes(file);
    write_bytes(file, bytes.substr(0, bytes.size() - 1000));
    CHECK_ERROR(row_of(tmp / "mixed"), "truncated");
}

TEST(published_names) {
    CHECK_EQ(unquantized_name("Qwen3-8B-AWQ"), "Qwen3-8B");
    CHECK_EQ(unquantized_name("Qwen3-0.6B-GPTQ-Int8"), "Qwen3-0.6B");
    CHECK_EQ(unquantized_name("Qwen3-8B-FP8"), "Qwen3-8B");
    CHECK_EQ(unquantized_name("Qwen3-8B-Base"), "Qwen3-8B-Base");
    CHECK_EQ(unquantized_name("-AWQ"), "-AWQ");
}

// ---- writing ----

TEST(stored_scales_are_numbers_of_their_dtype) {
    std::mt19937 random(5);
    std::vector<float> both;  // what F16 and bf16 hold
    for (int h = 1; h < 0x7C00; h++)
        if (const float x = f32_from_f16((uint16_t)h); f32_from_bf16(bf16_from_f32(x)) == x) both.push_back(x);
    std::vector<float> scales = {0x1p-14f,   0x1.ffcp-15f,   0x1p-24f,       0x1.8p-24f,
                                 0x1.4p-23f, 1.0f + 0x1p-8f, 1.0f + 0x3p-8f, 1.0f + 0x1p-11f};
    for (int i = 0; i < 20000; i++)
        scales.push_back(std::ldexp(1.0f + (float)(random() % (1 << 23)) * 0x1p-23f, -(int)(random() % 24)));
    for (float x : scales) {
        CHECK_EQ(round_scale(x, Scale::F32), x);
        CHECK_EQ(round_scale(x, Scale::BF16), f32_from_bf16(bf16_from_f32(x)));
        const auto of_both = std::lower_bound(both.begin(), both.end(), x);  // not less than x
        const float half = round_scale(x, Scale::HALF), above = of_both == both.end() ? INFINITY : *of_both;
        const float below = of_both == both.begin() ? 0 : *(of_both - 1);
        CHECK(std::binary_search(both.begin(), both.end(), half) && (half == above || half == below));
        CHECK(below == 0 || std::fabs(half - x) <= std::min(above - x, x - below));
    }
    CHECK_EQ(round_scale(1e-12f, Scale::HALF), 0x1p-24f);  // never 0
    CHECK_EQ(round_scale(0x1.01p-10f, Scale::HALF), 0x1p-10f), CHECK_EQ(round_scale(0x1.03p-10f, Scale::HALF), 0x1.04p-10f);  // ties to even
    CHECK(round_scale(1e-45f, Scale::BF16) > 0);
}

// Rows that try a grid: of one sign (zero point 0 or maxq), zero, tiny, one outlier, ordinary.
static std::vector<float> awkward_weights(int O, int I) {
    std::mt19937 random(9);
    std::normal_distribution<float> normal;
    std::vector<float> w;
    for (int o = 0; o < O; o++)
        for (int i = 0; i < I; i++) {
            const float x = normal(random);
            w.push_back(o % 6 == 0   ? std::fabs(x)
                        : o % 6 == 1 ? -std::fabs(x)
                        : o % 6 == 2 ? 0
                        : o % 6 == 3 ? 1e-6f * x
                        : o % 6 == 4 ? (i == 3 ? 100 : x)
                                     : x);
        }
    return w;
}

// W is what the left codes say, and every scale, zero and code is one that the file can hold.
static void check_left(const Quantizer& q, const Group& group, const Array<floatX>& W, bool symmetric) {
    std::vector<floatX> weights(W.n);
    copy(weights.data(), W.data, W.n);
    const int maxq = (1 << q.opt.wbits) - 1;
    CHECK_EQ(q.packed.size(), (size_t)group.n_linears);
    for (int k = 0; k < group.n_linears; k++) {
        const PackedLinear& p = q.packed[k];
        CHECK_EQ(p.name, group.linears[k].name);
        CHECK(p.O == (size_t)group.linears[k].O && p.I == (size_t)group.I && p.bits == q.opt.wbits);
        for (size_t at = 0; at < p.scales.size(); at++) {
            CHECK_EQ(round_scale(p.scales[at], q.opt.scale), p.scales[at]);
            CHECK(symmetric ? p.zeros[at] == (maxq + 1) / 2 : p.zeros[at] <= maxq);
        }
        for (size_t o = 0; o < p.O; o++)
            for (size_t i = 0; i < p.I; i++) {
                const size_t at = o * p.n + (size_t)p.group[i];
                CHECK(p.codes[o * p.I + i] <= maxq);
                const float stands_for = (float)((double)p.scales[at] * (p.codes[o * p.I + i] - p.zeros[at]));
                CHECK_EQ(to_float(to_floatX(stands_for)), to_float(weights[(group.linears[k].row + o) * p.I + i]));
            }
    }
}

TEST(codes_are_what_the_weights_are_made_of) {
    const int O = 14, I = 96, n = 200;
    const std::vector<float> w = awkward_weights(O, I);
    std::vector<float> x;
    std::mt19937 random(11);
    std::normal_distribution<float> normal;
    for (int t = 0; t < n; t++)
        for (int i = 0; i < I; i++) x.push_back(normal(random) * (i % 7 + 1));
    const Array<floatX> X = upload(x);
#ifdef EMULATED
    const std::vector<int> some_bits = {3, 8};
#else
    const std::vector<int> some_bits = {1, 2, 3, 4, 5, 6, 7, 8};
#endif
    bool zero_point_0 = false, zero_point_maxq = false;
    for (Scale scale : {Scale::F32, Scale::HALF, Scale::BF16})
        for (int bits : some_bits)
            for (int way = 0; way < 8; way++) {
                Array<floatX> W = upload(w);
                Layer layer;
                layer.index = 0;
                layer.groups[0] = {"test", O, I, W.data, nullptr, 2, {{"a", 0, 5}, {"b", 5, 9}}};
                Quantizer q;
                q.opt.wbits = bits, q.opt.pack = true, q.opt.scale = scale;
                q.opt.group_size = way % 2 ? 32 : -1, q.opt.sym = way % 4 >= 2;
                bool symmetric = q.opt.sym;
                if (way < 4) {
                    q.opt.mse = bits == 3;
                    rtn_solve(q, layer, 0);
                } else if (way < 7) {
                    q.opt.act_order = way != 4, q.opt.static_groups = way == 6;
                    hessian_collect(q, layer.groups[0], 0, X.data, n);
                    gptq_solve(q, layer, 0);
                } else if (bits > 1) {
                    const Array<float> from = weights_to_float(layer.groups[0]);
                    symmetric_grid(q, layer.groups[0], from.data);
                    symmetric = true;
                } else {
                    continue;
                }
                check_left(q, layer.groups[0], W, symmetric);
                for (const PackedLinear& p : q.packed)
                    for (size_t i = 0; i < p.zeros.size(); i++) {
                        zero_point_0 = zero_point_0 || p.zeros[i] == 0;
                        zero_point_maxq = zero_point_maxq || (bits == 8 && p.zeros[i] == 255);
                    }
            }
    CHECK(zero_point_0 && zero_point_maxq);
}

TEST(awq_leaves_its_codes) {
    skip_when_emulated();
    const std::vector<float> w = awkward_weights(14, 96), ones(96, 1.0f);
    for (Scale scale : {Scale::HALF, Scale::BF16})
        for (int bits : {1, 4, 8}) {
            Array<floatX> W = upload(w), X = upload(awkward_weights(40, 96));
            Layer layer;
            layer.index = 0;
            layer.groups[3] = {"test", 14, 96, W.data, nullptr, 1, {{"a", 0, 14}}};
            Quantizer q;
            q.opt.wbits = bits, q.opt.pack = true, q.opt.scale = scale, q.opt.group_size = 32;
            q.n_calibration = 40;
            AwqGroup a;
            a.W = weights_to_float(layer.groups[3]);
            a.s = ones;
            awq_clip_and_round(q, layer, 3, AwqInputs{X.data, 40, {}}, a);
            check_left(q, layer.groups[3], W, false);
        }
}

static std::vector<const char*> joined(std::vector<const char*> a, const std::vector<const char*>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

static const std::vector<const char*> TINY = {"-m", "data/tiny", "--data", "data/tiny", "-e", "wikitext2,piqa", "--limit", "1"};

TEST(what_is_measured_is_what_is_saved) {
    skip_when_emulated();
    const std::vector<std::vector<const char*>> runs = {
        {"-q", "rtn", "-b", "4", "-g", "128", "--format", "compressed-tensors"},
        {"-q", "rtn", "-b", "1", "-g", "32", "--format", "compressed-tensors"},
        {"-q", "rtn", "-b", "2", "-g", "32", "--format", "gptq"},
        {"-q", "rtn", "-b", "8", "-a", "8", "--sym", "--format", "compressed-tensors"},
        {"-q", "rtn", "-b", "4", "-a", "8", "--format", "compressed-tensors"},
        {"-q", "gptq", "-b", "3", "-n", "2", "-l", "128", "--format", "gptq"},
        {"-q", "gptq", "-b", "8", "-g", "-1", "-n", "2", "-l", "128", "--sym", "--format", "gptq"},
        {"-q", "gptq", "-b", "5", "-g", "-1", "-n", "2", "-l", "128", "--format", "compressed-tensors"},
        {"-q", "gptq", "-b", "3", "-n", "2", "-l", "128", "--static-groups", "--format", "compressed-tensors"},
        {"-q", "gptaq", "-b", "3", "-n", "2", "-l", "128", "--no-act-order", "--format", "compressed-tensors"},
        {"-q", "foem", "-b", "4", "-n", "2", "-l", "128", "--format", "gptq"},
        {"-q", "awq", "-b", "3", "-n", "1", "-l", "128", "--format", "compressed-tensors"},
        {"-q", "awq", "-b", "4", "-n", "1", "-l", "128", "--format", "gptq"},
        {"-q", "smoothquant", "-n", "2", "-l", "128", "--format", "compressed-tensors"},
        {"-q", "smoothquant", "-b", "4", "-a", "16", "--no-smooth", "--format", "compressed-tensors"},
    };
    for (const auto& run : runs) {
        TempFolder tmp;
        const std::string first = tmp / "first", second = tmp / "second";
        const Report saved = run_quietly(joined(joined(TINY, run), {"--save", first.c_str()}));
        const Report loaded = row_of(first);
        check_same_results(saved, loaded);
        CHECK(loaded.loaded && loaded.wbits == saved.wbits && loaded.abits == saved.abits && loaded.group == saved.group);
        CHECK(saved.stored_bits == loaded.stored_bits && saved.stored_bytes == loaded.stored_bytes);
        CHECK(saved.stored_bits > saved.wbits && saved.stored_bits < saved.wbits + 1.2);
        CHECK(read_bytes(first + "/quantization.json").find("\"fake_quantized\": false") != std::string::npos);
        if (&run != &runs[5] && &run != &runs[11]) continue;
        run_quietly(joined(joined(TINY, run), {"--save", second.c_str()}));
        for (const char* file : {"/model.safetensors", "/config.json", "/quantization.json"})
            CHECK(read_bytes(first + file) == read_bytes(second + file));
    }
}

// A checkpoint of --save is known again: a packed one is its method's row, plain weights on a grid are not full precision, and neither
// gets the cells of a paper whose model's name its folder has, unless the settings were that paper's.
TEST(saved_checkpoints_say_what_they_are) {
    skip_when_emulated();
    TempFolder tmp;
    const std::string plain = tmp / "Qwen3-0.6B-Base", packed = tmp / "Qwen3-0.6B-Base-GPTQ-Int4", papers = tmp / "Qwen3-8B-GPTQ-Int4";
    run_quietly(joined(TINY, {"-q", "rtn", "-b", "3", "--save", plain.c_str()}));
    const Report as_plain = row_of(plain);
    CHECK(as_plain.method == "rtn" && as_plain.loaded && as_plain.wbits == 3 && as_plain.abits == 16 && as_plain.group == -1);
    CHECK(report_text(as_plain).find("rtn, loaded  3  16  -") != std::string::npos);
    const Report again = row_of(plain, {"-q", "rtn", "-b", "4"});
    CHECK(again.method == "rtn" && !again.loaded && again.wbits == 4 && has(again, "quantized weights"));
    CHECK_EQ(again.notes.size(), (size_t)2);
    CHECK_EQ(again.notes[0], "the weights were quantized before, by rtn: quantization.json");
    CHECK(again.notes[1].find("no paper's cells stand beside this row") == 0 && again.notes[1].find("quantized weights") != std::string::npos);
    const std::string rotated = tmp / "rotated";
    for (const char* format : {"bf16", "gptq"}) {
        run_quietly(joined(TINY, {"-q", "rtn", "-b", "4", "--rotate-offline", "--save", rotated.c_str(), "--format", format}));
        CHECK(report_text(row_of(rotated)).find("rtn rotated, loaded  4  16  -") != std::string::npos);
        std::filesystem::remove_all(rotated);
    }
    run_quietly(joined(TINY, {"-q", "billm", "-n", "2", "-l", "128", "--save", rotated.c_str()}));
    const std::string one_bit = report_text(row_of(rotated));
    CHECK(one_bit.find("billm, loaded  1.") != std::string::npos && one_bit.find("billm, loaded  1 ") == std::string::npos);

    run_quietly(joined(TINY, {"-q", "rtn", "-b", "4", "-g", "128", "--sym", "--format", "gptq", "--save", packed.c_str()}));
    const Report as_packed = row_of(packed);
    CHECK(as_packed.method == "rtn" && as_packed.loaded && as_packed.paper.cells.empty() && has(as_packed, "--sym"));
    CHECK(report_text(as_packed).find("rtn, loaded") != std::string::npos);

    run_quietly(joined(TINY, {"-q", "rtn", "-b", "4", "-g", "128", "--format", "gptq", "--save", papers.c_str()}));
    Report r;
    r.loaded = true, r.method = "gptq";
    report_saved(r, papers);
    CHECK_EQ(r.method, "rtn");
    CHECK_EQ(r.not_the_papers.empty(), sizeof(floatX) == 2);
    CHECK_ERROR(require_disk(tmp / "huge", (size_t)1 << 62), "--save " + tmp.path + "/huge: the checkpoint takes 4611686018.427 GB, and its disk has ");
    CHECK_ERROR(require_disk(tmp / "huge/", (size_t)1 << 62), "and its disk has ");
    require_disk(tmp / "small", 1000);
    // A file of another program, and one of this program's before it said more.
    r.method = "gptq";
    for (const char* other : {"{\"bits\": 4}", "not json", "", "[1]", "{\"fake_quantized\": true}", "{\"fake_quantized\": true, \"method\": 4}"}) {
        write_bytes(papers + "/quantization.json", other);
        CHECK(!report_saved(r, papers));
        CHECK_EQ(r.method, "gptq");
        CHECK_EQ(r.not_the_papers.empty(), sizeof(floatX) == 2);
    }
    CHECK(r.notes.size() == 2 && r.notes[0].find("left unread: " + papers + "/quantization.json: broken JSON") == 0);
    write_bytes(papers + "/quantization.json", "{\"method\": \"rtn\", \"fake_quantized\": false}");
    report_saved(r, papers);
    CHECK(r.method == "rtn" && has(r, "settings of the saved checkpoint"));
}

// transformers saves what it has unpacked as plain weights, beside a quantization_config that says so. Such a file is read as plain
// weights, and its row says that they are on a grid.
TEST(unpacked_checkpoints_are_plain) {
    skip_when_emulated();
    TempFolder tmp;
    const std::string packed = tmp / "packed", plain = tmp / "plain", again = tmp / "again";
    run_quietly({"-m", "data/tiny", "-q", "rtn", "-b", "4", "-g", "64", "--sym", "--save", packed.c_str(), "--format", "compressed-tensors"});
    run_quietly({"-m", "data/tiny", "-q", "rtn", "-b", "4", "-g", "64", "--sym", "--save", plain.c_str()});
    const Report expected = row_of(plain);
    std::string config = read_bytes(packed + "/config.json");
    const std::string from = "\"quantization_status\": \"compressed\"";
    const size_t at = config.find(from);
    CHECK(at != std::string::npos);
    config.replace(at, from.size(), "\"quantization_status\": \"decompressed\"");
    write_bytes(plain + "/config.json", config);
    {
        const Checkpoint weights = checkpoint_open(plain), scales = checkpoint_open(packed);
        std::vector<TensorView> all = weights.tensors;
        for (const TensorView& t : scales.tensors)
            if (ends_with(t.name, ".weight_scale") || ends_with(t.name, ".weight_shape")) all.push_back(t);
        CHECK(all.size() > weights.tensors.size());
        std::vector<TensorSpec> specs;
        for (const TensorView& t : all) specs.push_back({t.name, t.dtype, t.shape});
        SafetensorsWriter writer(tmp / "both", specs);
        for (const TensorView& t : all) writer.write(t.name, t.data, t.n_bytes);
        writer.finish();
    }
    std::filesystem::rename(tmp / "both", plain + "/model.safetensors");
    std::filesystem::remove(plain + "/quantization.json");  // which transformers doesn't write
    const Report found = row_of(plain);
    check_same_results(expected, found);
    CHECK(found.loaded && found.method == "compressed-tensors" && found.wbits == 4 && found.group == 64 && found.abits == 16);
    CHECK(report_text(found).find("compressed-tensors, loaded  4  16  64") != std::string::npos);
    const Report anew = run_quietly({"-m", plain.c_str(), "-q", "rtn", "-b", "8", "--save", again.c_str()});
    CHECK(!anew.loaded && anew.method == "rtn" && anew.wbits == 8 && has(anew, "quantized weights"));
    CHECK_EQ(anew.notes.back(), "the weights were quantized before, by compressed-tensors: config.json");
    CHECK(read_bytes(again + "/config.json").find("quantization_config") == std::string::npos);
}

// A mixture's experts are packed one by one, its routers stay as they are.
TEST(mixtures_of_experts_are_packed) {
    skip_when_emulated();
    TempFolder tmp;
    const std::string dir = tmp / "moe", dense = tmp / "fake";
    const std::vector<const char*> model = {"-m", "test/golden/moe", "-q", "rtn", "-b", "4", "-g", "16", "--sym"};
    CHECK_ERROR(run_quietly(joined(model, {"--save", dir.c_str(), "--format", "gptq"})), "mixture of experts");
    const Report saved = run_quietly(joined(model, {"--save", dir.c_str(), "--format", "compressed-tensors"}));
    run_quietly(joined(model, {"--save", dense.c_str()}));
    CHECK_NEAR(saved.stored_bits, 4 + 8.0 * sizeof(floatX) / 16 + 0.1, 0.1);  // and weight_shape, which weighs something in linears as small as these
    CHECK(read_bytes(dir + "/config.json").find("\"re:.*mlp.gate$\"") != std::string::npos);
    // As far from the original as what is saved as bf16, whose scales are not rounded, linear by linear.
    const Checkpoint packed = checkpoint_open(dir), plain = checkpoint_open(dense), original = checkpoint_open("test/golden/moe");
    const QuantFormat f = quantization_format(json_parse_file(dir + "/config.json"), dir);
    size_t linears = 0;
    for (const TensorView& t : plain.tensors) {
        if (!ends_with(t.name, "_proj.weight")) continue;
        const size_t O = t.shape[0], I = t.shape[1];
        std::vector<float> a(O * I), b(O * I), w(O * I);
        quantized_to_f32(quantized_find(packed, f, t.name.substr(0, t.name.rfind('.')), O, I), 0, O, a.data());
        tensor_to_f32(t, 0, O * I, b.data());
        tensor_to_f32(checkpoint_get(original, t.name, t.shape), 0, O * I, w.data());
        double of_a = 0, of_b = 0;
        for (size_t i = 0; i < w.size(); i++) of_a += std::pow(a[i] - w[i], 2), of_b += std::pow(b[i] - w[i], 2);
        CHECK(of_b > 0);
        CHECK_NEAR(std::sqrt(of_a / of_b), 1, 0.05);
        linears++;
    }
    CHECK(linears > 30);
    // What reads it is said where not everything does.
    auto of_transformers = [](const Report& r) {
        return std::count_if(r.notes.begin(), r.notes.end(), [](const std::string& note) { return note.find("transformers 5.24 loads no") == 0; });
    };
    CHECK_EQ(of_transformers(saved), 0);
    CHECK_EQ(of_transformers(run_quietly({"-m", "test/golden/moe", "-q", "rtn", "-g", "16", "--save", (tmp / "asym").c_str(), "--format",
                                          "compressed-tensors"})), 1);
    // A router that is packed.
    std::vector<TensorSpec> specs;
    for (const TensorView& t : packed.tensors)
        specs.push_back({ends_with(t.name, "2.mlp.gate.weight") ? t.name + "_packed" : t.name, t.dtype, t.shape});
    SafetensorsWriter writer(tmp / "renamed", specs);
    for (size_t i = 0; i < specs.size(); i++) writer.write(specs[i].name, packed.tensors[i].data, packed.tensors[i].n_bytes);
    writer.finish();
    std::filesystem::rename(tmp / "renamed", dir + "/model.safetensors");
    CHECK_ERROR(run_quietly({"-m", dir.c_str(), "--data", "nowhere"}),
                "\"model.layers.2.mlp.gate.weight\" is packed (compressed-tensors), which only linears of layers may be here, and no router");
}

// 4 bits g128 with a scale of 16 bits and a zero point of 4 bits: 4 + 20 / 128.
TEST(stored_bits_count_scales_and_zeros) {
    skip_when_emulated();
    TempFolder tmp;
    const std::string dir = tmp / "out";
    const Report r =
        run_quietly({"-m", "data/tiny", "-q", "rtn", "-b", "4", "-g", "128", "--save", dir.c_str(), "--format", "gptq"});
    double g_idx = 0, weights = 0;  // gptq: and 32 bits for each input column of each linear
    each_tensor([&](const TensorView& t, bool linear) {
        if (linear) g_idx += 32.0 * t.shape[1], weights += (double)tensor_size(t);
    });
    CHECK_NEAR(r.stored_bits, 4 + 20 / 128.0 + g_idx / weights, 1e-9);
    CHECK(report_json(r).find("\"bits_per_weight\": 4.") != std::string::npos);
    // The same of half of its layers, with the files as they are.
    std::string config = read_bytes(dir + "/config.json");
    const size_t at = config.find("\"num_hidden_layers\": 4");
    CHECK(at != std::string::npos);
    write_bytes(dir + "/config.json", config.replace(at, 22, "\"num_hidden_layers\": 2"));
    const Report half = row_of(dir);
    CHECK_NEAR(half.stored_bits, 4 + 20 / 128.0 + g_idx / weights, 1e-9);
    const std::string& note = half.notes.back();  // of a layer: 7 linears of 4 tensors, 4 gains
    if (note.find("64 tensors are left unread, model.layers.2.") != 0) fail("found the note \"%s\"", note.c_str());
}

TEST(formats_refuse_before_the_work) {
    skip_when_emulated();
    auto refused = [](const std::vector<const char*>& args, const char* sentence) {
        CHECK_ERROR(run_quietly(joined(joined(TINY, {"--save", "unused"}), args)), sentence);
        CHECK(!is_directory("unused"));
    };
    refused({"-q", "rtn", "--format", "ggml"}, "expected bf16, compressed-tensors or gptq");
    refused({"-q", "billm", "--format", "gptq"}, "BiLLM");
    refused({"--format", "gptq"}, "quantizes nothing");
    refused({"-q", "gptq", "--format", "compressed-tensors"}, "--static-groups");
    refused({"-q", "gptq", "-b", "6", "--format", "gptq"}, "2, 3, 4 or 8 bits");
    refused({"-q", "rtn", "-g", "96", "--format", "compressed-tensors"}, "do not divide");
    refused({"-q", "rtn", "--kv-bits", "4", "--format", "gptq"}, "bits of keys, values and probabilities");
    refused({"-q", "rtn", "-a", "8", "--a-asym", "--format", "compressed-tensors"}, "one symmetric grid a token");
    refused({"-q", "rtn", "-a", "8", "--a-group", "64", "--format", "compressed-tensors"}, "one symmetric grid a token");
    refused({"-q", "smoothquant", "--format", "gptq"}, "no activation bits");
    refused({"-q", "rtn", "-a", "4", "--format", "gptq"}, "no activation bits");
    refused({"-q", "smoothquant", "-a", "4", "--format", "compressed-tensors"}, "activations of 4 bits");
    CHECK_ERROR(run_quietly(joined(TINY, {"-q", "rtn", "--format", "gptq"})), "without --save");
    CHECK_EQ(config_with_quantization("{\"a\": 1}", "{}"), "{\n  \"quantization_config\": {},\"a\": 1}");
}
