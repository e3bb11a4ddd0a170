// moe_layer.h: what the tests of methods on mixtures share: a layer with one expert that no token reaches, one that few, some that many
// and one that all reach, its calibration streams, and GPTQ in float64.
//
// defines: EXACT, NOBODYS, RARE, EVERYBODYS, MoeLayer, share_apart, all_weights, nearest_on_grid, damped_inverse,
//          gptq_in_float64, hessian_of, identity
#pragma once
#include "golden.h"
#include "test.h"

static const bool EXACT = sizeof(floatX) == 4;
static const int NOBODYS = 5, RARE = 4, EVERYBODYS = 2;  // experts

// Layer 0 of test/golden/moe and a calibration stream of 512 tokens. The stream has a direction d in common, in or against which the
// router looks to give the three experts above what their names say. Beside it the same tokens as a full-precision model might bring
// them: some way apart, so that the router sends many of them elsewhere.
struct MoeLayer {
    Model m;
    Layer layer;
    std::vector<Stream> streams;
    Scratch scratch;
    Quantizer q;
    std::vector<floatX> x0, full0;       // the streams as they come in
    std::vector<std::vector<float>> W0;  // [O, I] of each group as it was
    std::vector<float> router0, gain0;   // [E, C], [C]

    explicit MoeLayer(Place place = Place::Device) {
        Options o;
        o.model = "test/golden/moe";
        m = model_open(o);
        const Config& c = m.config;
        layer = layer_alloc(c);
        for (const Param& p : layer_params(c, layer)) load_param(m, p);
        std::vector<int> tokens;
        for (int i = 0; i < 512; i++) tokens.push_back((int)(random_bits(i) % c.V));
        for (const char* name : {"calibration", "full precision"}) streams.push_back(stream_of_windows(c, name, tokens, 256, false));
        for (Stream& s : streams) {
            stream_make_chunks(c, s, 256);  // two
            s.x.width = c.C, s.in.width = widest_input(c);
            s.x.data = Array<floatX>(tokens.size() * c.C, "activations", place);
            s.in.data = Array<floatX>(tokens.size() * s.in.width, "activations", place);
        }
        stream_embed(m, streams[0]);
        std::vector<float> x = download(streams[0].x.data), full(x.size());
        for (size_t i = 0; i < x.size(); i++) {
            x[i] = x[i] * 20 + (i % c.C % 2 ? 8.0f : -8.0f);
            full[i] = x[i] + 5 * twelve_bits("full precision", i);
        }
        copy(streams[0].x.data.data, upload(x).data, x.size()), copy(streams[1].x.data.data, upload(full).data, x.size());
        Array<floatX> router((size_t)c.mixture.E * c.C, "router");
        copy(router.data, layer.router, router.n);
        router0 = download(router);
        for (int i = 0; i < c.C; i++) {
            const float d = i % 2 ? 1.0f : -1.0f;
            router0[NOBODYS * c.C + i] = -d, router0[EVERYBODYS * c.C + i] = d, router0[RARE * c.C + i] -= 0.115f * d;
        }
        copy(layer.router, upload(router0).data, router0.size());
        router0 = values(layer.router, router0.size());  // as rounded
        x0.resize(x.size()), full0.resize(x.size());
        copy(x0.data(), streams[0].x.data.data, x0.size()), copy(full0.data(), streams[1].x.data.data, x0.size());
        for (const Group& g : layer.groups) W0.push_back(weights_of(g));
        gain0 = values(layer.post_norm, c.C);
        scratch = scratch_alloc(c, streams);
    }
    static std::vector<float> values(const floatX* from, size_t n) {
        Array<floatX> copied(n, "values");
        copy(copied.data, from, n);
        return download(copied);
    }
    static std::vector<float> weights_of(const Group& g) { return values(g.W, (size_t)g.O * g.I); }
    void quantize(std::vector<const char*> args, int at_once = INT_MAX, void (*solve_layer)(Quantizer&, Layer&) = nullptr) {
        args.insert(args.begin(), "qwen3");
        const Options o = options_parse((int)args.size(), args.data());
        ForwardContext forward = {m.config, streams[0], scratch};
        q.opt = o.quant, q.opt.groups_at_once = at_once;
        q.forward = &forward;
        q.n_calibration = streams[0].tokens.size(), q.n_sequences = streams[0].segments.size(), q.sample_length = 256;
        Method method = method_for(o);
        if (solve_layer) method.solve_layer = solve_layer;
        quantize_layer(m.config, layer, method, q, &streams[0], scratch);
    }
    // What reaches each group, [n, I], when the stream goes through the layer as it is now, but for the groups first .. which are as they
    // were.
    std::vector<std::vector<float>> inputs(int first) {
        const Config& c = m.config;
        std::vector<std::vector<float>> now, X(layer.groups.size());
        for (size_t g = first; g < layer.groups.size(); g++) {
            now.push_back(weights_of(layer.groups[g]));
            copy(layer.groups[g].W, upload(W0[g]).data, W0[g].size());
        }
        Array<floatX> x(x0.size(), "stream");
        copy(x.data, x0.data(), x0.size());
        for (const Chunk& chunk : streams[0].chunks)
            for (int stage = 0; stage < STAGES; stage++) {
                layer_stage(c, layer, stage, x.data + chunk.start * c.C, scratch.in.data, chunk, scratch);
                const int begin = layer.first_group[stage], end = layer.first_group[stage + 1];
                const floatX* in = grouped_inputs(layer, stage, scratch.in.data, chunk, scratch, begin, end);
                for (int g = begin; g < end; g++) {
                    const Rows rows = group_rows(layer.groups[g], chunk);
                    if (rows.n == 0) continue;
                    const std::vector<float> part = values(in + rows.first * layer.groups[g].I, (size_t)rows.n * layer.groups[g].I);
                    X[g].insert(X[g].end(), part.begin(), part.end());
                }
            }
        for (size_t g = first; g < layer.groups.size(); g++)
            copy(layer.groups[g].W, upload(now[g - first]).data, now[g - first].size());
        return X;
    }
    // The token of each row that an expert has of the stream that went through the layer last.
    std::vector<size_t> tokens_of(int e) const {
        std::vector<size_t> all;
        for (const Chunk& chunk : streams[0].chunks) {
            const Routing& r = chunk.routing;
            std::vector<int> tokens(r.tokens.n);
            copy(tokens.data(), r.tokens.data, tokens.size());
            for (int i = r.first[e]; i < r.first[e + 1]; i++) all.push_back(chunk.start + tokens[i]);
        }
        return all;
    }
    int gate_up(int e) const { return 2 + e; }
    int down(int e) const { return 2 + m.config.mixture.E + e; }
};

// The worst of found's rows against expected's: how many of its values are not the same to 1e-3 of the row's range.
inline double share_apart(const std::vector<float>& found, const std::vector<double>& expected, int I) {
    CHECK_EQ(found.size(), expected.size());
    size_t apart = 0;
    for (size_t r = 0; r < found.size() / I; r++) {
        const auto [lo, hi] = std::minmax_element(expected.begin() + r * I, expected.begin() + (r + 1) * I);
        for (int i = 0; i < I; i++) apart += !(std::fabs(found[r * I + i] - expected[r * I + i]) <= 0.02 * (*hi - *lo));
    }
    return (double)apart / found.size();
}

inline std::vector<float> all_weights(const MoeLayer& l) { return MoeLayer::values(l.layer.storage.data, l.layer.storage.n); }

// ---------------------------------------------------------------------------------------------------------------------
// GPTQ in float64, of one row a grid: the definition with an explicit inverse, in the order of the columns

inline double nearest_on_grid(double w, double scale, double zero, double maxq) {
    return scale * (std::clamp(std::nearbyint(w / scale) + zero, 0.0, maxq) - zero);
}

// The inverse of H [I, I] with a damping of 0.01, by Gauss and Jordan.
inline std::vector<double> damped_inverse(std::vector<double> H, int I) {
    std::vector<double> inverse((size_t)I * I, 0);
    double mean = 0;
    for (int i = 0; i < I; i++) mean += H[(size_t)i * I + i] / I;
    for (int i = 0; i < I; i++) H[(size_t)i * I + i] += 0.01 * mean, inverse[(size_t)i * I + i] = 1;
    for (int i = 0; i < I; i++) {
        const double pivot = H[(size_t)i * I + i];
        for (int j = 0; j < I; j++) H[(size_t)i * I + j] /= pivot, inverse[(size_t)i * I + j] /= pivot;
        for (int r = 0; r < I; r++) {
            const double f = H[(size_t)r * I + i];
            for (int j = 0; j < I && r != i; j++) {
                H[(size_t)r * I + j] -= f * H[(size_t)i * I + j];
                inverse[(size_t)r * I + j] -= f * inverse[(size_t)i * I + j];
            }
        }
    }
    return inverse;
}

inline std::vector<double> gptq_in_float64(const std::vector<float>& W, const std::vector<double>& H, int O, int I, int bits) {
    const double maxq = (1 << bits) - 1;
    const std::vector<double> inverse = damped_inverse(H, I);
    std::vector<double> result(W.size());
    for (int r = 0; r < O; r++) {
        std::vector<double> w(W.begin() + (size_t)r * I, W.begin() + (size_t)(r + 1) * I), inv = inverse;
        const double lo = std::min(0.0, *std::min_element(w.begin(), w.end())),
                     hi = std::max(0.0, *std::max_element(w.begin(), w.end()));
        const double scale = (hi - lo) / maxq, zero = std::nearbyint(-lo / scale);
        for (int k = 0; k < I; k++) {
            const double d = inv[(size_t)k * I + k], q = nearest_on_grid(w[k], scale, zero, maxq);
            for (int j = k + 1; j < I; j++) w[j] -= (w[k] - q) / d * inv[(size_t)k * I + j];
            for (int i = k + 1; i < I; i++)
                for (int j = k + 1; j < I; j++) inv[(size_t)i * I + j] -= inv[(size_t)i * I + k] * inv[(size_t)k * I + j] / d;
            result[(size_t)r * I + k] = q;
        }
    }
    return result;
}

inline std::vector<double> hessian_of(const std::vector<float>& X, int I) {
    std::vector<double> H((size_t)I * I, 0);
    for (size_t t = 0; t < X.size() / I; t++)
        for (int i = 0; i < I; i++)
            for (int j = 0; j < I; j++) H[(size_t)i * I + j] += (double)X[t * I + i] * X[t * I + j];
    return H;
}

inline std::vector<double> identity(int I) {
    std::vector<double> H((size_t)I * I, 0);
    for (int i = 0; i < I; i++) H[(size_t)i * I + i] = 1;
    return H;
}
