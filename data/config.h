// config.h: a model's shape, from its checkpoint's config.json as transformers 4 and 5 write it, or the official shapes of
// -m random:SIZE. What the forward pass in qwen3.cu does not compute is refused by name.
//
// defines: RopeScaling, Mixture, Config, is_mixture, config_load, config_official, has_official_shape, config_json
#pragma once
#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>
#include "file.h"
#include "json.h"

// Llama 3's stretching of long wavelengths (rope_type "llama3"); factor 1: none.
struct RopeScaling {
    double factor = 1, low_freq_factor = 1, high_freq_factor = 4, original_positions = 8192;
};

// A mixture of experts in place of some layers' MLP.
struct Mixture {
    int E = 0, K = 0, F = 0;    // experts (0: the model has none), how many a token goes to, an expert's intermediate size
    bool renormalize = false;   // a token's K weights are divided by their sum
    std::vector<bool> layers;   // [L] which have it
};

struct Config {
    std::string model_type;  // qwen3, qwen3_moe (the same with experts), qwen2 (biases, no q/k norm), llama (neither)
    int C, F, L, H, KV, D, V;
    float eps, rope_theta;
    bool tied;  // the head is the embedding
    bool qk_norm, qkv_bias;
    int max_position;
    RopeScaling rope = {};
    Mixture mixture = {};
};

inline bool is_mixture(const Config& c, int l) { return c.mixture.E > 0 && c.mixture.layers[l]; }
inline bool has_mixture(const Config& c) { return std::count(c.mixture.layers.begin(), c.mixture.layers.end(), true) > 0; }
inline bool has_dense(const Config& c) { return std::count(c.mixture.layers.begin(), c.mixture.layers.end(), true) < c.L; }

// Refuses by name what the forward pass does not compute.
inline void config_refuse_unsupported(const Json& j, const std::string& model_type, const std::string& path) {
    auto refuse = [&](bool found, const char* what) {
        if (found)
            fail("%s: %s is not supported. HINT: Qwen3, Qwen2/2.5 and Llama checkpoints are", path.c_str(), what);
    };
    for (const char* key : {"num_experts", "num_local_experts"})  // transformers 4 and 5
        refuse(model_type != "qwen3_moe" && json_number(j, key, path, 0) > 1, "a mixture of experts (num_experts) in a model_type other than qwen3_moe");
    refuse(json_number(j, "partial_rotary_factor", path, 1) != 1, "partial_rotary_factor");
    refuse(json_bool(j, "use_sliding_window", path, false), "a sliding window (use_sliding_window)");
    if (!json_absent(j, "layer_types")) {
        const std::vector<Json>& types = json_array(j, "layer_types", path);
        const long long L = json_int(j, "num_hidden_layers", path);
        if ((long long)types.size() != L)
            fail("%s: expected as many layer_types as num_hidden_layers, %lld, found %zu", path.c_str(), L, types.size());
        for (const Json& t : types) refuse(t.string != "full_attention", "a layer type other than full_attention");
    }
    refuse(json_string(j, "hidden_act", path, "silu") != "silu", "an activation (hidden_act) other than silu");
    refuse(model_type != "qwen2" && json_bool(j, "attention_bias", path, false), "attention_bias");  // qwen2 has no such key
    refuse(json_bool(j, "mlp_bias", path, false), "mlp_bias");
    // Of any class: transformers 5 takes a null here for false, too.
    const Json* causal = j.find("is_causal");
    refuse(causal && !causal->boolean, "attention that isn't causal (is_causal)");
    const Json* per_layer = j.find("per_layer_config");
    refuse(per_layer && per_layer->type != Json::NUL && !per_layer->object.empty(), "per_layer_config");
    refuse(!json_absent(j, "transformers_weights"), "another name of the weights' file (transformers_weights)");
}

// The rotary embedding as transformers 5 reads it: the object is rope_scaling if that is there and not empty, else rope_parameters;
// theta is the object's own, else the top level's, else 10000. The object's kind is its rope_type, or type as it was once called.
inline void config_load_rope(Config& c, const Json& j, const std::string& path) {
    const Json* rope = nullptr;
    const char* key = "";
    for (const char* candidate : {"rope_parameters", "rope_scaling"}) {
        const Json* found = j.find(candidate);
        if (!found || found->type == Json::NUL) continue;
        if (found->type != Json::OBJECT)
            fail("%s: expected %s to be an object or null, found %s", path.c_str(), candidate, json_describe(*found).c_str());
        if (!found->object.empty()) rope = found, key = candidate;
    }
    double theta = json_number(j, "rope_theta", path, 10000);
    if (rope) {
        const std::string where = path + ", " + key;
        const std::string type = json_string(*rope, "rope_type", where, json_string(*rope, "type", where, "default"));
        theta = json_number(*rope, "rope_theta", where, theta);
        if (type != "default" && type != "llama3")
            fail("%s: the rotary embedding \"%s\" is not supported. HINT: \"default\" and \"llama3\" are", where.c_str(),
                 type.c_str());
        for (const auto& member : rope->object)
            if (member.second.type == Json::OBJECT)
                fail("%s: a rotary embedding by layer type (\"%s\") is not supported", where.c_str(), member.first.c_str());
        if (json_number(*rope, "partial_rotary_factor", where, 1) != 1)
            fail("%s: partial_rotary_factor is not supported", where.c_str());
        if (type == "llama3") {
            c.rope.factor = json_number(*rope, "factor", where);
            c.rope.low_freq_factor = json_number(*rope, "low_freq_factor", where);
            c.rope.high_freq_factor = json_number(*rope, "high_freq_factor", where);
            const char* original = "original_max_position_embeddings";  // the top level's comes first
            c.rope.original_positions =
                json_absent(j, original) ? json_number(*rope, original, where, c.max_position) : json_number(j, original, path);
            if (!(c.rope.factor >= 1 && c.rope.low_freq_factor > 0 && c.rope.high_freq_factor > c.rope.low_freq_factor &&
                  c.rope.original_positions >= 1))
                fail("%s: expected factor >= 1, 0 < low_freq_factor < high_freq_factor and original_max_position_embeddings >= 1, "
                     "found %g, %g, %g and %g", where.c_str(), c.rope.factor, c.rope.low_freq_factor, c.rope.high_freq_factor,
                     c.rope.original_positions);
        }
    }
    c.rope_theta = (float)theta;
    if (!(c.rope_theta > 0 && c.rope_theta <= 1e12f))
        fail("%s: expected a rope_theta above 0 and up to 1e12, found %g", path.c_str(), theta);
}

// The experts, and the layers that have them: every decoder_sparse_step-th, unless it is one of mlp_only_layers.
inline void config_load_mixture(Config& c, const Json& j, const std::string& path) {
    auto number = [&](const char* key, long long fallback, long long least, long long most) {
        const long long x = json_int(j, key, path, fallback);
        if (x < least || x > most) fail("%s: expected %s between %lld and %lld, found %lld", path.c_str(), key, least, most, x);
        return (int)x;
    };
    Mixture& m = c.mixture;
    const bool v5 = !json_absent(j, "num_local_experts");  // as transformers 5 saves it
    m.E = number(v5 ? "num_local_experts" : "num_experts", 128, 0, 1024);
    if (v5 && !json_absent(j, "num_experts") && number("num_experts", 0, 0, 1024) != m.E)
        fail("%s: expected num_experts and num_local_experts to be the same, found %lld and %d", path.c_str(),
             json_int(j, "num_experts", path), m.E);
    m.F = number("moe_intermediate_size", 768, 1, 1 << 22);
    m.renormalize = json_bool(j, "norm_topk_prob", path, false);
    const int step = number("decoder_sparse_step", 1, 1, 1 << 20);
    for (int l = 0; l < c.L; l++) m.layers.push_back(m.E > 0 && (l + 1) % step == 0);
    if (!json_absent(j, "mlp_only_layers"))
        for (const Json& l : json_array(j, "mlp_only_layers", path)) {
            if (l.type != Json::NUMBER || !(l.number >= 0 && l.number < 4096) || l.number != (int)l.number)
                fail("%s: expected mlp_only_layers to be layers, found %s", path.c_str(), json_describe(l).c_str());
            if (l.number < c.L) m.layers[(int)l.number] = false;
        }
    m.K = number("num_experts_per_tok", 8, 1, 64);
    if (m.E > 0 && m.K > m.E)
        fail("%s: expected num_experts_per_tok up to num_experts, found %d and %d", path.c_str(), m.K, m.E);
    if ((size_t)m.K * std::max(2 * (size_t)m.F, (size_t)c.C) > (size_t)1 << 22)
        fail("%s: expected num_experts_per_tok times hidden_size, and times twice moe_intermediate_size, up to 2^22, found %d, %d and %d",
             path.c_str(), m.K, c.C, m.F);
}

// A key that is absent has the default of its class in transformers, which is not always the sensible one.
inline Config config_load(const std::string& path) {
    if (!file_exists(path) && errno == ENOENT)
        fail("%s: expected a model's config.json, found no such file. HINT: scripts/download.sh Qwen3-0.6B-Base, or -m DIR",
             path.c_str());
    const Json j = json_parse_file(path, limit_line);
    Config c;
    c.model_type = json_string(j, "model_type", path);
    const bool qwen3 = c.model_type == "qwen3", qwen2 = c.model_type == "qwen2", moe = c.model_type == "qwen3_moe";
    if (!qwen3 && !qwen2 && !moe && c.model_type != "llama")
        fail("%s: expected model_type qwen3, qwen3_moe, qwen2 or llama, found \"%s\"%s", path.c_str(), c.model_type.c_str(),
             c.model_type.find("moe") != std::string::npos ? ": of mixtures of experts only Qwen3's are supported" : ". HINT: -m another checkpoint");
    config_refuse_unsupported(j, c.model_type, path);
    auto dimension = [&](const char* key, long long fallback, int most) {
        long long x = fallback ? json_int(j, key, path, fallback) : json_int(j, key, path);
        if (x < 1 || x > most) fail("%s: expected %s between 1 and %d, found %lld", path.c_str(), key, most, x);
        return (int)x;
    };
    const int WIDEST = 1 << 22;  // of any row or column: sums of a few widths are ints, their products size_t
    c.C = dimension("hidden_size", 0, WIDEST);
    c.F = dimension("intermediate_size", 0, WIDEST);
    c.L = dimension("num_hidden_layers", 0, 4096);
    c.H = dimension("num_attention_heads", 0, WIDEST);
    const Json* kv = j.find("num_key_value_heads");  // null: as many as heads
    c.KV = dimension("num_key_value_heads", kv || !(qwen3 || qwen2 || moe) ? c.H : moe ? 4 : 32, WIDEST);
    c.D = dimension("head_dim", qwen3 ? 128 : std::max(1, c.C / c.H), WIDEST);
    c.V = dimension("vocab_size", 0, 1 << 24);  // ids are exact in float
    c.max_position = dimension("max_position_embeddings", c.model_type == "llama" ? 2048 : 32768, 1 << 24);
    if (c.H % c.KV != 0)
        fail("%s: expected num_attention_heads to be a multiple of num_key_value_heads, found %d and %d", path.c_str(), c.H, c.KV);
    if (c.D % 8 != 0 || c.D > 256) fail("%s: expected head_dim to be a multiple of 8 up to 256, found %d", path.c_str(), c.D);
    const size_t qkv_rows = ((size_t)c.H + 2 * (size_t)c.KV) * (size_t)c.D;
    if (qkv_rows > (size_t)WIDEST)
        fail("%s: expected (num_attention_heads + 2 num_key_value_heads) head_dim up to %d, found %zu", path.c_str(), WIDEST, qkv_rows);
    c.eps = (float)json_number(j, "rms_norm_eps", path, 1e-6);
    if (!(c.eps >= 0 && c.eps < 1)) fail("%s: expected an rms_norm_eps from 0 to 1, found %g", path.c_str(), c.eps);
    config_load_rope(c, j, path);
    c.tied = json_bool(j, "tie_word_embeddings", path, false);
    c.qk_norm = qwen3 || moe;
    c.qkv_bias = qwen2;
    if (moe) config_load_mixture(c, j, path);
    return c;
}

// The official Qwen3 shapes, for -m random:SIZE.
inline Config config_official(const std::string& size) {
    struct Shape {
        const char* name;
        int C, F, L, H;
        bool tied;
        int KV = 8, E = 0, expert_F = 0;
    };
    static const Shape shapes[] = {{"0.6b", 1024, 3072, 28, 16, true},  {"1.7b", 2048, 6144, 28, 16, true},
                                   {"4b", 2560, 9728, 36, 32, true},    {"8b", 4096, 12288, 36, 32, false},
                                   {"14b", 5120, 17408, 40, 40, false}, {"32b", 5120, 25600, 64, 64, false},
                                   {"30b-a3b", 2048, 6144, 48, 32, false, 4, 128, 768},
                                   {"235b-a22b", 4096, 12288, 94, 64, false, 4, 128, 1536}};
    std::string known;
    for (const Shape& s : shapes) {
        if (size == s.name)
            return {s.E ? "qwen3_moe" : "qwen3", s.C, s.F, s.L, s.H, s.KV, 128, 151936, 1e-6f, 1e6f, s.tied, true, false, 40960, {},
                    {s.E, s.E ? 8 : 0, s.expert_F, s.E > 0, std::vector<bool>(s.E ? s.L : 0, true)}};
        known += std::string(" random:") + s.name;
    }
    usage_fail("-m random:%s: expected one of%s", size.c_str(), known.c_str());
}

// Whether c has the shape of Qwen's model of this name, Qwen3-8B-Base; true of another family's, whose shape nobody says here.
inline bool has_official_shape(const Config& c, const std::string& name) {
    if (name.rfind("Qwen3-", 0) != 0) return true;
    std::string size = name.substr(0, name.rfind("-Base")).substr(6);
    std::transform(size.begin(), size.end(), size.begin(), [](unsigned char ch) { return (char)tolower(ch); });
    const Config o = config_official(size);
    return c.C == o.C && c.F == o.F && c.L == o.L && c.H == o.H && c.KV == o.KV && c.D == o.D && c.V == o.V &&
           c.mixture.E == o.mixture.E && c.mixture.F == o.mixture.F;
}

// config.json of a shape that came from no file, for the checkpoint that --save makes of it.
inline std::string config_json(const Config& c, const std::string& dtype) {
    const Mixture& m = c.mixture;
    std::string experts;
    if (m.E) {
        std::string dense;
        for (int l = 0; l < c.L; l++)
            if (!m.layers[l]) dense += format("%s%d", dense.empty() ? "" : ", ", l);
        experts = format("\"num_experts\": %d, \"num_experts_per_tok\": %d, \"moe_intermediate_size\": %d, \"norm_topk_prob\": %s, "
                         "\"decoder_sparse_step\": 1, \"mlp_only_layers\": [%s], ", m.E, m.K, m.F,
                         m.renormalize ? "true" : "false", dense.c_str());
    }
    return format(
        "{\"architectures\": [\"Qwen3%sForCausalLM\"], \"model_type\": \"%s\", \"hidden_size\": %d, "
        "\"intermediate_size\": %d, \"num_hidden_layers\": %d, \"num_attention_heads\": %d, \"num_key_value_heads\": %d, "
        "\"head_dim\": %d, \"vocab_size\": %d, \"rms_norm_eps\": %g, \"rope_theta\": %g, \"tie_word_embeddings\": %s, "
        "\"max_position_embeddings\": %d, \"hidden_act\": \"silu\", \"attention_bias\": false, %s\"torch_dtype\": \"%s\"}\n",
        m.E ? "Moe" : "", c.model_type.c_str(), c.C, c.F, c.L, c.H, c.KV, c.D, c.V, c.eps, c.rope_theta, c.tied ? "true" : "false",
        c.max_position, experts.c_str(), dtype.c_str());
}
