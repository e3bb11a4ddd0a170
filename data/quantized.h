// quantized.h: linears of quantized checkpoints, read as what they stand for:
//     w[o, i] = scale[o, g] (q[o, i] - zero[o, g]),   g = group[i]
// as a float32 product, rounded once. What the files hold is said by config.json's quantization_config:
//
//     compressed-tensors   X.weight_packed I32 [O, words(I)]: rows of q
//     pack-quantized       X.weight_scale [O, n], X.weight_shape I64 [2]
//                          X.weight_zero_point I32 [words(O), n]: columns of zeros
//     compressed-tensors   X.weight I8 [O, I] = q - 2^(b-1)
//     int-quantized        X.weight_scale [O, n], X.weight_zero_point I8 [O, n] = zero - 2^(b-1)
//     gptq                 X.qweight I32 [words(I), O]: columns of q
//                          X.scales [n, O], X.g_idx I32 [I] = group
//                          X.qzeros I32 [n, words(O)]: rows of zeros ("gptq_v2") or of zeros - 1 ("gptq")
//     awq, version gemm    X.qweight I32 [I, O/8]: nibble k of word j is the q of output 8 j + AWQ_ORDER[k]
//                          X.scales [n, O], X.qzeros I32 [n, O/8] in the same order
//     fp8, blocks of 128   X.weight F8_E4M3 [O, I] = q
//                          X.weight_scale_inv [ceil(O/128), ceil(I/128)]
//
// (rows and columns: data/packed.h; a symmetric grid has zero 2^(b-1), and compressed-tensors then stores none.) A linear whose
// X.weight is BF16, F16 or F32 is as it is, in every format. What is not understood is refused by name: nothing is guessed.
//
// symbols: X a linear's name, [O, I] its shape, b bits, n groups of G columns, q a code 0 .. 2^b - 1
// defines: QuantFormat, quantization_format, quantization_name, quantization_method, quantization_text, unquantized_name,
//          QuantizedLinear, quantized_find, quantized_to_f32, quantized_to_bf16
#pragma once
#include "json.h"
#include "packed.h"
#include "safetensors.h"
#include <cctype>
#include <cmath>
#include <initializer_list>

struct QuantFormat {
    enum Kind { NONE, PACK, INT, GPTQ, AWQ, FP8 } kind = NONE;  // NONE: the checkpoint isn't quantized
    std::string where;                                          // the file and key that say so, for errors
    int bits = 16, group_size = -1;                             // -1: a grid a row
    int abits = 16;                                             // of the linears' inputs, dynamic and per token
    bool symmetric = false;
    bool zeros_less_one = false;  // gptq: the files hold zero - 1
    bool act_order = false;       // gptq: g_idx may be any map; else it is i / G
    bool unpacked = false;        // NONE, once compressed-tensors of those bits: its scales still lie beside the plain weights
};

static constexpr int AWQ_ORDER[8] = {0, 2, 4, 6, 1, 3, 5, 7};
static constexpr size_t FP8_BLOCK = 128;

inline const char* quantization_name(const QuantFormat& f) {
    static const char* names[] = {"none", "compressed-tensors, pack-quantized", "compressed-tensors, int-quantized", "gptq", "awq",
                                  "fp8"};
    return names[f.kind];
}

// "compressed-tensors", "gptq", ...
inline std::string quantization_method(const QuantFormat& f) {
    const std::string name = quantization_name(f);
    return name.substr(0, name.find(','));
}

// "gptq 4 bits g128", for the log.
inline std::string quantization_text(const QuantFormat& f) {
    std::string text = quantization_method(f) + format(" %d bits", f.bits);
    if (f.kind == QuantFormat::FP8) text += format(" %zux%zu", FP8_BLOCK, FP8_BLOCK);
    else text += f.group_size == -1 ? " per row" : format(" g%d", f.group_size);
    return f.abits < 16 ? text + format(", activations %d bits", f.abits) : text;
}

// "Qwen3-8B-AWQ" and the like: the model that was quantized.
inline std::string unquantized_name(const std::string& name) {
    for (const char* suffix : {"-AWQ", "-GPTQ-Int4", "-GPTQ-Int8", "-FP8"})
        if (name.size() > strlen(suffix) && ends_with(name, suffix))
            return name.substr(0, name.size() - strlen(suffix));
    return name;
}

// ---------------------------------------------------------------------------------------------------------------------
// config.json's quantization_config

[[noreturn]] inline void quantization_refuse(const std::string& where, const std::string& found) {
    fail("%s: %s is not supported. HINT: compressed-tensors (pack-quantized or int-quantized), gptq, awq (gemm) and fp8 (blocks of "
         "128 x 128) are",
         where.c_str(), found.c_str());
}

// A key that must be absent, null, false or empty: what else it may say is not computed here.
inline void quantization_refuse_key(const Json& j, const char* key, const std::string& where) {
    const Json* found = j.find(key);
    if (!found || found->type == Json::NUL || (found->type == Json::BOOL && !found->boolean)) return;
    if ((found->type == Json::OBJECT && found->object.empty()) || (found->type == Json::ARRAY && found->array.empty())) return;
    quantization_refuse(where, key);
}

// A text that must be `expected`, or be absent.
inline void quantization_require(const Json& j, const char* key, const char* expected, const std::string& where) {
    const std::string found = json_string(j, key, where, expected);
    if (found != expected) quantization_refuse(where, format("%s %s", key, json_quote(found).c_str()));
}

inline int quantization_bits(const Json& j, const char* key, std::initializer_list<int> known, const std::string& where) {
    const long long bits = json_int(j, key, where);
    if (std::find(known.begin(), known.end(), bits) == known.end()) quantization_refuse(where, format("%s %lld", key, bits));
    return (int)bits;
}

inline int quantization_group_size(const Json& j, const char* key, const std::string& where) {
    const long long size = json_int(j, key, where);
    if (size != -1 && (size < 1 || size > 1 << 24))
        fail("%s: expected %s -1, or 1 to 2^24, found %lld", where.c_str(), key, size);
    return (int)size;
}

// The inputs' bits in a group of compressed-tensors. Of the readers' grids only that of 8 bits is the one that is computed here.
inline int quantization_abits(const Json& group, const std::string& where) {
    if (json_absent(group, "input_activations")) return 16;
    const Json& inputs = json_object(group, "input_activations", where);
    const std::string strategy = json_string(inputs, "strategy", where, "tensor");
    const Json* dynamic = inputs.find("dynamic");
    if (!dynamic || dynamic->type != Json::BOOL || !dynamic->boolean)
        quantization_refuse(where, "input_activations that are not dynamic");
    if (strategy != "token") quantization_refuse(where, "input_activations of strategy " + json_quote(strategy));
    if (json_string(inputs, "type", where, "int") != "int")
        quantization_refuse(where, "input_activations of a type other than int");
    if (!json_bool(inputs, "symmetric", where, true)) quantization_refuse(where, "asymmetric input_activations");
    return quantization_bits(inputs, "num_bits", {8}, where + ": input_activations");
}

inline void quantization_compressed_tensors(const Json& j, QuantFormat& f) {
    const std::string& where = f.where;
    // "frozen" says that the grids are final, and files of some writers say nothing: the layout tells that the weights are codes, as for
    // transformers, and each linear's dtype must agree.
    const std::string status = json_string(j, "quantization_status", where, "compressed");
    if (!is_word_of(status, "compressed frozen decompressed")) quantization_refuse(where, "quantization_status " + json_quote(status));
    for (const char* key : {"kv_cache_scheme", "transform_config", "moe_sparsity_config"}) quantization_refuse_key(j, key, where);
    if (const Json* sparsity = j.find("sparsity_config"); !sparsity || sparsity->type != Json::OBJECT ||
                                                          json_string(*sparsity, "format", where, "") != "dense")  // dense: not sparse
        quantization_refuse_key(j, "sparsity_config", where);
    const Json& groups = json_object(j, "config_groups", where);
    if (groups.object.size() != 1) quantization_refuse(where, format("config_groups with %zu groups", groups.object.size()));
    const Json& group = groups.object[0].second;
    const std::string layout = json_string(j, "format", where), of_group = json_string(group, "format", where, layout);
    if (of_group != layout)
        fail("%s: the format is %s, but %s in config_groups. HINT: which of them is meant can't be told",
             where.c_str(), json_quote(layout).c_str(), json_quote(of_group).c_str());
    if (layout == "pack-quantized") f.kind = QuantFormat::PACK;
    else if (layout == "int-quantized") f.kind = QuantFormat::INT;
    else quantization_refuse(where, "format " + json_quote(layout));
    quantization_refuse_key(group, "output_activations", where);

    const Json& weights = json_object(group, "weights", where);
    const std::string type = json_string(weights, "type", where, "int"), strategy = json_string(weights, "strategy", where);
    const std::string order = json_string(weights, "actorder", where, "static");
    if (type != "int") quantization_refuse(where, "weights of type " + json_quote(type));
    quantization_refuse_key(weights, "dynamic", where);
    if (order != "static" && order != "weight") quantization_refuse(where, "actorder " + json_quote(order));
    f.bits = quantization_bits(weights, "num_bits", {1, 2, 3, 4, 5, 6, 7, 8}, where);
    f.symmetric = json_bool(weights, "symmetric", where, true);
    if (strategy == "group") f.group_size = quantization_group_size(weights, "group_size", where);
    else if (strategy != "channel") quantization_refuse(where, "strategy " + json_quote(strategy));
    f.abits = quantization_abits(group, where);
    // Which linears are quantized each one's tensors tell, but not whose inputs.
    const std::vector<Json>& targets = json_array(group, "targets", where);
    if (f.abits < 16 && (targets.size() != 1 || targets[0].string != "Linear"))
        quantization_refuse(where, "a target other than [\"Linear\"] with input_activations");
    if (status != "decompressed") return;
    // What transformers saves of a model that it has unpacked: plain weights, and scales beside them that nothing asks for.
    if (f.abits < 16) quantization_refuse(where, "activations' bits beside unpacked weights (quantization_status \"decompressed\")");
    f.kind = QuantFormat::NONE, f.unpacked = true;
}

// What GPTQModel's files of either layout may say.
inline void quantization_of_gptqmodel(const Json& j, const std::string& where) {
    quantization_require(j, "pack_dtype", "int32", where);
    // rotation, activation: of newer files, whose readers then rotate the inputs of down_proj, or round inputs, while they compute.
    for (const char* key : {"lm_head", "rotation", "activation"}) quantization_refuse_key(j, key, where);
    // Rules for modules of certain names. Those that begin with "-:" leave a module as it is, as each one's tensors tell, too.
    const Json* rules = j.find("dynamic");
    const bool leaves = rules && rules->type == Json::OBJECT && std::all_of(rules->object.begin(), rules->object.end(), [](const auto& rule) {
        return rule.first.compare(0, 2, "-:") == 0;
    });
    if (!leaves) quantization_refuse_key(j, "dynamic", where);
}

inline void quantization_gptq(const Json& j, QuantFormat& f) {
    const std::string& where = f.where;
    f.kind = QuantFormat::GPTQ;
    // Newer files say "format", older ones "checkpoint_format", most both.
    const std::string newer = json_string(j, "format", where, "gptq"), layout = json_string(j, "checkpoint_format", where, newer);
    if (layout != "gptq" && layout != "gptq_v2") quantization_refuse(where, "checkpoint_format " + json_quote(layout));
    if (!json_absent(j, "format") && newer != layout) quantization_refuse(where, "format " + json_quote(newer) + " beside checkpoint_format " + json_quote(layout));
    quantization_refuse_key(j, "is_marlin_format", where);
    quantization_of_gptqmodel(j, where);
    f.bits = quantization_bits(j, "bits", {2, 3, 4, 8}, where);
    f.group_size = quantization_group_size(j, "group_size", where);
    f.symmetric = json_bool(j, "sym", where);
    f.act_order = json_bool(j, "desc_act", where);
    f.zeros_less_one = layout == "gptq";
}

inline void quantization_awq(const Json& j, QuantFormat& f) {
    const std::string& where = f.where;
    f.kind = QuantFormat::AWQ;
    for (const char* key : {"version", "format", "checkpoint_format"}) {
        std::string layout = json_string(j, key, where, "gemm");  // "GEMM" in older files
        std::transform(layout.begin(), layout.end(), layout.begin(), [](unsigned char c) { return (char)std::tolower(c); });
        if (layout != "gemm") quantization_refuse(where, format("awq of %s ", key) + json_quote(layout));
    }
    if (json_string(j, "backend", where, "autoawq") == "llm-awq") quantization_refuse(where, "awq of backend \"llm-awq\"");
    quantization_of_gptqmodel(j, where);
    f.bits = quantization_bits(j, j.find("bits") ? "bits" : "w_bit", {4}, where);
    f.group_size = quantization_group_size(j, j.find("group_size") ? "group_size" : "q_group_size", where);
    if (!json_bool(j, "zero_point", where)) quantization_refuse(where, "awq without zero points (zero_point false)");
}

inline void quantization_fp8(const Json& j, QuantFormat& f) {
    const std::string& where = f.where;
    f.kind = QuantFormat::FP8;
    f.bits = 8, f.group_size = (int)FP8_BLOCK, f.symmetric = true;
    quantization_require(j, "fmt", "e4m3", where);
    quantization_require(j, "activation_scheme", "dynamic", where);
    if (json_absent(j, "weight_block_size")) quantization_refuse(where, "fp8 without weight_block_size");
    for (const Json& extent : json_array(j, "weight_block_size", where))
        if (extent.integer != (long long)FP8_BLOCK) quantization_refuse(where, "a weight_block_size other than [128, 128]");
    if (json_array(j, "weight_block_size", where).size() != 2)
        quantization_refuse(where, "a weight_block_size other than [128, 128]");
}

// How a checkpoint is quantized. `config` is its config.json, `path` that file's name.
inline QuantFormat quantization_format(const Json& config, const std::string& path) {
    QuantFormat f;
    const char* key = json_absent(config, "quantization_config") ? "compression_config" : "quantization_config";  // the older name
    if (json_absent(config, key)) return f;
    const Json& j = json_object(config, key, path);
    f.where = path + ": " + key;
    const std::string method = json_string(j, "quant_method", f.where);
    if (method == "compressed-tensors") quantization_compressed_tensors(j, f);
    else if (method == "gptq") quantization_gptq(j, f);
    else if (method == "awq") quantization_awq(j, f);
    else if (method == "fp8") quantization_fp8(j, f);
    else quantization_refuse(f.where, "quant_method " + json_quote(method));
    return f;
}

// ---------------------------------------------------------------------------------------------------------------------
// One linear's tensors

struct QuantizedLinear {
    const QuantFormat* format;
    std::string name;  // "model.layers.0.self_attn.q_proj"
    size_t O, I;
    size_t G, n;                                                                     // columns a group, groups
    bool quantized;                                                                  // false: `codes` are the weights
    const TensorView *codes, *scales = nullptr, *zeros = nullptr, *group = nullptr;  // null: the format has none
};

inline bool is_float_dtype(const std::string& dtype) { return dtype == "BF16" || dtype == "F16" || dtype == "F32"; }

// The tensor of linear X that ends in `suffix`, of that shape and dtype; "float" is any of BF16, F16 and F32.
inline const TensorView* quantized_tensor(const Checkpoint& ck, const QuantizedLinear& q, const char* suffix,
                                          const std::string& dtype, const std::vector<size_t>& shape) {
    const TensorView& t = checkpoint_get(ck, q.name + suffix, shape);
    if (dtype == "float" ? !is_float_dtype(t.dtype) : t.dtype != dtype)
        fail("%s: tensor \"%s\" should be %s in %s, found %s. HINT: does config.json belong to these files?", t.file.c_str(),
             t.name.c_str(), dtype == "float" ? "BF16, F16 or F32" : dtype.c_str(), quantization_name(*q.format), t.dtype.c_str());
    return &t;
}

inline void quantized_find_pack(const Checkpoint& ck, QuantizedLinear& q) {
    const int b = q.format->bits;
    const size_t words = packed_words(q.I, b);
    const TensorView* found = checkpoint_find(ck, q.name + ".weight_packed");
    if (found && b == 3 && (q.I + 9) / 10 != words && found->shape == std::vector<size_t>{q.O, (q.I + 9) / 10})
        fail("%s: tensor \"%s\" has shape %s: ten codes of 3 bits a word, as compressed-tensors packed them before version 0.17. "
             "HINT: load and save it with a later version",
             found->file.c_str(), found->name.c_str(), shape_text(found->shape).c_str());
    q.codes = quantized_tensor(ck, q, ".weight_packed", "I32", {q.O, words});
    q.scales = quantized_tensor(ck, q, ".weight_scale", "float", {q.O, q.n});
    if (!q.format->symmetric) q.zeros = quantized_tensor(ck, q, ".weight_zero_point", "I32", {packed_words(q.O, b), q.n});
    const TensorView* shape = quantized_tensor(ck, q, ".weight_shape", "I64", {2});
    int64_t extent[2];
    memcpy(extent, shape->data, sizeof extent);
    if (extent[0] != (int64_t)q.O || extent[1] != (int64_t)q.I)
        fail("%s: tensor \"%s\" should say %s, found [%lld, %lld]", shape->file.c_str(), shape->name.c_str(),
             shape_text({q.O, q.I}).c_str(), (long long)extent[0], (long long)extent[1]);
}

inline void quantized_find_gptq(const Checkpoint& ck, QuantizedLinear& q) {
    const size_t b = (size_t)q.format->bits;
    if (q.I * b % 32 != 0 || q.O * b % 32 != 0)
        fail("%s: %s of shape %s has no gptq form: both extents times %zu bits should be multiples of 32", ck.path.c_str(),
             q.name.c_str(), shape_text({q.O, q.I}).c_str(), b);
    q.codes = quantized_tensor(ck, q, ".qweight", "I32", {q.I * b / 32, q.O});
    q.scales = quantized_tensor(ck, q, ".scales", "float", {q.n, q.O});
    q.zeros = quantized_tensor(ck, q, ".qzeros", "I32", {q.n, q.O * b / 32});
    q.group = quantized_tensor(ck, q, ".g_idx", "I32", {q.I});
}

inline void quantized_find_awq(const Checkpoint& ck, QuantizedLinear& q) {
    if (q.O % 8 != 0)
        fail("%s: %s of shape %s has no awq form: its rows should be a multiple of 8", ck.path.c_str(), q.name.c_str(),
             shape_text({q.O, q.I}).c_str());
    q.codes = quantized_tensor(ck, q, ".qweight", "I32", {q.I, q.O / 8});
    q.scales = quantized_tensor(ck, q, ".scales", "float", {q.n, q.O});
    q.zeros = quantized_tensor(ck, q, ".qzeros", "I32", {q.n, q.O / 8});
}

// No tensor of another format may stand beside a linear's own: another reader would take that one.
inline void quantized_refuse_others(const Checkpoint& ck, const QuantizedLinear& q) {
    static const char* own[] = {" .weight ",
                                " .weight_packed .weight_scale .weight_zero_point ",
                                " .weight .weight_scale .weight_zero_point ",
                                " .qweight .scales .qzeros .g_idx ",
                                " .qweight .scales .qzeros ",
                                " .weight .weight_scale_inv "};
    const int kind = q.quantized ? q.format->kind : q.format->unpacked ? QuantFormat::INT : QuantFormat::NONE;
    for (const char* suffix : {".weight", ".weight_packed", ".weight_scale", ".weight_zero_point", ".weight_g_idx",
                               ".weight_scale_inv", ".qweight", ".scales", ".qzeros", ".g_idx"}) {
        if (!checkpoint_find(ck, q.name + suffix)) continue;
        const bool unwanted_zeros = q.quantized && q.format->symmetric && strcmp(suffix, ".weight_zero_point") == 0;
        if (strstr(own[kind], format(" %s ", suffix).c_str()) && !unwanted_zeros) continue;
        fail("%s: tensor \"%s%s\" is there, which does not belong to a linear that is %s. HINT: does config.json belong to these "
             "files?",
             ck.path.c_str(), q.name.c_str(), suffix,
             !q.quantized     ? "not quantized"
             : unwanted_zeros ? "symmetric"
                              : quantization_name(*q.format));
    }
}

// The tensors of linear `name` [O, I]: which there are, their shapes and dtypes are checked; their values when they are read.
inline QuantizedLinear quantized_find(const Checkpoint& ck, const QuantFormat& f, const std::string& name, size_t O, size_t I) {
    const size_t G = f.group_size == -1 ? I : (size_t)f.group_size;
    QuantizedLinear q = {&f, name, O, I, G, (I + G - 1) / G, true, nullptr};
    const TensorView* weight = checkpoint_find(ck, name + ".weight");
    q.quantized = f.kind != QuantFormat::NONE && !(weight && is_float_dtype(weight->dtype));
    quantized_refuse_others(ck, q);
    if (!q.quantized) {
        q.codes = &checkpoint_get(ck, name + ".weight", {O, I});
        if (!is_float_dtype(q.codes->dtype)) tensor_wrong_dtype(*q.codes);
        return q;
    }
    switch (f.kind) {
    case QuantFormat::PACK: quantized_find_pack(ck, q); break;
    case QuantFormat::INT:
        q.codes = quantized_tensor(ck, q, ".weight", "I8", {O, I});
        q.scales = quantized_tensor(ck, q, ".weight_scale", "float", {O, q.n});
        if (!f.symmetric) q.zeros = quantized_tensor(ck, q, ".weight_zero_point", "I8", {O, q.n});
        break;
    case QuantFormat::GPTQ: quantized_find_gptq(ck, q); break;
    case QuantFormat::AWQ: quantized_find_awq(ck, q); break;
    default:
        q.codes = quantized_tensor(ck, q, ".weight", "F8_E4M3", {O, I});
        q.scales = quantized_tensor(ck, q, ".weight_scale_inv", "float", {(O + FP8_BLOCK - 1) / FP8_BLOCK, q.n});
    }
    return q;
}

// ---------------------------------------------------------------------------------------------------------------------
// Its values

// The grids of a linear, and which of them each column has.
struct QuantizedGrids {
    std::vector<float> scales;   // [O, n]
    std::vector<uint8_t> zeros;  // [O, n]
    std::vector<size_t> group;   // [I]
};

// Codes of rows [row, row + count) and columns [0, I) of an AWQ tensor [I, O/8] to out [count, I], in tiles so that both stay in cache.
inline void awq_codes(const TensorView& t, size_t O, size_t I, size_t row, size_t count, uint8_t* out) {
    int nibble[8];
    for (int k = 0; k < 8; k++) nibble[AWQ_ORDER[k]] = k;
    for (size_t first = 0; first < I; first += 64)
        for (size_t r = 0; r < count; r++)
            for (size_t i = first; i < std::min(first + 64, I); i++) {
                uint32_t word;
                memcpy(&word, t.data + 4 * (i * (O / 8) + (row + r) / 8), 4);
                out[r * I + i] = word >> (4 * nibble[(row + r) % 8]) & 15;
            }
}

// Signed codes, stored less 2^(b-1), to codes 0 .. 2^b - 1.
inline void signed_codes(const TensorView& t, size_t first, size_t n, int bits, uint8_t* out) {
    const int half = 1 << (bits - 1);
    int least = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        const int q = (int8_t)t.data[first + i] + half;
        least = q < least ? q : least, most = q > most ? q : most;
        out[i] = (uint8_t)q;
    }
    if (least < 0 || most >= 2 * half)
        fail("%s: tensor \"%s\" holds the value %d, outside of the %d bits that config.json says", t.file.c_str(), t.name.c_str(),
             (least < 0 ? least : most) - half, bits);
}

inline std::vector<size_t> quantized_groups(const QuantizedLinear& q) {
    std::vector<size_t> group(q.I), columns(q.n);  // of each group, how many
    for (size_t i = 0; i < q.I; i++) {
        group[i] = i / q.G;
        if (!q.group) continue;
        int32_t g;
        memcpy(&g, q.group->data + 4 * i, 4);
        if (g < 0 || (size_t)g >= q.n)
            fail("%s: tensor \"%s\": column %zu is in group %d, but there are %zu groups", q.group->file.c_str(),
                 q.group->name.c_str(), i, g, q.n);
        if (!q.format->act_order && (size_t)g != group[i])
            fail("%s: tensor \"%s\": column %zu is in group %d, but without desc_act it should be in group %zu. HINT: readers "
                 "disagree "
                 "about such a file",
                 q.group->file.c_str(), q.group->name.c_str(), i, g, group[i]);
        group[i] = (size_t)g;
        if (++columns[g] > q.G)
            fail("%s: tensor \"%s\": more than %zu columns are in group %d, but config.json says that groups have %zu. HINT: readers "
                 "disagree about such a file",
                 q.group->file.c_str(), q.group->name.c_str(), q.G, g, q.G);
    }
    return group;
}

inline std::vector<float> quantized_scales(const QuantizedLinear& q) {
    const TensorView& t = *q.scales;
    std::vector<float> stored(tensor_size(t)), scales(q.O * q.n);
    tensor_to_f32(t, 0, stored.size(), stored.data());
    for (float x : stored)
        if (!std::isfinite(x))
            fail("%s: tensor \"%s\" holds NaN or Inf. HINT: the file is damaged; get it again", t.file.c_str(), t.name.c_str());
    const QuantFormat::Kind kind = q.format->kind;
    for (size_t o = 0; o < q.O; o++)
        for (size_t g = 0; g < q.n; g++)
            scales[o * q.n + g] = kind == QuantFormat::FP8                                ? stored[o / FP8_BLOCK * q.n + g]
                                  : kind == QuantFormat::GPTQ || kind == QuantFormat::AWQ ? stored[g * q.O + o]
                                                                                          : stored[o * q.n + g];
    return scales;
}

inline std::vector<uint8_t> quantized_zeros(const QuantizedLinear& q) {
    const int b = q.format->bits, middle = 1 << (b - 1), most = (1 << b) - 1;
    std::vector<uint8_t> zeros(q.O * q.n, (uint8_t)middle);
    if (!q.zeros) return zeros;
    std::vector<uint8_t> stored(q.O * q.n);
    switch (q.format->kind) {
    case QuantFormat::INT: signed_codes(*q.zeros, 0, stored.size(), b, zeros.data()); return zeros;
    case QuantFormat::AWQ: awq_codes(*q.zeros, q.O, q.n, 0, q.O, zeros.data()); return zeros;
    case QuantFormat::PACK: unpack_columns(q.zeros->data, q.n, 0, q.n, q.O, b, stored.data()); break;
    default:
        for (size_t g = 0; g < q.n; g++) unpack_row(q.zeros->data + g * 4 * packed_words(q.O, b), q.O, b, &stored[g * q.O]);
    }
    for (size_t o = 0; o < q.O; o++)
        for (size_t g = 0; g < q.n; g++) {
            const int zero = stored[g * q.O + o] + q.format->zeros_less_one;
            if (q.format->symmetric && zero != middle)
                fail(
                    "%s: tensor \"%s\": row %zu has the zero point %d, but config.json says that the grid is symmetric (%d). HINT: "
                    "readers disagree about such a file",
                    q.zeros->file.c_str(), q.zeros->name.c_str(), o, zero, middle);
            // GPTQModel subtracts the 1 from a word of them, where a 0 borrows from the next row's; AutoGPTQ's 0 overwrites all that follow in
            // the word; some readers take it for 2^bits.
            if (zero > most)
                fail("%s: tensor \"%s\": row %zu has the zero point 0, stored as 0 - 1. HINT: readers disagree about such a file; gptq_v2 stores 0",
                     q.zeros->file.c_str(), q.zeros->name.c_str(), o);
            zeros[o * q.n + g] = (uint8_t)zero;
        }
    return zeros;
}

inline QuantizedGrids quantized_grids(const QuantizedLinear& q) {
    if (!q.quantized) return {};
    return {quantized_scales(q), quantized_zeros(q), quantized_groups(q)};
}

// E4M3 without infinities: sign, exponent 4 bits of bias 7, mantissa 3 bits; 0x7F and 0xFF are NaN.
inline float f32_from_e4m3(uint8_t byte) {
    const int exponent = byte >> 3 & 15, mantissa = byte & 7;
    const float magnitude = (byte & 0x7F) == 0x7F ? NAN
                            : exponent == 0       ? std::ldexp((float)mantissa, -9)
                                                  : std::ldexp((float)(8 + mantissa), exponent - 10);
    return byte & 0x80 ? -magnitude : magnitude;
}

static constexpr size_t QUANTIZED_ROWS = 64;  // decoded at a time

// Rows [row, row + count), count <= QUANTIZED_ROWS, to codes [count, I].
inline void quantized_codes(const QuantizedLinear& q, size_t row, size_t count, uint8_t* codes) {
    const TensorView& t = *q.codes;
    const int b = q.format->bits;
    switch (q.format->kind) {
    case QuantFormat::PACK:
        for (size_t r = 0; r < count; r++) unpack_row(t.data + (row + r) * 4 * packed_words(q.I, b), q.I, b, codes + r * q.I);
        break;
    case QuantFormat::INT: signed_codes(t, row * q.I, count * q.I, b, codes); break;
    case QuantFormat::GPTQ: unpack_columns(t.data, q.O, row, count, q.I, b, codes); break;
    case QuantFormat::AWQ: awq_codes(t, q.O, q.I, row, count, codes); break;
    default: memcpy(codes, tensor_values(t, row * q.I, count * q.I), count * q.I);
    }
}

// Calls use(r, weights [I]) for each of the rows row + r, r = 0 .. count - 1.
template <class Use> void quantized_each_row(const QuantizedLinear& q, size_t row, size_t count, Use use) {
    if (row > q.O || count > q.O - row)
        fail("%s has %zu rows, but %zu from %zu on were asked for", q.name.c_str(), q.O, count, row);
    const QuantizedGrids grids = quantized_grids(q);
    const bool fp8 = q.format->kind == QuantFormat::FP8;
    float e4m3[256];
    for (int byte = 0; byte < 256; byte++) e4m3[byte] = f32_from_e4m3((uint8_t)byte);
    std::vector<uint8_t> codes(std::min(count, QUANTIZED_ROWS) * q.I);
    std::vector<float> weights(q.I);
    for (size_t first = 0; first < count; first += QUANTIZED_ROWS) {
        const size_t now = std::min(QUANTIZED_ROWS, count - first);
        quantized_codes(q, row + first, now, codes.data());
        for (size_t r = 0; r < now; r++) {
            const uint8_t* code = &codes[r * q.I];
            for (size_t i = 0; i < q.I;) {  // one run of columns of the same group after another
                const size_t g = grids.group[i], at = (row + first + r) * q.n + g;
                size_t end = i + 1;
                while (end < q.I && grids.group[end] == g) end++;
                const float scale = grids.scales[at];
                const int zero = grids.zeros[at];
                if (fp8)
                    for (; i < end; i++) weights[i] = scale * e4m3[code[i]];
                else
                    for (; i < end; i++) weights[i] = scale * (float)(code[i] - zero);
            }
            use(first + r, weights.data());
        }
    }
}

// Rows [row, row + count) of the linear to out [count, I].
inline void quantized_to_f32(const QuantizedLinear& q, size_t row, size_t count, float* out) {
    if (!q.quantized) return tensor_to_f32(*q.codes, row * q.I, count * q.I, out);
    quantized_each_row(q, row, count, [&](size_t r, const float* w) { memcpy(out + r * q.I, w, q.I * sizeof(float)); });
}

// The same as bf16 bit patterns, rounded to nearest even.
inline void quantized_to_bf16(const QuantizedLinear& q, size_t row, size_t count, uint16_t* out) {
    if (!q.quantized) return tensor_to_bf16(*q.codes, row * q.I, count * q.I, out);
    quantized_each_row(q, row, count, [&](size_t r, const float* w) {
        for (size_t i = 0; i < q.I; i++) out[r * q.I + i] = bf16_from_f32(w[i]);
    });
}
