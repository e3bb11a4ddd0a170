// How fast the products of cuda/gemm.cuh and cuda/linalg.cuh are, each beside what bounds it. Best of several runs.
// CPU: the bound is a loop of fused multiply-adds (or bf16 dot products) on registers alone, on all threads; OpenBLAS's
// sgemm is shown too if libopenblas.so.0 is there. GPU: the bound is cuBLAS's own rate on one large product.
// Shapes are Qwen3-0.6B's: M tokens; q 2048 x 1024, k and v 1024 x 1024, o 1024 x 2048, gate and up 3072 x 1024,
// down 1024 x 3072, and all of q, k, v or gate, up as one.
#include <chrono>
#include <functional>
#include <random>
#include <vector>
#include "../cuda/linalg.cuh"
#ifndef __CUDACC__
#include <dlfcn.h>
#endif

// Seconds of the best of at least 3 runs, up to half a second of them, after one to warm up.
static double best_seconds(const std::function<void()>& run) {
    run();
    device_wait();
    double best = 1e30, total = 0;
    for (int n = 0; n < 3 || (total < 0.5 && n < 50); n++) {
        const auto start = std::chrono::steady_clock::now();
        run();
        device_wait();
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        best = std::min(best, seconds), total += seconds;
    }
    return best;
}

static void print_line(const std::string& what, double achieved, double limit) {
    printf("%-44s %10.1f %10.1f %7.0f %%\n", what.c_str(), achieved, limit, 100 * achieved / limit);
    fflush(stdout);
}

template <class T> static Array<T> random_array(size_t n) {
    std::vector<T> host(n);
    std::mt19937 generator(1);
    for (T& x : host) {
        const float value = (float)generator() / 4294967296.0f - 0.5f;
        if constexpr (sizeof(T) == 2)
            x = to_bf16(value);
        else
            x = value;
    }
    Array<T> device(n, "benchmark");
    copy(device.data, host.data(), n);
    return device;
}

struct Limits {
    double floatx, float32, float64;  // GFLOP/s
};

#ifdef __CUDACC__

static Limits measured_limits() {
    const int n = 8192;
    const size_t size = (size_t)n * n;
    const double work = 2e-9 * n * n * n;
    Array<floatX> X = random_array<floatX>(size), Y(size, "benchmark");
    Array<float> F = random_array<float>(size), G(size, "benchmark");
    Array<double> D = random_array<double>(size), E(size, "benchmark");
    const double one = 1, zero = 0;
    const cublasOperation_t plain = CUBLAS_OP_N;
    const auto double_product = [&] {
        cublas_check(cublasDgemm(cublas_handle(), plain, plain, n, n, n, &one, D.data, n, D.data, n, &zero, E.data, n));
    };
    return {work / best_seconds([&] { gemm(Y.data, X.data, X.data, n, n, n); }),
            work / best_seconds([&] { gemm_float(G.data, n, F.data, n, F.data, n, n, n, n, 1, 0); }),
            work / best_seconds(double_product)};
}

#else

// GFLOP/s of `step` on as many independent vectors of sums as the micro-kernel has, on all threads. A step does `flops`
// operations on each sum.
template <class T, class Step> static double register_rate(int flops, Step step) {
    constexpr int n_sums = 2 * MR;
    const long steps = 2000000;
    volatile double used = 0;  // or the compiler would see that nobody needs the sums
    const double seconds = best_seconds([&] {
        double total = 0;
#pragma omp parallel reduction(+ : total)
        {
            Vector<T> sums[n_sums];
            for (int i = 0; i < n_sums; i++) sums[i] = Vector<T>{} + (T)i;
            for (long s = 0; s < steps; s++)
#pragma GCC unroll 28
                for (int i = 0; i < n_sums; i++) sums[i] = step(sums[i]);
            for (int i = 1; i < n_sums; i++) sums[0] += sums[i];
            for (int lane = 0; lane < LANES<T>; lane++) total += sums[0][lane];
        }
        used = total;
    });
    return 1e-9 * flops * LANES<T> * n_sums * steps * omp_get_max_threads() / seconds;
}

static Limits measured_limits() {
    const Vector<float> x = Vector<float>{} + 0.999f;
    const Vector<double> y = Vector<double>{} + 0.999;
    Limits limits;
    limits.float32 = register_rate<float>(2, [=](Vector<float> sum) { return sum * x + x; });
    limits.float64 = register_rate<double>(2, [=](Vector<double> sum) { return sum * y + y; });
    limits.floatx = limits.float32;
    if constexpr (Words<FloatXWord>::K == 2) {
        const FloatXWord ones = (FloatXWord)0x3f803f80u;  // 1 and 1
        const Vector<FloatXWord> pairs = Vector<FloatXWord>{} + ones;
        limits.floatx = register_rate<float>(4, [=](Vector<float> sum) { return multiply_add(sum, ones, pairs); });
    }
    return limits;
}

// OpenBLAS's C = A B in float, if it is installed.
typedef void (*Sgemm)(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);
static Sgemm openblas_sgemm() {
    void* library = dlopen("libopenblas.so.0", RTLD_NOW);
    if (!library) return nullptr;
    const auto set_threads = (void (*)(int))dlsym(library, "openblas_set_num_threads");
    if (set_threads) set_threads(omp_get_max_threads());
    return (Sgemm)dlsym(library, "cblas_sgemm");
}

#endif

static std::string shape(const char* what, int M, int N, int K) {
    return format("%-20s %6d x %6d x %5d", what, M, N, K);
}

static void bench_linear(Limits limits) {
    const int shapes[][3] = {{2048, 1024, 1024}, {2048, 2048, 1024}, {2048, 1024, 2048}, {2048, 4096, 1024},
                             {2048, 6144, 1024}, {2048, 1024, 3072}, {8192, 2048, 1024}, {8192, 1024, 3072},
                             {512, 3072, 1024},  {128, 3072, 1024},  {16, 3072, 1024},   {1, 3072, 1024}};
    for (const auto& s : shapes) {
        const int M = s[0], N = s[1], K = s[2];
        Array<floatX> A = random_array<floatX>((size_t)M * K), B = random_array<floatX>((size_t)N * K);
        Array<floatX> C((size_t)M * N, "benchmark");
        const double seconds = best_seconds([&] { gemm(C.data, A.data, B.data, M, N, K); });
        print_line(shape("gemm " FLOATX_NAME, M, N, K), 2e-9 * M * N * K / seconds, limits.floatx);
    }
    for (int M : {128, 512}) {
        const int N = 151936, K = 1024;
        Array<floatX> A = random_array<floatX>((size_t)M * K), B = random_array<floatX>((size_t)N * K);
        Array<float> C((size_t)M * N, "benchmark");
        const double seconds = best_seconds([&] { gemm_logits(C.data, A.data, B.data, M, N, K); });
        print_line(shape("gemm_logits " FLOATX_NAME, M, N, K), 2e-9 * M * N * K / seconds, limits.floatx);
    }
}

static void bench_float(Limits limits) {
#ifndef __CUDACC__
    const Sgemm openblas = openblas_sgemm();
    if (!openblas) printf("(no OpenBLAS to compare with: libopenblas.so.0 was not found)\n");
#endif
    // Plain products, and GPTQ's update of the columns behind a block of 128.
    const int shapes[][3] = {{2048, 1024, 1024}, {2048, 6144, 1024}, {2048, 1024, 3072},
                             {1024, 3072, 3072}, {3072, 1024, 128},  {1024, 3072, 128}};
    for (const auto& s : shapes) {
        const int M = s[0], N = s[1], K = s[2];
        const double work = 2e-9 * M * N * K;
        Array<float> A = random_array<float>((size_t)M * K), B = random_array<float>((size_t)N * K);
        Array<float> C = random_array<float>((size_t)M * N);
        const double seconds = best_seconds([&] { gemm_float(C.data, N, A.data, K, B.data, N, M, N, K, -1, 1); });
        print_line(shape("gemm_float", M, N, K), work / seconds, limits.float32);
#ifndef __CUDACC__
        if (!openblas) continue;
        const int rows = 101, plain = 111;  // CblasRowMajor, CblasNoTrans
        const double theirs =
            best_seconds([&] { openblas(rows, plain, plain, M, N, K, -1, A.data, K, B.data, N, 1, C.data, N); });
        print_line("  OpenBLAS sgemm", work / theirs, limits.float32);
#endif
    }
}

// Work is counted as what has to be done: half a square for X^T X, 2/3 n^3 for a factorization and its inverse.
static void bench_gptq(Limits limits) {
    for (int I : {1024, 2048, 3072}) {
        const int T = 2048;
        Array<floatX> X = random_array<floatX>((size_t)T * I);
        Array<float> H((size_t)I * I, "benchmark");
        fill_zero(H.data, H.n);
        const double seconds = best_seconds([&] { hessian_add(H.data, X.data, T, I); });
        print_line(shape("hessian_add " FLOATX_NAME, I, I, T), 1e-9 * I * (I + 1.0) * T / seconds, limits.floatx);
    }
    for (int n : {1024, 2048, 3072, 6144}) {
        std::vector<float> host((size_t)n * n);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) host[(size_t)i * n + j] = i == j ? n : 1 / (1.0f + std::abs(i - j));
        Array<float> A(host.size(), "benchmark"), U(host.size(), "benchmark");
        copy(A.data, host.data(), host.size());
        const double seconds = best_seconds([&] {
            copy(U.data, A.data, A.n);
            if (!inverse_cholesky_upper(U.data, n)) fail("the benchmark's matrix was not positive definite");
        });
        print_line(format("inverse_cholesky_upper n = %-5d %8.1f ms", n, 1e3 * seconds), 2e-9 / 3 * n * n * n / seconds,
                   limits.float64);
    }
}

int main() {
    printf("%s\n", device_name().c_str());
    const Limits limits = measured_limits();
    printf("limits, GFLOP/s: %s %.1f, float %.1f, double %.1f\n", FLOATX_NAME, limits.floatx, limits.float32,
           limits.float64);
    printf("%-44s %10s %10s %9s\n", "what, M x N x K", "GFLOP/s", "limit", "ratio");
    bench_linear(limits);
    bench_float(limits);
    bench_gptq(limits);
}
