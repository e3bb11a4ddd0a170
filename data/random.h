// random.h: CPython's random.Random, draw for draw. The calibration and evaluation windows of the GPTQ family are
// chosen with it (random.seed(0), random.randint), so whoever wants the same windows needs the same numbers. The
// generator is MT19937 (Matsumoto and Nishimura, 1998) seeded by its init_by_array; the layer above follows CPython's
// Lib/random.py and Modules/_randommodule.c.
//
// defines: PythonRandom
#pragma once
#include "error.h"
#include <cstdint>

struct PythonRandom {
    static constexpr int N = 624, M = 397;
    uint32_t state[N];
    int next = N;  // the word of `state` to be used next

    // random.seed(seed) of an integer; CPython seeds with its absolute value, in 32-bit digits, lowest first.
    explicit PythonRandom(uint64_t seed) {
        const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
        const uint32_t n_key = key[1] ? 2 : 1;
        state[0] = 19650218;
        for (uint32_t i = 1; i < N; i++) state[i] = 1812433253 * (state[i - 1] ^ state[i - 1] >> 30) + i;
        uint32_t i = 1, j = 0;
        for (int k = 0; k < N; k++) {
            state[i] = (state[i] ^ (state[i - 1] ^ state[i - 1] >> 30) * 1664525) + key[j] + j;
            j = (j + 1) % n_key;
            advance(i);
        }
        for (int k = 0; k < N - 1; k++) {
            state[i] = (state[i] ^ (state[i - 1] ^ state[i - 1] >> 30) * 1566083941) - i;
            advance(i);
        }
        state[0] = 0x80000000;
    }

    // Goes around state[1..N), with state[0] always the word before state[1].
    void advance(uint32_t& i) {
        if (++i < N) return;
        state[0] = state[N - 1];
        i = 1;
    }

    // 32 uniform bits.
    uint32_t word() {
        if (next == N) {
            for (int i = 0; i < N; i++) {
                const uint32_t y = (state[i] & 0x80000000) | (state[(i + 1) % N] & 0x7FFFFFFF);
                state[i] = state[(i + M) % N] ^ y >> 1 ^ (y & 1 ? 0x9908B0DF : 0);
            }
            next = 0;
        }
        uint32_t y = state[next++];
        y ^= y >> 11;
        y ^= y << 7 & 0x9D2C5680;
        y ^= y << 15 & 0xEFC60000;
        return y ^ y >> 18;
    }

    // k uniform bits, 1 <= k <= 64: the top bits of each word, the lower word drawn first.
    uint64_t getrandbits(int k) {
        if (k < 1 || k > 64) fail("getrandbits: expected 1 to 64 bits, got %d", k);
        if (k <= 32) return word() >> (32 - k);
        const uint64_t low = word();
        return low | (uint64_t)(word() >> (64 - k)) << 32;
    }

    // An integer of [a, b], ends included.
    int64_t randint(int64_t a, int64_t b) {
        if (a > b) fail("randint: expected a <= b, got %lld and %lld", (long long)a, (long long)b);
        const uint64_t n = (uint64_t)b - (uint64_t)a + 1;  // 0 stands for all 2^64 integers
        if (n == 0) fail("randint: a range of 2^64 integers is not supported");
        const int k = 64 - __builtin_clzll(n);
        uint64_t r = getrandbits(k);
        while (r >= n) r = getrandbits(k);
        return (int64_t)((uint64_t)a + r);
    }

    // A double of [0, 1), a multiple of 2^-53.
    double random() {
        const uint32_t a = word() >> 5, b = word() >> 6;
        return (a * 67108864.0 + b) * (1.0 / 9007199254740992.0);
    }
};
