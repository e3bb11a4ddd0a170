// rtn.cuh: round to nearest, and the affine grid that GPTQ uses as well.
//
// The grid of a row, or of a row and a group of G consecutive columns, is fixed by two numbers:
//     lo = min(min w, 0), hi = max(max w, 0)      (lo, hi = -1, +1 where both are 0)
//     scale = (hi - lo) / maxq                     maxq = 2^bits - 1
//     zero  = round(-lo / scale)                   the code of 0, so that 0 is always on the grid
// --sym: hi = max(|lo|, hi), lo = -hi where lo < 0, zero = (maxq + 1) / 2.
// A weight becomes  q = clamp(round(w / scale) + zero, 0, maxq),  w^ = scale (q - zero);  round is half to even.
// --mse: shrink lo and hi by p = 1 - i/100, i = 0..79, and keep the p with the least sum |w^ - w|^2.4 over the grid's weights.
//
// Source: quant.py of IST-DASLab/gptq and of GPTQ-for-LLaMa, from which the paper's code descends. The paper's own RTN rows are
// per channel: its script ignores the group size there (and rounds in bf16; this is float32 throughout).
//
// symbols: W [O, I], G columns that share a grid (the last ones of a row may be fewer), maxq
// defines: Grid, grid_fit, grid_round, rtn_solve
#pragma once
#include <chrono>
#include "quant.cuh"

struct Grid {
    float scale, zero;
};

// The value on the grid that is nearest to w.
DEVICE float grid_round(float w, Grid grid, float maxq) {
    float q = rintf(w / grid.scale) + grid.zero;
    q = q < 0 ? 0 : q > maxq ? maxq : q;  // a NaN stays one
    return grid.scale * (q - grid.zero);
}

DEVICE Grid grid_of_range(float lo, float hi, float maxq, bool sym) {
    const float scale = (hi - lo) / maxq;
    return Grid{scale, sym ? (maxq + 1) / 2 : rintf(-lo / scale)};
}

// The grid of the n weights w[0..n), fitted by one block.
DEVICE Grid grid_fit(const float* w, int n, float maxq, bool sym, bool mse) {
    float lo = 0, hi = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        lo = w[i] < lo ? w[i] : lo;
        hi = w[i] > hi ? w[i] : hi;
    }
    lo = block_min(lo), hi = block_max(hi);
    if (sym) {
        hi = hi > -lo ? hi : -lo;
        if (lo < 0) lo = -hi;
    }
    if (lo == 0 && hi == 0) lo = -1, hi = 1;
    Grid best = grid_of_range(lo, hi, maxq, sym);
    if (!mse) return best;
    float least = INFINITY;
    for (int shrink = 0; shrink < 80; shrink++) {
        const float p = (float)(1 - shrink / 100.0);
        const Grid grid = grid_of_range(p * lo, p * hi, maxq, sym);
        float error = 0;
        for (int i = threadIdx.x; i < n; i += blockDim.x) error += powf(fabsf(grid_round(w[i], grid, maxq) - w[i]), 2.4f);
        error = block_sum(error);
        if (error < least) least = error, best = grid;
    }
    return best;
}

// One block a row and group of columns: grid (O, ceil(I / G)).
KERNEL rtn_kernel(floatX* W /*[O, I]*/, const float* W0 /*[O, I]*/, int I, int G, float maxq, bool sym, bool mse) {
    const int first = blockIdx.y * G, n = I - first < G ? I - first : G;
    const size_t start = (size_t)blockIdx.x * I + first;
    const Grid grid = grid_fit(W0 + start, n, maxq, sym, mse);
    for (int i = threadIdx.x; i < n; i += blockDim.x) W[start + i] = to_floatX(grid_round(W0[start + i], grid, maxq));
}

inline void rtn_solve(Quantizer& q, Layer& layer, int g) {
    auto start = std::chrono::steady_clock::now();
    Group& group = layer.groups[g];
    const int G = grid_columns(q.opt, group.I), n_grids = grids_in_row(q.opt, group.I);
    const float maxq = (float)((1 << q.opt.wbits) - 1);
    Array<float> W0 = checked_weights(layer, group);
    launch(rtn_kernel, dim3(group.O, n_grids), std::min(G, 256), group.W, W0.data, group.I, G, maxq, q.opt.sym, q.opt.mse);
    std::vector<double> errors = weight_errors(layer, group, W0.data);
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    for (int k = 0; k < group.n_linears; k++) {
        const Linear& linear = group.linears[k];
        q.reports.push_back({layer.index, linear.name, "weight", errors[k], seconds * linear.O / group.O, {}, ""});
    }
}
