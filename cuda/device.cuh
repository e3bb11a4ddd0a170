// device.cuh: one kernel source, two machines.
//
// Every kernel is written once, block-cooperatively: one block owns one row (or tile), its threads stride over it,
//     for (int i = threadIdx.x; i < n; i += blockDim.x) ...
// and they meet in block_sum, block_max and block_sync. Compiled by nvcc that is an ordinary CUDA kernel. Compiled by g++ a block
// has exactly one thread: threadIdx is 0 and blockDim is 1, both compile-time constants, so the loops above are plain loops
// that vectorize; blocks are the iterations of an OpenMP loop; sync is nothing and shared memory is the stack.
// Sums are done in a fixed order on either machine (no float atomics): the same command twice gives the same bytes.
//
// floatX is the storage type of weights and activations: bf16, or float with PRECISION=FP32.
//
// defines: KERNEL, DEVICE, HOST_DEVICE, SHARED, launch, launch_shared, block_sync, block_sum, block_max, block_min, bf16, floatX,
//          to_float, to_bf16, to_floatX, store_float, rounded_product, FLOATX_NAME, exp_float, Place, Array, copy, copy_beside, fill_zero,
//          device_wait, memory_used, device_name, device_free_bytes, cgroup_free_bytes, host_free_bytes, host_peak_bytes, ceil_div, touch,
//          place_malloc
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <sys/resource.h>
#include <utility>
#include "../data/error.h"
#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#else
#include "amx.h"
#include <omp.h>
#include <sys/mman.h>
#endif

// ---------------------------------------------------------------------------------------------------------------------
// The machine: what a kernel is, and how it is launched

#ifdef __CUDACC__

#define KERNEL __global__ void
#define DEVICE inline __device__
#define HOST_DEVICE inline __host__ __device__
#define SHARED __shared__

inline void cuda_check_at(cudaError_t status, const char* call, const char* file, int line) {
    if (status == cudaSuccess) return;
    const char* hint = "";
    if (status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver) hint = ". HINT: nvidia-smi shows GPU and driver; make CPU=1 needs none";
    if (status == cudaErrorNoKernelImageForDevice) hint = ". HINT: make gpu ARCH=..., the GPU's compute capability without its dot, 80 or more";
    if (status == cudaErrorIllegalAddress || status == cudaErrorLaunchFailure)
        hint = ". HINT: a kernel before this call failed; compute-sanitizer before the same command names it";
    fail("%s:%d: %s: %s (%s)%s", file, line, call, cudaGetErrorName(status), cudaGetErrorString(status), hint);
}
#define cuda_check(call) cuda_check_at((call), #call, __FILE__, __LINE__)

// Runs `kernel` on grid x block threads of the default stream, with so many bytes of dynamic shared memory. An empty grid is no work;
// a launch that cannot cover its problem fails.
template <class... P, class... A> void launch_shared(void (*kernel)(P...), dim3 grid, int block, size_t shared_bytes, A... args) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    if (grid.x > 2147483647u || grid.y > 65535u || grid.z > 65535u || block < 1 || block > 1024)
        fail("launch of %u x %u x %u blocks of %d threads is outside of CUDA's limits", grid.x, grid.y, grid.z, block);
    if (shared_bytes > 48 << 10)  // more must be asked for
        cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes));
    cudaLaunchConfig_t config = {};
    config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = shared_bytes;
    cuda_check(cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...));
}

template <class... P, class... A> void launch(void (*kernel)(P...), dim3 grid, int block, A... args) {
    launch_shared(kernel, grid, block, 0, args...);
}

#define block_sync() __syncthreads()  // a macro, so that the emulated GPU of the tests can say which one

#else

#define KERNEL inline void
#define DEVICE inline
#define HOST_DEVICE inline
#define SHARED  // one thread a block: shared memory is an array on its stack

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct ThreadIdx {
    static constexpr int x = 0;
};
struct BlockDim {
    static constexpr int x = 1;
};
static constexpr ThreadIdx threadIdx = {};
static constexpr BlockDim blockDim = {};
static thread_local dim3 blockIdx(0, 0, 0);
static thread_local dim3 gridDim(0, 0, 0);

template <class... P, class... A> void launch(void (*kernel)(P...), dim3 grid, int /*block*/, A... args) {
    const long nx = grid.x, nxy = nx * grid.y, n = nxy * grid.z;
    const long share = std::max(1L, n / (16L * omp_get_max_threads()));
#pragma omp parallel for schedule(dynamic, share) if (n > 1)
    for (long b = 0; b < n; b++) {
        blockIdx = dim3((unsigned)(b % nx), (unsigned)(b % nxy / nx), (unsigned)(b / nxy));
        gridDim = grid;
        kernel(static_cast<P>(args)...);
    }
}

template <class... P, class... A>
void launch_shared(void (*kernel)(P...), dim3 grid, int block, size_t /*shared_bytes*/, A... args) {
    launch(kernel, grid, block, args...);
}

DEVICE void block_sync() {}

#endif

// ---------------------------------------------------------------------------------------------------------------------
// Block reductions: every thread of the block calls, every thread gets the result

#ifdef __CUDACC__

struct SumOp {
    template <class T> __device__ T operator()(T a, T b) const { return a + b; }
};
// A NaN wins, as in torch.amax: what has failed must stay visible.
struct MaxOp {
    template <class T> __device__ T operator()(T a, T b) const { return a > b || a != a ? a : b; }
};
struct MinOp {
    template <class T> __device__ T operator()(T a, T b) const { return a < b || a != a ? a : b; }
};

template <class T, class Op> __device__ inline T block_reduce(T x, T identity, Op op) {
    __shared__ T partial[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_warps = (blockDim.x + 31) / 32;
    const int in_warp = min(32, (int)blockDim.x - 32 * warp);  // the last warp may be partly there
    for (int offset = 16; offset > 0; offset /= 2) {
        T other = __shfl_down_sync(in_warp == 32 ? 0xffffffffu : (1u << in_warp) - 1, x, offset);
        if (lane + offset < in_warp) x = op(x, other);
    }
    if (lane == 0) partial[warp] = x;
    __syncthreads();
    if (threadIdx.x == 0) {
        T total = identity;
        for (int w = 0; w < n_warps; w++) total = op(total, partial[w]);
        partial[0] = total;
    }
    __syncthreads();
    T total = partial[0];
    __syncthreads();  // partial may be used again at once
    return total;
}
template <class T> __device__ inline T block_sum(T x) { return block_reduce(x, T(0), SumOp()); }
template <class T> __device__ inline T block_max(T x) { return block_reduce(x, T(-INFINITY), MaxOp()); }
template <class T> __device__ inline T block_min(T x) { return block_reduce(x, T(INFINITY), MinOp()); }

#else

template <class T> T block_sum(T x) { return x; }
template <class T> T block_max(T x) { return x; }
template <class T> T block_min(T x) { return x; }

#endif

// ---------------------------------------------------------------------------------------------------------------------
// floatX

struct bf16 {
    uint16_t bits;
};

HOST_DEVICE float to_float(float x) { return x; }

HOST_DEVICE float to_float(bf16 x) {
    uint32_t u = (uint32_t)x.bits << 16;
#ifdef __CUDA_ARCH__
    return __uint_as_float(u);
#else
    float f;
    memcpy(&f, &u, 4);
    return f;
#endif
}

// Nearest, ties to even; a NaN stays a NaN.
HOST_DEVICE bf16 to_bf16(float x) {
#ifdef __CUDA_ARCH__
    return bf16{__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#else
    uint32_t u;
    memcpy(&u, &x, 4);
    uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1)) >> 16;
    return bf16{(uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40 : rounded)};
#endif
}

#ifdef PRECISION_FP32
typedef float floatX;
#define FLOATX_NAME "fp32"
HOST_DEVICE floatX to_floatX(float x) { return x; }
#else
typedef bf16 floatX;
#define FLOATX_NAME "bf16"
HOST_DEVICE floatX to_floatX(float x) { return to_bf16(x); }
#endif

// a b, rounded before something is added to it. nvcc would fuse the two on the device, where the host's compiler and PyTorch do not.
DEVICE float rounded_product(float a, float b) {
#ifdef __CUDA_ARCH__
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}

// For kernels that write either type.
HOST_DEVICE void store_float(float& to, float x) { to = x; }
HOST_DEVICE void store_float(bf16& to, float x) { to = to_bf16(x); }

// e^x to about 2 ulp. libm's expf does not vectorize without -ffast-math, and softmax and silu are full of it.
HOST_DEVICE float exp_float(float x) {
#ifdef __CUDA_ARCH__
    return expf(x);
#else
    const float clamped = x > -87.0f ? (x < 88.0f ? x : 88.0f) : -87.0f;  // a NaN becomes -87 here
    const float n = rintf(clamped * 1.44269504f);
    const float r = fmaf(n, 2.12194440e-4f, fmaf(n, -0.693359375f, clamped));  // x - n ln 2, |r| <= ln 2 / 2, in two steps
    float p = 1.0f / 5040;
    p = fmaf(p, r, 1.0f / 720), p = fmaf(p, r, 1.0f / 120), p = fmaf(p, r, 1.0f / 24), p = fmaf(p, r, 1.0f / 6);
    p = fmaf(p, r, 0.5f), p = fmaf(p, r, 1.0f), p = fmaf(p, r, 1.0f);
    // Below -87 the factor is 0, not the result: g++ takes a sum of results that may be the constant 0 for a branch, and a loop
    // over such a sum does not vectorize.
    const uint32_t exponent = x < -87.0f ? 0 : (uint32_t)((int)n + 127) << 23;
    float two_to_n;
    memcpy(&two_to_n, &exponent, 4);
    const float y = p * two_to_n;
    return x > 88.0f ? INFINITY : x == x ? y : x;
#endif
}

template <class T> constexpr T ceil_div(T a, T b) { return (a + b - 1) / b; }

// ---------------------------------------------------------------------------------------------------------------------
// Memory. On the CPU the device is the host.

enum class Place { Device, Host };  // Host: page-locked on a GPU build, so that copies run at the bus's speed

struct MemoryUse {
    size_t now = 0, peak = 0;
};
inline MemoryUse& memory_used(Place place) {
    static MemoryUse use[2];
    return use[place == Place::Host];
}

inline void* place_malloc(size_t bytes, Place place, const char* what) {
    void* p = nullptr;
#ifdef __CUDACC__
    cudaError_t status = place == Place::Device ? cudaMalloc(&p, bytes) : cudaMallocHost(&p, bytes);
    if (status == cudaErrorMemoryAllocation) p = nullptr, (void)cudaGetLastError();
    else cuda_check_at(status, place == Place::Device ? "cudaMalloc" : "cudaMallocHost", __FILE__, __LINE__);  // perhaps an earlier kernel's
#else
    // What is large asks for pages of 2 MB: matrices are also walked down their columns, a page a step.
    const size_t huge = (size_t)2 << 20, align = bytes < 2 * huge ? 64 : huge;
    p = aligned_alloc(align, ceil_div(bytes, align) * align);
#ifdef MADV_HUGEPAGE
    if (p && align == huge) (void)madvise(p, bytes, MADV_HUGEPAGE);
#endif
#endif
    MemoryUse& use = memory_used(place);
    if (!p)
        fail("out of %s memory: %s needs %.3f GB on top of the %.3f GB in use. HINT: fewer or shorter calibration samples "
             "(-n, -l), fewer tasks (-e), or a smaller model",
             place == Place::Device ? "device" : "host", what, bytes / 1e9, use.now / 1e9);
    use.now += bytes;
    use.peak = std::max(use.peak, use.now);
    return p;
}

inline void place_free(void* p, size_t bytes, Place place) {
    if (!p) return;
#ifdef __CUDACC__
    // cudaFree waits until the device is done with what was launched, so an array may go while kernels still use it. A failure here was an
    // earlier, asynchronous one, which the next checked call reports.
    (void)(place == Place::Device ? cudaFree(p) : cudaFreeHost(p));
#else
    free(p);
#endif
    memory_used(place).now -= bytes;
}

// n values of T that this array alone owns; not initialized. `what` names it in an out-of-memory message.
template <class T> struct Array {
    T* data = nullptr;
    size_t n = 0;
    Place place = Place::Device;

    Array() {}
    Array(size_t n, const char* what, Place place = Place::Device) : n(n), place(place) {
        if (n > SIZE_MAX / sizeof(T)) fail("%s: %zu values are more than the address space holds", what, n);
        if (n) data = (T*)place_malloc(n * sizeof(T), place, what);
    }
    ~Array() { place_free(data, n * sizeof(T), place); }
    Array(Array&& other) noexcept : Array() { swap(other); }
    Array& operator=(Array&& other) noexcept {
        swap(other);
        return *this;
    }
    void swap(Array& other) {
        std::swap(data, other.data), std::swap(n, other.n), std::swap(place, other.place);
    }
    void clear() { Array().swap(*this); }
};

// Fresh memory is cleared page by page as it is first touched: a job for all threads, where one alone would fill the array.
template <class T> void touch(const Array<T>& a) {
#ifdef __CUDACC__
    (void)a;
#else
#pragma omp parallel for
    for (size_t i = 0; i < a.n; i += 4096 / sizeof(T)) a.data[i] = T();
#endif
}

// dst[0..n) = src[0..n), wherever the two are.
template <class T> void copy(T* dst, const T* src, size_t n) {
    if (n == 0) return;
#ifdef __CUDACC__
    cuda_check(cudaMemcpy(dst, src, n * sizeof(T), cudaMemcpyDefault));
#else
    memmove(dst, src, n * sizeof(T));
#endif
}

// The same while the kernels of another thread run. What is on the host is page-locked.
template <class T> void copy_beside(T* dst, const T* src, size_t n) {
#ifdef __CUDACC__
    static const cudaStream_t stream = [] {
        cudaStream_t s;
        cuda_check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
        return s;
    }();
    cuda_check(cudaMemcpyAsync(dst, src, n * sizeof(T), cudaMemcpyDefault, stream));
    cuda_check(cudaStreamSynchronize(stream));
#else
    copy(dst, src, n);
#endif
}

template <class T> void fill_zero(T* dst, size_t n) {
    if (n == 0) return;
#ifdef __CUDACC__
    cuda_check(cudaMemset(dst, 0, n * sizeof(T)));
#else
    memset((void*)dst, 0, n * sizeof(T));
#endif
}

// Waits until every kernel launched so far is done, and reports what failed in one.
inline void device_wait() {
#ifdef __CUDACC__
    cuda_check(cudaDeviceSynchronize());
#endif
}

// ---------------------------------------------------------------------------------------------------------------------
// What machine this is

// The value behind `key` in a file of "key : value" lines, such as /proc/cpuinfo; "" where there is none.
inline std::string proc_value(const char* path, const char* key) {
    std::string value;
    FILE* f = fopen(path, "r");
    if (!f) return value;
    char line[512];
    while (value.empty() && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, strlen(key)) != 0) continue;
        const char* colon = strchr(line, ':');
        if (!colon) continue;
        value = colon + 1;
        value.erase(0, value.find_first_not_of(" \t"));
        value.erase(value.find_last_not_of(" \t\n") + 1);
    }
    fclose(f);
    return value;
}

// What the limits of this process's control groups (Slurm's --mem, a container's) leave it, SIZE_MAX where there are none; what they count
// of files' copies can be taken back. Versions 2 and 1: "0::/a/b" and "4:memory:/a/b" in /proc/self/cgroup, every group up to the root.
inline size_t cgroup_free_bytes(const std::string& self = "/proc/self/cgroup", const std::string& root = "/sys/fs/cgroup") {
    size_t least = SIZE_MAX, limit = 0, used = 0, value = 0;
    std::ifstream groups(self);
    for (std::string line, key; std::getline(groups, line);) {
        const size_t kinds = line.find(':') + 1, path_at = line.find(':', kinds) + 1;
        if (kinds == 0 || path_at == 0) continue;
        const bool v1 = ("," + line.substr(kinds, path_at - 1 - kinds) + ",").find(",memory,") != std::string::npos;
        if (!v1 && path_at - 1 != kinds) continue;  // of another controller
        for (std::string path = line.substr(path_at);; path.erase(path.rfind('/'))) {
            const std::string group = root + (v1 ? "/memory" : "") + path + "/memory.";
            std::ifstream limits(group + (v1 ? "limit_in_bytes" : "max")), uses(group + (v1 ? "usage_in_bytes" : "current")),
                stat(group + "stat");
            if (limits >> limit && uses >> used) {  // "max" is no number
                while (stat >> key >> value)
                    if (key == (v1 ? "total_inactive_file" : "inactive_file")) used -= std::min(used, value);
                least = std::min(least, limit - std::min(limit, used));
            }
            if (path.find('/') == std::string::npos) break;
        }
    }
    return least;
}

inline size_t host_free_bytes() {
    return std::min((size_t)atoll(proc_value("/proc/meminfo", "MemAvailable").c_str()) * 1024, cgroup_free_bytes());
}

inline size_t host_peak_bytes() {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (size_t)use.ru_maxrss * 1024;
}

inline std::string device_name() {
#ifdef __CUDACC__
    cudaDeviceProp prop;
    cuda_check(cudaGetDeviceProperties(&prop, 0));
    return prop.name;
#else
    const std::string name = proc_value("/proc/cpuinfo", "model name");
    const int threads = omp_get_max_threads();
    std::string text = format("%s, %d thread%s", name.empty() ? "CPU" : name.c_str(), threads, threads == 1 ? "" : "s");
#ifndef PRECISION_FP32
    text += std::string(", ") + bf16_product_text();
#endif
    return text;
#endif
}

inline size_t device_free_bytes() {
#ifdef __CUDACC__
    size_t free_bytes = 0, total = 0;
    cuda_check(cudaMemGetInfo(&free_bytes, &total));
    return free_bytes;
#else
    return host_free_bytes();
#endif
}
