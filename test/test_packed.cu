// test_packed.cu: packed checkpoints against bytes that scripts/golden/golden_packed.py put together from Python's big integers.
#include "../data/export.h"
#include "../data/packed.h"
#include "../data/quantized.h"
#include "temp.h"
#include "test.h"
#include <functional>
#include <map>
#include <random>

static const std::string FOLDER = "test/golden/packed/";

struct Golden {
    Checkpoint packed = safetensors_open(FOLDER + "packed.safetensors"), plain = safetensors_open(FOLDER + "plain.safetensors");
    Json formats = json_parse_file(FOLDER + "formats.json");
};

template <class T> static std::vector<T> values(const Checkpoint& ck, const std::string& name) {
    const TensorView* t = checkpoint_find(ck, name);
    if (!t) fail("golden tensor %s is missing", name.c_str());
    std::vector<T> v(t->n_bytes / sizeof(T));
    memcpy(v.data(), t->data, t->n_bytes);
    return v;
}

static Json config_of(const Json& quantization) {
    Json config;
    config.type = Json::OBJECT;
    config.object.push_back({"quantization_config", quantization});
    return config;
}

static Json parse(const std::string& text) { return json_parse(text.data(), text.size(), "text"); }

// The linear of a golden case as a method would leave it.
static PackedLinear plain_linear(const Golden& g, const std::string& name, const QuantFormat& f) {
    const std::vector<size_t>&codes = checkpoint_find(g.plain, name + ".codes")->shape,
          &scales = checkpoint_find(g.plain, name + ".scales")->shape;
    return {name,
            codes[0],
            codes[1],
            scales[1],
            f.bits,
            values<uint8_t>(g.plain, name + ".codes"),
            values<float>(g.plain, name + ".scales"),
            values<uint8_t>(g.plain, name + ".zeros"),
            values<int>(g.plain, name + ".group")};
}

static std::vector<float> plain_weights(const Golden& g, const std::string& name, const QuantFormat& f) {
    if (f.kind == QuantFormat::FP8) return values<float>(g.plain, name + ".weights");
    const PackedLinear p = plain_linear(g, name, f);
    std::vector<float> w(p.O * p.I);
    for (size_t o = 0; o < p.O; o++)
        for (size_t i = 0; i < p.I; i++) {
            const size_t at = o * p.n + (size_t)p.group[i];
            w[o * p.I + i] = (float)((double)p.scales[at] * (p.codes[o * p.I + i] - p.zeros[at]));
        }
    return w;
}

static std::vector<size_t> plain_shape(const Golden& g, const std::string& name) {
    const TensorView* t = checkpoint_find(g.plain, name + ".codes");
    return (t ? t : checkpoint_find(g.plain, name + ".weights"))->shape;
}

TEST(packed_string) {
    // 3 bits: code 10 has 2 bits in word 0 and one in word 1; code 21 one in word 1 and two in word 2.
    std::vector<uint8_t> codes(32, 0);
    codes[10] = 6, codes[21] = 5, codes[31] = 7;
    uint32_t words[3];
    pack_row(codes.data(), 32, 3, words);
    CHECK_EQ(words[0], 2u << 30);
    CHECK_EQ(words[1], 1u | 1u << 31);
    CHECK_EQ(words[2], 2u | 7u << 29);
    std::mt19937 random(1);
    for (int bits = 1; bits <= 8; bits++)
        for (size_t n : {0, 1, 7, 8, 9, 31, 32, 33, 95, 100}) {
            const size_t columns = 19;  // more than are transposed at a time
            std::vector<uint8_t> in(columns * n), out(columns * n), piece(3 * n);
            for (uint8_t& code : in) code = (uint8_t)(random() % (1u << bits));
            const size_t n_words = packed_words(n, bits);
            CHECK_EQ(n_words, (n * bits + 31) / 32);
            std::vector<uint32_t> string(n_words * columns), row(n_words);
            pack_columns(in.data(), columns, n, bits, string.data());
            unpack_columns((const unsigned char*)string.data(), columns, 0, columns, n, bits, out.data());
            CHECK(in == out);
            unpack_columns((const unsigned char*)string.data(), columns, 15, 3, n, bits, piece.data());
            CHECK(std::equal(piece.begin(), piece.end(), in.begin() + 15 * n));
            pack_row(in.data(), n, bits, row.data());
            for (size_t w = 0; w < n_words; w++) CHECK_EQ(row[w], string[w * columns]);
            // One byte off any alignment, and exactly as long as it is.
            std::vector<unsigned char> bytes(1 + 4 * n_words);
            if (n_words) memcpy(bytes.data() + 1, row.data(), 4 * n_words);
            unpack_row(bytes.data() + 1, n, bits, out.data());
            CHECK(std::equal(out.begin(), out.begin() + n, in.begin()));
        }
}

TEST(packed_f16) {
    for (int h = 0; h < 0x10000; h++) {
        const float x = f32_from_f16((uint16_t)h);
        if (std::isnan(x)) CHECK(std::isnan(f32_from_f16(f16_from_f32(x))));
        else CHECK_EQ(f16_from_f32(x), h);
        if ((h & 0x7FFF) >= 0x7BFF) continue;
        const float next = f32_from_f16((uint16_t)(h + 1)), middle = x + (next - x) / 2;
        CHECK_EQ(f16_from_f32(middle), h % 2 ? h + 1 : h);
        CHECK_EQ(f16_from_f32(std::nextafter(middle, next)), h + 1);
        CHECK_EQ(f16_from_f32(std::nextafter(middle, x)), h);
    }
    CHECK_EQ(f16_from_f32(65519.99f), 0x7BFF);
    CHECK_EQ(f16_from_f32(65520.0f), 0x7C00);
    CHECK_EQ(f16_from_f32(-1e30f), 0xFC00);
}

TEST(packed_e4m3) {
    CHECK_EQ(f32_from_e4m3(0x00), 0.0f);
    CHECK_EQ(f32_from_e4m3(0x01), 0x1p-9f);
    CHECK_EQ(f32_from_e4m3(0x07), 7 * 0x1p-9f);
    CHECK_EQ(f32_from_e4m3(0x08), 0x1p-6f);
    CHECK_EQ(f32_from_e4m3(0x38), 1.0f);
    CHECK_EQ(f32_from_e4m3(0x7E), 448.0f);
    CHECK_EQ(f32_from_e4m3(0xFE), -448.0f);
    CHECK(std::isnan(f32_from_e4m3(0x7F)) && std::isnan(f32_from_e4m3(0xFF)));
}

TEST(packed_reads_golden) {
    Golden g;
    for (const auto& entry : g.formats.object) {
        const std::string& name = entry.first;
        const QuantFormat f = quantization_format(config_of(entry.second), "config.json");
        const std::vector<size_t> shape = plain_shape(g, name);
        const size_t O = shape[0], I = shape[1];
        const QuantizedLinear q = quantized_find(g.packed, f, name, O, I);
        const std::vector<float> expected = plain_weights(g, name, f);
        std::vector<float> w(O * I), part(3 * I);
        quantized_to_f32(q, 0, O, w.data());
        if (w != expected) fail("%s is not read as it is", name.c_str());
        quantized_to_f32(q, O - 3, 3, part.data());
        CHECK(std::equal(part.begin(), part.end(), expected.end() - (long)part.size()));
        std::vector<uint16_t> rounded(O * I);
        quantized_to_bf16(q, 0, O, rounded.data());
        for (size_t i = 0; i < rounded.size(); i++) CHECK_EQ(rounded[i], bf16_from_f32(expected[i]));
        CHECK_ERROR(quantized_to_f32(q, O - 2, 3, part.data()), "rows");
    }
    CHECK_EQ(quantization_format(config_of(*g.formats.find("int8_a8")), "c").abits, 8);
    CHECK_EQ(quantization_text(quantization_format(config_of(*g.formats.find("int8_a8")), "c")),
             "compressed-tensors 8 bits per row, activations 8 bits");
    CHECK_EQ(quantization_text(quantization_format(config_of(*g.formats.find("gptq3_sym")), "c")), "gptq 3 bits g32");
    CHECK_EQ(quantization_text(quantization_format(config_of(*g.formats.find("fp8")), "c")), "fp8 8 bits 128x128");
}

TEST(packed_writes_golden) {
    Golden g;
    int written = 0;
    for (const auto& entry : g.formats.object) {
        const std::string& name = entry.first;
        const QuantFormat f = quantization_format(config_of(entry.second), "config.json");
        const bool ours = f.kind <= QuantFormat::GPTQ && !(f.kind == QuantFormat::GPTQ && !f.symmetric && f.zeros_less_one);
        if (!ours || name == "gptq4_ragged") continue;
        const PackedLinear p = plain_linear(g, name, f);
        export_require(f, name, p.O, p.I);
        TempFolder tmp;
        CheckpointWriter writer(tmp / "out", export_specs(f, "BF16", name, p.O, p.I));
        export_write(writer, f, "BF16", p);
        writer.finish();
        const Checkpoint ck = checkpoint_open(tmp / "out");
        for (const TensorView& t : ck.tensors) {
            const TensorView* expected = checkpoint_find(g.packed, t.name);
            if (!expected || t.dtype != expected->dtype || t.shape != expected->shape ||
                memcmp(t.data, expected->data, t.n_bytes) != 0)
                fail("%s is not what golden_packed.py makes", t.name.c_str());
        }
        size_t tensors = 0;
        for (const TensorView& t : g.packed.tensors) tensors += t.name.rfind(name + ".", 0) == 0;
        CHECK_EQ(tensors, ck.tensors.size());
        const QuantFormat again = quantization_format(config_of(parse(export_config(f))), "config.json");
        CHECK(again.kind == f.kind && again.bits == f.bits && again.group_size == f.group_size && again.abits == f.abits &&
              again.symmetric == f.symmetric && again.zeros_less_one == f.zeros_less_one && again.act_order == f.act_order);
        written++;
    }
    CHECK_EQ(written, 28);
}

// ---- what is refused ----

static void expect_refused(const std::string& quantization, const char* sentence) {
    CHECK_ERROR(quantization_format(config_of(parse(quantization)), "config.json"), sentence);
}

static std::string replaced(std::string text, const std::string& from, const std::string& to) {
    const size_t at = text.find(from);
    if (at == std::string::npos) fail("the text has no %s", from.c_str());
    return text.replace(at, from.size(), to);
}

TEST(packed_refuses_configs) {
    for (const char* method : {"bitsandbytes", "mxfp4", "hqq", "aqlm", "modelopt", "auto-round"})
        expect_refused(format("{\"quant_method\": \"%s\"}", method), method);
    expect_refused("{\"bits\": 4}", "config.json: quantization_config: \"quant_method\" is missing");
    expect_refused("{\"quant_method\": \"gptq\", \"bits\": 4}", "config.json: quantization_config: \"group_size\" is missing");
    CHECK_ERROR(quantization_format(parse("{\"quantization_config\": 4}"), "config.json"), "should be an object");
    CHECK(quantization_format(parse("{\"quantization_config\": null}"), "c").kind == QuantFormat::NONE);
    CHECK(quantization_format(parse("{}"), "c").kind == QuantFormat::NONE);

    QuantFormat f;
    f.kind = QuantFormat::PACK, f.bits = 4, f.group_size = 128, f.abits = 8;
    const std::string ct = export_config(f);
    CHECK(quantization_format(parse("{\"compression_config\": " + ct + "}"), "c").kind == QuantFormat::PACK);  // the older key
    auto refused = [](const std::string& text, const char* from, const char* to, const char* sentence) {
        expect_refused(replaced(text, from, to), sentence);
    };
    refused(ct, "\"format\": \"pack-quantized\"", "\"format\": \"int-quantized\"", "which of them");
    refused(replaced(ct, "\"pack-quantized\"", "\"nvfp4-pack-quantized\""), "\"pack-quantized\"", "\"nvfp4-pack-quantized\"",
            "nvfp4");
    refused(replaced(ct, "\"pack-quantized\"", "\"float-quantized\""), "\"pack-quantized\"", "\"float-quantized\"",
            "float-quantized");
    refused(replaced(ct, "\"pack-quantized\"", "\"marlin-24\""), "\"pack-quantized\"", "\"marlin-24\"", "marlin-24");
    refused(ct, "\"compressed\"", "\"initialized\"", "quantization_status \"initialized\"");
    for (const std::string& status : {std::string("\"quantization_status\": \"frozen\""), std::string("\"version\": \"0.9\"")}) {  // or none
        const std::string said = replaced(ct, "\"quantization_status\": \"compressed\"", status.c_str());
        CHECK(said != ct && quantization_format(parse("{\"quantization_config\": " + said + "}"), "c").kind == QuantFormat::PACK);
    }
    refused(ct, "\"compressed\"", "\"decompressed\"", "activations' bits beside unpacked weights");
    refused(ct, "\"ignore\"", "\"kv_cache_scheme\": {\"num_bits\": 8}, \"ignore\"", "kv_cache_scheme");
    refused(ct, "\"ignore\"", "\"transform_config\": {\"config_groups\": {}}, \"ignore\"", "transform_config");
    refused(ct, "\"group_0\"", "\"group_1\": {}, \"group_0\"", "2 groups");
    refused(ct, "[\"Linear\"]", "[\"re:.*down_proj\"]", "target");
    refused(ct, "\"ignore\"", "\"sparsity_config\": {\"format\": \"sparse-24-bitmask\"}, \"ignore\"", "sparsity_config");
    // Not sparse; targets that each linear's own tensors repeat.
    f.abits = 16;
    const std::string weights_alone = replaced(export_config(f), "[\"Linear\"]", "[\"re:.*experts.*\"]"),
                      dense = replaced(weights_alone, "\"ignore\"", "\"sparsity_config\": {\"format\": \"dense\"}, \"ignore\"");
    CHECK(quantization_format(config_of(parse(dense)), "c").kind == QuantFormat::PACK);
    refused(ct, "\"num_bits\": 4", "\"num_bits\": 9", "num_bits 9");
    refused(ct, "\"num_bits\": 4", "\"num_bits\": \"4\"", "should be an integer");
    refused(ct, "\"type\": \"int\"", "\"type\": \"float\"", "type \"float\"");
    refused(ct, "\"strategy\": \"group\"", "\"strategy\": \"block\"", "strategy \"block\"");
    refused(ct, "\"strategy\": \"group\"", "\"actorder\": \"group\", \"strategy\": \"group\"", "actorder \"group\"");
    refused(ct, "\"group_size\": 128", "\"group_size\": 0", "group_size");
    refused(ct, "\"group_size\": 128", "\"group_size\": null", "group_size");
    refused(ct, "\"dynamic\": false", "\"dynamic\": true", "dynamic");
    refused(ct, "\"dynamic\": true", "\"dynamic\": false", "not dynamic");
    refused(ct, "\"num_bits\": 8", "\"num_bits\": 4", "input_activations");
    refused(ct, "\"strategy\": \"token\"", "\"strategy\": \"tensor\"", "strategy \"tensor\"");
    refused(ct, "\"symmetric\": true", "\"symmetric\": false", "asymmetric input_activations");
    refused(ct, "\"output_activations\": null", "\"output_activations\": {\"num_bits\": 8}", "output_activations");

    f.kind = QuantFormat::GPTQ, f.abits = 16;
    const std::string gptq = export_config(f);
    refused(gptq, "\"gptq_v2\"", "\"gptq_p\"", "gptq_p");
    refused(gptq, "\"gptq_v2\"", "\"marlin\"", "marlin");
    refused(gptq, "\"bits\"", "\"rotation\": \"hadamard\", \"bits\"", "rotation");
    CHECK(quantization_format(config_of(parse(replaced(gptq, "\"bits\"", "\"rotation\": null, \"bits\""))), "c").kind == QuantFormat::GPTQ);
    // Either key says whether zeros are stored less one; two that differ say nothing.
    const std::string newer = replaced(gptq, "\"checkpoint_format\"", "\"format\"");
    CHECK(!quantization_format(config_of(parse(gptq)), "c").zeros_less_one && !quantization_format(config_of(parse(newer)), "c").zeros_less_one);
    CHECK(quantization_format(config_of(parse(replaced(newer, "gptq_v2", "gptq"))), "c").zeros_less_one);
    CHECK(quantization_format(config_of(parse(replaced(newer, "\"format\": \"gptq_v2\"", "\"x\": 1"))), "c").zeros_less_one);
    CHECK(!quantization_format(config_of(parse(replaced(gptq, "\"bits\"", "\"format\": null, \"bits\""))), "c").zeros_less_one);
    refused(gptq, "\"bits\"", "\"format\": \"gptq\", \"bits\"", "format \"gptq\" beside checkpoint_format \"gptq_v2\"");
    refused(newer, "\"gptq_v2\"", "\"marlin\"", "marlin");
    refused(gptq, "\"bits\": 4", "\"bits\": 5", "bits 5");
    refused(gptq, "\"int32\"", "\"int16\"", "pack_dtype");
    refused(gptq, "\"lm_head\": false", "\"lm_head\": true", "lm_head");
    refused(gptq, "\"lm_head\": false", "\"dynamic\": {\"-:.*gate\": {}, \"+:.*down.*\": {\"bits\": 8}}", "dynamic");
    refused(gptq, "\"lm_head\": false", "\"dynamic\": {\".*down.*\": {\"bits\": 8}}", "dynamic");
    CHECK(quantization_format(config_of(parse(replaced(gptq, "\"lm_head\": false", "\"dynamic\": {\"-:.*gate\": {}}"))), "c").bits == 4);
    refused(gptq, "\"sym\": false", "\"sym\": 0", "true or false");
    refused(gptq, "\"desc_act\"", "\"desc\"", "desc_act");

    const std::string awq =
        "{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 128, \"zero_point\": true, \"version\": \"gemm\"}";
    CHECK(quantization_format(config_of(parse(replaced(awq, "gemm", "GEMM"))), "c").kind == QuantFormat::AWQ);
    CHECK_EQ(quantization_format(config_of(parse(replaced(replaced(awq, "bits", "w_bit"), "group", "q_group"))), "c").group_size,
             128);
    refused(awq, "gemm", "gemv", "gemv");
    // Some name the layout by the newer keys, as GPTQModel, whose other keys mean here what they mean in files of gptq.
    refused(awq, "\"version\": \"gemm\"", "\"format\": \"gemv_fast\"", "awq of format \"gemv_fast\"");
    refused(awq, "\"version\"", "\"checkpoint_format\": \"marlin\", \"version\"", "marlin");
    refused(awq, "\"version\"", "\"backend\": \"llm-awq\", \"version\"", "llm-awq");
    refused(awq, "\"version\"", "\"rotation\": \"hadamard\", \"version\"", "rotation");
    refused(awq, "\"version\"", "\"activation\": {\"bits\": 8}, \"version\"", "activation");
    refused(awq, "\"version\"", "\"dynamic\": {\"+:.*down.*\": {\"bits\": 8}}, \"version\"", "dynamic");
    refused(awq, "\"version\"", "\"pack_dtype\": \"int16\", \"version\"", "pack_dtype");
    CHECK(quantization_format(config_of(parse(replaced(awq, "\"version\"", "\"backend\": \"autoawq\", \"format\": \"gemm\", \"lm_head\": false, \"pack_dtype\": \"int32\", \"version\""))), "c").kind ==
          QuantFormat::AWQ);
    refused(awq, "\"bits\": 4", "\"bits\": 8", "bits 8");
    refused(awq, "\"zero_point\": true", "\"zero_point\": false", "zero_point");

    const std::string fp8 = "{\"quant_method\": \"fp8\", \"activation_scheme\": \"dynamic\", \"weight_block_size\": [128, 128]}";
    refused(fp8, "[128, 128]", "null", "weight_block_size");
    refused(fp8, "[128, 128]", "[128, 64]", "weight_block_size");
    refused(fp8, "[128, 128]", "[128]", "weight_block_size");
    refused(fp8, "dynamic", "static", "static");
}

// Tensors of one linear X, to be changed before they are written and read.
struct Tensors {
    struct Value {
        std::string dtype;
        std::vector<size_t> shape;
        std::string bytes;
    };
    QuantFormat f;
    std::map<std::string, Value> all;
    size_t O, I;

    Tensors(const Golden& g, const std::string& name) {
        f = quantization_format(config_of(*g.formats.find(name)), "config.json");
        const std::vector<size_t> shape = plain_shape(g, name);
        O = shape[0], I = shape[1];
        for (const TensorView& t : g.packed.tensors)
            if (t.name.rfind(name + ".", 0) == 0)
                all["X" + t.name.substr(name.size())] = {t.dtype, t.shape, std::string((const char*)t.data, t.n_bytes)};
    }
    void read() const {
        TempFolder tmp;
        std::vector<TensorSpec> specs;
        for (const auto& t : all) specs.push_back({t.first, t.second.dtype, t.second.shape});
        CheckpointWriter writer(tmp / "out", specs);
        for (const auto& t : all) writer.write(t.first, t.second.bytes.data(), t.second.bytes.size());
        writer.finish();
        const Checkpoint ck = checkpoint_open(tmp / "out");
        std::vector<float> w(O * I);
        quantized_to_f32(quantized_find(ck, f, "X", O, I), 0, O, w.data());
    }
};

static void expect_unreadable(const std::string& name, const std::function<void(Tensors&)>& change, const char* sentence) {
    Golden g;
    Tensors t(g, name);
    t.read();
    change(t);
    CHECK_ERROR(t.read(), sentence);
}

TEST(packed_refuses_tensors) {
    auto drop = [](const char* name) { return [name](Tensors& t) { CHECK_EQ(t.all.erase(name), 1u); }; };
    auto bytes = [](const char* name, size_t at, const std::string& with) {
        return [=](Tensors& t) { t.all.at(name).bytes.replace(at, with.size(), with); };
    };
    auto add = [](const char* name, const char* dtype, std::vector<size_t> shape) {
        return [=](Tensors& t) {
            size_t n = 0;
            CHECK(tensor_bytes(dtype, shape, &n));
            t.all[name] = {dtype, shape, std::string(n, '\0')};
        };
    };
    const std::string nan("\xC0\x7F", 2), f16_inf("\x00\x7C", 2), int_4("\x04\x00\x00\x00", 4), int_minus("\xFF\xFF\xFF\xFF", 4);

    for (const char* name : {"X.weight_packed", "X.weight_scale", "X.weight_shape", "X.weight_zero_point"})
        expect_unreadable("pack4", drop(name), "is missing");
    for (const char* name : {"X.qweight", "X.qzeros", "X.scales", "X.g_idx"})
        expect_unreadable("gptq4_act_order", drop(name), "is missing");
    for (const char* name : {"X.qweight", "X.qzeros", "X.scales"}) expect_unreadable("awq", drop(name), "is missing");
    for (const char* name : {"X.weight", "X.weight_scale", "X.weight_zero_point"})
        expect_unreadable("int4", drop(name), "is missing");
    for (const char* name : {"X.weight", "X.weight_scale_inv"}) expect_unreadable("fp8", drop(name), "is missing");

    expect_unreadable("pack3_sym", add("X.weight_packed", "I32", {11, 7}), "should have shape [11, 8]");
    expect_unreadable(
        "pack3",
        [](Tensors& t) {
            t.O = 1, t.I = 320;
            t.all["X.weight_packed"] = {"I32", {1, 32}, std::string(128, '\0')};
        },
        "before version 0.17");
    expect_unreadable("pack4", add("X.weight_packed", "I64", {37, 6}), "should be I32");
    expect_unreadable("pack4", add("X.weight_scale", "I32", {37, 3}), "should be BF16, F16 or F32");
    expect_unreadable("pack4", add("X.weight_scale", "BF16", {37, 1}), "should have shape [37, 3]");
    expect_unreadable("pack4", add("X.weight_shape", "I64", {2}), "should say [37, 48], found [0, 0]");
    expect_unreadable("pack4", bytes("X.weight_scale", 10, nan), "holds NaN or Inf");
    expect_unreadable("pack4", add("X.weight_g_idx", "I32", {48}), "weight_g_idx");
    expect_unreadable("pack4", add("X.qweight", "I32", {6, 37}), "does not belong");
    expect_unreadable("pack4", add("X.weight", "BF16", {37, 48}), "does not belong to a linear that is not quantized");
    expect_unreadable("pack4_sym", add("X.weight_zero_point", "I32", {2, 1}), "linear that is symmetric");
    expect_unreadable("int4", bytes("X.weight", 5, "\x08"), "holds the value 8, outside of the 4 bits");
    expect_unreadable("int4", bytes("X.weight", 5, "\xF7"), "holds the value -9");
    expect_unreadable("int4", add("X.weight", "U8", {9, 48}), "should be I8");

    expect_unreadable("gptq4_act_order", bytes("X.g_idx", 8, int_4), "column 2 is in group 4, but there are 3");
    expect_unreadable("gptq4_act_order", bytes("X.g_idx", 8, int_minus), "group -1");
    expect_unreadable("gptq4_act_order", add("X.g_idx", "I64", {96}), "should be I32");
    expect_unreadable("gptq4_act_order", add("X.g_idx", "I32", {96}), "more than 32 columns are in group 0");  // all zero
    expect_unreadable("gptq4_act_order", bytes("X.scales", 0, f16_inf), "holds NaN or Inf");
    expect_unreadable(
        "gptq4_act_order", [](Tensors& t) { t.f.act_order = false; }, "without desc_act");
    expect_unreadable("gptq4_sym", bytes("X.qzeros", 0, std::string("\x78", 1)), "row 0 has the zero point 9");
    expect_unreadable("gptq4_asym_v1", bytes("X.qzeros", 0, std::string("\x2F", 1)), "row 0 has the zero point 0, stored as 0 - 1");
    expect_unreadable(
        "gptq4_sym", [](Tensors& t) { t.f.bits = 8; }, "should have shape");
    expect_unreadable(
        "gptq4_sym", [](Tensors& t) { t.I = 60; }, "multiples of 32");
    expect_unreadable(
        "awq", [](Tensors& t) { t.O = 70; }, "multiple of 8");
    expect_unreadable(
        "awq", [](Tensors& t) { t.f.group_size = 64; }, "should have shape");
    expect_unreadable("fp8", add("X.weight", "F8_E5M2", {130, 200}), "should be F8_E4M3");
    expect_unreadable("fp8", bytes("X.weight_scale_inv", 0, nan), "holds NaN or Inf");
    expect_unreadable(
        "fp8", [](Tensors& t) { t.f = QuantFormat(); }, "weight_scale_inv\" is there, which does not belong");
}

TEST(packed_takes_linears_as_they_are) {  // what a config ignores is stored as in any checkpoint
    Golden g;
    Tensors t(g, "gptq4_sym");
    t.all = {{"X.weight", {"F16", {32, 64}, std::string(2 * 32 * 64, '\0')}}};
    t.read();
}

TEST(packed_export_refuses) {
    QuantFormat f;
    f.kind = QuantFormat::GPTQ, f.bits = 5, f.group_size = 128, f.symmetric = f.zeros_less_one = true;
    CHECK_ERROR(export_require(f, "X", 128, 128), "2, 3, 4 or 8 bits, found 5");
    f.bits = 4;
    export_require(f, "X", 32, 128);
    CHECK_ERROR(export_require(f, "X", 40, 128), "multiples of 32");
    CHECK_ERROR(export_require(f, "X", 32, 192), "groups of 128 do not divide");
    f.abits = 8;
    CHECK_ERROR(export_require(f, "X", 32, 128), "no activation bits");
    f.abits = 4;
    CHECK_ERROR(export_require(f, "X", 32, 128), "no activation bits");
    f.kind = QuantFormat::PACK, f.abits = 8;
    export_require(f, "X", 33, 128);
    f.abits = 4;
    CHECK_ERROR(export_require(f, "X", 33, 128), "activations of 4 bits");
    f.abits = 16, f.act_order = true;
    CHECK_ERROR(export_require(f, "X", 33, 128), "--static-groups");

    Golden g;
    auto unwritable = [&](const std::string& name, const std::function<void(PackedLinear&)>& change, const char* sentence) {
        const QuantFormat format = quantization_format(config_of(*g.formats.find(name)), "config.json");
        PackedLinear p = plain_linear(g, name, format);
        change(p);
        TempFolder tmp;
        CheckpointWriter writer(tmp / "out", export_specs(format, "BF16", name, p.O, p.I));
        CHECK_ERROR(export_write(writer, format, "BF16", p), sentence);
    };
    unwritable(
        "pack4", [](PackedLinear& p) { p.codes[7] = 16; }, "not what");
    unwritable(
        "pack4", [](PackedLinear& p) { p.zeros[7] = 16; }, "not what");
    unwritable(
        "pack4", [](PackedLinear& p) { p.group[7] = 1; }, "not what");
    unwritable(
        "pack4", [](PackedLinear& p) { p.codes.pop_back(); }, "not what");
    unwritable(
        "pack4_sym", [](PackedLinear& p) { p.zeros[7] = 7; }, "not what");
    unwritable(
        "gptq4_act_order", [](PackedLinear& p) { p.group[7] = 3; }, "not what");
    unwritable(
        "pack4", [](PackedLinear& p) { p.scales[7] = 1.001f; }, "can't be stored in BF16");
    unwritable(
        "pack4", [](PackedLinear& p) { p.scales[7] = INFINITY; }, "can't be stored in BF16");
    unwritable(
        "gptq4_act_order", [](PackedLinear& p) { p.scales[7] = 1e-8f; }, "can't be stored in F16");
    unwritable(
        "gptq4_act_order", [](PackedLinear& p) { p.scales[7] = 70000; }, "can't be stored in F16");
}

// Whatever the bytes are: read, or refused with a sentence.
TEST(packed_fuzz) {
    Golden g;
    std::mt19937 random(3);
    const std::string text = read_bytes(FOLDER + "formats.json"), file = read_bytes(FOLDER + "packed.safetensors");
    uint64_t n_header;
    memcpy(&n_header, file.data(), 8);
    int read = 0, refused = 0;
    for (int round = 0; round < 300; round++) {
        std::string config = text, bytes = file;
        std::string& changed = round % 2 ? bytes : config;
        const size_t end = round % 2 && round % 4 == 1 ? 8 + n_header : changed.size();
        for (int k = 0; k < 3; k++) {
            const size_t at = random() % end;
            changed[at] = isdigit((unsigned char)changed[at]) ? (char)('0' + random() % 10) : (char)(random() % 256);
        }
        Checkpoint ck;
        Json formats;
        try {
            for (TensorView& t : safetensors_parse((const unsigned char*)bytes.data(), bytes.size(), "f"))
                checkpoint_add(ck, std::move(t));
            formats = json_parse(config.data(), config.size(), "formats");
        } catch (const std::runtime_error&) {
            refused++;
            continue;
        }
        for (const auto& entry : formats.object) {
            if (!g.formats.find(entry.first)) continue;  // the name itself was changed
            const std::vector<size_t> shape = plain_shape(g, entry.first);
            std::vector<float> w(shape[0] * shape[1]);
            try {
                const QuantFormat f = quantization_format(config_of(entry.second), "config.json");
                quantized_to_f32(quantized_find(ck, f, entry.first, shape[0], shape[1]), 0, shape[0], w.data());
                read++;
            } catch (const std::runtime_error& e) {
                CHECK(strlen(e.what()) > 20);
                refused++;
            }
        }
    }
    CHECK(read > 1000 && refused > 20);
}
