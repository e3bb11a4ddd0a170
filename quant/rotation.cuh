// rotation.cuh: rotations of the model that leave its function as it is and its activations without outliers.
//
// One channel that is far larger than the rest takes a token's few levels for itself. An orthogonal matrix spreads it over all channels.
// Four of them can be put into the model (row vectors x, y = x W^T, W [O, I], R orthogonal):
//     R1 [C, C]  the residual stream is h R1 everywhere. RMSNorm without its gain commutes with R1; so the gain goes into the weights
//                behind the norm first, and what writes to the stream (o, down, embeddings) is multiplied by R1 on its output side
//     R2 [D, D]  of each kv head: the values v, and what attention makes of them, are multiplied by it, and o undoes it
//     R3 [D, D]  online: q and k after the rotary embedding. q k^T stays, and k is what is quantized
//     R4 [F, F]  online: the input of down, which undoes it in its weights; of experts one of their width
//     and, of QuaRot, a matrix over the H heads before o, online, which o undoes too
//   weight                      becomes
//   q, k, gate, up [., C]       W diag(gain) R1, gain of the norm before; so a mixture's router, which reads that norm too
//   v, rows of kv head k        R2_k^T (W diag(gain) R1),   its bias b R2_k
//   o [C, H D]                  R1^T W, the columns of head h times R2_(h's kv head), then the matrix over heads on the columns
//   down [C, F]                 R1^T W R4
//   both norms' gains           1;     q_norm, k_norm and the biases of q and k stay: they act behind the projection
// Two things stay as they are: the embeddings and the head. The tokens' rows are multiplied by R1 when they are looked up, and the final
// norm's input by R1^T; so no head is untied from its embeddings, and none is rounded again. (Only --save needs the products: E R1, and
// of the head W diag(gain) R1, with a final gain of 1.)
//
// R1 is diag(s) A^T / sqrt(C) with a Hadamard matrix A (the H of cuda/hadamard.cuh) and random signs s, or a matrix that was learned. R2 is
// the same with signs of its own for each layer and kv head, or learned; beside the heads' matrix it has none, as in QuaRot. R3, R4 and the
// heads' are A^T / sqrt(n), n the width. Signs are those of Python's random.Random: getrandbits(1) of seed for R1, of
// seed + 2^32 (layer + 1) for R2; 1 is +.
//
// A layer is rotated in float, with one rounding at the end, a piece of it at a time.
// Defaults: --rotate is R1 to R4, --rotate-offline R1 and R2, all drawn with --seed. Cost: a transform of n log n operations for each row or
// column of the weights once, and online for q's and k's heads and down's input of each token.
//
// bf16 rounds the residual stream's sums. Spread over all channels, what was large in a few is rounded everywhere; so a stream that is
// rotated by R1 keeps the rest of each sum (but for a mixture's), as a second bf16 number, and adds it to the next (RESULTS.md has what
// that is worth). R3 rounds q and k once more and serves the grid of the keys alone: where these keep their 16 bits, it is left out unless
// it is asked for.
//
// Sources: QuaRot (Ashkboos et al. 2024), SpinQuant (Liu et al. 2024), whose names R1 to R4 are, DartQuant (R2 per kv head).
// symbols: C hidden_size, H heads, KV kv-heads, D head_dim, F intermediate_size, of dense layers or of experts
// defines: RotationShape, Rotation, random_signs, rotation_make, rotation_set_r1, rotation_draw_r2, rotate_rows, rotate_stream_rows,
//          rotate_layer, rotate_layer_bytes, rotate_queries_and_keys, rotate_down_input, rotate_o_input, transpose, fill_kernel, kv_head
#pragma once
#include <numeric>
#include "../cuda/hadamard.cuh"
#include "../data/random.h"
#include "quant.cuh"

struct RotationShape {
    int C, F, H, KV, D;
    int expert_F = 0;  // F and this: 0 where no layer has it
};

struct RotationParts {  // which of them are there
    bool r1 = true, r2 = true, r3 = true, r4 = true, over_heads = false;
};

struct Rotation {
    RotationShape shape;
    RotationParts has;
    bool rest = false;  // the residual stream keeps what bf16 rounds off
    uint64_t seed = 0;
    Hadamard hidden, ffn, expert_ffn, head, heads;  // of R1 and R4, perhaps in blocks; of R3 and of a drawn R2; over the heads
    Array<float> signs;                 // [C] of R1
    Array<float> R1, R1_transposed;     // [C, C] in place of the Hadamard matrix, or empty
    std::vector<float> all_R2;          // [L, KV, D, D] in place of drawn ones, or empty
    Array<float> R2, R2_transposed;     // [KV, D, D] of the layer at hand
};

// ---------------------------------------------------------------------------------------------------------------------
// Kernels and small helpers

// out [n, rows] = the transpose of in [rows, n]; rows of out and of in lie out_ld and ld apart. In tiles, so that both sides go along
// rows.
template <class T> KERNEL transpose_kernel(T* out, size_t out_ld, const T* in, size_t ld, int rows, int n) {
    constexpr int tile = 32;
    SHARED T values[tile][tile + 1];
    const int r0 = blockIdx.x * tile, c0 = blockIdx.y * tile;
    const int n_rows = rows - r0 < tile ? rows - r0 : tile, n_columns = n - c0 < tile ? n - c0 : tile;
    const int across = blockDim.x < tile ? 1 : tile, down = blockDim.x / across;  // a block has 1 thread or whole rows of them
    for (int r = threadIdx.x / across; r < n_rows; r += down)
        for (int c = threadIdx.x % across; c < n_columns; c += across) values[r][c] = in[(size_t)(r0 + r) * ld + c0 + c];
    block_sync();
    for (int c = threadIdx.x / across; c < n_columns; c += down)
        for (int r = threadIdx.x % across; r < n_rows; r += across) out[(size_t)(c0 + c) * out_ld + r0 + r] = values[r][c];
}

// out[j, i] = in[i, j] for i < rows, j < n; rows of out and in are out_ld and ld apart.
inline void transpose(float* out, size_t out_ld, const float* in, size_t ld, int rows, int n) {
    launch(transpose_kernel<float>, dim3(ceil_div(rows, 32), ceil_div(n, 32)), 256, out, out_ld, in, ld, rows, n);
}

// out = W diag(gain), of rows; gain may be null.
KERNEL gain_to_float_kernel(float* out /*[n, I]*/, const floatX* W /*[n, I]*/, const floatX* gain /*[I] or null*/, int I) {
    const size_t row = (size_t)blockIdx.x * I;
    for (int i = threadIdx.x; i < I; i += blockDim.x) out[row + i] = to_float(W[row + i]) * (gain ? to_float(gain[i]) : 1);
}

// in += rest, and rest = in - x.
KERNEL add_rest_kernel(float* in /*[n, I]*/, const floatX* rest /*[n, I]*/, int I) {
    const size_t row = (size_t)blockIdx.x * I;
    for (int i = threadIdx.x; i < I; i += blockDim.x) in[row + i] += to_float(rest[row + i]);
}
KERNEL take_rest_kernel(floatX* rest /*[n, I]*/, const float* in /*[n, I]*/, const floatX* x /*[n, I]*/, int I) {
    const size_t row = (size_t)blockIdx.x * I;
    for (int i = threadIdx.x; i < I; i += blockDim.x) rest[row + i] = to_floatX(in[row + i] - to_float(x[row + i]));
}

KERNEL fill_kernel(floatX* out /*[n]*/, float value, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = to_floatX(value);
}

static constexpr int ROTATION_ROWS = 1024;  // of a matrix that are rotated at a time

inline Array<float> random_signs(size_t n, uint64_t seed) {
    PythonRandom random(seed);
    std::vector<float> signs(n);
    for (float& s : signs) s = random.getrandbits(1) ? 1.0f : -1.0f;
    Array<float> device(n, "signs");
    copy(device.data, signs.data(), n);
    return device;
}

// The transposes of n matrices [D, D] that follow each other.
inline Array<float> transposed_matrices(const Array<float>& R, int D) {
    Array<float> out(R.n, "a rotation's transpose");
    for (size_t at = 0; at < R.n; at += (size_t)D * D) transpose(out.data + at, D, R.data + at, D, D, D);
    return out;
}

// ---------------------------------------------------------------------------------------------------------------------
// Making a rotation

// R1 as a Hadamard matrix, unless it is given (rotation_set_r1), and the online ones: those of the parts alone, as not every width has one.
// block > 0: what is made of R1 and R4 is block-diagonal, of blocks of so many values.
inline Rotation rotation_make(const RotationShape& shape, uint64_t seed, int block = 0, const RotationParts& parts = RotationParts(),
                              bool r1_is_given = false) {
    auto width = [&](int n, const char* what) {
        if (block && n % block != 0) usage_fail("--rotate-block %d: expected a divisor of the model's %s = %d", block, what, n);
        return block ? block : n;
    };
    Rotation r;
    r.shape = shape, r.has = parts, r.seed = seed;
    const bool makes_r1 = r.has.r1 && !r1_is_given;
    int divided = makes_r1 ? shape.C : 0;  // what a block divides: all of the widths
    if (r.has.r4) divided = std::gcd(divided, std::gcd(shape.F, shape.expert_F));
    const std::string smaller = format("--rotate-block %d", hadamard_block(divided));
    if (makes_r1) r.hidden = hadamard_make(width(shape.C, "hidden_size"), "hidden_size", 1, smaller), r.signs = random_signs(shape.C, seed);
    if (r.has.r4 && shape.F) r.ffn = hadamard_make(width(shape.F, "intermediate_size"), "intermediate_size", 1, smaller);
    if (r.has.r4 && shape.expert_F)
        r.expert_ffn = hadamard_make(width(shape.expert_F, "moe_intermediate_size"), "moe_intermediate_size", 1, smaller);
    if (r.has.r2 || r.has.r3) r.head = hadamard_make(shape.D, "head_dim", 1, "--rotate-only without r2 and r3");
    if (r.has.over_heads) r.heads = hadamard_make(shape.H * shape.D, "num_attention_heads * head_dim", shape.D, "--rotate-only without heads");
    return r;
}

// R1 becomes the given matrix.
inline void rotation_set_r1(Rotation& r, Array<float>&& R1 /*[C, C]*/) {
    r.R1 = std::move(R1);
    r.R1_transposed = transposed_matrices(r.R1, r.shape.C);
}

// R2 of a layer becomes the given one, or diag(signs) A^T / sqrt(D), with signs of their own for each kv head (beside the heads' matrix: +).
inline void rotation_draw_r2(Rotation& r, int layer) {
    const int D = r.shape.D, KV = r.shape.KV;
    const size_t n = (size_t)KV * D * D;
    if (!r.all_R2.empty()) {
        r.R2 = Array<float>(n, "R2");
        copy(r.R2.data, r.all_R2.data() + layer * n, n);
        r.R2_transposed = transposed_matrices(r.R2, D);
        return;
    }
    const Array<float> signs = random_signs((size_t)KV * D, r.seed + ((uint64_t)(layer + 1) << 32));
    std::vector<float> host(signs.n, 1), diagonal((size_t)KV * D * D, 0);
    if (!r.has.over_heads) copy(host.data(), signs.data, signs.n);
    for (size_t i = 0; i < signs.n; i++) diagonal[i * D + i % D] = host[i];
    r.R2 = Array<float>(diagonal.size(), "R2");
    copy(r.R2.data, diagonal.data(), diagonal.size());
    hadamard_rows(r.R2.data, (size_t)KV * D, D, 1, r.head);
    r.R2_transposed = transposed_matrices(r.R2, D);
}

// ---------------------------------------------------------------------------------------------------------------------
// Using it

// x R1, or x R1^T (`inverse`), of rows [n, C] in float.
inline void rotate_rows(float* x, size_t n, const Rotation& r, bool inverse = false) {
    const int C = r.shape.C;
    if (!r.has.r1) return;
    if (!r.R1.n)
        return hadamard_rows(x, n, C, C / r.hidden.n, r.hidden, inverse, inverse ? nullptr : r.signs.data,
                             inverse ? r.signs.data : nullptr);
    Array<float> in(std::min(n, (size_t)ROTATION_ROWS) * C, "rows to be rotated");
    for (size_t row = 0; row < n; row += ROTATION_ROWS) {
        const size_t now = std::min((size_t)ROTATION_ROWS, n - row);
        copy(in.data, x + row * C, std::min(in.n, (n - row) * C));
        gemm_float(x + row * C, C, in.data, C, inverse ? r.R1_transposed.data : r.R1.data, C, (int)now, C, C, 1, 0);
    }
}

// The same of a stream's rows, or of those of the embeddings or the head, rounded once; a gain [C], if any, is multiplied in first. What
// rounding leaves goes to `rest` [n, C], if there is one, and counts on the way back.
inline void rotate_stream_rows(floatX* x, size_t n, const Rotation& r, bool inverse = false, const floatX* gain = nullptr,
                               floatX* rest = nullptr) {
    const int C = r.shape.C;
    if (!r.has.r1) return;
    Array<float> rows(std::min(n, (size_t)ROTATION_ROWS) * C, "rows to be rotated");
    for (size_t row = 0; row < n; row += ROTATION_ROWS) {
        const int now = (int)std::min((size_t)ROTATION_ROWS, n - row);
        launch(gain_to_float_kernel, now, 256, rows.data, x + row * C, gain, C);
        if (rest && inverse) launch(add_rest_kernel, now, 256, rows.data, rest + row * C, C);
        rotate_rows(rows.data, now, r, inverse);
        launch(round_rows_kernel, now, 256, x + row * C, rows.data, C);
        if (rest && !inverse) launch(take_rest_kernel, now, 256, rest + row * C, rows.data, x + row * C, C);
    }
}

// R1^T W of W [C, I], a piece of its columns at a time.
inline void rotate_columns(float* W, int I, const Rotation& r) {
    const int C = r.shape.C;
    if (!r.has.r1) return;
    Array<float> piece((size_t)std::min(I, ROTATION_ROWS) * C, "columns to be rotated");
    for (int first = 0; first < I; first += ROTATION_ROWS) {
        const int now = std::min(ROTATION_ROWS, I - first);
        transpose(piece.data, C, W + first, I, C, now);
        rotate_rows(piece.data, now, r);
        transpose(W + first, I, piece.data, C, now, C);
    }
}

// The kv head that query head h reads.
inline int kv_head(const RotationShape& s, int h) { return h / (s.H / s.KV); }

// W [KV D, C] in float: the rows of kv head k become R2_k^T W_k.
inline void rotate_values(Array<float>& W, int C, const Rotation& r) {
    const int D = r.shape.D;
    Array<float> out(W.n, "rotated values");
    for (int k = 0; k < r.shape.KV; k++)
        gemm_float(out.data + (size_t)k * D * C, C, r.R2_transposed.data + (size_t)k * D * D, D, W.data + (size_t)k * D * C, C, D,
                   C, D, 1, 0);
    W.swap(out);
}

// W of the linears behind a norm. `values`: row at which those of v begin, which R2 turns as well.
inline void rotate_behind_norm(Group& group, const floatX* gain, const Rotation& r, int values) {
    const int I = group.I;
    for (int row = 0, now; row < group.O; row += now) {
        const bool v = r.has.r2 && row == values;
        now = v ? group.O - row : std::min(ROTATION_ROWS, (row < values && r.has.r2 ? values : group.O) - row);
        Array<float> W((size_t)now * I, "rows to be rotated");
        floatX* rows = group.W + (size_t)row * I;
        launch(gain_to_float_kernel, now, 256, W.data, rows, r.has.r1 ? gain : nullptr, I);
        rotate_rows(W.data, now, r);
        if (v) rotate_values(W, I, r);
        launch(round_rows_kernel, now, 256, rows, W.data, I);
    }
}

// R4, or a block of it, for a down of dense layers or of experts.
inline const Hadamard& down_hadamard(const Group& down, const Rotation& r) { return down.expert < 0 ? r.ffn : r.expert_ffn; }

// Rotates the layer's weights in place. R2 must be that of this layer.
inline void rotate_layer(Layer& layer, const Rotation& r) {
    const RotationShape& s = r.shape;
    Group &qkv = layer.groups[0], &o = layer.groups[1], router = {"router", router_rows(layer), s.C, layer.router, nullptr, 0, {}};
    const int values = (s.H + s.KV) * s.D;
    rotate_behind_norm(qkv, layer.input_norm, r, values);
    rotate_behind_norm(router, layer.post_norm, r, router.O);  // of no rows where there is none
    for (int g = layer.first_group[2]; g < layer.first_group[3]; g++)
        rotate_behind_norm(layer.groups[g], layer.post_norm, r, layer.groups[g].O);
    if (r.has.r1) {
        launch(fill_kernel, 1, 256, layer.input_norm, 1.0f, s.C);
        launch(fill_kernel, 1, 256, layer.post_norm, 1.0f, s.C);
    }
    if (r.has.r2 && qkv.bias) {
        Array<float> b((size_t)s.KV * s.D, "bias of v");
        launch(gain_to_float_kernel, 1, 256, b.data, qkv.bias + values, (const floatX*)nullptr, s.KV * s.D);
        rotate_values(b, 1, r);  // b R2_k, as a column
        launch(round_rows_kernel, 1, 256, qkv.bias + values, b.data, s.KV * s.D);
    }
    {
        Array<float> W = weights_to_float(o);
        if (r.has.r2) {
            Array<float> out(W.n, "o, rotated");
            for (int h = 0; h < s.H; h++)
                gemm_float(out.data + h * s.D, o.I, W.data + h * s.D, o.I, r.R2.data + (size_t)kv_head(s, h) * s.D * s.D, s.D, o.O,
                           s.D, s.D, 1, 0);
            W.swap(out);
        }
        if (r.has.over_heads) hadamard_rows(W.data, o.O, o.I, 1, r.heads);
        rotate_columns(W.data, o.I, r);
        launch(round_rows_kernel, o.O, 256, o.W, W.data, o.I);
    }
    for (int g = layer.first_group[3]; g < layer.first_group[4]; g++) {
        Group& down = layer.groups[g];
        Array<float> W = weights_to_float(down);
        if (r.has.r4) hadamard_rows(W.data, down.O, down.I, down.I / down_hadamard(down, r).n, down_hadamard(down, r));
        rotate_columns(W.data, down.I, r);
        launch(round_rows_kernel, down.O, 256, down.W, W.data, down.I);
    }
}

// What rotate_layer allocates at most; `given`: R1 is a matrix, whose products need a copy of the rows.
inline size_t rotate_layer_bytes(const Layer& layer, bool given) {
    const Group &qkv = layer.groups[0], &o = layer.groups[1], &gate_up = layer.groups[layer.first_group[2]],
                &down = layer.groups[layer.first_group[3]];
    const size_t C = qkv.I, most = ROTATION_ROWS, copies = given ? 2 : 1, values = qkv.linears[2].row;
    const size_t experts = layer.first_group[3] - layer.first_group[2];  // rows of a router
    const size_t rows = std::min(most, std::max({values, (size_t)gate_up.O, experts}));
    const size_t behind_norm = std::max(copies * rows, 2 * (qkv.O - values)) * C * sizeof(float);
    auto columns = [&](const Group& g) { return float_bytes(g) + copies * std::min(most, (size_t)g.I) * C * sizeof(float); };
    return std::max({behind_norm, 2 * float_bytes(o), columns(o), columns(down)});
}

// R3: the q and k heads of qkv [T, H + 2 KV, D], after the rotary embedding.
inline void rotate_queries_and_keys(floatX* qkv, int T, const Rotation& r) {
    const RotationShape& s = r.shape;
    if (r.has.r3) hadamard_rows(qkv, T, (size_t)(s.H + 2 * s.KV) * s.D, s.H + s.KV, r.head);
}

// The matrix over the heads: x [T, H D] on its way into o.
inline void rotate_o_input(floatX* x, int T, const Rotation& r) {
    if (r.has.over_heads) hadamard_rows(x, T, r.heads.n, 1, r.heads);
}

// R4: x [T, F] on its way into down.
inline void rotate_down_input(floatX* x, int T, const Group& down, const Rotation& r) {
    if (r.has.r4) hadamard_rows(x, T, down.I, down.I / down_hadamard(down, r).n, down_hadamard(down, r));
}
