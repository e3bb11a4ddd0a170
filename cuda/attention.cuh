// attention.cuh: causal grouped-query attention over a token trie.
//
// For query token t and head h, with key head g = h / (H / KV) and the keys k that t sees:
//     out[t,h] = sum_k p[k] v[k,g],   p = softmax over k of q[t,h] . k[k,g] / sqrt(D)
// A token sees all tokens of its segment's ancestors, and its own segment up to itself.
//
// The plan. Where a segment directly follows its parent, the two are one longer run. So a token t sees a prefix, which is a list
// of tokens that all siblings share, and then the tokens begin[t] .. t of its own run. Consecutive query tokens of one prefix
// are cut into tiles, across segments, so that short siblings share a tile. A tile's keys are numbered: first the prefix, then
// the tokens from begin[first query] on. The H / KV query heads that read the same k and v are stacked: row r of a tile is head
// r % group of its query r / group, and sees the keys j < n_prefix, and lo(r) <= j <= hi(r).
//
// The kernels are FlashAttention-2 (Dao, 2023): keys pass by in blocks, and a row keeps its largest score so far, m, its sum of
// exp(score - m), l, and its output before the division by l; when m grows, l and the output are multiplied by
// alpha = exp(old m - new m). Blocks that no row at hand sees are left out. Scores, softmax and sums are float; in a bf16 build
// the p that multiply v are rounded to bf16.
//     CPU   attention_cpu           any D
//     GPU   attention_tensor_core   bf16, D = 64 or 128
//     both  attention_rows          any D: the plain statement of the same. The GPU's kernel for float and for other D, and:
// A masked key's p is 0, but 0 * NaN is NaN: a NaN or Inf in v would reach rows that do not see it. So a tile whose result is
// not finite everywhere is computed again by attention_rows, which skips what is masked.
//
// Symbols: T tokens, H query heads, KV key and value heads, D head_dim, group = H / KV.
// defines: Segment, AttentionPlan, attention_plan, attention
#pragma once
#include <vector>
#include "device.cuh"
#include "gemm.cuh"  // for the CPU: Vector, load_vector, store_vector, multiply_add, FloatXWord
#ifdef __CUDACC__
#include "ptx.cuh"
#endif

// A run of tokens of a chunk: tokens [start, start + len), which continue the segment `parent`.
struct Segment {
    int start;   // first token, an index into the chunk
    int len;     // tokens, at least 1
    int parent;  // index of an earlier segment of the same chunk, -1: none
    int pos;     // position of the first token in its text (for rotary embedding; attention does not use it)
};

#ifdef __CUDACC__
constexpr int TILE_ROWS = 128, KEY_BLOCK = 64;  // see attention_tensor_core
#else
constexpr int TILE_ROWS = 256, KEY_BLOCK = 96;  // keys are copied once a tile: more rows, fewer copies
#endif
constexpr int MAX_HEAD_DIM = 256, MAX_GROUP = 128;

// Query tokens [query, query + n) of one prefix, which is prefix[offset, offset + n_prefix) of the plan.
struct QueryTile {
    int query, n, offset, n_prefix;
};

// Which keys every query of a chunk sees. Made once a chunk, used by every layer.
struct AttentionPlan {
    int T = 0, group = 0;
    Array<QueryTile> tiles;
    Array<int> begin;   // [T] first token of a token's own run
    Array<int> prefix;  // the tokens of every prefix, one prefix after the other
};

inline void check_segments(const std::vector<Segment>& segments, int T) {
    int end = 0;
    for (size_t s = 0; s < segments.size(); s++) {
        const int start = segments[s].start, len = segments[s].len, parent = segments[s].parent;
        if (start != end) fail("segment %zu starts at token %d, expected %d, the end of the one before", s, start, end);
        if (len < 1 || len > T - end) fail("segment %zu has %d tokens, expected 1 to %d, the rest of the chunk", s, len, T - end);
        if (parent < -1 || parent >= (int)s) fail("segment %zu has parent %d, expected -1 or an earlier segment", s, parent);
        end += len;
    }
    if (end != T) fail("the segments end at token %d, expected %d, the chunk's length", end, T);
}

// The plan of a chunk of T tokens. The segments must cover [0, T) in order; group = H / KV.
inline AttentionPlan attention_plan(const std::vector<Segment>& segments, int T, int group) {
    check_segments(segments, T);
    if (group < 1 || group > MAX_GROUP) fail("attention: %d query heads a key head, expected 1 to %d", group, MAX_GROUP);
    struct Prefix {
        size_t offset = 0, len = 0;  // a length of 0: none, or not made yet
    };
    std::vector<Prefix> prefix_of(segments.size()), prefix_of_children(segments.size());
    std::vector<int> prefix, begin(T);
    std::vector<QueryTile> tiles;
    for (int s = 0; s < (int)segments.size(); s++) {
        const int parent = segments[s].parent, start = segments[s].start, end = start + segments[s].len;
        const bool continues = parent >= 0 && parent == s - 1;
        const int parent_run = parent < 0 ? 0 : begin[segments[parent].start];
        if (parent >= 0 && !continues && prefix_of_children[parent].len == 0) {
            const Prefix above = prefix_of[parent];
            const int parent_end = segments[parent].start + segments[parent].len;
            prefix_of_children[parent] = {prefix.size(), above.len + parent_end - parent_run};
            for (size_t i = 0; i < above.len; i++) prefix.push_back(prefix[above.offset + i]);
            for (int t = parent_run; t < parent_end; t++) prefix.push_back(t);
            if (prefix.size() > INT32_MAX) fail("the segments' prefixes exceed %d tokens. HINT: fewer tokens a chunk", INT32_MAX);
        }
        if (parent >= 0) prefix_of[s] = continues ? prefix_of[parent] : prefix_of_children[parent];
        std::fill(begin.begin() + start, begin.begin() + end, continues ? parent_run : start);
        const int offset = (int)prefix_of[s].offset, len = (int)prefix_of[s].len, most = TILE_ROWS / group;
        for (int t = start, n; t < end; t += n) {
            if (tiles.empty() || tiles.back().n == most || tiles.back().offset != offset || tiles.back().n_prefix != len)
                tiles.push_back({t, 0, offset, len});
            n = std::min(most - tiles.back().n, end - t);
            tiles.back().n += n;
        }
    }
    AttentionPlan plan;
    plan.T = T, plan.group = group;
    plan.tiles = Array<QueryTile>(tiles.size(), "attention tiles");
    plan.begin = Array<int>(begin.size(), "attention runs");
    plan.prefix = Array<int>(prefix.size(), "attention prefixes");
    copy(plan.tiles.data, tiles.data(), tiles.size());
    copy(plan.begin.data, begin.data(), begin.size());
    copy(plan.prefix.data, prefix.data(), prefix.size());
    return plan;
}

// ---------------------------------------------------------------------------------------------------------------------
// A kernel's view of one tile and key head

struct AttentionArgs {
    floatX* out;        // [T, H, D]
    const floatX* qkv;  // [T, H + 2 KV, D] query heads, key heads, value heads
    const QueryTile* tiles;
    const int *begin, *prefix;
    int n_tiles, H, KV, D;
};

// Keys and rows are numbered as above. A row from n_rows on repeats the last one, and is not stored.
struct AttentionTile {
    const floatX *q, *k, *v;  // token 0's vector of the first query head, of the key head, of the value head
    floatX* out;              // token 0's output of the first query head
    size_t qkv_stride, out_stride;
    const int *begin, *prefix;
    int D, group, query, n_rows, n_prefix, own, n_keys;  // query: the first query token; own: the token of key n_prefix

    HOST_DEVICE int query_token(int row) const { return query + (row < n_rows ? row : n_rows - 1) / group; }
    HOST_DEVICE int query_head(int row) const { return (row < n_rows ? row : n_rows - 1) % group; }
    HOST_DEVICE int key_token(int key) const { return key < n_prefix ? prefix[key] : own + key - n_prefix; }
    HOST_DEVICE const floatX* q_row(int row) const { return q + query_token(row) * qkv_stride + query_head(row) * D; }
    HOST_DEVICE const floatX* k_row(int key) const { return k + key_token(key) * qkv_stride; }
    HOST_DEVICE const floatX* v_row(int key) const { return v + key_token(key) * qkv_stride; }
    HOST_DEVICE floatX* out_row(int row) const { return out + query_token(row) * out_stride + query_head(row) * D; }

    // What a row sees. lo and hi grow with the row.
    HOST_DEVICE int lo(int row) const { return n_prefix + begin[query_token(row)] - own; }
    HOST_DEVICE int hi(int row) const { return n_prefix + query_token(row) - own; }
    HOST_DEVICE bool visible(int key, int lo, int hi) const { return (key < n_prefix || key >= lo) && key <= hi; }
    // Do all rows see all of the keys [key, key + n)?
    HOST_DEVICE bool all_visible(int key, int n) const {
        return key + n <= n_prefix || (key + n - 1 <= hi(0) && (key > n_prefix ? key : n_prefix) >= lo(n_rows - 1));
    }
};

// What block `index` of n_tiles x KV computes. A run's later tiles see more keys: they come first, the last blocks are short.
HOST_DEVICE AttentionTile attention_tile(const AttentionArgs& a, int index) {
    const QueryTile tile = a.tiles[a.n_tiles - 1 - index / a.KV];
    const int group = a.H / a.KV, head = index % a.KV, own = a.begin[tile.query];
    const size_t q = (size_t)head * group * a.D, k = (size_t)(a.H + head) * a.D, v = (size_t)(a.H + a.KV + head) * a.D;
    return {a.qkv + q, a.qkv + k, a.qkv + v, a.out + q, (size_t)(a.H + 2 * a.KV) * a.D, (size_t)a.H * a.D, a.begin,
            a.prefix + tile.offset, a.D, group, tile.query, tile.n * group, tile.n_prefix, own,
            tile.n_prefix + tile.query + tile.n - own};
}

// ---------------------------------------------------------------------------------------------------------------------
// The plain kernel: a block computes 8 rows of a tile. It passes over the keys twice, first for each row's largest score.

constexpr int PLAIN_ROWS = 8, PLAIN_KEYS = 128;
typedef float EightRows[PLAIN_ROWS];
constexpr int PLAIN_SHARED = 2 * MAX_HEAD_DIM + PLAIN_KEYS;  // EightRows

// score[r] = q[r] . k
DEVICE void plain_scores(EightRows& score, const EightRows* q /*[D]*/, const floatX* k /*[D]*/, int D) {
    struct alignas(4 * sizeof(floatX)) Four {
        floatX x[4];
    };
    for (int r = 0; r < PLAIN_ROWS; r++) score[r] = 0;
    for (int d = 0; d < D; d += 4) {
        const Four four = *(const Four*)(k + d);  // one load
        for (int i = 0; i < 4; i++)
            for (int r = 0; r < PLAIN_ROWS; r++) score[r] += q[d + i][r] * to_float(four.x[i]);
    }
}

// Rows row0 .. row0 + 7 of a tile, as far as there are. All of the block's threads call.
DEVICE void attention_rows(const AttentionTile& t, int row0, EightRows* shared /*[PLAIN_SHARED]*/) {
    EightRows *q = shared, *o = q + t.D, *p = o + t.D;  // [D], [D], [PLAIN_KEYS]
    block_sync();  // others may still read what was in `shared`
    for (int i = threadIdx.x; i < t.D * PLAIN_ROWS; i += blockDim.x) {
        const int d = i / PLAIN_ROWS, r = i % PLAIN_ROWS;
        q[d][r] = to_float(t.q_row(row0 + r)[d]) / sqrtf((float)t.D);
        o[d][r] = 0;
    }
    block_sync();
    int lo[PLAIN_ROWS], hi[PLAIN_ROWS];
    EightRows top, sum, score;
    for (int r = 0; r < PLAIN_ROWS; r++) lo[r] = t.lo(row0 + r), hi[r] = t.hi(row0 + r), top[r] = -INFINITY, sum[r] = 0;
    const int n_keys = hi[PLAIN_ROWS - 1] + 1;
    for (int key = threadIdx.x; key < n_keys; key += blockDim.x) {
        plain_scores(score, q, t.k_row(key), t.D);
        for (int r = 0; r < PLAIN_ROWS; r++)
            if (t.visible(key, lo[r], hi[r]) && !(score[r] <= top[r])) top[r] = score[r];  // a NaN wins
    }
    for (int r = 0; r < PLAIN_ROWS; r++) top[r] = block_max(top[r]);
    for (int key0 = 0; key0 < n_keys; key0 += PLAIN_KEYS) {
        const int n = n_keys - key0 < PLAIN_KEYS ? n_keys - key0 : PLAIN_KEYS;
        for (int j = threadIdx.x; j < n; j += blockDim.x) {
            plain_scores(score, q, t.k_row(key0 + j), t.D);
            for (int r = 0; r < PLAIN_ROWS; r++) {
                const bool visible = t.visible(key0 + j, lo[r], hi[r]);
                p[j][r] = visible ? exp_float(score[r] - top[r]) : -1;  // -1: masked
                sum[r] += visible ? p[j][r] : 0;
            }
        }
        block_sync();
        for (int d = threadIdx.x; d < t.D; d += blockDim.x) {
            EightRows total;
            for (int r = 0; r < PLAIN_ROWS; r++) total[r] = o[d][r];
            for (int j = 0; j < n; j++) {
                const float v = to_float(t.v_row(key0 + j)[d]);
                for (int r = 0; r < PLAIN_ROWS; r++) total[r] += p[j][r] < 0 ? 0 : p[j][r] * v;
            }
            for (int r = 0; r < PLAIN_ROWS; r++) o[d][r] = total[r];
        }
        block_sync();
    }
    for (int r = 0; r < PLAIN_ROWS; r++) sum[r] = block_sum(sum[r]);
    for (int r = 0; r < PLAIN_ROWS && row0 + r < t.n_rows; r++)
        for (int d = threadIdx.x; d < t.D; d += blockDim.x) t.out_row(row0 + r)[d] = to_floatX(o[d][r] / sum[r]);
}

#ifndef __CUDACC__
// ---------------------------------------------------------------------------------------------------------------------
// CPU. A thread does one tile of one key head. The lanes of a vector are rows: the softmax over the keys needs no sums across
// lanes. A panel is two vectors of rows. For each block of keys, a panel goes through
//     scores [keys, rows] = K q^T        p = exp2(scores - m)        o^T [D, rows] = alpha o^T + V^T p
// Both products are one loop: STEP x PANEL vectors of sums in registers, STEP words of K or V broadcast to two vectors of q or
// p. A word is a float, or a pair of bf16 where there is a bf16 dot product: of neighbours along D for q k, of two keys for
// p v. K and V are copied into contiguous words and q is transposed, once a tile; what a panel and a block need stays in the
// L1 and L2 caches. The multiply-adds are the bound; copies, exponentials and the rest take about a quarter of the time.

constexpr int LANE = LANES<float>, PER_WORD = Words<FloatXWord>::K;
constexpr int PANEL = 2, STEP = VECTOR_BYTES == 64 ? 8 : 4;  // as many sums as the registers hold
typedef Vector<int32_t> IntVector;

// What a thread holds for a tile. A vector's rows stay together: row r is lane r % LANE of vector r / LANE.
struct CpuTile {
    alignas(64) FloatXWord q[TILE_ROWS * MAX_HEAD_DIM];  // [rows / LANE, D / PER_WORD, LANE]
    alignas(64) float o[TILE_ROWS * MAX_HEAD_DIM];       // [rows / LANE, D, LANE]
    alignas(64) float m[TILE_ROWS], l[TILE_ROWS];
    alignas(64) int lo[TILE_ROWS], hi[TILE_ROWS];
    alignas(64) FloatXWord k[KEY_BLOCK * MAX_HEAD_DIM];  // [keys, D / PER_WORD]
    alignas(64) FloatXWord v[KEY_BLOCK * MAX_HEAD_DIM];  // [keys / PER_WORD, D]
};

// A row of q or k as words.
template <class Word, class T> void load_row(Word* words, const T* row, int D) {
    if constexpr (Words<Word>::K == 2) memcpy(words, row, D * sizeof(T));
    else for (int d = 0; d < D; d++) words[d] = to_float(row[d]);
}
// Two keys' v as words.
template <class Word, class T> void load_two_rows(Word* words, const T* row0, const T* row1, int D) {
    if constexpr (Words<Word>::K == 1) load_row(words, row0, D), load_row(words + D, row1, D);
    else for (int d = 0; d < D; d++) words[d] = row0[d].bits | (Word)row1[d].bits << 16;
}
// Two keys' p as words.
inline void store_two(float* words, Vector<float> p0, Vector<float> p1) {
    store_vector(words, p0);
    store_vector(words + LANE, p1);
}
#ifdef __AVX512BF16__
inline void store_two(Bf16Pair* words, Vector<float> p0, Vector<float> p1) {
    Vector<uint16_t> both = (Vector<uint16_t>)_mm512_cvtne2ps_pbh((__m512)p1, (__m512)p0), interleave;
    for (int i = 0; i < 32; i++) interleave[i] = (uint16_t)(i / 2 + i % 2 * 16);
    store_vector(words, (Vector<Bf16Pair>)__builtin_shuffle(both, interleave));
}
#endif

// 2^x for x <= 0, to 2e-7 relative; 0 below 2^-126; a NaN stays one. 2^x = 2^n 2^f with |f| <= 1/2: 2^n is a float's exponent
// bits, 2^f a polynomial (fitted for this file: least largest relative error).
inline Vector<float> exp2_vector(Vector<float> x) {
    const Vector<float> lowest = Vector<float>{} - 127;
    x = x < lowest ? lowest : x;
    const IntVector n = __builtin_convertvector(x - 0.5f, IntVector);  // towards 0, so n is the integer nearest to x
    const Vector<float> f = x - __builtin_convertvector(n, Vector<float>);
    Vector<float> y = f * 1.5353362e-4f + 1.3398875e-3f;
    for (float coefficient : {9.61843692e-3f, 5.55033237e-2f, 0.240226477f, 0.693147182f, 1.0f}) y = y * f + coefficient;
    return y * (Vector<float>)(((Vector<uint32_t>)n + 127u) << 23);
}

// sum[i][n] += the products of word a[i * row + k * step] and vector b[n * column + k], over k < words.
inline void multiply_words(Vector<float> (&sum)[STEP][PANEL], const FloatXWord* a, size_t row, size_t step, const FloatXWord* b,
                           size_t column, int words) {
    for (int k = 0; k < words; k++, a += step, b += LANE)
        for (int n = 0; n < PANEL; n++) {
            Vector<FloatXWord> bk = load_vector(b + n * column * LANE);
            asm("" : "+v"(bk));  // g++ would load it again for each product, and loads would be the bound
            for (int i = 0; i < STEP; i++) sum[i][n] = multiply_add(sum[i][n], a[i * row], bk);
        }
}

// The panel of rows from row0 on meets the keys [key, key + n); n is a multiple of STEP.
inline void attend_panel(CpuTile& c, const AttentionTile& t, int row0, int key, int n) {
    alignas(64) float scores[KEY_BLOCK * PANEL * LANE];   // [keys, PANEL, LANE]
    alignas(64) FloatXWord p[PANEL * KEY_BLOCK * LANE];   // [PANEL, keys / PER_WORD, LANE]
    const float scale = 1.44269504f / sqrtf((float)t.D);  // log2(e) / sqrt(D): the exponentials are powers of 2
    const bool masked = !t.all_visible(key, n);
    const int words = t.D / PER_WORD;
    Vector<float> m[PANEL], l[PANEL], alpha[PANEL];
    for (int i = 0; i < PANEL; i++) m[i] = load_vector(c.m + row0 + i * LANE);
    for (int j = 0; j < n; j += STEP) {
        Vector<float> sum[STEP][PANEL] = {};
        multiply_words(sum, c.k + j * words, words, 1, c.q + row0 * words, words, words);
        for (int a = 0; a < STEP; a++)
            for (int i = 0; i < PANEL; i++) {
                if (masked) {
                    const IntVector lo = load_vector(c.lo + row0 + i * LANE), hi = load_vector(c.hi + row0 + i * LANE);
                    const IntVector at = IntVector{} + (key + j + a);
                    sum[a][i] = ((at < t.n_prefix) | (at >= lo)) & (at <= hi) ? sum[a][i] : Vector<float>{} - INFINITY;
                }
                m[i] = sum[a][i] > m[i] ? sum[a][i] : m[i];
                store_vector(scores + ((j + a) * PANEL + i) * LANE, sum[a][i]);
            }
    }
    for (int i = 0; i < PANEL; i++) {
        const Vector<float> old_m = load_vector(c.m + row0 + i * LANE);
        store_vector(c.m + row0 + i * LANE, m[i]);
        m[i] = (m[i] == -INFINITY ? Vector<float>{} : m[i]) * scale;  // -Inf: no key seen yet
        alpha[i] = exp2_vector(old_m * scale - m[i]);
        l[i] = load_vector(c.l + row0 + i * LANE) * alpha[i];
    }
    for (int j = 0; j < n; j += 2)
        for (int i = 0; i < PANEL; i++) {
            const float* s = scores + (j * PANEL + i) * LANE;
            const Vector<float> p0 = exp2_vector(load_vector(s) * scale - m[i]);
            const Vector<float> p1 = exp2_vector(load_vector(s + PANEL * LANE) * scale - m[i]);
            l[i] += p0 + p1;
            store_two(p + (i * KEY_BLOCK + j) / PER_WORD * LANE, p0, p1);
        }
    for (int i = 0; i < PANEL; i++) store_vector(c.l + row0 + i * LANE, l[i]);
    for (int d = 0; d < t.D; d += STEP) {
        float* o = c.o + row0 * t.D + d * LANE;
        Vector<float> sum[STEP][PANEL];
        for (int i = 0; i < PANEL; i++)
            for (int a = 0; a < STEP; a++) sum[a][i] = load_vector(o + (i * t.D + a) * LANE) * alpha[i];
        multiply_words(sum, c.v + d, 1, t.D, p, KEY_BLOCK / PER_WORD, n / PER_WORD);
        for (int i = 0; i < PANEL; i++)
            for (int a = 0; a < STEP; a++) store_vector(o + (i * t.D + a) * LANE, sum[a][i]);
    }
}

// q, transposed, and the state of rows that have not seen a key.
inline void load_tile(CpuTile& c, const AttentionTile& t) {
    const int words = t.D / PER_WORD, rows = ceil_div(t.n_rows, PANEL * LANE) * PANEL * LANE;
    for (int row = 0; row < rows; row++) {
        FloatXWord q[MAX_HEAD_DIM];
        load_row(q, t.q_row(row), t.D);
        for (int w = 0; w < words; w++) c.q[(row / LANE * words + w) * LANE + row % LANE] = q[w];
        c.m[row] = -INFINITY, c.l[row] = 0, c.lo[row] = t.lo(row), c.hi[row] = t.hi(row);
    }
    std::fill_n(c.o, rows * t.D, 0.0f);
}

// The keys [key, key + n), and zeros up to a multiple of STEP keys.
inline void load_keys(CpuTile& c, const AttentionTile& t, int key, int n) {
    static const floatX zeros[MAX_HEAD_DIM] = {};
    const int words = t.D / PER_WORD, padded = ceil_div(n, STEP) * STEP;
    const auto v = [&](int j) { return j < n ? t.v_row(key + j) : zeros; };
    for (int j = 0; j < padded; j++) load_row(c.k + j * words, j < n ? t.k_row(key + j) : zeros, t.D);
    for (int j = 0; j < padded; j += 2) load_two_rows(c.v + j * words, v(j), v(j + 1), t.D);
}

// Writes the tile's result. Is all of it finite?
inline bool store_tile(const CpuTile& c, const AttentionTile& t) {
    int not_finite = 0;
    for (int row = 0; row < t.n_rows; row++) {
        float o[MAX_HEAD_DIM];
        floatX* out = t.out_row(row);
        for (int d = 0; d < t.D; d++) o[d] = c.o[(row / LANE * t.D + d) * LANE + row % LANE] / c.l[row];
        for (int d = 0; d < t.D; d++) not_finite += fabsf(o[d]) < INFINITY ? 0 : 1, out[d] = to_floatX(o[d]);
    }
    return not_finite == 0;
}

KERNEL attention_cpu(AttentionArgs args) {
    const AttentionTile t = attention_tile(args, blockIdx.x);
    CpuTile c;
    load_tile(c, t);
    for (int key = 0; key < t.n_keys; key += KEY_BLOCK) {
        load_keys(c, t, key, std::min(KEY_BLOCK, t.n_keys - key));
        for (int row0 = 0; row0 < t.n_rows; row0 += PANEL * LANE) {
            const int seen = t.hi(row0 + PANEL * LANE - 1) + 1 - key;  // of this block, by the panel's last row
            if (seen <= 0 || (key >= t.n_prefix && key + KEY_BLOCK <= t.lo(row0))) continue;
            attend_panel(c, t, row0, key, std::min(KEY_BLOCK, ceil_div(seen, STEP) * STEP));
        }
    }
    if (store_tile(c, t)) return;
    EightRows shared[PLAIN_SHARED];
    for (int row0 = 0; row0 < t.n_rows; row0 += PLAIN_ROWS) attention_rows(t, row0, shared);
}

#else
// ---------------------------------------------------------------------------------------------------------------------
// GPU

constexpr int GPU_THREADS = 128;

KERNEL attention_rows_gpu(AttentionArgs args) {
    SHARED EightRows shared[PLAIN_SHARED];
    const AttentionTile t = attention_tile(args, blockIdx.x);
    const int row0 = blockIdx.y * PLAIN_ROWS;
    if (row0 < t.n_rows) attention_rows(t, row0, shared);
}

#ifndef PRECISION_FP32
// Tensor cores. A block is 4 warps with 32 rows each: two 16-row fragments, so that each fragment of k or v serves two products.
// q and one block of k and v are in shared memory (64 KB at D = 128: two blocks a multiprocessor); v is loaded while the scores
// are computed, the next k while p v is. Scores, p and o stay in registers: a product's result has the layout of a left factor, so
// p, rounded to bf16, is one as it is (see ptx.cuh for the fragments). The bound is the tensor cores' rate for mma.sync.
// In shared memory a vector is D / 8 chunks of 16 bytes, chunk i of vector x at place i ^ (x % 8): so the 8 vectors that
// ldmatrix reads a chunk of are in different banks.
constexpr int WARP_ROWS = 32;
static_assert(TILE_ROWS == GPU_THREADS, "as many rows as threads, 32 a warp");

// Address of chunk i of vector x.
template <int D> DEVICE uint32_t chunk_at(uint32_t base, int x, int i) { return base + x * (2 * D) + ((i ^ (x & 7)) << 4); }

// Starts loading n vectors into shared memory: row(x) for x < there, then row(0) again, finite if anything here is, and masked.
template <int D, class Row> DEVICE void load_vectors(uint32_t base, int n, int there, Row row) {
#pragma unroll 2
    for (int i = threadIdx.x; i < n * (D / 8); i += GPU_THREADS) {
        const int x = i / (D / 8), chunk = i % (D / 8);
        copy_chunk(chunk_at<D>(base, x, chunk), row(x < there ? x : 0) + chunk * 8);
    }
}

template <int D> __global__ void __launch_bounds__(GPU_THREADS, 2) attention_tensor_core(AttentionArgs args) {
    extern __shared__ uint4 shared[];   // q [TILE_ROWS, D], k [KEY_BLOCK, D], v [KEY_BLOCK, D]
    __shared__ AttentionTile t;         // not in registers, which are short
    __shared__ int lo[TILE_ROWS], hi[TILE_ROWS];
    if (threadIdx.x == 0) t = attention_tile(args, blockIdx.x);
    block_sync();
    lo[threadIdx.x] = t.lo(threadIdx.x), hi[threadIdx.x] = t.hi(threadIdx.x);
    const uint32_t q_at = shared_address(shared);
    const uint32_t k_at = q_at + TILE_ROWS * D * 2, v_at = k_at + KEY_BLOCK * D * 2;
    const int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * WARP_ROWS;
    const float scale = 1.44269504f / sqrtf((float)D);  // log2(e) / sqrt(D): the exponentials are powers of 2
    load_vectors<D>(q_at, TILE_ROWS, t.n_rows, [&](int x) { return t.q_row(x); });
    load_vectors<D>(k_at, KEY_BLOCK, t.n_keys, [&](int x) { return t.k_row(x); });

    // o[fragment][8 columns][lane's values]. A lane has 4 rows r: values 0 and 1, and values 2 and 3, of either fragment.
    float o[2][D / 8][4] = {}, m[4], l[4];
    for (int r = 0; r < 4; r++) m[r] = -INFINITY, l[r] = 0;

    for (int key = 0; key < t.n_keys; key += KEY_BLOCK) {
        wait_for_copies();  // k is there, and v is free
        load_vectors<D>(v_at, KEY_BLOCK, t.n_keys - key, [&](int x) { return t.v_row(key + x); });
        // Does any of this warp's rows see any of these keys?
        const bool active = warp_row < t.n_rows && key <= hi[warp_row + WARP_ROWS - 1] &&
                            (key < t.n_prefix || key + KEY_BLOCK > lo[warp_row]);
        float s[2][KEY_BLOCK / 8][4] = {};
        if (active) {
#pragma unroll
            for (int d = 0; d < D; d += 16) {
                uint32_t q[2][4];
                for (int f = 0; f < 2; f++)
                    load_matrices(q[f], chunk_at<D>(q_at, warp_row + f * 16 + lane % 16, d / 8 + lane / 16));
                for (int j = 0; j < KEY_BLOCK; j += 16) {
                    uint32_t k[4];  // keys j.., two chunks of d; keys j + 8.., two chunks of d
                    load_matrices(k, chunk_at<D>(k_at, j + lane / 16 * 8 + lane % 8, d / 8 + lane / 8 % 2));
                    for (int f = 0; f < 2; f++) {
                        multiply_add(s[f][j / 8], q[f], k[0], k[1]);
                        multiply_add(s[f][j / 8 + 1], q[f], k[2], k[3]);
                    }
                }
            }
        }
        wait_for_copies();  // v is there, and k is free
        const int next = key + KEY_BLOCK;
        if (next < t.n_keys) load_vectors<D>(k_at, KEY_BLOCK, t.n_keys - next, [&](int x) { return t.k_row(next + x); });
        if (!active) continue;
        const bool masked = !t.all_visible(key, KEY_BLOCK);
        for (int r = 0; r < 4; r++) {
            const int f = r / 2, h = r % 2 * 2, row = warp_row + r * 8 + lane / 4;
            if (masked)
                for (int j = 0; j < KEY_BLOCK / 8; j++)
                    for (int e = 0; e < 2; e++)
                        if (!t.visible(key + j * 8 + lane % 4 * 2 + e, lo[row], hi[row])) s[f][j][h + e] = -INFINITY;
            float top = m[r];
            for (int j = 0; j < KEY_BLOCK / 8; j++) top = fmaxf(top, fmaxf(s[f][j][h], s[f][j][h + 1]));
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
            const float shift = top == -INFINITY ? 0 : top * scale;  // -Inf: no key seen yet
            const float alpha = exp2_fast(m[r] * scale - shift);
            m[r] = top, l[r] *= alpha;
            for (int j = 0; j < KEY_BLOCK / 8; j++)
                for (int e = 0; e < 2; e++) l[r] += s[f][j][h + e] = exp2_fast(s[f][j][h + e] * scale - shift);
            for (int d = 0; d < D / 8; d++) o[f][d][h] *= alpha, o[f][d][h + 1] *= alpha;
        }
        for (int j = 0; j < KEY_BLOCK; j += 16) {
            uint32_t p[2][4];
            for (int f = 0; f < 2; f++)
                for (int i = 0; i < 4; i++)
                    p[f][i] = bf16_pair(s[f][j / 8 + i / 2][i % 2 * 2], s[f][j / 8 + i / 2][i % 2 * 2 + 1]);
#pragma unroll
            for (int d = 0; d < D; d += 16) {
                uint32_t v[4];  // chunk of d.., keys j.. and j + 8..; the next chunk, the same
                load_matrices_transposed(v, chunk_at<D>(v_at, j + lane % 16, d / 8 + lane / 16));
                for (int f = 0; f < 2; f++) {
                    multiply_add(o[f][d / 8], p[f], v[0], v[1]);
                    multiply_add(o[f][d / 8 + 1], p[f], v[2], v[3]);
                }
            }
        }
    }

    bool finite = true;
    for (int r = 0; r < 4; r++) {
        l[r] += __shfl_xor_sync(0xffffffffu, l[r], 1);
        l[r] += __shfl_xor_sync(0xffffffffu, l[r], 2);
        const int f = r / 2, h = r % 2 * 2, row = warp_row + r * 8 + lane / 4;
        if (row >= t.n_rows) continue;
        const float inverse = 1 / l[r];
        bf16* out = t.out_row(row) + lane % 4 * 2;
        for (int d = 0; d < D / 8; d++) {
            const float x = o[f][d][h] * inverse, y = o[f][d][h + 1] * inverse;
            finite = finite && fabsf(x) < INFINITY && fabsf(y) < INFINITY;
            *(uint32_t*)(out + d * 8) = bf16_pair(x, y);
        }
    }
    if (__syncthreads_and(finite)) return;
    for (int row0 = 0; row0 < t.n_rows; row0 += PLAIN_ROWS) attention_rows(t, row0, (EightRows*)shared);
}

template <int D> void launch_tensor_core(int blocks, const AttentionArgs& args) {
    constexpr int bytes = (TILE_ROWS + 2 * KEY_BLOCK) * D * (int)sizeof(bf16);
    static_assert(bytes >= (2 * D + PLAIN_KEYS) * (int)sizeof(EightRows), "attention_rows uses the same memory");
    cuda_check(cudaFuncSetAttribute(attention_tensor_core<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    cudaLaunchConfig_t config = {};
    config.gridDim = blocks, config.blockDim = GPU_THREADS, config.dynamicSmemBytes = bytes;
    cuda_check(cudaLaunchKernelEx(&config, attention_tensor_core<D>, args));
}
#endif
#endif

// ---------------------------------------------------------------------------------------------------------------------
// out = attention of the chunk's queries to its keys, q and k already normalized and rotated; the plan is for this T and H / KV.
// D is a multiple of 8, at most 256.
inline void attention(floatX* out /*[T, H, D]*/, const floatX* qkv /*[T, H + 2 KV, D]: query, key, value heads*/,
                      const AttentionPlan& plan, int T, int H, int KV, int D) {
    if (KV < 1 || H < 1 || H % KV != 0) fail("attention: %d query heads and %d key heads, expected a multiple", H, KV);
    if (D < 8 || D > MAX_HEAD_DIM || D % 8 != 0)
        fail("attention: head_dim is %d, expected a multiple of 8 up to %d", D, MAX_HEAD_DIM);
    if (plan.T != T || plan.group != H / KV)
        fail("attention: the plan is for %d tokens and groups of %d heads, not for %d and %d", plan.T, plan.group, T, H / KV);
    if (plan.tiles.n * KV > INT32_MAX)
        fail("attention: %zu tiles of %d key heads are too many. HINT: fewer tokens a chunk", plan.tiles.n, KV);
    const int n_tiles = (int)plan.tiles.n, blocks = n_tiles * KV;
    const AttentionArgs args = {out, qkv, plan.tiles.data, plan.begin.data, plan.prefix.data, n_tiles, H, KV, D};
#ifndef __CUDACC__
    launch(attention_cpu, dim3(blocks), 1, args);
#else
#ifndef PRECISION_FP32
    if (blocks > 0 && D == 64) return launch_tensor_core<64>(blocks, args);
    if (blocks > 0 && D == 128) return launch_tensor_core<128>(blocks, args);
#endif
    launch(attention_rows_gpu, dim3(blocks, TILE_ROWS / PLAIN_ROWS), GPU_THREADS, args);
#endif
}
