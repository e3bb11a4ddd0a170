// linalg.cuh: the Cholesky factor of an inverse, which GPTQ and its relatives work with.
//
// Wanted is the upper triangular U, with a positive diagonal, of A^-1 = U^T U; A [n,n] is symmetric positive definite.
// GPTQ's own code takes three steps: a Cholesky factorization of A, from it A^-1, and a Cholesky factorization of that.
// One factorization is enough. Let J flip the order of rows and of columns, and J A J = L L^T be the ordinary Cholesky
// factorization of A flipped. With M = L^-1:
//     M (J A J) M^T = I   =>   A^-1 = (J M J)^T (J M J)   =>   U = J M J,
// upper triangular because M is lower triangular. (Unflipped: A = R R^T with R upper triangular, and U = R^-1.)
//
// M is made in the place of the lower half of J A J, by halves. Of A = [A11, A21^T; A21, A22], M = [M11, 0; M21, M22]:
//     M11 from A11, by the same rule        L21 = A21 M11^T        A22 -= L21 L21^T
//     M22 from A22, by the same rule        M21 = -M22 L21 M11
// down to leaves of at most 64 x 64, which one block of threads does column by column. All the rest is products, most
// of them large: 2/3 n^3 operations in all, what a factorization and a triangular inverse cost anyway.
//
// The arithmetic is double on either machine. So the shortcut of multiplying by M11 where the textbook solves with L11
// costs no accuracy that matters, both machines give the same U to the last bits of a float, and what float can hold of
// an ill-conditioned A (GPTQ's damped Gram matrices) is factored. Memory: 1.25 n^2 doubles.
//
// defines: inverse_cholesky_upper, inverse_cholesky_bytes
#pragma once
#include "gemm.cuh"

constexpr int LEAF = 64;  // n of the largest matrix that is not halved

// Part of a matrix of doubles whose rows are ld apart.
struct Block {
    double* data;
    size_t ld;

    Block at(int i, int j) const { return {data + i * ld + j, ld}; }
};

// L [n,n] = the lower half of A flipped in both axes (A's upper half is read), zeros above. One row a block.
KERNEL flip_to_lower(Block L, const float* A /*[n,n]*/, int n) {
    const int i = blockIdx.x;
    double* row = L.data + i * L.ld;
    const float* flipped = A + (size_t)(n - 1 - i) * n + (n - 1);
    for (int j = threadIdx.x; j < n; j += blockDim.x) row[j] = j <= i ? flipped[-j] : 0;
}

// And back. The zeros above M's diagonal come to lie below U's.
KERNEL flip_to_upper(float* U /*[n,n]*/, Block M, int n) {
    const int i = blockIdx.x;
    float* row = U + (size_t)i * n;
    const double* flipped = M.data + (n - 1 - i) * M.ld + (n - 1);
    for (int j = threadIdx.x; j < n; j += blockDim.x) row[j] = (float)flipped[-j];
}

// Y [rows,n] = X. One row a block.
KERNEL copy_rows(Block Y, Block X, int n) {
    const int i = blockIdx.x;
    for (int j = threadIdx.x; j < n; j += blockDim.x) Y.data[i * Y.ld + j] = X.data[i * X.ld + j];
}

// One block, n <= LEAF: the lower half of A [n,n] becomes M with M A M^T = I. A pivot that is not positive and finite
// sets *failed.
KERNEL invert_leaf(Block A, int n, int* failed) {
    SHARED double s[LEAF][LEAF + 1];  // below the diagonal L, above it M^T; odd row length: columns over all banks
    SHARED double inverse[LEAF];      // 1 / the diagonal of L
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        for (int j = 0; j <= i; j++) s[i][j] = A.data[i * A.ld + j];
    block_sync();
    for (int j = 0; j < n; j++) {
        for (int i = j + threadIdx.x; i < n; i += blockDim.x) {
            double sum = 0;
            for (int k = 0; k < j; k++) sum += s[i][k] * s[j][k];
            s[i][j] -= sum;
        }
        block_sync();
        const double pivot = s[j][j];
        if (threadIdx.x == 0) {
            inverse[j] = 1 / sqrt(pivot);
            if (!(pivot > 0 && pivot < INFINITY)) *failed = 1;
        }
        for (int i = j + 1 + threadIdx.x; i < n; i += blockDim.x) s[i][j] /= sqrt(pivot);
        block_sync();
    }
    // For each column c of M, one thread solves L x = e_c into row c above the diagonal.
    for (int c = threadIdx.x; c < n; c += blockDim.x) {
        A.data[c * A.ld + c] = inverse[c];
        for (int i = c + 1; i < n; i++) {
            double sum = s[i][c] * inverse[c];
            for (int k = c + 1; k < i; k++) sum += s[i][k] * s[c][k];
            s[c][i] = -sum * inverse[i];
            A.data[i * A.ld + c] = s[c][i];
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The products. X and Y are [rows,n]; M is lower triangular, with zeros above its diagonal.

#ifdef __CUDACC__

// To cuBLAS, which reads by columns, everything is its own transpose (see gemm.cuh): X and Y are [n,rows], M is upper
// triangular.
inline void triangular_product(Block Y, double factor, cublasSideMode_t side, cublasOperation_t op, Block M, Block X, int rows,
                               int n) {
    cublas_check(cublasDtrmm(cublas_handle(), side, CUBLAS_FILL_MODE_UPPER, op, CUBLAS_DIAG_NON_UNIT, n, rows, &factor, M.data,
                             (int)M.ld, X.data, (int)X.ld, Y.data, (int)Y.ld));
}

// Y = X M^T, M [n,n]
inline void times_transposed(Block Y, Block X, Block M, int rows, int n) {
    triangular_product(Y, 1, CUBLAS_SIDE_LEFT, CUBLAS_OP_T, M, X, rows, n);
}

// Y = X M, M [n,n]
inline void times(Block Y, Block X, Block M, int rows, int n) {
    triangular_product(Y, 1, CUBLAS_SIDE_LEFT, CUBLAS_OP_N, M, X, rows, n);
}

// Y = -M X, M [rows,rows]
inline void negated_times(Block Y, Block M, Block X, int rows, int n) {
    triangular_product(Y, -1, CUBLAS_SIDE_RIGHT, CUBLAS_OP_N, M, X, rows, n);
}

// The lower half of S [rows,rows] -= X X^T
inline void subtract_square(Block S, Block X, int rows, int n) {
    const double minus_one = -1, one = 1;
    cublas_check(cublasDsyrk(cublas_handle(), CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_T, rows, n, &minus_one, X.data, (int)X.ld, &one,
                             S.data, (int)S.ld));
}

#else

// The two ways blocked_product may read X: its rows, or its columns as rows.
inline Strided<double> rows_of(Block X) { return {X.data, X.ld, 1}; }
inline Strided<double> columns_of(Block X) { return {X.data, 1, X.ld}; }

// Y = X M^T, M [n,n]. Of M's row j, only k <= j counts.
inline void times_transposed(Block Y, Block X, Block M, int rows, int n) {
    const auto k_range = [](int, int, int, int j1) { return KRange{0, j1}; };
    const auto store = [](double* y, int, int, int count, const double* sums) { memcpy(y, sums, count * sizeof(double)); };
    blocked_product<double>(Y.data, Y.ld, rows, n, n, rows_of(X), rows_of(M), k_range, store);
}

// Y = X M, M [n,n]. Of M's column j, only k >= j counts.
inline void times(Block Y, Block X, Block M, int rows, int n) {
    const auto k_range = [=](int, int, int j0, int) { return KRange{j0, n}; };
    const auto store = [](double* y, int, int, int count, const double* sums) { memcpy(y, sums, count * sizeof(double)); };
    blocked_product<double>(Y.data, Y.ld, rows, n, n, rows_of(X), columns_of(M), k_range, store);
}

// Y = -M X, M [rows,rows]. Of M's row i, only k <= i counts.
inline void negated_times(Block Y, Block M, Block X, int rows, int n) {
    const auto k_range = [](int, int i1, int, int) { return KRange{0, i1}; };
    const auto store = [](double* y, int, int, int count, const double* sums) {
        for (int c = 0; c < count; c++) y[c] = -sums[c];
    };
    blocked_product<double>(Y.data, Y.ld, rows, n, rows, rows_of(M), columns_of(X), k_range, store);
}

// The lower half of S [rows,rows] -= X X^T
inline void subtract_square(Block S, Block X, int rows, int n) {
    const auto k_range = [=](int, int i1, int j0, int) { return KRange{0, j0 < i1 ? n : 0}; };
    const auto store = [](double* s, int i, int j, int count, const double* sums) {
        for (int c = 0; c < std::min(count, i - j + 1); c++) s[c] -= sums[c];
    };
    blocked_product<double>(S.data, S.ld, rows, rows, n, rows_of(X), rows_of(X), k_range, store);
}

#endif

// ---------------------------------------------------------------------------------------------------------------------

// n of the first half, in whole leaves.
inline int first_half(int n) { return ceil_div(n, 2 * LEAF) * LEAF; }

// The lower half of A [n,n] becomes M with M A M^T = I. T: first_half(n)^2 doubles to work with.
inline void invert_by_halves(Block A, int n, double* T, int* failed) {
    if (n <= LEAF) return launch(invert_leaf, 1, LEAF, A, n, failed);
    const int h = first_half(n), w = n - h;
    const Block A21 = A.at(h, 0), A22 = A.at(h, h), work = {T, (size_t)h};
    invert_by_halves(A, h, T, failed);
    times_transposed(work, A21, A, w, h);
    launch(copy_rows, w, 256, A21, work, h);  // L21
    subtract_square(A22, A21, w, h);
    invert_by_halves(A22, w, T, failed);
    times(work, A21, A, w, h);
    negated_times(A21, A22, work, w, h);
}

// Rows a power of two apart would compete for lines of a CPU's cache.
inline size_t inverse_cholesky_ld(int n) { return n % 64 ? n : n + 8; }

// What inverse_cholesky_upper allocates.
inline size_t inverse_cholesky_bytes(int n) {
    const size_t h = first_half(n);
    return (n * inverse_cholesky_ld(n) + h * h) * sizeof(double);
}

// A, symmetric positive definite (its upper half is read), becomes the upper triangular U of A^-1 = U^T U, with zeros
// below the diagonal. False if a pivot is not positive and finite; A is then garbage.
inline bool inverse_cholesky_upper(float* A /*[n,n]*/, int n) {
    if (n < 1) return true;
    const size_t ld = inverse_cholesky_ld(n), h = first_half(n);
    Array<double> M(n * ld, "Cholesky factorization"), T(h * h, "Cholesky factorization");
    Array<int> failed(1, "Cholesky factorization");
    const Block all = {M.data, ld};
    fill_zero(failed.data, 1);
    launch(flip_to_lower, n, 256, all, A, n);
    invert_by_halves(all, n, T.data, failed.data);
    launch(flip_to_upper, n, 256, A, all, n);
    int any_failed = 0;
    copy(&any_failed, failed.data, 1);
    return !any_failed;
}
