// cublas_v2.h: the products of cuBLAS that the project uses, with the meaning that NVIDIA's cuBLAS documentation gives
// them ("Level-3 Function Reference"). Matrices lie by columns: element (i, j) of A is A[i + j lda]. op(A) is A, or A^T. Of a triangular or symmetric
// matrix only the named triangle is read and written. With beta = 0, C is not read. Arguments that the documentation calls invalid
// return CUBLAS_STATUS_INVALID_VALUE; the work goes to the default stream.
//
// defines: cublasGemmEx (bf16 or float, summed in float), cublasDtrmm, cublasDsyrk, and the handle's calls
#pragma once
#include <algorithm>
#include "cuda_runtime.h"

enum cublasStatus_t { CUBLAS_STATUS_SUCCESS = 0, CUBLAS_STATUS_INVALID_VALUE = 7, CUBLAS_STATUS_NOT_SUPPORTED = 15 };
enum cublasOperation_t { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1, CUBLAS_OP_C = 2 };
enum cublasSideMode_t { CUBLAS_SIDE_LEFT = 0, CUBLAS_SIDE_RIGHT = 1 };
enum cublasFillMode_t { CUBLAS_FILL_MODE_LOWER = 0, CUBLAS_FILL_MODE_UPPER = 1 };
enum cublasDiagType_t { CUBLAS_DIAG_NON_UNIT = 0, CUBLAS_DIAG_UNIT = 1 };
enum cublasMath_t { CUBLAS_DEFAULT_MATH = 0, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION = 16 };
enum cublasComputeType_t { CUBLAS_COMPUTE_32F = 68, CUBLAS_COMPUTE_32F_PEDANTIC = 69 };
enum cublasGemmAlgo_t { CUBLAS_GEMM_DEFAULT = -1 };
enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_16BF = 14 };
typedef struct cublasContext* cublasHandle_t;

inline const char* cublasGetStatusName(cublasStatus_t s) {
    return s == CUBLAS_STATUS_SUCCESS         ? "CUBLAS_STATUS_SUCCESS"
           : s == CUBLAS_STATUS_INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE"
                                              : "CUBLAS_STATUS_NOT_SUPPORTED";
}
inline const char* cublasGetStatusString(cublasStatus_t) { return "from the emulated GPU"; }
inline cublasStatus_t cublasCreate(cublasHandle_t* handle) {
    *handle = nullptr;
    return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasSetWorkspace(cublasHandle_t, void* workspace, size_t) {
    return (uintptr_t)workspace % 256 == 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
inline cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) { return CUBLAS_STATUS_SUCCESS; }

namespace emulated {

// put(i, j, sum over l < k of a(i, l) b(l, j)) for i < m, j < n. Both factors are copied first, into panels of 2 vectors of rows
// and of 8 columns, in the order in which the loop over l reads them.
template <class T, class A, class B, class Put> void product(int m, int n, int k, const A& a, const B& b, const Put& put) {
    typedef T Vector __attribute__((vector_size(64)));
    constexpr int LANES = 64 / sizeof(T), ROWS = 2 * LANES, COLUMNS = 8;
    const int row_panels = (m + ROWS - 1) / ROWS, column_panels = (n + COLUMNS - 1) / COLUMNS;
    std::vector<T> rows((size_t)row_panels * k * ROWS), columns((size_t)column_panels * k * COLUMNS);
#pragma omp parallel for
    for (int p = 0; p < row_panels; p++)
        for (int l = 0; l < k; l++)
            for (int i = p * ROWS; i < std::min(m, p * ROWS + ROWS); i++) rows[((size_t)p * k + l) * ROWS + i % ROWS] = a(i, l);
#pragma omp parallel for
    for (int p = 0; p < column_panels; p++)
        for (int j = p * COLUMNS; j < std::min(n, p * COLUMNS + COLUMNS); j++)
            for (int l = 0; l < k; l++) columns[((size_t)p * k + l) * COLUMNS + j % COLUMNS] = b(l, j);
#pragma omp parallel for collapse(2)
    for (int p = 0; p < row_panels; p++)
        for (int q = 0; q < column_panels; q++) {
            Vector sum[COLUMNS][2] = {};
            const T *row = rows.data() + (size_t)p * k * ROWS, *column = columns.data() + (size_t)q * k * COLUMNS;
            for (int l = 0; l < k; l++, row += ROWS, column += COLUMNS) {
                Vector x[2];
                memcpy(x, row, sizeof x);
#pragma GCC unroll 8
                for (int j = 0; j < COLUMNS; j++) sum[j][0] += x[0] * column[j], sum[j][1] += x[1] * column[j];
            }
            for (int j = q * COLUMNS; j < std::min(n, q * COLUMNS + COLUMNS); j++)
                for (int i = p * ROWS; i < std::min(m, p * ROWS + ROWS); i++)
                    put(i, j, sum[j % COLUMNS][i % ROWS / LANES][i % LANES]);
        }
}

inline bool valid(cublasOperation_t op) { return op == CUBLAS_OP_N || op == CUBLAS_OP_T || op == CUBLAS_OP_C; }
inline bool valid(cublasFillMode_t uplo) { return uplo == CUBLAS_FILL_MODE_LOWER || uplo == CUBLAS_FILL_MODE_UPPER; }

}  // namespace emulated

// C [m, n] = alpha op(A) [m, k] op(B) [k, n] + beta C
inline cublasStatus_t cublasGemmEx(cublasHandle_t, cublasOperation_t opA, cublasOperation_t opB, int m, int n, int k,
                                   const void* alpha, const void* A, cudaDataType_t typeA, int lda, const void* B,
                                   cudaDataType_t typeB, int ldb, const void* beta, void* C, cudaDataType_t typeC, int ldc,
                                   cublasComputeType_t, cublasGemmAlgo_t) {
    const bool a_as_is = opA == CUBLAS_OP_N, b_as_is = opB == CUBLAS_OP_N;
    if (!emulated::valid(opA) || !emulated::valid(opB) || m < 0 || n < 0 || k < 0 || !alpha || !beta ||
        lda < std::max(1, a_as_is ? m : k) || ldb < std::max(1, b_as_is ? k : n) || ldc < std::max(1, m))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (typeA != typeB || (typeA == CUDA_R_32F && typeC != CUDA_R_32F)) return CUBLAS_STATUS_NOT_SUPPORTED;
    const float scale = *(const float*)alpha, keep = *(const float*)beta;
    emulated::stream_add(nullptr, [=] {
        const auto read = [=](const void* p, cudaDataType_t type, size_t i) {
            return type == CUDA_R_32F ? ((const float*)p)[i] : emulated::bf16_value(((const uint16_t*)p)[i], 0);
        };
        emulated::product<float>(
            m, n, k, [=](size_t i, size_t l) { return read(A, typeA, a_as_is ? i + l * lda : l + i * lda); },
            [=](size_t l, size_t j) { return read(B, typeB, b_as_is ? l + j * ldb : j + l * ldb); },
            [=](size_t i, size_t j, float sum) {
                const size_t at = i + j * ldc;
                const float c = scale * sum + (keep == 0 ? 0 : keep * read(C, typeC, at));
                if (typeC == CUDA_R_32F) ((float*)C)[at] = c;
                else ((uint16_t*)C)[at] = (uint16_t)bf16_pair(c, 0);
            });
    });
    return CUBLAS_STATUS_SUCCESS;
}

// C [m, n] = alpha op(A) B, A [m, m], or alpha B op(A), A [n, n]. C may be B.
inline cublasStatus_t cublasDtrmm(cublasHandle_t, cublasSideMode_t side, cublasFillMode_t uplo, cublasOperation_t op,
                                  cublasDiagType_t diag, int m, int n, const double* alpha, const double* A, int lda,
                                  const double* B, int ldb, double* C, int ldc) {
    const bool left = side == CUBLAS_SIDE_LEFT, upper = uplo == CUBLAS_FILL_MODE_UPPER, unit = diag == CUBLAS_DIAG_UNIT;
    if ((!left && side != CUBLAS_SIDE_RIGHT) || !emulated::valid(uplo) || !emulated::valid(op) ||
        (!unit && diag != CUBLAS_DIAG_NON_UNIT) || m < 0 || n < 0 || !alpha || lda < std::max(1, left ? m : n) ||
        ldb < std::max(1, m) || ldc < std::max(1, m))
        return CUBLAS_STATUS_INVALID_VALUE;
    const double scale = *alpha;
    emulated::stream_add(nullptr, [=] {
        const auto a = [=](size_t i, size_t j) {
            if (op != CUBLAS_OP_N) std::swap(i, j);
            if (i == j && unit) return 1.0;
            return i == j || (i < j) == upper ? A[i + j * lda] : 0.0;
        };
        const auto b = [=](size_t i, size_t j) { return B[i + j * ldb]; };
        const auto put = [=](size_t i, size_t j, double sum) { C[i + j * ldc] = scale * sum; };
        if (left) emulated::product<double>(m, n, m, a, b, put);
        else emulated::product<double>(m, n, n, b, a, put);
    });
    return CUBLAS_STATUS_SUCCESS;
}

// The triangle uplo of C [n, n] = alpha op(A) op(A)^T + beta C, op(A) [n, k]
inline cublasStatus_t cublasDsyrk(cublasHandle_t, cublasFillMode_t uplo, cublasOperation_t op, int n, int k, const double* alpha,
                                  const double* A, int lda, const double* beta, double* C, int ldc) {
    const bool as_is = op == CUBLAS_OP_N, upper = uplo == CUBLAS_FILL_MODE_UPPER;
    if (!emulated::valid(uplo) || !emulated::valid(op) || n < 0 || k < 0 || !alpha || !beta || lda < std::max(1, as_is ? n : k) ||
        ldc < std::max(1, n))
        return CUBLAS_STATUS_INVALID_VALUE;
    const double scale = *alpha, keep = *beta;
    emulated::stream_add(nullptr, [=] {
        const auto a = [=](size_t i, size_t l) { return A[as_is ? i + l * lda : l + i * lda]; };
        emulated::product<double>(
            n, n, k, a, [=](size_t l, size_t j) { return a(j, l); },
            [=](size_t i, size_t j, double sum) {
                if (i != j && (i < j) != upper) return;
                C[i + j * ldc] = scale * sum + (keep == 0 ? 0 : keep * C[i + j * ldc]);
            });
    });
    return CUBLAS_STATUS_SUCCESS;
}
