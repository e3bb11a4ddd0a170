// safetensors.h: Hugging Face checkpoints, read straight from their raw files and written back.
//
// A safetensors file is [header length: 8 bytes, little endian][header: JSON][data]. The header maps each tensor's name
// to its dtype, its shape and its byte range within the data; the ranges cover the data without gap or overlap
// (github.com/huggingface/safetensors, "Format"). A checkpoint is one such file, model.safetensors, or shards listed in
// model.safetensors.index.json. Files are memory-mapped and never trusted: every field is checked before it is used.
// Tensors may lie unaligned in the file, so values are loaded through memcpy.
//
// defines: dtype_size, shape_text, TensorView, tensor_size, Checkpoint, safetensors_parse, safetensors_open,
//          checkpoint_format_found, checkpoint_open, checkpoint_find, checkpoint_get, tensor_to_f32, tensor_to_bf16,
//          TensorSpec, SafetensorsWriter, CheckpointWriter
#pragma once
#include "error.h"
#include "file.h"
#include "json.h"
#include "temporary.h"
#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "safetensors files are little endian, and are read as they lie");

// ---------------------------------------------------------------------------------------------------------------------
// Shapes and dtypes

// Bytes of one value, 0 for a dtype that isn't known.
inline size_t dtype_size(const std::string& dtype) {
    static const std::unordered_map<std::string, size_t> sizes = {
        {"BOOL", 1}, {"U8", 1},   {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1}, {"U16", 2}, {"I16", 2},
        {"F16", 2},  {"BF16", 2}, {"U32", 4}, {"I32", 4},     {"F32", 4},     {"U64", 8},     {"I64", 8}, {"F64", 8}};
    auto found = sizes.find(dtype);
    return found == sizes.end() ? 0 : found->second;
}

// "[1024, 3072]"
inline std::string shape_text(const std::vector<size_t>& shape) {
    std::string text = "[";
    for (size_t i = 0; i < shape.size(); i++) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

// Bytes of a tensor in *bytes; false if the dtype is unknown or the product overflows.
inline bool tensor_bytes(const std::string& dtype, const std::vector<size_t>& shape, size_t* bytes) {
    *bytes = dtype_size(dtype);
    bool fits = *bytes > 0;
    for (size_t extent : shape) fits = fits && !__builtin_mul_overflow(*bytes, extent, bytes);
    return fits;
}

// ---------------------------------------------------------------------------------------------------------------------
// Reading

struct TensorView {
    std::string name, dtype, file;
    std::vector<size_t> shape;
    const unsigned char* data;  // [n_bytes], row-major, within the mapped file; not aligned
    size_t n_bytes;
};

inline size_t tensor_size(const TensorView& t) { return t.n_bytes / dtype_size(t.dtype); }

// Tensors of one or more mapped files; the views live as long as the checkpoint does. Move-only.
struct Checkpoint {
    std::string path;  // the folder, or the one file
    std::vector<MappedFile> files;
    std::vector<TensorView> tensors;
    std::unordered_map<std::string, size_t> index;  // name -> position in `tensors`
};

// One header entry: what it says about a tensor, checked against a data section of n_data bytes.
inline TensorView safetensors_parse_entry(const std::string& name, const Json& entry, const unsigned char* data,
                                          size_t n_data, const std::string& path) {
    const std::string what = path + ": tensor " + json_quote(name);
    TensorView t = {name, json_string(entry, "dtype", what), path, {}, nullptr, 0};
    if (dtype_size(t.dtype) == 0) fail("%s: unknown dtype %s", what.c_str(), json_quote(t.dtype).c_str());
    for (const Json& extent : json_array(entry, "shape", what)) {
        if (!extent.is_integer || extent.integer < 0)
            fail("%s: a shape is made of integers >= 0, found %s", what.c_str(), json_describe(extent).c_str());
        t.shape.push_back((size_t)extent.integer);
    }
    size_t wanted;
    if (!tensor_bytes(t.dtype, t.shape, &wanted))
        fail("%s: shape %s of %s overflows", what.c_str(), shape_text(t.shape).c_str(), t.dtype.c_str());
    const std::vector<Json>& offsets = json_array(entry, "data_offsets", what);
    if (offsets.size() != 2 || !offsets[0].is_integer || !offsets[1].is_integer || offsets[0].integer < 0 ||
        offsets[1].integer < offsets[0].integer)
        fail("%s: data_offsets should be two integers, 0 <= begin <= end", what.c_str());
    size_t begin = (size_t)offsets[0].integer, end = (size_t)offsets[1].integer;
    if (end > n_data)
        fail("%s: its bytes end at %zu, but the file holds %zu bytes of data. HINT: the file is truncated",
             what.c_str(), end, n_data);
    if (end - begin != wanted)
        fail("%s: shape %s of %s needs %zu bytes, data_offsets span %zu", what.c_str(), shape_text(t.shape).c_str(),
             t.dtype.c_str(), wanted, end - begin);
    t.data = data + begin;
    t.n_bytes = wanted;
    return t;
}

// The tensors in a safetensors file's bytes [n]; `path` names it in errors.
inline std::vector<TensorView> safetensors_parse(const unsigned char* bytes, size_t n, const std::string& path) {
    constexpr uint64_t max_header = 100000000;  // the format's own limit
    uint64_t n_header = 0;
    if (n < 8) fail("%s: expected a safetensors file, found only %zu bytes. HINT: get it again", path.c_str(), n);
    if (memcmp(bytes, "version ", 8) == 0) fail("%s: expected a safetensors file, found Git LFS's pointer to it. HINT: git lfs pull", path.c_str());
    memcpy(&n_header, bytes, 8);
    if (n_header > max_header || n_header > n - 8)
        fail("%s: the header should be %llu bytes, but the file has %zu bytes, and a header at most %llu. "
             "HINT: the file is truncated or no safetensors file; get it again",
             path.c_str(), (unsigned long long)n_header, n, (unsigned long long)max_header);
    const std::string header_name = path + " (header)";
    const Json header = json_parse((const char*)bytes + 8, (size_t)n_header, header_name, limit_header);
    if (header.type != Json::OBJECT)
        fail("%s: expected an object, found %s", header_name.c_str(), json_describe(header).c_str());

    const unsigned char* data = bytes + 8 + n_header;
    const size_t n_data = n - 8 - (size_t)n_header;
    std::vector<TensorView> tensors;
    for (const auto& member : header.object) {
        if (member.first == "__metadata__") continue;
        tensors.push_back(safetensors_parse_entry(member.first, member.second, data, n_data, path));
    }
    std::sort(tensors.begin(), tensors.end(), [](const TensorView& a, const TensorView& b) {
        return a.data != b.data ? a.data < b.data : a.n_bytes < b.n_bytes;
    });
    size_t covered = 0;
    for (const TensorView& t : tensors) {
        size_t begin = (size_t)(t.data - data);
        if (begin != covered)
            fail("%s: tensor %s begins at byte %zu, but the tensor before it ends at %zu: %s", path.c_str(),
                 json_quote(t.name).c_str(), begin, covered, begin < covered ? "they overlap" : "there is a hole");
        covered = begin + t.n_bytes;
    }
    if (covered != n_data)
        fail("%s: the tensors cover %zu bytes, but the file holds %zu bytes of data", path.c_str(), covered, n_data);
    return tensors;
}

inline void checkpoint_add(Checkpoint& ck, TensorView&& tensor) {
    ck.index[tensor.name] = ck.tensors.size();
    ck.tensors.push_back(std::move(tensor));
}

inline Checkpoint safetensors_open(const std::string& path) {
    Checkpoint ck;
    ck.path = path;
    ck.files.emplace_back(path);
    for (TensorView& t : safetensors_parse((const unsigned char*)ck.files[0].data, ck.files[0].size, path))
        checkpoint_add(ck, std::move(t));
    return ck;
}

// What to do about a checkpoint folder that isn't complete.
inline std::string checkpoint_hint(const std::string& dir) {
    std::string name = std::filesystem::path(dir + "/").parent_path().filename().string();
    return "HINT: scripts/download.sh " + (name.compare(0, 5, "Qwen3") == 0 ? name : "Qwen3-0.6B-Base") +
           " gets a checkpoint into models/";
}

// What a folder or file holds that is weights, but in a form that isn't read here; empty if nothing like that is seen.
inline std::string checkpoint_format_found(const std::string& path) {
    static const std::pair<const char*, const char*> kinds[] = {
        {".gguf", "GGUF (llama.cpp's format)"},
        {".ggml", "GGML (an old format of llama.cpp's)"},
        {"adapter_model.safetensors", "an adapter (LoRA) without its model"},
        {"consolidated.safetensors", "weights under their authors' own names (consolidated.safetensors)"},
        {".safetensors", "safetensors under another name, without an index"},
        {".bin", "PyTorch's pickled weights"},
        {".pth", "PyTorch's pickled weights"},
        {".pt", "PyTorch's pickled weights"},
        {".h5", "TensorFlow's weights"},
        {".msgpack", "Flax's weights"},
        {".onnx", "an ONNX graph"}};
    std::vector<std::string> names;
    std::error_code ignored;
    if (is_directory(path))
        for (const auto& entry : std::filesystem::directory_iterator(path, ignored)) names.push_back(entry.path().filename().string());
    else if (file_exists(path))
        names.push_back(std::filesystem::path(path).filename().string());
    std::sort(names.begin(), names.end());
    for (const auto& kind : kinds)
        for (const std::string& name : names)
            if (ends_with(name, kind.first)) return std::string(kind.second) + ": " + name;
    return "";
}

// The checkpoint in folder `dir`: model.safetensors, or else the shards of model.safetensors.index.json. The index
// decides which tensors there are and in which shard; what else a shard holds is ignored.
inline Checkpoint checkpoint_open(const std::string& dir) {
    if (!is_directory(dir))
        fail("%s: there is no such checkpoint folder. %s", dir.c_str(), checkpoint_hint(dir).c_str());
    const std::string single = dir + "/model.safetensors", index_path = dir + "/model.safetensors.index.json";
    if (file_exists(single)) {
        Checkpoint ck = safetensors_open(single);
        ck.path = dir;
        return ck;
    }
    const std::string found = file_exists(index_path) ? "" : checkpoint_format_found(dir);
    if (!found.empty())
        fail("%s: expected model.safetensors or model.safetensors.index.json, found %s. HINT: get or save the model as safetensors",
             dir.c_str(), found.c_str());
    if (!file_exists(index_path))
        fail("%s: expected model.safetensors or model.safetensors.index.json, found neither. %s", dir.c_str(),
             checkpoint_hint(dir).c_str());

    const Json index = json_parse_file(index_path, limit_line);
    const Json& weight_map = json_object(index, "weight_map", index_path);
    std::unordered_map<std::string, std::string> shard_of;
    std::vector<std::string> shards;
    for (const auto& member : weight_map.object) {
        const std::string& shard = member.second.string;
        if (member.second.type != Json::STRING || shard.empty() || shard[0] == '.' ||
            shard.find('/') != std::string::npos)
            fail("%s: tensor %s should be mapped to a file name in the same folder, found %s. HINT: move the shards there, and name them so",
                 index_path.c_str(),
                 json_quote(member.first).c_str(), json_describe(member.second).c_str());
        shard_of[member.first] = shard;
        shards.push_back(shard);
    }
    std::sort(shards.begin(), shards.end());
    shards.erase(std::unique(shards.begin(), shards.end()), shards.end());

    Checkpoint ck;
    ck.path = dir;
    for (const std::string& shard : shards) {
        const std::string path = dir + "/" + shard;
        if (!file_exists(path))
            fail("%s: this shard is missing, model.safetensors.index.json lists it. %s", path.c_str(),
                 checkpoint_hint(dir).c_str());
        ck.files.emplace_back(path);
        const MappedFile& file = ck.files.back();
        for (TensorView& t : safetensors_parse((const unsigned char*)file.data, file.size, path)) {
            auto listed = shard_of.find(t.name);
            if (listed != shard_of.end() && listed->second == shard) checkpoint_add(ck, std::move(t));
        }
    }
    for (const auto& listed : weight_map.object) {
        if (!ck.index.count(listed.first))
            fail("%s: tensor %s should be in %s, but it isn't. %s", index_path.c_str(),
                 json_quote(listed.first).c_str(), listed.second.string.c_str(), checkpoint_hint(dir).c_str());
    }
    return ck;
}

// The tensor of that name, or null.
inline const TensorView* checkpoint_find(const Checkpoint& ck, const std::string& name) {
    auto found = ck.index.find(name);
    return found == ck.index.end() ? nullptr : &ck.tensors[found->second];
}

// Levenshtein distance: how many characters to insert, delete or replace.
inline size_t edit_distance(const std::string& a, const std::string& b) {
    std::vector<size_t> row(b.size() + 1);
    for (size_t j = 0; j <= b.size(); j++) row[j] = j;
    for (size_t i = 1; i <= a.size(); i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.size(); j++) {
            size_t above = row[j];
            row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
            diagonal = above;
        }
    }
    return row[b.size()];
}

// How the weights beside `name` are packed, as far as their tensors' names tell; empty if they don't look packed.
inline std::string tensors_format_found(const Checkpoint& ck, const std::string& name) {
    const size_t end = name.rfind(".weight");
    if (end == std::string::npos || end + 7 != name.size()) return "";
    const std::string module = name.substr(0, end + 1);  // "model.layers.0.mlp.up_proj."
    static const std::pair<const char*, const char*> kinds[] = {
        {"weight_packed", "compressed-tensors"},   {"qweight", "GPTQ or AWQ"},
        {"weight.absmax", "bitsandbytes, 4 bits"}, {"SCB", "bitsandbytes, 8 bits"},
        {"W_q", "HQQ"},                            {"codebooks", "AQLM"},
        {"weight_blocks", "mxfp4"},                {"base_layer.weight", "an adapter (LoRA) beside the weights"}};
    for (const auto& kind : kinds)
        if (checkpoint_find(ck, module + kind.first)) return kind.second;
    return "";
}

// The tensor of that name, which must be there and have that shape.
inline const TensorView& checkpoint_get(const Checkpoint& ck, const std::string& name,
                                        const std::vector<size_t>& shape) {
    const TensorView* t = checkpoint_find(ck, name);
    const std::string packed = !t || t->shape != shape ? tensors_format_found(ck, name) : "";
    if (!packed.empty())
        fail("%s: expected plain values of tensor \"%s\", found packed ones (%s), which config.json doesn't announce in a "
             "quantization_config that is supported. HINT: get config.json again, or a checkpoint that isn't quantized",
             ck.path.c_str(), name.c_str(), packed.c_str());
    if (!t) {
        std::string closest = "it holds no tensors at all";
        size_t best = SIZE_MAX;
        for (const TensorView& other : ck.tensors) {
            size_t distance = edit_distance(name, other.name);
            if (distance >= best) continue;
            best = distance;
            closest = "the closest name there is " + json_quote(other.name);
        }
        fail("%s: tensor \"%s\" is missing; %s. HINT: does config.json belong to these files?", ck.path.c_str(),
             name.c_str(), closest.c_str());
    }
    if (t->shape != shape)
        fail("%s: tensor \"%s\" should have shape %s, found %s. HINT: does config.json belong to these files?",
             t->file.c_str(), name.c_str(), shape_text(shape).c_str(), shape_text(t->shape).c_str());
    return *t;
}

// ---------------------------------------------------------------------------------------------------------------------
// Values. The loops are free of branches, so that they vectorize.

inline float bits_to_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline uint32_t float_to_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

inline float f32_from_bf16(uint16_t h) { return bits_to_float((uint32_t)h << 16); }

// Exponent and mantissa move to float's place, which leaves the exponent 112 too small; multiplying puts that right,
// for subnormals as well. Infinity and NaN get float's highest exponent.
inline float f32_from_f16(uint16_t h) {
    const uint32_t magnitude = (uint32_t)(h & 0x7FFF) << 13, sign = (uint32_t)(h & 0x8000) << 16;
    const uint32_t scaled = float_to_bits(bits_to_float(magnitude) * 0x1p112f);
    return bits_to_float((magnitude >= 0x0F800000 ? magnitude | 0x7F800000 : scaled) | sign);
}

// Nearest, ties to even; a NaN stays a NaN.
inline uint16_t bf16_from_f32(float x) {
    const uint32_t bits = float_to_bits(x);
    const uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    return (uint16_t)((bits & 0x7FFFFFFF) > 0x7F800000 ? bits >> 16 | 0x40 : rounded);
}

// First of n values' bytes, which must lie within the tensor.
inline const unsigned char* tensor_values(const TensorView& t, size_t first, size_t n) {
    const size_t size = tensor_size(t);
    if (first > size || n > size - first)
        fail("%s: tensor \"%s\" has %zu values, but %zu from %zu on were asked for", t.file.c_str(), t.name.c_str(),
             size, n, first);
    return t.data + first * dtype_size(t.dtype);
}

[[noreturn]] inline void tensor_wrong_dtype(const TensorView& t) {
    fail("%s: tensor \"%s\" should be BF16, F16 or F32, found %s. HINT: take a checkpoint whose layers' linears alone are quantized, or none of it",
         t.file.c_str(), t.name.c_str(), t.dtype.c_str());
}

// Values [first, first + n) of a BF16, F16 or F32 tensor, in row-major order, to out [n].
inline void tensor_to_f32(const TensorView& t, size_t first, size_t n, float* out) {
    const unsigned char* in = tensor_values(t, first, n);
    if (t.dtype == "F32") {
        if (n > 0) memcpy(out, in, n * 4);
    } else if (t.dtype == "BF16") {
        for (size_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, in + 2 * i, 2);
            out[i] = f32_from_bf16(h);
        }
    } else if (t.dtype == "F16") {
        for (size_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, in + 2 * i, 2);
            out[i] = f32_from_f16(h);
        }
    } else {
        tensor_wrong_dtype(t);
    }
}

// The same as bf16 bit patterns, rounded to nearest even.
inline void tensor_to_bf16(const TensorView& t, size_t first, size_t n, uint16_t* out) {
    const unsigned char* in = tensor_values(t, first, n);
    if (t.dtype == "BF16") {
        if (n > 0) memcpy(out, in, n * 2);
    } else if (t.dtype == "F32") {
        for (size_t i = 0; i < n; i++) {
            float x;
            memcpy(&x, in + 4 * i, 4);
            out[i] = bf16_from_f32(x);
        }
    } else if (t.dtype == "F16") {
        for (size_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, in + 2 * i, 2);
            out[i] = bf16_from_f32(f32_from_f16(h));
        }
    } else {
        tensor_wrong_dtype(t);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Writing

struct TensorSpec {
    std::string name, dtype;
    std::vector<size_t> shape;
};

inline size_t tensor_spec_bytes(const TensorSpec& spec, const std::string& path) {
    size_t bytes;
    if (!tensor_bytes(spec.dtype, spec.shape, &bytes))
        fail("%s: tensor \"%s\" can't be written: dtype %s, shape %s", path.c_str(), spec.name.c_str(),
             spec.dtype.c_str(), shape_text(spec.shape).c_str());
    return bytes;
}

inline void check_unique(const std::vector<TensorSpec>& specs, const std::string& path) {
    std::unordered_set<std::string> names = {"__metadata__"};
    for (const TensorSpec& spec : specs) {
        if (!names.insert(spec.name).second)
            fail("%s: tensor \"%s\" can't be written: the name is taken", path.c_str(), spec.name.c_str());
    }
}

// Writes one safetensors file. The tensors are known up front; their bytes follow in the same order, each tensor in one
// piece or several.
struct SafetensorsWriter {
    std::vector<TensorSpec> specs;
    OutputFile file;
    size_t current = 0;    // the tensor that is being written
    size_t remaining = 0;  // its bytes that are still to come

    SafetensorsWriter(const std::string& path, const std::vector<TensorSpec>& tensors) : specs(tensors), file(path) {
        check_unique(specs, path);
        std::string header = "{\"__metadata__\":{\"format\":\"pt\"}";  // transformers insists on the format
        size_t offset = 0;
        for (const TensorSpec& spec : specs) {
            const size_t bytes = tensor_spec_bytes(spec, path);
            header += "," + json_quote(spec.name) + ":{\"dtype\":" + json_quote(spec.dtype) +
                      ",\"shape\":" + shape_text(spec.shape) +
                      format(",\"data_offsets\":[%zu,%zu]}", offset, offset + bytes);
            offset += bytes;
        }
        header += "}";
        header.append((8 - header.size() % 8) % 8, ' ');  // so that the data starts at a multiple of 8
        const uint64_t n_header = header.size();
        file.write(&n_header, 8);
        file.write(header.data(), header.size());
        start_tensor();
    }

    // Tensors without bytes are complete as they are.
    void start_tensor() {
        for (; current < specs.size(); current++) {
            remaining = tensor_spec_bytes(specs[current], file.path);
            if (remaining > 0) return;
        }
    }

    bool complete() const { return current == specs.size(); }

    // The next n bytes of tensor `name`, whose turn it must be.
    void write(const std::string& name, const void* bytes, size_t n) {
        if (n == 0) return;
        if (complete() || specs[current].name != name)
            fail("%s: tensor \"%s\" is written out of order, the next one is %s", file.path.c_str(), name.c_str(),
                 complete() ? "none" : json_quote(specs[current].name).c_str());
        if (n > remaining)
            fail("%s: tensor \"%s\" has %zu bytes left to write, got %zu", file.path.c_str(), name.c_str(), remaining,
                 n);
        file.write(bytes, n);
        remaining -= n;
        if (remaining > 0) return;
        current++;
        start_tensor();
    }

    void finish() {
        if (!complete())
            fail("%s: %zu bytes of tensor \"%s\" were not written", file.path.c_str(), remaining,
                 specs[current].name.c_str());
        file.close();
    }
};

// Writes a checkpoint folder, tensors in the given order, in shards of at most max_shard_bytes (a tensor is never
// split). Everything goes to a temporary folder beside DIR, which `finish` renames to DIR and which is removed if `finish` is never
// reached.
struct CheckpointWriter {
    std::string dir;
    std::unique_ptr<Temporary> folder;
    std::vector<std::vector<TensorSpec>> shards;
    size_t current = 0;  // the shard that is being written
    std::unique_ptr<SafetensorsWriter> writer;

    CheckpointWriter(const std::string& target, const std::vector<TensorSpec>& tensors,
                     size_t max_shard_bytes = 5000000000)
        : dir(target) {
        while (dir.size() > 1 && dir.back() == '/') dir.pop_back();
        std::error_code ignored;
        const auto status = std::filesystem::symlink_status(dir, ignored);
        if (std::filesystem::exists(status) &&
            !(std::filesystem::is_directory(status) && std::filesystem::is_empty(dir, ignored)))
            fail("%s: there is something here already. HINT: name a new folder, or remove this one", dir.c_str());
        if (std::filesystem::exists(status) && is_mount_point(dir))  // at the end the finished folder could not take its place
            fail("%s: expected a folder that can be replaced, found a mount point. HINT: %s/model", dir.c_str(), dir.c_str());
        check_unique(tensors, dir);
        shards.emplace_back();
        size_t shard_bytes = 0;
        for (const TensorSpec& spec : tensors) {
            const size_t bytes = tensor_spec_bytes(spec, dir);
            if (shard_bytes > 0 && bytes > max_shard_bytes - std::min(shard_bytes, max_shard_bytes)) {
                shards.emplace_back();
                shard_bytes = 0;
            }
            shards.back().push_back(spec);
            shard_bytes += bytes;
        }
        folder.reset(new Temporary(dir, true));
    }
    CheckpointWriter(const CheckpointWriter&) = delete;
    CheckpointWriter& operator=(const CheckpointWriter&) = delete;

    std::string place(const std::string& name) const { return folder->path + "/" + name; }
    std::string shard_name(size_t i) const {
        return shards.size() == 1 ? "model.safetensors"
                                  : format("model-%05zu-of-%05zu.safetensors", i + 1, shards.size());
    }

    void open_shard() {
        if (!writer) writer.reset(new SafetensorsWriter(place(shard_name(current)), shards[current]));
    }

    void close_shard() {
        writer->finish();
        writer.reset();
        current++;
    }

    // The next n bytes of tensor `name`, whose turn it must be.
    void write(const std::string& name, const void* bytes, size_t n) {
        if (n == 0) return;
        if (current == shards.size()) fail("%s: tensor \"%s\" comes after the last one", dir.c_str(), name.c_str());
        open_shard();
        writer->write(name, bytes, n);
        if (writer->complete()) close_shard();
    }

    // A small file of the checkpoint, such as config.json.
    void write_text(const std::string& name, const std::string& text) { write_file(place(name), text); }

    void copy_file(const std::string& source) {
        MappedFile in(source);
        OutputFile out(place(std::filesystem::path(source).filename()));
        out.write(in.data, in.size);
        out.close();
    }

    void write_index() {
        size_t total = 0;
        std::string map;
        for (size_t i = 0; i < shards.size(); i++) {
            for (const TensorSpec& spec : shards[i]) {
                total += tensor_spec_bytes(spec, dir);
                map += (map.empty() ? "    " : ",\n    ") + json_quote(spec.name) + ": " + json_quote(shard_name(i));
            }
        }
        write_text("model.safetensors.index.json",
                   format("{\n  \"metadata\": {\"total_size\": %zu},\n  \"weight_map\": {\n", total) + map +
                       "\n  }\n}\n");
    }

    // Checks that every tensor was written, and gives the folder its name.
    void finish() {
        while (current < shards.size()) {  // a shard left open lacks bytes, unless none of its tensors has any
            open_shard();
            close_shard();
        }
        if (shards.size() > 1) write_index();
        folder->rename_to_target();
    }
};
