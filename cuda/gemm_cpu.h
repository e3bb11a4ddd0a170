// gemm_cpu.h: the CPU's matrix products: one routine for any word, packing, micro-kernels.
//
// The method: Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008. Each product
// is C[i,j] = sum over k of A(i,k) B(j,k), with A and B read through strides, so that one routine serves A B^T, A B and
// X^T X. Both are first copied ("packed") into the order in which the innermost loop reads them:
//     A in panels of MR rows: panel[k][r], with room for whole vectors       B in panels of NR rows: panel[k][c]
// in words. A word is a float, a double, or two bf16 (k and k + 1) that the bf16 dot product of AVX-512 takes at once.
// Products of floatX take the words that are fastest here: bf16_product() in amx.h.
// The micro-kernel keeps MR x NR sums in registers (on AVX-512, 14 x 2 vectors of the 32 there are). For every k it
// does MR x 2 fused multiply-adds on MR + 2 loads, so that the multipliers are the bound and not the memory. What stays
// where, with words of 4 bytes:
//     L1   KC = 192 k's of a panel of B (24 KB), while the panels of A (12 KB each) pass by
//     L2   KC k's of the MC = 336 rows of A in a tile (288 KB), while the panels of B pass by; and the tile's MC x NC
//          sums (336 KB), to which every KC k's add
//     L3   what is packed at a time of A (a tile's rows and all k) and of B (8 MB, but 1024 rows at least)
// For AMX (amx.h) a panel of A is panel[k / 16][r][k % 16] in words, MR = NR = 32, and the micro-kernel is 2 x 2 tiles of sums: for
// 16 words of k, 4 loads of a tile and 4 products. A product takes 16 cycles and a load 8, from L1. What is read and written
// once every KC k's, the sums, costs more beside such products: KC is 256 words and MC 512 rows, the sums of a tile 512 KB.
// Threads share the MC x NC tiles of C. A sum is made by one thread, KC by KC; its order depends on K alone.
// Besides the multipliers, what bounds it is waiting for memory. So the next panel of B, and C before it is stored, are asked
// for ahead, into L2; and so little of A is packed at a time that it is still in a cache when it is used. On two cores
// of a Zen 5, at the shapes of Qwen3-0.6B and M = 2048 and 4096, this was 89..94 % (float) and 78..92 % (bf16) of multiply-adds on
// registers alone, and in float 2 % or more above OpenBLAS 0.3.21 (make bench, two runs).
//
// What pads the panels never meets a stored result: a tile at C's lower edge runs a kernel of fewer rows, the columns
// beyond the right edge are dropped, and where an odd K is filled up to a pair it is 0 on both sides. So NaN and Inf
// reach what they should and nothing else. Products for AMX are always of 32 rows: what pads them is in sums that nobody stores. The
// bf16 dot products take denormals for zeros, and make none.
//
// defines: Vector, LANES, load_vector, store_vector, load_words, load_pairs, interleave, transpose, multiply_add, Bf16Pair, Tiled, Words,
//          VECTOR_ROWS, Strided, KRange, AllK, blocked_product, floatx_product, convert_row
#pragma once
#include "amx.h"
#include "device.cuh"
#ifdef __AVX512F__
#include <immintrin.h>
#endif

// ---------------------------------------------------------------------------------------------------------------------
// CPU: vectors, words and the micro-kernel

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64, VECTOR_ROWS = 14;  // 32 registers: 14 x 2 sums, 2 of B, 1 of A
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32, VECTOR_ROWS = 6;  // 16 registers: 6 x 2 sums, 2 of B, 1 of A
#else
constexpr int VECTOR_BYTES = 16, VECTOR_ROWS = 6;
#endif
constexpr int NC_PANELS = 8;               // NC = 8 NR at most
constexpr size_t A_BLOCK_BYTES = 1 << 20;  // of A that are packed at a time, but at least two tiles for each thread
constexpr size_t B_BLOCK_BYTES = 8 << 20;  // of B, but at least
constexpr int B_BLOCK_ROWS = 1024;         // this many rows

template <class T> struct VectorOf { typedef T type __attribute__((vector_size(VECTOR_BYTES))); };
template <class T> using Vector = typename VectorOf<T>::type;

typedef uint32_t Bf16Pair;  // k in the low half, k + 1 in the high half
struct Tiled {
    Bf16Pair pair;  // packed for AMX's tiles
};

// How many k's a word holds, what the products of words are summed in, how many words along K a step of the micro-kernel takes.
template <class Word> struct Words {
    static constexpr int K = 1, STEP = 1;
    typedef Word Sum;
};
template <> struct Words<Bf16Pair> {
    static constexpr int K = 2, STEP = 1;
    typedef float Sum;
};
template <> struct Words<Tiled> {
    static constexpr int K = 2, STEP = TILE;
    typedef float Sum;
};
template <class Word> using SumOf = typename Words<Word>::Sum;
template <class Word> constexpr bool TILED = Words<Word>::STEP > 1;
template <class Word> constexpr int LANES = VECTOR_BYTES / sizeof(Word);
template <class Word> constexpr int MR = TILED<Word> ? 2 * TILE : VECTOR_ROWS;
template <class Word> constexpr int NR = TILED<Word> ? 2 * TILE : 2 * LANES<Word>;
template <class Word> constexpr int A_WIDTH = TILED<Word> ? MR<Word> : LANES<Word>* ceil_div(MR<Word>, LANES<Word>);
template <class Word> constexpr int KC = TILED<Word> ? 256 : 768 / sizeof(Word);
template <class Word> constexpr int MC_PANELS = TILED<Word> ? 16 : 24;  // MC = 16 or 24 MR at most

template <class T> Vector<T> load_vector(const T* p) {
    Vector<T> v;
    memcpy(&v, p, sizeof v);
    return v;
}
template <class T> void store_vector(T* p, Vector<T> v) { memcpy(p, &v, sizeof v); }

template <class T> Vector<T> multiply_add(Vector<T> sum, T a, Vector<T> b) { return sum + a * b; }

#if defined(__AVX512BF16__) && !defined(PRECISION_FP32)
#define BF16_PAIRS  // Bf16Product::Pairs is there
inline Vector<float> multiply_add(Vector<float> sum, Bf16Pair a, Vector<Bf16Pair> b) {
    return (Vector<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)a), (__m512bh)b);
}
#endif

// sums[ROWS,NR] = or += the products of a panel of A and a panel of B over n_words of k.
template <int ROWS, class Word>
void micro_kernel(SumOf<Word>* sums, const Word* a /*[n_words,A_WIDTH]*/, const Word* b /*[n_words,NR]*/, int n_words, bool add) {
    Vector<SumOf<Word>> sum[ROWS][2] = {};
    for (int k = 0; k < n_words; k++, a += A_WIDTH<Word>, b += NR<Word>) {
        const Vector<Word> b0 = load_vector(b), b1 = load_vector(b + LANES<Word>);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            sum[r][0] = multiply_add(sum[r][0], a[r], b0);
            sum[r][1] = multiply_add(sum[r][1], a[r], b1);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < 2; v++, sums += LANES<Word>) store_vector(sums, add ? load_vector(sums) + sum[r][v] : sum[r][v]);
}

// The kernel of `rows` rows, 1 <= rows <= ROWS; of tiles, always 32: what is beyond isn't stored.
template <int ROWS, class Word>
void run_micro_kernel(int rows, SumOf<Word>* sums, const Word* a, const Word* b, int n_words, bool add) {
    if constexpr (TILED<Word>) {
        const size_t row = TILE * sizeof(Word), step = 2 * TILE * row;  // of A [words / TILE, 2, TILE, TILE] and B [words, 2, TILE]
        const size_t down = TILE * 2 * row;
        tile_product({sums, 2 * row, down, row}, {a, row, TILE * row, step}, {b, 2 * row, row, step}, n_words / TILE, add);
    } else {
        if constexpr (ROWS > 1)
            if (rows < ROWS) return run_micro_kernel<ROWS - 1>(rows, sums, a, b, n_words, add);
        micro_kernel<ROWS>(sums, a, b, n_words, add);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// CPU: packing

// A matrix of rows and k's, read as data[row * stride + k * k_stride]. One of the strides is 1.
template <class T> struct Strided {
    const T* data;
    size_t stride, k_stride;

    Strided at(int row, int k) const { return {data + row * stride + k * k_stride, stride, k_stride}; }
};

inline void convert(float& word, float x) { word = x; }
inline void convert(float& word, bf16 x) { word = to_float(x); }
inline void convert(double& word, double x) { word = x; }

// The n values at src, or, if they are fewer than `all`, a copy of them with zeros behind.
template <int all, class T> const T* padded(T (&copy)[all], const T* src, int n) {
    if (n >= all) return src;
    for (int i = 0; i < all; i++) copy[i] = i < n ? src[i] : T{};
    return copy;
}

// A vector of words from n values in a row, zeros beyond.
template <class Word, class T> Vector<Word> load_words(const T* src, int n) {
    constexpr int all = LANES<Word> * Words<Word>::K;
    T copy[all];
    src = padded(copy, src, n);
    if constexpr (sizeof(T) * all == VECTOR_BYTES) {
        return load_vector((const Word*)src);
    } else {
        Word words[all];
        for (int i = 0; i < all; i++) convert(words[i], src[i]);
        return load_vector(words);
    }
}

// A vector of pairs: n low halves from src, n high halves from next (zeros if that is null), zeros beyond.
template <class T> Vector<Bf16Pair> load_pairs(const T* src, const T* next, int n) {
    constexpr int all = LANES<Bf16Pair>;
    T low[all], high[all];
    src = padded(low, src, n), next = padded(high, next, next ? n : 0);
    Bf16Pair words[all];
    for (int i = 0; i < all; i++) words[i] = src[i].bits | (Bf16Pair)next[i].bits << 16;
    return load_vector(words);
}

// Of the lanes of a and then b: X, Y, X + 1, Y + 1, ...
template <int X, int Y, class V, size_t... I> V interleave(V a, V b, std::index_sequence<I...>) {
#ifdef __clang__
    return __builtin_shufflevector(a, b, (int)(I / 2 + (I % 2 ? Y : X))...);
#else
    typedef decltype(a < b) Lanes;  // integers of the same width
    return __builtin_shuffle(a, b, Lanes{(int)(I / 2 + (I % 2 ? Y : X))...});
#endif
}

// In place, LANES x LANES. To interleave the upper half of the rows with the lower half, log2(LANES) times, transposes.
template <class Word> void transpose(Vector<Word>* rows) {
    constexpr int n = LANES<Word>;
    const auto all = std::make_index_sequence<n>();
    for (int done = 1; done < n; done *= 2) {
        Vector<Word> next[n];
#pragma GCC unroll 16
        for (int i = 0; i < n / 2; i++) {
            next[2 * i] = interleave<0, n>(rows[i], rows[i + n / 2], all);
            next[2 * i + 1] = interleave<n / 2, n + n / 2>(rows[i], rows[i + n / 2], all);
        }
#pragma GCC unroll 16
        for (int i = 0; i < n; i++) rows[i] = next[i];
    }
}

// panel[n_words, WIDTH] = X's first `rows` rows (at most WIDTH of them) at its first n_k k's, zeros beyond. Where X's rows
// are neighbours in memory, word by word; where its k's are, a square of words at a time.
template <int WIDTH, class Word, class T> void pack_panel(Word* panel, Strided<T> X, int rows, int n_k, int n_words) {
    constexpr int lanes = LANES<Word>, per_word = Words<Word>::K;
    if (X.k_stride != 1) {
        for (int w = 0; w < n_words; w++)
            for (int lane = 0; lane < WIDTH; lane += lanes, panel += lanes) {
                const int n = w * per_word < n_k ? std::max(0, rows - lane) : 0;
                const T* src = n ? X.at(lane, w * per_word).data : X.data;
                if constexpr (per_word == 2) store_vector(panel, load_pairs(src, 2 * w + 1 < n_k ? src + X.k_stride : nullptr, n));
                else store_vector(panel, load_words<Word>(src, n));
            }
        return;
    }
    for (int lane = 0; lane < WIDTH; lane += lanes)
        for (int w = 0; w < n_words; w += lanes) {
            const int n_rows = std::min(lanes, rows - lane), n = std::min(lanes * per_word, n_k - w * per_word);
            const Strided<T> from = X.at(lane, w * per_word);
            Vector<Word> block[lanes] = {};
            if (n_rows == lanes && n == lanes * per_word) {  // nearly always: constant bounds keep it in registers
#pragma GCC unroll 16
                for (int r = 0; r < lanes; r++) block[r] = load_words<Word>(from.at(r, 0).data, lanes * per_word);
            } else {
                for (int r = 0; r < n_rows; r++) block[r] = load_words<Word>(from.at(r, 0).data, n);
            }
            transpose<Word>(block);
            for (int i = 0; i < std::min(lanes, n_words - w); i++) store_vector(panel + (w + i) * WIDTH + lane, block[i]);
        }
}

// The panel of A for tiles: [n_words / TILE, 2 TILE rows, TILE words], zeros beyond `rows` rows and n_k k's.
template <class T> void pack_tiles(Bf16Pair* panel, Strided<T> X, int rows, int n_k, int n_words) {
    constexpr int lanes = LANES<Bf16Pair>;
    for (int w = 0; w < n_words; w += lanes)
        for (int row = 0; row < 2 * TILE; row += lanes) {
            const int n_rows = std::min(lanes, rows - row), n = n_k - 2 * w;
            Vector<Bf16Pair> block[lanes] = {};
            if (X.k_stride == 1) {
                for (int r = 0; r < n_rows; r++) block[r] = load_words<Bf16Pair>(X.at(row + r, 2 * w).data, std::max(0, n));
            } else if (n_rows > 0) {
                for (int i = 0; i < lanes && 2 * i < n; i++) {
                    const T* src = X.at(row, 2 * (w + i)).data;
                    block[i] = load_pairs(src, 2 * i + 1 < n ? src + X.k_stride : nullptr, n_rows);
                }
                transpose<Bf16Pair>(block);
            }
            Bf16Pair* to = panel + (w / TILE * 2 * TILE + row) * TILE + w % TILE;
            for (int r = 0; r < lanes; r++) store_vector(to + r * TILE, block[r]);
        }
}

// Panels of WIDTH words a k. For each KC words of k in turn, all panels follow each other: what shares a cache is
// together in memory.
template <class Word, int WIDTH> struct Panels {
    Word* data;
    int panels, n_words;

    int words(int word) const { return std::min(KC<Word>, n_words - word); }  // of those KC that begin with this one
    Word* at(int panel, int word) const {
        const int k0 = word / KC<Word> * KC<Word>;
        return data + ((size_t)k0 * panels + (size_t)panel * words(k0) + (word - k0)) * WIDTH;
    }
};

// Packs n rows of X, as A or as B. A panel's WIDTH may exceed its ROWS; what is there is not used.
template <bool AS_A, int ROWS, class Word, int WIDTH, class T>
void pack(Panels<Word, WIDTH> packed, Strided<T> X, int n, int K, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int p = 0; p < packed.panels; p++)
        for (int word = 0; word < packed.n_words; word += KC<Word>) {
            const int row = p * ROWS, k = word * Words<Word>::K, rows = std::min(WIDTH, n - row), n_words = packed.words(word);
            Word* panel = packed.at(p, word);
            if constexpr (!TILED<Word>) pack_panel<WIDTH>(panel, X.at(row, k), rows, K - k, n_words);
            else if constexpr (AS_A) pack_tiles(&panel->pair, X.at(row, k), rows, K - k, n_words);
            else pack_panel<WIDTH>(&panel->pair, X.at(row, k), rows, K - k, n_words);
        }
}

// ---------------------------------------------------------------------------------------------------------------------
// CPU: the loops around

// The k's that some elements of C need; an empty range leaves them alone.
struct KRange {
    int begin, end;
};

struct ProductBuffers {
    Array<unsigned char> a, b, sums;
};
inline ProductBuffers& product_buffers() {
    static thread_local ProductBuffers buffers;
    return buffers;
}

// At least `bytes` of a buffer that is kept from call to call: fresh memory is slow to touch.
inline void* grown(Array<unsigned char>& buffer, size_t bytes) {
    if (buffer.n < bytes) {
        buffer.clear();
        buffer = Array<unsigned char>(bytes, "packed matrices", Place::Host);
    }
    return buffer.data;
}

// How many of n rows to pack at a time: at least `least`, else as many as `bytes` hold, in whole steps.
inline int block_rows(int n, size_t row_bytes, int step, size_t bytes, int least) {
    const size_t rows = std::max(bytes / row_bytes, (size_t)least);
    return rows < (size_t)n ? std::min(n, ceil_div((int)rows, step) * step) : n;
}

// Asks for memory to be brought into L2. In n parts, one at each run(), since all at once would be more than can be under way.
struct Prefetch {
    const char *next, *end;
    size_t part;

    Prefetch(const void* data, size_t bytes, int n)
        : next((const char*)data), end(next + bytes), part(ceil_div(bytes, (size_t)n)) {}
    void run() {
        const char* stop = std::min(next + part, end);
        for (; next < stop; next += 64) __builtin_prefetch(next, 0, 2);
    }
};

// For all i < M, j < N: the sum over k < K of A(i,k) B(j,k), for C [M,N], whose rows are ldc apart. Hands the sums out in pieces
// of rows, each once, from any thread: store(c, i, j, n, sums), where c points at C[i,j], for C[i, j..j+n).
// k_range(i0, i1, j0, j1) says which k's those rows and columns need; at all others, all products must be 0.
template <class Word, class Out, class T, class Range, class Store>
void blocked_product(Out* C, size_t ldc, int M, int N, int K, Strided<T> A, Strided<T> B, Range k_range, Store store) {
    typedef SumOf<Word> Sum;
    constexpr int per_step = Words<Word>::K * Words<Word>::STEP, mr = MR<Word>, nr = NR<Word>, a_width = A_WIDTH<Word>;
    const int threads = (double)M * N * K < 1e6 ? 1 : omp_get_max_threads();
    // Tiles of equal height, of which each thread gets as many (unless that halves them): nobody waits for the last. Less wide where
    // there would be too few for the threads.
    const int down = ceil_div(M, MC_PANELS<Word> * mr), even = ceil_div(down, threads) * threads;
    const int mc = ceil_div(ceil_div(M, even < 2 * down ? even : down), mr) * mr;
    int nc = NC_PANELS * nr;
    while (nc > 2 * nr && (size_t)ceil_div(M, mc) * ceil_div(N, nc) < 4 * (size_t)threads) nc /= 2;

    const int n_words = ceil_div(K, per_step) * Words<Word>::STEP;
    const size_t row_bytes = n_words * sizeof(Word), tile_sums = (size_t)mc * nc;
    const int n_block = block_rows(N, row_bytes, nc, B_BLOCK_BYTES, B_BLOCK_ROWS);
    const int m_block = block_rows(M, row_bytes, mc, A_BLOCK_BYTES, ceil_div(2 * threads, ceil_div(n_block, nc)) * mc);
    ProductBuffers& buffers = product_buffers();
    Word* a_data = (Word*)grown(buffers.a, ceil_div(m_block, mr) * a_width * row_bytes);
    Word* b_data = (Word*)grown(buffers.b, ceil_div(n_block, nr) * nr * row_bytes);
    Sum* all_sums = (Sum*)grown(buffers.sums, threads * tile_sums * sizeof(Sum));

    // One tile of C, rows i0.. and columns j0.. of what is packed, whose first row and column in C are m0 and n0.
    typedef Panels<Word, a_width> APanels;
    typedef Panels<Word, nr> BPanels;
    const auto make_tile = [=](APanels a, int m0, int m, int i0, BPanels b, int n0, int n, int j0) {
        const int i1 = std::min(i0 + mc, m), j1 = std::min(j0 + nc, n);
        if constexpr (TILED<Word>) tiles_begin();
        for (int k0 = 0; k0 < n_words; k0 += KC<Word>) {
            Sum* sums = all_sums + omp_get_thread_num() * tile_sums;
            for (int j = j0; j < j1; j += nr) {
                const bool last = j + nr >= j1;
                const int next_j = last ? j0 : j + nr, next_k = last ? k0 + KC<Word> : k0;
                const size_t next_bytes = next_k < n_words ? b.words(next_k) * nr * sizeof(Word) : 0;
                Prefetch next_b(next_bytes ? b.at(next_j / nr, next_k) : nullptr, next_bytes, ceil_div(i1 - i0, mr));
                for (int i = i0; i < i1; i += mr, sums += mr * nr) {
                    const int rows = std::min(mr, i1 - i), columns = std::min(nr, j1 - j);
                    const KRange k = k_range(m0 + i, m0 + i + rows, n0 + j, n0 + j + columns);
                    const int begin = k.begin / per_step * Words<Word>::STEP, end = ceil_div(k.end, per_step) * Words<Word>::STEP;
                    const int from = std::max(begin, k0), to = std::min(end, k0 + KC<Word>);
                    if (from >= to) continue;
                    Out* c = C + (m0 + i) * ldc + n0 + j;
                    next_b.run();
                    if (to == end)
                        for (int r = 0; r < rows; r++) Prefetch(c + r * ldc, columns * sizeof(Out), 1).run();
                    run_micro_kernel<mr>(rows, sums, a.at(i / mr, from), b.at(j / nr, from), to - from, from > begin);
                    if (to < end) continue;
                    for (int r = 0; r < rows; r++) store(c + r * ldc, m0 + i + r, n0 + j, columns, sums + r * nr);
                }
            }
        }
        if constexpr (TILED<Word>) tiles_end();
    };

    for (int n0 = 0; n0 < N; n0 += n_block) {
        const int n = std::min(n_block, N - n0), across = ceil_div(n, nc);
        const BPanels b = {b_data, ceil_div(n, nr), n_words};
        pack<false, nr>(b, B.at(n0, 0), n, K, threads);
        for (int m0 = 0; m0 < M; m0 += m_block) {
            const int m = std::min(m_block, M - m0), tiles = ceil_div(m, mc) * across;
            const APanels a = {a_data, ceil_div(m, mr), n_words};
            pack<true, mr>(a, A.at(m0, 0), m, K, threads);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
            for (int t = 0; t < tiles; t++) make_tile(a, m0, m, t / across * mc, b, n0, n, t % across * nc);
        }
    }
}

// For products that need every k.
struct AllK {
    int K;
    KRange operator()(int, int, int, int) const { return {0, K}; }
};

// blocked_product of floatX, in the words that this machine is fastest with.
template <class Out, class Range, class Store>
void floatx_product(Out* C, size_t ldc, int M, int N, int K, Strided<floatX> A, Strided<floatX> B, Range k_range, Store store) {
#ifndef PRECISION_FP32
    if (tiles_used()) return blocked_product<Tiled>(C, ldc, M, N, K, A, B, k_range, store);
#endif
#ifdef BF16_PAIRS
    if (bf16_product() == Bf16Product::Pairs) return blocked_product<Bf16Pair>(C, ldc, M, N, K, A, B, k_range, store);
#endif
    blocked_product<float>(C, ldc, M, N, K, A, B, k_range, store);
}

// A row of sums as C stores it.
inline void convert_row(float* c, const float* sums, int n) {
    for (int x = 0; x < n; x++) c[x] = sums[x];
}
inline void convert_row(bf16* c, const float* sums, int n) {
    int x = 0;
#ifdef __AVX512BF16__
    for (; x + 32 <= n; x += 32)  // a denormal sum becomes 0
        store_vector((uint16_t*)c + x,
                     (Vector<uint16_t>)_mm512_cvtne2ps_pbh((__m512)load_vector(sums + x + 16), (__m512)load_vector(sums + x)));
#endif
    for (; x < n; x++) c[x] = to_bf16(sums[x]);
}
