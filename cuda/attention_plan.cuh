// attention_plan.cuh: which token sees which in causal grouped-query attention over a token trie, and the plain kernel.
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
// alpha = exp(old m - new m). Blocks that no row at hand sees are left out. Scores, softmax and sums are float; where
// p and v are multiplied as bf16, p is rounded to it.
//     CPU   attention_cpu           any D; with AMX's tiles where D is a multiple of 32
//     GPU   attention_tensor_core   bf16, D = 64 or 128
//     both  attention_rows          any D: the plain statement of the same. The GPU's kernel for float and for other D, and:
// A masked key's p is 0, but 0 * NaN is NaN: a NaN or Inf in v would reach rows that do not see it. So a tile whose result is
// not finite everywhere is computed again by attention_rows, which skips what is masked.
//
// With --p-bits the p are rounded to multiples of 1 / levels, levels = 2^bits - 1, before they multiply v, and what is lost is not
// made good: p = round(levels exp(score - m) / l) / levels. This needs m and l first, so the keys pass by once more. The integers that
// multiply v are exact in bf16; on a GPU attention_rows computes them.
//
// Symbols: T tokens, H query heads, KV key and value heads, D head_dim, group = H / KV.
// defines: Segment, AttentionPlan, attention_plan; for the kernels: AttentionArgs, AttentionTile, attention_tile, attention_rows
#pragma once
#include <vector>
#include "device.cuh"

// A run of tokens of a chunk: tokens [start, start + len), which continue the segment `parent`.
struct Segment {
    int start;   // first token, an index into the chunk
    int len;     // tokens, at least 1
    int parent;  // index of an earlier segment of the same chunk, -1: none
    int pos;     // position of the first token in its text (for rotary embedding; attention does not use it)
};

#ifdef __CUDACC__
constexpr int TILE_ROWS = 128;  // see attention_tensor_core
#else
constexpr int TILE_ROWS = 256;  // keys are copied once a tile: more rows, fewer copies
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
    float levels;  // p become multiples of 1 / levels; 0: they stay as they are
};

// Keys and rows are numbered as above. A row from n_rows on repeats the last one, and is not stored.
struct AttentionTile {
    const floatX *q, *k, *v;  // token 0's vector of the first query head, of the key head, of the value head
    floatX* out;              // token 0's output of the first query head
    size_t qkv_stride, out_stride;
    const int *begin, *prefix;
    int D, group, query, n_rows, n_prefix, own, n_keys;  // query: the first query token; own: the token of key n_prefix
    float levels;

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
            tile.n_prefix + tile.query + tile.n - own, a.levels};
}

// ---------------------------------------------------------------------------------------------------------------------
// The plain kernel: a block computes 8 rows of a tile. It passes over the keys twice, first for each row's largest score; where
// p are rounded three times, since their sum must be known.

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
    EightRows unit = {};  // exp(score - top) / unit is rounded
    if (t.levels > 0) {
        for (int key = threadIdx.x; key < n_keys; key += blockDim.x) {
            plain_scores(score, q, t.k_row(key), t.D);
            for (int r = 0; r < PLAIN_ROWS; r++) sum[r] += t.visible(key, lo[r], hi[r]) ? exp_float(score[r] - top[r]) : 0;
        }
        for (int r = 0; r < PLAIN_ROWS; r++) unit[r] = block_sum(sum[r]) / t.levels;
    }
    for (int key0 = 0; key0 < n_keys; key0 += PLAIN_KEYS) {
        const int n = n_keys - key0 < PLAIN_KEYS ? n_keys - key0 : PLAIN_KEYS;
        for (int j = threadIdx.x; j < n; j += blockDim.x) {
            plain_scores(score, q, t.k_row(key0 + j), t.D);
            for (int r = 0; r < PLAIN_ROWS; r++) {
                const bool visible = t.visible(key0 + j, lo[r], hi[r]);
                p[j][r] = visible ? exp_float(score[r] - top[r]) : -1;  // -1: masked
                if (t.levels > 0 && visible) p[j][r] = rintf(p[j][r] / unit[r]);
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
    for (int r = 0; r < PLAIN_ROWS; r++) sum[r] = t.levels > 0 ? t.levels : block_sum(sum[r]);
    for (int r = 0; r < PLAIN_ROWS && row0 + r < t.n_rows; r++)
        for (int d = threadIdx.x; d < t.D; d += blockDim.x) t.out_row(row0 + r)[d] = to_floatX(o[d][r] / sum[r]);
}
