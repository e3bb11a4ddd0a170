// flow_grid.cuh: few-bit grids for values that flow through the model: inputs of linears, keys and values.
//
// A place where values flow has rows (a token's, or a token's heads) and one description of how they are rounded. The values that share a
// grid are a run of G neighbours of a row, or the members of a cluster of channels; b bits, clip c.
//     symmetric    s = c max(max |x|, 1e-5) / (2^(b-1) - 1)
//                  q = clamp(round(x / s), -2^(b-1), 2^(b-1) - 1),      x^ = s q
//     asymmetric   lo = c min x, hi = c max x, both drawn to 0 first if the grid must hold it (-1 and 1 if both are 0)
//                  s = (hi - lo) / (2^b - 1),  z = round(-lo / s)
//                  q = clamp(round(x / s) + z, 0, 2^b - 1),             x^ = s (q - z)
//     static       s and z of each channel are given:
//                  q = clamp(round(x / s) + z, -2^(b-1), 2^(b-1) - 1),  x^ = s (q - z)
// round is half to even. Where all values of an asymmetric grid are the same, it is drawn to 0, and with c = 1 holds them exactly.
//
// Sources: SmoothQuant's per-token grid is the symmetric one with c = 1; QuaRot, SpinQuant and GPTAQ use all of the first two (whole rows
// hold the 0, groups need not); static ones and clusters are RPTQ's.
//
// defines: FlowGrid, flow_grid_apply
#pragma once
#include <cfloat>
#include "device.cuh"

struct FlowGrid {
    int bits = 16;  // 16: the values stay as they are
    bool sym = true;
    bool zero = true;  // asymmetric: the grid holds the 0
    float clip = 1;
    int group = -1;  // neighbours that share a grid; -1: a whole row
    // Clusters in the place of runs: cluster k are the channels order[starts[k] .. starts[k + 1]).
    const int *order = nullptr, *starts = nullptr;  // [I], [n_clusters + 1], on the device
    int n_clusters = 0;
    // Static grids.
    const float *scale = nullptr, *zero_point = nullptr;  // [I], on the device
};

DEVICE float flow_clamp(float q, float lo, float hi) { return q < lo ? lo : q > hi ? hi : q; }  // a NaN stays one

template <bool ORDERED> DEVICE void flow_round_run(floatX* row, const int* order, int begin, int end, const FlowGrid& g) {
    const float top = (float)((1 << (g.sym ? g.bits - 1 : g.bits)) - 1);
    float lo = INFINITY, hi = -INFINITY;
#pragma omp simd reduction(min : lo) reduction(max : hi)
    for (int k = begin + threadIdx.x; k < end; k += blockDim.x) {
        const float x = to_float(row[ORDERED ? order[k] : k]);
        lo = x < lo ? x : lo, hi = x > hi ? x : hi;
    }
    lo = block_min(lo), hi = block_max(hi);
    float scale, zero = 0, bottom;
    if (g.sym) {
        float most = hi > -lo ? hi : -lo;
        most = most > 1e-5f ? most : 1e-5f;
        scale = g.clip * most / top, bottom = -top - 1;
    } else {
        const bool drawn = g.zero || lo == hi;
        lo = rounded_product(g.clip, drawn && lo > 0 ? 0 : lo), hi = rounded_product(g.clip, drawn && hi < 0 ? 0 : hi);
        if (lo == 0 && hi == 0) lo = -1, hi = 1;
        scale = (hi - lo) / top;
        if (scale < FLT_MIN) scale = 1;  // a range too small to divide by: all become 0
        zero = rintf(-lo / scale), bottom = 0;
    }
    for (int k = begin + threadIdx.x; k < end; k += blockDim.x) {
        floatX* x = row + (ORDERED ? order[k] : k);
        *x = to_floatX(scale * (flow_clamp(rintf(to_float(*x) / scale) + zero, bottom, top) - zero));
    }
}

// One block a row and grid.
KERNEL flow_grid_kernel(floatX* x /*[rows, I], ld apart*/, size_t ld, int I, FlowGrid g) {
    floatX* row = x + (size_t)blockIdx.x * ld;
    const int c = blockIdx.y;
    if (g.order) flow_round_run<true>(row, g.order, g.starts[c], g.starts[c + 1], g);
    else if (g.group == -1) flow_round_run<false>(row, nullptr, 0, I, g);
    else flow_round_run<false>(row, nullptr, c * g.group, (c + 1) * g.group, g);
}

KERNEL flow_static_kernel(floatX* x /*[rows, I], ld apart*/, size_t ld, int I, FlowGrid g) {
    floatX* row = x + (size_t)blockIdx.x * ld;
    const float top = (float)((1 << (g.bits - 1)) - 1);
    for (int i = threadIdx.x; i < I; i += blockDim.x) {
        const float q = flow_clamp(rintf(to_float(row[i]) / g.scale[i]) + g.zero_point[i], -top - 1, top);
        row[i] = to_floatX(g.scale[i] * (q - g.zero_point[i]));
    }
}

// Rounds x.
inline void flow_grid_apply(floatX* x /*[rows, I], ld apart*/, int rows, size_t ld, int I, const FlowGrid& g) {
    if (g.bits >= 16) return;
    if (g.group != -1 && (g.group < 1 || I % g.group != 0))
        fail("a grid of %d neighbours does not divide rows of %d values", g.group, I);
    if (g.scale) return launch(flow_static_kernel, rows, 256, x, ld, I, g);
    const int grids = g.order ? g.n_clusters : g.group == -1 ? 1 : I / g.group;
    launch(flow_grid_kernel, dim3(rows, grids), I / grids > 128 ? 256 : 64, x, ld, I, g);
}
