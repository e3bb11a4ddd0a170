// gemm.cuh: matrix products. On the GPU they are cuBLAS's, on the CPU they are written here.
//
// All matrices are row-major device memory. Products of floatX are summed in float; a bf16 result is rounded once, at
// the end. A size of 0 is no work: the result stays as it is. The same call gives the same bytes, whatever the number
// of threads.
//
// gemm_cpu.h says how the CPU's products work.
//
// defines: gemm, gemm_logits, hessian_add, cross_add, gemm_float, multiply_adds; for linalg.cuh: blocked_product, Strided and KRange on the CPU (from
//          gemm_cpu.h), cublas_handle and cublas_check on the GPU
#pragma once
#include <atomic>
#include <cstdint>
#include "device.cuh"
#ifdef __CUDACC__
#include <cublas_v2.h>
#else
#include "gemm_cpu.h"
#endif

// ---------------------------------------------------------------------------------------------------------------------
// GPU: cuBLAS

#ifdef __CUDACC__

inline void cublas_check_at(cublasStatus_t status, const char* call, const char* file, int line) {
    if (status != CUBLAS_STATUS_SUCCESS)
        fail("%s:%d: %s: %s (%s)", file, line, call, cublasGetStatusName(status), cublasGetStatusString(status));
}
#define cublas_check(call) cublas_check_at((call), #call, __FILE__, __LINE__)

// The one handle, made at first use and kept until the program ends. With a workspace of its own, cuBLAS's results
// repeat. The math mode keeps the partial sums of a product that is split along K from passing through bf16.
inline cublasHandle_t cublas_handle() {
    static const cublasHandle_t handle = [] {
        const size_t workspace_bytes = 32 << 20;  // NVIDIA's recommendation for Hopper
        cublasHandle_t h;
        cublas_check(cublasCreate(&h));
        void* workspace = place_malloc(workspace_bytes, Place::Device, "cuBLAS workspace");
        cublas_check(cublasSetWorkspace(h, workspace, workspace_bytes));
        const int mode = CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
        cublas_check(cublasSetMathMode(h, (cublasMath_t)mode));
        return h;
    }();
    return handle;
}

inline cudaDataType_t cublas_type(float) { return CUDA_R_32F; }
inline cudaDataType_t cublas_type(bf16) { return CUDA_R_16BF; }

// A factor: rows ld apart, to be transposed or not.
template <class T> struct Factor {
    const T* data;
    int ld;
    bool transposed;
};

// C[M,N] = alpha A[M,K] B[K,N] + beta C, the sizes of A and B being those after their transposition. cuBLAS reads
// matrices by columns: what is C to us is C^T to it. So it is asked for C^T = B^T A^T, and what it sees in A's and B's
// memory is A^T and B^T already: the factors change places, and so do M and N; nothing else changes.
template <class T, class S>
void cublas_product(T* C, int ldc, Factor<S> A, Factor<S> B, int M, int N, int K, float alpha, float beta) {
    const auto op = [](bool transposed) { return transposed ? CUBLAS_OP_T : CUBLAS_OP_N; };
    // For float factors, PEDANTIC keeps TF32 and emulation out, whatever the environment says.
    const cublasComputeType_t compute = sizeof(S) == 4 ? CUBLAS_COMPUTE_32F_PEDANTIC : CUBLAS_COMPUTE_32F;
    const cudaDataType_t in = cublas_type(S()), out = cublas_type(T());
    cublas_check(cublasGemmEx(cublas_handle(), op(B.transposed), op(A.transposed), N, M, K, &alpha, B.data, in, B.ld, A.data, in,
                              A.ld, &beta, C, out, ldc, compute, CUBLAS_GEMM_DEFAULT));
}

#endif

// ---------------------------------------------------------------------------------------------------------------------
// The five products

// What the products of floatX were asked for until now, most of a run's work.
inline std::atomic<uint64_t>& multiply_adds() {
    static std::atomic<uint64_t> n{0};
    return n;
}

// C[M,N] = A[M,K] B[N,K]^T, a linear layer, A activations, B weights. Out is floatX or float.
template <class Out> void linear_product(Out* C, const floatX* A, const floatX* B, int M, int N, int K) {
    if (M < 1 || N < 1 || K < 1) return;
#ifdef __CUDACC__
    cublas_product(C, N, Factor<floatX>{A, K, false}, Factor<floatX>{B, K, true}, M, N, K, 1, 0);
#else
    const size_t ld = K;
    const Strided<floatX> a = {A, ld, 1}, b = {B, ld, 1};
    const auto store = [](Out* c, int, int, int n, const float* sums) { convert_row(c, sums, n); };
    floatx_product(C, N, M, N, K, a, b, AllK{K}, store);
#endif
    multiply_adds() += (uint64_t)M * N * K;
}

// Rounded once to floatX.
inline void gemm(floatX* C /*[M,N]*/, const floatX* A /*[M,K]*/, const floatX* B /*[N,K]*/, int M, int N, int K) {
    linear_product(C, A, B, M, N, K);
}

// Kept in float.
inline void gemm_logits(float* C /*[M,N]*/, const floatX* A /*[M,K]*/, const floatX* B /*[N,K]*/, int M, int N, int K) {
    linear_product(C, A, B, M, N, K);
}

// H[I,I] += X[T,I]^T X[T,I], a GPTQ Hessian. Only the upper half, diagonal included: what the strict lower half holds
// afterwards is not specified.
inline void hessian_add(float* H /*[I,I]*/, const floatX* X /*[T,I]*/, int T, int I) {
    if (T < 1 || I < 1) return;
    const size_t ld = I;
#ifdef __CUDACC__
    const int strip = 1024;  // rows of H at a time, each from the strip's first column on the diagonal to the end
    for (int i = 0; i < I; i += strip)
        cublas_product(H + i * ld + i, I, Factor<floatX>{X + i, I, true}, Factor<floatX>{X + i, I, false}, std::min(strip, I - i),
                       I - i, T, 1, 1);
#else
    const Strided<floatX> x = {X, 1, ld};
    const auto k_range = [=](int i0, int, int, int j1) { return KRange{0, j1 > i0 ? T : 0}; };
    const auto store = [](float* h, int i, int j, int n, const float* sums) {
        for (int c = std::max(0, i - j); c < n; c++) h[c] += sums[c];
    };
    floatx_product(H, ld, I, I, T, x, x, k_range, store);
#endif
    multiply_adds() += (uint64_t)T * I * I / 2;
}

// D[I,I] += A[T,I]^T X[T,I], for inputs that are not the same: all of it, for it is not symmetric.
inline void cross_add(float* D /*[I,I]*/, const floatX* A /*[T,I]*/, const floatX* X /*[T,I]*/, int T, int I) {
    if (T < 1 || I < 1) return;
#ifdef __CUDACC__
    cublas_product(D, I, Factor<floatX>{A, I, true}, Factor<floatX>{X, I, false}, I, I, T, 1, 1);
#else
    const size_t ld = I;
    const Strided<floatX> a = {A, 1, ld}, x = {X, 1, ld};
    const auto store = [](float* d, int, int, int n, const float* sums) {
        for (int c = 0; c < n; c++) d[c] += sums[c];
    };
    floatx_product(D, ld, I, I, T, a, x, AllK{T}, store);
#endif
    multiply_adds() += (uint64_t)T * I * I;
}

// C[M,N] = alpha A[M,K] B[K,N] + beta C, in float throughout, rows ldc, lda and ldb apart. With beta = 0 C is not read.
// B_transposed: B is stored as [N,K].
inline void gemm_float(float* C /*[M,N]*/, int ldc, const float* A /*[M,K]*/, int lda, const float* B /*[K,N]*/, int ldb, int M,
                       int N, int K, float alpha, float beta, bool B_transposed = false) {
    if (M < 1 || N < 1 || K < 1) return;
#ifdef __CUDACC__
    cublas_product(C, ldc, Factor<float>{A, lda, false}, Factor<float>{B, ldb, B_transposed}, M, N, K, alpha, beta);
#else
    const size_t ld = (size_t)ldb;
    const Strided<float> a = {A, (size_t)lda, 1}, b = {B, B_transposed ? ld : 1, B_transposed ? 1 : ld};
    const auto store = [=](float* c, int, int, int n, const float* sums) {
        if (beta == 0)  // outside of the loop: a masked load of c would be waited for
            for (int x = 0; x < n; x++) c[x] = alpha * sums[x];
        else
            for (int x = 0; x < n; x++) c[x] = alpha * sums[x] + beta * c[x];
    };
    blocked_product<float>(C, ldc, M, N, K, a, b, AllK{K}, store);
#endif
}
