// smoothquant.cuh: SmoothQuant (Xiao, Lin, Seznec, Wu, Demouth, Han: "SmoothQuant: Accurate and Efficient Post-Training
// Quantization for Large Language Models", 2022), as mit-han-lab/smoothquant defines it.
//
// Weights and activations are both quantized to few bits, so that the product can be done in integers. Activations have a few
// channels that are far larger than the rest; one scale a token then leaves the others almost no levels. But
//     y = W x = (W diag(s)) (diag(1/s) x)          for any s > 0,
// and x comes from a norm whose gains can be divided by s for free. So part of the difficulty is moved into the weights:
//     s_j = a_j^alpha / w_j^(1 - alpha),    a_j = max over tokens |x_j|,  w_j = max over rows |W_j|    (w_j and s_j at least 1e-5)
// With alpha = 1/2 channel j is then equally large on both sides: a_j / s_j = w_j s_j.
//
//   1  a_j from the full-precision model's calibration tokens, for the two linear groups behind a norm (q k v, and gate up)
//   2  norm gain /= s, W[:, j] *= s_j, one s for all linears that share the norm; o and down are not smoothed
//   3  weights per output row on the symmetric grid:  scale = max(max |w|, 1e-5) / qmax,  w^ = round(w / scale) scale,
//      qmax = 2^(bits-1) - 1 (no zero point; a clamp matters only where a packed file rounds the scale down)
//   4  activations per token on the same grid while the model runs (cuda/flow_grid.cuh), for the inputs of all linears
//
// symbols: W [O, I], X [n, I], a, w, s [I]
// defaults: alpha 0.5 (the authors'), 8 bits of weights and of activations (the paper's first SmoothQuant rows). --no-smooth leaves
//           steps 1 and 2 out, which is what the paper's published script does.
// cost: one pass over the calibration inputs
//
// defines: smoothquant_collect, smoothing_factors, smooth_stage, symmetric_grid, smoothquant_solve
#pragma once
#include "rtn.cuh"

static constexpr int COLUMN_MAX_ROWS = 128;  // that one block of column_max_kernel looks at

// out[b, j] = max |x| over the rows [128 b, 128 b + 128) of column j. A block has 256 columns and 128 rows.
template <class T> KERNEL column_max_kernel(float* out /*[ceil(n / 128), I]*/, const T* X /*[n, I]*/, int n, int I) {
    const int first = blockIdx.y * COLUMN_MAX_ROWS, last = first + COLUMN_MAX_ROWS < n ? first + COLUMN_MAX_ROWS : n;
    const int end = (int)(blockIdx.x + 1) * 256 < I ? (int)(blockIdx.x + 1) * 256 : I;
    for (int j = blockIdx.x * 256 + threadIdx.x; j < end; j += blockDim.x) {
        float most = 0;
        for (int t = first; t < last; t++) {
            const float x = fabsf(to_float(X[(size_t)t * I + j]));
            most = x > most || x != x ? x : most;  // a NaN stays
        }
        out[(size_t)blockIdx.y * I + j] = most;
    }
}

// most [I] = max(most, x), where a NaN stays.
inline void keep_most(std::vector<float>& most, const float* x /*[I]*/) {
    for (size_t j = 0; j < most.size(); j++)
        if (x[j] > most[j] || x[j] != x[j]) most[j] = x[j];
}

// max |x| of every column of X [n, I], on the host.
template <class T> std::vector<float> column_max(const T* X, int n, int I) {
    const int blocks = ceil_div(n, COLUMN_MAX_ROWS);
    Array<float> partial((size_t)blocks * I, "column maxima");
    launch(column_max_kernel<T>, dim3(ceil_div(I, 256), blocks), 256, partial.data, X, n, I);
    std::vector<float> rows((size_t)blocks * I), most(I, 0);
    copy(rows.data(), partial.data, rows.size());
    for (int b = 0; b < blocks; b++) keep_most(most, &rows[(size_t)b * I]);
    return most;
}

// Step 1: q.channel_max[g] = a. Groups that are not behind a norm are only watched for NaN and Inf.
inline void smoothquant_collect(Quantizer& q, const Group& group, int g, const floatX* X /*[n, I]*/, int n) {
    q.channel_max[g].resize(group.I, 0);
    keep_most(q.channel_max[g], column_max(X, n, group.I).data());
}

// s [I] from a and w [I].
inline std::vector<float> smoothing_factors(const std::vector<float>& a, const std::vector<float>& w, double alpha) {
    std::vector<float> s(a.size());
    for (size_t j = 0; j < s.size(); j++)
        s[j] = std::max((float)(std::pow(a[j], alpha) / std::pow(std::max(w[j], 1e-5f), 1 - alpha)), 1e-5f);
    return s;
}

// Step 2 but for the groups' weights: s of a stage behind a norm, or nothing where no inputs were collected. Experts share the norm, so
// a and w are over all of them, and w over the router as well, which is multiplied by s and stays unquantized.
inline std::vector<float> smooth_stage(Quantizer& q, Layer& layer, int stage) {
    const int first = layer.first_group[stage], end = layer.first_group[stage + 1], I = layer.groups[first].I;
    std::vector<float> a, w(I, 0);
    for (int g = first; g < end; g++) {
        if (q.channel_max[g].empty()) continue;
        if (a.empty()) a.assign(I, 0);
        keep_most(a, q.channel_max[g].data());
    }
    if (a.empty() || (stage != 0 && stage != 2)) return {};
    for (int g = first; g < end; g++) keep_most(w, column_max(layer.groups[g].W, layer.groups[g].O, I).data());
    if (stage == 2 && layer.router) keep_most(w, column_max(layer.router, router_rows(layer), I).data());
    const std::vector<float> s = smoothing_factors(a, w, q.opt.alpha);
    Array<float> s_d(I, "smoothing factors");
    copy(s_d.data, s.data(), I);
    launch(divide_kernel, 1, 256, stage == 0 ? layer.input_norm : layer.post_norm, s_d.data, I);
    if (stage == 2) scale_router(layer, s_d.data);
    return s;
}

// Step 3, one block a row: out = W on the symmetric grid, whose code of 0 is qmax + 1.
KERNEL symmetric_grid_kernel(floatX* out /*[O, I]*/, const float* W /*[O, I]*/, int I, float qmax, Scale stored, GroupCodes made) {
    const float* row = W + (size_t)blockIdx.x * I;
    float most = 1e-5f;
    for (int i = threadIdx.x; i < I; i += blockDim.x) most = fabsf(row[i]) > most ? fabsf(row[i]) : most;
    const float scale = round_scale(block_max(most) / qmax, stored);
    for (int i = threadIdx.x; i < I; i += blockDim.x) {
        const float code = rintf(row[i] / scale), q = code > qmax ? qmax : code < -qmax ? -qmax : code;
        out[(size_t)blockIdx.x * I + i] = to_floatX(q * scale);
        if (made.codes) made.codes[(size_t)blockIdx.x * I + i] = (uint8_t)(q + qmax + 1);
    }
    if (made.grids && threadIdx.x == 0) made.grids[blockIdx.x] = Grid{scale, qmax + 1};
}

inline void symmetric_grid(Quantizer& q, Group& group, const float* W /*[O, I]*/) {
    GroupCodesArray made(group, 1, q.opt);
    launch(symmetric_grid_kernel, group.O, 256, group.W, W, group.I, (float)((1 << (q.opt.wbits - 1)) - 1), q.opt.scale,
           made.from(0, 0));
    leave_codes(q, group, made, std::vector<int>(group.I, 0));
}

inline void smoothquant_solve(Quantizer& q, Layer& layer) {
    for (int stage = 0; stage < STAGES; stage++) {
        const int first = layer.first_group[stage], end = layer.first_group[stage + 1];
        for (int g = first; g < end; g++) {
            check_weights(layer, layer.groups[g]);
            for (size_t j = 0; j < q.channel_max[g].size(); j++)
                if (!(q.channel_max[g][j] <= FLT_MAX))
                    fail("layer %d, %s: input channel %zu of the calibration activations holds NaN or Inf. HINT: check the checkpoint",
                         layer.index, layer.groups[g].name, j);
        }
        const std::vector<float> s = smooth_stage(q, layer, stage);
        for (int g = first; g < end; g++) {
            const Clock clock;
            Group& group = layer.groups[g];
            Array<float> W = weights_to_float(group);
            std::vector<std::pair<std::string, double>> values;
            if (!s.empty()) {
                scale_columns(W, s);
                values = {{"smooth_min", *std::min_element(s.begin(), s.end())},
                          {"smooth_max", *std::max_element(s.begin(), s.end())}};
            }
            q.channel_max[g].clear();
            symmetric_grid(q, group, W.data);
            const std::vector<double> errors = weight_errors(layer, group, W.data);
            const double seconds = clock.seconds();
            for (int k = 0; k < group.n_linears; k++)
                q.reports.push_back(
                    {layer.index, group.linears[k].name, "weight", errors[k], seconds * group.linears[k].O / group.O, values, ""});
        }
    }
}
