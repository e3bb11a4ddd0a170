// rptq_layer.h: a layer of the bundled model that RPTQ quantizes, for its tests.
//
// defines: parse, RptqLayer
#pragma once
#include "../quant/rptq.cuh"
#include "golden.h"

inline Options parse(std::vector<const char*> args) {
    args.insert(args.begin(), "qwen3");
    return options_parse((int)args.size(), args.data());
}

// A layer of the bundled model with its calibration stream.
struct RptqLayer {
    Model model;
    Layer layer;
    std::vector<Stream> streams;
    Quantizer q;
    explicit RptqLayer(int length = 32) {
        Options o;
        o.model = "data/tiny";
        model = model_open(o);
        const Config& c = model.config;
        layer = layer_alloc(c);
        layer_place(c, layer, 1);
        for (const Param& p : layer_params(c, layer)) load_param(model, p);
        std::vector<int> tokens;
        for (int i = 0; i < 256; i++) tokens.push_back((i * i + 11) % c.V);
        streams.push_back(stream_of_windows(c, "calibration", tokens, length, false));
        stream_make_chunks(c, streams[0], 96);  // several
        streams[0].x.width = c.C, streams[0].x.data = Array<floatX>(tokens.size() * c.C, "activations");
        stream_embed(model, streams[0]);
    }
    void quantize(const std::vector<const char*>& args) {
        const Options o = parse(args);
        Scratch scratch = scratch_alloc(model.config, streams);
        q.opt = o.quant, q.n_calibration = streams[0].tokens.size();
        q.n_sequences = streams[0].segments.size(), q.sample_length = streams[0].segments[0].len;
        quantize_layer(model.config, layer, method_for(o), q, &streams[0], scratch);
    }
};
