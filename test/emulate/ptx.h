// ptx.h: the functions of cuda/ptx.cuh, of the same names, in plain C++. What they do is written from the PTX ISA (sections
// "ldmatrix", "Matrix Fragments for mma.m16n8k16 with floating point type", "cp.async", "ex2", "cvt"), not from how the kernels use
// them.
//
// A shared address is an offset into the block's dynamic shared memory, plus a base that makes small numbers invalid. Every access
// is checked for the memory's bounds and for its alignment. An asynchronous copy is done at once, or, also by the seed, when its
// thread waits for it: until then its destination holds bytes 0x41, which are numbers: a NaN might be taken for one of the data's.
//
// defines: shared_address, load_matrices, load_matrices_transposed, multiply_add, copy_chunk, wait_for_copies, exp2_fast, bf16_pair
#pragma once
#define PTX_CUH  // instead of cuda/ptx.cuh
#include <cmath>
#include "block.h"

namespace emulated {

constexpr uint32_t SHARED_BASE = 1024;

inline uint32_t shared_address(const void* p, const char* file, int line) {
    const size_t offset = (const char*)p - (const char*)shared;
    if (offset > block_here().grid->shared_bytes) block_fail("%s:%d: no address of dynamic shared memory", file, line);
    return SHARED_BASE + (uint32_t)offset;
}

// The 16 bytes at a shared address.
inline char* shared_chunk(uint32_t address, const char* what, const char* file, int line) {
    const size_t offset = (size_t)address - SHARED_BASE, bytes = block_here().grid->shared_bytes;
    if (address >= SHARED_BASE && offset + 16 <= bytes && offset % 16 == 0) return (char*)shared + offset;
    block_fail("%s of %s:%d at byte %ld of dynamic shared memory, expected 16 aligned bytes of the %zu there are", what, file, line,
               (long)address - (long)SHARED_BASE, bytes);
}

// ldmatrix.x4: lane 8 m + i gives the address of row i of the 8 x 8 matrix m. Register m of lane 4 i + j then holds the elements
// (i, 2j) and (i, 2j + 1) of matrix m, the former in the low half; transposed, (2j, i) and (2j + 1, i).
struct LoadMatrices {
    uint32_t* r;
    uint32_t address;
};
inline void load_four_matrices(uint32_t (&r)[4], uint32_t address, bool transposed, const char* what, const char* file, int line) {
    LoadMatrices operands = {r, address};
    warp_execute(what, ~0u, operands, file, line, [&](LoadMatrices** lanes) {
        uint16_t matrix[4][8][8];
        for (int lane = 0; lane < 32; lane++)
            memcpy(matrix[lane / 8][lane % 8], shared_chunk(lanes[lane]->address, what, file, line), 16);
        for (int lane = 0; lane < 32; lane++)
            for (int m = 0; m < 4; m++) {
                const int i = lane / 4, j = lane % 4 * 2;
                const uint16_t low = transposed ? matrix[m][j][i] : matrix[m][i][j],
                               high = transposed ? matrix[m][j + 1][i] : matrix[m][i][j + 1];
                lanes[lane]->r[m] = low | (uint32_t)high << 16;
            }
    });
}

// mma.m16n8k16, D = A B + C. With g = lane / 4 and t = lane % 4, a lane's values, two bf16 to a register, are
//     a_i of A [16, 16]   row g, of i = 2, 3, 6, 7 g + 8;   column 2t + i % 2, of i >= 4 plus 8
//     b_i of B [16, 8]    row 2t + i % 2, of i >= 2 plus 8;   column g
//     c_i of C [16, 8]    row g, of i >= 2 g + 8;   column 2t + i % 2
// Products of bf16 are exact in float, and float is what they are summed in.
struct MultiplyAdd {
    float* c;
    const uint32_t *a, *b;
};
inline float bf16_value(uint32_t pair, int half) {
    const uint32_t bits = half ? pair & 0xffff0000u : pair << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const char* file, int line) {
    const uint32_t b[2] = {b0, b1};
    MultiplyAdd operands = {c, a, b};
    warp_execute("mma", ~0u, operands, file, line, [](MultiplyAdd** lanes) {
        float A[16][16], B[16][8];
        for (int lane = 0; lane < 32; lane++) {
            const int g = lane / 4, t = lane % 4;
            for (int i = 0; i < 8; i++)
                A[i % 4 < 2 ? g : g + 8][2 * t + i % 2 + (i < 4 ? 0 : 8)] = bf16_value(lanes[lane]->a[i / 2], i % 2);
            for (int i = 0; i < 4; i++) B[2 * t + i % 2 + (i < 2 ? 0 : 8)][g] = bf16_value(lanes[lane]->b[i / 2], i % 2);
        }
        float sum[16][8] = {};
        for (int row = 0; row < 16; row++)
            for (int k = 0; k < 16; k++)
                for (int column = 0; column < 8; column++) sum[row][column] += A[row][k] * B[k][column];
        for (int lane = 0; lane < 32; lane++)
            for (int i = 0; i < 4; i++) lanes[lane]->c[i] += sum[i < 2 ? lane / 4 : lane / 4 + 8][lane % 4 * 2 + i % 2];
    });
}

inline void copy_chunk(uint32_t address, const void* src, const char* file, int line) {
    char* to = shared_chunk(address, "cp.async", file, line);
    if ((uintptr_t)src % 16 != 0) block_fail("cp.async of %s:%d from an address that is no multiple of 16", file, line);
    Block& b = block_here();
    if (b.order == BACKWARD || (b.order == ANY && random_bits(b.random) % 2)) {
        memcpy(to, src, 16);
    } else {
        memset(to, 0x41, 16);
        b.copies[b.current].push_back({to, (const char*)src});
    }
}

inline void wait_for_copies(const char* file, int line) {
    Block& b = block_here();
    for (const AsyncCopy& copy : b.copies[b.current]) memcpy(copy.to, copy.from, 16);
    b.copies[b.current].clear();
    block_barrier("__syncthreads", true, file, line);
}

}  // namespace emulated

inline uint32_t shared_address(const void* p, EMULATE_HERE) { return emulated::shared_address(p, file, line); }
inline void load_matrices(uint32_t (&r)[4], uint32_t address, EMULATE_HERE) {
    emulated::load_four_matrices(r, address, false, "ldmatrix", file, line);
}
inline void load_matrices_transposed(uint32_t (&r)[4], uint32_t address, EMULATE_HERE) {
    emulated::load_four_matrices(r, address, true, "ldmatrix.trans", file, line);
}
inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, EMULATE_HERE) {
    emulated::multiply_add(c, a, b0, b1, file, line);
}
inline void copy_chunk(uint32_t address, const void* src, EMULATE_HERE) { emulated::copy_chunk(address, src, file, line); }
inline void wait_for_copies(EMULATE_HERE) { emulated::wait_for_copies(file, line); }

// ex2.approx.ftz, to all of float's digits; denormals are 0.
inline float exp2_fast(float x) {
    const float y = exp2f(x);
    return y < 0x1p-126f ? 0 : y;
}

// cvt.rn.bf16x2: to nearest, ties to even; NaN becomes 0x7fff.
inline uint32_t bf16_pair(float low, float high) {
    const auto round = [](float x) -> uint32_t {
        uint32_t u;
        memcpy(&u, &x, 4);
        return x != x ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
    };
    return round(low) | round(high) << 16;
}
