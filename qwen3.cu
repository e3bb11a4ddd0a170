// qwen3: loads a Qwen3 checkpoint from its raw files, quantizes it with one method, evaluates it, and prints one row of the
// tables of "An Empirical Study of Qwen3 Quantization" (arXiv 2505.02214) with the paper's own cells beside it.
//
// The program is one sweep over the layers. It never holds a whole model on the device and reads no layer twice (but for
// --learn-rotation, which has a sweep of its own before this one):
//
//     tokens of calibration and of every evaluation  ->  embed
//     for each layer:   load it  ->  quantize it from the calibration activations
//                                ->  push evaluation and (but for awq and smoothquant) calibration activations through the result
//     final norm  ->  head  ->  log-probabilities  ->  scores  ->  report
//
// Top to bottom: the kernels, one layer's forward pass, quantizing it, the head, and the run that puts them together. Beside this file are
// a model's tensors (weights.cuh), the streams that pass through it (streams.cuh), what fits into memory (plan.cuh), --save (saving.cuh)
// and the command line (options.h).
// Shapes are written in a small alphabet:
//     T tokens, C hidden_size, H heads, KV kv-heads, D head_dim, F intermediate_size, V vocabulary, L layers, E experts, of which
//     K are a token's, O x I a weight's output rows and input columns
#ifndef QWEN3_CU  // the tests include this file
#define QWEN3_CU
#include <functional>
#include <memory>
// defines: launch, Array, copy, floatX, block_sum ...: one kernel source for GPU and CPU
#include "cuda/device.cuh"
// defines: gemm, gemm_logits, hessian_add, gemm_float, multiply_adds / spin_briefly
#include "cuda/gemm.cuh"
#include "cuda/openmp.h"
// defines: Segment, AttentionPlan, attention_plan, attention
#include "cuda/attention.cuh"
// defines: Routing, route, gather_routed, add_routed: mixtures of experts
#include "cuda/experts.cuh"
// defines: Config, config_load, config_official: the model's shape
#include "data/config.h"
// defines: Clock, duration_text / Progress, Parts / project_file, model_name / write_whole_file
#include "data/clock.h"
#include "data/progress.h"
#include "data/paths.h"
#include "data/save.h"
// defines: read_token_ids
#include "data/token_ids.h"
// defines: Tokenizer, tokenizer_load, tokenizer_encode
#include "tokenizer/bpe.h"
// defines: Linear, Group, Layer, Quantizer, Method / print_modules, print_summary
#include "quant/quant.cuh"
#include "quant/log.h"
// defines: Rotation, rotate_layer, rotate_queries_and_keys ... / RotationSamples / rotation_for, rotation_load, rotation_save
#include "quant/rotation.cuh"
#include "quant/learn_rotation.cuh"
#include "rotate.h"
// defines: TextSet, wikitext2_set, c4_set, calibration_set, awq_calibration_set, perplexity
#include "eval/perplexity.h"
// defines: Target, Trie, trie_build / QuestionSet, choice_set, question_requests, question_result / mmlu_set, mmlu_parts
#include "eval/trie.h"
#include "eval/choice.h"
#include "eval/mmlu.h"
// defines: Report, report_text, report_json
#include "eval/report.h"
// defines: Options, options_parse, print_help, METHODS, method_for, task_list / method_settings, not_the_papers ...
#include "options.h"
#include "run_settings.h"
// defines: Model, Param, load_param, layer_params, layer_alloc, LayerReader: a model's tensors
#include "weights.cuh"
// defines: Chunk, Activations, Stream, stream_of_windows, stream_of_trie, stream_embed
#include "streams.cuh"
// defines: checkpoint_specs, require_tensors, save_param, save_layer, save_finish: --save
#include "saving.cuh"
// defines: head_batch, pair_room, working_bytes, place_streams: what fits where
#include "plan.cuh"

#ifndef COMMIT
#define COMMIT "unknown"
#endif

// ---------------------------------------------------------------------------------------------------------------------
// Kernels of the forward pass

// out[r] = x[rows ? rows[r] : r] / rms(x) * gain; one block a row.
KERNEL rmsnorm_kernel(floatX* out /*[n, C]*/, const floatX* x /*[T, C]*/, const int* rows /*[n] or null*/,
                      const floatX* gain /*[C]*/, int C, float eps) {
    const floatX* in = x + (size_t)(rows ? rows[blockIdx.x] : blockIdx.x) * C;
    floatX* to = out + (size_t)blockIdx.x * C;
    float sum = 0;
    for (int i = threadIdx.x; i < C; i += blockDim.x) sum += to_float(in[i]) * to_float(in[i]);
    const float scale = 1.0f / sqrtf(block_sum(sum) / C + eps);
    for (int i = threadIdx.x; i < C; i += blockDim.x) to[i] = to_floatX(to_float(in[i]) * scale * to_float(gain[i]));
}

// The same of x + rest, where a stream keeps what rounding left of its sums.
KERNEL rmsnorm_with_rest_kernel(floatX* out /*[T, C]*/, const floatX* x /*[T, C]*/, const floatX* rest /*[T, C]*/,
                                const floatX* gain /*[C]*/, int C, float eps) {
    const size_t row = (size_t)blockIdx.x * C;
    float sum = 0;
    for (int i = threadIdx.x; i < C; i += blockDim.x) {
        const float v = to_float(x[row + i]) + to_float(rest[row + i]);
        sum += v * v;
    }
    const float scale = 1.0f / sqrtf(block_sum(sum) / C + eps);
    for (int i = threadIdx.x; i < C; i += blockDim.x)
        out[row + i] = to_floatX((to_float(x[row + i]) + to_float(rest[row + i])) * scale * to_float(gain[i]));
}

KERNEL add_bias_kernel(floatX* y /*[T, O]*/, const floatX* bias /*[O]*/, int O) {
    floatX* row = y + (size_t)blockIdx.x * O;
    for (int i = threadIdx.x; i < O; i += blockDim.x) row[i] = to_floatX(to_float(row[i]) + to_float(bias[i]));
}

// Qwen3's norm over each q and k head (where the model has one), then the rotary embedding, which turns the pair (i, i + D/2) by
// the angle position / theta^(2i/D). One block a token and head; the v heads stay as they are.
KERNEL qk_norm_rotary_kernel(floatX* qkv /*[T, (H + 2 KV) D]*/, const floatX* q_norm /*[D]*/, const floatX* k_norm /*[D]*/,
                             const int* positions /*[T]*/, const float* cosines /*[P, D/2]*/, const float* sines /*[P, D/2]*/,
                             int H, int KV, int D, float eps) {
    const int t = blockIdx.x / (H + KV), head = blockIdx.x % (H + KV), half = D / 2;
    floatX* x = qkv + (size_t)t * (H + 2 * KV) * D + (size_t)head * D;
    const floatX* gain = head < H ? q_norm : k_norm;
    const float *c = cosines + (size_t)positions[t] * half, *s = sines + (size_t)positions[t] * half;
    float scale = 1;
    if (gain) {
        float sum = 0;
        for (int i = threadIdx.x; i < D; i += blockDim.x) sum += to_float(x[i]) * to_float(x[i]);
        scale = 1.0f / sqrtf(block_sum(sum) / D + eps);
    }
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        float a = to_float(x[i]) * scale, b = to_float(x[i + half]) * scale;
        if (gain) a *= to_float(gain[i]), b *= to_float(gain[i + half]);
        x[i] = to_floatX(a * c[i] - b * s[i]);
        x[i + half] = to_floatX(b * c[i] + a * s[i]);
    }
}

// out = silu(gate) * up, silu(g) = g / (1 + e^-g); one block a token.
KERNEL silu_mul_kernel(floatX* out /*[T, F]*/, const floatX* gate_up /*[T, 2F]*/, int F) {
    const floatX *gate = gate_up + (size_t)blockIdx.x * 2 * F, *up = gate + F;
    floatX* to = out + (size_t)blockIdx.x * F;
    for (int i = threadIdx.x; i < F; i += blockDim.x) {
        const float g = to_float(gate[i]);
        to[i] = to_floatX(g / (1.0f + exp_float(-g)) * to_float(up[i]));
    }
}

KERNEL add_kernel(floatX* x /*[T, C]*/, const floatX* y /*[T, C]*/, int C) {
    const size_t row = (size_t)blockIdx.x * C;
    for (int i = threadIdx.x; i < C; i += blockDim.x) x[row + i] = to_floatX(to_float(x[row + i]) + to_float(y[row + i]));
}

// x + rest + y, of which `rest` becomes what x can't hold.
KERNEL add_with_rest_kernel(floatX* x /*[T, C]*/, floatX* rest /*[T, C]*/, const floatX* y /*[T, C]*/, int C) {
    const size_t row = (size_t)blockIdx.x * C;
    for (int i = threadIdx.x; i < C; i += blockDim.x) {
        const float sum = to_float(x[row + i]) + to_float(rest[row + i]) + to_float(y[row + i]);
        x[row + i] = to_floatX(sum);
        rest[row + i] = to_floatX(sum - to_float(x[row + i]));
    }
}

// log(sum over the vocabulary of e^logit), one block a row.
KERNEL logsumexp_kernel(float* out /*[n]*/, const float* logits /*[n, V]*/, int V) {
    const float* row = logits + (size_t)blockIdx.x * V;
    float most = -INFINITY, sum = 0;
#pragma omp simd reduction(max : most)  // g++ takes a maximum in lanes only where it is told that the order does not matter
    for (int i = threadIdx.x; i < V; i += blockDim.x) most = row[i] > most ? row[i] : most;  // a NaN stays out, and is in the sum
    most = block_max(most);
    for (int i = threadIdx.x; i < V; i += blockDim.x) sum += exp_float(row[i] - most);
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = most + logf(sum);
}

// picked[k] = the logit of token[k] after row[k], logprobs[k] = its log-probability; one block for all n.
KERNEL pick_kernel(float* picked /*[n]*/, float* logprobs /*[n]*/, const float* logits /*[rows, V]*/,
                   const float* logsumexp /*[rows]*/, const int* row /*[n]*/, const int* token /*[n]*/, int n, int V) {
    for (int k = threadIdx.x; k < n; k += blockDim.x) {
        picked[k] = logits[(size_t)row[k] * V + token[k]];
        logprobs[k] = picked[k] - logsumexp[row[k]];
    }
}

// Logits as a model that computes in bf16 gives them; one block a row.
KERNEL round_logits_kernel(float* logits /*[n, V]*/, int V) {
    float* row = logits + (size_t)blockIdx.x * V;
    for (int i = threadIdx.x; i < V; i += blockDim.x) row[i] = to_float(to_bf16(row[i]));
}

// ---------------------------------------------------------------------------------------------------------------------
// One layer's forward pass

// Buffers for one chunk at a time.
struct Scratch {
    Array<floatX> x, x2;          // [chunk, C or 2 C]  x: the stream at hand, if it lives on the host or must stay as it is; x2: a
                                  // second one, or x as it came (fail_at_module)
    Array<floatX> in;             // [chunk, widest input]   input of a linear group
    Array<floatX> out;            // [chunk, widest output]  its product
    Array<floatX> routed;         // [chunk K, C]          inputs of experts, where there are some
    Array<float> cosines, sines;  // [positions, D/2]
};

// The angle by which pair i turns from one position to the next, in float as transformers computes it. Llama 3 divides the angles whose
// wavelength is beyond the original context by a factor, and leaves those of short ones; between the two it goes over smoothly.
inline float rope_inverse_frequency(const Config& c, int i) {
    const float frequency = 1.0f / powf(c.rope_theta, (float)(2 * i) / (float)c.D);
    const RopeScaling& r = c.rope;
    if (r.factor == 1) return frequency;
    const float turns = (float)r.original_positions * frequency / (float)(2 * M_PI);  // within the original context
    const float smooth = (turns - (float)r.low_freq_factor) / (float)(r.high_freq_factor - r.low_freq_factor);
    const float share = std::clamp(smooth, 0.0f, 1.0f);
    return (1 - share) * frequency / (float)r.factor + share * frequency;
}

inline Scratch scratch_alloc(const Config& c, const std::vector<Stream>& streams) {
    const size_t T = longest_chunk(streams);
    Scratch s;
    s.x = Array<floatX>(T * residual_width(c, streams), "residual scratch");
    s.x2 = Array<floatX>(T * residual_width(c, streams), "residual scratch");
    s.in = Array<floatX>(T * widest_input(c), "input scratch");
    s.out = Array<floatX>(T * widest_output(c), "output scratch");
    if (has_mixture(c)) s.routed = Array<floatX>(T * c.mixture.K * c.C, "experts' input scratch");
    int positions = 0;
    for (const Stream& stream : streams)
        for (const Segment& seg : stream.segments) positions = std::max(positions, seg.pos + seg.len);
    const int half = c.D / 2;
    std::vector<float> cosines((size_t)positions * half), sines((size_t)positions * half);
    for (int i = 0; i < half; i++) {
        const float inverse_frequency = rope_inverse_frequency(c, i);
        for (int p = 0; p < positions; p++) {
            const float angle = (float)p * inverse_frequency;
            cosines[(size_t)p * half + i] = cosf(angle), sines[(size_t)p * half + i] = sinf(angle);
        }
    }
    s.cosines = Array<float>(cosines.size(), "rotary table"), s.sines = Array<float>(sines.size(), "rotary table");
    copy(s.cosines.data, cosines.data(), cosines.size()), copy(s.sines.data, sines.data(), sines.size());
    return s;
}

// The rows of a stage's inputs and products that belong to a group.
struct Rows {
    size_t first;
    int n;
};

inline Rows group_rows(const Group& group, const Chunk& chunk) {
    if (group.expert < 0) return {0, chunk.T};
    const int* first = &chunk.routing.first[group.expert];
    return {(size_t)first[0], first[1] - first[0]};
}

// How many rows a stage's inputs have: one a token, or K a token where they are the experts' own.
inline int stage_rows(const Layer& layer, int stage, const Chunk& chunk) {
    return stage == 3 && layer.router ? chunk.T * chunk.routing.K : chunk.T;
}

// The inputs `in` of a stage as rows that lie together for each of its groups first .. end - 1. They do already, unless groups share a
// token.
inline floatX* grouped_inputs(const Layer& layer, int stage, floatX* in, const Chunk& chunk, Scratch& scratch, int first, int end) {
    if (stage != 2 || !layer.router) return in;
    const int zero = layer.first_group[2];
    gather_routed(chunk.routing, scratch.routed.data, in, layer.groups[zero].I, first - zero, end - zero);
    return scratch.routed.data;
}

// The products of a stage's groups, out [rows, O], from rows that lie together for each.
inline void group_products(const Layer& layer, int stage, floatX* out, floatX* in, const Chunk& chunk) {
    for (int i = layer.first_group[stage]; i < layer.first_group[stage + 1]; i++) {
        const Group& g = layer.groups[i];
        const Rows rows = group_rows(g, chunk);
        if (rows.n == 0) continue;
        floatX *X = in + rows.first * g.I, *Y = out + rows.first * g.O;
        flow_grid_apply(X, rows.n, g.I, g.I, g.grid);
        gemm(Y, X, g.W, rows.n, g.O, g.I);
        if (g.bias) launch(add_bias_kernel, rows.n, 256, Y, g.bias, g.O);
    }
}

// The same from the stage's inputs.
inline void stage_products(const Layer& layer, int stage, floatX* out, floatX* in, const Chunk& chunk, Scratch& scratch) {
    in = grouped_inputs(layer, stage, in, chunk, scratch, layer.first_group[stage], layer.first_group[stage + 1]);
    group_products(layer, stage, out, in, chunk);
}

// in [rows, F] = silu(gate) * up of out [rows, 2 F], the inputs of stage 3.
inline void gate_times_up(const Layer& layer, floatX* in, const floatX* out, const Chunk& chunk) {
    const int rows = stage_rows(layer, 3, chunk);
    const Group& down = layer.groups[layer.first_group[3]];
    launch(silu_mul_kernel, rows, 256, in, out, down.I);
    if (layer.rotation) rotate_down_input(in, rows, down, *layer.rotation);
}

// x += y; x is followed by its rests where the layer's rotation keeps them.
inline void add_to_stream(const Layer& layer, floatX* x /*[T, C]*/, const floatX* y /*[T, C]*/, int T, int C) {
    if (layer.rotation && layer.rotation->rest) launch(add_with_rest_kernel, T, 256, x, x + (size_t)T * C, y, C);
    else launch(add_kernel, T, 256, x, y, C);
}

// in = the norm of the stream.
inline void norm_of_stream(const Config& c, const Layer& layer, floatX* in /*[T, C]*/, const floatX* x, const floatX* gain, int T) {
    if (layer.rotation && layer.rotation->rest)
        launch(rmsnorm_with_rest_kernel, T, 256, in, x, x + (size_t)T * c.C, gain, c.C, c.eps);
    else launch(rmsnorm_kernel, T, 256, in, x, (const int*)nullptr, gain, c.C, c.eps);
}

// One stage of a layer on one chunk. Stage 0..3 ends with the inputs of its groups in `in`; the next begins with their products.
// Between the two a method collects and solves. Stage 4 is what remains, the products of stage 3.
//   x [T, C] is the residual stream; `in` the inputs of the previous stage's groups and then of this one's, [T, I], or [T K, I] where
//   they are the experts' own (stage 3).
inline void layer_stage(const Config& c, const Layer& layer, int stage, floatX* x, floatX* in, const Chunk& chunk,
                        Scratch& scratch) {
    const int T = chunk.T;
    floatX* out = scratch.out.data;
    if (stage > 0) stage_products(layer, stage - 1, out, in, chunk, scratch);
    switch (stage) {
    case 0: norm_of_stream(c, layer, in, x, layer.input_norm, T); break;
    case 1:
        launch(qk_norm_rotary_kernel, T * (c.H + c.KV), 64, out, layer.q_norm, layer.k_norm, chunk.positions.data,
               scratch.cosines.data, scratch.sines.data, c.H, c.KV, c.D, c.eps);
        if (layer.rotation) rotate_queries_and_keys(out, T, *layer.rotation);
        flow_grid_apply(out, T, qkv_rows(c), c.H * c.D, layer.q_grid);
        flow_grid_apply(out + c.H * c.D, T, qkv_rows(c), c.KV * c.D, layer.k_grid);
        flow_grid_apply(out + (c.H + c.KV) * c.D, T, qkv_rows(c), c.KV * c.D, layer.v_grid);
        attention(in, out, chunk.plan, T, c.H, c.KV, c.D, layer.p_bits);
        if (layer.rotation) rotate_o_input(in, T, *layer.rotation);
        break;
    case 2:
        add_to_stream(layer, x, out, T, c.C);
        norm_of_stream(c, layer, in, x, layer.post_norm, T);
        if (!layer.router) break;
        gemm(out, in, layer.router, T, c.mixture.E, c.C);
        route(chunk.routing, out, T, c.mixture.E, c.mixture.K, c.mixture.renormalize);
        break;
    case 3: gate_times_up(layer, in, out, chunk); break;
    case 4:
        if (layer.router) add_routed(chunk.routing, x, out, c.C);
        else add_to_stream(layer, x, out, T, c.C);
        break;
    }
}

// Goes through the layer once more, from x [T, C], to name the first module that meets a NaN or Inf.
[[noreturn]] inline void fail_at_module(const Config& c, const Layer& layer, floatX* x, const Chunk& chunk, const std::string& name,
                                        Scratch& scratch) {
    require_finite(x, chunk.T, c.C,
                   layer.index ? format("layer %d: its input for %s", layer.index, name.c_str())
                               : "model.embed_tokens.weight, rows for " + name);
    for (int stage = 0; stage < STAGES; stage++) {
        layer_stage(c, layer, stage, x, scratch.in.data, chunk, scratch);
        const int first = layer.first_group[stage], end = layer.first_group[stage + 1];
        floatX* in = grouped_inputs(layer, stage, scratch.in.data, chunk, scratch, first, end);
        for (int g = first; g < end; g++) {
            const Group& group = layer.groups[g];
            const Rows rows = group_rows(group, chunk);
            require_finite(in + rows.first * group.I, rows.n, group.I,
                           format("layer %d, %s: its input for %s", layer.index, group.name, name.c_str()));
        }
    }
    fail("layer %d, down: its output for %s holds NaN or Inf. HINT: check the checkpoint", layer.index, name.c_str());
}

// Pushes a stream through the layer, chunk by chunk. A NaN or Inf that comes out ends the run.
inline void layer_forward(const Config& c, const Layer& layer, Stream& s, Scratch& scratch) {
    for (const Chunk& chunk : s.chunks) {
        floatX* x = s.x.fetch(chunk, scratch.x.data);
        copy(scratch.x2.data, x, (size_t)chunk.T * s.x.width);  // kept for fail_at_module
        for (int stage = 0; stage <= STAGES; stage++) layer_stage(c, layer, stage, x, scratch.in.data, chunk, scratch);
        if (count_nonfinite(x, chunk.T, c.C)) fail_at_module(c, layer, scratch.x2.data, chunk, s.name, scratch);
        s.x.store(chunk, x);
    }
}

// Multiplies a stream by R1, or by its transpose. The embeddings of a stream that keeps rests still lie without gaps: its chunks are moved
// apart, the last one first.
inline void stream_rotate(Stream& s, const Rotation& rotation, bool inverse, Scratch& scratch) {
    const size_t C = rotation.shape.C;
    for (size_t i = s.chunks.size(); i-- > 0;) {
        const Chunk& chunk = s.chunks[i];
        const size_t n = chunk.T * C;
        const bool apart = s.rest && !inverse;
        if (apart) copy(scratch.x.data, s.x.data.data + chunk.start * C, n);
        floatX* x = apart ? scratch.x.data : s.x.fetch(chunk, scratch.x.data);
        rotate_stream_rows(x, chunk.T, rotation, inverse, nullptr, s.rest ? x + n : nullptr);
        if (apart) copy(s.x.data.data + chunk.start * s.x.width, x, chunk.T * (size_t)s.x.width);
        else s.x.store(chunk, x);
    }
}

// What a method may ask for while it judges a candidate: one module on the whole calibration stream.
struct ForwardContext {
    const Config& config;
    const Stream& calibration;
    Scratch& scratch;
};

// Stage 1 makes q, k and v from X and leaves o's inputs; it does not touch the residual stream, which is null here.
inline void attention_forward(Quantizer& q, const Layer& layer, const floatX* X /*[n, C]*/, floatX* out /*[n, C]*/) {
    const Config& c = q.forward->config;
    Scratch& scratch = q.forward->scratch;
    for (const Chunk& chunk : q.forward->calibration.chunks) {
        copy(scratch.in.data, X + chunk.start * c.C, (size_t)chunk.T * c.C);
        layer_stage(c, layer, 1, nullptr, scratch.in.data, chunk, scratch);
        stage_products(layer, 1, out + chunk.start * c.C, scratch.in.data, chunk, scratch);
    }
}

inline void mlp_forward(Quantizer& q, const Layer& layer, floatX* out /*[n, C]*/) {
    const Config& c = q.forward->config;
    Scratch& scratch = q.forward->scratch;
    for (const Chunk& chunk : q.forward->calibration.chunks) {
        // In place of a copy: a layer has no grids of activations while it is calibrated in full precision, so its inputs stay as they are.
        group_products(layer, 2, scratch.out.data, q.inputs[2].data + chunk.start * layer.K * c.C, chunk);
        gate_times_up(layer, scratch.in.data, scratch.out.data, chunk);
        floatX* to = out + chunk.start * c.C;
        if (!layer.router) {
            stage_products(layer, 3, to, scratch.in.data, chunk, scratch);
            continue;
        }
        stage_products(layer, 3, scratch.out.data, scratch.in.data, chunk, scratch);
        fill_zero(to, (size_t)chunk.T * c.C);
        add_routed(chunk.routing, to, scratch.out.data, c.C);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Quantizing one layer from the calibration stream, and pushing that stream through the result

// Shows the method the experts' groups first .. end - 1 on all tokens of a chunk, wherever their router sends them. An expert's inputs
// of stage 3 are those that it would make of them.
inline void stage_collect_all(const Config& c, const Method& method, Quantizer& q, const Layer& layer, int stage, const floatX* x,
                              const floatX* in, const Chunk& chunk, Scratch& scratch, int first, int end) {
    const int T = chunk.T, F = c.mixture.F;
    Array<floatX> normed, own;
    if (stage == 3) {
        normed = Array<floatX>((size_t)T * c.C, "inputs of all experts"), own = Array<floatX>((size_t)T * F, "inputs of an expert");
        launch(rmsnorm_kernel, T, 256, normed.data, x, (const int*)nullptr, layer.post_norm, c.C, c.eps);
    }
    for (int g = first; g < end; g++) {
        if (stage == 3) {
            const Group& before = layer.groups[layer.first_group[2] + g - layer.first_group[3]];
            gemm(scratch.out.data, normed.data, before.W, T, before.O, before.I);
            launch(silu_mul_kernel, T, 256, own.data, scratch.out.data, F);
            if (layer.rotation) rotate_down_input(own.data, T, layer.groups[g], *layer.rotation);
        }
        method.collect(q, layer.groups[g], g, stage == 3 ? own.data : in, T);
        q.n_tokens[g] += (size_t)T;
    }
}

// Shows the method what reaches the groups first .. end - 1 of a stage, whose inputs are `in`; x is the residual stream.
inline void stage_collect(const Config& c, const Method& method, Quantizer& q, const Layer& layer, int stage, const floatX* x,
                          floatX* in, const Chunk& chunk, Scratch& scratch, int first, int end) {
    if (q.opt.all_experts && layer.groups[first].expert >= 0)
        return stage_collect_all(c, method, q, layer, stage, x, in, chunk, scratch, first, end);
    in = grouped_inputs(layer, stage, in, chunk, scratch, first, end);
    std::vector<std::vector<int>> first_rows;  // of experts
    if (q.opt.first_token_weight != 1 && layer.groups[first].expert >= 0)
        first_rows = rows_of_first_tokens(chunk.routing, q.sample_length);
    for (int g = first; g < end; g++) {
        const Group& group = layer.groups[g];
        const Rows rows = group_rows(group, chunk);
        q.first_rows = first_rows.empty() ? nullptr : &first_rows[group.expert];
        if (rows.n > 0) method.collect(q, group, g, in + rows.first * group.I, rows.n);
        q.n_tokens[g] += (size_t)rows.n;
    }
    q.first_rows = nullptr;
}

// An expert that too few tokens reach is solved with a Hessian that tells nothing, which but for BiLLM amounts to rounding to nearest.
inline void solve_group(const Method& method, Quantizer& q, Layer& layer, int g) {
    const bool starved = method.collect && group_starves(q, layer.groups[g], g);
    if (starved) q.hessian[g] = white_hessian(layer.groups[g].I);
    const size_t first = q.reports.size();
    method.solve_group(q, layer, g);
    for (size_t i = first; i < q.reports.size(); i++) {
        q.reports[i].group = g;
        if (!starved) continue;
        q.reports[i].error_kind = "weight", q.reports[i].starved = true;
        const bool rounded = std::string(method.name) != "billm";
        q.reports[i].note = format("%zu tokens: %s", q.n_tokens[g], rounded ? "rounded to nearest" : "binarized by its weights alone");
    }
}

// Each group is solved from inputs that passed through the stages before it, as they are after quantization. The inputs of the
// current stage are kept for the whole stream, so that nothing is computed twice: one forward pass a layer in all. Where memory does
// not hold what is collected for all groups of a stage (of experts), the first ones are collected while the stage is computed, and the
// others some at a time.
inline void quantize_sequential(const Config& c, Layer& layer, const Method& method, Quantizer& q, Stream& s, Scratch& scratch) {
    if (q.opt.a_in_calibration) layer_set_cache_grids(layer, q.opt, c.D, true);
    for (int stage = 0; stage <= STAGES; stage++) {
        const int stage_end = stage < STAGES ? layer.first_group[stage + 1] : 0;
        int first = stage < STAGES ? layer.first_group[stage] : 0, end = first + std::min(q.opt.groups_at_once, stage_end - first);
        for (const Chunk& chunk : s.chunks) {
            floatX* x = s.x.fetch(chunk, scratch.x.data);
            floatX* in = s.in.fetch(chunk, scratch.in.data);  // [rows, I], I the stage's own, in a place that fits the widest
            layer_stage(c, layer, stage, x, in, chunk, scratch);
            if (stage < STAGES) {
                if (q.opt.a_in_calibration) quantize_inputs(layer, stage, q.opt, c.D, in, stage_rows(layer, stage, chunk));
                stage_collect(c, method, q, layer, stage, x, in, chunk, scratch, first, end);
            }
            s.in.store(chunk, in);
            s.x.store(chunk, x);
        }
        for (; first < stage_end; first = end, end += std::min(q.opt.groups_at_once, stage_end - end)) {
            if (first > layer.first_group[stage])
                for (const Chunk& chunk : s.chunks)
                    stage_collect(c, method, q, layer, stage, s.x.fetch(chunk, scratch.x.data), s.in.fetch(chunk, scratch.in.data), chunk,
                                  scratch, first, end);
            for (int g = first; g < end; g++) solve_group(method, q, layer, g);
        }
    }
}

// The x~ that is paired with x's inputs of a stage: in_full, or in a mixture, from stage 2 on, rows in the order of x's routing (chunk's),
// made in room [T K, max(C, F)]: for gate and up x~'s inputs of those tokens, for down what the original expert makes of them.
inline floatX* paired_inputs(const Config& c, const Layer& original, int stage, const floatX* x_full, floatX* in_full, const Chunk& chunk,
                             Scratch& scratch, floatX* room) {
    if (stage < 2 || !original.router) return in_full;
    launch(rmsnorm_kernel, stage_rows(original, 3, chunk), 256, room, x_full, (const int*)chunk.routing.tokens.data, original.post_norm,
           c.C, c.eps);
    if (stage == 2) return room;
    group_products(original, 2, scratch.out.data, room, chunk);
    gate_times_up(original, room, scratch.out.data, chunk);
    return room;
}

// stage_collect of both streams; original is the layer as it was, x_full and in_full are the full-precision model's.
inline void stage_collect_pair(const Config& c, const Method& method, Quantizer& q, const Layer& layer, const Layer& original, int stage,
                               floatX* in, const floatX* x_full, floatX* in_full, const Chunk& chunk, Scratch& scratch, floatX* room,
                               int first, int end) {
    in = grouped_inputs(layer, stage, in, chunk, scratch, first, end);
    in_full = paired_inputs(c, original, stage, x_full, in_full, chunk, scratch, room);
    for (int g = first; g < end; g++) {
        const Group& group = layer.groups[g];
        const Rows rows = group_rows(group, chunk);
        const size_t at = rows.first * group.I;
        if (rows.n > 0) method.collect_pair(q, group, g, in + at, in_full + at, rows.n);
        q.n_tokens[g] += (size_t)rows.n;
    }
}

// Two streams of the same tokens, for methods that ask how far x has come from the full-precision model. x goes as above, and x~ beside
// it, stage by stage, through the layer as it was and where its own router sends it, so that both inputs of a group are there when it is
// collected.
inline void quantize_paired(const Config& c, Layer& layer, const Method& method, Quantizer& q, Stream& s, Stream& full,
                            Scratch& scratch) {
    const Layer original = layer_copy(c, layer);
    if (q.opt.a_in_calibration) layer_set_cache_grids(layer, q.opt, c.D, true);  // not the original's
    Array<floatX> in_scratch, room;
    if (full.in.data.place == Place::Host) in_scratch = Array<floatX>(scratch.in.n, "input scratch of a pair");
    if (layer.router) room = Array<floatX>(pair_room(c) * (scratch.x.n / c.C), "experts' inputs of a pair");
    for (int stage = 0; stage <= STAGES; stage++) {
        const int stage_end = stage < STAGES ? layer.first_group[stage + 1] : 0;
        int first = stage < STAGES ? layer.first_group[stage] : 0, end = first + std::min(q.opt.groups_at_once, stage_end - first);
        for (size_t i = 0; i < s.chunks.size(); i++) {
            const Chunk &chunk = s.chunks[i], &chunk_full = full.chunks[i];  // the same tokens, each with its own routing
            floatX *x = s.x.fetch(chunk, scratch.x.data), *x_full = full.x.fetch(chunk, scratch.x2.data);
            floatX *in = s.in.fetch(chunk, scratch.in.data), *in_full = full.in.fetch(chunk, in_scratch.data);
            layer_stage(c, original, stage, x_full, in_full, chunk_full, scratch);
            layer_stage(c, layer, stage, x, in, chunk, scratch);
            if (stage < STAGES) {
                if (q.opt.a_in_calibration) quantize_inputs(layer, stage, q.opt, c.D, in, stage_rows(layer, stage, chunk));
                stage_collect_pair(c, method, q, layer, original, stage, in, x_full, in_full, chunk, scratch, room.data, first, end);
            }
            s.in.store(chunk, in), full.in.store(chunk, in_full);
            s.x.store(chunk, x), full.x.store(chunk, x_full);
        }
        for (; first < stage_end; first = end, end += std::min(q.opt.groups_at_once, stage_end - end)) {
            if (first > layer.first_group[stage])
                for (const Chunk& chunk : s.chunks)
                    stage_collect_pair(c, method, q, layer, original, stage, s.in.fetch(chunk, scratch.in.data),
                                       full.x.fetch(chunk, scratch.x2.data), nullptr, chunk, scratch, room.data, first, end);
            for (int g = first; g < end; g++) solve_group(method, q, layer, g);
        }
    }
    q.difference.clear();
}

inline void solve_all(const Method& method, Quantizer& q, Layer& layer) {
    if (method.solve_layer) method.solve_layer(q, layer);
    for (int g = 0; method.solve_group && g < (int)layer.groups.size(); g++) solve_group(method, q, layer, g);
}

// All groups are solved from one pass through the unquantized layer, whose outputs the stream keeps: the next layer too sees full
// precision.
inline void quantize_full_precision(const Config& c, Layer& layer, const Method& method, Quantizer& q, Stream& s, Scratch& scratch) {
    for (const Chunk& chunk : s.chunks) {
        floatX* x = s.x.fetch(chunk, scratch.x.data);
        for (int stage = 0; stage <= STAGES; stage++) {
            layer_stage(c, layer, stage, x, scratch.in.data, chunk, scratch);
            if (stage < STAGES)
                stage_collect(c, method, q, layer, stage, x, scratch.in.data, chunk, scratch, layer.first_group[stage],
                              layer.first_group[stage + 1]);
        }
        s.x.store(chunk, x);
    }
    solve_all(method, q, layer);
}

// All groups are solved from one pass through the unquantized layer, and the stream then goes through the quantized one. Where memory does
// not hold what is collected for all experts, there is a pass for some of them at a time: no expert's inputs depend on another's weights,
// and the groups before them are solved last.
inline void quantize_layerwise(const Config& c, Layer& layer, const Method& method, Quantizer& q, Stream& s, Scratch& scratch) {
    const int all = layer.first_group[STAGES] - layer.first_group[STAGES - 1];  // experts, or 1
    const size_t first_report = q.reports.size();
    if (method.collect_heads) layer.p_bits = q.opt.p_bits;  // the one grid that needs no calibration, and is there in it
    for (int done = 0, next; done < all; done = next) {
        next = done + std::min(q.opt.groups_at_once, all - done);
        int first[STAGES], end[STAGES];
        for (int stage = 0; stage < STAGES; stage++) {
            const int begin = layer.first_group[stage], n = layer.first_group[stage + 1] - begin;
            first[stage] = begin + (n == all ? done : 0), end[stage] = begin + (n == all ? next : next == all ? n : 0);
        }
        for (const Chunk& chunk : s.chunks) {
            const floatX* from = s.x.fetch(chunk, scratch.x.data);
            floatX* x = scratch.x.data;  // stages change x, and this pass must leave the stream as it was
            if (from != x) copy(x, from, (size_t)chunk.T * s.x.width);
            for (int stage = 0; stage < STAGES; stage++) {
                layer_stage(c, layer, stage, x, scratch.in.data, chunk, scratch);
                if (first[stage] < end[stage])
                    stage_collect(c, method, q, layer, stage, x, scratch.in.data, chunk, scratch, first[stage], end[stage]);
                if (stage == 1 && method.collect_heads) method.collect_heads(q, layer, scratch.out.data, chunk.T);
            }
        }
        for (int stage = 0; stage < STAGES; stage++)
            for (int g = first[stage]; g < end[stage]; g++) solve_group(method, q, layer, g);
    }
    std::stable_sort(q.reports.begin() + first_report, q.reports.end(),
                     [](const ModuleReport& a, const ModuleReport& b) { return a.group < b.group; });
    layer_forward(c, layer, s, scratch);
}

// `calibration`: the stream, a pair's two streams one after the other, or null.
inline void quantize_layer(const Config& c, Layer& layer, const Method& method, Quantizer& q, Stream* calibration,
                           Scratch& scratch) {
    quantizer_expect(q, layer);
    if (method.order == Order::NONE) return;
    if (method.order == Order::WEIGHTS) solve_all(method, q, layer);
    else if (method.order == Order::SEQUENTIAL) quantize_sequential(c, layer, method, q, *calibration, scratch);
    else if (method.order == Order::PAIRED) quantize_paired(c, layer, method, q, calibration[0], calibration[1], scratch);
    else if (method.order == Order::LAYERWISE) quantize_layerwise(c, layer, method, q, *calibration, scratch);
    else quantize_full_precision(c, layer, method, q, *calibration, scratch);
    if (q.opt.a_in_calibration) layer_set_cache_grids(layer, q.opt, c.D, false);
}

// ---------------------------------------------------------------------------------------------------------------------
// The head: log-probabilities, or the logits themselves

struct Head {
    Array<floatX> norm;                        // [C]
    Array<floatX> W;                           // [V, C]
    Array<floatX> normed;                      // [batch, C]
    Array<float> logits;                       // [batch, V]: never more than a batch of rows
    Array<float> logsumexp;                    // [batch]
    Array<float> full_logits, full_logsumexp;  // the same of the full-precision model, for --kl
    int batch;
};

inline Head head_load(const Model& m) {
    const Config& c = m.config;
    Head head;
    head.batch = head_batch(c);
    head.norm = Array<floatX>(c.C, "final norm");
    head.W = Array<floatX>((size_t)c.V * c.C, "head");
    head.normed = Array<floatX>((size_t)head.batch * c.C, "head input");
    head.logits = Array<float>((size_t)head.batch * c.V, "logits");
    head.logsumexp = Array<float>(head.batch, "log-sum-exp");
    load_param(m, {"model.norm.weight", {(size_t)c.C}, head.norm.data});
    load_param(m, {head_name(c), {(size_t)c.V, (size_t)c.C}, head.W.data});
    return head;
}

// head.logits [n, V] = the logits after the given rows of a chunk whose residual stream is x [T, C].
inline void head_logits(const Config& c, Head& head, const floatX* x, const std::vector<int>& rows) {
    Array<int> rows_d(rows.size(), "rows");
    copy(rows_d.data, rows.data(), rows.size());
    const int n = (int)rows.size();
    launch(rmsnorm_kernel, n, 256, head.normed.data, x, (const int*)rows_d.data, head.norm.data, c.C, c.eps);
    gemm_logits(head.logits.data, head.normed.data, head.W.data, n, c.V, c.C);
}

// kl[r] = sum over the vocabulary of p (log p - log q), p of the full-precision model; same[r] = 1 where both prefer one token.
// One block a row.
KERNEL divergence_kernel(float* kl /*[n]*/, float* same /*[n]*/, const float* logits /*[n, V]*/, const float* logsumexp /*[n]*/,
                         const float* full_logits /*[n, V]*/, const float* full_logsumexp /*[n]*/, int V) {
    const float *q = logits + (size_t)blockIdx.x * V, *p = full_logits + (size_t)blockIdx.x * V;
    const float q_norm = logsumexp[blockIdx.x], p_norm = full_logsumexp[blockIdx.x];
    float sum = 0, p_most = -INFINITY, q_most = -INFINITY;
    for (int i = threadIdx.x; i < V; i += blockDim.x) {
        const float log_p = p[i] - p_norm;
        sum += exp_float(log_p) * (log_p - (q[i] - q_norm));
        p_most = p[i] > p_most ? p[i] : p_most;
        q_most = q[i] > q_most ? q[i] : q_most;
    }
    sum = block_sum(sum), p_most = block_max(p_most), q_most = block_max(q_most);
    float p_first = (float)V, q_first = (float)V;  // the first token with the largest logit; V < 2^24 is exact
    for (int i = threadIdx.x; i < V; i += blockDim.x) {
        if (p[i] == p_most && (float)i < p_first) p_first = (float)i;
        if (q[i] == q_most && (float)i < q_first) q_first = (float)i;
    }
    p_first = block_min(p_first), q_first = block_min(q_first);
    if (threadIdx.x == 0) kl[blockIdx.x] = sum, same[blockIdx.x] = p_first == q_first ? 1 : 0;
}

// Compares the rows in `head` with those of the full-precision stream, whose residual stream is x [T, C].
inline void head_divergence(const Config& c, Head& head, const floatX* x, const std::vector<int>& rows, Stream& s) {
    const unsigned n = (unsigned)rows.size();
    if (head.full_logits.n == 0) {
        head.full_logits = Array<float>((size_t)head.batch * c.V, "full-precision logits");
        head.full_logsumexp = Array<float>(head.batch, "full-precision log-sum-exp");
    }
    head.logits.swap(head.full_logits);
    head_logits(c, head, x, rows);
    head.logits.swap(head.full_logits);
    launch(logsumexp_kernel, n, 1024, head.full_logsumexp.data, head.full_logits.data, c.V);
    Array<float> kl(n, "divergences"), same(n, "agreements");
    launch(divergence_kernel, n, 1024, kl.data, same.data, head.logits.data, head.logsumexp.data, head.full_logits.data,
           head.full_logsumexp.data, c.V);
    const size_t at = s.kl.size();
    s.kl.resize(at + n), s.same_top.resize(at + n);
    copy(s.kl.data() + at, kl.data, n), copy(s.same_top.data() + at, same.data, n);
}

// Fills s.logits and s.logprobs. Several targets may share a row, whose logits are then computed once. `full`, if not null, is the same
// stream through the full-precision model: s.kl and s.same_top are filled as well, one value a row.
inline void stream_score(const Config& c, Head& head, Stream& s, Stream* full, Scratch& scratch, const char* progress) {
    s.logits.assign(s.targets.size(), 0), s.logprobs.assign(s.targets.size(), 0);
    size_t k = 0;
    Clock clock, shown;
    for (const Chunk& chunk : s.chunks) {
        const floatX* x = s.x.fetch(chunk, scratch.x.data);
        while (k < s.targets.size() && s.targets[k].row < chunk.start + chunk.T) {
            const size_t first = k;
            std::vector<int> rows, row_of_target, tokens;
            for (; k < s.targets.size() && s.targets[k].row < chunk.start + chunk.T; k++) {
                const int row = (int)(s.targets[k].row - chunk.start);
                if (rows.empty() || rows.back() != row) {
                    if ((int)rows.size() == head.batch) break;
                    rows.push_back(row);
                }
                row_of_target.push_back((int)rows.size() - 1);
                tokens.push_back(s.targets[k].token);
            }
            const int n = (int)tokens.size();
            head_logits(c, head, x, rows);
            Array<int> row_d(n, "target rows"), token_d(n, "target tokens");
            Array<float> picked(n, "logits"), logprobs(n, "log-probabilities");
            copy(row_d.data, row_of_target.data(), n), copy(token_d.data, tokens.data(), n);
            if (s.bf16_logits) launch(round_logits_kernel, (unsigned)rows.size(), 1024, head.logits.data, c.V);
            launch(logsumexp_kernel, (unsigned)rows.size(), 1024, head.logsumexp.data, head.logits.data, c.V);
            launch(pick_kernel, 1, 256, picked.data, logprobs.data, head.logits.data, head.logsumexp.data, row_d.data, token_d.data,
                   n, c.V);
            copy(s.logits.data() + first, picked.data, n), copy(s.logprobs.data() + first, logprobs.data, n);
            for (size_t i = first; i < k; i++)
                if (!std::isfinite(s.logprobs[i]))
                    fail("head: the log-probability of token %zu of %s is NaN or Inf. HINT: check model.norm.weight and %s",
                         s.targets[i].row + 1, s.name.c_str(), head_name(c));
            if (full) head_divergence(c, head, full->x.fetch(chunk, scratch.x2.data), rows, s);
            if (progress && shown.seconds() > 10) {
                const double done = (double)k / s.targets.size();
                fprintf(stderr, "%s: head %3.0f %%, ETA %s\n", progress, 100 * done,
                        duration_text(clock.seconds() / done * (1 - done)).c_str());
                shown = Clock();
            }
        }
    }
}

// Writes the logits after every token, float32 [T, V], raw.
inline void stream_write_logits(const Config& c, Head& head, Stream& s, Scratch& scratch, FILE* out) {
    std::vector<float> host((size_t)head.batch * c.V);
    for (const Chunk& chunk : s.chunks) {
        const floatX* x = s.x.fetch(chunk, scratch.x.data);
        for (int start = 0; start < chunk.T; start += head.batch) {
            std::vector<int> rows;
            for (int t = start; t < std::min(chunk.T, start + head.batch); t++) rows.push_back(t);
            head_logits(c, head, x, rows);
            const size_t n = rows.size() * c.V;
            copy(host.data(), head.logits.data, n);
            if (fwrite(host.data(), sizeof(float), n, out) != n)
                fail("standard output: the logits could not be written: %s", strerror(errno));
        }
    }
    if (fflush(out) != 0) fail("standard output: the logits could not be written: %s", strerror(errno));
}

// ---------------------------------------------------------------------------------------------------------------------
// A run

// Where the model that the options name is; nothing is read yet.
inline Model model_find(const Options& o) {
    Model m;
    m.seed = (uint64_t)o.seed;
    if (o.model.rfind("random:", 0) == 0) {
        m.name = o.model;
        m.random = true;
        m.config = config_official(o.model.substr(7));
        return m;
    }
    if (o.model.empty()) {
        m.dir = project_file("models/Qwen3-0.6B-Base");
        m.stand_in = !file_exists(m.dir + "/config.json");  // a download that never began leaves an empty folder
        if (m.stand_in) m.dir = project_file("data/tiny");
    } else {
        m.dir = is_directory(o.model) ? o.model : project_file("models/" + o.model);
        if (!is_directory(m.dir)) {
            const bool file = file_exists(o.model);
            const std::string format = file ? checkpoint_format_found(o.model) : "";
            const std::string name = o.model.substr(o.model.rfind('/') + 1);  // of ORGANIZATION/NAME, as Hugging Face has it
            const bool here = !name.empty() && is_directory(project_file("models/" + name));
            const std::string hint = file                 ? "-m takes a folder with config.json and safetensors files"
                                     : here               ? "-m " + name
                                     : download_has(name) ? "scripts/download.sh " + name + (name == o.model ? "" : ", then -m " + name)
                                                          : "scripts/download.sh -h lists the models it can get";
            fail("%s: expected a checkpoint folder here or under models/, found %s%s%s. HINT: %s", o.model.c_str(),
                 file ? "a file" : "none", format.empty() ? "" : ", ", format.c_str(), hint.c_str());
        }
    }
    while (m.dir.size() > 1 && m.dir.back() == '/') m.dir.pop_back();
    m.name = m.stand_in ? "tiny" : model_name(m.dir);
    return m;
}

// Whether two tensors of the same shape hold the same values.
inline bool same_values(const TensorView& a, const TensorView& b) {
    const size_t n = tensor_size(a), piece = 1 << 20;
    std::vector<float> x(piece), y(piece);
    for (size_t first = 0; first < n; first += piece) {
        const size_t now = std::min(piece, n - first);
        tensor_to_f32(a, first, now, x.data()), tensor_to_f32(b, first, now, y.data());
        if (memcmp(x.data(), y.data(), now * sizeof(float)) != 0) return false;
    }
    return true;
}

// Experts are read one by one, as transformers' files hold them, and not as it holds them in memory, one tensor for all.
inline void refuse_fused_experts(const Model& m) {
    for (int l = 0; l < m.config.L; l++)
        for (const char* name : {"gate_up_proj", "down_proj"}) {
            const std::string fused = format("model.layers.%d.mlp.experts.%s", l, name);
            if (is_mixture(m.config, l) && checkpoint_find(m.checkpoint, fused))
                fail("%s: %s holds all experts in one tensor, which is not supported. HINT: transformers' save_pretrained writes each "
                     "expert's gate_proj, up_proj and down_proj", m.dir.c_str(), fused.c_str());
        }
}

// A folder without config.json is perhaps another kind of model's.
inline void require_hub_folder(const std::string& dir) {
    if (file_exists(dir + "/config.json")) return;
    if (is_directory(dir + "/snapshots"))
        fail("%s: expected a model's folder, found the hub's cache of one. HINT: -m %s/snapshots/HASH", dir.c_str(), dir.c_str());
    const std::string found = checkpoint_format_found(dir);
    if (!found.empty() && !file_exists(dir + "/model.safetensors"))
        fail("%s: expected config.json and model.safetensors, found %s. HINT: get or save the model as safetensors", dir.c_str(), found.c_str());
}

// The model with its shape and its tensors' places; what is noteworthy of them goes to `notes`.
inline Model model_open(const Options& o, std::vector<std::string>* notes = nullptr) {
    Model m = model_find(o);
    if (m.random) return m;
    require_hub_folder(m.dir);
    m.config = config_load(m.dir + "/config.json");
    m.quantization = quantization_format(json_parse_file(m.dir + "/config.json", limit_line), m.dir + "/config.json");
    m.checkpoint = checkpoint_open(m.dir);
    refuse_fused_experts(m);
    if (notes && file_exists(m.dir + "/adapter_model.safetensors")) notes->push_back("adapter_model.safetensors, an adapter (LoRA), is left unread");
    Config& c = m.config;
    const TensorView* head = c.tied ? checkpoint_find(m.checkpoint, "lm_head.weight") : nullptr;
    if (!head) return m;
    const std::vector<size_t> shape = {(size_t)c.V, (size_t)c.C};
    const TensorView& embedding = checkpoint_get(m.checkpoint, "model.embed_tokens.weight", shape);
    if (head->shape == shape && same_values(*head, embedding)) return m;
    c.tied = false;  // as transformers 5 does; an equal head is not needed twice
    if (notes) notes->push_back("config.json ties the head to the embedding, but lm_head.weight holds other values, which are used");
    return m;
}

inline std::string data_folder(const Options& o, const Model& m) {
    const char* env = getenv("QWEN3_DATA");
    if (!o.data.empty()) return o.data;
    if (m.stand_in) return m.dir;
    return env && *env ? env : project_file("data");
}

// The model's own tokenizer; for random weights, the one among the data.
inline Tokenizer model_tokenizer(const Model& m, const std::string& data_dir) {
    return tokenizer_load(m.random ? data_dir + "/qwen3-tokenizer" : m.dir);
}

// The widths of the model's rows, and whose they are.
inline std::vector<std::pair<const char*, int>> row_widths(const Config& c) {
    std::vector<std::pair<const char*, int>> widths = {{"hidden_size (q, k, v, gate, up)", c.C}, {"heads * head_dim (o)", c.H * c.D}};
    if (has_dense(c)) widths.push_back({"intermediate_size (down)", c.F});
    if (has_mixture(c)) widths.push_back({"moe_intermediate_size (experts' down)", c.mixture.F});
    return widths;
}

// For groups that must all be of one width; -1: what `whole` says.
inline void check_group_size(const Config& c, const char* flag, int group_size, const char* whole) {
    if (group_size == -1) return;
    int common = 0;
    for (const auto& w : row_widths(c)) common = std::gcd(common, w.second);
    std::string divisors;
    for (int d = 16; d <= std::min(common, 1024); d++)
        if (common % d == 0) divisors += format("%d, ", d);
    for (const auto& w : row_widths(c))
        if (w.second % group_size != 0)
            usage_fail("%s %d: expected a divisor of the model's %s = %d. HINT: %s %sor -1 for a whole %s", flag, group_size, w.first,
                       w.second, flag, divisors.c_str(), whole);
}

// Whose rows' last group is narrower than the others, in words; empty if nobody's.
inline std::string narrower_groups(const Config& c, const QuantOptions& q) {
    std::string text;
    for (const auto& w : row_widths(c))
        if (q.group_size != -1 && w.second > q.group_size && w.second % q.group_size != 0)
            text += format("%s%d of %d columns of %s", text.empty() ? "a row's last group is narrower: " : ", ",
                           w.second % q.group_size, w.second, w.first);
    return text;
}

// A set of questions, and where the trie of its requests has the log-probabilities of each.
struct Exam {
    QuestionSet set;
    Trie trie;
};

struct Run {
    Options options;
    Model model;
    Method method;
    std::vector<Stream> streams;  // calibration first, where the method needs it, or a pair; then one a text set and one an exam, or with
                                  // --logits the given tokens; then, with --kl, one a text set that goes through the full-precision model
    std::vector<TextSet> sets;
    std::vector<Exam> exams;
    size_t calibrated() const { return !method.collect ? 0 : method.order == Order::PAIRED ? 2 : 1; }  // streams
    size_t first_full() const { return options.kl ? calibrated() + sets.size() + exams.size() : streams.size(); }
    Quantizer quantizer;
    Rotation rotation;  // with --rotate, of all streams but the full-precision model's
    bool saves_rotated() const { return options.rotate && rotation.has.r1; }
    QuantFormat packed;  // of --save; kind NONE: weights as they are
    Report report;
};

// What the head will cost, as a multiple of what one layer costs the streams that are evaluated.
inline double head_in_layers(const Run& run) {
    const Config& c = run.model.config;
    double tokens = 0, rows = 0;
    for (size_t s = run.calibrated(); s < run.streams.size(); s++) {
        const std::vector<Target>& targets = run.streams[s].targets;
        tokens += (double)run.streams[s].tokens.size();
        for (size_t k = 0; k < targets.size(); k++) rows += k == 0 || targets[k].row != targets[k - 1].row;
    }
    return tokens > 0 ? rows * c.V * c.C * c.L / (tokens * layers_size(c, c.mixture.K)) : 0;
}

// How many tokens of the streams first .. end - 1 each expert of a mixture was given.
inline std::vector<size_t> tokens_of_experts(const Layer& layer, const std::vector<Stream>& streams, size_t first, size_t end) {
    std::vector<size_t> tokens(router_rows(layer), 0);
    for (size_t s = first; s < end; s++)
        for (const Chunk& chunk : streams[s].chunks)
            for (size_t e = 0; e < tokens.size(); e++) tokens[e] += chunk.routing.first[e + 1] - chunk.routing.first[e];
    return tokens;
}

// Adds the tokens of a stream that go to other experts than they do in the full-precision model.
inline void count_other_experts(const Stream& s, const Stream& full, ExpertReport& r) {
    for (size_t i = 0; i < s.chunks.size(); i++) {
        const Routing &a = s.chunks[i].routing, &b = full.chunks[i].routing;
        std::vector<int> of_a(a.experts.n), of_b(b.experts.n);
        copy(of_a.data(), a.experts.data, a.experts.n), copy(of_b.data(), b.experts.data, b.experts.n);
        for (int t = 0; t < a.T; t++) r.moved += !std::equal(&of_a[(size_t)t * a.K], &of_a[(size_t)t * a.K] + a.K, &of_b[(size_t)t * a.K]);
        r.compared += (size_t)a.T;
    }
}

// A step of --save. If it fails, the row is not lost with it: the failure is said now, and is the run's behind the row.
inline bool save_step(Report& r, const std::function<void()>& step) {
    try {
        step();
        return true;
    } catch (const std::bad_alloc&) {
        r.save_error = "--save: an allocation of host memory failed. HINT: a smaller model, or a higher limit (ulimit -v)";
    } catch (const std::runtime_error& e) {
        r.save_error = e.what();
    }
    fprintf(stderr, "not saved: %s\n", r.save_error.c_str());
    return false;
}

// The sweep: every stream through every layer, each layer quantized on the way.
inline void sweep(Run& run, Scratch& scratch, CheckpointWriter* writer) {
    const Config& c = run.model.config;
    Layer layer = layer_alloc(c);
    LayerReader reader(run.model);
    reader.start(0);
    Clock clock;
    Progress progress(c.L, multiply_adds());
    double evaluated = 0;  // seconds
    for (int l = 0; l < c.L; l++) {
        Clock load;
        reader.finish(layer, l), layer.rotation = nullptr;
        device_wait();
        reader.start(l + 1);
        const double load_seconds = load.seconds();
        run.report.seconds_load += load_seconds;

        Clock full;
        for (size_t s = run.first_full(); s < run.streams.size(); s++) layer_forward(c, layer, run.streams[s], scratch);
        device_wait();
        const double full_seconds = full.seconds();

        Clock quantize;
        if (run.options.rotate)
            rotation_draw_r2(run.rotation, l), rotate_layer(layer, run.rotation), layer.rotation = &run.rotation;
        const size_t first_report = run.quantizer.reports.size();
        if (run.calibrated()) {
            ForwardContext forward = {c, run.streams[0], scratch};
            run.quantizer.forward = &forward;
            run.quantizer.n_calibration = run.streams[0].tokens.size();
            run.quantizer.n_sequences = run.streams[0].segments.size();
            run.quantizer.sample_length = (int)(run.streams[0].tokens.size() / run.quantizer.n_sequences);
            quantize_layer(c, layer, run.method, run.quantizer, &run.streams[0], scratch);
        } else {
            quantize_layer(c, layer, run.method, run.quantizer, nullptr, scratch);
        }
        device_wait();
        const double quantize_seconds = quantize.seconds();
        run.report.seconds_quantize += quantize_seconds;
        print_modules(run.quantizer.reports, first_report);
        if (layer.router && run.calibrated()) run.report.experts.layers.push_back({l, tokens_of_experts(layer, run.streams, 0, 1)});

        Clock evaluate;
        // Only what is evaluated is on quantized activations; calibration has its own way (--a-in-calibration).
        if (!run.method.collect_heads) layer_set_grids(layer, run.options.quant, c.D, true);
        for (size_t s = run.calibrated(); s < run.first_full(); s++) layer_forward(c, layer, run.streams[s], scratch);
        layer_set_grids(layer, run.options.quant, c.D, false);
        if (layer.router && !run.calibrated())
            run.report.experts.layers.push_back({l, tokens_of_experts(layer, run.streams, 0, run.first_full())});
        for (size_t i = 0; layer.router && run.options.kl && i < run.sets.size(); i++)
            count_other_experts(run.streams[run.calibrated() + i], run.streams[run.first_full() + i], run.report.experts);
        device_wait();
        const double evaluate_seconds = evaluate.seconds() + full_seconds;
        run.report.seconds_evaluate += evaluate_seconds;

        if (writer && !save_step(run.report, [&] { save_layer(*writer, c, layer, run.packed, run.quantizer.packed); })) writer = nullptr;
        if (!run.report.save_error.empty() && run.options.tasks.empty() && run.options.logits.empty())
            fail("%s", run.report.save_error.c_str());  // there is no row to go on for
        run.quantizer.packed.clear();
        evaluated += evaluate_seconds;
        const double eta = (clock.seconds() * (c.L - l - 1) + evaluated * head_in_layers(run)) / (l + 1);
        fprintf(stderr, "layer %d/%d: wait for weights %.2f s, quantize %.1f s, evaluate %.1f s, ETA %s\n", l + 1, c.L,
                load_seconds, quantize_seconds, evaluate_seconds, duration_text(eta).c_str());
        progress.layer_done(eta);
    }
}

inline void add_calibration(Run& run, const Tokenizer& tokenizer, const std::string& data_dir) {
    const Options& o = run.options;
    const bool awq_rule = o.method == "awq" && o.calibration_set == "c4" && !o.given.count("-n") && !o.given.count("-l");
    const int seed = awq_rule && !o.given.count("--seed") ? AWQ_SEED : o.seed;
    if (!awq_rule) require_room_for_samples(o, run.model.config);
    TextSet set = awq_rule ? awq_calibration_set(tokenizer, data_dir, 128, 512, seed)
                           : calibration_set(tokenizer, data_dir, o.calibration_set, o.n_samples, o.sample_length, seed);
    fprintf(stderr, "calibration: %s, %zu samples of %d tokens, seed %d, from %s\n", set.name.c_str(), set.n_windows, set.window,
            seed, set.variant.c_str());
    run.report.calibration = {{"set", json_quote(set.name)},
                              {"samples", std::to_string(set.n_windows)},
                              {"length", std::to_string(set.window)},
                              {"seed", std::to_string(seed)},
                              {"source", json_quote(set.variant)}};
    if (!set.official) {  // other texts: not a paper's row
        run.report.not_the_papers.push_back("calibration texts");
        if (leave_out_published(run.report)) fprintf(stderr, "note:   %s\n", run.report.notes.back().c_str());
    }
    run.streams.push_back(stream_of_windows(run.model.config, "calibration", set.tokens, set.window, false));
    if (run.method.order == Order::PAIRED)
        run.streams.push_back(stream_of_windows(run.model.config, "calibration, full precision", set.tokens, set.window, false));
}

inline void add_text_set(Run& run, const Tokenizer& tokenizer, const std::string& data_dir, const std::string& task) {
    const int limit = run.options.limit;
    TextSet set = task == "c4" ? c4_set(tokenizer, data_dir, project_file("data/paper/c4_windows.csv"), limit)
                               : wikitext2_set(tokenizer, data_dir, limit);
    fprintf(stderr, "%s: %zu windows of %d of %zu tokens (%s)\n", task.c_str(), set.n_windows, set.window, set.tokens_in_text,
            set.variant.c_str());
    run.streams.push_back(stream_of_windows(run.model.config, task, set.tokens, set.window, true));
    run.sets.push_back(std::move(set));
}

// style: of MMLU alone.
inline void add_exam(Run& run, const Tokenizer& tokenizer, const std::string& data_dir, const std::string& task, const std::string& style) {
    const Options& o = run.options;
    Exam exam;
    exam.set = task == "mmlu" ? mmlu_set(tokenizer, data_dir, style, o.limit) : choice_set(task, data_dir, o.limit);
    if (o.mmlu_style == "both" && exam.set.lm_eval_style) exam.set.name += "_lm_eval";  // the second of the name
    exam.trie = trie_build(question_requests(tokenizer, exam.set), CHUNK_TOKENS);
    Stream s = stream_of_trie(run.model.config, exam.set.name, exam.trie);
    s.bf16_logits = o.bf16_scores;
    if (o.bf16_scores) exam.set.variant += ", scores rounded to bf16";
    fprintf(stderr, "%s: %zu questions (%s), %zu tokens instead of %zu (%.0f %%)\n", exam.set.name.c_str(), exam.set.questions.size(),
            exam.set.variant.c_str(), s.tokens.size(), exam.trie.tokens_asked, 100.0 * s.tokens.size() / exam.trie.tokens_asked);
    for (Question& q : exam.set.questions) {  // the texts are not needed any more
        std::vector<int>().swap(q.context_ids);
        for (Choice& choice : q.choices) std::string().swap(choice.context);
    }
    run.streams.push_back(std::move(s));
    run.exams.push_back(std::move(exam));
}

// All streams of the run but that of --logits, in the order that Run says.
inline void add_streams(Run& run, const std::string& data_dir) {
    const Options& o = run.options;
    if (!run.calibrated() && o.tasks.empty()) return;
    Tokenizer tokenizer = model_tokenizer(run.model, data_dir);
    Clock clock;
    if (run.calibrated()) add_calibration(run, tokenizer, data_dir);
    const std::vector<std::string> tasks = o.tasks.empty() ? std::vector<std::string>() : task_list(o.tasks);
    for (const std::string& task : tasks)
        if (is_text_set(task)) add_text_set(run, tokenizer, data_dir, task);
    for (const std::string& task : tasks) {
        if (is_text_set(task)) continue;
        const bool both = task == "mmlu" && o.mmlu_style == "both";
        add_exam(run, tokenizer, data_dir, task, both ? "paper" : o.mmlu_style);
        if (both) add_exam(run, tokenizer, data_dir, task, "lm-eval");
    }
    for (size_t i = 0; o.kl && i < run.sets.size(); i++)
        run.streams.push_back(stream_of_windows(run.model.config, run.sets[i].name + ", full precision", run.sets[i].tokens,
                                                run.sets[i].window, true));
    fprintf(stderr, "tokenized in %.1f s\n", clock.seconds());
}

inline void note_long_streams(Run& run) {
    for (const Stream& s : run.streams) {
        int longest = 0;
        for (const Segment& segment : s.segments) longest = std::max(longest, segment.pos + segment.len);
        if (longest <= run.model.config.max_position) continue;
        run.report.notes.push_back(format("%s has up to %d tokens in a row, more than the model's %d positions (max_position_embeddings): they are all "
                                          "computed, where lm-evaluation-harness leaves out the first", s.name.c_str(), longest,
                                          run.model.config.max_position));
        fprintf(stderr, "note:   %s\n", run.report.notes.back().c_str());
    }
}

// All streams but those of the full-precision model.
inline void rotate_streams(Run& run, bool inverse, Scratch& scratch) {
    for (size_t s = 0; run.options.rotate && s < run.first_full(); s++) stream_rotate(run.streams[s], run.rotation, inverse, scratch);
}

// --learn-rotation: one pass of the full-precision model over a few calibration samples, before any activations are in memory. Returns the
// bytes planned for it on the device.
inline size_t learn_rotations(Run& run, const std::string& data_dir) {
    const Options& o = run.options;
    const Config& c = run.model.config;
    const TextSet set = calibration_set(model_tokenizer(run.model, data_dir), data_dir, o.calibration_set, LEARN_WINDOWS,
                                        o.sample_length, o.seed);
    std::vector<Stream> one;
    one.push_back(stream_of_windows(c, "learning a rotation", set.tokens, set.window, false));
    Stream& s = one[0];
    const int most = (int)(s.tokens.size() / LEARN_EVERY + s.chunks.size());
    const size_t bytes = working_bytes(Options(), c, METHODS[0], one, !run.model.random) + s.tokens.size() * c.C * sizeof(floatX) +
                         rotation_samples_bytes(run.rotation.shape, c.L, most);
    require_room_to_learn(bytes, device_room(o));
    s.x.width = c.C, s.x.data = Array<floatX>(s.tokens.size() * c.C, "activations");
    stream_embed(run.model, s);
    Scratch scratch = scratch_alloc(c, one);
    RotationSamples samples(run.rotation, c.L, most);
    Layer layer = layer_alloc(c);
    LayerReader reader(run.model);
    Parts progress{"learning a rotation: samples through layer", c.L};
    for (int l = 0; l < c.L; l++) {
        if (l == 0) reader.start(0);
        reader.finish(layer, l), device_wait(), reader.start(l + 1);
        for (const Chunk& chunk : s.chunks) {
            floatX* x = s.x.data.data + chunk.start * c.C;
            for (int stage = 0; stage <= 4; stage++) {
                if (stage == 0) samples.take_stream(x, chunk.T);
                layer_stage(c, layer, stage, x, scratch.in.data, chunk, scratch);
                if (stage == 1) samples.take_heads(scratch.in.data, chunk.T);
                if (stage == 2) samples.take_stream(x, chunk.T);
            }
        }
        samples.learn_r2(l), progress.done(l + 1);
    }
    Settings& settings = run.report.rotation;
    settings.push_back({"learned_from", json_quote(set.name)}), settings.push_back({"samples", std::to_string(set.n_windows)});
    settings.push_back({"length", std::to_string(set.window)}), settings.push_back({"source", json_quote(set.variant)});
    settings = learned_settings(samples, samples.learn_r1(), settings);
    if (!o.rotation.empty()) require_no_input(o.rotation), rotation_save(run.rotation, o.rotation, c);  // of these samples' set, too
    return bytes;
}

inline void print_settings(const Run& run) {
    const Options& o = run.options;
    const Config& c = run.model.config;
    const Report& r = run.report;
    const double params = (double)layers_size(c, c.mixture.E) + (double)c.V * c.C * (c.tied ? 1 : 2) + c.C;
    const std::string size = params >= 1e8 ? format("%.2fB", params / 1e9) : format("%.1fM", params / 1e6);
    fprintf(stderr, "model:  %s, %s, %s parameters: hidden %d, ffn %d, layers %d, heads %d/%d x %d, vocabulary %d, %s head\n",
            r.model.c_str(), c.model_type.c_str(), size.c_str(), c.C, c.F, c.L, c.H, c.KV, c.D, c.V, c.tied ? "tied" : "untied");
    if (has_mixture(c))
        fprintf(stderr, "        %d experts, %d a token, of ffn %d, in %d of the layers\n", c.mixture.E, c.mixture.K, c.mixture.F,
                (int)std::count(c.mixture.layers.begin(), c.mixture.layers.end(), true));
    if (r.stand_in)
        fprintf(stderr, "        STAND-IN: the bundled toy model%s. No number below is Qwen3's. HINT: scripts/download.sh Qwen3-0.6B-Base wikitext2 c4\n",
                run.options.data.empty() ? " and its own texts" : "");
    fprintf(stderr, "method: %s", (run.model.quantization.kind != QuantFormat::NONE ? quantization_text(run.model.quantization) + ", loaded"
                                   : r.loaded ? r.method + ", loaded, weights on its grid" : r.method).c_str());
    for (const auto& s : r.options) fprintf(stderr, ", %s %s", s.first.c_str(), s.second.c_str());
    for (const std::string& note : r.notes) fprintf(stderr, "\nnote:   %s", note.c_str());
    if (!o.preset_text.empty()) fprintf(stderr, "\npreset: %s", o.preset_text.c_str());
    if (!r.kv.empty()) fprintf(stderr, "\nkv:     %s", json_settings(r.kv).c_str());
    if (!r.rotation.empty()) fprintf(stderr, "\nrotate: %s", json_settings(r.rotation).c_str());
    fprintf(stderr, "\ndata:   %s\ndevice: %s, %s, commit %s\n", r.data.empty() ? "-" : printable(r.data).c_str(),
            r.device.c_str(), r.precision.c_str(), r.commit.c_str());
}

inline void evaluate_heads(Run& run, Scratch& scratch) {
    const Config& c = run.model.config;
    Clock load;
    Head head = head_load(run.model);
    device_wait();
    run.report.seconds_load += load.seconds();
    Clock evaluate;
    if (!run.options.logits.empty()) stream_write_logits(c, head, run.streams.back(), scratch, stdout);
    Report& r = run.report;
    for (size_t i = 0; i < run.sets.size(); i++) {
        Stream& s = run.streams[run.calibrated() + i];
        const TextSet& set = run.sets[i];
        stream_score(c, head, s, run.options.kl ? &run.streams[run.first_full() + i] : nullptr, scratch, set.name.c_str());
        const Estimate ppl = perplexity(s.logprobs, set.n_windows, set.window);
        const std::string paper = r.paper.cell(paper_column(set.name), set.official);
        r.tasks.push_back({set.name, "ppl", set.variant, ppl.value, ppl.stderr_, ppl.n, s.tokens.size(), paper});
        r.tasks.back().official = set.official;
        if (!run.options.kl) continue;
        const Estimate kl = window_mean(s.kl, set.n_windows), top = window_mean(s.same_top, set.n_windows);
        r.kl.push_back({set.name, kl.value, kl.stderr_, 100 * top.value, 100 * top.stderr_, kl.n});
    }
    std::vector<double> paper_style;  // MMLU's hits
    for (size_t i = 0; i < run.exams.size(); i++) {
        Stream& s = run.streams[run.calibrated() + run.sets.size() + i];
        const Exam& exam = run.exams[i];
        const QuestionSet& set = exam.set;
        stream_score(c, head, s, nullptr, scratch, set.name.c_str());
        const bool by_logit = set.letters && !set.lm_eval_style;
        const std::vector<double> scores = request_scores(exam.trie, by_logit ? s.logits : s.logprobs, s.bf16_logits);
        const QuestionResult result = question_result(set, scores);
        if (!run.options.questions.empty()) r.questions += question_lines(set, scores);
        TaskResult task = {set.name, "acc", set.variant, result.acc.value, result.acc.stderr_, result.acc.n, s.tokens.size(),
                           r.paper.cell(paper_column(set.name), set.official), exam.trie.tokens_asked};
        task.official = set.official, task.bf16_scores = s.bf16_logits;
        task.lm_eval_style = set.lm_eval_style;
        if (task.lm_eval_style) task.paper.clear();  // the paper's is of its own style
        if (by_logit) paper_style = result.hits;
        else if (set.letters && !paper_style.empty()) task.less_paper_style = {mean_difference(result.hits, paper_style)};
        if (set.normalized) task.acc_norm = {result.acc_norm};
        if (!set.subjects.empty()) mmlu_parts(set, result.hits, task.subjects, task.categories);
        r.tasks.push_back(task);
    }
    run.report.seconds_evaluate += evaluate.seconds();
}

// --tokenize: the ids of a text file, one a line.
inline void print_token_ids(const Options& o) {
    const Model m = model_find(o);
    if (m.stand_in) fprintf(stderr, "STAND-IN: the bundled toy model's tokenizer. No id below is Qwen3's. HINT: -m DIR\n");
    const MappedFile file(o.tokenize);
    const std::string_view text = utf8_text(file);
    for (int id : tokenizer_encode(model_tokenizer(m, data_folder(o, m)), text.data(), text.size())) printf("%d\n", id);
    if (fflush(stdout) != 0) fail("standard output: the token ids could not be written: %s", strerror(errno));
}

// A checkpoint that is quantized already is evaluated as it is; its own settings take the options' place.
inline void take_quantized(Options& o, const Model& m) {
    const QuantFormat& f = m.quantization;
    if (f.kind == QuantFormat::NONE) return;
    const char* hint = "HINT: without -q it is evaluated as it is; to quantize, take the checkpoint that it was made from";
    if (o.method != "fp16")
        usage_fail("-q %s: %s is quantized already (%s). %s", o.method.c_str(), m.name.c_str(), quantization_text(f).c_str(), hint);
    if (!o.save.empty())
        usage_fail("--save: %s is quantized already (%s), and would be the same again. HINT: copy %s", m.name.c_str(),
                   quantization_text(f).c_str(), m.dir.c_str());
    if (o.rotate)
        usage_fail("--rotate: %s is quantized already (%s), and rotated weights are on no grid. %s", m.name.c_str(),
                   quantization_text(f).c_str(), hint);
    o.quant.wbits = f.bits, o.quant.abits = f.abits, o.quant.group_size = f.group_size;
}

// What the report says of such a checkpoint.
inline void report_quantized(Report& r, const Model& m) {
    const QuantFormat& f = m.quantization;
    std::vector<std::pair<std::string, size_t>> bytes;
    for (const TensorView& t : m.checkpoint.tensors) bytes.push_back({t.name, t.n_bytes});
    report_size(r, m.config, bytes);
    r.loaded = true;
    r.method = quantization_method(f);
    r.options = {{"format", json_quote(quantization_name(f))},
                 {"bits", std::to_string(f.bits)},
                 {"activation_bits", std::to_string(f.abits)},
                 {"group_size", std::to_string(f.group_size)},
                 {"sym", f.symmetric ? "true" : "false"}};
    if (f.kind == QuantFormat::FP8) r.notes.push_back("activations stay as they are; what serves fp8 rounds them to E4M3 as well");
}

// A folder for the result, or a refusal of what its format can't hold.
inline std::unique_ptr<CheckpointWriter> save_begin(Run& run) {
    const Config& c = run.model.config;
    Report& r = run.report;
    if (run.packed.kind != QuantFormat::NONE) {
        if (has_mixture(c) && run.packed.kind == QuantFormat::GPTQ)
            usage_fail("--format gptq on a mixture of experts is not supported. HINT: --format compressed-tensors");
        Layer layer = layer_alloc(c);
        for (int l = 0; l < c.L; l++) {
            layer_place(c, layer, l);
            for (const Param& p : layer_params(c, layer))
                if (p.linear) export_require(run.packed, linear_name(p), p.shape[0], p.shape[1]);
        }
        if (has_mixture(c) && (run.packed.kind != QuantFormat::PACK || !run.packed.symmetric))
            r.notes.push_back("transformers 5.24 loads no packed mixture but those on symmetric grids with 16 bits of activations");
        if (run.packed.act_order)
            r.notes.push_back(
                "act-order's groups are saved as g_idx, which vLLM refuses; --static-groups makes a file that it reads, of compressed-tensors or, with --sym "
                "and 4 or 8 bits, of gptq");
    }
    const QuantOptions& q = run.options.quant;
    const bool fake = run.packed.kind == QuantFormat::NONE;
    if (fake && (q.abits < 16 || q.k_bits < 16 || q.v_bits < 16 || q.p_bits < 16))
        r.notes.push_back(format("the checkpoint holds %s's weights alone: it has no place for the grids of what flows, with which the row is (-a "
                                 "16 without --kv-bits and --p-bits: weights alone)", run.method.name));
    if (run.saves_rotated() && sizeof(floatX) == 2)
        r.notes.push_back(format("the checkpoint's embeddings and head are rotated and rounded to bf16, which this run's are not%s: its own row, by -m, may "
                                 "be a little worse", run.rotation.rest ? ", and its reader rounds the residual stream, of which this run keeps the rest" : ""));
    Config shape = c;
    shape.tied = c.tied && !run.saves_rotated();
    const std::vector<TensorSpec> specs = checkpoint_specs(shape, run.packed);
    std::vector<std::pair<std::string, size_t>> bytes;
    for (const TensorSpec& spec : specs) bytes.push_back({spec.name, tensor_spec_bytes(spec, run.options.save)});
    report_size(r, c, bytes);
    require_disk(run.options.save, r.stored_bytes);
    std::unique_ptr<CheckpointWriter> writer(new CheckpointWriter(run.options.save, specs));
    if (!run.model.random) copy_small_files(*writer, run.model.dir);
    return writer;
}

// Completes --save's folder.
inline void save_end(Run& run, CheckpointWriter& writer) {
    const bool fake = run.packed.kind == QuantFormat::NONE;
    const Rotation* rotation = run.saves_rotated() ? &run.rotation : nullptr;
    if (!save_step(run.report, [&] { save_finish(writer, run.model, quantization_json(run.report, fake), rotation, run.packed); })) return;
    fprintf(stderr, "saved: %s (%s)\n", printable(run.options.save).c_str(),
            fake ? "fake-quantized weights, stored as " FLOATX_NAME : quantization_text(run.packed).c_str());
}

// Quantizes and evaluates one model, as the options say.
inline Report run_model(const Options& options) {
    Clock total;
    file_stamps().clear();  // the files of this run alone have to stay as they are
    Run run;
    run.options = options;
    run.method = method_for(options);
    run.model = model_open(options, &run.report.notes);
    const Options& o = run.options;
    const Config& c = run.model.config;
    Report& r = run.report;
    const std::string data_dir = data_folder(o, run.model);
    take_quantized(run.options, run.model);
    if (o.quant.all_experts && !has_mixture(c))
        usage_fail("--calibrate-all-experts: expected a mixture of experts, found %s", c.model_type.c_str());
    if (o.method == "rptq" && has_mixture(c)) usage_fail("-q rptq on a mixture of experts is not supported. HINT: -q gptq is");
    if (o.rotate) run.rotation = rotation_for(o, c);
    if (o.rotate && run.rotation.has.r2 && run.rotation.R1.n && run.rotation.all_R2.empty() && !run.rotation.has.over_heads)
        r.notes.push_back("the file of rotations has no R2: it is drawn with --seed");
    if (run.method.whole_groups) check_group_size(c, "-g", o.quant.group_size, "row");
    check_group_size(c, "--a-group", o.quant.a_group, "token");
    std::unique_ptr<CheckpointWriter> writer;  // first, so that a bad --save stops at once
    run.packed = packed_format(o);
    if (!o.save.empty()) writer = save_begin(run);
    r.model = run.model.name, r.stand_in = run.model.stand_in;
    r.method = o.method, r.wbits = o.quant.wbits, r.abits = o.quant.abits, r.group = o.quant.group_size;
    r.device = device_name(), r.commit = COMMIT, r.precision = FLOATX_NAME;
    r.options = method_settings(o, run.method), r.rotation = rotation_settings(o), r.kv = kv_settings(o.quant);
    r.narrower_groups = narrower_groups(c, o.quant);
    if (!r.narrower_groups.empty()) r.notes.push_back(r.narrower_groups);
    if (run.model.quantization.kind != QuantFormat::NONE) report_quantized(r, run.model);
    r.limit = o.limit;
    if (run.model.random) r.weights_seed = o.seed;
    if (run.calibrated() || o.learn_rotation || !o.tasks.empty()) r.data = data_dir;
    r.not_the_papers = not_the_papers(o);
    const bool ours = report_saved(r, run.model.dir);
    const QuantFormat& f = run.model.quantization;
    if (f.unpacked && !ours) report_on_a_grid(r, "compressed-tensors", "compressed-tensors, unpacked", f.bits, f.group_size, "config.json");
    find_published(r, c, r.loaded && !ours);
    const bool asks = !run.options.tasks.empty() && !is_text_set(task_list(o.tasks).back());
    if (asks && is_post_trained(r.model)) r.notes.push_back("questions are asked without a chat template, as in the paper");
    require_tensors(run.model, r.notes);
    print_settings(run);
    for (const std::string& file : output_files(o)) require_no_input(file);  // the model's; below, the sets'

    add_streams(run, data_dir);
    if (!o.logits.empty()) {
        const std::vector<int> ids = read_token_ids(o.logits, c.V);
        run.streams.push_back(stream_of_windows(c, "the given tokens", ids, (int)ids.size(), false));
    }
    note_long_streams(run);
    for (const std::string& file : output_files(o)) require_no_input(file);
    const size_t learning = o.learn_rotation ? learn_rotations(run, data_dir) : 0;
    for (size_t s = 0; s < run.first_full(); s++) run.streams[s].rest = run.rotation.rest;
    r.planned_device = std::max(learning, place_streams(run.options, run.model, run.method, run.streams));
    run.quantizer.opt = run.options.quant;
    for (Stream& s : run.streams) stream_embed(run.model, s);
    r.seconds_load = total.seconds();
    {
        Scratch scratch = scratch_alloc(c, run.streams);
        if (writer && run.saves_rotated()) save_rotated(*writer, run.model, false, run.rotation);
        else if (writer) save_unquantized(*writer, run.model, "model.embed_tokens.weight", {(size_t)c.V, (size_t)c.C});
        rotate_streams(run, false, scratch);
        sweep(run, scratch, writer.get());
        rotate_streams(run, true, scratch);
        if (run.quantizer.weights) r.effective_bits = run.quantizer.weight_bits / run.quantizer.weights;
        if (writer && r.save_error.empty()) save_end(run, *writer);
        if (!o.tasks.empty() || !o.logits.empty()) evaluate_heads(run, scratch);
    }
    for (const ModuleReport& m : run.quantizer.reports)
        r.modules.push_back({m.layer, m.module, m.error_kind, m.error, m.values, m.note}), r.experts.starved += m.starved;
    r.experts.calibration = run.calibrated();
    r.peak_host = host_peak_bytes();
#ifdef __CUDACC__
    r.peak_device = memory_used(Place::Device).peak;
#endif
    r.seconds_total = total.seconds();
    print_summary(run.quantizer.reports);
    if (r.effective_bits) fprintf(stderr, "%.4f bits a weight on average\n", r.effective_bits);
    if (r.stored_bytes)
        fprintf(stderr, "stored: %.4f bits a weight, scales and zeros included; %.1f MB of tensors\n", r.stored_bits,
                r.stored_bytes / 1e6);
    fprintf(stderr, "load %.1f s, quantize %.1f s, evaluate %.1f s, total %s; peak host memory %.2f GB", r.seconds_load,
            r.seconds_quantize, r.seconds_evaluate, duration_text(r.seconds_total).c_str(), r.peak_host / 1e9);
    if (r.peak_device) fprintf(stderr, ", device %.2f GB", r.peak_device / 1e9);
    fprintf(stderr, "\n");
    return std::move(run.report);
}

#ifndef TESTING
// A closed standard descriptor would be given to the next file that is opened, and the log written into a checkpoint. What is written to
// a closed standard output fails, as it must; what is said on a closed standard error is lost.
static void open_standard_descriptors() {
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) == -1 && open("/dev/null", fd == 2 ? O_WRONLY : O_RDONLY) != fd) _exit(1);
}

static void run_program(const Options& options) {
    if (options.help) {
        print_help(stdout, options.help_method);
    } else if (!options.tokenize.empty()) {
        print_token_ids(options);
    } else {
        for (const std::string& file : output_files(options)) require_writable(file);
        const Report report = run_model(options);
        files_unchanged_or_fail();
        if (!report.tasks.empty()) fputs(report_text(report).c_str(), stdout);
        const int print_error = fflush(stdout) == 0 ? 0 : errno;
        std::vector<std::string> failures;  // each output is tried, whatever became of the others
        auto write = [&](const std::string& file, auto text) {
            try {
                if (!file.empty()) write_whole_file(file, text());
            } catch (const std::bad_alloc&) {
                failures.push_back(file + ": an allocation of host memory failed. HINT: a higher limit (ulimit -v)");
            } catch (const std::exception& e) {
                failures.push_back(e.what());
            }
        };
        write(options.json, [&] { return report_json(report); });
        write(options.questions, [&] { return report.questions; });
        if (print_error) failures.push_back(format("standard output: the row could not be written: %s", strerror(print_error)));
        if (!report.save_error.empty()) failures.push_back(report.save_error);
        for (size_t i = 0; i + 1 < failures.size(); i++) fprintf(stderr, "qwen3: %s\n", failures[i].c_str());
        if (!failures.empty()) fail("%s", failures.back().c_str());
    }
    if (fflush(stdout) != 0) fail("standard output: the text could not be written: %s", strerror(errno));
}

int main(int argc, char** argv) {
#ifndef __CUDACC__
    spin_briefly(argv);
#endif
    open_standard_descriptors();
    remove_temporaries_on_signals();
    fail_on_lost_files(remove_temporaries);
    try {
        run_program(options_parse(argc, argv));
        return 0;
    } catch (const UsageError& e) {
        fprintf(stderr, "qwen3: %s\n", e.what());
        return 2;
    } catch (const std::bad_alloc&) {
        fprintf(stderr, "qwen3: not enough memory: an allocation of host memory failed. HINT: fewer calibration samples (-n) or tasks (-e), "
                        "a smaller model, or a higher limit (ulimit -v)\n");
        return 1;
    } catch (const std::system_error& e) {  // a thread that can't be had, a folder that can't be walked
        fprintf(stderr, "qwen3: the system refused what this run needs: %s. HINT: `ulimit -a` lists the limits\n", printable(e.what()).c_str());
        return 1;
    } catch (const std::exception& e) {
        fprintf(stderr, "qwen3: %s\n", e.what());
        return 1;
    }
}
#endif
#endif  // QWEN3_CU
