// weights.cuh: a model's tensors: where they are in its files, the layer that is filled with them, and the thread that reads the next layer
// while one is computed. Weights are raw files, packed ones that are decoded as they are read, or made up (-m random:SIZE).
//
// shapes: C hidden_size, H heads, KV kv-heads, D head_dim, F intermediate_size, V vocabulary, L layers, E experts, O x I a weight
// defines: qkv_rows, widest_input, widest_output, Model, Param, load_param, param_values, require_finite, layer_params, layer_size,
//          layers_size, layer_place, layer_shapes, layer_alloc, layer_copy, LayerReader, head_name,
//          checkpoint_values, linear_name, param_linear
#pragma once
#include <thread>
#include "cuda/device.cuh"
#include "cuda/random.cuh"
#include "data/config.h"
#include "data/quantized.h"
#include "data/safetensors.h"
#include "quant/quant.cuh"

inline int qkv_rows(const Config& c) { return (c.H + 2 * c.KV) * c.D; }

// The most values a token has among the inputs of a stage, and among its products. An expert's are K times a token's. Of inputs a multiple
// of 8: a chunk of a stream then begins where attention's kernel may write several values at a time.
inline int widest_input(const Config& c) {
    const int dense = has_dense(c) ? c.F : 0, mixture = has_mixture(c) ? c.mixture.K * c.mixture.F : 0;
    return ceil_div(std::max({c.C, c.H * c.D, dense, mixture}), 8) * 8;
}
inline int widest_output(const Config& c) {
    const int dense = has_dense(c) ? 2 * c.F : 0;
    const int mixture = has_mixture(c) ? std::max({c.mixture.E, c.mixture.K * 2 * c.mixture.F, c.mixture.K * c.C}) : 0;
    return std::max({c.C, qkv_rows(c), dense, mixture});
}

struct Model {
    std::string name, dir;  // dir is empty for random weights
    Config config;
    Checkpoint checkpoint;
    QuantFormat quantization;  // how the checkpoint's linears are stored
    bool random = false, stand_in = false;
    uint64_t seed = 0;
};

// A named tensor of the model and where its values are (or go).
struct Param {
    std::string name;
    std::vector<size_t> shape;
    floatX* data;
    bool linear = false;  // the weight of a linear, which a checkpoint may hold quantized
    size_t size() const {
        size_t n = 1;
        for (size_t extent : shape) n *= extent;
        return n;
    }
};

// Values [first, first + n) of a checkpoint's tensor to host memory.
inline void checkpoint_values(const TensorView& t, size_t first, size_t n, floatX* out) {
#ifdef PRECISION_FP32
    tensor_to_f32(t, first, n, out);
#else
    tensor_to_bf16(t, first, n, (uint16_t*)out);
#endif
}

// "model.layers.0.self_attn.q_proj" of its weight.
inline std::string linear_name(const Param& p) { return p.name.substr(0, p.name.rfind('.')); }

// The linear whose weight the tensor is, as the checkpoint has it.
inline QuantizedLinear param_linear(const Model& m, const Param& p) {
    return quantized_find(m.checkpoint, m.quantization, linear_name(p), p.shape[0], p.shape[1]);
}

// Values [first, first + n) of the tensor to host memory; whole rows.
inline void param_values(const Model& m, const Param& p, size_t first, size_t n, floatX* out) {
    if (!p.linear) return checkpoint_values(checkpoint_get(m.checkpoint, p.name, p.shape), first, n, out);
    const QuantizedLinear linear = param_linear(m, p);
#ifdef PRECISION_FP32
    quantized_to_f32(linear, first / linear.I, n / linear.I, out);
#else
    quantized_to_bf16(linear, first / linear.I, n / linear.I, (uint16_t*)out);
#endif
}

inline void require_finite(const floatX* x, size_t rows, int n, const std::string& what) {
    if (size_t bad = count_nonfinite(x, rows, n))
        fail("%s: %zu of %zu values are NaN or Inf. HINT: the file is damaged, or its values are too large for " FLOATX_NAME,
             what.c_str(), bad, rows * (size_t)n);
}

// Checks what was loaded into p.data (on the device).
inline void require_finite_param(const Model& m, const Param& p) {
    const TensorView& t = p.linear ? *param_linear(m, p).codes : checkpoint_get(m.checkpoint, p.name, p.shape);
    require_finite(p.data, p.size() / p.shape.back(), (int)p.shape.back(), t.file + ", " + t.name);
}

// Fills p.data (on the device) with the tensor's values, and checks them.
inline void load_param(const Model& m, const Param& p) {
    const size_t n = p.size(), I = p.shape.back();
    if (m.random) {
        random_values(p.name, m.seed, I, n, p.data);
        return;
    }
#ifdef __CUDACC__
    const size_t piece = std::min(n, std::max<size_t>(1, ((size_t)1 << 25) / I) * I);  // whole rows, through a page-locked buffer
    Array<floatX> buffer(piece, "upload buffer", Place::Host);
    for (size_t first = 0; first < n; first += piece) {
        const size_t now = std::min(piece, n - first);
        param_values(m, p, first, now, buffer.data);
        copy(p.data + first, buffer.data, now);
    }
#else
    param_values(m, p, 0, n, p.data);
#endif
    require_finite_param(m, p);
}

// The tensors of the layer, in checkpoint order, at the places that layer_place set.
inline std::vector<Param> layer_params(const Config& c, const Layer& layer) {
    const std::string prefix = format("model.layers.%d.", layer.index);
    std::vector<Param> params;
    auto norm = [&](const char* name, floatX* data, int n) {
        if (data) params.push_back({prefix + name + ".weight", {(size_t)n}, data});
    };
    auto stage = [&](int at, const std::string& module) {
        for (int i = layer.first_group[at]; i < layer.first_group[at + 1]; i++) {
            const Group& g = layer.groups[i];
            for (int k = 0; k < g.n_linears; k++) {
                const Linear& lin = g.linears[k];
                const std::string name = prefix + module + lin.name;
                params.push_back({name + ".weight", {(size_t)lin.O, (size_t)g.I}, g.W + (size_t)lin.row * g.I, true});
                if (g.bias) params.push_back({name + ".bias", {(size_t)lin.O}, g.bias + lin.row});
            }
        }
    };
    norm("input_layernorm", layer.input_norm, c.C);
    stage(0, "self_attn.");
    norm("self_attn.q_norm", layer.q_norm, c.D);
    norm("self_attn.k_norm", layer.k_norm, c.D);
    stage(1, "self_attn.");
    norm("post_attention_layernorm", layer.post_norm, c.C);
    if (layer.router) params.push_back({prefix + "mlp.gate.weight", {(size_t)c.mixture.E, (size_t)c.C}, layer.router});
    stage(2, "mlp.");
    stage(3, "mlp.");
    return params;
}

// Values of layer l, or only of those weights that a token meets, where it meets `experts` of a mixture's.
inline size_t layer_size(const Config& c, int l, int experts) {
    const size_t C = c.C, F = c.F, HD = (size_t)c.H * c.D, QKV = qkv_rows(c);
    const size_t mlp = is_mixture(c, l) ? c.mixture.E * C + (size_t)experts * 3 * c.mixture.F * C : 3 * F * C;
    return QKV * C + C * HD + mlp + 2 * C + (c.qk_norm ? 2 * c.D : 0) + (c.qkv_bias ? QKV : 0);
}
inline size_t layer_size(const Config& c) {  // of the largest layer
    size_t most = 0;
    for (int l = 0; l < c.L; l++) most = std::max(most, layer_size(c, l, c.mixture.E));
    return most;
}
inline size_t layers_size(const Config& c, int experts) {  // of all layers
    size_t sum = 0;
    for (int l = 0; l < c.L; l++) sum += layer_size(c, l, experts);
    return sum;
}

// The layer becomes layer l: its groups, and where its tensors lie, one after another in its storage. W of a group holds the rows of
// its linears one after another.
inline void layer_place(const Config& c, Layer& layer, int l) {
    layer.index = l, layer.D = c.D;
    floatX* next = layer.storage.data;
    auto take = [&](size_t n) {
        floatX* p = next;
        if (next) next += n;
        return p;
    };
    const int HD = c.H * c.D, KVD = c.KV * c.D;
    const int n = is_mixture(c, l) ? c.mixture.E : 1, F = is_mixture(c, l) ? c.mixture.F : c.F;  // groups of stages 2 and 3
    layer.groups.resize(2 + 2 * (size_t)n);
    const int first[] = {0, 1, 2, 2 + n, 2 + 2 * n};
    std::copy(first, first + STAGES + 1, layer.first_group);
    layer.groups[0] = {
        "qkv", qkv_rows(c), c.C, nullptr, nullptr, 3, {{"q_proj", 0, HD}, {"k_proj", HD, KVD}, {"v_proj", HD + KVD, KVD}}};
    layer.groups[1] = {"o", c.C, HD, nullptr, nullptr, 1, {{"o_proj", 0, c.C}}};
    layer.names.clear();
    for (int e = 0; e < n; e++) {
        auto name = [&](const char* of) {
            if (!is_mixture(c, l)) return of;
            layer.names.push_back(format("experts.%d.%s", e, of));
            return layer.names.back().c_str();
        };
        Group &gate_up = layer.groups[2 + e], &down = layer.groups[2 + n + e];
        gate_up = {name("gate_up"), 2 * F, c.C, nullptr, nullptr, 2, {{name("gate_proj"), 0, F}, {name("up_proj"), F, F}}};
        down = {name("down"), c.C, F, nullptr, nullptr, 1, {{name("down_proj"), 0, c.C}}};
        if (is_mixture(c, l)) gate_up.expert = down.expert = e;
    }
    for (Group& g : layer.groups) g.W = take((size_t)g.O * g.I);
    layer.K = is_mixture(c, l) ? c.mixture.K : 1;
    layer.router = is_mixture(c, l) ? take((size_t)c.mixture.E * c.C) : nullptr;
    if (c.qkv_bias) layer.groups[0].bias = take(layer.groups[0].O);
    layer.input_norm = take(c.C), layer.post_norm = take(c.C);
    layer.q_norm = c.qk_norm ? take(c.D) : nullptr, layer.k_norm = c.qk_norm ? take(c.D) : nullptr;
}

// A layer of which only the shapes of its groups count: all pointers are null, and layer_params would leave out norms, biases and router.
inline Layer layer_shapes(const Config& c, int l) {
    Layer layer;
    layer_place(c, layer, l);
    return layer;
}

// Room for any layer; it is the first one's.
inline Layer layer_alloc(const Config& c) {
    Layer layer;
    layer.storage = Array<floatX>(layer_size(c), "a layer's weights");
    layer_place(c, layer, 0);
    return layer;
}

inline Layer layer_copy(const Config& c, const Layer& layer) {
    Layer same = layer_alloc(c);
    layer_place(c, same, layer.index), same.rotation = layer.rotation;
    copy(same.storage.data, layer.storage.data, layer.storage.n);
    return same;
}

// The weights of the layer to come. While one layer is computed, a thread reads and converts the next, and brings it to the device, so
// that all this costs only what exceeds the computation. Random weights are made on the device when their turn comes.
struct LayerReader {
    const Model& model;
    Layer next;
    Array<floatX> on_host;  // GPU only: [layer_size], page-locked, where the next layer is put together
    std::thread thread;
    std::exception_ptr error;

    explicit LayerReader(const Model& m) : model(m) {
        if (m.random) return;
        next = layer_alloc(m.config);
#ifdef __CUDACC__
        on_host = Array<floatX>(layer_size(m.config), "the next layer's weights", Place::Host);
#endif
    }
    LayerReader(const LayerReader&) = delete;
    ~LayerReader() {
        if (thread.joinable()) thread.join();
    }

    // Begins with layer l, if there is one.
    void start(int l) {
        if (model.random || l == model.config.L) return;
        layer_place(model.config, next, l);
        thread = std::thread([this] {
            try {
                for (const Param& p : layer_params(model.config, next)) {
                    floatX* to = on_host.n ? on_host.data + (p.data - next.storage.data) : p.data;
                    param_values(model, p, 0, p.size(), to);
                }
                if (on_host.n) copy_beside(next.storage.data, on_host.data, on_host.n);
            } catch (...) {
                error = std::current_exception();
            }
        });
    }

    // `layer` becomes layer l, with which start was called; what it was is overwritten by the next start.
    void finish(Layer& layer, int l) {
        if (thread.joinable()) thread.join();
        if (error) std::rethrow_exception(error);
        if (model.random) layer_place(model.config, layer, l);
        else std::swap(layer, next);
        for (const Param& p : layer_params(model.config, layer)) {
            if (model.random) load_param(model, p);
            else require_finite_param(model, p);
        }
    }
};

inline const char* head_name(const Config& c) { return c.tied ? "model.embed_tokens.weight" : "lm_head.weight"; }
