// attention.cuh: causal grouped-query attention over a token trie.
//
// For query token t and head h, with kv head g = h / (H / KV) and the keys k that t sees:
//     out[t,h] = sum_k p[k] v[k,g],   p = softmax over k of q[t,h] . k[k,g] / sqrt(D)
// A token sees all tokens of all ancestors of its segment, and its own segment up to itself.
//
// The plan. Where a segment directly follows its parent, the two are one longer run. So what a token t sees is
//     its prefix: a list of tokens, shared by every sibling,  then  the tokens begin[t] .. t of its own run.
// Consecutive tokens of one prefix are cut into tiles, across segments, so that short siblings share a tile. The keys of a tile are
// numbered 0 .. n_keys: first the prefix, then the tokens begin[first query] .. last query. The H / KV heads that read the same
// k and v are stacked: row r of a tile is head r % group of query r / group. Row r sees the keys  j < n_prefix  and
// lo(r) <= j <= hi(r).
//
// The kernels are FlashAttention-2 (Dao 2023): keys pass by in blocks, and a row keeps its largest score m so far, its sum l of
// exp(score - m) and its unnormalized output; when m grows, both are multiplied by exp(old m - new m). No more than rows x block
// scores ever exist. Blocks after the last query of the rows at hand are not computed. Scores, softmax and sums are float; with
// bf16 the p that multiplies v is rounded to bf16, as in FlashAttention.
//   CPU  attention_tile_cpu: bound by the multipliers, see there.
//   GPU  attention_tensor_core (bf16, D = 64 or 128): bound by the tensor cores' mma.sync rate, see there.
//   both attention_rows: any D, the plain statement of the same computation; the GPU's kernel for float and for other D.
// A masked key has p = 0, but 0 * NaN is NaN: a NaN or Inf in v would reach rows that do not see it. So a tile whose result is not
// finite everywhere is computed again by attention_rows, which skips masked keys.
//
// Symbols: T tokens, H query heads, KV key/value heads, D head_dim, group = H / KV.
// defines: Segment, AttentionPlan, attention_plan, attention
#pragma once
#include <vector>
#include "device.cuh"
#include "gemm.cuh"  // the CPU's vectors and its bf16 dot product

// A run of tokens of a chunk: tokens [start, start + len), which continue the segment `parent`.
struct Segment {
    int start;   // first token, an index into the chunk
    int len;     // tokens, at least 1
    int parent;  // index of an earlier segment of the same chunk, -1: none
    int pos;     // position of the first token in its text (for rotary embedding; attention does not use it)
};

#ifdef __CUDACC__
constexpr int TILE_ROWS = 128;
#else
constexpr int TILE_ROWS = 256;
#endif
constexpr int MAX_HEAD_DIM = 256, MAX_GROUP = 128;

// Which keys every query of a chunk sees. Made once a chunk, used by every layer.
struct AttentionPlan {
    int T = 0, group = 0, n_tiles = 0;
    Array<int> tiles;   // [n_tiles, 4] first query token, number of query tokens, prefix offset, prefix length
    Array<int> begin;   // [T] first token of a token's own run
    Array<int> prefix;  // the tokens of every prefix, one prefix after the other
};

inline void check_segments(const std::vector<Segment>& segments, int T) {
    int end = 0;
    for (size_t s = 0; s < segments.size(); s++) {
        const Segment& g = segments[s];
        if (g.start != end) fail("segment %zu starts at token %d, expected %d, the end of the one before", s, g.start, end);
        if (g.len < 1 || g.len > T - end)
            fail("segment %zu has %d tokens from token %d on, expected at least 1 and an end within the chunk's %d", s, g.len, end, T);
        if (g.parent < -1 || g.parent >= (int)s) fail("segment %zu has parent %d, expected -1 or an earlier segment", s, g.parent);
        end += g.len;
    }
    if (end != T) fail("the segments end at token %d, expected %d, the chunk's length", end, T);
}

// The plan of a chunk of T tokens. The segments must cover [0, T) in order; group = H / KV.
inline AttentionPlan attention_plan(const std::vector<Segment>& segments, int T, int group) {
    check_segments(segments, T);
    if (group < 1 || group > MAX_GROUP) fail("attention: %d query heads a key head, expected 1 to %d", group, MAX_GROUP);
    struct Prefix {
        size_t offset, len;
    };
    const size_t n = segments.size();
    std::vector<Prefix> prefix_of(n), prefix_of_children(n, {0, 0});  // a length of 0: not made yet
    std::vector<int> tokens, begin(T), tiles;
    for (size_t s = 0; s < n; s++) {
        const Segment& g = segments[s];
        const int p = g.parent;
        int first = g.start;
        if (p < 0) {
            prefix_of[s] = {0, 0};
        } else if (p == (int)s - 1) {
            prefix_of[s] = prefix_of[p];
            first = begin[segments[p].start];
        } else {
            Prefix& shared = prefix_of_children[p];
            if (shared.len == 0) {
                const Prefix above = prefix_of[p];
                shared.offset = tokens.size();
                for (size_t i = 0; i < above.len; i++) tokens.push_back(tokens[above.offset + i]);
                for (int t = begin[segments[p].start]; t < segments[p].start + segments[p].len; t++) tokens.push_back(t);
                shared.len = tokens.size() - shared.offset;
                if (tokens.size() > INT32_MAX)
                    fail("the segments' prefixes have more than %d tokens. HINT: fewer tokens a chunk", INT32_MAX);
            }
            prefix_of[s] = shared;
        }
        for (int t = g.start; t < g.start + g.len; t++) begin[t] = first;
    }
    const int tile_tokens = TILE_ROWS / group;
    for (size_t s = 0; s < n;) {
        const Prefix prefix = prefix_of[s];
        const int start = segments[s].start;
        while (s < n && prefix_of[s].offset == prefix.offset && prefix_of[s].len == prefix.len) s++;
        const int end = s < n ? segments[s].start : T;
        for (int t = start; t < end; t += tile_tokens)
            tiles.insert(tiles.end(), {t, std::min(tile_tokens, end - t), (int)prefix.offset, (int)prefix.len});
    }
    // The later tiles of a run see more keys. They start first, so that the last ones to finish are short.
    for (size_t i = 0, j = tiles.size(); i + 4 < j; i += 4) {
        j -= 4;
        std::swap_ranges(tiles.begin() + i, tiles.begin() + i + 4, tiles.begin() + j);
    }
    AttentionPlan plan;
    plan.T = T, plan.group = group, plan.n_tiles = (int)(tiles.size() / 4);
    plan.tiles = Array<int>(tiles.size(), "attention tiles");
    plan.begin = Array<int>(begin.size(), "attention runs");
    plan.prefix = Array<int>(tokens.size(), "attention prefixes");
    copy(plan.tiles.data, tiles.data(), tiles.size());
    copy(plan.begin.data, begin.data(), begin.size());
    copy(plan.prefix.data, tokens.data(), tokens.size());
    return plan;
}

// ---------------------------------------------------------------------------------------------------------------------
// A kernel's view of one tile and kv head

struct AttentionArgs {
    floatX* out;        // [T, H, D]
    const floatX* qkv;  // [T, H + 2 KV, D] query heads, key heads, value heads
    const int *tiles, *begin, *prefix;
    int H, KV, D;
};

struct AttentionTile {
    const floatX *q, *k, *v;  // token 0's vector of the first query head, of the key head, of the value head
    floatX* out;              // token 0's output of the first query head
    size_t qkv_stride, out_stride;
    const int *begin, *prefix;
    int D, group, query, n_rows, n_prefix, own, n_keys;  // query: the first query token; own: the token of key n_prefix

    HOST_DEVICE int key_token(int key) const { return key < n_prefix ? prefix[key] : own + key - n_prefix; }
    // A row from n_rows on repeats the last one, and is not stored.
    HOST_DEVICE int query_token(int row) const { return query + (row < n_rows ? row : n_rows - 1) / group; }
    HOST_DEVICE int query_head(int row) const { return (row < n_rows ? row : n_rows - 1) % group; }
    HOST_DEVICE int lo(int row) const { return n_prefix + begin[query_token(row)] - own; }
    HOST_DEVICE int hi(int row) const { return n_prefix + query_token(row) - own; }
    HOST_DEVICE bool visible(int key, int lo, int hi) const { return (key < n_prefix || key >= lo) && key <= hi; }
    // Do all rows see all of the keys [key, key + n)? (lo and hi grow with the row.)
    HOST_DEVICE bool all_visible(int key, int n) const {
        return key + n <= n_prefix || (key + n - 1 <= hi(0) && (key > n_prefix ? key : n_prefix) >= lo(n_rows - 1));
    }
    HOST_DEVICE const floatX* q_row(int row) const { return q + query_token(row) * qkv_stride + query_head(row) * D; }
    HOST_DEVICE const floatX* k_row(int key) const { return k + key_token(key) * qkv_stride; }
    HOST_DEVICE const floatX* v_row(int key) const { return v + key_token(key) * qkv_stride; }
    HOST_DEVICE floatX* out_row(int row) const { return out + query_token(row) * out_stride + query_head(row) * D; }
};

// Block `index` of n_tiles x KV.
HOST_DEVICE AttentionTile attention_tile(const AttentionArgs& a, int index) {
    const int* at = a.tiles + (size_t)(index / a.KV) * 4;
    const int head = index % a.KV, last = at[0] + at[1] - 1;
    AttentionTile t;
    t.D = a.D, t.group = a.H / a.KV;
    t.q = a.qkv + (size_t)head * t.group * a.D;
    t.k = a.qkv + (size_t)(a.H + head) * a.D;
    t.v = a.qkv + (size_t)(a.H + a.KV + head) * a.D;
    t.out = a.out + (size_t)head * t.group * a.D;
    t.qkv_stride = (size_t)(a.H + 2 * a.KV) * a.D, t.out_stride = (size_t)a.H * a.D;
    t.query = at[0], t.n_rows = at[1] * t.group, t.prefix = a.prefix + at[2], t.n_prefix = at[3];
    t.begin = a.begin, t.own = a.begin[t.query], t.n_keys = t.n_prefix + last - t.own + 1;
    return t;
}

// ---------------------------------------------------------------------------------------------------------------------
// The plain kernel: a block computes 8 rows of a tile. It passes over the keys twice, first for each row's largest score.

constexpr int PLAIN_ROWS = 8, PLAIN_KEYS = 128;
constexpr int PLAIN_SHARED = (2 * MAX_HEAD_DIM + PLAIN_KEYS) * PLAIN_ROWS;  // floats

struct alignas(4 * sizeof(floatX)) FourFloatX {
    floatX x[4];
};

// score[r] = q[r] . k
DEVICE void plain_scores(float (&score)[PLAIN_ROWS], const float* q /*[D, PLAIN_ROWS]*/, const floatX* k /*[D]*/, int D) {
    for (int r = 0; r < PLAIN_ROWS; r++) score[r] = 0;
    for (int d = 0; d < D; d += 4) {
        const FourFloatX four = *(const FourFloatX*)(k + d);
        for (int i = 0; i < 4; i++)
            for (int r = 0; r < PLAIN_ROWS; r++) score[r] += q[(d + i) * PLAIN_ROWS + r] * to_float(four.x[i]);
    }
}

// Rows row0 .. row0 + 7 of a tile, as far as there are. All of the block's threads call.
DEVICE void attention_rows(const AttentionTile& t, int row0, float* shared /*[PLAIN_SHARED]*/) {
    float *q = shared, *o = q + t.D * PLAIN_ROWS, *p = o + t.D * PLAIN_ROWS;  // [D, 8], [D, 8], [PLAIN_KEYS, 8]
    const float scale = 1 / sqrtf((float)t.D);
    block_sync();  // others may still read what was in `shared`
    for (int i = threadIdx.x; i < t.D * PLAIN_ROWS; i += blockDim.x) {
        q[i] = to_float(t.q_row(row0 + i % PLAIN_ROWS)[i / PLAIN_ROWS]) * scale;
        o[i] = 0;
    }
    block_sync();
    int lo[PLAIN_ROWS], hi[PLAIN_ROWS];
    float top[PLAIN_ROWS], sum[PLAIN_ROWS], score[PLAIN_ROWS];
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
                const float e = visible ? exp_float(score[r] - top[r]) : 0;
                p[j * PLAIN_ROWS + r] = visible ? e : -1;  // -1: masked
                sum[r] += e;
            }
        }
        block_sync();
        for (int d = threadIdx.x; d < t.D; d += blockDim.x) {
            float total[PLAIN_ROWS];
            for (int r = 0; r < PLAIN_ROWS; r++) total[r] = o[d * PLAIN_ROWS + r];
            for (int j = 0; j < n; j++) {
                const float v = to_float(t.v_row(key0 + j)[d]);
                for (int r = 0; r < PLAIN_ROWS; r++) {
                    const float weight = p[j * PLAIN_ROWS + r];
                    total[r] += weight < 0 ? 0 : weight * v;
                }
            }
            for (int r = 0; r < PLAIN_ROWS; r++) o[d * PLAIN_ROWS + r] = total[r];
        }
        block_sync();
    }
    for (int r = 0; r < PLAIN_ROWS; r++) sum[r] = block_sum(sum[r]);
    for (int r = 0; r < PLAIN_ROWS && row0 + r < t.n_rows; r++)
        for (int d = threadIdx.x; d < t.D; d += blockDim.x) t.out_row(row0 + r)[d] = to_floatX(o[d * PLAIN_ROWS + r] / sum[r]);
}

HOST_DEVICE bool is_finite(float x) { return fabsf(x) <= 3.402823466e38f; }

#ifndef __CUDACC__

// ---------------------------------------------------------------------------------------------------------------------
// CPU. One thread does a (tile, kv head). The lanes of a vector are rows, so the softmax over the keys is plain vector arithmetic,
// without sums across lanes. Up to 4 vectors of rows are a panel; for each block of keys a panel goes through
//     scores [keys, rows] = K q^T        p = exp2(scores - m)        o^T [D, rows] = alpha o^T + V^T p
// where both products are one loop: 4 x N vectors of sums in registers, 4 words of K or V broadcast, N vectors of q or p loaded.
// A word is a float, or a pair of bf16 where there is a bf16 dot product: then q and k are pairs along D, p and v along the keys.
// K and V are copied into contiguous words block by block, once for all panels of a tile; q is transposed once a tile.
// A panel's q, scores and p and the block's k, v are about 16 KB each at D = 128 (bf16): they stay in the L1 cache, o in the L2. So the bound is
// the multipliers; the exponentials take about a tenth.

constexpr int PANEL = VECTOR_BYTES == 64 ? 4 : 2;  // vectors of rows: 4 x PANEL sums must fit the registers
constexpr int KEY_BLOCK = 64;
constexpr int LANE = LANES<float>, PER_WORD = Words<FloatXWord>::K;

// sum[i][n] += the products of word a[i * row + k * step] and vector n of b[k], over k < words.
template <int N>
void multiply_words(Vector<float> (&sum)[4][N], const FloatXWord* a, size_t row, size_t step, const FloatXWord* b, int words) {
    for (int k = 0; k < words; k++, a += step) {
        Vector<FloatXWord> bk[N];
        for (int n = 0; n < N; n++, b += LANE) bk[n] = load_vector(b);
        for (int i = 0; i < 4; i++)
            for (int n = 0; n < N; n++) sum[i][n] = multiply_add(sum[i][n], a[i * row], bk[n]);
    }
}

// 2^x for x <= 0, to 2e-7 relative; 0 below 2^-126; NaN stays. 2^x = 2^n 2^f, |f| <= 1/2: 2^n is a float's exponent bits, 2^f a
// polynomial (minimax in relative error, fitted for this file).
inline Vector<float> exp2_vector(Vector<float> x) {
    typedef int32_t IntVector __attribute__((vector_size(VECTOR_BYTES)));
    const Vector<float> lowest = Vector<float>{} - 127;
    x = x < lowest ? lowest : x;
    const IntVector n = __builtin_convertvector(x - 0.5f, IntVector);  // truncates: x - 0.5 < 0, so to nearest
    const Vector<float> f = x - __builtin_convertvector(n, Vector<float>);
    Vector<float> y = f * 1.5353362e-4f + 1.3398875e-3f;
    y = y * f + 9.61843692e-3f;
    y = y * f + 5.55033237e-2f;
    y = y * f + 0.240226477f;
    y = y * f + 0.693147182f;
    y = y * f + 1.0f;
    return y * (Vector<float>)(((Vector<uint32_t>)n + 127u) << 23);
}

// A vector of q or k as words.
inline void load_row(float* words, const floatX* row, int D) {
    for (int d = 0; d < D; d++) words[d] = to_float(row[d]);
}
// The v of two keys as words, [2, D] or [1, D].
inline void load_two_rows(float* words, const floatX* row0, const floatX* row1, int D) {
    load_row(words, row0, D);
    load_row(words + D, row1, D);
}
// The p of two keys as words, one vector of rows; a float's second key is `stride` further on.
inline void store_two(float* words, int stride, Vector<float> p0, Vector<float> p1) {
    store_vector(words, p0);
    store_vector(words + stride, p1);
}
#if defined(__AVX512BF16__) && !defined(PRECISION_FP32)
inline void load_row(Bf16Pair* words, const bf16* row, int D) { memcpy(words, row, D * sizeof(bf16)); }

inline void load_two_rows(Bf16Pair* words, const bf16* row0, const bf16* row1, int D) {
    for (int d = 0; d < D; d++) words[d] = row0[d].bits | (Bf16Pair)row1[d].bits << 16;
}
inline void store_two(Bf16Pair* words, int /*stride*/, Vector<float> p0, Vector<float> p1) {
    Vector<uint16_t> pairs = (Vector<uint16_t>)_mm512_cvtne2ps_pbh((__m512)p1, (__m512)p0), interleave;
    for (int i = 0; i < 32; i++) interleave[i] = (uint16_t)(i / 2 + i % 2 * 16);
    store_vector(words, (Vector<Bf16Pair>)__builtin_shuffle(pairs, interleave));
}
#endif

// What a thread holds for a tile. Rows are in panels, row by row of lanes; one panel after the other.
struct CpuTile {
    alignas(64) FloatXWord q[TILE_ROWS * MAX_HEAD_DIM];  // panels of [D / PER_WORD, rows]
    alignas(64) float o[TILE_ROWS * MAX_HEAD_DIM];       // panels of [D, rows]
    alignas(64) float m[TILE_ROWS], l[TILE_ROWS];
    alignas(64) int lo[TILE_ROWS], hi[TILE_ROWS];
    alignas(64) FloatXWord k[KEY_BLOCK * MAX_HEAD_DIM];  // [KEY_BLOCK, D / PER_WORD]
    alignas(64) FloatXWord v[KEY_BLOCK * MAX_HEAD_DIM];  // [KEY_BLOCK / PER_WORD, D]
};

// One panel, N vectors of rows from row0 on, meets the keys [key, key + n); n is a multiple of 4.
template <int N> void attend_panel(CpuTile& c, const AttentionTile& t, int row0, int key, int n, bool masked) {
    constexpr int ROWS = N * LANE;
    typedef int32_t IntVector __attribute__((vector_size(VECTOR_BYTES)));
    alignas(64) float scores[KEY_BLOCK * ROWS];
    alignas(64) FloatXWord p[KEY_BLOCK * ROWS];
    const float scale = 1.44269504f / sqrtf((float)t.D);  // log2(e) / sqrt(D): the exponentials are powers of 2
    const int words = t.D / PER_WORD;
    Vector<float> m[N], old_m[N], l[N], alpha[N];
    for (int i = 0; i < N; i++) m[i] = old_m[i] = load_vector(c.m + row0 + i * LANE);
    for (int j = 0; j < n; j += 4) {
        Vector<float> sum[4][N] = {};
        multiply_words<N>(sum, c.k + j * words, words, 1, c.q + row0 * words, words);
        for (int a = 0; a < 4; a++)
            for (int i = 0; i < N; i++) {
                if (masked) {
                    const IntVector lo = load_vector(c.lo + row0 + i * LANE), hi = load_vector(c.hi + row0 + i * LANE);
                    const IntVector at = IntVector{} + (key + j + a);
                    sum[a][i] = ((at < t.n_prefix) | (at >= lo)) & (at <= hi) ? sum[a][i] : Vector<float>{} - INFINITY;
                }
                m[i] = sum[a][i] > m[i] ? sum[a][i] : m[i];
                store_vector(scores + (j + a) * ROWS + i * LANE, sum[a][i]);
            }
    }
    for (int i = 0; i < N; i++) {
        store_vector(c.m + row0 + i * LANE, m[i]);
        m[i] = (m[i] == -INFINITY ? Vector<float>{} : m[i]) * scale;  // -Inf: no key seen yet
        alpha[i] = exp2_vector(old_m[i] * scale - m[i]);
        l[i] = load_vector(c.l + row0 + i * LANE) * alpha[i];
    }
    for (int j = 0; j < n; j += 2)
        for (int i = 0; i < N; i++) {
            const float* s = scores + j * ROWS + i * LANE;
            const Vector<float> p0 = exp2_vector(load_vector(s) * scale - m[i]);
            const Vector<float> p1 = exp2_vector(load_vector(s + ROWS) * scale - m[i]);
            l[i] += p0 + p1;
            store_two(p + j / PER_WORD * ROWS + i * LANE, ROWS, p0, p1);
        }
    for (int i = 0; i < N; i++) store_vector(c.l + row0 + i * LANE, l[i]);
    for (int d = 0; d < t.D; d += 4) {
        float* o = c.o + row0 * t.D + d * ROWS;
        Vector<float> sum[4][N];
        for (int a = 0; a < 4; a++)
            for (int i = 0; i < N; i++) sum[a][i] = load_vector(o + a * ROWS + i * LANE) * alpha[i];
        multiply_words<N>(sum, c.v + d, 1, t.D, p, n / PER_WORD);
        for (int a = 0; a < 4; a++)
            for (int i = 0; i < N; i++) store_vector(o + a * ROWS + i * LANE, sum[a][i]);
    }
}

// Calls f(row0, N) for each panel: N vectors of rows, from row0 on. The last panel may be narrower and have idle rows.
template <class F> void for_each_panel(int n_rows, F f) {
    for (int row0 = 0; row0 < n_rows; row0 += PANEL * LANE) {
        const int vectors = ceil_div(n_rows - row0, LANE);
        f(row0, vectors > PANEL / 2 ? PANEL : vectors > 1 ? 2 : 1);
    }
}

inline void load_tile(CpuTile& c, const AttentionTile& t) {
    const int words = t.D / PER_WORD;
    for_each_panel(t.n_rows, [&](int row0, int N) {
        for (int r = 0; r < N * LANE; r += LANE) {
            FloatXWord q[LANE][MAX_HEAD_DIM];
            for (int i = 0; i < LANE; i++) {
                const int row = row0 + r + i;
                load_row(q[i], t.q_row(row), t.D);
                c.m[row] = -INFINITY, c.l[row] = 0, c.lo[row] = t.lo(row), c.hi[row] = t.hi(row);
            }
            for (int w = 0; w < words; w += LANE) {
                Vector<FloatXWord> block[LANE];
                for (int i = 0; i < LANE; i++) block[i] = load_vector(q[i] + w);
                transpose<FloatXWord>(block);
                for (int i = 0; i < std::min(LANE, words - w); i++)
                    store_vector(c.q + row0 * words + (w + i) * N * LANE + r, block[i]);
            }
        }
        std::fill_n(c.o + row0 * t.D, N * LANE * t.D, 0.0f);
    });
}

// The keys [key, key + n), and zeros up to a multiple of 4 keys.
inline void load_keys(CpuTile& c, const AttentionTile& t, int key, int n) {
    static const floatX zeros[MAX_HEAD_DIM] = {};
    const int words = t.D / PER_WORD;
    for (int j = 0; j < ceil_div(n, 4) * 4; j += 2) {
        const bool first = j < n, second = j + 1 < n;
        load_row(c.k + j * words, first ? t.k_row(key + j) : zeros, t.D);
        load_row(c.k + (j + 1) * words, second ? t.k_row(key + j + 1) : zeros, t.D);
        load_two_rows(c.v + j * words, first ? t.v_row(key + j) : zeros, second ? t.v_row(key + j + 1) : zeros, t.D);
    }
}

// Writes the tile's result; false if some of it is not finite.
inline bool store_tile(const CpuTile& c, const AttentionTile& t) {
    bool finite = true;
    for_each_panel(t.n_rows, [&](int row0, int N) {
        for (int r = 0; r < std::min(N * LANE, t.n_rows - row0); r += LANE) {
            float rows[LANE][MAX_HEAD_DIM];
            for (int d = 0; d < t.D; d += LANE) {
                Vector<float> block[LANE] = {};
                for (int i = 0; i < std::min(LANE, t.D - d); i++)
                    block[i] = load_vector(c.o + row0 * t.D + (d + i) * N * LANE + r);
                transpose<float>(block);
                for (int i = 0; i < LANE; i++) store_vector(rows[i] + d, block[i]);
            }
            for (int i = 0; i < std::min(LANE, t.n_rows - row0 - r); i++) {
                floatX* out = t.out_row(row0 + r + i);
                const float inverse = 1 / c.l[row0 + r + i];
                int not_finite = 0;
                for (int d = 0; d < t.D; d++) {
                    const float x = rows[i][d] * inverse;
                    not_finite += is_finite(x) ? 0 : 1;
                    out[d] = to_floatX(x);
                }
                finite = finite && not_finite == 0;
            }
        }
    });
    return finite;
}

KERNEL attention_tile_cpu(AttentionArgs args) {
    const AttentionTile t = attention_tile(args, blockIdx.x);
    CpuTile c;
    load_tile(c, t);
    for (int key = 0; key < t.n_keys; key += KEY_BLOCK) {
        load_keys(c, t, key, std::min(KEY_BLOCK, t.n_keys - key));
        for_each_panel(t.n_rows, [&](int row0, int N) {
            const int seen = t.hi(row0 + N * LANE - 1) + 1 - key;  // of this block, by the panel's last row
            if (seen <= 0 || (key >= t.n_prefix && key + KEY_BLOCK <= t.lo(row0))) return;
            const int n = std::min(KEY_BLOCK, ceil_div(seen, 4) * 4);
            const bool masked = !t.all_visible(key, n);
            if (N == PANEL) attend_panel<PANEL>(c, t, row0, key, n, masked);
            else if (N == 2) attend_panel<2>(c, t, row0, key, n, masked);
            else attend_panel<1>(c, t, row0, key, n, masked);
        });
    }
    if (store_tile(c, t)) return;
    float shared[PLAIN_SHARED];
    for (int row0 = 0; row0 < t.n_rows; row0 += PLAIN_ROWS) attention_rows(t, row0, shared);
}

#else

// ---------------------------------------------------------------------------------------------------------------------
// GPU

constexpr int GPU_THREADS = 128;

KERNEL attention_rows_gpu(AttentionArgs args) {
    SHARED float shared[PLAIN_SHARED];
    const AttentionTile t = attention_tile(args, blockIdx.x);
    const int row0 = blockIdx.y * PLAIN_ROWS;
    if (row0 < t.n_rows) attention_rows(t, row0, shared);
}

#ifndef PRECISION_FP32

// Tensor cores. A block is 4 warps and 128 rows, each warp has 32 rows, as two m16 fragments, so that each fragment of k or v that it
// loads serves two products. Q, and one block of 64 keys and values, are in shared memory (64 KB at D = 128: two blocks a
// multiprocessor). K and V are loaded asynchronously in turn: V's block while the scores are computed, the next K's while p V is.
// Scores, p and the output stay in registers: the layout of an m16n8 result is that of an m16k16 factor, so p, rounded to
// bf16, is the next product's left factor as it is.
//
// Fragments of mma.m16n8k16 (PTX ISA): lane = 4 g + c holds, of a result, (row g, columns 2c, 2c+1), (row g + 8, the same).
// Shared memory: vector x is a row of D / 8 chunks of 16 bytes; chunk i is at place i ^ (x % 8), so that the 8 rows which ldmatrix
// reads at a time are in different banks.

constexpr int KEY_BLOCK = 64, WARP_ROWS = 32;
static_assert(TILE_ROWS == GPU_THREADS && TILE_ROWS == GPU_THREADS / 32 * WARP_ROWS, "a thread for each row, 32 rows a warp");

DEVICE void load_matrices(uint32_t (&r)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address));
}
DEVICE void load_matrices_transposed(uint32_t (&r)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address));
}
// c[16, 8] += a[16, 16] b[16, 8]
DEVICE void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// Starts copying 16 bytes to shared memory, or writes zeros.
DEVICE void copy_chunk(uint32_t address, const bf16* src, bool copy) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(src), "r"(copy ? 16 : 0) : "memory");
}
// Waits for the copies that any thread of the block has started.
DEVICE void wait_for_copies() {
    asm volatile("cp.async.wait_all;" ::: "memory");
    block_sync();
}
// 2^x, 2 ulp, denormal results are 0
DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE uint32_t bf16_pair(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, 4);
    return bits;
}

// Address of chunk i of vector x.
template <int D> DEVICE uint32_t chunk_address(uint32_t base, int x, int i) { return base + x * (2 * D) + ((i ^ (x & 7)) << 4); }

// Starts loading n vectors into shared memory: row(x) for x < there, then zeros.
template <int D, class Row> DEVICE void load_vectors(uint32_t base, int n, int there, Row row) {
    constexpr int CHUNKS = D / 8;
#pragma unroll 2
    for (int i = threadIdx.x; i < n * CHUNKS; i += GPU_THREADS) {
        const int x = i / CHUNKS, chunk = i % CHUNKS;
        copy_chunk(chunk_address<D>(base, x, chunk), row(x < there ? x : 0) + chunk * 8, x < there);
    }
}

template <int D> __global__ void __launch_bounds__(GPU_THREADS, 2) attention_tensor_core(AttentionArgs args) {
    extern __shared__ uint4 shared[];  // q [TILE_ROWS, D], k [KEY_BLOCK, D], v [KEY_BLOCK, D]
    __shared__ AttentionTile t;                     // rather than in registers, which are short
    __shared__ int lo[TILE_ROWS], hi[TILE_ROWS];
    if (threadIdx.x == 0) t = attention_tile(args, blockIdx.x);
    block_sync();
    lo[threadIdx.x] = t.lo(threadIdx.x), hi[threadIdx.x] = t.hi(threadIdx.x);
    const uint32_t q_at = (uint32_t)__cvta_generic_to_shared(shared);
    const uint32_t k_at = q_at + TILE_ROWS * D * 2, v_at = k_at + KEY_BLOCK * D * 2;
    const int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * WARP_ROWS;
    const float scale = 1.44269504f / sqrtf((float)D);  // log2(e) / sqrt(D): the exponentials are powers of 2
    const auto load_k = [&](int key) {
        load_vectors<D>(k_at, KEY_BLOCK, t.n_keys - key, [&](int x) { return t.k_row(key + x); });
    };
    const auto load_v = [&](int key) {
        load_vectors<D>(v_at, KEY_BLOCK, t.n_keys - key, [&](int x) { return t.v_row(key + x); });
    };
    load_vectors<D>(q_at, TILE_ROWS, t.n_rows, [&](int x) { return t.q_row(x); });
    load_k(0);

    float o[2][D / 8][4] = {}, m[2][2], l[2][2];  // [fragment][columns of 8][lane's values]; of the lane's rows [fragment][row / 8]
    for (int f = 0; f < 2; f++)
        for (int h = 0; h < 2; h++) m[f][h] = -INFINITY, l[f][h] = 0;

    for (int key = 0; key < t.n_keys; key += KEY_BLOCK) {
        wait_for_copies();  // k is there, and v is free
        load_v(key);
        // Does any of this warp's rows see any of these keys?
        const bool active = warp_row < t.n_rows && key <= hi[warp_row + WARP_ROWS - 1] &&
                            (key < t.n_prefix || key + KEY_BLOCK > lo[warp_row]);
        float s[2][KEY_BLOCK / 8][4] = {};
        if (active) {
#pragma unroll
            for (int d = 0; d < D; d += 16) {
                uint32_t q[2][4];
                for (int f = 0; f < 2; f++)
                    load_matrices(q[f], chunk_address<D>(q_at, warp_row + f * 16 + lane % 16, d / 8 + lane / 16));
#pragma unroll
                for (int j = 0; j < KEY_BLOCK; j += 16) {
                    uint32_t k[4];  // keys j.. x (d.., d + 8..), keys j + 8.. x (d.., d + 8..)
                    load_matrices(k, chunk_address<D>(k_at, j + lane / 16 * 8 + lane % 8, d / 8 + lane / 8 % 2));
                    for (int f = 0; f < 2; f++) {
                        multiply_add(s[f][j / 8], q[f], k[0], k[1]);
                        multiply_add(s[f][j / 8 + 1], q[f], k[2], k[3]);
                    }
                }
            }
        }
        wait_for_copies();  // v is there, and k is free
        if (key + KEY_BLOCK < t.n_keys) load_k(key + KEY_BLOCK);
        if (!active) continue;
        const bool masked = !t.all_visible(key, KEY_BLOCK);
#pragma unroll
        for (int f = 0; f < 2; f++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                if (masked) {
                    const int row = warp_row + f * 16 + h * 8 + lane / 4, first = lo[row], last = hi[row];
#pragma unroll
                    for (int j = 0; j < KEY_BLOCK / 8; j++)
                        for (int e = 0; e < 2; e++)
                            if (!t.visible(key + j * 8 + lane % 4 * 2 + e, first, last)) s[f][j][h * 2 + e] = -INFINITY;
                }
                float top = m[f][h];
#pragma unroll
                for (int j = 0; j < KEY_BLOCK / 8; j++) top = fmaxf(top, fmaxf(s[f][j][h * 2], s[f][j][h * 2 + 1]));
                top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
                top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
                const float shift = top == -INFINITY ? 0 : top * scale;  // -Inf: no key seen yet
                const float alpha = exp2_fast(m[f][h] * scale - shift);
                m[f][h] = top;
                l[f][h] *= alpha;
#pragma unroll
                for (int j = 0; j < KEY_BLOCK / 8; j++)
                    for (int e = 0; e < 2; e++) {
                        float& p = s[f][j][h * 2 + e];
                        p = exp2_fast(p * scale - shift);
                        l[f][h] += p;
                    }
#pragma unroll
                for (int d = 0; d < D / 8; d++) o[f][d][h * 2] *= alpha, o[f][d][h * 2 + 1] *= alpha;
            }
#pragma unroll
        for (int j = 0; j < KEY_BLOCK; j += 16) {
            uint32_t p[2][4];
            for (int f = 0; f < 2; f++)
                for (int i = 0; i < 4; i++) {  // (row, key) of p[i]: (g, 2c), (g + 8, 2c), (g, 2c + 8), (g + 8, 2c + 8)
                    const float* x = &s[f][j / 8 + i / 2][i % 2 * 2];
                    p[f][i] = bf16_pair(x[0], x[1]);
                }
#pragma unroll
            for (int d = 0; d < D; d += 16) {
                uint32_t v[4];  // d.. x keys (j.., j + 8..), d + 8.. x keys (j.., j + 8..)
                load_matrices_transposed(v, chunk_address<D>(v_at, j + lane % 16, d / 8 + lane / 16));
                for (int f = 0; f < 2; f++) {
                    multiply_add(o[f][d / 8], p[f], v[0], v[1]);
                    multiply_add(o[f][d / 8 + 1], p[f], v[2], v[3]);
                }
            }
        }
    }

    bool finite = true;
#pragma unroll
    for (int f = 0; f < 2; f++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float sum = l[f][h];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            const int row = warp_row + f * 16 + h * 8 + lane / 4;
            if (row >= t.n_rows) continue;
            const float inverse = 1 / sum;
            bf16* out = t.out_row(row) + lane % 4 * 2;
#pragma unroll
            for (int d = 0; d < D / 8; d++) {
                const float x = o[f][d][h * 2] * inverse, y = o[f][d][h * 2 + 1] * inverse;
                finite = finite && is_finite(x) && is_finite(y);
                *(uint32_t*)(out + d * 8) = bf16_pair(x, y);
            }
        }
    if (__syncthreads_and(finite)) return;
    for (int row0 = 0; row0 < t.n_rows; row0 += PLAIN_ROWS) attention_rows(t, row0, (float*)shared);
}

template <int D> void launch_tensor_core(int blocks, const AttentionArgs& args) {
    const int bytes = (TILE_ROWS + 2 * KEY_BLOCK) * D * (int)sizeof(bf16);
    static_assert((TILE_ROWS + 2 * KEY_BLOCK) * D * sizeof(bf16) >= (2 * D + PLAIN_KEYS) * PLAIN_ROWS * sizeof(float), "");
    cuda_check(cudaFuncSetAttribute(attention_tensor_core<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    attention_tensor_core<D><<<blocks, GPU_THREADS, bytes>>>(args);
    cuda_check(cudaGetLastError());
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
        fail("attention: the plan is for %d tokens and %d query heads a key head, not for %d and %d", plan.T, plan.group, T, H / KV);
    if ((size_t)plan.n_tiles * KV > INT32_MAX) fail("attention: %d tiles of %d key heads are too many. HINT: fewer tokens a chunk", plan.n_tiles, KV);
    const AttentionArgs args = {out, qkv, plan.tiles.data, plan.begin.data, plan.prefix.data, H, KV, D};
    const int blocks = plan.n_tiles * KV;
#ifndef __CUDACC__
    launch(attention_tile_cpu, dim3(blocks), 1, args);
#else
#ifndef PRECISION_FP32
    if (blocks > 0 && D == 64) return launch_tensor_core<64>(blocks, args);
    if (blocks > 0 && D == 128) return launch_tensor_core<128>(blocks, args);
#endif
    launch(attention_rows_gpu, dim3(blocks, TILE_ROWS / PLAIN_ROWS), GPU_THREADS, args);
#endif
}
