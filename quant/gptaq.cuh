// gptaq.cuh: GPTAQ (Li, Yin, Lee, Xiao, Panda: "GPTAQ: Efficient Finetuning-Free Quantization for Asymmetric Calibration", 2025), as
// Intelligent-Computing-Lab-Yale/GPTAQ defines it.
//
// By the time a group is solved, its inputs x have passed through quantized layers. GPTQ asks the group to do to x what its original
// weights w do to x; GPTAQ asks it to do what they do in the full-precision model, to that model's inputs x~ of the same tokens:
//     least ||w^ X - w X~||^2    instead of    ||w^ X - w X||^2
// so that a layer makes good what the layers before it have lost. Two streams of the same tokens walk side by side (Order::PAIRED):
//     x   through everything that has been quantized, the earlier groups of its own layer included, as GPTQ's does
//     x~  through the original weights only
// and leave, over all tokens of n calibration sequences,
//     H = (2/n) sum x x^T        D = (2/n) sum (x~ - x) x^T        D_ij: the channel i of the difference, j of x
// With U as in gptq.cuh (H^-1 = U^T U after dead columns, order and damping; D's columns and rows in the same order, its dead columns 0),
//     P = alpha triu(D U^T, 1) U                                       strictly upper triangular
// has in row i alpha D_iF H_FF^-1 for the columns F after i: their least-squares answer to w_i (x~_i - x_i), the part of the target that
// w^_i x_i cannot give (its eq. 18 writes L for U^T). While the columns
// of a block are quantized one after another, w_i before its rounding changes them by + w_i P_ij beside GPTQ's - e_i U_ij; the columns
// after the block see the block's weights as they have become: W[:, later] += W^ P[block, later] - E U[block, later]. (So the original
// code; its paper's equation 18 has the weights before rounding there too, which gives other codes.) All else is GPTQ's; P follows its step 4.
//
// In a mixture of experts x~ follows its own router, as the full-precision model does, and x its own. What is paired is a token at an
// expert: for every token that x's router sends to e, gate and up of e have x~'s input of the same token beside x's, wherever x~ itself
// goes, and down has what the original e makes of that input. So w^ still mends what w would have given there; that another expert would
// have been asked, no weight of e can mend, and the routers' weights are not quantized. An expert that too few tokens reach has no D, and
// the identity for H: it is rounded to nearest.
//
// The derivation gives alpha = 1. The authors' code has 0.25 throughout, "most stable". alpha = 0 is GPTQ, and needs no second stream.
//
// Reported for a module is what it minimizes, up to a constant and relative to ||W0 X||^2, with Delta = W0 - W^:
//     ||W0 X~ - W^ X||^2 = tr(Delta H Delta^T) + 2 tr(W0 D Delta^T) + a constant                          "objective"
// which is below the square of the output error where D's term helps, and below 0 where the module mends more than it breaks. GPTQ's
// loss is no measure here: it grows with every change to w.
//
// symbols: W [O, I], X, X~ [T, I], H, D, U and P [I, I]. In the code H and D are bare sums; hessian_factor and gptaq_correction apply 2/n
// defaults: alpha 0.25, else GPTQ's
// cost: a second forward pass, T I^2 multiply-adds for D (twice H's), 2/3 I^3 for P, O I^2 / 2 for its corrections; of a mixture the
// products of gate and up once more
//
// defines: pair_collect, gptaq_correction, gptaq_weights, gptaq_solve, gptaq_device_bytes; for foem.cuh: gptaq_solve_with
#pragma once
#include "gptq.cuh"

static constexpr int GPTAQ_ROWS = 256;  // of P that are made at a time

KERNEL input_difference_kernel(floatX* difference /*[n, I]*/, const floatX* X_full, const floatX* X, int I) {
    const size_t row = (size_t)blockIdx.x * I;
    for (int i = threadIdx.x; i < I; i += blockDim.x)
        difference[row + i] = to_floatX(to_float(X_full[row + i]) - to_float(X[row + i]));
}

// H += X^T X and D += (X~ - X)^T X. The difference is formed in float and rounded once to floatX, so that D is a product of the machine's
// fastest kind. That costs 2^-9 of the difference, where x and x~ themselves are rounded to 2^-9 of something larger.
inline void pair_collect(Quantizer& q, const Group& group, int g, const floatX* X /*[n, I]*/, const floatX* X_full /*[n, I]*/,
                         int n) {
    const size_t I = group.I;
    hessian_collect(q, group, g, X, n);
    Hessian& h = q.hessian[g];
    if (h.D.n == 0) {
        h.D = Array<float>(I * I, "GPTAQ's D");
        fill_zero(h.D.data, h.D.n);
    }
    if (q.difference.n < n * I) q.difference.clear(), q.difference = Array<floatX>(n * I, "differences of inputs");
    launch(input_difference_kernel, n, 256, q.difference.data, X_full, X, group.I);
    cross_add(h.D.data, q.difference.data, X, n, group.I);
}

// out[i, k] = D[order[first + i], order[first + k]], 0 in dead columns; one block a row.
KERNEL gptaq_permute_kernel(float* out /*[rows, width]*/, const float* D /*[I, I]*/, const int* order, const int* dead, int first,
                            int width, int I) {
    const float* row = D + (size_t)order[first + blockIdx.x] * I;
    for (int k = threadIdx.x; k < width; k += blockDim.x) {
        const int j = order[first + k];
        out[(size_t)blockIdx.x * width + k] = dead[j] ? 0 : row[j];
    }
}

KERNEL gptaq_strictly_upper_kernel(float* T /*[rows, width]*/, int width) {
    for (int j = threadIdx.x; j < width && j <= (int)blockIdx.x; j += blockDim.x) T[(size_t)blockIdx.x * width + j] = 0;
}

// any[i] = 1 where row i of D [I, I] holds anything but 0.
KERNEL gptaq_any_kernel(float* any /*[I]*/, const float* D, int I) {
    float most = 0;
    for (int j = threadIdx.x; j < I; j += blockDim.x)
        if (D[(size_t)blockIdx.x * I + j] != 0) most = 1;
    most = block_max(most);
    if (threadIdx.x == 0) any[blockIdx.x] = most;
}

// P [I, I], of which only the strict upper half is filled, some rows at a time; nothing where D is 0, as at q k v of the first layer,
// whose two inputs are the same. D [I, I] = sum over the tokens of n sequences of (x~ - x) x^T, in the original order.
inline Array<float> gptaq_correction(const float* D, const HessianFactor& f, size_t n, double alpha) {
    const int I = (int)f.order.size();
    Array<float> any_d(I, "rows of D");
    std::vector<float> any(I);
    launch(gptaq_any_kernel, I, 256, any_d.data, D, I);
    copy(any.data(), any_d.data, I);
    if (std::count(any.begin(), any.end(), 0.0f) == I) return Array<float>();

    const int rows = std::min(I, GPTAQ_ROWS);
    Array<float> P((size_t)I * I, "GPTAQ's P"), D_rows((size_t)rows * I, "rows of D"), T((size_t)rows * I, "rows of D U^T");
    Array<int> order(I, "column order"), dead(I, "dead columns");
    copy(order.data, f.order.data(), I), copy(dead.data, f.dead.data(), I);
    for (int first = 0; first < I; first += rows) {
        // (D U^T)_ij is wanted for j > i only, and sums D_ik U_jk over k >= j, as U is upper triangular: columns before `first` have no part.
        const int m = std::min(rows, I - first), width = I - first;
        const size_t corner = (size_t)first * I + first;
        launch(gptaq_permute_kernel, m, 256, D_rows.data, D, order.data, dead.data, first, width, I);
        gemm_float(T.data, width, D_rows.data, width, f.U.data + corner, I, m, width, width, 1.0f, 0.0f, true);
        launch(gptaq_strictly_upper_kernel, m, 256, T.data, width);
        gemm_float(P.data + corner, I, T.data, width, f.U.data + corner, I, m, width, width, (float)(alpha * 2 / (double)n), 0.0f);
    }
    return P;
}

// As gptq_weights; h has D too, unless alpha is 0 or too few tokens reach the expert. beta is foem.cuh's.
inline GptqResult gptaq_weights(Group& group, const float* W0, const Hessian& h, const QuantOptions& opt, double beta,
                                const std::string& where) {
    const HessianFactor f = hessian_factor(h.H.data, group.I, h.n, opt.damp, opt.act_order, where);
    Array<float> P;
    if (opt.alpha > 0 && h.D.n) P = gptaq_correction(h.D.data, f, h.n, opt.alpha);
    return gptq_columns(group, W0, f, opt, P.data, beta);
}

inline void gptaq_solve_with(Quantizer& q, Layer& layer, int g, double beta) {
    const Clock clock;
    Group& group = layer.groups[g];
    Hessian h = std::move(q.hessian[g]);  // freed when this returns
    mirror_upper(h.H.data, group.I);
    const Array<float> W0 = checked_weights(layer, group);
    const GptqResult result = gptaq_weights(group, W0.data, h, q.opt, beta, format("layer %d, %s", layer.index, group.name));
    std::vector<double> objectives;
    const std::vector<double> errors = output_errors(group, W0.data, h.H.data, h.D.n ? h.D.data : nullptr, &objectives);
    gptq_report(q, layer, g, result, errors, objectives,
                clock.seconds());
}

inline void gptaq_solve(Quantizer& q, Layer& layer, int g) { gptaq_solve_with(q, layer, g, 0); }

// H, D, and beside U: P, with what it is made from or what the columns take.
inline size_t gptaq_device_bytes(const Layer& layer, const QuantOptions& opt, size_t n_calibration) {
    if (opt.alpha == 0) return gptq_device_bytes(layer, opt, n_calibration);
    size_t most = 0;
    for (int stage = 0; stage < STAGES; stage++) {
        const Group& group = layer.groups[layer.first_group[stage]];
        const size_t row = group.I * sizeof(float), rows = 2 * std::min(group.I, GPTAQ_ROWS) * row;
        const size_t columns = gptq_columns_bytes(group, opt) + (size_t)group.O * GPTQ_BLOCK * sizeof(float);
        most = std::max(most, hessian_solve_bytes(group, 2 * hessian_bytes(layer, stage, opt), hessian_bytes(group) + std::max(rows, columns)));
    }
    return most;
}
