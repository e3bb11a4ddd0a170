// test_export.cu: whole runs with packed checkpoints. Reading: the bundled model is quantized here, by loops of this file, and written
// once packed and once as the weights that the packed form stands for; both must give the same row, digit for digit.
#include "../data/export.h"
#include "golden.h"
#include "temp.h"
#include "test.h"
#include <functional>

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
        CHECK(a.tasks[i].value == b.tasks[i].value && a.tasks[i].stderr_ == b.tasks[i].stderr_);
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
        CHECK(packed.loaded && !dense.loaded);
        CHECK_EQ(packed.wbits, f.bits);
        CHECK_EQ(packed.group, f.group_size);
        CHECK(report_text(packed).find(quantization_method(f) + ", loaded") != std::string::npos);
        CHECK(report_json(packed).find("\"loaded\": true") != std::string::npos);
    }
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
    CHECK(!file_exists("unused"));
    // Its config.json beside weights that aren't quantized, or are so otherwise.
    write_bytes(tmp / "ct-dense/config.json", read_bytes(tmp / "ct/config.json"));
    CHECK_ERROR(row_of(tmp / "ct-dense"), "but its linears are not");
    write_bytes(tmp / "ct/config.json", read_bytes("data/tiny/config.json"));
    CHECK_ERROR(row_of(tmp / "ct"), "q_proj.weight_packed\" is there, which does not belong to a linear that is not quantized");
    // One linear of many as it is: taken, but not beside quantized inputs.
    auto one = [](const std::string& name) { return name.find("layers.2.mlp.down_proj") != std::string::npos; };
    make_packed(f, tmp / "mixed", one);
    check_same_results(row_of(tmp / "mixed"), row_of(tmp / "mixed-dense"));
    f.abits = 8;
    make_packed(f, tmp / "mixed8", one);
    CHECK_ERROR(row_of(tmp / "mixed8"), "layers.2.mlp.down_proj.weight\" is not quantized");
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
