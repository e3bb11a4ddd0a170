// awq_layer.h: a layer that AWQ quantizes as the program does, on given activations, for its tests.
//
// defines: awq_options, awq_solved, AwqBench
#pragma once
#include "../quant/awq.cuh"
#include "golden.h"

inline QuantOptions awq_options(int bits, int group) {
    QuantOptions o;
    o.wbits = bits, o.group_size = group;
    return o;
}

inline std::vector<AwqGroup> awq_solved;  // by the latest awq_solve_and_keep
inline void awq_solve_and_keep(Quantizer& q, Layer& layer) { awq_solved = awq_layer(q, layer); }

// A stream of windows whose activations are given, and what the forward pass needs.
struct AwqBench {
    Config config;
    std::vector<Stream> streams;
    Scratch scratch;
    AwqBench(const Config& c, const std::vector<float>& x, int window) : config(c) {
        streams.push_back(stream_of_windows(config, "test", std::vector<int>(x.size() / c.C, 0), window, false));
        streams[0].x.width = c.C;
        streams[0].x.data = upload(x);
        scratch = scratch_alloc(config, streams);
    }
    // Quantizes the layer as the program does; the results are in awq_solved.
    std::vector<ModuleReport> quantize(Layer& layer, const QuantOptions& o) {
        Quantizer q;
        q.opt = o;
        ForwardContext forward = {config, streams[0], scratch};
        q.forward = &forward;
        q.n_calibration = streams[0].tokens.size();
        Method method = method_find("awq");
        method.solve_layer = awq_solve_and_keep;
        quantize_layer(config, layer, method, q, &streams[0], scratch);
        for (int stage = 0; stage < STAGES; stage++) CHECK(q.inputs[stage].n == 0 && q.n_inputs[stage] == 0 && q.spans[stage].empty());
        return q.reports;
    }
    std::vector<float> forward(const Layer& layer) {
        layer_forward(config, layer, streams[0], scratch);
        return download(streams[0].x.data);
    }
};
