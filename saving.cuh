// saving.cuh: --save: a Hugging Face checkpoint with the fake-quantized weights or with packed linears (--format), written layer by layer
// as the sweep goes.
//
// defines: checkpoint_specs, require_tensors, require_disk, save_param, save_layer, report_size, save_unquantized, save_rotated, save_finish,
//          quantization_json, report_on_a_grid, report_saved
#pragma once
#include <string>
#include <unordered_set>
#include <vector>
#include "data/export.h"
#include "data/save.h"
#include "eval/report.h"
#include "quant/rotation.cuh"
#include "weights.cuh"

static const char* const STORED_DTYPE = sizeof(floatX) == 2 ? "BF16" : "F32";

inline std::vector<TensorSpec> checkpoint_specs(const Config& c, const QuantFormat& packed = QuantFormat()) {
    const std::string dtype = STORED_DTYPE;
    std::vector<TensorSpec> specs = {{"model.embed_tokens.weight", dtype, {(size_t)c.V, (size_t)c.C}}};
    Layer layer = layer_alloc(c);
    for (int l = 0; l < c.L; l++) {
        layer_place(c, layer, l);
        for (const Param& p : layer_params(c, layer)) {
            if (!p.linear || packed.kind == QuantFormat::NONE) specs.push_back({p.name, dtype, p.shape});
            else
                for (const TensorSpec& spec : export_specs(packed, dtype, linear_name(p), p.shape[0], p.shape[1]))
                    specs.push_back(spec);
        }
    }
    specs.push_back({"model.norm.weight", dtype, {(size_t)c.C}});
    if (!c.tied) specs.push_back({"lm_head.weight", dtype, {(size_t)c.V, (size_t)c.C}});
    return specs;
}

// Tensors that the shape in config.json has no place for: what is evaluated is perhaps not the model that was meant.
inline void note_unread(const Checkpoint& ck, const std::unordered_set<std::string>& used, const std::unordered_set<std::string>& packed_linears,
                        std::vector<std::string>& notes) {
    size_t n = 0;
    std::string first;
    for (const TensorView& t : ck.tensors) {
        const size_t dot = t.name.rfind('.');
        const bool of_linear = dot != std::string::npos && t.name.substr(dot) != ".bias" && packed_linears.count(t.name.substr(0, dot));
        // A tied head is the embedding again; older files hold the rotary embedding's angles.
        if (used.count(t.name) || of_linear || t.name == "lm_head.weight" || ends_with(t.name, ".rotary_emb.inv_freq")) continue;
        if (n++ == 0) first = t.name;
    }
    if (n)
        notes.push_back(format("%zu tensors are left unread, %s for one: the model that config.json says has no place for them", n,
                               first.c_str()));
}

// Tensors with more digits than floatX has: the numbers are then those of a model that is not quite the stored one.
inline void note_rounded(const Checkpoint& ck, const std::unordered_set<std::string>& used, std::vector<std::string>& notes) {
    if (sizeof(floatX) == sizeof(float)) return;
    size_t n = 0;
    const TensorView* first = nullptr;
    for (const TensorView& t : ck.tensors)
        if (used.count(t.name) && t.dtype != "BF16" && n++ == 0) first = &t;
    if (n)
        notes.push_back(format("%zu tensors are rounded to bf16, %s for one is stored as %s: make PRECISION=FP32 builds a program that keeps them",
                               n, first->name.c_str(), first->dtype.c_str()));
}

// A tensor that is missing or of another shape shows before the work starts, not hours later at its layer; so does a quantized
// checkpoint that is not what its config.json says. What is noteworthy goes to `notes`.
inline void require_tensors(const Model& m, std::vector<std::string>& notes) {
    if (m.random) return;
    const Config& c = m.config;
    const size_t C = c.C, V = c.V;
    std::unordered_set<std::string> used, packed_linears;  // tensors; linears all of whose tensors but a bias are
    auto plain = [&](const std::string& name, const std::vector<size_t>& shape) {
        const std::string packed = checkpoint_find(m.checkpoint, name) ? "" : tensors_format_found(m.checkpoint, name);
        if (m.quantization.kind != QuantFormat::NONE && !packed.empty())
            fail("%s: \"%s\" is packed (%s), which only linears of layers may be here, and no router. HINT: take a checkpoint that leaves "
                 "routers, embeddings and head as they are", m.checkpoint.path.c_str(), name.c_str(), packed.c_str());
        const TensorView& t = checkpoint_get(m.checkpoint, name, shape);
        if (!is_float_dtype(t.dtype)) tensor_wrong_dtype(t);
        used.insert(name);
    };
    plain("model.embed_tokens.weight", {V, C});
    size_t linears = 0, quantized = 0;
    std::string as_it_is;  // the first linear that isn't quantized
    Layer layer = layer_alloc(c);
    for (int l = 0; l < c.L; l++) {
        layer_place(c, layer, l);
        for (const Param& p : layer_params(c, layer)) {
            linears += p.linear;
            if (!p.linear) plain(p.name, p.shape);
            else if (param_linear(m, p).quantized) quantized++, packed_linears.insert(linear_name(p));
            else if (used.insert(p.name); m.quantization.unpacked && checkpoint_find(m.checkpoint, linear_name(p) + ".weight_scale")) quantized++;
            else if (as_it_is.empty()) as_it_is = p.name;
            if (p.linear && m.quantization.unpacked) packed_linears.insert(linear_name(p));
        }
    }
    plain("model.norm.weight", {C});
    if (!c.tied) plain(head_name(c), {V, C});
    note_unread(m.checkpoint, used, packed_linears, notes);
    note_rounded(m.checkpoint, used, notes);
    const bool none = m.quantization.kind == QuantFormat::NONE;
    if (as_it_is.empty() || (none && (!m.quantization.unpacked || quantized == 0))) return;
    if (quantized == 0)
        fail("%s says that the checkpoint is quantized (%s), but its linears are not. HINT: does it belong to these files? If it was "
             "left over, take it out",
             m.quantization.where.c_str(), quantization_text(m.quantization).c_str());
    if (m.quantization.abits < 16)
        fail("%s: \"%s\" is not quantized, other linears and their inputs are; this program quantizes all inputs or none",
             m.checkpoint.path.c_str(), as_it_is.c_str());
    notes.push_back(format("%zu of %zu linears are quantized; %s, for one, is not", quantized, linears, as_it_is.c_str()));
}

// A disk that is too small shows before the work starts, too. What can't be asked is left to the writing.
inline void require_disk(const std::string& folder, size_t bytes) {
    std::error_code error;
    const std::filesystem::path parent = std::filesystem::path(folder.substr(0, folder.find_last_not_of('/') + 1)).parent_path();
    const auto space = std::filesystem::space(parent.empty() ? "." : parent, error);
    if (!error && space.available < bytes)
        fail("--save %s: the checkpoint takes %.3f GB, and its disk has %.3f GB left. HINT: another folder", folder.c_str(), bytes / 1e9,
             space.available / 1e9);
}

inline void save_param(CheckpointWriter& writer, const Param& p) {
#ifdef __CUDACC__
    std::vector<floatX> host(p.size());
    copy(host.data(), p.data, host.size());
    const floatX* values = host.data();
#else
    const floatX* values = p.data;
#endif
    writer.write(p.name, values, p.size() * sizeof(floatX));
}

// The layer as it is now. With a packed format its linears are what the method left in `made`, which is emptied.
inline void save_layer(CheckpointWriter& writer, const Config& c, const Layer& layer, const QuantFormat& packed,
                       std::vector<PackedLinear>& made) {
    for (const Param& p : layer_params(c, layer)) {
        if (!p.linear || packed.kind == QuantFormat::NONE) {
            save_param(writer, p);
            continue;
        }
        const std::string name = linear_name(p);
        const auto of_it =
            std::find_if(made.begin(), made.end(), [&](const PackedLinear& x) { return ends_with(name, "." + x.name); });
        if (of_it == made.end()) fail("%s: the method left no codes of it", name.c_str());
        of_it->name = name;
        export_write(writer, packed, STORED_DTYPE, *of_it);
    }
    made.clear();
}

// Bytes of all tensors, and bits a weight of the linears with all that belongs to them but biases.
inline void report_size(Report& r, const Config& c, const std::vector<std::pair<std::string, size_t>>& tensor_bytes) {
    double weights = 0, bytes = 0;
    for (int l = 0; l < c.L; l++)
        for (const Group& group : layer_shapes(c, l).groups) weights += (double)group.O * group.I;
    for (const auto& t : tensor_bytes) {
        r.stored_bytes += t.second;
        const size_t dot = t.first.rfind('.'), layer = t.first.find(".layers.");
        if (layer != std::string::npos && atoll(t.first.c_str() + layer + 8) >= c.L) continue;  // stored, but not the model's
        if (dot != std::string::npos && ends_with(t.first.substr(0, dot), "_proj") && t.first.substr(dot) != ".bias")
            bytes += t.second;
    }
    r.stored_bits = 8 * bytes / weights;
}

// A tensor that is not part of a layer passes through unchanged.
inline void save_unquantized(CheckpointWriter& writer, const Model& m, const std::string& name, const std::vector<size_t>& shape) {
    Param p = {name, shape, nullptr};
    Array<floatX> values(p.size(), name.c_str());
    p.data = values.data;
    load_param(m, p);
    save_param(writer, p);
}

// The embeddings, or the head with the final norm's gain, multiplied by R1. The two are then no longer the same matrix. With
// the head goes the final norm, whose gain is 1 from then on.
inline void save_rotated(CheckpointWriter& writer, const Model& m, bool head, const Rotation& rotation) {
    const size_t C = m.config.C, V = m.config.V;
    Param p = {head ? head_name(m.config) : "model.embed_tokens.weight", {V, C}, nullptr};
    Array<floatX> values(V * C, "embeddings or head"), gain(C, "final norm");
    p.data = values.data;
    load_param(m, p);
    load_param(m, {"model.norm.weight", {C}, gain.data});
    rotate_stream_rows(values.data, V, rotation, false, head ? gain.data : nullptr);
    if (head) {
        launch(fill_kernel, 1, 256, gain.data, 1.0f, (int)C);
        save_param(writer, {"model.norm.weight", {C}, gain.data});
        p.name = "lm_head.weight";
    }
    save_param(writer, p);
}

// `rotation`: whose R1 the stream was multiplied by, or null.
inline void save_finish(CheckpointWriter& writer, const Model& m, const std::string& settings_json, const Rotation* rotation = nullptr,
                        const QuantFormat& packed = QuantFormat()) {
    const std::string dtype = sizeof(floatX) == 2 ? "bfloat16" : "float32";
    const size_t C = m.config.C, V = m.config.V;
    if (rotation) save_rotated(writer, m, true, *rotation);
    else save_unquantized(writer, m, "model.norm.weight", {C});
    if (!rotation && !m.config.tied) save_unquantized(writer, m, "lm_head.weight", {V, C});
    Config shape = m.config;
    shape.tied = shape.tied && !rotation;
    std::string config = m.random ? config_json(shape, dtype) : saved_config(m.dir, dtype, shape.tied);
    if (packed.kind != QuantFormat::NONE) config = config_with_quantization(config, export_config(packed, has_mixture(m.config)));
    writer.write_text("config.json", config);
    writer.write_text("quantization.json", settings_json);  // how the weights came about; transformers ignores it
    files_unchanged_or_fail();
    writer.finish();
}

// quantization.json: how the weights came about. fake: they are plain weights on a grid.
inline std::string quantization_json(const Report& r, bool fake) {
    std::vector<std::string> others = r.not_the_papers;  // but for what concerns this run's evaluation alone
    others.erase(std::remove_if(others.begin(), others.end(), [](const std::string& s) { return is_word_of(s, "--limit --logits"); }), others.end());
    std::string more = r.effective_bits ? ", \"effective_bits\": " + json_format(r.effective_bits) : "";
    if (r.weights_seed >= 0) more += format(", \"weights_seed\": %d", r.weights_seed);
    return "{\"method\": " + json_quote(r.method) + ", \"fake_quantized\": " + (fake ? "true" : "false") + ", \"options\": " +
           json_settings(r.options) + more + ", \"calibration\": " + json_settings(r.calibration) + ", \"rotation\": " + json_settings(r.rotation) +
           ", \"kv\": " + json_settings(r.kv) + ", \"not_the_papers\": " + json_texts(others) + ", \"commit\": " + json_quote(r.commit) + "}\n";
}

// Plain weights on a grid are nobody's full precision: the row of such a checkpoint as it is says how they came about, a row of another
// method that they were quantized before. `where`: what says so.
inline void report_on_a_grid(Report& r, const std::string& method, const char* layout, int bits, int group, const char* where) {
    if (r.method != "fp16") {
        r.notes.push_back(format("the weights were quantized before, by %s: %s", method.c_str(), where));
        r.not_the_papers.push_back("quantized weights");
        return;
    }
    r.method = method, r.loaded = true, r.wbits = bits, r.group = group;
    r.options = {{"format", json_quote(layout)},
                 {"bits", std::to_string(bits)},
                 {"activation_bits", "16"},
                 {"group_size", std::to_string(group)}};
}

// What a checkpoint of --save says of itself: a packed one is its method's row, with a paper's cells only if its settings were the
// paper's. False: it says nothing, so this program didn't save it.
inline bool report_saved(Report& r, const std::string& dir) {
    const std::string path = dir + "/quantization.json";
    if (dir.empty() || !file_exists(path)) return false;
    Json j;
    try {
        j = json_parse_file(path);
    } catch (const std::runtime_error& e) {
        r.notes.push_back(format("left unread: %s", e.what()));
    }
    const Json* method = j.find("method");
    if (!j.find("fake_quantized") || !method || method->type != Json::STRING) return false;  // not of this program
    if (r.loaded) {
        r.method = method->string;
    } else if (method->string != "fp16") {
        const Json* options = j.find("options");
        const bool said = options && options->type == Json::OBJECT;
        report_on_a_grid(r, method->string, "bf16", said ? (int)json_int(*options, "bits", path, 16) : r.wbits,
                         said ? (int)json_int(*options, "group_size", path, -1) : r.group, "quantization.json");
        if (r.loaded) r.effective_bits = json_number(j, "effective_bits", path, 0);
    }
    const Json* rotation = j.find("rotation");
    if (rotation && !rotation->object.empty()) {
        if (r.loaded) r.rotation = {{"parts", json_quote(json_string(*rotation, "parts", path, ""))}};
        else r.notes.push_back("the weights were rotated before: quantization.json");
    }
    if (!j.find("not_the_papers")) r.not_the_papers.push_back("settings of the saved checkpoint");
    else
        for (const Json& other : json_array(j, "not_the_papers", path)) r.not_the_papers.push_back(other.string);
    return true;
}
