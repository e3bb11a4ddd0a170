// small_model.h: a made-up model and its rotation, for the tests of what flows through a layer and of rotations.
//
// defines: small_config, shape_of, small_model, small_rotation
#pragma once
#include "../quant/rotation.cuh"
#include "golden.h"

// A small model whose head_dim is not hidden / heads, and whose hidden size, ffn and heads need all constructions: 20 x 4, 76 x 2.
inline Config small_config(bool bias, int H = 6) {
    Config c = {};
    c.model_type = bias ? "qwen2" : "qwen3";
    c.C = 80, c.F = 152, c.L = 2, c.H = H, c.KV = 2, c.D = 32, c.V = 97;
    c.eps = 1e-6f, c.rope_theta = 1e4f, c.tied = true, c.qk_norm = !bias, c.qkv_bias = bias, c.max_position = 256;
    return c;
}

inline RotationShape shape_of(const Config& c) { return {c.C, c.F, c.H, c.KV, c.D}; }

inline Model small_model(const Config& c) {
    Model m;
    m.name = "small", m.random = true, m.config = c;
    return m;
}

inline Rotation small_rotation(const Config& c) {
    Rotation r = rotation_make(shape_of(c), 5);
    r.has.over_heads = c.H != 6;
    if (r.has.over_heads) r.heads = hadamard_make(c.H * c.D, "heads", c.D);
    return r;
}
