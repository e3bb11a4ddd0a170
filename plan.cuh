// plan.cuh: what a run will need of memory, before it begins: where each stream's activations live, how many of a mixture's experts are
// collected for at a time, how many rows of logits the head makes. What can't fit is refused here.
//
// On a GPU activations that the device has no room for lie in page-locked host memory, a chunk at a time on the device. A test holds the
// plan to what a run then allocates.
//
// defines: head_batch, pair_room, working_bytes, device_room, memory_hint, require_room_for_samples, place_streams
#pragma once
#include "options.h"
#include "quant/rotation.cuh"
#include "streams.cuh"

#ifdef __CUDACC__
static constexpr size_t LOGITS_BYTES = (size_t)1 << 30;
#else
static constexpr size_t LOGITS_BYTES = (size_t)1 << 28;
#endif

// Rows at a time: with a small vocabulary fewer than memory allows, so that a CPU's cache still has the logits when they are read.
inline int head_batch(const Config& c) { return (int)std::clamp<size_t>(LOGITS_BYTES / 4 / c.V, 16, 2048); }

// Values a token of a chunk, where the experts' inputs of a pair's second stream are made.
inline size_t pair_room(const Config& c) { return has_mixture(c) ? (size_t)c.mixture.K * std::max(c.C, c.mixture.F) : 0; }

// Bytes on the device besides the activations of whole streams: what a chunk needs, and the sweep, the head or what is saved with it, which
// follow each other. `reading`: the next layer waits beside the one at hand.
inline size_t working_bytes(const Options& o, const Config& c, const Method& method, const std::vector<Stream>& streams,
                            bool reading) {
    const size_t x = sizeof(floatX), n_calibration = method.collect ? streams[0].tokens.size() : 0;
    size_t tokens = 0, positions = 0;
    for (const Stream& s : streams) {
        tokens += s.tokens.size();
        for (const Segment& segment : s.segments) positions = std::max(positions, (size_t)(segment.pos + segment.len));
    }
    const size_t routed = has_mixture(c) ? (size_t)c.mixture.K * c.C : 0;
    const size_t chunk = longest_chunk(streams) * (2 * residual_width(c, streams) + widest_input(c) + widest_output(c) + routed) * x;
    size_t routing = has_mixture(c) ? routing_bytes(tokens, c.mixture.K) : 0;
    if (o.quant.all_experts) routing += longest_chunk(streams) * (c.C + c.mixture.F) * x;
    const size_t rotary = positions * c.D * sizeof(float), plans = tokens * 4 * sizeof(int);
    const size_t small = 64 * (widest_input(c) + widest_output(c));  // what has one value a row or column
    size_t layers = layer_size(c) * x * (reading ? 2 : 1);
    if (method.order == Order::PAIRED) {  // the layer as it was, the differences of inputs, x~'s experts' inputs, and on a GPU room for x~'s input
        layers += layer_size(c) * x + longest_chunk(streams) * (widest_input(c) + pair_room(c)) * x;
#ifdef __CUDACC__
        layers += longest_chunk(streams) * widest_input(c) * x;
#endif
    }
    const bool given_r1 = o.learn_rotation || !o.rotation.empty();
    size_t matrices = given_r1 ? 2 * (size_t)c.C * c.C * sizeof(float) : 0;  // R1, R2 and their transposes
    if (o.rotate) matrices += 2 * (size_t)c.KV * c.D * c.D * sizeof(float);
    size_t solving = 0;
    for (int l = 0; l < c.L; l++) {
        const Layer shapes = layer_shapes(c, l);
        if (o.rotate) solving = std::max(solving, rotate_layer_bytes(shapes, given_r1));
        if (method.device_bytes) solving = std::max(solving, method.device_bytes(shapes, o.quant, n_calibration));
    }
    const bool scored = !o.tasks.empty() || !o.logits.empty();
    const size_t batch = head_batch(c), logits = batch * c.V * sizeof(float);
    const size_t table = (size_t)c.V * c.C * x;  // the embeddings, the head
    const size_t head = scored ? table + batch * (c.C * x + 64) + (o.kl ? 2 : 1) * logits : 0;
    size_t saving = table + (size_t)c.V * sizeof(int);  // with each row's count of what is not finite
    if (o.rotate) saving = std::max(saving, table + std::min((size_t)c.V, (size_t)ROTATION_ROWS) * c.C * sizeof(float)) + c.C * x;
    if (o.save.empty()) saving = 0;
    return std::max({layers + solving, head, saving}) + matrices + chunk + rotary + plans + routing + small;
}

#ifdef __CUDACC__
static constexpr size_t CUDA_BYTES = (size_t)750 << 20;  // its context, cuBLAS's workspace, what allocation rounds up to
#endif

// Bytes that a run may have on the device.
inline size_t device_room(const Options& o) {
    size_t room = device_free_bytes();
    if (o.device_memory > 0) room = std::min(room, (size_t)(o.device_memory * 1e9));
#ifdef __CUDACC__
    room -= std::min(room, CUDA_BYTES);
#endif
    return room;
}

inline const char* memory_hint(const Options& o) {
    return o.device_memory > 0 ? "fewer calibration samples (-n), fewer tasks (-e), more --device-memory, or a smaller model"
                               : "fewer calibration samples (-n), fewer tasks (-e), or a smaller model";
}

// Refuses calibration samples whose activations alone no memory here holds, before minutes are spent on drawing them.
inline void require_room_for_samples(const Options& o, const Config& c) {
    const size_t bytes = (size_t)o.n_samples * o.sample_length * c.C * sizeof(floatX);
    size_t room = device_room(o);
#ifdef __CUDACC__
    room += host_free_bytes();
#endif
    if (bytes > room)
        fail("not enough memory: the activations of %d calibration samples of %d tokens need %.2f GB, %.2f GB are free. HINT: %s", o.n_samples,
             o.sample_length, bytes / 1e9, room / 1e9, memory_hint(o));
}

// Of a mixture the most groups that may be collected for at a time, so that working_bytes stays within `device`: all, or the largest of
// half as many, a quarter .. 1.
inline int plan_groups_at_once(Options o, const Config& c, const Method& method, const std::vector<Stream>& streams, bool reading,
                               size_t device) {
    const bool hessians = method.order == Order::SEQUENTIAL || method.order == Order::PAIRED || method.order == Order::LAYERWISE;
    if (!has_mixture(c) || !hessians) return INT_MAX;
    for (int n = c.mixture.E; n > 1; n = ceil_div(n, 2)) {
        o.quant.groups_at_once = n;
        if (working_bytes(o, c, method, streams, reading) <= device) return n;
    }
    return 1;
}

// What the methods leave of a layer for a packed checkpoint, on the host: codes, and of each grid a scale and a zero.
inline size_t packed_layer_bytes(const Config& c, const QuantOptions& opt) {
    size_t most = 0;
    for (int l = 0; opt.pack && l < c.L; l++) {
        size_t bytes = 0;
        for (const Group& group : layer_shapes(c, l).groups)
            bytes += (size_t)group.O * (group.I + grids_in_row(opt, group.I) * (sizeof(float) + 1));
        most = std::max(most, bytes);
    }
    return most;
}

// Decides where each stream's activations live, and refuses at once what cannot fit. Returns the bytes planned on the device.
inline size_t place_streams(Options& o, const Model& m, const Method& method, std::vector<Stream>& streams) {
    const Config& c = m.config;
    const size_t x = sizeof(floatX);
    size_t device = device_room(o), host = host_free_bytes(), on_host = 0;
    const size_t packed = packed_layer_bytes(c, o.quant);
#ifdef __CUDACC__
    const size_t reader = m.random ? 0 : layer_size(c) * x;
    on_host += std::max(reader + packed, o.save.empty() ? 0 : (size_t)c.V * c.C * x);  // the embeddings and the head are saved before and after
#else
    device -= std::min(device, packed);
#endif
    size_t room = device;  // for all but activations, which a GPU need not hold
    for (Stream& s : streams) {
        const bool paired = method.order == Order::PAIRED, sequential = method.order == Order::SEQUENTIAL;
        const bool keeps_inputs = ((sequential || paired) && &s == &streams[0]) || (paired && &s == &streams[1]);
        for (Activations* a : {&s.x, &s.in}) {
            if (a == &s.in && !keeps_inputs) continue;
            a->width = a == &s.in ? widest_input(c) : s.rest ? 2 * c.C : c.C;
#ifndef __CUDACC__
            room -= std::min(room, s.tokens.size() * a->width * x);  // there is only one memory
#endif
        }
    }
    o.quant.groups_at_once = plan_groups_at_once(o, c, method, streams, !m.random, room);
    size_t on_device = working_bytes(o, c, method, streams, !m.random);
    for (Stream& s : streams)
        for (Activations* a : {&s.x, &s.in}) {
            const size_t bytes = s.tokens.size() * a->width * x;
#ifdef __CUDACC__
            const bool fits = on_device + bytes <= device;
#else
            const bool fits = true;
#endif
            (fits ? on_device : on_host) += bytes;
            a->data.place = fits ? Place::Device : Place::Host;
        }
    fprintf(stderr, "memory: %.2f GB of device memory needed, %.2f GB free", on_device / 1e9, device / 1e9);
    if (on_host) fprintf(stderr, "; %.2f GB of host memory needed, %.2f GB free", on_host / 1e9, host / 1e9);
    if (o.quant.groups_at_once < c.mixture.E) fprintf(stderr, "; Hessians of %d experts at a time", o.quant.groups_at_once);
    fprintf(stderr, "\n");
    if (on_device > device || on_host > host)
        fail("not enough memory: %.2f GB are needed on the device and %.2f GB on the host, %.2f and %.2f GB are free. HINT: %s",
             on_device / 1e9, on_host / 1e9, device / 1e9, host / 1e9, memory_hint(o));
    for (Stream& s : streams)
        for (Activations* a : {&s.x, &s.in})
            if (a->width) a->data = Array<floatX>(s.tokens.size() * a->width, "activations", a->data.place), touch(a->data);
    return on_device;
}
