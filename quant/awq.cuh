// awq.cuh: AWQ (Lin, Tang, Tang, Yang, Dang, Gan, Han: "AWQ: Activation-aware Weight Quantization for LLM Compression and
// Acceleration", 2023), as mit-han-lab/llm-awq defines it.
//
// A few input channels are far larger than the rest, and the rounding errors of their weights make most of a linear's output error.
// For any s > 0,
//     W x = (W diag(s)) (x / s),
// and quantizing the right-hand side instead makes the error of channel j s_j times smaller, as long as s_j w does not stretch the
// range of its grid. So the large channels get a large s, but not too large: s = s_x^r (r: alpha of its eq. 5), where s_x is the mean |x_j| of the
// channel, and r is found by trying. x / s costs nothing, as it is folded into what stands before the linear.
//
// Objective: the least mean squared difference of a module's output from full precision, over r (step 2), then over how far outliers among
// the weights are clamped (step 3).
// The calibration stream is full precision. For each layer:
//   1  collect: the inputs X of the four linear groups, for the whole stream
//   2  up to four searches, each applied before the next begins:
//          what is scaled    what x / s is folded into    judged on the output of
//      a   q k v             gain of the input norm       attention, through o
//      b   o                 rows (and biases) of v       o
//      c   gate up           gain of the post norm        the MLP, through down
//      d   down              rows of up                   down
//      b only if v's weights have o's shape, as where each head has a v of its own; Qwen3's heads share theirs. c of a mixture has one
//      s for all experts, and the router's columns take it, too; d is an expert's own, on the tokens that reach it. In each, for
//      r = 0, 1/20 .. 19/20:
//          s = max(s_x^r, 1e-4), divided by sqrt(max s * min s)
//          W becomes grid(W diag(s)) diag(1/s);    loss = mean squared difference of the output from full precision
//      and the s with the least loss stays (the first of equals). r = 0 is plain rounding.
//   3  clipping, of v, o, gate, up and down: the outliers of a grid may cost its other weights more than they are worth. For each
//      row and G columns, with w_max = max |w| over them: clamp them to +-w_max (1 - i/20), i = 0..9, and keep the i for which
//      sum_j x_j grid(w)_j comes closest to sum_j x_j w_j over the G columns, in mean square over every stride-th of the n tokens,
//      stride = max(1, floor(n / 512)). --no-clip leaves this step out
//   4  W = grid(clamp(W))
// An expert that too few tokens reach (group_starves) has its part in c, but no search of its own and no clipping.
// AWQ's grid, of a row or of a row and a group of G consecutive columns:
//     scale = max(max w - min w, 1e-5) / maxq,    zero = clamp(-round(min w / scale), 0, maxq)
//     q = clamp(round(w / scale) + zero, 0, maxq),    w^ = scale (q - zero)
// which unlike GPTQ's need not hold the 0.
//
// The scales go into float copies of the weights, which are rounded to floatX once, at the end of step 4. What the gain of a norm
// loses by its own rounding to floatX is made good in W: s is taken as gain / floatX(gain / s). Biases of v, divided by s, are
// simply rounded.
//
// symbols: W [O, I], X [n, I] inputs of n tokens, s and s_x [I], G group_size, maxq = 2^bits - 1
// defaults: 20 ratios, 10 of 20 clipping steps, 512 tokens or more to clip by: llm-awq's. -b 4 -g 128, and for calibration C4's
//           documents of at most 512 tokens (awq_calibration_set): what the paper's published code has.
// cost: 22 passes of the calibration stream through each layer: one that collects, one in full precision to compare with and one for
//       each ratio; down, which has a search of its own, once more of all but the first. All else is small
//
// defines: awq_collect, awq_solve; in the order of the steps: AwqInputs, awq_inputs, awq_channel_means, AwqSearch, awq_search, AwqTokens,
//          awq_sample, awq_clip, AwqGroup, awq_layer, awq_device_bytes
#pragma once
#include <array>
#include <functional>
#include "rtn.cuh"

static constexpr int AWQ_RATIOS = 20, AWQ_CLIPS = 10, AWQ_CLIP_TOKENS = 512, AWQ_REPORT_TOKENS = 2048;

// ---------------------------------------------------------------------------------------------------------------------
// The grid

DEVICE float awq_clamp(float w, float limit) { return w < -limit ? -limit : w > limit ? limit : w; }

// w_max (1 - i/20) of the n weights w[0..n), by one block.
DEVICE float awq_clip_limit(const float* w, int n, int i) {
    float most = 0;
    for (int k = threadIdx.x; k < n; k += blockDim.x) most = fabsf(w[k]) > most ? fabsf(w[k]) : most;
    return block_max(most) * (float)(1 - i / 20.0);
}

// The grid of the n weights w[0..n), clamped to +-limit, by one block. Rounding to it is grid_round's, of rtn.cuh.
DEVICE Grid awq_fit(const float* w, int n, float limit, float maxq, Scale stored) {
    float lo = INFINITY, hi = -INFINITY;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const float x = awq_clamp(w[i], limit);
        lo = x < lo ? x : lo;
        hi = x > hi ? x : hi;
    }
    lo = block_min(lo), hi = block_max(hi);
    const float range = hi - lo, scale = round_scale((range > 1e-5f ? range : 1e-5f) / maxq, stored), zero = -rintf(lo / scale);
    return Grid{scale, zero < 0 ? 0 : zero > maxq ? maxq : zero};
}

// out = grid(clamp(W)) diag(1/s), one block a row and group. clip [O, I / G] are the i of the limits (null: no clamping); s [I] may
// be null: 1.
KERNEL awq_quantize_kernel(floatX* out /*[O, I]*/, const float* W /*[O, I]*/, const float* s, const int* clip, int I, int G,
                           float maxq, Scale stored, GroupCodes made) {
    const size_t start = (size_t)blockIdx.x * I + (size_t)blockIdx.y * G;
    const float* w = W + start;
    const float limit = clip ? awq_clip_limit(w, G, clip[(size_t)blockIdx.x * gridDim.y + blockIdx.y]) : INFINITY;
    const Grid grid = awq_fit(w, G, limit, maxq, stored);
    for (int i = threadIdx.x; i < G; i += blockDim.x) {
        const float rounded = grid_round(awq_clamp(w[i], limit), grid, maxq);
        out[start + i] = to_floatX(s ? rounded / s[(size_t)blockIdx.y * G + i] : rounded);
        if (made.codes) made.codes[start + i] = (uint8_t)grid_code(awq_clamp(w[i], limit), grid, maxq);
    }
    if (made.grids && threadIdx.x == 0) made.grids[(size_t)blockIdx.x * gridDim.y + blockIdx.y] = grid;
}

// ---------------------------------------------------------------------------------------------------------------------
// Step 1

// Appends a chunk to the inputs of the group's stage. How many tokens an expert is given shows only in the end, but how many all of a
// stage are given is known: so they share one array, in which an expert's rows come chunk by chunk.
inline void awq_collect(Quantizer& q, const Group& group, int g, const floatX* X /*[n, I]*/, int n) {
    const int stage = q.stage_of[g];
    const size_t rows = q.n_calibration * (group.expert < 0 ? 1 : (size_t)q.K), at = q.n_inputs[stage];
    if (at == 0) q.inputs[stage] = Array<floatX>(rows * group.I, "AWQ's inputs");
    if (at + n > rows) fail("%s: %zu inputs are more than the %zu of the calibration tokens", group.name, at + n, rows);
    copy(q.inputs[stage].data + at * group.I, X, (size_t)n * group.I);
    q.spans[g].push_back({at, (size_t)n});
    q.n_inputs[stage] += (size_t)n;
}

struct AwqInputs {       // of one group, all of its tokens
    const floatX* data;  // [n, I]
    size_t n;
    Array<floatX> own;   // theirs, where they have been put together
};

// The inputs of group g: those of the stage where no other group has a part in them, else a copy of its rows.
inline AwqInputs awq_inputs(const Quantizer& q, const Group& group, int g) {
    const Array<floatX>& all = q.inputs[q.stage_of[g]];
    if (group.expert < 0) return {all.data, all.n / group.I, {}};
    AwqInputs in = {nullptr, 0, Array<floatX>(q.n_tokens[g] * group.I, "an expert's inputs")};
    for (const Span& span : q.spans[g]) {
        copy(in.own.data + in.n * group.I, all.data + span.first * group.I, span.n * group.I);
        in.n += span.n;
    }
    in.data = in.own.data;
    return in;
}

static constexpr int AWQ_SLAB = 512, AWQ_TILE = 256;

// sums[b, j] = sum of |x_j| over the tokens of slab b; one block has 256 channels of a slab.
KERNEL awq_channel_sums_kernel(float* sums /*[slabs, I]*/, const floatX* X /*[n, I]*/, size_t n, int I) {
    SHARED float sum[AWQ_TILE];
    const int j0 = blockIdx.x * AWQ_TILE, n_channels = I - j0 < AWQ_TILE ? I - j0 : AWQ_TILE;
    const size_t first = (size_t)blockIdx.y * AWQ_SLAB, end = first + AWQ_SLAB < n ? first + AWQ_SLAB : n;
    for (int j = threadIdx.x; j < n_channels; j += blockDim.x) sum[j] = 0;
    for (size_t t = first; t < end; t++)
        for (int j = threadIdx.x; j < n_channels; j += blockDim.x) sum[j] += fabsf(to_float(X[t * I + j0 + j]));
    for (int j = threadIdx.x; j < n_channels; j += blockDim.x) sums[(size_t)blockIdx.y * I + j0 + j] = sum[j];
}

// s_x [I]: the mean |x| of each channel of X [n, I]. `where` names the layer and module in errors.
inline std::vector<float> awq_channel_means(const floatX* X, size_t n, int I, const std::string& where) {
    std::vector<double> sum(I, 0);
    std::vector<float> means(I);
    const size_t slabs = ceil_div(n, (size_t)AWQ_SLAB);
    Array<float> sums(slabs * I, "channel sums");
    launch(awq_channel_sums_kernel, dim3(ceil_div(I, AWQ_TILE), (unsigned)slabs), AWQ_TILE, sums.data, X, n, I);
    std::vector<float> host(sums.n);
    copy(host.data(), sums.data, sums.n);
    for (int j = 0; j < I; j++)
        for (size_t b = 0; b < slabs; b++) sum[j] += host[b * I + j];
    for (int j = 0; j < I; j++) {
        means[j] = (float)(sum[j] / n);
        if (!std::isfinite(means[j]))
            fail("%s: the calibration activations hold NaN or Inf at input channel %d. HINT: check the checkpoint", where.c_str(),
                 j);
    }
    return means;
}

// ---------------------------------------------------------------------------------------------------------------------
// Step 2

// The candidate s [I] with r = k / 20.
inline std::vector<float> awq_scales(const std::vector<float>& s_x, int k) {
    std::vector<float> s;
    for (float x : s_x) s.push_back(std::max(powf(x, (float)((double)k / AWQ_RATIOS)), 1e-4f));
    const float middle = sqrtf(*std::max_element(s.begin(), s.end()) * *std::min_element(s.begin(), s.end()));
    for (float& x : s) x /= middle;
    return s;
}

KERNEL awq_divide_rows_kernel(float* W /*[O, I]*/, const float* s /*[O]*/, int I) {
    const size_t row = (size_t)blockIdx.x * I;
    for (int i = threadIdx.x; i < I; i += blockDim.x) W[row + i] /= s[blockIdx.x];
}

KERNEL awq_squared_difference_kernel(float* out /*[rows]*/, const floatX* A /*[rows, width]*/, const floatX* B, int width) {
    const size_t row = (size_t)blockIdx.x * width;
    float sum = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        const float d = to_float(A[row + i]) - to_float(B[row + i]);
        sum += d * d;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

struct AwqSearch {
    std::array<double, AWQ_RATIOS> losses;  // of the candidates r = k / 20
    int best = 0;                           // the k with the least
    std::vector<float> s;                   // [I] its scales
};

// What a search scales: a group, and its weights [O, I] in float.
struct AwqScaled {
    Group* group;
    const Array<float>* W;
};

// The search for groups of one shape that share their scales. `judge` writes the judged output [n, width] with the groups' W as they are
// at the time of the call; it is called first with the weights as they were, then once a candidate. The groups' W are left holding the last.
inline AwqSearch awq_search(const std::vector<AwqScaled>& groups, const std::vector<float>& s_x, const QuantOptions& opt, size_t n,
                            int width, const std::function<void(floatX*)>& judge, const std::string& where) {
    const int O = groups[0].group->O, I = groups[0].group->I, G = grid_columns(opt, I);
    const float maxq = (float)((1 << opt.wbits) - 1);
    Array<floatX> full(n * width, "AWQ's full-precision output"), out(n * width, "AWQ's candidate output");
    Array<float> scaled((size_t)O * I, "scaled weights"), s_d(I, "scales"), squares(n, "squared differences");
    std::vector<float> host(n);
    AwqSearch best;
    judge(full.data);
    for (int k = 0; k < AWQ_RATIOS; k++) {
        const std::vector<float> s = awq_scales(s_x, k);
        copy(s_d.data, s.data(), I);
        for (const AwqScaled& of : groups) {
            launch(scale_columns_kernel, O, 256, scaled.data, of.W->data, s_d.data, I);
            launch(awq_quantize_kernel, dim3(O, I / G), std::min(G, 256), of.group->W, scaled.data, s_d.data, (const int*)nullptr, I, G,
               maxq, opt.scale, GroupCodes());
        }
        judge(out.data);
        launch(awq_squared_difference_kernel, (unsigned)n, 256, squares.data, out.data, full.data, width);
        copy(host.data(), squares.data, n);
        double loss = 0;
        for (float x : host) loss += x;
        loss /= (double)n * width;
        if (!std::isfinite(loss))
            fail("%s: the loss of AWQ's scales with ratio %d/%d is not finite. HINT: check the checkpoint", where.c_str(), k,
                 AWQ_RATIOS);
        best.losses[k] = loss;
        if (k == 0 || loss < best.losses[best.best]) best.best = k, best.s = s;
    }
    return best;
}

// gain [C] /= s, rounded to floatX; s becomes what the rounded gain really was divided by.
inline void awq_divide_gain(floatX* gain, std::vector<float>& s) {
    std::vector<floatX> host(s.size());
    copy(host.data(), gain, s.size());
    for (size_t j = 0; j < s.size(); j++) {
        const float before = to_float(host[j]);
        host[j] = to_floatX(before / s[j]);
        if (to_float(host[j]) != 0) s[j] = before / to_float(host[j]);
    }
    copy(gain, host.data(), s.size());
}

// ---------------------------------------------------------------------------------------------------------------------
// Steps 3 and 4

// Xt[j, t] = X[t * stride, j] / s[j]. Reads go along rows; writes go down columns, in tiles, so that their lines are still in a cache.
KERNEL awq_sample_kernel(float* Xt /*[I, m]*/, const floatX* X /*[n, I]*/, const float* s /*[I]*/, int I, int m, int stride) {
    const int tile = 32, j0 = blockIdx.x * tile, t0 = blockIdx.y * tile;
    for (int k = threadIdx.x; k < tile * tile; k += blockDim.x) {
        const int j = j0 + k % tile, t = t0 + k / tile;  // consecutive threads read consecutive j
        if (j < I && t < m) Xt[(size_t)j * m + t] = to_float(X[(size_t)t * stride * I + j]) / s[j];
    }
}

struct AwqTokens {    // some of the calibration tokens, of all calibration samples
    Array<float> Xt;  // [I, m], m tokens
    int m;
};

// Tokens of a sample are every stride-th of n: `least` of them, or up to twice as many where n is no multiple of it; all, where there are fewer.
inline int awq_stride(size_t n, int least) { return (int)std::max<size_t>(1, n / least); }
inline int awq_sample_size(size_t n, int least) { return (int)ceil_div(n, (size_t)awq_stride(n, least)); }

// The tokens 0, stride, 2 stride .. of X / s.
inline AwqTokens awq_sample(const floatX* X /*[n, I]*/, size_t n, const std::vector<float>& s /*[I]*/, int least) {
    const int stride = awq_stride(n, least), m = awq_sample_size(n, least), I = (int)s.size();
    AwqTokens sample = {Array<float>((size_t)I * m, "AWQ's sampled inputs"), m};
    Array<float> s_d(I, "scales");
    copy(s_d.data, s.data(), I);
    launch(awq_sample_kernel, dim3(ceil_div(I, 32), ceil_div(m, 32)), 256, sample.Xt.data, X, s_d.data, I, m, stride);
    return sample;
}

// D = W - grid(clamp(W)) for the limits w_max (1 - i/20), i = clip; one block a row and group.
KERNEL awq_clip_difference_kernel(float* D /*[O, I]*/, const float* W /*[O, I]*/, int I, int G, int clip, float maxq,
                                  Scale stored) {
    const size_t start = (size_t)blockIdx.x * I + (size_t)blockIdx.y * G;
    const float* w = W + start;
    const float limit = awq_clip_limit(w, G, clip);
    const Grid grid = awq_fit(w, G, limit, maxq, stored);
    for (int i = threadIdx.x; i < G; i += blockDim.x) D[start + i] = w[i] - grid_round(awq_clamp(w[i], limit), grid, maxq);
}

// Where the row's sum of squares is the least so far, `clip` is the best i of its group c. One block a row.
KERNEL awq_keep_clip_kernel(int* best /*[O, groups]*/, float* least /*[O, groups]*/, const float* P /*[O, m]*/, int clip, int c,
                            int groups, int m) {
    const float* row = P + (size_t)blockIdx.x * m;
    float sum = 0;
    for (int t = threadIdx.x; t < m; t += blockDim.x) sum += row[t] * row[t];
    sum = block_sum(sum);
    const size_t at = (size_t)blockIdx.x * groups + c;
    if (threadIdx.x == 0 && (clip == 0 || sum < least[at])) least[at] = sum, best[at] = clip;
}

// The best i for each row and group of W [O, I]: [O, I / G].
inline Array<int> awq_clip(const float* W, int O, int I, const AwqTokens& x, const QuantOptions& opt) {
    const int G = grid_columns(opt, I), groups = I / G;
    const float maxq = (float)((1 << opt.wbits) - 1);
    Array<float> D((size_t)O * I, "clipping differences"), P((size_t)O * x.m, "clipping errors");
    Array<float> least((size_t)O * groups, "least errors");
    Array<int> best((size_t)O * groups, "best clipping");
    for (int clip = 0; clip < AWQ_CLIPS; clip++) {
        launch(awq_clip_difference_kernel, dim3(O, groups), std::min(G, 256), D.data, W, I, G, clip, maxq, opt.scale);
        for (int c = 0; c < groups; c++) {
            gemm_float(P.data, x.m, D.data + (size_t)c * G, I, x.Xt.data + (size_t)c * G * x.m, x.m, O, x.m, G, 1.0f, 0.0f);
            launch(awq_keep_clip_kernel, O, 256, best.data, least.data, P.data, clip, c, groups, x.m);
        }
    }
    return best;
}

// out[o] = sum over a row's outputs of (scale[o] P)^2; one block a row.
KERNEL awq_row_squares_kernel(float* out /*[O]*/, const float* P /*[O, m]*/, const float* scale /*[O]*/, int m) {
    const float *row = P + (size_t)blockIdx.x * m, factor = scale[blockIdx.x];
    float sum = 0;
    for (int t = threadIdx.x; t < m; t += blockDim.x) sum += factor * row[t] * (factor * row[t]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// Relative output error of each linear, ||(W - W^) x|| / ||W x|| over a sample of tokens; W [O, I] in float, W^ = group.W. Row o,
// which has been divided by row_scale[o], counts as it was before.
inline std::vector<double> awq_output_errors(const Group& group, const Array<float>& W, const std::vector<float>& row_scale,
                                             const AwqTokens& x) {
    const int O = group.O, I = group.I, rows_at_once = std::min(O, OUTPUT_ERROR_ROWS);
    Array<float> D((size_t)rows_at_once * I, "weight differences"), P((size_t)rows_at_once * x.m, "outputs");
    Array<float> num(O, "output errors"), den(O, "output norms"), scale(O, "row scales");
    copy(scale.data, row_scale.data(), O);
    for (int r = 0; r < O; r += rows_at_once) {
        const int n = std::min(rows_at_once, O - r);
        const float* W_r = W.data + (size_t)r * I;
        auto row_squares = [&](float* out, const float* A) {
            gemm_float(P.data, x.m, A, I, x.Xt.data, x.m, n, x.m, I, 1.0f, 0.0f);
            launch(awq_row_squares_kernel, n, 256, out + r, P.data, scale.data + r, x.m);
        };
        row_squares(den.data, W_r);
        launch(weight_difference_kernel, n, 256, D.data, W_r, group.W + (size_t)r * I, I);
        row_squares(num.data, D.data);
    }
    return relative_errors(group, num, den);
}

// ---------------------------------------------------------------------------------------------------------------------
// A layer

// What has become of a group.
struct AwqGroup {
    Array<float> W;                      // [O, I] in float: here the scales go, and group.W follows in step 4
    std::vector<float> s, row_scale;     // [I] what its inputs are divided by, [O] what its outputs are
    AwqSearch search;                    // none (no s) for o where v's weights are not of its shape, and for a starved expert's down
    std::vector<std::vector<int>> clip;  // for each linear, [O, I / G] the i of its limits; empty for q and k, and with --no-clip
    double seconds = 0;
};

// Finds the scales a[g].s that the groups first .. end - 1 share, whose inputs are X. `judge` as in awq_search; its output is [n, width].
inline void awq_find_scales(Quantizer& q, Layer& layer, int first, int end, const floatX* X /*[n_X, I]*/, size_t n_X,
                            std::vector<AwqGroup>& a, size_t n, int width, const std::function<void(floatX*)>& judge) {
    const std::string where = format("layer %d, %s", layer.index, end - first == 1 ? layer.groups[first].name : "experts");
    const std::vector<float> s_x = awq_channel_means(X, n_X, layer.groups[first].I, where);
    std::vector<AwqScaled> groups;
    for (int g = first; g < end; g++) groups.push_back({&layer.groups[g], &a[g].W});
    const AwqSearch found = awq_search(groups, s_x, q.opt, n, width, judge, where);
    for (int g = first; g < end; g++) a[g].search = found, a[g].s = found.s;
}

// The rows of `linear` and their biases /= s [linear.O].
inline void awq_divide_rows(const Group& group, const Linear& linear, AwqGroup& a, const std::vector<float>& s) {
    Array<float> s_d(linear.O, "scales");
    copy(s_d.data, s.data(), linear.O);
    launch(awq_divide_rows_kernel, linear.O, 256, a.W.data + (size_t)linear.row * group.I, s_d.data, group.I);
    if (group.bias) launch(divide_kernel, 1, 256, group.bias + linear.row, s_d.data, linear.O);
    std::copy(s.begin(), s.end(), a.row_scale.begin() + linear.row);
}

// Steps 3 and 4 of group g, whose inputs are X.
inline void awq_clip_and_round(Quantizer& q, Layer& layer, int g, const AwqInputs& X, AwqGroup& a) {
    Group& group = layer.groups[g];
    const int I = group.I, G = grid_columns(q.opt, I);
    const float maxq = (float)((1 << q.opt.wbits) - 1);
    GroupCodesArray made(group, I / G, q.opt);
    const bool starved = group_starves(q, group, g);
    AwqTokens x = {};
    if (q.opt.clip && !starved) x = awq_sample(X.data, X.n, a.s, AWQ_CLIP_TOKENS);
    for (int k = 0; k < group.n_linears; k++) {
        const Linear& linear = group.linears[k];
        const size_t first = (size_t)linear.row * I;
        Array<int> clip;
        const bool is_q_or_k = g == 0 && k < 2;
        if (q.opt.clip && !starved && !is_q_or_k) clip = awq_clip(a.W.data + first, linear.O, I, x, q.opt);
        launch(awq_quantize_kernel, dim3(linear.O, I / G), std::min(G, 256), group.W + first, a.W.data + first,
               (const float*)nullptr, clip.data, I, G, maxq, q.opt.scale, made.from(first, (size_t)linear.row * (I / G)));
        a.clip.push_back(std::vector<int>(clip.n));
        copy(a.clip[k].data(), clip.data, clip.n);
    }
    leave_codes(q, group, made, columns_in_groups(I, G));
}

inline void awq_report(Quantizer& q, const Layer& layer, int g, const AwqInputs& X, const AwqGroup& a) {
    const Group& group = layer.groups[g];
    const bool starved = group_starves(q, group, g);
    const std::vector<double> errors =
        starved ? weight_errors(layer, group, a.W.data)
                : awq_output_errors(group, a.W, a.row_scale, awq_sample(X.data, X.n, a.s, AWQ_REPORT_TOKENS));
    for (int k = 0; k < group.n_linears; k++) {
        const Linear& linear = group.linears[k];
        if (!std::isfinite(errors[k]))
            fail("layer %d, %s: AWQ's output error is not finite. HINT: check the checkpoint", layer.index, linear.name);
        ModuleReport report = {
            layer.index, linear.name, starved ? "weight" : "output", errors[k], a.seconds * linear.O / group.O, {}, ""};
        if (starved) report.starved = true, report.note = format("%zu tokens: rounded to nearest", q.n_tokens[g]);
        if (!a.search.s.empty())
            report.values = {{"ratio", (double)a.search.best / AWQ_RATIOS},
                             {"loss_before", a.search.losses[0]},
                             {"loss_after", a.search.losses[a.search.best]}};
        if (!a.clip[k].empty()) {
            const double whole = (double)std::count(a.clip[k].begin(), a.clip[k].end(), 0);
            report.values.push_back({"clipped", 1 - whole / a.clip[k].size()});
        }
        q.reports.push_back(report);
    }
}

// Steps 2 to 4 on a layer whose inputs have been collected.
inline std::vector<AwqGroup> awq_layer(Quantizer& q, Layer& layer) {
    const int gate_up = layer.first_group[2], down = layer.first_group[3], n_groups = (int)layer.groups.size();
    Group &qkv = layer.groups[0], &o = layer.groups[1];
    std::vector<AwqGroup> a(n_groups);
    for (int g = 0; g < n_groups; g++) {
        const Group& group = layer.groups[g];
        const size_t n = q.inputs[q.stage_of[g]].n / group.I, there = q.n_inputs[q.stage_of[g]];
        if (n == 0 || there != n)
            fail("layer %d, %s: expected inputs of %zu tokens, found %zu", layer.index, group.name, q.n_calibration, there);
        a[g].W = checked_weights(layer, group);
        a[g].s.assign(group.I, 1), a[g].row_scale.assign(group.O, 1);
    }
    auto timed = [&](int first, int end, const std::function<void()>& work) {
        const Clock clock;
        work();
        device_wait();
        const double seconds = clock.seconds();
        for (int g = first; g < end; g++) a[g].seconds += seconds / (end - first);
    };
    // Of group g alone, on its own output.
    auto find_own = [&](int g) {
        const Group& group = layer.groups[g];
        const AwqInputs X = awq_inputs(q, group, g);
        awq_find_scales(q, layer, g, g + 1, X.data, X.n, a, X.n, group.O,
                        [&](floatX* out) { gemm(out, X.data, group.W, (int)X.n, group.O, group.I); });
    };
    timed(0, 1, [&] {
        awq_find_scales(q, layer, 0, 1, q.inputs[0].data, q.n_inputs[0], a, q.n_calibration, o.O,
                        [&](floatX* out) { attention_forward(q, layer, q.inputs[0].data, out); });
        awq_divide_gain(layer.input_norm, a[0].s);
        scale_columns(a[0].W, a[0].s);
    });
    const Linear& v = qkv.linears[2];
    if (v.O == o.O && qkv.I == o.I)
        timed(1, 2, [&] {
            find_own(1);
            awq_divide_rows(qkv, v, a[0], a[1].s);
            scale_columns(a[1].W, a[1].s);
        });
    timed(gate_up, down, [&] {
        awq_find_scales(q, layer, gate_up, down, q.inputs[2].data, q.n_inputs[2], a, q.n_calibration, layer.groups[down].O,
                        [&](floatX* out) { mlp_forward(q, layer, out); });
        std::vector<float> s = a[gate_up].s;
        awq_divide_gain(layer.post_norm, s);
        Array<float> s_d(s.size(), "scales");
        copy(s_d.data, s.data(), s.size());
        scale_router(layer, s_d.data);
        for (int g = gate_up; g < down; g++) {
            a[g].s = s;
            scale_columns(a[g].W, a[g].s);
        }
    });
    for (int g = down; g < n_groups; g++) {
        if (group_starves(q, layer.groups[g], g)) continue;
        const int before = gate_up + g - down;
        timed(g, g + 1, [&] {
            find_own(g);
            awq_divide_rows(layer.groups[before], layer.groups[before].linears[1], a[before], a[g].s);
            scale_columns(a[g].W, a[g].s);
        });
    }
    for (int g = 0; g < n_groups; g++) {
        const AwqInputs X = awq_inputs(q, layer.groups[g], g);
        timed(g, g + 1, [&] { awq_clip_and_round(q, layer, g, X, a[g]); });
        awq_report(q, layer, g, X, a[g]);
        q.spans[g].clear();
    }
    for (int stage = 0; stage < STAGES; stage++) q.inputs[stage].clear(), q.n_inputs[stage] = 0;
    return a;
}

// All inputs and all weights in float; and either the outputs that a search compares and its candidate, or what clipping or the
// report make of a sample of the inputs. Of experts it is assumed that each has its even share of the tokens.
inline size_t awq_device_bytes(const Layer& layer, const QuantOptions& opt, size_t n) {
    const size_t C = layer.groups[0].I, x = sizeof(floatX);
    size_t kept = 0, most = 0;
    for (int stage = 0; stage < STAGES; stage++) {
        const Group& first = layer.groups[layer.first_group[stage]];
        kept += n * (first.expert < 0 ? 1 : (size_t)layer.K) * first.I * x;
    }
    for (const Group& group : layer.groups) {
        const size_t I = group.I, G = grid_columns(opt, group.I), experts = (size_t)(layer.first_group[3] - layer.first_group[2]);
        const size_t own = group.expert < 0 ? 0 : ceil_div(n * layer.K, experts) * I * x;
        const size_t m_clip = awq_sample_size(n, AWQ_CLIP_TOKENS), m_report = awq_sample_size(n, AWQ_REPORT_TOKENS);
        kept += float_bytes(group);
        const size_t search = 2 * n * C * x + float_bytes(group);
        size_t O = 0;  // of the largest linear
        for (int k = 0; k < group.n_linears; k++) O = std::max(O, (size_t)group.linears[k].O);
        const size_t clip = opt.clip ? (I * m_clip + O * (I + m_clip + 2 * I / G)) * sizeof(float) : 0;
        const size_t report = (I * m_report + std::min(group.O, OUTPUT_ERROR_ROWS) * (I + m_report)) * sizeof(float);
        most = std::max({most, search, own + clip + group_codes_bytes(group, I / G, opt), own + report});
    }
    return kept + most;
}

inline void awq_solve(Quantizer& q, Layer& layer) { awq_layer(q, layer); }
