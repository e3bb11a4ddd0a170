// packed.h: the bit string of packed checkpoints. Code i of b bits occupies bits [i b, (i + 1) b) of a little-endian string, which
// is cut into int32 words; the last word's unused bits are 0. compressed-tensors (since 0.17) and GPTQ store codes so, for every b;
// with 3, 5, 6 and 7 bits a code may lie in two words. Eight codes are exactly b bytes, which is all that the loops below need.
// A matrix is packed along its rows, or along its columns: word w of column c is then at [w, c].
//
// symbols: b bits of a code, 1 to 8; n codes in a string
// defines: packed_words, pack_row, unpack_row, pack_columns, unpack_columns, PackedLinear
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

// Words of a string of n codes.
inline size_t packed_words(size_t n, int bits) { return (n * (size_t)bits + 31) / 32; }

inline void pack_row(const uint8_t* codes /*[n]*/, size_t n, int bits, uint32_t* words /*[packed_words(n, bits)]*/) {
    unsigned char* out = (unsigned char*)words;
    std::fill_n(words, packed_words(n, bits), 0u);
    for (size_t first = 0; first < n; first += 8, out += bits) {
        const size_t now = std::min<size_t>(8, n - first);
        uint64_t eight = 0;
        for (size_t k = 0; k < now; k++) eight |= (uint64_t)codes[first + k] << (k * bits);
        memcpy(out, &eight, (now * bits + 7) / 8);
    }
}

inline void unpack_row(const unsigned char* words /*[4 packed_words(n, bits)], unaligned*/, size_t n, int bits,
                       uint8_t* codes /*[n]*/) {
    const uint64_t mask = (1u << bits) - 1;
    for (size_t first = 0; first < n; first += 8, words += bits) {
        const size_t now = std::min<size_t>(8, n - first);
        uint64_t eight = 0;
        memcpy(&eight, words, (now * bits + 7) / 8);
        for (size_t k = 0; k < now; k++) codes[first + k] = (uint8_t)(eight >> (k * bits) & mask);
    }
}

// Each row of `codes` becomes a column of words: the string of row c is words[0, c], words[1, c], ...
inline void pack_columns(const uint8_t* codes /*[columns, n]*/, size_t columns, size_t n, int bits,
                         uint32_t* words /*[packed_words(n, bits), columns]*/) {
    const size_t n_words = packed_words(n, bits);
    std::vector<uint32_t> string(n_words);
    for (size_t c = 0; c < columns; c++) {
        pack_row(codes + c * n, n, bits, string.data());
        for (size_t w = 0; w < n_words; w++) words[w * columns + c] = string[w];
    }
}

// The strings of columns [first, first + count) of a matrix that is `columns` wide, each as a row of codes.
inline void unpack_columns(const unsigned char* words /*[4 packed_words(n, bits) columns], unaligned*/, size_t columns,
                           size_t first, size_t count, size_t n, int bits, uint8_t* codes /*[count, n]*/) {
    const size_t n_words = packed_words(n, bits), piece = 16;  // columns at a time: the words of a cache line
    std::vector<uint32_t> strings(piece * n_words);
    for (size_t c = 0; c < count; c += piece) {
        const size_t now = std::min(piece, count - c);
        for (size_t w = 0; w < n_words; w++)
            for (size_t k = 0; k < now; k++) memcpy(&strings[k * n_words + w], words + 4 * (w * columns + first + c + k), 4);
        for (size_t k = 0; k < now; k++)
            unpack_row((const unsigned char*)(strings.data() + k * n_words), n, bits, codes + (c + k) * n);
    }
}

// A linear as a method leaves it: w[o, i] = scale[o, g] (code[o, i] - zero[o, g]), g = group[i]. The scales are numbers of the dtype
// that they are stored in.
struct PackedLinear {
    std::string name;  // "q_proj" as a method leaves it; save_layer makes it "model.layers.0.self_attn.q_proj"
    size_t O, I, n;    // n groups
    int bits;
    std::vector<uint8_t> codes;  // [O, I]
    std::vector<float> scales;   // [O, n]
    std::vector<uint8_t> zeros;  // [O, n]
    std::vector<int> group;      // [I]
};
