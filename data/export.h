// export.h: linears written as packed checkpoints hold them: the reverse of data/quantized.h, where the tensors are listed. gptq's
// files get "gptq" (zeros less one) where the grid is symmetric and "gptq_v2" where it isn't: a zero point of 0, less one, runs into
// its neighbours in most readers.
//
// defines: f16_from_f32, export_require, export_specs, export_write, export_config, config_with_quantization
#pragma once
#include "packed.h"
#include "quantized.h"
#include "safetensors.h"

// Nearest, ties to even; infinite from 65520 on.
inline uint16_t f16_from_f32(float x) {
    const uint32_t bits = float_to_bits(x), magnitude = bits & 0x7FFFFFFF, sign = bits >> 16 & 0x8000;
    if (magnitude > 0x7F800000) return (uint16_t)(sign | 0x7E00);
    if (magnitude >= 0x477FF000) return (uint16_t)(sign | 0x7C00);
    if (magnitude < 0x38800000)
        return (uint16_t)(sign | (uint32_t)std::nearbyint(bits_to_float(magnitude) * 0x1p24f));  // subnormal
    return (uint16_t)(sign | (magnitude - 0x38000000 + 0xFFF + (magnitude >> 13 & 1)) >> 13);
}

// Refuses what the format can't hold; O x I is the shape of linear `name`.
inline void export_require(const QuantFormat& f, const std::string& name, size_t O, size_t I) {
    const bool gptq = f.kind == QuantFormat::GPTQ;
    if (gptq && f.bits != 2 && f.bits != 3 && f.bits != 4 && f.bits != 8)
        usage_fail("format gptq holds 2, 3, 4 or 8 bits, found %d. HINT: --format compressed-tensors holds 1 to 8", f.bits);
    if (gptq && (O % 32 != 0 || I % 32 != 0))
        usage_fail("%s has shape %s, but format gptq holds multiples of 32. HINT: --format compressed-tensors", name.c_str(),
             shape_text({O, I}).c_str());
    if (!gptq && f.act_order)
        usage_fail("format compressed-tensors holds no order of columns, but with --act-order each group's columns lie anywhere. HINT: "
             "add --static-groups (or --no-act-order), or -g -1; --format gptq, which vLLM won't read, holds it, but of no mixture");
    if (f.group_size != -1 && I % (size_t)f.group_size != 0)
        usage_fail("%s has %zu columns, which groups of %d do not divide: no reader takes a narrower last group. HINT: another -g",
             name.c_str(), I, f.group_size);
    if (gptq && f.abits != 16)
        usage_fail("format gptq holds no activation bits, found -a %d. HINT: --format compressed-tensors", f.abits);
    if (f.abits != 16 && f.abits != 8)
        usage_fail("format compressed-tensors with activations of %d bits: readers round them to other grids than this program. HINT: -a "
             "8, or "
             "-a 16",
             f.abits);
}

// The tensors of linear `name`, in the order that export_write writes them. Scales are stored in `dtype` (gptq: always F16, which readers cast to the model's).
inline std::vector<TensorSpec> export_specs(const QuantFormat& f, const std::string& dtype, const std::string& name, size_t O,
                                            size_t I) {
    const int b = f.bits;
    const size_t n = f.group_size == -1 ? 1 : I / (size_t)f.group_size;
    std::vector<TensorSpec> specs;
    if (f.kind == QuantFormat::GPTQ)
        return {{name + ".qweight", "I32", {packed_words(I, b), O}},
                {name + ".qzeros", "I32", {n, packed_words(O, b)}},
                {name + ".scales", "F16", {n, O}},
                {name + ".g_idx", "I32", {I}}};
    if (f.kind == QuantFormat::INT) {
        specs = {{name + ".weight", "I8", {O, I}}, {name + ".weight_scale", dtype, {O, n}}};
        if (!f.symmetric) specs.push_back({name + ".weight_zero_point", "I8", {O, n}});
        return specs;
    }
    specs = {{name + ".weight_packed", "I32", {O, packed_words(I, b)}},
             {name + ".weight_scale", dtype, {O, n}},
             {name + ".weight_shape", "I64", {2}}};
    if (!f.symmetric) specs.push_back({name + ".weight_zero_point", "I32", {packed_words(O, b), n}});
    return specs;
}

// The linear must be what the format says: a file that says something else would be read as other weights.
inline void export_check(const QuantFormat& f, const PackedLinear& p) {
    const int maxq = (1 << f.bits) - 1, middle = (maxq + 1) / 2;
    bool good = p.bits == f.bits && p.codes.size() == p.O * p.I && p.scales.size() == p.O * p.n && p.zeros.size() == p.O * p.n &&
                p.group.size() == p.I;
    uint8_t most = 0;
    for (uint8_t code : p.codes) most = std::max(most, code);
    for (uint8_t zero : p.zeros) good = good && (f.symmetric ? zero == middle : zero <= maxq);
    for (size_t i = 0; i < p.group.size(); i++)
        good = good && (f.act_order ? p.group[i] >= 0 && (size_t)p.group[i] < p.n
                                    : (size_t)p.group[i] == (f.group_size == -1 ? 0 : i / (size_t)f.group_size));
    if (!good || most > maxq)
        fail("%s: its codes and grids are not what %s of %d bits holds", p.name.c_str(), quantization_name(f), f.bits);
}

// The scales as bytes of `dtype`; [O, n], or [n, O] if transposed. Each must be a number of that dtype already.
inline std::string export_scales(const PackedLinear& p, const std::string& dtype, bool transposed) {
    const size_t bytes = dtype_size(dtype);
    std::string out(p.O * p.n * bytes, '\0');
    for (size_t o = 0; o < p.O; o++)
        for (size_t g = 0; g < p.n; g++) {
            const float x = p.scales[o * p.n + g];
            const uint16_t half = dtype == "F16" ? f16_from_f32(x) : bf16_from_f32(x);
            const float stored = dtype == "F16" ? f32_from_f16(half) : dtype == "BF16" ? f32_from_bf16(half) : x;
            if (!(stored == x) || !std::isfinite(x))
                fail("%s: the scale %g of row %zu can't be stored in %s. HINT: check the checkpoint", p.name.c_str(), x, o,
                     dtype.c_str());
            memcpy(&out[(transposed ? g * p.O + o : o * p.n + g) * bytes], bytes == 2 ? (const void*)&half : &x, bytes);
        }
    return out;
}

// codes [count], less 2^(b-1), as signed bytes.
inline std::string export_signed(const std::vector<uint8_t>& codes, int bits) {
    std::string out(codes.size(), '\0');
    for (size_t i = 0; i < codes.size(); i++) out[i] = (char)(codes[i] - (1 << (bits - 1)));
    return out;
}

inline void export_gptq(CheckpointWriter& writer, const QuantFormat& f, const PackedLinear& p) {
    const int b = f.bits;
    const size_t zero_words = packed_words(p.O, b);
    std::vector<uint32_t> words(packed_words(p.I, b) * p.O), zeros(p.n * zero_words);
    pack_columns(p.codes.data(), p.O, p.I, b, words.data());
    std::vector<uint8_t> row(p.O);
    for (size_t g = 0; g < p.n; g++) {
        for (size_t o = 0; o < p.O; o++) row[o] = (uint8_t)(p.zeros[o * p.n + g] - f.zeros_less_one);
        pack_row(row.data(), p.O, b, &zeros[g * zero_words]);
    }
    const std::string scales = export_scales(p, "F16", true);
    writer.write(p.name + ".qweight", words.data(), 4 * words.size());
    writer.write(p.name + ".qzeros", zeros.data(), 4 * zeros.size());
    writer.write(p.name + ".scales", scales.data(), scales.size());
    writer.write(p.name + ".g_idx", p.group.data(), 4 * p.group.size());
}

inline void export_write(CheckpointWriter& writer, const QuantFormat& f, const std::string& dtype, const PackedLinear& p) {
    export_check(f, p);
    if (f.kind == QuantFormat::GPTQ) return export_gptq(writer, f, p);
    const int b = f.bits;
    const std::string scales = export_scales(p, dtype, false);
    if (f.kind == QuantFormat::INT) {
        const std::string codes = export_signed(p.codes, b), zeros = export_signed(p.zeros, b);
        writer.write(p.name + ".weight", codes.data(), codes.size());
        writer.write(p.name + ".weight_scale", scales.data(), scales.size());
        if (!f.symmetric) writer.write(p.name + ".weight_zero_point", zeros.data(), zeros.size());
        return;
    }
    const size_t row_words = packed_words(p.I, b);
    std::vector<uint32_t> words(p.O * row_words), zeros(packed_words(p.O, b) * p.n);
    for (size_t o = 0; o < p.O; o++) pack_row(&p.codes[o * p.I], p.I, b, &words[o * row_words]);
    writer.write(p.name + ".weight_packed", words.data(), 4 * words.size());
    writer.write(p.name + ".weight_scale", scales.data(), scales.size());
    const int64_t shape[2] = {(int64_t)p.O, (int64_t)p.I};
    writer.write(p.name + ".weight_shape", shape, sizeof shape);
    if (f.symmetric) return;
    std::vector<uint8_t> transposed(p.n * p.O);
    for (size_t o = 0; o < p.O; o++)
        for (size_t g = 0; g < p.n; g++) transposed[g * p.O + o] = p.zeros[o * p.n + g];
    pack_columns(transposed.data(), p.n, p.O, b, zeros.data());
    writer.write(p.name + ".weight_zero_point", zeros.data(), 4 * zeros.size());
}

// The value of config.json's quantization_config. A mixture's routers are not packed.
inline std::string export_config(const QuantFormat& f, bool mixture = false) {
    const char *symmetric = f.symmetric ? "true" : "false",
               *layout = f.kind == QuantFormat::INT ? "int-quantized" : "pack-quantized";
    if (f.kind == QuantFormat::GPTQ)
        return format(
            "{\"quant_method\": \"gptq\", \"bits\": %d, \"group_size\": %d, \"desc_act\": %s, \"sym\": %s, \"lm_head\": false, "
            "\"checkpoint_format\": \"%s\", \"pack_dtype\": \"int32\"}",
            f.bits, f.group_size, f.act_order ? "true" : "false", symmetric, f.zeros_less_one ? "gptq" : "gptq_v2");
    const std::string group = f.group_size == -1 ? "\"strategy\": \"channel\", \"group_size\": null"
                                                 : format("\"strategy\": \"group\", \"group_size\": %d", f.group_size);
    const std::string inputs =
        f.abits == 16
            ? "null"
            : format("{\"num_bits\": %d, \"type\": \"int\", \"symmetric\": true, \"dynamic\": true, \"strategy\": \"token\"}",
                     f.abits);
    return format("{\"quant_method\": \"compressed-tensors\", \"format\": \"%s\", \"quantization_status\": \"compressed\", "
                  "\"ignore\": [\"lm_head\"%s], \"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], \"format\": \"%s\", "
                  "\"weights\": "
                  "{\"num_bits\": %d, \"type\": \"int\", \"symmetric\": %s, ",
                  layout, mixture ? ", \"re:.*mlp.gate$\"" : "", layout, f.bits, symmetric) +
           group + ", \"dynamic\": false}, \"input_activations\": " + inputs + ", \"output_activations\": null}}}";
}

// A saved_config, an object with keys, with that value.
inline std::string config_with_quantization(const std::string& config, const std::string& value) {
    const size_t open = config.find('{');
    return config.substr(0, open + 1) + "\n  \"quantization_config\": " + value + "," + config.substr(open + 1);
}
