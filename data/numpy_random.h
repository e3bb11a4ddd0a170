// numpy_random.h: NumPy's random generator, draw for draw, as far as a shuffle needs it. The calibration documents of AWQ are
// taken in the order of Hugging Face datasets' shuffle(seed=42), which is numpy.random.default_rng(42).permutation(N).
//
// Three layers, each as NumPy (1.17 and later) has it:
//   SeedSequence   hashes the seed into a pool of 4 words and draws 4 words of 64 bits from it (O'Neill, "Developing a seed_seq
//                  Alternative", 2015): the generator's first state and its stream
//   PCG64          a linear congruential generator of 128 bits, of which each step shows 64: both halves xor-ed, rotated by the
//                  six top bits (O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms", 2014)
//   permutation    Fisher and Yates's shuffle from the end; a number of [0, most] is as many low bits of a 32-bit word as `most`
//                  has, drawn again while they are more
//
// defines: NumpyRandom, numpy_permutation
#pragma once
#include "error.h"
#include <cstdint>
#include <utility>
#include <vector>

struct NumpyRandom {
    typedef unsigned __int128 uint128;
    uint128 state, stream;
    uint32_t upper_half = 0;  // of the last 64 bits, where only their lower half has been used
    bool has_upper_half = false;

    // numpy.random.default_rng(seed) of an integer.
    explicit NumpyRandom(uint64_t seed) {
        uint64_t words[4];
        seed_sequence(seed, words);
        stream = ((uint128)words[2] << 64 | words[3]) << 1 | 1;
        state = stream + ((uint128)words[0] << 64 | words[1]);
        step();
    }

    // numpy.random.SeedSequence(seed).generate_state(4, numpy.uint64)
    static void seed_sequence(uint64_t seed, uint64_t* words /*[4]*/) {
        const uint32_t entropy[4] = {(uint32_t)seed, (uint32_t)(seed >> 32), 0, 0};
        uint32_t pool[4], factor = 0x43b0d7e5;
        auto hash = [&](uint32_t x, uint32_t next) {
            x ^= factor;
            factor *= next;
            x *= factor;
            return x ^ x >> 16;
        };
        for (int i = 0; i < 4; i++) pool[i] = hash(entropy[i], 0x931e8875);
        for (int from = 0; from < 4; from++)
            for (int to = 0; to < 4; to++) {
                if (from == to) continue;
                const uint32_t mixed = 0xca01f9dd * pool[to] - 0x4973f715 * hash(pool[from], 0x931e8875);
                pool[to] = mixed ^ mixed >> 16;
            }
        factor = 0x8b51f9dd;
        for (int i = 0; i < 4; i++) {
            const uint64_t low = hash(pool[2 * i % 4], 0x58f38ded);
            words[i] = low | (uint64_t)hash(pool[(2 * i + 1) % 4], 0x58f38ded) << 32;
        }
    }

    void step() { state = state * ((uint128)0x2360ed051fc65da4 << 64 | 0x4385df649fccf645) + stream; }

    // 64 uniform bits.
    uint64_t bits64() {
        step();
        const uint64_t x = (uint64_t)(state >> 64) ^ (uint64_t)state;
        const int turn = (int)(state >> 122);
        return x >> turn | x << (-turn & 63);
    }

    // 32 uniform bits: the lower half of 64, then the upper half.
    uint32_t bits32() {
        if (has_upper_half) {
            has_upper_half = false;
            return upper_half;
        }
        const uint64_t x = bits64();
        upper_half = (uint32_t)(x >> 32), has_upper_half = true;
        return (uint32_t)x;
    }

    // An integer of [0, most], ends included. None is drawn for 0.
    uint32_t interval(uint32_t most) {
        if (most == 0) return 0;
        const uint32_t mask = UINT32_MAX >> __builtin_clz(most);
        uint32_t x = bits32() & mask;
        while (x > most) x = bits32() & mask;
        return x;
    }
};

// numpy.random.default_rng(seed).permutation(n)
inline std::vector<uint32_t> numpy_permutation(uint64_t seed, size_t n) {
    if (n > UINT32_MAX) fail("numpy_permutation: expected less than 2^32 items, got %zu", n);
    NumpyRandom random(seed);
    std::vector<uint32_t> order(n);
    for (size_t i = 0; i < n; i++) order[i] = (uint32_t)i;
    for (size_t i = n; i-- > 1;) std::swap(order[i], order[random.interval((uint32_t)i)]);
    return order;
}
