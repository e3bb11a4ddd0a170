// test_emulator.cu: the emulated GPU of test/emulate, only built with EMULATE=1. What it must compute is compared with plain loops
// over the definitions; what it must find is planted: kernels with a missing barrier, a divergent one, a missing wait, a wild
// address.
#include "../cuda/gemm.cuh"
#include "../cuda/ptx.cuh"
#include "test.h"
#include <functional>
#include <random>

struct Seed {
    const uint64_t before = emulated::seed();
    explicit Seed(uint64_t seed) { emulated::seed() = seed; }
    ~Seed() { emulated::seed() = before; }
};

template <class T> static Array<T> on_device(const std::vector<T>& host) {
    Array<T> device(host.size(), "test values");
    copy(device.data, host.data(), host.size());
    return device;
}
template <class T> static std::vector<T> on_host(const Array<T>& device) {
    std::vector<T> host(device.n);
    copy(host.data(), device.data, device.n);
    return host;
}

template <class... P> static void launch_shared(void (*kernel)(P...), int blocks, int threads, size_t bytes, P... args) {
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(blocks), config.blockDim = dim3(threads), config.dynamicSmemBytes = bytes;
    cuda_check(cudaLaunchKernelEx(&config, kernel, args...));
}

// ---------------------------------------------------------------------------------------------------------------------
// Barriers and orders

// out[t] = what the left neighbour wrote.
KERNEL neighbour_kernel(float* out, bool with_barrier) {
    SHARED float x[64];
    x[threadIdx.x] = threadIdx.x;
    if (with_barrier) block_sync();
    out[blockIdx.x * 64 + threadIdx.x] = x[(threadIdx.x + 63) % 64];
}

TEST(a_missing_barrier_shows) {
    for (const bool with_barrier : {true, false})
        for (const uint64_t seed : {0, 1, 2, 3, 4}) {
            Seed set(seed);
            Array<float> out(64 * 10, "out");
            launch(neighbour_kernel, 10, 64, out.data, with_barrier);
            const std::vector<float> found = on_host(out);
            int wrong = 0;
            for (int i = 0; i < 640; i++) wrong += !(found[i] == (i % 64 + 63) % 64);
            CHECK_EQ(wrong > 0, !with_barrier);
        }
}

// Without the last barrier, the next round overwrites what others still have to read.
KERNEL rounds_kernel(int* out, bool last_barrier) {
    SHARED int x[96];
    int sum = 0;
    for (int round = 0; round < 3; round++) {
        x[threadIdx.x] = round;
        block_sync();
        sum += x[95 - threadIdx.x] == round;
        if (last_barrier) block_sync();
    }
    out[threadIdx.x] = sum;
}

TEST(a_missing_barrier_between_rounds_shows) {
    for (const bool last_barrier : {true, false})
        for (const uint64_t seed : {0, 1}) {
            Seed set(seed);
            Array<int> out(96, "out");
            launch(rounds_kernel, 1, 96, out.data, last_barrier);
            int sum = 0;
            for (const int x : on_host(out)) sum += x;
            CHECK_EQ(sum == 3 * 96, last_barrier);
        }
}

KERNEL divergent_kernel(int* out, int how) {
    if (how == 0 && threadIdx.x == 5) return;
    if (how == 1 && threadIdx.x < 32) {
        block_sync();
    } else {
        block_sync();
    }
    if (how == 2 && threadIdx.x < 3) __syncwarp();
    if (how == 3) __shfl_xor_sync(0xfffffffeu, 1, 2);
    if (how == 4 && threadIdx.x % 32 > 0) __syncwarp(0xfffffffeu);
    if (how == 4 && threadIdx.x == 0) __shfl_xor_sync(3, 1, 1);  // lane 1 does not come
    out[threadIdx.x] = 1;
}

TEST(threads_that_wait_for_ever_are_reported) {
    Array<int> out(64, "out");
    const auto run = [&](int how) {
        fill_zero(out.data, 64);
        launch(divergent_kernel, dim3(3, 2), 64, out.data, how);
        device_wait();
    };
    run(-1);
    CHECK_ERROR(run(0), "divergent_kernel <<<(3, 2, 1), 64>>>, block (");
    CHECK_ERROR(run(0), "63 of them at __syncthreads of test/test_emulator.cu:");
    CHECK_ERROR(run(0), "1 of them ended (thread 5)");
    CHECK_ERROR(run(0), "HINT: a kernel before this call failed; compute-sanitizer before the same command names it");
    CHECK_ERROR(run(1), "32 of them at __syncthreads");
    CHECK_ERROR(run(2), "3 of them at __syncwarp, mask ffffffff, of ");
    CHECK_ERROR(run(3), "with a mask that does not name it");
    CHECK_ERROR(run(4), "1 of them at __shfl_xor_sync, mask 00000003, of ");
    run(-1);  // and a failure leaves nothing behind
    for (const int x : on_host(out)) CHECK_EQ(x, 1);
}

KERNEL vote_kernel(int* out, int dissenter) { out[threadIdx.x] = __syncthreads_and((int)threadIdx.x != dissenter); }

TEST(votes) {
    for (const int dissenter : {-1, 0, 77, 99}) {
        Array<int> out(100, "out");
        launch(vote_kernel, 1, 100, out.data, dissenter);
        for (const int x : on_host(out)) CHECK_EQ(x, dissenter < 0);
    }
}

KERNEL shuffle_kernel(int* out /*[4, 32]*/) {
    const int t = threadIdx.x;
    out[t] = __shfl_xor_sync(0xffffffffu, t * t, 5);
    out[32 + t] = __shfl_down_sync(0xffffffffu, t * t, 3);
    if (t < 20) out[64 + t] = __shfl_down_sync(0x000fffffu, t * t, 7);
    if (t % 2) out[96 + t] = __shfl_xor_sync(0xaaaaaaaau, t * t, 2);
}

TEST(shuffles_and_their_masks) {
    for (int run = 0; run < 40; run++) {  // in many orders: odd lanes come to the last instruction while others wait at the one before
        Seed set(run < 2 ? run : 2);
        Array<int> out(128, "out");
        launch(shuffle_kernel, 1, 32, out.data);
        const std::vector<int> found = on_host(out);
        for (int t = 0; t < 32; t++) {
            CHECK_EQ(found[t], (t ^ 5) * (t ^ 5));
            CHECK_EQ(found[32 + t], t + 3 < 32 ? (t + 3) * (t + 3) : t * t);
            CHECK_EQ(found[64 + t], t < 20 && t + 7 < 20 ? (t + 7) * (t + 7) : -1);  // else undefined, or never written
            CHECK_EQ(found[96 + t], t % 2 ? (t ^ 2) * (t ^ 2) : -1);
        }
    }
}

KERNEL shared_begins_undefined_kernel(int* out) {
    SHARED int x[8];
    extern __shared__ uint4 shared[];
    out[threadIdx.x] = x[threadIdx.x] == -1 && shared[threadIdx.x].w == ~0u;
    x[threadIdx.x] = 3, shared[threadIdx.x].w = 3;
}

TEST(memory_begins_undefined) {
    Array<int> out(8, "out");
    for (const int x : on_host(out)) CHECK_EQ(x, -1);
    for (int run = 0; run < 3; run++) {
        launch_shared(shared_begins_undefined_kernel, 5, 8, 128, out.data);
        for (const int x : on_host(out)) CHECK_EQ(x, 1);
    }
}

TEST(launches_beyond_the_limits_fail) {
    Array<int> out(2000, "out");
    cudaLaunchConfig_t config = {};
    const auto status = [&](dim3 grid, int block, size_t bytes) {
        config.gridDim = grid, config.blockDim = dim3(block), config.dynamicSmemBytes = bytes;
        return cudaLaunchKernelEx(&config, vote_kernel, out.data, 0);
    };
    CHECK_EQ(status(1, 1024, 48 << 10), cudaSuccess);
    CHECK_EQ(status(1, 1025, 0), cudaErrorInvalidConfiguration);
    CHECK_EQ(status(1, 0, 0), cudaErrorInvalidConfiguration);
    CHECK_EQ(status(0, 1, 0), cudaErrorInvalidConfiguration);
    CHECK_EQ(status(dim3(1, 65536), 1, 0), cudaErrorInvalidConfiguration);
    CHECK_EQ(status(1, 1, (48 << 10) + 1), cudaErrorInvalidValue);
    CHECK_EQ(cudaGetLastError(), cudaErrorInvalidValue);
    CHECK_EQ(cudaFuncSetAttribute(vote_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 << 10), cudaSuccess);
    CHECK_EQ(status(1, 1, 227 << 10), cudaSuccess);
    CHECK_EQ(cudaFuncSetAttribute(vote_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (227 << 10) + 1),
             cudaErrorInvalidValue);
    cuda_check(cudaDeviceSynchronize());
}

// ---------------------------------------------------------------------------------------------------------------------
// PTX

// out[t] = x[t], 16 bytes a thread, by way of shared memory.
KERNEL async_copy_kernel(uint4* out, const uint4* x, int mistake) {
    extern __shared__ uint4 shared[];
    const uint32_t at = shared_address(shared);
    copy_chunk(at + threadIdx.x * 16, x + threadIdx.x);
    if (mistake == 1) block_sync();  // no wait
    else wait_for_copies();
    const uint4 mine = shared[(threadIdx.x + 1) % blockDim.x];
    if (mistake != 2) block_sync();  // without it, the next copy overwrites what others have not read
    copy_chunk(at + threadIdx.x * 16, x);
    wait_for_copies();
    out[threadIdx.x] = mine;
}

TEST(a_copy_that_is_not_waited_for_shows) {
    std::vector<uint4> x;
    for (unsigned i = 0; i < 64; i++) x.push_back({i, i + 1000, i + 2000, i + 3000});
    const Array<uint4> x_d = on_device(x);
    for (int mistake = 0; mistake < 3; mistake++) {
        int wrong = 0;
        for (const uint64_t seed : {0, 1, 2, 3, 4, 5}) {
            Seed set(seed);
            Array<uint4> out(64, "out");
            launch_shared(async_copy_kernel, 1, 64, 64 * 16, out.data, (const uint4*)x_d.data, mistake);
            const std::vector<uint4> found = on_host(out);
            for (int i = 0; i < 64; i++) wrong += memcmp(&found[i], &x[(i + 1) % 64], 16) != 0;
        }
        CHECK_EQ(wrong > 0, mistake > 0);
    }
}

KERNEL address_kernel(int* out, int offset, bool load) {
    extern __shared__ uint4 shared[];
    const uint32_t at = shared_address(shared);
    uint32_t r[4] = {};
    if (load) load_matrices(r, at + offset);
    else copy_chunk(at + offset, out);
    out[threadIdx.x] = (int)r[0];
}

TEST(wild_shared_addresses_are_reported) {
    Array<int> out(32, "out");
    const auto run = [&](int offset, bool load) {
        launch_shared(address_kernel, 1, 32, (size_t)512, out.data, offset, load);
        device_wait();
    };
    for (const bool load : {false, true}) {
        run(0, load), run(496, load);
        for (const int offset : {512, -16, 8, 1 << 20}) CHECK_ERROR(run(offset, load), "expected 16 aligned bytes of the 512");
    }
}

static uint16_t bf16_bits(float x) { return to_bf16(x).bits; }

// One warp: A [16, 16] and B [8, 16] (by columns of the factor) from shared memory, C = A B^T; and raw registers.
KERNEL fragments_kernel(uint32_t* loaded /*[2, 32, 4]*/, float* c /*[32, 4]*/, const uint16_t* matrices /*[32 rows, 8]*/,
                        const uint32_t* a /*[32, 4]*/, const uint32_t* b /*[32, 2]*/) {
    extern __shared__ uint4 shared[];
    const uint32_t at = shared_address(shared);
    const int lane = threadIdx.x, row = (lane * 5 + 3) % 32;  // rows lie anywhere
    copy_chunk(at + row * 16, matrices + lane * 8);
    wait_for_copies();
    uint32_t r[4], t[4], factor[4];
    load_matrices(r, at + row * 16);
    load_matrices_transposed(t, at + row * 16);
    float sum[4];
    for (int i = 0; i < 4; i++)
        loaded[lane * 4 + i] = r[i], loaded[128 + lane * 4 + i] = t[i], factor[i] = a[lane * 4 + i], sum[i] = c[lane * 4 + i];
    multiply_add(sum, factor, b[lane * 2], b[lane * 2 + 1]);
    for (int i = 0; i < 4; i++) c[lane * 4 + i] = sum[i];
}

// The tables of the PTX ISA, entry by entry: where the elements of a lane's registers are in their matrices.
TEST(fragments_are_those_of_the_ptx_isa) {
    std::mt19937 random(1);
    const auto value = [&] { return (float)((int)(random() % 513) - 256) / 64; };  // exact in bf16 and in sums
    std::vector<uint16_t> matrices;  // lane's row; its value tells matrix, row and column
    for (int m = 0; m < 4; m++)
        for (int i = 0; i < 8; i++)
            for (int j = 0; j < 8; j++) matrices.push_back((uint16_t)(m * 100 + i * 10 + j));
    float A[16][16], B[16][8], C[16][8];
    for (auto& row : A)
        for (float& x : row) x = to_float(to_bf16(value()));
    for (auto& row : B)
        for (float& x : row) x = to_float(to_bf16(value()));
    for (auto& row : C)
        for (float& x : row) x = value();
    const auto pair = [](float low, float high) { return bf16_bits(low) | (uint32_t)bf16_bits(high) << 16; };
    std::vector<uint32_t> a, b;
    std::vector<float> c;
    for (int lane = 0; lane < 32; lane++) {
        const int group = lane >> 2, in_group = lane % 4;
        for (int i = 0; i < 8; i += 2) {  // a0 a1, a2 a3, ...
            const int row = i < 2 || (4 <= i && i < 6) ? group : group + 8, column = in_group * 2 + (i < 4 ? 0 : 8);
            a.push_back(pair(A[row][column], A[row][column + 1]));
        }
        for (int i = 0; i < 4; i += 2) {
            const int row = in_group * 2 + (i < 2 ? 0 : 8);
            b.push_back(pair(B[row][group], B[row + 1][group]));
        }
        for (int i = 0; i < 4; i++) c.push_back(C[i < 2 ? group : group + 8][in_group * 2 + (i & 1)]);
    }
    const Array<uint32_t> a_d = on_device(a), b_d = on_device(b);
    const Array<uint16_t> matrices_d = on_device(matrices);
    Array<float> c_d = on_device(c);
    Array<uint32_t> loaded_d(256, "registers");
    launch_shared(fragments_kernel, 1, 32, (size_t)512, loaded_d.data, c_d.data, (const uint16_t*)matrices_d.data,
                  (const uint32_t*)a_d.data, (const uint32_t*)b_d.data);
    const std::vector<uint32_t> loaded = on_host(loaded_d);
    const std::vector<float> found = on_host(c_d);
    for (int lane = 0; lane < 32; lane++)
        for (int m = 0; m < 4; m++) {
            const uint32_t r = loaded[lane * 4 + m], t = loaded[128 + lane * 4 + m];
            const unsigned line = lane / 4, pair_of_line = lane % 4 * 2;
            CHECK_EQ(r & 0xffff, m * 100 + line * 10 + pair_of_line);
            CHECK_EQ(r >> 16, m * 100 + line * 10 + pair_of_line + 1);
            CHECK_EQ(t & 0xffff, m * 100 + pair_of_line * 10 + line);
            CHECK_EQ(t >> 16, m * 100 + (pair_of_line + 1) * 10 + line);
        }
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++) {
            const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            double sum = C[row][column];
            for (int k = 0; k < 16; k++) sum += (double)A[row][k] * B[k][column];
            CHECK_EQ(found[lane * 4 + i], (float)sum);
        }
}

TEST(conversions) {
    for (float x = -130; x < 128; x += 0.37f) CHECK_NEAR(exp2_fast(x) / std::exp2((double)x), x < -126 ? 0 : 1, 1e-6);
    CHECK_EQ(exp2_fast(-INFINITY), 0.0f);
    CHECK(std::isnan(exp2_fast(NAN)));
    std::mt19937 random(2);
    for (int i = 0; i < 100000; i++) {
        float x;
        const uint32_t bits = random();
        memcpy(&x, &bits, 4);
        if (!std::isnan(x)) CHECK_EQ(bf16_pair(x, -x), bf16_bits(x) | (uint32_t)bf16_bits(-x) << 16);
    }
    CHECK_EQ(bf16_pair(NAN, 1), 0x3f807fffu);
}

// ---------------------------------------------------------------------------------------------------------------------
// Streams: what is not waited for shows

KERNEL add_one_kernel(int* x, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] += 1;
}

// A kernel of the default stream works on what another stream has uploaded; then the buffer is uploaded to again.
static bool upload_in_time(bool wait_for_upload, bool wait_for_kernel) {
    const int n = 10;
    cudaStream_t stream;
    cudaEvent_t uploaded, used;
    cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    cuda_check(cudaEventCreateWithFlags(&uploaded, cudaEventDisableTiming));
    cuda_check(cudaEventCreateWithFlags(&used, cudaEventDisableTiming));
    Array<int> host(2 * n, "upload", Place::Host), buffer(n, "buffer"), result(n, "result");
    for (int i = 0; i < 2 * n; i++) host.data[i] = i;
    cuda_check(cudaMemcpyAsync(buffer.data, host.data, n * sizeof(int), cudaMemcpyDefault, stream));
    cuda_check(cudaEventRecord(uploaded, stream));
    if (wait_for_upload) cuda_check(cudaStreamWaitEvent(nullptr, uploaded));
    launch(add_one_kernel, 1, 32, buffer.data, n);
    cuda_check(cudaMemcpyAsync(result.data, buffer.data, n * sizeof(int), cudaMemcpyDefault));
    cuda_check(cudaEventRecord(used));
    if (wait_for_kernel) cuda_check(cudaStreamWaitEvent(stream, used));
    cuda_check(cudaMemcpyAsync(buffer.data, host.data + n, n * sizeof(int), cudaMemcpyDefault, stream));
    const std::vector<int> found = on_host(result);
    cuda_check(cudaStreamSynchronize(stream));
    const std::vector<int> second = on_host(buffer);
    bool right = true;
    for (int i = 0; i < n; i++) right = right && found[i] == i + 1 && second[i] == n + i;
    cuda_check(cudaEventDestroy(uploaded)), cuda_check(cudaEventDestroy(used)), cuda_check(cudaStreamDestroy(stream));
    return right;
}

TEST(streams_that_do_not_wait_for_one_another_show) {
    int without_first = 0, without_second = 0;
    for (const uint64_t seed : {0, 1, 2, 3, 4, 5}) {
        Seed set(seed);
        CHECK(upload_in_time(true, true));
        without_first += !upload_in_time(false, true);
        without_second += !upload_in_time(true, false);
    }
    CHECK(without_first > 0 && without_second > 0);
}

TEST(a_copy_reads_the_host_memory_when_it_is_done) {
    Seed late(0);
    cudaStream_t stream;
    cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    Array<int> host(1, "value", Place::Host), device(1, "value");
    host.data[0] = 1;
    cuda_check(cudaMemcpyAsync(device.data, host.data, sizeof(int), cudaMemcpyDefault, stream));
    host.data[0] = 2;  // too early
    cuda_check(cudaStreamSynchronize(stream));
    CHECK_EQ(on_host(device)[0], 2);
    cuda_check(cudaStreamDestroy(stream));
}

// ---------------------------------------------------------------------------------------------------------------------
// cuBLAS, in all its combinations, against sums over the definition

// A matrix by columns, rows ld apart; what lies between the columns must stay.
struct Columns {
    int rows, columns, ld;
    std::vector<double> x;

    Columns(int rows, int columns, unsigned seed) : rows(rows), columns(columns), ld(rows + 3), x((size_t)ld * columns) {
        std::mt19937 random(seed);
        for (double& v : x) v = (double)((int)(random() % 257) - 128) / 32;  // exact in bf16
    }
    double& at(int i, int j) { return x[i + (size_t)j * ld]; }
};

TEST(gemm_is_its_definition) {
    const auto check = [](auto in, auto out, cublasOperation_t opA, cublasOperation_t opB, float alpha, float beta) {
        typedef decltype(in) In;
        typedef decltype(out) Out;
        for (const auto& [m, n, k] : {std::tuple<int, int, int>{1, 1, 1}, {5, 3, 7}, {33, 9, 20}, {70, 40, 1}, {16, 8, 0}}) {
            const bool a_as_is = opA == CUBLAS_OP_N, b_as_is = opB == CUBLAS_OP_N;
            Columns A(a_as_is ? m : k, a_as_is ? k : m, 1), B(b_as_is ? k : n, b_as_is ? n : k, 2), C(m, n, 3);
            const auto device = [](const Columns& M, auto type) {
                std::vector<decltype(type)> values;
                for (double v : M.x) {
                    if constexpr (sizeof type == 2) values.push_back(to_bf16((float)v));
                    else values.push_back((float)v);
                }
                values.resize(std::max<size_t>(values.size(), 1));
                return on_device(values);
            };
            const Array<In> a = device(A, in), b = device(B, in);
            Array<Out> c = device(C, out);
            const auto type = [](size_t bytes) { return bytes == 2 ? CUDA_R_16BF : CUDA_R_32F; };
            CHECK_EQ(cublasGemmEx(nullptr, opA, opB, m, n, k, &alpha, a.data, type(sizeof(In)), A.ld, b.data, type(sizeof(In)),
                                  B.ld, &beta, c.data, type(sizeof(Out)), C.ld, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                     CUBLAS_STATUS_SUCCESS);
            const std::vector<Out> found = on_host(c);
            for (int j = 0; j < n; j++)
                for (int i = 0; i < C.ld; i++) {
                    double sum = 0;
                    for (int l = 0; l < k && i < m; l++)
                        sum += (a_as_is ? A.at(i, l) : A.at(l, i)) * (b_as_is ? B.at(l, j) : B.at(j, l));
                    const double expected = i < m ? alpha * sum + beta * C.at(i, j) : C.at(i, j);
                    CHECK_NEAR(to_float(found[i + (size_t)j * C.ld]), expected,
                               fabs(expected) * (sizeof(Out) == 2 ? 0x1p-8 : 1e-6) + 1e-6);
                }
        }
    };
    for (const cublasOperation_t opA : {CUBLAS_OP_N, CUBLAS_OP_T, CUBLAS_OP_C})
        for (const cublasOperation_t opB : {CUBLAS_OP_N, CUBLAS_OP_T, CUBLAS_OP_C})
            for (const auto& [alpha, beta] : {std::pair<float, float>{1, 0}, {-0.5f, 1}, {2, 0.25f}}) {
                check(float(), float(), opA, opB, alpha, beta);
                check(bf16(), float(), opA, opB, alpha, beta);
                check(bf16(), bf16(), opA, opB, alpha, beta);
            }
}

TEST(gemm_does_not_read_c_when_beta_is_0) {
    const float one = 1, zero = 0;
    const Array<float> a = on_device<float>({2}), b = on_device<float>({3});
    Array<float> c = on_device<float>({NAN});
    cublasGemmEx(nullptr, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, a.data, CUDA_R_32F, 1, b.data, CUDA_R_32F, 1, &zero, c.data,
                 CUDA_R_32F, 1, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    CHECK_EQ(on_host(c)[0], 6.0f);
}

TEST(trmm_is_its_definition) {
    for (const cublasSideMode_t side : {CUBLAS_SIDE_LEFT, CUBLAS_SIDE_RIGHT})
        for (const cublasFillMode_t uplo : {CUBLAS_FILL_MODE_LOWER, CUBLAS_FILL_MODE_UPPER})
            for (const cublasOperation_t op : {CUBLAS_OP_N, CUBLAS_OP_T, CUBLAS_OP_C})
                for (const cublasDiagType_t diag : {CUBLAS_DIAG_NON_UNIT, CUBLAS_DIAG_UNIT})
                    for (const bool in_place : {false, true})
                        for (const auto& [m, n] : {std::pair<int, int>{1, 1}, {6, 4}, {19, 35}}) {
                            const bool left = side == CUBLAS_SIDE_LEFT;
                            const int size = left ? m : n;
                            Columns A(size, size, 4), B(m, n, 5), C(m, n, 6);
                            std::vector<double> full((size_t)size * size);  // op(A), by columns
                            for (int i = 0; i < size; i++)
                                for (int j = 0; j < size; j++) {
                                    const bool stored = uplo == CUBLAS_FILL_MODE_UPPER ? i <= j : i >= j;
                                    const double x = !stored ? 0 : i == j && diag == CUBLAS_DIAG_UNIT ? 1 : A.at(i, j);
                                    full[op == CUBLAS_OP_N ? i + (size_t)j * size : j + (size_t)i * size] = x;
                                    if (!stored || (i == j && diag == CUBLAS_DIAG_UNIT)) A.at(i, j) = NAN;  // must not be read
                                }
                            const double alpha = -1.5;
                            Array<double> a = on_device(A.x), b = on_device(B.x), c = on_device(C.x);
                            CHECK_EQ(cublasDtrmm(nullptr, side, uplo, op, diag, m, n, &alpha, a.data, A.ld, b.data, B.ld,
                                                 in_place ? b.data : c.data, C.ld),
                                     CUBLAS_STATUS_SUCCESS);
                            const std::vector<double> found = on_host(in_place ? b : c);
                            for (int j = 0; j < n; j++)
                                for (int i = 0; i < C.ld; i++) {
                                    double sum = 0;
                                    for (int l = 0; l < size && i < m; l++)
                                        sum += left ? full[i + (size_t)l * size] * B.at(l, j)
                                                    : B.at(i, l) * full[l + (size_t)j * size];
                                    CHECK_NEAR(found[i + (size_t)j * C.ld], i < m ? alpha * sum : (in_place ? B : C).at(i, j),
                                               1e-10);
                                }
                        }
}

TEST(syrk_is_its_definition) {
    for (const cublasFillMode_t uplo : {CUBLAS_FILL_MODE_LOWER, CUBLAS_FILL_MODE_UPPER})
        for (const cublasOperation_t op : {CUBLAS_OP_N, CUBLAS_OP_T, CUBLAS_OP_C})
            for (const auto& [n, k] : {std::pair<int, int>{1, 1}, {7, 4}, {37, 21}})
                for (const double beta : {1.0, 0.0, -0.5}) {
                    const bool as_is = op == CUBLAS_OP_N;
                    Columns A(as_is ? n : k, as_is ? k : n, 7), C(n, n, 8);
                    const double alpha = 0.75;
                    if (beta == 0) C.at(0, 0) = NAN;
                    const Array<double> a = on_device(A.x);
                    Array<double> c = on_device(C.x);
                    CHECK_EQ(cublasDsyrk(nullptr, uplo, op, n, k, &alpha, a.data, A.ld, &beta, c.data, C.ld),
                             CUBLAS_STATUS_SUCCESS);
                    const std::vector<double> found = on_host(c);
                    for (int j = 0; j < n; j++)
                        for (int i = 0; i < C.ld; i++) {
                            const bool written = i < n && (uplo == CUBLAS_FILL_MODE_UPPER ? i <= j : i >= j);
                            double sum = 0;
                            for (int l = 0; l < k && i < n; l++) sum += as_is ? A.at(i, l) * A.at(j, l) : A.at(l, i) * A.at(l, j);
                            const double expected = written ? alpha * sum + (beta == 0 ? 0 : beta * C.at(i, j)) : C.at(i, j);
                            CHECK_NEAR(found[i + (size_t)j * C.ld], expected, 1e-10);
                        }
                }
}

TEST(cublas_refuses_what_its_documentation_calls_invalid) {
    const float one = 1;
    const double two = 2;
    Array<float> x(100, "x");
    Array<double> y(100, "y");
    const auto gemm_status = [&](cublasOperation_t opA, cublasOperation_t opB, int m, int n, int k, int lda, int ldb, int ldc) {
        return cublasGemmEx(nullptr, opA, opB, m, n, k, &one, x.data, CUDA_R_32F, lda, x.data, CUDA_R_32F, ldb, &one, x.data,
                            CUDA_R_32F, ldc, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    };
    const cublasOperation_t N = CUBLAS_OP_N, T = CUBLAS_OP_T;
    CHECK_EQ(gemm_status(N, N, 2, 3, 4, 2, 4, 2), CUBLAS_STATUS_SUCCESS);
    CHECK_EQ(gemm_status(T, T, 2, 3, 4, 4, 3, 2), CUBLAS_STATUS_SUCCESS);
    CHECK_EQ(gemm_status(N, N, 2, 3, 4, 1, 4, 2), CUBLAS_STATUS_INVALID_VALUE);
    CHECK_EQ(gemm_status(N, N, 2, 3, 4, 2, 3, 2), CUBLAS_STATUS_INVALID_VALUE);
    CHECK_EQ(gemm_status(N, N, 2, 3, 4, 2, 4, 1), CUBLAS_STATUS_INVALID_VALUE);
    CHECK_EQ(gemm_status(T, N, 2, 3, 4, 3, 4, 2), CUBLAS_STATUS_INVALID_VALUE);
    CHECK_EQ(gemm_status(N, T, 2, 3, 4, 2, 2, 2), CUBLAS_STATUS_INVALID_VALUE);
    CHECK_EQ(gemm_status(N, N, -1, 3, 4, 2, 4, 2), CUBLAS_STATUS_INVALID_VALUE);
    CHECK_EQ(gemm_status((cublasOperation_t)7, N, 2, 3, 4, 4, 4, 4), CUBLAS_STATUS_INVALID_VALUE);
    const auto trmm_status = [&](cublasSideMode_t side, int m, int n, int lda, int ldb, int ldc) {
        return cublasDtrmm(nullptr, side, CUBLAS_FILL_MODE_UPPER, N, CUBLAS_DIAG_NON_UNIT, m, n, &two, y.data, lda, y.data + 30,
                           ldb, y.data + 60, ldc);
    };
    CHECK_EQ(trmm_status(CUBLAS_SIDE_LEFT, 2, 5, 2, 2, 2), CUBLAS_STATUS_SUCCESS);
    CHECK_EQ(trmm_status(CUBLAS_SIDE_RIGHT, 2, 5, 2, 2, 2), CUBLAS_STATUS_INVALID_VALUE);
    CHECK_EQ(trmm_status(CUBLAS_SIDE_LEFT, 2, 5, 2, 1, 2), CUBLAS_STATUS_INVALID_VALUE);
    CHECK_EQ(trmm_status(CUBLAS_SIDE_LEFT, 2, 5, 2, 2, 1), CUBLAS_STATUS_INVALID_VALUE);
    const auto syrk_status = [&](cublasOperation_t op, int n, int k, int lda, int ldc) {
        return cublasDsyrk(nullptr, CUBLAS_FILL_MODE_LOWER, op, n, k, &two, y.data, lda, &two, y.data + 50, ldc);
    };
    CHECK_EQ(syrk_status(N, 3, 5, 3, 3), CUBLAS_STATUS_SUCCESS);
    CHECK_EQ(syrk_status(T, 3, 5, 3, 3), CUBLAS_STATUS_INVALID_VALUE);
    CHECK_EQ(syrk_status(N, 3, 5, 2, 3), CUBLAS_STATUS_INVALID_VALUE);
    CHECK_EQ(syrk_status(N, 3, 5, 3, 2), CUBLAS_STATUS_INVALID_VALUE);
    device_wait();
}
