// rotate.h: the rotation that the options ask for, and the file that keeps one.
//
// A file of rotations is a safetensors file with R1 [C, C] and, perhaps, R2 [L, KV, D, D] or [L, 1, D, D] (a matrix that a layer's heads
// share, as SpinQuant's do; scripts/convert_rotation.py makes such a file of SpinQuant's).
//
// defines: rotation_for, rotation_load, rotation_save, learned_settings
#pragma once
#include "data/config.h"
#include "data/safetensors.h"
#include "options.h"
#include "quant/learn_rotation.cuh"

// The matrix [n, n] of the file, on the device; refused unless its transpose undoes it, which a run takes for granted.
inline Array<float> require_orthogonal(const std::vector<float>& host, int n, const std::string& path, const std::string& name) {
    Array<float> device(host.size(), "a given rotation");
    copy(device.data, host.data(), host.size());
    const double off = off_orthogonal(device, n);
    if (!(off < 1e-3))
        fail("%s: %s is not orthogonal: |R^T R - I| is %g. HINT: is it the file of a rotation?", path.c_str(), name.c_str(), off);
    return device;
}

// R1 and R2 from the file become the rotation's.
inline void rotation_load(Rotation& r, const std::string& path, const Config& c) {
    const Checkpoint ck = safetensors_open(path);
    const size_t C = (size_t)c.C, D = (size_t)c.D, L = (size_t)c.L, KV = (size_t)c.KV;
    const TensorView& R1 = checkpoint_get(ck, "R1", {C, C});
    std::vector<float> host(C * C);
    tensor_to_f32(R1, 0, host.size(), host.data());
    rotation_set_r1(r, require_orthogonal(host, c.C, path, "R1"));
    const TensorView* R2 = checkpoint_find(ck, "R2");
    if (!R2) return;
    const bool shared = R2->shape == std::vector<size_t>{L, 1, D, D};
    checkpoint_get(ck, "R2", {L, shared ? 1 : KV, D, D});
    const size_t n = D * D;
    r.all_R2.resize(L * KV * n);
    host.resize(n);
    for (size_t k = 0; k < L * KV; k++) {
        if (!shared || k % KV == 0) tensor_to_f32(*R2, (shared ? k / KV : k) * n, n, host.data());
        if (r.has.r2 && (!shared || k % KV == 0))
            require_orthogonal(host, c.D, path, format("R2 of layer %zu, kv head %zu,", k / KV, k % KV));
        std::copy(host.begin(), host.end(), r.all_R2.begin() + k * n);
    }
}

inline void rotation_save(const Rotation& r, const std::string& path, const Config& c) {
    const size_t C = (size_t)c.C, D = (size_t)c.D;
    std::vector<TensorSpec> specs = {{"R1", "F32", {C, C}}};
    if (!r.all_R2.empty()) specs.push_back({"R2", "F32", {(size_t)c.L, (size_t)c.KV, D, D}});
    std::vector<float> R1(r.R1.n);
    copy(R1.data(), r.R1.data, R1.size());
    std::unique_ptr<Temporary> whole;
    if (!is_special_file(path)) whole.reset(new Temporary(path, false));
    SafetensorsWriter writer(whole ? whole->path : path, specs);
    writer.write("R1", R1.data(), R1.size() * sizeof(float));
    writer.write("R2", r.all_R2.data(), r.all_R2.size() * sizeof(float));
    writer.finish();
    if (whole) whole->rename_to_target();
    fprintf(stderr, "rotation: %s\n", printable(path).c_str());
}

inline Rotation rotation_for(const Options& o, const Config& c) {
    const bool given = !o.rotation.empty() && !o.learn_rotation;
    Rotation r = rotation_make({c.C, has_dense(c) ? c.F : 0, c.H, c.KV, c.D, has_mixture(c) ? c.mixture.F : 0}, (uint64_t)o.seed, o.rotate_block,
                               {rotates(o, "r1"), rotates(o, "r2"), rotates(o, "r3"), rotates(o, "r4"), rotates(o, "heads")}, given || o.learn_rotation);
    // Learning begins from the whole width's Hadamard matrix: --rotate-block is R4's then.
    if (o.learn_rotation) r.hidden = hadamard_make(c.C, "hidden_size", 1, "--rotate with --rotate-block"), r.signs = random_signs(c.C, r.seed);
    // A mixture's stream, to which its experts add one by one, has no rest.
    r.rest = r.has.r1 && sizeof(floatX) == 2 && !has_mixture(c);
    if (given) rotation_load(r, o.rotation, c);
    return r;
}

// What the report says of a rotation that was learned; printed, too.
inline Settings learned_settings(const RotationSamples& samples, const LearnedRotation& r1, Settings settings) {
    fprintf(stderr, "learned rotations: R1 %.4f -> %.4f, R2 %.4f -> %.4f (mean smooth range, squared), |R^T R - I| %.1e\n",
            r1.before, r1.after, samples.r2_before, samples.r2_after, samples.off);
    settings.push_back({"r1_before", json_format(r1.before)}), settings.push_back({"r1_after", json_format(r1.after)});
    settings.push_back({"r2_before", json_format(samples.r2_before)}),
        settings.push_back({"r2_after", json_format(samples.r2_after)});
    settings.push_back({"off_orthogonal", json_format(samples.off)});
    return settings;
}
