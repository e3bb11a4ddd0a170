// billm.cuh: BiLLM (Huang, Liu, Qin, Li, Zhang, Liu, Magno, Qi: "BiLLM: Pushing the Limit of Post-Training Quantization for
// LLMs", 2024), as Aaronhuang-778/BiLLM defines it: weights of about one bit.
//
// Weights look like a bell curve with few important columns, so they are parted in three sets, each binarized on its own, and the error
// of a block of columns is made good by the columns that follow, as in GPTQ.
//
// Objective: GPTQ's, for each row the least (w - w^) H (w - w^)^T; the sets of a block are chosen to approximate its saliency S best.
// A set of weights of one row is binarized to two values around its mean m, at the distance a that is best for these signs:
//     x^ = m + a sign(x - m),    m = mean x,  a = mean |x - m|        (its paper has no m; sign 0 = 0; of an empty set nothing is left)
// What that leaves over can be binarized again ("residual"): order 2, two bits. R(A, mask, order) is A approximated so, row by
// row, over the mask's entries, and 0 elsewhere.
// The sets are whole salient columns, with order 2; of the rest the large weights (the tails) and the small ones (the middle), with
// order 1. In a block of 128 all columns are binarized at once, and only the columns after the block make good its errors.
//
//   1  H from the calibration inputs, its dead columns and damping, U upper triangular with H^-1 = U^T U (quant/hessian.cuh)
//   for each block of 128 columns, W1 being the block as corrected so far, U1 the block of U on the diagonal:
//   2  saliency S = W1^2 / diag(U1)^2, column by column    (its paper: [H^-1]_ii for U_ii, its code: U_ii; --salient-metric
//      magnitude: S = W1)
//   3  rank the columns by the sum over rows of |S|. The n_salient best are salient, of 1 .. 49 the number with the least
//      |S - R(S, salient, 2) - R(S, rest, 2)|^2: it is S that is approximated here, not yet W
//   4  of the rest the entries with |S| >= t are large. Candidates for t are 81 quantiles of the whole block's |S|, 0.10 to 0.90,
//      with 0 in the salient columns' place; t has the least |S - R(S, small, 1) - R(S, large, 1) - R(S, salient, 2)|^2
//   5  W1^ = R(W1, small, 1) + R(W1, large, 1) + R(W1, salient, 2)
//   6  e_i = (w_i - w^_i) / U_ii for every column of the block, and W[:, j] -= E U[block, j] for all later columns j
//
// All linears of a layer take H from one pass through the unquantized layer. A linear is a problem of its own (its rows decide
// which columns are salient), but the linears of a group share H and so U.
// Bits are reported as its paper counts them, 1 + the salient share of the columns. That leaves out what a packed form needs
// besides: one bit a weight to tell large from small, and 8 numbers a row and block.
//
// symbols: W [O, I], H and U [I, I], S and E [O, 128]; in the code n columns of a block (the last may be narrower), k a
//          column's place in step 3's ranking
// defaults: Hessian metric, damp 0.01, block 128, 128 x 2048 tokens of C4: the paper's flags
// cost: 49 + 81 candidates, each a few passes over the weights, one sort of them; multiply-adds: O I^2 / 2 for the
//       corrections, I^3 / 3 for U, T I^2 / 2 for H
//
// defines: billm_solve, billm_weights, billm_device_bytes
#pragma once
#include "../cuda/sort.cuh"
#include "hessian.cuh"

static constexpr int BILLM_BLOCK = 128, BILLM_MOST_SALIENT = 49, BILLM_SPLITS = 81;

// ---------------------------------------------------------------------------------------------------------------------
// R, for the values of one row. Sets are short: a thread does one on its own, and the threads of a block try as many candidates
// at once.

// One binarization: x^ = mean + alpha sign(x - mean).
struct Binary {
    float mean, alpha;
};

DEVICE float binary_round(Binary b, float x) {
    const float d = x - b.mean;
    return b.mean + (d > 0 ? b.alpha : d < 0 ? -b.alpha : 0);
}

// Fitted to x(j) for those j of 0 .. n - 1 for which in(j).
template <class Value, class In> DEVICE Binary binary_fit(int n, Value x, In in) {
    float count = 0, sum = 0, deviation = 0;
    for (int j = 0; j < n; j++) {
        count += in(j) ? 1 : 0;
        sum += in(j) ? x(j) : 0;
    }
    if (count == 0) return Binary{0, 0};
    const float mean = sum / count;
    for (int j = 0; j < n; j++) deviation += in(j) ? fabsf(x(j) - mean) : 0;
    return Binary{mean, deviation / count};
}

// Order 2: a binarization, and one of what it leaves over.
struct Binary2 {
    Binary first, second;
};

DEVICE float binary2_round(Binary2 b, float x) {
    const float once = binary_round(b.first, x);
    return once + binary_round(b.second, x - once);
}

DEVICE Binary2 binary2_fit(const float* x, int n) {
    const auto all = [](int) { return true; };
    Binary2 b;
    b.first = binary_fit(n, [=](int j) { return x[j]; }, all);
    const Binary first = b.first;
    b.second = binary_fit(n, [=](int j) { return x[j] - binary_round(first, x[j]); }, all);
    return b;
}

DEVICE float square(float x) { return x * x; }

// The squared error of order 2 on x[0 .. n).
DEVICE float binary2_error(const float* x, int n) {
    const Binary2 b = binary2_fit(x, n);
    float error = 0;
    for (int j = 0; j < n; j++) error += square(x[j] - binary2_round(b, x[j]));
    return error;
}

// ---------------------------------------------------------------------------------------------------------------------
// Kernels: one block a row of the weights. `ranking` has the block's columns by descending saliency, salient ones first.

// Step 2.
KERNEL billm_saliency_kernel(float* S /*[O, 128]*/, const float* W /*[O, I]*/, const float* diagonal /*[I] of U*/, int I,
                             int start, int n, bool hessian_metric) {
    const float* w = W + (size_t)blockIdx.x * I + start;
    for (int j = threadIdx.x; j < n; j += blockDim.x)
        S[(size_t)blockIdx.x * BILLM_BLOCK + j] = hessian_metric ? square(w[j]) / square(diagonal[start + j]) : w[j];
}

// One block a column: the sum over rows of |A|.
KERNEL billm_column_sums_kernel(double* sums /*[columns]*/, const float* A /*[O, ld]*/, int O, int ld) {
    double sum = 0;
    for (int r = threadIdx.x; r < O; r += blockDim.x) sum += fabsf(A[(size_t)r * ld + blockIdx.x]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// Step 3: the row's part of the error for n_salient = 1 .. n_candidates.
KERNEL billm_salient_errors_kernel(float* errors /*[O, n_candidates]*/, const float* S, const int* ranking /*[n]*/, int n,
                                   int n_candidates) {
    SHARED float ranked[BILLM_BLOCK];
    for (int k = threadIdx.x; k < n; k += blockDim.x) ranked[k] = S[(size_t)blockIdx.x * BILLM_BLOCK + ranking[k]];
    block_sync();
    for (int c = threadIdx.x; c < n_candidates; c += blockDim.x) {
        const int n_salient = c + 1;
        errors[(size_t)blockIdx.x * n_candidates + c] =
            binary2_error(ranked, n_salient) + binary2_error(ranked + n_salient, n - n_salient);
    }
}

// Step 4: |S|, and 0 in the salient columns.
KERNEL billm_magnitudes_kernel(float* magnitudes /*[O, n]*/, const float* S, const int* ranking, int n, int n_salient) {
    for (int k = threadIdx.x; k < n; k += blockDim.x)
        magnitudes[(size_t)blockIdx.x * n + k] = k < n_salient ? 0 : fabsf(S[(size_t)blockIdx.x * BILLM_BLOCK + ranking[k]]);
}

// The quantiles 0.10, 0.11 .. 0.90 of n sorted values: at q (n - 1), between two of them by linear interpolation.
KERNEL billm_quantiles_kernel(float* quantiles /*[81]*/, const float* sorted /*[n]*/, size_t n) {
    for (int k = threadIdx.x; k < BILLM_SPLITS; k += blockDim.x) {
        const size_t position = (size_t)(10 + k) * (n - 1), low = position / 100, high = low + 1 < n ? low + 1 : low;
        quantiles[k] = (float)(sorted[low] + ((double)sorted[high] - sorted[low]) * (double)(position % 100) / 100);
    }
}

// The row's part of the error for each t, without that of the salient columns, which is the same for all.
KERNEL billm_split_errors_kernel(float* errors /*[O, 81]*/, const float* S, const int* ranking, const float* quantiles /*[81]*/,
                                 int n, int n_salient) {
    SHARED float rest[BILLM_BLOCK];
    const int n_rest = n - n_salient;
    for (int k = threadIdx.x; k < n_rest; k += blockDim.x)
        rest[k] = S[(size_t)blockIdx.x * BILLM_BLOCK + ranking[n_salient + k]];
    block_sync();
    const float* x = rest;
    for (int c = threadIdx.x; c < BILLM_SPLITS; c += blockDim.x) {
        const float t = quantiles[c];
        const auto value = [=](int j) { return x[j]; };
        const Binary large = binary_fit(n_rest, value, [=](int j) { return fabsf(x[j]) >= t; });
        const Binary small = binary_fit(n_rest, value, [=](int j) { return fabsf(x[j]) < t; });
        float error = 0;
        for (int j = 0; j < n_rest; j++)
            error += square(x[j] - (fabsf(x[j]) >= t ? binary_round(large, x[j]) : binary_round(small, x[j])));
        errors[(size_t)blockIdx.x * BILLM_SPLITS + c] = error;
    }
}

// Steps 5 and 6: the block's columns of W become W^, and E their errors. Every thread fits the row's three sets for itself.
KERNEL billm_binarize_kernel(float* W /*[O, I]*/, float* E /*[O, 128]*/, uint8_t* mask /*[O, I] or null*/, const float* S,
                             const int* ranking, const float* diagonal /*[I] of U*/, float t, int I, int start, int n,
                             int n_salient) {
    SHARED float w[BILLM_BLOCK], s[BILLM_BLOCK];
    const size_t row = (size_t)blockIdx.x * I + start, block_row = (size_t)blockIdx.x * BILLM_BLOCK;
    for (int k = threadIdx.x; k < n; k += blockDim.x) {
        w[k] = W[row + ranking[k]];
        s[k] = fabsf(S[block_row + ranking[k]]);
    }
    block_sync();
    const float *w_rest = w + n_salient, *s_rest = s + n_salient;
    const auto value = [=](int j) { return w_rest[j]; };
    const Binary large = binary_fit(n - n_salient, value, [=](int j) { return s_rest[j] >= t; });
    const Binary small = binary_fit(n - n_salient, value, [=](int j) { return s_rest[j] < t; });
    const Binary2 salient = binary2_fit(w, n_salient);
    for (int k = threadIdx.x; k < n; k += blockDim.x) {
        const int j = ranking[k], set = k < n_salient ? 2 : s[k] >= t ? 1 : 0;
        const float rounded = set == 2 ? binary2_round(salient, w[k]) : binary_round(set == 1 ? large : small, w[k]);
        W[row + j] = rounded;
        E[block_row + j] = (w[k] - rounded) / diagonal[start + j];
        if (mask) mask[row + j] = (uint8_t)set;
    }
}

// ---------------------------------------------------------------------------------------------------------------------

struct BillmResult {
    std::vector<int> n_salient;     // of each block
    std::vector<float> thresholds;  // t of each block
    double bits;                    // 1 + the salient share of the columns
};

// The sums over rows of |A|, A [O, ld], for its first n columns.
inline std::vector<double> billm_column_sums(const Array<float>& A, int O, int ld, int n) {
    Array<double> sums_d(n, "column sums");
    launch(billm_column_sums_kernel, n, 256, sums_d.data, A.data, O, ld);
    std::vector<double> sums(n);
    copy(sums.data(), sums_d.data, n);
    return sums;
}

// The candidate with the least error, the first on ties; errors [O, n_candidates] are the rows' parts.
inline int billm_least(const Array<float>& errors, int O, int n_candidates, const std::string& where) {
    const std::vector<double> sums = billm_column_sums(errors, O, n_candidates, n_candidates);
    for (double x : sums)
        if (!std::isfinite(x))
            fail("%s: BiLLM's error is not finite. HINT: a higher --damp, or check the checkpoint", where.c_str());
    return (int)(std::min_element(sums.begin(), sums.end()) - sums.begin());
}

// W [O, I] = W0 [O, I] binarized. `where` names the layer and module in errors. mask [O, I], if not null, gets each weight's
// set: 0 small, 1 large, 2 salient.
inline BillmResult billm_weights(floatX* W, const float* W0, int O, int I, const HessianFactor& f, bool hessian_metric,
                                 const std::string& where, uint8_t* mask = nullptr) {
    Array<float> V((size_t)O * I, "BiLLM weights"), diagonal(I, "diagonal"), quantiles(BILLM_SPLITS, "quantiles");
    Array<float> S((size_t)O * BILLM_BLOCK, "saliency"), E((size_t)O * BILLM_BLOCK, "BiLLM errors");
    Array<float> errors((size_t)O * BILLM_SPLITS, "errors of candidates"), magnitudes((size_t)O * BILLM_BLOCK, "magnitudes");
    Array<int> ranking_d(BILLM_BLOCK, "ranking"), dead(I, "dead columns");
    copy(dead.data, f.dead.data(), I);
    launch(zero_dead_kernel, O, 256, V.data, W0, dead.data, I);
    launch(hessian_diagonal_kernel, 1, 256, diagonal.data, f.U.data, I);

    BillmResult result;
    size_t all_salient = 0;
    for (int start = 0; start < I; start += BILLM_BLOCK) {
        const int n = std::min(BILLM_BLOCK, I - start), end = start + n;
        // Steps 2 and 3.
        launch(billm_saliency_kernel, O, 128, S.data, V.data, diagonal.data, I, start, n, hessian_metric);
        const std::vector<double> saliency = billm_column_sums(S, O, BILLM_BLOCK, n);
        for (int j = 0; j < n; j++)
            if (!std::isfinite(saliency[j]))
                fail("%s: weights of input channel %d are NaN or Inf, or too large for BiLLM. HINT: check the checkpoint",
                     where.c_str(), start + j);
        std::vector<int> ranking(n);
        std::iota(ranking.begin(), ranking.end(), 0);
        std::stable_sort(ranking.begin(), ranking.end(), [&](int a, int b) { return saliency[a] > saliency[b]; });
        copy(ranking_d.data, ranking.data(), n);
        const int n_candidates = std::min(n, BILLM_MOST_SALIENT);
        launch(billm_salient_errors_kernel, O, 64, errors.data, S.data, ranking_d.data, n, n_candidates);
        const int n_salient = 1 + billm_least(errors, O, n_candidates, where);

        // Step 4.
        launch(billm_magnitudes_kernel, O, 128, magnitudes.data, S.data, ranking_d.data, n, n_salient);
        sort_ascending(magnitudes.data, (size_t)O * n);
        launch(billm_quantiles_kernel, 1, 128, quantiles.data, magnitudes.data, (size_t)O * n);
        launch(billm_split_errors_kernel, O, 96, errors.data, S.data, ranking_d.data, quantiles.data, n, n_salient);
        float t = 0;
        copy(&t, quantiles.data + billm_least(errors, O, BILLM_SPLITS, where), 1);

        // Steps 5 and 6.
        launch(billm_binarize_kernel, O, 32, V.data, E.data, mask, S.data, ranking_d.data, diagonal.data, t, I, start, n,
               n_salient);
        gemm_float(V.data + end, I, E.data, BILLM_BLOCK, f.U.data + (size_t)start * I + end, I, O, I - end, n, -1.0f, 1.0f);
        result.n_salient.push_back(n_salient), result.thresholds.push_back(t);
        all_salient += n_salient;
    }
    launch(round_rows_kernel, O, 256, W, V.data, I);
    result.bits = 1 + (double)all_salient / I;
    return result;
}

// Linears are solved one after another, from the one U of their group.
inline size_t billm_device_bytes(const Layer& layer, const QuantOptions& opt, size_t) {
    size_t most = 0;
    for (const Group& group : layer.groups)
        for (int k = 0; k < group.n_linears; k++) {
            // V; S, E, the magnitudes and what the GPU's sort needs as well; errors of candidates.
            const size_t row = group.I + 4 * BILLM_BLOCK + BILLM_SPLITS, beside_U = group.linears[k].O * row * sizeof(float);
            most = std::max(most, hessian_solve_bytes(group, hessian_bytes(layer, opt), beside_U));
        }
    return most;
}

inline void billm_solve(Quantizer& q, Layer& layer, int g) {
    const Clock clock;
    Group& group = layer.groups[g];
    const int I = group.I;
    const bool hessian_metric = q.opt.salient_metric == "hessian";
    Hessian h = std::move(q.hessian[g]);  // freed when this returns
    mirror_upper(h.H.data, I);
    Array<float> W0 = checked_weights(layer, group);
    HessianFactor f = hessian_factor(h.H.data, I, h.n, q.opt.damp, false, format("layer %d, %s", layer.index, group.name));
    std::vector<double> bits;
    for (int k = 0; k < group.n_linears; k++) {
        const Linear& linear = group.linears[k];
        const size_t first = (size_t)linear.row * I;
        const std::string where = format("layer %d, %s", layer.index, linear.name);
        bits.push_back(billm_weights(group.W + first, W0.data + first, linear.O, I, f, hessian_metric, where).bits);
        q.weights += (double)linear.O * I, q.weight_bits += bits[k] * linear.O * I;
    }
    f.U.clear();  // hessian_solve_bytes counts on it: output_errors needs the room
    const std::vector<double> errors = output_errors(group, W0.data, h.H.data);
    const double seconds = clock.seconds();
    for (int k = 0; k < group.n_linears; k++) {
        const Linear& linear = group.linears[k];
        if (!std::isfinite(errors[k]))
            fail("layer %d, %s: BiLLM's output error is not finite. HINT: a higher --damp, or check the checkpoint", layer.index,
                 linear.name);
        q.reports.push_back({layer.index, linear.name, "output", errors[k], seconds * linear.O / group.O,
                             {{"bits", bits[k]}, {"damp", f.damp}}, hessian_factor_note(q.opt.damp, f.damp, f.n_dead)});
    }
}
