// block.h: one block of CUDA threads on one thread of the operating system. Every CUDA thread is a fiber, which runs until it has
// to wait for others: at a barrier of the block, or at an instruction that threads of a warp execute together. The last thread to
// come does such an instruction for all of them. (CUDA C++ Programming Guide: "Synchronization Functions", "Warp Shuffle
// Functions".)
//
// CUDA promises nothing about the order in which the threads of a block run. So it is chosen here to hurt: by the seed, whichever
// thread can run and has the lowest number goes on, or the highest, or any. A result that depends on the order, because a barrier
// is missing, then changes with the seed. It is stricter than a GPU: threads that wait at different barriers of the source, or at
// one that a thread of the block will never reach, are an error, and so is a warp's instruction whose mask names such threads.
//
// Shared memory are the program's thread_local variables. Before a block begins they are filled with bytes 0xff: NaN, or -1.
//
// defines: __shared__, threadIdx, blockIdx, blockDim, gridDim, shared; __syncthreads, __syncthreads_and, __syncwarp,
//          __shfl_xor_sync, __shfl_down_sync; for the emulator, in a namespace: Block, Grid, block_run, block_fail, warp_execute,
//          random_bits, seed
#pragma once
#include <cstdarg>
#include <cstring>
#include <deque>
#include <functional>
#include <link.h>
#include <map>
#include <string>
#include <vector>
#include "fiber.h"

#define __shared__ thread_local

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

inline thread_local uint3 threadIdx, blockIdx, blockDim, gridDim;
constexpr size_t EMULATED_SHARED = 227 << 10;                // bytes of dynamic shared memory, on sm_90
thread_local uint4 shared[EMULATED_SHARED / sizeof(uint4)];  // what a kernel's `extern __shared__ uint4 shared[]` names

namespace emulated {

// The seed of everything that is left to chance. 0: threads forward, 1: threads backward, others: it differs from block to block.
inline uint64_t& seed() {
    static uint64_t value = getenv("EMULATE_SEED") ? strtoull(getenv("EMULATE_SEED"), nullptr, 10) : 2;
    return value;
}
// A random number, and the next state. (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014.)
inline uint64_t random_bits(uint64_t& state) {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

// A launch.
struct Grid {
    dim3 grid, block;
    size_t shared_bytes;
    const std::function<void()>& kernel;  // of one thread
    uint64_t launch;                      // the how many-th
};

// What a thread waits at: the instruction, where it stands, the lanes of the warp that execute it together, its operands.
struct Wait {
    const char *what, *file;  // literals: where they are equal, so are the pointers
    int line;
    uint32_t mask;
    void* operands;

    bool same(const Wait& w) const { return mask == w.mask && line == w.line && what == w.what && file == w.file; }
};

// 16 bytes on their way to shared memory; see ptx.h.
struct AsyncCopy {
    char* to;
    const char* from;
};

constexpr int MAX_THREADS = 1024, MAX_WARPS = MAX_THREADS / 32;
constexpr int FORWARD = 0, BACKWARD = 1, ANY = 2;

struct Block {
    Fiber host;                // the OS thread itself
    std::deque<Fiber> fibers;  // all that were ever needed; they stay
    std::vector<Fiber*> idle;  // without a thread
    const Grid* grid;
    int order, n_threads, n_ended, n_at_barrier, current;  // current: the thread that runs
    uint64_t random;
    uint32_t ready[MAX_WARPS], ready_warps;  // threads, a bit each, that can run; warps that have one
    uint32_t arrived[MAX_WARPS];             // lanes that wait at an instruction of their warp
    Fiber* fiber_of[MAX_THREADS];            // null: not begun
    Wait wait[MAX_THREADS];                  // what is null: does not wait
    bool ended[MAX_THREADS];
    std::vector<AsyncCopy> copies[MAX_THREADS];
    std::string failure;  // a sentence; empty: none
};

inline thread_local Block* this_block;
// The compiler must not remember this_block across a switch: the fiber may go on, with the next launch, on another OS thread.
__attribute__((noinline)) inline Block& block_here() { return *this_block; }

// ---------------------------------------------------------------------------------------------------------------------
// Who runs

// Takes the thread that runs next from those that can; -1: none can.
inline int block_next(Block& b) {
    if (!b.ready_warps) return -1;
    const uint64_t chance = b.order == ANY ? random_bits(b.random) : 0;
    const auto pick = [&](uint32_t bits, unsigned r) {
        if (b.order == FORWARD) return __builtin_ctz(bits);
        if (b.order == BACKWARD) return 31 - __builtin_clz(bits);
        return (int)((__builtin_ctz(bits >> r | bits << (-r & 31)) + r) % 32);  // the first from bit r on
    };
    const int warp = pick(b.ready_warps, chance % 32), lane = pick(b.ready[warp], chance / 32 % 32);
    if (!(b.ready[warp] &= ~(1u << lane))) b.ready_warps &= ~(1u << warp);
    return warp * 32 + lane;
}

inline void block_release(Block& b, int warp, uint32_t lanes) { b.ready[warp] |= lanes, b.ready_warps |= 1u << warp; }

inline void fiber_main();

// Makes `thread` the one that runs, on a fiber of its own or an idle one; the caller then switches to it.
inline Fiber& block_resume(Block& b, int thread) {
    if (!b.fiber_of[thread]) {
        if (b.idle.empty()) {
            b.fibers.emplace_back();
            fiber_prepare(b.fibers.back(), fiber_main, b.fibers.size());
            b.idle.push_back(&b.fibers.back());
        }
        b.fiber_of[thread] = b.idle.back(), b.idle.pop_back();
    }
    b.current = thread, threadIdx.x = thread;
    return *b.fiber_of[thread];
}

// The thread that runs waits, until it is released. Without anyone left to run, the block is stuck: the OS thread takes over.
inline void block_wait(Block& b) {
    const int thread = b.current, next = block_next(b);
    if (next != thread) fiber_switch(*b.fiber_of[thread], next < 0 ? b.host : block_resume(b, next));
    b.wait[thread].what = nullptr;
}

// The thread that runs has ended. Its fiber begins the next one, if that is due, else it goes idle until it is given one.
__attribute__((noinline)) inline void block_thread_ended() {
    Block& b = block_here();
    Fiber& mine = *b.fiber_of[b.current];
    b.ended[b.current] = true, b.n_ended++;
    b.idle.push_back(&mine);
    const int next = block_next(b);
    Fiber& to = next < 0 ? b.host : block_resume(b, next);
    if (&to != &mine) fiber_switch(mine, to);
}

inline void fiber_main() {
    fiber_arrived(nullptr);
    for (;;) {
        block_here().grid->kernel();
        block_thread_ended();
    }
}

// Ends the whole block, and the launch with it: nothing on the fibers' stacks is destroyed, so no std::string may live there.
[[noreturn]] inline void block_give_up(Block& b) {
    fiber_switch(*b.fiber_of[b.current], b.host);
    abort();
}
[[noreturn]] __attribute__((format(printf, 1, 2))) inline void block_fail(const char* format, ...) {
    Block& b = block_here();
    char why[300];
    va_list values;
    va_start(values, format);
    vsnprintf(why, sizeof why, format, values);
    va_end(values);
    b.failure = why;
    block_give_up(b);
}

// Who waits where, in a block that is stuck.
inline std::string block_waiting(const Block& b) {
    std::map<std::string, std::vector<int>> at;
    for (int t = 0; t < b.n_threads; t++) {
        const Wait& w = b.wait[t];
        char mask[32] = "";
        if (!w.what && !b.ended[t]) continue;
        if (w.mask) snprintf(mask, sizeof mask, ", mask %08x,", w.mask);
        at[b.ended[t] ? "ended" : std::string("at ") + w.what + mask + " of " + w.file + ":" + std::to_string(w.line)].push_back(t);
    }
    std::string text = "threads wait for others that do not come:";
    for (const auto& [where, threads] : at) {
        text += (text.back() == ':' ? " " : "; ") + std::to_string(threads.size()) + " of them " + where + " (thread";
        for (size_t i = 0; i < threads.size() && i < 4; i++) text += " " + std::to_string(threads[i]);
        text += threads.size() > 4 ? " ...)" : ")";
    }
    return text;
}

// ---------------------------------------------------------------------------------------------------------------------
// What threads do together

// The barrier of the block. Every thread gets whether `vote` was true in all of them.
inline bool block_barrier(const char* what, bool vote, const char* file, int line) {
    Block& b = block_here();
    b.wait[b.current] = {what, file, line, 0, &vote};
    if (++b.n_at_barrier == b.n_threads) {
        bool all = true;
        for (int t = 0; t < b.n_threads; t++) {
            if (!b.wait[t].same(b.wait[b.current])) block_give_up(b);
            all = all && *(bool*)b.wait[t].operands;
        }
        for (int t = 0; t < b.n_threads; t++) *(bool*)b.wait[t].operands = all;
        b.n_at_barrier = 0;
        for (int t = 0; t < b.n_threads; t += 32)
            block_release(b, t / 32, b.n_threads - t < 32 ? (1u << (b.n_threads - t)) - 1 : ~0u);
    }
    block_wait(b);
    return vote;
}

// An instruction of the lanes in `mask`. The last to come calls execute(operands of all 32 lanes, null where not in the mask).
template <class Operands, class Execute>
void warp_execute(const char* what, uint32_t mask, Operands& operands, const char* file, int line, const Execute& execute) {
    Block& b = block_here();
    const int warp = b.current / 32;
    if (!(mask >> b.current % 32 & 1))
        block_fail("thread %d: %s of %s:%d with a mask that does not name it", b.current, what, file, line);
    b.wait[b.current] = {what, file, line, mask, &operands};
    b.arrived[warp] |= 1u << b.current % 32;
    bool all = (b.arrived[warp] & mask) == mask;
    Operands* lanes[32] = {};
    for (int lane = 0; lane < 32 && all; lane++) {
        if (!(mask >> lane & 1)) continue;
        all = b.wait[warp * 32 + lane].same(b.wait[b.current]);  // it may wait at an earlier one, with other lanes
        lanes[lane] = (Operands*)b.wait[warp * 32 + lane].operands;
    }
    if (all) {
        execute(lanes);
        b.arrived[warp] &= ~mask;
        block_release(b, warp, mask);
    }
    block_wait(b);
}

}  // namespace emulated

#define EMULATE_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(EMULATE_HERE) { emulated::block_barrier("__syncthreads", true, file, line); }
inline int __syncthreads_and(int predicate, EMULATE_HERE) {
    return emulated::block_barrier("__syncthreads_and", predicate != 0, file, line);
}
inline void __syncwarp(uint32_t mask = ~0u, EMULATE_HERE) {
    char none;
    emulated::warp_execute("__syncwarp", mask, none, file, line, [](char**) {});
}

namespace emulated {

// Every lane gets the value of lane source(lane). The value of a lane outside of the mask is undefined: bytes 0xff.
template <class T, class Source>
T warp_shuffle(const char* what, uint32_t mask, T x, const char* file, int line, const Source& source) {
    T value = x;
    warp_execute(what, mask, value, file, line, [&](T** lanes) {
        T before[32];
        memset((void*)before, 0xff, sizeof before);
        for (int lane = 0; lane < 32; lane++)
            if (lanes[lane]) before[lane] = *lanes[lane];
        for (int lane = 0; lane < 32; lane++)
            if (lanes[lane]) *lanes[lane] = before[source(lane)];
    });
    return value;
}

}  // namespace emulated

template <class T> T __shfl_xor_sync(uint32_t mask, T x, int lane_mask, EMULATE_HERE) {
    return emulated::warp_shuffle("__shfl_xor_sync", mask, x, file, line, [=](int lane) { return (lane ^ lane_mask) & 31; });
}
template <class T> T __shfl_down_sync(uint32_t mask, T x, unsigned delta, EMULATE_HERE) {
    return emulated::warp_shuffle("__shfl_down_sync", mask, x, file, line,
                                  [=](int lane) { return lane + delta < 32 ? lane + delta : lane; });
}

// ---------------------------------------------------------------------------------------------------------------------
// A block from its begin to its end

namespace emulated {

// The program's thread_local variables, of which the emulator sets its own again afterwards, and the dynamic shared memory.
inline void fill_shared_memory(size_t dynamic_bytes) {
    struct Range {
        char *begin = nullptr, *end = nullptr;
    } all;
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* range) {  // the first is the program itself
            for (int i = 0; i < info->dlpi_phnum; i++)
                if (info->dlpi_phdr[i].p_type == PT_TLS && info->dlpi_tls_data)
                    *(Range*)range = {(char*)info->dlpi_tls_data, (char*)info->dlpi_tls_data + info->dlpi_phdr[i].p_memsz};
            return 1;
        },
        &all);
    char *dynamic = (char*)shared, *dynamic_end = dynamic + sizeof shared;
    memset(all.begin, 0xff, dynamic - all.begin);
    memset(dynamic_end, 0xff, all.end - dynamic_end);
#if EMULATE_ASAN
    __asan_unpoison_memory_region(dynamic, sizeof shared);
    memset(dynamic, 0xff, dynamic_bytes);
    __asan_poison_memory_region(dynamic + dynamic_bytes, sizeof shared - dynamic_bytes);
#else
    memset(dynamic, 0xff, dynamic_bytes);
#endif
}

// Block `index` of the grid. Returns what failed, as a sentence; empty: nothing. `fill`: shared memory, which takes its time.
inline std::string block_run(Block& b, const Grid& g, size_t index, bool fill) {
    if (fill) fill_shared_memory(g.shared_bytes);
    this_block = &b;
    blockIdx = {(unsigned)(index % g.grid.x), (unsigned)(index / g.grid.x % g.grid.y), (unsigned)(index / g.grid.x / g.grid.y)};
    gridDim = {g.grid.x, g.grid.y, g.grid.z}, blockDim = {g.block.x, 1, 1}, threadIdx = {0, 0, 0};
    b.grid = &g, b.n_threads = (int)g.block.x, b.n_ended = b.n_at_barrier = 0, b.failure.clear();
    b.random = seed() * 0x9e3779b9 + (g.launch << 32) + index;
    b.order = seed() < 2 ? (int)seed() : (int)(random_bits(b.random) % 3);
    b.ready_warps = 0;
    for (int t = 0; t < b.n_threads; t++) {
        b.fiber_of[t] = nullptr, b.wait[t].what = nullptr, b.ended[t] = false;
        if (!b.copies[t].empty()) b.copies[t].clear();
    }
    for (int t = 0; t < b.n_threads; t += 32) {
        b.ready[t / 32] = b.n_threads - t < 32 ? (1u << (b.n_threads - t)) - 1 : ~0u;
        b.arrived[t / 32] = 0, b.ready_warps |= 1u << t / 32;
    }
    fiber_switch(b.host, block_resume(b, block_next(b)));
    if (b.failure.empty() && b.n_ended == b.n_threads) return "";
    if (b.failure.empty()) b.failure = block_waiting(b);
    b.idle.clear();  // the threads that were left waiting are forgotten
    for (size_t i = 0; i < b.fibers.size(); i++) fiber_prepare(b.fibers[i], fiber_main, i), b.idle.push_back(&b.fibers[i]);
    return "block (" + std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", " + std::to_string(blockIdx.z) +
           "): " + b.failure;
}

}  // namespace emulated
