// config.h: a model's shape, from its checkpoint's config.json as transformers 4 and 5 write it, or the official shapes of
// -m random:SIZE. What the forward pass in qwen3.cu does not compute is refused by name.
//
// defines: Config, config_load, config_official, config_json
#pragma once
#include <algorithm>
#include <string>
#include "file.h"
#include "json.h"

struct Config {
    std::string model_type;  // qwen3, qwen2 (biases, no q/k norm), llama (neither)
    int C, F, L, H, KV, D, V;
    float eps, rope_theta;
    bool tied;  // the head is the embedding
    bool qk_norm, qkv_bias;
    int max_position;
};

// Refuses by name what the forward pass below does not compute.
inline void config_refuse_unsupported(const Json& j, const std::string& path) {
    auto refuse = [&](bool found, const char* what) {
        if (found)
            fail("%s: %s is not supported. HINT: dense Qwen3, Qwen2/2.5 and plain Llama checkpoints are", path.c_str(), what);
    };
    const Json* experts = j.find("num_experts");
    refuse(experts && experts->type == Json::NUMBER && experts->number > 1, "a mixture of experts (num_experts)");
    const Json* scaling = j.find("rope_scaling");
    if (scaling && scaling->type == Json::OBJECT)
        refuse(json_string(*scaling, "rope_type", path, json_string(*scaling, "type", path, "default")) != "default",
               "rope_scaling");
    const Json* rope = j.find("rope_parameters");
    if (rope && rope->type == Json::OBJECT)
        refuse(json_string(*rope, "rope_type", path, "default") != "default", "rope scaling (rope_parameters)");
    refuse(json_number(j, "partial_rotary_factor", path, 1) != 1, "partial_rotary_factor");
    refuse(json_bool(j, "use_sliding_window", path, false), "a sliding window (use_sliding_window)");
    const Json* layer_types = j.find("layer_types");
    if (layer_types && layer_types->type == Json::ARRAY)
        for (const Json& t : layer_types->array) refuse(t.string != "full_attention", "a layer type other than full_attention");
    refuse(json_string(j, "hidden_act", path, "silu") != "silu", "an activation (hidden_act) other than silu");
    refuse(json_bool(j, "attention_bias", path, false), "attention_bias");
    refuse(json_bool(j, "mlp_bias", path, false), "mlp_bias");
}

inline Config config_load(const std::string& path) {
    if (!file_exists(path))
        fail("%s: expected a model's config.json, found no such file. HINT: scripts/download.sh Qwen3-0.6B-Base, or -m DIR",
             path.c_str());
    const Json j = json_parse_file(path);
    Config c;
    c.model_type = json_string(j, "model_type", path);
    if (c.model_type != "qwen3" && c.model_type != "qwen2" && c.model_type != "llama")
        fail("%s: expected model_type qwen3, qwen2 or llama, found \"%s\"%s", path.c_str(), c.model_type.c_str(),
             c.model_type.find("moe") != std::string::npos ? ": mixtures of experts are not supported" : "");
    config_refuse_unsupported(j, path);
    auto dimension = [&](const char* key, long long fallback) {
        long long x = fallback ? json_int(j, key, path, fallback) : json_int(j, key, path);
        if (x < 1 || x > 1 << 24) fail("%s: expected %s between 1 and 2^24, found %lld", path.c_str(), key, x);
        return (int)x;
    };
    c.C = dimension("hidden_size", 0);
    c.F = dimension("intermediate_size", 0);
    c.L = dimension("num_hidden_layers", 0);
    c.H = dimension("num_attention_heads", 0);
    c.KV = dimension("num_key_value_heads", c.H);
    c.D = dimension("head_dim", std::max(1, c.C / c.H));
    c.V = dimension("vocab_size", 0);
    c.max_position = dimension("max_position_embeddings", 32768);
    if (c.H % c.KV != 0)
        fail("%s: expected num_attention_heads to be a multiple of num_key_value_heads, found %d and %d", path.c_str(), c.H, c.KV);
    if (c.D % 8 != 0 || c.D > 256) fail("%s: expected head_dim to be a multiple of 8 up to 256, found %d", path.c_str(), c.D);
    c.eps = (float)json_number(j, "rms_norm_eps", path, 1e-6);
    const Json* rope = j.find("rope_parameters");
    c.rope_theta = (float)json_number(rope && rope->type == Json::OBJECT ? *rope : j, "rope_theta", path, 10000);
    c.tied = json_bool(j, "tie_word_embeddings", path, false);
    c.qk_norm = c.model_type == "qwen3";
    c.qkv_bias = c.model_type == "qwen2";
    return c;
}

// The official dense Qwen3 shapes, for -m random:SIZE.
inline Config config_official(const std::string& size) {
    struct Shape {
        const char* name;
        int C, F, L, H;
        bool tied;
    };
    static const Shape shapes[] = {{"0.6b", 1024, 3072, 28, 16, true},  {"1.7b", 2048, 6144, 28, 16, true},
                                   {"4b", 2560, 9728, 36, 32, true},    {"8b", 4096, 12288, 36, 32, false},
                                   {"14b", 5120, 17408, 40, 40, false}, {"32b", 5120, 25600, 64, 64, false}};
    std::string known;
    for (const Shape& s : shapes) {
        if (size == s.name) return {"qwen3", s.C, s.F, s.L, s.H, 8, 128, 151936, 1e-6f, 1e6f, s.tied, true, false, 40960};
        known += std::string(" random:") + s.name;
    }
    usage_fail("-m random:%s: expected one of%s", size.c_str(), known.c_str());
}

// config.json of a shape that came from no file, for the checkpoint that --save makes of it.
inline std::string config_json(const Config& c, const std::string& dtype) {
    return format(
        "{\"architectures\": [\"Qwen3ForCausalLM\"], \"model_type\": \"qwen3\", \"hidden_size\": %d, "
        "\"intermediate_size\": %d, \"num_hidden_layers\": %d, \"num_attention_heads\": %d, \"num_key_value_heads\": %d, "
        "\"head_dim\": %d, \"vocab_size\": %d, \"rms_norm_eps\": %g, \"rope_theta\": %g, \"tie_word_embeddings\": %s, "
        "\"max_position_embeddings\": %d, \"hidden_act\": \"silu\", \"attention_bias\": false, \"torch_dtype\": \"%s\"}\n",
        c.C, c.F, c.L, c.H, c.KV, c.D, c.V, c.eps, c.rope_theta, c.tied ? "true" : "false", c.max_position, dtype.c_str());
}
