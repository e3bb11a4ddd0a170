// sha256.h: SHA-256 (FIPS 180-4), to say which bytes a number was made from and to check what was downloaded.
// Message blocks of 64 bytes are big-endian words w[16], stretched to w[64], and stirred into the state in 64 rounds.
//
// defines: Sha256, sha256_update, sha256_finish, sha256_hex
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include "error.h"

struct Sha256 {
    // The first 32 bits of the fractional parts of the square roots of the first 8 primes.
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    unsigned char block[64];  // the bytes that don't fill a block yet
    size_t in_block = 0;
    uint64_t length = 0;  // bytes so far
};

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
inline constexpr uint32_t sha256_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

// Stirs one block of 64 bytes into the state.
inline void sha256_block(Sha256& hash, const unsigned char* block) {
    auto rotate = [](uint32_t x, int n) { return x >> n | x << (32 - n); };
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++) {
        const unsigned char* b = block + 4 * i;
        w[i] = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
    }
    for (int i = 16; i < 64; i++) {
        uint32_t x = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t y = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + x + w[i - 7] + y;
    }
    memcpy(s, hash.state, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t a = s[0], b = s[1], c = s[2], e = s[4];
        uint32_t t1 = s[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & s[5]) ^ (~e & s[6])) +
                      sha256_constants[i] + w[i];
        uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        memmove(s + 1, s, 7 * sizeof s[0]);
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) hash.state[i] += s[i];
}

// Takes in data [n] bytes; a message may come in any number of pieces.
inline void sha256_update(Sha256& hash, const void* data, size_t n) {
    const unsigned char* p = (const unsigned char*)data;
    hash.length += n;
    while (n > 0) {
        if (hash.in_block == 0 && n >= 64) {
            sha256_block(hash, p);
            p += 64, n -= 64;
            continue;
        }
        size_t take = std::min(n, 64 - hash.in_block);
        memcpy(hash.block + hash.in_block, p, take);
        p += take, n -= take, hash.in_block += take;
        if (hash.in_block == 64) {
            sha256_block(hash, hash.block);
            hash.in_block = 0;
        }
    }
}

// The hash as 64 hexadecimal digits in lower case. The struct is used up.
inline std::string sha256_finish(Sha256& hash) {
    // Padding: a one bit, zeros up to 8 bytes before the end of a block, the length in bits.
    unsigned char end[72] = {0x80};
    size_t zeros = (119 - hash.in_block) % 64;
    uint64_t bits = 8 * hash.length;
    for (int i = 0; i < 8; i++) end[1 + zeros + i] = (unsigned char)(bits >> (56 - 8 * i));
    sha256_update(hash, end, 1 + zeros + 8);
    std::string hex;
    for (uint32_t word : hash.state) hex += format("%08x", word);
    return hex;
}

// The same of data [n] bytes at once.
inline std::string sha256_hex(const void* data, size_t n) {
    Sha256 hash;
    sha256_update(hash, data, n);
    return sha256_finish(hash);
}
