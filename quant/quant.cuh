// quant.cuh: what every quantization method is given.
//
// A layer has four stages of linear groups. The linears of a group share their input X, and their weights lie one after another in
// one matrix W [O, I], so that a group is one product in the forward pass and one problem for a method:
//     0  norm            -> q_proj k_proj v_proj          2  norm            -> gate_proj up_proj
//     1  attention       -> o_proj                        3  silu(gate) * up -> down_proj
// The groups of a stage are independent of each other, and each is reached by rows of the stage's inputs. Stages 0 and 1 have one group,
// which all rows reach, and so have 2 and 3 of a dense layer; of a mixture they have one for each expert, which is reached by the rows
// that a router sends there (cuda/experts.cuh). A group is known by its place g in the layer; GPTQ's kin and BiLLM never
// ask what kind of layer it is.
// (Group and g are a linear group. In group_size and "a row and group" a group is G columns that share a grid.)
// A method is two functions: `collect` sees the inputs of a group, chunk by chunk; `solve` puts the group's W on its grid.
// W is "fake quantized": on the grid, but stored as floatX. Where the result will be packed (opt.pack), a method also leaves the
// codes and grids that W is made of, whose scales are numbers that the file can hold (opt.scale). It knows no format.
//
// symbols: W [O, I] weight, W^ the same on its grid, X [T, I] inputs, H [I, I] = sum over tokens x x^T, G columns that share a grid,
//          maxq = 2^bits - 1. In every file "the paper" is arXiv 2505.02214, a method's own is "its paper"
// defines: Linear, Group, STAGES, Layer, input_grid, layer_set_cache_grids, layer_set_grids, quantize_inputs, Scale, QuantOptions, symmetry,
//          grid_columns, grids_in_row, Hessian, ModuleReport, Span, Quantizer, quantizer_expect, Order, Method, hessian_collect, mirror_upper,
//          weights_to_float, round_rows_kernel, scale_columns_kernel, scale_columns, divide_kernel, check_weights, checked_weights,
//          rows_nonfinite, count_nonfinite, relative_errors, weight_difference_kernel, output_errors, weight_errors; Extremes, FlowClusters
//          for RPTQ; for Method's device_bytes: float_bytes, hessian_bytes, output_error_bytes, OUTPUT_ERROR_ROWS, two_copies_bytes; for
//          mixtures: group_starves, white_hessian, router_rows, scale_router; of qwen3.cu, for methods: attention_forward, mlp_forward
#pragma once
#include <algorithm>
#include <cfloat>
#include <climits>
#include <cmath>
#include <deque>
#include <string>
#include <vector>
#include "../cuda/device.cuh"
#include "../cuda/flow_grid.cuh"
#include "../cuda/gemm.cuh"
#include "../data/clock.h"
#include "../data/packed.h"

struct Linear {
    const char* name;  // as in the checkpoint: "q_proj"
    int row, O;        // its rows [row, row + O) of the group's W
};

struct Group {
    const char* name;  // "qkv"
    int O, I;
    floatX* W;         // [O, I]
    floatX* bias;      // [O], or null
    int n_linears;
    Linear linears[3];
    FlowGrid grid = {};  // of its inputs in the forward pass
    int expert = -1;   // that it belongs to; -1: to none, all tokens reach it
};

struct Rotation;  // rotation.cuh's

static constexpr int STAGES = 4;

struct Layer {
    int index = 0;
    const Rotation* rotation = nullptr;  // what its forward pass does online, where the weights were rotated
    Array<floatX> storage;           // owns all of the following
    floatX *input_norm, *post_norm;  // [C] gains of the norms before stages 0 and 2
    floatX *q_norm, *k_norm;         // [D] Qwen3's norms over each head, or null
    floatX* router = nullptr;        // [E, C] of a mixture of experts, which reads what stage 2 does and is never quantized; else null
    int K = 1;                       // groups of stages 2 and 3 that a token reaches
    std::deque<std::string> names;   // of experts and their linears
    std::vector<Group> groups = std::vector<Group>(STAGES);  // stage after stage
    int first_group[STAGES + 1] = {0, 1, 2, 3, 4};           // a stage's groups end where the next one's begin
    int D = 0;                        // head_dim
    FlowGrid q_grid, k_grid, v_grid;  // of the queries and keys, after the rotary embedding, and of the values
    int p_bits = 16;                  // of attention's probabilities
};

enum class Scale { F32, BF16, HALF };  // what scales are stored as; HALF: F16, as numbers that bf16 holds, too

struct QuantOptions {
    int wbits = 4, abits = 16, k_bits = 16, v_bits = 16, p_bits = 16;
    bool a_asym = false, a_heads = false;  // asymmetric grids of inputs; one a head for o's
    int a_group = -1;                      // values of an input that share a grid, -1: a token's
    double a_clip = 1, kv_clip = 1;
    int group_size = 128;  // -1: one grid a row. To GPTQ a group of the row's width is not the same
    bool sym = false, sym_signed = false, mse = false;
    bool act_order = true, static_groups = false, true_sequential = true, a_in_calibration = false;
    double damp = 0.01;
    double first_token_weight = 1;           // in the Hessian, of each calibration sample's first token; ours
    std::string salient_metric = "hessian";  // of BiLLM: hessian or magnitude
    bool smooth = true;              // of SmoothQuant
    bool clip = true;                // of AWQ
    double alpha = 0.5, beta = 0.1;  // alpha: SmoothQuant's or GPTAQ's, beta: FOEM's
    bool pack = false;               // codes and grids are asked for
    Scale scale = Scale::F32;
    int norm_abits = 8;              // of RPTQ: bits of the norms' outputs, where activations have some
    bool a_dynamic = false;          // of RPTQ: grids of each token instead of static ones
    bool all_experts = false;      // every token counts for every expert while Hessians are collected
    int groups_at_once = INT_MAX;  // groups of a stage that are collected for and solved at a time; the memory plan sets it
};

// How a weight's grid lies, as grid_fit takes it: 0 asymmetric, 1 --sym, 2 --sym-signed.
inline int symmetry(const QuantOptions& opt) { return opt.sym_signed ? 2 : opt.sym; }

// G, and how many grids a row of I columns has. The last one's columns may be fewer.
inline int grid_columns(const QuantOptions& opt, int I) { return opt.group_size == -1 ? I : std::min(opt.group_size, I); }
inline int grids_in_row(const QuantOptions& opt, int I) { return ceil_div(I, grid_columns(opt, I)); }

// sum over calibration tokens of x x^T, of which the upper half is right until a method mirrors it.
struct Hessian {
    Array<float> H;  // [I, I]
    Array<float> D;  // [I, I] if the stream is one of a pair: the same of (x~ - x) x^T, all of it (gptaq.cuh)
    size_t n = 0;    // calibration samples ("sequences"): the originals mean over those, not over tokens
};

// The extremes of a place's channels in each calibration sample, and the clusters and static grids that are made of them (rptq.cuh). A place:
// the inputs of a group, or q, k or v.
struct Extremes {
    std::vector<float> lo, hi;  // [samples, I]
};
struct FlowClusters {
    Array<int> order, starts;         // [I], [n + 1]
    Array<float> scale, zero_point;   // [I]
};

// One line of the log and one entry of the JSON for each module that was quantized.
struct ModuleReport {
    int layer;
    std::string module;      // "q_proj"
    std::string error_kind;  // "output": ||(W - W^) X|| / ||W X||, or "weight": ||W - W^|| / ||W|| where nothing was collected
    double error;
    double seconds;
    std::vector<std::pair<std::string, double>> values;  // the method's own numbers: "damp", "loss", "ratio", ...
    std::string note;                                    // what was not nominal, in words; empty if all was
    bool starved = false;                                // an expert's that too few calibration tokens reached
    int group = 0;                                       // of the layer, that it belongs to
};

struct Span {
    size_t first, n;  // rows [first, first + n)
};

struct ForwardContext;  // what the modules' forward passes need besides the layer; qwen3.cu's

struct Quantizer {
    QuantOptions opt;
    // Of the current layer's groups:
    std::vector<std::vector<float>> channel_max;  // largest |x| of each input channel, for SmoothQuant
    std::vector<Hessian> hessian;                 // for the methods that collect it
    Array<floatX> difference;                     // [n, I] of a pair's inputs, for pair_collect
    std::vector<Extremes> extremes;               // of the groups' inputs, then of q, k and v, for RPTQ
    std::vector<FlowClusters> clusters;           // of the same places: what the layer's grids point to
    std::vector<Array<floatX>> inputs;            // of each stage, [n_calibration times the groups that a token reaches, I], for AWQ
    std::vector<size_t> n_inputs;                 // of each stage, the rows that are there: chunk by chunk, in each its groups in order
    std::vector<std::vector<Span>> spans;         // of each group, where its rows lie among them
    std::vector<size_t> n_tokens;                 // that were collected
    ForwardContext* forward;              // for attention_forward and mlp_forward
    size_t n_calibration;                 // tokens of the calibration stream
    size_t n_sequences = 1;               // calibration samples that it consists of
    int sample_length = 0;                // tokens of each of them: they are equally long
    const std::vector<int>* first_rows = nullptr;  // of what is collected next, those of samples' first tokens; null: every
                                                   // sample_length-th
    double weights = 0, weight_bits = 0;  // weights so far and the sum of their bits, if a method spends other than wbits
    std::vector<ModuleReport> reports;
    std::vector<PackedLinear> packed;  // opt.pack: what the current layer's linears are made of, named as in Linear
    std::vector<int> stage_of = {0, 1, 2, 3};     // of each group
    int K = 1;                                    // the layer's: groups of stages 2 and 3 that a token reaches
    Quantizer() : channel_max(STAGES), hessian(STAGES), inputs(STAGES), n_inputs(STAGES), spans(STAGES), n_tokens(STAGES) {}
};

// A module on all calibration tokens, with the layer's weights as they are at the time of the call; defined in qwen3.cu.
//   attention: q, k, v products, their norms and rotary, attention, o product.  X [n, C] is the normed input, out [n, C].
//   mlp:       gate and up products from q.inputs of stage 2, silu(gate) * up, down product; out [n, C].
// No residual is added. n is q.n_calibration.
inline void attention_forward(Quantizer& q, const Layer& layer, const floatX* X, floatX* out);
inline void mlp_forward(Quantizer& q, const Layer& layer, floatX* out);

// Makes room for what is collected for the layer's groups.
inline void quantizer_expect(Quantizer& q, const Layer& layer) {
    const size_t n = layer.groups.size();
    q.channel_max.resize(n), q.hessian.resize(n), q.spans.resize(n), q.stage_of.resize(n);
    for (int stage = 0; stage < STAGES; stage++)
        std::fill(q.stage_of.begin() + layer.first_group[stage], q.stage_of.begin() + layer.first_group[stage + 1], stage);
    q.K = layer.K;
    q.n_tokens.assign(n, 0);
    q.extremes.assign(n + 3, {});
    q.clusters.resize(n + 3);
}

// Whether too few calibration tokens came to an expert's group to tell anything of its inputs.
inline bool group_starves(const Quantizer& q, const Group& group, int g) {
    return group.expert >= 0 && q.n_tokens[g] < (size_t)group.I / 8;
}

// When the groups of a layer are solved, and what the layer passes on to the next one. METHODS has a method's usual order;
// --no-true-sequential, --alpha and --no-smooth change it (options.h).
enum class Order {
    NONE,            // nothing is quantized
    WEIGHTS,         // from the weights alone: no calibration
    SEQUENTIAL,      // each group from inputs that passed through the layer's earlier, already quantized groups (true-sequential)
    PAIRED,          // as SEQUENTIAL, and beside it the same tokens through the original layers: each group gets both inputs
    LAYERWISE,       // all from one pass through the unquantized layer; the next layer sees the quantized one
    FULL_PRECISION,  // all from one pass through the unquantized layer, whose outputs are the next layer's inputs
};

// A method is a file and a line in methods.cuh. It has one of solve_group and solve_layer; the latter sees all groups.
struct Method {
    const char* name;
    const char* about;       // for -h
    Order order;
    int default_wbits, default_abits, default_group_size;  // the paper's, or its paper's
    void (*collect)(Quantizer&, const Group&, int g, const floatX* X /*[n, I]*/, int n);
    void (*solve_group)(Quantizer&, Layer&, int g);
    void (*solve_layer)(Quantizer&, Layer&);
    // The most it holds on the device at a time, besides the layer and the activations; of the layer only the shapes count.
    size_t (*device_bytes)(const Layer&, const QuantOptions&, size_t n_calibration);
    // In place of collect with Order::PAIRED: X of the quantized path, X_full of the full-precision model, the same n tokens.
    void (*collect_pair)(Quantizer&, const Group&, int g, const floatX* X /*[n, I]*/, const floatX* X_full, int n) = nullptr;
    bool whole_groups = false;  // its group size must divide every row's width; else the last group of a row is narrower
    // With Order::LAYERWISE: sees q, k and v [T, (H + 2 KV) D] as attention does. Such a method sets the grids of what flows itself.
    void (*collect_heads)(Quantizer&, const Layer&, const floatX* qkv, int T) = nullptr;
};

// ---------------------------------------------------------------------------------------------------------------------
// Kernels and helpers that several methods share

KERNEL weights_to_float_kernel(float* out /*[O, I]*/, const floatX* W /*[O, I]*/, int I) {
    const size_t row = (size_t)blockIdx.x * I;
    for (int i = threadIdx.x; i < I; i += blockDim.x) out[row + i] = to_float(W[row + i]);
}

KERNEL round_rows_kernel(floatX* out /*[O, I]*/, const float* W /*[O, I]*/, int I) {
    const size_t row = (size_t)blockIdx.x * I;
    for (int i = threadIdx.x; i < I; i += blockDim.x) out[row + i] = to_floatX(W[row + i]);
}

// out = W diag(s); out may be W.
KERNEL scale_columns_kernel(float* out /*[O, I]*/, const float* W /*[O, I]*/, const float* s /*[I]*/, int I) {
    const size_t row = (size_t)blockIdx.x * I;
    for (int i = threadIdx.x; i < I; i += blockDim.x) out[row + i] = W[row + i] * s[i];
}

// The columns of a group's float copy W [O, I] times s.
inline void scale_columns(Array<float>& W, const std::vector<float>& s /*[I]*/) {
    const int I = (int)s.size();
    Array<float> s_d(I, "scales of columns");
    copy(s_d.data, s.data(), I);
    launch(scale_columns_kernel, (unsigned)(W.n / I), 256, W.data, W.data, s_d.data, I);
}

// x /= s; one block.
KERNEL divide_kernel(floatX* x /*[n]*/, const float* s /*[n]*/, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] = to_floatX(to_float(x[i]) / s[i]);
}

// A float copy of a group's weights, [O, I].
inline Array<float> weights_to_float(const Group& group) {
    Array<float> W((size_t)group.O * group.I, group.name);
    launch(weights_to_float_kernel, group.O, 256, W.data, group.W, group.I);
    return W;
}

KERNEL count_nonfinite_kernel(int* count /*[rows]*/, const floatX* x /*[rows, n]*/, int n) {
    float bad = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) bad += fabsf(to_float(x[(size_t)blockIdx.x * n + i])) <= FLT_MAX ? 0 : 1;
    bad = block_sum(bad);
    if (threadIdx.x == 0) count[blockIdx.x] = (int)bad;
}

// How many values of each row of x [rows, n] are NaN or Inf.
inline std::vector<int> rows_nonfinite(const floatX* x, size_t rows, int n) {
    Array<int> count(rows, "non-finite counts");
    launch(count_nonfinite_kernel, (unsigned)rows, 128, count.data, x, n);
    std::vector<int> host(rows);
    copy(host.data(), count.data, rows);
    return host;
}

// How many values of x [rows, n] are NaN or Inf.
inline size_t count_nonfinite(const floatX* x, size_t rows, int n) {
    size_t total = 0;
    for (int c : rows_nonfinite(x, rows, n)) total += (size_t)c;
    return total;
}

// A weight that is NaN or Inf ends the run here: rounding may hide it, and what is judged on a later module's output would blame the
// wrong one.
inline void check_weights(const Layer& layer, const Group& group) {
    const std::vector<int> bad = rows_nonfinite(group.W, group.O, group.I);
    for (int k = 0; k < group.n_linears; k++) {
        const Linear& linear = group.linears[k];
        const auto first = bad.begin() + linear.row, end = first + linear.O,
                   row = std::find_if(first, end, [](int n) { return n > 0; });
        if (row == end) continue;
        std::vector<floatX> values(group.I);
        copy(values.data(), group.W + (size_t)(row - bad.begin()) * group.I, group.I);
        const auto at = std::find_if(values.begin(), values.end(), [](floatX x) { return !std::isfinite(to_float(x)); });
        fail("layer %d, %s: weights of input channel %d are NaN or Inf. HINT: check the checkpoint", layer.index, linear.name,
             (int)(at - values.begin()));
    }
}

// A float copy of a group's weights, [O, I], for a method to begin with.
inline Array<float> checked_weights(const Layer& layer, const Group& group) {
    check_weights(layer, group);
    return weights_to_float(group);
}

// Y[r] = scale X[rows[r]]
KERNEL scaled_rows_kernel(floatX* Y /*[rows, I]*/, const floatX* X /*[n, I]*/, const int* rows, float scale, int I) {
    const size_t from = (size_t)rows[blockIdx.x] * I, to = (size_t)blockIdx.x * I;
    for (int i = threadIdx.x; i < I; i += blockDim.x) Y[to + i] = to_floatX(scale * to_float(X[from + i]));
}

// collect for every method that needs H: H += X^T X, in which a sample's first token counts first_token_weight times. In many models
// its activations are enormous and every later token attends to it, so an error there is an error everywhere.
inline void hessian_collect(Quantizer& q, const Group& group, int g, const floatX* X /*[n, I]*/, int n) {
    Hessian& h = q.hessian[g];
    if (h.H.n == 0) {
        h.H = Array<float>((size_t)group.I * group.I, "Hessian");
        fill_zero(h.H.data, h.H.n);
        h.n = q.n_sequences;
    }
    hessian_add(h.H.data, X, n, group.I);
    if (q.opt.first_token_weight == 1) return;
    std::vector<int> rows;
    if (q.first_rows) rows = *q.first_rows;
    else
        for (int r = 0; r < n; r += q.sample_length) rows.push_back(r);  // chunks are made of whole samples
    if (rows.empty()) return;
    Array<int> rows_d(rows.size(), "rows of first tokens");
    copy(rows_d.data, rows.data(), rows.size());
    Array<floatX> first(rows.size() * group.I, "first tokens");
    launch(scaled_rows_kernel, (unsigned)rows.size(), 256, first.data, X, rows_d.data, (float)std::sqrt(q.opt.first_token_weight - 1),
           group.I);
    hessian_add(h.H.data, first.data, (int)rows.size(), group.I);
}

KERNEL identity_kernel(float* H /*[I, I]*/, int I) {
    for (int i = threadIdx.x; i < I; i += blockDim.x) H[(size_t)blockIdx.x * I + i] = i == (int)blockIdx.x ? 1 : 0;
}

// The Hessian of inputs that are independent of each other and equally large: with it, rounding to nearest is the best there is.
inline Hessian white_hessian(int I) {
    Hessian h;
    h.H = Array<float>((size_t)I * I, "Hessian"), h.n = 1;
    launch(identity_kernel, I, 256, h.H.data, I);
    return h;
}

// The columns of an unquantized matrix times s.
KERNEL scale_floatX_columns_kernel(floatX* W /*[O, I]*/, const float* s /*[I]*/, int I) {
    const size_t row = (size_t)blockIdx.x * I;
    for (int i = threadIdx.x; i < I; i += blockDim.x) W[row + i] = to_floatX(to_float(W[row + i]) * s[i]);
}

inline int router_rows(const Layer& layer) { return layer.router ? layer.first_group[3] - layer.first_group[2] : 0; }

// For a method that divides the inputs of stage 2 by s: what is not a group's but reads them, too.
inline void scale_router(Layer& layer, const float* s /*[C]*/) {
    launch(scale_floatX_columns_kernel, router_rows(layer), 256, layer.router, s, layer.groups[layer.first_group[2]].I);
}

// H[j, i] = H[i, j] for j > i. Writes go along rows; reads go down columns, in tiles, so that their lines are still in a cache.
KERNEL mirror_upper_kernel(float* H /*[I, I]*/, int I) {
    const int tile = 32, i0 = blockIdx.x * tile, j0 = blockIdx.y * tile;
    if (j0 < i0) return;
    for (int k = threadIdx.x; k < tile * tile; k += blockDim.x) {
        const int j = j0 + k / tile, i = i0 + k % tile;  // consecutive threads write consecutive i
        if (j < I && i < j) H[(size_t)j * I + i] = H[(size_t)i * I + j];
    }
}

inline void mirror_upper(float* H /*[I, I]*/, int I) {
    const unsigned tiles = (unsigned)ceil_div(I, 32);
    launch(mirror_upper_kernel, dim3(tiles, tiles), 256, H, I);
}

// The grid of a stage's inputs that the options ask for; D is the width of a head.
inline FlowGrid input_grid(const QuantOptions& o, int stage, int D) {
    FlowGrid grid;
    grid.bits = o.abits, grid.sym = !o.a_asym, grid.clip = (float)o.a_clip, grid.group = o.a_group, grid.zero = o.a_group == -1;
    if (o.a_heads && stage == 1) grid.group = D, grid.zero = false;
    return grid;
}

// The grids of what attention reads, or none (`on` false); D is head_dim. K and V have one a token and kv head; that of K holds the 0, as
// whole rows do, and those of groups need not (the published programs' rules).
inline void layer_set_cache_grids(Layer& layer, const QuantOptions& o, int D, bool on) {
    FlowGrid cache;
    cache.sym = false, cache.clip = (float)o.kv_clip, cache.group = D;
    layer.k_grid = layer.v_grid = cache, layer.q_grid = FlowGrid();
    layer.k_grid.bits = on ? o.k_bits : 16, layer.v_grid.bits = on ? o.v_bits : 16;
    layer.v_grid.zero = false;
    layer.p_bits = on ? o.p_bits : 16;
}

// The grids of everything that flows through the layer, or none.
inline void layer_set_grids(Layer& layer, const QuantOptions& o, int D, bool on) {
    for (int stage = 0; stage < STAGES; stage++)
        for (int g = layer.first_group[stage]; g < layer.first_group[stage + 1]; g++)
            layer.groups[g].grid = on ? input_grid(o, stage, D) : FlowGrid();
    layer_set_cache_grids(layer, o, D, on);
}

// The inputs of a stage put on their grid while a method calibrates, --a-in-calibration.
inline void quantize_inputs(const Layer& layer, int stage, const QuantOptions& o, int D, floatX* in /*[T, I]*/, int T) {
    const int I = layer.groups[layer.first_group[stage]].I;
    flow_grid_apply(in, T, I, I, input_grid(o, stage, D));
}

// For device_bytes: a group's weights in float; its Hessian.
inline size_t float_bytes(const Group& group) { return (size_t)group.O * group.I * sizeof(float); }
inline size_t hessian_bytes(const Group& group) { return (size_t)group.I * group.I * sizeof(float); }

// Of the groups of a stage, or of all stages, that are collected for at a time.
inline size_t hessian_bytes(const Layer& layer, int stage, const QuantOptions& opt) {
    const int first = layer.first_group[stage], n = layer.first_group[stage + 1] - first;
    return std::min(n, opt.groups_at_once) * hessian_bytes(layer.groups[first]);
}
inline size_t hessian_bytes(const Layer& layer, const QuantOptions& opt) {
    size_t bytes = 0;
    for (int stage = 0; stage < STAGES; stage++) bytes += hessian_bytes(layer, stage, opt);
    return bytes;
}

// Delta = W0 - W.
KERNEL weight_difference_kernel(float* Delta /*[rows, I]*/, const float* W0 /*[rows, I]*/, const floatX* W /*[rows, I]*/, int I) {
    const size_t row = (size_t)blockIdx.x * I;
    for (int i = threadIdx.x; i < I; i += blockDim.x) Delta[row + i] = W0[row + i] - to_float(W[row + i]);
}

KERNEL row_dot_kernel(float* out /*[rows]*/, const float* A /*[rows, I]*/, const float* B /*[rows, I]*/, int I) {
    const size_t row = (size_t)blockIdx.x * I;
    float sum = 0;
    for (int i = threadIdx.x; i < I; i += blockDim.x) sum += A[row + i] * B[row + i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// For each linear of the group, (sum over its rows of num) / (... of den); num, den [O] on the device. NaN where one of the sums is not
// finite: an error that is lost in an overflow must not look like none.
inline std::vector<double> row_ratios(const Group& group, const Array<float>& num, const Array<float>& den) {
    std::vector<float> a(num.n), b(den.n);
    copy(a.data(), num.data, num.n), copy(b.data(), den.data, den.n);
    std::vector<double> ratios;
    for (int k = 0; k < group.n_linears; k++) {
        double sum_a = 0, sum_b = 0;
        for (int r = group.linears[k].row; r < group.linears[k].row + group.linears[k].O; r++) sum_a += a[r], sum_b += b[r];
        ratios.push_back(!std::isfinite(sum_a + sum_b) ? NAN : sum_b > 0 ? sum_a / sum_b : 0);
    }
    return ratios;
}

// sqrt of the same: a relative error, from squares.
inline std::vector<double> relative_errors(const Group& group, const Array<float>& num, const Array<float>& den) {
    std::vector<double> errors = row_ratios(group, num, den);
    for (double& e : errors) e = std::isnan(e) ? e : std::sqrt(std::max(e, 0.0));
    return errors;
}

static constexpr int OUTPUT_ERROR_ROWS = 2048;  // at a time

// What output_errors allocates.
inline size_t output_error_bytes(const Group& group) {
    return 2 * (size_t)std::min(group.O, OUTPUT_ERROR_ROWS) * group.I * sizeof(float);
}

// Relative output error of each linear, ||Delta X|| / ||W0 X|| with Delta = W0 - W^, from H alone: ||Delta X||^2 = tr(Delta H Delta^T).
// W0 [O, I] are the weights before, group.W those after, H [I, I] both halves. With D [I, I] of a pair of streams (gptaq.cuh) also
// `objectives`, (tr(Delta H Delta^T) + 2 tr(W0 D Delta^T)) / ||W0 X||^2 of each linear.
inline std::vector<double> output_errors(const Group& group, const float* W0, const float* H, const float* D = nullptr,
                                         std::vector<double>* objectives = nullptr) {
    const int O = group.O, I = group.I, rows_at_once = std::min(O, OUTPUT_ERROR_ROWS);
    Array<float> Delta((size_t)rows_at_once * I, "weight differences"), DeltaH((size_t)rows_at_once * I, "Delta H");
    Array<float> num(O, "output errors"), den(O, "output norms"), objective(D ? O : 0, "objectives");
    for (int r = 0; r < O; r += rows_at_once) {
        const int n = std::min(rows_at_once, O - r);
        const float* W0_r = W0 + (size_t)r * I;
        launch(weight_difference_kernel, n, 256, Delta.data, W0_r, group.W + (size_t)r * I, I);
        gemm_float(DeltaH.data, I, Delta.data, I, H, I, n, I, I, 1.0f, 0.0f);
        launch(row_dot_kernel, n, 256, num.data + r, DeltaH.data, Delta.data, I);
        if (D) {
            gemm_float(DeltaH.data, I, W0_r, I, D, I, n, I, I, 2.0f, 1.0f);  // Delta H + 2 W0 D
            launch(row_dot_kernel, n, 256, objective.data + r, DeltaH.data, Delta.data, I);
        }
        Array<float>& W0H = DeltaH;  // in its place
        gemm_float(W0H.data, I, W0_r, I, H, I, n, I, I, 1.0f, 0.0f);
        launch(row_dot_kernel, n, 256, den.data + r, W0H.data, W0_r, I);
    }
    if (D) *objectives = row_ratios(group, objective, den);
    return relative_errors(group, num, den);
}

// device_bytes of a method that holds two float copies of a group: its weights, and what weight_errors makes of them.
inline size_t two_copies_bytes(const Layer& layer, const QuantOptions&, size_t) {
    size_t most = 0;
    for (const Group& group : layer.groups) most = std::max(most, 2 * float_bytes(group));
    return most;
}

// ||W0 - W^|| / ||W0|| of each linear, W0 [O, I]. One that is not finite ends the run.
inline std::vector<double> weight_errors(const Layer& layer, const Group& group, const float* W0) {
    Array<float> Delta((size_t)group.O * group.I, "weight differences"), num(group.O, "errors"), den(group.O, "norms");
    launch(weight_difference_kernel, group.O, 256, Delta.data, W0, group.W, group.I);
    launch(row_dot_kernel, group.O, 256, num.data, Delta.data, Delta.data, group.I);
    launch(row_dot_kernel, group.O, 256, den.data, W0, W0, group.I);
    const std::vector<double> errors = relative_errors(group, num, den);
    for (int k = 0; k < group.n_linears; k++)
        if (!std::isfinite(errors[k]))
            fail("layer %d, %s: the weights' error is not finite. HINT: check the checkpoint", layer.index, group.linears[k].name);
    return errors;
}
