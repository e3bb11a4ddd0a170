// attention_cpu.h: attention on a CPU. What is computed, and in which order, is in attention_plan.cuh.
//
// A thread does one tile of one key head. The lanes of a vector are rows: the softmax over the keys needs no sums across
// lanes. A panel is two vectors of rows (32 rows for AMX). For each block of keys, a panel goes through
//     scores [keys, rows] = K q^T        p = exp2(scores - m)        o^T [D, rows] = alpha o^T + V^T p
// A word is a float, or a pair of bf16: of neighbours along D for q k, of two keys for p v. K and V are copied into contiguous
// words and q is transposed, once a tile; what a panel and a block need stays in the L1 and L2 caches.
//     vectors   Both products are one loop: STEP x PANEL vectors of sums in registers, STEP words of K or V broadcast to two vectors
//               of q or p. The multiply-adds are the bound; copies, exponentials and the rest take about a quarter of the time.
//     AMX       Both are products of tiles (amx.h): K and V^T are a tile's A, q^T and p its B as they are. D is a multiple of 32.
//               The exponentials are the bound; and more keys in a block, so that o^T is read and written less often.
// Where p are rounded, the keys pass by twice: first for m and l alone, then every p is round(exp2(scores - m) levels / l).
//
// defines: launch_cpu; for tests: exp2_vector
#pragma once
#include <memory>
#include "attention_plan.cuh"
#include "gemm_cpu.h"

constexpr int LANE = LANES<float>;
template <class Word> constexpr int GROUP = TILED<Word> ? TILE : LANE;                           // rows side by side in memory
template <class Word> constexpr int PANEL = TILED<Word> ? 2 * TILE / LANE : 2;                   // vectors of rows
template <class Word> constexpr int STEP = TILED<Word> ? 2 * TILE : VECTOR_BYTES == 64 ? 8 : 4;  // keys, or d's, at a time
template <class Word> constexpr int KEYS = TILED<Word> ? 256 : 96;                               // in a block
template <class Word> using Stored = typename std::conditional<TILED<Word>, Bf16Pair, Word>::type;
typedef Vector<int32_t> IntVector;

// What a thread holds for a tile.
template <class Word> struct CpuTile {
    static constexpr int per_word = Words<Word>::K;
    alignas(64) Stored<Word> q[TILE_ROWS * MAX_HEAD_DIM / per_word];  // [rows / GROUP, D / per_word, GROUP]
    alignas(64) float o[TILE_ROWS * MAX_HEAD_DIM];                    // [rows / GROUP, D, GROUP]
    alignas(64) float m[TILE_ROWS], l[TILE_ROWS];
    alignas(64) int lo[TILE_ROWS], hi[TILE_ROWS];
    alignas(64) Stored<Word> k[KEYS<Word> * MAX_HEAD_DIM / per_word];  // [keys, D / per_word]
    alignas(64) Stored<Word> v[KEYS<Word> * MAX_HEAD_DIM / per_word];  // [keys / per_word, D]; for tiles [D, KEYS / per_word]
};

// A row of q or k as words.
template <class Word, class T> void load_row(Word* words, const T* row, int D) {
    if constexpr (sizeof(Word) == Words<Word>::K * sizeof(T)) memcpy(words, row, D * sizeof(T));
    else
        for (int d = 0; d < D; d++) words[d] = to_float(row[d]);
}
// Two keys' v as words.
template <class Word, class T> void load_two_rows(Word* words, const T* row0, const T* row1, int D) {
    if constexpr (Words<Word>::K == 1) load_row(words, row0, D), load_row(words + D, row1, D);
    else
        for (int d = 0; d < D; d++) words[d] = row0[d].bits | (Word)row1[d].bits << 16;
}
// Two keys' p as words.
inline void store_two(float* words, Vector<float> p0, Vector<float> p1) {
    store_vector(words, p0);
    store_vector(words + LANE, p1);
}
inline void store_two(Bf16Pair* words, Vector<float> p0, Vector<float> p1) {
#ifdef __AVX512BF16__
    const Vector<uint16_t> both = (Vector<uint16_t>)_mm512_cvtne2ps_pbh((__m512)p1, (__m512)p0);
    store_vector(words, (Vector<Bf16Pair>)interleave<0, 16>(both, both, std::make_index_sequence<32>()));
#else
    for (int i = 0; i < LANE; i++) words[i] = to_bf16(p0[i]).bits | (Bf16Pair)to_bf16(p1[i]).bits << 16;
#endif
}

// 2^x for x <= 0, to 2e-7 relative; 0 below 2^-127, with AVX-512 below 2^-126; a NaN stays one. 2^x = 2^n 2^f with |f| <= 1/2: 2^n is
// a float's exponent bits, 2^f a polynomial (fitted for this file: least largest relative error).
inline Vector<float> exp2_vector(Vector<float> x) {
#ifdef __AVX512F__
    const __mmask16 above = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(-126), _CMP_NLT_UQ);
    const IntVector n = (IntVector)_mm512_maskz_cvtps_epi32(0xffff, (__m512)x);  // the nearest
#else
    const Vector<float> lowest = Vector<float>{} - 127;
    x = x < lowest ? lowest : x;
    const IntVector n = __builtin_convertvector(x - 0.5f, IntVector);  // towards 0, so n is the integer nearest to x
#endif
    const Vector<float> f = x - __builtin_convertvector(n, Vector<float>);
    Vector<float> y = f * 1.5353362e-4f + 1.3398875e-3f;
    for (float coefficient : {9.61843692e-3f, 5.55033237e-2f, 0.240226477f, 0.693147182f, 1.0f}) y = y * f + coefficient;
#ifdef __AVX512F__
    return (Vector<float>)_mm512_maskz_add_epi32(above, (__m512i)y, (__m512i)(n << 23));  // n more in the exponent
#else
    return y * (Vector<float>)(((Vector<uint32_t>)n + 127u) << 23);
#endif
}

// Each to its nearest integer, the even one of two; a NaN stays one.
inline Vector<float> round_vector(Vector<float> x) {
#ifdef __AVX512F__
    return (Vector<float>)_mm512_maskz_roundscale_ps(0xffff, (__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    for (int i = 0; i < LANE; i++) x[i] = rintf(x[i]);
    return x;
#endif
}

// Vectors of rows' scores of one key, -Inf where it is masked.
template <class Word>
Vector<float> mask_scores(const CpuTile<Word>& c, const AttentionTile& t, int row, int key, Vector<float> scores) {
    const IntVector lo = load_vector(c.lo + row), hi = load_vector(c.hi + row), at = IntVector{} + key;
    return (((at < t.n_prefix) | (at >= lo)) & (at <= hi)) ? scores : Vector<float>{} - INFINITY;
}

// sum[i][n] += the products of word a[i * row + k * step] and vector b[n * column + k], over k < words.
template <class Word> void multiply_words(Vector<float> (&sum)[STEP<Word>][PANEL<Word>], const Word* a, size_t row, size_t step,
                                          const Word* b, size_t column, int words) {
    for (int k = 0; k < words; k++, a += step, b += LANE)
        for (int n = 0; n < PANEL<Word>; n++) {
            Vector<Word> bk = load_vector(b + n * column * LANE);
            // g++ would load it again for each product, and loads would be the bound.
#if defined(__x86_64__)
            asm("" : "+v"(bk));
#elif defined(__aarch64__)
            asm("" : "+w"(bk));
#endif
            for (int i = 0; i < STEP<Word>; i++) sum[i][n] = multiply_add(sum[i][n], a[i * row], bk);
        }
}

// scores = K q^T of a panel and the keys [key, key + n), masked; m = the largest so far.
template <class Word>
__attribute__((always_inline)) inline void panel_scores(float* scores /*[n, PANEL, LANE]*/, Vector<float> (&m)[PANEL<Word>],
                                                        const CpuTile<Word>& c, const AttentionTile& t, int row0, int key, int n) {
    constexpr int step = STEP<Word>, panel = PANEL<Word>;
    const int words = t.D / Words<Word>::K;
    const Stored<Word>* q = c.q + row0 * words;
    const bool masked = !t.all_visible(key, n);
    for (int j = 0; j < n; j += step) {
        float* s = scores + j * panel * LANE;
        if constexpr (TILED<Word>) {
            const size_t k_row = words * sizeof(Word), q_row = TILE * sizeof(Word);
            tile_product({s, 2 * q_row, TILE * 2 * q_row, q_row}, {c.k + j * words, k_row, TILE * k_row, q_row},
                         {q, q_row, words * q_row, TILE * q_row}, words / TILE, false);
            for (int a = 0; a < step; a++)
                for (int i = 0; i < panel; i++, s += LANE) {
                    Vector<float> x = load_vector(s);
                    if (masked) store_vector(s, x = mask_scores(c, t, row0 + i * LANE, key + j + a, x));
                    m[i] = x > m[i] ? x : m[i];
                }
        } else {
            Vector<float> sum[step][panel] = {};
            multiply_words<Word>(sum, c.k + j * words, words, 1, q, words, words);
            for (int a = 0; a < step; a++)
                for (int i = 0; i < panel; i++, s += LANE) {
                    if (masked) sum[a][i] = mask_scores(c, t, row0 + i * LANE, key + j + a, sum[a][i]);
                    m[i] = sum[a][i] > m[i] ? sum[a][i] : m[i];
                    store_vector(s, sum[a][i]);
                }
        }
    }
}

// o^T = alpha o^T + V^T p of a panel and n keys.
template <class Word>
__attribute__((always_inline)) inline void panel_output(CpuTile<Word>& c, const AttentionTile& t, int row0,
                                                        const Vector<float> (&alpha)[PANEL<Word>],
                                                        const Stored<Word>* p /*[rows / GROUP, KEYS / per_word, GROUP]*/, int n) {
    constexpr int step = STEP<Word>, panel = PANEL<Word>, words = KEYS<Word> / Words<Word>::K;
    const int D = t.D;
    for (int d = 0; d < D; d += step) {
        float* o = c.o + row0 * D + d * GROUP<Word>;
        if constexpr (TILED<Word>) {
            for (int a = 0; a < step; a++)
                for (int i = 0; i < panel; i++) {
                    float* x = o + i * LANE / TILE * D * TILE + a * TILE + i * LANE % TILE;
                    store_vector(x, load_vector(x) * alpha[i]);
                }
            const size_t row = TILE * sizeof(Word), v_row = words * sizeof(Word);
            tile_product({o, row, TILE * row, D * row}, {c.v + d * words, v_row, TILE * v_row, row},
                         {p, row, words * row, TILE * row}, n / (2 * TILE), true);
        } else {
            Vector<float> sum[step][panel];
            for (int i = 0; i < panel; i++)
                for (int a = 0; a < step; a++) sum[a][i] = load_vector(o + (i * D + a) * LANE) * alpha[i];
            multiply_words<Word>(sum, c.v + d, 1, t.D, p, words, n / Words<Word>::K);
            for (int i = 0; i < panel; i++)
                for (int a = 0; a < step; a++) store_vector(o + (i * D + a) * LANE, sum[a][i]);
        }
    }
}

enum class Pass {
    ONLY,     // p as they are: the only one
    SUMS,     // m and l alone
    ROUNDED,  // p rounded; m is known, and in the place of l stands levels / l
};

// The panel of rows from row0 on meets the keys [key, key + n); n is a multiple of STEP.
template <class Word> void attend_panel(CpuTile<Word>& c, const AttentionTile& t, int row0, int key, int n, Pass pass) {
    constexpr int panel = PANEL<Word>, group = GROUP<Word>;
    alignas(64) float scores[KEYS<Word> * panel * LANE];                     // [keys, PANEL, LANE]
    alignas(64) Stored<Word> p[panel * KEYS<Word> * LANE / Words<Word>::K];  // [rows / GROUP, keys / per_word, GROUP]
    const float scale = 1.44269504f / sqrtf((float)t.D);                     // log2(e) / sqrt(D): the exponentials are powers of 2
    Vector<float> m[panel], l[panel], alpha[panel];
    for (int i = 0; i < panel; i++) m[i] = load_vector(c.m + row0 + i * LANE);
    panel_scores<Word>(scores, m, c, t, row0, key, n);
    for (int i = 0; i < panel; i++) {
        const Vector<float> old_m = load_vector(c.m + row0 + i * LANE);
        store_vector(c.m + row0 + i * LANE, m[i]);
        const Vector<float> base = m[i] == -INFINITY ? Vector<float>{} : m[i];  // -Inf: no key seen yet
        m[i] = base * scale;
        alpha[i] = exp2_vector((old_m - base) * scale);  // 1 where m stays; a fused old_m scale - m is not 0
        l[i] = load_vector(c.l + row0 + i * LANE) * alpha[i];
    }
    for (int j = 0; j < n; j += 2)
        for (int i = 0; i < panel; i++) {
            const float* s = scores + (j * panel + i) * LANE;
            Vector<float> p0 = exp2_vector(load_vector(s) * scale - m[i]);
            Vector<float> p1 = exp2_vector(load_vector(s + panel * LANE) * scale - m[i]);
            if (pass == Pass::ROUNDED) p0 = round_vector(p0 * l[i]), p1 = round_vector(p1 * l[i]);
            else l[i] += p0 + p1;
            store_two(p + (i * LANE / group * KEYS<Word> + j) / Words<Word>::K * group + i * LANE % group, p0, p1);
        }
    for (int i = 0; i < panel; i++) store_vector(c.l + row0 + i * LANE, l[i]);
    if (pass != Pass::SUMS) panel_output<Word>(c, t, row0, alpha, p, n);
}

// q, transposed, and the state of rows that have not seen a key.
template <class Word> void load_tile(CpuTile<Word>& c, const AttentionTile& t) {
    constexpr int per_word = Words<Word>::K, group = GROUP<Word>, panel_rows = PANEL<Word> * LANE;
    const int words = t.D / per_word, rows = ceil_div(t.n_rows, panel_rows) * panel_rows;
    for (int row = 0; row < rows; row++) c.m[row] = -INFINITY, c.l[row] = 0, c.lo[row] = t.lo(row), c.hi[row] = t.hi(row);
    for (int row = 0; row < rows; row += LANE) {
        const floatX* from[LANE];
        for (int i = 0; i < LANE; i++) from[i] = t.q_row(row + i);
        Stored<Word>* q = c.q + row / group * words * group + row % group;
        for (int w = 0; w < words; w += LANE) {
            Vector<Stored<Word>> square[LANE];
            for (int i = 0; i < LANE; i++) square[i] = load_words<Stored<Word>>(from[i] + w * per_word, t.D - w * per_word);
            transpose<Stored<Word>>(square);
            for (int i = 0; i < std::min(LANE, words - w); i++) store_vector(q + (w + i) * group, square[i]);
        }
    }
    std::fill_n(c.o, rows * t.D, 0.0f);
}

// The keys [key, key + n), and zeros up to a multiple of STEP keys.
template <class Word> void load_keys(CpuTile<Word>& c, const AttentionTile& t, int key, int n) {
    static const floatX zeros[MAX_HEAD_DIM] = {};
    const int words = t.D / Words<Word>::K, padded = ceil_div(n, STEP<Word>) * STEP<Word>;
    const auto v = [&](int j) { return j < n ? t.v_row(key + j) : zeros; };
    for (int j = 0; j < padded; j++) load_row(c.k + j * words, j < n ? t.k_row(key + j) : zeros, t.D);
    if constexpr (TILED<Word>) {
        for (int j = 0; j < padded; j += 2 * LANE)
            for (int d = 0; d < t.D; d += LANE) {
                Vector<Bf16Pair> square[LANE];
                for (int i = 0; i < LANE; i++) square[i] = load_pairs(v(j + 2 * i) + d, v(j + 2 * i + 1) + d, LANE);
                transpose<Bf16Pair>(square);
                for (int i = 0; i < LANE; i++) store_vector(c.v + (d + i) * (KEYS<Word> / 2) + j / 2, square[i]);
            }
    } else {
        for (int j = 0; j < padded; j += 2) load_two_rows(c.v + j * words, v(j), v(j + 1), t.D);
    }
}

// Writes the tile's result. Is all of it finite?
template <class Word> bool store_tile(const CpuTile<Word>& c, const AttentionTile& t) {
    constexpr int group = GROUP<Word>;
    int not_finite = 0;
    for (int row0 = 0; row0 < t.n_rows; row0 += LANE) {
        alignas(64) float rows[LANE][MAX_HEAD_DIM];
        for (int d = 0; d < t.D; d += LANE) {
            const float* o = c.o + (row0 / group * t.D + d) * group + row0 % group;
            Vector<float> square[LANE] = {};
            for (int i = 0; i < std::min(LANE, t.D - d); i++) square[i] = load_vector(o + i * group) / load_vector(c.l + row0);
            transpose<float>(square);
            for (int i = 0; i < LANE; i++) store_vector(rows[i] + d, square[i]);
        }
        for (int row = row0; row < std::min(row0 + LANE, t.n_rows); row++) {
            const float* o = rows[row - row0];
            for (int d = 0; d < t.D; d++) not_finite += fabsf(o[d]) < INFINITY ? 0 : 1;
            convert_row(t.out_row(row), o, t.D);
        }
    }
    return not_finite == 0;
}

// All keys pass by all rows.
template <class Word> void attend_tile(CpuTile<Word>& c, const AttentionTile& t, Pass pass) {
    constexpr int step = STEP<Word>, panel_rows = PANEL<Word> * LANE;
    for (int key = 0; key < t.n_keys; key += KEYS<Word>) {
        load_keys(c, t, key, std::min(KEYS<Word>, t.n_keys - key));
        for (int row0 = 0; row0 < t.n_rows; row0 += panel_rows) {
            const int seen = t.hi(row0 + panel_rows - 1) + 1 - key;  // of this block, by the panel's last row
            if (seen <= 0 || (key >= t.n_prefix && key + KEYS<Word> <= t.lo(row0))) continue;
            attend_panel(c, t, row0, key, std::min(KEYS<Word>, ceil_div(seen, step) * step), pass);
        }
    }
}

template <class Word> KERNEL attention_cpu(AttentionArgs args) {
    const AttentionTile t = attention_tile(args, blockIdx.x);
    const std::unique_ptr<CpuTile<Word>> tile(new CpuTile<Word>);  // 700 KB, which a thread's stack may not have
    CpuTile<Word>& c = *tile;
    if constexpr (TILED<Word>) tiles_begin();
    load_tile(c, t);
    if (t.levels == 0) attend_tile(c, t, Pass::ONLY);
    else {
        attend_tile(c, t, Pass::SUMS);
        for (int row = 0; row < t.n_rows; row++) c.l[row] = t.levels / c.l[row];
        attend_tile(c, t, Pass::ROUNDED);
        std::fill_n(c.l, t.n_rows, t.levels);
    }
    if constexpr (TILED<Word>) tiles_end();
    if (store_tile(c, t)) return;
    EightRows shared[PLAIN_SHARED];
    for (int row0 = 0; row0 < t.n_rows; row0 += PLAIN_ROWS) attention_rows(t, row0, shared);
}

// On `blocks` tiles and key heads, in the words that this machine is fastest with.
inline void launch_cpu(int blocks, const AttentionArgs& args) {
#ifndef PRECISION_FP32
    if (tiles_used() && args.D % (2 * TILE) == 0) return launch(attention_cpu<Tiled>, dim3(blocks), 1, args);
#endif
#ifdef BF16_PAIRS
    if (bf16_product() == Bf16Product::Pairs) return launch(attention_cpu<Bf16Pair>, dim3(blocks), 1, args);
#endif
    launch(attention_cpu<float>, dim3(blocks), 1, args);
}
