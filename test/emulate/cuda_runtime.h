// cuda_runtime.h: a GPU in software, for the tests (make test EMULATE=1). g++ compiles the GPU side of the sources with this folder
// in front of the include path. Kernels run thread by thread (block.h), the PTX instructions are plain C++ (ptx.h), cuBLAS are
// loops (cublas_v2.h); this file is the CUDA runtime: launches, memory, streams and events, as far as the project uses them. (CUDA
// Runtime API documentation; CUDA C++ Programming Guide, "Asynchronous Concurrent Execution".)
//
// The hardware's freedom is used against the program. The default stream's kernels and copies are done as late as possible: when
// the host waits. What another stream is given is done at once or as late as possible, by the seed (EMULATE_SEED). New memory is
// filled with bytes 0xff: NaN, or -1. Under AddressSanitizer the host can't touch device memory. (Both: the first 16 MB of an
// allocation.)
// What it does not show: speed, and the hardware's memory model. Threads take turns, so every store is seen by whoever runs next.
//
// A failure in a kernel is returned by the next call that waits, as cudaErrorLaunchFailure with the sentence as its error string.
#pragma once
#include <algorithm>
#include <cxxabi.h>
#include <dlfcn.h>
#include <mutex>
#include <omp.h>
#include <tuple>
#include <unistd.h>
#include "ptx.h"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

#define EMULATE_MIN_MAX(T)                                                                                                         \
    inline T min(T a, T b) { return b < a ? b : a; }                                                                               \
    inline T max(T a, T b) { return a < b ? b : a; }
EMULATE_MIN_MAX(int)
EMULATE_MIN_MAX(unsigned)

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchFailure = 719,
};

namespace emulated {

// What all calls share. They may come from several threads of the host, one at a time.
struct Emulator {
    std::recursive_mutex mutex;
    cudaError_t last = cudaSuccess;
    std::string failure;  // of the last kernel that failed
    bool failed = false;  // ... and nobody has been told yet
    uint64_t launches = 0, random = seed();
    int working = 0;  // how deep in the device's work we are
    std::map<const void*, int> shared_limit;
    std::map<void*, size_t> memory;  // what cudaMalloc gave, and its size
    std::deque<Block> blocks;        // one for each thread of the OS
};
inline Emulator& emulator() {
    static Emulator* e = new Emulator;  // never deleted: the program's static variables may still hold device memory
    return *e;
}
struct Lock : std::lock_guard<std::recursive_mutex> {
    Lock() : lock_guard(emulator().mutex) {}
};

inline cudaError_t status_of(cudaError_t status) {
    if (status != cudaSuccess) emulator().last = status;
    return status;
}
}  // namespace emulated

inline cudaError_t cudaGetLastError() {
    const cudaError_t last = emulated::emulator().last;
    emulated::emulator().last = cudaSuccess;
    return last;
}
inline const char* cudaGetErrorName(cudaError_t e) {
    return e == cudaSuccess                     ? "cudaSuccess"
           : e == cudaErrorInvalidValue         ? "cudaErrorInvalidValue"
           : e == cudaErrorMemoryAllocation     ? "cudaErrorMemoryAllocation"
           : e == cudaErrorInvalidConfiguration ? "cudaErrorInvalidConfiguration"
                                                : "cudaErrorLaunchFailure";
}
inline const char* cudaGetErrorString(cudaError_t e) {
    return e == cudaErrorLaunchFailure ? emulated::emulator().failure.c_str() : "from the emulated GPU";
}

// ---------------------------------------------------------------------------------------------------------------------
// Streams: queues of work. The default stream, the null pointer, is the legacy one: it and streams that are not
// cudaStreamNonBlocking wait for one another.

namespace emulated {

struct Stream {
    bool blocking;
    uint64_t issued = 0, done = 0;
    std::deque<std::function<void()>> queue;
};
struct Event {
    Stream* stream = nullptr;
    uint64_t position = 0;  // complete when the stream has done as much
};

// All that were ever made, the default one first: an event may outlive its stream.
inline std::deque<Stream>& streams() {
    static auto* all = new std::deque<Stream>{{true, 0, 0, {}}};
    return *all;
}
inline Stream& stream_of(Stream* s) { return s ? *s : streams()[0]; }

constexpr size_t CARE_BYTES = 16 << 20;  // of an allocation, that care is taken of: there are some of a GB, of which little is used

// Only while the device works is its memory there.
inline void device_memory_open([[maybe_unused]] void* p, [[maybe_unused]] size_t bytes, [[maybe_unused]] bool open) {
#if EMULATE_ASAN
    bytes = std::min(bytes, CARE_BYTES);
    open ? __asan_unpoison_memory_region(p, bytes) : __asan_poison_memory_region(p, bytes);
#endif
}
inline void device_memory_open(bool open) {
    if (EMULATE_ASAN)
        for (const auto& [p, bytes] : emulator().memory) device_memory_open(p, bytes, open);
}
template <class Work> void device_work(const Work& work) {
    if (emulator().working++ == 0) device_memory_open(true);
    work();
    if (--emulator().working == 0) device_memory_open(false);
}

// Does a stream's work up to `position`.
inline void stream_drain(Stream& s, uint64_t position) {
    if (s.queue.empty() || s.done >= position) return;
    device_work([&] {
        while (!s.queue.empty() && s.done < position) {
            const std::function<void()> work = std::move(s.queue.front());
            s.queue.pop_front();
            work();
            s.done++;
        }
    });
}
inline void stream_drain(Stream& s) { stream_drain(s, s.issued); }

inline void stream_add(Stream* stream, std::function<void()> work) {
    Stream &s = stream_of(stream), &legacy = stream_of(nullptr);
    if (&s == &legacy) {
        for (Stream& other : streams())
            if (&other != &s && other.blocking) stream_drain(other);
    } else if (s.blocking) {
        stream_drain(legacy);
    }
    s.queue.push_back(std::move(work)), s.issued++;
    const bool at_once = seed() < 2 ? seed() == 1 : random_bits(emulator().random) % 2;
    if (&s != &legacy && at_once) stream_drain(s);
}

// The host has waited: has a kernel failed since?
inline cudaError_t told() {
    const bool failed = emulator().failed;
    emulator().failed = false;
    return status_of(failed ? cudaErrorLaunchFailure : cudaSuccess);
}
}  // namespace emulated

typedef emulated::Stream* cudaStream_t;
typedef emulated::Event* cudaEvent_t;
enum {
    cudaStreamDefault = 0,
    cudaStreamNonBlocking = 1,
    cudaEventDefault = 0,
    cudaEventBlockingSync = 1,
    cudaEventDisableTiming = 2
};

inline cudaError_t cudaDeviceSynchronize() {
    emulated::Lock lock;
    for (emulated::Stream& s : emulated::streams()) emulated::stream_drain(s);
    return emulated::told();
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    emulated::Lock lock;
    emulated::stream_drain(emulated::stream_of(stream));
    return emulated::told();
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    emulated::Lock lock;
    emulated::streams().push_back({flags != cudaStreamNonBlocking, 0, 0, {}});
    *stream = &emulated::streams().back();
    return cudaSuccess;
}
inline cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    emulated::Lock lock;
    emulated::stream_drain(*stream);
    return cudaSuccess;
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    *event = new emulated::Event;
    return cudaSuccess;
}
inline cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr) {
    emulated::Lock lock;
    *event = {&emulated::stream_of(stream), emulated::stream_of(stream).issued};
    return cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    emulated::Lock lock;
    if (event->stream) emulated::stream_drain(*event->stream, event->position);
    return emulated::told();
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned = 0) {
    emulated::Lock lock;
    const emulated::Event recorded = *event;
    if (recorded.stream) emulated::stream_add(stream, [recorded] { emulated::stream_drain(*recorded.stream, recorded.position); });
    return cudaSuccess;
}

// ---------------------------------------------------------------------------------------------------------------------
// Launches

struct cudaLaunchAttribute {};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes = 0;
    cudaStream_t stream = nullptr;
    cudaLaunchAttribute* attrs = nullptr;
    unsigned numAttrs = 0;
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

inline cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int bytes) {
    emulated::Lock lock;
    if (bytes < 0 || bytes > (int)EMULATED_SHARED) return emulated::status_of(cudaErrorInvalidValue);
    emulated::emulator().shared_limit[kernel] = bytes;
    return cudaSuccess;
}
template <class... P> cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int bytes) {
    return cudaFuncSetAttribute((const void*)kernel, attribute, bytes);
}

namespace emulated {

inline std::string kernel_name(const void* kernel) {
    Dl_info info;
    if (!dladdr(kernel, &info) || !info.dli_sname) return "a kernel";
    char* readable = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, nullptr);
    std::string name = readable ? readable : info.dli_sname;
    free(readable);
    return name.substr(0, name.find('('));
}

// Runs the blocks of a grid, in parallel as far as there are threads, in an order that the seed chooses. To fill shared memory takes
// its time: it is done for the first 16 blocks of a thread, and then for every 16th.
inline void run_grid(const Grid& g, const void* kernel) {
    Emulator& e = emulator();
    const long n = (long)g.grid.x * g.grid.y * g.grid.z;
    while ((int)e.blocks.size() < omp_get_max_threads()) e.blocks.emplace_back();
    std::string failure;
    uint64_t chance = seed() + g.launch;
    const bool backward = random_bits(chance) % 2;
#pragma omp parallel if (n > 1)
    {
        Block& block = e.blocks[omp_get_thread_num()];
        std::string failed;
        long count = 0;
#pragma omp for schedule(dynamic, 4)
        for (long i = 0; i < n; i++) {
            if (!failed.empty()) continue;
            failed = block_run(block, g, backward ? n - 1 - i : i, count < 16 || count % 16 == 0);
            count++;
        }
#pragma omp critical
        if (!failed.empty()) failure = failed;
    }
    if (failure.empty() || e.failed) return;
    char text[200];
    snprintf(text, sizeof text, " <<<(%u, %u, %u), %u>>>, ", g.grid.x, g.grid.y, g.grid.z, g.block.x);
    e.failed = true, e.failure = kernel_name(kernel) + text + failure;
}

}  // namespace emulated

template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P...), A&&... args) {
    emulated::Lock lock;
    const dim3 grid = config->gridDim, block = config->blockDim;
    const size_t bytes = config->dynamicSmemBytes;
    if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535 || block.x < 1 ||
        block.x > (unsigned)emulated::MAX_THREADS || block.y != 1 ||
        block.z != 1)  // CUDA allows y and z; here a block has one dimension
        return emulated::status_of(cudaErrorInvalidConfiguration);
    const auto limit = emulated::emulator().shared_limit.find((const void*)kernel);
    if (bytes > (limit == emulated::emulator().shared_limit.end() ? (size_t)48 << 10 : (size_t)limit->second))
        return emulated::status_of(cudaErrorInvalidValue);
    const std::tuple<P...> values(std::forward<A>(args)...);
    emulated::stream_add(config->stream, [=] {
        const std::function<void()> thread = [&] { std::apply(kernel, values); };
        emulated::run_grid({grid, block, bytes, thread, emulated::emulator().launches++}, (const void*)kernel);
    });
    return cudaSuccess;
}

// ---------------------------------------------------------------------------------------------------------------------
// Memory

enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};

namespace emulated {
inline size_t free_bytes() { return (size_t)sysconf(_SC_AVPHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE); }

}  // namespace emulated

inline cudaError_t cudaMallocHost(void** p, size_t bytes) {
    *p = nullptr;
    if (bytes > emulated::free_bytes() || posix_memalign(p, 256, bytes) != 0) return emulated::status_of(cudaErrorMemoryAllocation);
    memset(*p, 0xff, std::min(bytes, emulated::CARE_BYTES));
    return cudaSuccess;
}
inline cudaError_t cudaFreeHost(void* p) {
    cudaDeviceSynchronize();
    free(p);
    return cudaSuccess;
}
inline cudaError_t cudaMalloc(void** p, size_t bytes) {
    emulated::Lock lock;
    if (cudaMallocHost(p, bytes) != cudaSuccess) return cudaErrorMemoryAllocation;
    emulated::emulator().memory[*p] = bytes;
    emulated::device_memory_open(*p, bytes, false);
    return cudaSuccess;
}
inline cudaError_t cudaFree(void* p) {
    if (!p) return cudaSuccess;
    emulated::Lock lock;
    for (emulated::Stream& s : emulated::streams()) emulated::stream_drain(s);  // whatever failed, the next call that waits is told
    if (!emulated::emulator().memory.count(p)) return emulated::status_of(cudaErrorInvalidValue);
    emulated::device_memory_open(p, emulated::emulator().memory[p], true);
    emulated::emulator().memory.erase(p);
    free(p);
    return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream = nullptr) {
    emulated::Lock lock;
    emulated::stream_add(stream, [=] { memmove(to, from, bytes); });
    return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    emulated::Lock lock;
    cudaMemcpyAsync(to, from, bytes, kind);
    return cudaStreamSynchronize(nullptr);
}
inline cudaError_t cudaMemset(void* p, int value, size_t bytes) {
    emulated::Lock lock;
    emulated::stream_add(nullptr, [=] { memset(p, value, bytes); });
    return cudaSuccess;
}
inline cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
    *free = emulated::free_bytes(), *total = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    return cudaSuccess;
}

enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) { return *value = (int)EMULATED_SHARED, cudaSuccess; }

struct cudaDeviceProp {
    char name[256];
};
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* prop, int) {
    *prop = {"emulated GPU"};
    return cudaSuccess;
}
