// rtn.cuh: round to nearest, and the affine grid that GPTQ uses as well.
//
// Each weight becomes the nearest value of its grid, whatever the inputs are: the least |w^ - w| that the grid allows, weight by weight.
//
//   1  fit the grid of a row, or of a row and a group of G consecutive columns, which two numbers fix, scale and zero
//   2  round every weight to it
//
// Step 1. With the minimum and the maximum over the grid's weights w:
//     lo = min(min w, 0), hi = max(max w, 0)      (lo, hi = -1, +1 where both are 0)
//     scale = (hi - lo) / maxq                     maxq = 2^bits - 1
//     zero  = round(-lo / scale)                   the code of 0, so that 0 is always on the grid
// --sym: hi = max(|lo|, hi), lo = -hi where lo < 0, zero = (maxq + 1) / 2.
// --sym-signed (QuaRot's, SpinQuant's): scale = max |w| / (2^(bits-1) - 1), zero = 2^(bits-1): at 4 bits the codes of the largest are +-7 of -8 .. 7.
// --mse: shrink lo and hi by p = 1 - i/100, i = 0..79, and keep the p with the least sum |w^ - w|^2.4 over the grid's weights.
// Where the scale will be stored in fewer bits (--format) it is rounded before zero and q are taken, and zero can't exceed maxq.
// Step 2.  q = clamp(round(w / scale) + zero, 0, maxq),  w^ = scale (q - zero);  round is half to even.
//
// symbols: W [O, I], G columns that share a grid (the last ones of a row may be fewer), q code, w^ rounded weight, maxq = 2^bits - 1
// defaults: asymmetric, no --mse: quant.py of IST-DASLab/gptq and of GPTQ-for-LLaMa, from which the paper's code descends. -b 4 -g -1:
//           the paper's RTN rows are per channel, as its script ignores the group size. It also fits and rounds in bf16; this is float32
//           throughout, which is 3 % nearer at 8 bits and as near at 4 and 3 (RESULTS.md)
// cost: a few passes over the weights; --mse 80 more
//
// defines: Grid, grid_fit, grid_code, grid_round, round_scale, GroupCodes, GroupCodesArray, group_codes_bytes, leave_codes,
//          columns_in_groups, rtn_solve
#pragma once
#include "quant.cuh"

struct Grid {
    float scale, zero;
};

// The code of the value on the grid that is nearest to w, and that value.
DEVICE float grid_code(float w, Grid grid, float maxq) {
    const float q = rintf(w / grid.scale) + grid.zero;
    return q < 0 ? 0 : q > maxq ? maxq : q;  // a NaN stays one
}
DEVICE float grid_round(float w, Grid grid, float maxq) { return grid.scale * (grid_code(w, grid, maxq) - grid.zero); }

// The stored number that is nearest to a scale x > 0, ties to even; never 0. Servers cast gptq's F16 scales to the dtype of the model, as
// vLLM's gptq_marlin does: with HALF a model in bf16 has the scales that were measured, and one in F16 too.
HOST_DEVICE float round_scale(float x, Scale stored) {
    if (stored == Scale::F32) return x;
    if (stored == Scale::HALF && x < 0x1p-17f) return fmaxf(rintf(x * 0x1p24f), 1.0f) * 0x1p-24f;  // a multiple of F16's least
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits += 0x7FFF + (bits >> 16 & 1);
    bits = bits >> 16 << 16;
    memcpy(&x, &bits, 4);
    return fmaxf(x, FLT_MIN);
}

DEVICE Grid grid_of_range(float lo, float hi, float maxq, int sym, Scale stored) {
    const float scale = round_scale(sym == 2 ? hi / ((maxq - 1) / 2) : (hi - lo) / maxq, stored);
    return Grid{scale, sym ? (maxq + 1) / 2 : fminf(rintf(-lo / scale), maxq)};
}

// The grid of the n weights w[0..n), fitted by one block.
DEVICE Grid grid_fit(const float* w, int n, float maxq, int sym, bool mse, Scale stored) {
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
    Grid best = grid_of_range(lo, hi, maxq, sym, stored);
    if (!mse) return best;
    float least = INFINITY;
    for (int shrink = 0; shrink < 80; shrink++) {
        const float p = (float)(1 - shrink / 100.0);
        const Grid grid = grid_of_range(rounded_product(p, lo), rounded_product(p, hi), maxq, sym, stored);
        float error = 0;
        for (int i = threadIdx.x; i < n; i += blockDim.x) error += powf(fabsf(grid_round(w[i], grid, maxq) - w[i]), 2.4f);
        error = block_sum(error);
        if (error < least) least = error, best = grid;
    }
    return best;
}

// What a group's weights are made of, on the device; both null where nobody asked.
struct GroupCodes {
    uint8_t* codes = nullptr;  // [O, I]
    Grid* grids = nullptr;     // [O, n]
};

// Its memory, for a method to fill; `n` grids a row.
struct GroupCodesArray {
    Array<uint8_t> codes;
    Array<Grid> grids;
    GroupCodesArray() {}
    GroupCodesArray(const Group& group, int n, const QuantOptions& opt) {
        if (!opt.pack) return;
        codes = Array<uint8_t>((size_t)group.O * group.I, "codes");
        grids = Array<Grid>((size_t)group.O * n, "grids");
    }
    GroupCodes from(size_t code, size_t grid) const {  // from this code and this grid on
        return codes.n ? GroupCodes{codes.data + code, grids.data + grid} : GroupCodes();
    }
};

// For device_bytes: what GroupCodesArray takes, n grids a row.
inline size_t group_codes_bytes(const Group& group, size_t n, const QuantOptions& opt) {
    return opt.pack ? (size_t)group.O * (group.I + n * sizeof(Grid)) : 0;
}

// Leaves each linear's codes and grids to whoever packs them. column_group [I] is the grid of each input column.
inline void leave_codes(Quantizer& q, const Group& group, const GroupCodesArray& from, const std::vector<int>& column_group) {
    if (!q.opt.pack) return;
    const size_t I = group.I, n = from.grids.n / group.O;
    for (int k = 0; k < group.n_linears; k++) {
        const size_t O = group.linears[k].O, row = group.linears[k].row;
        std::vector<Grid> grids(O * n);
        PackedLinear p = {group.linears[k].name, O, I, n, q.opt.wbits, std::vector<uint8_t>(O * I), {}, {}, column_group};
        copy(p.codes.data(), from.codes.data + row * I, O * I);
        copy(grids.data(), from.grids.data + row * n, O * n);
        for (const Grid& grid : grids) p.scales.push_back(grid.scale), p.zeros.push_back((uint8_t)grid.zero);
        q.packed.push_back(std::move(p));
    }
}

// Columns in their own order, G a group.
inline std::vector<int> columns_in_groups(int I, int G) {
    std::vector<int> group(I);
    for (int i = 0; i < I; i++) group[i] = i / G;
    return group;
}

// Steps 1 and 2, one block a row and group of columns: launched on (O, ceil(I / G)).
KERNEL rtn_kernel(floatX* W /*[O, I]*/, const float* W0 /*[O, I]*/, int I, int G, float maxq, int sym, bool mse, Scale stored,
                  GroupCodes made) {
    const int first = blockIdx.y * G, n = I - first < G ? I - first : G;
    const size_t start = (size_t)blockIdx.x * I + first;
    const Grid grid = grid_fit(W0 + start, n, maxq, sym, mse, stored);
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        W[start + i] = to_floatX(grid_round(W0[start + i], grid, maxq));
        if (made.codes) made.codes[start + i] = (uint8_t)grid_code(W0[start + i], grid, maxq);
    }
    if (made.grids && threadIdx.x == 0) made.grids[(size_t)blockIdx.x * gridDim.y + blockIdx.y] = grid;
}

inline void rtn_solve(Quantizer& q, Layer& layer, int g) {
    const Clock clock;
    Group& group = layer.groups[g];
    const int G = grid_columns(q.opt, group.I), n_grids = grids_in_row(q.opt, group.I);
    const float maxq = (float)((1 << q.opt.wbits) - 1);
    Array<float> W0 = checked_weights(layer, group);
    {
        GroupCodesArray made(group, n_grids, q.opt);
        launch(rtn_kernel, dim3(group.O, n_grids), std::min(G, 256), group.W, W0.data, group.I, G, maxq, symmetry(q.opt), q.opt.mse,
               q.opt.scale, made.from(0, 0));
        leave_codes(q, group, made, columns_in_groups(group.I, G));
    }
    std::vector<double> errors = weight_errors(layer, group, W0.data);
    const double seconds = clock.seconds();
    for (int k = 0; k < group.n_linears; k++) {
        const Linear& linear = group.linears[k];
        q.reports.push_back({layer.index, linear.name, "weight", errors[k], seconds * linear.O / group.O, {}, ""});
    }
}
