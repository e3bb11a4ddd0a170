// random.cuh: made-up weights, for -m random:SIZE and for tests. A value is a function of the tensor's name, the seed and the index
// alone, the same here and in scripts/golden/golden_common.py.
//
// defines: random_bits, random_unit, random_key, random_values, random_rows_kernel
#pragma once
#include <cmath>
#include <string>
#include "device.cuh"

HOST_DEVICE uint64_t random_bits(uint64_t x) {  // SplitMix64
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}
HOST_DEVICE float random_unit(uint64_t key, uint64_t i) {  // 24 bits: exact in float, in [-1, 1)
    return (float)(random_bits(key + i) >> 40) * 0x1p-23f - 1.0f;
}
inline uint64_t random_key(const std::string& name, uint64_t seed) {  // FNV-1a of the name
    uint64_t h = 0xcbf29ce484222325ull;
    for (unsigned char c : name) h = (h ^ c) * 0x100000001b3ull;
    return h + seed * 0x2545f4914f6cdd1dull;
}

static constexpr int RANDOM_PER_BLOCK = 4096;

KERNEL random_kernel(floatX* out /*[n]*/, uint64_t key, size_t n, float offset, float scale) {
    const size_t start = (size_t)blockIdx.x * RANDOM_PER_BLOCK, end = start + RANDOM_PER_BLOCK < n ? start + RANDOM_PER_BLOCK : n;
    for (size_t i = start + threadIdx.x; i < end; i += blockDim.x) out[i] = to_floatX(offset + scale * random_unit(key, i));
}

static constexpr float RANDOM_EMBEDDING_SCALE = 0.034641016f;  // a standard deviation of 0.02

// out[r] = row ids[r] of the made-up embedding.
KERNEL random_rows_kernel(floatX* out /*[n, C]*/, const int* ids /*[n]*/, uint64_t key, int C) {
    const size_t row = (size_t)blockIdx.x * C, first = (size_t)ids[blockIdx.x] * C;
    for (int i = threadIdx.x; i < C; i += blockDim.x)
        out[row + i] = to_floatX(RANDOM_EMBEDDING_SCALE * random_unit(key, first + i));
}

// out [n] = the made-up tensor `name`, whose rows have I values.
inline void random_values(const std::string& name, uint64_t seed, size_t I, size_t n, floatX* out) {
    float offset = 0, scale = std::sqrt(3.0f / (float)I);  // keeps the variance of what passes through
    if (ends_with(name, "norm.weight")) offset = 1, scale = 0.25f;
    if (ends_with(name, "embed_tokens.weight") || ends_with(name, "lm_head.weight")) scale = RANDOM_EMBEDDING_SCALE;
    if (ends_with(name, ".bias")) scale = 0.1f;
    launch(random_kernel, (unsigned)ceil_div(n, (size_t)RANDOM_PER_BLOCK), 256, out, random_key(name, seed), n, offset,
           scale);
}
