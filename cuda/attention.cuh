// attention.cuh: causal grouped-query attention over a token trie, by the machine's fastest kernel. attention_plan.cuh says what
// it is; attention_cpu.h has the CPU's kernels, the GPU's follow here.
//
// defines: attention; from attention_plan.cuh: Segment, AttentionPlan, attention_plan
#pragma once
#include "attention_plan.cuh"
#ifdef __CUDACC__
#include "ptx.cuh"
#else
#include "attention_cpu.h"
#endif

#ifdef __CUDACC__
// ---------------------------------------------------------------------------------------------------------------------
// GPU

constexpr int GPU_THREADS = 128, KEY_BLOCK = 64;

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
            const float base = top == -INFINITY ? 0 : top, shift = base * scale;  // -Inf: no key seen yet
            const float alpha = exp2_fast((m[r] - base) * scale);                 // 1 where m stays; a fused m scale - shift is not 0
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
// D is a multiple of 8, at most 256. With fewer than 16 p_bits, 2 to 8, the probabilities are rounded.
inline void attention(floatX* out /*[T, H, D]*/, const floatX* qkv /*[T, H + 2 KV, D]: query, key, value heads*/,
                      const AttentionPlan& plan, int T, int H, int KV, int D, int p_bits = 16) {
    if (KV < 1 || H < 1 || H % KV != 0) fail("attention: %d query heads and %d key heads, expected a multiple", H, KV);
    if (D < 8 || D > MAX_HEAD_DIM || D % 8 != 0)
        fail("attention: head_dim is %d, expected a multiple of 8 up to %d", D, MAX_HEAD_DIM);
    if (plan.T != T || plan.group != H / KV)
        fail("attention: the plan is for %d tokens and groups of %d heads, not for %d and %d", plan.T, plan.group, T, H / KV);
    if (plan.tiles.n * KV > INT32_MAX)
        fail("attention: %zu tiles of %d key heads are too many. HINT: fewer tokens a chunk", plan.tiles.n, KV);
    const int n_tiles = (int)plan.tiles.n, blocks = n_tiles * KV;
    const float levels = p_bits < 16 ? (float)((1 << p_bits) - 1) : 0;
    const AttentionArgs args = {out, qkv, plan.tiles.data, plan.begin.data, plan.prefix.data, n_tiles, H, KV, D, levels};
#ifndef __CUDACC__
    launch_cpu(blocks, args);
#else
#ifndef PRECISION_FP32
    if (blocks > 0 && D == 64 && levels == 0) return launch_tensor_core<64>(blocks, args);
    if (blocks > 0 && D == 128 && levels == 0) return launch_tensor_core<128>(blocks, args);
#endif
    launch(attention_rows_gpu, dim3(blocks, TILE_ROWS / PLAIN_ROWS), GPU_THREADS, args);
#endif
}
