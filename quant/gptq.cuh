// gptq.cuh: GPTQ (Frantar, Ashkboos, Hoefler, Alistarh: "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
// Transformers", 2022), as IST-DASLab/gptq and GPTQ-for-LLaMa define it.
//
// Columns are quantized one after another, and the error of each is made good by the columns that follow.
//
// The rows of W are independent problems: choose w^ on the grid with the least (w - w^) H (w - w^)^T, where H = (2/n) sum x x^T
// over all tokens of n calibration samples. (The originals call a sample a sequence.) With
//     H^-1 = U^T U,  U upper triangular,
// the columns F from i on have H_FF^-1 = U_FF^T U_FF, whose first row is U_ii U_iF: so its eq. 2's [H_F^-1]_ii is U_ii^2, and the
// best correction of the columns j > i for the error of column i is
//     e_i = (w_i - w^_i) / U_ii,    w_j -= e_i U_ij.
// Work is done in blocks of 128 columns: inside a block column by column, then all later columns at once, W -= E U[block, later].
//
//   1  H from the calibration inputs; a column whose input was always 0 is dead: H_ii = 1, w_i = 0
//   2  --act-order (default): columns in the order of descending H_ii
//   3  damping: every H_ii += damp * mean(diag H), so that the factorization exists
//   4  U = upper Cholesky factor of H^-1      (steps 1 to 4: hessian_collect in quant.cuh, and hessian.cuh)
//   5  for each block: fit the grids of the groups that start in it, on W as it stands now: corrected by earlier blocks, not
//      yet by earlier columns of this one (the original behaves so, and it matters when G < 128); then quantize and correct.
//      Per channel (-g -1) the grid is fitted once, on the row before step 1; --static-groups fits all grids before the first
//      block, and a column then uses the grid of the group it has in the original order. The last group may be narrower.
//   6  undo the order
//
// symbols: W [O, I], X [T, I], H and U [I, I], E [O, 128] errors, G columns that share a grid, maxq = 2^bits - 1. In the code H is the bare
//          sum of x x^T, to which hessian_factor applies 2/n
// defaults: -b 4 -g 128, --act-order, asymmetric, damp 0.01, 128 x 2048 tokens of C4, true-sequential: the paper's flags
// cost: multiply-adds: O I^2 / 2 for the corrections, I^3 / 3 for U (linalg.cuh); T I^2 / 2 for H, which dominates
//
// defines: gptq_solve, gptq_weights; for gptaq.cuh, foem.cuh and rptq.cuh: GPTQ_BLOCK, FixedGrids, GptqResult, gptq_columns,
//          gptq_columns_bytes, gptq_device_bytes, gptq_report
#pragma once
#include "hessian.cuh"
#include "rtn.cuh"

static constexpr int GPTQ_BLOCK = 128;

// W[o, k] = W0[o, order[k]], or 0 if that column is dead.
KERNEL gptq_permute_weights_kernel(float* W /*[O, I]*/, const float* W0 /*[O, I]*/, const int* order /*[I]*/, const int* dead /*[I]*/,
                                   int I) {
    const size_t row = (size_t)blockIdx.x * I;
    for (int k = threadIdx.x; k < I; k += blockDim.x) W[row + k] = dead[order[k]] ? 0 : W0[row + order[k]];
}

// out[o, order[k]] = W[o, k], and the code of that value, where it is asked for.
KERNEL gptq_unpermute_weights_kernel(floatX* out /*[O, I]*/, uint8_t* codes /*[O, I] or null*/, const float* W /*[O, I]*/, const int* order,
                                     const Grid* grids /*[O, n_grids]*/, const int* grid_of_column /*[I]*/, int n_grids, float maxq,
                                     int I) {
    const size_t row = (size_t)blockIdx.x * I;
    for (int k = threadIdx.x; k < I; k += blockDim.x) {
        out[row + order[k]] = to_floatX(W[row + k]);
        if (codes)
            codes[row + order[k]] = (uint8_t)grid_code(W[row + k], grids[(size_t)blockIdx.x * n_grids + grid_of_column[k]], maxq);
    }
}

// One block a row and group: the grid of the columns [c G, (c + 1) G) of W that are there, where c = first + blockIdx.y.
KERNEL gptq_fit_kernel(Grid* grids /*[O, ceil(I / G)]*/, const float* W /*[O, I]*/, int I, int G, int first, float maxq, int sym,
                       bool mse, Scale stored) {
    const int c = first + blockIdx.y, n_grids = (I + G - 1) / G, start = c * G, n = I - start < G ? I - start : G;
    const Grid grid = grid_fit(W + (size_t)blockIdx.x * I + start, n, maxq, sym, mse, stored);
    if (threadIdx.x == 0) grids[(size_t)blockIdx.x * n_grids + c] = grid;
}

// What GPTQ's descendants add. GPTQ itself has neither P nor beta, and never takes the branches `if (more...)` below.
struct GptqTerms {
    const float* P;           // gptaq.cuh, or null: [I, I], column i also changes the later ones by w_i P_ij
    float* V;                 // with P: [O, 128], the block's weights as the columns after the block see them
    float beta;               // foem.cuh, or 0: the share of its drift from W0 that a column gives up
    const float* W0;          // [O, I] in the original order
    const int *order, *dead;  // [I]
};

// Quantizes the columns [start, start + n) of one row, one after another. Thread t owns columns t, t + blockDim, ...: it alone
// corrects them, so that the owner of column i finds it complete; the others need only its error, hence one block_sync a column.
// A thread block has a power of two of threads and one row.
KERNEL gptq_block_kernel(float* W /*[O, I]*/, float* E /*[O, 128]*/, float* losses /*[O]*/, const Grid* grids /*[O, n_grids]*/,
                         const int* grid_of_column /*[I]*/, const float* U /*[I, I]*/, int I, int n_grids, int start, int n,
                         float maxq, GptqTerms more) {
    SHARED float w[GPTQ_BLOCK], e[GPTQ_BLOCK], v[GPTQ_BLOCK];
    float* row = W + (size_t)blockIdx.x * I + start;
    const Grid* row_grids = grids + (size_t)blockIdx.x * n_grids;
    const float* U_block = U + (size_t)start * I + start;
    for (int j = threadIdx.x; j < n; j += blockDim.x) w[j] = row[j];
    float loss = 0;
    for (int i = 0; i < n; i++) {
        const float* U_i = U_block + (size_t)i * I;
        if (i % blockDim.x == threadIdx.x) {
            float drift = 0;
            if (more.beta != 0) {
                const int j = more.order[start + i];
                const float w0 = more.dead[j] ? 0 : more.W0[(size_t)blockIdx.x * I + j];
                if (i > 0) w[i] -= more.beta * (w[i] - w0);
                drift = more.beta * (w[i] - w0);
            }
            const float rounded = grid_round(w[i], row_grids[grid_of_column[start + i]], maxq);
            e[i] = (w[i] - rounded) / U_i[i];
            loss += e[i] * e[i] / 2;
            if (more.beta != 0) e[i] -= drift / U_i[i];
            if (more.P) v[i] = w[i], more.V[(size_t)blockIdx.x * GPTQ_BLOCK + i] = rounded + drift;
            w[i] = rounded;
        }
        block_sync();
        const float e_i = e[i];
        const int first = i + 1 + ((threadIdx.x - i - 1) & (blockDim.x - 1));  // the first column after i that is mine
        for (int j = first; j < n; j += blockDim.x) w[j] -= e_i * U_i[j];
        if (!more.P) continue;
        const float v_i = v[i], *P_i = more.P + (size_t)(start + i) * I + start;
        for (int j = first; j < n; j += blockDim.x) w[j] += v_i * P_i[j];
    }
    for (int j = threadIdx.x; j < n; j += blockDim.x) {
        row[j] = w[j];
        E[(size_t)blockIdx.x * GPTQ_BLOCK + j] = e[j];
    }
    loss = block_sum(loss);
    if (threadIdx.x == 0) losses[blockIdx.x] += loss;
}

// Grids that are there before the first column, in the place of step 5's (rptq.cuh).
struct FixedGrids {
    Array<Grid> grids;              // [O, n]
    int n;
    std::vector<int> of_column;     // [I] in the original order
};

struct GptqResult {
    std::vector<float> losses;  // [O] sum over columns of (w - w^)^2 / U_ii^2 / 2
    double damp;                // the damping that made the factorization succeed
    int dead;                   // dead columns
    GroupCodesArray made;       // opt.pack: what the weights are made of
    std::vector<int> group;     // [I] the grid of each input column
};

// Steps 5 and 6: quantizes group.W [O, I] in place. W0 [O, I] are its weights as floats. P [I, I] (null: none) and beta are a
// descendant's, and so are `fixed` grids, which are moved out of it.
inline GptqResult gptq_columns(Group& group, const float* W0, const HessianFactor& f, const QuantOptions& opt,
                               const float* P = nullptr, double beta = 0, FixedGrids* fixed = nullptr) {
    const int O = group.O, I = group.I;
    const int G = grid_columns(opt, I), n_grids = fixed ? fixed->n : grids_in_row(opt, I);
    const bool per_channel = opt.group_size == -1;
    const float maxq = (float)((1 << opt.wbits) - 1);
    Array<int> order_d(I, "column order"), dead_d(I, "dead columns");
    copy(order_d.data, f.order.data(), I), copy(dead_d.data, f.dead.data(), I);
    Array<float> V(P ? (size_t)O * GPTQ_BLOCK : 0, "GPTQ weights of a block");
    const GptqTerms more = {P, V.data, (float)beta, W0, order_d.data, dead_d.data};

    std::vector<int> grid_of_column(I);
    for (int k = 0; k < I; k++)
        grid_of_column[k] = fixed ? fixed->of_column[f.order[k]] : opt.static_groups ? f.order[k] / G : k / G;
    Array<int> grid_of_column_d(I, "grid of column");
    copy(grid_of_column_d.data, grid_of_column.data(), I);
    Array<Grid> grids = fixed ? std::move(fixed->grids) : Array<Grid>((size_t)O * n_grids, "grids");
    Array<float> W((size_t)O * I, "GPTQ weights"), E((size_t)O * GPTQ_BLOCK, "GPTQ errors"), losses(O, "GPTQ losses");
    fill_zero(losses.data, O);
    const bool fit_before = !fixed && (per_channel || opt.static_groups), fit_in_blocks = !fixed && !fit_before;
    if (fit_before) {
        // Per channel on the row as it is; static groups with the dead columns already 0 (as in the original).
        const float* from = W0;
        if (!per_channel) {
            launch(zero_dead_kernel, O, 256, W.data, W0, dead_d.data, I);
            from = W.data;
        }
        launch(gptq_fit_kernel, dim3(O, n_grids), std::min(G, 256), grids.data, from, I, G, 0, maxq, symmetry(opt), opt.mse, opt.scale);
    }
    launch(gptq_permute_weights_kernel, O, 256, W.data, W0, order_d.data, dead_d.data, I);
    for (int start = 0; start < I; start += GPTQ_BLOCK) {
        const int n_columns = std::min(GPTQ_BLOCK, I - start), end = start + n_columns;
        const int first = ceil_div(start, G), n_starting = ceil_div(end, G) - first;
        if (fit_in_blocks)
            launch(gptq_fit_kernel, dim3(O, n_starting), std::min(G, 256), grids.data, W.data, I, G, first, maxq, symmetry(opt), opt.mse,
                   opt.scale);
        launch(gptq_block_kernel, O, GPTQ_BLOCK, W.data, E.data, losses.data, grids.data, grid_of_column_d.data, f.U.data, I,
               n_grids, start, n_columns, maxq, more);
        const size_t later = (size_t)start * I + end;
        gemm_float(W.data + end, I, E.data, GPTQ_BLOCK, f.U.data + later, I, O, I - end, n_columns, -1.0f, 1.0f);
        if (P) gemm_float(W.data + end, I, V.data, GPTQ_BLOCK, P + later, I, O, I - end, n_columns, 1.0f, 1.0f);
    }

    GptqResult result = {std::vector<float>(O), f.damp, f.n_dead, GroupCodesArray(group, 0, opt), std::vector<int>(I)};
    launch(gptq_unpermute_weights_kernel, O, 256, group.W, result.made.codes.data, W.data, order_d.data, grids.data,
           grid_of_column_d.data, n_grids, maxq, I);
    copy(result.losses.data(), losses.data, O);
    for (int k = 0; k < I; k++) result.group[f.order[k]] = grid_of_column[k];
    if (opt.pack) result.made.grids = std::move(grids);
    return result;
}

// All steps. H [I, I] (both halves) = sum over the tokens of n sequences of x x^T. `where` names the layer and module in errors.
inline GptqResult gptq_weights(Group& group, const float* W0, const float* H, size_t n, const QuantOptions& opt,
                               const std::string& where) {
    return gptq_columns(group, W0, hessian_factor(H, group.I, n, opt.damp, opt.act_order, where), opt);
}

// What gptq_columns allocates: W, E, the grids, and codes where they are asked for.
inline size_t gptq_columns_bytes(const Group& group, const QuantOptions& opt) {
    const size_t grids = (size_t)group.O * grids_in_row(opt, group.I) * sizeof(Grid);
    return float_bytes(group) + (size_t)group.O * GPTQ_BLOCK * sizeof(float) + grids + group_codes_bytes(group, 0, opt);
}

inline size_t gptq_device_bytes(const Layer& layer, const QuantOptions& opt, size_t) {
    size_t most = 0;
    for (int stage = 0; stage < STAGES; stage++) {
        const Group& group = layer.groups[layer.first_group[stage]];
        const size_t hessians = opt.true_sequential ? hessian_bytes(layer, stage, opt) : hessian_bytes(layer, opt);
        most = std::max(most, hessian_solve_bytes(group, hessians, gptq_columns_bytes(group, opt)));
    }
    return most;
}

// A line for each linear. `objectives`, if there are any, stand in for GPTQ's loss, which is no measure for gptaq.cuh.
inline void gptq_report(Quantizer& q, const Layer& layer, int g, const GptqResult& result, const std::vector<double>& errors,
                        const std::vector<double>& objectives, double seconds) {
    const Group& group = layer.groups[g];
    leave_codes(q, group, result.made, result.group);
    for (int k = 0; k < group.n_linears; k++) {
        const Linear& linear = group.linears[k];
        double loss = 0;
        for (int r = linear.row; r < linear.row + linear.O; r++) loss += result.losses[r];
        if (!std::isfinite(loss) || !std::isfinite(errors[k]))
            fail("layer %d, %s: GPTQ's loss is not finite (%g, output error %g). HINT: a higher --damp, or check the checkpoint",
                 layer.index, linear.name, loss, errors[k]);
        std::vector<std::pair<std::string, double>> values = {{"damp", result.damp}};
        if (objectives.empty()) values.push_back({"loss", loss});
        else values.push_back({"objective", objectives[k]});
        q.reports.push_back({layer.index, linear.name, "output", errors[k], seconds * linear.O / group.O, values,
                             hessian_factor_note(q.opt.damp, result.damp, result.dead)});
    }
}

inline void gptq_solve(Quantizer& q, Layer& layer, int g) {
    const Clock clock;
    Group& group = layer.groups[g];
    Hessian h = std::move(q.hessian[g]);  // freed when this returns
    mirror_upper(h.H.data, group.I);
    const Array<float> W0 = checked_weights(layer, group);
    const GptqResult result = gptq_weights(group, W0.data, h.H.data, h.n, q.opt, format("layer %d, %s", layer.index, group.name));
    const std::vector<double> errors = output_errors(group, W0.data, h.H.data);
    gptq_report(q, layer, g, result, errors, {}, clock.seconds());
}
