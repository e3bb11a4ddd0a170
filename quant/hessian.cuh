// hessian.cuh: the factor of the damped Hessian's inverse, which GPTQ, BiLLM and their relatives work with.
//
// From H = sum over the tokens of n sequences of x x^T comes the upper triangular U with (2/n H + damping)^-1 = U^T U:
//   1  H *= 2/n; a column whose input was always 0 is dead: H_ii = 1 (and its weights count as 0)
//   2  if asked for, columns in the order of descending H_ii, or in one that is given
//   3  damping: H += damp * mean(diag H) * I, so that the factorization exists
//   4  U = upper Cholesky factor of H^-1
// The factor 2/n is the originals'. It matters only where there are dead columns, whose 1 is a share of the mean diagonal and has a
// place in the order.
// If the factorization fails all the same, damping goes up: times 10, up to 1.
//
// symbols: H and U [I, I]; in step 3 I is the identity; a sequence is a calibration sample
// defines: hessian_diagonal_kernel, zero_dead_kernel, HessianFactor, hessian_factor, hessian_solve_bytes, hessian_factor_note
#pragma once
#include <algorithm>
#include <numeric>
#include "../cuda/linalg.cuh"
#include "quant.cuh"

// W = W0, and 0 in dead columns.
KERNEL zero_dead_kernel(float* W /*[O, I]*/, const float* W0 /*[O, I]*/, const int* dead /*[I]*/, int I) {
    const size_t row = (size_t)blockIdx.x * I;
    for (int i = threadIdx.x; i < I; i += blockDim.x) W[row + i] = dead[i] ? 0 : W0[row + i];
}

struct HessianFactor {
    Array<float> U;          // [I, I] upper triangular; its columns, like its rows, in `order`
    std::vector<int> order;  // [I] the original column at each place
    std::vector<int> dead;   // [I] 1 where the original column is dead
    int n_dead;
    double damp;             // the damping that made the factorization succeed
};

KERNEL hessian_diagonal_kernel(float* diagonal /*[I]*/, const float* H /*[I, I]*/, int I) {
    for (int i = threadIdx.x; i < I; i += blockDim.x) diagonal[i] = H[(size_t)i * I + i];
}

// A[i, j] = H[order[i], order[j]] * factor, with dead columns' 1 and the damping on the diagonal.
KERNEL hessian_permute_kernel(float* A /*[I, I]*/, const float* H /*[I, I]*/, const int* order /*[I]*/,
                              const float* diagonal /*[I], dead columns replaced*/, float factor, float damp, int I) {
    const int i = order[blockIdx.x];
    for (int k = threadIdx.x; k < I; k += blockDim.x) {
        const int j = order[k];
        A[(size_t)blockIdx.x * I + k] = i == j ? diagonal[i] + damp : factor * H[(size_t)i * I + j];
    }
}

// H [I, I] (both halves) = sum over the tokens of n sequences of x x^T. `where` names the layer and module in errors; `given` [I], or
// null, is the order of the columns.
inline HessianFactor hessian_factor(const float* H, int I, size_t n, double damp, bool descending, const std::string& where,
                                    const std::vector<int>* given = nullptr) {
    const float factor = 2.0f / (float)n;
    HessianFactor f;
    f.dead.assign(I, 0), f.order.resize(I), f.damp = damp;

    // Steps 1 and 2 on the diagonal of H alone.
    std::vector<float> diagonal(I);
    Array<float> diagonal_d(I, "diagonal");
    launch(hessian_diagonal_kernel, 1, 256, diagonal_d.data, H, I);
    copy(diagonal.data(), diagonal_d.data, I);
    double mean = 0;
    for (int i = 0; i < I; i++) {
        if (!std::isfinite(diagonal[i]))
            fail("%s: the Hessian has a non-finite diagonal entry at input channel %d: the calibration activations hold NaN or "
                 "Inf. HINT: check the checkpoint, or raise the bits of earlier layers", where.c_str(), i);
        diagonal[i] *= factor;
        if (diagonal[i] == 0) f.dead[i] = 1, diagonal[i] = 1;
        mean += diagonal[i] / I;
    }
    f.n_dead = (int)std::count(f.dead.begin(), f.dead.end(), 1);
    std::iota(f.order.begin(), f.order.end(), 0);
    if (descending)
        std::stable_sort(f.order.begin(), f.order.end(), [&](int a, int b) { return diagonal[a] > diagonal[b]; });
    if (given) f.order = *given;
    Array<int> order_d(I, "column order");
    copy(diagonal_d.data, diagonal.data(), I), copy(order_d.data, f.order.data(), I);

    // Steps 3 and 4.
    f.U = Array<float>((size_t)I * I, "Cholesky factor");
    for (;;) {
        launch(hessian_permute_kernel, I, 256, f.U.data, H, order_d.data, diagonal_d.data, factor, (float)(f.damp * mean), I);
        if (inverse_cholesky_upper(f.U.data, I)) return f;
        if (f.damp >= 1)
            fail("%s: the Hessian is not positive definite even with damping %g. HINT: more calibration samples (-n), or check "
                 "the checkpoint", where.c_str(), f.damp);
        f.damp = f.damp == 0 ? 0.01 : std::min(1.0, f.damp * 10);
    }
}

// The most that is held on the device while a group is solved: `hessians` bytes of H (those of other groups wait beside it) and W0; with
// them U and what making it takes, or U and what the method holds beside it, or, when U is gone, what output_errors takes.
inline size_t hessian_solve_bytes(const Group& group, size_t hessians, size_t beside_U) {
    const size_t U = hessian_bytes(group);
    return hessians + float_bytes(group) +
           std::max(U + std::max(inverse_cholesky_bytes(group.I), beside_U), output_error_bytes(group));
}

// What was not nominal, for a module's report; damp is the damping that was asked for.
inline std::string hessian_factor_note(double damp, double damp_used, int n_dead) {
    std::string note;
    if (damp_used != damp) note = format("damping raised to %g", damp_used);
    if (n_dead) note += format("%s%d dead input channels", note.empty() ? "" : ", ", n_dead);
    return note;
}
