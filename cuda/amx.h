// amx.h: which way a CPU multiplies bf16, and AMX's tiles: their instructions, and the same as plain loops.
//
// A tile is 16 rows of 64 bytes; a thread has eight, once it has configured them. tdpbf16ps C += A B takes 16 x 32 bf16 of A
// and 32 x 16 of B, in pairs: a word of A is A[m][2k], A[m][2k+1], a word of B is B[2k][n], B[2k+1][n]. Its definition
// (Intel SDM, volume 2, TDPBF16PS): for each of the 16 x 16 sums
//     even = fma over k of A[m][2k] B[2k][n]        odd = the same of 2k + 1        C[m][n] += even + odd
// from 0 on, with k rising; every step rounds to the nearest even float, a denormal is 0 wherever it comes in or out. Plain
// loops do just that on machines without tiles, for the tests.
//
// Linux gives a process tiles when it asks (arch_prctl, since 5.16). If it is refused, products go another way, and the
// device line says so. g++ 12's own intrinsics are not used: its _tile_loadconfig tells the compiler of 8 of the 64 bytes
// that it reads.
//
// defines: Bf16Product, tile_support, slow_pairs, bf16_product, bf16_product_text, TILE, tiles_begin, tiles_end, tile_zero,
//          tile_load, tile_store, tile_dot, TileFactor, TileSums, tile_product, tiles_used
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#ifdef __x86_64__
#include <cpuid.h>
#endif
#if defined(__x86_64__) && !defined(NO_TILES)  // NO_TILES: the assembler doesn't know them (Makefile)
#define TILE_INSTRUCTIONS
#include <sys/syscall.h>
#include <unistd.h>
#endif

// ---------------------------------------------------------------------------------------------------------------------
// Which product

// Widened: to float, multiply-adds. Pairs: AVX-512's vdpbf16ps. EmulatedTiles: for tests.
enum class Bf16Product { Widened, Pairs, Tiles, EmulatedTiles };

enum class TileSupport { None, Refused, Granted };  // Refused: the CPU has them, the kernel doesn't give them

inline TileSupport ask_for_tiles() {
#ifdef TILE_INSTRUCTIONS
    unsigned a, b, c, d;
    const unsigned amx_bf16 = 1u << 22, amx_tile = 1u << 24, osxsave = 1u << 27, tile_state = 3u << 17;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & amx_bf16) || !(d & amx_tile)) return TileSupport::None;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & osxsave)) return TileSupport::Refused;
    uint32_t enabled, high;
    asm volatile("xgetbv" : "=a"(enabled), "=d"(high) : "c"(0));
    if ((enabled & tile_state) != tile_state) return TileSupport::Refused;
    const long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0 ? TileSupport::Granted : TileSupport::Refused;
#else
    return TileSupport::None;
#endif
}

inline TileSupport tile_support() {
    static const TileSupport support = ask_for_tiles();
    return support;
}

// Does a vdpbf16ps take longer than the two multiply-adds that it replaces? On an Emerald Rapids, twice as long (make bench). Intel's
// CPUs since Sapphire Rapids have tiles for that, but a virtual machine may hide them, so they are also known by AVX512-FP16, which
// came with them. Zen 5 gains by it; Zen 4 and Intel's Cooper Lake are said to.
inline bool slow_pairs() {
#ifdef __x86_64__
    unsigned a, b, c, d;
    const unsigned avx512_fp16 = 1u << 23, amx_tile = 1u << 24;
    char vendor[12];
    if (!__get_cpuid(0, &a, &b, &c, &d)) return false;
    memcpy(vendor, &b, 4), memcpy(vendor + 4, &d, 4), memcpy(vendor + 8, &c, 4);
    return memcmp(vendor, "GenuineIntel", 12) == 0 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && d & (avx512_fp16 | amx_tile);
#else
    return false;
#endif
}

// What all bf16 products of the process are. Decided once, by what the CPU is and never by a clock: the ways differ in their
// last bits.
inline Bf16Product& bf16_product() {
    static Bf16Product product = [] {
#ifndef PRECISION_FP32
        if (tile_support() == TileSupport::Granted) return Bf16Product::Tiles;
#ifdef __AVX512BF16__
        if (!slow_pairs()) return Bf16Product::Pairs;
#endif
#endif
        return Bf16Product::Widened;
    }();
    return product;
}
inline bool tiles_used() { return bf16_product() >= Bf16Product::Tiles; }

// For the device line.
inline const char* bf16_product_text() {
    switch (bf16_product()) {
    case Bf16Product::Tiles: return "products by AMX";
    case Bf16Product::EmulatedTiles: return "products by emulated AMX";
    case Bf16Product::Pairs: return "products by vdpbf16ps";
    case Bf16Product::Widened: break;
    }
    return tile_support() == TileSupport::Refused ? "products in float, AMX refused by the kernel" : "products in float";
}

// ---------------------------------------------------------------------------------------------------------------------
// Tiles. REAL: the instructions, else the loops. Strides are in bytes.

constexpr int TILE = 16;  // rows, and words of 4 bytes in a row

struct PlainTiles {
    uint32_t word[8][TILE][TILE];
};
inline PlainTiles& plain_tiles() {
    static thread_local PlainTiles tiles;
    return tiles;
}

#ifdef TILE_INSTRUCTIONS
#define TILE_ASM(...) asm volatile(__VA_ARGS__)
#else
#define TILE_ASM(...) (void)0
#endif

// A thread's tiles are usable in between. Outside they cost nothing: a context switch need not save them.
template <bool REAL> void tiles_begin() {
    struct alignas(64) {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {};
    static_assert(sizeof config == 64, "what ldtilecfg reads");
    config.palette = 1;
    for (int t = 0; t < 8; t++) config.row_bytes[t] = 64, config.rows[t] = TILE;
    if constexpr (REAL) TILE_ASM("ldtilecfg %0" : : "m"(config) : "memory");
}
template <bool REAL> void tiles_end() {
    if constexpr (REAL) TILE_ASM("tilerelease");
}

template <bool REAL, int T> void tile_zero() {
    if constexpr (REAL) TILE_ASM("tilezero %%tmm%c0" : : "i"(T));
    else memset(plain_tiles().word[T], 0, sizeof plain_tiles().word[T]);
}

template <bool REAL, int T> void tile_load(const void* from, size_t stride) {
    if constexpr (REAL) TILE_ASM("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(T) : "memory");
    else
        for (int r = 0; r < TILE; r++) memcpy(plain_tiles().word[T][r], (const char*)from + r * stride, 64);
}

template <bool REAL, int T> void tile_store(void* to, size_t stride) {
    if constexpr (REAL) TILE_ASM("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(T) : "memory");
    else
        for (int r = 0; r < TILE; r++) memcpy((char*)to + r * stride, plain_tiles().word[T][r], 64);
}

inline float no_denormal(uint32_t bits) {
    bits = bits & 0x7f800000 ? bits : bits & 0x80000000;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline float no_denormal(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return no_denormal(bits);
}

// x y + z, rounded once; x and y are bf16. Without such an instruction, in double: there the product is exact, and twice the bits of
// a float are enough to round the sum twice as if it were once.
inline float tile_fma(float x, float y, float z) {
#ifdef __FMA__
    return no_denormal(__builtin_fmaf(x, y, z));
#else
    return no_denormal((float)((double)x * y + z));
#endif
}

__attribute__((noinline)) inline void plain_dot(uint32_t (&c)[TILE][TILE], const uint32_t (&a)[TILE][TILE],
                                                const uint32_t (&b)[TILE][TILE]) {
    float b_even[TILE][TILE], b_odd[TILE][TILE];
    for (int k = 0; k < TILE; k++)
        for (int n = 0; n < TILE; n++) b_even[k][n] = no_denormal(b[k][n] << 16), b_odd[k][n] = no_denormal(b[k][n] & 0xffff0000);
    for (int m = 0; m < TILE; m++) {
        float even[TILE] = {}, odd[TILE] = {};
        for (int k = 0; k < TILE; k++) {
            const float a_even = no_denormal(a[m][k] << 16), a_odd = no_denormal(a[m][k] & 0xffff0000);
            for (int n = 0; n < TILE; n++) even[n] = tile_fma(a_even, b_even[k][n], even[n]);
            for (int n = 0; n < TILE; n++) odd[n] = tile_fma(a_odd, b_odd[k][n], odd[n]);
        }
        for (int n = 0; n < TILE; n++) {  // no_denormal in between keeps the compiler from changing the order
            const float both = tile_fma(1, even[n], odd[n]), sum = tile_fma(1, both, no_denormal(c[m][n]));
            memcpy(&c[m][n], &sum, 4);
        }
    }
}

template <bool REAL, int C, int A, int B> void tile_dot() {
    if constexpr (REAL) TILE_ASM("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
    else plain_dot(plain_tiles().word[C], plain_tiles().word[A], plain_tiles().word[B]);
}

// ---------------------------------------------------------------------------------------------------------------------
// 2 x 2 tiles of sums: each tile of A and B that is loaded serves two of them

// Two tiles of words next to each other, and those that follow along K.
struct TileFactor {
    const void* first;
    size_t stride, second, step;  // bytes from row to row, from the first tile to the second, from a tile to the next along K
};
struct TileSums {
    float* first;
    size_t stride, down, right;  // bytes from row to row, to the tile of A's second, to that of B's second
};

// sums = or += A B over `steps` tiles along K.
template <bool REAL> void tile_product(TileSums sums, TileFactor a, TileFactor b, int steps, bool add) {
    char* c = (char*)sums.first;
    if (add) {
        tile_load<REAL, 0>(c, sums.stride), tile_load<REAL, 1>(c + sums.right, sums.stride);
        tile_load<REAL, 2>(c + sums.down, sums.stride), tile_load<REAL, 3>(c + sums.down + sums.right, sums.stride);
    } else {
        tile_zero<REAL, 0>(), tile_zero<REAL, 1>(), tile_zero<REAL, 2>(), tile_zero<REAL, 3>();
    }
    const char *pa = (const char*)a.first, *pb = (const char*)b.first;
    for (int s = 0; s < steps; s++, pa += a.step, pb += b.step) {
        tile_load<REAL, 4>(pa, a.stride), tile_load<REAL, 6>(pb, b.stride);
        tile_dot<REAL, 0, 4, 6>();
        tile_load<REAL, 7>(pb + b.second, b.stride);
        tile_dot<REAL, 1, 4, 7>();
        tile_load<REAL, 5>(pa + a.second, a.stride);
        tile_dot<REAL, 2, 5, 6>();
        tile_dot<REAL, 3, 5, 7>();
    }
    tile_store<REAL, 0>(c, sums.stride), tile_store<REAL, 1>(c + sums.right, sums.stride);
    tile_store<REAL, 2>(c + sums.down, sums.stride), tile_store<REAL, 3>(c + sums.down + sums.right, sums.stride);
}
// By the tiles in use, which the caller has begun.
__attribute__((noinline)) inline void tile_product(TileSums sums, TileFactor a, TileFactor b, int steps, bool add) {
    if (bf16_product() == Bf16Product::Tiles) tile_product<true>(sums, a, b, steps, add);
    else tile_product<false>(sums, a, b, steps, add);
}
inline void tiles_begin() {
    if (bf16_product() == Bf16Product::Tiles) tiles_begin<true>();
}
inline void tiles_end() {
    if (bf16_product() == Bf16Product::Tiles) tiles_end<true>();
}
