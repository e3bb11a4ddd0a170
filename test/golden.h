// golden.h: the reference files under test/golden/, and the problem that the methods' references are made on
// (scripts/golden/golden_gptq.py says how its inputs are generated; here they are generated again).
//
// defines: golden, GoldenProblem, golden_problem, to_device, upload, download, push_through, SaidTo, run_quietly
#pragma once
#include "../qwen3.cu"
#include "test.h"

// What an earlier test has read and removed is no business of this one's run.
static const bool forget_files = (before_each_test = [] { file_stamps().clear(); }, true);

// A tensor of a reference file. T must be what it holds.
template <class T> inline std::vector<T> golden(const Checkpoint& ck, const std::string& name) {
    const TensorView* t = checkpoint_find(ck, name);
    if (!t) fail("golden tensor %s is missing", name.c_str());
    std::vector<T> values(t->n_bytes / sizeof(T));
    memcpy(values.data(), t->data, t->n_bytes);
    return values;
}

template <class T> inline Array<T> to_device(const std::vector<T>& host) {
    Array<T> device(host.size(), "test values");
    copy(device.data, host.data(), host.size());
    return device;
}

// The values rounded to floatX.
inline Array<floatX> upload(const std::vector<float>& values) {
    std::vector<floatX> host;
    for (float x : values) host.push_back(to_floatX(x));
    return to_device(host);
}

inline std::vector<float> download(const Array<floatX>& device) {
    std::vector<floatX> host(device.n);
    copy(host.data(), device.data, device.n);
    std::vector<float> values;
    for (floatX x : host) values.push_back(to_float(x));
    return values;
}

struct GoldenProblem {
    int O, I, n;
    std::vector<float> W, X;  // [O, I], [n, I], bf16 numbers
    int sequences = 1;        // that the n tokens are
};

inline float twelve_bits(const char* name, uint64_t i) {
    return (float)(random_bits(random_key(name, 0) + i) >> 52) * 0x1p-11f - 1.0f;
}

inline GoldenProblem golden_problem(const Checkpoint& ck) {
    GoldenProblem p{256, 512, 2048, {}, {}};
    for (int i = 0; i < p.O * p.I; i++)
        p.W.push_back(to_float(to_bf16(twelve_bits("gptq.W", i) * (i % p.I % 64 == 7 ? 0.25f : 0.0625f))));
    for (int t = 0; t < p.n; t++)
        for (int j = 0; j < p.I; j++) {
            auto x = [&](int k) { return k < 0 ? 0.0f : twelve_bits("gptq.X", (uint64_t)t * p.I + k); };
            const float c = j % 128 == 5 ? 20 : j == 100 ? 0 : (float)((37 * j) % 64 + 16) / 64;
            p.X.push_back(to_float(to_bf16(c * (x(j) + 0.75f * x(j - 1) + 0.5f * x(j - 2) + 0.5f * twelve_bits("gptq.z", t)))));
        }
    auto check_sum = [&](const char* name, const std::vector<float>& values) {
        const TensorView* t = checkpoint_find(ck, name);
        CHECK(t && t->dtype == "F64");
        double expected, sum = 0;
        memcpy(&expected, t->data, 8);
        for (float x : values) sum += x;
        CHECK_NEAR(sum, expected, 1e-6);
    };
    check_sum("check.W_sum", p.W);
    check_sum("check.X_sum", p.X);
    p.sequences = golden<int>(ck, "sequences")[0];
    return p;
}

// Pushes the one stream through all layers of the model, its activations, keys and values on these grids; it is then ready for the head.
inline Scratch push_through(const Model& m, std::vector<Stream>& one, const QuantOptions& grids = QuantOptions()) {
    const Config& c = m.config;
    Stream& s = one[0];
    s.x.width = c.C;
    s.x.data = Array<floatX>(s.tokens.size() * c.C, "activations");
    stream_embed(m, s);
    Scratch scratch = scratch_alloc(c, one);
    Layer layer = layer_alloc(c);
    for (int l = 0; l < c.L; l++) {
        layer_place(c, layer, l);
        layer_set_grids(layer, grids, c.D, true);
        for (const Param& p : layer_params(c, layer)) load_param(m, p);
        layer_forward(c, layer, s, scratch);
    }
    return scratch;
}

// What is said on standard error goes to a file for as long as this lives.
struct SaidTo {
    int saved;
    explicit SaidTo(const std::string& file) : saved(dup(2)) {
        fflush(stderr);
        if (!freopen(file.c_str(), "w", stderr)) fail("%s can't be opened", file.c_str());
    }
    ~SaidTo() {
        fflush(stderr);
        dup2(saved, 2);
        close(saved);
    }
};

// A run of the program with these arguments, its progress hidden.
inline Report run_quietly(std::vector<const char*> args, const std::string& log = "/dev/null") {
    args.insert(args.begin(), "qwen3");
    const Options options = options_parse((int)args.size(), args.data());
    const SaidTo said(log);
    return run_model(options);
}
